package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/ledger"
)

// Where things lie in the mount's storage. What holds a credential of the
// engine's own is seal-wrapped (backend.go lists it); the ledger holds none.
const (
	configKey         = "config"
	accountsPrefix    = "accounts/"     // + name
	retiredPrefix     = "retired/"      // + a name that no account can have
	rolesPrefix       = "roles/"        // + name
	staticRolesPrefix = "static-roles/" // + name
	ledgerPrefix      = "ledger/"       // + what package ledger makes of a record's id
	mountIDKey        = "mount-id"
	formerMountIDsKey = "former-mount-ids"
	tidyStatusKey     = "tidy-status"
	autoTidyKey       = "auto-tidy"
	reviewKey         = "review"
	versionKey        = "version"
	destinationKey    = "destination" // of a config that was deleted before its accounts
	fenceKey          = "fence"       // written to find out who may write
)

// decoded remembers what stored values came to, for what every mint reads.
// Storage is asked all the same, and decides: a value is decoded anew when its
// bytes have changed. The zero value is ready for use.
type decoded struct {
	mu   sync.Mutex
	keys map[string]decodedValue
}

type decodedValue struct {
	raw []byte
	v   any
}

// load reads what lies under key. It is nil where nothing does. Callers share
// the value, so they may copy it but not change it.
func load[T any](ctx context.Context, known *decoded, s logical.Storage, key string) (*T, error) {
	entry, err := s.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", key, err)
	}
	if entry == nil {
		known.forget(key)
		return nil, nil // absence is no error, and every caller tells what it means
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	have := known.keys[key]
	if v, ok := have.v.(*T); ok && bytes.Equal(have.raw, entry.Value) {
		return v, nil
	}
	v := new(T)
	if err := json.Unmarshal(entry.Value, v); err != nil {
		// The error's text may quote the value.
		return nil, fmt.Errorf("what is stored under %q does not parse", key)
	}
	if known.keys == nil {
		known.keys = map[string]decodedValue{}
	}
	known.keys[key] = decodedValue{entry.Value, v}
	return v, nil
}

func (d *decoded) forget(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.keys, key)
}

// store writes v under key.
func store(ctx context.Context, s logical.Storage, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, &logical.StorageEntry{Key: key, Value: value}); err != nil {
		return fmt.Errorf("writing %q: %w", key, err)
	}
	return nil
}

// remove deletes what lies under key.
func remove(ctx context.Context, known *decoded, s logical.Storage, key string) error {
	known.forget(key)
	if err := s.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %q: %w", key, err)
	}
	return nil
}

// mountID is the id that tells this mount's tokens from those of others. It
// survives everything but the mount's own end.
type mountID struct {
	mu sync.Mutex
	id string
}

// get returns the id, which is made on its first use. The lock is held over
// storage so that there is only ever one.
func (m *mountID) get(ctx context.Context, known *decoded, s logical.Storage) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id != "" {
		return m.id, nil
	}
	stored, err := load[string](ctx, known, s, mountIDKey)
	if err != nil {
		return "", err
	}
	if stored == nil {
		id := ledger.NewMountID()
		if err := store(ctx, s, mountIDKey, id); err != nil {
			return "", err
		}
		stored = &id
	}
	m.id = *stored
	return m.id, nil
}
