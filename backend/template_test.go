package backend

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// A template of a few bytes could make gigabytes, or run for ever. Each is refused, costs
// next to nothing, and the error does not repeat what it made.
func TestHostileTemplates(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	grow := func(step string) string {
		return `{{$x := "` + strings.Repeat("1%26&\\", 10) + `"}}` + strings.Repeat("{{$x = "+step+"}}", 40) + "{{$x}}"
	}
	for name, text := range map[string]string{
		"long":                   "{{.ID}}" + strings.Repeat("x", mostTemplate),
		"a loop":                 "{{range 1000000000}}x{{end}}",
		"a loop that is hidden":  "{{if .ID}}{{with .RoleName}}{{else}}{{range 1000000000}}{{end}}{{end}}{{end}}",
		"a loop in a definition": `{{define "x"}}{{range 1000000000}}{{end}}{{end}}{{.ID}}`,
		"a recursion":            `{{define "x"}}{{template "x"}}{{template "x"}}{{end}}{{template "x"}}`,
		"a block":                `{{block "x" .}}{{template "x"}}{{end}}`,
		"a width":                `{{printf "%100000000d" 1}}`,
		"a precision":            `{{printf "%.100000000f" 1.0}}`,
		"a width from elsewhere": `{{printf "%[1]*d" 100000000}}`,
		"a width in steps":       `{{$f := print "%100" "000000d"}}{{printf $f 1}}`,
		"many widths":            `{{printf "` + strings.Repeat("%999d", 700) + `"}}`,
		"chance":                 "{{random 100000000}}",
		"replacing":              grow(`replace "1" "11111111" $x`),
		"replacing nothing":      grow(`replace "" "1" $x`),
		"printing":               grow("print $x $x"),
		"printing lines":         grow("println $x $x"),
		"a format":               grow(`printf "%s%[1]s" $x`),
		"base64":                 grow("base64 $x"),
		"urlquery":               grow("urlquery $x"),
		"js":                     grow("js $x"),
		"html":                   grow("html $x $x"),
		"a time":                 grow(`timestamp (print $x "Monday")`),
		"a text many times":      `{{$x := print "` + strings.Repeat("x", 1000) + `"}}` + strings.Repeat("{{$x}}", 500),
	} {
		e.in(name, func(e *engine) {
			for _, field := range []string{"username_template", "email_template", "display_name_template"} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				resp, err := e.request(e.t.Context(), logical.UpdateOperation, "roles/hostile", map[string]any{
					"credential_type": "ephemeral_user", "groups": "jira-software-users", field: text,
				})
				runtime.ReadMemStats(&after)
				e.failed(400, resp, err, field)
				if err != nil && len(err.Error()) > 1000 {
					e.t.Errorf("the error has %d bytes: %.200s", len(err.Error()), err)
				}
				if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
					e.t.Errorf("%d bytes were allocated", used)
				}
			}
		})
	}
	if n := e.jira.Count("POST", ""); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// What is bounded is what it was before, otherwise.
func TestTemplateFunctions(t *testing.T) {
	p := persona{ID: "5b2tq6hznr4wjd7c", MountID: "k3xm2a", RoleName: "read-only", DisplayName: "token <app>"}
	for text, want := range map[string]string{
		"{{.ID}}": p.ID,
		"{{if .DisplayName}}a{{else}}b{{end}}{{with .RoleName}}{{.}}{{end}}": "aread-only",
		`{{.RoleName | replace "-" "_"}}`:                                    "read_only",
		`{{.RoleName | base64}}`:                                             "cmVhZC1vbmx5",
		`{{.DisplayName | html}}`:                                            "token &lt;app&gt;",
		`{{.DisplayName | urlquery}}`:                                        "token+%3Capp%3E",
		`{{.DisplayName | js}}`:                                              `token \u003Capp\u003E`,
		`{{printf "%-12s|%03d%%" .RoleName 7}}`:                              "read-only   |007%",
		`{{print .MountID .ID 1}}`:                                           p.MountID + p.ID + "1",
		`{{println .ID}}`:                                                    p.ID + "\n",
		`{{.ID | truncate 4 | uppercase}}`:                                   "5B2T",
		`{{timestamp "2006"}}`:                                               time.Now().Format("2006"),
		`{{random 20 | len}}`:                                                "20",
		`{{sha256 .ID | len}}`:                                               "64",
	} {
		if made, err := generate(text, p); err != nil || made != want {
			t.Errorf("%s made %q, %v", text, made, err)
		}
	}
}

// The display name of a reader's token can be a megabyte.
func TestALongDisplayNameInATemplate(t *testing.T) {
	s := &userScope{UsernameTemplate: "{{.ID}}", DisplayNameTemplate: strings.Repeat("{{.DisplayName}}", 200)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.fill(persona{ID: "5b2tq6hznr4wjd7c", DisplayName: strings.Repeat("ä", 1<<19)})
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "display_name_template: it makes more than") {
		t.Errorf("%v", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
	s.DisplayNameTemplate = "{{.DisplayName}}"
	if u, err := s.fill(persona{ID: "5b2tq6hznr4wjd7c", DisplayName: "x" + strings.Repeat("ä", 1<<19)}); err != nil || u.DisplayName != "x"+strings.Repeat("ä", 127) {
		t.Errorf("%q, %v", u.DisplayName, err)
	}
}
