package jiratest_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const (
	authHost = "https://auth.atlassian.com"
	gateway  = "https://api.atlassian.com"
)

// newCloud starts a site of Jira Cloud that has a service account.
func newCloud(t *testing.T, o jiratest.Options) (*jiratest.Server, jiratest.ServiceAccount) {
	t.Helper()
	o.Cloud = "acme"
	if o.Now == nil {
		o.Now = func() time.Time { return start }
	}
	s := jiratest.New(t, o)
	return s, s.AddServiceAccount(jiratest.ServiceAccount{Name: "deployer"})
}

// through returns a client that calls a host of Cloud through the proxy.
func through(t *testing.T, s *jiratest.Server, base, token string) *client {
	t.Helper()
	proxy, err := url.Parse(s.Proxy())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	c := as(t, s, "")
	if token != "" {
		c = as(t, s, "Bearer "+token)
	}
	c.base = base
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	c.http.Transport = transport
	return c
}

func cloudCredentials(a jiratest.ServiceAccount, more string) string {
	return fmt.Sprintf(`{"grant_type":"client_credentials","client_id":%q,"client_secret":%q%s}`, a.ClientID, a.ClientSecret, more)
}

func TestCloud(t *testing.T) {
	s, a := newCloud(t, jiratest.Options{})
	site, auth := through(t, s, s.URL(), ""), through(t, s, authHost, "")
	if s.URL() != "https://acme.atlassian.net" || site.want(200, "GET", "/_edge/tenant_info", "")["cloudId"] != s.CloudID() {
		t.Errorf("%s is %s", s.URL(), s.CloudID())
	}
	if info := site.want(200, "GET", "/rest/api/3/serverInfo", ""); info["deploymentType"] != "Cloud" {
		t.Errorf("serverInfo %v", info)
	}
	made := auth.want(200, "POST", "/oauth/token", cloudCredentials(a, ""))
	token := fmt.Sprint(made["access_token"])
	through(t, s, s.URL(), token).want(401, "GET", "/rest/api/3/myself", "")
	s.AddProject(jiratest.Project{Key: "DEMO"})
	with := through(t, s, gateway+"/ex/jira/"+s.CloudID(), token)
	if me := with.want(200, "GET", "/rest/api/3/myself", ""); me["accountId"] != a.ID {
		t.Errorf("he is %v", me)
	}
	with.want(200, "GET", "/rest/api/3/mypermissions?permissions=BROWSE_PROJECTS", "")
	with.want(400, "GET", "/rest/api/3/mypermissions", "")
	with.want(404, "GET", "/rest/api/2/myself", "")
	with.want(404, "GET", "/rest/api/3/user", "")
	with.want(404, "PUT", "/rest/api/3/myself/password", "{}")
	with.want(201, "POST", "/rest/api/3/issue", `{"fields":{"project":{"key":"DEMO"},"summary":"x"}}`)
	with.want(200, "GET", "/rest/api/3/issue/DEMO-1", "")
	through(t, s, gateway+"/ex/jira/00000000-0000-0000-0000-000000000000", token).want(404, "GET", "/rest/api/3/myself", "")
	through(t, s, gateway+"/ex/jira/"+s.CloudID(), "").want(401, "GET", "/rest/api/3/serverInfo", "")

	narrow := auth.want(200, "POST", "/oauth/token", cloudCredentials(a, `,"scope":"read:jira-work"`))
	reads := through(t, s, gateway+"/ex/jira/"+s.CloudID(), fmt.Sprint(narrow["access_token"]))
	reads.want(200, "GET", "/rest/api/3/issue/DEMO-1", "")
	if r := reads.do("GET", "/rest/api/3/myself", ""); r.status != 401 || !strings.Contains(r.body, `"Unauthorized; scope does not match"`) {
		t.Errorf("without the scope: %v", r)
	}
	reads.want(401, "DELETE", "/rest/api/3/issue/DEMO-1", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ServiceMyself = 403 })
	with.want(403, "GET", "/rest/api/3/myself", "")

	if said := auth.want(401, "POST", "/oauth/token", cloudCredentials(jiratest.ServiceAccount{ClientID: a.ClientID}, "")); said["error"] != "access_denied" {
		t.Errorf("a wrong secret: %v", said)
	}
	auth.want(400, "POST", "/oauth/token", cloudCredentials(a, `,"scope":"all"`))
	auth.want(400, "POST", "/oauth/token", "grant_type=client_credentials")
	auth.want(404, "POST", "/elsewhere", "{}")
	s.Advance(time.Hour)
	with.want(401, "GET", "/rest/api/3/myself", "")
	if c := s.Calls()[3]; c.Path != "/rest/api/3/myself" || c.User != "deployer" || c.Status != 401 {
		t.Errorf("the call is noted as %+v", c)
	}
}

// TestCloudsProxy leads nowhere else, and serves no site itself.
func TestCloudsProxy(t *testing.T) {
	s, _ := newCloud(t, jiratest.Options{Control: true})
	for _, host := range []string{"https://example.com", "https://other.atlassian.net", "https://api.atlassian.com:8443"} {
		if _, err := through(t, s, host, "").try(t.Context(), "GET", "/", ""); err == nil {
			t.Errorf("it leads to %s", host)
		}
	}
	direct := as(t, s, "")
	direct.base = s.Proxy()
	direct.want(404, "GET", "/_edge/tenant_info", "")
	for _, list := range []string{"access-tokens", "api-tokens"} {
		if r := direct.do("GET", "/_sim/"+list, ""); r.status != 200 || strings.TrimSpace(r.body) != "[]" {
			t.Errorf("%s: %v", list, r)
		}
	}
	if _, err := as(t, newJira(t, jiratest.Options{}), "").try(t.Context(), "CONNECT", "", ""); err != nil {
		t.Error(err)
	}
	s.Fault(jiratest.Fault{Path: "/_edge", Do: jiratest.LoseCall})
	if _, err := through(t, s, s.URL(), "").try(t.Context(), "POST", "/_edge/tenant_info", ""); err == nil {
		t.Error("a fault has no effect")
	}
	s.Close()
	if _, err := through(t, s, s.URL(), "").try(t.Context(), "GET", "/_edge/tenant_info", ""); err == nil {
		t.Error("it serves on")
	}
}

func TestManageAPITokens(t *testing.T) {
	s, a := newCloud(t, jiratest.Options{})
	path := "/users/" + a.ID + "/manage/api-tokens"
	org := through(t, s, gateway, s.AddOrgKey(false))
	body := func(label, scopes, expiry string) string {
		return fmt.Sprintf(`{"label":%q,"scopes":[%s],"expiry":%q}`, label, scopes, expiry)
	}
	const scope, soon = `"read:jira-user"`, "2026-03-03T08:00:00Z"
	for _, test := range []struct{ body, code string }{
		{body("n", "", soon), "MISSING_SCOPES"},
		{body("n", scope, "2027-03-03T08:00:00Z"), "INVALID_EXPIRY"},
		{body("n", scope, "2026-03-01T08:00:00Z"), "INVALID_EXPIRY"},
		{strings.Replace(body("n", scope, soon), "expiry", "expiresAt", 1), "INVALID_EXPIRY"},
		{body("", scope, soon), "INVALID_REQUEST"},
	} {
		if said := org.want(400, "POST", path, test.body); said["code"] != test.code {
			t.Errorf("%s: %v", test.body, said)
		}
	}
	made := org.want(201, "POST", path, body("n", scope, soon))
	if said := org.want(400, "POST", path, body("n", scope, soon)); said["code"] != "DUPLICATE_LABEL" {
		t.Errorf("the same label: %v", said)
	}
	with := through(t, s, gateway+"/ex/jira/"+s.CloudID(), fmt.Sprint(made["token"]))
	with.want(200, "GET", "/rest/api/3/myself", "")
	with.want(401, "GET", "/rest/api/3/mypermissions?permissions=X", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.APITokenDelay = 70 * time.Second })
	with.want(401, "GET", "/rest/api/3/myself", "")
	s.Advance(70 * time.Second)
	with.want(200, "GET", "/rest/api/3/myself", "")
	if r := org.do("GET", path, ""); r.status != 200 || !strings.Contains(r.body, `"label":"n"`) || strings.Contains(r.body, "ATSTT") {
		t.Errorf("the list is %v", r)
	}
	for key, says := range map[string]string{s.AddOrgKey(true): "scope does not match", "wrong": `"Unauthorized"`} {
		if r := through(t, s, gateway, key).do("GET", path, ""); r.status != 401 || !strings.Contains(r.body, says) {
			t.Errorf("another key: %v", r)
		}
	}
	org.want(404, "GET", "/users/nobody/manage/api-tokens", "")
	org.want(405, "GET", path+"/x", "")
	org.want(404, "DELETE", path+"/x", "")
	org.want(204, "DELETE", fmt.Sprint(path, "/", made["id"]), "")
	with.want(401, "GET", "/rest/api/3/myself", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.APITokenPostOff = true })
	org.want(405, "POST", path, body("n", scope, soon))
	if n := len(s.APITokens()); n != 0 {
		t.Errorf("%d are left", n)
	}
}
