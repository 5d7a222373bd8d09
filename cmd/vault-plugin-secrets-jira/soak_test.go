package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// The long forms, for make soak.
var (
	soak   = flag.Bool("soak", false, "crash hundreds of times, take Jira away, and measure")
	rounds = flag.Int("rounds", 0, "how many crashes of each test; 0: 10, with -soak 300, of rotations 100")
	keep   = flag.String("keep", "", "folder to copy what a failing test has written to, logs and all")
	scrape = flag.String("scrapes", "", "folder to write the metrics of the outage to, every five seconds, for make picture")
	seed   = flag.Uint64("seed", 0, "of what crashes when, to have a run again; 0: another each time")
)

// dice returns what decides about crashes, and tells how to have the same again.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	from := *seed
	for from == 0 {
		from = rand.Uint64()
	}
	t.Logf("-seed %d", from)
	return rand.New(rand.NewPCG(from, 0))
}

// figures are what a soak comes to.
type figures struct {
	rounds, plugins, vaults, machines, leaders, pauses int64 // crashes, by what was ended or stopped
	mints, renewals, revokes                           int64
	leaks, irrevocable                                 int64
	slowest                                            time.Duration // from a lease's end until the token was gone
	lines                                              []string      // other things measured
}

// sum is the figures of all tests.
type sum struct {
	mu sync.Mutex
	figures
}

func (s *sum) add(f figures) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rounds += f.rounds
	s.plugins += f.plugins
	s.vaults += f.vaults
	s.machines += f.machines
	s.leaders += f.leaders
	s.pauses += f.pauses
	s.mints += f.mints
	s.renewals += f.renewals
	s.revokes += f.revokes
	s.leaks += f.leaks
	s.irrevocable += f.irrevocable
	s.slowest = max(s.slowest, f.slowest)
	s.lines = append(s.lines, f.lines...)
}

func (s *sum) print() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Println()
	for _, line := range []struct {
		what  string
		count any
	}{
		{"rounds", s.rounds},
		{"  the plugin killed", s.plugins},
		{"  Vault killed, its plugin left alive", s.vaults},
		{"  both killed", s.machines},
		{"leaders killed", s.leaders},
		{"leaders paused", s.pauses},
		{"mints", s.mints},
		{"renewals", s.renewals},
		{"revokes asked for", s.revokes},
		{"tokens alive at the end", s.leaks},
		{"irrevocable leases", s.irrevocable},
		{"slowest end of a token after its lease", s.slowest.Round(time.Millisecond)},
	} {
		fmt.Printf("%-40s %10v\n", line.what, line.count)
	}
	for _, line := range s.lines {
		fmt.Println(line)
	}
}

// onlySoak skips what takes long, and what measures.
func onlySoak(t *testing.T) {
	t.Helper()
	if !*soak {
		t.Skip("takes long: run make soak")
	}
}

// simulated skips a test where it cannot run: without a Vault, or against somebody's Jira.
func simulated(t *testing.T) {
	t.Helper()
	if suite.noVault != "" {
		t.Skip(suite.noVault)
	}
	if realJira() {
		t.Skip("this needs the simulator")
	}
}
