package smtp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// Anything the protocol does not allow makes the connection botched: what has its dot
// out is unknown, the rest unsent, and nothing follows on the wire.
func TestBotched(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, second string // replies to envelope 1, and to content 1 with envelope 2
		want1, want2  Kind
	}{
		"garbage to mail":           {"hello there\r\n", "", Unsent, 0},
		"garbage, then 250":         {envOK, "xyz\r\n250 ok\r\n" + envOK, Unknown, Unsent},
		"2xx other than 250":        {envOK, "200 ok\r\n" + envOK, Unknown, Unsent},
		"354 to the dot":            {envOK, "354 more\r\n", Unknown, Unsent},
		"code 000":                  {envOK, "000 ok\r\n", Unknown, Unsent},
		"code 999":                  {envOK, "999 no\r\n", Unknown, Unsent},
		"lines disagree":            {envOK, "250-ok\r\n550 no\r\n", Unknown, Unsent},
		"bare LF":                   {envOK, "250 ok\n", Unknown, Unsent},
		"a word after the code":     {envOK, "250ok\r\n", Unknown, Unsent},
		"closed":                    {envOK, "", Unknown, Unsent},
		"closed within a reply":     {envOK, "250 o", Unknown, Unsent},
		"closed within multi-line":  {envOK, "250-o\r\n", Unknown, Unsent},
		"extra 250 after the dot's": {envOK, "250 one\r\n250 stray\r\n" + envOK, Accepted, Unsent},
		"stray 550 before mail's":   {envOK, "250 one\r\n550 stray\r\n" + envOK, Accepted, Unsent},
		"354 doubled":               {envOK + goOn, "", Unsent, 0},
		"250 after 354":             {envOK + "250 ok\r\n", "", Unsent, 0},
		"part of one after 354":     {envOK + "25", "", Unsent, 0},
		"rcpt without mail":         {"550 no\r\n250 ok\r\n" + goOn, "", Unsent, 0},
		"252 to rcpt":               {mailOK + "252 perhaps\r\n" + goOn, "", Unsent, 0},
		"250 to data":               {mailOK + rcptOK + "250 ok\r\n", "", Unsent, 0},
		"354 to mail":               {goOn + mailOK + rcptOK, "", Unsent, 0},
		"giant line":                {envOK, "250 " + strings.Repeat("x", 5000) + "\r\n", Unknown, Unsent},
		"101 lines":                 {envOK, strings.Repeat("250-x\r\n", 100) + "250 x\r\n", Unknown, Unsent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, _ := messages(2)
			hold := make(chan struct{})
			if tc.want2 == 0 {
				all = all[:1]
				// The extra octets are certain to be there before content may follow.
				all[0].confirm = func(ctx context.Context) error {
					select {
					case <-ctx.Done():
					case <-hold:
					}
					return nil
				}
			}
			err := serveAll(t, nil, func(p *peer) {
				p.hello(nhnEHLO)
				p.expect(envelopeOf(1))
				p.say(tc.first)
				if tc.want2 != 0 {
					p.expect(contentOf(1) + ".\r\n" + envelopeOf(2))
					p.say(tc.second)
					if strings.HasPrefix(name, "closed") {
						return
					}
				}
				p.quiet()
			}, all...)
			if err == nil {
				t.Error("Serve went on")
			}
			stage := StageEOD
			if tc.want1 == Unsent {
				stage = all[0].result[0].Stage // any
			}
			code := 0
			if tc.want1 == Accepted {
				code = 250
			} else if len(all[0].result) > 0 {
				code = all[0].result[0].Reply.Code
			}
			all[0].want(t, tc.want1, stage, code)
			if tc.want2 != 0 {
				r := all[1].result
				if len(r) != 1 || r[0].Kind != tc.want2 {
					t.Errorf("second: %+v, want %v", r, tc.want2)
				}
			}
		})
	}
}

// A RSET that is refused leaves the relay's state unknown.
func TestRsetRefused(t *testing.T) {
	t.Parallel()
	all, _ := messages(2)
	err := serveAll(t, nil, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(mailOK + "550 no\r\n503 no\r\n")
		p.expect("RSET\r\n" + envelopeOf(2))
		p.say("502 5.5.1 what\r\n" + envOK)
		p.quiet()
	}, all...)
	if !errors.Is(err, ErrBotched) {
		t.Errorf("Serve: %v, want ErrBotched", err)
	}
	all[0].want(t, Refused, StageRcpt, 550)
	all[1].want(t, Unsent, StageMail, 502)
}

// Half a reply that nothing asked for is enough: no content follows it, although Confirm
// has returned and the other half is not there yet.
func TestHalfAReplyBeforeContent(t *testing.T) {
	t.Parallel()
	m := newMessage(1)
	host, port := listen(t, func(p *peer) {
		p.hello(nhnEHLO)
		p.expect(envelopeOf(1))
		p.say(envOK + "25")
		p.quiet()
	})
	cfg := plainConfig(host, port)
	cfg.Timeouts.Quit = time.Second
	c := dial(t, cfg)
	m.confirm = func(ctx context.Context) error {
		for deadline := time.Now().Add(500 * time.Millisecond); !c.failed.Load() && time.Now().Before(deadline); {
			<-time.After(time.Millisecond)
		}
		return nil
	}
	if err := c.Serve(t.Context(), newQueue(m), Limits{}); err == nil {
		t.Error("Serve went on")
	}
	m.want(t, Unsent, StageData, 0)
}
