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
	return []Fact{
		{Fact: "a user may have two tokens of one name", Switch: "NamesUnique", Tests: []string{"TestTokenNames", "TestLifeOfAToken", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a token's name may have 40 characters", Switch: "NameLength", Tests: []string{"TestTokenNames", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a token's life is at most 365 days", Switch: "MaxDays", Tests: []string{"TestTokenDays", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a life out of range is refused with 400, not clamped", Switch: "ClampDays", Tests: []string{"TestTokenDays", "TestLifeOfAToken", "TestDaysOutOfRange", "TestALeaseWhicheverWayItTurnsOut", "TestALeaseIsNeverLongerThanItsToken"}},
		{Fact: "a token need not expire", Switch: "EternalOff", Tests: []string{"TestTokenDays", "TestLifeOfAToken", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a token without expiry has an expiringAt of null", Switch: "Eternal", Tests: []string{"TestHowTokensLook", "TestListOfManyKinds", "TestNewTokenOnTheWire", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "an id is a number", Switch: "IDString", Tests: []string{"TestHowTokensLook", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "times end in +00:00", Switch: "TimesNoColon", Tests: []string{"TestHowTokensLook", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "every row of a list has a name, and times as a mint has them", Switch: "OddRows", Tests: []string{"TestHowTokensLook", "TestHowTokensLookInAnOddList", "TestListOfManyKinds", "TestALeaseWhicheverWayItTurnsOut", "TestOddRowsStopNothing"}},
		{Fact: "lastAccessedAt lags by about a minute", Switch: "LastAccessedAtOnce", Tests: []string{"TestLastAccessed", "TestLifeOfAToken", "TestListOfManyKinds", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a mint is answered with 201", Switch: "PostStatus", Tests: []string{"TestStatuses", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "the cap is refused with 403", Switch: "CapStatus", Tests: []string{"TestStatuses", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut", "TestTheCapOfJira"}},
		{Fact: "expired tokens go on counting against the cap", Switch: "ExpiredDoNotCount", Tests: []string{"TestExpiredTokens", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "expired tokens are still listed", Switch: "ExpiredNotListed", Tests: []string{"TestExpiredTokens", "TestLifeOfAToken", "TestListOfManyKinds", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "expired tokens are kept for 30 days", Switch: "ExpiredKept", Tests: []string{"TestExpiredTokens", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "GET of an unknown token is 404 with an empty body", Switch: "GetUnknownJSON", Tests: []string{"TestUnknownToken", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "DELETE of an unknown token is 404", Switch: "DeleteUnknownStatus", Tests: []string{"TestStatuses", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut", "TestATokenThatIsGoneAlreadyIsRevoked"}},
		{Fact: "DELETE of somebody else's token is 403", Switch: "DeleteForeignStatus", Tests: []string{"TestStatuses", "TestDeniedDeletes", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "an administrator may see and delete others' tokens", Switch: "AdminOwnTokensOnly", Tests: []string{"TestAdministratorAndOthersTokens", "TestLifeOfAToken", "TestDeniedDeletes", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a token can mint siblings", Switch: "PATMayNotMint", Tests: []string{"TestSiblings", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a token can delete its siblings", Switch: "PATMayNotDelete", Tests: []string{"TestSiblings", "TestDeniedDeletes", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "deleting a token leaves those it minted", Switch: "DeleteTakesSiblings", Tests: []string{"TestSiblings", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a delete works at once", Switch: "DeleteLag", Tests: []string{"TestLags", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a list shows at once what was made and deleted", Switch: "ListLag", Tests: []string{"TestLags", "TestALeaseWhicheverWayItTurnsOut", "TestAListThatLags"}},
		{Fact: "the API's version 1.0 has a name beside latest", Switch: "NoVersion10", Tests: []string{"TestVersion10", "TestLifeOfAToken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "errors of the token API are {exception, error}", Switch: "PATErrorsLikeRest", Tests: []string{"TestErrorShapes", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "errors are in English", Switch: "ForeignTexts", Tests: []string{"TestErrorShapes", "TestDeniedMints", "TestALeaseWhicheverWayItTurnsOut", "TestTheCapOfJira"}},

		{Fact: "every answer carries X-AUSERNAME", Switch: "XAUserNameAbsent", Tests: []string{"TestAUserName", "TestLifeOfAToken", "TestNameOfTheUser", "TestAdministrator", "TestDeniedMints", "TestDeniedDeletes", "TestALeaseWhicheverWayItTurnsOut", "TestATokenThatIsGoneAlreadyIsRevoked"}},
		{Fact: "X-AUSERNAME is percent-encoded", Switch: "XAUserNameRaw", Tests: []string{"TestAUserName", "TestLifeOfAToken", "TestNameOfTheUser", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "logins may be spelt in any case", Switch: "LoginCaseSensitive", Tests: []string{"TestLoginCase", "TestLifeOfAToken", "TestNameOfTheUser", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "Basic authentication is on", Switch: "BasicOff", Tests: []string{"TestBasicOff", "TestBasicSwitchedOff", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "serverInfo answers anonymous", Switch: "ServerInfoLogin", Tests: []string{"TestServerInfo", "TestLifeOfAToken", "TestServerInfoOf", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "every answer carries a date", Switch: "Date", Tests: []string{"TestClock", "TestHealth", "TestAnAnswerWithoutADate", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a 429 says when to come back", Switch: "RetryAfterAbsent", Tests: []string{"TestRateLimit", "TestRateLimited", "TestALeaseWhicheverWayItTurnsOut", "TestA429IsWaitedFor"}},
		{Fact: "a 429 does not say to come back at once", Switch: "RetryAfterZero", Tests: []string{"TestRateLimit", "TestRateLimited", "TestALeaseWhicheverWayItTurnsOut", "TestA429IsWaitedFor"}},

		{Fact: "users can be added", Switch: "DirectoryReadOnly", Tests: []string{"TestUsersThatCannotBeMadeOrDeleted", "TestUsersThatAreRefused", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "groups can be changed", Switch: "GroupsReadOnly", Tests: []string{"TestGroups", "TestGroupsThatAreRefused", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "a user who reported issues cannot be deleted", Switch: "DeleteBusyUsers", Tests: []string{"TestUsersThatCannotBeMadeOrDeleted", "TestBusyUsers", "TestThrowAwayUserWhicheverWayItTurnsOut", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "the licence has a seat for every user", Switch: "Seats", Tests: []string{"TestSeats", "TestUsersThatAreRefused", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "GET shows a user as soon as he is made", Switch: "UserLag", Tests: []string{"TestUserLag", "TestThrowAwayUserWhicheverWayItTurnsOut", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "adding to a group that is not there is 404", Switch: "UnknownGroupStatus", Tests: []string{"TestGroups", "TestGroupsThatAreRefused", "TestThrowAwayUserWhicheverWayItTurnsOut", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "taking somebody out of a group he is not in is 404", Switch: "NotMemberStatus", Tests: []string{"TestGroups", "TestGroupsThatAreRefused", "TestThrowAwayUserWhicheverWayItTurnsOut", "TestALeaseWhicheverWayItTurnsOut"}},

		{Fact: "of a user who is not there a project role says 410", Switch: "RoleNobodyStatus", Tests: []string{"TestProjectsRolesAndPermissions", "TestARoleThatCannotBeTaken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "taking a project role from somebody who does not have it is 404", Switch: "RoleWithoutStatus", Tests: []string{"TestProjectsRolesAndPermissions", "TestARoleThatCannotBeTaken", "TestALeaseWhicheverWayItTurnsOut"}},
		{Fact: "changing the roles of a project that one does not administer is 404", Switch: "RoleLockedStatus", Tests: []string{"TestPlainUsersAdministerNothing", "TestARoleThatCannotBeTaken", "TestALeaseWhicheverWayItTurnsOut"}},

		{Fact: "a wrong client id or secret is refused with 401", Switch: "InvalidClientStatus", Tests: []string{"TestClientCredentials", "TestRefusedGrants"}},
		{Fact: "the scope that is asked for narrows an access token", Switch: "ScopeIgnored", Tests: []string{"TestClientCredentials", "TestAccessToken"}},
		{Fact: "an access token's type is told", Switch: "TokenTypeAbsent", Tests: []string{"TestAccessTokenAnswers", "TestAccessTokenOnTheWire"}},
		{Fact: "myself answers for a service account", Switch: "ServiceMyself", Tests: []string{"TestServiceAccountIsLimited", "TestAccepted"}},
		{Fact: "answers to a service account carry X-AUSERNAME", Switch: "ServiceNameAbsent", Tests: []string{"TestServiceAccountIsLimited", "TestAccepted"}},
		{Fact: "an access token cannot be ended", Switch: "RevocationPath", Tests: []string{"TestRevocation", "TestRevokeAccessToken"}},
		{Fact: "to end an unknown access token is answered with 200", Switch: "RevokeUnknown400", Tests: []string{"TestRevocation", "TestRevokeAccessToken"}},
		{Fact: "a new API token works at once", Switch: "APITokenDelay", Tests: []string{"TestManageAPITokens", "TestLifeOfAnAPIToken"}},
		{Fact: "API tokens of service accounts can be made", Switch: "APITokenPostOff", Tests: []string{"TestManageAPITokens", "TestDeniedAPITokens"}},
	}
}
