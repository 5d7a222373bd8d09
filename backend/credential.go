package backend

import (
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
)

// credential is what the engine logs in with, as part of the config or of an
// account, and whom Jira takes it for.
type credential struct {
	Username string `json:"username"`
	Token    string `json:"token"`
	Password string `json:"password"`
	UserKey  string `json:"user_key"` // Jira's own key of the user, which survives a rename

	// OwnTokenID is Jira's id of Token, where the operator who brought it has told it.
	OwnTokenID string `json:"own_token_id,omitempty"`

	rotated  // what the engine has made of it
	schedule // when it makes another
}

// credentialFields are the fields of a credential in a request.
func credentialFields(of string) map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"username": {
			Type:        framework.TypeString,
			Description: "Login name of " + of + ".",
		},
		"token": {
			Type:         framework.TypeString,
			Description:  "Personal access token of " + of + ". Replaces the password. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"password": {
			Type:         framework.TypeString,
			Description:  "Password of " + of + ", for Basic authentication. Replaces the token. Never read back.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"own_token_id": {
			Type:        framework.TypeString,
			Description: "Jira's id of the token that is given here. By it a tidy tells it from others of the user, and a rotation can end it, and know when it expires. Where it is left out with a new token, it is found if the user has no other; if he has, the answer warns.",
		},
	}
}

// update takes over what was sent. A token or password that a rotation has replaced, or
// that one is about to bring, is not: stale is its kind, and all that is of the credential
// stays. With force it is taken.
func (c *credential) update(f fields) (stale string, err error) {
	before := *c
	c.schedule.update(f)
	newToken, err := changeSecret(f, "token", &c.Token)
	if err != nil {
		return "", err
	}
	newPassword, err := changeSecret(f, "password", &c.Password)
	if err != nil {
		return "", err
	}
	switch {
	case newToken && newPassword:
		return "", fault.Userf("token and password together: give the one that the engine shall log in with")
	case newToken:
		c.Password = ""
		if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fault.Userf("token holds a space or another character that no Jira token has: was more than the token copied?")
		}
	case newPassword:
		c.Token = ""
	}
	sent, inUse := c.Token+c.Password, before.Token+before.Password // one of each is empty
	force := forced(f.FieldData)
	if (newToken || newPassword) && sent != inUse && !force && (before.Replaced.has(sent) || sent == before.Next) {
		stale = c.kind()
		c.Token, c.Password = before.Token, before.Password
	}
	// What is stored may be an id of Cloud's, in which a colon is usual.
	if change(f, "username", &c.Username) && (strings.Contains(c.Username, ":") || strings.TrimSpace(c.Username) != c.Username) {
		return "", fault.Userf("username holds a colon, or a space at its start or end: no login name does") // it may hold a password, too
	}
	sameLogin := c.Token == before.Token && c.Password == before.Password
	if !sameLogin || c.Username != before.Username {
		c.UserKey = "" // until Jira has told it
	}
	if !sameLogin {
		// What the engine has made is ended, as nobody keeps it any more.
		c.rotated = rotated{Replaced: before.Replaced.without(sent)}
	}
	if stale != "" { // its id came with it
		return stale, nil
	}
	if !change(f, "own_token_id", &c.OwnTokenID) && c.Token != before.Token {
		c.OwnTokenID = ""
	}
	if c.OwnTokenID != before.OwnTokenID && c.RecordID == "" {
		c.Expires = 0 // until Jira has told it
	}
	return "", nil
}

// validateKept refuses what cannot work of a user's credential, whatever Jira says.
func (c *credential) validateKept() error {
	switch {
	case c.OwnTokenID != "" && c.Token == "":
		return fault.Userf("own_token_id is the id of a token, and the engine logs in with a password")
	case c.OwnTokenID != "" && c.RecordID != "":
		return fault.Userf("own_token_id is of a token that was brought, and the engine has replaced that one: it knows its own")
	}
	return c.schedule.validate()
}

// unscheduled is c without when it is replaced, which Jira has no say in.
func (c credential) unscheduled() credential {
	c.schedule = schedule{}
	return c
}

// sentCredential tells whether a request brings a token, a password or a client
// secret, be it the one in use. One that is stale was not taken, so it does not count.
func sentCredential(d *framework.FieldData, stale string) bool {
	return stale == "" && (d.Raw["token"] != nil || d.Raw["password"] != nil || d.Raw["client_secret"] != nil)
}

// begun notes when a credential that was written became the one in use.
func (c *credential) begun(now time.Time) {
	c.schedule.begun(now)
	if c.Since == 0 && c.kind() != "" {
		c.Since = now.Unix()
	}
}

// kind is what reads show in place of the credential: "token", "password", or
// "" where there is none.
func (c *credential) kind() string {
	switch {
	case c.Token != "":
		return "token"
	case c.Password != "":
		return "password"
	}
	return ""
}

func (c *credential) login() jira.Login {
	l := jira.Login{Username: c.Username, Key: c.UserKey, Token: c.Token, Password: c.Password}
	if c.Password != "" {
		l.Next = c.Next
	}
	return l
}

// belongsTo takes over who Jira says the credential's user is. It refuses
// another one than the operator named, and one who is not active.
func (c *credential) belongsTo(u jira.User) error {
	if c.Username != "" && !strings.EqualFold(c.Username, u.Name) {
		return fault.Userf("the %s belongs to %q, not to %q: give that user's own, or his username", c.kind(), u.Name, c.Username)
	}
	if !u.Active {
		return fault.Userf("user %q is not active in Jira", u.Name)
	}
	c.Username, c.UserKey = u.Name, u.Key
	return nil
}

// sameUser tells whether both belong to one Jira user.
func (c *credential) sameUser(o *credential) bool {
	if c.UserKey != "" && o.UserKey != "" {
		return c.UserKey == o.UserKey
	}
	return c.Username != "" && strings.EqualFold(c.Username, o.Username)
}
