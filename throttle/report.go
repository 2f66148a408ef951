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
	for _, st := range b.streams {
		s.Lapsed += st.stock.lapsedCount()
	}
	return s
}

// Usage is the state of the fleet's budget.
type Usage struct {
	Messages    []Use    // limits first, then the streams' reserves
	Connections []Use    // connection attempts
	Open        int      // connections leased
	OpenLimit   int      //
	Holders     []Holder // of leases, by owner and stream
}

// Use is one window.
type Use struct {
	Stream string // whose reserve it is; "" for the limit of all
	Window Window
	Used   int // in the window and its slack
	Left   int // never below 0
}

// Holder is a process that holds connections.
type Holder struct {
	Owner, Stream string
	Connections   int
	Lapse         time.Duration // until the first of them lapses unless renewed
}

// Usage reads what the fleet has used and who holds the connections.
func (b *Budget) Usage(ctx context.Context) (Usage, error) {
	u := Usage{OpenLimit: b.p.Limits.Open}
	var cs []counter
	add := func(list *[]Use, kind, stream string, ws []Window) {
		for _, w := range sorted(ws) {
			*list = append(*list, Use{Stream: stream, Window: w})
			cs = append(cs, newCounter(kind, stream, w.Per, false))
		}
	}
	add(&u.Messages, "m", "", b.p.Limits.Messages)
	for _, name := range b.p.Limits.shares() {
		add(&u.Messages, "m", name, b.p.Limits.Streams[name].Reserve)
	}
	add(&u.Connections, "c", "", b.p.Limits.New)
	var raw usage
	err := b.call(func() (err error) {
		raw, err = b.store.usage(ctx, cs)
		return err
	})
	if err != nil {
		return Usage{}, fmt.Errorf("read budget: %w", err)
	}
	for i, n := range raw.used {
		use := &u.Messages
		if i >= len(u.Messages) {
			use, i = &u.Connections, i-len(u.Messages)
		}
		(*use)[i].Used, (*use)[i].Left = n, max(0, (*use)[i].Window.N-n)
	}
	u.Open, u.Holders = len(raw.leases), holders(raw.leases)
	return u, nil
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
}

func (o *outage) begin(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since = time.Now()
		o.log.Warn("budget: no answer from Redis; no message and no connection is started until it is back", "err", err)
	}
}

func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.since.IsZero() {
		o.log.Info("budget: Redis is back", "after", time.Since(o.since).Round(time.Millisecond))
		o.since = time.Time{}
	}
}
