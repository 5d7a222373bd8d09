package backend

import (
	"sync"

	"vault-plugin-secrets-jira/backend/ledger"
)

// A debt is a credential of a lease that has to go and that Jira did not end at once. The
// ledger has what is owed; here it is counted and told, each once when it is taken and once
// when it is paid, whoever finds out and however many do at the same time.

// debts are those that were counted and are not paid. The zero value is ready for use.
type debts struct {
	mu sync.Mutex
	of map[string]*ledger.Record
}

// take notes the debt of r, and tells whether it is new.
func (d *debts) take(r *ledger.Record) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of[r.ID] != nil {
		return false
	}
	if d.of == nil {
		d.of = map[string]*ledger.Record{}
	}
	one := *r
	d.of[r.ID] = &one
	return true
}

// pay strikes out the debt of record id, and returns the record as it was taken; nil where
// there is none.
func (d *debts) pay(id string) *ledger.Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.of[id]
	delete(d.of, id)
	return r
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
