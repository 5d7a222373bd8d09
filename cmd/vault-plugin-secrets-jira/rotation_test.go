package main

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rotating is what TestRotationCrashes rotates: an account with a token, one with a password, the config's administrator,
// with a token, and a static role.
var rotating = []string{"jira/rotate-account/ci", "jira/rotate-account/releases", "jira/rotate-root", "jira/rotate-role/legacy"}

// TestRotationCrashes kills the plugin and Vault while the engine replaces what it logs in with, and a static role's token,
// again and again. Whatever was in use when, what is stored works afterwards; and in the end there is one token of each, and
// nobody is locked out. With -soak it does so a hundred times.
func TestRotationCrashes(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configureRotations()
	dice := dice(t)
	vault := w.nodes[0]
	w.credentialsWork()

	many := cmp.Or(*rounds, 10)
	if *soak {
		many = cmp.Or(*rounds, 100)
	}
	for round := 1; round <= many && !t.Failed(); round++ {
		// One answer gets lost, of the some fifteen that there are; the others take a while.
		w.must(200, "POST", w.control+"fault", map[string]any{"do": "LoseAnswer", "path": "/rest", "nth": 1 + dice.IntN(15)})
		w.must(200, "POST", w.control+"fault", map[string]any{"do": "Slow", "path": "/rest", "delay": "50ms"})
		w.noteCommands()
		plugins := w.plugins(vault.process)
		rotated, ended := w.rotateAll()
		<-time.After(time.Duration(dice.IntN(400)) * time.Millisecond) // at no particular moment
		before := rotated.Load()
		what, crash := w.crash(dice, vault, plugins)
		ended()
		w.must(200, "DELETE", w.control+"faults", nil)
		began := time.Now()
		w.credentialsWork()
		suite.figures.add(crash)
		t.Logf("round %d of %d, %s killed when %d of %d were rotated, %d at last: all works after %v",
			round, many, what, before, len(rotating), rotated.Load(), time.Since(began).Round(time.Millisecond))
	}
	w.rotatedForGood()
	w.credentialsWork()
	w.nobodyLocked()
	w.dismantle()
}

// configureRotations mounts the engine with all that TestRotationCrashes rotates, and a role for each who logs in.
func (w *world) configureRotations() {
	w.t.Helper()
	w.configure()
	// With their ids the tokens that were brought end, too.
	w.api("PUT", "jira/config", map[string]any{
		"username": w.jira["JIRA_ADMIN_USERNAME"], "token": w.jira["JIRA_ADMIN_TOKEN"], "own_token_id": w.idOf(w.jira["JIRA_ADMIN_TOKEN"]), "overlap": "1s",
	})
	w.api("PUT", "jira/accounts/ci", map[string]any{"own_token_id": w.idOf(w.jira["JIRA_TOKEN"])})
	w.api("PUT", "jira/accounts/releases", map[string]any{
		"username": w.jira["JIRA_USERNAME_RELEASE_BOT"], "password": w.jira["JIRA_PASSWORD_RELEASE_BOT"], "max_tokens": 1_000_000,
	})
	w.api("PUT", "jira/static-roles/legacy", map[string]any{"account": "ci", "rotation_period": "24h"})
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "10m"})
	w.api("PUT", "jira/roles/release", map[string]any{"accounts": "releases", "ttl": "10m"})
	w.api("PUT", "jira/roles/deploy", map[string]any{"credential_type": "ephemeral_user", "groups": "jira-software-users", "ttl": "10m"})
}

// idOf is Jira's id of the only token that its user has.
func (w *world) idOf(token string) string {
	w.t.Helper()
	var tokens []struct{ ID int64 }
	w.read(&tokens, w.must(200, "GET", w.jira["JIRA_URL"]+"/rest/pat/latest/tokens", nil, "Authorization", "Bearer "+token))
	if len(tokens) != 1 {
		w.t.Fatalf("the user has %d tokens", len(tokens))
	}
	return strconv.FormatInt(tokens[0].ID, 10)
}

// rotateAll begins to rotate everything at once, and counts what was. Whether anything is nobody promises: ended waits for
// the end of the requests.
func (w *world) rotateAll() (rotated *atomic.Int64, ended func()) {
	rotated = &atomic.Int64{}
	client := &http.Client{Timeout: most, Transport: &http.Transport{}}
	var requests sync.WaitGroup
	for _, path := range rotating {
		requests.Go(func() {
			status, _ := ask(w.t.Context(), client, "PUT", w.addr+"/v1/"+path, nil, "X-Vault-Token", w.root)
			if status/100 == 2 {
				rotated.Add(1)
			}
		})
	}
	return rotated, func() {
		requests.Wait()
		client.CloseIdleConnections()
	}
}

// credentialsWork waits until a credential can be read that each of the stored ones makes, and be ended; and fails the test
// unless the static role's token works.
func (w *world) credentialsWork() {
	w.t.Helper()
	for _, role := range []string{"app", "release", "deploy"} {
		var read struct {
			LeaseID string `json:"lease_id"`
			Data    struct{ Token string }
		}
		w.read(&read, w.patiently("GET", "jira/creds/"+role, nil))
		w.works(role, read.Data.Token)
		w.patiently("PUT", "sys/leases/revoke", map[string]any{"lease_id": read.LeaseID, "sync": true})
	}
	var static struct{ Data struct{ Token string } }
	w.read(&static, w.patiently("GET", "jira/static-creds/legacy", nil))
	w.works("the static role", static.Data.Token)
}

// works fails the test unless a token of whoever works in Jira.
func (w *world) works(whose, token string) {
	w.t.Helper()
	if status, answer := w.send("GET", w.jira["JIRA_URL"]+"/rest/api/2/myself", nil, "Authorization", "Bearer "+token); status != http.StatusOK {
		w.t.Errorf("the token of %s is refused: %d %s", whose, status, answer)
	}
}

// patiently is api for what works sooner or later.
func (w *world) patiently(method, path string, body any) (answer []byte) {
	w.t.Helper()
	status := 0
	if poll(func() bool {
		status, answer = w.send(method, w.addr+"/v1/"+path, body, "X-Vault-Token", w.root)
		return status/100 == 2
	}) != nil {
		w.t.Fatalf("%s %s: at last %d %s", method, path, status, answer)
	}
	return answer
}

// rotatedForGood rotates everything once more, and waits until there is one token in Jira of each, and none that was brought.
// The ledger agrees with that.
func (w *world) rotatedForGood() {
	w.t.Helper()
	for _, path := range []string{"jira/config", "jira/accounts/ci", "jira/accounts/releases", "jira/static-roles/legacy"} {
		w.patiently("PUT", path, map[string]any{"overlap": "1s"})
	}
	for _, path := range rotating {
		w.patiently("PUT", path, nil)
	}
	want := []string{"ci-bot legacy", "ci-bot own", "jira-admin own"}
	var have []string
	if poll(func() bool {
		have = w.kept()
		return slices.Equal(have, want)
	}) != nil {
		w.t.Errorf("alive are the tokens %q, and should be %q", have, want)
	}
	for path, held := range map[string]int{"jira/config": 0, "jira/accounts/ci": 1, "jira/accounts/releases": 0, "jira/static-roles/legacy": 0} {
		var read struct {
			Data struct {
				Held        int
				LastRotated string `json:"last_rotated"`
				LastError   string `json:"last_error"`
			}
		}
		if poll(func() bool { // what was given up is looked for
			w.read(&read, w.api("GET", path, nil))
			return read.Data.Held == held
		}) != nil || read.Data.LastRotated == "" || read.Data.LastError != "" {
			w.t.Errorf("%s reads %+v", path, read.Data)
		}
	}
	if report := w.tidy(nil); report.Count != 0 || report.Lost != 0 {
		w.t.Errorf("a tidy finds %+v", report)
	}
}

// kept returns whose tokens are alive that are there from the beginning or that the engine made, and the last word of their
// names.
func (w *world) kept() []string {
	w.t.Helper()
	var tokens []struct {
		User, Name string
		Live       bool
	}
	w.read(&tokens, w.must(200, "GET", w.control+"tokens", nil))
	var kept []string
	for _, t := range tokens {
		if t.Live && (strings.HasPrefix(t.Name, "vault-") || t.User == w.jira["JIRA_USERNAME"] || t.User == w.jira["JIRA_ADMIN_USERNAME"]) {
			kept = append(kept, t.User+" "+t.Name[strings.LastIndex(t.Name, "-")+1:])
		}
	}
	slices.Sort(kept)
	return kept
}

// nobodyLocked fails the test if Jira has ever asked a user for a CAPTCHA, who had got too many wrong passwords.
func (w *world) nobodyLocked() {
	w.t.Helper()
	var calls []simCall
	w.read(&calls, w.must(200, "GET", w.control+"calls", nil))
	statuses := map[int]int{}
	for _, c := range calls {
		if c.Auth == "basic" {
			statuses[c.Status]++
		}
	}
	w.t.Logf("logins with a password, by what was answered: %v", statuses)
	if statuses[http.StatusForbidden] != 0 || statuses[http.StatusOK] == 0 {
		w.t.Errorf("a user was locked out, or none has logged in: %v", statuses)
	}
}

// dismantle disables the mount, which ends what the engine has made for itself and for the static role.
func (w *world) dismantle() {
	w.t.Helper()
	w.api("DELETE", "sys/mounts/jira", nil)
	if names := w.live(); len(names) > 0 {
		w.t.Errorf("alive without the mount: %q", names)
	}
}
