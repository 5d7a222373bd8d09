package jira

import (
	"context"
	"fmt"
	"net/http"
)

// The calls of this file concern one token by its id. Its owner may make them and, where
// Jira allows it (which is not confirmed), an administrator, of the tokens of anybody.

// Token returns the token with Jira's key id, be it another user's. found is false,
// without an error, where Jira said to the login's own user that there is none, and its
// token API is there: of a token that this login may not see it says the same.
func (c *Client) Token(ctx context.Context, id string) (t Token, found bool, err error) {
	if !isKey(id) {
		return Token{}, false, refuse(http.MethodGet, tokensPath, "id of a token", id)
	}
	t, a, err := c.token(ctx, id)
	if err != nil {
		return Token{}, false, err
	}
	if a.status == http.StatusNotFound {
		return Token{}, false, c.unlisted(ctx, a, id)
	}
	return t, true, nil
}

// token returns the token with that id, and Jira's answer, which is a 404 where there is none
// or where the token API is not mounted.
func (c *Client) token(ctx context.Context, id string) (Token, *answer, error) {
	a, err := c.do(ctx, call{
		method: http.MethodGet, path: tokensPath + "/" + id,
		want:   []int{http.StatusOK, http.StatusNotFound},
		urgent: true,
	})
	if err != nil {
		return Token{}, nil, err
	}
	if err := c.prove(ctx, a, nil); err != nil || a.status == http.StatusNotFound {
		return Token{}, a, err
	}
	var listed tokenJSON
	if err := a.decode(&listed); err != nil {
		return Token{}, a, err
	}
	t, err := listed.token()
	if t.ID != id {
		return Token{}, a, a.nonsense(fmt.Sprintf("it is about another token: %v", err))
	}
	return t, a, nil
}

// DeleteOthersToken ends the token with Jira's key id, which is another user's, if it is the
// one that is tells. No error means that it is proven to be gone: the login saw it, and
// after the delete it saw it no more, or saw that the id is that of another token. Where the
// login does not see it to begin with, that is an error of kind [Denied], for that
// proves nothing. It goes before other calls where the gate is narrow.
func (c *Client) DeleteOthersToken(ctx context.Context, id string, is func(Token) bool) error {
	t, found, err := c.Token(ctx, id)
	if err != nil {
		return err
	}
	if !found {
		return &Error{
			Kind: Denied, Method: http.MethodGet, Path: tokensPath + "/" + id, Status: http.StatusNotFound, Refusing: true,
			Words: fmt.Sprintf("user %q does not see this token: it is gone, or Jira shows administrators only their own", c.login.Username),
		}
	}
	if !is(t) {
		return nil
	}
	a, err := c.do(ctx, call{
		method: http.MethodDelete, path: tokensPath + "/" + id,
		want:   []int{http.StatusNoContent, http.StatusOK, http.StatusNotFound},
		urgent: true,
	})
	if err != nil {
		return err
	}
	t, found, err = c.Token(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("DELETE %s: cannot tell whether the token is gone: %w", a.call.path, err)
	case found && is(t):
		return a.nonsense("the token is still there")
	}
	return nil
}
