package picture

import (
	"math"

	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// axis is one of values, from its least, with a tick at each multiple of apart.
type axis struct {
	unit         string
	least, apart float64
	ticks        int // how often that goes into it
}

// newAxis returns one that begins at 0, or below where there is less, and has room for
// what there is at most.
func newAxis(unit string, least, most float64) axis {
	least = min(least, 0)
	if most <= least { // nothing but zeros
		most = least + 1
		if unit == units.Seconds {
			most = least + 4
		}
	}
	a := axis{unit: unit, apart: round(unit, (most-least)/4)}
	a.least = math.Floor(least/a.apart) * a.apart
	a.ticks = max(int(math.Ceil((most-a.least)/a.apart-1e-9)), 1)
	return a
}

// round is the least round number that is not less than v.
func round(unit string, v float64) float64 {
	if unit == units.Seconds {
		for _, s := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 4 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 4 * 86400, 7 * 86400, 14 * 86400} {
			if v > 0.5 && s >= v {
				return s
			}
		}
	}
	if unit == units.Short {
		v = max(v, 1) // what is counted is whole
	}
	size := math.Pow(10, math.Floor(math.Log10(v)))
	for _, digit := range []float64{1, 2, 2.5, 5} {
		if unit == units.Short && size < 10 && digit == 2.5 {
			continue
		}
		if digit*size >= v*(1-1e-9) {
			return digit * size
		}
	}
	return 10 * size
}

// share is how far up the axis a value is, from 0 to 1.
func (a axis) share(v float64) float64 { return (v - a.least) / (float64(a.ticks) * a.apart) }

// label is what is written at a tick.
func (a axis) label(tick int) string {
	return inUnit(a.least+float64(tick)*a.apart, a.unit, a.apart, math.NaN())
}
