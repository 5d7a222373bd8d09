package jira

import (
	"context"
	"net/http"
)

const myPasswordPath = "/rest/api/2/myself/password" //nolint:gosec // an address

// ChangePassword asks Jira to take [Login.Next] for the login's password from now
// on. After success every client of the login sends the new one. The user's tokens
// go on working. A password that Jira's policy does not allow is an error of kind
// [Denied]. After another error nobody knows which one Jira takes: the next call
// finds out, and [Client.UsesNext] tells.
//
// It may be called again with the same Next: a change that comes late does nothing
// then. Where the login uses the new one already, it asks who that is.
func (c *Client) ChangePassword(ctx context.Context) error {
	current, next, changed := c.login.passwords()
	switch {
	case changed:
		_, err := c.Myself(ctx) // it is remembered if neither is taken
		return err
	case current == "" || next == "":
		return refuse(http.MethodPut, myPasswordPath, "change from one password to another", "")
	}
	_, err := c.do(ctx, call{
		method: http.MethodPut, path: myPasswordPath, secret: next,
		body: map[string]string{"password": next, "currentPassword": current},
		want: []int{http.StatusNoContent, http.StatusOK},
		once: true, changesPassword: true,
	})
	return err
}

// UsesNext tells whether the login sends [Login.Next] in place of its password:
// Jira has said that it takes that one, or that it does not take the other.
func (c *Client) UsesNext() bool {
	_, _, changed := c.login.passwords()
	return changed
}

// SetPasswords changes what every client of c's login logs in with to password, or
// next where Jira does not take that. Which of them Jira takes is remembered where
// both were known before.
func (c *Client) SetPasswords(password, next string) { c.login.setPasswords(password, next) }

// passwords are what is sent and the other one, or, where they were exchanged,
// which changed tells, the other way round.
func (l *login) passwords() (current, next string, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Password, l.Next, l.changed
}

func (l *login) setPasswords(password, next string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.changed && l.Password == next && l.Next == password: // as they stand
	case l.Password == password:
		l.Next, l.changed, l.tried = next, false, false
	default:
		l.Password, l.Next, l.changed, l.tried = password, next, false, false
		l.write()
	}
}

// exchange has the login send its other password. The caller holds l.mu.
func (l *login) exchange() {
	l.Password, l.Next, l.changed = l.Next, l.Password, !l.changed
	l.write()
}

// write puts the credential into the headers. The caller holds l.mu, or nobody
// else has l yet.
func (l *login) write() {
	h := headersOf(l.Login, l.userAgent)
	l.headers.Store(&h)
}

// takesOther tells whether a call that ended with err shall be sent once more, with
// the other password, which may be the one that Jira takes. It is tried once until
// one was taken: with the first that makes two wrong ones, and three lock a user out.
func (l *login) takesOther(err *Error) bool {
	if err == nil || err.Kind != Refused || err.Status != http.StatusUnauthorized || !err.Refusing || !l.basic() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Next == "" || l.tried {
		return false
	}
	l.tried = true
	l.exchange()
	return true
}

// wasChanged notes that Jira has taken the new password, or may have: where it has
// not, the first call that says so is made with the other one again.
func (l *login) wasChanged(exchanged bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !exchanged {
		l.exchange()
	}
	l.tried = false
}

// wasTaken notes that Jira has taken the password, which ends its count of wrong ones.
func (l *login) wasTaken() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried = false
}
