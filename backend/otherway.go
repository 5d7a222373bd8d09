package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// Whoever holds a leased token of an account can delete the one that the engine logs in
// with, and can use up what Jira lets that user call. Then there are two other ways in: the
// account's own fallback password, which can do all that its token could, and the
// config's administrator, who may end the tokens of others. That Jira lets
// administrators do so is not confirmed, so what counts is only what they saw.

// other is another client of account than client, which failed with err, or nil: the
// account's fallback password, now that Jira has refused its token.
func (b *backend) other(ctx context.Context, account string, client *jira.Client, err error) *jira.Client {
	if !jira.Is(err, jira.Refused) {
		return nil
	}
	if again, e := b.client(ctx, account); e == nil && again != client {
		return again
	}
	return nil
}

// endAsAdmin ends the token of r as the config's administrator, where its account's login
// failed with why, because Jira refuses it or limits its user. No error means that the
// token is proven gone. Else the error is why, with what the administrator met.
func (b *backend) endAsAdmin(ctx context.Context, log hclog.Logger, r *ledger.Record, why error) error {
	if !jira.OfLogin(why) || !typeOf(r).is().personal || r.TokenID == "" || unretired(r.Account) == adminAccount {
		return why
	}
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil || c == nil || c.cloud() || c.Admin.kind() == "" || r.Site != c.URL {
		return why
	}
	admin, err := b.admin(c)
	if err == nil {
		err = admin.DeleteOthersToken(ctx, r.TokenID, func(t jira.Token) bool { return isOf(r, t) })
	}
	if err != nil {
		return fmt.Errorf("%w; nor could the config's administrator end it: %w", why, err)
	}
	log.Warn("a token is ended as the config's administrator, for its account's own login does not work", "token_id", r.TokenID, "token_name", r.Name, "error", why)
	return nil
}

// endWithoutLogin is end where the login of r's account failed with why.
func (b *backend) endWithoutLogin(ctx context.Context, log hclog.Logger, r *ledger.Record, why error) error {
	if err := b.endAsAdmin(ctx, log, r, why); err != nil {
		return err
	}
	// Only the account's own list shows what a reader has made beside it.
	if exclusive, err := b.isExclusive(ctx, r.Account); err != nil || exclusive {
		return errors.Join(err, fmt.Errorf("the token is ended, and its account is exclusive: what its reader made cannot be looked for: %w", why))
	}
	return nil
}
