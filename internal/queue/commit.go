package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
)

// confirmAge is how old a confirmation may be when the dot leaves. It lies below
// the time after which others declare a silent member dead, so a process that was
// frozen asks again instead of sending what it had been allowed to long ago.
const confirmAge = 3 * time.Second

// pastKept is how long evidence is kept in memory after Redis confirmed it. AOF
// with everysec loses up to two seconds, more while a slow fsync is under way.
const pastKept = 10 * time.Second

// logOf names a block's outcome log.
type logOf struct {
	stream   mail.Stream
	campaign string
	block    int
}

// pastWrite is evidence for a block's log.
type pastWrite struct {
	logOf
	data []byte
}

// past is what Redis confirmed within about a second. A log's evidence stands in one
// piece: at full speed it is most of a worker's memory.
type past struct {
	from, last time.Time
	logs       map[logOf][]byte
}

// Declare says that recipient index of the claim is about to be sent to, and
// returns at once. The content must not leave before Confirm.
func (m *Member) Declare(c *Claim, index int) *Intent {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := &Intent{claim: c, index: index, attempt: c.Standings[index].Attempts + 1}
	if n := len(m.free); n > 0 {
		in.slot, m.free = m.free[n-1], m.free[:n-1]
		m.intents[in.slot] = in
	} else {
		in.slot = len(m.intents)
		m.intents = append(m.intents, in)
	}
	m.touch()
	in.version = m.version
	return in
}

// touch notes a change for the ledger goroutine. The caller holds m.mu.
func (m *Member) touch() {
	m.version++
	select {
	case m.dirty <- struct{}{}:
	default:
	}
}

// Confirm waits until Redis holds the intent and still holds it now. Its error is
// ErrFenced, ErrLost or ctx's.
func (m *Member) Confirm(ctx context.Context, in *Intent) error {
	if fault.Off("guard.intent") {
		return nil
	}
	for {
		m.mu.Lock()
		switch {
		case m.failed != nil:
			m.mu.Unlock()
			return m.failed
		case in.claim.Lost():
			m.mu.Unlock()
			return ErrLost
		case m.confirmed >= in.version && time.Since(m.since) < confirmAge:
			m.mu.Unlock()
			return nil
		case m.confirmed == m.version: // too old, and nothing under way that would renew it
			m.touch()
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Record notes what came of an intent. It never blocks and never fails: evidence
// is written as soon as Redis takes it.
func (m *Member) Record(in *Intent, o mail.Outcome, r mail.Reply, due int64) {
	m.note(in.claim, Evidence{Index: in.index, Attempt: in.attempt, Outcome: o, Reply: r, Time: m.Now(), Due: due}, in)
}

// Decide notes an outcome that needed no attempt: Expired or Cancelled.
func (m *Member) Decide(c *Claim, index int, o mail.Outcome, r mail.Reply) {
	s := &c.Standings[index]
	m.note(c, Evidence{Index: index, Attempt: s.Attempts, Round: s.round, Outcome: o, Reply: r, Time: m.Now()}, nil)
}

func (m *Member) note(c *Claim, e Evidence, in *Intent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(c.unwritten) == 0 {
		m.written = append(m.written, c)
	}
	c.unwritten = appendEvidence(c.unwritten, e)
	c.Standings[e.Index].Apply(e)
	if in != nil {
		m.drop(in)
	}
	m.touch()
}

// Withdraw takes an intent back: nothing of the message was sent.
func (m *Member) Withdraw(in *Intent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(in)
	m.touch()
}

// drop frees an intent's slot. The caller holds m.mu.
func (m *Member) drop(in *Intent) {
	m.intents[in.slot] = nil
	m.free = append(m.free, in.slot)
}

// Flush waits until all that was recorded before the call is stored, by a fenced
// member too.
func (m *Member) Flush(ctx context.Context) error {
	m.mu.Lock()
	want := m.version
	m.mu.Unlock()
	for {
		m.mu.Lock()
		done, changed := m.confirmed >= want, m.changed
		m.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// batch is one group commit: the evidence of all claims, and the record with all
// standing intents, among which are none of those that the evidence is about.
type batch struct {
	version  uint64
	record   []byte
	evidence []pastWrite
	begun    time.Time
}

func (m *Member) nextBatch() *batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.version == m.confirmed && len(m.written) == 0 {
		return nil
	}
	b := &batch{version: m.version, begun: time.Now()}
	for _, c := range m.written {
		b.evidence = append(b.evidence, pastWrite{logOf{c.Campaign.Stream, c.Campaign.ID, c.N}, c.unwritten})
		c.unwritten = make([]byte, 0, len(c.unwritten)) // the next is of about this size
	}
	m.written, m.pending = m.written[:0], b
	b.record = encodeIntents(make([]byte, 0, 64+8*len(m.intents)), m.intents)
	return b
}

// commitLoop is the ledger goroutine: one group commit after the other, each with
// everything that came up during the one before.
func (m *Member) commitLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.dirty:
		}
		// Connections that are about to declare or record do so now and share the call.
		runtime.Gosched()
		if b := m.nextBatch(); b != nil && m.commit(ctx, b, m.write) != nil {
			return
		}
	}
}

// commit stores a batch, by write and then as often as it takes. Its error is ctx's,
// and then the member goes on knowing the batch.
func (m *Member) commit(ctx context.Context, b *batch, write func(context.Context, *batch) error) error {
	err := write(ctx, b)
	if err != nil && !errors.Is(err, ErrFenced) {
		m.q.log.Warn("ledger write failed, repeating it until redis takes it", "err", err)
	}
	for d := 20 * time.Millisecond; err != nil; d = min(2*d, time.Second) {
		if errors.Is(err, ErrFenced) {
			m.fail(ErrFenced)
			if err := m.writeEvidence(ctx, b.evidence); err != nil {
				return err
			}
			break
		}
		if err := pause(ctx, d); err != nil {
			return err
		}
		err = m.rewrite(ctx, b)
	}
	m.done(b)
	fault.Here("queue.stored")
	return nil
}

// commitRest stores what the ledger goroutine, which has ended, did not get to.
func (m *Member) commitRest(ctx context.Context) error {
	if b := m.pending; b != nil {
		if err := m.commit(ctx, b, m.rewrite); err != nil {
			return err
		}
	}
	if b := m.nextBatch(); b != nil {
		return m.commit(ctx, b, m.write)
	}
	return nil
}

// write stores a batch in one round trip, all or nothing: a Redis that is just running out
// of memory would take the smaller record and refuse the evidence.
func (m *Member) write(ctx context.Context, b *batch) error {
	if m.Err() != nil {
		return ErrFenced
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	fault.Here("queue.beforeStore")
	pipe := m.rdb.Pipeline()
	if len(b.evidence) > 0 {
		pipe = m.rdb.TxPipeline()
	}
	for _, w := range b.evidence {
		pipe.Append(ctx, m.q.keys.log(w.campaign, w.block), string(w.data))
	}
	set := pipe.SetXX(ctx, m.q.keys.record(m.nonce, m.gen), b.record, 0)
	switch _, err := pipe.Exec(ctx); {
	case redis.IsExecAbortError(err):
		return fmt.Errorf("ledger: redis refuses writes (is it out of memory, read-only, or without enough replicas?): %w", err)
	case err != nil && !errors.Is(err, redis.Nil):
		return fmt.Errorf("ledger: %w", err)
	}
	if !set.Val() {
		return ErrFenced
	}
	return nil
}

// rewrite stores a batch after a write whose fate is unknown: Redis may still
// carry that one out, after this one even. The evidence may stand twice without
// harm; the record moves to a new key, so that the old write finds none.
func (m *Member) rewrite(ctx context.Context, b *batch) error {
	if err := m.afterRestart(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := m.append(ctx, m.rdb, b.evidence); err != nil {
		return err
	}
	b.begun = time.Now()
	return m.rotate(ctx, m.rdb, b.record, false)
}

// rotate moves the record to the next generation, one further with every repeat.
// With revive it is made anew where a restarted Redis lost it.
func (m *Member) rotate(ctx context.Context, rdb *redis.Client, record []byte, revive bool) error {
	gen := m.nextGen()
	k, flag := m.q.keys, "0"
	if revive {
		flag = "1"
	}
	keys := []string{k.gens(), k.dead(m.nonce), k.record(m.nonce, gen)}
	ok, err := m.q.scripts.rotate.Run(ctx, rdb, keys, m.nonce, gen, flag, record, k.records(m.nonce)).Int()
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if ok == 0 {
		return ErrFenced
	}
	return nil
}

func (m *Member) nextGen() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gen++
	return m.gen
}

func (m *Member) append(ctx context.Context, rdb *redis.Client, writes []pastWrite) error {
	if len(writes) == 0 || fault.Off("guard.evidence") {
		return nil
	}
	pipe := rdb.Pipeline()
	for _, w := range writes {
		pipe.SAdd(ctx, m.q.keys.live(w.campaign), strconv.Itoa(w.block))
		pipe.Append(ctx, m.q.keys.log(w.campaign, w.block), string(w.data))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// writeEvidence stores what a fenced member still knows: evidence is taken from
// anyone, and by a Redis that restarted since. Its blocks are somebody else's by now, who
// is told to look again.
func (m *Member) writeEvidence(ctx context.Context, writes []pastWrite) error {
	rdb := m.q.conn.client(clientOptions{poolSize: 1, retries: -1})
	defer rdb.Close()
	for d := 20 * time.Millisecond; ; d = min(2*d, time.Second) {
		err := m.append(ctx, rdb, writes)
		for _, w := range writes {
			if err == nil {
				err = m.q.touchBlock(ctx, rdb, w.stream, blockID(w.campaign, w.block))
			}
		}
		if err == nil {
			return nil
		}
		if err := pause(ctx, d); err != nil {
			return err
		}
	}
}

// done notes that a batch is stored.
func (m *Member) done(b *batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.confirmed, m.since, m.pending = b.version, b.begun, nil
	m.remember(b)
	m.announce()
}

// remember keeps a batch's evidence, and forgets what is old enough. The caller holds
// m.mu.
func (m *Member) remember(b *batch) {
	for len(m.past) > 0 && b.begun.Sub(m.past[0].last) > pastKept {
		m.past = slices.Delete(m.past, 0, 1)
	}
	if len(b.evidence) == 0 {
		return
	}
	n := len(m.past) - 1
	if n < 0 || b.begun.Sub(m.past[n].from) > time.Second {
		m.past = append(m.past, past{from: b.begun, logs: map[logOf][]byte{}})
		n++
	}
	p := &m.past[n]
	p.last = b.begun
	for _, w := range b.evidence {
		p.logs[w.logOf] = append(p.logs[w.logOf], w.data...)
	}
}

// remembered lists what is kept. The caller holds m.mu; what is appended to a log later
// lies behind what it was given.
func (m *Member) remembered() (writes []pastWrite) {
	for _, p := range m.past {
		for log, data := range p.logs {
			writes = append(writes, pastWrite{log, data})
		}
	}
	return writes
}
