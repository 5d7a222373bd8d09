package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// role is what a reader gets, as it is stored.
type role struct {
	CredentialType string   `json:"credential_type"`
	Accounts       []string `json:"accounts"`
	TTL            int      `json:"ttl"`                             // seconds; 0: the mount's
	MaxTTL         int      `json:"max_ttl"`                         // seconds; 0: the mount's
	MaxLeases      int      `json:"max_leases"`                      // 0: as many as the accounts can hold
	MaxPerEntity   int      `json:"max_leases_per_entity,omitempty"` // 0: no bound

	Scopes []string `json:"scopes,omitempty"` // of service accounts alone; empty: the account's

	userScope // of an ephemeral_user alone
	limits
}

// update takes over what was sent.
func (r *role) update(f fields) error {
	change(f, "credential_type", &r.CredentialType)
	change(f, "accounts", &r.Accounts)
	change(f, "max_leases", &r.MaxLeases)
	change(f, "max_leases_per_entity", &r.MaxPerEntity)
	change(f, "scopes", &r.Scopes)
	change(f, "groups", &r.Groups)
	change(f, "project_roles", &r.ProjectRoles)
	change(f, "application_keys", &r.ApplicationKeys)
	change(f, "username_template", &r.UsernameTemplate)
	change(f, "email_template", &r.EmailTemplate)
	change(f, "display_name_template", &r.DisplayNameTemplate)
	change(f, "on_revoke", &r.OnRevoke)
	change(f, "allow_admin", &r.AllowAdmin)
	change(f, "allowed_permissions", &r.AllowedPermissions)
	change(f, "enforce_permissions", &r.EnforcePermissions)
	change(f, "check_projects", &r.CheckProjects)
	if change(f, "ttl", &r.TTL) && r.TTL == 0 && f.Raw["ttl"] != nil {
		return fault.Userf("ttl must be more than zero; leave it out for the mount's")
	}
	if change(f, "max_ttl", &r.MaxTTL) && r.MaxTTL == 0 && f.Raw["max_ttl"] != nil {
		return fault.Userf("max_ttl must be more than zero; leave it out for the mount's")
	}
	return nil
}

// traits are those of what r hands out; r was validated.
func (r *role) traits() *traits { return storedType(r.CredentialType).is() }

// validate refuses what cannot work. The longest life of a token is in days.
func (r *role) validate(maxTokenDays int) error {
	t := typeNamed(r.CredentialType)
	if r.CredentialType == "" || t == nil {
		return fault.Userf("credential_type %q is not known: write %s", r.CredentialType, orList(credentialTypes()))
	}
	is := t.is()
	switch {
	case !is.scoped && len(r.Scopes) > 0:
		return fault.Userf("scopes are for credential_type=oauth2 and cloud_api_token: a personal access token is the whole user")
	case !is.throwAway && len(r.Accounts) == 0:
		return fault.Userf("accounts is missing: the names of the accounts to mint for")
	case is.throwAway && len(r.Accounts) > 0:
		return fault.Userf("accounts is for credential_type=pat: an ephemeral_user is made by the config's admin")
	case r.MaxLeases < 0:
		return fault.Userf("max_leases must be 1 or more, or 0 for as many as the accounts can hold")
	case r.MaxPerEntity < 0:
		return fault.Userf("max_leases_per_entity must be 1 or more, or 0 for no bound")
	case r.TTL < 0 || r.MaxTTL < 0:
		return fault.Userf("ttl and max_ttl must be more than zero")
	case r.MaxTTL > 0 && r.TTL > r.MaxTTL:
		return fault.Userf("ttl %v is more than max_ttl %v", time.Duration(r.TTL)*time.Second, time.Duration(r.MaxTTL)*time.Second)
	case r.MaxTTL > maxTokenDays*24*3600-int(ledger.Grace/time.Second):
		return fault.Userf("max_ttl %v needs a token of %d days, with half a minute to spare, and max_token_days of the config is %d", time.Duration(r.MaxTTL)*time.Second, days(time.Duration(r.MaxTTL)*time.Second), maxTokenDays)
	}
	for i, name := range r.Accounts {
		if slices.Contains(r.Accounts[:i], name) {
			return fault.Userf("accounts names %q twice", name)
		}
	}
	if err := r.limits.validate(); err != nil {
		return err
	}
	if is.throwAway {
		return r.userScope.validate()
	}
	if !r.userScope.empty() {
		return fault.Userf("groups, project_roles, application_keys, the templates, on_revoke and allow_admin are for credential_type=ephemeral_user: a pat is the whole user of its account")
	}
	return nil
}

// givesTheSame tells whether the users of o may do what those of r may.
func (r *role) givesTheSame(o *role) bool {
	return r.CredentialType == o.CredentialType && slices.Equal(r.Groups, o.Groups) && slices.Equal(r.ProjectRoles, o.ProjectRoles) && slices.Equal(r.ApplicationKeys, o.ApplicationKeys)
}

// days is the life that a token needs so that a lease of max can be ended by
// Vault before Jira ends the token: whole days, which is all Jira knows.
func days(longest time.Duration) int {
	const day = 24 * time.Hour
	return int((longest + ledger.Grace + day - 1) / day)
}

// terms are how long a lease may last.
type terms struct {
	ttl, max time.Duration
}

// terms are the role's on this mount at this moment, for a reader who asked
// for increment, or for nothing special where it is 0. The warnings say what
// was cut.
func (b *backend) terms(r *role, maxTokenDays int, increment time.Duration) (terms, []string, error) {
	longest := time.Duration(maxTokenDays)*24*time.Hour - ledger.Grace
	longest = min(longest, b.System().MaxLeaseTTL())
	if r.MaxTTL > 0 {
		longest = min(longest, time.Duration(r.MaxTTL)*time.Second)
	}
	ttl := time.Duration(r.TTL) * time.Second
	if ttl == 0 { // cut the mount's without a word: nobody asked for it
		ttl = min(b.System().DefaultLeaseTTL(), longest)
	}
	ttl, warnings, err := framework.CalculateTTL(b.System(), increment, ttl, 0, longest, 0, time.Time{})
	return terms{ttl, longest}, warnings, err
}

// maxTokenDays is the config's, or its default where there is no config yet.
func (b *backend) maxTokenDays(ctx context.Context) (int, error) {
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil {
		return 0, err
	}
	if c == nil {
		return defaultMaxTokenDays, nil
	}
	return c.MaxTokenDays, nil
}

func (b *backend) loadRole(ctx context.Context, name string) (*role, error) {
	r, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+name)
	if err == nil && r == nil {
		return nil, fault.Userf("there is no role %q", name)
	}
	return r, err
}

// rolesOf returns the names of the roles that name an account.
func (b *backend) rolesOf(ctx context.Context, account string) ([]string, error) {
	names, err := b.storage.List(ctx, rolesPrefix)
	if err != nil {
		return nil, err
	}
	var of []string
	for _, name := range names {
		r, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+name)
		if err != nil {
			return nil, err
		}
		if r != nil && slices.Contains(r.Accounts, account) {
			of = append(of, name)
		}
	}
	return of, nil
}

// accountsAreThere refuses role r, called name, where one of its accounts is not there, or
// not for it. The caller holds b.resources.
func (b *backend) accountsAreThere(ctx context.Context, name string, r *role) error {
	is := r.traits()
	for _, account := range r.Accounts {
		if err := checkName("an account", account); err != nil {
			return err
		}
		a, err := b.loadAccount(ctx, account)
		if err != nil {
			return fmt.Errorf("accounts: %w", err)
		}
		if err := a.mayBeUsedBy(account, name); err != nil {
			return err
		}
		if a.Type != is.accountType {
			return fault.Userf("accounts: %q is of type %s, and credential_type=%s needs one of type %s", account, a.Type, r.CredentialType, is.accountType)
		}
		if wider := widerThan(r.Scopes, strings.Fields(a.Scopes)); a.Scopes != "" && len(wider) > 0 {
			return fault.Userf("scopes: account %q does not have %s", account, strings.Join(wider, ", "))
		}
		if is.orgKey && len(a.scopesFor(r)) == 0 {
			return fault.Userf("scopes is missing: an API token is made with some, as read:jira-work, and account %q names none either", account)
		}
	}
	return nil
}
