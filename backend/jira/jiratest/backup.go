package jiratest

import (
	"maps"
	"slices"
)

// Backup is what Jira's database held at one moment. It can be restored any number of times.
type Backup struct {
	users     users
	tokens    tokens
	projects  projects
	apiTokens map[string]*apiToken
	apiOrder  []string
}

// Backup takes a copy of users, groups, projects with their roles and issues, personal access tokens and API tokens, and
// of the last ids. Service accounts, access tokens, switches, faults, the clock and what is known of calls are not in it.
func (s *Server) Backup() *Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Backup{
		users: s.users.copy(), tokens: s.tokens.copy(), projects: s.projects.copy(),
		apiTokens: copies(s.apiTokens), apiOrder: slices.Clone(s.apiOrder),
	}
}

// Restore replaces by b what b is a copy of. What was made since is gone, what was deleted since is there again, and Jira
// gives out the same ids and user keys a second time. Sessions end, as Jira must be restarted for this. [Server.Secrets]
// still returns the secrets of what is gone.
func (s *Server) Restore(b *Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secrets, known := s.secrets, s.known
	s.users, s.tokens, s.projects = b.users.copy(), b.tokens.copy(), b.projects.copy()
	s.secrets, s.known = secrets, known
	s.apiTokens, s.apiOrder = copies(b.apiTokens), slices.Clone(b.apiOrder)
	s.sessions = map[string]string{}
	s.wake()
}

// copies copies a map and what its values point to.
func copies[K comparable, V any](m map[K]*V) map[K]*V {
	c := make(map[K]*V, len(m))
	for key, value := range m {
		copied := *value
		c[key] = &copied
	}
	return c
}

func (u users) copy() users {
	c := newUsers()
	c.byKey, c.groups, c.sessions, c.made = copies(u.byKey), maps.Clone(u.groups), maps.Clone(u.sessions), u.made
	for _, copied := range c.byKey {
		copied.User = copied.copy()
	}
	for login, of := range u.byLogin {
		c.byLogin[login] = c.byKey[of.Key]
	}
	return c
}

// copy leaves out the secrets, which are not Jira's but the tests'.
func (t tokens) copy() tokens {
	c := newTokens()
	c.byID, c.lastID = copies(t.byID), t.lastID
	for id, k := range c.byID {
		c.bySec[k.raw] = k
		if c.byOwner[k.owner] == nil {
			c.byOwner[k.owner] = map[int64]*pat{}
		}
		c.byOwner[k.owner][id] = k
	}
	return c
}

func (p projects) copy() projects {
	c := projects{byProject: copies(p.byProject), issues: copies(p.issues), lastIssue: p.lastIssue}
	for _, copied := range c.byProject {
		roles := map[int]map[string]bool{}
		for id, members := range copied.roles {
			roles[id] = maps.Clone(members)
		}
		copied.roles = roles
	}
	for _, copied := range c.issues {
		copied.project = c.byProject[copied.project.Key]
	}
	return c
}
