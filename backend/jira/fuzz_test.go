package jira

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// fuzzNewToken is the secret of a token that a fuzzed answer tells.
const fuzzNewToken = "NDEyNDEyNDEyNDEyOpDhaKBEU8TxqWoeq7YHb42pjeXs"

var (
	fuzzBearer = Login{Username: "ci", Key: "K1", Token: "MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs"}
	fuzzBasic  = Login{Username: "ci", Key: "K1", Password: `horse-"battery"&staple`}
)

// spell writes secrets into what a fuzzed answer says, so that it says them
// back in any place: {N} is the new token's, {S} is l's own, plain, {J} as in
// JSON and {H} as in HTML, and {B} is how l's travels.
func spell(l Login, s string) string {
	own, travels := l.Token, l.Token
	if l.Token == "" {
		own, travels = l.Password, basicAuth(l)
	}
	inJSON, err := json.Marshal(own)
	if err != nil {
		panic(err)
	}
	return strings.NewReplacer(
		"{N}", fuzzNewToken, "{S}", own, "{J}", strings.Trim(string(inJSON), `"`), "{H}", html.EscapeString(own), "{B}", travels,
	).Replace(s)
}

// reply is an answer as a fuzzer makes it up.
type reply struct {
	status int
	kind   string // Content-Type
	user   string // X-AUSERNAME
	which  byte   // of otherHeaders
	other  string // what that says
	body   string
	cut    bool // the body ends too early
}

var otherHeaders = []string{"X-Nothing", "Retry-After", "Location", "X-Authentication-Denied-Reason", "X-Seraph-LoginReason"}

func (r reply) answer(req *http.Request, l Login) *http.Response {
	h := http.Header{}
	for name, value := range map[string]string{
		"Content-Type": r.kind, "X-Ausername": r.user, otherHeaders[int(r.which)%len(otherHeaders)]: r.other,
	} {
		if value != "" {
			h.Set(name, spell(l, value))
		}
	}
	var body io.Reader = strings.NewReader(spell(l, r.body))
	if r.cut {
		body = io.MultiReader(body, brokenReader{})
	}
	return &http.Response{StatusCode: r.status, Header: h, Body: io.NopCloser(body), Request: req}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// scripted is a network on which Jira answers requests for tokens, users and
// projects with said, and those for who the user is and may do with me.
type scripted struct {
	login    Login
	said, me reply
	sent     []*http.Request
}

func (s *scripted) answer(req *http.Request) (*http.Response, error) {
	s.sent = append(s.sent, req)
	for _, path := range []string{tokensPath, usersPath, membersPath, projectsPath} {
		if strings.HasPrefix(req.URL.Path, "/jira"+path) {
			return s.said.answer(req, s.login), nil
		}
	}
	return s.me.answer(req, s.login), nil
}

// count is how many requests of method were sent.
func (s *scripted) count(method string) (n int) {
	for _, req := range s.sent {
		if req.Method == method {
			n++
		}
	}
	return n
}

// client returns a new client of the network, which waits for nothing.
func (s *scripted) client(t *testing.T) *Client {
	t.Helper()
	site := network(s.answer).site(t)
	site.pause = pause{floor: 1, roof: time.Microsecond, hint: time.Microsecond, retry: 1}
	return site.As(s.login)
}

// fits checks what holds for every error of a call that s answered.
func (s *scripted) fits(t *testing.T, err error) {
	t.Helper()
	e := failure(t, err)
	if !slices.Contains([]Kind{Refused, Denied, Busy, Down, Nonsense}, e.Kind) || e.Method == "" || e.Path == "" {
		t.Errorf("%#v does not say what it is", e)
	}
	holdsNoSecret(t, "fuzzed", err, s.login.Token, s.login.Password, basicAuth(s.login), fuzzNewToken)
}

// isOurs tells whether an answer with this X-AUSERNAME may count as given to
// the login's own user, once me has said who that is.
func (s *scripted) isOurs(user string) bool {
	user = spell(s.login, user)
	if names(user, "ci") {
		return true
	}
	var u struct{ Name, Key string }
	if json.Unmarshal([]byte(spell(s.login, s.me.body)), &u) != nil || s.me.status != http.StatusOK || u.Name == "" || u.Key == "" {
		return false
	}
	return (strings.EqualFold(u.Name, "ci") || u.Key == "K1") && (user == "" || names(user, u.Name))
}

const fuzzMe = `{"name":"ci","key":"K1","active":true}`

// FuzzCreateToken: whatever is answered to a mint, no error tells a secret,
// nothing but a whole token is one, and what may have been made is not said
// not to be.
func FuzzCreateToken(f *testing.F) {
	const good = `{"id":412,"name":"nightly","createdAt":"2026-03-02T08:15:09.417+0000","expiringAt":"2026-03-03T08:15:09.417Z","rawToken":"{N}"}`
	seed := func(basic bool, r reply, meStatus int, meUser, me string) {
		f.Add(basic, r.status, r.kind, r.user, r.which, r.other, r.body, r.cut, meStatus, meUser, me)
	}
	for _, basic := range []bool{false, true} {
		seed(basic, reply{status: 201, user: "ci", body: good}, 200, "ci", fuzzMe)
		seed(basic, reply{status: 200, body: good, cut: true}, 200, "", fuzzMe)
		seed(basic, reply{status: 201, user: "ci-bot", body: good}, 200, "ci-bot", `{"name":"ci-bot","key":"K1"}`)
		seed(basic, reply{status: 201, user: "other", body: good}, 200, "", fuzzMe)
		seed(basic, reply{status: 201, user: "ci-bot", body: good}, 429, "", "")
		seed(basic, reply{status: 201, user: "ci-bot", body: good}, 401, "", "")
		seed(basic, reply{status: 201, user: "anonymous", body: good}, 200, "", fuzzMe)
		for _, body := range []string{
			`{"id":412,"name":"nightly"}`, `{"id":412,"name":"nightly","rawToken":"{N}\n"}`, `{"id":412,"name":"{J}","rawToken":"{N}"}`,
			`{"id":"x","name":"nightly","rawToken":"{N}"}`, `{"id":412,"name":"nightly","rawToken":"{N}","x":"{J}"`,
		} {
			seed(basic, reply{status: 201, user: "ci", body: body}, 200, "ci", fuzzMe)
		}
		seed(basic, reply{status: 201, kind: "text/html", body: "<html><title>{H} {B} {N}</title>"}, 401, "", "")
		seed(basic, reply{status: 400, body: `{"errorMessages":["{J}"],"errors":{"x":"{B}"},"message":"{N}","error":"{J}{J}"}`}, 0, "", "")
		seed(basic, reply{status: 401, kind: "text/plain", body: "{S} {B}", which: 4, other: "OUT"}, 0, "", "")
		seed(basic, reply{status: 403, which: 3, other: "CAPTCHA_CHALLENGE; {S} {B}"}, 0, "", "")
		seed(basic, reply{status: 302, which: 2, other: "https://ci:{S}@{B}.example.com/{B}"}, 0, "", "")
		seed(basic, reply{status: 429, which: 1, other: "7", body: `{"message":"{J}"}`}, 0, "", "")
		seed(basic, reply{status: 503, which: 1, other: "Wed, 21 Oct 2026 07:28:00 GMT"}, 0, "", "")
		seed(basic, reply{status: 100, body: "{S}"}, 0, "", "")
	}
	f.Fuzz(func(t *testing.T, basic bool, status int, kind, user string, which byte, other, body string, cut bool, meStatus int, meUser, me string) {
		s := &scripted{
			login: fuzzBearer,
			said:  reply{status, kind, user, which, other, body, cut},
			me:    reply{status: meStatus, user: meUser, body: me},
		}
		if basic {
			s.login = fuzzBasic
		}
		token, secret, err := s.client(t).CreateToken(t.Context(), "nightly", 1)
		if n := s.count(http.MethodPost); n != 1 && status != http.StatusTooManyRequests {
			t.Errorf("it was sent %d times", n)
		}
		if err != nil {
			s.fits(t, err)
			if token != (Token{}) || secret != "" {
				t.Errorf("with the error came %+v and %q", token, secret)
			}
			// A refusal of the mint itself, and not of a call after it.
			if refusal := status == 429 || status >= 400 && status < 500 && status != 408; NothingMade(err) && !refusal {
				t.Errorf("after %d nothing is said to be made: %v", status, err)
			}
			return
		}
		if status != 200 && status != 201 || cut || user != "" && !s.isOurs(user) {
			t.Errorf("an answer with %d to %q, cut: %v, made %+v", status, user, cut, token)
		}
		if !isKey(token.ID) || token.Name != "nightly" || secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("got %+v, %q", token, secret)
		}
		if !strings.Contains(spell(s.login, body), token.ID) {
			t.Errorf("the id %q is not in the answer", token.ID)
		}
	})
}

// FuzzTokens: a list is believed only where it is one, was given to the login's
// own user, and tells every token in it.
func FuzzTokens(f *testing.F) {
	for _, body := range []string{
		`[]`, `null`, `[null]`, ``, `{}`, `[{}]`, `<html><title>{S}</title>`, `[{"id":1,"name":"a"},{"id":"2","name":"b","expiringAt":"9999-12-31T00:00:00Z"}]`,
		`[{"id":1e3,"name":"a"}]`, `[{"id":9223372036854775807,"name":"{S}","createdAt":"{S}"}]`, ` [ ] x`, `[{"id":1,"name":"a","lastAccessedAt":"?"}]`, `[{"id":1}]`,
	} {
		f.Add(200, "application/json", "ci", body, 200, "ci", fuzzMe)
		f.Add(200, "", "", body, 200, "", fuzzMe)
		f.Add(200, "text/html;charset=UTF-8", "ci", body, 200, "ci", fuzzMe)
		f.Add(200, "", "other", body, 200, "other", `{"name":"other","key":"K2"}`)
		f.Add(404, "", "anonymous", body, 200, "{S}", `{"name":"{S}","key":"K2"}`)
	}
	f.Fuzz(func(t *testing.T, status int, kind, user, body string, meStatus int, meUser, me string) {
		s := &scripted{
			login: fuzzBearer,
			said:  reply{status: status, kind: kind, user: user, body: body},
			me:    reply{status: meStatus, user: meUser, body: me},
		}
		list, err := s.client(t).Tokens(t.Context())
		if err != nil {
			s.fits(t, err)
			if list != nil {
				t.Errorf("with the error came %+v", list)
			}
			return
		}
		if status != 200 || !s.isOurs(user) || strings.HasPrefix(kind, "text/html") {
			t.Errorf("an answer with %d, of type %q, to %q is believed: %+v", status, kind, user, list)
		}
		var entries []map[string]json.RawMessage
		if err := json.Unmarshal([]byte(spell(s.login, body)), &entries); err != nil || entries == nil || len(entries) != len(list) {
			t.Fatalf("%q is read as %+v", body, list)
		}
		for _, k := range list {
			if !isKey(k.ID) || len(k.Name) > mostName || !k.Expires.IsZero() && k.Expires.Year() >= 9999 {
				t.Errorf("%q is read as %+v", body, k)
			}
		}
	})
}

// FuzzDeleteToken: gone is what Jira says is gone, to the login's own user.
func FuzzDeleteToken(f *testing.F) {
	for _, id := range []string{"412", "0", "-1", "0412", "../user", "9223372036854775808", "{S}"} {
		f.Add(id, 204, "", "ci", "", 200, "ci", fuzzMe)
		f.Add(id, 404, "application/json", "", `{"error":"{S}"}`, 200, "", fuzzMe)
		f.Add(id, 200, "", "", `[{"id":412,"name":"a"}]`, 200, "", fuzzMe)
		f.Add(id, 404, "text/html", "ci", "<html>{S}", 401, "", "")
		f.Add(id, 404, "text/plain", "ci", "no such route", 200, "ci", fuzzMe)
		f.Add(id, 204, "", "other", "", 200, "", `{"name":"other","key":"K1"}`)
	}
	f.Fuzz(func(t *testing.T, id string, status int, kind, user, body string, meStatus int, meUser, me string) {
		s := &scripted{
			login: fuzzBearer,
			said:  reply{status: status, kind: kind, user: user, body: body},
			me:    reply{status: meStatus, user: meUser, body: me},
		}
		id = spell(s.login, id)
		err := s.client(t).DeleteToken(t.Context(), id)
		for _, req := range s.sent {
			if req.Method == http.MethodDelete && req.URL.String() != "http://jira.example.com/jira"+tokensPath+"/"+id {
				t.Errorf("for the id %q it called %s", id, req.URL)
			}
		}
		if s.count(http.MethodDelete) > 0 && strings.ContainsFunc(id, func(r rune) bool { return r < '0' || r > '9' }) {
			t.Errorf("%q passes for an id", id)
		}
		if err != nil {
			s.fits(t, err)
			return
		}
		if status != 204 && status != 404 && status != 200 || !s.isOurs(user) {
			t.Errorf("an answer with %d to %q proves that it is gone", status, user)
		}
		if b := strings.TrimSpace(spell(s.login, body)); b != "" && !json.Valid([]byte(b)) {
			t.Errorf("%q proves that it is gone", b)
		}
		if user == "" && strings.Contains(spell(s.login, body), `"id":`+id+`,"name"`) {
			t.Errorf("it is gone, says a list with it: %q", body)
		}
	})
}

// FuzzDirectory: a user, his absence, his end and a project's roles are read
// only from an answer that says them to the login's own user, no error tells a
// secret, and a user who may have been made is not said not to be.
func FuzzDirectory(f *testing.F) {
	const groups = `"groups":{"size":1,"items":[{"name":"staff"}]}`
	for _, body := range []string{
		`{"name":"temp","key":"K2","active":true,` + groups + `}`, `{"name":"TEMP","key":"K2","active":false,` + groups + `}`, `{"name":"temp","key":"K2","active":false}`,
		`{"name":"{N}","key":"{J}",` + groups + `}`, `{"errorMessages":["{J} {N}"],"errors":{"password":"{N}"}}`, `{"errorMessages":null}`, `{"errors":{}}`, `{"message":"{N}"}`,
		`{"Developers":"https://jira.example.com/rest/api/2/project/OPS/role/10001"}`, `{"{J}":"{J}"}`, `{}`, `null`, ``, `[]`, `<html><title>{N}{H}</title>`, `{N}`,
	} {
		for _, status := range []int{200, 201, 204, 400, 404} {
			f.Add(status, "application/json", "ci", body, false, 200, "ci", fuzzMe)
			f.Add(status, "", "", body, false, 200, "", fuzzMe)
		}
		f.Add(200, "", "other", body, true, 200, "other", `{"name":"other","key":"K2"}`)
		f.Add(404, "text/html", "anonymous", body, false, 401, "anonymous", "")
	}
	f.Fuzz(func(t *testing.T, status int, kind, user, body string, cut bool, meStatus int, meUser, me string) {
		s := &scripted{
			login: fuzzBearer,
			said:  reply{status: status, kind: kind, user: user, body: body, cut: cut},
			me:    reply{status: meStatus, user: meUser, body: me},
		}
		c, said := s.client(t), spell(s.login, body)
		believed := func(what string, statuses ...int) {
			t.Helper()
			if !slices.Contains(statuses, status) || cut || !s.isOurs(user) {
				t.Errorf("%s, by an answer with %d to %q, cut: %v: %q", what, status, user, cut, said)
			}
		}
		if u, err := c.CreateUser(t.Context(), NewUser{Name: "temp", Password: fuzzNewToken}); err != nil {
			s.fits(t, err)
			if refusal := status == 429 || status >= 400 && status < 500 && status != 408; NothingMade(err) && !refusal {
				t.Errorf("after %d nobody is said to be made: %v", status, err)
			}
		} else if status != 201 || cut || user != "" && !s.isOurs(user) || !strings.EqualFold(u.Name, "temp") || u.Key == "" {
			t.Errorf("%d to %q, cut: %v: %q is read as %+v", status, user, cut, said, u)
		}
		if n := s.count(http.MethodPost); n != 1 && status != http.StatusTooManyRequests {
			t.Errorf("it was sent %d times", n)
		}
		c = s.client(t)
		u, groups, found, err := c.FindUser(t.Context(), "temp")
		switch {
		case err != nil:
			s.fits(t, err)
			if found || groups != nil || u != (User{}) {
				t.Errorf("with the error came %+v, %v, %v", u, groups, found)
			}
		case found:
			believed("found", 200)
			if !strings.EqualFold(u.Name, "temp") || u.Key == "" || slices.Contains(groups, "") || !strings.Contains(strings.ToLower(said), `"active"`) {
				t.Errorf("%q is read as %+v, %v", said, u, groups)
			}
		default:
			believed("not found", 404)
			if said := strings.ToLower(said); !strings.Contains(said, "error") || u != (User{}) || groups != nil {
				t.Errorf("%q is read as %+v, %v", said, u, groups)
			}
		}
		// Where FindUser decides, it gets the same answer.
		for what, err := range map[string]error{
			"deleted":        deleteUser(t.Context(), s.client(t), "temp"),
			"deactivated":    s.client(t).Deactivate(t.Context(), "temp"),
			"password set":   s.client(t).SetPassword(t.Context(), "temp", fuzzNewToken),
			"out of a group": s.client(t).RemoveFromGroup(t.Context(), "staff", "temp"),
			"out of a role":  s.client(t).RemoveFromRole(t.Context(), "OPS", "10001", "temp"),
		} {
			if err != nil {
				s.fits(t, err)
				continue
			}
			believed(what, map[string][]int{
				"deleted": {204, 404}, "deactivated": {200}, "password set": {204}, "out of a group": {200, 404}, "out of a role": {204, 404},
			}[what]...)
		}
		if ids, err := s.client(t).ProjectRoles(t.Context(), "OPS"); err != nil {
			s.fits(t, err)
		} else {
			believed("roles", 200)
			for name, id := range ids {
				if !isKey(id) {
					t.Errorf("role %q has the id %q", name, id)
				}
			}
		}
	})
}

// FuzzWhoAmI: nobody is a user, an administrator or a version of Jira by an
// answer that does not say so.
func FuzzWhoAmI(f *testing.F) {
	for _, body := range []string{
		fuzzMe, `{"name":"{S}","key":"K1"}`, `null`, ``, `[]`, `{"name":"","key":""}`, `<html><title>{H}</title>`,
		`{"name":"ci","key":"K1","permissions":{"ADMINISTER":{"havePermission":true}}}`,
		`{"name":"ci","key":"K1","permissions":{"SYSTEM_ADMIN":{"havePermission":true}}}`,
		`{"name":"other","key":"K2","permissions":{"ADMINISTER":{"havePermission":true}}}`,
		`{"version":"10.3.2","versionNumbers":[10,3,2],"deploymentType":"Server"}`, `{"version":"{S}","versionNumbers":[8,14],"deploymentType":"Cl\u0000oud"}`,
	} {
		f.Add(true, 200, "", "ci", body)
		f.Add(false, 200, "", "ci", body)
		f.Add(false, 200, "", "other", body)
		f.Add(false, 200, "text/html", "", body)
		f.Add(false, 401, "text/plain", "anonymous", body)
		f.Add(true, 403, "", "", body)
	}
	f.Fuzz(func(t *testing.T, basic bool, status int, kind, user, body string) {
		s := &scripted{login: fuzzBearer, me: reply{status: status, kind: kind, user: user, body: body}}
		if basic {
			s.login = fuzzBasic
		}
		said := spell(s.login, body)
		if u, err := s.client(t).Myself(t.Context()); err != nil {
			s.fits(t, err)
		} else if status != 200 || u.Name == "" || u.Key == "" || !json.Valid([]byte(said)) {
			t.Errorf("%d %q is read as user %+v", status, said, u)
		}
		if admin, err := s.client(t).Administrator(t.Context()); err != nil {
			s.fits(t, err)
		} else if status != 200 || !s.isOurs(user) || admin && !strings.Contains(strings.ToLower(said), "true") {
			t.Errorf("%d %q to %q is read as %v", status, said, user, admin)
		}
		if have, err := s.client(t).Permissions(t.Context(), "OPS"); err != nil {
			s.fits(t, err)
		} else if _, listed := have["ADMINISTER"]; status != 200 || !s.isOurs(user) || !listed {
			t.Errorf("%d %q to %q is read as %v", status, said, user, have)
		}
		if info, err := s.client(t).ServerInfo(t.Context()); err != nil {
			s.fits(t, err)
		} else {
			if status != 200 || len(info.VersionNumbers) < 2 || !json.Valid([]byte(said)) {
				t.Errorf("%d %q is read as %+v", status, said, info)
			}
			if strings.Contains(info.Version+info.DeploymentType, fuzzBearer.Token) || len(info.Version+info.DeploymentType) > 2*(mostWords+len("…")) {
				t.Errorf("it says %+v", info)
			}
			if info.AtLeast(8, 14) && info.VersionNumbers[0] < 8 || !info.AtLeast(math.MinInt, math.MinInt) {
				t.Errorf("%v is at least 8.14: %v", info.VersionNumbers, info.AtLeast(8, 14))
			}
		}
	})
}

// FuzzAccessToken: whatever is answered to client credentials, no error tells a
// secret, and only what can be used for a known time is an access token.
func FuzzAccessToken(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"{N}","token_type":"Bearer","expires_in":3600,"scope":"READ"}`, `{"access_token":"{N}","expires_in":60}`,
		`{"access_token":"{N}","token_type":"mac","expires_in":60}`, `{"access_token":"{N}","token_type":"bearer","expires_in":-1}`,
		`{"access_token":"{N}\n","token_type":"bearer","expires_in":1}`, `{"access_token":"{N}","token_type":"bearer","expires_in":1e99,"scope":"{J}"}`,
		`{"error":"invalid_client","error_description":"{J} {S}"}`, `{"error":"invalid_scope"}`, `{"error":"invalid_token"}`, `null`, ``, `<html><title>{H}`, `{S}`,
	} {
		for _, status := range []int{200, 307, 400, 401, 403, 404, 429, 503} {
			f.Add(status, "application/json", "https://x:{S}@{S}/", body, false)
			f.Add(status, "text/plain", "", body, true)
		}
	}
	f.Fuzz(func(t *testing.T, status int, kind, location, body string, cut bool) {
		s := &scripted{login: fuzzBearer, me: reply{status: status, kind: kind, which: 2, other: location, body: body, cut: cut}}
		g := Grant{TokenURL: "http://auth.example.com/oauth/token", ClientID: "ci", ClientSecret: fuzzBearer.Token}
		for _, g.JSON = range []bool{false, true} {
			sent := len(s.sent)
			token, err := s.client(t).site.AccessToken(t.Context(), g)
			if n := len(s.sent) - sent; n != 1 && status != http.StatusTooManyRequests {
				t.Errorf("it was sent %d times", n)
			}
			if err != nil {
				s.fits(t, err)
				if token.Secret != "" {
					t.Error("with the error came a token")
				}
				if refusal := status >= 400 && status < 500 && status != 408; NothingMade(err) && !refusal {
					t.Errorf("after %d nothing is said to be made: %v", status, err)
				}
				continue
			}
			if status != 200 || cut || token.Secret == "" || strings.ContainsFunc(token.Secret, notInHeader) || !strings.EqualFold(token.Type, "bearer") ||
				token.ExpiresIn < time.Second || token.ExpiresIn > 24*time.Hour || strings.Contains(fmt.Sprintf("%+v", token), fuzzNewToken) {
				t.Errorf("%d %q is read as %v", status, body, token)
			}
		}
		err := s.client(t).site.RevokeAccessToken(t.Context(), g.TokenURL, g, fuzzNewToken)
		if err != nil {
			s.fits(t, err)
		} else if cut || status != 200 && status != 400 || status == 400 && !strings.Contains(strings.ToLower(body), "error") {
			t.Errorf("%d %q proves that it is gone", status, body)
		}
		accepted, err := s.client(t).Accepted(t.Context())
		if err != nil {
			s.fits(t, err)
		}
		if accepted && (err != nil || status != 200 || cut) {
			t.Errorf("by %d %q it is accepted, %v", status, body, err)
		}
	})
}

// FuzzAPITokens: what Jira Cloud's gateway says of a site and of API tokens is
// believed where it can be used, and no error tells a secret.
func FuzzAPITokens(f *testing.F) {
	for _, body := range []string{
		`{"cloudId":"0a1b2c3d-0000-4000-8000-00000000000f"}`, `{"cloudId":"../{S}"}`, `{"id":"x","token":"{N}"}`, `{"id":"{S}","label":"nightly","token":"{N}"}`,
		`{"id":"x","label":"{J}","token":"{N}","expiry":"2026-03-03T08:15:09.417Z"}`, `{"id":"x","token":"{N}\n"}`, `{"code":401,"message":"Unauthorized; scope does not match"}`,
		`{"code":"INVALID_EXPIRY","message":"{J} {N}"}`, `[]`, `[{"id":"x","label":"{S}"}]`, `[{"id":"412"}]`, `[null]`, `null`, ``, `<html><title>{H}`, `{S}`,
	} {
		for _, status := range []int{200, 201, 204, 302, 400, 401, 404, 429, 503} {
			f.Add(status, "application/json", body, "412", false)
			f.Add(status, "text/plain", body, "../x", true)
		}
	}
	f.Fuzz(func(t *testing.T, status int, kind, body, id string, cut bool) {
		s := &scripted{login: fuzzBearer, me: reply{status: status, kind: kind, body: body, cut: cut}}
		site := s.client(t).site
		if cloudID, err := site.CloudID(t.Context()); err != nil {
			s.fits(t, err)
		} else if _, err := site.Cloud(cloudID); err != nil || status != 200 || cut {
			t.Errorf("%d %q is read as %q, %v", status, body, cloudID, err)
		}
		k := &APITokens{client: s.client(t), path: "/users/ci/manage/api-tokens"}
		s.sent = nil
		made, secret, err := k.Create(t.Context(), "nightly", nil, time.Now())
		if n := len(s.sent); n != 1 && status != http.StatusTooManyRequests {
			t.Errorf("it was sent %d times", n)
		}
		if err != nil {
			s.fits(t, err)
			if refusal := status >= 400 && status < 500 && status != 408; NothingMade(err) && !refusal || secret != "" || made != (Token{}) {
				t.Errorf("after %d: %+v, %v", status, made, err)
			}
		} else if status != 200 && status != 201 || cut || made.Name != "nightly" || !apiTokenPattern.MatchString(made.ID) || secret == "" || strings.ContainsFunc(secret, notInHeader) {
			t.Errorf("%d %q is read as %+v, %q", status, body, made, secret)
		}
		k.client = s.client(t) // whose gate has seen no trouble
		list, _, err := k.List(t.Context())
		if err != nil {
			s.fits(t, err)
		} else if status != 200 || cut || list == nil {
			t.Errorf("%d %q is read as %+v", status, body, list)
		}
		k.client, s.sent = s.client(t), nil
		err = k.Delete(t.Context(), id, "")
		for _, req := range s.sent {
			if req.Method == http.MethodDelete && req.URL.String() != "http://jira.example.com/jira"+k.path+"/"+id {
				t.Errorf("for the id %q it called %s", id, req.URL)
			}
		}
		if err != nil {
			s.fits(t, err)
		} else if status != 204 || len(s.sent) != 1 || cut {
			t.Errorf("%d %q proves that it is gone", status, body)
		}
	})
}

// FuzzRetryAfter: a site is left alone for a moment at least, and never for
// longer than we have said we would.
func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{"", "0", "-1", "7", "300", "9223372036854775807", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "Wednesday, 21-Oct-99 07:28:00 GMT", "Sat Nov  6 08:49:37 9999"} {
		f.Add(header, int64(time.Second), int64(5*time.Minute))
		f.Add(header, int64(1), int64(1))
	}
	f.Fuzz(func(t *testing.T, header string, floor, roof int64) {
		if floor < 0 || roof < floor || roof > int64(time.Hour) {
			t.Skip("no pause that the client has")
		}
		p := pause{floor: time.Duration(floor), roof: time.Duration(roof)}
		if wait := p.after(header, p.roof); wait < p.floor || wait > p.roof+p.roof/4 {
			t.Errorf("%q between %v and %v is read as %v", header, p.floor, p.roof, wait)
		}
	})
}

// FuzzTime: what is read as a time is that time, in UTC.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"", "2026-03-02T08:15:09.417+0000", "2026-03-02T08:15:09.417Z", "2026-03-02T10:15:09+02:00", "0000-01-01T00:00:00-2359", "9999-12-31T23:59:59.999999999-1200", "null"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		read, err := parseTime(s)
		if err != nil {
			if !read.IsZero() {
				t.Errorf("%q: %v, and %v", s, read, err)
			}
			return
		}
		if read.Location() != time.UTC || s == "" && !read.IsZero() {
			t.Errorf("%q is read as %v", s, read)
		}
		if read.Year() < 0 || read.Year() > 9999 {
			return // in UTC; there is no way to write it
		}
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999-0700"} {
			if again, err := parseTime(read.Format(layout)); err != nil || !again.Equal(read) {
				t.Errorf("%q is read as %v, and that as %v, %v", s, read, again, err)
			}
		}
	})
}

// FuzzNames: a name is recognized in every form in which Jira may send it, and
// another one in none.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"ci", "CI", "a+b", "a b", "a%20b", "50%", "50%x", "%2B", "Ä", "anonymous", ""} {
		f.Add(name, "ci")
		f.Add("a%2Bb", name)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if names("", a) || a != "" && (!names(a, a) || !names(url.QueryEscape(a), a)) {
			t.Errorf("%q is not called so", a)
		}
		if ascii := !strings.ContainsFunc(a, func(r rune) bool { return r > unicode.MaxASCII }); ascii && a != "" && !names(strings.ToUpper(a), a) {
			t.Errorf("%q is not called so in other letters", a)
		}
		if strings.ContainsAny(a+b, "%+") {
			return // escaped, or not: nobody knows
		}
		if same := a != "" && strings.EqualFold(a, b); names(a, b) != same || b != "" && names(b, a) != same {
			t.Errorf("%q and %q are one: %v", a, b, names(a, b))
		}
	})
}

// FuzzSiteURL: every address that is taken leads to that host, below its path,
// and is told as one of a single form; the error for any other repeats nothing.
func FuzzSiteURL(f *testing.F) {
	for _, raw := range []string{
		"https://jira.example.com", "HTTP://Jira.Example.com:8080//", "https://[fe80::1%25En0]/jira/", "https://ci:horse-battery@jira.example.com",
		"https://jira.example.com/a%20b/%2e%2e", "https://jira.example.com/a%2Fb?x#y", "https://jira.example.com/ä;b,c", "https://h/…/x", "//jira", "https://ci:horse-battery@h/%",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		site, err := New(Options{URL: raw})
		if err != nil {
			if len(raw) > 12 && strings.Contains(err.Error(), raw) {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		u, err := url.Parse(site.URL())
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(u.Path, "/") {
			t.Fatalf("%q is told as %q, %v", raw, site.URL(), err)
		}
		again, err := New(Options{URL: site.URL()})
		if err != nil || again.URL() != site.URL() {
			t.Errorf("%q is told as %q, and that as %q, %v", raw, site.URL(), again.URL(), err)
		}
		req, err := site.As(Login{}).build(t.Context(), call{method: http.MethodGet, path: tokensPath + "/412"})
		if err != nil || req.Host != u.Host || req.URL.Host != u.Host {
			t.Fatalf("%q is called as %q, %v", raw, req.Host, err)
		}
		sent, err := url.Parse(req.URL.String())
		if err != nil || sent.Path != u.Path+tokensPath+"/412" || sent.Host != u.Host {
			t.Errorf("%q is called as %q, %v", raw, req.URL, err)
		}
		if slices.ContainsFunc(strings.Split(sent.Path, "/"), func(part string) bool { return part == "." || part == ".." }) {
			t.Errorf("%q is called as %q", raw, req.URL)
		}
	})
}

// FuzzTidyWords: what is quoted fits into a line, and has no word that may be a
// secret, however often it is quoted.
func FuzzTidyWords(f *testing.F) {
	for _, s := range []string{"", "a \t b\r\n", "\x00\x1b[31m\xff\u202e", fuzzBearer.Token, strings.Repeat("日本 ", 100), strings.Repeat("ab ", 99) + fuzzBearer.Token, "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := tidyWords(s)
		if len(words) > mostWords+len("…") || !utf8.ValidString(words) || strings.ContainsFunc(words, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is quoted as %q", s, words)
		}
		if secretPattern.MatchString(words) || tidyWords(words) != words {
			t.Errorf("%q is quoted as %q, and that as %q", s, words, tidyWords(words))
		}
	})
}
