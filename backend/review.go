package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// review is the engine's daily look at what Jira's administrators may have
// changed since it was written here: accounts whose users were deactivated,
// renamed or promoted, and roles whose credentials can do more than they are
// allowed. It is stored, so that a new node does not begin again.
type review struct {
	At       int64             `json:"at"`       // seconds since 1970
	Accounts map[string]string `json:"accounts"` // what was found of each, by name
	Roles    map[string]string `json:"roles"`    // likewise
}

// reviewInterval is how long after a review the next one is due.
const reviewInterval = 24 * time.Hour

// reviewDaily starts a review if one is due. It is called by the worker, and goes
// on behind it. All was looked at when it was written, so the first is due a day
// after the engine came to life.
func (b *backend) reviewDaily(ctx context.Context) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	last, err := load[review](ctx, &b.decoded, b.storage, reviewKey)
	if err != nil {
		return err
	}
	if last == nil {
		return store(ctx, b.storage, reviewKey, review{At: b.now().Unix()})
	}
	if b.now().Sub(time.Unix(last.At, 0)).Abs() < reviewInterval || !b.reviewing.CompareAndSwap(false, true) {
		return nil
	}
	b.running.Go(func() {
		defer b.reviewing.Store(false)
		log := b.ownLog()
		err := b.guard(log, func() error { return b.review(b.background) })
		if err != nil && b.background.Err() == nil {
			log.Warn("not all accounts and roles could be reviewed", "error", err)
		}
	})
	return nil
}

// review looks at every account, and at every role that is to be kept within
// limits. What cannot be looked at now is looked at the next day.
func (b *backend) review(ctx context.Context) error {
	found := review{At: b.now().Unix(), Accounts: map[string]string{}, Roles: map[string]string{}}
	// First the date, which only the active node can write: a review that
	// crashes the process must not crash the next one at once.
	last, err := load[review](ctx, &b.decoded, b.storage, reviewKey)
	if err != nil {
		return err
	}
	begun := review{At: found.At}
	if last != nil {
		begun.Accounts, begun.Roles = last.Accounts, last.Roles
	}
	if err := store(ctx, b.storage, reviewKey, begun); err != nil {
		return err
	}
	accounts, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return err
	}
	for _, name := range accounts {
		if err := b.reviewAccount(ctx, name); err != nil {
			found.Accounts[name] = err.Error()
			b.ownLog().Warn("an account is not what it was written as", "account", name, "finding", err)
		}
	}
	roles, err := b.storage.List(ctx, rolesPrefix)
	if err != nil {
		return err
	}
	req := &logical.Request{Storage: b.storage}
	if have := b.logger.Load(); have != nil {
		req.MountPoint = have.path
	}
	for _, name := range roles {
		r, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+name)
		if err == nil && (r == nil || !r.EnforcePermissions) {
			continue
		}
		if err == nil {
			err = b.enforce(ctx, req, name, r)
		}
		if err != nil {
			found.Roles[name] = err.Error()
			b.ownLog().Warn("a role is not what it was written as", "role", name, "finding", err)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return store(ctx, b.storage, reviewKey, found)
}

// reviewAccount asks Jira whether an account's user is the one he was.
func (b *backend) reviewAccount(ctx context.Context, name string) error {
	a, err := b.loadAccount(ctx, b.storage, name)
	if err != nil {
		return err
	}
	client, err := b.client(ctx, b.storage, name)
	if err != nil {
		return err
	}
	if a.Type == accountTypeOAuth2 {
		c, err := b.loadConfig(ctx, b.storage)
		if err != nil {
			return err
		}
		_, err = b.verifyService(ctx, c, client.Site(), a)
		return err
	}
	if a.Type == accountTypeAPIToken {
		if _, err := client.Tokens(ctx); err != nil {
			return fmt.Errorf("listing its API tokens: %w", err)
		}
		return nil
	}
	u, err := client.Myself(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the %s cannot be used: %w", a.kind(), err)
	case !u.Active:
		return mistakef("user %q is not active in Jira any more", u.Name)
	case a.UserKey != "" && u.Key != a.UserKey:
		return mistakef("the %s belongs to user %q now, who is another than %q", a.kind(), u.Name, a.Username)
	case u.Name != a.Username:
		return mistakef("user %q was renamed to %q: write the account with the new username", a.Username, u.Name)
	}
	is, err := client.Administrator(ctx)
	if err == nil && is && !a.AllowAdmin {
		return mistakef("user %q administers Jira now, and so does every token of the account: take that from him, or set allow_admin=true", u.Name)
	}
	return err
}

// finding is what the last review found of an account or a role, and when that
// was.
func (b *backend) finding(ctx context.Context, s logical.Storage, of func(*review) map[string]string, name string) (finding, at string, err error) {
	last, err := load[review](ctx, &b.decoded, s, reviewKey)
	if err != nil || last == nil {
		return "", "", err
	}
	if of(last) == nil { // that is when the engine came to life
		return "", "", nil
	}
	return of(last)[name], unix(last.At), nil
}
