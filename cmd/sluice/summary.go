package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// summaryJSON is the summary object of the outside contract. The identity over its
// counts holds at every moment.
type summaryJSON struct {
	Campaign          string  `json:"campaign"`
	Stream            string  `json:"stream"`
	Recipients        int     `json:"recipients"`
	Invalid           int     `json:"invalid"`
	Duplicate         int     `json:"duplicate"`
	Suppressed        int     `json:"suppressed"`
	Pending           int     `json:"pending"`
	Deferred          int     `json:"deferred"`
	Accepted          int     `json:"accepted"`
	Rejected          int     `json:"rejected"`
	Unknown           int     `json:"unknown"`
	Expired           int     `json:"expired"`
	Cancelled         int     `json:"cancelled"`
	Resent            int     `json:"resent"`
	ConnectionsOpened int     `json:"connections_opened"`
	Seconds           float64 `json:"seconds"`
	State             string  `json:"state"`
	Held              string  `json:"held,omitempty"`
	HeldSince         string  `json:"held_since,omitempty"`
	Lift              string  `json:"lift,omitempty"`
	Delivered         int     `json:"delivered,omitempty"` // of those accepted, by feedback; beside the identity
	Bounced           int     `json:"bounced,omitempty"`
	SetAside          int     `json:"set_aside,omitempty"` // recipients in blocks whose records do not decode

	HeldExamples []string    `json:"held_examples,omitempty"`
	Canary       *canaryJSON `json:"canary,omitempty"`
}

// canaryJSON is how far those of a campaign are who are sent to first.
type canaryJSON struct {
	Recipients int    `json:"recipients"`
	Results    int    `json:"results"`
	State      string `json:"state"`           // out, waiting or over
	Until      string `json:"until,omitempty"` // while waiting
}

func newCanaryJSON(c *queue.CanaryState) *canaryJSON {
	switch {
	case c == nil:
		return nil
	case c.Over:
		return &canaryJSON{c.Recipients, c.Results, "over", ""}
	case c.Until.IsZero():
		return &canaryJSON{c.Recipients, c.Results, "out", ""}
	}
	return &canaryJSON{c.Recipients, c.Results, "waiting", c.Until.Format(time.RFC3339)}
}

// text says what the rest of the campaign waits for, if it does.
func (c *canaryJSON) text() string {
	switch {
	case c == nil || c.State == "over":
		return ""
	case c.State == "waiting":
		return fmt.Sprintf("canary      the first %d have results; the others wait until %s for what comes in afterwards\n", c.Recipients, c.Until)
	}
	return fmt.Sprintf("canary      %d of the first %d have a result; the others wait for them\n", c.Results, c.Recipients)
}

func newSummaryJSON(s *queue.Summary, now time.Time) summaryJSON {
	j := summaryJSON{
		Campaign: s.Campaign.Name, Stream: string(s.Campaign.Stream), Recipients: s.Campaign.Counts.Recipients,
		Invalid: s.Count(mail.Invalid), Duplicate: s.Count(mail.Duplicate), Suppressed: s.Count(mail.Suppressed),
		Pending: s.Count(mail.Pending), Deferred: s.Count(mail.Deferred), Accepted: s.Count(mail.Accepted),
		Rejected: s.Count(mail.Rejected), Unknown: s.Count(mail.Unknown), Expired: s.Count(mail.Expired),
		Cancelled: s.Count(mail.Cancelled), Resent: s.Resent, ConnectionsOpened: s.ConnectionsOpened,
		Seconds: float64(s.Took(now).Milliseconds()) / 1000, State: s.State(now), Canary: newCanaryJSON(s.Canary),
	}
	j.Delivered, j.Bounced = s.Delivered, s.Bounced
	for _, b := range s.Aside {
		j.SetAside += b.Recipients
	}
	if s.Held != nil && !s.Settled {
		j.Held, j.HeldSince, j.Lift = s.Held.Why, s.Held.Since.Format(time.RFC3339), s.Held.Lift
		j.HeldExamples = s.Held.Examples
	}
	return j
}

// outcomeCode is the exit code a campaign has earned.
func outcomeCode(s *queue.Summary) int {
	switch {
	case !s.Settled && cancelled(s): // nothing lifts it, and nobody who is left gets mail
		return exitPartial
	case !s.Settled && s.Held != nil:
		return exitHeld
	case s.Count(mail.Invalid)+s.Count(mail.Rejected)+s.Count(mail.Unknown)+s.Count(mail.Expired)+s.Count(mail.Cancelled) > 0:
		return exitPartial
	}
	return exitDone
}

// finished ends a command that waited for a campaign: the summary on stdout, the
// exit code as its error.
func (a *app) finished(s *queue.Summary, asJSON bool) error {
	if err := a.printSummary(s, asJSON); err != nil {
		return err
	}
	code := outcomeCode(s)
	if code == exitDone {
		return nil
	}
	e := &exitError{code: code}
	if code == exitHeld {
		e.err = fmt.Errorf("campaign %s is %s: %s\nlifted by: %s", s.Campaign.Name, s.Held.State, s.Held.Why, s.Held.Lift)
	}
	return e
}

func (a *app) printSummary(s *queue.Summary, asJSON bool) error {
	j := newSummaryJSON(s, time.Now())
	if asJSON {
		return writeJSON(a.out, j)
	}
	_, err := io.WriteString(a.out, j.text())
	return err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// text is the summary for people. Outcomes that did not occur are left out, except
// those one looks for.
func (j summaryJSON) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "campaign    %s (stream %s), %s\n", j.Campaign, j.Stream, j.State)
	if j.Held != "" {
		fmt.Fprintf(&b, "held        %s\n            since %s; lifted by: %s\n", j.Held, j.HeldSince, j.Lift)
		for _, example := range j.HeldExamples {
			fmt.Fprintf(&b, "            %s\n", example)
		}
	}
	if j.State != queue.HoldCancelled && j.State != "done" {
		b.WriteString(j.Canary.text())
	}
	if j.SetAside > 0 {
		fmt.Fprintf(&b, "damaged     the records of %d recipients do not decode; who of them has no outcome that can be read counts as unknown\n            repaired by: sluice campaign verify %s --to FILE\n", j.SetAside, j.Campaign)
	}
	fmt.Fprintf(&b, "recipients  %d\n", j.Recipients)
	for _, line := range []struct {
		name   string
		n      int
		always bool
		note   string
	}{
		{"accepted", j.Accepted, true, "the relay took the mail"},
		{"rejected", j.Rejected, true, "the relay refused it for good"},
		{"deferred", j.Deferred, false, "waiting for the next attempt"},
		{"pending", j.Pending, false, "not sent yet"},
		{"unknown", j.Unknown, true, "sent, but the relay's reply never came"},
		{"expired", j.Expired, false, "too old to be sent"},
		{"cancelled", j.Cancelled, false, "cancelled before it was sent"},
		{"invalid", j.Invalid, true, "refused at the door: see the report"},
		{"duplicate", j.Duplicate, true, "the address stands in the list twice"},
		{"suppressed", j.Suppressed, false, "on the suppression list"},
	} {
		if line.n > 0 || line.always {
			fmt.Fprintf(&b, "  %-10s%8d  %s\n", line.name, line.n, line.note)
		}
	}
	if j.Delivered+j.Bounced > 0 {
		fmt.Fprintf(&b, "feedback    %d of those accepted were delivered, %d came back\n", j.Delivered, j.Bounced)
	}
	if j.Resent > 0 {
		fmt.Fprintf(&b, "resent      %d  (sent again after an unknown; maybe_twice in the report)\n", j.Resent)
	}
	fmt.Fprintf(&b, "took        %.1f s, %d connections opened\n", j.Seconds, j.ConnectionsOpened)
	return b.String()
}
