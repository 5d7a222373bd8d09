package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

func (e *engine) listed(filters map[string]any) ([]string, string) {
	e.t.Helper()
	data := map[string]any{"list": "true"}
	for field, v := range filters {
		data[field] = v
	}
	resp := e.must(logical.ListOperation, "tokens/", data)
	ids, _ := resp.Data["keys"].([]string)
	next, _ := resp.Data["next"].(string)
	return ids, next
}

func id(lease *logical.Response) string { return lease.Secret.InternalData["id"].(string) }

// Who holds what, since when, and for what; and whether Jira has it.
func TestReadingTheLedger(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", map[string]any{"metadata": "nightly build of Straße"})
	got := e.read("tokens/" + id(lease))
	for field, want := range map[string]any{
		"id": id(lease), "state": "issued", "type": "pat", "kept": "", "role": "readonly", "account": "ci-bot", "username": "ci-bot",
		"token_id": lease.Data["token_id"], "token_name": lease.Data["token_name"], "expires_at": lease.Data["expires_at"], "owed_since": "",
		"entity_id": "entity-1", "display_name": "token-app", "remote_address": "192.0.2.7", "request_id": "req-creds/readonly", "metadata": "nightly build of Straße",
	} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	live := e.must(logical.ReadOperation, "tokens/"+id(lease), map[string]any{"live": true})
	if live.Data["in_jira"] != true || live.Data["last_accessed_at"] != "" || len(live.Warnings) != 0 {
		t.Errorf("live: %+v", live)
	}
	e.call(lease.Data["token"].(string))
	e.pass(2 * time.Minute)
	if at := e.must(logical.ReadOperation, "tokens/"+id(lease), map[string]any{"live": true}).Data["last_accessed_at"]; at == "" {
		t.Error("it was used, and Jira does not tell")
	}
	remove := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 500})
	live = e.must(logical.ReadOperation, "tokens/"+id(lease), map[string]any{"live": true})
	if live.Data["state"] != "issued" || !strings.Contains(strings.Join(live.Warnings, " "), "could not be asked") {
		t.Errorf("live with Jira down: %+v", live)
	}
	remove()
	e.sites.forget("ci-bot")
	if e.read("tokens/"+ledger.NewID()) != nil {
		t.Error("one that there is not is told")
	}
	for _, tt := range []struct {
		op   logical.Operation
		path string
		data map[string]any
		says string
	}{
		{logical.ReadOperation, "tokens/nonsense", nil, "no id of the ledger's"},
		{logical.ReadOperation, "tokens/" + strings.Repeat("x", 5000), nil, "no id of the ledger's"},
		{logical.UpdateOperation, "tokens/nonsense/revoke", nil, "no id of the ledger's"},
		{logical.UpdateOperation, "tokens/" + ledger.NewID() + "/revoke", nil, "no token of this id"},
		{logical.ListOperation, "tokens/", map[string]any{"rolle": "readonly"}, `no filter "rolle"`},
		{logical.ListOperation, "tokens/", map[string]any{"after": "nonsense"}, "after"},
		{logical.ListOperation, "tokens/", map[string]any{"limit": 0}, "limit must be 1 to 1000"},
		{logical.ListOperation, "tokens/", map[string]any{"limit": 1001}, "limit must be 1 to 1000"},
		{logical.ListOperation, "tokens/", map[string]any{"state": "alive"}, "state must be"},
		{logical.ListOperation, "tokens/", map[string]any{"unused_for": "0s"}, "unused_for must be more"},
		{logical.ReadOperation, "creds/readonly", map[string]any{"metadata": strings.Repeat("x", 1<<20)}, "512 is the most"},
		{logical.ReadOperation, "creds/readonly", map[string]any{"metadata": "a\nb"}, "control character"},
		{logical.ReadOperation, "creds/readonly", map[string]any{"metadata": map[string]any{"a": 1}}, ""},
	} {
		e.refuses(400, tt.op, tt.path, tt.data, tt.says)
	}
	e.revoke(lease.Secret)
}

// Every filter, and pages that meet all of it once.
func TestListingTheLedger(t *testing.T) {
	e := configured(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: 60}})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 60})
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/release", map[string]any{"accounts": "release-bot", "ttl": "1h", "max_ttl": "90h"})
	all := map[string]bool{}
	for range 25 {
		all[id(e.issue("readonly", nil))] = true
	}
	release := id(e.issue("release", nil))
	all[release] = true
	seen := map[string]bool{}
	for after, pages := "", 0; ; pages++ {
		ids, next := e.listed(map[string]any{"limit": 10, "after": after})
		for _, id := range ids {
			if seen[id] || !all[id] {
				t.Errorf("%s is listed twice, or is none of ours", id)
			}
			seen[id] = true
		}
		if after = next; next == "" {
			if pages != 2 || len(seen) != len(all) {
				t.Errorf("%d of %d in %d pages", len(seen), len(all), pages+1)
			}
			break
		}
	}
	for _, tt := range []struct {
		filters map[string]any
		n       int
	}{
		{map[string]any{}, 26},
		{map[string]any{"limit": 26}, 26},
		{map[string]any{"role": "release"}, 1},
		{map[string]any{"role": "nobody"}, 0},
		{map[string]any{"account": "ci-bot"}, 25},
		{map[string]any{"state": "issued", "account": "release-bot"}, 1},
		{map[string]any{"state": "owed"}, 0},
		{map[string]any{"entity_id": "entity-1", "limit": 1, "role": "release"}, 1},
		{map[string]any{"entity_id": "entity-2", "limit": 1}, 0},
		{map[string]any{"expiring_within": "72h"}, 25},
		{map[string]any{"expiring_within": "97h"}, 26},
		{map[string]any{"unused_for": "1h"}, 0},
	} {
		if ids, next := e.listed(tt.filters); len(ids) != tt.n || next != "" {
			t.Errorf("%v: %d, want %d; then %q", tt.filters, len(ids), tt.n, next)
		}
	}
	e.pass(30 * time.Minute)
	if ids, _ := e.listed(map[string]any{"unused_for": "20m"}); len(ids) != 26 {
		t.Errorf("%d are unused", len(ids))
	}
	e.pass(time.Hour)
	e.settled()
	if ids, _ := e.listed(nil); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
	e.nothingHeld()
}

// Whoever looks for few among very many gets them bit by bit.
func TestListingVeryMany(t *testing.T) {
	e := configured(t, jiratest.Options{})
	// Past the engine: what is listed is the ledger alone.
	put := func(id, entity string) {
		r := fmt.Sprintf(`{"id":%q,"state":"issued","name":"vault-aaaaaa-%s-x","token_id":"1","account":"ci-bot","role":"readonly","reader":{"entity_id":%q},"intended_at":1,"issued_at":1,"lease_end":%d}`,
			id, id, entity, time.Now().Add(time.Hour).UnixMilli())
		if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: ledgerPrefix + id[:2] + "/" + id, Value: []byte(r)}); err != nil {
			t.Fatal(err)
		}
	}
	wanted := []string{"baaaaaaaaaaaaaaa", "z777777777777777"}
	for i := range mostLooked + 100 {
		put(fmt.Sprintf("c%15s", strings.NewReplacer("0", "a", "1", "b", "8", "c", "9", "d").Replace(fmt.Sprintf("%015d", i))), "somebody")
	}
	for _, id := range wanted {
		put(id, "entity-x")
	}
	e.mount()
	ids, next := e.listed(map[string]any{"entity_id": "entity-x"})
	if !slices.Equal(ids, wanted[:1]) || next == "" {
		t.Fatalf("%v, then %q", ids, next)
	}
	ids, next = e.listed(map[string]any{"entity_id": "entity-x", "after": next})
	if !slices.Equal(ids, wanted[1:]) || next != "" {
		t.Errorf("%v, then %q", ids, next)
	}
	e.refuses(400, logical.ListOperation, "tokens/", map[string]any{"entity_id": "nobody"}, "go on with after=c", "narrow it down")
	ids, next = e.listed(map[string]any{"entity_id": "somebody", "limit": 1000})
	if len(ids) != 1000 || next == "" {
		t.Errorf("%d, then %q", len(ids), next)
	}
}

// A token is ended before its lease, which then renews no more, and ends without a
// call.
func TestRevokingAToken(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.must(logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	if len(e.alive()) != 0 || e.read("tokens/" + id(lease))["state"] != "ended" || e.ledger.Held("ci-bot") != 0 {
		t.Error("it is not ended, or takes a place")
	}
	resp, err := e.renew(lease.Secret, 0)
	e.failed(400, resp, err, "being revoked")
	e.must(logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	e.mount() // it is stored
	e.jira.ResetCalls()
	if err := e.revokeQueued(lease.Secret); err != nil || len(e.jira.Calls()) != 0 {
		t.Errorf("%v, with %d calls", err, len(e.jira.Calls()))
	}
	e.nothingHeld()

	// One whose lease nobody ends is forgotten when that is over.
	e.must(logical.UpdateOperation, "tokens/"+id(e.issue("readonly", nil))+"/revoke", nil)
	e.pass(2 * time.Hour)
	e.jira.ResetCalls()
	e.settled()
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	e.nothingHeld()

	// Jira is away: it is owed, and the worker's.
	lease = e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 500})
	resp, err = e.request(t.Context(), logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	e.failed(503, resp, err, "goes on trying")
	if state := e.read("tokens/" + id(lease))["state"]; state != "owed" {
		t.Errorf("it is %v", state)
	}
	remove()
	e.sites.forget("ci-bot")
	e.pass(time.Minute)
	e.settled()
	if len(e.alive()) != 0 || e.read("tokens/" + id(lease))["state"] != "ended" {
		t.Error("its lease outlasts its record")
	}
	e.jira.ResetCalls()
	if err := e.revokeQueued(lease.Secret); err != nil || len(e.jira.Calls()) != 0 {
		t.Errorf("%v, with %d calls", err, len(e.jira.Calls()))
	}
	e.nothingHeld()

	// The same, and its account is deleted by force: nobody is left to wait for its lease.
	lease = e.issue("readonly", nil)
	remove = e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 500})
	_, _ = e.request(t.Context(), logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	remove()
	e.pass(time.Minute)
	e.settled()
	if err := e.revokeQueued(lease.Secret); err != nil {
		t.Error(err)
	}
	e.nothingHeld()
	if left, err := e.storage.List(t.Context(), retiredPrefix); err != nil || len(left) != 0 {
		t.Errorf("kept, sealed: %v, %v", left, err)
	}
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_ttl": "24h"})

	// It stands in nobody's way.
	e.must(logical.UpdateOperation, "tokens/"+id(e.issue("readonly", nil))+"/revoke", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
	e.nothingHeld()
}

// The worker, which a debt wakes, leaves to a revoke what that is about to end.
func TestRevokingATokenAlone(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.works()
	lease := e.issue("readonly", nil)
	e.jira.ResetCalls()
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Slow, Delay: 100 * time.Millisecond})
	e.must(logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	if calls := e.jira.Calls(); len(calls) != 1 {
		t.Errorf("it took %d calls: %v", len(calls), calls)
	}
	if state := e.read("tokens/" + id(lease))["state"]; state != "ended" {
		t.Errorf("it is %v", state)
	}
	if err := e.revokeQueued(lease.Secret); err != nil {
		t.Error(err)
	}
	e.nothingHeld()
}

// What is not a lease's, and what nobody but its holder has, is not ended so.
func TestTokensThatAreNotRevokedSo(t *testing.T) {
	e := configured(t, jiratest.Options{Version: "11.0.0"})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	e.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret})
	e.write("roles/report", map[string]any{"credential_type": "oauth2", "accounts": "reporting"})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.rotate("rotate-account/ci-bot")
	lost := e.lostMint()
	e.ledger.Over(lost.ID)
	access := e.issue("report", nil)
	says := map[string]string{"own": "rotate-account", "static": "rotate-role"}
	ids, _ := e.listed(nil)
	for _, one := range ids {
		got := e.read("tokens/" + one)
		want := says[fmt.Sprint(got["kept"])]
		switch {
		case got["type"] == "oauth2":
			want = "revoke its lease"
			if live := e.must(logical.ReadOperation, "tokens/"+one, map[string]any{"live": true}); len(live.Warnings) != 1 {
				t.Errorf("live: %+v", live)
			}
		case got["state"] == "intended":
			want = "nobody holds it"
		}
		e.refuses(400, logical.UpdateOperation, "tokens/"+one+"/revoke", nil, want)
	}
	if len(ids) != 4 {
		t.Errorf("listed %d", len(ids))
	}
	if err := e.revokeWith(access); err != nil {
		t.Fatal(err)
	}
	e.settled()
	e.must(logical.DeleteOperation, "roles/report", nil)
	e.must(logical.DeleteOperation, "accounts/reporting", nil)
	e.dismantled()
}

// All that Jira has of an account, whoever made it.
func TestTheTokensOfAnAccount(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Mint("ci-bot", "for ever", 0)
	e.write("config", map[string]any{"other_mount_ids": []string{"zzzzzz"}})
	theirs, _ := e.jira.Mint("ci-bot", ledger.Name("zzzzzz", ledger.NewID(), "theirs"), 90)
	lease := e.issue("readonly", nil)
	orphan := e.issue("readonly", nil)
	if err := e.ledger.Forget(t.Context(), id(orphan)); err != nil {
		t.Fatal(err)
	}
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.rotate("rotate-account/ci-bot")
	count := func(filters map[string]any) string {
		return fmt.Sprint(e.must(logical.ReadOperation, "accounts/ci-bot/tokens", filters).Data["counts"])
	}
	if got := count(nil); got != "map[eternal:1 expiring:2 lease:1 orphan:1 other_mount:1 own:2 sibling:1 static:1 unused:0]" {
		t.Error(got)
	}
	if got := count(map[string]any{"expiring_within": "91d"}); !strings.Contains(got, "expiring:4") {
		t.Error(got)
	}
	got := e.read("accounts/ci-bot/tokens")["tokens"].([]map[string]any)
	for _, one := range got {
		if one["id"] == id(lease) && (one["class"] != "lease" || one["state"] != "issued" || one["eternal"] != false) {
			t.Errorf("the lease's is %v", one)
		}
	}
	e.refuses(400, logical.ReadOperation, "accounts/ci-bot/tokens", map[string]any{"unused_for": "0s"}, "more than zero")
	e.refuses(400, logical.ReadOperation, "accounts/nobody/tokens", nil, "no account")
	e.revoke(lease.Secret)
	e.tidied(map[string]any{"dry_run": false})
	e.jira.Delete(theirs.ID)
	e.pass(time.Hour)
	e.tended()
	e.dismantled()
}

// What looks after the tokens of an account that was deleted by force is kept for no
// lease's sake: neither if a token is revoked early after the delete nor if both meet.
func TestRevokingATokenOfADeletedAccount(t *testing.T) {
	gone := func(e *engine, lease *logical.Response) {
		e.t.Helper()
		e.jira.ClearFaults()
		e.pass(time.Minute)
		e.settled()
		_ = e.periodic(e.t.Context(), &logical.Request{Storage: e.storage})
		if left, err := e.storage.List(e.t.Context(), retiredPrefix); err != nil || len(left) != 0 {
			e.t.Errorf("kept, sealed, though nothing is owed: %v, %v", left, err)
		}
		if err := e.revokeQueued(lease.Secret); err != nil {
			e.t.Error(err)
		}
		e.nothingHeld()
	}
	unwilling := jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`}
	t.Run("after", func(t *testing.T) {
		e := configured(t, jiratest.Options{})
		lease := e.issue("readonly", nil)
		remove := e.jira.Fault(unwilling)
		e.must(logical.DeleteOperation, "roles/readonly", nil)
		e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
		e.refuses(400, logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil, "not now")
		remove()
		gone(e, lease)
	})
	t.Run("meanwhile", func(t *testing.T) {
		e := configured(t, jiratest.Options{})
		lease := e.issue("readonly", nil)
		e.must(logical.DeleteOperation, "roles/readonly", nil)
		e.jira.ResetCalls()
		e.jira.Fault(jiratest.Fault{Method: "DELETE", Nth: 1, Do: jiratest.Slow, Delay: 200 * time.Millisecond})
		unwilling.Nth = 2
		e.jira.Fault(unwilling)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = e.request(t.Context(), logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
		}()
		if err := e.jira.WaitCalls(t.Context(), "DELETE", "", 1); err != nil {
			t.Fatal(err)
		}
		e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
		<-done
		gone(e, lease)
	})
}

// A config, too, takes with it what was ended before.
func TestEndedTokensGoWithTheConfig(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.must(logical.UpdateOperation, "tokens/"+id(e.issue("readonly", nil))+"/revoke", nil)
	e.must(logical.DeleteOperation, "config", nil)
	e.nothingHeld()
}

// A token that is ended and alive all the same, as after Jira was restored from a backup,
// is an orphan; of an exclusive account it is a stranger.
func TestATokenThatCameBack(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Nth: 1, Do: jiratest.Answer, Status: 204, Header: map[string][]string{"X-Ausername": {"ci-bot"}}})
	e.must(logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	e.pass(5 * time.Minute)
	if s := e.tidied(map[string]any{"dry_run": false}); s["orphan_deleted_count"] != 1 {
		t.Errorf("found %v", s["orphan_count"])
	}
	e.revoke(lease.Secret)
	e.nothingHeld()

	x := exclusive(t, jiratest.Options{})
	lease = x.issue("readonly", nil)
	other := x.issue("readonly", nil)
	x.jira.Fault(jiratest.Fault{Method: "DELETE", Nth: 1, Do: jiratest.Answer, Status: 204, Header: map[string][]string{"X-Ausername": {"sole-bot"}}})
	_, _ = x.request(t.Context(), logical.UpdateOperation, "tokens/"+id(lease)+"/revoke", nil)
	x.revoke(other.Secret)
	x.pass(5 * time.Minute)
	x.settled()
	x.revoke(lease.Secret)
	x.nothingHeld()
}

// What cannot be read is no orphan.
func TestTheTokensOfAnAccountWhileStorageFails(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	stored := e.storage.Storage
	e.storage.Storage = unreadable{stored}
	resp, err := e.request(t.Context(), logical.ReadOperation, "accounts/ci-bot/tokens", nil)
	e.failed(500, resp, err, "storage is away")
	e.storage.Storage = stored
	key := ledgerPrefix + id(lease)[:2] + "/" + id(lease)
	record, err := stored.Get(t.Context(), key)
	if err != nil || stored.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte("{")}) != nil {
		t.Fatal(err)
	}
	if counts := fmt.Sprint(e.read("accounts/ci-bot/tokens")["counts"]); !strings.Contains(counts, "orphan:0") {
		t.Errorf("a damaged record makes %s", counts)
	}
	if err := stored.Put(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	e.revoke(lease.Secret)
}
