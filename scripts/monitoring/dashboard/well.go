package dashboard

import (
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// well tells at a glance whether somebody has something to do. Where a number has an
// alert in docs/monitoring/alerts.yml it is red when that one fires.
func well() []panel {
	return []panel{
		number("Ledger", "Whether all records could be read. Until they are, nothing that outlived its lease is ended.",
			`min(vault_jira_ledger_whole)`).
			Mappings([]dashboard.ValueMapping{means("1", "read", "green"), means("0", "not read", "red")}).
			NoValue("no metrics").GraphMode(common.BigValueGraphModeNone).
			Thresholds(from("red", at(1, "green"))),
		number("Tokens alive", "Tokens in Jira that a lease or a static role holds.",
			`sum(vault_jira_ledger_records{state="issued"})`).
			Thresholds(from("blue")),
		number("Tokens owed", "Tokens whose lease is over, and which Jira has not ended yet. The engine goes on trying.",
			`sum(vault_jira_ledger_records{state="owed"})`).
			Thresholds(from("green", at(1, "orange"))),
		number("Oldest debt", "For how long the oldest token that has to go is owed. Over five minutes somebody is woken.",
			`max(vault_jira_oldest_debt_seconds)`).
			Unit(units.Seconds).
			Thresholds(from("green", at(60, "orange"), at(300, "red"))),
		number("Gate to Jira", "How long no call is made yet, because Jira was down or asked for a pause.",
			`max(vault_jira_gate_shut_seconds)`).
			Mappings([]dashboard.ValueMapping{means("0", "open", "green")}).
			Unit(units.Seconds).
			Thresholds(from("orange")),
		number("Panics", "Panics that were caught in the time shown. Each is a bug: the log has the stack.",
			`sum(increase(vault_jira_panics_total[$__range]))`).
			Decimals(0).
			Thresholds(from("green", at(0.1, "red"))),

		number("Reads that failed", "Of what readers asked for in the time shown. A full account answers 429, a credential that died 400, a Jira that is away 503.",
			`(sum(increase(vault_jira_mints_total{result="error"}[$__range])) or vector(0)) / (sum(increase(vault_jira_mints_total[$__range])) > 0)`).
			Unit(units.PercentUnit).NoValue("no reads").
			Thresholds(from("green", at(0.05, "orange"), at(0.2, "red"))),
		number("Calls that failed", "Calls to Jira in the time shown that had no answer, a server error, or 429.",
			`(sum(increase(vault_jira_jira_requests_total{class=~"none|5xx|429"}[$__range])) or vector(0)) / (sum(increase(vault_jira_jira_requests_total[$__range])) > 0)`).
			Unit(units.PercentUnit).NoValue("no calls").
			Thresholds(from("green", at(0.05, "orange"), at(0.2, "red"))),
		number("Fullest account", "Tokens that it holds, of those that it can.",
			`max(vault_jira_account_tokens_held / vault_jira_account_tokens_most)`).
			Unit(units.PercentUnit).Decimals(0).NoValue("no bound").
			Thresholds(from("green", at(0.8, "orange"), at(1, "red"))),
		number("Cannot be rotated", "Credentials whose last rotation failed. What is in use stays in use.",
			`sum(vault_jira_rotation_failing)`).
			NoValue("none").
			Thresholds(from("green", at(1, "red"))),
		number("First to expire", "When the first of the tokens ends in Jira that the engine logs in with, or a static role hands out.",
			`min(vault_jira_credential_expires_timestamp_seconds) - time()`).
			Unit(units.Seconds).NoValue("none does").GraphMode(common.BigValueGraphModeNone).
			Thresholds(from("red", at(5*day, "orange"), at(6*day, "green"))),
		number("Orphans", "Tokens of this mount's name that the last tidy found, and that the ledger does not know.",
			`sum(vault_jira_tidy_findings{kind="orphans"})`).
			NoValue("no tidy yet").
			Thresholds(from("green", at(1, "red"))),

		lines("Tokens by state", "Intended before Jira is asked, issued while a lease holds it, owed when it has to go. Ended ones are gone, and kept until their lease is over, too.",
			units.Short, query(`sum by (state) (vault_jira_ledger_records)`, "{{state}}")).
			OverrideByName("intended", colored("blue")).
			OverrideByName("issued", colored("green")).
			OverrideByName("owed", colored("red")).
			OverrideByName("ended", colored("text")),
		lines("What is owed", "How many tokens have to go, and for how long the oldest.", units.Short,
			query(`sum(vault_jira_ledger_records{state="owed"})`, "tokens"),
			query(`max(vault_jira_oldest_debt_seconds)`, "oldest (right)")).
			OverrideByName("tokens", colored("orange")).
			OverrideByName("oldest (right)", append(onTheRight(units.Seconds), colored("purple")...)),
		lines("What tidy found", "By kind, and how long ago that was. Orphans and lost ones it ends where dry_run is false; siblings nobody manages; others belong to another mount.",
			units.Short,
			query(`sum by (kind) (vault_jira_tidy_findings)`, "{{kind}}"),
			query(`time() - max(vault_jira_tidy_finished_timestamp_seconds)`, "ago (right)")).
			NoValue("No tidy has ended yet").
			OverrideByName("orphans", colored("red")).
			OverrideByName("ago (right)", append(onTheRight(units.Seconds), colored("text")...)),
	}
}

// day is in seconds.
const day = 24 * 60 * 60
