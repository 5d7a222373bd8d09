package ledger_test

import (
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/ledger"
)

// issued is a record of a token with this id, which a lease holds.
func (f *fixture) issued(t *testing.T, site, tokenID string) *ledger.Record {
	t.Helper()
	id := ledger.NewID()
	r := &ledger.Record{ID: id, Name: ledger.Name("k3xm2a", id, "r"), Site: site, Account: "ci"}
	if err := f.Intend(t.Context(), r, ledger.Room{}); err != nil {
		t.Fatal(err)
	}
	r.TokenID = tokenID
	if err := f.Issue(t.Context(), r, time.Hour); err != nil {
		t.Fatal(err)
	}
	f.Over(id)
	return r
}

// TestRestoredSite: an id that is given out again, or a lower one than before,
// shows that Jira was restored. Records from before are doubted then, on this node
// and on the next, and those from after are not.
func TestRestoredSite(t *testing.T) {
	const site, other = "https://jira.example.com", "https://other.example.com"
	for name, test := range map[string]struct {
		tokenID string
		shows   bool
	}{
		"the next id":                       {"418", false},
		"the id of a record":                {"412", true},
		"a lower id than those before":      {"100", true},
		"the highest id, of a gone record":  {"417", true},
		"an id that is no number":           {"ATAT3x", false},
		"an id of a record, and no number":  {"ATAT1x", true},
		"an id beyond what Jira can count":  {"99999999999999999999999999", false},
		"the id of a record of other sites": {"900", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLedger()
			before := f.issued(t, site, "412")
			f.issued(t, site, "ATAT1x")
			elsewhere := f.issued(t, other, "900")
			gone := f.issued(t, site, "417")
			if err := f.Forget(t.Context(), gone.ID); err != nil {
				t.Fatal(err)
			}
			highest := f.Highest(site)
			if highest != 417 {
				t.Errorf("the highest id is %d, want 417", highest)
			}
			shows, err := f.Restored(t.Context(), site, test.tokenID, highest)
			if err != nil || shows != test.shows {
				t.Errorf("%v, %v, want %v", shows, err, test.shows)
			}
			f.now = f.now.Add(time.Second)
			after := f.issued(t, site, "418")
			next := ledger.New(f.storage, time.Now)
			if err := next.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			for node, l := range map[string]*ledger.Ledger{"this node": f.Ledger, "the next node": next} {
				if l.Doubted(before) != test.shows || l.Doubted(elsewhere) || l.Doubted(after) {
					t.Errorf("%s: before the restore doubted is %v, of another site %v, after it %v", node, l.Doubted(before), l.Doubted(elsewhere), l.Doubted(after))
				}
				if !l.Doubted(&ledger.Record{Site: site}) {
					t.Errorf("%s: what the ledger did not make is not doubted", node)
				}
				if l.Highest(site) != 418 {
					t.Errorf("%s: the highest id is %d, want 418", node, l.Highest(site))
				}
			}
		})
	}
}

// TestKnownTokens: the index finds ids by site, and forgets them with their records.
func TestKnownTokens(t *testing.T) {
	const site = "https://jira.example.com"
	f := newLedger()
	one, twin := f.issued(t, site, "412"), f.issued(t, site, "412")
	if !f.Known(site, "412") || f.Known("https://other.example.com", "412") || f.Known(site, "41") || f.Known(site, "") {
		t.Error("known is not what is there")
	}
	for _, r := range []*ledger.Record{one, twin} {
		if !f.Known(site, "412") {
			t.Error("a record has it still")
		}
		if err := f.Forget(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if f.Known(site, "412") {
		t.Error("no record has it")
	}
}

// TestBounds: whatever a reader brings along, a record has room for all that it may
// become, and one that would not is refused before anything is made.
func TestBounds(t *testing.T) {
	huge := strings.Repeat("<", 1<<20) // of which JSON makes six bytes each
	f := newLedger()
	r := &ledger.Record{ID: ledger.NewID(), Account: "ci", Reader: ledger.Reader{
		EntityID: huge, DisplayName: huge, RemoteAddress: huge, RequestID: huge, Metadata: huge,
	}.Cut()}
	if err := f.Intend(t.Context(), r, ledger.Room{}); err != nil {
		t.Fatal(err)
	}
	if n := len(r.Reader.DisplayName); n > 256 || !strings.HasSuffix(r.Reader.DisplayName, "<…") {
		t.Errorf("a display name of %d bytes: %.20s", n, r.Reader.DisplayName)
	}
	if cut := (ledger.Reader{DisplayName: strings.Repeat("ä", 200)}).Cut().DisplayName; !strings.HasSuffix(cut, "ä…") || len(cut) > 256 {
		t.Errorf("not cut between letters: %q", cut)
	}
	short := ledger.Reader{DisplayName: "token-app", Metadata: "nightly"}
	if short.Cut() != short {
		t.Error("what is short was changed")
	}
	large := &ledger.Record{ID: ledger.NewID(), Account: "ci", Username: strings.Repeat("x", 64<<10)}
	if err := f.Intend(t.Context(), large, ledger.Room{}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("an intent of more than 64 KiB: %v", err)
	}
	if f.Held("ci") != 1 {
		t.Errorf("%d held, want 1: what is refused takes no place", f.Held("ci"))
	}
}
