package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/internal/smtp"
)

// What a relay says about the connection rather than a message is nobody's refusal: no
// campaign is held for it, no recipient bounces, and all of them get their mail.
func TestConnectionTroubleBlamesNobody(t *testing.T) {
	t.Parallel()
	const listed = "354 go ahead\r\n554 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org\r\n"
	for name, rules := range map[string][]relay.Rule{
		"synchronization, as Postfix says it": {{Stage: relay.Mail, Grouped: true, Reply: "554 5.5.0 Error: SMTP protocol synchronization"}},
		"synchronization, as Exim says it":    {{Stage: relay.Mail, Grouped: true, Reply: "554 SMTP synchronization error"}},
		"RSET refused": {{Stage: relay.Rcpt, To: "r3@example.com", Times: 1, Reply: "451 4.3.0 Temporary system problem"},
			{Stage: relay.Rset, Reply: "502 5.5.1 command not implemented"}},
		"a refusal that nobody asked for": {{Stage: relay.Data, To: target, Times: 1, Action: relay.Garbage, Reply: listed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newVerdictBench(t, rules...)
			ad := b.conf.Streams[mail.Ad]
			ad.Dial.Memory = smtp.NewMemory()
			ad.Retry = Retry{First: time.Millisecond, Most: time.Millisecond}
			b.conf.Streams[mail.Ad] = ad
			b.start()
			c := b.send(mail.Ad, append(people(20), target)...)
			b.eventually("everybody is accepted, or it is held", func() bool {
				s := b.summary(c)
				return b.holds(c) != "" || s.Count(mail.Accepted)+s.Count(mail.Rejected)+s.Count(mail.Unknown) == 21
			})
			if h := b.holds(c); h != "" {
				t.Errorf("held: %s", h)
			}
			if n := b.count(c, mail.Accepted); n != 21 {
				t.Errorf("%d of 21 accepted: %v", n, b.summary(c).Outcomes)
			}
			if n := len(b.relay.Truth()); n != 21 {
				t.Errorf("the relay has %d mails of 21", n)
			}
		})
	}
}

// A relay that quotes an address in what holds a stream does not put it into the log, nor
// into what everybody who can read Redis sees.
func TestNoAddressInAHold(t *testing.T) {
	t.Parallel()
	const address = "kildong.hong@example.com"
	for name, rule := range map[string]relay.Rule{
		"MAIL": {Stage: relay.Mail, Reply: "530 5.7.0 Authentication required for " + address},
		"DATA": {Stage: relay.Data, Reply: "530 5.7.0 Authentication required to send to <" + address + ">"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newVerdictBench(t, rule)
			b.start()
			c := b.send(mail.Ad, people(5)...)
			b.eventually("it is held", func() bool { return b.holds(c) != "" })
			for field, hold := range b.rdb.HGetAll(t.Context(), "sluice:{s:ad}:held").Val() {
				if strings.Contains(hold, address) {
					t.Errorf("%s in Redis: %s", field, hold)
				}
			}
			b.eventually("it is logged", func() bool { return strings.Contains(b.log.String(), "stream held") })
			if s := b.log.String(); strings.Contains(s, address) {
				t.Errorf("the log has the address: %s", s)
			}
		})
	}
}
