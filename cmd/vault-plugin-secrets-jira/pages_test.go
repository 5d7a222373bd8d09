package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPagesAreTold looks whether each command that an operator is told to run is run by a story. What differs from one
// engine to the next is a variable there.
func TestPagesAreTold(t *testing.T) {
	told := map[string]bool{}
	stories, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, story := range stories {
		for line := range strings.Lines(read(t, story)) {
			told[plain(strings.TrimPrefix(strings.TrimSpace(line), "! "))] = true
		}
	}
	for _, page := range []string{"operations.md", "rotation.md"} {
		text := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(read(t, "../../docs/"+page), "")
		commands := regexp.MustCompile("(?m)^    (vault .*)$|`(vault [^`]*)`").FindAllStringSubmatch(text, -1)
		if len(commands) < 10 {
			t.Errorf("%s has %d commands", page, len(commands))
		}
		for _, c := range commands {
			command := plain(c[1] + c[2])
			command = regexp.MustCompile(`tokens/(<id>|5b2tq6hznr4wjd7c)`).ReplaceAllString(command, "tokens/$$ID")
			command = regexp.MustCompile(`own_token_id=\d+`).ReplaceAllString(command, "own_token_id=$$OWN")
			if !told[command] {
				t.Errorf("%s has the command %q, which no story runs", page, command)
			}
		}
	}
}

// plain is a command without the quotes of a shell or of a story, and with single blanks.
func plain(command string) string {
	return strings.Join(strings.Fields(strings.NewReplacer(`"`, "", "'", "", "\n", " ").Replace(command)), " ")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
