package backend

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// exclusive is an engine with an exclusive account "sole", and a role of it.
func exclusive(t *testing.T, o jiratest.Options) *engine {
	t.Helper()
	e := start(t, o)
	e.jira.AddUser(jiratest.User{Name: "sole-bot", Password: "a password of sole-bot's"})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	e.write("accounts/sole", map[string]any{"username": "sole-bot", "password": "a password of sole-bot's", "exclusive": true})
	e.write("roles/readonly", map[string]any{"accounts": "sole", "ttl": "1h", "max_ttl": "24h"})
	return e
}

// sibling makes a token with that of a lease, as its reader could.
func (e *engine) sibling(lease *logical.Response, name string) {
	e.t.Helper()
	body := strings.NewReader(fmt.Sprintf(`{"name":%q,"expirationDuration":365}`, name))
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, e.jira.URL()+tokensAPI, body)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+lease.Data["token"].(string))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Atlassian-Token", "no-check")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusCreated {
		e.t.Fatalf("making a sibling: %s", resp.Status)
	}
}

// names are those of a user's tokens that live.
func (e *engine) names(user string) []string {
	names := []string{}
	for _, t := range e.jira.Tokens(user) {
		if t.Live {
			names = append(names, t.Name)
		}
	}
	return names
}

// Whatever a reader made with his token ends with it, under whatever name; the
// tokens of other leases live on.
func TestSiblingsOfAnExclusiveAccount(t *testing.T) {
	for _, how := range []string{"a revoke", "a revoke that Vault has queued", "a lease that is over", "a delete by force"} {
		t.Run(how, func(t *testing.T) {
			e := exclusive(t, jiratest.Options{})
			other := e.issue("readonly", nil)
			lease := e.issue("readonly", nil)
			for _, name := range []string{"mine", lease.Data["token_name"].(string), other.Data["token_name"].(string), "vault-aaaaaa-bbbbbbbbbbbbbbbb-other"} {
				e.sibling(lease, name)
			}
			switch how {
			case "a revoke":
				e.revoke(lease.Secret)
			case "a revoke that Vault has queued":
				if err := e.revokeQueued(lease.Secret); err != nil {
					t.Fatal(err)
				}
			case "a lease that is over":
				if _, err := e.renew(other.Secret, 0); err != nil {
					t.Fatal(err)
				}
				if err := e.ledger.Owe(t.Context(), lease.Secret.InternalData["id"].(string), ""); err != nil {
					t.Fatal(err)
				}
				e.settled()
			case "a delete by force":
				e.must(logical.DeleteOperation, "roles/readonly", nil)
				remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 500})
				e.must(logical.DeleteOperation, "accounts/sole", map[string]any{"force": true})
				remove()
				e.pass(time.Hour)
				e.settled()
				if names := e.names("sole-bot"); len(names) != 0 {
					t.Errorf("alive are %v", names)
				}
				return
			}
			if names := e.names("sole-bot"); len(names) != 1 || names[0] != other.Data["token_name"] || e.ledger.Held("sole") != 1 {
				t.Errorf("alive are %v", names)
			}
			e.revoke(other.Secret)
		})
	}
}

// A list that lags goes on naming what is gone. That a token was proven gone is
// enough: a revoke does not fail for it, nor does the next one.
func TestASweepWhoseListsLag(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	first, second := e.issue("readonly", nil), e.issue("readonly", nil)
	e.sibling(first, "mine")
	e.pass(2 * time.Minute)
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.ListLag = time.Minute })
	e.revoke(first.Secret)
	e.revoke(second.Secret)
	if n := strings.Count(e.list("sole-bot"), `"id"`); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
	e.nothingHeld()
	if names := e.names("sole-bot"); len(names) != 0 {
		t.Errorf("alive are %v", names)
	}
}

// list is what Jira lists of a user's tokens now.
func (e *engine) list(user string) string {
	var list []string
	for _, t := range e.jira.Tokens(user) {
		list = append(list, fmt.Sprintf(`{"id":%d,"name":%q,"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":"2036-03-02T08:15:09.417+00:00"}`, t.ID, t.Name))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// A debt is not paid before a list is clean: the record stays, and the worker
// goes on.
func TestASweepThatFails(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.sibling(lease, "mine")
	remove := e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Do: jiratest.Answer, Status: 503})
	_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
	e.failed(503, nil, err, "siblings")
	if e.ledger.Held("sole") != 1 {
		t.Error("the record is gone though nobody knows whether siblings are")
	}
	remove()
	e.mount() // wherever it was
	e.settled()
	if names := e.names("sole-bot"); len(names) != 0 {
		t.Errorf("alive are %v", names)
	}
	e.nothingHeld()
}

// A node that was deposed does not know what its successor has made, and must
// not take it for siblings.
func TestADeposedNodeSweepsNothing(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	old := *e
	old.storage = &storage{Storage: &logical.InmemStorage{}}
	old.mount()
	old.restored(e.snapshot())
	readOnly := func(string, string) error { return logical.ErrReadOnly }
	old.storage.fail.Store(&readOnly)
	theirs := e.issue("readonly", nil)
	if _, err := old.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret); err == nil {
		t.Error("a deposed node says that it has revoked")
	}
	if names := e.names("sole-bot"); len(names) != 1 || names[0] != theirs.Data["token_name"] {
		t.Errorf("alive are %v", names)
	}
	e.revoke(lease.Secret)
	e.revoke(theirs.Secret)
}

// A token whose mint is still under way is in the ledger by its name alone.
func TestASweepSparesMintsUnderWay(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	id := ledger.NewID()
	intent := &ledger.Record{ID: id, Name: ledger.Name("k3xm2a", id, "readonly"), Account: "sole", Role: "readonly"}
	if err := e.ledger.Intend(t.Context(), intent, ledger.Room{}); err != nil {
		t.Fatal(err)
	}
	found, err := e.strangers(t.Context(), "sole", []jira.Token{
		{ID: "7", Name: intent.Name},
		{ID: "8", Name: intent.Name[:30] + "cut"},
		{ID: lease.Data["token_id"].(string), Name: "as Jira pleases"},
		{ID: "9", Name: lease.Data["token_name"].(string)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range found {
		ids = append(ids, f.ID)
	}
	if want := []string{"9"}; !slices.Equal(ids, want) {
		t.Errorf("strangers are %v, want %v", ids, want)
	}
	e.ledger.Over(id)
	if err := e.ledger.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	e.revoke(lease.Secret)
}

// While tokens are made and ended at the same time none that a lease holds is
// taken for a sibling.
func TestSweepsAmongMints(t *testing.T) {
	e := exclusive(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: -1}})
	e.write("accounts/sole", map[string]any{"max_tokens": 1000})
	for range 10 {
		leases, errs := e.crowd("readonly", 8)
		if len(leases) != 8 {
			t.Fatal(errs)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for _, l := range leases {
				e.sibling(l, "mine")
				e.revoke(l.Secret)
			}
		}()
		more, errs := e.crowd("readonly", 8)
		<-ended
		if len(more) != 8 {
			t.Fatal(errs)
		}
		if names := e.names("sole-bot"); len(names) != 8 {
			t.Fatalf("eight leases live, and these tokens: %v", names)
		}
		for _, l := range more {
			e.revoke(l.Secret)
		}
	}
}

// Of an account that is not exclusive a tidy tells of siblings and touches none;
// of one that is it deletes them, unless it only reports.
func TestATidyOfAnExclusiveAccount(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	e.write("config", map[string]any{"other_mount_ids": "aaaaaa"})
	lease := e.issue("readonly", nil)
	e.sibling(lease, "mine")
	e.sibling(lease, "vault-aaaaaa-bbbbbbbbbbbbbbbb-other")
	e.sibling(lease, lease.Data["token_name"].(string))
	if s := e.tidied(nil); s["sibling_count"] != 1 || s["sibling_deleted_count"] != 0 || s["other_mount_count"] != 1 || s["orphan_count"] != 1 || len(e.names("sole-bot")) != 4 {
		t.Errorf("a dry run: %v, %v", s, e.names("sole-bot"))
	}
	e.write("accounts/sole", map[string]any{"exclusive": false})
	if s := e.tidied(map[string]any{"dry_run": false, "tidy_orphans": false}); s["sibling_deleted_count"] != 0 || s["other_mount_deleted_count"] != 0 || len(e.names("sole-bot")) != 4 {
		t.Errorf("not exclusive: %v, %v", s, e.names("sole-bot"))
	}
	e.write("accounts/sole", map[string]any{"exclusive": true})
	if s := e.tidied(map[string]any{"dry_run": false}); s["sibling_deleted_count"] != 1 || s["other_mount_deleted_count"] != 1 || s["orphan_deleted_count"] != 1 {
		t.Errorf("exclusive: %v", s)
	}
	if names := e.names("sole-bot"); len(names) != 1 || names[0] != lease.Data["token_name"] {
		t.Errorf("alive are %v", names)
	}
	e.revoke(lease.Secret)
}

// The engine must be able to tell its own token from what it is to delete.
func TestExclusiveNeedsAPassword(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"exclusive": true}, "exclusive needs a password")
	e.jira.AddUser(jiratest.User{Name: "sole-bot", Password: "a password of sole-bot's"})
	e.write("accounts/sole", map[string]any{"username": "sole-bot", "password": "a password of sole-bot's", "exclusive": true})
	e.refuses(400, logical.UpdateOperation, "accounts/sole", map[string]any{"token": e.pat("sole-bot")}, "exclusive needs a password")
	if got := e.read("accounts/sole")["exclusive"]; got != true {
		t.Errorf("exclusive is %v", got)
	}
}

func TestOwnTokenID(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.bringsOneOfTwo("ci-bot")
	own := fmt.Sprint(e.jira.Tokens("ci-bot")[1].ID)
	if s := e.tidied(nil); s["sibling_count"] != 2 {
		t.Errorf("without own_token_id: %v", s)
	}
	e.write("accounts/ci-bot", map[string]any{"own_token_id": own})
	if s := e.tidied(nil); s["sibling_count"] != 1 || s["token_count"] != 2 {
		t.Errorf("with own_token_id: %v", s)
	}
	lease := e.issue("readonly", nil)
	foreign, _ := e.jira.Mint("release-bot", "another's", 1)
	for _, id := range []string{"1", "x", "../1", "-1", fmt.Sprint(foreign.ID)} {
		e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"own_token_id": id}, "not the id of a token of user")
	}
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"own_token_id": lease.Data["token_id"]}, "made for a lease")
	e.revoke(lease.Secret)

	// It goes with the token that it is the id of.
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 9})
	if got := e.read("accounts/ci-bot")["own_token_id"]; got != own {
		t.Errorf("own_token_id is %v", got)
	}
	second, secret := e.jira.Mint("ci-bot", "made by hand", 90)
	e.write("accounts/ci-bot", map[string]any{"token": secret})
	if got := e.read("accounts/ci-bot")["own_token_id"]; got != "" {
		t.Errorf("own_token_id is %v, and the token another", got)
	}
	e.write("accounts/ci-bot", map[string]any{"token": secret, "own_token_id": fmt.Sprint(second.ID)})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "a password of ci-bot's" })
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"password": "a password of ci-bot's", "own_token_id": own}, "logs in with a password")
	e.write("accounts/ci-bot", map[string]any{"password": "a password of ci-bot's"})
	if got := e.read("accounts/ci-bot")["own_token_id"]; got != "" {
		t.Errorf("own_token_id is %v, and there is no token", got)
	}
}

// A record that cannot be read spares its token, and keeps no other from being
// revoked.
func TestASweepWithADamagedRecord(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	damaged, lease := e.issue("readonly", nil), e.issue("readonly", nil)
	id := damaged.Secret.InternalData["id"].(string)
	was, err := e.storage.Get(t.Context(), ledgerPrefix+id[:2]+"/"+id)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: was.Key, Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	e.sibling(lease, "mine")
	e.revoke(lease.Secret)
	if names := e.names("sole-bot"); !slices.Equal(names, []string{damaged.Data["token_name"].(string)}) {
		t.Errorf("alive are %v", names)
	}
	if err := e.storage.Put(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	e.revoke(damaged.Secret)
}

// A tidy knows a lease's token by Jira's id, whatever Jira calls it.
func TestATidyOfATokenThatJiraRenamed(t *testing.T) {
	e := exclusive(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	e.jira.Fault(jiratest.Fault{
		Method: "GET", Path: tokensAPI, Times: 1, Do: jiratest.Answer, Status: 200, Header: http.Header{"X-Ausername": {"sole-bot"}},
		Body: fmt.Sprintf(`[{"id":%s,"name":"as Jira pleases","createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":"2036-03-02T08:15:09.417+00:00"}]`, lease.Data["token_id"]),
	})
	if s := e.tidied(map[string]any{"dry_run": false}); s["sibling_deleted_count"] != 0 || len(e.names("sole-bot")) != 1 {
		t.Errorf("status %v, alive are %v", s, e.names("sole-bot"))
	}
	e.revoke(lease.Secret)
}
