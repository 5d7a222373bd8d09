package main

import (
	"strings"
	"testing"
)

const (
	scanned = `{"config":{"protocol_version":"v1.0.0"}} {"progress":{"message":"…"}} {"osv":{"id":"GO-1","summary":"a loop"}} {"osv":{"id":"GO-2"}} {"osv":{"id":"GO-10"}}`
	ours    = `{"module":"ours","package":"ours/jira","function":"send","position":{"filename":"jira/request.go","line":7}},{"module":"ours","package":"ours/cmd","function":"main","position":{"filename":"cmd/main.go","line":3}}`
)

func finding(id, fixed, first string) string {
	return `{"finding":{"osv":"` + id + `","fixed_version":"` + fixed + `","trace":[` + first + `,` + ours + `]}}`
}

func TestRun(t *testing.T) {
	const (
		module   = `{"module":"golang.org/x/net","version":"v0.52.0","package":"golang.org/x/net/http2","function":"Do","position":{"filename":"http2/t.go","line":1}}`
		imported = `{"module":"golang.org/x/net","version":"v0.52.0","package":"golang.org/x/net/http2"}`
		standard = `{"module":"stdlib","version":"v1.26.8","package":"net/http","function":"Do"}`
	)
	for _, c := range []struct {
		name, in string
		fails    bool
		wants    []string // in the output or the error
		not      string
	}{
		{name: "nothing is found", in: scanned, wants: []string{"No module"}, not: "WARNING"},
		{
			name: "a module has a fix", in: scanned + finding("GO-1", "v0.60.0", module) + finding("GO-1", "v0.60.0", module), fails: true,
			wants: []string{
				"ERROR: golang.org/x/net v0.52.0 has GO-1 (a loop), fixed in v0.60.0; jira/request.go:7 leads there\n",
				"1 have a fix",
			},
		},
		{name: "a module has none", in: scanned + finding("GO-1", "", module), wants: []string{"WARNING: golang.org/x/net", "no version fixes it", "No module"}},
		{name: "a module is vulnerable where nobody calls it", in: scanned + finding("GO-1", "v0.60.0", imported), not: "GO-1"},
		{
			name:  "the standard library",
			in:    scanned + finding("GO-1", "v1.26.9", standard) + finding("GO-10", "v1.26.10", standard) + finding("GO-2", "v1.25.12", standard),
			wants: []string{"WARNING: the standard library of go1.26.8 has GO-1, GO-10, GO-2; build what you ship with go1.26.10 or newer", "No module"}, not: "ERROR",
		},
		{
			name: "both", in: scanned + finding("GO-1", "v1.26.9", standard) + finding("GO-1", "v0.60.0", module), fails: true,
			wants: []string{"WARNING: the standard library", "ERROR: golang.org/x/net", "go1.26.9 or newer"},
		},
		{name: "no output", in: "", fails: true, wants: []string{"not the output of a scan"}},
		{name: "an empty database", in: `{"config":{}}`, fails: true, wants: []string{"not the output of a scan"}},
		{name: "cut short", in: scanned + `{"finding":{`, fails: true, wants: []string{"reading govulncheck's output"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(c.in), &out)
			if (err != nil) != c.fails {
				t.Errorf("error %v, want one: %t", err, c.fails)
			}
			said := out.String()
			if err != nil {
				said += err.Error()
			}
			for _, want := range c.wants {
				if !strings.Contains(said, want) {
					t.Errorf("said %q, want %q in it", said, want)
				}
			}
			if c.not != "" && strings.Contains(said, c.not) {
				t.Errorf("said %q, want no %q in it", said, c.not)
			}
		})
	}
}
