package ledger

import "time"

// Late is what has been due for too long.
type Late struct {
	Count map[State]int // only states in which there is any
	Since time.Time     // the first of it fell due; zero where there is none
}

// Late tells what fell due more than patience ago and is still as it was. That it was
// tried since, and is due again later ([Ledger.Later]), makes it no younger. What the
// engine itself logs in with is left out, for it waits until nothing needs it. It is what
// this process knows; see [Ledger.Whole].
func (l *Ledger) Late(patience time.Duration) Late {
	return l.index.late(At(l.now().Add(-patience)))
}

// Postpone is [Ledger.Later] where there is nothing that could be done before wait has
// passed: until then the record is not overdue either.
func (l *Ledger) Postpone(id string, wait time.Duration) {
	l.index.postpone(id, At(l.now().Add(wait)))
}

// since is since when the record is due that falls due then: what is due at once has a
// time of its own.
func (r *Record) since(due Time) Time {
	switch {
	case r.State == Owed:
		return r.OwedAt
	case r.State == Intended && r.SoughtAt == 0:
		return r.IntendedAt
	default:
		return due
	}
}

// late is what fell due at then, or before.
func (x *index) late(then Time) Late {
	x.mu.Lock()
	defer x.mu.Unlock()
	o, first := Late{Count: map[State]int{}}, never
	for _, s := range x.accounts {
		for _, e := range s.byDue {
			if e.since <= then && !e.minting && !e.own {
				o.Count[states[e.state]]++
				first = min(first, e.since)
			}
		}
	}
	if first != never {
		o.Since = first.Time()
	}
	return o
}

func (x *index) postpone(id string, then Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[id]; e != nil {
		e.since = max(e.since, then)
		if e.due < then {
			e.move(then)
		}
	}
}
