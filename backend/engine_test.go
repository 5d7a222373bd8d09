package backend

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// answeredOnce collects which operations of which paths have given an answer
// that passed validation, over all tests of a run.
var answeredOnce sync.Map

// TestMain fails the suite if an operation was never seen to answer. It is
// asked only when all tests ran.
func TestMain(m *testing.M) {
	code := m.Run()
	all := !slices.ContainsFunc(os.Args[1:], func(arg string) bool {
		return strings.HasPrefix(arg, "-test.run=") && arg != "-test.run=" || strings.HasPrefix(arg, "-test.skip=") || strings.HasPrefix(arg, "-test.fuzz=") || strings.HasPrefix(arg, "-test.list=")
	})
	if code == 0 && all {
		for _, p := range newBackend(nil, time.Now).Paths {
			for op := range p.Operations {
				if _, ok := answeredOnce.Load(operationKey(p, op)); !ok {
					fmt.Fprintf(os.Stderr, "FAIL: no test has seen a validated answer of %s on %s\n", op, p.Pattern)
					code = 1
				}
			}
		}
	}
	os.Exit(code)
}

// engine is a mount of the engine beside a simulated Jira. It fails its test
// if a token of the engine's is left alive, or a secret stands in the log.
type engine struct {
	*backend
	t       *testing.T
	jira    *jiratest.Server
	storage *storage
	system  *logical.StaticSystemView
	log     *logBuffer
	told    *told
	clock   *atomic.Int64 // what the engine's clock is ahead of the machine's, in ns
}

const (
	testDefaultTTL = 2 * time.Hour
	testMaxTTL     = 30 * 24 * time.Hour
)

// start mounts an engine that is not configured, beside a Jira with the users
// ci-bot, release-bot and jira-admin.
func start(t *testing.T, o jiratest.Options) *engine {
	t.Helper()
	e := &engine{
		t:       t,
		jira:    jiratest.New(t, o),
		storage: &storage{Storage: &logical.InmemStorage{}},
		system:  &logical.StaticSystemView{DefaultLeaseTTLVal: testDefaultTTL, MaxLeaseTTLVal: testMaxTTL, PluginEnvironment: &logical.PluginEnvironment{VaultVersion: "1.21.1"}},
		log:     &logBuffer{},
		told:    &told{},
		clock:   &atomic.Int64{},
	}
	e.jira.AddUser(jiratest.User{Name: "ci-bot"})
	e.jira.AddUser(jiratest.User{Name: "release-bot"})
	e.jira.AddUser(jiratest.User{Name: "jira-admin", Admin: true})
	e.mount()
	t.Cleanup(func() {
		e.Cleanup(context.Background()) // the test's own is over
		e.told.in(e.log)
		e.log.holds(t, e.jira.Secrets())
	})
	return e
}

// mount brings the engine to life on what storage holds, as Vault does after
// an unseal, a reload or a crash, but for its worker: a test that wants it to
// work says so with [engine.works] or [backend.work].
func (e *engine) mount() {
	e.t.Helper()
	e.setup()
	_ = e.understood(e.t.Context(), "jira/") // else the first request finds out
	e.loadLedger()
}

// setup is mount before anything is read.
func (e *engine) setup() {
	e.t.Helper()
	e.backend = newBackend(e.storage, func() time.Time { return time.Now().Add(time.Duration(e.clock.Load())) })
	e.sites.pause = time.Microsecond
	if e.told == nil {
		e.told = &told{}
	}
	e.rotations.tends = true // by whoever calls [engine.tended]
	err := e.Setup(e.t.Context(), &logical.BackendConfig{
		StorageView:  e.storage,
		System:       e.system,
		EventsSender: e.told,
		Logger:       hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: e.log}),
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// works starts the worker, as Vault does.
func (e *engine) works() {
	e.t.Helper()
	e.rotations.turned()
	if err := e.Initialize(e.t.Context(), &logical.InitializationRequest{Storage: e.storage}); err != nil {
		e.t.Fatal(err)
	}
}

// in runs a case of a table on an engine that the cases share.
func (e *engine) in(name string, run func(*engine)) {
	e.t.Helper()
	e.t.Run(name, func(t *testing.T) {
		one := *e
		one.t = t
		run(&one)
	})
}

// configured mounts an engine with the site, an account for ci-bot's token
// and a role readonly.
func configured(t *testing.T, o jiratest.Options) *engine {
	t.Helper()
	e := start(t, o)
	e.write("config", map[string]any{"url": e.jira.URL(), "ca_cert": string(e.jira.CA())})
	e.write("accounts/ci-bot", map[string]any{"username": "ci-bot", "token": e.pat("ci-bot")})
	e.write("roles/readonly", map[string]any{"accounts": "ci-bot", "ttl": "1h", "max_ttl": "24h"})
	e.jira.ResetCalls()
	return e
}

// pat makes a token in Jira that is the operator's.
func (e *engine) pat(user string) string {
	_, secret := e.jira.Mint(user, "made by hand", 90)
	return secret
}

// request sends a request to the engine as Vault's core would.
func (e *engine) request(ctx context.Context, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	req := &logical.Request{
		ID: "req-" + path, Operation: op, Path: path, MountPoint: "jira/", Storage: e.storage,
		Data: data, EntityID: "entity-1", DisplayName: "token-app",
		Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
	}
	if op == logical.UpdateOperation || op == logical.CreateOperation {
		found, exists, err := e.HandleExistenceCheck(ctx, req)
		if err != nil {
			return nil, err
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	resp, err := e.HandleRequest(ctx, req)
	if err == nil && !resp.IsError() {
		e.validate(req, resp)
	}
	return resp, err
}

// validate holds an answer strictly against the declared schema.
func (e *engine) validate(req *logical.Request, resp *logical.Response) {
	e.t.Helper()
	path := e.Route(req.Path)
	responses := path.Operations[req.Operation].Properties().Responses
	status := 200
	if resp == nil && req.Operation != logical.ReadOperation && req.Operation != logical.ListOperation {
		status = 204
	}
	if resp != nil && resp.Data[logical.HTTPContentType] == metricsType { // which has no fields
		answeredOnce.Store(operationKey(path, req.Operation), true)
		return
	}
	if resp != nil && resp.Data[logical.HTTPStatusCode] != nil {
		status = resp.Data[logical.HTTPStatusCode].(int)
		resp = &logical.Response{Data: unwrapped(e.t, resp)}
	}
	if resp == nil && status == 200 {
		return // Vault answers 404; that is no answer of this operation
	}
	if len(responses[status]) != 1 {
		e.t.Fatalf("%s %s answered %d, which it does not declare", req.Operation, req.Path, status)
	}
	declared := responses[status][0]
	if declared.Fields == nil {
		e.t.Fatalf("%s %s declares no fields", req.Operation, req.Path)
	}
	schema.ValidateResponse(e.t, &declared, resp, true)
	answeredOnce.Store(operationKey(path, req.Operation), true)
}

// unwrapped is the data of an answer with a status of its own.
func unwrapped(t *testing.T, resp *logical.Response) map[string]any {
	t.Helper()
	var body struct{ Data map[string]any }
	if err := json.Unmarshal([]byte(resp.Data[logical.HTTPRawBody].(string)), &body); err != nil {
		t.Fatal(err)
	}
	return body.Data
}

// operationKey names an operation. The framework anchors the patterns when it
// first routes a request.
func operationKey(p *framework.Path, op logical.Operation) string {
	return strings.Trim(p.Pattern, "^$") + " " + string(op)
}

func (e *engine) must(op logical.Operation, path string, data map[string]any) *logical.Response {
	e.t.Helper()
	resp, err := e.request(e.t.Context(), op, path, data)
	if err != nil {
		e.t.Fatalf("%s %s: %v", op, path, err)
	}
	if resp.IsError() {
		e.t.Fatalf("%s %s: %v", op, path, resp.Error())
	}
	return resp
}

func (e *engine) read(path string) map[string]any {
	e.t.Helper()
	resp := e.must(logical.ReadOperation, path, nil)
	if resp == nil {
		return nil
	}
	return resp.Data
}

func (e *engine) write(path string, data map[string]any) *logical.Response {
	e.t.Helper()
	return e.must(logical.UpdateOperation, path, data)
}

// refuses sends a request that must fail with status, and every one of words
// in the text. Nothing may be stored by it, and no secret be told.
func (e *engine) refuses(status int, op logical.Operation, path string, data map[string]any, words ...string) {
	e.t.Helper()
	before := e.storage.dump(e.t)
	resp, err := e.request(e.t.Context(), op, path, data)
	e.failed(status, resp, err, words...)
	if after := e.storage.dump(e.t); after != before {
		e.t.Errorf("%s %s failed and changed what is stored:\n%s\nwas\n%s", op, path, after, before)
	}
}

func (e *engine) failed(status int, resp *logical.Response, err error, words ...string) {
	e.t.Helper()
	// How the framework refuses a malformed field, in a request and in the
	// check for existence before it; Vault answers 400 to both.
	malformed := errutil.UserError{}
	switch {
	case err == nil && resp.IsError():
		err = logical.CodedError(400, resp.Error().Error())
	case errors.As(err, &malformed):
		err = logical.CodedError(400, malformed.Err)
	}
	if err == nil {
		e.t.Fatalf("succeeded, want status %d", status)
	}
	coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // only the outermost error's type reaches Vault
	if !ok {
		e.t.Fatalf("error without a status: %v", err)
	}
	if coded.Code() != status {
		e.t.Errorf("status %d, want %d: %v", coded.Code(), status, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			e.t.Errorf("error %q does not say %q", err, word)
		}
	}
	for _, secret := range e.jira.Secrets() {
		if strings.Contains(err.Error(), secret) {
			e.t.Errorf("error tells a secret: %v", err)
		}
	}
}

// issue reads a credential, and returns the answer with the lease as Vault
// would keep it.
func (e *engine) issue(role string, data map[string]any) *logical.Response {
	e.t.Helper()
	resp := e.must(logical.ReadOperation, "creds/"+role, data)
	if resp.Secret == nil {
		e.t.Fatal("the answer has no lease")
	}
	resp.Secret.IssueTime = time.Now()
	return resp
}

// leaseRequest sends a lease of the engine's back to it, its data having been
// through storage.
func (e *engine) leaseRequest(ctx context.Context, op logical.Operation, secret *logical.Secret) (*logical.Response, error) {
	e.t.Helper()
	raw, err := json.Marshal(secret.InternalData)
	if err != nil {
		e.t.Fatal(err)
	}
	kept := &logical.Secret{LeaseOptions: secret.LeaseOptions}
	if err := json.Unmarshal(raw, &kept.InternalData); err != nil {
		e.t.Fatal(err)
	}
	return e.HandleRequest(ctx, &logical.Request{
		Operation: op, Path: "creds/lease", MountPoint: "jira/", Storage: e.storage, Secret: kept,
	})
}

func (e *engine) renew(secret *logical.Secret, increment time.Duration) (*logical.Response, error) {
	e.t.Helper()
	kept := *secret
	kept.Increment = increment
	return e.leaseRequest(e.t.Context(), logical.RenewOperation, &kept)
}

func (e *engine) revoke(secret *logical.Secret) {
	e.t.Helper()
	ctx := context.WithoutCancel(e.t.Context()) // it may be called for cleaning up
	if _, err := e.leaseRequest(ctx, logical.RevokeOperation, secret); err != nil {
		e.t.Fatalf("revoke: %v", err)
	}
}

// alive lists the names of the engine's tokens that work.
func (e *engine) alive() []string {
	var names []string
	for _, tok := range e.jira.Tokens("") {
		if tok.Live && strings.HasPrefix(tok.Name, "vault-") {
			names = append(names, tok.Name)
		}
	}
	for _, k := range e.jira.APITokens() {
		if k.Live && strings.HasPrefix(k.Label, "vault-") {
			names = append(names, k.Label)
		}
	}
	return names
}

// nothingHeld asserts that neither Jira nor the ledger has a token left.
func (e *engine) nothingHeld() {
	e.t.Helper()
	if names := e.alive(); len(names) > 0 {
		e.t.Errorf("alive in Jira: %v", names)
	}
	keys, _ := logical.CollectKeysWithPrefix(e.t.Context(), e.storage, ledgerPrefix)
	keys = slices.DeleteFunc(keys, func(key string) bool { return strings.Count(key, "/") < 2 }) // no record
	if len(keys) > 0 {
		e.t.Errorf("in the ledger: %v", keys)
	}
}

// storage counts what the engine writes, and fails it on demand.
type storage struct {
	logical.Storage
	writes atomic.Int64
	fail   atomic.Pointer[func(op, key string) error]
	stored atomic.Pointer[func(key string)] // told of each put that has landed
}

var errStorage = errors.New("storage is away")

// failing makes writes to keys with this prefix fail until it is called with "".
func (s *storage) failing(prefix string) {
	if prefix == "" {
		s.fail.Store(nil)
		return
	}
	f := func(_, key string) error {
		if strings.HasPrefix(key, prefix) {
			return errStorage
		}
		return nil
	}
	s.fail.Store(&f)
}

func (s *storage) before(op, key string) error {
	s.writes.Add(1)
	if f := s.fail.Load(); f != nil {
		return (*f)(op, key)
	}
	return nil
}

func (s *storage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.before("put", entry.Key); err != nil {
		return err
	}
	err := s.Storage.Put(ctx, entry)
	if f := s.stored.Load(); f != nil && err == nil {
		(*f)(entry.Key)
	}
	return err
}

func (s *storage) Delete(ctx context.Context, key string) error {
	if err := s.before("delete", key); err != nil {
		return err
	}
	return s.Storage.Delete(ctx, key)
}

// dump is all that is stored, but for the mount's id, which is made on first
// use.
func (s *storage) dump(t *testing.T) string {
	t.Helper()
	keys, err := logical.CollectKeys(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	var b strings.Builder
	for _, key := range keys {
		entry, err := s.Get(t.Context(), key)
		if err != nil || entry == nil {
			t.Fatalf("%s: %v", key, err)
		}
		if key != mountIDKey {
			fmt.Fprintf(&b, "%s %s\n", key, entry.Value)
		}
	}
	return b.String()
}

// logBuffer is the engine's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Reset forgets what was logged, for whoever has held it against the secrets.
func (l *logBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// holds fails the test for each secret that stands in the log, in one of the
// forms in which it travels.
func (l *logBuffer) holds(t *testing.T, secrets []string) {
	text := l.String()
	for _, secret := range secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				t.Errorf("the log holds the secret %q", secret)
			}
		}
	}
}

// standby makes the engine's view of the system that of a node which must
// forward.
func (e *engine) standby(state consts.ReplicationState) {
	e.system.ReplicationStateVal = state
}
