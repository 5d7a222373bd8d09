package main

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// TestGoClient is the story of an application in Go that uses Vault's own client: it reads a credential, keeps it alive
// as long as the role allows, and is told when it has to read a new one.
func TestGoClient(t *testing.T) {
	if suite.noVault != "" {
		t.Skip(suite.noVault)
	}
	if realJira() {
		t.Skip("this needs the simulator")
	}
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end() // not in a cleanup: processes end with the test's context
	w.begin()

	operator := w.client(w.root)
	if err := operator.Sys().MountWithContext(t.Context(), "jira", &api.MountInput{Type: pluginName}); err != nil {
		t.Fatal(err)
	}
	write := func(path string, fields map[string]any) {
		t.Helper()
		if _, err := operator.Logical().WriteWithContext(t.Context(), path, fields); err != nil {
			t.Fatal(err)
		}
	}
	write("jira/config", map[string]any{"url": w.jira["JIRA_URL"]})
	write("jira/accounts/ci", map[string]any{"username": w.jira["JIRA_USERNAME"], "token": w.jira["JIRA_TOKEN"]})
	write("jira/roles/app", map[string]any{"accounts": []string{"ci"}, "ttl": "2s", "max_ttl": "6s"})

	// The application has a token of Vault's that lets it read the role, and nothing else.
	write("sys/policies/acl/app", map[string]any{"policy": `path "jira/creds/app" { capabilities = ["read"] }`})
	auth, err := operator.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{"app"}})
	if err != nil {
		t.Fatal(err)
	}
	app := w.client(auth.Auth.ClientToken)
	secret, err := app.Logical().ReadWithContext(t.Context(), "jira/creds/app")
	if err != nil {
		t.Fatal(err)
	}
	read := time.Now()
	token, _ := secret.Data["token"].(string)
	name, _ := secret.Data["token_name"].(string)
	if secret.LeaseID == "" || !secret.Renewable || token == "" || name == "" {
		t.Fatalf("the answer lacks a lease or a token: %+v", secret)
	}
	myself := func() int {
		status, _ := w.send("GET", w.jira["JIRA_URL"]+"/rest/api/2/myself", nil, "Authorization", "Bearer "+token)
		return status
	}
	if status := myself(); status != 200 {
		t.Fatalf("Jira answers the new token with %d", status)
	}

	watcher, err := app.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	go watcher.Start()
	defer watcher.Stop()
	renewals := 0
	for done := false; !done; {
		select {
		case renewal := <-watcher.RenewCh():
			renewals++
			if renewal.Secret.LeaseID != secret.LeaseID {
				t.Errorf("renewed is lease %q instead of %q", renewal.Secret.LeaseID, secret.LeaseID)
			}
			if status := myself(); status != 200 {
				t.Errorf("after renewal %d Jira answers the token with %d", renewals, status)
			}
		case err := <-watcher.DoneCh():
			if err != nil {
				t.Errorf("the watcher ends with %v", err)
			}
			done = true
		case <-time.After(most):
			t.Fatal("the watcher does not end")
		}
	}
	if renewals == 0 {
		t.Error("it was never renewed")
	}
	if lived := time.Since(read); lived < 3*time.Second {
		t.Errorf("the watcher gave up after %v, the role allows 6s", lived)
	}
	if err := w.waitGone(name); err != nil {
		t.Fatal(err)
	}
	if status := myself(); status != 401 {
		t.Errorf("Jira answers the ended token with %d", status)
	}
}

// client returns a client of the story's Vault.
func (w *world) client(token string) *api.Client {
	w.t.Helper()
	config := api.DefaultConfig()
	config.Address = w.addr
	c, err := api.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	c.SetToken(token)
	return c
}
