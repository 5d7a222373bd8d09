package backend

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"

	"github.com/hashicorp/go-hclog"
)

// An API token of a service account of Jira Cloud is narrower than an access token
// is long: it has the role's scopes, lives as long as its lease, and ends with it.
// The organisation's API key, which is the config's token there, makes, lists and
// ends those of every account, so an account is nothing but an id.
//
// To list and to end them is documented. To make them is not: Atlassian can take
// that away any day, and what then has to go can still be ended. So it is asked for
// only where the config says allow_undocumented_api.

// cloudAPIToken is an API token of a service account of Jira Cloud.
type cloudAPIToken struct{ listable }

var cloudAPITokenTraits = traits{name: accountTypeAPIToken, stored: accountTypeAPIToken, secretType: apiTokenSecret, accountType: accountTypeAPIToken, scoped: true, cloud: true, orgKey: true}

const accountTypeAPIToken = "cloud_api_token"

// apiTokenSecret is the type of a lease that holds a service account's API token.
const apiTokenSecret = "jira_cloud_api_token" //nolint:gosec // a type's name

func (cloudAPIToken) is() *traits { return &cloudAPITokenTraits }

func (cloudAPIToken) prepare(_ context.Context, _ *backend, m *mint, c *config, r *role, a *account) error {
	if err := c.mayMakeAPITokens(); err != nil {
		return err
	}
	m.record.Username, m.granted = a.Username, a.scopesFor(r)
	return nil
}

// apiTokenSlack is how much longer than its lease can last an API token is made
// to live: Atlassian's clock and ours may differ.
const apiTokenSlack = 10 * time.Minute

// longestAPIToken is how long Atlassian lets one live.
const longestAPIToken = 365 * 24 * time.Hour

// apiTokenExpiry is when Atlassian has to end a token by itself whose lease can
// last longest from now on. It is refused where it is too far by Atlassian's clock.
func apiTokenExpiry(now time.Time, longest time.Duration) time.Time {
	return now.Add(min(longest+apiTokenSlack, longestAPIToken-apiTokenSlack))
}

// as is a client of site for what account a is asked to do: its user's own, or one
// for the API tokens of a service account, in which the organisation's key logs in.
func (c *config) as(site *jira.Site, a *account) (*jira.Client, error) {
	if a.Type != accountTypeAPIToken {
		return site.As(a.login()), nil
	}
	switch {
	case !c.cloud():
		return nil, fault.Userf("an account of type=%s is of Jira Cloud, and config has deployment=%s", accountTypeAPIToken, deploymentDataCenter)
	case c.Admin.Token == "":
		return nil, fault.Userf("API tokens of service accounts are managed with an API key of the organisation, without scopes: write it to config as token")
	}
	tokens, err := site.APITokens(c.Admin.Token, a.AccountID)
	if err != nil {
		return nil, fault.Userf("account_id: %v", err)
	}
	return tokens.Client(), nil
}

// loginOf tells whether two clients of a would log in alike.
func (c *config) loginOf(a *account) jira.Login {
	l := a.login()
	if a.Type == accountTypeAPIToken {
		l.Token = c.Admin.Token
	}
	return l
}

// mayMakeAPITokens refuses where nobody said that Atlassian may be asked for what
// it does not document.
func (c *config) mayMakeAPITokens() error {
	if !c.AllowUndocumentedAPI {
		return fault.Userf("Atlassian does not document the call that makes API tokens: set allow_undocumented_api=true on config if it shall be used all the same")
	}
	return nil
}

// verify asks for the list of v's tokens, to see whether the account is there and the
// organisation's key is good for it.
func (cloudAPIToken) verify(ctx context.Context, _ *backend, v *verification) (warnings []string, err error) {
	if err := v.c.mayMakeAPITokens(); err != nil {
		return nil, err
	}
	if _, err := v.client.Tokens(ctx); err != nil {
		return nil, fmt.Errorf("listing the API tokens of account_id: %w", err)
	}
	return []string{"Atlassian does not document the call that makes API tokens, and can change it any day: then reads fail, and what is there can still be ended"}, nil
}

// verifyOrgKey asks whether c's token can manage the API tokens of the accounts
// that there are, by one of them.
func (b *backend) verifyOrgKey(ctx context.Context, site *jira.Site, c *config) (warnings []string, err error) {
	if c.Admin.Token == "" {
		return nil, nil
	}
	all, err := b.allAccounts(ctx)
	if err != nil {
		return nil, err
	}
	for name, a := range all {
		if a.Type != accountTypeAPIToken {
			continue
		}
		client, err := c.as(site, a)
		if err != nil {
			return nil, err
		}
		if _, err := client.Tokens(ctx); err != nil {
			return nil, fmt.Errorf("checking the organisation's API key with account %q: %w", name, err)
		}
		return nil, nil
	}
	return []string{"whether token is an API key of the organisation, without scopes, is seen when an account of type=" + accountTypeAPIToken + " is written"}, nil
}

func (cloudAPIToken) make(ctx context.Context, b *backend, m *mint) (token jira.Token, secret string, made bool, err error) {
	token, secret, err = m.client.APITokens().Create(ctx, m.record.Name, m.granted, apiTokenExpiry(b.now(), m.max))
	if jira.Is(err, jira.Denied) {
		err = fmt.Errorf("%w; Atlassian does not document this call, and may have changed it", err)
	}
	return token, secret, !jira.NothingMade(err), err
}

func (cloudAPIToken) end(ctx context.Context, log hclog.Logger, b *backend, client *jira.Client, r *ledger.Record) error {
	k := client.APITokens()
	if k == nil || !b.certain(client, r) {
		return b.endNamed(ctx, log, client, r)
	}
	return k.Delete(ctx, r.TokenID, r.Name)
}

func (cloudAPIToken) review(ctx context.Context, _ *backend, client *jira.Client, _ *account) error {
	if _, err := client.Tokens(ctx); err != nil {
		return fmt.Errorf("listing its API tokens: %w", err)
	}
	return nil
}

func (cloudAPIToken) works(ctx context.Context, client *jira.Client, _ *account) error {
	_, err := client.Tokens(ctx)
	return err
}

func (cloudAPIToken) cannotRotate(name string) error {
	return fault.Userf("account %q has no credential of its own: its API tokens are made with the config's token", name)
}

func (cloudAPIToken) validate(a *account) error {
	switch {
	case a.AccountID == "":
		return fault.Userf("account_id is missing: the service account's, as Atlassian's administration shows it")
	case a.Username != a.AccountID || a.Token != "" || a.Password != "" || a.FallbackPassword != "" || a.AllowAdmin || a.Exclusive || a.OwnTokenID != "":
		return fault.Userf("username, token, password, fallback_password, allow_admin, exclusive and own_token_id are for type=user: the API tokens of a service account are made with the config's token")
	case a.service != service{Scopes: a.Scopes}:
		return fault.Userf("client_id, client_secret, token_url and revocation_url are for type=oauth2")
	case a.MaxTokens < 1:
		return fault.Userf("max_tokens must be 1 or more")
	}
	return nil
}

// scopesFor are those of an API token of a for role r, who may narrow a's.
func (a *account) scopesFor(r *role) []string {
	if len(r.Scopes) > 0 {
		return r.Scopes
	}
	return strings.Fields(a.Scopes)
}
