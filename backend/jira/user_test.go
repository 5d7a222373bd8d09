package jira

import (
	"net/http"
	"testing"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestMyself(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	want := s.AddUser(jiratest.User{Name: "a@b", DisplayName: "A, B"})
	have, err := bearer(t, s, "a@b").Myself(t.Context())
	if err != nil || have != (User{Name: "a@b", Key: want.Key, DisplayName: "A, B", Active: true}) {
		t.Errorf("got %+v, %v; want %+v", have, err, want)
	}
	_, err = newSite(t, s, Options{}).As(Login{}).Myself(t.Context())
	wants(t, err, Refused, "401")
	for _, body := range []string{"", "null", "[]", "{}", `{"name":"ci"}`, `{"key":"K"}`, `{"name":7,"key":"K"}`, `"ci"`} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: body})
		_, err := bearer(t, s, "ci").Myself(t.Context())
		wants(t, err, Nonsense, "200")
		remove()
	}
}

func TestAdministrator(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddUser(jiratest.User{Name: "admin", Admin: true})
	s.AddProject(jiratest.Project{Key: "OPS", Name: "Operations"})
	s.AddRole("OPS", "Administrators", "other")
	for user, want := range map[string]bool{"ci": false, "other": false, "admin": true, "root": true} {
		for _, absent := range []bool{false, true} {
			s.SetSwitches(func(s *jiratest.Switches) { s.XAUserNameAbsent = absent })
			have, err := bearer(t, s, user).Administrator(t.Context())
			if err != nil || have != want {
				t.Errorf("%s: got %v, %v", user, have, err)
			}
		}
	}
	s.SetSwitches(func(s *jiratest.Switches) { s.XAUserNameAbsent = true })
	_, err := newSite(t, s, Options{}).As(Login{Username: "root"}).Administrator(t.Context())
	wants(t, err, Refused) // anonymous, and the answer does not say so
	for body, want := range map[string]bool{
		`{"permissions":{"ADMINISTER":{"havePermission":false},"SYSTEM_ADMIN":{"havePermission":true}}}`: true,
		`{"permissions":{"ADMINISTER":{"havePermission":true}}}`:                                         true,
		`{"permissions":{"ADMINISTER":{"havePermission":false}}}`:                                        false,
	} {
		remove := s.Fault(jiratest.Fault{Path: "/rest/api/2/mypermissions", Do: jiratest.Answer, Body: body})
		have, err := bearer(t, s, "ci").Administrator(t.Context())
		if err != nil || have != want {
			t.Errorf("%s: got %v, %v", body, have, err)
		}
		remove()
	}
	for _, body := range []string{"", "null", "[]", "{}", `{"permissions":{}}`, `{"permissions":{"SYSTEM_ADMIN":{"havePermission":true}}}`} {
		remove := s.Fault(jiratest.Fault{Path: "/rest/api/2/mypermissions", Do: jiratest.Answer, Body: body})
		_, err := bearer(t, s, "ci").Administrator(t.Context())
		wants(t, err, Nonsense, "200")
		remove()
	}
}

// TestLoginPage: with 200, and to whomever it may be.
func TestLoginPage(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: "<html><title>Log in</title>", Header: http.Header{"X-Ausername": {"anonymous"}}})
	c := basic(t, s, password)
	for range 2 { // it is no word of Jira's on the password
		_, err := c.Myself(t.Context())
		wants(t, err, Nonsense, "200", `titled "Log in"`, "a login page or a proxy")
	}
	if len(s.Calls()) != 2 {
		t.Errorf("%d calls, want 2", len(s.Calls()))
	}
}

// TestServerInfoOf: a site may tell it to anybody, or only who logs in.
func TestServerInfoOf(t *testing.T) {
	s := newJira(t, jiratest.Options{Version: "9.12.5"})
	nobody := newSite(t, s, Options{}).As(Login{})
	for _, wantsLogin := range []bool{false, true, false} {
		s.SetSwitches(func(s *jiratest.Switches) { s.ServerInfoLogin = wantsLogin })
		info, err := bearer(t, s, "ci").ServerInfo(t.Context())
		if err != nil || info.Version != "9.12.5" || info.DeploymentType != "Server" {
			t.Errorf("got %v, %v", info, err)
		}
		if _, err = nobody.ServerInfo(t.Context()); Is(err, Refused) != wantsLogin {
			t.Errorf("got %v", err)
		}
	}
	s.Fault(jiratest.Fault{Nth: 1, Do: jiratest.Answer, Body: `{"version":"10.3","versionNumbers":[10,3]}`})
	if info, err := nobody.ServerInfo(t.Context()); err != nil || info.Version != "10.3" {
		t.Errorf("got %v, %v", info, err)
	}
	for _, body := range []string{"", "null", "[]", "{}", `{"version":"10"}`, `{"versionNumbers":[10,3]}`, `{"version":"10","versionNumbers":[10]}`} {
		remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Body: body})
		_, err := nobody.ServerInfo(t.Context())
		wants(t, err, Nonsense, "200")
		remove()
	}
}

func TestAtLeast(t *testing.T) {
	for _, test := range []struct {
		have         []int
		major, minor int
		want         bool
	}{
		{[]int{8, 14, 0}, 8, 14, true},
		{[]int{8, 14}, 8, 14, true},
		{[]int{8, 13, 9}, 8, 14, false},
		{[]int{8, 20}, 8, 14, true},
		{[]int{9, 0}, 8, 14, true},
		{[]int{7, 20}, 8, 14, false},
		{[]int{10, 3, 2}, 8, 14, true},
		{[]int{10}, 8, 14, false},
		{nil, 8, 14, false},
	} {
		if have := (ServerInfo{VersionNumbers: test.have}).AtLeast(test.major, test.minor); have != test.want {
			t.Errorf("%v at least %d.%d: %v", test.have, test.major, test.minor, have)
		}
	}
}

// TestJiraBeforeTokens: older than 8.14 there is no path for them.
func TestJiraBeforeTokens(t *testing.T) {
	s := newJira(t, jiratest.Options{Version: "8.13.27"})
	c := basic(t, s, password)
	_, _, err := c.CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Nonsense, "404", "Jira is 8.14 or newer")
	info, err := c.ServerInfo(t.Context())
	if err != nil || info.AtLeast(8, 14) {
		t.Errorf("got %v, %v", info, err)
	}
}
