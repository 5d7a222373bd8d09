package backend

import (
	"context"
	"fmt"
	"slices"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// An account is accepted only if it can do its work. Of a Jira user that is: the
// credential works and is his, he is active and no administrator, and his tokens can be
// listed, for without that none could be made or ended.

// needsJira tells whether a write of a has to be checked against Jira. before is nil
// where a is new, and sent tells whether a token, password or secret came with it.
func (a *account) needsJira(before *account, sent bool) bool {
	if before == nil || sent {
		return true
	}
	// Jira has no say in these.
	was, is := *before, *a
	for _, one := range []*account{&was, &is} {
		one.MaxTokens, one.AllowedRoles, one.credential = 0, "", one.unscheduled()
	}
	return was != is
}

// verification is a write of an account that is checked against Jira.
type verification struct {
	c         *config
	client    *jira.Client // as the account would log in
	name      string
	a, before *account // before is nil where it is new
	sent      bool     // a token, password or secret came with the write
}

// verifyAccount asks Jira whether account name can do its work as a, and takes over into
// a what it says of it. before is nil where it is new, and sent tells whether a token,
// password or secret came with the write.
func (b *backend) verifyAccount(ctx context.Context, c *config, name string, before, a *account, sent bool) (warnings []string, err error) {
	if !a.needsJira(before, sent) {
		return nil, nil
	}
	client, err := b.trialClient(c, name, before, a, sent)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return a.ofType().verify(ctx, b, &verification{c, client, name, a, before, sent})
}

// trialClient returns a client for checking a before it is stored. A login
// that was not sent is the one in use: what Jira has refused of it is not
// tried again for the sake of another field.
func (b *backend) trialClient(c *config, name string, before, a *account, sent bool) (*jira.Client, error) {
	if before != nil && before.login() == a.login() && before.addresses() == a.addresses() && !sent {
		return b.sites.primary(c, name, before)
	}
	site, err := b.sites.trialOf(c, before, a)
	if err != nil {
		return nil, err
	}
	return c.as(site, a)
}

// verifyLogin asks Jira whose credentials a has, and takes that over. The client that it
// returns is client, or where Jira refuses a token that the write did not bring, one that
// logs in with the fallback password.
func (b *backend) verifyLogin(ctx context.Context, client *jira.Client, before, a *account, sent bool) (working *jira.Client, warnings []string, err error) {
	u, err := client.Myself(ctx)
	onFallback := jira.Is(err, jira.Refused) && !sent && a.FallbackPassword != ""
	if err != nil && !onFallback {
		return nil, nil, fmt.Errorf("checking the %s: %w", a.kind(), err)
	}
	if !onFallback {
		if err := a.belongsTo(u); err != nil {
			return nil, nil, err
		}
		if before != nil && before.UserKey == a.UserKey && before.FallbackPassword == a.FallbackPassword { // it need not be sent again
			return client, nil, nil
		}
	}
	if a.FallbackPassword == "" {
		return client, nil, nil
	}
	second := a.fallback()
	other := client.As(second.login())
	if u, err = other.Myself(ctx); err != nil {
		return nil, nil, fmt.Errorf("checking the fallback_password: %w", err)
	}
	if a.UserKey != "" && u.Key != a.UserKey {
		return nil, nil, fault.Userf("the fallback_password belongs to %q, not to %q", u.Name, a.Username)
	}
	if !onFallback {
		return client, nil, nil
	}
	if err := second.belongsTo(u); err != nil {
		return nil, nil, err
	}
	a.Username, a.UserKey = second.Username, second.UserKey
	return other, []string{"Jira refuses the token that is in use, and the engine logs in with fallback_password: rotate the account with rotate-account, or write another token"}, nil
}

// verifyRoom warns of what a's user owns that the engine did not make.
func (b *backend) verifyRoom(ctx context.Context, name string, before, a *account, tokens []jira.Token) (warnings []string, err error) {
	others, err := b.strangers(ctx, name, tokens)
	if err != nil {
		return nil, err
	}
	if room := a.MaxTokens - len(others); room < 1 || a.Token != "" && room < 2 {
		warnings = append(warnings, fmt.Sprintf("user %q owns %d tokens that the engine did not make, and max_tokens is %d: there is no room for leases; delete those that nobody needs, or raise max_tokens with Jira's own cap, its property atlassian.pats.max.tokens.per.user", a.Username, len(others), a.MaxTokens))
	}
	if a.Exclusive && (before == nil || !before.Exclusive) && len(others) > 0 {
		warnings = append(warnings, fmt.Sprintf("exclusive: the next revoke or tidy ends what user %q has that the engine did not make: %s", a.Username, tokensNamed(others)))
	}
	return warnings, nil
}

// cannotList is the error of a credential whose user's tokens cannot be listed.
func cannotList(username string, err error) error {
	return fmt.Errorf("the tokens of user %q cannot be listed, so none could be made and ended: they may be switched off in Jira, or something before it keeps /rest/pat back: %w", username, err)
}

// recognize finds the token that c logs in with among those that its user owns, listed at
// date by Jira's clock, and takes over its id and when it expires. Where the user has another
// one that has not expired, only the operator can tell them apart: then there is a warning.
// An own_token_id that was given is refused if it is none of the user's, or bears the name
// of one that an engine made.
func (c *credential) recognize(tokens []jira.Token, date time.Time) (warnings []string, err error) {
	if c.Token == "" || c.RecordID != "" { // a password, or a token that the engine made
		return nil, nil
	}
	alive := slices.DeleteFunc(slices.Clone(tokens), func(t jira.Token) bool { return !t.Expires.IsZero() && t.Expires.Before(date) })
	brought := byHand(alive)
	id := c.OwnTokenID
	if id == "" && len(alive) == 1 && len(brought) == 1 {
		id = brought[0].ID
	}
	i := slices.IndexFunc(tokens, func(t jira.Token) bool { return t.ID == id })
	switch {
	case id == "" && len(brought) == 0:
		return []string{fmt.Sprintf("Jira's list of the tokens of user %q does not show the one that was given, so it is not known when it expires, and a rotation could not end it: write the account again in a minute", c.Username)}, nil
	case id == "":
		return []string{fmt.Sprintf("user %q has several tokens, and which of them was given is not known, so neither is when it expires, and a rotation could not end it: write its id as own_token_id; it is one of %s", c.Username, tokensNamed(brought))}, nil
	case i < 0:
		return nil, fault.Userf("own_token_id %q is not the id of a token of user %q: Jira's profile page and GET /rest/pat/latest/tokens have the ids", id, c.Username)
	case len(byHand(tokens[i:i+1])) == 0:
		return nil, fault.Userf("own_token_id %q is token %q, which an engine made for a lease: name the one that you gave", id, tokens[i].Name)
	}
	c.OwnTokenID, c.Expires = id, 0
	if !tokens[i].Expires.IsZero() {
		c.Expires = tokens[i].Expires.Unix()
	}
	return nil, nil
}

// byHand are those of a user's tokens that bear no name of an engine's.
func byHand(tokens []jira.Token) []jira.Token {
	return slices.DeleteFunc(slices.Clone(tokens), func(t jira.Token) bool {
		_, _, made := ledger.ParseName(t.Name)
		return made
	})
}

// tokensNamed tells the ids and names of tokens; of many only the first.
func tokensNamed(tokens []jira.Token) string {
	names := make([]string, len(tokens))
	for i, t := range tokens {
		names[i] = fmt.Sprintf("%s %q", t.ID, t.Name)
	}
	return few(names)
}
