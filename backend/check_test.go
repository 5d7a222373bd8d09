package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// subjects are who a check has found, and whether each is an administrator.
func subjects(answer map[string]any) map[string]bool {
	found := map[string]bool{}
	for _, s := range answer["subjects"].([]map[string]any) {
		found[s["username"].(string)] = s["administrator"].(bool)
	}
	return found
}

// permissions are what the only subject of a check may do in a project.
func permissions(t *testing.T, answer map[string]any, project string) []string {
	t.Helper()
	subjects := answer["subjects"].([]map[string]any)
	if len(subjects) != 1 {
		t.Fatalf("subjects %v", subjects)
	}
	return subjects[0]["permissions"].(map[string][]string)[project]
}

// A check tells what Jira lets the credentials do, one of each account, and
// leaves none of them behind.
func TestACheckOfARole(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	e.jira.AddRole("OPS", "Developers", "release-bot")
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot,release-bot", "max_leases": 1, "check_projects": "OPS", "allowed_permissions": "BROWSE_PROJECTS"})
	lease := e.issue("readonly", nil) // which does not keep a check from being made
	got := e.must(logical.UpdateOperation, "roles/readonly/check", nil).Data
	if found := subjects(got); len(found) != 2 || found["ci-bot"] || found["release-bot"] {
		t.Errorf("subjects %v", found)
	}
	for _, s := range got["subjects"].([]map[string]any) {
		in := s["permissions"].(map[string][]string)["OPS"]
		if has := slices.Contains(in, "BROWSE_PROJECTS"); has != (s["username"] == "release-bot") {
			t.Errorf("%v may do %v in OPS", s["username"], in)
		}
	}
	more := got["not_allowed"].([]string)
	if got["within_allowed"] != false || len(more) == 0 || slices.Contains(more, "BROWSE_PROJECTS") {
		t.Errorf("not allowed are %v", more)
	}
	e.write("roles/readonly", map[string]any{"allowed_permissions": append(more, "BROWSE_PROJECTS")})
	if got := e.must(logical.UpdateOperation, "roles/readonly/check", nil).Data; got["within_allowed"] != true {
		t.Errorf("not allowed are %v", got["not_allowed"])
	}
	e.revoke(lease.Secret)
	e.nothingHeld()
	e.refuses(400, logical.UpdateOperation, "roles/none/check", nil, `no role "none"`)
}

func TestACheckOfThrowAwayUsers(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	got := e.must(logical.UpdateOperation, "roles/deploy/check", nil).Data
	if in := permissions(t, got, "OPS"); !slices.Contains(in, "BROWSE_PROJECTS") || slices.Contains(in, "ADMINISTER_PROJECTS") {
		t.Errorf("in OPS he may %v", in)
	}
	e.write("config", map[string]any{"allow_admin_roles": "rulers"})
	e.write("roles/rulers", map[string]any{"credential_type": "ephemeral_user", "groups": "jira-administrators", "allow_admin": true, "on_revoke": "deactivate"})
	for name, is := range subjects(e.must(logical.UpdateOperation, "roles/rulers/check", nil).Data) {
		if !is || !strings.HasPrefix(name, "vault-") {
			t.Errorf("%q is an administrator: %v", name, is)
		}
	}
	if people := e.people(); len(people) != 0 {
		t.Errorf("left are %v", people)
	}
	e.nothingHeld()
}

// With enforce_permissions a role that hands out more is refused when it is
// written.
func TestEnforcedPermissions(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.refuses(400, logical.UpdateOperation, "roles/readonly", map[string]any{"enforce_permissions": true}, "needs allowed_permissions")
	e.refuses(400, logical.UpdateOperation, "roles/readonly", map[string]any{"allowed_permissions": "BROWSE PROJECTS"}, "no key of a permission")
	e.refuses(400, logical.UpdateOperation, "roles/readonly", map[string]any{"check_projects": "../x"}, "../x")
	resp, err := e.request(t.Context(), logical.UpdateOperation, "roles/readonly", map[string]any{"allowed_permissions": "BROWSE_PROJECTS", "enforce_permissions": true})
	e.failed(400, resp, err, "hands out more than its allowed_permissions", "BULK_CHANGE")
	if got := e.read("roles/readonly")["enforce_permissions"]; got != false {
		t.Errorf("enforce_permissions is %v", got)
	}
	all := e.must(logical.UpdateOperation, "roles/readonly/check", nil).Data["not_allowed"]
	e.write("roles/readonly", map[string]any{"allowed_permissions": all, "enforce_permissions": true})
	e.nothingHeld()
}

// What is different in Jira from what was written here is found within a day, and
// told in reads and in the log.
func TestTheDailyReview(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*jiratest.User)
		words  string
	}{
		"deactivated": {func(u *jiratest.User) { u.Inactive = true }, "cannot be used"},
		"renamed":     {func(u *jiratest.User) { u.Name = "ci-robot" }, `ci-robot`},
		"promoted":    {func(u *jiratest.User) { u.Admin = true }, "administers Jira now"},
	} {
		t.Run(name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			all := e.must(logical.UpdateOperation, "roles/readonly/check", nil).Data["not_allowed"]
			e.write("roles/readonly", map[string]any{"allowed_permissions": all, "enforce_permissions": true})
			review := func() {
				if err := e.reviewDaily(t.Context()); err != nil {
					t.Fatal(err)
				}
				e.running.Wait()
			}
			review() // the first time it only notes the date
			e.jira.SetUser("ci-bot", tt.change)
			e.jira.ResetCalls()
			review()
			if n := len(e.jira.Calls()); n != 0 {
				t.Errorf("%d calls though nothing is due", n)
			}
			e.pass(25 * time.Hour)
			e.mount()
			review()
			got := e.read("accounts/ci-bot")
			if !strings.Contains(fmt.Sprint(got["review_finding"]), tt.words) || got["reviewed_at"] == "" {
				t.Errorf("found of the account: %v, at %v", got["review_finding"], got["reviewed_at"])
			}
			role := fmt.Sprint(e.read("roles/readonly")["review_finding"])
			if name == "promoted" && !strings.Contains(role, "ADMINISTER") || role == "" {
				t.Errorf("found of the role: %q", role)
			}
			if !e.logged("[WARN]", "the daily review of an account has a finding", tt.words) {
				t.Error("the log does not say so")
			}
			e.jira.ResetCalls()
			review()
			if n := len(e.jira.Calls()); n != 0 {
				t.Errorf("%d calls, and the next is due in an hour", n)
			}

			// Mended in Jira, which nobody tells the engine.
			e.pass(2 * time.Hour)
			review()
			if e.read("accounts/ci-bot")["review_finding"] == "" {
				t.Error("it is not mended, and said to be")
			}
			e.jira.SetUser(map[bool]string{true: "ci-robot", false: "ci-bot"}[name == "renamed"], func(u *jiratest.User) {
				u.Name, u.Inactive, u.Admin = "ci-bot", false, false
			})
			e.sites.forget("ci-bot")
			e.pass(2 * time.Hour)
			review()
			if account, role := e.read("accounts/ci-bot")["review_finding"], e.read("roles/readonly")["review_finding"]; account != "" || role != "" {
				t.Errorf("mended, and still said: %q, %q", account, role)
			}
			e.jira.ResetCalls()
			e.pass(2 * time.Hour)
			review()
			if n := len(e.jira.Calls()); n != 0 {
				t.Errorf("%d calls, and nothing is wrong", n)
			}
			e.nothingHeld()
		})
	}
}

// What is mended by a write is not said any more, and what is well is not looked at for it.
func TestAReviewAfterAWrite(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = true })
	if err := e.review(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	e.jira.ResetCalls()
	e.write("roles/other", map[string]any{"accounts": "ci-bot"})
	look := func() {
		if err := e.reviewDaily(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.running.Wait()
	}
	look()
	if e.read("accounts/ci-bot")["review_finding"] == "" {
		t.Error("he administers Jira still")
	}
	e.write("accounts/ci-bot", map[string]any{"allow_admin": true})
	look()
	if found := e.read("accounts/ci-bot")["review_finding"]; found != "" {
		t.Errorf("still said: %v", found)
	}
	for _, c := range e.jira.Calls() {
		if c.User == "release-bot" {
			t.Errorf("%v: nothing was wrong with him", c)
		}
	}
	e.jira.ResetCalls()
	look()
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// A node that may not write reviews nothing.
func TestADeposedNodeReviewsNothing(t *testing.T) {
	e := configured(t, jiratest.Options{})
	if err := e.reviewDaily(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.pass(25 * time.Hour)
	reinstate := e.deposed()
	defer reinstate()
	e.jira.ResetCalls()
	select {
	case <-e.ledger.Sooner():
	default:
	}
	_ = e.reviewDaily(t.Context())
	e.running.Wait()
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	select {
	case <-e.ledger.Sooner():
		t.Error("the worker is woken, and would begin the next one at once, without an end")
	default:
	}
}

// What could not be looked at is no finding, and what was found stays until it was.
func TestAReviewThatCannotLook(t *testing.T) {
	limits := func(t *testing.T) *engine {
		e := configured(t, jiratest.Options{})
		all := e.must(logical.UpdateOperation, "roles/readonly/check", nil).Data["not_allowed"]
		e.write("accounts/ci-bot", map[string]any{"max_tokens": 3})
		e.write("roles/readonly", map[string]any{"allowed_permissions": all, "enforce_permissions": true})
		e.looked()
		return e
	}
	t.Run("Jira is away", func(t *testing.T) {
		e := limits(t)
		e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = true })
		e.pass(25 * time.Hour)
		e.looked()
		e.finds("administers Jira now")
		remove := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 503})
		e.pass(25 * time.Hour)
		e.looked()
		remove()
		e.sites.forget("ci-bot")
		e.finds("administers Jira now")
		if !e.logged("[WARN]", "an account could not be reviewed now") {
			t.Error("the log does not say so")
		}
		e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = false })
		e.pass(2 * time.Hour)
		e.settled() // what was tried then
		e.looked()
		e.well()
	})
	t.Run("the account is full", func(t *testing.T) {
		e := limits(t)
		lease := e.issue("readonly", nil)
		e.pass(25 * time.Hour)
		e.looked()
		e.revoke(lease.Secret)
		e.settled()
		e.well()
	})
	t.Run("the mount is being removed", func(t *testing.T) {
		e := limits(t)
		e.pass(25 * time.Hour)
		e.system.TaintedVal = true
		e.jira.ResetCalls()
		e.looked()
		if n := len(e.jira.Calls()); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
	t.Run("a write while it runs", func(t *testing.T) {
		e := limits(t)
		e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = true })
		e.pass(25 * time.Hour)
		e.jira.ResetCalls()
		const permissions = "/rest/api/2/mypermissions"
		e.jira.Fault(jiratest.Fault{Method: "GET", Path: permissions, Nth: 1, Do: jiratest.Slow, Delay: 200 * time.Millisecond})
		if err := e.reviewDaily(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := e.jira.WaitCalls(t.Context(), "GET", permissions, 1); err != nil {
			t.Fatal(err)
		}
		e.write("accounts/ci-bot", map[string]any{"allow_admin": true})
		e.write("roles/readonly", map[string]any{"enforce_permissions": false})
		if err := e.reviewDaily(t.Context()); err != nil { // the worker, which the write has woken
			t.Fatal(err)
		}
		e.running.Wait()
		e.looked()
		e.settled()
		e.well()
	})
	t.Run("the role is deleted", func(t *testing.T) {
		e := limits(t)
		e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = true })
		e.pass(25 * time.Hour)
		e.looked()
		e.write("accounts/ci-bot", map[string]any{"allow_admin": true})
		e.looked()
		e.finds("role")
		e.must(logical.DeleteOperation, "roles/readonly", nil)
		e.looked()
		e.settled()
		e.well()
	})
}

// looked has the worker review what is due.
func (e *engine) looked() {
	e.t.Helper()
	if err := e.reviewDaily(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	e.running.Wait()
}
