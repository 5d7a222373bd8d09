package jira

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
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
// is not there. As [Client.AddToGroup] it is not repeated where its answer is
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
// means that Jira said to the login's own user that it did, or that there is no
// such project, role, or user with it. Of a project that the login's user does
// not see Jira says the same. It goes before other calls where the gate is
// narrow.
func (c *Client) RemoveFromRole(ctx context.Context, projectKey, roleID, name string) error {
	path, err := rolePath(http.MethodDelete, projectKey, roleID, name)
	if err != nil {
		return err
	}
	a, err := c.do(ctx, call{
		method: http.MethodDelete, path: path, query: url.Values{"user": {name}},
		want:   []int{http.StatusNoContent, http.StatusNotFound},
		urgent: true,
	})
	if err != nil {
		return err
	}
	if a.status == http.StatusNotFound {
		return c.proveMissing(ctx, a)
	}
	return c.prove(ctx, a, nil)
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
