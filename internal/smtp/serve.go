package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// slot is a transaction under way.
type slot struct {
	tx             Transaction
	msg            Message
	dots, eightBit bool
	stage          Stage // of the last command sent for it
}

// owed is the reply that is due before the one to the current message's MAIL.
type owed uint8

const (
	owedNothing owed = iota
	owedDot          // to the previous message's dot
	owedLone         // to a lone dot
	owedRset
)

// session is one Serve. All of it belongs to the goroutine that called Serve.
type session struct {
	c       *Conn
	ctx     context.Context // ends: drain
	work    context.Context // ends: the connection is gone
	src     Source
	lim     Limits
	keep    func() bool // asked when idle for too long; true keeps the connection
	fetch   *fetcher
	timer   *time.Timer
	out     []byte        // not yet written
	due     int64         // replies that the commands in out will bring
	dry     bool          // the Source will give nothing more
	dryErr  error         // why, unless it was ctx
	began   int           // transactions begun
	settled atomic.Int64  // transactions that got a reply of their own; the pool reads it
	carried atomic.Int64  // of these, whose MAIL was taken: what a relay counts
	used    time.Time     // when a message was last under way
	rest    time.Duration // from used until it ended, the wait for QUIT's reply apart
	resting time.Time     // since when the idle limit runs
	dotted  time.Time     // when the last write of a content, with its dot, was due
	behind  int           // messages left until one is declared ahead again
	idled   bool          // the idle limit ended it
	offered bool          // it was given a message
	watch   watch         // the pool's

	// prev has its dot sent and no reply yet. cur has its envelope sent. next is
	// declared, its envelope about to be sent behind cur's content. prev and next are
	// never set together: at most two are declared and undecided.
	prev, cur, next *slot
	free            []*slot
	owed            owed
	leadDot         bool // the relay waits for content, no recipient was accepted: lone dot
	leadRset        bool // a transaction is open at the relay
	led             bool // the current group followed a content in the same write
	proven          [ModeLockStep]bool
}

// Serve sends what src gives until ctx ends, a limit is reached, src runs dry for
// good, or the connection breaks; then it closes the connection. In the first cases
// it takes nothing more, waits for open replies, says QUIT and returns nil (or the
// Source's own error); in the last it returns an *Error.
func (c *Conn) Serve(ctx context.Context, src Source, lim Limits) error {
	return newSession(ctx, c, src, lim, nil).serve()
}

func newSession(ctx context.Context, c *Conn, src Source, lim Limits, keep func() bool) *session {
	if m := c.ext.MailMax; m > 0 && (lim.Messages <= 0 || m < lim.Messages) {
		lim.Messages = m
	}
	return &session{c: c, ctx: ctx, src: src, lim: lim, keep: keep,
		free: []*slot{new(slot), new(slot), new(slot)}, used: time.Now()}
}

func (s *session) serve() error {
	// Confirm outlives a drain, and ends with the connection.
	work, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	defer cancel()
	s.work = work
	s.fetch = newFetcher(s.ctx, s.src)
	s.timer = time.NewTimer(time.Hour)
	defer s.timer.Stop()
	s.c.start(cancel)

	err := s.run()
	if err != nil {
		s.suspect(err)
		s.fail(err)
	}
	s.rest = time.Since(s.used)
	s.c.shut(err == nil)
	if err != nil {
		s.fetch.stop(err)
		return err
	}
	s.fetch.stop(errDraining)
	return s.dryErr
}

// errDraining is why a transaction that came too late for a drain goes back.
var errDraining = fmt.Errorf("connection draining: %w", ErrClosed)

// run is the life of the connection. It returns nil where QUIT is due.
func (s *session) run() *Error {
	for {
		if s.cur == nil {
			if more, err := s.idle(); err != nil || !more {
				return err
			}
		}
		ready, err := s.envelope()
		if err != nil {
			return err
		}
		if !ready {
			continue
		}
		s.declareNext()
		if err := s.confirm(); err != nil {
			return err
		}
		if err := s.content(); err != nil {
			return err
		}
	}
}

// mayTake reports whether one more message may begin.
func (s *session) mayTake() bool {
	return !s.dry && s.ctx.Err() == nil &&
		(s.lim.Messages <= 0 || s.began < s.lim.Messages) &&
		(s.lim.Age <= 0 || time.Since(s.c.dialed) < s.lim.Age)
}

// tryTake asks the Source for a message without blocking. It passes over those that
// can never be sent.
func (s *session) tryTake() *slot {
	for s.mayTake() && !s.fetch.asked && !s.c.failed.Load() {
		tx, supply := s.src.TryNext()
		if supply != Ready {
			return nil
		}
		if m := s.admit(tx); m != nil {
			return m
		}
	}
	return nil
}

// idle finds the next message and writes its envelope, together with whatever has
// to lead it. While there is none it waits for one, for the reply still owed, for
// the relay to hang up, and for the limits. It reports false where QUIT is due.
func (s *session) idle() (bool, *Error) {
	s.resting = time.Now()
	if s.c.mode != ModePipelined { // nothing may follow what has not been answered
		if err := s.settle(); err != nil {
			return false, err
		}
	}
	for {
		if m := s.tryTake(); m != nil {
			return true, s.launch(m)
		}
		if s.leadDot { // never held back: the relay's clock is running
			s.appendLoneDot()
			if err := s.flush(StageEOD); err != nil {
				return false, err
			}
		}
		if !s.mayTake() {
			return false, s.settle()
		}
		s.fetch.request()
		m, over, err := s.wait()
		if err != nil || over {
			return false, err
		}
		if m != nil {
			return true, s.launch(m)
		}
	}
}

// launch begins m and writes its envelope.
func (s *session) launch(m *slot) *Error {
	s.cur, s.offered = m, true
	if s.c.failed.Load() { // hung up since: nothing was begun, nobody is to blame
		return s.broken(StageIdle, net.ErrClosed)
	}
	if s.leadDot {
		s.appendLoneDot()
	}
	s.declare(m)
	s.append(m)
	return s.flush(StageMail)
}

// wait blocks until something happens: a message (which it returns), a reply, the
// end of ctx, or a limit (over).
func (s *session) wait() (m *slot, over bool, err *Error) {
	var tick <-chan time.Time
	if s.owed == owedNothing {
		s.c.replyWithin(0)
		tick = s.nextLimit()
		s.c.pulse.rest()
		defer s.c.pulse.rest()
	} else {
		s.c.replyWithin(s.c.t.Dot)
	}
	if s.c.pending() {
		return nil, false, s.owing()
	}
	select {
	case s.c.arrived = <-s.c.replies:
		s.c.taken = 0
		return nil, false, s.owing()
	case f := <-s.fetch.got:
		return s.fetched(f), false, nil
	case <-s.ctx.Done():
		return nil, false, nil
	case <-tick:
		return nil, s.idleOver(), nil
	}
}

// owing takes the arrival that is there.
func (s *session) owing() *Error {
	r, err := s.c.take(s.owedStage(), s.c.arrival())
	if err != nil {
		return s.stale(err)
	}
	return s.settleWith(r)
}

// stale names the end of a connection that nothing was under way on.
func (s *session) stale(err *Error) *Error {
	if s.owed != owedNothing || errors.Is(err.Err, ErrClosed) {
		return err
	}
	return &Error{Stage: StageIdle, Reply: err.Reply, Err: fmt.Errorf("%w: %w", ErrStale, err.Err)}
}

// fetched takes what Next has brought.
func (s *session) fetched(f fetched) *slot {
	s.fetch.asked = false
	switch {
	case f.err != nil:
		s.dry = true
		if s.ctx.Err() == nil {
			s.dryErr = f.err
		}
		return nil
	case !s.mayTake():
		f.tx.Done(Result{Kind: Unsent, Stage: StageIdle, Err: errDraining})
		return nil
	}
	return s.admit(f.tx)
}

// nextLimit returns a channel that fires when the age or idle limit is due, nil
// where there is none.
func (s *session) nextLimit() <-chan time.Time {
	var due time.Time
	if s.lim.Idle > 0 {
		due = s.resting.Add(s.lim.Idle)
	}
	if s.lim.Age > 0 {
		if old := s.c.dialed.Add(s.lim.Age); due.IsZero() || old.Before(due) {
			due = old
		}
	}
	if due.IsZero() {
		return nil
	}
	s.timer.Reset(time.Until(due))
	return s.timer.C
}

// idleOver reports whether the connection has idled for long enough and is not
// wanted warm.
func (s *session) idleOver() bool {
	if s.lim.Idle <= 0 || time.Since(s.resting) < s.lim.Idle {
		return false
	}
	s.resting = time.Now()
	s.idled = s.keep == nil || !s.keep()
	return s.idled
}
