package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseScript(t *testing.T) {
	t.Parallel()
	const script = `
# comment
- name: grey
  stage: rcpt
  to: "a*@*"
  domain: "*.example.com"
  from: "x@*"
  stream: ad
  share: 12.5%
  fresh: true
  times: 2
  per: connection
  after: 3
  every: 4
  grouped: true
  reply: 451 4.7.1 Greylisted
- {stage: eod, delay: 250ms, action: acceptdrop}
- stage: mail
  share: 0.5
  reply:
    - 450 4.3.2 a
    - |
      550-5.7.1 b
      550 5.7.1 c
- {stage: body, bytes: 100, action: stall, delay: 1s}
- {stage: noop, action: lines, count: 5, keep: false, accept: true}
- {stage: ehlo, action: garbage, reply: "no\x00thing\r\n"}
`
	want := []Rule{
		{Name: "grey", Stage: Rcpt, To: "a*@*", Domain: "*.example.com", From: "x@*", Stream: "ad", Share: 0.125, Fresh: true,
			Times: 2, Per: PerConnection, After: 3, Every: 4, Grouped: true, Reply: "451 4.7.1 Greylisted"},
		{Stage: EOD, Delay: 250 * time.Millisecond, Action: AcceptDrop},
		{Stage: Mail, Share: 0.5, Replies: []string{"450 4.3.2 a", "550-5.7.1 b\n550 5.7.1 c\n"}},
		{Stage: Body, Bytes: 100, Action: Stall, Delay: time.Second},
		{Stage: Noop, Action: Lines, Count: 5, Accept: true},
		{Stage: Ehlo, Action: Garbage, Reply: "no\x00thing\r\n"},
	}
	got, err := ParseScript("x.yaml", []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, nothing := range []string{"", "# only a comment\n", "[]"} {
		if got, err := ParseScript("x.yaml", []byte(nothing)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", nothing, got, err)
		}
	}
}

func TestScriptErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ script, want string }{
		"no YAML":            {"- stage: [", "x.yaml: yaml: "},
		"no list":            {"stage: rcpt\n", "x.yaml:1: want a list of rules"},
		"no rule":            {"- stage: rcpt\n  reply: 250 x\n- rcpt\n", "x.yaml:3: want a rule with fields"},
		"alias":              {"- &a {stage: rcpt, reply: 250 x}\n- *a\n", "x.yaml:2: want a rule with fields"},
		"unknown field":      {"- stage: rcpt\n  replay: 250 x\n", `x.yaml:2: unknown field "replay"`},
		"field twice":        {"- stage: rcpt\n  times: 1\n  times: 2\n", "x.yaml:3: field times is given twice"},
		"no stage":           {"\n- reply: 250 x\n", `x.yaml:2: stage "": want one of [connect ehlo`},
		"stage":              {"- stage: dot\n", `x.yaml:1: stage "dot": want one of`},
		"empty":              {"- stage: rcpt\n  to: ''\n", "x.yaml:2: to: is empty"},
		"list for a value":   {"- stage: rcpt\n  to: [a, b]\n", "x.yaml:2: to: want a single value"},
		"share":              {"- stage: rcpt\n  share: 150%\n", `x.yaml:2: share: share "150%": want more than 0`},
		"share of nothing":   {"- stage: rcpt\n  share: 0\n", `share "0"`},
		"share NaN":          {"- stage: rcpt\n  share: nan\n", `share "nan"`},
		"times":              {"- stage: rcpt\n  times: 0\n", `x.yaml:2: times: "0": want a whole number, 1 or more`},
		"delay":              {"- stage: rcpt\n  delay: 5\n", `x.yaml:2: delay: "5": want a duration`},
		"negative delay":     {"- stage: rcpt\n  delay: -5s\n", "x.yaml:1: delay -5s: want 0 or more"},
		"flag":               {"- stage: rcpt\n  keep: maybe\n", `x.yaml:2: keep: "maybe": want true or false`},
		"action":             {"- stage: rcpt\n  action: explode\n", `action "explode": want one of [reply close`},
		"scope":              {"- stage: rcpt\n  reply: 250 x\n  per: day\n", `per "day": want recipient, connection or server`},
		"stream":             {"- stage: rcpt\n  reply: 250 x\n  stream: bulk\n", `stream "bulk": want auth, normal or ad`},
		"nothing to do":      {"- stage: rcpt\n", "x.yaml:1: a rule without reply, delay or action does nothing"},
		"reply":              {"- stage: rcpt\n  reply: no\n", `reply "no": want a code from 200 to 599`},
		"reply in list":      {"- stage: rcpt\n  reply: [250 x, 99 y]\n", `reply "99 y"`},
		"reply no text":      {"- stage: rcpt\n  reply: [[250 x]]\n", "x.yaml:2: reply: want a single value"},
		"reply with CR":      {"- stage: rcpt\n  reply: \"250 x\\r\\n\"\n", "want a code"},
		"recipient at mail":  {"- stage: mail\n  to: a\n  reply: 250 x\n", "stage mail knows no recipient"},
		"domain at any":      {"- stage: any\n  domain: a\n  reply: 250 x\n", "stage any knows no recipient"},
		"scope at mail":      {"- stage: mail\n  per: recipient\n  reply: 250 x\n", "stage mail knows no recipient"},
		"bytes at mail":      {"- stage: mail\n  bytes: 5\n  reply: 250 x\n", "only stage body has bytes"},
		"idle at once":       {"- stage: idle\n  reply: 421 x\n", "stage idle wants a delay"},
		"idle says nothing":  {"- stage: idle\n  delay: 1s\n  action: flood\n", "action flood at stage idle wants a reply"},
		"body stall forever": {"- stage: body\n  action: stall\n", "stall at stage body wants a delay"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseScript("x.yaml", []byte(tc.script))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}
