package jiratest

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// request is a call with its body read, so that it can be acted on before, after and without its client.
type request struct {
	method, path string // path is escaped and without the context path and the query
	query        url.Values
	rawQuery     string
	header       http.Header
	body         []byte
	baseURL      string
	host         string // on Cloud: which of its hosts it was sent to
	headerBytes  int
	anonymous    bool // a fault: the credential counts for nothing

	// Found out while it is answered.

	vars   []string // the path's elements at the braces of the route
	user   *user    // who calls; nil: anonymous
	token  *pat     // the token he calls with, if any
	access *access  // the same of a service account
}

// credential is what a call carries to log in with.
type credential struct {
	kind           string // "basic", "bearer" or ""
	name, password string
	raw            string
}

func (q *request) credential() credential {
	scheme, rest, _ := strings.Cut(q.header.Get("Authorization"), " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(scheme) {
	case "bearer":
		return credential{kind: "bearer", raw: rest}
	case "basic":
		pair, _ := base64.StdEncoding.DecodeString(rest) // what is no base64 is a wrong password
		name, password, _ := strings.Cut(string(pair), ":")
		return credential{kind: "basic", name: name, password: password}
	}
	return credential{}
}

// claims says as whom a call comes without letting him in: the owner of its token, if that works, or the login it names.
// s.mu is held.
func (s *Server) claims(q *request) (name, kind string) {
	c := q.credential()
	var u *user
	switch c.kind {
	case "basic":
		u = s.login(c.name)
	case "bearer":
		if k := s.bySec[c.raw]; k != nil && s.works(k, s.now()) {
			u = s.byKey[k.owner]
		}
		if t := s.access[c.raw]; s.valid(t) {
			u = t.account.user
		}
		if account, _ := s.cloudLogin(q); account != nil {
			u = account.user
		}
	}
	if u == nil {
		return "", c.kind
	}
	return u.Name, c.kind
}

// authenticate finds out who calls, as Jira's login filter does: a bad password is refused outright, while a bad token, or none,
// makes the call anonymous. It fills in q.user and q.token and returns the headers that tell, and a refusal or nil. s.mu is held.
func (s *Server) authenticate(q *request) (http.Header, *answer) {
	h := http.Header{}
	c := q.credential()
	if q.anonymous {
		c = credential{}
	}
	var refusal *answer
	switch c.kind {
	case "basic":
		refusal = s.authenticateBasic(q, c, h)
	case "bearer":
		now := s.now()
		if k := s.bySec[c.raw]; k != nil && s.works(k, now) {
			k.touch(now)
			q.token, q.user = k, s.byKey[k.owner]
		}
		if t := s.access[c.raw]; s.valid(t) {
			q.access, q.user = t, t.account.user
		}
	}
	if q.user == nil && refusal == nil && !q.anonymous {
		q.user = s.session(q)
	}
	if !s.switches.XAUserNameAbsent && (q.access == nil || !s.switches.ServiceNameAbsent) {
		h.Set("X-AUSERNAME", s.ausername(q.user))
	}
	return h, refusal
}

// ausername is how the header shows a login. A real Jira encodes it like a form field.
func (s *Server) ausername(u *user) string {
	switch {
	case u == nil:
		return "anonymous"
	case s.switches.XAUserNameRaw:
		return u.Name
	}
	return url.QueryEscape(u.Name)
}

// basicPath says that a path is on the allow-list for Basic authentication.
func (s *Server) basicPath(path string) bool {
	return slices.ContainsFunc(s.switches.BasicPaths, func(begin string) bool { return strings.HasPrefix(path, begin) })
}

func (s *Server) authenticateBasic(q *request, c credential, h http.Header) *answer {
	u := s.login(c.name)
	if s.switches.BasicOff && (u == nil || !slices.Contains(s.switches.BasicAllowed, u.Name)) && !s.basicPath(q.path) {
		a := jsonAnswer(http.StatusForbidden, map[string]any{"message": "Basic Authentication has been disabled on this instance."})
		return &a
	}
	limit := cmp.Or(s.switches.CaptchaAfter, 3)
	if u != nil && limit > 0 && u.failed >= limit {
		h.Set("X-Seraph-LoginReason", "AUTHENTICATION_DENIED")
		h.Set("X-Authentication-Denied-Reason", "CAPTCHA_CHALLENGE; login-url="+q.baseURL+"/login.jsp")
		a := htmlAnswer(http.StatusForbidden, "Forbidden (403)",
			"Encountered a 403 - Forbidden error while loading this page. Basic Authentication Failure - Reason : AUTHENTICATION_DENIED")
		return &a
	}
	if u == nil || u.Inactive || u.Password != c.password {
		if u != nil {
			u.failed++
		}
		h.Set("X-Seraph-LoginReason", "AUTHENTICATED_FAILED")
		h.Set("WWW-Authenticate", fmt.Sprintf("OAuth realm=%q", url.QueryEscape(q.baseURL)))
		a := htmlAnswer(http.StatusUnauthorized, "Unauthorized (401)",
			"Encountered a 401 - Unauthorized error while loading this page. Basic Authentication Failure - Reason : AUTHENTICATED_FAILED")
		return &a
	}
	u.failed = 0
	q.user = u
	session := rand.Text()
	s.sessions[session] = u.Key
	h.Set("X-Seraph-LoginReason", "OK")
	h.Add("Set-Cookie", (&http.Cookie{Name: "JSESSIONID", Value: session, Path: cmp.Or(s.base, "/"), HttpOnly: true}).String())
	h.Add("Set-Cookie", (&http.Cookie{Name: "atlassian.xsrf.token", Value: rand.Text(), Path: cmp.Or(s.base, "/")}).String())
	return nil
}

// session is who logged in earlier with the cookie that q carries. A client that keeps cookies is therefore
// somebody even when its token is dead, and can take a dead token for a live one.
func (s *Server) session(q *request) *user {
	for _, c := range (&http.Request{Header: q.header}).CookiesNamed("JSESSIONID") {
		if u := s.byKey[s.sessions[c.Value]]; u != nil && !u.Inactive {
			return u
		}
	}
	return nil
}

// xsrf refuses what a browser could have been tricked into, as the REST plugin's filter does. A JSON body is proof enough that
// no form sent it, the header likewise; a browser's User-Agent never passes, for no test here is one.
func (s *Server) xsrf(q *request) *answer {
	switch q.method {
	case http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		return nil
	}
	if q.path == tokenPath || q.path == s.switches.RevocationPath {
		return nil // whose form carries the credential
	}
	browser := strings.Contains(q.header.Get("User-Agent"), "Mozilla/")
	proof := strings.EqualFold(q.header.Get("X-Atlassian-Token"), "no-check") || q.json()
	if s.switches.XSRFOff || proof && !browser {
		return nil
	}
	a := textAnswer(http.StatusForbidden, "XSRF check failed")
	return &a
}

// json says that the body is declared as JSON.
func (q *request) json() bool {
	kind, _, _ := strings.Cut(q.header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "application/json")
}
