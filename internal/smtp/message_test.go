package smtp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Limits, and the relay's own MAILMAX, end a connection with QUIT.
func TestLimits(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ehlo string
		lim  Limits
		sent int
	}{
		"messages":         {nhnEHLO, Limits{Messages: 2}, 2},
		"mailmax":          {"250-r\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=5 MAILMAX=3\r\n", Limits{Messages: 10}, 3},
		"mailmax, looser":  {"250-r\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=30\r\n", Limits{Messages: 1}, 1},
		"age":              {nhnEHLO, Limits{Age: time.Nanosecond}, 0},
		"idle":             {nhnEHLO, Limits{Idle: 20 * time.Millisecond}, 5},
		"age while idling": {nhnEHLO, Limits{Age: 150 * time.Millisecond}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(5)
			s := &sink{ehlo: tc.ehlo}
			host, port := listen(t, s.serve)
			if err := dial(t, plainConfig(host, port)).Serve(t.Context(), newQueue(all...), tc.lim); err != nil {
				t.Fatal(err)
			}
			checkPairing(t, s, tc.sent)
		})
	}
}

// What must not reach the wire ends as Invalid, before Begin, and the next message goes
// on untouched.
func TestInvalid(t *testing.T) {
	t.Parallel()
	ok := Message{From: "a@b.example", To: "c@d.example", Content: []byte("x\r\n")}
	with := func(f func(*Message)) Message { m := ok; f(&m); return m }
	sized := "250-r\r\n250-PIPELINING\r\n250 SIZE 50\r\n"
	for name, tc := range map[string]struct {
		ehlo string
		m    Message
		want error
	}{
		"bare LF":         {nhnEHLO, with(func(m *Message) { m.Content = []byte("a\nb\r\n") }), ErrContent},
		"bare CR":         {nhnEHLO, with(func(m *Message) { m.Content = []byte("a\r.\rb\r\n") }), ErrContent},
		"NUL":             {nhnEHLO, with(func(m *Message) { m.Content = []byte("a\x00b\r\n") }), ErrContent},
		"long line":       {nhnEHLO, with(func(m *Message) { m.Content = []byte(strings.Repeat("x", 999)) }), ErrContent},
		"empty":           {nhnEHLO, with(func(m *Message) { m.Content = nil }), ErrContent},
		"8-bit":           {sized, with(func(m *Message) { m.Content = []byte("가\r\n") }), ErrContent},
		"too large":       {sized, with(func(m *Message) { m.Content = []byte(strings.Repeat("x", 51)) }), ErrSize},
		"parameter":       {nhnEHLO, with(func(m *Message) { m.To = "a> ORCPT=rfc822;x@c.example" }), ErrEnvelope},
		"quoted":          {nhnEHLO, with(func(m *Message) { m.To = `"a@b> ORCPT=x"@c.example` }), ErrEnvelope},
		"command":         {nhnEHLO, with(func(m *Message) { m.From = "a@b.example>\r\nRCPT TO:<x@y.example" }), ErrEnvelope},
		"no recipient":    {nhnEHLO, with(func(m *Message) { m.To = "" }), ErrEnvelope},
		"non-ASCII local": {nhnEHLO, with(func(m *Message) { m.To = "한글@c.example" }), ErrEnvelope},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			all[0].Message, all[1].Message = tc.m, ok
			s := &sink{ehlo: tc.ehlo}
			if err := serveAll(t, nil, s.serve, all...); err != nil {
				t.Fatal(err)
			}
			r := all[0].want(t, Invalid, StageMail, 0)
			if !errors.Is(r.Err, tc.want) || all[0].begun > 0 {
				t.Errorf("%v, begun %d; want %v, not begun", r.Err, all[0].begun, tc.want)
			}
			if strings.Contains(r.Err.Error(), ".example") {
				t.Errorf("the error repeats the address: %v", r.Err)
			}
			if all[1].want(t, Accepted, StageEOD, 250); len(s.got) != 1 {
				t.Errorf("relay has %q", s.got)
			}
		})
	}
}

// BODY and SIZE are declared where they are offered, and only there.
func TestMailParameters(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ ehlo, content, params string }{
		"plain":            {nhnEHLO, "abc\r\n", ""},
		"8-bit":            {nhnEHLO, "가\r\n", " BODY=8BITMIME"},
		"size":             {"250-r\r\n250-PIPELINING\r\n250 SIZE 1000\r\n", "abc\r\n", " SIZE=5"},
		"size, no maximum": {"250-r\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n", "가\r\n", " BODY=8BITMIME SIZE=5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMessage(1)
			m.Content = []byte(tc.content)
			err := serveAll(t, nil, func(p *peer) {
				p.hello(tc.ehlo)
				p.expect(strings.Replace(envelopeOf(1), "a.example>", "a.example>"+tc.params, 1))
				p.say(envOK)
				p.expect(tc.content + ".\r\n")
				p.say("250 ok\r\n")
				p.quit()
			}, m)
			if err != nil {
				t.Fatal(err)
			}
			m.want(t, Accepted, StageEOD, 250)
		})
	}
}

// Mixed refusals on one connection: every message with its own outcome, content and
// recipient never mixed up, whatever the relay says to DATA without a recipient.
func TestMixedRefusals(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModePipelined, ModeGroup, ModeLockStep} {
		for _, strict := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v strict %v", mode, strict), func(t *testing.T) {
				t.Parallel()
				const n = 600
				s := &sink{ehlo: nhnEHLO, reply: func(stage Stage, arg string) string {
					var i int
					_, _ = fmt.Sscanf(path("<"+strings.TrimPrefix(strings.TrimPrefix(arg, "TO:<"), "FROM:<")), "to%d@", &i)
					switch {
					case stage == StageRcpt && i%20 == 3:
						return "550 5.1.1 no such user"
					case stage == StageRcpt && i%20 == 7:
						return "450 4.2.1 later"
					case stage == StageEOD && i%50 == 9:
						return "554 5.7.1 spam"
					case stage == StageData && i%50 == 11:
						return "451 4.3.0 not now"
					case stage == StageData && arg == "none" && !strict:
						return "354 go ahead"
					}
					return ""
				}}
				all, _ := messages(n)
				if err := serveAll(t, func(c *DialConfig) { c.Mode = mode }, s.serve, all...); err != nil {
					t.Fatal(err)
				}
				accepted := 0
				for i, m := range all {
					switch i++; {
					case i%20 == 3:
						m.want(t, Refused, StageRcpt, 550)
					case i%20 == 7:
						m.want(t, Refused, StageRcpt, 450)
					case i%50 == 9:
						m.want(t, Refused, StageEOD, 554)
					case i%50 == 11:
						m.want(t, Refused, StageData, 451)
					default:
						accepted++
						m.want(t, Accepted, StageEOD, 250)
					}
				}
				checkPairing(t, s, accepted)
				if s.opened() != 1 {
					t.Errorf("%d connections, want 1: a refusal must not cost one", s.opened())
				}
			})
		}
	}
}

// A message that Next brings when the connection may take none any more goes back,
// unbegun.
func TestFetchedTooLate(t *testing.T) {
	t.Parallel()
	host, port := listen(t, func(p *peer) { p.hello(nhnEHLO); p.quiet() })
	c := dial(t, plainConfig(host, port))
	defer c.Close()
	s := newSession(t.Context(), c, newQueue(), Limits{Age: time.Nanosecond}, nil)
	s.fetch = newFetcher(t.Context(), s.src)
	defer s.fetch.stop(errDraining)
	m := newMessage(1)
	if s.fetched(fetched{tx: tx{m}}) != nil {
		t.Error("taken past the age limit")
	}
	if r := m.want(t, Unsent, StageIdle, 0); m.begun > 0 || r.Err == nil {
		t.Errorf("begun %d, %v", m.begun, r.Err)
	}
}
