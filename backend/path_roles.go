package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// credentialTypePAT is a role that hands out personal access tokens, the only
// type so far.
const credentialTypePAT = "pat"

// role is what a reader gets, as it is stored.
type role struct {
	CredentialType string   `json:"credential_type"`
	Accounts       []string `json:"accounts"`
	TTL            int      `json:"ttl"`        // seconds; 0: the mount's
	MaxTTL         int      `json:"max_ttl"`    // seconds; 0: the mount's
	MaxLeases      int      `json:"max_leases"` // 0: as many as the accounts can hold
}

func (b *backend) pathRoles() *framework.Path {
	fields := map[string]*framework.FieldSchema{
		"name": nameField("role"),
		"credential_type": {
			Type:          framework.TypeString,
			Description:   "What a reader gets: pat, a personal access token of one of the accounts.",
			Default:       credentialTypePAT,
			AllowedValues: []any{credentialTypePAT},
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
			Description: "How many credentials of the role there may be at a time. One counts until it is proven gone from Jira, which can be a while after its lease. Omitted or 0: as many as the accounts can hold.",
		},
		"max_ttl": {
			Type:        framework.TypeDurationSecond,
			Description: "How long a lease can last with all its renewals. Omitted: the mount's maximum. At least half a minute shorter than max_token_days of the config.",
		},
	}
	return &framework.Path{
		Pattern:        "roles/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:         fields,
		ExistenceCheck: exists(rolesPrefix),
		Operations: b.operations(resource{
			suffix: "role",
			what:   "a role",
			read:   b.readRole, write: b.writeRole, remove: b.deleteRole,
			answer: answerFields(fields, map[string]*framework.FieldSchema{
				"effective_ttl":     {Type: framework.TypeDurationSecond, Description: "What ttl comes to with the limits of the role, the mount and the system."},
				"effective_max_ttl": {Type: framework.TypeDurationSecond, Description: "What max_ttl comes to with the limits of the role, the mount, the system and max_token_days."},
			}, "name"),
			request: map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_ttl": "24h"},
			change:  map[string]any{"max_ttl": "8h"},
			example: map[string]any{
				"credential_type": "pat", "accounts": []string{"ci-bot"}, "ttl": 3600, "max_ttl": 86400, "max_leases": 0,
				"effective_ttl": 3600, "effective_max_ttl": 86400,
			},
		}),
		HelpSynopsis: "What readers of creds/<role> get.",
		HelpDescription: strings.TrimSpace(`
A role names the accounts whose tokens it hands out, and how long a lease lasts.

    vault write jira/roles/readonly accounts=ci-bot ttl=1h max_ttl=24h

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
	if change(f, "ttl", &r.TTL) && r.TTL == 0 && f.Raw["ttl"] != nil {
		return mistakef("ttl must be more than zero; leave it out for the mount's")
	}
	if change(f, "max_ttl", &r.MaxTTL) && r.MaxTTL == 0 && f.Raw["max_ttl"] != nil {
		return mistakef("max_ttl must be more than zero; leave it out for the mount's")
	}
	return nil
}

// validate refuses what cannot work. The longest life of a token is in days.
func (r *role) validate(maxTokenDays int) error {
	switch {
	case r.CredentialType != credentialTypePAT:
		return mistakef("credential_type %q is not known: write pat", r.CredentialType)
	case len(r.Accounts) == 0:
		return mistakef("accounts is missing: the names of the accounts to mint for")
	case r.MaxLeases < 0:
		return mistakef("max_leases must be 1 or more, or 0 for as many as the accounts can hold")
	case r.TTL < 0 || r.MaxTTL < 0:
		return mistakef("ttl and max_ttl must be more than zero")
	case r.MaxTTL > 0 && r.TTL > r.MaxTTL:
		return mistakef("ttl %v is more than max_ttl %v", time.Duration(r.TTL)*time.Second, time.Duration(r.MaxTTL)*time.Second)
	case r.MaxTTL > maxTokenDays*24*3600-int(ledger.Grace/time.Second):
		return mistakef("max_ttl %v needs a token of %d days, with half a minute to spare, and max_token_days of the config is %d", time.Duration(r.MaxTTL)*time.Second, days(time.Duration(r.MaxTTL)*time.Second), maxTokenDays)
	}
	for i, name := range r.Accounts {
		if slices.Contains(r.Accounts[:i], name) {
			return mistakef("accounts names %q twice", name)
		}
	}
	return nil
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
func (b *backend) maxTokenDays(ctx context.Context, s logical.Storage) (int, error) {
	c, err := load[config](ctx, &b.decoded, s, configKey)
	if err != nil {
		return 0, err
	}
	if c == nil {
		return defaultMaxTokenDays, nil
	}
	return c.MaxTokenDays, nil
}

func (b *backend) loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	r, err := load[role](ctx, &b.decoded, s, rolesPrefix+name)
	if err == nil && r == nil {
		return nil, mistakef("there is no role %q", name)
	}
	return r, err
}

// rolesOf returns the names of the roles that name an account.
func (b *backend) rolesOf(ctx context.Context, s logical.Storage, account string) ([]string, error) {
	names, err := s.List(ctx, rolesPrefix)
	if err != nil {
		return nil, err
	}
	var of []string
	for _, name := range names {
		r, err := load[role](ctx, &b.decoded, s, rolesPrefix+name)
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
	b.resources.Lock()
	defer b.resources.Unlock()
	before, err := load[role](ctx, &b.decoded, req.Storage, rolesPrefix+name)
	if err != nil {
		return nil, err
	}
	r := &role{}
	if before != nil {
		*r = *before
	}
	if before == nil && req.Operation == logical.PatchOperation {
		return nil, mistakef("there is no role %q to patch: write it first", name)
	}
	if err := r.update(fields{d, before == nil}); err != nil {
		return nil, err
	}
	longest, err := b.maxTokenDays(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if err := r.validate(longest); err != nil {
		return nil, err
	}
	for _, account := range r.Accounts {
		if err := checkName("an account", account); err != nil {
			return nil, err
		}
		if _, err := b.loadAccount(ctx, req.Storage, account); err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
	}
	if err := store(ctx, req.Storage, rolesPrefix+name, r); err != nil {
		return nil, err
	}
	b.log(req).Info("role written", "role", name, "accounts", r.Accounts)
	_, warnings, err := b.terms(r, longest, 0)
	return warned(warnings), err
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	r, err := load[role](ctx, &b.decoded, req.Storage, rolesPrefix+name)
	if err != nil || r == nil {
		return nil, err
	}
	longest, err := b.maxTokenDays(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	t, warnings, err := b.terms(r, longest, 0)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Warnings: warnings, Data: map[string]any{
		"credential_type":   r.CredentialType,
		"accounts":          r.Accounts,
		"ttl":               r.TTL,
		"max_ttl":           r.MaxTTL,
		"max_leases":        r.MaxLeases,
		"effective_ttl":     seconds(t.ttl),
		"effective_max_ttl": seconds(t.max),
	}}, nil
}

func (b *backend) listRoles(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return list(ctx, &b.decoded, req.Storage, rolesPrefix, func(_ string, r *role) map[string]any {
		return map[string]any{
			"credential_type": r.CredentialType,
			"accounts":        r.Accounts,
			"ttl":             r.TTL,
			"max_ttl":         r.MaxTTL,
			"max_leases":      r.MaxLeases,
		}
	})
}

func (b *backend) deleteRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	b.resources.Lock()
	defer b.resources.Unlock()
	return nil, remove(ctx, &b.decoded, req.Storage, rolesPrefix+name)
}
