package main

import (
	"cmp"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// TestCrashes kills the plugin and Vault in the middle of work, again and again. No token whose lease lives may be
// missing afterwards, and none be there in the end. With -soak it does so hundreds of times.
func TestCrashes(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configure()
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "15s", "max_ttl": "60s"})
	dice := dice(t)
	vault := w.nodes[0]
	l := w.startLoad("app", 15*time.Second, 2, 10)

	many := cmp.Or(*rounds, 10)
	if *soak {
		many = cmp.Or(*rounds, 300)
	}
	for round := 1; round <= many; round++ {
		// Answers take a while, so that some are on their way when it happens; and one gets lost anyway.
		w.must(200, "DELETE", w.control+"faults", nil)
		w.must(200, "POST", w.control+"fault", map[string]any{"do": "LoseAnswer", "method": "POST", "path": "/rest/pat", "nth": 1 + dice.IntN(20)})
		w.must(200, "POST", w.control+"fault", map[string]any{"do": "Slow", "path": "/rest/pat", "delay": "20ms"})
		l.waitReads(5 + dice.IntN(40))
		<-time.After(time.Duration(dice.IntN(50)) * time.Millisecond) // at no particular moment
		l.down()
		what, crash := w.crash(dice, vault, w.plugins(vault.process))
		l.up()
		working := l.checkHeld()
		suite.figures.add(crash)
		t.Logf("round %d of %d, %s killed: %s", round, many, what, l.progress(working))
		if t.Failed() || l.troubled() {
			break
		}
	}
	l.finish()

	// One more, in which nothing ends the plugin: what it counts has to agree with what others see.
	w.must(200, "DELETE", w.control+"faults", nil)
	b := w.openBooks()
	l = w.startLoad("app", 15*time.Second, 2, 10)
	l.waitReads(100)
	l.finish()
	b.close()
}

// crash kills the plugins, or Vault, or both, as dice decide, and brings Vault back. It tells what it was.
func (w *world) crash(dice *rand.Rand, vault *node, plugins []int) (what string, crash figures) {
	w.t.Helper()
	crash.rounds = 1
	switch dice.IntN(4) {
	case 0, 1:
		what, crash.plugins = "the plugin", 1
		w.noteCommands()
		for _, pid := range plugins {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				w.t.Fatal(err)
			}
		}
	case 2:
		what, crash.vaults = "Vault", 1
		vault.kill(false)
		vault.restart()
	case 3:
		what, crash.machines = "Vault and the plugin", 1
		vault.kill(true)
		vault.restart()
	}
	return what, crash
}
