package throttle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Lease is the right to open one connection and to have it open.
type Lease struct {
	b             *Budget
	name          string
	stream, login string
	lost          chan struct{}

	mu        sync.Mutex  // guards what follows
	over      bool        // lost or released: never renewed again
	ungreeted bool        // counted as a dial that is under way
	ends      time.Time   // when it is lost unless renewed, on our own clock
	timer     *time.Timer // loses it then
}

// dials is who waits to connect for one stream, in turn.
type dials struct {
	plan    *plan
	need    chan struct{}
	mu      sync.Mutex
	waiters []chan *Lease
}

// line returns a stream's dials, making them on first use.
func (b *Budget) line(stream string) *dials {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.lines[stream]
	if d == nil {
		d = &dials{plan: b.p.Limits.connectPlan(stream), need: make(chan struct{}, 1)}
		b.lines[stream] = d
		poke(b.added)
	}
	return d
}

// Connect waits until the stream may open one more connection, and counts the
// attempt, whatever comes of it. The dial must follow at once (look names up
// before), what comes of it be told (Greeted or Refused), and the lease released
// when the connection is closed or was not opened. The only error is that ctx
// has ended.
func (b *Budget) Connect(ctx context.Context, stream string) (*Lease, error) {
	if err := checkName("stream", stream); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait for connection budget: %w", err)
	}
	d := b.line(stream)
	w := make(chan *Lease, 1)
	d.mu.Lock()
	d.waiters = append(d.waiters, w)
	d.mu.Unlock()
	poke(d.need)
	select {
	case l := <-w:
		return l, nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	i := slices.Index(d.waiters, w)
	if i >= 0 {
		d.waiters = slices.Delete(d.waiters, i, i+1)
	}
	d.mu.Unlock()
	if i < 0 {
		(<-w).Release() // it was served in the same moment
	}
	return nil, fmt.Errorf("wait for connection budget: %w", ctx.Err())
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
	r.lease, r.stream, r.login = l.name, l.stream, l.login
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

// dialling serves those who wait to connect, one at a time.
func (b *Budget) dialling(ctx context.Context, d *dials) {
	pause := backoff{}
	for {
		for !d.waiting() {
			select {
			case <-d.need:
			case <-ctx.Done():
				return
			}
		}
		l, g, err := b.take(ctx, d.plan)
		wait := time.Duration(0)
		switch {
		case err != nil:
			wait = pause.next()
		case l == nil:
			pause.reset()
			wait = nextAsk(g, longestDialGap)
		default:
			pause.reset()
			d.serve(l)
		}
		if _, err := sleepUntil(ctx, time.Now().Add(wait)); err != nil {
			return
		}
	}
}

func (d *dials) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiters) > 0
}

// serve hands a lease to the first who waits, or back if nobody does any more.
func (d *dials) serve(l *Lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiters) == 0 {
		l.Release()
		return
	}
	d.waiters[0] <- l
	d.waiters = d.waiters[1:]
}

// newDial makes the request for one connection.
func (b *Budget) newDial(stream string) dial {
	b.mu.Lock()
	b.attempts++
	d := dial{
		lease: leaseName(stream, b.p.Owner, strconv.Itoa(b.attempts)),
		lapse: b.timing.lapse, dialing: b.timing.dial, born: b.born,
	}
	b.mu.Unlock()
	if b.p.Login != nil {
		d.login, d.most = b.p.Login(stream), mostUngreeted
	}
	return d
}

// take asks the store for one connection; nil without error is "not now".
func (b *Budget) take(ctx context.Context, p *plan) (*Lease, grant, error) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	d := b.newDial(p.stream)
	asked := time.Now()
	var g grant
	err := b.call(func() (err error) {
		g, err = b.store.connect(ctx, p, d)
		return err
	})
	if err == nil {
		b.mu.Lock()
		b.born = g.born
		b.mu.Unlock()
	}
	if g.n > 0 {
		b.remember(begun{at: asked, now: g.now, n: 1, plan: p})
		b.stats.dials.Add(1)
	}
	// An answer that was lost may have been a grant, and one that comes late was
	// counted in a window that is over when the connection would reach the relay.
	if stale := p.fresh > 0 && time.Since(asked) > p.fresh; err != nil || g.n == 1 && stale {
		b.mu.Lock()
		b.back = append(b.back, d.lease)
		b.mu.Unlock()
		return nil, g, err
	}
	if g.n == 0 {
		return nil, g, nil
	}
	l := &Lease{
		b: b, name: d.lease, stream: p.stream, login: d.login, lost: make(chan struct{}),
		ungreeted: d.most > 0, ends: asked.Add(b.timing.lost),
	}
	l.mu.Lock() // the timer may fire at once
	l.timer = time.AfterFunc(time.Until(l.ends), l.lose)
	l.mu.Unlock()
	b.mu.Lock()
	b.leases[l.name] = l
	b.mu.Unlock()
	return l, g, nil
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
