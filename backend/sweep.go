package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// Whoever holds a token may make himself another with it, under any name, that
// lives for a year: a sibling, which no revoke of the first takes along. An
// exclusive account is the engine's alone, so there whatever the ledger does not
// know is ended with each token that is.

// mostSweeps is how often a list is asked for until it is clean. A sibling that
// lives can make the next while the last one is being ended.
const mostSweeps = 5

// sweep ends the siblings of an exclusive account, of which client is the login,
// after one of its tokens was ended. No error means that a list of Jira's had
// none any more but what is proven gone. Of any other account it does nothing.
func (b *backend) sweep(ctx context.Context, log hclog.Logger, client *jira.Client, account string) error {
	if exclusive, err := b.isExclusive(ctx, account); err != nil || !exclusive {
		return err
	}
	gone := map[string]bool{} // proven, though a list that lags may go on naming them
	for range mostSweeps {
		tokens, err := client.Tokens(ctx)
		if err != nil {
			return fmt.Errorf("looking for siblings: %w", err)
		}
		tokens = slices.DeleteFunc(tokens, func(t jira.Token) bool { return gone[t.ID] })
		found, err := b.strangers(ctx, account, tokens)
		if err != nil || len(found) == 0 {
			return err
		}
		// What a node that was deposed does not know may be its successor's. So
		// first a write that only the active node can make, then another look.
		if err := store(ctx, b.storage, fenceKey, b.now().UnixMilli()); err != nil {
			return err
		}
		if found, err = b.strangers(ctx, account, tokens); err != nil {
			return err
		}
		for _, t := range found {
			if err := client.DeleteToken(ctx, t.ID); err != nil {
				return fmt.Errorf("ending sibling %q: %w", t.Name, err)
			}
			gone[t.ID] = true
			log.Warn("a token of an exclusive account that the engine did not make is ended", "account", account, "token_id", t.ID, "token_name", t.Name)
		}
	}
	return &jira.Error{Kind: jira.Nonsense, Words: fmt.Sprintf("new tokens of user %q appear as fast as they are ended", client.Username()), Advice: "somebody logs in as him: make his password the engine's alone"}
}

// strangers returns those of an exclusive account's tokens that the ledger does
// not know, by what storage has. One that is issued or owed it knows by
// Jira's id, one that was never issued by its name. The name leads to the
// record; where Jira has changed it, the account's records are gone through.
func (b *backend) strangers(ctx context.Context, account string, tokens []jira.Token) ([]jira.Token, error) {
	var found []jira.Token
	for _, t := range tokens {
		_, id, ok := ledger.ParseName(t.Name)
		if !ok {
			found = append(found, t)
			continue
		}
		r, err := b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrUnreadable) { // it is known, whatever it says
			continue
		}
		if err != nil && !errors.Is(err, ledger.ErrMissing) {
			return nil, err
		}
		if err != nil || r.State == ledger.Ended || r.TokenID != t.ID && !(r.NeverIssued() && r.Named(t.Name)) {
			found = append(found, t)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	for _, id := range b.ledger.IDs(account) {
		r, err := b.ledger.Read(ctx, id)
		if err != nil && !errors.Is(err, ledger.ErrMissing) && !errors.Is(err, ledger.ErrUnreadable) {
			return nil, err
		}
		if err == nil {
			found = slices.DeleteFunc(found, func(t jira.Token) bool { return t.ID == r.TokenID && r.State != ledger.Ended })
		}
	}
	return found, nil
}

// isExclusive tells whether all tokens of an account's user are the engine's. One
// that was deleted by force remains so until its user is an account again.
func (b *backend) isExclusive(ctx context.Context, name string) (bool, error) {
	if !isRetired(name) {
		a, err := load[account](ctx, &b.decoded, b.storage, accountsPrefix+name)
		return a != nil && a.Exclusive, err
	}
	r, err := load[retired](ctx, &b.decoded, b.storage, retiredPrefix+name)
	if err != nil || r == nil || !r.Account.Exclusive {
		return false, err
	}
	again, err := b.accountOf(ctx, &r.Account.credential, "")
	return again == "", err
}
