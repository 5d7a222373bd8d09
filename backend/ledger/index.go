package ledger

import (
	"container/heap"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// index is what memory keeps of the records: enough to count what an account
// holds and to find what is due, in some hundred bytes each.
type index struct {
	mu       sync.Mutex // guards all below; never held over storage
	entries  map[string]*entry
	accounts map[string]*shelf
	roles    map[string]*share // of all that had entries
	tokens   map[uint64]int32  // how many entries have the token of that hash
	readers  readerShares
	newest   Time         // when the last intent was written
	seed     maphash.Seed // of these hashes
}

// shelf is the entries of one account, how many places they take, and of how many
// nobody knows what became of them.
type shelf struct {
	account string
	held    int
	doubts  int
	byDue   []*entry // a heap: the first that is due lies on top
}

// share is how many places a role takes.
type share struct {
	role string
	held int
}

// entry is what memory keeps of one record.
type entry struct {
	id      string
	shelf   *shelf
	role    *share
	reader  *readerShare
	due     Time
	holdTo  Time   // not due before: somebody has it in hand
	since   Time   // it fell due first, however often it was tried since
	token   uint64 // a hash of its site and its id in Jira; 0 if it has none
	at      int32  // where it lies in shelf.byDue
	state   uint8  // an index of states: a hundred thousand of them lie here
	held    bool
	absent  bool
	kept    bool
	own     bool // as well as kept
	minting bool // intended, or kept and issued, and its mint runs in this process
	doubted bool // intended, its mint has ended, and it was not looked for in Jira
}

// states are what an entry's state may be.
var states = [...]State{"", Intended, Issued, Owed, Ended}

const (
	atOnce = Time(0)
	doubt  = Time(1)             // at once, but after what is certain
	never  = Time(math.MaxInt64) // when the record of a mint that runs is due
)

func newIndex() index {
	return index{entries: map[string]*entry{}, accounts: map[string]*shelf{}, roles: map[string]*share{}, tokens: map[uint64]int32{}, readers: newReaders(), seed: maphash.MakeSeed()}
}

// begin notes r, whose mint is about to run in this process, if there is room
// for it.
func (x *index) begin(r *Record, room Room) *FullError {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.accounts[r.Account]; s != nil && room.Account > 0 && s.held >= room.Account {
		return &FullError{Held: s.held, Room: room.Account}
	}
	if s := x.roles[r.Role]; s != nil && room.Role > 0 && s.held >= room.Role {
		return &FullError{Held: s.held, Room: room.Role, OfRole: true}
	}
	if held := x.readers.held(r); room.Reader > 0 && held >= room.Reader {
		return &FullError{Held: held, Room: room.Reader, OfReader: true}
	}
	e := x.set(r, never)
	e.minting = true
	e.doubt()
	return nil
}

// over notes that the mint of record id has ended. It tells whether the intent
// it leaves is the first of its account's to be due.
func (x *index) over(id string) (first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[id]
	if e == nil || !e.minting {
		return false
	}
	e.minting = false
	e.doubt()
	if states[e.state] != Intended {
		return false
	}
	return e.move(doubt)
}

// note brings the index up to date with r, which is due then. It tells whether
// it is the first of its account's.
func (x *index) note(r *Record, due Time) (first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[r.ID]; e != nil && e.minting && r.State == Intended {
		due = never
	}
	e := x.set(r, due)
	return e.at == 0 && due != never
}

// set makes or changes the entry of r. The caller holds x.mu.
func (x *index) set(r *Record, due Time) *entry {
	x.newest = max(x.newest, r.IntendedAt)
	e := x.entries[r.ID]
	// What is kept is in nobody's hands until its secret is stored.
	minting := e != nil && e.minting && (r.State == Intended || r.State == Issued && r.Kept != "")
	if e == nil || e.shelf.account != r.Account {
		holdTo := Time(0)
		if e != nil {
			holdTo = e.holdTo
		}
		x.remove(e)
		s := x.accounts[r.Account]
		if s == nil {
			s = &shelf{account: r.Account}
			x.accounts[r.Account] = s
		}
		role := x.roles[r.Role]
		if role == nil {
			role = &share{role: r.Role}
			x.roles[r.Role] = role
		}
		e = &entry{id: r.ID, shelf: s, role: role, reader: x.readers.enter(r), due: due, holdTo: holdTo}
		heap.Push(s, e)
		x.entries[e.id] = e
	}
	e.take(r.held())
	x.name(e, x.tokenHash(r.Site, r.TokenID))
	e.since = r.since(due)
	e.absent, e.kept, e.own = r.absent(), r.Kept != "", r.Kept == KeptOwn
	e.state, e.minting = uint8(slices.Index(states[:], r.State)), minting //nolint:gosec // five of them
	e.doubt()
	e.move(max(due, e.holdTo))
	return e
}

// tokenHash stands for the token of a site that has this id; 0 if it has none.
func (x *index) tokenHash(site, tokenID string) uint64 {
	if tokenID == "" {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(x.seed)
	_, _ = h.WriteString(tokenID) // it never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(site)
	return max(h.Sum64(), 1)
}

// name notes the hash of e's token. The caller holds x.mu.
func (x *index) name(e *entry, token uint64) {
	if e.token == token {
		return
	}
	if e.token != 0 {
		if x.tokens[e.token]--; x.tokens[e.token] == 0 {
			delete(x.tokens, e.token)
		}
	}
	if e.token = token; token != 0 {
		x.tokens[token]++
	}
}

// known tells whether an entry has the token of a site that has this id.
func (x *index) known(site, tokenID string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.tokens[x.tokenHash(site, tokenID)] > 0
}

// doubt notes whether anybody knows what became of e.
func (e *entry) doubt() {
	is := states[e.state] == Intended && !e.absent && !e.minting
	switch {
	case is && !e.doubted:
		e.shelf.doubts++
	case !is && e.doubted:
		e.shelf.doubts--
	}
	e.doubted = is
}

// take notes whether e takes a place of its account, its role and its reader.
func (e *entry) take(held bool) {
	switch {
	case held && !e.held:
		e.shelf.held++
		e.role.held++
		e.reader.held++
	case !held && e.held:
		e.shelf.held--
		e.role.held--
		e.reader.held--
	}
	e.held = held
}

// move changes when e is due, and tells whether it is the first of its
// account's now.
func (e *entry) move(due Time) (first bool) {
	e.due = due
	heap.Fix(e.shelf, int(e.at))
	return e.at == 0
}

func (x *index) drop(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(x.entries[id])
}

// remove takes e out, if it is not nil. The caller holds x.mu.
func (x *index) remove(e *entry) {
	if e == nil {
		return
	}
	delete(x.entries, e.id)
	s := e.shelf
	heap.Remove(s, int(e.at))
	e.take(false)
	if e.doubted {
		s.doubts--
	}
	x.name(e, 0)
	x.readers.leave(e.reader)
	if len(s.byDue) == 0 {
		delete(x.accounts, s.account)
	}
}

// later moves the record's due time back to then.
func (x *index) later(id string, then Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[id]; e != nil && e.due < then {
		e.move(then)
	}
}

// hold keeps r from falling due before then by what changes of it.
func (x *index) hold(r *Record, then Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[r.ID]
	if e == nil { // it is still to be loaded
		e = x.set(r, then)
	}
	e.holdTo = then
}

// soon makes the record due at once, unless its mint runs. It tells whether it
// is the first of its account's.
func (x *index) soon(id string) (first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[id]
	return e != nil && !e.minting && e.move(atOnce)
}

// reconsider makes every record due at once, unless its mint runs.
func (x *index) reconsider() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.entries {
		if !e.minting {
			e.move(atOnce)
		}
	}
}

// next is when the first record of each account is due.
func (x *index) next() map[string]time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	next := map[string]time.Time{}
	for account, s := range x.accounts {
		if due := s.byDue[0].due; due != never {
			next[account] = due.Time()
		}
	}
	return next
}

// due returns the ids of at most most of account's records that are due now,
// the first that was due first.
func (x *index) due(account string, now Time, most int) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.accounts[account]
	if s == nil {
		return nil
	}
	var ids []string
	// What lies below an entry in the heap is due no earlier than it.
	for below := []int{0}; len(below) > 0 && len(ids) < most; {
		first := 0
		for i, at := range below {
			if s.byDue[at].due < s.byDue[below[first]].due {
				first = i
			}
		}
		at := below[first]
		if s.byDue[at].due > now {
			break
		}
		below[first] = below[len(below)-1]
		below = below[:len(below)-1]
		ids = append(ids, s.byDue[at].id)
		for _, next := range []int{2*at + 1, 2*at + 2} {
			if next < len(s.byDue) {
				below = append(below, next)
			}
		}
	}
	return ids
}

// state is where the record stands, "" where it is not known.
func (x *index) state(id string) State {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entries[id]; e != nil {
		return states[e.state]
	}
	return ""
}

// held counts the places of account that are taken.
func (x *index) held(account string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.accounts[account]; s != nil {
		return s.held
	}
	return 0
}

// doubts counts what nobody knows the fate of, of account's.
func (x *index) doubts(account string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.accounts[account]; s != nil {
		return s.doubts
	}
	return 0
}

// heldBy counts the places of role that are taken.
func (x *index) heldBy(role string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.roles[role]; s != nil {
		return s.held
	}
	return 0
}

// counts tells how many entries are in each state.
func (x *index) counts() map[State]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	counts := map[State]int{}
	for _, e := range x.entries {
		counts[states[e.state]]++
	}
	return counts
}

// page returns the first most ids after after, in order, that f lets through. It
// sorts no more than it returns.
func (x *index) page(f Filter, after string, most int) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string // a heap: the last of those found so far lies on top
	last := (*latest)(&ids)
	for id, e := range x.entries {
		switch {
		case id <= after,
			f.Account != "" && e.shelf.account != f.Account,
			f.Role != "" && e.role.role != f.Role,
			f.State != "" && states[e.state] != f.State:
		case len(ids) < most:
			heap.Push(last, id)
		case most > 0 && id < ids[0]:
			ids[0] = id
			heap.Fix(last, 0)
		}
	}
	slices.Sort(ids)
	return ids
}

// latest is a heap of ids, the greatest on top.
type latest []string

// Len is how many there are.
func (l *latest) Len() int { return len(*l) }

// Less orders them backwards.
func (l *latest) Less(i, j int) bool { return (*l)[i] > (*l)[j] }

// Swap exchanges two.
func (l *latest) Swap(i, j int) { (*l)[i], (*l)[j] = (*l)[j], (*l)[i] }

// Push adds one at the end.
func (l *latest) Push(id any) { *l = append(*l, id.(string)) } //nolint:errcheck // heap.Push is called with nothing else

// Pop takes the last one off.
func (l *latest) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

func (x *index) latest() Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.newest
}

// names returns the accounts that have entries.
func (x *index) names() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Keys(x.accounts))
}

// list returns the ids of account's entries, of all where it is empty, that
// satisfy is, in no order.
func (x *index) list(account string, is func(*entry) bool) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	if account != "" { // its shelf alone, not a hundred thousand of others
		s := x.accounts[account]
		if s == nil {
			return nil
		}
		for _, e := range s.byDue {
			if is(e) {
				ids = append(ids, e.id)
			}
		}
		return ids
	}
	for id, e := range x.entries {
		if is(e) {
			ids = append(ids, id)
		}
	}
	return ids
}

// The methods that container/heap asks for.

// Len is how many entries lie on the shelf.
func (s *shelf) Len() int { return len(s.byDue) }

// Less orders the entries by when they are due.
func (s *shelf) Less(i, j int) bool { return s.byDue[i].due < s.byDue[j].due }

// Swap exchanges two entries.
func (s *shelf) Swap(i, j int) {
	s.byDue[i], s.byDue[j] = s.byDue[j], s.byDue[i]
	s.byDue[i].at, s.byDue[j].at = int32(i), int32(j) //nolint:gosec // positions in memory
}

// Push adds an entry at the end.
func (s *shelf) Push(e any) {
	added := e.(*entry)            //nolint:errcheck // heap.Push is called with nothing else
	added.at = int32(len(s.byDue)) //nolint:gosec // likewise
	s.byDue = append(s.byDue, added)
}

// Pop takes the last entry off.
func (s *shelf) Pop() any {
	last := s.byDue[len(s.byDue)-1]
	s.byDue[len(s.byDue)-1] = nil
	s.byDue = s.byDue[:len(s.byDue)-1]
	return last
}
