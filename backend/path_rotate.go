package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
)

// rotating declares a path that rotates something when it is written to.
func (b *backend) rotating(pattern, what, verb, suffix, help string, fields map[string]*framework.FieldSchema, rotate framework.OperationFunc) *framework.Path {
	return &framework.Path{
		Pattern:      pattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       fields,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.edge(rotate),
				Summary:                     "Rotate " + what + ".",
				Examples:                    []framework.RequestExample{{Description: "Rotate " + what + ".", Data: map[string]any{}}},
				Responses:                   written(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: verb, OperationSuffix: suffix},
			},
		},
		HelpSynopsis:    "Rotate " + what + ".",
		HelpDescription: strings.TrimSpace(help),
	}
}

func (b *backend) pathRotateRoot() *framework.Path {
	return b.rotating("rotate-root", "the config's admin credential", "rotate", "root", `
Replaces what the engine logs in with as the config's administrator: a token by
minting the next one with it, a password by setting another, which the config's
password_policy makes. Nobody is told the new one. The last token is ended when the
config's overlap is over.

    vault write -f jira/rotate-root

Rotated before it is finished, or interrupted, it goes on from where it was.
`, nil, func(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
		c, err := b.loadConfig(ctx)
		if err != nil {
			return nil, err
		}
		if c.cloud() {
			return nil, fault.Userf("no documented call rotates an organisation's API key: make another one in Atlassian's administration, and write it to config as token")
		}
		warnings, err := b.rotate(ctx, readerOf(req), &keeper{b: b, name: adminAccount, account: adminAccount})
		return warned(warnings), err
	})
}

func (b *backend) pathRotateAccount() *framework.Path {
	return b.rotating("rotate-account/(?P<name>[^/]+)", "an account's credential", "rotate", "account-credential", `
Replaces what the engine logs in with as an account: a token by minting the next one
with it, a password by setting another. Nobody is told the new one. The last token is
ended when the account's overlap is over; one that the engine was given only if its
own_token_id is known.

    vault write -f jira/rotate-account/ci-bot

A client secret, of type=oauth2, cannot be rotated by any documented call.
`, map[string]*framework.FieldSchema{"name": nameField("account")}, func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		name, err := nameIn(d, "an account")
		if err != nil {
			return nil, err
		}
		a, err := b.loadAccount(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := a.ofType().cannotRotate(name); err != nil {
			return nil, err
		}
		warnings, err := b.rotate(ctx, readerOf(req), &keeper{b: b, name: name, account: name})
		return warned(warnings), err
	})
}

func (b *backend) pathRotateRole() *framework.Path {
	return b.rotating("rotate-role/(?P<name>[^/]+)", "a static role's token", "rotate", "static-role", `
Replaces the token that a static role hands out, before it is due. The last one goes
on working until the role's overlap is over.

    vault write -f jira/rotate-role/legacy
`, map[string]*framework.FieldSchema{"name": nameField("static role")}, func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		name, err := nameIn(d, "a static role")
		if err != nil {
			return nil, err
		}
		if _, err := b.loadStaticRole(ctx, name); err != nil {
			return nil, err
		}
		warnings, err := b.rotate(ctx, readerOf(req), &keeper{b: b, name: staticName(name), role: name})
		return warned(warnings), err
	})
}
