package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/fault"
)

// Member is one incarnation of a worker process. Its nonce is new with every
// Join, so a process that was declared dead comes back as somebody else.
type Member struct {
	presence presence
	q        *Queue
	nonce    string
	rdb      *redis.Client // of the ledger goroutine: one command stream, in order
	pulse    *redis.Client // of the heartbeat, so that it never waits behind the ledger
	hooks    Hooks

	clock   atomic.Int64             // Redis's clock less ours, ms; written by the heartbeat
	stamped atomic.Int64             // the highest stamp of the data that was seen, ms
	rewound atomic.Pointer[Hold]     // why older data is not sent from, nil = it is not older
	view    atomic.Pointer[holdView] // the holds; written under mu
	books   results                  // what came of mails, on its way to the breakers

	mu          sync.Mutex
	gen         int64             // generation of the record key; rotates after a doubtful write
	intents     []*Intent         // standing intents by slot, nil where free
	free        []int             // free slots
	claims      map[string]*Claim // held claims by block id
	lonely      string            // the block that wants to be this process's only one, "" = none
	lonelySince time.Time         // when one last wanted to
	written     []*Claim          // claims with evidence not yet stored
	version     uint64            // of record and evidence; rises with every change
	confirmed   uint64            // the version Redis has confirmed
	since       time.Time         // when the last confirmed write was begun
	changed     chan struct{}     // closed and replaced whenever confirmed or failed moves
	failed      error             // ErrFenced, once
	past        []past            // evidence of the last seconds, for a Redis that lost it
	pending     *batch            // being stored, nil = none
	said        string            // what confirmHolds wrote last
	dirty       chan struct{}     // capacity 1: there is something to commit
}

// Hooks let the owner take part in what happens to the fleet.
type Hooks struct {
	// TakenOver is called for each dead member that this one buried, for instance to
	// give its connection leases back. gone says that its process has no sockets any
	// more: it was killed, rather than frozen or cut off.
	TakenOver func(ctx context.Context, nonce string, gone bool)
	// Restarted is called when Redis restarted, before anything is sent again.
	Restarted func(ctx context.Context)
}

// Join makes a new member. It waits for Redis, and if Redis has just started,
// until those who outlived its restart have written what they know.
func (q *Queue) Join(ctx context.Context, hooks Hooks) (*Member, error) {
	id, err := q.settleDown(ctx)
	if err != nil {
		return nil, err
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	m := &Member{
		q: q, nonce: hex.EncodeToString(b[:]), hooks: hooks, gen: 1, since: time.Now(),
		claims:  map[string]*Claim{},
		changed: make(chan struct{}), dirty: make(chan struct{}, 1),
	}
	m.view.Store(&holdView{at: time.Now()})
	m.books.due = make(chan struct{}, 1)
	q.guard.setStrict(true)
	m.rdb = q.conn.client(clientOptions{poolSize: 1, retries: -1, onConnect: q.guard.onConnect})
	m.pulse = q.conn.client(clientOptions{poolSize: 2, retries: -1, onConnect: q.guard.onConnect})
	pipe := m.rdb.Pipeline() // no transaction, which would not say why Redis refuses
	pipe.Set(ctx, q.keys.record(m.nonce, m.gen), "", 0)
	pipe.HSet(ctx, q.keys.gens(), m.nonce, m.gen)
	pipe.HSet(ctx, q.keys.beats(), m.nonce, 1)
	if id != "" {
		pipe.Set(ctx, q.keys.run(), id, 0)
	}
	clock := q.rdb.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil || clock.Err() != nil {
		return nil, m.abandon(ctx, q.unreachable(errors.Join(err, clock.Err())))
	}
	m.clock.Store(clock.Val().UnixMilli() - time.Now().UnixMilli())
	if err := errors.Join(m.firstStamp(ctx), m.firstHolds(ctx)); err != nil {
		return nil, m.abandon(ctx, q.unreachable(err))
	}
	m.show(ctx)
	return m, nil
}

// settleDown waits while Redis is unreachable or has only just started, and for those
// who outlived its restart. It returns which Redis that is, as awaitSurvivors does.
func (q *Queue) settleDown(ctx context.Context) (id string, err error) {
	for {
		if err := q.Wait(ctx); err != nil {
			return "", err
		}
		info, err := q.rdb.Info(ctx, "server").Result()
		if err != nil && ctx.Err() != nil {
			return "", ctx.Err()
		}
		m := uptimeLine.FindStringSubmatch(info)
		if err != nil || m == nil || len(m[1]) > 1 || m[1] > "2" {
			break
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return "", err
		}
	}
	if id, err = q.awaitSurvivors(ctx); err != nil {
		return "", q.unreachable(err)
	}
	return id, nil
}

// Nonce names this incarnation.
func (m *Member) Nonce() string { return m.nonce }

// Now is Redis's clock in ms, as known from the last heartbeat.
func (m *Member) Now() int64 { return time.Now().UnixMilli() + m.clock.Load() }

// Run keeps the member alive until ctx ends: heartbeat, ledger, watching the
// others, reconciling. It returns nil after ctx ended, or ErrFenced. The ledger
// works on until stop ends as well, so that a draining worker can still record.
func (m *Member) Run(ctx, stop context.Context) error {
	var wg sync.WaitGroup
	run := func(ctx context.Context, f func(context.Context)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(ctx)
		}()
	}
	ledger, endLedger := context.WithCancel(stop)
	defer endLedger()
	run(ledger, m.commitLoop)
	run(ledger, m.heartbeat)
	run(ledger, m.resultsLoop)
	run(ctx, m.reconcileLoop)
	wg.Wait()
	return m.Err()
}

// Err is ErrFenced once the member was declared dead, else nil.
func (m *Member) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

// Failed returns a channel that is closed at the next change of the ledger; after
// it, look at Err.
func (m *Member) Failed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// fail records that the member is fenced. Every waiter learns it.
func (m *Member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil || fault.Off("guard.fence") {
		return
	}
	m.failed = err
	m.announce()
}

// announce wakes all waiters. The caller holds m.mu.
func (m *Member) announce() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Leave stores what Run did not get to, and takes the member off the books if all of
// it was settled, so that nobody has to find out that it is gone. A member that left
// messages under way keeps its record: who finds out makes them unknown. Call it
// after Run returned.
func (m *Member) Leave(ctx context.Context) error {
	if err := m.commitRest(ctx); err != nil {
		return errors.Join(m.q.unreachable(err), m.close())
	}
	if m.Err() == nil && !m.underWay() {
		if err := m.signOff(ctx); err != nil {
			return errors.Join(m.q.unreachable(err), m.close())
		}
	}
	return m.close()
}

// abandon ends a Join that failed for why, which it returns. What of the member came to
// be written is taken back as far as Redis can be reached, or the others would see a
// worker die that never was.
func (m *Member) abandon(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pulseTimeout)
	defer cancel()
	if err := m.signOff(ctx); err != nil {
		m.q.log.Debug("a worker that could not join stays on the books until others find that it does not beat", "worker", m.nonce, "err", err)
	}
	return errors.Join(why, m.close())
}

// signOff takes the member off the books.
func (m *Member) signOff(ctx context.Context) error {
	pipe := m.q.rdb.TxPipeline()
	pipe.Del(ctx, m.q.keys.record(m.nonce, m.gen))
	pipe.HDel(ctx, m.q.keys.gens(), m.nonce)
	pipe.HDel(ctx, m.q.keys.beats(), m.nonce)
	pipe.HDel(ctx, m.q.keys.seen(), m.nonce)
	_, err := pipe.Exec(ctx)
	return err
}

// underWay reports whether intents stand without an outcome.
func (m *Member) underWay() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.free) < len(m.intents)
}

func (m *Member) close() error {
	m.q.guard.setStrict(false)
	return errors.Join(m.presence.close(), m.rdb.Close(), m.pulse.Close())
}
