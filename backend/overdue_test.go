package backend

import (
	"testing"
	"time"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

// What is due and is not done is told, be it owed or not, and nothing else is.
func TestStatusFindsWhatIsOverdue(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault jiratest.Fault
		begin func(*engine)
		state string
		words string
	}{
		{
			"a lease that Vault has lost",
			jiratest.Fault{Method: "GET", Path: tokensAPI, Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`},
			func(e *engine) {
				e.issue("readonly", nil)
				e.pass(time.Hour + ledger.Grace + time.Millisecond)
			}, "issued", "0 intended, which Jira has to be asked for; 1 issued, whose lease is over; 0 ended",
		},
		{
			"a mint without an answer",
			jiratest.Fault{Method: "GET", Path: tokensAPI, Times: -1, Do: jiratest.Answer, Status: 403, Body: `{"message":"not now"}`},
			func(e *engine) {
				e.jira.Fault(jiratest.Fault{Method: "POST", Path: tokensAPI, Nth: 1, Do: jiratest.LoseAnswer})
				if _, err := e.request(e.t.Context(), "read", "creds/readonly", nil); err == nil {
					e.t.Fatal("a token was made")
				}
			}, "intended", "1 intended, which Jira has to be asked for; 0 issued, whose lease is over; 0 ended",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			remove := e.jira.Fault(tt.fault)
			tt.begin(e)
			for range 2 { // it is tried, again and again, and stays as old
				e.settled()
				e.well()
				e.pass(55 * time.Second)
			}
			e.settled()
			e.pass(15 * time.Second)
			e.settled()
			e.finds("1 records something is due for more than two minutes, for the oldest for 2m5s", tt.words)
			_, reasons, data := e.status()
			if l := data["ledger"].(map[string]any); l["overdue"] != 1 || l["oldest_overdue_seconds"] != 125 {
				t.Errorf("ledger %v, %s", l, reasons)
			}
			if m := e.value("ledger_overdue_records", "state", tt.state); m != 1 {
				t.Errorf("the metrics say %v", m)
			}
			remove()
			e.pass(time.Minute)
			e.settled()
			e.well()
			e.pass(25 * time.Hour)
			e.settled()
			e.nothingHeld()
		})
	}
}

// An access token only its own end ends: it is not overdue while it lives.
func TestWhatEndsByItselfIsNotOverdue(t *testing.T) {
	e, _ := serviceAccount(t, jiratest.Options{}, nil)
	e.issue("report", map[string]any{"ttl": "60s"})
	e.pass(time.Minute + ledger.Grace)
	e.settled()
	e.pass(5 * time.Minute)
	e.settled()
	if late, _ := e.late(); len(late.Count) != 0 {
		t.Errorf("overdue: %v", late)
	}
	e.pass(time.Hour)
	e.settled()
	e.nothingHeld()
}

// A worker that does not turn does nothing of what is due, and tells nobody.
func TestStatusFindsAWorkerThatStands(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.settled()
	e.pass(idlePatience - time.Second)
	e.well()
	e.pass(2 * time.Second)
	e.finds("has not looked for what is due for 3m")
	if m := e.value("worker_idle_seconds"); m < 180 {
		t.Errorf("the metrics say %v", m)
	}
	e.settled()
	e.well()
}
