package queue

import (
	"context"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Summary is a campaign's account at one moment. The identity of the outside
// contract holds in it by construction: Pending is what is left.
type Summary struct {
	Campaign *Campaign
	Outcomes [mail.NumOutcomes]int
	Resent   int
	// What feedback says of those accepted, beside the identity. Who complained was
	// delivered to; what came back, for whatever reason, is bounced.
	Delivered, Bounced int
	Held               *Hold        // why nothing of it is being sent, if so
	Canary             *CanaryState // how far the first of it are; nil = it has none
	Aside              []Aside      // blocks whose records do not decode
	// Settled says that no recipient has anything ahead of it: no one is pending or
	// deferred, and no unknown one will be sent again.
	Settled bool
	// ConnectionsOpened counts the connections that were opened while mail of this
	// campaign was the next to be sent.
	ConnectionsOpened int

	opened, updated time.Time
}

// Took is how long the campaign has been under way, up to its last outcome once it
// is settled.
func (s *Summary) Took(now time.Time) time.Duration {
	if s.opened.IsZero() || now.Before(s.opened) {
		return 0
	}
	if s.Settled && s.updated.After(s.opened) {
		now = s.updated
	}
	return now.Sub(s.opened)
}

// Count returns the number of recipients with outcome o.
func (s *Summary) Count(o mail.Outcome) int { return s.Outcomes[o] }

// State is the campaign's state in one word: staging, scheduled, sending, paused,
// held, cancelled or done.
func (s *Summary) State(now time.Time) string {
	switch {
	case !s.Campaign.Open:
		return "staging"
	case s.Settled && s.Held != nil && s.Held.State == HoldCancelled:
		return HoldCancelled
	case s.Settled:
		return "done"
	case s.Held != nil:
		return s.Held.State
	case now.Before(s.Campaign.Start):
		return "scheduled"
	}
	return "sending"
}

// Summary adds up a campaign: the totals of settled blocks, and the logs of those
// being worked on. resend is the stream's policy for unknown recipients.
func (q *Queue) Summary(ctx context.Context, c *Campaign, resend bool) (*Summary, error) {
	c, err := q.campaign(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	s := &Summary{Campaign: c}
	if s.Held, err = q.heldBy(ctx, c); err == nil && s.Held == nil {
		s.Held, err = q.rewoundBy(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !c.Open {
		return s, nil
	}
	t, aside, err := q.account(ctx, c)
	if err != nil {
		return nil, err
	}
	s.Aside = aside
	fate, err := q.fateCounts(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	s.Delivered = fate[string(Delivered)] + fate[string(Complained)]
	s.Bounced = fate[string(Failed)] + fate[string(Bounced)] + fate[string(Blocked)]
	if s.Canary, err = q.canaryState(ctx, c, t); err != nil {
		return nil, err
	}
	s.Outcomes, s.Resent = t.outcomes, t.resent
	s.ConnectionsOpened, s.opened, s.updated = t.connections, c.Created, t.updated
	if c.Start.After(s.opened) {
		s.opened = c.Start
	}
	s.Outcomes[mail.Invalid], s.Outcomes[mail.Duplicate] = c.Counts.Invalid, c.Counts.Duplicate
	s.Outcomes[mail.Suppressed] += c.Counts.Suppressed // beside those withheld since
	s.Outcomes[mail.Pending] = 0
	left := c.Counts.Recipients
	for _, n := range s.Outcomes {
		left -= n
	}
	s.Outcomes[mail.Pending] = left
	s.Settled = left == 0 && s.Outcomes[mail.Deferred] == 0 && (!resend || t.again == 0)
	return s, nil
}
