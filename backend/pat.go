package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// pat is a personal access token of an account's own user, who is a person's or a machine's
// login in Jira Data Center. Jira lists a user's tokens by name and id, lets their user end
// them, and has a cap on how many there are.
type pat struct{ listable }

var patTraits = traits{name: credentialTypePAT, secretType: patSecret, accountType: accountTypeUser, personal: true}

const (
	credentialTypePAT = "pat"
	accountTypeUser   = "user"
)

// patSecret is the type of a lease that holds a personal access token.
const patSecret = "jira_pat"

func (pat) is() *traits { return &patTraits }

func (pat) prepare(_ context.Context, _ *backend, m *mint, _ *config, _ *role, a *account) error {
	m.record.Username = a.Username
	return nil
}

func (pat) make(ctx context.Context, _ *backend, m *mint) (token jira.Token, secret string, made bool, err error) {
	token, secret, err = m.client.CreateToken(ctx, m.record.Name, days(m.max))
	return token, secret, !jira.NothingMade(err), err
}

func (pat) end(ctx context.Context, log hclog.Logger, b *backend, client *jira.Client, r *ledger.Record) error {
	if err := b.endToken(ctx, log, client, r); err != nil {
		// With the token that its account logs in with went the proof that it did. It
		// is gone if Jira knows nobody by it, which is asked anew.
		if login := b.endsItself(ctx, r); login != nil {
			if alive, e := client.As(*login).Accepted(ctx); e == nil && !alive {
				return nil
			}
		}
		if other := b.other(ctx, r.Account, client, err); other != nil {
			client = other
			err = b.endToken(ctx, log, client, r)
		}
		if err != nil {
			return b.endWithoutLogin(ctx, log, r, err)
		}
	}
	if r.Kept == ledger.KeptOwn && isRetired(r.Account) {
		return nil // nobody is left to look with
	}
	return b.sweep(ctx, log, client, r.Account)
}

func (pat) validate(a *account) error {
	switch {
	case a.AccountID != "":
		return fault.Userf("account_id is for type=%s", accountTypeAPIToken)
	case a.service != service{}:
		return fault.Userf("client_id, client_secret, token_url, revocation_url and scopes are for type=oauth2")
	case a.Username == "":
		return fault.Userf("username is missing: the login name of the Jira user")
	case a.FallbackPassword != "" && a.Token == "":
		return fault.Userf("fallback_password is for an account that logs in with a token: remove it with null, or write token")
	case a.kind() == "":
		return fault.Userf("token or password is missing: what the engine logs in with as %q", a.Username)
	case a.MaxTokens < 1:
		return fault.Userf("max_tokens must be 1 or more")
	case a.Exclusive && a.Token != "" && a.RecordID == "":
		return fault.Userf("exclusive needs a password, or a token that the engine minted itself: it cannot tell the one that it was given from those that readers may make, and would delete it with them; write the token with exclusive=false, rotate the account with rotate-account, and set exclusive=true then")
	case a.places() < 1:
		return fault.Userf("max_tokens=%d leaves no room for tokens of leases: the engine logs in with one, and keeps one free for its replacement", a.MaxTokens)
	}
	return a.validateKept()
}

func (pat) verify(ctx context.Context, b *backend, v *verification) (warnings []string, err error) {
	a := v.a
	if v.c.cloud() {
		return nil, fault.Userf("Jira Cloud has no personal access tokens: with deployment=cloud an account is of type=oauth2, or cloud_api_token")
	}
	working, warnings, err := b.verifyLogin(ctx, v.client, v.before, a, v.sent)
	if err != nil {
		return nil, err
	}
	isAdmin, err := working.Administrator(ctx)
	if err != nil {
		return nil, fmt.Errorf("checking whether %q is an administrator: %w", a.Username, err)
	}
	if isAdmin && !a.AllowAdmin {
		return nil, fault.Userf("user %q administers Jira, and so would every token of the account: take another user, or set allow_admin=true", a.Username)
	}
	if v.c.Version == "" { // Jira did not tell it when the config was written
		if _, err := versionOf(ctx, working); err != nil {
			return nil, fmt.Errorf("checking the site: %w", err)
		}
	}
	tokens, date, err := working.TokensDated(ctx)
	if err != nil {
		return nil, cannotList(a.Username, err)
	}
	if working == v.client { // else the token in use is dead
		w, err := a.recognize(tokens, date)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, w...)
	}
	w, err := b.verifyRoom(ctx, v.name, v.before, a, tokens)
	return append(warnings, w...), err
}

func (pat) review(ctx context.Context, _ *backend, client *jira.Client, a *account) error {
	u, err := client.Myself(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the %s cannot be used: %w", a.kind(), err)
	case !u.Active:
		return fault.Userf("user %q is not active in Jira any more", u.Name)
	case a.UserKey != "" && u.Key != a.UserKey:
		return fault.Userf("the %s belongs to user %q now, who is another than %q", a.kind(), u.Name, a.Username)
	case u.Name != a.Username:
		return fault.Userf("user %q was renamed to %q: write the account with the new username", a.Username, u.Name)
	}
	is, err := client.Administrator(ctx)
	if err == nil && is && !a.AllowAdmin {
		return fault.Userf("user %q administers Jira now, and so does every token of the account: take that from him, or set allow_admin=true", u.Name)
	}
	return err
}

func (pat) works(ctx context.Context, client *jira.Client, _ *account) error {
	_, err := client.Myself(ctx)
	return err
}

func (pat) cannotRotate(string) error { return nil }
