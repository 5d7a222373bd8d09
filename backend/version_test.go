package backend

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// stored is what an older version of the engine has left: the mount's storage, what Vault
// kept of its leases, and what Jira had, with names in place of secrets and of addresses.
// It was taken from that version itself, by a test that issued, lost, and failed to revoke.
type stored struct {
	Taken   time.Time                  `json:"taken"`
	Storage map[string]json.RawMessage `json:"storage"`
	Leases  map[string]map[string]any  `json:"leases"`
	Tokens  []struct {
		ID         int64
		Name, User string
	} `json:"tokens"`
	Users []struct{ Name, Key string } `json:"users"`
}

// upgraded mounts the engine on what a file holds, beside a Jira that has what it had
// then, as if it had been taken a moment ago. It returns what is needed to revoke each
// lease.
func upgraded(t *testing.T, file string) (e *engine, leases map[string]*logical.Secret) {
	t.Helper()
	e = start(t, jiratest.Options{Version: "11.0.0"})
	e.jira.AddProject(jiratest.Project{Key: "OPS", Name: "Operations", Restricted: true})
	e.jira.AddUser(jiratest.User{Name: "sole-bot", Password: "a password of sole-bot's"})
	service := e.jira.AddServiceAccount(jiratest.ServiceAccount{Name: "reporting", Projects: []string{"OPS"}})
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var have stored
	if err := json.Unmarshal(raw, &have); err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	for _, u := range e.jira.Users() {
		there[u.Name] = u.Key
	}
	names := []string{"{{url}}", e.jira.URL(), "{{client_id}}", service.ClientID, "{{client_secret}}", service.ClientSecret}
	for _, u := range have.Users {
		if there[u.Name] == "" { // a throw-away one
			e.jira.AddUser(jiratest.User{Name: u.Name, Key: u.Key, Groups: []string{"jira-software-users"}})
		} else {
			names = append(names, u.Key, there[u.Name], "{{"+u.Name+"}}", e.pat(u.Name))
		}
	}
	for _, tok := range have.Tokens {
		made, _ := e.jira.Mint(tok.User, tok.Name, 2)
		names = append(names, fmt.Sprintf(`"token_id":"%d"`, tok.ID), fmt.Sprintf(`"token_id":"%d"`, made.ID))
	}
	passed := time.Since(have.Taken)
	shift := func(text string) string {
		text = strings.NewReplacer(names...).Replace(text)
		text = regexp.MustCompile(`\b1[0-9]{12}\b|\b1[0-9]{9}\b`).ReplaceAllStringFunc(text, func(n string) string {
			at, _ := strconv.ParseInt(n, 10, 64)
			if len(n) == 13 {
				return fmt.Sprint(at + passed.Milliseconds())
			}
			return fmt.Sprint(at + int64(passed.Seconds()))
		})
		return regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllStringFunc(text, func(at string) string {
			was, _ := time.Parse(time.RFC3339, at)
			return rfc3339(was.Add(passed))
		})
	}
	compact := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return shift(string(text))
	}
	for key, value := range have.Storage {
		if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(compact(value))}); err != nil {
			t.Fatal(err)
		}
	}
	leases = map[string]*logical.Secret{}
	for name, data := range have.Leases {
		lease := &logical.Secret{}
		lease.TTL, lease.IssueTime = time.Hour, time.Now()
		if err := json.Unmarshal([]byte(compact(data)), &lease.InternalData); err != nil {
			t.Fatal(err)
		}
		leases[name] = lease
	}
	e.mount()
	return e, leases
}

// Who upgrades keeps all that there is: leases renew and end, debts are paid, lost mints
// are found, and config, accounts and roles are what they were and can be changed.
func TestWhatAnOlderVersionStored(t *testing.T) {
	e, leases := upgraded(t, "testdata/stored-0.json")
	states := map[string]int{}
	ids, _ := e.listed(nil)
	for _, one := range ids {
		states[fmt.Sprint(e.read("tokens/" + one)["state"])]++
	}
	if states["issued"] != 4 || states["owed"] != 2 || states["intended"] != 1 || len(ids) != 7 {
		t.Errorf("the ledger has %v", states)
	}
	for _, name := range []string{"held", "sole", "deploy"} {
		if _, err := e.renew(leases[name], 0); err != nil {
			t.Errorf("renewing %s: %v", name, err)
		}
	}
	e.pass(time.Minute)
	e.settled() // the debts, and the mint that was lost
	if n := len(e.alive()); n != 3 {
		t.Errorf("alive: %v", e.alive())
	}
	for name, lease := range leases {
		if err := e.revokeQueued(lease); err != nil {
			t.Errorf("revoking %s: %v", name, err)
		}
	}
	e.settled()
	if n, people := len(e.alive()), e.people(); n != 0 || len(people) != 0 {
		t.Errorf("left: %v, %v", e.alive(), people)
	}
	if retired, err := e.storage.List(t.Context(), retiredPrefix); err != nil || len(retired) != 0 {
		t.Errorf("kept, sealed: %v, %v", retired, err)
	}
	e.nothingHeld()

	// All that was set up works as it did, what is new included.
	for field, want := range map[string]any{"credential_type": "ephemeral_user", "on_revoke": "delete"} {
		if got := e.read("roles/deploy")[field]; got != want {
			t.Errorf("%s is %v", field, got)
		}
	}
	for _, role := range []string{"readonly", "sole", "deploy", "report"} {
		e.write("roles/"+role, nil)
		e.revoke(e.issue(role, nil).Secret)
	}
	for _, account := range []string{"ci-bot", "sole"} {
		if got := e.read("accounts/" + account); fmt.Sprint(got["overlap"]) != "300" || got["disable_automated_rotation"] != false {
			t.Errorf("%s reads %v", account, got)
		}
		e.write("accounts/"+account, nil)
		e.rotate("rotate-account/" + account)
	}
	e.rotate("rotate-root")
	e.tidied(nil)
	e.pass(time.Hour)
	e.tended()
	if healthy, reasons, _ := e.status(); healthy != true && !strings.Contains(reasons, "siblings") {
		t.Errorf("status: %v", reasons)
	}
	e.dismantled()
}

// What a newer engine has stored is not touched: nothing is answered from it, nothing
// of it is ended, and nothing is written.
func TestWhatANewerVersionStored(t *testing.T) {
	e := configured(t, jiratest.Options{})
	lease := e.issue("readonly", nil)
	was, err := e.storage.Get(t.Context(), versionKey)
	if err != nil || was == nil {
		t.Fatalf("no version: %v", err)
	}
	newer := fmt.Sprintf(`{"version":%d,"by":"v9.1.0"}`, storageVersion+1)
	if err := e.storage.Put(t.Context(), &logical.StorageEntry{Key: versionKey, Value: []byte(newer)}); err != nil {
		t.Fatal(err)
	}
	e.setup()
	e.pass(3 * time.Hour)
	before := e.storage.writes.Load()
	e.jira.ResetCalls()
	for _, tt := range []struct {
		op   logical.Operation
		path string
	}{
		{logical.ReadOperation, "creds/readonly"},
		{logical.ReadOperation, "config"},
		{logical.UpdateOperation, "accounts/ci-bot"},
		{logical.DeleteOperation, "roles/readonly"},
		{logical.ReadOperation, "status"},
		{logical.UpdateOperation, "tidy"},
	} {
		e.refuses(400, tt.op, tt.path, nil, "v9.1.0", "run that version again")
	}
	resp, err := e.leaseRequest(t.Context(), logical.RevokeOperation, lease.Secret)
	e.failed(400, resp, err, "v9.1.0")
	e.works()
	e.eventually(func() bool { return e.logged("[ERROR]", "nothing is done in the background", "v9.1.0") })
	for _, tainted := range []bool{false, true} {
		e.system.TaintedVal = tainted
		if err := e.periodic(t.Context(), &logical.Request{Storage: e.storage, MountPoint: "jira/"}); err == nil || !strings.Contains(err.Error(), "v9.1.0") {
			t.Errorf("periodic, tainted %v: %v", tainted, err)
		}
	}
	e.running.Wait()
	if n, calls := e.storage.writes.Load()-before, e.jira.Calls(); n != 0 || len(calls) != 0 {
		t.Errorf("%d writes, and %v", n, calls)
	}
	e.system.TaintedVal = false

	// Back to the version that knows it.
	if err := e.storage.Put(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	e.mount()
	e.settled()
	e.nothingHeld()
}

// The version is stored before anything else is, by a node that may write.
func TestTheVersionIsNotedBeforeAnythingElse(t *testing.T) {
	e := start(t, jiratest.Options{})
	e.storage.Storage = &logical.InmemStorage{} // as a new mount's
	e.setup()
	e.standby(consts.ReplicationPerformanceStandby)
	e.read("roles/readonly")
	e.standby(consts.ReplicationUnknown)
	e.setup()
	config := map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())}
	e.storage.failing(versionKey)
	e.refuses(500, logical.UpdateOperation, "config", config, "version")
	e.storage.failing("")
	if keys, err := logical.CollectKeys(t.Context(), e.storage); err != nil || len(keys) != 0 {
		t.Errorf("stored %v, %v", keys, err)
	}
	e.write("config", config)
	var have storedVersion
	entry, err := e.storage.Get(t.Context(), versionKey)
	if err != nil || entry.DecodeJSON(&have) != nil || have != (storedVersion{storageVersion, Version, "jira/"}) {
		t.Errorf("stored %+v, %v", have, err)
	}
}

// Each line of the log names the mount, also of what is done before anybody has asked for
// anything; and after a move the new one.
func TestTheLogNamesTheMount(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.issue("readonly", nil)
	overdue := func() {
		t.Helper()
		e.log.holds(t, e.jira.Secrets())
		e.log.Reset()
		e.setup()
		e.pass(3 * time.Hour)
		e.works()
		e.eventually(func() bool { return e.logged("a token that was owed is ended") })
	}
	overdue()
	for line := range strings.Lines(e.log.String()) {
		if strings.HasPrefix(line, "20") && !strings.Contains(line, "mount=jira/") {
			t.Errorf("%q", line)
		}
	}
	e.clean(t.Context())

	e.setup()
	lease := e.issue("readonly", nil)
	e.storage.failing(versionKey) // which keeps nobody from moving it
	for range 2 {
		req := &logical.Request{Operation: logical.ReadOperation, Path: "config", MountPoint: "moved/", Storage: e.storage}
		if _, err := e.HandleRequest(t.Context(), req); err != nil {
			t.Error(err)
		}
		e.storage.failing("")
	}
	overdue()
	if !e.logged("a token that was owed is ended", "mount=moved/", lease.Data["token_name"].(string)) {
		t.Error(e.log.String())
	}
	e.clean(t.Context())
	e.nothingHeld()
}
