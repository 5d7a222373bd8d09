package backend

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prometheus "github.com/prometheus/common/model"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// status reads it; what Jira said of credentials is asked anew.
func (e *engine) status() (healthy bool, reasons string, data map[string]any) {
	e.t.Helper()
	e.checks.mu.Lock()
	clear(e.checks.found)
	e.checks.mu.Unlock()
	data = e.read("status")
	return data["healthy"].(bool), strings.Join(data["reasons"].([]string), "\n"), data
}

// finds asserts that the status is unhealthy, for all these reasons.
func (e *engine) finds(words ...string) {
	e.t.Helper()
	healthy, reasons, _ := e.status()
	if healthy {
		e.t.Errorf("healthy, in spite of %v", words)
	}
	for _, w := range words {
		if !strings.Contains(reasons, w) {
			e.t.Errorf("the reasons do not say %q: %s", w, reasons)
		}
	}
}

func (e *engine) well() map[string]any {
	e.t.Helper()
	healthy, reasons, data := e.status()
	if !healthy {
		e.t.Errorf("not healthy: %s", reasons)
	}
	return data
}

// All is well, and what there is is told.
func TestStatus(t *testing.T) {
	e := throwaway(t, jiratest.Options{})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_leases": 3})
	lease := e.issue("readonly", nil)
	got := e.well()
	if s := got["jira"].(map[string]any); s["state"] != "RUNNING" || s["url"] != e.jira.URL() || s["error"] != "" || s["version"] == "" {
		t.Errorf("jira %v", s)
	}
	for _, name := range []string{"ci-bot", "~admin"} {
		if c := got["credentials"].(map[string]any)[name].(map[string]any); c["works"] != true || c["kind"] != "token" || c["error"] != "" {
			t.Errorf("%s %v", name, c)
		}
	}
	if room := fmt.Sprint(got["room"]); !strings.Contains(room, "ci-bot:map[held:1 room:7]") || !strings.Contains(room, "role/readonly:map[held:1 max_leases:3]") {
		t.Errorf("room %s", room)
	}
	if l := got["ledger"].(map[string]any); l["whole"] != true || l["issued"] != 1 || l["owed"] != 0 {
		t.Errorf("ledger %v", l)
	}
	// An alert asks each minute, and costs one call.
	e.read("status")
	e.jira.ResetCalls()
	e.read("status")
	if n := len(e.jira.Calls()); n != 1 {
		t.Errorf("%d calls: %v", n, e.jira.Calls())
	}
	e.revoke(lease.Secret)
	empty := start(t, jiratest.Options{})
	empty.refuses(400, logical.ReadOperation, "status", nil, "not configured")
}

// Trouble is made, and found.
func TestStatusFindsTrouble(t *testing.T) {
	e := configured(t, jiratest.Options{})
	remove := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Answer, Status: 503})
	e.finds("Jira cannot be reached", "503")
	remove()
	e.sites.mu.Lock()
	e.sites.site, e.sites.gate = nil, nil
	e.sites.mu.Unlock()
	e.well()
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.State = "STARTING" })
	e.finds("it says STARTING")
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.State = "" })

	// A full account, and a full role.
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 3})
	e.write("roles/readonly", map[string]any{"max_leases": 1})
	lease := e.issue("readonly", nil)
	e.finds(`account "ci-bot" is full`, `role "readonly" has all the 1 leases`)
	e.write("accounts/ci-bot", map[string]any{"max_tokens": 10})
	e.write("roles/readonly", map[string]any{"max_leases": 0})
	e.well()

	// A debt that Jira does not let be paid.
	remove = e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	_ = e.revokeQueued(lease.Secret)
	e.well()
	e.pass(3 * time.Minute)
	e.finds("1 tokens have to go, the oldest for 3m")
	remove()
	e.pass(time.Minute)
	e.settled()
	e.well()

	// An orphan, and what a tidy makes of it.
	orphan := e.issue("readonly", nil)
	if err := e.ledger.Forget(t.Context(), id(orphan)); err != nil {
		t.Fatal(err)
	}
	e.tidied(nil)
	e.finds("found 1 orphans")
	e.tidied(map[string]any{"dry_run": false})
	e.well()

	// Two clocks that differ.
	e.clock.Add(int64(time.Hour))
	e.finds("this machine's clock and Jira's differ by -1h0m")
	e.clock.Add(-int64(time.Hour))
	e.well()

	// A token that expires and that nobody replaces; a rotation that failed.
	e.write("accounts/ci-bot", map[string]any{"own_token_id": fmt.Sprint(e.jira.Tokens("ci-bot")[0].ID), "disable_automated_rotation": true})
	e.well()
	e.pass(80 * 24 * time.Hour)
	e.settled()
	e.finds("expires on", "is not replaced")
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.MaxTokens = 1 })
	e.refuses(400, logical.UpdateOperation, "rotate-account/ci-bot", nil, "403")
	e.finds("its last rotation failed")
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.MaxTokens = 0 })
	e.rotate("rotate-account/ci-bot")
	e.well()

	// What the daily review found.
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = true })
	if err := e.review(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	e.finds("administers Jira now")
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Admin = false })
	if err := e.review(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	e.pass(time.Hour)
	e.tended()

	// A credential that died.
	for _, tok := range e.jira.Tokens("ci-bot") {
		e.jira.Delete(tok.ID)
	}
	e.finds("what it logs in with does not work", "401")
	e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")})
	e.tended()
	e.well()

	// The rate limit is used up.
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.RateLimit, s.RateFill, s.RateInterval = 1, 1, time.Hour })
	_, reasons, _ := e.status()
	if !strings.Contains(reasons, "rate limit") && !strings.Contains(reasons, "no call is made to Jira before") {
		t.Error(reasons)
	}
	e.jira.SetSwitches(func(s *jiratest.Switches) { s.RateLimit = 0 })
	e.sites.mu.Lock()
	e.sites.site, e.sites.gate = nil, nil
	e.sites.mu.Unlock()

	// A record that cannot be read.
	damaged := ledgerPrefix + "aa/aaaaaaaaaaaaaaaa"
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: damaged, Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	e.setup()
	e.finds("still being read")
	e.load()
	e.finds("make no sense", "aaaaaaaaaaaaaaaa", "delete tokens/<id> with force=true")
	e.must(logical.DeleteOperation, "tokens/aaaaaaaaaaaaaaaa", map[string]any{"force": true})
	e.well()
	e.dismantled()
}

// It answers in time when Jira does not answer at all.
func TestStatusWhileJiraHangs(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("config", map[string]any{"request_timeout": "1s"})
	remove := e.jira.Fault(jiratest.Fault{Times: -1, Do: jiratest.Hang})
	e.finds("Jira cannot be reached")
	remove()
}

// scraped are the metrics, by name.
func (e *engine) scraped() map[string]*dto.MetricFamily {
	e.t.Helper()
	resp := e.must(logical.ReadOperation, "metrics", nil)
	if resp.Data[logical.HTTPStatusCode] != 200 || resp.Data[logical.HTTPContentType] != metricsType {
		e.t.Errorf("answered %v", resp.Data)
	}
	text := resp.Data[logical.HTTPRawBody].([]byte)
	for _, secret := range e.jira.Secrets() {
		if bytes.Contains(text, []byte(secret)) {
			e.t.Error("the metrics tell a secret")
		}
	}
	parser := expfmt.NewTextParser(prometheus.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		e.t.Fatal(err)
	}
	return families
}

// value is that of one metric, with these labels and their values in turn.
func (e *engine) value(name string, labels ...string) float64 {
	e.t.Helper()
	for _, m := range e.scraped()[namespace+"_"+name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		is := len(have) == len(labels)/2
		for i := 0; i < len(labels); i += 2 {
			is = is && have[labels[i]] == labels[i+1]
		}
		if is {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}

// What happened is counted to the unit.
func TestMetrics(t *testing.T) {
	e := configured(t, jiratest.Options{})
	var leases []*logical.Response
	for range 3 {
		leases = append(leases, e.issue("readonly", nil))
	}
	if _, err := e.renew(leases[0].Secret, 0); err != nil {
		t.Fatal(err)
	}
	e.revoke(leases[0].Secret)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	_ = e.revokeQueued(leases[1].Secret)
	e.pass(2 * time.Minute)
	_ = e.revokeQueued(leases[1].Secret)
	debt := e.value("oldest_debt_seconds")
	remove()
	e.settled()
	e.rotate("rotate-account/ci-bot")
	_, _ = e.request(t.Context(), logical.ReadOperation, "creds/nobody", nil)
	e.write("roles/empty", map[string]any{"accounts": "ci-bot", "max_leases": 1})
	_, _ = e.request(t.Context(), logical.ReadOperation, "creds/readonly", map[string]any{"ttl": "0s"})
	posts, calls := 0, 0
	for _, c := range e.jira.Calls() {
		calls++
		if c.Method == "POST" {
			posts++
		}
	}
	_ = e.guard(e.backend.log(), func() error { panic("on purpose") })
	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"mints_total", []string{"role", "readonly", "result", "success"}, 3},
		{"mints_total", []string{"role", "readonly", "result", "error"}, 1},
		{"mints_total", []string{"role", "nobody", "result", "error"}, 0},
		{"renewals_total", []string{"role", "readonly", "result", "success"}, 1},
		{"revokes_total", []string{"role", "readonly", "result", "success"}, 1},
		{"revokes_total", []string{"role", "readonly", "result", "error"}, 1},
		{"revokes_total", []string{"role", "readonly", "result", "taken_over"}, 1},
		{"debts_settled_total", []string{"account", "ci-bot"}, 1},
		{"rotations_total", []string{"of", "ci-bot", "result", "success"}, 1},
		{"jira_requests_total", []string{"method", "POST", "class", "2xx"}, float64(posts)},
		{"jira_requests_total", []string{"method", "DELETE", "class", "4xx"}, 1},
		{"jira_request_duration_seconds", []string{"method", "POST"}, float64(posts)},
		{"panics_total", nil, 1},
		{"ledger_records", []string{"state", "issued"}, 2}, // with the engine's own
		{"ledger_records", []string{"state", "owed"}, 0},
		{"ledger_whole", nil, 1},
		{"account_tokens_held", []string{"account", "ci-bot"}, 1},
		{"account_tokens_most", []string{"account", "ci-bot"}, 8},
		{"rotation_failing", []string{"of", "ci-bot"}, 0},
	} {
		if got := e.value(tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s%v is %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	if debt < 119 || debt > 130 {
		t.Errorf("the oldest debt was %v s old", debt)
	}
	if at := e.value("credential_expires_timestamp_seconds", "of", "ci-bot"); at < float64(time.Now().Unix()) {
		t.Errorf("the token in use expires at %v", at)
	}
	e.revoke(leases[2].Secret)

	// A thousand scrapes harm nobody.
	e.jira.ResetCalls()
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			if _, err := e.request(t.Context(), logical.ReadOperation, "metrics", nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	e.pass(time.Hour)
	e.tended()
	e.must(logical.DeleteOperation, "roles/empty", nil)
	e.dismantled()
}

// A rate misses what a counter begins with, so the first failure must not be its birth.
func TestCountersAreThereBeforeTheyCount(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.revoke(e.issue("readonly", nil).Secret)
	for _, name := range []string{"mints_total", "revokes_total"} {
		if have := e.scraped()[namespace+"_"+name].String(); !strings.Contains(have, `"error"`) || !strings.Contains(have, `"success"`) {
			t.Errorf("%s is told as %s", name, have)
		}
	}
}

// overThePipe is storage as a plugin has it: who is gone reads nothing.
type overThePipe struct{ logical.Storage }

func (s overThePipe) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return s.Storage.Get(ctx, key)
}

// A reader who is gone was one all the same, but not of a role that there is none of: what
// that is called anybody can make up.
func TestReadersWhoAreGoneAreCounted(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.storage.Storage = overThePipe{e.storage.Storage}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for role, want := range map[string]float64{"readonly": 1, "nothing": 0} {
		if _, err := e.request(ctx, logical.ReadOperation, "creds/"+role, nil); err == nil {
			t.Fatal("he got a credential")
		}
		if n := e.value("mints_total", "role", role, "result", "error"); n != want {
			t.Errorf("%v of %s are counted", n, role)
		}
	}
	e.settled()
	e.nothingHeld()
}

// What a tidy has ended needs nobody any more.
func TestMetricsOfATidy(t *testing.T) {
	e := configured(t, jiratest.Options{})
	if err := e.ledger.Forget(t.Context(), id(e.issue("readonly", nil))); err != nil {
		t.Fatal(err)
	}
	for _, left := range []float64{1, 0} {
		e.tidied(map[string]any{"dry_run": left == 1})
		if n := e.value("tidy_findings", "kind", "orphans"); n != left {
			t.Errorf("%v orphans, want %v", n, left)
		}
	}
	e.nothingHeld()
}

// A retired account is counted under the name that it had.
func TestMetricsOfADeletedAccount(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	remove()
	e.pass(time.Hour)
	e.settled()
	if n := e.value("debts_settled_total", "account", "ci-bot"); n != 1 {
		t.Errorf("%v", n)
	}
	if e.ledger.Counts()[ledger.Owed] != 0 {
		t.Error("owed")
	}
}

// Jira's front door says that it runs, and nothing behind it answers.
func TestStatusWhileOnlyTheFrontDoorAnswers(t *testing.T) {
	for name, f := range map[string]jiratest.Fault{
		"fails": {Path: "/rest", Times: -1, Do: jiratest.Answer, Status: 500}, "hangs": {Path: "/rest", Times: -1, Do: jiratest.Hang},
	} {
		t.Run(name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			e.well()
			e.checks.forget("ci-bot")
			remove := e.jira.Fault(f)
			before := e.value("jira_requests_total", "method", "GET", "class", "2xx")
			e.finds("Jira says that it runs, and does not answer")
			// To ask how it is must not look like a call that Jira has answered.
			if n := e.value("jira_requests_total", "method", "GET", "class", "2xx"); n != before {
				t.Errorf("%v calls are counted as answered, of %v before", n, before)
			}
			remove()
			e.well()
		})
	}
}

// What somebody did not wait for says nothing of a credential.
func TestStatusThatNobodyWaitedFor(t *testing.T) {
	e := configured(t, jiratest.Options{})
	remove := e.jira.Fault(jiratest.Fault{Path: "/rest", Times: -1, Do: jiratest.Hang})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = e.request(ctx, logical.ReadOperation, "status", nil)
	}()
	if err := e.jira.WaitCalls(t.Context(), "GET", "/rest/api/2/myself", 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	remove()
	if data := e.read("status"); data["healthy"] != true {
		t.Errorf("%v", data["reasons"])
	}
}

// To ask how Jira is does not open the gate to one that answers nothing else.
func TestAStatusDoesNotOpenTheGate(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.well()
	e.sites.gate.SetLongestPause(jira.LongestPause)
	remove := e.jira.Fault(jiratest.Fault{Path: "/rest", Times: -1, Do: jiratest.Answer, Status: 500})
	for range 8 {
		_, _ = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
		e.read("status")
	}
	if time.Until(e.sites.gate.ShutUntil()) <= 0 {
		t.Error("it is open")
	}
	remove()
	e.sites.gate.SetLongestPause(time.Microsecond)
	e.pass(25 * time.Hour)
	e.eventually(func() bool { e.settled(); return len(e.ledger.IDs("")) == 0 })
}

// Of the past are a limit that Jira does not tell of any more, and what waits for
// something else is no debt; what cannot be read is not well.
func TestStatusOfWhatIsNotSo(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.well()
	limited := e.jira.Fault(jiratest.Fault{Method: "POST", Nth: 1, Do: jiratest.Answer, Status: 403, Body: `{"message":"x"}`, Header: http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Limit": {"10"}, "Content-Type": {"application/json"}}})
	_, _ = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	limited()
	e.finds("rate limit is used up")
	e.sites.heard = time.Nanosecond
	e.well()

	// What the engine logs in with waits for a lost mint, for a day.
	e.rotate("rotate-account/ci-bot")
	e.pass(10 * time.Minute)
	e.tended()
	e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseCall})
	_, _ = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", map[string]any{"force": true})
	e.pass(time.Hour)
	e.settled()
	e.well()
	e.pass(25 * time.Hour)
	e.settled()
	e.pass(2 * time.Minute)
	e.settled()
	e.nothingHeld()

	// A debt that cannot be read.
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot"})
	lease := e.issue("readonly", nil)
	remove := e.jira.Fault(jiratest.Fault{Method: "DELETE", Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`})
	_ = e.revokeQueued(lease.Secret)
	stored := e.storage.Storage
	e.storage.Storage = unreadable{stored}
	e.finds("how old the debts are cannot be read")
	if _, told := e.scraped()[namespace+"_oldest_debt_seconds"]; told {
		t.Error("the scraper is told an age")
	}
	e.storage.Storage = stored
	remove()
	e.revoke(lease.Secret)
}

// unreadable is storage whose ledger cannot be read.
type unreadable struct{ logical.Storage }

func (s unreadable) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if strings.HasPrefix(key, ledgerPrefix) {
		return nil, errStorage
	}
	return s.Storage.Get(ctx, key)
}

// A service account cannot be asked without an access token, but the last read tells.
func TestStatusOfAServiceAccountThatIsRefused(t *testing.T) {
	e, a := serviceAccount(t, jiratest.Options{}, nil)
	e.well()
	const another = "another-secret-of-this-service-account"
	e.jira.SetServiceAccount(a.ClientID, func(a *jiratest.ServiceAccount) { a.ClientSecret = another })
	_, _ = e.request(t.Context(), logical.ReadOperation, "creds/report", nil)
	if data := e.read("status"); data["healthy"] != false || !strings.Contains(fmt.Sprint(data["reasons"]), "invalid_client") {
		t.Errorf("%v", data["reasons"])
	}
	e.write("accounts/reporting", map[string]any{"client_secret": another})
	if data := e.read("status"); data["healthy"] != true {
		t.Errorf("%v", data["reasons"])
	}
}

// A panic in one of the questions that a status asks ends that one.
func TestAPanicInAStatus(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.sites.observe = func(string, int, time.Duration) { panic("a bug") }
	e.sites.mu.Lock()
	e.sites.site = nil
	e.sites.mu.Unlock()
	e.finds("internal error")
	if n := e.value("panics_total"); n != 1 {
		t.Errorf("%v are counted", n)
	}
}
