package throttle

import (
	"context"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"
)

// observer is the store's part in learning. It gathers what the processes saw,
// and lets one of them at a time draw conclusions from it.
type observer interface {
	// observe adds counts to what is gathered. Who asks while nobody leads becomes
	// the leader until lead has passed; the leader gets what was gathered.
	observe(ctx context.Context, owner string, lead time.Duration, counts map[string]int) (view, error)
	// adopt stores the leader's state and sets the learned limits, by the fields of
	// KEYS[1], to these and no others; false means that another leads now, or that
	// all was reset, and that nothing was stored.
	adopt(ctx context.Context, epoch int64, state []byte, limits map[string]float64) (bool, error)
	// recall returns the state stored last; nil: nothing is learned.
	recall(ctx context.Context) ([]byte, error)
}

// view is what a process gets to see.
type view struct {
	now           int64 // the store's clock, µs
	perConnection int
	epoch         int64          // of the leadership, 0: another leads
	state         []byte         // stored last, if the leadership is new
	open          int            // leader: connections, without dials under way
	counts        map[string]int // leader: what was gathered since the last time
}

const (
	leadFor    = 6 * time.Duration(tick) * time.Microsecond // a leader that is silent so long is replaced
	leadLater  = 80 * time.Millisecond                      // after the others have reported
	idleCalls  = 5 * time.Second                            // between reports of nothing
	idleTicks  = 8                                          // without anything, until a leader rests
	storeEvery = 5 * second                                 // what is learned, if no limit moves
)

// Fields of the account's state, beside those that the other scripts know.
const (
	learnedPer  = "k:per_connection" // most messages on one connection
	learnedLead = "k:lead"           // who leads; without it, nothing is learned
)

// watch is the process's part in learning.
type watch struct {
	notes         notes
	perConnection atomic.Int64

	// Used by the observing goroutine alone.
	bounds  bounds
	learner *learner // nil: another process leads
	epoch   int64
	kept    map[string]float64 // limits stored last
	stored  int64              // when, on the store's clock
	quiet   int                // ticks in which nothing was gathered
	ahead   time.Duration      // of the store's clock on ours
	called  time.Time
}

func newWatch(p Params) *watch {
	return &watch{notes: notes{ended: map[int]int{}}, bounds: newBounds(p)}
}

// PerConnection is how many messages a connection should be given, as learned
// from the relay; 0: any number.
func (b *Budget) PerConnection() int { return int(b.watch.perConnection.Load()) }

// observing reports what was noted, every tick of the store's clock, and leads if
// that falls to this process.
func (b *Budget) observing(ctx context.Context) {
	if b.p.Adaptive.Off {
		return
	}
	w := b.watch
	pause := backoff{}
	for {
		now, err := sleepUntil(ctx, nextTick(time.Now(), w.ahead))
		if err != nil {
			return
		}
		counts := w.notes.harvest()
		leading := w.learner != nil && w.quiet < idleTicks
		if len(counts) == 0 && !leading && now.Sub(w.called) < idleCalls {
			continue
		}
		if leading {
			if now, err = sleepUntil(ctx, now.Add(leadLater)); err != nil {
				return
			}
		}
		if err := b.look(ctx, now, counts); err != nil {
			w.learner = nil // what was gathered may be lost
			if _, err := sleepUntil(ctx, time.Now().Add(pause.next())); err != nil {
				return
			}
			continue
		}
		pause.reset()
	}
}

// nextTick is when the next tick of the store's clock begins, on ours.
func nextTick(now time.Time, ahead time.Duration) time.Time {
	const step = time.Duration(tick) * time.Microsecond
	store := now.Add(ahead).UnixMicro()
	return now.Add(step - time.Duration(store%tick)*time.Microsecond)
}

// look reports once, and draws conclusions if this process leads.
func (b *Budget) look(ctx context.Context, now time.Time, counts map[string]int) error {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	w := b.watch
	var v view
	err := b.call(func() (err error) {
		v, err = b.store.observe(ctx, b.p.Owner, leadFor, counts)
		return err
	})
	if err != nil {
		return err
	}
	w.called = now
	w.ahead = time.UnixMicro(v.now).Sub(now)
	w.perConnection.Store(int64(v.perConnection))
	if v.epoch == 0 {
		w.learner = nil
		return nil
	}
	w.lead(v, b.log)
	return b.conclude(ctx, v)
}

// lead takes over what was learned, if the leadership is new.
func (w *watch) lead(v view, log *slog.Logger) {
	if w.learner != nil && w.epoch == v.epoch {
		return
	}
	w.epoch, w.kept, w.quiet, w.learner = v.epoch, nil, idleTicks, newLearner()
	if len(v.state) == 0 {
		return
	}
	l, err := readLearner(v.state)
	if err != nil {
		log.Warn("budget: what was learned of the relay is lost; learning anew", "err", err)
		return
	}
	w.learner = l
}

// conclude lets the learner see what was gathered, and stores what it makes of it.
func (b *Budget) conclude(ctx context.Context, v view) error {
	w := b.watch
	if len(v.counts) > 0 {
		w.quiet = 0
	} else if w.quiet++; w.quiet > idleTicks {
		return nil
	}
	limits := w.learner.step(readSample(v.counts, v.now, v.open), w.bounds).fields()
	moved := w.kept == nil || !maps.Equal(w.kept, limits)
	if !moved && v.now-w.stored < storeEvery {
		return nil
	}
	state, err := w.learner.save()
	if err != nil {
		return err
	}
	var ok bool
	err = b.call(func() error {
		ok, err = b.store.adopt(ctx, w.epoch, state, limits)
		return err
	})
	if err != nil {
		return err
	}
	if !ok {
		w.learner = nil
		return nil
	}
	w.kept, w.stored = limits, v.now
	w.perConnection.Store(int64(limits[learnedPer]))
	return nil
}
