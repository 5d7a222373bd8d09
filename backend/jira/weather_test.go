package jira

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// occupied is a gate that lets one call through at a time, whose calls take a
// second each, and in which one is under way.
func occupied(t *testing.T) *Gate {
	t.Helper()
	g := NewGate(1)
	for range 30 { // until it has learned
		if err := g.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		g.leave(nil, false, time.Second)
	}
	if err := g.enter(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	return g
}

// Who cannot come in before his deadline is told at once, and when to come
// back; who ends a credential waits all the same.
func TestGateTurnsAwayWhoWouldWaitTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := occupied(t)
		began := time.Now()
		for waiting := range 5 {
			go func() {
				if err := g.enter(t.Context(), waiting%2 == 0); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		for within, want := range map[time.Duration]bool{5 * time.Second: false, 7 * time.Second: true} {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			g.mu.Lock()
			err := g.late(time.Now().Add(within), false)
			g.mu.Unlock()
			if (err == nil) != want {
				t.Errorf("within %v: %v", within, err)
			}
			if !want {
				err := g.enter(ctx, false)
				if err == nil || err.Kind != Busy || !err.Unsent || err.Until.Sub(began).Round(time.Second) != 6*time.Second {
					t.Errorf("%+v", err)
				}
				g.mu.Lock()
				if err := g.late(time.Now().Add(within), true); err != nil {
					t.Errorf("urgent: %v", err)
				}
				g.mu.Unlock()
			}
			cancel()
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it took %v to be told", waited)
		}
		for range 6 { // those that wait, too
			g.leave(nil, false, time.Second)
			synctest.Wait()
		}
		if g.underWay != 0 || len(g.urgent)+len(g.others) != 0 {
			t.Errorf("%d under way, %d and %d wait", g.underWay, len(g.urgent), len(g.others))
		}
	})
}

// A free place is a free place, however long calls take.
func TestGateWithRoomTurnsNobodyAway(t *testing.T) {
	g := occupied(t)
	g.leave(nil, false, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := g.enter(ctx, false); err != nil {
		t.Error(err)
	}
}

// A mint that could not end before its deadline is not begun: it would leave a
// doubt. Its place is free again, and the gate has learned nothing.
func TestAMintThatComesTooLateIsNotBegun(t *testing.T) {
	s := &Site{gate: NewGate(4), timeout: 10 * time.Second, pause: defaultPause}
	s.gate.limit = 1
	c := s.As(Login{Username: "ci-bot", Token: "secret"})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	_, err := c.try(ctx, call{method: "POST", path: tokensPath, once: true}) // a call would panic: there is no transport
	if err == nil || err.Kind != Busy || !err.Unsent || !NothingMade(err) {
		t.Errorf("%+v", err)
	}
	if s.gate.underWay != 0 || s.gate.limit != 1 {
		t.Errorf("%d under way, limit %d", s.gate.underWay, s.gate.limit)
	}
}

// Who waits when the site turns out to be down is told so then.
func TestGateTurnsAwayWhoWaitsForASiteThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(mostFailures)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		tries := crowd(ctx, g, mostFailures)
		waiting := []*guest{come(ctx, g, true), come(ctx, g, false)}
		for _, v := range tries {
			if waiting[0].err != nil || waiting[1].err != nil {
				t.Fatal("turned away early")
			}
			v.leave(&Error{Kind: Down, Status: 503})
		}
		for _, v := range waiting {
			if v.in.Load() || v.err == nil || v.err.Kind != Busy || !v.err.Unsent || v.err.OfLogin {
				t.Errorf("in: %v, %+v", v.in.Load(), v.err)
			}
		}
		if g.underWay != 0 || len(g.urgent)+len(g.others) != 0 {
			t.Errorf("%d under way, %d wait", g.underWay, len(g.urgent)+len(g.others))
		}
	})
}

// A site that is down is tried by one call every few seconds. The others are told
// at once, so that an hour's readers do not leave a doubt each.
func TestGateOfASiteThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4)
		down := &Error{Kind: Down, Status: 503}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
		defer cancel()
		try := func() bool {
			err := g.enter(ctx, false)
			if err != nil && (err.Kind != Busy || !err.Unsent || time.Until(err.Until) > LongestPause) {
				t.Errorf("%+v", err)
			}
			return err == nil
		}
		tried := 0
		for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
			if !try() {
				continue
			}
			if tried++; tried > mostFailures && try() {
				t.Fatal("two at a time try a site that is down")
			}
			g.leave(down, false, time.Millisecond)
		}
		if tried < 100 || tried > 150 {
			t.Errorf("tried %d times in ten minutes", tried)
		}
		// Who ends a credential is told at once, too, unless it is the one that tries.
		began := time.Now()
		if err := g.enter(ctx, true); err == nil || err.Kind != Busy || !err.Unsent || !time.Now().Equal(began) {
			t.Errorf("%+v after %v", err, time.Since(began))
		}
		time.Sleep(LongestPause)
		began = time.Now()
		if err := g.enter(ctx, true); err != nil || !time.Now().Equal(began) {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := g.enter(ctx, true); err == nil || !time.Now().Equal(began) {
			t.Errorf("two at a time: %v after %v", err, time.Since(began))
		}
		g.leave(nil, false, time.Millisecond)
		for range 2 {
			if !try() {
				t.Error("turned away though it works again")
			}
		}
	})
}
