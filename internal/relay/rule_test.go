package relay

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// normal are the replies to envelope and content that no rule touches.
var normal = []string{"250 2.1.0", "250 2.1.5", "354 ", "250 2.0.0"}

// TestActions has one rule act at one stage, and looks at replies and truth.
func TestActions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rule     Rule
		want     []string // replies to MAIL, RCPT, DATA and content, sent in lock-step
		rest     string   // what comes before the end, if the connection ends
		ends     bool
		recorded int
	}{
		"none":                    {rule: Rule{Stage: Noop, Action: Drop}, want: normal, recorded: 1},
		"mail refused":            {rule: Rule{Stage: Mail, Reply: "451 4.3.0 no"}, want: []string{"451 4.3.0 no\r\n"}},
		"mail 421":                {rule: Rule{Stage: Mail, Reply: "421 4.7.0 no"}, want: []string{"421 "}, ends: true},
		"mail 421, kept":          {rule: Rule{Stage: Mail, Reply: "421 4.7.0 no", Keep: true}, want: []string{"421 "}},
		"rcpt refused":            {rule: Rule{Stage: Rcpt, Reply: "550 5.1.1 <{to}> from {from}"}, want: []string{"250", "550 5.1.1 <to@example.com> from from@example.com\r\n"}},
		"rcpt other acceptance":   {rule: Rule{Stage: Rcpt, Reply: "251 2.1.5 forwards"}, want: []string{"250", "251", "354", "250"}, recorded: 1},
		"rcpt many lines":         {rule: Rule{Stage: Rcpt, Reply: "550-5.7.1 a\n550-5.7.1 b\n550 5.7.1 c"}, want: []string{"250", "550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n"}},
		"data refused":            {rule: Rule{Stage: Data, Reply: "451 4.3.0 no"}, want: []string{"250", "250", "451"}},
		"data answered 250":       {rule: Rule{Stage: Data, Reply: "250 what"}, want: []string{"250", "250", "250"}},
		"dot refused":             {rule: Rule{Stage: EOD, Reply: "554 5.7.1 no"}, want: []string{"250", "250", "354", "554"}},
		"dot refused, accepted":   {rule: Rule{Stage: EOD, Reply: "554 5.7.1 no", Accept: true}, want: []string{"250", "250", "354", "554"}, recorded: 1},
		"dot accepted, dropped":   {rule: Rule{Stage: EOD, Action: AcceptDrop}, want: normal[:3], ends: true, recorded: 1},
		"dot dropped":             {rule: Rule{Stage: EOD, Action: Drop}, want: normal[:3], ends: true},
		"dot reset":               {rule: Rule{Stage: EOD, Action: Reset}, want: normal[:3], ends: true},
		"dot reset, accepted":     {rule: Rule{Stage: EOD, Action: Reset, Accept: true}, want: normal[:3], ends: true, recorded: 1},
		"dot answered, closed":    {rule: Rule{Stage: EOD, Action: Close}, want: normal, ends: true, recorded: 1},
		"dot answered with noise": {rule: Rule{Stage: EOD, Action: Garbage}, want: []string{"250", "250", "354", "\x00\xff"}},
		"dot answered verbatim":   {rule: Rule{Stage: EOD, Action: Garbage, Reply: "xyz\r\n250 ok\r\n"}, want: []string{"250", "250", "354", "xyz\r\n", "250 ok\r\n"}},
		"dot ignored":             {rule: Rule{Stage: EOD, Action: Ignore, Accept: true}, want: normal[:3], recorded: 1},
		"dot answered twice":      {rule: Rule{Stage: EOD, Action: Flood}, want: append(normal[:3:3], "250 2.0.0 OK", "250 2.0.0 OK"), recorded: 1},
		"dot in many lines":       {rule: Rule{Stage: EOD, Action: Lines, Count: 3}, want: append(normal[:3:3], "250-and so on\r\n250-and so on\r\n250 2.0.0"), recorded: 1},
		"dot in pieces":           {rule: Rule{Stage: EOD, Action: Slice, Delay: time.Microsecond}, want: normal, recorded: 1},
		"dot late":                {rule: Rule{Stage: EOD, Delay: time.Millisecond}, want: normal, recorded: 1},
		"dot stalled":             {rule: Rule{Stage: EOD, Action: Stall, Delay: 5 * time.Millisecond}, want: normal[:3], ends: true},
		"body dropped":            {rule: Rule{Stage: Body, Action: Drop, Bytes: 4}, want: normal[:3], ends: true},
		"body reset":              {rule: Rule{Stage: Body, Action: Reset}, want: normal[:3], ends: true},
		"body shorter":            {rule: Rule{Stage: Body, Action: Drop, Bytes: 1000}, want: normal, recorded: 1},
		"body answered early":     {rule: Rule{Stage: Body, Reply: "421 4.3.2 full"}, want: append(normal[:3:3], "421 "), ends: true},
		"body stalled":            {rule: Rule{Stage: Body, Action: Stall, Delay: 5 * time.Millisecond}, want: normal[:3], ends: true},
		"body late":               {rule: Rule{Stage: Body, Delay: 5 * time.Millisecond}, want: normal, recorded: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Rules: []Rule{tc.rule}})
			c := session(t, s)
			said := []string{"MAIL FROM:<from@example.com>\r\n", "RCPT TO:<to@example.com>\r\n", "DATA\r\n", "hello\r\n.\r\n"}
			for i, want := range tc.want {
				if i < len(said) {
					c.send(said[i])
				}
				c.want(want)
			}
			if len(tc.want) < len(said) && tc.want[len(tc.want)-1] == "354 " {
				c.send(said[3])
			}
			if tc.ends {
				c.wantEnd(tc.rest)
			} else {
				c.send("VRFY still@there\r\n")
				c.want("252 ")
			}
			if n := len(s.Truth()); n != tc.recorded {
				t.Errorf("%d messages recorded, want %d", n, tc.recorded)
			}
			until(t, "the cut is counted", func() bool { return (s.Stats().CutByRule == 1) == tc.ends })
		})
	}
}

// TestLong: a reply line longer than any buffer, and of the length asked for.
func TestLong(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	c := session(t, start(t, Config{Rules: []Rule{{Stage: Noop, Action: Long, Count: size}, {Stage: Rset, Action: Lines, Count: 5000}}}))
	c.send("NOOP\r\nRSET\r\n")
	if line, err := c.r.ReadString('\n'); err != nil || len(line) != size || !strings.HasPrefix(line, "250 2.0.0 Okxx") {
		t.Errorf("a line of %d bytes, %v; want %d", len(line), err, size)
	}
	if got := strings.Count(c.reply(), "\n"); got != 5000 {
		t.Errorf("%d lines, want 5000", got)
	}
}

// TestRecordedBeforeReply: when the reply to the dot is held back, the truth is there.
func TestRecordedBeforeReply(t *testing.T) {
	t.Parallel()
	told := make(chan Accepted, 1)
	s := start(t, Config{
		Rules:    []Rule{{Stage: EOD, Action: Ignore, Accept: true}},
		OnAccept: func(a Accepted) { told <- a },
	})
	c := session(t, s)
	c.send(envelope("to@example.com"))
	c.want(normal[:3]...)
	c.send("x\r\n.\r\n")
	if a := <-told; a.To != "to@example.com" || len(s.Truth()) != 1 {
		t.Errorf("told of %+v, %d in the truth", a, len(s.Truth()))
	}
}

// TestNoRecipientButData: the case of RFC 2920 section 3.1, where DATA was pipelined and is
// answered 354 although every RCPT was refused. Neither a lone dot nor a content counts.
func TestNoRecipientButData(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Rules: []Rule{
		{Stage: Rcpt, To: "bad*", Reply: "550 5.1.1 no"},
		{Stage: Data, To: "bad*", Reply: "354 go ahead"},
	}})
	c := session(t, s)
	for _, content := range []string{".\r\n", "content\r\n.\r\n"} {
		c.send(envelope("bad@example.com"))
		c.want("250 ", "550 ", "354 ")
		c.send(content)
		c.want("554 5.5.1 No valid recipients")
	}
	c.send(envelope("good@example.com"))
	c.want(normal[:3]...)
	c.send("x\r\n.\r\n")
	c.want("250 ")
	truth := s.Truth()
	if len(truth) != 1 || truth[0].To != "good@example.com" {
		t.Errorf("truth %+v", truth)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	// Each attempt is a RCPT to a recipient; fates is one letter an attempt: 5 refused.
	for name, tc := range map[string]struct {
		rule  Rule
		to    []string
		fates string
	}{
		"to":              {Rule{To: "A@*"}, []string{"a@x.com", "b@x.com", "A@y.com"}, "525"},
		"domain":          {Rule{Domain: "x.com"}, []string{"a@x.com", "a@X.COM", "a@y.x.com"}, "552"},
		"domain pattern":  {Rule{Domain: "*.x.com"}, []string{"a@x.com", "a@y.x.com"}, "25"},
		"one character":   {Rule{To: "?@x.com"}, []string{"a@x.com", "ab@x.com"}, "52"},
		"from":            {Rule{From: "from@*"}, []string{"a@x.com"}, "5"},
		"other from":      {Rule{From: "other@*"}, []string{"a@x.com"}, "2"},
		"stream":          {Rule{Stream: "normal"}, []string{"a@x.com"}, "5"},
		"other stream":    {Rule{Stream: "ad"}, []string{"a@x.com"}, "2"},
		"times":           {Rule{Times: 2}, []string{"a@x.com", "A@X.com", "a@x.com", "b@x.com"}, "5525"},
		"times in all":    {Rule{Times: 2, Per: PerServer}, []string{"a@x.com", "b@x.com", "c@x.com"}, "552"},
		"times, other to": {Rule{Times: 1, To: "b*"}, []string{"a@x.com", "b@x.com", "b@x.com"}, "252"},
		"after":           {Rule{After: 3}, []string{"a@x.com", "a@x.com", "a@x.com", "a@x.com"}, "2255"},
		"every":           {Rule{Every: 2}, []string{"a@x.com", "a@x.com", "a@x.com", "a@x.com"}, "2525"},
		"share of one":    {Rule{Share: 1}, []string{"a@x.com"}, "5"},
		"grouped":         {Rule{Grouped: true}, []string{"a@x.com"}, "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.rule.Stage, tc.rule.Reply = Rcpt, "550 no"
			s := start(t, Config{Rules: []Rule{tc.rule}})
			c := session(t, s)
			var got strings.Builder
			for _, to := range tc.to {
				c.send("RSET\r\nMAIL FROM:<from@example.com>\r\nRCPT TO:<" + to + ">\r\n")
				c.want("250 ", "250 ")
				got.WriteByte(c.reply()[0])
			}
			if got.String() != tc.fates {
				t.Errorf("fates %s, want %s", &got, tc.fates)
			}
			if hits := s.Stats().RuleHits["rule 1"]; hits != int64(strings.Count(tc.fates, "5")) {
				t.Errorf("%d hits counted for fates %s", hits, tc.fates)
			}
		})
	}
}

func TestTimesPerConnection(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Rules: []Rule{{Stage: Noop, Times: 1, Per: PerConnection, Reply: "450 x"}, {Stage: Rset, Times: 1, Reply: "450 x"}}})
	for _, rset := range []string{"450 ", "250 "} { // by default once for the server
		c := session(t, s)
		c.send("NOOP\r\n")
		c.want("450 ")
		c.send("NOOP\r\n")
		c.want("250 ")
		c.send("RSET\r\n")
		c.want(rset)
	}
}

// TestQuitGivesThePlaceBack before its reply: a client that has read the reply may open
// another connection at once, and must not be counted twice.
func TestQuitGivesThePlaceBack(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Rules: []Rule{{Stage: Quit, Action: Stall, Accept: true}}})
	c := session(t, s)
	c.send("QUIT\r\n")
	until(t, "no connection open, though no reply came", func() bool { return s.Stats().Open == 0 })
}

func TestGroupedIsNotAlone(t *testing.T) {
	t.Parallel()
	c := session(t, start(t, Config{Rules: []Rule{{Stage: Rcpt, Grouped: true, Reply: "503 5.5.1 no pipelining"}}}))
	c.send("MAIL FROM:<from@example.com>\r\n")
	c.want("250 ")
	c.send("RCPT TO:<a@example.com>\r\n")
	c.want("250 ")
	c.send("RSET\r\nMAIL FROM:<from@example.com>\r\nRCPT TO:<a@example.com>\r\n")
	c.want("250 ", "250 ", "503 ")
}

// TestShare: about as many as asked for, the same ones each time, others for another seed
// or rule, and not other ones because a rule was put in front.
func TestShare(t *testing.T) {
	t.Parallel()
	const n = 20000
	chosen := func(seed uint64, rules ...Rule) map[string]bool {
		b, err := newBehaviour("nhn", rules, seed)
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{}
		s.behaviour.Store(b)
		c := newConn(s, &wire{}, 1)
		set := map[string]bool{}
		for i := range n {
			c.lastTo = fmt.Sprintf("user%d@example.com", i)
			if r, _ := c.match(atRcpt); r != nil && r.Share > 0 {
				set[c.lastTo] = true
			}
		}
		return set
	}
	overlap := func(a, b map[string]bool) (both int) {
		for to := range a {
			if b[to] {
				both++
			}
		}
		return both
	}
	rule := Rule{Stage: Rcpt, Share: 0.1, Reply: "550 a"}
	first := chosen(1, rule)
	if len(first) < n/10*9/10 || len(first) > n/10*11/10 {
		t.Errorf("%d of %d chosen, want about a tenth", len(first), n)
	}
	if diff := cmp.Diff(first, chosen(1, Rule{Stage: Rcpt, To: "nobody@*", Reply: "550 b"}, rule)); diff != "" {
		t.Error("a rule in front changed who is chosen")
	}
	other := rule
	other.Reply = "550 c"
	for name, set := range map[string]map[string]bool{"seed": chosen(2, rule), "rule": chosen(1, other)} {
		if both := overlap(first, set); both > len(first)/4 {
			t.Errorf("another %s chose %d of the same %d", name, both, len(first))
		}
	}
}

// TestFreshShare: drawn for each message, not for each recipient.
func TestFreshShare(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Rules: []Rule{{Stage: Rcpt, Share: 0.5, Fresh: true, Reply: "450 x"}}})
	c := session(t, s)
	seen := map[byte]int{}
	for range 64 {
		c.send("RSET\r\nMAIL FROM:<from@example.com>\r\nRCPT TO:<a@example.com>\r\n")
		c.want("250 ", "250 ")
		seen[c.reply()[0]]++
	}
	if seen['2'] < 10 || seen['4'] < 10 {
		t.Errorf("fates %v, want about half and half", seen)
	}
}

// TestEarlyStages has rules act before there is a message.
func TestEarlyStages(t *testing.T) {
	t.Parallel()
	t.Run("greeting refused for the first two", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: Connect, Times: 2, Reply: "421 4.3.2 busy"}}})
		for range 2 {
			c := dial(t, s)
			c.want("421 ")
			c.wantEnd("")
		}
		dial(t, s).want("220 ")
	})
	t.Run("554 at the greeting closes", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t, Config{Rules: []Rule{{Stage: Connect, Reply: "554 5.7.1 blocked"}}}))
		c.want("554 ")
		c.wantEnd("")
	})
	t.Run("no greeting at all", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t, Config{Rules: []Rule{{Stage: Connect, Action: Drop}}}))
		c.wantEnd("")
	})
	t.Run("from the second connection on", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: Connect, After: 2, Reply: "421 x"}}})
		dial(t, s).want("220 ")
		dial(t, s).want("421 ")
	})
	t.Run("STARTTLS refused", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t, Config{Rules: []Rule{{Stage: StartTLS, Reply: "454 4.7.0 TLS not available"}}}))
		c.want("220 ")
		c.send("EHLO x\r\n")
		c.want("250-")
		c.send("STARTTLS\r\n")
		c.want("454 ")
		c.send("NOOP\r\n")
		c.want("250 ")
	})
	t.Run("plaintext after the 220", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: StartTLS, Action: Garbage, Accept: true, Reply: "220 go\r\n250 injected\r\n"}}})
		c := dial(t, s)
		c.want("220 ")
		c.send("EHLO x\r\n")
		c.want("250-")
		c.send("STARTTLS\r\n")
		c.want("220 go\r\n", "250 injected\r\n")
		c.overTLS(s) // the handshake goes on for a client that does not mind
		c.send("EHLO x\r\n")
		c.want("250-")
	})
	t.Run("handshake dropped", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t, Config{Implicit: true, Rules: []Rule{{Stage: TLS, Action: Drop}}}))
		c.wantEnd("")
	})
	t.Run("login refused for one stream", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: Auth, Stream: "ad", Reply: "535 5.7.8 no"}}})
		for user, want := range map[string]string{"K#ad": "535 ", "K#auth": "235 ", "K": "235 "} {
			c := dial(t, s)
			c.want("220 ")
			c.send("EHLO x\r\nAUTH PLAIN " + b64("\x00"+user+"\x00s") + "\r\n")
			c.want("250-", want)
		}
		if n := s.Stats().AuthFailures; n != 1 {
			t.Errorf("%d failures, want 1", n)
		}
	})
	t.Run("endless challenges", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: Auth, Reply: "334 bW9yZQ=="}}})
		c := dial(t, s)
		c.want("220 ")
		c.send("EHLO x\r\nAUTH PLAIN " + b64("\x00K\x00s") + "\r\n")
		c.want("250-")
		for range 5 {
			c.want("334 bW9yZQ==\r\n")
			c.send("YQ==\r\n")
		}
		c.want("334 ")
		c.send("*\r\nMAIL FROM:<a@example.com>\r\n")
		c.want("501 ", "530 ")
	})
	t.Run("stalled until the client goes", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: Ehlo, Action: Stall}}})
		c := dial(t, s)
		c.want("220 ")
		c.send("EHLO x\r\n")
		c.Close()
		until(t, "the connection is over", func() bool { return s.Stats().Open == 0 })
	})
	t.Run("any", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t, Config{Rules: []Rule{{Stage: Any, After: 1, Reply: "421 4.3.2 x"}}}))
		c.want("421 ")
		c.wantEnd("")
	})
}

// TestIdle: a 421 lies in the socket after some silence, with the connection closed or left
// open; before that silence the connection works.
func TestIdle(t *testing.T) {
	t.Parallel()
	const silence = 30 * time.Millisecond
	t.Run("421 and close", func(t *testing.T) {
		t.Parallel()
		s := start(t, Config{Rules: []Rule{{Stage: Idle, After: 1, Delay: silence, Reply: "421 4.4.2 idle"}}})
		c := session(t, s)
		c.send(envelope("a@example.com"))
		c.want(normal[:3]...)
		c.send("x\r\n.\r\n")
		c.want("250 ", "421 4.4.2 idle")
		c.wantEnd("")
		if hits := s.Stats().RuleHits["rule 1"]; hits != 1 {
			t.Errorf("%d hits, want 1", hits)
		}
	})
	t.Run("421 and open", func(t *testing.T) {
		t.Parallel()
		c := session(t, start(t, Config{Rules: []Rule{{Stage: Idle, Times: 1, Delay: silence, Reply: "421 4.4.2 idle", Keep: true}}}))
		c.want("421 ")
		c.send("NOOP\r\n")
		c.want("250 ")
	})
	t.Run("once a silence", func(t *testing.T) {
		t.Parallel()
		c := session(t, start(t, Config{
			IdleTimeout: 4 * silence,
			Rules:       []Rule{{Stage: Idle, Delay: silence, Reply: "450 4.4.2 idle"}},
		}))
		c.want("450 ", "421 4.4.2 "+Host)
		c.wantEnd("")
	})
	t.Run("time-out", func(t *testing.T) {
		t.Parallel()
		c := dial(t, start(t, Config{IdleTimeout: silence}))
		c.want("220 ", "421 4.4.2")
		c.wantEnd("")
	})
}

// meter counts the bytes that come in below TLS.
type meter struct {
	net.Conn
	n int
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.n += n
	return n, err
}

// TestDropHasNoCloseNotify: over TLS a drop is a truncation: not one byte more comes.
func TestDropHasNoCloseNotify(t *testing.T) {
	t.Parallel()
	const record = 5 + 1 + 16 // what TLS 1.3 adds to each
	reply := record + len("250 2.0.0 Ok\r\n")
	for action, want := range map[Action]int{Drop: 0, Reset: 0, Close: reply + record + 2} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Implicit: true, Rules: []Rule{{Stage: Noop, Action: action}}})
			c := dial(t, s)
			m := &meter{Conn: c.Conn}
			c.Conn = m
			c.overTLS(s)
			c.want("220 ")
			before := m.n
			c.send("NOOP\r\n")
			if action == Close {
				c.want("250 ")
			}
			c.wantEnd("")
			if got := m.n - before; got != want {
				t.Errorf("%d bytes came, want %d", got, want)
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	c := session(t, start(t, Config{Profile: "badpipe"}))
	c.send(envelope("a@example.com")) // RCPT and DATA are lost
	c.want("250 2.1.0")
	c.send("RCPT TO:<a@example.com>\r\n")
	c.want("250 2.1.5")
	c.send("DATA\r\n")
	c.want("354 ")
	c.send("x\r\n.\r\n")
	c.want("250 2.0.0")
}

// TestSetProfile: open connections meet the new behaviour at their next command.
func TestSetProfile(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	c := session(t, s)
	if err := s.SetProfile("down", Rule{Name: "x", Stage: Noop, Reply: "450 x"}); err != nil {
		t.Fatal(err)
	}
	c.send("NOOP\r\n")
	c.want("450 x")
	dial(t, s).want("421 ")
	if err := s.SetProfile("nosuch"); err == nil {
		t.Error("no error for a profile there is not")
	}
	if diff := cmp.Diff(map[string]int64{"x": 1, "down": 1}, s.Stats().RuleHits); diff != "" {
		t.Error(diff)
	}
	if err := s.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	dial(t, s).want("220 ")
}

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"**", "x", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"abc", "abcd", false}, {"*b", "aab", true}, {"*ab", "aaab", true}, {"a*", "b", false},
	} {
		if got := glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("glob(%q, %q) = %v", tc.pattern, tc.s, got)
		}
	}
}
