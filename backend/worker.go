package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// The worker does what no request is left to do: it looks for the tokens of
// mints whose answers were lost, ends those that are owed, and those whose
// leases are over without Vault having revoked them. It is a goroutine of the
// engine's own on the active node, which sleeps until the first record of the
// ledger falls due. Crash it where you like: it keeps nothing that storage does
// not have, but for how long it meant to wait.
type worker struct {
	running atomic.Bool

	mu     sync.Mutex
	rests  map[string]rest // accounts that could not be settled, by name
	down   rest            // the site: no account at all could be settled
	looked time.Time       // when it last did, by the time of day
	turned time.Time       // when it last finished a turn; see idle
}

// rest is a pause after failures.
type rest struct {
	since time.Time // of the first failure in a row
	until time.Time
}

// next is the rest after one more failure.
func (r rest) next(now time.Time) rest {
	if r.since.IsZero() {
		r.since = now
	}
	r.until = now.Add(backoff(now.Sub(r.since)))
	return r
}

const (
	// longestSleep bounds how long the worker sleeps, lest a clock that was
	// set back keeps it from waking.
	longestSleep = time.Minute
	// turn bounds how long it works for one account before it looks up.
	turn = time.Minute
	// mostATurn is how many records of an account it takes on in one turn.
	mostATurn = 500
)

// startWorker starts the worker, unless it runs.
func (b *backend) startWorker() {
	if b.background.Err() != nil || !b.worker.running.CompareAndSwap(false, true) {
		return
	}
	b.running.Go(func() {
		defer b.worker.running.Store(false)
		err := b.guard(b.log(), func() error { return b.understood(b.background, "") })
		if err != nil { // in a minute it is started again
			b.log().Error("nothing is done in the background", "error", err)
			return
		}
		b.loadLedger()
		for read := time.Now(); b.background.Err() == nil; {
			sleep := longestSleep
			err := b.guard(b.log(), func() error {
				sleep = b.work(b.background)
				return b.reviewDaily(b.background)
			})
			if err != nil {
				sleep = longestRest // it would panic, or fail, again
			}
			b.sleep(sleep)
			if !b.ledger.Whole() && time.Since(read) >= longestSleep {
				b.load()
				read = time.Now()
			}
		}
	})
}

// sleep waits until something may have fallen due.
func (b *backend) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.ledger.Sooner():
	case <-b.background.Done():
	}
}

// loadLedger reads the ledger, until it has seen all of it or the engine ends.
// Records that cannot be read are tried again later: they must not keep the
// others from being looked after.
func (b *backend) loadLedger() {
	for wait := time.Second; b.background.Err() == nil; wait = min(2*wait, time.Minute) {
		if b.load(); b.ledger.Listed() {
			return
		}
		select {
		case <-time.After(wait):
		case <-b.background.Done():
		}
	}
}

// load reads what of the ledger has not been read yet.
func (b *backend) load() {
	err := b.guard(b.log(), func() error { return b.ledger.Load(b.background) })
	b.tellDamaged()
	switch {
	case err == nil:
		b.unread.Store(nil)
	case b.background.Err() == nil:
		b.unread.Store(&err)
		b.log().Error("not all of the ledger can be read, will try again", "error", err)
	}
}

// tellDamaged logs each record of the ledger that makes no sense, once.
func (b *backend) tellDamaged() {
	for _, one := range b.ledger.Damaged() {
		if _, told := b.told.LoadOrStore(one.ID, true); !told {
			b.log().Error("a record of the ledger makes no sense, and its token may be alive in Jira: see to that, then delete tokens/<id> with force=true", "id", one.ID, "account", one.Account, "token_id", one.TokenID, "token_name", one.Name, "bytes", one.Size, "error", one.Why)
		}
	}
}

// workOnce does all that is due now, and returns how long there is nothing to do.
func (b *backend) workOnce(ctx context.Context) (sleep time.Duration) {
	if !b.ledger.Listed() || !b.WriteSafeReplicationState() {
		return longestSleep
	}
	if b.worker.setBack(b.now()) {
		b.log().Warn("the clock was set back: everything is looked at again")
		b.ledger.Reconsider()
	}
	b.tendSoon()
	if err := b.tidyAutomatically(ctx); err != nil {
		b.log().Warn("an automatic tidy could not be started", "error", err)
	}
	due, sleep := b.worker.due(b.ledger.Next(), b.now())
	if len(due) == 0 {
		return min(sleep, b.rotations.wait(b.now()))
	}
	done := make([]outcome, len(due))
	var all sync.WaitGroup
	for i, account := range due {
		all.Go(func() {
			log := b.log().With("account", account)
			ctx, cancel := context.WithTimeout(ctx, turn)
			defer cancel()
			err := b.guard(log, func() error { return b.workFor(ctx, account) })
			if err != nil && ctx.Err() == nil {
				log.Warn("not all that is due could be done, will try again", "error", err)
			}
			done[i] = outcome{account, err}
		})
	}
	all.Wait()
	b.worker.judge(done, b.now())
	return 0 // to see what is left
}

// outcome is how it went for an account.
type outcome struct {
	account string
	err     error
}

// due tells for which accounts there is something to do now, of those that next
// has something for, or how long to sleep until then. When nothing worked of
// late it tries one, and the others once that has succeeded.
func (w *worker) due(next map[string]time.Time, now time.Time) (accounts []string, sleep time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sleep = longestSleep
	for account, at := range next {
		if until := w.rests[account].until; until.After(at) {
			at = until
		}
		if w.down.until.After(at) {
			at = w.down.until
		}
		if wait := at.Sub(now); wait > 0 {
			sleep = min(sleep, wait)
			continue
		}
		accounts = append(accounts, account)
	}
	if !w.down.since.IsZero() && len(accounts) > 1 {
		return []string{accounts[rand.N(len(accounts))]}, 0 //nolint:gosec // any will do
	}
	slices.Sort(accounts)
	return accounts, sleep
}

// setBack tells whether the clock was set back since it was looked at last. What
// memory waits for may be far off then, so the rests are over.
func (w *worker) setBack(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now = now.Round(0) // the time of day, not the time since
	back := now.Before(w.looked.Add(-ledger.Grace))
	w.looked = now
	if back {
		w.down = rest{}
		clear(w.rests)
	}
	return back
}

// judge takes note of how it went.
func (w *worker) judge(done []outcome, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	worked, siteDown := false, false
	for _, d := range done {
		switch {
		case !halts(d.err): // the records that failed are due later
			delete(w.rests, d.account)
			worked = true
			continue
		case jira.OfSite(d.err): // an account whose user Jira limits waits alone
			siteDown = true
		case jira.Is(d.err, jira.Refused):
			worked = true // the site does
		}
		if w.rests == nil {
			w.rests = map[string]rest{}
		}
		w.rests[d.account] = w.rests[d.account].next(now)
	}
	switch {
	case worked && !w.down.since.IsZero():
		w.down = rest{}
		clear(w.rests) // most were for the site's sake
	case !worked && siteDown:
		w.down = w.down.next(now)
	}
}

// rouse has the worker try at once what has failed before: somebody has
// changed what it may have failed for.
func (b *backend) rouse() {
	b.worker.mu.Lock()
	b.worker.down = rest{}
	clear(b.worker.rests)
	b.worker.mu.Unlock()
	b.rotations.rouse()
	b.reviews.soon.Store(true)
	b.ledger.Wake()
}

// workFor does what is due for one account.
func (b *backend) workFor(ctx context.Context, account string) error {
	ids := b.ledger.Due(account, mostATurn)
	err := b.settleAccount(ctx, account, ids...)
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, b.dropExpired(ctx, ids))
	}
	return errors.Join(err, b.dropRetired(ctx, account))
}

// dropExpired forgets tokens that Jira itself has ended so long ago that no
// clock can be that wrong. It is for accounts that nobody can log in to any
// more; of others Jira is asked.
func (b *backend) dropExpired(ctx context.Context, ids []string) error {
	for _, id := range ids {
		r, err := b.ledger.Read(ctx, id)
		if errors.Is(err, ledger.ErrMissing) { // a removal that was answered with an error
			b.paid(id)
		}
		if err != nil || typeOf(r).is().throwAway || r.Expires == 0 || b.now().Before(r.Expires.Time().Add(expiredFor)) {
			continue // what cannot be read now is read again
		}
		if err := b.ledger.Forget(ctx, id); err != nil {
			return err
		}
		b.paid(id)
		b.log().Warn("a token was never proven gone, but Jira must have ended it by itself", "id", id, "account", r.Account, "token_id", r.TokenID, "token_name", r.Name, "expired", r.Expires.Time())
	}
	return nil
}

// expiredFor is how long a token has to be expired to count as gone unproven.
const expiredFor = 24 * time.Hour

// periodic is called by Vault each minute, also where writing is not safe, and
// once when Vault begins to disable or to move the mount. It brings the worker back
// if it has ended, has it look at its clock, and removes what retired accounts
// need no more.
func (b *backend) periodic(ctx context.Context, req *logical.Request) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	log := b.at(req.MountPoint)
	err := b.guard(log, func() error {
		if err := b.understood(ctx, req.MountPoint); err != nil {
			return err
		}
		b.startWorker()
		b.ledger.Wake()
		if b.System().Tainted() {
			// A move may end meanwhile, and what is read at the new path must live. What was
			// there before the mount is seen tainted has a lease that is about to be revoked.
			var held []string
			for _, account := range b.ledger.Accounts() {
				held = append(held, b.ledger.IDs(account)...)
			}
			if b.System().Tainted() {
				return b.endLeased(ctx, held)
			}
		}
		if !b.ledger.Whole() {
			return nil
		}
		return b.dropAllRetired(ctx)
	})
	if err != nil {
		log.Error("periodic work failed", "error", err) // Vault does not log it
	}
	return err
}

// endLeased ends, as far as patience goes, what leases hold of held, and what is owed, for
// Vault is about to revoke every lease of the mount. Vault does so to disable the
// mount and to move it, and nobody is told which: so what no lease holds stays as
// it is (unmount.go ends it), and the record of each lease stays, as ended, until the
// lease's own revoke has come.
func (b *backend) endLeased(ctx context.Context, held []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	accounts := b.ledger.Accounts()
	err := b.recall(ctx, held)
	for b.unpaid() > 0 && ctx.Err() == nil {
		b.settleAccounts(ctx, false, accounts...)
		if b.unpaid() > 0 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	if n := b.unpaid(); n > 0 {
		err = errors.Join(err, fmt.Errorf("the mount is being disabled or moved, and %d tokens are still to be ended in Jira", n))
	}
	return err
}

// unpaid counts the tokens of leases that Jira has still to end, or to be asked about.
// What the engine logs in with ends in its own time.
func (b *backend) unpaid() int {
	n := len(b.ledger.Unsettled("", false))
	for _, account := range b.ledger.Accounts() {
		for _, id := range b.ledger.Own(account) {
			if state := b.ledger.State(id); state == ledger.Owed {
				n--
			}
		}
	}
	return n
}
