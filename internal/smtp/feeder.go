package smtp

import (
	"context"
	"errors"
	"sync"
	"time"
)

// feeder stands between the connections of a pool and its Source. It hands what comes
// to the connection that rested last, so that the others can idle out; it sees how
// busy the connections are; and it can hold one message for a connection that is being
// opened.
type feeder struct {
	src Source

	mu      sync.Mutex
	resting []chan Transaction // connections in Next, the latest last
	held    Transaction        // for the next one to ask
	heldAt  time.Time          // when it was fetched
	eager   bool               // fetch one although no connection is there to ask
	ready   int                // TryNext: here is one; since the last look
	starved int                // TryNext: none, or no budget
	hungry  bool               // starved was not 0 the time before

	wanted  chan struct{} // 1: there may be something to fetch
	arrived chan struct{} // 1: held was set
	over    chan struct{} // closed when Source.Next has failed
	err     error         // why; set before over is closed
}

func newFeeder(src Source) *feeder {
	return &feeder{src: src, wanted: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
		over: make(chan struct{})}
}

// poke wakes whoever waits on a channel of one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run fetches for resting connections until ctx ends or the Source fails.
func (f *feeder) run(ctx context.Context) {
	defer close(f.over)
	for {
		f.mu.Lock()
		need := f.held == nil && (len(f.resting) > 0 || f.eager)
		f.mu.Unlock()
		if !need {
			select {
			case <-f.wanted:
				continue
			case <-ctx.Done():
				f.err = ctx.Err()
				return
			}
		}
		tx, err := f.src.Next(ctx)
		if err != nil {
			f.err = err
			return
		}
		f.hand(tx)
	}
}

func (f *feeder) hand(tx Transaction) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.resting); n > 0 {
		f.resting[n-1] <- tx // of capacity 1, used once
		f.resting = f.resting[:n-1]
		return
	}
	f.held, f.heldAt = tx, time.Now()
	poke(f.arrived)
}

// fresh is how long a message may be held and still be begun: its budget was taken
// for then, not for when a connection has been opened at last.
const fresh = 30 * time.Millisecond

// unhold returns what is held, or nil. What has been held for too long goes back to
// the Source, which may have something better by now. The caller holds f.mu.
func (f *feeder) unhold() (tx, stale Transaction) {
	tx, f.held = f.held, nil
	if tx != nil && time.Since(f.heldAt) > fresh {
		return nil, tx
	}
	return tx, nil
}

// errHeld is why a message goes back that waited for a connection.
var errHeld = errors.New("held until a connection was open")

func giveBackHeld(stale Transaction) {
	if stale != nil {
		stale.Done(Result{Kind: Unsent, Stage: StageIdle, Err: errHeld})
	}
}

// TryNext is Source's.
func (f *feeder) TryNext() (Transaction, Supply) {
	f.mu.Lock()
	tx, stale := f.unhold()
	f.mu.Unlock()
	giveBackHeld(stale)
	supply := Ready
	if tx == nil {
		tx, supply = f.src.TryNext()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if supply == Ready {
		f.ready++
	} else {
		f.starved++
	}
	return tx, supply
}

// Next is Source's.
func (f *feeder) Next(ctx context.Context) (Transaction, error) {
	mine := make(chan Transaction, 1)
	f.mu.Lock()
	tx, stale := f.unhold()
	if tx == nil {
		f.resting = append(f.resting, mine)
	}
	f.mu.Unlock()
	giveBackHeld(stale)
	if tx != nil {
		return tx, nil
	}
	poke(f.wanted)
	var err error
	select {
	case tx := <-mine:
		return tx, nil
	case <-f.over:
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	return f.leave(mine, err)
}

// leave takes mine off the list, unless it has been served meanwhile.
func (f *feeder) leave(mine chan Transaction, err error) (Transaction, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range f.resting {
		if c == mine {
			f.resting = append(f.resting[:i], f.resting[i+1:]...)
			return nil, err
		}
	}
	return <-mine, nil
}

// fetchFirst lets the feeder fetch a message while no connection asks for one.
func (f *feeder) fetchFirst(on bool) {
	f.mu.Lock()
	f.eager = on
	f.mu.Unlock()
	if on {
		poke(f.wanted)
	}
}

// holding reports whether a message waits for a connection.
func (f *feeder) holding() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held != nil
}

// look forgets what it saw since the last look and reports whether in that time every
// connection was busy and more was there to send. Where none of them has asked, because
// each waits for the relay, it asks the Source itself.
func (f *feeder) look() (saturated bool) {
	f.mu.Lock()
	ready, resting, held := f.ready, len(f.resting), f.held != nil
	before, now := f.hungry, f.starved > 0
	f.ready, f.starved, f.hungry = 0, 0, now
	f.mu.Unlock()
	switch {
	case now || resting > 0:
		return false
	case ready > 0 || held:
		return true
	case before:
		return false
	}
	tx, supply := f.src.TryNext()
	if supply != Ready {
		return false
	}
	f.hand(tx)
	return true
}

// giveBack ends what is held, which no connection could be opened for.
func (f *feeder) giveBack(why error) {
	f.mu.Lock()
	tx := f.held
	f.held = nil
	f.mu.Unlock()
	if tx == nil {
		return
	}
	r := Result{Kind: Unsent, Stage: StageConnect, Err: why}
	var e *Error
	if errors.As(why, &e) {
		r.Stage, r.Reply = e.Stage, e.Reply
	}
	tx.Done(r)
}
