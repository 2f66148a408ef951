package throttle

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Lease is the right to open one connection and to have it open.
type Lease struct {
	b             *Budget
	name          string
	stream, creds string // creds: their fingerprint
	lost          chan struct{}

	mu        sync.Mutex  // guards what follows
	over      bool        // lost or released: never renewed again
	ungreeted bool        // counted as a dial that is under way
	ends      time.Time   // when it is lost unless renewed, on our own clock
	timer     *time.Timer // loses it then
}

// Release gives the open connection back. It never blocks and may be called
// twice; the attempt stays counted.
func (l *Lease) Release() {
	l.mu.Lock()
	l.over = true
	l.timer.Stop()
	l.mu.Unlock()
	l.b.mu.Lock()
	delete(l.b.leases, l.name)
	l.b.back = append(l.b.back, l.name)
	l.b.mu.Unlock()
	poke(l.b.given)
}

// Greeted tells the fleet that the relay took the connection and the login. It
// never blocks. Of Greeted and Refused only the first call counts.
func (l *Lease) Greeted() { l.settle(report{news: newsGreeted}) }

// Refused tells the fleet that the dial brought no connection: it was refused or
// not answered, or the greeting or the login was refused. A dial that failed for
// a reason of our own is only released. It never blocks.
func (l *Lease) Refused(r Refusal) {
	n := report{news: newsRefused, why: plain(r.Why), after: r.After}
	if r.Login {
		n.news = newsLogin
	}
	l.settle(n)
}

func (l *Lease) settle(r report) {
	l.mu.Lock()
	first := l.ungreeted
	l.ungreeted = false
	l.mu.Unlock()
	if !first {
		return
	}
	r.lease, r.stream, r.creds = l.name, l.stream, l.creds
	r.first, r.most, r.jitter = l.b.timing.first, l.b.timing.most, rand.Float64()
	l.b.mu.Lock()
	l.b.reports = append(l.b.reports, r)
	l.b.mu.Unlock()
	poke(l.b.given)
}

// Lost is closed when the lease could not be renewed for 7 seconds: the
// connection must be closed and the lease released, well before it lapses in
// Redis.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

func (l *Lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over = true
		l.timer.Stop()
		l.b.stats.lost.Add(1)
		close(l.lost)
	}
}

// extend puts the loss off, counted from before the store was asked.
func (l *Lease) extend(asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.ends = asked.Add(l.b.timing.lost)
		l.timer.Reset(time.Until(l.ends))
	}
}

// renewable tells whether the lease is neither over nor about to be, and whether
// its dial is under way.
func (l *Lease) renewable(now time.Time) (ok, ungreeted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over && now.Before(l.ends), l.ungreeted
}

// renew renews every lease that is not over.
func (b *Budget) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	asked := time.Now()
	var leases []*Lease
	r := renewal{lapse: b.timing.lapse, dialing: b.timing.dial}
	b.mu.Lock()
	for name, l := range b.leases {
		if ok, ungreeted := l.renewable(asked); ok {
			leases = append(leases, l)
			r.leases, r.ungreeted = append(r.leases, name), append(r.ungreeted, ungreeted)
		}
	}
	b.mu.Unlock()
	if len(leases) == 0 {
		return
	}
	var a renewed
	err := b.call(func() (err error) {
		a, err = b.store.renew(ctx, b.opening, r)
		return err
	})
	if err != nil {
		return // the next tick tries again; each lease's own timer decides when it is lost
	}
	b.learnGroups(a.groups)
	for i, l := range leases {
		if a.held[i] {
			l.extend(asked)
		} else {
			l.lose()
		}
	}
}

// tell reports what came of dials. What an error leaves is tried again at the
// next tick, and until then the dial counts as under way.
func (b *Budget) tell(ctx context.Context) error {
	for ctx.Err() == nil {
		b.mu.Lock()
		if len(b.reports) == 0 {
			b.mu.Unlock()
			return nil
		}
		r := b.reports[0]
		b.mu.Unlock()
		if err := b.call(func() error { return b.store.settle(ctx, r) }); err != nil {
			return err
		}
		b.mu.Lock()
		b.reports = b.reports[1:] // appended to by others, taken by us alone
		b.mu.Unlock()
	}
	return ctx.Err()
}

// giveBack reports dials and releases what was given back, in this order: of a
// dial that is released nothing can be told any more. What an error leaves is
// tried again at the next tick.
func (b *Budget) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	if b.tell(ctx) != nil {
		return
	}
	b.mu.Lock()
	names := b.back
	b.back = nil
	b.mu.Unlock()
	if len(names) == 0 {
		return
	}
	if err := b.call(func() error { return b.store.release(ctx, names) }); err != nil {
		b.mu.Lock()
		b.back = append(names, b.back...)
		b.mu.Unlock()
	}
}
