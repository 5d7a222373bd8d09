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

// warns asserts that an answer has a warning with all these words.
func warns(t *testing.T, resp *logical.Response, words ...string) {
	t.Helper()
	said := ""
	if resp != nil {
		said = strings.Join(resp.Warnings, "\n")
	}
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("the warnings do not say %q: %q", word, said)
		}
	}
}

// warnsOfNothing asserts that an answer has no warnings.
func warnsOfNothing(t *testing.T, resp *logical.Response) {
	t.Helper()
	if resp != nil && len(resp.Warnings) > 0 {
		t.Errorf("warned: %v", resp.Warnings)
	}
}

// An account, or an administrator with a token, is accepted only where the user's tokens
// can be listed: without that nothing could be made and ended.
func TestNobodyIsAcceptedWhoseTokensCannotBeListed(t *testing.T) {
	const password = "a password of ci-bot's"
	for name, test := range map[string]struct {
		switches jiratest.Switches
		fault    *jiratest.Fault
		status   int
		words    string
		bearer   bool // a token is believed all the same
	}{
		"switched off":            {switches: jiratest.Switches{PATsOff: true}, status: 400, words: "403"},
		"not mounted":             {switches: jiratest.Switches{NotMounted: []string{"/rest/pat"}}, status: 400, words: "404", bearer: true},
		"a page of 404":           {fault: &jiratest.Fault{Do: jiratest.HTML404}, status: 502, words: "Not found", bearer: true},
		"a page of 403":           {fault: &jiratest.Fault{Do: jiratest.Answer, Status: 403, Body: "<html>no</html>"}, status: 400, words: "403", bearer: true},
		"sent to a login":         {fault: &jiratest.Fault{Do: jiratest.Answer, Status: 302, Header: http.Header{"Location": {"https://sso.example.com/"}}}, status: 502, words: "302", bearer: true},
		"a login page":            {fault: &jiratest.Fault{Do: jiratest.HTML200}, status: 502, words: "login page", bearer: true},
		"nonsense":                {fault: &jiratest.Fault{Do: jiratest.Answer, Status: 200, Body: `{"tokens":[]}`}, status: 502, words: "unexpected answer", bearer: true},
		"answered to nobody":      {fault: &jiratest.Fault{Do: jiratest.Answer, Status: 200, Body: `[]`}, status: 502, words: "unexpected answer", bearer: true},
		"away":                    {fault: &jiratest.Fault{Do: jiratest.Answer, Status: 503}, status: 503, words: "503", bearer: true},
		"gone with the next word": {fault: &jiratest.Fault{Do: jiratest.CutBody}, status: 502, words: "unexpected answer", bearer: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, jiratest.Options{Switches: test.switches})
			e.write("config", map[string]any{"url": e.jira.URL()})
			e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = password })
			if test.fault != nil {
				test.fault.Path = tokensAPI
				e.jira.Fault(*test.fault)
			}
			said := []string{`the tokens of user "ci-bot" cannot be listed`, "/rest/pat", test.words}
			e.refuses(test.status, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "password": password}, said...)
			if !test.bearer {
				return
			}
			e.refuses(test.status, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")}, said...)
			e.refuses(test.status, logical.UpdateOperation, "config", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin")}, `the tokens of user "jira-admin" cannot be listed`)

			// Nor is one that is there already, where something changes that is checked.
			e.jira.ClearFaults()
			if test.fault == nil {
				return
			}
			e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "password": password})
			e.jira.Fault(*test.fault)
			e.refuses(test.status, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"exclusive": true}, said...)
		})
	}
}

// The token that was brought is known if the user has no other: when it expires is told,
// and it ends with the first rotation.
func TestTheOnlyTokenIsTheOneThatWasBrought(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.jira.Mint("ci-bot", "of last year", 1)
	e.pass(48 * time.Hour) // it has expired, and Jira lists it still
	e.settled()
	brought, secret := e.jira.Mint("ci-bot", "made by hand", 30)
	warnsOfNothing(t, e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": secret}))
	got := e.read("accounts/ci-bot")
	if got["own_token_id"] != fmt.Sprint(brought.ID) || got["credential_expires_at"] != rfc3339(brought.Expires.Truncate(time.Second)) {
		t.Errorf("reads %v", got)
	}
	e.well()

	// It stays known, whoever comes, if it is written once more.
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
	lease := e.issue("readonly", nil)
	another, _ := e.jira.Mint("ci-bot", "another", 30)
	warnsOfNothing(t, e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": secret}))
	if again := e.read("accounts/ci-bot"); again["own_token_id"] != got["own_token_id"] {
		t.Errorf("reads %v", again)
	}

	// So with the administrator.
	root, secret := e.jira.Mint("jira-admin", "made by hand", 30)
	warnsOfNothing(t, e.write("config", map[string]any{"username": "jira-admin", "token": secret}))
	if got := e.read("config"); got["own_token_id"] != fmt.Sprint(root.ID) || got["credential_expires_at"] == "" {
		t.Errorf("reads %v", got)
	}
	e.well()

	warnsOfNothing(t, e.rotate("rotate-account/ci-bot"))
	e.pass(time.Hour)
	e.tended()
	if e.has(brought.ID, "made by hand") || !e.has(another.ID, "another") {
		t.Error("the token that was brought is alive, or another is not")
	}
	e.revoke(lease.Secret)
	e.dismantled()
}

// Where the user has others, the warning tells which there are, and status that nobody
// knows when the one in use expires.
func TestOneOfSeveralTokensWasBrought(t *testing.T) {
	e := start(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: -1}})
	e.write("config", map[string]any{"url": e.jira.URL()})
	first, _ := e.jira.Mint("ci-bot", "laptop", 90)
	brought, secret := e.jira.Mint("ci-bot", "for Vault", 0)
	fields := map[string]any{"username": "ci-bot", "token": secret, "max_tokens": 100}
	warns(t, e.write("accounts/ci-bot", fields), "which of them was given is not known", "own_token_id", fmt.Sprintf("%d %q, %d %q", first.ID, "laptop", brought.ID, "for Vault"))
	if got := e.read("accounts/ci-bot"); got["own_token_id"] != "" || got["credential_expires_at"] != "" {
		t.Errorf("reads %v", got)
	}
	e.finds(`account "ci-bot": which of its user's tokens it logs in with is not known`, "own_token_id")

	// A rotation on time will replace it, whenever it expires.
	e.write("accounts/ci-bot", map[string]any{"rotation_period": "720h"})
	e.well()
	e.write("accounts/ci-bot", map[string]any{"rotation_period": nil})
	warnsOfNothing(t, e.write("accounts/ci-bot", map[string]any{"own_token_id": fmt.Sprint(brought.ID)}))
	e.well() // one that never expires

	// Of many only some are told.
	for i := range 40 {
		e.jira.Mint("ci-bot", strings.Repeat("n", 30)+fmt.Sprint(i), 90)
	}
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"own_token_id": nil})
	resp := e.write("accounts/ci-bot", fields)
	warns(t, resp, "and 32 more")
	if n := len(strings.Join(resp.Warnings, "")); n > 1500 {
		t.Errorf("a warning of %d bytes", n)
	}
}

// An operator who brings a leased token is told no lie: the one that the user made by hand
// is not taken for it, and so not ended by a rotation.
func TestALeasedTokenThatIsBrought(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL()})
	persons, _ := e.jira.Mint("ci-bot", "laptop", 90)
	leased, secret := e.jira.Mint("ci-bot", "vault-aaaaaa-bbbbbbbbbbbbbbbb-other", 1)
	warns(t, e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": secret}), "which of them was given is not known")
	e.rotate("rotate-account/ci-bot")
	e.pass(time.Hour)
	e.tended()
	if !e.has(persons.ID, "laptop") {
		t.Error("another token was ended")
	}
	e.jira.Delete(leased.ID)
	e.dismantled()
}

// A list that does not show the token that it was asked for with: it may lag, or the token
// is one that an engine made for a lease.
func TestATokenThatTheListDoesNotShow(t *testing.T) {
	for name, bring := range map[string]func(e *engine) string{
		"the list lags": func(e *engine) string { return e.pat("ci-bot") },
		"a leased one": func(e *engine) string {
			made, secret := e.jira.Mint("ci-bot", "vault-aaaaaa-bbbbbbbbbbbbbbbb-other", 1)
			e.t.Cleanup(func() { e.jira.Delete(made.ID) })
			e.jira.Advance(time.Hour)
			return secret
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, jiratest.Options{Switches: jiratest.Switches{ListLag: time.Minute}})
			e.write("config", map[string]any{"url": e.jira.URL()})
			warns(t, e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": bring(e)}), "does not show the one that was given")
			if got := e.read("accounts/ci-bot"); got["own_token_id"] != "" {
				t.Errorf("reads %v", got)
			}
		})
	}
}

// A user whose places are taken by others' tokens has none for leases; what is the engine's
// own comes and goes.
func TestAUserWhoseTokensAreAsManyAsHeMay(t *testing.T) {
	const password = "a password of ci-bot's"
	for _, kind := range []string{"token", "password"} {
		t.Run(kind, func(t *testing.T) {
			e := start(t, jiratest.Options{})
			e.write("config", map[string]any{"url": e.jira.URL()})
			e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = password })
			own, secret := e.jira.Mint("ci-bot", "made by hand", 90)
			login := map[string]any{"username": "ci-bot", "password": password, "max_tokens": 4}
			places := 3
			if kind == "token" {
				login = map[string]any{"username": "ci-bot", "token": secret, "own_token_id": fmt.Sprint(own.ID), "max_tokens": 4}
				places = 2
			}
			warnsOfNothing(t, e.write("accounts/ci-bot", login))
			e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
			for range places {
				lease := e.issue("readonly", nil)
				defer e.revoke(lease.Secret)
			}
			warnsOfNothing(t, e.write("accounts/ci-bot", login))
			for i := range places {
				resp := e.write("accounts/ci-bot", login)
				warnsOfNothing(t, resp)
				e.jira.Mint("ci-bot", fmt.Sprint("another ", i), 90)
			}
			warns(t, e.write("accounts/ci-bot", login), "owns", "that the engine did not make, and max_tokens is 4", "no room for leases", "atlassian.pats.max.tokens.per.user")
		})
	}
}

// A write of what Jira has no say in asks nobody, so an account whose token is dead, or
// whose Jira is away, can be narrowed, put out of use and scheduled.
func TestAWriteThatJiraHasNoSayIn(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, nil)
	for _, fields := range []map[string]any{
		{"max_tokens": 9}, {"allowed_roles": "readonly"}, {"rotation_period": "720h"}, {"disable_automated_rotation": true},
	} {
		warnsOfNothing(t, e.write("accounts/ci-bot", fields))
	}
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	// All else is checked, with what does not work as well.
	for _, fields := range []map[string]any{{"allow_admin": true}, {"username": "release-bot"}, {"own_token_id": "4711"}} {
		e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", fields, "checking the token", "401")
	}
	e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")})
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
}

// The way out is open when it is needed: a fallback password that is written once the
// token is dead is checked by itself.
func TestAFallbackPasswordForATokenThatIsDead(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, nil)
	e.jira.AddUser(jiratest.User{Name: "another", Password: "a password of another's"})
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"fallback_password": "wrong"}, "checking the fallback_password", "401")
	id := e.read("accounts/ci-bot")["own_token_id"]
	warns(t, e.write("accounts/ci-bot", map[string]any{"fallback_password": fallbackOfCI}), "Jira refuses the token that is in use")
	if got := e.read("accounts/ci-bot"); got["has_fallback"] != true || got["own_token_id"] != id || id == "" {
		t.Errorf("reads %v", got)
	}
	e.revoke(leases[0].Secret)
	// It vouches for other fields, too, but for no administrator and no other user.
	warns(t, e.write("accounts/ci-bot", map[string]any{"allow_admin": true}), "Jira refuses the token that is in use")
	e.write("accounts/ci-bot", map[string]any{"allow_admin": false})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = true })
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"exclusive": false, "own_token_id": nil}, "administers Jira")
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = false })
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "another"}, "fallback_password")
	// A token that is sent has to work itself.
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"token": "c29tZXRoaW5nIGVsc2U", "fallback_password": fallbackOfCI}, "checking the token")
	warnsOfNothing(t, e.rotate("rotate-account/ci-bot"))
	e.revoke(leases[1].Secret)
	e.dismantled()
}

// A fallback password that logs in another user is refused, whatever name it was sent with.
func TestAFallbackPasswordOfAnother(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, nil)
	e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/rest/api/2/myself", Nth: 2, Do: jiratest.Answer, Body: `{"name":"another","key":"JIRAUSER99","active":true}`}) // after the token's
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"fallback_password": fallbackOfCI}, `the fallback_password belongs to "another"`)
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
}

// A rotation warns of no token that is gone, nor of one that it knows.
func TestARotationOfATokenThatIsGone(t *testing.T) {
	e, leases := lockedOut(t, jiratest.Options{}, false, map[string]any{"fallback_password": fallbackOfCI})
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"own_token_id": nil})
	e.jira.Mint("ci-bot", "laptop", 90)
	e.revoke(leases[0].Secret) // finds out
	warnsOfNothing(t, e.rotate("rotate-account/ci-bot"))
	e.revoke(leases[1].Secret)
	e.dismantled()
}

// The config can be written while the credential in it is dead, as long as nothing of it
// changes.
func TestAConfigWhoseCredentialIsDead(t *testing.T) {
	for _, tells := range []bool{true, false} {
		t.Run(fmt.Sprintf("Jira tells its version %v", tells), func(t *testing.T) {
			e := start(t, jiratest.Options{Switches: jiratest.Switches{ServerInfoLogin: !tells}})
			root, secret := e.jira.Mint("jira-admin", "made by hand", 30)
			e.write("config", map[string]any{"url": e.jira.URL(), "username": "jira-admin", "token": secret})
			version := e.read("config")["version"]
			e.jira.Delete(root.ID)
			for _, fields := range []map[string]any{{"request_timeout": "5s"}, {"allow_admin_roles": "root"}, {"rotation_period": "720h"}} {
				warns(t, e.write("config", fields), "which this write leaves as it is, does not work")
			}
			if got := e.read("config"); got["version"] != version || version == "" || got["request_timeout"] != 5 {
				t.Errorf("reads %v", got)
			}
			for _, fields := range []map[string]any{{"token": secret}, {"username": "ci-bot"}, {"own_token_id": "1"}} {
				e.refuses(400, logical.UpdateOperation, "config", fields, "checking the admin's credential")
			}
			warnsOfNothing(t, e.write("config", map[string]any{"token": e.pat("jira-admin")}))
		})
	}
}
