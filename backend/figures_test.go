package backend

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

var figures = flag.Bool("figures", false, "measure mint, renewal and revoke, and print the figures")

// rounds is how often each operation is timed, in turn with the others, so
// that what else the machine does falls on all alike.
const rounds = 4000

// floorName is what the floor's tokens are called, as long as the engine's.
const floorName = "Vault-aaaaaa-bbbbbbbbbbbbbbbb-readonly"

// mostOverFloor is how much more than the floor a mint may take, in time and
// in allocations.
const mostOverFloor = 1.5

// TestFigures measures what a lease costs, for make bench. The floor is what
// no engine can do without: the framework's dispatch of a request to a handler
// that does nothing, and one bare POST to the same simulated Jira. Both are
// measured in turn, and the ratio is of the medians: this machine's absolute
// times mean nothing.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("measures, and is no test: run make bench")
	}
	e := configured(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: -1}})
	e.told.drops = true
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 1_000_000_000})
	lease := e.bareMint()
	e.revoke(lease) // the first makes the mount's id

	lease = e.bareMint()
	renew := func() {
		if _, err := e.renew(lease, 0); err != nil {
			t.Fatal(err)
		}
	}
	var leases []*logical.Secret
	mint := func() { leases = append(leases, e.bareMint()) }
	revoke := func() {
		e.revoke(leases[len(leases)-1])
		leases = leases[:len(leases)-1]
	}
	measured := []*measurement{
		{name: "floor", run: e.floor(t)},
		{name: "mint", run: mint},
		{name: "renew", run: renew},
		{name: "revoke", run: revoke}, // what mint has left
	}
	for _, m := range measured {
		m.count(e)
	}
	for range rounds {
		for _, m := range measured {
			began := time.Now()
			m.run()
			m.times = append(m.times, time.Since(began))
		}
	}
	for _, tok := range e.jira.Tokens("ci-bot") { // what the floor has left
		if tok.Name == floorName {
			e.jira.Delete(tok.ID)
		}
	}
	e.revoke(lease)
	floor := measured[0]
	fmt.Printf("%-8s %8s %8s %10s %8s %12s %15s\n", "", "calls", "writes", "time", "allocs", "floor's time", "floor's allocs")
	for _, m := range measured {
		fmt.Printf("%-8s %8.2f %8.2f %10v %8.0f %11.2fx %14.2fx\n", m.name, m.calls, m.writes, m.median().Round(time.Microsecond), m.allocs,
			float64(m.median())/float64(floor.median()), m.allocs/floor.allocs)
	}
	for i, want := range []struct{ calls, writes float64 }{{1, 0}, {1, 2}, {0, 1}, {1, 1}} {
		if m := measured[i]; m.calls != want.calls || m.writes != want.writes {
			t.Errorf("%s: %v calls and %v writes, want %v and %v", m.name, m.calls, m.writes, want.calls, want.writes)
		}
	}
	countOthers(t)
	if ratio := float64(measured[1].median()) / float64(floor.median()); ratio > mostOverFloor {
		t.Errorf("a mint takes %.2f times the floor's time", ratio)
	}
	if ratio := measured[1].allocs / floor.allocs; ratio > mostOverFloor {
		t.Errorf("a mint takes %.2f times the floor's allocations", ratio)
	}
}

// countOthers counts and prints the calls to Jira and the writes that the other
// types of credentials cost. They are the fewest that Jira allows.
func countOthers(t *testing.T) {
	users := throwaway(t, jiratest.Options{})
	access, _ := serviceAccount(t, jiratest.Options{}, nil)
	sole := exclusive(t, jiratest.Options{})
	cloud, _ := apiTokens(t, jiratest.Switches{})
	for _, one := range []struct {
		name string
		*engine
		role              string
		mint, mintWrites  float64 // wanted
		end, revokeWrites float64 // likewise
	}{
		{"ephemeral_user, 1 group, 1 role", users, "deploy", 4, 2, 1, 1},
		{"oauth2", access, "report", 1, 2, 0, 1},
		{"pat, exclusive", sole, "readonly", 1, 2, 2, 1},
		{"cloud_api_token", cloud, "ci-read", 1, 2, 1, 1},
	} {
		one.revoke(one.issue(one.role, nil).Secret) // the first makes the mount's id
		var lease *logical.Response
		measure := func(run func()) (calls, writes float64) {
			one.jira.ResetCalls()
			before := one.storage.writes.Load()
			run()
			return float64(len(one.jira.Calls())), float64(one.storage.writes.Load() - before)
		}
		mint, mintWrites := measure(func() { lease = one.issue(one.role, nil) })
		end, revokeWrites := measure(func() { one.revoke(lease.Secret) })
		fmt.Printf("%-32s mint %v calls, %v writes; revoke %v calls, %v writes\n", one.name, mint, mintWrites, end, revokeWrites)
		if mint != one.mint || mintWrites != one.mintWrites || end != one.end || revokeWrites != one.revokeWrites {
			t.Errorf("%s: want %v, %v, %v and %v", one.name, one.mint, one.mintWrites, one.end, one.revokeWrites)
		}
	}
}

// floor is one round of what no engine can do without.
func (e *engine) floor(t *testing.T) func() {
	nothing := &framework.Backend{Paths: []*framework.Path{{
		Pattern: "creds/(?P<name>[^/]+)",
		Fields:  map[string]*framework.FieldSchema{"name": {Type: framework.TypeString}},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{Callback: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
				return nil, nil
			}},
		},
	}}}
	if err := nothing.Setup(t.Context(), &logical.BackendConfig{System: e.system}); err != nil {
		t.Fatal(err)
	}
	token := e.pat("ci-bot")
	body := []byte(`{"name":"` + floorName + `","expirationDuration":2}`)
	return func() {
		if _, err := nothing.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "creds/readonly", Storage: e.storage}); err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.jira.URL()+tokensAPI, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Atlassian-Token", "no-check")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusCreated {
			t.Fatal(err, resp.Status)
		}
		_ = resp.Body.Close()
	}
}

// bareMint reads a credential without looking at the answer.
func (e *engine) bareMint() *logical.Secret {
	resp, err := e.HandleRequest(e.t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "creds/readonly", MountPoint: "jira/", Storage: e.storage})
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.Secret
}

// measurement is the figures of one operation.
type measurement struct {
	name                  string
	run                   func()
	calls, writes, allocs float64 // each time
	times                 []time.Duration
}

func (m *measurement) count(e *engine) {
	const each = 200
	e.jira.ResetCalls()
	writes := e.storage.writes.Load()
	// It runs once more than it is told to, to warm up.
	m.allocs = testing.AllocsPerRun(each-1, m.run)
	m.calls = float64(len(e.jira.Calls())) / each
	m.writes = float64(e.storage.writes.Load()-writes) / each
}

func (m *measurement) median() time.Duration {
	return slices.Sorted(slices.Values(m.times))[len(m.times)/2]
}
