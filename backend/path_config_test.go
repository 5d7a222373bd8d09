package backend

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

func TestConfigIsReadAsItWasWritten(t *testing.T) {
	e := start(t, jiratest.Options{})
	if got := e.read("config"); got != nil {
		t.Errorf("before it is written: %v", got)
	}
	if resp := e.write("config", map[string]any{"url": e.jira.URL() + "/"}); resp != nil {
		t.Errorf("a clean write answers %+v", resp)
	}
	want := map[string]any{
		"url": e.jira.URL(), "ca_cert": "", "client_cert": "", "tls_server_name": "", "tls_min_version": "tls12",
		"tls_skip_verify": false, "allow_http": false, "proxy_url": "", "request_timeout": 10, "max_concurrent_requests": 10,
		"max_token_days": 365, "verify_connection": true, "username": "", "credential_kind": "", "version": "10.3.2",
	}
	got := e.read("config")
	for field := range want {
		if got[field] != want[field] {
			t.Errorf("%s is %v, want %v", field, got[field], want[field])
		}
	}
	if n := e.jira.Count("GET", "/rest/api/2/serverInfo"); n != 1 {
		t.Errorf("asked %d times for the version", n)
	}
	e.must(logical.DeleteOperation, "config", nil)
	e.must(logical.DeleteOperation, "config", nil)
	if got := e.read("config"); got != nil {
		t.Errorf("after it is deleted: %v", got)
	}
}

func TestAWriteChangesOnlyWhatItSends(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "request_timeout": "5s", "max_concurrent_requests": 3, "token": e.pat("jira-admin")})
	e.write("config", map[string]any{"max_token_days": 30})
	e.must(logical.PatchOperation, "config", map[string]any{"request_timeout": nil, "tls_min_version": "tls13"})
	got := e.read("config")
	for field, want := range map[string]any{
		"request_timeout": 10, "max_concurrent_requests": 3, "max_token_days": 30, "tls_min_version": "tls13",
		"credential_kind": "token", "username": "jira-admin",
	} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
}

func TestTheAdminsCredential(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.jira.SetUser("jira-admin", func(u *jiratest.User) { u.Password = "open sesame now" })
	e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "password": "open sesame now"})
	if got := e.read("config"); got["credential_kind"] != "password" || got["username"] != "jira-admin" {
		t.Errorf("config %v", got)
	}
	e.write("config", map[string]any{"token": e.pat("jira-admin")})
	if got := e.read("config"); got["credential_kind"] != "token" {
		t.Errorf("config %v", got)
	}
	for _, tt := range []struct {
		data  map[string]any
		words string
	}{
		{map[string]any{"token": "a", "password": "b"}, "together"},
		{map[string]any{"token": ""}, "empty"},
		{map[string]any{"token": "two words"}, "space"},
		{map[string]any{"token": "bm9ib2R5cyB0b2tlbg=="}, "login refused"},
		{map[string]any{"username": "ci-bot"}, `belongs to "jira-admin", not to "ci-bot"`},
		{map[string]any{"password": "wrong"}, "login refused"},
	} {
		e.refuses(400, logical.UpdateOperation, "config", tt.data, tt.words)
	}
	e.refuses(400, logical.PatchOperation, "config", map[string]any{"token": nil}, "empty")
	resp := e.write("config", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, ""), "no Jira administrator") {
		t.Errorf("an admin who is none: %+v", resp)
	}
}

func TestConfigThatCannotWork(t *testing.T) {
	e := start(t, jiratest.Options{})
	url := e.jira.URL()
	cert, key := pair(t)
	_, otherKey := pair(t)
	for _, tt := range []struct {
		name  string
		data  map[string]any
		words string
	}{
		{"no url", map[string]any{}, "url is missing"},
		{"no scheme", map[string]any{"url": "jira.example.com"}, "scheme"},
		{"another scheme", map[string]any{"url": "ftp://jira.example.com"}, "scheme"},
		{"no host", map[string]any{"url": "https:///jira"}, "no host"},
		{"credentials", map[string]any{"url": "https://me:sesame@jira.example.com"}, "holds credentials"},
		{"a query", map[string]any{"url": url + "?a=b"}, "query"},
		{"dots", map[string]any{"url": url + "/../x"}, `".."`},
		{"does not parse", map[string]any{"url": "https://jira.example.com:x"}, "does not parse"},
		{"Jira Cloud", map[string]any{"url": "https://example.atlassian.net", "verify_connection": false}, "Jira Cloud"},
		{"plain http", map[string]any{"url": "http://jira.example.com"}, "allow_http"},
		{"a CA that does not parse", map[string]any{"url": url, "ca_cert": "nonsense"}, "ca_cert"},
		{"a key that does not fit", map[string]any{"url": url, "client_cert": cert, "client_key": otherKey}, "do not fit"},
		{"no key", map[string]any{"url": url, "client_cert": cert}, "client_key is missing"},
		{"no certificate", map[string]any{"url": url, "client_key": key}, "client_cert is missing"},
		{"an old TLS", map[string]any{"url": url, "tls_min_version": "tls10"}, "tls_min_version"},
		{"a proxy that is none", map[string]any{"url": url, "proxy_url": "proxy:3128"}, "proxy_url"},
		{"a proxy with a query", map[string]any{"url": url, "proxy_url": "http://proxy:3128?token=s3cr3t"}, "proxy_url"},
		{"a key among the certificates", map[string]any{"url": url, "client_cert": cert + key, "client_key": key}, "client_cert holds a private key"},
		{"a key among the authorities", map[string]any{"url": url, "ca_cert": cert + key}, "ca_cert holds a private key"},
		{"a line break for a token", map[string]any{"url": url, "token": "\n"}, "token is empty"},
		{"a file for a token", map[string]any{"url": url, "token": strings.Repeat("x", 1<<20)}, "longer than"},
		{"too short a timeout", map[string]any{"url": url, "request_timeout": "500ms"}, "request_timeout"},
		{"too long a timeout", map[string]any{"url": url, "request_timeout": "21s"}, "request_timeout"},
		{"a negative timeout", map[string]any{"url": url, "request_timeout": "-1s"}, "request_timeout"},
		{"no calls", map[string]any{"url": url, "max_concurrent_requests": 0}, "max_concurrent_requests"},
		{"too many calls", map[string]any{"url": url, "max_concurrent_requests": 101}, "max_concurrent_requests"},
		{"no days", map[string]any{"url": url, "max_token_days": 0}, "max_token_days"},
		{"a malformed field", map[string]any{"url": url, "tls_skip_verify": "perhaps"}, "tls_skip_verify"},
		{"a password without user", map[string]any{"url": url, "password": "sesame"}, "username is missing"},
		{"a user without password", map[string]any{"url": url, "username": "me"}, "without token or password"},
		{"a user with a colon", map[string]any{"url": url, "username": "a:b", "password": "sesame"}, "colon"},
	} {
		e.in(tt.name, func(e *engine) {
			e.refuses(400, logical.UpdateOperation, "config", tt.data, tt.words)
		})
	}
	e.refuses(400, logical.PatchOperation, "config", map[string]any{"url": url}, "no config to patch")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls to Jira", n)
	}
}

// pair returns a certificate and its key as PEM.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	c, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func TestAMisspeltFieldIsNamed(t *testing.T) {
	e := start(t, jiratest.Options{})
	for _, w := range []struct {
		path string
		data map[string]any
		word string
	}{
		{"config", map[string]any{"url": e.jira.URL(), "tls_skipverify": true}, "tls_skipverify"},
		{"accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot"), "alow_admin": true}, "alow_admin"},
		{"roles/readonly", map[string]any{"accounts": "ci-bot", "maxttl": "1h"}, "maxttl"},
	} {
		resp := e.write(w.path, w.data)
		if resp == nil || !strings.Contains(strings.Join(resp.Warnings, ""), w.word) {
			t.Errorf("%s: %+v does not name %s", w.path, resp, w.word)
		}
	}
	resp := e.issue("readonly", map[string]any{"tll": "5m"})
	if !strings.Contains(strings.Join(resp.Warnings, ""), "tll") {
		t.Errorf("warnings %v", resp.Warnings)
	}
	e.revoke(resp.Secret)
}

func TestConfigIsCheckedAgainstJira(t *testing.T) {
	for _, tt := range []struct {
		name     string
		options  jiratest.Options
		fault    *jiratest.Fault
		path     string // in place of the context path
		status   int    // 0: stored
		words    string
		warnings string
	}{
		{name: "an old Jira", options: jiratest.Options{Version: "8.13.27"}, status: 400, words: "Jira 8.13.27"},
		{name: "just new enough", options: jiratest.Options{Version: "8.14.0"}},
		{name: "Jira Cloud", options: jiratest.Options{Deployment: "Cloud"}, status: 400, words: "Jira Cloud"},
		{name: "a Jira that hides its version", options: jiratest.Options{Switches: jiratest.Switches{ServerInfoLogin: true}}, warnings: "when an account is written"},
		{name: "a wrong context path", path: "/jra", status: 502, words: "context path"},
		{name: "a proxy's page", fault: &jiratest.Fault{Do: jiratest.HTML200}, status: 502, words: "web page"},
		{name: "503", fault: &jiratest.Fault{Do: jiratest.Answer, Status: 503}, status: 503, words: "503"},
		{name: "lost", fault: &jiratest.Fault{Do: jiratest.LoseCall}, status: 503, words: "unavailable"},
		{name: "cut", fault: &jiratest.Fault{Do: jiratest.CutBody}, status: 502, words: "cut short"},
		{name: "nonsense", fault: &jiratest.Fault{Do: jiratest.Answer, Status: 200, Body: `{"state":"RUNNING"}`}, status: 502, words: "no version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, tt.options)
			if tt.fault != nil {
				e.jira.Fault(*tt.fault)
			}
			url := e.jira.URL()
			if tt.path != "" {
				url = strings.TrimSuffix(url, "/jira") + tt.path
			}
			data := map[string]any{"url": url}
			if tt.status != 0 {
				e.refuses(tt.status, logical.UpdateOperation, "config", data, tt.words)
				resp := e.write("config", map[string]any{"url": url, "verify_connection": false})
				if resp == nil || !strings.Contains(resp.Warnings[0], "not") {
					t.Errorf("unverified: %+v", resp)
				}
				return
			}
			resp := e.write("config", data)
			if (resp == nil) != (tt.warnings == "") || resp != nil && !strings.Contains(resp.Warnings[0], tt.warnings) {
				t.Errorf("response %+v", resp)
			}
		})
	}
}

func TestAnAuthorityThatChangesTakesEffectAtOnce(t *testing.T) {
	e := configured(t, jiratest.Options{TLS: true})
	e.revoke(e.issue("readonly", nil).Secret)
	other, _ := pair(t)
	e.refuses(503, logical.UpdateOperation, "config", map[string]any{"ca_cert": other, "confirm_destination": true}, "ca_cert")
	e.revoke(e.issue("readonly", nil).Secret)

	e.write("config", map[string]any{"ca_cert": other, "verify_connection": false, "confirm_destination": true})
	e.refuses(503, logical.ReadOperation, "creds/readonly", nil, "ca_cert")
	e.write("config", map[string]any{"ca_cert": other + string(e.jira.CA()), "verify_connection": true, "confirm_destination": true})
	e.revoke(e.issue("readonly", nil).Secret)

	e.write("config", map[string]any{"ca_cert": other, "verify_connection": false, "confirm_destination": true})
	resp := e.write("config", map[string]any{"tls_skip_verify": true, "verify_connection": true, "confirm_destination": true})
	if !strings.Contains(strings.Join(resp.Warnings, ""), "tls_skip_verify") {
		t.Errorf("warnings %v", resp.Warnings)
	}
	e.revoke(e.issue("readonly", nil).Secret)
	e.nothingHeld()
}

func TestAClientCertificate(t *testing.T) {
	cert, key := pair(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(cert))
	e := start(t, jiratest.Options{TLS: true, ClientCA: pool})
	e.refuses(503, logical.UpdateOperation, "config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "client_cert": cert, "client_key": key})
	for field, value := range e.read("config") {
		if value == key || field == "client_key" {
			t.Error("the key is read back")
		}
	}
}

func TestAProxysPasswordIsNotReadBack(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "proxy_url": "http://me:sesame@127.0.0.1:1", "verify_connection": false})
	if got := e.read("config")["proxy_url"]; got != "http://xxxxx@127.0.0.1:1" {
		t.Errorf("proxy_url %v", got)
	}
	e.refuses(503, logical.UpdateOperation, "config", map[string]any{"verify_connection": true}, "proxy_url")
}

// While a token is alive the engine must keep its way to it.
func TestConfigStaysWhileTokensLive(t *testing.T) {
	e := configured(t, jiratest.Options{})
	other := jiratest.New(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.refuses(400, logical.DeleteOperation, "config", nil, "vault lease revoke -sync -prefix jira/creds/")
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL(), "confirm_destination": true}, "url cannot be changed", "login refused")
	e.write("config", map[string]any{"request_timeout": "3s"})

	// The same Jira under another name has the tokens, so the engine follows.
	renamed := strings.Replace(e.jira.URL(), "127.0.0.1", "localhost", 1)
	e.write("config", map[string]any{"url": renamed, "confirm_destination": true})
	if got := e.read("config")["url"]; got != renamed {
		t.Errorf("url %v", got)
	}
	e.revoke(secret)
	e.nothingHeld()
	e.must(logical.DeleteOperation, "config", nil)
}

// What the site is, and which of Cloud's it is, belongs to where the tokens are, as
// its url does: neither changes while they live.
func TestConfigStaysTheSiteThatItIs(t *testing.T) {
	const ends = "vault lease revoke -sync -prefix jira/creds/"
	const another = "11111111-2222-3333-4444-555555555555"
	toCloud := map[string]any{"deployment": "cloud", "cloud_id": another, "confirm_destination": true}
	toDataCenter := map[string]any{"deployment": "datacenter", "allow_undocumented_api": false, "verify_connection": false, "confirm_destination": true}
	for _, tt := range []struct {
		name   string
		engine func(*testing.T) *engine
		role   string
		data   map[string]any
	}{
		{"access tokens, to Cloud", accessOnDataCenter, "report", toCloud},
		{"access tokens, to Data Center", accessOnCloud, "report", toDataCenter},
		{"access tokens, to another site of Cloud", accessOnCloud, "report", map[string]any{"cloud_id": another}},
		{"personal access tokens, to Cloud", func(t *testing.T) *engine { return configured(t, jiratest.Options{}) }, "readonly", toCloud},
		{"API tokens, to Data Center", apiTokensAtAnotherAddress, "ci-read", toDataCenter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := tt.engine(t)
			lease := e.issue(tt.role, nil)
			e.refuses(400, logical.UpdateOperation, "config", tt.data, "url cannot be changed", ends)
			e.write("config", map[string]any{"request_timeout": "5s", "cloud_id": e.read("config")["cloud_id"]}) // which is no move
			e.revoke(lease.Secret)
			e.nothingHeld()
			e.write("config", tt.data)
		})
	}
}

// Records of an account that is gone keep the engine where they are: nobody
// could tell whether the tokens moved, too.
func TestConfigStaysWhileTokensBelongToNobody(t *testing.T) {
	e := configured(t, jiratest.Options{})
	other := jiratest.New(t, jiratest.Options{})
	if err := e.ledger.Adopt(t.Context(), &ledger.Record{ID: ledger.NewID(), Account: "nobody", TokenID: "1"}); err != nil {
		t.Fatal(err)
	}
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL(), "confirm_destination": true}, "belong to no account")
	e.refuses(400, logical.DeleteOperation, "config", nil, "Jira has not ended them yet")
}

// An administrator's password that Jira has refused is not tried for the sake of
// another field: three wrong ones lock him out.
func TestARefusedPasswordOfTheAdministrator(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "username": "jira-admin", "password": e.passwordOf("jira-admin")})
	e.jira.SetUser("jira-admin", func(u *jiratest.User) { u.Password = "changed by hand" })
	e.jira.ResetCalls()
	for range 3 {
		warns(t, e.write("config", map[string]any{"request_timeout": "5s"}), "401")
	}
	sent := 0
	for _, call := range e.jira.Calls() {
		if call.Auth != "" {
			sent++
		}
	}
	if sent != 1 {
		t.Errorf("the password was sent %d times: %v", sent, e.jira.Calls())
	}
	e.write("config", map[string]any{"password": "changed by hand"})
}
