package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"pgregory.net/rapid"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// TestModel plays Vault, its readers, its operator, Jira and the weather against
// the engine, at random, and holds after each step that
//
//   - the token of a living lease works, unless somebody asked for its end;
//   - every other token is in the ledger, for the engine to end;
//   - a token that a synchronous revoke, or an early one, called ended is, and, of an
//     exclusive account, so is what its reader made with it;
//   - the lease of an access token ends without a call to Jira, and its record is
//     gone when the token has ended;
//   - no lease turns irrevocable;
//   - what no lease holds survives a move, a reload and a step-down: an account that logs in
//     with a token of the engine's own goes on;
//   - once nothing has failed for two minutes, no token has outlived its lease by
//     more than that.
//
// At the end of each sequence everything works again, and nothing may be left:
// no token, no record, no retired account.
//
// Time is the bubble's. For longer runs, and for more of them:
//
//	go test ./backend -run '^TestModel$' -race -rapid.checks=5000 -rapid.steps=100 -timeout=2h
func TestModel(t *testing.T) {
	var first []string // the trace of the first failure
	failures, again := 0, false
	t.Cleanup(func() {
		if failures > 0 && !again { // what else happens at the same time differs from run to run
			t.Logf("It did not fail again. The first time it went like this:\n%s", strings.Join(first, "\n"))
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		cryptotest.SetGlobalRandom(t, 1) // the same ids when a sequence is played again
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := newModel(rt)
			failed := true
			rt.Cleanup(func() {
				m.close()
				if again = failed; failed {
					if failures++; failures == 1 {
						first = m.said
					}
				}
			})
			rt.Repeat(map[string]func(*rapid.T){"": func(*rapid.T) { m.check() }, "step": m.step()})
			m.end()
			failed = false
		})
	})
}

const (
	modelTTL    = 10 * time.Minute
	modelMaxTTL = 2 * time.Hour
	wrongClock  = time.Hour // what a clock is ahead when it is wrong
	mostOutage  = 6         // for how many steps Jira or storage is away

	// endedIn is how soon a token is ended that has to go, when nothing fails.
	endedIn = 2 * time.Minute
)

// model is Vault, with Jira beside it.
type model struct {
	*rapid.T
	trace *trace
	said  []string
	began time.Time
	jira  *jiratest.Server
	kind  modelKind     // of what is handed out
	lag   time.Duration // of Jira's lists
	date  string        // in the headers of Jira's answers, as a switch has it
	skew  atomic.Int64  // what Jira's clock is ahead of the true one, in ns
	wire  *network
	disk  *disk
	vault *modelVault
	login map[string]any // of the account
	owns  bool           // the account logs in with a token that the engine has minted

	node     *node // the active one
	nodes    int
	next     time.Duration // what the next node's clock is ahead
	periodic time.Time     // when the periodic call is next
	down     bool          // Jira does not work
	outages  int           // for how many steps Jira or storage is away
	unclear  bool          // config, account or role may be missing, or the account's login be refused
	wronged  bool          // a clock was wrong by an hour

	old       *node // the one before, which was paused
	oldLeases []oldLease

	leases  []*kept
	issued  int
	made    map[int64]time.Time // siblings, by Jira's id, and when
	forced  bool                // the account was deleted by force, after which a sibling waits for a tidy
	results chan result         // of queued revokes

	backup  *jiratest.Backup // of Jira
	persons []int64          // tokens that were made since one was restored
	risen   map[string]bool  // tokens of the engine's that a restore has brought back
	pace    float64          // of Vault's tries, its jitter

	sick   time.Time // when something failed last
	failed int       // how many operations of storage had by then
	came   int       // how many mishaps of the wire
	slow   int       // how many calls were slow
}

// modelKind is what a model's engine hands out.
type modelKind string

const (
	modelPATs      modelKind = "tokens of a user"
	modelUsers     modelKind = "users made for a lease"
	modelExclusive modelKind = "tokens of an exclusive account"
	modelAccess    modelKind = "access tokens"
)

// kept is a lease as Vault keeps it.
type kept struct {
	number  int // by which the trace calls it
	access  int // which of Jira's access tokens it holds, if that is what it holds
	options logical.LeaseOptions
	data    map[string]any
	issued  time.Time // by the clock of the node that issued it, like expires
	expires time.Time
	fires   time.Time // when the active node's timer does, by the true clock
	asked   []*node   // where somebody has asked for its end
	lost    bool      // what it holds is gone since Jira was restored
	queued  bool      // it is to be revoked
	running bool      // it is being revoked by a queued job
	tries   int
	again   time.Time // when the next is
}

// oldLease is a lease as a node sees it that was paused.
type oldLease struct {
	*kept
	fires time.Time
	tries int
}

// result is how a queued revoke ended.
type result struct {
	*kept
	node     *node
	err      error
	failures int // of storage, when it began
}

func (l *kept) lives() bool {
	return !l.lost && len(l.asked) == 0 && !l.queued && time.Now().Before(l.fires)
}

func (l *kept) String() string { return fmt.Sprint("lease ", l.number) }

func newModel(t *rapid.T) *model {
	m := &model{
		T: t, trace: &trace{}, began: time.Now(), wire: newNetwork(), disk: &disk{},
		vault:   &modelVault{StaticSystemView: &logical.StaticSystemView{DefaultLeaseTTLVal: testDefaultTTL, MaxLeaseTTLVal: testMaxTTL, PluginEnvironment: &logical.PluginEnvironment{VaultVersion: "1.21.1"}}},
		results: make(chan result, 1000),
		pace:    rapid.SampledFrom([]float64{1, 0.5, 1.5}).Draw(t, "pace of Vault's tries"),
	}
	m.kind = evenly([]modelKind{modelPATs, modelPATs, modelExclusive, modelUsers, modelAccess}).Draw(t, "what is handed out")
	m.lag = rapid.SampledFrom([]time.Duration{0, 30 * time.Second}).Draw(t, "lag of lists")
	if m.kind != modelAccess {
		m.date = evenly([]string{"", "", "absent"}).Draw(t, "the header Date")
	}
	m.made, m.risen = map[int64]time.Time{}, map[string]bool{}
	var err error
	m.jira, err = jiratest.Start(jiratest.Options{
		Listener: m.wire, Log: m.trace, Version: "11.0.0",
		Now: func() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) },
		Switches: jiratest.Switches{
			DeleteUnknownStatus: evenly([]int{0, 204}).Draw(t, "status of an unknown token's delete"),
			ListLag:             m.lag,
			OddRows:             evenly([]bool{false, false, true}).Draw(t, "odd rows in lists"),
			Date:                m.date,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.wire.calm = m.jira.ClearFaults
	m.jira.AddUser(jiratest.User{Name: "ci-bot", Password: "a password of ci-bot's"})
	m.jira.AddUser(jiratest.User{Name: "jira-admin", Password: "a password of the admin's", Admin: true})
	m.jira.AddUser(jiratest.User{Name: "release-bot"})
	m.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	switch m.kind {
	case modelUsers:
		_, secret := m.jira.Mint("jira-admin", "made by hand", 90)
		m.login = map[string]any{"username": "jira-admin", "token": secret}
	case modelAccess:
		a := m.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
		m.login = map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret}
	case modelExclusive: // with room for siblings below Jira's cap
		m.login = map[string]any{"username": "ci-bot", "password": "a password of ci-bot's", "exclusive": true, "max_tokens": 10 - mostSiblings}
	case modelPATs:
		m.login = map[string]any{"username": "ci-bot", "password": "a password of ci-bot's"}
		if !rapid.Bool().Draw(t, "login by password") {
			_, secret := m.jira.Mint("ci-bot", "made by hand", 90)
			m.login = map[string]any{"username": "ci-bot", "token": secret}
		}
	}
	m.mount()
	m.configure()
	if m.unclear {
		t.Fatal("the engine could not be configured")
	}
	if m.kind == modelPATs && rapid.Bool().Draw(t, "login by a token of the engine's own") && m.login["token"] != nil {
		m.owns = m.write("rotate-account/ci-bot", nil)
	}
	m.sick = time.Time{}
	return m
}

func (m *model) close() {
	for _, n := range []*node{m.node, m.old} {
		if n != nil {
			n.stop(dead)
		}
	}
	m.jira.Close()
	time.Sleep(2 * time.Minute) // the bubble's time ends with us, and nobody waits for longer
}

// step returns what does something that can happen, the usual more often than
// the rest.
func (m *model) step() func(*rapid.T) {
	actions := map[string]func(){}
	var names []string
	for _, a := range []struct {
		name   string
		weight int
		do     func()
	}{
		{"a reader", 8, m.read},
		{"time", 6, m.time},
		{"a renewal", 5, m.renew},
		{"a revoke", 3, m.revoke},
		{"an early revoke", 2, m.early},
		{"a fault", 4, m.fault},
		{"an outage", 2, m.outage},
		{"storage fails", 2, m.storage},
		{"a crash", 2, m.crash},
		{"a pause", 2, m.pause},
		{"the old node", 3, m.deposed},
		{"a clock", 2, m.clock},
		{"the operator", 2, m.operator},
		{"a late call", 1, m.late},
		{"a sibling", 3, m.sibling},
		{"a tidy", 1, m.tidy},
		{"a restore", 1, m.restore},
		{"a move", 1, m.move},
		{"a reload", 1, m.reload},
	} {
		actions[a.name] = a.do
		names = append(names, slices.Repeat([]string{a.name}, a.weight)...)
	}
	action := evenly(names)
	return func(t *rapid.T) {
		do := actions[action.Draw(t, "what happens")]
		if m.vault.tainted.Load() { // no request reaches the mount but revokes
			do = actions[evenly([]string{"a move", "a move", "a revoke", "time", "time", "a fault", "an outage", "storage fails", "a crash", "a pause", "the old node", "a reload"}).Draw(t, "what happens to a tainted mount")]
		}
		do()
		if m.outages--; m.outages == 0 {
			m.say("Jira and storage work again")
			m.works()
		}
		m.tick()
	}
}

// evenly is rapid.SampledFrom without its love of the first ones.
func evenly[V any](values []V) *rapid.Generator[V] {
	bit := rapid.Bool()
	return rapid.Custom(func(t *rapid.T) V {
		i := 0
		for n := 1; n < 16*len(values); n *= 2 {
			i *= 2
			if bit.Draw(t, "bit") {
				i++
			}
		}
		return values[i%len(values)]
	})
}

// say adds to the trace.
func (m *model) say(format string, a ...any) {
	m.flush()
	m.print(fmt.Sprintf("%9s  %s", time.Since(m.began).Truncate(time.Millisecond), fmt.Sprintf(format, a...)))
}

func (m *model) flush() {
	for _, line := range m.trace.taken() {
		m.print(line)
	}
}

func (m *model) print(line string) {
	m.said = append(m.said, line)
	m.Log(line)
}

// ask hands a request to a node, and waits for the answer. There is none where
// the node stops before.
func (m *model) ask(n *node, what string, req logical.Request, patience time.Duration) (resp *logical.Response, answered bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	if patience > 0 {
		ctx, cancel = context.WithTimeout(ctx, patience)
	}
	type answer struct {
		resp *logical.Response
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		defer cancel()
		resp, err := n.request(ctx, req)
		done <- answer{resp, err}
	}()
	stopped := n.stopped
	if n == m.old { // it has stopped already
		stopped = nil
	}
	select {
	case a := <-done:
		resp, answered, err = a.resp, n == m.old || n.is(runs), a.err
	case <-stopped:
	}
	synctest.Wait()
	switch {
	case !answered:
		m.say("%s: node %s stopped", what, n.name)
	case err != nil:
		m.say("%s: %v", what, err)
	default:
		m.say("%s: done", what)
	}
	return resp, answered, err
}

func (m *model) read() {
	if m.vault.tainted.Load() { // Vault lets no read through
		return
	}
	if m.unclear { // nobody could
		m.configure()
		return
	}
	data := map[string]any{}
	if ttl := evenly([]int{0, 30, 300, 3600}).Draw(m.T, "ttl"); ttl > 0 {
		data["ttl"] = ttl
	}
	patience := evenly([]time.Duration{0, 0, 0, time.Second}).Draw(m.T, "the reader's patience")
	stored := rapid.IntRange(0, 9).Draw(m.T, "Vault stores the lease unless 9") < 9
	n := m.node
	m.examine()
	healthy, slow := m.healthy() && patience == 0, m.slow
	resp, ok, err := m.ask(n, "read", logical.Request{Operation: logical.ReadOperation, Path: "creds/readonly", Data: data}, patience)
	if err != nil || !ok {
		m.examine()
		if healthy && m.healthy() && m.slow <= slow+1 && !strings.Contains(err.Error(), "has room") && !strings.Contains(err.Error(), "as after a restore") {
			m.Fatal("a read failed, and nothing else did")
		}
		return
	}
	m.issued++
	l := &kept{number: m.issued, options: resp.Secret.LeaseOptions, data: throughStorage(resp.Secret.InternalData), issued: n.time()}
	m.say("%v for %v: token %v", l, l.options.TTL, resp.Data["token_id"])
	l.access = len(m.jira.AccessTokens()) - 1
	if !stored {
		_, _, _ = m.ask(n, fmt.Sprintf("Vault could not store %v, and revokes it", l), l.request(logical.RevokeOperation), 0)
		return
	}
	m.until(l, l.options.TTL)
	m.leases = append(m.leases, l)
	if !m.live(l) {
		m.Fatal("the token of a new lease does not work")
	}
}

// until sets the lease's end, as the active node reckons.
func (m *model) until(l *kept, ttl time.Duration) {
	l.expires, l.fires = m.node.time().Add(ttl), time.Now().Add(ttl)
}

func (l *kept) request(op logical.Operation) logical.Request {
	return logical.Request{Operation: op, Path: "creds/lease", Secret: &logical.Secret{LeaseOptions: l.options, InternalData: throughStorage(l.data)}}
}

// some picks one of the leases that is, nil where there is none.
func (m *model) some(is func(*kept) bool) *kept {
	var those []*kept
	for _, l := range m.leases {
		if is(l) {
			those = append(those, l)
		}
	}
	if len(those) == 0 {
		return nil
	}
	return those[rapid.IntRange(0, len(those)-1).Draw(m.T, "lease")]
}

func (m *model) renew() {
	n := m.node
	l := m.some(func(l *kept) bool { return !l.queued && l.expires.After(n.time()) })
	if l == nil {
		m.read()
		return
	}
	req := l.request(logical.RenewOperation)
	req.Secret.Increment = time.Duration(evenly([]int{0, 5, 60, 1800, 3 * 3600}).Draw(m.T, "increment")) * time.Second
	req.Secret.IssueTime = l.issued.Add(-n.ahead()) // the framework asks the true clock, for want of another
	lived := l.lives()
	resp, ok, err := m.ask(n, fmt.Sprintf("renew %v by %v", l, req.Secret.Increment), req, 0)
	if !ok {
		return
	}
	if err != nil {
		if lived && strings.Contains(err.Error(), "being revoked") {
			m.Fatal("a lease that lives is being revoked")
		}
		return
	}
	ttl, _, err := framework.CalculateTTL(m.vault, req.Secret.Increment, resp.Secret.TTL, 0, resp.Secret.MaxTTL, 0, req.Secret.IssueTime)
	if err != nil {
		return
	}
	m.until(l, ttl)
	m.say("%v has %v", l, ttl)
	// What asked for its end has failed, and cannot succeed any more.
	if m.token(l).Live {
		l.asked = slices.DeleteFunc(l.asked, func(by *node) bool { return by == n || by.is(dead) })
	}
}

func (m *model) revoke() {
	l := m.some(func(l *kept) bool { return !l.running })
	if l == nil {
		m.read()
		return
	}
	how := evenly([]string{"sync", "queued", "forced"}).Draw(m.T, "how")
	l.asked = append(l.asked, m.node)
	if how == "queued" {
		m.say("revoke %v", l)
		m.queue(l)
		return
	}
	began, calls := time.Now(), m.calls()
	_, ok, err := m.ask(m.node, fmt.Sprintf("revoke %v %s", l, how), l.request(logical.RevokeOperation), 0)
	switch {
	case !ok:
	case err == nil && m.kind == modelAccess:
		if n := m.calls() - calls; n > 0 {
			m.say("%d calls", n)
			m.Fatal("a call was made to end what cannot be revoked")
		}
		if m.recordOf(l.data["id"].(string)) != nil {
			m.Fatal("the lease of an access token is over, and its record is not")
		}
		m.drop(l)
	case err == nil:
		m.ended(l)
		m.noneLeft(began, calls)
		m.drop(l)
	case how == "forced":
		m.drop(l)
	}
}

// early ends what a lease holds, which goes on, and ends without anything in Jira.
func (m *model) early() {
	l := m.some(func(*kept) bool { return m.kind != modelAccess })
	if l == nil {
		m.read()
		return
	}
	l.asked = append(l.asked, m.node)
	began, calls := time.Now(), m.calls()
	resp, ok, err := m.ask(m.node, fmt.Sprintf("end what %v holds", l), logical.Request{Operation: logical.UpdateOperation, Path: "tokens/" + l.data["id"].(string) + "/revoke"}, 0)
	if !ok || err != nil || resp != nil && len(resp.Warnings) > 0 {
		return
	}
	m.ended(l)
	m.noneLeft(began, calls)
}

// ended holds that the token of l, whose end was just called done, does not work. That of an
// end that was done before a restore of Jira may: only a tidy finds it.
func (m *model) ended(l *kept) {
	if t := m.token(l); t.Live && !m.risen[t.Name] {
		m.Fatal("a token is called ended that works")
	}
}

// noneLeft holds that what readers had made by began was ended with a token, if Jira was
// asked anything, beyond so many calls: of a token that was ended before it is not, and what
// readers of other leases have made since is ended with theirs.
func (m *model) noneLeft(began time.Time, calls int) {
	if left := m.left(began); left > 0 && !m.forced && m.calls() > calls {
		m.Fatal("a token is called ended, and what was made with it works")
	}
}

// modelVault is Vault as the engine sees it.
type modelVault struct {
	*logical.StaticSystemView

	tainted atomic.Bool
}

// Tainted tells whether Vault has begun to move the mount, and is not done.
func (v *modelVault) Tainted() bool { return v.tainted.Load() }

// move has the operator move the mount. Vault taints it, makes a periodic call, and revokes
// one lease after the other. If that fails the mount stays tainted, else it goes on.
func (m *model) move() {
	m.vault.tainted.Store(true)
	for _, l := range m.leases {
		l.asked = append(l.asked, m.node)
	}
	if _, ok, _ := m.ask(m.node, "move: the periodic call", logical.Request{Operation: logical.RollbackOperation}, 90*time.Second); !ok {
		return
	}
	for _, l := range slices.Clone(m.leases) {
		if l.running { // Vault's own queue has it
			return
		}
		_, ok, err := m.ask(m.node, fmt.Sprintf("move: revoke %v", l), l.request(logical.RevokeOperation), 0)
		if !ok || err != nil {
			return
		}
		if m.kind != modelAccess {
			m.ended(l)
		}
		m.drop(l)
	}
	m.say("the mount is moved")
	m.vault.tainted.Store(false)
}

// reload has Vault close the engine and start it anew: on this node, as for an update of the
// plugin, or on another, as when it steps down or is sealed.
func (m *model) reload() {
	n := m.node
	m.say("node %s is closed", n.name)
	if m.vault.tainted.Load() && n.now().Sub(time.Unix(0, n.drained.Load())) <= straightAfter {
		return // see docs/reliability.md, what is not covered
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		n.Cleanup(context.Background())
	}()
	select {
	case <-closed:
	case <-n.stopped:
	}
	n.stop(dead)
}

// queue has Vault revoke l until that succeeds.
func (m *model) queue(l *kept) {
	l.queued, l.again, l.tries = true, time.Now(), 0
	l.expires = m.node.time()
}

func (m *model) drop(l *kept) {
	m.leases = slices.DeleteFunc(m.leases, func(k *kept) bool { return k == l })
}

// time lets some pass: so many seconds, or so many from the next end of a lease.
func (m *model) time() {
	d := time.Duration(evenly([]int{1, 10, 35, 60, 150, 600, 45 * 60}).Draw(m.T, "seconds")) * time.Second
	var ends []time.Time
	for _, l := range m.leases {
		ends = append(ends, l.fires)
	}
	for _, l := range m.oldLeases {
		ends = append(ends, l.fires)
	}
	ends = slices.DeleteFunc(ends, func(t time.Time) bool { return !t.After(time.Now()) })
	if len(ends) > 0 && rapid.Bool().Draw(m.T, "from an end") {
		d = time.Until(slices.MinFunc(ends, time.Time.Compare))
		d = max(0, d+time.Duration(evenly([]int{-1, 0, 1, 29, 31}).Draw(m.T, "seconds after it"))*time.Second)
	}
	m.pass(d)
}

// pass lets time pass, in which Vault does what is due.
func (m *model) pass(d time.Duration) {
	m.say("%v pass", d)
	for end := time.Now().Add(d); ; {
		m.tick()
		m.check()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(max(min(left, time.Until(m.due())), time.Millisecond))
	}
}

// due is when Vault has something to do.
func (m *model) due() time.Time {
	next := m.periodic
	for _, l := range m.leases {
		switch {
		case l.running:
			next = earlier(next, time.Now().Add(time.Second))
		case l.queued:
			next = earlier(next, l.again)
		default:
			next = earlier(next, l.fires)
		}
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// tick does what is due of Vault.
func (m *model) tick() {
	synctest.Wait()
	if !m.node.is(runs) {
		m.failover()
	}
	for len(m.results) > 0 {
		m.revoked(<-m.results)
	}
	now := time.Now()
	for _, l := range slices.Clone(m.leases) {
		if !l.queued && !now.Before(l.fires) {
			m.say("%v has run out", l)
			m.queue(l)
		}
		if l.queued && !l.running && !now.Before(l.again) {
			m.job(l)
		}
	}
	if m.old != nil && m.old.is(deposed) {
		m.oldTick()
	}
	if !now.Before(m.periodic) {
		m.periodic = now.Add(time.Minute)
		n := m.node
		go func() {
			_, _ = n.request(context.Background(), logical.Request{Operation: logical.RollbackOperation})
		}()
	}
}

// job revokes l as Vault's queue does.
func (m *model) job(l *kept) {
	l.running = true
	n, failures := m.node, m.disk.failures()
	req := l.request(logical.RevokeOperation)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		_, err := n.request(ctx, req)
		m.results <- result{l, n, err, failures}
	}()
}

// mostTries is how often Vault tries before a lease is irrevocable.
const mostTries = 6

func (m *model) revoked(r result) {
	if r.node != m.node || !slices.Contains(m.leases, r.kept) {
		return // the node that asked is no more
	}
	r.running = false
	if r.err == nil {
		m.say("%v is revoked", r.kept)
		m.drop(r.kept)
		return
	}
	m.say("%v could not be revoked: %v", r.kept, r.err)
	if m.disk.failures() == r.failures { // else it is none of the engine's doing
		r.tries++
	}
	if r.tries == mostTries {
		m.Fatal("a lease is irrevocable")
	}
	r.again = time.Now().Add(time.Duration(m.pace * float64(10*time.Second<<max(r.tries-1, 0))))
}

// failover has another node take over, or the same process start anew.
func (m *model) failover() {
	if m.node.is(paused) {
		if m.old != nil {
			m.old.stop(dead)
		}
		m.old, m.oldLeases = m.node, nil
		for _, l := range m.leases {
			m.oldLeases = append(m.oldLeases, oldLease{kept: l, fires: l.fires})
		}
	}
	m.mount()
}

// mount brings the engine to life on a new node.
func (m *model) mount() {
	m.nodes++
	n, err := startNode(fmt.Sprint(m.nodes), m.disk, m.wire, m.vault, m.next)
	if err != nil {
		m.Fatal(err)
	}
	m.node = n
	m.ill()
	m.say("node %s is active, its clock %v ahead", n.name, n.ahead())
	// Vault reads its leases, and sets its timers by the time of day.
	for _, l := range m.leases {
		l.running = false
		if l.queued {
			l.again, l.tries = time.Now(), 0
			continue
		}
		l.fires = time.Now().Add(l.expires.Sub(n.time()))
	}
	m.periodic = time.Now().Add(time.Minute)
}

// ill notes that something has failed this moment.
func (m *model) ill() { m.sick = time.Now() }

// healthy tells that nothing has failed for so long that all has to be well.
func (m *model) healthy() bool { return time.Since(m.sick) > endedIn }

func (m *model) crash() {
	m.next = time.Duration(rapid.IntRange(-5, 5).Draw(m.T, "the next clock is ahead")) * time.Second
	m.stops(dead)
}

func (m *model) pause() {
	m.next = time.Duration(rapid.IntRange(-5, 5).Draw(m.T, "the next clock is ahead")) * time.Second
	m.stops(paused)
}

// stops has the active node crash, or pause, now or some steps later.
func (m *model) stops(how fate) {
	steps := rapid.IntRange(0, 12).Draw(m.T, "steps until then")
	m.say("node %s: %s after %d steps", m.node.name, how, steps)
	if steps > 0 {
		m.node.arm(steps, how)
		return
	}
	m.node.stop(how)
}

// deposed lets the node that was paused go on, or, where it does already, try
// something.
func (m *model) deposed() {
	if m.old == nil {
		m.say("node %s stands still", m.node.name)
		m.node.stop(paused)
		return
	}
	if m.old.is(paused) {
		m.say("node %s goes on, deposed", m.old.name)
		m.old.stop(deposed)
		return
	}
	what := evenly([]string{"renew", "read", "die"}).Draw(m.T, "what it does")
	switch what {
	case "renew":
		if len(m.oldLeases) == 0 {
			return
		}
		l := m.oldLeases[rapid.IntRange(0, len(m.oldLeases)-1).Draw(m.T, "lease")]
		req := l.request(logical.RenewOperation)
		req.Secret.IssueTime = l.issued
		_, _, _ = m.ask(m.old, fmt.Sprintf("renew %v on node %s", l.kept, m.old.name), req, 0)
	case "read":
		_, _, err := m.ask(m.old, "read on node "+m.old.name, logical.Request{Operation: logical.ReadOperation, Path: "creds/readonly"}, 0)
		if err == nil {
			m.Fatal("a node that cannot write has issued a token")
		}
	case "die":
		m.say("node %s dies", m.old.name)
		m.old.stop(dead)
		m.old = nil
	}
}

// oldTick does what is due of the old node's Vault, which revokes leases that
// have run out, as it sees them.
func (m *model) oldTick() {
	n := m.old
	for i, l := range m.oldLeases {
		if !time.Now().Before(l.fires) && l.tries < mostTries {
			m.oldLeases[i].fires = time.Now().Add(20 * time.Second)
			m.oldLeases[i].tries++
			req := l.request(logical.RevokeOperation)
			m.say("node %s revokes %v, which has run out as it sees it", n.name, l.kept)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
				defer cancel()
				_, err := n.request(ctx, req)
				m.trace.add("node %s has revoked %v: %v", n.name, l.kept, err)
			}()
		}
	}
}

func (m *model) fault() {
	no, page, list := `{"message":"no"}`, "<html>no</html>", "[]"
	f := evenly([]jiratest.Fault{
		{Do: jiratest.LoseCall},
		{Do: jiratest.LoseAnswer},
		{Do: jiratest.CutBody},
		{Do: jiratest.Hang},
		{Do: jiratest.HangAfter},
		{Do: jiratest.LateEffect},
		{Do: jiratest.Slow, Delay: time.Second},
		{Do: jiratest.Slow, Delay: 4 * time.Second},
		{Do: jiratest.Anonymous},
		{Do: jiratest.HTML200},
		{Do: jiratest.HTML404},
		{Do: jiratest.AnswerAfter, Status: 500, Body: no},
		{Do: jiratest.AnswerAfter, Status: 502, Body: page},
		{Do: jiratest.Answer, Status: 503, Body: no},
		{Do: jiratest.Answer, Status: 429},
		{Do: jiratest.Answer, Status: 400, Body: no},
		{Do: jiratest.Answer, Status: 401, Body: no},
		{Do: jiratest.Answer, Status: 403, Body: page},
		{Do: jiratest.Answer, Status: 404, Body: no},
		{Do: jiratest.Answer, Status: 404},
		{Do: jiratest.Answer, Status: 204},
		{Do: jiratest.Answer, Status: 200, Body: list},
	}).Draw(m.T, "what")
	f.Method = evenly([]string{"", "POST", "GET", "DELETE"}).Draw(m.T, "method")
	f.Nth = evenly([]int{1, 1, 2}).Draw(m.T, "which")
	f.Times = evenly([]int{1, 1, 3}).Draw(m.T, "how often")
	m.jira.Fault(f)
	m.say("fault: %s %s %d %s, from %d, %d times", f.Method, f.Do, f.Status, f.Body, f.Nth, f.Times)
}

// outage begins one of Jira's.
func (m *model) outage() {
	m.outages = rapid.IntRange(1, mostOutage).Draw(m.T, "steps")
	m.down = true
	switch how := evenly([]int{0, 404, 500, 503}).Draw(m.T, "status"); how {
	case http.StatusNotFound:
		m.say("Jira's token API is not mounted")
		m.jira.SetSwitches(func(s *jiratest.Switches) { s.NotMounted = []string{"/rest/pat"} })
	case 0:
		m.say("Jira is down")
		m.wire.set(func(w *network) { w.refuses = true })
		for _, n := range []*node{m.node, m.old} {
			if n != nil {
				n.hangUp()
			}
		}
	default:
		m.say("Jira answers %d", how)
		m.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: how})
	}
}

// works ends all outages.
func (m *model) works() {
	m.down, m.outages = false, 0
	m.jira.ClearFaults()
	m.jira.SetSwitches(func(s *jiratest.Switches) { s.NotMounted = nil })
	m.wire.set(func(w *network) { w.refuses = false })
	m.disk.set(func(d *disk) { d.away, d.left = nothing, 0 })
}

func (m *model) storage() {
	m.disk.set(func(d *disk) {
		switch d.away = evenly([]away{nothing, writes, allOfIt}).Draw(m.T, "what fails for a while"); d.away {
		case nothing:
			d.left = rapid.IntRange(1, 4).Draw(m.T, "which write fails")
			d.lands = rapid.Bool().Draw(m.T, "it lands")
			m.say("write %d will fail, landing: %v", d.left, d.lands)
		default:
			m.outages = rapid.IntRange(1, mostOutage).Draw(m.T, "steps")
			m.say("storage fails: %s", d.away)
		}
	})
}

func (m *model) clock() {
	if m.kind == modelAccess { // by Jira's such a token ends, and by Vault's its lease: none can be an hour off
		m.time()
		return
	}
	// Both clocks wrong in the same way cannot be told from the truth, nor can ours where
	// Jira does not tell its own.
	if rapid.Bool().Draw(m.T, "Jira's") || m.date != "" {
		ahead := time.Duration(rapid.IntRange(-60, 60).Draw(m.T, "minutes ahead")) * time.Minute
		if m.node.ahead() == wrongClock {
			ahead = min(ahead, 0)
		}
		m.skew.Store(int64(ahead))
		m.say("Jira's clock is %v ahead", ahead)
		return
	}
	ahead := wrongClock
	if m.node.ahead() == wrongClock {
		ahead = 0
	}
	if ahead > 0 && m.skew.Load() > 0 {
		m.skew.Store(0)
	}
	m.wronged = true
	m.node.clock.Store(int64(ahead))
	m.say("node %s's clock is %v ahead", m.node.name, ahead)
}

// late has the next mint be late or happen twice, or delivers those that are.
func (m *model) late() {
	if n := m.wire.deliverLate(); n > 0 {
		m.say("%d late mints are delivered", n)
		return
	}
	what := evenly([]mishap{late, twice}).Draw(m.T, "what")
	m.wire.set(func(w *network) { w.mishap = what })
	m.say("the next mint: %s", what)
}

func (m *model) operator() {
	if m.unclear {
		m.configure()
		return
	}
	switch what := evenly([]string{"write config", "write account", "delete account"}).Draw(m.T, "what"); what {
	case "write config":
		m.write("config", map[string]any{
			"request_timeout":         rapid.IntRange(5, 15).Draw(m.T, "request_timeout"),
			"max_concurrent_requests": rapid.IntRange(1, 10).Draw(m.T, "max_concurrent_requests"),
		})
	case "write account":
		m.write(m.principal(), m.login)
	case "delete account":
		m.unclear, m.forced = true, true
		m.ill()
		if !m.remove("roles/readonly", nil) {
			return
		}
		for _, l := range m.leases {
			l.asked = append(l.asked, m.node)
		}
		if m.owns { // the rotation ends the token that was brought, so the next account needs another
			m.owns = false
			_, m.login["token"] = m.jira.Mint("ci-bot", "made by hand", 90)
		}
		if m.remove(m.principal(), map[string]any{"force": true}) {
			m.configure()
		}
	}
}

// principal is where the login lies that tokens are made and ended with.
func (m *model) principal() string {
	if m.kind == modelUsers {
		return "config"
	}
	return "accounts/ci-bot"
}

// configure writes everything that the engine needs.
func (m *model) configure() {
	if m.kind == modelUsers {
		m.unclear = !m.write("config", map[string]any{"url": m.jira.URL(), "username": m.login["username"], "token": m.login["token"], "allow_admin_roles": "readonly"}) ||
			!m.write("roles/readonly", map[string]any{
				"credential_type": "ephemeral_user", "groups": "jira-software-users", "project_roles": "OPS:Developers", "verify": false,
				"ttl": modelTTL.String(), "max_ttl": modelMaxTTL.String(),
			})
		return
	}
	role := map[string]any{"accounts": "ci-bot", "ttl": modelTTL.String(), "max_ttl": modelMaxTTL.String()}
	if m.kind == modelAccess {
		role["credential_type"] = "oauth2"
	}
	m.unclear = !m.write("config", map[string]any{"url": m.jira.URL()}) ||
		!m.write("accounts/ci-bot", m.login) ||
		!m.write("roles/readonly", role)
}

func (m *model) write(path string, data map[string]any) bool {
	_, ok, err := m.ask(m.node, "write "+path, logical.Request{Operation: logical.UpdateOperation, Path: path, Data: data}, 0)
	return ok && err == nil
}

func (m *model) remove(path string, data map[string]any) bool {
	_, ok, err := m.ask(m.node, "delete "+path, logical.Request{Operation: logical.DeleteOperation, Path: path, Data: data}, 0)
	return ok && err == nil
}

// token is l's in Jira.
func (m *model) token(l *kept) jiratest.Token {
	t := m.tokens()[l.data["token_id"].(string)]
	if !l.named(t) { // since a restore the id is another's
		return jiratest.Token{}
	}
	return t
}

// named tells whether t has the name of what l holds.
func (l *kept) named(t jiratest.Token) bool { return strings.Contains(t.Name, l.data["id"].(string)) }

// live tells whether l's token works, of whatever kind it is.
func (m *model) live(l *kept) bool {
	if m.kind == modelAccess {
		return m.jira.AccessTokens()[l.access].Live
	}
	return m.token(l).Live
}

// calls is how many calls Jira has seen that were not examined yet.
func (m *model) calls() int { return len(m.jira.Calls()) }

// mostSiblings is how many live at a time.
const mostSiblings = 3

// sibling has a reader of an exclusive account make a token of his own, under a
// name of his own or under that of his lease's.
func (m *model) sibling() {
	l := m.some(func(l *kept) bool { return m.kind == modelExclusive && l.lives() })
	if l == nil || m.left(time.Now()) == mostSiblings {
		m.read()
		return
	}
	name := evenly([]string{"mine", m.token(l).Name}).Draw(m.T, "its name")
	t, _ := m.jira.Mint("ci-bot", name, 1)
	m.made[t.ID] = time.Now()
	m.say("the reader of %v makes token %d, %s", l, t.ID, name)
}

// restore takes a backup of Jira, or brings back the last one. Persons make tokens then,
// which get the ids of leases from before.
func (m *model) restore() {
	if m.kind != modelPATs || m.owns {
		m.read()
		return
	}
	if m.backup == nil || rapid.IntRange(0, 2).Draw(m.T, "a new backup if 0") == 0 {
		m.say("Jira is backed up")
		m.backup = m.jira.Backup()
		return
	}
	m.say("Jira is restored")
	m.ill()
	m.jira.Restore(m.backup)
	for _, l := range m.leases {
		l.lost = l.lost || !m.token(l).Live
	}
	for _, t := range m.tokens() {
		if r := m.record(t); t.Live && (r == nil || r.State == ledger.Ended) {
			m.say("token %d, %s, is there again", t.ID, t.Name)
			m.risen[t.Name] = true
		}
	}
	m.persons = slices.DeleteFunc(m.persons, func(id int64) bool {
		return !slices.ContainsFunc(m.jira.Tokens("release-bot"), func(t jiratest.Token) bool { return t.ID == id })
	})
	for range rapid.IntRange(0, 3).Draw(m.T, "tokens that persons make") {
		t, _ := m.jira.Mint("release-bot", "a person's", 365)
		m.say("a person makes token %d", t.ID)
		m.persons = append(m.persons, t.ID)
	}
}

// left is how many siblings work of those that lists had before then.
func (m *model) left(then time.Time) int {
	n := 0
	for _, t := range m.jira.Tokens("ci-bot") {
		at, sibling := m.made[t.ID]
		if sibling && t.Live && !at.After(then.Add(-m.lag)) {
			n++
		}
	}
	return n
}

// tidy has the operator start a tidy, and waits for it for a while. What is lost
// is not forgotten: an engine whose clock is wrong cannot tell how old a lease is.
func (m *model) tidy() {
	n, began := m.node, time.Now()
	_, ok, err := m.ask(n, "tidy", logical.Request{Operation: logical.UpdateOperation, Path: "tidy", Data: map[string]any{"dry_run": false, "tidy_lost": false}}, 0)
	if !ok || err != nil {
		return
	}
	for range 6 {
		m.pass(time.Second)
		if n != m.node {
			return
		}
		resp, ok, err := m.ask(n, "tidy-status", logical.Request{Operation: logical.ReadOperation, Path: "tidy-status"}, 0)
		if !ok || err != nil {
			return
		}
		s := resp.Data
		if s["state"] == tidyRunning {
			continue
		}
		m.say("the tidy: %v", s["message"])
		all := s["sibling_count"] == s["sibling_deleted_count"] && s["other_mount_count"] == s["other_mount_deleted_count"] && s["orphan_count"] == s["orphan_deleted_count"]
		if s["state"] == tidyFinished && (all || m.healthy()) && !m.unclear && m.left(began) > 0 {
			m.Fatal("a tidy has found nothing more, and a sibling works")
		}
		return
	}
}

// tokens are the engine's in Jira, by id.
func (m *model) tokens() map[string]jiratest.Token {
	tokens := map[string]jiratest.Token{}
	for _, t := range m.jira.Tokens("") {
		own := strings.HasSuffix(t.Name, "-own") && m.made[t.ID].IsZero()
		if _, sibling := m.made[t.ID]; strings.HasPrefix(t.Name, "vault-") && !sibling && !own {
			tokens[strconv.FormatInt(t.ID, 10)] = t
		}
	}
	return tokens
}

// deactivated tells whether t is dead with its user, whom Jira did not let go of. That it
// could not be deleted either, because the token API was away, the log has told.
func (m *model) deactivated(t jiratest.Token) bool { return m.kind == modelUsers && !t.Live }

// record is what the ledger has of a token, nil where it has none.
func (m *model) record(t jiratest.Token) *ledger.Record {
	return m.recordOf(strings.Split(t.Name, "-")[2])
}

// recordOf is the ledger's record of that id, nil where there is none.
func (m *model) recordOf(id string) *ledger.Record {
	entry, err := m.disk.Get(context.Background(), ledgerPrefix+id[:2]+"/"+id)
	if err != nil {
		m.Fatal(err)
	}
	if entry == nil {
		return nil
	}
	r := &ledger.Record{}
	if err := json.Unmarshal(entry.Value, r); err != nil {
		m.Fatal(err)
	}
	return r
}

// check holds that all is as it has to be.
func (m *model) check() {
	synctest.Wait() // or the engine's goroutines go on while we look
	m.examine()
	m.flush()
	if m.kind == modelAccess {
		m.checkAccess()
		return
	}
	tokens := m.tokens()
	for _, l := range m.leases {
		id := l.data["token_id"].(string)
		t := m.token(l)
		if l.named(t) {
			delete(tokens, id)
		}
		if l.lives() && !t.Live {
			m.say("the token of %v is gone", l)
			m.Fatal("a lease lives, and its token does not")
		}
		if !l.lives() && !l.queued && t.Live {
			tokens[id] = t // of a lease that somebody asked to end, with what the ledger has of it
		}
	}
	for _, t := range m.jira.Tokens("release-bot") {
		if i := slices.Index(m.persons, t.ID); i >= 0 && !t.Live {
			m.say("token %d, %s", t.ID, t.Name)
			m.Fatal("a person's token was ended")
		}
	}
	now := time.Now()
	healthy := m.healthy()
	for _, t := range tokens {
		if !t.Live || m.risen[t.Name] {
			continue
		}
		r := m.record(t)
		if r == nil {
			m.say("token %d, %s, is in no ledger", t.ID, t.Name)
			m.Fatal("a token lives that nobody knows of")
		}
		if !healthy {
			continue
		}
		late := time.Duration(0)
		switch {
		case r.State == ledger.Issued:
			late = now.Sub(r.LeaseEnd.Time())
		case r.NeverIssued() && r.State == ledger.Intended:
			continue // looked for more and more seldom
		default:
			late = now.Sub(r.OwedAt.Time())
		}
		if late > endedIn {
			m.say("token %d is %s, and late by %v: %+v", t.ID, r.State, late, r)
			m.Fatal("a token outlives its end")
		}
	}
}

// checkAccess is check of access tokens, which Jira ends by itself.
func (m *model) checkAccess() {
	for _, l := range m.leases {
		if l.lives() && !m.live(l) {
			m.say("the token of %v is gone", l)
			m.Fatal("a lease lives, and its token does not")
		}
	}
	if !m.healthy() {
		return
	}
	for _, key := range m.stored(ledgerPrefix) {
		r := m.recordOf(key[strings.LastIndex(key, "/")+1:])
		ends := r.Expires.Time().Add(ledger.Grace)
		if r.NeverIssued() { // nobody has the token
			ends = r.IntendedAt.Time()
		}
		if late := time.Since(ends); late > endedIn {
			m.say("record %s is %s, and late by %v: %+v", r.ID, r.State, late, r)
			m.Fatal("an access token has ended, and its record has not")
		}
	}
}

// stored are the keys with that prefix in storage.
func (m *model) stored(prefix string) []string {
	keys, err := logical.CollectKeysWithPrefix(context.Background(), &m.disk.InmemStorage, prefix)
	if err != nil {
		m.Fatal(err)
	}
	return keys
}

// examine finds out whether something fails that excuses the engine.
func (m *model) examine() {
	for _, c := range m.jira.Calls() {
		switch jiratest.Misbehaviour(c.Fault) {
		case "":
		case jiratest.Slow:
			m.slow++
		default:
			m.ill()
		}
		if c.Status == http.StatusUnauthorized && c.Auth == "basic" {
			m.unclear = true // the engine does not try the password again until it is written
		}
	}
	m.jira.ResetCalls()
	if n := m.disk.failures(); n != m.failed {
		m.failed = n
		m.ill()
	}
	m.wire.set(func(w *network) {
		if w.came != m.came {
			m.came = w.came
			m.ill()
		}
	})
	if m.down || m.unclear || m.skew.Load() != 0 || m.node.ahead() == wrongClock || !m.node.is(runs) {
		m.ill()
	}
	m.disk.set(func(d *disk) {
		if d.away != nothing {
			m.ill()
		}
	})
}

// end has everything work again, and then holds that nothing is left.
func (m *model) end() {
	m.say("everything works again")
	m.works()
	m.wire.set(func(w *network) { w.mishap = none })
	m.skew.Store(0)
	m.next = 0
	if m.old != nil {
		m.old.stop(dead)
		m.old = nil
	}
	m.node.arm(0, runs)
	m.node.clock.Store(0)
	m.wire.deliverLate()
	m.tick()
	for tries := 0; m.vault.tainted.Load(); tries++ {
		if tries == 10 {
			m.Fatal("the mount cannot be moved any more")
		}
		if m.unclear { // a password that Jira has refused cannot be written, so Vault steps down
			m.node.stop(dead)
		}
		m.pass(time.Minute)
		m.move()
	}
	for tries := 0; m.unclear; tries++ {
		if tries == 5 {
			m.Fatal("the engine cannot be configured any more")
		}
		m.configure()
		m.pass(time.Minute)
	}
	longest := modelMaxTTL + endedIn
	if m.wronged {
		longest += wrongClock
	}
	m.pass(longest)
	for id, t := range m.tokens() {
		if t.Live && m.risen[t.Name] || m.deactivated(t) {
			continue
		}
		m.say("token %s: %+v", id, t)
		m.Fatal("a token is left")
	}
	if m.forced || m.lag > 0 || len(m.risen) > 0 {
		m.tidy()
	}
	for id, t := range m.tokens() {
		if m.deactivated(t) {
			continue
		}
		m.say("token %s: %+v", id, t)
		m.Fatal("a token is left that a restore has brought back")
	}
	if m.left(time.Now()) > 0 {
		m.Fatal("a sibling is left")
	}
	for _, u := range m.jira.Users() {
		if strings.HasPrefix(u.Name, "vault-") && !u.Inactive { // a 400 says that Jira does not let go of one
			m.say("user %s", u.Name)
			m.Fatal("a user is left")
		}
	}
	m.periodic = time.Now().Add(7 * 24 * time.Hour) // nothing may depend on it
	m.pass(ledger.LateLanding + 2*time.Hour)
	if m.owns { // what no lease holds has survived it all, and goes with its account
		for tries := 0; !m.remove("roles/readonly", nil) || !m.remove(m.principal(), nil); tries++ {
			if tries == 5 {
				m.Fatal("the account cannot be deleted")
			}
			m.pass(time.Hour)
		}
		m.pass(time.Hour)
		for _, t := range m.jira.Tokens("ci-bot") {
			if strings.HasPrefix(t.Name, "vault-") && m.made[t.ID].IsZero() {
				m.say("token %d, %s", t.ID, t.Name)
				m.Fatal("a token of the engine's own is left")
			}
		}
	}
	for _, prefix := range []string{ledgerPrefix, retiredPrefix} {
		for _, key := range m.stored(prefix) {
			if prefix == ledgerPrefix && strings.Count(key, "/") < 2 { // no record
				continue
			}
			entry, err := m.disk.Get(context.Background(), key)
			m.say("left in storage: %s %s %v", key, entry.Value, err)
			m.Fatal("a record is left")
		}
	}
	if len(m.leases) > 0 {
		m.Fatal("a lease is left")
	}
	if strings.Contains(m.node.log.String(), "panic") {
		m.Fatal("the engine panicked")
	}
}
