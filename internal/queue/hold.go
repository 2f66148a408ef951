package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// States of a Hold.
const (
	HoldPaused    = "paused"    // by an operator, one campaign
	HoldCancelled = "cancelled" // by an operator, one campaign, for good
	HoldHeld      = "held"      // by the program, a whole stream's login
)

// Hold says why nothing is sent for a campaign or a stream, since when, and what
// lifts it.
type Hold struct {
	State string    `json:"state"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Lift  string    `json:"lift"`
	// Login is a fingerprint of the credentials that were refused, never they
	// themselves: other credentials lift the hold.
	Login string `json:"login,omitempty"`
}

// wholeStream is the field of a hold on every campaign of a stream.
const wholeStream = "*"

// Pause stops a campaign; Resume goes on with it. Mail already begun is finished.
func (q *Queue) Pause(ctx context.Context, c *Campaign, why string) error {
	return q.hold(ctx, c.Stream, c.ID, Hold{State: HoldPaused, Why: why, Lift: "sluice campaign resume " + c.Name})
}

// Cancel ends a campaign: whoever is pending or deferred becomes cancelled. It
// cannot be resumed. Cancelling again finishes what an interrupted call began.
func (q *Queue) Cancel(ctx context.Context, c *Campaign, why string) error {
	if err := q.hold(ctx, c.Stream, c.ID, Hold{State: HoldCancelled, Why: why, Lift: "nothing: cancelled for good"}); err != nil {
		return err
	}
	// What would come later is marked now: deferred blocks, a start that was set. The
	// blocks that are claimed at this moment come back at once by themselves.
	pipe := q.rdb.Pipeline()
	pipe.ZAddXX(ctx, q.keys.later(c.Stream), redis.Z{Member: c.ID})
	for n := range c.Blocks {
		pipe.ZAddXX(ctx, q.keys.ready(c.Stream), redis.Z{Member: blockID(c.ID, n)})
		if n%500 == 499 {
			if _, err := pipe.Exec(ctx); err != nil {
				return q.unreachable(err)
			}
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return q.unreachable(err)
	}
	return nil
}

// HoldStream stops a whole stream, because its login does not work. login is the
// credentials' fingerprint.
func (q *Queue) HoldStream(ctx context.Context, s mail.Stream, why, login string) error {
	return q.hold(ctx, s, wholeStream, Hold{
		State: HoldHeld, Why: why, Login: login,
		Lift: "correct relay.user and relay.password (or password_file), then start a worker again",
	})
}

func (q *Queue) hold(ctx context.Context, s mail.Stream, field string, h Hold) error {
	now, err := q.now(ctx)
	if err != nil {
		return q.unreachable(err)
	}
	old, err := q.holds(ctx, s)
	if err != nil {
		return err
	}
	if o, ok := old[field]; ok && o.State == HoldCancelled {
		return nil
	} else if ok && o.State == h.State && o.Login == h.Login {
		return nil
	}
	h.Since = time.UnixMilli(now).UTC()
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode hold: %w", err)
	}
	// The script has the last word: somebody may be cancelling at this moment.
	if err := q.scripts.hold.Run(ctx, q.rdb, []string{q.keys.held(s)}, field, data).Err(); err != nil {
		return q.unreachable(err)
	}
	return nil
}

// ErrCancelled is returned by Resume for a cancelled campaign.
var ErrCancelled = errors.New("the campaign is cancelled for good")

// Resume lifts an operator's pause.
func (q *Queue) Resume(ctx context.Context, c *Campaign) error {
	return q.lift(ctx, c.Stream, c.ID)
}

// LiftStream takes a hold off a stream. A worker that starts does so: its
// operator has just had the chance to correct what was wrong, and a login that is
// still refused costs one attempt.
func (q *Queue) LiftStream(ctx context.Context, s mail.Stream) error {
	return q.lift(ctx, s, wholeStream)
}

func (q *Queue) lift(ctx context.Context, s mail.Stream, field string) error {
	done, err := q.scripts.hold.Run(ctx, q.rdb, []string{q.keys.held(s)}, field, "").Int()
	if err != nil {
		return q.unreachable(err)
	}
	if done == 0 {
		return ErrCancelled
	}
	return nil
}

// holds returns a stream's holds by campaign id, or "*".
func (q *Queue) holds(ctx context.Context, s mail.Stream) (map[string]Hold, error) {
	m, err := q.rdb.HGetAll(ctx, q.keys.held(s)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, q.unreachable(err)
	}
	out := make(map[string]Hold, len(m))
	for field, data := range m {
		var h Hold
		if err := json.Unmarshal([]byte(data), &h); err != nil {
			return nil, fmt.Errorf("hold of %s: %w", field, errCorrupt)
		}
		out[field] = h
	}
	return out, nil
}

// heldBy returns what holds a campaign: its own hold before the stream's.
func (q *Queue) heldBy(ctx context.Context, c *Campaign) (*Hold, error) {
	holds, err := q.holds(ctx, c.Stream)
	if err != nil {
		return nil, err
	}
	for _, field := range []string{c.ID, wholeStream} {
		if h, ok := holds[field]; ok {
			return &h, nil
		}
	}
	return nil, nil //nolint:nilnil // not held is no error
}
