package jiratest

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// ServiceAccount is who calls Jira with access tokens, which he asks for with a client id and a secret. He is no user.
type ServiceAccount struct {
	Name         string // what X-AUSERNAME says of him
	ID           string // on Cloud: his account id; default: a made-up one
	ClientID     string // default: a made-up one, as is the secret
	ClientSecret string
	Expires      time.Time // when the secret ends; zero: never
	Scopes       []string  // default: READ and WRITE; on Cloud read:jira-work, read:jira-user and write:jira-work
	Projects     []string  // the keys of those he may see; none: all
}

// AccessToken is one that was asked for.
type AccessToken struct {
	Account string // the service account's name
	Scopes  []string
	Expires time.Time
	Live    bool // a call that carries it is let in now
}

// access is an access token as Jira holds it.
type access struct {
	account *serviceAccount
	scopes  []string
	expires time.Time
	revoked bool
}

// serviceAccount is a ServiceAccount, and the user that he is to projects and issues but to nobody else.
type serviceAccount struct {
	ServiceAccount

	user *user
}

// grants are service accounts by client id, and access tokens by secret.
type grants struct {
	accounts map[string]*serviceAccount
	access   map[string]*access
	issued   []*access // in order
}

func newGrants() grants {
	return grants{accounts: map[string]*serviceAccount{}, access: map[string]*access{}}
}

const (
	readScope  = "READ"
	writeScope = "WRITE" // includes READ
)

// AddServiceAccount adds a service account and returns it with what was made up. It panics if it has no name, or its client id
// is taken.
func (s *Server) AddServiceAccount(a ServiceAccount) ServiceAccount {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.addServiceAccount(a)
	if err != nil {
		panic("jiratest: " + err.Error())
	}
	return a
}

// addServiceAccount does so with s.mu held, and adds nothing if it fails.
func (s *Server) addServiceAccount(a ServiceAccount) (ServiceAccount, error) {
	a.ID = cmp.Or(a.ID, "712020:"+rand.Text())
	a.ClientID = cmp.Or(a.ClientID, rand.Text())
	a.ClientSecret = cmp.Or(a.ClientSecret, "ATOA"+rand.Text()+rand.Text())
	if a.Scopes == nil {
		a.Scopes = []string{readScope, writeScope}
		if s.options.Cloud != "" {
			a.Scopes = []string{readWork, readUser, writeWork}
		}
	}
	if a.Name == "" || s.accounts[a.ClientID] != nil {
		return ServiceAccount{}, fmt.Errorf("service account %q with client id %q is nameless or there already", a.Name, a.ClientID)
	}
	s.accounts[a.ClientID] = &serviceAccount{a, &user{User: User{Name: a.Name, Key: "service-" + a.ClientID, DisplayName: a.Name}}}
	s.secret(a.ClientSecret)
	return a, nil
}

// SetServiceAccount changes what a service account may do, or its secret; access tokens that it has stay as they are. It panics
// if there is none of that client id.
func (s *Server) SetServiceAccount(clientID string, change func(*ServiceAccount)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[clientID]
	if a == nil {
		panic(fmt.Sprintf("jiratest: there is no service account with client id %q", clientID))
	}
	change(&a.ServiceAccount)
	a.ClientID = clientID
	s.secret(a.ClientSecret)
}

// AccessTokens lists the access tokens that were ever asked for, in that order.
func (s *Server) AccessTokens() []AccessToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []AccessToken
	for _, t := range s.issued {
		list = append(list, AccessToken{t.account.Name, slices.Clone(t.scopes), t.expires, s.valid(t)})
	}
	return list
}

// valid says that a call with t is let in; s.mu is held.
func (s *Server) valid(t *access) bool {
	return t != nil && !t.revoked && s.now().Before(t.expires)
}

// restricted says that u is a service account that may not see p.
func (s *Server) restricted(u *user, p *project) bool {
	for _, a := range s.accounts {
		if a.user == u {
			return len(a.Projects) > 0 && !slices.ContainsFunc(a.Projects, func(key string) bool { return strings.EqualFold(key, p.Key) })
		}
	}
	return false
}

// tokenPath is where Data Center takes client credentials.
const tokenPath = "/rest/oauth2/latest/token"

// oauth answers the calls of OAuth, which come as forms and without a login, and refuses what an access token is not for; ok is
// false if q is nothing of that.
func (s *Server) oauth(q *request) (a answer, ok bool) {
	there := q.method == http.MethodPost && atLeast(s.options.Version, 11, 0)
	switch {
	case there && q.path == tokenPath:
		return s.postAccess(q), true
	case there && s.switches.RevocationPath != "" && q.path == s.switches.RevocationPath:
		return s.postRevocation(q), true
	case q.access == nil || !strings.HasPrefix(q.path, "/rest/"):
		return answer{}, false
	}
	refuse := func(status int, text string) (answer, bool) {
		return jsonAnswer(status, map[string]any{"message": text, "status-code": status}), true
	}
	reads := q.method == http.MethodGet || q.path == "/rest/api/2/search"
	switch {
	case !strings.HasPrefix(q.path, "/rest/api/2/"):
		return refuse(http.StatusForbidden, "This resource is not available to OAuth 2.0 clients.")
	case !reads && !slices.Contains(q.access.scopes, writeScope):
		return refuse(http.StatusForbidden, "The access token's scope does not allow this.")
	case q.path == "/rest/api/2/myself" && s.switches.ServiceMyself != 0:
		return refuse(s.switches.ServiceMyself, "There is no such user.")
	}
	return answer{}, false
}

// oauthError is an error as RFC 6749 has it.
func oauthError(status int, code, text string) answer {
	return jsonAnswer(status, map[string]any{"error": code, "error_description": text})
}

// grant finds the service account that the form names, or refuses.
func (s *Server) grant(q *request) (*serviceAccount, url.Values, *answer) {
	refuse := func(status int, code, text string) (*serviceAccount, url.Values, *answer) {
		a := oauthError(status, code, text)
		return nil, nil, &a
	}
	kind, _, _ := strings.Cut(q.header.Get("Content-Type"), ";")
	form, err := url.ParseQuery(string(q.body))
	if kind != "application/x-www-form-urlencoded" || err != nil || q.rawQuery != "" {
		return refuse(http.StatusBadRequest, "invalid_request", "The body must be a form, and there must be no query.")
	}
	a := s.accounts[form.Get("client_id")]
	if a == nil || !a.proves(form.Get("client_secret"), s.now()) {
		return refuse(cmp.Or(s.switches.InvalidClientStatus, http.StatusUnauthorized), "invalid_client", "Client authentication failed.")
	}
	return a, form, nil
}

// proves says that secret is a's.
func (a *serviceAccount) proves(secret string, now time.Time) bool {
	return subtle.ConstantTimeCompare([]byte(a.ClientSecret), []byte(secret)) == 1 && (a.Expires.IsZero() || now.Before(a.Expires))
}

func (s *Server) postAccess(q *request) answer {
	account, form, refusal := s.grant(q)
	switch {
	case refusal != nil:
		return *refusal
	case form.Get("grant_type") != "client_credentials":
		return oauthError(http.StatusBadRequest, "unsupported_grant_type", "The grant type is not supported.")
	case len(account.Scopes) == 0:
		return oauthError(http.StatusBadRequest, "unauthorized_client", "The client may not use this grant type.")
	}
	scopes, refusal := s.narrow(account, form.Get("scope"))
	if refusal != nil {
		return *refusal
	}
	return s.grantAccess(account, scopes, rand.Text()+rand.Text())
}

// narrow finds the scopes of a token of account for which scope was asked, or refuses.
func (s *Server) narrow(account *serviceAccount, scope string) ([]string, *answer) {
	asked := strings.Fields(scope)
	for _, scope := range asked {
		writes := scope == readScope && slices.Contains(account.Scopes, writeScope)
		if !slices.Contains(account.Scopes, scope) && !writes {
			a := oauthError(http.StatusBadRequest, "invalid_scope", "The scope is not one of the client's.")
			return nil, &a
		}
	}
	if len(asked) == 0 || s.switches.ScopeIgnored {
		asked = account.Scopes
	}
	return asked, nil
}

// grantAccess makes an access token and answers with it.
func (s *Server) grantAccess(account *serviceAccount, scopes []string, raw string) answer {
	const life = time.Hour
	t := &access{account: account, scopes: slices.Clone(scopes), expires: s.now().Add(life)}
	s.access[raw] = t
	s.issued = append(s.issued, t)
	s.secret(raw)
	s.wake()
	shown := map[string]any{
		"access_token": raw, "token_type": "bearer", "expires_in": int(life / time.Second), "scope": strings.Join(t.scopes, " "),
	}
	switch s.switches.ExpiresIn {
	case "":
	case "absent":
		delete(shown, "expires_in")
	default:
		shown["expires_in"] = json.RawMessage(s.switches.ExpiresIn)
	}
	if s.switches.TokenTypeAbsent {
		delete(shown, "token_type")
	}
	return jsonAnswer(http.StatusOK, shown)
}

// postRevocation is what RFC 7009 says. A client may end his own tokens alone.
func (s *Server) postRevocation(q *request) answer {
	account, form, refusal := s.grant(q)
	if refusal != nil {
		return *refusal
	}
	t := s.access[form.Get("token")]
	if t == nil || t.account != account || t.revoked {
		if s.switches.RevokeUnknown400 {
			return oauthError(http.StatusBadRequest, "invalid_token", "The token is not known.")
		}
		return emptyAnswer(http.StatusOK)
	}
	t.revoked = true
	s.wake()
	return emptyAnswer(http.StatusOK)
}
