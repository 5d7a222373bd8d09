// Package jiratest simulates a Jira Data Center over HTTP: personal access tokens, service accounts with their access tokens,
// users, groups, projects, roles and issues, and everything that goes wrong on the way to them. With [Options.Cloud] it is
// as much of Jira Cloud as a service account sees.
//
// A test calls [New], adds users with [Server.AddUser], points its client at [Server.URL], and afterwards asks
// [Server.Tokens], [Server.Users], [Server.Calls] and [Server.Count] what happened. [New] fails the test that leaves a
// live token or a throw-away user behind. [Server.Fault] makes chosen calls go wrong, always in the same way, and [Switches] changes what an
// administrator may have set and what nobody has confirmed of a real Jira; [Facts] lists the latter.
//
// The zero [Options] are a healthy Jira with its default settings. It is strict where a real Jira is: it wants the XSRF
// header, refuses 8 KiB of headers, answers a dead token as it answers anonymous, and locks a user with a CAPTCHA.
//
// The package shares no type and no code with the client it tests, so that a misspelt JSON field fails. All state is in
// memory, and every method may be called at any time from any goroutine, except from within a function that was handed to
// [Server.SetUser], [Server.SetSwitches] or [Options.Now].
package jiratest

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options say what kind of Jira to start. The zero value is a normal, healthy one.
type Options struct {
	ContextPath string           // default "/jira"; "-" means none
	Version     string           // default "10.3.2"; below 8.14 there are no personal access tokens
	Deployment  string           // what serverInfo calls itself; default "Server", which Data Center says too
	Now         func() time.Time // Jira's own clock, default time.Now
	TLS         bool             // serve https with a certificate of its own authority; see [Server.CA]
	ClientCA    *x509.CertPool   // with TLS: require a client certificate of one of these authorities
	Listen      string           // default "127.0.0.1:0"
	Listener    net.Listener     // where calls come from, instead of Listen; closed by Close
	Log         io.Writer        // one line per call and never a secret; nil: none. Its errors are ignored
	Cloud       string           // the name of a site of Jira Cloud to be instead; see [Server.Proxy]
	Control     bool             // serve the endpoints under /_sim that steer the simulator from another process
	Switches
}

// Server is one simulated Jira.
type Server struct {
	options Options
	base    string // context path: "" or "/jira"
	url     string
	ca      []byte
	hasPATs bool
	proxy   string       // on Cloud: where to come in
	tunnels *tunnels     // the same
	http    *http.Server // what listens
	inner   *http.Server // on Cloud: what is behind the proxy
	served  sync.WaitGroup
	closing chan struct{} // closed by Close, once
	closed  sync.Once

	logMu sync.Mutex // guards writes to options.Log

	mu       sync.Mutex // guards all below
	switches Switches
	advanced time.Duration
	changed  chan struct{} // closed and replaced whenever something happened that somebody may await
	leave    bool
	kept     *Backup // what POST /_sim/backup took last

	users
	tokens
	projects
	grants
	cloud
	traffic
	faults
	buckets map[string]*bucket // rate limits by user key
}

// Start starts a Jira for a process to use; the caller calls [Server.Close]. It fails if it cannot listen.
func Start(o Options) (*Server, error) {
	if o.Cloud != "" {
		o.ContextPath, o.Deployment, o.TLS = "-", cmp.Or(o.Deployment, "Cloud"), false
		o.Version = cmp.Or(o.Version, "1001.0.0")
	}
	o.ContextPath = cmp.Or(o.ContextPath, "/jira")
	o.Version = cmp.Or(o.Version, "10.3.2")
	o.Deployment = cmp.Or(o.Deployment, "Server")
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		options: o, switches: o.Switches, hasPATs: atLeast(o.Version, 8, 14),
		closing: make(chan struct{}), changed: make(chan struct{}),
		users: newUsers(), tokens: newTokens(), projects: newProjects(), grants: newGrants(), cloud: newCloud(), buckets: map[string]*bucket{},
	}
	if base := strings.Trim(o.ContextPath, "/"); base != "-" && base != "" {
		s.base = "/" + base
	}
	s.http = s.server()
	l, err := o.Listener, error(nil)
	if l == nil {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", o.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("starting a simulated Jira: %w", err)
	}
	scheme := "http"
	if o.TLS {
		scheme = "https"
		if l, s.ca, err = secure(l, o.ClientCA); err != nil {
			return nil, fmt.Errorf("starting a simulated Jira: %w", err)
		}
	}
	s.url = scheme + "://" + l.Addr().String() + s.base
	if o.Cloud != "" {
		s.url = "https://" + s.siteHost()
		if s.ca, err = s.serveTunnels(l.Addr()); err != nil {
			return nil, fmt.Errorf("starting a simulated Jira: %w", err)
		}
	}
	s.served.Go(func() { _ = s.http.Serve(l) }) // always ErrServerClosed, or nothing answers and the caller notices
	return s, nil
}

// server is an HTTP server that serves s.
func (s *Server) server() *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 30 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // broken connections and refused handshakes are the point here
		// HTTP/1.1 only, as Tomcat speaks it: a lost connection then loses one call and no other.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
}

// New starts a Jira for one test and closes it afterwards. It then fails the test for each token the engine made (its name
// starts with "vault-") that is still there and not expired, and for each user of such a name who is still active, unless
// [Server.Leave] was called.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		for _, k := range s.left() {
			t.Errorf("the test left token %d, %q of %s, alive in Jira", k.ID, k.Name, k.User)
		}
		for _, name := range s.leftUsers() {
			t.Errorf("the test left user %q active in Jira", name)
		}
		for _, k := range s.leftAPITokens() {
			t.Errorf("the test left API token %s, %q of %s, alive at Atlassian", k.ID, k.Label, k.Account)
		}
	})
	return s
}

// left lists the engine's tokens that a test should have ended. A token of a deactivated user counts:
// it works again as soon as the user does.
func (s *Server) left() []Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave {
		return nil
	}
	var left []Token
	now := s.now()
	for _, k := range s.ordered("") {
		if strings.HasPrefix(k.name, "vault-") && k.deleted.IsZero() && !k.expired(now) {
			left = append(left, s.token(k, now))
		}
	}
	return left
}

// leftUsers lists the engine's users whom a test should have ended.
func (s *Server) leftUsers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave {
		return nil
	}
	var left []string
	for _, login := range slices.Sorted(maps.Keys(s.byLogin)) {
		if strings.HasPrefix(login, "vault-") && !s.byLogin[login].Inactive {
			left = append(left, login)
		}
	}
	return left
}

// URL returns the base address with the context path and without a trailing slash.
func (s *Server) URL() string { return s.url }

// CA returns the certificate authority as PEM, or nil without TLS. It covers 127.0.0.1, ::1 and localhost.
func (s *Server) CA() []byte { return s.ca }

// Leave says that the test means to leave live tokens and users behind.
func (s *Server) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave = true
}

// Close cuts every connection and returns when no call is being served any more. A late effect that still waits for its client
// happens now. State can still be read; closing twice does nothing.
func (s *Server) Close() {
	s.closed.Do(func() {
		close(s.closing)
		_ = s.http.Close() // the listener is gone either way
		if s.inner != nil {
			_ = s.inner.Close()
		}
		s.served.Wait()
		// Not await, which ends at closing.
		for {
			s.mu.Lock()
			active, changed := s.active, s.changed
			s.mu.Unlock()
			if active == 0 {
				return
			}
			<-changed
		}
	})
}

// Advance moves Jira's clock on by d, on top of [Options.Now].
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanced += d
	s.wake()
}

// SetSwitches changes settings of the running Jira. change must not call back into s.
func (s *Server) SetSwitches(change func(*Switches)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.switches)
	s.wake()
}

// now is Jira's time; s.mu is held. Jira keeps milliseconds.
func (s *Server) now() time.Time {
	return s.options.Now().Add(s.advanced).UTC().Truncate(time.Millisecond)
}

// wake lets everyone who awaits something look again; s.mu is held.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}
