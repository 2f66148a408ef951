package verdict

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// extend returns rules with a file before them.
func extend(base *Rules, file string) (*Rules, error) {
	return base.Extend("mine.yaml", strings.NewReader(file))
}

func TestExtend(t *testing.T) {
	t.Parallel()
	unknown := Input{Stage: Rcpt, Code: 550, Enhanced: "5.1.1", Text: "User unknown"}
	tests := map[string]struct {
		file string
		in   Input
		want Action
		rule string
	}{
		"goes before the shipped ones": {
			"rules: [{name: mine, code: 550, stage: rcpt, action: fail, why: x}]", unknown, Fail, "mine"},
		"stage does not fit": {
			"rules: [{name: mine, stage: [eod, data], action: fail, why: x}]", unknown, Suppress, "no-such-user"},
		"code does not fit": {
			"rules: [{name: mine, code: [551, 4xx], action: fail, why: x}]", unknown, Suppress, "no-such-user"},
		"preset fits": {
			"rules: [{name: mine, preset: [nhn, ses], action: fail, why: x}]", Input{Stage: Rcpt, Code: 550, Preset: "nhn"}, Fail, "mine"},
		"preset does not fit": {
			"rules: [{name: mine, preset: ses, action: retry, why: x}]", Input{Stage: Rcpt, Code: 550, Preset: "nhn"}, Fail, "unknown-5xx"},
		"class by status": {
			"rules: [{name: mine, code: 5xx, text: [zzz], action: retry_slow, why: x}]", Input{Enhanced: "5.9.9", Text: "Zzz"}, RetrySlow, "mine"},
		"status range": {
			"rules: [{name: mine, status: 5.7.600-602, action: retry_slow, why: x}]", Input{Code: 550, Enhanced: "5.7.602"}, RetrySlow, "mine"},
		"status, any class": {
			"rules: [{name: mine, status: x.9.1, action: retry_slow, why: x}]", Input{Code: 450, Enhanced: "4.9.1"}, RetrySlow, "mine"},
		"status, any detail": {
			"rules: [{name: mine, status: 5.9.x, action: retry_slow, why: x}]", Input{Code: 550, Enhanced: "5.9.77"}, RetrySlow, "mine"},
		"status, other class": {
			"rules: [{name: mine, status: 5.9.x, action: fail, why: x}]", Input{Code: 450, Enhanced: "4.9.77"}, Retry, "unknown-4xx"},
		"and": {
			"rules: [{name: mine, text: [zzz], and: [yyy], action: retry_slow, why: x}]", Input{Code: 550, Text: "yyy zzz"}, RetrySlow, "mine"},
		"and is missing": {
			"rules: [{name: mine, text: [zzz], and: [yyy], action: retry_slow, why: x}]", Input{Code: 550, Text: "zzz"}, Fail, "unknown-5xx"},
		"not": {
			"rules: [{name: mine, text: [zzz], not: [yyy], action: retry_slow, why: x}]", Input{Code: 550, Text: "yyy zzz"}, Fail, "unknown-5xx"},
		"shipped words": {
			`rules: [{name: mine, text: ["{who} zzz"], action: retry_slow, why: x}]`, Input{Code: 550, Text: "Mailbox zzz"}, RetrySlow, "mine"},
		"own words, wherever they stand": {
			"rules: [{name: mine, text: ['{bird} gone'], action: retry_slow, why: x}]\nwords: {bird: 'gull|tern'}", Input{Code: 550, Text: "tern gone"}, RetrySlow, "mine"},
		"own hosts": {
			"hosts: [zzzlist]\nrules: [{name: mine, text: zzzlist, action: pause_blocked, why: x}]", Input{Code: 550, Text: "at bl.zzzlist.example.org"}, PauseBlocked, "mine"},
		"error": {
			"rules: [{name: mine, error: reset, text: 'by peer', action: pause_config, why: x}]", Input{Err: errors.Join(io.EOF, errors.New("by peer"))}, PauseConfig, "mine"},
		"no reply rule for errors": {
			"rules: [{name: mine, text: zzz, action: pause_config, why: x}]", Input{Err: errors.New("zzz")}, Retry, "net-other"},
		"drop":               {"drop: [no-such-user]", unknown, Suppress, "status-dead-address"},
		"drop and renew":     {"drop: [no-such-user]\nrules: [{name: no-such-user, code: 5xx, action: fail, why: x}]", unknown, Fail, "no-such-user"},
		"nothing":            {"# nothing", unknown, Suppress, "no-such-user"},
		"drop the last ones": {"drop: [unknown-4xx, unknown]", Input{Stage: Rcpt, Code: 450, Text: "Zzz"}, Retry, "none"},
	}
	base := defaultRules(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := extend(base, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Judge(tt.in); got.Action != tt.want || got.Rule != tt.rule {
				t.Errorf("%+v, want %s by %s", got, tt.want, tt.rule)
			}
		})
	}
}

// The rules that are extended stay as they are, and two files stack.
func TestExtendLeavesRules(t *testing.T) {
	t.Parallel()
	base := defaultRules(t)
	in := Input{Stage: Rcpt, Code: 550, Text: "zzz yyy"}
	first, err := base.Extend("a.yaml", strings.NewReader("words: {w: zzz}\nrules: [{name: a, text: ['{w}'], action: retry, why: x}]"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := first.Extend("b.yaml", strings.NewReader("rules: [{name: b, text: ['{w} yyy'], action: suppress, reach: campaign, why: x}]"))
	if err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]*Rules{"unknown-5xx": base, "a": first, "b": second} {
		if got := r.Judge(in); got.Rule != want {
			t.Errorf("%+v, want rule %s", got, want)
		}
	}
	if got := second.Judge(in); got.Reach != Campaign || got.Origin != "b.yaml:1" || got.Why != "x" {
		t.Errorf("%+v", got)
	}
	if e := second.Explain(in); e.Phrase != "{w} yyy" || e.Text != " zzz yyy " {
		t.Errorf("%+v", e)
	}
}

func TestExtendErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ file, want string }{
		"not YAML":       {"rules: [", "mine.yaml: not YAML: line 1"},
		"two documents":  {"drop: []\n---\ndrop: []", "mine.yaml: a second document"},
		"no mapping":     {"- a", "mine.yaml:1: want keys and values"},
		"unknown key":    {"\nrulez: []", `mine.yaml:2: unknown key "rulez": want words, hosts, drop or rules`},
		"twice":          {"drop: []\ndrop: []", `mine.yaml:2: the key "drop" is given twice`},
		"no list":        {"rules: {}", "mine.yaml:1: rules: want a list"},
		"no rule":        {"rules: [x]", "mine.yaml:1: want keys and values"},
		"drop nothing":   {"drop: [nobody]", `mine.yaml:1: drop: there is no rule "nobody"`},
		"no name":        {"rules: [{action: retry, why: x}]", `mine.yaml:1: name ""`},
		"odd name":       {"rules: [{name: A b, action: retry, why: x}]", `mine.yaml:1: rule A b: name "A b": want lower case`},
		"name taken":     {"rules:\n- {name: a, action: retry, why: x}\n- {name: a, action: retry, why: x}", "mine.yaml:3: rule a: the name is taken by line 2"},
		"shipped name":   {"rules: [{name: listed, action: retry, why: x}]", "mine.yaml:1: rule listed: the name is a shipped rule's"},
		"no action":      {"rules: [{name: a, why: x}]", "mine.yaml:1: rule a: no action"},
		"no why":         {"rules: [{name: a, action: retry}]", "mine.yaml:1: rule a: no why"},
		"action":         {"rules: [{name: a, why: x, action: bounce}]", `mine.yaml:1: rule a: value "bounce": want retry, retry_slow,`},
		"reach":          {"rules: [{name: a, why: x, action: retry, reach: world}]", `rule a: value "world": want recipient, message,`},
		"stage":          {"rules: [{name: a, why: x, action: retry, stage: [rcpt, quit]}]", `rule a: stage "quit": want connect, ehlo,`},
		"code":           {"rules: [{name: a, why: x, action: retry, code: 250}]", `rule a: code "250": want 4xx, 5xx or`},
		"code word":      {"rules: [{name: a, why: x, action: retry, code: 3xx}]", `rule a: code "3xx": want 4xx, 5xx or`},
		"status":         {"rules: [{name: a, why: x, action: retry, status: 5.7}]", `rule a: status "5.7": want a form like`},
		"status class":   {"rules: [{name: a, why: x, action: retry, status: 2.7.1}]", `rule a: status "2.7.1"`},
		"status range":   {"rules: [{name: a, why: x, action: retry, status: 5.7.9-1}]", `rule a: status "5.7.9-1"`},
		"status subject": {"rules: [{name: a, why: x, action: retry, status: 5.x.1}]", `rule a: status "5.x.1"`},
		"preset":         {"rules: [{name: a, why: x, action: retry, preset: aws}]", `rule a: preset "aws": want nhn, ses,`},
		"error":          {"rules: [{name: a, why: x, action: retry, error: boom}]", `rule a: error "boom": want certificate,`},
		"error and code": {"rules: [{name: a, why: x, action: retry, error: reset, code: 4xx}]", "rule a: error and code or status exclude each other"},
		"known":          {"rules: [{name: a, why: x, action: retry, known: maybe}]", `rule a: value "maybe": want true, false`},
		"key":            {"rules: [{name: a, why: x, action: retry, texts: [x]}]", `rule a: unknown key "texts": want name,`},
		"empty text":     {"rules: [{name: a, why: x, action: retry, text: ''}]", "rule a: want one text"},
		"no such word":   {"rules: [{name: a, why: x, action: retry, text: '{nobody} x'}]", `rule a: phrase "{nobody} x": no word {nobody} is defined`},
		"open group":     {"rules: [{name: a, why: x, action: retry, text: 'a (b'}]", "a ( without its )"},
		"closed group":   {"rules: [{name: a, why: x, action: retry, text: 'a b) c'}]", "a ) without its ("},
		"glued group":    {"rules: [{name: a, why: x, action: retry, text: '(un|in)known'}]", `no space after the ) before "known"`},
		"glued word":     {"rules: [{name: a, why: x, action: retry, text: 'black(list|ed)'}]", `no space before the ( after "black"`},
		"star inside":    {"rules: [{name: a, why: x, action: retry, text: 'bl*ck'}]", `a * may only end a word`},
		"short star":     {"rules: [{name: a, why: x, action: retry, text: 'bl*'}]", "want 3 letters or more before a *"},
		"begins open":    {"rules: [{name: a, why: x, action: retry, text: '... full'}]", "begins with ..., or may be nothing"},
		"maybe nothing":  {"rules: [{name: a, why: x, action: retry, text: '(full|)'}]", "begins with ..., or may be nothing"},
		"many gaps":      {"rules: [{name: a, why: x, action: retry, text: 'a ... b ... c ... d'}]", `"..." more than 2 times`},
		"host":           {"rules: [{name: a, why: x, action: retry, text: 'see www.example.com'}]", "one of those things that are left out"},
		"cjk group":      {"rules: [{name: a, why: x, action: retry, text: '(없는) 사용자'}]", "no ( ) or * in scripts without spaces"},
		"cjk letter":     {"rules: [{name: a, why: x, action: retry, text: '없|사용자'}]", "want two letters or more"},
		"deep":           {"rules: [{name: a, why: x, action: retry, text: '" + strings.Repeat("(", 20) + "a" + strings.Repeat(")", 20) + "'}]", "groups 11 deep"},
		"long":           {"rules: [{name: a, why: x, action: retry, text: '" + strings.Repeat("a ", 700) + "'}]", "longer than 600 words"},
		"many rules":     {"rules:\n" + strings.Repeat("- {}\n", maxRules+1), "mine.yaml:2002: more than 2000 rules"},
		"many phrases":   {"rules: [{name: a, why: x, action: retry, text: [" + strings.Join(manyWords(), ", ") + "]}]", "more than 5000 different phrases"},
		"large":          {strings.Repeat("#", maxFile+1), "mine.yaml: larger than"},
	}
	base := defaultRules(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := extend(base, tt.file)
			if r != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// manyWords are more phrases than all files may have together.
func manyWords() []string {
	out := make([]string, maxPhrases+1)
	for i := range out {
		out[i] = fmt.Sprintf("w%d", i)
	}
	return out
}

func TestExtendReportsAll(t *testing.T) {
	t.Parallel()
	_, err := extend(defaultRules(t), "rules:\n- {name: a, action: x, why: y}\n- {name: b, action: retry, why: y, stage: z}\n")
	for _, want := range []string{"mine.yaml:2: rule a", "mine.yaml:3: rule b"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	broken := errors.New("broken disk")
	if _, err := defaultRules(t).Extend("mine.yaml", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	if r, err := Load(""); err != nil || len(r.rules) != len(defaultRules(t).rules) {
		t.Errorf("no file: %v", err)
	}
	mine := filepath.Join(t.TempDir(), "mine.yaml")
	if _, err := Load(mine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v", err, fs.ErrNotExist)
	}
	if err := os.WriteFile(mine, []byte("rules: [{name: mine, code: 550, action: retry, why: x}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Load(mine)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Judge(Input{Code: 550}); got.Rule != "mine" || got.Origin != mine+":1" {
		t.Errorf("%+v", got)
	}
}

func TestPhrases(t *testing.T) {
	t.Parallel()
	tests := []struct {
		phrase, text string
		want         bool
	}{
		{"user unknown", "the user unknown here", true},
		{"user unknown", "user is unknown", false},
		{"user unknown", "superuser unknown", false},
		{"user unknown", "user unknowns", false},
		{"User-Unknown", "user unknown", true},
		{"user (is|) unknown", "user is unknown", true},
		{"user (is|) unknown", "user unknown", true},
		{"user (is|) unknown", "user was unknown", false},
		{"(no (such|one)|unknown) user", "no one user", true},
		{"(no (such|one)|unknown) user", "unknown user", true},
		{"(no (such|one)|unknown) user", "such user", false},
		{"black* listed", "blackly listed", true},
		{"blacklist*", "blacklisted", true},
		{"blacklist*", "blacklis", false},
		{"quota ... exceed*", "quota of 5 MB has been exceeded", true},
		{"quota ... exceed*", "exceeded the quota", false},
		{"quota ... full", "quota full", true},
		{"quota ... full", "quota " + strings.Repeat("x ", maxGap) + "full", true},
		{"quota ... full", "quota " + strings.Repeat("x ", maxGap+1) + "full", false},
		{"(spam|(junk|bulk) mail)", "bulk mail", true},
		{"doesn't exist", "it doesnt exist", true},
		{"없는 사용자", "그런없는사용자입니다", true},
		{"사용자 ... 없음|계정 ... 없음", "계정이 없음", true},
		{"계정 ... 없음", "없음 계정", false},
	}
	for _, tt := range tests {
		x := newIndex()
		id, err := x.add(tt.phrase, tt.phrase)
		if err != nil {
			t.Errorf("%q: %v", tt.phrase, err)
			continue
		}
		text, _ := plainText(tt.text, nil)
		if got := x.search(text).has(int32(id)); got != tt.want {
			t.Errorf("%q in %q: %v", tt.phrase, tt.text, got)
		}
	}
}

// A phrase made to be slow, on a text made for it.
func TestPhraseIsBounded(t *testing.T) {
	t.Parallel()
	r, err := extend(defaultRules(t), "rules: [{name: slow, text: 'aa ... aa ... bb', action: retry, why: x}]")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan Verdict, 1)
	go func() { done <- r.Judge(Input{Stage: Rcpt, Code: 450, Text: strings.Repeat("aa ", 5000)}) }()
	select {
	case v := <-done:
		if v.Rule != "unknown-4xx" {
			t.Errorf("%+v", v)
		}
	case <-time.After(time.Minute):
		t.Fatal("a minute for one verdict")
	}
}

func FuzzExtend(f *testing.F) {
	f.Add("words: {w: 'a|b'}\nhosts: [x]\ndrop: [listed]\nrules:\n- {name: a, stage: rcpt, code: 5xx, status: 5.7.1-9, text: ['{w} c* ... (d|)', 없는사용자], not: [e], action: fail, reach: stage, why: x}")
	f.Add("rules: &a [*a]")
	f.Add("rules: [{name: a, text: &t ['x y'], not: *t, action: retry, why: x}]")
	base := defaultRules(f)
	f.Fuzz(func(t *testing.T, file string) {
		r, err := base.Extend("mine.yaml", strings.NewReader(file))
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "mine.yaml") {
				t.Errorf("the error names no file: %v", err)
			}
			return
		}
		if v := r.Judge(Input{Stage: Rcpt, Code: 550, Enhanced: "5.7.1", Text: file}); v.Action == "" {
			t.Errorf("%+v", v)
		}
	})
}
