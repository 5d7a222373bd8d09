package jira

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The calls of this file change Jira's directory of users and groups. They are
// an administrator's; anybody else gets an error of kind [Denied].

const (
	usersPath    = "/rest/api/2/user"
	passwordPath = usersPath + "/password"
	membersPath  = "/rest/api/2/group/user"
)

// NewUser is a user to be made.
type NewUser struct {
	Name        string // what he logs in with; Jira lower-cases it
	Password    string
	Email       string // no mail is sent there
	DisplayName string
	// ApplicationKeys are the applications he may use, such as "jira-software".
	// Each takes a seat of its licence until he is deactivated or deleted. With
	// none he takes no seat, and may use no application.
	ApplicationKeys []string
}

// CreateUser makes the user n, who can log in with his password at once. Jira
// says no, with an error of kind [Denied], to a name that is taken, where no
// seat is left, and where its directories are read-only.
//
// It is sent and repeated as [Client.CreateToken] is, and [NothingMade] tells
// as much of its error. Where something may have been made, [Client.FindUser]
// finds it by its name.
func (c *Client) CreateUser(ctx context.Context, n NewUser) (User, error) {
	if !isName(n.Name) {
		return User{}, refuse(http.MethodPost, usersPath, "name of a user", n.Name)
	}
	a, err := c.do(ctx, call{
		method: http.MethodPost, path: usersPath,
		body: map[string]any{
			"name": n.Name, "password": n.Password, "emailAddress": n.Email, "displayName": n.DisplayName, "notification": false,
			// Without this field Jira chooses, and without a list it finds none.
			"applicationKeys": append([]string{}, n.ApplicationKeys...),
		},
		secret: n.Password,
		want:   []int{http.StatusCreated},
		once:   true,
	})
	if err != nil {
		return User{}, err
	}
	if a.user != "" && !names(a.user, c.login.Username) {
		if err := c.prove(ctx, a, nil); err != nil {
			return User{}, err
		}
	}
	var u User
	if err := a.decode(&u); err != nil {
		return User{}, err
	}
	if u.Key == "" || !strings.EqualFold(u.Name, n.Name) {
		return User{}, a.nonsense(fmt.Sprintf("the new user is named %q instead of %q, or has no key", c.login.quote(u.Name, n.Password), n.Name))
	}
	return u, nil
}

// FindUser returns the user called name and the groups he is in. found is false,
// without an error, only where Jira itself told the login's own user that there
// is nobody of that name; it tells so, too, of a user whom this login may not see.
//
// Whether a node of Jira shows a user at once whom another has just made is
// not confirmed, and a call that was cut off may yet make one: that he is not
// found is final only when such a call lies some time back.
func (c *Client) FindUser(ctx context.Context, name string) (u User, groups []string, found bool, err error) {
	return c.findUser(ctx, "username", name, false)
}

// FindUserByKey is [Client.FindUser] of the user who has a key, which he keeps when he
// is renamed.
func (c *Client) FindUserByKey(ctx context.Context, key string) (u User, groups []string, found bool, err error) {
	return c.findUser(ctx, "key", key, false)
}

// findUser finds the user whom by, a name or a key, tells.
func (c *Client) findUser(ctx context.Context, by, value string, urgent bool) (u User, groups []string, found bool, err error) {
	if !isName(value) {
		return User{}, nil, false, refuse(http.MethodGet, usersPath, "name of a user", value)
	}
	a, err := c.do(ctx, call{
		method: http.MethodGet, path: usersPath, query: url.Values{by: {value}, "expand": {"groups"}},
		want: []int{http.StatusOK, http.StatusNotFound}, urgent: urgent,
	})
	if err != nil {
		return User{}, nil, false, err
	}
	if a.status == http.StatusNotFound {
		return User{}, nil, false, c.proveMissing(ctx, a)
	}
	if err := c.prove(ctx, a, nil); err != nil {
		return User{}, nil, false, err
	}
	var listed userJSON
	if err := a.decode(&listed); err != nil {
		return User{}, nil, false, err
	}
	u, groups, err = listed.user()
	if told := map[string]string{"username": u.Name, "key": u.Key}[by]; err == nil && !strings.EqualFold(told, value) {
		err = errors.New("he has another name, or another key")
	}
	if err != nil {
		return User{}, nil, false, a.nonsense("of the user: " + err.Error())
	}
	return u, groups, true, nil
}

// DeleteUser deletes the user called name, and with him his tokens. No error
// means that there is proven to be nobody of that name; there tells whether this call
// may have deleted him, and is false where Jira said that there was none.
// [Client.FindUser] tells when that is final. A user who reported
// issues or owns things is not deleted but refused, with an error of kind
// [Denied] (whether always is not confirmed): deactivate him. It goes before
// other calls where the gate is narrow.
func (c *Client) DeleteUser(ctx context.Context, name string) (there bool, err error) {
	if !isName(name) {
		return false, refuse(http.MethodDelete, usersPath, "name of a user", name)
	}
	a, err := c.do(ctx, call{
		method: http.MethodDelete, path: usersPath, query: url.Values{"username": {name}},
		want:   []int{http.StatusNoContent, http.StatusNotFound},
		urgent: true,
	})
	if err != nil {
		return false, err
	}
	gone := func() error { return c.isGone(ctx, a, name) }
	if a.status == http.StatusNotFound {
		return false, gone()
	}
	return true, c.prove(ctx, a, gone)
}

// isGone returns nil if Jira does not find the user called name any more, which
// a, the answer to his deletion, says.
func (c *Client) isGone(ctx context.Context, a *answer, name string) error {
	_, _, found, err := c.findUser(ctx, "username", name, true)
	if err != nil {
		return fmt.Errorf("DELETE %s: cannot tell whether the user is gone: %w", a.call.path, err)
	}
	if found {
		return a.nonsense("the user is still there")
	}
	return nil
}

// Deactivate keeps the user called name from logging in, with his password or
// a token, until he is activated again; he takes no seat meanwhile. Jira can do
// so since 8.3. A user who is not there is an error of kind [Denied], with
// status 404. It goes before other calls where the gate is narrow.
func (c *Client) Deactivate(ctx context.Context, name string) error {
	if !isName(name) {
		return refuse(http.MethodPut, usersPath, "name of a user", name)
	}
	a, err := c.do(ctx, call{
		method: http.MethodPut, path: usersPath, query: url.Values{"username": {name}},
		body:   map[string]bool{"active": false},
		want:   []int{http.StatusOK},
		urgent: true,
	})
	if err != nil {
		return err
	}
	if err := c.prove(ctx, a, nil); err != nil {
		return err
	}
	if len(bytes.TrimSpace(a.body)) == 0 {
		return nil
	}
	var said userJSON
	if err := a.decode(&said); err != nil {
		return err
	}
	switch {
	case said.Name != "" && !strings.EqualFold(said.Name, name):
		return a.nonsense("it is about a user of another name")
	case said.Active != nil && *said.Active:
		return a.nonsense("the user is still active")
	}
	return nil
}

// SetPassword gives the user called name a new password. His tokens go on
// working, and so does what he has logged in to. A password that Jira's policy
// does not allow, and a user who is not there, is an error of kind [Denied].
func (c *Client) SetPassword(ctx context.Context, name, password string) error {
	if !isName(name) {
		return refuse(http.MethodPut, passwordPath, "name of a user", name)
	}
	a, err := c.do(ctx, call{
		method: http.MethodPut, path: passwordPath, query: url.Values{"username": {name}},
		body: map[string]string{"password": password}, secret: password,
		want: []int{http.StatusNoContent},
	})
	if err != nil {
		return err
	}
	return c.prove(ctx, a, nil)
}

// AddToGroup makes the user called name a member of group. That he is one
// already is an error of kind [Denied], as is a group or a user that is not
// there: Jira's words tell them apart to people only, [Client.FindUser] to the
// caller. It is not repeated where its answer is lost, for then it would be
// refused because of its own success; after such an error, as [NothingMade]
// tells, he may be a member.
func (c *Client) AddToGroup(ctx context.Context, group, name string) error {
	switch {
	case !isName(group):
		return refuse(http.MethodPost, membersPath, "name of a group", group)
	case !isName(name):
		return refuse(http.MethodPost, membersPath, "name of a user", name)
	}
	a, err := c.do(ctx, call{
		method: http.MethodPost, path: membersPath, query: url.Values{"groupname": {group}},
		body: map[string]string{"name": name},
		want: []int{http.StatusCreated},
		once: true,
	})
	if err != nil {
		return err
	}
	return c.prove(ctx, a, nil)
}

// RemoveFromGroup ends the membership of the user called name in group. No
// error means that he is proven not to be a member, whether this call ended it,
// or he was none, or he or the group is not there. Jira refuses with the same
// statuses, 400 and 404, one who is no member and one whom it cannot take out,
// such as a user of a read-only directory: [Client.FindUser] decides. It goes
// before other calls where the gate is narrow.
func (c *Client) RemoveFromGroup(ctx context.Context, group, name string) error {
	switch {
	case !isName(group):
		return refuse(http.MethodDelete, membersPath, "name of a group", group)
	case !isName(name):
		return refuse(http.MethodDelete, membersPath, "name of a user", name)
	}
	a, err := c.do(ctx, call{
		method: http.MethodDelete, path: membersPath, query: url.Values{"groupname": {group}, "username": {name}},
		want:   []int{http.StatusOK, http.StatusBadRequest, http.StatusNotFound},
		urgent: true,
	})
	if err != nil {
		return err
	}
	out := func() error { return c.isOut(ctx, a, group, name) }
	if a.status != http.StatusOK {
		return out()
	}
	return c.prove(ctx, a, out)
}

// isOut returns nil if the user called name is not in group, after a, the
// answer to his removal.
func (c *Client) isOut(ctx context.Context, a *answer, group, name string) error {
	_, groups, _, err := c.findUser(ctx, "username", name, true)
	switch {
	case err != nil:
		return fmt.Errorf("DELETE %s: cannot tell whether the user is still a member: %w", a.call.path, err)
	case !slices.ContainsFunc(groups, func(g string) bool { return strings.EqualFold(g, group) }):
		return nil
	case a.status == http.StatusOK:
		return a.nonsense("the user is still a member")
	}
	return a.denied(c.login)
}

// proveMissing returns nil if a, an answer with 404, is Jira's word, given to
// the login's own user, that what the call is about is not there. Jira's REST
// API says that in JSON of its own shape; in another shape, or with none, it
// says that the path is not there.
func (c *Client) proveMissing(ctx context.Context, a *answer) error {
	var said struct {
		Messages *[]string        `json:"errorMessages"`
		Fields   *json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(a.body, &said) != nil || said.Messages == nil && said.Fields == nil {
		e := a.nonsense(a.words(c.login))
		e.Advice = "Jira does not say so that something is not there: check the context path of the site's url, and any proxy before it"
		return e
	}
	return c.prove(ctx, a, nil)
}

// isName tells whether s may be the name of a user or a group. Without this a
// call about nobody could be taken for one about anybody.
func isName(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// userJSON is a user on the wire, with the groups he is in where they were
// asked for.
type userJSON struct {
	User
	Active *bool `json:"active"` // absent is not false
	Groups *struct {
		Size  int `json:"size"`
		Items []struct {
			Name string `json:"name"`
		} `json:"items"`
	} `json:"groups"`
}

// user reads j, all of which has to be there.
func (j userJSON) user() (User, []string, error) {
	switch {
	case j.Name == "" || j.Key == "":
		return User{}, nil, errors.New("his name or key is missing")
	case j.Active == nil:
		return User{}, nil, errors.New("it is not told whether he is active")
	case j.Groups == nil || j.Groups.Items == nil || len(j.Groups.Items) < j.Groups.Size:
		return User{}, nil, errors.New("his groups are missing, or some of them")
	}
	u := j.User
	u.Active = *j.Active
	groups := make([]string, 0, len(j.Groups.Items))
	for _, g := range j.Groups.Items {
		if g.Name == "" {
			return User{}, nil, errors.New("one of his groups has no name")
		}
		groups = append(groups, g.Name)
	}
	return u, groups, nil
}
