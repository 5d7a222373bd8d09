package jiratest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const newUser = `{"name":"Temp","password":"the password of Temp","emailAddress":"t@example.com","displayName":"T","applicationKeys":["jira-software"]}`

// A user made over the API can make his own token at once, and takes it along when he is deleted.
func TestThrowAwayUser(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	root := basic(t, s, "root")
	made := root.want(201, "POST", "/rest/api/2/user", newUser)
	if made["name"] != "Temp" || !strings.HasPrefix(fmt.Sprint(made["key"]), "JIRAUSER") || made["active"] != true {
		t.Errorf("made %v", made)
	}
	if e := root.do("POST", "/rest/api/2/user", newUser); e.status != 400 || e.body != `{"errorMessages":[],"errors":{"username":"A user with that username already exists."}}` {
		t.Errorf("twice: %v", e)
	}
	_, with := basic(t, s, "Temp").mint(s, "vault-n")
	if u := with.want(200, "GET", "/rest/api/2/user?username=temp&expand=groups", ""); !strings.Contains(fmt.Sprint(u["groups"]), "jira-software-users") {
		t.Errorf("user %v", u)
	}
	root.want(200, "PUT", "/rest/api/2/user?username=Temp", `{"active":false}`)
	with.want(401, "GET", myself, "")
	basic(t, s, "Temp").want(401, "GET", myself, "")
	root.want(200, "PUT", "/rest/api/2/user?username=Temp", `{"active":true,"name":"renamed"}`)
	if me := with.want(200, "GET", myself, ""); me["name"] != "renamed" || me["key"] != made["key"] {
		t.Errorf("after the renaming: %v", me)
	}
	root.want(400, "PUT", "/rest/api/2/user?username=renamed", `{"name":"CI"}`)
	root.want(204, "DELETE", "/rest/api/2/user?username=renamed", "")
	root.want(404, "DELETE", "/rest/api/2/user?username=renamed", "")
	root.want(404, "GET", "/rest/api/2/user?username=renamed", "")
	with.want(401, "GET", myself, "")
	if list := s.Tokens(""); len(list) != 0 {
		t.Errorf("left %v", list)
	}
}

func TestUsersThatCannotBeMadeOrDeleted(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	root := basic(t, s, "root")
	s.AddProject(jiratest.Project{Key: "DEMO"})
	s.AddIssue("DEMO", "other", "broken")
	root.want(400, "POST", "/rest/api/2/user", `{"name":"n","displayName":"N"}`)
	root.want(400, "DELETE", "/rest/api/2/user?username=other", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.DirectoryReadOnly, sw.DeleteBusyUsers = true, true })
	if e := root.want(400, "POST", "/rest/api/2/user", newUser); !strings.Contains(fmt.Sprint(e), "read-only") {
		t.Errorf("answered %v", e)
	}
	root.want(204, "DELETE", "/rest/api/2/user?username=other", "")
	root.want(200, "GET", "/rest/api/2/issue/DEMO-1", "")
}

// Who may use an application takes a seat until he is deactivated, taken out of its group, or deleted.
func TestSeats(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	root := basic(t, s, "root")
	add := func(want int, name, keys string) {
		t.Helper()
		root.want(want, "POST", "/rest/api/2/user", fmt.Sprintf(`{"name":%q,"emailAddress":"e","displayName":"d"%s}`, name, keys))
	}
	add(400, "a", `,"applicationKeys":["jira-hardware"]`)
	add(201, "a", ``)
	add(201, "b", `,"applicationKeys":["jira-servicedesk","jira-software"]`)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.Seats = 2 })
	add(400, "c", ``)
	add(400, "c", `,"applicationKeys":null`)
	add(201, "c", `,"applicationKeys":[]`)
	if u := fmt.Sprint(root.want(200, "GET", "/rest/api/2/user?username=c&expand=groups", "")["groups"]); u != "map[items:[] size:0]" {
		t.Errorf("without applications: %s", u)
	}
	root.want(200, "PUT", "/rest/api/2/user?username=a", `{"active":false}`)
	add(201, "d", `,"applicationKeys":["jira-core"]`)
	add(400, "e", ``)
	root.want(204, "DELETE", "/rest/api/2/user?username=b", "")
	add(201, "e", ``)
	add(400, "f", ``)
	root.want(200, "DELETE", "/rest/api/2/group/user?groupname=jira-software-users&username=e", "")
	add(201, "f", ``)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.Seats = 0 })
	add(201, "g", ``)
}

// A user whom a call made is there for every call but GET, which shows him later.
func TestUserLag(t *testing.T) {
	s := newJira(t, jiratest.Options{Switches: jiratest.Switches{UserLag: time.Minute}})
	root := basic(t, s, "root")
	root.want(200, "GET", "/rest/api/2/user?username=ci", "")
	root.want(201, "POST", "/rest/api/2/user", newUser)
	root.want(404, "GET", "/rest/api/2/user?username=Temp", "")
	root.want(400, "POST", "/rest/api/2/user", newUser)
	basic(t, s, "Temp").want(200, "GET", myself, "")
	root.want(200, "PUT", "/rest/api/2/user?username=Temp", `{"displayName":"X"}`)
	s.Advance(time.Minute - time.Millisecond)
	root.want(404, "GET", "/rest/api/2/user?username=Temp", "")
	s.Advance(time.Millisecond)
	root.want(200, "GET", "/rest/api/2/user?username=Temp", "")
}

func TestPasswords(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	_, raw := s.Mint("ci", "n", 0)
	ci := basic(t, s, "ci")
	if e := ci.want(400, "PUT", "/rest/api/2/myself/password", `{"password":"new","currentPassword":"wrong"}`); e["errors"] == nil {
		t.Errorf("answered %v", e)
	}
	ci.want(204, "PUT", "/rest/api/2/myself/password", `{"password":"new","currentPassword":"the password of ci"}`)
	ci.want(401, "GET", myself, "")
	ci = as(t, s, basicHeader("ci", "new"))
	ci.want(200, "GET", myself, "")
	root := basic(t, s, "root")
	root.want(400, "PUT", "/rest/api/2/user/password?username=ci", `{"password":""}`)
	root.want(404, "PUT", "/rest/api/2/user/password?username=nobody", `{"password":"x"}`)
	root.want(204, "PUT", "/rest/api/2/user/password?username=ci", `{"password":"newer"}`)
	ci.want(401, "GET", myself, "")
	as(t, s, basicHeader("ci", "newer")).want(200, "GET", myself, "")
	as(t, s, "Bearer "+raw).want(200, "GET", myself, "")
}

func TestGroups(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	_, raw := s.Mint("ci", "n", 0)
	with, root := as(t, s, "Bearer "+raw), basic(t, s, "root")
	const group = "/rest/api/2/group/user?groupname="
	root.want(404, "POST", group+"none", `{"name":"ci"}`)
	root.want(404, "POST", group+"jira-administrators", `{"name":"nobody"}`)
	root.want(201, "POST", group+"jira-administrators", `{"name":"ci"}`)
	root.want(400, "POST", group+"jira-administrators", `{"name":"ci"}`)
	with.want(200, "PUT", "/rest/api/2/user?username=other", `{"displayName":"O"}`)
	root.want(200, "DELETE", group+"jira-administrators&username=ci", "")
	root.want(404, "DELETE", group+"jira-administrators&username=ci", "")
	root.want(404, "DELETE", group+"none&username=ci", "")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.UnknownGroupStatus, sw.NotMemberStatus = 400, 400 })
	root.want(400, "POST", group+"none", `{"name":"ci"}`)
	root.want(400, "DELETE", group+"jira-administrators&username=ci", "")
	root.want(404, "DELETE", group+"none&username=ci", "")
	root.want(201, "POST", group+"jira-administrators", `{"name":"ci"}`)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.GroupsReadOnly = true })
	root.want(400, "POST", group+"jira-administrators", `{"name":"other"}`)
	root.want(400, "DELETE", group+"jira-administrators&username=ci", "")
	with.want(200, "PUT", "/rest/api/2/user?username=other", `{"displayName":"O"}`)
	s.SetSwitches(func(sw *jiratest.Switches) { sw.GroupsReadOnly = false })
	root.want(200, "DELETE", group+"jira-administrators&username=ci", "")
	with.want(403, "PUT", "/rest/api/2/user?username=other", `{"displayName":"O"}`)
}

func TestPlainUsersAdministerNothing(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddProject(jiratest.Project{Key: "DEMO"})
	ci := basic(t, s, "ci")
	for _, call := range []struct{ method, path, body string }{
		{"POST", "/rest/api/2/user", newUser},
		{"PUT", "/rest/api/2/user?username=other", `{"active":false}`},
		{"DELETE", "/rest/api/2/user?username=other", ""},
		{"PUT", "/rest/api/2/user/password?username=other", `{"password":"x"}`},
		{"POST", "/rest/api/2/group/user?groupname=jira-administrators", `{"name":"ci"}`},
		{"DELETE", "/rest/api/2/group/user?groupname=jira-administrators&username=root", ""},
		{"POST", "/rest/api/2/project/DEMO/role/10001", `{"user":["ci"]}`},
		{"DELETE", "/rest/api/2/project/DEMO/role/10001?user=other", ""},
	} {
		status := 403
		if strings.Contains(call.path, "/role/") {
			ci.want(404, call.method, call.path, call.body)
			s.SetSwitches(func(sw *jiratest.Switches) { sw.RoleLockedStatus = status })
		}
		ci.want(status, call.method, call.path, call.body)
		as(t, s, "").want(401, call.method, call.path, call.body)
		s.SetSwitches(func(sw *jiratest.Switches) { sw.RoleLockedStatus = 0 })
	}
}

// What is not mounted is told in JSON, to everybody, and with the caller's name.
func TestNotMounted(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.NotMounted = []string{"/rest/pat", "/rest/api/2/user"} })
	for _, path := range []string{"/rest/pat/latest/tokens", "/rest/pat/latest/tokens/412", "/rest/api/2/user?username=ci"} {
		r := ci.do("GET", path, "")
		if r.status != 404 || !strings.Contains(r.body, `"message":"null for uri: `) || !strings.Contains(r.body, `"status-code":404`) || r.header.Get("X-AUSERNAME") != "ci" {
			t.Errorf("%s: %d %v %s", path, r.status, r.header, r.body)
		}
	}
	ci.want(200, "GET", "/rest/api/2/myself", "")
}

// may lists what a client has permission for, of what is asked.
func may(c *client, query string, asked ...string) string {
	c.t.Helper()
	all, ok := c.want(200, "GET", "/rest/api/2/mypermissions"+query, "")["permissions"].(map[string]any)
	if !ok || len(all) < 10 {
		c.t.Fatalf("permissions %v", all)
	}
	var have []string
	for _, key := range asked {
		p, ok := all[key].(map[string]any)
		if !ok {
			c.t.Fatalf("no %s in %v", key, all)
		}
		if p["havePermission"] == true {
			have = append(have, key)
		}
	}
	return strings.Join(have, " ")
}

func TestProjectsRolesAndPermissions(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddUser(jiratest.User{Name: "admin", Password: "the password of admin", Admin: true})
	s.AddProject(jiratest.Project{Key: "DEMO"})
	s.AddProject(jiratest.Project{Key: "secret", Restricted: true})
	ci, root := basic(t, s, "ci"), basic(t, s, "root")
	asked := []string{"BROWSE_PROJECTS", "ADMINISTER_PROJECTS", "ADMINISTER", "SYSTEM_ADMIN"}
	check := func(c *client, query, want string) {
		t.Helper()
		if got := may(c, query, asked...); got != want {
			t.Errorf("may %q in %q, want %q", got, query, want)
		}
	}
	check(ci, "", "BROWSE_PROJECTS")
	check(root, "", "BROWSE_PROJECTS ADMINISTER_PROJECTS ADMINISTER SYSTEM_ADMIN")
	check(basic(t, s, "admin"), "?projectKey=SECRET", "BROWSE_PROJECTS ADMINISTER_PROJECTS ADMINISTER")
	ci.want(404, "GET", "/rest/api/2/mypermissions?projectKey=SECRET", "")
	ci.want(404, "GET", "/rest/api/2/project/SECRET", "")

	roles := root.want(200, "GET", "/rest/api/2/project/SECRET/role", "")
	if roles["Developers"] != s.URL()+"/rest/api/2/project/SECRET/role/10001" || len(roles) != 3 {
		t.Errorf("roles %v", roles)
	}
	const developers, administrators = "/rest/api/2/project/SECRET/role/10001", "/rest/api/2/project/SECRET/role/10002"
	root.want(200, "POST", developers, `{"user":["ci"]}`)
	root.want(400, "POST", developers, `{"user":["ci"]}`)
	for status, switched := range map[int]int{410: 0, 404: 404, 400: 400} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.RoleNobodyStatus = switched })
		root.want(status, "POST", developers, `{"user":["other","nobody"]}`)
		root.want(status, "DELETE", developers+"?user=nobody", "")
	}
	for status, switched := range map[int]int{404: 0, 204: 204, 410: 410, 400: 400} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.RoleWithoutStatus = switched })
		root.want(status, "DELETE", developers+"?user=other", "")
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RoleWithoutStatus = 0 })
	root.want(400, "POST", developers, `{}`)
	root.want(404, "POST", "/rest/api/2/project/SECRET/role/1", `{"user":["ci"]}`)
	root.want(404, "POST", "/rest/api/2/project/NONE/role/10001", `{"user":["ci"]}`)
	check(ci, "?projectKey=SECRET", "BROWSE_PROJECTS")
	ci.want(404, "POST", administrators, `{"user":["ci"]}`)
	s.AddRole("SECRET", "Administrators", "ci")
	check(ci, "?projectKey=SECRET", "BROWSE_PROJECTS ADMINISTER_PROJECTS")
	ci.want(200, "POST", developers, `{"user":["other"]}`)
	if r := ci.want(200, "GET", developers, ""); r["name"] != "Developers" || strings.Count(fmt.Sprint(r["actors"]), "displayName") != 2 {
		t.Errorf("role %v", r)
	}
	s.DeleteUser("other")
	root.want(204, "DELETE", administrators+"?user=ci", "")
	root.want(404, "DELETE", administrators+"?user=ci", "")
	root.want(204, "DELETE", developers+"?user=ci", "")
	ci.want(404, "GET", "/rest/api/2/project/SECRET", "")
	if r := ci.do("GET", "/rest/api/2/project", ""); strings.Count(r.body, `"key"`) != 1 {
		t.Errorf("projects %s", r.body)
	}
}

// What a user may do in a project comes from its groups and roles, and ends with them.
func TestRanks(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddProject(jiratest.Project{Key: "OPEN"})
	s.AddProject(jiratest.Project{Key: "SECRET", Restricted: true, Groups: []string{"staff"}})
	s.AddUser(jiratest.User{Name: "somebody", Groups: []string{"staff"}})
	issue := "/rest/api/2/issue/" + s.AddIssue("SECRET", "root", "broken")
	ci, root := basic(t, s, "ci"), basic(t, s, "root")
	asked := []string{"BROWSE_PROJECTS", "CREATE_ISSUES", "EDIT_ISSUES", "ADMINISTER_PROJECTS"}
	check := func(put int, want string) {
		t.Helper()
		if got := may(ci, "?projectKey=SECRET", asked...); got != want {
			t.Errorf("may %q, want %q", got, want)
		}
		ci.want(put, "PUT", issue, `{"fields":{"summary":"changed"}}`)
	}
	if got := may(ci, "?projectKey=OPEN", asked...); got != "BROWSE_PROJECTS CREATE_ISSUES EDIT_ISSUES" {
		t.Errorf("in a project for all: %q", got)
	}
	ci.want(404, "GET", issue, "")
	root.want(201, "POST", "/rest/api/2/group/user?groupname=staff", `{"name":"ci"}`)
	check(403, "BROWSE_PROJECTS CREATE_ISSUES")
	ci.want(403, "DELETE", issue, "")
	ci.want(201, "POST", "/rest/api/2/issue", `{"fields":{"project":{"key":"SECRET"},"summary":"s"}}`)
	s.AddRole("SECRET", "Users", "ci")
	check(403, "BROWSE_PROJECTS CREATE_ISSUES")
	s.AddRole("SECRET", "Developers", "ci")
	check(204, "BROWSE_PROJECTS CREATE_ISSUES EDIT_ISSUES")
	s.AddRole("SECRET", "Administrators", "ci")
	check(204, "BROWSE_PROJECTS CREATE_ISSUES EDIT_ISSUES ADMINISTER_PROJECTS")
	if got := strings.Join(s.Members("secret", "Developers"), " "); got != "ci" {
		t.Errorf("developers %q", got)
	}
	for _, id := range []string{"10000", "10001", "10002"} {
		root.want(204, "DELETE", "/rest/api/2/project/SECRET/role/"+id+"?user=ci", "")
	}
	check(403, "BROWSE_PROJECTS CREATE_ISSUES")
	root.want(200, "DELETE", "/rest/api/2/group/user?groupname=staff&username=ci", "")
	ci.want(404, "GET", "/rest/api/2/mypermissions?projectKey=SECRET", "")
}

func TestIssues(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.AddProject(jiratest.Project{Key: "DEMO"})
	s.AddProject(jiratest.Project{Key: "OTHER"})
	s.AddIssue("OTHER", "other", "elsewhere")
	_, raw := s.Mint("ci", "n", 0)
	ci := as(t, s, "Bearer "+raw)
	ci.want(400, "POST", "/rest/api/2/issue", `{"fields":{"project":{"key":"NONE"},"summary":"s"}}`)
	ci.want(400, "POST", "/rest/api/2/issue", `{"fields":{"project":{"key":"DEMO"}}}`)
	for n := range 3 {
		made := ci.want(201, "POST", "/rest/api/2/issue",
			fmt.Sprintf(`{"fields":{"project":{"key":"DEMO"},"summary":"s%d","issuetype":{"name":"Bug"}}}`, n+1))
		if made["key"] != fmt.Sprintf("DEMO-%d", n+1) {
			t.Errorf("made %v", made)
		}
	}
	ci.want(204, "PUT", "/rest/api/2/issue/DEMO-1", `{"fields":{"summary":"changed"}}`)
	if i := fmt.Sprint(ci.want(200, "GET", "/rest/api/2/issue/DEMO-1", "")); !strings.Contains(i, "changed") || !strings.Contains(i, "name:Bug") {
		t.Errorf("issue %s", i)
	}
	keys := func(r reply) string {
		t.Helper()
		var found struct {
			Total  int `json:"total"`
			Issues []struct {
				Key string `json:"key"`
			} `json:"issues"`
		}
		if err := json.Unmarshal([]byte(r.body), &found); err != nil || r.status != 200 {
			t.Fatalf("search answers %v: %v", r, err)
		}
		list := []string{}
		for _, i := range found.Issues {
			list = append(list, i.Key)
		}
		return fmt.Sprintf("%d %v", found.Total, list)
	}
	for query, want := range map[string]string{
		"":                                    "4 [DEMO-3 DEMO-2 DEMO-1 OTHER-1]",
		"?jql=project+%3D+DEMO":               "3 [DEMO-3 DEMO-2 DEMO-1]",
		"?jql=project=other+order+by+created": "1 [OTHER-1]",
		"?startAt=1&maxResults=2":             "4 [DEMO-2 DEMO-1]",
		"?startAt=9":                          "4 []",
	} {
		if got := keys(ci.do("GET", search+query, "")); got != want {
			t.Errorf("search%s finds %s, want %s", query, got, want)
		}
	}
	if got := keys(ci.do("POST", search, `{"jql":"project = \"DEMO\"","maxResults":1}`)); got != "3 [DEMO-3]" {
		t.Errorf("search finds %s", got)
	}
	ci.want(204, "DELETE", "/rest/api/2/issue/DEMO-1", "")
	ci.want(404, "GET", "/rest/api/2/issue/DEMO-1", "")
}
