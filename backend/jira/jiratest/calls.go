package jiratest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Call is one call that reached Jira, or a fault in front of it.
type Call struct {
	At     time.Time // when it came, by Jira's clock
	Method string
	Path   string // without the context path, with the query
	User   string // the owner of the token it carried, if that worked, or the login it named with a password right or wrong; else ""
	Auth   string // "basic", "bearer" or "": what it carried, good or not
	Status int    // 0: not answered, or not yet
	Fault  string // what went wrong by order, a [Misbehaviour]; "": nothing
}

// matches says that c is a call of that method, "" being any, whose path begins so.
func (c *Call) matches(method, pathPrefix string) bool {
	return (method == "" || strings.EqualFold(method, c.Method)) && strings.HasPrefix(c.Path, pathPrefix)
}

// traffic is what came in.
type traffic struct {
	calls       []*Call
	active      int // calls that are being served
	inFlight    int // those of them that were not answered yet
	maxInFlight int
	late        int // calls that wait for their client to go
	landed      int // late effects nobody has waited for
}

// Calls returns the calls since [Server.ResetCalls] in the order in which they came, those that still wait for an answer among them.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Call, len(s.calls))
	for i, c := range s.calls {
		list[i] = *c
	}
	return list
}

// Count counts the calls of a method, "" being any, whose path begins with pathPrefix.
func (s *Server) Count(method, pathPrefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count(method, pathPrefix, false)
}

// count does so with s.mu held, if need be only the answered ones.
func (s *Server) count(method, pathPrefix string, answered bool) int {
	n := 0
	for _, c := range s.calls {
		if c.matches(method, pathPrefix) && (!answered || c.Status != 0) {
			n++
		}
	}
	return n
}

// ResetCalls forgets the calls so far.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
	s.maxInFlight = s.inFlight
}

// MaxInFlight returns the most calls that were ever served at one time since [Server.ResetCalls]. A call counts until its answer is
// sent, so that a client which makes one call after the other never makes two.
func (s *Server) MaxInFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxInFlight
}

// WaitCalls waits until n calls of that method and path have come, answered or not, as [Server.Count] counts them.
func (s *Server) WaitCalls(ctx context.Context, method, pathPrefix string, n int) error {
	return s.await(ctx, func() bool { return s.count(method, pathPrefix, false) >= n })
}

// WaitGone waits until no token of that name works any more, be it that there never was one. Expiry wakes it only when [Server.Advance] moves the clock.
func (s *Server) WaitGone(ctx context.Context, name string) error {
	return s.await(ctx, func() bool { return !s.alive(func(k *pat) bool { return k.name == name }) })
}

// alive says that a token that is meant works; s.mu is held.
func (s *Server) alive(meant func(*pat) bool) bool {
	now := s.now()
	for _, k := range s.byID {
		if meant(k) && s.works(k, now) {
			return true
		}
	}
	return false
}

// await waits until done, which is asked with s.mu held whenever something happened. It fails when ctx ends or s is closed.
func (s *Server) await(ctx context.Context, done func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := done(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closing:
			return errors.New("the simulated Jira was closed")
		}
	}
}

// arrive notes that q came, and chooses its fault, if any.
func (s *Server) arrive(q *request) (*Call, *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, kind := s.claims(q)
	path := s.scrub(q)
	c := &Call{At: s.now(), Method: q.method, Path: path, User: name, Auth: kind}
	f := s.choose(c)
	if f != nil {
		c.Fault = string(f.Do)
	}
	s.calls = append(s.calls, c)
	s.inFlight++
	s.maxInFlight = max(s.maxInFlight, s.inFlight)
	s.wake()
	return c, f
}

// answered notes that c is about to be answered with status, or to be dropped if that is 0. It comes before the answer,
// so that whoever has the answer finds it noted.
func (s *Server) answered(c *Call, status int) {
	s.mu.Lock()
	c.Status = status
	s.inFlight--
	s.wake()
	line := fmt.Sprintf("%s %s %s %d user=%q auth=%q fault=%q\n",
		c.At.Format(time.RFC3339), c.Method, c.Path, c.Status, c.User, c.Auth, c.Fault)
	s.mu.Unlock()
	if s.options.Log == nil {
		return
	}
	s.logMu.Lock()
	defer s.logMu.Unlock()
	_, _ = s.options.Log.Write([]byte(line))
}

// scrub returns path and query of q. A secret in it, which no client should put there, shows as (secret); s.mu is held.
func (s *Server) scrub(q *request) string {
	const short = 12 // a password shorter than this is a word that means something else in a path
	hide := func(v string) bool { return len(v) >= short && s.known[v] }
	elements := strings.Split(q.path, "/")
	for i, e := range elements {
		if v, err := url.PathUnescape(e); err != nil || hide(v) {
			elements[i] = "(secret)"
		}
	}
	path := strings.Join(elements, "/")
	if q.rawQuery == "" {
		return path
	}
	pairs := strings.Split(q.rawQuery, "&")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		if v, err := url.QueryUnescape(value); err != nil || hide(v) || hide(value) {
			pairs[i] = name + "=(secret)"
		}
	}
	return path + "?" + strings.Join(pairs, "&")
}
