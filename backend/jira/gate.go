package jira

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Gate bounds how many calls are under way at one site at a time, and holds
// calls back while the site asks for it. Where calls are short of room, those
// that end a credential go before those that make one.
//
// After the site was in trouble the Gate opens slowly: one call at a time,
// then twice as many with each that succeeds. While nothing succeeds it lets one
// call try every few seconds, and turns the others away.
//
// A Gate is safe for concurrent use. Make one with [NewGate].
type Gate struct {
	mu        sync.Mutex
	most      int // how many calls may be under way on a good day
	limit     int // how many may be now: 1 to most
	underWay  int
	failures  int           // in a row, of calls that found the site down
	longest   time.Duration // how long it is left alone then at most, at a time
	took      time.Duration // what a call takes of late: for a guess, not a measure
	shutUntil time.Time
	rateLimit int // what the site last said of it; see RateLimit
	rateLeft  int
	rateAt    time.Time
	opening   *time.Timer
	urgent    []chan struct{} // waiting to end a credential, in order
	others    []chan struct{} // waiting for anything else, in order
}

// NewGate returns an open gate that lets at most most calls through at a
// time; below 1 counts as 1.
func NewGate(most int) *Gate {
	most = max(most, 1)
	return &Gate{most: most, limit: most, longest: LongestPause}
}

// SetMost changes how many calls may be under way at a time. Calls that are
// already under way go on.
func (g *Gate) SetMost(most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	grown := g.limit == g.most
	g.most = max(most, 1)
	if grown {
		g.limit = g.most
	}
	g.limit = min(g.limit, g.most)
	g.admit()
}

// SetLongestPause changes how long the site is left alone at most, at a time,
// while it is down.
func (g *Gate) SetLongestPause(longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.longest = longest
}

// ShutUntil is when the gate opens again. It is in the past, or zero, when
// the gate is open.
func (g *Gate) ShutUntil() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shutUntil
}

// enter waits for a place. It fails at once, with a Busy error that says when
// to come back, if the gate will not open before ctx's deadline, or if it is
// not urgent and its turn is not likely to come before. Whoever got in must
// leave.
func (g *Gate) enter(ctx context.Context, urgent bool) *Error {
	g.mu.Lock()
	if deadline, ok := ctx.Deadline(); ok {
		if err := g.late(deadline, urgent); err != nil {
			g.mu.Unlock()
			return err
		}
	}
	place := make(chan struct{})
	if urgent {
		g.urgent = append(g.urgent, place)
	} else {
		g.others = append(g.others, place)
	}
	g.admit()
	g.mu.Unlock()

	select {
	case <-place:
	case <-ctx.Done():
	}
	err := context.Cause(ctx)
	if err == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !without(&g.urgent, place) && !without(&g.others, place) {
		g.underWay-- // let in at the same moment
		g.admit()
	}
	return &Error{
		Kind: Busy, Unsent: true, cause: err,
		Words: fmt.Sprintf("no call to Jira could be made in time, %d are under way: %v", g.underWay, err),
	}
}

// late is why a call cannot be made before deadline, or nil. The caller holds
// g.mu.
func (g *Gate) late(deadline time.Time, urgent bool) *Error {
	until := g.shutUntil
	down := g.failures >= mostFailures
	switch {
	case down && (until.After(deadline) || !urgent && (time.Now().Before(until) || g.underWay > 0)):
		return &Error{
			Kind: Busy, Unsent: true, Until: until,
			Words: fmt.Sprintf("Jira has not answered the last %d calls: come back after %s", g.failures, until.UTC().Format(time.RFC3339)),
		}
	case until.After(deadline):
		return &Error{
			Kind: Busy, Unsent: true, Until: until,
			Words: "Jira asked for a pause in calls until " + until.UTC().Format(time.RFC3339),
		}
	}
	if urgent || g.underWay < g.limit {
		return nil
	}
	before := len(g.urgent) + len(g.others)
	turn := time.Now().Add(g.took * time.Duration(before/g.limit+1))
	if !turn.After(deadline) {
		return nil
	}
	return &Error{
		Kind: Busy, Unsent: true, Until: turn,
		Words: fmt.Sprintf("%d calls to Jira are under way or wait, and it lets %d through at a time: come back after %s", before+g.underWay, g.limit, turn.UTC().Format(time.RFC3339)),
	}
}

// pass gives a place back without having made a call.
func (g *Gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underWay--
	g.admit()
}

// leave gives a place back and takes note of how the call ended, and how long
// it took: err is nil when it succeeded. A failure after the caller gaveUp says
// nothing of the site.
func (g *Gate) leave(err *Error, gaveUp bool, took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underWay--
	g.took += (took - g.took) / 4
	if err == nil || err.Kind != Down {
		g.failures = 0
	}
	switch {
	case err != nil && err.Kind == Down && gaveUp && err.Status == 0:
	case err != nil && (err.Kind == Down || err.Kind == Busy):
		g.limit = 1
		until := err.Until
		if err.Kind == Down {
			if g.failures++; g.failures >= mostFailures {
				pause := min(time.Second<<min(g.failures-mostFailures, 10), g.longest)
				until = later(until, time.Now().Add(pause))
			}
		}
		g.shutUntil = later(g.shutUntil, until)
	default:
		g.limit = min(2*g.limit, g.most)
	}
	g.admit()
}

const (
	// mostFailures is how many calls in a row have to find the site down until
	// it counts as such.
	mostFailures = 4
	// LongestPause is how long a Gate leaves a site alone that is down, at most,
	// unless [Gate.SetLongestPause] says otherwise.
	LongestPause = 5 * time.Second
)

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// admit lets in whom the limit allows, those in a hurry first. While the gate
// is shut it sets the clock for its opening instead. The caller holds g.mu.
func (g *Gate) admit() {
	if wait := time.Until(g.shutUntil); wait > 0 {
		if g.opening != nil {
			g.opening.Stop()
		}
		g.opening = time.AfterFunc(wait, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.admit()
		})
		return
	}
	for g.underWay < g.limit {
		queue := &g.urgent
		if len(*queue) == 0 {
			queue = &g.others
		}
		if len(*queue) == 0 {
			return
		}
		close((*queue)[0])
		*queue = (*queue)[1:]
		g.underWay++
	}
}

// without takes place out of queue and tells whether it was there.
func without(queue *[]chan struct{}, place chan struct{}) bool {
	for i, c := range *queue {
		if c == place {
			*queue = append((*queue)[:i], (*queue)[i+1:]...)
			return true
		}
	}
	return false
}
