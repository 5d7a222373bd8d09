package jiratest

import "time"

// Switches are what an administrator may have set and what is unconfirmed of a real Jira, one field each. The zero value of
// each is the default; what the other values mean stands beside it. Times are by Jira's clock.
type Switches struct {
	// The settings of personal access tokens.

	PATsOff    bool // tokens are switched off: none works, and their API answers 403
	MaxTokens  int  // how many tokens a user may have; 0: 10, negative: no end
	MaxDays    int  // the longest life in days; 0: 365
	NameLength int  // the longest name in characters; 0: 40
	EternalOff bool // a token must have an expiry

	// What is unconfirmed of them.

	CapStatus           int           // status of the refusal at the cap; 0: 403, else 400
	ExpiredDoNotCount   bool          // expired tokens leave the cap at once; default: when they are pruned
	ExpiredNotListed    bool          // expired tokens leave the list at once; default: when they are pruned
	ExpiredKept         time.Duration // how long after its expiry a token is pruned; 0: 30 days
	NamesUnique         bool          // a second token of the same name of a user is refused with 400
	ClampDays           bool          // a life out of range is cut to the range; default: 400
	Eternal             string        // how a token without expiry shows expiringAt: "" null, "absent", "9999"
	IDString            bool          // ids are JSON strings; default: numbers
	FirstID             int64         // the first token's id, set before the first; 0: 412
	OddRows             bool          // lists show times as numbers, and rows of a kind that nobody knows before the others
	TimesNoColon        bool          // times end in +0000; default: +00:00
	LastAccessedAtOnce  bool          // lastAccessedAt is exact; default: written once a minute
	PostStatus          int           // status of a mint; 0: 201, else 200
	GetUnknownJSON      bool          // GET of an unknown token has a JSON body; default: an empty one
	DeleteUnknownStatus int           // status of the DELETE of an unknown token; 0: 404, else 204
	DeleteForeignStatus int           // status of the DELETE of somebody else's; 0: 403, else 401
	AdminOwnTokensOnly  bool          // an administrator cannot see or delete others' tokens
	PATMayNotMint       bool          // a token cannot make tokens, only a password can
	PATMayNotDelete     bool          // a token can delete itself and no other
	DeleteTakesSiblings bool          // the DELETE of a token takes along those that it minted
	DeleteLag           time.Duration // how long a deleted token goes on working
	ListLag             time.Duration // how long a new token is missing from lists, and a deleted one stays on them
	NoVersion10         bool          // there is no /rest/pat/1.0, only latest
	PATErrorsLikeRest   bool          // errors of the token API look like those of /rest/api/2
	ForeignTexts        bool          // error texts of the token API are not English

	// Logging in.

	XAUserNameAbsent   bool     // answers carry no X-AUSERNAME
	XAUserNameRaw      bool     // X-AUSERNAME shows a@b as it is; default: a%40b
	LoginCaseSensitive bool     // a login must be spelt as it was made
	BasicOff           bool     // Basic authentication is switched off, as Jira 11 is said to ship
	BasicAllowed       []string // users who may use it all the same
	BasicPaths         []string // what paths begin with that everybody may use it for all the same
	CaptchaAfter       int      // wrong passwords until the CAPTCHA; 0: 3, negative: never
	XSRFOff            bool     // nothing is refused for lack of X-Atlassian-Token
	ServerInfoLogin    bool     // serverInfo answers 401 to anonymous

	// Service accounts, of Jira 11 and later.

	InvalidClientStatus int           // status of a wrong client id or secret; 0: 401, else 400
	ScopeIgnored        bool          // a token has all scopes of its account, whatever was asked for
	ExpiresIn           string        // what expires_in is, as JSON, instead of the truth; "absent": it is not there
	TokenTypeAbsent     bool          // there is no token_type
	ServiceMyself       int           // status of myself for a service account, which is no user; 0: 200
	ServiceNameAbsent   bool          // answers to a service account carry no X-AUSERNAME
	RevocationPath      string        // where an access token can be ended as RFC 7009 has it; "": nowhere
	APITokenDelay       time.Duration // Cloud: how long it takes until a new API token works
	APITokenPostOff     bool          // Cloud: API tokens of service accounts cannot be made
	RevokeUnknown400    bool          // to end an unknown access token is 400 invalid_token; default: 200

	// Limits and weather.

	RateLimit        int           // how many calls under /rest a user may save up; 0: no limit
	RateFill         int           // how many calls an interval gives back; 0: RateLimit
	RateInterval     time.Duration // 0: a minute
	RetryAfterAbsent bool          // a 429 has no Retry-After, as from some gateways
	RetryAfterZero   bool          // a 429 has Retry-After: 0, as from some gateways
	Date             string        // what the header Date says; "": Jira's clock, "absent": there is none
	NotMounted       []string      // what paths begin with where nothing is mounted: 404 in JSON, as Atlassian's REST answers whoever logs in
	State            string        // what /status says; "": RUNNING. MAINTENANCE comes with 503, ERROR with 500

	// Users.

	DirectoryReadOnly  bool          // users come from a directory that Jira cannot write: adding one is 400
	GroupsReadOnly     bool          // so do groups: adding a member and taking one out is 400
	DeleteBusyUsers    bool          // a user who reported issues can be deleted; default: 400
	Seats              int           // how many active users may use an application: to make one more is 400; 0: no limit
	UserLag            time.Duration // how long GET of a user answers 404 after a call has made him
	UnknownGroupStatus int           // status of adding to a group that is not there; 0: 404, else 400
	NotMemberStatus    int           // status of taking somebody out of a group he is not in; 0: 404, else 400
	RoleNobodyStatus   int           // status of giving a project role to a user who is not there, and of taking it; 0: 410, else 400 or 404
	RoleWithoutStatus  int           // status of taking a project role from a user who does not have it; 0: 404, else 204, 400 or 410
	RoleLockedStatus   int           // status of changing the roles of a project that the caller sees and does not administer; 0: 404, else 403
}
