package smtp

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

const (
	mailOK = "250 2.1.0 ok\r\n"
	rcptOK = "250 2.1.5 ok\r\n"
	goOn   = "354 go ahead\r\n"
	envOK  = mailOK + rcptOK + goOn
)

// The steady state: content and dot lead the next envelope in one write, and Serve's
// calls keep the order that the ledger relies on.
func TestSteadyState(t *testing.T) {
	t.Parallel()
	all, log := messages(3)
	err := serveAll(t, nil, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		p.say("250 2.0.0 queued as 1\r\n" + envOK)
		p.expect(contentOf(2) + ".\r\n" + envelopeOf(3))
		p.say("250 queued as 2\r\n" + envOK)
		p.expect(contentOf(3) + ".\r\n")
		p.say("250-2.0.0 queued\r\n250 2.0.0 as 3\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"queued as 1", "queued as 2", "queued as 3"} {
		if r := all[i].want(t, Accepted, StageEOD, 250); r.Reply.Text != want {
			t.Errorf("text %q, want %q", r.Reply.Text, want)
		}
	}
	const want = "begin1 begin2 confirm1 done1 begin3 confirm2 done2 confirm3 done3"
	if got := log.String(); got != want {
		t.Errorf("order of calls\n got %s\nwant %s", got, want)
	}
}

// A thousand messages take a thousand round trips, and a few to get going.
func TestOneRoundTripAMessage(t *testing.T) {
	t.Parallel()
	for mode, most := range map[Mode]float64{ModePipelined: 1.02, ModeGroup: 2.02, ModeLockStep: 4.02} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			const n = 1000
			s := &sink{ehlo: nhnEHLO}
			all, _ := messages(n)
			err := serveAll(t, func(c *DialConfig) { c.Mode = mode }, s.serve, all...)
			if err != nil {
				t.Fatal(err)
			}
			checkPairing(t, s, n)
			if trips := float64(s.reads) / n; trips > most || trips < most-0.1 {
				t.Errorf("%.3f round trips a message, want about %.0f", trips, most)
			}
		})
	}
}

// checkPairing asserts that n messages arrived, each with its own content.
func checkPairing(t *testing.T, s *sink, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) != n {
		t.Errorf("relay has %d messages, want %d", len(s.got), n)
	}
	seen := map[string]bool{}
	for _, m := range s.got {
		var i int
		_, _ = fmt.Sscanf(m.To, "to%d@", &i)
		if string(m.Content) != contentOf(i) || seen[m.To] {
			t.Fatalf("%s (seen before: %v) got %q", m.To, seen[m.To], m.Content)
		}
		seen[m.To] = true
	}
}

// A content is never held back for company: it goes out alone, and a message that
// comes while its dot is unanswered goes out without waiting for that answer.
func TestLateMessage(t *testing.T) {
	t.Parallel()
	all, log := messages(2)
	q := newQueue(all[0])
	alone := make(chan struct{})
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n")
		close(alone)
		p.expect(envelopeOf(2)) // before the reply to 1's dot
		p.say("250 one\r\n" + envOK)
		p.expect(contentOf(2) + ".\r\n")
		p.say("250 two\r\n")
		p.quit()
	})
	go func() { <-alone; q.add(all[1]); q.finish() }()
	err := dial(t, plainConfig(host, port)).Serve(t.Context(), q, Limits{})
	if !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
	all[1].want(t, Accepted, StageEOD, 250)
	if got, want := log.String(), "begin1 confirm1 begin2 done1 confirm2 done2"; got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
}

// Messages that arrive one at a time while dots are open: never more than two begun
// and undecided.
func TestAtMostTwoUndecided(t *testing.T) {
	t.Parallel()
	all, _ := messages(4)
	q := newQueue(all[:2]...)
	begun := func() (n int) {
		for _, m := range all {
			m.mu.Lock()
			n += m.begun - len(m.result)
			m.mu.Unlock()
		}
		return n
	}
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
		q.add(all[2:]...)
		q.finish()
		for i := 2; i <= 4; i++ {
			if n := begun(); n > 2 {
				p.t.Errorf("%d messages begun and undecided", n)
			}
			p.say("250 ok\r\n" + envOK)
			want := contentOf(i) + ".\r\n"
			if i < 4 {
				want += envelopeOf(i + 1)
			}
			p.expect(want)
		}
		p.say("250 ok\r\n")
		p.quit()
	})
	if err := dial(t, plainConfig(host, port)).Serve(t.Context(), q, Limits{}); !errors.Is(err, errNoMore) {
		t.Fatal(err)
	}
	for _, m := range all {
		m.want(t, Accepted, StageEOD, 250)
	}
}

// Not a byte of content before Confirm has returned, however long it takes.
func TestContentWaitsForConfirm(t *testing.T) {
	t.Parallel()
	all, _ := messages(1)
	confirmed := make(chan struct{})
	all[0].confirm = func(ctx context.Context) error {
		select {
		case <-confirmed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := serveAll(t, nil, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK)
		_ = p.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _ := p.Read(make([]byte, 1)); n > 0 {
			p.t.Error("content before Confirm returned")
		}
		_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
		close(confirmed)
		p.expect(contentOf(1) + ".\r\n")
		p.say("250 ok\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Accepted, StageEOD, 250)
}

// An intent that is refused, or not confirmed in time, or whose relay hangs up
// meanwhile, leaves the message unsent, and no dot on the wire.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	untilCtx := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, tc := range map[string]struct {
		confirm func(context.Context) error
		timeout time.Duration
		hangUp  bool
	}{
		"refused": {confirm: func(context.Context) error { return errors.New("epoch 7 is over") }},
		"late":    {confirm: untilCtx, timeout: 30 * time.Millisecond},
		"hung up": {confirm: untilCtx, hangUp: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			all[1].confirm = tc.confirm
			err := serveAll(t, func(c *DialConfig) { c.Timeouts.Confirm = tc.timeout }, func(p *peer) {
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				p.say(envOK)
				p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
				p.say("250 one\r\n" + envOK)
				if !tc.hangUp {
					p.quiet()
				}
			}, all...)
			if !errors.Is(err, ErrUnconfirmed) {
				t.Errorf("Serve: %v, want ErrUnconfirmed", err)
			}
			all[0].want(t, Accepted, StageEOD, 250)
			all[1].want(t, Unsent, StageData, 0)
		})
	}
}

// What a refusal leaves behind at the relay leads the next message, in the same write.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const refused = "503 5.5.1 no valid recipients\r\n"
	type step struct{ expect, say string }
	end := step{contentOf(2) + ".\r\n", "250 two\r\n"}
	for name, tc := range map[string]struct {
		steps []step
		stage Stage
		code  int
	}{
		"rcpt, data refused": {[]step{
			{envelopeOf(1), mailOK + "550 5.1.1 no such user\r\n" + refused},
			{"RSET\r\n" + envelopeOf(2), "250 reset\r\n" + envOK}, end}, StageRcpt, 550},
		"rcpt deferred, data 554": {[]step{
			{envelopeOf(1), mailOK + "450 4.2.1 later\r\n554 5.5.1 no valid recipients\r\n"},
			{"RSET\r\n" + envelopeOf(2), "250 reset\r\n" + envOK}, end}, StageRcpt, 450},
		"mail refused": {[]step{
			{envelopeOf(1), "451 4.1.8 sender\r\n503 5.5.1 need MAIL\r\n" + refused},
			{envelopeOf(2), envOK}, end}, StageMail, 451},
		"data refused": {[]step{
			{envelopeOf(1), mailOK + rcptOK + "451 4.3.0 not now\r\n"},
			{"RSET\r\n" + envelopeOf(2), "250 reset\r\n" + envOK}, end}, StageData, 451},
		"354 without recipient": {[]step{
			{envelopeOf(1), mailOK + "550 5.1.1 no such user\r\n" + goOn},
			{".\r\n" + envelopeOf(2), "554 5.5.1 no valid recipients\r\n" + envOK}, end}, StageRcpt, 550},
		"354 without sender, and 250 to the lone dot": {[]step{
			{envelopeOf(1), "550 5.7.1 no\r\n503 5.5.1 need MAIL\r\n" + goOn},
			{".\r\n" + envelopeOf(2), "250 an empty mail to nobody\r\n" + envOK}, end}, StageMail, 550},
		"content refused": {[]step{
			{envelopeOf(1), envOK},
			{contentOf(1) + ".\r\n" + envelopeOf(2), "554 5.7.1 spam\r\n" + envOK}, end}, StageEOD, 554},
		"content deferred": {[]step{
			{envelopeOf(1), envOK},
			{contentOf(1) + ".\r\n" + envelopeOf(2), "452 4.3.1 full\r\n" + envOK}, end}, StageEOD, 452},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			err := serveAll(t, nil, func(p *peer) {
				p.hello(nhnEHLO)
				for _, s := range tc.steps {
					p.expect(s.expect)
					p.say(s.say)
				}
				p.quit()
			}, all...)
			if err != nil {
				t.Fatal(err)
			}
			all[0].want(t, Refused, tc.stage, tc.code)
			all[1].want(t, Accepted, StageEOD, 250)
		})
	}
}

// A lone dot that no message comes to lead goes out at once, and the connection
// serves on.
func TestLoneDotAlone(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModePipelined, ModeGroup} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			q := newQueue(all[0])
			host, port := listen(t, func(p *peer) {
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				p.say(mailOK + "550 no such user\r\n" + goOn)
				p.expect(".\r\n")
				p.say("554 no valid recipients\r\n")
				q.add(all[1])
				q.finish()
				p.expect(envelopeOf(2))
				p.say(envOK)
				p.expect(contentOf(2) + ".\r\n")
				p.say("250 two\r\n")
				p.quit()
			})
			cfg := plainConfig(host, port)
			cfg.Mode = mode
			if err := dial(t, cfg).Serve(t.Context(), q, Limits{}); !errors.Is(err, errNoMore) {
				t.Fatal(err)
			}
			all[0].want(t, Refused, StageRcpt, 550)
			all[1].want(t, Accepted, StageEOD, 250)
		})
	}
}

// The same refusals one command at a time: nothing follows a refused command, and no
// lone dot is ever needed.
func TestLockStep(t *testing.T) {
	t.Parallel()
	all, _ := messages(4)
	err := serveAll(t, nil, func(p *peer) {
		p.hello(noPipes)
		step := func(expect, say string) { p.expect(expect); p.say(say) }
		step("MAIL FROM:<from@a.example>\r\n", "451 4.1.8 sender\r\n")
		step("MAIL FROM:<from@a.example>\r\n", mailOK)
		step("RCPT TO:<to2@b.example>\r\n", "550 5.1.1 no such user\r\n")
		step("RSET\r\n", "250 reset\r\n")
		step("MAIL FROM:<from@a.example>\r\n", mailOK)
		step("RCPT TO:<to3@b.example>\r\n", "251 will forward\r\n")
		step("DATA\r\n", goOn)
		step(contentOf(3)+".\r\n", "250 three\r\n")
		step("MAIL FROM:<from@a.example>\r\n", mailOK)
		step("RCPT TO:<to4@b.example>\r\n", rcptOK)
		step("DATA\r\n", "503 5.5.1 not here\r\n")
		p.quit()
	}, all...)
	if err != nil {
		t.Fatal(err)
	}
	all[0].want(t, Refused, StageMail, 451)
	all[1].want(t, Refused, StageRcpt, 550)
	all[2].want(t, Accepted, StageEOD, 250)
	all[3].want(t, Refused, StageData, 503)
}

// 421 ends the connection and blames nobody, but for the message whose dot it answers.
func Test421(t *testing.T) {
	t.Parallel()
	const bye = "421 4.3.2 closing\r\n"
	for name, tc := range map[string]struct {
		first, second string
		want1         Kind
		stage1        Stage
		code1         int
		want2         Kind
		stage2        Stage
	}{
		"mail":               {bye, "", Unsent, StageMail, 421, 0, ""},
		"rcpt":               {mailOK + bye, "", Unsent, StageRcpt, 421, 0, ""},
		"data":               {mailOK + rcptOK + bye, "", Unsent, StageData, 421, 0, ""},
		"data, rcpt refused": {mailOK + "550 5.1.1 no\r\n" + bye, "", Refused, StageRcpt, 550, 0, ""},
		"dot":                {envOK, bye, Refused, StageEOD, 421, Unsent, StageMail},
		"second mail":        {envOK, "250 one\r\n" + bye, Accepted, StageEOD, 250, Unsent, StageMail},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			if tc.second == "" {
				all = all[:1]
			}
			err := serveAll(t, nil, func(p *peer) {
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				p.say(tc.first)
				if tc.second != "" {
					p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
					p.say(tc.second)
				}
				p.quiet()
			}, all...)
			var e *Error
			if !errors.As(err, &e) || e.Reply.Code != 421 {
				t.Errorf("Serve: %v, want a 421", err)
			}
			all[0].want(t, tc.want1, tc.stage1, tc.code1)
			if tc.second != "" {
				all[1].want(t, tc.want2, tc.stage2, 421)
			}
		})
	}
}
