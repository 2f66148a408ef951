package smtp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// poolRun is a Pool at work on a relay.
type poolRun struct {
	t     *testing.T
	cfg   PoolConfig
	dials atomic.Int32
	most  atomic.Int32 // connections open at a time
	now   atomic.Int32
	opens chan int // every change of the number of open connections
	stop  context.CancelFunc
	force context.CancelFunc
	done  chan struct{}
	err   error // of Run, once done is closed
}

func newPoolRun(t *testing.T, src Source, script func(*peer)) *poolRun {
	t.Helper()
	host, port := listen(t, script)
	r := &poolRun{t: t, opens: make(chan int, 10000), done: make(chan struct{})}
	mem := NewMemory()
	r.cfg = PoolConfig{Source: src, Max: 1, Grow: 5 * time.Millisecond,
		Dial: func(ctx context.Context) (*Conn, error) {
			r.dials.Add(1)
			cfg := plainConfig(host, port)
			cfg.Memory = mem
			return Dial(ctx, cfg)
		},
		OnChange: func(open int) {
			r.now.Store(int32(open))
			r.most.Store(max(r.most.Load(), int32(open)))
			r.opens <- open
		}}
	return r
}

func (r *poolRun) start() *poolRun {
	r.t.Helper()
	p, err := NewPool(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	var ctx, force context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	force, r.force = context.WithCancel(context.Background())
	go func() { defer close(r.done); r.err = p.Run(ctx, force) }()
	r.t.Cleanup(func() {
		r.stop()
		r.force()
		<-r.done
	})
	return r
}

// end waits for Run.
func (r *poolRun) end() error {
	r.t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(15 * time.Second):
		r.t.Fatal("Run does not return")
		return nil
	}
}

// waitOpen waits until n connections are open.
func (r *poolRun) waitOpen(n int) {
	r.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		select {
		case open := <-r.opens:
			if open == n {
				return
			}
		case <-deadline:
			r.t.Fatalf("never %d connections open, now %d", n, r.now.Load())
		}
	}
}

func waitAll(t *testing.T, all []*message) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for _, m := range all {
		select {
		case <-m.ended:
		case <-deadline:
			t.Fatalf("message %s never ends", m.name)
		}
	}
}

// slowDots is a sink whose dots take some time, so that work piles up.
func slowDots(d time.Duration) *sink {
	return &sink{ehlo: nhnEHLO, reply: func(stage Stage, _ string) string {
		if stage == StageEOD {
			<-time.After(d)
		}
		return ""
	}}
}

// A pool with more work than its connections manage grows to its bound, one by one, and
// everything arrives once.
func TestPoolGrows(t *testing.T) {
	t.Parallel()
	s := slowDots(2 * time.Millisecond)
	all, _ := messages(400)
	r := newPoolRun(t, newQueue(all...).finish(), s.serve)
	r.cfg.Max = 3
	if err := r.start().end(); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	for _, m := range all {
		m.want(t, Accepted, StageEOD, 250)
	}
	checkPairing(t, s, len(all))
	if s.opened() != 3 || r.most.Load() != 3 {
		t.Errorf("%d connections, %d at a time; want 3", s.opened(), r.most.Load())
	}
}

// Connections that all wait for a slow relay cannot ask for more work; the pool sees that
// there is some all the same.
func TestPoolGrowsWhileAllWait(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := &sink{ehlo: nhnEHLO, reply: func(stage Stage, _ string) string {
		if stage == StageEOD {
			<-release
		}
		return ""
	}}
	all, _ := messages(9)
	r := newPoolRun(t, newQueue(all...).finish(), s.serve)
	r.cfg.Max = 3
	r.start()
	r.waitOpen(3)
	close(release)
	if err := r.end(); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	checkPairing(t, s, 9)
}

// throttledQueue has work, and budget only for who waits for it a while.
type throttledQueue struct {
	*queue
	wait time.Duration
}

func (q *throttledQueue) TryNext() (Transaction, Supply) { return nil, Throttled }

func (q *throttledQueue) Next(ctx context.Context) (Transaction, error) {
	select {
	case <-time.After(q.wait):
	case <-ctx.Done():
	}
	return q.queue.Next(ctx)
}

// Budget that comes within milliseconds of being asked for is no reason not to grow.
func TestPoolGrowsWithBudgetAtShortNotice(t *testing.T) {
	t.Parallel()
	s := slowDots(100 * time.Millisecond)
	all, _ := messages(40)
	r := newPoolRun(t, &throttledQueue{newQueue(all...).finish(), time.Millisecond}, s.serve)
	r.cfg.Max, r.cfg.Grow = 3, 20*time.Millisecond
	if err := r.start().end(); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	checkPairing(t, s, len(all))
	if n := r.most.Load(); n != 3 {
		t.Errorf("%d connections at a time, want 3", n)
	}
}

// Work that waits for budget opens no connection.
func TestPoolThrottled(t *testing.T) {
	t.Parallel()
	s := slowDots(time.Millisecond)
	all, _ := messages(20)
	r := newPoolRun(t, &throttledQueue{newQueue(all...).finish(), 50 * time.Millisecond}, s.serve)
	r.cfg.Max, r.cfg.Grow = 5, 200*time.Millisecond
	if err := r.start().end(); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	checkPairing(t, s, len(all))
	if s.opened() != 1 {
		t.Errorf("%d connections, want 1", s.opened())
	}
}

// Refused recipients, deferred ones and refused contents cost no connection.
func TestPoolRefusals(t *testing.T) {
	t.Parallel()
	const n = 2000
	s := &sink{ehlo: nhnEHLO, reply: func(stage Stage, arg string) string {
		var i int
		_, _ = fmt.Sscanf(strings.TrimPrefix(arg, "TO:<"), "to%d@", &i)
		switch {
		case stage == StageRcpt && i%20 == 3:
			return "550 5.1.1 no such user"
		case stage == StageRcpt && i%20 == 7:
			return "450 4.2.1 later"
		case stage == StageEOD && i%100 == 9:
			return "554 5.7.1 spam"
		}
		return ""
	}}
	all, _ := messages(n)
	r := newPoolRun(t, newQueue(all...).finish(), s.serve)
	r.cfg.Max = 2
	if err := r.start().end(); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	checkPairing(t, s, n*89/100)
	if s.opened() > 2 {
		t.Errorf("%d connections, want at most 2", s.opened())
	}
}

// Idle connections are let go, all but the warm ones; the warm one carries the next
// message.
func TestPoolShrinksToWarm(t *testing.T) {
	t.Parallel()
	s := slowDots(2 * time.Millisecond)
	all, _ := messages(300)
	q := newQueue(all...)
	r := newPoolRun(t, q, s.serve)
	r.cfg.Max, r.cfg.Warm, r.cfg.PerConnection = 3, 1, Limits{Idle: 20 * time.Millisecond}
	r.start()
	r.waitOpen(3)
	waitAll(t, all)
	r.waitOpen(1)
	dials := r.dials.Load()
	last := newMessage(301)
	<-time.After(60 * time.Millisecond) // three idle limits: the warm one is still there
	q.add(last)
	<-last.ended
	if r.dials.Load() != dials || r.now.Load() != 1 {
		t.Errorf("%d dials for a message with a warm connection there", r.dials.Load()-dials)
	}
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

// With no warm connection an idle pool holds none, and opens one for the next message.
func TestPoolFromNothing(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	q := newQueue()
	r := newPoolRun(t, q, s.serve)
	r.cfg.PerConnection.Idle = 10 * time.Millisecond
	r.start()
	for i := 1; i <= 3; i++ {
		m := newMessage(i)
		q.add(m)
		<-m.ended
		m.want(t, Accepted, StageEOD, 250)
		r.waitOpen(0)
	}
	if r.dials.Load() != 3 {
		t.Errorf("%d dials, want 3", r.dials.Load())
	}
}

// Connections are replaced after their share, without a message lost or unsent.
func TestPoolRecycles(t *testing.T) {
	t.Parallel()
	for name, lim := range map[string]Limits{"messages": {Messages: 10}, "age": {Age: 20 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := slowDots(time.Millisecond)
			all, _ := messages(100)
			r := newPoolRun(t, newQueue(all...).finish(), s.serve)
			r.cfg.PerConnection = lim
			if err := r.start().end(); !errors.Is(err, errNoMore) {
				t.Fatal(err)
			}
			for _, m := range all {
				m.want(t, Accepted, StageEOD, 250)
			}
			// One more may have been opened before it was known that nothing follows.
			if s.opened() < 4 || lim.Messages > 0 && (s.opened() < 10 || s.opened() > 11) {
				t.Errorf("%d connections", s.opened())
			}
		})
	}
}

// A relay that says 421 after 12 messages does it twice; then the pool is before it.
func TestPoolLearnsMessageLimit(t *testing.T) {
	t.Parallel()
	var s sink
	s.ehlo = nhnEHLO
	all, _ := messages(120)
	q := newRequeue(all...)
	r := newPoolRun(t, q, func(p *peer) {
		own := &sink{ehlo: nhnEHLO}
		mails := 0
		own.reply = func(stage Stage, _ string) string {
			if stage == StageMail {
				if mails++; mails > 12 {
					return "421 4.7.0 too many messages in this connection"
				}
			}
			return ""
		}
		own.serve(p)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, own.got...)
	})
	r.start()
	waitAll(t, all)
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if n := q.unsent.Load(); n != 2 {
		t.Errorf("%d messages ran into the limit, want 2", n)
	}
	// One more may have been opened before it was known that nothing follows.
	if n := r.dials.Load(); n < 10 || n > 11 {
		t.Errorf("%d connections, want 10 of 12 messages", n)
	}
}

// Messages go to the connection that rested last, so that the others idle out.
func TestFeederLIFO(t *testing.T) {
	t.Parallel()
	q := newQueue()
	f := newFeeder(q)
	ctx, cancel := context.WithCancel(t.Context())
	go f.run(ctx)
	type got struct {
		who int
		tx  Transaction
		err error
	}
	results := make(chan got, 3)
	for i := range 3 {
		go func() { tx, err := f.Next(ctx); results <- got{i, tx, err} }()
		for {
			f.mu.Lock()
			n := len(f.resting)
			f.mu.Unlock()
			if n == i+1 {
				break
			}
			<-time.After(time.Millisecond)
		}
	}
	q.add(newMessage(1))
	if g := <-results; g.who != 2 || g.err != nil {
		t.Errorf("message 1 went to connection %d, %v; want 2", g.who, g.err)
	}
	q.add(newMessage(2))
	if g := <-results; g.who != 1 || g.err != nil {
		t.Errorf("message 2 went to connection %d, %v; want 1", g.who, g.err)
	}
	cancel()
	if g := <-results; g.err == nil {
		t.Error("Next went on after ctx")
	}
	<-f.over
}

func TestPoolConfigErrors(t *testing.T) {
	t.Parallel()
	ok := PoolConfig{Dial: func(context.Context) (*Conn, error) { return nil, nil }, Source: newQueue(), Max: 2, Warm: 1}
	if _, err := NewPool(ok); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*PoolConfig){
		"no dial":   func(c *PoolConfig) { c.Dial = nil },
		"no source": func(c *PoolConfig) { c.Source = nil },
		"max 0":     func(c *PoolConfig) { c.Max = 0 },
		"warm":      func(c *PoolConfig) { c.Warm = 3 },
		"warm -1":   func(c *PoolConfig) { c.Warm = -1 },
	} {
		cfg := ok
		change(&cfg)
		if _, err := NewPool(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v, want ErrConfig", name, err)
		}
	}
}

// What the feeder takes for a pool with too few connections.
func TestFeederLook(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for name, tc := range map[string]struct {
		set    func(f *feeder)
		supply int // messages in the Source
		want   bool
	}{
		"nobody rested, there is work":           {func(*feeder) {}, 1, true},
		"nobody rested, there is none":           {func(*feeder) {}, 0, false},
		"nobody rested, one is held":             {func(f *feeder) { f.held = tx{newMessage(9)} }, 0, true},
		"short rests, there is work":             {func(f *feeder) { f.rested = 150 * time.Millisecond }, 1, true},
		"long rests":                             {func(f *feeder) { f.rested = 250 * time.Millisecond }, 1, false},
		"one rests since a moment":               {func(f *feeder) { f.resting = []resting{{since: ago(50 * time.Millisecond)}} }, 1, true},
		"one rests since long":                   {func(f *feeder) { f.resting = []resting{{since: ago(400 * time.Millisecond)}} }, 1, false},
		"one rests since before the last look":   {func(f *feeder) { f.resting = []resting{{since: ago(time.Hour)}} }, 1, false},
		"one of two rests since before the look": {func(f *feeder) { f.resting = []resting{{since: ago(time.Hour)}} }, 1, false},
	} {
		all, _ := messages(tc.supply)
		f := newFeeder(newQueue(all...))
		f.looked = ago(time.Second)
		tc.set(f)
		if got := f.look(2); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
		if f.rested != 0 || time.Since(f.looked) > 500*time.Millisecond {
			t.Errorf("%s: what was seen is counted again", name)
		}
	}
}
