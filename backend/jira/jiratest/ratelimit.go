package jiratest

import (
	"cmp"
	"net/http"
	"strconv"
	"time"
)

// bucket is what a user has left of his rate limit.
type bucket struct {
	left   int
	filled time.Time // when it was last filled
}

// limit takes one call from the budget of whoever makes q, and returns the headers that say what is left of it, and a refusal if
// nothing was. s.mu is held.
func (s *Server) limit(q *request) (http.Header, *answer) {
	most := s.switches.RateLimit
	if most <= 0 {
		return nil, nil
	}
	fill := cmp.Or(s.switches.RateFill, most)
	interval := cmp.Or(s.switches.RateInterval, time.Minute)
	key := ""
	if q.user != nil {
		key = q.user.Key
	}
	now := s.now()
	b := s.buckets[key]
	if b == nil {
		b = &bucket{left: most, filled: now}
		s.buckets[key] = b
	}
	if n := now.Sub(b.filled) / interval; n > 0 {
		b.filled = b.filled.Add(n * interval)
		b.left = int(min(int64(most), int64(b.left)+int64(n)*int64(fill)))
	}
	over := b.left <= 0
	b.left = max(b.left-1, 0)

	h := http.Header{}
	h.Set("X-RateLimit-Limit", strconv.Itoa(most))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(b.left))
	h.Set("X-RateLimit-FillRate", strconv.Itoa(fill))
	h.Set("X-RateLimit-Interval-Seconds", strconv.Itoa(int(interval/time.Second)))
	wait := 0
	if b.left == 0 {
		wait = int((b.filled.Add(interval).Sub(now) + time.Second - 1) / time.Second)
	}
	h.Set("Retry-After", strconv.Itoa(wait))
	if !over {
		return h, nil
	}
	if s.switches.RetryAfterAbsent {
		h.Del("Retry-After")
	}
	if s.switches.RetryAfterZero {
		h.Set("Retry-After", "0")
	}
	a := jsonAnswer(http.StatusTooManyRequests, map[string]any{"message": "Rate limit exceeded."})
	return h, &a
}
