package throttle

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// soon is how far ahead a stock looks: it leases what the last such stretch used.
const soon = 25 * time.Millisecond

// grain is how seldom what was used fades: at every message it would cost as much as
// all the rest.
const grain = soon / 50

// token is the right to begin one message between two points of our own
// monotonic clock.
type token struct {
	from, until time.Time
	granted     int64 // when, on the store's clock
}

// stock is what has been leased for one class and not begun, and who waits for
// it. Waiters are served in turn; while there is one, nothing lies in stock.
type stock struct {
	need    chan struct{} // poked when more is wanted or something lapsed
	chunk   int           // most to lease at once
	returns bool          // lapsed tokens are given back

	mu      sync.Mutex // guards what follows
	tokens  shelf
	waiters []*waiter
	missed  bool          // a try found nothing since the last lease
	heat    float64       // tokens used, each fading with soon: about the use of the last soon
	heated  time.Time     // when heat was right
	starved time.Time     // since when somebody wants more than there is; zero: nobody does
	trip    time.Duration // about how long a lease takes at most
	back    []unused
	lost    uint64    // tokens that lapsed
	dry     time.Time // until when the store has said that there is nothing
}

// waiter waits in one or more stocks, and is served by one of them.
type waiter struct {
	taken atomic.Bool
	got   chan served // capacity 1
}

// served is a token and the stock that it came from.
type served struct {
	from *stock
	token
}

// claim is true for the one who may serve the waiter, or give up for it.
func (w *waiter) claim() bool { return w.taken.CompareAndSwap(false, true) }

func newStock(chunk int, returns bool) *stock {
	return &stock{need: make(chan struct{}, 1), chunk: chunk, returns: returns}
}

// try takes a token that may be used now.
func (s *stock) try(now time.Time) (token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.tokens.n > 0 {
		t := s.tokens.head()
		if now.After(t.until) {
			s.tokens.skip()
			s.drop(t)
			continue
		}
		if t.from.After(now) {
			break
		}
		s.tokens.skip()
		s.used(now)
		return t, true
	}
	s.missed = true
	s.starve(now)
	poke(s.need)
	return token{}, false
}

// waitAny takes a token out of whichever stock has one first, perhaps one whose
// time is still to come.
func waitAny(ctx context.Context, stocks []*stock) (served, error) {
	if err := ctx.Err(); err != nil {
		return served{}, err
	}
	w := &waiter{got: make(chan served, 1)}
	for _, s := range stocks {
		s.join(w)
	}
	defer func() {
		for _, s := range stocks {
			s.leave(w)
		}
	}()
	select {
	case t := <-w.got:
		return t, nil
	case <-ctx.Done():
	}
	if !w.claim() {
		t := <-w.got // it was served in the same moment
		t.from.restore(t.token)
	}
	return served{}, ctx.Err()
}

// join serves the waiter at once, or puts it at the end of the queue.
func (s *stock) join(w *waiter) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reap(now)
	if s.tokens.n == 0 {
		s.waiters = append(s.waiters, w)
		s.starve(now)
		poke(s.need)
		return
	}
	if w.claim() { // else another stock has served it
		w.got <- served{s, s.pop(now)}
	}
}

func (s *stock) leave(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters, w); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
}

// pop takes the first token. The caller holds the lock.
func (s *stock) pop(now time.Time) token {
	t := s.tokens.pop()
	s.used(now)
	return t
}

// used notes that a token was taken, and asks for more in time.
func (s *stock) used(now time.Time) {
	s.use(now)
	// More than this is more than wants would ask at, and looking costs less than asking.
	if float64(s.tokens.n) <= s.heat && s.wants(now) > 0 {
		poke(s.need)
	}
}

func (s *stock) use(now time.Time) {
	s.cool(now)
	s.heat++
}

// starve and feed take the time without a token out of what heat fades by: how much is
// used while there is nothing says nothing of how much is wanted.
func (s *stock) starve(now time.Time) {
	if s.starved.IsZero() {
		s.cool(now)
		s.starved = now
	}
}

func (s *stock) feed(now time.Time) {
	if !s.starved.IsZero() {
		s.heated, s.starved = now, time.Time{}
	}
}

func (s *stock) cool(now time.Time) {
	if !s.starved.IsZero() {
		return
	}
	past := now.Sub(s.heated)
	if past < grain {
		return
	}
	s.heat *= math.Exp(-float64(past) / float64(soon))
	s.heated = now
}

// deliver hands tokens to the waiters, and puts the rest in stock.
func (s *stock) deliver(now time.Time, l lot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.n > 0 {
		s.feed(now)
		s.trip = max(l.after.Sub(l.before), s.trip-s.trip/16)
	}
	s.tokens.add(l)
	s.reap(now)
	for len(s.waiters) > 0 && s.tokens.n > 0 {
		w := s.waiters[0]
		s.waiters = s.waiters[1:]
		if w.claim() { // else another stock has served it
			w.got <- served{s, s.tokens.pop()}
			s.use(now)
		}
	}
}

// restore takes back a token that was not begun.
func (s *stock) restore(t token) {
	s.mu.Lock()
	s.tokens.unpop(t)
	s.mu.Unlock()
	s.deliver(time.Now(), lot{})
	poke(s.need) // what was restored has a time to lapse
}

// lapsed notes a token that was taken and not begun in time.
func (s *stock) lapsed(t token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(t)
	poke(s.need)
}

// reap drops what has lapsed. The caller holds the lock.
func (s *stock) reap(now time.Time) {
	for s.tokens.n > 0 && now.After(s.tokens.head().until) {
		s.drop(s.tokens.pop())
	}
}

func (s *stock) drop(t token) {
	s.lost++
	if !s.returns {
		return
	}
	if last := len(s.back) - 1; last >= 0 && s.back[last].at == t.granted {
		s.back[last].n++
		return
	}
	s.back = append(s.back, unused{t.granted, 1})
}

// wants is how many tokens to lease now. The caller holds the lock.
func (s *stock) wants(now time.Time) int {
	s.cool(now)
	n := len(s.waiters) - s.tokens.n
	if s.missed {
		n++
	}
	// As much as lasts a good stretch, and yet is used before it lapses. One alone is none.
	if ahead := 1.3 * (s.heat - 0.3); s.tokens.n <= int(ahead*s.low()) {
		n += int(ahead)
	}
	return min(max(n, 0), s.chunk)
}

// low is the share of what is leased ahead at which more is leased: what is left lasts
// until that is here. The lower, the fewer calls.
func (s *stock) low() float64 {
	return min(max(0.25, 4*float64(s.trip)/float64(soon)), 0.5)
}

// await returns what to lease and what to give back as soon as there is
// something of either, or false when ctx has ended.
func (s *stock) await(ctx context.Context) (n int, back []unused, ok bool) {
	for ctx.Err() == nil {
		now := time.Now()
		s.mu.Lock()
		s.reap(now)
		n, back = s.wants(now), s.back
		reap := time.Duration(-1)
		if s.tokens.n > 0 {
			reap = s.tokens.head().until.Sub(now) + time.Millisecond
		}
		if n > 0 || len(back) > 0 {
			s.missed, s.back = false, nil
			s.mu.Unlock()
			return n, back, true
		}
		s.mu.Unlock()
		if reap < 0 {
			select {
			case <-s.need:
			case <-ctx.Done():
			}
			continue
		}
		timer := time.NewTimer(reap)
		select {
		case <-s.need:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return 0, nil, false
}

// empty takes everything out of stock, to be given back.
func (s *stock) empty() []unused {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.tokens.n > 0 {
		s.drop(s.tokens.pop())
	}
	back := s.back
	s.back = nil
	return back
}

// foresee notes when the store expects to have more; the past: now.
func (s *stock) foresee(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dry = at
}

func (s *stock) dryFor(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dry.Sub(now)
}

func (s *stock) lapsedCount() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}
