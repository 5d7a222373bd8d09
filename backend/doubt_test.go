package backend

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// What stands before Jira and answers in its stead: a mint gets no clear answer, and no
// list says what became of it.
var blocked = map[string][]jiratest.Fault{
	"502 to all":             {{Do: jiratest.Answer, Status: 502, Body: "<html>Bad Gateway</html>"}},
	"a page of 404":          {{Path: tokensAPI, Do: jiratest.HTML404}},
	"sent to a login":        {{Path: tokensAPI, Do: jiratest.Answer, Status: 302, Header: http.Header{"Location": {"https://sso.example.com/login"}}}},
	"made, and not told":     {{Method: "POST", Path: tokensAPI, Do: jiratest.LoseAnswer}, {Method: "GET", Path: tokensAPI, Do: jiratest.Answer, Status: 502}},
	"a login page to all":    {{Do: jiratest.HTML200}},
	"the list alone is away": {{Method: "POST", Path: tokensAPI, Do: jiratest.AnswerAfter, Status: 504}, {Method: "GET", Path: tokensAPI, Do: jiratest.LoseCall}},
}

// blamesJira asserts that err is told to the reader as what Jira does, or what stands
// before it.
func blamesJira(t *testing.T, err error) {
	t.Helper()
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // only the outermost error's type reaches Vault
	if !ok || coded.Code() != http.StatusBadGateway && coded.Code() != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "Jira: ") {
		t.Errorf("%v", err)
	}
}

// Of an account whose last mint cannot be looked up nothing more is minted: of all the
// reads one intent is left, every reader is told why, and once Jira answers again, the
// next one is served.
func TestDoubtDoesNotPileUp(t *testing.T) {
	for name, faults := range blocked {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := configured(t, jiratest.Options{})
			for _, f := range faults {
				e.jira.Fault(f)
			}
			for i := range 9 {
				resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
				if resp != nil || err == nil {
					t.Fatalf("read %d: %v", i, resp)
				}
				blamesJira(t, err)
			}
			if n := e.jira.Count("POST", tokensAPI); n != 1 {
				t.Errorf("%d mints were sent", n)
			}
			if n := e.ledger.Held("ci-bot"); n != 1 {
				t.Errorf("%d places taken", n)
			}
			e.jira.ClearFaults()
			e.revoke(e.issue("readonly", nil).Secret)
			if names := e.alive(); len(names) > 0 {
				t.Errorf("alive %v", names)
			}
		})
	}
}

// The same holds for readers at once. One that began before another's doubt may have
// sent its mint; no one sends one after.
func TestDoubtOfReadersAtOnce(t *testing.T) {
	for name, faults := range blocked {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := configured(t, jiratest.Options{})
			for _, f := range faults {
				e.jira.Fault(f)
			}
			const readers = 4
			for round := range 3 {
				var all sync.WaitGroup
				for range readers {
					all.Go(func() {
						if _, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil); err == nil {
							t.Error("a read succeeded")
						} else {
							blamesJira(t, err)
						}
					})
				}
				all.Wait()
				if n := e.jira.Count("POST", tokensAPI); n < 1 || n > readers {
					t.Errorf("round %d: %d mints were sent", round, n)
				}
			}
			e.jira.ClearFaults()
			e.revoke(e.issue("readonly", nil).Secret)
			if names := e.alive(); len(names) > 0 {
				t.Errorf("alive %v", names)
			}
		})
	}
}

// The other accounts of a role are not held up, at the cost of no call.
func TestDoubtConcernsItsAccount(t *testing.T) {
	e := pool(t, 2, false)
	for _, f := range []jiratest.Fault{{Method: "POST", Do: jiratest.LoseAnswer}, {Method: "GET", Do: jiratest.HTML404}} {
		f.Path, f.User = tokensAPI, "bot-0"
		e.jira.Fault(f)
	}
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/pooled", nil)
	e.failed(503, resp, err, "bot-0")
	e.jira.ResetCalls()
	for range 4 {
		lease := e.issue("pooled", nil)
		if lease.Data["username"] != "bot-1" {
			t.Errorf("served by %v", lease.Data["username"])
		}
		defer e.revoke(lease.Secret)
	}
	if n := len(e.jira.Calls()); n != 4 {
		t.Errorf("%d calls for four mints: %v", n, e.jira.Calls())
	}
}

// What was looked for and is not there is no doubt any more, even where it may land yet.
func TestALookDispelsTheDoubt(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.LoseCall})
	for range 9 {
		resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
		e.failed(503, resp, err)
	}
	if n := e.jira.Count("POST", tokensAPI); n != 9 {
		t.Errorf("%d mints were sent", n)
	}
	if n := e.ledger.Held("ci-bot"); n != 0 {
		t.Errorf("%d places taken", n)
	}
	e.jira.ClearFaults()
	e.revoke(e.issue("readonly", nil).Secret)
}

// Nor does what was found, and cannot be ended yet, leave a doubt: it is owed.
func TestWhatIsFoundIsNoDoubt(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseAnswer})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Nth: 1, Do: jiratest.HTML404})
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: tokensAPI, Nth: 1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	lease := e.issue("readonly", nil)
	if n := len(e.alive()); n != 2 {
		t.Errorf("%d alive", n)
	}
	e.revoke(lease.Secret)
	e.pass(longestRest * 2)
	e.settled()
	e.nothingHeld()
}

// Throw-away users are made by the administrator: nobody knows whether the last one was.
func TestDoubtOfThrowAwayUsers(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: "/rest/api/2/user", Do: jiratest.LoseAnswer})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/rest/api/2/user", Do: jiratest.HTML404})
	for i := range 9 {
		resp, err := e.request(t.Context(), logical.ReadOperation, "creds/deploy", nil)
		if resp != nil || err == nil {
			t.Fatalf("read %d: %v", i, resp)
		}
		blamesJira(t, err)
	}
	if n := len(e.people()); n != 1 {
		t.Errorf("users %v", e.people())
	}
	e.jira.ClearFaults()
	e.revoke(e.issue("deploy", nil).Secret)
	if n := len(e.people()); n != 0 {
		t.Errorf("users %v", e.people())
	}
}

// So with API tokens of Cloud, which the organisation's key lists.
func TestDoubtOfAPITokens(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: "/users/", Do: jiratest.LoseAnswer})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/users/", Do: jiratest.HTML404})
	for i := range 9 {
		resp, err := e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil)
		if resp != nil || err == nil {
			t.Fatalf("read %d: %v", i, resp)
		}
		blamesJira(t, err)
	}
	if n := len(e.labels()); n != 1 {
		t.Errorf("tokens %v", e.labels())
	}
	e.jira.ClearFaults()
	e.revoke(e.issue("ci-read", nil).Secret)
	e.noAPITokens()
}

// A rotation is a mint like any other.
func TestARotationWaitsForADoubt(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseAnswer})
	// The look of the mint itself, and both of the next rotation but for the one that
	// counts the user's tokens.
	for nth := 2; nth <= 7; nth++ {
		if nth != 4 {
			e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Nth: nth, Do: jiratest.HTML404})
		}
	}
	for range 2 {
		if _, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil); err == nil {
			t.Error("rotated")
		} else {
			blamesJira(t, err)
		}
	}
	if n := e.jira.Count("POST", tokensAPI); n != 1 {
		t.Errorf("%d mints were sent: %v", n, e.jira.Calls())
	}
	e.jira.ClearFaults()
	e.write("rotate-account/ci-bot", nil)
	if n := len(e.alive()); n != 1 {
		t.Errorf("alive %v", e.alive())
	}
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
}
