package backend

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func configFields() map[string]*framework.FieldSchema {
	fields := credentialFields("a Jira administrator")
	maps.Copy(fields, rotationFields())
	maps.Copy(fields, wayFields())
	maps.Copy(fields, map[string]*framework.FieldSchema{
		"force":               forceField(),
		"confirm_destination": confirmField("where they go: the scheme, host or port of url, proxy_url, ca_cert, tls_server_name, tls_skip_verify or deployment"),
		"url": {
			Type:        framework.TypeString,
			Description: "Address of Jira with its context path, if it has one. https, unless the host is loopback or allow_http is set.",
		},
		"request_timeout": {
			Type:        framework.TypeDurationSecond,
			Description: "How long one call to Jira may take, 1s to 20s. A command may call more than once.",
			Default:     10,
		},
		"max_concurrent_requests": {
			Type:        framework.TypeInt,
			Description: "How many calls to Jira may be under way at a time, 1 to 100.",
			Default:     10,
		},
		"max_token_days": {
			Type:        framework.TypeInt,
			Description: "Longest life of a token in days that Jira allows (its property atlassian.pats.max.tokens.expiry.days). No lease outlives it.",
			Default:     defaultMaxTokenDays,
		},
		"verify_connection": {
			Type:        framework.TypeBool,
			Description: "Ask Jira whether the configuration works before it is stored. With false a write calls nobody.",
			Default:     true,
		},
		"deployment": {
			Type:          framework.TypeString,
			Description:   "What the site is: datacenter (Jira Data Center or Server), or cloud.",
			Default:       deploymentDataCenter,
			AllowedValues: []any{deploymentDataCenter, deploymentCloud},
		},
		"cloud_id": {
			Type:        framework.TypeString,
			Description: "With deployment=cloud: the site's id behind Atlassian's gateway, a UUID. Omitted: what the site says.",
		},
		"allow_undocumented_api": {
			Type:        framework.TypeBool,
			Description: "With deployment=cloud: make API tokens of service accounts by a call that Atlassian does not document, with token, an API key of the organisation that has no scopes.",
		},
		"allow_admin_roles": rolesField("Names of the ephemeral_user roles that may have allow_admin, or be written with verify=false. A write of a role of such a name can make an administrator of Jira. Omitted: none."),
		"other_mount_ids": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Ids of other mounts of the engine that make tokens of the same Jira users: the six characters behind vault- in the names of their tokens. What bears another id, and is not in the ledger, counts as a sibling, because the holder of a token can give a new one any name.",
		},
		"password_policy": {
			Type:        framework.TypeString,
			Description: "Name of Vault's password policy that passwords are made by, of users made for a lease. Empty: 32 characters of four kinds.",
		},
	})
	return fields
}

// wayFields are those that say how Jira is reached, besides url.
func wayFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"ca_cert": {
			Type:        framework.TypeString,
			Description: "PEM certificates of the authorities that may vouch for Jira. Empty: the system's.",
		},
		"client_cert": {
			Type:        framework.TypeString,
			Description: "PEM certificate to show to Jira, or to what stands before it. Needs client_key.",
		},
		"client_key": {
			Type:         framework.TypeString,
			Description:  "PEM private key of client_cert. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"tls_server_name": {
			Type:        framework.TypeString,
			Description: "Name that Jira's certificate must carry, where that is not the host of url.",
		},
		"tls_min_version": {
			Type:          framework.TypeString,
			Description:   "Oldest version of TLS to accept: tls12 or tls13.",
			Default:       "tls12",
			AllowedValues: []any{"tls12", "tls13"},
		},
		"tls_skip_verify": {
			Type:        framework.TypeBool,
			Description: "Accept any certificate. For laboratories only.",
		},
		"allow_http": {
			Type:        framework.TypeBool,
			Description: "Allow plain http to a host that is not loopback. Tokens then cross the network in the clear.",
		},
		"proxy_url": {
			Type:        framework.TypeString,
			Description: "Proxy to reach Jira through: http, https or socks5. Empty: what HTTPS_PROXY and NO_PROXY in the environment of the plugin say. A password in it is never read back.",
		},
	}
}

func (b *backend) pathConfig() *framework.Path {
	fields := configFields()
	return &framework.Path{
		Pattern:        "config",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:         fields,
		ExistenceCheck: b.exists(configKey),
		Operations: b.operations(resource{
			suffix: "configuration",
			event:  "config",
			what:   "the configuration",
			read:   b.readConfig, write: b.writeConfig, remove: b.deleteConfig,
			forwardReads: true, // only the active node knows what has failed
			answer: answerFields(fields, merged(rotationAnswer(), map[string]*framework.FieldSchema{
				"credential_kind": {Type: framework.TypeString, Description: "What the admin's credential is: token, password, or empty for none."},
				"version":         {Type: framework.TypeString, Description: "Version of Jira when the configuration was written; empty where Jira did not say."},
			}), "token", "password", "client_key", "force", "confirm_destination"),
			request: map[string]any{"url": "https://jira.example.com"},
			change:  map[string]any{"request_timeout": "5s"},
			example: merged(rotationExample(), map[string]any{
				"url": "https://jira.example.com", "ca_cert": "", "client_cert": "", "tls_server_name": "",
				"tls_min_version": "tls12", "tls_skip_verify": false, "allow_http": false, "proxy_url": "",
				"request_timeout": 10, "max_concurrent_requests": 10, "max_token_days": 365, "verify_connection": true, "password_policy": "", "other_mount_ids": []string{}, "allow_admin_roles": []string{},
				"deployment": "datacenter", "cloud_id": "", "allow_undocumented_api": false,
				"username": "", "credential_kind": "", "version": "10.3.2", "own_token_id": "",
			}),
		}),
		HelpSynopsis: "The Jira site, and how to reach it.",
		HelpDescription: strings.TrimSpace(`
Where Jira is, how to reach it, and, optionally, an administrator's credential,
which plain tokens do not need. What is given is checked against Jira before it
is stored. A write changes only the fields that it sends.

    vault write jira/config url=https://jira.example.com ca_cert=@ca.pem

The site cannot be changed, nor the configuration be deleted, while there are
tokens in Jira that the engine has to end: the error says how to end them, and
force=true on a delete ends them first.

A stored secret goes only where it was given for. If a write changes where secrets
go, and secrets are stored, give the admin's secret again in the same write. If
accounts have secrets, set confirm_destination=true.
`),
	}
}

func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	// Made before the first token, the mount's id is in every snapshot that has
	// to know our tokens again.
	if _, err := b.mount.get(ctx, &b.decoded, b.storage); err != nil {
		return nil, err
	}
	var warnings, sent []string
	var stale string
	err := revise(ctx, b, configKey, "config", isPatch(req), func(c, before *config) (agrees func() (bool, error), err error) {
		if stale, err = c.update(fields{d, before == nil}); err != nil {
			return nil, err
		}
		if sent, warnings, err = b.checkConfig(ctx, before, c, d, sentCredential(d, stale)); err != nil {
			return nil, err
		}
		mayChange := func() error {
			if before == nil || before.Admin.sameUser(&c.Admin) {
				return nil
			}
			return b.logsInWithItsOwn(adminAccount)
		}
		if err := mayChange(); err != nil {
			return nil, err
		}
		moves, moved, err := b.movesTo(ctx, before, c)
		if err != nil {
			return nil, err
		}
		return func() (bool, error) {
			if sent, err = b.sentTo(ctx, before, c, d); err != nil {
				return false, err
			}
			if err := b.adminIsNoAccount(ctx, c); err != nil {
				return false, err
			}
			if err := mayChange(); err != nil {
				return false, err
			}
			return !moves || slices.Equal(moved, b.withOwn("")), nil
		}, nil
	})
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, notTaken(stale)...)
	if sentCredential(d, stale) {
		b.rotations.judge(adminAccount, nil, b.now()) // what failed was of another
		b.sites.forgetAdmin()                         // so that a login which Jira had refused is tried again
	}
	b.rouse()
	b.log().Info("config written")
	if len(sent) > 0 {
		b.log().Warn("stored secrets go to another destination from now on, as the write confirmed", "of", few(sent))
	}
	return warned(warnings), nil
}

// checkConfig refuses c where it cannot work, asks Jira about it, and tells whose stored
// secrets go elsewhere with it. came tells whether the write d brought a credential.
func (b *backend) checkConfig(ctx context.Context, before, c *config, d *framework.FieldData, came bool) (sent, warnings []string, err error) {
	if err := c.validate(); err != nil {
		return nil, nil, err
	}
	if err := b.validateOthers(ctx, c); err != nil {
		return nil, nil, err
	}
	c.Admin.begun(b.now())
	if _, err := b.password(ctx, c); err != nil {
		return nil, nil, err
	}
	if sent, err = b.sentTo(ctx, before, c, d); err != nil {
		return nil, nil, err
	}
	warnings, err = b.verifyConfig(ctx, before, c, came)
	return sent, warnings, err
}

// movesTo tells whether c is of another Jira than before, and the records of what was found
// there. It fails where anything is held that is not.
func (b *backend) movesTo(ctx context.Context, before, c *config) (moves bool, found []string, err error) {
	moves = before != nil && (before.URL != c.URL || before.cloud() != c.cloud() || before.CloudID != "" && before.CloudID != c.CloudID)
	switch {
	case moves && !c.VerifyConnection:
		err = b.nothingToLookUp(ctx)
	case moves:
		found, err = b.allThere(ctx, c)
	}
	if err != nil {
		return moves, nil, fmt.Errorf("url cannot be changed: %w", err)
	}
	return moves, found, nil
}

func (b *backend) readConfig(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil || c == nil {
		return nil, err
	}
	return &logical.Response{Data: merged(b.rotationData(&c.Admin.schedule, &c.Admin.rotated, adminAccount), map[string]any{
		"own_token_id":            c.Admin.OwnTokenID,
		"url":                     c.URL,
		"ca_cert":                 c.CACert,
		"client_cert":             c.ClientCert,
		"tls_server_name":         c.TLSServerName,
		"tls_min_version":         c.TLSMinVersion,
		"tls_skip_verify":         c.TLSSkipVerify,
		"allow_http":              c.AllowHTTP,
		"proxy_url":               redacted(c.ProxyURL),
		"request_timeout":         c.RequestTimeout,
		"max_concurrent_requests": c.MaxConcurrentRequests,
		"max_token_days":          c.MaxTokenDays,
		"verify_connection":       c.VerifyConnection,
		"password_policy":         c.PasswordPolicy,
		"allow_admin_roles":       append([]string{}, strings.Fields(c.AllowAdminRoles)...),
		"other_mount_ids":         append([]string{}, strings.Fields(c.OtherMountIDs)...),
		"deployment":              cmp.Or(c.Deployment, deploymentDataCenter),
		"cloud_id":                c.CloudID,
		"allow_undocumented_api":  c.AllowUndocumentedAPI,
		"username":                c.Admin.Username,
		"credential_kind":         c.Admin.kind(),
		"version":                 c.Version,
	})}, nil
}

func (b *backend) deleteConfig(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	accounts, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	accounts = append(accounts, adminAccount)
	force := forced(d)
	if err := b.clear(ctx, force, accounts...); err != nil {
		return nil, err
	}
	warnings, err := b.removeReleased(ctx, force, "", adminAccount, configKey)
	if err != nil {
		return nil, fmt.Errorf("config cannot be deleted: %w", err)
	}
	b.rouse()
	return warned(warnings), nil
}
