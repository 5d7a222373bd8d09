package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// settleAccounts asks Jira about what is unsettled of the accounts: mints
// whose answers were lost, and tokens that could not be ended. It tells whether
// there was anything to ask. Intents that were sought before are looked for
// again only if sought is set. What Jira does not settle now stays, for the
// worker.
func (b *backend) settleAccounts(ctx context.Context, sought bool, accounts ...string) (tried bool) {
	for _, account := range accounts {
		ids := b.ledger.Unsettled(account, sought)
		if len(ids) == 0 {
			continue
		}
		tried = true
		if err := b.settleAccount(ctx, account, ids...); err != nil {
			b.log().Warn("not all is settled", "account", account, "records", len(ids), "error", err)
		}
	}
	return tried
}

// settleAccount asks Jira about records of the account.
func (b *backend) settleAccount(ctx context.Context, account string, ids ...string) error {
	client, err := b.client(ctx, account)
	if err != nil {
		return err
	}
	return b.settle(ctx, b.log().With("account", account), client, ids...)
}

// settle does for records of one account, whose user client logs in as, what
// they are due: lost mints are looked for and ended if found, tokens past their
// lease's end and those owed are ended. No error means that all of that is done
// which could be done now.
//
// An error that only one record is to blame for makes it due later. One of the
// site, the account or storage ends the attempt.
func (b *backend) settle(ctx context.Context, log hclog.Logger, client *jira.Client, ids ...string) error {
	now := b.now()
	what, failed, err := b.whatIsDue(ctx, log, client, now, ids)
	if err != nil {
		return err
	}
	pay := func(r *ledger.Record) error { return b.pay(ctx, log, client, r) }
	// What is certain goes first.
	err = b.each(log, what.owed, pay)
	if failed = errors.Join(failed, err); halts(err) {
		return failed
	}
	if len(what.lost)+len(what.over) > 0 {
		var owed []*ledger.Record
		var halted bool
		client, owed, halted, err = b.settleListed(ctx, log, client, now, what)
		if failed = errors.Join(failed, err); halted {
			return failed
		}
		failed = errors.Join(failed, b.each(log, owed, pay))
	}
	if failed != nil || len(what.last) == 0 {
		return failed
	}
	// With these the way in is gone. In a disable nothing can be waited for.
	if b.needed(what.last) && !b.disabled.Load() {
		for _, r := range what.last {
			b.ledger.Later(r.ID, lastRest)
		}
		return nil
	}
	return b.each(log, what.last, pay)
}

// due are records of one account by what is to be done for them.
type due struct {
	lost []*ledger.Record // of mints that never came to a lease
	over []*ledger.Record // past their lease's end
	owed []*ledger.Record
	last []*ledger.Record // owed, and what the account logs in with
}

// whatIsDue reads the records called ids, and does for them what needs no list and no
// delete. failed is of single records.
func (b *backend) whatIsDue(ctx context.Context, log hclog.Logger, client *jira.Client, now time.Time, ids []string) (what due, failed, err error) {
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		switch {
		case errors.Is(err, ledger.ErrMissing): // somebody else has settled it
			b.paid(id)
		case errors.Is(err, ledger.ErrUnreadable): // it is due no more
			b.tellDamaged()
		case err != nil:
			return due{}, nil, err
		case typeOf(r).is().expiresOnly:
			failed = errors.Join(failed, b.rested(r, typeOf(r).settleLost(ctx, log, b, client, r, nil, clock{})))
		case r.State == ledger.Ended && r.Over(now): // its lease has not come to tell
			failed = errors.Join(failed, b.rested(r, b.ledger.Forget(ctx, r.ID)))
		case r.State == ledger.Ended:
			b.paid(id)
			failed = errors.Join(failed, unlessSettled(b.ledger.Refresh(ctx, id)))
		case r.NeverIssued():
			what.lost = append(what.lost, r)
		case r.State == ledger.Owed && b.endsItself(ctx, r) != nil:
			what.last = append(what.last, r)
		case r.State == ledger.Owed:
			what.owed = append(what.owed, r)
		case r.Over(now):
			what.over = append(what.over, r)
		default: // renewed, which only storage knew
			failed = errors.Join(failed, unlessSettled(b.ledger.Refresh(ctx, id)))
		}
	}
	return what, failed, nil
}

// settleListed does what is due for which a list is needed, or the date that it bears: lost
// mints are looked for, and what is over becomes owed. It returns the client that the list
// was to be had with, and whether to go no further.
func (b *backend) settleListed(ctx context.Context, log hclog.Logger, client *jira.Client, now time.Time, what due) (as *jira.Client, owed []*ledger.Record, halted bool, err error) {
	all := slices.Concat(what.lost, what.over)
	tokens, date, err := client.TokensDated(ctx)
	if other := b.other(ctx, all[0].Account, client, err); other != nil {
		client = other
		tokens, date, err = client.TokensDated(ctx)
	}
	if err != nil {
		if !halts(err) { // else the account rests
			for _, r := range all {
				b.ledger.Later(r.ID, longestRest)
			}
		}
		return client, nil, true, err
	}
	clock := b.compare(date, now)
	switch {
	case date.IsZero():
		log.Warn("Jira's answer carries no date: tokens past their lease's end are ended by this machine's clock alone, a minute later", "own_clock", now)
	case clock.doubt != "":
		log.Warn(clock.doubt+": tokens past their lease's end are left to Vault until they are past it by both clocks", "jira_clock", date, "own_clock", now)
	}
	err = b.each(log, what.lost, func(r *ledger.Record) error { return typeOf(r).settleLost(ctx, log, b, client, r, tokens, clock) })
	if halts(err) {
		return client, nil, true, err
	}
	owed, halted, failed := b.oweOver(ctx, log, what.over, now, clock)
	return client, owed, halted, errors.Join(err, failed)
}

// oweOver writes that the tokens of over have to go, and returns those that it could be
// written of, and whether to go no further.
func (b *backend) oweOver(ctx context.Context, log hclog.Logger, over []*ledger.Record, now time.Time, clock clock) (owed []*ledger.Record, halted bool, failed error) {
	var unwritten streak
	for _, r := range over {
		// First the write, which only the active node can make, then the
		// delete: a node that was deposed must not end what its successor
		// has renewed.
		err := unwritten.after(b.rested(r, b.ledger.Overdue(ctx, r.ID, clock.surely)))
		state := (*ledger.StateError)(nil)
		switch {
		case err == nil:
			log.Warn("a lease is over, and Vault has not revoked it: its token is ended now", "id", r.ID, "token_id", r.TokenID, "token_name", r.Name, "lease_end", r.LeaseEnd.Time())
			b.debt(r, "its lease is over, and Vault has not revoked it")
			r.OwedAt = ledger.At(now)
			owed = append(owed, r)
		case errors.As(err, &state):
			b.ledger.Later(r.ID, clockRest)
		case halts(err) && !errors.Is(err, ledger.ErrMissing):
			return nil, true, errors.Join(failed, err)
		case !errors.Is(err, ledger.ErrMissing):
			failed = errors.Join(failed, err)
		}
	}
	return owed, false, failed
}

// needed tells whether anything else is to be ended with the login that ends with
// last: of the same account, or of one that was retired from the same before.
func (b *backend) needed(last []*ledger.Record) bool {
	account := last[0].Account
	if len(b.ledger.IDs(account)) > len(last) {
		return true
	}
	return isRetired(account) && slices.ContainsFunc(b.ledger.Accounts(), func(other string) bool {
		return other != account && isRetired(other) && unretired(other) == unretired(account) && len(b.records(other)) > 0
	})
}

const (
	// clockRest is how long one is that is over by one clock and not by another.
	clockRest = time.Minute
	// undatedMargin is by how much this machine's clock may be ahead of Jira's where Jira
	// does not tell its own. A token whose lease Vault has lost falls due [ledger.Grace]
	// after its end, and is ended this much later: within the two minutes that are promised.
	undatedMargin = time.Minute
	// lastRest is how long what the engine logs in with waits for all else.
	lastRest = time.Minute
	// longestRest is how long whatever failed is left alone at most, jitter
	// not counted. It is half of what a token may outlive its lease once Jira
	// is back.
	longestRest = 45 * time.Second
)

// backoff is how long to leave something alone that has been failing for as
// long as that, with jitter.
func backoff(failing time.Duration) time.Duration {
	wait := min(max(failing/2, time.Second), longestRest)
	return wait + rand.N(wait/3) //nolint:gosec // jitter is no secret
}

// clock is what is known of the time.
type clock struct {
	surely time.Time // it is at least as late as this
	doubt  string    // why nobody knows better; empty if all agree, or Jira does not tell
}

// compare holds now, by our clock, against the date of an answer that Jira
// gave since. A proxy may have taken the date away; then ours counts, with a margin.
func (b *backend) compare(date, now time.Time) clock {
	switch {
	case date.IsZero():
		return clock{now.Add(-undatedMargin), ""}
	case date.Before(now.Add(-ledger.Grace)):
		return clock{date, "this machine's clock is ahead of Jira's"}
	case date.After(b.now().Add(ledger.Grace)):
		return clock{now, "this machine's clock is behind Jira's"}
	}
	return clock{now, ""}
}

// unlessSettled is err, unless it says that somebody else has settled the
// record in the meantime.
func unlessSettled(err error) error {
	state := (*ledger.StateError)(nil)
	if errors.Is(err, ledger.ErrMissing) || errors.As(err, &state) {
		return nil
	}
	return err
}

// pay ends a credential that is owed.
func (b *backend) pay(ctx context.Context, log hclog.Logger, client *jira.Client, r *ledger.Record) error {
	b.debt(r, "the ledger has it as owed")
	if err := typeOf(r).end(ctx, log, b, client, r); err != nil {
		return b.notEnded(log, r, r.TokenID, err)
	}
	if err := b.ledger.Gone(ctx, r); err != nil {
		return err
	}
	b.paid(r.ID)
	log.Info("a token that was owed is ended", "id", r.ID, "token_id", r.TokenID, "token_name", r.Name, "owed_for", b.now().Sub(r.OwedAt.Time()).Round(time.Second).String())
	return nil
}

// notEnded is err, why the token of r could not be ended. Where that is the
// token's own affair it is tried again after a while, and others meanwhile.
func (b *backend) notEnded(log hclog.Logger, r *ledger.Record, tokenID string, err error) error {
	if !halts(err) {
		b.ledger.Later(r.ID, backoff(b.now().Sub(sinceOf(r))))
		log.Warn("a token could not be ended, will try again", "id", r.ID, "token_id", tokenID, "token_name", r.Name, "error", err)
	}
	return fmt.Errorf("ending token %q: %w", r.Name, err)
}

// sinceOf is since when the credential of r has to go, as far as is known.
func sinceOf(r *ledger.Record) time.Time {
	if r.OwedAt == 0 {
		return r.IntendedAt.Time()
	}
	return r.OwedAt.Time()
}
