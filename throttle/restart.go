package throttle

import (
	"context"
	"fmt"
	"time"
)

// AssumeFull tells the store what it may have forgotten, for the case that it
// came back with older data: windows of new connections up to a minute count as
// used up, so none is opened for that long; longer windows are charged what
// this process was granted in the last minute; no slot is taken before all that
// were given out have passed. Every process that outlived the store calls it.
func (b *Budget) AssumeFull(ctx context.Context) error {
	cs := b.lastMinute(time.Now())
	for _, stream := range append(b.p.Limits.shares(), "") {
		p := b.p.Limits.connectPlan(stream)
		for _, bd := range p.bounds {
			if c := p.counters[bd.counter]; c.grain*buckets <= micros(time.Minute) {
				cs[c.name] = charge{counter: c, n: bd.n, fill: true}
			}
		}
	}
	list := make([]charge, 0, len(cs))
	for _, name := range names(cs) {
		list = append(list, cs[name])
	}
	if err := b.call(func() error { return b.store.charge(ctx, b.timelines(), list) }); err != nil {
		return fmt.Errorf("mark budget as used: %w", err)
	}
	return nil
}

// timelines names every timeline that this process may have leased from.
func (b *Budget) timelines() []string {
	all := map[string]bool{learnedSlot: true}
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, s := range b.supplies {
		if c.Group != "" {
			all[learnedSlot+":"+c.Group] = true
		}
		for _, t := range s.plan.slots {
			all[t.name] = true
		}
	}
	return names(all)
}

// remember keeps a grant for a minute.
func (b *Budget) remember(g begun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := 0
	for old < len(b.recent) && g.at.Sub(b.recent[old].at) > time.Minute {
		old++
	}
	b.recent = append(b.recent[old:], g)
}

// lastMinute is what this process was granted in the last minute, by the counters
// that bound it.
func (b *Budget) lastMinute(now time.Time) map[string]charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	cs := map[string]charge{}
	for _, g := range b.recent {
		if now.Sub(g.at) > time.Minute {
			continue
		}
		for _, c := range g.plan.bounding() {
			k := cs[c.name]
			cs[c.name] = charge{counter: c, n: k.n + g.n}
		}
	}
	return cs
}
