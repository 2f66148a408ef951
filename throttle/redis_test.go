package throttle

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func redisFleet(t *testing.T, s *server, l Limits) *fleet {
	c := s.client(t)
	return newFleet(t, backend{open: func(*testing.T) func(Params) (*Budget, error) {
		return func(p Params) (*Budget, error) { return NewRedis(c, p) }
	}}, l)
}

// Four processes' worth of budgets drain one real Redis as fast as they may. No
// window is above the limit, and how near to it they come is printed.
func TestDrainOnRedis(t *testing.T) {
	t.Parallel()
	for _, ws := range [][]Window{{{200, sec}}, {{400, 2 * sec}}, {{200, sec}, {500_000, day}}, {{5000, sec}}} {
		t.Run(ws[len(ws)-1].String(), func(t *testing.T) {
			l := shipped()
			l.Messages, l.Streams = ws, nil
			f := redisFleet(t, startRedis(t), l)
			var bs []*Budget
			for range 4 {
				b, _ := f.budget()
				bs = append(bs, b)
			}
			if err := message(within(t), bs[0], "ad"); err != nil { // the timeline has begun
				t.Fatal(err)
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*sec)
			defer cancel()
			r := drain(ctx, t, bs, "ad", 8)
			took := time.Since(start)
			r.check(t, "messages", ws...)
			var calls uint64
			for _, b := range bs {
				calls += b.Stats().Calls
			}
			perSecond := float64(r.len()) / took.Seconds()
			limit := float64(ws[0].N) / ws[0].Per.Seconds()
			enforced := float64(ws[0].N) / (ws[0].Per + slack(ws[0].Per)).Seconds()
			t.Logf("%.1f/s: %.1f %% of N a window, %.1f %% of N a window and slack; worst window %d; %.3f Redis calls a message",
				perSecond, 100*perSecond/limit, 100*perSecond/enforced, r.worst(ws[0].Per), float64(calls)/float64(r.len()))
		})
	}
}

// While Redis is frozen nothing is granted, waits end with their context, a
// lease is lost while Redis would still count it, and one line says so; when
// Redis wakes up, everything goes on by itself.
func TestFrozenRedis(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := redisFleet(t, s, Limits{Open: 2, Messages: []Window{{1000, sec}}})
	b := f.idle()
	b.timing = timing{lapse: 30 * sec, lost: sec, renew: 50 * time.Millisecond}
	logs := &lines{}
	b.log = slog.New(slog.NewTextHandler(logs, nil))
	b.outage.log = b.log
	run(t, b)
	l := connect(t, b, "ad")
	if err := message(within(t), b, "ad"); err != nil {
		t.Fatal(err)
	}

	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) })
	nap(t.Context(), 2*(aheadWithin+life)) // what was leased before has lapsed
	for _, stream := range []string{"ad", "auth"} {
		if b.TryMessage(Class{Stream: stream}) || message(shortly(t), b, stream) == nil {
			t.Errorf("a message of %s was granted without Redis", stream)
		}
		refused(t, b, stream)
	}
	select {
	case <-l.Lost():
	case <-within(t).Done():
		t.Fatal("the lease was not lost")
	}
	lost := time.Now()
	eventually(t, "the outage is logged", func() bool { return strings.Contains(logs.String(), "no answer from Redis") })
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c := s.client(t)
	var lapse float64
	eventually(t, "redis is back", func() bool {
		score, err := c.ZScore(t.Context(), "test:{b:acc}:open", l.name).Result()
		lapse = score
		return err == nil
	})
	// Calls that were waiting in the socket may have renewed it since; that only
	// makes it later. Both clocks are this machine's.
	if at := time.UnixMicro(int64(lapse)); !lost.Before(at) {
		t.Errorf("lost at %v, and Redis let it lapse at %v", lost, at)
	}
	l.Release()
	if err := message(within(t), b, "ad"); err != nil {
		t.Fatal(err)
	}
	connect(t, b, "ad")
	eventually(t, "the end of the outage is logged", func() bool { return strings.Contains(logs.String(), "Redis is back") })
	if n := strings.Count(logs.String(), "no answer from Redis"); n != 1 {
		t.Errorf("%d lines about one outage:\n%s", n, logs)
	}
}

// A Redis that comes back empty gives no second budget once AssumeFull was
// called, and leases that live are taken again.
func TestRedisForgets(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	l := Limits{Open: 4, New: []Window{{4, time.Minute}}, Messages: []Window{{100, sec}, {500, hour}}}
	f := redisFleet(t, s, l)
	b, _ := f.budget()
	for range 3 {
		connect(t, b, "ad")
	}
	r := &record{}
	send := func(n int) {
		for range n {
			if err := message(within(t), b, "ad"); err != nil {
				t.Fatal(err)
			}
			r.add(time.Now())
		}
	}
	send(50)
	c := s.client(t)
	for range 5 {
		if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := b.AssumeFull(t.Context()); err != nil {
			t.Fatal(err)
		}
		send(20)
	}
	r.check(t, "messages", l.Messages[0])
	refused(t, b, "ad")
	eventually(t, "the leases are taken again", func() bool {
		u, err := b.Usage(t.Context())
		return err == nil && u.Open == 3
	})
	if n := b.Stats().Lost; n != 0 {
		t.Errorf("%d leases were lost", n)
	}
	// A grant that was on its way back while everything was deleted is not remembered yet.
	u, err := b.Usage(t.Context())
	if err != nil || u.Messages[1].Used < 140 {
		t.Errorf("the hour has %d used (%v), want the 150 begun, but for some under way at the five deletions", u.Messages[1].Used, err)
	}
}

// Redis that answers with an error grants nothing either.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b, _ := redisFleet(t, s, Limits{Open: 2, Messages: []Window{{1000, sec}}}).budget()
	if err := s.client(t).Set(t.Context(), "test:{b:acc}:state", "not a hash", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if message(shortly(t), b, "ad") == nil {
		t.Error("a message was granted")
	}
	refused(t, b, "ad")
	if _, err := b.Usage(t.Context()); err == nil || !strings.Contains(err.Error(), "read budget: ") {
		t.Errorf("usage: %v", err)
	}
	if err := b.AssumeFull(t.Context()); err == nil {
		t.Error("AssumeFull without an effect and without an error")
	}
	if _, err := b.ReleaseOwner(t.Context(), "x"); err == nil {
		t.Error("ReleaseOwner without an effect and without an error")
	}
	if b.Stats().Failed == 0 {
		t.Error("no failed call was counted")
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
