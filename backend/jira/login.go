package jira

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Login is a credential and the user it belongs to. With a Token it is sent
// as a bearer token, otherwise Username and Password go as Basic
// authentication; a Login with neither is an anonymous visitor.
type Login struct {
	Username string
	// Key is Jira's own key of the user, which survives a rename. It is the
	// second way to recognize him when an answer does not carry his name;
	// empty where it is not known yet.
	Key      string
	Password string
	Token    string
	// Next is a password that Jira may have taken in place of Password, without
	// anybody knowing: it is tried once where Jira refuses the other.
	Next string
}

// refusedRest is how long a login rests that was refused, but not for good: a
// token, or a password that something before Jira refused. Jira does not count
// refused tokens (seen on a real Jira), so one try a minute harms nobody, and a
// user who was deactivated and came back is noticed without anybody writing his
// token again.
const refusedRest = time.Minute

// login is a Login and what Jira has said of it so far.
type login struct {
	Login
	headers   atomic.Pointer[http.Header] // of every request; never changed, but exchanged
	userAgent string
	byName    bool     // it has a password, and no token
	turn      *Gate    // lets one call through at a time that sends a password, and none while Jira limits the user
	inBodies  []string // secrets that go in bodies and not in headers, in every spelling

	mu      sync.Mutex // guards Password and Next, and all below
	changed bool       // they were exchanged
	tried   bool       // one was refused, and the other tried
	refusal *Error     // why no call is made any more
	since   time.Time
}

func newLogin(l Login, userAgent string) *login {
	made := &login{Login: l, userAgent: userAgent, byName: l.Token == "" && l.Password != ""}
	atATime := mostCalls
	if made.byName {
		atATime = 1
	}
	made.turn = NewGate(atATime)
	made.turn.of = " of this user"
	made.write()
	return made
}

func (l *login) basic() bool { return l.byName }

func (l *login) anonymous() bool {
	return l.Token == "" && !l.byName && l.inBodies == nil
}

// enter waits until the login may be used. It fails without a call when Jira
// has refused it, or limits its user for longer than ctx lasts. A password is sent
// by one caller at a time: a hundred calls that wait when it turns wrong must not
// become a hundred wrong passwords. The caller must call the returned leave once the
// call is judged, with how it ended.
func (l *login) enter(ctx context.Context, urgent bool) (leave func(*Error), err *Error) {
	if err := l.turn.enter(ctx, urgent); err != nil {
		err.OfLogin = true
		return nil, err
	}
	if e := l.refused(); e != nil {
		l.turn.pass()
		return nil, e
	}
	began := time.Now()
	return func(err *Error) {
		switch {
		case err == nil || !err.Unsent:
			if err != nil && !(err.Kind == Busy && err.OfLogin) {
				err = nil // it was let in
			}
			l.turn.leave(err, false, time.Since(began))
		default:
			l.turn.pass()
		}
	}, nil
}

// sameUser tells whether two logins are of one user, as far as that is known.
func (l *login) sameUser(other *login) bool {
	return l == other || l.Username != "" && strings.EqualFold(l.Username, other.Username)
}

// PausedUntil is when the next call with c's login is made, for Jira limits its user.
// It is in the past, or zero, where Jira does not.
func (c *Client) PausedUntil() time.Time { return c.login.turn.ShutUntil() }

// refused is why the login may not be used now, or nil.
func (l *login) refused() *Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusal == nil || !l.forGood() && time.Since(l.since) > refusedRest {
		return nil
	}
	e := *l.refusal
	e.Unsent = true
	e.Words = fmt.Sprintf("not asked again, for at %s Jira said: %s", l.since.UTC().Format(time.RFC3339), e.Words)
	if l.inBodies == nil {
		e.Advice += "; write the credential again to have it tried at once"
	}
	return &e
}

// Refused tells whether Jira has refused c's login, and no call is made with it now.
func (c *Client) Refused() bool { return c.login.refused() != nil }

// forGood tells whether the refusal stands until the credential is written
// again: it is Jira's own word about a password, whose wrong tries it counts.
// The caller holds l.mu.
func (l *login) forGood() bool { return l.basic() && l.refusal.Refusing }

// whyRefused is what a person can make of a refusal.
func (l *login) whyRefused() string {
	if l.inBodies != nil {
		return "the client id or the client secret is wrong or expired"
	}
	why := "the credential is wrong, expired or deleted, or its user is not active: write one that works in its place"
	if l.basic() {
		why += "; Jira locks a user out after three wrong passwords"
	}
	return why
}

// judge takes note of how a call with the login ended: err is nil when it
// succeeded.
func (l *login) judge(err *Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.refusal = nil
	case err.Kind == Refused && !l.anonymous():
		l.refusal, l.since = err, time.Now()
	}
}

// names tells whether header, an answer's X-AUSERNAME, names the user called
// name. Jira lower-cases login names, and some versions escape what is not
// safe in a header.
func names(header, name string) bool {
	if header == "" {
		return false
	}
	unescaped, err := url.QueryUnescape(header)
	return strings.EqualFold(header, name) || err == nil && strings.EqualFold(unescaped, name)
}

// headersOf are the headers of every request with login l.
func headersOf(l Login, userAgent string) http.Header {
	h := http.Header{
		"Accept":     {"application/json"},
		"User-Agent": {userAgent},
		// Jira's XSRF check refuses a POST, PUT or DELETE without these.
		"X-Atlassian-Token": {"no-check"},
		"Content-Type":      {"application/json"},
	}
	switch {
	case l.Token != "":
		h.Set("Authorization", "Bearer "+l.Token)
	case l.Password != "":
		h.Set("Authorization", "Basic "+basicAuth(l))
	}
	return h
}

// basicAuth is how a name and a password travel.
func basicAuth(l Login) string {
	return base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
}

// prove returns nil if answer a is Jira's and was certainly given to the
// login's own user. Where the answer does not name him, it asks Jira who the
// login is: that is proof only where Jira does not name users at all, for then
// the answer may well be Jira's. absent, for such a Jira, tells from a list of
// the user's tokens whether what the answer says is so; nil where the answer is
// such a list itself.
func (c *Client) prove(ctx context.Context, a *answer, absent func() error) error {
	if body := bytes.TrimSpace(a.body); len(body) > 0 && !json.Valid(body) {
		return a.nonsense("the body is not JSON")
	}
	if names(a.user, c.login.Username) {
		return nil
	}
	if !c.login.anonymous() && c.login.Username == "" && c.login.Key == "" && (a.user != "" || c.site.cloud) {
		return nil // a service account's, which is no user: anybody but nobody will do
	}
	u, me, err := c.myself(ctx, a.call.urgent)
	if err != nil {
		// An error of a's call, not of the one that asked: that Jira turned
		// this one away does not tell that nothing was made by that.
		e := &Error{Kind: Down}
		errors.As(err, &e)
		return (&Error{
			Kind: e.Kind, Status: a.status, Until: e.Until, cause: err,
			Words: "cannot tell to whom Jira gave this answer: " + err.Error(),
		}).of(a.call)
	}
	switch {
	case u.Key != c.login.Key && !strings.EqualFold(u.Name, c.login.Username):
		return (&Error{
			Kind: Refused, Status: a.status,
			Words: fmt.Sprintf("the credential belongs to %q, not to %q", c.login.quote(u.Name, a.call.secret), c.login.Username),
		}).of(a.call)
	case a.user != "" && !names(a.user, u.Name):
		return a.nonsense(fmt.Sprintf("the answer was given to %q, not to %q", c.login.quote(a.user, a.call.secret), c.login.quote(u.Name, a.call.secret)))
	case a.user == "" && me.user != "":
		return a.nonsense("the answer does not name the user, which this Jira does: something before it has answered in its stead")
	case a.user == "" && absent != nil:
		return absent()
	}
	return nil
}
