package jira

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// TestHealth: a Jira says how it is to anybody.
func TestHealth(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	site := newSite(t, s, Options{})
	h, err := site.Health(t.Context(), false)
	if err != nil || h.State != "RUNNING" || h.Date.IsZero() || h.Took <= 0 {
		t.Errorf("%+v, %v", h, err)
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.State = "STARTING" })
	if h, err := site.Health(t.Context(), false); err != nil || h.State != "STARTING" {
		t.Errorf("%+v, %v", h, err)
	}
	for _, date := range []string{"absent", "yesterday"} {
		s.SetSwitches(func(sw *jiratest.Switches) { sw.Date = date })
		if h, err := site.Health(t.Context(), false); err != nil || !h.Date.IsZero() {
			t.Errorf("%s: %+v, %v", date, h, err)
		}
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.State = "MAINTENANCE" })
	_, err = site.Health(t.Context(), false)
	wants(t, err, Down, "503")
	s.SetSwitches(func(sw *jiratest.Switches) { sw.State = "" })
	site = newSite(t, s, Options{}) // whose gate knows of no trouble
	remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 200, Body: `{"state":"RUNNING"}`, Header: http.Header{"X-Anodeid": {"node-2"}}})
	if h, err := site.Health(t.Context(), false); err != nil || h.Node != "node-2" {
		t.Errorf("%+v, %v", h, err)
	}
	remove()
	s.Fault(jiratest.Fault{Do: jiratest.HTML200})
	_, err = site.Health(t.Context(), false)
	wants(t, err, Nonsense)

	cloud, _, there, _ := newCloud(t)
	if h, err := there.Health(t.Context(), true); err != nil || h.State != "RUNNING" {
		t.Errorf("%+v, %v, of %v", h, err, cloud.URL())
	}
}

// TestRateLimitIsHeard: what Jira says of a user's limit is remembered.
func TestRateLimitIsHeard(t *testing.T) {
	gate := NewGate(1)
	s := newJira(t, jiratest.Options{})
	c := newSite(t, s, Options{Gate: gate}).As(Login{Username: "ci", Password: password})
	if _, err := c.Tokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, at := gate.RateLimit(); !at.IsZero() {
		t.Error("heard of a limit that there is not")
	}
	s.SetSwitches(func(sw *jiratest.Switches) { sw.RateLimit = 50 })
	if _, err := c.Tokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	if limit, left, at := gate.RateLimit(); limit != 50 || left < 1 || left > 50 || at.IsZero() {
		t.Errorf("%d of %d, at %v", left, limit, at)
	}
}

// TestObserve: each call that was sent is told, those that are repeated as well.
func TestObserve(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	var mu sync.Mutex
	seen := map[string]map[int]int{}
	c := newSite(t, s, Options{Observe: func(method string, status int, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if seen[method] == nil {
			seen[method] = map[int]int{}
		}
		if seen[method][status]++; took <= 0 {
			t.Errorf("took %v", took)
		}
	}}).As(Login{Username: "ci", Password: password})
	s.Fault(jiratest.Fault{Method: "GET", Nth: 1, Do: jiratest.LoseAnswer})
	s.Fault(jiratest.Fault{Method: "GET", Nth: 2, Do: jiratest.Answer, Status: 503})
	if _, err := c.Tokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	tok, _, err := c.CreateToken(t.Context(), "nightly", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteToken(t.Context(), tok.ID); err != nil {
		t.Fatal(err)
	}
	if seen["GET"][0] != 1 || seen["GET"][503] != 1 || seen["GET"][200] != 1 || seen["POST"][201] != 1 || seen["DELETE"][204] != 1 {
		t.Errorf("seen %v", seen)
	}
}
