package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// books hold what the engine counts of itself against what others have seen: Jira of calls, Vault's audit log of requests.
// They cover a time in which the plugin does not end, from one moment at which there is no lease to another.
type books struct {
	*world
	began map[string]float64
	audit int64 // how much of the audit log was written by then
}

// openBooks begins them, once there is no lease.
func (w *world) openBooks() *books {
	w.t.Helper()
	if poll(func() bool { return w.leases() == 0 }) != nil {
		w.t.Fatalf("%d roles have leases", w.leases())
	}
	w.patience = most // of a reader who gives up Vault and the engine may tell differently
	w.must(200, "DELETE", w.control+"calls", nil)
	b := &books{world: w, began: w.metrics()}
	size, err := os.Stat(b.log())
	if err != nil {
		w.t.Fatal(err)
	}
	b.audit = size.Size()
	return b
}

func (b *books) log() string { return filepath.Join(b.dir, "raw-audit.log") }

// close waits until what the engine has counted is what others have seen, to the unit, and fails the test if it never is.
func (b *books) close() {
	b.t.Helper()
	b.patience = 0
	var wrong []string
	seen := map[string]float64{}
	if poll(func() bool { // for a call may be on its way
		if left := b.leases(); left > 0 {
			wrong = []string{fmt.Sprintf("%d roles have leases", left)}
			return false
		}
		seen = b.seen()
		wrong = b.compare(seen, b.metrics())
		return len(wrong) == 0
	}) != nil {
		b.t.Errorf("the metrics do not agree with what others saw:\n%s", strings.Join(wrong, "\n"))
		return
	}
	sum := 0.0
	for name, n := range seen {
		if strings.HasPrefix(name, "vault_jira_jira_requests_total") {
			sum += n
		}
	}
	figure := fmt.Sprintf("metrics that agree with Jira and Vault: %d, on %.0f calls", len(seen)+3, sum)
	b.t.Log(figure)
	suite.figures.add(figures{lines: []string{figure}})
}

// seen is what others have seen since, by the names of what the engine counts.
func (b *books) seen() map[string]float64 {
	b.t.Helper()
	seen := b.audited()
	var calls []struct {
		Method, Path string
		Status       int
	}
	b.read(&calls, b.must(200, "GET", b.control+"calls", nil))
	for _, c := range calls {
		if strings.HasSuffix(c.Path, byApplication) {
			continue
		}
		class := fmt.Sprintf("%dxx", c.Status/100)
		switch c.Status {
		case 0:
			class = "none"
		case 429:
			class = "429"
		}
		seen[fmt.Sprintf(`vault_jira_jira_requests_total{class=%q,method=%q}`, class, c.Method)]++
		seen[fmt.Sprintf(`vault_jira_jira_request_duration_seconds{method=%q}`, c.Method)]++
	}
	return seen
}

// audited is what Vault's audit log has of it.
func (b *books) audited() map[string]float64 {
	b.t.Helper()
	seen := map[string]float64{}
	log, err := os.Open(b.log())
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	if _, err := log.Seek(b.audit, io.SeekStart); err != nil {
		b.t.Fatal(err)
	}
	for lines := json.NewDecoder(log); ; {
		var line struct {
			Type, Error string
			Request     struct{ Path string }
			Response    struct {
				Secret struct {
					LeaseID string `json:"lease_id"`
				}
			}
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return seen
		} else if err != nil {
			b.t.Fatal(err)
		}
		role, mint := strings.CutPrefix(line.Request.Path, "jira/creds/")
		switch {
		case line.Type != "response":
		case mint && line.Error == "":
			seen[fmt.Sprintf(`vault_jira_mints_total{result="success",role=%q}`, role)]++
		case mint:
			seen[fmt.Sprintf(`vault_jira_mints_total{result="error",role=%q}`, role)]++
		case line.Request.Path == "sys/leases/renew" && line.Error == "": // of a refused one Vault may not have asked the engine
			role := strings.Split(line.Response.Secret.LeaseID, "/")[2]
			seen[fmt.Sprintf(`vault_jira_renewals_total{result="success",role=%q}`, role)]++
		}
	}
}

// compare tells where now, less what there was when the books began, differs from what was seen.
func (b *books) compare(seen, now map[string]float64) (wrong []string) {
	since := func(name string) float64 { return now[name] - b.began[name] }
	check := func(what string, have, want float64) {
		if have != want {
			wrong = append(wrong, fmt.Sprintf("%s: the engine counts %v, and others %v", what, have, want))
		}
	}
	names := maps.Clone(seen)
	for name := range now { // what nobody else has seen must not be counted
		for _, kind := range []string{"jira_requests_total", "jira_request_duration_seconds", "mints_total", `renewals_total{result="success"`} {
			if strings.HasPrefix(name, "vault_jira_"+kind) {
				names[name] = 0
			}
		}
	}
	minted, ended := 0.0, 0.0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		check(name, since(name), seen[name])
		if strings.HasPrefix(name, `vault_jira_mints_total{result="success"`) {
			minted += since(name)
		}
	}
	for name := range now {
		if strings.HasPrefix(name, `vault_jira_revokes_total{result="success"`) || strings.HasPrefix(name, `vault_jira_revokes_total{result="taken_over"`) {
			ended += since(name)
		}
	}
	check("leases that were revoked, of those that were made", ended, minted)
	debts, settled := 0.0, 0.0
	for name := range now {
		switch {
		case strings.HasPrefix(name, "vault_jira_debts_total"):
			debts += since(name)
		case strings.HasPrefix(name, "vault_jira_debts_settled_total"):
			settled += since(name)
		}
	}
	// The intents that an engine before has left nobody counts. They stay for a day.
	left := since(`vault_jira_ledger_records{state="owed"}`) + since(`vault_jira_ledger_records{state="intended"}`)
	check("debts that are settled or left, of those that were taken", settled+left, debts)
	check("issued tokens, of those in Jira", now[`vault_jira_ledger_records{state="issued"}`], float64(len(b.live())))
	check("panics", now["vault_jira_panics_total"], 0)
	return wrong
}

// leases counts the roles that have any.
func (w *world) leases() int {
	w.t.Helper()
	status, answer := w.send("LIST", w.addr+"/v1/sys/leases/lookup/jira/creds", nil, "X-Vault-Token", w.root)
	if status == http.StatusNotFound {
		return 0
	}
	var list struct{ Data struct{ Keys []string } }
	w.read(&list, answer)
	return len(list.Data.Keys)
}

// scrape writes the engine's metrics into a folder, every five seconds, as the picture of the dashboard is drawn from. It
// ends with what it returns.
func (w *world) scrape(folder string) (stop func()) {
	w.t.Helper()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	addr, root := w.addr, w.root
	var scraping sync.WaitGroup
	scraping.Go(func() {
		client := &http.Client{Timeout: impatience}
		for next := time.NewTicker(5 * time.Second); ; {
			if status, text := ask(ctx, client, "GET", addr+"/v1/jira/metrics", nil, "X-Vault-Token", root); status == http.StatusOK {
				file := filepath.Join(folder, fmt.Sprintf("%d.prom", time.Now().UnixMilli()))
				if err := os.WriteFile(file, text, 0o644); err != nil {
					w.t.Error(err)
				}
			}
			select {
			case <-next.C:
			case <-ctx.Done():
				next.Stop()
				return
			}
		}
	})
	return func() { cancel(); scraping.Wait() }
}

// metrics are the engine's, each by its name with its labels; of a histogram how many values it has.
func (w *world) metrics() map[string]float64 {
	w.t.Helper()
	return parseMetrics(w.t, w.api("GET", "jira/metrics", nil))
}

func parseMetrics(t testing.TB, text []byte) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			all[name+labels(m.GetLabel())] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// labels are those of a metric as it is written, in order.
func labels(pairs []*dto.LabelPair) string {
	var all []string
	for _, p := range pairs {
		all = append(all, fmt.Sprintf("%s=%q", p.GetName(), p.GetValue()))
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return "{" + strings.Join(all, ",") + "}"
}
