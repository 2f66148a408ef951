package throttle

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// letOut is how long after the first of n messages the limiter itself lets the last one
// begin, in virtual time.
func letOut(t *testing.T, l Limits, c Class, n int) (took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, p := &Memory{}, l.messagePlan(c)
		var first, last time.Time
		for left := n; left > 0; {
			g, err := m.messages(t.Context(), p, left, nil)
			if err != nil {
				t.Fatal(err)
			}
			if g.n == 0 {
				// A process asks again sooner than that: others may give something back.
				nap(t.Context(), min(max(time.Duration(g.retry)*time.Microsecond, time.Millisecond), time.Minute))
				continue
			}
			begins := time.Now().Add(time.Duration(g.delay) * time.Microsecond)
			if first.IsZero() {
				first = begins
			}
			last = begins.Add(time.Duration(int64(g.n-1) * g.every))
			left -= g.n
			nap(t.Context(), time.Until(last))
		}
		took = last.Sub(first)
	})
	return took
}

// The forecast is what the limiter does, for few messages and small limits too.
func TestForecastIsWhatTheLimiterDoes(t *testing.T) {
	t.Parallel()
	window := func(n int, per time.Duration) Limits { return Limits{Open: 1, Messages: []Window{{n, per}}} }
	both := window(1, time.Minute)
	both.Messages = append(both.Messages, Window{2, hour})
	own := window(200, sec)
	own.Streams = map[string]Share{"ad": {Messages: []Window{{2, time.Minute}}}}
	ramp := Limits{Open: 1, Messages: []Window{{200, sec}}, WarmUp: map[string]Ramp{"new.example": {Start: 500, Factor: 1.5, Ceiling: 100_000}}}
	for name, tc := range map[string]struct {
		n      int
		limits Limits
		want   time.Duration
	}{
		"one":                       {1, window(1, time.Minute), 0},
		"three, one a minute":       {3, window(1, time.Minute), 126 * sec},
		"ten, one a minute":         {10, window(1, time.Minute), 567 * sec},
		"fifteen, ten a minute":     {15, window(10, time.Minute), 88_200 * time.Millisecond},
		"many":                      {20_000, window(200, sec), 110 * sec},
		"a stream's own":            {4, own, 94_500 * time.Millisecond},
		"pauses, and a first again": {5, both, 2 * 63 * time.Minute},
		"and its second":            {4, both, 64*time.Minute + 3*sec},
		"a ramp's second day":       {700, ramp, 24 * hour},
		"a ramp, its first gone":    {1000, ramp, 25*hour + 12*time.Minute},
		"a ramp's third day":        {1500, ramp, 48 * hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near(t, "the limiter", letOut(t, tc.limits, Class{Stream: "ad", Sender: "new.example"}, tc.n), tc.want)
			o := forecast(t, ForecastInput{Recipients: tc.n, Stream: "ad", Sender: "new.example", Limits: tc.limits})
			near(t, "the forecast", o.Alone.Duration, tc.want)
			if o.Alone.Binds == "" || o.Alone.Rate > o.Alone.Peak {
				t.Errorf("%+v", o.Alone)
			}
		})
	}
}

// After a canary's wait a message goes at once, as at the start.
func TestForecastAfterACanary(t *testing.T) {
	t.Parallel()
	in := ForecastInput{Recipients: 2, Stream: "ad", Limits: Limits{Open: 1, Messages: []Window{{1, time.Minute}}}, First: 1}
	for wait, want := range map[time.Duration]time.Duration{0: 63 * sec, 21 * sec: 63 * sec, 2 * time.Minute: 2 * time.Minute} {
		in.FirstWait = wait
		near(t, fmt.Sprint("a wait of ", wait), forecast(t, in).Alone.Duration, want)
	}
}

// A slot that somebody has just taken is not there at once.
func TestForecastUsedSlots(t *testing.T) {
	t.Parallel()
	l := Limits{Open: 1, Messages: []Window{{200, sec}, {1, time.Minute}}}
	now := time.Unix(1_000_000, 0)
	in := ForecastInput{Recipients: 3, Stream: "ad", Limits: l, Start: now, Asked: now, RoundTrip: sec}
	near(t, "none used", forecast(t, in).Alone.Duration, (7+126+1)*sec)
	in.Usage.Messages = []Use{{Name: "limits.messages", Window: l.Messages[0], Used: 1}, {Name: "limits.messages", Window: l.Messages[1], Used: 1}}
	near(t, "one used", forecast(t, in).Alone.Duration, (3*63+1)*sec)
	in.Asked = now.Add(-30 * sec)
	near(t, "half a minute ago", forecast(t, in).Alone.Duration, (33+126+1)*sec)
	in.Asked = now.Add(-hour)
	near(t, "an hour ago", forecast(t, in).Alone.Duration, (7+126+1)*sec)
}

// Of a learned limit of connections what is kept for others is taken off, as it is
// where connections are granted.
func TestForecastLearnedOpen(t *testing.T) {
	t.Parallel()
	for _, kept := range []int{0, 1, 2, 5, 8} {
		for _, stream := range []string{"ad", "auth"} {
			for learned := range 12 {
				l := Limits{Open: 10, Streams: map[string]Share{"auth": {Connections: kept}, "normal": {Connections: kept / 5}}}
				m, p := &Memory{caps: map[string]float64{learnedOpen: float64(learned)}}, l.connectPlan(stream)
				granted := 0
				for g := (grant{n: 1}); g.n > 0; granted += g.n {
					var err error
					if g, err = m.connect(t.Context(), p, dial{lease: fmt.Sprintf("%s:o:%d", stream, granted), lapse: hour}); err != nil {
						t.Fatal(err)
					}
				}
				o := forecast(t, ForecastInput{Recipients: 10_000, Stream: stream, Limits: l, Caps: Caps{Open: learned}, RoundTrip: 100 * time.Millisecond})
				what := "limits.connections.open"
				if learned > 0 && learned < 10 {
					what = "learned connections"
				}
				if got, want := o.Alone.Connections, max(1, granted); got != want || o.Alone.Binds != fmt.Sprint(what, " ", want) {
					t.Errorf("%d kept for auth, %d learned: forecast for %s: %d connections (%s), granted %d", kept, learned, stream, got, o.Alone.Binds, granted)
				}
			}
		}
	}
}

// What is used now has left its window when a campaign begins late enough.
func TestForecastOfALaterStart(t *testing.T) {
	t.Parallel()
	l := shipped()
	l.WarmUp = map[string]Ramp{"new.example": {Start: 200_000, Factor: 1, Ceiling: 200_000}}
	l.Streams["ad"] = Share{Messages: []Window{{200_000, 2 * day}}}
	now := time.Unix(1_000_000, 0)
	messages := Usage{Messages: []Use{{Name: "limits.messages", Window: l.Messages[1], Used: 500_000}}}
	reserve := Usage{Messages: []Use{{Name: "limits.messages", Window: l.Messages[1], Used: 400_000},
		{Name: "streams.auth.reserve", Stream: "auth", Window: Window{20_000, day}, Used: 20_000}}}
	own := Usage{Messages: []Use{{Name: "streams.ad.messages", Stream: "ad", Window: Window{200_000, 2 * day}, Used: 200_000}}}
	openings := Usage{Connections: []Use{{Name: "limits.connections.new", Window: l.New[0], Used: 60}}}
	warmUp := Usage{WarmUp: []Warming{{Domain: "new.example", Since: now, Use: Use{Used: 200_000}}}}
	const full = 550 * sec // 100,000 at 181.8 a second
	for name, tc := range map[string]struct {
		usage Usage
		after time.Duration
		want  time.Duration
		room  Room
	}{
		"the day's, at once":         {messages, 0, day + day/20 + full, Room{l.Messages[1], 500_000, 0}},
		"the day's, 20 hours later":  {messages, 20 * hour, 5*hour + 12*time.Minute + full, Room{l.Messages[1], 500_000, 0}},
		"the day's, a window later":  {messages, day + day/20, full, Room{l.Messages[1], 0, 480_000}},
		"the day's, three days on":   {messages, 3 * day, full, Room{l.Messages[1], 0, 480_000}},
		"a reserve, 20 hours later":  {reserve, 20 * hour, full, Room{l.Messages[1], 400_000, 100_000}},
		"its own, a day later":       {own, day, day + day/10 + full, Room{l.Messages[1], 0, 480_000}},
		"its own, three days on":     {own, 3 * day, full, Room{l.Messages[1], 0, 480_000}},
		"openings, 3 s later":        {openings, 3 * sec, 60*sec + full, Room{l.Messages[1], 0, 480_000}},
		"openings, a minute later":   {openings, 63 * sec, full, Room{l.Messages[1], 0, 480_000}},
		"a warm-up, 20 hours later":  {warmUp, 20 * hour, 5*hour + 12*time.Minute + full, Room{l.Messages[1], 0, 480_000}},
		"a warm-up, three days on":   {warmUp, 3 * day, full, Room{l.Messages[1], 0, 480_000}},
		"asked for after the start ": {messages, -hour, day + day/20 + full, Room{l.Messages[1], 500_000, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := forecast(t, ForecastInput{Recipients: 100_000, Stream: "ad", Sender: "new.example", Limits: l, Usage: tc.usage,
				Start: now.Add(tc.after), Asked: now, PerConnection: 1_000_000})
			near(t, name, o.Alone.Duration, tc.want)
			if len(o.Rooms) != 1 || o.Rooms[0] != tc.room {
				t.Errorf("%+v, want %+v", o.Rooms, tc.room)
			}
		})
	}
}

// A campaign ends when its stream's ttl is over, and who has not been begun expires.
func TestForecastTTL(t *testing.T) {
	t.Parallel()
	few := Limits{Open: 4, Messages: []Window{{10, sec}}}
	long := Limits{Open: 1, Messages: []Window{{1, 2 * time.Minute}}}
	full := Limits{Open: 4, Messages: []Window{{10, sec}, {500, day}}, Streams: map[string]Share{"auth": {Reserve: []Window{{500, day}}}}}
	busy := Limits{Open: 4, Messages: []Window{{10, sec}}, Streams: map[string]Share{"auth": {Reserve: []Window{{10, sec}}}}}
	for name, tc := range map[string]struct {
		in            ForecastInput
		alone, shared int
		takes         time.Duration
	}{
		"of days":               {ForecastInput{Recipients: 2_000_000, Limits: shipped(), TTL: 3 * day}, 560_000, 560_000, 3 * day},
		"of seconds":            {ForecastInput{Recipients: 300, Limits: few, TTL: 10 * sec}, 209, 209, 10 * sec}, // 1 at once, 90 in the gaps
		"just enough":           {ForecastInput{Recipients: 91, Limits: few, TTL: 10 * sec}, 0, 0, 9900 * time.Millisecond},
		"one more":              {ForecastInput{Recipients: 92, Limits: few, TTL: 10 * sec}, 1, 1, 10 * sec},
		"none":                  {ForecastInput{Recipients: 300, Limits: few}, 0, 0, 32_890 * time.Millisecond},
		"in a canary":           {ForecastInput{Recipients: 300, Limits: few, First: 10, FirstWait: hour, TTL: 30 * time.Minute}, 290, 290, 30 * time.Minute},
		"in a canary of one":    {ForecastInput{Recipients: 300, Limits: few, First: 1, FirstWait: hour, TTL: 30 * time.Minute}, 299, 299, 30 * time.Minute},
		"before the first":      {ForecastInput{Recipients: 300, Limits: few, RoundTrip: 2 * sec, TTL: 10 * sec}, 300, 300, 10 * sec},
		"while others send":     {ForecastInput{Recipients: 181_818, Limits: shipped(), TTL: 1000 * sec}, 0, 19_999, 1000 * sec},
		"after too many steps":  {ForecastInput{Recipients: 10_000_000, Limits: long, TTL: 500_000 * 126 * sec}, 9_500_000, 9_500_000, 500_000 * 126 * sec},
		"never":                 {ForecastInput{Recipients: 7, Limits: full, TTL: hour}, 7, 7, 0},
		"never while others go": {ForecastInput{Recipients: 7, Limits: busy, TTL: hour}, 0, 7, 6 * sec * 11 / 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.in.Stream, tc.in.Start = "ad", time.Unix(1_000_000, 0)
			o := forecast(t, tc.in)
			if o.Alone.Expired != tc.alone || o.Shared.Expired != tc.shared {
				t.Errorf("%d and %d expire, want %d and %d", o.Alone.Expired, o.Shared.Expired, tc.alone, tc.shared)
			}
			near(t, "alone", o.Alone.Duration, tc.takes)
			if want := tc.in.Start.Add(o.Alone.Duration); !o.Alone.Never && !o.Alone.End.Equal(want) {
				t.Errorf("ends %v, want %v", o.Alone.End, want)
			}
			if o.Alone.BindsFor > o.Alone.Duration || o.Alone.Waits > o.Alone.Duration {
				t.Errorf("%+v", o.Alone)
			}
		})
	}
}
