package backend

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// What the framework says of a value that it cannot convert repeats it. proxy_url holds
// a password, and a secret may be given for any field by mistake.
func TestNoErrorRepeatsAValue(t *testing.T) {
	e := start(t, jiratest.Options{})
	const secret = "s3cr3t-of-somebody"
	values := []any{
		[]any{secret, secret},
		[]any{[]any{secret}},
		[]any{map[string]any{secret: secret}},
		map[string]any{"x": secret},
		map[string]any{secret: "x"},
		secret,
		json.Number("99999999999999999999"),
		[]any{},
	}
	fields := 0
	for _, path := range []string{"config", "accounts/ci-bot", "roles/r", "static-roles/s", "creds/r", "tidy", "config/auto-tidy", "tokens/"} {
		for field, schema := range e.Route(path).Fields {
			if field == "name" {
				continue
			}
			fields++
			for _, value := range values {
				_, text := value.(string)
				_, number := value.(json.Number)
				flat := reflect.DeepEqual(value, values[0])
				if schema.Type == framework.TypeString && (text || number) || schema.Type == framework.TypeCommaStringSlice && (text || number || flat) {
					continue // it is what the field is for
				}
				for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation, logical.ReadOperation} {
					resp, err := e.request(t.Context(), op, path, map[string]any{field: value})
					if err == nil && resp.IsError() {
						err = resp.Error()
					}
					if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "999999")) {
						t.Errorf("%s of %s with %s: %v", op, path, field, err)
					}
				}
			}
		}
	}
	if fields < 60 {
		t.Errorf("only %d fields were tried", fields)
	}
	for field, words := range map[string]string{
		"proxy_url": "proxy_url is not a single value", "tls_skip_verify": "tls_skip_verify is not a single value",
		"request_timeout": "request_timeout is not a single value", "max_token_days": "max_token_days is not a single value",
	} {
		e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": "https://jira.example.com", field: []any{secret, secret}}, words)
	}
}

// Every text that an operator writes has a bound, and so has every list.
func TestEveryFieldHasABound(t *testing.T) {
	e := start(t, jiratest.Options{})
	for _, path := range []string{"config", "accounts/ci-bot", "roles/r", "static-roles/s", "tidy", "tokens/"} {
		for field, schema := range e.Route(path).Fields {
			if field == "name" {
				continue
			}
			long := strings.Repeat("x", 1<<20)
			switch schema.Type {
			case framework.TypeString:
				e.refuses(400, logical.UpdateOperation, path, map[string]any{field: long}, field+" is longer than")
			case framework.TypeCommaStringSlice:
				e.refuses(400, logical.UpdateOperation, path, map[string]any{field: "a," + long}, "a value of "+field+" is longer than")
				most := mostListed(field)
				words := fmt.Sprintf("%s has %d values", field, most+1)
				e.refuses(400, logical.UpdateOperation, path, map[string]any{field: strings.Repeat("x,", most) + "x"}, words)
				e.refuses(400, logical.UpdateOperation, path, map[string]any{field: make([]string, most+1)}, words)
			}
		}
	}
}

// A password that is no text is refused before Jira counts it as a wrong one.
func TestAPasswordThatIsNoText(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.jira.ResetCalls()
	for _, tt := range []struct{ password, words string }{
		{"\ufeffopen sesame", "byte-order mark"},
		{"o\x00p\x00e\x00n\x00", "NUL"},
		{"\ufffd\ufffdo\x00p\x00", "not UTF-8"}, // UTF-16 of a file, as Vault's client sends it
		{"open\nsesame", "line break"},
		{"open\tsesame", "control character"},
		{"open\u0085sesame", "control character"},
		{"s\xe9same", "not UTF-8"},
		{"s\ufffdsame", "not UTF-8"},
	} {
		e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "password": tt.password}, "password", tt.words)
		e.refuses(400, logical.UpdateOperation, "config", map[string]any{"username": "jira-admin", "password": tt.password}, "password", tt.words)
		e.refuses(400, logical.UpdateOperation, "accounts/s", map[string]any{"type": "oauth2", "client_id": "c", "client_secret": tt.password}, "client_secret", tt.words)
	}
	if calls := e.jira.Calls(); len(calls) > 0 {
		t.Errorf("calls to Jira: %v", calls)
	}
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "öffne dich, Sesam" })
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "password": "öffne dich, Sesam\r\n"})
}
