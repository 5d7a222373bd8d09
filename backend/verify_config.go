package backend

import (
	"context"
	"fmt"
	"strings"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
)

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
