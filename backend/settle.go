package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// lateLanding is how long after an intent a request that was lost on its way
// may yet reach Jira and make the token.
const lateLanding = 24 * time.Hour

// settle finds out whether Jira made the tokens of intents whose mints have
// ended without a clear answer, and ends those it made. All are the user's
// that client logs in as. No error means that each was ended, or is not there
// now; then its intent stays until no late request can make it any more.
func (b *backend) settle(ctx context.Context, client *jira.Client, intents ...*ledger.Record) error {
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return err
	}
	for _, r := range intents {
		var made []string
		for _, t := range tokens {
			if r.Named(t.Name) {
				made = append(made, t.ID)
			}
		}
		if err := b.settleOne(ctx, client, r, made); err != nil {
			return err
		}
	}
	return nil
}

// settleOne settles one intent, of which Jira lists the tokens made.
func (b *backend) settleOne(ctx context.Context, client *jira.Client, r *ledger.Record, made []string) error {
	if len(made) == 0 && b.now().Sub(r.IntendedAt.Time()) < lateLanding {
		return b.ledger.Sought(ctx, r.ID)
	}
	for _, id := range made {
		// First the write, which only the active node can make, then the
		// delete: a node that was deposed must not end what is not its own.
		if err := b.ledger.Owe(ctx, r.ID, id); err != nil {
			return err
		}
		if err := client.DeleteToken(ctx, id); err != nil {
			return err
		}
	}
	return b.ledger.Forget(ctx, r.ID)
}

// settleIntents settles what lost answers have left of the accounts, and
// tells whether there was anything to settle. A mint that still runs is left
// alone. Whom Jira does not answer keeps his intents.
func (b *backend) settleIntents(ctx context.Context, req *logical.Request, accounts ...string) (tried bool) {
	for _, account := range accounts {
		var intents []*ledger.Record
		for _, id := range b.ledger.Lost(account) {
			if r, err := b.ledger.Read(ctx, id); err == nil && r.State == ledger.Intended {
				intents = append(intents, r)
			}
		}
		if len(intents) == 0 {
			continue
		}
		client, err := b.client(ctx, req.Storage, account)
		if err == nil {
			err = b.settle(ctx, client, intents...)
		}
		if err != nil {
			b.log(req).Warn("mints whose answers were lost could not be looked for", "account", account, "intents", len(intents), "error", err)
			continue
		}
		tried = true
	}
	return tried
}
