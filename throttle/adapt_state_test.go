package throttle

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A learner that is stored and read again at every tick does the same as one that
// is not: nothing is lost by a restart, and nothing depends on chance.
func TestLearnerSurvives(t *testing.T) {
	t.Parallel()
	simulate := func(restarts bool) simLog {
		s := simFleet{
			relay: simRelay{mails: &sliding{n: 1200, per: 60}, open: 5, perConnection: 40}, restarts: restarts,
			ceiling: 100, want: 10, rtt: 0.02, dot: 0.05,
		}
		return s.run(1, 600)
	}
	if diff := cmp.Diff(simulate(false), simulate(true), cmp.AllowUnexported(simLog{})); diff != "" {
		t.Errorf("without restarts (-), with them (+):\n%s", diff)
	}
}

// Whatever the relay does, no cap is beyond what is configured or below the floor,
// and the state can be stored and read again.
func TestCapsStayWithinBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b := bounds{
			rate:          band{rapid.Float64Range(0.001, 10).Draw(rt, "floor"), rapid.Float64Range(10, 5000).Draw(rt, "ceiling")},
			open:          band{float64(rapid.IntRange(1, 5).Draw(rt, "open floor")), float64(rapid.IntRange(5, 50).Draw(rt, "open"))},
			perConnection: rapid.SampledFrom([]int{0, 100}).Draw(rt, "per connection"),
		}
		group := rapid.Float64Range(10, 5000).Draw(rt, "group")
		b.group = func(string) float64 { return group }
		l := newLearner()
		now := int64(1_700_000_000) * second
		for range rapid.IntRange(1, 300).Draw(rt, "ticks") {
			now += rapid.SampledFrom([]int64{1, tick, tick, tick, tick + 7, 10 * second, 7200 * second}).Draw(rt, "later")
			s := drawSample(rt, now)
			c := l.step(s, b)
			for name, rate := range c.rates {
				ceiling := b.rate.ceiling
				if name != "" {
					ceiling = group
				}
				if !(rate >= b.rate.floor && rate < ceiling) {
					rt.Fatalf("rate %q: %v beyond %v to %v", name, rate, b.rate.floor, ceiling)
				}
			}
			if c.open != 0 && (float64(c.open) < b.open.floor || float64(c.open) >= b.open.ceiling) {
				rt.Fatalf("open: %d beyond %v", c.open, b.open)
			}
			if c.perConnection < 0 || b.perConnection > 0 && c.perConnection >= b.perConnection {
				rt.Fatalf("per connection: %d beyond %d", c.perConnection, b.perConnection)
			}
			text, err := l.save()
			if err != nil {
				rt.Fatal(err)
			}
			if _, err := readLearner(text); err != nil {
				rt.Fatalf("%v: %s", err, text)
			}
		}
	})
}

func drawSample(rt *rapid.T, now int64) sample {
	few := rapid.SampledFrom([]int{0, 0, 0, 1, 2, 5, 100, 2000})
	s := sample{
		at: now, messages: map[string]traffic{}, ended: map[int]int{},
		reply:    int64(rapid.SampledFrom([]int{0, 1, 20_000, 3_000_000, 90_000_000}).Draw(rt, "reply")),
		greeting: int64(rapid.SampledFrom([]int{0, 50_000, 40_000_000}).Draw(rt, "greeting")),
		crowded:  rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(rt, "crowded"),
		replies:  few.Draw(rt, "replies"),
		open:     rapid.IntRange(0, 60).Draw(rt, "open"),
		carried:  few.Draw(rt, "carried"),
	}
	for _, name := range []string{"", "naver"} {
		s.messages[name] = traffic{few.Draw(rt, "passed"), few.Draw(rt, "throttled")}
	}
	if n := few.Draw(rt, "ended"); n > 0 {
		s.ended[few.Draw(rt, "after")] = n
	}
	return s
}

// A state that somebody else has written, or half of one, stops nothing.
func FuzzReadLearner(f *testing.F) {
	s := simFleet{relay: simRelay{mails: &sliding{n: 20, per: 1}, open: 3, perConnection: 20}, ceiling: 100, want: 5, rtt: 0.02}
	s.run(1, 60)
	text, err := s.learner.save()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, text := range []string{
		"", "{}", "null", `{"version":2}`, `{"version":1,"rates":null}`, `{"version":1,"rates":{"":null}}`,
		`{"version":1,"rates":{"":{"span":9}}}`, `{"version":1,"rates":{"":{"mode":2,"cap":-1}}}`, `{"version":1,"rates":{"":{"mode":77,"cap":1}}}`,
		`{"version":1,"open":{"mode":2,"cap":-3}}`, `{"version":1,"per_connection":{"ended":[{},{},{},{},{},{}]}}`,
		`{"version":1,"rates":{"":{"before":{"mode":5}}}}`, `{"version":1,"rates":{"":{"before":{"mode":2,"cap":0}}}}`,
		`{"version":1,"rates":{"":{"past":{"ticks":{"newest":-5,"n":[1]}}}}}`, `{"version":1,"delay":{"usual":-1}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := readLearner(text)
		if err != nil {
			return
		}
		l.report()
		b := bounds{rate: band{1, 100}, open: band{1, 9}, group: func(string) float64 { return 50 }}
		now := int64(1_700_000_000) * second
		for i := range 20 {
			now += tick
			c := l.step(sample{at: now, messages: map[string]traffic{"": {10, i % 3}}, ended: map[int]int{5: i % 2}, crowded: i % 2, open: 3}, b)
			for name, rate := range c.rates {
				if !(rate >= 1 && rate < 100) {
					t.Fatalf("rate %q: %v", name, rate)
				}
			}
			if c.open < 0 || c.open >= 9 || c.perConnection < 0 {
				t.Fatalf("caps %+v", c)
			}
		}
	})
}

func TestReadLearnerErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{":                                    "unexpected end",
		`{"version":2}`:                        "version 2, want 1",
		`{"version":1,"rates":{"g":null}}`:     `rate "g"`,
		`{"version":1,"rates":{"":{"cap":5}}}`: `rate ""`,
		`{"version":1,"open":{"cap":-1}}`:      "connections",
	} {
		if _, err := readLearner([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestAdaptiveValidate(t *testing.T) {
	t.Parallel()
	for _, good := range []Adaptive{{}, {Off: true}, {Rate: 0.001, Open: 1, PerConnection: 1}, {Rate: 50, Open: 9, PerConnection: 500}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, tt := range []struct {
		bad  Adaptive
		want string
	}{
		{Adaptive{Rate: -1}, "adaptive.floor: -1"},
		{Adaptive{Rate: math.NaN()}, "adaptive.floor: NaN"},
		{Adaptive{Open: -1}, "open connections: -1"},
		{Adaptive{PerConnection: -5}, "limits.per_connection.messages: -5"},
	} {
		_, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: Limits{Open: 1}, Adaptive: tt.bad})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.bad, err, tt.want)
		}
	}
}

// What the limits of the configuration leave to be learned.
func TestBounds(t *testing.T) {
	t.Parallel()
	b := newBounds(Params{
		Limits: Limits{
			Open: 7, Messages: []Window{{110, sec}, {500_000, day}},
			Groups: map[string][]Window{"naver": {{11, sec}}},
		},
		Adaptive: Adaptive{Rate: 2, PerConnection: 500},
	})
	got := fmt.Sprintf("%.1f %.1f %.1f %v %d", b.rate, b.group("naver"), b.group("other"), b.open, b.perConnection)
	if want := "{2.0 100.0} 10.0 100.0 {1 7} 500"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if c := newBounds(Params{Limits: Limits{Open: 1, Messages: []Window{{5, day}}}}).rate; c != (band{1, 0}) {
		t.Errorf("got %v without a short window, want no ceiling", c)
	}
}

// Nobody learns who is not to, and what was learned stays for the others.
func TestAdaptiveOff(t *testing.T) {
	t.Parallel()
	m := &Memory{}
	if v, err := m.observe(t.Context(), "o", time.Hour, nil); err != nil {
		t.Fatal(err)
	} else if ok, err := m.adopt(t.Context(), v.epoch, []byte("{}"), map[string]float64{learnedRate: 5000}); err != nil || !ok {
		t.Fatal(ok, err)
	}
	b, err := NewMemory(m, Params{Owner: "off", Limits: Limits{Open: 1}, Adaptive: Adaptive{Off: true}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.observing(ctx)
	if n := b.Stats().Calls; n != 0 {
		t.Errorf("%d calls", n)
	}
	if m.caps[learnedRate] != 5000 {
		t.Errorf("limits %v", m.caps)
	}
}
