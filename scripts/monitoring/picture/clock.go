package picture

import (
	"fmt"
	"time"
)

// clock is the time that a picture shows, and how far apart its points are.
type clock struct {
	start, end time.Time
	step       time.Duration
}

// points of a line: one for every two pixels.
const points = 170

func newClock(start, end time.Time, every time.Duration) clock {
	return clock{start, end, max(end.Sub(start)/points, every).Truncate(time.Millisecond)}
}

func (c clock) points() int { return int(c.end.Sub(c.start)/c.step) + 1 }

// ticks are round times after the start, some six of them.
func (c clock) ticks() []time.Duration {
	long := c.end.Sub(c.start)
	apart := 7 * 24 * time.Hour
	for _, round := range []time.Duration{
		time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour,
	} {
		if long/round <= 7 {
			apart = round
			break
		}
	}
	var ticks []time.Duration
	for at := time.Duration(0); at <= long; at += apart {
		ticks = append(ticks, at)
	}
	return ticks
}

// since is a time on the clock: how long after its start.
func since(d time.Duration) string {
	hours, minutes, seconds := d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second
	switch {
	case d == 0:
		return "0"
	case hours == 0 && minutes == 0:
		return fmt.Sprintf("%ds", seconds)
	case hours == 0 && seconds == 0:
		return fmt.Sprintf("%dm", minutes)
	case hours == 0:
		return fmt.Sprintf("%dm%02ds", minutes, seconds)
	case minutes == 0:
		return fmt.Sprintf("%dh", hours)
	}
	return fmt.Sprintf("%dh%02dm", hours, minutes)
}
