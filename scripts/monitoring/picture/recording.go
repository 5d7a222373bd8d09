package picture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
)

// recording is what was scraped, in Prometheus' own storage.
type recording struct {
	db         *tsdb.DB
	dir        string // of db
	start, end time.Time
	every      time.Duration // how far apart two scrapes are, as a rule
}

// scrape is one file of those that were written: the text that the engine answered with.
type scrape struct {
	at   int64 // milliseconds since 1970
	file string
}

// record reads the scrapes in dir. Whoever calls it closes what it returns.
func record(ctx context.Context, dir string) (_ *recording, err error) {
	scrapes, err := list(dir)
	if err != nil {
		return nil, err
	}
	if len(scrapes) < 2 {
		return nil, fmt.Errorf("%s has %d scrapes, and a line takes two: they are called <unix milliseconds>.prom", dir, len(scrapes))
	}
	r := &recording{
		start: time.UnixMilli(scrapes[0].at),
		end:   time.UnixMilli(scrapes[len(scrapes)-1].at),
		every: usual(scrapes),
	}
	if r.dir, err = os.MkdirTemp("", "picture"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = r.close()
		}
	}()
	if r.db, err = tsdb.Open(r.dir, slog.New(slog.DiscardHandler), nil, tsdb.DefaultOptions(), nil); err != nil {
		return nil, err
	}
	alive := map[string]labels.Labels{} // by the text of the labels
	for i, s := range scrapes {
		// Where scrapes are missing the lines have a gap, as they have in a Prometheus
		// that could not scrape.
		if i > 0 && s.at-scrapes[i-1].at > 3*r.every.Milliseconds() {
			if err := r.stale(ctx, alive, scrapes[i-1].at+r.every.Milliseconds()); err != nil {
				return nil, err
			}
			clear(alive)
		}
		if alive, err = r.add(ctx, s, alive); err != nil {
			return nil, fmt.Errorf("%s: %w", s.file, err)
		}
	}
	return r, nil
}

func (r *recording) close() error {
	var err error
	if r.db != nil {
		err = r.db.Close()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

func list(dir string) ([]scrape, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.prom"))
	if err != nil {
		return nil, err
	}
	var scrapes []scrape
	for _, file := range files {
		at, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(file), ".prom"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not called by its unix milliseconds: %w", file, err)
		}
		scrapes = append(scrapes, scrape{at, file})
	}
	slices.SortFunc(scrapes, func(a, b scrape) int { return cmp.Compare(a.at, b.at) })
	return scrapes, nil
}

// usual is the median of how far apart two scrapes are.
func usual(scrapes []scrape) time.Duration {
	var apart []int64
	for i, s := range scrapes[1:] {
		apart = append(apart, s.at-scrapes[i].at)
	}
	slices.Sort(apart)
	return time.Duration(max(apart[len(apart)/2], 1)) * time.Millisecond
}

// add stores a scrape, and that what was alive and is not in it has ended. It returns
// what is alive now.
func (r *recording) add(ctx context.Context, s scrape, alive map[string]labels.Labels) (map[string]labels.Labels, error) {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil, err
	}
	p, err := textparse.New(text, "text/plain; version=0.0.4", labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return nil, err
	}
	now := map[string]labels.Labels{}
	to := r.db.Appender(ctx)
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, to.Rollback())
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, _, v := p.Series()
		if _, err := to.Append(0, l, s.at, v); err != nil {
			return nil, errors.Join(err, to.Rollback())
		}
		now[l.String()] = l
		delete(alive, l.String())
	}
	if err := to.Commit(); err != nil {
		return nil, err
	}
	return now, r.stale(ctx, alive, s.at)
}

// stale stores that the series have ended at a time.
func (r *recording) stale(ctx context.Context, series map[string]labels.Labels, at int64) error {
	to := r.db.Appender(ctx)
	for _, l := range series {
		if _, err := to.Append(0, l, at, math.Float64frombits(value.StaleNaN)); err != nil {
			return errors.Join(err, to.Rollback())
		}
	}
	return to.Commit()
}
