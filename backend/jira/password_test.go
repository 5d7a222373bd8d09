package jira

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const nextPassword = "the password after that"

// changing is a client of "ci" who may change his password to nextPassword.
func changing(t *testing.T, s *jiratest.Server) *Client {
	t.Helper()
	return basic(t, s, password).As(Login{Username: "ci", Password: password, Next: nextPassword})
}

// passwordOf is what Jira takes.
func passwordOf(t *testing.T, s *jiratest.Server) string {
	t.Helper()
	u, ok := userNamed(s, "ci")
	if !ok {
		t.Fatal("there is no ci")
	}
	return u.Password
}

// Whatever becomes of the answer, the next call gets in, with at most one wrong
// password in a row, and the client knows which one it was.
func TestChangePassword(t *testing.T) {
	for _, tt := range []struct {
		fault   jiratest.Misbehaviour
		status  int
		changed bool
	}{
		{"", 0, true},
		{jiratest.LoseCall, 0, false},
		{jiratest.LoseAnswer, 0, true},
		{jiratest.AnswerAfter, 502, true},
		{jiratest.HTML200, 0, false},
		{jiratest.Answer, 204, false}, // it lies
		{jiratest.Answer, 500, false},
		{jiratest.Twice, 0, true},
		{jiratest.Anonymous, 0, false},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			s := newJira(t, jiratest.Options{Switches: jiratest.Switches{CaptchaAfter: 2}})
			c := changing(t, s)
			remove := func() {}
			if tt.fault != "" {
				remove = s.Fault(jiratest.Fault{Method: "PUT", Do: tt.fault, Status: tt.status})
			}
			if err := c.ChangePassword(t.Context()); err != nil && strings.Contains(err.Error(), nextPassword) {
				t.Errorf("it tells: %v", err)
			}
			remove()
			if _, err := c.Myself(t.Context()); err != nil {
				t.Fatal(err)
			}
			if changed := passwordOf(t, s) == nextPassword; changed != tt.changed || c.UsesNext() != tt.changed {
				t.Errorf("changed %v, and the client says %v", changed, c.UsesNext())
			}
			if err := c.ChangePassword(t.Context()); err != nil || passwordOf(t, s) != nextPassword || !c.UsesNext() {
				t.Errorf("once more: %v", err)
			}
			// It is written down, and one who does not know of it goes on.
			c.SetPasswords(nextPassword, "")
			if _, err := c.Myself(t.Context()); err != nil || c.UsesNext() {
				t.Error(err)
			}
		})
	}
}

// A change that lands minutes late is noticed by whoever calls next.
func TestChangeThatLandsLate(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := changing(t, s)
	if _, err := c.Myself(t.Context()); err != nil || c.UsesNext() {
		t.Fatal(err)
	}
	s.SetUser("ci", func(u *jiratest.User) { u.Password = nextPassword })
	if _, _, err := c.CreateToken(t.Context(), "nightly", 1); err != nil || !c.UsesNext() {
		t.Fatal(err)
	}
	if n := s.Count("POST", tokensPath); n != 2 || made(s, "nightly") != 1 {
		t.Errorf("%d calls made %d", n, made(s, "nightly"))
	}
	// What comes after the change to the next but one is refused by Jira.
	if err := c.ChangePassword(t.Context()); err != nil || s.Count("PUT", "") != 0 {
		t.Error(err)
	}
}

// Two wrong passwords are sent, and no third.
func TestNeitherPassword(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := changing(t, s)
	s.SetUser("ci", func(u *jiratest.User) { u.Password = "changed by hand" })
	for range 3 {
		_, err := c.Myself(t.Context())
		wants(t, err, Refused, "401")
		if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), nextPassword) {
			t.Errorf("it tells: %v", err)
		}
	}
	if err := c.ChangePassword(t.Context()); err == nil {
		t.Error("changed")
	}
	if n := len(s.Calls()); n != 2 { // and none by those that came after
		t.Errorf("%d calls", n)
	}
}

// A lock, and a proxy's refusal, are no word about the password: the other one is
// not tried.
func TestRefusalThatIsNotOfThePassword(t *testing.T) {
	for _, f := range []jiratest.Fault{
		{Do: jiratest.Answer, Status: 401, Body: "<html>who are you</html>"},
		{Do: jiratest.Answer, Status: 403, Header: http.Header{"X-Authentication-Denied-Reason": {"CAPTCHA_CHALLENGE; login-url=x"}}},
	} {
		s := newJira(t, jiratest.Options{})
		c := changing(t, s)
		s.Fault(f)
		_, err := c.Myself(t.Context())
		wants(t, err, Refused)
		if n := len(s.Calls()); n != 1 || c.UsesNext() {
			t.Errorf("%d calls", n)
		}
	}
}

// Many who call while it changes all get in.
func TestABurstWhileThePasswordChanges(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{CaptchaAfter: 2}})
	c := changing(t, s)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			if i == 20 {
				if err := c.ChangePassword(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if _, err := c.At(c.Site()).Tokens(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := s.Count("GET", ""); n != 40 {
		t.Errorf("%d calls", n)
	}
}

// A change needs something to change to, and Jira may not like it.
func TestChangeThatIsRefused(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	for _, l := range []Login{{Username: "ci", Password: password}, {Username: "ci", Token: "x", Next: "y"}} {
		wants(t, basic(t, s, password).As(l).ChangePassword(t.Context()), Denied)
	}
	c := changing(t, s)
	s.Fault(jiratest.Fault{Method: "PUT", Do: jiratest.Answer, Status: 400, Body: `{"errors":{"password":"too plain: ` + nextPassword + `"}}`})
	err := c.ChangePassword(t.Context())
	wants(t, err, Denied, "too plain")
	if !NothingMade(err) || strings.Contains(err.Error(), nextPassword) || c.UsesNext() {
		t.Error(err)
	}
}

// One of Jira's nodes learns of the change when another has long answered: whichever
// password it takes, it gets.
func TestChangeThatIsNotKnownEverywhereYet(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{CaptchaAfter: 3}})
	c := changing(t, s)
	s.Fault(jiratest.Fault{Method: "PUT", Do: jiratest.Answer, Status: 204})
	if err := c.ChangePassword(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, known := range []string{password, nextPassword, password, nextPassword} {
		s.SetUser("ci", func(u *jiratest.User) { u.Password = known })
		if _, err := c.Myself(t.Context()); err != nil || c.UsesNext() != (known == nextPassword) {
			t.Fatal(err)
		}
	}
}

// Two wrong passwords are sent, be it that nothing was heard of the second.
func TestNeitherPasswordWhileJiraIsAway(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := changing(t, s)
	s.SetUser("ci", func(u *jiratest.User) { u.Password = "changed by hand" })
	s.Fault(jiratest.Fault{Nth: 2, Do: jiratest.Answer, Status: 500})
	for range 4 {
		if _, err := c.Myself(t.Context()); err == nil {
			t.Error("it got in")
		}
	}
	if n := len(s.Calls()); n != 3 { // one of which Jira itself did not see
		t.Errorf("%d calls", n)
	}
}
