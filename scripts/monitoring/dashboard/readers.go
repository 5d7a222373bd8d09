package dashboard

import "github.com/grafana/grafana-foundation-sdk/go/units"

// readers tells who gets credentials, and how much room is left for more.
func readers() []panel {
	return []panel{
		lines("Reads", "Credentials that readers asked for, by role and how that went.", perMinute,
			query(`60 * sum by (role, result) (rate(vault_jira_mints_total[$__rate_interval]))`, "{{role}} {{result}}")).
			OverrideByRegexp("/ error$/", dashedLine()),
		lines("Renewals", "Renewals of leases, by role and how that went.", perMinute,
			query(`60 * sum by (role, result) (rate(vault_jira_renewals_total[$__rate_interval]))`, "{{role}} {{result}}")).
			OverrideByRegexp("/ error$/", dashedLine()).
			NoValue("No lease was renewed"),
		lines("Revokes", "Revokes of leases, by role and how that went. Success is that the token is proven gone.", perMinute,
			query(`60 * sum by (role, result) (rate(vault_jira_revokes_total[$__rate_interval]))`, "{{role}} {{result}}")).
			OverrideByRegexp("/ error$/", dashedLine()),
		lines("Tokens of an account", "Of leases and static roles.", units.Short,
			query(`sum by (account) (vault_jira_account_tokens_held)`, "{{account}}")),
		lines("How full an account is", "Tokens that it holds, of those that it can. One without an end is not here.", units.PercentUnit,
			query(`max by (account) (vault_jira_account_tokens_held / vault_jira_account_tokens_most)`, "{{account}}")).
			NoValue("No account has a bound").
			AxisSoftMax(1).
			Thresholds(from("transparent", at(1, "red"))).ThresholdsStyle(dashed()),
		lines("Debts", "Tokens of leases that had to go and that Jira did not end at once, and those of them that it has ended since, by account.", perMinute,
			query(`60 * sum by (account) (rate(vault_jira_debts_total[$__rate_interval]))`, "{{account}} taken"),
			query(`60 * sum by (account) (rate(vault_jira_debts_settled_total[$__rate_interval]))`, "{{account}} settled")).
			OverrideByRegexp("/ taken$/", dashedLine()).
			NoValue("Jira has ended all at once"),
	}
}
