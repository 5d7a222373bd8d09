package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load is applications that read credentials without a pause, and do with them all that can be done: renew them as long
// as they can, revoke them, forget them. Beside them somebody looks at Jira's tokens all the time. What they see that must
// not be is kept in problems, and fails the test at the end.
type load struct {
	*world
	role   string
	ttl    time.Duration // of the role
	client *http.Client
	call   context.Context // of all calls
	end    context.CancelFunc
	asked  context.Context // over when the applications shall end
	stop   context.CancelFunc

	applications, watcher    sync.WaitGroup
	reads, renewals, revokes atomic.Int64 // that succeeded

	mu       sync.Mutex
	held     map[string]*credential // by the token's name
	back     time.Time              // since when nothing is missing that ends tokens; zero while something is
	alive    int                    // how many tokens of the engine's are in Jira
	slowest  time.Duration          // from a lease's end, or from when all was back, until the token was gone
	problems []string
}

// credential is what an application knows of one it has read. Its lease ends between two times: an answer that was lost
// may have been a renewal.
type credential struct {
	token, name, lease string

	least, most time.Time
	revoked     bool // somebody asked for its end
}

const (
	// impatience is how long an application waits for Vault.
	impatience = 3 * time.Second
	// margin is how long before a lease's end nobody relies on it any more.
	margin = time.Second
	// promised is how long after its lease a token may be alive, when nothing is missing.
	promised = 2 * time.Minute
)

// configure mounts the engine, for an account without an end of tokens.
func (w *world) configure() {
	w.t.Helper()
	w.must(200, "PATCH", w.control+"switches", map[string]any{"MaxTokens": -1})
	w.api("POST", "sys/mounts/jira", map[string]any{"type": pluginName})
	w.api("PUT", "jira/config", map[string]any{"url": w.jira["JIRA_URL"]})
	w.api("PUT", "jira/accounts/ci", map[string]any{"username": w.jira["JIRA_USERNAME"], "token": w.jira["JIRA_TOKEN"], "max_tokens": 1_000_000})
}

// startLoad starts applications that read a role: so many of each kind of use, and so many more that keep what they have,
// half of them for less than they could.
func (w *world) startLoad(role string, ttl time.Duration, each, keepers int) *load {
	l := &load{
		world: w, role: role, ttl: ttl, held: map[string]*credential{}, back: time.Now(),
		client: &http.Client{Timeout: max(impatience, w.patience), Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
	}
	l.call, l.end = context.WithCancel(w.t.Context())
	l.asked, l.stop = context.WithCancel(l.call)
	for i := range keepers {
		l.use(i, []func(*application, *credential){(*application).keep, (*application).keepBriefly}[i/3%2])
	}
	for i := range each {
		for _, what := range []func(*application, *credential){
			(*application).keep, (*application).forget, (*application).revokeNow, (*application).revokeSoon,
		} {
			l.use(i, what)
		}
	}
	l.watcher.Go(l.watch)
	return l
}

// use starts an application. Its turn says which node it begins with.
func (l *load) use(turn int, what func(*application, *credential)) {
	a := &application{load: l, turn: turn}
	l.applications.Go(func() {
		for l.pause(150 * time.Millisecond) {
			if c := a.read(); c != nil {
				what(a, c)
			}
		}
	})
}

// pause tells whether to go on, after a while.
func (l *load) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return l.asked.Err() == nil
	case <-l.asked.Done():
		return false
	}
}

func (l *load) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// ask makes an HTTP request with a header. The status is 0 where there was no whole answer.
func (l *load) ask(method, url string, body any, header, value string) (int, []byte) {
	return ask(l.call, l.client, method, url, body, header, value)
}

func ask(ctx context.Context, client *http.Client, method, url string, body any, header, value string) (int, []byte) {
	content, err := json.Marshal(body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return 0, []byte(err.Error())
	}
	req.Header.Set(header, value)
	resp, err := client.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return resp.StatusCode, answer
}

// many makes a request of Vault so many times, by several clients, and fails the test unless each works. The body is of
// the number of the request.
func (w *world) many(count, clients int, method, url string, body func(int) (path string, body any)) {
	w.t.Helper()
	client := &http.Client{Timeout: most, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	ctx, cancel := context.WithCancelCause(w.t.Context())
	defer cancel(nil)
	var made atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for i := int(made.Add(1)); i <= count && ctx.Err() == nil; i = int(made.Add(1)) {
				path, content := body(i)
				if status, answer := ask(ctx, client, method, url+path, content, "X-Vault-Token", w.root); status/100 != 2 {
					cancel(fmt.Errorf("%s %s: %d %s", method, url+path, status, answer))
				}
			}
		})
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// application is one of those who read.
type application struct {
	*load
	turn int // which node it calls
}

// vault calls Vault, at another node than before where one did not answer well.
func (a *application) vault(method, path string, body any) (int, []byte) {
	var addr string
	if len(a.nodes) > 0 { // then the world's own address changes with the leader
		addr = a.nodes[a.turn%len(a.nodes)].addr
	} else {
		addr = a.addr
	}
	status, answer := a.ask(method, addr+"/v1/"+path, body, "X-Vault-Token", a.root)
	if status == 0 || status >= 500 {
		a.turn++
	}
	return status, answer
}

// read reads a credential, or nil where that fails.
func (a *application) read() *credential {
	asked := time.Now()
	status, answer := a.vault("GET", "jira/creds/"+a.role, nil)
	var read struct {
		LeaseID       string `json:"lease_id"`
		LeaseDuration int64  `json:"lease_duration"`
		Data          struct {
			Token string
			Name  string `json:"token_name"`
		}
	}
	if status != http.StatusOK {
		return nil
	}
	if err := json.Unmarshal(answer, &read); err != nil || read.Data.Token == "" || read.LeaseID == "" {
		a.problem("a read was answered with %s (%v)", answer, err)
		return nil
	}
	c := &credential{token: read.Data.Token, name: read.Data.Name, lease: read.LeaseID}
	c.lasts(asked, read.LeaseDuration)
	a.mu.Lock()
	a.held[c.name] = c
	a.mu.Unlock()
	a.reads.Add(1)
	return c
}

// lasts notes what an answer says of the lease's end, to a question of that time.
func (c *credential) lasts(asked time.Time, seconds int64) {
	duration := time.Duration(seconds) * time.Second
	c.least, c.most = asked.Add(duration), time.Now().Add(duration)
}

// forget does nothing more with a credential: it expires.
func (a *application) forget(*credential) {}

// keep renews a credential until it can be no more.
func (a *application) keep(c *credential) {
	for a.pause(a.ttl / 10) {
		if !a.renew(c, 0) {
			return
		}
	}
}

// keepBriefly takes a long time, changes its mind and keeps the credential for short ones. A shorter renewal shortens a
// lease.
func (a *application) keepBriefly(c *credential) {
	for increment := 10 * time.Minute; a.renew(c, increment); increment = a.ttl {
		if !a.pause(a.ttl / 10) {
			a.renew(c, a.ttl) // lest it takes ten minutes to end
			return
		}
	}
}

// renew tells whether to try again.
func (a *application) renew(c *credential, increment time.Duration) bool {
	asked := time.Now()
	status, answer := a.vault("PUT", "sys/leases/renew", map[string]any{"lease_id": c.lease, "increment": int(increment.Seconds())})
	a.mu.Lock()
	defer a.mu.Unlock()
	if status == http.StatusOK {
		var renewed struct {
			LeaseDuration int64 `json:"lease_duration"`
		}
		if err := json.Unmarshal(answer, &renewed); err != nil {
			a.problems = append(a.problems, fmt.Sprintf("a renewal was answered with %s (%v)", answer, err))
			return false
		}
		if time.Now().Before(c.least.Add(-margin)) {
			c.lasts(asked, renewed.LeaseDuration)
		} else {
			// It was answered when the lease was about to end. Vault may have begun to revoke it by then, and does
			// so although it has said yes: it does both at a time.
			c.most = maxTime(c.most, time.Now().Add(time.Duration(renewed.LeaseDuration)*time.Second))
		}
		a.renewals.Add(1)
		return renewed.LeaseDuration > int64(a.ttl.Seconds()/2) // else it is near its longest time
	}
	c.most = maxTime(c.most, time.Now().Add(max(a.ttl, increment)))
	// Vault says 400 to whatever goes wrong in a plugin. These words are of a lease that is over.
	text := string(answer)
	over := strings.Contains(text, "lease not found") || strings.Contains(text, "lease expired") || strings.Contains(text, "is being revoked")
	if over && c.lives() {
		a.problems = append(a.problems, fmt.Sprintf("the lease of token %q lives until %v at least, and cannot be renewed: %d %s",
			c.name, c.least.Format(time.StampMilli), status, answer))
	}
	return !over
}

// revokeNow revokes a credential, and looks whether that is done.
func (a *application) revokeNow(c *credential) {
	if a.revoke(c, true) {
		if a.myself(c) == http.StatusOK {
			a.problem("token %q is revoked, and works in Jira", c.name)
		}
	}
}

// revokeSoon has Vault revoke a credential in its own time.
func (a *application) revokeSoon(c *credential) { a.revoke(c, false) }

func (a *application) revoke(c *credential, now bool) bool {
	a.mu.Lock()
	c.revoked = true
	a.mu.Unlock()
	status, _ := a.vault("PUT", "sys/leases/revoke", map[string]any{"lease_id": c.lease, "sync": now})
	if status/100 != 2 {
		return false // whether it will be, nobody knows
	}
	a.mu.Lock()
	c.most = time.Now()
	a.mu.Unlock()
	a.revokes.Add(1)
	return true
}

// byApplication marks the calls that applications make, among those that Jira has seen.
const byApplication = "?by=application"

// myself is what Jira answers to a token.
func (l *load) myself(c *credential) int {
	status, _ := l.ask("GET", l.jira["JIRA_URL"]+"/rest/api/2/myself"+byApplication, nil, "Authorization", "Bearer "+c.token)
	return status
}

// lives tells whether c's lease does, for sure. The caller holds the load's mu.
func (c *credential) lives() bool { return !c.revoked && time.Now().Before(c.least.Add(-margin)) }

// living returns what has a lease for sure.
func (l *load) living() []*credential {
	l.mu.Lock()
	defer l.mu.Unlock()
	var living []*credential
	for _, c := range l.held {
		if c.lives() {
			living = append(living, c)
		}
	}
	return living
}

// checkHeld looks whether every token whose lease lives works in Jira, and returns how many do.
func (l *load) checkHeld() int {
	working := 0
	for _, c := range l.living() {
		status := l.myself(c)
		if status == http.StatusOK {
			working++
			continue
		}
		l.mu.Lock()
		still := c.lives()
		l.mu.Unlock()
		if still {
			l.problem("the lease of token %q lives until %v at least, and Jira answers the token with %d", c.name, c.least.Format(time.StampMilli), status)
		}
	}
	return working
}

// is tells whether a token of this name is of a lease of the load's role.
func (l *load) is(name string) bool {
	return strings.HasPrefix(name, "vault-") && strings.HasSuffix(name, "-"+l.role)
}

// tokens are the names of those that are alive.
func (l *load) tokens() []string {
	return slices.DeleteFunc(l.live(), func(name string) bool { return !l.is(name) })
}

// watch looks at Jira's tokens until the test ends.
func (l *load) watch() {
	overdue := map[string]bool{}
	for l.call.Err() == nil {
		status, answer := l.ask("GET", l.control+"tokens", nil, "Accept", "application/json")
		var tokens []struct {
			Name    string
			Created time.Time
			Live    bool
		}
		if status == http.StatusOK && json.Unmarshal(answer, &tokens) == nil {
			l.mu.Lock()
			now, live := time.Now(), map[string]bool{}
			for _, t := range tokens {
				if !t.Live || !l.is(t.Name) {
					continue
				}
				live[t.Name] = true
				end := t.Created.Add(l.ttl) // if nobody received it
				if c := l.held[t.Name]; c != nil {
					end = c.most
				}
				late := now.Sub(maxTime(end, l.back))
				if l.back.IsZero() || late <= 0 {
					continue
				}
				l.slowest = max(l.slowest, late)
				if late > promised && !overdue[t.Name] {
					overdue[t.Name] = true
					l.problems = append(l.problems, fmt.Sprintf("token %q is alive %v after its lease", t.Name, late))
				}
			}
			l.alive = len(live)
			for name, c := range l.held {
				if !live[name] && now.After(c.most) {
					delete(l.held, name)
				}
			}
			l.mu.Unlock()
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-l.call.Done():
		}
	}
}

// down notes that something is missing that ends tokens.
func (l *load) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.back = time.Time{}
}

// waitReads waits until applications have read so many credentials more.
func (l *load) waitReads(more int) {
	l.t.Helper()
	want := l.reads.Load() + int64(more)
	if poll(func() bool { return l.reads.Load() >= want }) != nil {
		l.t.Fatalf("no application can read any more: %d reads, waiting for %d", l.reads.Load(), want)
	}
}

// up waits until credentials can be read again, and notes that nothing is missing any more.
func (l *load) up() {
	l.t.Helper()
	l.waitReads(2) // the first answer may have been on its way when it all stopped
	l.allIsBack()
}

// allIsBack notes that from now on nothing is missing that ends tokens.
func (l *load) allIsBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.back = time.Now()
}

// progress is how a load does, for a line of a soak.
func (l *load) progress(working int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d leases live with their tokens, %d tokens in Jira; so far %d reads, %d renewals, %d revokes, slowest end %v",
		working, l.alive, l.reads.Load(), l.renewals.Load(), l.revokes.Load(), l.slowest.Round(time.Millisecond))
}

// troubled tells whether anything went wrong.
func (l *load) troubled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.problems) > 0
}

// finish ends the applications, waits for the end of all tokens, and fails the test for whatever went wrong.
func (l *load) finish() {
	l.t.Helper()
	l.stop()
	l.applications.Wait()
	var last time.Time
	l.mu.Lock()
	for _, c := range l.held {
		last = maxTime(last, c.most)
	}
	l.mu.Unlock()
	left := 0
	if err := pollFor(max(l.ttl, time.Until(last))+promised, func() bool {
		left = len(l.tokens())
		return left == 0
	}); err != nil {
		l.problem("%d tokens are alive long after the last lease", left)
	}
	l.end()
	l.watcher.Wait()
	for _, p := range l.problems[:min(len(l.problems), 20)] {
		l.t.Error(p)
	}
	if more := len(l.problems) - 20; more > 0 {
		l.t.Errorf("and %d more", more)
	}
	irrevocable := l.irrevocable()
	if irrevocable != 0 {
		l.t.Errorf("%d leases are irrevocable", irrevocable)
	}
	if left == 0 {
		l.holdsNothing()
	}
	suite.figures.add(figures{
		mints: l.reads.Load(), renewals: l.renewals.Load(), revokes: l.revokes.Load(),
		leaks: int64(left), irrevocable: int64(irrevocable), slowest: l.slowest,
	})
}

// irrevocable is how many leases Vault has given up.
func (w *world) irrevocable() int {
	w.t.Helper()
	var count struct {
		Data struct {
			Count *int `json:"lease_count"`
		}
	}
	answer := w.api("GET", "sys/leases/count?type=irrevocable", nil)
	w.read(&count, answer)
	if count.Data.Count == nil {
		w.t.Fatalf("Vault does not count its leases: %s", answer)
	}
	return *count.Data.Count
}

// holdsNothing waits until Vault has no lease and the engine's ledger no token any more.
func (w *world) holdsNothing() {
	w.t.Helper()
	var account struct{ Data struct{ Held int } }
	if poll(func() bool {
		w.read(&account, w.api("GET", "jira/accounts/ci", nil))
		return account.Data.Held == 0
	}) != nil {
		w.t.Errorf("by the engine's ledger the account holds %d tokens, while Jira has none", account.Data.Held)
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
