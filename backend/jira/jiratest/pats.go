package jiratest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// postToken makes a token for whoever asks. There is no way to ask for somebody else.
func (s *Server) postToken(q *request) answer {
	if s.switches.PATsOff {
		return s.patsOff()
	}
	if s.switches.PATMayNotMint && q.token != nil {
		return s.patError(http.StatusForbidden, "NotAuthorizedException", "You can't use a token to create a token.")
	}
	body, ok := q.object()
	if !ok {
		return s.patError(http.StatusBadRequest, "InvalidJsonException", "The body is not a JSON object.")
	}
	name := strings.TrimSpace(body.text("name"))
	if name == "" {
		return s.patError(http.StatusBadRequest, "TokenNameException", "Token name is required.")
	}
	if most := cmp.Or(s.switches.NameLength, 40); utf8.RuneCountInString(name) > most {
		return s.patError(http.StatusBadRequest, "TokenNameException", fmt.Sprintf("Token name can't be longer than %d characters.", most))
	}
	days, refusal := s.days(body)
	if refusal != nil {
		return *refusal
	}
	if s.switches.NamesUnique {
		for _, k := range s.byOwner[q.user.Key] {
			if k.deleted.IsZero() && k.name == name {
				return s.patError(http.StatusBadRequest, "TokenNameException", "You already have a token of this name.")
			}
		}
	}
	// The tokens are counted only where they could be too many: with 100,000 of them it takes a while.
	most := cmp.Or(s.switches.MaxTokens, 10)
	if key := q.user.Key; most > 0 && len(s.byOwner[key]) >= most && s.counted(key) >= most {
		return s.patError(cmp.Or(s.switches.CapStatus, http.StatusForbidden), "TokenLimitExceededException",
			fmt.Sprintf("You can't create more than %d tokens.", most))
	}
	var parent int64
	if q.token != nil {
		parent = q.token.id
	}
	k := s.mint(q.user, name, days, parent)
	shown := s.show(k)
	shown["rawToken"] = k.raw
	return jsonAnswer(cmp.Or(s.switches.PostStatus, http.StatusCreated), shown)
}

// days reads how long a token shall live: whole days, or 0 for ever.
func (s *Server) days(body object) (int, *answer) {
	refuse := func(text string) (int, *answer) {
		a := s.patError(http.StatusBadRequest, "ExpirationDurationException", text)
		return 0, &a
	}
	if !body.has("expirationDuration") {
		if s.switches.EternalOff {
			return refuse("Expiry is required.")
		}
		return 0, nil
	}
	var days int
	if json.Unmarshal(body["expirationDuration"], &days) != nil {
		return refuse("Expiry must be a whole number of days.")
	}
	most := cmp.Or(s.switches.MaxDays, 365)
	if s.switches.ClampDays {
		days = min(max(days, 1), most)
	}
	if days < 1 || days > most {
		return refuse(fmt.Sprintf("Expiry must be between 1 and %d days.", most))
	}
	return days, nil
}

// getTokens lists the caller's own tokens: a bare array, and no paging.
func (s *Server) getTokens(q *request) answer {
	if s.switches.PATsOff {
		return s.patsOff()
	}
	s.prune(q.user.Key)
	now := s.now()
	list := []map[string]any{}
	if s.switches.OddRows {
		list = oddRows()
	}
	for _, k := range s.ordered(q.user.Key) {
		young := !passed(now, k.created, s.switches.ListLag)
		gone := !k.deleted.IsZero() && passed(now, k.deleted, s.switches.ListLag)
		if young || gone || s.switches.ExpiredNotListed && k.expired(now) {
			continue
		}
		shown := s.show(k)
		if s.switches.OddRows {
			shown["createdAt"], shown["expiringAt"] = k.created.UnixMilli(), k.expires.UnixMilli()
		}
		list = append(list, shown)
	}
	return jsonAnswer(http.StatusOK, list)
}

// oddRows are rows that no client expects, of tokens that no call can find.
func oddRows() []map[string]any {
	const first = int64(1) << 60
	return []map[string]any{
		{"id": first},
		{"id": first + 1, "name": nil, "createdAt": nil, "expiringAt": 1772438400000},
		{"id": first + 2, "name": "", "createdAt": "+12026-03-02T08:15:09.417+00:00", "expiringAt": "never"},
		{"id": first + 3, "name": map[string]any{"de": "nachts"}, "createdAt": []int{2026, 3, 2}, "lastAccessedAt": true},
		{"id": first + 4, "name": strings.Repeat("long ", 1000), "expiringAt": "292278994-08-17T07:12:55.807Z"},
	}
}

func (s *Server) getToken(q *request) answer {
	if s.switches.PATsOff {
		return s.patsOff()
	}
	k := s.find(q.vars[1])
	if k == nil || k.owner != q.user.Key && (!q.user.admin() || s.switches.AdminOwnTokensOnly) {
		if s.switches.GetUnknownJSON {
			return s.patError(http.StatusNotFound, "NotFoundException", "There is no such token.")
		}
		return emptyAnswer(http.StatusNotFound)
	}
	return jsonAnswer(http.StatusOK, s.show(k))
}

func (s *Server) deleteToken(q *request) answer {
	if s.switches.PATsOff {
		return s.patsOff()
	}
	k := s.find(q.vars[1])
	if k == nil {
		return emptyAnswer(cmp.Or(s.switches.DeleteUnknownStatus, http.StatusNotFound))
	}
	if k.owner != q.user.Key && (!q.user.admin() || s.switches.AdminOwnTokensOnly) {
		return s.patError(cmp.Or(s.switches.DeleteForeignStatus, http.StatusForbidden), "NotAuthorizedException",
			"You can't revoke this token.")
	}
	if s.switches.PATMayNotDelete && q.token != nil && q.token != k {
		return s.patError(http.StatusForbidden, "NotAuthorizedException", "You can't use a token to revoke another.")
	}
	s.delete(k)
	return emptyAnswer(http.StatusNoContent)
}

// find returns the token of that id which was not deleted or pruned, or nil.
func (s *Server) find(id string) *pat {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil
	}
	if k := s.byID[n]; k != nil && k.deleted.IsZero() && !s.over(k, s.now()) {
		return k
	}
	return nil
}

// show is a token as Jira writes it, without its secret.
func (s *Server) show(k *pat) map[string]any {
	format := "2006-01-02T15:04:05.000-07:00"
	if s.switches.TimesNoColon {
		format = "2006-01-02T15:04:05.000-0700"
	}
	shown := map[string]any{"id": k.id, "name": k.name, "createdAt": k.created.Format(format)}
	if s.switches.IDString {
		shown["id"] = strconv.FormatInt(k.id, 10)
	}
	switch {
	case !k.expires.IsZero():
		shown["expiringAt"] = k.expires.Format(format)
	case s.switches.Eternal == "":
		shown["expiringAt"] = nil
	case s.switches.Eternal == "9999":
		shown["expiringAt"] = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Format(format)
	}
	accessed := k.accessed(s.now())
	if s.switches.LastAccessedAtOnce {
		accessed = k.used
	}
	if !accessed.IsZero() {
		shown["lastAccessedAt"] = accessed.Format(format)
	}
	return shown
}

// patError is an error of the token API. Its texts are in the language of the user.
func (s *Server) patError(status int, class, text string) answer {
	if s.switches.ForeignTexts {
		text = "Das Token-Limit, der Name oder die Gültigkeit wurde nicht akzeptiert."
	}
	if s.switches.PATErrorsLikeRest {
		return messageAnswer(status, text)
	}
	return jsonAnswer(status, map[string]any{"exception": "com.atlassian.pats.exception." + class, "error": text})
}

func (s *Server) patsOff() answer {
	return s.patError(http.StatusForbidden, "TokensDisabledException", "Personal access tokens are disabled.")
}
