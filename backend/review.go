package backend

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// review is the engine's daily look at what Jira's administrators may have
// changed since it was written here: accounts whose users were deactivated,
// renamed or promoted, and roles whose credentials can do more than they are
// allowed. It is stored, so that a new node does not begin again.
type review struct {
	At       int64             `json:"at"`       // seconds since 1970
	Accounts map[string]string `json:"accounts"` // what was found of each, by name
	Roles    map[string]string `json:"roles"`    // likewise
	Again    int64             `json:"again"`    // when what was found was looked at again
}

const (
	// reviewInterval is how long after a review the next one is due.
	reviewInterval = 24 * time.Hour
	// reviewAgain is the same for what was found to be wrong: somebody may have
	// mended it in Jira.
	reviewAgain = time.Hour
)

// reviews is the one that runs, and what has been written since. The zero value is ready
// for use.
type reviews struct {
	running atomic.Bool
	soon    atomic.Bool // what was found may be mended: look at it again at once
}

// reviewSoon has what the last review found looked at again: somebody has written what
// it may be about.
func (b *backend) reviewSoon() {
	b.reviews.soon.Store(true)
	b.ledger.Wake()
}

// reviewDaily starts a review if one is due: of all, or of what was found to be wrong. It
// is called by the worker, and goes on behind it. All was looked at when it was written,
// so the first is due a day after the engine came to life.
func (b *backend) reviewDaily(ctx context.Context) error {
	if !b.WriteSafeReplicationState() || b.System().Tainted() || b.reviews.running.Load() {
		return nil // what is written while one runs is looked at after it
	}
	last, err := load[review](ctx, &b.decoded, b.storage, reviewKey)
	if err != nil {
		return err
	}
	if last == nil {
		return store(ctx, b.storage, reviewKey, review{At: b.now().Unix()})
	}
	soon := b.reviews.soon.Swap(false)
	past := func(at int64, interval time.Duration) bool { return b.now().Sub(time.Unix(at, 0)).Abs() >= interval }
	all := past(last.At, reviewInterval)
	again := len(last.Accounts)+len(last.Roles) > 0 && (soon || past(max(last.At, last.Again), reviewAgain))
	if !all && !again {
		return nil
	}
	b.reviews.running.Store(true) // the worker alone starts one
	b.running.Go(func() {
		log := b.log()
		err := b.guard(log, func() error { return b.review(b.background, all) })
		b.reviews.running.Store(false)
		switch {
		case err == nil:
			b.ledger.Wake()
		case b.background.Err() == nil: // the worker's next turn tries again: to wake it would turn without an end
			log.Warn("not all accounts and roles could be reviewed", "error", err)
		}
	})
	return nil
}

// review looks at all accounts, and at all roles that are to be kept within limits, or
// at those of which something was found. What cannot be looked at now is looked at the
// next time.
func (b *backend) review(ctx context.Context, all bool) error {
	last, err := load[review](ctx, &b.decoded, b.storage, reviewKey)
	if err != nil {
		return err
	}
	begun := review{}
	if last != nil {
		begun = *last
	}
	if begun.Again = b.now().Unix(); all {
		begun.At = begun.Again
	}
	// First the date, which only the active node can write: a review that
	// crashes the process must not crash the next one at once.
	if err := store(ctx, b.storage, reviewKey, begun); err != nil {
		return err
	}
	found := review{At: begun.At, Again: begun.Again, Accounts: map[string]string{}, Roles: map[string]string{}}
	if err := b.reviewAccounts(ctx, all, begun, found); err != nil {
		return err
	}
	if err := b.reviewRoles(ctx, all, begun, found); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return store(ctx, b.storage, reviewKey, found)
}

// reviewAccounts looks at all accounts, or at those that had a finding, and notes in found
// what it finds.
func (b *backend) reviewAccounts(ctx context.Context, all bool, begun, found review) error {
	accounts, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return err
	}
	for _, name := range accounts {
		if _, wrong := begun.Accounts[name]; !all && !wrong {
			continue
		}
		err := b.reviewAccount(ctx, name)
		if unknown(err) {
			keep(begun.Accounts, found.Accounts, name)
			b.log().Warn("an account could not be reviewed now", "account", name, "error", err)
			continue
		}
		if err != nil {
			found.Accounts[name] = err.Error()
			b.log().Warn("the daily review of an account has a finding", "account", name, "finding", err)
		}
	}
	return nil
}

// reviewRoles is [backend.reviewAccounts] for roles.
func (b *backend) reviewRoles(ctx context.Context, all bool, begun, found review) error {
	roles, err := b.storage.List(ctx, rolesPrefix)
	if err != nil {
		return err
	}
	for _, name := range roles {
		if _, wrong := begun.Roles[name]; !all && !wrong {
			continue
		}
		r, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+name)
		if err == nil && (r == nil || !r.EnforcePermissions) {
			continue
		}
		if err == nil {
			err = b.enforce(ctx, ledger.Reader{}, name, r)
		}
		if unknown(err) {
			keep(begun.Roles, found.Roles, name)
			b.log().Warn("a role could not be reviewed now", "role", name, "error", err)
			continue
		}
		if err != nil {
			found.Roles[name] = err.Error()
			b.log().Warn("the daily review of a role has a finding", "role", name, "finding", err)
		}
	}
	return nil
}

// unknown tells whether err says nothing of what was to be reviewed.
func unknown(err error) bool {
	full, later := (*fault.Capacity)(nil), fault.Unavailable("")
	return err != nil && (jira.Is(err, jira.Down) || jira.Is(err, jira.Busy) || errors.As(err, &full) || errors.As(err, &later))
}

func keep(from, to map[string]string, name string) {
	if was, ok := from[name]; ok {
		to[name] = was
	}
}

// reviewAccount asks Jira whether an account's user is the one he was.
func (b *backend) reviewAccount(ctx context.Context, name string) error {
	a, err := b.loadAccount(ctx, name)
	if err != nil {
		return err
	}
	client, err := b.client(ctx, name)
	if err != nil {
		return err
	}
	return a.ofType().review(ctx, b, client, a)
}

// finding is what the last review found of an account or a role, and when that
// was.
func (b *backend) finding(ctx context.Context, of func(*review) map[string]string, name string) (finding, at string, err error) {
	last, err := load[review](ctx, &b.decoded, b.storage, reviewKey)
	if err != nil || last == nil {
		return "", "", err
	}
	if of(last) == nil { // that is when the engine came to life
		return "", "", nil
	}
	return of(last)[name], unix(last.At), nil
}
