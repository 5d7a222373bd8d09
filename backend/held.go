package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// What stands between a token in Jira and a change that would leave the
// engine unable to end it.

// records returns the ids of an account's records in order, of all accounts'
// that there are where account is empty: those of retired ones stand in nobody's
// way, and neither does what the engine itself logs in with.
func (b *backend) records(account string) []string {
	accounts := []string{account}
	if account == "" {
		accounts = slices.DeleteFunc(b.ledger.Accounts(), isRetired)
	}
	var ids []string
	for _, account := range accounts {
		own := b.ledger.Own(account)
		ids = append(ids, slices.DeleteFunc(b.ledger.IDs(account), func(id string) bool {
			return slices.Contains(own, id) || b.ledger.State(id) == ledger.Ended
		})...)
	}
	slices.Sort(ids)
	return ids
}

// withOwn is records, and the ids of what the engine itself logs in with.
func (b *backend) withOwn(account string) []string {
	accounts := []string{account}
	if account == "" {
		accounts = slices.DeleteFunc(b.ledger.Accounts(), isRetired)
	}
	ids := b.records(account)
	for _, account := range accounts {
		ids = append(ids, b.ledger.Own(account)...)
	}
	slices.Sort(ids)
	return ids
}

// ledgerIsWhole fails until the ledger is read: before, nobody knows what an
// account holds.
func (b *backend) ledgerIsWhole() error {
	if b.ledger.Whole() {
		return nil
	}
	if why := b.unread.Load(); why != nil {
		return fault.Unavailable(fmt.Sprintf("the ledger could not be read, which is tried again: %v", *why))
	}
	return fault.Unavailable("the ledger is still being read: try again in a moment")
}

// holdsNothing refuses when account, or any where it is empty, has tokens in
// Jira that the engine has to end, and says how to end them.
func (b *backend) holdsNothing(ctx context.Context, account string) error {
	if err := b.ledgerIsWhole(); err != nil {
		return err
	}
	ids := b.records(account)
	if len(ids) > 0 {
		return b.whatIsHeld(ctx, account, ids)
	}
	if may := b.damagedOf(account); len(may) > 0 {
		return fault.User(damagedText(may))
	}
	return nil
}

// damagedOf are the damaged records that account may need, or any where it is empty:
// those of which it is known, and those of which nothing is.
func (b *backend) damagedOf(account string) []ledger.Damaged {
	return slices.DeleteFunc(b.ledger.Damaged(), func(one ledger.Damaged) bool {
		return account != "" && one.Account != "" && one.Account != account
	})
}

// damagedText says what to do about damaged records.
func damagedText(damaged []ledger.Damaged) string {
	var ids []string
	for _, one := range damaged[:min(len(damaged), 10)] {
		ids = append(ids, one.ID)
	}
	return fmt.Sprintf("%d records of the ledger make no sense, and a token of each may be alive in Jira: %s; look for a name with this id in Jira, delete the token there, then delete tokens/<id> with force=true", len(damaged), strings.Join(ids, ", "))
}

// forced tells whether a delete says force.
func forced(d *framework.FieldData) bool {
	force := false
	change(fields{FieldData: d}, "force", &force)
	return force
}

// clear does what can be done so that the accounts hold nothing: what is
// unsettled is settled, and by force what leases hold is given up and ended.
// Such a lease renews no more, and ends without a call.
func (b *backend) clear(ctx context.Context, force bool, accounts ...string) error {
	if force {
		if err := b.giveUp(ctx, accounts...); err != nil {
			return err
		}
	}
	b.settleAccounts(ctx, true, accounts...)
	return nil
}

// release refuses while account, or any where it is empty, holds tokens. By
// force it retires the accounts instead, and tells how many tokens are left to be
// ended. What the engine itself has made to log in with, as the account called name,
// is retired in any case: own are the retired accounts that have nothing else. The
// caller holds b.resources.
func (b *backend) release(ctx context.Context, force bool, account, name string) (left int, own []string, err error) {
	accounts := []string{account}
	if account == "" {
		accounts = slices.DeleteFunc(b.ledger.Accounts(), isRetired)
	}
	if !force {
		if err := b.holdsNothing(ctx, account); err != nil {
			return 0, nil, err
		}
		if err := b.nobodyElseMinted(accounts, name); err != nil {
			return 0, nil, err
		}
		accounts = []string{name}
	}
	for _, account := range accounts {
		ids := b.records(account)
		to, err := b.retire(ctx, account, append(ids, b.ledger.Own(account)...))
		if err != nil {
			return 0, nil, err
		}
		if left += len(ids); to != "" && len(ids) == 0 {
			own = append(own, to)
		}
	}
	return left, own, nil
}

// nobodyElseMinted refuses to take the site away while accounts other than the one
// called name log in with tokens that the engine has minted: without it nobody could
// end them.
func (b *backend) nobodyElseMinted(accounts []string, name string) error {
	others := map[string]bool{}
	for _, account := range accounts {
		if account != name && len(b.ledger.Own(account)) > 0 {
			others[account] = true
		}
	}
	if len(others) > 0 {
		return fault.User(mintedFor(others))
	}
	return nil
}

// mintedFor says how to get rid of what the engine logs in with as accounts.
func mintedFor(accounts map[string]bool) string {
	var whose []string
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		whose = append(whose, (&keeper{account: account}).what())
	}
	return "tokens that the engine has minted to log in with are in use: delete " + strings.Join(whose, ", ") + ", or write passwords or other tokens of the same users"
}

// removeReleased removes what lies under key, and with it the login called name,
// once what stands in the way of that is released: what account has, or anybody
// where it is empty. The token that the engine itself has made to log in with is
// ended last, by itself.
func (b *backend) removeReleased(ctx context.Context, force bool, account, name, key string) (warnings []string, err error) {
	if !b.rotations.begin(name) {
		return nil, fault.Unavailable("it is being rotated this moment: try again")
	}
	defer b.rotations.end(name)
	// What an overlap has left goes with the rest, the one that was brought included.
	if err := (&keeper{b: b, name: name, account: name}).endPrevious(ctx); err != nil {
		return nil, err
	}
	left, own, err := 0, []string(nil), error(nil)
	err = func() error {
		b.resources.Lock()
		defer b.resources.Unlock()
		if account != "" {
			if err := b.namedByNoRole(ctx, account); err != nil {
				return err
			}
		}
		if left, own, err = b.release(ctx, force, account, name); err != nil {
			return err
		}
		for _, id := range b.ledger.IDs(account) { // of those that were ended before nobody has to ask any more
			if b.ledger.State(id) == ledger.Ended {
				if err := b.ledger.Forget(ctx, id); err != nil {
					return err
				}
			}
		}
		if key == configKey {
			if err := b.keepDestination(ctx); err != nil {
				return err
			}
		}
		return remove(ctx, &b.decoded, b.storage, key)
	}()
	if err != nil {
		return nil, err
	}
	if may := b.damagedOf(account); len(may) > 0 {
		warnings = append(warnings, damagedText(may))
	}
	if left > 0 {
		warnings = append(warnings, fmt.Sprintf("%d tokens are not proven gone from Jira yet: the engine goes on trying, and keeps what it takes to log in, sealed, until they are", left))
	}
	b.settleAccounts(ctx, false, own...)
	left = 0
	for _, retired := range own {
		if err := b.dropRetired(ctx, retired); err != nil { // within a minute it is tried again
			b.log().Warn("what a deleted account logged in with could not be removed yet", "error", err)
		}
		left += len(b.ledger.IDs(retired))
	}
	if left > 0 {
		warnings = append(warnings, fmt.Sprintf("%d tokens that the engine logged in with are not proven gone from Jira yet: it goes on trying", left))
	}
	return warnings, nil
}

// giveUp writes that what leases of the accounts hold has to go, and the tokens of static
// roles with it.
func (b *backend) giveUp(ctx context.Context, accounts ...string) error {
	if err := b.ledgerIsWhole(); err != nil {
		return err
	}
	for _, account := range accounts {
		err := b.eachIssued(ctx, b.ledger.IDs(account), func(r *ledger.Record) error {
			if r.Kept == ledger.KeptOwn { // what the engine logs in with goes last
				return nil
			}
			err := b.ledger.Owe(ctx, r.ID, "")
			if err == nil {
				b.debt(r, "it was given up by force")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// recall writes of those of the records which leases hold that their tokens have to go,
// for the leases are about to be revoked. The records outlast the tokens.
func (b *backend) recall(ctx context.Context, ids []string) error {
	if err := b.ledgerIsWhole(); err != nil {
		return err
	}
	return b.eachIssued(ctx, ids, func(r *ledger.Record) error {
		if r.Kept != "" {
			return nil
		}
		err := b.ledger.Recall(ctx, r.ID, 0)
		if err == nil {
			b.debt(r, "its mount is being disabled or moved")
		}
		return err
	})
}

// eachIssued calls do with each of the records whose token is issued and can be ended: an
// access token only its own end ends, so nobody could pay that debt. It stops at the
// first error, unless that tells that the record is settled or unreadable.
func (b *backend) eachIssued(ctx context.Context, ids []string, do func(*ledger.Record) error) error {
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		if err == nil && r.State == ledger.Issued && !typeOf(r).is().expiresOnly {
			err = do(r)
		}
		if err = unlessSettled(err); err != nil && !errors.Is(err, ledger.ErrUnreadable) {
			return err
		}
	}
	return nil
}
