package templates

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"
	"testing"
	"unicode/utf8"
)

// Pieces encoded one after the other are what a decoder reads as one document.
func FuzzQuoted(f *testing.F) {
	f.Add("abc ", "\n", " \t")
	f.Add(strings.Repeat("x", 74), "가나다", "=\n.")
	f.Add(strings.Repeat("가", 40), " ", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var out, want []byte
		for i, piece := range []string{a, b, c} {
			// A piece never holds a bare CR: values and templates are cleaned.
			crlf := appendCRLF(nil, []byte(strings.ReplaceAll(piece, "\r", "")))
			out = appendQuoted(out, crlf, i == 2)
			want = append(want, crlf...)
		}
		for _, line := range strings.Split(string(out), "\r\n") {
			if len(line) > 76 || strings.ContainsAny(line, "\r\n") || strings.HasSuffix(line, " ") || strings.HasSuffix(line, "\t") {
				t.Fatalf("line %q", line)
			}
		}
		got, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(out)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q decodes to %q, %v; want %q", out, got, err, want)
		}
	})
}

func TestQuotedKeepsCharactersTogether(t *testing.T) {
	t.Parallel()
	out := appendQuoted(nil, []byte(strings.Repeat("가나다a", 50)), true)
	for _, line := range strings.Split(string(out), "\r\n") {
		line = strings.TrimSuffix(line, "=")
		b, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(line)))
		if err != nil || !utf8.Valid(b) {
			t.Errorf("the line %q is not whole characters", line)
		}
	}
}

func TestBase64Lines(t *testing.T) {
	t.Parallel()
	for n := range 200 {
		src := bytes.Repeat([]byte{0xea}, n)
		out := appendBase64(nil, src)
		for _, line := range strings.Split(strings.TrimSuffix(string(out), "\r\n"), "\r\n") {
			if len(line) > 76 {
				t.Fatalf("a line of %d characters", len(line))
			}
		}
		got, err := base64.StdEncoding.DecodeString(string(out))
		if err != nil || !bytes.Equal(got, src) {
			t.Fatalf("%d octets: %v", n, err)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		doc      string
		eightBit bool
		want     encoding
	}{
		"english":              {"hello world", false, quotedPrintable},
		"korean":               {"안녕하세요 여러분", false, base64Encoding},
		"korean, 8bit allowed": {"안녕하세요 여러분", true, eightBit},
		"long line":            {strings.Repeat("가", 400), true, base64Encoding},
		"boundary":             {"--=_altdeadbeef", true, quotedPrintable},
	} {
		if got := choose([]byte(tc.doc), tc.eightBit); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func FuzzSubject(f *testing.F) {
	for _, s := range []string{"hello", "(광고) 김민준님, 이번 달 소식이 도착했어요 — 놓치지 마세요 👩‍👩‍👧", "=?UTF-8?B?4pyT?=",
		strings.Repeat("long words ", 30), strings.Repeat("x", 300), "【물길】ご注文 20260105-0142 のお支払い", "a  b", "?= =?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || hasControl(s) {
			return
		}
		value := collapse([]byte(s))
		if len(value) == 0 {
			return
		}
		field := appendText(nil, "Subject", value)
		checkField(t, field)
		if got := unfold(t, field); got != "Subject: "+string(value) {
			t.Fatalf("%q reads %q", field, got)
		}
	})
}

// checkField wants lines of at most 76 characters and encoded-words of whole
// characters.
func checkField(t *testing.T, field []byte) {
	t.Helper()
	checkLines(t, append(bytes.Clone(field), "\r\n"...))
	for i, line := range strings.Split(strings.TrimSuffix(string(field), "\r\n"), "\r\n") {
		if len(line) > foldAt {
			t.Fatalf("a line of %d characters: %q", len(line), line)
		}
		if i > 0 && (line[0] != ' ' || strings.TrimSpace(line) == "") {
			t.Fatalf("continuation %q", line)
		}
		for _, word := range strings.Fields(line) {
			if !strings.HasPrefix(word, wordPrefix) {
				continue
			}
			decoded, err := new(mime.WordDecoder).Decode(word)
			if err != nil || len(word) > maxWord || !utf8.ValidString(decoded) || strings.ContainsRune(decoded, utf8.RuneError) && !strings.Contains(string(field), "77+9") {
				t.Fatalf("encoded-word %q: %q, %v", word, decoded, err)
			}
		}
	}
}

func unfold(t *testing.T, field []byte) string {
	t.Helper()
	line := strings.ReplaceAll(strings.TrimSuffix(string(field), "\r\n"), "\r\n ", " ")
	s, err := new(mime.WordDecoder).DecodeHeader(line)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMailbox(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "Hong", `Hong "G" \ D.`, "홍길동", strings.Repeat("홍길동 상점 ", 12), strings.Repeat("long ", 30), "=?x?=", "👩‍👩‍👧 family"} {
		field := appendMailbox(nil, "Reply-To", Mailbox{name, address(t, "a.very.long.address.for.replies@mulgil.example")})
		checkField(t, field)
		m := read(t, append(field, "Content-Transfer-Encoding: 8bit\r\nContent-Type: text/plain\r\n\r\n"...))
		list, err := m.header.AddressList("Reply-To")
		if err != nil || len(list) != 1 || list[0].Name != name || list[0].Address != "a.very.long.address.for.replies@mulgil.example" {
			t.Errorf("%q: %v, %v from %q", name, list, err, field)
		}
	}
}

func TestCustomHeader(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"<https://a.example/1>, <mailto:x@y.example>": "<https://a.example/1>, <mailto:x@y.example>",
		"봄 세일": "=?UTF-8?B?67SEIOyEuOydvA==?=",
	} {
		field, err := appendCustom(nil, "X-A", []byte(in))
		if err != nil || string(field) != "X-A: "+want+"\r\n" {
			t.Errorf("%q: %q, %v", in, field, err)
		}
	}
	// A URL is never cut or encoded, however long it is.
	url := "<https://a.example/" + strings.Repeat("x", 500) + ">"
	if field, err := appendCustom(nil, "List-Unsubscribe", []byte(url)); err != nil || !strings.Contains(string(field), url) {
		t.Errorf("long URL: %q, %v", field, err)
	}
}

// Whatever a name or a custom field holds, it stays one field, which reads as it was meant.
func FuzzFields(f *testing.F) {
	for _, s := range []string{"Hong", `Hong "G" \ D.`, "홍길동 상점", "a\r\nBcc: x@y.example", "=?UTF-8?B?4pyT?=", "<https://a.example/1>, <mailto:x@y.example>", "a  b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from := Mailbox{s, address(t, "help@mulgil.example")}
		if checkDisplayName(s) == nil {
			field := appendMailbox(nil, "From", from)
			checkField(t, field)
			m := read(t, append(field, "Content-Transfer-Encoding: 8bit\r\nContent-Type: text/plain\r\n\r\n"...))
			list, err := m.header.AddressList("From")
			if err != nil || len(m.header) != 3 || len(list) != 1 || list[0].Name != s || list[0].Address != from.Address.String() {
				t.Fatalf("%q reads %v, %v in %d fields", field, list, err, len(m.header))
			}
		}
		if checkHeaderNames([]Header{{"X-A", s}}) != nil {
			return
		}
		field, err := appendCustom(nil, "X-A", collapse([]byte(s)))
		if err != nil {
			return
		}
		checkLines(t, append(bytes.Clone(field), "\r\n"...))
		if got := unfold(t, field); got != "X-A: "+string(collapse([]byte(s))) {
			t.Fatalf("%q reads %q", field, got)
		}
	})
}
