package feedback

import (
	"bufio"
	"errors"
	"io"
	netmail "net/mail"
	"strings"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/verdict"
)

// Bounds of one message.
const (
	maxParts  = 50
	maxDepth  = 4
	maxGroups = 1000 // recipients of one delivery report
)

// reportMail is what was found in a message.
type reportMail struct {
	groups []textproto.Header // of a delivery report, one a recipient (RFC 3464 section 2.3)
	abuse  *textproto.Header  // of a complaint (RFC 5965 section 3)
	id     string             // Message-ID of the mail it is about
	parts  int
}

// errNoReport is what is wrong with other mail.
var errNoReport = errors.New("no delivery report in it: want a message with a part message/delivery-status (RFC 3464) or message/feedback-report (RFC 5965)")

// parseMail reads one message and returns a report for each recipient it is about.
func parseMail(r io.Reader) ([]Report, error) {
	e, err := message.Read(r)
	if e == nil || err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		return nil, errors.New("not a mail message: its header does not parse")
	}
	var m reportMail
	m.walk(e, 0)
	if m.id == "" {
		// Some return no part of the mail, but answer it.
		m.id = plainID(e.Header.Get("In-Reply-To"))
	}
	switch {
	case m.abuse != nil:
		return m.complaint(e.Header)
	case len(m.groups) == 0:
		return nil, errNoReport
	}
	return m.reports()
}

// walk collects what the parts of e say. A part that does not parse ends its siblings:
// reports come before what may be cut off, the mail that is returned.
func (m *reportMail) walk(e *message.Entity, depth int) {
	kind, _, _ := e.Header.ContentType()
	if parts := e.MultipartReader(); parts != nil {
		for depth < maxDepth && m.parts < maxParts {
			part, err := parts.NextPart()
			if part == nil {
				return
			}
			if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
				return
			}
			m.parts++
			m.walk(part, depth+1)
		}
		return
	}
	body := bufio.NewReader(e.Body)
	switch strings.ToLower(kind) {
	case "message/delivery-status", "message/global-delivery-status":
		m.status(body)
	case "message/feedback-report":
		if h, err := textproto.ReadHeader(body); err == nil || errors.Is(err, io.EOF) {
			m.abuse = &h
		}
	case "message/rfc822", "message/global", "message/rfc822-headers", "text/rfc822-headers", "message/global-headers":
		// The field may stand before what is cut off or malformed.
		if h, _ := textproto.ReadHeader(body); m.id == "" {
			m.id = plainID(h.Get("Message-Id"))
		}
	}
}

// status reads the groups of fields of a delivery report; the first is about the message.
func (m *reportMail) status(body *bufio.Reader) {
	for len(m.groups) < maxGroups {
		h, err := textproto.ReadHeader(body)
		if h.Has("Final-Recipient") || h.Has("Original-Recipient") {
			m.groups = append(m.groups, h)
		}
		if err != nil {
			return
		}
		if _, err := body.Peek(1); err != nil {
			return
		}
	}
}

// reports makes a Report of each recipient of whom something is decided or said.
func (m *reportMail) reports() ([]Report, error) {
	var out []Report
	for _, h := range m.groups {
		r := Report{MessageID: m.id, Address: recipientOf(h)}
		switch strings.ToLower(strings.TrimSpace(h.Get("Action"))) {
		case "failed":
			r.Status = Bounced
		case "delivered":
			r.Status = Delivered
		case "delayed", "relayed", "expanded": // in other hands, from where nothing need be heard
			r.Status = Delayed
		default:
			return out, errors.New("its field Action is none of failed, delayed, delivered, relayed and expanded (RFC 3464 section 2.3.3)")
		}
		r.Reply = verdict.ParseReply(h.Get("Diagnostic-Code"))
		if r.Reply.Enhanced == "" {
			r.Reply.Enhanced, _, _ = strings.Cut(strings.TrimSpace(h.Get("Status")), " ")
		}
		r.Time = dateOf(h.Get("Last-Attempt-Date"))
		if err := r.check(); err != nil {
			return out, errors.New("it names neither a recipient nor the mail it is about")
		}
		out = append(out, r)
	}
	return out, nil
}

// recipientOf prefers the address that we gave: mail may have been forwarded.
func recipientOf(h textproto.Header) mail.Address {
	for _, field := range []string{"Original-Recipient", "Final-Recipient"} {
		kind, addr, ok := strings.Cut(h.Get(field), ";")
		if kind = strings.ToLower(strings.TrimSpace(kind)); !ok || kind != "rfc822" && kind != "utf-8" {
			continue
		}
		if a, err := mail.ParseAddress(strings.Trim(strings.TrimSpace(addr), "<>")); err == nil {
			return a
		}
	}
	return mail.Address{}
}

func (m *reportMail) complaint(outer message.Header) ([]Report, error) {
	if kind := strings.ToLower(strings.TrimSpace(m.abuse.Get("Feedback-Type"))); kind == "not-spam" || kind == "" {
		return nil, errors.New("a feedback report that complains about nothing")
	}
	r := Report{Status: Complained, MessageID: m.id, Time: dateOf(outer.Get("Date"))}
	if a, err := mail.ParseAddress(strings.Trim(strings.TrimSpace(m.abuse.Get("Original-Rcpt-To")), "<>")); err == nil {
		r.Address = a
	}
	if r.check() != nil {
		return nil, errors.New("it names neither a recipient nor the mail it is about")
	}
	return []Report{r}, nil
}

// dateOf reads a date of RFC 5322; one that does not parse is none.
func dateOf(s string) time.Time {
	t, err := netmail.ParseDate(s)
	if err != nil {
		return time.Time{}
	}
	return t
}
