package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// rotateToken replaces the token have.
func (k *keeper) rotateToken(ctx context.Context, by ledger.Reader, have *credential) (warnings []string, err error) {
	if have.Next != "" {
		if done, err := k.finish(ctx, have); err != nil || done {
			return nil, err
		}
		if have, err = k.load(ctx); err != nil || have == nil {
			return nil, errors.Join(err, k.nothing())
		}
	}
	if have.PreviousEnd != 0 {
		if err := k.endPrevious(ctx); err != nil {
			return nil, err
		}
		if k.role != "" {
			warnings = append(warnings, "the overlap of the last rotation was not over: the token before the last is ended now")
		}
	}
	// What was owed before takes a place that the next one needs.
	k.b.settleAccounts(ctx, false, k.account)
	client, err := k.b.client(ctx, k.account)
	if err != nil {
		return nil, err
	}
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the tokens of user %q: %w", client.Username(), err)
	}
	a, err := k.b.loginOf(ctx, k.account)
	if err != nil {
		return nil, err
	}
	onFallback := k.b.sites.onFallback(k.account, a) // Jira has refused the token
	next, secret, err := k.mint(ctx, by, have, len(tokens))
	if err != nil {
		return nil, err
	}
	if _, err := k.finish(ctx, &credential{Username: have.Username, UserKey: have.UserKey, rotated: rotated{Next: secret, NextID: next.ID}}); err != nil {
		return nil, err
	}
	rest := byHand(tokens)
	if k.role == "" && have.RecordID == "" && have.OwnTokenID == "" && !onFallback && len(rest) > 0 {
		warnings = append(warnings, fmt.Sprintf("the token that the engine was given is alive in Jira, and its id is not known: it is one of those of user %q, %s; delete it by hand", have.Username, tokensNamed(rest)))
	}
	return warnings, nil
}

// mint makes the token after have, whose user owns so many now, and stores it as next.
func (k *keeper) mint(ctx context.Context, by ledger.Reader, have *credential, owned int) (*ledger.Record, string, error) {
	var m *mint
	if err := k.b.placed(ctx, func() (err error) {
		m, err = k.intend(ctx, by, owned)
		return err
	}); err != nil {
		return nil, "", err
	}
	r := m.record
	defer k.b.ledger.Over(r.ID)
	token, secret, made, err := k.b.make(ctx, m)
	if err != nil {
		return nil, "", k.b.notMinted(ctx, m, made, err)
	}
	r.TokenID, r.Expires = token.ID, ledger.At(token.Expires)
	if err := k.b.ledger.Issue(ctx, r, 0); err != nil {
		return nil, "", k.b.takeBack(ctx, m, secret, err)
	}
	err = k.amend(ctx, func(c *credential) error {
		if c.Token != have.Token {
			return errAmended
		}
		c.Next, c.NextID = secret, r.ID
		return nil
	})
	if errors.Is(err, errAmended) {
		err = k.b.takeBack(ctx, m, secret, err)
	}
	// After another error it may be stored all the same, and a node that took over be
	// using it: who looks next goes on with it, or ends it.
	return r, secret, err
}

// room is what the next token needs to have, of user username, who owns so many.
func (k *keeper) room(ctx context.Context, username string, owned int) (room ledger.Room, err error) {
	if k.account == adminAccount {
		return room, nil
	}
	a, err := k.b.loadAccount(ctx, k.account)
	if err != nil {
		return room, err
	}
	if owned >= a.MaxTokens {
		return room, &fault.Capacity{Text: fmt.Sprintf("user %q owns %d tokens and max_tokens is %d, so there is no place for the next one: delete tokens of his that nobody needs, or end a lease", username, owned, a.MaxTokens)}
	}
	if k.role != "" {
		if err := a.mayBeUsedBy(k.account, k.name); err != nil {
			return room, err
		}
		room.Account = a.places()
	}
	return room, nil
}

// intend writes the intent of the next token. The error is an inDoubt where nobody knows
// what became of a mint of its account before.
func (k *keeper) intend(ctx context.Context, by ledger.Reader, owned int) (*mint, error) {
	// From the intent on the account is given to no other user.
	k.b.resources.RLock()
	defer k.b.resources.RUnlock()
	if k.b.System().Tainted() { // what is made while it is disabled nobody would end
		return nil, fault.Unavailable("the mount is being disabled or moved: try again when that is done")
	}
	client, err := k.b.client(ctx, k.account)
	if err != nil {
		return nil, err
	}
	c, err := k.b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	room, err := k.room(ctx, client.Username(), owned)
	if err != nil {
		return nil, err
	}
	mount, err := k.b.mount.get(ctx, &k.b.decoded, k.b.storage)
	if err != nil {
		return nil, err
	}
	id, called := ledger.NewID(), "own"
	if k.role != "" {
		called = k.role
	}
	m := &mint{client: client, api: client.Site(), pool: 1, record: &ledger.Record{
		ID: id, Name: ledger.Name(mount, id, called), Kept: k.keeping(), Site: client.URL(), Account: k.account, Username: client.Username(),
		Reader: by,
	}}
	if k.role != "" {
		m.record.Role = k.name
	}
	m.max = time.Duration(c.MaxTokenDays)*24*time.Hour - ledger.Grace
	if k.role != "" { // one who waits for a Jira that is away for a whole period finds it alive
		r, err := load[staticRole](ctx, &k.b.decoded, k.b.storage, staticRolesPrefix+k.role)
		if err != nil || r == nil {
			return nil, errors.Join(err, k.nothing())
		}
		if r.RotationPeriod > 0 {
			m.max = min(m.max, time.Duration(2*r.RotationPeriod)*time.Second+r.overlap())
		}
	}
	m.record.Expires = ledger.At(k.b.now().Add(ledger.LateLanding).AddDate(0, 0, days(m.max))) // at the latest
	if k.b.ledger.InDoubt(k.account) {
		return nil, &inDoubt{[]string{k.account}}
	}
	err = k.b.ledger.Intend(ctx, m.record, room)
	if full := (*ledger.FullError)(nil); errors.As(err, &full) {
		return nil, &fault.Capacity{Text: fmt.Sprintf("account %q holds %d of the %d tokens that it can: end a lease, or raise max_tokens", k.account, full.Held, full.Room)}
	}
	return m, err
}

// finish proves the token that is stored as next, and makes it the one in use. Where
// it turns out to be none it is given up, and done is false without an error if
// there was none to begin with.
func (k *keeper) finish(ctx context.Context, have *credential) (done bool, err error) {
	r, err := k.b.ledger.Read(ctx, have.NextID)
	if err != nil && !errors.Is(err, ledger.ErrMissing) {
		return false, err
	}
	if err != nil || r.State != ledger.Issued { // it was taken back
		return false, k.giveUp(ctx, have.NextID)
	}
	client, err := k.b.client(ctx, k.account)
	if err != nil {
		return false, err
	}
	whose := have
	if k.role != "" { // the account may have been given to another user since
		a, err := k.b.loadAccount(ctx, k.account)
		if err != nil {
			return false, err
		}
		whose = &a.credential
	}
	u, err := client.As(jira.Login{Username: whose.Username, Key: whose.UserKey, Token: have.Next}).Myself(ctx)
	if err == nil {
		err = whose.provedBy(u)
	}
	if wrong := fault.User(""); errors.As(err, &wrong) || jira.Is(err, jira.Refused) {
		return false, errors.Join(fmt.Errorf("proving the new token, which is given up: %w", err), k.giveUp(ctx, have.NextID))
	}
	if err != nil {
		return false, fmt.Errorf("the new token is made and stored, and not proven yet: %w", err)
	}
	now := k.b.now()
	err = k.amend(ctx, func(c *credential) error {
		if c.NextID != have.NextID {
			return errAmended
		}
		c.PreviousID, c.PreviousTokenID, c.PreviousEnd = c.RecordID, c.OwnTokenID, 0
		if c.PreviousID+c.PreviousTokenID != "" {
			c.PreviousEnd = now.Add(c.overlap()).Unix()
		}
		if k.role == "" { // a static role's nobody can write
			c.Replaced = c.Replaced.with(c.Token)
		}
		c.Token, c.RecordID, c.TokenID, c.OwnTokenID = c.Next, c.NextID, r.TokenID, ""
		c.Next, c.NextID = "", ""
		c.Username, c.UserKey = u.Name, u.Key
		c.Since, c.RotatedAt, c.Expires = now.Unix(), now.Unix(), 0
		if r.Expires != 0 {
			c.Expires = r.Expires.Time().Unix()
		}
		return nil
	})
	return err == nil, err
}

// provedBy refuses a token minted for c that turns out to be u's, where he is another,
// or is not active. One who was renamed is the same by his key.
func (c *credential) provedBy(u jira.User) error {
	next := credential{Token: "the new one"}
	switch {
	case c.UserKey == "":
		next.Username = c.Username
	case c.UserKey != u.Key:
		return fault.Userf("it belongs to another user, who is called %q", u.Name)
	}
	return next.belongsTo(u)
}

// giveUp forgets the token that is stored as next, and has it ended.
func (k *keeper) giveUp(ctx context.Context, id string) error {
	err := k.amend(ctx, func(c *credential) error {
		c.Next, c.NextID = "", ""
		return nil
	})
	if err != nil {
		return err
	}
	if err := k.b.ledger.Owe(ctx, id, ""); err != nil && !errors.Is(err, ledger.ErrMissing) {
		return err
	}
	return nil
}

// endPrevious has the token before the one in use ended.
func (k *keeper) endPrevious(ctx context.Context) error {
	have, err := k.load(ctx)
	if err != nil || have == nil || have.PreviousEnd == 0 {
		return err
	}
	if have.PreviousID != "" {
		if err := k.b.ledger.Owe(ctx, have.PreviousID, ""); err != nil && !errors.Is(err, ledger.ErrMissing) {
			return err
		}
	}
	if have.PreviousTokenID != "" {
		if err := k.adopt(ctx, have); err != nil {
			return err
		}
	}
	return k.amend(ctx, func(c *credential) error {
		c.PreviousID, c.PreviousTokenID, c.PreviousEnd = "", "", 0
		return nil
	})
}

// adopt gives the token that an operator has brought a record of its own, by which
// it is ended. One that is not on the list of the user's tokens is gone.
func (k *keeper) adopt(ctx context.Context, have *credential) error {
	client, err := k.b.client(ctx, k.account)
	if err != nil {
		return err
	}
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return fmt.Errorf("looking for the token that was brought: %w", err)
	}
	i := slices.IndexFunc(tokens, func(t jira.Token) bool { return t.ID == have.PreviousTokenID })
	if i < 0 {
		return nil
	}
	now := ledger.At(k.b.now())
	return k.b.ledger.Adopt(ctx, &ledger.Record{
		ID: ledger.NewID(), Name: tokens[i].Name, TokenID: have.PreviousTokenID, Kept: k.keeping(),
		Site: client.URL(), Account: k.account, Username: have.Username, IntendedAt: now, IssuedAt: now,
	})
}
