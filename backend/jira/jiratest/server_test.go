package jiratest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestContextPath(t *testing.T) {
	for given, want := range map[string]string{"": "/jira", "-": "", "a/b/": "/a/b", "/x": "/x"} {
		s := newJira(t, jiratest.Options{ContextPath: given})
		host, ok := strings.CutSuffix(s.URL(), want)
		if !ok || strings.Count(host, "/") != 2 {
			t.Errorf("%q is served at %s", given, s.URL())
		}
		c := as(t, s, "")
		c.want(200, "GET", "/status", "")
		if want == "" {
			continue
		}
		c.base = host
		for _, path := range []string{"/status", want + "x/status", want, "/rest/api/2/serverInfo"} {
			if r := c.do("GET", path, ""); r.status != 404 || !strings.Contains(r.body, "HTTP Status 404") || r.header.Get("X-Ausername") != "" {
				t.Errorf("GET %s: %v", path, r)
			}
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	for _, path := range []string{"/", "/nowhere", "/rest/api/2/nowhere", "/rest/api/2/myself/", "/rest/pat/latest/tokens/", "/rest/pat/latest", "/_sim/calls"} {
		if r := ci.do("GET", path, ""); r.status != 404 || !strings.Contains(r.body, "<html") {
			t.Errorf("GET %s: %v", path, r)
		}
	}
	if r := ci.do("PUT", patTokens, "{}"); r.status != 405 || r.header.Get("Allow") != "POST, GET" {
		t.Errorf("PUT: %v", r)
	}
}

func TestServerInfo(t *testing.T) {
	s := newJira(t, jiratest.Options{Version: "9.12", Deployment: "Cloud"})
	info := as(t, s, "").want(200, "GET", "/rest/api/2/serverInfo", "")
	if info["version"] != "9.12" || fmt.Sprint(info["versionNumbers"]) != "[9 12 0]" || info["deploymentType"] != "Cloud" ||
		info["serverTime"] != "2026-03-02T08:15:09.417+0000" || info["baseUrl"] != s.URL() {
		t.Errorf("serverInfo %v", info)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.ServerInfoLogin = true })
	as(t, s, "").want(401, "GET", "/rest/api/2/serverInfo", "")
	basic(t, s, "ci").want(200, "GET", "/rest/api/2/serverInfo", "")
}

func TestStatus(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := as(t, s, "")
	for state, status := range map[string]int{"": 200, "STARTING": 200, "FIRST_RUN": 200, "MAINTENANCE": 503, "ERROR": 500} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.State = state })
		if state == "" {
			state = "RUNNING"
		}
		if got := c.want(status, "GET", "/status", "")["state"]; got != state {
			t.Errorf("state %v, want %s", got, state)
		}
	}
}

func TestClock(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Advance(time.Hour)
	s.Fault(jiratest.Fault{Do: jiratest.HTML404, Nth: 2})
	c := as(t, s, "")
	for range 2 {
		if r := c.do("GET", "/status", ""); r.header.Get("Date") != "Mon, 02 Mar 2026 09:15:09 GMT" {
			t.Errorf("answered on %q", r.header.Get("Date"))
		}
	}
	for set, want := range map[string]string{"absent": "", "yesterday": "yesterday"} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.Date = set })
		if r := c.do("GET", "/status", ""); r.header.Get("Date") != want || len(r.header.Values("Date")) > 1 {
			t.Errorf("%s: answered on %q", set, r.header.Values("Date"))
		}
	}
	if at := s.Calls()[0].At; !at.Equal(start.Truncate(time.Millisecond).Add(time.Hour)) {
		t.Errorf("came at %v", at)
	}
}

func TestTLS(t *testing.T) {
	s := newJira(t, jiratest.Options{TLS: true})
	roots := x509.NewCertPool()
	if !strings.HasPrefix(s.URL(), "https://127.0.0.1:") || !roots.AppendCertsFromPEM(s.CA()) {
		t.Fatalf("%s with %s", s.URL(), s.CA())
	}
	c := as(t, s, "")
	if _, err := c.try(t.Context(), "GET", "/status", ""); err == nil {
		t.Error("an unknown authority was taken")
	}
	c.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(c.http.CloseIdleConnections)
	c.want(200, "GET", "/status", "")
	s.Fault(jiratest.Fault{Do: jiratest.LoseCall})
	if _, err := c.try(t.Context(), "POST", "/status", ""); err == nil {
		t.Error("the call was answered")
	}
}

func TestClientCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	clients, roots := x509.NewCertPool(), x509.NewCertPool()
	clients.AddCert(cert)
	s := newJira(t, jiratest.Options{TLS: true, ClientCA: clients})
	roots.AppendCertsFromPEM(s.CA())
	c := as(t, s, "")
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	c.http.Transport = &http.Transport{TLSClientConfig: config}
	if _, err := c.try(t.Context(), "GET", "/status", ""); err == nil {
		t.Error("a client without a certificate was let in")
	}
	config = config.Clone()
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	c.http.Transport = &http.Transport{TLSClientConfig: config}
	t.Cleanup(c.http.CloseIdleConnections)
	c.want(200, "GET", "/status", "")
}

// errorsOf is a testing.TB that notes what it is told, and cleans up when asked.
type errorsOf struct {
	testing.TB
	errors  []string
	cleanup []func()
}

func (e *errorsOf) Helper()          {}
func (e *errorsOf) Cleanup(f func()) { e.cleanup = append(e.cleanup, f) }
func (e *errorsOf) Errorf(format string, args ...any) {
	e.errors = append(e.errors, fmt.Sprintf(format, args...))
}

func TestWhatIsLeftAliveFailsTheTest(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *jiratest.Server)
		want int
	}{
		{"live", func(s *jiratest.Server) { s.Mint("ci", "vault-n", 1); s.Mint("ci", "vault-m", 0) }, 2},
		{"not the engine's", func(s *jiratest.Server) { s.Mint("ci", "mine", 0) }, 0},
		{"expired", func(s *jiratest.Server) { s.Mint("ci", "vault-n", 1); s.Advance(24 * time.Hour) }, 0},
		{"made expired", func(s *jiratest.Server) { s.Mint("ci", "vault-n", -1) }, 0},
		{"deleted", func(s *jiratest.Server) { k, _ := s.Mint("ci", "vault-n", 1); s.Delete(k.ID) }, 0},
		{"user deleted", func(s *jiratest.Server) { s.Mint("ci", "vault-n", 1); s.DeleteUser("ci") }, 0},
		{"user deactivated", func(s *jiratest.Server) {
			s.Mint("ci", "vault-n", 1)
			s.SetUser("ci", func(u *jiratest.User) { u.Inactive = true })
		}, 1},
		{"throw-away user", func(s *jiratest.Server) {
			s.AddUser(jiratest.User{Name: "Vault-a"})
			s.AddUser(jiratest.User{Name: "vault-b"})
			s.AddUser(jiratest.User{Name: "not-vault-c"})
		}, 2},
		{"throw-away user deactivated", func(s *jiratest.Server) { s.AddUser(jiratest.User{Name: "vault-a", Inactive: true}) }, 0},
		{"throw-away user deleted", func(s *jiratest.Server) { s.AddUser(jiratest.User{Name: "vault-a"}); s.DeleteUser("vault-a") }, 0},
		{"on purpose", func(s *jiratest.Server) {
			s.Mint("ci", "vault-n", 1)
			s.AddUser(jiratest.User{Name: "vault-a"})
			s.Leave()
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := &errorsOf{TB: t}
			s := jiratest.New(tb, jiratest.Options{})
			s.AddUser(jiratest.User{Name: "ci"})
			c.do(s)
			for _, f := range tb.cleanup {
				f()
			}
			if len(tb.errors) != c.want {
				t.Errorf("told %q, want %d", tb.errors, c.want)
			}
		})
	}
}

// lines is a log that several goroutines may write to.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func TestNoSecretIsLogged(t *testing.T) {
	log := &lines{}
	s := newJira(t, jiratest.Options{Log: log})
	ci := basic(t, s, "ci")
	path, with := ci.mint(s, "n")
	raw := strings.TrimPrefix(with.header.Get("Authorization"), "Bearer ")
	with.do("GET", patTokens+"/"+strings.ReplaceAll(raw, "/", "%2F")+"?token="+raw+"&a=b", "")
	ci.want(204, "PUT", "/rest/api/2/myself/password", `{"currentPassword":"the password of ci","password":"a new password"}`)
	ci.want(401, "GET", myself, "")
	with.want(204, "DELETE", path, "")
	text := log.text.String() + fmt.Sprint(s.Calls())
	secrets := s.Secrets()
	if len(secrets) != 5 {
		t.Errorf("%d secrets", len(secrets))
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %s", secret, text)
		}
	}
	if !strings.Contains(text, `POST /rest/pat/latest/tokens 201 user="ci" auth="basic" fault=""`) || !strings.Contains(text, "?token=(secret)&a=b 404") {
		t.Errorf("log %s", log.text.String())
	}
}

func TestCalls(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	_, with := ci.mint(s, "n")
	with.want(200, "GET", search+"?jql=x", "")
	as(t, s, "Bearer dead").want(401, "GET", myself, "")
	as(t, s, "").want(200, "GET", "/status", "")
	at := start.UTC().Truncate(time.Millisecond)
	want := []jiratest.Call{
		{At: at, Method: "POST", Path: patTokens, User: "ci", Auth: "basic", Status: 201},
		{At: at, Method: "GET", Path: search + "?jql=x", User: "ci", Auth: "bearer", Status: 200},
		{At: at, Method: "GET", Path: myself, Auth: "bearer", Status: 401},
		{At: at, Method: "GET", Path: "/status", Status: 200},
	}
	if got := s.Calls(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("calls %v", got)
	}
	if s.Count("", "/rest/") != 3 || s.Count("GET", "/rest/api") != 2 || s.Count("DELETE", "") != 0 || s.MaxInFlight() != 1 {
		t.Errorf("counted wrong; most in flight %d", s.MaxInFlight())
	}
	s.ResetCalls()
	if s.Count("", "") != 0 || s.MaxInFlight() != 0 {
		t.Error("not forgotten")
	}
}

func TestMaxInFlight(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	remove := s.Fault(jiratest.Fault{Do: jiratest.Hang})
	var group sync.WaitGroup
	for range 5 {
		c := basic(t, s, "ci")
		group.Go(func() {
			if _, err := c.try(t.Context(), "POST", patTokens, mintBody); err == nil {
				t.Error("the call was answered")
			}
		})
	}
	if err := s.WaitCalls(t.Context(), "POST", "", 5); err != nil {
		t.Fatal(err)
	}
	remove()
	s.Close()
	group.Wait()
	if n := s.MaxInFlight(); n != 5 {
		t.Errorf("%d in flight", n)
	}
}

// Everything at once, for the race detector.
func TestConcurrency(t *testing.T) {
	s := newJira(t, jiratest.Options{Now: time.Now, Log: &lines{}, Switches: jiratest.Switches{MaxTokens: -1}})
	s.Fault(jiratest.Fault{Do: jiratest.LoseAnswer, Method: "POST", Nth: 7, Times: 3})
	var group sync.WaitGroup
	for range 8 {
		c := basic(t, s, "ci")
		group.Go(func() {
			for range 10 {
				if _, err := c.try(t.Context(), "POST", patTokens, mintBody); err == nil {
					_, _ = c.try(t.Context(), "GET", patTokens, "")
				}
				for _, k := range s.Tokens("ci") {
					_, _ = c.try(t.Context(), "DELETE", fmt.Sprintf("%s/%d", patTokens, k.ID), "")
				}
				s.SetSwitches(func(sw *jiratest.Switches) { sw.RateLimit = 0 })
				s.Advance(time.Second)
				s.SetUser("ci", func(u *jiratest.User) { u.Groups = append(u.Groups, "g") })
			}
		})
	}
	group.Wait()
	if err := s.WaitGone(t.Context(), "vault-n"); err != nil {
		t.Error(err)
	}
	if n := s.Count("POST", patTokens); n != 80 {
		t.Errorf("%d mints", n)
	}
}
