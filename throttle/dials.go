package throttle

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// LoginRefusedError is Connect's error where the relay has refused the credentials that
// the stream uses, whichever process or stream of the login they came from.
type LoginRefusedError struct {
	Login string // fingerprint of the credentials
	Why   string // what the relay said
}

func (e *LoginRefusedError) Error() string { return "these credentials were refused: " + e.Why }

// dials is who waits to connect for one stream, in turn.
type dials struct {
	plan    *plan
	need    chan struct{}
	mu      sync.Mutex
	waiters []chan answer
}

// answer is what came of waiting: a lease, or why there will be none.
type answer struct {
	lease *Lease
	err   error
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
// when the connection is closed or was not opened. The only errors are that ctx has
// ended, and LoginRefusedError: no waiting helps then, but other credentials or Reset.
func (b *Budget) Connect(ctx context.Context, stream string) (*Lease, error) {
	if err := checkName("stream", stream); err != nil {
		return nil, err
	}
	if err := checkName("login", b.loginName(stream)); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("wait for connection budget: %w", err)
	}
	d := b.line(stream)
	w := make(chan answer, 1)
	d.mu.Lock()
	d.waiters = append(d.waiters, w)
	d.mu.Unlock()
	poke(d.need)
	select {
	case a := <-w:
		return a.lease, a.err
	case <-ctx.Done():
	}
	d.mu.Lock()
	i := slices.Index(d.waiters, w)
	if i >= 0 {
		d.waiters = slices.Delete(d.waiters, i, i+1)
	}
	d.mu.Unlock()
	if i < 0 {
		if a := <-w; a.err == nil {
			a.lease.Release() // it was served in the same moment
		}
	}
	return nil, fmt.Errorf("wait for connection budget: %w", ctx.Err())
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
		creds := b.credentials(d.plan.stream)
		l, g, err := b.take(ctx, d.plan)
		wait := time.Duration(0)
		switch {
		case err != nil:
			wait = pause.next()
		case g.refused:
			pause.reset()
			b.refuse(ctx, d, creds)
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
	d.waiters[0] <- answer{lease: l}
	d.waiters = d.waiters[1:]
}

// refuse tells all who wait that the stream's credentials were refused, with what the
// relay said, unless others have taken their place since they were asked for.
func (b *Budget) refuse(ctx context.Context, d *dials, creds string) {
	why := b.refusal(ctx, d.plan.stream, creds)
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.credentials(d.plan.stream) != creds {
		return
	}
	for _, w := range d.waiters {
		w <- answer{err: why}
	}
	d.waiters = nil
}

func (b *Budget) refusal(ctx context.Context, stream, creds string) error {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	var u usage
	err := b.call(func() (err error) {
		u, err = b.store.usage(ctx, nil)
		return err
	})
	for _, r := range u.refused {
		if err == nil && r.creds == creds && slices.Contains(u.users(r.login), stream) {
			return &LoginRefusedError{creds, r.why}
		}
	}
	return &LoginRefusedError{creds, "why is not known any more"}
}

// credentials is the fingerprint of those that the stream uses now.
func (b *Budget) credentials(stream string) string {
	if b.p.Login == nil {
		return ""
	}
	return b.p.Login(stream)
}

// loginName is the login that the stream uses.
func (b *Budget) loginName(stream string) string {
	if b.p.LoginName == nil {
		return stream
	}
	return b.p.LoginName(stream)
}

// newDial makes the request for one connection.
func (b *Budget) newDial(p *plan) dial {
	b.mu.Lock()
	b.attempts++
	d := dial{
		lease: leaseName(p.stream, b.p.Owner, strconv.Itoa(b.attempts)),
		lapse: b.timing.lapse, dialing: b.timing.dial, born: b.born,
	}
	b.mu.Unlock()
	if b.p.Login != nil {
		d.login, d.creds, d.most = b.loginName(p.stream), b.credentials(p.stream), mostUngreeted
		for _, s := range p.shares {
			if b.loginName(s.stream) == d.login {
				d.kept = append(d.kept, s)
			}
		}
	}
	return d
}

// take asks the store for one connection; nil without error is "not now".
func (b *Budget) take(ctx context.Context, p *plan) (*Lease, grant, error) {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	d := b.newDial(p)
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
		b: b, name: d.lease, stream: p.stream, creds: d.creds, lost: make(chan struct{}),
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
