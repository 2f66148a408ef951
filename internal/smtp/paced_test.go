package smtp

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// heldBack is an Admit that lets dials through one by one.
type heldBack struct{ permits chan struct{} }

func (h heldBack) admit(ctx context.Context) (Lease, error) {
	select {
	case <-h.permits:
		return freeLease{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Where Admit keeps dials apart, the pool asks it again at once after a failure and
// leaves the pause to it. A message that waited for a connection longer than its budget
// is good for goes back, and the connection gets one whose budget is fresh.
func TestPoolPaced(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	all, _ := messages(3)
	q := newRequeue(all...)
	var dials atomic.Int32
	r := newPoolRun(t, q, func(p *peer) {
		if dials.Add(1) <= 3 {
			p.say("421 4.3.2 not now\r\n")
			return
		}
		s.serve(p)
	})
	h := heldBack{make(chan struct{})}
	r.cfg.Paced, r.cfg.Admit = true, h.admit
	r.start()
	for range 3 {
		h.permits <- struct{}{}
	}
	for deadline := time.Now().Add(15 * time.Second); q.unsent.Load() < 3; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages came back from three refusals", q.unsent.Load())
		}
	}
	<-time.After(2 * fresh) // the time is what this is about: what is held by now is stale then
	h.permits <- struct{}{}
	waitAll(t, all)
	if n, stale := q.unsent.Load(), q.stale.Load(); n != 3 || stale == 0 {
		t.Errorf("%d messages came back refused and %d stale, want one a refusal and at least one stale", n, stale)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	checkPairing(t, s, len(all))
}

// What others have learned of the relay bounds a connection like the configuration.
func TestPoolLearnedByOthers(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	all, _ := messages(20)
	r := newPoolRun(t, newRequeue(all...), func(p *peer) { s.serve(p) })
	r.cfg.PerConnection.Messages, r.cfg.Learned = 10, func() int { return 4 }
	var settled atomic.Int64
	r.cfg.OnEnd = func(n int64, byRelay bool) {
		settled.Add(n)
		if byRelay || n > 4 {
			t.Errorf("a connection ended after %d messages, by the relay: %t", n, byRelay)
		}
	}
	r.start()
	waitAll(t, all)
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if n := settled.Load(); n != 20 {
		t.Errorf("told of %d messages", n)
	}
	if n := r.dials.Load(); n < 5 || n > 6 {
		t.Errorf("%d connections, want 5 of 4 messages, and perhaps one to spare", n)
	}
}
