package backend

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// listable is what the types have in common whose tokens Jira lists, by the user or the service
// account that has them.
type listable struct{}

// A user who was renamed is the same by his key.
func (listable) moves(a, before *account) bool { return a.UserKey != before.UserKey }

func (listable) settleLost(ctx context.Context, log hclog.Logger, b *backend, client *jira.Client, r *ledger.Record, tokens []jira.Token, clock clock) error {
	var made []string
	if r.TokenID != "" && b.certain(client, r) { // the list may lag behind
		made = append(made, r.TokenID)
	}
	for _, t := range tokens {
		if isOf(r, t) && !slices.Contains(made, t.ID) {
			made = append(made, t.ID)
		}
	}
	switch {
	case len(made) > 0:
	case r.State == ledger.Owed: // it was there, and its id may be another's by now
		tokens, err := withItsID(ctx, client, r, tokens)
		if err == nil {
			err = b.endAmong(ctx, log, client, r, tokens)
		}
		if err != nil {
			return b.notEnded(log, r, r.TokenID, err)
		}
	case clock.surely.Before(r.IntendedAt.Time().Add(ledger.LateLanding)):
		return unlessSettled(b.ledger.Sought(ctx, r.ID))
	}
	ended := 0
	for _, id := range made {
		// The write goes first here as well. It keeps the last id only: as long
		// as the record stands, all of its name are looked for.
		if err := b.ledger.Found(ctx, r.ID, id); err != nil {
			return unlessSettled(err)
		}
		err := client.DeleteToken(ctx, id)
		if _, is := anothers(ctx, client, r, id, err); is {
			warnGone(log, r, id)
		} else if err != nil {
			return b.notEnded(log, r, id, err)
		} else {
			ended++
		}
	}
	if err := b.ledger.Forget(ctx, r.ID); err != nil {
		return err
	}
	b.paid(r.ID)
	log.Info("a lost mint is settled", "id", r.ID, "token_name", r.Name, "tokens_ended", ended)
	return nil
}

func (listable) lookUp(ctx context.Context, client *jira.Client, r *ledger.Record) (there bool, lastUsed time.Time, err error) {
	tokens, err := client.Tokens(ctx)
	for _, t := range tokens {
		if isOf(r, t) {
			there, lastUsed = true, t.LastUsed
		}
	}
	return there, lastUsed, err
}
