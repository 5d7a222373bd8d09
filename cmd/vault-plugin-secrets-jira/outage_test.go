package main

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestOutage takes Jira away for longer than Vault tries to revoke a lease. No lease may turn irrevocable, and every token
// has to go soon after Jira is back; and what the engine counts of all that has to be what others saw. It takes twenty
// minutes, and ends with the plugin killed, for the picture of the dashboard.
func TestOutage(t *testing.T) {
	simulated(t)
	onlySoak(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configure()
	w.api("PUT", "jira/config", map[string]any{"username": w.jira["JIRA_ADMIN_USERNAME"], "token": w.jira["JIRA_ADMIN_TOKEN"]})
	w.api("PUT", "jira/accounts/release", map[string]any{"username": w.jira["JIRA_USERNAME_RELEASE_BOT"], "token": w.jira["JIRA_TOKEN_RELEASE_BOT"], "max_tokens": 600})
	w.api("PUT", "jira/accounts/ci", map[string]any{"max_tokens": 500})
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "15s", "max_ttl": "60s"})
	w.api("PUT", "jira/roles/release", map[string]any{"accounts": "release", "ttl": "40s", "max_ttl": "3m"})
	w.api("PUT", "jira/static-roles/legacy", map[string]any{"account": "release", "rotation_period": "720h"})
	b := w.openBooks()
	if *scrape != "" {
		defer w.scrape(*scrape)()
	}
	l := w.startLoad("app", 15*time.Second, 2, 10)
	other := w.startLoad("release", 40*time.Second, 1, 6)
	l.waitReads(200)
	w.api("PUT", "jira/rotate-account/ci", map[string]any{})
	w.api("PUT", "jira/rotate-role/legacy", map[string]any{})
	w.api("PUT", "jira/tidy", map[string]any{})
	l.waitReads(1000)

	w.must(200, "POST", w.control+"fault", map[string]any{"do": "Answer", "status": 503, "body": "Jira is down"})
	began := time.Now()
	l.down()
	other.down()
	// Applications go on asking, as they do. Vault's six tries take ten minutes and a half, more or less.
	const outage = 12 * time.Minute
	next := began
	if err := pollFor(outage+most, func() bool {
		if time.Now().After(next) {
			next = next.Add(30 * time.Second)
			irrevocable := w.irrevocable()
			t.Logf("Jira is down for %v: %d irrevocable leases, %d tokens in Jira", time.Since(began).Round(time.Second), irrevocable, len(l.tokens())+len(other.tokens()))
			if irrevocable != 0 {
				t.Errorf("%d leases are irrevocable", irrevocable)
				return true
			}
		}
		return time.Since(began) > outage
	}); err != nil {
		t.Fatal(err)
	}
	if status, answer := w.send("PUT", w.addr+"/v1/jira/rotate-root", map[string]any{}, "X-Vault-Token", w.root); status != http.StatusServiceUnavailable {
		t.Errorf("a rotation while Jira is down is answered with %d %s", status, answer)
	}
	left := append(l.tokens(), other.tokens()...)
	if len(left) == 0 {
		t.Error("no token has outlived its lease: this shows nothing")
	}
	w.must(200, "DELETE", w.control+"faults", nil)
	healed := time.Now()
	l.allIsBack()
	other.allIsBack()
	if err := pollFor(promised, func() bool {
		return !slices.ContainsFunc(w.live(), func(name string) bool { return slices.Contains(left, name) })
	}); err != nil {
		t.Errorf("tokens from before the outage are there %v after it", promised)
	}
	figure := fmt.Sprintf("%-40s %10v", fmt.Sprintf("%d tokens gone after %v of outage, in", len(left), outage), time.Since(healed).Round(time.Millisecond))
	t.Log(figure)
	suite.figures.add(figures{lines: []string{figure}})
	l.waitReads(1000)
	l.finish()
	other.finish()
	b.close()

	l = w.startLoad("app", 15*time.Second, 2, 10)
	l.waitReads(200)
	l.down()
	for _, pid := range w.plugins(w.nodes[0].process) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	l.up()
	l.waitReads(200)
	l.finish()
	w.api("DELETE", "sys/mounts/jira", nil) // and with it what the engine has minted for itself
}
