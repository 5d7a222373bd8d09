package backend

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"
)

// storageVersion is the version of what this engine stores. It is raised when an older
// engine could no longer make sense of that, and would do harm; what only adds fields
// that an older one passes over leaves it as it is. Storage without a version is older
// than the first, and is read as it is: what its values lack is what they meant.
const storageVersion = 1

// storedVersion is the version of what a mount's storage holds.
type storedVersion struct {
	Version int    `json:"version"`
	By      string `json:"by"` // the plugin's version
}

// readable is whether what is stored was found to be of a version that is known. The
// zero value is ready for use.
type readable struct {
	is atomic.Bool // for as long as the engine lives: nobody else writes
	mu sync.Mutex
}

// understood fails where storage was written by an engine that is too new for this one.
// The first that asks where writing is safe notes the version, before anything of it is
// stored.
func (b *backend) understood(ctx context.Context, s logical.Storage) error {
	if b.readable.is.Load() {
		return nil
	}
	b.readable.mu.Lock()
	defer b.readable.mu.Unlock()
	if b.readable.is.Load() {
		return nil
	}
	have, err := load[storedVersion](ctx, &b.decoded, s, versionKey)
	if err != nil {
		return err
	}
	if have == nil {
		have = &storedVersion{}
	}
	if have.Version > storageVersion {
		return mistakef("this mount's storage was written by version %s of the plugin and is of version %d, and this plugin, %s, knows %d at most: run that version again, for this one does nothing here", have.By, have.Version, Version, storageVersion)
	}
	if have.Version < storageVersion && b.WriteSafeReplicationState() {
		if err := store(ctx, s, versionKey, storedVersion{storageVersion, Version}); err != nil {
			return err
		}
	}
	b.readable.is.Store(true)
	return nil
}
