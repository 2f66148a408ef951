package smtp

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestReplyReader(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in   string
		want Reply
	}{
		"plain":                     {"250 ok\r\n", Reply{250, "", "ok"}},
		"no text":                   {"250\r\n", Reply{250, "", ""}},
		"no text, space":            {"250 \r\n", Reply{250, "", ""}},
		"enhanced":                  {"550 5.1.1 no such user\r\n", Reply{550, "5.1.1", "no such user"}},
		"enhanced alone":            {"550 5.1.1\r\n", Reply{550, "5.1.1", ""}},
		"enhanced, long":            {"550 5.7.606 banned\r\n", Reply{550, "5.7.606", "banned"}},
		"enhanced of another class": {"250 5.1.1 odd\r\n", Reply{250, "", "5.1.1 odd"}},
		"not enhanced":              {"550 5.1.1234 odd\r\n", Reply{550, "", "5.1.1234 odd"}},
		"version number":            {"250 2.1 beta\r\n", Reply{250, "", "2.1 beta"}},
		"multi-line":                {"250-one\r\n250-two\r\n250 three\r\n", Reply{250, "", "one two three"}},
		"multi-line, enhanced":      {"421-4.7.0 slow\r\n421-4.7.0 down\r\n421 4.7.0 please\r\n", Reply{421, "4.7.0", "slow down please"}},
		"another code later":        {"550-5.1.1 a\r\n550 5.2.2 b\r\n", Reply{550, "5.1.1", "a 5.2.2 b"}},
		"last line bare":            {"250-a\r\n250\r\n", Reply{250, "", "a"}},
		"bare CR in the text":       {"250 a\rb\r\n", Reply{250, "", "a?b"}},
		"NUL, escape":               {"250 a\x00\x1b[2J\r\n", Reply{250, "", "a??[2J"}},
		"8-bit":                     {"550 \xb0\xa1 없음\r\n", Reply{550, "", "?? 없음"}},
		"tab":                       {"250 a\tb\r\n", Reply{250, "", "a b"}},
		"line separator":            {"250 a\u2028b\r\n", Reply{250, "", "a?b"}},
		"code only, class 3":        {"354\r\n", Reply{354, "", ""}},
		"100 lines":                 {strings.Repeat("250-\r\n", 99) + "250 x\r\n", Reply{250, "", "x"}},
	} {
		for slicing, r := range map[string]io.Reader{
			"whole": strings.NewReader(tc.in), "octets": iotest.OneByteReader(strings.NewReader(tc.in)),
		} {
			got, err := newReplyReader(r).read()
			if err != nil {
				t.Errorf("%s, %s: %v", name, slicing, err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s, %s: (-want +got)\n%s", name, slicing, d)
			}
		}
	}
}

func TestReplyReaderRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"no code":         "hello\r\n",
		"empty line":      "\r\n",
		"short code":      "25\r\n",
		"class 1":         "100 ok\r\n",
		"class 6":         "600 ok\r\n",
		"letters":         "2x0 ok\r\n",
		"no separator":    "250ok\r\n",
		"tab":             "250\tok\r\n",
		"codes differ":    "250-a\r\n251 b\r\n",
		"bare LF":         "250 a\n",
		"line of 4097":    "250 " + strings.Repeat("x", 4091) + "\r\n",
		"101 lines":       strings.Repeat("250-\r\n", 100) + "250 x\r\n",
		"endless lines":   strings.Repeat("250-x\r\n", 1000),
		"leading space":   " 250 ok\r\n",
		"text before CR":  "250 a\r\r\n\n",
		"NUL in the code": "2\x000 ok\r\n",
	} {
		r, err := newReplyReader(strings.NewReader(in)).read()
		if name == "text before CR" { // a CR more is text; what follows is not a reply
			rr := newReplyReader(strings.NewReader(in))
			_, _ = rr.read()
			_, err = rr.read()
		}
		if !errors.Is(err, ErrBotched) {
			t.Errorf("%s: %+v, %v; want ErrBotched", name, r, err)
		}
	}
	for in, want := range map[string]error{"": io.EOF, "250 ok": io.ErrUnexpectedEOF, "250-ok\r\n": io.ErrUnexpectedEOF} {
		if _, err := newReplyReader(strings.NewReader(in)).read(); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
	if r, err := newReplyReader(strings.NewReader("250 " + strings.Repeat("가", 1300) + "\r\n")).read(); err != nil ||
		len(r.Text) > maxReplyText || !utf8.ValidString(r.Text) || len(r.Text) < maxReplyText-3 {
		t.Errorf("long text: %d octets, %v", len(r.Text), err)
	}
}

// However much a relay sends, what is kept of it is small.
func TestReplyReaderMemory(t *testing.T) {
	t.Parallel()
	var given int64
	endless := readerFunc(func(b []byte) (int, error) { given += int64(len(b)); clear(b); return len(b), nil })
	if _, err := newReplyReader(endless).read(); !errors.Is(err, ErrBotched) || given > maxReplyLine {
		t.Errorf("%v after %d octets", err, given)
	}
}

func FuzzReplyReader(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 2.0.0 b\r\n", "xyz\r\n250 ok\r\n", "250 a\rb\n\r\n", "550 5.1.1\r\n4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		whole, sliced := newReplyReader(strings.NewReader(in)), newReplyReader(iotest.OneByteReader(strings.NewReader(in)))
		for {
			a, aerr := whole.read()
			b, berr := sliced.read()
			if a != b || (aerr == nil) != (berr == nil) {
				t.Fatalf("whole %+v, %v; sliced %+v, %v", a, aerr, b, berr)
			}
			if aerr != nil {
				return
			}
			if a.Code < 200 || a.Code > 599 || len(a.Text) > maxReplyText || !utf8.ValidString(a.Text) ||
				strings.ContainsAny(a.Text+a.Enhanced, "\r\n\x00\x1b") || a.Enhanced != "" && int(a.Enhanced[0]-'0') != a.Code/100 {
				t.Fatalf("%+v", a)
			}
		}
	})
}

func TestParseExtensions(t *testing.T) {
	t.Parallel()
	nhn := strings.Split("smtp-mail.nhncloudservice.com Hello a [10.162.169.253])|PIPELINING|ENHANCEDSTATUSCODES|8BITMIME|STARTTLS|AUTH LOGIN PLAIN|AUTH=LOGIN PLAIN", "|")
	for name, tc := range map[string]struct {
		lines []string
		want  Extensions
	}{
		"nhn":           {nhn, Extensions{Pipelining: true, EightBit: true, StartTLS: true, Auth: []string{"LOGIN", "PLAIN"}}},
		"greeting only": {[]string{"PIPELINING"}, Extensions{}},
		"all": {strings.Split("r|size 35882577|SMTPUTF8|chunking|DSN|LIMITS MAILMAX=20 RCPTMAX=100 X=1|8bitmime|HELP", "|"),
			Extensions{HasSize: true, Size: 35882577, SMTPUTF8: true, Chunking: true, DSN: true, EightBit: true, MailMax: 20, RcptMax: 100}},
		"odd": {strings.Split("r|SIZE|SIZE abc|SIZE -5|LIMITS MAILMAX=x MAILMAX=-1||AUTH|AUTH=", "|"), Extensions{HasSize: true}},
	} {
		if d := cmp.Diff(tc.want, parseExtensions(tc.lines)); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
	if d := cmp.Diff(Extensions{}, parseExtensions(nil)); d != "" {
		t.Error(d)
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	e := &Error{Stage: StageRcpt, Reply: Reply{550, "5.1.1", "<hong.gildong@naver.com>: no such user, see a@b"}, Err: errClosing}
	if got, want := e.Error(), `rcpt: closed by the relay: relay said "550 5.1.1 <h***@naver.com>: no such user, see a***@b"`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for s, want := range map[string]string{"@": "***@", "a@": "a***@", "x@y@z": "x***@y***@z", "none": "none"} {
		if got := maskMailboxes(s); got != want {
			t.Errorf("mask %q = %q, want %q", s, got, want)
		}
	}
}
