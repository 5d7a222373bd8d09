package backend

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// A type of credential is a file: pat.go, ephemeral_user.go, oauth2.go and
// cloud_api_token.go. What only one of them does is a method there. What the engine has to
// know of one is among its traits, so nothing else asks which type it handles.

// traits are facts of a type of credential.
type traits struct {
	name        string // credential_type of a role
	stored      string // type of records and leases; empty of pat, as they were before there were others
	secretType  string // of Vault's leases; stored in each, and never changed
	accountType string // of the accounts of a role; empty where the config's admin makes it

	personal    bool // it is a token of its account's own user
	throwAway   bool // a user is made for it
	scoped      bool // an answer tells its scopes
	expiresOnly bool // nobody ends it who does not hold it: Jira lists none and has no cap, and none is owed
	cloud       bool // it is for deployment=cloud alone
	orgKey      bool // its accounts are called with the config's token
}

// credentialType is a type of credential. Its methods call Jira; what has to be written
// down before or after is the caller's. They can be called at the same time.
type credentialType interface {
	is() *traits

	// prepare says in m what is to be made for role r by account a of c's site. It asks Jira
	// nothing. a is nil where the role has no accounts.
	prepare(ctx context.Context, b *backend, m *mint, c *config, r *role, a *account) error

	// make makes the credential of m, whose intent is written. Where it fails, made tells
	// whether something may have been made all the same.
	make(ctx context.Context, b *backend, m *mint) (token jira.Token, secret string, made bool, err error)

	// end ends the credential of r, and what was made with it, as client, the login of its
	// account. No error means that it is proven gone, or ends only by itself.
	end(ctx context.Context, log hclog.Logger, b *backend, client *jira.Client, r *ledger.Record) error

	// settleLost finds out whether Jira made the credential of r, which never came to a
	// lease, and ends it if so. If not, its intent stays until no late request can make it
	// any more. tokens is what client lists, by clock.
	settleLost(ctx context.Context, log hclog.Logger, b *backend, client *jira.Client, r *ledger.Record, tokens []jira.Token, clock clock) error

	// lookUp tells whether the credential of r is there, and when Jira has last seen it,
	// which is zero where it does not tell.
	lookUp(ctx context.Context, client *jira.Client, r *ledger.Record) (there bool, lastUsed time.Time, err error)
}

// accountType is a type of account, for the one type of credential that is made by such.
type accountType interface {
	credentialType

	// validate refuses what cannot work, whatever Jira says.
	validate(a *account) error

	// verify asks Jira whether v's account can do its work, and takes over into it what
	// Jira says of it.
	verify(ctx context.Context, b *backend, v *verification) (warnings []string, err error)

	// review asks Jira whether an account that was verified is what it was.
	review(ctx context.Context, b *backend, client *jira.Client, a *account) error

	// works asks Jira whether what a logs in with works.
	works(ctx context.Context, client *jira.Client, a *account) error

	// moves tells whether a, as before was, is now another user.
	moves(a, before *account) bool

	// cannotRotate is why the login of account name cannot be rotated; nil if it can.
	cannotRotate(name string) error
}

// allTypes are in the order in which the API lists them.
var allTypes = []credentialType{pat{}, ephemeralUser{}, oauth2{}, cloudAPIToken{}}

// typeNamed is the type of that name, as roles, records or leases have it; nil if there is
// none.
func typeNamed(name string) credentialType {
	for _, t := range allTypes {
		if name == t.is().name || name == t.is().stored {
			return t
		}
	}
	return nil
}

// credentialTypes and accountTypes are the names of all types, for schemas and sentences.
func credentialTypes() []any { return allTypesOf(func(t *traits) string { return t.name }) }
func accountTypes() []any    { return allTypesOf(func(t *traits) string { return t.accountType }) }

// allTypesOf lists what name is of each type, where it is anything.
func allTypesOf(name func(*traits) string) []any {
	var names []any
	for _, t := range allTypes {
		if n := name(t.is()); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// orList writes names for a sentence: a, b or c.
func orList(names []any) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// typeOf is the type of r's credential.
func typeOf(r *ledger.Record) credentialType { return storedType(r.Type) }

// storedType is the type of that name in what is stored, which was checked before it was.
func storedType(name string) credentialType {
	if t := typeNamed(name); t != nil {
		return t
	}
	return pat{}
}

// knownType is the type of accounts that are of type name; nil if there is none.
func knownType(name string) accountType {
	for _, t := range allTypes {
		if a, ok := t.(accountType); ok && name == t.is().accountType {
			return a
		}
	}
	return nil
}
