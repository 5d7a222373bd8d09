package jira

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// cloudAddress is Jira Cloud's gateway, behind which service accounts find
// every site, and organisations their API.
const cloudAddress = "https://api.atlassian.com"

var (
	cloudIDPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	// accountPattern is what Cloud's account ids are made of: hexadecimal, or
	// with a prefix and a colon. Ids of API tokens have no colon.
	accountPattern  = regexp.MustCompile(`^[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)*$`)
	apiTokenPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// mostID bounds an id that Cloud gives out, in bytes.
const mostID = 128

// CloudID asks a site of Jira Cloud, by its own address, for the id that it
// has behind the gateway.
func (s *Site) CloudID(ctx context.Context) (string, error) {
	a, err := s.As(Login{}).do(ctx, call{method: http.MethodGet, path: "/_edge/tenant_info", want: []int{http.StatusOK}})
	if err != nil {
		return "", err
	}
	var tenant struct {
		ID string `json:"cloudId"`
	}
	if err := a.decode(&tenant); err != nil {
		return "", err
	}
	if !cloudIDPattern.MatchString(tenant.ID) {
		return "", a.nonsense("no cloudId, which is a UUID")
	}
	return strings.ToLower(tenant.ID), nil
}

// Cloud returns the site of Jira Cloud with that id as service accounts reach
// it: behind Atlassian's gateway, with version 3 of Jira's API. It is called
// as s is, through its proxy, its authorities and its gate.
func (s *Site) Cloud(cloudID string) (*Site, error) {
	if !cloudIDPattern.MatchString(cloudID) {
		return nil, fmt.Errorf("%q is not the id of a site of Jira Cloud, which is a UUID", tidyWords(cloudID))
	}
	return s.gateway("/ex/jira/" + strings.ToLower(cloudID))
}

// gateway returns the site at a path of the gateway.
func (s *Site) gateway(path string) (*Site, error) {
	there, err := s.reach(cloudAddress + path)
	if err != nil {
		return nil, err
	}
	there.cloud = true
	return there, nil
}

// api is the path of Jira's REST API.
func (s *Site) api() string {
	if s.cloud {
		return "/rest/api/3"
	}
	return "/rest/api/2"
}

// missesScope tells whether the gateway knows the token that came with a's
// call, and says that it is not for such calls.
func (a *answer) missesScope() bool {
	return a.status == http.StatusUnauthorized && bytes.Contains(a.body, []byte("scope does not match"))
}

// APITokens makes, lists and ends the API tokens of one account of Jira Cloud,
// whose labels are their names. It remembers a refusal of the organisation's key,
// so keep it. It is safe for concurrent use.
type APITokens struct {
	client  *Client
	account string
	path    string
}

// APITokens returns those of the account with that id. They are managed with
// an organisation's API key that has no scopes. The calls go to Atlassian's
// gateway, as s is called.
func (s *Site) APITokens(orgKey, accountID string) (*APITokens, error) {
	if !accountPattern.MatchString(accountID) || len(accountID) > mostID {
		return nil, fmt.Errorf("%q is not the id of an account of Jira Cloud", tidyWords(accountID))
	}
	there, err := s.gateway("")
	if err != nil {
		return nil, err
	}
	return &APITokens{client: there.As(Login{Token: orgKey}), account: accountID, path: "/users/" + accountID + "/manage/api-tokens"}, nil
}

// Client returns a client whose tokens, to list and to delete, are k's in place of
// those of the login's own user.
func (k *APITokens) Client() *Client {
	return &Client{site: k.client.site, login: k.client.login, kept: k}
}

// APITokens returns those that c was made for by [APITokens.Client], else nil.
func (c *Client) APITokens() *APITokens { return c.kept }

// Create makes a token for a service account, which Atlassian ends at expiry,
// at most 365 days from now. Atlassian does not document this call. That of a
// new account may take about a minute to work.
//
// It is sent once, and after an error [NothingMade] tells whether the token
// may exist, as with [Client.CreateToken].
func (k *APITokens) Create(ctx context.Context, label string, scopes []string, expiry time.Time) (t Token, secret string, err error) {
	expiry = expiry.UTC().Truncate(time.Second)
	a, err := k.client.do(ctx, call{
		method: http.MethodPost, path: k.path,
		body: struct {
			Label  string   `json:"label"`
			Scopes []string `json:"scopes"`
			Expiry string   `json:"expiry"`
		}{label, scopes, expiry.Format(time.RFC3339)},
		want: []int{http.StatusCreated, http.StatusOK},
		once: true, fault: orgKeyFault,
	})
	if err != nil {
		return Token{}, "", err
	}
	made := struct {
		apiTokenJSON
		Secret string `json:"token"`
	}{}
	if err := a.decode(&made); err != nil {
		return Token{}, "", err
	}
	t, err = made.token()
	if t.Name == "" { // unless it says otherwise
		t.Name = label
	}
	if said := string(made.Expires); said == "" || said == "null" {
		t.Expires = expiry
	}
	switch {
	case err != nil:
	case made.Secret == "" || len(made.Secret) > mostSecret || strings.ContainsFunc(made.Secret, notInHeader):
		err = errors.New("its token is missing or could not be sent in a header")
	case t.Name != label:
		err = fmt.Errorf("it is labelled %q instead of %q", k.client.login.quote(t.Name, made.Secret), label)
	}
	if err != nil {
		return Token{}, "", a.nonsense("of the new token: " + err.Error())
	}
	return t, made.Secret, nil
}

// List lists the account's tokens, and returns the date that the answer
// carries: what Atlassian's clock showed, in whole seconds, or zero.
func (k *APITokens) List(ctx context.Context) ([]Token, time.Time, error) {
	a, err := k.client.do(ctx, call{method: http.MethodGet, path: k.path, want: []int{http.StatusOK}, fault: orgKeyFault})
	if err != nil {
		return nil, time.Time{}, err
	}
	return listed[apiTokenJSON](a)
}

// Delete ends the token with that id. No error means that it is proven to be
// gone, whether this call ended it or it was gone before. Where Atlassian knows no
// such id, it is the token of that label that goes, unless label is empty: the id
// is from the answer to a call that is not documented.
func (k *APITokens) Delete(ctx context.Context, id, label string) error {
	cl := call{
		method: http.MethodDelete, path: k.path, urgent: true, fault: orgKeyFault,
		want: []int{http.StatusNoContent, http.StatusNotFound},
	}
	if !apiTokenPattern.MatchString(id) || len(id) > mostID {
		return refuse(cl.method, cl.path, "id of a token", id)
	}
	cl.path += "/" + id
	a, err := k.client.do(ctx, cl)
	if err != nil || a.status == http.StatusNoContent {
		return err
	}
	// That there is nothing may be said of the account, or by a proxy.
	if body := bytes.TrimSpace(a.body); len(body) > 0 && !json.Valid(body) {
		return a.nonsense("the body is not JSON")
	}
	tokens, _, err := k.List(ctx)
	if err != nil {
		return fmt.Errorf("DELETE %s: cannot tell whether the token is gone: %w", cl.path, err)
	}
	if slices.ContainsFunc(tokens, func(t Token) bool { return t.ID == id }) {
		return a.nonsense("the token is still on the list of the account's tokens")
	}
	for _, t := range tokens {
		if label != "" && t.Name == label {
			if err := k.Delete(ctx, t.ID, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// orgKeyFault is what an answer to an organisation's API key means.
func orgKeyFault(_ *login, a *answer, said string) *Error {
	if !a.missesScope() {
		return nil
	}
	return &Error{Kind: Denied, Refusing: true, Words: said, Advice: "the organisation's API key is limited to scopes: take one without scopes"}
}

// apiTokenJSON is an API token on the wire, raw as [tokenJSON] is.
type apiTokenJSON struct {
	ID      json.RawMessage `json:"id"`
	Label   json.RawMessage `json:"label"`
	Created json.RawMessage `json:"createdAt"`
	Expires json.RawMessage `json:"expiry"`
}

// token reads j, as [tokenJSON.token] does. It need not have a label.
func (j apiTokenJSON) token() (Token, error) {
	id := textIn(j.ID)
	if !apiTokenPattern.MatchString(id) || len(id) > mostID {
		return Token{}, errors.New("its id is missing or none")
	}
	t := Token{ID: id, Name: nameIn(j.Label)}
	return t, t.dated(j.Created, "expiry", j.Expires)
}
