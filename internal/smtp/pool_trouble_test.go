package smtp

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// requeue puts back what comes back unsent.
type requeue struct {
	*queue
	unsent atomic.Int32
	stale  atomic.Int32 // came back because no connection was open in time
}

type again struct {
	tx
	q *requeue
}

func (a again) Done(r Result) {
	if r.Kind == Unsent {
		if errors.Is(r.Err, errHeld) {
			a.q.stale.Add(1)
		} else {
			a.q.unsent.Add(1)
		}
		a.q.change(func() { a.q.waiting = append(a.q.waiting, a) })
		return
	}
	a.tx.Done(r)
}

func newRequeue(all ...*message) *requeue {
	q := &requeue{queue: newQueue()}
	for _, m := range all {
		q.waiting = append(q.waiting, again{tx{m}, q})
	}
	return q
}

// A relay that refuses connections is not dialled once a message, never twice at a time,
// and the mail waits.
func TestPoolRelayRefuses(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	var refused, now atomic.Int32
	all, _ := messages(200)
	q := newRequeue(all...)
	r := newPoolRun(t, q, func(p *peer) {
		if now.Add(1) > 1 && refused.Load() < 3 {
			t.Error("two ungreeted connections at a time")
		}
		defer now.Add(-1)
		if refused.Load() < 2 {
			refused.Add(1)
			p.say("421 4.7.0 too many connections\r\n")
			return
		}
		s.serve(p)
	})
	r.cfg.Max = 1
	var results []error
	var mu sync.Mutex
	r.cfg.OnDial = func(err error) { mu.Lock(); defer mu.Unlock(); results = append(results, err) }
	start := time.Now()
	r.start()
	waitAll(t, all)
	// Pauses of at least a tenth of 0.5 s and of 1 s lie between the three.
	if d := time.Since(start); d < 150*time.Millisecond {
		t.Errorf("three dials in %v", d)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	checkPairing(t, s, len(all))
	if r.dials.Load() != 3 || len(results) != 3 || results[0] == nil || results[2] != nil {
		t.Errorf("%d dials, results %v; want 2 refused and 1 good", r.dials.Load(), results)
	}
	if n := q.unsent.Load(); n > 4 {
		t.Errorf("%d messages came back, want one a refused dial", n)
	}
}

// A connection that dies before it was of use counts like a refused one.
func TestPoolUselessConnections(t *testing.T) {
	t.Parallel()
	all, _ := messages(50)
	q := newRequeue(all...)
	third := make(chan struct{})
	r := newPoolRun(t, q, func(p *peer) {
		p.hello(noPipes)
		if p.n == 2 {
			close(third)
		}
		_, _ = p.Read(make([]byte, 100)) // MAIL, or the end of the test
		p.say("421 4.3.2 busy\r\n")
	})
	start := time.Now()
	r.start()
	<-third
	// Pauses of at least a tenth of 0.5 s and of 1 s lie between three of them.
	if d := time.Since(start); d < 150*time.Millisecond {
		t.Errorf("three useless connections in %v", d)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if len(m.result) > 0 {
			t.Errorf("message %s was blamed: %+v", m.name, m.result)
		}
	}
}

// A relay that closes connections which were only kept open is not dialled for that any
// more for a while, but for a message it is. After a failure that a message saw, all wait.
func TestPoolPauseOfIdleConnections(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ idle, holding, dials bool }{
		"idle":                 {true, false, false},
		"idle and a message":   {true, true, true},
		"failed and a message": {false, true, false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan struct{}, 1)
		p, err := NewPool(PoolConfig{Max: 4, Warm: 2, Source: newQueue(),
			Dial: func(context.Context) (*Conn, error) { return nil, errors.New("no") },
			Admit: func(ctx context.Context) (Lease, error) {
				asked <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}})
		if err != nil {
			t.Fatal(err)
		}
		m := &manager{Pool: p, ctx: ctx, drain: cancel, open: map[*session]bool{}, want: 2, over: make(chan struct{}), events: make(chan func())}
		m.pace.failed(time.Now().Add(time.Hour), tc.idle)
		if tc.holding {
			m.feed.held = tx{newMessage(1)}
		}
		m.balance()
		if m.dials != tc.dials {
			t.Errorf("%s: dials %t, want %t", name, m.dials, tc.dials)
		}
		if m.dials {
			<-asked
		}
		cancel()
		close(m.over)
		m.wg.Wait()
	}
}

// A refused login ends Run at once, after one attempt, with what was under way finished.
func TestPoolLogin(t *testing.T) {
	t.Parallel()
	s := slowDots(time.Millisecond)
	all, _ := messages(3000)
	r := newPoolRun(t, newQueue(all...), s.serve)
	host, port := listen(t, func(p *peer) {
		p.hello(authEHLO)
		p.expect(authPlain)
		p.say("535 5.7.8 no\r\n")
		p.quiet()
	})
	good := r.cfg.Dial
	r.cfg.Max = 3
	r.cfg.Dial = func(ctx context.Context) (*Conn, error) {
		if r.dials.Load() == 0 {
			return good(ctx)
		}
		r.dials.Add(1)
		cfg := plainConfig(host, port)
		cfg.User, cfg.Password = "AppKey#ad", "SecretKey"
		return Dial(ctx, cfg)
	}
	err := r.start().end()
	if !errors.Is(err, ErrLogin) {
		t.Fatalf("Run: %v, want ErrLogin", err)
	}
	if r.dials.Load() != 2 {
		t.Errorf("%d dials, want a good and a refused one", r.dials.Load())
	}
	sent := 0
	for _, m := range all {
		if len(m.result) > 0 {
			sent++
			m.want(t, Accepted, StageEOD, 250)
		}
	}
	checkPairing(t, s, sent)
}

// fakeLease is a Lease that can be lost.
type fakeLease struct {
	lost     chan struct{}
	released atomic.Int32
}

func (l *fakeLease) Release()              { l.released.Add(1) }
func (l *fakeLease) Lost() <-chan struct{} { return l.lost }

// A lost lease drains its connection, every lease is released once, and no connection is
// open without one.
func TestPoolLeases(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	var mu sync.Mutex
	var leases []*fakeLease
	permit := make(chan struct{}, 1)
	permit <- struct{}{}
	first, rest := newMessage(1), newMessage(2)
	q := newQueue(first)
	r := newPoolRun(t, q, s.serve)
	r.cfg.Warm, r.cfg.Max = 1, 2
	r.cfg.Admit = func(ctx context.Context) (Lease, error) {
		select {
		case <-permit:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		leases = append(leases, &fakeLease{lost: make(chan struct{})})
		return leases[len(leases)-1], nil
	}
	r.start()
	<-first.ended
	mu.Lock()
	close(leases[0].lost)
	mu.Unlock()
	r.waitOpen(0)
	q.add(rest)
	if r.dials.Load() != 1 {
		t.Errorf("%d dials with one permission", r.dials.Load())
	}
	permit <- struct{}{}
	<-rest.ended
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	checkPairing(t, s, 2)
	for i, l := range leases {
		if n := l.released.Load(); n != 1 {
			t.Errorf("lease %d released %d times", i, n)
		}
	}
	if len(leases) != 2 {
		t.Errorf("%d leases, want 2", len(leases))
	}
}

// The end of ctx drains: open dots are waited for, the rest is left in the Source.
func TestPoolDrains(t *testing.T) {
	t.Parallel()
	release, waiting := make(chan struct{}), make(chan struct{}, 10)
	s := &sink{ehlo: nhnEHLO, reply: func(stage Stage, _ string) string {
		if stage == StageEOD {
			waiting <- struct{}{}
			<-release
		}
		return ""
	}}
	all, _ := messages(5)
	r := newPoolRun(t, newQueue(all...), s.serve).start()
	<-waiting
	r.stop()
	close(release)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
	all[1].want(t, Accepted, StageEOD, 250) // its envelope was out
	checkPairing(t, s, 2)
}

// The end of force closes everything at once; what had its dot out is unknown.
func TestPoolForce(t *testing.T) {
	t.Parallel()
	release, waiting := make(chan struct{}), make(chan struct{}, 10)
	defer close(release)
	s := &sink{ehlo: nhnEHLO, reply: func(stage Stage, _ string) string {
		if stage == StageEOD {
			waiting <- struct{}{}
			<-release
		}
		return ""
	}}
	all, _ := messages(5)
	r := newPoolRun(t, newQueue(all...), s.serve).start()
	<-waiting
	r.stop()
	r.force()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Unknown, StageEOD, 0)
	if k := all[1].result[0].Kind; k != Unsent {
		t.Errorf("second: %v", k)
	}
}

// A drain ends a dial that hangs, and what waited for it goes back.
func TestPoolDrainsWhileDialling(t *testing.T) {
	t.Parallel()
	accepted := make(chan struct{})
	m := newMessage(1)
	r := newPoolRun(t, newQueue(m), func(p *peer) { close(accepted); p.quiet() }).start()
	<-accepted
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if len(m.result) != 1 || m.result[0].Kind != Unsent {
		t.Errorf("the message ended as %+v", m.result)
	}
}
