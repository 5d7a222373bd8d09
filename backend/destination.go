package backend

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-jira/backend/fault"
)

// A stored secret goes only where it was given for. Reading config or an account never
// shows it; neither may a write that points the engine at another host.

// destination is who receives what the engine logs in with, and who can read it on the
// way. It holds no secret. cloud_id is not part of it: no stored secret goes to an
// address that depends on it.
type destination struct {
	Origin        string `json:"origin"`          // scheme, host and port of url
	Proxy         string `json:"proxy,omitempty"` // scheme, host and port of proxy_url
	CACert        string `json:"ca_cert,omitempty"`
	TLSServerName string `json:"tls_server_name,omitempty"`
	TLSSkipVerify bool   `json:"tls_skip_verify,omitempty"`
	Cloud         bool   `json:"cloud,omitempty"`
}

func (c *config) destination() destination {
	return destination{
		Origin: origin(c.URL), Proxy: origin(c.ProxyURL), CACert: strings.TrimSpace(c.CACert),
		TLSServerName: c.TLSServerName, TLSSkipVerify: c.TLSSkipVerify, Cloud: c.cloud(),
	}
}

// origin is the scheme, host and port of an address that was checked before.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		return ""
	}
	host := strings.ToLower(u.Host)
	if port := map[string]string{"http": "80", "https": "443"}[u.Scheme]; u.Port() == "" && port != "" {
		host += ":" + port
	}
	return u.Scheme + "://" + host
}

// changed names the fields of config in which to differs.
func (from destination) changed(to destination) (names []string) {
	for field, differs := range map[string]bool{
		"url": from.Origin != to.Origin, "proxy_url": from.Proxy != to.Proxy, "ca_cert": from.CACert != to.CACert,
		"tls_server_name": from.TLSServerName != to.TLSServerName, "tls_skip_verify": from.TLSSkipVerify != to.TLSSkipVerify,
		"deployment": from.Cloud != to.Cloud,
	} {
		if differs {
			names = append(names, field)
		}
	}
	slices.Sort(names)
	return names
}

// confirmField is the schema of confirm_destination.
func confirmField(of string) *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeBool,
		Description: "Permission to send stored secrets to another destination, if this write changes " + of + ". Not stored. Defaults to false.",
	}
}

func confirmed(d *framework.FieldData) bool {
	yes := false
	change(fields{FieldData: d}, "confirm_destination", &yes)
	return yes
}

// given tells whether a request gives the secret that is now under field. That something
// was given is not enough: what is stored may be another.
func given(d *framework.FieldData, field, secret string) bool {
	sent, _ := d.Get(field).(string)
	return secret != "" && strings.TrimRight(sent, "\r\n") == secret
}

// sentTo refuses to write c in place of before, if that would send a stored secret to a
// destination that it was not given for, unless the request gives the secret again or
// confirms the destination. It returns the secrets that the request has confirmed, in
// words.
//
// If before is nil, the config before may have been deleted. Then what it has left counts
// as given for its destination.
func (b *backend) sentTo(ctx context.Context, before, c *config, d *framework.FieldData) ([]string, error) {
	to := c.destination()
	why := "the destination that they were given for is not known"
	from, err := b.destinationBefore(ctx, before)
	if err != nil {
		return nil, err
	}
	if from != nil {
		fields := from.changed(to)
		if len(fields) == 0 {
			return nil, nil
		}
		why = "this changes " + strings.Join(fields, ", ")
	}
	var sent, ways []string
	// A token that was given again may have a successor that was not.
	if again := given(d, "token", c.Admin.Token) || given(d, "password", c.Admin.Password); c.Admin.kind() != "" && (!again || c.Admin.Next != "") {
		sent = append(sent, "the config's "+c.Admin.kind())
		ways = append(ways, "give the config's token or password again in the same write")
	}
	others, err := b.storedSecrets(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(others) > 0 {
		sent = append(sent, others...)
		ways = append(ways, "delete the accounts, and write them again afterwards with their secrets")
	}
	if len(sent) == 0 || confirmed(d) {
		return sent, nil
	}
	return nil, fault.Userf("stored secrets would be sent to a destination that they were not given for (%s): those of %s; set confirm_destination=true in the same write if the new destination may have them, or %s",
		why, few(sent), strings.Join(ways, ", and "))
}

// few joins names, of which a mount may have thousands.
func few(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// destinationBefore is nil where nobody knows it.
func (b *backend) destinationBefore(ctx context.Context, before *config) (*destination, error) {
	if before != nil {
		to := before.destination()
		return &to, nil
	}
	return load[destination](ctx, &b.decoded, b.storage, destinationKey)
}

// keepDestination notes, before config is removed, for which destination the accounts
// that stay were given their secrets. The caller holds b.resources.
func (b *backend) keepDestination(ctx context.Context) error {
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil || c == nil {
		return err
	}
	return store(ctx, b.storage, destinationKey, c.destination())
}

// storedSecrets names what would send a secret of its own where c says, other than c's
// admin.
func (b *backend) storedSecrets(ctx context.Context, c *config) (names []string, err error) {
	accounts, err := b.allAccounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		if accounts[name].hasSecret() {
			names = append(names, fmt.Sprintf("account %q", name))
		}
	}
	static, err := b.storage.List(ctx, staticRolesPrefix)
	if err != nil {
		return nil, err
	}
	for _, name := range static {
		r, err := load[staticRole](ctx, &b.decoded, b.storage, staticRolesPrefix+name)
		if err != nil {
			return nil, err
		}
		if r != nil && r.credential.hasSecret() {
			names = append(names, fmt.Sprintf("static role %q", name))
		}
	}
	gone, err := b.storage.List(ctx, retiredPrefix)
	if err != nil {
		return nil, err
	}
	for _, name := range gone {
		r, err := load[retired](ctx, &b.decoded, b.storage, retiredPrefix+name)
		if err != nil {
			return nil, err
		}
		// At another site it takes its own way, and an organization's key is c's if it has one.
		key := r != nil && r.Account.traits().orgKey && c.Admin.Token == ""
		if r != nil && r.isAt(c) && r.Config.destination() != c.destination() && (r.Account.hasSecret() || key) {
			names = append(names, fmt.Sprintf("deleted account %q, which has tokens to end", unretired(name)))
		}
	}
	return names, nil
}

func (c *credential) hasSecret() bool { return c.Token != "" || c.Password != "" || c.Next != "" }

func (a *account) hasSecret() bool {
	return a.credential.hasSecret() || a.FallbackPassword != "" || a.ClientSecret != ""
}

// secretStays refuses to write a in place of before, if that would send a stored
// client_secret to another address than the one it was given for, unless the request
// gives it again or confirms the address.
func (c *config) secretStays(before, a *account, d *framework.FieldData) error {
	if before == nil || before.ClientSecret == "" || given(d, "client_secret", a.ClientSecret) || confirmed(d) {
		return nil
	}
	var names []string
	if before.grant(c, "").TokenURL != a.grant(c, "").TokenURL {
		names = append(names, "token_url")
	}
	if a.RevocationURL != "" && before.RevocationURL != a.RevocationURL {
		names = append(names, "revocation_url")
	}
	if len(names) == 0 {
		return nil
	}
	return fault.Userf("the stored client_secret would be sent to an address that it was not given for (this changes %s): give client_secret again in the same write, or set confirm_destination=true in it if that address may have it", strings.Join(names, ", "))
}
