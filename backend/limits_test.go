package backend

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// limited is a 429 as Jira gives it to one user, for four minutes; empty: to each.
func limited(user string) jiratest.Fault {
	return jiratest.Fault{User: user, Do: jiratest.Answer, Status: http.StatusTooManyRequests, Body: `{"message":"Rate limit exceeded."}`, Header: http.Header{
		"Retry-After": {"240"}, "X-Ratelimit-Limit": {"5"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Fillrate": {"1"}, "X-Ratelimit-Interval-Seconds": {"240"},
	}}
}

// twoAccounts is an engine with an account of its own for each of two roles, readonly
// and release.
func twoAccounts(t *testing.T) *engine {
	t.Helper()
	e := configured(t, jiratest.Options{})
	e.write("accounts/release-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	e.write("roles/release", map[string]any{"accounts": "release-bot", "ttl": "1h", "max_ttl": "24h"})
	return e
}

// unlimit lets the pauses of logins be over, as they are after some minutes.
func (e *engine) unlimit() {
	e.jira.ClearFaults()
	e.sites.mu.Lock()
	defer e.sites.mu.Unlock()
	e.sites.clients = nil
}

// That Jira limits one user holds up that user's account alone: not the reads and
// revokes of others, and not what the worker does for them. Status tells which it is.
func TestALimitOnOneUser(t *testing.T) {
	e := twoAccounts(t)
	mine, theirs := e.issue("readonly", nil).Secret, e.issue("release", nil).Secret
	if err := e.giveUp(t.Context(), "ci-bot"); err != nil {
		t.Fatal(err)
	}
	e.jira.Fault(limited("ci-bot"))
	resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err, "asked for a pause in calls of this user until")
	e.jira.ResetCalls()
	resp, err = e.leaseRequest(t.Context(), logical.RevokeOperation, mine)
	e.failed(503, resp, err, "of this user")
	if n := e.jira.Count("", ""); n != 0 {
		t.Errorf("%d calls as a user whom Jira limits", n)
	}

	e.revoke(theirs)
	second := e.issue("release", nil).Secret
	if err := e.giveUp(t.Context(), "release-bot"); err != nil {
		t.Fatal(err)
	}
	e.work(t.Context())
	e.work(t.Context())
	for _, name := range e.alive() {
		if strings.HasSuffix(name, "-release") {
			t.Errorf("%s is alive", name)
		}
	}
	if e.worker.down != (rest{}) {
		t.Error("the worker takes the site for down")
	}
	e.revoke(second)

	s := e.read("status")
	paused := s["limits"].(map[string]any)["paused"].(map[string]any)
	if until, err := time.Parse(time.RFC3339, paused["ci-bot"].(string)); len(paused) != 1 || err != nil || time.Until(until) < 3*time.Minute {
		t.Errorf("paused: %v", paused)
	}
	if reasons := strings.Join(s["reasons"].([]string), "\n"); s["healthy"] != false || !strings.Contains(reasons, `account "ci-bot": no call is made as its user before`) || strings.Contains(reasons, "does not work") || strings.Contains(reasons, "does not answer") {
		t.Errorf("reasons: %s", reasons)
	}
	told := e.scraped()
	if m := told["vault_jira_account_paused_seconds"].GetMetric(); len(m) != 1 || m[0].GetLabel()[0].GetValue() != "ci-bot" || m[0].GetGauge().GetValue() < 180 {
		t.Errorf("paused: %v", m)
	}
	if m := told["vault_jira_gate_shut_seconds"].GetMetric(); m[0].GetGauge().GetValue() != 0 {
		t.Errorf("the gate: %v", m)
	}
	// A write of the config keeps in mind what Jira has said.
	e.write("config", map[string]any{"max_concurrent_requests": 7, "verify_connection": false})
	e.jira.ResetCalls()
	resp, err = e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
	e.failed(503, resp, err, "of this user")
	if n := e.jira.Count("", ""); n != 0 {
		t.Errorf("%d calls after the config was written", n)
	}

	e.unlimit()
	e.rouse()
	e.work(t.Context())
	e.nothingHeld()
}

// Several users who are limited at once are taken for a site that is: it is left alone
// for a moment, and no longer than one that does not work.
func TestALimitOnSeveralUsers(t *testing.T) {
	e := twoAccounts(t)
	e.jira.Fault(limited("ci-bot"))
	e.jira.Fault(limited("release-bot"))
	for _, role := range []string{"readonly", "release"} {
		resp, err := e.request(t.Context(), logical.ReadOperation, "creds/"+role, nil)
		e.failed(503, resp, err)
	}
	if shut := time.Until(e.sites.gate.ShutUntil()); shut < 10*time.Second || shut > 25*time.Second {
		t.Errorf("the site is left alone for %v", shut)
	}
}

// A 429 that is not Jira's own goes for all.
func TestALimitOfAGateway(t *testing.T) {
	for name, f := range map[string]jiratest.Fault{
		"nothing said":        {Do: jiratest.Answer, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}},
		"a page":              {Do: jiratest.Answer, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}, "X-Ratelimit-Remaining": {"0"}}, Body: "<html></html>"},
		"text":                {Do: jiratest.Answer, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}, "X-Ratelimit-Remaining": {"0"}}, Body: "slow down"},
		"JSON with no header": {Do: jiratest.Answer, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}, Body: `{"message":"slow down"}`},
	} {
		t.Run(name, func(t *testing.T) {
			e := twoAccounts(t)
			f.User = "ci-bot"
			e.jira.Fault(f)
			resp, err := e.request(t.Context(), logical.ReadOperation, "creds/readonly", nil)
			e.failed(503, resp, err)
			e.jira.ResetCalls()
			resp, err = e.request(t.Context(), logical.ReadOperation, "creds/release", nil)
			e.failed(503, resp, err, "pause in calls until")
			if n := e.jira.Count("", ""); n != 0 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// A service account whose grants Jira limits waits alone, too, though it logs in anew
// for each access token.
func TestALimitOnAServiceAccount(t *testing.T) {
	e := start(t, jiratest.Options{Version: "11.0.0"})
	e.write("config", map[string]any{"url": e.jira.URL()})
	a := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting"})
	e.write("accounts/reporting", map[string]any{"type": "oauth2", "client_id": a.ClientID, "client_secret": a.ClientSecret})
	e.write("roles/r", map[string]any{"accounts": "reporting", "credential_type": "oauth2"})
	f := limited("")
	f.Path = "/rest/oauth2"
	e.jira.Fault(f)
	for range 3 {
		resp, err := e.request(t.Context(), logical.ReadOperation, "creds/r", nil)
		e.failed(503, resp, err, "of this user")
	}
	if n := e.jira.Count("POST", "/rest/oauth2"); n != 2 { // one with the write
		t.Errorf("%d grants were asked for", n)
	}
	if paused := e.read("status")["limits"].(map[string]any)["paused"].(map[string]any); paused["reporting"] == nil {
		t.Errorf("paused: %v", paused)
	}
	if time.Until(e.sites.gate.ShutUntil()) > 0 {
		t.Error("the site is left alone")
	}
}

// While Jira is known to be down, a revoke that somebody waits for fails at once. It is
// the call that tries Jira where its turn has come.
func TestARevokeWhileJiraIsDownDoesNotWait(t *testing.T) {
	e := configured(t, jiratest.Options{})
	first, second := e.issue("readonly", nil).Secret, e.issue("readonly", nil).Secret
	e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: http.StatusInternalServerError})
	site, err := e.sites.of(&e.sites.config)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // until it is left alone for as long as it ever is
		if _, err := site.As(jira.Login{}).ServerInfo(t.Context()); err == nil {
			t.Fatal("Jira answers")
		}
	}
	e.sites.gate.SetLongestPause(jira.LongestPause)
	_, _ = site.As(jira.Login{}).ServerInfo(t.Context())
	if time.Until(e.sites.gate.ShutUntil()) < time.Second {
		t.Fatal("the gate is open")
	}
	e.jira.ResetCalls()
	for _, secret := range []*logical.Secret{first, second} {
		resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, secret)
		e.failed(503, resp, err, "Jira has not answered the last")
	}
	if n := e.jira.Count("", ""); n != 0 {
		t.Errorf("%d calls", n)
	}
	e.jira.ClearFaults()
	time.Sleep(time.Until(e.sites.gate.ShutUntil()))
	e.revoke(first) // which tries Jira
	e.revoke(second)
	e.nothingHeld()
}
