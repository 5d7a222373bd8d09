package jira

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const (
	newPassword = "the password of Temp"
	developers  = "10001"
	rolesOfOPS  = projectsPath + "/OPS/role"
)

var temp = NewUser{Name: "Temp", Password: newPassword, Email: "temp@example.com", DisplayName: "T. Emp", ApplicationKeys: []string{"jira-software"}}

// newDirectory starts a Jira that has, besides the users of newJira, the user
// victim, who is in the group staff and a developer of the project OPS, and
// returns a client that administers it.
func newDirectory(t *testing.T, o jiratest.Options) (*jiratest.Server, *Client) {
	t.Helper()
	s := newJira(t, o)
	s.AddProject(jiratest.Project{Key: "OPS"})
	s.AddUser(jiratest.User{Name: "victim", Groups: []string{"staff", "jira-software-users"}})
	s.AddRole("OPS", "Developers", "victim")
	return s, bearer(t, s, "root")
}

// userNamed returns a user of s as s holds him.
func userNamed(s *jiratest.Server, name string) (jiratest.User, bool) {
	for _, u := range s.Users() {
		if strings.EqualFold(u.Name, name) {
			return u, true
		}
	}
	return jiratest.User{}, false
}

// directoryCalls are the calls of an administrator that change or tell
// something.
var directoryCalls = map[string]struct {
	method, path string
	once         bool // it is not repeated blind
	bare         bool // its answer has no body
	call         func(context.Context, *Client) error
	done         func(*jiratest.Server) bool // that it changed what it is to change
}{
	"CreateUser": {"POST", usersPath, true, false, func(ctx context.Context, c *Client) error {
		_, err := c.CreateUser(ctx, temp)
		return err
	}, func(s *jiratest.Server) bool { _, there := userNamed(s, "temp"); return there }},
	"FindUser": {"GET", usersPath, false, false, func(ctx context.Context, c *Client) error {
		_, _, found, err := c.FindUser(ctx, "victim")
		if err == nil && !found {
			err = fmt.Errorf("nobody was found")
		}
		return err
	}, nil},
	"FindUser nobody": {"GET", usersPath, false, false, func(ctx context.Context, c *Client) error {
		_, _, found, err := c.FindUser(ctx, "nobody")
		if found {
			err = fmt.Errorf("somebody was found: %w", err)
		}
		return err
	}, nil},
	"DeleteUser": {"DELETE", usersPath, false, true, func(ctx context.Context, c *Client) error {
		return deleteUser(ctx, c, "victim")
	}, func(s *jiratest.Server) bool { _, there := userNamed(s, "victim"); return !there }},
	"DeleteUser nobody": {"DELETE", usersPath, false, false, func(ctx context.Context, c *Client) error {
		return deleteUser(ctx, c, "nobody")
	}, nil},
	"Deactivate": {"PUT", usersPath, false, false, func(ctx context.Context, c *Client) error {
		return c.Deactivate(ctx, "victim")
	}, func(s *jiratest.Server) bool { u, _ := userNamed(s, "victim"); return u.Inactive }},
	"SetPassword": {"PUT", passwordPath, false, true, func(ctx context.Context, c *Client) error {
		return c.SetPassword(ctx, "victim", newPassword)
	}, func(s *jiratest.Server) bool { u, _ := userNamed(s, "victim"); return u.Password == newPassword }},
	"AddToGroup": {"POST", membersPath, true, false, func(ctx context.Context, c *Client) error {
		return c.AddToGroup(ctx, "staff", "other")
	}, func(s *jiratest.Server) bool {
		u, _ := userNamed(s, "other")
		return slices.Contains(u.Groups, "staff")
	}},
	"RemoveFromGroup": {"DELETE", membersPath, false, true, func(ctx context.Context, c *Client) error {
		return c.RemoveFromGroup(ctx, "staff", "victim")
	}, func(s *jiratest.Server) bool {
		u, _ := userNamed(s, "victim")
		return slices.Equal(u.Groups, []string{"jira-software-users"})
	}},
	"RemoveFromGroup nobody": {"DELETE", membersPath, false, false, func(ctx context.Context, c *Client) error {
		return c.RemoveFromGroup(ctx, "staff", "other")
	}, nil},
	"ProjectRoles": {"GET", rolesOfOPS, false, false, func(ctx context.Context, c *Client) error {
		_, err := c.ProjectRoles(ctx, "OPS")
		return err
	}, nil},
	"AddToRole": {"POST", rolesOfOPS, true, false, func(ctx context.Context, c *Client) error {
		return c.AddToRole(ctx, "OPS", developers, "other")
	}, func(s *jiratest.Server) bool { return slices.Contains(s.Members("OPS", "Developers"), "other") }},
	"RemoveFromRole": {"DELETE", rolesOfOPS, false, true, func(ctx context.Context, c *Client) error {
		return c.RemoveFromRole(ctx, "OPS", developers, "victim")
	}, func(s *jiratest.Server) bool { return len(s.Members("OPS", "Developers")) == 0 }},
	"RemoveFromRole nobody": {"DELETE", rolesOfOPS, false, false, func(ctx context.Context, c *Client) error {
		return c.RemoveFromRole(ctx, "OPS", developers, "other")
	}, nil},
	"Permissions": {"GET", "/rest/api/2/mypermissions", false, false, func(ctx context.Context, c *Client) error {
		_, err := c.Permissions(ctx, "OPS")
		return err
	}, nil},
}

// TestDirectoryCallsSucceed wherever Jira is, whether or not it names users,
// and more than once where they end something.
func TestDirectoryCallsSucceed(t *testing.T) {
	for name, call := range directoryCalls {
		for _, path := range []string{"/jira", "-", "/tools/jira%20one"} {
			for _, unnamed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s %v", name, path, unnamed), func(t *testing.T) {
					s, c := newDirectory(t, jiratest.Options{ContextPath: path, Switches: jiratest.Switches{XAUserNameAbsent: unnamed}})
					s.ResetCalls()
					if err := call.call(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					if call.done != nil && !call.done(s) {
						t.Errorf("it did nothing; users %+v", s.Users())
					}
					if n := s.Count(call.method, call.path); n != 1 {
						t.Errorf("%d calls", n)
					}
					err := call.call(t.Context(), c)
					if call.once && !Is(err, Denied) || !call.once && err != nil {
						t.Errorf("a second time: %v", err)
					}
				})
			}
		}
	}
}

// TestDirectoryCallsInTrouble holds how often each call is sent, and what its
// error tells, when every try of it ends badly.
func TestDirectoryCallsInTrouble(t *testing.T) {
	answer := func(status int, body string) jiratest.Fault {
		return jiratest.Fault{Do: jiratest.Answer, Status: status, Body: body}
	}
	anonymous := func(status int, body string) jiratest.Fault {
		f := answer(status, body)
		f.Header = http.Header{"X-Ausername": {"anonymous"}}
		return f
	}
	for what, test := range map[string]struct {
		fault   jiratest.Fault
		kind    Kind
		calls   int  // of one that may be repeated
		once    int  // of one that may not
		nothing bool // certainly, nothing was made
		effect  bool
	}{
		"401":           {answer(401, `{"message":"no"}`), Refused, 1, 1, true, false},
		"403":           {answer(403, `{"errorMessages":["no"]}`), Denied, 1, 1, true, false},
		"403 HTML":      {answer(403, `<html>`), Denied, 1, 1, false, false},
		"429":           {answer(429, `{"message":"Rate limit exceeded."}`), Busy, 3, 3, true, false},
		"500":           {answer(500, `{"message":"no"}`), Down, 1, 1, false, false},
		"503":           {answer(503, ``), Down, 3, 1, false, false},
		"502 after":     {jiratest.Fault{Do: jiratest.AnswerAfter, Status: 502}, Down, 3, 1, false, true},
		"202":           {answer(202, `{}`), Nonsense, 1, 1, false, false},
		"302":           {answer(302, ``), Nonsense, 1, 1, false, false},
		"400 HTML":      {answer(400, `<html>`), Nonsense, 1, 1, false, false},
		"404 HTML":      {jiratest.Fault{Do: jiratest.HTML404}, Nonsense, 1, 1, false, false},
		"200 HTML":      {jiratest.Fault{Do: jiratest.HTML200}, Nonsense, 1, 1, false, false},
		"anonymous":     {jiratest.Fault{Do: jiratest.Anonymous}, Refused, 1, 1, true, false},
		"anonymous 200": {anonymous(200, `{}`), "", 1, 1, false, false}, // Refused, or Nonsense where it wants another status
		"lost call":     {jiratest.Fault{Do: jiratest.LoseCall}, Down, 3, 1, false, false},
		"lost answer":   {jiratest.Fault{Do: jiratest.LoseAnswer}, Down, 3, 1, false, true},
		"huge":          {jiratest.Fault{Do: jiratest.Huge}, Nonsense, 1, 1, false, true},
	} {
		for name, call := range directoryCalls {
			t.Run(name+" "+what, func(t *testing.T) {
				s, c := newDirectory(t, jiratest.Options{})
				test.fault.Method, test.fault.Path = call.method, call.path
				s.Fault(test.fault)
				s.ResetCalls()
				err := call.call(t.Context(), c)
				if e := failure(t, err); test.kind != "" && e.Kind != test.kind || e.Method != call.method && e.Method != "" || !strings.HasPrefix(e.Path, call.path) {
					t.Errorf("got %#v", e)
				}
				want := test.calls
				if call.once {
					want = test.once
				}
				if n := s.Count(call.method, call.path); n != want {
					t.Errorf("%d calls, want %d", n, want)
				}
				nothing := test.nothing
				if what == "anonymous" && name == "Permissions" { // Jira answers anybody, and does not turn him away
					nothing = false
				}
				if NothingMade(err) != nothing {
					t.Errorf("nothing was made: %v, %v", NothingMade(err), err)
				}
				if call.done != nil && call.done(s) != test.effect {
					t.Errorf("it was done: %v", !test.effect)
				}
				if strings.Contains(err.Error(), newPassword) {
					t.Errorf("%v tells the password", err)
				}
			})
		}
	}
}

// TestDirectoryAnswersCutShort: half an answer is none. One without a body is
// lost as a whole.
func TestDirectoryAnswersCutShort(t *testing.T) {
	for name, call := range directoryCalls {
		t.Run(name, func(t *testing.T) {
			s, c := newDirectory(t, jiratest.Options{})
			s.Fault(jiratest.Fault{Method: call.method, Path: call.path, Do: jiratest.CutBody})
			s.ResetCalls()
			err := call.call(t.Context(), c)
			switch n := s.Count(call.method, call.path); {
			case name == "RemoveFromGroup", name == "DeleteUser", name == "RemoveFromRole": // whose second answer has a body
				if !Is(err, Nonsense) || n != 2 {
					t.Errorf("%v, after %d calls", err, n)
				}
			case call.bare:
				if !Is(err, Down) || n != 3 {
					t.Errorf("%v, after %d calls", err, n)
				}
			case !Is(err, Nonsense) || n != 1:
				t.Errorf("%v, after %d calls", err, n)
			}
			if NothingMade(err) || call.done != nil && !call.done(s) {
				t.Errorf("it is done, and said to be nothing: %v", err)
			}
		})
	}
}

// TestDirectoryTroubleThatPasses: what goes wrong once and may be repeated
// succeeds, though it has had its effect already.
func TestDirectoryTroubleThatPasses(t *testing.T) {
	for what, fault := range map[string]jiratest.Fault{
		"429":         {Do: jiratest.Answer, Status: 429},
		"502":         {Do: jiratest.Answer, Status: 502},
		"502 after":   {Do: jiratest.AnswerAfter, Status: 502},
		"lost answer": {Do: jiratest.LoseAnswer},
	} {
		for name, call := range directoryCalls {
			if call.once && what != "429" {
				continue
			}
			for _, unnamed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s %v", name, what, unnamed), func(t *testing.T) {
					s, c := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{XAUserNameAbsent: unnamed}})
					fault.Method, fault.Path, fault.Nth = call.method, call.path, 1
					s.Fault(fault)
					s.ResetCalls()
					if err := call.call(t.Context(), c); err != nil {
						t.Error(err)
					}
					if call.done != nil && !call.done(s) {
						t.Error("it is not done")
					}
					if n := s.Count(call.method, call.path); n != 2 {
						t.Errorf("%d calls", n)
					}
				})
			}
		}
	}
}

// TestDirectoryAnswersToOthers: an answer that was not given to the login's own
// user, or by somebody who does not name him though this Jira does, is none.
func TestDirectoryAnswersToOthers(t *testing.T) {
	good := map[string]struct {
		status int
		body   string
	}{
		"CreateUser":             {201, `{"name":"temp","key":"K"}`},
		"FindUser":               {200, `{"name":"victim","key":"K","active":true,"groups":{"size":0,"items":[]}}`},
		"FindUser nobody":        {404, `{"errorMessages":["no"],"errors":{}}`},
		"DeleteUser":             {204, ``},
		"Deactivate":             {200, `{"active":false}`},
		"SetPassword":            {204, ``},
		"AddToGroup":             {201, `{}`},
		"RemoveFromGroup":        {200, ``},
		"ProjectRoles":           {200, `{}`},
		"AddToRole":              {200, `{}`},
		"RemoveFromRole":         {204, ``},
		"RemoveFromRole nobody":  {404, `{"errorMessages":["no"],"errors":{}}`},
		"Permissions":            {200, `{"permissions":{"ADMINISTER":{"havePermission":true}}}`},
		"DeleteUser nobody":      {404, `{"errorMessages":["no"],"errors":{}}`},
		"RemoveFromGroup nobody": {404, `{"errorMessages":["no"],"errors":{}}`},
	}
	for name, call := range directoryCalls {
		for user, want := range map[string]Kind{"root": "", "ROOT": "", "other": Nonsense, "anonymous": Refused, "": Nonsense} {
			t.Run(name+" "+user, func(t *testing.T) {
				s, c := newDirectory(t, jiratest.Options{})
				answer, ok := good[name]
				if !ok {
					t.Fatal("no good answer is known")
				}
				header := http.Header{"Content-Type": {"application/json"}}
				if user != "" {
					header.Set("X-Ausername", user)
				}
				s.Fault(jiratest.Fault{Method: call.method, Path: call.path, Do: jiratest.Answer, Status: answer.status, Body: answer.body, Header: header})
				err := call.call(t.Context(), c)
				switch {
				case name == "CreateUser" && user == "": // it names whom it made, as a new token does
					want = ""
				case name == "DeleteUser nobody" && user != "anonymous", name == "RemoveFromGroup nobody" && user != "anonymous":
					want = "" // FindUser decides, and is asked apart
				}
				if want == "" && err != nil || want != "" && !Is(err, want) {
					t.Errorf("got %v, want %q", err, want)
				}
				if err != nil && NothingMade(err) && want == Nonsense {
					t.Errorf("nothing is said to be made: %v", err)
				}
			})
		}
	}
}

// TestWhatIsSaidToBeGone and is there all the same, by a Jira that names no
// users: something before it has answered.
func TestWhatIsSaidToBeGone(t *testing.T) {
	for name, status := range map[string]int{"DeleteUser": 204, "RemoveFromGroup": 200} {
		for _, found := range []bool{true, false} {
			s, c := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{XAUserNameAbsent: true}})
			call := directoryCalls[name]
			s.Fault(jiratest.Fault{Method: call.method, Path: call.path, Do: jiratest.Answer, Status: status})
			if !found {
				s.DeleteUser("victim")
			}
			err := call.call(t.Context(), c)
			if found {
				wants(t, err, Nonsense, fmt.Sprint(status), "still")
			} else if err != nil {
				t.Error(err)
			}
		}
	}
	s, c := newDirectory(t, jiratest.Options{})
	for name, status := range map[string]int{"DeleteUser": 404, "RemoveFromGroup": 404} {
		call := directoryCalls[name]
		remove := s.Fault(jiratest.Fault{
			Method: call.method, Path: call.path, Do: jiratest.Answer, Status: status,
			Header: http.Header{"X-Ausername": {"root"}, "Content-Type": {"application/json"}}, Body: `{"errorMessages":["no"]}`,
		})
		if err := call.call(t.Context(), c); err == nil || Is(err, Nonsense) != (name == "DeleteUser") || Is(err, Denied) != (name == "RemoveFromGroup") {
			t.Errorf("%s: %v", name, err)
		}
		removeGet := s.Fault(jiratest.Fault{Method: "GET", Path: usersPath, Do: jiratest.Answer, Status: 503})
		wants(t, call.call(t.Context(), c), Down, "cannot tell whether")
		remove()
		removeGet()
	}
}

// TestMissingOnTheWire: which 404 is Jira's word that somebody is not there.
func TestMissingOnTheWire(t *testing.T) {
	for body, want := range map[string]bool{
		`{"errorMessages":["The user named 'x' does not exist"],"errors":{}}`: true,
		`{"errorMessages":[],"errors":{"username":"no"}}`:                     true,
		`{"errorMessages":["Den Benutzer gibt es nicht"]}`:                    true,
		`{"errors":{"username":"no"}}`:                                        true,
		`{"errorMessages":null}`:                                              false,
		`{"errorMessages":"no"}`:                                              false,
		`{"message":"null for uri: /rest/api/2/user","status-code":404}`:      false,
		`{"message":"no Route matched with those values"}`:                    false,
		`{}`:   false,
		`[]`:   false,
		`null`: false,
		``:     false,
		`404`:  false,
	} {
		s, c := newDirectory(t, jiratest.Options{})
		for _, header := range []http.Header{{"X-Ausername": {"root"}}, {}} {
			s.SetSwitches(func(s *jiratest.Switches) { s.XAUserNameAbsent = len(header) == 0 })
			header["Content-Type"] = []string{"application/json"}
			s.Fault(jiratest.Fault{Path: usersPath, Do: jiratest.Answer, Status: 404, Body: body, Header: header})
			s.Fault(jiratest.Fault{Path: rolesOfOPS, Do: jiratest.Answer, Status: 404, Body: body, Header: header})
			_, _, found, err := c.FindUser(t.Context(), "victim")
			if found || (err == nil) != want || err != nil && !Is(err, Nonsense) {
				t.Errorf("%s: found %v, %v", body, found, err)
			}
			if !want {
				wants(t, err, Nonsense, "404", "check the context path")
			}
			if err := c.RemoveFromRole(t.Context(), "OPS", developers, "victim"); (err == nil) != want || err != nil && !Is(err, Nonsense) {
				t.Errorf("%s: %v", body, err)
			}
			s.ClearFaults()
		}
	}
}

// TestUsersOnTheWire reads what Jira may say of a user.
func TestUsersOnTheWire(t *testing.T) {
	const who = `"name":"Victim","key":"K"`
	for body, want := range map[string]string{ // the groups, or what is wrong
		`{` + who + `,"active":true,"groups":{"size":2,"items":[{"name":"a"},{"name":"b","self":"x"}]}}`: "[a b]",
		`{` + who + `,"active":true,"groups":{"items":[{"name":"a"}]}}`:                                  "[a]",
		`{` + who + `,"active":true,"groups":{"size":0,"items":[]},"new":{}}`:                            "[]",
		`{` + who + `,"active":true,"groups":{"size":2,"items":[{"name":"a"}]}}`:                         "groups",
		`{` + who + `,"active":true,"groups":{"size":0,"items":null}}`:                                   "groups",
		`{` + who + `,"active":true,"groups":{"size":1,"items":[{}]}}`:                                   "no name",
		`{` + who + `,"active":true,"groups":{}}`:                                                        "groups",
		`{` + who + `,"active":true,"groups":[]}`:                                                        "JSON",
		`{` + who + `,"active":true}`:                                                                    "groups",
		`{` + who + `,"groups":{"size":0,"items":[]}}`:                                                   "active",
		`{"name":"victim","active":true,"groups":{"size":0,"items":[]}}`:                                 "key",
		`{"key":"K","active":true,"groups":{"size":0,"items":[]}}`:                                       "name",
		`{"name":"victims","key":"K","active":true,"groups":{"size":0,"items":[]}}`:                      "another name",
		`{` + who + `,"active":"true","groups":{"size":0,"items":[]}}`:                                   "JSON",
		`null`: "name",
		`[]`:   "JSON",
		``:     "JSON",
	} {
		s, c := newDirectory(t, jiratest.Options{})
		s.Fault(jiratest.Fault{Path: usersPath, Do: jiratest.Answer, Body: body, Header: http.Header{"X-Ausername": {"root"}, "Content-Type": {"application/json"}}})
		u, groups, found, err := c.FindUser(t.Context(), "victim")
		if strings.HasPrefix(want, "[") {
			if err != nil || !found || fmt.Sprint(groups) != want || u != (User{Name: "Victim", Key: "K", Active: true}) {
				t.Errorf("%s: %+v, %v, %v, %v", body, u, groups, found, err)
			}
			continue
		}
		wants(t, err, Nonsense, want)
		if found || groups != nil || u != (User{}) {
			t.Errorf("%s: %+v, %v, %v", body, u, groups, found)
		}
	}
}

// TestFindUser: as Jira has him.
func TestFindUser(t *testing.T) {
	s, c := newDirectory(t, jiratest.Options{})
	want := s.AddUser(jiratest.User{Name: "a+b&c=d/../é@x", DisplayName: "D", Inactive: true, Groups: []string{"b", "a"}})
	u, groups, found, err := c.FindUser(t.Context(), strings.ToUpper(want.Name))
	if err != nil || !found || u != (User{Name: want.Name, Key: want.Key, DisplayName: "D"}) || !slices.Equal(groups, want.Groups) {
		t.Errorf("%+v, %v, %v, %v", u, groups, found, err)
	}
	if err := deleteUser(t.Context(), c, want.Name); err != nil {
		t.Error(err)
	}
	if _, _, found, err := c.FindUser(t.Context(), want.Name); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

// TestNewUsersOnTheWire: what may be said of a new user, and that no error
// tells his password.
func TestNewUsersOnTheWire(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"temp","key":"K","displayName":"T"}`: "",
		`{"name":"TEMP","key":"K","active":true}`:     "",
		`{"name":"temp"}`:                          "no key",
		`{"key":"K"}`:                              `named "" instead of "Temp"`,
		`{"name":"temp1","key":"K"}`:               `named "temp1"`,
		`{"name":"` + newPassword + `","key":"K"}`: "[withheld]",
		`{"name":7,"key":"K"}`:                     "JSON",
		`null`:                                     "no key",
		`"` + newPassword + `"`:                    "JSON",
		newPassword:                                "JSON",
	} {
		s, c := newDirectory(t, jiratest.Options{})
		s.Fault(jiratest.Fault{Method: "POST", Do: jiratest.Answer, Status: 201, Body: body})
		s.ResetCalls()
		u, err := c.CreateUser(t.Context(), temp)
		if s.Count("POST", "") != 1 {
			t.Errorf("%s: %d calls", body, s.Count("POST", ""))
		}
		if want == "" {
			if err != nil || !strings.EqualFold(u.Name, "temp") || u.Key != "K" {
				t.Errorf("%s: %+v, %v", body, u, err)
			}
			continue
		}
		wants(t, err, Nonsense, want)
		if NothingMade(err) || u != (User{}) || strings.Contains(err.Error(), newPassword) {
			t.Errorf("%s: %+v, %v", body, u, err)
		}
	}
}

// TestNewPasswordsAreNotTold: in whichever place Jira says them back.
func TestNewPasswordsAreNotTold(t *testing.T) {
	s, c := newDirectory(t, jiratest.Options{})
	for _, f := range []jiratest.Fault{
		{Status: 400, Body: `{"errorMessages":["It was ` + newPassword + `"],"errors":{"password":"` + newPassword + ` is weak"}}`},
		{Status: 400, Body: `{"message":"It was ` + newPassword + `"}`},
		{Status: 503, Body: "It was " + newPassword},
		{Status: 500, Body: "<title>It was " + newPassword + "</title>"},
		{Status: 302, Header: http.Header{"Location": {"https://" + strings.ReplaceAll(newPassword, " ", "") + ".example.com"}}},
		{Status: 403, Header: http.Header{"X-Authentication-Denied-Reason": {"It was " + newPassword}}},
		{Status: 201, Body: "{}", Header: http.Header{"X-Ausername": {newPassword}}},
		{Status: 200, Body: "{}", Header: http.Header{"X-Ausername": {newPassword}}},
	} {
		f.Do = jiratest.Answer
		for _, method := range []string{"POST", "PUT"} {
			f.Method = method
			remove := s.Fault(f)
			c := c.site.As(c.login.Login)
			n, err := temp, error(nil)
			if f.Status == 302 {
				n.Password = strings.ReplaceAll(newPassword, " ", "")
			}
			if method == "POST" {
				_, err = c.CreateUser(t.Context(), n)
			} else {
				err = c.SetPassword(t.Context(), "victim", n.Password)
			}
			if err == nil || strings.Contains(err.Error(), n.Password) {
				t.Errorf("%s %d: %v", method, f.Status, err)
			}
			remove()
		}
	}
}

// TestDeactivatedOnTheWire: an answer may say nothing of the user, but not that
// he is active.
func TestDeactivatedOnTheWire(t *testing.T) {
	for body, want := range map[string]string{
		``: "", ` `: "", `{}`: "", `null`: "", `{"active":false}`: "", `{"active":null}`: "", `{"name":"VICTIM","active":false}`: "",
		`{"active":true}`:                  "still active",
		`{"name":"other","active":false}`:  "another name",
		`{"active":"false"}`:               "JSON",
		`[]`:                               "JSON",
		`{"name":"victim","active":false`:  "JSON",
		`{"name":"victim","active":true} `: "still active",
	} {
		s, c := newDirectory(t, jiratest.Options{})
		s.Fault(jiratest.Fault{Path: usersPath, Do: jiratest.Answer, Body: body, Header: http.Header{"X-Ausername": {"root"}, "Content-Type": {"application/json"}}})
		err := c.Deactivate(t.Context(), "victim")
		if want == "" && err != nil {
			t.Errorf("%q: %v", body, err)
		}
		if want != "" {
			wants(t, err, Nonsense, want)
		}
	}
}

// TestRolesOnTheWire reads what Jira may say of the roles of a project.
func TestRolesOnTheWire(t *testing.T) {
	const role = "https://jira.example.com/jira/rest/api/2/project/OPS/role/"
	for body, want := range map[string]map[string]string{
		`{}`: {},
		`{"Developers":"` + role + `10001","Ops & Co":"` + role + `7"}`: {"Developers": "10001", "Ops & Co": "7"},
		`{"Developers":"10001"}`:              {"Developers": "10001"},
		`{"Developers":"` + role + `10001/"}`: nil,
		`{"Developers":"` + role + `"}`:       nil,
		`{"Developers":"` + role + `x"}`:      nil,
		`{"Developers":"` + role + `-1"}`:     nil,
		`{"Developers":"` + role + `1?x=2"}`:  nil,
		`{"Developers":10001}`:                nil,
		`{"Developers":null}`:                 nil,
		`null`:                                nil,
		`[]`:                                  nil,
		``:                                    nil,
	} {
		s, c := newDirectory(t, jiratest.Options{})
		s.Fault(jiratest.Fault{Path: rolesOfOPS, Do: jiratest.Answer, Body: body, Header: http.Header{"X-Ausername": {"root"}, "Content-Type": {"application/json"}}})
		have, err := c.ProjectRoles(t.Context(), "OPS")
		if !reflect.DeepEqual(have, want) || (err == nil) != (want != nil) || err != nil && !Is(err, Nonsense) {
			t.Errorf("%s: %v, %v", body, have, err)
		}
	}
	_, c := newDirectory(t, jiratest.Options{})
	have, err := c.ProjectRoles(t.Context(), "ops")
	if want := map[string]string{"Users": "10000", "Developers": developers, "Administrators": "10002"}; err != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("got %v, %v", have, err)
	}
	_, err = c.ProjectRoles(t.Context(), "NONE")
	wants(t, err, Denied, "404", "NONE")
	wants(t, c.AddToRole(t.Context(), "OPS", "1", "other"), Denied, "404")
	wants(t, c.AddToRole(t.Context(), "OPS", developers, "nobody"), Denied, "410")
	wants(t, c.RemoveFromRole(t.Context(), "NONE", developers, "other"), Denied, "404", "does not see it")
	if err := c.RemoveFromRole(t.Context(), "NONE", developers, "nobody"); err != nil { // who can have nothing
		t.Error(err)
	}
}

// TestARoleThatCannotBeTaken: Jira refuses with one status who does not have it, who is not
// there, and whoever may not change it. What the role shows is what counts.
func TestARoleThatCannotBeTaken(t *testing.T) {
	for _, status := range []int{400, 403, 404, 410} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s, root := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{RoleLockedStatus: status, RoleNobodyStatus: status, RoleWithoutStatus: status}})
			he := bearer(t, s, "ci")
			wants(t, he.RemoveFromRole(t.Context(), "OPS", developers, "victim"), Denied, fmt.Sprint(status))
			wants(t, he.AddToRole(t.Context(), "OPS", developers, "other"), Denied, fmt.Sprint(status))
			wants(t, root.AddToRole(t.Context(), "OPS", developers, "nobody"), Denied, fmt.Sprint(status))
			if !slices.Contains(s.Members("OPS", "Developers"), "victim") {
				t.Error("the role is taken, which this test is not about")
			}
			if status != http.StatusForbidden {
				for _, name := range []string{"other", "nobody"} {
					if err := root.RemoveFromRole(t.Context(), "OPS", developers, name); err != nil {
						t.Errorf("of %s, who does not have it: %v", name, err)
					}
				}
			}
			// What cannot be read proves nothing.
			for what, fault := range map[string]jiratest.Fault{
				"down":      {Status: 503},
				"no actors": {Status: 200, Body: `{}`},
				"no name":   {Status: 200, Body: `{"actors":[{"id":1}]}`},
				"null":      {Status: 200, Body: `{"actors":null}`},
				"gateway":   {Status: 404, Body: `{"message":"no Route matched with those values"}`},
			} {
				fault.Method, fault.Path, fault.Do = "GET", rolesOfOPS, jiratest.Answer
				fault.Header = http.Header{"X-Ausername": {"root"}, "Content-Type": {"application/json"}}
				remove := s.Fault(fault)
				if err := root.RemoveFromRole(t.Context(), "OPS", developers, "other"); err == nil {
					t.Errorf("%s: the role is taken for gone", what)
				}
				remove()
			}
			remove := s.Fault(jiratest.Fault{Method: "DELETE", Path: rolesOfOPS, Do: jiratest.Answer, Status: 404, Header: http.Header{"X-Ausername": {"root"}}})
			wants(t, root.RemoveFromRole(t.Context(), "OPS", developers, "victim"), Denied, "404")
			remove()
			if err := root.RemoveFromRole(t.Context(), "OPS", developers, "victim"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWhatCannotBeNamed is not asked for.
func TestWhatCannotBeNamed(t *testing.T) {
	s, c := newDirectory(t, jiratest.Options{})
	s.ResetCalls()
	ctx := t.Context()
	check := func(value string, err error, what string) {
		t.Helper()
		wants(t, err, Denied, "is not the "+what)
		if !NothingMade(err) {
			t.Errorf("%q: %v", value, err)
		}
	}
	for _, name := range []string{"", "a\n", "\x00", "a\xff", "\u202e"} {
		_, err := c.CreateUser(ctx, NewUser{Name: name})
		check(name, err, "name of a user")
		_, _, found, err := c.FindUser(ctx, name)
		check(name, err, "name of a user")
		if found {
			t.Errorf("%q was found", name)
		}
		for what, err := range map[string]error{
			"name of a user":   deleteUser(ctx, c, name),
			"name of a user ":  c.Deactivate(ctx, name),
			" name of a user":  c.SetPassword(ctx, name, newPassword),
			" name of a user ": c.AddToGroup(ctx, "staff", name),
		} {
			check(name, err, strings.TrimSpace(what))
		}
		check(name, c.RemoveFromGroup(ctx, "staff", name), "name of a user")
		check(name, c.AddToRole(ctx, "OPS", developers, name), "name of a user")
		check(name, c.RemoveFromRole(ctx, "OPS", developers, name), "name of a user")
		check(name, c.AddToGroup(ctx, name, "other"), "name of a group")
		check(name, c.RemoveFromGroup(ctx, name, "other"), "name of a group")
	}
	for _, key := range []string{"", ".", "..", "OPS/..", "OPS/x", "OPS%2F", "OPS;x", "OPS?x", "OPS#", "O PS", "1OPS", "ÖPS", "OPS\n"} {
		_, err := c.ProjectRoles(ctx, key)
		check(key, err, "key of a project")
		check(key, c.AddToRole(ctx, key, developers, "other"), "key of a project")
		check(key, c.RemoveFromRole(ctx, key, developers, "other"), "key of a project")
		if key != "" {
			_, err := c.Permissions(ctx, key)
			check(key, err, "key of a project")
		}
	}
	for _, id := range []string{"", "..", "Developers", "1/2", "-1", "01"} {
		check(id, c.AddToRole(ctx, "OPS", id, "other"), "id of a role")
		check(id, c.RemoveFromRole(ctx, "OPS", id, "other"), "id of a role")
	}
	if len(s.Calls()) != 0 {
		t.Errorf("calls were made: %+v", s.Calls())
	}
}

// TestPlainUserAdministersNothing: and is told so.
func TestPlainUserAdministersNothing(t *testing.T) {
	s, _ := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{RoleLockedStatus: http.StatusForbidden}})
	c := bearer(t, s, "ci")
	for name, call := range directoryCalls {
		if call.method == "GET" {
			continue
		}
		err := call.call(t.Context(), c)
		wants(t, err, Denied, "403")
		if call.done != nil && call.done(s) {
			t.Errorf("%s did it", name)
		}
	}
}

// TestPermissions: of a project, of Jira, and as they come and go with roles.
func TestPermissions(t *testing.T) {
	s, root := newDirectory(t, jiratest.Options{})
	s.AddProject(jiratest.Project{Key: "SECRET", Restricted: true})
	c := bearer(t, s, "ci")
	for _, absent := range []bool{false, true} {
		s.SetSwitches(func(s *jiratest.Switches) { s.XAUserNameAbsent = absent })
		_, err := c.Permissions(t.Context(), "SECRET")
		wants(t, err, Denied, "404")
		if err := root.AddToRole(t.Context(), "SECRET", "10002", "ci"); err != nil {
			t.Fatal(err)
		}
		have, err := c.Permissions(t.Context(), "SECRET")
		if _, listed := have["ADMINISTER"]; err != nil || !have["BROWSE_PROJECTS"] || !have["ADMINISTER_PROJECTS"] || have["ADMINISTER"] || !listed {
			t.Errorf("got %v, %v", have, err)
		}
		if have, err = c.Permissions(t.Context(), "OPS"); err != nil || !have["BROWSE_PROJECTS"] || have["ADMINISTER_PROJECTS"] {
			t.Errorf("of another project: %v, %v", have, err)
		}
		if have, err = c.Permissions(t.Context(), ""); err != nil || !have["ADMINISTER_PROJECTS"] || have["ADMINISTER"] {
			t.Errorf("of any project: %v, %v", have, err)
		}
		if err := root.RemoveFromRole(t.Context(), "SECRET", "10002", "ci"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestThrowAwayUserWhicheverWayItTurnsOut makes a user, lets him make a token,
// takes all from him that he was given, and ends him, twice.
func TestThrowAwayUserWhicheverWayItTurnsOut(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"default":            func(*jiratest.Switches) {},
		"XAUserNameAbsent":   func(s *jiratest.Switches) { s.XAUserNameAbsent = true },
		"DeleteBusyUsers":    func(s *jiratest.Switches) { s.DeleteBusyUsers = true },
		"Seats":              func(s *jiratest.Switches) { s.Seats = 2 }, // victim has the other
		"UserLag":            func(s *jiratest.Switches) { s.UserLag = time.Minute },
		"UnknownGroupStatus": func(s *jiratest.Switches) { s.UnknownGroupStatus = http.StatusBadRequest },
		"NotMemberStatus":    func(s *jiratest.Switches) { s.NotMemberStatus = http.StatusBadRequest },
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			s, root := newDirectory(t, jiratest.Options{Now: func() time.Time { return start }})
			s.SetSwitches(change)
			s.AddProject(jiratest.Project{Key: "SECRET", Restricted: true})
			ctx := t.Context()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			find := func(name string) (string, bool) {
				t.Helper()
				u, groups, found, err := root.FindUser(ctx, name)
				must(err)
				return fmt.Sprint(u.Active, groups), found
			}
			n := temp
			n.Name = "vault-temp"
			made, err := root.CreateUser(ctx, n)
			must(err)
			if _, found := find(n.Name); found == (name == "UserLag") {
				t.Errorf("found at once: %v", found)
			}
			must(root.AddToGroup(ctx, "staff", n.Name))
			must(root.AddToRole(ctx, "SECRET", "10001", n.Name))
			_, err = root.CreateUser(ctx, n)
			wants(t, err, Denied, "already exists")
			if !NothingMade(err) {
				t.Errorf("a name that is taken: %v", err)
			}

			own := root.site.As(Login{Username: n.Name, Key: made.Key, Password: n.Password})
			_, secret, err := own.CreateToken(ctx, "vault-nightly", 1)
			must(err)
			his := root.site.As(Login{Username: n.Name, Key: made.Key, Token: secret})
			if have, err := his.Permissions(ctx, "SECRET"); err != nil || !have["EDIT_ISSUES"] || have["ADMINISTER_PROJECTS"] {
				t.Errorf("he may %v, %v", have, err)
			}
			must(root.SetPassword(ctx, n.Name, "another password"))
			_, err = root.site.As(own.login.Login).Myself(ctx)
			wants(t, err, Refused)
			_, err = his.Myself(ctx)
			must(err)
			s.Advance(time.Minute)
			if have, found := find(n.Name); !found || have != "true [jira-software-users staff]" {
				t.Errorf("found %v: %s", found, have)
			}
			must(root.RemoveFromRole(ctx, "SECRET", "10001", n.Name))
			must(root.RemoveFromRole(ctx, "SECRET", "10001", n.Name))
			_, err = his.Permissions(ctx, "SECRET")
			wants(t, err, Denied)
			must(root.RemoveFromGroup(ctx, "staff", n.Name))
			must(root.RemoveFromGroup(ctx, "staff", n.Name))
			must(root.RemoveFromGroup(ctx, "nobodys", n.Name))

			must(root.Deactivate(ctx, n.Name))
			must(root.Deactivate(ctx, n.Name))
			if have, found := find(n.Name); !found || have != "false [jira-software-users]" {
				t.Errorf("found %v: %s", found, have)
			}
			_, err = root.site.As(his.login.Login).Myself(ctx)
			wants(t, err, Refused)
			s.SetUser(n.Name, func(u *jiratest.User) { u.Inactive = false })
			_, err = root.site.As(his.login.Login).Myself(ctx)
			must(err)

			must(deleteUser(ctx, root, n.Name))
			must(deleteUser(ctx, root, n.Name))
			if _, found := find(n.Name); found {
				t.Error("found after his end")
			}
			must(root.RemoveFromGroup(ctx, "staff", n.Name))
			must(root.RemoveFromRole(ctx, "SECRET", "10001", n.Name))
			wants(t, root.Deactivate(ctx, n.Name), Denied, "404")
			wants(t, root.SetPassword(ctx, n.Name, "x"), Denied, "404")
			_, err = root.site.As(his.login.Login).Myself(ctx)
			wants(t, err, Refused)
		})
	}
}

// TestUsersThatAreRefused: by a directory that is read-only, and for want of a
// seat, of which a user without an application needs none.
func TestUsersThatAreRefused(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"default":           func(*jiratest.Switches) {},
		"DirectoryReadOnly": func(s *jiratest.Switches) { s.DirectoryReadOnly = true },
		"Seats":             func(s *jiratest.Switches) { s.Seats = 1 },
	} {
		s, c := newDirectory(t, jiratest.Options{})
		s.SetSwitches(change)
		_, err := c.CreateUser(t.Context(), temp)
		if name == "default" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wants(t, err, Denied, "400", "Cannot add user")
		if _, there := userNamed(s, "temp"); there || !NothingMade(err) {
			t.Errorf("%s: he is there: %v; %v", name, there, err)
		}
		n := temp
		n.ApplicationKeys = nil
		if _, err := c.CreateUser(t.Context(), n); (err == nil) != (name == "Seats") {
			t.Errorf("%s: without an application: %v", name, err)
		}
	}
}

// TestBusyUsers: who reported an issue may have to be deactivated instead.
func TestBusyUsers(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		s, c := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{DeleteBusyUsers: deleted}})
		s.AddIssue("OPS", "victim", "broken")
		err := deleteUser(t.Context(), c, "victim")
		if deleted {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wants(t, err, Denied, "400", "reported issues")
		if err := c.Deactivate(t.Context(), "victim"); err != nil {
			t.Error(err)
		}
		if u, there := userNamed(s, "victim"); !there || !u.Inactive {
			t.Errorf("he is there: %v, %+v", there, u)
		}
	}
}

// TestGroupsThatAreRefused: a member who cannot be taken out is not said to be
// out, whichever status Jira has for those who are none.
func TestGroupsThatAreRefused(t *testing.T) {
	for _, unnamed := range []bool{false, true} {
		for _, status := range []int{404, 400} {
			s, c := newDirectory(t, jiratest.Options{Switches: jiratest.Switches{
				UnknownGroupStatus: status, NotMemberStatus: status, XAUserNameAbsent: unnamed,
			}})
			ctx := t.Context()
			wants(t, c.AddToGroup(ctx, "nobodys", "victim"), Denied, fmt.Sprint(status))
			wants(t, c.AddToGroup(ctx, "staff", "victim"), Denied, "400")
			wants(t, c.AddToGroup(ctx, "staff", "nobody"), Denied, "404")
			s.SetSwitches(func(s *jiratest.Switches) { s.GroupsReadOnly = true })
			err := c.AddToGroup(ctx, "staff", "other")
			wants(t, err, Denied, "400", "read-only")
			if !NothingMade(err) {
				t.Error(err)
			}
			wants(t, c.RemoveFromGroup(ctx, "STAFF", "victim"), Denied) // Jira knows it by this name, too, or may
			wants(t, c.RemoveFromGroup(ctx, "staff", "victim"), Denied, "400", "read-only")
			for _, name := range []string{"other", "nobody"} { // neither is a member
				if err := c.RemoveFromGroup(ctx, "staff", name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			s.SetSwitches(func(s *jiratest.Switches) { s.GroupsReadOnly = false })
			for _, name := range []string{"victim", "other", "nobody"} {
				if err := c.RemoveFromGroup(ctx, "staff", name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

// TestEndsGoFirst: what ends something goes before what makes something where
// calls are short of room.
func TestEndsGoFirst(t *testing.T) {
	for name, call := range directoryCalls {
		s, c := newDirectory(t, jiratest.Options{})
		gate := NewGate(1)
		c = newSite(t, s, Options{Gate: gate}).As(c.login.Login)
		if err := gate.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- call.call(ctx, c) }()
		urgent := 0
		for waiting := 0; waiting == 0; runtime.Gosched() {
			gate.mu.Lock()
			urgent, waiting = len(gate.urgent), len(gate.urgent)+len(gate.others)
			gate.mu.Unlock()
		}
		cancel()
		if err := <-ended; !Is(err, Busy) {
			t.Errorf("%s: %v", name, err)
		}
		if ends := call.method == "DELETE" || strings.HasPrefix(name, "Deactivate"); (urgent == 1) != ends {
			t.Errorf("%s goes first: %v", name, urgent == 1)
		}
	}
}

// deleteUser is [Client.DeleteUser] for those who want to know no more.
func deleteUser(ctx context.Context, c *Client, name string) error {
	_, err := c.DeleteUser(ctx, name)
	return err
}

// TestUsersByKey: a user who was renamed has nobody of his old name, and his key.
func TestUsersByKey(t *testing.T) {
	s, c := newDirectory(t, jiratest.Options{})
	victim, _, _, err := c.FindUser(t.Context(), "victim")
	if err != nil {
		t.Fatal(err)
	}
	s.SetUser("victim", func(u *jiratest.User) { u.Name = "other-name" })
	if u, _, found, err := c.FindUserByKey(t.Context(), victim.Key); err != nil || !found || u.Name != "other-name" {
		t.Errorf("%+v, %v, %v", u, found, err)
	}
	if there, err := c.DeleteUser(t.Context(), "victim"); there || err != nil {
		t.Errorf("%v, %v", there, err)
	}
	if there, err := c.DeleteUser(t.Context(), "other-name"); !there || err != nil {
		t.Errorf("%v, %v", there, err)
	}
	if _, _, found, err := c.FindUserByKey(t.Context(), victim.Key); err != nil || found {
		t.Errorf("%v, %v", found, err)
	}
	s.Fault(jiratest.Fault{Nth: 1, Do: jiratest.Answer, Status: 200, Body: `{"name":"a","key":"another","active":true}`})
	_, _, _, err = c.FindUserByKey(t.Context(), victim.Key)
	wants(t, err, Nonsense)
}
