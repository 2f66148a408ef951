package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
)

// Times of the heartbeat. A member is declared dead only after deathAfter of the
// observer's own clock without a beat, while every call of the observer was quick:
// a slow or failed call, or a pause of the observer itself, starts the count anew.
// So a Redis that stalls declares nobody dead.
const (
	beatEvery  = 250 * time.Millisecond
	deathAfter = 4 * time.Second
	quick      = 500 * time.Millisecond
	// A connection that has silently gone must be given up well within deathAfter.
	pulseTimeout = time.Second
)

// sighting is when a member's counter was last seen to move.
type sighting struct {
	count string
	at    time.Time
}

// observer watches the other members. It is used by one goroutine.
type observer struct {
	seen map[string]sighting
	last time.Time // of the last look
}

// look takes in the counters as read just now, with a call begun at begun, and
// returns who is dead, with the counter it died at. counts also holds, with an empty
// counter, nonces that hold claims but have no heartbeat.
func (o *observer) look(counts map[string]string, begun, now time.Time) map[string]string {
	dead := map[string]string{}
	undisturbed := fault.Off("guard.death") || now.Sub(begun) < quick && now.Sub(o.last) < beatEvery+quick
	o.last = now
	for nonce, count := range counts {
		s, known := o.seen[nonce]
		switch {
		case !known || s.count != count || !undisturbed:
			o.seen[nonce] = sighting{count, now}
		case now.Sub(s.at) >= deathAfter:
			dead[nonce] = count
		}
	}
	for nonce := range o.seen {
		if _, ok := counts[nonce]; !ok {
			delete(o.seen, nonce)
		}
	}
	return dead
}

// disturb restarts every count.
func (o *observer) disturb() { o.last = time.Time{} }

// heartbeat beats, watches the others and keeps holds and clock up to date.
func (m *Member) heartbeat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	o := observer{seen: map[string]sighting{}}
	// Taking over takes its time, and one's own heart must not stop for it.
	var burials sync.WaitGroup
	defer burials.Wait()
	burying := make(chan struct{}, 1)
	for {
		dead, err := m.pulseOnce(ctx, &o)
		switch {
		case errors.Is(err, ErrFenced):
			m.fail(ErrFenced)
		case errors.Is(err, errRestarted):
			m.wakeLedger()
		}
		if len(dead) > 0 {
			select {
			case burying <- struct{}{}:
				burials.Go(func() {
					m.takeOverAll(ctx, dead)
					<-burying
				})
			default: // who is still dead is seen again
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// takeOverAll hands on the work of the dead, given with the counters they died at.
func (m *Member) takeOverAll(ctx context.Context, dead map[string]string) {
	for nonce, count := range dead {
		if err := m.q.takeOver(ctx, nonce, count); err != nil {
			if !errors.Is(err, errAlive) {
				m.q.log.Warn("take-over interrupted, repeating it", "worker", nonce, "err", err)
			}
			continue
		}
		m.q.log.Warn("a worker died; its blocks are due again", "worker", nonce)
		if m.hooks.TakenOver != nil {
			m.hooks.TakenOver(ctx, nonce, m.q.gone(ctx, nonce))
		}
	}
}

// wakeLedger makes the ledger goroutine write, and so find out what is wrong.
func (m *Member) wakeLedger() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touch()
}

func (m *Member) pulseOnce(ctx context.Context, o *observer) (dead map[string]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			o.disturb()
		}
	}()
	begun := time.Now()
	k := m.q.keys
	n, err := m.stamp(ctx, m.pulse, false)
	if err != nil {
		return nil, err
	}
	if n < 0 && !fault.Off("guard.fence") {
		return nil, ErrFenced
	}
	pipe := m.pulse.Pipeline()
	clock, beats := pipe.Time(ctx), pipe.HGetAll(ctx, k.beats())
	held, claims := map[mail.Stream]*redis.SliceCmd{}, map[mail.Stream]*redis.StringSliceCmd{}
	for _, s := range mail.Streams() {
		held[s], claims[s] = pipe.HMGet(ctx, k.held(s), versionField), pipe.HVals(ctx, k.claims(s))
	}
	asked := time.Now()
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	if m.Err() == nil {
		m.clock.Store(clock.Val().UnixMilli() - asked.Add(now.Sub(asked)/2).UnixMilli())
	}
	if err := m.readHolds(ctx, held, asked); err != nil {
		return nil, err
	}
	counts := beats.Val()
	for _, s := range mail.Streams() {
		for _, c := range claims[s].Val() {
			if _, nonce, ok := cutClaim(c); ok {
				if _, beating := counts[nonce]; !beating {
					counts[nonce] = ""
				}
			}
		}
	}
	delete(counts, m.nonce)
	return o.look(counts, begun, now), nil
}

// errAlive ends a take-over of a member that turns out to have written meanwhile.
var errAlive = errors.New("the worker is alive")

// takeOver declares a member dead, if its counter still stands at count, and hands its
// work on. Every step may be
// repeated, by this process or another: the record is renamed first, so that the
// member can have no further intent confirmed; what it had declared without an
// outcome becomes unknown, unless evidence says or comes to say better.
func (q *Queue) takeOver(ctx context.Context, nonce, count string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	gen, err := q.rdb.HGet(ctx, q.keys.gens(), nonce).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read generation: %w", err)
	}
	keys := []string{q.keys.gens(), q.keys.beats(), q.keys.record(nonce, gen), q.keys.dead(nonce)}
	res, err := q.scripts.bury.Run(ctx, q.rdb, keys, nonce, gen, count).Slice()
	if err != nil {
		return fmt.Errorf("bury: %w", err)
	}
	if len(res) < 2 {
		return errAlive
	}
	fault.Here("queue.buried")
	record, _ := res[1].(string)
	now, err := q.now(ctx)
	if err != nil {
		return err
	}
	intents, err := decodeIntents([]byte(record))
	if err != nil {
		q.log.Error("a dead worker's record does not decode: whoever was not done in its blocks counts as unknown", "worker", nonce, "err", err)
		if err := q.doubt(ctx, nonce, now); err != nil {
			return err
		}
	}
	pipe := q.rdb.Pipeline()
	for _, in := range intents {
		e := Evidence{Index: in.index, Attempt: in.attempt, Outcome: mail.Unknown, Time: now,
			Reply: mail.Reply{Text: "the worker died with this message under way; the relay may have it"}}
		pipe.SAdd(ctx, q.keys.live(in.campaign), strconv.Itoa(in.block))
		pipe.Append(ctx, q.keys.log(in.campaign, in.block), string(appendEvidence(nil, e)))
	}
	pipe.Expire(ctx, q.keys.dead(nonce), 24*time.Hour)
	pipe.HDel(ctx, q.keys.seen(), nonce)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("record unknowns: %w", err)
	}
	for _, s := range mail.Streams() {
		if err := q.scripts.seize.Run(ctx, q.rdb, []string{q.keys.claims(s), q.keys.ready(s), q.keys.deaths(s)}, nonce).Err(); err != nil {
			return fmt.Errorf("seize claims: %w", err)
		}
	}
	for _, in := range intents {
		if err := q.touchBlock(ctx, q.rdb, in.stream, blockID(in.campaign, in.block)); err != nil {
			return err
		}
	}
	return nil
}

// touchBlock makes sure that somebody folds a block's log again.
func (q *Queue) touchBlock(ctx context.Context, rdb *redis.Client, s mail.Stream, block string) error {
	keys := []string{q.keys.claims(s), q.keys.ready(s), q.keys.queued(s), q.keys.touched(s)}
	if err := q.scripts.touch.Run(ctx, rdb, keys, block).Err(); err != nil {
		return fmt.Errorf("touch block %s: %w", block, err)
	}
	return nil
}
