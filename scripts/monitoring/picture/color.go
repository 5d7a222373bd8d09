package picture

import "github.com/go-analyze/charts"

// The colours of what the dashboard says nothing of: light, as it is in print.
const (
	page   = "#f1f2f4"
	paper  = "#ffffff"
	border = "#dcdee2"
	grid   = "#e6e7ea"
	ink    = "#1f2328"
	faint  = "#6a7078"
)

func hex(color string) charts.Color { return charts.ParseColor(color) }

// named is a colour that the dashboard names, much as it is in Grafana's light theme.
func named(color string) charts.Color {
	switch color {
	case "blue":
		return hex("#3274d9")
	case "green":
		return hex("#4a9c3f")
	case "orange":
		return hex("#f2740d")
	case "purple":
		return hex("#a352cc")
	case "red":
		return hex("#d92036")
	case "yellow":
		return hex("#dbab09")
	}
	return hex("#7b8087") // "text", and what is not known here
}

// nth is the colour of the nth line of a panel, where it has none of its own.
func nth(n int) charts.Color {
	colors := []string{"#5a9e3a", "#d9a400", "#2fa8c2", "#e0752d", "#d44a3a", "#1f78c1", "#ba43a9", "#705da0", "#2f575e", "#99440a"}
	return hex(colors[n%len(colors)])
}
