package smtp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// wireContent is what content looks like between DATA and the next command, written the
// way a session writes it, in chunks of the given size.
func wireContent(content []byte, dots bool, size int) []byte {
	var out []byte
	rest := content
	for len(rest) > size {
		var part []byte
		part, rest = cutLines(rest, size)
		out = appendStuffed(out, part, dots)
	}
	return appendDot(appendStuffed(out, rest, dots), content)
}

func TestContentWriter(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\r\n":             "a\r\n.\r\n",
		"a":                 "a\r\n.\r\n",
		".":                 "..\r\n.\r\n",
		".\r\n":             "..\r\n.\r\n",
		"a\r\n.\r\nb\r\n":   "a\r\n..\r\nb\r\n.\r\n",
		"..a\r\n.b":         "...a\r\n..b\r\n.\r\n",
		"\r\n":              "\r\n.\r\n",
		"a\r\n\r\n\r\n":     "a\r\n\r\n\r\n.\r\n",
		"a.\r\nb. c\r\n":    "a.\r\nb. c\r\n.\r\n",
		"trailing \t \r\nx": "trailing \t \r\nx\r\n.\r\n",
	} {
		dots, _, err := checkContent([]byte(in))
		if err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if got := string(wireContent([]byte(in), dots, 1<<16)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestCheckContent(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	for in, ok := range map[string]bool{
		long: true, long + "\r\n" + long + "\r\n": true, long + "x": false, "a\r\n" + long + "x\r\nb": false,
		"":            false,
		"a\nb":        false,
		"a\rb\nc":     false, // as many of one as of the other
		"\n\r":        false,
		"\n":          false,
		"a\rb":        false,
		"a\r":         false,
		"a\r\r\n":     false,
		"a\n.\nb":     false,
		"a\r.\rb\r\n": false,
		"a\n.\r\nb":   false,
		"a\r\n.\rb":   false,
		"a\r\n.\nb":   false,
		"a\x00b":      false,
		strings.Repeat("y", 40) + "\x00" + strings.Repeat("y", 40): false,
		"\x01\x80\xff": true,
	} {
		if _, _, err := checkContent([]byte(in)); (err == nil) != ok || err != nil && !errors.Is(err, ErrContent) {
			t.Errorf("%.30q…: %v, want ok %v", in, err, ok)
		}
	}
	for i := range 80 { // every position within and after the 32-octet steps
		b := bytes.Repeat([]byte("a"), 80)
		if hasEightBit(b) {
			t.Fatal("saw what is not there")
		}
		b[i] = 0x80
		if !hasEightBit(b) {
			t.Fatalf("8-bit octet at %d missed", i)
		}
	}
}

// Whatever evenLines is sure of, checkLines says too; and it is sure of base64.
func TestEvenLines(t *testing.T) {
	t.Parallel()
	pieces := []string{"\r\n", "\r\n", "a", "bc", ".", "\r", "\n", "a\r\n", "bb\r\n", "a\r\n"}
	rnd := rand.New(rand.NewPCG(1, 2))
	sure := 0
	for range 200_000 {
		var b []byte
		for range 1 + rnd.IntN(12) {
			b = append(b, pieces[rnd.IntN(len(pieces))]...)
		}
		dots, ok := evenLines(b)
		if !ok {
			continue
		}
		sure++
		if want, err := checkLines(b); err != nil || dots != want {
			t.Fatalf("%q: dots %v, want %v (%v)", b, dots, want, err)
		}
	}
	if sure < 10_000 {
		t.Errorf("sure of %d contents only", sure)
	}
	body := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("z", 76)+"\r\n", 9) + "zz==\r\n")
	if _, ok := evenLines(body); !ok {
		t.Error("not sure of base64")
	}
}

// lenientMessages counts the messages a relay sees that takes CR, LF and CRLF alike for
// a line end, and returns the first one.
func lenientMessages(wire []byte) (int, string) {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(wire))
	n, first, body := 0, "", []string{}
	for line := range strings.SplitAfterSeq(text, "\n") {
		if line == ".\n" {
			if n++; n == 1 {
				first = strings.Join(body, "")
			}
			body = nil
			continue
		}
		if line != "" {
			body = append(body, strings.TrimPrefix(line, "."))
		}
	}
	if len(body) > 0 {
		n = -1 // something after the end
	}
	return n, first
}

// strictMessages is the same for a relay that ends a message at CRLF.CRLF only.
func strictMessages(wire []byte) (int, string) {
	head, tail, found := bytes.Cut(append([]byte("\r\n"), wire...), []byte("\r\n.\r\n"))
	if !found || len(tail) > 0 {
		return -1, ""
	}
	return 1, strings.ReplaceAll(string(head), "\r\n.", "\r\n")[2:] + "\r\n"
}

func FuzzContent(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\nb\r\n", ".\r\n", "a\n.\nb", "a\r.\rb", "\r\n.\r", "x\r\n..\r\n.", "a\x00"} {
		f.Add([]byte(s), uint16(1100))
	}
	f.Fuzz(func(t *testing.T, content []byte, size uint16) {
		before := bytes.Clone(content)
		dots, eightBit, err := checkContent(content)
		if err != nil {
			return
		}
		wire := wireContent(content, dots, 1010+int(size))
		if !bytes.Equal(before, content) {
			t.Fatal("the content was changed")
		}
		want := string(content)
		if !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		if n, got := strictMessages(wire); n != 1 || got != want {
			t.Fatalf("strict: %d messages, %q; want %q", n, got, want)
		}
		if n, got := lenientMessages(wire); n != 1 || got != strings.ReplaceAll(want, "\r\n", "\n") {
			t.Fatalf("lenient: %d messages, %q; want %q", n, got, want)
		}
		if eightBit != bytes.ContainsFunc(content, func(r rune) bool { return r > 0x7f }) {
			t.Fatalf("8-bit %v for %q", eightBit, content)
		}
	})
}

func TestCheckMailbox(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{
		"hong@example.com": true, "a.b+c@xn--vv4b11d.xn--3e0b707e": true, "root@localhost": true, "!#$%&'*+-/=?^_`{|}~@a.b": true,
		strings.Repeat("a", 64) + "@b.c": true, strings.Repeat("a", 65) + "@b.c": false,
		"a@" + strings.Repeat("b", 63) + ".c": true, "a@" + strings.Repeat("b", 64) + ".c": false,
		"a@" + strings.Repeat("b.", 130) + "c": false,
		"":                                     false, "@": false, "a@": false, "@b": false, "a": false, "a@b@c": false, "a b@c": false, "a@b c": false,
		`"a"@b`: false, "<a@b>": false, "a>@b": false, "a@b>": false, "a@b> SIZE=1": false, "a@b\r\nDATA": false, "a\x00@b": false,
		"a..b@c": false, ".a@c": false, "a.@c": false, "a@.c": false, "a@c.": false, "a@b..c": false, "a@-b": false, "a@b-.c": false,
		"한@b.c": false, "a@한.c": false, "a@[127.0.0.1]": false, "a@b_c": false, "(x)a@b": false, "a,b@c": false, "a\t@b": false,
	} {
		if err := checkMailbox(in); (err == nil) != ok || err != nil && !errors.Is(err, ErrEnvelope) {
			t.Errorf("%q: %v, want ok %v", in, err, ok)
		}
	}
}

func FuzzMailbox(f *testing.F) {
	for _, s := range []string{"a@b.c", `"a@b> ORCPT=x"@c`, "a@b>\r\nRCPT TO:<c@d", "a@b c", "é@b.c"} {
		f.Add(s)
	}
	wire := regexp.MustCompile(`\ARCPT TO:<[!#-'*+\-/-9=?A-Z^-~.]+@[A-Za-z0-9.-]+>\r\n\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if checkMailbox(s) != nil {
			return
		}
		session := &session{}
		session.appendRcpt(&slot{msg: Message{To: s}})
		if !wire.Match(session.out) || bytes.Count(session.out, []byte("@")) != 1 || len(session.out) > 512 {
			t.Fatalf("%q reached the wire as %q", s, session.out)
		}
	})
}
