package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// settleAccounts asks Jira about what is unsettled of the accounts: mints
// whose answers were lost, and tokens that could not be ended. It tells whether
// there was anything to ask. Intents that were sought before are looked for
// again only if sought is set. What Jira does not settle now stays, for the
// worker.
func (b *backend) settleAccounts(ctx context.Context, req *logical.Request, sought bool, accounts ...string) (tried bool) {
	for _, account := range accounts {
		ids := b.ledger.Unsettled(account, sought)
		if len(ids) == 0 {
			continue
		}
		tried = true
		client, err := b.client(ctx, req.Storage, account)
		if err == nil {
			err = b.settle(ctx, b.log(req).With("account", account), client, ids...)
		}
		if err != nil {
			b.log(req).Warn("not all is settled", "account", account, "records", len(ids), "error", err)
		}
	}
	return tried
}

// settle does for records of one account, whose user client logs in as, what
// they are due: lost mints are looked for and ended if found, tokens past their
// lease's end and those owed are ended. No error means that all of that is done
// which could be done now.
//
// An error that only one record is to blame for makes it due later. One of the
// site, the account or storage ends the attempt.
func (b *backend) settle(ctx context.Context, log hclog.Logger, client *jira.Client, ids ...string) error {
	var lost, over, owed, last []*ledger.Record
	var failed error
	now := b.now()
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		switch {
		case errors.Is(err, ledger.ErrMissing): // somebody else has settled it
			b.paid(id)
		case errors.Is(err, ledger.ErrUnreadable):
			b.ledger.Later(id, unreadableRest)
			log.Error("a record of the ledger cannot be read", "id", id, "error", err)
		case err != nil:
			return err
		case r.Type == credentialTypeOAuth2:
			failed = errors.Join(failed, b.outlived(ctx, log, r))
		case r.State == ledger.Ended && r.Over(now): // its lease has not come to tell
			failed = errors.Join(failed, b.ledger.Forget(ctx, r.ID))
		case r.State == ledger.Ended:
			b.paid(id)
			failed = errors.Join(failed, unlessSettled(b.ledger.Refresh(ctx, id)))
		case r.NeverIssued():
			lost = append(lost, r)
		case r.State == ledger.Owed && b.endsItself(ctx, b.storage, r) != nil:
			last = append(last, r)
		case r.State == ledger.Owed:
			owed = append(owed, r)
		case r.Over(now):
			over = append(over, r)
		default: // renewed, which only storage knew
			failed = errors.Join(failed, unlessSettled(b.ledger.Refresh(ctx, id)))
		}
	}
	// What is certain goes first.
	if err := b.each(log, owed, func(r *ledger.Record) error { return b.pay(ctx, log, client, r) }); halts(err) {
		return errors.Join(failed, err)
	} else if err != nil {
		failed = errors.Join(failed, err)
	}
	owed = nil
	if len(lost)+len(over) > 0 {
		tokens, date, err := client.TokensDated(ctx)
		if err != nil {
			return errors.Join(failed, err)
		}
		clock := b.compare(date, now)
		if clock.doubt != "" {
			log.Warn(clock.doubt+": tokens past their lease's end are left to Vault until they are past it by both clocks", "jira_clock", date, "own_clock", now)
		}
		err = b.each(log, lost, func(r *ledger.Record) error { return b.settleLost(ctx, log, client, r, tokens, clock) })
		if halts(err) {
			return errors.Join(failed, err)
		}
		failed = errors.Join(failed, err)
		for _, r := range over {
			// First the write, which only the active node can make, then the
			// delete: a node that was deposed must not end what its successor
			// has renewed.
			err := b.ledger.Overdue(ctx, r.ID, clock.surely)
			state := (*ledger.StateError)(nil)
			switch {
			case err == nil:
				log.Warn("a lease is over, and Vault has not revoked it: its token is ended now", "id", r.ID, "token_id", r.TokenID, "token_name", r.Name, "lease_end", r.LeaseEnd.Time())
				b.debt(r, "its lease is over, and Vault has not revoked it")
				r.OwedAt = ledger.At(now)
				owed = append(owed, r)
			case errors.As(err, &state):
				b.ledger.Later(r.ID, clockRest)
			case !errors.Is(err, ledger.ErrMissing):
				return errors.Join(failed, err)
			}
		}
	}
	failed = errors.Join(failed, b.each(log, owed, func(r *ledger.Record) error { return b.pay(ctx, log, client, r) }))
	if failed != nil || len(last) == 0 {
		return failed
	}
	// With these the way in is gone. In an unmount nothing can be waited for.
	if b.needed(last) && !b.System().Tainted() {
		for _, r := range last {
			b.ledger.Later(r.ID, lastRest)
		}
		return nil
	}
	return b.each(log, last, func(r *ledger.Record) error { return b.pay(ctx, log, client, r) })
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
	// unreadableRest is how long a record that does not parse is left alone.
	unreadableRest = time.Hour
	// clockRest is how long one is that is over by one clock and not by another.
	clockRest = time.Minute
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
	doubt  string    // why nobody knows better; empty if all agree
}

// compare holds now, by our clock, against the date of an answer that Jira
// gave since.
func (b *backend) compare(date, now time.Time) clock {
	switch {
	case date.IsZero():
		return clock{time.Time{}, "Jira's answer carries no date"}
	case date.Before(now.Add(-ledger.Grace)):
		return clock{date, "this machine's clock is ahead of Jira's"}
	case date.After(b.now().Add(ledger.Grace)):
		return clock{now, "this machine's clock is behind Jira's"}
	}
	return clock{now, ""}
}

// settleLost finds out, from the list of the user's tokens, whether Jira made
// the token of a mint that never came to a lease, and ends it if so. If not, its
// intent stays until no late request can make it any more.
func (b *backend) settleLost(ctx context.Context, log hclog.Logger, client *jira.Client, r *ledger.Record, tokens []jira.Token, clock clock) error {
	if r.Type == credentialTypeUser {
		return b.settleLostUser(ctx, log, client, r, clock)
	}
	var made []string
	if r.TokenID != "" { // the list may lag behind
		made = append(made, r.TokenID)
	}
	for _, t := range tokens {
		if r.Named(t.Name) && t.ID != r.TokenID {
			made = append(made, t.ID)
		}
	}
	if len(made) == 0 && clock.surely.Before(r.IntendedAt.Time().Add(ledger.LateLanding)) {
		return unlessSettled(b.ledger.Sought(ctx, r.ID))
	}
	for _, id := range made {
		// The write goes first here as well. It keeps the last id only: as long
		// as the record stands, all of its name are looked for.
		if err := b.ledger.Found(ctx, r.ID, id); err != nil {
			return unlessSettled(err)
		}
		if err := client.DeleteToken(ctx, id); err != nil {
			return b.notEnded(log, r, id, err)
		}
	}
	if err := b.ledger.Forget(ctx, r.ID); err != nil {
		return err
	}
	b.paid(r.ID)
	log.Info("a lost mint is settled", "id", r.ID, "token_name", r.Name, "tokens_ended", len(made))
	return nil
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

// end ends the credential of r, of whatever type, and what was made with it. No
// error means that it is proven gone, or is one that only its own end can end.
// client is the login of r's account.
func (b *backend) end(ctx context.Context, log hclog.Logger, s logical.Storage, client *jira.Client, r *ledger.Record) error {
	switch r.Type {
	case credentialTypeUser:
		return b.endUser(ctx, log, client, r)
	case credentialTypeOAuth2: // nobody but its holder has it
		return nil
	}
	if k := client.APITokens(); k != nil {
		return k.Delete(ctx, r.TokenID, r.Name)
	}
	if err := client.DeleteToken(ctx, r.TokenID); err != nil {
		// With the token that its account logs in with went the proof that it did. It
		// is gone if Jira knows nobody by it, which is asked anew.
		if login := b.endsItself(ctx, s, r); login != nil {
			if alive, e := client.As(*login).Accepted(ctx); e == nil && !alive {
				return nil
			}
		}
		return err
	}
	if r.Kept == ledger.KeptOwn && isRetired(r.Account) {
		return nil // nobody is left to look with
	}
	return b.sweep(ctx, log, s, client, r.Account)
}

// endsItself is the login of r's account, if r is the token that it logs in with.
func (b *backend) endsItself(ctx context.Context, s logical.Storage, r *ledger.Record) *jira.Login {
	if r.Kept != ledger.KeptOwn {
		return nil
	}
	var have *credential
	if isRetired(r.Account) {
		if gone, err := load[retired](ctx, &b.decoded, s, retiredPrefix+r.Account); err == nil && gone != nil {
			have = &gone.Account.credential
		}
	} else if c, err := (&keeper{b: b, name: r.Account, account: r.Account}).load(ctx, s); err == nil {
		have = c
	}
	if have == nil || have.RecordID != r.ID {
		return nil
	}
	l := have.login()
	return &l
}

// pay ends a credential that is owed.
func (b *backend) pay(ctx context.Context, log hclog.Logger, client *jira.Client, r *ledger.Record) error {
	b.debt(r, "the ledger has it as owed")
	if err := b.end(ctx, log, b.storage, client, r); err != nil {
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
		since := r.OwedAt
		if since == 0 {
			since = r.IntendedAt
		}
		b.ledger.Later(r.ID, backoff(b.now().Sub(since.Time())))
		log.Warn("a token could not be ended, will try again", "id", r.ID, "token_id", tokenID, "token_name", r.Name, "error", err)
	}
	return fmt.Errorf("ending token %q: %w", r.Name, err)
}

// halts tells whether err concerns more than one record: the site does not
// work, the account cannot log in, storage does not write.
func halts(err error) bool {
	one := (*jira.Error)(nil)
	return err != nil && !(errors.As(err, &one) && (one.Kind == jira.Denied || one.Kind == jira.Nonsense))
}

// mostAtOnce is how many records of an account are settled at a time. The
// site's gate lets through fewer where it has to.
const mostAtOnce = 16

// each calls do for every record, several at a time, until an error halts it.
func (b *backend) each(log hclog.Logger, records []*ledger.Record, do func(*ledger.Record) error) error {
	var (
		mu     sync.Mutex
		failed error
		halted bool
		places = make(chan struct{}, mostAtOnce)
		all    sync.WaitGroup
	)
	for _, r := range records {
		places <- struct{}{}
		mu.Lock()
		stop := halted
		mu.Unlock()
		if stop {
			break
		}
		all.Go(func() {
			defer func() { <-places }()
			if err := b.guard(log, func() error { return do(r) }); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if halts(err) && !halted { // it is what the caller has to know
					failed, halted = err, true
				}
				if failed == nil {
					failed = err
				}
			}
		})
	}
	all.Wait()
	return failed
}
