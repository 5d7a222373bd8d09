package backend

import (
	"context"
	"strings"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
)

// What a site is.
const (
	deploymentDataCenter = "datacenter"
	deploymentCloud      = "cloud"
)

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

func (c *config) cloud() bool { return c.Deployment == deploymentCloud }

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
