// Command vulncheck reads what "govulncheck -format json" has found and fails if the code reaches a vulnerability that a
// newer version of a module fixes. It only warns of a vulnerability in the standard library, because the fix is a newer Go
// where the plugin is built, and of one that has no fix yet.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vulncheck:", err)
		os.Exit(1)
	}
}

// message is one object of govulncheck's output; the kinds that are not needed are left out.
type message struct {
	Config  *struct{}
	OSV     *struct{ ID, Summary string }
	Finding *struct {
		OSV          string
		FixedVersion string `json:"fixed_version"` // empty: there is no fix
		Trace        []frame
	}
}

// frame is one call on the way to the vulnerable function. The first is that function, the last is in the code checked.
type frame struct {
	Module, Version, Package, Function string

	Position struct {
		Filename string
		Line     int
	}
}

// vulnerability is one in a module that the code reaches.
type vulnerability struct {
	id, module, version, fixed string
	caller                     string // where the checked code calls towards it
}

const standardLibrary = "stdlib" // govulncheck's name for it

// run writes what it has read of vulnerabilities, and returns an error if one must be fixed or the input is not whole.
func run(in io.Reader, out io.Writer) error {
	found, summaries, err := read(in)
	if err != nil {
		return err
	}
	toFix := 0
	var standard []string // ids
	using, needed := "", ""
	for _, v := range found {
		if v.module == standardLibrary && v.fixed != "" {
			standard, using = append(standard, v.id), goVersion(v.version)
			if fixed := goVersion(v.fixed); version.Compare(fixed, needed) > 0 {
				needed = fixed
			}
			continue
		}
		word, fix := "WARNING", "no version fixes it yet"
		if v.fixed != "" {
			word, fix = "ERROR", "fixed in "+v.fixed
			toFix++
		}
		fmt.Fprintf(out, "%s: %s %s has %s (%s), %s; %s leads there\n", word, v.module, v.version, v.id, summaries[v.id], fix, v.caller)
	}
	if len(standard) > 0 {
		fmt.Fprintf(out, "WARNING: the standard library of %s has %s; build what you ship with %s or newer\n",
			using, strings.Join(standard, ", "), needed)
	}
	if toFix > 0 {
		return fmt.Errorf("of these, %d have a fix: raise the modules with go get", toFix)
	}
	fmt.Fprintln(out, "No module that the code uses has a reachable vulnerability with a fix.")
	return nil
}

// read returns the reachable vulnerabilities, one per id and module, by module and id, and the summaries by id.
func read(in io.Reader) ([]vulnerability, map[string]string, error) {
	configured := false
	var found []vulnerability
	seen := map[[2]string]bool{}
	summaries := map[string]string{}
	for d := json.NewDecoder(in); ; {
		var m message
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, nil, fmt.Errorf("reading govulncheck's output: %w", err)
		}
		configured = configured || m.Config != nil
		if m.OSV != nil {
			summaries[m.OSV.ID] = m.OSV.Summary
		}
		// Without a function it is a module or a package that is vulnerable in parts that the code does not call.
		if m.Finding == nil || len(m.Finding.Trace) == 0 || m.Finding.Trace[0].Function == "" {
			continue
		}
		at := m.Finding.Trace[0]
		if key := [2]string{m.Finding.OSV, at.Module}; !seen[key] {
			seen[key] = true
			found = append(found, vulnerability{m.Finding.OSV, at.Module, at.Version, m.Finding.FixedVersion, caller(m.Finding.Trace)})
		}
	}
	// Every Go has had vulnerabilities, so a database that knows none is not one.
	if !configured || len(summaries) == 0 {
		return nil, nil, errors.New("this is not the output of a scan with a database; run make vulncheck")
	}
	slices.SortFunc(found, func(a, b vulnerability) int {
		return strings.Compare(a.module+" "+a.id, b.module+" "+b.id)
	})
	return found, summaries, nil
}

// goVersion is what Go itself calls a version of the standard library.
func goVersion(v string) string { return "go" + strings.TrimPrefix(v, "v") }

// caller is the line of the checked code that is nearest to the vulnerable function.
func caller(trace []frame) string {
	own := trace[len(trace)-1].Module
	i := slices.IndexFunc(trace, func(f frame) bool { return f.Module == own })
	return fmt.Sprintf("%s:%d", trace[i].Position.Filename, trace[i].Position.Line)
}
