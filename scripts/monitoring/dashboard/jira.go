package dashboard

import "github.com/grafana/grafana-foundation-sdk/go/units"

// jira tells how Jira answers, and whether it wants to be left alone.
func jira() []panel {
	return []panel{
		lines("Calls by answer", "By class of the status; none is without an answer.", perMinute,
			query(`60 * sum by (class) (rate(vault_jira_jira_requests_total[$__rate_interval]))`, "{{class}}")).
			OverrideByName("2xx", colored("green")).
			OverrideByName("3xx", colored("blue")).
			OverrideByName("4xx", colored("yellow")).
			OverrideByName("429", colored("orange")).
			OverrideByName("5xx", colored("red")).
			OverrideByName("none", colored("purple")),
		lines("How long calls take", "Of all calls: half, 95 and 99 of a hundred are faster.", units.Seconds,
			query(quantile("0.5", "le"), "p50"),
			query(quantile("0.95", "le"), "p95"),
			query(quantile("0.99", "le"), "p99")).
			OverrideByName("p50", colored("green")).
			OverrideByName("p95", colored("orange")).
			OverrideByName("p99", colored("red")),
		lines("How long calls take, by method", "95 of a hundred are faster.", units.Seconds,
			query(quantile("0.95", "le, method"), "{{method}}")),
		lines("Calls by method", "POST mints, DELETE ends, GET looks.", perMinute,
			query(`60 * sum by (method) (rate(vault_jira_jira_requests_total[$__rate_interval]))`, "{{method}}")),
		lines("Gate shut", "How long no call is made yet; 0 while calls are made. While Jira is down it opens every few seconds for one call.", units.Seconds,
			query(`max(vault_jira_gate_shut_seconds)`, "shut for")).
			OverrideByName("shut for", colored("orange")),
		lines("Calls left", "How many calls Jira last said that a user has left.", units.Short,
			query(`min(vault_jira_jira_rate_limit_remaining)`, "left")).
			NoValue("Jira limits nobody"),
	}
}

// quantile is what q of all calls are faster than, by le and other labels.
func quantile(q, by string) string {
	return `histogram_quantile(` + q + `, sum by (` + by + `) (rate(vault_jira_jira_request_duration_seconds_bucket[$__rate_interval])))`
}
