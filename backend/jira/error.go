package jira

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Kind is what an Error means for the caller.
type Kind string

// The kinds of error.
const (
	// Refused: Jira does not accept the login: wrong, expired, deactivated,
	// locked, or taken for an anonymous visitor.
	Refused Kind = "login refused"
	// Denied: Jira knows the user and says no: no permission, a cap reached,
	// a value out of range.
	Denied Kind = "denied"
	// Busy: Jira, or the gate before it, asks to come back later.
	Busy Kind = "busy"
	// Down: no answer in time, or one that says Jira is not working.
	Down Kind = "unavailable"
	// Nonsense: an answer that Jira's API does not give: HTML, cut short, too
	// big, a redirect, an unknown status.
	Nonsense Kind = "unexpected answer"
)

// Error is a call that did not succeed. Its text holds Jira's status and
// words and no credential.
type Error struct {
	Kind   Kind
	Method string
	Path   string    // below the site's URL
	Status int       // 0 where there was no answer
	Words  string    // Jira's own, or what was wrong with the answer
	Advice string    // what a person can do about it
	Until  time.Time // Busy: when to come back, zero where nobody said
	Unsent bool      // the call never left this process
	// OfLogin tells of a Busy error that the login alone has to wait: Jira limits its
	// user's calls, or another call with it is under way. Calls of others are taken.
	OfLogin bool
	// Refusing tells that Jira itself turned the call away before doing
	// anything, which a proxy's answer or a lost one cannot tell.
	Refusing bool
	cause    error
}

// Error says what was called, what came back, and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("Jira: ")
	if e.Method != "" { // else it is what several calls have come to
		fmt.Fprintf(&b, "%s %s: ", e.Method, e.Path)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, "%d ", e.Status)
	}
	b.WriteString(string(e.Kind))
	if e.Words != "" {
		b.WriteString(": " + e.Words)
	}
	if e.Advice != "" {
		b.WriteString(" (" + e.Advice + ")")
	}
	return b.String()
}

// Unwrap returns the network's or the context's error, if there was one.
func (e *Error) Unwrap() error { return e.cause }

// Is tells whether err is, or wraps, an Error of kind k.
func Is(err error, k Kind) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && e.Kind == k
}

// OfLogin tells whether err concerns the login alone: Jira refuses it, or limits its user.
// Another login may fare better.
func OfLogin(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && (e.Kind == Refused || e.Kind == Busy && e.OfLogin)
}

// OfSite tells whether err says that the site does not work or asks for a pause, which
// goes for every login.
func OfSite(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && (e.Kind == Down || e.Kind == Busy && !e.OfLogin)
}

// NothingMade tells whether it is certain, after err from a call that
// creates, that Jira created nothing: the call was never sent, or Jira turned
// it away itself. After any other error the thing may exist, or may yet come
// to exist.
func NothingMade(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && (e.Unsent || e.Refusing)
}

// mostWords bounds how much of an answer is quoted, in bytes.
const mostWords = 300

// of says which call the error is about.
func (e *Error) of(cl call) *Error {
	e.Method, e.Path = cl.method, cl.path
	return e
}

// nonsense is an error about an answer that Jira's API does not give.
func (a *answer) nonsense(words string) *Error {
	return (&Error{Kind: Nonsense, Status: a.status, Words: words}).of(a.call)
}

// denied is an error about an answer in which Jira says no to l.
func (a *answer) denied(l *login) *Error {
	return (&Error{Kind: Denied, Status: a.status, Words: a.words(l), Refusing: true}).of(a.call)
}

// words finds what Jira says to l in the body of an error: one of the shapes
// of JSON that its parts use, plain text, or the title of a page.
func (a *answer) words(l *login) string {
	switch {
	case a.isHTML():
		if m := titlePattern.FindSubmatch(a.body); m != nil {
			return fmt.Sprintf("a web page, titled %q", l.quote(html.UnescapeString(string(m[1])), a.call.secret))
		}
		return "a web page"
	case strings.HasPrefix(a.header.Get("Content-Type"), "text/plain"):
		return l.quote(string(a.body), a.call.secret)
	case a.status < 400:
		return ""
	}
	var shape struct {
		ErrorMessages []string          `json:"errorMessages"`
		Errors        map[string]string `json:"errors"`
		Message       string            `json:"message"`
		Error         string            `json:"error"`
		Description   string            `json:"error_description"` // OAuth
		Code          string            `json:"code"`              // Cloud
	}
	_ = json.Unmarshal(a.body, &shape) // what does not fit the shape is left out
	said := shape.ErrorMessages
	for _, field := range slices.Sorted(maps.Keys(shape.Errors)) {
		said = append(said, field+": "+shape.Errors[field])
	}
	if shape.Code != "" {
		said = append(said, shape.Code)
	}
	if shape.Message != "" {
		said = append(said, shape.Message)
	}
	if shape.Error != "" {
		said = append(said, shape.Error)
	}
	if shape.Description != "" {
		said = append(said, shape.Description)
	}
	return l.quote(strings.Join(said, "; "), a.call.secret)
}

var (
	titlePattern = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	// secretPattern is anything that could be a token: Jira's are 44
	// characters of base64, and no sentence has a word of 32.
	secretPattern = regexp.MustCompile(`[A-Za-z0-9+/_=-]{32,}`)
)

// refuse is the error about a call that is not made because value cannot be
// what it has to be.
func refuse(method, path, what, value string) *Error {
	return &Error{
		Kind: Denied, Method: method, Path: path, Unsent: true,
		Words: fmt.Sprintf("%q is not the %s", tidyWords(value), what),
	}
}

// quote makes foreign text fit to be quoted in an error, as tidyWords does,
// and takes the login's own secrets out first, while they are still whole, and
// the call's own one, which may be empty.
func (l *login) quote(s, secret string) string {
	for _, whole := range append([]string{secret, l.Token}, l.inBodies...) {
		if whole != "" {
			s = strings.ReplaceAll(s, whole, "[withheld]")
		}
	}
	one, other, _ := l.passwords()
	for _, password := range []string{one, other} {
		if password != "" {
			basic := basicAuth(Login{Username: l.Username, Password: password})
			s = strings.NewReplacer(basic, "[withheld]", password, "[withheld]").Replace(s)
		}
	}
	return tidyWords(s)
}

// tidyWords makes foreign text fit to be quoted in one line of an error or a
// log: only what can be seen, nothing that may be a secret, not too long.
func tidyWords(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 100*mostWords)], "")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }), " ")
	s = secretPattern.ReplaceAllString(s, "[withheld]")
	if len(s) > mostWords {
		s = strings.ToValidUTF8(s[:mostWords], "") + "…"
	}
	return s
}
