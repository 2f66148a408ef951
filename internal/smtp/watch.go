package smtp

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ErrHung: the goroutine of a connection goes on no more, which is a fault of this
// program's. Its connection is closed, so nothing more can leave by it; what was under
// way there is not reported as done.
var ErrHung = errors.New("the goroutine of a connection hangs")

// pulse shows from outside whether the goroutine that owns a connection goes on: it
// changes with each step, and is odd while the goroutine waits for what may never come.
type pulse struct{ n atomic.Uint64 }

func (p *pulse) step() { p.n.Add(2) }

// rest begins a wait without a bound, or ends it.
func (p *pulse) rest() { p.n.Add(1) }

// watch counts how often a pulse was looked at and had not changed. It counts looks,
// not time: a process that was frozen for an hour has not looked meanwhile, so its
// goroutines get their chance before they are judged.
type watch struct {
	seen  uint64
	still int
}

func (w *watch) look(p *pulse) (still int) {
	n := p.n.Load()
	if w.still++; n != w.seen || n%2 == 1 {
		w.seen, w.still = n, 0
	}
	return w.still
}

// longestStep is the longest that the owner of a connection can go without a step, by
// its own limits: the reply to a dot, or a relay that reads as slowly as it may.
func (t Timeouts) longestStep() time.Duration {
	slowest := t.Command + time.Duration(2*chunk)*time.Second/time.Duration(t.MinRate)
	return max(t.Dot, t.Data, t.Confirm, slowest)
}

// After so many of its longest steps a goroutine that makes none is helped by closing
// its connection, which ends every wait for the relay. If it is still there some looks
// later, nothing can end it.
const (
	hungAfter = 2
	lostAfter = 20 // looks
)

// watch looks after the goroutines of all connections. One that hangs for good makes the
// pool drain with ErrHung and is not waited for: it may hold whatever the others need.
func (m *manager) watch() {
	for s := range m.open {
		still, limit := s.watch.look(&s.c.pulse), int(hungAfter*s.c.t.longestStep()/m.cfg.Grow)+1
		switch {
		case still == limit:
			m.cfg.Log.Error("a connection makes no step, far beyond its limits; closing it", "after", time.Duration(still)*m.cfg.Grow)
			s.c.Close()
		case still >= limit+lostAfter:
			delete(m.open, s)
			m.lost = true
			m.count(-1)
			m.stop(fmt.Errorf("%w: no step in %v", ErrHung, time.Duration(still)*m.cfg.Grow))
		}
	}
}
