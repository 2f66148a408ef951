package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Canary says how many of a campaign are sent to first. The rest waits until each of
// them has a result: a final one, or a first deferral.
type Canary struct {
	Recipients int     // so many; 0 = by Share
	Share      float64 // of those that passed the door, 0 to 1; 0 = no canary
	Least      int     // bounds of what Share gives; Most 0 = no bound
	Most       int
	// Wait is how long it goes on waiting when all results are there, for what is only
	// heard of afterwards.
	Wait time.Duration
}

// DefaultCanary is what a stream's campaigns do unless told otherwise. A login code
// waits for nobody.
func DefaultCanary(s mail.Stream) Canary {
	if s == mail.Auth {
		return Canary{}
	}
	return Canary{Share: 0.01, Least: 50, Most: 500}
}

// of resolves a canary for a campaign of n recipients: Recipients are those it sends
// to first, 0 where that would be all of them.
func (c Canary) of(n int) Canary {
	size := c.Recipients
	if size == 0 && c.Share > 0 {
		size = max(int(math.Ceil(float64(n)*c.Share)), c.Least)
		if c.Most > 0 {
			size = min(size, c.Most)
		}
	}
	if size <= 0 || size >= n {
		return Canary{}
	}
	return Canary{Recipients: size, Wait: c.Wait}
}

// canaryEntry is how a stream's schedule knows of a campaign's canary, "" for none.
func (c *Campaign) canaryEntry() string {
	if c.Canary.Recipients <= 0 || c.Size <= 0 {
		return ""
	}
	blocks := (c.Canary.Recipients + c.Size - 1) / c.Size
	return fmt.Sprintf("%d %d %d", c.Canary.Recipients, blocks, c.Canary.Wait.Milliseconds())
}

// edge is the block of which only the first recipients belong to the canary, "" when
// the canary ends with a block.
func (c *Campaign) edge() string {
	if c.Canary.Recipients%c.Size == 0 {
		return ""
	}
	return blockID(c.ID, c.Canary.Recipients/c.Size)
}

// begins notes how much of the claim, which has been read, may be sent.
func (c *Claim) begins() error {
	c.first = len(c.Standings)
	if c.canary == "" {
		return nil
	}
	n, err := strconv.Atoi(c.canary)
	if err != nil {
		return fmt.Errorf("canary of %q: %w", c.canary, errCorrupt)
	}
	c.first = max(0, min(c.first, n-c.N*c.Campaign.Size))
	return nil
}

// DueAt returns when a recipient of the claim is due (ms, 0 = at once), if it is at
// all: who comes after the canary is not, while that is out, nor in a probed block
// anybody but one. resend is the policy for unknown ones.
func (c *Claim) DueAt(index int, resend bool) (due int64, ok bool) {
	if c.probing && index != c.only {
		return 0, false
	}
	return c.dueAt(&c.Standings[index], index, resend)
}

func (c *Claim) dueAt(st *Standing, index int, resend bool) (due int64, ok bool) {
	if index >= c.first {
		return 0, false
	}
	if due, ok = st.DueAt(resend); ok && c.NotBefore != nil {
		due = max(due, c.NotBefore(index))
	}
	return due, ok
}

// pass gives out the rest of a campaign if its canary's results are all there. The
// ledger says so: nobody else of the campaign has been sent to.
func (q *Queue) pass(ctx context.Context, c *Campaign) error {
	if c.Canary.Recipients == 0 {
		return nil
	}
	t, err := q.tally(ctx, c)
	if err != nil {
		return err
	}
	if t.results() < c.Canary.Recipients {
		return nil
	}
	k, s := q.keys, c.Stream
	keys := []string{k.canary(s), k.parked(s), k.ring(s), k.claims(s), k.ready(s), k.queued(s)}
	if err := q.scripts.pass.Run(ctx, q.rdb, keys, c.ID, c.edge()).Err(); err != nil {
		return fmt.Errorf("end canary: %w", err)
	}
	return nil
}

// results counts those of whom anything is known.
func (t tally) results() (n int) {
	for _, o := range counted() {
		n += t.outcomes[o]
	}
	return n
}

// passAll ends the canaries of a stream that are over: that of a worker which died just
// then, or one that waited.
func (q *Queue) passAll(ctx context.Context, s mail.Stream) error {
	open, err := q.rdb.HGetAll(ctx, q.keys.canary(s)).Result()
	if err != nil {
		return err
	}
	for id := range open {
		c, err := q.campaign(ctx, id)
		switch {
		case errors.Is(err, ErrNoCampaign):
			err = q.rdb.HDel(ctx, q.keys.canary(s), id).Err()
		case err == nil:
			err = q.pass(ctx, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CanaryState is how far a campaign's canary is.
type CanaryState struct {
	Recipients int
	Results    int       // of those so far
	Over       bool      // the rest is being sent, or was
	Until      time.Time // waits until then for what is heard of afterwards; zero = for results
}

// canaryState reads how far a canary is; nil for a campaign without one.
func (q *Queue) canaryState(ctx context.Context, c *Campaign, t tally) (*CanaryState, error) {
	if c.Canary.Recipients == 0 {
		return nil, nil //nolint:nilnil // it has none
	}
	entry, err := q.rdb.HMGet(ctx, q.keys.canary(c.Stream), c.ID).Result()
	if err != nil {
		return nil, q.unreachable(err)
	}
	st := &CanaryState{Recipients: c.Canary.Recipients, Results: min(t.results(), c.Canary.Recipients)}
	open, ok := entry[0].(string)
	if !ok {
		st.Over = true
		return st, nil
	}
	if parts := strings.Fields(open); len(parts) == 4 {
		if ms, err := strconv.ParseInt(parts[3], 10, 64); err == nil {
			st.Until = time.UnixMilli(ms).UTC()
		}
	}
	return st, nil
}
