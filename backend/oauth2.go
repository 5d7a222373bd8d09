package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A service account is no user: it asks for access tokens with a client id and a
// secret, and they end by themselves within the hour or so that Jira gives them.
// Nothing in Jira lists them, so there is nothing to look for after a lost answer,
// and nothing is left that outlives its day. What cannot be revoked is not said to
// be: a lease is not renewable, ends before its token does, and says so.

// oauth2 is an access token of a service account, by OAuth 2.0's grant of client
// credentials.
type oauth2 struct{}

var oauth2Traits = traits{name: accountTypeOAuth2, stored: accountTypeOAuth2, secretType: accessSecret, accountType: accountTypeOAuth2, scoped: true, expiresOnly: true}

const accountTypeOAuth2 = "oauth2"

// accessSecret is the type of a lease that holds a service account's access token.
const accessSecret = "jira_oauth2" //nolint:gosec // a type's name

func (oauth2) is() *traits { return &oauth2Traits }

func (oauth2) prepare(_ context.Context, _ *backend, m *mint, c *config, r *role, a *account) error {
	m.record.Username = a.ClientID
	m.grant, m.revocationURL = a.grant(c, strings.Join(r.Scopes, " ")), a.RevocationURL
	return nil
}

// service is what a service account asks with, as part of an account. It is
// comparable.
type service struct {
	ClientID      string `json:"client_id,omitempty"`
	ClientSecret  string `json:"client_secret,omitempty"`
	TokenURL      string `json:"token_url,omitempty"`      // empty: the deployment's
	RevocationURL string `json:"revocation_url,omitempty"` // empty: there is none
	Scopes        string `json:"scopes,omitempty"`         // separated by blanks; empty: what the account has
}

// cloudTokenURL is where Jira Cloud gives out access tokens.
const cloudTokenURL = "https://auth.atlassian.com/oauth/token" //nolint:gosec // an address

// grant is what the account asks with, at c's site, for scopes, or for its own
// where there are none.
func (s *service) grant(c *config, scopes string) jira.Grant {
	address := c.URL + "/rest/oauth2/latest/token"
	if c.cloud() {
		address = cloudTokenURL
	}
	return jira.Grant{
		TokenURL: cmp.Or(s.TokenURL, address), ClientID: s.ClientID, ClientSecret: s.ClientSecret,
		JSON: c.cloud(), Scopes: cmp.Or(scopes, s.Scopes),
	}
}

// addresses are those that s names, and nothing else.
func (s *service) addresses() service {
	return service{TokenURL: s.TokenURL, RevocationURL: s.RevocationURL}
}

// validate refuses what cannot work, whatever Jira says.
func (s *service) validate() error {
	switch {
	case s.ClientID == "":
		return fault.Userf("client_id is missing: the service account's, as Jira shows it")
	case s.ClientSecret == "":
		return fault.Userf("client_secret is missing: what Jira showed once when the service account's credential was made")
	}
	return nil
}

// address refuses what is no address that a client secret may be sent to.
func (c *config) address(field, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return nil
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return fault.Userf("%s is no address: write https://, the host and the path", field)
	case u.Scheme == "http" && !c.AllowHTTP && !isLoopback(raw):
		return fault.Userf("%s is plain http: write https, or set allow_http=true on config if the client secret may cross the network in the clear", field)
	}
	return nil
}

// api is the site at which access tokens of c's service accounts work, of which
// site is the one that is configured.
func (c *config) api(site *jira.Site) (*jira.Site, error) {
	if !c.cloud() {
		return site, nil
	}
	return site.Cloud(c.CloudID)
}

func (oauth2) validate(a *account) error {
	if a.Username != "" || a.kind() != "" || a.FallbackPassword != "" || a.AllowAdmin || a.Exclusive || a.OwnTokenID != "" {
		return fault.Userf("username, token, password, fallback_password, allow_admin, exclusive and own_token_id are for type=user: a service account has client_id and client_secret")
	}
	if a.AccountID != "" {
		return fault.Userf("account_id is for type=%s", accountTypeAPIToken)
	}
	return a.service.validate()
}

func (oauth2) verify(ctx context.Context, _ *backend, v *verification) (warnings []string, err error) {
	return verifyService(ctx, v.c, v.client.Site(), v.a)
}

func (oauth2) review(ctx context.Context, b *backend, client *jira.Client, a *account) error {
	c, err := b.loadConfig(ctx)
	if err != nil {
		return err
	}
	_, err = verifyService(ctx, c, client.Site(), a)
	return err
}

// To ask would cost an access token: the last read tells.
func (oauth2) works(context.Context, *jira.Client, *account) error { return nil }

// What its tokens are revoked with is what counts.
func (oauth2) moves(a, before *account) bool {
	return before.ClientID != a.ClientID || before.TokenURL != a.TokenURL || before.RevocationURL != a.RevocationURL && before.RevocationURL != ""
}

func (oauth2) cannotRotate(string) error {
	return fault.Userf("no documented call rotates the client secret of a service account: make another one in Jira's administration, and write it to the account as client_secret")
}

// verifyService asks for an access token, to see whether a is right.
func verifyService(ctx context.Context, c *config, site *jira.Site, a *account) (warnings []string, err error) {
	for field, raw := range map[string]string{"token_url": a.TokenURL, "revocation_url": a.RevocationURL} {
		if err := c.address(field, raw); err != nil {
			return nil, err
		}
	}
	t, err := site.AccessToken(ctx, a.grant(c, ""))
	if err != nil {
		return nil, fmt.Errorf("asking for an access token: %w", err)
	}
	if wider := widerThan(t.Scopes, strings.Fields(a.Scopes)); a.Scopes != "" && len(wider) > 0 {
		return nil, fault.Userf("Jira grants more than scopes say, and would to every reader: %s; write the scopes that the service account has, or give it fewer", strings.Join(wider, ", "))
	}
	if !c.cloud() {
		warnings = append(warnings, "a service account that has no project restrictions in Jira reaches every project, and Jira does not tell whether it has: look at it in Jira's administration")
	}
	if a.RevocationURL == "" {
		warnings = append(warnings, fmt.Sprintf("its access tokens cannot be revoked: each works until it ends by itself, %v after it was made", t.ExpiresIn))
		return warnings, nil
	}
	api, err := c.api(site)
	if err == nil {
		err = endAccess(ctx, site, api, a.RevocationURL, a.grant(c, ""), t.Secret)
	}
	if err != nil {
		return nil, fmt.Errorf("trying revocation_url: %w", err)
	}
	return warnings, nil
}

// widerThan returns those of the granted scopes that go beyond what was wanted.
// To write includes to read, where that is all there is.
func widerThan(granted, wanted []string) []string {
	return slices.DeleteFunc(slices.Clone(granted), func(s string) bool {
		return slices.Contains(wanted, s) || s == "READ" && slices.Contains(wanted, "WRITE")
	})
}

// make asks for the access token of m. Where nobody can tell what became of it, it is
// left to its end, which is near: made is never true.
func (oauth2) make(ctx context.Context, b *backend, m *mint) (token jira.Token, secret string, made bool, err error) {
	log := b.log()
	t, err := m.client.Site().AccessToken(ctx, m.grant)
	if err == nil || jira.Is(err, jira.Refused) {
		b.checks.note(m.record.Account, credential{}, err)
	}
	if err != nil {
		if !jira.NothingMade(err) {
			log.Warn("Jira may have made an access token that nobody received: it ends by itself", "id", m.record.ID, "account", m.record.Account)
		}
		return jira.Token{}, "", false, err
	}
	m.granted = t.Scopes
	if t.Scopes == nil { // as RFC 6749 has it: what was asked for
		m.granted = strings.Fields(m.grant.Scopes)
	}
	now := b.now()
	token = jira.Token{Name: m.record.Name, Created: now, Expires: now.Add(t.ExpiresIn)}
	if wider := widerThan(m.granted, strings.Fields(m.grant.Scopes)); m.grant.Scopes != "" && len(wider) > 0 {
		log.Warn("an access token was granted wider than the role, and is not handed out", "id", m.record.ID, "account", m.record.Account, "scopes", m.granted)
		if err := m.endUnread(ctx, t.Secret); err != nil {
			log.Warn("an access token that was granted wider than the role could not be revoked: it ends by itself", "id", m.record.ID, "account", m.record.Account, "error", err)
		}
		return jira.Token{}, "", false, fault.Userf("Jira granted scopes that the role does not have: %s; this Jira does not narrow them by request, so give the role a service account that has no more than its scopes", strings.Join(wider, ", "))
	}
	return token, t.Secret, false, nil
}

// end does nothing: nobody but its holder has it. See [backend.revokeAccess].
func (oauth2) end(context.Context, hclog.Logger, *backend, *jira.Client, *ledger.Record) error {
	return nil
}

func (oauth2) lookUp(context.Context, *jira.Client, *ledger.Record) (there bool, lastUsed time.Time, err error) {
	return false, time.Time{}, fault.Userf("it does not list access tokens")
}

// endAccess revokes an access token that was asked for with g at site, and proves
// that Jira does not take it any more at api, where it works.
func endAccess(ctx context.Context, site, api *jira.Site, revocationURL string, g jira.Grant, secret string) error {
	if err := site.RevokeAccessToken(ctx, revocationURL, g, secret); err != nil {
		return fmt.Errorf("revoking the access token: %w", err)
	}
	alive, err := api.As(jira.Login{Token: secret}).Accepted(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("proving that the access token is dead: %w", err)
	case alive:
		return fault.BadResponse("revocation_url said that the access token is revoked, and Jira goes on taking it")
	}
	return nil
}

// endUnread revokes the access token of m, which no reader has received, where it
// can be revoked.
func (m *mint) endUnread(ctx context.Context, secret string) error {
	if m.revocationURL == "" {
		return nil
	}
	if err := endAccess(ctx, m.client.Site(), m.api, m.revocationURL, m.grant, secret); err != nil {
		return fmt.Errorf("ending an access token that nobody received, which else ends by itself: %w", err)
	}
	return nil
}

// revokeAccess ends the lease of an access token. Where the token cannot be
// revoked, that is all it does, and the log says how long the token lives.
func (b *backend) revokeAccess(ctx context.Context, l *lease, token string, queued bool) (result string, err error) {
	log := b.log().With("id", l.ID, "role", l.Role, "account", l.Account, "token_name", l.TokenName, "expires_at", l.ExpiresAt)
	name, owed := l.Account, time.Duration(0) // for how long it has been
	if r, err := b.ledger.Read(ctx, l.ID); err == nil {
		name = r.Account // which may be retired
		if r.State == ledger.Owed {
			owed = b.now().Sub(r.OwedAt.Time()).Abs()
		}
	}
	c, a, err := b.serviceOf(ctx, name)
	if err != nil {
		return "", err
	}
	expires, _ := time.Parse(time.RFC3339, l.ExpiresAt) // our own; zero is long ago
	if a == nil || a.RevocationURL == "" || token == "" || !b.now().Before(expires) {
		if err := b.ledger.Forget(ctx, l.ID); err != nil {
			return "", err
		}
		b.paid(l.ID)
		log.Info("the lease of an access token has ended: the token is left to end by itself")
		return resultExpires, nil
	}
	client, err := b.client(ctx, name)
	if err != nil {
		return "", err
	}
	api, err := c.api(client.Site())
	if err != nil {
		return "", err
	}
	if err := endAccess(ctx, client.Site(), api, a.RevocationURL, a.grant(c, ""), token); err != nil {
		err = fmt.Errorf("revoking as account %q: %w", l.Account, err)
		if e := b.owe(ctx, l); e != nil {
			return "", fmt.Errorf("%w; nor could the debt be written: %w", err, e)
		}
		if queued && owed >= takenOver {
			log.Warn("an access token could not be revoked: it ends by itself, and Vault may drop the lease", "error", err)
			return resultExpires, nil
		}
		log.Warn("an access token could not be revoked", "error", err)
		if r, e := l.record(); e == nil {
			b.debt(r, err.Error())
		}
		return "", err
	}
	if err := b.ledger.Forget(ctx, l.ID); err != nil {
		return "", err
	}
	b.paid(l.ID)
	log.Info("access token revoked")
	return resultDone, nil
}

// serviceOf returns the config and the account of that name, be it retired, and
// nil where one of them is not there.
func (b *backend) serviceOf(ctx context.Context, name string) (*config, *account, error) {
	if isRetired(name) {
		r, err := load[retired](ctx, &b.decoded, b.storage, retiredPrefix+name)
		if err != nil || r == nil {
			return nil, nil, err
		}
		return &r.Config, &r.Account, nil
	}
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil || c == nil {
		return nil, nil, err
	}
	a, err := load[account](ctx, &b.decoded, b.storage, accountsPrefix+name)
	return c, a, err
}

// settleLost does what is due of the record of an access token, lost or not: once the token has
// ended by itself, or if nobody ever received it, the record is forgotten.
func (oauth2) settleLost(ctx context.Context, log hclog.Logger, b *backend, _ *jira.Client, r *ledger.Record, _ []jira.Token, _ clock) error {
	left := r.Expires.Time().Add(ledger.Grace).Sub(b.now())
	if !r.NeverIssued() && left > 0 {
		b.ledger.Postpone(r.ID, left)
		return nil
	}
	if err := b.ledger.Forget(ctx, r.ID); err != nil && !errors.Is(err, ledger.ErrMissing) {
		return err
	}
	b.paid(r.ID)
	log.Info("an access token has ended by itself, or was received by nobody", "id", r.ID, "token_name", r.Name, "expires_at", rfc3339(r.Expires.Time()))
	return nil
}
