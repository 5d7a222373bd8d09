package jiratest

import (
	"cmp"
	"net/http"
	"strings"
)

// restTime is how /rest/api/2 writes times.
const restTime = "2006-01-02T15:04:05.000-0700"

// getStatus answers what load balancers ask. The other calls go on whatever the state is; faults stop them.
func (s *Server) getStatus(*request) answer {
	state := cmp.Or(s.switches.State, "RUNNING")
	status := http.StatusOK
	switch state {
	case "MAINTENANCE":
		status = http.StatusServiceUnavailable
	case "ERROR":
		status = http.StatusInternalServerError
	}
	return jsonAnswer(status, map[string]any{"state": state})
}

func (s *Server) getServerInfo(q *request) answer {
	if s.switches.ServerInfoLogin && q.user == nil {
		return loginAnswer()
	}
	return jsonAnswer(http.StatusOK, map[string]any{
		"baseUrl": s.url, "version": s.options.Version, "versionNumbers": versionNumbers(s.options.Version),
		"deploymentType": s.options.Deployment, "buildNumber": 10030002, "buildDate": "2025-01-21T00:00:00.000+0000",
		"serverTime": s.now().Format(restTime), "scmInfo": "simulated", "serverTitle": "Jira",
	})
}

func (s *Server) getMyself(q *request) answer {
	return jsonAnswer(http.StatusOK, s.userJSON(q.user, true))
}

// permissions are some of those a real Jira lists, and the rank in a project that gives each; Jira's own need none.
var permissions = []struct {
	key, name string
	rank      int
}{
	{"BROWSE_PROJECTS", "Browse Projects", 1},
	{"CREATE_ISSUES", "Create Issues", 1},
	{"ADD_COMMENTS", "Add Comments", 1},
	{"EDIT_ISSUES", "Edit Issues", 2},
	{"DELETE_ISSUES", "Delete Issues", 2},
	{"ASSIGN_ISSUES", "Assign Issues", 2},
	{"TRANSITION_ISSUES", "Transition Issues", 2},
	{"ADMINISTER_PROJECTS", "Administer Projects", 3},
	{"ADMINISTER", "Jira Administrators", 0},
	{"SYSTEM_ADMIN", "Jira System Administrators", 0},
	{"USER_PICKER", "Browse Users", 0},
	{"BULK_CHANGE", "Bulk Change", 0},
}

// getMyPermissions lists all permissions, whichever are asked for: in the project named, or else in any project.
func (s *Server) getMyPermissions(q *request) answer {
	var asked []*project
	for _, p := range s.byProject {
		asked = append(asked, p)
	}
	if key := q.query.Get("projectKey"); key != "" {
		p := s.byProject[strings.ToUpper(key)]
		if p == nil || !s.sees(q.user, p) {
			return noProject(key)
		}
		asked = []*project{p}
	}
	rank := 0
	for _, p := range asked {
		rank = max(rank, s.rank(q.user, p))
	}
	all := map[string]any{}
	for i, p := range permissions {
		have, kind := q.user != nil, "GLOBAL"
		switch {
		case p.key == "ADMINISTER":
			have = q.user.admin()
		case p.key == "SYSTEM_ADMIN":
			have = q.user != nil && q.user.SysAdmin
		case p.rank > 0:
			have, kind = rank >= p.rank, "PROJECT"
		}
		all[p.key] = map[string]any{
			"id": i + 1, "key": p.key, "name": p.name, "type": kind, "description": p.name + ".", "havePermission": have,
		}
	}
	return jsonAnswer(http.StatusOK, map[string]any{"permissions": all})
}
