package backend

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestAllows(t *testing.T) {
	for _, tt := range []struct {
		list, role string
		want       bool
	}{
		{"*", "readonly", true},
		{"*", "static/legacy", true},
		{"readonly", "readonly", true},
		{"readonly", "readonly2", false},
		{"read* deploy", "readonly", true},
		{"read* deploy", "deploy", true},
		{"read*", "a-read", false},
		{"*-ro", "ci-ro", true},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abde", false},
		{"a.c", "abc", false},
		{"a.*", "abc", false},
		{"", "readonly", false},
		{"static/*", "legacy", false},
		{"static/*", "static/legacy", true},
		{"legacy", "static/legacy", false},
	} {
		if got := allows(tt.list, tt.role); got != tt.want {
			t.Errorf("%q allows %q: %v", tt.list, tt.role, got)
		}
	}
}

// A role uses no account that does not allow it, also where it was written before.
func TestAllowedRoles(t *testing.T) {
	e := configured(t, jiratest.Options{})
	if got := e.read("accounts/ci-bot")["allowed_roles"].([]string); len(got) != 1 || got[0] != "*" {
		t.Errorf("a new account allows %v", got)
	}
	for value, word := range map[string]string{"": "allowed_roles is empty", "a/b": `"a/b"`, "static/": `"static/"`, strings.Repeat("x", 300): "longer than", strings.Repeat("x,", 1001): "the most"} {
		e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"allowed_roles": value}, "allowed_roles", word)
	}
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.write("accounts/ci-bot", map[string]any{"allowed_roles": "deploy-*,static/other"})
	const word = `account "ci-bot" does not allow role `
	e.refuses(400, logical.UpdateOperation, "roles/mine", map[string]any{"accounts": "ci-bot"}, word+`"mine"`)
	e.refuses(400, logical.UpdateOperation, "roles/readonly", map[string]any{"ttl": "30m"}, word+`"readonly"`)
	e.refuses(400, logical.UpdateOperation, "static-roles/mine", map[string]any{"account": "ci-bot", "rotation_period": "24h"}, word+`"static/mine"`)
	for path, op := range map[string]logical.Operation{
		"creds/readonly": logical.ReadOperation, "roles/readonly/check": logical.UpdateOperation,
		"static-creds/legacy": logical.ReadOperation, "rotate-role/legacy": logical.UpdateOperation,
	} {
		resp, err := e.request(t.Context(), op, path, nil)
		e.failed(400, resp, err, word)
	}
	e.write("roles/deploy-ci", map[string]any{"accounts": "ci-bot"})
	e.revoke(e.issue("deploy-ci", nil).Secret)
	e.write("static-roles/other", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.must(logical.DeleteOperation, "static-roles/other", nil)

	// Of a pool the others are taken.
	e.write("accounts/release", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("accounts/ci-bot", map[string]any{"allowed_roles": "*"})
	e.write("roles/both", map[string]any{"accounts": "ci-bot,release"})
	e.write("accounts/ci-bot", map[string]any{"allowed_roles": "deploy-*"})
	for range 3 {
		lease := e.issue("both", nil)
		if lease.Data["username"] != "release-bot" {
			t.Errorf("of %v", lease.Data["username"])
		}
		e.revoke(lease.Secret)
	}

	// What was stored before there were lists allows all, and so does the default.
	a, err := e.loadAccount(t.Context(), "ci-bot")
	if err != nil {
		t.Fatal(err)
	}
	old := *a
	old.AllowedRoles = ""
	if err := store(t.Context(), e.storage, accountsPrefix+"ci-bot", old); err != nil {
		t.Fatal(err)
	}
	if keys := e.storage.dump(t); strings.Contains(keys, "allowed_roles\":\"deploy") {
		t.Fatal("it is not as it was before")
	}
	e.revoke(e.issue("readonly", nil).Secret)
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 10})
	e.revoke(e.issue("readonly", nil).Secret)
	e.write("accounts/ci-bot", map[string]any{"allowed_roles": "nobody"})
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"allowed_roles": nil})
	e.revoke(e.issue("readonly", nil).Secret)
	e.must(logical.DeleteOperation, "static-roles/legacy", nil)
	e.settled()
	e.nothingHeld()
}

// A permission to write roles alone makes no administrator: not by allow_admin, not by
// verify=false, and not by a role that was allowed to.
func TestAllowAdminRoles(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	rulers := map[string]any{"credential_type": "ephemeral_user", "groups": "jira-administrators", "allow_admin": true, "ttl": "1h"}
	const word = `does not allow role "rulers" to make administrators`
	e.refuses(400, logical.UpdateOperation, "roles/rulers", rulers, word, "allow_admin_roles")
	unseen := merged(rulers, map[string]any{"allow_admin": false, "verify": false})
	e.refuses(400, logical.UpdateOperation, "roles/rulers", unseen, "verify=false", "allow_admin_roles")
	e.refuses(400, logical.UpdateOperation, "roles/deploy", map[string]any{"groups": "jira-administrators", "verify": false}, "verify=false")
	e.refuses(400, logical.UpdateOperation, "roles/deploy", map[string]any{"allow_admin": true}, `role "deploy"`)
	e.write("roles/deploy", map[string]any{"on_revoke": "deactivate", "verify": false}) // which changes nothing of what its users may do
	e.write("roles/deploy", map[string]any{"on_revoke": "delete"})
	if n := e.jira.Count("POST", "/rest/api/2/user"); n > 1 {
		t.Errorf("%d users were made", n)
	}
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"allow_admin_roles": "a b/c"}, "allow_admin_roles")

	e.write("config", map[string]any{"allow_admin_roles": "rul*"})
	if got := e.read("config")["allow_admin_roles"].([]string); len(got) != 1 || got[0] != "rul*" {
		t.Errorf("read back %v", got)
	}
	e.write("roles/rulers", rulers)
	e.write("roles/rulers-too", merged(unseen, map[string]any{"groups": "jira-software-users"}))
	lease := e.issue("rulers", nil)
	e.write("config", map[string]any{"allow_admin_roles": ""})
	e.jira.ResetCalls()
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/rulers", nil)
	e.failed(400, resp, err, word)
	resp, err = e.request(t.Context(), logical.UpdateOperation, "roles/rulers/check", nil)
	e.failed(400, resp, err, word)
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	if _, err := e.renew(lease.Secret, 0); err != nil { // what was handed out keeps its terms
		t.Error(err)
	}
	e.revoke(lease.Secret)
	e.revoke(e.issue("deploy", nil).Secret)
	e.nothingHeld()
}
