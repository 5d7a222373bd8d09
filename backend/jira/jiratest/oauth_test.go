package jiratest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const tokenPath = "/rest/oauth2/latest/token"

// newEleven starts a Jira that has service accounts, one of them.
func newEleven(t *testing.T, o jiratest.Options, a jiratest.ServiceAccount) (*jiratest.Server, jiratest.ServiceAccount) {
	t.Helper()
	o.Version = "11.1.0"
	s := newJira(t, o)
	a.Name = "deployer"
	return s, s.AddServiceAccount(a)
}

// form returns a client that sends forms.
func form(t *testing.T, s *jiratest.Server) *client {
	t.Helper()
	c := as(t, s, "")
	c.header.Set("Content-Type", "application/x-www-form-urlencoded")
	c.header.Del("X-Atlassian-Token")
	return c
}

func credentials(a jiratest.ServiceAccount, scope string) string {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {a.ClientID}, "client_secret": {a.ClientSecret}, "scope": {scope},
	}.Encode()
}

// access asks for an access token and returns a client that uses it.
func access(t *testing.T, s *jiratest.Server, a jiratest.ServiceAccount, scope string) *client {
	t.Helper()
	made := form(t, s).want(200, "POST", tokenPath, credentials(a, scope))
	return as(t, s, fmt.Sprint("Bearer ", made["access_token"]))
}

func TestClientCredentials(t *testing.T) {
	s, a := newEleven(t, jiratest.Options{}, jiratest.ServiceAccount{})
	c := form(t, s)
	good := credentials(a, "")
	for _, test := range []struct {
		change func(*jiratest.Switches)
		path   string
		body   string
		status int
		says   string
	}{
		{nil, tokenPath, good, 200, `"scope":"READ WRITE"`},
		{nil, tokenPath, credentials(a, "READ"), 200, `"scope":"READ"`},
		{func(sw *jiratest.Switches) { sw.ScopeIgnored = true }, tokenPath, credentials(a, "READ"), 200, `"scope":"READ WRITE"`},
		{nil, tokenPath, credentials(a, "ADMIN"), 400, "invalid_scope"},
		{nil, tokenPath, strings.Replace(good, a.ClientSecret, "wrong", 1), 401, "invalid_client"},
		{nil, tokenPath, strings.Replace(good, a.ClientID, "wrong", 1), 401, "invalid_client"},
		{func(sw *jiratest.Switches) { sw.InvalidClientStatus = 400 }, tokenPath, "", 400, "invalid_client"},
		{nil, tokenPath, strings.Replace(good, "client_credentials", "password", 1), 400, "unsupported_grant_type"},
		{nil, tokenPath + "?client_secret=" + a.ClientSecret, good, 400, "invalid_request"},
	} {
		s.SetSwitches(func(sw *jiratest.Switches) {
			*sw = jiratest.Switches{}
			if test.change != nil {
				test.change(sw)
			}
		})
		if r := c.do("POST", test.path, test.body); r.status != test.status || !strings.Contains(r.body, test.says) {
			t.Errorf("%s %s: %v, want %d %s", test.path, test.body, r, test.status, test.says)
		}
	}
	if n := len(s.AccessTokens()); n != 3 {
		t.Errorf("%d access tokens were made", n)
	}
	for _, call := range s.Calls() {
		if strings.Contains(call.Path, a.ClientSecret) {
			t.Errorf("the secret is in %s", call.Path)
		}
	}
	json := as(t, s, "")
	if r := json.do("POST", tokenPath, `{}`); r.status != 400 || !strings.Contains(r.body, "invalid_request") {
		t.Errorf("JSON: %v", r)
	}
	s.SetServiceAccount(a.ClientID, func(a *jiratest.ServiceAccount) { a.Scopes = []string{} })
	if r := c.do("POST", tokenPath, good); r.status != 400 || !strings.Contains(r.body, "unauthorized_client") {
		t.Errorf("without scopes: %v", r)
	}
	s.SetServiceAccount(a.ClientID, func(a *jiratest.ServiceAccount) { a.Scopes, a.Expires = []string{"READ"}, start.Add(time.Minute) })
	c.want(200, "POST", tokenPath, good)
	s.Advance(2 * time.Minute)
	c.want(401, "POST", tokenPath, good)
	older := newJira(t, jiratest.Options{Version: "10.3.2"})
	form(t, older).want(404, "POST", tokenPath, good)
}

// TestAccessTokenAnswers: what Jira may say of a token's life and type.
func TestAccessTokenAnswers(t *testing.T) {
	s, a := newEleven(t, jiratest.Options{}, jiratest.ServiceAccount{})
	for expires, want := range map[string]string{"": `"expires_in":3600`, "absent": "", "0": `"expires_in":0`, "-1": `"expires_in":-1`, `"1h"`: `"expires_in":"1h"`, "1e9": `"expires_in":1e9`} {
		for _, absent := range []bool{false, true} {
			s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiresIn, sw.TokenTypeAbsent = expires, absent })
			r := form(t, s).do("POST", tokenPath, credentials(a, ""))
			if r.status != 200 || !strings.Contains(r.body, want) || strings.Contains(r.body, "expires_in") != (want != "") ||
				strings.Contains(r.body, `"token_type":"bearer"`) == absent {
				t.Errorf("%q, %v: %v", expires, absent, r)
			}
		}
	}
}

func TestServiceAccountIsLimited(t *testing.T) {
	s, a := newEleven(t, jiratest.Options{}, jiratest.ServiceAccount{Projects: []string{"demo"}})
	s.AddProject(jiratest.Project{Key: "DEMO"})
	s.AddProject(jiratest.Project{Key: "OTHER"})
	s.AddIssue("DEMO", "ci", "broken")
	s.AddIssue("OTHER", "ci", "secret")
	reads, writes := access(t, s, a, "READ"), access(t, s, a, "")
	const issue = `{"fields":{"project":{"key":"DEMO"},"summary":"x"}}`
	for _, c := range []*client{reads, writes} {
		if found := c.want(200, "GET", search, ""); fmt.Sprint(found["total"]) != "1" {
			t.Errorf("found %v", found)
		}
		c.want(200, "POST", search, "{}")
		c.want(404, "GET", "/rest/api/2/project/OTHER", "")
		c.want(403, "GET", patTokens, "")
		c.want(403, "POST", patTokens, `{"name":"n","expirationDuration":1}`)
		c.want(403, "POST", "/rest/api/2/user", `{}`)
		c.want(403, "POST", "/rest/oauth2/latest/nothing", `{}`)
		c.want(200, "GET", "/status", "")
	}
	reads.want(403, "POST", "/rest/api/2/issue", issue)
	writes.want(201, "POST", "/rest/api/2/issue", issue)
	writes.want(400, "POST", "/rest/api/2/issue", strings.Replace(issue, "DEMO", "OTHER", 1))
	for _, status := range []int{200, 403} {
		r := reads.do("GET", myself, "")
		if r.status != status || r.header.Get("X-Ausername") != "deployer" {
			t.Errorf("myself: %v", r)
		}
		s.SetSwitches(func(sw *jiratest.Switches) { sw.ServiceMyself = http.StatusForbidden })
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ServiceNameAbsent = true })
	if r := reads.do("GET", search, ""); r.header.Values("X-Ausername") != nil {
		t.Errorf("he is named: %v", r)
	}
	if c := s.Calls()[len(s.Calls())-1]; c.User != "deployer" || c.Auth != "bearer" {
		t.Errorf("the call is noted as %+v", c)
	}

	// The restriction is the account's: it holds for the tokens there are.
	s.SetServiceAccount(a.ClientID, func(a *jiratest.ServiceAccount) { a.Projects = nil })
	if found := reads.want(200, "GET", search, ""); fmt.Sprint(found["total"]) != "3" {
		t.Errorf("found %v", found)
	}
	s.Advance(time.Hour)
	reads.want(401, "GET", myself, "")
	if found := reads.want(200, "GET", search, ""); fmt.Sprint(found["total"]) != "0" {
		t.Errorf("a dead token found %v", found)
	}
}

func TestRevocation(t *testing.T) {
	s, a := newEleven(t, jiratest.Options{}, jiratest.ServiceAccount{})
	other := s.AddServiceAccount(jiratest.ServiceAccount{Name: "other"})
	with := access(t, s, a, "")
	raw := strings.TrimPrefix(with.header.Get("Authorization"), "Bearer ")
	const path = "/plugins/revoke"
	c := form(t, s)
	body := func(a jiratest.ServiceAccount) string { return credentials(a, "") + "&token=" + raw }
	as(t, s, "").want(404, "POST", path, "{}")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RevocationPath = path })
	c.want(200, "POST", path, body(other))
	c.want(401, "POST", path, "token="+raw)
	with.want(200, "GET", myself, "")
	c.want(200, "POST", path, body(a))
	with.want(401, "GET", myself, "")
	c.want(200, "POST", path, body(a))
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RevokeUnknown400 = true })
	if said := c.want(400, "POST", path, body(a)); said["error"] != "invalid_token" {
		t.Errorf("it says %v", said)
	}
	if list := s.AccessTokens(); len(list) != 1 || list[0].Live || list[0].Account != "deployer" {
		t.Errorf("there are %+v", list)
	}
}

func TestMistakesWithServiceAccounts(t *testing.T) {
	s, a := newEleven(t, jiratest.Options{}, jiratest.ServiceAccount{})
	for name, mistake := range map[string]func(){
		"no name":    func() { s.AddServiceAccount(jiratest.ServiceAccount{}) },
		"same id":    func() { s.AddServiceAccount(jiratest.ServiceAccount{Name: "x", ClientID: a.ClientID}) },
		"unknown id": func() { s.SetServiceAccount("x", func(*jiratest.ServiceAccount) {}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			mistake()
		}()
	}
}
