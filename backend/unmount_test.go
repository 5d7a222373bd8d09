package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// tainted does what Vault does first when it disables a mount, and when it moves
// one: it taints it, makes a periodic call, whose error it ignores, and revokes one
// lease after the other until one fails. One that is revoked it does not have any more.
func (e *engine) tainted(leases ...*logical.Response) error {
	e.t.Helper()
	e.system.TaintedVal = true
	e.worker.running.Store(true) // so that none is started
	ctx, cancel := context.WithTimeout(e.t.Context(), 1500*time.Millisecond)
	defer cancel()
	_, _ = e.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: e.storage})
	for _, lease := range leases {
		if lease.Secret == nil {
			continue
		}
		if err := e.revokeWith(lease); err != nil {
			return err
		}
		lease.Secret = nil
	}
	return nil
}

// moved moves the mount, as Vault does.
func (e *engine) moved(leases ...*logical.Response) error {
	e.t.Helper()
	err := e.tainted(leases...)
	if err == nil {
		e.system.TaintedVal = false
	}
	return err
}

// disabled disables the mount, as Vault does, and begins on empty storage.
func (e *engine) disabled(leases ...*logical.Response) error {
	e.t.Helper()
	if err := e.tainted(leases...); err != nil {
		return err
	}
	e.closed(0)
	e.system.TaintedVal = false
	e.storage.Storage = &logical.InmemStorage{}
	e.mount()
	return nil
}

// closed closes the engine so long after the last call, as Vault does: in a disable at
// once, in a reload, at a seal and a step-down at any time.
func (e *engine) closed(after time.Duration) {
	e.t.Helper()
	e.pass(after)
	e.Cleanup(e.t.Context())
	e.Cleanup(e.t.Context()) // a disable does so twice
}

// keeping is an engine with what no lease holds: an account that was rotated, a
// static role, and a config whose administrator was rotated; and with leases of each
// kind. It returns the leases, and the tokens that no lease holds.
func keeping(t *testing.T) (e *engine, leases []*logical.Response, kept func() map[string]string) {
	t.Helper()
	e = start(t, jiratest.Options{Version: "11.0.0"})
	e.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	e.jira.AddUser(jiratest.User{Name: "sole-bot", Password: "a password of sole-bot's"})
	service := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "token": e.pat("jira-admin")})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("accounts/sole", map[string]any{"username": "sole-bot", "password": "a password of sole-bot's", "exclusive": true})
	e.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": service.ClientID, "client_secret": service.ClientSecret})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
	e.write("roles/alone", map[string]any{"accounts": "sole", "ttl": "1h"})
	e.write("roles/deploy", map[string]any{"credential_type": "ephemeral_user", "project_roles": "OPS:Developers", "ttl": "1h"})
	e.write("roles/report", map[string]any{"credential_type": "oauth2", "accounts": "reporting", "ttl": "30m"})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.rotate("rotate-account/ci-bot")
	e.rotate("rotate-root")
	for _, role := range []string{"readonly", "alone", "deploy", "report", "readonly"} {
		leases = append(leases, e.issue(role, nil))
	}
	return e, leases, func() map[string]string {
		c, err := e.loadConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"of the account": e.own("ci-bot"), "of the config": c.Admin.Token, "of the static role": e.read("static-creds/legacy")["token"].(string)}
	}
}

// ours are the engine's tokens that are alive, and its users.
func (e *engine) ours() []string {
	return append(e.alive(), e.people()...)
}

// TestAMoveLeavesWhatNoLeaseHolds: Vault taints a mount to move it, too, and it goes
// on under its new path.
func TestAMoveLeavesWhatNoLeaseHolds(t *testing.T) {
	for _, leased := range []bool{false, true} {
		t.Run(fmt.Sprintf("with leases %v", leased), func(t *testing.T) {
			e, leases, kept := keeping(t)
			before := kept()
			if !leased {
				for _, lease := range leases {
					if err := e.revokeWith(lease); err != nil {
						t.Fatal(err)
					}
				}
				leases = nil
			}
			e.jira.ResetCalls()
			if err := e.moved(leases...); err != nil {
				t.Fatalf("the move: %v", err)
			}
			if n := e.jira.Count("DELETE", ""); leased && n != 4 {
				t.Errorf("%d deletes for four leases: what the periodic call ended was not ended again", n)
			}
			if names := e.ours(); len(names) != 3 {
				t.Errorf("alive: %v, want the three that no lease holds", names)
			}
			for what, token := range before {
				if e.call(token) != http.StatusOK {
					t.Errorf("the token %s is dead", what)
				}
			}
			if n := len(e.ledger.IDs("")); n != 3 {
				t.Errorf("%d records, want those of what no lease holds", n)
			}
			e.pass(10 * time.Minute) // past the overlap
			e.tended()
			for _, path := range []string{"rotate-account/ci-bot", "rotate-root", "rotate-role/legacy"} {
				e.rotate(path)
			}
			for what, token := range kept() {
				if e.call(token) != http.StatusOK {
					t.Errorf("after a rotation the token %s is dead", what)
				}
			}
			for _, role := range []string{"readonly", "alone", "deploy"} {
				e.revoke(e.issue(role, nil).Secret)
			}
			e.dismantled()
			e.nothingHeld()
		})
	}
}

// TestADisableEndsAll: at the first try, and straight after a rotation.
func TestADisableEndsAll(t *testing.T) {
	e, leases, _ := keeping(t)
	if err := e.disabled(leases...); err != nil {
		t.Fatalf("the disable: %v", err)
	}
	if names := e.ours(); len(names) != 0 {
		t.Errorf("alive: %v", names)
	}
	if e.logged("[ERROR]") {
		t.Errorf("errors are logged: %s", e.log)
	}
	if live := e.liveTokens("ci-bot"); len(live) != 1 { // what was brought is not ours
		t.Errorf("alive of the account: %v", live)
	}
}

// TestAStandbyClosesATaintedMount: the active node goes on with all that is left.
func TestAStandbyClosesATaintedMount(t *testing.T) {
	e, leases, _ := keeping(t)
	e.log.Reset()
	e.system.TaintedVal = true
	e.standby(consts.ReplicationPerformanceStandby)
	before := len(e.ours())
	e.closed(0)
	if n := len(e.ours()); n != before {
		t.Errorf("%d are alive, and %d were", n, before)
	}
	if e.logged("[ERROR]") || e.logged("[WARN]") {
		t.Errorf("it tells of what is not its own: %s", e.log)
	}
	e.standby(0)
	e.mount()
	if err := e.disabled(leases...); err != nil {
		t.Error(err)
	}
}

// TestAMountThatIsTaintedForLong: a disable and a move that fail while Jira is away
// lose nothing, and succeed when it is back. Meanwhile, at a seal, a step-down and a
// reload, what the engine logs in with stays.
func TestAMountThatIsTaintedForLong(t *testing.T) {
	for _, then := range []string{"move", "disable"} {
		t.Run(then, func(t *testing.T) {
			e, leases, kept := keeping(t)
			before := kept()
			do := map[string]func(...*logical.Response) error{"move": e.moved, "disable": e.disabled}[then]
			remove := e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: http.StatusBadGateway})
			if err := do(leases...); err == nil {
				t.Fatal("it has worked while Jira was away")
			}
			for _, after := range []time.Duration{0, time.Minute} {
				e.closed(after)
				e.mount()
				e.worker.running.Store(true)
			}
			if names := e.ours(); len(names) != 3+5 { // with the token and the user of one lease
				t.Errorf("alive: %v", names)
			}
			remove()
			e.pass(time.Minute)
			e.closed(0) // now it could be ended
			e.mount()
			for what, token := range before {
				if e.call(token) != http.StatusOK {
					t.Errorf("the token %s is dead", what)
				}
			}
			// Who begins again begins with a lease whose token may be gone by now.
			if err := do(leases...); err != nil {
				t.Fatalf("Jira is back: %v", err)
			}
			if then == "disable" {
				if names := e.ours(); len(names) != 0 {
					t.Errorf("alive: %v", names)
				}
				return
			}
			for what, token := range before {
				if e.call(token) != http.StatusOK {
					t.Errorf("moved, the token %s is dead", what)
				}
			}
			e.dismantled()
		})
	}
}

// TestATaintedMountIsSealed: no lease is left of a mount whose move is not done, and what no
// lease holds stays.
func TestATaintedMountIsSealed(t *testing.T) {
	e, leases, kept := keeping(t)
	before := kept()
	if err := e.tainted(leases...); err != nil {
		t.Fatal(err)
	}
	e.closed(3 * time.Second)
	e.mount()
	for what, token := range before {
		if e.call(token) != http.StatusOK {
			t.Errorf("the token %s is dead", what)
		}
	}
	e.system.TaintedVal = false
	e.dismantled()
}

// TestADisableThatCannotEndAll: what is left is told, each with what it takes to find it.
func TestADisableThatCannotEndAll(t *testing.T) {
	for name, is := range map[string]struct {
		status int
		body   string
	}{"Jira is away": {http.StatusBadGateway, ""}, "Jira does not let go": {http.StatusForbidden, `{"message":"no"}`}} {
		t.Run(name, func(t *testing.T) {
			e, leases, _ := keeping(t)
			for _, lease := range leases[1:] {
				if err := e.revokeWith(lease); err != nil {
					t.Fatal(err)
				}
			}
			remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: is.status, Body: is.body})
			// Vault forces a revoke, and has forgotten the lease.
			if err := e.revokeWith(leases[0]); err == nil {
				t.Fatal("revoked")
			}
			names := e.alive()
			if err := e.disabled(); err != nil {
				t.Fatalf("there is no lease: %v", err)
			}
			if len(names) != 4 {
				t.Errorf("alive: %v, want three that no lease holds and the forgotten one", names)
			}
			for _, name := range names {
				tok := e.jira.Tokens("")[slices.IndexFunc(e.jira.Tokens(""), func(tok jiratest.Token) bool { return tok.Name == name })]
				if !e.logged("[ERROR]", "may be alive in Jira", "token_name="+name, "token_id="+fmt.Sprint(tok.ID), "username="+tok.User) {
					t.Errorf("the log does not tell of %q", name)
				}
			}
			remove()
			for _, tok := range e.jira.Tokens("") { // as somebody does who has read the log
				if strings.HasPrefix(tok.Name, "vault-") {
					e.jira.Delete(tok.ID)
				}
			}
		})
	}
}

// TestADisableTellsWhatJiraMayYetMake: nothing can be ended that is not there.
func TestADisableTellsWhatJiraMayYetMake(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseCall})
	if _, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil); err == nil {
		t.Fatal("a token was made")
	}
	name := e.record().Name
	if err := e.disabled(); err != nil {
		t.Error(err)
	}
	if !e.logged("[WARN]", "Jira may yet make this token", name) {
		t.Error("the log does not say so")
	}
	if names := e.ours(); len(names) != 0 {
		t.Errorf("alive: %v", names)
	}
}

// TestADeposedNodeDisablesNothing: that its mount looks tainted tells nothing of what its
// successor needs.
func TestADeposedNodeDisablesNothing(t *testing.T) {
	e, leases, _ := keeping(t)
	if err := e.tainted(leases...); err != nil {
		t.Fatal(err)
	}
	e.storage.failing(fenceKey)
	e.jira.ResetCalls()
	e.closed(0)
	if n := e.jira.Count("DELETE", ""); n != 0 {
		t.Errorf("%d deletes", n)
	}
	e.storage.failing("")
	e.system.TaintedVal = false
	e.mount()
	e.dismantled()
}

// TestARotationWhileAMountIsTainted: what it makes then is not left behind, and nothing
// is begun.
func TestARotationWhileAMountIsTainted(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.jira.Fault(jiratest.Fault{Method: "POST", Times: 1, Do: jiratest.Slow, Delay: 100 * time.Millisecond})
	e.jira.ResetCalls()
	var rotates sync.WaitGroup
	rotates.Go(func() { _, _ = e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil) })
	if err := e.jira.WaitCalls(t.Context(), "POST", "/rest/pat", 1); err != nil {
		t.Fatal(err)
	}
	if err := e.tainted(); err != nil {
		t.Fatal(err)
	}
	rotates.Wait()
	e.pass(48 * time.Hour)
	e.jira.ResetCalls()
	if err := e.tend(t.Context()); err != nil || len(e.jira.Calls()) != 0 {
		t.Errorf("%v, and %d calls", err, len(e.jira.Calls()))
	}
	_, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
	e.failed(503, nil, err, "is being disabled or moved")
	if err := e.disabled(); err != nil {
		t.Fatal(err)
	}
	if names := e.ours(); len(names) != 0 {
		t.Errorf("alive: %v", names)
	}
}

// TestRevokesOnATaintedMount: they are what they are on any other, for it may be moved.
// One that is queued hands its debt over, lest the lease turns irrevocable, and one
// that somebody waits for tells the truth about its own token, and of no other.
func TestRevokesOnATaintedMount(t *testing.T) {
	e := configured(t, jiratest.Options{})
	one, two := e.issue("readonly", nil), e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: tokensAPI + "/" + tokenID(one.Secret), Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"no"}`})
	if err := e.tainted(two, one); err == nil {
		t.Error("a token is said to be revoked that lives")
	}
	if names := e.alive(); len(names) != 1 {
		t.Errorf("alive: %v", names)
	}
	e.pass(2 * takenOver)
	if err := e.revokeQueued(one.Secret); err != nil {
		t.Errorf("the debt is not taken over: %v", err)
	}
	remove()
	if err := e.disabled(); err != nil {
		t.Fatal(err)
	}
	if names := e.alive(); len(names) != 0 {
		t.Errorf("alive: %v", names)
	}
}

// errWiped is what storage says after a disable.
var errWiped = errors.New("the mount is gone")

// TestADisableCutAtEachWrite: whatever of storage fails in between, nothing is left alive
// of which the log does not tell, or the ledger.
func TestADisableCutAtEachWrite(t *testing.T) {
	writes := 0
	for nth := 0; nth <= writes; nth++ { // the first run counts them
		e, leases, _ := keeping(t)
		began := e.storage.writes.Load()
		var failed atomic.Bool // accounts are settled several records at a time
		fail := func(string, string) error {
			if nth > 0 && e.storage.writes.Load()-began >= int64(nth) {
				failed.Store(true)
				return errWiped
			}
			return nil
		}
		e.storage.fail.Store(&fail)
		err := e.tainted(leases...)
		e.closed(0)
		e.storage.fail.Store(nil)
		if nth == 0 {
			writes = int(e.storage.writes.Load() - began)
			if err != nil || writes < 5 {
				t.Fatalf("%d writes, %v", writes, err)
			}
		} else if !failed.Load() {
			t.Errorf("write %d did not fail", nth)
		}
		for _, name := range e.alive() {
			if !e.logged("[ERROR]", "may be alive in Jira", "token_name="+name) {
				t.Errorf("write %d: %q is left, and the log does not tell", nth, name)
			}
		}
		if err == nil { // Vault wipes the storage, and somebody reads the log
			for _, tok := range e.jira.Tokens("") {
				if strings.HasPrefix(tok.Name, "vault-") {
					e.jira.Delete(tok.ID)
				}
			}
			continue
		}
		e.mount() // the command is repeated, with the leases that are left
		e.pass(time.Minute)
		if err := e.disabled(leases...); err != nil {
			t.Errorf("write %d: the repetition: %v", nth, err)
		}
		if names := e.ours(); len(names) != 0 {
			t.Errorf("write %d: alive after the disable was repeated: %v", nth, names)
		}
	}
}

// wayward is a system view whose first answer that the mount is tainted comes just before
// then is called.
type wayward struct {
	*logical.StaticSystemView
	then func()
}

func (w *wayward) Tainted() bool {
	tainted := w.StaticSystemView.Tainted()
	if then := w.then; tainted && then != nil {
		w.then = nil
		then()
	}
	return tainted
}

// TestAMoveThatEndsDuringThePeriodicCall: Vault's rollback manager makes that call once a
// minute, and does not wait for it to move the mount. What is read at the new path lives.
func TestAMoveThatEndsDuringThePeriodicCall(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/deploy", map[string]any{"accounts": "release-bot"})
	var before, after []*logical.Response
	readers := func() []*logical.Response {
		return []*logical.Response{e.issue("readonly", nil), e.issue("deploy", nil)}
	}
	move := func() { // ends, and somebody reads
		e.system.TaintedVal = false
		after = readers()
	}
	periodic := func() {
		before = readers()
		e.worker.running.Store(true)
		e.system.TaintedVal = true
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, _ = e.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: e.storage})
		for _, lease := range after {
			if status := e.call(lease.Data["token"].(string)); status != http.StatusOK {
				t.Error("the token of a lease that was read after the move is dead")
			}
		}
		for _, lease := range slices.Concat(before, after) {
			e.revoke(lease.Secret)
		}
	}
	t.Run("while it recalls", func(*testing.T) {
		once := sync.OnceFunc(move)
		hook := func(key string) {
			if strings.HasPrefix(key, ledgerPrefix) && e.system.TaintedVal {
				once()
			}
		}
		e.storage.stored.Store(&hook)
		defer e.storage.stored.Store(nil)
		periodic()
	})
	t.Run("before it knows what there is", func(*testing.T) {
		view := &wayward{e.system, move}
		if err := e.Setup(t.Context(), &logical.BackendConfig{StorageView: e.storage, System: view, EventsSender: e.told, Logger: e.Logger()}); err != nil {
			t.Fatal(err)
		}
		periodic()
	})
	e.nothingHeld()
}
