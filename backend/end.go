package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// endToken ends the token of r as client, and nothing else.
func (b *backend) endToken(ctx context.Context, log hclog.Logger, client *jira.Client, r *ledger.Record) error {
	if !b.certain(client, r) {
		return b.endNamed(ctx, log, client, r)
	}
	err := client.DeleteToken(ctx, r.TokenID)
	if tokens, is := anothers(ctx, client, r, r.TokenID, err); is {
		return b.endAmong(ctx, log, client, r, tokens)
	}
	return err
}

// anothers tells whether err, of the end of the token with that id, which was r's, shows that
// the id is another user's by now, as after a restore of Jira from a backup: Jira denies the
// end, and has no such token of client's user. tokens are those of the user.
func anothers(ctx context.Context, client *jira.Client, r *ledger.Record, id string, err error) (tokens []jira.Token, is bool) {
	if !jira.Is(err, jira.Denied) {
		return nil, false
	}
	tokens, err = namesakes(ctx, client, r)
	return tokens, err == nil && !slices.ContainsFunc(tokens, func(t jira.Token) bool { return t.ID == id })
}

// certain tells whether the id of r's token is no other's at client's site. It may be if
// r was made at another site, or before this one was restored from a backup, or if the
// ledger has no record of it. Of a lease without one that is so young that lists may not
// show its token yet, the id is taken.
func (b *backend) certain(client *jira.Client, r *ledger.Record) bool {
	one := *r
	if one.IntendedAt == 0 && b.young(r) {
		one.IntendedAt = one.IssuedAt
	}
	return r.Site == client.URL() && !b.ledger.Doubted(&one)
}

// young tells whether r's token may be missing from Jira's lists because they lag.
func (b *backend) young(r *ledger.Record) bool {
	return b.now().Sub(max(r.IssuedAt, r.IntendedAt).Time()).Abs() < listLag
}

// broughtName begins what older versions called a token that was brought, whose name in
// Jira they did not ask for.
const broughtName = "brought: "

// isOf tells whether token t of a list is that of r: by its name, which holds the
// ledger's id. Of one that an operator has brought it takes the id as well.
func isOf(r *ledger.Record, t jira.Token) bool {
	return r.Named(t.Name) || t.ID == r.TokenID && (t.Name == r.Name || strings.HasPrefix(r.Name, broughtName))
}

// endNamed ends the token of r, whose id may be another's by now, if a list of the user's
// tokens has it under its name. If not, it is gone, once no list lags behind any more.
func (b *backend) endNamed(ctx context.Context, log hclog.Logger, client *jira.Client, r *ledger.Record) error {
	tokens, err := namesakes(ctx, client, r)
	if err != nil {
		return err
	}
	return b.endAmong(ctx, log, client, r, tokens)
}

// endAmong is endNamed where tokens are what [namesakes] has found.
func (b *backend) endAmong(ctx context.Context, log hclog.Logger, client *jira.Client, r *ledger.Record, tokens []jira.Token) error {
	found, anothers := false, false
	for _, t := range tokens {
		if isOf(r, t) {
			found = true
			if err := client.DeleteToken(ctx, t.ID); err != nil {
				return err
			}
		} else if t.ID == r.TokenID && r.Site == client.URL() {
			anothers = true
			log.Warn("Jira has given the id of a token to another one, which is left alone", "token_id", t.ID, "token_name", r.Name, "other_name", t.Name)
		}
	}
	switch {
	case found || anothers:
		return nil
	case b.young(r):
		return &jira.Error{Kind: jira.Nonsense, Words: fmt.Sprintf("the list of the user's tokens does not have %q yet, which was made a moment ago", r.Name)}
	}
	warnGone(log, r, r.TokenID)
	return nil
}

// warnGone logs that r's token, with that id, counts as gone.
func warnGone(log hclog.Logger, r *ledger.Record, id string) {
	log.Warn("a token counts as gone: the list of the user's tokens does not have it under its name", "token_id", id, "token_name", r.Name, "site", r.Site)
}

// namesakes lists the tokens of client's user, one of which may be r's by name or by id.
func namesakes(ctx context.Context, client *jira.Client, r *ledger.Record) ([]jira.Token, error) {
	tokens, err := client.Tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for token %q: %w", r.Name, err)
	}
	return withItsID(ctx, client, r, tokens)
}

// withItsID is tokens, which client has listed, and the one with r's id if that is missing. A
// list may lag behind, and a clock that is wrong does not tell for how long: if it has
// neither r's name nor its id, Jira is asked for the id as well.
func withItsID(ctx context.Context, client *jira.Client, r *ledger.Record, tokens []jira.Token) ([]jira.Token, error) {
	here := func(t jira.Token) bool { return t.ID == r.TokenID || isOf(r, t) }
	if slices.ContainsFunc(tokens, here) || client.APITokens() != nil {
		return tokens, nil
	}
	t, found, err := client.Token(ctx, r.TokenID)
	switch {
	case found:
		return append(slices.Clip(tokens), t), nil // others go through the same list
	case err == nil || jira.Is(err, jira.Denied): // it is there, and another user's
		return tokens, nil
	}
	return nil, fmt.Errorf("looking for token %q: %w", r.Name, err)
}

// endsItself is the login of r's account, if r is the token that it logs in with.
func (b *backend) endsItself(ctx context.Context, r *ledger.Record) *jira.Login {
	if r.Kept != ledger.KeptOwn {
		return nil
	}
	var have *credential
	if isRetired(r.Account) {
		if gone, err := load[retired](ctx, &b.decoded, b.storage, retiredPrefix+r.Account); err == nil && gone != nil {
			have = &gone.Account.credential
		}
	} else if c, err := (&keeper{b: b, name: r.Account, account: r.Account}).load(ctx); err == nil {
		have = c
	}
	if have == nil || have.RecordID != r.ID {
		return nil
	}
	l := have.login()
	return &l
}
