package backend

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestRoleIsReadAsItWasWritten(t *testing.T) {
	e := configured(t, jiratest.Options{})
	if got := e.read("roles/none"); got != nil {
		t.Errorf("before it is written: %v", got)
	}
	if resp := e.write("roles/r", map[string]any{"accounts": []string{"ci-bot"}}); resp != nil {
		t.Errorf("a clean write answers %+v", resp)
	}
	check := func(want map[string]any) {
		t.Helper()
		got := e.read("roles/r")
		for field := range want {
			if fmt.Sprint(got[field]) != fmt.Sprint(want[field]) {
				t.Errorf("%s is %v, want %v", field, got[field], want[field])
			}
		}
	}
	check(map[string]any{
		"credential_type": "pat", "accounts": []string{"ci-bot"}, "ttl": 0, "max_ttl": 0,
		"effective_ttl": testDefaultTTL.Seconds(), "effective_max_ttl": int64(testMaxTTL.Seconds()),
	})
	e.must(logical.PatchOperation, "roles/r", map[string]any{"max_ttl": "1h"})
	check(map[string]any{"ttl": 0, "max_ttl": 3600, "effective_ttl": 3600, "effective_max_ttl": 3600})
	e.must(logical.PatchOperation, "roles/r", map[string]any{"ttl": "10m", "max_ttl": nil})
	check(map[string]any{"ttl": 600, "max_ttl": 0, "effective_ttl": 600, "effective_max_ttl": int64(testMaxTTL.Seconds())})
	e.write("config", map[string]any{"max_token_days": 7})
	check(map[string]any{"effective_max_ttl": 7*24*3600 - 30})

	resp := e.must(logical.ListOperation, "roles/", nil)
	if keys := resp.Data["keys"].([]string); len(keys) != 2 {
		t.Errorf("keys %v", keys)
	}
	if info := fmt.Sprint(resp.Data["key_info"]); !strings.Contains(info, "credential_type:pat") {
		t.Errorf("key_info %s", info)
	}
	e.must(logical.DeleteOperation, "roles/r", nil)
	e.must(logical.DeleteOperation, "roles/r", nil)
}

func TestRoleThatCannotWork(t *testing.T) {
	e := configured(t, jiratest.Options{})
	for _, tt := range []struct {
		name  string
		data  map[string]any
		words string
	}{
		{"nothing", map[string]any{}, "accounts is missing"},
		{"no accounts", map[string]any{"accounts": ""}, "accounts is missing"},
		{"an unknown account", map[string]any{"accounts": "ci-bot,nobody"}, `no account "nobody"`},
		{"an account that cannot be", map[string]any{"accounts": "no body"}, "cannot be the name"},
		{"an account twice", map[string]any{"accounts": "ci-bot,ci-bot"}, "twice"},
		{"an unknown type", map[string]any{"accounts": "ci-bot", "credential_type": "cookie"}, `"cookie"`},
		{"ttl over max_ttl", map[string]any{"accounts": "ci-bot", "ttl": "2h", "max_ttl": "1h"}, "more than max_ttl"},
		{"zero", map[string]any{"accounts": "ci-bot", "ttl": 0}, "ttl must be more than zero"},
		{"zero max", map[string]any{"accounts": "ci-bot", "max_ttl": "0"}, "max_ttl must be more than zero"},
		{"less than a second", map[string]any{"accounts": "ci-bot", "ttl": "900ms"}, "ttl must be more than zero"},
		{"negative", map[string]any{"accounts": "ci-bot", "ttl": "-1h"}, "ttl"},
		{"malformed", map[string]any{"accounts": "ci-bot", "max_ttl": "a while"}, "max_ttl"},
		{"longer than a token can live", map[string]any{"accounts": "ci-bot", "max_ttl": fmt.Sprintf("%ds", 365*24*3600-29)}, "max_token_days"},
	} {
		e.in(tt.name, func(e *engine) {
			e.refuses(400, logical.UpdateOperation, "roles/r", tt.data, tt.words)
		})
	}
	e.refuses(400, logical.PatchOperation, "roles/r", map[string]any{"ttl": "1h"}, "to patch")
	for _, name := range []string{"a b", "ä", "a..b", strings.Repeat("x", 256)} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.ReadOperation, logical.DeleteOperation} {
			e.refuses(400, op, "roles/"+name, map[string]any{"accounts": "ci-bot"}, "cannot be the name")
		}
	}
	resp := e.write("roles/r", map[string]any{"accounts": "ci-bot", "max_ttl": fmt.Sprintf("%ds", 365*24*3600-30), "ttl": "8000h"})
	if resp == nil || !strings.Contains(resp.Warnings[0], "capped") {
		t.Errorf("a ttl over the mount's maximum: %+v", resp)
	}
}
