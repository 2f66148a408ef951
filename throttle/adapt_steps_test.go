package throttle

import (
	"fmt"
	"testing"
)

// stepper gives a learner one tick after the other.
type stepper struct {
	l    *learner
	b    bounds
	now  int64
	caps caps
}

func newStepper() *stepper {
	return &stepper{
		l: newLearner(), now: 1_700_000_000 * second,
		b: bounds{rate: band{1, 1000}, group: func(string) float64 { return 1000 }, open: band{1, 20}},
	}
}

// steps gives n ticks alike.
func (s *stepper) steps(n int, tick sample) *stepper {
	for range n {
		s.now += second / 4
		tick.at = s.now
		s.caps = s.l.step(tick, s.b)
	}
	return s
}

func account(passed, throttled int) sample {
	return sample{messages: map[string]traffic{"": {passed, throttled}}}
}

// One dial refused is no limit, and none is for too many connections while none
// is open.
func TestCrowdedOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		ticks []sample
		want  int
	}{
		{"once", []sample{{open: 5, crowded: 1}}, 0},
		{"again after a while", []sample{{open: 5, crowded: 1}, {open: 5}, {open: 5, crowded: 1}}, 0},
		{"none is open", []sample{{crowded: 3}, {crowded: 3}}, 0},
		{"twice", []sample{{open: 5, crowded: 1}, {open: 5, crowded: 1}}, 5},
		{"more and more", []sample{{open: 5, crowded: 2}, {open: 4, crowded: 2}}, 4},
		{"although at the cap", []sample{{open: 5, crowded: 2}, {open: 6, crowded: 2}}, 4},
		{"never below the floor", []sample{{open: 1, crowded: 2}, {open: 1, crowded: 2}}, 1},
	} {
		s := newStepper()
		for _, tick := range tt.ticks {
			quiet := 0
			if tick.crowded == 0 {
				quiet = 4 * 60
			}
			s.steps(1, tick).steps(quiet, tick)
		}
		if s.caps.open != tt.want {
			t.Errorf("%s: cap %d, want %d", tt.name, s.caps.open, tt.want)
		}
	}
}

// Connections that end together, or after different numbers of messages, show no
// limit of messages on one; and those that show one do not count against the rate.
func TestEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		ends      []map[int]int // one a second
		want      int
		throttled bool
	}{
		{"one after the other", []map[int]int{{50: 1}, {50: 1}, {50: 1}, {50: 1}}, 50, false},
		{"roughly alike", []map[int]int{{1000: 1}, {1004: 1}, {1002: 1}, {1000: 1}}, 1000, false},
		{"together", []map[int]int{{50: 9}}, 0, false},
		{"too few to tell", []map[int]int{{2: 1}, {2: 1}, {2: 1}, {2: 1}, {2: 1}, {2: 1}, {2: 1}}, 0, true},
		{"all different", []map[int]int{{50: 1}, {80: 1}, {20: 1}, {90: 1}, {33: 1}, {10: 1}, {17: 1}}, 0, true},
		{"three alike", []map[int]int{{50: 1}, {50: 1}, {50: 1}}, 0, false},
	} {
		s := newStepper()
		s.steps(8, account(10, 0))
		for _, ended := range tt.ends {
			tick := account(10, 0)
			tick.ended = ended
			s.steps(1, tick).steps(3, account(10, 0))
		}
		if s.caps.perConnection != tt.want || (s.caps.rates[""] > 0) != tt.throttled {
			t.Errorf("%s: cap %d and rates %v, want %d, throttled %v", tt.name, s.caps.perConnection, s.caps.rates, tt.want, tt.throttled)
		}
	}
}

// Connections that are as old as each other end about together: that is no sign.
func TestEndsTogether(t *testing.T) {
	t.Parallel()
	s := newStepper()
	tick := account(10, 0)
	tick.ended = map[int]int{700: 2, 701: 2}
	if s.steps(4, tick); s.caps.perConnection != 0 {
		t.Errorf("cap %d after one second", s.caps.perConnection)
	}
}

// When nothing is sent, connections that end do not mean that it came too fast.
func TestEndsWhileIdle(t *testing.T) {
	t.Parallel()
	s := newStepper()
	s.steps(4, account(10, 0)).steps(4*20, account(0, 0))
	tick := account(0, 0)
	tick.ended = map[int]int{50: 1, 80: 1, 20: 1, 90: 2, 33: 3}
	if s.steps(8, tick); len(s.caps.rates) != 0 {
		t.Errorf("rates %v", s.caps.rates)
	}
}

// Slow greetings are a sign of too many connections.
func TestSlowGreetings(t *testing.T) {
	t.Parallel()
	s := newStepper()
	s.steps(40, sample{open: 5, greeting: second / 10})
	if s.steps(20, sample{open: 8, greeting: 9 * second}); s.caps.open != 0 {
		t.Errorf("cap %d after 5 s", s.caps.open)
	}
	if s.steps(100, sample{open: 8, greeting: 9 * second}); s.caps.open != 8 {
		t.Errorf("cap %d, want 8", s.caps.open)
	}
}

// A relay that has become slow for another reason than our rate is not eased for
// ever, and one that gets better is not eased again.
func TestEasingEnds(t *testing.T) {
	t.Parallel()
	eased := func(reply func(i int) int64) (n int) {
		d := delay{}
		for i := range 4 * 300 {
			if d.slow(int64(i)*tick, reply(i)) {
				n++
			}
		}
		return n
	}
	if n := eased(func(i int) int64 { return second/50 + min(int64(i)/100, 1)*5*second }); n != easeTwice {
		t.Errorf("eased %d times while it did not help, want %d", n, easeTwice)
	}
	better := func(i int) int64 { // slow at once, then a fifth less every 10 s
		if i < 100 {
			return second / 50
		}
		x := 20 * second
		for range (i - 100) / 40 {
			x = x * 4 / 5
		}
		return max(x, second/50)
	}
	if n := eased(better); n != 1 {
		t.Errorf("eased %d times while it got better, want once", n)
	}
	if n := eased(func(i int) int64 { return second / 50 * int64(1+i%3) }); n != 0 {
		t.Errorf("eased %d times for nothing", n)
	}
}

// Easing goes a little below what passes, and counts as being told off.
func TestEasing(t *testing.T) {
	t.Parallel()
	s := newStepper()
	f := s.steps(80, account(25, 0)).l.Rates[""]
	f.ease(s.now)
	if f.Mode != draining || f.Cap < 91 || f.Cap > 93 || f.Limit < 99 || f.Limit > 101 || f.Told != s.now {
		t.Errorf("%v at %v of %v, told at %d", f.Mode, f.Cap, f.Limit, f.Told)
	}
	idle := &finder{}
	if idle.ease(s.now); idle.Mode != free {
		t.Errorf("%v while nothing passes", idle.Mode)
	}
}

// At the floor a finder does not wait for ever to get below it.
func TestFloorIsLeft(t *testing.T) {
	t.Parallel()
	s := newStepper()
	s.steps(4, account(0, 0)).steps(1, account(1, 17))
	for range 5 {
		s.steps(1, account(1, 0)).steps(3, account(0, 0))
	}
	if m := s.l.Rates[""].Mode; m != settled {
		t.Errorf("%v after 5 s at the floor, want settled", m)
	}
}

// The span over which the relay counts is the shortest that is not disproved.
func TestSpanIsJudged(t *testing.T) {
	t.Parallel()
	base := func() *finder {
		f := &finder{Mode: settled, Cap: 95, Limit: 100, Span: 0}
		now := int64(1_700_000_000) * second
		for range 4 * 70 {
			now += tick
			f.Past.add(now-1, 24)
		}
		f.Last = now
		return f
	}
	counts := func(f *finder) (x sums) {
		for i, s := range spans() {
			x[i] = f.Past.last(f.Last, s)
		}
		return x
	}
	for _, tt := range []struct {
		name string
		set  func(f *finder)
		want int
	}{
		{"nothing speaks against a second", func(*finder) {}, 0},
		{"a longer one is believed in", func(f *finder) { f.Span = 2 }, 2},
		{"told off at once by a probe", func(f *finder) { f.Span, f.Mode, f.Since = 2, probing, f.Last-second }, 0},
		{"told off by a probe when it may be full", func(f *finder) { f.Span, f.Mode, f.Since = 2, probing, f.Last-30*second }, 2},
		{"a second held more without a word", func(f *finder) { f.Full[0], f.Most[0] = 96, 200 }, 1},
		{"nothing passed for 5 s", func(f *finder) { f.Last += 5 * second }, 1},
		{"nothing passed for 15 s", func(f *finder) { f.Last += 15 * second }, 2},
	} {
		f := base()
		tt.set(f)
		if f.judge(f.Last, counts(f)); f.Span != tt.want {
			t.Errorf("%s: span %d, want %d", tt.name, f.Span, tt.want)
		}
	}
}

// Groups that have nothing to do for an hour are forgotten, others are kept, and
// there are never too many.
func TestGroupsAreForgotten(t *testing.T) {
	t.Parallel()
	s := newStepper()
	many := sample{messages: map[string]traffic{}}
	for i := range 2 * mostGroups {
		many.messages[fmt.Sprint("g", i)] = traffic{passed: 1}
	}
	if s.steps(1, many); len(s.l.Rates) > mostGroups {
		t.Errorf("%d groups, want at most %d", len(s.l.Rates), mostGroups)
	}
	if s.now += groupsStay; len(s.steps(1, account(1, 0)).l.Rates) != 1 {
		t.Errorf("%d groups after an hour, want none", len(s.l.Rates)-1)
	}
	naver := sample{messages: map[string]traffic{"naver": {10, 5}}}
	s.steps(4, naver)
	s.now += groupsStay
	if s.steps(1, account(1, 0)); s.caps.rates["naver"] == 0 || s.caps.rates[""] != 0 {
		t.Errorf("rates %v, want naver's only", s.caps.rates)
	}
}
