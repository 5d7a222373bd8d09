package picture

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/prometheus"

	"vault-plugin-secrets-jira/scripts/monitoring/dashboard"
)

const began = 1767225600000 // milliseconds since 1970

// scraped writes scrapes, ten seconds apart; what text returns nothing of is missing.
func scraped(t *testing.T, n int, text func(i int) string) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		if s := text(i); s != "" {
			write(t, filepath.Join(dir, fmt.Sprintf("%d.prom", began+10_000*i)), s)
		}
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// asked is what a query tells of what was scraped.
func asked(t *testing.T, dir, expr string) []line {
	t.Helper()
	r, err := record(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	lines, err := newAsker(r).ask(t.Context(), prometheus.Dataquery{Expr: expr, LegendFormat: new("of {{role}}")})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// A plugin that was killed begins to count anew: that is no fall, and nothing is lost but
// what was counted since the last scrape.
func TestCountersBeginAnew(t *testing.T) {
	lines := asked(t, scraped(t, 61, func(i int) string {
		return fmt.Sprintf("# TYPE mints_total counter\nmints_total{role=\"ci\"} %d\n", i%20*5)
	}), `60 * sum by (role) (rate(mints_total[$__rate_interval]))`)
	if len(lines) != 1 || lines[0].name != "of ci" {
		t.Fatalf("%v", lines)
	}
	known := 0
	for i, v := range lines[0].values {
		if math.IsNaN(v) {
			continue
		}
		known++
		if known > 2 && (v < 15 || v > 30.001) { // the first two rates are of less than what they are taken over
			t.Errorf("at point %d there are %v a minute, and 5 in ten seconds were made", i, v)
		}
	}
	if known < 55 {
		t.Errorf("%d points are known", known)
	}
}

// Where nothing was scraped there is a gap, and a series that is not told any more has
// ended.
func TestGaps(t *testing.T) {
	lines := asked(t, scraped(t, 60, func(i int) string {
		switch {
		case i >= 20 && i < 30:
			return ""
		case i >= 50:
			return "held{role=\"other\"} 1\n"
		}
		return "held{role=\"ci\"} 3\nheld{role=\"other\"} 1\n"
	}), `held`)
	if len(lines) != 2 || lines[0].name != "of ci" {
		t.Fatalf("%v", lines)
	}
	for i, v := range lines[0].values {
		want := 3.0
		if i >= 20 && i < 30 || i >= 50 {
			want = math.NaN()
		}
		if !same(v, want) {
			t.Errorf("at point %d it is %v instead of %v", i, v, want)
		}
	}
}

func TestRangeIsTheWholeTest(t *testing.T) {
	lines := asked(t, scraped(t, 361, func(i int) string { return fmt.Sprintf("panics_total %d\n", i) }), `increase(panics_total[$__range])`)
	if v, known := lines[0].last(); !known || math.Abs(v-360) > 1.5 {
		t.Errorf("%v of 360", v)
	}
}

// all is a scrape that has something for each panel of the dashboard.
func all(i int) string {
	var b strings.Builder
	tell := func(v float64, series ...string) {
		for _, s := range series {
			fmt.Fprintf(&b, "vault_jira_%s %v\n", s, v)
		}
	}
	tell(float64(i), `mints_total{role="ci",result="success"}`, `mints_total{role="ci",result="error"}`, `renewals_total{role="ci",result="success"}`,
		`revokes_total{role="ci",result="success"}`, `debts_settled_total{account="ci-bot"}`, `jira_requests_total{method="GET",class="2xx"}`,
		`jira_request_duration_seconds_bucket{method="GET",le="0.1"}`, `jira_request_duration_seconds_bucket{method="GET",le="+Inf"}`)
	tell(1, `rotations_total{of="ci-bot",result="success"}`, `ledger_whole`, `rotation_failing{of="ci-bot"}`)
	tell(4, `ledger_records{state="issued"}`, `ledger_records{state="owed"}`, `account_tokens_held{account="ci-bot"}`, `tidy_findings{kind="orphans"}`, `jira_rate_limit_remaining`)
	tell(8, `account_tokens_most{account="ci-bot"}`)
	tell(90, `oldest_debt_seconds`)
	tell(0, `gate_shut_seconds`, `panics_total`)
	tell(began/1000-86400, `tidy_finished_timestamp_seconds`)
	tell(began/1000+30*86400, `credential_expires_timestamp_seconds{of="ci-bot"}`)
	return b.String()
}

func TestPicture(t *testing.T) {
	text, err := dashboard.JSON()
	if err != nil {
		t.Fatal(err)
	}
	dir := scraped(t, 90, all)
	drawn := drawnTo(t, text, dir, "picture.svg")
	shows := func(words string) bool { return bytes.Contains(drawn, []byte(">"+words+"<")) }
	_, panels, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range panels {
		if p.RowPanel != nil {
			if !shows(*p.RowPanel.Title) {
				t.Errorf("the row %q is not there", *p.RowPanel.Title)
			}
			continue
		}
		if !shows(*p.Panel.Title) {
			t.Errorf("the panel %q is not there", *p.Panel.Title)
		}
		if nothing := (panel{*p.Panel}).nothing(); shows(nothing) {
			t.Errorf("the panel %q says %q, and there is something", *p.Panel.Title, nothing)
		}
	}
	// Of mappings, units, legends and overrides one each.
	for _, words := range []string{"read", "open", "1.5 min", "50%", "ci success", "p99", "failed", "ago (right)", "12 hours", "6 /min"} {
		if !shows(words) {
			t.Errorf("%q is not there", words)
		}
	}
	size, err := png.DecodeConfig(bytes.NewReader(drawnTo(t, text, dir, "picture.png")))
	if err != nil || size.Width != 24*column+gap {
		t.Errorf("%v, %v", size, err)
	}
}

func drawnTo(t *testing.T, text []byte, dir, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	if err := Draw(t.Context(), text, dir, out); err != nil {
		t.Fatal(err)
	}
	drawn, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return drawn
}

func TestWhatCannotBeDrawn(t *testing.T) {
	text, err := dashboard.JSON()
	if err != nil {
		t.Fatal(err)
	}
	good, torn, misnamed := scraped(t, 9, all), scraped(t, 9, all), scraped(t, 9, all)
	write(t, filepath.Join(torn, "1767225690000.prom"), "vault_jira_ledger_whole 1\nvault_jira_pan")
	write(t, filepath.Join(misnamed, "last.prom"), "vault_jira_ledger_whole 1\n")
	with := func(old, other string) string { return strings.ReplaceAll(string(text), old, other) }
	for name, c := range map[string]struct{ text, dir, out, why string }{
		"nothing":          {string(text), t.TempDir(), "a.png", "0 scrapes"},
		"a torn scrape":    {string(text), torn, "a.png", "1767225690000.prom"},
		"a misnamed one":   {string(text), misnamed, "a.png", "last.prom"},
		"another format":   {string(text), good, "a.gif", ".svg nor a .png"},
		"no dashboard":     {"{", good, "a.png", "reading the dashboard"},
		"an unknown panel": {with(`"state-timeline"`, `"heatmap"`), good, "a.png", "no picture of a heatmap"},
		"no PromQL":        {with(`"min(vault_jira_ledger_whole)"`, `"min("`), good, "a.png", `panel "Ledger"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := Draw(t.Context(), []byte(c.text), c.dir, filepath.Join(t.TempDir(), c.out))
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, and not %q", err, c.why)
			}
		})
	}
}
