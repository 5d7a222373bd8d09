package picture

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/go-analyze/charts"
)

// drawStates draws a bar for each line, coloured by what it was at the time, as many as
// there is room for.
func drawStates(on *charts.Painter, p panel, lines []line, c clock) {
	const side, least, most = 110, 12, 28 // pixels: of the names, of a bar
	style := plain(9, ink)
	foot := drawLegend(on, p.words())
	plot := plot{on: on, clock: c, left: side, right: on.Width() - 4, bottom: on.Height() - foot - 18}
	plot.drawClock()
	tall := max(min(plot.bottom/len(lines), most), least)
	for i, l := range lines[:min(len(lines), plot.bottom/tall)] {
		top := i * tall
		on.Text(fit(on, l.name, side-8, style), 0, top+tall/2+4, 0, style)
		for from := 0; from < len(l.values); {
			to := from + 1
			for to < len(l.values) && same(l.values[from], l.values[to]) {
				to++
			}
			if !math.IsNaN(l.values[from]) {
				_, color := p.shown(l.values[from])
				x := plot.x(time.Duration(from) * c.step)
				on.FilledRect(x, top+3, min(plot.x(time.Duration(to)*c.step), plot.right), top+tall-3, named(color).WithAlpha(200), named(color), 0)
			}
			from = to
		}
	}
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// words are what the panel calls values, and their colours.
func (p panel) words() []mark {
	var words []mark
	for _, m := range p.config().Mappings {
		if m.ValueMap == nil {
			continue
		}
		for _, value := range slices.Sorted(maps.Keys(m.ValueMap.Options)) {
			if to := m.ValueMap.Options[value]; to.Text != nil && to.Color != nil {
				words = append(words, mark{*to.Text, named(*to.Color)})
			}
		}
	}
	return words
}
