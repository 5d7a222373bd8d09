package backend

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// apiTokens is an engine on Jira Cloud with the organisation's key, an account "ci"
// and a role "ci-read" of it.
func apiTokens(t *testing.T, switches jiratest.Switches) (*engine, jiratest.ServiceAccount) {
	t.Helper()
	e := start(t, jiratest.Options{Cloud: "acme", Switches: switches})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "ci"})
	e.write("config", map[string]any{
		"url": "https://acme.atlassian.net", "deployment": "cloud", "proxy_url": e.jira.Proxy(), "ca_cert": string(e.jira.CA()),
		"token": e.jira.AddOrgKey(false), "allow_undocumented_api": true,
	})
	resp := e.write("accounts/ci", map[string]any{"type": "cloud_api_token", "account_id": a.ID})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "does not document") {
		t.Errorf("warnings %+v", resp)
	}
	e.write("roles/ci-read", map[string]any{"credential_type": "cloud_api_token", "accounts": "ci", "scopes": "read:jira-work", "ttl": "30m", "max_ttl": "2h"})
	e.jira.ResetCalls()
	return e, a
}

// apiTokensAtAnotherAddress is [apiTokens] of a site under a name of its own, which
// does not tell that it is Cloud's.
func apiTokensAtAnotherAddress(t *testing.T) *engine {
	t.Helper()
	e, _ := apiTokens(t, jiratest.Switches{})
	e.write("config", map[string]any{"url": "https://jira.acme.example", "cloud_id": e.jira.CloudID(), "confirm_destination": true})
	return e
}

// labels are the labels of the engine's API tokens that Atlassian has.
func (e *engine) labels() []string {
	labels := []string{}
	for _, k := range e.jira.APITokens() {
		if strings.HasPrefix(k.Label, "vault-") {
			labels = append(labels, k.Label)
		}
	}
	return labels
}

func (e *engine) noAPITokens() {
	e.t.Helper()
	e.nothingHeld()
	if left := e.labels(); len(left) > 0 {
		e.t.Errorf("left at Atlassian: %v", left)
	}
}

// An API token has the role's scopes, ends with its lease, and costs a call to make
// and one to end.
func TestALeaseOfAnAPIToken(t *testing.T) {
	e, a := apiTokens(t, jiratest.Switches{})
	lease := e.issue("ci-read", nil)
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	d := lease.Data
	if fmt.Sprint(d["scopes"]) != "[read:jira-work]" || d["revocable"] != true || d["username"] != a.ID || d["url"] != "https://api.atlassian.com/ex/jira/"+e.jira.CloudID() {
		t.Errorf("answered %v", d)
	}
	made := e.jira.APITokens()
	if len(made) != 1 || made[0].ID != d["token_id"] || made[0].Label != d["token_name"] || !slices.Equal(made[0].Scopes, []string{"read:jira-work"}) || !made[0].Live {
		t.Fatalf("made %+v", made)
	}
	if life := made[0].Expires.Sub(made[0].Created); life < 2*time.Hour || life > 2*time.Hour+apiTokenSlack+time.Second {
		t.Errorf("it ends by itself after %v", life)
	}
	if lease.Secret.TTL != 30*time.Minute || lease.Secret.MaxTTL != 2*time.Hour || !lease.Secret.Renewable {
		t.Errorf("lease %+v", lease.Secret.LeaseOptions)
	}
	if got := lease.Secret.InternalData["secret_type"]; got != "jira_cloud_api_token" { // stored in every lease for ever
		t.Errorf("secret_type is %v", got)
	}
	if _, err := e.renew(lease.Secret, 0); err != nil {
		t.Error(err)
	}
	e.jira.ResetCalls()
	e.revoke(lease.Secret)
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	e.noAPITokens()
	if got := e.read("accounts/ci"); got["account_id"] != a.ID || got["held"] != 0 || got["room"] != 10 || got["credential_kind"] != "" {
		t.Errorf("the account reads %v", got)
	}
	if got := e.read("config"); got["credential_kind"] != "token" || got["allow_undocumented_api"] != true {
		t.Errorf("config reads %v", got)
	}
}

// Whatever becomes of the call that makes one or ends one, nothing is left, and
// nothing is made twice.
func TestAPITokensWhoseAnswersAreLost(t *testing.T) {
	for _, f := range []jiratest.Fault{
		{Do: jiratest.LoseCall},
		{Do: jiratest.LoseAnswer},
		{Do: jiratest.CutBody},
		{Do: jiratest.HTML200},
		{Do: jiratest.HTML404},
		{Do: jiratest.Twice},
		{Do: jiratest.Answer, Status: 404, Body: `{"message":"nothing here"}`},
		{Do: jiratest.Answer, Status: 200},
		{Do: jiratest.AnswerAfter, Status: 502},
		{Do: jiratest.Answer, Status: 500},
		{Do: jiratest.Answer, Status: 401, Body: `{"code":401}`},
	} {
		for _, method := range []string{http.MethodPost, http.MethodDelete} {
			t.Run(fmt.Sprintf("%s %s %d", method, f.Do, f.Status), func(t *testing.T) {
				e, _ := apiTokens(t, jiratest.Switches{})
				var lease *logical.Response
				if method == http.MethodDelete {
					lease = e.issue("ci-read", nil)
				}
				f.Method, f.Path = method, "/users/"
				remove := e.jira.Fault(f)
				if method == http.MethodPost {
					resp, err := e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil)
					if err == nil {
						lease = resp
					}
				}
				if lease != nil {
					_ = e.revokeQueued(lease.Secret)
				}
				remove()
				e.mount() // so all that is left is what storage and Atlassian have
				e.write("config", map[string]any{"token": e.jira.AddOrgKey(false)})
				e.pass(time.Minute)
				e.settled()
				if left := e.labels(); len(left) > 0 {
					t.Errorf("left at Atlassian: %v", left)
				}
				e.pass(ledger.LateLanding)
				e.settled()
				e.noAPITokens()
			})
		}
	}
}

// A lease that nobody revoked is ended by the worker, and what the ledger has lost
// is found by its label.
func TestAPITokensThatNobodyRevoked(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	e.issue("ci-read", nil)
	e.pass(40 * time.Minute)
	e.settled()
	e.noAPITokens()

	lease := e.issue("ci-read", nil)
	id := lease.Secret.InternalData["id"].(string)
	if err := e.ledger.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: "/users/", Times: -1, Do: jiratest.Answer, Status: 503})
	if got := e.tidied(map[string]any{"dry_run": false}); got["orphan_count"] != 1 || got["orphan_deleted_count"] != 0 {
		t.Errorf("while Atlassian ends nothing: %v", got)
	}
	if r, err := e.ledger.Read(t.Context(), id); err != nil || r.Type != cloudAPITokenTraits.stored || r.State != ledger.Owed || r.TokenID != lease.Data["token_id"] {
		t.Errorf("owed is %+v, %v", r, err)
	}
	remove()
	if err := e.ledger.Forget(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := e.tidied(map[string]any{"dry_run": false}); got["orphan_deleted_count"] != 1 {
		t.Errorf("tidied %v", got)
	}
	e.noAPITokens()
}

// A key that Atlassian has refused rests for a minute, unless the config is written
// with a key, be it the same or another: then that is used at once.
func TestAnOrganisationsKeyThatWasRefused(t *testing.T) {
	for _, how := range []string{"the same", "another"} {
		t.Run(how, func(t *testing.T) {
			e, _ := apiTokens(t, jiratest.Switches{})
			key := e.jira.AddOrgKey(false)
			e.write("config", map[string]any{"token": key})
			lease := e.issue("ci-read", nil)
			remove := e.jira.Fault(jiratest.Fault{Path: "/users/", Times: -1, Do: jiratest.Answer, Status: 401, Body: `{"code":401,"message":"Unauthorized"}`})
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil)
			e.failed(400, resp, err, "401")
			remove()
			e.jira.ResetCalls()
			resp, err = e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil)
			e.failed(400, resp, err, "not asked again")
			if n := len(e.jira.Calls()); n != 0 {
				t.Errorf("%d calls with a key that was refused", n)
			}
			if how == "another" {
				key = e.jira.AddOrgKey(false)
			}
			e.write("config", map[string]any{"token": key})
			e.revoke(e.issue("ci-read", nil).Secret)
			e.revoke(lease.Secret)
			e.noAPITokens()
		})
	}
}

// A site under another name has the tokens of its accounts still, which are the
// organisation's; those that Atlassian does not list keep it where it is.
func TestASiteOfAPITokensThatIsRenamed(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	lease := e.issue("ci-read", nil)
	renamed := map[string]any{"url": "https://acme2.atlassian.net", "cloud_id": e.jira.CloudID(), "confirm_destination": true}
	remove := e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/users/", Nth: 2, Times: -1, Do: jiratest.Answer, Status: 200, Body: "[]"}) // the first checks the key
	e.refuses(400, logical.UpdateOperation, "config", renamed, "is not there", "vault lease revoke")
	remove()
	e.write("config", renamed)
	e.revoke(lease.Secret)
	e.noAPITokens()
}

// Without a key of the organisation nothing can be managed, and no call is made to
// find that out.
func TestAPITokensWithoutAKey(t *testing.T) {
	e := start(t, jiratest.Options{Cloud: "acme"})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "ci"})
	e.write("config", map[string]any{
		"url": "https://acme.atlassian.net", "deployment": "cloud", "proxy_url": e.jira.Proxy(), "ca_cert": string(e.jira.CA()), "allow_undocumented_api": true,
	})
	e.jira.ResetCalls()
	e.refuses(400, logical.UpdateOperation, "accounts/ci", map[string]any{"type": "cloud_api_token", "account_id": a.ID}, "API key of the organisation")
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
}

// An account is changed like any other, though its id holds a colon.
func TestAnAccountOfAPITokensIsChanged(t *testing.T) {
	e, a := apiTokens(t, jiratest.Switches{})
	if !strings.Contains(a.ID, ":") {
		t.Fatalf("the account's id is %q", a.ID)
	}
	e.write("accounts/ci", map[string]any{"max_tokens": 3})
	e.must(logical.PatchOperation, "accounts/ci", map[string]any{"scopes": "read:jira-work"})
	if got := e.read("accounts/ci"); got["room"] != 3 || got["account_id"] != a.ID || fmt.Sprint(got["scopes"]) != "[read:jira-work]" {
		t.Errorf("the account reads %v", got)
	}
}

// A lease may be as long as Atlassian lets a token live, whichever clock is ahead;
// and a role without scopes hands out its account's.
func TestTheLongestAPIToken(t *testing.T) {
	for _, ahead := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
		e, _ := apiTokens(t, jiratest.Switches{})
		e.system.MaxLeaseTTLVal = 2 * longestAPIToken
		e.write("config", map[string]any{"max_token_days": 1000})
		e.write("accounts/ci", map[string]any{"scopes": "read:jira-work,write:jira-work"})
		e.write("roles/ci-read", map[string]any{"ttl": "9000h", "max_ttl": "10000h", "scopes": ""})
		e.clock.Store(int64(ahead))
		lease := e.issue("ci-read", nil)
		if life := lease.Secret.MaxTTL; life > longestAPIToken || life < longestAPIToken-time.Hour {
			t.Errorf("%v ahead: it lives for %v", ahead, life)
		}
		if got := fmt.Sprint(lease.Data["scopes"]); got != "[read:jira-work write:jira-work]" {
			t.Errorf("scopes %s", got)
		}
		e.revoke(lease.Secret)
		e.noAPITokens()
	}
}

// What the organisation or the operator may have got wrong is said when it is
// written, and leaves nothing.
func TestAPITokensThatCannotBeManaged(t *testing.T) {
	e, a := apiTokens(t, jiratest.Switches{})
	other := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "other"})
	account := func(more map[string]any) map[string]any {
		data := map[string]any{"type": "cloud_api_token", "account_id": other.ID}
		for field, v := range more {
			data[field] = v
		}
		return data
	}
	for _, tt := range []struct {
		path string
		data map[string]any
		says string
	}{
		{"accounts/x", account(map[string]any{"account_id": ""}), "account_id is missing"},
		{"accounts/x", account(map[string]any{"account_id": "../users"}), "account_id"},
		{"accounts/x", account(map[string]any{"account_id": "712020:nobody"}), "404"},
		{"accounts/x", account(map[string]any{"account_id": a.ID}), `account "ci" already`},
		{"accounts/x", account(map[string]any{"username": "ci-bot"}), "type=user"},
		{"accounts/x", account(map[string]any{"token": "t"}), "type=user"},
		{"accounts/x", account(map[string]any{"exclusive": true}), "type=user"},
		{"accounts/x", account(map[string]any{"client_id": "c"}), "type=oauth2"},
		{"accounts/x", account(map[string]any{"max_tokens": 0}), "max_tokens"},
		{"accounts/x", map[string]any{"type": "oauth2", "account_id": "1", "client_id": "c", "client_secret": "made-up-never-valid"}, "account_id is for"},
		{"accounts/x", map[string]any{"account_id": "1", "username": "u", "token": "t"}, "account_id is for"},
		{"accounts/ci", map[string]any{"username": "other"}, "type=user"},
		{"roles/r", map[string]any{"credential_type": "cloud_api_token", "accounts": "ci"}, "scopes is missing"},
		{"roles/r", map[string]any{"credential_type": "oauth2", "accounts": "ci"}, "type cloud_api_token"},
		{"roles/r", map[string]any{"credential_type": "ephemeral_user", "groups": "g"}, "Data Center"},
		{"config", map[string]any{"token": "wrong"}, "401"},
		{"config", map[string]any{"token": e.jira.AddOrgKey(true)}, "without scopes"},
		{"config", map[string]any{"username": "u", "password": "made-up"}, "no administrator"},
	} {
		e.refuses(400, logical.UpdateOperation, tt.path, tt.data, tt.says)
	}

	// The flag stands before every mint, and before no end.
	lease := e.issue("ci-read", nil)
	e.write("config", map[string]any{"allow_undocumented_api": false})
	e.refuses(400, logical.UpdateOperation, "accounts/x", account(nil), "allow_undocumented_api")
	e.refuses(400, logical.ReadOperation, "creds/ci-read", nil, "allow_undocumented_api")
	e.revoke(lease.Secret)
	e.noAPITokens()

	dc := start(t, jiratest.Options{})
	dc.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": dc.jira.URL(), "ca_cert": string(dc.jira.CA()), "allow_undocumented_api": true}, "deployment=cloud")
	dc.write("config", map[string]any{"url": dc.jira.URL(), "ca_cert": string(dc.jira.CA())})
	dc.refuses(400, logical.UpdateOperation, "accounts/x", account(nil), "of Jira Cloud")
}

// Atlassian takes the call away: reads say so, and what there is can be ended.
func TestWithoutTheUndocumentedCall(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	lease := e.issue("ci-read", nil)
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.APITokenPostOff = true })
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil)
	e.failed(400, resp, err, "405", "does not document")
	e.revoke(lease.Secret)
	e.noAPITokens()
}

// A check asks at the gateway. A brand-new account's first token may not work yet.
func TestCheckingAnAPIToken(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	got := e.must(logical.UpdateOperation, "roles/ci-read/check", nil).Data
	if in := permissions(t, got, ""); len(in) == 0 {
		t.Errorf("nothing may be done: %v", got)
	}
	e.noAPITokens()
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.APITokenDelay = 70 * time.Second })
	resp, err := e.request(t.Context(), logical.UpdateOperation, "roles/ci-read/check", nil)
	e.failed(400, resp, err, "may take a minute")
	e.noAPITokens()
}

// The last of an account that is deleted by force is ended with the key that was
// the config's then.
func TestAnAccountOfAPITokensDeletedByForce(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	e.issue("ci-read", nil)
	e.refuses(400, logical.DeleteOperation, "config", nil, "vault lease revoke")
	e.must(logical.DeleteOperation, "roles/ci-read", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: "/users/", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	e.must(logical.DeleteOperation, "accounts/ci", map[string]any{"force": true})
	e.must(logical.DeleteOperation, "config", map[string]any{"force": true})
	if left := e.labels(); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	remove()
	e.pass(time.Hour)
	e.settled()
	e.noAPITokens()
}

// The daily review sees an organisation's key that has ended.
func TestTheReviewOfAPITokens(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	if err := e.review(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if found := e.read("accounts/ci")["review_finding"]; found != "" {
		t.Errorf("found %q", found)
	}
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/users/", Do: jiratest.Answer, Status: 401, Body: `{"code":401,"message":"Unauthorized"}`})
	if err := e.review(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if found := fmt.Sprint(e.read("accounts/ci")["review_finding"]); !strings.Contains(found, "401") {
		t.Errorf("found %q", found)
	}
}

// An answer to the undocumented call may say anything. What is handed out ends with
// its lease all the same, what is not is ended at once, and no other token is.
func TestAnAtlassianThatLies(t *testing.T) {
	const secret = "ATSTT3xmadeupanswer"
	for _, tt := range []struct {
		name    string
		body    string // OTHER: the id of a token that another lease holds
		status  int    // of the read; 0: it is handed out
		words   string // of its error or its warnings
		expires string
	}{
		{name: "another label", body: `{"id":"x","label":"other","token":"` + secret + `"}`, status: 502, words: `labelled "other"`},
		{name: "the id of another token", body: `{"id":"OTHER","token":"` + secret + `"}`, status: 502, words: "the id of another"},
		{name: "an id that is none of a token", body: `{"id":"x","token":"` + secret + `"}`},
		{name: "an id that is none at all", body: `{"id":"../x","token":"` + secret + `"}`, status: 502, words: "id is missing"},
		{name: "an end in the past", body: `{"id":"x","createdAt":"2020-01-02T00:00:00Z","expiry":"2020-01-01T00:00:00Z","token":"` + secret + `"}`, status: 502, words: "ends at 2020-01-01"},
		{name: "an end in the past, and no beginning", body: `{"id":"x","expiry":"2020-01-01T00:00:00Z","token":"` + secret + `"}`, status: 502, words: "ends at 2020-01-01"},
		{name: "an end in the year 9999", body: `{"id":"x","createdAt":"2020-01-01T00:00:00Z","expiry":"9999-12-31T23:59:59Z","token":"` + secret + `"}`, words: "no expiry of its own", expires: "never"},
		{name: "no end", body: `{"id":"x","createdAt":"2020-01-01T00:00:00Z","expiry":"","token":"` + secret + `"}`, words: "no expiry of its own", expires: "never"},
		{name: "no times", body: `{"id":"x","createdAt":null,"expiry":null,"token":"` + secret + `"}`},
		{name: "no token", body: `{"id":"x"}`, status: 502, words: "token is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, _ := apiTokens(t, jiratest.Switches{})
			other := e.issue("ci-read", nil)
			e.jira.Fault(jiratest.Fault{
				Method: "POST", Path: "/users/", Times: 1, Do: jiratest.AnswerAfter, Status: 201,
				Body: strings.ReplaceAll(tt.body, "OTHER", other.Data["token_id"].(string)),
			})
			lease, err := e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil)
			if tt.status != 0 {
				e.failed(tt.status, lease, err, tt.words)
			} else {
				if err != nil {
					t.Fatal(err)
				}
				if text := strings.Join(lease.Warnings, " "); !strings.Contains(text, tt.words) || tt.words == "" && text != "" {
					t.Errorf("warnings %q", text)
				}
				if got := lease.Data["expires_at"]; (got == "") != (tt.expires == "never") {
					t.Errorf("expires_at %q", got)
				}
				e.revoke(lease.Secret)
			}
			if got := e.labels(); len(got) != 1 || got[0] != other.Data["token_name"] || e.ledger.Held("ci") != 1 {
				t.Errorf("alive are %v, and %d are held", got, e.ledger.Held("ci"))
			}
			e.revoke(other.Secret)
			e.noAPITokens()
		})
	}
}

// Storage has lost an API token's record: its end goes by its label, and where Atlassian lists
// none with that, it is gone.
func TestAnAPITokenWithoutARecord(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	e.jira.Fault(jiratest.Fault{
		Method: "POST", Path: "/users/", Times: 1, Do: jiratest.AnswerAfter, Status: 201,
		Body: `{"id":"412","token":"ATSTT3xmadeupanswer"}`, // as a token of Data Center has
	})
	lease := e.issue("ci-read", nil)
	if err := e.ledger.Forget(t.Context(), id(lease)); err != nil {
		t.Fatal(err)
	}
	e.pass(10 * time.Minute)
	e.revoke(lease.Secret)
	e.noAPITokens()
	e.revoke(lease.Secret)
	if !e.logged("[WARN]", "counts as gone", lease.Data["token_name"].(string)) {
		t.Error("the log does not tell")
	}
	if n := e.jira.Count("", tokensAPI); n != 0 {
		t.Errorf("%d calls of an API that Jira Cloud does not have", n)
	}
}

// A token's account is not exchanged for another while it lives, however it is
// written; after that it is.
func TestAnAccountIDIsNotExchangedWhileTokensLive(t *testing.T) {
	e, _ := apiTokens(t, jiratest.Switches{})
	other := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "other"})
	lease := e.issue("ci-read", nil)
	e.refuses(400, logical.UpdateOperation, "accounts/ci", map[string]any{"account_id": other.ID}, "the user cannot be changed", "vault lease revoke -sync -prefix jira/creds/ci-read/")
	e.refuses(400, logical.UpdateOperation, "accounts/ci", map[string]any{"account_id": other.ID, "username": other.ID}, "")
	e.refuses(400, logical.PatchOperation, "accounts/ci", map[string]any{"account_id": nil}, "account_id is missing")
	e.refuses(400, logical.UpdateOperation, "accounts/ci", map[string]any{"type": "oauth2", "client_id": "c", "client_secret": "made-up-never-valid"}, "")
	e.revoke(lease.Secret)
	e.write("accounts/ci", map[string]any{"account_id": other.ID})
	lease = e.issue("ci-read", nil)
	if lease.Data["username"] != other.ID || e.jira.APITokens()[0].Account != "other" {
		t.Errorf("answered %v, made %+v", lease.Data, e.jira.APITokens())
	}
	e.revoke(lease.Secret)
	e.noAPITokens()
}

// What is owed under an organisation's key that has ended is paid with the next
// one, also of an account that was deleted by force.
func TestAnOrganisationsKeyIsExchangedWhileTokensAreOwed(t *testing.T) {
	for _, how := range []string{"a revoke", "a delete by force"} {
		t.Run(how, func(t *testing.T) {
			e, _ := apiTokens(t, jiratest.Switches{})
			old := e.jira.AddOrgKey(false)
			e.write("config", map[string]any{"token": old})
			lease := e.issue("ci-read", nil)
			e.jira.RemoveOrgKey(old)
			if how == "a revoke" {
				_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
				e.failed(400, nil, err, "401")
			} else {
				e.must(logical.DeleteOperation, "roles/ci-read", nil)
				e.must(logical.DeleteOperation, "accounts/ci", map[string]any{"force": true})
			}
			e.pass(5 * time.Minute)
			e.settled()
			if got := e.labels(); len(got) != 1 || len(e.ledger.Accounts()) != 1 {
				t.Fatalf("alive are %v, and the ledger has %v", got, e.ledger.Accounts())
			}
			e.write("config", map[string]any{"token": e.jira.AddOrgKey(false)})
			e.settled()
			e.noAPITokens()
		})
	}
}

// Where Atlassian denies one account of a pool, the next one is taken, and nothing
// of the first is left.
func TestAPoolOfAPITokens(t *testing.T) {
	e, ci := apiTokens(t, jiratest.Switches{})
	second := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "second"})
	e.write("accounts/second", map[string]any{"type": "cloud_api_token", "account_id": second.ID})
	e.write("roles/ci-read", map[string]any{"accounts": "ci,second"})
	for _, f := range []jiratest.Fault{
		{Status: 403, Body: `{"code":"FORBIDDEN","message":"not this account"}`},
		{Status: 404, Body: `{"code":404,"message":"The account does not exist."}`},
		{Status: 401, Body: `{"code":401,"message":"Unauthorized"}`},
	} {
		f.Method, f.Path, f.Do, f.Times = "POST", "/users/"+ci.ID, jiratest.Answer, -1
		remove := e.jira.Fault(f)
		lease := e.issue("ci-read", nil)
		if lease.Data["username"] != second.ID || e.ledger.Held("ci") != 0 {
			t.Errorf("%d: answered %v, and ci holds %d", f.Status, lease.Data, e.ledger.Held("ci"))
		}
		remove()
		e.revoke(lease.Secret)
	}
	e.noAPITokens()

	// An answer that may hide a token is not followed by another mint.
	e.write("config", map[string]any{"token": e.jira.AddOrgKey(false)})
	defer e.jira.Fault(jiratest.Fault{Method: "POST", Path: "/users/", Times: 1, Do: jiratest.AnswerAfter, Status: 403, Body: "<html>no</html>"})()
	if lease, err := e.request(t.Context(), logical.ReadOperation, "creds/ci-read", nil); err == nil {
		t.Errorf("handed out %v", lease.Data)
	}
	if n := e.jira.Count("POST", "/users/"); n != 7 {
		t.Errorf("%d mints", n)
	}
	e.noAPITokens()
}
