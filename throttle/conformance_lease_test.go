package throttle

import (
	"context"
	"errors"
	"testing"
	"time"
)

func testOpen(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 2})
	b1, _ := f.budget()
	b2, _ := f.budget()
	l1 := connect(t, b1, "ad")
	l2 := connect(t, b2, "ad")
	refused(t, b1, "ad")
	refused(t, b2, "ad")
	l1.Release()
	l1.Release() // twice is once
	l3 := connect(t, b2, "ad")
	refused(t, b1, "ad")
	l2.Release()
	l3.Release()
	eventually(t, "all are given back", func() bool {
		u, err := b1.Usage(t.Context())
		return err == nil && u.Open == 0
	})
}

func connect(t *testing.T, b *Budget, stream string) *Lease {
	t.Helper()
	l, err := b.Connect(within(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func refused(t *testing.T, b *Budget, stream string) {
	t.Helper()
	if l, err := b.Connect(shortly(t), stream); err == nil {
		l.Release()
		t.Errorf("%s got a connection", stream)
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's end", err)
	}
}

func testReservedConnections(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 4, Streams: map[string]Share{"auth": {Connections: 2}}})
	b1, _ := f.budget()
	b2, _ := f.budget()
	connect(t, b1, "ad")
	connect(t, b2, "ad")
	refused(t, b1, "ad")
	connect(t, b2, "auth")
	refused(t, b1, "ad")
	connect(t, b1, "auth")
	refused(t, b1, "auth")
}

func testNewConnections(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 9, New: []Window{{3, time.Minute}, {100, hour}}})
	b1, _ := f.budget()
	b2, _ := f.budget()
	for range 3 {
		connect(t, b1, "ad").Release() // the attempt stays counted
	}
	refused(t, b1, "ad")
	refused(t, b2, "auth")
}

func testReservedOpenings(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 9, New: []Window{{3, time.Minute}}, Streams: map[string]Share{"auth": {Connections: 1}}})
	b1, _ := f.budget()
	for range 2 {
		connect(t, b1, "ad").Release()
	}
	refused(t, b1, "ad")
	connect(t, b1, "auth")
	refused(t, b1, "auth")
}

func testRenewal(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1})
	b1, _ := f.budget()
	l := connect(t, b1, "ad")
	ends := func() time.Time {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.ends
	}
	lapse := func() time.Duration {
		u, err := b1.Usage(t.Context())
		if err != nil || len(u.Holders) != 1 {
			t.Fatalf("holders %v: %v", u.Holders, err)
		}
		return u.Holders[0].Lapse
	}
	before, left := ends(), lapse()
	eventually(t, "the loss is put off", func() bool { return ends().After(before) })
	eventually(t, "the lapse is put off", func() bool {
		now := lapse()
		put := now > left
		left = now
		return put
	})
	select {
	case <-l.Lost():
		t.Error("a renewed lease was lost")
	default:
	}
}

func testLapse(t *testing.T, b backend) {
	const lapse = 300 * time.Millisecond
	f := newFleet(t, b, Limits{Open: 1})
	dead := f.idle() // never renews
	start := time.Now()
	if g, err := dead.store.connect(t.Context(), dead.opening, dial{lease: "ad:dead:1", lapse: lapse}); err != nil || g.n != 1 {
		t.Fatal(g, err)
	}
	b1, _ := f.budget()
	connect(t, b1, "ad")
	if after := time.Since(start); after < lapse {
		t.Errorf("got the dead owner's connection after %v, before its lapse of %v", after, lapse)
	}
}

func testReleaseOwner(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 3})
	b1, _ := f.budget()
	for _, name := range []string{"ad:dead:1", "auth:dead:2", "ad:alive:1"} {
		if g, err := b1.store.connect(t.Context(), b1.opening, dial{lease: name, lapse: hour}); err != nil || g.n != 1 {
			t.Fatal(g, err)
		}
	}
	refused(t, b1, "ad")
	if n, err := b1.ReleaseOwner(t.Context(), "dead"); n != 2 || err != nil {
		t.Fatalf("released %d, %v; want 2", n, err)
	}
	connect(t, b1, "ad")
	connect(t, b1, "ad")
	refused(t, b1, "ad")
	if _, err := b1.ReleaseOwner(t.Context(), "a:b"); err == nil {
		t.Error("a name that is none was accepted")
	}
}

func testForgottenLease(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 2})
	f.timing = timing{lapse: hour, lost: hour, renew: hour} // by hand, below
	b1, _ := f.budget()
	l1, l2 := connect(t, b1, "ad"), connect(t, b1, "ad")
	// The store loses both, and another worker is quick enough for one.
	b2 := f.idle()
	if err := b2.store.release(t.Context(), []string{l1.name, l2.name}); err != nil {
		t.Fatal(err)
	}
	if g, err := b2.store.connect(t.Context(), b2.opening, dial{lease: "ad:owner2:1", lapse: hour}); err != nil || g.n != 1 {
		t.Fatal(g, err)
	}
	b1.renew(t.Context())
	select {
	case <-l1.Lost():
	case <-l2.Lost():
	case <-within(t).Done():
		t.Fatal("neither lease was lost")
	}
	if n := b1.Stats().Lost; n != 1 {
		t.Errorf("%d leases were lost, want only the one without room", n)
	}
	u, err := b1.Usage(t.Context())
	if err != nil || u.Open != 2 {
		t.Errorf("%d connections leased (%v), want 2", u.Open, err)
	}
}

func testEnd(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 2})
	b1, stop := f.budget()
	l1, l2 := connect(t, b1, "ad"), connect(t, b1, "ad")
	l1.Release()
	stop()
	<-l2.Lost()
	l2.Release()
	b2, _ := f.budget()
	connect(t, b2, "ad")
	connect(t, b2, "ad")
}
