package throttle

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func forecast(t *testing.T, in ForecastInput) Outlook {
	t.Helper()
	o, err := Forecast(in)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// capped are the shipped limits with a share for ad.
func capped(s Share) Limits {
	l := shipped()
	l.Streams["ad"] = s
	return l
}

// near fails unless got is within 1 % of want.
func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if d := math.Abs(float64(got - want)); d > 0.01*float64(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestForecast(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in            ForecastInput
		alone, shared time.Duration
		binds         string
		connections   int
		openings      int
	}{
		"messages a second": {
			in:    ForecastInput{Recipients: 181_818, Stream: "ad", Limits: shipped()},
			alone: 1000 * sec, binds: "limits.messages 200/1s", connections: 1, openings: 1,
			// 20 a second less, for the 1000 s that the day's reserve of 20,000 lasts.
			shared: 1110 * sec,
		},
		"own reserve": {
			in:    ForecastInput{Recipients: 18_182, Stream: "auth", Limits: shipped()},
			alone: 100 * sec, shared: 100 * sec, binds: "limits.messages 200/1s", connections: 2, openings: 2,
		},
		"connections": {
			in:    ForecastInput{Recipients: 80_000, Stream: "ad", Limits: shipped(), RoundTrip: 100 * time.Millisecond},
			alone: 1002 * sec, shared: 1002 * sec, binds: "limits.connections.open 8", connections: 8, openings: 8,
		},
		"lock-step and a slow relay": {
			in: ForecastInput{Recipients: 8_000, Stream: "ad", Limits: shipped(), RoundTrip: 100 * time.Millisecond,
				RoundTrips: 4, Relay: 100 * time.Millisecond},
			alone: 502 * sec, shared: 502 * sec, binds: "limits.connections.open 8", connections: 8, openings: 8,
		},
		"replacing connections": {
			in: ForecastInput{Recipients: 80_000, Stream: "ad", Limits: shipped(), RoundTrip: 100 * time.Millisecond,
				PerConnection: 500},
			alone: 1017 * sec, shared: 1017 * sec, binds: "limits.connections.open 8", connections: 8, openings: 160,
		},
		"new connections": {
			in: ForecastInput{Recipients: 58 * 63 * 10, Stream: "ad", Limits: shipped(), PerConnection: 10,
				RoundTrip: time.Millisecond},
			// 58 openings a minute carry 580 messages.
			alone: 62 * 63 * sec, shared: 62 * 63 * sec, binds: "limits.connections.new 60/1m",
			connections: 1, openings: 3654,
		},
		"the day": {
			in: ForecastInput{Recipients: 1_000_000, Stream: "ad", Limits: shipped(), Idle: 30 * sec},
			// 480,000 a day: twice at full speed, then 40,000 when the third begins.
			alone: 2*day + 2*day/20 + 220*sec, shared: 2*day + 2*day/20 + 245*sec, binds: "limits.messages 500000/24h", connections: 1, openings: 3,
		},
		"learned rate": {
			in:    ForecastInput{Recipients: 5_000, Stream: "ad", Limits: shipped(), Caps: Caps{Rate: 50}},
			alone: 100 * sec, shared: 5000 * sec / 30, binds: "learned rate", connections: 1, openings: 1,
		},
		"learned connections": {
			in: ForecastInput{Recipients: 3_000, Stream: "ad", Limits: shipped(), RoundTrip: 100 * time.Millisecond,
				Caps: Caps{Open: 3, PerConnection: 1_000_000}},
			// Two of the three are kept for auth.
			alone: 300 * sec, shared: 300 * sec, binds: "learned connections 1", connections: 1, openings: 1,
		},
		"the stream's own limit": {
			in:    ForecastInput{Recipients: 4_545, Stream: "ad", Limits: capped(Share{Messages: []Window{{50, sec}, {3000, hour}}})},
			alone: hour + hour/20 + 34*sec, shared: hour + hour/20 + 34*sec, binds: "streams.ad.messages 3000/1h", connections: 1, openings: 1,
		},
		"the stream's own openings": {
			in: ForecastInput{Recipients: 1_000, Stream: "ad", Limits: capped(Share{New: []Window{{2, time.Minute}}}), PerConnection: 100,
				RoundTrip: time.Millisecond},
			alone: 4*63*sec + sec, shared: 4*63*sec + sec, binds: "streams.ad.openings 2/1m", connections: 1, openings: 10,
		},
		"a canary": {
			in:    ForecastInput{Recipients: 18_182, Stream: "ad", Limits: shipped(), First: 182, FirstWait: 10 * time.Minute},
			alone: 700 * sec, shared: 711 * sec, binds: "the first recipients' results", connections: 1, openings: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.in.Start = time.Unix(1_000_000, 0)
			o := forecast(t, tc.in)
			near(t, "alone", o.Alone.Duration, tc.alone)
			near(t, "shared", o.Shared.Duration, tc.shared)
			if o.Alone.Binds != tc.binds || o.Alone.Connections != tc.connections || o.Alone.Openings != tc.openings {
				t.Errorf("%s binds, %d connections, %d opened: want %s, %d, %d", o.Alone.Binds, o.Alone.Connections, o.Alone.Openings,
					tc.binds, tc.connections, tc.openings)
			}
			if !o.Alone.End.Equal(tc.in.Start.Add(o.Alone.Duration)) {
				t.Errorf("ends %v", o.Alone.End)
			}
		})
	}
}

// What was used before lets go at the latest when its window is over; what others have
// used of their reserves is not kept for them twice.
func TestForecastUsed(t *testing.T) {
	t.Parallel()
	l := shipped()
	in := ForecastInput{Recipients: 181_818, Stream: "ad", Limits: l, Usage: Usage{Messages: []Use{
		{Name: "limits.messages", Window: l.Messages[1], Used: 400_000},
		{Name: "streams.auth.reserve", Stream: "auth", Window: Window{20_000, day}, Used: 5_000},
		{Name: "streams.auth.messages", Stream: "auth", Window: Window{20_000, day}, Used: 7_000},
	}}}
	// 500,000 - 400,000 - the 15,000 that auth has left = 85,000 now, the rest a day later.
	o := forecast(t, in)
	near(t, "a day partly used", o.Alone.Duration, day+day/20+sec*96_818*11/2000)
	if len(o.Rooms) != 1 || o.Rooms[0] != (Room{l.Messages[1], 400_000, 85_000}) {
		t.Errorf("%+v", o.Rooms)
	}
	if o.Alone.Binds != "limits.messages 500000/24h" || o.Alone.Waits < 24*hour {
		t.Errorf("%+v", o.Alone)
	}
	in.Usage.Messages = nil
	in.Usage.Connections = []Use{{Name: "limits.connections.new", Window: l.New[0], Used: 60}}
	in.PerConnection = 1_000_000
	near(t, "no opening left", forecast(t, in).Alone.Duration, 1063*sec)
	in.Usage.Messages = []Use{{Name: "limits.messages", Window: l.Messages[1], Used: 600_000}} // a limit that was lowered
	near(t, "more used than there is", forecast(t, in).Alone.Duration, day+day/20+1000*sec)
}

// A warm-up gives more each day, counted from the sender's first message.
func TestForecastWarmUp(t *testing.T) {
	t.Parallel()
	l := shipped()
	l.WarmUp = map[string]Ramp{"new.example": {Start: 100, Factor: 2, Ceiling: 500}}
	start := time.Unix(1_000_000, 0)
	in := ForecastInput{Recipients: 450, Stream: "ad", Sender: "new.example", Limits: l, Start: start}
	// 100 on the first day, at its end (24 h) 100 more, 100 again when the first have
	// left (25.2 h), and from 48 h on 400.
	near(t, "a new sender", forecast(t, in).Alone.Duration, 48*hour)
	if b := forecast(t, in).Alone.Binds; b != "warm_up.new.example" {
		t.Errorf("%s binds", b)
	}
	in.Recipients = 150
	near(t, "one day more", forecast(t, in).Alone.Duration, 24*hour)
	in.Usage.WarmUp = []Warming{{Domain: "new.example", Since: start.Add(-36 * hour), Use: Use{Used: 120}}}
	near(t, "on the second day", forecast(t, in).Alone.Duration, 12*hour) // 80 of 200 are left, 400 from the third
	in.Sender = "old.example"
	near(t, "another sender", forecast(t, in).Alone.Duration, sec*150*11/2000)
	l.WarmUp = map[string]Ramp{Everyone: {Start: 100, Factor: 10, Ceiling: 100_000}}
	in.Limits, in.Usage = l, Usage{}
	in.Recipients = 90 // of 100, a fifth is kept for login codes
	near(t, "the whole account", forecast(t, in).Alone.Duration, 24*hour)
}

func TestForecastNever(t *testing.T) {
	t.Parallel()
	l := shipped()
	l.Streams["auth"] = Share{Reserve: []Window{{500_000, day}}, Connections: 2}
	o := forecast(t, ForecastInput{Recipients: 1, Stream: "ad", Limits: l})
	if !o.Alone.Never || o.Alone.Binds != "limits.messages 500000/24h" {
		t.Errorf("a day that is all another's: %+v", o.Alone)
	}
	l = shipped()
	l.Streams["auth"] = Share{Reserve: []Window{{200, sec}}}
	l.Messages = l.Messages[:1]
	o = forecast(t, ForecastInput{Recipients: 1000, Stream: "ad", Limits: l})
	if o.Alone.Never || !o.Shared.Never || o.Shared.Binds != "limits.messages 200/1s" {
		t.Errorf("a second that is all another's: %+v", o)
	}
	for _, in := range []ForecastInput{
		{Limits: shipped()}, {Recipients: 1, RoundTrip: -1, Limits: shipped()}, {Recipients: 1},
	} {
		if _, err := Forecast(in); err == nil {
			t.Errorf("%+v: no error", in)
		}
	}
}

// So many windows that nobody walks through them all are over at once, too.
func TestForecastOfAges(t *testing.T) {
	t.Parallel()
	l := Limits{Open: 1, Messages: []Window{{1, 2 * time.Minute}}}
	o := forecast(t, ForecastInput{Recipients: 10_000_000, Stream: "ad", Limits: l, Idle: sec})
	near(t, "one in two minutes", o.Alone.Duration, 10_000_000*126*sec)
	if n := o.Alone.Openings; n < 9_900_000 || n > 10_100_000 {
		t.Errorf("%d openings", n)
	}
}

// drained is the time in which a discrete sender, one message after the other, gets n
// through the windows.
func drained(n int, ws []Window) time.Duration {
	var begun []time.Duration
	at := time.Duration(0)
	for i := range n {
		for _, w := range ws {
			span := w.Per + slack(w.Per)
			if bySlots(w.Per) && i > 0 {
				at = max(at, begun[i-1]+span/time.Duration(w.N))
			}
			if i >= w.N {
				at = max(at, begun[i-w.N]+span)
			}
		}
		begun = append(begun, at)
	}
	return at
}

func TestForecastIsWhatTheWindowsAllow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Open: 1}
		for _, per := range []time.Duration{sec, time.Minute, 5 * time.Minute, hour, day} {
			if rapid.Bool().Draw(t, fmt.Sprint("has ", per)) {
				l.Messages = append(l.Messages, Window{rapid.IntRange(20, 400).Draw(t, "n"), per})
			}
		}
		n := rapid.IntRange(1, 3000).Draw(t, "recipients")
		o, err := Forecast(ForecastInput{Recipients: n, Stream: "ad", Limits: l})
		if err != nil {
			t.Fatal(err)
		}
		got, want := o.Alone.Duration, drained(n, l.Messages)
		// Where no pace holds, the forecast knows one all the same.
		if d := got - want; d.Abs() > sec/10+time.Duration(n)*sec/unlimited {
			t.Fatalf("%d through %v: forecast %v, drained %v", n, l.Messages, got, want)
		}
	})
}

// More of anything never takes longer, and every course adds up.
func TestForecastProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := shipped()
		l.Messages[0].N = rapid.IntRange(20, 1000).Draw(t, "a second")
		l.Messages[1].N = rapid.IntRange(40_000, 1_000_000).Draw(t, "a day")
		in := ForecastInput{
			Recipients: rapid.IntRange(1, 3_000_000).Draw(t, "recipients"), Stream: rapid.SampledFrom([]string{"auth", "ad"}).Draw(t, "stream"),
			Limits: l, RoundTrip: time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond,
			PerConnection: rapid.IntRange(0, 1000).Draw(t, "per connection"), Age: 5 * time.Minute, Idle: 30 * sec,
		}
		o, err := Forecast(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []Course{o.Alone, o.Shared} {
			if c.Duration < 0 || c.Binds == "" || c.BindsFor > c.Duration+sec || c.Waits > c.Duration || c.Openings < 1 ||
				c.Connections < 1 || c.Connections > l.Open || c.Rate > c.Peak*1.01 || strings.Contains(c.Binds, "nothing") {
				t.Fatalf("%+v", c)
			}
		}
		if o.Shared.Duration < o.Alone.Duration-o.Alone.Duration/100 {
			t.Fatalf("shared %v is shorter than alone %v", o.Shared.Duration, o.Alone.Duration)
		}
		more := in
		more.Recipients++
		again, err := Forecast(more)
		if err != nil || again.Alone.Duration < o.Alone.Duration-o.Alone.Duration/1000 {
			t.Fatalf("one more takes %v instead of %v (%v)", again.Alone.Duration, o.Alone.Duration, err)
		}
	})
}

func BenchmarkForecast(b *testing.B) {
	in := ForecastInput{Recipients: 5_000_000, Stream: "ad", Limits: shipped(), RoundTrip: 30 * time.Millisecond, PerConnection: 500, Age: 5 * time.Minute}
	for b.Loop() {
		if _, err := Forecast(in); err != nil {
			b.Fatal(err)
		}
	}
}
