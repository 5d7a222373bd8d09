package main

import (
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestFailover has three Vaults, and lets the one that leads die, and sleep. Another takes over, and what applications
// have stays alive: also when the first awakes and takes for over what was renewed meanwhile.
func TestFailover(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(3)
	w.configure()
	const ttl = 20 * time.Second // longer than it takes to find a leader
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "20s", "max_ttl": "30m"})
	l := w.startLoad("app", ttl, 1, 40)
	times := 1
	if *soak {
		times = 10
	}
	for i := 1; i <= times; i++ {
		w.killLeader(l)
		t.Logf("leader killed, time %d of %d: %s", i, times, l.progress(l.checkHeld()))
		outlived := 0
		for tries := 0; outlived == 0; tries++ { // on a busy machine they may take longer to find a leader
			if tries == 3 {
				t.Fatal("no lease that the old leader knew of outlives the pause: this shows nothing")
			}
			outlived = w.pauseLeader(l, ttl)
		}
		t.Logf("leader paused, time %d of %d: %d leases that it knew were renewed meanwhile, %s", i, times, outlived, l.progress(l.checkHeld()))
		if l.troubled() {
			break
		}
	}
	l.finish()
}

// killLeader lets the leader die and come back, under load.
func (w *world) killLeader(l *load) {
	w.t.Helper()
	l.waitReads(20)
	old := w.leader(nil)
	l.down()
	old.kill(true)
	w.addr = w.leader(old).addr
	l.up()
	l.checkHeld()
	old.restart()
	suite.figures.add(figures{leaders: 1})
}

// pauseLeader stops the leader with its plugin for so long that all leases it knows of are over by what it knows, while
// another node has renewed them, and lets it go on then. It returns how many those are.
func (w *world) pauseLeader(l *load, ttl time.Duration) (outlived int) {
	w.t.Helper()
	l.waitReads(20)
	old := w.leader(nil)
	w.noteCommands()
	known := l.living()
	l.down()
	old.signalAll(syscall.SIGSTOP)
	stopped := time.Now()
	w.addr = w.leader(old).addr
	l.up()
	// The engine ends what Vault has not, half a minute after its lease.
	<-time.After(time.Until(stopped.Add(ttl + 35*time.Second)))
	l.checkHeld()
	for _, c := range l.living() {
		if slices.Contains(known, c) {
			outlived++
		}
	}
	old.signalAll(syscall.SIGCONT)
	if poll(func() bool { return old.health() == http.StatusTooManyRequests }) != nil {
		w.t.Fatal("the leader of old does not stand by")
	}
	// What it had in mind to do, it has done by then.
	l.checkHeld()
	suite.figures.add(figures{pauses: 1})
	return outlived
}

// TestStandby reads through a Vault that does not lead. Each read is one call to Jira, wherever it comes in.
func TestStandby(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(3)
	w.configure()
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "10m"})
	leader := w.leader(nil)
	var standby *node
	for _, n := range w.nodes {
		if n != leader {
			standby = n
		}
	}
	w.must(200, "DELETE", w.control+"calls", nil)
	const reads = 1000
	w.many(reads, 8, "GET", standby.addr+"/v1/jira/creds/app", func(int) (string, any) { return "", nil })
	if minted := w.calls("POST", "/rest/pat/"); minted != reads {
		t.Errorf("%d reads made %d tokens", reads, minted)
	}
	w.api("PUT", "sys/leases/revoke-prefix/jira/creds", map[string]any{"sync": true})
	if left := w.live(); len(left) > 0 {
		t.Errorf("%d tokens are left", len(left))
	}
}

// calls counts the calls to Jira of a method, of paths that begin so.
func (w *world) calls(method, path string) int {
	w.t.Helper()
	var calls []simCall
	w.read(&calls, w.must(200, "GET", w.control+"calls", nil))
	n := 0
	for _, c := range calls {
		if c.matches(method, path) {
			n++
		}
	}
	return n
}
