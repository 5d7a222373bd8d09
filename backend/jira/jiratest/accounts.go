package jiratest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// userJSON is a user as /rest/api/2 writes him.
func (s *Server) userJSON(u *user, groups bool) map[string]any {
	shown := map[string]any{
		"self": s.url + "/rest/api/2/user?username=" + url.QueryEscape(u.Name),
		"key":  u.Key, "name": u.Name, "displayName": u.DisplayName, "emailAddress": u.Email,
		"active": !u.Inactive, "deleted": false, "timeZone": "Etc/UTC", "locale": "en_US",
	}
	if groups {
		items := []map[string]any{}
		for _, g := range u.Groups {
			items = append(items, map[string]any{"name": g, "self": s.url + "/rest/api/2/group?groupname=" + url.QueryEscape(g)})
		}
		shown["groups"] = map[string]any{"size": len(items), "items": items}
	}
	return shown
}

func noUser(name string) answer {
	return messageAnswer(http.StatusNotFound, fmt.Sprintf("The user named '%s' does not exist", name))
}

// asked is the user that the query names, or nil.
func (s *Server) asked(q *request) *user {
	if key := q.query.Get("key"); key != "" {
		return s.byKey[key]
	}
	return s.byLogin[strings.ToLower(q.query.Get("username"))]
}

func (s *Server) getUser(q *request) answer {
	u := s.asked(q)
	if u == nil || !passed(s.now(), u.made, s.switches.UserLag) {
		return noUser(q.query.Get("username"))
	}
	return jsonAnswer(http.StatusOK, s.userJSON(u, q.query.Get("expand") == "groups"))
}

func (s *Server) postUser(q *request) answer {
	if !q.user.admin() {
		return forbiddenAnswer()
	}
	body, ok := q.object()
	if !ok {
		return messageAnswer(http.StatusBadRequest, "The body is not a JSON object.")
	}
	if s.switches.DirectoryReadOnly {
		return messageAnswer(http.StatusBadRequest, "Cannot add user, all the user directories are read-only.")
	}
	name := body.text("name")
	for field, key := range map[string]string{"username": "name", "email": "emailAddress", "fullname": "displayName"} {
		if body.text(key) == "" {
			return fieldAnswer(field, "You must specify a value.")
		}
	}
	if s.byLogin[strings.ToLower(name)] != nil {
		return fieldAnswer("username", "A user with that username already exists.")
	}
	keys := []string{"jira-software"} // what Jira gives to whom no application is named
	if named, ok := body.texts("applicationKeys"); ok && body.has("applicationKeys") {
		keys = named
	}
	var groups []string
	for _, key := range keys {
		if applicationGroups[key] == "" {
			return fieldAnswer("applicationKeys", fmt.Sprintf("There is no application with key '%s'.", key))
		}
		groups = append(groups, applicationGroups[key])
	}
	if len(groups) > 0 && !s.seatLeft() {
		return messageAnswer(http.StatusBadRequest, "Cannot add user, your license has no user left.")
	}
	u := s.addUser(User{
		Name: name, Password: cmp.Or(body.text("password"), rand.Text()), DisplayName: body.text("displayName"),
		Email: body.text("emailAddress"), Groups: groups,
	})
	u.made = s.now()
	return jsonAnswer(http.StatusCreated, s.userJSON(u, false))
}

func (s *Server) putUser(q *request) answer {
	if !q.user.admin() {
		return forbiddenAnswer()
	}
	u := s.asked(q)
	if u == nil {
		return noUser(q.query.Get("username"))
	}
	body, ok := q.object()
	if !ok {
		return messageAnswer(http.StatusBadRequest, "The body is not a JSON object.")
	}
	to := u.copy()
	to.Name = cmp.Or(body.text("name"), to.Name)
	to.DisplayName = cmp.Or(body.text("displayName"), to.DisplayName)
	to.Email = cmp.Or(body.text("emailAddress"), to.Email)
	switch string(body["active"]) {
	case "true":
		to.Inactive = false
	case "false":
		to.Inactive = true
	}
	if !s.setUser(u, to) {
		return fieldAnswer("username", "A user with that username already exists.")
	}
	return jsonAnswer(http.StatusOK, s.userJSON(u, false))
}

func (s *Server) deleteUserCall(q *request) answer {
	if !q.user.admin() {
		return forbiddenAnswer()
	}
	u := s.asked(q)
	if u == nil {
		return noUser(q.query.Get("username"))
	}
	for _, i := range s.issues {
		if i.reporter == u.Key && !s.switches.DeleteBusyUsers {
			return messageAnswer(http.StatusBadRequest, fmt.Sprintf("Cannot delete user '%s' because they have reported issues.", u.Name))
		}
	}
	s.deleteUser(u)
	return emptyAnswer(http.StatusNoContent)
}

func (s *Server) putPassword(q *request) answer {
	if !q.user.admin() {
		return forbiddenAnswer()
	}
	u := s.asked(q)
	if u == nil {
		return noUser(q.query.Get("username"))
	}
	return s.setPassword(u, q)
}

func (s *Server) putMyPassword(q *request) answer {
	if body, _ := q.object(); body.text("currentPassword") != q.user.Password {
		return fieldAnswer("currentPassword", "The current password you entered is incorrect.")
	}
	return s.setPassword(q.user, q)
}

// setPassword sets the password in the body. The user's tokens go on working.
func (s *Server) setPassword(u *user, q *request) answer {
	body, ok := q.object()
	if !ok || body.text("password") == "" {
		return fieldAnswer("password", "You must specify a value.")
	}
	u.Password = body.text("password")
	s.settle(u)
	return emptyAnswer(http.StatusNoContent)
}

// noGroup refuses a call about a group that does not exist, or cannot be changed.
func (s *Server) noGroup(group string, missing int) *answer {
	a := messageAnswer(cmp.Or(missing, http.StatusNotFound), fmt.Sprintf("The group named '%s' does not exist.", group))
	switch {
	case !s.groups[group]:
		return &a
	case s.switches.GroupsReadOnly:
		a = messageAnswer(http.StatusBadRequest, fmt.Sprintf("Cannot change group '%s', the directory is read-only.", group))
		return &a
	}
	return nil
}

func (s *Server) postMember(q *request) answer {
	group := q.query.Get("groupname")
	body, _ := q.object()
	u := s.byLogin[strings.ToLower(body.text("name"))]
	switch a := s.noGroup(group, s.switches.UnknownGroupStatus); {
	case !q.user.admin():
		return forbiddenAnswer()
	case a != nil:
		return *a
	case u == nil:
		return noUser(body.text("name"))
	case slices.Contains(u.Groups, group):
		return messageAnswer(http.StatusBadRequest, fmt.Sprintf("Cannot add user. '%s' is already a member of '%s'", u.Name, group))
	}
	u.Groups = append(u.Groups, group)
	return jsonAnswer(http.StatusCreated, map[string]any{"name": group, "self": s.url + "/rest/api/2/group?groupname=" + url.QueryEscape(group)})
}

func (s *Server) deleteMember(q *request) answer {
	group := q.query.Get("groupname")
	u := s.asked(q)
	switch a := s.noGroup(group, http.StatusNotFound); {
	case !q.user.admin():
		return forbiddenAnswer()
	case a != nil:
		return *a
	case u == nil:
		return noUser(q.query.Get("username"))
	case !slices.Contains(u.Groups, group):
		return messageAnswer(cmp.Or(s.switches.NotMemberStatus, http.StatusNotFound), fmt.Sprintf("User '%s' is not a member of '%s'", u.Name, group))
	}
	u.Groups = slices.DeleteFunc(slices.Clone(u.Groups), func(g string) bool { return g == group })
	return emptyAnswer(http.StatusOK)
}
