package relay

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestContent(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 998)
	huge := strings.Repeat("y", 3*bufferSize)
	for name, tc := range map[string]struct {
		wire, want string // want is the content; the wire has a tail that is none of it
		id         string
		bad        content
	}{
		"empty":               {wire: ".\r\n", want: ""},
		"plain":               {wire: "a\r\nb\r\n.\r\n", want: "a\r\nb\r\n"},
		"stuffed":             {wire: "..\r\n...a\r\n.b\r\n.\r\n", want: ".\r\n..a\r\nb\r\n"},
		"LF dot LF":           {wire: "a\n.\nb\r\n.\r\n", want: "a\n.\nb\r\n", bad: content{bareLF: 2}},
		"LF dot CRLF":         {wire: "a\n.\r\nb\r\n.\r\n", want: "a\n.\r\nb\r\n", bad: content{bareLF: 1}},
		"CRLF dot LF":         {wire: "a\r\n.\nb\r\n.\r\n", want: "a\r\n\nb\r\n", bad: content{bareLF: 1}},
		"CRLF dot CR":         {wire: "a\r\n.\rb\r\n.\r\n", want: "a\r\n\rb\r\n", bad: content{bareCR: 1}},
		"CR dot CRLF":         {wire: "a\r.\r\nb\r\n.\r\n", want: "a\r.\r\nb\r\n", bad: content{bareCR: 1}},
		"CRLF dot CR CRLF":    {wire: "a\r\n.\r\r\n.\r\n", want: "a\r\n\r\r\n", bad: content{bareCR: 1}},
		"NUL":                 {wire: "a\x00b\r\n.\r\n", want: "a\x00b\r\n", bad: content{nul: 1}},
		"998":                 {wire: long + "\r\n.\r\n", want: long + "\r\n"},
		"999":                 {wire: long + "x\r\n.\r\n", want: long + "x\r\n", bad: content{long: 1}},
		"fills the buffer":    {wire: "." + huge + "\r\n.\r\n", want: huge + "\r\n", bad: content{long: 1}},
		"message id":          {wire: "A: b\r\nmessage-id: <1@x> \r\n\r\n.\r\n", want: "A: b\r\nmessage-id: <1@x> \r\n\r\n", id: "<1@x>"},
		"folded id":           {wire: "Message-ID:\r\n <1@x>\r\n\r\n.\r\n", want: "Message-ID:\r\n <1@x>\r\n\r\n", id: "<1@x>"},
		"id in the body":      {wire: "A: b\r\n\r\nMessage-ID: <1@x>\r\n.\r\n", want: "A: b\r\n\r\nMessage-ID: <1@x>\r\n"},
		"no value, no fold":   {wire: "Message-ID:\r\nA: b\r\n c\r\n.\r\n", want: "Message-ID:\r\nA: b\r\n c\r\n"},
		"id longer than name": {wire: "Message-IDx: <1@x>\r\n.\r\n", want: "Message-IDx: <1@x>\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const tail = "MAIL FROM:<next@example.com>\r\n"
			for _, step := range []int{1, 2, 3, 7, 1000, 1 << 20} {
				if len(tc.wire) > bufferSize && step < 1000 {
					continue // slow, and shows nothing more
				}
				d := newContent(Config{KeepContent: true})
				d.begin(true)
				left, ended := throughBuffer(d, tc.wire+tail, step)
				if !ended || left != tail[:len(left)] || len(tc.wire)+len(tail)-len(left) < len(tc.wire) {
					t.Fatalf("steps of %d: ended %v before %q", step, ended, left)
				}
				if string(d.kept) != tc.want || d.size != len(tc.want) || d.id != tc.id {
					t.Fatalf("steps of %d: %.60q (%d bytes, id %q), want %.60q (%d, %q)", step, d.kept, d.size, d.id, tc.want, len(tc.want), tc.id)
				}
				if [32]byte(d.sum.Sum(nil)) != sha256.Sum256([]byte(tc.want)) {
					t.Fatalf("steps of %d: wrong hash", step)
				}
				if d.bareLF != tc.bad.bareLF || d.bareCR != tc.bad.bareCR || d.nul != tc.bad.nul || d.long != tc.bad.long {
					t.Fatalf("steps of %d: bare LF %d, bare CR %d, NUL %d, long %d", step, d.bareLF, d.bareCR, d.nul, d.long)
				}
			}
		})
	}
}

// throughBuffer feeds wire as a connection does that delivers step bytes at a time. It
// returns what the buffer still held when the content ended.
func throughBuffer(d *content, wire string, step int) (left string, ended bool) {
	in := input{src: &slicer{wire, step}, buf: make([]byte, bufferSize)}
	for {
		used, done := d.feed(in.buffered())
		in.r += used
		if done {
			return string(in.buffered()), true
		}
		if err := in.fill(); err != nil {
			return "", false
		}
	}
}
