package throttle

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// counts move with every call and message.
type counts struct {
	calls, failed, leased, begun, capped, dials, lost atomic.Uint64
}

// Stats are counters since the budget was made, for metrics.
type Stats struct {
	Calls    uint64 // calls to Redis
	Failed   uint64 // of these, without an answer
	Leased   uint64 // messages leased
	Begun    uint64 // of these, begun
	Lapsed   uint64 // of these, not begun in time and given back
	Capped   uint64 // of these, dropped because the process alone was at the limit
	Attempts uint64 // connections that might be opened
	Lost     uint64 // leases of connections that could not be renewed
}

// Stats returns the counters.
func (b *Budget) Stats() Stats {
	s := Stats{
		Calls: b.stats.calls.Load(), Failed: b.stats.failed.Load(),
		Leased: b.stats.leased.Load(), Begun: b.stats.begun.Load(), Capped: b.stats.capped.Load(),
		Attempts: b.stats.dials.Load(), Lost: b.stats.lost.Load(),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.supplies {
		s.Lapsed += c.stock.lapsedCount()
	}
	return s
}

// Usage is the state of the fleet's budget.
type Usage struct {
	Messages    []Use     // limits first, then the streams' reserves and limits, then the groups'
	Connections []Use     // connection attempts: limits first, then the streams'
	WarmUp      []Warming // by domain
	Open        int       // connections leased
	OpenLimit   int       //
	Holders     []Holder  // of leases, by owner and stream
	Breakers    []Breaker // what is not closed, or dialling
}

// Use is one window.
type Use struct {
	Name   string // in the configuration, such as streams.auth.reserve
	Stream string // whose reserve or limit it is; "" for the others
	Window Window
	Used   int // in the window and its slack
	Left   int // never below 0
}

// Warming is a sender's warm-up.
type Warming struct {
	Domain string // or Everyone
	Ramp   Ramp
	Since  time.Time // of the first message; zero: none yet
	Day    int       // counted from 1
	Use              // of the 24 hours, with the limit of the day
}

// Holder is a process that holds connections.
type Holder struct {
	Owner, Stream string
	Connections   int
	Lapse         time.Duration // until the first of them lapses unless renewed
}

// Usage reads what the fleet has used and who holds the connections.
func (b *Budget) Usage(ctx context.Context) (Usage, error) {
	q := b.p.Limits.inquiry()
	var raw usage
	err := b.call(func() (err error) {
		raw, err = b.store.usage(ctx, q.counters)
		return err
	})
	if err != nil {
		return Usage{}, fmt.Errorf("read budget: %w", err)
	}
	now := time.Now()
	for i, n := range raw.used {
		q.uses[i].Used, q.uses[i].Left = n, max(0, q.uses[i].Window.N-n)
	}
	return Usage{
		Messages: q.uses[:q.messages], Connections: q.uses[q.messages:q.connections],
		WarmUp: b.p.Limits.warming(q.uses[q.connections:], raw, now),
		Open:   len(raw.leases), OpenLimit: b.p.Limits.Open, Holders: holders(raw.leases),
		Breakers: raw.showBreakers(now),
	}, nil
}

// inquiry is every window there is, with its counter.
type inquiry struct {
	uses                  []Use
	counters              []counter
	messages, connections int // how many of uses are about messages, and about either
}

func (q *inquiry) add(u Use, kind, name string, ws []Window) {
	for _, w := range sorted(ws) {
		u.Window = w
		q.uses = append(q.uses, u)
		q.counters = append(q.counters, newCounter(kind, name, w.Per, false))
	}
}

func (l Limits) inquiry() inquiry {
	var q inquiry
	q.add(Use{Name: "limits.messages"}, "m", "", l.Messages)
	for _, s := range l.shares() {
		q.add(Use{Name: "streams." + s + ".reserve", Stream: s}, "m", s, l.Streams[s].Reserve)
		q.add(Use{Name: "streams." + s + ".messages", Stream: s}, "x", s, l.Streams[s].Messages)
	}
	for _, g := range names(l.Groups) {
		q.add(Use{Name: "groups." + g + ".messages"}, "g", g, l.Groups[g])
	}
	q.messages = len(q.uses)
	q.add(Use{Name: "limits.connections.new"}, "c", "", l.New)
	for _, s := range l.shares() {
		q.add(Use{Name: "streams." + s + ".openings", Stream: s}, "o", s, l.Streams[s].New)
	}
	q.connections = len(q.uses)
	for _, d := range names(l.WarmUp) {
		q.add(Use{Name: "warm_up." + d}, "w", d, []Window{l.WarmUp[d].window()})
	}
	return q
}

// warming puts the ramps' uses on the days that they have reached.
func (l Limits) warming(uses []Use, raw usage, now time.Time) []Warming {
	var list []Warming
	for i, d := range names(l.WarmUp) {
		w := Warming{Domain: d, Ramp: l.WarmUp[d], Use: uses[i], Day: 1}
		if first, begun := raw.firsts[d]; begun {
			age := time.Duration(raw.now-first) * time.Microsecond
			w.Since, w.Day = now.Add(-age), 1+int(age/rampPer)
		}
		w.Window.N = w.Ramp.limit(w.Day - 1)
		w.Left = max(0, w.Window.N-w.Used)
		list = append(list, w)
	}
	return list
}

func holders(leases []leaseLeft) []Holder {
	type who struct{ owner, stream string }
	by := map[who]*Holder{}
	for _, l := range leases {
		stream, owner := splitLease(l.name)
		h := by[who{owner, stream}]
		if h == nil {
			h = &Holder{Owner: owner, Stream: stream, Lapse: l.left}
			by[who{owner, stream}] = h
		}
		h.Connections++
		h.Lapse = min(h.Lapse, l.left)
	}
	list := make([]Holder, 0, len(by))
	for _, h := range by {
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Stream, b.Stream))
	})
	return list
}

// outage logs the store's outages, one line when each begins and one when it ends.
type outage struct {
	log   *slog.Logger
	mu    sync.Mutex
	since time.Time // zero: none
	heard time.Time // when the store answered last
}

// begin notes an error of a call that was begun at asked. If the store has answered
// another one since, it is no outage: calls that waited for a frozen one end about when
// it is back.
func (o *outage) begin(asked time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() && o.heard.Before(asked) {
		o.since = time.Now()
		o.log.Warn("budget: no answer from Redis; no message and no connection is started until it is back", "err", err)
	}
}

func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = time.Now()
	if !o.since.IsZero() {
		o.log.Info("budget: Redis is back", "after", time.Since(o.since).Round(time.Millisecond))
		o.since = time.Time{}
	}
}
