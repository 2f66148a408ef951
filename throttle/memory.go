package throttle

import (
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
	slots  map[string]int64  // next free slot; of a learned rate the last one
	counts map[string]*count // by counter name
	firsts map[string]int64  // when a warm-up began
	stop   [3]int64          // by right: until when lesser ones stand back
	open   map[string]int64  // lapse by lease name
	now    func() time.Time  // nil: time.Now
	run    string            // which incarnation of the store this is; "": it does not say
	ran    string            // the last one that this was seen on
	since  int64             // dialled, when that one began
	from   int64             // no connection is granted before, since that one began
	told   map[string]string // by counter: the incarnation of which it has been charged

	dialled int64 // when a connection was granted last
	born    int64 // when connect was asked first

	breakers map[string]*breaker        // by login; their dials by stream
	refused  map[[2]string]refusedLogin // by login and fingerprint
	logins   map[string]string          // by stream, where it is not one of its own
	caps     map[string]float64         // what was learned, as KEYS[1] has it
	sightings
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
		m.firsts, m.breakers, m.refused = map[string]int64{}, map[string]*breaker{}, map[[2]string]refusedLogin{}
		m.logins = map[string]string{}
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
		n, retry = b.room(counts, n, retry)
	}
	return n, retry
}

func (b bound) room(counts []*count, n int, retry int64) (int, int64) {
	left := b.n - counts[b.counter].used
	for _, h := range b.held {
		left -= max(0, h.n-counts[h.counter].used)
	}
	if left < 1 {
		retry = max(retry, counts[b.counter].frees)
	}
	return min(n, max(0, left)), retry
}

// today is the ramp's bound on the day it has reached.
func (m *Memory) today(r ramp, now int64) bound {
	first, begun := m.firsts[r.name]
	if !begun {
		first = now
	}
	b := bound{counter: r.counter, n: r.limit(int((now - first) / micros(rampPer)))}
	for _, h := range r.held {
		share := float64(h.n) * float64(b.n) / float64(r.Ceiling)
		b.held = append(b.held, held{h.counter, int(share)})
	}
	return b
}

func (m *Memory) count(cs []counter, counts []*count, now int64, n int) {
	for i, c := range cs {
		if c.charge {
			counts[i].add(now/c.grain, n)
		}
	}
}
