package backend

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vault-plugin-secrets-jira/backend/ledger"
)

// metrics are what the engine counts of itself since it came to life on this node.
// No label holds what somebody outside can make up: accounts, roles and static roles
// are those that an operator has written. What can be told at any moment, such as the
// ledger's size, is asked for when somebody scrapes.
type metrics struct {
	registry  *prometheus.Registry
	mints     *prometheus.CounterVec
	renewals  *prometheus.CounterVec
	revokes   *prometheus.CounterVec
	rotations *prometheus.CounterVec
	debts     *prometheus.CounterVec
	settled   *prometheus.CounterVec
	panics    prometheus.Counter
	calls     *prometheus.CounterVec
	took      *prometheus.HistogramVec
}

// The results that are counted.
const (
	resultDone      = "success"
	resultFailed    = "error"
	resultEnded     = "ended"      // of a revoke: the token was ended before, and that was told then
	resultTakenOver = "taken_over" // of a revoke: Vault may drop the lease, and the engine goes on trying
	resultExpires   = "expires"    // likewise: what it held cannot be revoked, and ends by itself
)

func resultOf(err error) string {
	if err != nil {
		return resultFailed
	}
	return resultDone
}

// count counts one of what c counts by role, or whatever else, and result. Whether it
// succeeded or failed, the other is there from then on, too, as zero: a rate misses what a
// counter begins with.
func count(c *prometheus.CounterVec, of, result string) {
	for _, one := range []string{resultDone, resultFailed} {
		c.WithLabelValues(of, one)
	}
	c.WithLabelValues(of, result).Inc()
}

const namespace = "vault_jira"

func newMetrics(b *backend) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		mints:     counter("mints_total", "Credentials that readers asked for, by role and how that went.", "role", "result"),
		renewals:  counter("renewals_total", "Renewals of leases, by role and how that went.", "role", "result"),
		revokes:   counter("revokes_total", "Revokes of leases, by role and how that went. success: the token is proven gone. ended: it was before. taken_over: Vault dropped the lease, and the engine goes on trying. expires: an access token, which ends by itself.", "role", "result"),
		rotations: counter("rotations_total", "Rotations of the engine's own credentials and of static roles, by what is rotated.", "of", "result"),
		debts:     counter("debts_total", "Tokens of leases that had to go and that Jira did not end at once, by account.", "account"),
		settled:   counter("debts_settled_total", "Tokens of debts_total that were ended since, by account.", "account"),
		calls:     counter("jira_requests_total", "Calls to Jira, by method and class of the answer; none is without an answer.", "method", "class"),
		panics:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "panics_total", Help: "Panics that were caught. Each is a bug: the log has it."}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "jira_request_duration_seconds", Help: "How long calls to Jira took, by method.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"method"}),
	}
	m.registry.MustRegister(m.mints, m.renewals, m.revokes, m.rotations, m.debts, m.settled, m.calls, m.panics, m.took, &present{b: b})
	return m
}

// Metrics returns what the engine can count, for those who describe it.
func Metrics() []*prometheus.Desc {
	descs, all := make(chan *prometheus.Desc), []*prometheus.Desc(nil)
	go func() {
		defer close(descs)
		newBackend(nil, time.Now).metrics.registry.Describe(descs)
	}()
	for d := range descs {
		all = append(all, d)
	}
	return all
}

// called takes note of a call to Jira.
func (m *metrics) called(method string, status int, took time.Duration) {
	class := "none"
	switch {
	case status == http.StatusTooManyRequests:
		class = "429"
	case status >= 200 && status < 600:
		class = [...]string{"2xx", "3xx", "4xx", "5xx"}[status/100-2]
	}
	m.calls.WithLabelValues(method, class).Inc()
	m.took.WithLabelValues(method).Observe(took.Seconds())
}

// present is what is true this moment, asked for at each scrape.
type present struct{ b *backend }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var (
	recordsDesc   = describe("ledger_records", "Records of the ledger, by state.", "state")
	debtDesc      = describe("oldest_debt_seconds", "Since when the oldest token that has to go is owed; 0 where none is.")
	lateDesc      = describe("ledger_overdue_records", "Records for which something is due for more than two minutes, by state.", "state")
	idleDesc      = describe("worker_idle_seconds", "How long ago the worker last finished a turn: a minute at most where nothing is due.")
	wholeDesc     = describe("ledger_whole", "1 once the whole ledger was read.")
	heldDesc      = describe("account_tokens_held", "Tokens of leases and static roles that an account holds.", "account")
	placesDesc    = describe("account_tokens_most", "Tokens of leases and static roles that an account can hold; absent where there is no end.", "account")
	shutDesc      = describe("gate_shut_seconds", "How long no call is made to Jira yet; 0 while calls are made.")
	pausedDesc    = describe("account_paused_seconds", "How long no call is made as an account's user yet, whom Jira limits; absent where it does not.", "account")
	leftDesc      = describe("jira_rate_limit_remaining", "How many calls Jira last said that a user has left; absent where it limits nobody.")
	rotationsDesc = describe("rotation_failing", "1 for what could not be rotated when it was last tried.", "of")
	expiresDesc   = describe("credential_expires_timestamp_seconds", "When a token that the engine logs in with, or a static role hands out, ends in Jira.", "of")
	tidyDesc      = describe("tidy_findings", "What the last tidy found and did not end or forget, by kind.", "kind")
	unlistedDesc  = describe("tidy_unlisted_mounts", "Siblings that the last tidy found and did not end, and that bear the name of a mount which nobody has listed.")
	tidiedDesc    = describe("tidy_finished_timestamp_seconds", "When the last tidy ended.")
)

// Describe is for the library: what Collect may send.
func (p *present) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{recordsDesc, debtDesc, lateDesc, idleDesc, wholeDesc, heldDesc, placesDesc, shutDesc, pausedDesc, leftDesc, rotationsDesc, expiresDesc, tidyDesc, unlistedDesc, tidiedDesc} {
		to <- d
	}
}

// Collect is for the library: what is true now. What storage does not tell now is left
// out.
func (p *present) Collect(to chan<- prometheus.Metric) {
	b := p.b
	ctx, cancel := context.WithTimeout(b.background, undoing)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	counts := b.ledger.Counts()
	late, _ := b.late()
	for _, state := range []ledger.State{ledger.Intended, ledger.Issued, ledger.Owed, ledger.Ended} {
		gauge(recordsDesc, float64(counts[state]), string(state))
		gauge(lateDesc, float64(late.Count[state]), string(state))
	}
	gauge(idleDesc, b.idle().Seconds())
	if debt, err := b.oldestDebt(ctx); err == nil {
		gauge(debtDesc, debt.Seconds())
	}
	gauge(wholeDesc, truth(b.ledger.Whole()))
	shut, _, left, limited := b.sites.weather()
	gauge(shutDesc, max(time.Until(shut), 0).Seconds())
	if limited {
		gauge(leftDesc, float64(left))
	}
	all, err := b.allAccounts(ctx)
	if c, e := b.loadConfig(ctx); e == nil {
		for name, until := range b.sites.paused(c, all) {
			gauge(pausedDesc, time.Until(until).Seconds(), name)
		}
	}
	if err == nil {
		for name, a := range all {
			gauge(heldDesc, float64(b.ledger.Held(name)), name)
			if !a.traits().expiresOnly {
				gauge(placesDesc, float64(a.places()), name)
			}
		}
	}
	if keepers, err := b.keepers(ctx); err == nil {
		for _, k := range keepers {
			gauge(rotationsDesc, truth(b.rotations.failure(k.name) != ""), k.name)
			if have, err := k.load(ctx); err == nil && have != nil && have.Expires != 0 {
				gauge(expiresDesc, float64(have.Expires), k.name)
			}
		}
	}
	if last, err := b.lastTidy(ctx); err == nil && last.Finished != 0 {
		gauge(tidiedDesc, float64(last.Finished))
		gauge(unlistedDesc, float64(last.Unlisted))
		for kind, f := range map[string]findings{"orphans": last.Orphans, "lost": last.Lost, "siblings": last.Siblings, "other_mounts": last.OtherMounts} {
			gauge(tidyDesc, float64(f.Count-f.Done), kind)
		}
	}
}

// oldestDebt is for how long the oldest token that has to go is owed. What the engine logs
// in with goes in its own time, and an access token ends by itself: they are none. Of more
// than a few hundred some are looked at.
func (b *backend) oldestDebt(ctx context.Context) (oldest time.Duration, err error) {
	records, err := b.readAll(ctx, b.ledger.Page(ledger.Filter{State: ledger.Owed}, "", mostATurn))
	for _, r := range records {
		if r != nil && r.State == ledger.Owed && r.Kept != ledger.KeptOwn && !typeOf(r).is().expiresOnly {
			oldest = max(oldest, b.now().Sub(r.OwedAt.Time()))
		}
	}
	return oldest, err
}
