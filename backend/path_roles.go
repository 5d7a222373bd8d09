package backend

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// roleFields are the fields of a role in a request.
func roleFields() map[string]*framework.FieldSchema {
	return merged(userFields(), map[string]*framework.FieldSchema{
		"name": nameField("role"),
		"credential_type": {
			Type:          framework.TypeString,
			Description:   "What a reader gets: pat, a personal access token of one of the accounts; ephemeral_user, one of a user who is made for the lease, and ends with it, for which the config needs an admin credential; oauth2, an access token of a service account; cloud_api_token, an API token of a service account of Jira Cloud.",
			Default:       credentialTypePAT,
			AllowedValues: credentialTypes(),
		},
		"scopes": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Scopes of an oauth2 access token, or of a cloud_api_token, of those that its account has. A Jira that grants more than was asked for is refused. Omitted: the account's.",
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
	})
}

// userFields are those of what an ephemeral_user is given.
func userFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
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
