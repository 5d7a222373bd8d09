package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

func (b *backend) pathCreds() *framework.Path {
	operation := func(suffix, summary string) *framework.PathOperation {
		return &framework.PathOperation{
			Callback:                    b.edge(b.readCreds),
			Summary:                     summary,
			Examples:                    []framework.RequestExample{{Description: summary, Data: map[string]any{"ttl": "15m"}}},
			Responses:                   answered(tokenFields(), tokenExample()),
			ForwardPerformanceStandby:   true,
			ForwardPerformanceSecondary: true,
			DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: suffix},
		}
	}
	return &framework.Path{
		Pattern:      "creds/(?P<name>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"name": nameField("role"),
			"ttl": {
				Type:        framework.TypeDurationSecond,
				Description: "How long the lease shall last, at most the role's max_ttl. Omitted: the role's ttl.",
				Query:       true,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   operation("credentials", "Make a credential."),
			logical.UpdateOperation: operation("credentials-with-parameters", "Make a credential, with parameters in the body."),
		},
		HelpSynopsis: "Make a Jira credential that ends with its lease.",
		HelpDescription: strings.TrimSpace(`
A read makes a personal access token in Jira for one of the role's accounts, and
gives it out once, under a lease. Send it as

    Authorization: Bearer <token>

When the lease expires or is revoked the token is deleted in Jira. Renew the
lease to keep the token; past its max_ttl, read a new one.
`),
	}
}

func tokenFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"token":      {Type: framework.TypeString, Required: true, Description: "The credential. Told this once.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
		"token_type": {Type: framework.TypeString, Required: true, Description: "How to send it: Bearer, in the Authorization header."},
		"token_id":   {Type: framework.TypeString, Required: true, Description: "Jira's id of the token."},
		"token_name": {Type: framework.TypeString, Required: true, Description: "The token's name in Jira, which leads back to this lease."},
		"username":   {Type: framework.TypeString, Required: true, Description: "The Jira user that the token is."},
		"url":        {Type: framework.TypeString, Required: true, Description: "Address of Jira."},
		"expires_at": {Type: framework.TypeString, Required: true, Description: "When Jira itself would end the token if Vault could not, RFC 3339 in UTC. Empty if never."},
	}
}

func tokenExample() *logical.Response {
	return &logical.Response{
		Secret: &logical.Secret{LeaseOptions: logical.LeaseOptions{TTL: 15 * time.Minute, Renewable: true}},
		Data: map[string]any{ //nolint:gosec // a sample, which no Jira knows
			"token": "MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs", "token_type": "Bearer",
			"token_id": "412", "token_name": "vault-k3xm2a-5b2tq6hznr4wjd7c-readonly",
			"username": "ci-bot", "url": "https://jira.example.com", "expires_at": "2026-03-03T08:15:09Z",
		},
	}
}

// readCreds is the way of a token from a read to its lease:
//
//	role → account with room → ledger: intend → Jira: mint → ledger: issue → lease
//
// Whatever ends it in between, the ledger knows of the token before Jira does,
// and what is not handed out is taken back.
func (b *backend) readCreds(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(d, "a role")
	if err != nil {
		return nil, err
	}
	increment, err := askedTTL(d)
	if err != nil {
		return nil, err
	}
	m, err := b.intend(ctx, req, name, increment)
	if full := (*noRoom)(nil); errors.As(err, &full) && b.settleAccounts(ctx, req, false, full.accounts...) {
		m, err = b.intend(ctx, req, name, increment)
	}
	if err != nil {
		return nil, err
	}
	defer b.ledger.Over(m.record.ID)
	token, secret, err := m.client.CreateToken(ctx, m.record.Name, days(m.max))
	if err != nil {
		return nil, b.notMinted(ctx, req, m, err)
	}
	m.record.TokenID, m.record.Expires = token.ID, ledger.At(token.Expires)
	if err := m.fit(token, b.now()); err != nil {
		return nil, b.takeBack(ctx, req, m, err)
	}
	if err := b.ledger.Issue(ctx, m.record, m.ttl); err != nil {
		return nil, b.takeBack(ctx, req, m, err)
	}
	if ctx.Err() != nil {
		return nil, b.takeBack(ctx, req, m, fmt.Errorf("the reader is gone: %w", context.Cause(ctx)))
	}
	b.log(req).Info("token issued", "role", name, "account", m.record.Account, "token_id", token.ID, "token_name", token.Name, "request_id", req.ID)
	l := m.lease()
	return &logical.Response{
		Warnings: m.warnings,
		Data: map[string]any{
			"token":      secret,
			"token_type": "Bearer",
			"token_id":   l.TokenID,
			"token_name": l.TokenName,
			"username":   l.Username,
			"url":        l.Site,
			"expires_at": l.ExpiresAt,
		},
		Secret: &logical.Secret{
			LeaseOptions: logical.LeaseOptions{TTL: m.ttl, MaxTTL: m.max, Renewable: true},
			InternalData: l.encode(),
		},
	}, nil
}

// askedTTL is the lease that the reader asks for, 0 where he leaves it to the
// role.
func askedTTL(d *framework.FieldData) (time.Duration, error) {
	if _, asked := d.Raw["ttl"]; !asked {
		return 0, nil
	}
	ttl := time.Duration(d.Get("ttl").(int)) * time.Second //nolint:errcheck // the schema's type
	if ttl <= 0 {
		return 0, mistakef("ttl must be more than zero; leave it out for the role's")
	}
	return ttl, nil
}

// mint is a token on its way from a read to its lease.
type mint struct {
	terms
	warnings []string
	client   *jira.Client
	record   *ledger.Record
}

// intend finds the account to mint for and writes the intent to the ledger,
// before Jira is asked for anything.
func (b *backend) intend(ctx context.Context, req *logical.Request, name string, increment time.Duration) (*mint, error) {
	mount, err := b.mount.get(ctx, &b.decoded, req.Storage)
	if err != nil {
		return nil, err
	}
	// Nobody may delete or move an account between our reading it and the
	// intent that says it is needed.
	b.resources.RLock()
	defer b.resources.RUnlock()
	r, err := b.loadRole(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	c, err := b.loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	m := &mint{}
	if m.terms, m.warnings, err = b.terms(r, c.MaxTokenDays, increment); err != nil {
		return nil, err
	}
	id := ledger.NewID()
	m.record = &ledger.Record{
		ID: id, Name: ledger.Name(mount, id, name), Role: name,
		Reader: ledger.Reader{EntityID: req.EntityID, DisplayName: req.DisplayName, RequestID: req.ID, RemoteAddress: remoteAddress(req)},
	}
	if err := b.takePlace(ctx, req, m, c, r); err != nil {
		return nil, err
	}
	return m, nil
}

// takePlace writes the intent for the account of the role with the most room.
// The error is a noRoom where none has any. The caller holds b.resources.
func (b *backend) takePlace(ctx context.Context, req *logical.Request, m *mint, c *config, r *role) error {
	type candidate struct {
		name string
		*account
		left int
	}
	pool := make([]candidate, 0, len(r.Accounts))
	for _, name := range r.Accounts {
		a, err := b.loadAccount(ctx, req.Storage, name)
		if err != nil {
			return err
		}
		pool = append(pool, candidate{name, a, a.places() - b.ledger.Held(name)})
	}
	slices.SortStableFunc(pool, func(x, y candidate) int { return cmp.Compare(y.left, x.left) })
	var full []string
	for _, a := range pool {
		var err error
		if m.client, err = b.sites.client(c, a.name, a.account); err != nil {
			return err
		}
		m.record.Site, m.record.Account, m.record.Username = m.client.URL(), a.name, a.Username
		if err = b.ledger.Intend(ctx, m.record, a.places()); err == nil {
			return nil
		}
		taken := (*ledger.FullError)(nil)
		if !errors.As(err, &taken) {
			return err
		}
		full = append(full, fmt.Sprintf("account %q holds %d of the %d tokens that it can (max_tokens=%d)", a.name, taken.Held, taken.Room, a.MaxTokens))
	}
	return &noRoom{accounts: r.Accounts, text: fmt.Sprintf("no account of role %q has room: %s; end a lease, add an account to the role, or raise max_tokens with Jira's own cap, its property atlassian.pats.max.tokens.per.user", m.record.Role, strings.Join(full, "; "))}
}

// fit cuts the lease to what Jira made of the token's life. Where that is
// shorter than a lease can be it fails.
func (m *mint) fit(t jira.Token, now time.Time) error {
	if t.Expires.IsZero() {
		m.warnings = append(m.warnings, "Jira gave this token no expiry of its own: only Vault ends it")
		return nil
	}
	// By Jira's clock alone where it says enough; the two clocks may differ.
	life := t.Expires.Sub(now)
	if !t.Created.IsZero() {
		life = t.Expires.Sub(t.Created)
	}
	if life < grace+time.Second {
		return nonsense(fmt.Sprintf("Jira's answer to the mint makes no sense: the new token ends at %s already", rfc3339(t.Expires)))
	}
	life = (life - grace).Truncate(time.Second)
	if life < m.max {
		m.max = life
	}
	if m.max < m.ttl {
		m.warnings = append(m.warnings, fmt.Sprintf("Jira ends this token at %s, so the lease is cut to %v", rfc3339(t.Expires), m.max))
		m.ttl = m.max
	}
	return nil
}

// lease is what Vault keeps for m's renewals and its revoke.
func (m *mint) lease() *lease {
	return &lease{
		ID:        m.record.ID,
		TokenID:   m.record.TokenID,
		TokenName: m.record.Name,
		Site:      m.record.Site,
		Account:   m.record.Account,
		Username:  m.record.Username,
		Role:      m.record.Role,
		TTL:       seconds(m.ttl),
		MaxTTL:    seconds(m.max),
		ExpiresAt: rfc3339(m.record.Expires.Time()),
	}
}

// notMinted cleans up after a mint that failed with err, and returns what the
// reader is told. Where the token may exist all the same, it is looked for by
// its name: of an answer that makes no sense, the id is not to be trusted
// either. Where Jira cannot be asked now, the intent stays in the ledger.
func (b *backend) notMinted(ctx context.Context, req *logical.Request, m *mint, err error) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	r := m.record
	err = fmt.Errorf("minting as account %q: %w", r.Account, err)
	if !jira.NothingMade(err) {
		if e := b.settle(ctx, m.client, r); e != nil {
			b.log(req).Warn("a token may have been made; its intent stays in the ledger", "id", r.ID, "account", r.Account, "token_name", r.Name, "error", e)
		}
		return err
	}
	if e := b.ledger.Forget(ctx, r.ID); e != nil {
		b.log(req).Warn("nothing was made, but the intent stays in the ledger", "id", r.ID, "error", e)
	}
	if jira.Is(err, jira.Denied) {
		return b.whyDenied(ctx, req, m, err)
	}
	return err
}

// whyDenied tells whether Jira denied a mint because the user owns as many
// tokens as he may. Jira says so in its users' language only, so his tokens
// are counted.
func (b *backend) whyDenied(ctx context.Context, req *logical.Request, m *mint, denied error) error {
	a, err := b.loadAccount(ctx, req.Storage, m.record.Account)
	if err != nil {
		return denied
	}
	tokens, err := m.client.Tokens(ctx)
	if err != nil {
		return denied
	}
	said := fmt.Sprintf("%v; user %q owns %d tokens, max_tokens is %d, and Jira's own cap is its property atlassian.pats.max.tokens.per.user", denied, m.record.Username, len(tokens), a.MaxTokens)
	if len(tokens) >= a.MaxTokens {
		return &noRoom{text: said + ": delete tokens of his that nobody needs, end a lease, or raise both"}
	}
	return mistake(said)
}

// takeBack ends a token that was made but cannot be handed out, because of
// why, which it returns. Where Jira does not end it, the ledger keeps it.
func (b *backend) takeBack(ctx context.Context, req *logical.Request, m *mint, why error) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	r := m.record
	if err := m.client.DeleteToken(ctx, r.TokenID); err != nil {
		b.log(req).Warn("a token that nobody received could not be deleted; the ledger keeps it", "id", r.ID, "account", r.Account, "token_id", r.TokenID, "token_name", r.Name, "error", err)
		if err := b.ledger.Owe(ctx, r.ID, r.TokenID); err != nil {
			b.log(req).Warn("nor could that be written; its intent stays in the ledger", "id", r.ID, "error", err)
		}
		return why
	}
	if err := b.ledger.Forget(ctx, r.ID); err != nil {
		b.log(req).Warn("a token that nobody received is deleted, but its record stays in the ledger", "id", r.ID, "error", err)
	}
	return why
}

func remoteAddress(req *logical.Request) string {
	if req.Connection == nil {
		return ""
	}
	return req.Connection.RemoteAddr
}

// rfc3339 writes a time for the API and for logs, "" where there is none.
func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
