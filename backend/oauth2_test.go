package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// service is an engine with a service account "reporting" on Data Center, which
// sees the project OPS and no other, and a role "report" that reads.
func serviceAccount(t *testing.T, o jiratest.Options, more map[string]any) (*engine, jiratest.ServiceAccount) {
	t.Helper()
	o.Version = "11.0.0"
	e := start(t, o)
	e.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations"})
	e.jira.AddProject(jiratest.Project{Key: "HR", Name: "People"})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting", Projects: []string{"OPS"}})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	data := map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret}
	for field, value := range more {
		data[field] = value
	}
	resp := e.write("accounts/reporting", data)
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "reaches every project") {
		t.Errorf("warnings %+v", resp)
	}
	e.write("roles/report", map[string]any{"credential_type": "oauth2", "accounts": "reporting", "scopes": "READ", "ttl": "30m"})
	e.jira.ResetCalls()
	return e, a
}

// An access token does what its scope allows, in the projects of its service
// account. It costs one call, and nothing when its lease ends; and the answer, the
// account and the log say that only its own end ends it.
func TestALeaseOfAnAccessToken(t *testing.T) {
	e, _ := serviceAccount(t, jiratest.Options{}, nil)
	lease := e.issue("report", nil)
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	d := lease.Data
	if fmt.Sprint(d["scopes"]) != "[READ]" || d["revocable"] != false || d["token_type"] != "Bearer" || d["url"] != e.jira.URL() || d["token_id"] != "" {
		t.Errorf("answered %v", d)
	}
	if lease.Secret.Renewable || lease.Secret.TTL != 30*time.Minute || lease.Secret.MaxTTL != 30*time.Minute {
		t.Errorf("lease %+v", lease.Secret.LeaseOptions)
	}
	if text := strings.Join(lease.Warnings, " "); !strings.Contains(text, "cannot be revoked") {
		t.Errorf("warnings %q", text)
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/rest/api/2/project/OPS", "", 200},
		{"GET", "/rest/api/2/project/HR", "", 404},
		{"POST", "/rest/api/2/issue", newIssue, 403},
		{"POST", "/rest/api/2/user", `{"name":"mallory"}`, 403},
		{"POST", tokensAPI, `{"name":"mine","expirationDuration":1}`, 403},
	} {
		if status := e.can(lease, tt.method, tt.path, tt.body); status != tt.status {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, status, tt.status)
		}
	}
	resp, err := e.renew(lease.Secret, 0)
	e.failed(400, resp, err, "read a new one")
	e.jira.ResetCalls()
	e.revoke(lease.Secret)
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls for the end of the lease", n)
	}
	e.nothingHeld()
	if !e.logged("the token is left to end by itself", "expires_at") {
		t.Error("the log does not say so")
	}
	if got := e.read("accounts/reporting"); got["room"] != -1 || got["held"] != 0 || fmt.Sprint(got) == "" || strings.Contains(fmt.Sprint(got), "ATOA") {
		t.Errorf("the account reads %v", got)
	}
	long := e.issue("report", map[string]any{"ttl": "24h"})
	if long.Secret.TTL > time.Hour-30*time.Second || long.Secret.TTL < time.Hour-time.Minute {
		t.Errorf("a lease of %v, of a token that lives an hour", long.Secret.TTL)
	}
	e.revoke(long.Secret)
}

// revokeWith revokes a lease as Vault does, which sends along what was answered.
func (e *engine) revokeWith(lease *logical.Response) error {
	_, err := e.HandleRequest(e.t.Context(), &logical.Request{
		Operation: logical.RevokeOperation, Path: "creds/lease", MountPoint: "jira/", Storage: e.storage,
		Secret: lease.Secret, Data: map[string]any{"token": lease.Data["token"]},
	})
	return err
}

// With a revocation_url the token is revoked, and that it is dead is proven before
// it is said.
func TestAnAccessTokenThatCanBeRevoked(t *testing.T) {
	o := jiratest.Options{Switches: jiratest.Switches{RevocationPath: "/rest/oauth2/latest/revoke"}}
	e, a := serviceAccount(t, o, nil)
	e.refuses(400, logical.UpdateOperation, "accounts/reporting", map[string]any{"revocation_url": "ftp://nowhere", "confirm_destination": true}, "revocation_url")
	resp, err := e.request(t.Context(), logical.UpdateOperation, "accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + "/nowhere", "confirm_destination": true})
	e.failed(502, resp, err, "trying revocation_url")
	e.write("accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + "/rest/oauth2/latest/revoke", "confirm_destination": true})
	lease := e.issue("report", nil)
	if lease.Data["revocable"] != true || len(lease.Warnings) != 0 {
		t.Errorf("answered %v, with %v", lease.Data, lease.Warnings)
	}
	if err := e.revokeWith(lease); err != nil {
		t.Fatal(err)
	}
	if status := e.can(lease, "GET", "/rest/api/2/project/OPS", ""); status != 401 && status != 404 {
		t.Errorf("after the revoke: %d", status)
	}
	e.nothingHeld()

	// An answer that is not true is not believed, and the ledger goes on knowing.
	lease = e.issue("report", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "POST", Path: "/rest/oauth2/latest/revoke", Do: jiratest.Answer, Status: 200, Body: "{}"})
	e.failed(502, nil, e.revokeWith(lease), "goes on taking it")
	remove()
	e.jira.SetServiceAccount(a.ClientID, func(s *jiratest.ServiceAccount) { s.ClientSecret = "another" })
	e.failed(400, nil, e.revokeWith(lease), "client id or the client secret")
	if e.ledger.Held("reporting") != 1 {
		t.Error("the record is gone, and the token lives")
	}
	e.pass(20 * time.Minute)
	e.settled()
	if e.ledger.Held("reporting") != 1 {
		t.Error("the record is gone, and the token lives")
	}
	e.pass(time.Hour)
	e.settled()
	e.nothingHeld()
}

// An access token that was made and cannot be handed out is revoked at once, where
// that is possible.
func TestAnAccessTokenThatNobodyReceived(t *testing.T) {
	const address = "/rest/oauth2/latest/revoke"
	for _, why := range []string{"it is wider than the role", "its record cannot be written"} {
		t.Run(why, func(t *testing.T) {
			e, _ := serviceAccount(t, jiratest.Options{Switches: jiratest.Switches{RevocationPath: address}}, nil)
			e.write("accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + address, "confirm_destination": true})
			before := len(e.jira.AccessTokens())
			writes := 0
			fail := func(op, key string) error {
				if op == "put" && strings.HasPrefix(key, ledgerPrefix) {
					if writes++; writes == 2 && why == "its record cannot be written" {
						return errStorage
					}
				}
				return nil
			}
			e.storage.fail.Store(&fail)
			e.jira.SetSwitches(func(s *jiratest.Switches) { s.ScopeIgnored = why == "it is wider than the role" })
			if _, err := e.request(t.Context(), logical.ReadOperation, "creds/report", nil); err == nil {
				t.Fatal("it was handed out")
			}
			made := e.jira.AccessTokens()[before:]
			if len(made) != 1 {
				t.Fatalf("made were %v", made)
			}
			for _, tok := range made {
				if tok.Live {
					t.Errorf("left is %+v", tok)
				}
			}
		})
	}
}

// Every way in which the answer can be bad is an error, hands nothing out, and
// leaves nothing that would have to be looked for.
func TestAccessTokensThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name   string
		with   jiratest.Switches
		fault  jiratest.Fault
		status int
		words  string
	}{
		{"no expires_in", jiratest.Switches{ExpiresIn: "absent"}, jiratest.Fault{}, 502, "expires_in"},
		{"zero", jiratest.Switches{ExpiresIn: "0"}, jiratest.Fault{}, 502, "expires_in"},
		{"negative", jiratest.Switches{ExpiresIn: "-1"}, jiratest.Fault{}, 502, "expires_in"},
		{"enormous", jiratest.Switches{ExpiresIn: "1e30"}, jiratest.Fault{}, 502, "expires_in"},
		{"a year", jiratest.Switches{ExpiresIn: "31536000"}, jiratest.Fault{}, 502, "expires_in"},
		{"shorter than a lease", jiratest.Switches{ExpiresIn: "20"}, jiratest.Fault{}, 502, "makes no sense"},
		{"wider than asked for", jiratest.Switches{ScopeIgnored: true}, jiratest.Fault{}, 400, "scopes that the role does not have: WRITE"},
		{"wrong secret", jiratest.Switches{}, jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: `{"error":"invalid_client"}`}, 400, "client id or the client secret"},
		{"wrong secret, says 400", jiratest.Switches{}, jiratest.Fault{Do: jiratest.Answer, Status: 400, Body: `{"error":"invalid_client"}`}, 400, "client id or the client secret"},
		{"scope refused", jiratest.Switches{}, jiratest.Fault{Do: jiratest.Answer, Status: 400, Body: `{"error":"invalid_scope"}`}, 400, "scopes"},
		{"a redirect", jiratest.Switches{}, jiratest.Fault{Do: jiratest.Redirect, Target: "http://127.0.0.1:1"}, 502, "redirect"},
		{"a lost answer", jiratest.Switches{}, jiratest.Fault{Do: jiratest.LoseAnswer}, 503, "unavailable"},
		{"a cut body", jiratest.Switches{}, jiratest.Fault{Do: jiratest.CutBody}, 502, "cut short"},
		{"a page", jiratest.Switches{}, jiratest.Fault{Do: jiratest.HTML200}, 502, "web page"},
		{"not there", jiratest.Switches{}, jiratest.Fault{Do: jiratest.HTML404}, 502, "Jira 11"},
		{"down", jiratest.Switches{}, jiratest.Fault{Do: jiratest.Answer, Status: 503}, 503, "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, _ := serviceAccount(t, jiratest.Options{}, nil)
			e.jira.SetSwitches(func(s *jiratest.Switches) { *s = tt.with })
			if tt.fault.Do != "" {
				e.jira.Fault(tt.fault)
			}
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/report", nil)
			e.failed(tt.status, resp, err, tt.words)
			if n := e.jira.Count("POST", "/rest/oauth2"); n != 1 {
				t.Errorf("asked %d times", n)
			}
			e.nothingHeld()
		})
	}
}

// Config, accounts and roles that cannot work, each in words that help.
func TestServiceAccountsThatCannotBe(t *testing.T) {
	e, a := serviceAccount(t, jiratest.Options{}, nil)
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	other := map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret}
	for _, tt := range []struct {
		path  string
		data  map[string]any
		words string
	}{
		{"accounts/x", map[string]any{"type": "robot"}, "robot"},
		{"accounts/x", map[string]any{"type": "oauth2", "client_secret": "s"}, "client_id is missing"},
		{"accounts/x", map[string]any{"type": "oauth2", "client_id": "c"}, "client_secret is missing"},
		{"accounts/x", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": "wrong"}, "client id or the client secret"},
		{"accounts/x", map[string]any{"type": "oauth2", "client_id": "c", "client_secret": "s", "username": "u"}, "are for type=user"},
		{"accounts/ci-bot", map[string]any{"client_id": "c"}, "are for type=oauth2"},
		{"accounts/reporting", map[string]any{"type": "user", "username": "ci-bot", "client_id": nil}, "type"},
		{"accounts/reporting", map[string]any{"token_url": "http://jira.example.com/token", "confirm_destination": true}, "plain http"},
		{"accounts/reporting", map[string]any{"token_url": "https://u:p@jira.example.com/token", "confirm_destination": true}, "token_url"},
		{"accounts/reporting", map[string]any{"scopes": "ADMIN"}, "scope"},
		{"accounts/reporting", map[string]any{"client_secret": ""}, "replaced, not cleared"},
		{"roles/x", map[string]any{"credential_type": "oauth2", "accounts": "ci-bot"}, "needs one of type oauth2"},
		{"roles/x", map[string]any{"accounts": "reporting"}, "needs one of type user"},
		{"roles/x", map[string]any{"accounts": "ci-bot", "scopes": "READ"}, "scopes are for"},
		{"roles/x", map[string]any{"credential_type": "oauth2"}, "accounts is missing"},
		{"config", map[string]any{"deployment": "moon"}, "moon"},
		{"config", map[string]any{"cloud_id": "x"}, "deployment=cloud"},
	} {
		e.in(fmt.Sprint(tt.path, tt.data), func(e *engine) {
			e.refuses(400, logical.UpdateOperation, tt.path, tt.data, tt.words)
		})
	}
	e.write("accounts/reader", func() map[string]any { other["scopes"] = "READ"; return other }())
	e.refuses(400, logical.UpdateOperation, "roles/x", map[string]any{"credential_type": "oauth2", "accounts": "reader", "scopes": "WRITE"}, `"reader" does not have WRITE`)
}

// A check asks with an access token like with any other credential.
func TestACheckOfAnAccessToken(t *testing.T) {
	e, _ := serviceAccount(t, jiratest.Options{}, nil)
	e.write("roles/report", map[string]any{"check_projects": "OPS,HR"})
	got := e.must(logical.UpdateOperation, "roles/report/check", nil).Data
	if in := permissions(t, got, "OPS"); len(in) == 0 {
		t.Error("nothing may be done in OPS")
	}
	if in := permissions(t, got, "HR"); len(in) != 0 {
		t.Errorf("in HR may be done %v", in)
	}
	e.nothingHeld()
}

// What a check was made with is revoked where that can be done, for nobody else
// has it.
func TestACheckRevokesItsAccessToken(t *testing.T) {
	o := jiratest.Options{Switches: jiratest.Switches{RevocationPath: "/rest/oauth2/latest/revoke"}}
	e, _ := serviceAccount(t, o, nil)
	e.write("accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + "/rest/oauth2/latest/revoke", "confirm_destination": true})
	before := len(e.jira.AccessTokens())
	e.must(logical.UpdateOperation, "roles/report/check", nil)
	made := e.jira.AccessTokens()[before:]
	if len(made) != 1 || made[0].Live {
		t.Errorf("made were %+v", made)
	}
	e.nothingHeld()
	remove := e.jira.Fault(jiratest.Fault{Method: "POST", Path: "/rest/oauth2/latest/revoke", Do: jiratest.Answer, Status: 200, Body: "{}"})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "roles/report/check", nil)
	e.failed(502, resp, err, "goes on taking it")
	remove()
	e.pass(2 * time.Hour)
	e.settled()
	e.nothingHeld()
}

// After a crash between an intent and a lease nobody has the token.
func TestAnIntentOfAnAccessTokenIsForgotten(t *testing.T) {
	e, _ := serviceAccount(t, jiratest.Options{}, nil)
	id := ledger.NewID()
	r := &ledger.Record{ID: id, Name: ledger.Name("k3xm2a", id, "report"), Account: "reporting", Role: "report", Type: oauth2Traits.stored}
	if err := e.ledger.Intend(t.Context(), r, ledger.Room{}); err != nil {
		t.Fatal(err)
	}
	e.mount()
	e.settled()
	e.nothingHeld()

	// One whose lease is over without a revoke is forgotten once it has ended.
	e.issue("report", nil)
	e.pass(40 * time.Minute)
	e.settled()
	if e.ledger.Held("reporting") != 1 {
		t.Error("forgotten while it works")
	}
	e.pass(30 * time.Minute)
	e.settled()
	e.nothingHeld()
}

// Jira Cloud, behind its gateway and a proxy: the site's id is asked for, tokens
// are sent to the gateway, and personal access tokens are refused.
func TestJiraCloud(t *testing.T) {
	e := start(t, jiratest.Options{Cloud: "acme"})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	site := map[string]any{"url": "https://acme.atlassian.net", "proxy_url": e.jira.Proxy(), "ca_cert": string(e.jira.CA())}
	e.refuses(400, logical.UpdateOperation, "config", site, "deployment=cloud")
	site["deployment"] = "cloud"
	e.write("config", site)
	if got := e.read("config"); got["cloud_id"] != e.jira.CloudID() || got["deployment"] != "cloud" {
		t.Errorf("config reads %v", got)
	}
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"cloud_id": "x"}, "cloud_id")
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"username": "u", "token": "t"}, "no administrator")
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "token": "t"}, "no personal access tokens")
	e.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret})
	e.write("roles/report", map[string]any{"credential_type": "oauth2", "accounts": "reporting"})
	e.jira.ResetCalls()
	lease := e.issue("report", nil)
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	if lease.Data["url"] != "https://api.atlassian.com/ex/jira/"+e.jira.CloudID() || len(lease.Data["scopes"].([]string)) == 0 {
		t.Errorf("answered %v", lease.Data)
	}
	e.revoke(lease.Secret)
	got := e.must(logical.UpdateOperation, "roles/report/check", nil).Data
	if in := permissions(t, got, ""); len(in) == 0 {
		t.Error("nothing may be done")
	}

	// Where the request does not narrow the scopes, a narrower role is refused.
	e.write("roles/report", map[string]any{"scopes": "read:jira-work"})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/report", nil)
	if err == nil {
		if got := fmt.Sprint(resp.Data["scopes"]); got != "[read:jira-work]" {
			t.Errorf("scopes %s", got)
		}
		e.revoke(resp.Secret)
	} else {
		e.failed(400, resp, err, "scopes that the role does not have")
	}
	e.nothingHeld()
}

// accessOnCloud is an engine with a service account and a role "report" on Jira
// Cloud, under a name of the site's own, which does not tell that it is Cloud's.
func accessOnCloud(t *testing.T) *engine {
	t.Helper()
	e := start(t, jiratest.Options{Cloud: "acme"})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	e.write("config", map[string]any{
		"url": "https://jira.acme.example", "deployment": "cloud", "cloud_id": e.jira.CloudID(),
		"proxy_url": e.jira.Proxy(), "ca_cert": string(e.jira.CA()),
	})
	e.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret})
	e.write("roles/report", map[string]any{"credential_type": "oauth2", "accounts": "reporting"})
	return e
}

// accessOnDataCenter is [serviceAccount] for a table.
func accessOnDataCenter(t *testing.T) *engine {
	t.Helper()
	e, _ := serviceAccount(t, jiratest.Options{}, nil)
	return e
}

// A site that does not tell its id is no site of Jira Cloud.
func TestCloudIDThatIsNotFound(t *testing.T) {
	e := start(t, jiratest.Options{Cloud: "acme"})
	site := map[string]any{"url": "https://acme.atlassian.net", "proxy_url": e.jira.Proxy(), "ca_cert": string(e.jira.CA()), "deployment": "cloud"}
	remove := e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/_edge/tenant_info", Do: jiratest.HTML404})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "config", site)
	e.failed(502, resp, err, "cloud_id")
	remove()
	site["verify_connection"] = false
	e.refuses(400, logical.UpdateOperation, "config", site, "cloud_id is missing")
	site["cloud_id"] = e.jira.CloudID()
	e.write("config", site)
}

// A service account is not exchanged while tokens live that only it can revoke; and
// deleted by force it goes on revoking them.
func TestAServiceAccountWhoseTokensLive(t *testing.T) {
	const address = "/rest/oauth2/latest/revoke"
	e, _ := serviceAccount(t, jiratest.Options{Switches: jiratest.Switches{RevocationPath: address}}, nil)
	e.write("accounts/reporting", map[string]any{"revocation_url": e.jira.URL() + address, "confirm_destination": true})
	lease := e.issue("report", nil)
	b := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "other"})
	for _, data := range []map[string]any{
		{"client_id": b.ClientID, "client_secret": b.ClientSecret}, {"revocation_url": ""},
	} {
		resp, err := e.request(t.Context(), logical.UpdateOperation, "accounts/reporting", data)
		e.failed(400, resp, err, "vault lease revoke")
	}
	e.must(logical.DeleteOperation, "roles/report", nil)
	e.must(logical.DeleteOperation, "accounts/reporting", map[string]any{"force": true})
	if err := e.revokeWith(lease); err != nil {
		t.Fatal(err)
	}
	if status := e.can(lease, "GET", "/rest/api/2/project/OPS", ""); status == 200 {
		t.Error("the lease says revoked, and the token works")
	}
	e.nothingHeld()
}
