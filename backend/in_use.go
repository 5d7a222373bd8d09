package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// whatIsHeld says what the records of account are, and how to get rid of them.
func (b *backend) whatIsHeld(ctx context.Context, account string, ids []string) error {
	commands := map[string]bool{}
	var static []string
	own := map[string]bool{}
	intents, owed := 0, 0
	// A handful of records is enough to name the roles of one account.
	for _, id := range ids[:min(len(ids), 100)] {
		r, err := b.ledger.Read(ctx, id)
		switch {
		case errors.Is(err, ledger.ErrMissing), errors.Is(err, ledger.ErrUnreadable):
		case err != nil:
			return err
		case r.State == ledger.Intended:
			intents++
		case r.State == ledger.Owed:
			owed++
		case r.Kept == ledger.KeptOwn:
			own[r.Account] = true
		case r.Kept != "":
			static = append(static, strings.TrimPrefix(r.Role, staticName("")))
		case account == "":
			commands["vault lease revoke -sync -prefix "+b.mountPoint()+"creds/"] = true
		default: // a lease's path starts with its role's
			commands["vault lease revoke -sync -prefix "+b.mountPoint()+"creds/"+r.Role+"/"] = true
		}
	}
	var why []string
	if len(commands) > 0 {
		why = append(why, "leases hold tokens, end them: "+strings.Join(slices.Sorted(maps.Keys(commands)), " && "))
	}
	if len(static) > 0 {
		why = append(why, "static roles hand out tokens, delete them: "+strings.Join(slices.Compact(slices.Sorted(slices.Values(static))), ", "))
	}
	if len(own) > 0 {
		why = append(why, mintedFor(own))
	}
	if owed > 0 {
		why = append(why, fmt.Sprintf("%d tokens are revoked, but Jira has not ended them yet: the engine goes on trying, and its log says why it failed; a delete with force=true does not wait for them", owed))
	}
	if intents > 0 {
		why = append(why, fmt.Sprintf("Jira gave no clear answer to %d mints; their tokens are not known to be there, but may yet appear until %v after the mint: try again then, or delete with force=true, which does not wait", intents, ledger.LateLanding))
	}
	if len(why) == 0 { // all of it was settled while we looked
		return fault.Unavailable("the last tokens were ended this moment: try again")
	}
	return fault.User(strings.Join(why, "; "))
}

// aliveAt returns the records of account name, with those of what the engine logs in
// with, and fails unless a's user has each of them at c's site, under the ledger's id and name: then he is the
// same user in the same Jira, whatever both are called now.
func (b *backend) aliveAt(ctx context.Context, c *config, name string, a *account) ([]string, error) {
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	ids := b.withOwn(name)
	if len(ids) == 0 {
		return nil, nil
	}
	// Of access tokens Jira lists nothing; and of the others there are some on Cloud
	// alone, or off it.
	if t := a.traits(); t.expiresOnly || t.cloud != c.cloud() {
		return nil, b.whatIsHeld(ctx, name, ids)
	}
	site, err := b.sites.trial(c)
	if err != nil {
		return nil, err
	}
	defer site.Close()
	client, err := c.as(site, a)
	if err != nil {
		return nil, err
	}
	return ids, b.listedAt(ctx, client, name, ids)
}

// listedAt fails unless client's user has the tokens that the records of account name
// called ids are of.
func (b *backend) listedAt(ctx context.Context, client *jira.Client, name string, ids []string) error {
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("looking for the tokens of account %q: %w", name, err)
	}
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrMissing) {
			continue
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(tokens, func(t jira.Token) bool { return t.ID == r.TokenID && t.Name == r.Name }) {
			return fmt.Errorf("token %q of account %q is not there: %w", r.Name, name, b.whatIsHeld(ctx, name, ids))
		}
	}
	return nil
}

// usersAt is aliveAt for throw-away users, and what the engine logs in with as c's
// admin: he finds each of them at c's site, by a name that holds the ledger's id.
func (b *backend) usersAt(ctx context.Context, c *config) ([]string, error) {
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	ids, own := b.records(adminAccount), b.ledger.Own(adminAccount)
	if len(ids)+len(own) == 0 {
		return nil, nil
	}
	site, err := b.sites.trial(c)
	if err != nil {
		return nil, err
	}
	defer site.Close()
	admin := site.As(c.Admin.login())
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		_, _, found, err := admin.FindUser(ctx, r.Username)
		if err != nil {
			return nil, fmt.Errorf("looking for user %q: %w", r.Username, err)
		}
		if !found {
			return nil, fmt.Errorf("user %q is not there: %w", r.Username, b.whatIsHeld(ctx, adminAccount, ids))
		}
	}
	if len(own) == 0 {
		return ids, nil
	}
	return append(ids, own...), b.listedAt(ctx, admin, adminAccount, own)
}

// nothingToLookUp refuses another site while there are tokens that would have to be
// looked up there, which a write that calls nobody cannot do.
func (b *backend) nothingToLookUp(ctx context.Context) error {
	if err := b.ledgerIsWhole(); err != nil {
		return err
	}
	ids := b.withOwn("")
	if len(ids) == 0 {
		return nil
	}
	return fmt.Errorf("with verify_connection=false the engine does not ask whether its %d tokens are there; write with verify_connection=true, or end them first: %w", len(ids), b.whatIsHeld(ctx, "", ids))
}

// allThere is aliveAt for all accounts, and usersAt.
func (b *backend) allThere(ctx context.Context, c *config) ([]string, error) {
	names, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	b.settleAccounts(ctx, true, append(names, adminAccount)...)
	all := b.withOwn("")
	found, err := b.usersAt(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		a, err := b.loadAccount(ctx, name)
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
	if len(all) > len(found) {
		return nil, fmt.Errorf("%d tokens belong to no account that there is: %w", len(all)-len(found), b.whatIsHeld(ctx, "", all))
	}
	return found, nil
}
