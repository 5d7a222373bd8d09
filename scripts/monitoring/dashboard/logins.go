package dashboard

import (
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// logins tells whether what the engine logs in with is replaced before it dies.
func logins() []panel {
	return []panel{
		// The counters themselves: a rate would miss the first, which may be the only
		// one in months.
		lines("Rotations", "Since the engine has started, by what is rotated and how that went.", units.Short,
			query(`sum by (of, result) (vault_jira_rotations_total)`, "{{of}} {{result}}")).
			OverrideByRegexp("/ error$/", dashedLine()).
			LineInterpolation(common.LineInterpolationStepAfter).
			NoValue("Nothing was rotated since the engine has started"),
		states("What cannot be rotated", "Red from a rotation that failed until one succeeds.",
			query(`max by (of) (vault_jira_rotation_failing)`, "{{of}}"),
			means("0", "well", "green"), means("1", "failed", "red")).
			NoValue("Nothing is rotated"),
		lines("Time until they expire", "Until Jira ends the token by itself. Less than five days means that its rotation failed.", units.Seconds,
			query(`min by (of) (vault_jira_credential_expires_timestamp_seconds) - time()`, "{{of}}")).
			NoValue("None expires").
			Thresholds(from("transparent", at(5*day, "red"))).ThresholdsStyle(dashed()),
	}
}
