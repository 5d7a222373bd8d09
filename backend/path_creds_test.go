package backend

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

const tokensAPI = "/rest/pat/latest/tokens"

func TestATokenLivesAsLongAsItsLease(t *testing.T) {
	e := configured(t, jiratest.Options{})
	resp := e.issue("readonly", nil)

	tokens := e.jira.Tokens("ci-bot")
	made := tokens[len(tokens)-1]
	for field, want := range map[string]any{
		"token_type": "Bearer",
		"token_id":   fmt.Sprint(made.ID),
		"token_name": made.Name,
		"username":   "ci-bot",
		"url":        e.jira.URL(),
		"expires_at": made.Expires.UTC().Format(time.RFC3339),
	} {
		if got := resp.Data[field]; got != want {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if resp.Secret.TTL != time.Hour || resp.Secret.MaxTTL != 24*time.Hour || !resp.Secret.Renewable {
		t.Errorf("lease %+v", resp.Secret.LeaseOptions)
	}
	if status := e.call(resp.Data["token"].(string)); status != http.StatusOK {
		t.Errorf("the token gives %d", status)
	}
	// A day and half a minute, in whole days.
	if life := made.Expires.Sub(made.Created); life != 48*time.Hour {
		t.Errorf("Jira ends the token by itself after %v", life)
	}

	e.revoke(resp.Secret)
	if status := e.call(resp.Data["token"].(string)); status != http.StatusUnauthorized {
		t.Errorf("the revoked token gives %d", status)
	}
	e.nothingHeld()
}

// call asks Jira who a token is, as an application would.
func (e *engine) call(token string) int {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, e.jira.URL()+"/rest/api/2/myself", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestAMintIsOneCallAndTwoWrites(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.revoke(e.issue("readonly", nil).Secret) // the mount's id is written once

	e.jira.ResetCalls()
	before := e.storage.writes.Load()
	resp := e.issue("readonly", nil)
	if calls, writes := len(e.jira.Calls()), e.storage.writes.Load()-before; calls != 1 || writes != 2 {
		t.Errorf("a mint is %d calls and %d writes, want 1 and 2", calls, writes)
	}

	e.jira.ResetCalls()
	before = e.storage.writes.Load()
	if _, err := e.renew(resp.Secret, 0); err != nil {
		t.Fatal(err)
	}
	if calls, writes := len(e.jira.Calls()), e.storage.writes.Load()-before; calls != 0 || writes != 1 {
		t.Errorf("a renewal is %d calls and %d writes, want 0 and 1", calls, writes)
	}

	before = e.storage.writes.Load()
	e.revoke(resp.Secret)
	if calls, writes := len(e.jira.Calls()), e.storage.writes.Load()-before; calls != 1 || writes != 1 {
		t.Errorf("a revoke is %d calls and %d writes, want 1 and 1", calls, writes)
	}
}

func TestTheIntentIsWrittenBeforeJiraIsAsked(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.storage.failing(ledgerPrefix)
	e.refuses(500, logical.ReadOperation, "creds/readonly", nil, "intent")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls to Jira without an intent", n)
	}
	e.storage.failing("")
	e.revoke(e.issue("readonly", nil).Secret)
	e.nothingHeld()
}

func TestATokenThatCannotBeRecordedIsTakenBack(t *testing.T) {
	e := configured(t, jiratest.Options{})
	puts := 0
	fail := func(op, key string) error {
		if strings.HasPrefix(key, ledgerPrefix) && op == "put" {
			if puts++; puts == 2 {
				return errStorage
			}
		}
		return nil
	}
	e.storage.fail.Store(&fail)
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(500, resp, err, "storage is away")
	e.nothingHeld()
}

func TestAReaderWhoIsGoneLeavesNoToken(t *testing.T) {
	e := configured(t, jiratest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.Slow, Delay: 200 * time.Millisecond})
	done := make(chan error)
	go func() {
		_, err := e.request(ctx, logical.ReadOperation, "creds/readonly", nil)
		done <- err
	}()
	if err := e.jira.WaitCalls(t.Context(), "POST", tokensAPI, 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	e.failed(503, nil, <-done, "canceled")
	if n := e.jira.Count("DELETE", tokensAPI); n != 1 {
		t.Errorf("%d deletes", n)
	}
	e.nothingHeld()
}

// The reader may go in the very last moment: then Vault never gets to know of
// the token, and nobody would renew or revoke it.
func TestAReaderWhoGoesAfterTheLastWriteLeavesNoToken(t *testing.T) {
	e := configured(t, jiratest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	puts := 0
	stored := func(key string) {
		if strings.HasPrefix(key, ledgerPrefix) {
			if puts++; puts == 2 {
				cancel()
			}
		}
	}
	e.storage.stored.Store(&stored)
	resp, err := e.request(ctx, logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err, "the reader is gone")
	e.nothingHeld()
}

func TestTTLOfARead(t *testing.T) {
	e := configured(t, jiratest.Options{})
	for _, tt := range []struct {
		name    string
		ttl     any
		want    time.Duration
		warning string
	}{
		{"the role's", nil, time.Hour, ""},
		{"shorter", "5m", 5 * time.Minute, ""},
		{"longer", "3h", 3 * time.Hour, ""},
		{"over max_ttl", "100h", 24 * time.Hour, "capped"},
		{"seconds", 90, 90 * time.Second, ""},
	} {
		for _, op := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
			t.Run(fmt.Sprintf("%s by %s", tt.name, op), func(t *testing.T) {
				data := map[string]any{}
				if tt.ttl != nil {
					data["ttl"] = tt.ttl
				}
				resp := e.must(op, "creds/readonly", data)
				if resp.Secret.TTL != tt.want {
					t.Errorf("ttl %v, want %v", resp.Secret.TTL, tt.want)
				}
				if got := strings.Join(resp.Warnings, ";"); (tt.warning == "") != (got == "") || !strings.Contains(got, tt.warning) {
					t.Errorf("warnings %q, want %q", got, tt.warning)
				}
				e.revoke(resp.Secret)
			})
		}
	}
	for _, ttl := range []any{0, "0s", -5, "-5m", "soon", "500ms"} {
		e.refuses(400, logical.ReadOperation, "creds/readonly", map[string]any{"ttl": ttl}, "ttl")
	}
	e.nothingHeld()
}

func TestAReadThatCannotBeMet(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.refuses(400, logical.ReadOperation, "creds/readonly", nil, `no role "readonly"`)
	for _, name := range []string{"r d", "röle", "a..b", strings.Repeat("x", 256)} {
		e.refuses(400, logical.ReadOperation, "creds/"+name, nil, "cannot be the name", "a role")
	}
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls to Jira", n)
	}
}

// A role whose account or site is gone, as after a restore of part of the
// storage.
func TestARoleWithoutAUsableAccount(t *testing.T) {
	e := configured(t, jiratest.Options{})
	if err := e.storage.Delete(t.Context(), accountsPrefix+"ci-bot"); err != nil {
		t.Fatal(err)
	}
	e.refuses(400, logical.ReadOperation, "creds/readonly", nil, `no account "ci-bot"`)
	e.must(logical.DeleteOperation, "config", nil)
	e.refuses(400, logical.ReadOperation, "creds/readonly", nil, "write config")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls to Jira", n)
	}
}

func TestNamesOfTokens(t *testing.T) {
	e := configured(t, jiratest.Options{Switches: jiratest.Switches{NamesUnique: true}})
	for _, name := range []string{"r", "a.b-c_d", strings.Repeat("long", 50)} {
		e.write("roles/"+name, map[string]any{"accounts": "ci-bot"})
		one, two := e.issue(name, nil), e.issue(name, nil)
		for _, resp := range []*logical.Response{one, two} {
			got := resp.Data["token_name"].(string)
			if len(got) > 40 || !strings.HasPrefix(got, "vault-") || !strings.HasSuffix(got, "-"+name[:min(len(name), 10)]) {
				t.Errorf("token of role %q is called %q", name, got)
			}
			e.revoke(resp.Secret)
		}
	}
	e.nothingHeld()
}

// The mount's id is in each name, and one for the mount's life.
func TestTheMountIDStays(t *testing.T) {
	e := configured(t, jiratest.Options{})
	one := e.issue("readonly", nil)
	e.revoke(one.Secret)
	e.must(logical.DeleteOperation, "config", nil)
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.mount()
	two := e.issue("readonly", nil)
	e.revoke(two.Secret)
	if a, b := one.Data["token_name"].(string)[:12], two.Data["token_name"].(string)[:12]; a != b {
		t.Errorf("names %q and %q", a, b)
	}
}

func TestTheLedgerKnowsWhoAsked(t *testing.T) {
	e := configured(t, jiratest.Options{})
	resp := e.issue("readonly", nil)
	ids := e.records("")
	r, err := e.ledger.Read(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Reader{EntityID: "entity-1", DisplayName: "token-app", RequestID: "req-creds/readonly", RemoteAddress: "192.0.2.7"}
	if r.Reader != want || r.Role != "readonly" || r.State != ledger.Issued {
		t.Errorf("record %+v", r)
	}
	e.revoke(resp.Secret)
}
