package jira

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// oddSecret is spelled differently wherever it travels.
const oddSecret = `s3&"cr=<zx>+9 k7`

// newEleven starts a Jira that has service accounts, and returns what one of
// them asks for access tokens with.
func newEleven(t *testing.T, o jiratest.Options) (*jiratest.Server, Grant) {
	t.Helper()
	o.Version = "11.1.0"
	s := newJira(t, o)
	a := s.AddServiceAccount(jiratest.ServiceAccount{Name: "deployer", ClientSecret: oddSecret})
	return s, Grant{TokenURL: s.URL() + "/rest/oauth2/latest/token", ClientID: a.ClientID, ClientSecret: a.ClientSecret}
}

// holdsNoGrant checks that err tells no secret of g, however spelled.
func holdsNoGrant(t *testing.T, place string, err error, g Grant, more ...string) {
	t.Helper()
	holdsNoSecret(t, place, err, append(more, spellings([]string{g.ClientSecret})...)...)
	for _, part := range []string{"s3&", "s3%26", `s3\u0026`} {
		if strings.Contains(err.Error(), part) {
			t.Errorf("%s: %q holds a part of the secret", place, err)
		}
	}
}

func TestAccessToken(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{})
	site := newSite(t, s, Options{})
	for _, test := range []struct {
		asked   string
		ignored bool
		want    string
	}{
		{"", false, "READ WRITE"}, {"READ", false, "READ"}, {"READ", true, "READ WRITE"},
	} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.ScopeIgnored = test.ignored })
		g.Scopes = test.asked
		token, err := site.AccessToken(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(token.Scopes, " ") != test.want || token.ExpiresIn != time.Hour || token.Type != "bearer" {
			t.Errorf("%q: got %v", test.asked, token)
		}
		if u, err := site.As(Login{Token: token.Secret}).Myself(t.Context()); err != nil || u.Name != "deployer" {
			t.Errorf("%q: it is of %+v, %v", test.asked, u, err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, token) + fmt.Sprintf(verb, &token); strings.Contains(text, token.Secret) || !strings.Contains(text, "1h") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if n := s.Count("POST", ""); n != 3 || len(s.AccessTokens()) != 3 {
		t.Errorf("%d calls made %d tokens", n, len(s.AccessTokens()))
	}
}

// TestGrantsOnTheWire: what is sent, to a letter, and to whom.
func TestGrantsOnTheWire(t *testing.T) {
	var have []string
	jira := network(func(req *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(req.Body)
		have = append(have, strings.Join([]string{req.Method, req.URL.String(), req.Header.Get("Authorization"), req.Header.Get("Content-Type"), string(body)}, "|"))
		return answered(http.StatusTeapot, ""), err
	}).site(t)
	g := Grant{TokenURL: "http://auth.example.com:81/a%20b/token/", ClientID: "me", ClientSecret: oddSecret, Scopes: "READ WRITE"}
	_, err := jira.AccessToken(t.Context(), g)
	wants(t, err, Denied, "POST /a b/token: 418")
	g.JSON = true
	_, err = jira.AccessToken(t.Context(), g)
	wants(t, err, Denied)
	wants(t, jira.RevokeAccessToken(t.Context(), "http://jira.example.com/jira/revoke", g, "a+t"), Denied)
	const form = "|application/x-www-form-urlencoded|client_id=me&client_secret=s3%26%22cr%3D%3Czx%3E%2B9+k7&"
	want := []string{
		"POST|http://auth.example.com:81/a%20b/token|" + form + "grant_type=client_credentials&scope=READ+WRITE",
		`POST|http://auth.example.com:81/a%20b/token||application/json|{"client_id":"me","client_secret":"s3\u0026\"cr=\u003czx\u003e+9 k7","grant_type":"client_credentials","scope":"READ WRITE"}`,
		"POST|http://jira.example.com/jira/revoke|" + form + "token=a%2Bt&token_type_hint=access_token",
	}
	if !slices.Equal(have, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	for _, address := range []string{"", "ftp://x", "http://a:b@x/", "http://x/?client_secret=" + oddSecret, "http://x/../y"} {
		g.TokenURL = address
		_, err := jira.AccessToken(t.Context(), g)
		wants(t, err, Denied, "the address")
		holdsNoGrant(t, address, err, g)
		if !NothingMade(err) || !NothingMade(jira.RevokeAccessToken(t.Context(), address, g, "x")) || len(have) != 3 {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestAccessTokenOnTheWire reads what may be answered.
func TestAccessTokenOnTheWire(t *testing.T) {
	const secret, rest = "eyJ.x-y_z", `"access_token":"eyJ.x-y_z","token_type":"Bearer"`
	for body, want := range map[string]string{ // the error's words; "": none
		`{` + rest + `,"expires_in":3600,"scope":"READ"}`:     "",
		`{` + rest + `,"expires_in":1}`:                       "",
		`{` + rest + `,"expires_in":86400}`:                   "",
		`{` + rest + `,"expires_in":86401}`:                   "expires_in",
		`{` + rest + `,"expires_in":9223372036854775807}`:     "expires_in",
		`{` + rest + `,"expires_in":18446744077}`:             "expires_in", // some multiples of a second overflow to little
		`{` + rest + `,"expires_in":9223372036854775808}`:     "expires_in",
		`{` + rest + `,"expires_in":0}`:                       "expires_in",
		`{` + rest + `,"expires_in":-1}`:                      "expires_in",
		`{` + rest + `,"expires_in":null}`:                    "expires_in",
		`{` + rest + `,"expires_in":"3600"}`:                  "expires_in",
		`{` + rest + `,"expires_in":3600.5}`:                  "expires_in",
		`{` + rest + `,"expires_in":1e3}`:                     "expires_in",
		`{` + rest + `}`:                                      "expires_in",
		`{"access_token":"eyJ.x-y_z","expires_in":1}`:         "token_type",
		`{` + rest + `,"token_type":"mac","expires_in":1}`:    "token_type",
		`{"token_type":"bearer","expires_in":1}`:              "missing",
		`{` + rest + `,"access_token":"a b","expires_in":1}`:  "header",
		`{` + rest + `,"access_token":"a\n","expires_in":1}`:  "header",
		`{` + rest + `,"expires_in":1,"scope":"a\u0000"}`:     "scope",
		`{` + rest + `,"expires_in":1,"scope":["READ"]}`:      "JSON",
		`{` + rest + `,"expires_in":1`:                        "JSON",
		`null`:                                                "missing",
		``:                                                    "JSON",
		`{"access_token":"` + strings.Repeat("x", 8193) + `"`: "JSON",
		`{` + rest + `,"access_token":"` + strings.Repeat("x", 8193) + `","expires_in":1}`: "header",
	} {
		s, g := newEleven(t, jiratest.Options{})
		s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: body})
		token, err := newSite(t, s, Options{}).AccessToken(t.Context(), g)
		if want == "" {
			if err != nil || token.Secret != secret || token.ExpiresIn <= 0 || token.ExpiresIn > 24*time.Hour || len(token.Scopes) > 1 {
				t.Errorf("%s: %+v, %v", body, token, err)
			}
			continue
		}
		wants(t, err, Nonsense, want)
		if NothingMade(err) || token.Secret != "" || token.Scopes != nil || strings.Contains(err.Error(), secret) || s.Count("", "") != 1 {
			t.Errorf("%s: %v, %v", body, token, err)
		}
	}
	// Cloud is documented without a type.
	s, g := newEleven(t, jiratest.Options{Switches: jiratest.Switches{TokenTypeAbsent: true}})
	_, err := newSite(t, s, Options{}).AccessToken(t.Context(), g)
	wants(t, err, Nonsense, "token_type")
	jira := network(func(*http.Request) (*http.Response, error) {
		return answered(http.StatusOK, `{"access_token":"x","expires_in":60}`), nil
	}).site(t)
	if token, err := jira.AccessToken(t.Context(), Grant{TokenURL: "http://x/", JSON: true}); err != nil || !strings.EqualFold(token.Type, "bearer") {
		t.Errorf("got %v, %v", token, err)
	}
	for _, expires := range []string{"absent", "0", "-1", "100000", `"3600"`} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.ExpiresIn, sw.TokenTypeAbsent = expires, false })
		_, err := newSite(t, s, Options{}).AccessToken(t.Context(), g)
		wants(t, err, Nonsense, "expires_in")
	}
}

// TestRefusedGrants: a wrong secret is refused, and is not hammered; another,
// or the same after a while, is tried.
func TestRefusedGrants(t *testing.T) {
	for _, status := range []int{401, 400} {
		s, good := newEleven(t, jiratest.Options{Switches: jiratest.Switches{InvalidClientStatus: status}})
		site := newSite(t, s, Options{})
		bad := good
		bad.ClientSecret = `s3&"cr=<zx>+9 k8`
		for i := range 5 {
			if i == 3 {
				bad.Scopes = "READ" // are no reason to try again
			}
			_, err := site.AccessToken(t.Context(), bad)
			wants(t, err, Refused, "invalid_client", "the client id or the client secret is wrong or expired", fmt.Sprint(status))
			holdsNoGrant(t, "refused", err, bad)
			if !NothingMade(err) || strings.Contains(err.Error(), "write the credential again") {
				t.Error(err)
			}
			err = site.RevokeAccessToken(t.Context(), good.TokenURL, bad, "x")
			wants(t, err, Refused, "not asked again")
		}
		if n := s.Count("", ""); n != 1 {
			t.Errorf("a wrong secret was sent %d times", n)
		}
		if _, err := site.AccessToken(t.Context(), good); err != nil {
			t.Error(err)
		}
	}
}

// TestRefusedGrantRests for a minute, and is forgotten when it is taken.
func TestRefusedGrantRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, body := 0, `{"error":"access_denied","error_description":"Unauthorized"}`
		status := http.StatusUnauthorized
		site := network(func(*http.Request) (*http.Response, error) {
			calls++
			return answered(status, body), nil
		}).site(t)
		g := Grant{TokenURL: "http://auth.example.com/oauth/token", ClientID: "x", ClientSecret: oddSecret, JSON: true}
		for range 3 {
			_, err := site.AccessToken(t.Context(), g)
			wants(t, err, Refused, "access_denied; Unauthorized")
		}
		time.Sleep(refusedRest + 1)
		status, body = http.StatusOK, `{"access_token":"x","expires_in":60}`
		for range 2 {
			if _, err := site.AccessToken(t.Context(), g); err != nil {
				t.Error(err)
			}
		}
		if calls != 3 || len(site.grants.byGrant) != 0 {
			t.Errorf("%d calls, %d are remembered", calls, len(site.grants.byGrant))
		}
	})
}

// TestDeniedGrants: the client is known, and may not.
func TestDeniedGrants(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{})
	site := newSite(t, s, Options{})
	g.Scopes = "ADMIN"
	_, err := site.AccessToken(t.Context(), g)
	wants(t, err, Denied, "400", "invalid_scope", "may not have these scopes")
	if !NothingMade(err) {
		t.Error(err)
	}
	g.Scopes = ""
	s.SetServiceAccount(g.ClientID, func(a *jiratest.ServiceAccount) { a.Scopes = []string{} })
	_, err = site.AccessToken(t.Context(), g)
	wants(t, err, Denied, "unauthorized_client")
	for _, code := range []string{"invalid_scope", "unauthorized_client"} { // with a status of a refusal, too
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: `{"error":"` + code + `"}`})
		_, err = site.AccessToken(t.Context(), g)
		wants(t, err, Denied, "401", code)
		remove()
	}
	older := newJira(t, jiratest.Options{})
	_, err = newSite(t, older, Options{}).AccessToken(t.Context(), Grant{TokenURL: older.URL() + "/rest/oauth2/latest/token"})
	wants(t, err, Nonsense, "404", "since Jira 11")
}

// TestGrantsGoNowhereElse: the secret would go along with a redirect.
func TestGrantsGoNowhereElse(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{})
	other, _ := newEleven(t, jiratest.Options{})
	s.Fault(jiratest.Fault{Do: jiratest.Redirect, Target: other.URL()})
	site := newSite(t, s, Options{})
	_, err := site.AccessToken(t.Context(), g)
	for _, err := range []error{err, site.RevokeAccessToken(t.Context(), g.TokenURL, g, "x")} {
		wants(t, err, Nonsense, "307", other.URL()[:len(other.URL())-len("/jira")], "the client secret would go along")
	}
	if n := len(other.Calls()); n != 0 || len(s.Calls()) != 2 {
		t.Errorf("%d calls, and %d to the other host", len(s.Calls()), n)
	}
}

// TestGrantsInBadWeather: nothing is asked for twice where an answer may have
// been lost, and everything where none can have been made.
func TestGrantsInBadWeather(t *testing.T) {
	for name, test := range map[string]struct {
		fault jiratest.Fault
		kind  Kind // "": it succeeds in the end
		calls int
		made  int
	}{
		"lost answer": {jiratest.Fault{Do: jiratest.LoseAnswer}, Down, 1, 1},
		"lost call":   {jiratest.Fault{Do: jiratest.LoseCall}, Down, 1, 0},
		"cut body":    {jiratest.Fault{Do: jiratest.CutBody}, Nonsense, 1, 1},
		"huge":        {jiratest.Fault{Do: jiratest.Huge}, Nonsense, 1, 1},
		"HTML":        {jiratest.Fault{Do: jiratest.HTML200}, Nonsense, 1, 0},
		"HTML 404":    {jiratest.Fault{Do: jiratest.HTML404}, Nonsense, 1, 0},
		"502 after":   {jiratest.Fault{Do: jiratest.AnswerAfter, Status: 502, Body: "<html>"}, Down, 1, 1},
		"503":         {jiratest.Fault{Do: jiratest.Answer, Status: 503}, Down, 1, 0},
		"429 once":    {jiratest.Fault{Nth: 1, Do: jiratest.Answer, Status: 429}, "", 2, 1},
		"429":         {jiratest.Fault{Do: jiratest.Answer, Status: 429}, Busy, 3, 0},
		"HTML 401":    {jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: "<html>"}, Refused, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newEleven(t, jiratest.Options{})
			s.Fault(test.fault)
			site := newSite(t, s, Options{})
			_, err := site.AccessToken(t.Context(), g)
			if test.kind == "" && err != nil || test.kind != "" && !Is(err, test.kind) {
				t.Errorf("got %v, want %q", err, test.kind)
			}
			if err != nil {
				holdsNoGrant(t, name, err, g, s.Secrets()...)
			}
			if n := len(s.Calls()); n != test.calls || len(s.AccessTokens()) != test.made {
				t.Errorf("%d calls made %d", n, len(s.AccessTokens()))
			}
			if NothingMade(err) && test.made > 0 {
				t.Errorf("nothing is said to be made: %v", err)
			}
		})
	}
}

// TestGrantsPassTheGate of the site, and are held back by it.
func TestGrantsPassTheGate(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{})
	site := newSite(t, s, Options{Gate: occupied(t)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := site.AccessToken(ctx, g)
	wants(t, err, Busy)
	if !NothingMade(err) || len(s.Calls()) != 0 {
		t.Errorf("%v, after %d calls", err, len(s.Calls()))
	}
}

// TestGrantsHoldNoSecret: whatever is said back.
func TestGrantsHoldNoSecret(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{})
	const token = "no-long-one+but-odd"
	for _, said := range []string{oddSecret, url.QueryEscape(oddSecret), `s3\u0026\"cr=\u003czx\u003e+9 k7`, token} {
		inJSON, err := json.Marshal(map[string]string{"error": "It was " + said, "error_description": said, "message": said})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{string(inJSON), "It was " + said, "<html><title>It was " + said + "</title>"} {
			for _, status := range []int{202, 307, 400, 401, 403, 404, 503} {
				remove := s.Fault(jiratest.Fault{
					Do: jiratest.Answer, Status: status, Body: body, Header: http.Header{"Location": {"http://x:" + said + "@" + url.PathEscape(said) + "/"}},
				})
				site := newSite(t, s, Options{})
				err := site.RevokeAccessToken(t.Context(), g.TokenURL, g, token)
				holdsNoGrant(t, body, err, g, token)
				if said != token { // which is none of its secrets
					_, err = newSite(t, s, Options{}).AccessToken(t.Context(), g)
					holdsNoGrant(t, body, err, g)
				}
				remove()
			}
		}
	}
}

func TestRevokeAccessToken(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{})
	site := newSite(t, s, Options{})
	address := s.URL() + "/plugins/revoke"
	token, err := site.AccessToken(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, site.RevokeAccessToken(t.Context(), address, g, token.Secret), Nonsense, "404")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RevocationPath = "/plugins/revoke" })
	for _, unknown400 := range []bool{false, true} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.RevokeUnknown400 = unknown400 })
		for range 2 {
			if err := site.RevokeAccessToken(t.Context(), address, g, token.Secret); err != nil {
				t.Error(err)
			}
		}
		if s.AccessTokens()[0].Live {
			t.Error("it lives")
		}
	}
	for body, want := range map[string]Kind{
		`{"error":"unsupported_token_type"}`: Denied, `{}`: Denied, ``: Denied, `{"error":"invalid_scope"}`: Denied,
		`{"error":"invalid_client"}`: Refused, `<html>`: Nonsense,
	} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 400, Body: body})
		wants(t, newSite(t, s, Options{}).RevokeAccessToken(t.Context(), address, g, token.Secret), want)
		remove()
	}
	for _, f := range []jiratest.Fault{{Do: jiratest.HTML200}, {Do: jiratest.Answer, Body: "OK"}} {
		remove := s.Fault(f)
		wants(t, site.RevokeAccessToken(t.Context(), address, g, token.Secret), Nonsense)
		remove()
	}
	// It may be repeated.
	s.Fault(jiratest.Fault{Nth: 1, Do: jiratest.LoseAnswer})
	if err := site.RevokeAccessToken(t.Context(), address, g, token.Secret); err != nil {
		t.Error(err)
	}
}

// TestElsewhereTLS: the name that the site's certificate must carry is no name
// for other hosts.
func TestElsewhereTLS(t *testing.T) {
	s, g := newEleven(t, jiratest.Options{TLS: true})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(s.URL(), "https://"), "/jira"))
	if err != nil {
		t.Fatal(err)
	}
	site := newSite(t, s, Options{RootCAs: roots, TLSServerName: "jira.example.com"})
	_, err = site.AccessToken(t.Context(), g)
	wants(t, err, Down, "tls_server_name") // it is the site's own host
	g.TokenURL = "https://localhost:" + port + "/jira/rest/oauth2/latest/token"
	if _, err := site.AccessToken(t.Context(), g); err != nil {
		t.Error(err)
	}
	_, err = newSite(t, s, Options{TLSServerName: "localhost"}).AccessToken(t.Context(), g)
	wants(t, err, Down, "ca_cert") // authorities hold for all
	site.Close()
}

// TestAccepted: for users and for service accounts, whether myself answers
// and whether answers name the user.
func TestAccepted(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"default":           func(*jiratest.Switches) {},
		"ServiceMyself":     func(sw *jiratest.Switches) { sw.ServiceMyself = 403 },
		"ServiceMyself 401": func(sw *jiratest.Switches) { sw.ServiceMyself = 401 },
		"ServiceNameAbsent": func(sw *jiratest.Switches) { sw.ServiceMyself, sw.ServiceNameAbsent = 401, true },
		"XAUserNameAbsent":  func(sw *jiratest.Switches) { sw.ServiceMyself, sw.XAUserNameAbsent = 401, true },
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newEleven(t, jiratest.Options{})
			s.AddProject(jiratest.Project{Key: "DEMO"})
			site := newSite(t, s, Options{})
			s.SetSwitches(change)
			_, pat := s.Mint("ci", "n", 1)
			_, dead := s.Mint("ci", "n", -1)
			g.Scopes = "READ"
			token, err := site.AccessToken(t.Context(), g)
			if err != nil {
				t.Fatal(err)
			}
			service := site.As(Login{Token: token.Secret})
			for who, test := range map[string]struct {
				client *Client
				want   bool
			}{
				"a user's token":      {site.As(Login{Username: "ci", Token: pat}), true},
				"a dead token":        {site.As(Login{Username: "ci", Token: dead}), false},
				"a password":          {site.As(Login{Username: "ci", Password: password}), true},
				"a wrong password":    {site.As(Login{Username: "ci", Password: "x"}), false},
				"an access token":     {service, true},
				"nobody's token":      {site.As(Login{Token: "x"}), false},
				"the same once again": {service, true},
			} {
				s.ResetCalls()
				have, err := test.client.Accepted(t.Context())
				named := name != "XAUserNameAbsent" && (name != "ServiceNameAbsent" || test.client != service)
				if who == "nobody's token" && name == "XAUserNameAbsent" {
					wants(t, err, Nonsense, "does not name the user")
					continue
				}
				if err != nil || have != test.want || named && len(s.Calls()) != 1 {
					t.Errorf("%s: %v, %v, after %d calls", who, have, err, len(s.Calls()))
				}
			}
			s.Advance(time.Hour)
			if have, err := service.Accepted(t.Context()); have || (err != nil) != (name == "XAUserNameAbsent") {
				t.Errorf("an access token that ended: %v, %v", have, err)
			}
		})
	}
}

// TestAcceptedInBadWeather: what is unclear is neither yes nor no.
func TestAcceptedInBadWeather(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	for _, f := range []jiratest.Fault{
		{Do: jiratest.LoseAnswer},
		{Do: jiratest.HTML200},
		{Do: jiratest.HTML404},
		{Do: jiratest.Answer, Status: 503},
		{Do: jiratest.Answer, Status: 429},
		{Do: jiratest.Answer, Status: 403},
		{Do: jiratest.Answer, Status: 401, Body: "<html>"},
		{Do: jiratest.Answer, Body: `{}`, Header: http.Header{"X-Ausername": {"ci"}}},
		{Do: jiratest.Answer, Body: `null`},
		{Do: jiratest.Answer, Body: ""},
		{Do: jiratest.Redirect, Target: "http://x"},
		{Do: jiratest.Answer, Status: 403, Header: http.Header{"X-Authentication-Denied-Reason": {"CAPTCHA_CHALLENGE"}}},
	} {
		c := bearer(t, s, "ci")
		remove := s.Fault(f)
		if have, err := c.Accepted(t.Context()); err == nil || have {
			t.Errorf("%+v: %v, %v", f, have, err)
		}
		remove()
	}
	c := bearer(t, s, "ci")
	s.Fault(jiratest.Fault{Do: jiratest.Anonymous})
	for range 2 {
		if have, err := c.Accepted(t.Context()); err != nil || have {
			t.Errorf("taken for anonymous: %v, %v", have, err)
		}
	}
}
