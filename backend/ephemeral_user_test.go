package backend

import (
	"errors"
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

// throwaway is an engine with an admin credential, a project OPS that only
// those with a role in it see, and a role "deploy" whose users are developers
// there.
func throwaway(t *testing.T, o jiratest.Options) *engine {
	t.Helper()
	e := start(t, o)
	e.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	e.jira.AddProject(jiratest.Project{Key: "HR", Name: "People", Restricted: true})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "username": "jira-admin", "token": e.pat("jira-admin")})
	e.write("roles/deploy", map[string]any{
		"credential_type": "ephemeral_user", "groups": "jira-software-users", "project_roles": "OPS:Developers", "ttl": "1h", "max_ttl": "24h",
	})
	e.jira.ResetCalls()
	return e
}

// people are the users that were made for leases and not deleted, the
// inactive ones with a minus before their names.
func (e *engine) people() []string {
	people := []string{}
	for _, u := range e.jira.Users() {
		if strings.HasPrefix(u.Name, "vault-") {
			name := u.Name
			if u.Inactive {
				name = "-" + name
			}
			people = append(people, name)
		}
	}
	return people
}

// can tells how Jira answers to a call with the token of a lease.
func (e *engine) can(lease *logical.Response, method, path, body string) int {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), method, e.jira.URL()+path, strings.NewReader(body))
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
	_ = resp.Body.Close()
	return resp.StatusCode
}

const newIssue = `{"fields":{"project":{"key":"OPS"},"issuetype":{"name":"Task"},"summary":"by a lease"}}`

// A user is made with the fewest calls there are, may do what his role says and
// nothing else, and is gone with his lease by a single call, and all that he
// made for himself with him.
func TestALeaseOfAThrowAwayUser(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	lease := e.issue("deploy", nil)
	if n := len(e.jira.Calls()); n != 4 {
		t.Errorf("%d calls for a user, a group, a role and a token: %v", n, e.jira.Calls())
	}
	name := lease.Data["username"].(string)
	if !strings.Contains(name, lease.Secret.InternalData["id"].(string)) || !slices.Equal(e.people(), []string{name}) {
		t.Errorf("the user is %q, and there are %v", name, e.people())
	}
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/rest/api/2/project/OPS", "", 200},
		{"GET", "/rest/api/2/project/HR", "", 404},
		{"GET", "/rest/api/2/user?username=" + name, "", 200},
		{"POST", "/rest/api/2/user", `{"name":"mallory","password":"x","emailAddress":"m@example.com","displayName":"M"}`, 403},
	} {
		if status := e.can(lease, tt.method, tt.path, tt.body); status != tt.status {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, status, tt.status)
		}
	}
	e.sibling(lease, "mine")
	e.write("roles/seated", map[string]any{"credential_type": "ephemeral_user", "groups": "jira-software-users", "application_keys": "jira-software"}) // in which he is already
	if resp, err := e.renew(lease.Secret, 0); err != nil || resp.Secret.TTL != time.Hour {
		t.Errorf("renewed: %+v, %v", resp, err)
	}
	e.jira.ResetCalls()
	e.revoke(lease.Secret)
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls for a revoke: %v", n, e.jira.Calls())
	}
	if len(e.people()) != 0 || e.can(lease, "GET", "/rest/api/2/myself", "") != 401 {
		t.Errorf("left are %v", e.people())
	}
	e.revoke(lease.Secret) // again
	e.nothingHeld()
}

// At each call, and each write, the engine dies or fails, before or after the
// effect. Nobody is left behind.
func TestAThrowAwayUserIsForgottenNowhere(t *testing.T) {
	faults := []jiratest.Fault{
		{Do: jiratest.LoseCall},
		{Do: jiratest.LoseAnswer},
		{Do: jiratest.CutBody},
		{Do: jiratest.HTML200},
		{Do: jiratest.HTML404},
		{Do: jiratest.Anonymous},
		{Do: jiratest.Answer, Status: 503},
		{Do: jiratest.AnswerAfter, Status: 502},
		{Do: jiratest.AnswerAfter, Status: 400, Body: `{"errorMessages":["no seat"],"errors":{}}`},
		{Do: jiratest.Answer, Status: 403, Body: `{"message":"not you"}`},
	}
	for nth := 1; nth <= 4; nth++ {
		for _, f := range faults {
			t.Run(fmt.Sprintf("call %d: %s %d", nth, f.Do, f.Status), func(t *testing.T) {
				t.Parallel()
				e := throwaway(t, jiratest.Options{})
				f.Nth, f.Times = nth, 1
				e.jira.Fault(f)
				resp, err := e.request(t.Context(), logical.ReadOperation, "creds/deploy", nil)
				if err == nil {
					e.revoke(resp.Secret) // it was repeated, as far as that is safe
				}
				e.pass(3 * time.Minute)
				e.mount() // a login that was refused rests for a minute, by the machine's clock
				e.settled()
				if people := e.people(); len(people) != 0 {
					t.Errorf("left are %v, after %v", people, err)
				}
				e.pass(ledger.LateLanding)
				e.settled()
				e.nothingHeld()
			})
		}
	}
	for write := 1; write <= 2; write++ {
		t.Run(fmt.Sprintf("write %d", write), func(t *testing.T) {
			e := throwaway(t, jiratest.Options{})
			writes := 0
			fail := func(op, key string) error {
				if op == "put" && strings.HasPrefix(key, ledgerPrefix) {
					if writes++; writes == write {
						return errStorage
					}
				}
				return nil
			}
			e.storage.fail.Store(&fail)
			if _, err := e.request(t.Context(), logical.ReadOperation, "creds/deploy", nil); err == nil {
				t.Fatal("no error")
			}
			e.storage.fail.Store(nil)
			e.mount()
			e.pass(3 * time.Minute)
			e.settled()
			if people := e.people(); len(people) != 0 {
				t.Errorf("left are %v", people)
			}
		})
	}
}

// One that Jira does not delete loses all that he was given, and does not work
// any more; so does one that is to be deactivated.
func TestAThrowAwayUserWhoCannotBeDeleted(t *testing.T) {
	for _, how := range []string{"he reported something", "on_revoke=deactivate", "on_revoke=deactivate, and Jira shows no administrator others' tokens"} {
		t.Run(how, func(t *testing.T) {
			e := throwaway(t, jiratest.Options{Switches: jiratest.Switches{AdminOwnTokensOnly: strings.HasSuffix(how, "tokens")}})
			if strings.HasPrefix(how, "on_revoke") {
				e.write("roles/deploy", map[string]any{"on_revoke": "deactivate"})
			}
			lease := e.issue("deploy", nil)
			name := lease.Data["username"].(string)
			if how == "he reported something" {
				if status := e.can(lease, "POST", "/rest/api/2/issue", newIssue); status != 201 {
					t.Fatalf("reporting: %d", status)
				}
			}
			e.sibling(lease, "mine")
			e.revoke(lease.Secret)
			if !slices.Contains(e.people(), "-"+name) {
				t.Errorf("there are %v", e.people())
			}
			if e.can(lease, "GET", "/rest/api/2/myself", "") != 401 {
				t.Error("his token works")
			}
			if m := e.jira.Members("OPS", "Developers"); len(m) != 0 {
				t.Errorf("developers are %v", m)
			}
			for _, u := range e.jira.Users() {
				if u.Name == name && len(u.Groups) != 0 {
					t.Errorf("he is in %v", u.Groups)
				}
			}
			if !e.logged("a throw-away user is deactivated", name) {
				t.Error("the log does not say so")
			}
			e.nothingHeld()
			for _, tok := range e.jira.Tokens(name) { // for the simulator, that nothing is left
				e.jira.Delete(tok.ID)
			}
		})
	}
}

// Whatever the ledger or a lease says, nobody is touched whose name does not hold
// the record's id.
func TestNobodyElseIsEnded(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	lease := e.issue("deploy", nil)
	forged := *lease.Secret
	forged.InternalData = map[string]any{}
	for k, v := range lease.Secret.InternalData {
		forged.InternalData[k] = v
	}
	for _, name := range []string{"ci-bot", "jira-admin", "", "vault-k3xm2a"} {
		forged.InternalData["username"] = name
		if err := e.ledger.Forget(t.Context(), forged.InternalData["id"].(string)); err != nil {
			t.Fatal(err)
		}
		if _, err := e.leaseRequest(t.Context(), logical.RevokeOperation, &forged); err == nil {
			t.Errorf("a revoke of %q succeeded", name)
		}
	}
	for _, name := range []string{"ci-bot", "jira-admin"} {
		if !slices.ContainsFunc(e.jira.Users(), func(u jiratest.User) bool { return u.Name == name && !u.Inactive }) {
			t.Errorf("%s is gone", name)
		}
	}
	if err := e.ledger.Forget(t.Context(), lease.Secret.InternalData["id"].(string)); err != nil {
		t.Fatal(err)
	}
	e.revoke(lease.Secret) // of which only the lease knows
	if len(e.people()) != 0 {
		t.Errorf("left are %v", e.people())
	}
}

// A role that cannot work is refused, each in words that help, and leaves nobody
// behind.
func TestThrowAwayUsersThatCannotBe(t *testing.T) {
	good := map[string]any{"credential_type": "ephemeral_user", "groups": "jira-software-users", "project_roles": "OPS:Developers"}
	for _, tt := range []struct {
		name  string
		with  jiratest.Switches
		data  map[string]any
		words []string
	}{
		{"nothing given", jiratest.Switches{}, map[string]any{"groups": "", "project_roles": ""}, []string{"groups or project_roles is missing"}},
		{"no such group", jiratest.Switches{}, map[string]any{"groups": "nobody"}, []string{`into group "nobody"`}},
		{"no such group, says 400", jiratest.Switches{UnknownGroupStatus: 400}, map[string]any{"groups": "nobody"}, []string{`into group "nobody"`}},
		{"no such project", jiratest.Switches{}, map[string]any{"project_roles": "NONE:Developers"}, []string{`project "NONE"`}},
		{"no such role", jiratest.Switches{}, map[string]any{"project_roles": "OPS:Dancers"}, []string{`no role "Dancers"`, "Developers"}},
		{"a project role that is none", jiratest.Switches{}, map[string]any{"project_roles": "OPS"}, []string{"OPS:Developers"}},
		{"a project that is a path", jiratest.Switches{}, map[string]any{"project_roles": "../x:Developers"}, []string{"../x"}},
		{"twice", jiratest.Switches{}, map[string]any{"groups": "a,a"}, []string{"twice"}},
		{"no such application", jiratest.Switches{}, map[string]any{"application_keys": "jira-dance"}, []string{"making user"}},
		{"no seat", jiratest.Switches{Seats: 1}, map[string]any{"groups": "", "application_keys": "jira-software"}, []string{"making user"}},
		{"a read-only directory", jiratest.Switches{DirectoryReadOnly: true}, map[string]any{}, []string{"making user", "read-only"}},
		{"read-only groups", jiratest.Switches{GroupsReadOnly: true}, map[string]any{}, []string{"into group"}},
		{"Basic off", jiratest.Switches{BasicOff: true}, map[string]any{}, []string{"/rest/basicauth/1.0/config", "allow-list"}},
		{"administrators", jiratest.Switches{}, map[string]any{"groups": "jira-administrators"}, []string{"administers Jira", "allow_admin"}},
		{"a username without the id", jiratest.Switches{}, map[string]any{"username_template": "vault-{{.RoleName}}"}, []string{"does not hold {{.ID}} whole"}},
		{"a username with half of it", jiratest.Switches{}, map[string]any{"username_template": "vault-{{.ID | truncate 8}}"}, []string{"does not hold {{.ID}} whole"}},
		{"a username with a blank", jiratest.Switches{}, map[string]any{"username_template": "a {{.ID}}"}, []string{"no login name"}},
		{"a long username", jiratest.Switches{}, map[string]any{"username_template": "{{.ID}}" + strings.Repeat("x", 255)}, []string{"longer than 255"}},
		{"a template that does not parse", jiratest.Switches{}, map[string]any{"username_template": "{{.ID"}, []string{"username_template"}},
		{"a template of nothing there is", jiratest.Switches{}, map[string]any{"display_name_template": "{{.Nobody}}"}, []string{"display_name_template"}},
		{"no address", jiratest.Switches{}, map[string]any{"email_template": "nobody"}, []string{"no address"}},
		{"an unknown end", jiratest.Switches{}, map[string]any{"on_revoke": "forget"}, []string{`"forget"`}},
		{"accounts", jiratest.Switches{}, map[string]any{"accounts": "ci-bot"}, []string{"accounts is for"}},
		{"a pat with groups", jiratest.Switches{}, map[string]any{"credential_type": "pat", "accounts": "ci-bot"}, []string{"are for credential_type=ephemeral_user"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := start(t, jiratest.Options{})
			e.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
			e.jira.AddUser(jiratest.User{Name: "seated", Groups: []string{"jira-software-users"}})
			e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "username": "jira-admin", "token": e.pat("jira-admin")})
			e.jira.SetSwitches(func(s *jiratest.Switches) { *s = tt.with })
			data := map[string]any{}
			for _, from := range []map[string]any{good, tt.data} {
				for k, v := range from {
					data[k] = v
				}
			}
			resp, err := e.request(t.Context(), logical.UpdateOperation, "roles/deploy", data)
			e.failed(400, resp, err, tt.words...)
			if got := e.read("roles/deploy"); got != nil {
				t.Errorf("stored all the same: %v", got)
			}
			e.pass(3 * time.Minute)
			e.settled()
			if people := e.people(); len(people) != 0 {
				t.Errorf("left are %v", people)
			}
		})
	}
}

func TestThrowAwayUsersNeedAnAdmin(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.refuses(400, logical.UpdateOperation, "roles/deploy", map[string]any{"credential_type": "ephemeral_user", "groups": "jira-software-users"}, "needs the admin credential")
	// A user of the config who administers nothing is no admin.
	e.write("config", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "roles/deploy", map[string]any{"credential_type": "ephemeral_user", "groups": "jira-software-users"})
	e.failed(400, resp, err, "making user")
	e.settled()
	e.nothingHeld()
}

// The engine follows its throw-away users to the same Jira under another name, and
// to no other Jira.
func TestConfigStaysWhileThrowAwayUsersLive(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	lease := e.issue("deploy", nil)
	other := jiratest.New(t, jiratest.Options{})
	other.AddUser(jiratest.User{Name: "jira-admin", Admin: true})
	_, token := other.Mint("jira-admin", "made by hand", 0)
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL(), "token": token},
		"url cannot be changed", fmt.Sprintf("user %q is not there", lease.Data["username"]), "vault lease revoke -sync -prefix jira/creds/deploy/")
	e.write("config", map[string]any{"url": strings.Replace(e.jira.URL(), "127.0.0.1", "localhost", 1), "confirm_destination": true})
	e.revoke(lease.Secret)
	if people := e.people(); len(people) != 0 {
		t.Errorf("left are %v", people)
	}
	e.nothingHeld()
}

// verify=false asks for no user to be made; the next write that changes what
// users get is tried out again, others are not.
func TestTheProbe(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	count := func() int { return e.jira.Count("POST", "/rest/api/2/user") }
	e.write("config", map[string]any{"allow_admin_roles": "loose,ruler*"})
	resp := e.write("roles/loose", map[string]any{"credential_type": "ephemeral_user", "groups": "nobody", "verify": false})
	if count() != 0 || resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "verify is false") {
		t.Errorf("%d users were made; warnings %+v", count(), resp)
	}
	e.write("roles/deploy", map[string]any{"ttl": "2h"})
	if count() != 0 {
		t.Error("tried out for the sake of a ttl")
	}
	e.write("roles/deploy", map[string]any{"verify": true})
	e.write("roles/deploy", map[string]any{"project_roles": "HR:Users"})
	if count() != 2 || len(e.people()) != 0 {
		t.Errorf("%d users were made, and left are %v", count(), e.people())
	}
	e.write("roles/rulers", map[string]any{"credential_type": "ephemeral_user", "groups": "jira-administrators", "allow_admin": true})
	got := e.read("roles/deploy")
	for field, want := range map[string]any{"groups": "[jira-software-users]", "project_roles": "[HR:Users]", "on_revoke": "delete", "credential_type": "ephemeral_user", "allow_admin": "false"} {
		if fmt.Sprint(got[field]) != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
}

// An admin credential that was deleted by force goes on being used until the
// last user is gone.
func TestADeleteOfTheConfigWithThrowAwayUsers(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	lease := e.issue("deploy", nil)
	e.refuses(400, logical.DeleteOperation, "config", nil, "vault lease revoke")
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 503})
	resp := e.must(logical.DeleteOperation, "config", map[string]any{"force": true})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "1 tokens are not proven gone") {
		t.Errorf("answered %+v", resp)
	}
	remove()
	e.mount()
	e.pass(time.Hour)
	e.settled()
	if people := e.people(); len(people) != 0 {
		t.Errorf("left are %v", people)
	}
	if err := e.dropAllRetired(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(e.storage.dump(t), retiredPrefix) {
		t.Error("the admin's credential is kept though nobody is left")
	}
	e.revoke(lease.Secret)
	e.nothingHeld()
}

func TestPasswordPolicy(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"password_policy": "none"}, `password_policy "none"`)
	made := 0
	e.system.SetPasswordPolicy("mine", func() (string, error) {
		made++
		if made > 2 {
			return "", errors.New("not today")
		}
		return "a password by policy", nil
	})
	e.write("config", map[string]any{"password_policy": "mine"})
	lease := e.issue("deploy", nil)
	if made != 2 {
		t.Errorf("asked for %d passwords", made)
	}
	if log := e.log.String(); strings.Contains(log, "a password by policy") {
		t.Error("the log tells a password")
	}
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/deploy", nil)
	e.failed(400, resp, err, "not today")
	e.revoke(lease.Secret)
	e.nothingHeld()
}

// The names come from the role's templates, in lower case as Jira has them.
func TestTemplates(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.write("roles/deploy", map[string]any{
		"username_template":     "CI-{{.RoleName}}-{{.ID}}-{{.DisplayName | truncate 5}}",
		"email_template":        "{{.Username}}@ci.example.com",
		"display_name_template": "For {{.DisplayName}}",
	})
	lease := e.issue("deploy", nil)
	want := "ci-deploy-" + lease.Secret.InternalData["id"].(string) + "-token"
	i := slices.IndexFunc(e.jira.Users(), func(u jiratest.User) bool { return u.Name == want })
	if i < 0 || lease.Data["username"] != want {
		t.Fatalf("the user is %v, want %s", lease.Data["username"], want)
	}
	if u := e.jira.Users()[i]; u.Email != want+"@ci.example.com" || u.DisplayName != "For token-app" {
		t.Errorf("he is %+v", u)
	}
	e.revoke(lease.Secret)
}

// A user has no expiry, so his record is never dropped for its age, as one of a
// token is that Jira must have ended by itself.
func TestAThrowAwayUserDoesNotExpire(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.issue("deploy", nil)
	for _, tok := range e.jira.Tokens("jira-admin") {
		e.jira.Delete(tok.ID)
	}
	for range 3 {
		e.pass(3 * 24 * time.Hour)
		e.mount()
		e.work(t.Context())
	}
	if len(e.records("")) != 1 {
		t.Fatal("the ledger has forgotten a user who is there")
	}
	e.write("config", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin")})
	e.mount()
	e.settled()
	if people := e.people(); len(people) != 0 {
		t.Errorf("left are %v", people)
	}
	e.nothingHeld()
}

// max_leases bounds throw-away users, too.
func TestMaxLeasesOfThrowAwayUsers(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.write("roles/deploy", map[string]any{"max_leases": 2})
	leases, errs := e.crowd("deploy", 5)
	if len(leases) != 2 || len(errs) != 3 || len(e.people()) != 2 {
		t.Errorf("%d leases, %v", len(leases), errs)
	}
	e.refusesToIssue("deploy", "max_leases is 2")
	for _, l := range leases {
		e.revoke(l.Secret)
	}
	e.nothingHeld()
}

// One whom Jira goes on showing as active keeps nobody else from being ended.
func TestOneThrowAwayUserWhoStays(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.write("roles/deploy", map[string]any{"on_revoke": "deactivate"})
	lease := e.issue("deploy", nil)
	stays := lease.Data["username"].(string)
	if err := e.ledger.Owe(t.Context(), lease.Secret.InternalData["id"].(string), ""); err != nil { // he is tried first
		t.Fatal(err)
	}
	e.write("roles/deploy", map[string]any{"on_revoke": "delete"})
	e.issue("deploy", nil)
	remove := e.jira.Fault(jiratest.Fault{
		Method: "PUT", Path: "/rest/api/2/user?username=" + stays, Times: -1, Do: jiratest.Answer, Status: 200,
		Header: http.Header{"X-Ausername": {"jira-admin"}}, Body: `{"name":"` + stays + `"}`,
	})
	for range 10 {
		e.pass(time.Hour)
		e.work(t.Context())
	}
	if people := e.people(); !slices.Equal(people, []string{stays}) {
		t.Errorf("left are %v", people)
	}
	remove()
	e.pass(time.Hour)
	e.settled()
	e.nothingHeld()
}

// In another Jira, to which the users were taken along, a token's id is somebody
// else's.
func TestATokenIDOfAnotherJira(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.jira.Leave()
	e.write("roles/deploy", map[string]any{"on_revoke": "deactivate"})
	lease := e.issue("deploy", nil)
	other := jiratest.New(t, jiratest.Options{})
	other.Leave()
	other.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	for _, name := range []string{"alice", lease.Data["username"].(string)} {
		other.AddUser(jiratest.User{Name: name})
	}
	other.AddUser(jiratest.User{Name: "jira-admin", Admin: true})
	_, token := other.Mint("jira-admin", "made by hand", 0)
	for i := range 60 {
		other.Mint("alice", fmt.Sprint("hers ", i), 0)
	}
	e.write("config", map[string]any{"url": other.URL(), "ca_cert": string(other.CA()), "token": token})
	e.revoke(lease.Secret)
	if n := len(other.Tokens("alice")); n != 60 {
		t.Errorf("of 60 tokens somebody else has %d left", n)
	}
}

// A site that is exchanged while a role is tried out is not the one to make a user
// at any more.
func TestATrialAtASiteThatWasLeft(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	stale, err := e.loadConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.loadRole(t.Context(), "deploy")
	if err != nil {
		t.Fatal(err)
	}
	e.write("config", map[string]any{"request_timeout": "7s"})
	err = e.trial(t.Context(), ledger.Reader{}, "deploy", stale, r, func(*mint, *jira.Client) error { return nil })
	e.failed(503, nil, coded(err), "config was written meanwhile")
	if n := e.jira.Count("POST", "/rest/api/2/user"); n != 0 {
		t.Errorf("%d users were made", n)
	}
	e.nothingHeld()
}

// A throw-away user whom somebody renamed is not said to be gone: his token is ended,
// he himself is left to whoever renamed him, and the debt stands until he is gone.
func TestAThrowAwayUserWhoWasRenamed(t *testing.T) {
	for _, onRevoke := range []string{onRevokeDelete, onRevokeDeactivate} {
		e := throwaway(t, jiratest.Options{})
		e.write("roles/deploy", map[string]any{"on_revoke": onRevoke, "verify": false})
		lease := e.issue("deploy", nil)
		name := lease.Data["username"].(string)
		e.jira.SetUser(name, func(u *jiratest.User) { u.Name = "mallory" })
		resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
		e.failed(502, resp, err, "renamed user", "mallory", "its token is ended", "delete or deactivate the user")
		if e.can(lease, "GET", "/rest/api/2/myself", "") == 200 {
			t.Error("his token works")
		}
		if !slices.ContainsFunc(e.jira.Users(), func(u jiratest.User) bool { return u.Name == "mallory" && !u.Inactive }) {
			t.Error("somebody whose name is not of the engine's making is gone")
		}
		if _, err := e.ledger.Read(t.Context(), lease.Secret.InternalData["id"].(string)); err != nil {
			t.Error("the debt is forgotten")
		}
		e.jira.DeleteUser("mallory")
		e.pass(time.Hour)
		e.settled()
		e.nothingHeld()
	}
}

// TestRolesThatAreReadBack: whatever Jira says of a user who lacks a role or is gone, the lease
// of a user who is to be deactivated ends; and where it does not let the administrator change
// a role, it does not.
func TestRolesThatAreReadBack(t *testing.T) {
	for _, status := range []int{400, 404, 410} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			e := throwaway(t, jiratest.Options{Switches: jiratest.Switches{RoleNobodyStatus: status, RoleWithoutStatus: status}})
			e.write("roles/deploy", map[string]any{"on_revoke": "deactivate"})
			lease := e.issue("deploy", nil)
			name := lease.Data["username"].(string)
			locked := e.jira.Fault(jiratest.Fault{
				Method: "DELETE", Path: "/rest/api/2/project/OPS/role", Times: -1, Do: jiratest.Answer, Status: status,
				Header: http.Header{"X-Ausername": {"jira-admin"}}, Body: `{"errorMessages":["You may not edit this project."],"errors":{}}`,
			})
			_, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
			e.failed(400, nil, err, "taking role", "You may not edit this project")
			if !slices.Contains(e.jira.Members("OPS", "Developers"), name) {
				t.Error("the role is taken, which this test is not about")
			}
			locked()
			// The answer to this one is lost, and the next one hears that he does not have it.
			e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: "/rest/api/2/project/OPS/role", Nth: 1, Do: jiratest.LoseAnswer})
			e.revoke(lease.Secret)
			if slices.Contains(e.jira.Members("OPS", "Developers"), name) {
				t.Error("the role is left")
			}
			e.nothingHeld()
		})
	}
}
