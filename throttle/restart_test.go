package throttle

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/redistest"
)

// restarted is a fleet of one on a store that has lost what was granted in the
// last seconds before it restarted.
func restarted(t *testing.T, l Limits, lose time.Duration) (*Memory, *Budget) {
	m := &Memory{run: "first"}
	b, err := NewMemory(m, Params{Owner: "o", Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	run(t, b)
	connect(t, b, "ad").Release()
	nap(t.Context(), sec)
	kept := m.copy()
	for range 5 {
		connect(t, b, "ad").Release()
	}
	nap(t.Context(), lose)
	connect(t, b, "ad").Release()
	nap(t.Context(), 100*time.Millisecond)
	m.restore(kept, "second")
	return m, b
}

// A store that restarts has charged the most that it may have lost, once, and opens
// nothing until all who live could renew their leases.
func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Open: 10, New: []Window{{60, time.Minute}}}
		m, b := restarted(t, l, sec)
		back := time.Now()
		for range 3 {
			connect(t, b, "ad").Release()
			if waited := time.Since(back); waited < restartGrace || waited > restartGrace+2*longestDialGap {
				t.Errorf("the first connection after %v", waited)
			}
			if err := b.AssumeFull(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := m.counts["c:60000000"].used; n != 1+10+6+3 {
			t.Errorf("%d used, want the one that is known, ten that may be lost, six that are, and three", n)
		}
	})
}

// More than the newest seconds are missing, and who knows of it says so: the windows
// are full.
func TestRewound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Open: 10, New: []Window{{60, time.Minute}, {500, hour}}}
		m, b := restarted(t, l, lostMost+sec)
		if err := b.AssumeFull(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := m.counts["c:60000000"].used; n != 60 {
			t.Errorf("%d used of the minute, want all", n)
		}
		if n := m.counts["c:3600000000"].used; n < 7 {
			t.Errorf("%d used of the hour, want the 7 that were granted", n)
		}
		begun := time.Now()
		connect(t, b, "ad").Release()
		if waited := time.Since(begun); waited < 50*sec {
			t.Errorf("a connection after %v", waited)
		}
	})
}

// In three seconds no more connections are opened than may be open at once, or than
// the windows allow twice on average.
func TestOpeningsAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		l    Limits
		want int
	}{
		{Limits{Open: 10, New: []Window{{60, time.Minute}}}, 10},
		{Limits{Open: 10, New: []Window{{6000, time.Minute}, {100_000, hour}}}, 167},
		{Limits{Open: 1, New: []Window{{1000, day}}}, 1},
		{Limits{Open: 10}, maxN},
	} {
		if got := tt.l.burst(); got != tt.want {
			t.Errorf("%+v: got %d, want %d", tt.l, got, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: Limits{Open: 5, New: []Window{{60, time.Minute}}}})
		if err != nil {
			t.Fatal(err)
		}
		run(t, b)
		r := &record{}
		for range 30 {
			connect(t, b, "ad").Release()
			r.add(time.Now())
		}
		if n := r.worst(lostMost); n != 6 {
			t.Errorf("%d connections in %v, want 6", n, lostMost)
		}
	})
}

// A real Redis says that it is another one after a restart.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c := client(t, &redis.Options{Addr: s.Addr(), MaxRetries: -1})
	b, err := NewRedis(c, Params{Prefix: "test", Account: "acc", Owner: "o", Limits: Limits{Open: 10, New: []Window{{60, time.Minute}}}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, b)
	used := func() int {
		u, err := b.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return u.Connections[0].Used
	}
	for range 3 {
		connect(t, b, "ad").Release()
	}
	if n := used(); n != 3 {
		t.Fatalf("%d used", n)
	}
	s.Kill()
	s.Restart()
	for range 2 {
		connect(t, b, "ad").Release()
	}
	if n := used(); n < 10+2 || n > 10+3+2 { // what was written a moment before may be lost
		t.Errorf("%d used after a restart, want 3, ten that may be lost, and 2", n)
	}
}

// Somebody deletes everything, and one who knows of nothing comes first: as soon as one
// connects who does, the minute is full, and no more is opened.
func TestDeleted(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	c := s.client(t)
	f := redisFleet(t, s, Limits{Open: 10, New: []Window{{60, time.Minute}, {500, hour}}})
	b, other := f.idle(), f.idle()
	run(t, b)
	run(t, other)
	for range 3 {
		connect(t, b, "ad").Release()
	}
	if err := c.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	connect(t, other, "ad").Release()
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan error, 1)
	go func() {
		_, err := b.Connect(ctx, "ad")
		opened <- err
	}()
	eventually(t, "the minute counts as full, and the hour has what may have been opened at once", func() bool {
		u, err := b.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return u.Connections[0].Used == 60 && u.Connections[1].Used >= 10
	})
	cancel()
	if err := <-opened; err == nil {
		t.Error("a connection was opened")
	}
}

// stretch is what a restarted store has forgotten.
type stretch struct{ from, to time.Time }

// restarts lose the store's newest data, up to lostMost of it. Nothing of another
// kind is granted by the new one before the old ones' processes could speak.
func (r *rehearsal) restarts(ctx context.Context) {
	for n := 1; ctx.Err() == nil; n++ {
		nap(ctx, r.between(5*sec, 40*sec))
		kept, start := r.store.copy(), time.Now()
		nap(ctx, r.between(0, lostMost-100*time.Millisecond))
		r.down.Store(true)
		r.mu.Lock()
		r.lost = append(r.lost, stretch{start, time.Now()})
		r.mu.Unlock()
		nap(ctx, r.between(0, 12*sec))
		r.store.restore(kept, fmt.Sprint("run", n))
		r.ran.Add(1)
		r.down.Store(false)
	}
}

// reminding tells the store after each restart what it may have forgotten, as a
// worker does, some time after the first of its calls have reached it.
func (r *rehearsal) reminding(ctx context.Context, b *Budget, u *unreliable) {
	for ctx.Err() == nil {
		nap(ctx, r.between(0, 500*time.Millisecond))
		if ran := r.ran.Load(); ran != u.knows && b.AssumeFull(ctx) == nil {
			u.knows = ran
		}
	}
}

// checkCounted sees that no window is above its limit. One that is counted, not kept by
// slots, may be by what was begun in the seconds that a restarted store has lost: who
// begun it may be dead.
func (r *rehearsal) checkCounted(seen *record, what string, ws []Window) {
	lost := 0
	for _, at := range seen.at {
		for _, l := range r.lost {
			if at.After(l.from) && at.Before(l.to.Add(aheadWithin+life+minJitter)) {
				lost++
			}
		}
	}
	for _, w := range ws {
		if !bySlots(w.Per) {
			w.N += lost
		}
		seen.check(r.t, what, w)
	}
}
