package throttle

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newNoting(t testing.TB) *Budget {
	b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: Limits{Open: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is noted comes out of a sample, once.
func TestNotes(t *testing.T) {
	t.Parallel()
	b := newNoting(t)
	naver := Class{Group: "naver"}
	for _, e := range []Event{
		{Kind: Accepted}, {Kind: Accepted, Class: naver, Took: 100 * time.Millisecond}, {Kind: Accepted, Took: time.Hour * 1000},
		{Kind: Accepted, Took: 2 * time.Nanosecond},
		{Kind: Throttled, Class: naver}, {Kind: ThrottledGroup, Class: naver}, {Kind: ThrottledGroup},
		{Kind: Accepted, Class: Class{Group: "no:name"}},
		{Kind: Crowded}, {Kind: Greeted, Took: 3 * time.Second},
		{Kind: Ended, N: 50}, {Kind: Ended, N: 50}, {Kind: Ended, N: 7}, {Kind: Retired, N: 4}, {Kind: Retired, N: 70}, {Kind: Retired, N: 9},
	} {
		b.Note(e)
	}
	s := readSample(b.watch.notes.harvest(), 7*tick+11, 3)
	want := sample{
		at: 7 * tick, open: 3, crowded: 1, carried: 70, reply: s.reply, replies: 3, greeting: s.greeting,
		ended:    map[int]int{50: 2, 7: 1},
		messages: map[string]traffic{"": {7, 1}, "naver": {1, 1}},
	}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(sample{}, traffic{})); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if s.greeting < 2_500_000 || s.greeting > 3_500_000 {
		t.Errorf("a greeting after 3 s counts as %d µs", s.greeting)
	}
	if h := b.watch.notes.harvest(); len(h) != 0 {
		t.Errorf("%v is left", h)
	}
	for n := range 2 * mostEnds {
		b.Note(Event{Kind: Ended, N: n})
	}
	for i := range 2 * mostGroups {
		b.Note(Event{Kind: ThrottledGroup, Class: Class{Group: fmt.Sprint("g", i)}})
	}
	if n := len(b.watch.notes.harvest()); n > mostEnds+mostGroups+1 {
		t.Errorf("%d counts reported at once", n)
	}
}

// The median of times is right within an eighth.
func TestMedianOfTimes(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, around := range []float64{5, 900, 20_000, 3e6, 4e8} {
		b := newNoting(t)
		var xs []float64
		for range 1001 {
			x := math.Ceil(around * math.Exp(rnd.NormFloat64()))
			xs = append(xs, x)
			b.Note(Event{Kind: Accepted, Took: time.Duration(x) * time.Microsecond})
		}
		want := median(xs)
		got := float64(readSample(b.watch.notes.harvest(), 0, 0).reply)
		if got < want*0.87 || got > want*1.13 {
			t.Errorf("around %.0f µs: median %.0f, want %.0f", around, got, want)
		}
	}
}

// Nothing that a store may hold is taken for a count it is not.
func FuzzReadSample(f *testing.F) {
	for _, field := range []string{"p", "p:naver", "t", "c", "e:50", "e:-1", "x:9", "r:7", "g:999999", ":", "e:", "r:x", "é"} {
		f.Add(field, 3)
	}
	f.Fuzz(func(t *testing.T, field string, n int) {
		s := readSample(map[string]int{field: n}, 1, 1)
		for name, m := range s.messages {
			if m.passed < 0 || m.throttled < 0 {
				t.Errorf("%q: %+v", name, m)
			}
		}
		if s.crowded < 0 || s.carried < 0 || s.reply < 0 || s.greeting < 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A fleet that does nothing makes next to no calls.
func TestIdleFleetIsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &Memory{}
		var bs []*Budget
		for i := range 3 {
			b, err := NewMemory(m, Params{Owner: fmt.Sprint("o", i), Limits: Limits{Open: 1}})
			if err != nil {
				t.Fatal(err)
			}
			bs = append(bs, b)
			run(t, b)
		}
		bs[0].Note(Event{Kind: Accepted})
		nap(t.Context(), 10*time.Second)
		before := calls(bs)
		nap(t.Context(), 100*time.Second)
		if n := calls(bs) - before; n > 3*25 {
			t.Errorf("%d calls of 3 idle processes in 100 s", n)
		}
	})
}

// A busy process reports four times a second, and the one that leads stores what
// it learns every few seconds.
func TestBusyFleetCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newNoting(t)
		run(t, b)
		busy := func(d time.Duration) {
			for range d / (50 * time.Millisecond) {
				b.Note(Event{Kind: Accepted})
				nap(t.Context(), 50*time.Millisecond)
			}
		}
		busy(10 * time.Second)
		before := b.Stats().Calls
		busy(100 * time.Second)
		if n := b.Stats().Calls - before; n < 350 || n > 425 {
			t.Errorf("%d calls in 100 s, want 420", n)
		}
	})
}

// A leader that finds that another leads now forgets what it knew.
func TestDeposed(t *testing.T) {
	t.Parallel()
	b := newNoting(t)
	b.Note(Event{Kind: Accepted})
	if err := b.look(t.Context(), time.Now(), b.watch.notes.harvest()); err != nil || b.watch.learner == nil {
		t.Fatalf("leads %v, %v", b.watch.learner != nil, err)
	}
	m := b.store.(*Memory)
	m.mu.Lock()
	m.caps[learnedLead]++
	m.mu.Unlock()
	b.watch.kept = nil // so that there is something to store
	if err := b.conclude(t.Context(), view{now: 1, counts: map[string]int{"p": 1}}); err != nil || b.watch.learner != nil {
		t.Errorf("leads %v, %v", b.watch.learner != nil, err)
	}
}

func calls(bs []*Budget) (n uint64) {
	for _, b := range bs {
		n += b.Stats().Calls
	}
	return n
}

// Processes with leases of the real budget find a hidden limit together, although
// the one that leads dies now and then.
func TestFleetFindsALimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []*sliding{{n: 100, per: 1}, {n: 1800, per: 60}} {
		t.Run(fmt.Sprint(limit.n, " in ", limit.per), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { fleetFinds(t, limit) })
		})
	}
}

func fleetFinds(t *testing.T, limit *sliding) {
	const seconds = 300
	m := &Memory{}
	start := time.Now()
	var mu sync.Mutex
	passed, refused := make([]int, seconds+1), make([]int, seconds+1)
	relay := func() bool { // 10 ms there and back
		nap(t.Context(), 5*time.Millisecond)
		defer nap(t.Context(), 5*time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		at := time.Since(start)
		ok := limit.admit(at.Seconds())
		if ok {
			passed[min(int(at/time.Second), seconds)]++
		} else {
			refused[min(int(at/time.Second), seconds)]++
		}
		return ok
	}
	process := func(name string, until time.Time) {
		b, err := NewMemory(m, Params{Owner: name, Limits: Limits{Open: 9, Messages: []Window{{300, sec}}}})
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithDeadline(t.Context(), until)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { _ = b.Run(ctx) })
		for range 4 {
			wg.Go(func() {
				for {
					c, err := b.Message(ctx, Class{Stream: "ad"})
					if err != nil {
						return
					}
					kind := Accepted
					if !relay() {
						kind = Throttled
					}
					b.Note(Event{Class: c, Kind: kind, Took: 10 * time.Millisecond})
				}
			})
		}
		wg.Wait()
	}
	end := start.Add(seconds * time.Second)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ { // lives of 40 to 60 s
				life := time.Now().Add(time.Duration(40+10*i) * time.Second)
				if life.After(end) {
					life = end
				}
				process(fmt.Sprintf("p%d.%d", i, n), life)
			}
		})
	}
	wg.Wait()
	p, r := sum(passed[seconds-100:seconds]), sum(refused[seconds-100:seconds])
	use := float64(p) / 100 / limit.perSecond()
	t.Logf("uses %.1f %%, %d of %d refused in the last 100 s, %d of %d in all", 100*use, r, p+r, sum(refused), sum(passed)+sum(refused))
	if use < 0.9 || float64(r) >= 0.005*float64(p+r) {
		t.Errorf("uses %.3f, %d of %d refused; want 0.9, below 0.5 %%", use, r, p+r)
	}
}

func BenchmarkNote(b *testing.B) {
	budget := newNoting(b)
	classes := []Class{{}, {Group: "naver"}, {Group: "google"}, {Group: "kakao"}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			budget.Note(Event{Class: classes[i%len(classes)], Kind: Accepted, Took: 20 * time.Millisecond})
		}
	})
}
