package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"vault-plugin-secrets-jira/backend/fault"
	"vault-plugin-secrets-jira/backend/ledger"
)

// What the engine logs in with, and what a static role hands out, is replaced from
// time to time. How, is in keep.go and password.go; when, in schedule.go; who sees to it,
// is here.
//
// It is the engine's own worker that does it on time, not Vault's rotation manager,
// so it is the same on every edition of Vault. What a rotation leaves unfinished,
// because of a crash or a lost answer, is finished here as well.

// rotations is which rotations run, and which have failed. It is memory's alone:
// what matters is stored with what is rotated. The zero value is ready for use.
type rotations struct {
	mu     sync.Mutex
	busy   map[string]bool
	failed map[string]failedRotation
	warned map[string]time.Time // of tokens that will expire
	at     time.Time            // when there is something to look at; zero: now
	looked time.Time            // when somebody last began to look
	tends  bool                 // somebody looks
}

type failedRotation struct {
	rest
	why string
}

// begin tells whether name may be rotated by whoever asks, who then says end.
func (r *rotations) begin(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[name] {
		return false
	}
	if r.busy == nil {
		r.busy, r.failed, r.warned = map[string]bool{}, map[string]failedRotation{}, map[string]time.Time{}
	}
	r.busy[name] = true
	return true
}

// end says that name is not being rotated any more, so that what is due now is looked at.
func (r *rotations) end(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, name)
	r.at = time.Time{}
}

// leave is end where nothing could be done, and is left alone until the next look.
func (r *rotations) leave(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, name)
}

// judge takes note of how a rotation of name went.
func (r *rotations) judge(name string, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.failed, name)
		return
	}
	f := r.failed[name]
	if f.since.IsZero() {
		f.since = now
	}
	f.until = now.Add(min(max(now.Sub(f.since), shortestRetry), longestRetry))
	f.why = err.Error()
	r.failed[name] = f
}

const (
	// shortestRetry and longestRetry bound how long after a rotation that failed
	// it is tried again.
	shortestRetry = 10 * time.Second
	longestRetry  = time.Hour
)

// failure is why the last rotation of name failed, or "".
func (r *rotations) failure(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[name].why
}

// rests is until when name is left alone; zero if it is not.
func (r *rotations) rests(name string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed[name].until
}

// rouse has everything looked at at once.
func (r *rotations) rouse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = time.Time{}
	for name, f := range r.failed {
		f.rest = rest{}
		r.failed[name] = f
	}
}

// tendInterval is how often what is rotated is looked at: a rotation is that much
// late at most.
const tendInterval = 30 * time.Second

// turn tells whether it is time to look, and nobody does.
func (r *rotations) turn(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tends || now.Before(r.at) && now.After(r.at.Add(-2*tendInterval)) {
		return false
	}
	r.tends, r.at, r.looked = true, now.Add(tendInterval), now
	return true
}

// wait is how long the worker can sleep until it is time to look again.
func (r *rotations) wait(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := r.looked.Add(tendInterval).Sub(now)
	if wait <= 0 || wait > tendInterval { // somebody still looks, or the clock was set back
		return tendInterval
	}
	return wait
}

func (r *rotations) turned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tends = false
}

// tendSoon looks after what is rotated, behind the worker's back, if it is time.
func (b *backend) tendSoon() {
	if !b.ledger.Whole() || !b.rotations.turn(b.now()) {
		return
	}
	b.running.Go(func() {
		defer b.rotations.turned()
		log := b.log()
		err := b.guard(log, func() error { return b.tend(b.background) })
		if err != nil && b.background.Err() == nil {
			log.Warn("what is rotated could not be looked after", "error", err)
		}
	})
}

// tend looks after all that is rotated: it finishes what was left unfinished, ends
// what an overlap has left, and rotates what is due.
func (b *backend) tend(ctx context.Context) error {
	if b.System().Tainted() { // it may be about to end, and can wait until that is known
		return nil
	}
	keepers, err := b.keepers(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, k := range keepers {
		failed = errors.Join(failed, b.tendOne(ctx, k))
	}
	return errors.Join(failed, b.tendRecords(ctx, b.ledger.Accounts()...))
}

// keepers look after all that can be rotated.
func (b *backend) keepers(ctx context.Context) ([]*keeper, error) {
	accounts, err := b.storage.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	roles, err := b.storage.List(ctx, staticRolesPrefix)
	if err != nil {
		return nil, err
	}
	var all []*keeper
	for _, name := range append([]string{adminAccount}, accounts...) {
		all = append(all, &keeper{b: b, account: name, name: name})
	}
	for _, name := range roles {
		all = append(all, &keeper{b: b, role: name, name: staticName(name)})
	}
	return all, nil
}

// tendOne looks after what k keeps. An error is of storage; why a rotation failed is
// noted.
func (b *backend) tendOne(ctx context.Context, k *keeper) error {
	have, err := k.load(ctx)
	if err != nil || have == nil || have.kind() == "" && k.role == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	now := b.now()
	b.warnOfExpiry(k, have, now)
	over := have.PreviousEnd != 0 && !now.Before(time.Unix(have.PreviousEnd, 0))
	due := have.Next != "" || k.lacksItsToken(ctx, have)
	// Who was told a static role's last token has it for the whole overlap.
	if at := have.due(&have.rotated, now); !at.IsZero() && !now.Before(at) && (k.role == "" || have.PreviousEnd == 0 || over) {
		due = true
	}
	if rests := b.rotations.rests(k.name); now.Before(rests) && rests.Before(now.Add(2*longestRetry)) {
		due = false
	}
	if !over && !due || !b.rotations.begin(k.name) {
		return nil
	}
	done := b.rotations.end
	defer func() { done(k.name) }()
	if over {
		if err := k.endPrevious(ctx); err != nil {
			done = b.rotations.leave // or it would be tried again at once
			return err
		}
	}
	if !due {
		return nil
	}
	_, err = b.rotateKept(ctx, ledger.Reader{}, k)
	if err != nil && ctx.Err() == nil {
		b.log().Warn("a rotation failed, and will be tried again; what is in use stays", "of", k.what(), "error", err, "again", rfc3339(b.rotations.rests(k.name)))
	}
	return nil
}

// lacksItsToken tells whether a static role has no token to hand out: it was not made
// yet, or was ended by a tidy that found it gone, or a delete by force.
func (k *keeper) lacksItsToken(ctx context.Context, have *credential) bool {
	if k.role == "" {
		return false
	}
	if have.RecordID == "" {
		return true
	}
	r, err := k.b.ledger.Read(ctx, have.RecordID)
	return errors.Is(err, ledger.ErrMissing) || err == nil && r.State == ledger.Owed
}

// warnOfExpiry logs once a day that a token will end in Jira and nothing is
// replacing it.
func (b *backend) warnOfExpiry(k *keeper, have *credential, now time.Time) {
	if have.Expires == 0 || now.Add(warnAhead).Before(time.Unix(have.Expires, 0)) || !have.DisableRotation && b.rotations.failure(k.name) == "" {
		return
	}
	b.rotations.mu.Lock()
	defer b.rotations.mu.Unlock()
	if now.Sub(b.rotations.warned[k.name]).Abs() < 24*time.Hour {
		return
	}
	if b.rotations.warned == nil {
		b.rotations.warned = map[string]time.Time{}
	}
	b.rotations.warned[k.name] = now
	b.log().Warn("a token that the engine needs ends in Jira, and is not replaced: rotate it, or write another", "of", k.what(), "expires", unix(have.Expires))
}

// tendRecords ends every kept token of the accounts that nobody keeps any more: its
// secret was never stored, or another was written in its place.
func (b *backend) tendRecords(ctx context.Context, accounts ...string) error {
	// First what there is, then what is wanted: by the time that a mint is over its
	// token is stored as next, and goes on from there.
	unwanted := map[string]string{} // their accounts, by id
	var keepers []*keeper
	for _, account := range accounts {
		ids := b.ledger.Kept(account)
		if len(ids) == 0 { // nor has a retired one any
			continue
		}
		for _, id := range ids {
			unwanted[id] = account
		}
		keepers = append(keepers, &keeper{b: b, account: account, name: account})
	}
	if len(unwanted) == 0 {
		return nil
	}
	roles, err := b.storage.List(ctx, staticRolesPrefix)
	if err != nil {
		return err
	}
	for _, role := range roles {
		keepers = append(keepers, &keeper{b: b, role: role, name: staticName(role)})
	}
	for _, k := range keepers {
		have, err := k.load(ctx)
		if err != nil {
			return err
		}
		if have != nil {
			delete(unwanted, have.RecordID)
			delete(unwanted, have.NextID)
			delete(unwanted, have.PreviousID)
		}
	}
	for id, account := range unwanted {
		if err := b.ledger.Owe(ctx, id, ""); err != nil && !errors.Is(err, ledger.ErrMissing) {
			return err
		}
		b.log().Info("a token is ended that the engine made for itself, or for a static role, and does not use", "id", id, "account", account)
	}
	return nil
}

// rotate rotates what k keeps for somebody who waits.
func (b *backend) rotate(ctx context.Context, by ledger.Reader, k *keeper) (warnings []string, err error) {
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	if !b.rotations.begin(k.name) {
		return nil, fault.Userf("%s is being rotated this moment: see what it reads in a moment", k.what())
	}
	defer b.rotations.end(k.name)
	return b.rotateBegun(ctx, by, k)
}

// rotateBegun is rotate by a caller who has begun.
func (b *backend) rotateBegun(ctx context.Context, by ledger.Reader, k *keeper) (warnings []string, err error) {
	// Who goes away does not leave it half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return b.rotateKept(ctx, by, k)
}

// rotateKept rotates what k keeps, or finishes a rotation that was left. The caller
// has begun.
func (b *backend) rotateKept(ctx context.Context, by ledger.Reader, k *keeper) (warnings []string, err error) {
	have, err := k.load(ctx)
	if err != nil {
		return nil, err
	}
	if have == nil || have.kind() == "" && k.role == "" {
		return nil, k.nothing()
	}
	if have.Password != "" {
		err = k.rotatePassword(ctx, have)
	} else {
		warnings, err = k.rotateToken(ctx, by, have)
	}
	b.rotations.judge(k.name, err, b.now())
	count(b.metrics.rotations, k.name, resultOf(err))
	b.eventOfRotation(k, err)
	if err != nil {
		return nil, fmt.Errorf("rotating %s: %w", k.what(), err)
	}
	b.log().Info("rotated", "of", k.what())
	for _, w := range warnings {
		b.log().Warn("rotated, and something is left to do", "of", k.what(), "warning", w)
	}
	return warnings, nil
}
