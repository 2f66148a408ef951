package worker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/verdict"
)

// retries are long, so that what is put off stays put off for the length of a test.
const (
	firstRetry = time.Hour
	target     = "target@naver.example"
)

// fate is what is to come of a reply.
type fate struct {
	outcome  mail.Outcome // of the target
	attempts int
	due      string        // of the next attempt: normal, slow, or "" for none
	wait     time.Duration // named in the reply, which the next attempt is not before
	listed   bool          // on the suppression list
	hold     string        // login, campaign, or "" for none
	event    string        // the budget hears: account, group, crowded, or "" for nothing
}

// What comes of a reply, by what the verdict is.
func sent() fate                      { return fate{outcome: mail.Accepted, attempts: 1} }
func sentHearing(event string) fate   { return fate{outcome: mail.Accepted, attempts: 1, event: event} }
func refused() fate                   { return fate{outcome: mail.Rejected, attempts: 1} }
func listedAs() fate                  { return fate{outcome: mail.Rejected, attempts: 1, listed: true} }
func deferred(due string) fate        { return fate{outcome: mail.Deferred, attempts: 1, due: due} }
func heldBy(by string) fate           { return fate{outcome: mail.Pending, hold: by} }
func slowed(event string) (f fate)    { f = deferred("slow"); f.event = event; return f }
func waited(d time.Duration) (f fate) { f = deferred("slow"); f.wait = d; return f }

type verdictCase struct {
	stage  relay.Stage
	action verdict.Action
	reply  string
	times  int // 0: every time
	want   fate
}

func verdictCases() []verdictCase {
	const (
		listed = "Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org"
		spf    = "550 5.7.1 SPF check failed for the sender's domain"
		rate   = "Too many messages, slow down"
	)
	return []verdictCase{
		{relay.Connect, verdict.Retry, "451 4.3.2 System not accepting network messages", 1, sent()},
		{relay.Connect, verdict.ThrottleConnection, "421 4.7.0 Too many connections from your host", 1, sentHearing("crowded")},
		{relay.Connect, verdict.PauseConfig, "521 5.3.2 This server takes no mail", 0, heldBy("login")},
		{relay.Connect, verdict.PauseBlocked, "554 5.7.1 " + listed, 0, heldBy("login")},
		{relay.Ehlo, verdict.Retry, "451 4.3.0 Temporary system problem", 1, sent()},
		{relay.Ehlo, verdict.ThrottleConnection, "421 4.7.0 Too many connections from your host", 1, sentHearing("crowded")},
		{relay.Ehlo, verdict.PauseConfig, "550 5.7.1 Helo command rejected: need fully-qualified hostname", 0, heldBy("login")},
		{relay.Ehlo, verdict.PauseBlocked, "554 5.7.1 " + listed, 0, heldBy("login")},
		{relay.Auth, verdict.Retry, "454 4.7.0 Temporary authentication failure", 1, sent()},
		{relay.Auth, verdict.ThrottleConnection, "421 4.7.0 Too many login attempts", 1, sentHearing("crowded")},
		{relay.Auth, verdict.PauseConfig, "535 5.7.8 Authentication failed", 0, heldBy("login")},
		{relay.Auth, verdict.PauseBlocked, "535 5.7.0 Account suspended", 0, heldBy("login")},

		{relay.Mail, verdict.Retry, "451 4.3.0 Temporary system problem", 0, deferred("normal")},
		{relay.Mail, verdict.RetrySlow, "452 4.7.1 Rate limit exceeded", 0, slowed("account")},
		{relay.Mail, verdict.ThrottleConnection, "450 4.7.1 " + rate, 1, sentHearing("account")},
		{relay.Mail, verdict.ThrottleConnection, "421 4.7.1 " + rate, 1, sentHearing("account")},
		{relay.Mail, verdict.Fail, "552 5.3.4 Message size exceeds the limit", 0, refused()},
		{relay.Mail, verdict.PauseConfig, "530 5.7.0 Authentication required", 0, heldBy("login")},
		{relay.Mail, verdict.PauseConfig, "550 5.7.1 Sender address rejected: domain not verified", 0, heldBy("campaign")},
		{relay.Mail, verdict.PauseBlocked, "554 5.7.1 " + listed, 0, heldBy("login")},

		{relay.Rcpt, verdict.Retry, "451 4.3.0 Temporary system problem", 0, deferred("normal")},
		{relay.Rcpt, verdict.RetrySlow, "452 4.2.2 Mailbox full", 0, deferred("slow")},
		{relay.Rcpt, verdict.RetrySlow, "450 4.7.1 Greylisted, try again in 86000 seconds", 0, waited(86_000 * time.Second)},
		{relay.Rcpt, verdict.RetrySlow, "450 4.7.1 Rate limit exceeded", 0, slowed("group")},
		{relay.Rcpt, verdict.ThrottleConnection, "450 4.7.1 " + rate, 1, sentHearing("account")},
		{relay.Rcpt, verdict.ThrottleConnection, "421 4.7.1 " + rate, 1, sentHearing("account")},
		{relay.Rcpt, verdict.Suppress, "550 5.1.1 No such user", 0, listedAs()},
		{relay.Rcpt, verdict.Fail, "552 5.2.2 Mailbox full", 0, refused()},
		{relay.Rcpt, verdict.PauseConfig, spf, 0, refused()},
		{relay.Rcpt, verdict.PauseBlocked, "554 5.7.1 " + listed, 0, refused()},
		{relay.Rcpt, verdict.PauseBlocked, "450 4.7.1 " + listed, 0, deferred("slow")},
		{relay.Rcpt, verdict.PauseBlocked, "421 4.7.1 " + listed, 0, deferred("slow")},

		{relay.Data, verdict.Retry, "451 4.3.0 Temporary system problem", 0, deferred("normal")},
		{relay.Data, verdict.RetrySlow, "450 4.7.1 Rate limit exceeded", 0, slowed("group")},
		{relay.Data, verdict.ThrottleConnection, "454 Throttling failure: Maximum sending rate exceeded", 1, sentHearing("account")},
		{relay.Data, verdict.Suppress, "550 5.1.1 No such user", 0, listedAs()},
		{relay.Data, verdict.Fail, "552 5.2.2 Mailbox full", 0, refused()},
		{relay.Data, verdict.PauseConfig, spf, 0, heldBy("campaign")},
		{relay.Data, verdict.PauseConfig, "530 5.7.0 Authentication required", 0, heldBy("login")},
		{relay.Data, verdict.PauseBlocked, "550 5.7.0 Sending is suspended for this account", 0, heldBy("login")},
		{relay.Data, verdict.PauseBlocked, "554 5.7.1 " + listed, 0, refused()},

		{relay.EOD, verdict.Retry, "451 4.3.0 Temporary system problem", 0, deferred("normal")},
		{relay.EOD, verdict.RetrySlow, "421 4.7.28 Unusual rate of unsolicited mail", 0, slowed("group")},
		{relay.EOD, verdict.ThrottleConnection, "450 4.7.1 " + rate, 1, sentHearing("account")},
		{relay.EOD, verdict.Suppress, "550 5.1.1 No such user", 0, listedAs()},
		{relay.EOD, verdict.Fail, "552 5.2.2 Mailbox full", 0, refused()},
		{relay.EOD, verdict.PauseConfig, "550 5.7.26 This mail is unauthenticated: SPF and DKIM did not pass", 0, refused()},
		{relay.EOD, verdict.PauseBlocked, "550 5.7.1 This message is likely spam", 0, refused()},
		{relay.EOD, verdict.PauseBlocked, "421 4.7.1 " + listed, 0, deferred("slow")},
	}
}

// Every action at every stage it can be said at: what it does to the recipient, to
// the suppression list, to what is held, and to the budget.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, tc := range verdictCases() {
		t.Run(fmt.Sprintf("%s/%s/%s", tc.stage, tc.action, strings.Fields(tc.reply)[0]), func(t *testing.T) {
			t.Parallel()
			tc.run(t)
		})
	}
}

func (tc verdictCase) run(t *testing.T) {
	rule := relay.Rule{Stage: tc.stage, Reply: tc.reply, Times: tc.times, Stream: "ad"}
	aboutMail := tc.stage == relay.Rcpt || tc.stage == relay.Data || tc.stage == relay.EOD
	if aboutMail {
		rule.To = target
	}
	if tc.stage == relay.Connect || tc.stage == relay.Ehlo || tc.stage == relay.Auth {
		rule.Stream = "" // of a login that the relay has not seen
	}
	b := newVerdictBench(t, rule)
	tc.checkAction(t, b.conf.Streams[mail.Ad])
	b.start()
	c := b.send(mail.Ad, slices.Insert(people(20), 10, target)...)
	b.settledBut(c, tc.want, aboutMail)

	r := b.row(c, target)
	if r.Outcome != tc.want.outcome || r.Attempts != tc.want.attempts {
		t.Errorf("target: %v after %d attempts (%s), want %v after %d", r.Outcome, r.Attempts, r.Reply, tc.want.outcome, tc.want.attempts)
	}
	tc.checkDue(t, r)
	if l := b.listed(target); l != tc.want.listed {
		t.Errorf("on the suppression list: %t", l)
	}
	if h := b.holds(c); h != tc.want.hold {
		t.Errorf("held: %q, want %q", h, tc.want.hold)
	}
	if tc.want.hold != "" {
		b.goesOn(c)
		return
	}
	b.checkEvents(tc.want.event)
	if aboutMail && b.count(c, mail.Accepted) < 20 {
		t.Errorf("one recipient's reply cost others theirs: %d accepted", b.count(c, mail.Accepted))
	}
}

// checkAction holds the table to the rules: the case is of the action it says.
func (tc verdictCase) checkAction(t *testing.T, s Stream) {
	t.Helper()
	code, _ := strconv.Atoi(tc.reply[:3])
	v := s.judge(smtp.Result{Stage: smtp.Stage(tc.stage), Reply: smtp.Reply{Code: code, Text: tc.reply[4:]}})
	if v.Action != tc.action {
		t.Fatalf("the rules say %s (%s): choose another reply", v.Action, v.Rule)
	}
}

func (tc verdictCase) checkDue(t *testing.T, r queue.Row) {
	t.Helper()
	if tc.want.due == "" {
		return
	}
	least, most := firstRetry/2, firstRetry
	if tc.want.due == "slow" {
		least, most = slowly*least, slowly*most
	}
	least, most = max(least, tc.want.wait), max(most, tc.want.wait)
	// Both are Redis's times: when the reply came, and when the next attempt may begin.
	if wait := time.Duration(r.Due-r.Time) * time.Millisecond; wait < least-time.Minute || wait > most+time.Minute {
		t.Errorf("next attempt after %v, want %v to %v", wait, least, most)
	}
}

// verdictBench is a bench whose destination group naver is naver.example.
type verdictBench struct{ *bench }

const seenKey = "t:{b:a}:seen"

func newVerdictBench(t *testing.T, rules ...relay.Rule) verdictBench {
	b := newBench(t, relay.Config{Rules: rules}, func(_ mail.Stream, s *Stream) {
		s.TTL, s.Retry, s.Max = 90*24*time.Hour, Retry{First: firstRetry, Most: 10 * firstRetry}, 1
	})
	b.conf.Group = func(domain string) string {
		if domain == "naver.example" {
			return "naver"
		}
		return ""
	}
	// Somebody else leads, so that nobody takes what the worker reports to the budget.
	b.rdb.HSet(t.Context(), "t:{b:a}:state", "k:lead", "1 9000000000000000 nobody")
	return verdictBench{b}
}

// settledBut waits until everybody has the outcome that the fate leaves them, and
// what came of them has been told to all who learn from it.
func (b verdictBench) settledBut(c *queue.Campaign, f fate, aboutMail bool) {
	b.t.Helper()
	if f.hold != "" {
		b.eventually("it is held", func() bool { return b.holds(c) != "" })
		return
	}
	b.eventually("everybody was tried", func() bool {
		s := b.summary(c)
		return s.Outcomes[mail.Pending] == 0 && b.rdb.HLen(b.t.Context(), "sluice:{s:ad}:claims").Val() == 0
	})
	b.eventually("the budget has heard", func() bool {
		seen := b.seen()
		return seen["p"]+seen["t"] >= 20 && (f.event == "" || seen[eventField(f.event)] > 0)
	})
}

func (b verdictBench) summary(c *queue.Campaign) *queue.Summary {
	b.t.Helper()
	s, err := b.q.Summary(b.t.Context(), c, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b verdictBench) count(c *queue.Campaign, o mail.Outcome) int { return b.summary(c).Count(o) }

// listed reports whether an address is on the suppression list.
func (b verdictBench) listed(address string) bool {
	b.t.Helper()
	a, err := mail.ParseAddress(address)
	if err != nil {
		b.t.Fatal(err)
	}
	found, err := b.conf.Suppress.Find(b.t.Context(), a)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(found[0]) > 0
}

// holds names what is held in the stream: campaign, login, @GROUP, with a space between.
func (b verdictBench) holds(c *queue.Campaign) string {
	var all []string
	for field := range b.rdb.HGetAll(b.t.Context(), "sluice:{s:ad}:held").Val() {
		switch {
		case field == "#":
		case field == c.ID:
			all = append(all, "campaign")
		case strings.HasPrefix(field, "*"):
			all = append(all, "login")
		default:
			all = append(all, field)
		}
	}
	return strings.Join(all, " ")
}

// seen is what the worker has reported to the budget.
func (b verdictBench) seen() map[string]int {
	out := map[string]int{}
	for field, n := range b.rdb.HGetAll(b.t.Context(), seenKey).Val() {
		out[field], _ = strconv.Atoi(n)
	}
	return out
}

// eventField is where the budget counts an event.
func eventField(event string) string {
	return map[string]string{"account": "t", "group": "t:naver", "crowded": "c"}[event]
}

func (b verdictBench) checkEvents(want string) {
	b.t.Helper()
	seen := b.seen()
	for _, event := range []string{"account", "group", "crowded"} {
		if got := seen[eventField(event)] > 0; got != (event == want) {
			b.t.Errorf("the budget heard %v, want %q", seen, want)
		}
	}
}

// goesOn mends what was wrong, lifts the hold, and wants everybody to get their mail
// at their first attempt.
func (b verdictBench) goesOn(c *queue.Campaign) {
	b.t.Helper()
	if err := b.relay.SetProfile("nhn"); err != nil {
		b.t.Fatal(err)
	}
	if err := b.q.LiftStream(b.t.Context(), mail.Ad); err != nil {
		b.t.Fatal(err)
	}
	if err := b.q.Resume(b.t.Context(), c); err != nil {
		b.t.Fatal(err)
	}
	if s := b.settled(c); s.Count(mail.Accepted) != 21 {
		b.t.Errorf("after the hold: %v", s.Outcomes)
	}
	if r := b.row(c, target); r.Attempts != 1 {
		b.t.Errorf("after the hold: %d attempts", r.Attempts)
	}
}

// A block is a vote: three recipients' replies hold what the verdict reaches, the
// destination group or, where there is none, the campaign; and nothing beyond it.
func TestBlocksAreVotes(t *testing.T) {
	t.Parallel()
	const listed, spam = "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org", "550 5.7.1 This message is likely spam"
	for name, tc := range map[string]struct {
		rule  relay.Rule
		holds string
	}{
		"group":                {relay.Rule{Stage: relay.Rcpt, To: "v*@naver.example", Reply: listed}, "@naver"},
		"group, at DATA":       {relay.Rule{Stage: relay.Data, To: "v*@naver.example", Reply: listed}, "@naver"},
		"group, hanging up":    {relay.Rule{Stage: relay.Rcpt, To: "v*@naver.example", Reply: "421" + listed[3:]}, "@naver"},
		"no group":             {relay.Rule{Stage: relay.Rcpt, To: "v*@else.example", Reply: listed}, "campaign"},
		"the mail, in a group": {relay.Rule{Stage: relay.EOD, To: "v*@naver.example", Reply: spam}, "campaign"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newVerdictBench(t, tc.rule)
			b.start()
			voters := func(n int) []string {
				_, domain, _ := strings.Cut(tc.rule.To, "@")
				var all []string
				for i := range n {
					all = append(all, fmt.Sprintf("v%d@%s", i, domain))
				}
				return append(all, people(50)...)
			}
			two := b.send(mail.Ad, voters(2)...)
			b.eventually("two have voted", func() bool { return b.summary(two).Outcomes[mail.Pending] == 0 })
			if h := b.holds(two); h != "" {
				t.Fatalf("two votes hold %s", h)
			}
			b.rdb.Del(t.Context(), "sluice:{s:ad}:results:@naver") // each turn by itself
			three := b.send(mail.Ad, voters(3)...)
			b.eventually("three have voted", func() bool { return b.holds(three) != "" })
			if h := b.holds(three); h != tc.holds {
				t.Errorf("three votes hold %s, want %s", h, tc.holds)
			}
		})
	}
}
