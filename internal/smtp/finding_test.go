package smtp

import (
	"net"
	"testing"
	"time"
)

// Garbage in the same read as the replies before it is known before the first of them is
// handed on: no content follows a 354 that has it behind.
func TestGarbageBehindReplies(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe() // one write is one read
	c := &Conn{nc: ours, raw: ours, rd: newReplyReader(ours), replies: make(chan arrivals)}
	c.allowed.Store(4)
	c.start(func() {})
	if _, err := theirs.Write([]byte(envOK + "xyz\r\n")); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(15 * time.Second)
	for !c.failed.Load() { // though nobody takes the replies
		select {
		case <-deadline:
			t.Fatal("the garbage is not seen before the replies are handed on")
		case <-time.After(time.Millisecond):
		}
	}
	if a := <-c.replies; a.n != 3 {
		t.Errorf("%d replies come first, want 3", a.n)
	}
	for range c.replies {
	}
	_, _ = ours.Close(), theirs.Close()
}

// The wait for the reply to QUIT is not a rest: it says nothing of how much the connection
// was needed.
func TestQuitUnanswered(t *testing.T) {
	t.Parallel()
	said := make(chan time.Time, 1)
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n")
		p.say("250 ok\r\n")
		p.expect("QUIT\r\n")
		said <- time.Now()
		p.quiet()
	})
	all, _ := messages(1)
	s := newSession(t.Context(), dial(t, plainConfig(host, port)), newQueue(all...), Limits{Messages: 1}, nil)
	if err := s.serve(); err != nil {
		t.Fatal(err)
	}
	if ended, quit := s.used.Add(s.rest), <-said; ended.After(quit) {
		t.Errorf("the rest ends %v after QUIT was said", ended.Sub(quit))
	}
}

// A dial to an address of the relay's makes one connection, there, and is proven to reach
// the relay by its name.
func TestDialAddress(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.server(relayName, time.Now().Add(time.Hour))
	host, port := listen(t, func(p *peer) {
		if err := p.secure(cert); err != nil {
			p.t.Error(err)
			return
		}
		p.hello(nhnEHLO)
		p.quit()
	})
	cfg := secureConfig(host, port, Implicit, ca)
	cfg.User, cfg.Auth = "", AuthNone
	cfg.Host, cfg.ServerName, cfg.Address = relayName, "", host
	dial(t, cfg).Quit()
	for name, want := range map[string]int{"127.0.0.1": 0, "::1": 0, "localhost": 0} {
		here := DialConfig{Host: name}
		if got, err := here.LookUp(t.Context()); err != nil || len(got) != want {
			t.Errorf("%s: %q, %v: there is nothing to look up", name, got, err)
		}
	}
}
