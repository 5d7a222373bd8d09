package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// recordFields are what is told of one token.
func recordFields() map[string]*framework.FieldSchema {
	text := func(what string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Required: true, Description: what}
	}
	return map[string]*framework.FieldSchema{
		"id":             text("The ledger's id, which is part of the token's name in Jira."),
		"state":          text("intended: Jira was asked for it, and its answer is not known. issued: a lease holds it, or the engine itself. owed: it has to go, and Jira has not ended it yet. ended: it is gone, and its lease not over."),
		"type":           text("What it is: pat, ephemeral_user, oauth2 or cloud_api_token."),
		"kept":           text("own of what the engine logs in with, static of a static role's. Empty of what a lease holds."),
		"role":           text("The role that it was read of; static/ and the name of a static role's."),
		"account":        text("The account that it belongs to; ~admin of what the config's administrator looks after."),
		"username":       text("The Jira user that it is."),
		"token_id":       text("Jira's id of it. Empty where it is not known, or has none."),
		"token_name":     text("Its name in Jira."),
		"issued_at":      text("Since when it is issued, RFC 3339 in UTC. Empty if it never was."),
		"lease_end":      text("When its lease ends, unless it is renewed. Vault's own idea may be earlier."),
		"expires_at":     text("When Jira itself ends it. Empty if never, or not known."),
		"owed_since":     text("Since when it has to go."),
		"entity_id":      text("The entity of Vault that asked for it."),
		"display_name":   text("The display name of the Vault token that asked for it."),
		"remote_address": text("From where it was asked for."),
		"metadata":       text("What he who asked says that it is for."),
		"request_id":     text("The id of that request, which Vault's audit log has too."),
	}
}

func recordExample() map[string]any {
	return map[string]any{ //nolint:gosec // a sample, which no Jira knows
		"id": "5b2tq6hznr4wjd7c", "state": "issued", "type": "pat", "kept": "", "role": "readonly", "account": "ci-bot", "username": "ci-bot",
		"token_id": "412", "token_name": "vault-k3xm2a-5b2tq6hznr4wjd7c-readonly",
		"issued_at": "2026-03-02T08:15:09Z", "lease_end": "2026-03-02T09:15:09Z", "expires_at": "2026-03-03T08:15:09Z", "owed_since": "",
		"entity_id": "7d2e3179-f69b-450c-7179-ac8ee8bd8ca9", "display_name": "approle-ci", "remote_address": "192.0.2.7", "metadata": "nightly build", "request_id": "c1f3b2a0-0d0e-4b8e-9f1c-6f1b3a2d4c5e",
	}
}

// recordData is r for the API.
func recordData(r *ledger.Record) map[string]any {
	return map[string]any{
		"id": r.ID, "state": string(r.State), "type": typeOf(r).is().name, "kept": string(r.Kept), "role": r.Role, "account": r.Account, "username": r.Username,
		"token_id": r.TokenID, "token_name": r.Name,
		"issued_at": rfc3339(r.IssuedAt.Time()), "lease_end": rfc3339(r.LeaseEnd.Time()), "expires_at": rfc3339(r.Expires.Time()), "owed_since": rfc3339(r.OwedAt.Time()),
		"entity_id": r.Reader.EntityID, "display_name": r.Reader.DisplayName, "remote_address": r.Reader.RemoteAddress, "request_id": r.Reader.RequestID, "metadata": r.Reader.Metadata,
	}
}

func (b *backend) pathTokens() *framework.Path {
	return &framework.Path{
		Pattern:      "tokens/(?P<id>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"id":    {Type: framework.TypeString, Description: "The ledger's id, as tokens/ lists it.", Required: true},
			"live":  {Type: framework.TypeBool, Description: "Ask Jira, too, whether it has the token, and when it was last used.", Query: true},
			"force": {Type: framework.TypeBool, Description: "For a delete: you know that the token is gone from Jira, or have ended it there.", Query: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.edge(b.readToken),
				Summary:  "Read what the ledger knows of a token. Never its secret.",
				Responses: answered(merged(recordFields(), map[string]*framework.FieldSchema{
					"in_jira":          {Type: framework.TypeBool, Description: "With live=true: Jira has it, by its list of the user's tokens, which may lag behind by a minute."},
					"last_accessed_at": {Type: framework.TypeString, Description: "With live=true: when Jira last saw it, by Jira's clock. Empty if never."},
				}), &logical.Response{Data: recordExample()}),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "token"},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback:                    b.edge(b.deleteToken),
				Summary:                     "Remove a damaged record, or one of a token that can never be ended. Needs force=true, and ends nothing in Jira.",
				Responses:                   written(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "delete", OperationSuffix: "token"},
			},
		},
		HelpSynopsis: "What the ledger knows of a token.",
		HelpDescription: strings.TrimSpace(`
Tells who asked for a token, when and of which role, where it stands, and with
live=true whether Jira has it and when it was last used. Never its secret.

A record that makes no sense to the engine, or whose token the engine can never end, is
yours to remove. First delete the token in Jira: its name holds the record's id. Then

    vault delete jira/tokens/5b2tq6hznr4wjd7c force=true

The log keeps what was known of it.
`),
	}
}

func (b *backend) pathRevokeToken() *framework.Path {
	return &framework.Path{
		Pattern:      "tokens/(?P<id>[^/]+)/revoke",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       map[string]*framework.FieldSchema{"id": {Type: framework.TypeString, Description: "The ledger's id, as tokens/ lists it.", Required: true}},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.edge(b.revokeToken),
				Summary:                     "End a token now, whatever its lease says.",
				Examples:                    []framework.RequestExample{{Description: "End a token now.", Data: map[string]any{}}},
				Responses:                   written(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "revoke", OperationSuffix: "token"},
			},
		},
		HelpSynopsis: "End a token now.",
		HelpDescription: strings.TrimSpace(`
Ends a token in Jira now. Its lease renews no more, and ends without a call. Where
Jira does not end it, that is an error, and the engine goes on trying.

    vault write -f jira/tokens/5b2tq6hznr4wjd7c/revoke

What the engine itself logs in with is rotated instead, and so is a static role's.
`),
	}
}

// recordIn returns the record that the request's path names, nil where there is none.
func (b *backend) recordIn(ctx context.Context, d *framework.FieldData) (*ledger.Record, error) {
	id, _ := d.Raw["id"].(string) // as the path's pattern caught it
	if !ledger.IsID(id) {
		return nil, fault.Userf("%q is no id of the ledger's: it has 16 lower-case letters and digits from 2 to 7", id[:min(len(id), 64)])
	}
	r, err := b.ledger.Read(ctx, id)
	if errors.Is(err, ledger.ErrMissing) {
		return nil, nil // as the caller tells
	}
	if errors.Is(err, ledger.ErrUnreadable) {
		return nil, fault.Userf("%v: look for a name with this id in Jira, delete the token there, then delete tokens/%s with force=true", err, id)
	}
	return r, err
}

// deleteToken removes a record that the engine can do nothing more about: one that is
// damaged, or of a token that Jira cannot be brought to end. Only an operator can know
// that its token is gone, so it takes force, and the log keeps what is known of it.
func (b *backend) deleteToken(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	id, _ := d.Raw["id"].(string) // as the path's pattern caught it
	r, err := b.recordIn(ctx, d)
	damaged := slices.IndexFunc(b.ledger.Damaged(), func(one ledger.Damaged) bool { return one.ID == id })
	log := b.log().With("id", id, "by", readerOf(req).DisplayName)
	switch {
	case damaged >= 0 && !forced(d):
		return nil, err
	case damaged >= 0:
		one := b.ledger.Damaged()[damaged]
		log.Warn("a damaged record of the ledger is removed, and its token is the operator's to end", "account", one.Account, "token_id", one.TokenID, "token_name", one.Name, "bytes", one.Size, "error", one.Why)
		return nil, b.ledger.Forget(ctx, id)
	case err != nil || r == nil:
		return nil, err
	case r.State == ledger.Issued:
		return nil, fault.Userf("the token is in use: revoke it with tokens/%s/revoke, or end its lease", id)
	case r.State == ledger.Ended:
		return nil, fault.Userf("the token is gone, and its record goes when its lease is over")
	case r.State == ledger.Intended && b.ledger.Minting(r.Account):
		return nil, fault.Unavailable("a token is being made for its account this moment: try again")
	case !forced(d):
		return nil, fault.Userf("the token may be alive in Jira, and the engine goes on trying to end it: end it there, then delete this with force=true")
	}
	log.Warn("the record of a token that is not proven gone is removed, and its token is the operator's to end", "state", string(r.State), "account", r.Account, "username", r.Username, "token_id", r.TokenID, "token_name", r.Name, "expires", rfc3339(r.Expires.Time()))
	if err := b.ledger.Forget(ctx, id); err != nil {
		return nil, err
	}
	b.debts.pay(id) // it is no debt any more, and was not paid
	b.ledger.Wake()
	return nil, nil
}

func (b *backend) readToken(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := b.recordIn(ctx, d)
	if err != nil || r == nil {
		return nil, err
	}
	resp := &logical.Response{Data: recordData(r)}
	if live, _ := d.Get("live").(bool); live {
		if err := b.live(ctx, r, resp); err != nil {
			resp.AddWarning(fmt.Sprintf("Jira could not be asked: %v", err))
		}
	}
	return resp, nil
}

// live asks Jira about the credential of r, and adds to resp what it says.
func (b *backend) live(ctx context.Context, r *ledger.Record, resp *logical.Response) error {
	t := typeOf(r)
	client := (*jira.Client)(nil)
	if !t.is().expiresOnly {
		var err error
		if client, err = b.client(ctx, r.Account); err != nil {
			return err
		}
	}
	there, last, err := t.lookUp(ctx, client, r)
	if err != nil {
		return err
	}
	resp.Data["in_jira"] = there
	if !t.is().throwAway {
		resp.Data["last_accessed_at"] = rfc3339(last)
	}
	return nil
}

func (b *backend) revokeToken(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := b.recordIn(ctx, d)
	if err != nil {
		return nil, err
	}
	switch {
	case r == nil:
		return nil, fault.Userf("the ledger has no token of this id: it is gone, or never was")
	case r.State == ledger.Ended:
		return nil, nil
	case r.Kept == ledger.KeptOwn:
		return nil, fault.Userf("this is what the engine logs in with: replace it with rotate-account or rotate-root, and the last one ends with the overlap")
	case r.Kept == ledger.KeptStatic:
		return nil, fault.Userf("this is the token of %s: replace it with rotate-role, or delete the static role", strings.Replace(r.Role, staticName(""), "static role ", 1))
	case typeOf(r).is().expiresOnly:
		return nil, fault.Userf("only its holder has an access token, and only Vault what was handed out: revoke its lease; without a revocation_url it lives until %s", rfc3339(r.Expires.Time()))
	case r.NeverIssued():
		return nil, fault.Userf("nobody holds it: the engine asks Jira whether it is there, and ends it")
	}
	log := b.log().With("id", r.ID, "role", r.Role, "account", r.Account, "token_id", r.TokenID, "token_name", r.Name)
	recall := b.ledger.Recall
	if isRetired(r.Account) { // whose login is kept for no lease's sake
		recall = func(ctx context.Context, id string, wait time.Duration) error {
			return b.ledger.Take(ctx, id, "", wait)
		}
	}
	if err := recall(ctx, r.ID, patience+undoing); errors.Is(err, ledger.ErrMissing) {
		return nil, nil // its lease has ended this moment
	} else if err != nil {
		return nil, err
	}
	r.Recalled = !isRetired(r.Account)
	if err := b.endNow(ctx, log, r); err != nil {
		log.Warn("a token could not be revoked", "error", err)
		b.debt(r, err.Error())
		b.eventOf(eventRevoke, req.Path, r, err)
		return nil, fmt.Errorf("it is not proven gone, and the engine goes on trying to end it: %w", err)
	}
	if err := b.ledger.Gone(ctx, r); err != nil {
		return nil, err // the token is gone, and the worker finds that
	}
	b.paid(r.ID)
	log.Info("token revoked before its lease is over", "by", readerOf(req).DisplayName)
	b.eventOf(eventRevoke, req.Path, r, nil)
	return nil, nil
}
