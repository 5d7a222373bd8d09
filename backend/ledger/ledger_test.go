package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// start is when the tests' clock begins, in no zone of storage's.
var start = time.Date(2026, 3, 2, 9, 15, 9, 417_283_000, time.FixedZone("CET", 3600))

// fixture is a ledger whose storage can be made to fail, and whose clock
// stands still until it is moved.
type fixture struct {
	*ledger.Ledger
	storage *logical.InmemStorage
	now     time.Time
}

func newLedger() *fixture {
	f := &fixture{storage: &logical.InmemStorage{}, now: start}
	f.Ledger = ledger.New(f.storage, func() time.Time { return f.now })
	return f
}

// record is one of account's that is in no ledger yet.
func record(account string) *ledger.Record {
	id := ledger.NewID()
	return &ledger.Record{
		ID: id, Name: ledger.Name("k3xm2a", id, "readonly"), Site: "https://jira.example.com/jira",
		Account: account, Username: account + "-bot", Role: "readonly",
		Reader: ledger.Reader{EntityID: "entity", DisplayName: "token-ci", RemoteAddress: "192.0.2.7", RequestID: "request"},
	}
}

// in returns a record of account ci that stands at state; "sought" is an
// intended one that was looked for, and "" one that is gone.
func (f *fixture) in(t *testing.T, state string) *ledger.Record {
	t.Helper()
	r := record("ci")
	steps := []error{f.Intend(t.Context(), r, ledger.Room{Account: 1000})}
	switch state {
	case "":
		steps = append(steps, f.Forget(t.Context(), r.ID))
	case "intended":
	case "sought":
		steps = append(steps, f.Sought(t.Context(), r.ID))
	case "issued":
		r.TokenID = "412"
		steps = append(steps, f.Issue(t.Context(), r, time.Hour))
	case "owed":
		steps = append(steps, f.Owe(t.Context(), r.ID, "412"))
	default:
		t.Fatalf("no state %q", state)
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	return r
}

// stored is where storage says that record id stands, as in above.
func (f *fixture) stored(t *testing.T, id string) string {
	t.Helper()
	r, err := f.Read(t.Context(), id)
	switch {
	case errors.Is(err, ledger.ErrMissing):
		return ""
	case err != nil:
		t.Fatal(err)
	case r.State == ledger.Intended && r.SoughtAt != 0:
		return "sought"
	}
	return string(r.State)
}

// transitions are all that can be done to a record which is there.
func transitions(t *testing.T, f *fixture) map[string]func(*ledger.Record) error {
	t.Helper()
	ctx := t.Context()
	return map[string]func(*ledger.Record) error{
		"Issue":   func(r *ledger.Record) error { return f.Issue(ctx, r, time.Hour) },
		"Extend":  func(r *ledger.Record) error { return f.Extend(ctx, r.ID, 2*time.Hour) },
		"Owe":     func(r *ledger.Record) error { return f.Owe(ctx, r.ID, "413") },
		"Found":   func(r *ledger.Record) error { return f.Found(ctx, r.ID, "413") },
		"Overdue": func(r *ledger.Record) error { return f.Overdue(ctx, r.ID, start.Add(2*time.Hour)) },
		"Early": func(r *ledger.Record) error {
			return f.Overdue(ctx, r.ID, start.Add(time.Hour+ledger.Grace-time.Millisecond))
		},
		"Move":    func(r *ledger.Record) error { return f.Move(ctx, r.ID, "elsewhere") },
		"Adopt":   func(r *ledger.Record) error { c := *r; return f.Adopt(ctx, &c) },
		"Refresh": func(r *ledger.Record) error { return f.Refresh(ctx, r.ID) },
		"Sought":  func(r *ledger.Record) error { return f.Sought(ctx, r.ID) },
		"Forget":  func(r *ledger.Record) error { return f.Forget(ctx, r.ID) },
	}
}

func TestTransitions(t *testing.T) {
	const refused, missing = "refused", "missing"
	from := []string{"intended", "sought", "issued", "owed", ""}
	want := map[string][]string{ // where the record stands afterwards
		"Issue":   {"issued", "issued", refused, refused, refused},
		"Extend":  {refused, refused, "issued", refused, missing},
		"Owe":     {"owed", "owed", "owed", "owed", missing},
		"Found":   {"owed", "owed", refused, "owed", missing},
		"Overdue": {refused, refused, "owed", refused, missing},
		"Early":   {refused, refused, refused, refused, missing},
		"Move":    {"intended", "sought", "owed", "owed", missing},
		"Adopt":   {refused, refused, refused, refused, "owed"},
		"Refresh": {"intended", "sought", "issued", "owed", missing},
		"Sought":  {"sought", "sought", refused, refused, missing},
		"Forget":  {"", "", "", "", ""},
	}
	for name, outcomes := range want {
		for i, after := range outcomes {
			t.Run(name+" from "+from[i], func(t *testing.T) {
				f := newLedger()
				r := f.in(t, from[i])
				err := transitions(t, f)[name](r)
				state := (*ledger.StateError)(nil)
				switch after {
				case refused:
					have := from[i]
					if have == "sought" {
						have = "intended"
					}
					if !errors.As(err, &state) || string(state.Have) != have || state.ID != r.ID {
						t.Errorf("got %v", err)
					}
					after = from[i]
				case missing:
					if !errors.Is(err, ledger.ErrMissing) {
						t.Errorf("got %v, want %v", err, ledger.ErrMissing)
					}
					after = ""
				default:
					if err != nil {
						t.Error(err)
					}
				}
				if have := f.stored(t, r.ID); have != after {
					t.Errorf("it is %q afterwards, want %q", have, after)
				}
				f.countsAreRight(t)
			})
		}
	}
}

// TestFailingStorage: what could not be written has not happened, in memory
// either, and can be done again.
func TestFailingStorage(t *testing.T) {
	from := map[string]string{"Issue": "intended", "Extend": "issued", "Owe": "issued", "Sought": "intended", "Forget": "owed"}
	for name, state := range from {
		t.Run(name, func(t *testing.T) {
			f := newLedger()
			r := f.in(t, state)
			before := *r
			do := transitions(t, f)[name]
			f.storage.FailPut(true).FailDelete(true)
			if err := do(r); err == nil {
				t.Fatal("no error though storage fails")
			}
			f.storage.FailPut(false).FailDelete(false)
			if have := f.stored(t, r.ID); have != state {
				t.Errorf("it is %q, want %q as before", have, state)
			}
			if *r != before {
				t.Errorf("the caller's record was changed to %+v", r)
			}
			f.countsAreRight(t)
			if err := do(r); err != nil {
				t.Errorf("once storage works: %v", err)
			}
		})
	}
	t.Run("reading", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		f.storage.FailGet(true)
		if _, err := f.Read(t.Context(), r.ID); err == nil || errors.Is(err, ledger.ErrMissing) {
			t.Errorf("got %v", err)
		}
		if err := f.Owe(t.Context(), r.ID, ""); err == nil || errors.Is(err, ledger.ErrMissing) {
			t.Errorf("got %v", err)
		}
	})
}

func TestIntendThatCannotBeWritten(t *testing.T) {
	f := newLedger()
	f.storage.FailPut(true)
	r := record("ci")
	err := f.Intend(t.Context(), r, ledger.Room{Account: 1})
	if full := (*ledger.FullError)(nil); err == nil || errors.As(err, &full) {
		t.Fatalf("got %v", err)
	}
	// The write may have landed, so it takes its place until storage was asked.
	if due := f.Due("ci", 10); f.Held("ci") != 1 || !slices.Equal(due, []string{r.ID}) {
		t.Errorf("%d held, due %v", f.Held("ci"), due)
	}
	if _, err := f.Read(t.Context(), r.ID); !errors.Is(err, ledger.ErrMissing) {
		t.Errorf("got %v", err)
	}
	if f.Held("ci") != 0 || len(f.IDs("")) != 0 {
		t.Errorf("it takes a place though it is not there: %d held, ids %v", f.Held("ci"), f.IDs(""))
	}
	f.storage.FailPut(false)
	if err := f.Intend(t.Context(), r, ledger.Room{Account: 1}); err != nil {
		t.Error(err)
	}
}

// TestRoomUnderConcurrency: a hundred readers and eight places, again and
// again.
func TestRoomUnderConcurrency(t *testing.T) {
	for range 200 {
		roomUnderConcurrency(t)
	}
}

func roomUnderConcurrency(t *testing.T) {
	t.Helper()
	f := newLedger()
	const readers, room = 100, 8
	errs := make([]error, readers)
	begin := make(chan struct{})
	var running sync.WaitGroup
	for i := range readers {
		r := record("ci")
		running.Go(func() {
			<-begin
			errs[i] = f.Intend(t.Context(), r, ledger.Room{Account: room})
		})
	}
	close(begin)
	running.Wait()
	taken := 0
	for _, err := range errs {
		full := (*ledger.FullError)(nil)
		switch {
		case err == nil:
			taken++
		case !errors.As(err, &full):
			t.Error(err)
		case *full != ledger.FullError{Held: room, Room: room}:
			t.Errorf("got %+v", full)
		}
	}
	if taken != room || f.Held("ci") != room || len(f.IDs("ci")) != room {
		t.Errorf("%d intents went through, %d are held, ids %v; want %d", taken, f.Held("ci"), f.IDs("ci"), room)
	}
	if err := f.Intend(t.Context(), record("nightly"), ledger.Room{Account: 1}); err != nil {
		t.Errorf("another account's place: %v", err)
	}
	f.countsAreRight(t)
}

// TestRoomOfARole: its places are counted over all accounts, and free again
// when their records are gone.
func TestRoomOfARole(t *testing.T) {
	f := newLedger()
	ctx := t.Context()
	const places = 3
	var first string
	for i := range places {
		r := record([]string{"ci", "nightly"}[i%2])
		if err := f.Intend(ctx, r, ledger.Room{Role: places}); err != nil {
			t.Fatal(err)
		}
		first = r.ID
	}
	full := (*ledger.FullError)(nil)
	if err := f.Intend(ctx, record("release"), ledger.Room{Role: places}); !errors.As(err, &full) || *full != (ledger.FullError{Held: places, Room: places, OfRole: true}) {
		t.Errorf("got %v", err)
	}
	other := record("release")
	other.Role = "writer"
	if err := f.Intend(ctx, other, ledger.Room{Role: 1}); err != nil {
		t.Errorf("another role's place: %v", err)
	}
	if f.HeldBy("readonly") != places || f.HeldBy("writer") != 1 || f.HeldBy("nobody's") != 0 {
		t.Errorf("held by readonly %d, by writer %d", f.HeldBy("readonly"), f.HeldBy("writer"))
	}
	if err := f.Forget(ctx, first); err != nil {
		t.Fatal(err)
	}
	if err := f.Intend(ctx, record("release"), ledger.Room{Role: places}); err != nil {
		t.Error(err)
	}
	f.countsAreRight(t)
}

// TestSoughtFreesThePlace: of a token that is proven not to be there. If it
// comes after all, it takes a place again.
func TestSoughtFreesThePlace(t *testing.T) {
	f := newLedger()
	ctx := t.Context()
	late := f.in(t, "intended")
	full := (*ledger.FullError)(nil)
	if err := f.Intend(ctx, record("ci"), ledger.Room{Account: 1}); !errors.As(err, &full) {
		t.Fatalf("got %v, want a %T", err, full)
	}
	if err := f.Sought(ctx, late.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.Intend(ctx, record("ci"), ledger.Room{Account: 1}); err != nil {
		t.Fatal(err)
	}
	if len(f.IDs("ci")) != 2 {
		t.Errorf("ids %v, want both", f.IDs("ci"))
	}
	if err := f.Owe(ctx, late.ID, "412"); err != nil {
		t.Fatal(err)
	}
	if f.Held("ci") != 2 {
		t.Errorf("%d held, want 2", f.Held("ci"))
	}
	f.countsAreRight(t)
}

func TestTimesOfALife(t *testing.T) {
	f := newLedger()
	ctx := t.Context()
	at := func(minutes int) ledger.Time { return ledger.At(start.Add(time.Duration(minutes) * time.Minute)) }
	check := func(id string, want ledger.Record) {
		t.Helper()
		have, err := f.Read(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if *have != want {
			t.Errorf("got  %+v\nwant %+v", *have, want)
		}
	}
	do := func(minute int, err func() error) {
		t.Helper()
		f.now = start.Add(time.Duration(minute) * time.Minute)
		if err := err(); err != nil {
			t.Fatal(err)
		}
	}

	r := record("ci")
	want := *r
	do(0, func() error { return f.Intend(ctx, r, ledger.Room{Account: 1}) })
	want.State, want.IntendedAt = ledger.Intended, at(0)
	check(r.ID, want)

	for _, minute := range []int{1, 2} {
		do(minute, func() error { return f.Sought(ctx, r.ID) })
		want.SoughtAt = at(1)
		check(r.ID, want)
	}

	r.TokenID, r.Expires = "412", at(24*60)
	do(3, func() error { return f.Issue(ctx, r, 10*time.Minute) })
	want.State, want.TokenID, want.Expires = ledger.Issued, "412", at(24*60)
	want.IssuedAt, want.LeaseEnd, want.SoughtAt = at(3), at(13), 0
	check(r.ID, want)
	if *r != want {
		t.Errorf("the caller has %+v", *r)
	}

	do(4, func() error { return f.Extend(ctx, r.ID, 10*time.Minute) })
	want.LeaseEnd = at(14)
	check(r.ID, want)
	do(5, func() error { return f.Extend(ctx, r.ID, time.Minute) })
	check(r.ID, want) // an end never comes earlier

	do(6, func() error { return f.Owe(ctx, r.ID, "") })
	want.State, want.OwedAt = ledger.Owed, at(6)
	check(r.ID, want)
	do(7, func() error { return f.Owe(ctx, r.ID, "413") })
	want.TokenID = "413"
	check(r.ID, want)
}

func TestAdopt(t *testing.T) {
	f := newLedger()
	r := record("ci")
	r.TokenID = "412"
	f.storage.FailPut(true)
	if err := f.Adopt(t.Context(), r); err == nil {
		t.Error("no error though storage fails")
	}
	f.countsAreRight(t)
	f.storage.FailPut(false)
	if err := f.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	have, err := f.Read(t.Context(), r.ID)
	if err != nil || have.State != ledger.Owed || have.OwedAt != ledger.At(start) || have.TokenID != "412" {
		t.Errorf("got %+v, %v", have, err)
	}
	if f.Held("ci") != 1 {
		t.Errorf("%d held, want 1", f.Held("ci"))
	}
}

// forgetful is storage that removes, and then says that it could not.
type forgetful struct{ logical.Storage }

func (s forgetful) Delete(ctx context.Context, key string) error {
	return errors.Join(s.Storage.Delete(ctx, key), errors.New("the answer was lost"))
}

// TestForgetWhoseAnswerWasLost: a record that storage no longer has does not
// stay in memory for ever.
func TestForgetWhoseAnswerWasLost(t *testing.T) {
	ctx := t.Context()
	for name, ask := range map[string]func(*ledger.Ledger, string) error{
		"Read": func(l *ledger.Ledger, id string) error { _, err := l.Read(ctx, id); return err },
		"Owe":  func(l *ledger.Ledger, id string) error { return l.Owe(ctx, id, "") },
	} {
		t.Run(name, func(t *testing.T) {
			l := ledger.New(forgetful{&logical.InmemStorage{}}, time.Now)
			r := record("ci")
			if err := l.Intend(ctx, r, ledger.Room{Account: 1}); err != nil {
				t.Fatal(err)
			}
			if err := l.Forget(ctx, r.ID); err == nil {
				t.Fatal("no error")
			}
			if err := ask(l, r.ID); !errors.Is(err, ledger.ErrMissing) {
				t.Errorf("got %v", err)
			}
			if l.Held("ci") != 0 || len(l.IDs("")) != 0 {
				t.Errorf("%d held, ids %v", l.Held("ci"), l.IDs(""))
			}
		})
	}
}

// TestCountsFollowStorage does a thousand things at random, with storage that
// fails now and then.
func TestCountsFollowStorage(t *testing.T) {
	f := newLedger()
	random := rand.New(rand.NewPCG(1, 2))
	var records []*ledger.Record
	do := transitions(t, f)
	names := slices.Sorted(maps.Keys(do))
	for i := range 1000 {
		f.storage.FailPut(random.IntN(10) == 0).FailDelete(random.IntN(10) == 0)
		if i < 5 || random.IntN(3) == 0 {
			r := record(fmt.Sprintf("account-%d", random.IntN(3)))
			records = append(records, r)
			_ = f.Intend(t.Context(), r, ledger.Room{Account: 5}) // full, failed or done: the counts have to tell
			continue
		}
		_ = do[names[random.IntN(len(names))]](records[random.IntN(len(records))])
	}
	f.storage.FailPut(false).FailDelete(false)
	f.countsAreRight(t)
	for _, r := range records {
		if err := f.Forget(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.IDs("")) != 0 || len(f.Accounts()) != 0 || f.Held("account-0")+f.Held("account-1")+f.Held("account-2")+f.Held("elsewhere") != 0 {
		t.Errorf("something is left: %v", f.IDs(""))
	}
}

// countsAreRight compares what f knows with what storage holds.
func (f *fixture) countsAreRight(t *testing.T) {
	t.Helper()
	fresh := ledger.New(f.storage, time.Now)
	if err := fresh.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range f.IDs("") { // an intent whose write failed is there until somebody looks
		if _, err := f.Read(t.Context(), id); err != nil && !errors.Is(err, ledger.ErrMissing) {
			t.Fatal(err)
		}
	}
	have, want := f.IDs(""), fresh.IDs("")
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("ids %v, but storage holds %v", have, want)
	}
	for _, account := range []string{"ci", "nightly", "account-0", "account-1", "account-2", "elsewhere"} {
		if have, want := f.Held(account), fresh.Held(account); have != want {
			t.Errorf("account %q holds %d, but storage says %d", account, have, want)
		}
	}
}
