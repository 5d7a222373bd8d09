package ledger_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/ledger"
)

// of is a record of role release that reader asked for.
func of(reader ledger.Reader) *ledger.Record {
	r := record("ci")
	r.Role, r.Reader = "release", reader
	return r
}

// One reader takes no more places of a role than the bound, however many requests come at once;
// others, and other roles, have theirs.
func TestRoomOfAReader(t *testing.T) {
	const places, crowd = 3, 40
	for name, reader := range map[string]ledger.Reader{
		"an entity": {EntityID: "one", DisplayName: "token-a"}, "a display name": {DisplayName: "one"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLedger()
			errs := make([]error, crowd)
			var all sync.WaitGroup
			for i := range crowd {
				all.Go(func() {
					mine := reader
					if mine.RequestID = fmt.Sprint(i); mine.EntityID != "" {
						mine.DisplayName = fmt.Sprint("token-", i) // an entity has many tokens
					}
					errs[i] = f.Intend(t.Context(), of(mine), ledger.Room{Reader: places})
				})
			}
			all.Wait()
			done := 0
			for _, err := range errs {
				full := (*ledger.FullError)(nil)
				switch {
				case err == nil:
					done++
				case !errors.As(err, &full) || *full != ledger.FullError{Held: places, Room: places, OfReader: true}:
					t.Errorf("refused with %v", err)
				}
			}
			if done != places {
				t.Errorf("%d are in, and %d is the most", done, places)
			}
			for _, other := range []ledger.Reader{{EntityID: "two"}, {DisplayName: "two"}, {}, {EntityID: reader.DisplayName}} {
				if err := f.Intend(t.Context(), of(other), ledger.Room{Reader: 1}); err != nil {
					t.Errorf("%+v: %v", other, err)
				}
			}
			elsewhere := of(reader)
			elsewhere.Role = "report"
			if err := f.Intend(t.Context(), elsewhere, ledger.Room{Reader: 1}); err != nil {
				t.Error(err)
			}

			// After a restart it is the same, and what is gone gives its place back.
			again := ledger.New(f.storage, func() time.Time { return f.now })
			if err := again.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := again.HeldFor(of(reader)); n != places {
				t.Errorf("%d are counted after a restart", n)
			}
			if err := again.Intend(t.Context(), of(reader), ledger.Room{Reader: places}); err == nil {
				t.Error("one more after a restart")
			}
			for _, id := range again.IDs("") {
				if err := again.Forget(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if n := again.HeldFor(of(reader)) + again.Readers(); n != 0 {
				t.Errorf("%d are left", n)
			}
		})
	}
}

// A place is given back with all others, and taken again.
func TestAReadersPlaceFollowsTheOthers(t *testing.T) {
	f := newLedger()
	do := transitions(t, f)
	for name, step := range do {
		for _, state := range []string{"intended", "sought", "issued", "owed"} {
			r := f.in(t, state)
			_ = step(r)
			if have, want := f.HeldFor(r), f.HeldBy(r.Role); have != want {
				t.Errorf("%s of %s: the reader has %d, and the role %d", name, state, have, want)
			}
			if err := f.Forget(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := f.Readers(); n != 0 {
		t.Errorf("%d are left", n)
	}
}
