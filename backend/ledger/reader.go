package ledger

import "hash/maphash"

// readerShares counts, of each role, the places that each reader takes. Of a reader there is
// only a hash: there can be as many as there are records. The zero value is not ready
// for use.
type readerShares struct {
	seed maphash.Seed
	of   map[uint64]*readerShare
}

// readerShare is what one reader has of one role.
type readerShare struct {
	key     uint64
	held    int32 // places
	entries int32 // that there are, whether or not they take a place
}

func newReaders() readerShares {
	return readerShares{seed: maphash.MakeSeed(), of: map[uint64]*readerShare{}}
}

// key is that of who asked for r, and of r's role. A request without an entity, as of a
// root token, is told apart by its token's display name.
func (x *readerShares) key(r *Record) uint64 {
	kind, who := byte('e'), r.Reader.EntityID
	if who == "" {
		kind, who = 'd', r.Reader.DisplayName
	}
	var h maphash.Hash
	h.SetSeed(x.seed)
	_, _ = h.WriteString(r.Role) // it never fails
	_ = h.WriteByte(0)           // it never fails
	_ = h.WriteByte(kind)        // it never fails
	_, _ = h.WriteString(who)    // it never fails
	return h.Sum64()
}

// held counts the places of r's role that who asked for r takes.
func (x *readerShares) held(r *Record) int {
	if s := x.of[x.key(r)]; s != nil {
		return int(s.held)
	}
	return 0
}

// enter notes one more entry, of r.
func (x *readerShares) enter(r *Record) *readerShare {
	key := x.key(r)
	s := x.of[key]
	if s == nil {
		s = &readerShare{key: key}
		x.of[key] = s
	}
	s.entries++
	return s
}

// leave notes that an entry of s, which takes no place any more, is gone.
func (x *readerShares) leave(s *readerShare) {
	if s.entries--; s.entries == 0 {
		delete(x.of, s.key)
	}
}
