package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/robfig/cron/v3"

	"vault-plugin-secrets-jira/backend/jira"
	"vault-plugin-secrets-jira/backend/ledger"
)

// What the engine logs in with, and what a static role hands out, is replaced from
// time to time. How, is in keep.go and password.go; when, is here.
//
// It is the engine's own worker that does it on time, not Vault's rotation manager,
// so it is the same on every edition of Vault. What a rotation leaves unfinished,
// because of a crash or a lost answer, is finished here as well.

// schedule is when something is rotated, as part of what is stored of it.
type schedule struct {
	RotationPeriod   int    `json:"rotation_period,omitempty"` // seconds; 0: none
	RotationSchedule string `json:"rotation_schedule,omitempty"`
	RotationWindow   int    `json:"rotation_window,omitempty"` // seconds; 0: no end
	ScheduledAt      int64  `json:"scheduled_at,omitempty"`    // it was written, in seconds since 1970
	DisableRotation  bool   `json:"disable_automated_rotation,omitempty"`
	// Overlap is in seconds, or noOverlap; 0, as in what was stored before there was
	// one, is the default.
	Overlap int `json:"overlap,omitempty"`
}

// noOverlap is an overlap of 0 that somebody wrote.
const noOverlap = -1

const (
	// shortestPeriod is how often something can be rotated at most.
	shortestPeriod = time.Hour
	// shortestWindow is Vault's own.
	shortestWindow = time.Hour
	// longestOverlap bounds how long two tokens live side by side.
	longestOverlap = 7 * 24 * time.Hour
	defaultOverlap = 5 * time.Minute
	// warnAhead is how long before its end a token is warned about that nobody
	// will replace.
	warnAhead = 14 * 24 * time.Hour
	// soonest is how long before its end a token is replaced at the earliest,
	// whatever the schedule says.
	soonest = 7 * 24 * time.Hour
)

// rotationFields are the fields of a schedule in a request.
func rotationFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"rotation_period": {
			Type:        framework.TypeDurationSecond,
			Description: "How long after the last rotation the next one is due, at least 1h. Not together with rotation_schedule.",
		},
		"rotation_schedule": {
			Type:        framework.TypeString,
			Description: "When a rotation is due, as five fields of cron, in UTC: \"0 3 * * SAT\". At least 1h apart. Not together with rotation_period.",
		},
		"rotation_window": {
			Type:        framework.TypeDurationSecond,
			Description: "How long after a time of rotation_schedule a rotation may still begin, at least 1h. After that the next time is waited for. Omitted: until the next time.",
		},
		"disable_automated_rotation": {
			Type:        framework.TypeBool,
			Description: "Rotate by hand only, and do not replace a token before it expires in Jira either.",
		},
		"overlap": {
			Type:        framework.TypeDurationSecond,
			Description: "How long the last token goes on working beside the new one, less than half the period. A password has none.",
			Default:     int(defaultOverlap / time.Second),
		},
	}
}

// rotationAnswer are the fields of a read that say how rotation stands.
func rotationAnswer() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"last_rotated":          {Type: framework.TypeString, Description: "When the engine last rotated it, RFC 3339 in UTC. Empty if never."},
		"next_rotation":         {Type: framework.TypeString, Description: "When it will next, by its schedule or before it expires in Jira, likewise. Empty if not at all."},
		"last_error":            {Type: framework.TypeString, Description: "Why the last rotation failed. Empty once one has succeeded, and after a restart until it is tried again."},
		"credential_expires_at": {Type: framework.TypeString, Description: "When the token in use ends in Jira, RFC 3339 in UTC. Empty if never, or where that is not known: of a token that was brought, without own_token_id."},
	}
}

// rotationExample is a sample of both.
func rotationExample() map[string]any {
	return map[string]any{ //nolint:gosec // a sample of times
		"rotation_period": 2592000, "rotation_schedule": "", "rotation_window": 0, "disable_automated_rotation": false, "overlap": 300,
		"last_rotated": "2026-03-02T08:15:09Z", "next_rotation": "2026-04-01T08:15:09Z", "last_error": "", "credential_expires_at": "2027-03-02T08:15:09Z",
	}
}

// update takes over what was sent. One of period and schedule takes the place of
// the other.
func (s *schedule) update(f fields) {
	before := s.RotationSchedule
	period := change(f, "rotation_period", &s.RotationPeriod)
	cronned := change(f, "rotation_schedule", &s.RotationSchedule)
	switch {
	case period && !cronned && s.RotationPeriod != 0:
		s.RotationSchedule, s.RotationWindow = "", 0
	case cronned && !period && s.RotationSchedule != "":
		s.RotationPeriod = 0
	}
	if s.RotationSchedule != before {
		s.ScheduledAt = 0 // until it is stored
	}
	change(f, "rotation_window", &s.RotationWindow)
	change(f, "disable_automated_rotation", &s.DisableRotation)
	if change(f, "overlap", &s.Overlap) && s.Overlap == 0 {
		s.Overlap = noOverlap
	}
}

// begun notes when a schedule was written: times before that are not made up for.
func (s *schedule) begun(now time.Time) {
	if s.RotationSchedule != "" && s.ScheduledAt == 0 {
		s.ScheduledAt = now.Unix()
	}
}

// overlap is how long the last token goes on working beside the new one.
func (s *schedule) overlap() time.Duration {
	switch s.Overlap {
	case 0:
		return defaultOverlap
	case noOverlap:
		return 0
	}
	return time.Duration(s.Overlap) * time.Second
}

// validate refuses what cannot work.
func (s *schedule) validate() error {
	apart := time.Duration(s.RotationPeriod) * time.Second
	switch {
	case s.RotationPeriod != 0 && s.RotationSchedule != "":
		return mistakef("rotation_period and rotation_schedule together: give one of them")
	case s.RotationPeriod != 0 && apart < shortestPeriod:
		return mistakef("rotation_period %v is too short: %v is the least", apart, shortestPeriod)
	case s.RotationWindow != 0 && s.RotationSchedule == "":
		return mistakef("rotation_window is for rotation_schedule")
	case s.RotationWindow != 0 && time.Duration(s.RotationWindow)*time.Second < shortestWindow:
		return mistakef("rotation_window %v is too short: %v is the least", time.Duration(s.RotationWindow)*time.Second, shortestWindow)
	}
	if s.RotationSchedule != "" {
		times, err := s.times()
		if err != nil {
			return err
		}
		// A year of it, or the first thousand: some are further apart than others.
		at := times.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		if at.IsZero() {
			return mistakef("rotation_schedule %q names no time that ever comes", s.RotationSchedule)
		}
		apart = longestOverlap * 10
		for range 1000 {
			next := times.Next(at)
			if next.IsZero() {
				break
			}
			apart = min(apart, next.Sub(at))
			at = next
		}
		if apart < shortestPeriod {
			return mistakef("rotation_schedule %q is due %v after the last time: %v is the least", s.RotationSchedule, apart, shortestPeriod)
		}
	}
	overlap := s.overlap()
	switch {
	case overlap < 0 || overlap > longestOverlap:
		return mistakef("overlap must be 0 to %v", longestOverlap)
	case apart > 0 && 2*overlap >= apart:
		return mistakef("overlap %v is not less than half of %v, which is how often is rotated", overlap, apart)
	}
	return nil
}

// times are those of RotationSchedule.
func (s *schedule) times() (cron.Schedule, error) {
	// What else the parser takes has a time zone, or none, of which it panics.
	if len(strings.Fields(s.RotationSchedule)) == 5 && !strings.Contains(s.RotationSchedule, "=") {
		if times, err := cron.ParseStandard(s.RotationSchedule); err == nil {
			return times, nil
		}
	}
	return nil, mistakef("rotation_schedule %q is not understood: five fields of cron, as \"0 3 * * SAT\"", s.RotationSchedule)
}

// next is when something is due by its schedule that has been as it is since then;
// zero if never.
func (s *schedule) next(since, now time.Time) time.Time {
	switch {
	case s.DisableRotation:
		return time.Time{}
	case s.RotationPeriod != 0:
		return since.Add(time.Duration(s.RotationPeriod) * time.Second)
	case s.RotationSchedule == "":
		return time.Time{}
	}
	times, err := s.times()
	if err != nil { // it was read when it was written
		return time.Time{}
	}
	if written := time.Unix(s.ScheduledAt, 0); written.After(since) && !written.After(now) {
		since = written
	}
	at := times.Next(since.UTC())
	if window := time.Duration(s.RotationWindow) * time.Second; window > 0 && !at.IsZero() && now.After(at.Add(window)) {
		at = times.Next(now.Add(-window).UTC())
	}
	return at
}

// due is when k is to be rotated, by its schedule or because its token expires in
// Jira; zero if not at all.
func (s *schedule) due(k *rotated, now time.Time) time.Time {
	since := time.Unix(k.Since, 0)
	if since.After(now) { // the clock was set back
		since = now
	}
	at := s.next(since, now)
	if k.Expires != 0 && !s.DisableRotation {
		expires := time.Unix(k.Expires, 0)
		if before := expires.Add(-min(soonest, max(expires.Sub(since)/4, 0))); at.IsZero() || before.Before(at) {
			at = before
		}
	}
	return at
}

// data is s with how it stands with k, for the API.
func (b *backend) rotationData(s *schedule, k *rotated, name string) map[string]any {
	next := ""
	if due := s.due(k, b.now()); !due.IsZero() {
		next = rfc3339(due)
	}
	return map[string]any{
		"rotation_period": s.RotationPeriod, "rotation_schedule": s.RotationSchedule, "rotation_window": s.RotationWindow,
		"disable_automated_rotation": s.DisableRotation, "overlap": int(s.overlap() / time.Second),
		"last_rotated": unix(k.RotatedAt), "next_rotation": next, "last_error": b.rotations.failure(name), "credential_expires_at": unix(k.Expires),
	}
}

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

func (r *rotations) end(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, name)
	r.at = time.Time{}
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
		log := b.ownLog()
		err := b.guard(log, func() error { return b.tend(b.background) })
		if err != nil && b.background.Err() == nil {
			log.Warn("what is rotated could not be looked after", "error", err)
		}
	})
}

// tend looks after all that is rotated: it finishes what was left unfinished, ends
// what an overlap has left, and rotates what is due.
func (b *backend) tend(ctx context.Context) error {
	if b.System().Tainted() { // all of it is being ended
		return nil
	}
	keepers, err := b.keepers(ctx, b.storage)
	if err != nil {
		return err
	}
	req := &logical.Request{Storage: b.storage}
	if have := b.logger.Load(); have != nil {
		req.MountPoint = have.path
	}
	var failed error
	for _, k := range keepers {
		failed = errors.Join(failed, b.tendOne(ctx, req, k))
	}
	return errors.Join(failed, b.tendRecords(ctx, b.ledger.Accounts()...))
}

// keepers look after all that can be rotated.
func (b *backend) keepers(ctx context.Context, s logical.Storage) ([]*keeper, error) {
	accounts, err := s.List(ctx, accountsPrefix)
	if err != nil {
		return nil, err
	}
	roles, err := s.List(ctx, staticRolesPrefix)
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
func (b *backend) tendOne(ctx context.Context, req *logical.Request, k *keeper) error {
	have, err := k.load(ctx, req.Storage)
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
	defer b.rotations.end(k.name)
	if over {
		if err := k.endPrevious(ctx, req.Storage); err != nil {
			return err
		}
	}
	if !due {
		return nil
	}
	_, err = b.rotateKept(ctx, req, k)
	if err != nil && ctx.Err() == nil {
		b.log(req).Warn("a rotation failed, and will be tried again; what is in use stays", "of", k.what(), "error", err, "again", rfc3339(b.rotations.rests(k.name)))
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
	b.ownLog().Warn("a token that the engine needs ends in Jira, and is not replaced: rotate it, or write another", "of", k.what(), "expires", unix(have.Expires))
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
		have, err := k.load(ctx, b.storage)
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
		b.ownLog().Info("a token is ended that the engine made for itself, or for a static role, and does not use", "id", id, "account", account)
	}
	return nil
}

// rotate rotates what k keeps for somebody who waits.
func (b *backend) rotate(ctx context.Context, req *logical.Request, k *keeper) (warnings []string, err error) {
	if err := b.ledgerIsWhole(); err != nil {
		return nil, err
	}
	if !b.rotations.begin(k.name) {
		return nil, mistakef("%s is being rotated this moment: see what it reads in a moment", k.what())
	}
	defer b.rotations.end(k.name)
	return b.rotateBegun(ctx, req, k)
}

// rotateBegun is rotate by a caller who has begun.
func (b *backend) rotateBegun(ctx context.Context, req *logical.Request, k *keeper) (warnings []string, err error) {
	// Who goes away does not leave it half done.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return b.rotateKept(ctx, req, k)
}

// rotateKept rotates what k keeps, or finishes a rotation that was left. The caller
// has begun.
func (b *backend) rotateKept(ctx context.Context, req *logical.Request, k *keeper) (warnings []string, err error) {
	have, err := k.load(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if have == nil || have.kind() == "" && k.role == "" {
		return nil, k.nothing()
	}
	if have.Password != "" {
		err = k.rotatePassword(ctx, req, have)
	} else {
		warnings, err = k.rotateToken(ctx, req, have)
	}
	b.rotations.judge(k.name, err, b.now())
	b.metrics.rotations.WithLabelValues(k.name, resultOf(err)).Inc()
	if err != nil {
		return nil, fmt.Errorf("rotating %s: %w", k.what(), err)
	}
	b.log(req).Info("rotated", "of", k.what())
	for _, w := range warnings {
		b.log(req).Warn("rotated", "of", k.what(), "warning", w)
	}
	return warnings, nil
}

// strangersNamed are the names of those of a user's tokens that no engine made.
func strangersNamed(tokens []jira.Token) []string {
	names := map[string]bool{}
	for _, t := range tokens {
		if _, _, made := ledger.ParseName(t.Name); !made {
			names[t.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
