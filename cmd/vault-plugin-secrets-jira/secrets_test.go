package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
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

// noSecrets fails the story if a secret stands in a log: Vault's own, which the plugin's lines go to, the audit
// device's, the simulator's, Agent's. All who write to them have ended.
func (w *world) noSecrets() {
	logs, err := filepath.Glob(filepath.Join(w.dir, "*.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(w.secrets)
	secrets := slices.Compact(w.secrets)
	seen := map[string]bool{}
	for _, name := range logs {
		log, err := os.ReadFile(name)
		if err != nil {
			w.t.Error(err)
		}
		seen[filepath.Base(name)] = len(log) > 0
		for _, secret := range secrets {
			if line := lineWith(log, secret); line != "" {
				w.t.Errorf("a secret stands in %s: %s", filepath.Base(name), line)
			}
		}
	}
	// A look into no log, or for no secret, finds nothing.
	if !seen["vault.log"] || !seen["audit.log"] || !seen["sim.log"] && w.sim != nil || len(secrets) == 0 {
		w.t.Errorf("nothing to look for, or nowhere: %d secrets, logs %v", len(secrets), seen)
	}
	if log, err := os.ReadFile(filepath.Join(w.dir, "vault.log")); err != nil || !bytes.Contains(log, []byte("[TRACE]")) {
		w.t.Error("Vault's log is no trace")
	}
}

// lineWith returns the first line of log in which secret stands in any form.
func lineWith(log []byte, secret string) string {
	for _, form := range forms(secret) {
		if i := bytes.Index(log, []byte(form)); i >= 0 {
			start, end := bytes.LastIndexByte(log[:i], '\n')+1, len(log)
			if n := bytes.IndexByte(log[i:], '\n'); n >= 0 {
				end = i + n
			}
			return string(log[start:end])
		}
	}
	return ""
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
		for _, name := range []string{"a", "ab", "abc"} {
			for what, text := range map[string]string{
				"plain":  name + secret + "z",
				"query":  url.Values{name: {secret}}.Encode(),
				"path":   "/" + url.PathEscape(secret),
				"basic":  base64.StdEncoding.EncodeToString([]byte(name + ":" + secret)),
				"inside": base64.URLEncoding.EncodeToString([]byte(name + secret + name)),
			} {
				if lineWith([]byte("one\ntwo "+text+"\nthree"), secret) != "two "+text {
					t.Errorf("%s is not found in %q (%s)", secret, text, what)
				}
			}
		}
		if line := lineWith([]byte("one\ntwo\n"), secret); line != "" {
			t.Errorf("%s is found in %q", secret, line)
		}
	}
}
