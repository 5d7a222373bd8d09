package jira

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// key is a token's id as the client writes it.
func key(k jiratest.Token) string { return strconv.FormatInt(k.ID, 10) }

// TestNewTokenOnTheWire reads what Jira may answer to a mint.
func TestNewTokenOnTheWire(t *testing.T) {
	const (
		secret = "MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs"
		times  = `"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":"2026-03-03T08:15:09.417+00:00"`
		raw    = `"rawToken":"` + secret + `"`
		name   = `"name":"nightly"`
	)
	created := time.Date(2026, 3, 2, 8, 15, 9, 417_000_000, time.UTC)
	good := Token{ID: "412", Name: "nightly", Created: created, Expires: created.Add(24 * time.Hour)}
	eternal := Token{ID: "412", Name: "nightly", Created: created}
	for what, test := range map[string]struct {
		body  string
		want  Token
		wrong string // what the error says; "": none
	}{
		"as it is":          {`{"id":412,` + name + `,` + times + `,` + raw + `}`, good, ""},
		"more than that":    {` {"id":412,"new":{"x":[1]},` + name + `,` + times + `,` + raw + `} `, good, ""},
		"id as a string":    {`{"id":"412",` + name + `,` + times + `,` + raw + `}`, good, ""},
		"the greatest id":   {`{"id":9223372036854775807,` + name + `,` + raw + `}`, Token{ID: "9223372036854775807", Name: "nightly"}, ""},
		"id beyond that":    {`{"id":9223372036854775808,` + name + `,` + raw + `}`, Token{}, "its id"},
		"id as a float":     {`{"id":412.0,` + name + `,` + raw + `}`, Token{}, "its id"},
		"id with exponent":  {`{"id":4.12e2,` + name + `,` + raw + `}`, Token{}, "its id"},
		"negative id":       {`{"id":-412,` + name + `,` + raw + `}`, Token{}, "its id"},
		"id that is a path": {`{"id":"../user",` + name + `,` + raw + `}`, Token{}, "its id"},
		"id with zeros":     {`{"id":"0412",` + name + `,` + raw + `}`, Token{}, "its id"},
		"id null":           {`{"id":null,` + name + `,` + raw + `}`, Token{}, "its id"},
		"id an object":      {`{"id":{},` + name + `,` + raw + `}`, Token{}, "its id"},
		"no id":             {`{` + name + `,` + times + `,` + raw + `}`, Token{}, "its id"},

		"another name": {`{"id":412,"name":"night",` + times + `,` + raw + `}`, Token{}, `named "night" instead of "nightly"`},
		"no name":      {`{"id":412,` + times + `,` + raw + `}`, Token{}, "no name"},

		"no rawToken":           {`{"id":412,` + name + `,` + times + `}`, Token{}, "rawToken"},
		"empty rawToken":        {`{"id":412,` + name + `,` + times + `,"rawToken":""}`, Token{}, "rawToken"},
		"rawToken of two lines": {`{"id":412,` + name + `,` + times + `,"rawToken":"` + secret[:20] + `\n` + secret[20:] + `"}`, Token{}, "rawToken"},
		"rawToken with space":   {`{"id":412,` + name + `,` + times + `,"rawToken":" ` + secret + `"}`, Token{}, "rawToken"},
		"rawToken not ASCII":    {`{"id":412,` + name + `,` + times + `,"rawToken":"` + secret + `é"}`, Token{}, "rawToken"},
		"rawToken too long":     {`{"id":412,` + name + `,` + times + `,"rawToken":"` + strings.Repeat("x", 5000) + `"}`, Token{}, "rawToken"},

		"times without colon":   {`{"id":412,` + name + `,"createdAt":"2026-03-02T08:15:09.417+0000","expiringAt":"2026-03-03T08:15:09.417+0000",` + raw + `}`, good, ""},
		"times of another zone": {`{"id":412,` + name + `,"createdAt":"2026-03-02T10:15:09.417+0200","expiringAt":"2026-03-03T03:15:09.417-05:00",` + raw + `}`, good, ""},
		"expiry null":           {`{"id":412,` + name + `,"createdAt":"2026-03-02T08:15:09.417Z","expiringAt":null,` + raw + `}`, eternal, ""},
		"expiry absent":         {`{"id":412,` + name + `,"createdAt":"2026-03-02T08:15:09.417Z",` + raw + `}`, eternal, ""},
		"expiry in 9999":        {`{"id":412,` + name + `,"createdAt":"2026-03-02T08:15:09.417Z","expiringAt":"9999-12-31T23:59:59.999+00:00",` + raw + `}`, eternal, ""},
		"expiry is no time":     {`{"id":412,` + name + `,"createdAt":"2026-03-02T08:15:09.417Z","expiringAt":"tomorrow",` + raw + `}`, Token{}, "expiringAt"},
		"creation is no time":   {`{"id":412,` + name + `,"createdAt":"2026-03-02",` + raw + `}`, Token{}, "createdAt"},

		"no object":   {`[412]`, Token{}, "JSON"},
		"null":        {`null`, Token{}, "id"},
		"no JSON":     {`{"id":412,` + raw, Token{}, "JSON"},
		"two objects": {`{"id":412}{"id":413}`, Token{}, "JSON"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.Fault(jiratest.Fault{Method: "POST", Do: jiratest.Answer, Status: http.StatusCreated, Body: test.body})
			token, rawToken, err := bearer(t, s, "ci").CreateToken(t.Context(), "nightly", 1)
			if token != test.want {
				t.Errorf("got %+v, want %+v", token, test.want)
			}
			if test.wrong == "" {
				if err != nil || rawToken != secret {
					t.Errorf("got %v, %v", rawToken, err)
				}
				return
			}
			wants(t, err, Nonsense, "201", test.wrong)
			if NothingMade(err) {
				t.Error("after 201 nothing is said to be made")
			}
			if rawToken != "" || strings.Contains(err.Error(), secret[:20]) {
				t.Errorf("the secret got out: %q, %v", rawToken, err)
			}
			if s.Count("POST", "") != 1 {
				t.Errorf("%d calls", s.Count("POST", ""))
			}
		})
	}
}

// TestRawTokens: what can be sent in a header is a secret of a token.
func TestRawTokens(t *testing.T) {
	for secret, want := range map[string]bool{
		strings.Repeat("x", 4096): true, strings.Repeat("x", 4097): false,
		"!~": true, "a\u007f": false, "a b": false, "": false,
	} {
		jira := network(func(*http.Request) (*http.Response, error) {
			return answered(http.StatusCreated, `{"id":412,"name":"nightly","rawToken":"`+secret+`"}`), nil
		})
		_, have, err := jira.site(t).As(Login{Username: "ci", Token: "s3cret"}).CreateToken(t.Context(), "nightly", 1)
		if (err == nil) != want || want && have != secret {
			t.Errorf("%.10q: %.10q, %v", secret, have, err)
		}
	}
}

// TestListsOnTheWire: only a list of tokens that can be told apart shows that
// one is absent.
func TestListsOnTheWire(t *testing.T) {
	for body, want := range map[string]string{
		`[]`:                    "",
		` [ ] `:                 "",
		`[{"id":1,"name":"a"}]`: "1 a",
		`[{"id":"1","name":"a","expiringAt":"9999-01-01T00:00:00.000Z"},{"id":2,"name":"a"}]`: "1 a, 2 a",
		`null`:                    "null",
		``:                        "JSON",
		`{}`:                      "JSON",
		`{"values":[]}`:           "JSON",
		`[`:                       "JSON",
		`[][]`:                    "JSON",
		`[null]`:                  "id",
		`[{}]`:                    "id",
		`[{"name":"a"}]`:          "id",
		`[7]`:                     "JSON",
		`[{"id":1.5,"name":"a"}]`: "id",
		// Of a row no more is needed than its id.
		`[{"id":1},{"id":2,"name":null},{"id":3,"name":""},{"id":4,"name":7},{"id":5,"name":["a"]}]`:                   "1 , 2 , 3 , 4 , 5 ",
		`[{"id":1,"name":"a","createdAt":"yesterday","expiringAt":1772438400000},{"id":2,"name":"b","expiringAt":{}}]`: "1 a, 2 b",
		`[{"id":1,"name":"a","expiringAt":"+10000-01-01T00:00:00.000Z","createdAt":"-0001-01-01T00:00:00Z"}]`:          "1 a",
		`[{"id":1,"name":"` + strings.Repeat("ü", 200) + `"}]`:                                                         "1 " + strings.Repeat("ü", 127),
		`[{"id":1,"name":"a","lastAccessedAt":"yesterday"}]`:                                                           "1 a", // nothing hangs on it
	} {
		t.Run(body, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.Fault(jiratest.Fault{
				Path: tokensPath, Do: jiratest.Answer, Body: body,
				Header: http.Header{"X-Ausername": {"ci"}, "Content-Type": {"application/json"}},
			})
			list, err := bearer(t, s, "ci").Tokens(t.Context())
			if err != nil {
				wants(t, err, Nonsense, want)
				if want == "" || list != nil {
					t.Errorf("got %v, %v", list, err)
				}
				return
			}
			var have []string
			for _, k := range list {
				have = append(have, k.ID+" "+k.Name)
				if !k.Expires.IsZero() {
					t.Errorf("it expires at %v", k.Expires)
				}
			}
			if strings.Join(have, ", ") != want {
				t.Errorf("got %q, want %q", have, want)
			}
		})
	}
}

// TestListOfManyKinds: with an expiry, without one in each way to say so, and
// expired, which a Jira may list or not.
func TestListOfManyKinds(t *testing.T) {
	for name, change := range map[string]func(*jiratest.Switches){
		"default":            func(*jiratest.Switches) {},
		"Eternal absent":     func(s *jiratest.Switches) { s.Eternal = "absent" },
		"Eternal 9999":       func(s *jiratest.Switches) { s.Eternal = "9999" },
		"ExpiredNotListed":   func(s *jiratest.Switches) { s.ExpiredNotListed = true },
		"LastAccessedAtOnce": func(s *jiratest.Switches) { s.LastAccessedAtOnce = true },
		"OddRows":            func(s *jiratest.Switches) { s.OddRows = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.SetSwitches(change)
			c := bearer(t, s, "ci")
			s.Mint("ci", "for ever", 0)
			s.Mint("ci", "expired", -1)
			s.Mint("other", "not his", 1)
			want := map[string]jiratest.Token{}
			for _, k := range s.Tokens("ci") {
				want[key(k)] = k
			}
			list, err := c.Tokens(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if name == "OddRows" {
				for _, k := range list[:5] {
					if k.ID == "" || !k.Created.IsZero() || !k.Expires.IsZero() || len(k.Name) > mostName {
						t.Errorf("an odd row is read as %+v", k)
					}
				}
				list = list[5:]
				for id, w := range want { // whose times are numbers
					w.Created, w.Expires = time.Time{}, time.Time{}
					want[id] = w
				}
			}
			var names []string
			for _, k := range list {
				names = append(names, k.Name)
				if w := want[k.ID]; k.Name != w.Name || !k.Created.Equal(w.Created) || !k.Expires.Equal(w.Expires) {
					t.Errorf("got %+v, want %+v", k, w)
				}
				if used := !k.LastUsed.IsZero(); used && k.Name != "the engine's own" {
					t.Errorf("%q was used at %v", k.Name, k.LastUsed)
				}
			}
			all := "the engine's own, for ever, expired"
			if name == "ExpiredNotListed" {
				all = "the engine's own, for ever"
			}
			if strings.Join(names, ", ") != all {
				t.Errorf("got %v, want %v", names, all)
			}
		})
	}
}

// TestDeniedMints: Jira says no in many ways. None of them closes the login,
// and none leaves a doubt whether a token was made.
func TestDeniedMints(t *testing.T) {
	const forty = "vault-k3xm2a-5b2tq6hznr4wjd7c-0123456789"
	type mint struct {
		name string
		days int
	}
	for name, test := range map[string]struct {
		change func(*jiratest.Switches)
		mint   mint
		status int
	}{
		"cap":              {func(s *jiratest.Switches) { s.MaxTokens = 1 }, mint{forty, 1}, 403},
		"CapStatus":        {func(s *jiratest.Switches) { s.MaxTokens, s.CapStatus = 1, 400 }, mint{forty, 1}, 400},
		"NameLength":       {func(s *jiratest.Switches) { s.NameLength = 39 }, mint{forty, 1}, 400},
		"NamesUnique":      {func(s *jiratest.Switches) { s.NamesUnique = true }, mint{"the engine's own", 1}, 400},
		"MaxDays":          {func(s *jiratest.Switches) { s.MaxDays = 30 }, mint{forty, 31}, 400},
		"no days":          {func(*jiratest.Switches) {}, mint{forty, 0}, 400},
		"EternalOff":       {func(s *jiratest.Switches) { s.EternalOff = true }, mint{forty, 0}, 400},
		"PATMayNotMint":    {func(s *jiratest.Switches) { s.PATMayNotMint = true }, mint{forty, 1}, 403},
		"PATsOff":          {func(s *jiratest.Switches) { s.PATsOff = true }, mint{forty, 1}, 0},
		"XAUserNameAbsent": {func(s *jiratest.Switches) { s.MaxTokens, s.XAUserNameAbsent = 1, true }, mint{forty, 1}, 403},
	} {
		for _, shape := range []struct {
			name   string
			change func(*jiratest.Switches)
			words  string
		}{
			{"default", func(*jiratest.Switches) {}, ""},
			{"PATErrorsLikeRest", func(s *jiratest.Switches) { s.PATErrorsLikeRest = true }, ""},
			{"ForeignTexts", func(s *jiratest.Switches) { s.ForeignTexts = true }, "Das Token-Limit"},
		} {
			t.Run(name+" "+shape.name, func(t *testing.T) {
				s := newJira(t, jiratest.Options{})
				c := bearer(t, s, "ci")
				s.SetSwitches(test.change)
				s.SetSwitches(shape.change)
				_, _, err := c.CreateToken(t.Context(), test.mint.name, test.mint.days)
				if test.status == 0 { // such a Jira takes no token at all
					wants(t, err, Refused)
				} else {
					wants(t, err, Denied, shape.words, fmt.Sprintf(": %d denied: ", test.status))
				}
				if !NothingMade(err) || s.Count("POST", "") != 1 || len(s.Tokens("ci")) != 1 {
					t.Errorf("%v, after %d calls", err, s.Count("POST", ""))
				}
				if _, err := c.Myself(t.Context()); test.status != 0 && err != nil {
					t.Errorf("the login is closed: %v", err)
				}
			})
		}
	}
}

// TestDaysOutOfRange: a Jira may refuse them or cut them to its range, and
// the token tells which.
func TestDaysOutOfRange(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := bearer(t, s, "ci")
	_, _, err := c.CreateToken(t.Context(), "nightly", 366)
	wants(t, err, Denied, "400")
	s.SetSwitches(func(s *jiratest.Switches) { s.ClampDays = true })
	token, _, err := c.CreateToken(t.Context(), "nightly", 366)
	if err != nil || token.Expires.Sub(token.Created) != 365*24*time.Hour {
		t.Errorf("got %+v, %v", token, err)
	}
}

// TestDeniedDeletes: a token that is there, and is not ended.
func TestDeniedDeletes(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*jiratest.Switches)
		user   string // who the client is
		denied bool
	}{
		"somebody else's":     {func(*jiratest.Switches) {}, "ci", true},
		"DeleteForeignStatus": {func(s *jiratest.Switches) { s.DeleteForeignStatus = 401 }, "ci", true},
		"without a name":      {func(s *jiratest.Switches) { s.DeleteForeignStatus, s.XAUserNameAbsent = 401, true }, "ci", true},
		"administrator":       {func(*jiratest.Switches) {}, "root", false},
		"AdminOwnTokensOnly":  {func(s *jiratest.Switches) { s.AdminOwnTokensOnly = true }, "root", true},
		"own":                 {func(*jiratest.Switches) {}, "other", false},
		"PATMayNotDelete":     {func(s *jiratest.Switches) { s.PATMayNotDelete = true }, "other", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			c := bearer(t, s, test.user)
			if name == "without a name" { // a password brings another sign that it was accepted
				c = basic(t, s, password)
			}
			s.SetSwitches(test.change)
			victim, _ := s.Mint("other", "victim", 1)
			err := c.DeleteToken(t.Context(), key(victim))
			if test.denied {
				wants(t, err, Denied)
			} else if err != nil {
				t.Error(err)
			}
			alive := false
			for _, k := range s.Tokens("other") {
				alive = alive || k.ID == victim.ID
			}
			if alive != test.denied {
				t.Errorf("the token is there: %v", alive)
			}
			if _, err := c.Myself(t.Context()); err != nil {
				t.Errorf("the login is closed: %v", err)
			}
		})
	}
}

func TestIsKey(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	c := bearer(t, s, "ci")
	for id, want := range map[string]bool{
		"0": true, "412": true, "9223372036854775807": true,
		"": false, "-1": false, "+1": false, "-0": false, "01": false, "1.0": false, "1e3": false, " 1": false, "1\n": false,
		"0x1": false, "1_0": false, "٣": false, "9223372036854775808": false, "null": false, "..": false, "412/../413": false,
	} {
		if isKey(id) != want {
			t.Errorf("isKey(%q) is %v", id, !want)
		}
		if !want {
			wants(t, c.DeleteToken(t.Context(), id), Denied, "not the id of a token")
		}
	}
	if len(s.Calls()) != 0 {
		t.Errorf("%d calls were made", len(s.Calls()))
	}
}

func TestParseTime(t *testing.T) {
	want := time.Date(2026, 3, 2, 8, 15, 9, 417_000_000, time.UTC)
	for text, want := range map[string]time.Time{
		"":                              {},
		"2026-03-02T08:15:09.417+00:00": want,
		"2026-03-02T08:15:09.417+0000":  want,
		"2026-03-02T08:15:09.417Z":      want,
		"2026-03-02T10:15:09.417+0200":  want,
		"2026-03-02T08:15:09Z":          want.Truncate(time.Second),
		"2026-03-02T08:15:09+0000":      want.Truncate(time.Second),
		"2026-03-02T08:15:09.417":       {},
		"1772439309417":                 {},
		"null":                          {},
		"2026-13-02T08:15:09.417Z":      {},
	} {
		have, err := parseTime(text)
		if wrong := want.IsZero() && text != ""; !have.Equal(want) || (err != nil) != wrong {
			t.Errorf("%q: got %v, %v", text, have, err)
		}
		if err == nil && have.Location() != time.UTC {
			t.Errorf("%q is in %v", text, have.Location())
		}
	}
}

// TestMintForSomebodyElse: an answer that was given to another user is none of
// ours, and its secret is nobody's to hand out.
func TestMintForSomebodyElse(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	const body = `{"id":412,"name":"nightly","rawToken":"MzkwNTU4Mzk3OTA3OpDhaKBEU8TxqWoeq7YHb42pjeXs"}`
	s.Fault(jiratest.Fault{Method: "POST", Do: jiratest.Answer, Status: http.StatusCreated, Header: http.Header{"X-Ausername": {"other"}}, Body: body})
	_, secret, err := bearer(t, s, "ci").CreateToken(t.Context(), "nightly", 1)
	wants(t, err, Nonsense, "given to")
	if secret != "" || NothingMade(err) {
		t.Errorf("got %q, nothing made: %v", secret, NothingMade(err))
	}
}

// TestMintWhoseOwnerIsNotTold: a token that was made is not said not to be because
// Jira turns the call away that asks whose it is. Its owner was renamed.
func TestMintWhoseOwnerIsNotTold(t *testing.T) {
	for status, want := range map[int]Kind{401: Refused, 403: Denied, 429: Busy, 503: Down} {
		s := newJira(t, jiratest.Options{})
		c := bearer(t, s, "ci")
		s.SetUser("ci", func(u *jiratest.User) { u.Name = "ci-bot" })
		s.Fault(jiratest.Fault{Path: myselfPath, Do: jiratest.Answer, Status: status, Body: "{}"})
		_, _, err := c.CreateToken(t.Context(), "nightly", 1)
		wants(t, err, want, "POST", "201", "cannot tell to whom", fmt.Sprint(status))
		if NothingMade(err) || failure(t, err).Status != 201 || failure(t, err).Until.IsZero() != (status != 429) {
			t.Errorf("%+v; nothing made: %v", failure(t, err), NothingMade(err))
		}
	}
}

// TestDeleteGoesFirst: where calls are short of room, what ends a token goes
// before what makes one, though it came later.
func TestDeleteGoesFirst(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	k, _ := s.Mint("ci", "nightly", 1)
	gate := NewGate(1)
	_, secret := s.Mint("ci", "the engine's own", 30)
	c := newSite(t, s, Options{Gate: gate}).As(Login{Username: "ci", Token: secret})
	s.ResetCalls()
	// Somebody holds the only place until both wait.
	if err := gate.enter(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	waiting := func(n int) {
		for {
			gate.mu.Lock()
			have := len(gate.urgent) + len(gate.others)
			gate.mu.Unlock()
			if have == n {
				return
			}
			runtime.Gosched()
		}
	}
	var calls sync.WaitGroup
	calls.Go(func() {
		if _, _, err := c.CreateToken(t.Context(), "second", 1); err != nil {
			t.Error(err)
		}
	})
	waiting(1)
	calls.Go(func() {
		if err := c.DeleteToken(t.Context(), key(k)); err != nil {
			t.Error(err)
		}
	})
	waiting(2)
	gate.leave(nil, false, 0)
	calls.Wait()
	if made := s.Calls(); len(made) != 2 || made[0].Method != "DELETE" {
		t.Errorf("calls %v", made)
	}
}
