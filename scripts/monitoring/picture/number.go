package picture

import (
	"math"

	"github.com/go-analyze/charts"
)

// drawNumber draws one big number, as it was last, with a line of what it was before.
func drawNumber(on *charts.Painter, p panel, lines []line) {
	words, color := p.nothing(), "text"
	if len(lines) > 0 {
		if v, known := lines[0].last(); known {
			words, color = p.shown(v)
		}
	}
	if len(lines) > 0 && p.hasSparkline() {
		drawSparkline(on, lines[0].values, named(color))
	}
	style := bold(23, named(color))
	for on.MeasureText(words, 0, style).Width() > on.Width() && style.FontSize > 8 {
		style.FontSize--
	}
	centered(on, words, on.Height()/2+4, style)
}

func drawSparkline(on *charts.Painter, values []float64, color charts.Color) {
	least, most := 0.0, 0.0
	for _, v := range values {
		if !math.IsNaN(v) {
			least, most = min(least, v), max(most, v)
		}
	}
	if most == least {
		return
	}
	const height = 18
	var points []charts.Point
	for i, v := range values {
		y := math.MaxInt32 // a gap
		if !math.IsNaN(v) {
			y = on.Height() - int(height*(v-least)/(most-least))
		}
		points = append(points, charts.Point{X: i * on.Width() / (len(values) - 1), Y: y})
	}
	on.LineStroke(points, color.WithAlpha(110), 1)
}
