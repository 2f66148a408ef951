package smtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Lease is the permission to hold one connection open.
type Lease interface {
	// Release gives it back. It is called once, after the connection is closed.
	Release()
	// Lost is closed when the permission ends early: the connection drains at once.
	Lost() <-chan struct{}
}

// PoolConfig is a pool of connections for one login.
type PoolConfig struct {
	Dial func(ctx context.Context) (*Conn, error)
	// Admit waits for permission to open one more connection; nil: always.
	Admit  func(ctx context.Context) (Lease, error)
	Source Source

	Max           int    // most connections, at least 1
	Warm          int    // kept open with nothing to send
	PerConnection Limits // of one connection; what the relay shows of its own counts as well
	// Learned is the number of messages that others have found the relay to take on one
	// connection, 0 = none; nil: nobody has.
	Learned func() int
	// Paced says that Admit keeps dials apart that come to nothing, so that the pool need
	// not pause by itself after one.
	Paced bool
	// Grow is how long all connections must be busy before one more is opened; 0: 250 ms.
	Grow time.Duration

	OnDial   func(error)    // the result of every dial, nil too; may be nil
	OnChange func(open int) // the number of connections has changed; may be nil
	// OnEnd is told of every connection that ended: how many messages it had carried, whose
	// MAIL the relay took, and whether the relay ended it with a 421 in the middle; may be
	// nil.
	OnEnd func(carried int64, byRelay bool)
	Log   *slog.Logger // nil: no log
}

// Pool opens as few connections as keep up with its Source, one at a time and only while
// those there are busy all the time; what waits for budget opens none. A connection that
// has idled too long is closed, one that has done its share is replaced. A dial that
// fails, or a connection that ends without having been of use, makes the pool pause
// before the next, longer each time.
type Pool struct {
	cfg  PoolConfig
	feed *feeder

	mu      sync.Mutex
	staying int  // open connections, less those closing for idleness
	strict  bool // the relay has an idle limit of its own, which warm connections keep too
}

// NewPool checks cfg. Nothing is opened before Run.
func NewPool(cfg PoolConfig) (*Pool, error) {
	switch {
	case cfg.Dial == nil || cfg.Source == nil:
		return nil, fmt.Errorf("%w: a pool needs Dial and Source", ErrConfig)
	case cfg.Max < 1:
		return nil, fmt.Errorf("%w: a pool of at most %d connections", ErrConfig, cfg.Max)
	case cfg.Warm < 0 || cfg.Warm > cfg.Max:
		return nil, fmt.Errorf("%w: %d of at most %d connections kept warm", ErrConfig, cfg.Warm, cfg.Max)
	}
	if cfg.Grow <= 0 {
		cfg.Grow = 250 * time.Millisecond
	}
	if cfg.Admit == nil {
		cfg.Admit = func(context.Context) (Lease, error) { return freeLease{}, nil }
	}
	if cfg.OnDial == nil {
		cfg.OnDial = func(error) {}
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(int) {}
	}
	if cfg.OnEnd == nil {
		cfg.OnEnd = func(int64, bool) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{cfg: cfg, feed: newFeeder(cfg.Source)}, nil
}

// freeLease is the Lease where there is no budget to keep.
type freeLease struct{}

func (freeLease) Release()              {}
func (freeLease) Lost() <-chan struct{} { return nil }

// manager is one Run. Its fields belong to the goroutine that called Run.
type manager struct {
	*Pool
	ctx    context.Context // ends: drain
	drain  context.CancelFunc
	open   map[*session]bool
	want   int // connections there should be
	dials  bool
	fresh  bool // a connection was opened since the last look
	pace   pacer
	learn  learner
	forced bool
	lost   bool          // a connection's goroutine hangs, and is not waited for
	over   chan struct{} // closed when Run returns
	events chan func()   // what the goroutines of m have to tell it
	wg     sync.WaitGroup
	fatal  error
}

// Run serves until ctx ends, then drains: nothing new is begun, open dots are waited
// for, QUIT is said. When force ends, everything is closed at once. Run returns when no
// connection and no goroutine is left: nil, or the refused login (ErrLogin) that made it
// drain, or the Source's own error. With ErrHung it returns when no connection is left,
// and waits for no goroutine. A Pool runs once.
func (p *Pool) Run(ctx, force context.Context) error {
	ctx, drain := context.WithCancel(ctx)
	defer drain()
	m := &manager{Pool: p, ctx: ctx, drain: drain, open: map[*session]bool{}, want: p.cfg.Warm,
		over: make(chan struct{}), events: make(chan func())}
	defer close(m.over)
	go p.feed.run(ctx)
	tick := time.NewTicker(p.cfg.Grow)
	defer tick.Stop()
	forced, over := force.Done(), p.feed.over
	for {
		m.balance()
		if m.lost && len(m.open) == 0 {
			return m.fatal
		}
		if ctx.Err() != nil && len(m.open) == 0 && !m.dials && over == nil {
			m.wg.Wait()
			return m.fatal
		}
		select {
		case f := <-m.events:
			f()
		case <-p.feed.arrived:
		case <-tick.C:
			m.watch()
			m.grow()
		case <-over:
			if over = nil; ctx.Err() == nil {
				m.stop(p.feed.err)
			}
			p.feed.giveBack(errDraining)
		case <-forced:
			forced = nil
			m.closeAll()
		}
	}
}

// stop begins to drain because of err.
func (m *manager) stop(err error) {
	if m.fatal == nil {
		m.fatal = err
	}
	m.drain()
}

func (m *manager) closeAll() {
	m.forced = true
	m.drain()
	for c := range m.open {
		c.c.Close()
	}
}

// balance dials where a connection is missing.
func (m *manager) balance() {
	if m.ctx.Err() != nil {
		return
	}
	paused, want := time.Now().Before(m.pace.notBefore), m.want
	if paused && m.pace.idle { // for a message one is dialled at once
		paused = false
		if want <= m.cfg.Warm {
			want = 0
		}
	}
	m.feed.fetchFirst(len(m.open) == 0 && !paused)
	if len(m.open) == 0 && m.feed.holding() {
		want = max(want, 1)
	}
	if m.dials || paused || len(m.open) >= min(want, m.cfg.Max) {
		return
	}
	m.dials = true
	m.wg.Go(m.dial)
}

// grow asks for one more connection where those there have been busy since the last
// look, and lifts the pause once a connection opened after a failure has been of use.
func (m *manager) grow() {
	for c := range m.open {
		if m.pace.failures > 0 && c.c.dialed.After(m.pace.last) && c.settled.Load() >= provenAfter {
			m.pace.worked()
		}
	}
	if m.ctx.Err() != nil || m.dials || len(m.open) == 0 || len(m.open) < m.want || len(m.open) >= m.cfg.Max {
		return
	}
	if saturated := m.feed.look(len(m.open)); saturated && !m.fresh {
		m.want = len(m.open) + 1
	}
	m.fresh = false
}

// dial opens one connection. There is never more than one such goroutine.
func (m *manager) dial() {
	lease, err := m.cfg.Admit(m.ctx)
	if err != nil {
		m.tell(func() { m.dialFailed(fmt.Errorf("admit connection: %w", err)) })
		return
	}
	c, err := m.cfg.Dial(m.ctx)
	if err == nil || m.ctx.Err() == nil {
		m.cfg.OnDial(err)
	}
	if err != nil {
		lease.Release()
		m.tell(func() { m.dialFailed(err) })
		return
	}
	if !m.tell(func() { m.dialled(c, lease) }) {
		c.Close()
		lease.Release()
	}
}

// tell hands the manager something to do, and reports whether it is still there.
func (m *manager) tell(f func()) bool {
	select {
	case m.events <- f:
		return true
	case <-m.over:
		return false
	}
}

func (m *manager) dialFailed(err error) {
	m.dials = false
	if m.ctx.Err() != nil {
		return
	}
	if errors.Is(err, ErrLogin) {
		m.stop(err)
		return
	}
	if m.cfg.Paced {
		m.unserved(err)
		return
	}
	m.pause(err, false)
}

// dialled puts a new connection to work. Where a drain has begun meanwhile, that is
// QUIT.
func (m *manager) dialled(conn *Conn, lease Lease) {
	m.dials = false
	ctx, cancel := context.WithCancel(m.ctx)
	s := newSession(ctx, conn, m.feed, m.limits(), m.keep)
	m.open[s], m.fresh = true, true
	m.want = max(m.want, len(m.open))
	m.count(+1)
	m.cfg.Log.Debug("connection opened", "open", len(m.open), "mode", conn.Mode())
	if m.forced {
		conn.Close()
	}
	m.wg.Go(func() {
		select {
		case <-lease.Lost():
			cancel()
		case <-ctx.Done():
		}
	})
	m.wg.Go(func() {
		err := s.serve()
		cancel()
		lease.Release()
		m.tell(func() { m.ended(s, err) })
	})
}

// limits of the next connection.
func (m *manager) limits() Limits {
	l := m.learn.limits(m.cfg.PerConnection, time.Now())
	if m.cfg.Learned != nil {
		if n := m.cfg.Learned(); n > 0 && (l.Messages <= 0 || n < l.Messages) {
			l.Messages = n
		}
	}
	return l
}

// keep decides for an idle connection whether it stays.
func (p *Pool) keep() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.staying <= p.cfg.Warm && !p.strict {
		return true
	}
	p.staying--
	return false
}

func (m *manager) count(by int) {
	m.mu.Lock()
	m.staying += by
	m.strict = m.learn.idle > 0
	m.mu.Unlock()
	m.cfg.OnChange(len(m.open))
}

// ended takes stock of a connection that is closed.
func (m *manager) ended(s *session, err error) {
	if !m.open[s] { // given up
		return
	}
	delete(m.open, s)
	var why *Error
	errors.As(err, &why)
	settled, now := s.settled.Load(), time.Now()
	rested := s.rest
	m.learn.see(why, s.carried.Load(), rested, now)
	m.cfg.OnEnd(s.carried.Load(), why != nil && why.Reply.Code == 421 && why.Stage != StageIdle)
	if s.idled {
		m.count(0) // keep has counted it
	} else {
		m.count(-1)
	}
	m.cfg.Log.Debug("connection closed", "open", len(m.open), "settled", settled, "error", err)
	if s.idled || why == nil && rested > soon || why != nil && why.Stage == StageIdle {
		m.want = max(m.cfg.Warm, m.want-1) // it was not missed
	}
	switch {
	case m.ctx.Err() != nil:
	case pointless(why, settled, now.Sub(s.c.dialed)):
		m.pause(err, why.Stage == StageIdle && !s.offered)
	case settled > 0:
		m.pace.worked()
	}
}

// pause puts off the next dial because of err.
func (m *manager) pause(err error, idle bool) {
	pause := m.pace.failed(time.Now(), idle)
	m.cfg.Log.Warn("relay of no use", "error", err, "pause", pause)
	if !idle {
		m.unserved(err)
	}
}

// unserved gives back what waits for a connection, where none is left.
func (m *manager) unserved(err error) {
	if len(m.open) == 0 {
		m.feed.fetchFirst(false)
		m.feed.giveBack(err)
	}
}
