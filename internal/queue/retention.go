package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// Retention says how long what is stored of a campaign stays.
type Retention struct {
	After  time.Duration // its last outcome; 0 = it stays for ever
	Resend []mail.Stream // streams whose unknown recipients are sent to again: until then a campaign is not over
}

// abandoned is how long a campaign that was never stored in full stays at least: its
// producer may come back and go on.
const abandoned = 24 * time.Hour

// Batches of what is looked at and removed in one call.
const (
	retainAtOnce = 20  // campaigns
	removeAtOnce = 200 // blocks
)

// retain removes the campaigns whose time is over, from the one at place from in the
// order of age on, and returns where to go on at the next pass. One member does it at a
// time; interrupted anywhere, it is gone on with.
func (m *Member) retain(ctx context.Context, from int64) (next int64, err error) {
	q := m.q
	if q.retention.After <= 0 {
		return 0, nil
	}
	turn := (reconcileEvery * 9 / 10).Milliseconds()
	mine, err := q.scripts.lead.Run(ctx, q.rdb, []string{q.keys.member("retainer")}, turn).Int()
	if err != nil || mine == 0 {
		return from, err
	}
	now, err := q.now(ctx)
	if err != nil {
		return from, err
	}
	// Nothing that is younger as a whole can have been over for so long.
	old, err := q.rdb.ZRangeByScoreWithScores(ctx, q.keys.campaigns(), &redis.ZRangeBy{
		Min: "-inf", Max: strconv.FormatInt(now-q.retention.After.Milliseconds(), 10), Offset: from, Count: retainAtOnce,
	}).Result()
	if err != nil {
		return from, err
	}
	for _, entry := range old {
		id, _ := entry.Member.(string)
		gone, err := q.expire(ctx, id, entry.Score, now)
		switch {
		case errors.Is(err, errCorrupt), errors.Is(err, errNewer):
			q.log.Debug("a campaign past its retention does not decode and stays", "campaign", id, "err", err)
		case err != nil:
			return from, fmt.Errorf("remove campaign %s: %w", id, err)
		}
		if !gone {
			from++
		}
	}
	if len(old) < retainAtOnce {
		from = 0
	}
	return from, nil
}

// expire removes a campaign if its time is over, and reports whether it is gone.
func (q *Queue) expire(ctx context.Context, id string, score float64, now int64) (bool, error) {
	meta, err := q.rdb.HGetAll(ctx, q.keys.meta(id)).Result()
	if err != nil {
		return false, err
	}
	if len(meta) == 0 { // lost, or removed but for this
		return true, q.unlist(ctx, id, score)
	}
	c, err := decodeCampaign(id, meta)
	if err != nil {
		return false, err
	}
	if meta["state"] != goneState {
		over, err := q.over(ctx, c, meta, now)
		if err != nil || !over {
			return false, err
		}
		q.log.Info("a campaign's retention is over, its data is removed", "campaign", c.Name)
	}
	if free, err := q.purge(ctx, c); err != nil || !free {
		return false, err
	}
	if err := q.remove(ctx, c); err != nil {
		return false, err
	}
	return true, q.unlist(ctx, id, score)
}

// goneState is the state of a campaign that is being removed. Nobody finds it any more,
// nothing is written to it, and its key cannot be used until it is gone.
const goneState = "gone"

// over marks a campaign as gone if its time is over, and reports whether it did.
func (q *Queue) over(ctx context.Context, c *Campaign, meta map[string]string, now int64) (bool, error) {
	last, state, updated := c.Created, "staging", ""
	after := q.retention.After
	if c.Open {
		s, err := q.Summary(ctx, c, slices.Contains(q.retention.Resend, c.Stream))
		if err != nil {
			return false, err
		}
		if !s.Settled {
			return false, nil
		}
		state = "open"
		if last = s.opened; s.updated.After(last) {
			last = s.updated
		}
		if !s.updated.IsZero() {
			updated = strconv.FormatInt(s.updated.UnixMilli(), 10)
		}
	} else {
		if begun, err := strconv.ParseInt(meta["begun"], 10, 64); err == nil {
			last = time.UnixMilli(begun)
		}
		after = max(after, abandoned)
	}
	if time.UnixMilli(now).Sub(last) < after {
		return false, nil
	}
	ok, err := q.scripts.gone.Run(ctx, q.rdb, []string{q.keys.meta(c.ID), q.keys.totals(c.ID)}, state, meta["begun"], updated).Int()
	return ok == 1, err
}

// purge takes a campaign out of its stream's schedule, and reports whether nobody works
// on it any more.
func (q *Queue) purge(ctx context.Context, c *Campaign) (free bool, err error) {
	k, s := q.keys, c.Stream
	keys := []string{
		k.held(s), k.ring(s), k.next(s), k.total(s), k.later(s), k.opening(s), k.canary(s), k.claims(s), k.queued(s),
		k.ready(s), k.parked(s), k.touched(s), k.window(s, c.ID), k.deaths(s),
	}
	claims := 0
	for from := 0; from == 0 || from < c.Blocks; from += removeAtOnce {
		n, err := q.scripts.purge.Run(ctx, q.rdb, keys, c.ID, from, from+removeAtOnce).Int()
		if err != nil {
			return false, err
		}
		claims += n
	}
	return claims == 0, nil
}

// remove removes a campaign's own keys, the one that says that it is gone as the last.
func (q *Queue) remove(ctx context.Context, c *Campaign) error {
	k, id := q.keys, c.ID
	parts := []struct {
		least int // so many are there, and more where a producer began with more
		keys  []func(id string, n int) string
	}{
		{c.Blocks, []func(string, int) string{k.recipients, k.state, k.log}},
		{c.Doors, []func(string, int) string{k.refused}},
	}
	for _, part := range parts {
		for from, gone := 0, int64(1); from < part.least || gone > 0; from += removeAtOnce {
			keys := make([]string, 0, len(part.keys)*removeAtOnce)
			for n := from; n < from+removeAtOnce; n++ {
				for _, key := range part.keys {
					keys = append(keys, key(id, n))
				}
			}
			var err error
			if gone, err = q.rdb.Del(ctx, keys...).Result(); err != nil {
				return err
			}
		}
	}
	rest := []string{k.program(id), k.totals(id), k.sums(id), k.live(id), k.bad(id), k.fates(id), k.fateCounts(id)}
	if err := q.rdb.Del(ctx, rest...).Err(); err != nil {
		return err
	}
	named, err := q.rdb.HGet(ctx, k.names(), c.Name).Result()
	if err == nil && named == id {
		err = q.rdb.HDel(ctx, k.names(), c.Name).Err()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	return q.rdb.Del(ctx, k.meta(id)).Err()
}

// unlist takes a campaign off the list of all, unless it has been stored anew meanwhile.
func (q *Queue) unlist(ctx context.Context, id string, score float64) error {
	return q.scripts.unlist.Run(ctx, q.rdb, []string{q.keys.campaigns()}, id, strconv.FormatFloat(score, 'f', -1, 64)).Err()
}
