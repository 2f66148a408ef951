package throttle

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// ForecastInput is what a forecast goes by.
type ForecastInput struct {
	Recipients int // at least 1
	Stream     string
	Sender     string    // domain, for its warm-up; "" for none
	Limits     Limits    // valid ones; those of groups are left out, since they depend on the list
	Usage      Usage     // what the fleet has used; zero: nothing
	Caps       Caps      // what the relay has shown of itself; zero: nothing
	Start      time.Time // of the sending

	RoundTrip  time.Duration // to the relay and back
	RoundTrips float64       // a message costs on one connection: 1 with full pipelining, 4 without; 0: 1
	Relay      time.Duration // the relay's own time for a message

	// A connection is replaced after so many messages or at this age; 0: never.
	PerConnection int
	Age           time.Duration
	Idle          time.Duration // after so long without a message it is closed; 0: never

	// The first so many recipients go alone, and the rest so long after them; 0: all at once.
	First     int
	FirstWait time.Duration
}

// Caps are limits below the configured ones that were learned; 0: none.
type Caps struct {
	Rate          float64 // messages a second
	Open          int     // connections open at once
	PerConnection int     // messages of one connection
}

// Outlook is how a campaign will go: with every other stream at rest, and with every
// other stream using all that is kept for it.
type Outlook struct {
	Alone, Shared Course
	Rooms         []Room // the long windows of messages
}

// Room is what a window that is longer than a minute has left.
type Room struct {
	Window
	Used int // by all streams
	Left int // for the stream: less what others' reserves keep
}

// Course is one way it may go.
type Course struct {
	Never       bool // Binds leaves nothing for the stream; the rest is zero
	Duration    time.Duration
	End         time.Time
	Rate        float64       // messages a second, on average
	Peak        float64       // and at most
	Binds       string        // the limit that decides most of the time, with its name in the configuration
	BindsFor    time.Duration // how long it does
	Waits       time.Duration // of Duration: nothing may be sent, because a long window is used up
	Connections int           // open at once
	Openings    int           // connections opened
}

// How a pool of connections starts: its own figures are in internal/smtp.
const (
	growEvery  = 500 * time.Millisecond // a pool that is always busy opens one more
	setupTrips = 7                      // round trips: TCP, greeting, EHLO, STARTTLS, TLS, EHLO, AUTH
)

// Forecast works out how long a campaign will take and what decides that. It treats
// messages as a fluid that is let out as fast as the limits allow; what was used
// before counts as used at this moment, so that with long windows partly used it
// says the latest end. The error is about the input.
//
// It knows one process's pool; more of them open their connections sooner.
func Forecast(in ForecastInput) (Outlook, error) {
	var o Outlook
	if in.Recipients < 1 || in.RoundTrip < 0 || in.Relay < 0 || in.RoundTrips < 0 {
		return o, fmt.Errorf("forecast of %d recipients at a round trip of %v: want 1 or more, and no negative times", in.Recipients, in.RoundTrip)
	}
	if err := in.Limits.Validate(); err != nil {
		return o, fmt.Errorf("forecast: %w", err)
	}
	o.Alone, o.Shared = in.course(false), in.course(true)
	for _, w := range sorted(in.Limits.Messages) {
		if !bySlots(w.Per) {
			o.Rooms = append(o.Rooms, Room{w, in.used("limits.messages", w), int(in.shared("limits.messages", w).now)})
		}
	}
	return o, nil
}

// used is how much is used of a window, by the name it has in the configuration.
func (in ForecastInput) used(name string, w Window) int {
	for _, u := range slices.Concat(in.Usage.Messages, in.Usage.Connections) {
		if u.Name == name && u.Window == w {
			return u.Used
		}
	}
	return 0
}

func (in ForecastInput) course(shared bool) Course {
	r := in.newFlow(shared)
	if never := r.drain(); never != "" {
		return Course{Never: true, Binds: never}
	}
	c := Course{Connections: r.connections, Openings: r.openings(in.Idle), Peak: r.peak, Waits: seconds(r.waits)}
	c.Duration = seconds(r.t + r.last)
	c.End = in.Start.Add(c.Duration)
	c.Rate = float64(in.Recipients) / max(c.Duration.Seconds(), 1e-6)
	for name, t := range r.bound {
		if d := seconds(t); d > c.BindsFor || d == c.BindsFor && name < c.Binds {
			c.Binds, c.BindsFor = name, d
		}
	}
	return c
}

// seconds is a duration, the longest one for more than fits.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/1e9 {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}

// pace is a rate that a short window, a cap or the connections allow.
type pace struct {
	name   string
	rate   float64 // messages a second
	shared bool    // with the other streams
}

// guest is another stream in a shared course: it takes rate for as long as its
// longer reserves last, and again when their windows are over.
type guest struct {
	rate        float64
	busy, cycle float64 // s; no cycle: always busy
}

// reservoir is a counted window: what was let out stays in it for span.
type reservoir struct {
	name string
	now  float64 // room at the start, until span
	full float64 // room when nothing is in it
	span float64 // s
	at   int     // the point of the flow that is leaving it now

	// A warm-up has more room each day: ramp says how much, age how old it is at the
	// start. Without a ramp: nil.
	ramp *Ramp
	age  float64 // s

	room, slope, until float64 // how much may be let out now, how fast more room comes, and until when
}

// newFlow collects all that limits this stream.
func (in ForecastInput) newFlow(others bool) *flow {
	r := &flow{in: in, left: float64(in.Recipients), bound: map[string]float64{}, points: []point{{}}}
	share := in.Limits.Streams[in.Stream]
	for _, w := range sorted(in.Limits.Messages) {
		if bySlots(w.Per) {
			r.paces = append(r.paces, pace{"limits.messages " + w.String(), fluid(w), true})
		} else {
			r.reservoirs = append(r.reservoirs, in.shared("limits.messages", w))
		}
	}
	for _, w := range sorted(share.Messages) {
		if name := "streams." + in.Stream + ".messages"; bySlots(w.Per) {
			r.paces = append(r.paces, pace{name + " " + w.String(), fluid(w), false})
		} else {
			r.reservoirs = append(r.reservoirs, in.own(name, w, 1))
		}
	}
	for _, name := range []string{Everyone, in.Sender} {
		if ramp, ok := in.Limits.WarmUp[name]; ok {
			r.reservoirs = append(r.reservoirs, in.warmUp(name, ramp))
		}
	}
	if in.Caps.Rate > 0 {
		r.paces = append(r.paces, pace{"learned rate", in.Caps.Rate, true})
	}
	for _, name := range in.Limits.shares() {
		if reserve := in.Limits.Streams[name].Reserve; others && name != in.Stream && len(reserve) > 0 {
			r.guests = append(r.guests, newGuest(reserve, r.limit()))
		}
	}
	r.connect()
	return r
}

// limit is what all paces allow.
func (r *flow) limit() float64 {
	limit := math.Inf(1)
	for _, p := range r.paces {
		limit = min(limit, p.rate)
	}
	return limit
}

// fluid is the rate a window kept by slots allows.
func fluid(w Window) float64 { return float64(w.N) / span(w) }

// shared is a counted window of all streams: what others' reserves keep in it is not
// for us, whether they use it or not.
func (in ForecastInput) shared(name string, w Window) reservoir {
	held, free := in.held(w)
	return reservoir{
		name: name + " " + w.String(), span: span(w), full: float64(max(0, w.N-held)),
		now: float64(max(0, w.N-max(held, in.used(name, w)+free))),
	}
}

// held is what others' reserves keep in a window, and how much of that they have not
// used yet.
func (in ForecastInput) held(w Window) (held, free int) {
	for _, s := range in.Limits.shares() {
		if s == in.Stream {
			continue
		}
		n, by := promised(in.Limits.Streams[s].Reserve, w.Per)
		held += n
		if free += n; by.Per == w.Per {
			free -= min(n, in.used("streams."+s+".reserve", by))
		}
	}
	return held, free
}

// own is a counted window of the stream alone. Each count lets weight messages out.
func (in ForecastInput) own(name string, w Window, weight float64) reservoir {
	return reservoir{
		name: name + " " + w.String(), span: span(w),
		full: float64(w.N) * weight, now: float64(max(0, w.N-in.used(name, w))) * weight,
	}
}

// warmUp is the ramp of a sender, or of everyone. Others' reserves grow with the latter.
func (in ForecastInput) warmUp(name string, ramp Ramp) reservoir {
	v := reservoir{name: "warm_up." + name, span: span(ramp.window()), ramp: &ramp}
	used := 0
	for _, u := range in.Usage.WarmUp {
		if u.Domain == name && !u.Since.IsZero() {
			used, v.age = u.Used, max(0, in.Start.Sub(u.Since).Seconds())
		}
	}
	if name == Everyone {
		held, _ := in.held(ramp.window())
		ramp.Start, ramp.Ceiling = less(ramp.Start, held, ramp.Ceiling), less(ramp.Ceiling, held, ramp.Ceiling)
	}
	v.full = float64(ramp.limit(int(v.age / rampPer.Seconds())))
	v.now = max(0, v.full-float64(used))
	return v
}

// less takes the part held/of off n.
func less(n, held, of int) int { return n - int(float64(n)*float64(held)/float64(of)) }

func span(w Window) float64 { return (w.Per + slack(w.Per)).Seconds() }

// newGuest works out how another stream uses its reserve to the full. One that is kept
// messages in long windows only takes everything until they are used up.
func newGuest(reserve []Window, limit float64) guest {
	g := guest{rate: limit}
	for _, w := range sorted(reserve) {
		if bySlots(w.Per) {
			g.rate = min(g.rate, float64(w.N)/w.Per.Seconds())
			continue
		}
		if busy := float64(w.N) / g.rate; g.cycle == 0 || busy/w.Per.Seconds() < g.busy/g.cycle {
			g.busy, g.cycle = busy, w.Per.Seconds()
		}
	}
	return g
}

// connect works out how many connections the pool will open and what each can do.
func (r *flow) connect() {
	in := r.in
	trips := in.RoundTrips
	if trips == 0 {
		trips = 1
	}
	each := trips*in.RoundTrip.Seconds() + in.Relay.Seconds() // s a message
	r.setup, r.last = setupTrips*in.RoundTrip.Seconds(), each
	allowed, name := in.Limits.Open, "limits.connections.open"
	for _, s := range in.Limits.shares() {
		if s != in.Stream {
			allowed -= in.Limits.Streams[s].Connections
		}
	}
	if in.Caps.Open > 0 && in.Caps.Open < allowed {
		allowed, name = in.Caps.Open, "learned connections"
	}
	allowed = max(1, allowed)
	r.connections, r.each, r.carries = max(1, in.Limits.Streams[in.Stream].Connections), math.Inf(1), in.carries(math.Inf(1))
	if each > 0 {
		limit := r.limit()
		r.connections = max(r.connections, int(min(float64(allowed), math.Ceil(limit*each))))
		r.carries = in.carries(min(1/each, limit/float64(r.connections)))
		r.each = 1 / (each + r.setup/r.carries) // replacing it takes time
		r.connections = max(r.connections, int(min(float64(allowed), math.Ceil(limit/r.each))))
		r.paces = append(r.paces, pace{fmt.Sprintf("%s %d", name, allowed), float64(allowed) * r.each, false})
	}
	if math.IsInf(r.carries, 1) {
		return
	}
	for _, w := range sorted(in.Limits.New) {
		r.reservoirs = append(r.reservoirs, in.openings(w, r.carries))
	}
	for _, w := range sorted(in.Limits.Streams[in.Stream].New) {
		r.reservoirs = append(r.reservoirs, in.own("streams."+in.Stream+".openings", w, r.carries))
	}
}

// carries is how many messages one connection at a rate takes before it is replaced.
func (in ForecastInput) carries(rate float64) float64 {
	n := math.Inf(1)
	for _, m := range []int{in.PerConnection, in.Caps.PerConnection} {
		if m > 0 {
			n = min(n, float64(m))
		}
	}
	if in.Age > 0 {
		n = min(n, max(1, in.Age.Seconds()*rate))
	}
	return n
}

// openings is a window of new connections, in the messages they carry.
func (in ForecastInput) openings(w Window, weight float64) reservoir {
	const name = "limits.connections.new"
	kept, used := 0, in.used(name, w)
	for _, s := range in.Limits.shares() {
		if s != in.Stream {
			kept += in.Limits.Streams[s].Connections
		}
	}
	return reservoir{
		name: name + " " + w.String(), span: span(w),
		full: float64(max(0, w.N-kept)) * weight, now: float64(max(0, w.N-kept-used)) * weight,
	}
}
