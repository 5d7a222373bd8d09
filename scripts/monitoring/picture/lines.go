package picture

import (
	"math"

	"github.com/go-analyze/charts"
)

// drawLines draws lines over the clock, with a legend below them.
func drawLines(on *charts.Painter, p panel, lines []line, c clock) {
	var marks []mark
	looks := make([]look, len(lines))
	for i, l := range lines {
		looks[i] = p.look(l.name, i)
		marks = append(marks, mark{l.name, looks[i].color})
	}
	foot := drawLegend(on, marks)
	left, right := axes(p, lines, looks)
	plot := newPlot(on, c, foot, left, right)
	for _, at := range p.thresholdLines() {
		if share := left.share(*at.Value); share >= 0 && share <= 1 {
			y := plot.y(left, *at.Value)
			on.DashedLineStroke([]charts.Point{{X: plot.left, Y: y}, {X: plot.right, Y: y}}, named(at.Color), 1, []float64{5, 4})
		}
	}
	for i, l := range lines {
		along := left
		if looks[i].rightUnit != "" {
			along = *right
		}
		plot.line(l.values, along, looks[i])
	}
}

// axes are the one on the left and, where a line asks for it, the one on the right.
func axes(p panel, lines []line, looks []look) (left axis, right *axis) {
	const onLeft, onRight = 0, 1
	var least, most [2]float64
	most[onLeft] = p.softMax()
	rightUnit := ""
	for i, l := range lines {
		side := onLeft
		if looks[i].rightUnit != "" {
			side, rightUnit = onRight, looks[i].rightUnit
		}
		for _, v := range l.values {
			if !math.IsNaN(v) {
				least[side], most[side] = min(least[side], v), max(most[side], v)
			}
		}
	}
	if rightUnit != "" {
		a := newAxis(rightUnit, least[onRight], most[onRight])
		right = &a
	}
	return newAxis(p.unit(), least[onLeft], most[onLeft]), right
}
