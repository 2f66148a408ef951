package smtp

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A message that waited too long behind another whose intent could not be stored goes
// back, nothing of it written; the one after it is taken once that is over.
func TestTakenTooEarly(t *testing.T) {
	t.Parallel()
	all, log := messages(4)
	q := newQueue()
	q.add(all...)
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(3))
		p.say("250 one\r\n" + envOK)
		p.expect(contentOf(3) + ".\r\n" + envelopeOf(4))
		p.say("250 three\r\n" + envOK)
		p.expect(contentOf(4) + ".\r\n")
		p.say("250 four\r\n")
		p.quit()
	})
	cfg := plainConfig(host, port)
	cfg.Timeouts.Prompt = time.Nanosecond // nothing is as prompt as that
	if err := dial(t, cfg).Serve(t.Context(), q.finish(), Limits{Messages: 3}); err != nil {
		t.Fatal(err)
	}
	if r := all[1].want(t, Unsent, StageIdle, 0); !errors.Is(r.Err, errLate) {
		t.Errorf("message 2: %v", r.Err)
	}
	for _, m := range []*message{all[0], all[2], all[3]} {
		m.want(t, Accepted, StageEOD, 250)
	}
	const want = "begin1 begin2 confirm1 done2 begin3 done1 confirm3 begin4 done3 confirm4 done4"
	if got := log.String(); got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
}

// A content that takes more than one write may be under way for minutes: the message after
// it is taken when it has left, as long as the budget of that is fresh.
func TestNotAheadOfLarge(t *testing.T) {
	t.Parallel()
	all, log := messages(3)
	all[1].Content = []byte("Subject: large\r\n\r\n" + string(largeContent(3*chunk)))
	s := &sink{ehlo: nhnEHLO}
	if err := serveAll(t, nil, s.serve, all...); err != nil {
		t.Fatal(err)
	}
	const want = "begin1 begin2 confirm1 done1 confirm2 begin3 done2 confirm3 done3"
	if got := log.String(); got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
}

// After an intent that came late, messages are taken one at a time for a while.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	s := &session{c: &Conn{t: Timeouts{}.withDefaults()}}
	prompt, ahead := s.c.t.Prompt, 0
	s.confirmedAfter(prompt)
	if s.behind != 0 {
		t.Error("behind after a prompt one")
	}
	s.confirmedAfter(prompt + 1)
	for ; s.behind > 0; ahead++ {
		s.confirmedAfter(prompt)
	}
	if ahead != catchUp {
		t.Errorf("behind for %d messages, want %d", ahead, catchUp)
	}
}

// A drain that comes while an intent is waited for lets that message go, and none after.
func TestDrainWhileConfirming(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	ctx, drain := context.WithCancel(t.Context())
	all[0].confirm = func(context.Context) error { drain(); return nil }
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n")
		p.say("250 one\r\n")
		p.quit()
	})
	if err := dial(t, plainConfig(host, port)).Serve(ctx, newQueue(all...), Limits{}); err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
	if r := all[1].want(t, Unsent, StageIdle, 0); !errors.Is(r.Err, errDraining) {
		t.Errorf("message 2: %v", r.Err)
	}
}
