package backend

import (
	"strings"
	"sync"
	"unique"

	"vault-plugin-secrets-jira/backend/ledger"
)

// A debt is a credential of a lease that has to go and that Jira did not end at once. The
// ledger has what is owed; here it is counted and told, each once when it is taken and once
// when it is paid, whoever finds out and however many do at the same time.

// debts are those that were counted and are not paid. An outage can leave a hundred
// thousand, so of each there is only what its payment will tell, and once what many have in
// common. The zero value is ready for use.
type debts struct {
	mu sync.Mutex
	of map[string]owing // by the record's id
}

// owing is one debt.
type owing struct {
	tokenID string
	unique.Handle[terse]
}

// terse is the rest of what is told of a debt. Names hold the record's id, which
// stands for itself here, so that all debts of a role have one.
type terse struct {
	account, role, kind, username, name string
}

// itself stands in a name for the record's id. No name holds a control character.
const itself = "\x00"

// take notes the debt of r, and tells whether it is new.
func (d *debts) take(r *ledger.Record) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.of[r.ID]; known {
		return false
	}
	if d.of == nil {
		d.of = map[string]owing{}
	}
	d.of[r.ID] = owing{r.TokenID, unique.Make(terse{
		r.Account, r.Role, r.Type, strings.ReplaceAll(r.Username, r.ID, itself), strings.ReplaceAll(r.Name, r.ID, itself),
	})}
	return true
}

// pay strikes out the debt of record id, and returns of the record what is told, as it
// was when the debt was taken; nil where there is none.
func (d *debts) pay(id string) *ledger.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, owed := d.of[id]
	if !owed {
		return nil
	}
	delete(d.of, id)
	if len(d.of) == 0 {
		d.of = nil // a map keeps the room that it once took
	}
	t := o.Value()
	return &ledger.Record{
		ID: id, Account: t.account, Role: t.role, Type: t.kind, TokenID: o.tokenID,
		Username: strings.ReplaceAll(t.username, itself, id), Name: strings.ReplaceAll(t.name, itself, id),
	}
}

// debt counts, and tells, that the credential of r has to go and that Jira has not ended
// it, because of why. What the engine keeps for itself and gives up in its own time is no
// debt.
func (b *backend) debt(r *ledger.Record, why string) {
	if r.Kept != "" || !b.debts.take(r) {
		return
	}
	b.metrics.debts.WithLabelValues(unretired(r.Account)).Inc()
	b.eventOf(eventDebtCreate, tokenPath(r), r, nil, "reason", why)
}

// paid is the same of one that is proven gone, be it a debt or none.
func (b *backend) paid(id string) {
	r := b.debts.pay(id)
	if r == nil {
		return
	}
	b.metrics.settled.WithLabelValues(unretired(r.Account)).Inc()
	b.eventOf(eventDebtPay, tokenPath(r), r, nil)
}
