package jira

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// cloudTokens is where Jira Cloud takes client credentials.
const cloudTokens = "https://auth.atlassian.com/oauth/token"

// newCloud starts a site of Jira Cloud that has a service account, and returns
// the site at its own address, and behind the gateway.
func newCloud(t *testing.T) (s *jiratest.Server, a jiratest.ServiceAccount, site, behind *Site) {
	t.Helper()
	s = jiratest.New(t, jiratest.Options{Cloud: "acme"})
	a = s.AddServiceAccount(jiratest.ServiceAccount{Name: "deployer"})
	s.AddProject(jiratest.Project{Key: "DEMO"})
	proxy, err := url.Parse(s.Proxy())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	site = newSite(t, s, Options{Proxy: proxy, RootCAs: roots})
	behind, err = site.Cloud(s.CloudID())
	if err != nil {
		t.Fatal(err)
	}
	return s, a, site, behind
}

// apiTokens returns the API tokens of a, managed with a key of the
// organisation.
func apiTokens(t *testing.T, site *Site, key string, a jiratest.ServiceAccount) *APITokens {
	t.Helper()
	k, err := site.APITokens(key, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestCloudAccessToken: from the site's address to a call of Jira.
func TestCloudAccessToken(t *testing.T) {
	s, a, site, behind := newCloud(t)
	id, err := site.CloudID(t.Context())
	if err != nil || id != s.CloudID() || behind.URL() != "https://api.atlassian.com/ex/jira/"+id {
		t.Errorf("%s, %s, %v", id, behind.URL(), err)
	}
	token, err := site.AccessToken(t.Context(), Grant{TokenURL: cloudTokens, ClientID: a.ClientID, ClientSecret: a.ClientSecret, JSON: true})
	if err != nil || token.ExpiresIn != time.Hour || len(token.Scopes) != 3 {
		t.Fatalf("%v, %v", token, err)
	}
	c := behind.As(Login{Username: a.ID, Token: token.Secret})
	if u, err := c.Myself(t.Context()); err != nil || u.Name != a.ID || u.Key != a.ID || !u.Active {
		t.Errorf("he is %+v, %v", u, err)
	}
	if admin, err := c.Administrator(t.Context()); err != nil || admin {
		t.Errorf("an administrator: %v, %v", admin, err)
	}
	if info, err := c.ServerInfo(t.Context()); err != nil || info.DeploymentType != "Cloud" {
		t.Errorf("%+v, %v", info, err)
	}
	for _, status := range []int{0, 403} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.ServiceMyself = status })
		if ok, err := c.Accepted(t.Context()); err != nil || !ok {
			t.Errorf("accepted: %v, %v", ok, err)
		}
	}
	_, err = site.As(Login{Token: token.Secret}).Myself(t.Context())
	wants(t, err, Refused, "401") // at the site's own address
	s.Advance(time.Hour)
	if ok, err := c.Accepted(t.Context()); err != nil || ok {
		t.Errorf("accepted, although it ended: %v, %v", ok, err)
	}
	if n := s.Count("POST", "/oauth/token"); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// TestCloudDenies: a token without the scope is no wrong token.
func TestCloudDenies(t *testing.T) {
	_, a, site, behind := newCloud(t)
	g := Grant{TokenURL: cloudTokens, ClientID: a.ClientID, ClientSecret: a.ClientSecret, JSON: true, Scopes: "read:jira-work"}
	token, err := site.AccessToken(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	c := behind.As(Login{Token: token.Secret})
	_, err = c.Myself(t.Context())
	wants(t, err, Denied, "401", "scope does not match", "lacks a scope")
	if ok, err := c.Accepted(t.Context()); err != nil || !ok {
		t.Errorf("the login is closed: %v, %v", ok, err)
	}
	g.Scopes = "all"
	_, err = site.AccessToken(t.Context(), g)
	wants(t, err, Denied, "invalid_scope")
	g.Scopes, g.ClientSecret = "", "wrong"
	_, err = site.AccessToken(t.Context(), g)
	wants(t, err, Refused, "access_denied; Unauthorized", "wrong or expired")
}

func TestCloudIDs(t *testing.T) {
	s, _, site, _ := newCloud(t)
	for body, good := range map[string]bool{
		`{"cloudId":"0A1b2c3d-0000-4000-8000-00000000000f"}`: true,
		`{"cloudId":"../../users"}`:                          false, `{"cloudId":""}`: false, `{}`: false, `null`: false, ``: false, `[]`: false,
		`{"cloudId":"0a1b2c3d-0000-4000-8000-00000000000f "}`: false, "<html>": false,
	} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: body})
		id, err := site.CloudID(t.Context())
		if good && (err != nil || id != "0a1b2c3d-0000-4000-8000-00000000000f") {
			t.Errorf("%s: %q, %v", body, id, err)
		}
		if !good {
			wants(t, err, Nonsense)
		}
		remove()
	}
	for _, id := range []string{"", "..", "0a1b2c3d-0000-4000-8000-00000000000f/../x", "0a1b2c3d-0000-4000-8000-00000000000f\n"} {
		if _, err := site.Cloud(id); err == nil {
			t.Errorf("%q passes for the id of a site", id)
		}
	}
	for id, good := range map[string]bool{
		"712020:0a1b2c3d-0000-4000": true, "5b10a2844c20165700ede21g": true, "qm:a_b:c": true,
		"": false, "..": false, "a/b": false, "a b": false, "a:": false, "a?b": false, "a%2e": false, "a\n": false, strings.Repeat("x", 129): false,
	} {
		if _, err := site.APITokens("key", id); (err == nil) != good {
			t.Errorf("%q passes for the id of an account: %v", id, err)
		}
	}
}

func TestLifeOfAnAPIToken(t *testing.T) {
	for _, delay := range []time.Duration{0, 70 * time.Second} {
		for _, status := range []int{0, 200} {
			s, a, site, behind := newCloud(t)
			s.SetSwitches(func(sw *jiratest.Switches) { sw.APITokenDelay, sw.PostStatus = delay, status })
			k := apiTokens(t, site, s.AddOrgKey(false), a)
			expiry := time.Now().Add(24 * time.Hour)
			made, secret, err := k.Create(t.Context(), "vault-1", []string{"read:jira-work", "read:jira-user"}, expiry)
			if err != nil || made.Name != "vault-1" || !made.Expires.Equal(expiry.Truncate(time.Second)) || made.Created.IsZero() {
				t.Fatalf("%+v, %v", made, err)
			}
			list, date, err := k.List(t.Context())
			if err != nil || len(list) != 1 || list[0] != made || date.IsZero() {
				t.Errorf("%+v, %v, %v", list, date, err)
			}
			if ok, err := behind.As(Login{Token: secret}).Accepted(t.Context()); err != nil || ok != (delay == 0) {
				t.Errorf("it works: %v, %v", ok, err)
			}
			s.Advance(delay)
			if u, err := behind.As(Login{Token: secret}).Myself(t.Context()); err != nil || u.Name != a.ID {
				t.Errorf("it is of %+v, %v", u, err)
			}
			for range 2 {
				if err := k.Delete(t.Context(), made.ID, ""); err != nil {
					t.Error(err)
				}
			}
			if list, _, err := k.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("%+v, %v", list, err)
			}
			if s.Count("POST", "") != 1 || s.Count("DELETE", "") != 2 {
				t.Errorf("%d calls to make it, %d to end it", s.Count("POST", ""), s.Count("DELETE", ""))
			}
		}
	}
}

// TestDeniedAPITokens: nothing is made, and the key stays good.
func TestDeniedAPITokens(t *testing.T) {
	s, a, site, _ := newCloud(t)
	k := apiTokens(t, site, s.AddOrgKey(false), a)
	soon, scopes := time.Now().Add(time.Hour), []string{"read:jira-work"}
	denied := func(want string, scopes []string, expiry time.Time) {
		t.Helper()
		_, _, err := k.Create(t.Context(), "nightly", scopes, expiry)
		wants(t, err, Denied, want)
		if !NothingMade(err) {
			t.Error(err)
		}
	}
	denied("MISSING_SCOPES", nil, soon)
	denied("INVALID_EXPIRY", scopes, time.Now().AddDate(2, 0, 0))
	denied("INVALID_EXPIRY", scopes, time.Time{})
	if _, _, err := k.Create(t.Context(), "nightly", scopes, soon); err != nil {
		t.Error(err)
	}
	denied("DUPLICATE_LABEL", scopes, soon)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.APITokenPostOff = true })
	denied("405", scopes, soon)

	scoped, wrong := apiTokens(t, site, s.AddOrgKey(true), a), apiTokens(t, site, "wrong", a)
	for range 2 {
		_, _, listErr := scoped.List(t.Context())
		_, _, mintErr := scoped.Create(t.Context(), "nightly", scopes, soon)
		for _, err := range []error{listErr, mintErr, scoped.Delete(t.Context(), "x", "")} {
			wants(t, err, Denied, "take one without scopes")
			if !NothingMade(err) || strings.Contains(err.Error(), "not asked again") {
				t.Error(err)
			}
		}
	}
	s.ResetCalls()
	for range 3 {
		_, _, err := wrong.List(t.Context())
		wants(t, err, Refused, "401")
	}
	if len(s.Calls()) != 1 {
		t.Errorf("a wrong key was sent %d times", len(s.Calls()))
	}
	a.ID = "nobody"
	_, _, err := apiTokens(t, site, s.AddOrgKey(false), a).List(t.Context())
	wants(t, err, Denied, "404")
}

// TestAPITokensOnTheWire reads what may be answered.
func TestAPITokensOnTheWire(t *testing.T) {
	s, a, site, _ := newCloud(t)
	k := apiTokens(t, site, s.AddOrgKey(false), a)
	soon := time.Now().Add(time.Hour)
	for body, want := range map[string]string{ // the error's words; "": none
		`{"id":"x","token":"s3cr3t"}`:                                 "",
		`{"id":"x","token":"s3cr3t","label":"nightly","expiry":null}`: "",
		`{"id":"x","token":"s3cr3t","label":"other"}`:                 `labelled "other"`,
		`{"id":"x","token":"s3cr3t","label":"s3cr3t"}`:                `labelled "[withheld]"`,
		`{"id":"x"}`:                                         "its token",
		`{"id":"x","token":"s3cr3t s3cr3t"}`:                 "its token",
		`{"token":"s3cr3t"}`:                                 "its id",
		`{"id":"../x","token":"s3cr3t"}`:                     "its id",
		`{"id":"x","token":"s3cr3t","expiry":"tomorrow"}`:    "its expiry",
		`{"id":"x","token":"s3cr3t","createdAt":"today"}`:    "its createdAt",
		`{"id":7,"token":"s3cr3t"}`:                          "its id",
		`{"id":"x","token":"s3cr3t","expiry":1772438400000}`: "its expiry",
		`null`: "its id",
		`{"id":"` + strings.Repeat("x", 129) + `","token":"s3cr3t"}`:     "its id",
		`{"id":"x","token":"` + strings.Repeat("x", mostSecret+1) + `"}`: "its token",
		`<html><title>s3cr3t</title>`:                                    "web page",
	} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 201, Body: body})
		made, secret, err := k.Create(t.Context(), "nightly", nil, soon)
		if want == "" {
			if err != nil || secret != "s3cr3t" || made.ID != "x" || made.Name != "nightly" || !made.Expires.Equal(soon.Truncate(time.Second)) {
				t.Errorf("%s: %+v, %v", body, made, err)
			}
		} else {
			wants(t, err, Nonsense, want)
			if NothingMade(err) || secret != "" || made != (Token{}) || !strings.Contains(want, "page") && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%s: %+v, %v", body, made, err)
			}
		}
		remove()
	}
	for body, want := range map[string]string{
		`[]`: "", `[{"id":"x","label":"n"}]`: "", `null`: "null", `{}`: "JSON", `[null]`: "its id", `[7]`: "JSON", ``: "JSON",
		`[{"id":"x","createdAt":"?","expiry":1772438400000,"label":null},{"id":"y","label":{}}]`: "",
	} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: body})
		if list, _, err := k.List(t.Context()); err != nil || want != "" {
			wants(t, err, Nonsense, want)
			if list != nil {
				t.Errorf("%s: %+v", body, list)
			}
		}
		remove()
	}
	s.ResetCalls()
	for _, id := range []string{"", "..", "a/b", "a:b", "a?", strings.Repeat("x", 129)} {
		if err := k.Delete(t.Context(), id, ""); !Is(err, Denied) || !NothingMade(err) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if len(s.Calls()) != 0 {
		t.Errorf("%d calls", len(s.Calls()))
	}
}

// TestAPITokensInBadWeather: a mint is sent once, a deletion until it is
// proven.
func TestAPITokensInBadWeather(t *testing.T) {
	for name, test := range map[string]struct {
		fault jiratest.Fault
		kind  Kind // "": it succeeds in the end
		calls int
		made  int
	}{
		"lost answer": {jiratest.Fault{Do: jiratest.LoseAnswer}, Down, 1, 1},
		"lost call":   {jiratest.Fault{Do: jiratest.LoseCall}, Down, 1, 0},
		"cut body":    {jiratest.Fault{Do: jiratest.CutBody}, Nonsense, 1, 1},
		"HTML":        {jiratest.Fault{Do: jiratest.HTML200}, Nonsense, 1, 0},
		"503":         {jiratest.Fault{Do: jiratest.Answer, Status: 503}, Down, 1, 0},
		"429 once":    {jiratest.Fault{Nth: 1, Do: jiratest.Answer, Status: 429}, "", 2, 1},
		"redirect":    {jiratest.Fault{Do: jiratest.Redirect, Target: "https://acme.atlassian.net"}, Nonsense, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, site, _ := newCloud(t)
			key := s.AddOrgKey(false)
			k := apiTokens(t, site, key, a)
			remove := s.Fault(test.fault)
			_, _, err := k.Create(t.Context(), "nightly", []string{"read:jira-work"}, time.Now().Add(time.Hour))
			if test.kind == "" && err != nil || test.kind != "" && !Is(err, test.kind) {
				t.Errorf("got %v, want %q", err, test.kind)
			}
			if err != nil {
				holdsNoSecret(t, name, err, s.Secrets()...)
			}
			if n := s.Count("", ""); n != test.calls || len(s.APITokens()) != test.made || NothingMade(err) && test.made > 0 {
				t.Errorf("%d calls made %d: %v", n, len(s.APITokens()), err)
			}
			remove()
		})
	}
	s, a, site, _ := newCloud(t)
	k := apiTokens(t, site, s.AddOrgKey(false), a)
	made, _, err := k.Create(t.Context(), "vault-1", []string{"read:jira-work"}, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []jiratest.Fault{
		{Do: jiratest.HTML404},
		{Do: jiratest.HTML200},
		{Do: jiratest.Answer, Status: 200, Body: "{}"},
		{Do: jiratest.Answer, Status: 404, Body: "no such route"},
		{Do: jiratest.Answer, Status: 404, Method: "DELETE", Body: "{}"},
		{Do: jiratest.Answer, Status: 404, Body: "{}"},
	} {
		remove := s.Fault(f)
		if err := k.Delete(t.Context(), made.ID, ""); err == nil {
			t.Errorf("%+v proves that it is gone", f)
		}
		remove()
	}
	s.Fault(jiratest.Fault{Method: http.MethodDelete, Nth: 1, Do: jiratest.LoseAnswer})
	if err := k.Delete(t.Context(), made.ID, ""); err != nil || len(s.APITokens()) != 0 {
		t.Errorf("%v, %d are left", err, len(s.APITokens()))
	}

	// An id that Atlassian does not know is made good for by the label.
	made, _, err = k.Create(t.Context(), "vault-1", []string{"read:jira-work"}, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		label string
		left  int
	}{{"", 1}, {"vault-2", 1}, {"vault-1", 0}} {
		if err := k.Delete(t.Context(), "x", tt.label); err != nil || len(s.APITokens()) != tt.left {
			t.Errorf("label %q: %v, %d are left", tt.label, err, len(s.APITokens()))
		}
	}
	if err := k.Delete(t.Context(), made.ID, "vault-1"); err != nil {
		t.Error(err)
	}
}
