package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestOutage takes Jira away for longer than Vault tries to revoke a lease. No lease may turn irrevocable, and every token
// has to go soon after Jira is back. It takes a quarter of an hour.
func TestOutage(t *testing.T) {
	simulated(t)
	onlySoak(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configure()
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "15s", "max_ttl": "60s"})
	b := w.openBooks()
	l := w.startLoad("app", 15*time.Second, 2, 10)
	l.waitReads(100)

	w.must(200, "POST", w.control+"fault", map[string]any{"do": "Answer", "status": 503, "body": "Jira is down"})
	began := time.Now()
	l.down()
	// Applications go on asking, as they do. Vault's six tries take ten minutes and a half, more or less.
	const outage = 12 * time.Minute
	next := began
	if err := pollFor(outage+most, func() bool {
		if time.Now().After(next) {
			next = next.Add(30 * time.Second)
			irrevocable := w.irrevocable()
			t.Logf("Jira is down for %v: %d irrevocable leases, %d tokens in Jira", time.Since(began).Round(time.Second), irrevocable, len(w.live()))
			if irrevocable != 0 {
				t.Errorf("%d leases are irrevocable", irrevocable)
				return true
			}
		}
		return time.Since(began) > outage
	}); err != nil {
		t.Fatal(err)
	}
	left := w.live()
	if len(left) == 0 {
		t.Error("no token has outlived its lease: this shows nothing")
	}
	w.must(200, "DELETE", w.control+"faults", nil)
	healed := time.Now()
	l.allIsBack()
	if err := pollFor(promised, func() bool {
		return !slices.ContainsFunc(w.live(), func(name string) bool { return slices.Contains(left, name) })
	}); err != nil {
		t.Errorf("tokens from before the outage are there %v after it", promised)
	}
	figure := fmt.Sprintf("%-40s %10v", fmt.Sprintf("%d tokens gone after %v of outage, in", len(left), outage), time.Since(healed).Round(time.Millisecond))
	t.Log(figure)
	suite.figures.add(figures{lines: []string{figure}})
	l.waitReads(2)
	l.finish()
	b.close()
}
