package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// A declarative tool writes with each of its plans what it was given once. That does not
// undo what the engine has rotated since.
func TestADeclarativeToolUndoesNoRotation(t *testing.T) {
	for _, path := range []string{"accounts/ci-bot", "config"} {
		for _, kind := range []string{"token", "password"} {
			t.Run(path+" by "+kind, func(t *testing.T) {
				e := start(t, jiratest.Options{Switches: jiratest.Switches{CaptchaAfter: 2}})
				user, name, rotate := "ci-bot", "ci-bot", "rotate-account/ci-bot"
				planned := map[string]any{"username": user, "rotation_period": "720h", "overlap": "5m"}
				if path == "config" {
					user, name, rotate = "jira-admin", adminAccount, "rotate-root"
					planned["username"], planned["url"] = user, e.jira.URL()
				} else {
					e.write("config", map[string]any{"url": e.jira.URL()})
				}
				stored := func() *credential {
					t.Helper()
					a, err := e.loginOf(t.Context(), name)
					if err != nil {
						t.Fatal(err)
					}
					return &a.credential
				}
				if kind == "token" {
					made, secret := e.jira.Mint(user, "made by hand", 90)
					planned["token"], planned["own_token_id"] = secret, fmt.Sprint(made.ID)
				} else {
					planned["password"] = e.passwordOf(user)
				}
				e.write(path, planned)
				if resp := e.write(path, planned); strings.Contains(fmt.Sprint(resp), "replaced") { // it is in use
					t.Errorf("before a rotation: %+v", resp)
				}
				e.rotate(rotate)
				rotated := *stored()
				for _, later := range []time.Duration{0, time.Hour} { // in the overlap, and after it
					e.pass(later)
					e.tended()
					rotated.PreviousEnd, rotated.PreviousTokenID = stored().PreviousEnd, stored().PreviousTokenID
					for range 3 {
						resp := e.write(path, planned)
						if resp == nil || !strings.Contains(strings.Join(resp.Warnings, " "), kind+" is one that a rotation has replaced") {
							t.Fatalf("answered %+v", resp)
						}
						if *stored() != rotated {
							t.Fatalf("the credential is %+v\nand was %+v", stored(), rotated)
						}
					}
				}
				if kind == "token" {
					if live := e.liveTokens(user); len(live) != 1 || !strings.HasSuffix(live[0], "-own") {
						t.Errorf("alive: %v", live)
					}
				}
				// Other fields of such a write are applied.
				planned["overlap"] = "10m"
				e.write(path, planned)
				if got := e.read(path)["overlap"]; got != 600 {
					t.Errorf("overlap is %v", got)
				}
				// Nor does it undo the second rotation, nor what an operator has written since.
				e.rotate(rotate)
				e.write(path, planned)
				e.jira.SetUser(user, func(u *jiratest.User) { u.Password = "by hand now" })
				byHand := map[string]any{"password": "by hand now"}
				if kind == "token" {
					byHand = map[string]any{"token": e.pat(user)}
				}
				e.write(path, byHand)
				want := stored().login()
				e.write(path, planned)
				if got := stored().login(); got != want {
					t.Errorf("it logs in with %+v, want %+v", got, want)
				}
				e.tended()
				// By force it is tried.
				planned["force"] = true
				e.refuses(400, logical.UpdateOperation, path, planned, "login refused")
				if kind == "password" {
					e.jira.SetUser(user, func(u *jiratest.User) { u.Password = planned["password"].(string) })
					e.write(path, planned)
					if got := stored().Password; got != planned["password"] {
						t.Errorf("the password is %q", got)
					}
				}
			})
		}
	}
}

// What is stored of a credential that was replaced does not tell it, and is bounded.
func TestWhatIsKnownOfReplacedCredentials(t *testing.T) {
	var known replaced
	for i := range 25 {
		known = known.with(fmt.Sprintf("secret %d", i))
	}
	if known.has("secret 14") || !known.has("secret 15") || !known.has("secret 24") || known.has("") || known.without("secret 20").has("secret 20") {
		t.Error("not the last ten are known")
	}
	if len(known) > 700 || strings.Contains(string(known), "secret") {
		t.Errorf("stored as %s", known)
	}
	if once, again := fingerprint("x"), fingerprint("x"); once == again {
		t.Error("two hashes of one secret are alike")
	}
}

// The next token is stored before it is proven. To write it changes nothing.
func TestTheNextTokenIsWritten(t *testing.T) {
	e := rotatable(t, jiratest.Options{})
	e.jira.Fault(jiratest.Fault{Method: "GET", Path: "/rest/api/2/myself", Do: jiratest.LoseCall})
	e.refuse503(t, "rotate-account/ci-bot")
	e.jira.ClearFaults()
	a, err := e.loadAccount(t.Context(), "ci-bot")
	if err != nil || a.Next == "" {
		t.Fatalf("there is no next token: %v", err)
	}
	next := a.Next
	e.write("accounts/ci-bot", map[string]any{"token": next})
	if a, err = e.loadAccount(t.Context(), "ci-bot"); err != nil || a.Next != next || a.Token == next {
		t.Errorf("the account has %+v: %v", a, err)
	}
	e.pass(time.Hour)
	e.tended()
	if e.own("ci-bot") != next {
		t.Error("the rotation was not finished")
	}
	e.dismantled()
}

// refuse503 sends a write that fails because Jira does not answer.
func (e *engine) refuse503(t *testing.T, path string) {
	t.Helper()
	resp, err := e.request(t.Context(), logical.UpdateOperation, path, nil)
	e.failed(503, resp, err)
}
