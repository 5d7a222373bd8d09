package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// told is what events an engine has sent.
type told struct {
	mu     sync.Mutex
	events []oneEvent
	seen   int   // how many of them since has returned
	answer error // what sending one comes to
	drops  bool  // as a Vault does that has no subscribers
	asked  int
}

// oneEvent is one of them, its metadata with its name as event.
type oneEvent map[string]string

// SendEvent is Vault's side.
func (l *told) SendEvent(ctx context.Context, name logical.EventType, data *logical.EventData) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.answer != nil || l.drops {
		return l.answer
	}
	one := oneEvent{"event": string(name)}
	for field, v := range data.Metadata.AsMap() {
		one[field] = v.(string)
	}
	if ctx.Err() != nil || data.Id == "" {
		one["broken"] = fmt.Sprint(ctx.Err(), data.Id)
	}
	l.events = append(l.events, one)
	return nil
}

// in writes them where secrets are looked for.
func (l *told) in(log *logBuffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.events {
		text, _ := json.Marshal(one)
		_, _ = log.Write(text)
	}
}

// since are the events since it was asked last.
func (l *told) since() []oneEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.seen = len(l.events) }()
	return l.events[l.seen:]
}

// tells fails the test unless the events since the last call are these, in this order.
func (e *engine) tells(names ...string) []oneEvent {
	e.t.Helper()
	events := e.told.since()
	var have []string
	for _, one := range events {
		have = append(have, strings.TrimPrefix(one["event"], "jira/"))
	}
	if !slices.Equal(have, names) {
		e.t.Fatalf("told %v, want %v", have, names)
	}
	return events
}

// Each thing that happens to a credential is told once, under the name that Vault's own
// engines would give it, with what leads to it, and without a secret: that is looked for
// at the end of every test.
func TestEvents(t *testing.T) {
	e := start(t, jiratest.Options{})
	config := map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())}
	e.write("config", config)
	e.write("config", config)
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"max_tokens": 8})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_ttl": "24h"})
	e.write("roles/readonly", map[string]any{"ttl": "2h"})
	e.write("config/auto-tidy", map[string]any{"enabled": false})
	e.must(logical.DeleteOperation, "config/auto-tidy", nil)
	e.refuses(400, logical.UpdateOperation, "roles/other", map[string]any{"accounts": "nobody"}, "nobody")
	setUp := e.tells("config-write", "config-write", "account-create", "account-update", "role-create", "role-update", "auto-tidy-write", "auto-tidy-delete")
	for field, want := range map[string]string{"path": "accounts/ci-bot", "data_path": "accounts/ci-bot", "operation": "account-update", "modified": "true"} {
		if setUp[3][field] != want {
			t.Errorf("%s is %q, want %q", field, setUp[3][field], want)
		}
	}

	lease := e.issue("readonly", nil)
	if _, err := e.renew(lease.Secret, 0); err != nil {
		t.Fatal(err)
	}
	e.revoke(lease.Secret)
	for i, one := range e.tells("creds-create", "creds-renew", "creds-revoke") {
		for field, want := range map[string]string{
			"path": "creds/readonly", "data_path": "tokens/" + id(lease), "modified": "true", "id": id(lease), "role": "readonly", "account": "ci-bot", "username": "ci-bot",
			"type": "pat", "token_id": lease.Data["token_id"].(string), "token_name": lease.Data["token_name"].(string), "operation": strings.TrimPrefix(one["event"], "jira/"),
		} {
			if one[field] != want {
				t.Errorf("%d: %s is %q, want %q", i, field, one[field], want)
			}
		}
		if wanted := map[bool]string{true: "req-creds/readonly"}[i == 0]; one["request_id"] != wanted || one["error"] != "" || one["broken"] != "" {
			t.Errorf("%d: %v", i, one)
		}
	}
	resp, err := e.renew(lease.Secret, 0)
	e.failed(400, resp, err, "being revoked")
	e.refuses(400, logical.ReadOperation, "creds/readonly", map[string]any{"ttl": "0s"}, "ttl")
	e.refuses(400, logical.ReadOperation, "creds/nothing", nil, "nothing") // whatever it is called is told to nobody
	for i, one := range e.tells("creds-renew-fail", "creds-create-fail") {
		if one["role"] != "readonly" || one["error"] == "" || one["modified"] == "true" || strings.HasSuffix(one["operation"], "-fail") {
			t.Errorf("%d: %v", i, one)
		}
	}

	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.rotate("rotate-role/legacy")
	e.rotate("rotate-account/ci-bot")
	e.tidied(nil)
	rotated := e.tells("rotate", "static-role-create", "rotate", "account-rotate", "tidy")
	for field, want := range map[string]string{"path": "rotate-role/legacy", "data_path": "static-creds/legacy", "modified": "true"} {
		if rotated[2][field] != want {
			t.Errorf("%s is %q, want %q", field, rotated[2][field], want)
		}
	}
	if tidy := rotated[4]; tidy["state"] != "Finished" || tidy["dry_run"] != "true" || tidy["modified"] != "false" || tidy["sibling_count"] == "" {
		t.Errorf("%v", tidy)
	}
	e.must(logical.DeleteOperation, "static-roles/legacy", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.dismantled()
}

// What Jira does not end is told as a debt, once, and never as revoked before it is.
func TestEventsOfDebts(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	early := e.issue("readonly", nil)
	late := e.issue("readonly", nil)
	e.tells("config-write", "account-create", "role-create", "creds-create", "creds-create", "creds-create")
	back := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 500})
	if err := e.revokeQueued(lease.Secret); err == nil {
		t.Fatal("revoked")
	}
	if owed := e.tells("debt-create", "creds-revoke-fail"); owed[0]["path"] != "tokens/"+id(lease) || owed[0]["reason"] == "" || owed[1]["error"] == "" {
		t.Errorf("%v", owed)
	}
	e.pass(2 * time.Minute)
	if err := e.revokeQueued(lease.Secret); err != nil { // Vault drops the lease
		t.Fatal(err)
	}
	e.tells()
	for range 2 {
		resp, err := e.request(t.Context(), logical.UpdateOperation, "tokens/"+id(early)+"/revoke", nil)
		e.failed(503, resp, err, "goes on trying")
	}
	e.tells("debt-create", "creds-revoke-fail", "creds-revoke-fail")
	back()
	e.sites.forget("ci-bot")
	e.pass(3 * time.Hour)
	e.settled()
	if !e.logged("a token that was owed is ended", "owed_for=3h") {
		t.Error("the log does not say for how long they were owed")
	}
	paid := e.tells("debt-pay", "debt-pay", "debt-create", "debt-pay")
	if !strings.Contains(paid[2]["reason"], "lease is over") || paid[2]["id"] != id(late) || paid[3]["id"] != id(late) {
		t.Errorf("%v", paid)
	}

	// Somebody waits: what he is told is what happened, and so are the events.
	waited := e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	for range 2 {
		resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, waited.Secret)
		e.failed(400, resp, err, "not now")
	}
	remove()
	e.revoke(waited.Secret)
	e.tells("creds-create", "debt-create", "creds-revoke-fail", "creds-revoke-fail", "debt-pay", "creds-revoke")
	for _, name := range []string{"debts_total", "debts_settled_total"} {
		if n := e.value(name, "account", "ci-bot"); n != 4 {
			t.Errorf("%s is %v", name, n)
		}
	}
	e.nothingHeld()
}

// An access token that only ends by itself is not told to be revoked.
func TestEventsOfAccessTokens(t *testing.T) {
	e, _ := serviceAccount(t, jiratest.Options{}, nil)
	e.told.since()
	e.revoke(e.issue("report", nil).Secret)
	e.tells("creds-create")
	if n := e.value("revokes_total", "role", "report", "result", "expires"); n != 1 {
		t.Errorf("%v are counted", n)
	}
}

// Where there are no events nothing fails, and nobody is asked again.
func TestWithoutEvents(t *testing.T) {
	for name, answer := range map[string]error{
		"none": framework.ErrNoEvents, "unimplemented": grpcstatus.Error(codes.Unimplemented, "unknown service pb.Events"),
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, jiratest.Options{})
			e.told.answer = answer
			e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
			e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
			if e.told.asked != 1 {
				t.Errorf("asked %d times", e.told.asked)
			}
		})
	}
	e := start(t, jiratest.Options{})
	e.told.answer = errors.New("the bus is full")
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	e.told.answer = nil
	e.must(logical.DeleteOperation, "config", nil)
	e.tells("config-delete")
}

// docs/events.md has every event, and none that is never sent.
func TestEventsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| `jira/") {
			continue
		}
		first, base := strings.Split(line, "|")[1], ""
		for _, name := range strings.Split(first, ",") {
			name = strings.Trim(name, " `")
			if suffix, more := strings.CutPrefix(name, "-"); more && suffix == "fail" {
				name = base + name
			} else if more {
				name = base[:strings.LastIndex(base, "-")] + name
			} else {
				base = name
			}
			documented[name] = true
		}
	}
	sent := map[string]bool{}
	for _, name := range []string{eventCreate, eventRenew, eventRevoke, eventRootRotate, eventAccountRotate, eventStaticRotate, eventTidy} {
		sent[name], sent[name+"-fail"] = true, true
	}
	sent[eventDebtCreate], sent[eventDebtPay] = true, true
	for _, one := range []string{"config", "auto-tidy"} {
		sent[eventPrefix+one+"-write"], sent[eventPrefix+one+"-delete"] = true, true
	}
	for _, one := range []string{"account", "role", "static-role"} {
		for _, what := range happened {
			sent[eventPrefix+one+what] = true
		}
	}
	if !maps.Equal(documented, sent) {
		t.Errorf("documented: %v\nsent: %v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(sent)))
	}
}

// Each debt that is taken is paid, once, however it came about and whoever ends it.
func TestDebtsAddUp(t *testing.T) {
	unwilling := jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`}
	for name, tt := range map[string]struct {
		users bool
		debts float64
		run   func(*engine)
	}{
		"a mint whose answer is lost, and found at once": {run: func(e *engine) {
			e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseAnswer})
			_, _ = e.request(e.t.Context(), logical.ReadOperation, "creds/readonly", nil)
		}},
		"a user whose mint is lost": {users: true, debts: 1, run: func(e *engine) {
			lose := e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Times: -1, Do: jiratest.LoseAnswer})
			stay := e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: "/rest/api/2/user", Times: -1, Do: jiratest.Answer, Status: 500})
			_, _ = e.request(e.t.Context(), logical.ReadOperation, "creds/deploy", nil)
			lose()
			stay()
			e.sites.forget(adminAccount)
		}},
		"a role that is tried out": {debts: 1, run: func(e *engine) {
			remove := e.jira.Fault(unwilling)
			_, _ = e.request(e.t.Context(), logical.UpdateOperation, "roles/readonly/check", nil)
			remove()
		}},
		"many revokes at once, and Jira says no": {debts: 1, run: func(e *engine) {
			lease := e.issue("readonly", nil)
			remove := e.jira.Fault(unwilling)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					_, _ = e.request(e.t.Context(), logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
				})
				all.Go(func() { _, _ = e.leaseRequest(e.t.Context(), logical.RevokeOperation, lease.Secret) })
			}
			all.Wait()
			remove()
			e.pass(time.Minute)
			e.settled()
			e.revoke(lease.Secret)
		}},
		"many revokes at once": {run: func(e *engine) {
			lease := e.issue("readonly", nil)
			e.jira.ResetCalls()
			slow := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Slow, Delay: 100 * time.Millisecond})
			var all sync.WaitGroup
			early := func() {
				_, _ = e.request(e.t.Context(), logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
			}
			all.Go(early)
			if err := e.jira.WaitCalls(e.t.Context(), "DELETE", "", 1); err != nil {
				e.t.Fatal(err)
			}
			all.Go(early)
			all.Go(func() { _, _ = e.leaseRequest(e.t.Context(), logical.RevokeOperation, lease.Secret) })
			all.Wait()
			slow()
			e.revoke(lease.Secret)
		}},
		"a record whose removal fails": {debts: 1, run: func(e *engine) {
			lease := e.issue("readonly", nil)
			fail := func(op, key string) error {
				if op == "delete" && strings.HasPrefix(key, ledgerPrefix) {
					return errStorage
				}
				return nil
			}
			e.storage.fail.Store(&fail)
			_ = e.revokeQueued(lease.Secret)
			e.storage.failing("")
		}},
		"a record whose removal lands, and is answered with an error": {debts: 1, run: func(e *engine) {
			lease := e.issue("readonly", nil)
			remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 500})
			_ = e.revokeQueued(lease.Secret)
			remove()
			e.sites.forget("ci-bot")
			e.storage.Storage = &landing{Storage: e.storage.Storage}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e, account := (*engine)(nil), "ci-bot"
			if tt.users {
				e, account = throwaway(t, jiratest.Options{}), adminAccount
			} else {
				e = configured(t, jiratest.Options{})
			}
			tt.run(e)
			for range 3 {
				e.pass(2 * time.Minute)
				e.settled()
			}
			taken, paid := e.value("debts_total", "account", account), e.value("debts_settled_total", "account", account)
			if taken != tt.debts || paid != tt.debts {
				t.Errorf("%v taken and %v paid, want %v", taken, paid, tt.debts)
			}
			told := map[string]float64{}
			for _, one := range e.told.since() {
				told[one["event"]]++
			}
			if told[eventDebtCreate] != taken || told[eventDebtPay] != paid {
				t.Errorf("told %v", told)
			}
			e.nothingHeld()
		})
	}
}

// landing is storage of which the next removal of a record lands, and is answered with an
// error.
type landing struct {
	logical.Storage
	done atomic.Bool
}

func (l *landing) Delete(ctx context.Context, key string) error {
	err := l.Storage.Delete(ctx, key)
	if strings.HasPrefix(key, ledgerPrefix) && !l.done.Swap(true) {
		return errStorage
	}
	return err
}

// What was told to be revoked is not told again by its lease, and what was not there not
// to be deleted.
func TestEventsAreToldOnce(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.told.since()
	e.must(logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	e.pass(30 * time.Minute)
	e.revoke(lease.Secret)
	e.tells("creds-revoke")
	if n := e.value("revokes_total", "role", "readonly", "result", "ended"); n != 1 {
		t.Errorf("%v are counted", n)
	}
	for _, path := range []string{"accounts/nobody", "roles/nobody", "static-roles/nobody", "config/auto-tidy"} {
		e.must(logical.DeleteOperation, path, nil)
	}
	e.tells()
}
