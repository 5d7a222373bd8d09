package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"testing"
)

// TestRestore goes back to an older state of Vault's storage, as after a disaster. What was read since has no lease any
// more and no record: tidy finds it in Jira by its name, and ends it when it is told to.
func TestRestore(t *testing.T) {
	simulated(t)
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	defer w.end()
	w.beginRaft(1)
	w.configure()
	w.api("PUT", "jira/roles/app", map[string]any{"accounts": "ci", "ttl": "10m"})
	type credential struct {
		LeaseID string `json:"lease_id"`
		Data    struct {
			Token     string
			TokenName string `json:"token_name"`
		}
	}
	read := func() (c credential) {
		t.Helper()
		w.read(&c, w.api("GET", "jira/creds/app", nil))
		return c
	}
	works := func(c credential, want int) {
		t.Helper()
		w.must(want, "GET", w.jira["JIRA_URL"]+"/rest/api/2/myself", nil, "Authorization", "Bearer "+c.Data.Token)
	}
	kept, revoked := read(), read()
	snapshot := w.api("GET", "sys/storage/raft/snapshot", nil)
	w.api("PUT", "sys/leases/revoke", map[string]any{"lease_id": revoked.LeaseID, "sync": true})
	lost := []credential{read(), read(), read()}

	w.restore(snapshot)
	// What had a lease then has it now. One of them was revoked meanwhile; its end is harmless.
	w.api("PUT", "sys/leases/renew", map[string]any{"lease_id": kept.LeaseID})
	works(kept, http.StatusOK)
	w.api("PUT", "sys/leases/revoke", map[string]any{"lease_id": revoked.LeaseID, "sync": true})

	// Nobody ends what nobody knows of. Tidy tells, and by itself changes nothing.
	var names []string
	for _, c := range lost {
		works(c, http.StatusOK)
		names = append(names, c.Data.TokenName)
	}
	slices.Sort(names)
	report := w.tidy(nil)
	if !slices.Equal(report.names(), names) || report.Count != len(names) || report.Deleted != 0 {
		t.Errorf("tidy finds %+v, lost are %v", report, names)
	}
	for _, c := range append(lost, kept) {
		works(c, http.StatusOK)
	}
	report = w.tidy(map[string]any{"dry_run": false})
	if report.Deleted != len(names) {
		t.Errorf("tidy deletes %+v, lost are %v", report, names)
	}
	for _, c := range lost {
		works(c, http.StatusUnauthorized)
	}
	works(kept, http.StatusOK)

	w.api("PUT", "sys/leases/revoke-prefix/jira/creds", map[string]any{"sync": true})
	works(kept, http.StatusUnauthorized)
	w.holdsNothing()
}

// restore puts an older state into Vault's storage, which Vault opens anew.
func (w *world) restore(snapshot []byte) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "PUT", w.addr+"/v1/sys/storage/raft/snapshot", bytes.NewReader(snapshot))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", w.root)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode/100 != 2 {
		w.t.Fatalf("restoring a snapshot: %d %s (%v)", resp.StatusCode, answer, err)
	}
	// It answers before it has begun. The account's ledger tells when the engine runs on what was restored.
	if poll(func() bool {
		status, answer := w.send("GET", w.addr+"/v1/jira/accounts/ci", nil, "X-Vault-Token", w.root)
		var account struct{ Data struct{ Held int } }
		return status == http.StatusOK && json.Unmarshal(answer, &account) == nil && account.Data.Held == 2
	}) != nil {
		w.t.Fatal("the engine does not run on what was restored")
	}
}

// tidyReport is what the engine says of a tidy.
type tidyReport struct {
	State   string
	Count   int `json:"orphan_count"`
	Deleted int `json:"orphan_deleted_count"`
	Lost    int `json:"lost_count"`
	Orphans []struct {
		TokenName string `json:"token_name"`
	}
}

func (r *tidyReport) names() []string {
	var names []string
	for _, o := range r.Orphans {
		names = append(names, o.TokenName)
	}
	slices.Sort(names)
	return names
}

// tidy runs a tidy and waits for its end.
func (w *world) tidy(fields map[string]any) *tidyReport {
	w.t.Helper()
	w.must(http.StatusAccepted, "PUT", w.addr+"/v1/jira/tidy", fields, "X-Vault-Token", w.root)
	var status struct{ Data tidyReport }
	if poll(func() bool {
		status.Data = tidyReport{}
		w.read(&status, w.api("GET", "jira/tidy-status", nil))
		return status.Data.State != "Running"
	}) != nil || status.Data.State != "Finished" {
		w.t.Fatalf("tidy does not finish: %+v", status)
	}
	return &status.Data
}
