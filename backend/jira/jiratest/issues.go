package jiratest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func (s *Server) addIssue(p *project, reporter *user, summary, kind, description string) *issue {
	p.last++
	s.lastIssue++
	i := &issue{
		id: s.lastIssue, key: fmt.Sprintf("%s-%d", p.Key, p.last), project: p, reporter: reporter.Key,
		summary: summary, kind: cmp.Or(kind, "Task"), description: description, made: s.now().Format(restTime),
	}
	s.issues[i.key] = i
	return i
}

func (s *Server) issueJSON(i *issue) map[string]any {
	fields := map[string]any{
		"summary": i.summary, "description": i.description, "created": i.made, "issuetype": map[string]any{"name": i.kind},
		"project": s.projectJSON(i.project), "status": map[string]any{"name": "To Do"}, "reporter": nil,
	}
	if u := s.byKey[i.reporter]; u != nil {
		fields["reporter"] = s.userJSON(u, false)
	}
	return map[string]any{"id": strconv.Itoa(i.id), "key": i.key, "self": s.url + "/rest/api/2/issue/" + strconv.Itoa(i.id), "fields": fields}
}

func (s *Server) postIssue(q *request) answer {
	body, ok := q.object()
	if !ok {
		return messageAnswer(http.StatusBadRequest, "The body is not a JSON object.")
	}
	fields := body.object("fields")
	p := s.byProject[strings.ToUpper(fields.object("project").text("key"))]
	switch {
	case p == nil || !s.sees(q.user, p):
		return fieldAnswer("project", "project is required")
	case fields.text("summary") == "":
		return fieldAnswer("summary", "You must specify a summary of the issue.")
	}
	i := s.addIssue(p, q.user, fields.text("summary"), fields.object("issuetype").text("name"), fields.text("description"))
	shown := s.issueJSON(i)
	delete(shown, "fields")
	return jsonAnswer(http.StatusCreated, shown)
}

// mayNot refuses a call to change an issue to those who may only see it and add others.
func (s *Server) mayNot(q *request, i *issue) *answer {
	if s.rank(q.user, i.project) >= 2 {
		return nil
	}
	a := messageAnswer(http.StatusForbidden, "You do not have permission to change issues in this project.")
	return &a
}

// issue finds the issue that the path names, or refuses; to anonymous otherwise than to a user.
func (s *Server) issue(q *request) (*issue, *answer) {
	i := s.issues[strings.ToUpper(q.vars[0])]
	if q.user == nil {
		a := jsonAnswer(http.StatusUnauthorized, map[string]any{
			"errorMessages": []string{"You do not have the permission to see the specified issue.", "Login Required"},
			"errors":        map[string]string{},
		})
		return nil, &a
	}
	if i == nil || !s.sees(q.user, i.project) {
		a := messageAnswer(http.StatusNotFound, "Issue Does Not Exist")
		return nil, &a
	}
	return i, nil
}

func (s *Server) getIssue(q *request) answer {
	i, refusal := s.issue(q)
	if refusal != nil {
		return *refusal
	}
	return jsonAnswer(http.StatusOK, s.issueJSON(i))
}

func (s *Server) putIssue(q *request) answer {
	i, refusal := s.issue(q)
	if refusal != nil {
		return *refusal
	}
	if refusal := s.mayNot(q, i); refusal != nil {
		return *refusal
	}
	body, ok := q.object()
	if !ok {
		return messageAnswer(http.StatusBadRequest, "The body is not a JSON object.")
	}
	fields := body.object("fields")
	i.summary = cmp.Or(fields.text("summary"), i.summary)
	i.description = cmp.Or(fields.text("description"), i.description)
	return emptyAnswer(http.StatusNoContent)
}

func (s *Server) deleteIssue(q *request) answer {
	i, refusal := s.issue(q)
	if refusal != nil {
		return *refusal
	}
	if refusal := s.mayNot(q, i); refusal != nil {
		return *refusal
	}
	delete(s.issues, i.key)
	return emptyAnswer(http.StatusNoContent)
}

// inProject is the only piece of JQL that search understands.
var inProject = regexp.MustCompile(`(?i)\bproject\s*=\s*"?([A-Z][A-Z0-9_]*)"?`)

// search lists the issues that the caller sees, newest first. Anonymous sees none, and no error.
func (s *Server) search(q *request) answer {
	jql, start, most := q.query.Get("jql"), q.number("startAt", 0), q.number("maxResults", 50)
	if q.method == http.MethodPost {
		body, ok := q.object()
		if !ok {
			return messageAnswer(http.StatusBadRequest, "The body is not a JSON object.")
		}
		jql = body.text("jql")
		start, most = body.number("startAt", 0), body.number("maxResults", 50)
	}
	project := ""
	if m := inProject.FindStringSubmatch(jql); m != nil {
		project = strings.ToUpper(m[1])
	}
	var found []*issue
	for _, i := range s.issues {
		if s.sees(q.user, i.project) && (project == "" || i.project.Key == project) {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b *issue) int { return b.id - a.id })
	page := []map[string]any{}
	from := min(start, len(found))
	for _, i := range found[from:min(from+min(most, 1000), len(found))] {
		page = append(page, s.issueJSON(i))
	}
	return jsonAnswer(http.StatusOK, map[string]any{
		"expand": "names,schema", "startAt": start, "maxResults": most, "total": len(found), "issues": page,
	})
}

// number returns the count at key, or otherwise if there is none.
func (o object) number(key string, otherwise int) int {
	var n int
	if json.Unmarshal(o[key], &n) != nil || n < 0 {
		return otherwise
	}
	return n
}

// texts returns the strings at key, or false if it holds no array of them.
func (o object) texts(key string) ([]string, bool) {
	var list []string
	return list, json.Unmarshal(o[key], &list) == nil
}
