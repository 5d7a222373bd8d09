package ledger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// FuzzRecord: what lies in storage is a record of that id in a state that is
// known, which is kept as it is, or it is an error; and either way it can be
// counted, owed and removed.
func FuzzRecord(f *testing.F) {
	const id = "5b2tq6hznr4wjd7c"
	for _, value := range []string{
		`{"id":"` + id + `","state":"issued","name":"vault-k3xm2a-` + id + `-r","token_id":"412","account":"ci","reader":{"entity_id":"e"},"intended_at":1772439309100,"lease_end":1772442909200}`,
		`{"id":"` + id + `","state":"intended","account":"ci"}`, `{"id":"` + id + `","state":"intended","account":"ci","sought_at":1}`, `{"id":"` + id + `","state":"owed","account":"","owed_at":-1}`,
		`{"id":"` + id + `","state":"issued","lease_end":9223372036854775807,"expires":-9223372036854775808}`,
		`{"id":"` + id + `","state":"Issued"}`, `{"id":"aaaaaaaaaaaaaaaa","state":"issued"}`, `{"ID":"` + id + `","sTate":"owed","more":[1]}`,
		`{"id":"` + id + `","state":"issued","lease_end":1.5}`, `{"id":7}`, `null`, `[]`, ``, `{"id":"` + id + `","state":"owed"}{}`,
	} {
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		l := newLedger()
		put := func(value []byte) {
			if err := l.storage.Put(t.Context(), &logical.StorageEntry{Key: "5b/" + id, Value: value}); err != nil {
				t.Fatal(err)
			}
		}
		put(value)
		r, err := l.Read(t.Context(), id)
		if loadErr := l.Load(t.Context()); loadErr != nil || !l.Whole() || (len(l.Damaged()) == 0) != (err == nil) {
			t.Errorf("%q: Read says %v, Load %v, and damaged is %+v", value, err, loadErr, l.Damaged())
		}
		if err != nil {
			if r != nil || len(l.IDs("")) != 0 || !strings.Contains(err.Error(), id) {
				t.Errorf("%q is read as %+v, %v", value, r, err)
			}
			if oweErr := l.Owe(t.Context(), id, "1"); oweErr == nil {
				t.Errorf("%q: it was changed though it cannot be read: %v", value, err)
			}
		} else {
			if r.ID != id || !slices.Contains([]ledger.State{ledger.Intended, ledger.Issued, ledger.Owed}, r.State) {
				t.Errorf("%q is read as %+v", value, r)
			}
			once, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			put(once)
			again, err := l.Read(t.Context(), id)
			if err != nil || *again != *r {
				t.Errorf("%q is read as %+v, and that as %+v, %v", value, r, again, err)
			}
			if twice, err := json.Marshal(again); err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%s is written as %s, %v", once, twice, err)
			}
			if held := l.Held(r.Account); (held == 1) == (r.State == ledger.Intended && r.SoughtAt != 0) || !slices.Equal(l.IDs(r.Account), []string{id}) {
				t.Errorf("%s holds %d places, of %v", once, held, l.IDs(r.Account))
			}
			if err := l.Owe(t.Context(), id, "1"); err != nil || l.Held(r.Account) != 1 || l.stored(t, id) != "owed" {
				t.Errorf("%s cannot be owed: %v, and holds %d places", once, err, l.Held(r.Account))
			}
		}
		if err := l.Forget(t.Context(), id); err != nil || len(l.IDs("")) != 0 {
			t.Errorf("%q cannot be removed: %v", value, err)
		}
		if _, err := l.Read(t.Context(), id); !errors.Is(err, ledger.ErrMissing) {
			t.Errorf("%q is still there: %v", value, err)
		}
	})
}

// idOf spells n as an id of so many characters.
func idOf(n uint64, size int) string {
	var b strings.Builder
	for range size {
		b.WriteByte("abcdefghijklmnopqrstuvwxyz234567"[n%32])
		n = n/32 ^ n<<40
	}
	return b.String()
}

// FuzzName: a credential's name fits into Jira, is known by its own record
// however Jira changes it behind the ids, and by no other.
func FuzzName(f *testing.F) {
	for _, role := range []string{"", "readonly", "Ünïcode/..", strings.Repeat("x", 300), "a\x00\xff"} {
		for _, other := range []string{"", "vault-", "vault-aaaaaa-aaaaaaaaaaaaaaaa-", "VAULT-AAAAAA-AAAAAAAAAAAAAAAA-\u212a"} {
			f.Add(uint64(0), uint64(1), role, other)
		}
	}
	f.Fuzz(func(t *testing.T, m, n uint64, role, other string) {
		mount, id := idOf(m, 6), idOf(n, 16)
		name := ledger.Name(mount, id, role)
		if len(name) > 40 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) || !strings.HasPrefix(name, "vault-"+mount+"-"+id+"-") {
			t.Errorf("it is called %q", name)
		}
		r := &ledger.Record{ID: id, Name: name}
		for _, spelt := range []string{name, strings.ToUpper(name)} {
			if m, n, ok := ledger.ParseName(spelt); !ok || m != mount || n != id {
				t.Errorf("%q is taken apart into %q and %q, %v", spelt, m, n, ok)
			}
		}
		ascii := !strings.ContainsFunc(other, func(r rune) bool { return r > '~' })
		if m, n, ok := ledger.ParseName(other); ok && ascii && !(&ledger.Record{ID: n, Name: ledger.Name(m, n, "")}).Named(other) {
			t.Errorf("%q is taken apart into %q and %q, whose name it is not", other, m, n)
		}
		handle := "vault-" + mount + "-" + id + "-"
		for _, known := range []string{name, handle, handle + other, strings.ToUpper(name)} {
			if !r.Named(known) {
				t.Errorf("%q is not known as %q", name, known)
			}
		}
		for _, unknown := range []string{
			ledger.Name(mount, idOf(n+1, 16), role), ledger.Name(idOf(m+1, 6), id, role), handle[1:] + role, "x" + name, handle[:len(handle)-1],
		} {
			if r.Named(unknown) && !strings.HasPrefix(unknown, handle) {
				t.Errorf("%q is known as %q", name, unknown)
			}
		}
		if r.Named(other) && !strings.EqualFold(other[:len(handle)], handle) {
			t.Errorf("%q is known as %q", name, other)
		}
		if (&ledger.Record{ID: id, Name: other}).Named(name) && !strings.EqualFold(other[:len(handle)], handle) {
			t.Errorf("%q is known as %q", other, name)
		}
	})
}

// FuzzTime: a moment comes back from a record as it went in, a millisecond late
// at most and never early.
func FuzzTime(f *testing.F) {
	for _, ns := range []int64{0, 1, 999_999, 1_000_000, -1, start.UnixNano()} {
		f.Add(ns)
	}
	f.Fuzz(func(t *testing.T, ns int64) {
		moment := time.Unix(0, ns)
		if ns > 1<<62 || ns < -1<<62 || time.Duration(ns).Abs() < time.Millisecond {
			t.Skip("no time that a record has") // and zero is none at all
		}
		at := ledger.At(moment)
		if late := at.Time().Sub(moment); late < 0 || late >= time.Millisecond || ledger.At(at.Time()) != at {
			t.Errorf("%v comes back as %v", moment, at)
		}
		if read, err := time.Parse(time.RFC3339Nano, at.String()); err != nil || !read.Equal(at.Time()) {
			t.Errorf("%v is told as %v, %v", moment, at, err)
		}
	})
}
