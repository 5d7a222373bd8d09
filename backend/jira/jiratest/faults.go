package jiratest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault makes chosen calls go wrong. A fault stands before everything else, like a proxy: a call that it answers meets no login, no
// rate limit and no XSRF check, but is in [Server.Calls]. If several match, the one that was added first acts, and each counts.
//
// Go's own HTTP client repeats a GET by itself when a connection it had used before is lost.
type Fault struct {
	Method, Path string // "" matches all; Path is a prefix without the context path, of path and query
	User         string // "" matches all; else as in [Call]
	Nth          int    // the first call to act on, counted from 1 among those that matched since the fault was added; 0: every one
	Times        int    // how many calls to act on from there; 0: one, or every one if Nth is 0; negative: no end
	Do           Misbehaviour

	Status int           // for Answer and AnswerAfter; 0: 200
	Header http.Header   // for Answer and AnswerAfter; without Content-Type it is guessed from Body
	Body   string        // for Answer and AnswerAfter
	Delay  time.Duration // for Slow, of real time
	Target string        // for Redirect: the base URL to go to
}

// Misbehaviour is what a [Fault] does.
type Misbehaviour string

// What can go wrong. Effect means that Jira does what the call asks: makes the token, deletes it.
const (
	Answer      Misbehaviour = "Answer"      // the canned Status, Header and Body, without effect
	AnswerAfter Misbehaviour = "AnswerAfter" // effect, then the canned answer instead of the true one: a 502 after the mint
	LoseCall    Misbehaviour = "LoseCall"    // the connection is closed before any effect
	LoseAnswer  Misbehaviour = "LoseAnswer"  // effect, then the connection is closed without an answer
	CutBody     Misbehaviour = "CutBody"     // effect, then headers with the full Content-Length, and half of the body
	Hang        Misbehaviour = "Hang"        // no effect, and no answer until the client gives up or Close
	HangAfter   Misbehaviour = "HangAfter"   // effect, and no answer until the client gives up or Close
	LateEffect  Misbehaviour = "LateEffect"  // no answer until the client gives up or Close, then the effect; see WaitLate
	Slow        Misbehaviour = "Slow"        // effect, and the true answer after Delay
	HTML200     Misbehaviour = "HTML200"     // a login page, as a proxy would show it, with 200, without effect
	HTML404     Misbehaviour = "HTML404"     // an HTML page with 404, without effect
	Anonymous   Misbehaviour = "Anonymous"   // the credential counts for nothing: the call goes on as anonymous
	Huge        Misbehaviour = "Huge"        // effect, then the true answer inside 100 MB of JSON
	Redirect    Misbehaviour = "Redirect"    // 307 to Target and the path, without effect
	Twice       Misbehaviour = "Twice"       // the effect happens twice, and is answered once: two tokens of one name
)

var misbehaviours = []Misbehaviour{
	Answer, AnswerAfter, LoseCall, LoseAnswer, CutBody, Hang, HangAfter, LateEffect, Slow, HTML200, HTML404, Anonymous, Huge, Redirect, Twice,
}

// faults are those that were added and not removed.
type faults struct {
	traps    []*trap
	lastTrap int
}

// trap is a fault and how many calls matched it.
type trap struct {
	Fault

	id   int
	seen int
}

// Fault adds a fault and returns what removes it again; removing it twice does nothing. It panics if Do is none of the
// constants, which is a mistake of the test.
func (s *Server) Fault(f Fault) (remove func()) {
	if !slices.Contains(misbehaviours, f.Do) {
		panic(fmt.Sprintf("jiratest: no fault does %q", f.Do))
	}
	id := s.set(f).id
	return func() { s.unset(id) }
}

func (s *Server) set(f Fault) *trap {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastTrap++
	t := &trap{Fault: f, id: s.lastTrap}
	s.traps = append(s.traps, t)
	return t
}

func (s *Server) unset(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = slices.DeleteFunc(s.traps, func(t *trap) bool { return t.id == id })
}

// ClearFaults removes all faults. Calls that hang go on hanging.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = nil
}

// choose returns the fault that c falls into, or nil, and counts c in each that it matches. s.mu is held.
func (s *Server) choose(c *Call) *Fault {
	var chosen *Fault
	for _, t := range s.traps {
		if !c.matches(t.Method, t.Path) || t.User != "" && !strings.EqualFold(t.User, c.User) {
			continue
		}
		t.seen++
		if chosen == nil && t.due() {
			chosen = &t.Fault
		}
	}
	return chosen
}

// due says that the call counted last is one to act on.
func (t *trap) due() bool {
	first, times := max(t.Nth, 1), t.Times
	if times == 0 && t.Nth > 0 {
		times = 1
	}
	return t.seen >= first && (times <= 0 || t.seen < first+times)
}

// WaitLate waits until a [LateEffect] has landed that it did not wait for before, and none is on its way. It returns at
// once after Close, which lets them land; a call that never reached Jira never lands.
func (s *Server) WaitLate() {
	_ = s.await(context.Background(), func() bool { return s.landed > 0 && s.late == 0 }) // closed: all have landed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.landed = 0
}
