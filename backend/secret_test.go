package backend

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

func TestRenewal(t *testing.T) {
	for _, tt := range []struct {
		name      string
		age       time.Duration // of the lease
		increment time.Duration
		change    func(*engine) // after the mint
		want      time.Duration // 0: refused
	}{
		{"without an increment it is the role's ttl", 0, 0, nil, time.Hour},
		{"the reader's increment counts", 0, 7 * time.Hour, nil, 7 * time.Hour},
		{"and may shorten", 0, 5 * time.Second, nil, 5 * time.Second},
		{"max_ttl bounds it", 20 * time.Hour, 7 * time.Hour, nil, 4 * time.Hour},
		{"and ends it", 25 * time.Hour, 0, nil, 0},
		{"after the role is gone", 20 * time.Hour, 7 * time.Hour, func(e *engine) {
			e.must(logical.DeleteOperation, "roles/readonly", nil)
		}, 4 * time.Hour},
		{"a longer role changes nothing", 20 * time.Hour, 1000 * time.Hour, func(e *engine) {
			e.write("roles/readonly", map[string]any{"ttl": "100h", "max_ttl": "600h"})
		}, 4 * time.Hour},
		{"a shorter role does", 20 * time.Hour, 7 * time.Hour, func(e *engine) {
			e.write("roles/readonly", map[string]any{"ttl": "10m", "max_ttl": "22h"})
		}, 2 * time.Hour},
		{"and its ttl", 0, 0, func(e *engine) {
			e.write("roles/readonly", map[string]any{"ttl": "10m"})
		}, 10 * time.Minute},
		{"the mount's maximum is read again", 5 * time.Hour, 7 * time.Hour, func(e *engine) {
			e.system.MaxLeaseTTLVal = 6 * time.Hour
		}, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			secret := e.issue("readonly", nil).Secret
			t.Cleanup(func() { e.revoke(secret) })
			if tt.change != nil {
				tt.change(e)
			}
			before := e.record()
			secret.IssueTime = time.Now().Add(-tt.age)
			e.jira.ResetCalls()
			resp, err := e.renew(secret, tt.increment)
			if n := len(e.jira.Calls()); n != 0 {
				t.Errorf("%d calls to Jira", n)
			}
			if tt.want == 0 {
				e.failed(400, resp, err, "read a new credential")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// What Vault's core makes of the answer is what the lease becomes.
			got, _, err := framework.CalculateTTL(e.system, tt.increment, resp.Secret.TTL, 0, resp.Secret.MaxTTL, 0, secret.IssueTime)
			if err != nil {
				t.Fatal(err)
			}
			if near(got, tt.want) != nil {
				t.Errorf("renewed for %v, want %v", got, tt.want)
			}
			after := e.record()
			if end := time.Now().Add(got - time.Minute); after.LeaseEnd.Time().Before(end) || after.LeaseEnd < before.LeaseEnd {
				t.Errorf("the ledger's end %v is before Vault's %v, or before %v", after.LeaseEnd, end, before.LeaseEnd)
			}
			if after.LeaseEnd >= after.Expires {
				t.Errorf("the lease ends at %v, Jira ends the token at %v", after.LeaseEnd, after.Expires)
			}
		})
	}
}

// near is nil if two durations are the same but for the seconds that a test
// takes.
func near(got, want time.Duration) error {
	if d := want - got; d < 0 || d > 30*time.Second {
		return context.DeadlineExceeded
	}
	return nil
}

// record is the only one in the ledger.
func (e *engine) record() *ledger.Record {
	e.t.Helper()
	ids := e.records("")
	if len(ids) != 1 {
		e.t.Fatalf("records %v, want one", ids)
	}
	r, err := e.ledger.Read(context.WithoutCancel(e.t.Context()), ids[0])
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func TestARenewalThatCannotBeWrittenFails(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.storage.failing(ledgerPrefix)
	resp, err := e.renew(secret, 0)
	e.failed(500, resp, err, "storage is away")
	e.storage.failing("")
	e.revoke(secret)
}

func TestALeaseOutlivesRoleAndEngine(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.mount()
	if n := e.ledger.Held("ci-bot"); n != 1 {
		t.Errorf("%d places taken after the engine came back", n)
	}
	if _, err := e.renew(secret, 0); err != nil {
		t.Error(err)
	}
	e.revoke(secret)
	e.nothingHeld()
}

// A revoke may say done only when the token is proven gone.
func TestARevokeTellsTheTruth(t *testing.T) {
	other := jiratest.New(t, jiratest.Options{})
	for _, tt := range []struct {
		name   string
		fault  jiratest.Fault
		status int // 0: done
		words  string
		gone   bool // the token, in Jira
	}{
		{"done", jiratest.Fault{}, 0, "", true},
		{"lost answer", jiratest.Fault{Nth: 1, Do: jiratest.LoseAnswer}, 0, "", true},
		{"lost call", jiratest.Fault{Nth: 1, Do: jiratest.LoseCall}, 0, "", true},
		{"503 once", jiratest.Fault{Nth: 1, Do: jiratest.Answer, Status: 503}, 0, "", true},
		{"429 once", jiratest.Fault{Nth: 1, Do: jiratest.Answer, Status: 429}, 0, "", true},
		{"503", jiratest.Fault{Do: jiratest.Answer, Status: 503}, 503, "503", false},
		{"429", jiratest.Fault{Do: jiratest.Answer, Status: 429, Header: http.Header{"Retry-After": {"100"}}}, 503, "until", false},
		{"401", jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: `{"message":"no"}`}, 400, "401", false},
		{"403", jiratest.Fault{Do: jiratest.Answer, Status: 403, Body: `{"message":"no"}`}, 400, "403", false},
		{"anonymous", jiratest.Fault{Do: jiratest.Anonymous}, 400, "refused", false},
		{"anonymous 204", jiratest.Fault{Do: jiratest.Answer, Status: 204, Header: http.Header{"X-Ausername": {"anonymous"}}}, 400, "anonymous", false},
		{"an HTML 404", jiratest.Fault{Do: jiratest.HTML404}, 502, "404", false},
		{"an HTML 200", jiratest.Fault{Do: jiratest.HTML200}, 502, "web page", false},
		{"a gateway's 404", jiratest.Fault{Do: jiratest.Answer, Status: 404, Header: http.Header{"Content-Type": {"text/plain"}}, Body: "404 page not found"}, 502, "404", false},
		{"a redirect", jiratest.Fault{Do: jiratest.Redirect, Target: other.URL()}, 502, "redirect", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := configured(t, jiratest.Options{})
			secret := e.issue("readonly", nil).Secret
			remove := func() {}
			if tt.fault.Do != "" {
				tt.fault.Method, tt.fault.Path = "DELETE", tokensAPI
				remove = e.jira.Fault(tt.fault)
			}
			resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, secret)
			if gone := len(e.alive()) == 0; gone != tt.gone {
				t.Errorf("gone is %v, want %v", gone, tt.gone)
			}
			if tt.status == 0 {
				if err != nil {
					t.Fatal(err)
				}
				e.nothingHeld()
				return
			}
			e.failed(tt.status, resp, err, tt.words)
			if r := e.record(); r.State != ledger.Owed || r.TokenID == "" {
				t.Errorf("record %+v is not owed", r)
			}
			resp, err = e.renew(secret, 0)
			e.failed(400, resp, err, "being revoked")

			remove()
			e.mount()                                                            // a gate that is shut for long stays so until then
			e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")}) // and a refused login
			e.revoke(secret)
			e.nothingHeld()
		})
	}
}

func TestATokenThatIsGoneAlreadyIsRevoked(t *testing.T) {
	for _, s := range []jiratest.Switches{{}, {DeleteUnknownStatus: 204}, {XAUserNameAbsent: true}, {XAUserNameAbsent: true, DeleteUnknownStatus: 204}} {
		e := configured(t, jiratest.Options{Switches: s})
		secret := e.issue("readonly", nil).Secret
		for _, tok := range e.jira.Tokens("ci-bot")[1:] {
			e.jira.Delete(tok.ID)
		}
		e.revoke(secret)
		e.revoke(secret) // and once more, as Vault may
		e.nothingHeld()
	}
}

// The lease alone is enough to end its token.
func TestARevokeWithoutARecord(t *testing.T) {
	e := configured(t, jiratest.Options{})
	one, two := e.issue("readonly", nil).Secret, e.issue("readonly", nil).Secret
	for _, id := range e.records("") {
		if err := e.ledger.Forget(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	e.revoke(one)

	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
	resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, two)
	e.failed(503, resp, err)
	if r := e.record(); r.State != ledger.Owed || r.TokenID == "" || r.Account != "ci-bot" || r.Expires == 0 {
		t.Errorf("record %+v", r)
	}
	remove()
	e.revoke(two)
	e.nothingHeld()
}

// TestAQueuedRevokeWithoutARecord: where the ledger has no record, Vault may have few tries
// left, for a debt of an earlier one was paid meanwhile. So the engine takes over at once.
func TestAQueuedRevokeWithoutARecord(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	if err := e.ledger.Forget(t.Context(), e.record().ID); err != nil {
		t.Fatal(err)
	}
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
	broken := func(string, string) error { return errors.New("storage is away") }
	e.storage.fail.Store(&broken)
	if err := e.revokeQueued(secret); err == nil {
		t.Error("Vault may drop a lease whose token nobody owes")
	}
	e.storage.fail.Store(nil)
	if err := e.revokeQueued(secret); err != nil {
		t.Error(err)
	}
	if r := e.record(); r.State != ledger.Owed {
		t.Errorf("record %+v", r)
	}
	if !e.logged("[WARN]", "Vault may drop the lease") || e.logged("token revoked") {
		t.Error("the log does not tell the truth")
	}
	remove()
	e.pass(time.Minute)
	e.settled()
	e.nothingHeld()
}

func TestARevokeWhoseForgettingFailsIsRepeated(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.storage.failing(ledgerPrefix)
	resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, secret)
	e.failed(500, resp, err, "storage is away")
	e.storage.failing("")
	e.revoke(secret)
	e.nothingHeld()
}

// A revoke has an end of its own, whatever deadline Vault gives it.
func TestARevokeHasItsOwnDeadline(t *testing.T) {
	e := configured(t, jiratest.Options{})
	seen := make(chan time.Duration, 1)
	handler := e.edge(func(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
		deadline, _ := ctx.Deadline()
		seen <- time.Until(deadline)
		return nil, nil
	})
	if _, err := handler(t.Context(), &logical.Request{}, &framework.FieldData{}); err != nil {
		t.Fatal(err)
	}
	if left := <-seen; left <= 0 || left > patience {
		t.Errorf("deadline in %v", left)
	}
}

func TestLeaseDataThatMakesNoSense(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	for field, value := range map[string]any{"id": "", "token_id": []string{"412"}, "account": nil} {
		broken := &logical.Secret{InternalData: map[string]any{}}
		for k, v := range secret.InternalData {
			broken.InternalData[k] = v
		}
		broken.InternalData[field] = value
		e.jira.ResetCalls()
		resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, broken)
		e.failed(500, resp, err, "the lease's data")
		if n := len(e.jira.Calls()); n != 0 {
			t.Errorf("%s: %d calls", field, n)
		}
	}
	// A revoke needs no terms, a renewal does.
	secret.InternalData["max_ttl"] = -1
	resp, err := e.renew(secret, 0)
	e.failed(500, resp, err, "terms")
	e.revoke(secret)
}

// Vault may repeat a revoke that it did not live to note, and meanwhile the
// account may be gone: it could only be deleted because the token was.
func TestARevokeRepeatedAfterItsAccountIsGone(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	e.revoke(secret)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
	e.revoke(secret)
	e.nothingHeld()
}
