package jiratest

// Fact is something about Jira that nobody has confirmed, so that the engine has to work either way.
type Fact struct {
	Fact   string   // as the simulator has it by default
	Switch string   // the field of [Switches] that shows it the other way
	Tests  []string // the test functions, anywhere in this module, that run under both values
	Unused string   // why there are no tests: what the engine does not do yet
}

// Facts lists every unconfirmed fact about the calls that are simulated. A test holds the list against the tests of this module.
func Facts() []Fact {
	const notYet = "the engine does not make this call yet"
	return []Fact{
		{Fact: "a user may have two tokens of one name", Switch: "NamesUnique", Tests: []string{"TestTokenNames"}},
		{Fact: "a token's name may have 40 characters", Switch: "NameLength", Tests: []string{"TestTokenNames"}},
		{Fact: "a token's life is at most 365 days", Switch: "MaxDays", Tests: []string{"TestTokenDays"}},
		{Fact: "a life out of range is refused with 400, not clamped", Switch: "ClampDays", Tests: []string{"TestTokenDays"}},
		{Fact: "a token need not expire", Switch: "EternalOff", Tests: []string{"TestTokenDays"}},
		{Fact: "a token without expiry has an expiringAt of null", Switch: "Eternal", Tests: []string{"TestHowTokensLook"}},
		{Fact: "an id is a number", Switch: "IDString", Tests: []string{"TestHowTokensLook"}},
		{Fact: "times end in +00:00", Switch: "TimesNoColon", Tests: []string{"TestHowTokensLook"}},
		{Fact: "lastAccessedAt lags by about a minute", Switch: "LastAccessedAtOnce", Tests: []string{"TestLastAccessed"}},
		{Fact: "a mint is answered with 201", Switch: "PostStatus", Tests: []string{"TestStatuses"}},
		{Fact: "the cap is refused with 403", Switch: "CapStatus", Tests: []string{"TestStatuses"}},
		{Fact: "expired tokens go on counting against the cap", Switch: "ExpiredDoNotCount", Tests: []string{"TestExpiredTokens"}},
		{Fact: "expired tokens are still listed", Switch: "ExpiredNotListed", Tests: []string{"TestExpiredTokens"}},
		{Fact: "expired tokens are kept for 30 days", Switch: "ExpiredKept", Tests: []string{"TestExpiredTokens"}},
		{Fact: "GET of an unknown token is 404 with an empty body", Switch: "GetUnknownJSON", Tests: []string{"TestUnknownToken"}},
		{Fact: "DELETE of an unknown token is 404", Switch: "DeleteUnknownStatus", Tests: []string{"TestStatuses"}},
		{Fact: "DELETE of somebody else's token is 403", Switch: "DeleteForeignStatus", Tests: []string{"TestStatuses"}},
		{Fact: "an administrator may see and delete others' tokens", Switch: "AdminOwnTokensOnly", Tests: []string{"TestAdministratorAndOthersTokens"}},
		{Fact: "a token can mint siblings", Switch: "PATMayNotMint", Tests: []string{"TestSiblings"}},
		{Fact: "a token can delete its siblings", Switch: "PATMayNotDelete", Tests: []string{"TestSiblings"}},
		{Fact: "deleting a token leaves those it minted", Switch: "DeleteTakesSiblings", Tests: []string{"TestSiblings"}},
		{Fact: "a delete works at once", Switch: "DeleteLag", Tests: []string{"TestLags"}},
		{Fact: "a list shows at once what was made and deleted", Switch: "ListLag", Tests: []string{"TestLags"}},
		{Fact: "the API's version 1.0 has a name beside latest", Switch: "NoVersion10", Tests: []string{"TestVersion10"}},
		{Fact: "errors of the token API are {exception, error}", Switch: "PATErrorsLikeRest", Tests: []string{"TestErrorShapes"}},
		{Fact: "errors are in English", Switch: "ForeignTexts", Tests: []string{"TestErrorShapes"}},

		{Fact: "every answer carries X-AUSERNAME", Switch: "XAUserNameAbsent", Tests: []string{"TestAUserName"}},
		{Fact: "X-AUSERNAME is percent-encoded", Switch: "XAUserNameRaw", Tests: []string{"TestAUserName"}},
		{Fact: "logins may be spelt in any case", Switch: "LoginCaseSensitive", Tests: []string{"TestLoginCase"}},
		{Fact: "Basic authentication is on", Switch: "BasicOff", Tests: []string{"TestBasicOff"}},
		{Fact: "serverInfo answers anonymous", Switch: "ServerInfoLogin", Tests: []string{"TestServerInfo"}},
		{Fact: "a 429 says when to come back", Switch: "RetryAfterAbsent", Tests: []string{"TestRateLimit"}},
		{Fact: "a 429 does not say to come back at once", Switch: "RetryAfterZero", Tests: []string{"TestRateLimit"}},

		{Fact: "users can be added", Switch: "DirectoryReadOnly", Unused: notYet},
		{Fact: "a user who reported issues cannot be deleted", Switch: "DeleteBusyUsers", Unused: notYet},
	}
}
