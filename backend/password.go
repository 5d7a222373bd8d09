package backend

import (
	"context"
	"fmt"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A password is replaced by the user himself:
//
//	store the next one → set it in Jira → prove it → make it current
//
// From the first step to the last both are stored, and every login knows both: it
// tries the other one once where Jira refuses the one (package jira). So whatever
// is lost on the way, and however late Jira does what it was asked, the engine gets
// in, with one wrong password at most before each right one, of the three after
// which Jira locks a user out.
//
// A next password that may have reached Jira is not forgotten, but tried again: to
// set it twice is to set it once, and a request that comes late cannot undo it. Only
// one that Jira does not like is, once no late request can bring it any more.

// rotatePassword replaces the password have, or finishes a rotation that was left.
func (k *keeper) rotatePassword(ctx context.Context, have *credential) error {
	client, err := k.b.client(ctx, k.account)
	if err != nil {
		return err
	}
	// Whether Jira lets anybody in with a password, and this one, before anything
	// changes.
	if _, err := client.Myself(ctx); err != nil {
		return fmt.Errorf("trying the password in use: %w", err)
	}
	left := have.Next != ""
	lands := left && k.b.now().Sub(time.Unix(have.NextAt, 0)).Abs() < ledger.LateLanding
	next := have.Next
	if !left {
		c, err := k.b.loadConfig(ctx)
		if err != nil {
			return err
		}
		if next, err = k.b.password(ctx, c); err != nil {
			return err
		}
		if next == have.Password {
			return fault.Userf("password_policy made the password that is in use: it must make another each time")
		}
		if err := k.setNext(ctx, have, next); err != nil {
			return err
		}
	}
	// This tells every login of the account, those under way included.
	if client, err = k.b.client(ctx, k.account); err != nil {
		return err
	}
	err = client.ChangePassword(ctx)
	if !lands && jira.Is(err, jira.Denied) && jira.NothingMade(err) {
		if e := k.setNext(ctx, have, ""); e != nil {
			return e
		}
		return fmt.Errorf("setting the new password, which password_policy has to make as Jira wants them: %w", err)
	}
	// Whatever it said: who gets in?
	if _, e := client.Myself(ctx); e != nil {
		return fmt.Errorf("proving the new password, which is stored beside the last one until then: %w", e)
	}
	if client.UsesNext() {
		return k.changed(ctx, next)
	}
	if err == nil {
		err = fault.BadResponse("Jira said that the password is changed, and goes on taking the last one")
	}
	return fmt.Errorf("setting the new password: %w", err)
}

// setNext stores the next password after have.
func (k *keeper) setNext(ctx context.Context, have *credential, next string) error {
	return k.amend(ctx, func(c *credential) error {
		if c.Password != have.Password {
			return errAmended
		}
		c.Next, c.NextAt = next, k.b.now().Unix()
		return nil
	})
}

// changed stores that the next password is the one in use.
func (k *keeper) changed(ctx context.Context, next string) error {
	now := k.b.now().Unix()
	return k.amend(ctx, func(c *credential) error {
		if c.Next != next {
			return errAmended
		}
		c.Replaced = c.Replaced.with(c.Password)
		c.Password, c.Next, c.NextAt = next, "", 0
		c.Since, c.RotatedAt = now, now
		return nil
	})
}
