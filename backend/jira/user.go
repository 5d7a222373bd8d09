package jira

import (
	"context"
	"net/http"
	"net/url"
	"slices"
)

// User is who a login belongs to.
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
	a, err := c.do(ctx, call{method: http.MethodGet, path: "/rest/api/2/myself", want: []int{http.StatusOK}, urgent: urgent})
	if err != nil {
		return User{}, nil, err
	}
	var u User
	if err := a.decode(&u); err != nil {
		return User{}, nil, err
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
	a, err := c.do(ctx, call{
		method: http.MethodGet, path: "/rest/api/2/mypermissions",
		// Data Center answers with all permissions whatever is asked; newer
		// versions may want to be told which.
		query: url.Values{"permissions": {"ADMINISTER,SYSTEM_ADMIN"}},
		want:  []int{http.StatusOK},
	})
	if err != nil {
		return false, err
	}
	if err := c.prove(ctx, a, nil); err != nil {
		return false, err
	}
	var mine struct {
		Permissions map[string]struct {
			Have bool `json:"havePermission"`
		} `json:"permissions"`
	}
	if err := a.decode(&mine); err != nil {
		return false, err
	}
	if _, ok := mine.Permissions["ADMINISTER"]; !ok {
		return false, a.nonsense("a list of permissions without ADMINISTER")
	}
	return mine.Permissions["ADMINISTER"].Have || mine.Permissions["SYSTEM_ADMIN"].Have, nil
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
	a, err := c.do(ctx, call{method: http.MethodGet, path: "/rest/api/2/serverInfo", want: []int{http.StatusOK}})
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
