package backend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// alive tells whether Jira has a live token of that name and id.
func (e *engine) has(id int64, name string) bool {
	for _, t := range e.jira.Tokens("") {
		if t.ID == id && t.Name == name && t.Live {
			return true
		}
	}
	return false
}

// TestAJiraThatWasRestored: it gives ids out a second time. The end of a lease from before
// the restore deletes neither what another lease holds nor what a person has, whoever got
// its id, and a read that shows the restore hands out nothing that could be mistaken.
func TestAJiraThatWasRestored(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("with another node since %v", restart), func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			backup := e.jira.Backup()
			first, second, third := e.issue("readonly", nil), e.issue("readonly", nil), e.issue("readonly", nil)
			e.jira.Restore(backup)
			persons, _ := e.jira.Mint("ci-bot", "made by a person", 90)
			if fmt.Sprint(persons.ID) != first.Data["token_id"] {
				t.Fatalf("the person's token is %d, and the first lease's was %v", persons.ID, first.Data["token_id"])
			}
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
			e.failed(502, resp, err, "the id of another", "restore from a backup")
			if !e.logged("[WARN]", "Jira gives out ids of tokens again") {
				t.Error("the log does not tell of the restore")
			}
			for range 2 { // as Vault's own client does
				if resp, err = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatalf("the restore is known, and no read works: %v", err)
			}
			again := resp
			if again.Data["token_id"] == third.Data["token_id"] {
				t.Fatal("the id of another lease's token is handed out")
			}
			other, _ := e.jira.Mint("ci-bot", "made by another person", 90)
			if restart {
				e.mount()
			}
			e.pass(10 * time.Minute) // no list lags
			for _, lease := range []*logical.Response{first, second, third} {
				e.revoke(lease.Secret)
			}
			if !e.has(persons.ID, "made by a person") || !e.has(other.ID, "made by another person") {
				t.Error("a person's token was deleted")
			}
			if e.call(again.Data["token"].(string)) != http.StatusOK {
				t.Error("another lease's token was deleted")
			}
			if !e.logged("[WARN]", "given the id of a token to another one", "other_name=\"made by a person\"") {
				t.Error("the log does not tell of the id that is another's")
			}
			e.revoke(again.Secret)
			e.nothingHeld()
		})
	}
}

// TestAListShowsARestore: others have made so many tokens since the restore that no mint of the
// engine's shows it. A tidy does, for the id of a lease's token is that of a younger one.
func TestAListShowsARestore(t *testing.T) {
	e := configured(t, jiratest.Options{})
	backup := e.jira.Backup()
	lease, lost := e.issue("readonly", nil), e.issue("readonly", nil)
	e.pass(3 * listLag)
	e.jira.Restore(backup)
	persons, _ := e.jira.Mint("ci-bot", "made by a person", 90)
	e.jira.Mint("ci-bot", "made by a person, too", 90)
	if fmt.Sprint(persons.ID) != lease.Data["token_id"] {
		t.Fatalf("the person's token is %d, and the lease's was %v", persons.ID, lease.Data["token_id"])
	}
	kept := e.issue("readonly", nil)
	if e.logged("[WARN]", "Jira gives out ids of tokens again") {
		t.Fatal("the mint shows it, which this test is not about")
	}
	if report := e.tidied(nil); report["lost_count"] != 2 {
		t.Errorf("tidy finds %v", report)
	}
	if !e.logged("[WARN]", "Jira gives out ids of tokens again", "made by a person") {
		t.Error("the log does not tell of the restore")
	}
	e.revoke(lease.Secret)
	e.revoke(lost.Secret)
	if !e.has(persons.ID, "made by a person") {
		t.Error("a person's token was deleted")
	}
	e.revoke(kept.Secret)
	e.nothingHeld()
}

// TestARenamedTokenShowsNoRestore: it was made when its record was.
func TestARenamedTokenShowsNoRestore(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.pass(3 * listLag)
	e.jira.Rename(jiraID(t, lease), "renamed by an administrator")
	e.tidied(nil)
	if e.logged("[WARN]", "Jira gives out ids of tokens again") {
		t.Error("a name alone shows a restore")
	}
	e.revoke(lease.Secret)
	if e.call(lease.Data["token"].(string)) == http.StatusOK {
		t.Error("the token is alive")
	}
}

// TestAnIDThatIsAnotherUsers: before anything shows the restore, Jira denies the end of a
// lease's token, for the id is that of another user's. The lease ends all the same, and the
// other's token does not.
func TestAnIDThatIsAnotherUsers(t *testing.T) {
	for _, status := range []int{403, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			e := configured(t, jiratest.Options{Switches: jiratest.Switches{DeleteForeignStatus: status}})
			backup := e.jira.Backup()
			waits, queued := e.issue("readonly", nil), e.issue("readonly", nil)
			e.jira.Restore(backup)
			var persons []jiratest.Token
			for range 2 {
				made, _ := e.jira.Mint("release-bot", "made by a person", 90)
				persons = append(persons, made)
			}
			if fmt.Sprint(persons[0].ID) != waits.Data["token_id"] {
				t.Fatalf("the person's token is %d, and the lease's was %v", persons[0].ID, waits.Data["token_id"])
			}
			if _, err := e.leaseRequest(t.Context(), logical.RevokeOperation, waits.Secret); err == nil {
				t.Error("gone while lists may not show it yet")
			}
			e.jira.Mint("ci-bot", waits.Data["token_name"].(string), 90) // made twice, and the other one is left
			e.pass(2 * listLag)
			e.revoke(waits.Secret)
			e.jira.Fault(jiratest.Fault{
				Method: "GET", Path: tokensAPI + "/", Times: 1, Do: jiratest.Answer, Status: status, Body: `{"message":"it is not yours"}`,
				Header: http.Header{"X-AUSERNAME": {"ci-bot"}},
			})
			if err := e.revokeQueued(queued.Secret); err != nil {
				t.Error(err)
			}
			if !e.logged("[WARN]", "does not have it under its name", queued.Data["token_name"].(string)) {
				t.Error("the log does not tell")
			}
			for _, one := range persons {
				if !e.has(one.ID, "made by a person") {
					t.Error("a person's token was deleted")
				}
			}
			e.nothingHeld()
		})
	}
}

// TestTheIDOfALostMintThatIsAnotherUsers: the same of a token that never came to a lease.
func TestTheIDOfALostMintThatIsAnotherUsers(t *testing.T) {
	e := configured(t, jiratest.Options{})
	backup := e.jira.Backup()
	lost := e.lostMint()
	e.ledger.Over(lost.ID)
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: http.StatusServiceUnavailable})
	e.settleAccounts(t.Context(), true, "ci-bot")
	e.jira.ClearFaults()
	e.jira.Restore(backup)
	persons, _ := e.jira.Mint("release-bot", "made by a person", 90)
	e.pass(2 * listLag)
	e.settled()
	if !e.has(persons.ID, "made by a person") {
		t.Error("a person's token was deleted")
	}
	if !e.logged("[WARN]", "counts as gone", fmt.Sprint("token_id=", persons.ID), lost.Name) {
		t.Error("the log does not tell")
	}
	e.nothingHeld()
}

// TestALostMintFromBeforeARestore: a token that was found after a lost answer is there no more
// when its end is tried again, for Jira was restored meanwhile. It is gone, once lists do not
// lag any more, and until then Jira is not asked all the time.
func TestALostMintFromBeforeARestore(t *testing.T) {
	e := configured(t, jiratest.Options{})
	kept := e.issue("readonly", nil)
	backup := e.jira.Backup()
	other := e.issue("readonly", nil)
	lost := e.lostMint()
	e.ledger.Over(lost.ID)
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: http.StatusServiceUnavailable})
	e.settleAccounts(t.Context(), true, "ci-bot")
	e.jira.ClearFaults()
	e.jira.Restore(backup)
	if _, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil); err == nil {
		t.Fatal("the id of another lease's token is handed out")
	}
	e.jira.ResetCalls()
	for range 20 { // turns of the worker, at one moment
		e.workOnce(t.Context())
	}
	if n := e.jira.Count("GET", ""); n > 10 {
		t.Errorf("Jira was asked %d times", n)
	}
	e.pass(2 * listLag)
	e.settled()
	if r, err := e.ledger.Read(t.Context(), lost.ID); err == nil {
		t.Errorf("it is %s", r.State)
	}
	e.revoke(other.Secret)
	e.revoke(kept.Secret)
	e.nothingHeld()
}

// TestAnEndThatJiraDenies of a token that is there proves nothing.
func TestAnEndThatJiraDenies(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.pass(2 * listLag)
	e.jira.Rename(jiraID(t, lease), "renamed by an administrator")
	for name, faults := range map[string][]jiratest.Fault{
		"listed": {{Method: "DELETE", Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"not now"}`}},
		"no list": {
			{Method: "DELETE", Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"not now"}`},
			{Method: "GET", Path: tokensAPI, Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"not now"}`},
		},
		"another's list": {
			{Method: "DELETE", Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"not now"}`},
			{Method: "GET", Path: tokensAPI, Do: jiratest.Answer, Status: http.StatusOK, Body: `[]`},
		},
	} {
		for _, f := range faults {
			e.jira.Fault(f)
		}
		_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
		e.failed(400, nil, err, "not now")
		if e.call(lease.Data["token"].(string)) != http.StatusOK {
			t.Errorf("%s: the token is dead", name)
		}
		e.jira.ClearFaults()
	}
	e.revoke(lease.Secret)
	e.nothingHeld()
}

// TestALowerIDShowsARestore: a person may get the id of a lease's token before anybody reads
// another, and then no id of the ledger is given out again.
func TestALowerIDShowsARestore(t *testing.T) {
	e := configured(t, jiratest.Options{})
	backup := e.jira.Backup()
	e.jira.Mint("ci-bot", "made by hand", 90)
	lease := e.issue("readonly", nil)
	e.jira.Restore(backup)
	again := e.issue("readonly", nil) // below the first
	persons, _ := e.jira.Mint("ci-bot", "made by a person", 90)
	if fmt.Sprint(persons.ID) != lease.Data["token_id"] {
		t.Fatalf("the person's token is %d, and the lease's was %v", persons.ID, lease.Data["token_id"])
	}
	e.pass(10 * time.Minute)
	e.revoke(lease.Secret)
	if !e.has(persons.ID, "made by a person") {
		t.Error("a person's token was deleted")
	}
	e.revoke(again.Secret)
	e.nothingHeld()
}

// TestATokenFromBeforeARestoreThatIsThere: what is in the backup is ended as ever, for its
// name is there, and so is what the worker finds to be over.
func TestATokenFromBeforeARestoreThatIsThere(t *testing.T) {
	e := configured(t, jiratest.Options{})
	held, forgotten := e.issue("readonly", nil), e.issue("readonly", map[string]any{"ttl": "5m"})
	backup := e.jira.Backup()
	e.jira.Mint("ci-bot", "made by hand", 90)
	e.issue("readonly", nil)
	e.jira.Restore(backup)
	e.issue("readonly", nil) // its id is not above the last one's
	if n := len(e.alive()); n != 3 {
		t.Fatalf("alive: %v", e.alive())
	}
	e.revoke(held.Secret)
	e.pass(6 * time.Minute)
	e.settled() // of which Vault has lost the lease
	if e.call(forgotten.Data["token"].(string)) == http.StatusOK || e.call(held.Data["token"].(string)) == http.StatusOK {
		t.Errorf("alive: %v", e.alive())
	}
	e.pass(2 * time.Hour)
	e.settled()
	e.nothingHeld()
}

// TestAListThatLagsProvesNoAbsence: a token that was made a moment before a restore was
// found out is ended, even where a clock that is wrong says that lists must have it by now.
func TestAListThatLagsProvesNoAbsence(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour} {
		e := configured(t, jiratest.Options{Switches: jiratest.Switches{ListLag: time.Minute}})
		backup := e.jira.Backup()
		for range 2 {
			e.revoke(e.issue("readonly", nil).Secret)
		}
		e.jira.Restore(backup)
		lease := e.issue("readonly", nil)
		e.clock.Store(int64(ahead))
		e.revoke(lease.Secret)
		e.nothingHeld()
	}
}

// TestALeaseFromAnotherSite: an account and the config were deleted by force, and others of
// the same names written for another Jira. The end of an old lease touches nothing there.
func TestALeaseFromAnotherSite(t *testing.T) {
	for _, age := range []time.Duration{0, 10 * time.Minute} {
		t.Run("made before "+age.String(), func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			lease := e.issue("readonly", nil)
			e.must(logical.DeleteOperation, "roles/readonly", nil)
			e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
			e.must(logical.DeleteOperation, "config", map[string]any{"force": true})
			e.nothingHeld()

			other := jiratest.New(t, jiratest.Options{})
			other.AddUser(jiratest.User{Name: "ci-bot"})
			_, secret := other.Mint("ci-bot", "made by hand", 90)
			persons, _ := other.Mint("ci-bot", "made by a person", 90)
			if fmt.Sprint(persons.ID) != lease.Data["token_id"] {
				t.Fatalf("the person's token is %d, and the lease's was %v", persons.ID, lease.Data["token_id"])
			}
			e.write("config", map[string]any{"url": other.URL()})
			e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": secret})
			e.pass(age)
			if age < listLag { // by what is listed there nothing is proven
				_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
				e.failed(502, nil, err, "made a moment ago")
				e.pass(listLag)
			}
			e.revoke(lease.Secret)
			if n := len(other.Tokens("ci-bot")); n != 2 || other.Count("DELETE", "") != 0 {
				t.Errorf("%d tokens are left at the other site, and %d deletes came", n, other.Count("DELETE", ""))
			}
			if !e.logged("[WARN]", "counts as gone", lease.Data["token_name"].(string)) {
				t.Error("the log does not tell")
			}
		})
	}
}

// TestALeaseWithoutARecord: storage has lost it. Its token is ended by its name, and the id
// alone ends nothing.
func TestALeaseWithoutARecord(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease, gone := e.issue("readonly", nil), e.issue("readonly", nil)
	for _, l := range []*logical.Response{lease, gone} {
		if err := e.ledger.Forget(t.Context(), id(l)); err != nil {
			t.Fatal(err)
		}
	}
	e.jira.ResetCalls()
	e.revoke(lease.Secret)
	if e.call(lease.Data["token"].(string)) == http.StatusOK {
		t.Error("the token is alive")
	}
	// Its id is another's by now.
	e.pass(10 * time.Minute)
	data := map[string]any{}
	for key, value := range gone.Secret.InternalData {
		data[key] = value
	}
	persons, _ := e.jira.Mint("ci-bot", "made by a person", 90)
	data["token_id"] = fmt.Sprint(persons.ID)
	data["token_name"] = ledger.Name("k3xm2a", ledger.NewID(), "readonly")
	e.revoke(&logical.Secret{InternalData: data, LeaseOptions: gone.Secret.LeaseOptions})
	if !e.has(persons.ID, "made by a person") {
		t.Error("a person's token was deleted")
	}
	e.revoke(gone.Secret)
	e.nothingHeld()
}

// TestAUserOfARestoredJira: keys of users are given out again, too. A person who has the key
// of a lease's user is not taken for them under another name, and their token is left alone.
func TestAUserOfARestoredJira(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	backup := e.jira.Backup()
	lease := e.issue("deploy", nil)
	e.jira.Restore(backup)
	e.jira.AddUser(jiratest.User{Name: "newcomer"})
	persons, _ := e.jira.Mint("newcomer", "made by a person", 90)
	if fmt.Sprint(persons.ID) != lease.Data["token_id"] {
		t.Fatalf("the person's token is %d, and the lease's was %v", persons.ID, lease.Data["token_id"])
	}
	e.revoke(lease.Secret)
	if !e.has(persons.ID, "made by a person") {
		t.Error("a person's token was deleted")
	}
	for _, u := range e.jira.Users() {
		if u.Name == "newcomer" && u.Inactive {
			t.Error("a person was deactivated")
		}
	}
	e.pass(time.Hour)
	e.settled()
	for _, name := range e.people() {
		if strings.HasPrefix(name, "vault-") {
			t.Errorf("left: %s", name)
		}
	}
}
