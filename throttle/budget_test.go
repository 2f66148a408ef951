package throttle

import (
	"context"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// generous is a store that has forgotten every limit.
type generous struct {
	*Memory
	mu    sync.Mutex
	calls int
	takes time.Duration // how long a call takes
}

func (g *generous) messages(ctx context.Context, p *plan, n int, _ []unused) (grant, error) {
	g.mu.Lock()
	g.calls++
	g.mu.Unlock()
	nap(ctx, g.takes)
	return grant{n: n, every: int64(1000 * p.every()), now: time.Now().UnixMicro()}, nil
}

func (g *generous) connect(ctx context.Context, p *plan, d dial) (grant, error) {
	gr, err := g.Memory.connect(ctx, p, d)
	nap(ctx, g.takes)
	return gr, err
}

func onGenerous(t *testing.T, g *generous, l Limits) *Budget {
	b, err := newBudget(g, Params{Owner: "o", Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	run(t, b)
	return b
}

// A process alone keeps to the limit even if the store grants everything.
func TestCeiling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ws := []Window{{100, sec}, {700, 10 * sec}}
		b := onGenerous(t, &generous{Memory: &Memory{}}, Limits{Open: 1, Messages: ws})
		ctx, cancel := context.WithTimeout(t.Context(), 5*sec)
		defer cancel()
		r := drain(ctx, t, []*Budget{b}, "ad", 4)
		r.check(t, "messages", ws...)
		if r.len() < 300 || b.Stats().Capped == 0 {
			t.Errorf("began %d, %d capped", r.len(), b.Stats().Capped)
		}
	})
}

// TryMessage spends what is leased, and calls nobody.
func TestTryMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &generous{Memory: &Memory{}}
		b, err := newBudget(g, Params{Owner: "o", Limits: Limits{Open: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if b.TryMessage(Class{Stream: "ad"}) || g.calls != 0 {
			t.Fatalf("granted without Run, after %d calls", g.calls)
		}
		run(t, b)
		synctest.Wait() // one is leased for the one that asked
		if !b.TryMessage(Class{Stream: "ad"}) {
			t.Error("refused what was leased")
		}
		b.TryMessage(Class{Stream: "ad"})
		synctest.Wait()
		nap(t.Context(), life+time.Millisecond)
		if b.TryMessage(Class{Stream: "ad"}) {
			t.Error("a token was good for longer than its life")
		}
	})
}

// A grant that took longer than a token lives is worth nothing.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &generous{Memory: &Memory{}, takes: life + time.Millisecond}
		b := onGenerous(t, g, Limits{Open: 3, New: []Window{{100, sec}}})
		ctx, cancel := context.WithTimeout(t.Context(), sec)
		defer cancel()
		if message(ctx, b, "ad") == nil {
			t.Error("a message was begun on a stale grant")
		}
		// A connection may be a little older: it is not kept in stock.
		l, err := b.Connect(t.Context(), "ad")
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
		g.takes = slack(sec) - jitter(sec) + time.Millisecond
		late, cancel := context.WithTimeout(t.Context(), sec)
		defer cancel()
		if l, err := b.Connect(late, "ad"); err == nil {
			t.Error("a connection was opened on a stale grant")
			l.Release()
		}
		nap(t.Context(), sec)
		if u, err := b.Usage(t.Context()); err != nil || u.Open != 0 {
			t.Errorf("%d connections leased (%v), want those refused here given back", u.Open, err)
		}
	})
}

// The store's clock was read at some moment of the call: tokens are neither
// usable before the earliest nor after the latest that this allows.
func TestTokens(t *testing.T) {
	t.Parallel()
	before := epoch()
	after := before.Add(10 * time.Millisecond)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	var s shelf
	s.add(newLot(grant{n: 3, delay: -5000, every: 10_000_000, now: 7}, before, after))
	s.unpop(s.pop())
	for i, want := range []time.Duration{0, ms(5), ms(15)} { // a slot that is past begins now
		got := s.pop()
		if !got.from.Equal(after.Add(want)) || !got.until.Equal(before.Add(want+life)) || got.granted != 7 || s.n != 2-i {
			t.Errorf("token %d: from %v until %v, want %v and %v; granted %d, %d left", i,
				got.from.Sub(after), got.until.Sub(before), want, want+life, got.granted, s.n)
		}
	}
}

// A token that lapsed while its owner was asleep begins nothing, and is given
// back.
func TestOverslept(t *testing.T) {
	t.Parallel()
	b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: Limits{Open: 1, Messages: []Window{{10, hour}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := b.supply(Class{Stream: "ad"}).stock
	now := time.Now()
	if !b.begin(s, token{until: now}, now) {
		t.Error("refused at the last moment")
	}
	if b.begin(s, token{until: now, granted: 7}, now.Add(1)) {
		t.Error("begun after the last moment")
	}
	if back := s.empty(); len(back) != 1 || back[0] != (unused{7, 1}) {
		t.Errorf("given back %v, want the one that lapsed", back)
	}
}

// sameMoment is a context that ends while something else happens.
type sameMoment struct {
	context.Context
	happens func()
	ended   bool
}

func (c *sameMoment) Done() <-chan struct{} {
	c.happens()
	c.ended = true
	done := make(chan struct{})
	close(done)
	return done
}

func (c *sameMoment) Err() error {
	if c.ended {
		return context.Canceled
	}
	return nil
}

// Who is served in the moment of giving up either has it or has given it back.
func TestServedWhileGivingUp(t *testing.T) {
	t.Parallel()
	b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: Limits{Open: 1}})
	if err != nil {
		t.Fatal(err)
	}
	s, line := b.supply(Class{Stream: "ad"}), b.line("ad")
	var taken, given, opened, released int
	for range 64 {
		ctx := &sameMoment{Context: t.Context(), happens: func() {
			s.stock.deliver(time.Now(), only(token{from: time.Now(), until: time.Now().Add(hour)}))
		}}
		if message(ctx, b, "ad") == nil {
			taken++
		}
		for b.TryMessage(Class{Stream: "ad"}) {
			given++
		}
		l := &Lease{b: b, name: "ad:o:1", timer: time.NewTimer(hour)}
		ctx = &sameMoment{Context: t.Context(), happens: func() { line.serve(l) }}
		if _, err := b.Connect(ctx, "ad"); err == nil {
			opened++
			l.Release()
		}
		released += len(b.back)
		b.back = nil
	}
	if taken+given != 64 {
		t.Errorf("%d taken and %d given back of 64 messages", taken, given)
	}
	if released != 64 || opened == 0 || opened == 64 {
		t.Errorf("%d opened and %d given back of 64 connections", opened, released)
	}
}

// Waiters are served in turn, and one that gave up does not hold a token back.
func TestMessagesInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStock(10, true)
		served := make(chan int, 5)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			go func() {
				c := t.Context()
				if i == 1 {
					c = ctx
				}
				if _, err := waitAny(c, []*stock{s}); err == nil {
					served <- i
				}
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		for _, want := range []int{0, 2, 3, 4} {
			s.deliver(time.Now(), only(token{from: time.Now(), until: time.Now().Add(life)}))
			if got := <-served; got != want {
				t.Errorf("served %d, want %d", got, want)
			}
		}
		if _, ok := s.try(time.Now()); ok {
			t.Error("a token too many")
		}
	})
}

// Only one Run at a time, and after its end another may follow.
func TestRunTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: Limits{Open: 1}})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, b)
		synctest.Wait()
		if err := b.Run(t.Context()); err == nil {
			t.Error("a second Run was accepted")
		}
		stop()
		run(t, b)
		connect(t, b, "ad")
	})
}

// unanswered is a store whose renewals do not return before the end.
type unanswered struct {
	*Memory
	end chan struct{}
}

func (u *unanswered) renew(context.Context, *plan, renewal) (renewed, error) {
	<-u.end
	return renewed{}, errNoAnswer
}

// A lease is lost on time although no renewal returns.
func TestLostWithoutTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &unanswered{Memory: &Memory{}, end: make(chan struct{})}
		b, err := newBudget(h, Params{Owner: "o", Limits: Limits{Open: 1}})
		if err != nil {
			t.Fatal(err)
		}
		run(t, b)
		defer close(h.end)
		l := connect(t, b, "ad")
		got := time.Now()
		<-l.Lost()
		if after := time.Since(got); after > b.timing.lost || b.timing.lost+3*sec > b.timing.lapse {
			t.Errorf("lost after %v, lapse after %v", after, b.timing.lapse)
		}
		// Whoever does not close it is frozen, and keeps it for a minute.
		for _, at := range []struct {
			age  time.Duration
			open int
		}{{59 * sec, 1}, {61 * sec, 0}} {
			nap(t.Context(), time.Until(got.Add(at.age)))
			if u, err := h.usage(t.Context(), nil); err != nil || len(u.leases) != at.open {
				t.Errorf("%d leases after %v (%v), want %d", len(u.leases), at.age, err, at.open)
			}
		}
		l.Release()
	})
}

// The longer a lease takes, the earlier the next one is asked for.
func TestLowStock(t *testing.T) {
	t.Parallel()
	for trip, want := range map[time.Duration]float64{0: 0.25, time.Millisecond: 0.25, 2 * time.Millisecond: 0.32, 40 * time.Millisecond: 0.5} {
		s := newStock(100, false)
		now := time.Now()
		l := only(token{from: now, until: now.Add(time.Hour)})
		l.before, l.after = now.Add(-trip), now
		s.deliver(now, l)
		if got := s.low(); math.Abs(got-want) > 1e-9 {
			t.Errorf("after a lease of %v: more is leased at %v of what was leased ahead, want %v", trip, got, want)
		}
	}
}

// BenchmarkTry takes tokens as a connection at full speed does.
func BenchmarkTry(b *testing.B) {
	s := newStock(1<<20, false)
	now := time.Now()
	for b.Loop() {
		if s.tokens.n == 0 {
			l := only(token{from: now, until: now.Add(time.Hour)})
			l.n = 1000
			s.deliver(now, l)
		}
		if _, ok := s.try(now); !ok {
			b.Fatal("nothing in stock")
		}
	}
}
