package backend

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// scenario is a piece of the engine's work.
type scenario struct {
	name    string
	before  func(*bench)     // what has come to pass
	wait    time.Duration    // what passes then
	run     func(*bench)     // what is cut, in one step after the other
	weather []jiratest.Fault // what goes wrong anyway
	unasked bool             // the engine acts of its own accord
	cloud   bool             // at Jira Cloud
	steps   []string         // that must be among those it takes, in this order
}

// skips tells whether k at step is one that says nothing: that nobody can see through, for
// Atlassian's answers do not name who asked, so an empty 204 to a delete is believed; or
// that a tidy waits for, in true time.
func (s scenario) skips(at step, k kind) bool {
	lie := s.cloud && strings.HasPrefix(at.name, "DELETE ") && k.fault.Do == jiratest.Answer && k.fault.Status == http.StatusNoContent
	return lie || strings.HasPrefix(s.name, "tidy ") && k.name == limitedForMinutes
}

func scenarios() []scenario {
	const (
		post, list, end = "POST pat/latest/tokens", "GET pat/latest/tokens", "DELETE pat/latest/tokens/…"
		intended        = "put ledger/…/… intended"
		issued          = "put ledger/…/… issued"
		owed            = "put ledger/…/… owed"
		ended           = "put ledger/…/… ended"
		forgotten       = "delete ledger/…/…"
		retire          = "put retired/…"
		released        = "delete retired/…"
	)
	const (
		postAPI = "POST users/…/manage/api-tokens"
		listAPI = "GET users/…/manage/api-tokens"
		endAPI  = "DELETE users/…/manage/api-tokens/…"
	)
	const (
		makeUser, endUser = "POST api/2/user", "DELETE api/2/user"
		stopUser          = "PUT api/2/user"
	)
	unwilling := []jiratest.Fault{{Method: "DELETE", Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"not now"}`}}
	issue := func(b *bench) { b.mint(b.t.Context()) }
	works := func(b *bench) { b.worked() }
	users := func(b *bench) { b.throwAway(nil) }
	issueUser := func(b *bench) {
		users(b)
		issue(b)
	}
	busy := func(b *bench) {
		issueUser(b)
		b.jira.AddIssue("OPS", b.leases[0].secret.InternalData["username"].(string), "by a lease")
	}
	siblings := func(b *bench) {
		b.exclusive()
		issue(b)
		b.jira.Mint("sole-bot", "mine", 365)
		b.jira.Mint("sole-bot", "mine, too", 365)
		b.pass(b.world.lag) // what no list shows no sweep can find
	}
	access := func(b *bench) { b.service("") }
	lostUser := func(b *bench) {
		users(b)
		b.jira.Fault(jiratest.Fault{Nth: 2, Times: -1, Do: jiratest.Answer, Status: http.StatusServiceUnavailable})
		issue(b)
		b.jira.ClearFaults()
		b.sites.mu.Lock()
		b.sites.gate = nil // nor does it remember that Jira was away
		b.sites.site = nil
		b.sites.mu.Unlock()
	}
	lost := func(b *bench) { b.ledger.Over(b.lostMint().ID) }
	loseRecord := func(b *bench) {
		issue(b)
		if err := b.ledger.Forget(b.t.Context(), b.leases[0].id()); err != nil {
			b.t.Fatal(err)
		}
	}
	rotated := func(key, path string) func(*bench) {
		return func(b *bench) { b.wantRotated(key, path) }
	}
	const myself, account = "GET api/2/myself", "put accounts/ci-bot"
	keeps := func(b *bench) { // beside a lease
		b.tends = true
		b.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
		rotated("", "rotate-account/ci-bot")(b)
		issue(b)
	}
	return []scenario{
		{
			name:   "rotate a token",
			before: func(b *bench) { b.tends = true; b.knowsItsToken(); issue(b) },
			run:    rotated("accounts/ci-bot", "rotate-account/ci-bot"),
			steps:  []string{list, intended, post, issued, account, myself, account},
		},
		{
			name: "rotate a token when it is due",
			before: func(b *bench) {
				b.tends = true
				b.knowsItsToken()
				b.write("accounts/ci-bot", map[string]any{"rotation_period": "20h"})
			},
			wait:    20*time.Hour + time.Minute,
			run:     func(b *bench) { b.tended() },
			unasked: true,
			steps:   []string{list, intended, post, issued, account, myself, account},
		},
		{
			name: "rotate a token, and end the last",
			before: func(b *bench) {
				b.tends = true
				b.knowsItsToken()
				rotated("", "rotate-account/ci-bot")(b)
			},
			wait:    6 * time.Minute,
			run:     func(b *bench) { b.tended(); b.worked() },
			unasked: true,
			steps:   []string{owed, account, end, forgotten},
		},
		{
			name:   "rotate a password",
			before: func(b *bench) { b.tends = true; b.byPassword(); issue(b) },
			run:    rotated("accounts/ci-bot", "rotate-account/ci-bot"),
			steps:  []string{myself, account, "PUT api/2/myself/password", myself, account},
		},
		{
			name: "rotate a password, its answer lost",
			before: func(b *bench) {
				b.tends = true
				b.byPassword()
			},
			run:     rotated("accounts/ci-bot", "rotate-account/ci-bot"),
			weather: []jiratest.Fault{{Method: "PUT", Nth: 1, Do: jiratest.LoseAnswer}},
			steps:   []string{myself, account, "PUT api/2/myself/password", myself, account},
		},
		{
			name:   "rotate the root",
			before: func(b *bench) { b.tends = true; users(b) },
			run:    rotated("config", "rotate-root"),
			steps:  []string{list, intended, post, issued, "put config", myself, "put config"},
		},
		{
			name:   "a static role is made",
			before: func(b *bench) { b.tends = true },
			run: func(b *bench) {
				b.wantWritten("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "40h"})
			},
			steps: []string{"put static-roles/legacy", list, intended, post, issued, "put static-roles/legacy", myself, "put static-roles/legacy"},
		},
		{
			name: "rotate a static role",
			before: func(b *bench) {
				b.tends = true
				b.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "40h"})
			},
			run:   rotated("static-roles/legacy", "rotate-role/legacy"),
			steps: []string{list, intended, post, issued, "put static-roles/legacy", myself, "put static-roles/legacy"},
		},
		{
			name: "delete a static role",
			before: func(b *bench) {
				b.tends = true
				b.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "40h"})
			},
			run: func(b *bench) {
				b.want(func() bool {
					_, ok := b.ask(b.t.Context(), logical.DeleteOperation, "static-roles/legacy", nil)
					return ok
				})
			},
			steps: []string{"delete static-roles/legacy", owed, end, forgotten},
		},
		{
			name: "delete an account that logs in with its own token",
			before: func(b *bench) {
				b.tends = true
				b.knowsItsToken()
				rotated("", "rotate-account/ci-bot")(b)
				b.pass(10 * time.Minute)
				b.tended()
				b.worked()
				b.must(logical.DeleteOperation, "roles/readonly", nil)
			},
			run: func(b *bench) {
				b.want(func() bool {
					_, ok := b.ask(b.t.Context(), logical.DeleteOperation, "accounts/ci-bot", nil)
					return ok
				})
			},
			steps: []string{retire, owed, "delete accounts/ci-bot", end, forgotten},
		},
		{
			name:   "exclusive: revoke",
			before: siblings,
			run:    func(b *bench) { b.revokeNow(b.leases[0]) },
			steps:  []string{end, list, "put fence", end, end, list, forgotten},
		},
		{
			name:   "exclusive: revoke, queued",
			before: siblings,
			run:    func(b *bench) { b.revokeLater(b.leases[0]) },
			steps:  []string{owed, end, list, "put fence", end, end, list, forgotten},
		},
		{
			name:    "exclusive: a lease that is over",
			before:  siblings,
			wait:    shortTTL + time.Minute,
			run:     works,
			unasked: true,
			steps:   []string{list, owed, end, list, "put fence", end, end, list, forgotten},
		},
		{
			name:  "API token: mint",
			cloud: true,
			run:   issue,
			steps: []string{intended, postAPI, issued},
		},
		{
			name:    "API token: mint, its answer lost",
			cloud:   true,
			run:     issue,
			weather: []jiratest.Fault{{Method: "POST", Nth: 1, Do: jiratest.LoseAnswer}},
			steps:   []string{intended, postAPI, listAPI, owed, endAPI, forgotten},
		},
		{
			name:   "API token: revoke",
			cloud:  true,
			before: issue,
			run:    func(b *bench) { b.revokeNow(b.leases[0]) },
			steps:  []string{endAPI, forgotten},
		},
		{
			name:   "API token: revoke, queued",
			cloud:  true,
			before: issue,
			run:    func(b *bench) { b.revokeLater(b.leases[0]) },
			steps:  []string{owed, endAPI, forgotten},
		},
		{
			name:   "API token: revoke it early",
			cloud:  true,
			before: issue,
			run:    func(b *bench) { b.revokeEarly(b.leases[0]) },
			steps:  []string{owed, endAPI, ended},
		},
		{
			name:    "API token: a lease that is over",
			cloud:   true,
			before:  issue,
			wait:    shortTTL + time.Minute,
			run:     works,
			unasked: true,
			steps:   []string{listAPI, owed, endAPI, forgotten},
		},
		{
			name:   "access token: mint",
			before: access,
			run:    issue,
			steps:  []string{intended, "POST oauth2/latest/token", issued},
		},
		{
			name: "access token: revoke",
			before: func(b *bench) {
				access(b)
				issue(b)
			},
			run:   func(b *bench) { b.revokeNow(b.leases[0]) },
			steps: []string{forgotten},
		},
		{
			name:   "user: mint",
			before: users,
			run:    issue,
			steps:  []string{intended, makeUser, post, issued},
		},
		{
			name:    "user: mint, no token for him",
			before:  users,
			run:     issue,
			weather: []jiratest.Fault{{Method: "POST", Path: tokensAPI, Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"Basic Authentication has been disabled on this instance."}`}},
			steps:   []string{intended, makeUser, post, owed, endUser, forgotten},
		},
		{
			name:   "user: renew",
			before: issueUser,
			wait:   5 * time.Minute,
			run:    func(b *bench) { b.extend(b.leases[0]) },
			steps:  []string{issued},
		},
		{
			name:   "user: revoke",
			before: issueUser,
			run:    func(b *bench) { b.revokeNow(b.leases[0]) },
			steps:  []string{endUser, forgotten},
		},
		{
			name:   "user: revoke, queued",
			before: issueUser,
			run:    func(b *bench) { b.revokeLater(b.leases[0]) },
			steps:  []string{owed, endUser, forgotten},
		},
		{
			name:   "user: revoke, he reported something",
			before: busy,
			run:    func(b *bench) { b.revokeNow(b.leases[0]) },
			steps:  []string{endUser, stopUser, forgotten},
		},
		{
			name: "user: revoke, its record lost",
			before: func(b *bench) {
				issueUser(b)
				if err := b.ledger.Forget(b.t.Context(), b.leases[0].id()); err != nil {
					b.t.Fatal(err)
				}
			},
			run:   func(b *bench) { b.revokeNow(b.leases[0]) },
			steps: []string{endUser, forgotten},
		},
		{
			name:    "user: a lease that is over",
			before:  issueUser,
			wait:    shortTTL + time.Minute,
			run:     works,
			unasked: true,
			steps:   []string{owed, endUser, forgotten},
		},
		{
			name:   "user: a lost mint is settled",
			before: lostUser,
			run:    works,
			steps:  []string{owed, endUser, forgotten},
		},
		{
			name:   "user: a role is tried out",
			before: users,
			run: func(b *bench) {
				b.wantWritten("roles/readonly", map[string]any{"groups": "jira-software-users,jira-core-users"})
			},
			steps: []string{intended, makeUser, post, endUser, forgotten, "put roles/readonly"},
		},
		{
			name:   "user: the config is deleted by force",
			before: issueUser,
			run:    func(b *bench) { b.deleteByForce("config") },
			steps:  []string{owed, endUser, forgotten, "delete config"},
		},
		{
			name:  "mint",
			run:   issue,
			steps: []string{intended, post, issued},
		},
		{
			name:    "mint, its answer lost",
			run:     issue,
			weather: []jiratest.Fault{{Method: "POST", Nth: 1, Do: jiratest.LoseAnswer}},
			steps:   []string{intended, post, list, owed, end, forgotten},
		},
		{
			name: "mint, its reader gone",
			run: func(b *bench) {
				ctx, cancel := context.WithCancel(b.t.Context())
				defer cancel()
				var writes atomic.Int64
				f := func(key string) {
					if strings.HasPrefix(key, ledgerPrefix) && writes.Add(1) == 2 { // the intent, and then the token
						cancel()
					}
				}
				b.storage.stored.Store(&f)
				b.mint(ctx)
			},
			steps: []string{intended, post, issued, end, forgotten},
		},
		{
			name: "mint, once there is room",
			before: func(b *bench) {
				b.write("accounts/ci-bot", map[string]any{"max_tokens": 3})
				lost(b)
			},
			run:   issue,
			steps: []string{list, owed, end, forgotten, intended, post, issued},
		},
		{
			name: "mint, for the next account",
			before: func(b *bench) {
				b.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": b.pat("release-bot")})
				b.write("roles/readonly", map[string]any{"accounts": "ci-bot,release-bot"})
			},
			run:     issue,
			weather: []jiratest.Fault{{Method: "POST", Nth: 1, Do: jiratest.Answer, Status: http.StatusUnauthorized, Body: `{"message":"who are you"}`}},
			steps:   []string{intended, post, forgotten, intended, post, issued},
		},
		{
			name:   "renew",
			before: issue,
			wait:   5 * time.Minute,
			run:    func(b *bench) { b.extend(b.leases[0]) },
			steps:  []string{issued},
		},
		{
			name:   "revoke",
			before: issue,
			run:    func(b *bench) { b.revokeNow(b.leases[0]) },
			steps:  []string{end, forgotten},
		},
		{
			name:    "revoke, Jira unwilling",
			before:  issue,
			run:     func(b *bench) { b.revokeNow(b.leases[0]) },
			weather: unwilling,
			steps:   []string{end, owed},
		},
		{
			name:   "revoke, queued",
			before: issue,
			run:    func(b *bench) { b.revokeLater(b.leases[0]) },
			steps:  []string{end, forgotten},
		},
		{
			name:    "revoke, queued, Jira unwilling",
			before:  issue,
			run:     func(b *bench) { b.revokeLater(b.leases[0]) },
			weather: unwilling,
			steps:   []string{end, owed},
		},
		{
			name:   "revoke, its record lost",
			before: loseRecord,
			run:    func(b *bench) { b.revokeNow(b.leases[0]) },
			steps:  []string{end, forgotten},
		},
		{
			name:    "revoke, its record lost, Jira unwilling",
			before:  loseRecord,
			run:     func(b *bench) { b.revokeNow(b.leases[0]) },
			weather: unwilling,
			steps:   []string{end, owed},
		},
		{
			name:    "revoke at the lease's end",
			before:  issue,
			wait:    shortTTL,
			run:     func(b *bench) { b.end(b.leases[0], true) },
			unasked: true,
			steps:   []string{owed, end, forgotten},
		},
		{
			name:    "settle a lost mint",
			before:  lost,
			run:     works,
			unasked: true,
			steps:   []string{list, owed, end, forgotten},
		},
		{
			name: "settle a lost mint in the end",
			before: func(b *bench) {
				b.write("roles/readonly", map[string]any{"max_ttl": "24h"}) // so that Jira does not end it by itself
				lost(b)
			},
			wait:    ledger.LateLanding + time.Minute,
			run:     works,
			unasked: true,
			steps:   []string{list, owed, end, forgotten},
		},
		{
			name: "settle a mint that made nothing",
			before: func(b *bench) {
				m, err := b.intend(b.t.Context(), ledger.Reader{}, "readonly", 0, nil)
				if err != nil {
					b.t.Fatal(err)
				}
				b.ledger.Over(m.record.ID)
			},
			run:     works,
			unasked: true,
			steps:   []string{list, intended},
		},
		{
			name:   "revoke a token early",
			before: issue,
			run:    func(b *bench) { b.revokeEarly(b.leases[0]) },
			steps:  []string{owed, end, ended},
		},
		{
			name:    "revoke a token early, Jira unwilling",
			before:  issue,
			run:     func(b *bench) { b.revokeEarly(b.leases[0]) },
			weather: unwilling,
			steps:   []string{owed, end},
		},
		{
			name: "pay for a token that was revoked early",
			before: func(b *bench) {
				issue(b)
				remove := b.jira.Fault(unwilling[0])
				b.revokeEarly(b.leases[0])
				remove()
				b.pass(time.Minute)
			},
			run:   works,
			steps: []string{end, ended},
		},
		{
			name:   "user: revoke his token early",
			before: issueUser,
			run:    func(b *bench) { b.revokeEarly(b.leases[0]) },
			steps:  []string{owed, endUser, ended},
		},
		{
			name: "the lease of a token that was revoked early",
			before: func(b *bench) {
				issue(b)
				b.revokeEarly(b.leases[0])
			},
			run:   func(b *bench) { b.revokeLater(b.leases[0]) },
			steps: []string{forgotten},
		},
		{
			name: "pay a debt",
			before: func(b *bench) {
				issue(b)
				remove := b.jira.Fault(unwilling[0])
				b.revokeNow(b.leases[0])
				remove()
			},
			run:   works,
			steps: []string{end, forgotten},
		},
		{
			name:   "end what Vault has lost",
			before: issue,
			wait:   shortTTL + ledger.Grace + time.Second,
			run: func(b *bench) {
				if !b.wire.cut.kind.stale { // its successor's Vault has it
					b.leases[0].gone = true
				}
				b.worked()
			},
			unasked: true,
			steps:   []string{list, owed, end, forgotten},
		},
		{
			name: "delete an account by force",
			before: func(b *bench) {
				issue(b)
				b.must(logical.DeleteOperation, "roles/readonly", nil)
			},
			run:   func(b *bench) { b.deleteByForce("accounts/ci-bot") },
			steps: []string{owed, end, forgotten, "delete accounts/ci-bot"},
		},
		{
			name: "delete an account by force, Jira unwilling",
			before: func(b *bench) {
				issue(b)
				b.must(logical.DeleteOperation, "roles/readonly", nil)
			},
			run:     func(b *bench) { b.deleteByForce("accounts/ci-bot") },
			weather: unwilling,
			steps:   []string{owed, end, retire, owed, "delete accounts/ci-bot"},
		},
		{
			name:   "delete the config by force",
			before: issue,
			run:    func(b *bench) { b.deleteByForce("config") },
			steps:  []string{owed, end, forgotten, "delete config"},
		},
		{
			name: "pay for a deleted account",
			before: func(b *bench) {
				issue(b)
				b.must(logical.DeleteOperation, "roles/readonly", nil)
				remove := b.jira.Fault(unwilling[0])
				b.deleteByForce("accounts/ci-bot")
				remove()
			},
			wait:  2 * time.Minute,
			run:   works,
			steps: []string{end, forgotten, released},
		},
		{
			name:    "start, with a lost mint",
			before:  lost,
			run:     func(b *bench) { b.attempt(b.start); b.worked() },
			unasked: true,
			steps:   []string{"list ledger/…", list, owed, end, forgotten},
		},
		{
			name:   "write the config anew",
			before: issue,
			run: func(b *bench) {
				b.wantWritten("config", map[string]any{"max_concurrent_requests": 5})
			},
			steps: []string{"GET api/2/serverInfo", "put config"},
		},
		{
			name:   "write an account anew",
			before: issue,
			run: func(b *bench) {
				b.wantWritten("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": b.pat("ci-bot")})
			},
			steps: []string{"GET api/2/myself", "put accounts/ci-bot"},
		},
		{
			name:   "change the mount's id",
			before: func(b *bench) { issue(b); lost(b) },
			run:    func(b *bench) { b.wantWritten("config/rotate-mount-id", nil) },
			steps:  []string{"put mount-id"},
		},
		{
			name:   "move the mount",
			before: issue,
			run:    func(b *bench) { b.want(b.moves) },
			steps:  []string{owed, end, ended, forgotten},
		},
		{
			name:   "move the mount, of what no lease holds",
			before: keeps,
			run:    func(b *bench) { b.want(b.moves) },
			steps:  []string{owed, end, ended, forgotten},
		},
		{
			name:   "disable the mount",
			before: keeps,
			run:    func(b *bench) { b.want(b.disables) },
			steps:  []string{owed, end, ended, forgotten, owed, end, forgotten, owed, end, forgotten},
		},
		{
			name: "tidy an orphan",
			before: func(b *bench) {
				before := b.snapshot()
				issue(b)
				b.leases = nil
				b.strays = true
				b.restored(before)
			},
			wait:    5 * time.Minute,
			run:     func(b *bench) { b.want(b.tidies) },
			unasked: true,
			steps:   []string{list, owed, end, forgotten},
		},
		{
			name: "tidy what was deleted in Jira",
			before: func(b *bench) {
				issue(b)
				b.leases[0].asked = true
				id, _ := strconv.ParseInt(tokenID(b.leases[0].secret), 10, 64) // else the token lives, and all fails
				b.jira.Delete(id)
			},
			wait:    5 * time.Minute,
			run:     func(b *bench) { b.want(b.tidies) },
			unasked: true,
			steps:   []string{list, forgotten},
		},
	}
}

// exclusive has the role hand out tokens of an exclusive account.
func (b *bench) exclusive() {
	b.t.Helper()
	b.sole = true
	b.jira.AddUser(jiratest.User{Name: "sole-bot", Password: "a password of sole-bot's"})
	b.write("accounts/sole", map[string]any{"username": "sole-bot", "password": "a password of sole-bot's", "exclusive": true})
	b.write("roles/readonly", map[string]any{"accounts": "sole"})
}

// wantRotated has an operator rotate what lies under key until that has gone well.
// One who sees that it was rotated, though he did not hear so, is content.
func (b *bench) wantRotated(key, path string) {
	b.t.Helper()
	b.rotated = key
	b.want(func() bool {
		_, ok := b.ask(b.t.Context(), logical.UpdateOperation, path, nil)
		return ok
	})
}

// knowsItsToken has the account's token be one whose id is known.
func (b *bench) knowsItsToken() {
	b.t.Helper()
	b.pass(b.world.lag)
	b.write("accounts/ci-bot", map[string]any{"own_token_id": strconv.FormatInt(b.jira.Tokens("ci-bot")[0].ID, 10)})
}

// byPassword has the account log in with its password.
func (b *bench) byPassword() {
	b.t.Helper()
	b.write("accounts/ci-bot", map[string]any{"password": b.passwordOf("ci-bot")})
}

// service has the role hand out access tokens, which can be revoked at address.
func (b *bench) service(address string) {
	b.t.Helper()
	a := b.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	b.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret, "revocation_url": address})
	b.must(logical.DeleteOperation, "roles/readonly", nil)
	b.write("roles/readonly", map[string]any{"credential_type": "oauth2", "accounts": "reporting", "ttl": shortTTL.String(), "max_ttl": shortMax.String()})
}

// throwAway has the role hand out users that are made for the lease.
func (b *bench) throwAway(more map[string]any) {
	b.t.Helper()
	b.users = true
	b.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	b.write("config", map[string]any{"username": "jira-admin", "token": b.pat("jira-admin"), "allow_admin_roles": "readonly"})
	data := map[string]any{"credential_type": "ephemeral_user", "accounts": "", "groups": "jira-software-users", "project_roles": "OPS:Developers", "verify": false}
	for field, value := range more {
		data[field] = value
	}
	b.write("roles/readonly", data)
}

// revokeNow is a person's revoke, who waits for it. If Jira fails in it the
// engine has made it its own affair; where the node or its storage does he has
// to come again.
func (b *bench) revokeNow(h *held) {
	h.asked = true
	if c := b.wire.cut; !b.end(h, false) && (!c.step.jira || b.wire.dead()) {
		b.wishes = append(b.wishes, func() bool { return h.gone || b.end(h, false) })
	}
}

// revokeLater is a revoke that nobody waits for.
func (b *bench) revokeLater(h *held) {
	h.asked, h.queued = true, true
	b.end(h, true)
}

// revokeEarly has somebody end what a lease holds, until he is told that it is gone. The
// lease goes on, and ends without anything in Jira.
func (b *bench) revokeEarly(h *held) {
	h.asked = true
	b.want(func() bool {
		resp, ok := b.ask(b.t.Context(), logical.UpdateOperation, "tokens/"+h.id()+"/revoke", nil)
		if ok = ok && (resp == nil || len(resp.Warnings) == 0); ok && b.works(h) {
			b.t.Errorf("token %q was reported revoked, and works", h.name())
		}
		return ok || h.gone
	})
}

// deleteByForce deletes a resource whatever leases there are.
func (b *bench) deleteByForce(path string) {
	for _, h := range b.leases {
		h.asked = true
	}
	b.want(func() bool {
		_, ok := b.ask(b.t.Context(), logical.DeleteOperation, path, map[string]any{"force": true})
		return ok
	})
}

// wantWritten has an operator write a resource until that has gone well.
func (b *bench) wantWritten(path string, data map[string]any) {
	b.want(func() bool {
		_, ok := b.ask(b.t.Context(), logical.UpdateOperation, path, data)
		return ok
	})
}

// tidies runs a tidy, and tells whether it went well.
func (b *bench) tidies() bool {
	if !b.attempt(func() {
		_, err := b.request(b.t.Context(), logical.UpdateOperation, "tidy", map[string]any{"dry_run": false})
		b.answered(err)
		b.running.Wait() // nothing else runs in the background
	}) {
		return false
	}
	s, err := load[tidyStatus](b.t.Context(), &decoded{}, b.disk, tidyStatusKey)
	if err != nil {
		b.t.Fatal(err)
	}
	if s == nil || s.State != tidyFinished || s.DryRun {
		return false
	}
	b.strays = false
	return true
}

// moves moves the mount, as Vault does, and tells whether that went well. If not, it
// stays tainted.
func (b *bench) moves() bool {
	b.system.TaintedVal = true
	for _, h := range b.leases {
		h.asked = true
	}
	if !b.attempt(func() { _ = b.periodically() }) { // Vault ignores its error
		return false
	}
	for _, h := range b.leases {
		if !h.gone && !b.end(h, false) {
			return false
		}
	}
	b.system.TaintedVal = false
	return true
}

// disables disables the mount, as Vault does, and tells whether that went well. Then
// its storage is empty, and somebody has ended what the log has told to be left.
func (b *bench) disables() bool {
	if b.background.Err() != nil { // it was closed before, and Vault starts it anew
		b.wake()
	}
	if !b.moves() {
		return false
	}
	b.system.TaintedVal = true
	if !b.attempt(func() { b.Cleanup(b.t.Context()) }) {
		return false
	}
	if k := b.wire.over(); k.lasting && !b.wire.cut.step.jira { // so it cannot be wiped
		return false
	}
	b.wire.disarm()
	b.system.TaintedVal = false
	for key := range b.snapshot() {
		if err := b.disk.Delete(b.t.Context(), key); err != nil {
			b.t.Fatal(err)
		}
	}
	b.wake()
	for _, tok := range b.jira.Tokens("") {
		switch {
		case !strings.HasPrefix(tok.Name, "vault-") || !tok.Live:
		case b.logged("[ERROR]", "may be alive in Jira", "token_name="+tok.Name):
			b.jira.Delete(tok.ID)
		default:
			b.t.Errorf("the mount is gone, and nobody was told of token %q", tok.Name)
		}
	}
	return true
}
