package backend

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"

	"vault-plugin-secrets-jira/backend/fault"
)

// storageVersion is the version of what this engine stores. It is raised when an older
// engine could no longer make sense of that, and would do harm; what only adds fields
// that an older one passes over leaves it as it is. Storage without a version is older
// than the first, and is read as it is: what its values lack is what they meant.
const storageVersion = 1

// storedVersion is what storage says of itself.
type storedVersion struct {
	Version int    `json:"version"`
	By      string `json:"by"`    // the plugin's version
	Mount   string `json:"mount"` // where the engine was mounted last, for its log: only requests tell
}

// readable is whether what is stored was found to be of a version that is known. The
// zero value is ready for use.
type readable struct {
	at atomic.Pointer[string] // where storage says that it is mounted; nil: it was not read yet
	mu sync.Mutex
}

// understood fails where storage was written by an engine that is too new for this one.
// The first that asks where writing is safe notes the version, before anything of it is
// stored. mount is where the engine is mounted, or empty where nobody has told.
func (b *backend) understood(ctx context.Context, mount string) error {
	known := func() bool {
		at := b.readable.at.Load()
		return at != nil && (mount == "" || mount == *at)
	}
	if known() {
		return nil
	}
	b.readable.mu.Lock()
	defer b.readable.mu.Unlock()
	if known() {
		return nil
	}
	have, err := load[storedVersion](ctx, &b.decoded, b.storage, versionKey)
	if err != nil {
		return err
	}
	if have == nil {
		have = &storedVersion{}
	}
	if have.Version > storageVersion {
		return fault.Userf("this mount's storage was written by version %s of the plugin and is of version %d, and this plugin, %s, knows %d at most: run that version again, for this one does nothing here", have.By, have.Version, Version, storageVersion)
	}
	at := cmp.Or(mount, have.Mount)
	if (have.Version < storageVersion || have.Mount != at) && b.WriteSafeReplicationState() {
		err := store(ctx, b.storage, versionKey, storedVersion{storageVersion, Version, at})
		if err != nil && have.Version < storageVersion {
			return err
		}
		if err != nil { // the log can wait
			return nil
		}
	}
	b.readable.at.Store(&at)
	if at != "" {
		b.logger.CompareAndSwap(nil, &mounted{at, b.Logger().With("mount", at)})
	}
	return nil
}
