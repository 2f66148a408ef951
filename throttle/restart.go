package throttle

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// AssumeFull tells the store what it may have forgotten, for the case that it
// came back with older data. Windows longer than a minute are charged what this
// process was granted in its last minute, and all windows of new connections those
// that the store does not know of; no slot is taken before all that were given out
// have passed. A store that restarts has itself charged what connections it may have
// lost of its last 3 s. If it turns out to have lost more, windows of new connections
// up to a minute count as used up, so that none is opened for that long. Every process
// that outlived the store calls it.
func (b *Budget) AssumeFull(ctx context.Context) error {
	r, err := b.charge(ctx, b.granted(func(g begun) bool { return g.plan.open == 0 }))
	if err == nil {
		err = b.chargeDials(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("mark budget as used: %w", err)
	}
	return nil
}

// chargeDials tells the store of the connections that it lost, once.
func (b *Budget) chargeDials(ctx context.Context, r restart) error {
	lost := func(g begun) bool { return g.plan.open > 0 && g.now > r.since && (r.from == 0 || g.now < r.from) }
	rewound := b.rewound(r, lost)
	b.mu.Lock()
	told := r.from > 0 && b.told == r.from
	b.mu.Unlock()
	cs := b.granted(lost)
	if rewound {
		b.fill(cs)
	}
	if told || len(cs) == 0 {
		return nil
	}
	if _, err := b.charge(ctx, cs); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = r.from
	return nil
}

func (b *Budget) charge(ctx context.Context, cs map[string]charge) (r restart, err error) {
	list := make([]charge, 0, len(cs))
	for _, name := range names(cs) {
		list = append(list, cs[name])
	}
	err = b.call(func() error {
		r, err = b.store.charge(ctx, b.timelines(), list)
		return err
	})
	return r, err
}

// rewound tells whether the store has lost more than its last seconds: all that it knew
// of connections, or some that lie further apart.
func (b *Budget) rewound(r restart, lost func(begun) bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dialled.n == 0 {
		return false
	}
	if r.since == 0 {
		return true
	}
	var first, last int64
	for _, g := range append(slices.Clone(b.recent), b.dialled) {
		if lost(g) {
			if first == 0 {
				first = g.now
			}
			last = g.now
		}
	}
	return last-first > micros(lostMost)
}

// fill makes the charges fill windows of new connections up to a minute.
func (b *Budget) fill(cs map[string]charge) {
	for _, stream := range append(b.p.Limits.shares(), "") {
		p := b.p.Limits.connectPlan(stream)
		for _, bd := range p.bounds {
			if c := p.counters[bd.counter]; c.grain*buckets <= micros(time.Minute) {
				cs[c.name] = charge{counter: c, n: bd.n, fill: true}
			}
		}
	}
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

// remember keeps a grant for a minute, and the last one of a connection for ever.
func (b *Budget) remember(g begun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := 0
	for old < len(b.recent) && g.at.Sub(b.recent[old].at) > time.Minute {
		old++
	}
	b.recent = append(b.recent[old:], g)
	if g.plan.open > 0 {
		b.dialled = g
	}
}

// granted is what this process was granted in its last minute, of some kind, by the
// counters that bound it.
func (b *Budget) granted(of func(begun) bool) map[string]charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	cs := map[string]charge{}
	for _, g := range b.recent {
		if b.recent[len(b.recent)-1].at.Sub(g.at) > time.Minute || !of(g) {
			continue
		}
		for _, c := range g.plan.bounding() {
			k := cs[c.name]
			cs[c.name] = charge{counter: c, n: k.n + g.n}
		}
	}
	return cs
}
