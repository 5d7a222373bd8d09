package jira

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Gate bounds how many calls are under way at one site at a time, and holds
// calls back while the site asks for it. Where calls are short of room, those
// that end a credential go before those that make one.
//
// After the site was in trouble the Gate opens slowly: one call at a time,
// then twice as many with each that succeeds. While nothing succeeds it lets one
// call try every few seconds, and turns the others away, those included that wait.
//
// A Gate is safe for concurrent use. Make one with [NewGate].
type Gate struct {
	of        string // whose calls it holds back, for its errors: empty of a site
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
	limited   limited // who was limited last
	opening   *time.Timer
	urgent    []chan *Error // waiting to end a credential, in order
	others    []chan *Error // waiting for anything else, in order
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

// Down tells whether the site did not answer the last calls: one call at a time tries it,
// and the others are turned away.
func (g *Gate) Down() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures >= mostFailures
}

// enter waits for a place. It fails at once, with a Busy error that says when
// to come back, if the gate will not open before ctx's deadline, if the site is
// down and this is not the call that tries it, or if it is not urgent and its turn is
// not likely to come before. Whoever got in must leave.
func (g *Gate) enter(ctx context.Context, urgent bool) *Error {
	g.mu.Lock()
	if deadline, ok := ctx.Deadline(); ok {
		if err := g.late(deadline, urgent); err != nil {
			g.mu.Unlock()
			return err
		}
	}
	place := make(chan *Error, 1)
	if urgent {
		g.urgent = append(g.urgent, place)
	} else {
		g.others = append(g.others, place)
	}
	g.admit()
	g.mu.Unlock()

	select {
	case turnedAway := <-place:
		if turnedAway != nil {
			return turnedAway
		}
	case <-ctx.Done():
	}
	err := context.Cause(ctx)
	if err == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !without(&g.urgent, place) && !without(&g.others, place) {
		if turnedAway := <-place; turnedAway != nil { // at the same moment
			return turnedAway
		}
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
	switch {
	case g.failures >= mostFailures && (time.Now().Before(until) || g.underWay > 0):
		return g.down()
	case until.After(deadline):
		return &Error{
			Kind: Busy, Unsent: true, Until: until,
			Words: fmt.Sprintf("Jira asked for a pause in calls%s until %s", g.of, until.UTC().Format(time.RFC3339)),
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

// down is why no call is made to a site that does not answer. The caller holds g.mu.
func (g *Gate) down() *Error {
	return &Error{
		Kind: Busy, Unsent: true, Until: g.shutUntil,
		Words: fmt.Sprintf("Jira has not answered the last %d calls: come back after %s", g.failures, g.shutUntil.UTC().Format(time.RFC3339)),
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
		if g.failures >= mostFailures {
			for _, place := range slices.Concat(g.urgent, g.others) {
				place <- g.down()
			}
			g.urgent, g.others = nil, nil
		}
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

// limited is a login whose user Jira limits.
type limited struct {
	login     *login
	at, until time.Time
}

// severalWithin is how soon after one user another has to be limited until it counts as
// the site's affair.
const severalWithin = 5 * time.Second

// judged is err, how a call with l has ended, as it concerns the site. That Jira limits
// l's user does not, unless it limits another user since a moment ago: then the site is
// left alone until the first of them may come back, but no longer than it would be if it
// said that it does not work. The guess is ours, after all.
func (g *Gate) judged(l *login, err *Error) *Error {
	if err == nil || err.Kind != Busy || !err.OfLogin {
		return err
	}
	if l.anonymous() { // who is nobody's account
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now, last := time.Now(), g.limited
	g.limited = limited{l, now, err.Until}
	if last.login == nil || last.login.sameUser(l) || now.Sub(last.at) > severalWithin || now.After(last.until) {
		return nil
	}
	all := *err
	all.OfLogin = false
	for _, until := range []time.Time{last.until, now.Add(longestHint)} {
		if until.Before(all.Until) {
			all.Until = until
		}
	}
	return &all
}

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
func without(queue *[]chan *Error, place chan *Error) bool {
	for i, c := range *queue {
		if c == place {
			*queue = append((*queue)[:i], (*queue)[i+1:]...)
			return true
		}
	}
	return false
}
