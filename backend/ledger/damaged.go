package ledger

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
)

// A record that makes no sense to this version cannot be acted on: nobody knows
// what it is of. It holds up nothing else. It stays in storage, for a newer
// version or a person, until [Ledger.Forget] removes it.

// Damaged is what can be told of a record that makes no sense. Its fields are
// empty where not even they could be read.
type Damaged struct {
	ID      string
	Why     string // what is wrong with it
	Size    int    // in bytes
	Account string
	Name    string // the credential's name in Jira
	TokenID string // Jira's id of it
}

// damaged are the records that were found to make no sense. The zero value is
// ready for use.
type damaged struct {
	mu sync.Mutex
	of map[string]Damaged
}

// add notes a record that does not decode, and what can be told of it all the
// same.
func (d *damaged) add(id string, value []byte, why error) {
	one := Damaged{ID: id, Why: why.Error(), Size: len(value)}
	fields := map[string]json.RawMessage{}
	_ = json.Unmarshal(value, &fields) // what does not parse tells nothing
	for field, to := range map[string]*string{"account": &one.Account, "name": &one.Name, "token_id": &one.TokenID} {
		text := ""
		if json.Unmarshal(fields[field], &text) == nil {
			*to = cut(text, mostOfReader)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[string]Damaged{}
	}
	d.of[id] = one
}

// drop forgets a record that is gone, or makes sense. It tells whether it was
// damaged.
func (d *damaged) drop(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, was := d.of[id]
	delete(d.of, id)
	return was
}

// Damaged returns the records that storage has and that make no sense to this
// version, by id: those that this process has come upon. See [Ledger.Whole].
func (l *Ledger) Damaged() []Damaged {
	l.damaged.mu.Lock()
	defer l.damaged.mu.Unlock()
	all := make([]Damaged, 0, len(l.damaged.of))
	for _, one := range l.damaged.of {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Damaged) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
