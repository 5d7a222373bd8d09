package backend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const fallbackOfCI = "a password of ci-bot's"

// lockedOut is an engine with the account ci-bot, whose own token was deleted by a reader
// with a leased one, as any reader can, and two leases of it.
func lockedOut(t *testing.T, o jiratest.Options, admin bool, account map[string]any) (*engine, []*logical.Response) {
	t.Helper()
	e := start(t, o)
	e.write("config", map[string]any{"url": e.jira.URL()})
	if admin {
		e.write("config", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin")})
	}
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = fallbackOfCI })
	token, secret := e.jira.Mint("ci-bot", "made by hand", 90)
	e.write("accounts/ci-bot", merged(map[string]any{"username": "ci-bot", "token": secret}, account))
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
	leases := []*logical.Response{e.issue("readonly", nil), e.issue("readonly", nil)}
	if status := e.can(leases[0], "DELETE", fmt.Sprint(tokensAPI, "/", token.ID), ""); status != http.StatusNoContent {
		t.Fatalf("a reader's delete of the engine's token: %d", status)
	}
	e.jira.ResetCalls()
	return e, leases
}

// TestTheAdministratorEndsTokens of an account whose login Jira refuses, if Jira lets
// administrators see the tokens of others. If not, nothing is called ended.
func TestTheAdministratorEndsTokens(t *testing.T) {
	for _, may := range []bool{true, false} {
		t.Run(fmt.Sprintf("Jira lets them %v", may), func(t *testing.T) {
			e, leases := lockedOut(t, jiratest.Options{Switches: jiratest.Switches{AdminOwnTokensOnly: !may}}, true, nil)
			_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, leases[0].Secret)
			if !may {
				e.failed(400, nil, err, "401 login refused", "config's administrator", "does not see this token")
				if n := len(e.alive()); n != 2 {
					t.Errorf("alive: %v", e.alive())
				}
				e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")})
				e.revoke(leases[0].Secret)
				e.revoke(leases[1].Secret)
				e.nothingHeld()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !e.logged("[WARN]", "as the config's administrator", "token_id="+tokenID(leases[0].Secret)) {
				t.Error("the log does not tell")
			}
			// What the worker pays goes the same way.
			remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: http.StatusForbidden, Body: `{"message":"not now"}`})
			if err := e.revokeQueued(leases[1].Secret); err == nil {
				t.Error("revoked")
			}
			remove()
			e.pass(time.Minute)
			e.settled()
			e.nothingHeld()
		})
	}
}

// TestADeleteThatDoesNothing: what counts is what the administrator sees afterwards.
func TestADeleteThatDoesNothing(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, true, nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", User: "jira-admin", Do: jiratest.Answer, Status: http.StatusNoContent})
	_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, leases[0].Secret)
	e.failed(400, nil, err, "login refused", "still there")
	if e.call(leases[0].Data["token"].(string)) != http.StatusOK {
		t.Error("the token is dead, which this test is not about")
	}
	remove()
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
	e.nothingHeld()
}

// TestTheAdministratorEndsNobodyElsesToken: they see every user's, so an id alone is
// nothing to go by.
func TestTheAdministratorEndsNobodyElsesToken(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "token": e.pat("jira-admin")})
	brought, secret := e.jira.Mint("ci-bot", "made by hand", 90)
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": secret})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
	backup := e.jira.Backup()
	lease := e.issue("readonly", nil)
	e.jira.Restore(backup)
	persons, _ := e.jira.Mint("release-bot", "made by a person", 90)
	if fmt.Sprint(persons.ID) != tokenID(lease.Secret) {
		t.Fatalf("the person's token is %d, and the lease's was %s", persons.ID, tokenID(lease.Secret))
	}
	e.jira.Delete(brought.ID)
	e.revoke(lease.Secret) // its id is another token's, so it is gone
	if !e.has(persons.ID, "made by a person") {
		t.Error("a person's token was deleted")
	}
	e.nothingHeld()
}

// TestTheAdministratorEndsTokensOfAUserWhomJiraLimits: whoever uses up what a user may
// call does not keep that user's tokens alive.
func TestTheAdministratorEndsTokensOfAUserWhomJiraLimits(t *testing.T) {
	e := twoAccounts(t)
	e.write("config", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin")})
	waits, queued := e.issue("readonly", nil), e.issue("readonly", nil)
	e.jira.Fault(limited("ci-bot"))
	e.revoke(waits.Secret)
	if err := e.revokeQueued(queued.Secret); err != nil {
		t.Error(err)
	}
	e.nothingHeld()
	e.unlimit()
}

// TestAnExclusiveAccountThatOnlyTheAdministratorReaches: what a reader made with the token
// cannot be seen without the account's own list, so the debt stays.
func TestAnExclusiveAccountThatOnlyTheAdministratorReaches(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "token": e.pat("jira-admin")})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.rotate("rotate-account/ci-bot")
	e.jira.Delete(e.jira.Tokens("ci-bot")[0].ID) // the one that was brought
	e.write("accounts/ci-bot", map[string]any{"exclusive": true})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
	lease := e.issue("readonly", nil)
	e.jira.Mint("ci-bot", "mine", 90)
	e.jira.Delete(e.jira.Tokens("ci-bot")[0].ID) // the engine's own
	_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
	e.failed(400, nil, err, "the token is ended", "cannot be looked for", "login refused")
	if e.call(lease.Data["token"].(string)) == http.StatusOK {
		t.Error("the token is alive")
	}
	e.write("accounts/ci-bot", map[string]any{"exclusive": false, "token": e.pat("ci-bot")})
	e.revoke(lease.Secret)
	e.dismantled()
}

// TestAFallbackPassword: an account whose token somebody has deleted goes on with its
// password, in all that it does, until the token is replaced.
func TestAFallbackPassword(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, map[string]any{"fallback_password": fallbackOfCI})
	if got := e.read("accounts/ci-bot"); got["has_fallback"] != true || got["credential_kind"] != "token" || got["fallback_password"] != nil {
		t.Errorf("the account reads %v", got)
	}
	e.revoke(leases[0].Secret) // finds out
	third := e.issue("readonly", nil)
	if err := e.revokeQueued(leases[1].Secret); err != nil {
		t.Error(err)
	}
	e.finds("fallback_password", "rotate-account")

	// A lost mint is looked for with it.
	lost := e.lostMint()
	e.ledger.Over(lost.ID)
	e.settled()
	if names := e.alive(); len(names) != 1 {
		t.Errorf("alive: %v", names)
	}

	// It makes the next token, too.
	e.rotate("rotate-account/ci-bot")
	if e.call(e.own("ci-bot")) != http.StatusOK {
		t.Error("the account was rotated, and its token does not work")
	}
	e.well()
	e.jira.ResetCalls()
	e.revoke(third.Secret)
	for _, call := range e.jira.Calls() {
		if call.Auth == "basic" {
			t.Error("the password is sent where the token works")
		}
	}
	e.dismantled()
	e.nothingHeld()
}

// TestAFallbackPasswordOutlivesItsAccount: what a deleted account still owes is ended with it,
// too.
func TestAFallbackPasswordOutlivesItsAccount(t *testing.T) {
	e, _ := lockedOut(t, jiratest.Options{}, false, map[string]any{"fallback_password": fallbackOfCI})
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: http.StatusBadGateway})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	if n := len(e.alive()); n != 2 {
		t.Fatalf("alive: %v", e.alive())
	}
	remove()
	e.mount() // a new node knows of no login that was refused
	e.pass(time.Hour)
	e.settled()
	e.settled() // with the fallback: the first has found the token refused
	e.nothingHeld()
}

// TestAReadFindsOutThatTheTokenIsGone, and is answered all the same.
func TestAReadFindsOutThatTheTokenIsGone(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, map[string]any{"fallback_password": fallbackOfCI})
	leases = append(leases, e.issue("readonly", nil))
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
	e.nothingHeld()
}

// TestAFallbackPasswordThatIsWrong is refused when it is written, and tried once when it has
// become wrong: Jira locks a user out after three wrong passwords.
func TestAFallbackPasswordThatIsWrong(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, map[string]any{"fallback_password": fallbackOfCI})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "another, which nobody told the engine" })
	for range 5 {
		_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, leases[0].Secret)
		e.failed(400, nil, err, "login refused")
		e.settled()
	}
	wrong := 0
	for _, call := range e.jira.Calls() {
		if call.Auth == "basic" {
			wrong++
		}
	}
	if wrong != 1 {
		t.Errorf("a wrong password was sent %d times", wrong)
	}
	other := e.pat("ci-bot")
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"token": other, "fallback_password": "wrong"}, "fallback_password")
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"token": other, "fallback_password": ""}, "fallback_password is empty")
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"password": "another, which nobody told the engine"}, "fallback_password is for an account that logs in with a token")
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"token": other, "fallback_password": nil})
	if got := e.read("accounts/ci-bot"); got["has_fallback"] != false {
		t.Errorf("the account reads %v", got)
	}
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
	if strings.Contains(e.storage.dump(t), fallbackOfCI) {
		t.Error("a password that was removed is stored")
	}
	e.nothingHeld()
}
