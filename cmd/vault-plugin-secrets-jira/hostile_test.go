package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestAHostileReader is one who makes himself a child token with a very long name, and says a lot about what each read
// is for. What the engine stores of him must leave room for all that is still to be written, so that his tokens end with
// their leases, and everybody else's.
func TestAHostileReader(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configure()
	w.api("PUT", "jira/roles/brief", map[string]any{"accounts": "ci", "ttl": "5s"})
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "10m"})
	w.api("POST", "sys/mounts/jira/tune", map[string]any{"audit_non_hmac_request_keys": []string{"metadata"}})
	w.api("PUT", "sys/policies/acl/reader", map[string]any{"policy": `path "jira/creds/*" { capabilities = ["read"] }`})
	var hostile struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	// Vault stores the name in an entry of its own, of a megabyte at most.
	w.read(&hostile, w.api("POST", "auth/token/create", map[string]any{
		"display_name": strings.Repeat("x", 900<<10), "policies": []string{"reader"},
	}))
	w.secrets = append(w.secrets, hostile.Auth.ClientToken)
	words := url.QueryEscape(strings.Repeat("why ", 10<<10))
	for range 12 {
		w.must(200, "GET", w.addr+"/v1/jira/creds/brief", nil, "X-Vault-Token", hostile.Auth.ClientToken)
		w.must(400, "GET", w.addr+"/v1/jira/creds/brief?metadata="+words, nil, "X-Vault-Token", hostile.Auth.ClientToken)
	}
	var other struct{ Data struct{ Token string } }
	w.read(&other, w.api("GET", "jira/creds/app", nil))
	w.api("GET", "jira/creds/brief", nil)

	// What the leases held is gone with them, by Vault's revokes or by the worker.
	if poll(func() bool { return len(w.live()) == 1 }) != nil {
		t.Fatalf("%d tokens are alive instead of one: %.300q", len(w.live()), w.live())
	}
	w.must(200, "GET", w.jira["JIRA_URL"]+"/rest/api/2/myself", nil, "Authorization", "Bearer "+other.Data.Token)
	if poll(func() bool {
		status, _ := w.send("LIST", w.addr+"/v1/sys/leases/lookup/jira/creds/brief", nil, "X-Vault-Token", w.root)
		return status == http.StatusNotFound
	}) != nil {
		t.Error("leases are left whose tokens are gone")
	}
	var health struct{ Data struct{ Healthy bool } }
	w.read(&health, w.api("GET", "jira/status", nil))
	if !health.Data.Healthy {
		t.Errorf("status: %s", w.api("GET", "jira/status", nil))
	}
	w.api("PUT", "sys/leases/revoke-prefix/jira/creds", map[string]any{"sync": true})
	w.holdsNothing()
}
