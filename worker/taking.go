package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sluicemail/sluice/throttle"
)

// A block in the hands of a worker that can get no connection is sent by nobody, however
// many connections the others have open. So who has none leaves the blocks to those that
// have: of a stream that keeps connections open at all times, and of any other once the
// budget has refused one for a while.
const (
	patience  = 2 * time.Second  // without a connection while others have some
	leastRest = 2 * time.Second  // before it is tried again; doubled each time
	mostRest  = 60 * time.Second // up to here
)

// intake is one stretch of taking jobs.
type intake struct {
	mu       sync.Mutex
	over     bool // no handler may begin any more
	handlers sync.WaitGroup
}

func (i *intake) begin() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.over {
		i.handlers.Add(1)
	}
	return !i.over
}

func (i *intake) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = true
}

// takeJobs takes jobs whenever this worker is of use to its stream, until ctx ends and
// the handlers have returned.
func (l *lane) takeJobs(ctx, stop context.Context) {
	rest := time.Duration(0)
	for l.awaitUse(ctx, rest) {
		in := &intake{}
		jobs, err := l.conf.Queue.Listen(l.stream, l.blocks(), func(campaign string, block int) {
			if in.begin() { // else the reconciler finds the job gone and makes it again
				defer in.handlers.Done()
				l.handle(stop, campaign, block)
			}
		})
		if err != nil {
			l.log.Error("no jobs can be taken", "err", err)
			rest = mostRest
			continue
		}
		l.take(true)
		if l.awaitUseless(ctx) {
			rest = 0
		}
		rest = min(max(2*rest, leastRest), mostRest)
		in.stop()
		l.take(false)
		jobs.StopTaking()
		in.handlers.Wait()
		l.asides.Wait()
		if err := jobs.Close(); err != nil {
			l.log.Debug("closing the job server", "err", err)
		}
	}
}

// take begins or ends the taking of jobs. At the end what was taken goes back, with what
// waits for a connection.
func (l *lane) take(on bool) {
	l.feed.open(on)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taking = on
	if !on && l.stopAsking != nil {
		l.stopAsking()
	}
}

func (l *lane) isTaking() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taking
}

// awaitUse waits until this worker can send, or nobody else does: then it is the one to
// mark what expires. It is false when ctx has ended.
func (l *lane) awaitUse(ctx context.Context, rest time.Duration) bool {
	over := time.Now().Add(rest)
	for ctx.Err() == nil {
		look := l.fleet.next()
		switch {
		case l.connections() > 0, l.fleet.others(l.stream) == 0, l.sc.Warm == 0 && time.Now().After(over):
			return true
		}
		select {
		case <-look:
		case <-ctx.Done():
		}
	}
	return false
}

// awaitUseless waits until others have had connections for a while and this worker has
// none, or ctx ends. It reports whether there has been one meanwhile.
func (l *lane) awaitUseless(ctx context.Context) (worked bool) {
	since := time.Now()
	for ctx.Err() == nil && time.Since(since) < patience {
		select {
		case <-l.fleet.next():
		case <-ctx.Done():
		}
		connected := l.connections() > 0
		idle := l.sc.Warm == 0 && !l.feed.busy()
		if connected || idle || l.fleet.others(l.stream) == 0 {
			since = time.Now()
		}
		worked = worked || connected
	}
	return worked
}

// held is the lease of one of the lane's connections, which the lane may give up itself.
type held struct {
	*throttle.Lease
	lane    *lane
	greeted bool // under the lane's mu
	up      chan struct{}
	lost    chan struct{}
	over    chan struct{}
}

// keep notes the lease of a connection that is being opened.
func (l *lane) keep(lease *throttle.Lease) *held {
	h := &held{Lease: lease, lane: l, up: make(chan struct{}), lost: make(chan struct{}), over: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases = append(l.leases, h)
	go func() {
		select {
		case <-lease.Lost():
		case <-h.up:
		case <-h.over:
			return
		}
		close(h.lost)
	}()
	return h
}

// greets notes that the relay took the connection.
func (h *held) greets() {
	h.lane.mu.Lock()
	h.greeted = true
	h.lane.mu.Unlock()
	h.Greeted()
}

// Lost implements smtp.Lease.
func (h *held) Lost() <-chan struct{} { return h.lost }

// Release implements smtp.Lease.
func (h *held) Release() {
	l := h.lane
	l.mu.Lock()
	l.leases = slices.DeleteFunc(l.leases, func(other *held) bool { return other == h })
	l.mu.Unlock()
	close(h.over)
	h.Lease.Release()
}

// connections is how many are open.
func (l *lane) connections() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.leases {
		if h.greeted {
			n++
		}
	}
	return n
}

// errLeft is why nobody need dial: the jobs are left to other workers.
var errLeft = errors.New("other workers have the connections")

// awaitNeed waits until one more connection is wanted: by mail, or because the fleet
// keeps fewer of the stream open than it is to. What came too late for the others to be
// left to them, errLeft sends back.
func (l *lane) awaitNeed(ctx context.Context) error {
	for {
		look, arrival := l.fleet.next(), l.feed.arrival()
		taking, busy := l.isTaking(), l.feed.busy()
		switch open := l.connections(); {
		case l.fleet.held(l.stream) < l.sc.Warm, taking && l.sc.Warm == 0,
			taking && busy && open == 0, taking && l.feed.Waiting():
			return ctx.Err()
		case open > 0:
			arrival = nil // it has somebody to be sent by
		}
		select {
		case <-look:
		case <-arrival:
		case <-ctx.Done():
			return ctx.Err()
		}
		if busy && !taking {
			return errLeft
		}
	}
}

// trim gives up connections that are more than the fleet is to keep of the stream, and
// that no mail has had to wait for in a while: each worker would hold its own open
// otherwise, and leave none for other streams. It works until ctx ends.
func (l *lane) trim(ctx context.Context) {
	idle := l.conf.PerConnection.Idle
	if idle <= 0 {
		idle = 30 * time.Second
	}
	rested := time.Now()
	for ctx.Err() == nil {
		select {
		case <-l.fleet.next():
		case <-ctx.Done():
		}
		if l.feed.Waiting() {
			rested = time.Now()
		}
		if time.Since(rested) >= idle && l.giveUp(l.fleet.beyond(l.stream, l.sc.Warm)) {
			rested = time.Now() // what is seen next may still count them
		}
	}
}

// giveUp ends n open connections.
func (l *lane) giveUp(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended := 0
	for _, h := range l.leases {
		if ended == n {
			break
		}
		if h.greeted {
			h.greeted = false
			close(h.up)
			ended++
		}
	}
	return ended > 0
}
