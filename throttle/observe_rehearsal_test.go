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

// TestLimitsOfARelay has three processes with budgets in a real Redis learn a
// hidden limit of the rehearsal relay, over real connections: of messages/s, of
// open connections, or of messages on one connection. How near the rate comes to
// it, and what becomes of all three at once, takes minutes and a machine with
// nothing else to do; TestRateIsFound and TestAllLimitsAreFound look at that in
// virtual time.
func TestLimitsOfARelay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	t.Parallel()
	const rate, open, per = 50, 3, 40
	for name, tt := range map[string]struct {
		relay string
		found func(l Learned) bool
	}{
		"messages": {"rate=50/1s&open=0&per_connection=0", func(l Learned) bool {
			// What passed in the first second is the first guess. On a loaded machine
			// that is less than the limit, and never more.
			return len(l.Rates) == 1 && l.Rates[0].State == "settled" && l.Rates[0].Cap <= rate && l.Rates[0].Cap > 0.2*rate
		}},
		"open connections": {"rate=0&open=3&per_connection=0", func(l Learned) bool {
			return l.Open.State == "settled" && l.Open.Cap == open
		}},
		"messages of a connection": {"rate=0&open=0&per_connection=40", func(l Learned) bool {
			return l.PerConnection.Cap >= per && l.PerConnection.Cap <= per+per/4
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			findLimit(t, tt.relay, tt.found)
		})
	}
}

// findLimit waits until a limit is found, whatever else is being tried by then, and
// sees that it is kept from there on.
func findLimit(t *testing.T, limits string, found func(l Learned) bool) {
	srv, err := relay.Start(relay.Config{Profile: "throttled?code=452&" + limits, AuthOptional: true, NoTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	f := newFleet(t, backends()[2], Limits{Open: 9, Messages: []Window{{200, sec}}})
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
	eventually(t, "the limit is found", func() bool {
		if l, err = first.Learned(t.Context()); err != nil {
			t.Fatal(err)
		}
		return found(l)
	})
	t.Logf("found after %d messages, %d of them refused: %+v", passed.Load()+refused.Load(), refused.Load(), l)
	p, r := passed.Load(), refused.Load()
	eventually(t, "200 more messages pass", func() bool { return passed.Load()-p >= 200 })
	if more := refused.Load() - r; more > 20 {
		t.Errorf("%d of 200 messages refused after that", more)
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
