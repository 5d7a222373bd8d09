package ledger_test

import (
	"maps"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/ledger"
)

// lateIs asserts what is late, and since when.
func (f *fixture) lateIs(t *testing.T, since time.Time, want map[ledger.State]int) {
	t.Helper()
	got := f.Late(2 * time.Minute)
	if !maps.Equal(got.Count, want) || got.Since.Sub(since).Abs() > time.Millisecond {
		t.Errorf("late %v since %v, want %v since %v", got.Count, got.Since, want, since)
	}
}

// What fell due stays late, however often it is tried, and also after a restart.
func TestLate(t *testing.T) {
	const margin = 2*time.Minute + time.Second
	none := map[ledger.State]int{}
	for state, due := range map[string]time.Duration{"intended": 0, "issued": time.Hour + ledger.Grace, "owed": 0} {
		t.Run(state, func(t *testing.T) {
			f := newLedger()
			r := f.in(t, state)
			want := map[ledger.State]int{ledger.State(state): 1}
			f.now = start.Add(due + margin)
			if state == "intended" {
				f.lateIs(t, time.Time{}, none) // its mint runs
				f.Over(r.ID)
			}
			f.lateIs(t, start.Add(due), want)
			f.now = start.Add(due + time.Minute)
			f.lateIs(t, time.Time{}, none)
			f.Later(r.ID, time.Hour) // it was tried, in vain
			f.now = start.Add(due + margin)
			f.lateIs(t, start.Add(due), want)
			f.Reconsider()
			f.lateIs(t, start.Add(due), want)
			again := ledger.New(f.storage, func() time.Time { return f.now })
			if err := again.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := again.Late(2 * time.Minute); !maps.Equal(got.Count, want) {
				t.Errorf("after a restart: %v", got)
			}
			f.Postpone(r.ID, time.Hour) // there is nothing that could be done
			f.lateIs(t, time.Time{}, none)
			f.Postpone("nobody's", time.Hour)
			f.now = f.now.Add(time.Hour + margin)
			f.lateIs(t, start.Add(due+margin+time.Hour), want)
		})
	}
	t.Run("sought", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "intended")
		f.Over(r.ID)
		f.now = start.Add(time.Hour)
		if err := f.Sought(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		f.lateIs(t, time.Time{}, none)
		f.now = f.now.Add(6*time.Minute + margin) // a tenth of an hour, and it was not looked for again
		f.lateIs(t, start.Add(time.Hour+6*time.Minute), map[ledger.State]int{ledger.Intended: 1})
	})
	t.Run("kept", func(t *testing.T) {
		f := newLedger()
		for _, kept := range []ledger.Keeping{ledger.KeptOwn, ledger.KeptStatic} {
			r := &ledger.Record{ID: ledger.NewID(), Account: "ci", Kept: kept}
			if err := f.Intend(t.Context(), r, ledger.Room{}); err != nil {
				t.Fatal(err)
			}
			if err := f.Issue(t.Context(), r, 0); err != nil {
				t.Fatal(err)
			}
			f.Over(r.ID)
			f.now = start.Add(1000 * time.Hour)
			f.lateIs(t, time.Time{}, none)
			if err := f.Owe(t.Context(), r.ID, ""); err != nil {
				t.Fatal(err)
			}
			f.now = f.now.Add(margin)
			if kept == ledger.KeptOwn { // which waits for all else
				f.lateIs(t, time.Time{}, none)
			}
			f.now = start
		}
	})
}
