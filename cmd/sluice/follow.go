package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// How often a campaign that is followed is looked at, and how often a line is
// written where lines stay.
const (
	lookEvery = 250 * time.Millisecond
	lineEvery = 10 * time.Second
)

// patience is how many looks in a row may find a cancelled campaign unchanged before it
// is asked whether any worker has to do with it: ten seconds, where a worker records a
// cancellation at once.
const patience = 40

// follower shows a campaign's progress on a stream for people.
type follower struct {
	w      io.Writer
	tty    bool
	extra  func() string // more to show, such as the relay's own count; may be nil
	start  time.Time
	last   time.Time // of the last line
	done   int       // recipients that had an outcome at the last look
	at     time.Time // of the last look
	looked bool
	rate   float64 // smoothed, per second
	width  int     // of the line on the screen

	patience int                   // see the constant
	still    int                   // looks in a row that found the campaign cancelled, and as it was
	was      [mail.NumOutcomes]int // at the last look
	told     bool                  // that a worker holds what is left of a cancelled campaign
}

func newFollower(w io.Writer, extra func() string) *follower {
	now := time.Now()
	return &follower{w: w, tty: isTerminal(w), extra: extra, start: now, last: now, at: now, patience: patience}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor fits an int
}

// follow shows progress until the campaign is settled or held, or is cancelled and no
// worker will send anything of it. It waits through an outage of Redis, and says so.
func follow(ctx context.Context, q *queue.Queue, c *queue.Campaign, resend bool, f *follower) (*queue.Summary, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer f.end()
	away := false
	for {
		s, over, err := f.look(ctx, q, c, resend)
		switch {
		case err == nil:
			away = false
			f.show(s, time.Now(), over)
			if over {
				f.tell(s)
				return s, nil
			}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, queue.ErrUnreachable):
			return nil, err
		case !away:
			away = true
			f.say("waiting: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// look reads the campaign's account, and whether that is the last one. Of a cancelled
// campaign it is that too when nobody has claimed any of it, and nobody comes to: only a
// worker can record who is cancelled, and there may be none. Who has claims is asked
// before the account is read, so that the account has all that came of them.
func (f *follower) look(ctx context.Context, q *queue.Queue, c *queue.Campaign, resend bool) (s *queue.Summary, over bool, err error) {
	claimed := true
	if f.still >= f.patience {
		if claimed, err = q.Claimed(ctx, c); err != nil {
			return nil, false, err
		}
	}
	if s, err = q.Summary(ctx, c, resend); err != nil {
		return nil, false, err
	}
	switch {
	case s.Settled:
		return s, true, nil
	case !cancelled(s):
		return s, s.Held != nil, nil
	case s.Outcomes != f.was:
		f.still, f.was = 0, s.Outcomes
		return s, false, nil
	}
	if f.still++; f.still > f.patience && claimed && !f.told {
		f.told = true
		f.say("waiting: " + c.Name + " is cancelled, and a worker that had some of it has yet to record what came of it; is one running?")
	}
	return s, !claimed, nil
}

// tell says why a cancelled campaign is not followed to its end.
func (f *follower) tell(s *queue.Summary) {
	if !s.Settled && cancelled(s) {
		f.say(s.Campaign.Name + " is cancelled: nothing more of it is sent. Who is still pending or deferred is recorded as cancelled once a worker runs")
	}
}

// show writes the progress line: rewritten in place on a terminal, now and then
// elsewhere.
func (f *follower) show(s *queue.Summary, now time.Time, final bool) {
	line := f.line(s, now)
	switch {
	case f.tty:
		pad := max(0, f.width-len(line))
		f.width = len(line)
		fmt.Fprintf(f.w, "\r%s%s", line, strings.Repeat(" ", pad))
	case final || now.Sub(f.last) >= lineEvery:
		f.last = now
		fmt.Fprintln(f.w, line)
	}
}

func (f *follower) line(s *queue.Summary, now time.Time) string {
	total := s.Campaign.Counts.Queued()
	left := s.Count(mail.Pending) + s.Count(mail.Deferred)
	done := total - left
	// What was done before the first look is nobody's rate.
	if d := now.Sub(f.at).Seconds(); d > 0 && f.looked {
		const weight = 0.3
		now := float64(done-f.done) / d
		if f.rate == 0 {
			f.rate = now
		}
		f.rate += weight * (now - f.rate)
	}
	f.done, f.at, f.looked = done, now, true
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(done) / float64(total)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%5.1f%%  %d/%d  %.0f/s  2xx %d  4xx %d  5xx %d", percent, done, total, f.rate,
		s.Count(mail.Accepted), s.Count(mail.Deferred), s.Count(mail.Rejected))
	if n := s.Count(mail.Unknown); n > 0 {
		fmt.Fprintf(&b, "  unknown %d", n)
	}
	fmt.Fprintf(&b, "  conns %d", s.ConnectionsOpened)
	if f.extra != nil {
		b.WriteString("  " + f.extra())
	}
	if left > 0 && f.rate >= 1 {
		eta := time.Duration(float64(left) / f.rate * float64(time.Second))
		fmt.Fprintf(&b, "  ETA %s", max(eta.Round(time.Second), time.Second))
	}
	return b.String()
}

// say writes a line of its own.
func (f *follower) say(text string) {
	f.end()
	fmt.Fprintln(f.w, text)
}

// end leaves the cursor on a fresh line.
func (f *follower) end() {
	if f.tty && f.width > 0 {
		fmt.Fprintln(f.w)
		f.width = 0
	}
}
