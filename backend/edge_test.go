package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/jira/jiratest"
	"vault-plugin-secrets-jira/backend/ledger"
)

func TestEveryOperationIsDescribed(t *testing.T) {
	names := map[string]string{}
	for _, p := range Paths() {
		if p.HelpSynopsis == "" || p.HelpDescription == "" || p.DisplayAttrs == nil || p.DisplayAttrs.OperationPrefix != operationPrefix {
			t.Errorf("%s has no help, or no prefix for OpenAPI", p.Pattern)
		}
		for name, f := range p.Fields {
			if !strings.HasSuffix(f.Description, ".") {
				t.Errorf("%s: the description of %s is no sentence: %q", p.Pattern, name, f.Description)
			}
		}
		for op, handler := range p.Operations {
			o := handler.Properties()
			if !strings.HasSuffix(o.Summary, ".") || o.DisplayAttrs == nil || len(o.Responses) == 0 {
				t.Errorf("%s %s has no summary, name or response", op, p.Pattern)
				continue
			}
			name := o.DisplayAttrs.OperationVerb + "-" + o.DisplayAttrs.OperationSuffix
			if other := names[name]; other != "" && other != p.Pattern {
				t.Errorf("OpenAPI's %s is %s and %s", name, other, p.Pattern)
			}
			names[name] = p.Pattern
			for _, example := range o.Examples {
				for field := range example.Data {
					if p.Fields[field] == nil {
						t.Errorf("%s %s: the example's %s is no field", op, p.Pattern, field)
					}
				}
			}
			for status, responses := range o.Responses {
				r := responses[0]
				if r.Description == "" || r.Fields == nil {
					t.Errorf("%s %s: response %d has no description or schema", op, p.Pattern, status)
				}
				if len(r.Fields) > 0 {
					schema.ValidateResponse(t, &r, r.Example, true)
				}
			}
		}
	}
}

// Vault reads the declarations for its OpenAPI document and its UI.
func TestPathHelp(t *testing.T) {
	e := start(t, jiratest.Options{})
	for _, path := range []string{"", "config", "accounts/x", "accounts/", "roles/x", "roles/", "creds/x"} {
		resp, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.HelpOperation, Path: path, Storage: e.storage})
		if err != nil {
			t.Fatal(err)
		}
		help, _ := resp.Data["help"].(string)
		if strings.Contains(help, "<no ") || len(help) < 100 {
			t.Errorf("help of %q: %s", path, help)
		}
	}
}

// All that asks Jira, writes, or tells what is held, is done on the active node.
func TestStandbysForward(t *testing.T) {
	e := configured(t, jiratest.Options{})
	before := e.storage.dump(t)
	for _, state := range []consts.ReplicationState{consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary} {
		e.standby(state)
		for path, ops := range map[string][]logical.Operation{
			"config":         {logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation},
			"accounts/x":     {logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation, logical.ReadOperation},
			"accounts/":      {logical.ListOperation},
			"roles/x":        {logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation},
			"creds/readonly": {logical.ReadOperation, logical.UpdateOperation},
		} {
			for _, op := range ops {
				_, err := e.HandleRequest(t.Context(), &logical.Request{Operation: op, Path: path, Storage: e.storage})
				if !errors.Is(err, logical.ErrReadOnly) {
					t.Errorf("%s %s on a standby: %v", op, path, err)
				}
			}
		}
	}
	if n := len(e.jira.Calls()); n != 0 {
		t.Errorf("%d calls to Jira", n)
	}
	if after := e.storage.dump(t); after != before {
		t.Error("a standby wrote")
	}
	// A mount that is local to a secondary is that secondary's own.
	e.standby(consts.ReplicationPerformanceSecondary)
	e.system.LocalMountVal = true
	e.revoke(e.issue("readonly", nil).Secret)
}

// A standby's storage refuses writes, and Vault has to be told just so.
func TestReadOnlyStorageIsToldToVault(t *testing.T) {
	if err := coded(fmt.Errorf("writing: %w", logical.ErrReadOnly)); err != logical.ErrReadOnly { //nolint:errorlint // Vault compares so, too
		t.Errorf("%v", err)
	}
}

func TestStatusOfErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{fault.Userf("m"), 400},
		{&ledger.StateError{}, 400},
		{fmt.Errorf("reading %q: %w", "config", grpcstatus.Error(codes.DeadlineExceeded, "context deadline exceeded")), 503},
		{errors.Join(errors.New("first"), fmt.Errorf("reading: %w", grpcstatus.Error(codes.Canceled, "context canceled"))), 503},
		{&jira.Error{Kind: jira.Refused}, 400},
		{&jira.Error{Kind: jira.Denied}, 400},
		{&fault.Capacity{}, 429},
		{&jira.Error{Kind: jira.Nonsense}, 502},
		{&jira.Error{Kind: jira.Busy}, 503},
		{&jira.Error{Kind: jira.Down}, 503},
		{fault.Unavailable("r"), 503},
		{context.DeadlineExceeded, 503},
		{errors.New("anything else"), 500},
		{&jira.Error{Kind: "new"}, 500},
	} {
		err := coded(fmt.Errorf("doing this: %w", tt.err))
		got, ok := err.(logical.HTTPCodedError) //nolint:errorlint // only the outermost error's type reaches Vault
		if !ok || got.Code() != tt.want {
			t.Errorf("%T %v: %v, want %d", tt.err, tt.err, err, tt.want)
		}
	}
}

func TestAPanicEndsTheRequestOnly(t *testing.T) {
	e := start(t, jiratest.Options{})
	handler := e.edge(func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
		panic("of the test")
	})
	resp, err := handler(t.Context(), &logical.Request{Path: "creds/x", MountPoint: "jira/"}, &framework.FieldData{})
	e.failed(500, resp, err, "internal error")
	if log := e.log.String(); !strings.Contains(log, "[ERROR]") || !strings.Contains(log, "of the test") || !strings.Contains(log, "edge_test.go") || !strings.Contains(log, "mount=jira/") {
		t.Errorf("log %s", log)
	}
}

// Vault asks a plugin for its type and version with nothing to work on.
func TestFactoryWithoutStorage(t *testing.T) {
	b, err := Factory(t.Context(), &logical.BackendConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if b.Type() != logical.TypeLogical {
		t.Errorf("type %v", b.Type())
	}
	v, ok := b.(logical.PluginVersioner)
	if !ok || v.PluginVersion().Version != Version || !strings.HasPrefix(Version, "v") {
		t.Errorf("version %+v", v)
	}
	b.Cleanup(t.Context())
}

// The engine goes on reading the ledger until it can.
func TestALedgerThatCannotBeReadIsReadLater(t *testing.T) {
	e := configured(t, jiratest.Options{})
	secret := e.issue("readonly", nil).Secret
	broken := &brokenList{Storage: e.storage}
	b := newBackend(broken, e.now)
	if err := b.Setup(t.Context(), &logical.BackendConfig{StorageView: broken, System: e.system}); err != nil {
		t.Fatal(err)
	}
	b.loadLedger()
	if !b.ledger.Whole() || b.ledger.Held("ci-bot") != 1 {
		t.Errorf("whole %v, held %d", b.ledger.Whole(), b.ledger.Held("ci-bot"))
	}
	b.Cleanup(t.Context())
	e.revoke(secret)
}

// brokenList is storage whose first List fails.
type brokenList struct {
	logical.Storage
	lists int
}

func (s *brokenList) List(ctx context.Context, prefix string) ([]string, error) {
	if s.lists++; s.lists == 1 {
		return nil, errStorage
	}
	return s.Storage.List(ctx, prefix)
}
