package throttle

import (
	"context"
	"maps"
	"math"
	"sync"
	"time"
)

// Memory is an account's windows and leases inside one process: for tests, for
// rehearsals, and to read what the Lua scripts do. Budgets that share one
// Memory are one fleet. The zero value is ready.
type Memory struct {
	mu     sync.Mutex
	clock  int64             // last time seen, µs; the account's time never runs back
	skew   int64             // µs that were added so that it does not
	slots  map[string]int64  // next free slot
	counts map[string]*count // by counter name
	open   map[string]int64  // lapse by lease name
	now    func() time.Time  // nil: time.Now
}

// count is the buckets of one counter, oldest first, and their sum.
type count struct {
	buckets []bucket
	used    int
	frees   int64 // µs until the oldest bucket leaves
}

type bucket struct {
	index int64
	n     int
}

// tick starts a step: it moves the clock and drops what has left the counters.
func (m *Memory) tick(cs []counter) (now int64, counts []*count) {
	if m.slots == nil {
		m.slots, m.counts, m.open = map[string]int64{}, map[string]*count{}, map[string]int64{}
	}
	clock := m.now
	if clock == nil {
		clock = time.Now
	}
	now = clock().UnixMicro() + m.skew
	if m.clock > now {
		m.skew += m.clock - now
		now = m.clock
	}
	m.clock = now
	for _, c := range cs {
		k := m.counts[c.name]
		if k == nil {
			k = &count{}
			m.counts[c.name] = k
		}
		k.frees = 0
		for len(k.buckets) > 0 {
			b := k.buckets[0]
			if k.frees = (b.index+1)*c.grain + c.span - now; k.frees > 0 {
				break
			}
			k.used -= b.n
			k.buckets = k.buckets[1:]
		}
		counts = append(counts, k)
	}
	return now, counts
}

func (k *count) add(index int64, n int) {
	if last := len(k.buckets) - 1; last >= 0 && k.buckets[last].index == index {
		k.buckets[last].n += n
	} else {
		k.buckets = append(k.buckets, bucket{index, n})
	}
	k.used += n
}

// remove takes up to n off the bucket, if it is among the newest four.
func (k *count) remove(index int64, n int) {
	for i := len(k.buckets) - 1; i >= max(0, len(k.buckets)-4); i-- {
		if b := &k.buckets[i]; b.index == index {
			n = min(n, b.n)
			b.n -= n
			k.used -= n
			return
		}
	}
}

// room is how many of n fit into every bound.
func room(bounds []bound, counts []*count, n int) (fit int, retry int64) {
	for _, b := range bounds {
		left := b.n - counts[b.counter].used
		for _, h := range b.held {
			left -= max(0, h.n-counts[h.counter].used)
		}
		if left < 1 {
			retry = max(retry, counts[b.counter].frees)
		}
		n = min(n, max(0, left))
	}
	return n, retry
}

func (m *Memory) messages(_ context.Context, p *plan, n int, back []unused) (grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, counts := m.tick(p.counters)
	for _, u := range back {
		for i, c := range p.counters {
			if c.charge {
				counts[i].remove(u.at/c.grain, u.n)
			}
		}
	}
	n, retry := room(p.bounds, counts, n)
	ahead, left := p.ahead, n
	for _, r := range p.own {
		left = min(left, r.n-counts[r.counter].used)
	}
	if len(p.own) > 0 && left > 0 {
		ahead, n = micros(aheadWithin), left
	}

	next, start := m.timelines(p, now)
	every := p.every()
	if len(p.slots) > 0 {
		n = min(n, max(0, int(math.Floor(float64(now+ahead-start)/every))+1))
	}
	if n > 0 {
		for i, s := range p.slots {
			last := float64(start) + float64(float64(n-1)*every)
			at := math.Max(float64(next[i])+float64(float64(n)*s.every), last-float64(s.late)+s.every)
			next[i] = int64(math.Ceil(at))
			m.slots[s.name] = next[i]
		}
		m.count(p.counters, counts, now, n)
	}
	for i := range p.slots {
		retry = max(retry, next[i]-ahead-now)
	}
	return grant{n: n, delay: start - now, retry: retry, now: now}, nil
}

// timelines returns the next slot of every window, and the latest of them.
func (m *Memory) timelines(p *plan, now int64) (next []int64, start int64) {
	start = now
	for i, s := range p.slots {
		at, ok := m.slots[s.name]
		if !ok {
			// The timeline begins, or was lost: after all slots given out before.
			at = now + micros(aheadWithin)
			m.slots[s.name] = at
		}
		at = max(at, now-s.late)
		if i == 0 || at > start {
			start = at
		}
		next = append(next, at)
	}
	return next, start
}

func (m *Memory) count(cs []counter, counts []*count, now int64, n int) {
	for i, c := range cs {
		if c.charge {
			counts[i].add(now/c.grain, n)
		}
	}
}

// prune drops the leases that have lapsed.
func (m *Memory) prune(now int64) {
	maps.DeleteFunc(m.open, func(_ string, lapse int64) bool { return lapse <= now })
}

// mayOpen tells whether the stream may have one more connection.
func (m *Memory) mayOpen(p *plan, stream string, now int64) bool {
	m.prune(now)
	held := map[string]int{}
	for lease := range m.open {
		s, _ := splitLease(lease)
		held[s]++
	}
	left := p.open - len(m.open)
	for _, s := range p.shares {
		if s.stream != stream {
			left -= max(0, s.n-held[s.stream])
		}
	}
	return left > 0
}

func (m *Memory) connect(_ context.Context, p *plan, lease string, lapse time.Duration) (grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, counts := m.tick(p.counters)
	n, retry := room(p.bounds, counts, 1)
	if n == 1 && m.mayOpen(p, p.stream, now) {
		m.open[lease] = now + micros(lapse)
		m.count(p.counters, counts, now, 1)
	} else {
		n = 0
	}
	return grant{n: n, retry: retry, now: now}, nil
}

func (m *Memory) renew(_ context.Context, p *plan, leases []string, lapse time.Duration) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	held := make([]bool, len(leases))
	for i, lease := range leases {
		stream, _ := splitLease(lease)
		mayOpen := m.mayOpen(p, stream, now) // first: it drops what has lapsed
		if _, known := m.open[lease]; known || mayOpen {
			m.open[lease] = now + micros(lapse)
			held[i] = true
		}
	}
	return held, nil
}

func (m *Memory) release(_ context.Context, leases []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, lease := range leases {
		delete(m.open, lease)
	}
	return nil
}

func (m *Memory) releaseOwner(_ context.Context, owner string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	m.prune(now)
	n := 0
	for lease := range m.open {
		if _, o := splitLease(lease); o == owner {
			delete(m.open, lease)
			n++
		}
	}
	return n, nil
}

func (m *Memory) charge(_ context.Context, timelines []string, cs []charge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	specs := make([]counter, len(cs))
	for i, c := range cs {
		specs[i] = c.counter
	}
	now, counts := m.tick(specs)
	for _, name := range timelines {
		m.slots[name] = max(m.slots[name], now+micros(aheadWithin))
	}
	for i, c := range cs {
		n := c.n
		if c.fill {
			n -= counts[i].used
		}
		if n > 0 {
			counts[i].add(now/c.grain, n)
		}
	}
	return nil
}

func (m *Memory) usage(_ context.Context, cs []counter) (usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, counts := m.tick(cs)
	var u usage
	for _, k := range counts {
		u.used = append(u.used, k.used)
	}
	for lease, lapse := range m.open {
		if lapse > now {
			u.leases = append(u.leases, leaseLeft{lease, time.Duration(lapse-now) * time.Microsecond})
		}
	}
	return u, nil
}
