package backend

import (
	"context"
	"encoding/json"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira/jiratest"
)

// step is one call of the engine's, to its storage or to Jira.
type step struct {
	name string // as the table shows it, without ids
	jira bool
	nth  int // counted from 1 among those to storage, or to Jira
}

// writes tells whether the call is there to change something.
func (s step) writes() bool {
	return !strings.HasPrefix(s.name, "get ") && !strings.HasPrefix(s.name, "list ") && !strings.HasPrefix(s.name, "GET ")
}

// wire stands between an engine and its storage. While it is armed it notes
// each step, those to Jira by Jira's own count, and does to one of them what it
// was told to. The engine takes one step at a time, or they could not be
// counted.
type wire struct {
	logical.Storage
	jira *jiratest.Server

	mu     sync.Mutex
	armed  bool
	steps  []step
	stored int // how many of them went to storage
	called int // how many to Jira
	cut    cut
	cutAt  int // how many steps came before the one that is cut; -1: it has not come yet
}

// arm begins to note steps, and to wait for the one to cut.
func (w *wire) arm(c cut) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jira.ResetCalls()
	w.armed, w.cut, w.cutAt = true, c, -1
	w.steps, w.stored, w.called = nil, 0, 0
	if c.kind.stale {
		w.cutAt = 0 // it was cut before
	}
	if c.step.jira {
		for _, f := range c.kind.faults(c.step.nth) {
			w.jira.Fault(f)
		}
	}
}

// disarm lets everything pass from now on, and returns the steps so far.
func (w *wire) disarm() []step {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count()
	w.armed = false
	w.jira.ClearFaults()
	return w.steps
}

// count notes the calls that have come to Jira since the last step. The caller
// holds w.mu.
func (w *wire) count() {
	for _, call := range w.jira.Calls()[w.called:] {
		w.called++
		path, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(call.Path, "/rest"), "/"), "?")
		w.note(step{call.Method + " " + idPattern.ReplaceAllString(path, "/…"), true, w.called})
	}
}

// idPattern is of what differs in a path: the ids of tokens and of accounts, as both Jiras have them.
var idPattern = regexp.MustCompile(`/\d+$|/\d+:[A-Z2-7]{26}\b|/[A-Z2-7]{26}$`)

func (w *wire) note(s step) {
	if w.cutAt < 0 && s.jira == w.cut.step.jira && s.nth == w.cut.step.nth {
		w.cutAt = len(w.steps)
	}
	w.steps = append(w.steps, s)
}

// crashed tells whether the engine's node has.
func (w *wire) crashed() bool { return w.over().crash }

// dead tells whether the node has crashed, or was deposed: nobody hears what it
// still has to say.
func (w *wire) dead() bool {
	k := w.over()
	return k.crash || k.deposed
}

// over is the kind of cut that has happened, if one has.
func (w *wire) over() kind {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		w.count()
	}
	if !w.armed || w.cutAt < 0 {
		return kind{}
	}
	return w.cut.kind
}

// call is one call to storage, which do makes.
func (w *wire) call(op, key string, value []byte, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return do()
	}
	w.count()
	w.stored++
	w.note(step{op + " " + plain(key, value), false, w.stored})
	k := w.cut.kind
	if w.cutAt < 0 {
		return do()
	}
	now := w.cutAt == len(w.steps)-1
	switch {
	case k.crash && !now: // it has crashed before
		runtime.Goexit()
	case k.deposed:
		if op == "put" || op == "delete" {
			return logical.ErrReadOnly
		}
		return do()
	case w.cut.step.jira:
		return do()
	case now && k.after:
		if err := do(); err != nil {
			return err
		}
	case !now && !k.lasting:
		return do()
	}
	if k.crash {
		runtime.Goexit()
	}
	return errStorage
}

// plain is a key without ids, and what stands of interest in the value.
func plain(key string, value []byte) string {
	switch {
	case strings.HasPrefix(key, ledgerPrefix):
		var r struct{ State string }
		_ = json.Unmarshal(value, &r) // nothing to show of a read
		return strings.TrimSpace(ledgerPrefix + strings.Repeat("…/", strings.Count(key, "/")-1) + "… " + r.State)
	case strings.HasPrefix(key, retiredPrefix) && key != retiredPrefix:
		return retiredPrefix + "…"
	}
	return key
}

func (w *wire) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	err = w.call("get", key, nil, func() error {
		var err error
		entry, err = w.Storage.Get(ctx, key)
		return err
	})
	return entry, err
}

func (w *wire) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = w.call("list", prefix, nil, func() error {
		var err error
		keys, err = w.Storage.List(ctx, prefix)
		return err
	})
	return keys, err
}

func (w *wire) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return w.call("put", entry.Key, entry.Value, func() error { return w.Storage.Put(ctx, entry) })
}

func (w *wire) Delete(ctx context.Context, key string) error {
	return w.call("delete", key, nil, func() error { return w.Storage.Delete(ctx, key) })
}
