package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vault-plugin-secrets-jira/backend/fault"
)

// A mint whose answer was lost leaves a doubt: nobody knows whether Jira made the
// token. The mint itself looks at once, and where that fails, too, nothing more is
// minted for the account until it is known: what hides the one from us would hide the
// next, and each takes a place. So the reader is told what is wrong with Jira, not that
// the account is full.

// inDoubt is a mint that was not sent, for of no account with room it is known what
// became of the mints before.
type inDoubt struct{ accounts []string }

// Error says for whom it is not known.
func (d *inDoubt) Error() string {
	return fmt.Sprintf("nothing is minted until it is known what became of a mint before: try again; account %s", strings.Join(d.accounts, ", "))
}

// placed calls place, which writes the intent of a mint. Where what its accounts had
// before is in the way, that is settled, and place called again.
func (b *backend) placed(ctx context.Context, place func() error) error {
	err := place()
	if unknown := (*inDoubt)(nil); errors.As(err, &unknown) {
		if err := b.dispel(ctx, unknown.accounts); err != nil {
			return err
		}
		err = place()
	}
	if full := (*fault.Capacity)(nil); errors.As(err, &full) && b.settleAccounts(ctx, false, full.Accounts...) {
		err = place()
	}
	return err
}

// dispel finds out, for one of the accounts, what became of its mints. The error says
// why it could not for any.
func (b *backend) dispel(ctx context.Context, accounts []string) error {
	var failed error
	for _, account := range accounts {
		err := b.settleAccount(ctx, account, b.ledger.Doubts(account)...)
		if err == nil || !b.ledger.InDoubt(account) { // be it that what was found could not be ended yet
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("nothing is minted for account %q until it is known what became of a mint before: %w", account, err))
	}
	return failed
}
