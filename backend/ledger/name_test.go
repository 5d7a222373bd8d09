package ledger_test

import (
	"regexp"
	"strings"
	"testing"

	"vault-plugin-secrets-jira/backend/ledger"
)

func TestName(t *testing.T) {
	const handle = "vault-k3xm2a-5b2tq6hznr4wjd7c-"
	for role, want := range map[string]string{
		"":                         "",
		"r":                        "r",
		"readonly":                 "readonly",
		"ten-chars.":               "ten-chars.",
		"eleven-char":              "eleven-cha",
		strings.Repeat("r", 200):   "rrrrrrrrrr",
		"Ünïcode":                  "_n_code",
		strings.Repeat("日本", 100):  "__________",
		"a b/c\n\"d\x00\xff":       "a_b_c__d__",
		"Release_2.0-x":            "Release_2.",
		"azAZ09_-.":                "azAZ09_-.", // the first and the last of each kind
		"`{@[/:+":                  "_______",   // and what lies beside them
		"\U0001F512\U0001F512safe": "__safe",
	} {
		have := ledger.Name("k3xm2a", "5b2tq6hznr4wjd7c", role)
		if have != handle+want {
			t.Errorf("role %q: %q, want %q", role, have, handle+want)
		}
		if len(have) > 40 {
			t.Errorf("role %q: %q has %d characters", role, have, len(have))
		}
	}
}

func TestNamed(t *testing.T) {
	id := ledger.NewID()
	r := &ledger.Record{ID: id, Name: ledger.Name("k3xm2a", id, "readonly")}
	for name, want := range map[string]bool{
		r.Name:                        true,
		ledger.Name("k3xm2a", id, ""): true, // Jira may cut the role off
		ledger.Name("k3xm2a", id, "readonly") + " (2)":    true,
		ledger.Name("k3xm2a", ledger.NewID(), "readonly"): false,
		ledger.Name("aaaaaa", id, "readonly"):             false,
		"x" + r.Name:                                      false,
		strings.ToUpper(r.Name):                           true, // a Jira that changes the case
		"vault-k3xm2a-":                                   false,
		"vault-k3xm2a-" + id:                              false,
		"":                                                false,
	} {
		if r.Named(name) != want {
			t.Errorf("Named(%q) is %v", name, !want)
		}
	}
	for _, name := range []string{"", "vault-", "vault-k3xm2a-"} {
		other := &ledger.Record{ID: id, Name: name}
		if other.Named(r.Name) || other.Named("") || other.Named(name) {
			t.Errorf("a record whose name is %q takes others' tokens for its own", name)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, test := range []struct {
		make    func() string
		pattern string
		many    int // how many can be made without two being alike by chance
	}{
		{ledger.NewID, `^[a-z2-7]{16}$`, 10_000},
		{ledger.NewMountID, `^[a-z2-7]{6}$`, 100},
	} {
		seen := map[string]bool{}
		letters := map[rune]bool{}
		for range test.many {
			id := test.make()
			if !regexp.MustCompile(test.pattern).MatchString(id) {
				t.Fatalf("%q does not match %s", id, test.pattern)
			}
			if seen[id] {
				t.Fatalf("%q was made twice", id)
			}
			seen[id] = true
			for _, r := range id {
				letters[r] = true
			}
		}
		if len(letters) != 32 {
			t.Errorf("only %d of 32 characters are used", len(letters))
		}
	}
}

func TestParseName(t *testing.T) {
	id := ledger.NewID()
	for name, want := range map[string]bool{
		ledger.Name("k3xm2a", id, "readonly"):                  true,
		strings.ToUpper(ledger.Name("k3xm2a", id, "r")):        true, // whatever Jira does to it
		ledger.Name("k3xm2a", id, ""):                          true,
		"vault-k3xm2a-" + id:                                   false, // cut
		"vault-k3xm1a-" + id + "-r":                            false, // 1 is no digit of base32
		"vault-k3xm2a-" + id[:15] + "0-r":                      false,
		"vault-k3xm2a+" + id + "-r":                            false,
		"vault-k3xm2a-" + id + "+r":                            false,
		"fault-k3xm2a-" + id + "-r":                            false,
		"vault-k3xm2a" + id + "-readonly":                      false,
		"made by hand":                                         false,
		"":                                                     false,
		"vault-" + strings.Repeat("\u0130", 40):                false, // lower-cased, it changes its length
		strings.Repeat("\u0130", 6) + "-" + id + id + id + "-": false,
	} {
		mount, have, ok := ledger.ParseName(name)
		if ok != want || ok && (mount != "k3xm2a" || have != id) {
			t.Errorf("%q: %q, %q, %v", name, mount, have, ok)
		}
	}
	// The first and the last letter and digit that an id can have.
	if mount, have, ok := ledger.ParseName("vault-az27az-az27az27az27az27-r"); !ok || mount != "az27az" || have != "az27az27az27az27" {
		t.Errorf("got %q, %q, %v", mount, have, ok)
	}
}
