package backend

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

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

	userScope // of credentialTypeUser alone
	limits
}

// roleFields are the fields of a role in a request.
func roleFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name": nameField("role"),
		"credential_type": {
			Type:          framework.TypeString,
			Description:   "What a reader gets: pat, a personal access token of one of the accounts; ephemeral_user, one of a user who is made for the lease, and ends with it, for which the config needs an admin credential; oauth2, an access token of a service account; cloud_api_token, an API token of a service account of Jira Cloud.",
			Default:       credentialTypePAT,
			AllowedValues: allTypesOf(func(t *traits) string { return t.name }),
		},
		"scopes": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Scopes of an oauth2 access token, or of a cloud_api_token, of those that its account has. A Jira that grants more than was asked for is refused. Omitted: the account's.",
		},
		"groups": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Groups that an ephemeral_user is put into.",
		},
		"project_roles": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Project roles that an ephemeral_user is given, each as the project's key, a colon and the role's name: OPS:Developers.",
		},
		"application_keys": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Applications that an ephemeral_user may use, as jira-software. Each takes a seat of its licence while the user lives.",
		},
		"username_template": {
			Type:        framework.TypeString,
			Description: "What an ephemeral_user is called, with Vault's template functions and {{.ID}}, which it has to hold whole, {{.MountID}}, {{.RoleName}} and {{.DisplayName}}. A template has " + strconv.Itoa(mostTemplate) + " bytes at most, makes " + strconv.Itoa(mostMade) + " at most, and knows no range, define, block or template. Empty: " + defaultUsername + ".",
		},
		"email_template": {
			Type:        framework.TypeString,
			Description: "An ephemeral_user's address, likewise, with {{.Username}} too. No mail is sent there when he is made. Empty: " + defaultEmail + ".",
		},
		"display_name_template": {
			Type:        framework.TypeString,
			Description: "An ephemeral_user's full name, likewise. Empty: " + defaultDisplayName + ".",
		},
		"on_revoke": {
			Type:          framework.TypeString,
			Description:   "What becomes of an ephemeral_user with his lease: delete, or deactivate, which strips him of groups and roles as well. One that Jira does not delete, for he reported something, is deactivated in any case.",
			Default:       onRevokeDelete,
			AllowedValues: []any{onRevokeDelete, onRevokeDeactivate},
		},
		"allow_admin": {
			Type:        framework.TypeBool,
			Description: "Accept that an ephemeral_user administers Jira by the groups of the role. Needs the role's name in allow_admin_roles of the config, also at each read.",
		},
		"allowed_permissions": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Jira's keys of the permissions that a credential of the role may have at most, as BROWSE_PROJECTS. See roles/<name>/check.",
		},
		"enforce_permissions": {
			Type:        framework.TypeBool,
			Description: "Refuse a write of the role if its credentials can do more than allowed_permissions, and look again once a day.",
		},
		"check_projects": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Keys of projects in which to see what a credential can do, beside those of project_roles.",
		},
		"verify": {
			Type:        framework.TypeBool,
			Description: "On a write that changes what an ephemeral_user is given: make one, see what that user may do, and delete the user. false, with other groups, project_roles or application_keys, needs the role's name in allow_admin_roles of the config.",
			Default:     true,
		},
		"accounts": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Names of the accounts to mint for. Each mint takes the one with the most room, and the next where Jira refuses it.",
		},
		"ttl": {
			Type:        framework.TypeDurationSecond,
			Description: "How long a lease lasts, and by how much a renewal without an increment extends it. Omitted: the mount's default.",
		},
		"max_leases": {
			Type:        framework.TypeInt,
			Description: "How many credentials of the role there may be at a time. One counts until it is proven gone from Jira, which can be a while after its lease; an access token counts as long as its lease. Omitted or 0: as many as the accounts can hold.",
		},
		"max_leases_per_entity": {
			Type:        framework.TypeInt,
			Description: "How many of them one reader may have at a time, by Vault's entity, or by the display name of a token that has none. They count as for max_leases. Omitted or 0: no bound.",
		},
		"max_ttl": {
			Type:        framework.TypeDurationSecond,
			Description: "How long a lease can last with all its renewals. Omitted: the mount's maximum. At least half a minute shorter than max_token_days of the config.",
		},
	}
}

func (b *backend) pathRoles() *framework.Path {
	fields := roleFields()
	return &framework.Path{
		Pattern:        "roles/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:         fields,
		ExistenceCheck: b.exists(rolesPrefix),
		Operations: b.operations(resource{
			suffix: "role",
			event:  "role",
			what:   "a role",
			read:   b.readRole, write: b.writeRole, remove: b.deleteRole,
			answer: answerFields(fields, map[string]*framework.FieldSchema{
				"review_finding":    {Type: framework.TypeString, Description: "What the last daily review found: that the credentials can do more than enforce_permissions allows, or why that could not be told. Empty if nothing."},
				"reviewed_at":       {Type: framework.TypeString, Description: "When that was, RFC 3339 in UTC. Empty before the first."},
				"effective_ttl":     {Type: framework.TypeDurationSecond, Description: "What ttl comes to with the limits of the role, the mount and the system."},
				"effective_max_ttl": {Type: framework.TypeDurationSecond, Description: "What max_ttl comes to with the limits of the role, the mount, the system and max_token_days."},
			}, "name", "verify"),
			request: map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_ttl": "24h"},
			change:  map[string]any{"max_ttl": "8h"},
			example: map[string]any{
				"credential_type": "pat", "accounts": []string{"ci-bot"}, "ttl": 3600, "max_ttl": 86400, "max_leases": 0, "max_leases_per_entity": 0,
				"effective_ttl": 3600, "effective_max_ttl": 86400,
				"scopes": []string{}, "groups": []string{}, "project_roles": []string{}, "application_keys": []string{},
				"username_template": "", "email_template": "", "display_name_template": "", "on_revoke": "delete", "allow_admin": false,
				"allowed_permissions": []string{}, "enforce_permissions": false, "check_projects": []string{}, "review_finding": "", "reviewed_at": "",
			},
		}),
		HelpSynopsis: "What readers of creds/<role> get.",
		HelpDescription: strings.TrimSpace(`
A role says whose tokens it hands out, and how long a lease lasts.

    vault write jira/roles/readonly accounts=ci-bot ttl=1h max_ttl=24h

A service account's access tokens have scopes of their own:

    vault write jira/roles/report credential_type=oauth2 accounts=reporting scopes=READ

A token is the whole user. Where no standing account may do just what is needed,
a role can have a user made for each lease, who is deleted with it. His groups and
project roles are the scope. A write tries it out once; verify=false skips that.

    vault write jira/roles/deploy credential_type=ephemeral_user \
        project_roles=OPS:Developers application_keys=jira-software ttl=1h

A lease keeps the terms it was issued with, or the role's where those have
become shorter; it can be renewed and revoked after the role is deleted, too.
`),
	}
}

func (b *backend) pathListRoles() *framework.Path {
	return &framework.Path{
		Pattern:      "roles/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: b.listing("roles", "the roles", false, b.listRoles, []string{"readonly"}, map[string]any{
			"readonly": map[string]any{"credential_type": "pat", "accounts": []string{"ci-bot"}, "ttl": 3600, "max_ttl": 86400, "max_leases": 0},
		}),
		HelpSynopsis:    "List the roles.",
		HelpDescription: "Lists the names of the roles, with the type, the accounts and the TTLs of each.",
	}
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

// validate refuses what cannot work. The longest life of a token is in days.
func (r *role) validate(maxTokenDays int) error {
	t := typeNamed(r.CredentialType)
	if r.CredentialType == "" || t == nil {
		return fault.Userf("credential_type %q is not known: write pat, ephemeral_user, oauth2 or cloud_api_token", r.CredentialType)
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

func (b *backend) writeRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	verify := true
	asked := change(fields{d, true}, "verify", &verify)
	var longest int
	var warnings []string
	var written *role
	err = revise(ctx, b, rolesPrefix+name, fmt.Sprintf("role %q", name), isPatch(req), func(r, before *role) (agrees func() (bool, error), err error) {
		if r.OnRevoke == "" { // of a role from before there were others
			r.OnRevoke = onRevokeDelete
		}
		if err := r.update(fields{d, before == nil}); err != nil {
			return nil, err
		}
		if longest, err = b.maxTokenDays(ctx); err != nil {
			return nil, err
		}
		if err := r.validate(longest); err != nil {
			return nil, err
		}
		warnings, written = nil, r
		if r.traits().throwAway {
			changed := before == nil || !reflect.DeepEqual(before.userScope, r.userScope)
			if changed || asked {
				if warnings, err = b.verifyUsers(ctx, readerOf(req), name, r, verify, before == nil || !before.givesTheSame(r)); err != nil {
					return nil, err
				}
			}
		}
		if r.EnforcePermissions {
			if err := b.enforce(ctx, readerOf(req), name, r); err != nil {
				return nil, err
			}
		}
		return func() (bool, error) { return true, b.accountsAreThere(ctx, name, r) }, nil
	})
	if err != nil {
		return nil, err
	}
	b.reviewSoon()
	b.log().Info("role written", "role", name, "credential_type", written.CredentialType, "accounts", written.Accounts)
	_, more, err := b.terms(written, longest, 0)
	return warned(append(warnings, more...)), err
}

// traits are those of what r hands out; r was validated.
func (r *role) traits() *traits { return storedType(r.CredentialType).is() }

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

// verifyUsers finds out whether throw-away users of role name can be made, and
// what they may do. given tells that they are given something else than before.
func (b *backend) verifyUsers(ctx context.Context, by ledger.Reader, name string, r *role, verify, given bool) (warnings []string, err error) {
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.consents(name, r); err != nil {
		return nil, err
	}
	if !verify && given {
		if err := c.mayGoUnseen(name); err != nil {
			return nil, err
		}
	}
	admin, err := b.admin(c)
	if err != nil {
		return nil, err
	}
	if err := r.resolve(ctx, admin); err != nil {
		return nil, err
	}
	if !verify {
		return []string{"verify is false: whether users can be made, whether the groups are there, and whether they administer Jira was not looked at"}, nil
	}
	return nil, b.probe(ctx, by, name, r, c)
}

func (b *backend) readRole(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	r, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+name)
	if err != nil || r == nil {
		return nil, err
	}
	longest, err := b.maxTokenDays(ctx)
	if err != nil {
		return nil, err
	}
	t, warnings, err := b.terms(r, longest, 0)
	if err != nil {
		return nil, err
	}
	found, at, err := b.finding(ctx, func(v *review) map[string]string { return v.Roles }, name)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Warnings: warnings, Data: map[string]any{
		"credential_type": r.CredentialType,
		"accounts":        append([]string{}, r.Accounts...),
		"ttl":             r.TTL,
		"max_ttl":         r.MaxTTL,
		"max_leases":      r.MaxLeases,

		"max_leases_per_entity": r.MaxPerEntity,
		"scopes":                append([]string{}, r.Scopes...),
		"groups":                append([]string{}, r.Groups...),
		"project_roles":         append([]string{}, r.ProjectRoles...),
		"application_keys":      append([]string{}, r.ApplicationKeys...),
		"username_template":     r.UsernameTemplate,
		"email_template":        r.EmailTemplate,
		"display_name_template": r.DisplayNameTemplate,
		"on_revoke":             r.OnRevoke,
		"allow_admin":           r.AllowAdmin,

		"allowed_permissions": append([]string{}, r.AllowedPermissions...),
		"enforce_permissions": r.EnforcePermissions,
		"check_projects":      append([]string{}, r.CheckProjects...),
		"review_finding":      found,
		"reviewed_at":         at,
		"effective_ttl":       seconds(t.ttl),
		"effective_max_ttl":   seconds(t.max),
	}}, nil
}

func (b *backend) listRoles(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return list(ctx, &b.decoded, b.storage, rolesPrefix, func(_ string, r *role) map[string]any {
		return map[string]any{
			"credential_type": r.CredentialType,
			"accounts":        r.Accounts,
			"ttl":             r.TTL,
			"max_ttl":         r.MaxTTL,
			"max_leases":      r.MaxLeases,
		}
	})
}

func (b *backend) deleteRole(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	b.resources.Lock()
	defer b.resources.Unlock()
	defer b.reviewSoon()
	return nil, remove(ctx, &b.decoded, b.storage, rolesPrefix+name)
}
