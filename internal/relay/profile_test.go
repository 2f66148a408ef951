package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// deliver sends one message in lock-step and returns the first reply that is not positive,
// or the reply to the dot.
func (c *client) deliver(to string) string {
	c.t.Helper()
	c.send("RSET\r\n")
	c.want("250 ")
	for _, line := range []string{"MAIL FROM:<from@example.com>\r\n", "RCPT TO:<" + to + ">\r\n", "DATA\r\n"} {
		c.send(line)
		if got := c.reply(); got[0] > '3' {
			return got
		}
	}
	c.send("x\r\n.\r\n")
	return c.reply()
}

// TestEveryProfileStarts: each with its defaults, and each is in the help.
func TestEveryProfileStarts(t *testing.T) {
	t.Parallel()
	for _, name := range Profiles() {
		if _, err := newBehaviour(name, nil, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(ProfileHelp(), "  "+name+" ") {
			t.Errorf("%s is not in the help", name)
		}
	}
	for _, name := range []string{"nhn", "demo", "strict", "greylist", "flaky", "throttled", "slow", "down"} {
		if !strings.Contains(strings.Join(Profiles(), " "), name) {
			t.Errorf("there is no profile %s", name)
		}
	}
}

// TestDemo: shares as promised; what is deferred gets through at the second attempt, what is
// rejected never does.
func TestDemo(t *testing.T) {
	t.Parallel()
	const n = 4000
	s := start(t, Config{Profile: "demo"})
	c := session(t, s)
	var first, second [6]int
	texts := map[string]bool{}
	for i := range n {
		to := fmt.Sprintf("user%d@example.com", i)
		got := c.deliver(to)
		first[got[0]-'0']++
		if got[0] == '2' {
			continue
		}
		texts[strings.ReplaceAll(got, to, "TO")] = true
		again := c.deliver(to)
		second[again[0]-'0']++
		if again[0] == '4' || (again[0] == '5') != (got[0] == '5') && got[0] == '5' {
			t.Errorf("%s: first %q, then %q", to, got, again)
		}
	}
	if d := first[4]; d < n*10/1000 || d > n*20/1000 {
		t.Errorf("%d of %d deferred, want about 1.5 %%", d, n)
	}
	if r := first[5]; r < n*8/1000 || r > n*19/1000 {
		t.Errorf("%d of %d rejected, want about 1.3 %%", r, n)
	}
	hits := s.Stats().RuleHits
	if hits["refused"] == 0 || hits["rejected"] == 0 || hits["deferred"] != int64(first[4]) {
		t.Errorf("hits %v", hits)
	}
	if at, begun := s.FirstHit("rejected"), s.Begun(); at.Before(begun[0].Time) || at.After(begun[len(begun)-1].Time) {
		t.Errorf("first rejected at %v, from %v to %v there was mail", at, begun[0].Time, begun[len(begun)-1].Time)
	}
	if at := s.FirstHit("nothing"); !at.IsZero() {
		t.Errorf("a rule that is not there decided at %v", at)
	}
	if len(texts) < 6 {
		t.Errorf("only %d different texts", len(texts))
	}
	if st := s.Stats(); st.Connections != 1 || st.Messages != int64(first[2]+second[2]) {
		t.Errorf("%d connections, %d messages for %d acceptances", st.Connections, st.Messages, first[2]+second[2])
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		steps []exchange // after the greeting
		ends  bool
	}{
		"no AUTH before TLS":      {[]exchange{{"EHLO x\r\n", []string{"250-"}}, {"AUTH PLAIN " + b64("\x00K\x00s") + "\r\n", []string{"530 5.7.0"}}}, false},
		"bare LF after a command": {[]exchange{{"NOOP\n", []string{"501"}}}, false},
		"control byte":            {[]exchange{{"\x00\x01\r\n", []string{"554"}}}, true},
		"HTTP":                    {[]exchange{{"GET / HTTP/1.1\r\n", []string{"421"}}}, true},
		"three bad commands":      {[]exchange{{"A\r\n", []string{"500"}}, {"B\r\n", []string{"500"}}, {"C\r\n", []string{"500", "421"}}}, true},
		"talk after EHLO":         {[]exchange{{"EHLO x\r\nNOOP\r\n", []string{"554 5.5.0"}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, start(t, Config{Profile: "strict?greet=0s"}))
			c.want("220 ")
			for _, step := range tc.steps {
				c.send(step.send)
				c.want(step.want...)
			}
			if tc.ends {
				c.wantEnd("")
			}
		})
	}
}

func TestStrictSession(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		content, want string
	}{
		"fine":      {"a\r\n..b\r\n", "250 "},
		"bare LF":   {"a\nb\r\n", "501 5.5.2 Refused: bare LF"},
		"bare CR":   {"a\rb\r\n", "501 5.5.2 Refused: bare CR"},
		"NUL":       {"a\x00b\r\n", "501 5.5.2 Refused: NUL"},
		"998":       {strings.Repeat("x", 998) + "\r\n", "250 "},
		"999":       {strings.Repeat("x", 999) + "\r\n", "501 5.5.2 Refused: line longer"},
		"smuggling": {"a\n.\r\nMAIL FROM:<evil@example.com>\r\n", "501 5.5.2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Profile: "strict", Implicit: true})
			c := dial(t, s)
			c.overTLS(s)
			c.want("220 ")
			c.send("EHLO x\r\n")
			c.want("250-")
			c.send("AUTH PLAIN " + b64("\x00K\x00s") + "\r\n")
			c.want("235 ")
			c.send("MAIL FROM: <a@example.com>\r\n") // the space is wrong
			c.want("501 ")
			c.send(envelope("to@example.com"))
			c.want(normal[:3]...)
			c.send(tc.content + ".\r\n")
			c.want(tc.want)
			st := s.Stats()
			if bad := tc.want != "250 "; bad == (st.Messages == 1) || bad != (st.BadBytes() > 0) {
				t.Errorf("%d messages, %d bad bytes", st.Messages, st.BadBytes())
			}
			c.send("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nearly\r\n.\r\n")
			c.want("250 ", "250 ", "554 5.5.0 Error: improper command pipelining")
		})
	}
}

// TestEarlyTalker: one that does not wait for the greeting is counted, and in strict sent off.
func TestEarlyTalker(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Profile: "strict?greet=20s"})
	c := dial(t, s)
	c.send("EHLO x\r\n")
	c.want("554 5.5.1")
	c.wantEnd("")
	lax := start(t, Config{Rules: []Rule{{Stage: Connect, Delay: 20 * time.Second}}})
	c = dial(t, lax)
	c.send("EHLO x\r\n")
	c.want("220 ", "250-")
	if a, b := s.Stats().EarlyTalkers, lax.Stats().EarlyTalkers; a != 1 || b != 1 {
		t.Errorf("early talkers %d and %d, want 1 and 1", a, b)
	}
}

func TestGreylist(t *testing.T) {
	t.Parallel()
	c := session(t, start(t, Config{Profile: "greylist?times=2"}))
	for i, want := range []string{"451 4.7.1", "451 4.7.1", "250 2.0.0", "250 2.0.0"} {
		if got := c.deliver("a@example.com"); !strings.HasPrefix(got, want) {
			t.Errorf("attempt %d: %q, want %s", i+1, got, want)
		}
	}
	if got := c.deliver("b@example.com"); !strings.HasPrefix(got, "451 ") {
		t.Errorf("another recipient: %q", got)
	}
}

// TestFlaky: drops before the dot leave no trace, drops after it do, and both are those of
// the counted rules.
func TestFlaky(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Profile: "flaky?before=20%&after=20%&reset=10%"})
	const n = 150
	told := int64(0)
	for i := range n {
		c := session(t, s)
		c.send(envelope(fmt.Sprintf("u%d@example.com", i)) + "x\r\n.\r\nQUIT\r\n")
		for {
			line, err := c.r.ReadString('\n')
			if strings.HasPrefix(line, "250 2.0.0 OK queued") {
				told++
			}
			if err != nil {
				break
			}
		}
		c.Close()
	}
	st := s.Stats()
	before, after, reset := st.RuleHits["dropped before the dot"], st.RuleHits["dropped after the dot"], st.RuleHits["reset at RCPT"]
	if before < 10 || after < 10 || reset < 3 {
		t.Errorf("hits %v", st.RuleHits)
	}
	if st.Messages != n-before-reset || told != st.Messages-after {
		t.Errorf("%d recorded and %d told of %d, with %d lost before, %d after, %d reset", st.Messages, told, n, before, after, reset)
	}
}

func TestThrottledRate(t *testing.T) {
	t.Parallel()
	for code, closes := range map[string]bool{"452": false, "421": true} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{Profile: "throttled?rate=3/1h&rate=100/1s&open=0&per_connection=0&code=" + code})
			c := session(t, s)
			for i := range 3 {
				if got := c.deliver("a@example.com"); !strings.HasPrefix(got, "250 ") {
					t.Fatalf("message %d: %q", i+1, got)
				}
			}
			if got := c.deliver("a@example.com"); !strings.HasPrefix(got, code+" 4.") {
				t.Errorf("message 4: %q, want %s", got, code)
			}
			if closes {
				c.wantEnd("")
			} else {
				c.send("NOOP\r\n")
				c.want("250 ")
			}
			begun := s.Begun()
			if len(begun) != 4 || len(s.MailTimes()) != 4 {
				t.Fatalf("%d messages begun, %d times, want 4: the refused one counts", len(begun), len(s.MailTimes()))
			}
			for i, b := range begun {
				if b.Refused != (i == 3) || b.Stream != "normal" || b.Conn != 1 || b.Time.IsZero() || !b.Time.Equal(s.MailTimes()[i]) {
					t.Errorf("message %d: %+v", i+1, b)
				}
			}
		})
	}
}

func TestThrottledConnections(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Profile: "throttled?open=2&per_connection=2&rate=0"})
	first, second := session(t, s), session(t, s)
	third := dial(t, s)
	third.want("421 4.7.0 Too many connections")
	third.wantEnd("")
	until(t, "the refused one is gone", func() bool { return s.Stats().Open == 2 })
	second.send("QUIT\r\n")
	second.want("221 ")
	dial(t, s).want("220 ") // at once: QUIT gave the place back before its reply
	for range 2 {
		if got := first.deliver("a@example.com"); !strings.HasPrefix(got, "250 ") {
			t.Fatal(got)
		}
	}
	if got := first.deliver("a@example.com"); !strings.HasPrefix(got, "421 4.7.0 Too many messages on this connection") {
		t.Error(got)
	}
	if st := s.Stats(); st.OpenMax != 3 || st.Connections != 4 {
		t.Errorf("open at most %d, %d in all; want 3 and 4", st.OpenMax, st.Connections)
	}
}

func TestThrottledConnectRate(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Profile: "throttled?connects=2/1h"})
	dial(t, s).want("220 ")
	dial(t, s).want("220 ")
	dial(t, s).want("421 ")
}

// TestWindow: never more than n in any window, and again as soon as the oldest is out of it.
func TestWindow(t *testing.T) {
	t.Parallel()
	l := newLimiter(limits{messages: []rate{{3, time.Second}, {5, time.Minute}}})
	t0 := time.Unix(1e9, 0)
	for i, step := range []struct {
		at   time.Duration
		want bool
	}{
		{0, true}, {100 * time.Millisecond, true}, {900 * time.Millisecond, true}, {950 * time.Millisecond, false},
		{999 * time.Millisecond, false}, {time.Second, true}, {1050 * time.Millisecond, false}, {1100 * time.Millisecond, true},
		{10 * time.Second, false}, {59 * time.Second, false}, {time.Minute, true}, {time.Minute + 50*time.Millisecond, false}, {61 * time.Second, true},
	} {
		if got := l.mail(t0.Add(step.at)); got != step.want {
			t.Errorf("step %d at %v: %v, want %v", i, step.at, got, step.want)
		}
	}
}

func TestSlow(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	c := session(t, start(t, Config{Profile: "slow?greet=10ms&command=2ms&dot=10ms"}))
	if got := c.deliver("a@example.com"); !strings.HasPrefix(got, "250 ") {
		t.Error(got)
	}
	if took := time.Since(begin); took < 30*time.Millisecond {
		t.Errorf("took %v, sooner than the delays add up to", took)
	}
}

func TestLockstepAndDown(t *testing.T) {
	t.Parallel()
	c := dial(t, start(t, Config{Profile: "lockstep"}))
	c.want("220 ")
	c.send("EHLO x\r\n")
	if got := c.reply(); strings.Contains(got, "PIPELINING") {
		t.Errorf("PIPELINING is offered: %q", got)
	}
	c = dial(t, start(t, Config{Profile: "down"}))
	c.want("421 4.3.2")
	c.wantEnd("")
}
