package backend

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// The matrix takes each step that the engine takes in each scenario, to storage
// or to Jira, and lets each thing happen there that can: a crash, a failure, an
// answer that is lost or that nobody can make sense of. Then all is well again,
// time passes, and nothing may be left that should not be, and nothing be gone
// that should. What is asked is in [bench.holds].

// cut is what happens to which step. The zero cut is none.
type cut struct {
	step step
	kind kind
}

// kind is what can happen to a step. Where none of its fields but the name are
// set the step fails without effect.
type kind struct {
	name    string
	crash   bool            // the node ends with the step
	deposed bool            // from the step on the node may not write any more, and does not know
	stale   bool            // it was deposed long before, and reads what was there then
	after   bool            // the step takes effect first
	lasting bool            // nothing works any more from then on
	outage  time.Duration   // how long Jira is away then, answering 500, or what fault says
	lands   time.Duration   // when a request to Jira takes effect that was lost
	fault   jiratest.Fault  // what Jira does
	is      func(step) bool // the steps that it can happen to
}

// faults are what a kind does to the nth call to Jira, and to those after it.
func (k kind) faults(nth int) []jiratest.Fault {
	f := k.fault
	f.Nth = nth
	switch {
	case k.outage > 0 && f.Do != "":
		f.Times = -1
		return []jiratest.Fault{f}
	case k.outage > 0:
		return []jiratest.Fault{{Nth: nth, Times: -1, Do: jiratest.Answer, Status: http.StatusInternalServerError}} // which is not asked again at once
	case k.crash && k.after:
		f.Do = jiratest.LoseAnswer
	case k.crash:
		f.Do = jiratest.LoseCall
	case f.Do == "" && k.lasting:
		f.Do, f.Status = jiratest.Answer, http.StatusServiceUnavailable
	case f.Do == "":
		return nil
	}
	all := []jiratest.Fault{f}
	switch {
	case k.crash:
		all = append(all, jiratest.Fault{Nth: nth + 1, Times: -1, Do: jiratest.LoseCall})
	case k.lasting:
		all = append(all, jiratest.Fault{Nth: nth + 1, Times: -1, Do: jiratest.Answer, Status: http.StatusServiceUnavailable})
	}
	return all
}

var (
	// notMounted is how Jira answers for what is not there, to whoever logs in.
	notMounted = jiratest.Fault{Do: jiratest.Answer, Status: http.StatusNotFound, Body: `{"message":"null for uri: http://jira.example.com/rest","status-code":404}`}

	// tooMany is how Jira's own limiter answers a user who has called too often.
	tooMany = jiratest.Fault{
		Do: jiratest.Answer, Status: http.StatusTooManyRequests, Body: `{"message":"Rate limit exceeded."}`,
		Header: http.Header{"Retry-After": {"240"}, "X-Ratelimit-Limit": {"5"}, "X-Ratelimit-Remaining": {"0"}},
	}
)

// limitedForMinutes is the kind that is not Jira's but one user's.
const limitedForMinutes = "limited for minutes"

func kinds() []kind {
	anything := func(step) bool { return true }
	storage := func(s step) bool { return !s.jira }
	storageWrite := func(s step) bool { return !s.jira && s.writes() }
	call := func(s step) bool { return s.jira }
	callThatWrites := func(s step) bool { return s.jira && s.writes() }
	// An access token that lands late was received by nobody, and nobody can look for it.
	mint := func(s step) bool {
		return s.jira && strings.HasPrefix(s.name, "POST ") && !strings.Contains(s.name, "oauth2")
	}
	all := []kind{
		{name: "crash before", crash: true, is: anything},
		{name: "crash after", crash: true, after: true, is: anything},
		{name: "deposed", deposed: true, is: func(s step) bool { return s.jira || s.writes() }},
		{name: "away", lasting: true, is: anything},
		{name: "fails", is: storage},
		{name: "fails though done", after: true, is: storageWrite},
		{name: "away for an hour", outage: time.Hour, is: call},
		{name: "not mounted for a quarter of an hour", outage: 15 * time.Minute, fault: notMounted, is: call},
		{name: limitedForMinutes, outage: 4 * time.Minute, fault: tooMany, is: call},
		{name: "lands minutes later", fault: jiratest.Fault{Do: jiratest.Hang}, lands: 3 * time.Minute, is: mint},
		{name: "lands hours later", fault: jiratest.Fault{Do: jiratest.Hang}, lands: 20 * time.Hour, is: mint},
	}
	for _, f := range []struct {
		jiratest.Fault
		is func(step) bool
	}{
		{jiratest.Fault{Do: jiratest.LoseCall}, call},
		{jiratest.Fault{Do: jiratest.LoseAnswer}, call},
		{jiratest.Fault{Do: jiratest.CutBody}, call},
		{jiratest.Fault{Do: jiratest.Hang}, call},
		{jiratest.Fault{Do: jiratest.HangAfter}, callThatWrites},
		{jiratest.Fault{Do: jiratest.LateEffect}, callThatWrites},
		{jiratest.Fault{Do: jiratest.Twice}, callThatWrites},
		{jiratest.Fault{Do: jiratest.Answer, Status: http.StatusBadGateway, Body: "<html><title>Bad Gateway</title></html>"}, call},
		{jiratest.Fault{Do: jiratest.AnswerAfter, Status: http.StatusBadGateway}, callThatWrites},
		{jiratest.Fault{Do: jiratest.Answer, Status: http.StatusTooManyRequests}, call},
		{jiratest.Fault{Do: jiratest.Answer, Status: http.StatusUnauthorized, Body: `{"message":"no"}`}, call},
		{jiratest.Fault{Do: jiratest.Answer, Status: http.StatusNotFound, Body: `{"message":"nothing here"}`}, call},
		{jiratest.Fault{Do: jiratest.Answer, Status: http.StatusNoContent}, call},
		{jiratest.Fault{Do: jiratest.Answer, Status: http.StatusOK, Body: "[]"}, call},
		{jiratest.Fault{Do: jiratest.HTML200}, call},
		{jiratest.Fault{Do: jiratest.HTML404}, call},
		{jiratest.Fault{Do: jiratest.Anonymous}, call},
		{jiratest.Fault{Do: jiratest.Redirect, Target: "http://127.0.0.1:1"}, call},
	} {
		name := string(f.Do)
		if f.Status != 0 {
			name = fmt.Sprintf("%s %d", f.Do, f.Status)
		}
		all = append(all,
			kind{name: name, fault: f.Fault, is: f.is},
			kind{name: name + thenAway, fault: f.Fault, is: f.is, lasting: true})
	}
	return all
}

// hangs tells whether the engine has to wait until its patience is over.
func (k kind) hangs() bool {
	return slices.Contains([]jiratest.Misbehaviour{jiratest.Hang, jiratest.HangAfter, jiratest.LateEffect}, k.fault.Do)
}

// world is what holds all through a case.
type world struct {
	name string
	jira time.Duration // what Jira's clock is ahead of ours
	next time.Duration // what the next node's clock is ahead of the last one's
	lag  time.Duration // how long Jira's lists are stale
	cuts []string      // the kinds of cuts to try; nil: all

	switches jiratest.Switches // what else is different of Jira
}

func worlds() []world {
	crash := []string{"crash after"}
	return []world{
		{},
		{name: "Jira's clock an hour ahead", jira: time.Hour, cuts: crash},
		{name: "Jira's clock an hour behind", jira: -time.Hour, cuts: crash},
		{name: "the next node's clock 5 s ahead", next: 5 * time.Second, cuts: crash},
		{name: "the next node's clock 5 s behind", next: -5 * time.Second, cuts: crash},
		{name: "the next node's clock an hour ahead", next: time.Hour, cuts: crash},
		{name: "answers without a date", switches: jiratest.Switches{Date: "absent"}, cuts: []string{"crash after", "away"}},
		{name: "odd rows in lists", switches: jiratest.Switches{OddRows: true}, cuts: crash},
		{name: "other answers about roles and what is gone", switches: jiratest.Switches{RoleNobodyStatus: 404, RoleWithoutStatus: 410, DeleteUnknownStatus: 204}, cuts: []string{"crash after", "Answer 404"}},
		{name: "stale lists", lag: time.Minute, cuts: []string{"crash after", "away", "LoseAnswer", "LoseAnswer, then away", "AnswerAfter 502", "HTML404", "LateEffect"}},
	}
}

// matrix is a run of all cases.
type matrix struct {
	*testing.T
	places chan struct{}
	all    sync.WaitGroup

	mu       sync.Mutex
	planned  int
	ran      int
	steps    map[string][]step         // by scenario, in the first world
	happened map[string]map[string]int // how often, by scenario and step, and by kind
}

func TestFaultMatrix(t *testing.T) {
	began := time.Now()
	m := &matrix{T: t, places: make(chan struct{}, 24), steps: map[string][]step{}, happened: map[string]map[string]int{}}
	for _, s := range scenarios() {
		for _, w := range worlds() {
			if s.cloud && w.jira > 0 { // an API token's expiry is a time, which has passed there
				continue
			}
			m.all.Go(func() { m.scenario(s, w) })
		}
	}
	m.all.Wait()
	m.report(time.Since(began))
}

// scenario runs all cases of s in w.
func (m *matrix) scenario(s scenario, w world) {
	clean, ok := m.run(s, w, cut{}, nil)
	if !ok {
		return
	}
	if w.name == "" {
		m.mu.Lock()
		m.steps[s.name] = clean
		m.mu.Unlock()
		at := 0
		for _, step := range clean {
			if at < len(s.steps) && step.name == s.steps[at] {
				at++
			}
		}
		if at < len(s.steps) {
			m.Errorf("%s: does not take the step %q, but %v", s.name, s.steps[at], clean)
		}
		m.all.Go(func() { m.run(s, w, cut{kind: kind{name: "deposed before", deposed: true, stale: true}}, clean) })
	}
	for _, step := range clean {
		for _, k := range kinds() {
			if k.is(step) && !s.skips(step, k) && (w.cuts == nil || slices.Contains(w.cuts, k.name)) {
				m.all.Go(func() { m.run(s, w, cut{step, k}, clean) })
			}
		}
	}
}

// run runs one case, and returns the steps that were taken in it.
func (m *matrix) run(s scenario, w world, c cut, clean []step) (taken []step, ok bool) {
	name := s.name
	if w.name != "" {
		name += "; " + w.name
	}
	if c.kind.name != "" {
		name += "; " + c.kind.name
	}
	if c.step.name != "" {
		name += fmt.Sprintf(" at %d %s", 1+slices.Index(clean, c.step), c.step.name)
	}
	m.places <- struct{}{}
	defer func() { <-m.places }()
	m.mu.Lock()
	m.planned++
	m.mu.Unlock()
	ran := false
	ok = m.Run(name, func(t *testing.T) {
		ran = true
		taken = runCase(t, s, w, c, clean)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if ran && ok {
		m.ran++
		at := s.name + "\n" + fmt.Sprint(c.step)
		if m.happened[at] == nil {
			m.happened[at] = map[string]int{}
		}
		m.happened[at][c.kind.name]++
	}
	return taken, ran && ok
}

// runCase has c happen to s in w, and sees to it that all is well afterwards. It
// returns the steps that were taken in s.
func runCase(t *testing.T, s scenario, w world, c cut, clean []step) []step {
	b := newBench(t, w, s.cloud)
	if s.before != nil {
		s.before(b)
	}
	if c.kind.stale {
		b.depose(s)
	} else {
		b.pass(s.wait)
	}
	if c.kind.hangs() {
		b.patient(1)
	}
	b.wire.arm(c)
	for _, f := range s.weather {
		b.jira.Fault(f)
	}
	s.run(b)
	taken := b.taken(c, clean)
	if c.kind.stale && s.unasked && b.jira.Count("DELETE", "") > 0 {
		t.Error("a node that was deposed has deleted what nobody asked for")
	}
	if c.kind.fault.Do == jiratest.LateEffect {
		b.jira.WaitLate()
	}
	if c.kind.fault.Do == jiratest.Twice && strings.HasPrefix(c.step.name, "POST ") {
		b.strays = true // of the twin nobody knows before a tidy
	}
	b.lasts(c.kind.outage)
	b.heal()
	b.patient(10)
	b.goesOn(c.kind.lands)
	if b.tends {
		b.oneIsInUse()
	}
	b.nothingHeld()
	if keys, err := b.disk.List(t.Context(), retiredPrefix); len(keys) != 0 || err != nil {
		t.Errorf("what retired accounts log in with is kept: %v, %v", keys, err)
	}
	if len(b.wishes) > 0 {
		t.Errorf("%d things that were asked for are not done", len(b.wishes))
	}
	return taken
}

// goesOn has time pass until nothing can come any more: leases end, and then
// requests to Jira that were lost cannot land. One does so at lands.
func (b *bench) goesOn(lands time.Duration) {
	b.t.Helper()
	living := slices.ContainsFunc(b.leases, func(h *held) bool { return h.lives(b.vaultNow()) })
	elapsed := time.Duration(0)
	for _, d := range []time.Duration{
		0, 15 * time.Second, 45 * time.Second, time.Minute, time.Minute,
		4 * time.Minute, 5 * time.Minute, 5 * time.Minute, 10 * time.Minute, 6 * time.Minute,
		time.Hour, 6 * time.Hour, 13 * time.Hour, time.Hour, 90 * time.Minute, 90 * time.Minute, 4 * time.Hour,
	} {
		if elapsed += d; lands > 0 && elapsed >= lands {
			lands = 0
			b.land()
		}
		b.on(d)
		switch elapsed {
		case 3 * time.Minute:
			if living && b.wrong > ledger.Grace && !b.logged("[WARN]", "this machine's clock is ahead of Jira's") {
				b.t.Error("no warning of a clock that is wrong")
			}
			b.correct()
		case shortMax + 3*time.Minute:
			if b.strays {
				b.want(b.tidies)
			} else if b.world.jira == 0 {
				b.nothingLives()
			}
		case shortMax + 3*time.Minute + 7*time.Hour: // both clocks agree that it is over
			b.nothingLives()
		}
	}
}

// taken returns the steps that were taken, and holds them against those of a
// run that nothing was cut in.
func (b *bench) taken(c cut, clean []step) []step {
	b.t.Helper()
	b.wire.mu.Lock()
	defer b.wire.mu.Unlock()
	b.wire.count()
	at := b.wire.cutAt
	calls := b.jira.Calls()
	switch {
	case c.step.name == "":
	case at < 0:
		b.t.Fatalf("nothing was cut: %v", b.wire.steps)
	case !slices.Equal(b.wire.steps[:at+1], clean[:min(at+1, len(clean))]):
		b.t.Fatalf("it came another way:\n%v\nnot\n%v", b.wire.steps[:at+1], clean)
	case c.step.jira && !c.kind.deposed && calls[c.step.nth-1].Fault == "":
		b.t.Fatalf("nothing has happened to call %d: %v", c.step.nth, calls)
	}
	return slices.Clone(b.wire.steps)
}

// report prints what was done, and holds it against what there is to do.
func (m *matrix) report(took time.Duration) {
	var table strings.Builder
	steps := 0
	for _, s := range scenarios() {
		if len(m.steps[s.name]) > 0 {
			fmt.Fprintf(&table, "%s\n", s.name)
		}
		for i, step := range m.steps[s.name] {
			done := m.happened[s.name+"\n"+fmt.Sprint(step)]
			cases := 0
			for _, n := range done {
				cases += n
			}
			fmt.Fprintf(&table, "  %2d  %-36s cut in %2d ways, %3d cases\n", i+1, step.name, len(done), cases)
			steps++
			for _, k := range kinds() {
				if m.ran == m.planned && k.is(step) && !s.skips(step, k) && done[k.name] == 0 {
					m.Errorf("%s: %s was not cut by %q", s.name, step.name, k.name)
				}
			}
		}
	}
	m.Logf("the ways to cut a step:\n%s\n\n%s", ways(), &table)
	fmt.Printf("fault matrix: %d scenarios, %d steps, %d cases in %v\n", len(m.steps), steps, m.ran, took.Round(time.Second))
	if m.ran < m.planned {
		m.Logf("%d of %d cases passed; the others failed, or were not selected", m.ran, m.planned)
	}
}

// ways lists the kinds of cuts by the steps that they can happen to.
func ways() string {
	var lines strings.Builder
	for _, s := range []step{{name: "get …"}, {name: "put …"}, {name: "GET …", jira: true}, {name: "DELETE …", jira: true}, {name: "POST …", jira: true}} {
		var names []string
		for _, k := range kinds() {
			if name, again := strings.CutSuffix(k.name, thenAway); k.is(s) && !again {
				names = append(names, name)
			}
		}
		fmt.Fprintf(&lines, "  %-8s %s\n", s.name, strings.Join(names, ", "))
	}
	fmt.Fprint(&lines, "What Jira can do it does once more with an outage behind it.")
	for _, w := range worlds()[1:] {
		fmt.Fprintf(&lines, "\n  with %s: %s", w.name, strings.Join(w.cuts, "; "))
	}
	return lines.String()
}

// thenAway is how the names of those kinds end after which Jira is away.
const thenAway = ", then away"
