// Whoami asks a Jira whose token it was handed, and prints the answer: "200 ci-bot", or "401" for a token that Jira refuses.
//
//	printf %s "$token" | whoami https://jira.example.com
//
// It stands in for curl in scripts/demo.sh. The token comes on stdin, where no process list shows it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "whoami:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: whoami JIRA-URL, with the token on stdin")
	}
	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	url := strings.TrimSuffix(os.Args[1], "/") + "/rest/api/2/myself"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		fmt.Println(resp.StatusCode)
		return nil
	}
	var myself struct {
		Name string `json:"name"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&myself); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	fmt.Println(resp.StatusCode, myself.Name)
	return nil
}
