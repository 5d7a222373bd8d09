// Package fault has the errors of the engine by what the caller can do about them. They
// become HTTP statuses at the edge of package backend, and nowhere else; an error of none of
// these types, and not of package jira either, is the engine's own.
//
// Their texts are for people: they say what is wrong and, where there is something to do,
// what. None holds a secret.
package fault

import "fmt"

// User is the caller's or the operator's: a request that cannot be met until it, or the
// configuration, is changed. Its text says what to do. The status is 400.
type User string

// Error is the text.
func (u User) Error() string { return string(u) }

// Userf is a [User] whose text is formatted as by [fmt.Sprintf]. It wraps no error.
func Userf(format string, a ...any) error { return User(fmt.Sprintf(format, a...)) }

// Unavailable is something of the engine's own that will pass by itself. The status is 503.
type Unavailable string

// Error is the text.
func (u Unavailable) Error() string { return string(u) }

// BadResponse is an answer of Jira's that cannot be true. The status is 502.
type BadResponse string

// Error is the text.
func (b BadResponse) Error() string { return string(b) }

// Capacity is a credential for which there is no place. The status is 429.
type Capacity struct {
	// Accounts are those that the ledger says are full: to settle what they have may make
	// room. Empty where nothing can.
	Accounts []string

	// Text says what is full, and how to make room.
	Text string
}

// Error is the text.
func (c *Capacity) Error() string { return c.Text }
