package backend

import (
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/robfig/cron/v3"

	"vault-plugin-secrets-jira/backend/fault"
)

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
		return fault.Userf("rotation_period and rotation_schedule together: give one of them")
	case s.RotationPeriod != 0 && apart < shortestPeriod:
		return fault.Userf("rotation_period %v is too short: %v is the least", apart, shortestPeriod)
	case s.RotationWindow != 0 && s.RotationSchedule == "":
		return fault.Userf("rotation_window is for rotation_schedule")
	case s.RotationWindow != 0 && time.Duration(s.RotationWindow)*time.Second < shortestWindow:
		return fault.Userf("rotation_window %v is too short: %v is the least", time.Duration(s.RotationWindow)*time.Second, shortestWindow)
	}
	if s.RotationSchedule != "" {
		times, err := s.times()
		if err != nil {
			return err
		}
		// A year of it, or the first thousand: some are further apart than others.
		at := times.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		if at.IsZero() {
			return fault.Userf("rotation_schedule %q names no time that ever comes", s.RotationSchedule)
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
			return fault.Userf("rotation_schedule %q is due %v after the last time: %v is the least", s.RotationSchedule, apart, shortestPeriod)
		}
	}
	overlap := s.overlap()
	switch {
	case overlap < 0 || overlap > longestOverlap:
		return fault.Userf("overlap must be 0 to %v", longestOverlap)
	case apart > 0 && 2*overlap >= apart:
		return fault.Userf("overlap %v is not less than half of %v, which is how often is rotated", overlap, apart)
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
	return nil, fault.Userf("rotation_schedule %q is not understood: five fields of cron, as \"0 3 * * SAT\"", s.RotationSchedule)
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
