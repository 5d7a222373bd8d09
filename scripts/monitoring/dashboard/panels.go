package dashboard

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// datasource is the variable that names the Prometheus to ask.
const datasource = "datasource"

func fromDatasource() common.DataSourceRef {
	return common.DataSourceRef{Type: new("prometheus"), Uid: new("${" + datasource + "}")}
}

// leastStep is how far apart two points are at least. With it $__rate_interval is two
// minutes or more, so that a rate has two scrapes even where they are a minute apart,
// which is Prometheus' default.
const leastStep = "30s"

// perMinute is the unit of what is counted in a minute.
const perMinute = "suffix: /min"

// query asks for lines that are called by legend, in which {{label}} is replaced.
func query(expr, legend string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Expr(expr).LegendFormat(legend).Interval(leastStep).Range().EditorMode(prometheus.QueryEditorModeCode)
}

// targets are queries by the letters that Grafana knows them by.
func targets(queries []*prometheus.DataqueryBuilder) []cog.Builder[variants.Dataquery] {
	var all []cog.Builder[variants.Dataquery]
	for i, q := range queries {
		all = append(all, q.RefId(string(rune('A'+i))))
	}
	return all
}

// number is a panel of one number, as it is now: expr has to come to a single one. It is
// coloured by its thresholds.
func number(title, description, expr string) *stat.PanelBuilder {
	return stat.NewPanelBuilder().
		Title(title).Description(description).Datasource(fromDatasource()).
		Span(4).Height(4).
		WithTarget(query(expr, "").RefId("A")).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		Orientation(common.VizOrientationAuto).
		GraphMode(common.BigValueGraphModeArea).
		ColorMode(common.BigValueColorModeValue).
		Thresholds(from("green"))
}

// lines is a panel of lines over time, a third of the width wide.
func lines(title, description, unit string, queries ...*prometheus.DataqueryBuilder) *timeseries.PanelBuilder {
	return timeseries.NewPanelBuilder().
		Title(title).Description(description).Datasource(fromDatasource()).
		Span(8).Height(8).
		Targets(targets(queries)).
		Unit(unit).Min(0).
		LineWidth(1.5).FillOpacity(8).
		ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().
			ShowLegend(true).
			DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().
			Mode(common.TooltipDisplayModeMulti).
			Sort(common.SortOrderDescending))
}

// states is a panel of a bar for each line, coloured by what it is in at the time.
func states(title, description string, q *prometheus.DataqueryBuilder, meaning ...dashboard.ValueMapping) *statetimeline.PanelBuilder {
	return statetimeline.NewPanelBuilder().
		Title(title).Description(description).Datasource(fromDatasource()).
		Span(8).Height(8).
		Targets(targets([]*prometheus.DataqueryBuilder{q})).
		Mappings(meaning).
		ShowValue(common.VisibilityModeNever).
		RowHeight(0.8).
		LineWidth(0).FillOpacity(80).
		Legend(common.NewVizLegendOptionsBuilder().
			ShowLegend(true).
			DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom))
}

// means shows a value as a word of a colour.
func means(value, word, color string) dashboard.ValueMapping {
	return dashboard.ValueMapping{ValueMap: &dashboard.ValueMap{
		Type:    dashboard.MappingTypeValueToText,
		Options: map[string]dashboard.ValueMappingResult{value: {Text: &word, Color: &color, Index: new(int32(0))}},
	}}
}

// at is a colour that begins with a value.
func at(value float64, color string) dashboard.Threshold {
	return dashboard.Threshold{Value: &value, Color: color}
}

// from are thresholds: a colour, and what replaces it as the value rises.
func from(color string, steps ...dashboard.Threshold) *dashboard.ThresholdsConfigBuilder {
	return dashboard.NewThresholdsConfigBuilder().
		Mode(dashboard.ThresholdsModeAbsolute).
		Steps(append([]dashboard.Threshold{{Color: color}}, steps...))
}

// dashed draws the thresholds into a panel of lines.
func dashed() *common.GraphThresholdsStyleConfigBuilder {
	return common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed)
}

// colored gives a line its colour.
func colored(color string) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "color", Value: dashboard.FieldColor{Mode: dashboard.FieldColorModeIdFixed, FixedColor: &color}}}
}

// dashedLine draws a line in dashes: what failed.
func dashedLine() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{{Id: "custom.lineStyle", Value: common.LineStyle{Fill: new(common.LineStyleFillDash), Dash: []float64{6, 4}}}}
}

// onTheRight gives a line an axis of its own, with another unit.
func onTheRight(unit string) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{
		{Id: "custom.axisPlacement", Value: common.AxisPlacementRight},
		{Id: "unit", Value: unit},
	}
}
