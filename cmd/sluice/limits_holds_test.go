package main

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

// Holds of streams, logins and destination groups are shown with what lifts them, and a
// reset lifts them all.
func TestLimitsHolds(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: someLimits})
	cfg, err := config.Load(r.file, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if holds := shownLimits(t, r).Holds; holds == nil || len(holds) != 0 {
		t.Errorf("at first: %+v, want an empty list", holds)
	}
	q, err := openQueue(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.HoldGroup(t.Context(), mail.Ad, "naver", "blocked", "554 5.7.1 listed"); err != nil {
		t.Fatal(err)
	}
	if err := q.HoldLogin(t.Context(), mail.Normal, "f1", "the relay refused the login"); err != nil {
		t.Fatal(err)
	}
	holds := shownLimits(t, r).Holds
	if len(holds) != 2 {
		t.Fatalf("%+v", holds)
	}
	if h := holds[0]; h.Stream != "normal" || h.What != "login" || h.Group != "" || h.Why != "the relay refused the login" || h.Since == "" || h.Until != "" || !strings.Contains(h.Lift, "sluice limits reset") {
		t.Errorf("%+v", h)
	}
	if h := holds[1]; h.Stream != "ad" || h.What != "group" || h.Group != "naver" || h.Until == "" || h.Lift != "itself, at "+h.Until || !slices.Equal(h.Examples, []string{"554 5.7.1 listed"}) {
		t.Errorf("%+v", h)
	}
	code, out, errs := r.run(t.Context(), "limits", "show")
	out = strings.Join(strings.Fields(out), " ")
	if want := "group naver ad " + holds[1].Since + " itself, at " + holds[1].Until + " blocked"; code != exitDone || !strings.Contains(out, want) {
		t.Errorf("code %d, no %q in %s%s", code, want, out, errs)
	}
	if code, out, errs := r.run(t.Context(), "limits", "reset", "--yes"); code != exitDone {
		t.Fatalf("code %d: %s%s", code, out, errs)
	}
	if holds := shownLimits(t, r).Holds; len(holds) != 0 {
		t.Errorf("still there: %+v", holds)
	}
}
