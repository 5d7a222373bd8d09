package backend

import (
	"context"
	"time"

	"vault-plugin-secrets-jira/backend/ledger"
)

// Whether the engine keeps up: what is due, and how long it has been, and whether the
// worker that does it turns at all.

const (
	// overduePatience is how long what is due may wait before something is wrong: it is
	// promised within that.
	overduePatience = 2 * time.Minute
	// idlePatience is the same of the worker, which may have slept before.
	idlePatience = overduePatience + longestSleep
)

// work is a turn of the worker's: it does all that is due now, and returns how long there
// is nothing to do.
func (b *backend) work(ctx context.Context) (sleep time.Duration) {
	sleep = b.workOnce(ctx)
	b.worker.turns(b.now()) // not after a panic
	return sleep
}

// turns notes that the worker has turned, or that it may from now on.
func (w *worker) turns(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turned = now
}

// idle is how long ago the worker has turned. A clock that was set back makes it no longer.
func (b *backend) idle() time.Duration {
	b.worker.mu.Lock()
	defer b.worker.mu.Unlock()
	return max(b.now().Sub(b.worker.turned), 0)
}

// late is what is due for too long, and for how long the first of it.
func (b *backend) late() (what ledger.Late, oldest time.Duration) {
	if what = b.ledger.Late(overduePatience); !what.Since.IsZero() {
		oldest = b.now().Sub(what.Since)
	}
	return what, oldest
}
