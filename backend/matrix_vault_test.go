package backend

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// The terms of the leases in the matrix: short, for each case lives through
// more than a day.
const (
	shortTTL = 10 * time.Minute
	shortMax = 30 * time.Minute
)

// bench is an engine that is cut in one of its steps, and an honest Vault: it
// keeps the leases that it was given, renews them as the engine answers, revokes
// those that have run out until the engine says that it is done, and calls no
// engine that has ended.
type bench struct {
	*engine
	world  world
	wire   *wire
	disk   logical.Storage // behind the wire
	leases []*held
	wishes []func() bool // what somebody goes on asking for; true: he has got it
	healed time.Time     // since when nothing is cut any more, by Vault's clock
	wrong  time.Duration // what the engine's clock is ahead of Vault's

	sole    bool   // the role's account is exclusive
	tends   bool   // something is rotated
	users   bool   // the role hands out throw-away users
	rotated string // the storage key of what was asked to be rotated
	strays  bool   // Jira has tokens of ours that nobody has told the ledger of
}

// held is a lease as Vault keeps it. Times are by Vault's clock.
type held struct {
	secret      *logical.Secret
	issued, end time.Time
	asked       bool // somebody wants it to end
	queued      bool // Vault is about to revoke it
	gone        bool // Vault does not have it any more
	failures    int  // of a queued revoke
}

// newBench is a bench beside Jira Data Center, or Jira Cloud.
func newBench(t *testing.T, w world, cloud bool) *bench {
	o := jiratest.Options{
		Now:      func() time.Time { return time.Now().Add(w.jira) },
		Version:  "11.0.0",
		Switches: w.switches,
	}
	o.Switches.ListLag = w.lag
	if cloud {
		o.Cloud, o.Version = "acme", ""
	}
	e := start(t, o)
	disk := e.storage.Storage
	b := &bench{engine: e, world: w, disk: disk, wire: &wire{Storage: disk, jira: e.jira}}
	e.storage.Storage = b.wire
	if cloud {
		service := b.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "ci"})
		b.write("config", map[string]any{
			"url": "https://acme.atlassian.net", "deployment": "cloud", "proxy_url": b.jira.Proxy(), "ca_cert": string(b.jira.CA()),
			"token": b.jira.AddOrgKey(false), "allow_undocumented_api": true,
		})
		b.write("accounts/ci", map[string]any{"type": "cloud_api_token", "account_id": service.ID})
		b.write("roles/readonly", map[string]any{
			"credential_type": "cloud_api_token", "accounts": "ci", "scopes": "read:jira-work", "ttl": shortTTL.String(), "max_ttl": shortMax.String(),
		})
		return b
	}
	b.write("config", map[string]any{"url": b.jira.URL()})
	b.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": b.pat("ci-bot")})
	b.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": shortTTL.String(), "max_ttl": shortMax.String()})
	return b
}

// patient has the engine wait so many seconds for each answer from now on.
func (b *bench) patient(timeout int) {
	b.t.Helper()
	c, err := load[config](b.t.Context(), &decoded{}, b.disk, configKey)
	if err != nil {
		b.t.Fatal(err)
	}
	if c == nil {
		return // deleted
	}
	c.RequestTimeout = timeout
	if err := store(b.t.Context(), b.disk, configKey, c); err != nil {
		b.t.Fatal(err)
	}
}

// vaultNow is the time by Vault's clock.
func (b *bench) vaultNow() time.Time { return b.now().Add(-b.wrong) }

// attempt runs f until it returns, or the node that it runs on crashes. It tells
// whether anybody has heard its answer.
func (b *bench) attempt(f func()) (heard bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
		heard = true
	}()
	<-ended
	return heard && !b.wire.dead()
}

// answered checks an error that the engine has answered with.
func (b *bench) answered(err error) {
	b.t.Helper()
	for _, secret := range b.jira.Secrets() {
		if err != nil && strings.Contains(err.Error(), secret) {
			b.t.Errorf("an error tells a secret: %v", err)
		}
	}
}

// ask sends a request, and tells whether it was answered without an error.
func (b *bench) ask(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, bool) {
	b.t.Helper()
	var resp *logical.Response
	var err error
	if !b.attempt(func() { resp, err = b.request(ctx, op, path, data) }) {
		return nil, false
	}
	b.answered(err)
	return resp, err == nil
}

// mint reads a credential.
func (b *bench) mint(ctx context.Context) {
	b.t.Helper()
	resp, ok := b.ask(ctx, logical.ReadOperation, "creds/readonly", nil)
	if ok {
		now := b.vaultNow()
		b.leases = append(b.leases, &held{secret: resp.Secret, issued: now, end: now.Add(resp.Secret.TTL)})
	}
}

// lease sends a lease back to the engine.
func (b *bench) lease(ctx context.Context, op logical.Operation, h *held) (resp *logical.Response, heard bool, err error) {
	h.secret.IssueTime = time.Now().Add(h.issued.Sub(b.vaultNow())) // the SDK reckons by the machine's clock
	heard = b.attempt(func() { resp, err = b.leaseRequest(ctx, op, h.secret) })
	if heard {
		b.answered(err)
	}
	return resp, heard, err
}

// extend renews a lease, and tells whether that went well.
func (b *bench) extend(h *held) bool {
	b.t.Helper()
	resp, heard, err := b.lease(b.t.Context(), logical.RenewOperation, h)
	if !heard || err != nil {
		return false
	}
	ttl, _, err := framework.CalculateTTL(b.system, 0, resp.Secret.TTL, 0, resp.Secret.MaxTTL, 0, h.secret.IssueTime)
	if err != nil {
		b.t.Fatal(err)
	}
	h.end = b.vaultNow().Add(ttl)
	return true
}

// end revokes a lease, as Vault does from its queue, or else as somebody does
// who waits for the answer. It tells whether the engine says that it is done.
func (b *bench) end(h *held, queued bool) bool {
	b.t.Helper()
	ctx := b.t.Context()
	if queued {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
	}
	_, heard, err := b.lease(ctx, logical.RevokeOperation, h)
	if !heard {
		return false
	}
	if err != nil {
		if h.failures++; queued && h.failures == 6 {
			b.t.Errorf("the lease of %q turns irrevocable: %v", h.name(), err)
		}
		return false
	}
	h.gone = true
	if r := b.stored()[h.id()]; b.works(h) && (!queued || r == nil || r.State != ledger.Owed) {
		b.t.Errorf("token %q was reported revoked, and works", h.name())
	}
	return true
}

func (h *held) id() string   { return h.secret.InternalData["id"].(string) }
func (h *held) name() string { return h.secret.InternalData["token_name"].(string) }

// lives tells whether the lease's holder may rely on it.
func (h *held) lives(now time.Time) bool { return !h.gone && !h.asked && now.Before(h.end) }

func (b *bench) works(h *held) bool {
	if h.secret.InternalData["type"] == oauth2Traits.stored {
		return h.lives(b.vaultNow()) // nobody can end it early
	}
	return slices.ContainsFunc(b.inJira(), func(tok listed) bool { return tok.id == tokenID(h.secret) })
}

// listed is a token of any kind that works.
type listed struct{ id, name string }

// inJira are all that there are.
func (b *bench) inJira() (all []listed) {
	for _, tok := range b.jira.Tokens("") {
		if tok.Live {
			all = append(all, listed{fmt.Sprint(tok.ID), tok.Name})
		}
	}
	for _, k := range b.jira.APITokens() {
		if k.Live {
			all = append(all, listed{k.ID, k.Label})
		}
	}
	return all
}

// want has somebody ask for something until he has got it.
func (b *bench) want(do func() bool) {
	if !do() {
		b.wishes = append(b.wishes, do)
	}
}

// worked has the worker do what is due now.
func (b *bench) worked() {
	b.t.Helper()
	b.attempt(func() {
		for range 100 {
			if b.wire.crashed() || b.work(b.t.Context()) > 0 {
				return
			}
		}
		b.t.Error("the worker finds no end")
	})
}

// tended has what is rotated looked after.
func (b *bench) tended() {
	b.t.Helper()
	if !b.tends {
		return
	}
	b.attempt(func() {
		if b.wire.crashed() || !b.ledger.Whole() {
			return
		}
		if err := b.tend(b.t.Context()); err != nil {
			b.t.Log(err)
		}
	})
}

// keeps are the ledger's ids of the tokens that the engine, or a static role, uses,
// or is about to, or has used until a moment ago.
func (b *bench) keeps() map[string]bool {
	b.t.Helper()
	ids := map[string]bool{}
	for _, prefix := range []string{accountsPrefix, staticRolesPrefix} {
		names, err := b.disk.List(b.t.Context(), prefix)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, name := range names {
			c, err := load[staticRole](b.t.Context(), &decoded{}, b.disk, prefix+name) // which an account is, too
			if err != nil {
				b.t.Fatal(err)
			}
			ids[c.RecordID], ids[c.NextID], ids[c.PreviousID] = true, true, true
		}
	}
	if c, err := load[config](b.t.Context(), &decoded{}, b.disk, configKey); err != nil {
		b.t.Fatal(err)
	} else if c != nil {
		ids[c.Admin.RecordID], ids[c.Admin.NextID], ids[c.Admin.PreviousID] = true, true, true
	}
	delete(ids, "")
	return ids
}

// kept are the names of the tokens of keeps.
func (b *bench) kept() []string {
	var names []string
	records := b.stored()
	for id := range b.keeps() {
		if r := records[id]; r != nil {
			names = append(names, r.Name)
		}
	}
	return names
}

// oneIsInUse asserts that each of what is rotated has one credential, which works,
// and takes all of it away.
func (b *bench) oneIsInUse() {
	b.t.Helper()
	b.on(11 * time.Minute) // past every overlap, and once more for what that ends
	b.on(time.Minute)
	for id := range b.keeps() {
		if r := b.stored()[id]; r == nil || r.State != ledger.Issued {
			b.t.Errorf("what is in use has the record %+v", r)
		}
	}
	logins := map[string]credential{}
	for _, prefix := range []string{accountsPrefix, staticRolesPrefix} {
		names, err := b.disk.List(b.t.Context(), prefix)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, name := range names {
			c, err := load[staticRole](b.t.Context(), &decoded{}, b.disk, prefix+name)
			if err != nil {
				b.t.Fatal(err)
			}
			logins[prefix+name] = c.credential
		}
	}
	if c, err := b.loadConfig(b.t.Context()); err == nil && c.Admin.kind() != "" {
		logins[configKey] = c.Admin
	}
	own := map[string]int{}
	for name, c := range logins {
		if c.RotatedAt == 0 && b.rotated == name {
			b.t.Errorf("%s was never rotated", name)
		}
		if c.Next != "" || c.PreviousEnd != 0 {
			b.t.Errorf("the rotation of %s has no end", name)
		}
		if c.Token != "" && b.call(c.Token) != http.StatusOK || c.Password != "" && b.passwordOf(c.Username) != c.Password {
			b.t.Errorf("what is stored of %s does not work", name)
		}
		if c.RecordID != "" {
			own[c.Username]++
		}
	}
	alive := b.alive()
	for _, n := range own {
		alive = alive[min(n, len(alive)):]
	}
	if len(alive) > 0 {
		b.t.Errorf("more is alive than is in use, by %d: %v", len(alive), b.alive())
	}
	b.dismantled()
}

// start brings a node to life on what storage holds, and reads the ledger once.
func (b *bench) start() {
	b.backend = newBackend(b.engine.storage, b.now)
	b.sites.pause = time.Microsecond // a case takes a day, and no time
	b.rotations.tends = true         // by the bench
	err := b.Setup(b.t.Context(), &logical.BackendConfig{
		StorageView: b.engine.storage, System: b.system,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: b.log}),
	})
	if err != nil {
		b.t.Error(err)
	}
	b.load()
	if err := b.dropAllRetired(b.t.Context()); err != nil {
		b.t.Log(err)
	}
}

// wake brings a node to life, and reads the ledger until that has gone well.
func (b *bench) wake() {
	b.mount()
	if err := b.dropAllRetired(b.t.Context()); err != nil {
		b.t.Log(err)
	}
}

// stored are the ledger's records, by id.
func (b *bench) stored() map[string]*ledger.Record {
	b.t.Helper()
	records := map[string]*ledger.Record{}
	fresh := ledger.New(logical.NewStorageView(b.disk, ledgerPrefix), time.Now)
	if err := fresh.Load(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	for _, id := range fresh.IDs("") {
		r, err := fresh.Read(b.t.Context(), id)
		if err != nil {
			b.t.Fatal(err)
		}
		records[id] = r
	}
	return records
}

// holds is the invariant. What a living lease holds works in Jira, and the ledger
// has it. Whatever else of ours works there has a record, which is not past its
// end, or is about to be ended: two minutes after all is well again it must have
// been.
func (b *bench) holds() {
	b.t.Helper()
	now := b.vaultNow()
	recovered := now.Sub(b.healed) >= 2*time.Minute
	kept := b.keeps()
	records := b.stored()
	known, living := map[string]bool{}, map[string]bool{} // Jira's ids, to Vault
	for _, h := range b.leases {
		known[tokenID(h.secret)] = !h.gone
		if h.lives(now) {
			living[tokenID(h.secret)] = true
			if !b.works(h) {
				b.t.Errorf("token %q does not work, and its lease has %v to go", h.name(), h.end.Sub(now))
			}
			if r := records[h.id()]; r == nil || r.State != ledger.Issued || r.LeaseEnd.Time().Before(h.end.Add(-ledger.Grace)) {
				b.t.Errorf("the lease of %q has %v to go, and the ledger says %+v", h.name(), h.end.Sub(now), r)
			}
		}
	}
	for _, name := range b.people() {
		if !strings.HasPrefix(name, "-") && !slices.ContainsFunc(b.leases, func(h *held) bool { return h.secret.InternalData["username"] == name }) {
			found := false
			for _, r := range records {
				found = found || r.Username == name
			}
			if !found {
				b.t.Errorf("user %q is there, and neither a lease nor the ledger knows him", name)
			}
		}
	}
	for _, tok := range b.inJira() {
		if !strings.HasPrefix(tok.name, "vault-") || living[tok.id] {
			continue
		}
		var r *ledger.Record
		for _, have := range records {
			if have.Name == tok.name {
				r = have
			}
		}
		// The end is in doubt until it has passed by both clocks.
		switch {
		case r != nil && kept[r.ID] && r.State == ledger.Issued:
		case r == nil && !b.strays && !known[tok.id]:
			b.t.Errorf("token %q works, and the ledger does not know it", tok.name)
		case r != nil && r.State == ledger.Issued && r.TokenID == tok.id && !b.asked(r.ID) &&
			now.Add(min(b.world.jira, 0)).Before(r.LeaseEnd.Time().Add(2*time.Minute)):
		case recovered && !b.strays:
			b.t.Errorf("token %q works still, %v after all is well again: %+v", tok.name, now.Sub(b.healed).Round(time.Second), r)
		}
	}
}

// nothingLives asserts that no lease has left a token in Jira, nor a user who
// could log in.
func (b *bench) nothingLives() {
	b.t.Helper()
	if names := b.names("sole-bot"); b.sole && len(names) > 0 {
		b.t.Errorf("past the end of every lease, an exclusive account has %v", names)
	}
	for _, name := range b.people() {
		if !strings.HasPrefix(name, "-") {
			b.t.Errorf("past the end of every lease, user %q is there", name)
		}
	}
	kept := b.kept()
	if names := slices.DeleteFunc(b.alive(), func(name string) bool { return slices.Contains(kept, name) }); len(names) > 0 {
		b.t.Errorf("past the end of every lease, these work: %v", names)
	}
}

// asked tells whether somebody wants the lease of record id to end.
func (b *bench) asked(id string) bool {
	return slices.ContainsFunc(b.leases, func(h *held) bool { return h.asked && h.id() == id })
}

// on lets time pass, and has everybody do what falls due.
func (b *bench) on(d time.Duration) {
	b.t.Helper()
	b.pass(d)
	b.wishes = slices.DeleteFunc(b.wishes, func(do func() bool) bool { return do() })
	for _, h := range b.leases {
		if !h.gone && (h.queued || !b.vaultNow().Before(h.end)) {
			b.end(h, true)
		}
	}
	b.tended()
	b.worked()
	if err := b.periodically(); err != nil && !b.system.TaintedVal {
		b.t.Errorf("the periodic call: %v", err)
	}
	b.holds()
}

// periodically makes Vault's periodic call. Of a tainted mount that may wait for Jira:
// less than Vault would let it.
func (b *bench) periodically() error {
	ctx, cancel := context.WithTimeout(b.t.Context(), 90*time.Second)
	if b.system.TaintedVal {
		ctx, cancel = context.WithTimeout(b.t.Context(), 500*time.Millisecond)
	}
	defer cancel()
	b.worker.running.Store(true) // by the bench, so that no other is started
	_, err := b.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: b.engine.storage})
	return err
}

// lasts has time pass while Jira is away: long enough for Vault to try a revoke
// six times.
func (b *bench) lasts(outage time.Duration) {
	b.t.Helper()
	b.healed = b.vaultNow().Add(outage) // not yet
	for wait := 10 * time.Second; outage > 0; wait *= 2 {
		wait = min(wait, outage)
		outage -= wait
		b.on(wait)
	}
}

// heal ends the cut: where a node has ended, another takes its place, and for
// what is left of the old one no call has any effect any more.
func (b *bench) heal() {
	b.t.Helper()
	dead := b.wire.dead()
	b.storage.stored.Store(nil)
	b.wire.disarm()
	b.wire.Storage = b.disk
	b.healed = b.vaultNow()
	b.holds() // as it was left
	if !dead {
		// What a refused login rests is a minute by the machine's own clock.
		b.sites.mu.Lock()
		clear(b.sites.clients)
		b.sites.mu.Unlock()
		if !b.ledger.Whole() {
			b.loadLedger() // which is tried until it has gone well
		}
		return
	}
	b.drained.Store(0) // nobody closes a node that is dead: this ends what it left running
	b.Cleanup(b.t.Context())
	b.clock.Add(int64(b.world.next))
	b.wrong = b.world.next
	b.wake()
}

// correct sets the engine's clock right.
func (b *bench) correct() {
	b.clock.Add(-int64(b.wrong))
	b.wrong = 0
}

// land has the lost request of a mint reach Jira after all.
func (b *bench) land() {
	b.t.Helper()
	for _, r := range b.stored() {
		if r.State == ledger.Intended {
			if r.Type == ephemeralUserTraits.stored {
				b.jira.AddUser(jiratest.User{Name: r.Username})
			}
			if r.Type == cloudAPITokenTraits.stored {
				b.jira.MintAPIToken(r.Username, r.Name, time.Hour)
			} else {
				b.jira.Mint(r.Username, r.Name, 1)
			}
			b.healed = b.vaultNow().Add(b.vaultNow().Sub(r.IntendedAt.Time()) / 10) // it is sought no more often
			return
		}
	}
	if b.users && b.wire.cut.step.name != "POST api/2/user" { // he is gone: what is about him finds nobody
		return
	}
	b.t.Error("no intent is left, and the request lands only now")
}

// depose has the node be deposed without knowing it, while it waits for s: what it
// reads from now on is what storage held before. Its successor renews the leases.
func (b *bench) depose(s scenario) {
	b.t.Helper()
	old := b.backend
	stale := &logical.InmemStorage{}
	for key, value := range b.snapshot() {
		if err := stale.Put(b.t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
			b.t.Fatal(err)
		}
	}
	last := min(s.wait, time.Minute)
	b.pass(s.wait - last)
	b.wake()
	for _, h := range b.leases {
		if !b.extend(h) && s.unasked && !h.asked {
			b.t.Fatal("no renewal")
		}
	}
	b.drained.Store(0)
	b.Cleanup(b.t.Context())
	b.pass(last)
	b.backend, b.wire.Storage = old, stale
}
