// Command monitoring makes what docs/monitoring shows of the engine's metrics:
//
//	go run . dashboard >../../docs/monitoring/dashboard.json
//	go run . picture SCRAPES ../../docs/monitoring/dashboard.svg
//
// The first is the dashboard that Grafana imports. The second is a picture of it, of what
// a test has scraped into the folder SCRAPES: files called by the unix milliseconds of
// their scrape, as 1767225600000.prom, each with the text that the engine answered.
package main

import (
	"context"
	"fmt"
	"os"

	"vault-plugin-secrets-jira/scripts/monitoring/dashboard"
	"vault-plugin-secrets-jira/scripts/monitoring/picture"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "monitoring:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "dashboard":
		text, err := dashboard.JSON()
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(text)
		return err
	case len(args) == 3 && args[0] == "picture":
		text, err := dashboard.JSON()
		if err != nil {
			return err
		}
		return picture.Draw(context.Background(), text, args[1], args[2])
	}
	return fmt.Errorf("usage: monitoring dashboard, or monitoring picture SCRAPES OUT")
}
