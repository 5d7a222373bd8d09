// Package picture draws a Grafana dashboard of what was scraped during a test, without a
// Grafana and without a Prometheus that ran: the scrapes are read into Prometheus' own
// storage, its own engine answers each panel's queries, and the panels are drawn where
// the dashboard has them.
//
// It knows the kinds of panels, the units and the overrides that our dashboard uses, and
// fails of another kind of panel.
package picture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-analyze/charts"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// The sizes of the picture, in pixels.
const (
	column = 50 // of the dashboard's 24
	high   = 32 // a line of the dashboard's grid
	gap    = 8  // between panels
	head   = 52 // above them
	inside = 10 // between a panel's border and what it shows
)

// Draw draws the dashboard in text, which is JSON as Grafana has it, of what was scraped
// into the folder scrapes, to the file out, whose ending says whether it is an SVG or a
// PNG. A PNG looks the same everywhere; an SVG is set in the reader's own fonts.
func Draw(ctx context.Context, text []byte, scrapes, out string) (err error) {
	format := strings.TrimPrefix(filepath.Ext(out), ".")
	if format != charts.ChartOutputSVG && format != charts.ChartOutputPNG {
		return fmt.Errorf("%s is neither an .svg nor a .png", out)
	}
	title, panels, err := read(text)
	if err != nil {
		return err
	}
	r, err := record(ctx, scrapes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	picture, err := draw(ctx, title, panels, newAsker(r), format)
	if err != nil {
		return err
	}
	return os.WriteFile(out, picture, 0o644) //nolint:gosec // it is for everyone to see
}

func draw(ctx context.Context, title string, panels []dashboard.PanelOrRowPanel, a *asker, format string) ([]byte, error) {
	foot := 0
	for _, p := range panels {
		foot = max(foot, box(p).Bottom)
	}
	canvas := charts.NewPainter(charts.PainterOptions{OutputFormat: format, Width: 24*column + gap, Height: foot + gap})
	canvas.FilledRect(0, 0, canvas.Width(), canvas.Height(), hex(page), hex(page), 0)
	canvas.Text(title, gap+2, 33, 0, bold(18, hex(ink)))
	when := fmt.Sprintf("%s from %s", since(a.clock.end.Sub(a.clock.start).Round(time.Second)), a.clock.start.UTC().Format("2006-01-02 15:04 UTC"))
	style := plain(11, faint)
	canvas.Text(when, canvas.Width()-gap-2-canvas.MeasureText(when, 0, style).Width(), 33, 0, style)
	for _, p := range panels {
		if p.RowPanel != nil {
			canvas.Text(*p.RowPanel.Title, box(p).Left+2, box(p).Bottom-5, 0, bold(13, hex(ink)))
			continue
		}
		if err := drawPanel(ctx, canvas.Child(charts.PainterBoxOption(box(p))), panel{*p.Panel}, a); err != nil {
			return nil, fmt.Errorf("panel %q: %w", *p.Panel.Title, err)
		}
	}
	return canvas.Bytes()
}

// box is where a panel, or the title of a row, is drawn.
func box(p dashboard.PanelOrRowPanel) charts.Box {
	var at *dashboard.GridPos
	if p.RowPanel != nil {
		at = p.RowPanel.GridPos
	} else {
		at = p.Panel.GridPos
	}
	return charts.Box{
		Left: int(at.X)*column + gap, Right: int(at.X+at.W) * column,
		Top: head + int(at.Y)*high + gap, Bottom: head + int(at.Y+at.H)*high,
		IsSet: true,
	}
}

func drawPanel(ctx context.Context, on *charts.Painter, p panel, a *asker) error {
	lines, err := a.askAll(ctx, p)
	if err != nil {
		return err
	}
	on.FilledRect(0, 0, on.Width(), on.Height(), hex(paper), hex(border), 1)
	on.Text(*p.Title, inside, 20, 0, bold(11, hex(ink)))
	body := on.Child(charts.PainterPaddingOption(charts.Box{Left: inside, Top: 28, Right: inside, Bottom: 6, IsSet: true}))
	switch {
	case p.Type == "stat":
		drawNumber(body, p, lines)
	case len(lines) == 0:
		centered(body, p.nothing(), body.Height()/2, plain(12, faint))
	case p.Type == "timeseries":
		drawLines(body, p, lines, a.clock)
	case p.Type == "state-timeline":
		drawStates(body, p, lines, a.clock)
	default:
		return fmt.Errorf("there is no picture of a %s", p.Type)
	}
	return nil
}
