package throttle

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// takes is how many seconds a relay takes to answer.
type takes func(at float64, open int, rnd *rand.Rand) float64

func always(seconds float64) takes {
	return func(float64, int, *rand.Rand) float64 { return seconds }
}

// noisy is around so many seconds, one in six being sigma times e as long or more.
func noisy(seconds, sigma float64) takes {
	return func(_ float64, _ int, rnd *rand.Rand) float64 { return seconds * math.Exp(sigma*rnd.NormFloat64()) }
}

// between is one while it lasts, and the other before and after.
func between(from, to float64, during, otherwise takes) takes {
	return func(at float64, open int, rnd *rand.Rand) float64 {
		if at >= from && at < to {
			return during(at, open, rnd)
		}
		return otherwise(at, open, rnd)
	}
}

// fromTo is a demand that is another from some time on.
func fromTo(before, at, after float64) func(float64) float64 {
	return func(now float64) float64 {
		if now < at {
			return before
		}
		return after
	}
}

// harmless is a relay and what is asked of it.
type harmless struct {
	name    string
	takes   takes
	ceiling float64
	conns   int
	demand  func(at float64) float64
	uses    float64 // of what passes without looking at replies
	lost    float64 // at most, of any minute: seconds of what passes in the best one
}

func harmlessRelays() []harmless {
	fast := always(0.02)
	turns := func(at float64, open int, rnd *rand.Rand) float64 { // two minutes each
		if int(at/120)%2 == 0 {
			return fast(at, open, rnd)
		}
		return noisy(2, 0.5)(at, open, rnd)
	}
	mixed := func(at float64, _ int, rnd *rand.Rand) float64 {
		if rnd.IntN(3) == 0 {
			return 2.5
		}
		return 0.05
	}
	crowded := func(_ float64, open int, _ *rand.Rand) float64 { return 0.02 * float64(open) }
	// At two a second one message or two begin in this time.
	once := between(600, 600.5, always(300), fast)
	return []harmless{
		{"always 2 s", always(2), 100, 250, nil, 0.999, 0.5},
		{"noisy", noisy(0.3, 1), 100, 100, nil, 0.999, 0.5},
		{"noisy, seldom", noisy(0.3, 1), 2, 5, nil, 0.999, 0.5},
		{"very noisy", noisy(0.3, 1.5), 100, 200, nil, 0.99, 5},
		{"very noisy, seldom", noisy(0.3, 1.5), 2, 10, nil, 0.99, 5},
		{"large mails among others", mixed, 20, 30, nil, 0.999, 0.5},
		{"large mails by turns", turns, 100, 20, nil, 0.97, 10},
		{"large mails by turns, not many", turns, 5, 20, nil, 0.97, 15},
		{"one reply after 5 minutes", once, 2, 5, nil, 0.999, 1},
		{"slow for 12 s", between(600, 612, always(3), fast), 80, 6, nil, 0.99, 10},
		{"slow for 20 s", between(600, 620, always(3), fast), 80, 6, nil, 0.99, 10},
		{"slow for 25 s", between(600, 625, always(3), fast), 80, 6, nil, 0.99, 10},
		{"slow for 30 s", between(600, 630, always(3), fast), 80, 6, nil, 0.99, 10},
		{"slow for 10 minutes", between(600, 1200, always(3), fast), 80, 6, nil, 0.99, 10},
		{"slow for a minute with little to send", between(600, 660, always(3), fast), 80, 60, fromTo(5, 640, 80), 0.99, 10},
		{"slow while there is next to nothing to send", between(0, 1200, always(3), fast), 80, 60, fromTo(1.0/60, 1200, 80), 0.999, 1},
		{"the more connections, the slower", crowded, 100, 40, nil, 0.95, 5},
	}
}

// A relay that is well is not slowed down for how long its replies take, however
// these differ; and one that was not is soon given as much again as before.
func TestReplyTimesDoNoHarm(t *testing.T) {
	t.Parallel()
	for _, tt := range harmlessRelays() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for seed := range seeds() {
				tt.check(t, seed)
			}
		})
	}
}

func (h harmless) check(t *testing.T, seed uint64) {
	const seconds = 2400
	passes := func(untimed bool) []int {
		s := simFleet{relay: simRelay{takes: h.takes}, ceiling: h.ceiling, want: h.conns, rtt: 0.01, demand: h.demand, untimed: untimed}
		return s.run(seed, seconds).passed
	}
	without, with := passes(true), passes(false)
	uses := float64(sum(with)) / float64(sum(without))
	best, worst, when := 0, 0, 0
	for at := 10; at+60 < seconds; at++ {
		n := sum(without[at : at+60])
		best = max(best, n)
		if less := n - sum(with[at:at+60]); less > worst {
			worst, when = less, at
		}
	}
	lost := 60 * float64(worst) / float64(best)
	t.Logf("%-45s %.1f %% of what passes otherwise, %.1f s are lost in the minute from %d s", h.name, 100*uses, lost, when)
	if uses < h.uses || lost > h.lost {
		t.Errorf("passes %.3f, and %.1f s are lost in a minute; want %.3f and %.1f s", uses, lost, h.uses, h.lost)
	}
}

// Replies that take longer and longer, noted as a worker notes them, sink the rate. It
// is let go again when that does not help, and forgotten when replies are as before.
func TestGrowingRepliesSinkTheRate(t *testing.T) {
	t.Parallel()
	b := newNoting(t)
	l, now := newLearner(), int64(1_700_000_000)*second
	bounds := newBounds(Params{Limits: Limits{Open: 10, Messages: []Window{{110, sec}}}})
	told := func(seconds int, took time.Duration) (lo, hi float64) { // the least and most cap
		lo = math.Inf(1)
		for range 4 * seconds {
			for range 10 {
				b.Note(Event{Kind: Accepted, Took: took})
			}
			now += tick
			c := l.step(readSample(b.watch.notes.harvest(), now, 6), bounds).rates[""]
			lo, hi = min(lo, c), max(hi, c)
		}
		return lo, hi
	}
	if _, hi := told(60, 20*time.Millisecond); hi != 0 {
		t.Errorf("a cap of %.1f while all is well", hi)
	}
	if _, hi := told(10, 3*time.Second); hi != 0 {
		t.Errorf("a cap of %.1f at once", hi)
	}
	if _, hi := told(10, 3*time.Second); hi < 35 || hi > 38 {
		t.Errorf("a cap of %.1f where 40 pass, want 8 %% less", hi)
	}
	told(20, 3*time.Second)
	if lo, _ := told(60, 3*time.Second); lo < 40 {
		t.Errorf("a cap of %.1f, less than passes, although that does not help", lo)
	}
	told(10, 20*time.Millisecond)
	if _, hi := told(60, 20*time.Millisecond); hi != 0 {
		t.Errorf("a cap of %.1f when all is well again", hi)
	}
}

// What a delay makes of replies, in the order in which it says it.
func TestTrends(t *testing.T) {
	t.Parallel()
	type part struct {
		seconds int
		each    int                     // replies a tick
		takes   func(i float64) float64 // seconds, by seconds since the part began
	}
	usual := part{60, 10, func(float64) float64 { return 0.02 }}
	slow := func(seconds, each int) part {
		return part{seconds, each, func(float64) float64 { return 3 }}
	}
	for _, tt := range []struct {
		name  string
		parts []part
		want  []trend
	}{
		{"not for long", []part{usual, slow(10, 10), usual}, nil},
		{"for a while", []part{usual, slow(17, 10), usual}, []trend{slower, over}},
		{"for longer", []part{usual, slow(27, 10), usual}, []trend{slower, slower, over}},
		{"for ever", []part{usual, slow(600, 10)}, []trend{slower, slower, vain}},
		{"until it is known that easing is vain", []part{usual, slow(100, 10), usual}, []trend{slower, slower, vain, over}},
		{"then slower still", []part{usual, slow(100, 10), {100, 10, func(float64) float64 { return 20 }}, usual},
			[]trend{slower, slower, vain, slower, slower, vain, over}},
		{"draining", []part{usual, slow(14, 10), {60, 10, func(i float64) float64 { return max(3-0.08*i, 0.02) }}, usual},
			[]trend{slower, helped}},
		{"nothing is sent any more", []part{usual, slow(17, 10), {3600, 0, nil}, slow(1, 1)}, []trend{slower, over}},
		{"the end of what was found vain", []part{usual, slow(100, 10), {3600, 0, nil}, slow(1, 1)}, []trend{slower, slower, vain, over}},
		{"two in an hour", []part{usual, {3600, 0, nil}, slow(1, 1), {60, 0, nil}, slow(1, 1)}, nil},
	} {
		d, now := delay{}, int64(1_700_000_000)*second
		var got []trend
		for _, p := range tt.parts {
			for i := range 4 * p.seconds {
				now += tick
				if p.each == 0 {
					continue
				}
				if what := d.see(now, int64(1e6*p.takes(float64(i)/4)), p.each); what != steady {
					got = append(got, what)
				}
				if !d.sound() {
					t.Fatalf("%s: %+v", tt.name, d)
				}
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A finder that was eased for nothing goes back to where it was; one that was refused
// meanwhile, or that it helped, does not.
func TestEasingIsTakenBack(t *testing.T) {
	t.Parallel()
	known := finder{Mode: settled, Cap: 95, Limit: 100, Held: 100, Wait: firstWait}
	probe := known
	probe.Mode, probe.Cap = probing, 106
	for _, tt := range []struct {
		name  string
		from  finder
		news  []trend
		mode  mode
		least float64 // of the cap
		most  float64
	}{
		{"nothing was known", finder{}, []trend{slower, over}, free, 0, 0},
		{"twice, for nothing", finder{}, []trend{slower, slower, over}, free, 0, 0},
		{"settled", known, []trend{slower, over}, settled, 95, 95},
		{"at a probe", probe, []trend{slower, over}, settled, 95, 95},
		{"it helped", known, []trend{slower, helped, over}, draining, 36, 37},
		{"it is vain", known, []trend{slower, slower, vain}, climbing, 33, 34},
		{"all is well", known, []trend{over, helped, vain}, settled, 95, 95},
	} {
		f, now := tt.from, int64(1_700_000_000)*second
		f.Last = now
		for range 4 * 20 { // 40 pass in a second
			now += tick
			f.note(now, traffic{passed: 10})
		}
		for _, n := range tt.news {
			f.mind(now, n)
		}
		if f.Mode != tt.mode || f.Cap < tt.least || f.Cap > tt.most || !f.sound() {
			t.Errorf("%s: %v at %.2f, want %v at %.0f to %.0f", tt.name, f.Mode, f.Cap, tt.mode, tt.least, tt.most)
		}
	}
	s := newStepper()
	f := s.steps(80, account(10, 0)).l.Rates[""]
	f.mind(s.now, slower)
	s.steps(3, account(5, 5))
	if f.mind(s.now, over); f.Mode == free || f.Cap > 37 {
		t.Errorf("%v at %.2f, although the relay refuses", f.Mode, f.Cap)
	}
}
