package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
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
			"metadata": {
				Type:        framework.TypeString,
				Description: fmt.Sprintf("What the credential is for, in your words, at most %d bytes. It is kept with its record, and tokens/ shows it. No secret.", mostMetadata),
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
		"token_id":   {Type: framework.TypeString, Required: true, Description: "Jira's id of the token. Empty of an access token, which has none."},
		"token_name": {Type: framework.TypeString, Required: true, Description: "The token's name in Jira, which leads back to this lease."},
		"username":   {Type: framework.TypeString, Required: true, Description: "The Jira user that the token is; of an access token the client id of its service account."},
		"url":        {Type: framework.TypeString, Required: true, Description: "Address of Jira to call with it; on Jira Cloud that is Atlassian's gateway."},
		"scopes":     {Type: framework.TypeStringSlice, Description: "What an access token was granted, or an API token was made with. A personal access token, which is the whole user, has none."},
		"revocable":  {Type: framework.TypeBool, Required: true, Description: "The credential ends with its lease. False of an access token that only its own expiry ends."},
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
			"revocable": true,
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
	resp, err := b.issue(ctx, req, d, name)
	if err != nil { // what is asked for may be none, and he who asks be gone
		if r, e := load[role](context.WithoutCancel(ctx), &b.decoded, b.storage, rolesPrefix+name); e == nil && r == nil {
			return nil, err
		}
	}
	count(b.metrics.mints, name, resultOf(err))
	if err != nil {
		b.event(eventCreate, req.Path, err, "role", name, "request_id", readerOf(req).RequestID)
	}
	return resp, err
}

func (b *backend) issue(ctx context.Context, req *logical.Request, d *framework.FieldData, name string) (*logical.Response, error) {
	increment, err := askedTTL(d)
	if err != nil {
		return nil, err
	}
	if err := checkMetadata(req); err != nil {
		return nil, err
	}
	m, token, secret, err := b.mint(ctx, readerOf(req), name, increment)
	if err != nil {
		return nil, err
	}
	defer b.ledger.Over(m.record.ID)
	m.record.TokenID, m.record.Expires = token.ID, ledger.At(token.Expires)
	if err := m.fit(token, b.now()); err != nil {
		return nil, b.takeBack(ctx, m, secret, err)
	}
	if err := b.ledger.Issue(ctx, m.record, m.ttl); err != nil {
		if state := (*ledger.StateError)(nil); errors.As(err, &state) {
			err = fault.Unavailable("this credential was given up while it was made: read again")
		}
		return nil, b.takeBack(ctx, m, secret, err)
	}
	if ctx.Err() != nil {
		return nil, b.takeBack(ctx, m, secret, fmt.Errorf("the reader is gone: %w", context.Cause(ctx)))
	}
	l := m.lease()
	kept := l.encode() // its values go into the log and the answer as they are, which saves a tenth of what a mint allocates
	b.log().Info("token issued", "role", kept["role"], "account", kept["account"], "token_id", kept["token_id"], "token_name", kept["token_name"], "request_id", m.record.Reader.RequestID)
	b.eventOf(eventCreate, req.Path, m.record, nil, "request_id", m.record.Reader.RequestID)
	revocable, renewable := true, true
	if typeOf(m.record).is().expiresOnly {
		revocable, renewable = m.revocationURL != "", false
		m.max = m.ttl
		if !revocable {
			m.warnings = append(m.warnings, fmt.Sprintf("this access token cannot be revoked: it works until %s, whatever becomes of its lease", l.ExpiresAt))
		}
	}
	resp := &logical.Response{
		Warnings: m.warnings,
		Data: map[string]any{
			"token":      secret,
			"token_type": "Bearer",
			"token_id":   kept["token_id"],
			"token_name": kept["token_name"],
			"username":   kept["username"],
			"url":        m.api.URL(),
			"expires_at": kept["expires_at"],
			"revocable":  revocable,
		},
		Secret: &logical.Secret{
			LeaseOptions: logical.LeaseOptions{TTL: m.ttl, MaxTTL: m.max, Renewable: renewable},
			InternalData: kept,
		},
	}
	if typeOf(m.record).is().scoped {
		resp.Data["scopes"] = append([]string{}, m.granted...)
	}
	return resp, nil
}

// askedTTL is the lease that the reader asks for, 0 where he leaves it to the
// role.
func askedTTL(d *framework.FieldData) (time.Duration, error) {
	if _, asked := d.Raw["ttl"]; !asked {
		return 0, nil
	}
	ttl := time.Duration(d.Get("ttl").(int)) * time.Second //nolint:errcheck // the schema's type
	if ttl <= 0 {
		return 0, fault.Userf("ttl must be more than zero; leave it out for the role's")
	}
	return ttl, nil
}

// mostMetadata bounds what a reader says of a credential, in bytes.
const mostMetadata = 512

// checkMetadata refuses what cannot be a reader's words.
func checkMetadata(req *logical.Request) error {
	raw, sent := req.Data["metadata"]
	text, ok := raw.(string)
	switch {
	case !sent:
	case !ok:
		return fault.Userf("metadata is no text")
	case len(text) > mostMetadata:
		return fault.Userf("metadata has %d bytes, and %d is the most", len(text), mostMetadata)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return fault.Userf("metadata holds a control character, or is no UTF-8")
	}
	return nil
}

// readerOf is who sent req, and what they say it is for. Each of it has a bound: a
// reader can make a display name of a megabyte, and Vault bounds none of it.
func readerOf(req *logical.Request) ledger.Reader {
	metadata, _ := req.Data["metadata"].(string) // of a read of credentials, and checked there
	return ledger.Reader{EntityID: req.EntityID, DisplayName: req.DisplayName, RequestID: req.ID, RemoteAddress: remoteAddress(req), Metadata: metadata}.Cut()
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
