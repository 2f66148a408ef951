package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Aside is a block that was set aside, because what is stored of it does not decode.
// Nobody in it is sent to. Who has no final outcome that can be read counts as Unknown.
type Aside struct {
	Block      int
	Recipients int
	Why        string
}

// asideText begins what the report says of recipients in such a block.
const asideText = "set aside: "

// repairHint says what mends a campaign's records.
func repairHint(name string) string {
	return "sluice campaign verify " + name + " --to FILE repairs it"
}

// newerPause is how long a block of a newer program's is left alone.
const newerPause = 30 * time.Second

// errAside is the ErrNotClaimed of a block that was set aside.
var errAside = fmt.Errorf("%w: its record does not decode, it is set aside", ErrNotClaimed)

// setAside takes a block whose record does not decode out of the schedule, until it is
// repaired: coming back again and again would help nobody. A newer program's data is
// no such thing. It is told of once.
func (q *Queue) setAside(ctx context.Context, c *Campaign, n int, why error) error {
	first, err := q.rdb.HSetNX(ctx, q.keys.bad(c.ID), strconv.Itoa(n), clip(why.Error(), maxRefusedText)).Result()
	if err != nil {
		return fmt.Errorf("set block %s aside: %w", blockID(c.ID, n), err)
	}
	if first {
		q.log.Error("a block's record does not decode; its recipients are set aside and count as unknown where no outcome can be read",
			"campaign", c.Name, "block", n, "err", why, "fix", repairHint(c.Name))
	}
	return nil
}

// unreadable deals with a claimed block that cannot be read, for the reason given: it
// gives the claim up, and returns what to say of it. A block that does not decode is
// set aside; one of a newer program is left to those, as others would be to this one
// by them.
func (m *Member) unreadable(ctx context.Context, c *Claim, why error) error {
	due := ""
	switch {
	case errors.Is(why, errNewer):
		due = strconv.FormatInt(m.Now()+newerPause.Milliseconds(), 10)
		if _, told := m.q.newer.LoadOrStore(c.Campaign.ID, true); !told {
			m.q.log.Error("a campaign holds data of a newer version of this program and is left to its workers", "campaign", c.Campaign.Name, "err", why)
		}
		why = fmt.Errorf("%w: %w", ErrNotClaimed, why)
	case errors.Is(why, errCorrupt):
		if err := m.q.setAside(ctx, c.Campaign, c.N, why); err != nil {
			return err
		}
		why = errAside
	case errors.Is(why, ErrNoCampaign): // its retention is over, or redis has lost it
		why = fmt.Errorf("%w: %w", ErrNotClaimed, why)
	default:
		return why
	}
	m.forget(c.ID(), c)
	if err := m.q.release(ctx, c.Campaign.Stream, c.ID(), joinClaim(c.Epoch, m.nonce), due); err != nil {
		return fmt.Errorf("release %s: %w", c.ID(), err)
	}
	return why
}

// doubt makes everybody unknown who is not done in the blocks that a dead worker held:
// its record of what it had under way does not decode, and any of them may have been
// in it. Repeating it changes nothing.
func (q *Queue) doubt(ctx context.Context, nonce string, now int64) error {
	for _, s := range mail.Streams() {
		claims, err := q.rdb.HGetAll(ctx, q.keys.claims(s)).Result()
		if err != nil {
			return fmt.Errorf("claims of %s: %w", nonce, err)
		}
		for id, claim := range claims {
			if _, holder, ok := cutClaim(claim); !ok || holder != nonce {
				continue
			}
			if err := q.doubtBlock(ctx, id, "the worker died, and its record of what it had under way does not decode", now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *Queue) doubtBlock(ctx context.Context, id, why string, now int64) error {
	campaign, n, _ := parseBlockID(id)
	c, err := q.campaign(ctx, campaign)
	if errors.Is(err, ErrNoCampaign) || errors.Is(err, errCorrupt) {
		return nil // nobody sends from it
	}
	if err != nil {
		return err
	}
	_, _, err = q.refold(ctx, refold{campaign: campaign, n: n, size: c.blockSize(n), change: func(st []Standing) int {
		return doubtAll(st, why, now)
	}})
	switch {
	case errors.Is(err, errNewer), errors.Is(err, ErrNoCampaign):
		return nil
	case errors.Is(err, errCorrupt):
		return q.setAside(ctx, c, n, err)
	}
	return err
}

// doubtAll makes everybody unknown who has no final outcome: an attempt may have been
// made of which nothing is known.
func doubtAll(st []Standing, why string, now int64) (changed int) {
	for i := range st {
		if s := &st[i]; !s.Outcome.Final() {
			s.Apply(Evidence{Attempt: s.Attempts + 1, Outcome: mail.Unknown, Reply: mail.Reply{Text: why}, Time: now})
			changed++
		}
	}
	return changed
}
