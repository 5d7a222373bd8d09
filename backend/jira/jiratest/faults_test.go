package jiratest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

const mintBody = `{"name":"vault-n","expirationDuration":1}`

// What each misbehaviour does to a mint: whether the client gets an answer, and how many tokens there are afterwards.
func TestMisbehaviours(t *testing.T) {
	for _, c := range []struct {
		fault  jiratest.Fault
		status int // 0: none that can be read to its end
		body   string
		tokens int
	}{
		{jiratest.Fault{Do: jiratest.Answer, Status: 502, Body: "<html>"}, 502, "<html>", 0},
		{jiratest.Fault{Do: jiratest.Answer}, 200, "", 0},
		{jiratest.Fault{Do: jiratest.AnswerAfter, Status: 502, Body: "<html>"}, 502, "<html>", 1},
		{jiratest.Fault{Do: jiratest.LoseCall}, 0, "", 0},
		{jiratest.Fault{Do: jiratest.LoseAnswer}, 0, "", 1},
		{jiratest.Fault{Do: jiratest.CutBody}, 0, "", 1},
		{jiratest.Fault{Do: jiratest.Slow, Delay: time.Millisecond}, 201, "rawToken", 1},
		{jiratest.Fault{Do: jiratest.HTML200}, 200, "Log in", 0},
		{jiratest.Fault{Do: jiratest.HTML404}, 404, "<html", 0},
		{jiratest.Fault{Do: jiratest.Anonymous}, 401, "must be authenticated", 0},
		{jiratest.Fault{Do: jiratest.Redirect, Target: "http://example.test/x/"}, 307, "", 0},
		{jiratest.Fault{Do: jiratest.Twice}, 201, "rawToken", 2},
	} {
		t.Run(string(c.fault.Do), func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.Leave()
			s.Fault(c.fault)
			r, err := basic(t, s, "ci").try(t.Context(), "POST", patTokens, mintBody)
			if (err != nil) != (c.status == 0) {
				t.Errorf("answered %v, %v", r, err)
			}
			if err == nil && (r.status != c.status || !strings.Contains(r.body, c.body)) {
				t.Errorf("answered %v", r)
			}
			if c.fault.Do == jiratest.Redirect && r.header.Get("Location") != "http://example.test/x"+patTokens {
				t.Errorf("redirected to %q", r.header.Get("Location"))
			}
			if n := len(s.Tokens("")); n != c.tokens {
				t.Errorf("%d tokens, want %d", n, c.tokens)
			}
			calls := s.Calls()
			if len(calls) != 1 || calls[0].Fault != string(c.fault.Do) || calls[0].User != "ci" || calls[0].Auth != "basic" {
				t.Errorf("calls %+v", calls)
			}
		})
	}
}

// A cut body breaks off in the middle of what was announced.
func TestCutBody(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Fault(jiratest.Fault{Do: jiratest.CutBody})
	ci := basic(t, s, "ci")
	r, err := ci.try(t.Context(), "GET", myself, "")
	if !errors.Is(err, io.ErrUnexpectedEOF) || r.status != 200 || r.header.Get("Content-Length") != fmt.Sprint(2*len(r.body)) &&
		r.header.Get("Content-Length") != fmt.Sprint(2*len(r.body)+1) {
		t.Errorf("answered %v, %v", r, err)
	}
	k, _ := s.Mint("ci", "n", 0)
	if _, err := ci.try(t.Context(), "DELETE", fmt.Sprintf("%s/%d", patTokens, k.ID), ""); err == nil || len(s.Tokens("ci")) != 0 {
		t.Errorf("a cut answer without a body: %v; left %v", err, s.Tokens("ci"))
	}
}

// hang makes a call that is answered by nothing, and gives it up once it has come.
func hang(t *testing.T, s *jiratest.Server, c *client) {
	t.Helper()
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	seen := s.Count("POST", patTokens)
	failed := make(chan error)
	go func() {
		_, err := c.try(ctx, "POST", patTokens, mintBody)
		failed <- err
	}()
	if err := s.WaitCalls(t.Context(), "POST", patTokens, seen+1); err != nil {
		t.Fatal(err)
	}
	giveUp()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestHang(t *testing.T) {
	for do, tokens := range map[jiratest.Misbehaviour]int{jiratest.Hang: 0, jiratest.HangAfter: 1, jiratest.LateEffect: 1} {
		t.Run(string(do), func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			s.Leave()
			s.Fault(jiratest.Fault{Do: do, Nth: 1})
			ci := basic(t, s, "ci")
			hang(t, s, ci)
			if do == jiratest.LateEffect {
				s.WaitLate()
			} else {
				s.Close()
			}
			if n := len(s.Tokens("")); n != tokens {
				t.Errorf("%d tokens, want %d", n, tokens)
			}
			if c := s.Calls()[0]; c.Status != 0 {
				t.Errorf("answered: %+v", c)
			}
		})
	}
}

func TestLateEffectComesAfterTheClientHasGone(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Leave()
	s.Fault(jiratest.Fault{Do: jiratest.LateEffect, Method: "POST"})
	ci := basic(t, s, "ci")
	for n := range 3 {
		if got := len(s.Tokens("")); got != n {
			t.Errorf("%d tokens, want %d", got, n)
		}
		hang(t, s, ci)
		s.WaitLate()
	}
	s.Close()
	s.WaitLate() // does not wait for ever
}

func TestCloseLetsLateEffectsLand(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Leave()
	s.Fault(jiratest.Fault{Do: jiratest.LateEffect})
	ci := basic(t, s, "ci")
	failed := make(chan error)
	go func() {
		_, err := ci.try(t.Context(), "POST", patTokens, mintBody)
		failed <- err
	}()
	if err := s.WaitCalls(t.Context(), "POST", patTokens, 1); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Tokens("")); n != 0 {
		t.Errorf("%d tokens while the client waits", n)
	}
	s.Close()
	if err := <-failed; err == nil {
		t.Error("the call was answered")
	}
	if n := len(s.Tokens("")); n != 1 {
		t.Errorf("%d tokens", n)
	}
}

func TestWhichCallsGoWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault jiratest.Fault
		wrong string // of six calls
	}{
		{"every", jiratest.Fault{}, "xxxxxx"},
		{"third", jiratest.Fault{Nth: 3}, "..x..."},
		{"third and fourth", jiratest.Fault{Nth: 3, Times: 2}, "..xx.."},
		{"from the third", jiratest.Fault{Nth: 3, Times: -1}, "..xxxx"},
		{"first two", jiratest.Fault{Times: 2}, "xx...."},
		{"method", jiratest.Fault{Method: "get"}, "xxxxxx"},
		{"other method", jiratest.Fault{Method: "POST"}, "......"},
		{"path", jiratest.Fault{Path: "/rest/api/2/my"}, "xxxxxx"},
		{"query", jiratest.Fault{Path: "/rest/api/2/myself?n=2"}, "..x..."},
		{"other path", jiratest.Fault{Path: "/rest/pat"}, "......"},
		{"user", jiratest.Fault{User: "CI"}, "xxxxxx"},
		{"other user", jiratest.Fault{User: "other"}, "......"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newJira(t, jiratest.Options{})
			c.fault.Do, c.fault.Status = jiratest.Answer, 503
			s.Fault(c.fault)
			ci := basic(t, s, "ci")
			got := ""
			for n := range 6 {
				mark := map[int]string{200: ".", 503: "x"}
				got += mark[ci.do("GET", fmt.Sprintf("%s?n=%d", myself, n), "").status]
			}
			if got != c.wrong {
				t.Errorf("went wrong: %s, want %s", got, c.wrong)
			}
		})
	}
}

func TestFaultsTogether(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	remove := s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 501, Nth: 2})
	s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 502, Nth: 2, Times: 2})
	ci.want(200, "GET", myself, "")
	ci.want(501, "GET", myself, "")
	ci.want(502, "GET", myself, "")
	ci.want(200, "GET", myself, "")
	remove()
	remove()
	s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 503})
	ci.want(503, "GET", myself, "")
	s.ClearFaults()
	ci.want(200, "GET", myself, "")
	defer func() {
		if recover() == nil {
			t.Error("a fault that does nothing was added")
		}
	}()
	s.Fault(jiratest.Fault{Do: "nonsense"})
}

// A fault that answers for Jira has none of Jira's headers, and needs no login.
func TestFaultStandsInFront(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	s.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 429, Header: http.Header{"retry-after": {"7"}}, Body: `{"message":"slow"}`})
	for range 4 {
		r := as(t, s, basicHeader("ci", "wrong")).do("GET", myself, "")
		if r.status != 429 || r.header.Get("Retry-After") != "7" || r.header.Get("X-Ausername") != "" ||
			r.header.Get("Content-Type") != "application/json;charset=UTF-8" {
			t.Errorf("answered %v", r)
		}
	}
	s.ClearFaults()
	basic(t, s, "ci").want(200, "GET", myself, "") // no wrong password was counted
}

func TestHuge(t *testing.T) {
	s := newJira(t, jiratest.Options{})
	ci := basic(t, s, "ci")
	k, _ := s.Mint("ci", "n", 0)
	s.Fault(jiratest.Fault{Do: jiratest.Huge})
	for _, call := range []struct{ method, path, first, last string }{
		{"GET", patTokens, `[{"padding":"xxx`, fmt.Sprintf(`,{"createdAt":"2026-03-02T08:15:09.417+00:00","expiringAt":null,"id":%d,"name":"n"}]`, k.ID)},
		{"GET", patTokens + "/412", `{"padding":"xxx`, `,"name":"n"}`},
		{"DELETE", patTokens + "/412", `{"padding":"xxx`, `xxx"}`},
		{"GET", patTokens, `[{"padding":"xxx`, `xxx"}]`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), call.method, ci.base+call.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = ci.header
		res, err := ci.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len(call.first))
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != call.first {
			t.Errorf("begins with %s, %v", first, err)
		}
		tail := &lastBytes{n: len(call.last)}
		if n, err := io.Copy(tail, res.Body); err != nil || n < 100<<20 || string(tail.kept) != call.last {
			t.Errorf("%d bytes that end with %s, %v", n, tail.kept, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// lastBytes keeps the last n bytes of what is written to it.
type lastBytes struct {
	n    int
	kept []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p[max(0, len(p)-l.n):]...)
	l.kept = append([]byte{}, l.kept[max(0, len(l.kept)-l.n):]...)
	return len(p), nil
}
