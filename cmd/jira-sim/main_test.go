package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sim runs jira-sim and returns the variables it exports, and what ends it and tells how it ended.
func sim(ctx context.Context, t *testing.T, args ...string) (vars map[string]string, stdin io.Closer, ended <-chan error) {
	t.Helper()
	in, stdinWriter := io.Pipe()
	stdout, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, in, out, io.Discard)
		_ = out.CloseWithError(io.ErrUnexpectedEOF)
		done <- err
	}()
	vars = map[string]string{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "# ready" {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		if !ok || !strings.HasPrefix(value, "'") || !strings.HasSuffix(value, "'") {
			t.Fatalf("no line for a shell: %s", lines.Text())
		}
		vars[name] = strings.Trim(value, "'")
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return vars, stdinWriter, done
}

// fetch gets a URL with a token and decodes the answer into v.
func fetch(t *testing.T, url, raw string, v any) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+raw)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(v); err != nil && res.StatusCode == http.StatusOK {
		t.Fatal(err)
	}
	return res.StatusCode
}

func TestSeeds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	vars, _, ended := sim(ctx, t, "-jira-version", "9.12.1", "-control")
	base := vars["JIRA_URL"]
	for token, name := range map[string]string{
		"JIRA_TOKEN": vars["JIRA_USERNAME"], "JIRA_ADMIN_TOKEN": vars["JIRA_ADMIN_USERNAME"],
		"JIRA_TOKEN_RELEASE_BOT": "release-bot", "JIRA_TOKEN_REPORTER": "reporter",
	} {
		var me struct{ Name string }
		if status := fetch(t, base+"/rest/api/2/myself", vars[token], &me); status != http.StatusOK || me.Name != name || name == "" {
			t.Errorf("%s is %q (%d), want %q", token, me.Name, status, name)
		}
	}
	var found struct{ Total int }
	if fetch(t, base+"/rest/api/2/search", vars["JIRA_TOKEN"], &found); found.Total != 2 {
		t.Errorf("%d issues", found.Total)
	}
	var info struct{ Version string }
	if fetch(t, base+"/rest/api/2/serverInfo", "", &info); info.Version != "9.12.1" {
		t.Errorf("version %s", info.Version)
	}
	var secrets []string
	if fetch(t, strings.TrimSuffix(base, "/jira")+"/_sim/secrets", "", &secrets); len(secrets) != 8 {
		t.Errorf("%d secrets", len(secrets))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestEndsWithStandardInput(t *testing.T) {
	vars, stdin, ended := sim(t.Context(), t, "-exit-with-stdin", "-context-path", "/")
	if strings.Count(vars["JIRA_URL"], "/") != 2 {
		t.Errorf("served at %s", vars["JIRA_URL"])
	}
	var none any
	if status := fetch(t, vars["JIRA_URL"]+"/_sim/secrets", "", &none); status != http.StatusNotFound {
		t.Errorf("the secrets are there without -control: %d", status)
	}
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCloud(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	ctx, stop := context.WithCancel(t.Context())
	vars, _, ended := sim(ctx, t, "-cloud", "acme", "-ca-file", file)
	ca, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	proxy, err := url.Parse(vars["JIRA_PROXY_URL"])
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("%s, %v", ca, err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	for url, status := range map[string]int{
		vars["JIRA_URL"] + "/_edge/tenant_info":                                             http.StatusOK,
		"https://api.atlassian.com/users/" + vars["JIRA_ACCOUNT_ID"] + "/manage/api-tokens": http.StatusOK,
		"https://api.atlassian.com/ex/jira/" + vars["JIRA_CLOUD_ID"] + "/rest/api/3/myself": http.StatusUnauthorized,
	} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(url, "/users/") {
			r.Header.Set("Authorization", "Bearer "+vars["JIRA_ORG_KEY"])
		}
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %d", url, res.StatusCode)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRefusesToBeReached(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.com:80", "nonsense"} {
		err := run(t.Context(), []string{"-listen", address}, nil, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "-allow-remote") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "127.1.2.3:80", "[::1]:0", "localhost:8080"} {
		if !loopback(address) {
			t.Errorf("%s counts as remote", address)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := run(ctx, []string{"-listen", "0.0.0.0:0", "-allow-remote"}, nil, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestFlags(t *testing.T) {
	var out, log bytes.Buffer
	if err := run(t.Context(), []string{"-version"}, nil, &out, &log); err != nil || out.String() != "jira-sim "+version+"\n" {
		t.Errorf("%q, %v", &out, err)
	}
	if err := run(t.Context(), []string{"-h"}, nil, &out, &log); !errors.Is(err, flag.ErrHelp) || !strings.Contains(log.String(), "-exit-with-stdin") {
		t.Errorf("%q, %v", &log, err)
	}
	for _, args := range [][]string{{"-nothing"}, {"-cloud", "acme"}, {"-ca-file", "x"}, {"argument"}, {"-listen", "127.0.0.1:x"}} {
		if err := run(t.Context(), args, nil, &out, &log); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

// brokenPipe is a standard output that nobody reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestNobodyListens(t *testing.T) {
	if err := run(t.Context(), nil, nil, brokenPipe{}, io.Discard); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("it ended with %v", err)
	}
}
