package jiratest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// start is when the tests' clocks begin: no whole second, in no zone of Jira's.
var start = time.Date(2026, 3, 2, 9, 15, 9, 417_283_000, time.FixedZone("CET", 3600))

// newJira starts a Jira that has the plain users ci and other, and root, who administers it. Its clock stands still.
func newJira(t *testing.T, o jiratest.Options) *jiratest.Server {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return start }
	}
	s := jiratest.New(t, o)
	s.AddUser(jiratest.User{Name: "ci", Password: "the password of ci"})
	s.AddUser(jiratest.User{Name: "other", Password: "the password of other"})
	s.AddUser(jiratest.User{Name: "root", Password: "the password of root", Admin: true, SysAdmin: true})
	return s
}

// client calls a Jira with some credential.
type client struct {
	t      *testing.T
	base   string
	http   *http.Client
	header http.Header
}

type reply struct {
	status int
	header http.Header
	body   string
}

// as returns a client that logs in with authorization, or not at all if it is "".
func as(t *testing.T, s *jiratest.Server, authorization string) *client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := &client{t: t, base: s.URL(), header: http.Header{
		"Accept": {"application/json"}, "User-Agent": {"jiratest"}, "X-Atlassian-Token": {"no-check"},
	}}
	c.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if authorization != "" {
		c.header.Set("Authorization", authorization)
	}
	return c
}

// basic returns a client that logs in with the password that newJira gave to name.
func basic(t *testing.T, s *jiratest.Server, name string) *client {
	t.Helper()
	return as(t, s, basicHeader(name, "the password of "+name))
}

func basicHeader(name, password string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(name, password)
	return r.Header.Get("Authorization")
}

// try makes a call, which may fail.
func (c *client) try(ctx context.Context, method, path, body string) (reply, error) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header = c.header.Clone()
	if body != "" && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(b)}, err
}

// do makes a call that has to be answered.
func (c *client) do(method, path, body string) reply {
	c.t.Helper()
	r, err := c.try(c.t.Context(), method, path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// want makes a call that has to be answered with a status, and returns the body's fields.
func (c *client) want(status int, method, path, body string) map[string]any {
	c.t.Helper()
	r := c.do(method, path, body)
	if r.status != status {
		c.t.Fatalf("%s %s: %d %s, want %d", method, path, r.status, r.body, status)
	}
	var fields map[string]any
	if strings.HasPrefix(r.body, "{") {
		fields = r.fields(c.t)
	}
	return fields
}

// mint makes a token of a day over the API and returns its path and a client that uses it.
func (c *client) mint(s *jiratest.Server, name string) (path string, with *client) {
	c.t.Helper()
	k := c.want(http.StatusCreated, http.MethodPost, patTokens, fmt.Sprintf(`{"name":%q,"expirationDuration":1}`, name))
	raw, ok := k["rawToken"].(string)
	if !ok {
		c.t.Fatalf("no rawToken in %v", k)
	}
	return fmt.Sprintf("%s/%v", patTokens, k["id"]), as(c.t, s, "Bearer "+raw)
}

// list lists the names of the caller's tokens.
func (c *client) list() string {
	c.t.Helper()
	r := c.do(http.MethodGet, patTokens, "")
	var list []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal([]byte(r.body), &list); err != nil {
		c.t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	var names []string
	for _, k := range list {
		names = append(names, k.Name)
	}
	return strings.Join(names, " ")
}

// fields decodes a JSON object without rounding its numbers.
func (r reply) fields(t *testing.T) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(r.body)))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		t.Fatalf("%d %q: %v", r.status, r.body, err)
	}
	return fields
}

const (
	patTokens = "/rest/pat/latest/tokens"
	myself    = "/rest/api/2/myself"
	search    = "/rest/api/2/search"
)
