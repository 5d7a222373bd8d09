package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// tended has what is rotated looked after, and Jira asked for what is owed.
func (e *engine) tended() {
	e.t.Helper()
	if err := e.tend(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	e.settled()
}

// dismantled deletes all that there is: it ends what the engine has made for itself.
func (e *engine) dismantled() {
	e.t.Helper()
	for _, path := range []string{"static-roles/", "roles/", "accounts/"} {
		names, err := e.storage.List(e.t.Context(), path)
		if err != nil {
			e.t.Fatal(err)
		}
		for _, name := range names {
			e.must(logical.DeleteOperation, path+name, nil)
		}
	}
	e.must(logical.DeleteOperation, "config", nil)
	e.settled()
	e.nothingHeld()
}

// own is the token that the engine logs in with as an account.
func (e *engine) own(account string) string {
	e.t.Helper()
	a, err := e.loadAccount(e.t.Context(), account)
	if err != nil {
		e.t.Fatal(err)
	}
	return a.Token
}

// liveTokens are the names of a user's tokens that work.
func (e *engine) liveTokens(user string) []string {
	names := []string{}
	for _, t := range e.jira.Tokens(user) {
		if t.Live {
			names = append(names, t.Name)
		}
	}
	return names
}

// rotatable is configured, and takes apart what it has at the end.
func rotatable(t *testing.T, o jiratest.Options) *engine {
	e := configured(t, o)
	t.Cleanup(func() {
		if !t.Failed() {
			e.jira.ClearFaults()
		}
	})
	return e
}

// bringsOneOfTwo gives account name the second token of its user, who keeps the first: the
// engine cannot tell which of them it was given.
func (e *engine) bringsOneOfTwo(name string) {
	e.t.Helper()
	resp := e.write("accounts/"+name, map[string]any{"token": e.pat(name)})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "which of them was given is not known") {
		e.t.Errorf("answered %+v", resp)
	}
	e.jira.ResetCalls()
}

func (e *engine) rotate(path string) *logical.Response {
	e.t.Helper()
	return e.must(logical.UpdateOperation, path, nil)
}

// TestALastTokenThatCannotBeEndedYet: while storage takes no writes, the user's tokens are
// not listed again and again to find the last one.
func TestALastTokenThatCannotBeEndedYet(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	brought := e.own("ci-bot")
	e.rotate("rotate-account/ci-bot")
	e.pass(10 * time.Minute)
	broken := func(op, _ string) error {
		if op == "put" {
			return errors.New("storage is away")
		}
		return nil
	}
	e.storage.fail.Store(&broken)
	e.jira.ResetCalls()
	e.rotations.tends = false

	for range 20 { // turns of the worker, at one moment
		if e.rotations.turn(e.now()) {
			_ = e.tend(t.Context())
			e.rotations.turned()
		}
	}
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	e.rotations.tends = true
	e.storage.fail.Store(nil)
	e.pass(tendInterval)
	e.tended()
	if e.call(brought) == http.StatusOK {
		t.Error("the last token is alive")
	}
	e.dismantled()
}

// A token is replaced by the next, which nobody is told, and ends when the overlap
// is over: one that was brought only if its id is known, told by the operator or because
// it is the user's only one.
func TestRotatingATokenOfAnAccount(t *testing.T) {
	for _, how := range []string{"told", "only", "not"} {
		known := how != "not"
		t.Run(how+" known", func(t *testing.T) {
			e := rotatable(t, jiratest.Options{})
			if how != "only" {
				e.bringsOneOfTwo("ci-bot")
			}
			brought := e.own("ci-bot")
			if how == "told" {
				e.write("accounts/ci-bot", map[string]any{"own_token_id": fmt.Sprint(e.jira.Tokens("ci-bot")[1].ID)})
			}
			if at := e.read("accounts/ci-bot")["credential_expires_at"]; (at != "") != known {
				t.Errorf("the token that was brought expires at %q", at)
			}
			lease := e.issue("readonly", nil)
			e.jira.ResetCalls()
			resp := e.rotate("rotate-account/ci-bot")
			warned := resp != nil && strings.Contains(strings.Join(resp.Warnings, " "), `"made by hand"; delete it by hand`)
			if warned == known {
				t.Errorf("answered %+v", resp)
			}
			if n := len(e.jira.Calls()); n != 3 { // list, mint, prove
				t.Errorf("%d calls: %v", n, e.jira.Calls())
			}
			first := e.own("ci-bot")
			if first == brought || e.call(first) != http.StatusOK || e.call(brought) != http.StatusOK {
				t.Fatal("not both work in the overlap")
			}
			got := e.read("accounts/ci-bot")
			if got["last_rotated"] == "" || got["last_error"] != "" || got["held"] != 1 || got["room"] != 7 || got["credential_kind"] != "token" || got["own_token_id"] != "" {
				t.Errorf("the account reads %v", got)
			}
			if strings.Contains(fmt.Sprint(got, resp), first) {
				t.Error("the new token is told")
			}
			e.pass(time.Minute)
			e.tended()
			if e.call(brought) != http.StatusOK {
				t.Error("ended before the overlap is over")
			}
			e.pass(5 * time.Minute)
			e.tended()
			if works := e.call(brought) == http.StatusOK; works == known {
				t.Errorf("the one that was brought works: %v", works)
			}
			// From now on the engine knows its own.
			if resp := e.rotate("rotate-account/ci-bot"); resp != nil {
				t.Errorf("answered %+v", resp)
			}
			second := e.own("ci-bot")
			e.pass(6 * time.Minute)
			e.tended()
			if e.call(first) == http.StatusOK || e.call(second) != http.StatusOK {
				t.Error("the first lives, or the second does not")
			}
			e.revoke(lease.Secret)
			e.dismantled()
			if e.call(second) == http.StatusOK {
				t.Error("the token outlives its account")
			}
		})
	}
}

// A password is replaced by one that the policy makes. Who calls meanwhile gets in.
func TestRotatingAPassword(t *testing.T) {
	e := start(t, jiratest.Options{Switches: jiratest.Switches{CaptchaAfter: 2}})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	brought := e.passwordOf("ci-bot")
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "password": brought, "max_tokens": 40})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h"})
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.MaxTokens = 40 })
	e.jira.ResetCalls()
	if resp := e.rotate("rotate-account/ci-bot"); resp != nil {
		t.Errorf("answered %+v", resp)
	}
	if n := len(e.jira.Calls()); n != 3 { // who am I, change, who am I
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	now := e.passwordOf("ci-bot")
	if now == brought || len(now) < 20 {
		t.Errorf("the password is %q", now)
	}
	var all sync.WaitGroup
	leases := make([]*logical.Response, 20)
	for i := range leases {
		all.Go(func() {
			if i == 10 {
				if _, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil); err != nil {
					t.Error(err)
				}
			}
			var err error
			if leases[i], err = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if e.passwordOf("ci-bot") == now {
		t.Error("it was not changed")
	}
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
	e.mount() // what is stored works
	e.rotate("rotate-account/ci-bot")
	e.dismantled()
}

func (e *engine) passwordOf(user string) string {
	for _, u := range e.jira.Users() {
		if u.Name == user {
			return u.Password
		}
	}
	e.t.Fatalf("there is no %s", user)
	return ""
}

// The config's administrator is rotated as an account is, and goes on making users.
func TestRotatingTheRoot(t *testing.T) {
	for _, kind := range []string{"token", "password"} {
		t.Run(kind, func(t *testing.T) {
			e := throwaway(t, jiratest.Options{})
			e.refuses(400, logical.UpdateOperation, "config", map[string]any{"own_token_id": "4711"}, "own_token_id")
			if kind == "password" {
				e.write("config", map[string]any{"password": e.passwordOf("jira-admin")})
			}
			before, err := e.loadConfig(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lease := e.issue("deploy", nil)
			e.rotate("rotate-root")
			now, err := e.loadConfig(t.Context())
			if err != nil || now.Admin.Token+now.Admin.Password == before.Admin.Token+before.Admin.Password {
				t.Fatalf("not rotated: %v", err)
			}
			if got := e.read("config"); got["last_rotated"] == "" || got["credential_kind"] != kind {
				t.Errorf("config reads %v", got)
			}
			e.revoke(lease.Secret)
			e.issue("deploy", nil)
			e.pass(2 * time.Hour)
			e.tended()
			if left := e.people(); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			e.rotate("rotate-root")
			e.pass(time.Hour)
			e.tended()
			e.dismantled()
			// The token that was brought is ended as well.
			if live := e.liveTokens("jira-admin"); kind == "token" && len(live) != 0 {
				t.Errorf("the administrator has %v", live)
			}
		})
	}
}

// What cannot be rotated is refused, and says what to do instead.
func TestWhatCannotBeRotated(t *testing.T) {
	e := rotatable(t, jiratest.Options{Version: "11.0.0"})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	e.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret})
	write := logical.Operation(logical.UpdateOperation)
	for _, tt := range []struct {
		path string
		data map[string]any
		says string
	}{
		{"rotate-root", nil, "no admin credential"},
		{"rotate-account/nobody", nil, `no account "nobody"`},
		{"rotate-account/a%20b", nil, "cannot be the name"},
		{"rotate-account/reporting", nil, "as client_secret"},
		{"rotate-role/nobody", nil, "no static role"},
		{"accounts/reporting", map[string]any{"rotation_period": "24h"}, "no documented call"},
		{"accounts/ci-bot", map[string]any{"rotation_period": "1s"}, "1h0m0s is the least"},
		{"accounts/ci-bot", map[string]any{"rotation_period": "59m59s"}, "1h0m0s is the least"},
		{"accounts/ci-bot", map[string]any{"rotation_period": "-1h"}, "negative"},
		{"accounts/ci-bot", map[string]any{"rotation_period": "1h", "overlap": "30m"}, "less than half"},
		{"accounts/ci-bot", map[string]any{"overlap": "-1s"}, "overlap"},
		{"accounts/ci-bot", map[string]any{"overlap": "169h"}, "overlap"},
		{"accounts/ci-bot", map[string]any{"rotation_period": "2h", "rotation_schedule": "0 3 * * *"}, "one of them"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "sometimes"}, "five fields"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "* * * * *"}, "is the least"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "0,30 3 * * *"}, "is the least"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "0 0 31 2 *"}, "no time that ever comes"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "@every 2h"}, "five fields"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "TZ=UTC"}, "five fields"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "TZ=Asia/Tokyo 0 3 * * *"}, "five fields"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "@daily"}, "five fields"},
		{"accounts/ci-bot", map[string]any{"rotation_window": "2h"}, "is for rotation_schedule"},
		{"accounts/ci-bot", map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "10m"}, "1h0m0s is the least"},
		{"accounts/ci-bot", map[string]any{"exclusive": true}, "rotate-account"},
		{"static-roles/s", map[string]any{"rotation_period": "24h"}, "account is missing"},
		{"static-roles/s", map[string]any{"account": "ci-bot"}, "rotation_period or rotation_schedule is missing"},
		{"static-roles/s", map[string]any{"account": "nobody", "rotation_period": "24h"}, `no account "nobody"`},
		{"static-roles/s", map[string]any{"account": "reporting", "rotation_period": "24h"}, "type user"},
		{"static-roles/s", map[string]any{"account": "ci-bot", "rotation_period": "8761h"}, "max_token_days"},
		{"static-roles/a b", map[string]any{"account": "ci-bot", "rotation_period": "24h"}, "cannot be the name"},
	} {
		e.refuses(400, write, tt.path, tt.data, tt.says)
	}
	cloud, _ := apiTokens(t, jiratest.Switches{})
	cloud.refuses(400, write, "rotate-root", nil, "organisation")
	cloud.refuses(400, write, "rotate-account/ci", nil, "config's token")
	cloud.refuses(400, write, "config", map[string]any{"rotation_period": "24h"}, "organisation")
	empty := start(t, jiratest.Options{})
	empty.refuses(400, write, "rotate-root", nil, "not configured")
}

// A rotation that Jira does not let happen changes nothing, and what is in use stays.
func TestARotationThatFails(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	// The user owns as many tokens as he may.
	for range 9 {
		e.jira.Mint("ci-bot", "a person's", 9)
	}
	e.refuses(429, logical.UpdateOperation, "rotate-account/ci-bot", nil, "owns 10 tokens and max_tokens is 10")
	for _, tok := range e.jira.Tokens("ci-bot")[1:] {
		e.jira.Delete(tok.ID)
	}
	// Jira's cap is lower than max_tokens says.
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.MaxTokens = 1 })
	e.refuses(400, logical.UpdateOperation, "rotate-account/ci-bot", nil, "403", "owns 1 tokens")
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.MaxTokens = 0 })
	if why := e.read("accounts/ci-bot")["last_error"]; !strings.Contains(fmt.Sprint(why), "403") {
		t.Errorf("last_error %q", why)
	}
	// With a password: Basic is off, Jira is locked, Jira does not like what the policy makes.
	e.write("accounts/ci-bot", map[string]any{"password": e.passwordOf("ci-bot")})
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.BasicOff = true })
	e.refuses(400, logical.UpdateOperation, "rotate-account/ci-bot", nil, "Basic")
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.BasicOff = false })
	remove := e.jira.Fault(jiratest.Fault{Method: "PUT", Do: jiratest.Answer, Status: 400, Body: `{"errors":{"password":"too long"}}`})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
	e.failed(400, resp, err, "password_policy", "too long")
	remove()
	if a, _ := e.loadAccount(t.Context(), "ci-bot"); a.Next != "" {
		t.Error("the password that Jira refused is kept")
	}
	e.revoke(e.issue("readonly", nil).Secret)
	remove = e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/rest/api/2/myself", Do: jiratest.Answer, Status: 403, Header: http.Header{"X-Authentication-Denied-Reason": {"CAPTCHA_CHALLENGE; login-url=x"}}})
	e.refuses(400, logical.UpdateOperation, "rotate-account/ci-bot", nil, "locked this user")
	remove()
	e.dismantled()
}

// Two at once: one rotates, the other is told that. And no mint fails meanwhile.
func TestRotationsAndMintsAtOnce(t *testing.T) {
	e := rotatable(t, jiratest.Options{Switches: jiratest.Switches{MaxTokens: 60}})
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 60})
	var all sync.WaitGroup
	var mu sync.Mutex
	rotated := 0
	leases := make([]*logical.Response, 40)
	for i := range leases {
		all.Go(func() {
			if i%10 == 5 {
				resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
				if err != nil {
					e.failed(400, resp, err, "being rotated this moment")
				} else {
					mu.Lock()
					rotated++
					mu.Unlock()
				}
			}
			var err error
			if leases[i], err = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if rotated == 0 {
		t.Error("none was rotated")
	}
	for _, lease := range leases {
		e.revoke(lease.Secret)
	}
	e.pass(10 * time.Minute)
	e.tended()
	if live := e.liveTokens("ci-bot"); len(live) != 1 {
		t.Errorf("%d rotations left %v", rotated, live)
	}
	e.dismantled()
}

// On its period, on its schedule within its window, and before its token expires.
func TestRotationOnTime(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	rotatedAt := func() string { return fmt.Sprint(e.read("accounts/ci-bot")["last_rotated"]) }
	e.write("accounts/ci-bot", map[string]any{"rotation_period": "24h"})
	e.tended()
	e.pass(23 * time.Hour)
	e.tended()
	if rotatedAt() != "" {
		t.Fatal("rotated before it is due")
	}
	e.pass(time.Hour + time.Minute)
	e.tended()
	first := rotatedAt()
	if first == "" {
		t.Fatal("not rotated when it was due")
	}
	e.pass(10 * time.Minute) // the overlap
	e.tended()
	// Jira is away when the next one is due: it is tried again, less and less often.
	e.pass(24*time.Hour + time.Minute)
	remove := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 500})
	e.tended()
	if why := fmt.Sprint(e.read("accounts/ci-bot")["last_error"]); !strings.Contains(why, "500") || !e.logged("a rotation failed, and will be tried again") {
		t.Errorf("last_error %q", why)
	}
	e.jira.ResetCalls()
	e.tended()
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls right after a failure", n)
	}
	remove()
	e.sites.forget("ci-bot")
	e.pass(10 * time.Minute)
	e.tended()
	if rotatedAt() == first || e.read("accounts/ci-bot")["last_error"] != "" {
		t.Error("not rotated when Jira was back")
	}
	// By hand only.
	e.write("accounts/ci-bot", map[string]any{"disable_automated_rotation": true})
	last := rotatedAt()
	e.pass(25 * time.Hour)
	e.tended()
	if rotatedAt() != last || e.read("accounts/ci-bot")["next_rotation"] != "" {
		t.Error("rotated although that is disabled")
	}
	// A token of 365 days is warned about from fourteen days ahead, and replaced
	// without any schedule unless that is disabled.
	e.pass(340 * 24 * time.Hour)
	e.tended()
	if e.logged("ends in Jira, and is not replaced") {
		t.Error("warned too early")
	}
	e.pass(11 * 24 * time.Hour)
	e.tended()
	if !e.logged("ends in Jira, and is not replaced") || rotatedAt() != last {
		t.Error("not warned")
	}
	e.write("accounts/ci-bot", map[string]any{"disable_automated_rotation": false, "rotation_period": 0})
	e.pass(10 * 24 * time.Hour)
	e.tended()
	if rotatedAt() == last {
		t.Error("it was let to expire")
	}
	e.dismantled()
}

// What is due, or over, does not wait for a worker that has nothing else to do: it looks
// every half a minute, also where it is woken for something else in between.
func TestTheWorkerWakesForRotations(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotations.turned() // as without a test that looks itself
	if sleep := e.work(t.Context()); sleep > tendInterval {
		t.Errorf("it sleeps %v", sleep)
	}
	e.running.Wait()
	e.pass(20 * time.Second)
	if sleep := e.work(t.Context()); sleep <= 0 || sleep > 10*time.Second {
		t.Errorf("after 20s it sleeps %v more", sleep)
	}
	e.rotations.looked = e.now().Add(time.Hour) // the clock was set back
	if sleep := e.work(t.Context()); sleep <= 0 || sleep > tendInterval {
		t.Errorf("with a clock that was set back it sleeps %v", sleep)
	}
	e.running.Wait()
}

// next is when a schedule is due, from a day on at which it was rotated.
func TestWhenAScheduleIsDue(t *testing.T) {
	const day = "2026-03-02T12:00:00Z" // a Monday
	for _, tt := range []struct {
		schedule schedule
		now      string
		due      string
	}{
		{schedule{}, day, ""},
		{schedule{RotationPeriod: 3600}, day, "2026-03-02T13:00:00Z"},
		{schedule{RotationPeriod: 3600, DisableRotation: true}, day, ""},
		{schedule{RotationSchedule: "0 3 * * SAT"}, day, "2026-03-07T03:00:00Z"},
		{schedule{RotationSchedule: "0 3 * * SAT"}, "2026-03-20T00:00:00Z", "2026-03-07T03:00:00Z"},
		{schedule{RotationSchedule: "0 3 * * SAT", RotationWindow: 3600}, "2026-03-07T03:59:00Z", "2026-03-07T03:00:00Z"},
		{schedule{RotationSchedule: "0 3 * * SAT", RotationWindow: 3600}, "2026-03-07T04:01:00Z", "2026-03-14T03:00:00Z"},
		{schedule{RotationSchedule: "0 3 * * SAT", RotationWindow: 3600}, "2026-05-01T00:00:00Z", "2026-05-02T03:00:00Z"},
	} {
		since, _ := time.Parse(time.RFC3339, day)
		now, _ := time.Parse(time.RFC3339, tt.now)
		if got := rfc3339(tt.schedule.next(since, now)); got != tt.due {
			t.Errorf("%+v at %s: due %s, want %s", tt.schedule, tt.now, got, tt.due)
		}
	}
	// A clock that was set back does not put a rotation off for years.
	s := schedule{RotationPeriod: 3600}
	now := time.Unix(1_000_000, 0)
	if due := s.due(&rotated{Since: 2_000_000}, now); !due.Equal(now.Add(time.Hour)) {
		t.Errorf("due %v", due)
	}
}

// An account whose token the engine minted itself can be exclusive, for that one it
// knows; what was brought is deleted with all others.
func TestAnExclusiveAccountThatLogsInWithItsOwnToken(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	resp := e.write("accounts/ci-bot", map[string]any{"exclusive": true})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), `did not make: 412 "made by hand"`) {
		t.Errorf("warned of what will be ended: %+v", resp)
	}
	lease := e.issue("readonly", nil)
	e.sibling(lease, "mine")
	e.revoke(lease.Secret)
	if live := e.liveTokens("ci-bot"); len(live) != 1 || !strings.HasPrefix(live[0], "vault-") {
		t.Errorf("alive: %v", live)
	}
	e.tidied(map[string]any{"dry_run": false})
	e.rotate("rotate-account/ci-bot")
	e.revoke(e.issue("readonly", nil).Secret)
	if live := e.liveTokens("ci-bot"); len(live) != 2 { // the overlap
		t.Errorf("alive: %v", live)
	}
	e.pass(6 * time.Minute)
	e.tended()
	if live := e.liveTokens("ci-bot"); len(live) != 1 {
		t.Errorf("alive: %v", live)
	}
	e.dismantled()
}

// A credential that died is replaced by writing another: leases and debts live on,
// and the token that the engine had minted is ended.
func TestBreakGlass(t *testing.T) {
	for _, died := range []string{"token", "password"} {
		t.Run(died, func(t *testing.T) {
			e := rotatable(t, jiratest.Options{})
			if died == "password" {
				e.write("accounts/ci-bot", map[string]any{"password": e.passwordOf("ci-bot")})
			}
			lease, other := e.issue("readonly", nil), e.issue("readonly", nil)
			e.rotate("rotate-account/ci-bot")
			if died == "password" {
				e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "changed by hand" })
			} else {
				for _, tok := range e.jira.Tokens("ci-bot") {
					if strings.HasSuffix(tok.Name, "-own") {
						e.jira.Delete(tok.ID)
					}
				}
			}
			resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
			e.failed(400, resp, err, "write one that works in its place")
			e.refuses(400, logical.UpdateOperation, "rotate-account/ci-bot", nil, "401")
			e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")})
			if why := e.read("accounts/ci-bot")["last_error"]; why != "" {
				t.Errorf("last_error of the last credential: %v", why)
			}
			e.settled()
			if e.ledger.Held("ci-bot") != 1 {
				t.Error("the debt is not paid")
			}
			e.revoke(other.Secret)
			e.tended()
			if keys, _ := logical.CollectKeysWithPrefix(t.Context(), e.storage, ledgerPrefix); len(keys) > 0 {
				t.Errorf("in the ledger: %v", keys)
			}
			e.rotate("rotate-account/ci-bot")
			e.dismantled()
		})
	}
}

// Nobody but a user himself ends his tokens: while the engine has minted some of his to
// log in with, he is not exchanged for another.
func TestExchangingAUserWhoseTokenTheEngineMinted(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.jira.AddUser(jiratest.User{Name: "root", Admin: true})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	for _, tt := range []struct{ path, rotate, his, other string }{
		{"accounts/ci-bot", "rotate-account/ci-bot", "ci-bot", "release-bot"},
		{"config", "rotate-root", "jira-admin", "root"},
	} {
		e.rotate(tt.rotate)
		other := map[string]any{"username": tt.other, "token": e.pat(tt.other)}
		e.refuses(400, logical.UpdateOperation, tt.path, other, "another token of his first")
		e.write(tt.path, map[string]any{"token": e.pat(tt.his)})
		e.tended()
		e.write(tt.path, other)
		if live := e.liveTokens(tt.his); slices.ContainsFunc(live, func(name string) bool { return strings.HasPrefix(name, "vault-") }) {
			t.Errorf("%s has %v", tt.his, live)
		}
	}
}

// An account that is deleted within an overlap takes along the token that was brought,
// where its id is known.
func TestAnAccountDeletedInAnOverlap(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("accounts/ci-bot", map[string]any{"own_token_id": fmt.Sprint(e.jira.Tokens("ci-bot")[0].ID)})
	e.rotate("rotate-account/ci-bot")
	if live := e.liveTokens("ci-bot"); len(live) != 2 {
		t.Fatalf("alive: %v", live)
	}
	e.dismantled()
	if live := e.liveTokens("ci-bot"); len(live) != 0 {
		t.Errorf("alive: %v", live)
	}
}

// Where Jira does not end it, the engine goes on trying after the account is gone.
func TestAnAccountWhoseOwnTokenStays(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		e := rotatable(t, jiratest.Options{Switches: jiratest.Switches{XAUserNameAbsent: quiet}})
		e.rotate("rotate-account/ci-bot")
		e.must(logical.DeleteOperation, "roles/readonly", nil)
		remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
		resp := e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
		if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "goes on trying") {
			t.Errorf("answered %+v", resp)
		}
		remove()
		// The answer to the deletion is lost, and with it the login.
		e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.LoseAnswer, Times: 3})
		e.pass(time.Hour)
		e.settled()
		e.pass(time.Hour)
		e.settled()
		e.nothingHeld()
		if keys, _ := e.storage.List(t.Context(), retiredPrefix); len(keys) != 0 {
			t.Errorf("kept: %v", keys)
		}
	}
}

// loses asks for what mints, and the mint is lost on its way to Jira.
func (e *engine) loses(op logical.Operation, path string) {
	e.t.Helper()
	e.jira.Fault(jiratest.Fault{Method: "POST", Times: 1, Do: jiratest.LoseCall})
	if resp, err := e.request(e.t.Context(), op, path, nil); err == nil {
		e.t.Fatalf("answered %+v", resp)
	}
	e.tended()
}

// What the engine has made to log in with is ended when nothing is left that it is needed
// for: neither a token that Jira did not end, nor a mint that it has not answered.
func TestTheWayInIsEndedLast(t *testing.T) {
	for _, left := range []string{"owed", "lost", "lost own"} {
		t.Run(left, func(t *testing.T) {
			e := rotatable(t, jiratest.Options{})
			e.rotate("rotate-account/ci-bot")
			switch left {
			case "owed":
				id := e.issue("readonly", nil).Data["token_id"]
				e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: fmt.Sprint("/rest/pat/latest/tokens/", id), Times: 10, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
			case "lost":
				e.loses(logical.ReadOperation, "creds/readonly")
			case "lost own":
				e.loses(logical.UpdateOperation, "rotate-account/ci-bot")
			}
			e.must(logical.DeleteOperation, "roles/readonly", nil)
			resp := e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
			if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "goes on trying") {
				t.Errorf("answered %+v", resp)
			}
			e.settled()
			if live := e.liveTokens("ci-bot"); !slices.ContainsFunc(live, func(name string) bool { return strings.HasSuffix(name, "-own") }) {
				t.Errorf("alive: %v", live)
			}
			e.mount() // what it waits for does not depend on memory
			for range 25 {
				e.pass(time.Hour)
				e.settled()
			}
			if live := e.liveTokens("ci-bot"); len(live) != 0 {
				t.Errorf("alive: %v", live)
			}
			for _, prefix := range []string{retiredPrefix, ledgerPrefix} {
				if keys, _ := logical.CollectKeysWithPrefix(t.Context(), e.storage, prefix); len(keys) != 0 {
					t.Errorf("kept: %v", keys)
				}
			}
		})
	}
}

// A consumer of a static role polls through three rotations, and its token always
// works.
func TestAStaticRole(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h", "overlap": "10m"})
	if got := e.read("accounts/ci-bot"); got["held"] != 1 {
		t.Errorf("the account reads %v", got)
	}
	var tokens []string
	poll := func() {
		got := e.read("static-creds/legacy")
		token := got["token"].(string)
		if !slices.Contains(tokens, token) {
			tokens = append(tokens, token)
		}
		if got["username"] != "ci-bot" || got["url"] != e.jira.URL() || got["last_vault_rotation"] == "" || got["expires_at"] == "" || got["ttl"].(int64) > 24*3600 {
			t.Errorf("answered %v", got)
		}
	}
	for range 3 * 24 * 12 {
		poll()
		e.pass(5 * time.Minute)
		if e.call(tokens[len(tokens)-1]) != http.StatusOK {
			t.Fatal("a token that was told five minutes ago is dead")
		}
		e.tended()
		if e.call(tokens[len(tokens)-1]) != http.StatusOK {
			t.Fatal("a rotation ended the token that was told last")
		}
	}
	poll()
	if len(tokens) != 4 {
		t.Errorf("%d tokens in three days", len(tokens))
	}
	e.rotate("rotate-role/legacy")
	resp := e.rotate("rotate-role/legacy")
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "before the last") {
		t.Errorf("answered %+v", resp)
	}
	poll()
	e.pass(11 * time.Minute)
	e.tended()
	for i, token := range tokens {
		if works := e.call(token) == http.StatusOK; works != (i == len(tokens)-1) {
			t.Errorf("token %d works: %v", i, works)
		}
	}
	e.refuses(400, logical.UpdateOperation, "static-roles/legacy", map[string]any{"account": "other"}, "cannot be changed")
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.refuses(400, logical.DeleteOperation, "accounts/ci-bot", nil, `static role "legacy"`)
	list := e.must(logical.ListOperation, "static-roles/", nil)
	if fmt.Sprint(list.Data["keys"]) != "[legacy]" {
		t.Errorf("listed %v", list.Data)
	}
	e.must(logical.PatchOperation, "static-roles/legacy", map[string]any{"rotation_schedule": "0 3 * * *"})
	if got := e.read("static-roles/legacy"); got["rotation_period"] != 0 || got["rotation_schedule"] != "0 3 * * *" {
		t.Errorf("reads %v", got)
	}
	e.must(logical.DeleteOperation, "static-roles/legacy", nil)
	e.nothingHeld()
	e.must(logical.DeleteOperation, "static-roles/legacy", nil)
	if e.read("static-roles/legacy") != nil {
		t.Error("it is there")
	}
	e.refuses(400, logical.ReadOperation, "static-creds/legacy", nil, "no static role")
	e.dismantled()
}

// A static role gets another token where somebody ended the one it has, and none is
// left of a write that failed.
func TestAStaticRoleThatLostItsToken(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	remove := e.jira.Fault(jiratest.Fault{Method: "POST", Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.failed(400, resp, err, "not now")
	remove()
	if e.read("static-roles/legacy") != nil {
		t.Error("a write that failed is stored")
	}
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	first := e.read("static-creds/legacy")["token_id"]
	for _, tok := range e.jira.Tokens("ci-bot") {
		if fmt.Sprint(tok.ID) == first {
			e.jira.Delete(tok.ID)
		}
	}
	e.pass(time.Hour)
	if got := e.tidied(map[string]any{"dry_run": false}); got["lost_forgotten_count"] != 1 {
		t.Errorf("tidied %v", got)
	}
	e.tended()
	if got := e.read("static-creds/legacy"); got["token_id"] == first || e.call(got["token"].(string)) != http.StatusOK {
		t.Errorf("it hands out %v", got["token_id"])
	}
	e.dismantled()
}

// A token whose secret was never stored is ended by whoever looks next.
func TestKeptTokensThatNobodyKeeps(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	id := ledger.NewID()
	name := ledger.Name("k3xm2a", id, "own")
	token, _ := e.jira.Mint("ci-bot", name, 9)
	r := &ledger.Record{ID: id, Name: name, Site: e.jira.URL(), Account: "ci-bot", Kept: ledger.KeptOwn, TokenID: fmt.Sprint(token.ID)}
	if err := e.ledger.Intend(t.Context(), r, ledger.Room{}); err != nil {
		t.Fatal(err)
	}
	if err := e.ledger.Issue(t.Context(), r, 0); err != nil {
		t.Fatal(err)
	}
	e.mount()
	e.tended()
	e.dismantled()
}

// Another Jira does not know the tokens that the engine has minted for itself: while
// accounts log in with some, url is not changed to it, and the config stays.
func TestTheConfigStaysWhileAccountsLogInWithTheirOwnTokens(t *testing.T) {
	for _, admin := range []bool{false, true} {
		e := rotatable(t, jiratest.Options{})
		other := jiratest.New(t, jiratest.Options{})
		if admin {
			e.write("config", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin"), "verify_connection": false})
			e.rotate("rotate-root")
		} else {
			e.rotate("rotate-account/ci-bot")
			e.refuses(400, logical.DeleteOperation, "config", nil, `delete account "ci-bot"`)
		}
		e.refuses(400, logical.UpdateOperation, "config", map[string]any{"url": other.URL(), "ca_cert": string(other.CA()), "confirm_destination": true}, "url cannot be changed")
		e.write("config", map[string]any{"url": strings.Replace(e.jira.URL(), "127.0.0.1", "localhost", 1), "confirm_destination": true, "verify_connection": true}) // the same Jira
		resp := e.must(logical.DeleteOperation, "config", map[string]any{"force": true})
		if resp != nil {
			t.Errorf("answered %+v", resp)
		}
		e.nothingHeld()
	}
}

// What a deleted account logged in with goes last: after tokens that Jira does not end
// yet, and after those that a lost request may still make.
func TestADeleteByForceKeepsTheWayIn(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	lease := e.issue("readonly", nil)
	lost := e.lostMint()
	e.jira.Delete(e.jira.Tokens("ci-bot")[3].ID) // it has not arrived yet
	e.ledger.Over(lost.ID)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Path: tokensAPI + "/" + tokenID(lease.Secret), Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	resp := e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), "goes on trying") {
		t.Errorf("answered %+v", resp)
	}
	remove()
	e.pass(time.Hour)
	e.settled()
	e.jira.Mint("ci-bot", lost.Name, 9)
	e.pass(time.Hour)
	e.settled()
	e.pass(24 * time.Hour)
	e.settled()
	e.settled()
	e.nothingHeld()
	if keys, _ := e.storage.List(t.Context(), retiredPrefix); len(keys) != 0 {
		t.Errorf("kept: %v", keys)
	}
}

// The own token of an administrator who was deleted is ended by himself, also where
// another one has taken his place.
func TestAnAdministratorsOwnTokenAfterAnotherCame(t *testing.T) {
	e := start(t, jiratest.Options{Switches: jiratest.Switches{AdminOwnTokensOnly: true}})
	e.jira.AddUser(jiratest.User{Name: "root", Admin: true})
	config := func(admin string) map[string]any {
		return map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "username": admin, "token": e.pat(admin)}
	}
	e.write("config", config("jira-admin"))
	e.rotate("rotate-root")
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	e.must(logical.DeleteOperation, "config", nil)
	e.write("config", config("root"))
	remove()
	e.pass(time.Hour)
	e.settled()
	e.nothingHeld()
}

// An account that is given to another user while its token is being replaced keeps
// what it was given.
func TestAnotherUserDuringARotation(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: tokensAPI, Nth: 1, Do: jiratest.Slow, Delay: 300 * time.Millisecond})
	var all sync.WaitGroup
	all.Go(func() {
		resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
		e.failed(400, resp, err, "meanwhile")
	})
	e.eventually(func() bool { return len(e.jira.Calls()) > 0 })
	e.write("accounts/ci-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	all.Wait()
	e.revoke(e.issue("readonly", nil).Secret)
	e.tended()
	e.nothingHeld()
	e.rotate("rotate-account/ci-bot")
	e.dismantled()
}

// A token whose secret may be stored is not ended by a node that did not see it
// stored, and may write nothing any more: the next one goes on with it.
func TestANodeThatIsDeposedAsItStoresTheNextToken(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	brought := e.own("ci-bot")
	e.storage.Storage = &unheard{e.storage.Storage, accountsPrefix + "ci-bot", func() {
		readOnly := func(string, string) error { return logical.ErrReadOnly }
		e.storage.fail.Store(&readOnly)
	}}
	resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
	e.failed(500, resp, err, "storage is away")
	if n := e.jira.Count("DELETE", ""); n != 0 {
		t.Errorf("it has deleted %d tokens", n)
	}
	e.storage.Storage = e.storage.Storage.(*unheard).Storage
	e.storage.failing("")
	e.mount()
	e.tended()
	if now := e.own("ci-bot"); now == brought || e.call(now) != http.StatusOK {
		t.Error("the next node does not go on with it")
	}
	e.dismantled()
}

// unheard is storage that does write what lies under key, but does not say so.
type unheard struct {
	logical.Storage
	key  string
	then func()
}

func (u *unheard) Put(ctx context.Context, entry *logical.StorageEntry) error {
	err := u.Storage.Put(ctx, entry)
	if entry.Key == u.key {
		u.then()
		return errStorage
	}
	return err
}

// A user who was renamed in Jira is the same by his key.
func TestRotatingTheTokenOfAUserWhoWasRenamed(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Name = "ci-robot" })
	e.rotate("rotate-account/ci-bot")
	e.rotate("rotate-role/legacy")
	if got := e.read("static-roles/legacy"); got["username"] != "ci-robot" {
		t.Errorf("reads %v", got)
	}
	e.dismantled()
}

// A static role that has no token, while its account is given to another user, gets
// one of his.
func TestAStaticRoleWhoseAccountIsAnothersNow(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	for _, tok := range e.jira.Tokens("ci-bot")[1:] {
		e.jira.Delete(tok.ID)
	}
	e.pass(time.Hour)
	e.tidied(map[string]any{"dry_run": false})
	e.write("accounts/ci-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.tended()
	if got := e.read("static-creds/legacy"); got["username"] != "release-bot" || e.call(got["token"].(string)) != http.StatusOK {
		t.Errorf("it hands out a token of %v", got["username"])
	}
	e.dismantled()
}

// Of a config that was not checked the engine knows whose token it has replaced, and
// another of his can be written, but nobody else's.
func TestRotatingAnAdministratorWhoWasNotChecked(t *testing.T) {
	e := start(t, jiratest.Options{Switches: jiratest.Switches{AdminOwnTokensOnly: true}})
	e.jira.AddUser(jiratest.User{Name: "root", Admin: true})
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA()), "verify_connection": false, "token": e.pat("jira-admin")})
	e.rotate("rotate-root")
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"username": "root", "token": e.pat("root")}, "the user cannot be changed")
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"username": "root", "token": e.pat("root"), "verify_connection": true}, "the user cannot be changed")
	e.write("config", map[string]any{"token": e.pat("jira-admin")})
	e.tended()
	e.nothingHeld()
	e.rotate("rotate-root")
	e.dismantled()
}

// What was stored by a version that rotated nothing has the default overlap, and is
// not due for having been written in 1970.
func TestRotatingWhatAnOlderVersionStored(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	id := fmt.Sprint(e.jira.Tokens("ci-bot")[0].ID)
	a, err := e.loadAccount(t.Context(), "ci-bot")
	if err != nil {
		t.Fatal(err)
	}
	old := account{Type: a.Type, MaxTokens: a.MaxTokens, credential: credential{Username: a.Username, Token: a.Token, UserKey: a.UserKey, OwnTokenID: id}}
	if err := store(t.Context(), e.storage, accountsPrefix+"ci-bot", old); err != nil {
		t.Fatal(err)
	}
	if got := e.read("accounts/ci-bot"); got["overlap"] != 300 || got["next_rotation"] != "" {
		t.Errorf("the account reads %v", got)
	}
	e.tended()
	if live := e.liveTokens("ci-bot"); len(live) != 1 {
		t.Errorf("alive: %v", live)
	}
	e.rotate("rotate-account/ci-bot")
	e.pass(time.Minute)
	e.tended()
	if e.call(old.Token) != http.StatusOK {
		t.Error("there is no overlap")
	}
	e.write("accounts/ci-bot", map[string]any{"overlap": 0})
	if got := e.read("accounts/ci-bot"); got["overlap"] != 0 {
		t.Errorf("the account reads %v", got)
	}
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"overlap": nil})
	if got := e.read("accounts/ci-bot"); got["overlap"] != 300 {
		t.Errorf("the account reads %v", got)
	}
	e.dismantled()
}

// A rotation on time waits for the overlap of one by hand.
func TestAStaticRoleThatIsDueInAnOverlap(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_schedule": "0 * * * *", "overlap": "20m"})
	at := time.Now().UTC()
	e.pass(at.Truncate(time.Hour).Add(2*time.Hour - time.Minute).Sub(at)) // a minute before the hour
	e.tended()
	told := e.read("static-creds/legacy")["token"].(string)
	e.rotate("rotate-role/legacy")
	byHand := e.read("static-roles/legacy")["last_rotated"]
	for range 4 {
		e.pass(4 * time.Minute)
		e.tended()
		if e.call(told) != http.StatusOK {
			t.Fatal("a token died within its overlap")
		}
	}
	e.pass(10 * time.Minute)
	e.tended()
	if e.read("static-roles/legacy")["last_rotated"] == byHand {
		t.Error("not rotated after it")
	}
	e.dismantled()
}

// A schedule holds from when it is written: the time before is not made up for.
func TestAScheduleOfWhatIsOld(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.pass(40 * 24 * time.Hour)
	e.write("accounts/ci-bot", map[string]any{"rotation_schedule": "0 0 1 * *"})
	e.tended()
	if got := e.read("accounts/ci-bot"); got["last_rotated"] != "" {
		t.Errorf("the account reads %v", got)
	}
}

// While an account's own token is being replaced, a static role of it is deleted all
// the same, and ends with its token.
func TestDeletingAStaticRoleDuringARotation(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	if !e.rotations.begin("ci-bot") {
		t.Fatal("it is being rotated")
	}
	if resp := e.must(logical.DeleteOperation, "static-roles/legacy", nil); resp != nil {
		t.Errorf("answered %+v", resp)
	}
	e.rotations.end("ci-bot")
	e.dismantled()
}

// during has something done while a rotation waits for Jira's answer to its nth call
// of this kind, and tells how the rotation went.
func (e *engine) during(path, method, call string, nth int, do func()) (*logical.Response, error) {
	e.t.Helper()
	e.jira.ResetCalls()
	remove := e.jira.Fault(jiratest.Fault{Method: method, Path: call, Nth: nth, Do: jiratest.Slow, Delay: 300 * time.Millisecond})
	defer remove()
	var resp *logical.Response
	var err error
	var all sync.WaitGroup
	all.Go(func() { resp, err = e.request(e.t.Context(), logical.UpdateOperation, path, nil) })
	if err := e.jira.WaitCalls(e.t.Context(), method, call, nth); err != nil {
		e.t.Fatal(err)
	}
	do()
	all.Wait()
	return resp, err
}

// Who writes an account while it is rotated has the last word.
func TestAnAccountIsWrittenDuringARotation(t *testing.T) {
	const myself = "/rest/api/2/myself"
	for _, tt := range []struct {
		name     string
		password bool // it logs in with one
		method   string
		call     string
		nth      int
		to       string // what is written
	}{
		{"a token, before the mint", false, "GET", tokensAPI, 1, "token"},
		{"a token, before the mint", false, "GET", tokensAPI, 1, "password"},
		{"a token, as it is proven", false, "GET", myself, 1, "token"},
		{"a token, as it is proven", false, "GET", myself, 1, "password"},
		{"a password, before it is changed", true, "GET", myself, 1, "token"},
		{"a password, before it is changed", true, "GET", myself, 1, "password"},
		{"a password, as it is proven", true, "GET", myself, 2, "password"},
		{"a password, as it is proven", true, "GET", myself, 2, "token"},
	} {
		t.Run(tt.name+", "+tt.to, func(t *testing.T) {
			e := rotatable(t, jiratest.Options{})
			if tt.password {
				e.write("accounts/ci-bot", map[string]any{"password": e.passwordOf("ci-bot")})
			}
			wrote := "by hand"
			resp, err := e.during("rotate-account/ci-bot", tt.method, tt.call, tt.nth, func() {
				if tt.to == "token" {
					wrote = e.pat("ci-bot")
				} else {
					e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = wrote })
				}
				e.write("accounts/ci-bot", map[string]any{tt.to: wrote})
			})
			e.failed(400, resp, err, "meanwhile")
			a, err := e.loadAccount(t.Context(), "ci-bot")
			if err != nil || a.Token+a.Password != wrote || a.Next != "" {
				t.Errorf("what was written is not what is in use: %v", err)
			}
			if live := e.alive(); tt.call == tokensAPI && len(live) > 0 {
				t.Errorf("what was not stored is alive: %v", live)
			}
			e.tended()
			e.revoke(e.issue("readonly", nil).Secret)
			e.nothingHeld()
		})
	}
}

// A static role that is gone by the time that its token is made is not made anew.
func TestAStaticRoleIsDroppedDuringARotation(t *testing.T) {
	for _, nth := range []string{"GET " + tokensAPI, "GET /rest/api/2/myself"} {
		e := rotatable(t, jiratest.Options{})
		e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
		method, call, _ := strings.Cut(nth, " ")
		resp, err := e.during("rotate-role/legacy", method, call, 1, func() {
			resp, err := e.request(t.Context(), logical.DeleteOperation, "static-roles/legacy", nil)
			e.failed(503, resp, err, "being rotated")
			resp, err = e.request(t.Context(), logical.DeleteOperation, "accounts/ci-bot", nil)
			e.failed(400, resp, err)
			if err := e.dropStaticRole(t.Context(), "legacy"); err != nil { // of a write that failed
				t.Error(err)
			}
		})
		e.failed(400, resp, err)
		if e.read("static-roles/legacy") != nil {
			t.Error("it is there")
		}
		e.tended()
		e.nothingHeld()
	}
}

// Neither an account nor the config is deleted while it is being rotated.
func TestDeletesDuringARotation(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	if _, err := e.during("rotate-account/ci-bot", "GET", "/rest/api/2/myself", 1, func() {
		resp, err := e.request(t.Context(), logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
		e.failed(503, resp, err, "being rotated")
	}); err != nil {
		t.Error(err)
	}
	e.dismantled()
}

// A next token that waits to be proven is neither ended nor made again, unless its
// record says that it has to go, or is gone.
func TestANextTokenThatIsNotProvenYet(t *testing.T) {
	for _, becomes := range []string{"issued", "owed", "gone"} {
		t.Run(becomes, func(t *testing.T) {
			e := rotatable(t, jiratest.Options{})
			brought := e.own("ci-bot")
			remove := e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/rest/api/2/myself", Times: -1, Do: jiratest.Answer, Status: 500})
			resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
			e.failed(503, resp, err, "not proven yet")
			e.tended()
			e.pass(time.Minute)
			e.tended()
			remove()
			e.rouse()
			a, err := e.loadAccount(t.Context(), "ci-bot")
			if err != nil || a.Token != brought || a.NextID == "" {
				t.Fatalf("stored: next %q, %v", a.NextID, err)
			}
			next := a.Next
			switch becomes {
			case "owed":
				err = e.ledger.Owe(t.Context(), a.NextID, "")
			case "gone":
				err = e.ledger.Forget(t.Context(), a.NextID)
			}
			if err != nil {
				t.Fatal(err)
			}
			e.sites.forget("ci-bot")
			e.sites.gate = nil // it does not remember that Jira was away
			e.sites.site = nil
			e.tended()
			now := e.own("ci-bot")
			if now == brought || e.call(now) != http.StatusOK || (now == next) != (becomes == "issued") {
				t.Error("it is not what it should be")
			}
			if n := e.jira.Count("POST", tokensAPI); becomes == "issued" && n != 1 {
				t.Errorf("%d were made", n)
			}
			if becomes == "gone" { // which nobody knows of any more
				e.tidied(map[string]any{"dry_run": false})
			}
			e.tended()
			e.dismantled()
		})
	}
}

// Who a token was minted for is told by his key, and by his name where that is not known.
func TestWhoseTheNextTokenIs(t *testing.T) {
	for _, tt := range []struct {
		of credential
		is jira.User
		ok bool
	}{
		{credential{Username: "ci"}, jira.User{Name: "CI", Key: "1", Active: true}, true},
		{credential{Username: "ci"}, jira.User{Name: "other", Key: "1", Active: true}, false},
		{credential{}, jira.User{Name: "other", Key: "1", Active: true}, true},
		{credential{Username: "ci", UserKey: "1"}, jira.User{Name: "robot", Key: "1", Active: true}, true},
		{credential{Username: "ci", UserKey: "1"}, jira.User{Name: "ci", Key: "2", Active: true}, false},
		{credential{Username: "ci", UserKey: "1"}, jira.User{Name: "ci", Key: "1"}, false},
	} {
		if err := tt.of.provedBy(tt.is); (err == nil) != tt.ok {
			t.Errorf("%+v is %+v: %v", tt.of, tt.is, err)
		}
	}
}

// A static role takes a place of its account, and lives no longer than it has to.
func TestTheTokenOfAStaticRole(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	if life := e.jira.Tokens("ci-bot")[1].Expires.Sub(e.now()); life < 47*time.Hour || life > 73*time.Hour {
		t.Errorf("it lives for %v", life)
	}
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 3})
	e.refuses(429, logical.UpdateOperation, "rotate-role/legacy", nil, "holds 1 of the 1")
	e.dismantled()
}

// A password that may have been set, though nobody heard so, is kept for as long as
// that can come true, whatever Jira says of it later.
func TestANextPasswordThatJiraDoesNotLikeAnyMore(t *testing.T) {
	for _, after := range []time.Duration{time.Hour, 25 * time.Hour} {
		e := rotatable(t, jiratest.Options{})
		brought := e.passwordOf("ci-bot")
		e.write("accounts/ci-bot", map[string]any{"password": brought})
		e.jira.Fault(jiratest.Fault{Method: "PUT", Nth: 1, Do: jiratest.LoseCall})
		resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
		e.failed(503, resp, err)
		a, _ := e.loadAccount(t.Context(), "ci-bot")
		next := a.Next
		e.jira.Fault(jiratest.Fault{Method: "PUT", Do: jiratest.Answer, Status: 400, Body: `{"errors":{"password":"too long"}}`})
		e.pass(after)
		resp, err = e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
		e.failed(400, resp, err, "too long")
		a, _ = e.loadAccount(t.Context(), "ci-bot")
		switch {
		case after < ledger.LateLanding && a.Next != next:
			t.Error("it is forgotten, and may be what Jira takes")
		case after < ledger.LateLanding:
			e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = next })
			e.mount()
			e.revoke(e.issue("readonly", nil).Secret)
			e.jira.ClearFaults()
			e.rotate("rotate-account/ci-bot")
			if a, _ := e.loadAccount(t.Context(), "ci-bot"); a.Password != next || a.Next != "" {
				t.Error("the rotation has no end")
			}
		case a.Next != "" || a.Password != brought:
			t.Error("it is kept for ever")
		}
	}
}

// What a password is changed to must be another one, and Jira take it.
func TestAPasswordThatDoesNotChange(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	brought := e.passwordOf("ci-bot")
	e.write("accounts/ci-bot", map[string]any{"password": brought})
	e.jira.Fault(jiratest.Fault{Method: "PUT", Nth: 1, Do: jiratest.Answer, Status: 204})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
	e.failed(502, resp, err, "goes on taking the last one")
	e.rotate("rotate-account/ci-bot")
	made := e.passwordOf("ci-bot")
	e.system.SetPasswordPolicy("same", func() (string, error) { return made, nil })
	e.write("config", map[string]any{"password_policy": "same"})
	e.refuses(400, logical.UpdateOperation, "rotate-account/ci-bot", nil, "make another each time")
	e.revoke(e.issue("readonly", nil).Secret)
}

// A pause that a clock made which was far ahead is not waited for.
func TestAFailedRotationWhenTheClockIsSetBack(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.pass(30 * 24 * time.Hour)
	remove := e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/rest/api/2/myself", Times: -1, Do: jiratest.Answer, Status: 404, Body: "{}"})
	resp, err := e.request(t.Context(), logical.UpdateOperation, "rotate-account/ci-bot", nil)
	e.failed(400, resp, err)
	remove()
	e.pass(-30 * 24 * time.Hour)
	e.tended()
	if e.read("accounts/ci-bot")["last_rotated"] == "" {
		t.Error("it is not tried again")
	}
	e.dismantled()
}

// While the ledger is being read nothing is rotated: nobody knows what is kept.
func TestARotationWaitsForTheLedger(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	e.write("accounts/ci-bot", map[string]any{"rotation_period": "1h"})
	e.pass(2 * time.Hour)
	e.setup()
	e.rotations.turned()
	e.refuses(503, logical.UpdateOperation, "rotate-account/ci-bot", nil, "still being read")
	e.jira.ResetCalls()
	e.tendSoon()
	e.running.Wait()
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	e.loadLedger()
	e.tendSoon()
	e.running.Wait()
	e.pass(10 * time.Minute)
	e.tended()
	e.dismantled()
}

// A delete by force that fails leaves the way in.
func TestADeleteByForceThatFails(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.storage.failing(retiredPrefix)
	resp, err := e.request(t.Context(), logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	e.failed(500, resp, err, "storage is away")
	e.storage.failing("")
	e.settled()
	if e.call(e.own("ci-bot")) != http.StatusOK {
		t.Error("the account is there, and cannot log in")
	}
	e.dismantled()
}

// A crash in a delete by force leaves what leases held with one name, and what the
// engine logs in with to the next delete: it waits all the same.
func TestADeleteByForceInTwoParts(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	e.issue("readonly", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	if _, err := e.retire(t.Context(), "ci-bot", e.records("ci-bot")); err != nil {
		t.Fatal(err)
	}
	e.settled()
	remove()
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	for range 3 {
		e.pass(time.Hour)
		e.settled()
	}
	e.nothingHeld()
}

// That Jira refuses the login once is no proof that its token is gone.
func TestARefusalInTheEndOfAnOwnToken(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	e.write("accounts/ci-bot", map[string]any{"exclusive": true})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.jira.Fault(jiratest.Fault{Method: "DELETE", Nth: 1, Do: jiratest.Answer, Status: 401, Body: `{"message":"no"}`})
	if resp := e.must(logical.DeleteOperation, "accounts/ci-bot", nil); resp == nil {
		t.Error("it is said to be gone")
	}
	e.mount() // which has forgotten the refusal
	e.settled()
	e.nothingHeld()
}

// The own token of an exclusive account is the last that is ended of it.
func TestDeletingAnExclusiveAccountThatLogsInWithItsOwnToken(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.rotate("rotate-account/ci-bot")
	e.write("accounts/ci-bot", map[string]any{"exclusive": true})
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	if resp := e.must(logical.DeleteOperation, "accounts/ci-bot", nil); resp != nil {
		t.Errorf("answered %+v", resp)
	}
	e.nothingHeld()
}

// What Jira has said of a login holds for the next one only if that is a step of the
// same rotation.
func TestWhichLoginFollows(t *testing.T) {
	now := jira.Login{Username: "ci", Key: "1", Password: "a", Next: "b"}
	for _, tt := range []struct {
		then    jira.Login
		follows bool
	}{
		{now, true},
		{jira.Login{Username: "ci", Key: "1", Password: "a"}, true},
		{jira.Login{Username: "ci", Key: "1", Password: "a", Next: "c"}, true},
		{jira.Login{Username: "ci", Key: "1", Password: "b"}, true},
		{jira.Login{Username: "ci", Key: "1", Password: "c"}, false},
		{jira.Login{Username: "ci", Key: "2", Password: "b"}, false},
		{jira.Login{Username: "other", Key: "1", Password: "b"}, false},
		{jira.Login{Username: "ci", Key: "1", Token: "a"}, false},
	} {
		if follows(now, tt.then) != tt.follows {
			t.Errorf("%+v follows: %v", tt.then, !tt.follows)
		}
	}
}

// Whoever writes a new static role has its token made: the worker does not come
// between.
func TestTheWorkerBetweenAStaticRoleAndItsToken(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	came := false
	comes := func(key string) {
		if key == staticRolesPrefix+"legacy" && !came {
			came = true
			if e.rotations.begin(staticName("legacy")) {
				t.Error("somebody else can make it")
			}
		}
	}
	e.storage.stored.Store(&comes)
	e.write("static-roles/legacy", map[string]any{"account": "ci-bot", "rotation_period": "24h"})
	e.dismantled()
}

// Without the id of the token that was brought nobody knows when it expires.
func TestAnOwnTokenIDThatIsTakenBack(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.bringsOneOfTwo("ci-bot")
	e.write("accounts/ci-bot", map[string]any{"own_token_id": fmt.Sprint(e.jira.Tokens("ci-bot")[1].ID)})
	if got := e.read("accounts/ci-bot"); got["credential_expires_at"] == "" || got["next_rotation"] == "" {
		t.Errorf("reads %v", got)
	}
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"own_token_id": nil})
	if got := e.read("accounts/ci-bot"); got["credential_expires_at"] != "" || got["next_rotation"] != "" {
		t.Errorf("reads %v", got)
	}
}
