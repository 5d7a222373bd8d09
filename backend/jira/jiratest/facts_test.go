package jiratest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestEveryUnconfirmedFactIsTestedBothWays(t *testing.T) {
	tests := testFunctions(t)
	seen := map[string]bool{}
	for _, f := range jiratest.Facts() {
		if _, ok := reflect.TypeFor[jiratest.Switches]().FieldByName(f.Switch); !ok {
			t.Errorf("%q: there is no switch %q", f.Fact, f.Switch)
		}
		if seen[f.Switch] {
			t.Errorf("%q: another fact has the switch %s", f.Fact, f.Switch)
		}
		seen[f.Switch] = true
		if (len(f.Tests) == 0) == (f.Unused == "") {
			t.Errorf("%q needs either tests or a reason why there are none", f.Fact)
		}
		for _, name := range f.Tests {
			if !tests[name] {
				t.Errorf("%q: there is no test function %s", f.Fact, name)
			}
		}
	}
}

// testFunctions returns the names of all test functions of this module.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for !isModule(root) {
		if root == filepath.Dir(root) {
			t.Fatal("this is no module")
		}
		root = filepath.Dir(root)
	}
	tests := map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (isModule(path) || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir // another module, or none of ours
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				tests[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
