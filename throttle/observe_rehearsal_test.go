package throttle

import (
	"context"
	"net"
	"net/textproto"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

// TestLimitsOfARelay has three processes with budgets in a real Redis learn the
// hidden limits of the rehearsal relay, over real connections: of messages/s, of
// open connections, and of messages on one connection.
func TestLimitsOfARelay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	const rate, open, per = 50, 3, 40
	srv, err := relay.Start(relay.Config{Profile: "throttled?rate=50/1s&open=3&per_connection=40&code=452", AuthOptional: true, NoTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	f := newFleet(t, backends()[2], Limits{Open: 9, Messages: []Window{{500, sec}}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var passed, refused atomic.Int64
	var first *Budget
	for range 3 {
		b := f.idle()
		b.p.Login = func(string) string { return "login" }
		run(t, b)
		first = b
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					rehearseOnce(ctx, b, srv.Addr(), &passed, &refused)
				}
			})
		}
	}
	var l Learned
	eventually(t, "all limits are found", func() bool {
		if l, err = first.Learned(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(l.Rates) == 1 && l.Rates[0].State == "settled" && l.Rates[0].Limit > 0.9*rate &&
			l.Open.State == "settled" && l.Open.Cap == open &&
			l.PerConnection.Cap >= per && l.PerConnection.Cap <= per+per/4
	})
	t.Logf("found after %d messages, %d of them refused: %+v", passed.Load()+refused.Load(), refused.Load(), l)
	if r := l.Rates[0]; r.Cap > rate || r.Cap < 0.85*rate || r.Limit > 1.1*rate {
		t.Errorf("learned %+v of a limit of %d/s", r, rate)
	}
	p, r := passed.Load(), refused.Load()
	eventually(t, "400 more messages pass", func() bool { return passed.Load()-p >= 400 })
	if more := refused.Load() - r; more > 20 {
		t.Errorf("%d of 400 messages refused after that", more)
	}
}

// rehearseOnce opens one connection as a worker does, and begins messages on it.
func rehearseOnce(ctx context.Context, b *Budget, addr string, passed, refused *atomic.Int64) {
	lease, err := b.Connect(ctx, "ad")
	if err != nil {
		return
	}
	defer lease.Release()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		lease.Refused(Refusal{Why: err.Error()})
		return
	}
	c := textproto.NewConn(nc)
	defer func() { _ = c.Close() }()
	if _, _, err := c.ReadResponse(220); err != nil {
		lease.Refused(Refusal{Why: err.Error()})
		b.Note(Event{Kind: Crowded})
		return
	}
	lease.Greeted()
	say := func(line string) (code int) {
		if err := c.PrintfLine("%s", line); err != nil {
			return 0
		}
		code, _, _ = c.ReadResponse(0)
		return code
	}
	say("EHLO rehearsal.example")
	for n := 0; ; n++ {
		if most := b.PerConnection(); most > 0 && n >= most {
			b.Note(Event{Kind: Retired, N: n})
			return
		}
		class, err := b.Message(ctx, Class{Stream: "ad"})
		if err != nil {
			return
		}
		begun := time.Now()
		switch code := say("MAIL FROM:<sender@rehearsal.example>"); code {
		case 250:
			passed.Add(1)
			b.Note(Event{Kind: Accepted, Class: class, Took: time.Since(begun)})
			say("RSET")
		case 452:
			refused.Add(1)
			n-- // not taken
			b.Note(Event{Kind: Throttled, Class: class})
		default:
			refused.Add(1)
			b.Note(Event{Kind: Ended, N: n})
			return
		}
	}
}
