package picture

import (
	"math"
	"time"

	"github.com/go-analyze/charts"
)

// plot is the part of a panel that lines are drawn in, in pixels of the panel.
type plot struct {
	on                       *charts.Painter
	clock                    clock
	left, right, top, bottom int
}

// newPlot draws the axes and the grid: the clock's below, one of values on the left, and
// perhaps another on the right. Below it is left room for a foot so high.
func newPlot(on *charts.Painter, c clock, foot int, left axis, right *axis) plot {
	style := plain(9, faint)
	width := func(a axis) (widest int) {
		for i := range a.ticks + 1 {
			widest = max(widest, on.MeasureText(a.label(i), 0, style).Width())
		}
		return widest + 8
	}
	p := plot{on: on, clock: c, left: max(width(left), 34), right: on.Width() - 4, top: 6, bottom: on.Height() - foot - 18}
	if right != nil {
		p.right = on.Width() - width(*right)
	}
	for i := range left.ticks + 1 {
		y := p.y(left, left.least+float64(i)*left.apart)
		on.LineStroke([]charts.Point{{X: p.left, Y: y}, {X: p.right, Y: y}}, hex(grid), 1)
		on.Text(left.label(i), p.left-6-on.MeasureText(left.label(i), 0, style).Width(), y+4, 0, style)
	}
	if right != nil {
		for i := range right.ticks + 1 {
			on.Text(right.label(i), p.right+6, p.y(*right, right.least+float64(i)*right.apart)+4, 0, style)
		}
	}
	p.drawClock()
	return p
}

// drawClock draws the times below the plot.
func (p plot) drawClock() {
	style := plain(9, faint)
	for _, at := range p.clock.ticks() {
		x, wide := p.x(at), p.on.MeasureText(since(at), 0, style).Width()
		p.on.LineStroke([]charts.Point{{X: x, Y: p.bottom}, {X: x, Y: p.bottom + 3}}, hex(border), 1)
		p.on.Text(since(at), min(x-wide/2, p.right-wide), p.bottom+15, 0, style)
	}
}

func (p plot) x(at time.Duration) int {
	return p.left + int(float64(p.right-p.left)*float64(at)/float64(p.clock.end.Sub(p.clock.start)))
}

func (p plot) y(a axis, v float64) int {
	return p.bottom - int(math.Round(float64(p.bottom-p.top)*a.share(v)))
}

// line draws values, with gaps where there are none.
func (p plot) line(values []float64, along axis, as look) {
	var part []charts.Point
	end := func() {
		switch {
		case len(part) == 1: // alone between two gaps
			part = append(part, charts.Point{X: part[0].X + 2, Y: part[0].Y})
			fallthrough
		case len(part) > 1 && !as.dashed:
			p.on.LineStroke(part, as.color, 1.4)
		case len(part) > 1:
			p.on.DashedLineStroke(part, as.color, 1.4, []float64{4, 3})
		}
		part = nil
	}
	for i, v := range values {
		if math.IsNaN(v) {
			end()
			continue
		}
		part = append(part, charts.Point{X: p.x(time.Duration(i) * p.clock.step), Y: p.y(along, v)})
	}
	end()
}
