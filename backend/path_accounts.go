package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
)

// accountFields are the fields of an account in a request.
func accountFields() map[string]*framework.FieldSchema {
	fields := credentialFields("the user")
	maps.Copy(fields, serviceFields())
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"name":                nameField("account"),
		"force":               forceField(),
		"confirm_destination": confirmField("token_url or revocation_url"),
		"type": {
			Type:          framework.TypeString,
			Description:   "What the account is: user, a Jira user; oauth2, a service account of Jira 11 or newer or of Jira Cloud, for access tokens; cloud_api_token, a service account of Jira Cloud, for API tokens. It cannot be changed.",
			Default:       accountTypeUser,
			AllowedValues: accountTypes(),
		},
		"account_id": {
			Type:        framework.TypeString,
			Description: "Of type=cloud_api_token: the service account's id at Atlassian. Its API tokens are made and ended with the config's token, an API key of the organisation.",
		},
		"fallback_password": {
			Type:         framework.TypeString,
			Description:  "Password of the user, for an account that has a token: the engine logs in with it while Jira refuses the token, for example because somebody deleted it. It is not rotated. Null removes it. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"max_tokens": {
			Type:        framework.TypeInt,
			Description: "How many tokens Jira lets the user own (its property atlassian.pats.max.tokens.per.user). One that the engine logs in with, and one kept for its replacement, come out of it.",
			Default:     10,
		},
		"allow_admin": {
			Type:        framework.TypeBool,
			Description: "Accept a user who administers Jira. Whoever reads a role of this account is then an administrator.",
		},
		"exclusive": {
			Type:        framework.TypeBool,
			Description: "All tokens of the user are the engine's: whatever it did not make itself is deleted with each revoke and each tidy, for a reader may have made it with his token. Needs a password, or a token that the engine minted itself (rotate-account first), for it could not tell one that it was given from the others.",
		},
	})
	fields["allowed_roles"] = rolesField("Names of the roles that may use the account; of a static role static/ and its name. Asked when a role is written, and at each read. Defaults to *, all roles.")
	fields["allowed_roles"].Default = []string{everyRole}
	maps.Copy(fields, rotationFields())
	return fields
}

// serviceFields are those of a service account.
func serviceFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"client_id": {
			Type:        framework.TypeString,
			Description: "Client id of a service account.",
		},
		"client_secret": {
			Type:         framework.TypeString,
			Description:  "Client secret of a service account. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"token_url": {
			Type:        framework.TypeString,
			Description: "Where a service account asks for access tokens. Omitted: /rest/oauth2/latest/token of the site, or " + cloudTokenURL + " with deployment=cloud.",
		},
		"revocation_url": {
			Type:        framework.TypeString,
			Description: "Where access tokens can be revoked, after RFC 7009, if anywhere. Without it they end by themselves alone. Each revoke is proven with the token.",
		},
		"scopes": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Scopes to ask for: READ and WRITE on Data Center, read:jira-work and the like on Cloud, where the credential itself has them. More than these is never handed out. Omitted: what the service account has; of type=cloud_api_token, what the role names.",
		},
	}
}

func (b *backend) pathAccounts() *framework.Path {
	fields := accountFields()
	return &framework.Path{
		Pattern:        "accounts/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:         fields,
		ExistenceCheck: b.exists(accountsPrefix),
		Operations: b.operations(resource{
			suffix: "account",
			event:  "account",
			what:   "an account",
			read:   b.readAccount, write: b.writeAccount, remove: b.deleteAccount,
			forwardReads: true, // only the active node knows what is held
			answer: answerFields(fields, merged(rotationAnswer(), map[string]*framework.FieldSchema{
				"credential_kind": {Type: framework.TypeString, Description: "What the engine logs in with: token or password."},
				"review_finding":  {Type: framework.TypeString, Description: "What the last daily review found: the user deactivated, renamed or promoted, or the credential refused. Empty if nothing."},
				"reviewed_at":     {Type: framework.TypeString, Description: "When that was, RFC 3339 in UTC. Empty before the first."},
				"user_key":        {Type: framework.TypeString, Description: "Jira's own key of the user, which survives a rename."},
				"held":            {Type: framework.TypeInt, Description: "How many tokens of leases the account holds."},
				"has_fallback":    {Type: framework.TypeBool, Description: "The account has a fallback_password."},
				"room":            {Type: framework.TypeInt, Description: "How many more it can hold; -1 of a service account, which knows no end."},
			}), "name", "token", "password", "fallback_password", "client_secret", "force", "confirm_destination"),
			request: map[string]any{"username": "ci-bot", "token": "@token"},
			change:  map[string]any{"max_tokens": 20},
			example: merged(rotationExample(), map[string]any{
				"type": "user", "username": "ci-bot", "user_key": "JIRAUSER10100", "credential_kind": "token",
				"max_tokens": 10, "held": 3, "room": 5, "has_fallback": false, "allow_admin": false, "exclusive": false, "allowed_roles": []string{"*"}, "own_token_id": "401", "account_id": "",
				"review_finding": "", "reviewed_at": "2026-03-02T08:15:09Z",
				"client_id": "", "token_url": "", "revocation_url": "", "scopes": []string{},
			}),
		}),
		HelpSynopsis:    "The Jira users that tokens are minted for.",
		HelpDescription: strings.TrimSpace(accountsHelp),
	}
}

const accountsHelp = `
A personal access token is the whole user: his groups, his roles, all he may do.
So the account is the scope of the tokens that a role hands out. Give the engine
users made for the purpose, and each of them one of:

    vault write jira/accounts/ci-bot username=ci-bot token=@token
    vault write jira/accounts/ci-bot username=ci-bot password=@password

The write is checked against Jira: the credential works and belongs to the user,
who is active, is no administrator of Jira unless allow_admin is set, and no
other account's, and whose tokens can be listed. A credential that Jira has refused
is not used again until it is written once more. A write of max_tokens,
allowed_roles or when to rotate asks Jira nothing.

A service account, of Jira 11 or newer or of Jira Cloud, is no user. It asks for
access tokens, which end by themselves within an hour or so:

    vault write jira/accounts/reporting type=oauth2 client_id=... client_secret=@secret scopes=READ

On Jira Cloud it can have API tokens, which end with their leases, where the config
has allow_undocumented_api and an API key of the organisation:

    vault write jira/accounts/ci type=cloud_api_token account_id=712020:...

An account cannot be deleted while roles name it, nor be deleted or be given to
another user while tokens of it are alive: the error says how to end them, and
force=true on a delete ends them first.
`

func (b *backend) pathListAccounts() *framework.Path {
	return &framework.Path{
		Pattern:      "accounts/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: b.listing("accounts", "the accounts", true, b.listAccounts, []string{"ci-bot"}, map[string]any{
			"ci-bot": map[string]any{"type": "user", "username": "ci-bot", "credential_kind": "token", "max_tokens": 10, "held": 3, "room": 5},
		}),
		HelpSynopsis:    "List the accounts.",
		HelpDescription: "Lists the names of the accounts, with the user, the kind of credential and the tokens held of each.",
	}
}

func (b *backend) writeAccount(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "an account")
	if err != nil {
		return nil, err
	}
	var warnings []string
	var stale string
	err = revise(ctx, b, accountsPrefix+name, fmt.Sprintf("account %q", name), isPatch(req), func(a, before *account) (agrees func() (bool, error), err error) {
		if stale, err = a.update(fields{d, before == nil}); err != nil {
			return nil, err
		}
		if err := a.validate(); err != nil {
			return nil, err
		}
		a.begun(b.now())
		if before != nil && before.Type != a.Type {
			return nil, fault.Userf("the type of account %q is %s and cannot be changed: delete it, and write it anew", name, before.Type)
		}
		c, err := b.loadConfig(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.secretStays(before, a, d); err != nil {
			return nil, err
		}
		if warnings, err = b.verifyAccount(ctx, c, name, before, a, sentCredential(d, stale)); err != nil {
			return nil, err
		}
		moves := before != nil && a.ofType().moves(a, before)
		var moved []string
		if moves {
			if moved, err = b.movesToUser(ctx, c, name, a); err != nil {
				return nil, err
			}
		}
		return func() (bool, error) {
			now, err := b.loadConfig(ctx)
			if err != nil || *now != *c { // it was checked against another Jira
				return false, err
			}
			if err := b.userIsFree(ctx, now, name, a); err != nil {
				return false, err
			}
			return !moves || slices.Equal(moved, b.withOwn(name)) && b.logsInWithItsOwn(name) == nil, nil
		}, nil
	})
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, notTaken(stale)...)
	if sentCredential(d, stale) {
		b.rotations.judge(name, nil, b.now()) // what failed was of another
		b.sites.forget(name)                  // so that a login which Jira had refused is tried again
	}
	b.checks.forget(name)
	b.rouse()
	b.log().Info("account written", "account", name)
	return warned(warnings), nil
}

// movesToUser returns the records of account name, and fails unless a's user, who is another
// than before, has what they are of.
func (b *backend) movesToUser(ctx context.Context, c *config, name string, a *account) (found []string, err error) {
	if err := b.logsInWithItsOwn(name); err != nil {
		return nil, err
	}
	b.settleAccounts(ctx, true, name)
	if found, err = b.aliveAt(ctx, c, name, a); err != nil {
		return nil, fmt.Errorf("the user cannot be changed: %w", err)
	}
	return found, nil
}

// logsInWithItsOwn refuses another user for an account, or for the config's admin,
// of whom the ledger has tokens that the engine minted for itself: nobody else can
// end them.
func (b *backend) logsInWithItsOwn(name string) error {
	if err := b.ledgerIsWhole(); err != nil {
		return err
	}
	if len(b.ledger.Own(name)) > 0 {
		return fault.Userf("the user cannot be changed: the engine has minted tokens of his to log in with, which only he can end; write a password or another token of his first, and try again when they are ended")
	}
	return nil
}

// userIsFree refuses a user who is the config's own or another account's. The
// caller holds b.resources.
func (b *backend) userIsFree(ctx context.Context, c *config, name string, a *account) error {
	if a.sameUser(&c.Admin) {
		return fault.Userf("user %q is the config's own: an account needs a user of its own", a.Username)
	}
	other, err := b.accountOf(ctx, &a.credential, name)
	if err != nil {
		return err
	}
	if other != "" {
		return fault.Userf("user %q is account %q already", a.Username, other)
	}
	return nil
}

func (b *backend) readAccount(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "an account")
	if err != nil {
		return nil, err
	}
	a, err := load[account](ctx, &b.decoded, b.storage, accountsPrefix+name)
	if err != nil || a == nil {
		return nil, err
	}
	found, at, err := b.finding(ctx, func(v *review) map[string]string { return v.Accounts }, name)
	if err != nil {
		return nil, err
	}
	data := b.rotationData(&a.schedule, &a.rotated, name)
	maps.Copy(data, map[string]any{
		"review_finding":  found,
		"reviewed_at":     at,
		"type":            a.Type,
		"username":        a.Username,
		"user_key":        a.UserKey,
		"credential_kind": a.kind(),
		"max_tokens":      a.MaxTokens,
		"allow_admin":     a.AllowAdmin,
		"exclusive":       a.Exclusive,
		"allowed_roles":   strings.Fields(a.allowedRoles()),
		"own_token_id":    a.OwnTokenID,
		"account_id":      a.AccountID,
		"held":            b.ledger.Held(name),
		"has_fallback":    a.FallbackPassword != "",
		"room":            b.room(name, a),
		"client_id":       a.ClientID,
		"token_url":       a.TokenURL,
		"revocation_url":  a.RevocationURL,
		"scopes":          append([]string{}, strings.Fields(a.Scopes)...),
	})
	return &logical.Response{Data: data}, nil
}

// room is how many more tokens the account can hold, -1 where there is no end.
func (b *backend) room(name string, a *account) int {
	if a.traits().expiresOnly {
		return -1
	}
	return max(a.places()-b.ledger.Held(name), 0)
}

func (b *backend) listAccounts(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return list(ctx, &b.decoded, b.storage, accountsPrefix, func(name string, a *account) map[string]any {
		return map[string]any{
			"type":            a.Type,
			"username":        a.Username,
			"credential_kind": a.kind(),
			"max_tokens":      a.MaxTokens,
			"held":            b.ledger.Held(name),
			"room":            b.room(name, a),
		}
	})
}

func (b *backend) deleteAccount(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "an account")
	if err != nil {
		return nil, err
	}
	if err := b.namedByNoRole(ctx, name); err != nil { // or force would end its tokens for nothing
		return nil, fmt.Errorf("account %q cannot be deleted: %w", name, err)
	}
	force := forced(d)
	if err := b.clear(ctx, force, name); err != nil {
		return nil, err
	}
	warnings, err := b.removeReleased(ctx, force, name, name, accountsPrefix+name)
	if err != nil {
		return nil, fmt.Errorf("account %q cannot be deleted: %w", name, err)
	}
	b.sites.forget(name)
	b.rouse()
	return warned(warnings), nil
}

// namedByNoRole refuses an account that roles name.
func (b *backend) namedByNoRole(ctx context.Context, name string) error {
	roles, err := b.rolesOf(ctx, name)
	if err != nil {
		return err
	}
	if len(roles) > 0 {
		return fault.Userf("roles name it: %s; take it out of them, or delete them, first", strings.Join(roles, ", "))
	}
	static, err := b.storage.List(ctx, staticRolesPrefix)
	if err != nil {
		return err
	}
	for _, role := range static {
		r, err := load[staticRole](ctx, &b.decoded, b.storage, staticRolesPrefix+role)
		if err != nil {
			return err
		}
		if r != nil && r.Account == name {
			return fault.Userf("static role %q hands out a token of it: delete that first", role)
		}
	}
	return nil
}
