package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// The summary says why nothing is sent, by the relay's own words, and what waits for
// the canary.
func TestSummarySaysWhatWaits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	held := &queue.Hold{State: queue.HoldHeld, Why: "6 hard bounces", Since: now, Lift: "resume", Examples: []string{"550 no such user"}}
	for name, tc := range map[string]struct {
		s    queue.Summary
		want []string
		not  string
	}{
		"held":     {queue.Summary{Held: held}, []string{"held        6 hard bounces", "lifted by: resume", "  550 no such user\n"}, "canary"},
		"settled":  {queue.Summary{Held: held, Settled: true, Canary: &queue.CanaryState{Recipients: 50}}, nil, "canary"},
		"out":      {queue.Summary{Canary: &queue.CanaryState{Recipients: 50, Results: 7}}, []string{"canary      7 of the first 50"}, "held"},
		"waiting":  {queue.Summary{Canary: &queue.CanaryState{Recipients: 50, Results: 50, Until: now}}, []string{"wait until 2026-11-22T09:00:00Z"}, "held"},
		"over":     {queue.Summary{Canary: &queue.CanaryState{Recipients: 50, Results: 50, Over: true}}, nil, "canary"},
		"has none": {queue.Summary{}, nil, "canary"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.s.Campaign = &queue.Campaign{Name: "spring", Stream: mail.Ad, Open: true}
			text := newSummaryJSON(&tc.s, now).text()
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("want %q in:\n%s", want, text)
				}
			}
			if strings.Contains(text, tc.not) {
				t.Errorf("want no %q in:\n%s", tc.not, text)
			}
		})
	}
}
