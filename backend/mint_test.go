package backend

import (
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// Every way in which the answer to a mint can be bad: a clear error of the
// right status, and no token left.
func TestAMintInBadWeather(t *testing.T) {
	other := jiratest.New(t, jiratest.Options{})
	for _, tt := range []struct {
		name   string
		fault  jiratest.Fault
		status int
		words  string
		intent bool // Jira could not be asked whether it made it
	}{
		{"connection lost before", jiratest.Fault{Do: jiratest.LoseCall}, 503, "unavailable", true},
		{"connection lost after", jiratest.Fault{Do: jiratest.LoseAnswer}, 503, "unavailable", false},
		{"no answer", jiratest.Fault{Do: jiratest.Hang}, 503, "no complete answer in time", true},
		{"no answer after", jiratest.Fault{Do: jiratest.HangAfter}, 503, "no complete answer in time", false},
		{"body cut", jiratest.Fault{Do: jiratest.CutBody}, 502, "cut short", false},
		{"body of 100 MB", jiratest.Fault{Do: jiratest.Huge}, 502, "longer than", false},
		{"502 before", jiratest.Fault{Do: jiratest.Answer, Status: 502, Body: "<html><title>Bad Gateway</title></html>"}, 503, "Bad Gateway", true},
		{"502 after", jiratest.Fault{Do: jiratest.AnswerAfter, Status: 502}, 503, "502", false},
		{"500 after", jiratest.Fault{Do: jiratest.AnswerAfter, Status: 500, Body: `{"message":"boom"}`}, 503, "boom", false},
		{"a login page", jiratest.Fault{Do: jiratest.HTML200}, 502, "web page", true},
		{"an HTML 404", jiratest.Fault{Do: jiratest.HTML404}, 502, "context path", true},
		{"a redirect", jiratest.Fault{Do: jiratest.Redirect, Target: other.URL()}, 502, "redirect to " + strings.TrimSuffix(other.URL(), "/jira"), true},
		{"200 with nonsense", jiratest.Fault{Do: jiratest.AnswerAfter, Status: 201, Body: `[]`}, 502, "not the JSON", false},
		{"a token that ended before it began", jiratest.Fault{Do: jiratest.AnswerAfter, Status: 201, Body: `{"id":1,"name":"vault-x","rawToken":"x","createdAt":"9000-01-01T00:00:00Z","expiringAt":"0001-01-01T00:00:01Z"}`}, 502, "", false},
		{"a token without secret", jiratest.Fault{Do: jiratest.AnswerAfter, Status: 201, Body: `{"id":1,"name":"vault-x"}`}, 502, "rawToken", false},
		{"400", jiratest.Fault{Do: jiratest.Answer, Status: 400, Body: `{"errorMessages":["no such life"]}`}, 400, "no such life", false},
		{"401", jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: `{"message":"who are you"}`}, 400, "who are you", false},
		{"403", jiratest.Fault{Do: jiratest.Answer, Status: 403, Body: `{"message":"not you"}`}, 400, "not you", false},
		{"429 for ever", jiratest.Fault{Do: jiratest.Answer, Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, 503, "pause in calls until", false},
		{"anonymous", jiratest.Fault{Do: jiratest.Anonymous}, 400, "login refused", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := configured(t, jiratest.Options{})
			if strings.HasPrefix(tt.name, "no answer") { // nothing else is to be cut off
				e.write("config", map[string]any{"request_timeout": "1s"})
			}
			tt.fault.Method, tt.fault.Path = "POST", tokensAPI
			e.jira.Fault(tt.fault)
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
			e.failed(tt.status, resp, err, tt.words)
			if names := e.alive(); len(names) > 0 {
				t.Errorf("alive in Jira: %v", names)
			}
			records := e.records("")
			if (len(records) == 1) != tt.intent {
				t.Errorf("records in the ledger: %v", records)
			}
			if tt.intent {
				// A late request may still make it, but it takes no place.
				if n := e.ledger.Held("ci-bot"); n != 0 {
					t.Errorf("%d places taken", n)
				}
			}
		})
	}
	if n := len(other.Calls()); n != 0 {
		t.Errorf("the other host saw %d calls", n)
	}
}

func TestAMintWhoseAnswerIsLostAndJiraIsAwayKeepsItsIntent(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Leave()
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.LoseAnswer})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Do: jiratest.Answer, Status: 503})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)

	ids := e.records("ci-bot")
	if len(ids) != 1 {
		t.Fatalf("records %v", ids)
	}
	e.mount() // and it is still there for whoever comes after a crash
	r, err := e.ledger.Read(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if names := e.alive(); r.State != ledger.Intended || len(names) != 1 || names[0] != r.Name {
		t.Errorf("record %+v, alive %v", r, names)
	}
	if n := e.ledger.Held("ci-bot"); n != 1 {
		t.Errorf("%d places taken", n)
	}
}

func TestA429IsWaitedFor(t *testing.T) {
	for _, header := range []http.Header{{"Retry-After": {"1"}}, {"Retry-After": {"0"}}, {}} {
		t.Run(fmt.Sprint(header), func(t *testing.T) {
			t.Parallel()
			e := configured(t, jiratest.Options{})
			e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.Answer, Status: 429, Header: header})
			e.revoke(e.issue("readonly", nil).Secret)
			if n := e.jira.Count("POST", tokensAPI); n != 2 {
				t.Errorf("%d mints", n)
			}
		})
	}
}

func TestJiraThatIsDown(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.jira.Close()
	e.refuses(503, logical.ReadOperation, "creds/readonly", nil, "unavailable", "check url")
	e.nothingHeld()
}

func TestRoomForTokens(t *testing.T) {
	e := configured(t, jiratest.Options{})
	password := "correct horse battery"
	e.jira.SetUser("release-bot", func(u *jiratest.User) { u.Password = password })
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "password": password})
	e.write("roles/release", map[string]any{"accounts": "release-bot"})

	for role, room := range map[string]int{"readonly": 8, "release": 10} {
		var secrets []*logical.Secret
		var mu sync.Mutex
		var readers sync.WaitGroup
		var refused []error
		for range room + 5 {
			readers.Go(func() {
				resp, err := e.request(t.Context(), logical.ReadOperation, "creds/"+role, nil)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					refused = append(refused, err)
					return
				}
				secrets = append(secrets, resp.Secret)
			})
		}
		readers.Wait()
		if len(secrets) != room || len(refused) != 5 {
			t.Errorf("role %s: %d tokens and %d refusals, want %d and 5", role, len(secrets), len(refused), room)
		}
		for _, err := range refused {
			e.failed(429, nil, err, fmt.Sprintf("holds %d of the %d", room, room), "atlassian.pats.max.tokens.per.user")
		}
		for _, s := range secrets {
			e.revoke(s)
		}
	}
	e.nothingHeld()
}

// Somebody else's tokens can fill the account, or Jira's cap be lower than
// the operator says. Jira tells it in its users' language.
func TestTheCapOfJira(t *testing.T) {
	for _, tt := range []struct {
		name     string
		switches jiratest.Switches
		status   int
	}{
		{"full", jiratest.Switches{}, 429},
		{"full, said with 400", jiratest.Switches{CapStatus: 400}, 429},
		{"full, in another language", jiratest.Switches{ForeignTexts: true}, 429},
		{"a lower cap", jiratest.Switches{MaxTokens: 3}, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := configured(t, jiratest.Options{Switches: tt.switches})
			for range 9 {
				e.pat("ci-bot")
			}
			if tt.switches.MaxTokens > 0 {
				for _, tok := range e.jira.Tokens("ci-bot")[3:] {
					e.jira.Delete(tok.ID)
				}
			}
			e.refuses(tt.status, logical.ReadOperation, "creds/readonly", nil, "owns", "atlassian.pats.max.tokens.per.user")
			e.nothingHeld()
		})
	}
}

// A request that lands after its caller has given up makes a token that
// nobody asked for any more; the ledger still knows its name.
func TestAMintThatLandsLate(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("config", map[string]any{"request_timeout": "1s"})
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Do: jiratest.LateEffect})
	// It lands after the engine has looked for it, too.
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Nth: 1, Do: jiratest.Answer, Status: 200, Header: http.Header{"X-Ausername": {"ci-bot"}}, Body: "[]"})
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err)
	e.jira.WaitLate()
	if r, names := e.record(), e.alive(); r.State != ledger.Intended || len(names) != 1 || names[0] != r.Name {
		t.Errorf("record %+v, alive %v", r, names)
	}
	e.settleAccounts(t.Context(), true, "ci-bot")
	e.nothingHeld()
}

// A role with several accounts takes the one with the most room.
func TestAMintGoesWhereTheRoomIs(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/both", map[string]any{"accounts": "ci-bot,release-bot"})
	for range 16 {
		resp := e.issue("both", nil)
		t.Cleanup(func() { e.revoke(resp.Secret) })
	}
	if a, b := e.ledger.Held("ci-bot"), e.ledger.Held("release-bot"); a != 8 || b != 8 {
		t.Errorf("held %d and %d", a, b)
	}
	e.refuses(429, logical.ReadOperation, "creds/both", nil, `"ci-bot"`, `"release-bot"`)
}

// An account that does not work does not take its role along.
func TestARoleOutlivesOneOfItsAccounts(t *testing.T) {
	for name, breakIt := range map[string]func(*engine){
		"its token is deleted": func(e *engine) { e.jira.Delete(e.jira.Tokens("release-bot")[0].ID) },
		"it is not active":     func(e *engine) { e.jira.SetUser("release-bot", func(u *jiratest.User) { u.Inactive = true }) },
		"it is full of others' tokens": func(e *engine) {
			for range 9 {
				e.pat("release-bot")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
			e.write("roles/both", map[string]any{"accounts": "release-bot,ci-bot"})
			breakIt(e)
			var secrets []*logical.Secret
			for range 8 {
				secrets = append(secrets, e.issue("both", nil).Secret)
			}
			if a, b := e.ledger.Held("ci-bot"), e.ledger.Held("release-bot"); a != 8 || b != 0 {
				t.Errorf("held %d and %d", a, b)
			}
			// With none left, all that is wrong is told.
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/both", nil)
			if err == nil {
				t.Fatal("a ninth token for ci-bot")
			}
			if text := err.Error(); !strings.Contains(text, `as account "release-bot"`) || !strings.Contains(text, `account "ci-bot" holds 8`) {
				t.Errorf("%v %v", resp, err)
			}
			for _, s := range secrets {
				e.revoke(s)
			}
			e.nothingHeld()
		})
	}
}

// Where it is not certain that nothing was made, one try has to be enough.
func TestNoSecondAccountAfterAnUnclearAnswer(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/both", map[string]any{"accounts": "release-bot,ci-bot"})
	e.jira.ResetCalls()
	page := jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.AnswerAfter, Status: 401, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html></html>"}
	e.jira.Fault(page)
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/both", nil)
	e.failed(400, resp, err, "401")
	if n := e.jira.Count("POST", tokensAPI); n != 1 {
		t.Errorf("%d mints", n)
	}
	// The login rests now, so the token is found once it is written again.
	e.write("accounts/release-bot", map[string]any{"token": e.pat("release-bot")})
	e.settleAccounts(t.Context(), true, "release-bot")
	e.nothingHeld()
}

// What Jira says of the token decides how long the lease can be.
func TestALeaseIsNeverLongerThanItsToken(t *testing.T) {
	e := configured(t, jiratest.Options{Switches: jiratest.Switches{MaxDays: 1, ClampDays: true}})
	e.write("roles/long", map[string]any{"accounts": "ci-bot", "ttl": "48h", "max_ttl": "72h"})
	resp := e.issue("long", nil)
	if want := 24*time.Hour - ledger.Grace; resp.Secret.TTL != want || resp.Secret.MaxTTL != want {
		t.Errorf("lease %+v, want %v", resp.Secret.LeaseOptions, want)
	}
	if len(resp.Warnings) == 0 {
		t.Error("no warning")
	}
	e.revoke(resp.Secret)
}

func TestFit(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		token jira.Token
		want  time.Duration // 0: refused
	}{
		"as asked":               {jira.Token{Created: now, Expires: now.Add(48 * time.Hour)}, 24 * time.Hour},
		"cut to a day":           {jira.Token{Created: now, Expires: now.Add(24 * time.Hour)}, 24*time.Hour - ledger.Grace},
		"Jira's clock is ahead":  {jira.Token{Created: now.Add(time.Hour), Expires: now.Add(25 * time.Hour)}, 24*time.Hour - ledger.Grace},
		"Jira's clock is behind": {jira.Token{Created: now.Add(-time.Hour), Expires: now.Add(23 * time.Hour)}, 24*time.Hour - ledger.Grace},
		"no creation":            {jira.Token{Expires: now.Add(12 * time.Hour)}, 12*time.Hour - ledger.Grace},
		"never":                  {jira.Token{Created: now}, 24 * time.Hour},
		"too short":              {jira.Token{Created: now, Expires: now.Add(ledger.Grace)}, 0},
		"in the past":            {jira.Token{Created: now, Expires: now.Add(-time.Hour)}, 0},
		"in the year 1":          {jira.Token{Created: now, Expires: time.Time{}.Add(time.Second)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mint{terms: terms{ttl: 24 * time.Hour, max: 24 * time.Hour}}
			err := m.fit(tt.token, now)
			switch {
			case tt.want == 0 && status(err) != 502:
				t.Errorf("got %v", err)
			case tt.want != 0 && (err != nil || near(m.ttl, tt.want) != nil || m.ttl > m.max):
				t.Errorf("got %v, %v; want %v", m.terms, err, tt.want)
			}
		})
	}
}

// A credential that somebody gives up while Jira makes it is not handed out, and ends.
func TestAMintThatIsGivenUp(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.revoke(e.issue("readonly", nil).Secret) // the first makes the mount's id
	e.jira.Fault(jiratest.Fault{Method: "POST", Times: -1, Do: jiratest.Slow, Delay: 50 * time.Millisecond})
	for range 20 { // until nothing has held us up for longer than Jira
		intended := make(chan string, 1)
		told := func(key string) {
			select {
			case intended <- key:
			default: // issued, already
			}
		}
		e.storage.stored.Store(&told)
		done := make(chan error, 1)
		go func() {
			_, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
			done <- err
		}()
		id := path.Base(<-intended)
		e.storage.stored.Store(nil)
		if err := e.ledger.Owe(t.Context(), id, ""); err != nil {
			t.Fatal(err)
		}
		err := <-done
		e.settled()
		if err == nil {
			continue
		}
		e.failed(503, nil, err, "given up while it was made")
		e.nothingHeld()
		return
	}
	t.Error("it was never in time")
}
