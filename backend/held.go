package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// What stands between a token in Jira and a change that would leave the
// engine unable to end it.

// records returns the ids of an account's records in order, of all accounts'
// where account is empty.
func (b *backend) records(account string) []string {
	ids := b.ledger.IDs(account)
	slices.Sort(ids)
	return ids
}

// holdsNothing refuses when account, or any where it is empty, has tokens in
// Jira that the engine has to end, and says how to end them.
func (b *backend) holdsNothing(ctx context.Context, req *logical.Request, account string) error {
	if !b.ledger.Whole() {
		return retryLater("the ledger is still being read: try again in a moment")
	}
	ids := b.ledger.IDs(account)
	if len(ids) == 0 {
		return nil
	}
	// A lease's path starts with its role's. A handful of records is enough
	// to name the roles of one account.
	commands, intents := map[string]bool{}, 0
	for _, id := range ids[:min(len(ids), 100)] {
		r, err := b.ledger.Read(ctx, id)
		switch {
		case errors.Is(err, ledger.ErrMissing):
			continue
		case err != nil:
			return err
		case r.State == ledger.Intended:
			intents++
			continue
		}
		path := "creds/"
		if account != "" {
			path += r.Role + "/"
		}
		commands["vault lease revoke -sync -prefix "+req.MountPoint+path] = true
	}
	if len(commands) == 0 {
		return mistakef("Jira gave no clear answer to %d mints; their tokens are not there now, but may yet appear until %v after the mint: try again then", intents, lateLanding)
	}
	return mistakef("tokens in Jira have to be ended first, %d of them: %s", len(ids), strings.Join(slices.Sorted(maps.Keys(commands)), " && "))
}

// aliveAt returns the records of account name, and fails unless a's user has
// each of them at c's site, under the ledger's id and name: then he is the
// same user in the same Jira, whatever both are called now.
func (b *backend) aliveAt(ctx context.Context, c *config, name string, a *account) ([]string, error) {
	if !b.ledger.Whole() {
		return nil, retryLater("the ledger is still being read: try again in a moment")
	}
	ids := b.records(name)
	if len(ids) == 0 {
		return nil, nil
	}
	site, err := b.sites.trial(c)
	if err != nil {
		return nil, err
	}
	tokens, err := site.As(a.login()).Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for the tokens of account %q: %w", name, err)
	}
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(tokens, func(t jira.Token) bool { return t.ID == r.TokenID && t.Name == r.Name }) {
			return nil, mistakef("the tokens of account %q, %d of them, have to be ended first: %q is not there; revoke their leases, then change it", name, len(ids), r.Name)
		}
	}
	return ids, nil
}

// allThere is aliveAt for all accounts.
func (b *backend) allThere(ctx context.Context, s logical.Storage, c *config) ([]string, error) {
	names, err := s.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		a, err := b.loadAccount(ctx, s, name)
		if err != nil {
			return nil, err
		}
		ids, err := b.aliveAt(ctx, c, name, a)
		if err != nil {
			return nil, err
		}
		found = append(found, ids...)
	}
	slices.Sort(found)
	return found, nil
}
