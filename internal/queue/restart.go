package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// afterRestart repairs a Redis that restarted, if it did: what this member wrote in
// its last seconds is written again, then everyone is given time to do the same.
// Only then do this process's connections work again. It runs in the ledger
// goroutine.
func (m *Member) afterRestart(ctx context.Context) error {
	select {
	case <-m.q.guard.restarts:
	default:
		return nil
	}
	noticed := time.Now()
	rdb := m.q.conn.client(clientOptions{poolSize: 1, retries: -1})
	defer rdb.Close()
	m.q.log.Warn("redis restarted; writing again what this worker remembers")
	id, err := runID(ctx, rdb)
	if err == nil {
		err = m.restamp(ctx, rdb)
	}
	if err == nil {
		err = m.remind(ctx, rdb)
	}
	if err == nil {
		err = m.acceptRestart(ctx, rdb, id, noticed)
	}
	switch {
	case errors.Is(err, ErrFenced):
		// It sends nothing more, and could otherwise not come back as somebody else.
		m.fail(ErrFenced)
		m.q.guard.accept(id)
	case err != nil:
		m.noteRestart()
		return fmt.Errorf("after redis restarted: %w", err)
	}
	return err
}

// noteRestart makes the next repeat try afterRestart again.
func (m *Member) noteRestart() {
	select {
	case m.q.guard.restarts <- struct{}{}:
	default:
	}
}

// acceptRestart works with the Redis called id from now on, if it is still that one
// after everybody has had time to remind it.
func (m *Member) acceptRestart(ctx context.Context, rdb *redis.Client, id string, noticed time.Time) error {
	if m.hooks.Restarted != nil {
		m.hooks.Restarted(ctx)
	}
	if err := pause(ctx, restartGrace-time.Since(noticed)); err != nil {
		return err
	}
	now, err := runID(ctx, rdb)
	if err != nil {
		return err
	}
	if now != id {
		return errRestarted // once more: what was written again may be lost again
	}
	m.q.guard.accept(id)
	return nil
}

// remind writes evidence, intents and claims of the last seconds again. All of it may be
// there already, or in part. Evidence comes first, all that there is of it: the record
// has no intent of whom it speaks of, and is taken from who was buried, too. Claims come
// after the record: a member that was buried meanwhile must not write its claims over
// those of who has taken its work.
func (m *Member) remind(ctx context.Context, rdb *redis.Client) error {
	held, evidence, record := m.known()
	if err := m.append(ctx, rdb, evidence); err != nil {
		return err
	}
	err := m.rotate(ctx, rdb, record, true)
	if err != nil && !errors.Is(err, ErrFenced) {
		return err
	}
	if err == nil {
		for _, c := range held {
			if err := m.reclaim(ctx, rdb, c); err != nil {
				return err
			}
		}
		if err := m.remindHolds(ctx, rdb); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, w := range evidence {
		if id := blockID(w.campaign, w.block); !seen[id] {
			seen[id] = true
			if err := m.q.touchBlock(ctx, rdb, w.stream, id); err != nil {
				return err
			}
		}
	}
	return err
}

// known is all that this member would tell a Redis that knows nothing: its claims, what
// came of mails in the last seconds, stored or not, and the record of its intents at the
// same moment.
func (m *Member) known() (held []*Claim, evidence []pastWrite, record []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.claims {
		if c.Epoch != 0 { // else Redis has not given it yet
			held = append(held, c)
		}
	}
	evidence = m.remembered()
	if m.pending != nil {
		evidence = append(evidence, m.pending.evidence...)
	}
	for _, c := range m.written {
		evidence = append(evidence, pastWrite{logOf{c.Campaign.Stream, c.Campaign.ID, c.N}, slices.Clone(c.unwritten)})
	}
	return held, evidence, encodeIntents(nil, m.intents)
}

func (m *Member) reclaim(ctx context.Context, rdb *redis.Client, c *Claim) error {
	k, s := m.q.keys, c.Campaign.Stream
	keys := []string{k.claims(s), k.epoch(s), k.ready(s), k.queued(s)}
	ok, err := m.q.scripts.reclaim.Run(ctx, rdb, keys, c.ID(), c.Epoch, m.nonce).Int()
	if err != nil {
		return fmt.Errorf("claim %s again: %w", c.ID(), err)
	}
	if ok == 0 {
		c.lost.Store(true)
		return nil
	}
	if err := rdb.SAdd(ctx, k.live(c.Campaign.ID), c.N).Err(); err != nil {
		return fmt.Errorf("claim %s again: %w", c.ID(), err)
	}
	return nil
}
