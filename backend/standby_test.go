package backend

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// answeredHere are the operations that need no active node: they read what
// storage holds, and nothing else. All others are forwarded.
var answeredHere = map[string]bool{
	"config/auto-tidy read": true,
	"roles/readonly read":   true,
	"roles/ list":           true,
}

// forwarding are the nodes that have to forward: a standby, and a secondary
// cluster, whose storage is another's.
var forwarding = map[string]consts.ReplicationState{
	"a performance standby":   consts.ReplicationPerformanceStandby,
	"a performance secondary": consts.ReplicationPerformanceSecondary,
}

// address is a path that a pattern matches.
func address(pattern string) string {
	pattern = regexp.MustCompile(`\(\?P<\w+>[^)]*\)`).ReplaceAllString(strings.Trim(pattern, "^$"), "readonly")
	return strings.TrimSuffix(pattern, "?")
}

// Every operation of every path that asks Jira, writes, or tells what only the
// active node knows is forwarded before anything happens.
func TestStandbysForwardWhateverThereIs(t *testing.T) {
	for node, state := range forwarding {
		t.Run(node, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			e.standby(state)
			reinstate := e.deposed()
			defer reinstate()
			seen := map[string]bool{}
			for _, p := range newBackend(nil, time.Now).Paths {
				path := address(p.Pattern)
				if routed := e.Route(path); routed == nil || strings.Trim(routed.Pattern, "^$") != strings.Trim(p.Pattern, "^$") {
					t.Fatalf("%q leads elsewhere than to %q", path, p.Pattern)
				}
				for op := range p.Operations {
					e.asksAStandby(op, path, answeredHere[path+" "+string(op)])
					seen[path+" "+string(op)] = true
				}
			}
			for operation := range answeredHere {
				if !seen[operation] {
					t.Errorf("there is no %s any more", operation)
				}
			}
		})
	}
}

// asksAStandby sends a request to a node that may not write. Whether it answers
// or forwards, Jira hears nothing of it, and storage nothing but reads.
func (e *engine) asksAStandby(op logical.Operation, path string, answers bool) {
	e.t.Helper()
	e.jira.ResetCalls()
	writes := e.storage.writes.Load()
	_, err := e.HandleRequest(e.t.Context(), &logical.Request{Operation: op, Path: path, MountPoint: "jira/", Storage: e.storage})
	switch {
	case answers && err != nil:
		e.t.Errorf("%s %s: %v", op, path, err)
	case !answers && !errors.Is(err, logical.ErrReadOnly):
		e.t.Errorf("%s %s is not forwarded: %v", op, path, err)
	}
	e.didNothing(string(op)+" "+path, writes)
}

// didNothing asserts that Jira was not called, and storage not written to since
// there had been so many writes.
func (e *engine) didNothing(what string, writes int64) {
	e.t.Helper()
	if n := len(e.jira.Calls()); n > 0 {
		e.t.Errorf("%s: %d calls to Jira", what, n)
	}
	if n := e.storage.writes.Load() - writes; n > 0 {
		e.t.Errorf("%s: %d writes", what, n)
	}
}

// The declarations say the same for both kinds of node.
func TestForwardFlagsAgree(t *testing.T) {
	for _, p := range newBackend(nil, time.Now).Paths {
		for op, handler := range p.Operations {
			o := handler.(*framework.PathOperation)
			if o.ForwardPerformanceStandby != o.ForwardPerformanceSecondary {
				t.Errorf("%s %s is forwarded from one kind of node only", op, p.Pattern)
			}
		}
	}
}

// Vault brings no leases to a node that may not write. One that has just become
// such a node finds that out by a write, before it asks Jira for anything.
func TestALeaseOnAStandby(t *testing.T) {
	for name, use := range map[string]func(*engine, *logical.Secret) error{
		"renewed": func(e *engine, secret *logical.Secret) error {
			_, err := e.renew(secret, 0)
			return err
		},
		"run out": func(e *engine, secret *logical.Secret) error {
			e.pass(time.Hour)
			return e.revokeQueued(secret)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			secret := e.issue("readonly", nil).Secret
			e.standby(consts.ReplicationPerformanceStandby)
			reinstate := e.deposed()
			e.jira.ResetCalls()
			if err := use(e, secret); !errors.Is(err, logical.ErrReadOnly) {
				t.Errorf("%v", err)
			}
			if n := len(e.jira.Calls()); n > 0 {
				t.Errorf("%d calls to Jira", n)
			}
			reinstate()
			e.standby(0)
			e.revoke(secret)
			e.nothingHeld()
		})
	}
}

// Nothing runs in the background where writing is not safe, be there ever so
// much to do.
func TestNoBackgroundWorkOnAStandby(t *testing.T) {
	states := map[string]consts.ReplicationState{"a disaster-recovery secondary": consts.ReplicationDRSecondary}
	for node, state := range forwarding {
		states[node] = state
	}
	for node, state := range states {
		t.Run(node, func(t *testing.T) {
			e := configured(t, jiratest.Options{})
			e.write("config/auto-tidy", map[string]any{"enabled": true, "interval_duration": "1m"})
			e.issue("readonly", nil)
			e.ledger.Over(e.lostMint().ID)
			e.pass(2 * time.Hour)
			e.standby(state)
			e.system.TaintedVal = true // or else the periodic call has little to do
			e.jira.ResetCalls()
			writes := e.storage.writes.Load()
			e.works()
			if _, err := e.HandleRequest(t.Context(), &logical.Request{Operation: logical.RollbackOperation, MountPoint: "jira/", Storage: e.storage}); err != nil {
				t.Error(err)
			}
			if sleep := e.work(t.Context()); sleep == 0 || e.worker.running.Load() {
				t.Error("it worked")
			}
			e.didNothing("the background", writes)
			e.system.TaintedVal = false
			e.standby(0)
			e.settled()
			e.nothingHeld()
		})
	}
}

// A mount that is local to a secondary is that secondary's own.
func TestALocalMountOfASecondary(t *testing.T) {
	e := configured(t, jiratest.Options{})
	e.standby(consts.ReplicationPerformanceSecondary)
	e.system.LocalMountVal = true
	e.issue("readonly", nil)
	e.pass(2 * time.Hour)
	e.works()
	e.eventually(func() bool { return len(e.ledger.IDs("")) == 0 })
	e.nothingHeld()
}
