package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// pass lets time pass, for the engine and for Jira.
func (e *engine) pass(d time.Duration) {
	e.clock.Add(int64(d))
	e.jira.Advance(d)
}

// settled has the worker do all that is due now.
func (e *engine) settled() {
	e.t.Helper()
	for range 100 {
		if e.work(e.t.Context()) > 0 {
			return
		}
	}
	e.t.Fatal("the worker finds no end")
}

// revokeQueued revokes as Vault does when a lease runs out.
func (e *engine) revokeQueued(secret *logical.Secret) error {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 90*time.Second)
	defer cancel()
	_, err := e.leaseRequest(ctx, logical.RevokeOperation, secret)
	return err
}

func (e *engine) logged(words ...string) bool {
	for line := range strings.Lines(e.log.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// The worker as Vault starts it: nobody asks for anything, and what an outage
// has left is gone soon after it.
func TestTheWorkerEndsWhatAnOutageLeft(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.works()
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.AnswerAfter, Status: 502})
	down := e.jira.Fault(jiratest.Fault{Method: "GET", Do: jiratest.Answer, Status: 503})
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	if err := e.revokeQueued(secret); err == nil {
		t.Fatal("revoked while Jira was down")
	}
	names := e.alive()
	if len(names) != 2 {
		t.Fatalf("alive: %v", names)
	}
	down()
	e.jira.ClearFaults()
	e.rouse() // its patience is another test's
	e.eventually(func() bool { return len(e.ledger.IDs("")) == 0 })
	e.nothingHeld()
}

// eventually waits for what another goroutine does.
func (e *engine) eventually(done func() bool) {
	e.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(end) {
			e.t.Fatal("waited in vain")
		}
		<-time.After(time.Millisecond)
	}
}

// A lease that Vault never stored, or lost, ends by the ledger's date.
func TestATokenWithoutALeaseIsEndedAtItsEnd(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.pass(time.Hour + ledger.Grace - 2*time.Second)
	e.settled()
	if names := e.alive(); len(names) != 1 {
		t.Fatalf("alive before the end: %v", names)
	}
	e.pass(3 * time.Second)
	e.settled()
	e.nothingHeld()
}

// What memory does not know, storage does: another node has renewed the lease.
func TestALeaseRenewedElsewhereIsNotEnded(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	before := e.backend
	e.mount()
	e.pass(30 * time.Minute)
	if _, err := e.renew(secret, 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	e.backend = before
	e.pass(45 * time.Minute)
	e.settled()
	if names := e.alive(); len(names) != 1 {
		t.Errorf("alive: %v", names)
	}
	e.pass(2 * time.Hour)
	e.settled()
	e.nothingHeld()
}

// deposed makes the node one that cannot write any more. It does not know it.
func (e *engine) deposed() (reinstate func()) {
	f := func(string, string) error { return logical.ErrReadOnly }
	e.storage.fail.Store(&f)
	return func() { e.storage.fail.Store(nil) }
}

// A node that was deposed sees leases run out that its successor has renewed.
func TestADeposedNodeEndsNoLease(t *testing.T) {
	revoke := func(e *engine, secret *logical.Secret) { // long before its end, as the ledger has it
		if err := e.revokeQueued(secret); !errors.Is(err, logical.ErrReadOnly) {
			e.t.Errorf("revoked by a node that cannot write: %v", err)
		}
	}
	for name, end := range map[string]func(*engine, *logical.Secret){
		"the worker": func(e *engine, _ *logical.Secret) {
			e.pass(time.Hour)
			e.settled()
		},
		"a revoke": func(e *engine, secret *logical.Secret) {
			e.pass(time.Hour - time.Minute)
			revoke(e, secret)
		},
		"a revoke of a lease that was cut short": revoke,
	} {
		t.Run(name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			secret := e.issue("readonly", nil).Secret
			if _, err := e.renew(secret, time.Minute); err != nil {
				t.Fatal(err)
			}
			e.pass(time.Minute)
			e.jira.ResetCalls()
			reinstate := e.deposed()
			end(e, secret)
			if n := e.jira.Count("DELETE", ""); n != 0 {
				t.Errorf("%d deletes", n)
			}
			reinstate()
			e.revoke(secret)
			e.nothingHeld()
		})
	}
}

// The engine's clock is an hour ahead. All leases seem over, and none is.
func TestAClockThatIsWrongEndsNothing(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.clock.Store(int64(time.Hour + time.Minute))
	e.settled()
	if names := e.alive(); len(names) != 1 {
		t.Fatalf("alive: %v", names)
	}
	if !e.logged("[WARN]", "this machine's clock is ahead of Jira's") {
		t.Error("no warning")
	}
	// It is over by Jira's clock, too, and an hour has passed.
	e.pass(time.Hour + time.Minute)
	e.settled()
	e.nothingHeld()
}

// Jira's own clock being wrong only delays the end.
func TestAClockOfJirasThatIsWrong(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			e := configured(t, jiratest.Options{Now: func() time.Time { return time.Now().Add(skew) }})
			e.issue("readonly", nil)
			e.pass(time.Hour - time.Minute)
			e.settled()
			if names := e.alive(); len(names) != 1 {
				t.Fatalf("alive: %v", names)
			}
			e.pass(2*time.Minute + max(-skew, 0))
			e.settled()
			e.nothingHeld()
		})
	}
}

// A proxy takes the date away, or spoils it. Then this machine's clock counts, with a margin:
// what Vault has lost is ended within two minutes, an intent of which nothing can come any
// more is dropped, and nothing is ended before its time.
func TestAnAnswerWithoutADate(t *testing.T) {
	for _, date := range []string{"absent", "yesterday"} {
		for name, at := range map[string]struct {
			configured func(*testing.T, jiratest.Options) *engine
			role       string
		}{"a token": {configured, "readonly"}, "a user": {throwaway, "deploy"}} {
			t.Run(name+", "+date, func(t *testing.T) {
				e := at.configured(t, jiratest.Options{Switches: jiratest.Switches{Date: date}})
				e.issue(at.role, nil)
				// The margin is for a clock of ours that is ahead.
				e.pass(time.Hour + ledger.Grace + time.Second)
				e.settled()
				if names := e.alive(); len(names) != 1 {
					t.Errorf("alive: %v", names)
				}
				if !e.logged("[WARN]", "Jira's answer carries no date") {
					t.Error("no warning")
				}
				e.pass(2*time.Minute - ledger.Grace - time.Second - 10*time.Second) // some of it is the call's
				e.settled()
				e.nothingHeld()

				e.jira.Fault(jiratest.Fault{Method: "POST", Nth: 1, Do: jiratest.LoseCall})
				if _, err := e.request(t.Context(), logical.ReadOperation, "creds/"+at.role, nil); err == nil {
					t.Fatal("a token was made")
				}
				e.settled()
				e.pass(ledger.LateLanding + 2*undatedMargin)
				e.settled()
				e.nothingHeld()
			})
		}
	}
}

// Vault tries a queued revoke six times. Jira is away for longer.
func TestADebtIsTakenOver(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	if err := e.revokeQueued(secret); err == nil {
		t.Fatal("revoked while Jira was down")
	}
	e.jira.ResetCalls()
	e.pass(takenOver - time.Second)
	err := e.revokeQueued(secret)
	e.failed(503, nil, err, "the engine goes on trying")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls for a debt that is the worker's", n)
	}
	e.mount() // it is all in storage
	e.pass(2 * time.Second)
	if err := e.revokeQueued(secret); err != nil {
		t.Errorf("Vault's lease would turn irrevocable: %v", err)
	}
	if !e.logged("[WARN]", "Vault may drop the lease", "token_id") {
		t.Error("no warning")
	}
	// Whoever waits for the answer is told the truth.
	if _, err := e.leaseRequest(t.Context(), logical.RevokeOperation, secret); err == nil {
		t.Error("revoked while Jira was down")
	}
	if names := e.alive(); len(names) != 1 {
		t.Errorf("alive: %v", names)
	}
	e.jira.ClearFaults()
	e.settled()
	e.nothingHeld()
	e.revoke(secret)
}

func tokenID(s *logical.Secret) string { return s.InternalData["token_id"].(string) }

// Vault calls it on nodes that may not write, too.
func TestThePeriodicCallOnAStandby(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.standby(consts.ReplicationPerformanceStandby)
	e.system.TaintedVal = true
	if _, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: e.storage}); err != nil {
		t.Error(err)
	}
	if e.worker.running.Load() || len(e.jira.Calls()) != 0 {
		t.Error("it worked where it must not")
	}
}

// It brings back a worker that has ended, and leaves one alone that runs.
func TestThePeriodicCallBringsTheWorkerBack(t *testing.T) {
	e := configured(t, jiratest.Options{})
	for range 2 {
		if _, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: e.storage}); err != nil {
			t.Fatal(err)
		}
	}
	if !e.worker.running.Load() {
		t.Error("no worker")
	}
	e.Cleanup(t.Context())
	if e.worker.running.Load() {
		t.Error("it was not waited for")
	}
	e.startWorker()
	if e.worker.running.Load() {
		t.Error("it came back after its end")
	}
}

// A panic in the worker is logged, and does not end it.
func TestAPanicInTheWorker(t *testing.T) {
	e := configured(t, jiratest.Options{})
	one := e.issue("readonly", nil)
	e.issue("readonly", nil)
	e.pass(2 * time.Hour)
	f := func(op, key string) error {
		if op == "put" && strings.HasSuffix(key, one.Secret.InternalData["id"].(string)) {
			panic("of the test")
		}
		return nil
	}
	e.storage.fail.Store(&f)
	e.works()
	e.eventually(func() bool { return e.logged("[ERROR]", "panic=\"of the test\"") && e.logged("(*backend).settle") })
	e.storage.fail.Store(nil)
	e.rouse()
	e.eventually(func() bool { return len(e.ledger.IDs("")) == 0 })
	e.nothingHeld()
}

// However long something has been failing, it is tried again within a minute,
// and not in step with others.
func TestRests(t *testing.T) {
	now := time.Now()
	var r rest
	seen := map[time.Duration]bool{}
	for range 1000 {
		r = r.next(now)
		wait := r.until.Sub(now)
		if wait < time.Second || wait > time.Minute {
			t.Fatalf("rests for %v", wait)
		}
		seen[wait] = true
		now = r.until
	}
	if len(seen) < 500 {
		t.Errorf("%d different rests of 1000", len(seen))
	}
}

// While nothing works one account is tried, not a hundred.
func TestOneProbeWhileJiraIsDown(t *testing.T) {
	var w worker
	now := time.Now()
	next := map[string]time.Time{}
	for i := range 100 {
		next[fmt.Sprint("account-", i)] = now
	}
	accounts, _ := w.due(next, now)
	if len(accounts) != 100 {
		t.Fatalf("%d accounts are due", len(accounts))
	}
	with := func(accounts []string, err func(i int) error) []outcome {
		done := make([]outcome, len(accounts))
		for i, account := range accounts {
			done[i] = outcome{account, err(i)}
		}
		return done
	}
	w.judge(with(accounts, func(int) error { return &jira.Error{Kind: jira.Down} }), now)
	if accounts, sleep := w.due(next, now); len(accounts) != 0 || sleep <= 0 || sleep > time.Minute {
		t.Errorf("%d accounts, sleep %v", len(accounts), sleep)
	}
	now = now.Add(longestRest)
	accounts, _ = w.due(next, now)
	if len(accounts) != 1 {
		t.Fatalf("%d accounts are tried", len(accounts))
	}
	w.judge(with(accounts, func(int) error { return nil }), now)
	if accounts, _ := w.due(next, now); len(accounts) != 100 {
		t.Errorf("%d accounts are due", len(accounts))
	}

	// One account's own trouble is nobody else's.
	accounts, _ = w.due(next, now)
	w.judge(with(accounts, func(i int) error {
		if i == 7 {
			return &jira.Error{Kind: jira.Refused}
		}
		return nil
	}), now)
	if accounts, _ := w.due(next, now); len(accounts) != 99 {
		t.Errorf("%d accounts are due", len(accounts))
	}
}

// An account that nobody can log in to any more, whose tokens Jira has ended.
func TestTokensThatJiraMustHaveEnded(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: `{"message":"no"}`})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	e.pass(2*24*time.Hour - time.Minute) // the token lives for two days, and one more makes sure
	e.settled()
	if n := len(e.ledger.IDs("")); n != 1 {
		t.Fatalf("%d records", n)
	}
	e.pass(24*time.Hour + 2*time.Minute)
	e.rouse()
	e.settled()
	e.nothingHeld()
	if keys, err := e.storage.List(t.Context(), retiredPrefix); len(keys) != 0 || err != nil {
		t.Errorf("kept: %v, %v", keys, err)
	}
	if !e.logged("[WARN]", "never proven gone") {
		t.Error("no warning")
	}
}

// After an outage all that is owed is ended, never by more calls at a time than
// the site allows, and not before the gate has felt its way.
func TestManyDebtsAtOnce(t *testing.T) {
	const many, most = 300, 3
	e := configured(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: -1}})
	e.write("config", map[string]any{"max_concurrent_requests": most})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 2 * many})
	for range many {
		e.issue("readonly", nil)
	}
	if err := e.giveUp(t.Context(), "ci-bot"); err != nil {
		t.Fatal(err)
	}
	down := e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	e.jira.ResetCalls()
	e.work(t.Context())
	if n := len(e.jira.Calls()); n > 3*mostAtOnce {
		t.Errorf("%d calls to a Jira that is down", n)
	}
	down()
	e.jira.ResetCalls()
	e.rouse()
	e.settled()
	if n := e.jira.MaxInFlight(); n > most {
		t.Errorf("%d calls at a time", n)
	}
	if n := e.jira.Count("DELETE", tokensAPI); n != many {
		t.Errorf("%d deletes of %d tokens", n, many)
	}
	e.nothingHeld()
}

// Revokes go first: a place that is free is a reader's only if no token waits
// to be ended.
func TestTheWorkerGoesBeforeReaders(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("config", map[string]any{"max_concurrent_requests": 1})
	for range 3 {
		e.issue("readonly", nil)
	}
	if err := e.giveUp(t.Context(), "ci-bot"); err != nil {
		t.Fatal(err)
	}
	e.jira.ResetCalls()
	slow := e.jira.Fault(jiratest.Fault{Method: "DELETE", Nth: 1, Do: jiratest.Slow, Delay: 300 * time.Millisecond})
	defer slow()
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		e.settled()
	}()
	if err := e.jira.WaitCalls(t.Context(), "DELETE", tokensAPI, 1); err != nil {
		t.Fatal(err)
	}
	lease := e.issue("readonly", nil)
	<-worked
	var order []string
	for _, c := range e.jira.Calls() {
		order = append(order, c.Method)
	}
	if len(order) != 4 || order[3] != "POST" {
		t.Errorf("calls in order: %v", order)
	}
	e.revoke(lease.Secret)
	e.nothingHeld()
}

// A panic in a tidy is told like any other end of it.
func TestAPanicInATidy(t *testing.T) {
	e := configured(t, jiratest.Options{})
	panics := func(at int) {
		writes := 0
		f := func(_, key string) error {
			if key == tidyStatusKey {
				if writes++; writes == at {
					panic("of the test")
				}
			}
			return nil
		}
		e.storage.fail.Store(&f)
	}
	panics(1)
	if _, err := e.request(t.Context(), logical.UpdateOperation, "tidy", nil); err == nil {
		t.Error("a tidy was started that is stored nowhere")
	}
	panics(2)
	s := e.tidied(nil)
	if s["state"] != tidyFailed || !strings.Contains(s["error"].(string), "internal error") || !e.logged("[ERROR]", "panic=\"of the test\"") {
		t.Errorf("status %v", s)
	}
	e.storage.fail.Store(nil)
	if s := e.tidied(nil); s["state"] != tidyFinished {
		t.Errorf("status %v", s)
	}
}

// Vault waits for Clean with a lock over all mounts.
func TestCleanDoesNotWaitForJira(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.pass(2 * time.Hour)
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Nth: 1, Do: jiratest.Hang})
	e.works()
	if err := e.jira.WaitCalls(t.Context(), "GET", tokensAPI, 1); err != nil {
		t.Fatal(err)
	}
	e.write("tidy", nil)
	e.Cleanup(t.Context())
	if e.logged("background work did not end in time") || e.worker.running.Load() {
		t.Error("something goes on")
	}
	e.jira.ClearFaults()
	e.mount()
	e.settled()
	e.nothingHeld()
}

// sized is storage that takes entries up to a size, as every one of Vault's does.
type sized struct {
	logical.Storage
	most int
}

func (s *sized) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if len(entry.Value) > s.most {
		return fmt.Errorf("put failed due to value being too large; got %d bytes, max: %d bytes", len(entry.Value), s.most)
	}
	return s.Storage.Put(ctx, entry)
}

// TestAReaderOfManyWords: Vault bounds no display name, and a reader who may create child
// tokens can make one of a megabyte. Whatever a reader brings, the record of the credential
// can take on each of its later forms.
func TestAReaderOfManyWords(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.storage.Storage = &sized{e.storage.Storage, 1 << 20}
	many := strings.Repeat("<", 1<<20)
	read := func() *logical.Response {
		resp, err := e.HandleRequest(t.Context(), &logical.Request{
			ID: many, Operation: logical.ReadOperation, Path: "creds/readonly", MountPoint: "jira/", Storage: e.storage, Data: map[string]any{"ttl": 60, "metadata": strings.Repeat("m", 512)},
			EntityID: many, DisplayName: many, Connection: &logical.Connection{RemoteAddr: many},
		})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	early, renewed, forgotten := read(), read(), read()
	renewed.Secret.IssueTime = time.Now()
	if _, err := e.renew(renewed.Secret, time.Hour); err != nil {
		t.Error(err)
	}
	e.must(logical.UpdateOperation, "tokens/"+id(early)+"/revoke", nil)
	if err := e.revokeQueued(renewed.Secret); err != nil {
		t.Error(err)
	}
	e.pass(2 * time.Minute)
	e.settled()
	if names := e.alive(); len(names) != 0 || e.call(forgotten.Data["token"].(string)) == http.StatusOK {
		t.Errorf("alive: %v", names)
	}
	e.revoke(early.Secret)
	e.nothingHeld()
	if n := len(e.log.String()); n > 100<<10 {
		t.Errorf("%d bytes are logged", n)
	}
}

// TestARecordFromBeforeThereWereBounds: one that fills an entry of storage is ended all the
// same, for its next form is shorter.
func TestARecordFromBeforeThereWereBounds(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", map[string]any{"ttl": "1m"})
	key := ledgerPrefix + id(lease)[:2] + "/" + id(lease)
	entry, err := e.storage.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	const most = 1 << 20
	name := strings.Repeat("n", most-len(entry.Value)+len("token-app"))
	entry.Value = []byte(strings.Replace(string(entry.Value), "token-app", name, 1))
	e.storage.Storage = &sized{e.storage.Storage, most}
	if err := e.storage.Put(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	e.mount()
	e.pass(2 * time.Minute)
	e.settled()
	e.nothingHeld()
}

// TestARecordThatStorageDoesNotTake rests, and holds up no other of its account; where storage
// takes none the worker does not try them all.
func TestARecordThatStorageDoesNotTake(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 40})
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.MaxTokens = 40 })
	var leases []*logical.Response
	for range 30 {
		leases = append(leases, e.issue("readonly", map[string]any{"ttl": "1m"}))
	}
	stuck := leases[7]
	key := ledgerPrefix + id(stuck)[:2] + "/" + id(stuck)
	e.storage.failing(key)
	e.pass(2 * time.Minute)
	e.settled()
	if names := e.alive(); len(names) != 1 || names[0] != stuck.Data["token_name"] {
		t.Errorf("alive: %v", names)
	}
	began := e.storage.writes.Load()
	e.settled()
	if n := e.storage.writes.Load() - began; n != 0 {
		t.Errorf("%d writes of what rests", n)
	}
	e.storage.failing("")
	e.pass(time.Minute)
	e.settled()
	e.nothingHeld()

	for range 30 {
		e.issue("readonly", map[string]any{"ttl": "1m"})
	}
	e.storage.failing(ledgerPrefix)
	e.pass(2 * time.Minute)
	began = e.storage.writes.Load()
	_ = e.work(t.Context())
	if n := e.storage.writes.Load() - began; n > mostUnwritten+1 {
		t.Errorf("%d writes, and storage is away", n)
	}
	e.storage.failing("")
	e.pass(time.Minute)
	e.settled()
	e.nothingHeld()
}

// TestADamagedRecord: a record that makes no sense holds up nothing but what may need it,
// the log and status tell what is known of it, and an operator can remove it.
func TestADamagedRecord(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/releases", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/few", map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_leases": 3})
	bad, good := e.issue("readonly", nil), e.issue("few", nil)
	damagedID := id(bad)
	key := ledgerPrefix + damagedID[:2] + "/" + damagedID
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(`{"id":"` + damagedID + `","state":"of a newer version","account":"ci-bot","name":"a name"}`)}); err != nil {
		t.Fatal(err)
	}
	e.mount()
	if !e.logged("[ERROR]", "makes no sense", "id="+damagedID, "account=ci-bot", "token_name=\"a name\"") {
		t.Error("the log does not tell what is known of it")
	}
	e.finds("make no sense", damagedID)

	// Nothing else is held up.
	e.revoke(e.issue("few", nil).Secret)
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	for _, path := range []string{"rotate-account/ci-bot", "rotate-role/legacy"} {
		e.rotate(path)
	}
	if resp := e.must(logical.ListOperation, "tokens/", nil); len(resp.Data["keys"].([]string)) < 3 {
		t.Errorf("tokens lists %v", resp.Data["keys"])
	}
	if got := e.tidied(map[string]any{"dry_run": false}); got["state"] != tidyFinished || got["orphan_count"] != 0 {
		t.Errorf("tidied %v", got)
	}
	e.read("accounts/ci-bot/tokens")
	e.must(logical.DeleteOperation, "accounts/releases", nil) // of which it is not
	e.pass(2 * time.Hour)
	e.settled()
	if e.call(good.Data["token"].(string)) == http.StatusOK {
		t.Error("another token outlives its lease")
	}
	e.refuses(400, logical.ReadOperation, "tokens/"+damagedID, nil, "damaged", "delete tokens/"+damagedID)
	e.refuses(400, logical.UpdateOperation, "tokens/"+damagedID+"/revoke", nil, "damaged")

	// What may need it is.
	e.tended() // ends what the rotations have replaced
	for _, path := range []string{"static-roles/legacy", "roles/readonly", "roles/few"} {
		e.must(logical.DeleteOperation, path, nil)
	}
	e.refuses(400, logical.DeleteOperation, "accounts/ci-bot", nil, "make no sense", damagedID)
	e.refuses(400, logical.DeleteOperation, "config", nil, "make no sense", damagedID)
	e.refuses(400, logical.DeleteOperation, "tokens/"+damagedID, nil, "force=true")
	resp := e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), damagedID) {
		t.Errorf("by force, without a word of it: %+v", resp)
	}

	// The lease's end needs no record: what it says is enough, once there is an account.
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.revoke(bad.Secret)
	if e.call(bad.Data["token"].(string)) == http.StatusOK {
		t.Error("its token is alive")
	}
	e.nothingHeld()
}

// TestARecordThatIsDamagedWhileTheEngineRuns: its memory knows the record as it was. What was to
// be done with it is left, and the others are ended.
func TestARecordThatIsDamagedWhileTheEngineRuns(t *testing.T) {
	for what, end := range map[string]func(*engine){
		"the worker settles": func(e *engine) {
			e.pass(2 * time.Hour)
			e.settled()
		},
		"the account goes": func(e *engine) {
			e.must(logical.DeleteOperation, "roles/readonly", nil)
			e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
		},
		"the mount is tainted": func(e *engine) { _ = e.tainted() },
	} {
		t.Run(what, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			var all []*logical.Response
			for range 6 {
				all = append(all, e.issue("readonly", nil))
			}
			first := slices.MinFunc(all, func(x, y *logical.Response) int { return strings.Compare(id(x), id(y)) })
			key := ledgerPrefix + id(first)[:2] + "/" + id(first)
			if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte("no record")}); err != nil {
				t.Fatal(err)
			}
			end(e)
			if names := e.alive(); !slices.Equal(names, []string{first.Data["token_name"].(string)}) {
				t.Errorf("alive: %v", names)
			}
			e.jira.Delete(jiraID(t, first))
		})
	}
}

// TestARecordThatIsRemoved: an operator can remove what the engine can never end, and
// nothing that is in use.
func TestARecordThatIsRemoved(t *testing.T) {
	e := configured(t, jiratest.Options{})
	held, stuck := e.issue("readonly", nil), e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: tokensAPI + "/" + tokenID(stuck.Secret), Do: jiratest.Answer, Status: 403, Body: `{"message":"never"}`})
	if err := e.revokeQueued(stuck.Secret); err == nil {
		t.Fatal("revoked")
	}
	force := map[string]any{"force": true}
	e.refuses(400, logical.DeleteOperation, "tokens/"+id(held), force, "in use")
	e.refuses(400, logical.DeleteOperation, "tokens/"+id(stuck), nil, "force=true")
	e.refuses(400, logical.DeleteOperation, "tokens/nonsense", force, "no id of the ledger")
	e.must(logical.DeleteOperation, "tokens/aaaaaaaaaaaaaaaa", force) // there is none
	e.must(logical.DeleteOperation, "tokens/"+id(stuck), force)
	if !e.logged("[WARN]", "not proven gone is removed", "token_id="+tokenID(stuck.Secret), "token_name="+stuck.Data["token_name"].(string), "by=token-app") {
		t.Error("the log does not keep what was known of it")
	}
	remove()
	e.jira.ResetCalls()
	e.pass(time.Hour)
	e.settled()
	if n := e.jira.Count("DELETE", tokensAPI+"/"+tokenID(stuck.Secret)); n != 0 {
		t.Errorf("%d more tries to end it", n)
	}
	e.revoke(held.Secret)
	e.revoke(stuck.Secret) // its lease knows it
	e.nothingHeld()
}

// A clock that was set back does not make a debt young again.
func TestADebtOfTheFuture(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	if err := e.revokeQueued(secret); err == nil {
		t.Fatal("revoked while Jira was down")
	}
	e.work(t.Context()) // it has seen the clock
	e.clock.Add(-int64(time.Hour))
	if err := e.revokeQueued(secret); err != nil {
		t.Error(err)
	}
	e.jira.ClearFaults()
	e.settled()
	e.nothingHeld()
}

// The clock was an hour ahead while something failed, and is right again.
func TestAClockThatIsSetBackKeepsNobodyWaiting(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.clock.Store(int64(25 * time.Hour)) // over by this clock, and not by Jira's
	e.settled()
	e.clock.Store(0)
	if err := e.giveUp(t.Context(), "ci-bot"); err != nil {
		t.Fatal(err)
	}
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 403, Times: 1, Nth: 1, Body: `{"message":"no"}`})
	e.clock.Store(int64(25 * time.Hour))
	e.settled() // will try again a little later, by that clock
	e.clock.Store(0)
	e.settled()
	e.nothingHeld()
}

// Storage that cannot be read for a moment is no record that cannot be read.
func TestStorageThatFailsForAMomentIsAskedAgain(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	if err := e.giveUp(t.Context(), "ci-bot"); err != nil {
		t.Fatal(err)
	}
	inmem := e.storage.Storage.(*logical.InmemStorage)
	inmem.FailGet(true)
	e.work(t.Context())
	inmem.FailGet(false)
	e.pass(time.Minute)
	e.settled()
	e.nothingHeld()
}

// An account that was deleted by force, whose password Jira refuses now. Its user
// is made an account again, and that ends what is left.
func TestARetiredAccountIsHelpedByItsSuccessor(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	remove()
	for _, tok := range e.jira.Tokens("ci-bot") {
		if tok.Name == "made by hand" {
			e.jira.Delete(tok.ID)
		}
	}
	e.rouse()
	e.settled()
	if names := e.alive(); len(names) != 1 {
		t.Fatalf("alive: %v", names)
	}
	e.write("accounts/again", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.settled()
	e.nothingHeld()
	if _, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: e.storage}); err != nil {
		t.Fatal(err)
	}
	if keys, err := e.storage.List(t.Context(), retiredPrefix); len(keys) != 0 || err != nil {
		t.Errorf("kept: %v, %v", keys, err)
	}
}
