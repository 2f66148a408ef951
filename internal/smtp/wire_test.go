package smtp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Replies arrive in any pieces: one octet at a time, with CRLF split.
func TestReplySlices(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	err := serveAll(t, nil, func(p *peer) {
		drip := func(s string) {
			for i := range len(s) {
				p.say(s[i : i+1])
			}
		}
		drip(greeting)
		p.expect(ehloLine)
		drip(nhnEHLO)
		p.expect(envelopeOf(1))
		drip(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		drip("250-2.0.0 one\r\n250 2.0.0 is in\r\n" + envOK)
		p.expect(contentOf(2) + ".\r\n")
		drip("550 5.7.1 no\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	if r := all[0].want(t, Accepted, StageEOD, 250); r.Reply.Text != "one is in" || r.Reply.Enhanced != "2.0.0" {
		t.Errorf("reply %+v", r.Reply)
	}
	all[1].want(t, Refused, StageEOD, 550)
}

// RST before the dot leaves messages unsent, after it unknown.
func TestReset(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		script       func(p *peer)
		want1, want2 Kind
	}{
		"after the envelope": {func(p *peer) { p.expect(envelopeOf(1)) }, Unsent, 0},
		"within the replies": {func(p *peer) { p.expect(envelopeOf(1)); p.say(mailOK) }, Unsent, 0},
		"after the dot": {func(p *peer) {
			p.expect(envelopeOf(1))
			p.say(envOK)
			p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		}, Unknown, Unsent},
		"after the dot's reply": {func(p *peer) {
			p.expect(envelopeOf(1))
			p.say(envOK)
			p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
			p.say("250 one\r\n")
			_ = p.Conn.(*net.TCPConn).CloseWrite() // RST would overtake the reply
			_, _ = io.Copy(io.Discard, p)
		}, Accepted, Unsent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			if tc.want2 == 0 {
				all = all[:1]
			}
			err := serveAll(t, nil, func(p *peer) {
				p.hello(nhnEHLO)
				tc.script(p)
				p.reset()
			}, all...)
			if err == nil {
				t.Error("Serve saw nothing")
			}
			for i, want := range []Kind{tc.want1, tc.want2}[:len(all)] {
				if r := all[i].result; len(r) != 1 || r[0].Kind != want {
					t.Errorf("message %d: %+v, want %v", i+1, r, want)
				}
			}
		})
	}
}

// tinyBuffers makes our buffers as small as the kernel lets them be.
func tinyBuffers(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		err = errors.Join(nc.(*net.TCPConn).SetReadBuffer(1), nc.(*net.TCPConn).SetWriteBuffer(1))
	}
	return nc, err
}

func largeContent(n int) []byte {
	line := strings.Repeat("x", 70) + "\r\n.dot\r\n"
	return []byte("Subject: large\r\n\r\n" + strings.Repeat(line, n/len(line)))
}

// A relay that says a lot before it reads on, while a large content is on its way:
// neither side waits for the other for ever.
func TestLargeContentFullBuffers(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	all[0].Content = largeContent(300 << 10)
	stuffed := bytes.ReplaceAll(all[0].Content, []byte("\r\n."), []byte("\r\n.."))
	err := serveAll(t, nil, func(p *peer) {
		_ = p.Conn.(*net.TCPConn).SetWriteBuffer(1)
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(string(stuffed) + ".\r\n")
		// 300 KB of reply before reading what follows the dot.
		p.say(strings.Repeat("250-"+strings.Repeat("y", 3000)+"\r\n", 99) + "250 one\r\n")
		p.expect(envelopeOf(2))
		p.say(envOK)
		p.expect(contentOf(2) + ".\r\n")
		p.say("250 two\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
	all[1].want(t, Accepted, StageEOD, 250)
}

// A relay that refuses a content before its end, and reads no further, has refused it
// (it has seen no dot); one that accepts it before its end has not accepted it.
func TestEarlyReply(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		say  string
		want Kind
		code int
	}{
		"552": {"552 5.3.4 too big\r\n", Refused, 552},
		"250": {"250 fine\r\n", Unsent, 250},
		"421": {"421 4.3.2 going down\r\n", Unsent, 421},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(1)
			all[0].Content = largeContent(8 << 20)
			err := serveAll(t, func(c *DialConfig) { c.Dialer = tinyBuffers }, func(p *peer) {
				_ = p.Conn.(*net.TCPConn).SetReadBuffer(1)
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				p.say(envOK)
				p.expect("Subject: large\r\n")
				p.say(tc.say)
				<-all[0].ended // not another octet read: only the early reply can end this
			}, all...)
			if err == nil {
				t.Error("Serve went on")
			}
			r := all[0].want(t, tc.want, StageEOD, tc.code)
			if tc.want == Unsent && r.Err == nil {
				t.Error("no reason given")
			}
		})
	}
	t.Run("552 to a content of one chunk", func(t *testing.T) {
		t.Parallel()
		all, _ := messages(1)
		all[0].Content = largeContent(60 << 10)
		stuck := func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &stuckConn{Conn: nc, over: make(chan struct{})}, err
		}
		err := serveAll(t, func(c *DialConfig) { c.Dialer = stuck }, func(p *peer) {
			p.hello(nhnEHLO)
			p.expect(envelopeOf(1))
			p.say(envOK)
			p.expect("Subject: large\r\n")
			p.say("552 5.3.4 too big\r\n")
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			<-all[0].ended
		}, all...)
		if err == nil {
			t.Error("Serve went on")
		}
		all[0].want(t, Refused, StageEOD, 552)
	})
}

// stuckConn takes a little of a large write, and no more until its deadline is past.
type stuckConn struct {
	net.Conn
	over chan struct{}
}

func (c *stuckConn) Write(b []byte) (int, error) {
	if len(b) < 10000 {
		return c.Conn.Write(b)
	}
	n, _ := c.Conn.Write(b[:1000])
	<-c.over
	return n, os.ErrDeadlineExceeded
}

func (c *stuckConn) SetWriteDeadline(t time.Time) error {
	if t.Equal(past) {
		close(c.over)
	}
	return nil
}

// A relay that takes no content, or gives no reply, ends in ErrTimeout, not in a
// connection stuck for ever.
func TestSlowRelay(t *testing.T) {
	t.Parallel()
	t.Run("zero window", func(t *testing.T) {
		t.Parallel()
		all, _ := messages(1)
		all[0].Content = largeContent(8 << 20)
		err := serveAll(t, func(c *DialConfig) {
			c.Timeouts.Command, c.Timeouts.MinRate = 50*time.Millisecond, 10<<20
		}, func(p *peer) {
			p.hello(nhnEHLO)
			p.expect(envelopeOf(1))
			p.say(envOK)
			<-all[0].ended
		}, all...)
		if !errors.Is(err, ErrTimeout) {
			t.Errorf("Serve: %v, want ErrTimeout", err)
		}
		all[0].want(t, Unsent, StageEOD, 0)
	})
	t.Run("no reply", func(t *testing.T) {
		t.Parallel()
		all, _ := messages(1)
		err := serveAll(t, func(c *DialConfig) { c.Timeouts.Command = 40 * time.Millisecond }, func(p *peer) {
			p.hello(nhnEHLO)
			p.expect(envelopeOf(1))
			p.quiet()
		}, all...)
		if !errors.Is(err, ErrTimeout) {
			t.Errorf("Serve: %v, want ErrTimeout", err)
		}
		all[0].want(t, Unsent, StageMail, 0)
	})
}

// A connection that the relay ends while it idles is noticed there and then: the message
// that comes next is not even begun.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]string{
		"closed": "", "421": "421 4.4.2 idle too long\r\n", "noise": "hello?\r\n", "half a reply": "42",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(1)
			q := newQueue(all...)
			host, port := listen(t, func(p *peer) {
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				p.say(envOK)
				p.expect(contentOf(1) + ".\r\n")
				p.say("250 one\r\n")
				<-all[0].ended
				p.say(last)
				if name != "closed" {
					p.quiet()
				}
			})
			err := dial(t, plainConfig(host, port)).Serve(t.Context(), q, Limits{})
			var e *Error
			if !errors.Is(err, ErrStale) || !errors.As(err, &e) || e.Stage != StageIdle {
				t.Errorf("Serve: %v, want ErrStale at idle", err)
			}
			if name == "421" && e.Reply.Code != 421 {
				t.Errorf("the 421 is lost: %v", err)
			}
			all[0].want(t, Accepted, StageEOD, 250)
		})
	}
}

// A message that reaches a connection which has died meanwhile is unsent, and Begin is
// not called.
func TestStaleBeforeBegin(t *testing.T) {
	t.Parallel()
	dialled := make(chan struct{})
	host, port := listen(t, func(p *peer) { p.hello(nhnEHLO); <-dialled; p.say("421 no\r\n") })
	c := dial(t, plainConfig(host, port))
	close(dialled)
	s := newSession(t.Context(), c, newQueue().finish(), Limits{}, nil)
	s.work, s.fetch, s.timer = t.Context(), newFetcher(t.Context(), s.src), time.NewTimer(time.Hour)
	gone := make(chan struct{})
	c.start(func() { close(gone) })
	<-gone
	m := newMessage(1)
	err := s.launch(s.admit(tx{m}))
	if !errors.Is(err, ErrStale) || err.Reply.Code != 421 {
		t.Errorf("launch: %v, want ErrStale with 421", err)
	}
	s.fail(err)
	c.shut(false)
	s.fetch.stop(err)
	m.want(t, Unsent, StageIdle, 421)
	if m.begun > 0 {
		t.Error("Begin was called on a dead connection")
	}
}

// Drain: nothing new is begun, the open dot is waited for, QUIT is said.
func TestDrain(t *testing.T) {
	t.Parallel()
	all, _ := messages(3)
	ctx, drain := context.WithCancel(t.Context())
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		drain()
		p.say("250 one\r\n" + envOK)
		p.expect(contentOf(2) + ".\r\n") // begun before: finished; and no envelope 3
		p.say("250 two\r\n")
		p.quit()
	})
	if err := dial(t, plainConfig(host, port)).Serve(ctx, newQueue(all...), Limits{}); err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
	all[1].want(t, Accepted, StageEOD, 250)
	if len(all[2].result) > 0 {
		t.Error("message 3 was taken")
	}
}

func TestDrainIdle(t *testing.T) {
	t.Parallel()
	ctx, drain := context.WithCancel(t.Context())
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		drain()
		p.quit()
	})
	if err := dial(t, plainConfig(host, port)).Serve(ctx, newQueue(), Limits{}); err != nil {
		t.Fatal(err)
	}
}

// Close from elsewhere ends Serve at once: the open dot is unknown, the rest unsent.
func TestForce(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	closed := make(chan struct{})
	var c *Conn
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		c.Close()
		<-closed
	})
	c = dial(t, plainConfig(host, port))
	err := c.Serve(t.Context(), newQueue(all...), Limits{})
	close(closed)
	if !errors.Is(err, ErrClosed) {
		t.Errorf("Serve: %v, want ErrClosed", err)
	}
	all[0].want(t, Unknown, StageEOD, 0)
	all[1].want(t, Unsent, StageMail, 0)
}

// countedConn counts what is written to the network.
type countedConn struct {
	net.Conn
	writes *int
}

func (c countedConn) Write(b []byte) (int, error) { *c.writes++; return c.Conn.Write(b) }

// Through TLS as well, a message of ordinary size and the next one's envelope are one
// write.
func TestOneWriteThroughTLS(t *testing.T) {
	t.Parallel()
	const n = 300
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	s := &sink{ehlo: nhnEHLO}
	host, port := listen(t, func(p *peer) {
		if err := p.secure(cert); err != nil {
			p.t.Error(err)
		}
		s.serve(p)
	})
	cfg := secureConfig(host, port, Implicit, ca)
	cfg.User, cfg.Auth = "", AuthNone
	writes := 0
	cfg.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedConn{nc, &writes}, err
	}
	all, _ := messages(n)
	for _, m := range all {
		m.Content = largeContent(12 << 10)
	}
	if err := dial(t, cfg).Serve(t.Context(), newQueue(all...).finish(), Limits{}); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	if len(s.got) != n || writes > n+10 {
		t.Errorf("%d messages in %d writes, want one each", len(s.got), writes)
	}
}

// The end of a TLS connection without close_notify, and one with it, after the content:
// unknown.
func TestTLSTruncated(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	for _, polite := range []bool{true, false} {
		m := newMessage(1)
		host, port := listen(t, func(p *peer) {
			raw := p.Conn
			if err := p.secure(cert); err != nil {
				p.t.Error(err)
			}
			p.hello(nhnEHLO)
			p.expect(envelopeOf(1))
			p.say(envOK)
			p.expect(contentOf(1) + ".\r\n")
			p.say("250 o") // half of an acceptance
			if polite {
				_ = p.Close()
			}
			_ = raw.Close()
		})
		cfg := secureConfig(host, port, Implicit, ca)
		cfg.User, cfg.Auth = "", AuthNone
		if err := dial(t, cfg).Serve(t.Context(), newQueue(m), Limits{}); err == nil {
			t.Error("Serve went on")
		}
		m.want(t, Unknown, StageEOD, 0)
	}
}

// The reply to a dot that is in before the relay hangs up counts, although the next
// message's envelope can no longer be written.
func TestReplyBeforeHangUp(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n")
		p.say("250 one\r\n")
	})
	c := dial(t, plainConfig(host, port))
	s := newSession(t.Context(), c, newQueue().finish(), Limits{}, nil)
	s.work, s.fetch, s.timer = t.Context(), newFetcher(t.Context(), s.src), time.NewTimer(time.Hour)
	gone := make(chan struct{})
	c.start(func() { close(gone) })
	if err := s.launch(s.admit(tx{all[0]})); err != nil {
		t.Fatal(err)
	}
	if ready, err := s.envelope(); !ready || err != nil {
		t.Fatal(ready, err)
	}
	if err := s.content(); err != nil {
		t.Fatal(err)
	}
	<-gone // the reply is in the queue, and the end of the connection behind it
	err := s.launch(s.admit(tx{all[1]}))
	if err == nil {
		t.Fatal("launched on a dead connection")
	}
	s.fail(err)
	c.shut(false)
	s.fetch.stop(err)
	all[0].want(t, Accepted, StageEOD, 250)
	if all[1].want(t, Unsent, StageIdle, 0); all[1].begun > 0 {
		t.Error("the second was begun")
	}
}

// tornConn loses what follows the first dot, and says so.
type tornConn struct{ net.Conn }

func (c tornConn) Write(b []byte) (int, error) {
	if i := bytes.Index(b, []byte("\r\n.\r\nMAIL")); i >= 0 {
		n, _ := c.Conn.Write(b[:i+5])
		return n, errors.New("torn")
	}
	return c.Conn.Write(b)
}

// Where a write fails behind the dot, the message is not given up: its reply may come.
func TestWriteFailsBehindTheDot(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	err := serveAll(t, func(c *DialConfig) {
		c.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			return tornConn{nc}, err
		}
	}, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n")
		p.say("250 one\r\n")
	}, all...)
	if err == nil {
		t.Error("Serve went on")
	}
	all[0].want(t, Accepted, StageEOD, 250)
	all[1].want(t, Unsent, StageMail, 0)
}
