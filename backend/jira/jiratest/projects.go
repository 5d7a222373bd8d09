package jiratest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Project is a project of Jira. Everybody who logs in sees it and may write to it, and anonymous sees nothing of it.
type Project struct {
	Key, Name  string
	Restricted bool     // only administrators, users with a role in it and members of Groups do
	Groups     []string // if it is restricted: their members have the role Users
}

// roleIDs are the roles that every Jira has from the start.
var roleIDs = map[string]int{"Users": 10000, "Developers": 10001, "Administrators": 10002}

const leaders = 10002 // the role that administers a project

type project struct {
	Project

	id    int
	roles map[int]map[string]bool // role id to user keys
	last  int                     // number of its newest issue
}

type issue struct {
	id            int
	key           string
	project       *project
	reporter      string // user key
	summary, kind string
	description   string
	made          string
}

type projects struct {
	byProject map[string]*project // by key, which is in upper case
	issues    map[string]*issue   // by key
	lastIssue int
}

func newProjects() projects {
	return projects{byProject: map[string]*project{}, issues: map[string]*issue{}, lastIssue: 10000}
}

// AddProject adds a project without issues, and the groups it names. Its key is put in upper case. It panics if the key is
// empty or taken.
func (s *Server) AddProject(p Project) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.addProject(p); err != nil {
		panic("jiratest: " + err.Error())
	}
}

// addProject does so with s.mu held, and adds nothing if it fails.
func (s *Server) addProject(p Project) error {
	p.Key = strings.ToUpper(p.Key)
	if p.Key == "" || s.byProject[p.Key] != nil {
		return fmt.Errorf("project %q is nameless or there already", p.Key)
	}
	p.Name = cmp.Or(p.Name, p.Key)
	added := &project{Project: p, id: 10000 + len(s.byProject), roles: map[int]map[string]bool{}}
	for _, id := range roleIDs {
		added.roles[id] = map[string]bool{}
	}
	for _, g := range p.Groups {
		s.groups[g] = true
	}
	s.byProject[p.Key] = added
	return nil
}

// AddIssue adds an issue behind the API's back and returns its key. It panics if there is no such project or user.
func (s *Server) AddIssue(projectKey, reporter, summary string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.byProject[strings.ToUpper(projectKey)]
	if p == nil {
		panic(fmt.Sprintf("jiratest: there is no project %q", projectKey))
	}
	return s.addIssue(p, s.mustUser(reporter), summary, "Task", "").key
}

// AddRole gives a user one of the roles Users, Developers and Administrators in a project. It panics if there is no such
// project, role or user.
func (s *Server) AddRole(projectKey, role, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, id := s.byProject[strings.ToUpper(projectKey)], roleIDs[role]
	if p == nil || id == 0 {
		panic(fmt.Sprintf("jiratest: there is no role %q in a project %q", role, projectKey))
	}
	p.roles[id][s.mustUser(name).Key] = true
}

// Members lists the logins of those who have one of the roles Users, Developers and Administrators in a project. It panics if
// there is no such project or role.
func (s *Server) Members(projectKey, role string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, id := s.byProject[strings.ToUpper(projectKey)], roleIDs[role]
	if p == nil || id == 0 {
		panic(fmt.Sprintf("jiratest: there is no role %q in a project %q", role, projectKey))
	}
	var list []string
	for key := range p.roles[id] {
		list = append(list, s.byKey[key].Name)
	}
	slices.Sort(list)
	return list
}

// sees says that u may browse p and write to it.
func (s *Server) sees(u *user, p *project) bool {
	return s.rank(u, p) > 0
}

// rank is how much u may do in p: nothing, or as much as the role Users gives (1), Developers (2) and Administrators (3).
func (s *Server) rank(u *user, p *project) int {
	rank := 0
	switch {
	case u == nil || s.restricted(u, p):
		return 0
	case s.leads(u, p):
		return 3
	case !p.Restricted:
		rank = 2
	case slices.ContainsFunc(p.Groups, func(g string) bool { return slices.Contains(u.Groups, g) }):
		rank = 1
	}
	for id, members := range p.roles {
		if members[u.Key] {
			rank = max(rank, id-roleIDs["Users"]+1)
		}
	}
	return rank
}

// leads says that u administers p.
func (s *Server) leads(u *user, p *project) bool {
	return u.admin() || u != nil && p.roles[leaders][u.Key]
}

func noProject(key string) answer {
	return messageAnswer(http.StatusNotFound, fmt.Sprintf("No project could be found with key '%s'.", key))
}

func (s *Server) projectJSON(p *project) map[string]any {
	return map[string]any{
		"self": s.url + "/rest/api/2/project/" + strconv.Itoa(p.id), "id": strconv.Itoa(p.id), "key": p.Key, "name": p.Name,
		"projectTypeKey": "software",
		"issueTypes":     []map[string]any{{"id": "10001", "name": "Task", "subtask": false}, {"id": "10002", "name": "Bug", "subtask": false}},
	}
}

// getProjects lists what the caller sees; anonymous sees an empty list and no error.
func (s *Server) getProjects(q *request) answer {
	list := []map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(s.byProject)) {
		if p := s.byProject[key]; s.sees(q.user, p) {
			list = append(list, s.projectJSON(p))
		}
	}
	return jsonAnswer(http.StatusOK, list)
}

// project finds the project that the path names, or refuses.
func (s *Server) project(q *request) (*project, *answer) {
	p := s.byProject[strings.ToUpper(q.vars[0])]
	if p == nil || !s.sees(q.user, p) {
		a := noProject(q.vars[0])
		return nil, &a
	}
	return p, nil
}

func (s *Server) getProject(q *request) answer {
	p, refusal := s.project(q)
	if refusal != nil {
		return *refusal
	}
	return jsonAnswer(http.StatusOK, s.projectJSON(p))
}

func (s *Server) roleURL(p *project, id int) string {
	return fmt.Sprintf("%s/rest/api/2/project/%s/role/%d", s.url, p.Key, id)
}

func (s *Server) getRoles(q *request) answer {
	p, refusal := s.project(q)
	if refusal != nil {
		return *refusal
	}
	list := map[string]string{}
	for name, id := range roleIDs {
		list[name] = s.roleURL(p, id)
	}
	return jsonAnswer(http.StatusOK, list)
}

// role finds the project and the role in it that the path names, or refuses.
func (s *Server) role(q *request) (*project, int, *answer) {
	p, refusal := s.project(q)
	if refusal != nil {
		return nil, 0, refusal
	}
	id, err := strconv.Atoi(q.vars[1])
	if err != nil || p.roles[id] == nil {
		a := messageAnswer(http.StatusNotFound, fmt.Sprintf("Can not retrieve a role actor for a project role '%s' that does not exist.", q.vars[1]))
		return nil, 0, &a
	}
	return p, id, nil
}

func (s *Server) roleJSON(p *project, id int) answer {
	actors := []map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(p.roles[id])) {
		u := s.byKey[key]
		actors = append(actors, map[string]any{"name": u.Name, "displayName": u.DisplayName, "type": "atlassian-user-role-actor"})
	}
	shown := map[string]any{"self": s.roleURL(p, id), "id": id, "actors": actors}
	for name, other := range roleIDs {
		if other == id {
			shown["name"] = name
		}
	}
	return jsonAnswer(http.StatusOK, shown)
}

func (s *Server) getRole(q *request) answer {
	p, id, refusal := s.role(q)
	if refusal != nil {
		return *refusal
	}
	return s.roleJSON(p, id)
}

func (s *Server) postRole(q *request) answer {
	p, id, refusal := s.role(q)
	if refusal != nil {
		return *refusal
	}
	if !s.leads(q.user, p) {
		return messageAnswer(cmp.Or(s.switches.RoleLockedStatus, http.StatusNotFound), "You do not have permission to edit the configuration of this project.")
	}
	body, _ := q.object()
	names, ok := body.texts("user")
	if !ok || len(names) == 0 {
		return messageAnswer(http.StatusBadRequest, "There is no user to add.")
	}
	var added []string
	for _, name := range names {
		u := s.byLogin[strings.ToLower(name)]
		switch {
		case u == nil:
			return s.noActor(name)
		case p.roles[id][u.Key]:
			return messageAnswer(http.StatusBadRequest, fmt.Sprintf("'%s' is already a member of the project role.", name))
		}
		added = append(added, u.Key)
	}
	for _, key := range added {
		p.roles[id][key] = true
	}
	return s.roleJSON(p, id)
}

func (s *Server) deleteRole(q *request) answer {
	p, id, refusal := s.role(q)
	if refusal != nil {
		return *refusal
	}
	if !s.leads(q.user, p) {
		return messageAnswer(cmp.Or(s.switches.RoleLockedStatus, http.StatusNotFound), "You do not have permission to edit the configuration of this project.")
	}
	u := s.byLogin[strings.ToLower(q.query.Get("user"))]
	switch {
	case u == nil:
		return s.noActor(q.query.Get("user"))
	case p.roles[id][u.Key]:
	case s.switches.RoleWithoutStatus == http.StatusNoContent:
		return emptyAnswer(http.StatusNoContent)
	default:
		return messageAnswer(cmp.Or(s.switches.RoleWithoutStatus, http.StatusNotFound), fmt.Sprintf("'%s' is not a member of the project role.", u.Name))
	}
	delete(p.roles[id], u.Key)
	return emptyAnswer(http.StatusNoContent)
}

// noActor is what is said of a user who is not there, where he is to have a project role.
func (s *Server) noActor(name string) answer {
	return messageAnswer(cmp.Or(s.switches.RoleNobodyStatus, http.StatusGone), fmt.Sprintf("We can't find '%s' in any accessible user directory.", name))
}
