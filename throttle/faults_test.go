package throttle

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// unreliable is a store on the far side of a network: calls take time both
// ways, fail before or after they had their effect, and never come back from a
// process that was killed.
type unreliable struct {
	store
	rng    func(n int64) int64 // 0 to n-1
	down   *atomic.Bool        // for everyone
	killed atomic.Bool         // for this process
	slow   time.Duration       // longest way, one way
	offset time.Duration       // of this process's idea of the store's clock
	ran    *atomic.Int64       // restarts of the store; and those that it was told of
	knows  int64
}

var errNoAnswer = errors.New("no answer")

func (u *unreliable) trip(ctx context.Context, f func() error) error {
	if _, err := sleepUntil(ctx, time.Now().Add(u.way())); err != nil {
		return err
	}
	if u.killed.Load() || u.down.Load() {
		return errNoAnswer
	}
	err := f()
	if _, ctxErr := sleepUntil(ctx, time.Now().Add(u.way())); ctxErr != nil {
		return ctxErr
	}
	if u.killed.Load() || u.rng(100) == 0 {
		return errNoAnswer
	}
	return err
}

func (u *unreliable) way() time.Duration {
	if u.rng(50) == 0 {
		return time.Duration(u.rng(int64(40 * u.slow))) // the network has a moment
	}
	return time.Duration(u.rng(int64(u.slow)))
}

func (u *unreliable) messages(ctx context.Context, p *plan, n int, back []unused) (g grant, err error) {
	for i := range back {
		back[i].at -= micros(u.offset)
	}
	err = u.trip(ctx, func() error { g, err = u.store.messages(ctx, p, n, back); return err })
	g.now += micros(u.offset) // it is nobody's business but the store's
	return g, err
}

func (u *unreliable) connect(ctx context.Context, p *plan, d dial) (g grant, err error) {
	err = u.trip(ctx, func() error { g, err = u.store.connect(ctx, p, d); return err })
	return g, err
}

func (u *unreliable) renew(ctx context.Context, p *plan, r renewal) (a renewed, err error) {
	err = u.trip(ctx, func() error { a, err = u.store.renew(ctx, p, r); return err })
	return a, err
}

func (u *unreliable) charge(ctx context.Context, timelines []string, cs []charge) (a restart, err error) {
	err = u.trip(ctx, func() error { a, err = u.store.charge(ctx, timelines, cs); return err })
	return a, err
}

func (u *unreliable) settle(ctx context.Context, r report) error {
	return u.trip(ctx, func() error { return u.store.settle(ctx, r) })
}

func (u *unreliable) release(ctx context.Context, ls []string) error {
	return u.trip(ctx, func() error { return u.store.release(ctx, ls) })
}

// refusing is a store that is not there.
type refusing struct {
	*Memory
	calls atomic.Int64
}

func (r *refusing) messages(context.Context, *plan, int, []unused) (grant, error) {
	r.calls.Add(1)
	return grant{}, errNoAnswer
}

func (r *refusing) connect(context.Context, *plan, dial) (grant, error) {
	r.calls.Add(1)
	return grant{}, errNoAnswer
}

// A store that refuses at once is asked ever less often, down to every second
// or three for each kind of wait.
func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &refusing{Memory: &Memory{}}
		b, err := newBudget(s, Params{Owner: "o", Limits: Limits{Open: 1}})
		if err != nil {
			t.Fatal(err)
		}
		run(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { _ = message(ctx, b, "ad") })
			wg.Go(func() { _, _ = b.Connect(ctx, "ad") })
		}
		wg.Wait()
		if n := s.calls.Load(); n < 40 || n > 150 {
			t.Errorf("%d calls in a minute without an answer, want 40 to 150", n)
		}
	})
}

// copy is what a store has written down so far.
func (m *Memory) copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := &Memory{
		clock: m.clock, skew: m.skew, slots: maps.Clone(m.slots), counts: map[string]*count{}, firsts: maps.Clone(m.firsts),
		stop: m.stop, open: maps.Clone(m.open), ran: m.ran, since: m.since, from: m.from, told: maps.Clone(m.told), dialled: m.dialled,
		breakers: map[string]*breaker{}, refused: maps.Clone(m.refused), caps: maps.Clone(m.caps), logins: maps.Clone(m.logins),
	}
	for name, c := range m.counts {
		k.counts[name] = &count{buckets: slices.Clone(c.buckets), used: c.used}
	}
	for stream, b := range m.breakers {
		kept := *b
		kept.dials = slices.Clone(b.dials)
		k.breakers[stream] = &kept
	}
	return k
}

// restore is a restart with what was written down.
func (m *Memory) restore(k *Memory, run string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock, m.skew, m.slots, m.counts, m.firsts, m.stop, m.open = k.clock, k.skew, k.slots, k.counts, k.firsts, k.stop, k.open
	m.run, m.ran, m.since, m.from, m.told, m.dialled = run, k.ran, k.since, k.from, k.told, k.dialled
	m.breakers, m.refused, m.caps, m.logins = k.breakers, k.refused, k.caps, k.logins
}
