package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// flaky is storage whose reads fail once so many have gone well.
type flaky struct {
	logical.Storage
	reads atomic.Int64 // that go well
}

func (s *flaky) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if s.reads.Add(-1) < 0 {
		return nil, errors.New("storage is away")
	}
	return s.Storage.Get(ctx, key)
}

// TestLoad reads five thousand records, at the second attempt.
func TestLoad(t *testing.T) {
	before := newLedger()
	const many = 5000
	for i := range many {
		r := record([]string{"ci", "nightly"}[i%2])
		if err := before.Intend(t.Context(), r, ledger.Room{Account: many}); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 { // a tenth of them, all of account ci, hold no place
			if err := before.Sought(t.Context(), r.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	folders, err := before.storage.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) < 900 { // of 1024
		t.Errorf("the records lie in %d folders only", len(folders))
	}

	storage := &flaky{Storage: before.storage}
	l := ledger.New(storage, time.Now)
	storage.reads.Store(many / 2)
	if err := l.Load(t.Context()); err == nil || l.Whole() {
		t.Fatalf("got %v, whole is %v, though storage failed half way", err, l.Whole())
	}
	storage.reads.Store(many)
	if err := l.Load(t.Context()); err != nil || !l.Whole() {
		t.Fatalf("got %v, whole is %v", err, l.Whole())
	}
	if l.Held("ci") != many/2-many/10 || l.Held("nightly") != many/2 || len(l.IDs("ci")) != many/2 || len(l.IDs("")) != many {
		t.Errorf("held %d and %d, %d and %d ids", l.Held("ci"), l.Held("nightly"), len(l.IDs("ci")), len(l.IDs("")))
	}
}

func TestLoadThatCannotList(t *testing.T) {
	f := newLedger()
	f.in(t, "issued")
	f.storage.FailList(true)
	if err := f.Load(t.Context()); err == nil || f.Whole() {
		t.Errorf("got %v, whole is %v", err, f.Whole())
	}
	empty := newLedger()
	if err := empty.Load(t.Context()); err != nil || !empty.Whole() {
		t.Errorf("of an empty ledger: %v, whole is %v", err, empty.Whole())
	}
}

// slow is storage that lets others go first between reading and answering.
type slow struct{ logical.Storage }

func (s slow) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	entry, err := s.Storage.Get(ctx, key)
	for range 10 {
		runtime.Gosched()
	}
	return entry, err
}

// TestLoadWhileInUse: what is made and ended meanwhile is counted as it
// stands in the end.
func TestLoadWhileInUse(t *testing.T) {
	f := newLedger()
	var old []*ledger.Record
	for range 500 {
		old = append(old, f.in(t, "issued"))
	}
	slices.SortFunc(old, func(a, b *ledger.Record) int { return strings.Compare(a.ID, b.ID) }) // as they are listed
	f.Ledger = ledger.New(slow{f.storage}, time.Now)
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Load(t.Context()); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		for i, r := range old {
			var err error
			if i%2 == 0 {
				err = f.Forget(t.Context(), r.ID)
			} else {
				err = f.Owe(t.Context(), r.ID, "")
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	running.Go(func() {
		for i := range 500 {
			r := record("nightly")
			if err := f.Intend(t.Context(), r, ledger.Room{Account: 1000}); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := f.Sought(t.Context(), r.ID); err != nil {
					t.Error(err)
				}
			}
		}
	})
	running.Wait()
	f.countsAreRight(t)
	if f.Held("ci") != 250 || f.Held("nightly") != 250 {
		t.Errorf("held %d and %d", f.Held("ci"), f.Held("nightly"))
	}
}

// TestLoadAmongStrangers: what is no folder of records is passed over, one of
// what is no record is named, and all others count.
func TestLoadAmongStrangers(t *testing.T) {
	f := newLedger()
	r := record("ci")
	put := func(key, value string) {
		t.Helper()
		if err := f.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Intend(t.Context(), r, ledger.Room{Account: 1}); err != nil {
		t.Fatal(err)
	}
	put("0", "a note, which comes before all folders")
	l := ledger.New(f.storage, time.Now)
	if err := l.Load(t.Context()); err != nil || !l.Whole() || l.Held("ci") != 1 {
		t.Errorf("%v, whole is %v, %d held", err, l.Whole(), l.Held("ci"))
	}
	put("00/00first", "garbage")
	put("zz/zzsecond", "garbage")
	l = ledger.New(f.storage, time.Now)
	if err := l.Load(t.Context()); err != nil || len(l.Damaged()) != 2 || l.Damaged()[0].ID != "00first" || !l.Whole() || l.Held("ci") != 1 {
		t.Errorf("%v, damaged is %+v, whole is %v, %d held", err, l.Damaged(), l.Whole(), l.Held("ci"))
	}
}

// TestStrangeRecords: what cannot be understood is neither used nor passed
// over.
func TestStrangeRecords(t *testing.T) {
	const id = "5b2tq6hznr4wjd7c"
	for name, test := range map[string]struct{ value, want string }{
		"garbage":       {"\x00garbage", "does not parse"},
		"no JSON":       {"", "does not parse"},
		"another's id":  {`{"id":"aaaaaaaaaaaaaaaa","state":"issued"}`, `holds the id "aaaaaaaaaaaaaaaa"`},
		"no id":         {`{"state":"issued"}`, `holds the id ""`},
		"no state":      {`{"id":"` + id + `"}`, `state ""`},
		"a newer state": {`{"id":"` + id + `","state":"pawned"}`, `state "pawned"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLedger()
			if err := f.storage.Put(t.Context(), &logical.StorageEntry{Key: "5b/" + id, Value: []byte(test.value)}); err != nil {
				t.Fatal(err)
			}
			_, readErr := f.Read(t.Context(), id)
			for _, err := range []error{readErr, f.Owe(t.Context(), id, "")} {
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), id) {
					t.Errorf("got %v, want %q of %s", err, test.want, id)
				}
			}
			// It holds up nothing else, and it is told of.
			if err := f.Load(t.Context()); err != nil || !f.Whole() {
				t.Errorf("reading the ledger: %v, whole is %v", err, f.Whole())
			}
			if all := f.Damaged(); len(all) != 1 || all[0].ID != id || !strings.Contains(all[0].Why, test.want) || all[0].Size != len(test.value) {
				t.Errorf("damaged is %+v, want %s, which %s", all, id, test.want)
			}
			if entry, err := f.storage.Get(t.Context(), "5b/"+id); err != nil || string(entry.Value) != test.value {
				t.Errorf("it was changed to %q, %v", entry.Value, err)
			}
			if err := f.Forget(t.Context(), id); err != nil {
				t.Errorf("it cannot be removed: %v", err)
			}
			if all := f.Damaged(); len(all) != 0 {
				t.Errorf("it is removed, and damaged is %+v", all)
			}
		})
	}
}

// TestWhatIsKnownOfADamagedRecord: whoever has to remove one is told what it may
// be of, and no more than a line.
func TestWhatIsKnownOfADamagedRecord(t *testing.T) {
	const id = "5b2tq6hznr4wjd7c"
	f := newLedger()
	value := `{"id":"` + id + `","state":"pawned","account":"ci","name":"vault-k3xm2a-` + id + `-r","token_id":"` + strings.Repeat("4", 1000) + `"}`
	if err := f.storage.Put(t.Context(), &logical.StorageEntry{Key: "5b/" + id, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := f.Damaged()
	if len(all) != 1 || all[0].Account != "ci" || all[0].Name != "vault-k3xm2a-"+id+"-r" || len(all[0].TokenID) > 256 || !strings.HasPrefix(all[0].TokenID, "444") {
		t.Errorf("damaged is %+v", all)
	}
	// A newer version has read it, or a person has repaired it.
	if err := f.storage.Put(t.Context(), &logical.StorageEntry{Key: "5b/" + id, Value: []byte(strings.Replace(value, "pawned", "owed", 1))}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(t.Context(), id); err != nil || len(f.Damaged()) != 0 || f.State(id) != ledger.Owed {
		t.Errorf("repaired: %v, damaged is %+v, state is %q", err, f.Damaged(), f.State(id))
	}
}

// TestStoredRecord holds the form in which records were stored: an update of
// the engine has to read what is there.
func TestStoredRecord(t *testing.T) {
	const stored = `{"id":"5b2tq6hznr4wjd7c","state":"issued","name":"vault-k3xm2a-5b2tq6hznr4wjd7c-readonly","token_id":"412",` +
		`"site":"https://jira.example.com","account":"ci","username":"ci-bot","role":"readonly",` +
		`"reader":{"entity_id":"e","display_name":"d","remote_address":"192.0.2.7","request_id":"r"},` +
		`"intended_at":1772439309100,"issued_at":1772439309200,"lease_end":1772442909200,"expires":1772525709000}`
	f := newLedger()
	if err := f.storage.Put(t.Context(), &logical.StorageEntry{Key: "5b/5b2tq6hznr4wjd7c", Value: []byte(stored)}); err != nil {
		t.Fatal(err)
	}
	r, err := f.Read(t.Context(), "5b2tq6hznr4wjd7c")
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(r)
	if err != nil || string(again) != stored {
		t.Errorf("%v, got\n%s\nwant\n%s", err, again, stored)
	}
}
