package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// secrets are the types of leases, one for each type of credential.
func (b *backend) secrets() []*framework.Secret {
	var all []*framework.Secret
	for _, t := range allTypes {
		all = append(all, b.secret(t.is().secretType))
	}
	return all
}

// secret is a type of lease. All types are renewed and revoked by what their data
// say.
func (b *backend) secret(secretType string) *framework.Secret {
	return &framework.Secret{
		Type: secretType,
		Fields: map[string]*framework.FieldSchema{
			"token": {Type: framework.TypeString, Description: "A Jira token.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
		},
		Renew: b.edge(b.renewLease),
		Revoke: func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
			// Vault gives those revokes a deadline that it has queued, and that
			// it will repeat; a person waits for the others.
			_, queued := ctx.Deadline()
			return b.edge(func(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
				l, err := decodeLease(req.Secret.InternalData)
				if err != nil {
					return nil, err
				}
				token, _ := req.Data["token"].(string) // Vault keeps what was answered, and the engine no copy
				return nil, b.revokeLease(ctx, l, token, queued)
			})(ctx, req, d)
		},
	}
}

// lease is what Vault keeps of a token, in the lease's internal data. It is
// all that a revoke needs, even if the ledger had no record. It holds no
// secret, and what was once stored must be readable for ever.
type lease struct {
	ID        string `json:"id"` // the ledger's
	TokenID   string `json:"token_id"`
	TokenName string `json:"token_name"`
	Site      string `json:"url"`
	Account   string `json:"account"`
	Username  string `json:"username"`
	Role      string `json:"role"`
	TTL       int64  `json:"ttl"`        // seconds, as issued
	MaxTTL    int64  `json:"max_ttl"`    // seconds, as issued; Jira's own expiry is later
	ExpiresAt string `json:"expires_at"` // RFC 3339; empty where Jira gave none
	IssuedAt  int64  `json:"issued_at"`  // milliseconds since 1970; 0 in leases of older versions

	// As in the ledger's record. Empty in leases of tokens of an account's own user.

	Type         string `json:"type,omitempty"`
	OnRevoke     string `json:"on_revoke,omitempty"`
	ProjectRoles string `json:"project_roles,omitempty"`
	UserKey      string `json:"user_key,omitempty"`
}

// traits are those of what l holds.
func (l *lease) traits() *traits { return storedType(l.Type).is() }

func (l *lease) encode() map[string]any {
	data := map[string]any{
		"secret_type": l.traits().secretType, // by which the framework finds the way back here
		"id":          l.ID, "token_id": l.TokenID, "token_name": l.TokenName, "url": l.Site,
		"account": l.Account, "username": l.Username, "role": l.Role,
		"ttl": l.TTL, "max_ttl": l.MaxTTL, "expires_at": l.ExpiresAt, "issued_at": l.IssuedAt,
	}
	if l.Type != "" {
		data["type"], data["on_revoke"], data["project_roles"], data["user_key"] = l.Type, l.OnRevoke, l.ProjectRoles, l.UserKey
	}
	return data
}

// decodeLease reads internal data, whose numbers Vault gives back as other
// types than they went in.
func decodeLease(data map[string]any) (*lease, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("the lease's data: %w", err)
	}
	l := &lease{}
	if err := json.Unmarshal(raw, l); err != nil {
		return nil, fmt.Errorf("the lease's data: %w", err)
	}
	if l.ID == "" || l.TokenID == "" && !l.traits().expiresOnly || l.Account == "" {
		return nil, errors.New("the lease's data lacks the token's ids or its account")
	}
	return l, nil
}

// renewLease extends a lease without asking Jira: the token lives as long as
// the lease can, and has to be deleted at its end all the same.
func (b *backend) renewLease(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	l, err := decodeLease(req.Secret.InternalData)
	if err != nil {
		return nil, err
	}
	t, err := b.renew(ctx, l, req.Secret.Increment, req.Secret.IssueTime)
	count(b.metrics.renewals, l.Role, resultOf(err))
	b.eventOfLease(eventRenew, l, err)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{Secret: req.Secret}
	resp.Secret.TTL, resp.Secret.MaxTTL = t.ttl, t.max
	return resp, nil
}

// renew extends l, which was issued then, and tells by what terms.
func (b *backend) renew(ctx context.Context, l *lease, increment time.Duration, issued time.Time) (terms, error) {
	if l.traits().expiresOnly {
		return terms{}, fault.Userf("an access token cannot live longer than Jira has given it: read a new one")
	}
	t, err := b.termsNow(ctx, l)
	if err != nil {
		return terms{}, err
	}
	// Vault will compute the same from the same, and lets the reader's
	// increment go before our TTL.
	ttl, _, err := framework.CalculateTTL(b.System(), increment, t.ttl, 0, t.max, 0, issued)
	if err != nil {
		return terms{}, fault.Userf("%v: read a new credential", err)
	}
	// The ledger's end goes first: it may be later than Vault's, never
	// earlier, or the token could be deleted under a living lease.
	if err := b.ledger.Extend(ctx, l.ID, ttl); err != nil {
		state := (*ledger.StateError)(nil)
		if errors.As(err, &state) || errors.Is(err, ledger.ErrMissing) {
			return terms{}, fault.Userf("this credential is being revoked: read a new one")
		}
		return terms{}, err
	}
	return t, nil
}

// termsNow are the terms that l was issued with, or what its role has come
// down to since. A role that is gone changes nothing.
func (b *backend) termsNow(ctx context.Context, l *lease) (terms, error) {
	if l.TTL <= 0 || l.MaxTTL <= 0 {
		return terms{}, errors.New("the lease's data lacks its terms")
	}
	t := terms{ttl: time.Duration(l.TTL) * time.Second, max: time.Duration(l.MaxTTL) * time.Second}
	r, err := load[role](ctx, &b.decoded, b.storage, rolesPrefix+l.Role)
	if err != nil || r == nil {
		return t, err
	}
	if r.TTL > 0 {
		t.ttl = min(t.ttl, time.Duration(r.TTL)*time.Second)
	}
	if r.MaxTTL > 0 {
		t.max = min(t.max, time.Duration(r.MaxTTL)*time.Second)
	}
	return t, nil
}

// takenOver is how long a token has to be owed until the engine takes the debt
// over from Vault. A queued revoke is tried six times in some ten minutes, and
// its lease turns irrevocable with the last; this leaves tries to spare.
const takenOver = time.Minute

// revokeLease deletes the token in Jira and then forgets it. It says done when the
// token is proven gone; until then the ledger owes it, and the worker goes on
// trying, whatever becomes of the lease.
//
// A revoke that is queued asks Jira only once. After that it waits for the
// worker, and lets Vault drop the lease when the debt is old enough. Any other
// is told the truth.
func (b *backend) revokeLease(ctx context.Context, l *lease, token string, queued bool) error {
	result, err := b.revokeHeld(ctx, l, token, queued)
	if err != nil {
		result = resultFailed
	}
	count(b.metrics.revokes, l.Role, result)
	if err != nil || result == resultDone { // nothing is told to be revoked that lives
		b.eventOfLease(eventRevoke, l, err)
	}
	return err
}

// revokeHeld is revokeLease, and tells how it went where it did not fail.
func (b *backend) revokeHeld(ctx context.Context, l *lease, token string, queued bool) (result string, err error) {
	if l.traits().expiresOnly {
		return b.revokeAccess(ctx, l, token, queued)
	}
	log := b.log().With("id", l.ID, "role", l.Role, "account", l.Account, "token_id", l.TokenID, "token_name", l.TokenName)
	r, err := b.ledger.Read(ctx, l.ID)
	missing := errors.Is(err, ledger.ErrMissing)
	switch {
	case err == nil && r.State == ledger.Ended: // somebody ended it before
		if err := b.ledger.Forget(ctx, l.ID); err != nil {
			return "", err
		}
		log.Info("the lease of a token that was ended before is over")
		return resultEnded, nil
	case err != nil: // none, or none to be had: the lease's data is enough
		if r, err = l.record(); err != nil {
			return "", err
		}
	case r.State == ledger.Owed && queued:
		// A clock that was set back does not make a debt young again.
		if owed := b.now().Sub(r.OwedAt.Time()); owed.Abs() < takenOver {
			return "", fault.Unavailable("the token is still to be ended in Jira: the engine goes on trying, and the log says why it failed")
		}
		log.Warn("Jira has not ended a token yet: the engine goes on trying, and Vault may drop the lease", "owed_since", r.OwedAt.Time())
		return resultTakenOver, nil
	default:
		if r.TokenID == "" {
			r.TokenID = l.TokenID
		}
		if queued && r.State == ledger.Issued {
			// Nobody may have asked for this: the lease has run out, as this node
			// sees it. One that was deposed may not know that its successor has
			// renewed it, but it cannot write either. Our own date of the end
			// tells nothing, for Vault's may be earlier.
			if err := b.ledger.Take(ctx, l.ID, l.TokenID, patience+undoing); err != nil && !errors.Is(err, ledger.ErrMissing) {
				return "", err
			}
		}
	}
	if err := b.endNow(ctx, log, r); err != nil {
		return b.notRevoked(ctx, log, l, r, queued && missing, err)
	}
	if err := b.ledger.Forget(ctx, l.ID); err != nil {
		log.Warn("a token is revoked, but its record could not be removed", "error", err)
		return "", err
	}
	b.paid(l.ID)
	log.Info("token revoked")
	return resultDone, nil
}

// notRevoked owes the token of l, of which r is the record, because err kept it from being
// ended. missing tells that Vault has queued the revoke, and that the ledger had no record.
func (b *backend) notRevoked(ctx context.Context, log hclog.Logger, l *lease, r *ledger.Record, missing bool, err error) (result string, _ error) {
	if b.endedBefore(ctx, l) {
		log.Warn("token ended before, and its account or the config deleted since")
		return resultDone, nil
	}
	e := b.owe(ctx, l)
	if e != nil {
		err = fmt.Errorf("%w; nor could the debt be written: %w", err, e)
	}
	log.Warn("a token could not be revoked", "error", err)
	b.debt(r, err.Error())
	if e == nil && missing {
		// Whatever an earlier try of Vault's left was paid meanwhile, and nobody knows how
		// many tries are left. What the ledger owes now is looked after without the lease.
		log.Warn("Jira has not ended a token yet: the engine goes on trying, and Vault may drop the lease", "owed_since", b.now())
		return resultTakenOver, nil
	}
	return "", err
}

// endedBefore tells whether l's token was proven gone before: by a revoke that
// Vault did not live to note, or by a delete with force. The ledger has no
// record of it, and forgets none that is not proven gone; and there is no account
// or no config to ask Jira with, which cannot be deleted while the ledger has
// records of them.
func (b *backend) endedBefore(ctx context.Context, l *lease) bool {
	if _, err := b.ledger.Read(ctx, l.ID); !errors.Is(err, ledger.ErrMissing) {
		return false
	}
	c, err := load[config](ctx, &b.decoded, b.storage, configKey)
	if err != nil || c == nil {
		return err == nil
	}
	if l.Account == adminAccount {
		return c.Admin.kind() == ""
	}
	a, err := load[account](ctx, &b.decoded, b.storage, accountsPrefix+l.Account)
	return err == nil && a == nil
}

// endNow ends the credential of r as its account.
func (b *backend) endNow(ctx context.Context, log hclog.Logger, r *ledger.Record) error {
	client, err := b.client(ctx, r.Account)
	if err != nil {
		return err
	}
	if err := typeOf(r).end(ctx, log, b, client, r); err != nil {
		return fmt.Errorf("revoking as account %q: %w", r.Account, err)
	}
	return nil
}

// owe writes that l's token has to go, with a record of its own where the
// ledger has none. It is written even if the request's time is over.
func (b *backend) owe(ctx context.Context, l *lease) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	err := b.ledger.Owe(ctx, l.ID, l.TokenID)
	if !errors.Is(err, ledger.ErrMissing) {
		return err
	}
	r, err := l.record()
	if err != nil {
		return err
	}
	return b.ledger.Adopt(ctx, r)
}

// record is what the ledger's would be, where it has none. That it was never intended
// tells that its id may be another's by now; see [ledger.Ledger.Doubted].
func (l *lease) record() (*ledger.Record, error) {
	r := &ledger.Record{
		ID: l.ID, Name: l.TokenName, TokenID: l.TokenID,
		Site: l.Site, Account: l.Account, Username: l.Username, Role: l.Role,
		Type: l.Type, OnRevoke: l.OnRevoke, ProjectRoles: l.ProjectRoles, UserKey: l.UserKey,
		IssuedAt: ledger.Time(l.IssuedAt),
	}
	if l.ExpiresAt != "" {
		expires, err := time.Parse(time.RFC3339, l.ExpiresAt)
		if err != nil {
			return nil, fmt.Errorf("the lease's data: %w", err)
		}
		r.Expires = ledger.At(expires)
	}
	return r, nil
}
