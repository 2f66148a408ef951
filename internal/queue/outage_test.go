package queue

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

// A connection that is silently gone, as behind a firewall that forgot it, is given
// up before its member is taken for dead.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	hole := newHole(t, srv.Addr())
	q, through := open(t, srv.Addr()), open(t, hole.addr)
	buried := make(chan string, 4)
	watch := join(t, q, Hooks{TakenOver: func(_ context.Context, nonce string, _ bool) { buried <- nonce }})
	m := join(t, through, Hooks{})
	beat := func() int {
		n, _ := q.rdb.HGet(t.Context(), q.keys.beats(), m.nonce).Int()
		return n
	}
	eventually(t, "it beats", func() bool { return beat() > 2 })
	hole.swallow()
	before := beat()
	eventually(t, "it beats again, or is dead", func() bool { return beat() > before+1 || m.Err() != nil || len(buried) > 0 })
	if len(buried) > 0 || m.Err() != nil || watch.Err() != nil {
		t.Error("a live member was declared dead")
	}
}

// hole forwards connections to a server until it swallows those that are open.
type hole struct {
	addr string
	mu   sync.Mutex
	gone chan struct{}
}

func newHole(t *testing.T, to string) *hole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{addr: l.Addr().String(), gone: make(chan struct{})}
	var wg sync.WaitGroup
	done := make(chan struct{})
	t.Cleanup(func() {
		close(done)
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			h.mu.Lock()
			gone := h.gone
			h.mu.Unlock()
			wg.Go(func() {
				<-done
				_, _ = in.Close(), out.Close()
			})
			wg.Go(func() { forward(out, in, gone) })
			wg.Go(func() { forward(in, out, gone) })
		}
	})
	return h
}

func (h *hole) swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gone)
	h.gone = make(chan struct{})
}

func forward(to, from net.Conn, gone <-chan struct{}) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-gone:
			continue // read on, so that the sender notices nothing
		default:
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Redis restarts once more while it is being reminded: what was written again is
// written again.
func TestRestartAfterARestart(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--appendonly", "no")
	q := open(t, srv.Addr())
	c := store(t, q, "spring", 1, 2)
	reminded := 0
	m := join(t, q, Hooks{Restarted: func(context.Context) {
		if reminded++; reminded == 1 {
			srv.Kill()
			srv.Restart()
		}
	}})
	cl := claim(t, m, c, 0)
	accept(m, cl, 0)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	srv.Restart()
	if err := m.Confirm(t.Context(), m.Declare(cl, 1)); err != nil {
		t.Fatal(err)
	}
	if v := q.rdb.HGet(t.Context(), q.keys.claims(mail.Ad), cl.ID()).Val(); v != joinClaim(cl.Epoch, m.nonce) {
		t.Errorf("the claim stands as %q", v)
	}
	st := make([]Standing, 2)
	if err := fold(st, []byte(q.rdb.Get(t.Context(), q.keys.log(c.ID, 0)).Val())); err != nil || st[0].Outcome != mail.Accepted {
		t.Errorf("%+v, %v", st[0], err)
	}
}

// A Redis that does not answer who it is has not said that it is the same one; one
// that refuses to is taken as it is.
func TestRunID(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr(), MaxRetries: -1})
	defer rdb.Close()
	srv.SetError("NOPERM this user has no permissions to run the 'info' command")
	if id, err := runID(t.Context(), rdb); id != "" || err != nil {
		t.Errorf("a refusal: %q, %v", id, err)
	}
	srv.SetError("")
	srv.Close()
	if _, err := runID(t.Context(), rdb); err == nil || strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("no answer: %v", err)
	}
}

// A failed call of the observer's restarts every count, however quickly it failed.
func TestFailedPulseRestartsTheCount(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	m := silent(t, open(t, srv.Addr()))
	o := &observer{seen: map[string]sighting{"w": {"1", time.Now().Add(-deathAfter)}}, last: time.Now()}
	srv.SetError("LOADING Redis is loading the dataset in memory")
	if _, err := m.pulseOnce(t.Context(), o); err == nil {
		t.Fatal("the call did not fail")
	}
	srv.SetError("")
	now := time.Now()
	if dead := o.look(map[string]string{"w": "1"}, now, now); len(dead) != 0 {
		t.Error("declared dead just after a failed call")
	}
}
