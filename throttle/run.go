package throttle

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	callFor    = 2 * time.Second        // longest call to the store
	gap        = 20 * time.Millisecond  // between two leases when there is not enough
	unknownGap = 100 * time.Millisecond // when it is not known how long there will be none
	longestGap = 200 * time.Millisecond // what others give back is seen after that
	// Attempts to connect are never given back, a breaker opens when it says.
	longestDialGap = time.Second
	firstPause     = 50 * time.Millisecond // after an error
	mostPause      = 2 * time.Second
)

// Run leases what the other methods spend and renews the leases of connections,
// until ctx ends; then it gives back what is left and returns nil. End it after
// the connections are closed: leases still held then are lost. Only one Run may
// be running.
func (b *Budget) Run(ctx context.Context) error {
	if !b.running.CompareAndSwap(false, true) {
		return errors.New("budget is running already")
	}
	defer b.running.Store(false)
	var wg sync.WaitGroup
	wg.Go(func() { b.renewals(ctx) })
	wg.Go(func() { b.observing(ctx) })
	started := map[any]bool{}
	for ctx.Err() == nil {
		b.mu.Lock()
		for _, s := range b.supplies {
			if !started[s] {
				started[s] = true
				wg.Go(func() { b.refill(ctx, s) })
			}
		}
		for _, d := range b.lines {
			if !started[d] {
				started[d] = true
				wg.Go(func() { b.dialling(ctx, d) })
			}
		}
		b.mu.Unlock()
		select {
		case <-b.added:
		case <-ctx.Done():
		}
	}
	wg.Wait()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), callFor)
	defer cancel()
	b.finish(end)
	return nil
}

// refill leases messages for one class whenever its stock wants some.
func (b *Budget) refill(ctx context.Context, s *supply) {
	pause := backoff{}
	for {
		n, back, ok := s.stock.await(ctx)
		if !ok {
			return
		}
		before := time.Now()
		g, err := b.lease(ctx, s.plan, n, back)
		next := before
		switch {
		case err != nil:
			next = time.Now().Add(pause.next())
		default:
			pause.reset()
			s.stock.foresee(dryUntil(g, time.Now()))
			s.stock.deliver(time.Now(), newLot(g, before, time.Now()))
			if g.n < n {
				// The store's clock was read after before, and will be as long after this.
				next = before.Add(nextAsk(g, longestGap))
			}
		}
		if _, err := sleepUntil(ctx, next); err != nil {
			return
		}
	}
}

// lease asks the store for messages.
func (b *Budget) lease(ctx context.Context, p *plan, n int, back []unused) (g grant, err error) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	err = b.call(func() error {
		g, err = b.store.messages(ctx, p, n, back)
		return err
	})
	if err == nil && g.n > 0 {
		b.stats.leased.Add(uint64(g.n))
		b.remember(begun{at: time.Now(), now: g.now, n: g.n, plan: p})
	}
	return g, err
}

// dryUntil is how long there will be nothing, after an answer of nothing.
func dryUntil(g grant, now time.Time) time.Time {
	if g.n > 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(g.retry) * time.Microsecond)
}

// nextAsk is how long to leave the store alone after it gave less than asked.
func nextAsk(g grant, longest time.Duration) time.Duration {
	retry := min(time.Duration(g.retry)*time.Microsecond, longest)
	switch {
	case g.n > 0:
		return max(retry, gap)
	case retry <= 0:
		return spread(unknownGap)
	}
	return max(retry, gap/2) + rand.N(gap/2) // so that the processes do not ask in step
}

// renewals renews the leases of connections and gives returned ones back.
func (b *Budget) renewals(ctx context.Context) {
	tick := time.NewTicker(b.timing.renew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.given:
			b.giveBack(ctx)
		case <-tick.C:
			b.giveBack(ctx)
			b.renew(ctx)
		}
	}
}

// finish gives everything back.
func (b *Budget) finish(ctx context.Context) {
	b.mu.Lock()
	var left []*Lease
	for _, l := range b.leases {
		left = append(left, l)
	}
	supplies := slices.Collect(maps.Values(b.supplies))
	b.mu.Unlock()
	for _, l := range left {
		l.lose()
		l.Release()
	}
	b.giveBack(ctx)
	for _, s := range supplies {
		if back := s.stock.empty(); len(back) > 0 {
			// An error leaves them counted: less to spend, never more.
			_, _ = b.lease(ctx, s.plan, 0, back)
		}
	}
}

// backoff is a growing pause.
type backoff struct{ last time.Duration }

func (p *backoff) next() time.Duration {
	p.last = min(max(2*p.last, firstPause), mostPause)
	return spread(p.last)
}

func (p *backoff) reset() { p.last = 0 }

// spread returns a time around d, between half and one and a half.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d) }
