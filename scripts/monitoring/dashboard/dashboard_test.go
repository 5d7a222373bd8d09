package dashboard

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
)

func TestTheDashboardIsCurrent(t *testing.T) {
	want, err := JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/monitoring/dashboard.json is not what is described here: run make dashboard")
	}
}

// written are the panels of the dashboard as Grafana reads them.
func written(t *testing.T) []dashboard.PanelOrRowPanel {
	t.Helper()
	plugins.RegisterDefaultPlugins()
	text, err := JSON()
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard.Dashboard //nolint:staticcheck // as in JSON
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) < 20 {
		t.Fatalf("there are %d panels", len(d.Panels))
	}
	return d.Panels
}

// Each query is PromQL, and has the labels that its legend names.
func TestQueries(t *testing.T) {
	promQL := parser.NewParser(parser.Options{})
	for _, p := range written(t) {
		if p.RowPanel != nil {
			continue
		}
		if len(p.Panel.Targets) == 0 {
			t.Errorf("%s asks for nothing", *p.Panel.Title)
		}
		for _, target := range p.Panel.Targets {
			q, is := target.(*prometheus.Dataquery)
			if !is {
				t.Fatalf("%s asks with %T", *p.Panel.Title, target)
			}
			filledIn := regexp.MustCompile(`\$__(rate_interval|range|interval)\b`).ReplaceAllString(q.Expr, "5m")
			if _, err := promQL.ParseExpr(filledIn); err != nil {
				t.Errorf("%s asks %s: %v", *p.Panel.Title, q.Expr, err)
			}
			if strings.Contains(q.Expr, "$__range") && p.Panel.Type != "stat" {
				t.Errorf("%s: only a number is of the whole time shown", *p.Panel.Title)
			}
			for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(*q.LegendFormat, -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + label[1] + `\b`).MatchString(q.Expr) {
					t.Errorf("%s: the legend names %s, and %s does not keep it", *p.Panel.Title, label[1], q.Expr)
				}
			}
		}
	}
}

// Each panel is explained, and lies where no other does.
func TestPanels(t *testing.T) {
	taken, ids, titles := map[[2]uint32]string{}, map[uint32]bool{}, map[string]bool{}
	for _, p := range written(t) {
		title, at, id := "", dashboard.GridPos{}, uint32(0)
		if p.RowPanel != nil {
			title, at, id = *p.RowPanel.Title, *p.RowPanel.GridPos, p.RowPanel.Id
		} else {
			title, at, id = *p.Panel.Title, *p.Panel.GridPos, *p.Panel.Id
		}
		if ids[id] || titles[title] {
			t.Errorf("%s is there twice, or its id %d is", title, id)
		}
		ids[id], titles[title] = true, true
		if p.Panel != nil && (p.Panel.Description == nil || !strings.HasSuffix(*p.Panel.Description, ".")) {
			t.Errorf("%s is not explained", title)
		}
		if at.X+at.W > 24 {
			t.Errorf("%s is wider than the dashboard", title)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := taken[[2]uint32{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", title, other)
				}
				taken[[2]uint32{x, y}] = title
			}
		}
	}
}
