package throttle

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// How the slack of a window is spent; doc.go has the sum.
const (
	// life is how long a leased message may wait for its use, from its slot on.
	life = 45 * time.Millisecond
	// minJitter is the least that is left for the way to the relay.
	minJitter = 35 * time.Millisecond

	// How far ahead slots may be taken. Who may take them further ahead goes
	// first, because the timeline is then already taken when the others look.
	aheadWithin  = 50 * time.Millisecond // a stream within its reserve
	aheadBeyond  = 35 * time.Millisecond // a stream that has a reserve and is beyond it
	aheadWithout = 20 * time.Millisecond // a stream without one

	// rightStands is how long a stream that got fewer slots than it has a right to
	// keeps the others back: until it asks again, and a little.
	rightStands = 40 * time.Millisecond

	// buckets a window is cut into where it is counted.
	buckets = 500
	// slotsUpTo is the longest message window that is kept by slots.
	slotsUpTo = time.Minute
)

// bySlots tells how a message window of this length is kept.
func bySlots(per time.Duration) bool { return per <= slotsUpTo }

// slack is what a window is enforced over beyond its length.
func slack(per time.Duration) time.Duration {
	if per < 10*time.Second {
		return 100 * time.Millisecond
	}
	return per / 20
}

// jitter is the part of the slack that is left for the way to the relay.
func jitter(per time.Duration) time.Duration { return max(minJitter, slack(per)/4) }

// lateness is how long ago a slot may be and still be taken: the rest.
func lateness(per time.Duration) time.Duration { return slack(per) - life - jitter(per) }

// level says whom a timeline binds. Narrower ones may delay a message after the
// slot that it takes in a wider one only so far that no slot of the wider one is
// lost by it.
type level int

const (
	levelAccount level = iota
	levelStream
	levelGroup
	levels int = iota
)

// slots is a message window kept as a timeline: N slots evenly spaced over the
// window and its slack.
type slots struct {
	name  string
	every float64 // µs from slot to slot
	late  int64   // µs
	level level
}

// counter counts what was begun in a window and its slack, in buckets. A bucket
// counts until its end is out of the window, so it never counts too little.
type counter struct {
	name        string
	grain, span int64 // µs: one bucket; window and slack
	charge      bool  // what is granted is counted here
}

// held is a reserve of another stream inside a window: n less what its counter
// has already seen is not for us.
type held struct{ counter, n int }

// bound is a window that is kept by counting.
type bound struct {
	counter, n int
	held       []held
}

// ramp is a bound that grows by the day. The reserves in it grow with it.
type ramp struct {
	bound
	name string
	Ramp
}

// loss is how many connections of a counter a store may have forgotten when it
// restarts, the most there is, and how many to count if all its data is gone: all of a
// window up to a minute.
type loss struct{ counter, n, full, gone int }

// plan is everything a store needs to know to answer one class, or one stream's
// connections: the same on every call, so worked out once.
type plan struct {
	stream   string
	group    string // whose learned rate binds beside the account's; "": none
	slots    []slots
	counters []counter
	bounds   []bound // windows that must have room
	ramps    []ramp
	own      []held // the stream's own reserve: all with room means within it
	ahead    int64  // µs slots may be taken ahead when not within the reserve
	shares   []openShare
	open     int
	losses   []loss        // of a store that has just restarted
	fresh    time.Duration // how old an answer may be and still be used; 0: any
	plain    bool          // what was learned of the relay binds nothing
}

// learnedLate is the lateness of a learned rate, that of a window of a second.
func learnedLate() int64 { return micros(lateness(time.Second)) }

// late is learnedLate for the scripts; -1 tells them to pass over what was learned.
func (p *plan) late() int64 {
	if p.plain {
		return -1
	}
	return learnedLate()
}

// Fields of the account's state that hold what was learned.
const (
	learnedRate = "k:rate" // least µs between two messages; with :GROUP that group's
	learnedOpen = "k:open" // most open connections
	learnedSlot = "t:k"    // the last slot of the rate; with :GROUP that group's
)

// openShare keeps n open connections for a stream.
type openShare struct {
	stream string
	n      int
}

func micros(d time.Duration) int64 { return d.Microseconds() }

func newCounter(kind, stream string, per time.Duration, charge bool) counter {
	name := fmt.Sprintf("%s:%d", kind, micros(per))
	if stream != "" {
		name += ":" + stream
	}
	return counter{name: name, grain: micros(per) / buckets, span: micros(per + slack(per)), charge: charge}
}

// add appends c and returns its place.
func (p *plan) add(c counter) int {
	p.counters = append(p.counters, c)
	return len(p.counters) - 1
}

// messagePlan works out the plan for one class's messages.
func (l Limits) messagePlan(c Class) *plan {
	p := &plan{stream: c.Stream, group: c.Group, ahead: micros(aheadWithout)}
	share := l.Streams[c.Stream]
	if len(share.Reserve) > 0 {
		p.ahead = micros(aheadBeyond)
	}
	l.planAccount(p)
	if c.Stream != "" {
		p.cap("x", c.Stream, levelStream, share.Messages)
	}
	if c.Group != "" {
		p.cap("g", c.Group, levelGroup, l.Groups[c.Group])
	}
	if r, ok := l.WarmUp[Everyone]; ok {
		at := p.add(newCounter("w", Everyone, rampPer, true))
		p.ramps = append(p.ramps, ramp{l.withReserves(p, at, r.window()), Everyone, r})
	}
	if r, ok := l.WarmUp[c.Sender]; ok {
		at := p.add(newCounter("w", c.Sender, rampPer, true))
		p.ramps = append(p.ramps, ramp{bound{counter: at, n: r.Ceiling}, c.Sender, r})
	}
	return p
}

// planAccount adds the account's message windows and the reserves in them.
func (l Limits) planAccount(p *plan) {
	for _, w := range sorted(l.Messages) {
		at := p.add(newCounter("m", "", w.Per, true))
		if bySlots(w.Per) {
			p.slots = append(p.slots, newSlots("", "", w, levelAccount))
			continue // counted for the report only
		}
		p.bounds = append(p.bounds, l.withReserves(p, at, w))
	}
	for _, r := range sorted(l.Streams[p.stream].Reserve) {
		c := newCounter("m", p.stream, r.Per, true)
		if p.find(c.name) < 0 {
			c.span = micros(r.Per) - c.grain // a reserve is a promise: here a bucket too long would break it
			p.own = append(p.own, held{p.add(c), r.N})
		}
	}
}

// withReserves makes a bound of a counter of all streams, with the others'
// reserves in it; the stream's own becomes one of its rights.
func (l Limits) withReserves(p *plan, at int, w Window) bound {
	b := bound{counter: at, n: w.N}
	for _, name := range l.shares() {
		n, _ := promised(l.Streams[name].Reserve, w.Per)
		if n == 0 {
			continue
		}
		c := newCounter("m", name, w.Per, name == p.stream)
		known := p.find(c.name)
		if known < 0 {
			known = p.add(c)
			if name == p.stream {
				p.own = append(p.own, held{known, n})
			}
		}
		if name != p.stream {
			b.held = append(b.held, held{known, n})
		}
	}
	return b
}

// cap adds windows that bind only some of the account's messages.
func (p *plan) cap(kind, name string, lv level, ws []Window) {
	for _, w := range sorted(ws) {
		at := p.add(newCounter(kind, name, w.Per, true))
		if bySlots(w.Per) {
			p.slots = append(p.slots, newSlots(kind, name, w, lv))
			continue
		}
		p.bounds = append(p.bounds, bound{counter: at, n: w.N})
	}
}

func newSlots(kind, name string, w Window, lv level) slots {
	field := fmt.Sprintf("t:%d", micros(w.Per))
	if kind != "" {
		field += ":" + kind + ":" + name
	}
	return slots{
		name:  field,
		every: float64(micros(w.Per+slack(w.Per))) / float64(w.N),
		late:  micros(lateness(w.Per)),
		level: lv,
	}
}

// connectPlan works out the plan for opening one more connection of a stream.
// New connections are counted, not spaced: a worker that starts may open what
// it needs at once as long as the window has room.
func (l Limits) connectPlan(stream string) *plan {
	p := &plan{stream: stream, open: l.Open}
	for _, name := range l.shares() {
		if n := l.Streams[name].Connections; n > 0 {
			p.shares = append(p.shares, openShare{name, n})
		}
	}
	for _, w := range sorted(l.New) {
		b := bound{counter: p.add(newCounter("c", "", w.Per, true)), n: w.N}
		for _, s := range p.shares {
			c := p.add(newCounter("c", s.stream, w.Per, s.stream == stream))
			if s.stream != stream {
				b.held = append(b.held, held{c, s.n})
			}
		}
		p.bounds = append(p.bounds, b)
	}
	for _, w := range sorted(l.Streams[stream].New) {
		p.bounds = append(p.bounds, bound{counter: p.add(newCounter("o", stream, w.Per, true)), n: w.N})
	}
	for _, b := range p.bounds {
		lost := loss{counter: b.counter, n: min(b.n, l.burst()), full: b.n}
		if lost.gone = lost.n; p.counters[b.counter].grain*buckets <= micros(time.Minute) {
			lost.gone = b.n
		}
		p.losses = append(p.losses, lost)
	}
	l.planBurst(p)
	for _, w := range append(slices.Clone(l.New), l.Streams[stream].New...) {
		if age := slack(w.Per) - jitter(w.Per); p.fresh == 0 || age < p.fresh {
			p.fresh = age
		}
	}
	return p
}

// lostMost is how much of its newest data a Redis that writes an append-only file
// every second may lose when it dies; it says itself that two seconds are possible.
const lostMost = 3 * time.Second

// restartGrace is how long no connection is opened after a restart was noticed: the
// leases of all processes have been renewed by then, and each had its say.
const restartGrace = 3 * time.Second

// burst is how many connections may be opened in any lostMost: as many as may be open,
// or twice as many as the windows allow in that time on average.
func (l Limits) burst() int {
	rate := math.Inf(1) // a second
	for _, w := range l.New {
		rate = min(rate, float64(w.N)/w.Per.Seconds())
	}
	if math.IsInf(rate, 1) {
		return maxN
	}
	return max(l.Open, int(min(maxN, math.Ceil(2*rate*lostMost.Seconds()))))
}

// planBurst keeps what a restarted store may have forgotten small, so that a restart
// does not cost the whole window.
func (l Limits) planBurst(p *plan) {
	if len(l.New) == 0 {
		return
	}
	b := bound{counter: p.add(newCounter("b", "", lostMost, true)), n: l.burst()}
	for _, s := range p.shares {
		c := p.add(newCounter("b", s.stream, lostMost, s.stream == p.stream))
		if s.stream != p.stream {
			b.held = append(b.held, held{c, s.n})
		}
	}
	p.bounds = append(p.bounds, b)
}

// find returns the place of a counter, or -1.
func (p *plan) find(name string) int {
	return slices.IndexFunc(p.counters, func(c counter) bool { return c.name == name })
}

// every is the time from one message to the next that the slots allow, in µs; 0
// where no window is kept by slots.
func (p *plan) every() float64 {
	e := 0.0
	for _, s := range p.slots {
		e = math.Max(e, s.every)
	}
	return e
}

// chunk is the most messages leased in one call: 50 ms of the fleet's rate.
func (p *plan) chunk() int {
	const unpaced, most = 256, 5000
	e := p.every()
	if e == 0 {
		return unpaced
	}
	return int(min(most, max(1, float64(micros(50*time.Millisecond))/e)))
}

// returns tells whether what was leased and not used is worth giving back: a
// slot is gone when its time is, a count in a long window is not.
func (p *plan) returns() bool {
	for _, c := range p.counters {
		if c.charge && c.grain*buckets > micros(slotsUpTo) {
			return true
		}
	}
	return false
}

// bounding are the counters that keep what the plan grants within a window.
func (p *plan) bounding() []counter {
	var cs []counter
	for _, b := range p.bounds {
		cs = append(cs, p.counters[b.counter])
	}
	for _, r := range p.ramps {
		cs = append(cs, p.counters[r.counter])
	}
	return cs
}
