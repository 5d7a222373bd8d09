package picture

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// line is what a query told of one series: a value for each point of the clock, NaN
// where there is none.
type line struct {
	name   string
	values []float64
}

// last is the last value that there is.
func (l line) last() (float64, bool) {
	for i := len(l.values) - 1; i >= 0; i-- {
		if !math.IsNaN(l.values[i]) {
			return l.values[i], true
		}
	}
	return 0, false
}

// asker asks a recording as Grafana asks a Prometheus.
type asker struct {
	engine *promql.Engine
	from   *recording
	clock  clock
}

func newAsker(from *recording) *asker {
	return &asker{
		engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute}),
		from:   from,
		clock:  newClock(from.start, from.end, from.every),
	}
}

// askAll asks all that a panel shows.
func (a *asker) askAll(ctx context.Context, p panel) ([]line, error) {
	var lines []line
	for _, t := range p.Targets {
		q, is := t.(*prometheus.Dataquery)
		if !is {
			return nil, fmt.Errorf("%T is no query of Prometheus", t)
		}
		told, err := a.ask(ctx, *q)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.Expr, err)
		}
		lines = append(lines, told...)
	}
	return lines, nil
}

// ask evaluates a query at each point of the clock.
func (a *asker) ask(ctx context.Context, q prometheus.Dataquery) ([]line, error) {
	query, err := a.engine.NewRangeQuery(ctx, a.from.db, nil, a.filledIn(q.Expr), a.clock.start, a.clock.end, a.clock.step)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	matrix, err := query.Exec(ctx).Matrix()
	if err != nil {
		return nil, err
	}
	var lines []line
	for _, series := range matrix {
		l := line{called(q, series.Metric), make([]float64, a.clock.points())}
		for i := range l.values {
			l.values[i] = math.NaN()
		}
		for _, p := range series.Floats {
			if !math.IsInf(p.F, 0) {
				l.values[time.UnixMilli(p.T).Sub(a.clock.start)/a.clock.step] = p.F
			}
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// filledIn is a query with what Grafana fills in. Rates are over two minutes, as the
// dashboard's are, but where the whole test took no hour.
func (a *asker) filledIn(expr string) string {
	long := a.from.end.Sub(a.from.start)
	apart := max(a.from.every, min(30*time.Second, long/120))
	return strings.NewReplacer(
		"$__rate_interval", inMilliseconds(max(a.clock.step+apart, 4*apart)),
		"$__range", inMilliseconds(long),
		"$__interval", inMilliseconds(a.clock.step),
	).Replace(expr)
}

func inMilliseconds(d time.Duration) string { return fmt.Sprintf("%dms", d.Milliseconds()) }

var inBraces = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// called is a series' name in the legend.
func called(q prometheus.Dataquery, of labels.Labels) string {
	if q.LegendFormat == nil {
		return of.String()
	}
	return inBraces.ReplaceAllStringFunc(*q.LegendFormat, func(s string) string {
		return of.Get(inBraces.FindStringSubmatch(s)[1])
	})
}
