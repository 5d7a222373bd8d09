package picture

import "github.com/go-analyze/charts"

func plain(size float64, color string) charts.FontStyle {
	return charts.FontStyle{FontSize: size, FontColor: hex(color), Font: charts.GetFont(charts.FontFamilyNotoSans)}
}

func bold(size float64, color charts.Color) charts.FontStyle {
	return charts.FontStyle{FontSize: size, FontColor: color, Font: charts.GetFont(charts.FontFamilyNotoSansBold)}
}

// centered writes text into the middle, with its foot at y.
func centered(on *charts.Painter, text string, y int, style charts.FontStyle) {
	on.Text(text, (on.Width()-on.MeasureText(text, 0, style).Width())/2, y, 0, style)
}

// fit is text, cut where it is wider than there is room.
func fit(on *charts.Painter, text string, width int, style charts.FontStyle) string {
	cut := []rune(text)
	for len(cut) > 1 && on.MeasureText(text, 0, style).Width() > width {
		cut = cut[:len(cut)-1]
		text = string(cut) + "…"
	}
	return text
}
