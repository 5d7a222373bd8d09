package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// retired is an account, or the config's admin, that was deleted by force while Jira had still tokens
// of it to end: what it takes to log in, sealed, until the last is gone. It
// looks after their records under a name that no account can have.
type retired struct {
	Config  config  `json:"config"`
	Account account `json:"account"`
}

// isAt tells whether r's tokens are in the Jira that c is of.
func (r *retired) isAt(c *config) bool {
	return c.URL == r.Config.URL && c.cloud() == r.Config.cloud()
}

// retiredMark is what stands in a retired account's name, and in no account's.
const retiredMark = "~"

func isRetired(account string) bool {
	return strings.Contains(account, retiredMark) && account != adminAccount
}

// unretired is the name that a retired account had; of any other its own.
func unretired(account string) string {
	if isRetired(account) {
		return account[:strings.LastIndex(account, retiredMark)]
	}
	return account
}

// retire keeps what account name needs to end those of its tokens whose records are
// ids, of which no lease holds one any more, in this order. It tells under which name
// they are looked after, if there are any. The caller holds b.resources.
//
// A crash after the first write leaves a retired account that looks after none,
// which is removed within a minute; one in between leaves some of the records with the
// account, for another delete.
func (b *backend) retire(ctx context.Context, name string, ids []string) (string, error) {
	if err := b.ledgerIsWhole(); err != nil {
		return "", err
	}
	if len(ids) == 0 {
		return "", nil
	}
	if b.ledger.Minting(name) {
		return "", fault.Unavailable(fmt.Sprintf("a token is being made for account %q this moment: try again", name))
	}
	c, err := b.loadConfig(ctx)
	if err != nil {
		return "", err
	}
	a, err := b.loginOf(ctx, name)
	if err != nil {
		return "", err
	}
	to := name + retiredMark + ledger.NewID()
	if err := store(ctx, b.storage, retiredPrefix+to, retired{*c, *a}); err != nil {
		return "", err
	}
	for _, id := range ids {
		if err := b.ledger.Move(ctx, id, to); err != nil && !errors.Is(err, ledger.ErrMissing) {
			return "", err
		}
	}
	return to, nil
}

// retiredClient returns the client that calls its site as retired account name: as the
// current config says, where that is of the same site.
// Where its user is an account again, that one's login is the better one, and so is
// the config's of now where it is what the account logs in with: who wrote it has
// had it checked.
func (b *backend) retiredClient(ctx context.Context, name string) (*jira.Client, error) {
	r, err := load[retired](ctx, &b.decoded, b.storage, retiredPrefix+name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fmt.Errorf("what retired account %q logs in with is lost: end its tokens in Jira by hand, tokens/ with account=%s lists them", name, name)
	}
	var now *config
	if c, err := load[config](ctx, &b.decoded, b.storage, configKey); err == nil && c != nil && r.isAt(c) {
		now = c
		// Users anybody may end who administers Jira, tokens only he whose they are.
		if strings.HasPrefix(name, adminAccount) && c.Admin.kind() != "" && (len(b.ledger.Own(name)) == 0 || c.Admin.sameUser(&r.Account.credential)) {
			return b.admin(c)
		}
		if again, err := b.accountOf(ctx, &r.Account.credential, ""); err == nil && again != "" {
			return b.client(ctx, again)
		}
		if r.Account.traits().orgKey && c.cloud() && c.Admin.Token != "" {
			r = &retired{*c, r.Account} // with the organisation's key of now
		}
	}
	return b.sites.retired(name, now, r)
}

// dropRetired removes what a retired account logs in with once it looks after
// nothing any more.
func (b *backend) dropRetired(ctx context.Context, name string) error {
	if !isRetired(name) || slices.Contains(b.ledger.Accounts(), name) {
		return nil
	}
	b.resources.Lock() // lest one is removed that is being made
	defer b.resources.Unlock()
	// A move that was answered with an error may have landed: storage decides.
	for _, id := range b.ledger.IDs(unretired(name)) {
		if err := b.ledger.Refresh(ctx, id); err != nil && !errors.Is(err, ledger.ErrMissing) {
			return err
		}
	}
	if slices.Contains(b.ledger.Accounts(), name) || len(b.damagedOf(name)) > 0 {
		return nil
	}
	b.sites.forget(name)
	return remove(ctx, &b.decoded, b.storage, retiredPrefix+name)
}

// dropAllRetired is dropRetired for those that a crash, or a write that failed,
// has left.
func (b *backend) dropAllRetired(ctx context.Context) error {
	names, err := b.storage.List(ctx, retiredPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := b.dropRetired(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
