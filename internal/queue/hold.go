package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// States of a Hold.
const (
	HoldPaused    = "paused"    // by an operator, one campaign
	HoldCancelled = "cancelled" // by an operator, one campaign, for good
	HoldHeld      = "held"      // by the program: a campaign, a stream, a login or a destination group
)

// Hold says why something is not sent, since when, and what lifts it.
type Hold struct {
	State    string
	Why      string
	Since    time.Time
	Until    time.Time // it lifts itself then; zero = it does not
	Lift     string
	Examples []string // at most three replies that led to it, without addresses
}

// Fields of a stream's holds: a campaign's id, or one of these.
const (
	wholeStream  = "*" // alone; before a fingerprint, one login
	groupMark    = "@" // before a destination group
	versionField = "#" // no hold, but their version
)

// storedHold is a Hold as it lies in Redis; times are ms since the Unix epoch, 0 = none.
type storedHold struct {
	State    string   `json:"state"`
	Why      string   `json:"why,omitempty"`
	Since    int64    `json:"since,omitempty"`
	Until    int64    `json:"until,omitempty"`
	Lift     string   `json:"lift,omitempty"`
	Examples []string `json:"examples,omitempty"`
}

func decodeHold(data string) (Hold, error) {
	var s storedHold
	if err := json.Unmarshal([]byte(data), &s); err != nil {
		return Hold{State: HoldHeld, Why: "a hold that does not decode"}, fmt.Errorf("hold: %w", errCorrupt)
	}
	h := Hold{State: s.State, Why: s.Why, Since: time.UnixMilli(s.Since).UTC(), Lift: s.Lift, Examples: s.Examples}
	if s.Until != 0 {
		h.Until = time.UnixMilli(s.Until).UTC()
		h.Lift = "itself, at " + h.Until.Format(time.RFC3339)
	}
	return h, nil
}

// stands reports whether a hold holds at a moment of Redis's clock.
func (h Hold) stands(now int64) bool { return h.Until.IsZero() || now < h.Until.UnixMilli() }

// Pause stops a campaign; Resume goes on with it. Mail already begun is finished. It
// returns when every worker has stopped, or with ErrUnconfirmed. A campaign that is
// held already keeps the reason it has.
func (q *Queue) Pause(ctx context.Context, c *Campaign, why string) error {
	version, err := q.hold(ctx, c.Stream, c.ID, storedHold{State: HoldPaused, Why: why, Lift: "sluice campaign resume " + c.Name})
	if err != nil {
		return err
	}
	return q.awaitSeen(ctx, c.Stream, version)
}

// Cancel ends a campaign: whoever is pending or deferred becomes cancelled. It
// cannot be resumed. Cancelling again finishes what an interrupted call began. It
// returns when every worker has stopped, or with ErrUnconfirmed.
func (q *Queue) Cancel(ctx context.Context, c *Campaign, why string) error {
	version, err := q.hold(ctx, c.Stream, c.ID, storedHold{State: HoldCancelled, Why: why, Lift: "nothing: cancelled for good"})
	if err != nil {
		return err
	}
	// What would come later is marked now: deferred blocks, a start that was set, what
	// was put aside. The blocks that are claimed at this moment come back at once by
	// themselves.
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
	if err := q.unpark(ctx, c.Stream, c.ID); err != nil {
		return err
	}
	return q.awaitSeen(ctx, c.Stream, version)
}

// HoldCampaign stops a campaign because something is wrong with it. Workers know
// within a heartbeat. examples are replies that led to it.
func (q *Queue) HoldCampaign(ctx context.Context, c *Campaign, why string, examples ...string) error {
	_, err := q.hold(ctx, c.Stream, c.ID, storedHold{State: HoldHeld, Why: why, Lift: liftCampaign(c), Examples: cleanAll(examples)})
	return err
}

func liftCampaign(c *Campaign) string { return "sluice campaign resume " + c.Name }

// HoldLogin stops the workers that log in to a stream with the credentials of this
// fingerprint; "" means whatever they log in with. Those with others go on: an old worker
// cannot hold new credentials.
func (q *Queue) HoldLogin(ctx context.Context, s mail.Stream, login, why string, examples ...string) error {
	_, err := q.hold(ctx, s, wholeStream+login, storedHold{
		State: HoldHeld, Why: why, Examples: cleanAll(examples),
		Lift: "correct what it says, such as relay.user and relay.password (or password_file), then: sluice limits reset, or start a worker again",
	})
	return err
}

// HoldGroup stops a stream's mail to a destination group. It lifts itself after
// Breakers.Period, which doubles when the group has to be held again soon.
func (q *Queue) HoldGroup(ctx context.Context, s mail.Stream, group, why string, examples ...string) error {
	_, err := q.hold(ctx, s, groupMark+group, storedHold{State: HoldHeld, Why: why, Examples: cleanAll(examples)})
	return err
}

// hold writes a hold and returns the version of the stream's holds that it stands by.
func (q *Queue) hold(ctx context.Context, s mail.Stream, field string, h storedHold) (version int64, err error) {
	h.Why = maskAddresses(h.Why) // it may quote a relay
	data, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("encode hold: %w", err)
	}
	period := int64(0)
	if strings.HasPrefix(field, groupMark) {
		period = q.breakers.Period.Milliseconds()
	}
	version, err = q.scripts.hold.Run(ctx, q.rdb, []string{q.keys.held(s)}, field, data, period, q.breakers.Most.Milliseconds()).Int64()
	if err != nil {
		return 0, q.unreachable(err)
	}
	return version, nil
}

// ErrCancelled is returned by Resume for a cancelled campaign.
var ErrCancelled = errors.New("the campaign is cancelled for good")

// Resume lifts what holds a campaign: an operator's pause, or a breaker's hold. Its
// results count anew from here.
func (q *Queue) Resume(ctx context.Context, c *Campaign) error {
	if err := q.forgetLate(ctx, c); err != nil {
		return err
	}
	if err := q.lift(ctx, c.Stream, c.ID); err != nil {
		return err
	}
	return q.unpark(ctx, c.Stream, c.ID)
}

// LiftStream takes all holds off a stream that are not a campaign's or a group's: its
// own, and those of its logins.
func (q *Queue) LiftStream(ctx context.Context, s mail.Stream) error {
	return q.lift(ctx, s, wholeStream)
}

// LiftLogin takes the hold off one login. A worker that starts does so: its operator
// has just had the chance to correct what was wrong, and a login that is still refused
// costs one attempt.
func (q *Queue) LiftLogin(ctx context.Context, s mail.Stream, login string) error {
	return q.lift(ctx, s, wholeStream+login)
}

// LiftGroup lets a stream's mail to a destination group go on; what waits is looked at
// within Recheck.
func (q *Queue) LiftGroup(ctx context.Context, s mail.Stream, group string) error {
	return q.lift(ctx, s, groupMark+group)
}

func (q *Queue) lift(ctx context.Context, s mail.Stream, field string) error {
	done, err := q.scripts.lift.Run(ctx, q.rdb, []string{q.keys.held(s), q.keys.window(s, field)}, field, "").Int()
	if err != nil {
		return q.unreachable(err)
	}
	if done == 0 {
		return ErrCancelled
	}
	return nil
}

// heldBy returns what holds a campaign: its own hold before the stream's, and a login's
// where no worker has another.
func (q *Queue) heldBy(ctx context.Context, c *Campaign) (*Hold, error) {
	m, err := q.rdb.HGetAll(ctx, q.keys.held(c.Stream)).Result()
	if err != nil {
		return nil, q.unreachable(err)
	}
	field, found := "", false
	for _, f := range []string{c.ID, wholeStream} {
		if _, ok := m[f]; ok && !found {
			field, found = f, true
		}
	}
	if !found {
		if field, found, err = q.heldLogin(ctx, c.Stream, m); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, nil //nolint:nilnil // not held is no error
	}
	h, err := decodeHold(m[field])
	return &h, err
}

// addressLike finds what may be an address in a reply.
var addressLike = regexp.MustCompile(`("[^"]*"|[^\s<>]*)@[^\s<>]+`)

// clean makes a reply fit to be shown: one line, no addresses, not long.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return clip(strings.TrimSpace(maskAddresses(text)), 300)
}

func maskAddresses(text string) string {
	return addressLike.ReplaceAllStringFunc(text, func(a string) string { return strings.ToValidUTF8(mail.Mask(a), "") })
}

func cleanAll(texts []string) []string {
	var out []string
	for _, t := range texts {
		if t = clean(t); t != "" && len(out) < maxExamples {
			out = append(out, t)
		}
	}
	return out
}

// maxExamples is how many replies a hold shows.
const maxExamples = 3
