package ledger_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// told tells whether somebody who sleeps would have been woken.
func (f *fixture) told() bool {
	select {
	case <-f.Sooner():
		return true
	default:
		return false
	}
}

// dueAt asserts that the one record there is falls due at, and not before.
func (f *fixture) dueAt(t *testing.T, at time.Time) {
	t.Helper()
	now := f.now
	defer func() { f.now = now }()
	next := f.Next()
	if len(next) != 1 || next["ci"].Sub(at).Abs() > time.Millisecond {
		t.Errorf("next %v, want %v", next, at)
	}
	f.now = at.Add(-2 * time.Millisecond)
	if ids := f.Due("ci", 10); len(ids) != 0 && f.now.After(now) {
		t.Errorf("due before %v: %v", at, ids)
	}
	f.now = at.Add(2 * time.Millisecond)
	if ids := f.Due("ci", 10); len(ids) != 1 {
		t.Errorf("due at %v: %v", at, ids)
	}
}

func TestWhenRecordsAreDue(t *testing.T) {
	t.Run("intended", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "intended")
		f.now = start.Add(48 * time.Hour)
		if next := f.Next(); len(next) != 0 {
			t.Errorf("a mint that runs is due %v", next)
		}
		if ids := f.Due("ci", 10); len(ids) != 0 {
			t.Errorf("a mint that runs is due: %v", ids)
		}
		f.told()
		f.Over(r.ID)
		if !f.told() {
			t.Error("nobody was told")
		}
		if ids := f.Due("ci", 10); !slices.Equal(ids, []string{r.ID}) {
			t.Errorf("due: %v", ids)
		}
		f.Over(r.ID) // twice is nothing new
		if f.told() {
			t.Error("told again")
		}
		f.Over("nobody's")
	})
	t.Run("issued", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		f.Over(r.ID) // as after every mint
		f.dueAt(t, start.Add(time.Hour+ledger.Grace))
		if err := f.Extend(t.Context(), r.ID, 3*time.Hour); err != nil {
			t.Fatal(err)
		}
		f.dueAt(t, start.Add(3*time.Hour+ledger.Grace))
	})
	t.Run("owed", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		f.told()
		if err := f.Owe(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
		if ids := f.Due("ci", 10); !f.told() || !slices.Equal(ids, []string{r.ID}) {
			t.Errorf("due: %v", ids)
		}
		f.Later(r.ID, time.Minute)
		f.dueAt(t, start.Add(time.Minute))
		f.Later(r.ID, time.Second) // an earlier time is no later one
		f.dueAt(t, start.Add(time.Minute))
		f.Later("nobody's", time.Minute)
	})
	t.Run("debts before doubts", func(t *testing.T) {
		f := newLedger()
		for range 100 {
			f.Over(f.in(t, "intended").ID)
		}
		debt := f.in(t, "owed")
		if ids := f.Due("ci", 1); !slices.Equal(ids, []string{debt.ID}) {
			t.Errorf("due first: %v", ids)
		}
	})
	t.Run("taken", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		f.told()
		if err := f.Take(t.Context(), r.ID, "412", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		f.dueAt(t, start.Add(20*time.Second))
		if err := f.Load(t.Context()); err != nil { // which reads it meanwhile
			t.Fatal(err)
		}
		f.dueAt(t, start.Add(20*time.Second))
	})
	t.Run("taken before it is loaded", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		fresh := &fixture{storage: f.storage, now: start}
		fresh.Ledger = ledger.New(f.storage, func() time.Time { return fresh.now })
		if err := fresh.Take(t.Context(), r.ID, "412", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		fresh.dueAt(t, start.Add(20*time.Second))
		if err := fresh.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		fresh.dueAt(t, start.Add(20*time.Second))
	})
	t.Run("taken and moved", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		if err := f.Take(t.Context(), r.ID, "412", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := f.Move(t.Context(), r.ID, "another"); err != nil {
			t.Fatal(err)
		}
		if ids := f.Due("another", 1); len(ids) != 0 {
			t.Errorf("due at once: %v", ids)
		}
	})
	t.Run("reconsidered", func(t *testing.T) {
		f := newLedger()
		issued, minting := f.in(t, "issued"), f.in(t, "intended")
		f.Reconsider()
		if ids := f.Due("ci", 10); !slices.Equal(ids, []string{issued.ID}) {
			t.Errorf("due: %v, and %s is minting", ids, minting.ID)
		}
	})
	t.Run("adopted by a write that failed", func(t *testing.T) {
		f := newLedger()
		r := record("ci")
		f.storage.FailPut(true)
		if err := f.Adopt(t.Context(), r); err == nil {
			t.Fatal("no error")
		}
		if ids := f.Due("ci", 10); !slices.Equal(ids, []string{r.ID}) {
			t.Errorf("due: %v", ids)
		}
	})
	t.Run("after a crash", func(t *testing.T) {
		for _, state := range []string{"intended", "issued", "owed"} {
			f := newLedger()
			f.in(t, state)
			fresh := &fixture{storage: f.storage, now: start.Add(2 * time.Hour)}
			fresh.Ledger = ledger.New(f.storage, func() time.Time { return fresh.now })
			if err := fresh.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ids := fresh.Due("ci", 10); len(ids) != 1 || !fresh.told() {
				t.Errorf("%s: due: %v", state, ids)
			}
		}
	})
	t.Run("a write that failed may have landed", func(t *testing.T) {
		f := newLedger()
		r := f.in(t, "issued")
		f.told()
		f.storage.FailPut(true)
		if err := f.Owe(t.Context(), r.ID, ""); err == nil {
			t.Fatal("no error")
		}
		f.storage.FailPut(false)
		if ids := f.Due("ci", 10); len(ids) != 1 || !f.told() {
			t.Errorf("due: %v", ids)
		}
		if err := f.Refresh(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		f.dueAt(t, start.Add(time.Hour+ledger.Grace))
	})
}

// An intent is looked for each minute for ten, then less and less often, and
// for a last time when nothing can land any more.
func TestWhenAnIntentIsLookedForAgain(t *testing.T) {
	f := newLedger()
	r := f.in(t, "intended")
	f.Over(r.ID)
	looks := 0
	for last := start; ; looks++ {
		at := f.Next()["ci"]
		if looks == 0 {
			at = start
		}
		gap := at.Sub(last)
		switch age := last.Sub(start); {
		case looks == 0:
		case age < 10*time.Minute && gap.Round(time.Second) != time.Minute:
			t.Fatalf("look %d comes %v after the last", looks, gap)
		case gap > age/10+time.Second && gap.Round(time.Second) != time.Minute:
			t.Fatalf("look %d comes %v after the last, at the age of %v", looks, gap, age)
		}
		f.now, last = at, at
		if !at.Before(start.Add(ledger.LateLanding)) {
			if at.Sub(start) > ledger.LateLanding+time.Second {
				t.Errorf("the last look comes %v after the intent", at.Sub(start))
			}
			break
		}
		if err := f.Sought(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if looks < 40 || looks > 100 {
		t.Errorf("%d looks", looks)
	}
	// Where it was not dropped then, because Jira's clock is behind, it is looked for soon
	// again, and not all the time.
	for last, began := f.now, f.now; ; {
		if err := f.Sought(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
		f.now = f.Next()["ci"]
		gap, late := f.now.Sub(last), last.Sub(began)
		if gap < time.Minute || gap > max(time.Minute, late/10)+time.Second {
			t.Fatalf("%v after the last look it is looked for again after %v", late, gap)
		}
		if last = f.now; late > 10*time.Hour {
			break
		}
	}
}

// TestDueComesInOrder: whatever is done to a thousand records, those that are
// due are found, the most of them that are asked for, and no other.
func TestDueComesInOrder(t *testing.T) {
	f := newLedger()
	random := rand.New(rand.NewPCG(3, 4))
	due := map[string]time.Time{}
	var ids []string
	for range 1000 {
		if r := record("ci"); random.IntN(3) > 0 || len(ids) == 0 {
			ttl := time.Duration(random.IntN(1000)) * time.Second
			if err := f.Intend(t.Context(), r, ledger.Room{Account: 10000}); err != nil {
				t.Fatal(err)
			}
			if err := f.Issue(t.Context(), r, ttl); err != nil {
				t.Fatal(err)
			}
			due[r.ID] = f.now.Add(ttl + ledger.Grace)
			ids = append(ids, r.ID)
			continue
		}
		id := ids[random.IntN(len(ids))]
		switch random.IntN(3) {
		case 0:
			if err := f.Forget(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			delete(due, id)
		case 1:
			wait := time.Duration(random.IntN(2000)) * time.Second
			f.Later(id, wait)
			if at, ok := due[id]; ok && f.now.Add(wait).After(at) {
				due[id] = f.now.Add(wait)
			}
		case 2:
			if f.Owe(t.Context(), id, "") == nil {
				due[id] = f.now
			}
		}
	}
	for _, after := range []time.Duration{0, 100 * time.Second, 500 * time.Second, time.Hour} {
		f.now = start.Add(after + time.Millisecond)
		var want []string
		for id, at := range due {
			if !at.After(f.now) {
				want = append(want, id)
			}
		}
		have := f.Due("ci", 10000)
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(have, want) {
			t.Errorf("after %v %d are due, want %d", after, len(have), len(want))
		}
		if some := f.Due("ci", 7); len(some) != min(7, len(want)) {
			t.Errorf("%d of %d, want 7 at most", len(some), len(want))
		}
	}
	if ids := f.Due("nobody", 10); ids != nil {
		t.Errorf("due: %v", ids)
	}
}

func TestMoveAndNewest(t *testing.T) {
	f := newLedger()
	if !f.Newest().IsZero() {
		t.Error("the newest of none")
	}
	r := f.in(t, "issued")
	f.now = start.Add(time.Minute)
	late := f.in(t, "intended")
	if !f.Minting("ci") || f.Minting("elsewhere") {
		t.Error("what is minting is not known")
	}
	f.Over(late.ID)
	if f.Minting("ci") {
		t.Error("nothing is minting")
	}
	for _, id := range []string{r.ID, late.ID} {
		if err := f.Move(t.Context(), id, "elsewhere"); err != nil {
			t.Fatal(err)
		}
	}
	if f.Held("ci") != 0 || f.Held("elsewhere") != 2 || !slices.Equal(f.Accounts(), []string{"elsewhere"}) {
		t.Errorf("held %d and %d, accounts %v", f.Held("ci"), f.Held("elsewhere"), f.Accounts())
	}
	if err := f.Forget(t.Context(), late.ID); err != nil {
		t.Fatal(err)
	}
	if newest := f.Newest(); !newest.Equal(ledger.At(start.Add(time.Minute)).Time()) {
		t.Errorf("newest %v", newest)
	}
	if f.State(r.ID) != ledger.Owed || f.State("nobody's") != "" {
		t.Errorf("states %q and %q", f.State(r.ID), f.State("nobody's"))
	}
}

// A hundred thousand records fit into memory beside the rest of the engine:
// its process takes 25 to 30 MB, and 64 MiB is the limit.
func TestMemoryOfManyRecords(t *testing.T) {
	const many = 100_000
	storage := &made{folders: map[string][]string{}}
	for range many {
		id := ledger.NewID()
		storage.folders[id[:2]+"/"] = append(storage.folders[id[:2]+"/"], id)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	l := ledger.New(storage, time.Now)
	if err := l.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := heap() - before
	t.Logf("%d bytes for each of %d records", took/many, many)
	if took > 20<<20 {
		t.Errorf("the index takes %d MiB", took>>20)
	}
	if n := len(l.IDs("")); n != many || !l.Whole() {
		t.Errorf("%d records", n)
	}
	runtime.KeepAlive(storage)
}

// made is storage that makes each record up when it is read.
type made struct {
	logical.Storage
	folders map[string][]string
}

func (s *made) List(_ context.Context, prefix string) ([]string, error) {
	if prefix == "" {
		return slices.Collect(maps.Keys(s.folders)), nil
	}
	return s.folders[prefix], nil
}

func (s *made) Get(_ context.Context, key string) (*logical.StorageEntry, error) {
	_, id, ok := strings.Cut(key, "/")
	if !ok { // no record
		return nil, nil
	}
	tokenID := fmt.Sprint(crc32.ChecksumIEEE([]byte(id))) // each has its own
	return &logical.StorageEntry{Key: key, Value: []byte(`{"id":"` + id + `","state":"issued","account":"account-` + id[:1] +
		`","issued_at":1,"lease_end":1772439309417,"token_id":"` + tokenID + `","name":"` + ledger.Name("k3xm2a", id, "readonly") + `"}`)}, nil
}

// What no lease holds is kept from when its mint is over, falls due for nothing but a
// debt, and takes a place unless it is the engine's own.
func TestKept(t *testing.T) {
	for kept, places := range map[ledger.Keeping]int{ledger.KeptOwn: 0, ledger.KeptStatic: 1} {
		f := newLedger()
		r := &ledger.Record{ID: ledger.NewID(), Account: "ci", Kept: kept}
		if err := f.Intend(t.Context(), r, ledger.Room{}); err != nil {
			t.Fatal(err)
		}
		if err := f.Issue(t.Context(), r, 0); err != nil {
			t.Fatal(err)
		}
		if len(f.Kept("ci")) != 0 || !f.Minting("ci") {
			t.Error("kept before its mint is over")
		}
		f.Over(r.ID)
		if !slices.Equal(f.Kept("ci"), []string{r.ID}) || f.Minting("ci") || f.Held("ci") != places {
			t.Errorf("kept %v, and %d held", f.Kept("ci"), f.Held("ci"))
		}
		if own := f.Own("ci"); len(own) != 1-places {
			t.Errorf("own %v", own)
		}
		f.now = start.Add(10000 * time.Hour)
		if next := f.Next(); len(next) != 0 || r.Over(f.now) {
			t.Errorf("due: %v", next)
		}
		if err := f.Owe(t.Context(), r.ID, ""); err != nil {
			t.Fatal(err)
		}
		if len(f.Kept("ci")) != 0 || !slices.Equal(f.Due("ci", 9), []string{r.ID}) {
			t.Error("it is owed, and not due")
		}
	}
}
