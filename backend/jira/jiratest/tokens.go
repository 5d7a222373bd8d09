package jiratest

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"
)

// Token is a personal access token that was not deleted.
type Token struct {
	ID         int64
	Name, User string    // User is the owner's login of now
	Created    time.Time // to the millisecond, by Jira's clock like the others
	Expires    time.Time // zero: never
	LastUsed   time.Time // exact, where Jira's own lastAccessedAt lags; zero: never
	Live       bool      // a call that carries it is let in now
}

// pat is a token as Jira holds it, for a while also after it was deleted.
type pat struct {
	id      int64
	name    string
	owner   string // user key
	raw     string
	parent  int64 // the token it was minted with, 0 if with a password
	created time.Time
	expires time.Time
	deleted time.Time // zero: not deleted

	used, shown time.Time // the last use, and what lists showed of it a minute ago
}

func (k *pat) expired(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

// tokens are found by id, by secret and by the owner's key.
type tokens struct {
	byID    map[int64]*pat
	bySec   map[string]*pat
	byOwner map[string]map[int64]*pat
	lastID  int64
	secrets []string
	known   map[string]bool // the same secrets, to find one
}

func newTokens() tokens {
	return tokens{
		byID: map[int64]*pat{}, bySec: map[string]*pat{}, byOwner: map[string]map[int64]*pat{}, known: map[string]bool{},
	}
}

// Mint makes a token behind the API's back, past every limit, and returns it and its secret. It lives for days, or for ever if
// days is 0; negative days make one that expired that long ago. It panics if there is no such user.
func (s *Server) Mint(user, name string, days int) (Token, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.mustUser(user)
	k := s.mint(u, name, days, 0)
	return s.token(k, s.now()), k.raw
}

// mint does so with s.mu held.
func (s *Server) mint(u *user, name string, days int, parent int64) *pat {
	now := s.now()
	s.lastID = max(s.lastID+1, cmp.Or(s.switches.FirstID, 412))
	k := &pat{id: s.lastID, name: name, owner: u.Key, raw: rawToken(), parent: parent, created: now}
	if days != 0 {
		k.expires = now.Add(time.Duration(days) * 24 * time.Hour)
	}
	if days < 0 {
		k.created = k.expires.Add(-24 * time.Hour)
	}
	s.byID[k.id] = k
	s.bySec[k.raw] = k
	if s.byOwner[u.Key] == nil {
		s.byOwner[u.Key] = map[int64]*pat{}
	}
	s.byOwner[u.Key][k.id] = k
	s.secret(k.raw)
	s.wake()
	return k
}

// rawToken is base64 of 12 digits, a colon and 20 bytes, as seen on a real Jira: 44 characters.
func rawToken() string {
	b := make([]byte, 33)
	_, _ = rand.Read(b) // never fails
	for i := range 12 {
		b[i] = '0' + b[i]%10
	}
	b[12] = ':'
	return base64.StdEncoding.EncodeToString(b)
}

// Tokens lists the tokens of a user that are not deleted, expired ones among them, by id; "" means of all users.
// It never lags. Of an unknown user there are none.
func (s *Server) Tokens(user string) []Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := ""
	if user != "" {
		u := s.byLogin[strings.ToLower(user)]
		if u == nil {
			return nil
		}
		key = u.Key
	}
	now := s.now()
	var list []Token
	for _, k := range s.ordered(key) {
		if k.deleted.IsZero() {
			list = append(list, s.token(k, now))
		}
	}
	return list
}

// Delete deletes a token behind the API's back, and does nothing if there is none of that id.
func (s *Server) Delete(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byID[id]; k != nil && k.deleted.IsZero() {
		s.delete(k)
	}
}

// Rename gives a token another name behind the API's back, and does nothing if there is none of that id.
func (s *Server) Rename(id int64, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byID[id]; k != nil && k.deleted.IsZero() {
		k.name = name
		s.wake()
	}
}

// delete does so with s.mu held, and lets the token live on where a switch says that it does.
func (s *Server) delete(k *pat) {
	if k.deleted = s.now(); s.afterlife() == 0 {
		s.drop(k)
	}
	if s.switches.DeleteTakesSiblings {
		for _, child := range s.ordered(k.owner) {
			if child.parent == k.id && child.deleted.IsZero() {
				s.delete(child)
			}
		}
	}
	s.wake()
}

// afterlife is how long a deleted token is still needed.
func (s *Server) afterlife() time.Duration { return max(s.switches.DeleteLag, s.switches.ListLag) }

// passed says that now a lag is over that began then. A clock that was set back since does not bring it back.
func passed(now, then time.Time, lag time.Duration) bool {
	age := now.Sub(then)
	return age < 0 || age >= lag
}

// drop forgets a token for good; s.mu is held.
func (s *Server) drop(k *pat) {
	delete(s.byID, k.id)
	delete(s.bySec, k.raw)
	delete(s.byOwner[k.owner], k.id)
}

// over says that k was deleted or expired so long ago that nothing is left of it; s.mu is held.
func (s *Server) over(k *pat, now time.Time) bool {
	if !k.deleted.IsZero() {
		return passed(now, k.deleted, s.afterlife())
	}
	return !k.expires.IsZero() && !now.Before(k.expires.Add(cmp.Or(s.switches.ExpiredKept, 30*24*time.Hour)))
}

// prune forgets what is over of a user's tokens; s.mu is held.
func (s *Server) prune(key string) {
	now := s.now()
	for _, k := range s.byOwner[key] {
		if s.over(k, now) {
			s.drop(k)
		}
	}
}

// ordered lists the tokens of a user key, or of all if it is "", by id, deleted ones among them; s.mu is held.
func (s *Server) ordered(key string) []*pat {
	from := s.byID
	if key != "" {
		from = s.byOwner[key]
	}
	return slices.SortedFunc(maps.Values(from), func(a, b *pat) int { return cmp.Compare(a.id, b.id) })
}

// counted is how many tokens of a user the cap counts; s.mu is held.
func (s *Server) counted(key string) int {
	s.prune(key)
	n := 0
	now := s.now()
	for _, k := range s.byOwner[key] {
		if k.deleted.IsZero() && !(s.switches.ExpiredDoNotCount && k.expired(now)) {
			n++
		}
	}
	return n
}

// works says that a call with k is let in; s.mu is held.
func (s *Server) works(k *pat, now time.Time) bool {
	if !s.hasPATs || s.switches.PATsOff || k.expired(now) {
		return false
	}
	if !k.deleted.IsZero() && passed(now, k.deleted, s.switches.DeleteLag) {
		return false
	}
	owner := s.byKey[k.owner]
	return owner != nil && !owner.Inactive
}

// token is what tests see of k; s.mu is held.
func (s *Server) token(k *pat, now time.Time) Token {
	t := Token{ID: k.id, Name: k.name, Created: k.created, Expires: k.expires, LastUsed: k.used, Live: s.works(k, now)}
	if owner := s.byKey[k.owner]; owner != nil {
		t.User = owner.Name
	}
	return t
}

// touch notes a use of k, and what of earlier uses has become visible by then.
func (k *pat) touch(now time.Time) {
	k.shown = k.accessed(now)
	k.used = now
}

// accessed is the use that Jira shows: it writes uses down once a minute.
func (k *pat) accessed(now time.Time) time.Time {
	if k.used.After(now.Truncate(time.Minute)) {
		return k.shown
	}
	return k.used
}

// Secrets returns every raw token and every password that was ever made or set here, for tests to hold logs against.
// A password that is a common word will be found in them without having leaked.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets)
}

// secret remembers one; s.mu is held.
func (s *Server) secret(v string) {
	if v != "" && !s.known[v] {
		s.known[v] = true
		s.secrets = append(s.secrets, v)
	}
}
