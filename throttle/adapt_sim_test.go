package throttle

import (
	"container/heap"
	"math"
	"math/rand/v2"
)

// simRelay is a relay with hidden limits, exact as internal/relay's are. Times
// are in seconds.
type simRelay struct {
	mails         simLimit
	open          int // connections; 0: any number
	perConnection int // messages; 0: any number
	closes        bool
	stray         float64 // share of messages refused for nothing
	capacity      float64 // messages/s that it can work off; 0: any number
	busyUntil     float64
	// takes is how many seconds more a message takes to be answered; nil: none.
	takes func(at float64, open int, rnd *rand.Rand) float64
}

// simLimit is a limit of messages in time.
type simLimit interface {
	admit(now float64) bool
	perSecond() float64
}

// sliding lets n messages pass in any window.
type sliding struct {
	n      int
	per    float64
	strict bool // counts those that it refuses too
	times  []float64
	next   int
}

func (w *sliding) perSecond() float64 { return float64(w.n) / w.per }

func (w *sliding) admit(now float64) bool {
	full := len(w.times) == w.n && now-w.times[w.next] < w.per
	if full && !w.strict {
		return false
	}
	if len(w.times) < w.n {
		w.times = append(w.times, now)
		return true
	}
	w.times[w.next] = now
	w.next = (w.next + 1) % w.n
	return !full
}

// calendar lets n messages pass in each window of the clock.
type calendar struct {
	n    int
	per  float64
	slot float64
	used int
}

func (c *calendar) perSecond() float64 { return float64(c.n) / c.per }

func (c *calendar) admit(now float64) bool {
	if slot := math.Floor(now / c.per); slot != c.slot {
		c.slot, c.used = slot, 0
	}
	if c.used == c.n {
		return false
	}
	c.used++
	return true
}

// leaky lets rate pass, and burst at once.
type leaky struct{ rate, burst, spent, at float64 }

func (l *leaky) perSecond() float64 { return l.rate }

func (l *leaky) admit(now float64) bool {
	l.spent = max(0, l.spent-(now-l.at)*l.rate)
	l.at = now
	if l.spent+1 > l.burst {
		return false
	}
	l.spent++
	return true
}

// simFleet is a fleet that always has mail, on one relay.
type simFleet struct {
	relay      simRelay
	ceiling    float64 // messages/s
	want       int     // connections
	rtt, dot   float64 // seconds to a refusal; and from there to a 250
	change     float64 // when the relay becomes another
	to         simRelay
	demand     func(at float64) float64 // messages/s there are; nil: any number
	untimed    bool                     // nobody notes how long replies take
	restarts   bool                     // the learner is stored and read at every tick
	closeAfter float64                  // seconds a connection is kept; 0: for ever

	rnd     *rand.Rand
	events  simEvents
	learner *learner
	caps    caps
	slot    float64 // next of the timeline
	waiting []int   // connections, for a slot
	woken   bool    // one of them will be
	conns   map[int]*simConn
	made    int
	dialing int
	dialAt  float64 // no dial before
	pause   float64
	open    int // as the relay counts
	sample  sample
	replies []float64
	log     simLog
}

type simConn struct {
	carried int
	since   float64
}

// simLog is what the relay saw, by second, and the fleet's connections.
type simLog struct {
	passed, throttled, refusedDials []int
	open, perConnection             []int
	modes                           []string
	reply                           float64 // the last median, seconds
}

type simKind int

const (
	simBegin simKind = iota // a connection wants a message
	simTurn                 // the first that waits for a slot gets one
	simArrive
	simPassed
	simThrottled
	simEnded
	simDial
	simGreeted
	simCrowded
	simTick
	simChange
)

type simEvent struct {
	at   float64
	kind simKind
	conn int
	sent float64
}

type simEvents []simEvent

func (e simEvents) Len() int           { return len(e) }
func (e simEvents) Less(i, j int) bool { return e[i].at < e[j].at }
func (e simEvents) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)        { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (s *simFleet) at(at float64, kind simKind, conn int) {
	heap.Push(&s.events, simEvent{at: at, kind: kind, conn: conn})
}

func (s *simFleet) bounds() bounds {
	return bounds{
		rate: band{1, s.ceiling}, open: band{1, float64(s.want)},
		group: func(string) float64 { return s.ceiling },
	}
}

// run simulates for so many seconds.
func (s *simFleet) run(seed uint64, seconds int) simLog {
	s.rnd = rand.New(rand.NewPCG(seed, 7))
	s.learner, s.conns = newLearner(), map[int]*simConn{}
	n := seconds + 1
	s.log = simLog{
		passed: make([]int, n), throttled: make([]int, n), refusedDials: make([]int, n),
		open: make([]int, n), perConnection: make([]int, n), modes: make([]string, n),
	}
	s.clear()
	s.slot = s.rnd.Float64()
	s.at(s.slot, simDial, 0)
	s.at(math.Ceil(s.slot*4)/4+0.05, simTick, 0)
	if s.change > 0 {
		s.at(s.change, simChange, 0)
	}
	for s.events[0].at < float64(seconds) {
		s.handle(heap.Pop(&s.events).(simEvent))
	}
	return s.log
}

func (s *simFleet) clear() {
	s.sample = sample{messages: map[string]traffic{}, ended: map[int]int{}}
	s.replies = s.replies[:0]
}

func (s *simFleet) handle(e simEvent) {
	switch e.kind {
	case simBegin:
		s.begin(e)
	case simTurn:
		s.turn(e)
	case simArrive:
		s.arrive(e)
	case simPassed, simThrottled, simEnded:
		s.answer(e)
	case simDial, simGreeted, simCrowded:
		s.dial(e)
	case simTick:
		s.tick(e.at)
	case simChange:
		s.relay = s.to
	}
}

// begin takes a slot as the budget gives them out: the timeline is even, a slot
// may be 20 ms late, and the message a little later still.
func (s *simFleet) begin(e simEvent) {
	c := s.conns[e.conn]
	if c == nil {
		return
	}
	if most := s.caps.perConnection; most > 0 && c.carried >= most {
		s.sample.carried = max(s.sample.carried, c.carried)
		s.drop(e.conn, e.at)
		return
	}
	if s.closeAfter > 0 && e.at > c.since+s.closeAfter {
		s.drop(e.conn, e.at)
		return
	}
	at := max(s.slot, e.at-0.02)
	if at > e.at+0.02 || len(s.waiting) > 0 && e.kind != simTurn {
		s.waiting = append(s.waiting, e.conn)
		s.next(e.at)
		return
	}
	every := 1 / s.ceiling
	if s.demand != nil {
		every = max(every, 1/s.demand(e.at))
	}
	if r := s.caps.rates[""]; r > 0 {
		every = max(every, 1/r)
	}
	s.slot = at + every
	begun := max(at, e.at) + 0.02*s.rnd.Float64()*s.rnd.Float64()
	heap.Push(&s.events, simEvent{at: begun + s.rtt/2*(0.9+0.2*s.rnd.Float64()), kind: simArrive, conn: e.conn, sent: begun})
}

// next wakes the connection that has waited longest when there is a slot for it.
func (s *simFleet) next(now float64) {
	if !s.woken && len(s.waiting) > 0 {
		s.woken = true
		s.at(max(now, s.slot-0.01*s.rnd.Float64()), simTurn, 0)
	}
}

func (s *simFleet) turn(e simEvent) {
	e.conn, s.waiting, s.woken = s.waiting[0], s.waiting[1:], false
	s.begin(e)
	s.next(e.at)
}

func (s *simFleet) arrive(e simEvent) {
	c := s.conns[e.conn]
	kind := simPassed
	wait := s.rtt/2 + s.dot*(0.8+0.4*s.rnd.Float64())
	switch {
	case s.relay.perConnection > 0 && c.carried >= s.relay.perConnection:
		kind = simEnded
	case s.relay.mails != nil && !s.relay.mails.admit(e.at), s.rnd.Float64() < s.relay.stray:
		kind = simThrottled
		if s.relay.closes {
			kind = simEnded
		}
	}
	if kind == simPassed {
		s.log.passed[int(e.at)]++
		if s.relay.capacity > 0 {
			s.relay.busyUntil = max(s.relay.busyUntil, e.at) + 1/s.relay.capacity
			wait += s.relay.busyUntil - e.at
		}
		if s.relay.takes != nil {
			wait += s.relay.takes(e.at, len(s.conns), s.rnd)
		}
	} else {
		s.log.throttled[int(e.at)]++
		wait = s.rtt / 2
	}
	heap.Push(&s.events, simEvent{at: e.at + wait, kind: kind, conn: e.conn, sent: e.sent})
}

func (s *simFleet) answer(e simEvent) {
	c, t := s.conns[e.conn], s.sample.messages[""]
	switch e.kind {
	case simPassed:
		t.passed++
		c.carried++
		s.replies = append(s.replies, e.at-e.sent)
	case simThrottled:
		t.throttled++
	case simEnded:
		s.sample.ended[c.carried]++
		s.drop(e.conn, e.at)
	}
	s.sample.messages[""] = t
	s.at(e.at, simBegin, e.conn)
}

// drop closes a connection; the relay notices half a round trip later.
func (s *simFleet) drop(conn int, now float64) {
	delete(s.conns, conn)
	s.open--
	s.at(max(now+s.rtt, s.dialAt), simDial, 0)
}

// dial keeps up to two dials under way, as the breaker does, with a growing pause
// after a refusal, as the pool does.
func (s *simFleet) dial(e simEvent) {
	switch e.kind {
	case simGreeted:
		s.dialing--
		s.made++
		s.conns[s.made] = &simConn{since: e.at - s.closeAfter*0.2*s.rnd.Float64()}
		s.pause = 0
		s.at(e.at, simBegin, s.made)
	case simCrowded:
		s.dialing--
		s.sample.crowded++
		s.log.refusedDials[int(e.at)]++
		s.pause = min(max(2*s.pause, 0.2), 5)
		s.dialAt = e.at + s.pause
	}
	want := s.want
	if s.caps.open > 0 {
		want = min(want, s.caps.open)
	}
	for s.dialing < 2 && len(s.conns)+s.dialing < want && e.at >= s.dialAt {
		s.dialing++
		kind := simGreeted
		if s.relay.open > 0 && s.open >= s.relay.open {
			kind = simCrowded
		} else {
			s.open++
		}
		s.at(e.at+s.rtt*(1+0.2*s.rnd.Float64()), kind, 0)
	}
	if len(s.conns)+s.dialing < want && e.at < s.dialAt {
		s.at(s.dialAt, simDial, 0)
	}
}

func (s *simFleet) tick(now float64) {
	s.sample.at, s.sample.open = int64(now*1e6), len(s.conns)
	if len(s.replies) > 0 && !s.untimed {
		s.log.reply = median(s.replies)
		s.sample.reply, s.sample.replies = int64(s.log.reply*1e6), len(s.replies)
	}
	if s.restarts {
		text, err := s.learner.save()
		if err != nil {
			panic(err)
		}
		if s.learner, err = readLearner(text); err != nil {
			panic(err)
		}
	}
	s.caps = s.learner.step(s.sample, s.bounds())
	if f := s.learner.Rates[""]; f != nil {
		s.log.modes[int(now)] = f.Mode.String()
	}
	s.log.open[int(now)], s.log.perConnection[int(now)] = len(s.conns), s.caps.perConnection
	s.clear()
	s.at(now+0.25, simTick, 0)
	s.at(now, simDial, 0)
}
