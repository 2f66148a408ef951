package smtp

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"
)

// timed notes when things happened at the relay and on our side, by what they were.
type timed struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (w *timed) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[string]time.Time{}
	}
	w.at[what] = time.Now()
}

func (w *timed) between(from, to string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[to].Sub(w.at[from])
}

// dawdle is a time that shows in what is measured.
func dawdle() { <-time.After(20 * time.Millisecond) }

// clocking is a Source's message whose Confirm takes its time.
func (w *timed) clocking(m *message) *message {
	m.confirm = func(context.Context) error {
		dawdle()
		w.note("confirmed" + m.name)
		return nil
	}
	return m
}

// The time of a reply is what the relay took for it after the dot: neither the wait for
// the intent before it counts, nor what came of the next envelope after it.
func TestTook(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModePipelined, ModeGroup, ModeLockStep} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w := &timed{}
			s := &sink{ehlo: nhnEHLO, reply: func(stage Stage, arg string) string {
				if stage != StageEOD {
					dawdle() // also before the next envelope's replies
					return ""
				}
				w.note("read " + arg)
				dawdle()
				w.note("answered " + arg)
				if arg == "to2@b.example" {
					return "550 5.7.1 no"
				}
				return ""
			}}
			all, _ := messages(3)
			for _, m := range all {
				w.clocking(m)
			}
			if err := serveAll(t, func(c *DialConfig) { c.Mode = mode }, s.serve, all...); err != nil {
				t.Fatal(err)
			}
			w.note("over")
			for i, m := range all {
				kind, code := Accepted, 250
				if i == 1 {
					kind, code = Refused, 550
				}
				r := m.want(t, kind, StageEOD, code)
				least := w.between("read "+m.To, "answered "+m.To)
				most := w.between("confirmed"+m.name, "over")
				if i+1 < len(all) {
					most = w.between("confirmed"+m.name, "confirmed"+all[i+1].name) - 20*time.Millisecond
				}
				if r.Took < least || r.Took > most {
					t.Errorf("message %s took %v, want %v to %v", m.name, r.Took, least, most)
				}
			}
		})
	}
}

// The upload of a large content is no part of its reply's time.
func TestTookOfALargeContent(t *testing.T) {
	t.Parallel()
	w := &timed{}
	m := newMessage(1)
	m.Content = []byte("Subject: large\r\n\r\n" + string(largeContent(256*chunk))) // more than fits into buffers
	err := serveAll(t, nil, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		dawdle()
		w.note("began to read")
		if _, err := io.CopyN(io.Discard, p, wireLength(m.Content)); err != nil {
			t.Error(err)
		}
		w.note("read")
		dawdle()
		w.note("answered")
		p.say("250 2.0.0 ok\r\n")
		p.quit()
	}, m)
	if err != nil {
		t.Fatal(err)
	}
	w.note("over")
	r := m.want(t, Accepted, StageEOD, 250)
	if least, most := w.between("read", "answered"), w.between("began to read", "over"); r.Took < least || r.Took > most {
		t.Errorf("took %v, want %v to %v", r.Took, least, most)
	}
}

// Where no dot was answered there is no time.
func TestTookNothing(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	err := serveAll(t, nil, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(mailOK + "550 5.1.1 nobody\r\n" + "503 5.5.1 no\r\n")
		p.expect("RSET\r\n" + envelopeOf(2))
		p.say("250 ok\r\n" + envOK)
		p.expect(contentOf(2) + ".\r\n")
	}, all...)
	if err == nil {
		t.Error("no error")
	}
	if r := all[0].want(t, Refused, StageRcpt, 550); r.Took != 0 {
		t.Errorf("a recipient refused took %v", r.Took)
	}
	if r := all[1].want(t, Unknown, StageEOD, 0); r.Took != 0 {
		t.Errorf("no reply took %v", r.Took)
	}
}
