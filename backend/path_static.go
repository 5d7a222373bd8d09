package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// staticRole is a token of an account for consumers that cannot hold a lease, as it
// is stored: one at a time, which the engine replaces (keep.go).
type staticRole struct {
	Account string `json:"account"`
	credential
}

func (b *backend) pathStaticRoles() *framework.Path {
	fields := map[string]*framework.FieldSchema{
		"name": nameField("static role"),
		"account": {
			Type:        framework.TypeString,
			Description: "Name of the account whose token it is, of type=user. It cannot be changed.",
		},
	}
	maps.Copy(fields, rotationFields())
	example := rotationExample()
	example["account"], example["username"] = "ci-bot", "ci-bot"
	return &framework.Path{
		Pattern:        "static-roles/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:         fields,
		ExistenceCheck: b.exists(staticRolesPrefix),
		Operations: b.operations(resource{
			suffix: "static-role",
			event:  "static-role",
			what:   "a static role",
			read:   b.readStaticRole, write: b.writeStaticRole, remove: b.deleteStaticRole,
			forwardReads: true, // only the active node knows what has failed
			answer: answerFields(fields, merged(rotationAnswer(), map[string]*framework.FieldSchema{
				"username": {Type: framework.TypeString, Description: "The Jira user that the token is."},
			}), "name"),
			request: map[string]any{"account": "ci-bot", "rotation_period": "720h"},
			change:  map[string]any{"rotation_period": "168h"},
			example: example,
		}),
		HelpSynopsis: "One long-lived token, which the engine replaces.",
		HelpDescription: strings.TrimSpace(`
For consumers that cannot hold a lease: a token of an account that everybody who
reads static-creds/<name> is told, and that is replaced on a period or a schedule.

    vault write jira/static-roles/legacy account=ci-bot rotation_period=720h
    vault read jira/static-creds/legacy

After a rotation the last token goes on working until overlap is over, so a consumer
that reads again within that time never meets a token that is dead. It takes one of
the account's places, and a second one meanwhile. To delete the role ends its tokens.
`),
	}
}

func (b *backend) pathListStaticRoles() *framework.Path {
	return &framework.Path{
		Pattern:      "static-roles/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: b.listing("static-roles", "the static roles", true, b.listStaticRoles, []string{"legacy"}, map[string]any{
			"legacy": map[string]any{"account": "ci-bot", "last_rotated": "2026-03-02T08:15:09Z", "next_rotation": "2026-04-01T08:15:09Z"},
		}),
		HelpSynopsis:    "List the static roles.",
		HelpDescription: "Lists the names of the static roles, with the account of each, and when it is rotated.",
	}
}

func (b *backend) pathStaticCreds() *framework.Path {
	return &framework.Path{
		Pattern:      "static-creds/(?P<name>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       map[string]*framework.FieldSchema{"name": nameField("static role")},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.edge(b.readStaticCreds),
				Summary:  "Read the token of a static role.",
				Responses: answered(map[string]*framework.FieldSchema{
					"token":               {Type: framework.TypeString, Required: true, Description: "The token that is in use.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
					"token_type":          {Type: framework.TypeString, Required: true, Description: "How to send it: Bearer, in the Authorization header."},
					"token_id":            {Type: framework.TypeString, Required: true, Description: "Jira's id of the token."},
					"username":            {Type: framework.TypeString, Required: true, Description: "The Jira user that the token is."},
					"url":                 {Type: framework.TypeString, Required: true, Description: "Address of Jira to call with it."},
					"ttl":                 {Type: framework.TypeDurationSecond, Required: true, Description: "How long until the next rotation; 0 where it is under way, or there is none to come. The token works for overlap longer."},
					"last_vault_rotation": {Type: framework.TypeString, Required: true, Description: "When it was made, RFC 3339 in UTC."},
					"expires_at":          {Type: framework.TypeString, Required: true, Description: "When Jira itself would end it, likewise. Empty if never."},
				}, &logical.Response{Data: map[string]any{ //nolint:gosec // a sample, which no Jira knows
					"token": "MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs", "token_type": "Bearer", "token_id": "412",
					"username": "ci-bot", "url": "https://jira.example.com", "ttl": 2591991,
					"last_vault_rotation": "2026-03-02T08:15:09Z", "expires_at": "2026-05-01T08:20:09Z",
				}}),
				ForwardPerformanceStandby:   true, // a standby may be behind
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "static-role-credentials"},
			},
		},
		HelpSynopsis:    "Read the token of a static role.",
		HelpDescription: "Answers with the token in use, without a lease: read again within ttl, and at the latest overlap after it.",
	}
}

func (b *backend) loadStaticRole(ctx context.Context, name string) (*staticRole, error) {
	r, err := load[staticRole](ctx, &b.decoded, b.storage, staticRolesPrefix+name)
	if err == nil && r == nil {
		return nil, fault.Userf("there is no static role %q", name)
	}
	return r, err
}

// writeStaticRole stores a static role. One that is new, and one whose token was
// not made when it was, gets its token before the write is answered.
func (b *backend) writeStaticRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a static role")
	if err != nil {
		return nil, err
	}
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	isNew := false
	have, err := load[staticRole](ctx, &b.decoded, b.storage, staticRolesPrefix+name)
	if err != nil {
		return nil, err
	}
	rotate := b.rotate
	if have == nil { // from now on, lest the worker sees first that it has no token
		rotate = b.rotateBegun
		if !b.rotations.begin(staticName(name)) {
			return nil, fault.Unavailable("it is being written this moment: try again")
		}
		defer b.rotations.end(staticName(name))
	}
	err = revise(ctx, b, staticRolesPrefix+name, fmt.Sprintf("static role %q", name), isPatch(req), func(r, before *staticRole) (agrees func() (bool, error), err error) {
		isNew = before == nil
		f := fields{d, before == nil}
		change(f, "account", &r.Account)
		r.schedule.update(f)
		r.begun(b.now())
		if err := b.validateStatic(ctx, name, before, r); err != nil {
			return nil, err
		}
		return func() (bool, error) { return true, b.takeUser(ctx, name, r) }, nil
	})
	if err != nil {
		return nil, err
	}
	r, err := b.loadStaticRole(ctx, name)
	if err != nil {
		return nil, err
	}
	var warnings []string
	if r.Token == "" {
		warnings, err = rotate(ctx, readerOf(req), &keeper{b: b, name: staticName(name), role: name})
	}
	if err != nil {
		if isNew { // nothing is left of a write that failed; what may be made is in the ledger
			if e := b.dropStaticRole(ctx, name); e != nil {
				err = errors.Join(err, e)
			}
		}
		return nil, err
	}
	b.rotations.rouse()
	b.log().Info("static role written", "static_role", name, "account", r.Account)
	return warned(warnings), nil
}

// validateStatic refuses what cannot be static role name.
func (b *backend) validateStatic(ctx context.Context, name string, before, r *staticRole) error {
	switch {
	case r.Account == "":
		return fault.Userf("account is missing: the name of the account whose token it is")
	case before != nil && before.Account != r.Account:
		return fault.Userf("the account of static role %q is %q and cannot be changed: delete it, and write it anew", name, before.Account)
	case r.RotationPeriod == 0 && r.RotationSchedule == "":
		return fault.Userf("rotation_period or rotation_schedule is missing: when the token is replaced")
	}
	if err := r.schedule.validate(); err != nil {
		return err
	}
	longest, err := b.maxTokenDays(ctx)
	if err != nil {
		return err
	}
	if most := time.Duration(longest) * 24 * time.Hour; time.Duration(r.RotationPeriod)*time.Second+r.overlap() > most-ledger.Grace {
		return fault.Userf("rotation_period and overlap together are longer than a token can live, which is max_token_days of the config: %d", longest)
	}
	return nil
}

// takeUser makes the user of r's account that of r, which is called name. It refuses an
// account that cannot have it. The caller holds b.resources.
func (b *backend) takeUser(ctx context.Context, name string, r *staticRole) error {
	a, err := b.loadAccount(ctx, r.Account)
	if err != nil {
		return err
	}
	if !a.traits().personal {
		return fault.Userf("account %q is of type %s, and a static role needs one of type %s", r.Account, a.Type, accountTypeUser)
	}
	if err := a.mayBeUsedBy(r.Account, staticName(name)); err != nil {
		return err
	}
	r.Username, r.UserKey = a.Username, a.UserKey
	return nil
}

// dropStaticRole removes a static role. The tokens that were its are ended by
// whoever next sees that nobody keeps them.
func (b *backend) dropStaticRole(ctx context.Context, name string) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	b.resources.Lock()
	defer b.resources.Unlock()
	return remove(ctx, &b.decoded, b.storage, staticRolesPrefix+name)
}

func (b *backend) deleteStaticRole(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a static role")
	if err != nil {
		return nil, err
	}
	r, err := load[staticRole](ctx, &b.decoded, b.storage, staticRolesPrefix+name)
	if err != nil || r == nil {
		return nil, err
	}
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	if !b.rotations.begin(staticName(name)) {
		return nil, fault.Unavailable("it is being rotated this moment: try again")
	}
	err = b.dropStaticRole(ctx, name)
	b.rotations.end(staticName(name))
	if err != nil {
		return nil, err
	}
	// Whatever fails from here on the worker does: nobody keeps the tokens.
	if err := b.tendRecords(ctx, r.Account); err != nil {
		return nil, err
	}
	b.settleAccounts(ctx, false, r.Account)
	if left := len(b.ledger.Page(ledger.Filter{Account: r.Account, Role: staticName(name)}, "", mostPage)); left > 0 {
		return warned([]string{fmt.Sprintf("%d tokens of it are not proven gone from Jira yet: the engine goes on trying", left)}), nil
	}
	return nil, nil
}

func (b *backend) readStaticRole(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a static role")
	if err != nil {
		return nil, err
	}
	r, err := load[staticRole](ctx, &b.decoded, b.storage, staticRolesPrefix+name)
	if err != nil || r == nil {
		return nil, err
	}
	data := b.rotationData(&r.schedule, &r.rotated, staticName(name))
	data["account"], data["username"] = r.Account, r.Username
	return &logical.Response{Data: data}, nil
}

func (b *backend) listStaticRoles(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return list(ctx, &b.decoded, b.storage, staticRolesPrefix, func(name string, r *staticRole) map[string]any {
		data := b.rotationData(&r.schedule, &r.rotated, staticName(name))
		return map[string]any{"account": r.Account, "last_rotated": data["last_rotated"], "next_rotation": data["next_rotation"]}
	})
}

func (b *backend) readStaticCreds(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a static role")
	if err != nil {
		return nil, err
	}
	r, err := b.loadStaticRole(ctx, name)
	if err != nil {
		return nil, err
	}
	if r.Token == "" {
		return nil, fault.Unavailable(fmt.Sprintf("static role %q has no token yet: read it, last_error tells why", name))
	}
	a, err := b.loadAccount(ctx, r.Account)
	if err != nil {
		return nil, err
	}
	if err := a.mayBeUsedBy(r.Account, staticName(name)); err != nil {
		return nil, err
	}
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	now := b.now()
	ttl := time.Duration(0)
	if due := r.due(&r.rotated, now); due.After(now) {
		ttl = due.Sub(now)
	}
	return &logical.Response{Data: map[string]any{
		"token": r.Token, "token_type": "Bearer", "token_id": r.TokenID,
		"username": r.Username, "url": c.URL, "ttl": seconds(ttl),
		"last_vault_rotation": unix(r.RotatedAt), "expires_at": unix(r.Expires),
	}}, nil
}
