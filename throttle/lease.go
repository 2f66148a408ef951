package throttle

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Lease is the right to have one connection open.
type Lease struct {
	b    *Budget
	name string
	lost chan struct{}

	mu    sync.Mutex  // guards what follows
	over  bool        // lost or released: never renewed again
	ends  time.Time   // when it is lost unless renewed, on our own clock
	timer *time.Timer // loses it then
}

// dials is who waits to connect, in turn.
type dials struct {
	need    chan struct{}
	mu      sync.Mutex
	waiters []chan *Lease
}

func newDials() *dials { return &dials{need: make(chan struct{}, 1)} }

// Connect waits until the stream may open one more connection, and counts the
// attempt, whatever comes of it. The dial must follow at once (look names up
// before), and the lease must be released when the connection is closed or was
// not opened. The only error is that ctx has ended.
func (b *Budget) Connect(ctx context.Context, stream string) (*Lease, error) {
	if err := checkName("stream", stream); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait for connection budget: %w", err)
	}
	d := b.stream(stream).dials
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

// Lost is closed when the lease could not be renewed in time, 3 seconds before
// it lapses in Redis: the connection must be closed, and the lease released, by
// then.
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

// renewable tells whether the lease is neither over nor about to be.
func (l *Lease) renewable(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over && now.Before(l.ends)
}

// dialling serves those who wait to connect, one at a time.
func (b *Budget) dialling(ctx context.Context, s *stream) {
	pause := backoff{}
	for {
		for !s.dials.waiting() {
			select {
			case <-s.dials.need:
			case <-ctx.Done():
				return
			}
		}
		l, g, err := b.take(ctx, s.connects)
		wait := time.Duration(0)
		switch {
		case err != nil:
			wait = pause.next()
		case l == nil:
			pause.reset()
			wait = nextAsk(g)
		default:
			pause.reset()
			s.dials.serve(l)
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

// take asks the store for one connection; nil without error is "not now".
func (b *Budget) take(ctx context.Context, p *plan) (*Lease, grant, error) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	b.mu.Lock()
	b.attempts++
	name := leaseName(p.stream, b.p.Owner, strconv.Itoa(b.attempts))
	b.mu.Unlock()
	asked := time.Now()
	var g grant
	err := b.call(func() (err error) {
		g, err = b.store.connect(ctx, p, name, b.timing.lapse)
		return err
	})
	if g.n > 0 {
		b.remember(begun{at: asked, n: 1, dial: true})
		b.stats.dials.Add(1)
	}
	// An answer that was lost may have been a grant, and one that comes late was
	// counted in a window that is over when the connection would reach the relay.
	if stale := p.fresh > 0 && time.Since(asked) > p.fresh; err != nil || g.n == 1 && stale {
		b.mu.Lock()
		b.back = append(b.back, name)
		b.mu.Unlock()
		return nil, g, err
	}
	if g.n == 0 {
		return nil, g, nil
	}
	l := &Lease{b: b, name: name, lost: make(chan struct{}), ends: asked.Add(b.timing.lost)}
	l.mu.Lock() // the timer may fire at once
	l.timer = time.AfterFunc(time.Until(l.ends), l.lose)
	l.mu.Unlock()
	b.mu.Lock()
	b.leases[name] = l
	b.mu.Unlock()
	return l, g, nil
}

// renew renews every lease that is not over.
func (b *Budget) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	asked := time.Now()
	var leases []*Lease
	var names []string
	b.mu.Lock()
	for name, l := range b.leases {
		if l.renewable(asked) {
			leases, names = append(leases, l), append(names, name)
		}
	}
	b.mu.Unlock()
	if len(names) == 0 {
		return
	}
	var held []bool
	err := b.call(func() (err error) {
		held, err = b.store.renew(ctx, b.opening, names, b.timing.lapse)
		return err
	})
	if err != nil {
		return // the next tick tries again; each lease's own timer decides when it is lost
	}
	for i, l := range leases {
		if held[i] {
			l.extend(asked)
		} else {
			l.lose()
		}
	}
}

// giveBack releases what was given back. What an error leaves is tried again at
// the next tick.
func (b *Budget) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
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
