package verdict

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// row is one line of a file of replies.
type row struct {
	Input
	want     Action
	line     int
	doubtful bool // another action could be argued for
}

func (r row) String() string {
	return fmt.Sprintf("line %d: %s %d %s %q", r.line, r.Stage, r.Code, r.Enhanced, r.Text)
}

func rows(t testing.TB, name string) []row {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []row
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || f[0] == "stage" {
			continue
		}
		if len(f) < 5 || !slices.Contains(Actions(), Action(f[4])) {
			t.Fatalf("%s:%d: want at least 5 columns and an action, have %q", name, n, f)
		}
		stage, err := ParseStage(f[0])
		if err != nil {
			t.Fatalf("%s:%d: %v", name, n, err)
		}
		code, _ := strconv.Atoi(f[1]) // empty is 0
		out = append(out, row{Input{Stage: stage, Code: code, Enhanced: f[2], Text: f[3]}, Action(f[4]), n, len(f) > 6 && f[6] == "doubtful"})
	}
	if len(out) == 0 {
		t.Fatalf("%s: no rows", name)
	}
	return out
}

func defaultRules(t testing.TB) *Rules {
	t.Helper()
	r, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// severe says why taking want for got is one of the mistakes that must not happen,
// or "".
func severe(want, got Action) string {
	pause := func(a Action) bool { return a == PauseConfig || a == PauseBlocked }
	switch {
	case got == Suppress && want != Suppress:
		return "a good address suppressed"
	case pause(want) && (got == Retry || got == RetrySlow):
		return "knocking on where the operator must act"
	case pause(got) && (want == Suppress || want == Fail):
		return "everybody held for one mail's fault"
	}
	return ""
}

// confusion counts verdicts by what they should have been.
type confusion struct {
	counts      map[Action]map[Action]int
	right, all  int
	severeFault []string
}

func measure(t *testing.T, r *Rules, rows []row) *confusion {
	t.Helper()
	c := &confusion{counts: map[Action]map[Action]int{}}
	for _, row := range rows {
		got := r.Judge(row.Input)
		if c.counts[row.want] == nil {
			c.counts[row.want] = map[Action]int{}
		}
		c.counts[row.want][got.Action]++
		c.all++
		if got.Action == row.want {
			c.right++
			continue
		}
		t.Logf("%v: %s by %s (%s), want %s", row, got.Action, got.Rule, got.Origin, row.want)
		if why := severe(row.want, got.Action); why != "" {
			c.severeFault = append(c.severeFault, fmt.Sprintf("%v: %s", row, why))
		}
	}
	return c
}

func (c *confusion) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%20s", "want \\ got")
	for _, a := range Actions() {
		fmt.Fprintf(&b, " %19s", a)
	}
	for _, want := range Actions() {
		fmt.Fprintf(&b, "\n%20s", want)
		for _, got := range Actions() {
			fmt.Fprintf(&b, " %19d", c.counts[want][got])
		}
	}
	return b.String()
}

// The measure of the rules: as good as always the right action, and never one of
// the mistakes that cost an account or a list.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"replies.tsv", "more.tsv"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := measure(t, defaultRules(t), rows(t, name))
			t.Logf("%d of %d right (%.1f %%), %d severe mistakes\n%v", c.right, c.all, 100*float64(c.right)/float64(c.all), len(c.severeFault), c)
			if c.right*100 < c.all*98 {
				t.Errorf("%d of %d right: want 98 %%", c.right, c.all)
			}
			for _, s := range c.severeFault {
				t.Error("severe:", s)
			}
		})
	}
}

// Replies that were labelled before the rules had seen them. The doubtful ones are
// measured, too, but bind nobody.
func TestUnseen(t *testing.T) {
	t.Parallel()
	r := defaultRules(t)
	var clear, doubtful []row
	for _, row := range rows(t, "unseen.tsv") {
		if row.doubtful {
			doubtful = append(doubtful, row)
		} else {
			clear = append(clear, row)
		}
	}
	d := measure(t, r, doubtful)
	t.Logf("doubtful: %d of %d as labelled, %d severe if the label is right", d.right, d.all, len(d.severeFault))
	c := measure(t, r, clear)
	t.Logf("%d of %d right (%.1f %%), %d severe mistakes\n%v", c.right, c.all, 100*float64(c.right)/float64(c.all), len(c.severeFault), c)
	if c.right*100 < c.all*97 {
		t.Errorf("%d of %d right: want 97 %%", c.right, c.all)
	}
	for _, s := range c.severeFault {
		t.Error("severe:", s)
	}
}

// A rule that decides about none of the replies is untested, or cannot be reached
// for the rules before it.
func TestEveryRuleDecides(t *testing.T) {
	t.Parallel()
	r := defaultRules(t)
	decided := map[string]bool{}
	for _, name := range []string{"replies.tsv", "more.tsv", "unseen.tsv"} {
		for _, row := range rows(t, name) {
			decided[r.Judge(row.Input).Rule] = true
		}
	}
	for _, c := range errorCases() {
		decided[r.Judge(Input{Stage: Connect, Err: c.err}).Rule] = true
	}
	for _, rule := range r.rules {
		if !decided[rule.name] {
			t.Errorf("%s: rule %s decides about no reply of the tests", rule.origin, rule.name)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in   Input
		want Verdict // Why and Origin are not compared
	}{
		"accepted":        {Input{Stage: EOD, Code: 250, Text: "5.1.1 user unknown"}, Verdict{Rule: "accepted", Known: true}},
		"go ahead":        {Input{Stage: Data, Code: 354}, Verdict{Rule: "accepted", Known: true}},
		"unknown for now": {Input{Stage: Rcpt, Code: 499, Text: "Zzz"}, Verdict{Action: Retry, Reach: Recipient, Rule: "unknown-4xx"}},
		"unknown, session": {Input{Stage: Mail, Code: 499, Text: "Zzz"},
			Verdict{Action: Retry, Reach: Connection, Rule: "unknown-4xx-session"}},
		"unknown for good":   {Input{Stage: Rcpt, Code: 599, Text: "Zzz"}, Verdict{Action: Fail, Reach: Recipient, Rule: "unknown-5xx"}},
		"unknown altogether": {Input{Text: "Zzz"}, Verdict{Action: Retry, Reach: Recipient, Rule: "unknown"}},
		"garbage code":       {Input{Code: -7, Text: "Zzz"}, Verdict{Action: Retry, Reach: Recipient, Rule: "unknown"}},
		"stage, not text": {Input{Stage: Data, Code: 550, Text: "Unknown user u@docomo.ne.jp"},
			Verdict{Action: Fail, Reach: Recipient, Rule: "user-filter", Known: true}},
		"block said to the session": {Input{Stage: Connect, Code: 554, Text: "192.0.2.1 listed at zen.spamhaus.org"},
			Verdict{Action: PauseBlocked, Reach: Relay, Rule: "listed", Known: true}},
		"the same of the login": {Input{Stage: Mail, Code: 554, Text: "192.0.2.1 listed at zen.spamhaus.org"},
			Verdict{Action: PauseBlocked, Reach: Login, Rule: "listed", Known: true}},
		"the same of one mail": {Input{Stage: Rcpt, Code: 554, Text: "192.0.2.1 listed at zen.spamhaus.org"},
			Verdict{Action: PauseBlocked, Reach: Destination, Rule: "listed", Known: true}},
		"wait": {Input{Stage: Rcpt, Code: 450, Enhanced: "4.2.0", Text: "Greylisted, try again in 5 minutes"},
			Verdict{Action: RetrySlow, Reach: Recipient, Rule: "greylisted", Wait: 5 * time.Minute, Known: true}},
		"no wait for what is over": {Input{Stage: Rcpt, Code: 550, Enhanced: "5.2.2", Text: "Mailbox full, wait for 5 minutes"},
			Verdict{Action: Fail, Reach: Recipient, Rule: "mailbox-full", Known: true}},
		"beyond the bound": {Input{Stage: Rcpt, Code: 550, Text: strings.Repeat("x ", maxText/2) + "user unknown"},
			Verdict{Action: Fail, Reach: Recipient, Rule: "unknown-5xx"}},
		"status buried in the text": {Input{Stage: Rcpt, Code: 550, Text: "cuda_nsu Zzz (#5.1.1)"},
			Verdict{Action: Suppress, Reach: Recipient, Rule: "status-dead-address", Known: true}},
		"status given wins": {Input{Stage: Rcpt, Code: 550, Enhanced: "5.2.2", Text: "Zzz (#5.1.1)"},
			Verdict{Action: Fail, Reach: Recipient, Rule: "status-full", Known: true}},
		"class by the status": {Input{Stage: Any, Enhanced: "5.1.1", Text: "No such user"},
			Verdict{Action: Suppress, Reach: Recipient, Rule: "no-such-user", Known: true}},
		"a reply counts more than an error": {Input{Stage: Rcpt, Code: 550, Enhanced: "5.1.1", Err: io.EOF},
			Verdict{Action: Suppress, Reach: Recipient, Rule: "status-dead-address", Known: true}},
	}
	r := defaultRules(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := r.Judge(tt.in)
			if got.Why == "" || (got.Origin == "") != (got.Rule == "accepted") {
				t.Errorf("no reason or no place: %+v", got)
			}
			got.Why, got.Origin = "", ""
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// What stands for somebody or something in a reply must not decide.
func TestNamesDoNotMatter(t *testing.T) {
	t.Parallel()
	r := defaultRules(t)
	for _, name := range []string{
		"<nosuchuser@example.com>", "spam@blocked.example.com", "mailbox-full.example.com", "<blacklisted@spf.example>",
		"user.unknown.example.com[192.0.2.1]", "2001:db8::1", "https://support.example.com/?p=NoSuchUser", "(mx1.tooManyConnections.example.net)",
	} {
		for _, in := range []Input{
			{Stage: Rcpt, Code: 450, Text: name + ": Zzz"},
			{Stage: EOD, Code: 550, Text: "Zzz " + name},
		} {
			plain := in
			plain.Text = "Zzz"
			if got, want := r.Judge(in), r.Judge(plain); got != want {
				t.Errorf("%q: %+v, without the name %+v", in.Text, got, want)
			}
		}
	}
	// But a block list's name does.
	if got := r.Judge(Input{Stage: Rcpt, Code: 550, Text: "see https://www.spamhaus.org/query/ip/192.0.2.1"}); got.Action != PauseBlocked {
		t.Errorf("spamhaus: %+v", got)
	}
}

func TestCaseAndLinesDoNotMatter(t *testing.T) {
	t.Parallel()
	r := defaultRules(t)
	for _, row := range rows(t, "replies.tsv") {
		want := r.Judge(row.Input)
		for _, change := range []func(string) string{
			strings.ToUpper,
			func(s string) string { return strings.ReplaceAll(s, " ", "\r\n") },
			func(s string) string { return strings.ReplaceAll(s, " ", "  ") },
		} {
			in := row.Input
			in.Text = change(in.Text)
			if strings.Contains(in.Text, "HTTP") || strings.Contains(in.Text, ".COM") {
				continue // host names in capitals are no shape that servers use
			}
			if got := r.Judge(in); got.Action != want.Action {
				t.Errorf("%v: %s by %s, want %s by %s", row, got.Action, got.Rule, want.Action, want.Rule)
			}
		}
	}
}

func FuzzJudge(f *testing.F) {
	for _, row := range rows(f, "replies.tsv") {
		f.Add(string(row.Stage), row.Code, row.Enhanced, row.Text)
	}
	f.Add("rcpt", 450, "4.9999.1", "in 99999999999999999999 seconds retry after 00:99:99 \xff\xfe 5분 후 a.b.c.d :// @ e-e-mail")
	r := defaultRules(f)
	f.Fuzz(func(t *testing.T, stage string, code int, enhanced, text string) {
		v := r.Judge(Input{Stage: Stage(stage), Code: code, Enhanced: enhanced, Text: text})
		refused := code < 200 || code >= 400
		switch {
		case refused && (!slices.Contains(Actions(), v.Action) || !slices.Contains(Reaches(), v.Reach) || v.Rule == "" || v.Why == ""):
			t.Errorf("%+v", v)
		case !refused && (v.Action != "" || v.Wait != 0):
			t.Errorf("accepted, but %+v", v)
		case v.Wait < 0 || v.Wait > maxWait:
			t.Errorf("wait %v", v.Wait)
		case code >= 400 && code < 500 && v.Action == Fail && !v.Known:
			t.Errorf("an unknown 4xx is final: %+v", v)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	r := defaultRules(b)
	all := rows(b, "replies.tsv")
	for name, in := range map[string]Input{
		"accepted":      {Stage: EOD, Code: 250, Enhanced: "2.0.0", Text: "Ok: queued as 4bX9Zk2Pz"},
		"unknown-user":  {Stage: Rcpt, Code: 550, Enhanced: "5.1.1", Text: "<user@example.com>: Recipient address rejected: User unknown in virtual mailbox table"},
		"long-unknown":  {Stage: EOD, Code: 450, Text: strings.Repeat("the user of your mail has a message for this recipient ", 30)},
		"bare-code":     {Stage: Rcpt, Code: 550},
		"network-error": {Stage: Connect, Err: io.ErrUnexpectedEOF},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Judge(in)
			}
		})
	}
	b.Run("all-replies", func(b *testing.B) { // time of one, over all of the file
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			r.Judge(all[i%len(all)].Input)
		}
	})
}
