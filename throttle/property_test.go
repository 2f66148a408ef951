package throttle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	err = u.trip(ctx, func() error { g, err = u.store.messages(ctx, p, n, back); return err })
	return g, err
}

func (u *unreliable) connect(ctx context.Context, p *plan, lease string, lapse time.Duration) (g grant, err error) {
	err = u.trip(ctx, func() error { g, err = u.store.connect(ctx, p, lease, lapse); return err })
	return g, err
}

func (u *unreliable) renew(ctx context.Context, p *plan, ls []string, lapse time.Duration) (held []bool, err error) {
	err = u.trip(ctx, func() error { held, err = u.store.renew(ctx, p, ls, lapse); return err })
	return held, err
}

func (u *unreliable) release(ctx context.Context, ls []string) error {
	return u.trip(ctx, func() error { return u.store.release(ctx, ls) })
}

// rehearsal is a fleet in virtual time, and what its relay sees.
type rehearsal struct {
	t      *testing.T
	limits Limits
	store  *Memory
	down   atomic.Bool

	mu       sync.Mutex // guards what follows
	rand     *rand.Rand
	owners   int
	messages map[string]*record
	dials    record
	open     int
	worst    int
}

func (r *rehearsal) rng(n int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rand.Int64N(max(n, 1))
}

func (r *rehearsal) between(a, b time.Duration) time.Duration {
	return a + time.Duration(r.rng(int64(b-a)))
}

// worker lives for a while, drains with some goroutines, and dies one way or
// the other; whoever replaces it begins at once.
func (r *rehearsal) worker(ctx context.Context) {
	for ctx.Err() == nil {
		r.mu.Lock()
		r.owners++
		owner := fmt.Sprintf("w%d", r.owners)
		r.mu.Unlock()
		u := &unreliable{store: r.store, rng: r.rng, down: &r.down, slow: r.between(0, 4*time.Millisecond)}
		b, err := newBudget(u, Params{Owner: owner, Limits: r.limits})
		if err != nil {
			r.t.Error(err)
			return
		}
		life, cancel := context.WithTimeout(ctx, r.between(sec, 20*sec))
		var run, work sync.WaitGroup
		runs, end := context.WithCancel(context.WithoutCancel(ctx))
		run.Go(func() { _ = b.Run(runs) })
		for i := range 5 {
			work.Go(func() { r.connection(life, b, []string{"auth", "normal", "ad", "ad", "ad"}[i], &u.killed) })
		}
		<-life.Done()
		if r.rng(3) > 0 {
			u.killed.Store(true) // else it stops in order
		}
		work.Wait()
		end()
		run.Wait()
		cancel()
	}
}

// connection opens, sends, pauses and closes, again and again.
func (r *rehearsal) connection(ctx context.Context, b *Budget, stream string, killed *atomic.Bool) {
	for {
		l, err := b.Connect(ctx, stream)
		if err != nil {
			return
		}
		r.dials.add(time.Now().Add(r.between(0, minJitter)))
		r.count(1)
		r.session(ctx, b, stream, l)
		r.count(-1)
		if !killed.Load() {
			l.Release()
		}
	}
}

func (r *rehearsal) count(d int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += d
	r.worst = max(r.worst, r.open)
}

func (r *rehearsal) session(ctx context.Context, b *Budget, stream string, l *Lease) {
	life, cancel := context.WithTimeout(ctx, r.between(0, 30*sec))
	defer cancel()
	for {
		select {
		case <-l.Lost():
			nap(ctx, r.between(0, 2*sec)) // closing may take a moment, if the process lives
			return
		default:
		}
		if !b.TryMessage(stream) {
			short, cancel := context.WithTimeout(life, sec) // looks at Lost in between
			err := b.Message(short, stream)
			cancel()
			if life.Err() != nil && err != nil {
				return
			}
			if err != nil {
				continue
			}
		}
		r.messages[stream].add(time.Now().Add(r.between(0, minJitter)))
		nap(life, r.between(0, 20*time.Millisecond))
		if r.rng(200) == 0 {
			nap(life, r.between(0, 3*sec)) // a slow answer
		}
	}
}

// outages take the store away from everyone now and then.
func (r *rehearsal) outages(ctx context.Context) {
	for ctx.Err() == nil {
		nap(ctx, r.between(5*sec, 40*sec))
		r.down.Store(true)
		nap(ctx, r.between(0, 12*sec))
		r.down.Store(false)
	}
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

func (r *refusing) connect(context.Context, *plan, string, time.Duration) (grant, error) {
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
			wg.Go(func() { _ = b.Message(ctx, "ad") })
			wg.Go(func() { _, _ = b.Connect(ctx, "ad") })
		}
		wg.Wait()
		if n := s.calls.Load(); n < 40 || n > 150 {
			t.Errorf("%d calls in a minute without an answer, want 40 to 150", n)
		}
	})
}

// TestNoWindowAboveTheLimit runs fleets whose workers are killed and replaced,
// whose store is slow and goes away, and looks at every window as the relay saw
// it, up to the jitter of the way later than each message was begun.
func TestNoWindowAboveTheLimit(t *testing.T) {
	t.Parallel()
	seeds := uint64(12)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { rehearse(t, seed) })
		})
	}
}

func rehearse(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	n := 20 + rng.IntN(100)
	r := &rehearsal{t: t, store: &Memory{}, rand: rng, limits: Limits{
		Open:     6 + rng.IntN(10),
		New:      []Window{{4 + rng.IntN(4), 2 * sec}, {30 + rng.IntN(30), time.Minute}},
		Messages: []Window{{n, sec}, {8 * n, 10 * sec}, {70 * n, 2 * time.Minute}},
		Streams: map[string]Share{
			"auth":   {Reserve: []Window{{4, sec}, {200, 2 * time.Minute}}, Connections: 2},
			"normal": {Reserve: []Window{{2, sec}, {100, 2 * time.Minute}}, Connections: 1},
		},
	}}
	r.messages = map[string]*record{"auth": {}, "normal": {}, "ad": {}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 1 + rng.IntN(6) {
		wg.Go(func() { r.worker(ctx) })
	}
	if seed%2 == 0 {
		wg.Go(func() { r.outages(ctx) })
	}
	wg.Wait()

	all := &record{}
	for _, one := range r.messages {
		all.at = append(all.at, one.at...)
	}
	all.check(t, "messages", r.limits.Messages...)
	r.dials.check(t, "connections", r.limits.New...)
	if r.worst > r.limits.Open {
		t.Errorf("%d connections open, limit %d", r.worst, r.limits.Open)
	}
	if all.len() == 0 || r.dials.len() == 0 {
		t.Error("nothing was sent")
	}
	t.Logf("%d messages of at most %d; worst windows %d/%d, %d/%d, %d/%d; %d dials; %d of %d open", all.len(),
		70*n*5/2, all.worst(sec), n, all.worst(10*sec), 8*n, all.worst(2*time.Minute), 70*n, r.dials.len(), r.worst, r.limits.Open)
}
