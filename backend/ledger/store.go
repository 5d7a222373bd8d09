package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// key is where the record with this id lies. Vault's storage lists a folder
// only as a whole, so the records are spread over folders by the first two
// characters of their random ids: a hundred thousand records are some hundred
// to a folder.
func key(id string) string {
	return id[:min(2, len(id))] + "/" + id
}

// Load reads all records into the index. It is called when the engine starts
// to run where it may write; other methods may be called meanwhile.
//
// A record that storage does not give does not keep the others from being
// known, but the index is not whole then, and the error names one of them. After
// an error Load is called again; it reads only what it could not before. A record
// that storage gives and that makes no sense is damaged: reading it again does not help, so it
// counts as read, and [Ledger.Damaged] tells of it. Load must not be called twice
// at the same time.
func (l *Ledger) Load(ctx context.Context) error {
	ids := l.unread
	if !l.Listed() {
		if err := l.sites.load(ctx, l.storage); err != nil {
			return err
		}
		var err error
		if ids, err = l.list(ctx); err != nil {
			return fmt.Errorf("listing the ledger: %w", err)
		}
	}
	var (
		mu     sync.Mutex
		failed []string
		first  error
		all    sync.WaitGroup
	)
	// Storage answers slowly, over a pipe, but to several at a time.
	for part := range slices.Chunk(ids, max(1, (len(ids)+readers-1)/readers)) {
		all.Go(func() {
			for _, id := range part {
				if ctx.Err() != nil {
					return
				}
				if err := l.loadGuarded(ctx, id); err != nil {
					mu.Lock()
					failed = append(failed, id)
					first = cmp.Or(first, err)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.unread = failed
	l.listed.Store(true)
	l.whole.Store(len(failed) == 0)
	return first
}

// loadGuarded is loadOne. A panic in it becomes an error: nobody above it could catch it,
// and it would end the process, which other mounts share.
func (l *Ledger) loadGuarded(ctx context.Context, id string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading record %q: panic: %v", id, p)
		}
	}()
	return l.loadOne(ctx, id)
}

// readers is how many records are read at a time.
const readers = 8

// list returns the ids of all records in storage.
func (l *Ledger) list(ctx context.Context) ([]string, error) {
	folders, err := l.storage.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, folder := range folders {
		if !strings.HasSuffix(folder, "/") {
			continue
		}
		ids, err := l.storage.List(ctx, folder)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}

// loadOne brings the index up to date with one record. The record's lock
// keeps a change in between from being undone in memory.
func (l *Ledger) loadOne(ctx context.Context, id string) error {
	lock := l.lock(id)
	lock.Lock()
	defer lock.Unlock()
	r, err := l.get(ctx, id)
	if errors.Is(err, ErrMissing) || errors.Is(err, ErrUnreadable) {
		return nil // forgotten since it was listed, or noted as damaged
	}
	if err != nil {
		return err
	}
	l.note(r, l.now())
	return nil
}

// Whole tells whether the index holds every record that makes sense, so that
// what it does not hold does not exist, or is damaged; see [Ledger.Damaged].
func (l *Ledger) Whole() bool { return l.whole.Load() }

// Listed tells whether the index holds every record that could be read.
func (l *Ledger) Listed() bool { return l.listed.Load() }

// get reads a record. The caller holds its lock. One that is not there leaves
// the index too: a removal can take effect although it was answered with an
// error.
func (l *Ledger) get(ctx context.Context, id string) (*Record, error) {
	entry, err := l.storage.Get(ctx, key(id))
	if err != nil {
		return nil, fmt.Errorf("reading record %q: %w", id, err)
	}
	if entry == nil {
		l.index.drop(id)
		l.damaged.drop(id)
		return nil, ErrMissing
	}
	r, err := decode(id, entry.Value)
	if err != nil {
		l.index.drop(id)
		l.damaged.add(id, entry.Value, err)
		return nil, err
	}
	r.Reader = r.Reader.Cut() // of a record from before there were bounds: its next form is shorter
	if l.damaged.drop(id) {
		l.note(r, l.now())
	}
	return r, nil
}

// put writes a record. The caller holds its lock.
func (l *Ledger) put(ctx context.Context, r *Record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return l.putValue(ctx, r.ID, value)
}

// putValue is put of a record that is encoded already.
func (l *Ledger) putValue(ctx context.Context, id string, value []byte) error {
	return l.storage.Put(ctx, &logical.StorageEntry{Key: key(id), Value: value})
}

// decode reads the record that lies under id. Storage is not trusted: a
// record of another id, or of a state that this version does not know, is an
// error.
func decode(id string, value []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("%w: record %q does not parse: %w", ErrUnreadable, id, err)
	}
	if r.ID != id {
		return nil, fmt.Errorf("%w: record %q holds the id %q", ErrUnreadable, id, r.ID)
	}
	switch r.State {
	case Intended, Issued, Owed, Ended:
		return &r, nil
	default:
		return nil, fmt.Errorf("%w: record %q is in a state %q that this version does not know", ErrUnreadable, id, r.State)
	}
}
