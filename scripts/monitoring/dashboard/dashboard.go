// Package dashboard makes the Grafana dashboard of the engine's metrics, which is kept
// as docs/monitoring/dashboard.json.
//
// A row of it answers one question and has a file of its own. To show another metric,
// add a panel to the row that it helps to answer: [number], [lines] and [states] make
// them, and what fits into a line of 24 columns is placed by itself.
package dashboard

import (
	"encoding/json"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Title is the dashboard's name in Grafana.
const Title = "Jira credentials from Vault"

// panel is one that is still being described.
type panel = cog.Builder[dashboard.Panel]

// rows are what is asked, in the order in which somebody asks it who was woken.
func rows() []row {
	return []row{
		{"Is it well?", well()},
		{"Who gets what?", readers()},
		{"How is Jira?", jira()},
		{"What does the engine log in with?", logins()},
	}
}

type row struct {
	question string
	panels   []panel
}

// JSON is the dashboard as Grafana imports it.
func JSON() ([]byte, error) {
	b := dashboard.NewDashboardBuilder(Title). //nolint:staticcheck // the old schema is the one that every Grafana imports
							Uid("vault-jira").
							Description("Tokens of Jira that Vault hands out, and what becomes of them. Of several mounts choose one by its job.").
							Tags([]string{"vault", "jira"}).
							Timezone("browser").
							Time("now-6h", "now").
							Refresh("1m").
							Tooltip(dashboard.DashboardCursorSyncCrosshair).
							Editable().
							WithVariable(dashboard.NewDatasourceVariableBuilder(datasource).
								Label("Data source").
								Type("prometheus")).
		// A filter, and no variable in each query: it knows whatever labels the scraper
		// gives to a mount, and asks for nothing where there is one mount only.
		WithVariable(dashboard.NewAdHocVariableBuilder("filter").
			Label("Filter").
			Datasource(fromDatasource()))
	for _, r := range rows() {
		b.WithRow(dashboard.NewRowBuilder(r.question))
		for _, p := range r.panels {
			b.WithPanel(p)
		}
	}
	d, err := b.Build()
	if err != nil {
		return nil, err
	}
	for i, p := range d.Panels {
		id := uint32(i + 1)
		if p.RowPanel != nil {
			p.RowPanel.Id = id
		} else {
			p.Panel.Id = &id
		}
	}
	text, err := json.MarshalIndent(d, "", "  ")
	// Queries are for people to read, and JSON in a file needs no HTML's precautions.
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(text))
	return []byte(plain + "\n"), err
}
