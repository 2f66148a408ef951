package throttle

import (
	"fmt"
	"math"
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

// slots is a message window kept as a timeline: N slots evenly spaced over the
// window and its slack.
type slots struct {
	name  string
	every float64 // µs from slot to slot
	late  int64   // µs
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

// plan is everything a store needs to know to answer one stream: the same on
// every call, so worked out once.
type plan struct {
	stream   string
	slots    []slots
	counters []counter
	bounds   []bound // windows that must have room
	own      []held  // the stream's own reserve: all with room means within it
	ahead    int64   // µs slots may be taken ahead when not within the reserve
	shares   []openShare
	open     int
	fresh    time.Duration // how old an answer may be and still be used; 0: any
}

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

// messagePlan works out the plan for one stream's messages.
func (l Limits) messagePlan(stream string) *plan {
	p := &plan{stream: stream, ahead: micros(aheadWithout)}
	if len(l.Streams[stream].Reserve) > 0 {
		p.ahead = micros(aheadBeyond)
	}
	ownAt := map[time.Duration]bool{}
	for _, w := range sorted(l.Messages) {
		at := p.add(newCounter("m", "", w.Per, true))
		if bySlots(w.Per) {
			p.slots = append(p.slots, slots{
				name:  fmt.Sprintf("t:%d", micros(w.Per)),
				every: float64(micros(w.Per+slack(w.Per))) / float64(w.N),
				late:  micros(lateness(w.Per)),
			})
			continue // counted for the report only
		}
		b := bound{counter: at, n: w.N}
		for _, name := range l.shares() {
			n, _ := promised(l.Streams[name].Reserve, w.Per)
			if n == 0 {
				continue
			}
			c := p.add(newCounter("m", name, w.Per, name == stream))
			if name == stream {
				p.own = append(p.own, held{c, n})
				ownAt[w.Per] = true
			} else {
				b.held = append(b.held, held{c, n})
			}
		}
		p.bounds = append(p.bounds, b)
	}
	for _, r := range sorted(l.Streams[stream].Reserve) {
		if !ownAt[r.Per] {
			c := newCounter("m", stream, r.Per, true)
			c.span = micros(r.Per) - c.grain // a reserve is a promise: here a bucket too long would break it
			p.own = append(p.own, held{p.add(c), r.N})
		}
	}
	return p
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
		if len(p.bounds) == 1 { // the shortest has the least slack
			p.fresh = slack(w.Per) - jitter(w.Per)
		}
	}
	return p
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
