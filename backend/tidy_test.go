package backend

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// tidied runs a tidy and returns what it found.
func (e *engine) tidied(options map[string]any) map[string]any {
	e.t.Helper()
	e.write("tidy", options)
	return e.tidyEnded()
}

func (e *engine) tidyEnded() map[string]any {
	e.t.Helper()
	e.eventually(func() bool {
		e.tidying.mu.Lock()
		defer e.tidying.mu.Unlock()
		return e.tidying.status == nil
	})
	return e.read("tidy-status")
}

// found are the names of the tokens that a tidy lists as kind.
func found(status map[string]any, kind string) []string {
	var names []string
	for _, f := range status[kind].([]map[string]any) {
		names = append(names, f["token_name"].(string))
	}
	slices.Sort(names)
	return names
}

// restored mounts the engine on what storage held when it was taken: an older
// snapshot.
func (e *engine) restored(snapshot map[string][]byte) {
	e.t.Helper()
	keys, err := logical.CollectKeys(e.t.Context(), e.storage)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, key := range keys {
		if err := e.storage.Delete(e.t.Context(), key); err != nil {
			e.t.Fatal(err)
		}
	}
	for key, value := range snapshot {
		if err := e.storage.Put(e.t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
			e.t.Fatal(err)
		}
	}
	e.mount()
}

func (e *engine) snapshot() map[string][]byte {
	e.t.Helper()
	keys, err := logical.CollectKeys(e.t.Context(), e.storage)
	if err != nil {
		e.t.Fatal(err)
	}
	taken := map[string][]byte{}
	for _, key := range keys {
		entry, err := e.storage.Get(e.t.Context(), key)
		if err != nil || entry == nil {
			e.t.Fatal(key, err)
		}
		taken[key] = entry.Value
	}
	return taken
}

// All four kinds at once, after an older snapshot was restored.
func TestTidyAfterASnapshotWasRestored(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("config", map[string]any{"other_mount_ids": "aaaaaa"})
	kept := e.issue("readonly", nil)
	gone := e.issue("readonly", nil)
	taken := e.snapshot()
	orphan := e.issue("readonly", nil)
	e.jira.Delete(jiraID(t, gone))
	e.jira.Mint("ci-bot", "vault-aaaaaa-bbbbbbbbbbbbbbbb-other", 1)
	e.jira.Mint("ci-bot", "by hand", 1)
	e.restored(taken)
	e.pass(3 * time.Minute)

	name := func(r *logical.Response) string { return r.Data["token_name"].(string) }
	check := func(s map[string]any, done int) {
		t.Helper()
		for kind, want := range map[string][]string{
			"orphans": {name(orphan)}, "lost": {name(gone)},
			"siblings": {"by hand"}, "other_mounts": {"vault-aaaaaa-bbbbbbbbbbbbbbbb-other"},
		} {
			if have := found(s, kind); !slices.Equal(have, want) {
				t.Errorf("%s: %v, want %v", kind, have, want)
			}
		}
		if s["state"] != tidyFinished || s["orphan_count"] != 1 || s["lost_count"] != 1 || s["sibling_count"] != 1 || s["other_mount_count"] != 1 ||
			s["orphan_deleted_count"] != done || s["lost_forgotten_count"] != done || s["accounts_done"] != 1 || s["token_count"] != 5 {
			t.Errorf("status %v", s)
		}
	}
	ledgerOf := func() string {
		_, ledger, _ := strings.Cut(e.storage.dump(t), ledgerPrefix)
		ledger, _, _ = strings.Cut(ledger, rolesPrefix)
		return ledger
	}
	before := ledgerOf()
	check(e.tidied(nil), 0)
	if names := e.alive(); len(names) != 3 { // with the other mount's
		t.Errorf("a dry run has ended something: alive are %v", names)
	}
	if after := ledgerOf(); after != before || len(before) == 0 {
		t.Errorf("a dry run has changed the ledger: %s, was %s", after, before)
	}
	check(e.tidied(map[string]any{"dry_run": false}), 1)
	if names := e.alive(); slices.Contains(names, name(orphan)) || !slices.Contains(names, name(kept)) || len(names) != 2 {
		t.Errorf("alive are %v", names)
	}

	// The lease of what was forgotten renews no more, and ends like any other.
	resp, err := e.renew(gone.Secret, 0)
	e.failed(400, resp, err, "read a new one")
	for _, lease := range []*logical.Response{gone, kept, orphan} {
		e.revoke(lease.Secret)
	}
	again := e.tidied(map[string]any{"dry_run": false})
	if again["orphan_count"] != 0 || again["lost_count"] != 0 {
		t.Errorf("found again: %v", again)
	}
	if keys, _ := logical.CollectKeysWithPrefix(t.Context(), e.storage, ledgerPrefix); len(keys) > 0 {
		t.Errorf("in the ledger: %v", keys)
	}
	e.jira.Leave() // the other mount's
}

func jiraID(t *testing.T, r *logical.Response) int64 {
	t.Helper()
	var id int64
	if _, err := fmt.Sscan(r.Data["token_id"].(string), &id); err != nil {
		t.Fatal(err)
	}
	return id
}

// A second token of a leased one's name is an orphan; one of a mint that is
// being settled is not.
func TestTidyOfDoubles(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.Twice})
	lease := e.issue("readonly", nil)
	e.ledger.Over(e.lostMint().ID)
	s := e.tidied(map[string]any{"dry_run": false, "accounts": "ci-bot"})
	if s["orphan_count"] != 1 || s["orphan_deleted_count"] != 1 || s["lost_count"] != 0 {
		t.Errorf("status %v", s)
	}
	if names := e.alive(); len(names) != 2 || !slices.Contains(names, lease.Data["token_name"].(string)) {
		t.Errorf("alive are %v", names)
	}
	if status := e.call(lease.Data["token"].(string)); status != 200 {
		t.Errorf("the lease's token gives %d", status)
	}
	e.settled()
	e.revoke(lease.Secret)
	e.nothingHeld()
}

// An automatic tidy leaves alone what may be another Vault's.
func TestAnAutomaticTidy(t *testing.T) {
	e := configured(t, jiratest.Options{})
	first := e.issue("readonly", nil)
	taken := e.snapshot()
	old := e.issue("readonly", nil)
	e.pass(time.Minute)
	e.restored(taken)
	e.write("config/auto-tidy", map[string]any{"enabled": true, "interval_duration": "1h", "dry_run": false})
	e.settled()
	s := e.tidyEnded()
	if s["automatic"] != true || s["state"] != tidyFinished || s["orphan_count"] != 1 || s["orphan_deleted_count"] != 0 {
		t.Fatalf("status %v", s)
	}
	if note := s["orphans"].([]map[string]any)[0]["note"]; !strings.Contains(note.(string), "newer than the ledger") {
		t.Errorf("note %q", note)
	}
	// It is not due again before its time.
	started := s["time_started"]
	e.pass(30 * time.Minute)
	e.settled()
	if s := e.tidyEnded(); s["time_started"] != started {
		t.Error("it ran again after half its interval")
	}
	// Once the ledger has a newer record, the orphan is none of a copy's.
	second := e.issue("readonly", nil)
	e.mount() // it remembers across restarts
	e.pass(29 * time.Minute)
	e.settled()
	if s := e.tidyEnded(); s["time_started"] != started {
		t.Error("a restart made it forget when it ran")
	}
	e.pass(2 * time.Minute)
	e.settled()
	if s := e.tidyEnded(); s["orphan_deleted_count"] != 1 || s["last_auto_tidy_started"] == started {
		t.Errorf("status %v", s)
	}
	for _, lease := range []*logical.Response{first, old, second} {
		e.revoke(lease.Secret)
	}
	e.write("config/auto-tidy", map[string]any{"pause_duration": "1s"}) // and nothing else
	e.must(logical.PatchOperation, "config/auto-tidy", map[string]any{"enabled": false, "dry_run": nil})
	if auto := e.read("config/auto-tidy"); auto["enabled"] != false || auto["dry_run"] != true || auto["interval_duration"] != 3600 || auto["pause_duration"] != 1 {
		t.Errorf("auto-tidy %v", auto)
	}
	e.must(logical.DeleteOperation, "config/auto-tidy", nil)
	e.pass(24 * time.Hour)
	e.settled()
	if s := e.tidyEnded(); s["time_started"] == nil {
		t.Error("no status")
	}
	e.nothingHeld()
}

func TestTidyIsCancelled(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/release", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.jira.ResetCalls()
	resp := e.write("tidy-cancel", nil)
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "No tidy runs") {
		t.Errorf("warnings %v", resp.Warnings)
	}
	e.write("tidy", map[string]any{"pause_duration": "1h"})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "tidy", nil) // meanwhile the first stores how far it is
	e.failed(400, resp, err, "a tidy runs since")
	if err := e.jira.WaitCalls(t.Context(), "GET", tokensAPI, 1); err != nil {
		t.Fatal(err)
	}
	e.write("tidy-cancel", nil)
	if s := e.tidyEnded(); s["state"] != tidyCancelled || s["accounts_done"] == 2 || s["time_finished"] == "" {
		t.Errorf("status %v", s)
	}
}

// What Jira does not answer is no finding.
func TestATidyThatFails(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/release", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	lease := e.issue("readonly", nil)
	e.pass(3 * time.Minute)
	for name, fault := range map[string]jiratest.Fault{
		"html":      {Do: jiratest.HTML200},
		"anonymous": {Do: jiratest.Anonymous},
		"empty":     {Do: jiratest.Answer, Status: 200, Body: "[]"},
		"cut":       {Do: jiratest.CutBody},
	} {
		e.in(name, func(e *engine) {
			fault.Method, fault.Path, fault.User = "GET", "/rest", "ci-bot"
			defer e.jira.Fault(fault)()
			s := e.tidied(map[string]any{"dry_run": false})
			if s["state"] != tidyFailed || s["lost_count"] != 0 || s["accounts_done"] != 1 || !strings.Contains(s["error"].(string), `account "ci-bot"`) {
				t.Errorf("status %v", s)
			}
		})
		e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")}) // a refused one rests
	}
	e.revoke(lease.Secret)
	e.nothingHeld()
}

// A deposed node's list of what is there is old, and it cannot write.
func TestADeposedNodeTidiesNothing(t *testing.T) {
	for writes := range 3 { // until then: none, the start, and what goes before the list
		e := configured(t, jiratest.Options{})
		taken := e.snapshot()
		lease := e.issue("readonly", nil)
		e.restored(taken)
		e.jira.ResetCalls()
		var come atomic.Int64
		fail := func(string, string) error {
			if come.Add(1) > int64(writes) {
				return logical.ErrReadOnly
			}
			return nil
		}
		e.storage.fail.Store(&fail)
		_, err := e.request(t.Context(), logical.UpdateOperation, "tidy", map[string]any{"dry_run": false})
		if writes > 0 {
			e.eventually(func() bool { return e.logged("tidy ended", "state=Error") })
		}
		e.storage.fail.Store(nil)
		if (err == nil) != (writes > 0) || e.jira.Count("GET", tokensAPI) != max(0, writes-1) || e.jira.Count("DELETE", "") != 0 {
			t.Errorf("after %d writes: %v, calls %v", writes, err, e.jira.Calls())
		}
		e.tidyEnded()
		e.revoke(lease.Secret)
	}
}

// An orphan whose delete fails is owed, and the worker's.
func TestAnOrphanThatCannotBeDeletedIsOwed(t *testing.T) {
	e := configured(t, jiratest.Options{})
	taken := e.snapshot()
	e.issue("readonly", nil)
	e.restored(taken)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
	s := e.tidied(map[string]any{"dry_run": false})
	if s["state"] != tidyFailed || s["orphan_count"] != 1 || s["orphan_deleted_count"] != 0 {
		t.Errorf("status %v", s)
	}
	remove()
	e.settled()
	e.nothingHeld()
}

func TestTidyOfBadInput(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.refuses(400, logical.UpdateOperation, "tidy", map[string]any{"accounts": "nobody"}, `no account "nobody"`)
	e.refuses(400, logical.UpdateOperation, "tidy", map[string]any{"pause_duration": "-1s"})
	e.refuses(400, logical.UpdateOperation, "tidy", map[string]any{"pause_duration": "2h"}, "0 to 1h")
	e.refuses(400, logical.UpdateOperation, "tidy", map[string]any{"dry_run": "perhaps"})
	e.refuses(400, logical.UpdateOperation, "config/auto-tidy", map[string]any{"interval_duration": "59s"}, "at least 1m")
	if e.read("config/auto-tidy") != nil {
		t.Error("something is configured")
	}
	if s := e.read("tidy-status"); s["state"] != tidyInactive {
		t.Errorf("status %v", s)
	}
	// A node that ended in the middle.
	if err := store(t.Context(), e.storage, tidyStatusKey, tidyStatus{State: tidyRunning}); err != nil {
		t.Fatal(err)
	}
	if s := e.read("tidy-status"); s["state"] != tidyFailed || s["error"] == "" {
		t.Errorf("status %v", s)
	}
}

// A copy of a Vault gets a name of its own, and keeps what it knows.
func TestRotateMountID(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	id := e.write("config/rotate-mount-id", nil).Data["mount_id"].(string)
	next := e.issue("readonly", nil)
	if name := next.Data["token_name"].(string); !strings.HasPrefix(name, "vault-"+id+"-") || name[:12] == lease.Data["token_name"].(string)[:12] {
		t.Errorf("%s is called after %s", name, id)
	}
	e.mount()
	if s := e.tidied(nil); s["orphan_count"] != 0 || s["other_mount_count"] != 0 {
		t.Errorf("status %v", s)
	}
	for _, l := range []*logical.Response{lease, next} {
		e.revoke(l.Secret)
	}
	e.nothingHeld()
}

// After a snapshot was restored that knows nothing of it, a tidy finds what the engine
// has minted for the config's administrator.
func TestATidyFindsTheAdministratorsOwnToken(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "username": "jira-admin", "token": e.pat("jira-admin")})
	before := e.snapshot()
	e.rotate("rotate-root")
	e.restored(before)
	if got := e.tidied(map[string]any{"dry_run": false}); got["orphan_deleted_count"] != 1 {
		t.Errorf("tidied %v", got)
	}
	e.nothingHeld()
}

// A tidy that could not store how it went is not taken for the one before, which
// found everything in order.
func TestATidyWhoseStatusIsNotStored(t *testing.T) {
	e := configured(t, jiratest.Options{})
	if s := e.tidied(nil); s["state"] != tidyFinished {
		t.Fatalf("state %v", s["state"])
	}
	e.storage.failing(tidyStatusKey)
	if resp, err := e.request(t.Context(), logical.UpdateOperation, "tidy", nil); err == nil {
		t.Errorf("it was started: %v", resp)
	}
	writes := 0
	fail := func(op, key string) error {
		if op == "put" && key == tidyStatusKey {
			if writes++; writes > 1 {
				return errStorage
			}
		}
		return nil
	}
	e.storage.fail.Store(&fail)
	if s := e.tidied(nil); s["state"] != tidyFailed {
		t.Errorf("state %v", s["state"])
	}
	e.storage.failing("")
	if s := e.tidied(nil); s["state"] != tidyFinished {
		t.Errorf("state %v", s["state"])
	}
}
