package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// After a failure of 30 %, retry reaches exactly those, and nobody twice.
func TestRetryReachesExactlyTheRest(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Rules: []relay.Rule{
		{Stage: relay.Rcpt, Share: 0.2, Reply: "552 5.2.2 mailbox is full"},
		{Stage: relay.EOD, Share: 0.15, Reply: "552 5.2.3 message too large for this mailbox"},
	}}})
	r.start("worker")
	if code, _, errs := r.run(t.Context(), r.send(r.list(1000), "--wait")...); code != exitPartial {
		t.Fatalf("%d %s", code, errs)
	}
	failed := map[string]bool{}
	for _, row := range r.report("c1") {
		if row.Outcome == "rejected" {
			failed[row.Address] = true
		}
	}
	if len(failed) < 200 || len(failed) > 400 {
		t.Fatalf("%d of 1000 were refused: no test of 30 %%", len(failed))
	}
	first := len(r.relay.Truth())
	if err := r.relay.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	code, out, errs := r.run(t.Context(), "campaign", "retry", "c1", "--only", "rejected", "--dry-run", "--json")
	var j retryJSON
	if err := json.Unmarshal([]byte(out), &j); err != nil || code != 0 || j.Reopened != len(failed) || !j.DryRun {
		t.Fatalf("dry run: %d %s %s %v", code, out, errs, err)
	}
	if code, out, errs = r.run(t.Context(), "campaign", "retry", "c1", "--only", "rejected"); code != 0 || !strings.Contains(out, "sent to again now") {
		t.Fatalf("retry: %d %s %s", code, out, errs)
	}
	eventually(t, "everybody has it", func() bool {
		_, out, _ := r.run(t.Context(), "campaign", "show", "c1", "--json")
		return lastJSON(t, out).Accepted == 1000
	})
	truth := r.relay.Truth()
	reconcile(t, values(r.report("c1")), truth)
	if len(truth) != 1000 {
		t.Errorf("%d mails for 1000 recipients", len(truth))
	}
	for _, m := range truth[first:] {
		if !failed[m.To] {
			t.Errorf("%s had it already", m.To)
		}
	}
}

func TestRetryAndSettleUsage(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL()})
	if code, _, errs := r.run(t.Context(), r.send(r.list(2))...); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"retry c1", exitUsage, "--only is needed"},
		{"retry c1 --only accepted", exitUsage, "want one or more of deferred, rejected, unknown, expired"},
		{"retry c1 --only rejected --code 55", exitUsage, `code "55"`},
		{"retry nowhere --only rejected", exitUsage, "campaign list"},
		{"retry c1 --only rejected,expired --code 5.1.1,4xx", 0, "0 recipients are sent to again now"},
		{"settle c1", exitUsage, "--accepted and --rejected"},
		{"settle c1 --accepted --rejected", exitUsage, "--accepted and --rejected"},
		{"settle c1 --accepted --only rejected", exitUsage, "only unknown can be settled"},
		{"settle c1 --accepted", 0, "0 recipients settled as accepted"},
		{"settle c1 --rejected --json", 0, `{"campaign":"c1","settled":0,"as":"rejected"}`},
		{"cancel c1", 0, "cancelled"},
		{"retry c1 --only expired", exitUsage, "cancelled for good; send the rest as a new campaign"},
	} {
		code, out, errs := r.run(t.Context(), append([]string{"campaign"}, strings.Fields(tc.args)...)...)
		if code != tc.code || !strings.Contains(out+errs, tc.want) {
			t.Errorf("campaign %s: %d, want %d\n%s%s", tc.args, code, tc.code, out, errs)
		}
	}
	if code, _, errs := r.run(t.Context(), "campaign", "settle", "c1", "--accepted", "--reason", "two\nlines"); code != exitUsage || !strings.Contains(errs, "one line") {
		t.Errorf("%d %s", code, errs)
	}
}
