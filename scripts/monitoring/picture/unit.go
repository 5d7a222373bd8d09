package picture

import (
	"math"
	"strconv"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// inUnit is a value as Grafana writes it in one of its units. A time is told in the words
// for one like that of like. Of NaN decimals there are as many as tell a value apart from
// its neighbours.
func inUnit(v float64, unit string, like, decimals float64) string {
	suffix, has := strings.CutPrefix(unit, "suffix:")
	switch {
	case unit == units.Seconds:
		return seconds(v, like, decimals)
	case unit == units.PercentUnit:
		return number(100*v, decimals) + "%"
	case unit == units.Short && math.Abs(v) >= 1000:
		return number(v/1000, decimals) + " K"
	case has:
		return number(v, decimals) + suffix
	}
	return number(v, decimals)
}

func seconds(v, like, decimals float64) string {
	for _, span := range []struct {
		seconds   float64
		one, more string
	}{
		{7 * 86400, " week", " weeks"},
		{86400, " day", " days"},
		{3600, " hour", " hours"},
		{60, " min", " min"},
		{1, " s", " s"},
		{0.001, " ms", " ms"},
	} {
		if math.Abs(like) < span.seconds {
			continue
		}
		text := number(v/span.seconds, decimals)
		if text == "1" {
			return text + span.one
		}
		return text + span.more
	}
	return number(v, decimals) + " s"
}

func number(v, decimals float64) string {
	if math.IsNaN(decimals) {
		decimals = 0
		for whole := math.Abs(v); decimals < 2 && whole < 100 && math.Abs(math.Round(v*math.Pow(10, decimals))-v*math.Pow(10, decimals)) > 1e-6; decimals++ {
			whole *= 10
		}
	}
	return strconv.FormatFloat(v, 'f', int(decimals), 64)
}
