package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// The second signal ends a worker that waits for a reply, and what it had sent without one
// is listed, and is unknown.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	late := relay.Rule{Name: "late", Stage: relay.EOD, Delay: time.Hour}
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Rules: []relay.Rule{late}}})
	w := r.start("worker")
	if code, _, errs := r.run(t.Context(), r.send(r.list(20))...); code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	eventually(t, "a dot waits for its reply", func() bool { return r.relay.Stats().RuleHits["late"] > 0 })
	w.signal(syscall.SIGTERM)
	eventually(t, "it waits", func() bool { return strings.Contains(w.errs.String(), "a second signal leaves at once") })
	w.signal(syscall.SIGTERM)
	if code := w.wait(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	listed := strings.Count(w.errs.String(), "it is unknown whether it arrived")
	unknown := 0
	for _, row := range r.report("c1") {
		if row.Outcome != "unknown" {
			continue
		}
		unknown++
		if !strings.Contains(w.errs.String(), "line="+strconv.Itoa(row.Line)) {
			t.Errorf("line %d is unknown and not listed", row.Line)
		}
	}
	if listed == 0 || unknown != listed {
		t.Errorf("%d listed, %d unknown: %s", listed, unknown, w.errs.String())
	}
}
