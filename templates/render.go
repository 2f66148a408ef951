package templates

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Recipient is what makes one message different from the others.
type Recipient struct {
	Email     string    // as in the envelope
	Values    []string  // in the order of Program.Columns
	MessageID string    // without angle brackets
	Date      time.Time // in the zone that the Date field is to show
}

// MessageID returns the Message-ID, without angle brackets, of one recipient:
// the same on every attempt, and no other recipient's. line is the recipient's
// line in the list. It tells a reader nothing about campaign or line.
func MessageID(campaign string, line int, domain string) string {
	var in, out [64]byte
	sum := sha256.Sum256(strconv.AppendInt(append(append(in[:0], campaign...), 0), int64(line), 10))
	// Base 32 in small letters (RFC 4648 section 7), 5 bits a letter.
	const letters = "0123456789abcdefghijklmnopqrstuv"
	id, bits, have := out[:0], uint(0), 0
	for _, b := range sum[:16] {
		bits, have = bits<<8|uint(b), have+8
		for ; have >= 5; have -= 5 {
			id = append(id, letters[bits>>(have-5)&31])
		}
	}
	id = append(id, letters[bits<<(5-have)&31], '@')
	return string(append(id, domain...))
}

// scratch is the memory of one Render.
type scratch struct {
	values []string
	buf    []byte
}

// maxScratch is the capacity in bytes that is worth keeping.
const maxScratch = 64 << 10

// Render appends one complete message to dst: CRLF lines of at most 998 octets,
// no NUL, ending in CRLF, not dot-stuffed. The same recipient gives the same
// octets every time. On error dst is returned as it was; a *VariableError names
// the value that is to blame.
func (p *Program) Render(dst []byte, r Recipient) ([]byte, error) {
	s := p.scratch.Get().(*scratch)
	out, err := p.render(dst, r, s)
	clear(s.values)
	if cap(s.buf) <= maxScratch {
		p.scratch.Put(s)
	}
	if err != nil {
		return dst, err
	}
	if size := len(out) - len(dst); size > p.opt.MaxSize {
		return dst, fmt.Errorf("the message has %d octets: more than %d", size, p.opt.MaxSize)
	}
	return out, nil
}

func (p *Program) render(dst []byte, r Recipient, s *scratch) ([]byte, error) {
	if err := p.admit(&r, s); err != nil {
		return dst, err
	}
	if p.fast != nil {
		out, ok, err := p.fast.render(dst, p, &r, s)
		if ok || err != nil {
			return out, err
		}
	}
	return p.renderSlow(dst, &r, s.values)
}

// admit checks a recipient and leaves the trimmed values in s.
func (p *Program) admit(r *Recipient, s *scratch) error {
	address, err := mail.ParseAddress(r.Email)
	if err != nil {
		return &VariableError{emailVariable, err.Error()}
	}
	if !ascii(r.Email) {
		r.Email = address.String()
	}
	if len(r.Values) != len(p.columns) {
		return fmt.Errorf("%d values for the columns %s", len(r.Values), list(p.columns))
	}
	if r.MessageID == "" || len(r.MessageID) > 250 || !ascii(r.MessageID) || strings.ContainsAny(r.MessageID, "<> ") {
		return errors.New("the Message-ID is not 1 to 250 characters of printable ASCII")
	}
	if r.Date.Year() < 1970 || r.Date.Year() > 9999 {
		return errors.New("the date is not set")
	}
	s.values = s.values[:0]
	for i, value := range r.Values {
		value, err := p.limits[i].check(p.columns[i], value)
		if err != nil {
			return err
		}
		s.values = append(s.values, value)
	}
	return nil
}

// Check says whether a row's values can be rendered, without rendering them.
func (p *Program) Check(values []string) error {
	if len(values) != len(p.columns) {
		return fmt.Errorf("%d values for the columns %s", len(values), list(p.columns))
	}
	for i, value := range values {
		if _, err := p.limits[i].check(p.columns[i], value); err != nil {
			return err
		}
	}
	return nil
}

// ascii reports whether s is printable ASCII.
func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// appendHead appends the fields that every message has, but for Subject.
func (p *Program) appendHead(dst []byte, r *Recipient) []byte {
	dst = append(dst, "Date: "...)
	dst = r.Date.AppendFormat(dst, dateLayout)
	dst = append(dst, "\r\n"...)
	dst = append(dst, p.origin...)
	dst = append(dst, "To: "...)
	dst = append(dst, r.Email...)
	dst = append(dst, "\r\nMessage-ID: <"...)
	dst = append(dst, r.MessageID...)
	return append(dst, ">\r\nMIME-Version: 1.0\r\n"...)
}

// appendSubject appends the Subject field of a message.
func (p *Program) appendSubject(dst, subject []byte) ([]byte, error) {
	switch {
	case len(subject) == 0:
		return dst, errors.New("the subject is empty")
	case len(subject) > maxLine:
		return dst, fmt.Errorf("the subject is longer than %d bytes", maxLine)
	case p.opt.Stream == mail.Ad:
		if err := checkLabel(subject); err != nil {
			return dst, err
		}
	}
	return appendText(dst, "Subject", subject), nil
}

// renderSlow executes the templates and encodes what they say.
func (p *Program) renderSlow(dst []byte, r *Recipient, values []string) ([]byte, error) {
	docs, err := p.execute(r.Email, values)
	if err != nil {
		return dst, err
	}
	dst = p.appendHead(dst, r)
	if dst, err = p.appendSubject(dst, docs.subject); err != nil {
		return dst, err
	}
	for i, h := range p.headers {
		if dst, err = appendCustom(dst, h.name, docs.headers[i]); err != nil {
			return dst, err
		}
	}
	text, html := appendCRLF(nil, docs.text), appendCRLF(nil, docs.html)
	f := &p.frame
	if p.fallback != nil && !(fitsEightBit(text) && fitsEightBit(html)) {
		f = p.fallback
	}
	dst = append(dst, f.before...)
	dst = f.encodings[0].encodeWhole(dst, text)
	if docs.html != nil {
		dst = append(dst, f.between...)
		dst = f.encodings[1].encodeWhole(dst, html)
	}
	return append(dst, f.after...), nil
}

// Preview is a message as a recipient reads it.
type Preview struct {
	Subject string
	Text    string
	HTML    string // empty where the template has none
}

// Preview executes the templates for one recipient.
func (p *Program) Preview(r Recipient) (Preview, error) {
	var s scratch
	if err := p.admit(&r, &s); err != nil {
		return Preview{}, err
	}
	d, err := p.execute(r.Email, s.values)
	if err != nil {
		return Preview{}, err
	}
	return Preview{string(d.subject), string(d.text), string(d.html)}, nil
}
