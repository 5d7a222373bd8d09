// Command apidoc writes the reference of the engine's HTTP API, docs/api.md,
// from the schemas that the engine declares to Vault:
//
//	go run ./scripts/apidoc >docs/api.md
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend"
)

func main() {
	if err := write(os.Stdout, backend.Paths()); err != nil {
		fmt.Fprintln(os.Stderr, "apidoc:", err)
		os.Exit(1)
	}
}

const preface = `<!-- Written by "make docs" from the schemas in backend/. Do not edit. -->

# The engine's HTTP API

The paths are written for an engine mounted at ` + "`jira/`" + `; with the ` + "`vault`" + `
command leave out ` + "`/v1/`" + `. A field of a duration takes seconds or a string like
` + "`90s`, `15m`, `24h`" + `, and is read back in seconds. A write changes only the fields
that it sends. A field that the engine does not know is ignored and named in a
warning. ` + "`field=@file`" + ` takes a value from a file. Sample answers leave out what
is the same in all of Vault's: ` + "`request_id`, `wrap_info`, `warnings`, `auth`" + `.

Errors carry one of these statuses, and a text that says what to do:

| status | meaning | come back? |
|---|---|---|
| 400 | a mistake in the request or the configuration, or a credential that Jira refuses | after it is mended |
| 403 | the Vault token's policy does not allow it | after it is mended |
| 404 | a read of a config, account or role that is not there, or an empty list | |
| 429 | no account of the role has room for another token | when a lease has ended |
| 500 | a fault of the engine or of Vault's storage; the log has the details | |
| 502 | an answer that Jira does not give: HTML, cut short, too big | after it is mended |
| 503 | Jira is down, slow or asks for a pause; the text says until when, if Jira did | yes |

A revoke with ` + "`-sync`" + ` that fails is answered 400 by Vault itself, whatever the
reason; the text is the engine's.
`

// methods are the operations in the order in which they are told. A create
// and an update are one request to Vault.
var methods = []struct {
	operation logical.Operation
	method    string
	command   string // of the vault command
	needs     string // the capability in a policy
}{
	{logical.CreateOperation, http.MethodPost, "write", "`create`, and `update` of what exists"},
	{logical.UpdateOperation, http.MethodPost, "write -format=json", "`update`"},
	{logical.PatchOperation, http.MethodPatch, "patch", "`patch`"},
	{logical.ReadOperation, http.MethodGet, "read -format=json", "`read`"},
	{logical.ListOperation, "LIST", "list -format=json -detailed", "`list`"},
	{logical.DeleteOperation, http.MethodDelete, "delete", "`delete`"},
}

// write writes the reference of paths to w.
func write(w io.Writer, paths []*framework.Path) error {
	var b bytes.Buffer
	b.WriteString(preface)
	for _, p := range paths {
		if err := writePath(&b, p); err != nil {
			return fmt.Errorf("%s: %w", p.Pattern, err)
		}
	}
	_, err := b.WriteTo(w)
	return err
}

func writePath(b *bytes.Buffer, p *framework.Path) error {
	path := readable(p.Pattern)
	fmt.Fprintf(b, "\n## `%s`\n\n%s\n\n%s\n", path, strings.TrimSpace(p.HelpSynopsis), indented(p.HelpDescription))
	if len(p.Fields) > 0 {
		b.WriteString("\n| field | type | default | |\n|---|---|---|---|\n")
		for _, name := range slices.Sorted(maps.Keys(p.Fields)) {
			f := p.Fields[name]
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, f.Type, defaultOf(f), cell(f.Description))
		}
	}
	told := map[string]bool{}
	for _, m := range methods {
		operation, ok := p.Operations[m.operation]
		if !ok || told[m.method] {
			continue
		}
		told[m.method] = true
		if err := writeOperation(b, path, m.method, m.command, m.needs, operation.Properties()); err != nil {
			return fmt.Errorf("%s: %w", m.operation, err)
		}
	}
	return nil
}

func writeOperation(b *bytes.Buffer, path, method, command, needs string, op framework.OperationProperties) error {
	fmt.Fprintf(b, "\n### %s `/v1/jira/%s`\n\n%s A policy needs %s.\n", method, path, op.Summary, needs)
	path = strings.NewReplacer("accounts/:name", "accounts/ci-bot", ":name", "readonly").Replace(path)
	if ok := op.Responses[http.StatusOK]; len(ok) > 0 && ok[0].MediaType != "" { // no JSON
		command = strings.Replace(command, "-format=json", "-format=raw", 1)
	}
	fmt.Fprintf(b, "\n    $ vault %s jira/%s", command, strings.TrimSuffix(path, "/"))
	for _, example := range op.Examples {
		for _, field := range slices.Sorted(maps.Keys(example.Data)) {
			fmt.Fprintf(b, " %s=%v", field, example.Data[field])
		}
	}
	b.WriteString("\n")
	if _, silent := op.Responses[http.StatusNoContent]; silent {
		b.WriteString("\nAnswers 204 without a body, or 200 with warnings.\n")
		return nil
	}
	for _, response := range op.Responses[http.StatusOK] {
		b.WriteString("\n```" + map[bool]string{true: "json", false: "text"}[response.MediaType == ""] + "\n")
		if err := writeExample(b, path, response.Example); err != nil {
			return err
		}
		b.WriteString("```\n")
		if response.MediaType != "" {
			writeMetrics(b)
			continue
		}
		b.WriteString("\n| field | type | |\n|---|---|---|\n")
		for _, name := range slices.Sorted(maps.Keys(response.Fields)) {
			f := response.Fields[name]
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, f.Type, cell(f.Description))
		}
	}
	return nil
}

// writeMetrics writes what the engine counts. A description tells neither its type nor,
// but as text, anything else; the names are those that Prometheus advises.
func writeMetrics(b *bytes.Buffer) {
	b.WriteString("\n| metric | type | labels | |\n|---|---|---|---|\n")
	rows := []string{}
	for _, d := range backend.Metrics() {
		m := described.FindStringSubmatch(d.String())
		kind := "gauge"
		switch {
		case strings.HasSuffix(m[1], "_total"):
			kind = "counter"
		case strings.HasSuffix(m[1], "_duration_seconds"):
			kind = "histogram"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |\n", m[1], kind, strings.ReplaceAll(m[3], ",", ", "), cell(m[2])))
	}
	slices.Sort(rows)
	b.WriteString(strings.Join(rows, ""))
}

var described = regexp.MustCompile(`fqName: "(\w+)", help: "([^"]*)", .*variableLabels: {([\w,]*)}`)

// writeExample writes an answer as Vault sends it.
func writeExample(b *bytes.Buffer, path string, example *logical.Response) error {
	if example == nil {
		return fmt.Errorf("the answer has no example")
	}
	answer := struct {
		LeaseID       string         `json:"lease_id"`
		LeaseDuration int64          `json:"lease_duration"`
		Renewable     bool           `json:"renewable"`
		Data          map[string]any `json:"data"`
	}{Data: example.Data}
	if text, is := example.Data[logical.HTTPRawBody].(string); is { // no JSON
		b.WriteString(text)
		return nil
	}
	if s := example.Secret; s != nil {
		answer.LeaseID = "jira/" + path + "/UxDk4T8IPlqGcaTnXFmWDZyz"
		answer.LeaseDuration = int64(s.TTL / time.Second)
		answer.Renewable = s.Renewable
	}
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(answer)
}

var (
	capture = regexp.MustCompile(`\(\?P<(\w+)>[^)]*\)`)
	ending  = regexp.MustCompile(`/\?\$?$`)
)

// readable is a path's pattern as a person writes it.
func readable(pattern string) string {
	return ending.ReplaceAllString(capture.ReplaceAllString(pattern, ":$1"), "/")
}

func defaultOf(f *framework.FieldSchema) string {
	switch {
	case f.Required:
		return "in the path"
	case f.Default == nil && f.Type == framework.TypeBool:
		return "`false`"
	case f.Default == nil:
		return ""
	}
	return fmt.Sprintf("`%v`", f.Default)
}

// cell is text that fits into a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", `\<`).Replace(s)
}

// indented leaves help's own examples as they are: Markdown takes four spaces
// for code, as help does.
func indented(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "<role>", "`<role>`")) }
