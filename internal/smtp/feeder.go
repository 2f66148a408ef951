package smtp

import (
	"context"
	"errors"
	"sync"
	"time"
)

// feeder stands between the connections of a pool and its Source. It hands what comes
// to the connection that rested last, so that the others can idle out; it sees how
// long the connections rest; and it can hold one message for a connection that is being
// opened.
type feeder struct {
	src Source

	mu      sync.Mutex
	resting []resting     // connections in Next, the latest last
	held    Transaction   // for the next one to ask
	heldAt  time.Time     // when it was fetched
	eager   bool          // fetch one although no connection is there to ask
	looked  time.Time     // when look was called last
	rested  time.Duration // what connections have rested since then, those that still rest aside

	wanted  chan struct{} // 1: there may be something to fetch
	arrived chan struct{} // 1: held was set
	over    chan struct{} // closed when Source.Next has failed
	err     error         // why; set before over is closed
}

// resting is a connection that waits for a message.
type resting struct {
	got   chan Transaction // of capacity 1, used once
	since time.Time
}

func newFeeder(src Source) *feeder {
	return &feeder{src: src, looked: time.Now(), wanted: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
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
		f.resting[n-1].got <- tx
		f.rise(n - 1)
		return
	}
	f.held, f.heldAt = tx, time.Now()
	poke(f.arrived)
}

// rise takes a connection off those that rest. The caller holds f.mu.
func (f *feeder) rise(n int) {
	f.rested += time.Since(f.restingSince(n))
	f.resting = append(f.resting[:n], f.resting[n+1:]...)
}

// restingSince is from when on a rest counts at the next look.
func (f *feeder) restingSince(n int) time.Time {
	if since := f.resting[n].since; since.After(f.looked) {
		return since
	}
	return f.looked
}

// fresh is how long a message may be held and still be begun: its budget was taken
// for then, not for when a connection has been opened at last.
const fresh = 20 * time.Millisecond

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

// Waiting is Source's.
func (f *feeder) Waiting() bool { return f.src.Waiting() }

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
	return tx, supply
}

// Next is Source's.
func (f *feeder) Next(ctx context.Context) (Transaction, error) {
	mine := make(chan Transaction, 1)
	f.mu.Lock()
	tx, stale := f.unhold()
	if tx == nil {
		f.resting = append(f.resting, resting{mine, time.Now()})
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
	for i, r := range f.resting {
		if r.got == mine {
			f.rise(i)
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

// restAtMost is the share of its time that a busy connection may rest: a message whose
// budget has to be fetched first keeps it waiting for some milliseconds.
const restAtMost = 0.1

// look reports whether all of so many connections were busy since the last look, while
// there was more to send. Where the budget is what they wait for, they rest, and no
// further connection would help.
func (f *feeder) look(connections int) (saturated bool) {
	f.mu.Lock()
	now, rested := time.Now(), f.rested
	for n := range f.resting {
		rested += now.Sub(f.restingSince(n))
	}
	window, held := now.Sub(f.looked), f.held != nil
	f.looked, f.rested = now, 0
	f.mu.Unlock()
	if float64(rested) > restAtMost*float64(window)*float64(connections) {
		return false
	}
	return held || f.src.Waiting()
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
