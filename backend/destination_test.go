package backend

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// tellsNoSecret fails the test if a call to one of the sites carried a credential.
func (e *engine) tellsNoSecret(sites ...*jiratest.Server) {
	e.t.Helper()
	for _, site := range sites {
		for _, call := range site.Calls() {
			if call.Auth != "" || strings.HasPrefix(call.Path, "/rest/oauth2/") {
				e.t.Errorf("%s %s was sent a credential: %q", call.Method, call.Path, call.Auth)
			}
		}
	}
}

// attacker is a Jira of somebody who wants to know what the engine logs in with.
func attacker(t *testing.T) *jiratest.Server {
	t.Helper()
	return jiratest.New(t, jiratest.Options{Version: "11.0.0"})
}

// A write of config that would send a stored secret elsewhere is refused before any call
// that carries one, with and without a check, as a write and as a patch.
func TestAStoredSecretGoesOnlyWhereItWasGivenFor(t *testing.T) {
	e := configured(t, jiratest.Options{TLS: true})
	e.jira.SetUser("jira-admin", func(u *jiratest.User) { u.Password = "open sesame now" })
	e.write("config", map[string]any{"username": "jira-admin", "password": "open sesame now", "tls_server_name": "localhost", "confirm_destination": true})
	e.write("static-roles/agent", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	other := attacker(t)
	cert, _ := pair(t)
	e.jira.ResetCalls()
	for _, tt := range []struct {
		data map[string]any
		word string
	}{
		{map[string]any{"url": other.URL()}, "changes url)"},
		{map[string]any{"url": other.URL(), "ca_cert": string(other.CA())}, "changes ca_cert, url)"},
		{map[string]any{"url": strings.Replace(e.jira.URL(), "127.0.0.1", "localhost", 1)}, "changes url)"},
		{map[string]any{"proxy_url": strings.TrimSuffix(other.URL(), "/jira")}, "changes proxy_url)"},
		{map[string]any{"ca_cert": cert}, "changes ca_cert)"},
		{map[string]any{"ca_cert": nil}, "changes ca_cert)"},
		{map[string]any{"tls_server_name": "elsewhere"}, "changes tls_server_name)"},
		{map[string]any{"tls_server_name": nil}, "changes tls_server_name)"},
		{map[string]any{"tls_skip_verify": true}, "changes tls_skip_verify)"},
		{map[string]any{"tls_skip_verify": true, "confirm_destination": false}, "changes tls_skip_verify)"},
		{map[string]any{"tls_skip_verify": true, "confirm_destination": nil}, "changes tls_skip_verify)"},
		{map[string]any{"tls_skip_verify": true, "client_secret": "of nothing here"}, "the config's password"},
		{map[string]any{"tls_skip_verify": true, "password": "open sesame now"}, "those of account"}, // and of no admin
	} {
		for _, verify := range []bool{true, false} {
			for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
				data := maps.Clone(tt.data)
				data["verify_connection"] = verify
				e.refuses(400, op, "config", data, "confirm_destination=true", `account "ci-bot"`, `static role "agent"`, tt.word)
			}
		}
	}
	e.tellsNoSecret(e.jira, other)

	// What changes nothing of it needs nothing.
	e.write("config", map[string]any{"url": e.jira.URL() + "/", "ca_cert": string(e.jira.CA()) + "\n", "request_timeout": "5s"})
	// Once confirmed it is done, and is not confirmed for the next time.
	e.write("config", map[string]any{"tls_skip_verify": true, "confirm_destination": true})
	if !strings.Contains(e.log.String(), "stored secrets go to another destination") {
		t.Error("the log does not tell it")
	}
	e.write("config", map[string]any{"request_timeout": "6s"})
	if _, shown := e.read("config")["confirm_destination"]; shown {
		t.Error("confirm_destination is read back")
	}
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"tls_skip_verify": false}, "confirm_destination=true")
	e.must(logical.DeleteOperation, "static-roles/agent", nil)
}

// An administrator who is given again needs no other word, and a config without
// secrets none at all.
func TestASecretThatIsGivenAgain(t *testing.T) {
	e := start(t, jiratest.Options{})
	other := attacker(t)
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.write("config", map[string]any{"url": other.URL()})
	e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "token": e.pat("jira-admin")})
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL()}, "those of the config's token", "give the config's token or password again")
	other.AddUser(jiratest.User{Name: "jira-admin", Admin: true})
	_, token := other.Mint("jira-admin", "made by hand", 0)
	e.tellsNoSecret(other)
	e.write("config", map[string]any{"url": other.URL(), "token": token})
}

// The token that a rotation has stored as the next one was given by nobody.
func TestANextTokenIsNotGivenAgain(t *testing.T) {
	e := start(t, jiratest.Options{})
	other := attacker(t)
	token := e.pat("jira-admin")
	e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "token": token})
	k := &keeper{b: e.backend, name: adminAccount, account: adminAccount}
	if err := k.amend(t.Context(), func(c *credential) error { c.Next = "bmV4dA=="; return nil }); err != nil {
		t.Fatal(err)
	}
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL(), "token": token}, "confirm_destination=true")
	e.tellsNoSecret(other)
}

// A config that was deleted is no way round: accounts that stay were given their
// secrets for its destination.
func TestAConfigThatIsWrittenAnew(t *testing.T) {
	e := configured(t, jiratest.Options{TLS: true})
	other := attacker(t)
	here := map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())}
	for _, force := range []bool{false, true} {
		e.must(logical.DeleteOperation, "config", map[string]any{"force": force})
		for _, verify := range []bool{true, false} {
			e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL(), "verify_connection": verify}, `account "ci-bot"`, "changes ca_cert, url)")
			e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": e.jira.URL(), "tls_skip_verify": true, "verify_connection": verify}, `account "ci-bot"`)
		}
		e.mount()
		e.write("config", here)
	}
	e.tellsNoSecret(other)

	// Of a config that an older version has deleted nobody knows where it was.
	e.must(logical.DeleteOperation, "config", nil)
	if err := e.storage.Delete(t.Context(), destinationKey); err != nil {
		t.Fatal(err)
	}
	e.refuses(400, logical.UpdateOperation, "config", here, "is not known", "confirm_destination=true")
	here["confirm_destination"] = true
	e.write("config", here)
	e.revoke(e.issue("readonly", nil).Secret)
}

// With verify_connection=false a write calls nobody, and so is no way to move from
// where there are tokens.
func TestAWriteThatIsNotToVerifyCallsNobody(t *testing.T) {
	e := configured(t, jiratest.Options{})
	other := attacker(t)
	lease := e.issue("readonly", nil)
	e.jira.ResetCalls()
	to := map[string]any{"url": other.URL(), "verify_connection": false, "confirm_destination": true}
	e.refuses(400, logical.UpdateOperation, "config", to, "url cannot be changed: with verify_connection=false", "vault lease revoke -sync -prefix jira/creds/")
	e.write("config", map[string]any{"verify_connection": false, "request_timeout": "5s"})
	if n := len(e.jira.Calls()) + len(other.Calls()); n != 0 {
		t.Errorf("%d calls: %v, %v", n, e.jira.Calls(), other.Calls())
	}
	e.revoke(lease.Secret)
	e.jira.ResetCalls()
	e.write("config", to)
	if n := len(e.jira.Calls()) + len(other.Calls()); n != 0 {
		t.Errorf("%d calls: %v, %v", n, e.jira.Calls(), other.Calls())
	}
}

// An account that is written while a config without secrets moves does not move with it.
func TestAnAccountIsWrittenWhileTheConfigMoves(t *testing.T) {
	e := start(t, jiratest.Options{})
	other := attacker(t)
	e.write("config", map[string]any{"url": e.jira.URL()})
	other.Fault(jiratest.Fault{Path: "/rest/api/2/serverInfo", Nth: 1, Do: jiratest.Slow, Delay: 300 * time.Millisecond})
	done := make(chan error)
	go func() {
		_, err := e.request(t.Context(), logical.UpdateOperation, "config", map[string]any{"url": other.URL()})
		done <- err
	}()
	if err := other.WaitCalls(t.Context(), "GET", "/rest/api/2/serverInfo", 1); err != nil {
		t.Fatal(err)
	}
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.failed(400, nil, <-done, `account "ci-bot"`, "confirm_destination=true")
	e.tellsNoSecret(other)
	if got := e.read("config")["url"]; got != e.jira.URL() {
		t.Errorf("url %v", got)
	}
}

// A client secret goes to no other token_url or revocation_url.
func TestAClientSecretGoesOnlyWhereItWasGivenFor(t *testing.T) {
	const path = "/rest/oauth2/latest/revoke"
	e, a := serviceAccount(t, jiratest.Options{Switches: jiratest.Switches{RevocationPath: path}}, nil)
	other := attacker(t)
	for _, data := range []map[string]any{
		{"token_url": other.URL() + "/rest/oauth2/latest/token"},
		{"revocation_url": other.URL() + path},
		{"revocation_url": other.URL() + path, "confirm_destination": nil},
		{"revocation_url": other.URL() + path, "client_id": "another"},
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
			e.refuses(400, op, "accounts/reporting", data, "client_secret", "confirm_destination=true")
		}
	}
	e.tellsNoSecret(e.jira, other)

	e.write("accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + path, "confirm_destination": true})
	if _, shown := e.read("accounts/reporting")["confirm_destination"]; shown {
		t.Error("confirm_destination is read back")
	}
	e.write("accounts/reporting", map[string]any{"token_url": e.jira.URL() + "/rest/oauth2/latest/token"}) // where it is
	e.write("accounts/reporting", map[string]any{"revocation_url": nil, "scopes": "READ"})
	e.write("accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + path, "client_secret": a.ClientSecret})
}

// What a deleted account logs in with stays where it is: at its site it takes the way of
// the current config, so another way there needs the confirmation, too.
func TestADeletedAccountsSecretGoesOnlyWhereItWasGivenFor(t *testing.T) {
	e := configured(t, jiratest.Options{TLS: true})
	other := attacker(t)
	e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.LoseCall})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	remove()
	another := map[string]any{"tls_skip_verify": true}
	e.refuses(400, logical.UpdateOperation, "config", another, `deleted account "ci-bot"`, "confirm_destination=true")

	e.write("config", map[string]any{"url": other.URL()}) // to which it does not go
	another["url"] = e.jira.URL()
	e.refuses(400, logical.UpdateOperation, "config", another, `deleted account "ci-bot"`, "confirm_destination=true")
	e.must(logical.DeleteOperation, "config", nil)
	e.refuses(400, logical.UpdateOperation, "config", another, `deleted account "ci-bot"`, "confirm_destination=true")
	e.tellsNoSecret(other)
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())}) // as it was
	e.settled()
	e.nothingHeld()
}

// What the site is decides where secrets go, too.
func TestAnotherDeploymentIsAnotherDestination(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{
		"deployment": "cloud", "cloud_id": "11111111-2222-3333-4444-555555555555", "verify_connection": false,
	}, "changes deployment)", "confirm_destination=true")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
}
