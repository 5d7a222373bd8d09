package jira

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tokensPath is the REST resource of personal access tokens, there since
// Jira 8.14.
const tokensPath = "/rest/pat/latest/tokens"

// Token is a personal access token as Jira lists it. Its secret is no part
// of it: Jira tells it once, to [Client.CreateToken].
type Token struct {
	ID       string // Jira's key, a 64-bit number in decimal
	Name     string
	Created  time.Time // by Jira's clock
	Expires  time.Time // by Jira's clock; zero: never
	LastUsed time.Time // lags by about a minute; zero: never used
}

// CreateToken makes a token named name for the client's own user, which Jira
// ends after days times 24 hours. Jira allows 40 characters and, by default,
// 1 to 365 days and 10 tokens a user.
//
// The request runs on even if ctx is canceled, though not past its deadline,
// and it is not begun when less than half a time-out is left until then. It is
// repeated only after a 429 or a refused connection. After an error, [NothingMade] tells
// whether the token may exist all the same; look for it by its name. That goes
// for an answer that makes no sense, too: an id in it is not to be trusted.
func (c *Client) CreateToken(ctx context.Context, name string, days int) (t Token, secret string, err error) {
	a, err := c.do(ctx, call{
		method: http.MethodPost, path: tokensPath,
		body: struct {
			Name string `json:"name"`
			Days int    `json:"expirationDuration"`
		}{name, days},
		want: []int{http.StatusCreated, http.StatusOK},
		once: true,
	})
	if err != nil {
		return Token{}, "", err
	}
	if a.user != "" && !names(a.user, c.login.Username) {
		if err := c.prove(ctx, a, nil); err != nil {
			return Token{}, "", err
		}
	}
	var made struct {
		tokenJSON
		Secret string `json:"rawToken"`
	}
	if err := a.decode(&made); err != nil {
		return Token{}, "", err
	}
	t, err = made.token()
	switch {
	case err != nil:
	case made.Secret == "" || len(made.Secret) > 4096 || strings.ContainsFunc(made.Secret, notInHeader):
		err = errors.New("its rawToken is missing or could not be sent in a header")
	case t.Name != name:
		err = fmt.Errorf("it is named %q instead of %q", c.login.quote(t.Name, ""), name)
	}
	if err != nil {
		return Token{}, "", a.nonsense("of the new token: " + err.Error())
	}
	return t, made.Secret, nil
}

// Tokens lists the tokens of the client's own user. A list without error is
// the truth as Jira's node knew it: an answer that was given to anybody else
// is an error.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	tokens, _, err := c.TokensDated(ctx)
	return tokens, err
}

// TokensDated is [Client.Tokens] with the date that the answer carries: what
// Jira's clock showed, in whole seconds. It is zero where there is none.
func (c *Client) TokensDated(ctx context.Context) ([]Token, time.Time, error) {
	if c.kept != nil {
		return c.kept.List(ctx)
	}
	a, err := c.do(ctx, call{method: http.MethodGet, path: tokensPath, want: []int{http.StatusOK}})
	if err != nil {
		return nil, time.Time{}, err
	}
	if err := c.prove(ctx, a, nil); err != nil {
		return nil, time.Time{}, err
	}
	return listed[tokenJSON](a)
}

// listed reads a, a list of tokens, each of which is a J on the wire, and the date
// that it carries. Every row needs an id. A name or a time that is not as it should
// be is zero.
func listed[J interface{ token() (Token, error) }](a *answer) ([]Token, time.Time, error) {
	var list []J
	if err := a.decode(&list); err != nil {
		return nil, time.Time{}, err
	}
	if list == nil { // JSON's null is no list
		return nil, time.Time{}, a.nonsense("null instead of a list")
	}
	tokens := make([]Token, 0, len(list))
	for _, j := range list {
		t, err := j.token()
		if t.ID == "" {
			return nil, time.Time{}, a.nonsense("in the list of tokens: " + err.Error())
		}
		// What else is odd of it is left out. Most rows are other people's, and one
		// of those must not keep the engine from what is its own.
		tokens = append(tokens, t)
	}
	date, _ := http.ParseTime(a.header.Get("Date")) // zero is what there is to say of a bad one
	return tokens, date, nil
}

// DeleteToken ends the token with Jira's key id. No error means that the
// token is proven to be gone, whether this call ended it or it was gone
// before: where Jira does not say that it ended it, the list of the user's tokens
// has to show that. It goes before other calls where the gate is narrow.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	if c.kept != nil {
		return c.kept.Delete(ctx, id, "")
	}
	if !isKey(id) {
		return refuse(http.MethodDelete, tokensPath, "id of a token", id)
	}
	a, err := c.do(ctx, call{
		method: http.MethodDelete, path: tokensPath + "/" + id,
		// Jira says 204; 200 and 404 are seen where a token is gone already. A 404 is
		// also what Jira says, in JSON and to a user whom it knows, where the token API
		// is not mounted.
		want:   []int{http.StatusNoContent, http.StatusOK, http.StatusNotFound},
		urgent: true,
	})
	if err != nil {
		return err
	}
	return c.proveEnd(ctx, a, func() error { return c.unlisted(ctx, a, id) })
}

// proveEnd is [Client.prove] of a, the answer to a call that ends something: if it does not
// say that the call did, absent has to show that nothing is there to be ended.
func (c *Client) proveEnd(ctx context.Context, a *answer, absent func() error) error {
	if a.status == http.StatusNoContent {
		return c.prove(ctx, a, absent)
	}
	if err := c.prove(ctx, a, func() error { return nil }); err != nil {
		return err
	}
	return absent()
}

// unlisted returns nil if the list of the user's tokens, which shows that the token API is
// mounted, does not hold id, which a, the answer to a call about it, says. A list may lag
// behind: one that holds it is no proof if Jira goes on to say that there is none.
func (c *Client) unlisted(ctx context.Context, a *answer, id string) error {
	tokens, err := c.Tokens(ctx)
	listed := slices.ContainsFunc(tokens, func(t Token) bool { return t.ID == id })
	var alone *answer
	if err == nil && listed {
		_, alone, err = c.token(ctx, id)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: cannot tell whether the token is gone: %w", a.call.method, a.call.path, err)
	case listed && alone.status != http.StatusNotFound:
		return a.nonsense("the token is still on the list of the user's tokens")
	}
	return nil
}

// notInHeader tells whether r may not stand in an Authorization header.
func notInHeader(r rune) bool { return r <= ' ' || r > '~' }

// tokenJSON is a token on the wire. Its fields are raw, so that one of an odd type
// does not spoil the list.
type tokenJSON struct {
	ID       json.RawMessage `json:"id"` // a number; some versions may quote it
	Name     json.RawMessage `json:"name"`
	Created  json.RawMessage `json:"createdAt"`
	Expires  json.RawMessage `json:"expiringAt"`
	LastUsed json.RawMessage `json:"lastAccessedAt"`
}

// token reads j. With an error comes what could be read of it: without an id where
// it has none that can be used.
func (j tokenJSON) token() (Token, error) {
	id := strings.Trim(string(j.ID), `"`)
	if !isKey(id) {
		return Token{}, errors.New("its id is missing or not a number")
	}
	t := Token{ID: id, Name: nameIn(j.Name)}
	t.LastUsed, _ = timeIn(j.LastUsed) // for people; nothing hangs on it
	err := t.dated(j.Created, "expiringAt", j.Expires)
	if t.Name == "" {
		err = errors.New("it has no name")
	}
	return t, err
}

// dated reads when t was made and when it ends, by the field that says so. With an
// error each time is zero that cannot be read.
func (t *Token) dated(created json.RawMessage, field string, expires json.RawMessage) (err error) {
	var e error
	if t.Created, e = timeIn(created); e != nil {
		err = fmt.Errorf("its createdAt: %w", e)
	}
	if t.Expires, e = timeIn(expires); e != nil {
		err = errors.Join(err, fmt.Errorf("its %s: %w", field, e))
	}
	t.Expires = unlessNever(t.Expires)
	return err
}

// mostName bounds what is kept of the name of a token, in bytes. The engine's own
// names are much shorter.
const mostName = 255

// nameIn is the name in raw, cut where it is too long, or empty where there is none.
func nameIn(raw json.RawMessage) string {
	name := textIn(raw)
	if len(name) <= mostName {
		return name
	}
	return strings.ToValidUTF8(name[:mostName], "")
}

// textIn is the string in raw, or empty where it is not one.
func textIn(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s) // of another type it stays empty
	return s
}

// timeIn is the time in raw, zero where that is null or absent.
func timeIn(raw json.RawMessage) (time.Time, error) {
	if s := textIn(raw); s != "" {
		return parseTime(s)
	}
	if value := string(raw); value != "" && value != "null" && value != `""` {
		return time.Time{}, errNotTime
	}
	return time.Time{}, nil
}

// unlessNever is t, or zero where it is how some versions say never.
func unlessNever(t time.Time) time.Time {
	if t.Year() >= 9999 {
		return time.Time{}
	}
	return t
}

// isKey tells whether id is a 64-bit key as Jira gives them out.
func isKey(id string) bool {
	n, err := strconv.ParseInt(id, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == id && n >= 0
}

// parseTime reads Jira's times, with a colon in the zone or without. Empty
// means zero.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.999-0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errNotTime
}

var errNotTime = errors.New("it is not a time as Jira writes them")
