package throttle

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// virtual is a fleet on one Memory in virtual time, whose calls take as long as
// those to a Redis nearby.
type virtual struct {
	t      *testing.T
	limits Limits
	store  *Memory
	takes  time.Duration // a call, both ways together
	made   int
}

// nearby is a store that takes its time.
type nearby struct {
	store
	takes time.Duration
}

func (n *nearby) messages(ctx context.Context, p *plan, want int, back []unused) (grant, error) {
	nap(ctx, n.takes/2)
	g, err := n.store.messages(ctx, p, want, back)
	nap(ctx, n.takes/2)
	return g, err
}

func (v *virtual) budget() *Budget {
	v.made++
	b, err := newBudget(&nearby{v.store, v.takes}, Params{Owner: fmt.Sprint("o", v.made), Limits: v.limits})
	if err != nil {
		v.t.Fatal(err)
	}
	run(v.t, b)
	return b
}

// fleet returns n running budgets.
func (v *virtual) fleet(n int) []*Budget {
	var bs []*Budget
	for range n {
		bs = append(bs, v.budget())
	}
	return bs
}

// during counts what was begun from a time on, for so long.
func (r *record) during(from time.Time, d time.Duration) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.at {
		if !at.Before(from) && at.Before(from.Add(d)) {
			n++
		}
	}
	return n
}

// A fleet that always has mail gets at least 99 % of N in each window and slack,
// however many it is made of and however the windows are combined.
func TestDrainIsEfficient(t *testing.T) {
	t.Parallel()
	narrow := Limits{Open: 1, Messages: []Window{{200, sec}, {1_000_000, day}},
		Streams: map[string]Share{"ad": {Messages: []Window{{120, sec}}}},
		Groups:  map[string][]Window{"naver": {{30, sec}}}}
	cases := []struct {
		name   string
		limits Limits
		class  Class
		binds  Window
	}{
		{"second", Limits{Open: 1, Messages: []Window{{200, sec}}}, Class{Stream: "ad"}, Window{200, sec}},
		{"fast", Limits{Open: 1, Messages: []Window{{5000, sec}}}, Class{Stream: "ad"}, Window{5000, sec}},
		{"ten seconds", Limits{Open: 1, Messages: []Window{{200, sec}, {1500, 10 * sec}}}, Class{Stream: "ad"}, Window{1500, 10 * sec}},
		{"minute", Limits{Open: 1, Messages: []Window{{200, sec}, {600, time.Minute}}}, Class{Stream: "ad"}, Window{600, time.Minute}},
		{"stream", narrow, Class{Stream: "ad"}, Window{120, sec}},
		{"group", narrow, Class{Stream: "normal", Group: "naver"}, Window{30, sec}},
		{"stream and group", narrow, Class{Stream: "ad", Group: "naver"}, Window{30, sec}},
	}
	for _, tt := range cases {
		for _, processes := range []int{1, 4, 10} {
			t.Run(fmt.Sprintf("%s, %d", tt.name, processes), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					v := &virtual{t: t, limits: tt.limits, store: &Memory{}, takes: 2 * time.Millisecond}
					bs := v.fleet(processes)
					windows := max(2, min(int(20*sec/tt.binds.Per), 10_000/tt.binds.N))
					whole := tt.binds.Per + slack(tt.binds.Per)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(windows)*whole+sec)
					defer cancel()
					start := time.Now().Add(sec)
					r := drainClass(ctx, bs, tt.class, 8)
					r.check(t, "messages", tt.binds)
					got, want := r.during(start, time.Duration(windows)*whole), windows*tt.binds.N
					if float64(got) < 0.99*float64(want) {
						t.Errorf("began %d of %d: %.2f %%", got, want, 100*float64(got)/float64(want))
					}
					var calls uint64
					for _, b := range bs {
						calls += b.Stats().Calls
					}
					t.Logf("%.2f %% of N a window and slack; %.3f calls a message", 100*float64(got)/float64(want), float64(calls)/float64(r.len()))
				})
			})
		}
	}
}

// drainClass begins messages from several goroutines of every budget until ctx
// ends.
func drainClass(ctx context.Context, bs []*Budget, c Class, each int) *record {
	r := &record{}
	var wg sync.WaitGroup
	for _, b := range bs {
		for range each {
			wg.Go(func() { r.drain(ctx, b, c) })
		}
	}
	wg.Wait()
	return r
}

func (r *record) drain(ctx context.Context, b *Budget, c Class) {
	for ctx.Err() == nil {
		if !b.TryMessage(c) {
			if _, err := b.Message(ctx, c); err != nil {
				return
			}
		}
		r.add(time.Now())
	}
}

// While ads drain at the limit, codes begin to come, as many as their reserve:
// each begins within 100 ms, from then on ads have no more than what is left, and
// no less; when the codes end, ads have everything again.
func TestReserveIsBack(t *testing.T) {
	t.Parallel()
	long := Limits{Open: 10, Messages: []Window{{200, sec}, {24_000, 2 * time.Minute}}, Streams: map[string]Share{
		"auth": {Reserve: []Window{{20, sec}, {1200, 2 * time.Minute}}},
	}}
	for name, limits := range map[string]Limits{"shipped": shipped(), "two minutes": long} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { reserveIsBack(t, limits) })
		})
	}
}

func reserveIsBack(t *testing.T, limits Limits) {
	const whole = 1100 * time.Millisecond
	v := &virtual{t: t, limits: limits, store: &Memory{}, takes: 2 * time.Millisecond}
	bs := v.fleet(4)
	ctx, cancel := context.WithTimeout(t.Context(), 15*sec)
	defer cancel()
	ads := &record{}
	var wg sync.WaitGroup
	for _, b := range bs {
		for range 4 {
			wg.Go(func() { ads.drain(ctx, b, Class{Stream: "ad"}) })
		}
	}
	nap(ctx, 3*sec)
	wanted := time.Now()
	for i := range 110 {
		wg.Go(func() {
			nap(ctx, time.Duration(i)*50*time.Millisecond)
			asked := time.Now()
			if err := message(ctx, bs[i%len(bs)], "auth"); err != nil {
				t.Error(err)
			}
			if took := time.Since(asked); took > 100*time.Millisecond {
				t.Errorf("code %d waited %v", i, took)
			}
		})
	}
	wg.Wait()
	for at := wanted.Add(100 * time.Millisecond); at.Before(wanted.Add(4 * sec)); at = at.Add(10 * time.Millisecond) {
		if n := ads.during(at, whole); n < 176 || n > 180 {
			t.Fatalf("%d ads in %v from %v after codes came, want up to 180 of 200", n, whole, at.Sub(wanted))
		}
	}
	if n := ads.during(wanted.Add(6500*time.Millisecond), 4*whole); n < 796 {
		t.Errorf("%d of 800 ads a second after the codes ended", n)
	}
}

// A burst of codes takes all there is, beyond the reserve too: from 100 ms after
// its start no ad begins until it is over.
func TestBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &virtual{t: t, limits: shipped(), store: &Memory{}, takes: 2 * time.Millisecond}
		bs := v.fleet(4)
		ctx, cancel := context.WithTimeout(t.Context(), 20*sec)
		defer cancel()
		ads := &record{}
		var wg, burst sync.WaitGroup
		for _, b := range bs {
			for range 4 {
				wg.Go(func() { ads.drain(ctx, b, Class{Stream: "ad"}) })
			}
		}
		nap(ctx, 3*sec)
		start := time.Now()
		var left atomic.Int32
		for range 32 { // of one process, which asks only every 20 ms
			burst.Go(func() {
				for left.Add(1) <= 1000 {
					if err := message(ctx, bs[0], "auth"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		burst.Wait()
		took := time.Since(start)
		nap(ctx, 2*sec)
		cancel()
		wg.Wait()
		from := start.Add(100 * time.Millisecond)
		if n := ads.during(from, took-100*time.Millisecond); n > 0 {
			t.Errorf("%d ads began during the burst", n)
		}
		// 1,000 slots of 5.5 ms, after those that ads had taken ahead.
		if took > 5525*time.Millisecond {
			t.Errorf("the burst took %v", took)
		}
		if n := ads.during(start.Add(took+100*time.Millisecond), 1100*time.Millisecond); n < 198 {
			t.Errorf("%d of 200 ads after the burst", n)
		}
	})
}
