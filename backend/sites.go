package backend

import (
	"cmp"
	"context"
	"sync"
	"time"

	"vault-plugin-secrets-jira/backend/jira"
)

// sites keeps what is worth keeping between requests: the site's connections,
// the gate before it, and what Jira has said of each login. All of it is made
// from the configuration and the accounts that the caller has just read from
// storage, and made anew when those have changed, so it is never out of date.
// The zero value is ready for use.
type sites struct {
	observe func(method string, status int, took time.Duration)
	dial    dial          // set before the first use, by tests that stand in for the network
	heard   time.Duration // limitHeard, by tests that do not wait
	pause   time.Duration // likewise, by tests that do not wait: a gate's longest pause
	mu      sync.Mutex
	config  config
	site    *jira.Site
	gate    *jira.Gate
	clients map[string]client // by account
}

type client struct {
	*jira.Client
	site   *jira.Site
	config config // of the site, where it is a retired account's own
	login  jira.Login
}

// client returns the client that calls c's site as account a, which is called name. While
// Jira refuses its token, that is one with its fallback password, if it has one.
func (s *sites) client(c *config, name string, a *account) (*jira.Client, error) {
	first, err := s.primary(c, name, a)
	if err != nil || a.FallbackPassword == "" || !first.Refused() {
		return first, err
	}
	return s.primary(c, name+fallbackMark, a.fallback())
}

// fallbackMark ends the name under which an account's second login is kept. No account
// can have it.
const fallbackMark = "/fallback"

// fallback is a as it logs in with its fallback password.
func (a *account) fallback() *account {
	second := *a
	second.Token, second.Password, second.FallbackPassword, second.rotated = "", a.FallbackPassword, "", rotated{}
	return &second
}

// primary is client with a's own login, be it refused.
func (s *sites) primary(c *config, name string, a *account) (*jira.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	site, err := s.current(c)
	if err != nil {
		return nil, err
	}
	login := c.loginOf(a)
	have, ok := s.clients[name]
	if !ok || have.site != site || have.login != login {
		as, err := c.as(site, a)
		if err != nil {
			return nil, err
		}
		next := client{Client: as, site: site, login: login}
		if ok && follows(have.login, login) && have.URL() == site.URL() {
			// A login that Jira has refused stays refused; an organisation's key, whose
			// URL is the gateway's, nobody locks out. A password that is being changed
			// is changed for every call, those that wait included.
			next.Client = have.At(site)
			if have.login != login {
				next.SetPasswords(login.Password, login.Next)
			}
		}
		have = next
		if s.clients == nil {
			s.clients = map[string]client{}
		}
		s.clients[name] = have
	}
	return have.Client, nil
}

// follows tells whether login is what now is in a rotation of its password, or a
// step after it: one that is made next, one that was, or one that was given up.
func follows(now, login jira.Login) bool {
	if now == login {
		return true
	}
	same := now.Username == login.Username && now.Key == login.Key && now.Token == "" && login.Token == ""
	return same && login.Password != "" && (login.Password == now.Password || login.Password == now.Next)
}

// retired returns the client for account name, which was deleted, with the login that r
// has. now is the current config if it is of the same Jira, which is then called as now
// says; where it is nil the way is r's own.
func (s *sites) retired(name string, now *config, r *retired) (*jira.Client, error) {
	first, err := s.retiredPrimary(name, now, r)
	if err != nil || r.Account.FallbackPassword == "" || !first.Refused() {
		return first, err
	}
	return s.retiredPrimary(name+fallbackMark, now, &retired{r.Config, *r.Account.fallback()})
}

// retiredPrimary is retired with r's own login, be it refused.
func (s *sites) retiredPrimary(name string, now *config, r *retired) (*jira.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.clients[name]
	site, err := have.site, error(nil)
	switch {
	case now != nil:
		site, err = s.current(now)
	case site == nil || have.config != r.Config:
		site, err = r.Config.site(s.gateFor(&r.Config), s.dial, s.observe)
	}
	if err != nil {
		return nil, err
	}
	login := r.Config.loginOf(&r.Account)
	if have.site == site && have.login == login {
		return have.Client, nil
	}
	next := client{site: site, login: login}
	if now == nil {
		next.config = r.Config
	}
	if have.Client != nil && have.login == login && have.URL() == site.URL() {
		next.Client = have.At(site) // what Jira has refused stays refused
	} else if next.Client, err = r.Config.as(site, &r.Account); err != nil {
		return nil, err
	}
	if s.clients == nil {
		s.clients = map[string]client{}
	}
	s.clients[name] = next
	return next.Client, nil
}

// forget drops what is known of an account's login, so that one that Jira had
// refused is tried again after it was written.
func (s *sites) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, name)
	delete(s.clients, name+fallbackMark)
}

// onFallback tells whether account name is called with its fallback password now.
func (s *sites) onFallback(name string, a *account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.clients[name]
	return ok && a.FallbackPassword != "" && have.Refused()
}

// forgetAdmin is forget for all that log in with the config's own credential.
func (s *sites) forgetAdmin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, have := range s.clients {
		if name == adminAccount || have.APITokens() != nil {
			delete(s.clients, name)
		}
	}
}

// trial returns c's site for checking c before it is stored. It shares the
// gate with the current site only where it goes the same way. The caller closes it.
func (s *sites) trial(c *config) (*jira.Site, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.site != nil && s.config == *c {
		return s.site, nil
	}
	return c.site(s.gateFor(c), s.dial, s.observe)
}

// trialOf returns c's site for checking account a before it is stored. An account that
// names other addresses than before has a gate of its own: whether they answer says
// nothing of the site. The caller closes it.
func (s *sites) trialOf(c *config, before, a *account) (*jira.Site, error) {
	if before != nil && before.addresses() == a.addresses() || a.addresses() == (service{}) {
		return s.trial(c)
	}
	return c.site(s.newGate(c), s.dial, s.observe)
}

// of returns c's site, to be asked as nobody.
func (s *sites) of(c *config) (*jira.Site, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current(c)
}

// current returns c's site. The caller holds s.mu.
func (s *sites) current(c *config) (*jira.Site, error) {
	if s.site != nil && s.config == *c {
		return s.site, nil
	}
	gate := s.gateFor(c)
	site, err := c.site(gate, s.dial, s.observe)
	if err != nil {
		return nil, err
	}
	gate.SetMost(c.MaxConcurrentRequests)
	if s.site != nil {
		s.site.Close()
	}
	s.config, s.site, s.gate = *c, site, gate
	return site, nil
}

// gateFor returns the gate before c's Jira: the one there is, or a new one where c
// goes another way. What is refused or lost on that way says nothing of this one. The
// caller holds s.mu.
func (s *sites) gateFor(c *config) *jira.Gate {
	if s.gate != nil && s.config.way() == c.way() {
		return s.gate
	}
	return s.newGate(c)
}

func (s *sites) newGate(c *config) *jira.Gate {
	gate := jira.NewGate(c.MaxConcurrentRequests)
	if s.pause != 0 {
		gate.SetLongestPause(s.pause)
	}
	return gate
}

// limitHeard is for how long what Jira said of a rate limit is true: it fills up again, or
// was switched off.
const limitHeard = time.Minute

// weather is until when no call is made to the site, and what it last said of a user's
// rate limit, where it has said so of late.
func (s *sites) weather() (shut time.Time, limit, left int, limited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate == nil {
		return time.Time{}, 0, 0, false
	}
	limit, left, at := s.gate.RateLimit()
	return s.gate.ShutUntil(), limit, left, time.Since(at) < cmp.Or(s.heard, limitHeard)
}

// down tells whether the site did not answer when it was last called.
func (s *sites) down() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate != nil && s.gate.Down()
}

// paused is until when no call is made as those of the accounts whose users Jira limits.
func (s *sites) paused(c *config, accounts map[string]*account) map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	paused := map[string]time.Time{}
	note := func(name string, until time.Time) {
		if time.Until(until) > 0 {
			paused[name] = until
		}
	}
	for name, have := range s.clients {
		note(name, have.PausedUntil())
	}
	for name, a := range accounts {
		if a.traits().expiresOnly && s.site != nil { // which asks as nobody's user
			note(name, s.site.GrantPausedUntil(a.grant(c, "")))
		}
	}
	return paused
}

// close drops idle connections.
func (s *sites) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.site != nil {
		s.site.Close()
	}
}

// client returns the client that calls the configured site as account name, be
// that the config's admin.
func (b *backend) client(ctx context.Context, name string) (*jira.Client, error) {
	if isRetired(name) {
		return b.retiredClient(ctx, name)
	}
	c, err := b.loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	if name == adminAccount {
		return b.admin(c)
	}
	a, err := b.loadAccount(ctx, name)
	if err != nil {
		return nil, err
	}
	return b.sites.client(c, name, a)
}
