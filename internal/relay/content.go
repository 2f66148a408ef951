package relay

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// maxText is the longest line of a content, without CRLF (RFC 5322 section 2.1.1).
const maxText = 998

// content digests a message as it comes in: takes the dot-stuffing off, hashes, finds the
// Message-ID, and counts what RFC 5321 does not allow. It looks at every line once.
type content struct {
	keep bool // store it as well
	skip bool // do not hash it
	dots bool // DATA: a line with a single dot ends it; BDAT: no such thing

	sum  hash.Hash
	kept []byte
	size int
	id   string // Message-ID with its brackets

	lineStart bool // the next byte begins a line, that is, follows CRLF
	header    bool // still in the header
	folded    bool // the last header line was a Message-ID without a value
	heldCR    bool // the last BDAT chunk ended between CR and LF, perhaps
	consumed  int  // bytes of the current line already taken, if it fills the buffer

	bareLF, bareCR, nul, long int64
}

func newContent(cfg Config) *content {
	return &content{keep: cfg.KeepContent, skip: cfg.NoDigest, sum: sha256.New()}
}

// begin forgets the last message.
func (d *content) begin(dots bool) {
	d.sum.Reset()
	*d = content{keep: d.keep, skip: d.skip, dots: dots, sum: d.sum, lineStart: true, header: true}
}

// feed takes whole lines from b and returns how many bytes it used, and whether the line
// with the single dot was among them; it stops after that. What it leaves is the
// beginning of a line, to come again with more; a line that fills the buffer is taken
// in parts.
func (d *content) feed(b []byte) (used int, done bool) {
	var crlfs int64
	written := 0
	for !done {
		j := bytes.IndexByte(b[used:], '\n')
		if j < 0 {
			break
		}
		line := b[used : used+j+1]
		crlf := (j > 0 && line[j-1] == '\r') || (j == 0 && used == 0 && d.heldCR)
		if d.dots && d.lineStart && line[0] == '.' {
			d.write(b[written:used])
			written = used + 1
			// RFC 5321 section 4.5.2: exactly CRLF.CRLF, no other line end will do.
			done = crlf && len(line) == 3
			line = line[1:]
		}
		used += j + 1
		if crlf {
			crlfs++
		}
		if !done {
			d.line(line, crlf)
		}
	}
	switch {
	case done:
		written = used
	case used == 0 && len(b) >= bufferSize:
		used, written = d.part(b)
	}
	d.write(b[written:used])
	d.bareCR += int64(bytes.Count(b[:used], []byte{'\r'})) - crlfs
	d.nul += int64(bytes.Count(b[:used], []byte{0}))
	return used, done
}

// part takes all but the last byte of a line that does not end in b, which may be the CR
// of its end. It returns what is used and where the content in it begins.
func (d *content) part(b []byte) (used, written int) {
	if d.dots && d.lineStart && b[0] == '.' {
		written = 1
	}
	used = len(b) - 1
	d.lineStart = false
	d.consumed += used - written
	return used, written
}

// rest takes what is left of a BDAT chunk.
func (d *content) rest(b []byte) {
	d.write(b)
	d.bareCR += int64(bytes.Count(b, []byte{'\r'}))
	d.nul += int64(bytes.Count(b, []byte{0}))
	d.consumed += len(b)
	d.heldCR = b[len(b)-1] == '\r'
}

// line looks at a line with its line end.
func (d *content) line(line []byte, crlf bool) {
	n := d.consumed + len(line) - 1
	if crlf {
		n--
	} else {
		d.bareLF++
	}
	if n > maxText {
		d.long++
	}
	if d.header && d.consumed == 0 && d.lineStart {
		d.headerLine(line)
	}
	d.consumed, d.heldCR = 0, false
	d.lineStart = crlf
}

func (d *content) headerLine(line []byte) {
	const name = "message-id:"
	switch {
	case len(bytes.TrimRight(line, "\r\n")) == 0:
		d.header = false
	case d.folded && (line[0] == ' ' || line[0] == '\t'):
		d.id = string(bytes.TrimSpace(line))
		d.folded = false
	case d.id == "" && line[0]|0x20 == 'm' && len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)):
		d.id = string(bytes.TrimSpace(line[len(name):]))
		d.folded = d.id == ""
	default:
		d.folded = false
	}
}

func (d *content) write(b []byte) {
	if len(b) == 0 {
		return
	}
	if !d.skip {
		d.sum.Write(b)
	}
	d.size += len(b)
	if d.keep {
		d.kept = append(d.kept, b...)
	}
}

// fault says what about the content breaks RFC 5321, or "".
func (d *content) fault() string {
	switch {
	case d.bareLF > 0:
		return "bare LF in the content"
	case d.bareCR > 0:
		return "bare CR in the content"
	case d.nul > 0:
		return "NUL in the content"
	case d.long > 0:
		return "line longer than 998 in the content"
	}
	return ""
}
