package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// mint is a token on its way from a read to its lease.
type mint struct {
	terms
	warnings []string
	client   *jira.Client
	api      *jira.Site // where the credential works
	record   *ledger.Record
	pool     int // how many accounts the role has

	// Of a throw-away user.

	user  jira.NewUser
	scope *userScope

	granted []string // the scopes of an access token, or of an API token

	// Of an access token.

	grant         jira.Grant
	revocationURL string // empty: only its own end ends it
}

// mint makes a token for the account of role name with the most room. Where
// Jira certainly made nothing because of that account, its login or its cap, the
// next one is taken. The caller says when the mint is over.
func (b *backend) mint(ctx context.Context, by ledger.Reader, name string, increment time.Duration) (*mint, jira.Token, string, error) {
	var passed []string // the accounts that it did not work for
	again := map[string]bool{}
	var failed error // and why
	for {
		var m *mint
		err := b.placed(ctx, func() (err error) {
			m, err = b.intend(ctx, by, name, increment, passed)
			return err
		})
		if err != nil {
			return nil, jira.Token{}, "", errors.Join(failed, err)
		}
		token, secret, made, err := b.make(ctx, m)
		if err == nil {
			return m, token, secret, nil
		}
		failed = errors.Join(failed, b.notMinted(ctx, m, made, err))
		b.ledger.Over(m.record.ID)
		if !made && b.other(ctx, m.record.Account, m.client, err) != nil && !again[m.record.Account] {
			again[m.record.Account] = true // with the account's other login
			continue
		}
		passed = append(passed, m.record.Account)
		if made || !jira.Is(err, jira.Refused) && !jira.Is(err, jira.Denied) || len(passed) >= m.pool {
			return nil, jira.Token{}, "", failed
		}
		b.log().Warn("no token could be made for an account; the role has others", "role", name, "account", m.record.Account, "error", err)
	}
}

// make makes the credential of m in Jira. Where it fails, made tells whether
// something may have been made all the same.
func (b *backend) make(ctx context.Context, m *mint) (token jira.Token, secret string, made bool, err error) {
	highest := b.ledger.Highest(m.record.Site)
	t := typeOf(m.record)
	token, secret, made, err = t.make(ctx, b, m)
	if err != nil || t.is().expiresOnly {
		return token, secret, made, err
	}
	return token, secret, true, b.isNewID(ctx, m.record, token.ID, highest)
}

// isNewID looks whether Jira's id of the new token of r shows that Jira was restored
// from a backup: then the ids of records from before may be those of other tokens. An
// id that another record has is refused: the end of the one would be that of the other.
func (b *backend) isNewID(ctx context.Context, r *ledger.Record, tokenID string, highest uint64) error {
	known := b.ledger.Known(r.Site, tokenID)
	restored, err := b.ledger.Restored(ctx, r.Site, tokenID, highest)
	if restored {
		b.tellRestored(r.Site, r.Account, tokenID, r.Name)
	}
	if err == nil && known {
		err = fault.BadResponse(fmt.Sprintf("Jira gave the new token the id of another one that the ledger has, %q, as after a restore from a backup: try again", tokenID))
	}
	return err
}

// tellRestored logs that a token, a new one or one of a list, shows that its site was
// restored from a backup.
func (b *backend) tellRestored(site, account, tokenID, tokenName string) {
	b.log().Warn("Jira gives out ids of tokens again, as after a restore from a backup: what was made before is ended only where both its id and its name are there, and a tidy shows what was lost", "site", site, "account", account, "token_id", tokenID, "token_name", tokenName)
}

// intend finds the account to mint for, which is none of those passed, and
// writes the intent to the ledger, before Jira is asked for anything.
func (b *backend) intend(ctx context.Context, by ledger.Reader, name string, increment time.Duration, passed []string) (*mint, error) {
	// Nobody may delete or move an account between our reading it and the
	// intent that says it is needed.
	b.resources.RLock()
	defer b.resources.RUnlock()
	r, err := b.loadRole(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	m, err := b.draft(ctx, by, name, c, r, increment)
	if err != nil {
		return nil, err
	}
	return m, b.place(ctx, m, c, r, passed)
}

// draft is a mint for role r, called name, of which nothing is written yet.
func (b *backend) draft(ctx context.Context, by ledger.Reader, name string, c *config, r *role, increment time.Duration) (*mint, error) {
	mount, err := b.mount.get(ctx, &b.decoded, b.storage)
	if err != nil {
		return nil, err
	}
	m := &mint{pool: len(r.Accounts)}
	if m.terms, m.warnings, err = b.terms(r, c.MaxTokenDays, increment); err != nil {
		return nil, err
	}
	id := ledger.NewID()
	m.record = &ledger.Record{
		ID: id, Name: ledger.Name(mount, id, name), Role: name,
		Expires: ledger.At(b.now().Add(ledger.LateLanding).AddDate(0, 0, days(m.max))), // at the latest
		Reader:  by,
	}
	return m, nil
}

// roleIsFull is why a role hands out nothing more, or nothing to who has asked for r.
func roleIsFull(r *ledger.Record, taken *ledger.FullError, accounts ...string) error {
	role := r.Role
	if taken.OfReader {
		who := fmt.Sprintf("entity %.64q", r.Reader.EntityID)
		if r.Reader.EntityID == "" {
			who = fmt.Sprintf("tokens called %.64q, which have no entity,", r.Reader.DisplayName)
		}
		return &fault.Capacity{Accounts: accounts, Text: fmt.Sprintf("%s: role %q has %d credentials for it that are not proven gone yet, and its max_leases_per_entity is %d: end a lease, or renew one rather than read again", who, role, taken.Held, taken.Room)}
	}
	return &fault.Capacity{Accounts: accounts, Text: fmt.Sprintf("role %q has %d credentials that are not proven gone yet, and its max_leases is %d: end a lease, or raise it", role, taken.Held, taken.Room)}
}

// takePlace writes the intent for the account of the role with the most room
// that is none of those passed, nor in doubt. The error is an inDoubt where none but
// such have any, and a [fault.Capacity] where none has. The caller holds b.resources.
func (b *backend) takePlace(ctx context.Context, m *mint, c *config, r *role, passed []string) error {
	pool, err := b.candidates(ctx, m, r, passed)
	if err != nil {
		return err
	}
	for {
		for i := range pool {
			pool[i].held, pool[i].inDoubt = b.ledger.Held(pool[i].name), b.ledger.InDoubt(pool[i].name)
		}
		slices.SortStableFunc(pool, func(x, y candidate) int { return cmp.Compare(y.places()-y.held, x.places()-x.held) })
		free := slices.IndexFunc(pool, func(a candidate) bool { return a.held < a.places() && !a.inDoubt })
		if free < 0 {
			break
		}
		a := pool[free]
		if m.client, err = b.sites.client(c, a.name, a.account); err != nil {
			return err
		}
		m.record.Site, m.record.Account = m.client.URL(), a.name
		if m.api, err = c.api(m.client.Site()); err != nil {
			return err
		}
		t := a.ofType()
		m.record.Type = t.is().stored
		if err := t.prepare(ctx, b, m, c, r, a.account); err != nil {
			return err
		}
		// Only the place that was seen to be free, lest all who come at once
		// crowd the same account: who is too late for it looks again.
		if err := b.ledger.Intend(ctx, m.record, ledger.Room{Account: a.held + 1, Role: r.MaxLeases, Reader: r.MaxPerEntity}); err == nil {
			return nil
		} else if taken := (*ledger.FullError)(nil); !errors.As(err, &taken) {
			return err
		} else if taken.OfRole || taken.OfReader {
			return roleIsFull(m.record, taken, r.Accounts...)
		}
	}
	return allFull(m.record.Role, r.Accounts, pool)
}

// candidate is an account that a credential may be made for.
type candidate struct {
	name string
	*account
	held    int
	inDoubt bool
}

// candidates are the accounts of role r that are none of those passed, and allow it.
func (b *backend) candidates(ctx context.Context, m *mint, r *role, passed []string) ([]candidate, error) {
	pool := make([]candidate, 0, len(r.Accounts))
	var refused error // by the last account that does not allow the role
	for _, name := range r.Accounts {
		if slices.Contains(passed, name) {
			continue
		}
		a, err := b.loadAccount(ctx, name)
		if err != nil {
			return nil, err
		}
		if refused = a.mayBeUsedBy(name, m.record.Role); refused == nil {
			pool = append(pool, candidate{name: name, account: a})
		}
	}
	if len(pool) == 0 && refused != nil {
		return nil, refused
	}
	if len(pool) == 0 { // the role was written anew meanwhile
		return nil, fault.Userf("role %q has no other account", m.record.Role)
	}
	return pool, nil
}

// allFull is why none of pool, of accounts of role, can be minted for.
func allFull(role string, accounts []string, pool []candidate) error {
	full := make([]string, len(pool))
	var unknown []string
	for i, a := range pool {
		if a.inDoubt {
			unknown = append(unknown, a.name)
		}
		full[i] = fmt.Sprintf("account %q holds %d of the %d tokens that it can (max_tokens=%d)", a.name, a.held, a.places(), a.MaxTokens)
	}
	if len(unknown) > 0 {
		return &inDoubt{unknown}
	}
	return &fault.Capacity{Accounts: accounts, Text: fmt.Sprintf("no account of role %q has room: %s; end a lease, add an account to the role, or raise max_tokens with Jira's own cap, its property atlassian.pats.max.tokens.per.user", role, strings.Join(full, "; "))}
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
	if life < ledger.Grace+time.Second {
		return fault.BadResponse(fmt.Sprintf("Jira's answer to the mint makes no sense: the new token ends at %s already", rfc3339(t.Expires)))
	}
	life = (life - ledger.Grace).Truncate(time.Second)
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
		IssuedAt:  int64(m.record.IssuedAt),
		ExpiresAt: rfc3339(m.record.Expires.Time()),

		Type: m.record.Type, OnRevoke: m.record.OnRevoke, ProjectRoles: m.record.ProjectRoles, UserKey: m.record.UserKey,
	}
}

// notMinted cleans up after a mint that failed with err, and returns what the
// reader is told. Where the token may exist all the same, it is looked for by
// its name: of an answer that makes no sense, the id is not to be trusted
// either. Where Jira cannot be asked now, the intent stays in the ledger.
func (b *backend) notMinted(ctx context.Context, m *mint, made bool, err error) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	r := m.record
	if !typeOf(r).is().throwAway {
		err = fmt.Errorf("minting as account %q: %w", r.Account, err)
	}
	if made {
		if e := b.settle(ctx, b.log(), m.client, r.ID); e != nil {
			b.log().Warn("a token may have been made; its intent stays in the ledger", "id", r.ID, "account", r.Account, "token_name", r.Name, "error", e)
			b.debt(r, "it may have been made: "+e.Error())
		}
		return err
	}
	if e := b.ledger.Forget(ctx, r.ID); e != nil {
		b.log().Warn("the record of a failed mint could not be removed", "id", r.ID, "error", e)
	}
	if jira.Is(err, jira.Denied) && typeOf(r).is().personal {
		return b.whyDenied(ctx, m, err)
	}
	return err
}

// whyDenied tells whether Jira denied a mint because the user owns as many
// tokens as he may. Jira says so in its users' language only, so his tokens
// are counted.
func (b *backend) whyDenied(ctx context.Context, m *mint, denied error) error {
	a, err := b.loadAccount(ctx, m.record.Account)
	if err != nil {
		return denied
	}
	tokens, err := m.client.Tokens(ctx)
	if err != nil {
		return denied
	}
	said := fmt.Sprintf("%v; user %q owns %d tokens, max_tokens is %d, and Jira's own cap is its property atlassian.pats.max.tokens.per.user", denied, m.record.Username, len(tokens), a.MaxTokens)
	if len(tokens) >= a.MaxTokens {
		return &fault.Capacity{Text: said + ": delete tokens of his that nobody needs, end a lease, or raise both"}
	}
	return fault.User(said)
}

// takeBack ends a token that was made but cannot be handed out, because of
// why, which it returns. Where Jira does not end it, the ledger keeps it.
func (b *backend) takeBack(ctx context.Context, m *mint, secret string, why error) error {
	ctx, cancel := undo(ctx)
	defer cancel()
	r := m.record
	if err := m.endUnread(ctx, secret); err != nil {
		b.log().Warn("an access token that nobody received lives until it ends by itself", "id", r.ID, "account", r.Account, "error", err)
	}
	if err := typeOf(r).end(ctx, b.log(), b, m.client, r); err != nil {
		b.log().Warn("a token that nobody received could not be deleted; the ledger keeps it", "id", r.ID, "account", r.Account, "token_id", r.TokenID, "token_name", r.Name, "error", err)
		b.debt(r, err.Error())
		if err := b.ledger.Owe(ctx, r.ID, r.TokenID); err != nil {
			b.log().Warn("the debt of a token that nobody received could not be written either: it is ended later, by its record", "id", r.ID, "account", r.Account, "token_name", r.Name, "error", err)
		}
		return why
	}
	if err := b.ledger.Forget(ctx, r.ID); err != nil {
		b.log().Warn("a token that nobody received is deleted, but its record stays in the ledger", "id", r.ID, "error", err)
	}
	return why
}
