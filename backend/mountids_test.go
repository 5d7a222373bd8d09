package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A reader makes a token with the leased one, and names it like another mount's. That mount is not
// listed, so it is a sibling: told, an alarm, and ended where the account is exclusive.
func TestASiblingThatIsNamedLikeAnotherMounts(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	hidden := ledger.Name("abcdef", ledger.NewID(), "readonly")
	e.sibling(lease, hidden)
	known := strings.Replace(lease.Data["token_name"].(string), e.mountOf(lease), "abcdef", 1) // and like the lease's own
	e.sibling(lease, known)
	e.write("accounts/sole", map[string]any{"exclusive": false})
	for _, dry := range []bool{true, false} {
		s := e.tidied(map[string]any{"dry_run": dry, "tidy_orphans": false})
		if s["sibling_count"] != 1 || s["unlisted_mount_count"] != 1 || s["other_mount_count"] != 0 || s["orphan_count"] != 1 || found(s, "siblings")[0] != hidden {
			t.Errorf("dry_run %v: %v", dry, s)
		}
		if !strings.Contains(s["siblings"].([]map[string]any)[0]["note"].(string), "abcdef") {
			t.Errorf("note %v", s["siblings"])
		}
	}
	e.finds("the last tidy found 1 tokens that bear the name of a mount")
	if n := e.value("tidy_unlisted_mounts"); n != 1 {
		t.Errorf("the metrics say %v", n)
	}
	counts := e.read("accounts/sole/tokens")["counts"].(map[string]any)
	if counts["sibling"] != 1 || counts["other_mount"] != 0 || counts["orphan"] != 1 || counts["lease"] != 1 {
		t.Errorf("counts %v", counts)
	}

	// The operator vouches for that mount, and takes it back.
	e.write("config", map[string]any{"other_mount_ids": "abcdef, bcdefg"})
	if got := e.read("config")["other_mount_ids"].([]string); len(got) != 2 || got[0] != "abcdef" {
		t.Errorf("read back %v", got)
	}
	if s := e.tidied(nil); s["sibling_count"] != 0 || s["other_mount_count"] != 1 || s["unlisted_mount_count"] != 0 {
		t.Errorf("listed: %v", s)
	}
	if counts := e.read("accounts/sole/tokens")["counts"].(map[string]any); counts["other_mount"] != 1 || counts["sibling"] != 0 {
		t.Errorf("counts %v", counts)
	}
	e.must(logical.PatchOperation, "config", map[string]any{"other_mount_ids": nil})

	// The warning names what the next revoke ends, and so it does.
	resp := e.write("accounts/sole", map[string]any{"exclusive": true})
	if resp == nil || !strings.Contains(resp.Warnings[0], hidden) || !strings.Contains(resp.Warnings[0], known) {
		t.Errorf("warned %v", resp)
	}
	e.revoke(lease.Secret)
	if names := e.names("sole-bot"); len(names) != 0 {
		t.Errorf("alive are %v", names)
	}
	e.tidied(nil)
	e.well()
}

// mountOf is the mount's id in the name of what lease holds.
func (e *engine) mountOf(lease *logical.Response) string {
	e.t.Helper()
	mount, _, ok := ledger.ParseName(lease.Data["token_name"].(string))
	if !ok {
		e.t.Fatalf("%v", lease.Data)
	}
	return mount
}

// A copy of a Vault gets another id. What bears the former one, and is not in its ledger, is
// an orphan that no automatic tidy deletes, until the original's id is listed.
func TestACopyBesideItsOriginal(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	was := e.mountOf(lease)
	resp := e.write("config/rotate-mount-id", nil)
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], was) {
		t.Errorf("warned %v", resp.Warnings)
	}
	theirs := ledger.Name(was, ledger.NewID(), "readonly") // since the copy was made
	e.jira.Mint("ci-bot", theirs, 1)
	next := e.issue("readonly", nil) // so that the ledger is as new
	e.mount()
	e.pass(time.Minute)
	counted := func(class string) {
		t.Helper()
		if got := e.read("accounts/ci-bot/tokens")["counts"].(map[string]any); got[class] != 1 || got["lease"] != 2 {
			t.Errorf("counts %v", got)
		}
	}
	counted("orphan")
	accounts := []string{"ci-bot"}
	for _, o := range []tidyOptions{{DryRun: true, TidyOrphans: true}, {TidyOrphans: true}} {
		if _, err := e.startTidy(o, accounts, true); err != nil {
			t.Fatal(err)
		}
		e.running.Wait()
		if s := e.read("tidy-status"); s["orphan_count"] != 1 || s["orphan_deleted_count"] != 0 || !strings.Contains(s["orphans"].([]map[string]any)[0]["note"].(string), "had before") {
			t.Errorf("%+v: %v", o, s)
		}
	}
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"other_mount_ids": resp.Data["mount_id"]}, "this mount's own")
	e.write("config", map[string]any{"other_mount_ids": was})
	counted("other_mount")
	if s := e.tidied(map[string]any{"dry_run": false}); s["orphan_count"] != 0 || s["other_mount_count"] != 1 {
		t.Errorf("listed: %v", s)
	}
	e.well()

	// No copy after all: then it is this mount's, and a person may say so.
	e.write("config", map[string]any{"other_mount_ids": ""})
	e.write("config/rotate-mount-id", nil) // twice, and the first is not forgotten
	if s := e.tidied(map[string]any{"dry_run": false}); s["orphan_deleted_count"] != 1 {
		t.Errorf("by hand: %v", s)
	}
	for _, l := range []*logical.Response{lease, next} {
		e.revoke(l.Secret)
	}
	e.nothingHeld()
}

func TestOtherMountIDs(t *testing.T) {
	e := configured(t, jiratest.Options{})
	for _, tt := range []struct{ ids, word string }{
		{"abcde", `"abcde"`},
		{"abcdef7", "6 letters"},
		{"abc-ef", "6 letters"},
		{"abcde1", "6 letters"},
		{"abcdef,abcdef", "twice"},
		{strings.Repeat("x", 200), "6 letters"},
		{strings.Repeat("x", 1000), "longer than"},
		{strings.Repeat("abcdef,", 101), "the most"},
		{e.mount0(), "this mount's own"},
	} {
		e.refuses(400, logical.UpdateOperation, "config", map[string]any{"other_mount_ids": tt.ids}, "other_mount_ids", tt.word)
	}
	e.write("config", map[string]any{"other_mount_ids": "ABCDEF"}) // as somebody may have copied it
	if got := e.read("config")["other_mount_ids"].([]string); len(got) != 1 || got[0] != "abcdef" {
		t.Errorf("%v", got)
	}
	for range mostMountIDs + 5 {
		e.write("config/rotate-mount-id", nil)
	}
	if m, err := e.mountIDs(t.Context()); err != nil || len(m.former) != mostMountIDs || m.class(m.former[mostMountIDs-1]) != classOrphan {
		t.Errorf("%+v, %v", m, err)
	}
}

// mount0 is the mount's own id.
func (e *engine) mount0() string {
	id, err := e.backend.mount.get(e.t.Context(), &e.decoded, e.storage)
	if err != nil {
		e.t.Fatal(err)
	}
	return id
}
