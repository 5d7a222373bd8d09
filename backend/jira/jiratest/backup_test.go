package jiratest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// What came after the backup is gone, what went is back, and the ids of what is gone are given out a second time.
func TestRestoreGivesIDsOutAgain(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	keptToken, keptSecret := s.Mint("ci", "vault-kept", 0)
	backup := s.Backup()

	lostToken, lostSecret := s.Mint("ci", "vault-lost", 0)
	lostUser := s.AddUser(jiratest.User{Name: "late"})
	s.Delete(keptToken.ID)
	s.SetUser("other", func(u *jiratest.User) { u.Name, u.Password, u.Inactive = "renamed", "another password", true })
	as(t, s, "Bearer "+keptSecret).want(401, "GET", myself, "")

	for range 2 { // a backup is not used up
		s.Restore(backup)
		as(t, s, "Bearer "+keptSecret).want(200, "GET", myself, "")
		as(t, s, "Bearer "+lostSecret).want(401, "GET", myself, "")
		basic(t, s, "other").want(200, "GET", myself, "")
		names := func() (list []string) {
			for _, u := range s.Users() {
				list = append(list, u.Name)
			}
			return list
		}()
		if want := []string{"ci", "other", "root"}; !slices.Equal(names, want) {
			t.Errorf("users %q, want %q", names, want)
		}
		again, _ := s.Mint("other", "a person's", 0)
		if again.ID != lostToken.ID {
			t.Errorf("the next token has id %d, want %d", again.ID, lostToken.ID)
		}
		if u := s.AddUser(jiratest.User{Name: "another"}); u.Key != lostUser.Key {
			t.Errorf("the next user has key %q, want %q", u.Key, lostUser.Key)
		}
		s.Delete(keptToken.ID)
	}
	// A log may still hold what is gone.
	if secrets := s.Secrets(); !slices.Contains(secrets, lostSecret) || !slices.Contains(secrets, lostUser.Password) {
		t.Error("the secrets of what is gone were forgotten")
	}
}

func TestRestoreOfTheRest(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddProject(jiratest.Project{Key: "OPS", Restricted: true})
	s.AddRole("OPS", "Users", "ci")
	issue := s.AddIssue("OPS", "ci", "before")
	cookie, _, _ := strings.Cut(basic(t, s, "ci").do("GET", myself, "").header.Get("Set-Cookie"), ";")
	session := as(t, s, "")
	session.header.Set("Cookie", cookie)
	session.want(200, "GET", myself, "")
	backup := s.Backup()

	root, ci := basic(t, s, "root"), basic(t, s, "ci")
	s.SetUser("other", func(u *jiratest.User) { u.Groups = []string{"late"} })
	root.want(200, "POST", "/rest/api/2/project/OPS/role/10000", `{"user":["other"]}`)
	root.want(204, "DELETE", "/rest/api/2/project/OPS/role/10000?user=ci", "")
	lost := s.AddIssue("OPS", "root", "after")
	s.Restore(backup)

	if members := s.Members("OPS", "Users"); !slices.Equal(members, []string{"ci"}) {
		t.Errorf("members %q", members)
	}
	ci.want(200, "GET", "/rest/api/2/issue/"+issue, "")
	ci.want(404, "GET", "/rest/api/2/issue/"+lost, "")
	if next := s.AddIssue("OPS", "ci", "after"); next != lost {
		t.Errorf("the next issue is %s, want %s", next, lost)
	}
	root.want(404, "POST", "/rest/api/2/group/user?groupname=late", `{"name":"ci"}`)
	session.want(401, "GET", myself, "")
}

func TestRestoreOfAPITokens(t *testing.T) {
	s := jiratest.New(t, jiratest.Options{Cloud: "acme", Now: func() time.Time { return start }})
	account := s.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	s.MintAPIToken(account.ID, "kept", time.Hour)
	backup := s.Backup()
	s.MintAPIToken(account.ID, "vault-lost", time.Hour)
	s.Restore(backup)
	if left := s.APITokens(); len(left) != 1 || left[0].Label != "kept" {
		t.Errorf("API tokens %+v", left)
	}
}

func TestControlBackup(t *testing.T) {
	s := newJira(t, jiratest.Options{Control: true})
	sim := steer(t, s)
	sim.want(400, "POST", "/_sim/restore", "")
	sim.want(200, "POST", "/_sim/backup", "")
	s.Mint("ci", "vault-lost", 0)
	sim.want(200, "POST", "/_sim/restore", "")
	if left := s.Tokens(""); len(left) > 0 {
		t.Errorf("tokens %+v", left)
	}
}
