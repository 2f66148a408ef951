package throttle

import (
	"fmt"
	"math"
)

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
	name  string
	now   float64 // room at the start
	holds float64 // s: until then; later what was used before has left the window
	full  float64 // room when nothing is in it
	span  float64 // s
	at    int     // the point of the flow that is leaving it now

	// A warm-up has more room each day: ramp says how much, age how old it is at the
	// start. Without a ramp: nil.
	ramp *Ramp
	age  float64 // s

	room, slope, until float64 // how much may be let out now, how fast more room comes, and until when
}

// newFlow collects all that limits this stream.
func (in ForecastInput) newFlow(others bool) *flow {
	r := &flow{in: in, left: float64(in.Recipients), ttl: math.Inf(1), bound: map[string]float64{}, points: []point{{}}}
	if in.TTL > 0 {
		r.ttl = in.TTL.Seconds()
	}
	share := in.Limits.Streams[in.Stream]
	for _, w := range sorted(in.Limits.Messages) {
		if name := "limits.messages"; bySlots(w.Per) {
			r.slots(name, w, true)
		} else {
			r.reservoirs = append(r.reservoirs, in.shared(name, w))
		}
	}
	for _, w := range sorted(share.Messages) {
		if name := "streams." + in.Stream + ".messages"; bySlots(w.Per) {
			r.slots(name, w, false)
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

// slots adds a window that is kept by slots. If somebody has used it, the next slot is
// at most one pace away; else the first message takes one at once.
func (r *flow) slots(name string, w Window, shared bool) {
	p := pace{name + " " + w.String(), fluid(w), shared}
	r.paces = append(r.paces, p)
	if wait := 1/p.rate - r.in.lead(); r.in.used(name, w) > 0 && wait > r.wait {
		r.wait, r.waitsFor = wait, p.name
	}
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

// reservoir is a counted window with room for full, and now for less.
func (in ForecastInput) reservoir(name string, w Window, full, now float64) reservoir {
	v := reservoir{name: name + " " + w.String(), span: span(w), full: full, now: now}
	v.holds = v.span - in.lead()
	return v
}

// shared is a counted window of all streams: what others' reserves keep in it is not
// for us, whether they use it or not.
func (in ForecastInput) shared(name string, w Window) reservoir {
	held, free := in.held(w)
	return in.reservoir(name, w, float64(max(0, w.N-held)), float64(max(0, w.N-max(held, in.used(name, w)+free))))
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
	return in.reservoir(name, w, float64(w.N)*weight, float64(max(0, w.N-in.used(name, w)))*weight)
}

// warmUp is the ramp of a sender, or of everyone. Others' reserves grow with the latter.
func (in ForecastInput) warmUp(name string, ramp Ramp) reservoir {
	v := in.reservoir("", ramp.window(), 0, 0)
	v.name, v.ramp = "warm_up."+name, &ramp
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
	allowed, name := in.open()
	r.connections, r.each, r.carries = min(allowed, max(1, in.Limits.Streams[in.Stream].Connections)), math.Inf(1), in.carries(math.Inf(1))
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

// open is how many connections the stream may have open, and what says so. What is kept
// for others shrinks below a learned limit, as it does where connections are granted.
func (in ForecastInput) open() (allowed int, name string) {
	allowed, name = in.Limits.Open, "limits.connections.open"
	var shares []openShare
	for _, s := range in.Limits.shares() {
		shares = append(shares, openShare{s, in.Limits.Streams[s].Connections})
	}
	if in.Caps.Open > 0 && in.Caps.Open < allowed {
		allowed, name = in.Caps.Open, "learned connections"
		shares = shrink(shares, allowed)
	}
	for _, s := range shares {
		if s.stream != in.Stream {
			allowed -= s.n
		}
	}
	return max(1, allowed), name
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
	return in.reservoir(name, w, float64(max(0, w.N-kept))*weight, float64(max(0, w.N-kept-used))*weight)
}
