package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// lateLanding is how long after an intent a request that was lost on its way
// may yet reach Jira and make the token.
const lateLanding = 24 * time.Hour

// settleAccounts asks Jira about what is unsettled of the accounts: mints
// whose answers were lost, and tokens that could not be ended. It tells whether
// there was anything to ask. Intents that were sought before are looked for
// again only if sought is set. What Jira does not settle now stays.
func (b *backend) settleAccounts(ctx context.Context, req *logical.Request, sought bool, accounts ...string) (tried bool) {
	for _, account := range accounts {
		var intents, owed []*ledger.Record
		for _, id := range b.ledger.Unsettled(account, sought) {
			r, err := b.ledger.Read(ctx, id)
			switch {
			case err != nil: // settled by somebody else, or storage is away
			case r.State == ledger.Intended:
				intents = append(intents, r)
			case r.State == ledger.Owed:
				owed = append(owed, r)
			}
		}
		if len(intents)+len(owed) == 0 {
			continue
		}
		tried = true
		client, err := b.client(ctx, req.Storage, account)
		if err == nil {
			err = errors.Join(b.settle(ctx, client, intents...), b.pay(ctx, client, owed))
		}
		if err != nil {
			b.log(req).Warn("not all is settled", "account", account, "intents", len(intents), "owed", len(owed), "error", err)
		}
	}
	return tried
}

// settle finds out whether Jira made the tokens of intents whose mints have
// ended without a clear answer, and ends those it made. All are the user's
// that client logs in as. No error means that each was ended, or is not there
// now; then its intent stays until no late request can make it any more.
func (b *backend) settle(ctx context.Context, client *jira.Client, intents ...*ledger.Record) error {
	if len(intents) == 0 {
		return nil
	}
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, r := range intents {
		var made []string
		for _, t := range tokens {
			if r.Named(t.Name) {
				made = append(made, t.ID)
			}
		}
		failed = errors.Join(failed, b.settleOne(ctx, client, r, made))
	}
	return failed
}

// settleOne settles one intent, of which Jira lists the tokens made.
func (b *backend) settleOne(ctx context.Context, client *jira.Client, r *ledger.Record, made []string) error {
	if len(made) == 0 && b.now().Sub(r.IntendedAt.Time()) < lateLanding {
		return unlessSettled(b.ledger.Sought(ctx, r.ID))
	}
	for _, id := range made {
		// First the write, which only the active node can make, then the
		// delete: a node that was deposed must not end what is not its own.
		if err := b.ledger.Owe(ctx, r.ID, id); err != nil {
			return unlessSettled(err)
		}
		if err := client.DeleteToken(ctx, id); err != nil {
			return err
		}
	}
	return b.ledger.Forget(ctx, r.ID)
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

// pay ends the tokens that are owed.
func (b *backend) pay(ctx context.Context, client *jira.Client, owed []*ledger.Record) error {
	var failed error
	for _, r := range owed {
		err := client.DeleteToken(ctx, r.TokenID)
		if err == nil {
			err = b.ledger.Forget(ctx, r.ID)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
