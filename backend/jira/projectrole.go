package jira

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// The calls of this file change who has a role in a project. Besides Jira's
// administrators the project's own may make them; anybody else gets an error of
// kind [Denied].

const projectsPath = "/rest/api/2/project"

// projectPattern is what Jira's own rules for keys of projects allow, in
// letters of either case. Such a key needs no escaping.
var projectPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

// IsProjectKey tells whether s may be the key of a project.
func IsProjectKey(s string) bool { return projectPattern.MatchString(s) }

// ProjectRoles returns the ids of the roles there are in a project, by their
// names. A project that is not there, or that the login's user does not see, is
// an error of kind [Denied].
func (c *Client) ProjectRoles(ctx context.Context, projectKey string) (map[string]string, error) {
	if !IsProjectKey(projectKey) {
		return nil, refuse(http.MethodGet, projectsPath, "key of a project", projectKey)
	}
	a, err := c.do(ctx, call{method: http.MethodGet, path: projectsPath + "/" + projectKey + "/role", want: []int{http.StatusOK}})
	if err != nil {
		return nil, err
	}
	if err := c.prove(ctx, a, nil); err != nil {
		return nil, err
	}
	var addresses map[string]string
	if err := a.decode(&addresses); err != nil {
		return nil, err
	}
	if addresses == nil { // JSON's null is no list
		return nil, a.nonsense("null instead of roles")
	}
	ids := make(map[string]string, len(addresses))
	for name, address := range addresses {
		id := address[strings.LastIndexByte(address, '/')+1:]
		if !isKey(id) {
			return nil, a.nonsense(fmt.Sprintf("the address of role %q does not end in an id", c.login.quote(name, "")))
		}
		ids[name] = id
	}
	return ids, nil
}

// AddToRole gives the user called name a role in a project. That he has it
// already is an error of kind [Denied], as is a project, a role or a user that
// is not there, and a project whose roles the login's user may not change. As [Client.AddToGroup] it is not repeated where its answer is
// lost.
func (c *Client) AddToRole(ctx context.Context, projectKey, roleID, name string) error {
	path, err := rolePath(http.MethodPost, projectKey, roleID, name)
	if err != nil {
		return err
	}
	a, err := c.do(ctx, call{
		method: http.MethodPost, path: path,
		body: map[string][]string{"user": {name}},
		want: []int{http.StatusOK},
		once: true,
	})
	if err != nil {
		return err
	}
	return c.prove(ctx, a, nil)
}

// RemoveFromRole takes a role in a project from the user called name. No error
// means that he is proven not to have it, whether this call took it, or he did not have
// it, or is not there. Jira refuses with the same statuses, 404 and 410, one who
// does not have the role, one who is not there, and a login that may not change the
// role: the role itself decides, and where it cannot be read [Client.FindUser]. It
// goes before other calls where the gate is narrow.
func (c *Client) RemoveFromRole(ctx context.Context, projectKey, roleID, name string) error {
	path, err := rolePath(http.MethodDelete, projectKey, roleID, name)
	if err != nil {
		return err
	}
	a, err := c.do(ctx, call{
		method: http.MethodDelete, path: path, query: url.Values{"user": {name}},
		want:   []int{http.StatusNoContent, http.StatusBadRequest, http.StatusNotFound, http.StatusGone},
		urgent: true,
	})
	if err != nil {
		return err
	}
	return c.proveEnd(ctx, a, func() error { return c.lacksRole(ctx, a, path, name) })
}

// lacksRole returns nil if the user called name does not have the role at path, after a,
// the answer to its removal.
func (c *Client) lacksRole(ctx context.Context, a *answer, path, name string) error {
	actors, readable, err := c.actors(ctx, path)
	has := slices.ContainsFunc(actors, func(actor string) bool { return strings.EqualFold(actor, name) })
	there := true
	if err == nil && !readable {
		_, _, there, err = c.findUser(ctx, "username", name, true)
	}
	switch {
	case err != nil:
		return fmt.Errorf("DELETE %s: cannot tell whether the user still has the role: %w", path, err)
	case readable && !has, !there:
		return nil
	case a.status == http.StatusNoContent && readable:
		return a.nonsense("the user still has the role")
	}
	e := a.denied(c.login)
	if !readable {
		e.Advice = "the project or the role was deleted, or the login's user does not see it, for which Jira has one answer: let that user administer the project; if it was deleted, nothing is left to take"
	}
	return e
}

// actors returns the names of those who have the role at path. readable is false, without
// an error, where Jira says that there is no such project or role, as it does of one that
// the login's user does not see.
func (c *Client) actors(ctx context.Context, path string) (names []string, readable bool, err error) {
	a, err := c.do(ctx, call{method: http.MethodGet, path: path, want: []int{http.StatusOK, http.StatusNotFound}, urgent: true})
	if err != nil {
		return nil, false, err
	}
	if a.status == http.StatusNotFound {
		return nil, false, c.proveMissing(ctx, a)
	}
	if err := c.prove(ctx, a, nil); err != nil {
		return nil, false, err
	}
	var role struct {
		Actors *[]struct {
			Name string `json:"name"`
		} `json:"actors"`
	}
	if err := a.decode(&role); err != nil {
		return nil, false, err
	}
	if role.Actors == nil {
		return nil, false, a.nonsense("a role without actors")
	}
	for _, actor := range *role.Actors {
		if actor.Name == "" {
			return nil, false, a.nonsense("an actor without a name")
		}
		names = append(names, actor.Name)
	}
	return names, true, nil
}

// rolePath is the path of a role in a project, for a call about the user called
// name.
func rolePath(method, projectKey, roleID, name string) (string, error) {
	switch {
	case !IsProjectKey(projectKey):
		return "", refuse(method, projectsPath, "key of a project", projectKey)
	case !isKey(roleID):
		return "", refuse(method, projectsPath, "id of a role", roleID)
	case !isName(name):
		return "", refuse(method, projectsPath, "name of a user", name)
	}
	return projectsPath + "/" + projectKey + "/role/" + roleID, nil
}
