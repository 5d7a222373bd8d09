package backend

import (
	"context"
	"math"
	"strings"

	"vault-plugin-secrets-jira/backend/fault"
)

// account is a Jira user or a service account that the engine mints for, as it is
// stored. It is comparable.
type account struct {
	Type       string `json:"type"`
	MaxTokens  int    `json:"max_tokens"`
	AllowAdmin bool   `json:"allow_admin"`
	Exclusive  bool   `json:"exclusive"`
	AccountID  string `json:"account_id,omitempty"`

	AllowedRoles string `json:"allowed_roles,omitempty"` // separated by blanks; empty: all. See consent.go

	// FallbackPassword is what the engine logs in with while Jira refuses the token.
	FallbackPassword string `json:"fallback_password,omitempty"`

	credential
	service
}

// update takes over what was sent. stale is as in [credential.update].
func (a *account) update(f fields) (stale string, err error) {
	change(f, "type", &a.Type)
	change(f, "max_tokens", &a.MaxTokens)
	change(f, "allow_admin", &a.AllowAdmin)
	change(f, "exclusive", &a.Exclusive)
	if err := changeRoles(f, "allowed_roles", &a.AllowedRoles); err != nil {
		return "", err
	}
	if _, sent := f.Raw["allowed_roles"]; sent && a.AllowedRoles == "" {
		return "", fault.Userf("allowed_roles is empty: no role could use the account; name some, or write * for all")
	}
	if stale, err = a.credential.update(f); err != nil {
		return "", err
	}
	if raw, sent := f.Raw["fallback_password"]; sent && raw == nil {
		a.FallbackPassword = ""
	} else if _, err := changeSecret(f, "fallback_password", &a.FallbackPassword); err != nil {
		return "", err
	}
	had := a.AccountID
	if change(f, "account_id", &a.AccountID) && a.Type == accountTypeAPIToken && a.Username == had {
		a.Username, a.UserKey = a.AccountID, a.AccountID // which it is, on Cloud
	}
	change(f, "client_id", &a.ClientID)
	if _, err := changeSecret(f, "client_secret", &a.ClientSecret); err != nil {
		return "", err
	}
	change(f, "token_url", &a.TokenURL)
	change(f, "revocation_url", &a.RevocationURL)
	scopes := strings.Fields(a.Scopes)
	change(f, "scopes", &scopes)
	a.Scopes = strings.Join(strings.Fields(strings.Join(scopes, " ")), " ")
	return stale, nil
}

// ofType is the type of a, which was validated.
func (a *account) ofType() accountType {
	if t := knownType(a.Type); t != nil {
		return t
	}
	return pat{}
}

// traits are those of a's type.
func (a *account) traits() *traits { return a.ofType().is() }

// validate refuses what cannot work, whatever Jira says.
func (a *account) validate() error {
	t := knownType(a.Type)
	if t == nil {
		return fault.Userf("type %q is not known: write %s", a.Type, orList(accountTypes()))
	}
	if !t.is().personal && a.schedule != (schedule{Overlap: a.Overlap}) {
		return fault.Userf("rotation_period, rotation_schedule and what goes with them are for type=user: no documented call rotates what a service account logs in with")
	}
	return t.validate(a)
}

// places is how many tokens of leases the account can hold. A token that the
// engine logs in with counts against Jira's cap, and so will the next one
// while it replaces the last; a password leaves all places to the leases. Of
// access tokens Jira knows no cap.
func (a *account) places() int {
	if a.traits().expiresOnly {
		return math.MaxInt32
	}
	if a.Token != "" {
		return a.MaxTokens - 2
	}
	return a.MaxTokens
}

func (b *backend) loadAccount(ctx context.Context, name string) (*account, error) {
	a, err := load[account](ctx, &b.decoded, b.storage, accountsPrefix+name)
	if err == nil && a == nil {
		return nil, fault.Userf("there is no account %q", name)
	}
	return a, err
}

// loginOf returns the account called name, or the config's admin as one.
func (b *backend) loginOf(ctx context.Context, name string) (*account, error) {
	if name != adminAccount {
		return b.loadAccount(ctx, name)
	}
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	return c.adminAsAccount(), nil
}

// allAccounts are the accounts that there are, by name.
func (b *backend) allAccounts(ctx context.Context) (map[string]*account, error) {
	names, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	all := make(map[string]*account, len(names))
	for _, name := range names {
		a, err := load[account](ctx, &b.decoded, b.storage, accountsPrefix+name)
		if err != nil {
			return nil, err
		}
		if a != nil {
			all[name] = a
		}
	}
	return all, nil
}

// accountOf returns the name of the account, other than except, that c's user
// is, or "".
func (b *backend) accountOf(ctx context.Context, c *credential, except string) (string, error) {
	all, err := b.allAccounts(ctx)
	if err != nil {
		return "", err
	}
	for name, a := range all {
		if name != except && a.sameUser(c) {
			return name, nil
		}
	}
	return "", nil
}
