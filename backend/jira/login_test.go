package jira

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// TestWrongPasswordIsSentOnce: three of them lock a Jira user out.
func TestWrongPasswordIsSentOnce(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{CaptchaAfter: 2}})
	c := basic(t, s, "wrong")
	// all makes fifty calls of all kinds at a time, and counts what arrives.
	all := func(c *Client) int {
		t.Helper()
		s.ResetCalls()
		var running sync.WaitGroup
		for i := range 50 {
			running.Go(func() {
				var err error
				switch i % 3 {
				case 0:
					_, _, err = c.CreateToken(t.Context(), "nightly", 1)
				case 1:
					_, err = c.Tokens(t.Context())
				case 2:
					err = c.DeleteToken(t.Context(), "412")
				}
				if !Is(err, Refused) || !NothingMade(err) || !strings.Contains(err.Error(), "401") {
					t.Errorf("got %v", err)
				}
			})
		}
		running.Wait()
		return len(s.Calls())
	}
	if n := all(c); n != 1 {
		t.Errorf("it was sent %d times right after the start", n)
	}
	if n := all(c); n != 0 {
		t.Errorf("it was sent %d times after it was refused", n)
	}

	good := basic(t, s, password) // with which the user is not locked out
	if _, err := good.Myself(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.SetUser("ci", func(u *jiratest.User) { u.Password = "changed in Jira" })
	if n := all(good); n != 1 {
		t.Errorf("one that was good before was sent %d times", n)
	}
}

// TestPasswordInDoubt: what is no refusal lets the next call try.
func TestPasswordInDoubt(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := basic(t, s, password)
	s.Fault(jiratest.Fault{Nth: 1, Do: jiratest.Answer, Status: 500})
	_, err := c.Myself(t.Context())
	wants(t, err, Down)
	if _, err := c.Myself(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPasswordsTurn: who waits for it does not wait longer than he can.
func TestPasswordsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin(Login{Username: "ci", Password: password}, "test")
		leave, err := l.enter(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := l.enter(ctx, false); err == nil || err.Kind != Busy || !err.Unsent || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		leave(nil)
		leave, err = l.enter(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		// A page of something before Jira is no word of Jira's on the password.
		l.judge(&Error{Kind: Refused, Status: 401})
		leave(nil)
		if _, err := l.enter(t.Context(), false); err == nil || err.Kind != Refused || !err.Unsent {
			t.Errorf("a password refused by a proxy: %v", err)
		}
		time.Sleep(refusedRest + 1)
		if leave, err = l.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.judge(&Error{Kind: Refused, Refusing: true, Status: 401})
		leave(nil)
		time.Sleep(1000 * time.Hour)
		if _, err := l.enter(t.Context(), false); err == nil || err.Kind != Refused || !err.Unsent {
			t.Errorf("a refused password: %v", err)
		}
	})
}

func TestCaptcha(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	for range 3 {
		_, err := basic(t, s, "wrong").Myself(t.Context())
		wants(t, err, Refused, "401", "Unauthorized", "the credential is wrong")
	}
	c := basic(t, s, password)
	_, _, err := c.CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Refused, "403", "CAPTCHA_CHALLENGE", "a person must log in")
	if !NothingMade(err) {
		t.Error("a token may have been made")
	}
	if _, err := bearer(t, s, "ci").Myself(t.Context()); err != nil {
		t.Errorf("a token is locked too: %v", err)
	}
	s.LogIn("ci")
	s.ResetCalls()
	_, err = c.Myself(t.Context())
	wants(t, err, Refused)
	if len(s.Calls()) != 0 {
		t.Error("it was tried again by the same Client")
	}
	if _, err := basic(t, s, password).Myself(t.Context()); err != nil {
		t.Errorf("a new Client: %v", err)
	}
}

// TestAdviceOnALogin: a person is told of passwords who has given one, of Basic
// authentication who could have used it, and only where Jira may not know him.
func TestAdviceOnALogin(t *testing.T) {
	const lockout, switchedOff = "three wrong passwords", "Basic authentication is switched off"
	logins := map[string]Login{
		"password": {Username: "ci", Password: password},
		"token":    {Username: "ci", Token: "s3cret"},
		"both":     {Username: "ci", Token: "s3cret", Password: password}, // the token is sent
		"nobody":   {Username: "ci"},
	}
	for status, known := range map[int]bool{401: false, 403: false, -401: true, -403: true} {
		for name, l := range logins {
			jira := network(func(req *http.Request) (*http.Response, error) {
				resp := answered(max(status, -status), "{}")
				if !known {
					resp.Header.Del("X-Ausername")
				}
				if _, _, basic := req.BasicAuth(); basic != (name == "password") {
					t.Errorf("%s is sent as Basic authentication: %v", name, basic)
				}
				return resp, nil
			})
			_, err := jira.site(t).As(l).Myself(t.Context())
			basic := name == "password" && !known
			if err == nil || strings.Contains(err.Error(), lockout) != (basic && status == 401) || strings.Contains(err.Error(), switchedOff) != (basic && status == 403) {
				t.Errorf("%d to %s, known: %v: %v", status, name, known, err)
			}
		}
	}
}

// TestAdviceOfARefusal is repeated where the login is not tried again.
func TestAdviceOfARefusal(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := basic(t, s, "wrong")
	for _, more := range []string{"", "write the credential again"} {
		_, err := c.Myself(t.Context())
		wants(t, err, Refused, "the credential is wrong, expired or deleted", "three wrong passwords", more)
	}
	if len(s.Calls()) != 1 {
		t.Errorf("%d calls", len(s.Calls()))
	}
}

// TestBasicSwitchedOff: that is no refusal of the password, and passes when
// it is switched on.
func TestBasicSwitchedOff(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{BasicOff: true}})
	c := basic(t, s, password)
	_, _, err := c.CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Denied, "403", "Basic Authentication has been disabled on this instance.", "use a token")
	if !NothingMade(err) {
		t.Error("a token may have been made")
	}
	lifeOfAToken(t, s, bearer(t, s, "ci"))
	s.SetSwitches(func(s *jiratest.Switches) { s.BasicAllowed = []string{"ci"} })
	lifeOfAToken(t, s, c)
	s.SetSwitches(func(s *jiratest.Switches) { s.BasicOff = false })
	lifeOfAToken(t, s, c)
}

// TestRefusedToken rests for a minute, and is then tried again.
func TestRefusedToken(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := bearer(t, s, "ci")
	s.SetUser("ci", func(u *jiratest.User) { u.Inactive = true })
	for range 3 {
		_, _, err := c.CreateToken(t.Context(), "nightly", 1)
		wants(t, err, Refused, "401", "Client must be authenticated")
		if !NothingMade(err) {
			t.Error("a token may have been made")
		}
	}
	if len(s.Calls()) != 1 {
		t.Errorf("%d calls, want 1", len(s.Calls()))
	}
	s.SetUser("ci", func(u *jiratest.User) { u.Inactive = false })
	c.login.since = c.login.since.Add(-refusedRest)
	lifeOfAToken(t, s, c)
}

func TestBearerRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogin(Login{Token: "token"}, "test")
		enter := func(refused bool) {
			t.Helper()
			leave, err := l.enter(t.Context(), false)
			if (err != nil) != refused {
				t.Fatalf("got %v, refused: %v", err, refused)
			}
			if err == nil {
				leave(nil)
			}
		}
		enter(false)
		for range 2 {
			l.judge(&Error{Kind: Refused})
			enter(true)
			time.Sleep(refusedRest)
			enter(true)
			time.Sleep(time.Nanosecond)
			enter(false)
		}
		l.judge(&Error{Kind: Denied})
		l.judge(&Error{Kind: Down})
		enter(false)
		l.judge(&Error{Kind: Refused})
		l.judge(nil) // of a call that was under way
		enter(false)
	})
}

// TestTakenForAnonymous: Jira serves a dead token as anybody, with 200.
func TestTakenForAnonymous(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	calls := map[string]func(*Client) error{
		"ServerInfo":    func(c *Client) error { _, err := c.ServerInfo(t.Context()); return err },
		"Administrator": func(c *Client) error { _, err := c.Administrator(t.Context()); return err },
	}
	for name, call := range calls {
		c := bearer(t, s, "ci")
		remove := s.Fault(jiratest.Fault{Do: jiratest.Anonymous})
		wants(t, call(c), Refused, "200", "anonymous")
		remove()
		s.ResetCalls()
		wants(t, call(c), Refused)
		if len(s.Calls()) != 0 {
			t.Errorf("%s: it did not rest", name)
		}
	}
}

// TestProof: what is absent is proven so by an answer that Jira gave to the
// login's own user, and by no other.
func TestProof(t *testing.T) {
	const html = "<html><title>Not found</title></html>"
	named := func(name string) http.Header { return http.Header{"X-Ausername": {name}} }
	for what, test := range map[string]struct {
		status int
		header http.Header // of the answer in question
		body   string
		login  string // "": ci
		asks   int    // calls to /myself
		want   Kind   // "": it is proven
	}{
		"204":                     {204, named("ci"), "", "", 0, ""},
		"200":                     {200, named("ci"), "[]", "", 0, ""},
		"404":                     {404, named("ci"), "", "", 0, ""},
		"404 JSON":                {404, named("ci"), `{"error":"x"}`, "", 0, ""},
		"in other letters":        {404, named("CI"), "", "", 0, ""},
		"percent-encoded":         {404, named("a%40b"), "", "a@b", 0, ""},
		"raw":                     {404, named("a@b"), "", "a@b", 0, ""},
		"plus, encoded":           {404, named("a%2Bb"), "", "a+b", 0, ""},
		"plus, raw":               {404, named("a+b"), "", "a+b", 0, ""},
		"badly encoded":           {404, named("50%"), "", "50%", 0, ""},
		"without a name":          {404, nil, "", "", 1, Nonsense}, // which this Jira gives
		"204 without a name":      {204, nil, "", "", 1, Nonsense},
		"200 without a name":      {200, nil, "[]", "", 1, Nonsense},
		"a gateway's JSON":        {404, nil, `{"message":"no Route matched with those values"}`, "", 1, Nonsense},
		"anonymous 204":           {204, named("anonymous"), "", "", 0, Refused},
		"anonymous 200":           {200, named("anonymous"), "[]", "", 0, Refused},
		"anonymous 404":           {404, named("anonymous"), "", "", 0, Refused},
		"somebody else's":         {404, named("other"), "", "", 1, Nonsense},
		"somebody else's list":    {200, named("other"), "[]", "", 1, Nonsense},
		"HTML":                    {404, named("ci"), html, "", 0, Nonsense},
		"HTML of no Jira":         {404, nil, html, "", 0, Nonsense},
		"HTML 200":                {200, nil, html, "", 0, Nonsense},
		"text of a gateway":       {404, nil, "no such route", "", 0, Nonsense},
		"text with the name":      {404, named("ci"), "no such route", "", 0, Nonsense},
		"text 200":                {200, nil, "OK", "", 0, Nonsense},
		"cut JSON":                {404, named("ci"), `{"error":`, "", 0, Nonsense},
		"410":                     {410, named("ci"), "", "", 0, Denied},
		"no answer for 204 + 205": {205, named("ci"), "", "", 0, Nonsense},
	} {
		t.Run(what, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			if test.login == "" {
				test.login = "ci"
			} else {
				s.AddUser(jiratest.User{Name: test.login})
			}
			check := func(method string, status int, call func(*Client) error) {
				t.Helper()
				c := bearer(t, s, test.login)
				defer s.Fault(jiratest.Fault{Method: method, Path: tokensPath, Do: jiratest.Answer, Status: status, Header: test.header, Body: test.body})()
				s.ResetCalls()
				err := call(c)
				if test.want == "" && err != nil || test.want != "" && !Is(err, test.want) {
					t.Errorf("%s: got %v, want %q", method, err, test.want)
				}
				if n := s.Count("GET", myselfPath); n != test.asks {
					t.Errorf("%s: /myself was asked %d times, want %d", method, n, test.asks)
				}
			}
			check("DELETE", test.status, func(c *Client) error { return c.DeleteToken(t.Context(), "99") }) // which nobody has
			if test.status == http.StatusOK {
				check("GET", test.status, func(c *Client) error { _, err := c.Tokens(t.Context()); return err })
			}
		})
	}
}

// TestProofByList: a Jira that says of a token that it is gone, and not that it ended it,
// is believed when its list says so, too; so is one that names its users nowhere, and a
// gateway before it is not.
func TestProofByList(t *testing.T) {
	for _, unnamed := range []bool{false, true} {
		s := newJira(t, jiratest.Options{Switches: jiratest.Switches{XAUserNameAbsent: unnamed}})
		c := bearer(t, s, "ci")
		k, _ := s.Mint("ci", "nightly", 1)
		header := http.Header{}
		statuses := []int{200, 204, 404}
		if !unnamed {
			header.Set("X-AUSERNAME", "ci")
			statuses = []int{200, 404}
		}
		for _, status := range statuses {
			remove := s.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: status, Header: header})
			wants(t, c.DeleteToken(t.Context(), key(k)), Nonsense, "still on the list")
			remove()
		}
		for range 2 {
			if err := c.DeleteToken(t.Context(), key(k)); err != nil {
				t.Error(err)
			}
		}
		s.Fault(jiratest.Fault{Method: "GET", Path: tokensPath, Do: jiratest.Answer, Status: 503})
		wants(t, c.DeleteToken(t.Context(), key(k)), Down, "cannot tell whether the token is gone")
	}
}

// TestWhatIsNotMounted: Jira says of it, in JSON and to the login's own user, what it says
// of a thing that is not there. Nothing is taken for gone by that.
func TestWhatIsNotMounted(t *testing.T) {
	for _, unnamed := range []bool{false, true} {
		s, c := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{XAUserNameAbsent: unnamed}})
		own, secret := s.Mint("ci", "nightly", 1)
		he := newSite(t, s, Options{}).As(Login{Username: "ci", Token: secret})
		s.SetSwitches(func(s *jiratest.Switches) {
			s.NotMounted = []string{"/rest/pat", "/rest/api/2/user", "/rest/api/2/group", "/rest/api/2/project"}
		})
		for what, call := range map[string]func() error{
			"a token":         func() error { return he.DeleteToken(t.Context(), key(own)) },
			"another's token": func() error { return c.DeleteOthersToken(t.Context(), key(own), func(Token) bool { return true }) },
			"a look at one": func() error {
				_, found, err := c.Token(t.Context(), key(own))
				if found {
					t.Error("it is found")
				}
				return err
			},
			"a user": func() error { _, err := c.DeleteUser(t.Context(), "victim"); return err },
			"a look at a user": func() error {
				_, _, found, err := c.FindUser(t.Context(), "victim")
				if found {
					t.Error("he is found")
				}
				return err
			},
			"a member":   func() error { return c.RemoveFromGroup(t.Context(), "jira-software-users", "victim") },
			"a role":     func() error { return c.RemoveFromRole(t.Context(), "OPS", developers, "victim") },
			"inactivity": func() error { return c.Deactivate(t.Context(), "victim") },
		} {
			if err := call(); err == nil {
				t.Errorf("%s is gone, says the client", what)
			}
		}
		// It is gone between two calls about one thing.
		s.SetSwitches(func(s *jiratest.Switches) { s.NotMounted = nil })
		seen := 0
		err := c.DeleteOthersToken(t.Context(), key(own), func(Token) bool {
			seen++
			s.SetSwitches(func(s *jiratest.Switches) { s.NotMounted = []string{"/rest/pat"} })
			return true
		})
		if err == nil || seen != 1 {
			t.Errorf("another's token, which was seen %d times, is gone: %v", seen, err)
		}
	}
}

// TestProofByMyself: where the answer does not name its user, /myself has to,
// and only the login's own will do.
func TestProofByMyself(t *testing.T) {
	user := func(name, key string) string { return fmt.Sprintf(`{"name":%q,"key":%q,"active":true}`, name, key) }
	for what, test := range map[string]struct {
		named  string // X-AUSERNAME of the answer in question
		status int    // of /myself
		body   string
		want   Kind
	}{
		"the user":                  {"", 200, user("ci", "K1"), ""},
		"renamed":                   {"", 200, user("ci-bot", "K1"), ""},
		"renamed, and named so":     {"ci-bot", 200, user("ci-bot", "K1"), ""},
		"renamed, but not to that":  {"other", 200, user("ci-bot", "K1"), Nonsense},
		"made anew":                 {"", 200, user("ci", "K2"), ""},
		"somebody else":             {"", 200, user("other", "K2"), Refused},
		"somebody else, both times": {"other", 200, user("other", "K2"), Refused},
		"nobody":                    {"", 200, user("", ""), Nonsense},
		"no key":                    {"", 200, user("ci", ""), Nonsense},
		"dead":                      {"", 401, `{"message":"no"}`, Refused},
		"down":                      {"", 500, "", Down},
		"HTML":                      {"", 200, "<html>", Nonsense},
		"no JSON":                   {"", 200, "ci", Nonsense},
	} {
		t.Run(what, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			_, secret := s.Mint("ci", "the engine's own", 30)
			header := http.Header{}
			if test.named != "" {
				header.Set("X-AUSERNAME", test.named)
			}
			s.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 404, Header: header})
			s.Fault(jiratest.Fault{Path: tokensPath, Do: jiratest.Answer, Status: 200, Header: header, Body: "[]"})
			s.Fault(jiratest.Fault{Path: myselfPath, Do: jiratest.Answer, Status: test.status, Body: test.body})
			client := func() *Client {
				return newSite(t, s, Options{}).As(Login{Username: "ci", Key: "K1", Token: secret})
			}
			_, listErr := client().Tokens(t.Context())
			for _, err := range []error{client().DeleteToken(t.Context(), "412"), listErr} {
				if test.want == "" && err != nil || test.want != "" && !Is(err, test.want) {
					t.Errorf("got %v, want %q", err, test.want)
				}
			}
		})
	}
}

// TestNameOfTheUser: in the header as it is, encoded, or not at all, and
// after he was renamed.
func TestNameOfTheUser(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"encoded":            func(*jiratest.Switches) {},
		"XAUserNameRaw":      func(s *jiratest.Switches) { s.XAUserNameRaw = true },
		"XAUserNameAbsent":   func(s *jiratest.Switches) { s.XAUserNameAbsent = true },
		"LoginCaseSensitive": func(s *jiratest.Switches) { s.LoginCaseSensitive = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.SetSwitches(change)
			u := s.AddUser(jiratest.User{Name: "a.b+c@example.com"})
			_, secret := s.Mint(u.Name, "the engine's own", 30)
			site := newSite(t, s, Options{})
			life := func(l Login) {
				t.Helper()
				c := site.As(l)
				token, _, err := c.CreateToken(t.Context(), "nightly", 1)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.DeleteToken(t.Context(), token.ID); err != nil {
					t.Error(err)
				}
				if _, err := c.Tokens(t.Context()); err != nil {
					t.Error(err)
				}
			}
			life(Login{Username: u.Name, Token: secret})
			life(Login{Username: u.Name, Key: u.Key, Token: secret})
			life(Login{Username: strings.ToUpper(u.Name), Token: secret})
			s.SetUser(u.Name, func(u *jiratest.User) { u.Name = "new@example.com" })
			life(Login{Username: u.Name, Key: u.Key, Token: secret})
			_, err := site.As(Login{Username: u.Name, Token: secret}).Tokens(t.Context())
			wants(t, err, Refused, `belongs to "new@example.com", not to "a.b+c@example.com"`)
		})
	}
}
