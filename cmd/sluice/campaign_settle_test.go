package main

import (
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// Held unknowns are decided by the operator, with the reason in the report.
func TestSettle(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Rules: []relay.Rule{
		{Stage: relay.EOD, To: "r1@*", Action: relay.AcceptDrop},
	}}})
	r.start("worker")
	if code, _, errs := r.run(t.Context(), r.send(r.list(3), "--wait")...); code != exitPartial {
		t.Fatalf("%d %s", code, errs)
	}
	if row := r.report("c1")["3"]; row.Outcome != "unknown" {
		t.Fatalf("%+v", row)
	}
	code, out, errs := r.run(t.Context(), "campaign", "settle", "c1", "--accepted", "--reason", "it is in the mailbox")
	if code != 0 || !strings.Contains(out, "1 recipients settled as accepted") {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	if row := r.report("c1")["3"]; row.Outcome != "accepted" || !strings.Contains(row.Text, "it is in the mailbox") {
		t.Errorf("%+v", row)
	}
	_, out, _ = r.run(t.Context(), "campaign", "show", "c1", "--json")
	if s := lastJSON(t, out); s.Accepted != 3 || s.State != "done" {
		t.Errorf("%+v", s)
	}
}
