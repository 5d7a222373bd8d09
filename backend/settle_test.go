package backend

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A mint whose answer was lost while Jira could not be asked about it takes a place,
// until somebody needs one. Those before it were looked for, and so take none.
func TestLostMintsGiveTheirPlacesBack(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 4})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.Answer, Status: 503})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	if n := e.ledger.Held("ci-bot"); n != 0 {
		t.Errorf("%d places taken", n)
	}
	e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	resp, err = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	if n := e.ledger.Held("ci-bot"); n != 1 {
		t.Errorf("%d places taken", n)
	}

	e.jira.ClearFaults()
	secret := e.issue("readonly", nil).Secret
	if n := e.ledger.Held("ci-bot"); n != 1 {
		t.Errorf("%d places taken", n)
	}

	// What was looked for takes no place, and is not looked for by every reader
	// whom there is no room for.
	second := e.issue("readonly", nil).Secret
	e.jira.ResetCalls()
	e.refuses(429, logical.ReadOperation, "creds/readonly", nil, "holds 2 of the 2")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls for a reader without room", n)
	}
	e.revoke(second)

	// The late requests may land for a day: until then the account is needed.
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.revoke(secret)
	e.refuses(400, logical.DeleteOperation, "accounts/ci-bot", nil, "no clear answer to 2 mints")
	e.clock.Store(int64(ledger.LateLanding))
	e.refuses(400, logical.DeleteOperation, "accounts/ci-bot", nil, "no clear answer to 2 mints") // Jira's clock denies it
	e.jira.Advance(ledger.LateLanding)
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
	e.nothingHeld()
}

// Rows of a list that nobody expects keep nobody from what is his own: lost mints are
// settled, accounts rotated and tidied, and tokens shown.
func TestOddRowsStopNothing(t *testing.T) {
	for name, switches := range map[string]jiratest.Switches{"as ever": {}, "odd": {OddRows: true, MaxTokens: 20}} {
		e := configured(t, jiratest.Options{Switches: switches})
		e.write("accounts/ci-bot", map[string]any{"max_tokens": 20})
		e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseAnswer})
		resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
		e.failed(503, resp, err)
		e.nothingHeld()
		e.write("rotate-account/ci-bot", nil)
		e.revoke(e.issue("readonly", nil).Secret)
		if listed := e.read("accounts/ci-bot/tokens"); listed == nil {
			t.Errorf("%s: nothing listed", name)
		}
		e.must(logical.DeleteOperation, "roles/readonly", nil)
		e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
		e.nothingHeld()
	}
}

// One that did land is ended as soon as anybody looks.
func TestALostMintThatLandedIsEnded(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.AnswerAfter, Status: 503})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Do: jiratest.Answer, Status: 503})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	if names := e.alive(); len(names) != 1 {
		t.Fatalf("alive %v", names)
	}
	e.mount() // what a crash leaves is the same
	e.jira.ClearFaults()
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
	e.nothingHeld()
}

// Two tokens of one name, as when something between us and Jira repeated the
// request, are both ended.
func TestAMintThatHappenedTwiceIsEndedTwice(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.Twice})
	r := e.lostMint()
	if names := e.alive(); len(names) != 2 {
		t.Fatalf("alive %v", names)
	}
	client, err := e.client(t.Context(), "ci-bot")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.settle(t.Context(), e.backend.log(), client, r.ID); err != nil {
		t.Fatal(err)
	}
	e.nothingHeld()
}

// lostMint makes a token whose answer never reaches the ledger.
func (e *engine) lostMint() *ledger.Record {
	e.t.Helper()
	m, err := e.intend(e.t.Context(), ledger.Reader{}, "readonly", 0, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if _, _, err := m.client.CreateToken(e.t.Context(), m.record.Name, days(m.max)); err != nil {
		e.t.Fatal(err)
	}
	return m.record
}

// A mint that runs is nobody's to settle.
func TestAMintThatRunsIsNotSettled(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.Slow, Delay: 300 * time.Millisecond})
	done := make(chan *logical.Response)
	go func() {
		resp, _ := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
		done <- resp
	}()
	if err := e.jira.WaitCalls(t.Context(), "POST", tokensAPI, 1); err != nil {
		t.Fatal(err)
	}
	if e.settleAccounts(t.Context(), true, "ci-bot") {
		t.Error("a mint that runs was settled")
	}
	resp := <-done
	if resp == nil {
		t.Fatal("the mint failed")
	}
	e.revoke(resp.Secret)
	e.nothingHeld()
}

// A node that was deposed cannot write any more, and so must not delete: the
// token may be in the hands of the one that came after it.
func TestADeposedNodeDeletesNothing(t *testing.T) {
	e := configured(t, jiratest.Options{})
	r := e.lostMint()
	e.ledger.Over(r.ID)
	deposed := func(string, string) error { return logical.ErrReadOnly }
	e.storage.fail.Store(&deposed)
	e.jira.ResetCalls()
	e.settleAccounts(t.Context(), true, "ci-bot")
	if n := e.jira.Count("DELETE", ""); n != 0 {
		t.Errorf("%d deletes", n)
	}
	e.storage.fail.Store(nil)
	e.settleAccounts(t.Context(), true, "ci-bot")
	e.nothingHeld()
}

// The list that a look goes by may lag behind: what is not on it stays in the
// ledger, and a later look finds it.
func TestAListThatLags(t *testing.T) {
	e := configured(t, jiratest.Options{Switches: jiratest.Switches{ListLag: time.Minute}})
	r := e.lostMint()
	e.ledger.Over(r.ID)
	e.settleAccounts(t.Context(), true, "ci-bot")
	if have := e.record(); have.State != ledger.Intended || have.SoughtAt == 0 {
		t.Errorf("record %+v", have)
	}
	e.jira.Advance(2 * time.Minute)
	e.settleAccounts(t.Context(), true, "ci-bot")
	e.nothingHeld()
}

// A lease that was ended by force leaves its token owed, with nobody to revoke
// it again. It is ended when a place or the account is wanted.
func TestADebtWithoutALeaseIsPaid(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 3})
	for _, wanted := range []func(){
		func() { e.revoke(e.issue("readonly", nil).Secret) },
		func() {
			e.must(logical.DeleteOperation, "roles/readonly", nil)
			e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
		},
	} {
		secret := e.issue("readonly", nil).Secret
		remove := e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
		if _, err := e.leaseRequest(t.Context(), logical.RevokeOperation, secret); err == nil {
			t.Fatal("revoked while Jira was down")
		}
		e.refuses(400, logical.DeleteOperation, "config", nil, "1 tokens are revoked, but Jira has not ended them yet")
		remove()
		wanted()
		e.nothingHeld()
	}
}

// Whoever comes second finds that the first has settled it, and gets a place.
func TestReadersWhoSettleAtOnce(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 6})
	var lost []*ledger.Record
	for range 4 {
		lost = append(lost, e.lostMint())
	}
	for _, r := range lost {
		e.ledger.Over(r.ID)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
			if err != nil {
				t.Error(err)
				return
			}
			e.revoke(resp.Secret)
		})
	}
	readers.Wait()
	e.nothingHeld()
}

// A ledger that is read while a mint runs does not make its intent a lost one.
func TestAMintThatRunsWhileTheLedgerIsRead(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.setup()
	m, err := e.intend(t.Context(), ledger.Reader{}, "readonly", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ledger.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids := e.ledger.Unsettled("ci-bot", true); len(ids) != 0 {
		t.Errorf("unsettled: %v", ids)
	}
	e.ledger.Over(m.record.ID)
	if ids := e.ledger.Unsettled("ci-bot", true); len(ids) != 1 {
		t.Errorf("unsettled: %v", ids)
	}
}

// Jira may deny the list, as where tokens are switched off. The worker pauses before it
// asks again.
func TestADeniedListIsLeftAloneForAWhile(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	e.pass(time.Hour + ledger.Grace + time.Second)
	e.jira.ResetCalls()
	e.settled()
	if n := e.jira.Count("GET", tokensAPI); n != 1 {
		t.Errorf("%d calls", n)
	}
	remove()
	e.pass(longestRest + time.Second)
	e.settled()
	e.nothingHeld()
}

// Somebody else may have settled what we were about to.
func TestWhatIsSettledAlreadyIsNoFailure(t *testing.T) {
	e := configured(t, jiratest.Options{})
	client, err := e.client(t.Context(), "ci-bot")
	if err != nil {
		t.Fatal(err)
	}
	r := e.lostMint()
	for range 2 {
		if err := e.settle(t.Context(), e.backend.log(), client, r.ID); err != nil {
			t.Error(err)
		}
	}
	e.nothingHeld()
}

// A delete with force ends what leases hold, and deletes only once all is gone.
func TestADeleteWithForce(t *testing.T) {
	for _, path := range []string{"accounts/ci-bot", "config"} {
		e := configured(t, jiratest.Options{})
		one, two := e.issue("readonly", nil).Secret, e.issue("readonly", nil).Secret
		if path != "config" {
			e.refuses(400, logical.DeleteOperation, path, map[string]any{"force": true}, "roles name it")
			if names := e.alive(); len(names) != 2 {
				t.Fatalf("refused, and yet only %v are alive", names)
			}
			e.must(logical.DeleteOperation, "roles/readonly", nil)
		}
		e.refuses(400, logical.DeleteOperation, path, map[string]any{"force": false}, "leases hold tokens")

		remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
		resp := e.must(logical.DeleteOperation, path, map[string]any{"force": true})
		if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "2 tokens are not proven gone") {
			t.Errorf("warnings %v", resp.Warnings)
		}
		if e.read(path) != nil {
			t.Errorf("%s is still there", path)
		}
		resp, err := e.renew(one, 0)
		e.failed(400, resp, err, "being revoked")
		remove()

		// The credential is kept until the worker has ended both, a crash or not.
		e.mount()
		e.work(t.Context())
		e.nothingHeld()
		if keys, err := e.storage.List(t.Context(), retiredPrefix); len(keys) != 0 || err != nil {
			t.Errorf("kept: %v, %v", keys, err)
		}
		e.jira.ResetCalls()
		e.revoke(one)
		e.revoke(two)
		if n := len(e.jira.Calls()); n != 0 {
			t.Errorf("%d calls for leases whose tokens were ended", n)
		}
		e.nothingHeld()
	}
}

// A write that moves a record to a retired account is answered with an error and
// lands all the same. The record is not to be left without a login.
func TestAMoveThatLandedUnseen(t *testing.T) {
	e := configured(t, jiratest.Options{})
	remove := e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.storage.Storage = unseen{e.storage.Storage}
	resp, err = e.request(t.Context(), logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	e.failed(500, resp, err, "storage is away")
	if err := e.dropAllRetired(t.Context()); err != nil {
		t.Fatal(err)
	}
	remove()
	e.mount() // it is what storage holds that counts
	e.pass(ledger.LateLanding)
	e.settled()
	e.nothingHeld()
}

// unseen is storage that moves records and says that it did not.
type unseen struct{ logical.Storage }

func (s unseen) Put(ctx context.Context, entry *logical.StorageEntry) error {
	err := s.Storage.Put(ctx, entry)
	if strings.HasPrefix(entry.Key, ledgerPrefix) && strings.Contains(string(entry.Value), retiredMark) {
		return errStorage
	}
	return err
}

// TestATokenAPIThatIsAway: while it is, Jira says 404 in JSON of every token. Nothing is called
// ended by that, whichever way it is to end, and all of it ends when the API is back.
func TestATokenAPIThatIsAway(t *testing.T) {
	e := configured(t, jiratest.Options{})
	asked, queued, over := e.issue("readonly", nil), e.issue("readonly", nil), e.issue("readonly", map[string]any{"ttl": "5m"})
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.NotMounted = []string{"/rest/pat"} })
	_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, asked.Secret)
	e.failed(400, nil, err, "cannot tell whether the token is gone")
	if err := e.revokeQueued(queued.Secret); err == nil {
		t.Error("a queued revoke succeeds")
	}
	e.pass(10 * time.Minute)
	e.settled()
	if n := len(e.alive()); n != 3 || e.ledger.Held("ci-bot") != 3 {
		t.Errorf("%d are alive, and the ledger has %d", n, e.ledger.Held("ci-bot"))
	}
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.NotMounted = nil })
	e.pass(2 * time.Minute)
	e.settled()
	e.revoke(asked.Secret)
	e.revoke(over.Secret)
	e.nothingHeld()
}
