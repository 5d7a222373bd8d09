package backend

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// pool is an engine whose role "pooled" has so many accounts, with all there is
// of Jira's cap.
func pool(t *testing.T, accounts int, password bool) *engine {
	t.Helper()
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	var names []string
	for i := range accounts {
		name := fmt.Sprintf("bot-%d", i)
		login := map[string]any{"username": name}
		e.jira.AddUser(jiratest.User{Name: name, Password: "a password of " + name + "'s"})
		if password {
			login["password"] = "a password of " + name + "'s"
		} else {
			login["token"] = e.pat(name)
		}
		e.write("accounts/"+name, login)
		names = append(names, name)
	}
	e.write("roles/pooled", map[string]any{"accounts": names, "ttl": "1h", "max_ttl": "24h"})
	e.jira.ResetCalls()
	t.Cleanup(func() { // by force, whatever the test has issued
		e.jira.ClearFaults()
		if err := e.clear(context.Background(), true, names...); err != nil {
			t.Error(err)
		}
		e.nothingHeld()
	})
	return e
}

// crowd has so many readers read a role at once. It returns who succeeded, and
// why the others did not.
func (e *engine) crowd(role string, readers int) (leases []*logical.Response, errs []error) {
	e.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	begin := make(chan struct{})
	for range readers {
		all.Go(func() {
			<-begin
			resp, err := e.request(e.t.Context(), logical.ReadOperation, "creds/"+role, nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && !resp.IsError() {
				leases = append(leases, resp)
			} else {
				errs = append(errs, err)
			}
		})
	}
	close(begin)
	all.Wait()
	return leases, errs
}

// Five accounts of Jira's ten tokens: by token, two of the ten are the engine's
// own; by password all are the leases'. Whoever comes next hears 429.
func TestAPoolIsUsedToTheLastPlace(t *testing.T) {
	for _, tt := range []struct {
		login    string
		password bool
		places   int
	}{{"token", false, 40}, {"password", true, 50}} {
		t.Run(tt.login, func(t *testing.T) {
			e := pool(t, 5, tt.password)
			leases, errs := e.crowd("pooled", tt.places)
			if len(leases) != tt.places {
				t.Fatalf("%d of %d reads got a token: %v", len(leases), tt.places, errs)
			}
			distinct := map[any]bool{}
			for _, l := range leases {
				distinct[l.Data["token"]] = true
			}
			if minted := e.jira.Count("POST", tokensAPI); minted != tt.places || len(distinct) != tt.places {
				t.Errorf("%d mints, %d tokens, want %d", minted, len(distinct), tt.places)
			}
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/pooled", nil)
			e.failed(429, resp, err, "no account of role", `"bot-0"`, `"bot-4"`, "max_tokens=10")
			e.revoke(leases[0].Secret)
			e.issue("pooled", nil)
			if _, errs := e.crowd("pooled", 1); len(errs) != 1 {
				t.Error("one more than there are places")
			}
		})
	}
}

// However many come at once, no account of a pool holds more than one token more
// than another.
func TestAPoolIsUsedFairly(t *testing.T) {
	e := pool(t, 5, true)
	plain := e.storage.Storage
	for round := range 7 {
		readers := &sync.WaitGroup{}
		readers.Add(7)
		e.storage.Storage = atOnce{plain, readers}
		e.sites.mu.Lock() // which each needs between his choice and his intent
		go func() {
			readers.Wait()
			for range 1000 {
				runtime.Gosched()
			}
			e.sites.mu.Unlock()
		}()
		leases, errs := e.crowd("pooled", 7)
		e.storage.Storage = plain
		if len(leases) != 7 {
			t.Fatal(errs)
		}
		least, most := 1000, 0
		for i := range 5 {
			held := e.ledger.Held(fmt.Sprintf("bot-%d", i))
			least, most = min(least, held), max(most, held)
		}
		if most > least+1 {
			t.Errorf("round %d: an account holds %d, another %d", round, least, most)
		}
	}
}

// atOnce is storage that waits with the last account of a pool until so many
// readers want it, who then see the same places free.
type atOnce struct {
	logical.Storage
	readers *sync.WaitGroup
}

func (s atOnce) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if key == accountsPrefix+"bot-4" {
		s.readers.Done()
		s.readers.Wait()
	}
	return s.Storage.Get(ctx, key)
}

// An account whose login Jira refuses, or whose tokens it caps lower than
// max_tokens says, does not keep the others from being used.
func TestAPoolMovesOn(t *testing.T) {
	e := pool(t, 3, false)
	e.jira.SetUser("bot-0", func(u *jiratest.User) { u.Inactive = true })
	for range 8 { // until Jira's own cap, which others use up
		e.jira.Mint("bot-1", "somebody's", 90)
	}
	leases, errs := e.crowd("pooled", 8)
	if len(leases) != 8 {
		t.Fatal(errs)
	}
	byUser := map[any]int{}
	for _, l := range leases {
		byUser[l.Data["username"]]++
	}
	if byUser["bot-0"] != 0 || byUser["bot-1"] > 1 || byUser["bot-2"] < 7 {
		t.Errorf("tokens by user: %v", byUser)
	}
}

// max_leases is the role's own, over all its accounts, and exact however many
// come at once. It can be changed while leases live.
func TestMaxLeases(t *testing.T) {
	e := pool(t, 3, false)
	e.write("roles/few", map[string]any{"accounts": "bot-0,bot-1,bot-2", "max_leases": 4})
	leases, errs := e.crowd("few", 20)
	if len(leases) != 4 || len(errs) != 16 {
		t.Fatalf("%d leases, want 4", len(leases))
	}
	for _, err := range errs {
		e.failed(429, nil, err, `role "few"`, "max_leases is 4")
	}
	e.issue("pooled", nil) // another role's is its own
	e.write("roles/few", map[string]any{"max_leases": 2})
	e.refusesToIssue("few", "max_leases is 2")
	e.revoke(leases[0].Secret)
	e.revoke(leases[1].Secret)
	e.revoke(leases[2].Secret)
	again := e.issue("few", nil)
	e.refusesToIssue("few", "max_leases is 2")

	// One whose end Jira has not confirmed counts.
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
	if _, err := e.leaseRequest(t.Context(), logical.RevokeOperation, again.Secret); err == nil {
		t.Fatal("a revoke that failed says that it did not")
	}
	e.refusesToIssue("few", "max_leases is 2")
	remove()
	e.issue("few", nil) // the debt is paid on the way
	e.write("roles/few", map[string]any{"max_leases": 0})
	e.issue("few", nil)
	e.refuses(400, logical.UpdateOperation, "roles/few", map[string]any{"max_leases": -1}, "max_leases")

	// Until the ledger is read nobody knows how many there are.
	e.write("roles/few", map[string]any{"max_leases": 9})
	e.setup()
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/few", nil)
	e.failed(503, resp, err, "still being read")
	e.loadLedger()
	e.issue("few", nil)
}

// readAs reads a credential of role as a token of entity, or of none, with this display name.
func (e *engine) readAs(entity, display, role string) (*logical.Response, error) {
	return e.HandleRequest(e.t.Context(), &logical.Request{
		ID: "req-" + entity, Operation: logical.ReadOperation, Path: "creds/" + role, MountPoint: "jira/", Storage: e.storage, EntityID: entity, DisplayName: display,
	})
}

// max_leases_per_entity leaves places to others, however many of one reader come at once.
func TestMaxLeasesOfAReader(t *testing.T) {
	e := pool(t, 2, false)
	e.write("roles/shared", map[string]any{"accounts": "bot-0,bot-1", "max_leases": 5, "max_leases_per_entity": 2})
	if got := e.read("roles/shared"); got["max_leases_per_entity"] != 2 {
		t.Errorf("read back %v", got)
	}
	for _, who := range []struct{ entity, display, said string }{
		{"greedy", "token-a", `entity "greedy": role "shared" has 2 credentials for it`}, {"", "root", `tokens called "root", which have no entity,`},
	} {
		var mu sync.Mutex
		var all sync.WaitGroup
		var leases []*logical.Response
		for range 10 {
			all.Go(func() {
				resp, err := e.readAs(who.entity, who.display, "shared")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					leases = append(leases, resp)
					return
				}
				e.failed(429, nil, err, who.said, "max_leases_per_entity is 2")
			})
		}
		all.Wait()
		if len(leases) != 2 {
			t.Fatalf("%+v has %d leases", who, len(leases))
		}
		other, err := e.readAs("modest", "token-a", "shared")
		if err != nil {
			t.Fatal(err)
		}
		// A node that takes over counts them as well, and only once it has read them all.
		e.setup()
		resp, err := e.readAs(who.entity, who.display, "shared")
		e.failed(503, resp, err, "still being read")
		e.loadLedger()
		resp, err = e.readAs(who.entity, who.display, "shared")
		e.failed(429, resp, err, who.said)
		e.revoke(leases[0].Secret)
		more, err := e.readAs(who.entity, who.display, "shared")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []*logical.Response{leases[1], more, other} {
			e.revoke(l.Secret)
		}
	}
	e.refuses(400, logical.UpdateOperation, "roles/shared", map[string]any{"max_leases_per_entity": -1}, "max_leases_per_entity must be 1 or more")

	// What is tried out is nobody's share.
	users := throwaway(t, jiratest.Options{})
	users.write("roles/deploy", map[string]any{"max_leases_per_entity": 1})
	lease := users.issue("deploy", nil)
	users.refusesToIssue("deploy", "max_leases_per_entity is 1")
	users.write("roles/deploy/check", nil)
	users.revoke(lease.Secret)
	users.nothingHeld()
}

func (e *engine) refusesToIssue(role string, words ...string) {
	e.t.Helper()
	resp, err := e.request(e.t.Context(), logical.ReadOperation, "creds/"+role, nil)
	e.failed(429, resp, err, words...)
}

// A hundred thousand accounts in a role would be a mistake, but fifty are none.
func TestALargePool(t *testing.T) {
	e := pool(t, 50, true)
	leases, errs := e.crowd("pooled", 100)
	if len(leases) != 100 {
		t.Fatal(strings.Join(strings.Fields(fmt.Sprint(errs)), " "))
	}
	for i := range 50 {
		if held := e.ledger.Held(fmt.Sprintf("bot-%d", i)); held != 2 {
			t.Errorf("bot-%d holds %d", i, held)
		}
	}
}

// A role that has no other account left, for it was written anew, says so.
func TestAPoolThatShrinks(t *testing.T) {
	e := configured(t, jiratest.Options{})
	_, err := e.intend(t.Context(), ledger.Reader{}, "readonly", 0, []string{"ci-bot"})
	e.failed(400, nil, coded(err), "no other account")
}
