package jiratest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// User is a user of Jira. Name is the login, which can change, and Key what he is known by for ever.
type User struct {
	Name, Key, Password, DisplayName, Email string

	Groups          []string
	Admin, SysAdmin bool // a system administrator is an administrator too
	Inactive        bool // his password and tokens do not work until he is active again
}

const adminGroup = "jira-administrators"

// applicationGroups are the groups whose members may use an application and take a seat of its licence, by its key.
var applicationGroups = map[string]string{
	"jira-core": "jira-core-users", "jira-software": "jira-software-users", "jira-servicedesk": "jira-servicedesk-users",
}

// user is a User and how he has logged in.
type user struct {
	User

	failed int       // wrong passwords since the last right one
	made   time.Time // by a call; zero: behind the API's back
}

func (u *user) admin() bool {
	return u != nil && (u.Admin || u.SysAdmin || slices.Contains(u.Groups, adminGroup))
}

// users are found by key, and by login in lower case.
type users struct {
	byKey    map[string]*user
	byLogin  map[string]*user
	groups   map[string]bool
	sessions map[string]string // session id to user key
	made     int
}

func newUsers() users {
	groups := map[string]bool{adminGroup: true}
	for _, g := range applicationGroups {
		groups[g] = true
	}
	return users{byKey: map[string]*user{}, byLogin: map[string]*user{}, sessions: map[string]string{}, groups: groups}
}

// seated says that u takes a seat.
func (u *user) seated() bool {
	for _, g := range applicationGroups {
		if !u.Inactive && slices.Contains(u.Groups, g) {
			return true
		}
	}
	return false
}

// seatLeft says that one more user may use an application; s.mu is held.
func (s *Server) seatLeft() bool {
	taken := 0
	for _, u := range s.byKey {
		if u.seated() {
			taken++
		}
	}
	return s.switches.Seats == 0 || taken < s.switches.Seats
}

// AddUser adds a user and the groups he names, and returns him as Jira holds him: without a Key he gets one like JIRAUSER10100,
// without a Password a random one. It panics if the name is empty or taken, which is a mistake of the test.
func (s *Server) AddUser(u User) User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addUser(u).copy()
}

// addUser does so with s.mu held.
func (s *Server) addUser(u User) *user {
	s.users.made++
	u.Key = cmp.Or(u.Key, fmt.Sprintf("JIRAUSER%d", 10099+s.users.made))
	u.Password = cmp.Or(u.Password, rand.Text())
	u.DisplayName = cmp.Or(u.DisplayName, u.Name)
	u.Email = cmp.Or(u.Email, strings.ReplaceAll(u.Name, "@", ".")+"@example.com")
	u.Groups = slices.Clone(u.Groups)
	if u.Name == "" || s.byLogin[strings.ToLower(u.Name)] != nil || s.byKey[u.Key] != nil {
		panic(fmt.Sprintf("jiratest: user %q with key %q is nameless or there already", u.Name, u.Key))
	}
	added := &user{User: u}
	s.byKey[u.Key] = added
	s.byLogin[strings.ToLower(u.Name)] = added
	s.settle(added)
	return added
}

// settle takes note of the groups and the password of a user who was added or changed.
func (s *Server) settle(u *user) {
	for _, g := range u.Groups {
		s.groups[g] = true
	}
	s.secret(u.Password)
	s.wake()
}

func (u *user) copy() User {
	c := u.User
	c.Groups = slices.Clone(c.Groups)
	return c
}

// SetUser changes a user: his login, password, groups, whether he is active. His key stays. It panics if there is no such user,
// or if his new login is taken.
func (s *Server) SetUser(name string, change func(*User)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.mustUser(name)
	changed := u.copy()
	change(&changed)
	changed.Key = u.Key
	if !s.setUser(u, changed) {
		panic(fmt.Sprintf("jiratest: there is a user %q already", changed.Name))
	}
}

// setUser reports false, and changes nothing, if the new login is taken or empty. s.mu is held.
func (s *Server) setUser(u *user, to User) bool {
	login := strings.ToLower(to.Name)
	if other := s.byLogin[login]; login == "" || other != nil && other != u {
		return false
	}
	delete(s.byLogin, strings.ToLower(u.Name))
	s.byLogin[login] = u
	u.User = to
	s.settle(u)
	return true
}

// Users lists the users that were not deleted, by login.
func (s *Server) Users() []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []User
	for _, login := range slices.Sorted(maps.Keys(s.byLogin)) {
		list = append(list, s.byLogin[login].copy())
	}
	return list
}

// DeleteUser deletes a user with his tokens, sessions and roles, and does nothing if there is none.
func (s *Server) DeleteUser(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.byLogin[strings.ToLower(name)]; u != nil {
		s.deleteUser(u)
	}
}

// deleteUser does so with s.mu held.
func (s *Server) deleteUser(u *user) {
	delete(s.byKey, u.Key)
	delete(s.byLogin, strings.ToLower(u.Name))
	maps.DeleteFunc(s.sessions, func(_, key string) bool { return key == u.Key })
	for _, p := range s.byProject {
		for _, members := range p.roles {
			delete(members, u.Key)
		}
	}
	for _, k := range s.ordered(u.Key) {
		s.drop(k)
	}
	s.wake()
}

// LogIn stands for a person who logs in with a browser: the CAPTCHA is solved. It panics if there is no such user.
func (s *Server) LogIn(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustUser(name).failed = 0
}

// mustUser finds the user a test means; s.mu is held.
func (s *Server) mustUser(name string) *user {
	u := s.byLogin[strings.ToLower(name)]
	if u == nil {
		panic(fmt.Sprintf("jiratest: there is no user %q", name))
	}
	return u
}

// login finds the user who logs in as name; s.mu is held.
func (s *Server) login(name string) *user {
	u := s.byLogin[strings.ToLower(name)]
	if u != nil && s.switches.LoginCaseSensitive && u.Name != name {
		return nil
	}
	return u
}
