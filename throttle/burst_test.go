package throttle

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// connections is a pool of connections as the budget knows it: each tries for a message when
// it is done with one, and those that got none share one that waits.
type connections struct {
	b      *Budget
	class  Class
	each   time.Duration // a message takes
	begun  *record
	asking chan struct{} // of capacity 1; a mutex would stop the clock

	mu   sync.Mutex
	left int
}

func (c *connections) run(ctx context.Context) {
	for {
		c.mu.Lock()
		left, ok := c.left, c.left > 0 && c.b.TryMessage(c.class)
		c.mu.Unlock()
		switch {
		case left == 0:
			return
		case !ok && c.await(ctx) != nil:
			return
		}
		c.mu.Lock()
		c.left = max(0, c.left-1)
		c.mu.Unlock()
		c.begun.add(time.Now())
		nap(ctx, c.each)
	}
}

func (c *connections) await(ctx context.Context) error {
	c.asking <- struct{}{}
	defer func() { <-c.asking }()
	_, err := c.b.Message(ctx, c.class)
	return err
}

// A burst that comes through a few connections, of which only one waits at a time, goes
// before ads as one with a crowd of waiters does: what it used is no measure of what it
// wants.
func TestBurstOverFewConnections(t *testing.T) {
	t.Parallel()
	half := Limits{Open: 8, Messages: []Window{{500, sec}}, Streams: map[string]Share{"auth": {Reserve: []Window{{400, sec}}}}}
	for name, limits := range map[string]Limits{"large reserve": half, "shipped": shipped()} {
		for _, open := range []int{1, 2, 4} {
			t.Run(fmt.Sprint(name, " ", open), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { burstOver(t, limits, open) })
			})
		}
	}
}

func burstOver(t *testing.T, limits Limits, open int) {
	const burst = 1000
	v := &virtual{t: t, limits: limits, store: &Memory{}, takes: 2 * time.Millisecond}
	bs := v.fleet(4)
	ctx, cancel := context.WithTimeout(t.Context(), 20*sec)
	defer cancel()
	ads := &record{}
	var wg, codes sync.WaitGroup
	for _, b := range bs {
		wg.Go(func() { ads.drain(ctx, b, Class{Stream: "ad"}) })
	}
	nap(ctx, 3*sec)
	start := time.Now()
	c := &connections{b: bs[0], class: Class{Stream: "auth"}, each: 2 * time.Millisecond, begun: &record{}, asking: make(chan struct{}, 1), left: burst}
	for range open {
		codes.Go(func() { c.run(ctx) })
	}
	codes.Wait()
	took := time.Since(start)
	cancel()
	wg.Wait()
	if n := ads.during(start.Add(100*time.Millisecond), took-100*time.Millisecond); n > burst/100 {
		t.Errorf("%d ads began during a burst of %d", n, burst)
	}
	slot := (sec + slack(sec)) / time.Duration(limits.Messages[0].N)
	if took > burst*slot*105/100 {
		t.Errorf("the burst took %v, its slots %v", took, burst*slot)
	}
}
