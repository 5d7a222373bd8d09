package ledger_test

import (
	"cmp"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/ledger"
)

// TestDueToTheMillisecond: a lease that is over by half a minute, what is owed, and
// an intent whose mint has ended.
func TestDueToTheMillisecond(t *testing.T) {
	ctx := t.Context()
	f := newLedger()
	f.now = start.Truncate(time.Millisecond)
	due := func(r *ledger.Record, after time.Duration) {
		t.Helper()
		next, ok := f.Next()["ci"]
		// At once is before all times, for a debt, and at the first, for a doubt.
		if want := f.now.Add(after); ok != (after >= 0) || after > 0 && !next.Equal(want) || after == 0 && next.After(time.UnixMilli(1)) {
			t.Fatalf("the next one is due at %v, %v; want %v", next, ok, want)
		}
		for _, account := range []string{"ci", "nightly"} {
			var now []string
			if account == "ci" && after == 0 {
				now = []string{r.ID}
			}
			if have := f.Due(account, 10); !slices.Equal(have, now) {
				t.Fatalf("due of %s are %v, want %v", account, have, now)
			}
		}
	}
	do := func(woken bool, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if have := f.told(); have != woken {
			t.Fatalf("who sleeps was told: %v, want %v", have, woken)
		}
	}

	lost := record("ci")
	do(false, f.Intend(ctx, lost, ledger.Room{Account: 1}))
	due(lost, -1) // while its mint runs
	if !f.Minting("ci") || f.Minting("nightly") || !f.Minting("") {
		t.Error("nobody knows of the mint")
	}
	do(false, f.Sought(ctx, lost.ID))
	due(lost, -1)
	f.Over(lost.ID)
	do(true, nil)
	due(lost, 0)
	if f.Minting("ci") {
		t.Error("the mint never ends")
	}
	f.Over(lost.ID) // twice is once
	f.Over("unknown")
	do(false, nil)
	for _, step := range []struct{ age, next time.Duration }{
		{0, time.Minute},
		{9 * time.Minute, time.Minute},
		{10 * time.Minute, time.Minute},
		{20 * time.Minute, 2 * time.Minute},
		{10 * time.Hour, time.Hour},
		{24*time.Hour - 3*time.Minute, 3 * time.Minute}, // the last look is when nothing can land any more
		{24 * time.Hour, time.Minute},                   // unless Jira's clock is behind
		{34 * time.Hour, time.Hour},
	} {
		f.now = lost.IntendedAt.Time().Add(step.age)
		do(true, f.Sought(ctx, lost.ID))
		due(lost, step.next)
	}
	do(false, f.Forget(ctx, lost.ID))
	due(lost, -1)

	r := record("ci")
	do(false, f.Intend(ctx, r, ledger.Room{Account: 1}))
	do(true, f.Issue(ctx, r, time.Hour))
	due(r, time.Hour+30*time.Second)
	f.now = r.LeaseEnd.Time().Add(30*time.Second - time.Millisecond)
	due(r, time.Millisecond)
	f.now = f.now.Add(time.Millisecond)
	if now := f.Due("ci", 1); !slices.Equal(now, []string{r.ID}) {
		t.Errorf("at the very moment due are %v", now)
	}
	f.now = r.IssuedAt.Time()
	f.Over(r.ID) // of an intent that became a token
	do(false, nil)
	due(r, time.Hour+30*time.Second)
	f.now = f.now.Add(time.Hour)
	do(true, f.Extend(ctx, r.ID, time.Minute))
	due(r, time.Minute+30*time.Second)
	f.Later(r.ID, time.Minute) // not before then, and it is not
	due(r, time.Minute+30*time.Second)
	f.Later(r.ID, 2*time.Minute)
	f.Later("unknown", time.Minute)
	due(r, 2*time.Minute)
	do(true, f.Refresh(ctx, r.ID))
	due(r, time.Minute+30*time.Second)
	do(true, f.Owe(ctx, r.ID, ""))
	due(r, 0)
	f.Later(r.ID, time.Minute)
	due(r, time.Minute)
}

// TestOverdue: not before the lease is over by half a minute, and not when it
// was renewed.
func TestOverdue(t *testing.T) {
	ctx := t.Context()
	for late, want := range map[time.Duration]bool{0: false, 30*time.Second - time.Millisecond: false, 30 * time.Second: true, time.Hour: true} {
		f := newLedger()
		r := f.in(t, "issued")
		err := f.Overdue(ctx, r.ID, r.LeaseEnd.Time().Add(late))
		if state := (*ledger.StateError)(nil); errors.As(err, &state) == want || !want && state.Have != ledger.Issued {
			t.Errorf("%v after its lease: %v", late, err)
		}
		if owed := f.stored(t, r.ID) == "owed"; owed != want {
			t.Errorf("%v after its lease it is owed: %v", late, owed)
		}
	}
	for _, state := range []string{"intended", "sought", "owed"} {
		f := newLedger()
		r := f.in(t, state)
		refused := (*ledger.StateError)(nil)
		if err := f.Overdue(ctx, r.ID, f.now.Add(1000*time.Hour)); !errors.As(err, &refused) || f.stored(t, r.ID) != state {
			t.Errorf("from %s: %v, it is %s", state, err, f.stored(t, r.ID))
		}
	}
}

// TestFound: a token of a lost mint has to go, unless a lease came to hold it.
func TestFound(t *testing.T) {
	ctx := t.Context()
	for state, want := range map[string]bool{"intended": true, "sought": true, "issued": false} {
		f := newLedger()
		r := f.in(t, state)
		refused := (*ledger.StateError)(nil)
		if err := f.Found(ctx, r.ID, "413"); (err == nil) != want || !want && (!errors.As(err, &refused) || refused.Have != ledger.Issued) {
			t.Errorf("from %s: %v", state, err)
		}
		have, err := f.Read(ctx, r.ID)
		if err != nil || (have.State == ledger.Owed) != want || (have.TokenID == "413") != want {
			t.Errorf("from %s: %+v, %v", state, have, err)
		}
	}

	f := newLedger()
	r := f.in(t, "intended")
	f.now = start.Add(time.Hour)
	for _, id := range []string{"413", "413", "414"} { // Jira made two of one request
		f.storage.FailPut(false)
		if err := f.Found(ctx, r.ID, id); err != nil {
			t.Fatal(err)
		}
		f.storage.FailPut(true)
		if err := f.Found(ctx, r.ID, id); err != nil {
			t.Errorf("it was written again: %v", err)
		}
		f.now = f.now.Add(time.Hour)
	}
	if err := f.Found(ctx, r.ID, "415"); err == nil {
		t.Error("no error though storage fails")
	}
	if have, err := f.Read(ctx, r.ID); err != nil || have.TokenID != "414" || have.OwedAt != ledger.At(start.Add(time.Hour)) {
		t.Errorf("got %+v, %v", have, err)
	}
	f.storage.FailPut(false)
	// Owed by somebody who asked for it, but issued before.
	issued := f.in(t, "issued")
	if err := errors.Join(f.Owe(ctx, issued.ID, ""), f.Found(ctx, issued.ID, "412")); err == nil {
		t.Error("what a lease held was found as lost")
	}
}

// TestMove: what a lease holds has to go with the account, and all is counted
// where it is then.
func TestMove(t *testing.T) {
	ctx := t.Context()
	for from, want := range map[string]string{"intended": "intended", "sought": "sought", "issued": "owed", "owed": "owed"} {
		f := newLedger()
		r := f.in(t, from)
		if err := f.Move(ctx, r.ID, "nightly"); err != nil {
			t.Fatal(err)
		}
		held := 1
		if from == "sought" {
			held = 0
		}
		if f.stored(t, r.ID) != want || f.Held("ci") != 0 || f.Held("nightly") != held || !slices.Equal(f.Accounts(), []string{"nightly"}) || !slices.Equal(f.IDs("nightly"), []string{r.ID}) || f.IDs("ci") != nil {
			t.Errorf("from %s: it is %s, held are %d and %d, of %v", from, f.stored(t, r.ID), f.Held("ci"), f.Held("nightly"), f.Accounts())
		}
		f.countsAreRight(t)
	}
}

// TestUnsettled: what Jira has to be asked of.
func TestUnsettled(t *testing.T) {
	ctx := t.Context()
	f := newLedger()
	lost, sought, owed, running := f.in(t, "intended"), f.in(t, "sought"), f.in(t, "owed"), f.in(t, "intended")
	f.in(t, "issued")
	other := record("nightly")
	if err := f.Intend(ctx, other, ledger.Room{Account: 1}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{lost.ID, sought.ID, other.ID} {
		f.Over(id)
	}
	for _, test := range []struct {
		account string
		sought  bool
		want    []string
	}{
		{"ci", false, []string{lost.ID, owed.ID}},
		{"ci", true, []string{lost.ID, sought.ID, owed.ID}},
		{"nightly", false, []string{other.ID}},
		{"", false, []string{lost.ID, owed.ID, other.ID}},
		{"", true, []string{lost.ID, sought.ID, owed.ID, other.ID}},
		{"nobody", true, nil},
	} {
		have := f.Unsettled(test.account, test.sought)
		slices.Sort(have)
		slices.Sort(test.want)
		if !slices.Equal(have, test.want) {
			t.Errorf("%q, sought too: %v: got %v, want %v", test.account, test.sought, have, test.want)
		}
	}
	f.Over(running.ID)
	if have := f.Unsettled("ci", false); len(have) != 3 {
		t.Errorf("after the mint: %v", have)
	}
}

// TestStateErrors say where the record stands.
func TestStateErrors(t *testing.T) {
	for want, err := range map[string]error{
		`record "a" is owed`:                 &ledger.StateError{ID: "a", Have: ledger.Owed},
		`record "a" is gone from the ledger`: &ledger.StateError{ID: "a"},
		`3 of 8 places are taken`:            &ledger.FullError{Held: 3, Room: 8},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

// TestTimeInARecord: rounded up, so that an end is never early.
func TestTimeInARecord(t *testing.T) {
	second := time.Date(2026, 3, 2, 8, 15, 9, 0, time.UTC)
	for ns, want := range map[time.Duration]time.Duration{0: 0, 1: time.Millisecond, time.Millisecond: time.Millisecond, time.Millisecond + 1: 2 * time.Millisecond} {
		if have := ledger.At(second.Add(ns)).Time(); !have.Equal(second.Add(want)) || have.Location() != time.UTC {
			t.Errorf("%v is %v", ns, have)
		}
	}
	if at := ledger.At(time.Time{}); at != 0 || !at.Time().IsZero() {
		t.Errorf("no time is %v, and that %v", at, at.Time())
	}
	if have := ledger.At(second).String(); have != "2026-03-02T08:15:09Z" {
		t.Errorf("it is told as %s", have)
	}
}

// model is a record as the test below believes it to be.
type model struct {
	*ledger.Record
	minting bool
	due     ledger.Time // -1: never, 0: at once, 1: likewise, but after what is certain
	hold    ledger.Time // not due before
}

func (m *model) held() bool {
	return m.State != ledger.Ended && (m.State != ledger.Intended || m.SoughtAt == 0)
}

// settle is when the record is due after it has changed.
func (m *model) settle(now time.Time) {
	m.minting = m.minting && m.State == ledger.Intended
	defer func() {
		if !m.minting {
			m.due = max(m.due, m.hold)
		}
	}()
	switch {
	case m.minting:
		m.due = -1
	case m.State == ledger.Issued, m.State == ledger.Ended:
		m.due = m.LeaseEnd + 30_000
	case m.State == ledger.Intended && m.SoughtAt != 0:
		if last := m.IntendedAt.Time().Add(24 * time.Hour); now.Before(last) {
			m.due = min(ledger.At(now.Add(max(time.Minute, now.Sub(m.IntendedAt.Time())/10))), ledger.At(last))
		} else {
			m.due = ledger.At(now.Add(max(time.Minute, now.Sub(last)/10)))
		}
	case m.State == ledger.Intended:
		m.due = 1
	default:
		m.due = 0
	}
}

// TestIndexAgainstAModel does what can be done at random, with storage that
// fails now and then, and compares all that the ledger knows with what it
// ought to.
func TestIndexAgainstAModel(t *testing.T) {
	ctx := t.Context()
	random := rand.New(rand.NewPCG(3, 4))
	f := newLedger()
	f.now = start.Truncate(time.Millisecond)
	accounts := []string{"ci", "nightly", "release"}
	known := map[string]*model{}
	for step := range 3000 {
		f.now = f.now.Add(time.Duration(random.IntN(120)) * time.Second)
		before := f.Next()
		f.told()
		ids := slices.Sorted(maps.Keys(known))
		op := random.IntN(15)
		if len(ids) < 5 {
			op = 0
		}
		fails := random.IntN(8) == 0
		f.storage.FailPut(fails)
		var m *model
		if op > 0 {
			m = known[ids[random.IntN(len(ids))]]
		}
		// wrote is called with the outcome of what only writes.
		wrote := func(err error, change func()) {
			state := (*ledger.StateError)(nil)
			switch {
			case err == nil:
				change()
				m.settle(f.now)
			case errors.As(err, &state):
				m.settle(f.now)
			case !fails:
				t.Fatal(err)
			case !m.minting:
				m.due = 0
			}
		}
		owe := func() {
			if m.State != ledger.Owed {
				m.State, m.OwedAt = ledger.Owed, ledger.At(f.now)
			}
		}
		switch op {
		case 0:
			m = &model{Record: record(accounts[random.IntN(3)]), due: -1}
			m.Role = []string{"readonly", "writer"}[random.IntN(2)]
			err := f.Intend(ctx, m.Record, ledger.Room{Account: 1000})
			if (err != nil) != fails {
				t.Fatal(err)
			}
			if fails {
				f.storage.FailPut(false)
				_, _ = f.Read(ctx, m.ID) // it did not land
				break
			}
			known[m.ID] = m
			m.minting = true
			copied := *m.Record
			m.Record = &copied
		case 1:
			f.Over(m.ID)
			if m.minting {
				m.minting, m.due = false, 1
			}
		case 2, 3:
			r, ttl := *m.Record, time.Duration(random.IntN(7200))*time.Second
			if err := f.Issue(ctx, &r, ttl); err == nil {
				*m.Record = r
				m.settle(f.now)
			}
		case 4:
			ttl := time.Duration(random.IntN(7200)) * time.Second
			wrote(f.Extend(ctx, m.ID, ttl), func() { m.LeaseEnd = max(m.LeaseEnd, ledger.At(f.now.Add(ttl))) })
		case 5:
			wrote(f.Owe(ctx, m.ID, ""), owe)
		case 6:
			wrote(f.Sought(ctx, m.ID), func() {
				if m.SoughtAt == 0 {
					m.SoughtAt = ledger.At(f.now)
				}
			})
		case 7:
			wrote(f.Overdue(ctx, m.ID, f.now), owe)
		case 8:
			to := accounts[random.IntN(3)]
			wrote(f.Move(ctx, m.ID, to), func() {
				m.Account, m.Recalled = to, false
				if m.State == ledger.Issued {
					owe()
				}
			})
		case 9:
			wait := time.Duration(random.IntN(600)) * time.Second
			f.Later(m.ID, wait)
			if m.due >= 0 {
				m.due = max(m.due, ledger.At(f.now.Add(wait)))
			}
		case 10:
			if err := f.Refresh(ctx, m.ID); err != nil {
				t.Fatal(err)
			}
			m.settle(f.now)
		case 11:
			wait := time.Duration(random.IntN(60)) * time.Second
			m.hold = ledger.At(f.now.Add(wait))
			wrote(f.Take(ctx, m.ID, "", wait), owe)
		case 12:
			wait := time.Duration(random.IntN(60)) * time.Second
			if m.IssuedAt != 0 && m.State != ledger.Ended {
				m.hold = ledger.At(f.now.Add(wait))
			}
			wrote(f.Recall(ctx, m.ID, wait), func() { owe(); m.Recalled = true })
		case 13:
			if m.State != ledger.Owed {
				break
			}
			if r := *m.Record; !m.Recalled || r.Over(f.now) {
				if err := f.Gone(ctx, &r); err != nil {
					t.Fatal(err)
				}
				delete(known, m.ID)
			} else {
				wrote(f.Gone(ctx, &r), func() { m.State = ledger.Ended })
			}
		case 14:
			if random.IntN(2) == 0 {
				if err := f.Forget(ctx, m.ID); err != nil {
					t.Fatal(err)
				}
				delete(known, m.ID)
			}
		}
		f.agrees(t, step, op, accounts, known)
		woken := f.told()
		for account, next := range f.Next() {
			if was, ok := before[account]; (!ok || next.Before(was)) && !woken && !fails {
				t.Fatalf("step %d, op %d: %s is due at %v instead of %v, and nobody was told", step, op, account, next, was)
			}
		}
	}
}

// agrees compares all that f knows with what it ought to.
func (f *fixture) agrees(t *testing.T, step, op int, accounts []string, known map[string]*model) {
	t.Helper()
	next := map[string]time.Time{}
	there := map[string]bool{}
	for _, account := range accounts {
		var ids, due, unsettled, sought, doubts []string
		held, minting := 0, false
		for id, m := range known {
			if m.Account != account {
				continue
			}
			there[account] = true
			ids = append(ids, id)
			minting = minting || m.minting
			if m.held() {
				held++
			}
			if m.State == ledger.Intended && m.SoughtAt == 0 && !m.minting {
				doubts = append(doubts, id)
			}
			if m.State != ledger.Issued && m.State != ledger.Ended && !m.minting {
				sought = append(sought, id)
				if m.held() {
					unsettled = append(unsettled, id)
				}
			}
			if m.due < 0 {
				continue
			}
			if m.due <= ledger.At(f.now) {
				due = append(due, id)
			}
			if first, ok := next[account]; !ok || m.due.Time().Before(first) {
				next[account] = m.due.Time()
			}
		}
		same := func(what string, have, want []string) {
			t.Helper()
			slices.Sort(have)
			slices.Sort(want)
			if !slices.Equal(have, want) {
				t.Fatalf("step %d, op %d: %s of %s: got %v, want %v", step, op, what, account, have, want)
			}
		}
		same("ids", f.IDs(account), ids)
		same("due", f.Due(account, 1000), due)
		same("unsettled", f.Unsettled(account, false), unsettled)
		same("unsettled with sought", f.Unsettled(account, true), sought)
		same("doubts", f.Doubts(account), doubts)
		if f.InDoubt(account) != (len(doubts) > 0) {
			t.Fatalf("step %d, op %d: in doubt: %v, want %v", step, op, f.InDoubt(account), doubts)
		}
		for _, most := range []int{0, 1, 2, 1000} {
			some := f.Due(account, most)
			slices.SortFunc(due, func(a, b string) int { return cmp.Compare(known[a].due, known[b].due) })
			if len(some) != min(most, len(due)) || slices.ContainsFunc(some, func(id string) bool { return !slices.Contains(due, id) }) {
				t.Fatalf("step %d, op %d: %d at most of %v: %v", step, op, most, due, some)
			}
			for i, id := range some { // the first that was due first
				if known[id].due != known[due[i]].due {
					t.Fatalf("step %d, op %d: number %d is due at %v, want %v", step, op, i, known[id].due, known[due[i]].due)
				}
			}
		}
		if f.Held(account) != held || f.Minting(account) != minting {
			t.Fatalf("step %d, op %d: %s holds %d, minting: %v; want %d, %v", step, op, account, f.Held(account), f.Minting(account), held, minting)
		}
	}
	for _, role := range []string{"readonly", "writer"} {
		held := 0
		for _, m := range known {
			if m.Role == role && m.held() {
				held++
			}
		}
		if f.HeldBy(role) != held {
			t.Fatalf("step %d, op %d: role %s holds %d, want %d", step, op, role, f.HeldBy(role), held)
		}
	}
	if have := f.Next(); !maps.EqualFunc(have, next, time.Time.Equal) {
		t.Fatalf("step %d, op %d: next are %v, want %v", step, op, have, next)
	}
	have, want := f.Accounts(), slices.Sorted(maps.Keys(there))
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Fatalf("step %d, op %d: accounts %v, want %v", step, op, have, want)
	}
}
