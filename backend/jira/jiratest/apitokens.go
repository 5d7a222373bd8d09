package jiratest

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
)

// APIToken is an API token of a service account of Jira Cloud that was not deleted.
type APIToken struct {
	ID, Label string
	Account   string // the service account's name
	Scopes    []string
	Created   time.Time
	Expires   time.Time
	Live      bool // a call that carries it is let in now
}

// apiToken is an API token as Atlassian holds it.
type apiToken struct {
	APIToken

	account *serviceAccount
	scopes  []string
	raw     string
}

// APITokens lists the API tokens that were not deleted, expired ones among them, in the order in which they were made.
func (s *Server) APITokens() []APIToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listAPITokens()
}

// MintAPIToken makes an API token of the service account with this id behind the API's back, which lives for life. It panics
// if there is no such account, which is a mistake of the test.
func (s *Server) MintAPIToken(accountID, label string, life time.Duration) APIToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if a.ID == accountID {
			return s.mintAPIToken(a, label, nil, s.now().Add(life)).APIToken
		}
	}
	panic("jiratest: there is no service account " + accountID)
}

// mintAPIToken makes one; s.mu is held.
func (s *Server) mintAPIToken(account *serviceAccount, label string, scopes []string, expires time.Time) *apiToken {
	k := &apiToken{
		APIToken: APIToken{
			ID: rand.Text(), Label: label, Account: account.Name, Scopes: slices.Clone(scopes), Created: s.now(), Expires: expires.UTC(),
		},
		account: account, scopes: scopes, raw: "ATSTT3x" + rand.Text() + rand.Text(),
	}
	s.apiTokens[k.ID] = k
	s.apiOrder = append(s.apiOrder, k.ID)
	s.secret(k.raw)
	s.wake()
	return k
}

func (s *Server) listAPITokens() []APIToken {
	var list []APIToken
	for _, id := range s.apiOrder {
		if k := s.apiTokens[id]; k != nil {
			shown := k.APIToken
			shown.Live = s.apiWorks(k)
			list = append(list, shown)
		}
	}
	return list
}

// leftAPITokens lists those of the engine that a test should have ended.
func (s *Server) leftAPITokens() []APIToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave {
		return nil
	}
	now := s.now()
	return slices.DeleteFunc(s.listAPITokens(), func(k APIToken) bool {
		return !strings.HasPrefix(k.Label, "vault-") || !now.Before(k.Expires)
	})
}

// apiWorks says that a call with k is let in; s.mu is held.
func (s *Server) apiWorks(k *apiToken) bool {
	now := s.now()
	return now.Before(k.Expires) && !now.Before(k.Created.Add(s.switches.APITokenDelay))
}

// manageAPITokens answers calls about the API tokens of an account, or about one of them, for an organisation's key.
func (s *Server) manageAPITokens(q *request, accountID, id string) answer {
	scoped, known := s.orgKeys[q.credential().raw]
	switch {
	case !known:
		return unauthorized()
	case scoped:
		return wrongScope()
	}
	var account *serviceAccount
	for _, a := range s.accounts {
		if a.ID == accountID {
			account = a
		}
	}
	switch {
	case account == nil:
		return gatewayError(http.StatusNotFound, "The account does not exist.")
	case q.method == http.MethodPost && id == "" && !s.switches.APITokenPostOff:
		return s.postAPIToken(q, account)
	case q.method == http.MethodGet && id == "":
		list := []map[string]any{}
		for _, id := range s.apiOrder {
			if k := s.apiTokens[id]; k != nil && k.account == account {
				list = append(list, showAPIToken(k))
			}
		}
		return jsonAnswer(http.StatusOK, list)
	case q.method == http.MethodDelete && id != "":
		if k := s.apiTokens[id]; k == nil || k.account != account {
			return gatewayError(http.StatusNotFound, "The token does not exist.")
		}
		delete(s.apiTokens, id)
		s.wake()
		return emptyAnswer(http.StatusNoContent)
	}
	return gatewayError(http.StatusMethodNotAllowed, "Method Not Allowed")
}

func (s *Server) postAPIToken(q *request, account *serviceAccount) answer {
	refuse := func(code, text string) answer {
		return jsonAnswer(http.StatusBadRequest, map[string]any{"code": code, "message": text})
	}
	body, ok := q.object()
	if !ok || !q.json() || body.text("label") == "" {
		return refuse("INVALID_REQUEST", "The body must be JSON with a label.")
	}
	now := s.now()
	scopes, ok := body.texts("scopes")
	if !ok || len(scopes) == 0 {
		return refuse("MISSING_SCOPES", "At least one scope is needed.")
	}
	expiry, err := time.Parse(time.RFC3339, body.text("expiry"))
	if err != nil || !expiry.After(now) || expiry.After(now.AddDate(0, 0, 365)) {
		return refuse("INVALID_EXPIRY", "expiry must be within 365 days.")
	}
	for _, k := range s.apiTokens {
		if k.account == account && k.Label == body.text("label") {
			return refuse("DUPLICATE_LABEL", "The account has a token of this label.")
		}
	}
	k := s.mintAPIToken(account, body.text("label"), scopes, expiry)
	shown := showAPIToken(k)
	shown["token"] = k.raw
	return jsonAnswer(cmp.Or(s.switches.PostStatus, http.StatusCreated), shown)
}

// showAPIToken is a token as Atlassian writes it, without its secret.
func showAPIToken(k *apiToken) map[string]any {
	const format = "2006-01-02T15:04:05.000Z"
	return map[string]any{"id": k.ID, "label": k.Label, "createdAt": k.Created.Format(format), "expiry": k.Expires.Format(format)}
}
