// Package ledger is the durable record of every credential the engine makes:
// written before Jira is asked for one, kept while it may be alive, and
// forgotten once it is proven gone. It stands in for a write-ahead log;
// intent and inventory are the same record.
//
//	intended ──mint answered──► issued ──lease ends──► (gone)
//	   │                           │
//	   └─────────► owed ◄──────────┘
//	                └── proven gone ──► (gone), or ended until its lease is over
//
// A record is intended while Jira may or may not have made the credential,
// issued while a lease holds it, and owed once it has to go. One that somebody
// ended before its lease is ended until that is over, if he wants that known. Its random id is
// also part of the credential's name in Jira (see [Name]), so that either
// side finds the other.
//
// A [Ledger] keeps an index of its records in memory, for counting, and for
// telling what falls due when. The index is whole once [Ledger.Load] has
// returned; until then it is of the records this process has touched. Memory
// proposes, storage decides: each transition reads the record, checks the
// state it leaves, and writes, all under the record's lock. No lock is ever
// held while Jira is asked.
//
// A transition that somebody must not make who only believes to be in charge is
// itself the test: storage refuses the write of a node that was deposed. So
// whoever wants to delete in Jira what he has not been asked to first makes it
// owed ([Ledger.Found], [Ledger.Overdue]), and deletes only if that succeeded.
//
// Methods are safe for concurrent use, by one process: what keeps a second
// one from writing is that Vault lets only the active node write.
//
// A record holds no secret, and nothing without a bound: a record that is too
// large for its storage could leave no state any more. So [Ledger.Intend]
// refuses one that has no room for its largest later form. A write that fails
// for one record is a [WriteError].
package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// State is where a record stands.
type State string

// The states. A record that is gone is not in the ledger.
const (
	Intended State = "intended"
	Issued   State = "issued"
	Owed     State = "owed"
	Ended    State = "ended" // proven gone, and under a lease
)

// Record is one credential. Times are by the engine's own clock unless they
// say otherwise.
type Record struct {
	ID      string `json:"id"`
	State   State  `json:"state"`
	Name    string `json:"name"`               // the credential's name in Jira
	TokenID string `json:"token_id,omitempty"` // Jira's id, from issued on

	Site     string `json:"site"`
	Account  string `json:"account"`
	Username string `json:"username"`
	Role     string `json:"role"`
	Reader   Reader `json:"reader"`

	// Type is what the credential is, in the engine's words; empty is a
	// personal access token of the account's own user.
	Type string `json:"type,omitempty"`
	// OnRevoke is, of a user that was made for the credential, what becomes of
	// him, and ProjectRoles what of his Jira does not list, separated by blanks.
	UserKey      string `json:"user_key,omitempty"` // Jira's of that user, from issued on
	OnRevoke     string `json:"on_revoke,omitempty"`
	ProjectRoles string `json:"project_roles,omitempty"`

	// Kept is set of a credential that no lease holds: the engine keeps it until
	// it has the next one. While it is issued it does not fall due.
	Kept Keeping `json:"kept,omitempty"`

	IntendedAt Time `json:"intended_at"`
	IssuedAt   Time `json:"issued_at,omitempty"`
	LeaseEnd   Time `json:"lease_end,omitempty"` // never earlier than Vault's own idea of it
	Expires    Time `json:"expires,omitempty"`   // when Jira ends it by itself; zero: never, or not known
	OwedAt     Time `json:"owed_at,omitempty"`   // since when it has to go
	// Recalled tells that somebody ended it before its lease: its record outlasts it,
	// as ended, until that is over.
	Recalled bool `json:"recalled,omitempty"`
	// SoughtAt is when an intended credential was first looked for in Jira
	// and proven absent. A late request may still make it, so the record
	// stays, but it no longer counts as held.
	SoughtAt Time `json:"sought_at,omitempty"`
}

// Keeping is what a credential is for that no lease holds.
type Keeping string

// What is kept. An own one is what the engine itself logs in with: it takes no
// place of its account's.
const (
	KeptOwn    Keeping = "own"
	KeptStatic Keeping = "static"
)

const (
	// Grace is how long after a lease's end Vault's own revoke is waited for.
	// It also makes good for what Vault's idea of the end may be later than
	// ours, for Vault reckons after we did.
	Grace = 30 * time.Second
	// LateLanding is how long after an intent a request that was lost on its
	// way may yet reach Jira and make the credential.
	LateLanding = 24 * time.Hour
)

// NeverIssued tells that no lease ever held the credential. Its name alone is
// certain then: what Jira made of one request may be two, and our id of one.
func (r *Record) NeverIssued() bool { return r.IssuedAt == 0 }

// Over tells whether the lease is over at now, by more than [Grace].
func (r *Record) Over(now time.Time) bool {
	return r.Kept == "" && !now.Before(r.LeaseEnd.Time().Add(Grace))
}

// due is when somebody has to look after the record, as of now: at once is before
// the clock began, and a debt, which is certain, before a doubt. An intent that was
// sought is looked for again each minute for ten, and then each time it has become older
// by a tenth, until nothing can land any more. Whoever looks then may go by another clock
// than ours, which is behind: the looks begin anew with each minute.
func (r *Record) due(now time.Time) Time {
	switch {
	case r.State == Issued && r.Kept != "":
		return never
	case r.State == Issued || r.State == Ended:
		return At(r.LeaseEnd.Time().Add(Grace))
	case r.State == Intended && r.SoughtAt != 0:
		intended := r.IntendedAt.Time()
		last := intended.Add(LateLanding)
		later := func(since time.Time) Time { return At(now.Add(max(time.Minute, now.Sub(since)/10))) }
		if !now.Before(last) {
			return later(last)
		}
		return min(later(intended), At(last))
	case r.State == Intended:
		return doubt
	default:
		return atOnce
	}
}

// Time is a moment in a record: milliseconds since 1970 in UTC, zero where it
// has not come yet. A mint stores two records with four times each, and this
// is much cheaper to write than time.Time.
type Time int64

// At is t in a record. It is rounded up, so that an end is never early.
func At(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.Add(time.Millisecond - 1).UnixMilli())
}

// Time is t for reckoning, zero where t is.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(t)).UTC()
}

// String is t for people.
func (t Time) String() string { return t.Time().Format(time.RFC3339Nano) }

// Reader is who asked for the credential, as Vault told the engine.
type Reader struct {
	EntityID      string `json:"entity_id,omitempty"`
	DisplayName   string `json:"display_name,omitempty"`
	RemoteAddress string `json:"remote_address,omitempty"`
	RequestID     string `json:"request_id,omitempty"`
	Metadata      string `json:"metadata,omitempty"` // what he says it is for
}

const (
	// mostOfReader bounds each thing that is told of a reader, in bytes, and
	// mostMetadata the reader's own words. Vault bounds none of them.
	mostOfReader = 256
	mostMetadata = 512
)

// Cut is r with every string cut to its bound. Call it where a reader enters.
func (r Reader) Cut() Reader {
	return Reader{
		EntityID: cut(r.EntityID, mostOfReader), DisplayName: cut(r.DisplayName, mostOfReader), RemoteAddress: cut(r.RemoteAddress, mostOfReader),
		RequestID: cut(r.RequestID, mostOfReader), Metadata: cut(r.Metadata, mostMetadata),
	}
}

// cut is s, or its beginning with an ellipsis behind it where s is longer than
// most bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = "…"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}

// absent tells whether the credential was sought and not found, and may yet be
// made by a late request.
func (r *Record) absent() bool { return r.State == Intended && r.SoughtAt != 0 }

// held tells whether the record takes one of its account's places.
func (r *Record) held() bool { return r.Kept != KeptOwn && r.State != Ended && !r.absent() }

// ErrMissing is returned for a record that is not in the ledger.
var ErrMissing = errors.New("no such record in the ledger")

// ErrUnreadable is wrapped by an error about a record that storage has, and that
// makes no sense to this version.
var ErrUnreadable = errors.New("a record of the ledger is damaged, or of a newer version")

// WriteError is a change of one record that storage did not take. It may have
// landed all the same. It tells nothing of other records, unless it wraps
// [logical.ErrReadOnly].
type WriteError struct {
	ID    string
	what  string
	cause error
}

// Error says which record could not be changed, and why.
func (e *WriteError) Error() string { return fmt.Sprintf("%s record %q: %v", e.what, e.ID, e.cause) }

// Unwrap is what storage said.
func (e *WriteError) Unwrap() error { return e.cause }

// StateError is a transition that is not possible from where the record
// stands.
type StateError struct {
	ID   string
	Have State // "" where the record is gone
}

// Error says which record stands where.
func (e *StateError) Error() string {
	if e.Have == "" {
		return fmt.Sprintf("record %q is gone from the ledger", e.ID)
	}
	return fmt.Sprintf("record %q is %s", e.ID, e.Have)
}

// Room is how many places there are for credentials that are not known to be
// gone: of an account, of a role, and of a role for one reader. Zero is no end of them.
type Room struct {
	Account, Role, Reader int
}

// FullError is an intent for which the account, or the role, has no room.
type FullError struct {
	Held, Room int
	OfRole     bool // it is the role's
	OfReader   bool // it is the reader's share of the role
}

// Error gives the numbers.
func (e *FullError) Error() string {
	return fmt.Sprintf("%d of %d places are taken", e.Held, e.Room)
}

// Ledger is the records of one mount. Make one with [New].
type Ledger struct {
	storage logical.Storage
	now     func() time.Time
	seed    maphash.Seed
	locks   [64]sync.Mutex // a record's lock; several share one
	listed  atomic.Bool    // see Listed
	whole   atomic.Bool    // see Whole
	unread  []string       // ids that Load could not read
	sooner  chan struct{}  // see Sooner

	index   index
	damaged damaged
	sites   sites
}

// New returns the ledger that lies in storage, without reading it. The time
// of day is asked of now.
func New(storage logical.Storage, now func() time.Time) *Ledger {
	return &Ledger{
		storage: storage,
		now:     now,
		seed:    maphash.MakeSeed(),
		sooner:  make(chan struct{}, 1),
		index:   newIndex(),
	}
}

// mostRecord bounds an intent, in bytes as it is stored. What comes later (an id
// and a key of Jira's, some times, another account) adds less than 8 KiB to it, so
// every later form fits into the smallest entry of Vault's storages, 512 KiB.
const mostRecord = 64 << 10

// ErrTooLarge is wrapped by the error about an intent that would leave its record
// no room to grow.
var ErrTooLarge = errors.New("the record of the credential would be too large")

// Intend writes r as intended, before Jira is asked for the credential. It
// takes one of the places of r.Account and one of r.Role; the error is a
// [FullError] where none is left, and wraps [ErrTooLarge] where r is too large to
// become what it may have to. After another error nothing may be made in
// Jira. Once the mint is over, however it went, the caller calls [Ledger.Over].
func (l *Ledger) Intend(ctx context.Context, r *Record, room Room) error {
	lock := l.lock(r.ID)
	lock.Lock()
	defer lock.Unlock()
	now := l.now()
	r.State, r.IntendedAt = Intended, At(now)
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(value) > mostRecord {
		return fmt.Errorf("%w: it has %d bytes, and %d is the most", ErrTooLarge, len(value), mostRecord)
	}
	if full := l.index.begin(r, room); full != nil { // else it has taken the places, before anybody else can
		return full
	}
	if err := l.putValue(ctx, r.ID, value); err != nil {
		// The write may have landed. That leaves a record of nothing, which
		// is looked for like any other: the next look at storage decides.
		l.Over(r.ID)
		return fmt.Errorf("writing the intent to the ledger: %w", err)
	}
	return nil
}

// Over says that the mint of record id has ended: from now on the intent, if
// it still is one, is [Ledger.Unsettled].
func (l *Ledger) Over(id string) {
	if l.index.over(id) {
		l.Wake()
	}
}

// Unsettled returns the ids of account's records of which Jira has to be
// asked: those owed, and the intents whose mint does not run in this process,
// because Jira's answer was lost or a crash came before it. Intents that were
// sought before, and take no place any more, are left out unless sought is
// set. An empty account is all of them. It is what this process knows; see
// [Ledger.Whole].
func (l *Ledger) Unsettled(account string, sought bool) []string {
	return l.index.list(account, func(e *entry) bool {
		return (states[e.state] == Intended || states[e.state] == Owed) && !e.minting && (!e.absent || sought)
	})
}

// InDoubt tells whether account has an intent whose mint does not run in this process
// and which was not looked for in Jira since. It is what this process knows.
func (l *Ledger) InDoubt(account string) bool { return l.index.doubts(account) > 0 }

// Doubts returns the ids of these intents.
func (l *Ledger) Doubts(account string) []string {
	if !l.InDoubt(account) {
		return nil
	}
	return l.index.list(account, func(e *entry) bool { return e.doubted })
}

// Next is when the first record of each account falls due, for whoever looks
// after them: an issued one when its lease is over by [Grace], an owed one and
// an intent whose mint has ended at once. It is what this process knows.
func (l *Ledger) Next() map[string]time.Time { return l.index.next() }

// Due returns the ids of at most most of account's records that are due.
func (l *Ledger) Due(account string, most int) []string {
	return l.index.due(account, At(l.now()), most)
}

// Later says that the record, of which nothing has changed, is not due before
// wait has passed. It is forgotten with the process, and with any change of
// the record.
func (l *Ledger) Later(id string, wait time.Duration) {
	l.index.later(id, At(l.now().Add(wait)))
}

// Reconsider makes every record due whose mint does not run: when they are was
// reckoned by a clock that has turned out to be wrong.
func (l *Ledger) Reconsider() { l.index.reconsider() }

// Sooner tells whoever sleeps until [Ledger.Next] that it has come nearer.
func (l *Ledger) Sooner() <-chan struct{} { return l.sooner }

// Wake has whoever sleeps until [Ledger.Next] look again.
func (l *Ledger) Wake() {
	select {
	case l.sooner <- struct{}{}:
	default: // somebody was told, and has not looked yet
	}
}

// Issue writes that Jira made r's credential: r is the record that [Ledger.Intend]
// wrote, with TokenID and Expires filled in. The lease ends ttl after now; what is
// [Record.Kept] has none. If
// the record has left the state intended meanwhile, because somebody gave the
// credential up, the error is a [StateError] and the credential has to go.
func (l *Ledger) Issue(ctx context.Context, r *Record, ttl time.Duration) error {
	lock := l.lock(r.ID)
	lock.Lock()
	defer lock.Unlock()
	// This process wrote the intent, so memory is as good as storage here;
	// storage refuses the write where another node has taken over.
	if have := l.index.state(r.ID); have != Intended {
		return &StateError{ID: r.ID, Have: have}
	}
	intended, now := *r, l.now()
	r.State, r.IssuedAt = Issued, At(now)
	if r.Kept == "" {
		r.LeaseEnd = At(now.Add(ttl))
	}
	if err := l.put(ctx, r); err != nil {
		*r = intended
		return fmt.Errorf("writing the token to the ledger: %w", err)
	}
	l.note(r, now)
	return nil
}

// Extend writes that the lease of an issued record ends ttl after now, if
// that is later than it did. Where the record is not issued the error is a
// [StateError], where it is not there [ErrMissing].
func (l *Ledger) Extend(ctx context.Context, id string, ttl time.Duration) error {
	return l.change(ctx, id, func(r *Record) error {
		if r.State != Issued {
			return &StateError{ID: id, Have: r.State}
		}
		r.LeaseEnd = max(r.LeaseEnd, At(l.now().Add(ttl)))
		return nil
	})
}

// Owe writes that the credential has to go, wherever it stands, because
// somebody asked for that: nobody may renew it any more. tokenID is Jira's id
// where the caller learned it, or empty. Owing twice is success and keeps the
// first time.
func (l *Ledger) Owe(ctx context.Context, id, tokenID string) error {
	return l.change(ctx, id, func(r *Record) error {
		r.owe(l.now(), tokenID)
		return nil
	})
}

// Take is [Ledger.Owe] by somebody who goes on to end the credential himself: for
// all others it is not due before wait has passed.
func (l *Ledger) Take(ctx context.Context, id, tokenID string, wait time.Duration) error {
	return l.change(ctx, id, func(r *Record) error {
		l.index.hold(r, At(l.now().Add(wait)))
		r.owe(l.now(), tokenID)
		return nil
	})
}

// Recall is [Ledger.Take] of a credential that a lease holds and will go on
// holding: its record outlasts it. Where no lease ever held it the error is a
// [StateError].
func (l *Ledger) Recall(ctx context.Context, id string, wait time.Duration) error {
	return l.change(ctx, id, func(r *Record) error {
		if r.NeverIssued() || r.State == Ended {
			return &StateError{ID: id, Have: r.State}
		}
		l.index.hold(r, At(l.now().Add(wait)))
		r.owe(l.now(), "")
		r.Recalled = true
		return nil
	})
}

// Found writes that the credential of a lost mint was found in Jira, as
// tokenID, and has to go. A [StateError] says that it was issued after all.
func (l *Ledger) Found(ctx context.Context, id, tokenID string) error {
	return l.change(ctx, id, func(r *Record) error {
		if !r.NeverIssued() {
			return &StateError{ID: id, Have: r.State}
		}
		if r.State == Owed && r.TokenID == tokenID {
			return errUnchanged
		}
		r.owe(l.now(), tokenID)
		return nil
	})
}

// Overdue writes that an issued credential has to go because its lease is over
// at now, by more than [Grace]. A [StateError] says that it is not, by what
// storage holds: it was renewed, or is not issued any more.
func (l *Ledger) Overdue(ctx context.Context, id string, now time.Time) error {
	return l.change(ctx, id, func(r *Record) error {
		if r.State != Issued || !r.Over(now) {
			return &StateError{ID: id, Have: r.State}
		}
		r.owe(l.now(), "")
		return nil
	})
}

func (r *Record) owe(now time.Time, tokenID string) {
	if r.State != Owed {
		r.State, r.OwedAt = Owed, At(now)
	}
	if tokenID != "" {
		r.TokenID = tokenID
	}
}

// Gone writes that r's credential is proven gone. Its record is forgotten, unless it
// was recalled and its lease is not over: then it stays as ended and takes no place,
// to tell the lease's own revoke, until that, or somebody who finds it over, forgets
// it. r is as the caller read it. Where it is forgotten already, that is success.
func (l *Ledger) Gone(ctx context.Context, r *Record) error {
	if !r.Recalled || r.Over(l.now()) {
		return l.Forget(ctx, r.ID)
	}
	moved := false
	err := l.change(ctx, r.ID, func(r *Record) error {
		if moved = !r.Recalled; moved || r.State == Ended {
			return errUnchanged
		}
		r.State = Ended
		return nil
	})
	if moved { // meanwhile, to who outlasts no lease
		return l.Forget(ctx, r.ID)
	}
	if errors.Is(err, ErrMissing) {
		return nil
	}
	return err
}

// Move writes that another account, in the engine's words, looks after the
// record from now on, and that what a lease holds has to go. It outlasts no lease:
// who looks after it is to be rid of it.
func (l *Ledger) Move(ctx context.Context, id, account string) error {
	return l.change(ctx, id, func(r *Record) error {
		if r.State == Issued {
			r.owe(l.now(), "")
		}
		r.Account, r.Recalled = account, false
		return nil
	})
}

// Sought writes that an intended credential was looked for in Jira and proven
// not to be there now, which frees its place. The record stays, to be looked
// for again. Only the first look is written.
func (l *Ledger) Sought(ctx context.Context, id string) error {
	return l.change(ctx, id, func(r *Record) error {
		switch {
		case r.State != Intended:
			return &StateError{ID: id, Have: r.State}
		case r.SoughtAt != 0:
			return errUnchanged
		}
		r.SoughtAt = At(l.now())
		return nil
	})
}

// errUnchanged tells change that there is nothing to write.
var errUnchanged = errors.New("unchanged")

// Adopt writes r as owed, for a credential that the ledger has no record of
// but somebody knows to be Jira's. Where there is a record with this id after
// all the error is a [StateError].
func (l *Ledger) Adopt(ctx context.Context, r *Record) error {
	lock := l.lock(r.ID)
	lock.Lock()
	defer lock.Unlock()
	have, err := l.get(ctx, r.ID)
	if err == nil {
		return &StateError{ID: r.ID, Have: have.State}
	}
	if !errors.Is(err, ErrMissing) {
		return err
	}
	now := l.now()
	r.State, r.OwedAt = Owed, At(now)
	err = l.put(ctx, r)
	l.note(r, now) // a write that failed may have landed: storage will be asked
	if err != nil {
		return &WriteError{r.ID, "writing", err}
	}
	return nil
}

// Forget removes the record of a credential that is proven gone. Forgetting
// twice is success.
func (l *Ledger) Forget(ctx context.Context, id string) error {
	lock := l.lock(id)
	lock.Lock()
	defer lock.Unlock()
	if err := l.storage.Delete(ctx, key(id)); err != nil {
		return &WriteError{id, "removing", err}
	}
	l.index.drop(id)
	l.damaged.drop(id)
	return nil
}

// Read returns the record with this id as storage holds it, or [ErrMissing].
func (l *Ledger) Read(ctx context.Context, id string) (*Record, error) {
	lock := l.lock(id)
	lock.Lock()
	defer lock.Unlock()
	return l.get(ctx, id)
}

// Refresh brings memory up to date with what storage holds of the record, which
// may be due later than memory has it.
func (l *Ledger) Refresh(ctx context.Context, id string) error {
	return l.change(ctx, id, func(*Record) error { return errUnchanged })
}

// Filter says which records are looked for. The zero value is all.
type Filter struct {
	Account, Role string // empty: any
	State         State  // likewise
}

// Page returns the ids of at most most of the records that f lets through, in order,
// of those after after. It is what this process knows; see [Ledger.Whole].
func (l *Ledger) Page(f Filter, after string, most int) []string {
	return l.index.page(f, after, most)
}

// Counts tells how many records there are in each state. It is what this process
// knows; see [Ledger.Whole].
func (l *Ledger) Counts() map[State]int { return l.index.counts() }

// Held counts the places of account that are taken. It is what this process
// knows; see [Ledger.Whole].
func (l *Ledger) Held(account string) int { return l.index.held(account) }

// HeldBy counts the places of role that are taken. It is what this process
// knows; see [Ledger.Whole].
func (l *Ledger) HeldBy(role string) int { return l.index.heldBy(role) }

// Accounts returns the accounts that have records, in no order. It is what
// this process knows; see [Ledger.Whole].
func (l *Ledger) Accounts() []string { return l.index.names() }

// Newest is when the last of the intents that this process knows of was
// written, be it forgotten since; zero where it knows none.
func (l *Ledger) Newest() time.Time { return l.index.latest().Time() }

// State is where the record stands, as far as this process knows; "" where it
// knows none.
func (l *Ledger) State(id string) State { return l.index.state(id) }

// Minting tells whether a mint for account runs in this process.
func (l *Ledger) Minting(account string) bool {
	return len(l.index.list(account, func(e *entry) bool { return e.minting })) > 0
}

// Kept returns the ids of account's records that are issued, that no lease holds,
// and whose mint is over. It is what this process knows; see [Ledger.Whole].
func (l *Ledger) Kept(account string) []string {
	return l.index.list(account, func(e *entry) bool { return e.kept && states[e.state] == Issued && !e.minting })
}

// Own returns the ids of account's records of what the engine itself logs in with,
// wherever they stand. It is what this process knows; see [Ledger.Whole].
func (l *Ledger) Own(account string) []string {
	return l.index.list(account, func(e *entry) bool { return e.own })
}

// IDs returns the ids of account's records in no order, of all records where
// account is empty. It is what this process knows; see [Ledger.Whole].
func (l *Ledger) IDs(account string) []string {
	return l.index.list(account, func(*entry) bool { return true })
}

// change reads the record, lets f change it, and writes it, under its lock.
// Nothing is written if f fails.
func (l *Ledger) change(ctx context.Context, id string, f func(*Record) error) error {
	lock := l.lock(id)
	lock.Lock()
	defer lock.Unlock()
	r, err := l.get(ctx, id)
	if err != nil {
		return err
	}
	err = f(r)
	if err == nil {
		if err := l.put(ctx, r); err != nil {
			if l.index.soon(id) { // it may have landed: storage has to be asked
				l.Wake()
			}
			return &WriteError{id, "writing", err}
		}
	}
	l.note(r, l.now()) // what storage holds, whether or not it has changed
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// lock is the lock of record id.
func (l *Ledger) lock(id string) *sync.Mutex {
	return &l.locks[maphash.String(l.seed, id)%uint64(len(l.locks))]
}

// note brings the index up to date with r, as of now.
func (l *Ledger) note(r *Record, now time.Time) {
	l.sites.see(r)
	if l.index.note(r, r.due(now)) {
		l.Wake()
	}
}
