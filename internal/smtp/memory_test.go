package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	m := NewMemory()
	m.now = func() time.Time { return now }
	want := func(mode Mode, why string) {
		t.Helper()
		if got := m.Best("r:25"); got != mode {
			t.Errorf("%s: %v, want %v", why, got, mode)
		}
	}
	want(ModePipelined, "nothing known")
	m.suspect("r:25", ModePipelined, false)
	want(ModePipelined, "one silent break")
	m.worked("r:25", ModePipelined)
	m.suspect("r:25", ModePipelined, false)
	want(ModePipelined, "one after a success")
	m.worked("r:25", ModeGroup)
	m.suspect("r:25", ModePipelined, false)
	want(ModeGroup, "two in a row, with a group that worked between them")
	m.suspect("r:25", ModePipelined, true)
	want(ModeGroup, "an older connection says the same")
	m.suspect("r:25", ModeGroup, true)
	want(ModeLockStep, "groups break as well, for certain")
	m.suspect("r:25", ModeLockStep, true)
	want(ModeLockStep, "nothing below")
	if got := m.Best("other:25"); got != ModePipelined {
		t.Errorf("another relay: %v", got)
	}
	now = now.Add(memoryFor - time.Second)
	want(ModeLockStep, "within the hour")
	now = now.Add(2 * time.Second)
	want(ModePipelined, "time to try again")
	var none *Memory
	none.suspect("r:25", ModePipelined, true)
	none.worked("r:25", ModePipelined)
	if none.Best("r:25") != ModePipelined {
		t.Error("a nil Memory remembers")
	}
}

// sendThrough sends n messages to one relay, on as many connections as it takes, handing
// on what came back unsent, and returns the modes of the connections.
func sendThrough(t *testing.T, cfg DialConfig, all []*message) (modes []Mode) {
	t.Helper()
	todo := all
	for len(todo) > 0 {
		if len(modes) > 6 {
			t.Fatalf("still %d unsent after modes %v", len(todo), modes)
		}
		c := dial(t, cfg)
		modes = append(modes, c.Mode())
		_ = c.Serve(t.Context(), newQueue(todo...).finish(), Limits{})
		var again []*message
		for _, m := range todo {
			if len(m.result) == 0 {
				again = append(again, m)
			} else if m.result[0].Kind == Unsent {
				m.result, m.ended = nil, make(chan struct{})
				again = append(again, m)
			}
		}
		todo = again
	}
	return modes
}

// Relays that offer PIPELINING and cannot do it, each in its own way: the mail arrives,
// once, and the mode that works is remembered.
func TestBrokenPipelining(t *testing.T) {
	t.Parallel()
	type relay func(p *peer, s *sink)
	dropping := func(p *peer, s *sink) { s.serve(&peer{p.t, &dropper{Conn: p.Conn}, p.n}) }
	for name, tc := range map[string]struct {
		relay relay
		modes []Mode
	}{
		"drops input": {dropping, []Mode{ModePipelined, ModePipelined, ModeLockStep}},
		"503 to a group": {func(p *peer, s *sink) {
			p.hello(nhnEHLO)
			buf := make([]byte, 4096)
			n, _ := p.Read(buf)
			if string(buf[:n]) == envelopeOf(1) {
				p.say(mailOK + "503 5.5.0 one at a time\r\n503 5.5.0 one at a time\r\n")
				p.quiet()
				return
			}
			lockStepFrom(p, s, buf[:n])
		}, []Mode{ModePipelined, ModeLockStep}},
		"Postfix's words, later": {func(p *peer, s *sink) {
			p.hello(nhnEHLO)
			p.expect(envelopeOf(1))
			p.say(envOK)
			p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
			p.say("250 one\r\n" + envOK)
			p.expect(contentOf(2) + ".\r\n" + envelopeOf(3))
			for i := 1; i <= 2; i++ {
				s.got = append(s.got, Message{To: fmt.Sprintf("to%d@b.example", i), Content: []byte(contentOf(i))})
			}
			p.say("250 two\r\n" + mailOK + rcptOK + "503 5.5.0 <DATA>: Data command rejected: Improper use of SMTP command pipelining\r\n")
			p.quiet()
		}, []Mode{ModePipelined, ModeGroup}},
		"hangs up": {func(p *peer, s *sink) {
			p.hello(nhnEHLO)
			buf := make([]byte, 4096)
			n, _ := p.Read(buf)
			if string(buf[:n]) == envelopeOf(1) {
				return
			}
			lockStepFrom(p, s, buf[:n])
		}, []Mode{ModePipelined, ModePipelined, ModeLockStep}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &sink{ehlo: nhnEHLO}
			var conns atomic.Int32
			host, port := listen(t, func(p *peer) {
				if n := int(conns.Add(1)); name == "Postfix's words, later" && n > 1 {
					s.serve(p)
					return
				}
				tc.relay(p, s)
			})
			cfg := plainConfig(host, port)
			cfg.Timeouts.Command, cfg.Timeouts.Data = 100*time.Millisecond, 100*time.Millisecond
			all, _ := messages(3)
			if name == "503 to a group" || name == "hangs up" {
				all = all[:1]
			}
			modes := sendThrough(t, cfg, all)
			if !slices.Equal(modes, tc.modes) {
				t.Fatalf("modes %v, want %v", modes, tc.modes)
			}
			for _, m := range all {
				m.want(t, Accepted, StageEOD, 250)
			}
			checkPairing(t, s, len(all))
			if c := dial(t, cfg); c.Mode() != tc.modes[len(tc.modes)-1] {
				t.Errorf("not remembered: %v", c.Mode())
			} else {
				c.Close()
			}
		})
	}
}

// lockStepFrom serves one message in lock-step, of which first has been read.
func lockStepFrom(p *peer, s *sink, first []byte) {
	p.t.Helper()
	if string(first) != "MAIL FROM:<from@a.example>\r\n" {
		if len(first) > 0 {
			p.t.Errorf("relay read %q", first)
		}
		return
	}
	p.say(mailOK)
	p.expect("RCPT TO:<to1@b.example>\r\n")
	p.say(rcptOK)
	p.expect("DATA\r\n")
	p.say(goOn)
	p.expect(contentOf(1) + ".\r\n")
	s.mu.Lock()
	s.got = append(s.got, Message{To: "to1@b.example", Content: []byte(contentOf(1))})
	s.mu.Unlock()
	p.say("250 one\r\n")
	p.quit()
}

// dropper loses what follows the first line of a segment of commands, as a relay does
// that clears its input before it replies.
type dropper struct{ net.Conn }

func (d *dropper) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if i := bytes.IndexByte(b[:n], '\n'); i >= 0 && bytes.HasPrefix(b[:n], []byte("MAIL")) {
		n = i + 1
	}
	return n, err
}

// Forced modes are used whatever the relay offers, and nothing is learned from them.
func TestForcedMode(t *testing.T) {
	t.Parallel()
	s := &sink{ehlo: noPipes}
	host, port := listen(t, s.serve)
	cfg := plainConfig(host, port)
	cfg.Mode = ModePipelined
	all, _ := messages(50)
	if err := dial(t, cfg).Serve(t.Context(), newQueue(all...).finish(), Limits{}); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	checkPairing(t, s, 50)
	if s.reads > 60 {
		t.Errorf("%d round trips: not pipelined", s.reads)
	}

	// A forced mode takes the relay's 503 for the message's refusal.
	m := newMessage(1)
	err := serveAll(t, func(c *DialConfig) { c.Mode = ModeGroup }, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say("503 5.5.1 pipelining is not for you\r\n503 no\r\n503 no\r\n")
		p.quit()
	}, m)
	if err != nil {
		t.Fatal(err)
	}
	m.want(t, Refused, StageMail, 503)
}

// A recipient whose name has to do with pipes is refused like any other.
func TestPipeliningInAnAddress(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	err := serveAll(t, nil, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(mailOK + "550 5.1.1 pipelining@b.example: synchronization@b.example: no such user\r\n503 no recipient\r\n")
		p.expect("RSET\r\n" + envelopeOf(2))
		p.say("250 ok\r\n" + envOK)
		p.expect(contentOf(2) + ".\r\n")
		p.say("250 two\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Refused, StageRcpt, 550)
	all[1].want(t, Accepted, StageEOD, 250)
}
