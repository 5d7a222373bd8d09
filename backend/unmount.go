package backend

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/ledger"
)

// Vault disables a mount in these steps (mount.go of Vault 1.21.1):
//
//	taint → periodic → revoke each lease, one by one → Clean → wipe the storage
//
// and moves one in these:
//
//	taint → periodic → revoke each lease, one by one → change the path → untaint
//
// A revoke that fails ends either, and leaves the mount tainted: no request reaches
// it, but revokes and the periodic call do, and the same command can be repeated.
// Clean is also called at a seal, a step-down and a reload, of a tainted mount too.
//
// So until Clean nobody can tell a disable from a move, and what no lease holds
// (what the engine logs in with, tokens of static roles) is left alone. In Clean
// it is ended if this must be a disable: the mount is tainted, no lease has still to
// be revoked, and the periodic call or the last revoke has ended a moment ago, for in a
// disable nothing comes in between. Nothing else tells the two apart: Clean has
// no deadline in any of them, and storage can be written. A seal or a reload that comes
// in such a moment looks the same; then the engine has to be given new credentials.
//
// What a crash leaves after each step is a tainted mount with its ledger, on which the
// command can be repeated; or, after Clean, one whose own credentials have ended.

const (
	// cleaning bounds Clean: the SDK holds a lock over all mounts meanwhile.
	cleaning = 2 * time.Second
	// telling is what of it is kept for the log, and what background work has to end in.
	telling = cleaning / 4
	// straightAfter is how soon Clean comes in a disable. Vault has a lease to forget meanwhile.
	straightAfter = 2 * time.Second
)

// clean ends what runs in the background and, if the mount is being disabled, what
// is left of it in Jira.
func (b *backend) clean(ctx context.Context) {
	disables := b.now().Sub(time.Unix(0, b.drained.Load())) <= straightAfter
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleaning)
	defer cancel()
	tainted := b.readable.at.Load() != nil && b.WriteSafeReplicationState() && b.System().Tainted()
	b.cancelBackground()
	ended := make(chan struct{})
	go func() {
		b.running.Wait()
		close(ended)
	}()
	limit := time.After(cleaning)
	if tainted {
		limit = time.After(telling)
	}
	select {
	case <-ended:
	case <-limit:
		b.Logger().Warn("background work did not end in time")
	}
	if tainted {
		b.cleaned.Do(func() { // Vault calls twice
			_ = b.guard(b.log(), func() error {
				if disables {
					limit, _ := ctx.Deadline()
					ending, cancel := context.WithDeadline(ctx, limit.Add(-telling))
					defer cancel()
					if !b.leased(ending) {
						b.endKept(ending)
					}
				}
				b.tellLeft(ctx)
				return nil
			})
		})
	}
	b.sites.close()
}

// leased tells whether a lease has still to be revoked: one that holds a token, or
// whose record waits for it.
func (b *backend) leased(ctx context.Context) bool {
	records, err := b.readAll(ctx, b.ledger.IDs(""))
	return err != nil || slices.ContainsFunc(records, func(r *ledger.Record) bool {
		return r != nil && r.Kept == "" && (r.State == ledger.Issued || r.Recalled && !r.Over(b.now()))
	})
}

// endKept ends what no lease holds, and what is owed: first all else, then what the
// engine logs in with. What it cannot end in time it leaves.
func (b *backend) endKept(ctx context.Context) {
	// A node that was deposed cannot write, and its successor needs all this.
	if err := store(ctx, b.storage, fenceKey, b.now().UnixMilli()); err != nil {
		b.log().Warn("what no lease holds is not ended: storage cannot be written", "error", err)
		return
	}
	b.disabled.Store(true)
	for _, own := range []bool{false, true} {
		var all sync.WaitGroup
		for _, account := range b.ledger.Accounts() {
			all.Go(func() {
				log := b.log().With("account", account)
				err := b.guard(log, func() error { return b.endKeptOf(ctx, log, account, own) })
				if err != nil {
					log.Warn("not all of an account could be ended while the mount is disabled", "error", err)
				}
			})
		}
		all.Wait()
	}
}

// endKeptOf is endKept of one account: of its own tokens, or of all others.
func (b *backend) endKeptOf(ctx context.Context, log hclog.Logger, account string, own bool) error {
	owns := b.ledger.Own(account)
	other := func(id string) bool { return slices.Contains(owns, id) != own }
	for _, id := range slices.DeleteFunc(b.ledger.Kept(account), other) {
		if err := b.ledger.Owe(ctx, id, ""); err != nil && !errors.Is(err, ledger.ErrMissing) {
			return err
		}
	}
	ids := slices.DeleteFunc(b.ledger.Unsettled(account, false), other)
	if len(ids) == 0 {
		return nil
	}
	client, err := b.client(ctx, account)
	if err != nil {
		return err
	}
	return b.settle(ctx, log, client, ids...)
}

// tellLeft logs each token that may be alive in Jira, for after a disable nobody else
// knows of it.
func (b *backend) tellLeft(ctx context.Context) {
	records, err := b.readAll(ctx, b.ledger.IDs(""))
	if err != nil {
		b.log().Error("the mount is tainted and is being closed, and not all of its tokens can be told", "error", err)
	}
	slices.SortFunc(records, func(x, y *ledger.Record) int { return cmp.Compare(idOf(x), idOf(y)) })
	for _, r := range records {
		switch {
		case r == nil || r.State == ledger.Ended:
		case r.State == ledger.Intended && r.SoughtAt != 0:
			b.log().Warn("the mount is tainted and is being closed, and Jira may yet make this token: if the mount is gone, look for it in Jira for a day", "id", r.ID, "account", r.Account, "username", r.Username, "token_name", r.Name)
		default:
			b.log().Error("the mount is tainted and is being closed, and this token may be alive in Jira: if the mount is gone, delete it there", "id", r.ID, "account", r.Account, "username", r.Username, "token_id", r.TokenID, "token_name", r.Name, "expires", rfc3339(r.Expires.Time()))
		}
	}
	for _, one := range b.ledger.Damaged() {
		b.log().Error("the mount is tainted and is being closed, and a record of its ledger is damaged: if the mount is gone, look for its token in Jira", "id", one.ID, "account", one.Account, "token_id", one.TokenID, "token_name", one.Name)
	}
}

// idOf is r's id, "" where there is no record.
func idOf(r *ledger.Record) string {
	if r == nil {
		return ""
	}
	return r.ID
}
