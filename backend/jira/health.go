package jira

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Health is what a site says of itself to anybody.
type Health struct {
	State string        // RUNNING where all is well; STARTING, MAINTENANCE and the like
	Node  string        // of a cluster, which one answered; empty where it does not say
	Date  time.Time     // what its clock showed, in whole seconds; zero where it does not say
	Took  time.Duration // until the answer was there
}

// Health asks the site how it is. It asks as nobody, so it tells nothing of a
// credential. A Jira that is starting or stopping answers that; one that is in
// maintenance or broken is an error of kind [Down]. How it goes is told to nobody who
// observes the site, and does not open its gate. A site of Jira Cloud, by its own
// address, is asked for what it is instead, and is RUNNING if it answers.
func (s *Site) Health(ctx context.Context, cloud bool) (Health, error) {
	cl := call{method: http.MethodGet, path: "/status", want: []int{http.StatusOK}, open: true, probe: true}
	if cloud {
		cl.path = "/rest/api/2/serverInfo"
	}
	began := time.Now()
	a, err := s.As(Login{}).do(ctx, cl)
	if err != nil {
		return Health{}, err
	}
	h := Health{Took: time.Since(began), Node: tidyWords(a.header.Get("X-Anodeid"))}
	h.Date, _ = http.ParseTime(a.header.Get("Date")) // zero is what there is to say of a bad one
	said := struct {
		State string `json:"state"`
	}{"RUNNING"}
	if err := a.decode(&said); err != nil {
		return Health{}, err
	}
	h.State = tidyWords(said.State)
	return h, nil
}

// RateLimit is what Jira last said of how many calls a user may make at once, and how
// many of those he had left, and when. at is zero where it never said: it does not
// limit anybody.
func (g *Gate) RateLimit() (limit, left int, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rateLimit, g.rateLeft, g.rateAt
}

// hears takes note of what an answer says of the user's rate limit.
func (g *Gate) hears(h http.Header) {
	said := h["X-Ratelimit-Remaining"]
	if len(said) == 0 {
		return
	}
	left, err := strconv.Atoi(said[0])
	if err != nil {
		return
	}
	limit, _ := strconv.Atoi(h.Get("X-Ratelimit-Limit")) // zero where it does not say
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rateLimit, g.rateLeft, g.rateAt = limit, left, time.Now()
}
