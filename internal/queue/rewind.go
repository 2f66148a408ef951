package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// How much older than what a member has seen Redis's data may be after a restart. The
// members write their last seconds again, pastKept of them less what they are late.
const rewindMost = pastKept - 2*time.Second

// stamp beats once on rdb, and takes in what the data says of its age. bare says that
// data without a stamp is older data. It returns the counter of beats, -1 for a member
// that was declared dead.
func (m *Member) stamp(ctx context.Context, rdb *redis.Client, bare bool) (int64, error) {
	k, flag := m.q.keys, "0"
	if bare {
		flag = "1"
	}
	keys := []string{k.beats(), k.gens(), k.stamp(), k.gap(), k.rewound()}
	res, err := m.q.scripts.beat.Run(ctx, rdb, keys, m.nonce, m.stamped.Load(), m.q.rewindMost.Milliseconds(), flag).Slice()
	if err != nil {
		return 0, err
	}
	if len(res) != 3 {
		return 0, fmt.Errorf("heartbeat: %w", errCorrupt)
	}
	beats, _ := res[0].(int64)
	text, _ := res[1].(string)
	at, _ := strconv.ParseInt(text, 10, 64)
	mark, _ := res[2].(string)
	m.noteStamp(at, mark)
	return beats, nil
}

// noteStamp notes how old the data was at its last beat, and whether it is rewound.
func (m *Member) noteStamp(at int64, mark string) {
	for {
		old := m.stamped.Load()
		if at <= old || m.stamped.CompareAndSwap(old, at) {
			break
		}
	}
	h := rewindHold(mark)
	if was := m.rewound.Swap(h); h != nil && was == nil {
		m.q.log.Error("nothing is sent: "+h.Why, "fix", h.Lift)
	} else if h == nil && was != nil {
		m.q.log.Info("the older data was accepted; sending goes on")
	}
}

// firstStamp reads the stamp before anything is claimed.
func (m *Member) firstStamp(ctx context.Context) error {
	pipe := m.pulse.Pipeline()
	stamp, mark := pipe.Get(ctx, m.q.keys.stamp()), pipe.Get(ctx, m.q.keys.rewound())
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	at, _ := strconv.ParseInt(stamp.Val(), 10, 64)
	m.noteStamp(at, mark.Val())
	return nil
}

// restamp looks how old the data is that a restarted Redis has come back with. Where it
// has nothing at all, there is nothing in it that could be sent twice.
func (m *Member) restamp(ctx context.Context, rdb *redis.Client) error {
	some, err := rdb.ZRange(ctx, m.q.keys.campaigns(), 0, 0).Result()
	if err == nil {
		_, err = m.stamp(ctx, rdb, len(some) > 0)
	}
	return err
}

// rewindHold is how a rewind that is stored as mark is told; nil if there is none.
func rewindHold(mark string) *Hold {
	from, seen, ok := strings.Cut(mark, " ")
	if !ok {
		return nil
	}
	at, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(seen, 10, 64)
	h := &Hold{
		State: HoldHeld, Why: "redis came back with older data (a restored backup, or a replica that lagged): what was sent since may not be in it",
		Lift: "sluice worker --accept-rewind: whoever is not done becomes unknown",
	}
	if err1 == nil && err2 == nil {
		h.Since = time.UnixMilli(last).UTC()
		if at > 0 {
			h.Why += fmt.Sprintf("; it is of %s, a worker had seen %s", time.UnixMilli(at).UTC().Format(time.RFC3339), h.Since.Format(time.RFC3339))
		}
	}
	return h
}

// rewoundBy returns what holds everything because Redis came back with older data, nil
// where it did not.
func (q *Queue) rewoundBy(ctx context.Context) (*Hold, error) {
	mark, err := q.rdb.Get(ctx, q.keys.rewound()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, q.unreachable(err)
	}
	return rewindHold(mark), nil
}

// ErrNoRewind is returned by AcceptRewind when nobody has noticed that Redis came back
// with older data.
var ErrNoRewind = errors.New("no worker has seen newer data than redis has; " +
	"where it is known to be older: sluice campaign pause NAME, then sluice campaign verify NAME --to FILE --rewound")

// AcceptRewind lets sending go on after Redis came back with older data. Whoever is not
// done in a campaign that had begun may have been sent to since, and becomes Unknown:
// where the stream's policy is to resend, that is done once, and counted in Resent. It
// returns how many those are. Without a rewind it is ErrNoRewind, and nothing is done.
// Interrupted, it is to be repeated.
func (q *Queue) AcceptRewind(ctx context.Context) (unknown int, err error) {
	mark, err := q.rdb.Get(ctx, q.keys.rewound()).Result()
	if errors.Is(err, redis.Nil) {
		return 0, ErrNoRewind
	}
	if err != nil {
		return 0, q.unreachable(err)
	}
	ids, err := q.rdb.ZRange(ctx, q.keys.campaigns(), 0, -1).Result()
	if err != nil {
		return 0, q.unreachable(err)
	}
	for _, id := range ids {
		n, err := q.doubtCampaign(ctx, id)
		unknown += n
		switch {
		case errors.Is(err, ErrNoCampaign):
		case errors.Is(err, errCorrupt), errors.Is(err, errNewer):
			q.log.Error("what is stored of a campaign does not decode, and cannot be doubted", "campaign", id, "err", err)
		case err != nil:
			return unknown, fmt.Errorf("campaign %s: %w", id, err)
		}
	}
	if err := q.scripts.accept.Run(ctx, q.rdb, []string{q.keys.rewound(), q.keys.gap()}, mark).Err(); err != nil {
		return unknown, q.unreachable(err)
	}
	return unknown, nil
}

// doubtCampaign makes everybody unknown who is not done in a campaign that was not yet
// over in the data Redis came back with. It needs no list: nothing is put back.
func (q *Queue) doubtCampaign(ctx context.Context, id string) (int, error) {
	c, err := q.campaign(ctx, id)
	if err != nil || !c.Open {
		return 0, err
	}
	h, err := q.heldBy(ctx, c)
	if err != nil || h != nil && h.State == HoldCancelled {
		return 0, err // cancelled before, so nobody has been sent to since
	}
	t, err := q.tally(ctx, c)
	if err != nil || t.results()-t.outcomes[mail.Deferred] >= c.Counts.Queued() {
		return 0, err
	}
	r := &Repair{q: q, c: c, rewound: true}
	err = r.Commit(ctx, c.Blocks, c.Doors, c.Counts)
	if n := r.found.Unknown; n > 0 {
		q.log.Warn("redis came back with older data: recipients who were not done in it are unknown now", "campaign", c.Name, "unknown", n)
	}
	return r.found.Unknown, err
}
