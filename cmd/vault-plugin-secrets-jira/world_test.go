package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is what a story happens in: a Vault and a Jira of its own, whose logs lie in dir.
type world struct {
	t     testing.TB
	dir   string
	vault *process
	addr  string // of Vault
	root  string // Vault's root token

	jira    map[string]string // what to know about Jira, by the names of jira-sim's variables
	sim     *process          // nil: a real Jira
	control string            // where the simulator is steered

	patience time.Duration // how long applications wait for Vault, if longer than they usually do

	processes []*process // all that were started
	nodes     []*node    // the Vaults of a cluster
	unsealKey string     // of these

	pollers []func() error // who reads tokens in the background: each ends that, and tells what went wrong

	mounts  []string // how the names of the story's tokens begin, as far as it has looked at one of a mount
	secrets []string // what the story has seen of secrets, besides those the simulator knows
}

// most bounds every wait. It is for failures alone: nothing that works takes a tenth of it.
const most = time.Minute

// realJira tells that the stories shall run against a Jira that somebody has.
func realJira() bool { return os.Getenv("JIRA_URL") != "" }

// begin starts Jira and Vault. Whatever happens, end must be called.
func (w *world) begin() {
	w.t.Helper()
	w.beginJira()
	w.startVault()
	w.enableAudit()
}

func (w *world) beginJira() {
	w.t.Helper()
	if realJira() {
		w.jira = map[string]string{}
		for _, name := range []string{"JIRA_URL", "JIRA_USERNAME", "JIRA_TOKEN", "JIRA_PROJECT"} {
			w.jira[name] = os.Getenv(name)
		}
		w.secrets = append(w.secrets, w.jira["JIRA_TOKEN"])
		return
	}
	w.simulate()
}

// simulate starts the simulator, with more flags than usual, to be the story's Jira.
func (w *world) simulate(flags ...string) {
	w.t.Helper()
	w.sim, w.jira = w.startSim("sim.log", flags...)
	w.jira["JIRA_PROJECT"] = "DEMO"
	u, err := url.Parse(cmp.Or(w.jira["JIRA_PROXY_URL"], w.jira["JIRA_URL"]))
	if err != nil {
		w.t.Fatal(err)
	}
	w.control = u.Scheme + "://" + u.Host + "/_sim/"
}

// enableAudit enables the usual audit device, which hashes what is secret, and one that shows all that comes and goes.
func (w *world) enableAudit() {
	w.t.Helper()
	for name, raw := range map[string]string{"audit": "false", "raw-audit": "true"} {
		w.must(204, "PUT", w.addr+"/v1/sys/audit/"+name, map[string]any{
			"type": "file", "options": map[string]string{"file_path": filepath.Join(w.dir, name+".log"), "log_raw": raw},
		}, "X-Vault-Token", w.root)
	}
}

// startSim starts a simulator and returns what it prints of itself.
func (w *world) startSim(log string, flags ...string) (*process, map[string]string) {
	w.t.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	p, err := w.start(log, out, suite.sim, append([]string{"-control"}, flags...)...)
	out.Close()
	if err != nil {
		w.t.Fatal(err)
	}
	printed := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() && lines.Text() != "# ready" {
		name, value, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		printed[name] = strings.Trim(value, "'")
	}
	if printed["JIRA_URL"] == "" {
		w.t.Fatal("jira-sim did not start")
	}
	return p, printed
}

// startVault starts a Vault in development mode that knows the plugin. That a port is free shows only when Vault
// listens there, so it tries several; the answer to our random token tells our Vault from anybody else's.
func (w *world) startVault() {
	w.t.Helper()
	w.root = rand.Text()
	for range 10 {
		address := freeAddress(w.t)
		p, err := w.start("vault.log", nil, filepath.Join(suite.bin, "vault"), "server", "-dev", "-dev-no-store-token",
			"-dev-listen-address="+address, "-dev-plugin-dir="+suite.pluginDir, "-log-level=trace")
		if err != nil {
			w.t.Fatal(err)
		}
		w.vault, w.addr = p, "http://"+address
		if poll(func() bool {
			status, _ := w.send("GET", w.addr+"/v1/auth/token/lookup-self", nil, "X-Vault-Token", w.root)
			return status == http.StatusOK || p.ended()
		}) == nil && !p.ended() {
			return
		}
		p.stop()
	}
	w.t.Fatal("Vault did not start")
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// end checks what every story has to leave behind, which is nothing, and ends the processes.
func (w *world) end() {
	if err := w.endPolls(); err != nil {
		w.t.Error(err)
	}
	failed := w.t.Failed()
	func() {
		defer w.stop()
		w.noteCommands()
		if !failed {
			w.noTokens()
			w.noPeople()
			w.fetchSecrets()
		}
		if w.t.Failed() {
			w.showLogs() // as they are before the end, of which they say a lot
		}
	}()
	if !failed {
		w.noSecrets()
	}
}

func (w *world) stop() {
	for _, p := range slices.Backward(w.processes) {
		p.stop()
	}
}

// noTokens fails the story if a token of the engine's still works in Jira. A real one may hold those of other Vaults.
func (w *world) noTokens() {
	for _, name := range w.live() {
		if w.sim != nil || slices.ContainsFunc(w.mounts, func(mount string) bool { return strings.HasPrefix(name, mount) }) {
			w.t.Errorf("token %q is alive in Jira after the story", name)
		}
	}
}

// live returns the names of the engine's tokens that work in Jira.
func (w *world) live() []string {
	w.t.Helper()
	var tokens []struct {
		Name string
		Live bool
	}
	if w.sim != nil {
		w.read(&tokens, w.must(200, "GET", w.control+"tokens", nil))
	} else {
		w.read(&tokens, w.must(200, "GET", w.jira["JIRA_URL"]+"/rest/pat/latest/tokens", nil, "Authorization", "Bearer "+w.jira["JIRA_TOKEN"]))
	}
	var names []string
	for _, t := range tokens {
		if strings.HasPrefix(t.Name, "vault-") && (t.Live || w.sim == nil) {
			names = append(names, t.Name)
		}
	}
	return names
}

// noPeople fails the story if a user who was made for a lease is there and active.
func (w *world) noPeople() {
	if active, _ := w.people(); len(active) > 0 {
		w.t.Errorf("users %q are active in Jira after the story", active)
	}
}

// people returns the names of the simulator's users who were made for leases.
func (w *world) people() (active, inactive []string) {
	w.t.Helper()
	if w.sim == nil {
		return nil, nil
	}
	var users []struct {
		Name     string
		Inactive bool
	}
	w.read(&users, w.must(200, "GET", w.control+"users", nil))
	for _, u := range users {
		switch {
		case !strings.HasPrefix(u.Name, "vault-"):
		case u.Inactive:
			inactive = append(inactive, u.Name)
		default:
			active = append(active, u.Name)
		}
	}
	return active, inactive
}

func (w *world) showLogs() {
	logs, err := filepath.Glob(filepath.Join(w.dir, "vault*.log"))
	if err != nil {
		w.t.Error(err)
	}
	if *keep != "" {
		kept, err := os.MkdirTemp(*keep, strings.ReplaceAll(w.t.Name(), "/", "-")+"-")
		if err == nil {
			err = os.CopyFS(kept, os.DirFS(w.dir))
		}
		w.t.Logf("all it has written is in %s (%v)", kept, err)
	}
	for _, path := range append(logs, filepath.Join(w.dir, "sim.log")) {
		log, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		w.t.Logf("%s ends:\n%s", filepath.Base(path), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// exchange makes an HTTP request with headers, given in pairs. The status is 0 if there was no answer.
func (w *world) exchange(method, url string, body any, headers ...string) (int, http.Header, []byte) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), most)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		content = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, []byte(err.Error())
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, []byte(err.Error())
	}
	return resp.StatusCode, resp.Header, answer
}

// send is exchange for who does not look at headers.
func (w *world) send(method, url string, body any, headers ...string) (int, []byte) {
	w.t.Helper()
	status, _, answer := w.exchange(method, url, body, headers...)
	return status, answer
}

// must is send for what has to work for the story to go on.
func (w *world) must(want int, method, url string, body any, headers ...string) []byte {
	w.t.Helper()
	status, answer := w.send(method, url, body, headers...)
	if status != want {
		w.t.Fatalf("%s %s: %d %s", method, url, status, answer)
	}
	return answer
}

func (w *world) read(v any, from []byte) {
	w.t.Helper()
	if err := json.Unmarshal(from, v); err != nil {
		w.t.Fatal(err)
	}
}

// poll waits for something that nobody tells.
func poll(done func() bool) error { return pollFor(most, done) }

// pollFor is poll for what may take longer.
func pollFor(most time.Duration, done func() bool) error {
	for end := time.Now().Add(most); !done(); {
		if time.Now().After(end) {
			return fmt.Errorf("waited %v in vain", most)
		}
		<-time.After(20 * time.Millisecond)
	}
	return nil
}
