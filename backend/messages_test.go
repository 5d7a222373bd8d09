package backend

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs/messages.md has all that an operator can be told. Log lines stand there with their
// level, and none that is not logged does. Of all else, whatever the code says in words
// counts, unless it only describes the API.
func TestEveryMessageIsExplained(t *testing.T) {
	raw, err := os.ReadFile("../docs/messages.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(raw), "`", "")
	explained := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([A-Z]+) \\|").FindAllStringSubmatch(string(raw), -1) {
		explained[row[2]+" "+row[1]] = true
	}
	logged, said := map[string]bool{}, 0
	set := token.NewFileSet()
	for _, pattern := range []string{"*.go", "*/*.go", "../cmd/vault-plugin-secrets-jira/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range logLines(parsed) {
				logged[m.text] = true
				if !explained[m.text] {
					t.Errorf("%s: docs/messages.md has no row of %q", set.Position(m.pos), m.text)
				}
			}
			if file == "metrics.go" || strings.HasPrefix(file, "../cmd") { // which tell nobody of errors
				continue
			}
			for _, m := range texts(parsed) {
				said++
				if !strings.Contains(page, m.text) {
					t.Errorf("%s: docs/messages.md does not have %q", set.Position(m.pos), m.text)
				}
			}
		}
	}
	for line := range explained {
		if !logged[line] {
			t.Errorf("docs/messages.md explains %q, which is not logged", line)
		}
	}
	if len(logged) < 50 || said < 400 {
		t.Errorf("%d lines and %d texts: the code is not understood", len(logged), said)
	}
}

type message struct {
	text string
	pos  token.Pos
}

// logLines returns what file logs, each with its level in front.
func logLines(file *ast.File) (all []message) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 { // as err.Error()
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Trace", "Debug", "Info", "Warn", "Error"}, method.Sel.Name) {
			return true
		}
		if text := spelled(call.Args[0]); text != "…" {
			all = append(all, message{strings.ToUpper(method.Sel.Name) + " " + text, call.Pos()})
		}
		return true
	})
	return all
}

// texts returns what file says in words.
func texts(file *ast.File) (all []message) {
	var look func(ast.Node) bool
	look = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec: // help, templates and keys; a message has a type or is in a function
			return len(n.Values) != 1 || spelled(n.Values[0]) == "…"
		case *ast.CallExpr: // of what others say
			f, ok := n.Fun.(*ast.SelectorExpr)
			return !ok || f.Sel.Name != "Contains"
		case *ast.FuncDecl:
			if !describes(n) {
				return n.Name.Name != "String"
			}
			ast.Inspect(n, func(inner ast.Node) bool { // what it declares, but not what that will do
				handler, ok := inner.(*ast.FuncLit)
				if ok {
					ast.Inspect(handler, look)
				}
				return !ok
			})
			return false
		case *ast.BasicLit:
			if text := strings.TrimSpace(spelled(n)); n.Kind == token.STRING && strings.Contains(text, " ") {
				all = append(all, message{text, n.Pos()})
			}
		}
		return true
	}
	ast.Inspect(file, look)
	return all
}

// describes tells whether f declares a part of the API, or gives a sample of it.
func describes(f *ast.FuncDecl) (is bool) {
	if f.Type.Results != nil {
		ast.Inspect(f.Type.Results, func(n ast.Node) bool {
			pkg, ok := n.(*ast.Ident)
			is = is || ok && pkg.Name == "framework"
			return true
		})
	}
	return is || strings.HasSuffix(f.Name.Name, "Example")
}

// spelled is a text as the page has it, with … for what varies.
func spelled(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return spelled(e.X) + spelled(e.Y)
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value) // a number is of no account
		return regexp.MustCompile(`%[-+# 0]*[0-9.]*[a-zA-Z]`).ReplaceAllString(text, "…")
	}
	return "…"
}
