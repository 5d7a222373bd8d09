package backend

import (
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// What nobody has confirmed of Jira must not matter: a lease is issued,
// renewed and ended whichever way it turns out.
func TestALeaseWhicheverWayItTurnsOut(t *testing.T) {
	other := map[string]jiratest.Switches{ // the value that is not the default
		"NamesUnique":         {NamesUnique: true},
		"NameLength":          {NameLength: 255},
		"MaxDays":             {MaxDays: 3650},
		"ClampDays":           {ClampDays: true},
		"EternalOff":          {EternalOff: true},
		"Eternal":             {Eternal: "9999"},
		"IDString":            {IDString: true},
		"TimesNoColon":        {TimesNoColon: true},
		"OddRows":             {OddRows: true},
		"LastAccessedAtOnce":  {LastAccessedAtOnce: true},
		"PostStatus":          {PostStatus: 200},
		"CapStatus":           {CapStatus: 400},
		"ExpiredDoNotCount":   {ExpiredDoNotCount: true},
		"ExpiredNotListed":    {ExpiredNotListed: true},
		"ExpiredKept":         {ExpiredKept: time.Hour},
		"GetUnknownJSON":      {GetUnknownJSON: true},
		"DeleteUnknownStatus": {DeleteUnknownStatus: 204},
		"DeleteForeignStatus": {DeleteForeignStatus: 401},
		"AdminOwnTokensOnly":  {AdminOwnTokensOnly: true},
		"DeleteTakesSiblings": {DeleteTakesSiblings: true},
		"DeleteLag":           {DeleteLag: time.Minute},
		"ListLag":             {ListLag: time.Minute},
		"NoVersion10":         {NoVersion10: true},
		"PATErrorsLikeRest":   {PATErrorsLikeRest: true},
		"ForeignTexts":        {ForeignTexts: true},
		"XAUserNameAbsent":    {XAUserNameAbsent: true},
		"XAUserNameRaw":       {XAUserNameRaw: true},
		"LoginCaseSensitive":  {LoginCaseSensitive: true},
		"ServerInfoLogin":     {ServerInfoLogin: true},
		"Date":                {Date: "absent"},
		"RetryAfterAbsent":    {RetryAfterAbsent: true},
		"RetryAfterZero":      {RetryAfterZero: true},
		"DirectoryReadOnly":   {DirectoryReadOnly: true},
		"GroupsReadOnly":      {GroupsReadOnly: true},
		"DeleteBusyUsers":     {DeleteBusyUsers: true},
		"Seats":               {Seats: 1},
		"UserLag":             {UserLag: time.Minute},
		"UnknownGroupStatus":  {UnknownGroupStatus: 400},
		"NotMemberStatus":     {NotMemberStatus: 400},
		"RoleNobodyStatus":    {RoleNobodyStatus: 404},
		"RoleWithoutStatus":   {RoleWithoutStatus: 204},
		"RoleLockedStatus":    {RoleLockedStatus: 403},
		"InvalidClientStatus": {InvalidClientStatus: 400},
		"ScopeIgnored":        {ScopeIgnored: true},
		"TokenTypeAbsent":     {TokenTypeAbsent: true},
		"ServiceMyself":       {ServiceMyself: 403},
		"ServiceNameAbsent":   {ServiceNameAbsent: true},
		"RevocationPath":      {RevocationPath: "/plugins/revoke"},
		"RevokeUnknown400":    {RevokeUnknown400: true},
		"APITokenDelay":       {APITokenDelay: time.Minute},
		"APITokenPostOff":     {APITokenPostOff: true},
		// These leave one of the two ways to log in.
		"PATMayNotMint":   {PATMayNotMint: true},
		"PATMayNotDelete": {PATMayNotDelete: true},
		"BasicOff":        {BasicOff: true},
	}
	for _, fact := range jiratest.Facts() {
		if fact.Unused != "" {
			continue
		}
		switches, ok := other[fact.Switch]
		if !ok || reflect.ValueOf(switches).FieldByName(fact.Switch).IsZero() {
			t.Errorf("%s: %s has no other value here", fact.Fact, fact.Switch)
			continue
		}
		for _, s := range []jiratest.Switches{{}, switches} {
			for _, login := range []string{"token", "password"} {
				if login == "token" && (s.PATMayNotMint || s.PATMayNotDelete) || login == "password" && s.BasicOff {
					continue
				}
				t.Run(fact.Switch+" by "+login, func(t *testing.T) {
					t.Parallel()
					leaseLives(t, s, login)
				})
			}
		}
	}
}

func leaseLives(t *testing.T, s jiratest.Switches, login string) {
	e := start(t, jiratest.Options{Switches: s})
	user := e.jira.AddUser(jiratest.User{Name: "robot@example.com"})
	credential := map[string]any{"username": user.Name, "password": user.Password}
	if login == "token" {
		credential = map[string]any{"username": user.Name, "token": e.pat(user.Name)}
	}
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.write("accounts/robot", credential)
	e.write("roles/r", map[string]any{"accounts": "robot", "ttl": "1h", "max_ttl": "24h"})
	one, two := e.issue("r", nil), e.issue("r", nil)
	for _, resp := range []*logical.Response{one, two} {
		if status := e.call(resp.Data["token"].(string)); status != 200 {
			t.Errorf("the token gives %d", status)
		}
		if _, err := e.renew(resp.Secret, 0); err != nil {
			t.Error(err)
		}
		e.revoke(resp.Secret)
		e.revoke(resp.Secret) // what is gone stays gone
	}
	e.jira.Advance(2 * time.Minute)
	e.nothingHeld()
}
