// Package jira speaks to Jira Data Center over HTTP: personal access tokens,
// who a credential belongs to, and, for an administrator, users, their groups
// and their roles in projects. It knows nothing of Vault and imports the
// standard library alone.
//
// A [Site] is one Jira: its address, its transport and the [Gate] that bounds
// and pauses calls to it. [Site.As] binds a [Login] to it and gives a
// [Client], whose methods are the calls:
//
//	site, err := jira.New(jira.Options{URL: "https://jira.example.com/jira"})
//	client := site.As(jira.Login{Username: "ci-bot", Token: pat})
//	token, secret, err := client.CreateToken(ctx, "nightly build", 1)
//
// A service account, of Jira 11 or Jira Cloud, has no such tokens. It asks for
// access tokens with a [Grant], by [Site.AccessToken]. On Cloud they are for
// the site that [Site.Cloud] returns, and [Site.APITokens] makes tokens that
// live longer.
//
// What is guaranteed:
//
//   - A call that creates something is never repeated unless it is certain
//     that nothing was created, and it runs to its end even if the caller's
//     context does not. [NothingMade] tells an error after which nothing can
//     exist from one after which something may.
//   - [Client.DeleteToken], [Client.Tokens] and the calls that find, end or
//     take something from a user succeed only on an answer that was given to
//     the login's own user. Jira serves a dead token as an
//     anonymous visitor, often with 200, and proxies answer 404 in Jira's
//     stead; neither proves anything.
//   - A password that Jira refused is not tried again by that Client: three
//     wrong ones lock a Jira user out. For the same reason a Client sends its
//     password in one call at a time; tokens know no such limit.
//   - No redirect is followed, so a credential reaches no other host. A
//     client secret goes in the body of a request and nowhere else.
//   - No error text holds a credential, be it the login's or a new one.
//
// Methods are safe for concurrent use. Each honours its context's deadline,
// which ought to be set: [Options.Timeout] bounds one try, not the waiting
// before it.
package jira

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options describe a Jira site and how to reach it.
type Options struct {
	// URL is where Jira is, as a person would open it: scheme, host, and the
	// context path if it has one. No credentials, query or fragment.
	URL string
	// RootCAs are who may vouch for the site. Nil means the system's.
	RootCAs *x509.CertPool
	// Certificates are shown to a site that asks for one.
	Certificates []tls.Certificate
	// TLSServerName is the name the site's certificate must carry, where that
	// is not the URL's host.
	TLSServerName string
	// TLSMinVersion is a version of crypto/tls. Zero means TLS 1.2.
	TLSMinVersion uint16
	// TLSSkipVerify accepts any certificate. Never set it outside a laboratory.
	TLSSkipVerify bool
	// Proxy is the HTTP proxy. Nil means what HTTPS_PROXY and NO_PROXY say.
	Proxy *url.URL
	// Dial makes the connections. Nil means those of the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout bounds one try of a call, from dialing to the last byte of the
	// answer. Zero means 10 s.
	Timeout time.Duration
	// Gate bounds and pauses the calls; share one between successive Sites of
	// the same Jira so that the bounds hold across them. Nil means a new one
	// that lets 10 calls through at a time.
	Gate *Gate
	// Observe, if not nil, is told of each call that was sent: its method, the
	// status of its answer, 0 where there was none, and how long it took. It must
	// be quick, and safe for concurrent use.
	Observe func(method string, status int, took time.Duration)
	// UserAgent names the program to Jira. It must not look like a browser's,
	// or Jira's XSRF check refuses every POST. Empty means
	// "vault-plugin-secrets-jira".
	UserAgent string
}

// Site is one Jira, and everything that is shared between those who log in
// there.
type Site struct {
	base      *url.URL        // its path without a trailing slash
	address   string          // the same, written out
	transport *http.Transport // no http.Client, which follows redirects and quotes their addresses
	elsewhere *http.Transport // the same for other hosts, whose certificates carry names of their own
	cloud     bool            // behind Jira Cloud's gateway
	gate      *Gate
	grants    *refusedGrants
	timeout   time.Duration
	userAgent string
	observe   func(method string, status int, took time.Duration)
	pause     pause
}

// mostCalls is how many calls a site's gate lets through at most.
const mostCalls = 100

// New returns the site that o describes. It makes no call. The error says
// what is wrong with o.URL.
func New(o Options) (*Site, error) {
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.TLSMinVersion == 0 {
		o.TLSMinVersion = tls.VersionTLS12
	}
	if o.Gate == nil {
		o.Gate = NewGate(10)
	}
	if o.UserAgent == "" {
		o.UserAgent = "vault-plugin-secrets-jira"
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.Timeout}).DialContext
	}
	proxy := http.ProxyFromEnvironment
	if o.Proxy != nil {
		proxy = http.ProxyURL(o.Proxy)
	}
	transport := &http.Transport{
		Proxy:       proxy,
		DialContext: o.Dial,
		TLSClientConfig: &tls.Config{
			RootCAs:            o.RootCAs,
			Certificates:       o.Certificates,
			ServerName:         o.TLSServerName,
			MinVersion:         o.TLSMinVersion,
			InsecureSkipVerify: o.TLSSkipVerify, //nolint:gosec // the operator's explicit choice, warned about where it is made
		},
		ForceAttemptHTTP2: true,
		// One connection carries all calls under HTTP/2; if it dies without
		// a word, as behind some firewalls, only a ping shows it.
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
		MaxIdleConnsPerHost:    mostCalls,
		IdleConnTimeout:        60 * time.Second,
		TLSHandshakeTimeout:    o.Timeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
	elsewhere := transport
	if o.TLSServerName != "" {
		elsewhere = transport.Clone()
		elsewhere.TLSClientConfig.ServerName = ""
	}
	return &Site{
		base:      base,
		address:   base.String(),
		transport: transport,
		elsewhere: elsewhere,
		gate:      o.Gate,
		grants:    &refusedGrants{},
		timeout:   o.Timeout,
		userAgent: o.UserAgent,
		observe:   o.Observe,
		pause:     defaultPause,
	}, nil
}

// URL is the site's address without a trailing slash.
func (s *Site) URL() string { return s.address }

// Close drops the connections that are idle. Calls under way go on, and the
// Site stays usable.
func (s *Site) Close() {
	s.transport.CloseIdleConnections()
	s.elsewhere.CloseIdleConnections()
}

// reach returns the site at address, which is called as s is: through its
// proxy, its authorities and its gate. [Options.TLSServerName] holds for s's
// own host alone.
func (s *Site) reach(address string) (*Site, error) {
	base, err := parseURL(address)
	if err != nil {
		return nil, err
	}
	other := *s
	other.base, other.address = base, base.String()
	if base.Scheme != s.base.Scheme || base.Host != s.base.Host {
		other.transport = s.elsewhere
	}
	return &other, nil
}

// As returns a client that calls the site with login l.
func (s *Site) As(l Login) *Client {
	return &Client{site: s, login: newLogin(l, s.userAgent)}
}

// At returns a client that calls the same Jira by another way, site, and knows
// what Jira has said of c's login.
func (c *Client) At(site *Site) *Client { return &Client{site: site, login: c.login} }

// Site returns the site that c calls.
func (c *Client) Site() *Site { return c.site }

// As returns a client that calls c's site with another login.
func (c *Client) As(l Login) *Client { return c.site.As(l) }

// Client calls one site with one login.
type Client struct {
	site  *Site
	login *login
	kept  *APITokens // nil: the tokens of the login's own user
}

// Close is [Site.Close] of the client's site.
func (c *Client) Close() { c.site.Close() }

// URL is the address of the client's site without a trailing slash.
func (c *Client) URL() string { return c.site.URL() }

// Username is the login name that the client was made for, or the id of the
// account whose API tokens it looks after.
func (c *Client) Username() string {
	if c.kept != nil {
		return c.kept.account
	}
	return c.login.Username
}

// parseURL checks and normalizes a site's address: no trailing slash, nothing
// but scheme, host and context path.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		// The parser's error repeats its input, which may hold a password.
		return nil, errors.New("does not parse: write scheme, host and context path, https://…")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("needs a scheme: write https://…")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case strings.Contains(u.Host, "%"): // not every zone can be written and read again
		return nil, errors.New("has a zone in its host: write a name or an address that needs none")
	case u.User != nil:
		return nil, errors.New("holds credentials: leave them out, they are fields of their own")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("has a query or a fragment: only scheme, host and context path belong here")
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		if part == "." || part == ".." {
			return nil, errors.New(`has "." or ".." in its path`)
		}
	}
	u.Host = strings.ToLower(u.Host)
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}
