package main

import (
	"bytes"
	"os"
	"testing"

	"vault-plugin-secrets-jira/backend"
)

func TestTheReferenceIsCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := write(&want, backend.Paths()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/api.md is not what the schemas say: run make docs")
	}
}
