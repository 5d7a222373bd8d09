package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

const (
	// statusPatience bounds what a status waits for Jira, all calls together.
	statusPatience = 5 * time.Second
	// statusRest is how long what was found out about a credential is told again
	// without asking.
	statusRest = 30 * time.Second
)

func (b *backend) pathStatus() *framework.Path {
	field := func(kind framework.FieldType, what string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: kind, Required: true, Description: what}
	}
	return &framework.Path{
		Pattern:      "status",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.edge(b.readStatus),
				Summary:  "Read whether the engine can do its work right now.",
				Responses: answered(map[string]*framework.FieldSchema{
					"healthy":     field(framework.TypeBool, "Nothing needs anybody. Build an alert on it."),
					"reasons":     field(framework.TypeStringSlice, "Why not, in words, with what to do."),
					"jira":        field(framework.TypeMap, "url, version (when the config was written), state (RUNNING where all is well, empty where there was no answer), node, latency_ms, clock_skew_seconds (what Jira's clock is ahead; 0 also where its answer carries no date), error."),
					"credentials": field(framework.TypeMap, "Of config (as ~admin) and each account: kind, works, error, expires_at, last_rotated, next_rotation, rotation_error. What was asked is told again for half a minute."),
					"room":        field(framework.TypeMap, "Of each account: held, and room (-1 for no end). Of each role, as role/<name>: held, and max_leases (0 for as many as its accounts hold)."),
					"ledger":      field(framework.TypeMap, "whole (it is read), error (why not), intended, issued, owed and ended (records in each state), oldest_debt_seconds, overdue (records for which something is due for more than two minutes), oldest_overdue_seconds, worker_idle_seconds (how long ago the worker last finished a turn)."),
					"tidy":        field(framework.TypeMap, "The last tidy: state, error, time_finished, orphan_count, lost_count, sibling_count, unlisted_mount_count, other_mount_count."),
					"limits":      field(framework.TypeMap, "gate_shut_until (no call is made before; empty while calls are made), paused (by account, until when no call is made as its user, whom Jira limits), rate_limit and rate_limit_remaining (what Jira last said of a user's calls; 0 and -1 where it limits nobody)."),
				}, &logical.Response{Data: map[string]any{
					"healthy": false, "reasons": []string{`account "ci-bot": its token expires on 2026-03-09T08:15:09Z and is not replaced: rotate it, or write another`},
					"jira":        map[string]any{"url": "https://jira.example.com", "version": "10.3.2", "state": "RUNNING", "node": "", "latency_ms": 12, "clock_skew_seconds": 0, "error": ""},
					"credentials": map[string]any{"ci-bot": map[string]any{"kind": "token", "works": true, "error": "", "expires_at": "2026-03-09T08:15:09Z", "last_rotated": "", "next_rotation": "", "rotation_error": ""}},
					"room":        map[string]any{"ci-bot": map[string]any{"held": 3, "room": 5}, "role/readonly": map[string]any{"held": 3, "max_leases": 0}},
					"ledger":      map[string]any{"whole": true, "error": "", "intended": 0, "issued": 3, "owed": 0, "ended": 0, "oldest_debt_seconds": 0, "overdue": 0, "oldest_overdue_seconds": 0, "worker_idle_seconds": 4},
					"tidy":        map[string]any{"state": "Finished", "error": "", "time_finished": "2026-03-02T08:15:09Z", "orphan_count": 0, "lost_count": 0, "sibling_count": 0, "unlisted_mount_count": 0, "other_mount_count": 0},
					"limits":      map[string]any{"gate_shut_until": "", "paused": map[string]any{"ci-bot": "2026-03-02T08:19:09Z"}, "rate_limit": 0, "rate_limit_remaining": -1},
				}}),
				ForwardPerformanceStandby:   true, // only the active node knows
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "status"},
			},
		},
		HelpSynopsis: "Whether the engine can do its work right now.",
		HelpDescription: strings.TrimSpace(`
Asks Jira how it is and whether each credential works, and tells that with what the
ledger, the last tidy and the rotations say. healthy is false where somebody has to do
something, and reasons says what. It answers within some seconds when Jira does not.

    vault read -format=json jira/status
`),
	}
}

// checks remembers for a while which credentials work. The zero value is ready for use.
type checks struct {
	mu    sync.Mutex
	found map[string]check
}

type check struct {
	credential credential // the one that was asked with
	at         time.Time
	err        error
}

// works asks Jira whether what account name logs in with works, unless it was asked of
// late.
func (b *backend) works(ctx context.Context, name string, a *account) error {
	b.checks.mu.Lock()
	last, ok := b.checks.found[name]
	b.checks.mu.Unlock()
	if ok && last.credential == a.credential && time.Since(last.at) < statusRest || ok && a.traits().expiresOnly {
		return last.err
	}
	client, err := b.client(ctx, name)
	if err == nil {
		err = a.ofType().works(ctx, client, a)
	}
	if err == nil && b.sites.onFallback(name, a) {
		err = fault.Userf("Jira refuses its token, and the engine logs in with fallback_password: rotate the account with rotate-account, or write another token")
	}
	if passing(ctx, err) { // and tells nothing of the next call
		return err
	}
	b.checks.note(name, a.credential, err)
	return err
}

// forget forgets what is known of account name, which was written.
func (k *checks) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.found, name)
}

// note takes note of whether c, which account name logs in with, works.
func (k *checks) note(name string, c credential, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.found == nil {
		k.found = map[string]check{}
	}
	k.found[name] = check{c, time.Now(), err}
}

// passing tells whether err says nothing of what was logged in with: Jira was away, or
// no time was left.
func passing(ctx context.Context, err error) bool {
	return err != nil && (jira.Is(err, jira.Down) || jira.Is(err, jira.Busy) || ctx.Err() != nil)
}

// report is a status in the making.
type report struct {
	mu      sync.Mutex
	data    map[string]any
	reasons []string
}

func (r *report) wrong(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons = append(r.reasons, fmt.Sprintf(format, a...))
}

func (b *backend) readStatus(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	accounts, err := b.allAccounts(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{data: map[string]any{}}
	asking, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	// Jira first, so that no credential is blamed for what is Jira's.
	running := b.statusOfJira(asking, r, c)
	b.statusOfCredentials(asking, r, c, accounts, running)
	if err := b.statusOfRoom(ctx, r, accounts); err != nil {
		return nil, err
	}
	b.statusOfLedger(ctx, r, running)
	if err := b.statusOfTidy(ctx, r); err != nil {
		return nil, err
	}
	shut, limit, left, limited := b.sites.weather()
	until := ""
	if time.Until(shut) > 0 {
		until = rfc3339(shut)
		r.wrong("no call is made to Jira before %s, as it asked, or because it was down", until)
	}
	if !limited {
		limit, left = 0, -1
	} else if left == 0 {
		r.wrong("Jira's rate limit is used up: raise it for the engine's users, or read fewer credentials")
	}
	paused := map[string]any{}
	for name, at := range b.sites.paused(c, accounts) {
		paused[name] = rfc3339(at)
		r.wrong("account %q: no call is made as its user before %s, for Jira limits its calls: raise Jira's rate limit for it, or let its tokens' readers call less", name, rfc3339(at))
	}
	r.data["limits"] = map[string]any{"gate_shut_until": until, "paused": paused, "rate_limit": limit, "rate_limit_remaining": left}
	slices.Sort(r.reasons)
	r.data["healthy"], r.data["reasons"] = len(r.reasons) == 0, append([]string{}, r.reasons...)
	return &logical.Response{Data: r.data}, nil
}

// statusOfJira tells whether Jira runs.
func (b *backend) statusOfJira(ctx context.Context, r *report, c *config) bool {
	told := map[string]any{"url": c.URL, "version": c.Version, "state": "", "node": "", "latency_ms": 0, "clock_skew_seconds": 0, "error": ""}
	r.data["jira"] = told
	site, err := b.sites.of(c)
	if err != nil {
		told["error"] = err.Error()
		r.wrong("config: %v", err)
		return false
	}
	h, err := site.Health(ctx, c.cloud())
	if err != nil {
		told["error"] = err.Error()
		r.wrong("Jira cannot be reached: %v", err)
		return false
	}
	told["state"], told["node"], told["latency_ms"] = h.State, h.Node, h.Took.Milliseconds()
	if h.State != "RUNNING" {
		r.wrong("Jira is not running: it says %s", h.State)
	}
	if !h.Date.IsZero() {
		// To the second, of an answer that was under way for a while.
		skew := h.Date.Sub(b.now()).Round(time.Second)
		told["clock_skew_seconds"] = int(skew / time.Second)
		if skew.Abs() > ledger.Grace {
			r.wrong("this machine's clock and Jira's differ by %v: what outlived its lease is ended later for it", skew)
		}
	}
	return h.State == "RUNNING"
}

// statusOfCredentials tells which of what the engine logs in with works.
func (b *backend) statusOfCredentials(ctx context.Context, r *report, c *config, accounts map[string]*account, running bool) {
	all := maps.Clone(accounts)
	if c.Admin.kind() != "" && !c.cloud() {
		all[adminAccount] = c.adminAsAccount()
	}
	told := map[string]any{}
	var calls sync.WaitGroup
	for name, a := range all {
		calls.Go(func() {
			err := b.guard(b.log(), func() error {
				one := b.statusOfCredential(ctx, r, name, a, running)
				r.mu.Lock()
				defer r.mu.Unlock()
				told[name] = one
				return nil
			})
			if err != nil {
				r.wrong("account %q: %v", name, err)
			}
		})
	}
	calls.Wait()
	r.data["credentials"] = told
}

// statusOfCredential tells whether what account name logs in with works.
func (b *backend) statusOfCredential(ctx context.Context, r *report, name string, a *account, running bool) map[string]any {
	what := fmt.Sprintf("account %q", name)
	if name == adminAccount {
		what = "the config's admin"
	}
	err := b.works(ctx, name, a)
	why := ""
	if err != nil {
		why = err.Error()
		switch {
		case !running, jira.Is(err, jira.Busy) && !jira.OfSite(err): // told already, or with the limits
		case passing(ctx, err):
			r.wrong("%s: Jira says that it runs, and does not answer: %v", what, err)
		default:
			r.wrong("%s: what it logs in with does not work: %v", what, err)
		}
	}
	rotation := b.rotationData(&a.schedule, &a.rotated, name)
	if failure := rotation["last_error"]; failure != "" {
		r.wrong("%s: its last rotation failed: %v", what, failure)
	}
	if a.Expires != 0 && b.now().Add(warnAhead).After(time.Unix(a.Expires, 0)) && rotation["next_rotation"] == "" {
		r.wrong("%s: its token expires on %s and is not replaced: rotate it, or write another", what, unix(a.Expires))
	}
	if a.Token != "" && a.RecordID == "" && a.OwnTokenID == "" && rotation["next_rotation"] == "" {
		r.wrong("%s: which of its user's tokens it logs in with is not known, and so not when that expires: write its id as own_token_id, or rotate it", what)
	}
	return map[string]any{
		"kind": a.kind(), "works": err == nil, "error": why, "expires_at": unix(a.Expires),
		"last_rotated": rotation["last_rotated"], "next_rotation": rotation["next_rotation"], "rotation_error": rotation["last_error"],
	}
}

// statusOfRoom tells how much more accounts and roles can hold.
func (b *backend) statusOfRoom(ctx context.Context, r *report, accounts map[string]*account) error {
	told := map[string]any{}
	r.data["room"] = told
	for name, a := range accounts {
		room := b.room(name, a)
		told[name] = map[string]any{"held": b.ledger.Held(name), "room": room}
		if room == 0 {
			r.wrong("account %q is full: end leases, add accounts to its roles, or raise max_tokens with Jira's own cap", name)
		}
	}
	names, err := b.storage.List(ctx, rolesPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		one, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+name)
		if err != nil {
			return err
		}
		if one == nil {
			continue
		}
		held := b.ledger.HeldBy(name)
		told["role/"+name] = map[string]any{"held": held, "max_leases": one.MaxLeases}
		if one.MaxLeases > 0 && held >= one.MaxLeases {
			r.wrong("role %q has all the %d leases that it may: end some, or raise max_leases", name, one.MaxLeases)
		}
	}
	static, err := b.storage.List(ctx, staticRolesPrefix)
	if err != nil {
		return err
	}
	for _, name := range static {
		if why := b.rotations.failure(staticName(name)); why != "" {
			r.wrong("static role %q: its last rotation failed: %s", name, why)
		}
	}
	return nil
}

// statusOfLedger tells what the ledger holds.
func (b *backend) statusOfLedger(ctx context.Context, r *report, running bool) {
	counts, why := b.ledger.Counts(), ""
	if unread := b.unread.Load(); unread != nil {
		why = (*unread).Error()
	}
	debt, err := b.oldestDebt(ctx)
	if err != nil {
		r.wrong("how old the debts are cannot be read: %v", err)
	}
	late, oldest := b.late()
	overdue, idle := 0, b.idle()
	for _, n := range late.Count {
		overdue += n
	}
	r.data["ledger"] = map[string]any{
		"overdue": overdue, "oldest_overdue_seconds": int(oldest / time.Second), "worker_idle_seconds": int(idle / time.Second),
		"whole": b.ledger.Whole(), "error": why, "oldest_debt_seconds": int(debt / time.Second),
		"intended": counts[ledger.Intended], "issued": counts[ledger.Issued], "owed": counts[ledger.Owed], "ended": counts[ledger.Ended],
	}
	switch {
	case why != "":
		r.wrong("not all of the ledger can be read: %s", why)
	case !b.ledger.Whole():
		r.wrong("the ledger is still being read: this passes by itself")
	}
	if damaged := b.ledger.Damaged(); len(damaged) > 0 {
		r.wrong("%s", damagedText(damaged))
	}
	if idle > idlePatience && b.ledger.Listed() {
		r.wrong("the engine has not looked for what is due for %v: its log may say why; reload the plugin, and report it", idle.Round(time.Second))
	}
	if n := overdue - late.Count[ledger.Owed]; n > 0 && running { // what is owed is told below
		r.wrong("for %d records something is due for more than two minutes, for the oldest for %v, and it is not done: the log says why (%d intended, which Jira has to be asked for; %d issued, whose lease is over; %d ended)", n, oldest.Round(time.Second), late.Count[ledger.Intended], late.Count[ledger.Issued], late.Count[ledger.Ended])
	}
	if debt > overduePatience && running {
		r.wrong("%d tokens have to go, the oldest for %v, and Jira does not end them: tokens/ with state=owed lists them, and the log says why", counts[ledger.Owed], debt.Round(time.Second))
	}
}

// statusOfTidy tells what the last tidy, and the last review, found.
func (b *backend) statusOfTidy(ctx context.Context, r *report) error {
	last, err := b.lastTidy(ctx)
	if err != nil {
		return err
	}
	r.data["tidy"] = map[string]any{
		"state": last.State, "error": last.Error, "time_finished": unix(last.Finished),
		"orphan_count": last.Orphans.Count, "lost_count": last.Lost.Count, "sibling_count": last.Siblings.Count, "unlisted_mount_count": last.Unlisted, "other_mount_count": last.OtherMounts.Count,
	}
	if last.State == tidyFailed {
		r.wrong("the last tidy failed: %s", last.Error)
	}
	if left := last.Orphans.Count - last.Orphans.Done; left > 0 {
		r.wrong("the last tidy found %d orphans, tokens of this mount's name that the ledger does not know: look at tidy-status, and tidy with dry_run=false", left)
	}
	if last.Unlisted > 0 {
		r.wrong("the last tidy found %d tokens that bear the name of a mount which other_mount_ids of the config does not list: look at tidy-status, and list the mount if it is yours; if not, somebody has made them with a token of the account", last.Unlisted)
	}
	review, err := load[review](ctx, &b.decoded, b.storage, reviewKey)
	if err != nil || review == nil {
		return err
	}
	for name, found := range review.Accounts {
		r.wrong("account %q: the daily review found: %s", name, found)
	}
	for name, found := range review.Roles {
		r.wrong("role %q: the daily review found: %s", name, found)
	}
	return nil
}
