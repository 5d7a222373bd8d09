package picture

import (
	"fmt"

	"github.com/go-analyze/charts"
)

// mark is what the legend tells of a colour.
type mark struct {
	name  string
	color charts.Color
}

// drawLegend draws a legend at the foot of a panel and returns how high it is. Where
// there is more than fits into some lines it says how many are left out.
func drawLegend(on *charts.Painter, marks []mark) int {
	const swatch, apart, tall, most = 10, 14, 15, 4
	style := plain(9, ink)
	lines, x := [][]mark{nil}, 0
	for _, m := range marks {
		m.name = fit(on, m.name, on.Width()-swatch-4, style)
		wide := swatch + 4 + on.MeasureText(m.name, 0, style).Width()
		if x > 0 && x+wide > on.Width() {
			lines, x = append(lines, nil), 0
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], m)
		x += wide + apart
	}
	if len(lines) > most {
		left := 0
		for _, line := range lines[most-1:] {
			left += len(line)
		}
		lines = append(lines[:most-1], []mark{{fmt.Sprintf("and %d more", left), hex(border)}})
	}
	for i, line := range lines {
		x, y := 0, on.Height()-(len(lines)-i)*tall
		for _, m := range line {
			on.FilledRect(x, y+6, x+swatch, y+9, m.color, m.color, 0)
			on.Text(m.name, x+swatch+4, y+11, 0, style)
			x += swatch + 4 + on.MeasureText(m.name, 0, style).Width() + apart
		}
	}
	return len(lines) * tall
}
