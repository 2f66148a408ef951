package throttle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}

// found is how well a hidden rate was found.
type found struct {
	settled int     // seconds until it was, for good; -1: never
	use     float64 // part of the limit that passed, at last
	lost    float64 // part of the messages that met a throttle reply, at last
	swing   float64 // of the rate over 10 s, at last
	refused int     // from the beginning
	passed  int
}

func sum(xs []int) (n int) {
	for _, x := range xs {
		n += x
	}
	return n
}

// judge looks at the last seconds of a log, and from a second on for when the
// rate was found.
func (l simLog) judge(limit float64, from, last int) found {
	end := len(l.passed) - 1
	p, r := sum(l.passed[end-last:end]), sum(l.throttled[end-last:end])
	f := found{settled: -1, refused: sum(l.throttled), passed: sum(l.passed)}
	f.use, f.lost = float64(p)/float64(last)/limit, float64(r)/float64(p+r)
	lo, hi := math.Inf(1), 0.0
	for at := end - last; at+10 <= end; at++ {
		n := float64(sum(l.passed[at:at+10])) / 10
		lo, hi = min(lo, n), max(hi, n)
	}
	f.swing = (hi - lo) / (float64(p) / float64(last))
	for at := end - 60; at >= from; at-- {
		p, r := sum(l.passed[at:at+60]), sum(l.throttled[at:at+60])
		if float64(p) < 0.85*60*limit || r > (p+r)/50 {
			break
		}
		f.settled = at - from
	}
	return f
}

func (f found) String() string {
	return fmt.Sprintf("found after %4d s, uses %5.1f %%, %.3f %% throttled, swings %4.1f %%, in all %d of %d refused",
		f.settled, 100*f.use, 100*f.lost, 100*f.swing, f.refused, f.refused+f.passed)
}

// check holds a result to what is promised.
func (f found) check(t *testing.T, limit float64, within int) {
	t.Helper()
	grain := 2 / (10 * limit) // what one message more or less makes in 10 s
	if f.settled < 0 || f.settled > within || f.use < 0.9 || f.use > 1.001 || f.lost >= 0.005 || f.swing > 0.2+grain {
		t.Errorf("%v; want within %d s, 90 to 100 %%, below 0.5 %%, at most 20 %%", f, within)
	}
}

// A relay's hidden limit of messages is found from below and kept.
func TestRateIsFound(t *testing.T) {
	t.Parallel()
	per := func(n int, seconds float64) func() simLimit {
		return func() simLimit { return &sliding{n: n, per: seconds} }
	}
	cases := []struct {
		name     string
		limit    func() simLimit
		ceiling  float64
		conns    int
		rtt, dot float64
		within   int // seconds
	}{
		{"100/1s from 130", per(100, 1), 130, 20, 0.02, 0, 30},
		{"100/1s from 2000", per(100, 1), 2000, 50, 0.02, 0, 30},
		{"100/1s from 300, slow dots", per(100, 1), 300, 200, 0.02, 0.4, 90},
		{"200/1s from 800, far away", per(200, 1), 800, 200, 0.2, 0, 30},
		{"5/1s from 6.5", per(5, 1), 6.5, 5, 0.02, 0, 30},
		{"5/1s from 100", per(5, 1), 100, 5, 0.02, 0.1, 120},
		{"2/1s from 20", per(2, 1), 20, 20, 0.02, 0, 30},
		{"500/10s from 250", per(500, 10), 250, 20, 0.02, 0, 30},
		{"6000/60s from 130", per(6000, 60), 130, 20, 0.02, 0, 90},
		{"3000/60s from 1000", per(3000, 60), 1000, 50, 0.02, 0.1, 90},
		{"300/60s from 100", per(300, 60), 100, 20, 0.05, 0, 90},
		{"50/1s from 250, counts refused ones", func() simLimit { return &sliding{n: 50, per: 1, strict: true} }, 250, 20, 0.02, 0, 60},
		{"50/1s from 250, by the clock", func() simLimit { return &calendar{n: 50, per: 1} }, 250, 20, 0.02, 0, 60},
		{"50/s from 250, a burst of 50", func() simLimit { return &leaky{rate: 50, burst: 50} }, 250, 20, 0.02, 0, 90},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for seed := range seeds() {
				limit := tt.limit()
				s := simFleet{relay: simRelay{mails: limit}, ceiling: tt.ceiling, want: tt.conns, rtt: tt.rtt, dot: tt.dot}
				f := s.run(seed, 900).judge(limit.perSecond(), 0, 300)
				t.Logf("%-40s %v", tt.name, f)
				f.check(t, limit.perSecond(), tt.within)
			}
		})
	}
}

// Relays and ways to them at random.
func TestAnyRateIsFound(t *testing.T) {
	t.Parallel()
	for i := range 8 * seeds() {
		rnd := rand.New(rand.NewPCG(i, 3))
		between := func(a, b float64) float64 { return a * math.Pow(b/a, rnd.Float64()) }
		per := []float64{1, 60, 1, 10}[i%4]
		n := max(3, int(between(3, 100)*per))
		limit := &sliding{n: n, per: per}
		s := simFleet{
			relay:   simRelay{mails: limit, stray: []float64{0, 1e-4}[i%2]},
			ceiling: limit.perSecond() * between(1.3, 20), rtt: between(0.003, 0.3), dot: 0.3 * rnd.Float64(),
		}
		s.want = max(2, int(1.5*s.ceiling*(s.rtt+s.dot)))
		t.Run(fmt.Sprintf("%d in %v s from %.1f times, %.0f+%.0f ms", n, per, s.ceiling/limit.perSecond(), 1000*s.rtt, 1000*s.dot), func(t *testing.T) {
			t.Parallel()
			f := s.run(i, 900).judge(limit.perSecond(), 0, 300)
			t.Logf("%-40s %v", t.Name()[len("TestAnyRateIsFound/"):], f)
			f.check(t, limit.perSecond(), 300)
		})
	}
}

// A limit that changes is found again.
func TestRateChanges(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		from, to simLimit
		within   int
	}{
		{"100/1s to 50/1s", &sliding{n: 100, per: 1}, &sliding{n: 50, per: 1}, 30},
		{"100/1s to 200/1s", &sliding{n: 100, per: 1}, &sliding{n: 200, per: 1}, 360},
		{"3000/60s to 1500/60s", &sliding{n: 3000, per: 60}, &sliding{n: 1500, per: 60}, 180},
		{"3000/60s to 6000/60s", &sliding{n: 3000, per: 60}, &sliding{n: 6000, per: 60}, 480},
		{"100/1s to 3000/60s", &sliding{n: 100, per: 1}, &sliding{n: 3000, per: 60}, 300},
		{"3000/60s to 100/1s", &sliding{n: 3000, per: 60}, &sliding{n: 100, per: 1}, 720},
	}
	for seed, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := simFleet{
				relay: simRelay{mails: tt.from}, to: simRelay{mails: tt.to}, change: 600,
				ceiling: 500, want: 50, rtt: 0.02, dot: 0.05,
			}
			f := s.run(uint64(seed), 1800).judge(tt.to.perSecond(), 600, 300)
			t.Logf("%-40s %v", tt.name, f)
			f.check(t, tt.to.perSecond(), tt.within)
		})
	}
}
