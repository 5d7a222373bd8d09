package jira

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Grant is what a service account asks an access token with: OAuth 2.0 client
// credentials. Data Center has them since Jira 11, at
// /rest/oauth2/latest/token below the site's URL; Jira Cloud at
// https://auth.atlassian.com/oauth/token, which wants JSON.
type Grant struct {
	TokenURL     string
	ClientID     string
	ClientSecret string
	JSON         bool   // the request is JSON; else a form
	Scopes       string // separated by spaces; empty: not sent
}

// AccessToken is what a service account calls Jira with, as the Token of a
// [Login]. It ends by itself. Printed, it does not show its secret.
type AccessToken struct {
	Secret    string
	Type      string        // as Jira writes it: "bearer", in any case
	Scopes    []string      // as Jira tells them; nil where it does not
	ExpiresIn time.Duration // from when Jira answered: over zero, and at most a day
}

// String tells the token without its secret.
func (t AccessToken) String() string {
	return fmt.Sprintf("access token of %v, scopes %q", t.ExpiresIn, t.Scopes)
}

// Format is String for every verb, so that none prints the secret.
func (t AccessToken) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// longestAccess bounds the life of an access token. Jira's live for an hour:
// an answer that promises more than a day is a mistake to be noticed.
const longestAccess = 24 * time.Hour

// AccessToken asks for an access token with g, whose secret goes in the body
// to g.TokenURL and nowhere else: no redirect is followed. TokenURL may be on
// another host than the site.
//
// It is sent once, as [Client.CreateToken] is, for an access token cannot be
// taken back. A client id or secret that is refused is an error of kind
// [Refused], and is not sent again for a minute; a scope that the account does
// not have is one of kind [Denied].
func (s *Site) AccessToken(ctx context.Context, g Grant) (AccessToken, error) {
	cl := call{
		method: http.MethodPost, body: g.form(), want: []int{http.StatusOK}, once: true,
		open: true, fault: oauthFault,
	}
	if g.JSON {
		fields := map[string]string{}
		for name, values := range g.form() {
			fields[name] = values[0]
		}
		cl.body = fields
	}
	c, err := s.granted(g, g.TokenURL, &cl)
	if err != nil {
		return AccessToken{}, err
	}
	a, err := c.do(ctx, cl)
	s.grants.note(g, c.login, err)
	if err != nil {
		return AccessToken{}, err
	}
	return a.accessToken(g)
}

// RevokeAccessToken ends an access token that was asked for with g, at an
// address that takes what RFC 7009 says. No error means that the token is not
// valid any more, or never was.
func (s *Site) RevokeAccessToken(ctx context.Context, revocationURL string, g Grant, secret string) error {
	form := url.Values{
		"token": {secret}, "token_type_hint": {"access_token"},
		"client_id": {g.ClientID}, "client_secret": {g.ClientSecret},
	}
	cl := call{
		method: http.MethodPost, body: form, want: []int{http.StatusOK, http.StatusBadRequest}, urgent: true,
		open: true, fault: oauthFault,
	}
	c, err := s.granted(g, revocationURL, &cl, secret)
	if err != nil {
		return err
	}
	a, err := c.do(ctx, cl)
	s.grants.note(g, c.login, err)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusBadRequest && a.oauthError() != "invalid_token":
		return a.denied(c.login)
	case len(a.body) > 0 && !json.Valid(a.body):
		return a.nonsense("the body is not JSON")
	}
	return nil
}

// form is g as RFC 6749 writes it.
func (g Grant) form() url.Values {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {g.ClientID}, "client_secret": {g.ClientSecret}}
	if g.Scopes != "" {
		form.Set("scope", g.Scopes)
	}
	return form
}

// granted returns the client that makes cl at address with g, and completes
// cl, whose body may hold more secrets. It fails if g was refused just now.
func (s *Site) granted(g Grant, address string, cl *call, more ...string) (*Client, error) {
	there, err := s.reach(address)
	if err != nil {
		return nil, (&Error{Kind: Denied, Unsent: true, Words: "the address " + err.Error()}).of(*cl)
	}
	root := *there.base
	cl.path, root.Path = root.Path, ""
	there.base, there.address = &root, root.String()
	// With no Token and no Password no header tells anything.
	l := newLogin(Login{Username: g.ClientID}, s.userAgent)
	if last := s.grants.last(g); last != nil {
		if e := last.refused(); e != nil {
			return nil, e.of(*cl)
		}
		l.turn = last.turn
	}
	l.inBodies = spellings(append(more, g.ClientSecret))
	return &Client{site: there, login: l}, nil
}

// spellings are secrets as they travel in a body, and as what read it may
// quote them.
func spellings(secrets []string) []string {
	all := []string{}
	for _, secret := range secrets {
		inJSON, _ := json.Marshal(secret) // a string always can be
		for _, s := range []string{strings.Trim(string(inJSON), `"`), url.QueryEscape(secret), secret} {
			if s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// oauthFault is what an answer to a grant's client means: RFC 6749, and
// Cloud's access_denied.
func oauthFault(l *login, a *answer, said string) *Error {
	switch {
	case a.status < 400:
		return &Error{
			Kind: Nonsense, Words: "a redirect to " + l.quote(redirectTarget(a), a.call.secret),
			Advice: "it is not followed, for the client secret would go along; write the address at which it is answered",
		}
	case a.status == http.StatusNotFound && a.isHTML():
		return &Error{Kind: Nonsense, Words: said, Advice: "there is nothing at this address: Data Center has access tokens since Jira 11"}
	case a.status != http.StatusBadRequest && a.status != http.StatusUnauthorized && a.status != http.StatusForbidden:
		return nil
	}
	switch a.oauthError() {
	case "invalid_client", "access_denied":
		return &Error{Kind: Refused, Refusing: true, Words: said, Advice: l.whyRefused()}
	case "invalid_scope", "unauthorized_client":
		return &Error{Kind: Denied, Refusing: true, Words: said, Advice: "the service account may not have these scopes, or no access token at all"}
	}
	return nil
}

// oauthError is the code of an error as RFC 6749 has it, or "".
func (a *answer) oauthError() string {
	var said struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(a.body, &said) // what is no such error has no code
	return said.Error
}

// accessToken reads the answer to g.
func (a *answer) accessToken(g Grant) (AccessToken, error) {
	var made struct {
		Secret    string          `json:"access_token"`
		Type      string          `json:"token_type"`
		ExpiresIn json.RawMessage `json:"expires_in"`
		Scope     string          `json:"scope"`
	}
	if err := a.decode(&made); err != nil {
		return AccessToken{}, err
	}
	if made.Type == "" && g.JSON { // Cloud is documented without
		made.Type = "Bearer"
	}
	seconds, err := strconv.ParseInt(string(made.ExpiresIn), 10, 64)
	t := AccessToken{Secret: made.Secret, Type: made.Type, Scopes: strings.Fields(made.Scope), ExpiresIn: time.Duration(seconds) * time.Second}
	wrong := ""
	switch {
	case t.Secret == "" || len(t.Secret) > mostSecret || strings.ContainsFunc(t.Secret, notInHeader):
		wrong = "it is missing or could not be sent in a header"
	case !strings.EqualFold(t.Type, "bearer"):
		wrong = "its token_type is not bearer"
	case err != nil:
		wrong = "its expires_in is missing or no whole number"
	case seconds <= 0 || seconds > int64(longestAccess/time.Second):
		wrong = fmt.Sprintf("its expires_in is %d, which is no number of seconds between 1 and a day", seconds)
	case slices.ContainsFunc(t.Scopes, func(s string) bool { return strings.ContainsFunc(s, notInHeader) }):
		wrong = "its scope holds what cannot be written"
	}
	if wrong != "" {
		return AccessToken{}, a.nonsense("of the new access token: " + wrong)
	}
	if len(t.Scopes) == 0 {
		t.Scopes = nil
	}
	return t, nil
}

// mostSecret bounds the secret of an access token, in bytes. Those of Cloud
// are some two thousand; Tomcat takes no more than 8 KiB of headers.
const mostSecret = 8 << 10

// refusedGrants are the logins of grants that were refused, or limited, when they were
// used last, so that the next call knows. The zero value is none.
type refusedGrants struct {
	mu      sync.Mutex
	byGrant map[Grant]*login
}

// key is what a refusal of g holds for, whatever is asked for.
func (g Grant) key() Grant {
	g.Scopes = ""
	return g
}

// last is the login that g was refused or limited with, or nil.
func (r *refusedGrants) last(g Grant) *login {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byGrant[g.key()]
}

// note remembers g's login l if its call ended with err because it was refused or
// limited, and forgets it otherwise.
func (r *refusedGrants) note(g Grant, l *login, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !Is(err, Refused) && !Is(err, Busy) {
		delete(r.byGrant, g.key())
		return
	}
	if r.byGrant == nil {
		r.byGrant = map[Grant]*login{}
	}
	r.byGrant[g.key()] = l
}

// GrantPausedUntil is [Client.PausedUntil] of who asks with g.
func (s *Site) GrantPausedUntil(g Grant) time.Time {
	if l := s.grants.last(g); l != nil {
		return l.turn.ShutUntil()
	}
	return time.Time{}
}
