package jira

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// call is one request to be made.
type call struct {
	method string
	path   string // below the site's URL; needs no escaping
	query  url.Values
	body   any    // sent as JSON, or as a form if it is url.Values, unless nil
	secret string // in the body, and to be quoted in no error
	want   []int  // the statuses that mean success
	probe  bool   // asked of the site's front door, which may be well while all behind it is not: it counts for nothing
	open   bool   // answered to anybody: it tells nothing of the login whom Jira takes the caller for
	// fault says what an answer outside 2xx means that means something else
	// here than in other calls, or nil.
	fault func(l *login, a *answer, said string) *Error
	// once: repeating the call may do its work twice, so it is repeated only
	// when the last try certainly did nothing, and a try that is under way is
	// not cut off by a caller who goes away, only by his deadline.
	once   bool
	urgent bool // goes before others where the gate is narrow

	changesPassword bool // its success does, to the login's other one
}

// answer is what came back, its body read to the end.
type answer struct {
	call   call
	status int
	header http.Header
	body   []byte
	user   string // who Jira took the caller for; empty where it did not say
}

// userHeader is Jira's X-AUSERNAME as Go spells headers.
const userHeader = "X-Ausername"

const (
	// mostTries is how often one call is sent at most.
	mostTries = 3
	// mostBody bounds an answer, in bytes. Ten thousand tokens in a list are
	// some two megabytes.
	mostBody = 8 << 20
)

// pause says how long to wait where the site did not, or not sensibly.
type pause struct {
	floor time.Duration // after a 429, whatever Retry-After says
	roof  time.Duration // at most, whatever Retry-After says; jitter adds a quarter
	hint  time.Duration // the same, where the answer says that the site does not work
	retry time.Duration // before a call is sent a second time; doubles
}

var defaultPause = pause{floor: time.Second, roof: 5 * time.Minute, hint: longestHint, retry: 100 * time.Millisecond}

// longestHint is how long a site is left alone at most, jitter not counted, because it
// said when it will work again. A maintenance page names an hour and is gone after a
// minute. Once Jira is back, a caller that rests between its tries, for a minute at
// most, has to end tokens within two minutes: this leaves half a minute to do it.
const longestHint = 20 * time.Second

// do makes call cl until it succeeds, fails for good, or ctx ends, and
// returns the answer if its status is one of those wanted. Any error is, or
// wraps, an *Error.
func (c *Client) do(ctx context.Context, cl call) (*answer, error) {
	for try := 1; ; try++ {
		a, err := c.try(ctx, cl)
		if err == nil {
			return a, nil
		}
		if try == mostTries || !err.repeatable(cl) {
			return nil, err
		}
		wait := c.site.pause.retry << (try - 1)
		wait += rand.N(wait) //nolint:gosec // jitter is no secret
		if err.Kind == Busy {
			wait = 0 // the gate does the waiting
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// repeatable tells whether cl, which failed with e, may be sent again.
func (e *Error) repeatable(cl call) bool {
	switch {
	case e.Kind == Busy:
		return e.Refusing // a 429, not the gate's own refusal
	case cl.once:
		return e.Kind == Down && e.Unsent
	default:
		return e.Kind == Down && e.Status != http.StatusInternalServerError
	}
}

// try sends cl once, through login and gate, and lets both learn from it.
func (c *Client) try(ctx context.Context, cl call) (*answer, *Error) {
	leave, err := c.login.enter(ctx, cl.urgent)
	if err != nil {
		return nil, err.of(cl)
	}
	defer func() { leave(err) }()
	if err = c.site.gate.enter(ctx, cl.urgent); err != nil {
		return nil, err.of(cl)
	}
	began := time.Now()
	if deadline, ok := ctx.Deadline(); ok && cl.once && deadline.Sub(began) < c.site.timeout/2 {
		c.site.gate.pass()
		// It would be cut off before Jira can answer, and leave a doubt.
		err = (&Error{Kind: Busy, Unsent: true, Words: "too little time was left to begin: come back later"}).of(cl)
		return nil, err
	}
	defer func() {
		if cl.probe {
			c.site.gate.pass()
			return
		}
		c.site.gate.leave(c.site.gate.judged(c.login, err), ctx.Err() != nil, time.Since(began))
	}()
	a, err := c.sendObserved(ctx, cl)
	if c.login.takesOther(err) {
		if cl.changesPassword {
			c.login.wasChanged(true)
			return nil, err // it may be changed already: the next call tells
		}
		a, err = c.sendObserved(ctx, cl)
	}
	switch {
	case err == nil && cl.changesPassword:
		c.login.wasChanged(false)
	case err == nil && c.login.basic() && names(a.user, c.login.Username):
		c.login.wasTaken()
	}
	c.login.judge(err) // before the gate lets the next one in
	return a, err
}

// sendObserved is send, told to whoever observes the site.
func (c *Client) sendObserved(ctx context.Context, cl call) (*answer, *Error) {
	began := time.Now()
	a, err := c.send(ctx, cl)
	if c.site.observe != nil && !cl.probe {
		status := 0
		switch {
		case err != nil:
			status = err.Status
		default:
			status = a.status
		}
		c.site.observe(cl.method, status, time.Since(began))
	}
	return a, err
}

// send makes one HTTP exchange of cl.
func (c *Client) send(ctx context.Context, cl call) (*answer, *Error) {
	end := time.Now().Add(c.site.timeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	if cl.once {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	ctx, connected := traced(ctx)
	req, err := c.build(ctx, cl)
	if err != nil {
		return nil, (&Error{Kind: Denied, Unsent: true, Words: err.Error(), cause: err}).of(cl)
	}
	resp, err := c.site.transport.RoundTrip(req)
	if err != nil {
		return nil, c.network(cl, err, !connected.Load())
	}
	defer func() { _ = resp.Body.Close() }()
	c.site.gate.hears(resp.Header)
	if resp.StatusCode < http.StatusOK {
		// A 101 hands over the connection: its body has no end that ctx could
		// bring about.
		return nil, (&Error{Kind: Nonsense, Status: resp.StatusCode, Words: "no answer of an HTTP API"}).of(cl)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostBody+1))
	a := &answer{
		call: cl, status: resp.StatusCode, header: resp.Header, body: body,
		user: resp.Header.Get(userHeader),
	}
	if e := c.fault(a, err); e != nil {
		e.Status, e.cause = a.status, err
		return nil, e.of(cl)
	}
	return a, nil
}

// build makes the request of cl. It is http.NewRequest for an address whose
// first part was parsed when the Site was made.
func (c *Client) build(ctx context.Context, cl call) (*http.Request, error) {
	u := *c.site.base
	u.Path += cl.path
	u.RawQuery = cl.query.Encode()
	req := &http.Request{
		Method: cl.method,
		URL:    &u,
		Host:   u.Host,
		// The values are shared between requests: nobody changes them.
		Header: maps.Clone(*c.login.headers.Load()),
	}
	if cl.body != nil {
		b, err := json.Marshal(cl.body)
		if err != nil {
			return nil, fmt.Errorf("encoding the body: %w", err)
		}
		if form, ok := cl.body.(url.Values); ok {
			b = []byte(form.Encode())
			req.Header["Content-Type"] = []string{"application/x-www-form-urlencoded"}
		}
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		// So that the transport can send it again where it finds that a
		// connection had ended before anything was sent on it.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	}
	return req.WithContext(ctx), nil
}

// traced is ctx for one request, and tells whether that has been given a connection to
// be sent on. Before that nothing of it can have left: not where the dial failed, nor
// the handshake of TLS, nor a proxy's CONNECT. From then on it may have, whatever the
// error looks like.
//
// The transport looks for another connection only if it is certain that the last one has
// done nothing, or for a request that changes nothing. So what counts is the last one.
func traced(ctx context.Context) (context.Context, *atomic.Bool) {
	connected := &atomic.Bool{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}), connected
}

// network says what kind of failure err, from sending cl, is. unsent tells that nothing
// was.
func (c *Client) network(cl call, err error, unsent bool) *Error {
	e := &Error{Kind: Down, Unsent: unsent, Words: c.login.quote(err.Error(), cl.secret), cause: err}
	late := errors.Is(err, context.DeadlineExceeded)
	switch certificate := (*tls.CertificateVerificationError)(nil); {
	case errors.As(err, &certificate):
		e.Advice = "check ca_cert and tls_server_name"
	case unsent:
		if late {
			e.Words = "no connection in time"
		}
		e.Advice = "nothing was sent: check url and proxy_url, and that Vault can reach the site"
	case late:
		e.Words = "no complete answer in time"
	}
	return e.of(cl)
}

// fault returns what is wrong with answer a, whose body ended with err, or
// nil if it is one that its call wants.
func (c *Client) fault(a *answer, err error) *Error {
	isHTML, said := a.isHTML(), a.words(c.login)
	if a.call.fault != nil && a.status >= 300 {
		if e := a.call.fault(c.login, a, said); e != nil {
			return e
		}
	}
	switch {
	case a.status == http.StatusTooManyRequests:
		until := time.Now().Add(c.site.pause.after(a.header.Get("Retry-After"), c.site.pause.roof))
		return &Error{
			Kind: Busy, Refusing: true, Words: said, Until: until, OfLogin: a.limitsUser(),
			Advice: "come back after " + until.UTC().Format(time.RFC3339),
		}
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return c.forbidden(a, said, isHTML)
	case a.status == http.StatusNotFound && isHTML:
		return &Error{
			Kind: Nonsense, Words: said,
			Advice: "this path is not there at all: check the context path of the site's url, that Jira is 8.14 or newer, and any proxy before it",
		}
	case a.status >= 500:
		e := &Error{Kind: Down, Words: said}
		if wait := a.header.Get("Retry-After"); wait != "" {
			e.Until = time.Now().Add(c.site.pause.after(wait, c.site.pause.hint))
		}
		return e
	case a.status >= 300 && a.status < 400:
		return &Error{Kind: Nonsense, Words: "a redirect to " + c.login.quote(redirectTarget(a), a.call.secret), Advice: "it is not followed; set the site's url to where Jira answers itself"}
	case !slices.Contains(a.call.want, a.status):
		if a.status < 400 || a.status == http.StatusRequestTimeout || isHTML || err != nil {
			return &Error{Kind: Nonsense, Words: said}
		}
		return &Error{Kind: Denied, Refusing: true, Words: said}
	case len(a.body) > mostBody:
		return &Error{Kind: Nonsense, Words: fmt.Sprintf("the body is longer than %d bytes", mostBody)}
	case err != nil:
		return &Error{Kind: Nonsense, Words: "the body was cut short: " + c.login.quote(err.Error(), a.call.secret)}
	case isHTML:
		return &Error{Kind: Nonsense, Words: said, Advice: "a login page or a proxy answered in Jira's stead"}
	case !a.call.open && !c.login.anonymous() && a.user == "anonymous":
		return &Error{
			Kind: Refused, Words: "Jira took the caller for an anonymous visitor",
			Advice: "the token is wrong, expired or deleted, or its user is not active",
		}
	}
	return nil
}

// forbidden says what a 401 or 403 means: a login that Jira does not accept,
// or a user who may not do this.
func (c *Client) forbidden(a *answer, said string, isHTML bool) *Error {
	denied := a.header.Get("X-Authentication-Denied-Reason")
	reason := a.header.Get("X-Seraph-LoginReason")
	known := a.user != "" && a.user != "anonymous" || reason == "OK"
	switch {
	case denied != "":
		return &Error{
			Kind: Refused, Refusing: true, Words: c.login.quote(denied, a.call.secret),
			Advice: "Jira has locked this user's logins: a person must log in at Jira's web page once, then write the credential again",
		}
	case c.site.cloud && a.missesScope():
		return &Error{Kind: Denied, Refusing: true, Words: said, Advice: "the service account's credential lacks a scope that this call needs"}
	case a.status == http.StatusUnauthorized && !known:
		// A page from something before Jira is no word of Jira's; only its
		// own login filter leaves its mark.
		return &Error{
			Kind: Refused, Refusing: !isHTML || reason != "", Words: said,
			Advice: c.login.whyRefused(),
		}
	case a.status == http.StatusForbidden && !known && c.login.basic():
		return &Error{
			Kind: Denied, Refusing: !isHTML, Words: said,
			Advice: "if Basic authentication is switched off in Jira, use a token, or allow this user and path for Basic authentication",
		}
	}
	return &Error{Kind: Denied, Refusing: !isHTML, Words: said}
}

// after is how long to wait after an answer whose Retry-After was header: seconds
// or a date, between floor and roof, and a little longer so that not all come
// back at once.
func (p pause) after(header string, roof time.Duration) time.Duration {
	wait := time.Duration(0)
	if n, err := strconv.Atoi(header); err == nil {
		wait = time.Duration(min(max(n, 0), int(roof/time.Second))) * time.Second
	} else if t, err := http.ParseTime(header); err == nil {
		wait = time.Until(t)
	}
	wait = min(max(wait, p.floor), roof)
	return wait + rand.N(wait/4+1) //nolint:gosec // jitter is no secret
}

// limitsUser tells whether the answer, a 429, is Jira's own, which limits a user's calls.
// Jira says so in JSON, and names the user, or what he has left. A gateway's is for all.
func (a *answer) limitsUser() bool {
	if a.isHTML() || strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		return false
	}
	for name := range a.header {
		if name == userHeader || strings.HasPrefix(name, "X-Ratelimit-") {
			return true
		}
	}
	return false
}

// isHTML tells whether the answer is a page for people, whatever it says it is.
func (a *answer) isHTML() bool {
	body := bytes.TrimSpace(a.body)
	return bytes.HasPrefix(body, []byte("<")) ||
		len(body) > 0 && strings.HasPrefix(a.header.Get("Content-Type"), "text/html")
}

// decode reads the answer's JSON into v.
func (a *answer) decode(v any) error {
	if json.Unmarshal(a.body, v) != nil {
		// The error's text may quote the body, which may hold a secret.
		return a.nonsense("the body is not the JSON that Jira gives here")
	}
	return nil
}

func redirectTarget(a *answer) string {
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || u.Host == "" {
		return "another path"
	}
	return u.Scheme + "://" + u.Host
}
