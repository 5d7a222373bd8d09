package picture

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/go-analyze/charts"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// read reads a dashboard's title and panels as Grafana does.
func read(text []byte) (string, []dashboard.PanelOrRowPanel, error) {
	known := cog.NewRuntime()
	known.RegisterPanelcfgVariant(stat.VariantConfig())
	known.RegisterPanelcfgVariant(statetimeline.VariantConfig())
	known.RegisterPanelcfgVariant(timeseries.VariantConfig())
	known.RegisterDataqueryVariant(prometheus.VariantConfig())
	var d dashboard.Dashboard //nolint:staticcheck // the old schema is the one that every Grafana imports
	if err := json.Unmarshal(text, &d); err != nil {
		return "", nil, fmt.Errorf("reading the dashboard: %w", err)
	}
	return *d.Title, d.Panels, nil
}

// panel is one of the dashboard, with the little of it that a picture shows.
type panel struct {
	dashboard.Panel
}

func (p panel) config() dashboard.FieldConfig { return p.FieldConfig.Defaults }

func (p panel) unit() string {
	if u := p.config().Unit; u != nil {
		return *u
	}
	return ""
}

// nothing is what is shown where there is no value.
func (p panel) nothing() string {
	if s := p.config().NoValue; s != nil {
		return *s
	}
	return "No data"
}

// hasSparkline tells whether a number is drawn with what it was before.
func (p panel) hasSparkline() bool {
	o, is := p.Options.(*stat.Options)
	return is && o.GraphMode == common.BigValueGraphModeArea
}

// lineConfig is what only panels of lines have; what was not set is nil.
func (p panel) lineConfig() timeseries.FieldConfig {
	if c, is := p.config().Custom.(*timeseries.FieldConfig); is {
		return *c
	}
	return timeseries.FieldConfig{}
}

// softMax is how far the axis reaches at least.
func (p panel) softMax() float64 {
	if most := p.lineConfig().AxisSoftMax; most != nil {
		return *most
	}
	return 0
}

// thresholdLines are the thresholds that are drawn between lines.
func (p panel) thresholdLines() []dashboard.Threshold {
	style, all := p.lineConfig().ThresholdsStyle, p.config().Thresholds
	if style == nil || style.Mode == common.GraphThresholdsStyleModeOff || all == nil || len(all.Steps) == 0 {
		return nil
	}
	return all.Steps[1:] // the first begins nowhere
}

// shown is a value in words, and its colour by the panel's mappings and thresholds.
func (p panel) shown(v float64) (words, color string) {
	c := p.config()
	color = "text"
	if c.Thresholds != nil {
		for _, step := range c.Thresholds.Steps {
			if step.Value == nil || v >= *step.Value {
				color = step.Color
			}
		}
	}
	for _, m := range c.Mappings {
		if m.ValueMap == nil {
			continue
		}
		if to, is := m.ValueMap.Options[fmt.Sprint(v)]; is {
			if to.Color != nil {
				color = *to.Color
			}
			return *to.Text, color
		}
	}
	decimals := math.NaN()
	if c.Decimals != nil {
		decimals = *c.Decimals
	}
	return inUnit(v, p.unit(), v, decimals), color
}

// look is how a line is drawn.
type look struct {
	color     charts.Color
	dashed    bool
	rightUnit string // of the axis on the right, where the line is one of that
}

// look is how the line of a name looks, which is the nth.
func (p panel) look(name string, n int) look {
	l := look{color: nth(n)}
	for _, o := range p.FieldConfig.Overrides {
		if !matches(o.Matcher, name) {
			continue
		}
		unit, right := "", false
		for _, set := range o.Properties {
			switch set.Id {
			case "color":
				l.color = named(part(set.Value, "fixedColor"))
			case "custom.lineStyle":
				l.dashed = part(set.Value, "fill") == string(common.LineStyleFillDash)
			case "custom.axisPlacement":
				right = set.Value == string(common.AxisPlacementRight)
			case "unit":
				unit, _ = set.Value.(string)
			}
		}
		if right {
			l.rightUnit = unit
		}
	}
	return l
}

// matches tells whether a line of a name is meant.
func matches(m dashboard.MatcherConfig, name string) bool {
	what, _ := m.Options.(string)
	switch m.Id {
	case "byName":
		return what == name
	case "byRegexp":
		is, err := regexp.MatchString(strings.Trim(what, "/"), name)
		return err == nil && is
	}
	return false
}

// part is a text within a property's value.
func part(of any, key string) string {
	m, _ := of.(map[string]any)
	s, _ := m[key].(string)
	return s
}
