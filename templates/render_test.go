package templates

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicemail/sluice/internal/mail"
)

// everywhere has a variable at every kind of place.
var everywhere = map[string]string{
	"text and attributes": source("{{.a}} and {{.b}}", `<h1 title="{{.a}}" class='{{.b}}'>{{.a}}{{.b}}</h1><p>Dear  {{.a}} , <b>{{.b}}</b></p>
<title>{{.b}}</title><textarea>{{.a}}</textarea>`+strings.Repeat("static text ", 30)+`{{.c}}`),
	"urls": source("{{.a}}", `<a href="{{.a}}">go</a> <a href="https://x.example/{{.b}}?q={{.c}}&amp;e={{.email}}">there</a>
<a href="mailto:{{.email}}">write</a><img src='{{.b}}' alt="{{.c}}">`),
	"own text": source("x", `<p>{{.a}}{{.b}}{{.c}}`) + `{{define "text"}}{{.a}}
 {{.b}}
{{template "foot" .}}{{end}}{{define "foot"}}` + strings.Repeat("가나다라마바사 ", 20) + `{{.c}}{{end}}`,
	"pre and list": source("{{.a}}", `<pre> {{.a}}  {{.b}}</pre><ul><li>{{.b}}<li>{{.c}}</ul><table><tr><td>{{.a}}<td>{{.b}}</table>`),
	"script":       source("{{.c}}", `<script>var a = {{.a}}; var b = "{{.b}}"</script><p style="color:{{.c}}">x`),
	"conditions":   source("{{if eq .a \"x\"}}X{{else}}{{.b}}{{end}}", `{{if .a}}{{.a}}{{end}}{{with .b}}<p title={{.}}>{{$.c}}{{end}}{{default "없음" .c}}`),
	"text only": `{{define "subject"}}{{.a}}{{end}}{{define "text"}}{{.a}}{{.b}}
{{.c}} {{.email}}{{end}}`,
}

// bothWays renders a recipient from encoded pieces, where that is possible, and
// by executing the templates, and wants the same mail.
func bothWays(t testing.TB, p, slow *Program, r Recipient) {
	t.Helper()
	got, err := p.Render([]byte("prefix"), r)
	want, slowErr := slow.Render(nil, r)
	if (err == nil) != (slowErr == nil) || err != nil && err.Error() != slowErr.Error() {
		t.Fatalf("from pieces: %v; by templates: %v", err, slowErr)
	}
	if err != nil {
		if string(got) != "prefix" {
			t.Fatalf("a failed Render left %q", got)
		}
		return
	}
	got = bytes.TrimPrefix(got, []byte("prefix"))
	checkLines(t, got)
	checkLines(t, want)
	g, w := read(t, got), read(t, want)
	if g.subject != w.subject || g.text != w.text || g.html != w.html || len(g.header) != len(w.header) {
		t.Fatalf("from pieces:\n%q\n%q\n%q\nby templates:\n%q\n%q\n%q", g.subject, g.text, g.html, w.subject, w.text, w.html)
	}
	for name, value := range w.header {
		if strings.Join(g.header[name], "|") != strings.Join(value, "|") && name != "Content-Transfer-Encoding" {
			t.Fatalf("%s: from pieces %q, by templates %q", name, g.header[name], value)
		}
	}
}

// compileSlow compiles a program that always executes its templates.
func compileSlow(t testing.TB, source string, o Options) *Program {
	t.Helper()
	p := compile(t, source, o)
	p.fast = nil
	return p
}

var hostilePieces = []string{"a", " ", "  ", "\t", "\n", "\r\n", "\r", "김", "日本", "👩‍👩‍👧", "é", "e\u0301", "<", ">", "&", "&amp;", "&#0;", "&copy",
	`"`, "'", "+", "=", "=3D", "=?UTF-8?B?4pyT?=", ".", "..", "\n.\n", "\r\n.\r\n", "%41", "%", "%zz", "javascript:", "https://", "/", "?", "#",
	"</p>", "<!--", "-->", "</script>", "{{.a}}", "\u0085", "\u2028", "\ufeff", "\ufffd", "\u00a0", "\x01", "\x7f", "\x00", "\xff", "\xed\xa0\x80",
	"--=_alt", strings.Repeat("x", 80), strings.Repeat("y", 1200), "Bcc: x@y.example"}

func hostileText() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.Bool().Draw(t, "free") {
			return rapid.String().Draw(t, "text")
		}
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(hostilePieces), 1, 6).Draw(t, "pieces"), "")
	})
}

func TestFastEqualsTemplates(t *testing.T) {
	t.Parallel()
	for name, source := range everywhere {
		for _, eightBit := range []bool{false, true} {
			o := options(t, mail.Normal)
			o.AllowEightBit = eightBit
			o.Headers = []Header{{"X-Name", "{{.a}}!"}}
			p, slow := compile(t, source, o), compileSlow(t, source, o)
			wantFast := name != "script" && name != "conditions"
			if (p.fast != nil) != wantFast {
				t.Errorf("%s: fast = %v, want %v", name, p.fast != nil, wantFast)
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(rt *rapid.T) {
					values := make([]string, len(p.columns))
					for i := range values {
						values[i] = hostileText().Draw(rt, p.columns[i])
					}
					r := recipient(values...)
					r.Email = rapid.SampledFrom(hostileAddresses).Draw(rt, "email")
					bothWays(t, p, slow, r)
				})
			})
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add("김", "b", "c")
	f.Add("\r\nBcc: x@y.example", "<&\"'+>", ".\n.")
	f.Add("a\x00", "\xed\xa0\x80", "=?UTF-8?B?4pyT?=")
	f.Add("a", "--=_alt", strings.Repeat("가", 400))
	type pair struct{ fast, slow *Program }
	var pairs []pair
	for _, source := range everywhere {
		for _, eightBit := range []bool{false, true} {
			o := options(f, mail.Normal)
			o.AllowEightBit = eightBit
			pairs = append(pairs, pair{compile(f, source, o), compileSlow(f, source, o)})
		}
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, p := range pairs {
			bothWays(t, p.fast, p.slow, recipient(a, b, c))
		}
	})
}

// Whatever stands in a row, the header has the fields it has with a plain row.
func TestNoHeaderInjection(t *testing.T) {
	t.Parallel()
	o := options(t, mail.Normal)
	o.Headers = []Header{{"X-Name", "{{.a}}"}, {"List-Unsubscribe", "<https://u.example/{{.b}}>"}}
	p := compile(t, source("Hello {{.a}}", "<p>{{.a}} {{.b}}"), o)
	want := len(read(t, render(t, p, recipient("a", "b"))).header)
	for _, hostile := range []string{"a\r\nBcc: x@y.example", "a\nBcc: x@y.example", "a\rBcc: x", "a\x00b", "a\u0085b", "a\x1bb"} {
		for i, name := range []string{"a", "b"} {
			values := []string{"a", "b"}
			values[i] = hostile
			out, err := p.Render(nil, recipient(values...))
			var v *VariableError
			if !errors.As(err, &v) || v.Variable != name {
				t.Errorf("%q as %s: %v; want a VariableError", hostile, name, err)
			}
			if len(out) > 0 {
				t.Errorf("%q as %s: %d octets came out", hostile, name, len(out))
			}
		}
	}
	for _, hostile := range []string{"a> , <https://evil.example", "a b", `a"b`, "가"} {
		if _, err := p.Render(nil, recipient("a", hostile)); err == nil {
			t.Errorf("%q in List-Unsubscribe was taken", hostile)
		}
	}
	for _, odd := range []string{"=?UTF-8?Q?=0D=0ABcc:_x?=", "Bcc: x@y.example", strings.Repeat("가", 200), "a: b"} {
		m := read(t, render(t, p, recipient(odd, "b")))
		if len(m.header) != want || m.subject != "Hello "+odd {
			t.Errorf("%q: %d header fields, want %d; subject %q", odd, len(m.header), want, m.subject)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	p := compile(t, source("{{.a}}", "{{.b}}"), options(t, mail.Normal))
	long := strings.Repeat("x", 999)
	for name, tc := range map[string]struct {
		change   func(*Recipient)
		variable string
		fault    string
	}{
		"no value":             {func(r *Recipient) { r.Values[1] = "" }, "b", "empty"},
		"white space":          {func(r *Recipient) { r.Values[1] = " \t\n" }, "b", "empty"},
		"not utf-8":            {func(r *Recipient) { r.Values[1] = "\xff" }, "b", "UTF-8"},
		"lone surrogate":       {func(r *Recipient) { r.Values[1] = "\xed\xa0\x80" }, "b", "UTF-8"},
		"nul":                  {func(r *Recipient) { r.Values[1] = "a\x00b" }, "b", "NUL"},
		"line break in header": {func(r *Recipient) { r.Values[0] = "a\nb" }, "a", "line break"},
		"long subject":         {func(r *Recipient) { r.Values[0] = long }, "", "subject is longer"},
		"too few values":       {func(r *Recipient) { r.Values = r.Values[:1] }, "", "1 values for the columns a, b"},
		"address":              {func(r *Recipient) { r.Email = "a b@c.example" }, "email", "not allowed"},
		"no address":           {func(r *Recipient) { r.Email = "" }, "email", "no @"},
		"address with a break": {func(r *Recipient) { r.Email = "a@b.example\r\nBcc: x" }, "email", "not a host name"},
		"no message-id":        {func(r *Recipient) { r.MessageID = "" }, "", "Message-ID"},
		"message-id break":     {func(r *Recipient) { r.MessageID = "a\r\nb@c" }, "", "Message-ID"},
		"message-id bracket":   {func(r *Recipient) { r.MessageID = "a>@c" }, "", "Message-ID"},
		"no date":              {func(r *Recipient) { r.Date = time.Time{} }, "", "date is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := recipient("x", "y")
			tc.change(&r)
			_, err := p.Render(nil, r)
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Fatalf("got %v; want an error with %q", err, tc.fault)
			}
			var v *VariableError
			if errors.As(err, &v) != (tc.variable != "") || v != nil && v.Variable != tc.variable {
				t.Errorf("%#v; want the variable %q to be blamed", err, tc.variable)
			}
			if strings.Contains(err.Error(), "kim.minjun") {
				t.Error("the error shows the address")
			}
		})
	}
	o := options(t, mail.Normal)
	o.MaxSize = 2000
	small := compile(t, source("s", "{{.a}}"), o)
	if _, err := small.Render(nil, recipient(strings.Repeat("x", 2000))); err == nil || !strings.Contains(err.Error(), "more than 2000") {
		t.Errorf("a message over the limit: %v", err)
	}
}

// In an ad whose subject is decided by the row, every subject is checked.
func TestLabelOfEveryAd(t *testing.T) {
	t.Parallel()
	p := compile(t, source(`{{if eq .name "Sample"}}(AD) x{{else}}x{{end}}`, adHTML), options(t, mail.Ad))
	if _, err := p.Render(nil, recipient("other")); err == nil || !strings.Contains(err.Error(), "has to start with") {
		t.Errorf("an ad without its label: %v", err)
	}
}

func TestHeaderFields(t *testing.T) {
	t.Parallel()
	o := options(t, mail.Normal)
	o.ReplyTo = &Mailbox{"Help \"desk\"", address(t, "help@mulgil.example")}
	o.Headers = []Header{{"List-Unsubscribe", "<https://u.example/{{.token}}>, <mailto:out@mulgil.example>"}, {"X-Campaign", "봄 세일"}}
	p := compile(t, source("s", "x"), o)
	r := recipient("tok1")
	r.Email = "a@예시.한국"
	m := read(t, render(t, p, r))
	for name, want := range map[string]string{
		"To":               "a@xn--vv4b11d.xn--3e0b707e",
		"Message-Id":       "<" + r.MessageID + ">",
		"Date":             "Mon, 02 Mar 2026 09:30:00 +0900",
		"Mime-Version":     "1.0",
		"Reply-To":         `"Help \"desk\"" <help@mulgil.example>`,
		"List-Unsubscribe": "<https://u.example/tok1>, <mailto:out@mulgil.example>",
		"X-Campaign":       "=?UTF-8?B?67SEIOyEuOydvA==?=",
	} {
		if got := m.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	from, err := m.header.AddressList("From")
	if err != nil || from[0].Name != "물길상점" || from[0].Address != "hello@mulgil.example" {
		t.Errorf("From: %v, %v", from, err)
	}
}

func TestMessageID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, campaign := range []string{"a", "b", "a1", ""} {
		for line := range 1000 {
			id := MessageID(campaign, line, "x.example")
			if seen[id] || id != MessageID(campaign, line, "x.example") {
				t.Fatalf("%s line %d: %s is not unique and stable", campaign, line, id)
			}
			seen[id] = true
		}
	}
}

// The longest of everything: lines stay within what the wire takes, and a reader finds
// the same fields again.
func TestLongHeaderFields(t *testing.T) {
	t.Parallel()
	o := options(t, mail.Normal)
	o.From.Name = strings.Repeat("가", 85)
	o.ReplyTo = &Mailbox{strings.Repeat("a", 255), address(t, "help@mulgil.example")}
	for i := range maxHeaders - 1 {
		o.Headers = append(o.Headers, Header{fmt.Sprintf("X-Field-%d", i), strings.Repeat("word ", 5*i) + "end"})
	}
	o.Headers = append(o.Headers, Header{"X-Url", "<https://x.example/" + strings.Repeat("y", 900) + ">"})
	p := compile(t, source("{{.a}}", "x"), o)
	for _, subject := range []string{strings.Repeat("가", 330), strings.Repeat("x", 990), strings.Repeat("x ", 490) + "x"} {
		r := recipient(subject)
		r.Email = strings.Repeat("a", 64) + "@" + strings.Repeat(strings.Repeat("b", 61)+".", 3) + "co"
		m := read(t, render(t, p, r)) // render wants lines of 998 at most
		if m.subject != subject || m.header.Get("To") != r.Email || m.header.Get("X-Field-49") != strings.Repeat("word ", 245)+"end" {
			t.Errorf("subject %q, To %q, X-Field-49 %q", m.subject, m.header.Get("To"), m.header.Get("X-Field-49"))
		}
		if len(m.header) < maxHeaders {
			t.Errorf("%d header fields", len(m.header))
		}
	}
}

// Many workers render with one program: each mail holds its own recipient's
// values and nothing of another's.
func TestRenderConcurrently(t *testing.T) {
	t.Parallel()
	for _, source := range everywhere {
		p := compile(t, source, options(t, mail.Normal))
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				token := strings.Repeat(string(rune('a'+g)), 9)
				values := make([]string, len(p.columns))
				for i := range values {
					values[i] = token
				}
				want := render(t, p, recipient(values...))
				for range 50 {
					if !bytes.Equal(render(t, p, recipient(values...)), want) {
						t.Error("a message differs from the one before")
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestRenderAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	p := benchProgram(t, false)
	r := benchRecipient()
	buf := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(200, func() { buf, _ = p.Render(buf[:0], r) }); n > 0 {
		t.Errorf("%v allocations a message, want none", n)
	}
}

// A row that knows the campaign's boundary, from an earlier mail say, cannot end
// a part early: with 8bit its mail is encoded instead.
func TestBoundaryInARow(t *testing.T) {
	t.Parallel()
	o := options(t, mail.Normal)
	o.AllowEightBit = true
	s := source("s", "<p>{{.a}}</p>")
	p := compile(t, s, o)
	first := render(t, p, recipient("x"))
	if !bytes.Contains(first, []byte("Content-Transfer-Encoding: 8bit")) {
		t.Fatal("8bit is not used")
	}
	at := bytes.Index(first, []byte(boundaryPrefix))
	line, _, _ := bytes.Cut(first[at:], []byte("\r\n"))
	hostile := "x\n" + string(line) + "--\nInjected: y"
	for _, q := range []*Program{p, compileSlow(t, s, o)} {
		out := render(t, q, recipient(hostile))
		if bytes.Contains(out, []byte("8bit")) {
			t.Error("a message that holds its boundary left as 8bit")
		}
		if m := read(t, out); len(m.kinds) != 2 || !strings.Contains(m.html, "Injected: y\r\n") && !strings.Contains(m.html, "Injected: y</p>") {
			t.Errorf("parts %q, html %q", m.kinds, m.html)
		}
	}
}

// Whether a link's text repeats its target decides what the text part shows, so
// here a message cannot be put together from pieces.
func TestValuesThatDecideTheLayout(t *testing.T) {
	t.Parallel()
	p := compile(t, source("s", `<p><a href="{{.a}}">{{.b}}</a></p>`), options(t, mail.Normal))
	for _, tc := range []struct{ a, b, want string }{
		{"https://a.example/", "https://a.example/", "https://a.example/\r\n"},
		{"https://a.example/가", "https://a.example/가", "https://a.example/가 (https://a.example/%ea%b0%80)\r\n"},
		{"https://a.example/", "here", "here (https://a.example/)\r\n"},
		{"javascript:alert(1)", "here", "here (#ZgotmplZ)\r\n"},
	} {
		if got := read(t, render(t, p, recipient(tc.a, tc.b))).text; got != tc.want {
			t.Errorf("%s, %s: text %q, want %q", tc.a, tc.b, got, tc.want)
		}
	}
}
