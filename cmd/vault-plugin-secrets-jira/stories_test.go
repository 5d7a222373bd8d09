package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// anyJira are the stories that need no simulator. Their lines that do start with [sim].
var anyJira = []string{"testdata/lifecycle.txt", "testdata/expiry.txt", "testdata/renew.txt"}

func TestStories(t *testing.T) {
	all, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(all) == 0 {
		t.Fatal("there are no stories in testdata", err)
	}
	params := testscript.Params{
		Files: all, Setup: setup, Condition: condition, Cmds: commands, RequireUniqueNames: true,
	}
	if suite.noVault != "" {
		suite.skipped.Add(int32(len(all)))
		t.Skip(suite.noVault)
	}
	if realJira() {
		params.Files = anyJira
		suite.skipped.Add(int32(len(all) - len(anyJira)))
		if os.Getenv("JIRA_USERNAME") == "" || os.Getenv("JIRA_TOKEN") == "" {
			t.Fatal("JIRA_URL is set: set JIRA_USERNAME and JIRA_TOKEN, too, or none of them for the simulator")
		}
		t.Log("against the Jira at JIRA_URL; the other stories need the simulator")
	}
	testscript.Run(t, params)
}

type worldKey struct{}

// setup makes the world of a script. Besides what it says of Jira, the script gets VAULT_ADDR and VAULT_TOKEN, and what
// an operator is told of the plugin: PLUGIN_VERSION and PLUGIN_SHA256, and DOCS, where the project's docs are.
func setup(env *testscript.Env) error {
	t, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("testscript.Run promises a testing.TB")
	}
	w := &world{t: t, dir: env.WorkDir}
	env.Defer(w.end)
	w.begin()
	suite.ran.Add(1)
	env.Values[worldKey{}] = w
	for name, value := range w.jira {
		env.Setenv(name, value)
	}
	env.Setenv("VAULT_ADDR", w.addr)
	env.Setenv("VAULT_TOKEN", w.root)
	env.Setenv("PLUGIN_VERSION", suite.version)
	env.Setenv("PLUGIN_SHA256", suite.sha256)
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		return err
	}
	env.Setenv("DOCS", docs)
	env.Setenv("PATH", suite.bin+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Setenv("HOME", filepath.Join(w.dir, "home"))
	return nil
}

func condition(name string) (bool, error) {
	switch name {
	case "sim": // Jira is the simulator
		return !realJira(), nil
	case "project": // there is a project to make issues in
		return !realJira() || os.Getenv("JIRA_PROJECT") != "", nil
	}
	return false, fmt.Errorf("there is no condition %q", name)
}
