package main

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMemory has the plugin read a ledger of 100,000 records, and looks at the memory that it takes.
func TestMemory(t *testing.T) {
	simulated(t)
	onlySoak(t)
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("this system does not tell what memory a process takes: ", err)
	}
	t.Parallel()
	const (
		records = 100_000
		most    = 64 << 10 // KiB
	)
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configure()
	w.fillLedger(records)

	for _, run := range []struct {
		what    string
		restart func()
	}{
		{"a reload", func() { w.api("PUT", "sys/plugins/reload/backend", map[string]any{"plugin": pluginName}) }},
		{"a crash of Vault", func() { w.nodes[0].kill(true); w.nodes[0].restart() }},
	} {
		began := time.Now()
		run.restart()
		w.waitLoaded()
		loaded := time.Since(began)
		pids := w.plugins(w.nodes[0].process)
		if len(pids) != 1 {
			t.Fatalf("the plugin runs %d times", len(pids))
		}
		peak, now := memory(t, pids[0], "VmHWM"), memory(t, pids[0], "VmRSS")
		figure := fmt.Sprintf("memory with %d records after %s: %.1f MiB, at its peak %.1f MiB; read in %v",
			records, run.what, float64(now)/1024, float64(peak)/1024, loaded.Round(time.Millisecond))
		t.Log(figure)
		suite.figures.add(figures{lines: []string{figure}})
		if peak > most {
			t.Errorf("the plugin took %d KiB, more than %d", peak, most)
		}
	}
	for _, query := range []string{"limit=100", "limit=100&account=ci&state=issued", "limit=1000"} {
		w.timePages(query)
	}
}

// timePages measures what a page of a list of tokens takes, through Vault and from its storage.
func (w *world) timePages(query string) {
	w.t.Helper()
	var times []time.Duration
	for after := ""; len(times) < 50; {
		began := time.Now()
		answer := w.api("LIST", "jira/tokens/?"+query+after, nil)
		times = append(times, time.Since(began))
		var page struct {
			Data struct {
				Keys []string
				Next string
			}
		}
		w.read(&page, answer)
		if len(page.Data.Keys) < 100 || page.Data.Next == "" {
			w.t.Fatalf("a page of %s has %d tokens, and then %q", query, len(page.Data.Keys), page.Data.Next)
		}
		after = "&after=" + page.Data.Next
	}
	slices.Sort(times)
	figure := fmt.Sprintf("tokens/?%s through Vault: %v, the slowest of %d %v", query,
		times[len(times)/2].Round(time.Millisecond/10), len(times), times[len(times)-1].Round(time.Millisecond/10))
	w.t.Log(figure)
	suite.figures.add(figures{lines: []string{figure}})
}

// fillLedger writes records of leases that do not end soon, past the engine.
func (w *world) fillLedger(records int) {
	w.t.Helper()
	var mounts struct {
		Data map[string]struct{ UUID string }
	}
	w.read(&mounts, w.api("GET", "sys/mounts", nil))
	now := time.Now()
	w.many(records, 32, "PUT", w.addr+"/v1/sys/raw/logical/"+mounts.Data["jira/"].UUID+"/ledger/", func(i int) (string, any) {
		if i%10_000 == 0 {
			w.t.Logf("%d records written in %v", i, time.Since(now).Round(time.Second))
		}
		id := strings.ToLower(rand.Text())[:16]
		record := fmt.Sprintf(`{"id":%q,"state":"issued","name":"vault-aaaaaa-%s-app","token_id":"%d","site":%q,"account":"ci","username":%q,"role":"app",
			"reader":{"entity_id":"8f3c0a52-9c1e-4b1c-9a53-0f8e0b3c7a11","display_name":"kubernetes-ci-runner","request_id":"0b9a4f0e-77c4-7c5b-8f0a-6d0d4f4f2a10"},
			"intended_at":%d,"issued_at":%d,"lease_end":%d,"expires":%d}`,
			id, id, 1_000_000+i, w.jira["JIRA_URL"], w.jira["JIRA_USERNAME"],
			now.UnixMilli(), now.UnixMilli(), now.Add(1000*time.Hour).UnixMilli(), now.Add(2000*time.Hour).UnixMilli())
		return id[:2] + "/" + id, map[string]string{"value": record}
	})
}

// waitLoaded waits until the engine has read its ledger: until then it does not know whether an account can be deleted.
func (w *world) waitLoaded() {
	w.t.Helper()
	status, answer := 0, []byte(nil)
	if pollFor(2*most, func() bool {
		status, answer = w.send("DELETE", w.addr+"/v1/jira/accounts/ci", nil, "X-Vault-Token", w.root)
		return status == http.StatusBadRequest
	}) != nil {
		w.t.Fatalf("the ledger is not read: %d %s", status, answer)
	}
}

// memory is a line of what the system says of a process's memory, in KiB.
func memory(t *testing.T, pid int, line string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(line + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("there is no %s in %s", line, status)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
