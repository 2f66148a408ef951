package throttle

import (
	"slices"
	"testing"
)

// last returns the most and least of the last n.
func last(xs []int, n int) (lo, hi int) {
	xs = xs[len(xs)-1-n : len(xs)-1]
	return slices.Min(xs), slices.Max(xs)
}

// The relay's limit of open connections is found, and so is another one.
func TestOpenIsFound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ limit, to, want int }{
		{5, 10, 7}, {5, 3, 20}, {20, 40, 50}, {1, 2, 10}, {30, 15, 40}, {10, 10, 200},
	} {
		s := simFleet{
			relay: simRelay{open: tt.limit}, to: simRelay{open: tt.to}, change: 900,
			ceiling: 20, want: tt.want, rtt: 0.05, dot: 0.1,
		}
		// Connections have to end now and then for a lower limit to matter.
		s.closeAfter = 60
		log := s.run(uint64(tt.limit), 2700)
		for _, part := range []struct {
			end, limit int
		}{{900, tt.limit}, {2700, min(tt.to, tt.want)}} {
			open := log.open[part.end-300 : part.end]
			refused := sum(log.refusedDials[part.end-300 : part.end])
			mean := float64(sum(open)) / float64(len(open))
			t.Logf("%d then %d, wants %d: until %d s on average %.1f open, %d dials refused in 5 minutes, %d in all",
				tt.limit, tt.to, tt.want, part.end, mean, refused, sum(log.refusedDials))
			if mean < 0.9*float64(part.limit) || mean > float64(part.limit) || refused > 6 {
				t.Errorf("limit %d: %.1f open, %d refused; want 90 to 100 %%, at most 6", part.limit, mean, refused)
			}
		}
	}
}

// The relay's limit of messages on one connection is found, and so is another
// one, and the rate does not suffer from it.
func TestPerConnectionIsFound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ limit, to int }{{50, 50}, {10, 20}, {100, 50}, {3, 3}, {500, 500}} {
		s := simFleet{
			relay: simRelay{perConnection: tt.limit}, to: simRelay{perConnection: tt.to}, change: 900,
			ceiling: 50, want: 10, rtt: 0.02, dot: 0.05,
		}
		log := s.run(uint64(tt.limit), 1800)
		lo, hi := last(log.perConnection, 300)
		refused := sum(log.throttled[len(log.throttled)-301:])
		passed := sum(log.passed[len(log.passed)-301:])
		t.Logf("%d then %d: %d to %d a connection at last, %d of %d refused in 5 minutes, %d in all", tt.limit, tt.to, lo, hi, refused, passed, sum(log.throttled))
		if lo > tt.to || float64(lo) < 0.9*float64(tt.to) || hi > tt.to+tt.to/4+1 || float64(refused) > 0.005*float64(passed) {
			t.Errorf("limit %d: %d to %d a connection, %d of %d refused", tt.to, lo, hi, refused, passed)
		}
		if passed < 299*45 {
			t.Errorf("limit %d: only %d passed in 5 minutes", tt.to, passed)
		}
	}
}

// A relay may have all three limits at once. While that of one connection's messages
// is not known yet its ends look like refusals, which costs rate for a while.
func TestAllLimitsAreFound(t *testing.T) {
	t.Parallel()
	for seed := range 3 * seeds() {
		s := simFleet{
			relay:   simRelay{mails: &sliding{n: 50, per: 1}, open: 3, perConnection: 40},
			ceiling: 500, want: 9, rtt: 0.005, dot: 0.005,
		}
		log := s.run(seed, 900)
		f := log.judge(50, 0, 300)
		lo, hi := last(log.perConnection, 300)
		_, most := last(log.open, 300)
		t.Logf("%v; %d to %d messages a connection, up to %d open", f, lo, hi, most)
		f.check(t, 50, 240)
		if lo < 36 || hi > 51 || most != 3 {
			t.Errorf("%d to %d messages a connection, up to %d open; want about 40, and 3", lo, hi, most)
		}
	}
}

// A relay that ends the connection when messages come too fast has a limit of
// messages a second, and none of messages on a connection.
func TestEndsWhenTooFast(t *testing.T) {
	t.Parallel()
	s := simFleet{
		relay:   simRelay{mails: &sliding{n: 50, per: 1}, closes: true},
		ceiling: 300, want: 20, rtt: 0.02, dot: 0.05,
	}
	log := s.run(1, 900)
	f := log.judge(50, 0, 300)
	t.Log(f)
	f.check(t, 50, 120)
	if _, hi := last(log.perConnection, 300); hi != 0 {
		t.Errorf("a cap of %d messages a connection", hi)
	}
}

// A relay that never refuses is never slowed down, and one that does at random is
// not for long.
func TestNothingToFind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		stray, uses float64
	}{{"none", 0, 0.999}, {"0.01 %", 1e-4, 0.995}, {"0.5 %", 5e-3, 0.98}} {
		s := simFleet{relay: simRelay{stray: tt.stray}, ceiling: 200, want: 50, rtt: 0.02, dot: 0.1}
		log := s.run(1, 1800)
		f := log.judge(200, 0, 1790)
		t.Logf("%s refused: %v", tt.name, f)
		if f.use < tt.uses {
			t.Errorf("%s refused: uses %.3f, want %.3f", tt.name, f.use, tt.uses)
		}
		if tt.stray <= 1e-4 {
			for at := 5; at+10 < len(log.passed); at++ {
				if n := sum(log.passed[at : at+10]); n < 1800 {
					t.Fatalf("%s refused: %d messages in 10 s from %d s on, want 2000", tt.name, n, at)
				}
			}
		}
	}
}

// A relay that cannot do more takes longer and longer to answer. Going a little
// slower loses nothing and gives its time back.
func TestSlowReplies(t *testing.T) {
	t.Parallel()
	s := simFleet{
		relay: simRelay{capacity: 50}, ceiling: 200, want: 150, rtt: 0.02, dot: 0.05,
		demand: func(at float64) float64 {
			if at < 60 {
				return 20
			}
			return 200
		},
	}
	log := s.run(1, 900)
	f := log.judge(50, 60, 300)
	t.Log(f, "last reply", log.reply)
	for at := 60; at+10 < len(log.passed); at++ {
		if n := sum(log.passed[at : at+10]); n < 350 {
			t.Fatalf("%d messages in 10 s from %d s on, of 500", n, at)
		}
	}
	if f.use < 0.85 || log.reply > 0.5 {
		t.Errorf("uses %.3f with replies after %.2f s; want 0.85 and less than 0.5 s", f.use, log.reply)
	}
}
