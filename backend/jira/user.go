package jira

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
)

// User is who a login belongs to. On Jira Cloud his account id is both Name
// and Key.
type User struct {
	Name        string `json:"name"` // what he logs in with
	Key         string `json:"key"`  // Jira's own, which survives a rename
	DisplayName string `json:"displayName"`
	Active      bool   `json:"active"`
}

// Myself returns the user whom Jira takes the login for. It is how a
// credential is checked: a login that Jira does not accept is an error of
// kind [Refused].
func (c *Client) Myself(ctx context.Context) (User, error) {
	u, _, err := c.myself(ctx, false)
	return u, err
}

func (c *Client) myself(ctx context.Context, urgent bool) (User, *answer, error) {
	a, err := c.do(ctx, call{method: http.MethodGet, path: c.site.api() + "/myself", want: []int{http.StatusOK}, urgent: urgent})
	if err != nil {
		return User{}, nil, err
	}
	var me struct {
		User
		AccountID string `json:"accountId"`
	}
	if err := a.decode(&me); err != nil {
		return User{}, nil, err
	}
	u := me.User
	if c.site.cloud {
		u.Name, u.Key = me.AccountID, me.AccountID
	}
	if u.Name == "" || u.Key == "" {
		return User{}, nil, a.nonsense("a user without name or key")
	}
	return u, a, nil
}

// Administrator tells whether the login's user administers Jira, as a Jira
// administrator or a system administrator. To administer a project does not
// count.
func (c *Client) Administrator(ctx context.Context) (bool, error) {
	// Data Center answers with all permissions whatever is asked; newer
	// versions may want to be told which.
	have, err := c.provenPermissions(ctx, url.Values{"permissions": {"ADMINISTER,SYSTEM_ADMIN"}})
	return have["ADMINISTER"] || have["SYSTEM_ADMIN"], err
}

// Permissions tells which permissions the login's user has, by Jira's keys for
// them: of the project with that key, or, where projectKey is empty, Jira's own
// and those that he has in any project. One that he lacks is listed as false.
// A project that he does not see, or that is not there, is an error of kind
// [Denied]. Jira Cloud does not list them all: there only those are told that
// every site has.
func (c *Client) Permissions(ctx context.Context, projectKey string) (map[string]bool, error) {
	query := url.Values{}
	if c.site.cloud {
		query.Set("permissions", cloudPermissions)
	}
	if projectKey != "" {
		if !IsProjectKey(projectKey) {
			return nil, refuse(http.MethodGet, c.site.api()+"/mypermissions", "key of a project", projectKey)
		}
		query.Set("projectKey", projectKey)
	}
	return c.provenPermissions(ctx, query)
}

// cloudPermissions are those that Cloud is asked about, which wants to be told.
const cloudPermissions = "ADMINISTER,SYSTEM_ADMIN,ADMINISTER_PROJECTS,BROWSE_PROJECTS,CREATE_ISSUES,EDIT_ISSUES,DELETE_ISSUES,ASSIGN_ISSUES,TRANSITION_ISSUES,MOVE_ISSUES,ADD_COMMENTS,EDIT_ALL_COMMENTS,DELETE_ALL_COMMENTS,CREATE_ATTACHMENTS,WORK_ON_ISSUES,MANAGE_WATCHERS,BULK_CHANGE,USER_PICKER,CREATE_PROJECT"

// Accepted tells whether Jira still takes the login for somebody. It is one
// call that a service account may make too, for which [Client.Myself] need not
// answer. Where the answer does not tell, it asks more, and an error means
// that it could not be told.
func (c *Client) Accepted(ctx context.Context) (bool, error) {
	asked := url.Values{"permissions": {"BROWSE_PROJECTS,CREATE_ISSUES,BULK_CHANGE"}}
	mine, a, err := c.permissions(ctx, asked)
	switch refusal := (*Error)(nil); {
	case errors.As(err, &refusal) && refusal.isNobody():
		return false, nil
	case err != nil:
		return false, err
	case a.user != "" || c.site.cloud:
		return true, nil // not anonymous, which is an error, and which Cloud's gateway refuses
	}
	if c.login.Username != "" {
		// A Jira that does not name its users; this one is a user, to whom
		// it says who he is.
		_, err := c.Myself(ctx)
		if refusal := (*Error)(nil); errors.As(err, &refusal) && refusal.isNobody() {
			return false, nil
		}
		return err == nil, err
	}
	nobodys, _, err := c.site.As(Login{}).permissions(ctx, asked)
	if err != nil {
		return false, err
	}
	for key, have := range mine {
		if have && !nobodys[key] {
			return true, nil
		}
	}
	return false, a.nonsense("the answer does not name the user, and anybody may do what the login may")
}

// isNobody tells whether Jira itself said that it does not know who calls.
func (e *Error) isNobody() bool {
	return e.Kind == Refused && (e.Status == http.StatusOK || e.Status == http.StatusUnauthorized && e.Refusing)
}

// provenPermissions are those that the login's own user has, ADMINISTER among
// them.
func (c *Client) provenPermissions(ctx context.Context, query url.Values) (map[string]bool, error) {
	have, a, err := c.permissions(ctx, query)
	if a == nil {
		return nil, err
	}
	// Jira tells an anonymous visitor, too, that there is no such project.
	if unproven := c.prove(ctx, a, nil); unproven != nil {
		return nil, unproven
	}
	if err != nil {
		return nil, err
	}
	if _, ok := have["ADMINISTER"]; !ok {
		return nil, a.nonsense("a list of permissions without ADMINISTER")
	}
	return have, nil
}

// permissions are those that the answer to query lists, and whether whoever
// Jira took the caller for has them. The answer comes with an error too where
// it is what is wrong: a 404, or no list.
func (c *Client) permissions(ctx context.Context, query url.Values) (map[string]bool, *answer, error) {
	a, err := c.do(ctx, call{
		method: http.MethodGet, path: c.site.api() + "/mypermissions", query: query,
		want: []int{http.StatusOK, http.StatusNotFound},
	})
	if err != nil {
		return nil, nil, err
	}
	if a.status == http.StatusNotFound {
		return nil, a, a.denied(c.login)
	}
	var mine struct {
		Permissions map[string]struct {
			Have bool `json:"havePermission"`
		} `json:"permissions"`
	}
	if err := a.decode(&mine); err != nil {
		return nil, a, err
	}
	if len(mine.Permissions) == 0 {
		return nil, a, a.nonsense("no list of permissions")
	}
	have := make(map[string]bool, len(mine.Permissions))
	for key, permission := range mine.Permissions {
		have[key] = permission.Have
	}
	return have, a, nil
}

// ServerInfo is what a site says of itself.
type ServerInfo struct {
	Version        string `json:"version"`        // as people write it
	VersionNumbers []int  `json:"versionNumbers"` // the same, major first
	DeploymentType string `json:"deploymentType"` // "Server" on Data Center, "Cloud" on Jira Cloud
}

// ServerInfo asks what the site is. Many sites answer this to anybody; one
// that does not answers an anonymous login with an error of kind [Refused].
func (c *Client) ServerInfo(ctx context.Context) (ServerInfo, error) {
	a, err := c.do(ctx, call{method: http.MethodGet, path: c.site.api() + "/serverInfo", want: []int{http.StatusOK}})
	if err != nil {
		return ServerInfo{}, err
	}
	var info ServerInfo
	if err := a.decode(&info); err != nil {
		return ServerInfo{}, err
	}
	if info.Version == "" || len(info.VersionNumbers) < 2 {
		return ServerInfo{}, a.nonsense("no version")
	}
	info.Version, info.DeploymentType = tidyWords(info.Version), tidyWords(info.DeploymentType)
	return info, nil
}

// AtLeast tells whether the site's version is major.minor or newer.
func (i ServerInfo) AtLeast(major, minor int) bool {
	return len(i.VersionNumbers) >= 2 && slices.Compare(i.VersionNumbers, []int{major, minor}) >= 0
}
