package jiratest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// steer returns a client of the control endpoints, which lie outside the context path.
func steer(t *testing.T, s *jiratest.Server) *client {
	t.Helper()
	c := as(t, s, "")
	c.base = strings.TrimSuffix(s.URL(), "/jira")
	return c
}

func TestControl(t *testing.T) {
	s := newJira(t, jiratest.Options{Control: true})
	sim, ci := steer(t, s), basic(t, s, "ci")
	_, with := ci.mint(s, "vault-n")

	if r := sim.do("GET", "/_sim/calls", ""); !strings.Contains(r.body, `"Method":"POST","Path":"/rest/pat/latest/tokens","User":"ci"`) {
		t.Errorf("calls %v", r)
	}
	sim.want(200, "DELETE", "/_sim/calls", "")
	if r := sim.do("GET", "/_sim/calls", ""); r.body != "[]\n" {
		t.Errorf("calls %v", r)
	}
	raw := strings.TrimPrefix(with.header.Get("Authorization"), "Bearer ")
	if r := sim.do("GET", "/_sim/tokens", ""); !strings.Contains(r.body, `"Live":true`) || strings.Contains(r.body, raw) {
		t.Errorf("tokens %v", r)
	}
	if r := sim.do("GET", "/_sim/secrets", ""); !strings.Contains(r.body, raw) || !strings.Contains(r.body, "the password of ci") {
		t.Errorf("secrets %v", r)
	}
	sim.want(400, "GET", "/_sim/nothing", "")

	sim.want(200, "PATCH", "/_sim/switches", `{"listLag":"1m","MaxTokens":1,"BasicAllowed":["root"]}`)
	ci.want(403, "POST", patTokens, mintBody)
	if got := ci.list(); got != "" {
		t.Errorf("no lag: %q", got)
	}
	for _, wrong := range []string{`{"nothing":1}`, `{"MaxTokens":"x"}`, `{"ListLag":1}`, `{"ListLag":"x"}`, `[]`} {
		sim.want(400, "PATCH", "/_sim/switches", wrong)
	}
	if now := sim.want(200, "POST", "/_sim/clock", `{"advance":"24h"}`)["now"]; now != "2026-03-03T08:15:09.417Z" {
		t.Errorf("now %v", now)
	}
	sim.want(400, "POST", "/_sim/clock", `{"advance":"soon"}`)
	with.want(401, "GET", myself, "")
	sim.want(200, "POST", "/_sim/wait-gone", `{"name":"vault-n"}`)
}

func TestControlProjectsAndUsers(t *testing.T) {
	s := newJira(t, jiratest.Options{Control: true})
	sim, ci := steer(t, s), basic(t, s, "ci")
	sim.want(200, "POST", "/_sim/project", `{"key":"ops","name":"Operations","restricted":true,"groups":["operators"]}`)
	for _, wrong := range []string{`{"key":"OPS"}`, `{}`, `{"key":"X","closed":true}`} {
		sim.want(400, "POST", "/_sim/project", wrong)
	}
	const ops = "/rest/api/2/project/OPS"
	ci.want(404, "GET", ops, "")
	basic(t, s, "root").want(201, "POST", "/rest/api/2/group/user?groupname=operators", `{"name":"ci"}`)
	ci.want(200, "GET", ops, "")
	if r := sim.do("GET", "/_sim/users", ""); !strings.Contains(r.body, `"Name":"ci"`) || !strings.Contains(r.body, "operators") || strings.Contains(r.body, "the password of ci") {
		t.Errorf("users %v", r)
	}
}

func TestControlServiceAccounts(t *testing.T) {
	s := newJira(t, jiratest.Options{Control: true, Version: "11.0.0"})
	sim := steer(t, s)
	sim.want(200, "POST", "/_sim/project", `{"key":"OPS"}`)
	sim.want(200, "POST", "/_sim/project", `{"key":"HR"}`)
	made := sim.want(200, "POST", "/_sim/service-account", `{"name":"reporting","scopes":["READ"],"projects":["OPS"]}`)
	id, _ := made["ClientID"].(string)
	secret, _ := made["ClientSecret"].(string)
	reader := access(t, s, jiratest.ServiceAccount{ClientID: id, ClientSecret: secret}, "")
	reader.want(200, "GET", "/rest/api/2/project/OPS", "")
	reader.want(404, "GET", "/rest/api/2/project/HR", "")
	reader.want(403, "POST", "/rest/api/2/issue", "{}")
	for _, wrong := range []string{`{}`, `{"name":"another","clientID":"` + id + `"}`, `{"name":"another","password":"x"}`} {
		sim.want(400, "POST", "/_sim/service-account", wrong)
	}
	if r := sim.do("GET", "/_sim/secrets", ""); secret == "" || !strings.Contains(r.body, secret) {
		t.Errorf("secrets %v", r)
	}
}

func TestControlFaults(t *testing.T) {
	s := newJira(t, jiratest.Options{Control: true})
	sim, ci := steer(t, s), basic(t, s, "ci")
	first := sim.want(200, "POST", "/_sim/fault", `{"method":"GET","path":"/rest/api","do":"Answer","status":503,"header":{"Retry-After":["1"]},"delay":"1s"}`)
	sim.want(200, "POST", "/_sim/fault", `{"do":"HTML404"}`)
	ci.want(503, "GET", myself, "")
	sim.want(200, "DELETE", fmt.Sprintf("/_sim/faults/%v", first["id"]), "")
	ci.want(404, "GET", myself, "")
	sim.want(200, "DELETE", "/_sim/faults", "")
	ci.want(200, "GET", myself, "")
	for _, wrong := range []string{`{"do":"nonsense"}`, `{"do":"Hang","when":"now"}`, `{"do":"Slow","delay":1}`, `{"do":"Slow","delay":"x"}`, ``} {
		sim.want(400, "POST", "/_sim/fault", wrong)
	}
	sim.want(400, "DELETE", "/_sim/faults/x", "")
}

func TestControlWaits(t *testing.T) {
	s := newJira(t, jiratest.Options{Control: true})
	sim, ci := steer(t, s), basic(t, s, "ci")
	path, _ := ci.mint(s, "vault-n")
	id := s.Tokens("ci")[0].ID
	sim.want(200, "POST", "/_sim/wait", `{"method":"POST","path":"/rest/pat","answered":true}`)
	sim.want(408, "POST", "/_sim/wait", `{"method":"DELETE","path":"/rest/pat","timeout":"1ns"}`)
	sim.want(408, "POST", "/_sim/wait-gone", `{"name":"vault-n","timeout":"1ns"}`)
	sim.want(408, "POST", "/_sim/wait-gone", fmt.Sprintf(`{"id":"%d","timeout":"1ns"}`, id))
	sim.want(200, "POST", "/_sim/wait-gone", `{"name":"nobody's"}`)
	for _, wrong := range []string{`{}`, `{"id":1,"name":"n"}`, `{"name":"n","timeout":"x"}`, `{"nam":"n"}`} {
		sim.want(400, "POST", "/_sim/wait-gone", wrong)
	}
	sim.want(400, "POST", "/_sim/wait", `{"timeout":"x"}`)

	done := make(chan reply, 3)
	for call, body := range map[string]string{
		"wait":       `{"method":"DELETE","path":"/rest/pat/latest/tokens/","count":1}`,
		"wait-gone":  `{"name":"vault-n"}`,
		"wait-gone?": fmt.Sprintf(`{"id":%d}`, id),
	} {
		go func() {
			r, err := sim.try(t.Context(), "POST", "/_sim/"+call, body)
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
	}
	ci.want(204, "DELETE", path, "")
	for range 3 {
		if r := <-done; r.status != 200 {
			t.Errorf("waited for %v", r)
		}
	}
}

func TestWaitsEndWithTheirContextAndWithJira(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitCalls(ctx, "", "", 1); err == nil {
		t.Error("a call was seen")
	}
	s.Mint("ci", "n", 0)
	if err := s.WaitGone(ctx, "n"); err == nil {
		t.Error("a live token is gone")
	}
	s.Close()
	if err := s.WaitCalls(t.Context(), "", "", 1); err == nil {
		t.Error("a call was seen by a closed Jira")
	}
}
