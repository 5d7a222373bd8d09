package backend

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

func TestAccountIsReadAsItWasWritten(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL()})
	if got := e.read("accounts/ci-bot"); got != nil {
		t.Errorf("before it is written: %v", got)
	}
	if resp := e.write("accounts/ci-bot", map[string]any{"username": "CI-Bot", "token": e.pat("ci-bot")}); resp != nil {
		t.Errorf("a clean write answers %+v", resp)
	}
	got := e.read("accounts/ci-bot")
	for field, want := range map[string]any{
		"type": "user", "username": "ci-bot", "credential_kind": "token", "max_tokens": 10, "allow_admin": false, "room": 8, "held": 0,
	} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "open sesame now" })
	e.write("accounts/ci-bot", map[string]any{"password": "open sesame now"})
	e.must(logical.PatchOperation, "accounts/ci-bot", map[string]any{"max_tokens": 5})
	if got := e.read("accounts/ci-bot"); got["credential_kind"] != "password" || got["room"] != 5 {
		t.Errorf("account %v", got)
	}
	resp := e.must(logical.ListOperation, "accounts/", nil)
	if keys := resp.Data["keys"].([]string); len(keys) != 1 || keys[0] != "ci-bot" {
		t.Errorf("keys %v", keys)
	}
	if info := fmt.Sprint(resp.Data["key_info"]); !strings.Contains(info, "username:ci-bot") || strings.Contains(info, "sesame") {
		t.Errorf("key_info %s", info)
	}
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
	e.must(logical.ListOperation, "accounts/", nil)
}

func TestAccountThatCannotWork(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "open sesame now" })
	e.jira.AddUser(jiratest.User{Name: "gone", Inactive: true})
	token := e.pat("ci-bot")
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "token": token}, "write config")
	e.write("config", map[string]any{"url": e.jira.URL(), "token": e.pat("jira-admin")})
	e.write("accounts/other", map[string]any{"username": "release-bot", "token": e.pat("release-bot")})
	for _, tt := range []struct {
		name  string
		data  map[string]any
		words string
	}{
		{"nothing", map[string]any{}, "username is missing"},
		{"no credential", map[string]any{"username": "ci-bot"}, "token or password is missing"},
		{"no user", map[string]any{"token": token}, "username is missing"},
		{"both", map[string]any{"username": "ci-bot", "token": token, "password": "p"}, "together"},
		{"an unknown type", map[string]any{"type": "robot", "username": "ci-bot", "token": token}, `type "robot"`},
		{"no room by token", map[string]any{"username": "ci-bot", "token": token, "max_tokens": 2}, "no room"},
		{"no room", map[string]any{"username": "ci-bot", "token": token, "max_tokens": 0}, "max_tokens"},
		{"another's token", map[string]any{"username": "release-bot", "token": token}, `belongs to "ci-bot", not to "release-bot"`},
		{"a dead token", map[string]any{"username": "ci-bot", "token": "bm9ib2R5cyB0b2tlbg=="}, "login refused"},
		{"a wrong password", map[string]any{"username": "ci-bot", "password": "sesame open"}, "login refused"},
		{"a user who is not active", map[string]any{"username": "gone", "token": e.pat("gone")}, "not active"},
		{"an administrator", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin")}, "administers Jira"},
		{"the config's own user", map[string]any{"username": "jira-admin", "token": e.pat("jira-admin"), "allow_admin": true}, "config's own"},
		{"another account's user", map[string]any{"username": "release-bot", "token": e.pat("release-bot")}, `account "other" already`},
		{"a line break in the token", map[string]any{"username": "ci-bot", "token": token + "\n" + token}, "a line break"},
	} {
		e.in(tt.name, func(e *engine) {
			e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", tt.data, tt.words)
		})
	}
	e.refuses(400, logical.PatchOperation, "accounts/ci-bot", map[string]any{"max_tokens": 5}, "to patch")
	for _, name := range []string{"a b", "ä", "a..b", strings.Repeat("x", 256), "x:y"} {
		e.refuses(400, logical.UpdateOperation, "accounts/"+name, map[string]any{"username": "ci-bot", "token": token}, "cannot be the name")
	}
	e.write("accounts/"+strings.Repeat("x", 200), map[string]any{"username": "ci-bot", "token": token + "\n"}) // as files end
}

// What Jira, or something before it, may answer when a credential is checked:
// a clear error, and nothing stored.
func TestAccountIsCheckedAgainstJira(t *testing.T) {
	other := jiratest.New(t, jiratest.Options{})
	captcha := http.Header{"X-Authentication-Denied-Reason": {"CAPTCHA_CHALLENGE; login-url=https://jira.example.com/login.jsp"}, "Content-Type": {"text/html"}}
	for _, tt := range []struct {
		name   string
		fault  jiratest.Fault
		status int
		words  string
	}{
		{"lost", jiratest.Fault{Do: jiratest.LoseCall}, 503, "unavailable"},
		{"no answer", jiratest.Fault{Do: jiratest.Hang}, 503, "no complete answer in time"},
		{"503", jiratest.Fault{Do: jiratest.Answer, Status: 503, Body: "Jira is starting"}, 503, "Jira is starting"},
		{"429", jiratest.Fault{Do: jiratest.Answer, Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, 503, "until"},
		{"a login page", jiratest.Fault{Do: jiratest.HTML200}, 502, "web page"},
		{"an HTML 404", jiratest.Fault{Do: jiratest.HTML404}, 502, "context path"},
		{"cut", jiratest.Fault{Do: jiratest.CutBody}, 502, "cut short"},
		{"100 MB", jiratest.Fault{Do: jiratest.Huge}, 502, "longer than"},
		{"a redirect", jiratest.Fault{Do: jiratest.Redirect, Target: other.URL()}, 502, "redirect"},
		{"anonymous", jiratest.Fault{Do: jiratest.Anonymous}, 400, "login refused"},
		{"an anonymous 200", jiratest.Fault{Do: jiratest.Answer, Status: 200, Header: http.Header{"X-Ausername": {"anonymous"}}, Body: `{"name":"ci-bot","key":"k","active":true}`}, 400, "anonymous visitor"},
		{"401", jiratest.Fault{Do: jiratest.Answer, Status: 401, Body: `{"message":"who are you"}`}, 400, "who are you"},
		{"403 with CAPTCHA", jiratest.Fault{Do: jiratest.Answer, Status: 403, Header: captcha, Body: "<html></html>"}, 400, "CAPTCHA_CHALLENGE"},
		{"403", jiratest.Fault{Do: jiratest.Answer, Status: 403, Body: `{"message":"not you"}`}, 400, "not you"},
		{"a user without name", jiratest.Fault{Do: jiratest.Answer, Status: 200, Body: `{"active":true}`}, 502, "without name"},
	} {
		for _, path := range []string{"/rest/api/2/myself", "/rest/api/2/mypermissions"} {
			if strings.Contains(tt.name, "user") && strings.HasSuffix(path, "mypermissions") {
				continue
			}
			t.Run(tt.name+" of "+path, func(t *testing.T) {
				t.Parallel()
				e := start(t, jiratest.Options{})
				fault := tt.fault // which the other path's case has, too
				timeout := "20s"
				if fault.Do == jiratest.Hang {
					timeout = "1s"
				}
				e.write("config", map[string]any{"url": e.jira.URL(), "request_timeout": timeout})
				fault.Method, fault.Path = "GET", path
				e.jira.Fault(fault)
				e.refuses(tt.status, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")}, tt.words)
			})
		}
	}
	if n := len(other.Calls()); n != 0 {
		t.Errorf("the other host saw %d calls", n)
	}
}

func TestBasicAuthenticationSwitchedOff(t *testing.T) {
	e := start(t, jiratest.Options{Switches: jiratest.Switches{BasicOff: true}})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "open sesame now" })
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "password": "open sesame now"}, "Basic Authentication has been disabled", "use a token")
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
}

func TestAnAdministratorOnlyWhenAllowed(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.jira.AddUser(jiratest.User{Name: "root", SysAdmin: true})
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.refuses(400, logical.UpdateOperation, "accounts/root", map[string]any{"username": "root", "token": e.pat("root")}, "allow_admin=true")
	e.write("accounts/root", map[string]any{"username": "root", "token": e.pat("root"), "allow_admin": true})
	e.refuses(400, logical.PatchOperation, "accounts/root", map[string]any{"allow_admin": nil}, "allow_admin=true")
	e.refuses(400, logical.UpdateOperation, "config", map[string]any{"token": e.pat("root")}, `account "root" already`)
}

func TestAnAccountStaysWhileItIsNeeded(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.write("roles/two", map[string]any{"accounts": "ci-bot"})
	secret := e.issue("two", nil).Secret
	e.refuses(400, logical.DeleteOperation, "accounts/ci-bot", nil, "roles name it: readonly, two")
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.must(logical.DeleteOperation, "roles/two", nil)
	e.refuses(400, logical.DeleteOperation, "accounts/ci-bot", nil, "leases hold tokens", "vault lease revoke -sync -prefix jira/creds/two/")
	e.refuses(400, logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "release-bot", "token": e.pat("release-bot")}, "user cannot be changed")
	e.write("accounts/ci-bot", map[string]any{"token": e.pat("ci-bot")})

	// He is the same under another name, and the engine follows; until it is
	// told, it knows him by his key.
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Name = "ci-robot" })
	e.write("roles/two", map[string]any{"accounts": "ci-bot"})
	e.revoke(e.issue("two", nil).Secret)
	e.write("accounts/ci-bot", map[string]any{"username": "ci-robot"})
	e.revoke(secret)
	e.nothingHeld()
	e.must(logical.DeleteOperation, "roles/two", nil)
	e.must(logical.DeleteOperation, "accounts/ci-bot", nil)
}

// withheld is storage that does not give what lies under key.
type withheld struct {
	logical.Storage
	key string
}

func (w *withheld) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if key == w.key {
		return nil, errStorage
	}
	return w.Storage.Get(ctx, key)
}

// Until the ledger is read, nobody knows what an account holds.
func TestADeleteWaitsForTheLedger(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.backend = newBackend(e.storage, e.now)
	if err := e.Setup(t.Context(), &logical.BackendConfig{StorageView: e.storage, System: e.system}); err != nil {
		t.Fatal(err)
	}
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	e.refuses(503, logical.DeleteOperation, "accounts/ci-bot", nil, "ledger")
	e.refuses(503, logical.DeleteOperation, "config", nil, "ledger")
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot"})
	secret := e.issue("readonly", nil).Secret // mints go on
	e.revoke(secret)

	// What keeps it from being read is told, too.
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: ledgerPrefix + "ab/abcd", Value: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	e.storage.Storage = &withheld{e.storage.Storage, ledgerPrefix + "ab/abcd"}
	e.must(logical.DeleteOperation, "roles/readonly", nil)
	reading := make(chan struct{})
	go func() { e.loadLedger(); close(reading) }()
	for e.unread.Load() == nil {
		runtime.Gosched()
	}
	resp, err := e.request(t.Context(), logical.DeleteOperation, "accounts/ci-bot", nil)
	e.failed(503, resp, err, "could not be read", `"abcd"`, errStorage.Error())
	e.cancelBackground()
	<-reading
}

// Two writers at once: neither loses what the other wrote, and one user is
// never two accounts.
func TestTwoWritersAtOnce(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.write("accounts/one", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	both := func(a, b func() error) (errs []error) {
		var mu sync.Mutex
		var writers sync.WaitGroup
		for _, f := range []func() error{a, b} {
			writers.Go(func() {
				err := f()
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
				}
			})
		}
		writers.Wait()
		return errs
	}
	write := func(path string, data map[string]any) func() error {
		return func() error {
			_, err := e.request(t.Context(), logical.UpdateOperation, path, data)
			return err
		}
	}
	for i := range 20 {
		// Both are held up in Jira, so that they have read the same.
		if errs := both(write("accounts/one", map[string]any{"max_tokens": 20 + i}), write("accounts/one", map[string]any{"allow_admin": i%2 == 0})); errs != nil {
			t.Fatal(errs)
		}
		if got := e.read("accounts/one"); got["max_tokens"] != 20+i || got["allow_admin"] != (i%2 == 0) {
			t.Fatalf("account %v", got)
		}
		if errs := both(write("config", map[string]any{"max_token_days": 20 + i}), write("config", map[string]any{"max_concurrent_requests": 1 + i})); errs != nil {
			t.Fatal(errs)
		}
		if got := e.read("config"); got["max_token_days"] != 20+i || got["max_concurrent_requests"] != 1+i {
			t.Fatalf("config %v", got)
		}
		token := e.pat("release-bot")
		errs := both(write("accounts/two", map[string]any{"username": "release-bot", "token": token}), write("accounts/three", map[string]any{"username": "release-bot", "token": token}))
		if len(errs) != 1 {
			t.Fatalf("one user in two accounts: %v", errs)
		}
		e.failed(400, nil, errs[0], "already")
		e.must(logical.DeleteOperation, "accounts/two", nil)
		e.must(logical.DeleteOperation, "accounts/three", nil)
	}
}

// A password that Jira refused is not tried again: three wrong ones lock the
// user out, and Vault's clients repeat what fails.
func TestARefusedPasswordIsNotTriedAgain(t *testing.T) {
	for _, captcha := range []bool{false, true} {
		t.Run(fmt.Sprintf("captcha %v", captcha), func(t *testing.T) {
			e := start(t, jiratest.Options{})
			change := func(password string) {
				e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = password })
			}
			change("open sesame now")
			e.write("config", map[string]any{"url": e.jira.URL()})
			e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "password": "open sesame now"})
			e.write("roles/readonly", map[string]any{"accounts": "ci-bot"})
			secret := e.issue("readonly", nil).Secret
			words := "login refused"
			if captcha {
				remove := e.jira.Fault(jiratest.Fault{Do: jiratest.Answer, Status: 403, Header: map[string][]string{
					"X-Authentication-Denied-Reason": {"CAPTCHA_CHALLENGE; login-url=https://jira.example.com/login.jsp"}, "Content-Type": {"text/html"},
				}, Body: "<html></html>"})
				defer remove()
				words = "CAPTCHA_CHALLENGE"
			}
			change("sesame is shut")
			e.jira.ResetCalls()
			for range 5 {
				e.refuses(400, logical.ReadOperation, "creds/readonly", nil, words)
				resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, secret)
				e.failed(400, resp, err, words)
			}
			e.refuses(400, logical.ReadOperation, "creds/readonly", nil, "not asked again", "write the credential again")
			if n := len(e.jira.Calls()); n != 1 {
				t.Errorf("%d calls with a refused password", n)
			}
			e.jira.ClearFaults()
			e.write("accounts/ci-bot", map[string]any{"password": "sesame is shut"})
			e.revoke(secret)
			e.nothingHeld()
		})
	}
}

// Nor is it by a write of something else: of the config, or of another field.
func TestARefusedPasswordIsNotTriedForTheSakeOfAnotherField(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "open sesame now" })
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "password": "open sesame now"})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot"})
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Password = "sesame is shut" })
	e.refuses(400, logical.ReadOperation, "creds/readonly", nil, "login refused")
	e.jira.ResetCalls()
	for i := range 3 {
		e.write("config", map[string]any{"max_token_days": 100 + i})
		e.refuses(400, logical.ReadOperation, "creds/readonly", nil, "not asked again")
		e.refuses(400, logical.PatchOperation, "accounts/ci-bot", map[string]any{"allow_admin": true}, "not asked again")
	}
	for _, call := range e.jira.Calls() {
		if call.Auth != "" {
			t.Errorf("%s %s was sent the password", call.Method, call.Path)
		}
	}
	e.write("accounts/ci-bot", map[string]any{"password": "sesame is shut"})
	e.revoke(e.issue("readonly", nil).Secret)
}

// A user who was renamed is the same by his key, whatever the ledger holds.
func TestARenameWithAMintWhoseAnswerWasLost(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.ledger.Over(e.lostMint().ID)
	e.jira.SetUser("ci-bot", func(u *jiratest.User) { u.Name = "ci-robot" })
	e.write("accounts/ci-bot", map[string]any{"username": "ci-robot"})
	e.settleAccounts(t.Context(), true, "ci-bot")
	e.nothingHeld()
}

// An account is checked against the Jira that is configured when it is stored.
func TestTheConfigMovesUnderTheWriteOfAnAccount(t *testing.T) {
	e := start(t, jiratest.Options{})
	other := jiratest.New(t, jiratest.Options{})
	other.AddUser(jiratest.User{Name: "somebody-else"})
	e.write("config", map[string]any{"url": e.jira.URL()})
	e.jira.Fault(jiratest.Fault{Path: "/rest/api/2/mypermissions", Nth: 1, Do: jiratest.Slow, Delay: 300 * time.Millisecond})
	done := make(chan error)
	go func() {
		_, err := e.request(t.Context(), logical.UpdateOperation, "accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
		done <- err
	}()
	if err := e.jira.WaitCalls(t.Context(), "GET", "/rest/api/2/mypermissions", 1); err != nil {
		t.Fatal(err)
	}
	e.write("config", map[string]any{"url": other.URL()})
	e.failed(400, nil, <-done, "login refused")
	if other.Count("GET", "/rest/api/2/myself") == 0 {
		t.Error("it was not checked against the Jira that is configured")
	}
}

// What the framework says of a value that it cannot convert would tell it.
func TestASecretThatIsNoString(t *testing.T) {
	e := start(t, jiratest.Options{})
	for _, path := range []string{"config", "accounts/ci-bot"} {
		for _, value := range []any{[]any{"s3cr3t-one", "s3cr3t-two"}, map[string]any{"s3cr3t": "s3cr3t"}} {
			resp, err := e.request(t.Context(), logical.UpdateOperation, path, map[string]any{"token": value})
			e.failed(400, resp, err, "token is not a single value")
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("error tells it: %v", err)
			}
		}
	}
}

// What is deleted does not stay in memory.
func TestWhatIsDeletedIsForgotten(t *testing.T) {
	e := configured(t, jiratest.Options{})
	for i := range 20 {
		name := fmt.Sprintf("roles/r%d", i)
		e.write(name, map[string]any{"accounts": "ci-bot"})
		e.read(name)
		e.must(logical.DeleteOperation, name, nil)
	}
	if n := len(e.decoded.keys); n > 4 { // config, account, role, the mount's id
		t.Errorf("%d values in memory", n)
	}
}
