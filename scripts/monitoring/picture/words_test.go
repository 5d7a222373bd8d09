package picture

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	unset := math.NaN()
	for _, c := range []struct {
		got, want string
	}{
		{inUnit(0, "s", 0, unset), "0 s"},
		{inUnit(.0123, "s", .0123, unset), "12.3 ms"},
		{inUnit(1, "s", 1, unset), "1 s"},
		{inUnit(90, "s", 90, 0), "2 min"},
		{inUnit(90, "s", 90, unset), "1.5 min"},
		{inUnit(7*86400, "s", 7*86400, unset), "1 week"},
		{inUnit(8*86400, "s", 86400, unset), "8 days"},
		{inUnit(.125, "percentunit", 0, unset), "12.5%"},
		{inUnit(1500, "short", 0, unset), "1.5 K"},
		{inUnit(7.5, "suffix: /min", 0, unset), "7.5 /min"},
		{inUnit(79, "", 0, unset), "79"},
		{since(0), "0"},
		{since(45 * time.Second), "45s"},
		{since(90 * time.Second), "1m30s"},
		{since(20 * time.Minute), "20m"},
		{since(2 * time.Hour), "2h"},
		{since(65 * time.Minute), "1h05m"},
	} {
		if c.got != c.want {
			t.Errorf("%q instead of %q", c.got, c.want)
		}
	}
}

func TestAxes(t *testing.T) {
	for _, c := range []struct {
		unit        string
		least, most float64
		want        string
	}{
		{"short", 0, 0, "0, 1"},
		{"short", 0, 3, "0, 1, 2, 3"},
		{"short", 0, 67, "0, 20, 40, 60, 80"},
		{"suffix: /min", 0, 9, "0 /min, 2.5 /min, 5 /min, 7.5 /min, 10 /min"},
		{"percentunit", 0, 1, "0%, 25%, 50%, 75%, 100%"},
		{"s", 0, 0, "0 s, 1 s, 2 s, 3 s, 4 s"},
		{"s", 0, .3, "0 ms, 100 ms, 200 ms, 300 ms"},
		{"s", 0, 100, "0 s, 30 s, 60 s, 90 s, 120 s"},
		{"s", 0, 40 * 86400, "0 weeks, 2 weeks, 4 weeks, 6 weeks"},
		{"s", -86400, 3 * 86400, "-1 days, 0 days, 1 day, 2 days, 3 days"},
	} {
		a := newAxis(c.unit, c.least, c.most)
		var labels []string
		for i := range a.ticks + 1 {
			labels = append(labels, a.label(i))
		}
		if got := strings.Join(labels, ", "); got != c.want {
			t.Errorf("%v to %v %s: %s instead of %s", c.least, c.most, c.unit, got, c.want)
		}
	}
}

func TestTicks(t *testing.T) {
	for long, want := range map[time.Duration]int{7 * time.Second: 8, time.Minute: 7, 65 * time.Minute: 7, 5 * time.Hour: 6, 30 * time.Hour: 6, 90 * 24 * time.Hour: 13} {
		c := newClock(time.UnixMilli(began), time.UnixMilli(began).Add(long), time.Second)
		if got := len(c.ticks()); got != want {
			t.Errorf("%v has %d ticks instead of %d", long, got, want)
		}
	}
}
