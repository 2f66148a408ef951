package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/throttle"
)

// lookEvery is how often a worker looks at who holds connections.
const lookEvery = time.Second

// silentFor is how long a holder's leases may go unrenewed before it counts as dead or
// frozen: it renews them every second.
const silentFor = 4 * time.Second

// fleet is what a worker knows of who holds connections to the relay, by stream. What it
// knows is up to a second old, so it decides only what may be wrong for a while: the
// limits are the budget's.
type fleet struct {
	usage func(context.Context) (throttle.Usage, error)
	owner string // we

	mu      sync.Mutex
	looked  chan struct{} // closed and replaced at each look
	holders map[mail.Stream][]holder
	dials   map[mail.Stream]int // connections among them that are not greeted yet
}

// holder is a worker that holds connections of a stream.
type holder struct {
	owner       string
	connections int
	lapse       time.Time // when the first of them lapses unless renewed
	renewed     time.Time // when that was last seen to have moved
}

func newFleet(owner string, usage func(context.Context) (throttle.Usage, error)) *fleet {
	return &fleet{usage: usage, owner: owner, looked: make(chan struct{})}
}

// run looks until ctx ends.
func (f *fleet) run(ctx context.Context) {
	for {
		asking, cancel := context.WithTimeout(ctx, lookEvery)
		u, err := f.usage(asking)
		cancel()
		f.see(u, err, time.Now())
		if wait(ctx, lookEvery) != nil {
			return
		}
	}
}

// see takes one look. Where nothing can be learned, nobody is known to hold anything.
func (f *fleet) see(u throttle.Usage, err error, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.holders
	f.holders, f.dials = map[mail.Stream][]holder{}, map[mail.Stream]int{}
	if err == nil {
		for _, h := range u.Holders {
			s := mail.Stream(h.Stream)
			next := holder{h.Owner, h.Connections, now.Add(h.Lapse), now}
			i := slices.IndexFunc(before[s], func(b holder) bool { return b.owner == h.Owner })
			if i >= 0 && next.lapse.Sub(before[s][i].lapse) < lookEvery/4 {
				next.renewed = before[s][i].renewed
			}
			f.holders[s] = append(f.holders[s], next)
		}
		for _, b := range u.Breakers {
			f.dials[mail.Stream(b.Stream)] += b.Ungreeted
		}
	}
	close(f.looked)
	f.looked = make(chan struct{})
}

// next is closed at the next look.
func (f *fleet) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looked
}

// alive lists the holders of a stream that go on renewing, in the same order for all who
// ask. The caller holds f.mu.
func (f *fleet) alive(s mail.Stream) []holder {
	var list []holder
	for _, h := range f.holders[s] {
		if time.Since(h.renewed) < silentFor {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b holder) int {
		if a.owner < b.owner {
			return -1
		}
		return 1
	})
	return list
}

// held is how many connections of a stream the living hold, we among them, with those
// being dialled.
func (f *fleet) held(s mail.Stream) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.alive(s) {
		n += h.connections
	}
	return n
}

// others is how many open connections of a stream other living workers hold.
func (f *fleet) others(s mail.Stream) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.alive(s) {
		if h.owner != f.owner {
			n += h.connections
		}
	}
	return max(0, n-f.dials[s])
}

// beyond is how many of our connections of a stream are more than the fleet is to keep
// of it: all workers agree on whose those are.
func (f *fleet) beyond(s mail.Stream, keep int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := 0
	for _, h := range f.alive(s) {
		sum += h.connections
		if h.owner == f.owner {
			return max(0, min(h.connections, sum-keep))
		}
	}
	return 0
}
