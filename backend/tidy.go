package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/fault"
)

// A tidy compares the ledger with the tokens that Jira has of each account. The
// two part where storage has lost what was written: an older snapshot of Vault
// was restored, or a mount was removed by force. What it finds is of four kinds:
//
//   - an orphan bears this mount's name, and the ledger does not know it;
//   - a lost one is in the ledger, under a lease, and not in Jira any more;
//   - a sibling bears no name of an engine's, or the name of a mount that nobody has
//     listed: somebody made it by hand, or with another token of the account;
//   - another mount's bears the name of one that the config's other_mount_ids lists.
//
// Only the first two are ever acted on, and only where dry_run is false; of an
// exclusive account, where nothing is to be but what this ledger knows, all.

// tidyOptions are what a tidy is asked to do.
type tidyOptions struct {
	DryRun        bool `json:"dry_run"`
	TidyOrphans   bool `json:"tidy_orphans"`
	TidyLost      bool `json:"tidy_lost"`
	PauseDuration int  `json:"pause_duration"` // seconds
}

// autoTidy is when a tidy is started by nobody, as it is stored. It is
// comparable.
type autoTidy struct {
	Enabled          bool `json:"enabled"`
	IntervalDuration int  `json:"interval_duration"` // seconds
	tidyOptions
}

// tidyStatus is how far the last tidy came, as it is stored.
type tidyStatus struct {
	tidyOptions
	State     string   `json:"state"`
	Automatic bool     `json:"automatic"`
	Error     string   `json:"error"`
	Message   string   `json:"message"`
	Started   int64    `json:"started"`  // seconds since 1970
	Finished  int64    `json:"finished"` // likewise, 0 while it runs
	LastAuto  int64    `json:"last_auto"`
	Accounts  []string `json:"accounts"`
	Done      int      `json:"done"` // of Accounts
	Tokens    int      `json:"tokens"`

	Orphans     findings `json:"orphans"`
	Lost        findings `json:"lost"`
	Siblings    findings `json:"siblings"`
	OtherMounts findings `json:"other_mounts"`

	Unlisted int `json:"unlisted"` // of Siblings: those that bear a mount's id and were not deleted
}

// The states of a tidy, as in Vault's PKI engine.
const (
	tidyInactive  = "Inactive"
	tidyRunning   = "Running"
	tidyFinished  = "Finished"
	tidyFailed    = "Error"
	tidyCancelled = "Cancelled"
)

// findings are tokens of one kind: how many, how many of them were dealt with,
// and the first of them.
type findings struct {
	Count int       `json:"count"`
	Done  int       `json:"done"`
	First []finding `json:"first"`
}

// finding is one token.
type finding struct {
	Account   string `json:"account"`
	ID        string `json:"id"` // the ledger's, where the name or the record tells it
	TokenID   string `json:"token_id"`
	TokenName string `json:"token_name"`
	Created   string `json:"created"` // RFC 3339, by Jira's clock; empty where it is not known
	Expires   string `json:"expires"` // likewise; empty: never, or not known
	Done      bool   `json:"done"`    // deleted, or forgotten
	Note      string `json:"note"`    // why not
}

// mostFindings is how many tokens of each kind are named: what fits into one
// entry of Vault's storage, which is 1 MiB with raft.
const mostFindings = 500

func (f *findings) add(one finding) {
	f.Count++
	if one.Done {
		f.Done++
	}
	if len(f.First) < mostFindings {
		f.First = append(f.First, one)
	}
}

// tidying is the tidy that runs, if one does.
type tidying struct {
	mu     sync.Mutex
	status *tidyStatus // nil: none runs. Replaced, never changed
	cancel context.CancelFunc
}

// startTidy starts a tidy of the accounts, which runs until it is done, is
// cancelled, or the engine ends. It fails where one runs.
func (b *backend) startTidy(o tidyOptions, accounts []string, automatic bool) (*tidyStatus, error) {
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	last, err := b.lastTidy(b.background)
	if err != nil {
		return nil, err
	}
	status := &tidyStatus{
		tidyOptions: o, State: tidyRunning, Automatic: automatic, Message: "Started",
		Started: b.now().Unix(), LastAuto: last.LastAuto, Accounts: accounts,
	}
	if automatic {
		status.LastAuto = status.Started
	}
	ctx, cancel := context.WithCancel(b.background)
	if have := b.tidying.begin(status, cancel); have != nil {
		cancel()
		return nil, fault.Userf("a tidy runs since %s: wait for it, or cancel it with tidy-cancel", rfc3339(time.Unix(have.Started, 0)))
	}
	// What is stored is of this one from now on: the last one's end must not be
	// taken for this one's, should nothing more be stored.
	started := false
	defer func() {
		if !started {
			b.tidying.over()
			cancel()
		}
	}()
	if err := store(ctx, b.storage, tidyStatusKey, *status); err != nil {
		return nil, err
	}
	started = true
	b.running.Go(func() {
		defer cancel()
		b.runTidy(ctx, *status)
	})
	return status, nil
}

// begin notes a tidy that is to run, unless one does, which it returns.
func (t *tidying) begin(status *tidyStatus, cancel context.CancelFunc) (have *tidyStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.status == nil {
		t.status, t.cancel = status, cancel
		return nil
	}
	return t.status
}

// over notes that no tidy runs any more.
func (t *tidying) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status = nil
}

// runTidy does what status says, and keeps it up to date.
func (b *backend) runTidy(ctx context.Context, s tidyStatus) {
	log := b.log().With("tidy", true, "dry_run", s.DryRun, "automatic", s.Automatic)
	log.Info("tidy started", "accounts", len(s.Accounts))
	err := b.guard(log, func() error { return b.tidy(ctx, log, &s) })
	s.Finished = b.now().Unix()
	switch {
	case errors.Is(err, context.Canceled):
		s.State, s.Message = tidyCancelled, fmt.Sprintf("Cancelled after %d of %d accounts", s.Done, len(s.Accounts))
	case err != nil:
		s.State, s.Message, s.Error = tidyFailed, fmt.Sprintf("Failed after %d of %d accounts", s.Done, len(s.Accounts)), err.Error()
	default:
		s.State, s.Message = tidyFinished, fmt.Sprintf("All %d accounts are tidied", len(s.Accounts))
	}
	log.Info("tidy ended", "state", s.State, "error", s.Error, "tokens", s.Tokens,
		"orphans", s.Orphans.Count, "orphans_deleted", s.Orphans.Done, "lost", s.Lost.Count, "lost_forgotten", s.Lost.Done,
		"siblings", s.Siblings.Count, "unlisted_mounts", s.Unlisted, "other_mounts", s.OtherMounts.Count)
	b.eventOfTidy(&s)
	keep, cancel := undo(ctx)
	defer cancel()
	if err := store(keep, b.storage, tidyStatusKey, s); err != nil {
		log.Warn("how the tidy ended could not be stored", "error", err)
	}
	b.tidying.over()
}

// progress stores how far the tidy has come. It is a fence as well: a node that
// was deposed cannot write, and so stops before it deletes.
func (b *backend) progress(ctx context.Context, s *tidyStatus) error {
	now := *s
	for _, f := range []*findings{&now.Orphans, &now.Lost, &now.Siblings, &now.OtherMounts} {
		f.First = slices.Clone(f.First) // s goes on being changed
	}
	b.tidying.mu.Lock()
	b.tidying.status = &now
	b.tidying.mu.Unlock()
	stored := now
	for _, f := range []*findings{&stored.Orphans, &stored.Lost, &stored.Siblings, &stored.OtherMounts} {
		f.First = nil // the names are stored once, at the end
	}
	return store(ctx, b.storage, tidyStatusKey, stored)
}

// tidy goes through the accounts. One that fails does not keep the others from
// being tidied.
func (b *backend) tidy(ctx context.Context, log hclog.Logger, s *tidyStatus) error {
	mounts, err := b.mountIDs(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for i, account := range s.Accounts {
		if i > 0 && s.PauseDuration > 0 {
			select {
			case <-time.After(time.Duration(s.PauseDuration) * time.Second):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return context.Canceled
		}
		s.Message = fmt.Sprintf("Tidying account %s, %d of %d", account, i+1, len(s.Accounts))
		if err := b.progress(ctx, s); err != nil {
			return err
		}
		if err := b.tidyAccount(ctx, log, s, mounts, account); err != nil {
			if ctx.Err() != nil {
				return context.Canceled
			}
			failed = append(failed, fmt.Errorf("account %q: %w", account, err))
			continue
		}
		s.Done++
	}
	return errors.Join(failed...)
}

// lastTidy is the status of the tidy that runs, or of the last one.
func (b *backend) lastTidy(ctx context.Context) (tidyStatus, error) {
	b.tidying.mu.Lock()
	running := b.tidying.status
	b.tidying.mu.Unlock()
	if running != nil {
		return *running, nil
	}
	s, err := load[tidyStatus](ctx, &b.decoded, b.storage, tidyStatusKey)
	if err != nil || s == nil {
		return tidyStatus{State: tidyInactive}, err
	}
	last := *s
	if last.State == tidyRunning { // but not here
		last.State, last.Error = tidyFailed, "the node that ran it has ended, or could not store how it went"
	}
	return last, nil
}

// tidyAutomatically starts a tidy if one is due.
func (b *backend) tidyAutomatically(ctx context.Context) error {
	auto, err := load[autoTidy](ctx, &b.decoded, b.storage, autoTidyKey)
	if err != nil || auto == nil || !auto.Enabled {
		return err
	}
	last, err := b.lastTidy(ctx)
	interval := time.Duration(auto.IntervalDuration) * time.Second
	if err != nil || last.State == tidyRunning || b.now().Before(time.Unix(last.LastAuto, 0).Add(interval)) {
		return err
	}
	accounts, err := b.tidyAccounts(ctx, nil)
	if err != nil {
		return err
	}
	_, err = b.startTidy(auto.tidyOptions, accounts, true)
	return err
}

// tidyAccounts returns the accounts that a request names, all where it names
// none. The config's admin is one, for whom the engine may have minted tokens.
func (b *backend) tidyAccounts(ctx context.Context, named []string) ([]string, error) {
	all, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil {
		return nil, err
	}
	if c != nil && !c.cloud() && c.Admin.kind() != "" {
		all = append(all, adminAccount)
	}
	if len(named) == 0 {
		return all, nil
	}
	for _, name := range named {
		if !slices.Contains(all, name) {
			return nil, fault.Userf("there is no account %q", name[:min(len(name), 64)])
		}
	}
	slices.Sort(named)
	return slices.Compact(named), nil
}

// data is s for the API.
func (s *tidyStatus) data() map[string]any {
	data := map[string]any{
		"state": s.State, "error": s.Error, "message": s.Message, "automatic": s.Automatic,
		"dry_run": s.DryRun, "tidy_orphans": s.TidyOrphans, "tidy_lost": s.TidyLost, "pause_duration": s.PauseDuration,
		"time_started": unix(s.Started), "time_finished": unix(s.Finished), "last_auto_tidy_started": unix(s.LastAuto),
		"accounts": append([]string{}, s.Accounts...), "accounts_done": s.Done, "token_count": s.Tokens,
		"orphan_count": s.Orphans.Count, "orphan_deleted_count": s.Orphans.Done,
		"lost_count": s.Lost.Count, "lost_forgotten_count": s.Lost.Done,
		"sibling_count": s.Siblings.Count, "sibling_deleted_count": s.Siblings.Done, "unlisted_mount_count": s.Unlisted,
		"other_mount_count": s.OtherMounts.Count, "other_mount_deleted_count": s.OtherMounts.Done,
	}
	for field, f := range map[string]findings{"orphans": s.Orphans, "lost": s.Lost, "siblings": s.Siblings, "other_mounts": s.OtherMounts} {
		list := make([]map[string]any, 0, len(f.First))
		for _, one := range f.First {
			list = append(list, map[string]any{
				"account": one.Account, "id": one.ID, "token_id": one.TokenID, "token_name": one.TokenName,
				"created": one.Created, "expires": one.Expires, "done": one.Done, "note": one.Note,
			})
		}
		data[field] = list
	}
	return data
}

// unix is a stored time for the API.
func unix(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return rfc3339(time.Unix(seconds, 0))
}

// trimmed are the names of a comma-separated field.
func trimmed(names []string) []string {
	var out []string
	for _, name := range names {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}
