package templates

import (
	"bytes"
	"slices"
)

// fast is a plan with everything encoded that is the same in every message.
type fast struct {
	subject outline
	headers []outline
	text    encoded
	html    encoded
}

// encoded is a document as a sequence of literals with a value between any two.
//
// A decoder sees one stream whatever the length of its lines, so a literal is
// encoded once, on lines of its own, and values go on lines between. In base64 a
// value first takes the one or two octets from its neighbours that complete its
// last group of three; a literal is therefore kept in three alignments.
type encoded struct {
	encoding encoding
	literals []literal
	places   []place
	size     int // octets of all literals
	longest  int // octets of the longest line, values left out
}

type literal struct {
	raw   []byte    // with CRLF line ends
	ready [3][]byte // encoded, by how many octets at the start are left out; nil for a short literal
	tail  [3]int    // octets at the end that are not in ready
}

// shortLiteral is the length in bytes up to which a literal is cheaper to encode
// together with the values around it than to give lines of its own.
const shortLiteral = 45

func newFast(p *Program, pl *plan) *fast {
	return &fast{
		subject: pl.subject,
		headers: pl.headers,
		text:    newEncoded(pl.text, p.frame.encodings[0]),
		html:    newEncoded(pl.html, p.frame.encodings[1]),
	}
}

func newEncoded(o outline, e encoding) encoded {
	fixed := appendCRLF(nil, bytes.Join(o.literals, nil))
	enc := encoded{encoding: e, places: o.places, size: len(fixed), longest: longestLine(fixed)}
	for i, raw := range o.literals {
		l := literal{raw: appendCRLF(nil, raw)}
		last := i == len(o.literals)-1
		if len(l.raw) > shortLiteral {
			switch e {
			case base64Encoding:
				for skip := range l.ready {
					l.tail[skip] = (len(l.raw) - skip) % 3
					l.ready[skip] = appendBase64(nil, l.raw[skip:len(l.raw)-l.tail[skip]])
				}
			case quotedPrintable:
				l.ready[0] = appendQuoted(nil, l.raw, last)
			case eightBit:
				l.ready[0] = l.raw
			}
		}
		enc.literals = append(enc.literals, l)
	}
	return enc
}

// append appends the document for one recipient.
func (e *encoded) append(dst []byte, email string, s *scratch) []byte {
	buf := s.buf[:0] // octets that wait for the next literal
	for i := range e.literals {
		if i > 0 {
			buf = e.places[i-1].append(buf, email, s.values)
		}
		l := &e.literals[i]
		if l.ready[0] == nil {
			buf = append(buf, l.raw...)
			continue
		}
		switch e.encoding {
		case base64Encoding:
			skip := (3 - len(buf)%3) % 3
			dst = appendBase64(dst, append(buf, l.raw[:skip]...))
			dst = append(dst, l.ready[skip]...)
			buf = append(buf[:0], l.raw[len(l.raw)-l.tail[skip]:]...)
			continue
		case quotedPrintable:
			dst = appendQuoted(dst, buf, false)
		case eightBit:
			dst = append(dst, buf...)
		}
		dst = append(dst, l.ready[0]...)
		buf = buf[:0]
	}
	dst = e.encoding.encodeWhole(dst, buf)
	s.buf = buf[:0]
	return dst
}

// fits reports whether a rendered document can leave as 8bit, if it is to. Values
// that could not fill up any line cost no look at the lines.
func (e *encoded) fits(doc []byte) bool {
	if e.encoding != eightBit {
		return true
	}
	return !holdsBoundary(doc) && (e.longest+len(doc)-e.size <= maxLine || longestLine(doc) <= maxLine)
}

// append appends a place's value with CRLF line ends.
func (pc place) append(dst []byte, email string, values []string) []byte {
	start := len(dst)
	dst = pc.escape.append(dst, valueAt(pc, email, values))
	if bytes.IndexByte(dst[start:], '\n') >= 0 {
		dst = appendCRLF(dst[:start], slices.Clone(dst[start:]))
	}
	return dst
}

// append appends a one-line document.
func (o *outline) append(dst []byte, email string, values []string) []byte {
	dst = append(dst, o.literals[0]...)
	for i, pc := range o.places {
		dst = pc.escape.append(dst, valueAt(pc, email, values))
		dst = append(dst, o.literals[i+1]...)
	}
	return dst
}

// render appends a whole message. ok is false where the values do not fit into
// 8bit lines: then the caller has to encode them.
func (f *fast) render(dst []byte, p *Program, r *Recipient, s *scratch) (out []byte, ok bool, err error) {
	start := len(dst)
	dst = p.appendHead(dst, r)
	s.buf = f.subject.append(s.buf[:0], r.Email, s.values)
	if dst, err = p.appendSubject(dst, s.buf); err != nil {
		return dst, false, err
	}
	for i := range f.headers {
		s.buf = f.headers[i].append(s.buf[:0], r.Email, s.values)
		if dst, err = appendCustom(dst, p.headers[i].name, s.buf); err != nil {
			return dst, false, err
		}
	}
	dst = append(dst, p.frame.before...)
	at := len(dst)
	dst = f.text.append(dst, r.Email, s)
	if !f.text.fits(dst[at:]) {
		return dst[:start], false, nil
	}
	if p.tmpl.html != nil {
		dst = append(dst, p.frame.between...)
		at = len(dst)
		dst = f.html.append(dst, r.Email, s)
		if !f.html.fits(dst[at:]) {
			return dst[:start], false, nil
		}
	}
	return append(dst, p.frame.after...), true, nil
}
