package throttle

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	sec  = time.Second
	hour = time.Hour
	day  = 24 * time.Hour
)

// shipped are the limits that the configuration documents.
func shipped() Limits {
	return Limits{
		Open:     10,
		New:      []Window{{60, time.Minute}},
		Messages: []Window{{200, sec}, {500_000, day}},
		Streams: map[string]Share{
			"auth": {Reserve: []Window{{20, sec}, {20_000, day}}, Connections: 2},
		},
	}
}

// faulty is an edit of the shipped limits, and the parts of the error it makes;
// none: valid.
type faulty struct {
	name string
	edit func(l *Limits)
	want []string
}

func windowFaults() []faulty {
	return []faulty{
		{"shipped", func(*Limits) {}, nil},
		{"only open", func(l *Limits) { *l = Limits{Open: 1} }, nil},
		{"no open", func(l *Limits) { l.Open = 0 }, []string{"limits.connections.open: 0"}},
		{"zero count", func(l *Limits) { l.New[0].N = 0 }, []string{"limits.connections.new: 0/1m"}},
		{"negative count", func(l *Limits) { l.Messages[0].N = -5 }, []string{"limits.messages: -5/1s"}},
		{"count too large", func(l *Limits) { l.Messages[1].N = maxN + 1 }, []string{"limits.messages: 1000000001/24h"}},
		{"short window", func(l *Limits) { l.Messages[0].Per = 999 * time.Millisecond }, []string{"limits.messages: 200/999ms"}},
		{"long window", func(l *Limits) { l.Messages[1].Per = 32 * day }, []string{"limits.messages: 500000/768h"}},
		{"part of a microsecond", func(l *Limits) { l.Messages[0].Per = sec + 1 }, []string{"whole microseconds"}},
		{"twice", func(l *Limits) { l.Messages = append(l.Messages, Window{100, sec}) }, []string{"200/1s and 100/1s"}},
	}
}

func shareFaults() []faulty {
	return []faulty{
		{"reserve over limit", func(l *Limits) {
			l.Streams["auth"] = Share{Reserve: []Window{{201, sec}, {20_000, day}}}
		}, []string{"limits.messages: 200/1s: cannot hold streams.auth.reserve 201/1s"}},
		{"reserves add up", func(l *Limits) {
			l.Streams["normal"] = Share{Reserve: []Window{{181, sec}, {1, day}}}
		}, []string{"limits.messages: 200/1s", "streams.auth.reserve 20/1s and streams.normal.reserve 181/1s"}},
		{"all reserved", func(l *Limits) {
			l.Streams["normal"] = Share{Reserve: []Window{{180, sec}, {1, day}}}
		}, nil},
		{"reserve of a second over the day", func(l *Limits) {
			l.Streams["auth"] = Share{Reserve: []Window{{20, sec}}}
		}, []string{"limits.messages: 500000/24h", "streams.auth.reserve 20/1s", "1728000", "would bound it"}},
		{"reserve of the day alone", func(l *Limits) {
			l.Streams["auth"] = Share{Reserve: []Window{{20_000, day}}}
		}, nil},
		{"reserve of the day in a limit of the hour", func(l *Limits) {
			l.Messages = []Window{{10_000, hour}}
		}, []string{"limits.messages: 10000/1h", "streams.auth.reserve 20000/24h"}},
		{"window of a reserve of its own", func(l *Limits) {
			l.Streams["auth"] = Share{Reserve: []Window{{20, sec}, {500, hour}, {10_000, day}}}
		}, nil},
		{"connections kept", func(l *Limits) { l.Open = 2 },
			[]string{"limits.connections.open: 2: streams.auth.connections 2"}},
		{"openings kept", func(l *Limits) { l.New[0].N = 2 },
			[]string{"limits.connections.new: 2/1m: streams.auth.connections 2"}},
		{"negative connections", func(l *Limits) { l.Streams["ad"] = Share{Connections: -1} },
			[]string{"streams.ad.connections: -1"}},
		{"reserve of nothing", func(l *Limits) { l.Streams["ad"] = Share{Reserve: []Window{{0, sec}}} },
			[]string{"streams.ad.reserve: 0/1s"}},
		{"stream name", func(l *Limits) { l.Streams["a:d"] = Share{} }, []string{`stream name "a:d"`}},
		{"all faults at once", func(l *Limits) { l.Open = 0; l.New[0].N = 0 },
			[]string{"limits.connections.open", "limits.connections.new"}},
	}
}

func classFaults() []faulty {
	return []faulty{
		{"limits of everything", func(l *Limits) {
			l.Streams["ad"] = Share{Messages: []Window{{150, sec}}, New: []Window{{5, time.Minute}}}
			l.Groups = map[string][]Window{"naver": {{20, sec}}, "none": nil}
			l.WarmUp = map[string]Ramp{"a.example": {1, 1, 1}, Everyone: {100, 1.5, 2_000_000}}
		}, nil},
		{"stream of nothing", func(l *Limits) { l.Streams["ad"] = Share{Messages: []Window{{0, sec}}} },
			[]string{"streams.ad.messages: 0/1s"}},
		{"openings of nothing", func(l *Limits) { l.Streams["ad"] = Share{New: []Window{{1, time.Millisecond}}} },
			[]string{"streams.ad.openings: 1/1ms"}},
		{"reserve over the stream's own limit", func(l *Limits) {
			s := l.Streams["auth"]
			s.Messages = []Window{{19, sec}}
			l.Streams["auth"] = s
		}, []string{"streams.auth.messages: 19/1s: cannot hold streams.auth.reserve 20/1s"}},
		{"group of nothing", func(l *Limits) { l.Groups = map[string][]Window{"naver": {{-1, hour}}} },
			[]string{"groups.naver.messages: -1/1h"}},
		{"group name", func(l *Limits) { l.Groups = map[string][]Window{"a b": nil} }, []string{`group name "a b"`}},
		{"ramp", func(l *Limits) { l.WarmUp = map[string]Ramp{"a.example": {0, 0.5, -1}} },
			[]string{"warm_up.a.example.start: 0", "warm_up.a.example.factor: 0.5", "warm_up.a.example.ceiling: -1"}},
		{"ramp that falls", func(l *Limits) { l.WarmUp = map[string]Ramp{"a.example": {11, 2, 10}} },
			[]string{"warm_up.a.example.start: 11: want 1 to the ceiling, 10"}},
		{"ramp without a number", func(l *Limits) { l.WarmUp = map[string]Ramp{"a.example": {1, math.NaN(), 10}} },
			[]string{"warm_up.a.example.factor: NaN"}},
		{"ramp of no domain", func(l *Limits) { l.WarmUp = map[string]Ramp{"": {1, 1, 1}} }, []string{`warm_up name ""`}},
		{"ramp under the reserves", func(l *Limits) { l.WarmUp = map[string]Ramp{Everyone: {1, 2, 10_000}} },
			[]string{"warm_up.*.ceiling: 10000/24h: cannot hold streams.auth.reserve 20000/24h"}},
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range slices.Concat(windowFaults(), shareFaults(), classFaults()) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := shipped()
			tt.edit(&l)
			err := l.Validate()
			if len(tt.want) == 0 {
				if err != nil {
					t.Fatalf("got %v, want none", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("got no error, want one with %q", tt.want)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
		})
	}
}

func TestWindowString(t *testing.T) {
	t.Parallel()
	for want, w := range map[string]Window{
		"200/1s":     {200, sec},
		"60/1m":      {60, time.Minute},
		"5/1h":       {5, hour},
		"500000/24h": {500_000, day},
		"7/1m30s":    {7, 90 * sec},
		"7/10s":      {7, 10 * sec},
	} {
		if got := w.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The sum that doc.go makes: lateness, life and jitter are the slack.
func TestSlackIsSpent(t *testing.T) {
	t.Parallel()
	for _, per := range []time.Duration{sec, 2 * sec, 9 * sec, 10 * sec, 30 * sec, time.Minute, hour} {
		if sum := lateness(per) + life + jitter(per); sum != slack(per) {
			t.Errorf("%v: lateness %v + life %v + jitter %v = %v, want the slack %v", per, lateness(per), life, jitter(per), sum, slack(per))
		}
		if lateness(per) <= 0 || slack(per) < 100*time.Millisecond {
			t.Errorf("%v: lateness %v, slack %v", per, lateness(per), slack(per))
		}
	}
	if aheadWithin+life > 100*time.Millisecond {
		t.Errorf("a leased token lapses after %v, want within 100ms", aheadWithin+life)
	}
	if !(aheadWithin > aheadBeyond && aheadBeyond > aheadWithout) {
		t.Error("a stream within its reserve must go first")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := Params{Prefix: "p", Account: "smtp.example.com:587/user", Owner: "o", Limits: shipped()}
	if _, err := NewRedis(nil, good); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(p *Params){
		"prefix":  func(p *Params) { p.Prefix = "" },
		"account": func(p *Params) { p.Account = "a}b" },
		"owner":   func(p *Params) { p.Owner = "a:b" },
		"open":    func(p *Params) { p.Limits.Open = 0 },
	} {
		p := good
		edit(&p)
		if _, err := NewRedis(nil, p); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("bad %s: got %v", name, err)
		}
	}
}

func TestRampLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ramp      Ramp
		day, want int
	}{
		{Ramp{50, 2, 1000}, 0, 50},
		{Ramp{50, 2, 1000}, 1, 100},
		{Ramp{50, 2, 1000}, 4, 800},
		{Ramp{50, 2, 1000}, 5, 1000},
		{Ramp{50, 2, 1000}, 1 << 40, 1000},
		{Ramp{50, 1.5, 1000}, 2, 112},
		{Ramp{50, 1, 1000}, 1 << 40, 50},
	} {
		if got := tt.ramp.limit(tt.day); got != tt.want {
			t.Errorf("%+v on day %d: got %d, want %d", tt.ramp, tt.day, got, tt.want)
		}
	}
}
