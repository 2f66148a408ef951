package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
)

// Campaign is what is stored of a campaign beside its recipients.
type Campaign struct {
	ID       string // 16 hex digits, derived from Key
	Name     string
	Key      string // idempotency key: the same key is the same campaign
	Stream   mail.Stream
	Relay    string // the relay account it is meant for; "" = any worker's
	Template string // name@version, for people
	From     string
	Digest   string    // of all that is sent: list, template, settings; a repeat under the same key must match
	Created  time.Time // Redis's clock
	Start    time.Time // not before; zero = at once
	Open     bool      // false while it is being stored
	Size     int       // recipients a block, the last one excepted
	Blocks   int
	Doors    int // blocks of rows refused at the door
	Counts   Door
	// Canary is the policy when the campaign is staged; once it is committed, Recipients
	// are the number that goes first, 0 = no canary.
	Canary Canary
}

// Door counts the rows of the input as they were judged when the list was read.
type Door struct {
	Recipients int // all rows
	Invalid    int
	Duplicate  int
	Suppressed int
}

// Queued is the number of recipients that passed the door.
func (d Door) Queued() int { return d.Recipients - d.Invalid - d.Duplicate - d.Suppressed }

// blockSize is the number of recipients of block n.
func (c *Campaign) blockSize(n int) int {
	return max(0, min(c.Size, c.Counts.Queued()-n*c.Size))
}

// CampaignID derives a campaign's id from its idempotency key.
func CampaignID(key string) string {
	sum := sha256.Sum256([]byte("sluice campaign\x00" + key))
	return hex.EncodeToString(sum[:8])
}

// ErrNoCampaign is returned when there is no campaign of that name.
var ErrNoCampaign = errors.New("no such campaign")

// ErrConflict is returned when a name cannot be had, or a key was used for a
// different campaign. The same call will fail again.
var ErrConflict = errors.New("not a new campaign")

// Find returns the campaign called name (its name or its id).
func (q *Queue) Find(ctx context.Context, name string) (*Campaign, error) {
	id, err := q.rdb.HGet(ctx, q.keys.names(), name).Result()
	if errors.Is(err, redis.Nil) {
		id = name
	} else if err != nil {
		return nil, q.unreachable(err)
	}
	c, err := q.campaign(ctx, id)
	if errors.Is(err, ErrNoCampaign) {
		return nil, fmt.Errorf("%w: %q (sluice campaign list shows what there is)", ErrNoCampaign, name)
	}
	return c, err
}

// List returns the newest campaigns, newest first, at most limit, which is 1 or more.
func (q *Queue) List(ctx context.Context, limit int) ([]*Campaign, error) {
	if limit < 1 { // Redis would count it from the other end
		return nil, fmt.Errorf("list %d campaigns: want at least 1", limit)
	}
	ids, err := q.rdb.ZRangeArgs(ctx, redis.ZRangeArgs{Key: q.keys.campaigns(), Start: 0, Stop: limit - 1, Rev: true}).Result()
	if err != nil {
		return nil, q.unreachable(err)
	}
	out := make([]*Campaign, 0, len(ids))
	for _, id := range ids {
		c, err := q.campaign(ctx, id)
		if errors.Is(err, ErrNoCampaign) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (q *Queue) campaign(ctx context.Context, id string) (*Campaign, error) {
	m, err := q.rdb.HGetAll(ctx, q.keys.meta(id)).Result()
	if err != nil {
		return nil, q.unreachable(err)
	}
	if len(m) == 0 || m["state"] == goneState {
		return nil, ErrNoCampaign
	}
	return decodeCampaign(id, m)
}

func decodeCampaign(id string, m map[string]string) (*Campaign, error) {
	stream, err := mail.ParseStream(m["stream"])
	if err != nil {
		return nil, fmt.Errorf("campaign %s: %w: %w", id, errCorrupt, err)
	}
	num := func(field string) int {
		v, e := strconv.Atoi(m[field])
		if e != nil && m[field] != "" && err == nil {
			err = fmt.Errorf("campaign %s: field %s: %w", id, field, errCorrupt)
		}
		return v
	}
	c := &Campaign{
		ID: id, Name: m["name"], Key: m["key"], Stream: stream, Relay: m["relay"], Template: m["template"], From: m["from"],
		Digest: m["digest"], Open: m["state"] == "open", Size: num("size"), Blocks: num("blocks"), Doors: num("doors"),
		Counts: Door{num("recipients"), num("invalid"), num("duplicate"), num("suppressed")},
	}
	c.Canary = Canary{Recipients: num("canary"), Wait: time.Duration(num("canary_wait")) * time.Millisecond}
	c.Created = time.UnixMilli(int64(num("created")))
	if start := num("start"); start > 0 {
		c.Start = time.UnixMilli(int64(start))
	}
	return c, err
}

// Program returns the campaign's pinned template.
func (q *Queue) Program(ctx context.Context, id string) ([]byte, error) {
	b, err := q.rdb.Get(ctx, q.keys.program(id)).Bytes()
	if err != nil {
		return nil, fmt.Errorf("pinned template of campaign %s: %w", id, err)
	}
	return q.codec.unpack(b)
}

// Staging is a campaign that is being stored. Nothing of it is sent before Commit.
type Staging struct {
	q *Queue
	c *Campaign
	// Existing is set when the campaign had been committed before: there is
	// nothing to store.
	Existing bool

	unseen atomic.Int64 // bytes stored since the last look at the room there is
}

// Stage begins to store a campaign, or goes on with one whose producer died. The
// same key with other content, or a name that another campaign has, is ErrConflict. With
// ErrFull nothing has been stored.
func (q *Queue) Stage(ctx context.Context, c Campaign, program []byte) (*Staging, error) {
	c.ID = CampaignID(c.Key)
	created, err := q.now(ctx)
	if err != nil {
		return nil, q.unreachable(err)
	}
	if err := q.admit(ctx, c); err != nil {
		return nil, err
	}
	if err := q.takeName(ctx, c); err != nil {
		return nil, err
	}
	start := int64(0)
	if !c.Start.IsZero() {
		start = c.Start.UnixMilli()
	}
	stood, err := q.scripts.stage.Run(ctx, q.rdb, []string{q.keys.meta(c.ID), q.keys.program(c.ID)}, q.codec.pack(program),
		"name", c.Name, "key", c.Key, "stream", string(c.Stream), "relay", c.Relay, "template", c.Template, "from", c.From,
		"digest", c.Digest, "created", created, "start", start, "size", c.Size).Text()
	if err != nil {
		return nil, fmt.Errorf("store campaign: %w", full(err))
	}
	switch stood {
	case "":
		return q.existing(ctx, c)
	case goneState:
		return nil, errGoing
	}
	if created, err = strconv.ParseInt(stood, 10, 64); err != nil {
		return nil, fmt.Errorf("campaign %s: time of creation: %w", c.ID, errCorrupt)
	}
	c.Created = time.UnixMilli(created)
	if err := q.rdb.ZAdd(ctx, q.keys.campaigns(), redis.Z{Score: float64(created), Member: c.ID}).Err(); err != nil {
		return nil, fmt.Errorf("list campaign: %w", err)
	}
	return &Staging{q: q, c: &c}, nil
}

// errGoing refuses a key while the campaign it was used for is being removed.
var errGoing = fmt.Errorf("%w: the campaign of this key is just being removed, because its retention is over; send again in a minute", ErrConflict)

// admit looks whether there is room for a campaign that is not stored yet.
func (q *Queue) admit(ctx context.Context, c Campaign) error {
	why := q.room(ctx)
	if !errors.Is(why, ErrFull) {
		return why
	}
	if old, err := q.campaign(ctx, c.ID); err == nil && old.Open {
		return nil
	}
	return why
}

// existing answers a repeat of a send that was committed before.
func (q *Queue) existing(ctx context.Context, c Campaign) (*Staging, error) {
	old, err := q.campaign(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	if old.Digest != c.Digest {
		return nil, fmt.Errorf("%w: this key was already used for campaign %q with another list, template, sender or settings; to send again on purpose, give another --key", ErrConflict, old.Name)
	}
	// The first producer may have died between its two steps.
	if err := q.openCampaign(ctx, old); err != nil {
		return nil, err
	}
	return &Staging{q: q, c: old, Existing: true}, nil
}

// takeName reserves the campaign's name for its id.
func (q *Queue) takeName(ctx context.Context, c Campaign) error {
	if c.Name == "" || len(c.Name) > 200 || strings.ContainsAny(c.Name, "\r\n\x00{}") {
		return fmt.Errorf("%w: campaign name %q: want 1 to 200 characters without line breaks or braces", ErrConflict, c.Name)
	}
	if ok, err := q.rdb.HSetNX(ctx, q.keys.names(), c.Name, c.ID).Result(); err != nil {
		return q.unreachable(err)
	} else if ok {
		return nil
	}
	id, err := q.rdb.HGet(ctx, q.keys.names(), c.Name).Result()
	if err != nil {
		return q.unreachable(err)
	}
	if id != c.ID {
		return fmt.Errorf("%w: there is a campaign called %q already, with another list or template; choose another --name", ErrConflict, c.Name)
	}
	return nil
}

// Campaign returns the campaign being stored, or the existing one.
func (s *Staging) Campaign() *Campaign { return s.c }

// Put stores block n, and may be repeated. It is safe for concurrent use. After ErrFull
// the staging is to be discarded.
func (s *Staging) Put(ctx context.Context, n int, b *Block) error {
	return s.put(ctx, s.q.keys.recipients(s.c.ID, n), n, b)
}

// Refuse stores slice n of the rows refused at the door. Its values are two
// columns: the outcome's name and the reason.
func (s *Staging) Refuse(ctx context.Context, n int, b *Block) error {
	return s.put(ctx, s.q.keys.refused(s.c.ID, n), n, b)
}

func (s *Staging) put(ctx context.Context, key string, n int, b *Block) error {
	data, err := s.q.codec.encodeBlock(b)
	if err != nil {
		return fmt.Errorf("block %d: %w", n, err)
	}
	if err := s.makesRoom(ctx, len(data)); err != nil {
		return fmt.Errorf("store block %d: %w", n, err)
	}
	fault.Here("queue.put")
	ok, err := s.q.scripts.put.Run(ctx, s.q.rdb, []string{s.q.keys.meta(s.c.ID), key}, s.c.Digest, data).Int()
	if err != nil {
		return fmt.Errorf("store block %d: %w", n, full(err))
	}
	if ok == 0 {
		return errOvertaken
	}
	return nil
}

// errOvertaken ends a staging that another producer has removed or replaced.
var errOvertaken = fmt.Errorf("%w: the same key is being sent by somebody else at this moment, or was and gave up; send again when that has ended", ErrConflict)

// Commit makes the campaign visible to the workers.
// Killed at any point and repeated, or not repeated but reconciled by a worker,
// the result is the same.
func (s *Staging) Commit(ctx context.Context, blocks, doors int, d Door) error {
	q, c := s.q, s.c
	c.Blocks, c.Doors, c.Counts, c.Canary = blocks, doors, d, c.Canary.of(d.Queued())
	// Another producer of the same send may have given up, and the name with it.
	if err := q.takeName(ctx, *c); err != nil {
		return err
	}
	if err := q.rdb.SAdd(ctx, q.keys.opening(c.Stream), c.ID).Err(); err != nil {
		return fmt.Errorf("announce campaign: %w", err)
	}
	keys := append([]string{q.keys.meta(c.ID)}, s.stored(blocks, doors)...)
	did, err := q.scripts.commit.Run(ctx, q.rdb, keys, c.Digest, "blocks", blocks, "doors", doors,
		"recipients", d.Recipients, "invalid", d.Invalid, "duplicate", d.Duplicate, "suppressed", d.Suppressed,
		"canary", c.Canary.Recipients, "canary_wait", c.Canary.Wait.Milliseconds()).Int()
	if err != nil {
		return fmt.Errorf("commit campaign: %w", err)
	}
	if did < 0 {
		return errOvertaken
	}
	c.Open = true
	fault.Here("queue.committed")
	return q.openCampaign(ctx, c)
}

// stored lists the keys of what Put and Refuse have stored.
func (s *Staging) stored(blocks, doors int) []string {
	keys := make([]string, 0, blocks+doors)
	for n := range blocks {
		keys = append(keys, s.q.keys.recipients(s.c.ID, n))
	}
	for n := range doors {
		keys = append(keys, s.q.keys.refused(s.c.ID, n))
	}
	return keys
}

// Discard removes what was staged. What another producer has committed meanwhile
// stays.
func (s *Staging) Discard(ctx context.Context, blocks, doors int) error {
	if s.c.Open {
		return nil
	}
	k, meta := s.q.keys, s.q.keys.meta(s.c.ID)
	last := []string{k.program(s.c.ID), meta}
	for part := range slices.Chunk(append(s.stored(blocks, doors), last...), 500) {
		did, err := s.q.scripts.discard.Run(ctx, s.q.rdb, append([]string{meta}, part...), s.c.Digest).Int()
		if err != nil {
			return fmt.Errorf("discard staged campaign: %w", err)
		}
		if did == 0 {
			return nil
		}
	}
	pipe := s.q.rdb.Pipeline()
	pipe.HDel(ctx, k.names(), s.c.Name)
	pipe.ZRem(ctx, k.campaigns(), s.c.ID)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("discard staged campaign: %w", err)
	}
	return nil
}

// openCampaign puts an open campaign's blocks into its stream's schedule.
func (q *Queue) openCampaign(ctx context.Context, c *Campaign) error {
	k, start := q.keys, int64(0)
	if !c.Start.IsZero() {
		start = c.Start.UnixMilli()
	}
	keys := []string{k.ring(c.Stream), k.next(c.Stream), k.total(c.Stream), k.later(c.Stream), k.opening(c.Stream), k.canary(c.Stream)}
	if err := q.scripts.open.Run(ctx, q.rdb, keys, c.ID, c.Blocks, start, c.canaryEntry()).Err(); err != nil {
		return fmt.Errorf("open campaign: %w", err)
	}
	return nil
}
