package backend

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"testing"

	"vault-plugin-secrets-jira/backend/ledger"
)

// A long outage leaves as many debts as there were leases. What memory keeps of each
// is little, and enough to tell of its payment what was told when it was taken.
func TestDebtsAreSmall(t *testing.T) {
	const many, most = 100_000, 150
	recordOf := func(i int, id string) *ledger.Record {
		r := ledger.Record{
			ID: id, State: ledger.Owed, Name: ledger.Name("k3xm2a", id, "deploy"), TokenID: fmt.Sprint(100_000 + i),
			Account: "ci-bot", Username: "ci-bot", Role: "deploy", Site: "https://jira.example.com",
			Reader: ledger.Reader{EntityID: "7d2e3179-f69b-450c-7179-ac8ee8bd8ca9", DisplayName: "approle-ci", RequestID: fmt.Sprint("request ", i)},
		}
		if i%2 == 0 {
			r.Type, r.Account, r.Username, r.UserKey = ephemeralUserTraits.stored, adminAccount, "vault-k3xm2a-"+id, fmt.Sprint("JIRAUSER", i)
		}
		stored, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		read := &ledger.Record{} // whose strings are nobody else's
		if err := json.Unmarshal(stored, read); err != nil {
			t.Fatal(err)
		}
		return read
	}
	inUse := func() uint64 {
		runtime.GC()
		runtime.GC() // what is weakly held goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	ids := make([]string, many)
	for i := range ids {
		ids[i] = ledger.NewID()
	}
	var d debts
	before := inUse()
	for i, id := range ids {
		if !d.take(recordOf(i, id)) {
			t.Fatal("not new")
		}
	}
	each := (inUse() - before) / many
	t.Logf("%d bytes each", each)
	if each > most {
		t.Errorf("a debt takes %d bytes, and %d is the most", each, most)
	}
	for i, id := range ids {
		want, have := recordOf(i, id), d.pay(id)
		if have == nil {
			t.Fatal("no debt")
		}
		// All that an event tells of a record.
		if told := (ledger.Record{ID: want.ID, Role: want.Role, Account: want.Account, Username: want.Username, Type: want.Type, TokenID: want.TokenID, Name: want.Name}); !reflect.DeepEqual(*have, told) {
			t.Fatalf("paid %+v, was %+v", *have, told)
		}
		if d.pay(id) != nil {
			t.Fatal("paid twice")
		}
	}
	if after := inUse(); after > before+1<<20 {
		t.Errorf("%d bytes are left of debts that are paid", after-before)
	}
}
