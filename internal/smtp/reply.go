package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on a reply. RFC 5321 section 4.5.3.1.5 allows 512 octets a line; real
// relays exceed that, none comes near these.
const (
	maxReplyLine  = 4096 // octets, CRLF included
	maxReplyLines = 100
	maxReplyText  = 2048 // octets of text kept of one reply
)

// Reply is one reply of the relay. The zero Reply means that nothing was said.
type Reply struct {
	Code     int
	Enhanced string // RFC 3463, such as "5.1.1"; "" where there is none of the code's class
	Text     string // printable, lines joined by a space, at most 2 KB
}

// String renders the reply on one line.
func (r Reply) String() string {
	switch {
	case r.Code == 0:
		return r.Text
	case r.Enhanced == "":
		return strings.TrimSpace(fmt.Sprintf("%d %s", r.Code, r.Text))
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text))
}

// refusal reports whether the relay said no.
func (r Reply) refusal() bool { return r.Code >= 400 }

// replyReader reads replies. It is strict about everything that decides which
// reply belongs to which command, and lenient about the text.
type replyReader struct {
	r          io.Reader
	buf        []byte
	start, end int    // unread bytes are buf[start:end]
	scanned    int    // of these, already searched for a line end
	raw        []byte // texts of the current reply's lines, joined by LF
	code       int    // code of the current reply, 0 before its first line
	lines      int
	enhanced   []byte
	known      [64]string // recently seen texts, to be used again
	private    bool       // what is said may quote a secret
}

func newReplyReader(r io.Reader) *replyReader {
	return &replyReader{r: r, buf: make([]byte, maxReplyLine)}
}

// malformed is a reply that cannot be read as one.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBotched, fmt.Sprintf(format, args...))
}

// buffered reports whether bytes were read that no reply has used up.
func (p *replyReader) buffered() bool { return p.end > p.start || p.code != 0 }

// fill reads once. A line that does not fit the buffer is too long.
func (p *replyReader) fill() error {
	if p.start > 0 {
		p.end = copy(p.buf, p.buf[p.start:p.end])
		p.start = 0
	}
	if p.end == len(p.buf) {
		return malformed("a line longer than %d octets", maxReplyLine)
	}
	n, err := p.r.Read(p.buf[p.end:])
	p.end += n
	if n > 0 || err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) && p.buffered() {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read returns the next reply, reading as often as it takes.
func (p *replyReader) read() (Reply, error) {
	for {
		r, ok, err := p.next()
		if ok || err != nil {
			return r, err
		}
		if err := p.fill(); err != nil {
			return Reply{}, err
		}
	}
}

// next returns a reply if all of it has been read; it never reads.
func (p *replyReader) next() (Reply, bool, error) {
	for {
		i := bytes.IndexByte(p.buf[p.start+p.scanned:p.end], '\n')
		if i < 0 {
			p.scanned = p.end - p.start
			return Reply{}, false, nil
		}
		line := p.buf[p.start : p.start+p.scanned+i+1]
		p.start, p.scanned = p.start+len(line), 0
		last, err := p.line(line)
		if err != nil {
			return Reply{}, false, err
		}
		if last {
			return p.finish(), true, nil
		}
	}
}

// line takes one line, CRLF included, of the grammar of RFC 5321 section 4.2.
func (p *replyReader) line(b []byte) (last bool, err error) {
	if len(b) < 2 || b[len(b)-2] != '\r' {
		return false, malformed("a line that does not end in CRLF")
	}
	b = b[:len(b)-2]
	if len(b) < 3 || b[0] < '2' || b[0] > '5' || !digit(b[1]) || !digit(b[2]) {
		return false, malformed("a line without a reply code: %s", p.quote(b))
	}
	if len(b) > 3 && b[3] != ' ' && b[3] != '-' {
		return false, malformed("a code that is not followed by space or hyphen: %s", p.quote(b))
	}
	code := int(b[0]-'0')*100 + int(b[1]-'0')*10 + int(b[2]-'0')
	if p.lines++; p.lines > maxReplyLines {
		return false, malformed("a reply of more than %d lines", maxReplyLines)
	}
	if p.code != 0 && code != p.code {
		return false, malformed("a reply whose lines say %d and %d", p.code, code)
	}
	first := p.code == 0
	p.code = code
	last = len(b) == 3 || b[3] == ' '
	p.text(b[min(len(b), 4):], first)
	return last, nil
}

// text keeps a line's text, less the enhanced code (RFC 2034 section 4 wants it
// repeated on every line). One whose class contradicts the reply code is text:
// the reply code's first digit is what counts.
func (p *replyReader) text(b []byte, first bool) {
	if first {
		p.raw, p.enhanced = p.raw[:0], p.enhanced[:0]
	} else {
		p.raw = append(p.raw, '\n')
	}
	if n := enhancedLen(b); n > 0 && int(b[0]-'0') == p.code/100 {
		switch {
		case first:
			p.enhanced = append(p.enhanced, b[:n]...)
			b = bytes.TrimLeft(b[n:], " ")
		case bytes.Equal(p.enhanced, b[:n]):
			b = bytes.TrimLeft(b[n:], " ")
		}
	}
	p.raw = append(p.raw, b...)
}

// finish returns the reply that p.line has completed.
func (p *replyReader) finish() Reply {
	r := Reply{Code: p.code, Enhanced: p.intern(p.enhanced)}
	p.code, p.lines = 0, 0
	text := printable(p.raw)
	if len(text) > maxReplyText {
		text = bytes.ToValidUTF8(text[:maxReplyText], nil) // drops half a rune at the cut
	}
	r.Text = p.intern(bytes.TrimSpace(text))
	return r
}

// lastLines returns the last reply's lines, unfiltered, for EHLO.
func (p *replyReader) lastLines() []string { return strings.Split(string(p.raw), "\n") }

// intern returns string(b) without allocating where the same text came recently:
// "2.1.0 Ok" comes with every message.
func (p *replyReader) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	n := len(b)
	slot := &p.known[(n+5*int(b[n-1])+11*int(b[n/2]))%len(p.known)] // enough to tell a relay's few texts apart
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot
}

// printable copies b if it must: line ends become spaces, other control
// characters and invalid UTF-8 a question mark. No reply can put a line of its own
// into a log or a report.
func printable(b []byte) []byte {
	plain := true
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return b
	}
	return []byte(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == '\ufffd':
			return '?'
		}
		return r
	}, string(b)))
}

// enhancedLen returns the length of an enhanced status code at the start of b, or 0.
func enhancedLen(b []byte) int {
	if len(b) < 5 || b[0] != '2' && b[0] != '4' && b[0] != '5' {
		return 0
	}
	i := 1
	for range 2 {
		if i >= len(b) || b[i] != '.' {
			return 0
		}
		i++
		digits := 0
		for i < len(b) && digit(b[i]) {
			i++
			digits++
		}
		if digits == 0 || digits > 3 {
			return 0
		}
	}
	if i < len(b) && b[i] != ' ' {
		return 0
	}
	return i
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// quote is enough of a bad line to recognise it by.
func (p *replyReader) quote(b []byte) string {
	if p.private {
		return "not shown, because it may quote the login"
	}
	return fmt.Sprintf("%q", printable(b[:min(len(b), 40)]))
}
