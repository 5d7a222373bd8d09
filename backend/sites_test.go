package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// What a refused write was tried with says nothing of the way that works: its gate stays
// open, however often somebody tries.
func TestTrialsDoNoDamage(t *testing.T) {
	e := start(t, jiratest.Options{TLS: true})
	e.sites.pause = time.Hour // as long as the test would notice
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot"})
	e.revoke(e.issue("readonly", nil).Secret)
	other, _ := pair(t)
	dead := "https://127.0.0.1:1/token"
	for _, tt := range []struct {
		path string
		data map[string]any
	}{
		{"config", map[string]any{"ca_cert": other, "confirm_destination": true}},
		{"config", map[string]any{"proxy_url": "http://127.0.0.1:1", "confirm_destination": true}},
		{"config", map[string]any{"tls_server_name": "somebody.else.example", "confirm_destination": true}},
		{"accounts/report", map[string]any{"type": "oauth2", "client_id": "c", "client_secret": "s", "token_url": dead}},
	} {
		for range 3 { // each of several calls
			e.refuses(503, logical.UpdateOperation, tt.path, tt.data)
		}
		if shut, _, _, _ := e.sites.weather(); shut.After(time.Now()) {
			t.Fatalf("%s with %v: no call is made until %v", tt.path, tt.data, shut)
		}
		e.revoke(e.issue("readonly", nil).Secret)
	}
	e.nothingHeld()
}

// The same holds for the addresses of a service account, be its secret sent again or not.
func TestATrialOfAnotherAddressDoesNoDamage(t *testing.T) {
	e, a := serviceAccount(t, jiratest.Options{}, nil)
	e.sites.pause = time.Hour
	e.write("config", map[string]any{"request_timeout": "5s"}) // which has a gate of its own
	e.revoke(e.issue("report", nil).Secret)
	for _, field := range []string{"token_url", "revocation_url"} {
		for _, data := range []map[string]any{{"confirm_destination": true}, {"client_secret": a.ClientSecret}} {
			data[field] = "https://127.0.0.1:1/oauth"
			for range 3 {
				e.refuses(503, logical.UpdateOperation, "accounts/reporting", data)
			}
			if shut, _, _, _ := e.sites.weather(); shut.After(time.Now()) {
				t.Fatalf("with %v: no call is made until %v", data, shut)
			}
			e.revoke(e.issue("report", nil).Secret)
		}
	}
	e.nothingHeld()
}

// A retired account reaches its Jira as the config of now says, not as that of the day on
// which it was deleted. Where the config is of another Jira, it goes its own way.
func TestARetiredAccountGoesTheWayOfNow(t *testing.T) {
	e := configured(t, jiratest.Options{TLS: true})
	another := jiratest.New(t, jiratest.Options{TLS: true})
	e.issue("readonly", nil)
	wrong, _ := pair(t)
	e.write("config", map[string]any{"ca_cert": wrong, "verify_connection": false, "confirm_destination": true})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	if len(e.alive()) != 1 {
		t.Fatal("the token was ended by a way that does not lead to Jira")
	}
	e.write("config", map[string]any{"ca_cert": string(e.jira.CA()), "verify_connection": true, "confirm_destination": true})
	e.settled()
	e.nothingHeld()

	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot"})
	e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.LoseCall})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	remove()
	e.write("config", map[string]any{"url": another.URL(), "ca_cert": string(another.CA())})
	e.settled()
	e.nothingHeld()
	for _, call := range another.Calls() {
		if call.Auth != "" {
			t.Errorf("the other Jira was sent a credential: %+v", call)
		}
	}
}
