package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

func TestProgressLine(t *testing.T) {
	t.Parallel()
	s := &queue.Summary{Campaign: &queue.Campaign{Counts: queue.Door{Recipients: 1000}}, ConnectionsOpened: 3}
	f := newFollower(&strings.Builder{}, func() string { return "extra" })
	at := f.at
	look := func(accepted int) string {
		s.Outcomes[mail.Accepted], s.Outcomes[mail.Rejected], s.Outcomes[mail.Pending] = accepted, 10, 990-accepted
		at = at.Add(time.Second)
		return f.line(s, at)
	}
	if got := look(0); !strings.Contains(got, " 0/s") {
		t.Errorf("a rate from one look: %q", got)
	}
	if got, want := look(100), " 11.0%  110/1000  100/s  2xx 100  4xx 0  5xx 10  conns 3  extra  ETA 9s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := look(200); !strings.Contains(got, "100/s") || !strings.Contains(got, "ETA 8s") {
		t.Errorf("a steady rate: %q", got)
	}
	if got := look(990); !strings.HasPrefix(got, "100.0%") || strings.Contains(got, "ETA") {
		t.Errorf("the end: %q", got)
	}
	s.Outcomes[mail.Unknown] = 2
	if got := f.line(s, at); !strings.Contains(got, "unknown 2") {
		t.Errorf("unknown ones are not shown: %q", got)
	}
}

// Lines that stay are written now and then and at the end, not at every look.
func TestProgressWithoutTerminal(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	f := newFollower(&b, nil)
	s := &queue.Summary{Campaign: &queue.Campaign{Counts: queue.Door{Recipients: 1}}}
	start := f.at
	for i := range 100 {
		f.show(s, start.Add(time.Duration(i)*lookEvery), false)
	}
	f.show(s, start.Add(26*time.Second), true)
	if n := strings.Count(b.String(), "\n"); n != 3 { // at 10 s, at 20 s, at the end
		t.Errorf("%d lines:\n%s", n, b.String())
	}
}

// A cancelled campaign that no worker comes to is not waited for, and one that a worker
// may still have mail of is. Why is said once.
func TestFollowCancelledWithoutWorker(t *testing.T) {
	t.Parallel()
	for name, claimed := range map[string]bool{"nobody has any of it": false, "somebody has": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, c := cancelledCampaign(t)
			rdb := e.conn.Client()
			t.Cleanup(func() { _ = rdb.Close() })
			claims := keyPrefix + ":{s:ad}:claims"
			if claimed {
				if err := rdb.HSet(t.Context(), claims, c.ID+"/0", "1 somebody").Err(); err != nil {
					t.Fatal(err)
				}
			}
			var errs safeBuffer
			f := newFollower(&errs, nil)
			f.patience = 2
			done := make(chan *queue.Summary, 1)
			go func() {
				s, err := follow(t.Context(), e.q, c, true, f)
				if err != nil {
					t.Error(err)
				}
				done <- s
			}()
			if claimed {
				eventually(t, "it says what it waits for", func() bool { return strings.Contains(errs.String(), "is one running?") })
				if err := rdb.HDel(t.Context(), claims, c.ID+"/0").Err(); err != nil {
					t.Fatal(err)
				}
			}
			s := <-done
			if s == nil {
				return
			}
			if s.Settled || s.Count(mail.Pending) != 2 || s.Count(mail.Cancelled) != 0 || outcomeCode(s) != exitPartial {
				t.Errorf("exit code %d, %v", outcomeCode(s), s.Outcomes)
			}
			if got := errs.String(); strings.Count(got, "once a worker runs") != 1 || strings.Count(got, "is one running?") > 1 {
				t.Errorf("said\n%s", got)
			}
		})
	}
}

// cancelledCampaign is one of two recipients, in a Redis without workers.
func cancelledCampaign(t *testing.T) (*embedded, *queue.Campaign) {
	t.Helper()
	e, err := startEmbedded(config.Default(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	st, err := e.q.Stage(t.Context(), queue.Campaign{Name: "july", Key: "july", Stream: mail.Ad, Size: 500}, []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	b := &queue.Block{Lines: []int{2, 3}, Emails: []string{"a@example.com", "b@example.com"}}
	if err := errors.Join(st.Put(t.Context(), 0, b), st.Commit(t.Context(), 1, 0, queue.Door{Recipients: 2})); err != nil {
		t.Fatal(err)
	}
	c := st.Campaign()
	if err := e.q.Cancel(t.Context(), c, "test"); err != nil {
		t.Fatal(err)
	}
	return e, c
}

func TestOutcomeCode(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		s    queue.Summary
		o    mail.Outcome
		want int
	}{
		"all accepted":            {queue.Summary{Settled: true}, mail.Accepted, exitDone},
		"duplicates":              {queue.Summary{Settled: true}, mail.Duplicate, exitDone},
		"suppressed":              {queue.Summary{Settled: true}, mail.Suppressed, exitDone},
		"invalid":                 {queue.Summary{Settled: true}, mail.Invalid, exitPartial},
		"rejected":                {queue.Summary{Settled: true}, mail.Rejected, exitPartial},
		"unknown":                 {queue.Summary{Settled: true}, mail.Unknown, exitPartial},
		"expired":                 {queue.Summary{Settled: true}, mail.Expired, exitPartial},
		"cancelled":               {queue.Summary{Settled: true, Held: &queue.Hold{}}, mail.Cancelled, exitPartial},
		"held":                    {queue.Summary{Held: &queue.Hold{}}, mail.Pending, exitHeld},
		"cancelled, not recorded": {queue.Summary{Held: &queue.Hold{State: queue.HoldCancelled}}, mail.Pending, exitPartial},
		"held, but all":           {queue.Summary{Settled: true, Held: &queue.Hold{}}, mail.Accepted, exitDone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.s.Outcomes[tc.o]++
			if got := outcomeCode(&tc.s); got != tc.want {
				t.Errorf("exit code %d, want %d", got, tc.want)
			}
		})
	}
}
