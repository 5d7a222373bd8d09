package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fetchSecrets takes note of every secret that the simulator has ever made.
func (w *world) fetchSecrets() {
	if w.sim == nil {
		return
	}
	var secrets []string
	w.read(&secrets, w.must(200, "GET", w.control+"secrets", nil))
	w.secrets = append(w.secrets, secrets...)
}

// noSecrets fails the story if a secret stands where it does not belong. All who write there have ended.
func (w *world) noSecrets() {
	w.t.Helper()
	for _, leak := range w.leaks() {
		w.t.Error(leak)
	}
}

// leaks looks for secrets in all logs: Vault's own, which the plugin's lines go to, the audit devices', the simulator's,
// Agent's, and the one of command lines. It returns what it has found, and what keeps it from finding anything.
func (w *world) leaks() []string {
	logs, err := filepath.Glob(filepath.Join(w.dir, "*.log"))
	if err != nil {
		return []string{err.Error()}
	}
	slices.Sort(w.secrets)
	secrets := slices.Compact(w.secrets)
	everywhere := newNeedles(secrets)
	var found []string
	seen := map[string]bool{}
	for _, path := range logs {
		name := filepath.Base(path)
		all, outOfPlace := everywhere, func(line []byte) []byte { return line }
		if name == "raw-audit.log" {
			outOfPlace = w.rawAudit().outOfPlace
			// Vault's own tokens, like one to unwrap with, are there to be seen.
			all = newNeedles(slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return strings.HasPrefix(s, "hvs.") }))
		}
		trace := false
		err := eachLine(path, func(line []byte) {
			seen[name] = true
			trace = trace || bytes.Contains(line, []byte("[TRACE]"))
			if all.in(line) && all.in(outOfPlace(line)) {
				found = append(found, fmt.Sprintf("a secret stands in %s: %s", name, line))
			}
		})
		if err != nil {
			found = append(found, err.Error())
		}
		if strings.HasPrefix(name, "vault") && !trace {
			found = append(found, name+" is no trace")
		}
	}
	// A look into no log, or for no secret, finds nothing.
	for _, name := range []string{"audit.log", "raw-audit.log", "commands.log", "sim.log"} {
		if !seen[name] && (name != "sim.log" || w.sim != nil) {
			found = append(found, "there is no "+name)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(name string) bool { return strings.HasPrefix(name, "vault") }) {
		found = append(found, "there is no log of Vault's")
	}
	if len(secrets) == 0 {
		found = append(found, "there are no secrets to look for")
	}
	return found
}

// eachLine calls f with the lines of a file.
func eachLine(path string, f func([]byte)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewReaderSize(file, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			f(bytes.TrimSuffix(line, []byte("\n")))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// rawAudit knows where secrets belong in the audit log that shows everything: what the operator gives the engine, in
// his request, and what a reader gets: once, or from a static role again and again.
type rawAudit struct {
	engines []string          // the engine's own credentials, and other people's, which nobody reads through Vault
	read    map[string]string // what readers got, and where; a mount may have moved meanwhile
}

func (w *world) rawAudit() *rawAudit {
	a := &rawAudit{read: map[string]string{}}
	for name, value := range w.jira {
		if strings.Contains(name, "TOKEN") || strings.Contains(name, "PASSWORD") || strings.Contains(name, "SECRET") {
			a.engines = append(a.engines, value)
		}
	}
	return a
}

var (
	writesCredential = regexp.MustCompile(`(^|/)(config|accounts/[^/]+)$`)
	readsCredential  = regexp.MustCompile(`(^|/)(static-)?creds/[^/]+$|^sys/wrapping/unwrap$`)
	readsAgain       = regexp.MustCompile(`(^|/)static-creds/[^/]+$`)
)

// outOfPlace returns what is left of an entry without the secrets that belong where they stand.
func (a *rawAudit) outOfPlace(line []byte) []byte {
	type object = map[string]any
	var entry object
	if json.Unmarshal(line, &entry) != nil {
		return line
	}
	at := func(o object, field string) object {
		inner, _ := o[field].(object)
		return inner
	}
	request, response := at(entry, "request"), at(entry, "response")
	path, _ := request["path"].(string)
	if writesCredential.MatchString(path) {
		delete(at(request, "data"), "token")
		delete(at(request, "data"), "password")
		delete(at(request, "data"), "fallback_password")
		delete(at(request, "data"), "client_secret")
	}
	if data := at(response, "data"); readsCredential.MatchString(path) {
		token, _ := data["token"].(string)
		where, told := a.read[token]
		if !slices.Contains(a.engines, token) && (!told || readsAgain.MatchString(path) && readsAgain.FindString(where) == readsAgain.FindString(path)) {
			a.read[token] = path
			delete(data, "token")
		}
	}
	rest, err := json.Marshal(entry)
	if err != nil {
		return line
	}
	return rest
}

// needles finds any of many texts in one pass over a log: where eight bytes are the first of some of them, it compares
// these.
type needles struct {
	begin map[uint64][]string
	maybe []uint64 // a bit for each begin, by its hash: most places are done with by one look
}

const wordLength = 8

func newNeedles(secrets []string) *needles {
	n := &needles{begin: map[uint64][]string{}, maybe: make([]uint64, 1<<16)}
	for _, secret := range secrets {
		for _, form := range forms(secret) {
			if len(form) < wordLength {
				continue // it stands everywhere
			}
			begin := binary.LittleEndian.Uint64([]byte(form))
			if !slices.Contains(n.begin[begin], form) {
				n.begin[begin] = append(n.begin[begin], form)
			}
			n.maybe[hash(begin)/64] |= 1 << (hash(begin) % 64)
		}
	}
	return n
}

// hash maps eight bytes to a bit of needles.maybe.
func hash(v uint64) uint64 { return v * 0x9e3779b97f4a7c15 >> (64 - 22) }

// in tells whether any of n stands in text.
func (n *needles) in(text []byte) bool {
	for ; len(text) >= wordLength; text = text[1:] {
		begin := binary.LittleEndian.Uint64(text)
		if n.maybe[hash(begin)/64]>>(hash(begin)%64)&1 == 0 {
			continue
		}
		for _, form := range n.begin[begin] {
			if len(text) >= len(form) && string(text[:len(form)]) == form {
				return true
			}
		}
	}
	return false
}

// forms are the ways in which a secret may be written.
func forms(secret string) []string {
	quoted, _ := json.Marshal(secret) // a string can be
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), strings.Trim(string(quoted), `"`)}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// What stands before the secret, like the name in Basic authentication, shifts its digits: there are three
		// ways. The digits at its ends depend on what is around it.
		for shift, first := range []int{0, 2, 3} {
			digits := encoding.EncodeToString(append(make([]byte, shift), secret...))
			if (shift+len(secret))%3 != 0 {
				digits = digits[:len(digits)-1]
			}
			all = append(all, digits[first:])
		}
	}
	return all
}

func TestSecretsAreFound(t *testing.T) {
	for _, secret := range []string{"correct horse/battery+staple", "MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs"} {
		find := newNeedles([]string{"another secret", secret})
		for _, name := range []string{"a", "ab", "abc"} {
			for what, text := range map[string]string{
				"plain":  name + secret + "z",
				"query":  url.Values{name: {secret}}.Encode(),
				"path":   "/" + url.PathEscape(secret),
				"basic":  base64.StdEncoding.EncodeToString([]byte(name + ":" + secret)),
				"inside": base64.URLEncoding.EncodeToString([]byte(name + secret + name)),
			} {
				if !find.in([]byte("one two " + text + " three")) {
					t.Errorf("%s is not found in %q (%s)", secret, text, what)
				}
			}
		}
		if find.in([]byte("one " + secret[1:] + " two " + secret[:len(secret)-1])) {
			t.Errorf("%s is found where there are only parts of it", secret)
		}
	}
}

// TestLeaksAreFound plants secrets where none may be, and looks for them as every story does in the end.
func TestLeaksAreFound(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.begin()
	w.configure()
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "10m"})
	var read struct{ Data struct{ Token string } }
	w.read(&read, w.api("GET", "jira/creds/app", nil))
	w.api("PUT", "sys/leases/revoke-prefix/jira/creds", map[string]any{"sync": true})
	w.api("PUT", "jira/static-roles/legacy", map[string]any{"account": "ci", "rotation_period": "24h"})
	var legacy struct{ Data struct{ Token string } }
	for range 2 { // which is what it is for
		w.read(&legacy, w.api("GET", "jira/static-creds/legacy", nil))
	}
	w.api("DELETE", "jira/static-roles/legacy", nil)
	static := legacy.Data.Token
	// Of all secrets the last one is the password that the engine makes.
	w.api("PUT", "jira/accounts/releases", map[string]any{"username": w.jira["JIRA_USERNAME_RELEASE_BOT"], "password": w.jira["JIRA_PASSWORD_RELEASE_BOT"]})
	w.api("PUT", "jira/rotate-account/releases", nil)
	w.fetchSecrets()
	rotated := w.secrets[len(w.secrets)-1]
	if found := w.leaks(); len(found) > 0 {
		t.Fatalf("there are leaks before any is planted: %v", found)
	}
	token, own, password := read.Data.Token, w.jira["JIRA_TOKEN"], w.jira["JIRA_ADMIN_PASSWORD"]
	basic := base64.StdEncoding.EncodeToString([]byte("jira-admin:" + password))

	// Entries of the raw audit log, as Vault writes them.
	entry := func(kind, path, request, response string) string {
		return fmt.Sprintf(`{"type":%q,"request":{"path":%q,"data":%s},"response":{"data":%s}}`, kind, path, request, response)
	}
	for what, planted := range map[string]struct{ log, line string }{
		"the plugin logs a token":                        {"vault.log", "[DEBUG] secrets.jira: made " + token + " for you"},
		"the plugin logs a request's header":             {"vault.log", "[TRACE] Authorization: Basic " + basic},
		"Vault logs an account":                          {"vault.log", `[INFO]  core: {"token":"` + own + `"}`},
		"the audit log has a token":                      {"audit.log", entry("response", "jira/creds/app", "null", `{"token":"`+token+`"}`)},
		"the simulator logs a query":                     {"sim.log", "GET /rest?token=" + url.QueryEscape(token)},
		"Agent logs what it renders":                     {"agent.log", "[INFO] rendered token: " + token},
		"an account is read back":                        {"raw-audit.log", entry("response", "jira/accounts/ci", "null", `{"username":"ci-bot","token":"`+own+`"}`)},
		"an error quotes a password":                     {"raw-audit.log", `{"type":"response","error":"login failed with ` + password + `","request":{"path":"jira/accounts/ci"}}`},
		"a reader gets the engine's own token":           {"raw-audit.log", entry("response", "jira/creds/app", "null", `{"token":"`+own+`"}`)},
		"two readers get one token":                      {"raw-audit.log", entry("response", "jira/creds/app", "null", `{"token":"`+token+`"}`)},
		"a reader gets a static role's token":            {"raw-audit.log", entry("response", "jira/creds/app", "null", `{"token":"`+static+`"}`)},
		"a static role hands out a lease's token":        {"raw-audit.log", entry("response", "jira/static-creds/legacy", "null", `{"token":"`+token+`"}`)},
		"a static role is read back":                     {"raw-audit.log", entry("response", "jira/static-roles/legacy", "null", `{"token":"`+static+`"}`)},
		"a rotation tells the new password":              {"raw-audit.log", entry("response", "jira/rotate-account/releases", "null", `{"password":"`+rotated+`"}`)},
		"the plugin logs a password that it made":        {"vault.log", "[DEBUG] secrets.jira: rotated to " + rotated},
		"a renewal has the token":                        {"raw-audit.log", entry("response", "sys/leases/renew", "null", `{"token":"`+token+`"}`)},
		"a token is in the name of something":            {"raw-audit.log", entry("response", "jira/creds/app", "null", `{"token_name":"vault-`+token+`"}`)},
		"an account's client secret is read back":        {"raw-audit.log", entry("response", "jira/accounts/ci", "null", `{"client_secret":"`+own+`"}`)},
		"a credential is written where none is expected": {"raw-audit.log", entry("request", "jira/roles/app", `{"token":"`+own+`"}`, "null")},
	} {
		path := filepath.Join(w.dir, planted.log)
		before, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(slices.Clone(before), planted.line+"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := w.leaks(); len(found) != 1 || !strings.Contains(found[0], planted.line) {
			t.Errorf("%s, and found is %q", what, found)
		}
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// Who may list the processes of a machine sees what they were called with. Ours are looked at, the plugin too.
	w.noteCommands()
	commands, err := os.ReadFile(filepath.Join(w.dir, "commands.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{suite.sim, filepath.Join(suite.bin, "vault"), filepath.Join(suite.pluginDir, pluginName)} {
		if !bytes.Contains(commands, []byte(program)) {
			t.Errorf("it is not known how %s was called", program)
		}
	}
	p, err := w.start("other.log", nil, suite.sim, "-context-path", "/"+token)
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	if found := w.leaks(); len(found) != 1 || !strings.Contains(found[0], "commands.log") {
		t.Errorf("a process is started with a token, and found is %q", found)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "commands.log"), commands, 0o600); err != nil {
		t.Fatal(err)
	}
}
