package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// The end-to-end stories are the scripts in testdata, one tale of an operator each, and TestGoClient. They run the
// plugin in a real Vault against cmd/jira-sim. Beside them TestCrashes, TestFailover and others end what they run on, and
// look whether the promises hold.
//
//	VAULT_BIN               the Vault; else the one on the PATH, else one that scripts/vault.sh has built before
//	PLUGIN_BIN, SIM_BIN     the programs; else they are built
//	REQUIRE_VAULT=1         fail where there is no Vault, instead of skipping
//	JIRA_URL, JIRA_USERNAME, JIRA_TOKEN, JIRA_PROJECT
//	                        run the stories that can against this Jira, as that user, and make an issue in that
//	                        project where one is named. So far this was seen to work against jira-sim only.
//	-soak, -rounds, -seed   the long forms, see soak_test.go
//	-keep FOLDER            copy there what a failing test has written to, logs and all
//
// A failing story shows its commands, and the ends of Vault's log and the simulator's.

// suite is what all stories share.
var suite struct {
	dir       string // for all the files
	noVault   string // why there is no Vault; "" if there is
	bin       string // a folder with vault, the one program that stories call by name
	sim       string
	pluginDir string // the plugin alone, under its own name
	version   string // the plugin's own word
	sha256    string // of the plugin

	ran, skipped atomic.Int32 // scripts
	figures      sum          // of crashes
}

const pluginName = "vault-plugin-secrets-jira"

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stories:", err)
		code = 1
	}
	if *soak {
		suite.figures.print()
	}
	fmt.Printf("stories: %d ran, %d skipped\n", suite.ran.Load(), suite.skipped.Load())
	os.Exit(code)
}

func runSuite(m *testing.M) (int, error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "stories")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left of it does no harm
	if suite.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return 1, err
	}
	// Where testscript works, too: it leaves its folder behind where not all scripts run. With -testwork it shall.
	flag.Parse()
	if work := flag.Lookup("testwork"); work == nil || work.Value.String() == "false" {
		if err := os.Setenv("GOTMPDIR", suite.dir); err != nil {
			return 1, err
		}
	}
	vault, err := findVault(ctx)
	if err != nil {
		if os.Getenv("REQUIRE_VAULT") == "1" {
			return 1, fmt.Errorf("REQUIRE_VAULT=1, but %w", err)
		}
		suite.noVault = err.Error()
		fmt.Fprintln(os.Stderr, "stories: skipped:", err)
		return m.Run(), nil
	}
	if err := prepare(ctx, vault); err != nil {
		return 1, err
	}
	// A plugin outlives a Vault that is killed. What is left of them ends with us, however we end.
	sweep := exec.CommandContext(ctx, "sh", "-c", `read -r _; for p in /proc/[0-9]*; do
		if [ "$(readlink "$p/exe")" = "$0" ]; then kill -9 "${p##*/}"; fi; done`, filepath.Join(suite.pluginDir, pluginName))
	ended, err := sweep.StdinPipe()
	if err != nil {
		return 1, err
	}
	if err := sweep.Start(); err != nil {
		return 1, err
	}
	defer func() {
		_ = ended.Close()
		_ = sweep.Wait() // finding nothing is its usual end
	}()
	// Neither Vault nor its clients may take anything from whoever runs this.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			if err := os.Unsetenv(name); err != nil {
				return 1, err
			}
		}
	}
	return m.Run(), nil
}

// findVault returns the path of a Vault.
func findVault(ctx context.Context) (string, error) {
	if path := os.Getenv("VAULT_BIN"); path != "" {
		return filepath.Abs(path)
	}
	if path, err := exec.LookPath("vault"); err == nil {
		return filepath.Abs(path)
	}
	out, err := exec.CommandContext(ctx, "../../scripts/vault.sh", "--cached").Output()
	if err != nil {
		return "", errors.New("there is no Vault: VAULT_BIN is not set, none is on the PATH, and scripts/vault.sh has not built one")
	}
	return strings.TrimSpace(string(out)), nil
}

// prepare puts the programs where the stories find them.
func prepare(ctx context.Context, vault string) error {
	suite.bin, suite.pluginDir = filepath.Join(suite.dir, "bin"), filepath.Join(suite.dir, "plugins")
	for _, dir := range []string{suite.bin, suite.pluginDir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := os.Symlink(vault, filepath.Join(suite.bin, "vault")); err != nil {
		return err
	}
	var err error
	if suite.sim, err = program(ctx, "SIM_BIN", "../jira-sim"); err != nil {
		return err
	}
	built, err := program(ctx, "PLUGIN_BIN", ".")
	if err != nil {
		return err
	}
	// A copy: Vault accepts no link out of its plugin folder, and registers whatever else lies there.
	binary, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	plugin := filepath.Join(suite.pluginDir, pluginName)
	if err := os.WriteFile(plugin, binary, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	suite.sha256 = hex.EncodeToString(sum[:])
	said, err := exec.CommandContext(ctx, plugin, "-version").Output()
	if err != nil {
		return fmt.Errorf("asking the plugin for its version: %w", err)
	}
	suite.version = strings.TrimSpace(strings.TrimPrefix(string(said), pluginName))
	return nil
}

// program returns the path of what the environment names, or builds it.
func program(ctx context.Context, variable, source string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(suite.dir, strings.ToLower(variable))
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false",
		"-ldflags", "-X vault-plugin-secrets-jira/backend.Version="+cmp.Or(os.Getenv("VERSION"), "v0.1.0"), "-o", path, source)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", source, err, out)
	}
	return path, nil
}
