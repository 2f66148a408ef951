package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// RST at every step of the way in ends the dial there, and a later one may do better.
func TestResetOnTheWayIn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	// until speaks the relay's part up to the given step, and not that one.
	until := func(p *peer, step Stage) {
		if step == StageConnect {
			return
		}
		p.say(greeting)
		p.expect(ehloLine)
		if step == StageEHLO {
			return
		}
		p.say(tlsEHLO)
		p.expect("STARTTLS\r\n")
		if step == StageStartTLS {
			return
		}
		p.say("220 go\r\n")
		if step == StageTLS {
			_, _ = p.Read(make([]byte, 1)) // of the client's hello
			return
		}
		if err := p.secure(cert); err != nil {
			p.t.Error(err)
		}
		p.expect(ehloLine)
		p.say(authEHLO)
		p.expect(authPlain)
	}
	for _, step := range []Stage{StageConnect, StageEHLO, StageStartTLS, StageTLS, StageAuth} {
		t.Run(string(step), func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) {
				raw := &peer{p.t, p.Conn, p.n}
				until(p, step)
				raw.reset()
			})
			_, err := Dial(t.Context(), secureConfig(host, port, StartTLS, ca))
			var e *Error
			if !errors.As(err, &e) || e.Stage != step || !e.Temporary() || e.IsLogin() {
				t.Errorf("Dial: %v, want a temporary error at %s", err, step)
			}
		})
	}
}

// RST at every step of a message that goes one command at a time, within a large content,
// and while nothing is under way: unknown where a dot was out, nobody's fault elsewhere.
func TestResetOnTheWay(t *testing.T) {
	t.Parallel()
	steps := func(p *peer, n, answered int) { // reads one command more than it answers
		for i, command := range []string{"MAIL FROM:<from@a.example>\r\n", fmt.Sprintf("RCPT TO:<to%d@b.example>\r\n", n), "DATA\r\n"} {
			if i <= answered {
				p.expect(command)
			}
			if i < answered {
				p.say([]string{mailOK, rcptOK, goOn}[i])
			}
		}
	}
	first := func(p *peer) { steps(p, 1, 3); p.expect(contentOf(1) + ".\r\n"); p.say("250 one\r\n") }
	for name, tc := range map[string]struct {
		script func(p *peer)
		kind   Kind
		stage  Stage
	}{
		"mail":    {func(p *peer) { steps(p, 2, 0) }, Unsent, StageMail},
		"rcpt":    {func(p *peer) { steps(p, 2, 1) }, Unsent, StageRcpt},
		"data":    {func(p *peer) { steps(p, 2, 2) }, Unsent, StageData},
		"content": {func(p *peer) { steps(p, 2, 3); p.expect("Subject: large\r\n") }, Unsent, StageEOD},
		"dot":     {func(p *peer) { steps(p, 2, 3); _, _ = io.CopyN(io.Discard, p, wireLength(largeContent(8<<20))) }, Unknown, StageEOD},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			all[1].Content = largeContent(8 << 20) // never swallowed by buffers
			err := serveAll(t, nil, func(p *peer) { p.hello(noPipes); first(p); tc.script(p); p.reset() }, all...)
			var e *Error
			if !errors.As(err, &e) || errors.Is(err, ErrBotched) {
				t.Errorf("Serve: %v, want the end of the connection", err)
			}
			all[0].want(t, Accepted, StageEOD, 250)
			all[1].want(t, tc.kind, tc.stage, 0)
		})
	}
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		all, _ := messages(1)
		host, port := listen(t, func(p *peer) { p.hello(noPipes); first(p); <-all[0].ended; p.reset() })
		if err := dial(t, plainConfig(host, port)).Serve(t.Context(), newQueue(all...), Limits{}); !errors.Is(err, ErrStale) {
			t.Errorf("Serve: %v, want ErrStale", err)
		}
		all[0].want(t, Accepted, StageEOD, 250)
	})
}

// wireLength is how long content is on the wire, dot included.
func wireLength(content []byte) int64 { return int64(len(wireContent(content, true, chunk))) }

// drip sends an octet every millisecond until the other end has had enough.
func (p *peer) drip() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := p.Write([]byte("2")); err != nil {
			return
		}
	}
}

// A relay that sends its replies an octet at a time, for ever, is done for after the time
// of one request, whatever the request, however alive it looks to each read; and the
// connections beside it do not notice.
func TestDrippingReplies(t *testing.T) {
	t.Parallel()
	const wait = 60 * time.Millisecond
	for name, tc := range map[string]struct {
		script func(p *peer)
		limit  func(*Timeouts)
		stage  Stage
	}{
		"greeting": {func(*peer) {}, func(t *Timeouts) { t.Greeting = wait }, StageConnect},
		"ehlo":     {func(p *peer) { p.say(greeting); p.expect(ehloLine) }, func(t *Timeouts) { t.Command = wait }, StageEHLO},
		"auth":     {func(p *peer) { p.hello(authEHLO); p.expect(authPlain) }, func(t *Timeouts) { t.Command = wait }, StageAuth},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) { tc.script(p); p.drip() })
			cfg := plainConfig(host, port)
			cfg.User, cfg.Password = "AppKey#ad", "SecretKey"
			tc.limit(&cfg.Timeouts)
			_, err := Dial(t.Context(), cfg)
			var e *Error
			if !errors.As(err, &e) || e.Stage != tc.stage || !errors.Is(err, ErrTimeout) {
				t.Errorf("Dial: %v, want a time-out at %s", err, tc.stage)
			}
		})
	}
	for name, tc := range map[string]struct {
		script func(p *peer)
		limit  func(*Timeouts)
		kind   Kind
		stage  Stage
	}{
		"mail": {func(p *peer) { p.expect(envelopeOf(1)) }, func(t *Timeouts) { t.Command = wait }, Unsent, StageMail},
		"rcpt": {func(p *peer) { p.expect(envelopeOf(1)); p.say(mailOK) }, func(t *Timeouts) { t.Command = wait }, Unsent, StageRcpt},
		"data": {func(p *peer) { p.expect(envelopeOf(1)); p.say(mailOK + rcptOK) }, func(t *Timeouts) { t.Data = wait }, Unsent, StageData},
		"dot": {func(p *peer) { p.expect(envelopeOf(1)); p.say(envOK); p.expect(contentOf(1) + ".\r\n") },
			func(t *Timeouts) { t.Dot = wait }, Unknown, StageEOD},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(1)
			err := serveAll(t, func(c *DialConfig) { tc.limit(&c.Timeouts) },
				func(p *peer) { p.hello(nhnEHLO); tc.script(p); p.drip() }, all...)
			if !errors.Is(err, ErrTimeout) {
				t.Errorf("Serve: %v, want ErrTimeout", err)
			}
			all[0].want(t, tc.kind, tc.stage, 0)
		})
	}
	t.Run("others go on", func(t *testing.T) {
		t.Parallel()
		const n = 50
		s := &sink{ehlo: nhnEHLO}
		stuck := make(chan struct{})
		host, port := listen(t, func(p *peer) {
			if p.n == 0 {
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				close(stuck)
				p.quiet()
				return
			}
			s.serve(p)
		})
		slow := dial(t, plainConfig(host, port))
		over := make(chan error, 1)
		go func() { over <- slow.Serve(context.Background(), newQueue(newMessage(1)), Limits{}) }()
		<-stuck
		all, _ := messages(n)
		if err := dial(t, plainConfig(host, port)).Serve(t.Context(), newQueue(all...).finish(), Limits{}); !errors.Is(err, errNoMore) {
			t.Error(err)
		}
		checkPairing(t, s, n)
		slow.Close()
		<-over
	})
}

// A relay that takes an octet now and then keeps its window open, and still is too slow.
func TestTricklingWindow(t *testing.T) {
	t.Parallel()
	all, _ := messages(1)
	all[0].Content = largeContent(8 << 20)
	err := serveAll(t, func(c *DialConfig) {
		c.Dialer, c.Timeouts.Command, c.Timeouts.MinRate = tinyBuffers, 100*time.Millisecond, 10<<20
	}, func(p *peer) {
		_ = p.Conn.(*net.TCPConn).SetReadBuffer(1)
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
				_, _ = p.Read(make([]byte, 1))
			case <-all[0].ended:
				tick.Stop()
				return
			}
		}
	}, all...)
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("Serve: %v, want ErrTimeout", err)
	}
	all[0].want(t, Unsent, StageEOD, 0)
}

// A large content may take its time: what bounds the wait for Confirm does not bound it.
func TestLargeContentOutlastsConfirm(t *testing.T) {
	t.Parallel()
	all, _ := messages(1)
	all[0].Content = largeContent(8 << 20)
	err := serveAll(t, func(c *DialConfig) { c.Timeouts.Confirm = 100 * time.Millisecond }, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect("Subject: large\r\n")
		<-time.After(300 * time.Millisecond)
		_, _ = io.CopyN(io.Discard, p, wireLength(all[0].Content)-int64(len("Subject: large\r\n")))
		p.say("250 one\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Error(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
}

// A TLS connection cut without close_notify: what came whole before it counts, half a
// reply is none, whether the end comes after the content, in a line or between two.
func TestTLSCutShort(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	for last, want := range map[string]Kind{
		"": Unknown, "2": Unknown, "250": Unknown, "250 one": Unknown, "250 one\r": Unknown, "250-one\r\n": Unknown, "250-one\r\n250": Unknown,
		"250 one\r\n": Accepted, "554 no\r\n": Refused, "250 one\r\n250 ": Accepted,
	} {
		t.Run(strings.NewReplacer("\r", "CR", "\n", "LF").Replace(last), func(t *testing.T) {
			t.Parallel()
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
				p.say(last)
				_ = raw.(*net.TCPConn).CloseWrite() // FIN without the alert that announces it
				_, _ = io.Copy(io.Discard, raw)
			})
			cfg := secureConfig(host, port, Implicit, ca)
			cfg.User, cfg.Auth = "", AuthNone
			if err := dial(t, cfg).Serve(t.Context(), newQueue(m), Limits{}); err == nil {
				t.Error("Serve went on")
			}
			if len(m.result) != 1 || m.result[0].Kind != want {
				t.Errorf("%+v, want %v", m.result, want)
			}
		})
	}
}

// A certificate that nobody signed, and one that is not valid yet.
func TestDialUnprovenCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, tc := range map[string]struct {
		server *tls.Config
		hint   string
	}{
		"self-signed":   {newAuthority(t).itself(), "set relay.ca_file"},
		"not valid yet": {ca.later(relayName), "this machine's clock is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, port := listen(t, func(p *peer) {
				if err := p.secure(tc.server); err == nil {
					p.say(greeting)
					p.quiet() // no AUTH, nothing
				}
			})
			_, err := Dial(t.Context(), secureConfig(host, port, Implicit, ca))
			var e *Error
			if !errors.As(err, &e) || e.Stage != StageTLS || e.Temporary() || !strings.Contains(err.Error(), tc.hint) {
				t.Errorf("Dial: %v, want a permanent error at tls with %q", err, tc.hint)
			}
		})
	}
}
