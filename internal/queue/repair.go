package queue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// Repair compares what is stored of a campaign with the list it was made of, and puts
// back what Redis has lost. Put and Refuse take the list's blocks, cut again as they
// were; only Commit changes anything. Workers may be at work on the campaign meanwhile.
//
// What became of a recipient cannot be put back. Where the record of it is lost and the
// mail may have been sent, the recipient becomes Unknown, and the stream's policy or
// the operator says what is done: nobody is silently sent to twice.
type Repair struct {
	q       *Queue
	c       *Campaign
	rewound bool

	mu     sync.Mutex
	blocks map[int]lost
	doors  map[int]lost
	found  Found
}

// lost is what has to be stored again.
type lost struct {
	data []byte
	gone bool // nothing is stored, so more may be gone; else it does not decode
}

// Found says what a repair came upon and put right.
type Found struct {
	Blocks      int  // of recipients, stored again
	Doors       int  // slices of refused rows, stored again
	Records     int  // blocks whose record of outcomes did not decode or was lost
	Unknown     int  // recipients who became Unknown
	Rescheduled int  // blocks that nobody would have looked at again
	Schedule    bool // the campaign was missing from its stream's schedule
	Index       bool // the campaign was missing from the names or the list of campaigns
}

// Repair begins to repair an open campaign. rewound says that Redis is known to have
// come back with older data: whoever is not done may have been sent to since, and
// becomes Unknown. The campaign must be paused then, lest workers send to them.
func (q *Queue) Repair(ctx context.Context, c *Campaign, rewound bool) (*Repair, error) {
	if !c.Open {
		return nil, fmt.Errorf("%w: %q was never stored in full; repeat its sluice send, which goes on where it was", ErrNotOpen, c.Name)
	}
	if rewound {
		h, err := q.heldBy(ctx, c)
		if err != nil {
			return nil, err
		}
		if h == nil {
			return nil, fmt.Errorf("%w: sluice campaign pause %s first, and resume it when this is done", ErrNotHeld, c.Name)
		}
	}
	return &Repair{q: q, c: c, rewound: rewound, blocks: map[int]lost{}, doors: map[int]lost{}}, nil
}

// ErrNotHeld is returned for what must not be done while a campaign is being sent.
var ErrNotHeld = errors.New("the campaign is being sent")

// Found returns what was put right so far.
func (r *Repair) Found() Found {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found
}

// Suppressed returns who of the list was left out at the door as suppressed, by
// address, and why: the list of then, without which it cannot be cut as it was.
func (r *Repair) Suppressed(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	var gone error
	for n := range r.c.Doors {
		b, err := r.q.refusedRows(ctx, r.c.ID, n)
		switch {
		case errors.Is(err, redis.Nil) || errors.Is(err, errCorrupt):
			gone = errors.Join(gone, fmt.Errorf("slice %d: %w", n, err))
			continue
		case err != nil:
			return nil, r.q.unreachable(err)
		}
		for i, name := range b.Values[0] {
			if name == mail.Suppressed.String() {
				out[b.Emails[i]] = b.Values[1][i]
			}
		}
	}
	if gone != nil && len(out) < r.c.Counts.Suppressed {
		return nil, fmt.Errorf("refused rows are lost that said who was suppressed, so the list cannot be cut as it was: %w", gone)
	}
	return out, nil
}

// Put compares block n of the list with what is stored. It is safe for concurrent use.
func (r *Repair) Put(ctx context.Context, n int, b *Block) error {
	return r.compare(ctx, r.q.keys.recipients(r.c.ID, n), n, b, r.blocks)
}

// Refuse compares slice n of the rows refused at the door.
func (r *Repair) Refuse(ctx context.Context, n int, b *Block) error {
	return r.compare(ctx, r.q.keys.refused(r.c.ID, n), n, b, r.doors)
}

// errOtherList is returned when the list does not make the campaign that is stored.
var errOtherList = errors.New("the list does not make the campaign that is stored (was it read with another --encoding, or sent by another version of this program?); nothing was changed")

func (r *Repair) compare(ctx context.Context, key string, n int, b *Block, missing map[int]lost) error {
	data, err := value(r.q.rdb.Get(ctx, key))
	if err != nil && !errors.Is(err, errCorrupt) {
		return r.q.unreachable(err)
	}
	var is *Block
	if err == nil && data != "" {
		is, err = r.q.codec.decodeBlock([]byte(data))
	}
	switch {
	case errors.Is(err, errNewer):
		return fmt.Errorf("block %d: %w", n, err)
	case err == nil && data != "":
		if !reflect.DeepEqual(is, b) {
			return fmt.Errorf("block %d: %w", n, errOtherList)
		}
		return nil
	}
	enc, err := r.q.codec.encodeBlock(b)
	if err != nil {
		return fmt.Errorf("block %d: %w", n, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	missing[n] = lost{enc, data == ""}
	return nil
}

// Commit puts back what is missing, when the whole list has been compared and makes the
// campaign that is stored. Killed and repeated, it goes on.
func (r *Repair) Commit(ctx context.Context, blocks, doors int, d Door) error {
	c := r.c
	if blocks != c.Blocks || doors != c.Doors || d != c.Counts {
		return fmt.Errorf("%d blocks of %+v, stored are %d of %+v: %w", blocks, d, c.Blocks, c.Counts, errOtherList)
	}
	if err := r.index(ctx); err != nil {
		return err
	}
	for n, l := range r.doors {
		if err := r.q.rdb.Set(ctx, r.q.keys.refused(c.ID, n), l.data, 0).Err(); err != nil {
			return fmt.Errorf("store refused rows %d: %w", n, err)
		}
		r.found.Doors++
	}
	now, err := r.q.now(ctx)
	if err != nil {
		return r.q.unreachable(err)
	}
	for n := range c.Blocks {
		if err := r.block(ctx, n, now); err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
	}
	if _, err := r.q.sumUp(ctx, c.ID); err != nil {
		return err
	}
	return r.schedule(ctx)
}

// index puts the campaign back where it is looked up.
func (r *Repair) index(ctx context.Context) error {
	q, c := r.q, r.c
	named, err := q.rdb.HSetNX(ctx, q.keys.names(), c.Name, c.ID).Result()
	if err != nil {
		return q.unreachable(err)
	}
	listed, err := q.rdb.ZAddNX(ctx, q.keys.campaigns(), redis.Z{Score: float64(c.Created.UnixMilli()), Member: c.ID}).Result()
	if err != nil {
		return q.unreachable(err)
	}
	r.found.Index = named || listed > 0
	return nil
}

// block puts one block right: recipients, record, and its place in the schedule.
func (r *Repair) block(ctx context.Context, n int, now int64) error {
	q, c := r.q, r.c
	was, err := q.read(ctx, c.ID, n)
	if err != nil {
		return q.unreachable(err)
	}
	place, err := q.where(ctx, c, n)
	if err != nil {
		return err
	}
	aside, err := q.rdb.HExists(ctx, q.keys.bad(c.ID), strconv.Itoa(n)).Result()
	if err != nil {
		return q.unreachable(err)
	}
	again, restore := r.blocks[n]
	if restore {
		if err := q.rdb.Set(ctx, q.keys.recipients(c.ID, n), again.data, 0).Err(); err != nil {
			return fmt.Errorf("store again: %w", err)
		}
		r.found.Blocks++
	}
	st, why := was.salvage(q.codec, c.blockSize(n))
	if errors.Is(why, errNewer) {
		return why
	}
	untouched := was.state == "" && was.log == "" && was.sum == ""
	switch {
	case why != nil: // it does not decode
	case was.state == "" && was.sum != "":
		why = errLost
	case untouched && (place == "given" && !aside || again.gone && place != "ahead"):
		why = errLost
	case r.rewound && c.Start.UnixMilli() < now:
		why = errRewound
	}
	if why != nil {
		if st, err = r.record(ctx, n, why, now); err != nil {
			return err
		}
	}
	if err := q.rdb.HDel(ctx, q.keys.bad(c.ID), strconv.Itoa(n)).Err(); err != nil {
		return q.unreachable(err)
	}
	if _, due := nextDue(len(st), func(i int) (int64, bool) { return st[i].DueAt(true) }, now); due && (place == "given" || why != nil && place != "ahead") {
		r.found.Rescheduled++
		return q.touchBlock(ctx, q.rdb, c.Stream, blockID(c.ID, n))
	}
	return nil
}

// Why a record cannot be gone by.
var (
	errLost    = errors.New("the record of what became of it is lost; the relay may have it")
	errRewound = errors.New("redis came back with older data; it may have been sent since")
)

// record replaces a block's record by what can be said in its place.
func (r *Repair) record(ctx context.Context, n int, why error, now int64) ([]Standing, error) {
	q, c := r.q, r.c
	for _, key := range []string{q.keys.state(c.ID, n), q.keys.log(c.ID, n)} {
		if _, err := value(q.rdb.Get(ctx, key)); errors.Is(err, errCorrupt) { // of another type
			if err := q.rdb.Del(ctx, key).Err(); err != nil {
				return nil, q.unreachable(err)
			}
		}
	}
	unknown := 0
	st, _, err := q.refold(ctx, refold{campaign: c.ID, n: n, size: c.blockSize(n), salvage: true, change: func(st []Standing) int {
		unknown = doubtAll(st, why.Error(), now)
		if errors.Is(why, errRewound) {
			return unknown
		}
		return len(st) // written even where nobody is in doubt: what is stored does not decode
	}})
	if err != nil {
		return nil, err
	}
	r.found.Unknown += unknown
	if !errors.Is(why, errRewound) {
		r.found.Records++
	}
	return st, nil
}

// where says where a block stands in the schedule; see where.lua.
func (q *Queue) where(ctx context.Context, c *Campaign, n int) (string, error) {
	k, s := q.keys, c.Stream
	keys := []string{k.claims(s), k.queued(s), k.ready(s), k.parked(s), k.next(s), k.total(s)}
	place, err := q.scripts.where.Run(ctx, q.rdb, keys, blockID(c.ID, n), c.ID, n).Text()
	if err != nil {
		return "", q.unreachable(err)
	}
	return place, nil
}

// schedule puts the campaign back into its turn.
func (r *Repair) schedule(ctx context.Context) error {
	q, c := r.q, r.c
	k, s := q.keys, c.Stream
	known, err := q.rdb.HExists(ctx, k.total(s), c.ID).Result()
	if err != nil {
		return q.unreachable(err)
	}
	if err := q.openCampaign(ctx, c); err != nil {
		return err
	}
	added, err := q.scripts.relist.Run(ctx, q.rdb, []string{k.ring(s), k.next(s), k.total(s), k.later(s), k.parked(s)}, c.ID).Int()
	if err != nil {
		return q.unreachable(err)
	}
	r.found.Schedule = !known || added == 1
	return nil
}
