package jira

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// guest is a call that goes through a gate.
type guest struct {
	in  atomic.Bool
	err *Error
	end chan *Error
}

// come sends a guest to g and returns when he is in, waits, or was refused.
func come(ctx context.Context, g *Gate, urgent bool) *guest {
	v := &guest{end: make(chan *Error)}
	go func() {
		if v.err = g.enter(ctx, urgent); v.err != nil {
			return
		}
		v.in.Store(true)
		g.leave(<-v.end, false, 0)
	}()
	synctest.Wait()
	return v
}

// leave ends the guest's call with err.
func (v *guest) leave(err *Error) {
	v.end <- err
	synctest.Wait()
}

func crowd(ctx context.Context, g *Gate, n int) []*guest {
	guests := make([]*guest, n)
	for i := range guests {
		guests[i] = come(ctx, g, false)
	}
	return guests
}

func inside(guests []*guest) (in []*guest) {
	for _, v := range guests {
		if v.in.Load() {
			in = append(in, v)
		}
	}
	return in
}

func TestGateBoundsCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(3)
		guests := crowd(t.Context(), g, 10)
		want := func(n int) {
			t.Helper()
			synctest.Wait()
			if in := inside(guests); len(in) != n {
				t.Errorf("%d are in, want %d", len(in), n)
			}
		}
		want(3)
		guests[1].leave(nil)
		guests[0].leave(nil)
		want(5)
		g.SetMost(5)
		want(7) // two have left
		g.SetMost(1)
		for i := 2; i < 6; i++ {
			guests[i].leave(nil)
			want(7)
		}
		for i := 6; i < 10; i++ {
			guests[i].leave(nil)
			want(min(i+2, 10)) // one at a time, in the order in which they came
		}
	})
}

func TestGateOfNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, g := range []*Gate{NewGate(0), NewGate(-1), NewGate(7)} {
			g.SetMost(0)
			guests := crowd(t.Context(), g, 2)
			if !guests[0].in.Load() || guests[1].in.Load() {
				t.Errorf("in are %v and %v, want only the first", guests[0].in.Load(), guests[1].in.Load())
			}
			guests[0].leave(nil)
			guests[1].leave(nil)
		}
	})
}

func TestGateLetsUrgentCallsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		first := come(t.Context(), g, false)
		mints := crowd(t.Context(), g, 2)
		revokes := []*guest{come(t.Context(), g, true), come(t.Context(), g, true)}
		first.leave(nil)
		for i, v := range append(revokes, mints...) {
			if !v.in.Load() {
				t.Fatalf("number %d is not in, though it was his turn", i)
			}
			if in := inside(append(revokes, mints...)); len(in) != i+1 {
				t.Fatalf("%d were let in, want %d", len(in), i+1)
			}
			v.leave(nil)
		}
	})
}

func TestGateOpensSlowlyAfterTrouble(t *testing.T) {
	for name, trouble := range map[string]*Error{
		"down":      {Kind: Down, Status: 503},
		"no answer": {Kind: Down},
		"busy":      {Kind: Busy, Status: 429},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(6)
				come(t.Context(), g, false).leave(trouble)
				guests := crowd(t.Context(), g, 20)
				for left, want := range []int{1, 2, 4, 6, 6} {
					if in := inside(guests); len(in)-left != want {
						t.Fatalf("after %d successes %d are under way, want %d", left, len(in)-left, want)
					}
					guests[left].leave(nil)
				}
				guests[5].leave(trouble)
				for _, v := range guests[6:10] {
					v.leave(&Error{Kind: Denied, Status: 403})
				}
				// 10 of 20 have left, and the last four as answers count as
				// successes: 1, 2, 4, 6.
				if in := inside(guests); len(in)-10 != 6 {
					t.Errorf("%d are under way", len(in)-10)
				}
				for _, v := range guests[10:] {
					v.leave(nil)
				}
			})
		})
	}
}

// TestGateOfWhoGaveUp: that a caller had no time says nothing of the site.
func TestGateOfWhoGaveUp(t *testing.T) {
	g := NewGate(4)
	for range 2 {
		if err := g.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	g.leave(&Error{Kind: Down, cause: context.Canceled}, true, 0)
	if g.limit != 4 {
		t.Errorf("the limit fell to %d", g.limit)
	}
	g.leave(&Error{Kind: Down, Status: 503}, true, 0) // an answer says something
	if g.limit != 1 {
		t.Errorf("the limit is %d though Jira answered 503", g.limit)
	}
}

// TestGateOfASiteThatStaysDown is shut from the fourth failure in a row on, for
// longer and longer, and open again after a success.
func TestGateOfASiteThatStaysDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4)
		fails := func(want time.Duration) {
			t.Helper()
			come(t.Context(), g, false).leave(&Error{Kind: Down, Status: 503})
			if have := max(0, time.Until(g.ShutUntil())); have != want {
				t.Errorf("after %d failures it is shut for %v, want %v", g.failures, have, want)
			}
			time.Sleep(want)
			synctest.Wait()
		}
		for _, seconds := range []time.Duration{0, 0, 0, 1, 2, 4, 5, 5} {
			fails(seconds * time.Second)
		}
		g.SetLongestPause(time.Hour)
		for _, seconds := range []time.Duration{32, 64, 128, 256, 512, 1024, 1024} {
			fails(seconds * time.Second)
		}
		come(t.Context(), g, false).leave(nil)
		fails(0)
	})
}

// TestGateGuessesWhoseTurnComes: of those who wait, as many go at a time as the
// gate lets through.
func TestGateGuessesWhoseTurnComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(2)
		guests := crowd(t.Context(), g, 4) // two are in, and two wait
		g.took = 10 * time.Second
		for patience, waits := range map[time.Duration]bool{20*time.Second - 1: false, 20 * time.Second: true} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			v := come(ctx, g, false)
			if waits != (v.err == nil) || !waits && !v.err.Until.Equal(time.Now().Add(20*time.Second)) {
				t.Errorf("with %v to wait: %v", patience, v.err)
			}
			cancel()
			synctest.Wait()
		}
		for _, v := range guests {
			v.leave(nil)
		}
	})
}

// TestGateSetWhileItOpens: more room later is none at once, and less counts.
func TestGateSetWhileItOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(6)
		come(t.Context(), g, false).leave(&Error{Kind: Down, Status: 503})
		g.SetMost(20)
		guests := crowd(t.Context(), g, 12)
		left := 0
		succeed := func(want int) {
			t.Helper()
			guests[left].leave(nil)
			left++
			if in := len(inside(guests)) - left; in != want {
				t.Errorf("after %d successes %d are under way, want %d", left, in, want)
			}
		}
		if in := len(inside(guests)); in != 1 {
			t.Errorf("%d are in right after trouble", in)
		}
		succeed(2)
		succeed(4)
		g.SetMost(3)
		for _, want := range []int{3, 3, 3, 3, 3, 3, 3, 2, 1, 0} {
			succeed(want)
		}
	})
}

// TestGateOfWhoGoesFromTheMiddle: those before and behind him stay.
func TestGateOfWhoGoesFromTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		ctx, cancel := context.WithCancel(t.Context())
		queue := []*guest{come(t.Context(), g, false), come(t.Context(), g, false), come(ctx, g, false), come(t.Context(), g, false)}
		cancel()
		synctest.Wait()
		for _, i := range []int{0, 1, 3} {
			if !queue[i].in.Load() {
				t.Fatalf("number %d is not in, though it was his turn", i)
			}
			queue[i].leave(nil)
		}
		if queue[2].in.Load() {
			t.Error("who went was let in")
		}
	})
}

func TestGateShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4)
		if !g.ShutUntil().IsZero() {
			t.Errorf("a new gate is shut until %v", g.ShutUntil())
		}
		until := time.Now().Add(90 * time.Second)
		others := crowd(t.Context(), g, 2)
		others[0].leave(&Error{Kind: Busy, Until: until})
		others[1].leave(&Error{Kind: Busy, Until: until.Add(-time.Minute)}) // the longer pause holds
		if !g.ShutUntil().Equal(until) {
			t.Errorf("it is shut until %v, want %v", g.ShutUntil(), until)
		}
		guests := []*guest{come(t.Context(), g, false), come(t.Context(), g, true), come(t.Context(), g, false)}
		time.Sleep(time.Until(until) - 1)
		synctest.Wait()
		if len(inside(guests)) != 0 {
			t.Error("somebody got in while it was shut")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if in := inside(guests); len(in) != 1 || in[0] != guests[1] {
			t.Errorf("%d got in when it opened, want the urgent one alone", len(in))
		}
		for _, i := range []int{1, 0, 2} {
			guests[i].leave(nil)
		}
	})
}

// TestGateThatOpensTooLate: who has no time to wait hears so at once.
func TestGateThatOpensTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4)
		until := time.Now().Add(90 * time.Second)
		come(t.Context(), g, false).leave(&Error{Kind: Busy, Until: until})
		ctx, cancel := context.WithDeadline(t.Context(), until.Add(-time.Second))
		defer cancel()
		for _, urgent := range []bool{false, true} {
			v := come(ctx, g, urgent)
			if v.in.Load() || v.err == nil {
				t.Fatal("it was let in, or waits")
			}
			if !Is(v.err, Busy) || !v.err.Unsent || !NothingMade(v.err) || !v.err.Until.Equal(until) {
				t.Errorf("got %+v", v.err)
			}
		}
		ctx, cancel = context.WithDeadline(t.Context(), until.Add(time.Second))
		defer cancel()
		patient := come(ctx, g, false)
		time.Sleep(time.Until(until))
		synctest.Wait()
		if !patient.in.Load() {
			t.Error("who had time to wait was not let in")
		}
		patient.leave(nil)
	})
}

// TestGateOfWhoCannotWait: who gives up while he waits leaves his place to
// the next.
func TestGateOfWhoCannotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		first := come(t.Context(), g, false)
		why := errors.New("the reader went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		hasty := []*guest{come(ctx, g, true), come(ctx, g, false)}
		patient := come(t.Context(), g, false)
		cancel(why)
		synctest.Wait()
		for _, v := range hasty {
			if v.in.Load() || !Is(v.err, Busy) || !v.err.Unsent || !errors.Is(v.err, why) {
				t.Errorf("got %v, in is %v", v.err, v.in.Load())
			}
		}
		first.leave(nil)
		if !patient.in.Load() {
			t.Error("the next one was not let in")
		}
		patient.leave(nil)
		for range 50 { // whichever of the two is seen first
			if late := come(ctx, g, false); late.in.Load() {
				t.Fatal("a call that nobody waits for any more was let in")
			}
		}
		if g.underWay != 0 {
			t.Errorf("%d places are lost", g.underWay)
		}
	})
}
