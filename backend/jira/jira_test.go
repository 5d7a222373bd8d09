package jira

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const (
	password       = "the password of ci"
	myselfPath     = "/rest/api/2/myself"
	serverInfoPath = "/rest/api/2/serverInfo"
)

// newJira starts a Jira that has the plain users ci and other, and root, who
// administers it.
func newJira(t *testing.T, o jiratest.Options) *jiratest.Server {
	t.Helper()
	s := jiratest.New(t, o)
	s.AddUser(jiratest.User{Name: "ci", Password: password})
	s.AddUser(jiratest.User{Name: "other"})
	s.AddUser(jiratest.User{Name: "root", Admin: true, SysAdmin: true})
	return s
}

// newSite returns the site at s, whose pauses are too short to notice.
func newSite(t *testing.T, s *jiratest.Server, o Options) *Site {
	t.Helper()
	if o.URL == "" {
		o.URL = s.URL()
	}
	site, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(site.Close)
	site.pause = pause{floor: time.Millisecond, roof: 5 * time.Millisecond, hint: 5 * time.Millisecond, retry: time.Microsecond}
	site.gate.SetLongestPause(time.Microsecond)
	return site
}

// network answers what is sent over it, on a connection that there always is.
type network func(*http.Request) (*http.Response, error)

func (n network) RoundTrip(req *http.Request) (*http.Response, error) {
	httptrace.ContextClientTrace(req.Context()).GotConn(httptrace.GotConnInfo{})
	return n(req)
}

// site returns a site that is called over n, and pauses as any other.
func (n network) site(t *testing.T) *Site {
	t.Helper()
	site, err := New(Options{URL: "http://jira.example.com/jira"})
	if err != nil {
		t.Fatal(err)
	}
	site.transport.RegisterProtocol("http", n)
	return site
}

// answered is an answer of Jira's to ci.
func answered(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"X-Ausername": {"ci"}}, Body: io.NopCloser(strings.NewReader(body))}
}

// bearer returns a client of s that logs in as a user with a token.
func bearer(t *testing.T, s *jiratest.Server, user string) *Client {
	t.Helper()
	_, secret := s.Mint(user, "the engine's own", 30)
	return newSite(t, s, Options{}).As(Login{Username: user, Token: secret})
}

// basic returns a client of s that logs in as ci with a password.
func basic(t *testing.T, s *jiratest.Server, password string) *Client {
	t.Helper()
	return newSite(t, s, Options{}).As(Login{Username: "ci", Password: password})
}

// failure returns the Error that err is or wraps.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	e := (*Error)(nil)
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an Error", err)
	}
	return e
}

// wants checks err's kind, and that its text holds words.
func wants(t *testing.T, err error, k Kind, words ...string) {
	t.Helper()
	if !Is(err, k) {
		t.Fatalf("got %v, want %q", err, k)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not hold %q", err, w)
		}
	}
}

// TestLifeOfAToken makes a token, finds it, and ends it, twice, whatever kind
// of Jira it is and however the client logs in.
func TestLifeOfAToken(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"default":             func(*jiratest.Switches) {},
		"PostStatus":          func(s *jiratest.Switches) { s.PostStatus = http.StatusOK },
		"IDString":            func(s *jiratest.Switches) { s.IDString = true },
		"FirstID":             func(s *jiratest.Switches) { s.FirstID = math.MaxInt64 - 9 },
		"TimesNoColon":        func(s *jiratest.Switches) { s.TimesNoColon = true },
		"LastAccessedAtOnce":  func(s *jiratest.Switches) { s.LastAccessedAtOnce = true },
		"NamesUnique":         func(s *jiratest.Switches) { s.NamesUnique = true },
		"ClampDays":           func(s *jiratest.Switches) { s.ClampDays = true },
		"EternalOff":          func(s *jiratest.Switches) { s.EternalOff = true },
		"ExpiredNotListed":    func(s *jiratest.Switches) { s.ExpiredNotListed = true },
		"ExpiredDoNotCount":   func(s *jiratest.Switches) { s.ExpiredDoNotCount = true },
		"GetUnknownJSON":      func(s *jiratest.Switches) { s.GetUnknownJSON = true },
		"DeleteUnknownStatus": func(s *jiratest.Switches) { s.DeleteUnknownStatus = http.StatusNoContent },
		"DeleteTakesSiblings": func(s *jiratest.Switches) { s.DeleteTakesSiblings = true },
		"DeleteLag":           func(s *jiratest.Switches) { s.DeleteLag = time.Minute },
		"NoVersion10":         func(s *jiratest.Switches) { s.NoVersion10 = true },
		"AdminOwnTokensOnly":  func(s *jiratest.Switches) { s.AdminOwnTokensOnly = true },
		"XAUserNameAbsent":    func(s *jiratest.Switches) { s.XAUserNameAbsent = true },
		"XAUserNameRaw":       func(s *jiratest.Switches) { s.XAUserNameRaw = true },
		"LoginCaseSensitive":  func(s *jiratest.Switches) { s.LoginCaseSensitive = true },
		"XSRFOff":             func(s *jiratest.Switches) { s.XSRFOff = true },
		"ServerInfoLogin":     func(s *jiratest.Switches) { s.ServerInfoLogin = true },
		"RateLimit":           func(s *jiratest.Switches) { s.RateLimit = 100 }, // each answer has a Retry-After then
	} {
		t.Run(name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.SetSwitches(change)
			lifeOfAToken(t, s, bearer(t, s, "ci"))
			lifeOfAToken(t, s, basic(t, s, password))
		})
	}
}

func lifeOfAToken(t *testing.T, s *jiratest.Server, c *Client) {
	t.Helper()
	ctx := t.Context()
	const name = "a-name-as-long-as-Jira-allows-it-to-be-x"
	token, secret, err := c.CreateToken(ctx, name, 2)
	if err != nil {
		t.Fatal(err)
	}
	made := s.Tokens("ci")
	want := made[len(made)-1]
	if token != (Token{ID: strconv.FormatInt(want.ID, 10), Name: name, Created: want.Created, Expires: want.Created.Add(48 * time.Hour)}) {
		t.Errorf("got %+v, but Jira made %+v", token, want)
	}
	if u, err := c.site.As(Login{Username: "ci", Token: secret}).Myself(ctx); err != nil || u.Name != "ci" {
		t.Errorf("the new token is %+v: %v", u, err)
	}
	list, err := c.Tokens(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(list, func(l Token) bool { return l.ID == token.ID }); i < 0 || list[i].Name != name || !list[i].Expires.Equal(token.Expires) {
		t.Errorf("the list %+v lacks %+v", list, token)
	}
	for range 2 {
		if err := c.DeleteToken(ctx, token.ID); err != nil {
			t.Fatal(err)
		}
	}
	list, err = c.Tokens(ctx)
	if err != nil || slices.ContainsFunc(list, func(l Token) bool { return l.ID == token.ID }) {
		t.Errorf("after the delete: %+v, %v", list, err)
	}
}

// TestContextPaths: a Jira below a path, below two, and below none.
func TestContextPaths(t *testing.T) {
	for _, path := range []string{"/jira", "-", "/tools/jira one"} {
		t.Run(path, func(t *testing.T) {
			s := newJira(t, jiratest.Options{ContextPath: strings.ReplaceAll(path, " ", "%20")})
			for _, slash := range []string{"", "/", "//"} {
				site := newSite(t, s, Options{URL: s.URL() + slash})
				if site.URL() != s.URL() || site.As(Login{}).URL() != s.URL() {
					t.Errorf("it is %s, want %s", site.URL(), s.URL())
				}
				lifeOfAToken(t, s, site.As(Login{Username: "ci", Password: password}))
			}
		})
	}
	s := newJira(t, jiratest.Options{})
	wrong := newSite(t, s, Options{URL: strings.TrimSuffix(s.URL(), "/jira")}).As(Login{Username: "ci", Password: password})
	_, _, err := wrong.CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Nonsense, "404", "context path")
	if NothingMade(err) {
		t.Error("a page that says 404 counts as Jira's word")
	}
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://jira.example.com":              "https://jira.example.com",
		"HTTPS://Jira.Example.com/Jira/":        "https://jira.example.com/Jira",
		"http://127.0.0.1:8080//":               "http://127.0.0.1:8080",
		"https://[2001:db8::1]:8443/jira":       "https://[2001:db8::1]:8443/jira",
		"https://jira.example.com/a%20b":        "https://jira.example.com/a%20b",
		"https://jira.example.com/...":          "https://jira.example.com/...",
		"":                                      "scheme",
		"jira.example.com":                      "scheme",
		"ftp://jira.example.com":                "scheme",
		"javascript:alert(1)":                   "scheme",
		"https://":                              "host",
		"https:jira.example.com":                "host",
		"https:///jira":                         "host",
		"https://:8443/jira":                    "host",
		"https://[fe80::1%25eth0]/jira":         "zone",
		"https://ci:s3cret@jira.example.com":    "credentials",
		"https://ci@jira.example.com":           "credentials",
		"https://jira.example.com?x=1":          "query",
		"https://jira.example.com/?":            "query",
		"https://jira.example.com/#x":           "query",
		"https://jira.example.com/../x":         `".."`,
		"https://jira.example.com/x/%2e%2e":     `".."`,
		"https://jira.example.com/x%2f..":       `".."`,
		"https://jira.example.com/./x":          `".."`,
		"https://jira.example.com/%zz":          "parse",
		"https://jira.example.com\n":            "parse",
		"https://ci:s3cret":                     "parse",
		"https://ci:s3cret/x@jira.example.com":  "parse",
		"https://ci:s3 cret@jira.example.com\t": "parse",
	} {
		site, err := New(Options{URL: raw})
		switch {
		case err == nil && site.URL() != want:
			t.Errorf("%q is read as %q, want %q", raw, site.URL(), want)
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%q: %v, want %q", raw, err, want)
		case err != nil && strings.Contains(err.Error(), "s3"):
			t.Errorf("%q: %v tells the password", raw, err)
		}
	}
}

func TestTLS(t *testing.T) {
	s := newJira(t, jiratest.Options{TLS: true})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	login := Login{Username: "ci", Password: password}
	for name, o := range map[string]Options{
		"its authority": {RootCAs: roots},
		"its name":      {RootCAs: roots, TLSServerName: "localhost"},
		"anybody":       {TLSSkipVerify: true},
	} {
		t.Run(name, func(t *testing.T) { lifeOfAToken(t, s, newSite(t, s, o).As(login)) })
	}
	for name, o := range map[string]Options{
		"an unknown authority": {},
		"another name":         {RootCAs: roots, TLSServerName: "jira.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			s.ResetCalls()
			_, _, err := newSite(t, s, o).As(login).CreateToken(t.Context(), "nightly", 1)
			wants(t, err, Down, "ca_cert")
			if !NothingMade(err) || len(s.Calls()) != 0 {
				t.Errorf("%v, after %d calls", err, len(s.Calls()))
			}
		})
	}
}

// TestOldestTLS: a site that speaks nothing newer is not called.
func TestOldestTLS(t *testing.T) {
	jira := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"version":"10.3","versionNumbers":[10,3]}`)
	}))
	jira.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	jira.Config.ErrorLog = log.New(io.Discard, "", 0)
	jira.StartTLS()
	defer jira.Close()
	for oldest, want := range map[uint16]bool{0: true, tls.VersionTLS12: true, tls.VersionTLS13: false} {
		site, err := New(Options{URL: jira.URL, TLSSkipVerify: true, TLSMinVersion: oldest})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = site.As(Login{}).ServerInfo(t.Context()); (err == nil) != want {
			t.Errorf("at least %x: %v", oldest, err)
		}
		site.Close()
	}
}

// TestProxy: calls go through it, to whatever host, and with the credential in
// what it hands on.
func TestProxy(t *testing.T) {
	var have []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		have = append(have, r.Method+" "+r.RequestURI)
		_, _ = io.WriteString(w, `{"version":"10.3","versionNumbers":[10,3]}`)
	}))
	defer proxy.Close()
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	site, err := New(Options{URL: "http://jira.invalid/jira", Proxy: through})
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	if _, err := site.As(Login{}).ServerInfo(t.Context()); err != nil || !slices.Equal(have, []string{"GET http://jira.invalid/jira" + serverInfoPath}) {
		t.Errorf("%v, after %q", err, have)
	}
}

// TestDial: who brings connections of his own gets no others.
func TestDial(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	var asked []string
	site, err := New(Options{URL: "http://jira.invalid:8080/jira", Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		asked = append(asked, network+" "+address)
		return (&net.Dialer{}).DialContext(ctx, network, strings.TrimSuffix(strings.TrimPrefix(s.URL(), "http://"), "/jira"))
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	if _, err := site.As(Login{}).ServerInfo(t.Context()); err != nil || !slices.Equal(asked, []string{"tcp jira.invalid:8080"}) {
		t.Errorf("%v, dialed %q", err, asked)
	}
}

// TestConnectionsEnd: those that nobody uses are dropped, those that died are
// found out before a call on them runs out of time, and no header grows for ever.
func TestConnectionsEnd(t *testing.T) {
	site, err := New(Options{URL: "https://jira.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	tr := site.transport
	if tr.IdleConnTimeout <= 0 || tr.IdleConnTimeout > 5*time.Minute {
		t.Errorf("idle connections stay for %v", tr.IdleConnTimeout)
	}
	if ping, pong := tr.HTTP2.SendPingTimeout, tr.HTTP2.PingTimeout; ping < time.Second || pong < time.Second || ping+pong > site.timeout {
		t.Errorf("a dead connection is found out after %v and %v", ping, pong)
	}
	jira := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 80<<10))
		_, _ = io.WriteString(w, `{"version":"10.3","versionNumbers":[10,3]}`)
	}))
	defer jira.Close()
	if site, err = New(Options{URL: jira.URL}); err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	_, _, err = site.As(Login{}).CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Down, "header")
}

// TestNobodyThere: where no connection comes about nothing was made.
func TestNobodyThere(t *testing.T) {
	closed := newJira(t, jiratest.Options{})
	closed.Close()
	proxy, err := url.Parse(closed.URL())
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"refused":       {},
		"proxy refused": {URL: "https://jira.invalid", Proxy: proxy},
	} {
		t.Run(name, func(t *testing.T) {
			c := newSite(t, closed, o).As(Login{Username: "ci", Password: password})
			_, _, err := c.CreateToken(t.Context(), "nightly", 1)
			wants(t, err, Down, "dial tcp", "check url and proxy_url")
			if !NothingMade(err) {
				t.Error("a token may have been made")
			}
			if _, err := c.Tokens(t.Context()); !NothingMade(err) {
				t.Errorf("the list: %v", err)
			}
		})
	}
}

// TestJiraThatHangs: the time that one try has bounds it.
func TestJiraThatHangs(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Fault(jiratest.Fault{Do: jiratest.Hang})
	c := newSite(t, s, Options{Timeout: time.Second}).As(Login{Username: "ci", Password: password})
	_, _, err := c.CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Down, "no complete answer in time")
	if NothingMade(err) || !errors.Is(err, context.DeadlineExceeded) || s.Count("POST", "") > 1 {
		t.Errorf("%v, after %d calls", err, s.Count("POST", ""))
	}
}
