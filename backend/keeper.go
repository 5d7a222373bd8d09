package backend

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// keeper looks after one credential: what the engine logs in with as an account, or
// as the config's admin, or what a static role hands out.
type keeper struct {
	b       *backend
	name    string // among all that are rotated
	account string // whose token it is
	role    string // the static role's name; empty of the engine's own
}

// A token that no lease holds is replaced by one that the engine mints with it, or,
// for a static role, with its account's login:
//
//	ledger: intend → mint → ledger: issue → store as next → prove → make it current
//	→ after the overlap: ledger: owe the last → delete it in Jira
//
// What stands in storage decides: the token in use, the next one if there is one,
// and the last one while the overlap lasts. Whatever else the ledger has as kept of
// an account is of no use to anybody, for its secret was never stored, and is ended.
//
// What a crash leaves after each step:
//
//   - after intend, or after the mint: the token is looked for by its name, and ended;
//   - after issue: a kept token that nobody uses, which is ended;
//   - after it was stored as next: whoever looks next proves it, and goes on;
//   - after it became current: the last one, which ends when the overlap is over.
//
// The one in use is never given up before the next is proven and stored in its place.

// rotated is what the engine has made of a credential itself, as part of it. Times are
// seconds since 1970.
type rotated struct {
	Since     int64  `json:"since,omitempty"`            // it is what it is: written, or rotated
	RotatedAt int64  `json:"rotated_at,omitempty"`       // 0: never
	Expires   int64  `json:"token_expires_at,omitempty"` // in Jira; 0: never, or not known
	RecordID  string `json:"record_id,omitempty"`        // the ledger's, of a token that the engine minted
	TokenID   string `json:"token_id,omitempty"`         // Jira's, of the same

	Next   string `json:"next,omitempty"`    // the token or password that is to take its place
	NextID string `json:"next_id,omitempty"` // the ledger's, of a token
	NextAt int64  `json:"next_at,omitempty"` // it was stored, of a password

	PreviousID      string `json:"previous_id,omitempty"`       // the ledger's, of the token before
	PreviousTokenID string `json:"previous_token_id,omitempty"` // Jira's, of one that was brought
	PreviousEnd     int64  `json:"previous_end,omitempty"`      // when that has to go; 0: there is none

	Replaced replaced `json:"replaced,omitempty"`
}

// staticName is a static role's name among all that are rotated, and in the ledger.
// No account and no role can have it.
func staticName(role string) string { return "static/" + role }

// what names it in sentences.
func (k *keeper) what() string {
	switch {
	case k.role != "":
		return fmt.Sprintf("static role %q", k.role)
	case k.account == adminAccount:
		return "the config's credential"
	}
	return fmt.Sprintf("account %q", k.account)
}

// nothing is the error of one that has nothing to rotate.
func (k *keeper) nothing() error {
	if k.account == adminAccount && k.role == "" {
		return fault.Userf("config has no admin credential to rotate: write it with username, and token or password")
	}
	return fault.Userf("there is no %s", k.what())
}

// load reads the credential. It is nil where there is none.
func (k *keeper) load(ctx context.Context) (*credential, error) {
	switch {
	case k.role != "":
		r, err := load[staticRole](ctx, &k.b.decoded, k.b.storage, staticRolesPrefix+k.role)
		if err != nil || r == nil {
			return nil, err
		}
		k.account = r.Account
		return &r.credential, nil
	case k.account == adminAccount:
		c, err := load[config](ctx, &k.b.decoded, k.b.storage, configKey)
		if err != nil || c == nil || c.cloud() { // an organisation's key is nobody's token
			return nil, err
		}
		return &c.Admin, nil
	}
	a, err := load[account](ctx, &k.b.decoded, k.b.storage, accountsPrefix+k.account)
	if err != nil || a == nil {
		return nil, err
	}
	return &a.credential, nil
}

// amend changes the stored credential, which may be another than the one that was
// loaded: then change fails.
func (k *keeper) amend(ctx context.Context, change func(*credential) error) error {
	k.b.resources.Lock()
	defer k.b.resources.Unlock()
	switch {
	case k.role != "":
		return amend(ctx, k.b, k.b.storage, staticRolesPrefix+k.role, func(r *staticRole) error { return change(&r.credential) })
	case k.account == adminAccount:
		return amend(ctx, k.b, k.b.storage, configKey, func(c *config) error { return change(&c.Admin) })
	}
	return amend(ctx, k.b, k.b.storage, accountsPrefix+k.account, func(a *account) error { return change(&a.credential) })
}

func amend[T any](ctx context.Context, b *backend, s logical.Storage, key string, change func(*T) error) error {
	have, err := load[T](ctx, &b.decoded, s, key)
	if err != nil {
		return err
	}
	if have == nil {
		return errAmended
	}
	v := *have
	if err := change(&v); err != nil {
		return err
	}
	return store(ctx, s, key, &v)
}

// errAmended is why a rotation stops that somebody has overtaken.
var errAmended = fault.User("it was written or deleted meanwhile")

// keeping tells what the ledger has to know of k's tokens.
func (k *keeper) keeping() ledger.Keeping {
	if k.role != "" {
		return ledger.KeptStatic
	}
	return ledger.KeptOwn
}
