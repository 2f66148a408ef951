package relay

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// slicer is a reader that delivers step bytes at a time.
type slicer struct {
	rest string
	step int
}

func (s *slicer) Read(p []byte) (int, error) {
	if s.rest == "" {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(s.step, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}

// tape is a connection whose client has said everything already and takes any reply.
type tape struct {
	slicer
	said bytes.Buffer
}

func (*tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*tape) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (*tape) SetDeadline(time.Time) error      { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }
func (*tape) Close() error                     { return nil }
func (t *tape) Write(p []byte) (int, error)    { return t.said.Write(p) }
func (t *tape) Read(p []byte) (int, error)     { return t.slicer.Read(p) }

// unstuffed takes the dot-stuffing off everything a client said, line by line as RFC 5321
// section 4.5.2 puts it and with nothing shared with the code under test; lone dots become
// end.
func unstuffed(said, end string) string {
	lines := strings.Split(said, "\r\n")
	for i, l := range lines {
		if l == "." && i < len(lines)-1 {
			lines[i] = end
		} else {
			lines[i] = strings.TrimPrefix(l, ".")
		}
	}
	return strings.Join(lines, "\r\n")
}

// FuzzServer throws anything at a session. It must not panic, must speak whole replies
// only, and what it records must have been sent as a whole, dot included.
func FuzzServer(f *testing.F) {
	const in = "EHLO x\r\nAUTH PLAIN AEsAcw==\r\n"
	const mail = "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n"
	for _, seed := range []string{
		in + mail + "Message-ID: <1@x>\r\n\r\n..x\r\n.\r\n" + mail + "y\r\n.\r\nQUIT\r\n",
		in + mail + "partial\r\n", in + mail + "\n.\r\n\r\n.\r.\r\n\r\n.\n",
		in + "MAIL FROM:<a@b.c>\r\nDATA\r\n.\r\n", "AUTH LOGIN\r\n*\r\n", in + "AUTH LOGIN\r\n",
		strings.Repeat("x", 5000) + "\r\n\x00\r\n", "GET / HTTP/1.1\r\n", "STARTTLS\r\nx",
		in + "MAIL FROM:<a@b.c> BODY=8BITMIME SIZE=1\r\nRCPT TO:<\"d>\\\"\"@e.f>\r\nBDAT 3\r\nabcBDAT 1 LAST\r\nd",
	} {
		for _, strict := range []bool{false, true} {
			f.Add(seed, uint8(len(seed)), strict)
		}
	}
	f.Fuzz(func(t *testing.T, said string, step uint8, strict bool) {
		s := &Server{cfg: Config{KeepContent: true}, done: make(chan struct{}), conns: map[*wire]struct{}{}}
		var err error
		if s.cfg, err = s.cfg.withDefaults(); err != nil {
			t.Fatal(err)
		}
		s.cfg.NoTLS = true // a handshake with a tape shows nothing
		profile := "nhn"
		if strict {
			profile, s.cfg.AllowPlainAuth = "strict?greet=0s", true
		}
		if err := s.SetProfile(profile); err != nil {
			t.Fatal(err)
		}
		s.SetUsers(nil)
		nc := &tape{slicer: slicer{said, int(step) + 1}}
		newConn(s, &wire{Conn: nc, counters: &s.counters}, 1).serve()

		for line := range strings.SplitSeq(strings.TrimSuffix(nc.said.String(), "\r\n"), "\r\n") {
			if !wellFormed(line) || strings.ContainsAny(line, "\n") {
				t.Fatalf("said %q", line)
			}
		}
		if n := len(s.Truth()); n > strings.Count(said, ".\r\n") {
			t.Fatalf("%d messages recorded from %d dots", n, strings.Count(said, ".\r\n"))
		}
		if bareLF(said) {
			return // commands may end in one, so contents need not begin a line
		}
		const end = "\x01end of data\x01"
		rest := unstuffed(said, end)
		for a := range s.Messages() {
			_, after, found := strings.Cut(rest, string(a.Content)+end)
			if !found {
				t.Fatalf("recorded %q, which was not sent with its dot", a.Content)
			}
			if strict && a.Content != nil && strings.ContainsAny(strings.ReplaceAll(string(a.Content), "\r\n", ""), "\r\n\x00") {
				t.Fatalf("strict took %q", a.Content)
			}
			rest = after
		}
	})
}

func bareLF(s string) bool { return strings.Contains(strings.ReplaceAll(s, "\r\n", ""), "\n") }

// FuzzParseScript: no script panics, and a rule that is let through can be used.
func FuzzParseScript(f *testing.F) {
	for _, seed := range []string{
		"- stage: rcpt\n  domain: '*.x'\n  share: 10%\n  reply: 451 4.7.1 x\n",
		"- {stage: eod, every: 3, action: acceptdrop}\n- {stage: idle, delay: 1s, reply: 421 x}\n",
		"- stage: mail\n  reply: [450 a, '550-b\n550 c']\n", "a: &a [*a]\n", "- &x {stage: any}\n- *x\n", "[[[", "- stage: [x]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script string) {
		rules, err := ParseScript("fuzz.yaml", []byte(script))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz.yaml:") {
				t.Fatalf("error without the file's name: %v", err)
			}
			return
		}
		b, err := newBehaviour("nhn", rules, 1)
		if err != nil {
			t.Fatalf("rules were read but cannot be used: %v", err)
		}
		for _, r := range b.all {
			for _, text := range r.texts {
				if r.Action != Garbage && !bytes.HasSuffix(appendReply(nil, text), []byte("\r\n")) {
					t.Fatalf("reply %q", text)
				}
			}
		}
	})
}
