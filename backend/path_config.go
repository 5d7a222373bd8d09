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

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
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

// What a site is.
const (
	deploymentDataCenter = "datacenter"
	deploymentCloud      = "cloud"
)

func (c *config) cloud() bool { return c.Deployment == deploymentCloud }

// defaultMaxTokenDays is Jira's own default.
const defaultMaxTokenDays = 365

// config is the site, as it is stored. It is comparable: two equal configs
// lead to the same Jira in the same way.
type config struct {
	URL                   string `json:"url"`
	CACert                string `json:"ca_cert"`
	ClientCert            string `json:"client_cert"`
	ClientKey             string `json:"client_key"`
	TLSServerName         string `json:"tls_server_name"`
	TLSMinVersion         string `json:"tls_min_version"`
	TLSSkipVerify         bool   `json:"tls_skip_verify"`
	AllowHTTP             bool   `json:"allow_http"`
	ProxyURL              string `json:"proxy_url"`
	RequestTimeout        int    `json:"request_timeout"` // seconds
	MaxConcurrentRequests int    `json:"max_concurrent_requests"`
	MaxTokenDays          int    `json:"max_token_days"`
	VerifyConnection      bool   `json:"verify_connection"`
	PasswordPolicy        string `json:"password_policy"`
	Deployment            string `json:"deployment"` // empty, in what was stored before: datacenter
	CloudID               string `json:"cloud_id"`   // of a site of Jira Cloud
	AllowUndocumentedAPI  bool   `json:"allow_undocumented_api"`

	OtherMountIDs   string `json:"other_mount_ids,omitempty"`   // separated by blanks
	AllowAdminRoles string `json:"allow_admin_roles,omitempty"` // separated by blanks; see consent.go

	Admin   credential `json:"admin"`   // empty where there is none
	Version string     `json:"version"` // Jira's; empty where it was not told
}

// update takes over what was sent. stale is as in [credential.update].
func (c *config) update(f fields) (stale string, err error) {
	change(f, "url", &c.URL)
	change(f, "ca_cert", &c.CACert)
	change(f, "client_cert", &c.ClientCert)
	if change(f, "client_key", &c.ClientKey) && c.ClientKey == "" && c.ClientCert != "" {
		return "", fault.Userf("client_key is empty: clear client_cert with it, or give the certificate's key")
	}
	change(f, "tls_server_name", &c.TLSServerName)
	change(f, "tls_min_version", &c.TLSMinVersion)
	change(f, "tls_skip_verify", &c.TLSSkipVerify)
	change(f, "allow_http", &c.AllowHTTP)
	change(f, "proxy_url", &c.ProxyURL)
	change(f, "request_timeout", &c.RequestTimeout)
	change(f, "max_concurrent_requests", &c.MaxConcurrentRequests)
	change(f, "max_token_days", &c.MaxTokenDays)
	change(f, "verify_connection", &c.VerifyConnection)
	change(f, "password_policy", &c.PasswordPolicy)
	if err := changeRoles(f, "allow_admin_roles", &c.AllowAdminRoles); err != nil {
		return "", err
	}
	others := strings.Fields(c.OtherMountIDs)
	change(f, "other_mount_ids", &others)
	c.OtherMountIDs = otherMountIDs(others)
	change(f, "deployment", &c.Deployment)
	change(f, "allow_undocumented_api", &c.AllowUndocumentedAPI)
	if !change(f, "cloud_id", &c.CloudID) {
		c.CloudID = "" // the site is asked again
	}
	return c.Admin.update(f)
}

// validate refuses what cannot work, whatever Jira says, and normalizes the
// url.
func (c *config) validate() error {
	switch {
	case c.URL == "":
		return fault.Userf("url is missing: the address of Jira, as https://jira.example.com or with its context path")
	case c.Deployment != "" && c.Deployment != deploymentDataCenter && !c.cloud():
		return fault.Userf("deployment %q is not known: write datacenter or cloud", c.Deployment)
	case isCloud(c.URL) && !c.cloud():
		return cloudRefused
	case c.cloud() && (c.Admin.Username != "" || c.Admin.Password != ""):
		return fault.Userf("deployment=cloud has no administrator to log in as: what it can have is token, an API key of the organisation, for accounts of type=%s", accountTypeAPIToken)
	case c.cloud() && (c.Admin.OwnTokenID != "" || c.Admin.schedule != schedule{Overlap: c.Admin.Overlap}):
		return fault.Userf("own_token_id, rotation_period, rotation_schedule and what goes with them are for deployment=datacenter: no documented call rotates an organisation's API key")
	case !c.cloud() && c.AllowUndocumentedAPI:
		return fault.Userf("allow_undocumented_api is for deployment=cloud")
	case !c.cloud() && c.CloudID != "":
		return fault.Userf("cloud_id is for deployment=cloud")
	case c.cloud() && c.CloudID == "" && !c.VerifyConnection:
		return fault.Userf("cloud_id is missing: with verify_connection=false the site is not asked for it")
	case c.RequestTimeout < 1 || c.RequestTimeout > 20:
		return fault.Userf("request_timeout must be 1s to 20s")
	case c.MaxConcurrentRequests < 1 || c.MaxConcurrentRequests > 100:
		return fault.Userf("max_concurrent_requests must be 1 to 100")
	case c.MaxTokenDays < 1 || c.MaxTokenDays > 36500:
		return fault.Userf("max_token_days must be 1 to 36500, and not over what Jira allows (its property atlassian.pats.max.tokens.expiry.days)")
	case c.Admin.Password != "" && c.Admin.Username == "":
		return fault.Userf("username is missing: a password needs one")
	case c.Admin.Username != "" && c.Admin.kind() == "":
		return fault.Userf("username without token or password: give one of them, or leave the username out")
	}
	if c.Admin.kind() == "" && (c.Admin.RotationPeriod != 0 || c.Admin.RotationSchedule != "") {
		return fault.Userf("rotation_period and rotation_schedule need an admin credential: there is nothing to rotate")
	}
	if err := c.Admin.validateKept(); err != nil {
		return err
	}
	// The site's own rules, on everything that has to do with the transport.
	site, err := c.site(jira.NewGate(1), nil, nil)
	if err != nil {
		return err
	}
	c.URL = site.URL() // as it is told to readers and compared
	return nil
}

func (b *backend) loadConfig(ctx context.Context) (*config, error) {
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err == nil && c == nil {
		return nil, fault.Userf("the engine is not configured yet: write config with the url of Jira")
	}
	return c, err
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
		if err := c.validate(); err != nil {
			return nil, err
		}
		if err := b.validateOthers(ctx, c); err != nil {
			return nil, err
		}
		c.Admin.begun(b.now())
		if _, err := b.password(ctx, c); err != nil {
			return nil, err
		}
		if sent, err = b.sentTo(ctx, before, c, d); err != nil {
			return nil, err
		}
		if warnings, err = b.verifyConfig(ctx, before, c, sentCredential(d, stale)); err != nil {
			return nil, err
		}
		another := before != nil && !before.Admin.sameUser(&c.Admin)
		if another {
			if err := b.logsInWithItsOwn(adminAccount); err != nil {
				return nil, err
			}
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
			if another {
				if err := b.logsInWithItsOwn(adminAccount); err != nil {
					return false, err
				}
			}
			return !moves || slices.Equal(moved, b.withOwn("")), nil
		}, nil
	})
	if err != nil {
		return nil, err
	}
	if stale != "" {
		warnings = append(warnings, notTaken(stale))
	}
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

// trialAdmin returns a client for checking c's admin, if there is one, at site. As in
// trialClient, a login that is in use there, and was not sent again, is that one.
func (b *backend) trialAdmin(site *jira.Site, before, c *config, sent bool) (*jira.Client, error) {
	if before == nil || before.cloud() || before.URL != c.URL || c.Admin.kind() == "" || before.Admin.login() != c.Admin.login() || sent {
		return site.As(c.Admin.login()), nil
	}
	client, err := b.admin(before)
	if err != nil {
		return nil, err
	}
	return client.At(site), nil
}

// verifyConfig asks Jira whether c is right, and takes over into c what it
// says of itself and of the admin.
func (b *backend) verifyConfig(ctx context.Context, before, c *config, sent bool) (warnings []string, err error) {
	if c.TLSSkipVerify {
		warnings = append(warnings, "tls_skip_verify is set: whoever can get between Vault and Jira can read every token")
	}
	if strings.HasPrefix(c.URL, "http:") && c.AllowHTTP {
		warnings = append(warnings, "url is plain http: every token crosses the network in the clear")
	}
	if !c.VerifyConnection {
		c.Version = ""
		return append(warnings, "verify_connection is false: nothing of this was checked against Jira"), nil
	}
	site, err := b.sites.trial(c)
	if err != nil {
		return nil, err
	}
	defer site.Close()
	if c.cloud() {
		c.Version = ""
		if c.CloudID == "" {
			if c.CloudID, err = site.CloudID(ctx); err != nil {
				return nil, fmt.Errorf("asking the site for its cloud_id: %w", err)
			}
		}
		if _, err := site.Cloud(c.CloudID); err != nil {
			return nil, fault.Userf("cloud_id: %v", err)
		}
		w, err := b.verifyOrgKey(ctx, site, c)
		return append(warnings, w...), err
	}
	admin, err := b.trialAdmin(site, before, c, sent)
	if err != nil {
		return nil, err
	}
	refused := false // the credential that is there already
	if c.Admin.kind() != "" {
		w, err := verifyAdmin(ctx, admin, &c.Admin)
		refused = jira.Is(err, jira.Refused) && before != nil && !sent && before.URL == c.URL && before.Admin.unscheduled() == c.Admin.unscheduled()
		switch {
		case refused:
			w = []string{fmt.Sprintf("the config's credential, which this write leaves as it is, does not work: %v; write another", err)}
			admin = site.As(jira.Login{})
		case err != nil:
			return nil, fmt.Errorf("checking the admin's credential: %w", err)
		}
		warnings = append(warnings, w...)
	}
	c.Version, err = versionOf(ctx, admin)
	if jira.Is(err, jira.Refused) && refused {
		c.Version = before.Version
		return warnings, nil
	}
	if jira.Is(err, jira.Refused) && c.Admin.kind() == "" {
		return append(warnings, "this Jira tells its version only to its users: it will be checked when an account is written"), nil
	}
	if err != nil {
		return nil, fmt.Errorf("checking the site: %w", err)
	}
	return warnings, nil
}

// verifyAdmin asks Jira whose the admin's credential is, takes that over, and
// warns where he is no administrator.
func verifyAdmin(ctx context.Context, client *jira.Client, admin *credential) (warnings []string, err error) {
	u, err := client.Myself(ctx)
	if err != nil {
		return nil, err
	}
	if err := admin.belongsTo(u); err != nil {
		return nil, err
	}
	if client.Username() == "" { // a token was given without a name
		client = client.As(admin.login())
	}
	isAdmin, err := client.Administrator(ctx)
	if err != nil {
		return nil, err
	}
	if admin.Token != "" {
		tokens, date, err := client.TokensDated(ctx)
		if err != nil {
			return nil, cannotList(admin.Username, err)
		}
		if warnings, err = admin.recognize(tokens, date); err != nil {
			return nil, err
		}
	}
	if !isAdmin {
		warnings = append(warnings, fmt.Sprintf("user %q of the config is no Jira administrator: what needs one will be refused by Jira", u.Name))
	}
	return warnings, nil
}

const cloudRefused = fault.User("this is Jira Cloud: set deployment=cloud, for which there are accounts of type=oauth2, or cloud_api_token")

// versionOf returns the version of client's site, and refuses a site that has
// no personal access tokens.
func versionOf(ctx context.Context, client *jira.Client) (string, error) {
	info, err := client.ServerInfo(ctx)
	if err != nil {
		return "", err
	}
	if info.DeploymentType == "Cloud" {
		return "", cloudRefused
	}
	if !info.AtLeast(8, 14) {
		return "", fault.Userf("this is Jira %s: personal access tokens came with Jira 8.14, so it needs at least that", info.Version)
	}
	return info.Version, nil
}

// adminIsNoAccount refuses an admin who is one of the accounts: a reader
// would get an administrator's token.
func (b *backend) adminIsNoAccount(ctx context.Context, c *config) error {
	name, err := b.accountOf(ctx, &c.Admin, "")
	if err != nil {
		return err
	}
	if name != "" {
		return fault.Userf("user %q is account %q already: give the config an administrator of its own", c.Admin.Username, name)
	}
	return nil
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
