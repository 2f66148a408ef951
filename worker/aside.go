package worker

import (
	"math/rand/v2"
	"time"

	"github.com/sluicemail/sluice/throttle"
)

// Where a destination group has a small limit of its own, blocks come to hold nobody but
// its recipients. They must not take the places of blocks that could be sent, nor may
// the group run out of recipients. So a work that waits for nothing but groups is set
// aside: it stays in the feed, and another block is claimed in its place. As soon as
// enough of a group is in hand, further blocks go back to the queue, each until about
// the time when it is needed.
const (
	// mostAside is how many works are set aside at once; for the cost of looking at each
	// of them whenever there is no budget.
	mostAside = 256
	// inHand is how long what is in hand of a group must last before more goes back.
	inHand = 30 * time.Second
	// parkAfter is how long a lot must have no budget at all before its block is given
	// back: others may have what it waits for sooner.
	parkAfter = 5 * time.Second
	// leastParked and mostParked bound how long a block is away because others of its
	// group are before it.
	leastParked = 200 * time.Millisecond
	mostParked  = 2 * time.Minute
	// mostSpread is how far apart blocks come back that wait for the same moment.
	mostSpread = time.Second
)

// backlog is how many recipients of a class are in works that come first.
type backlog struct {
	class throttle.Class
	n     int
}

// ahead is how many of a class are before the work that pick looks at. The caller holds
// f.mu.
func (f *feed) ahead(c throttle.Class) int {
	for _, b := range f.before {
		if b.class == c {
			return b.n
		}
	}
	return 0
}

// passOver notes that pick goes on to the works behind w. The caller holds f.mu.
func (f *feed) passOver(w *work) {
next:
	for _, l := range w.lots {
		for n := range f.before {
			if b := &f.before[n]; b.class == l.class {
				b.n += len(l.due)
				continue next
			}
		}
		f.before = append(f.before, backlog{l.class, len(l.due)})
	}
}

// rest deals with a work of which nothing can be taken now: it is given back where it
// has to wait long, or set aside where it waits for groups alone. The caller holds f.mu.
func (f *feed) rest(w *work) {
	if w.over() {
		return
	}
	grouped := !w.isAside && f.grouped(w)
	if f.park(w, grouped && f.asides >= mostAside) {
		return
	}
	if grouped && f.asides < mostAside {
		w.isAside = true
		f.asides++
		close(w.aside)
	}
}

// grouped reports whether all that is left of w waits for its groups' own limits, or
// holds.
func (f *feed) grouped(w *work) bool {
	for _, l := range w.lots {
		if len(l.due) == 0 {
			continue
		}
		if _, held := f.heldGroup(l.class.Group); !held && f.gaps.of(l.class.Group) == 0 {
			return false
		}
	}
	return true
}

// park gives the block back until its rest can be sent, where that is not soon, or where
// there is no room for it. What waits for the budget of the whole stream is not parked:
// any other block of it would wait just as long.
func (f *feed) park(w *work, crowded bool) bool {
	if w.inFlight > 0 {
		return false
	}
	now := f.ledger.Now()
	var first *lot
	soonest := int64(0)
	for n := range w.lots {
		l := &w.lots[n]
		if len(l.due) == 0 {
			continue
		}
		at, away := f.resumes(l, now, crowded)
		if !away {
			return false
		}
		if first == nil || at < soonest {
			first, soonest = l, at
		}
	}
	if first == nil || f.budget.Wait(throttle.Class{Stream: string(f.stream)}) >= parkAfter {
		return false
	}
	f.queueUp(first, soonest)
	w.parked = soonest + rand.Int64N(min((soonest-now)/4, mostSpread.Milliseconds())+1)
	// Who is too old is to be told so in time.
	if f.conf.TTL > 0 {
		if end := f.expiry(w.claim, -1).UnixMilli(); end > now {
			w.parked = min(w.parked, end)
		}
	}
	w.claim.NotBefore = func(int) int64 { return w.parked }
	return true
}

// resumes is when (ms) a lot without budget is to be looked at again, and whether its
// block may be away until then. What is before the lot is thought to take half the time
// that the group's limits say: a block that is back too early costs a claim, one that is
// late costs the group its budget.
func (f *feed) resumes(l *lot, now int64, crowded bool) (at int64, away bool) {
	if h, held := f.heldGroup(l.class.Group); held {
		at = h.Recheck(now)
		return at, crowded || at-now >= parkAfter.Milliseconds()
	}
	dry := f.budget.Wait(l.class)
	need := time.Duration(f.ahead(l.class)) * f.gaps.of(l.class.Group)
	if dry < parkAfter && need < inHand && !crowded {
		return 0, false
	}
	soonest := now + max(dry, min(need/2, mostParked), leastParked).Milliseconds()
	at = max(soonest, f.line[l.class])
	if at > soonest+mostParked.Milliseconds() {
		// What the budget is like by then nobody knows, and the queue may be long.
		at = soonest + rand.Int64N(mostParked.Milliseconds())
	}
	return at, true
}

// queueUp notes that a lot comes back at a time, so that the next one of its class comes
// after it: they are claimed about as fast as they can be sent, however many there are.
func (f *feed) queueUp(l *lot, at int64) {
	if f.line == nil {
		f.line = map[throttle.Class]int64{}
	}
	if each := f.gaps.of(l.class.Group); at >= f.line[l.class] {
		f.line[l.class] = at + (time.Duration(len(l.due)) * each / 2).Milliseconds()
	}
}
