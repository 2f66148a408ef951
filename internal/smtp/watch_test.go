package smtp

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestWatchLook(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		between func(p *pulse)
		still   int // after ten looks
	}{
		{"nothing happens", func(*pulse) {}, 9},
		{"a step each time", (*pulse).step, 0},
		{"a rest begins and ends", func(p *pulse) { p.rest(); p.rest() }, 0},
	} {
		var p pulse
		var w watch
		p.step()
		still := 0
		for range 10 {
			still = w.look(&p)
			c.between(&p)
		}
		if still != c.still {
			t.Errorf("%s: %d looks without a step, want %d", c.name, still, c.still)
		}
	}
	var p pulse
	var w watch
	p.rest()
	for range 10 {
		if still := w.look(&p); still != 0 {
			t.Errorf("at rest, and %d looks count", still)
		}
	}
}

// The longest legal wait of each kind is less than what counts as hanging.
func TestLongestStep(t *testing.T) {
	t.Parallel()
	d := Timeouts{}.withDefaults()
	for _, one := range []time.Duration{10 * time.Minute, d.Command + chunk*time.Second/500} {
		if d.longestStep() < one {
			t.Errorf("longest step %v, and one of %v is legal", d.longestStep(), one)
		}
	}
	d.Dot, d.MinRate = time.Second, 50
	if want := d.Command + chunk*time.Second/50; d.longestStep() < want {
		t.Errorf("longest step %v, and a write of %v is legal", d.longestStep(), want)
	}
}

// quickLimits makes a connection hang soon; dots and commands still have their time.
func quickLimits(r *poolRun) {
	dial := r.cfg.Dial
	r.cfg.Dial = func(ctx context.Context) (*Conn, error) {
		c, err := dial(ctx)
		if err == nil {
			c.t = Timeouts{Command: 50 * time.Millisecond, Data: 50 * time.Millisecond, Dot: 200 * time.Millisecond,
				Confirm: 50 * time.Millisecond, Quit: 50 * time.Millisecond, MinRate: 1 << 30, Prompt: time.Hour}
		}
		return c, err
	}
}

// A goroutine that nothing can end is given up, with its connection closed; the other
// connections end what they have begun, and nothing is reported of what hangs.
func TestPoolHung(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	all, _ := messages(100)
	again := make(chan struct{})
	release := sync.OnceFunc(func() { close(again) })
	all[7].confirm = func(context.Context) error { <-again; return nil }
	r := newPoolRun(t, newQueue(all...), s.serve)
	r.cfg.Max = 2
	quickLimits(r)
	r.start()
	t.Cleanup(release) // before the one that waits for Run
	if err := r.end(); !errors.Is(err, ErrHung) {
		t.Fatalf("Run: %v", err)
	}
	var behind []*message // declared behind what hangs, on the same connection
	for n, m := range all {
		if m.mu.Lock(); n == 7 && len(m.result) != 0 {
			t.Errorf("what hangs ended with %v", m.result)
		} else if n != 7 && len(m.result) != 1 && m.begun > 0 {
			behind = append(behind, m)
		}
		m.mu.Unlock()
	}
	if len(behind) > 1 {
		t.Errorf("%d messages were begun and have no end", len(behind))
	}
	if n := r.now.Load(); n != 0 {
		t.Errorf("%d connections counted as open", n)
	}
	release() // it goes on, and has no connection to send by
	waitAll(t, all[7:8])
	if r := all[7].want(t, Unsent, StageData, 0); !errors.Is(r.Err, ErrClosed) {
		t.Errorf("after all: %v", r.Err)
	}
	waitAll(t, behind)
	for _, m := range behind {
		m.want(t, Unsent, StageIdle, 0)
	}
}

// What waits for the relay without a limit is helped by the end of its connection alone.
func TestPoolHungUntilClosed(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	all, _ := messages(40)
	hungUp := make(chan struct{})
	all[5].confirm = func(context.Context) error { <-hungUp; return errors.New("hung until now") }
	first := true
	r := newPoolRun(t, newQueue(all...), func(p *peer) { // one connection at a time
		s.serve(p)
		if first {
			first = false
			close(hungUp)
		}
	})
	quickLimits(r)
	r.start()
	waitAll(t, all)
	r.stop()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	all[5].want(t, Unsent, StageData, 0)
	for n, m := range all {
		if n != 5 && n != 6 { // may have begun behind it
			m.want(t, Accepted, StageEOD, 250)
		}
	}
}

// A connection that idles is never taken for one that hangs.
func TestPoolIdleIsNoHang(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: nhnEHLO}
	host, port := listen(t, s.serve)
	ctx, stop := context.WithCancel(t.Context())
	c := dial(t, plainConfig(host, port))
	one := newSession(ctx, c, newQueue(), Limits{}, nil)
	done := make(chan error, 1)
	go func() { done <- one.serve() }()
	never := time.After(15 * time.Second)
	for tick := time.Tick(time.Millisecond); c.pulse.n.Load()%2 == 0; {
		select {
		case <-tick:
		case <-never:
			t.Fatal("an idle connection does not rest")
		}
	}
	m := &manager{Pool: &Pool{cfg: PoolConfig{Grow: time.Minute}}, open: map[*session]bool{one: true}, drain: func() {}}
	for range 1000 {
		m.watch()
	}
	if m.lost || c.closed.Load() {
		t.Error("an idle connection was taken for one that hangs")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
