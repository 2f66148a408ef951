package templates

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// gmailClip is the size in bytes beyond which Gmail shows a mail cut off.
const gmailClip = 102 << 10

// adLabels open the subject of advertising mail (Korea: Network Act Article
// 50(4); NHN Cloud Email checks it).
var adLabels = []string{"(광고)", "(AD)", "(広告)"}

// Program is a template bound to a campaign. It is immutable and safe for
// concurrent use.
type Program struct {
	tmpl     *Template
	opt      Options
	headers  []headerTemplate
	use      usage          // of the template and the custom headers
	data     map[string]any // what every message has in common
	columns  []string
	limits   []limit // by column
	warnings []string
	origin   []byte // the fields From and Reply-To

	encodings [2]encoding // of the text and the HTML document
	frame     frame
	fallback  *frame // without 8bit; nil where frame is without
	fast      *fast  // nil: the templates are executed for each message
	scratch   sync.Pool
}

// limit is what a column's value has to keep to.
type limit struct {
	needed bool // not empty
	header bool // reaches a header field: no control characters
	url    bool // reaches a List- header: nothing that ends a URL
}

// Compile checks everything that needs no recipient and prepares rendering.
func (t *Template) Compile(o Options) (*Program, error) {
	p, err := t.compile(o)
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", t.name, err)
	}
	return p, nil
}

func (t *Template) compile(o Options) (*Program, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p := &Program{tmpl: t, opt: o, use: t.use.clone()}
	p.origin = appendMailbox(nil, "From", o.From)
	if o.ReplyTo != nil {
		p.origin = appendMailbox(p.origin, "Reply-To", *o.ReplyTo)
	}
	p.scratch.New = func() any { return &scratch{} }
	if err := p.bind(); err != nil {
		return nil, err
	}
	docs, err := p.execute(sampleAddress, p.Sample().Values)
	if err != nil {
		return nil, fmt.Errorf("test render: %w", err)
	}
	if err := p.checkContent(docs); err != nil {
		return nil, err
	}
	if p.frame, err = p.chooseFrame(docs); err != nil {
		return nil, err
	}
	pl, err := newPlan(p)
	switch {
	case err == nil:
		p.fast = newFast(p, pl)
	case !errors.Is(err, errComplex):
		return nil, fmt.Errorf("test render: %w", err)
	}
	// The last check is the thing itself: size limit and header grammar included.
	if _, err := p.Render(nil, p.Sample()); err != nil {
		return nil, fmt.Errorf("test render: %w", err)
	}
	return p, nil
}

// bind settles which variables are fixed and which come from the row.
func (p *Program) bind() error {
	if err := checkHeaderNames(p.opt.Headers); err != nil {
		return err
	}
	inHeader := map[string]bool{}
	inURL := map[string]bool{}
	for _, v := range p.use.docs[docSubject] {
		inHeader[v] = true
	}
	for _, h := range p.opt.Headers {
		parsed, err := parseHeader(h)
		if err != nil {
			return err
		}
		p.headers = append(p.headers, parsed)
		p.use.add(parsed.use)
		for v := range parsed.use.vars {
			inHeader[v] = true
			inURL[v] = inURL[v] || isListHeader(h.Name)
		}
	}
	if err := p.opt.Sender.check(p.use.sender); err != nil {
		return err
	}
	fixed, err := p.opt.constants(p.use, p.tmpl.meta.defaults)
	if err != nil {
		return err
	}
	p.data = dataOf(fixed, p.opt.Sender)
	for _, name := range p.use.names() {
		l := limit{p.use.vars[name].needed, inHeader[name], inURL[name]}
		if value, ok := fixed[name]; ok {
			if _, err := l.check(name, value); err != nil {
				return err
			}
			continue
		}
		p.columns = append(p.columns, name)
		p.limits = append(p.limits, l)
	}
	return nil
}

// check returns a row's value trimmed, or a VariableError.
func (l limit) check(name, value string) (string, error) {
	value, err := cleanValue(value)
	switch {
	case err != nil:
		return "", &VariableError{name, err.Error()}
	case value == "" && l.needed:
		return "", &VariableError{name, "empty, and the template shows it"}
	case l.header && hasControl(value):
		return "", &VariableError{name, "contains a line break or another control character, which cannot stand in a header"}
	case l.url && (!ascii(value) || strings.ContainsAny(value, " <>,\"\\")):
		return "", &VariableError{name, "contains a character that cannot stand in the URL of a List- header"}
	}
	return value, nil
}

// checkContent judges what a recipient would see.
func (p *Program) checkContent(d *documents) error {
	if p.opt.Stream == mail.Ad {
		if err := checkLabel(d.subject); err != nil {
			return err
		}
		if err := p.checkSenderBlock(d); err != nil {
			return err
		}
		for _, word := range [][]string{{"수신거부", "수신 거부"}, {"unsubscribe", "unsubscription", "opt out", "opt-out"}} {
			if !containsAny(bytes.ToLower(d.text), word) {
				p.warn("advertising mail wants its opt-out text in Korean and English: nothing like %q found in the text", word[0])
			}
		}
	}
	if len(d.html) > gmailClip {
		p.warn("html has %d KB: Gmail clips mail above %d KB", len(d.html)>>10, gmailClip>>10)
	}
	return p.checkInline(d.html)
}

// checkSenderBlock wants the whole sender block in each version of the body.
func (p *Program) checkSenderBlock(d *documents) error {
	versions := [2][]byte{d.text, d.text}
	if d.html != nil {
		var err error
		if versions[1], err = textOf(d.html); err != nil {
			return err
		}
	}
	for i, doc := range []string{docText, docHTML} {
		body := collapse(versions[i])
		for _, f := range senderFields {
			if value := collapse([]byte(p.opt.Sender.values()[f])); !bytes.Contains(body, value) {
				return fmt.Errorf("advertising mail has to show the sender: {{.sender.%s}} is missing from %s", f, doc)
			}
		}
	}
	return nil
}

func checkLabel(subject []byte) error {
	for _, label := range adLabels {
		if bytes.HasPrefix(subject, []byte(label)) {
			return nil
		}
	}
	return fmt.Errorf("the subject of advertising mail has to start with %s", strings.Join(adLabels, ", "))
}

func containsAny(b []byte, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return bytes.Contains(b, []byte(w)) })
}

func (p *Program) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

const sampleAddress = "hong@sample.example"

// Sample returns a recipient to try the program out with: the template's own
// sample values, a fixed Message-ID and date.
func (p *Program) Sample() Recipient {
	r := Recipient{
		Email:     sampleAddress,
		Values:    make([]string, len(p.columns)),
		MessageID: MessageID("sample", 1, p.opt.MessageIDDomain),
		Date:      time.Date(2026, 1, 5, 9, 0, 0, 0, time.FixedZone("KST", 9*3600)),
	}
	for i, name := range p.columns {
		r.Values[i] = p.tmpl.meta.sample(name)
	}
	return r
}

// Columns returns the variables that each row has to fill, in the order that
// Recipient.Values has them.
func (p *Program) Columns() []string { return slices.Clone(p.columns) }

// Needed reports whether column i may not be empty.
func (p *Program) Needed(i int) bool { return p.limits[i].needed }

// Warnings returns what is allowed but probably not meant.
func (p *Program) Warnings() []string { return slices.Clone(p.warnings) }

// Template returns the template that the program was compiled from.
func (p *Program) Template() *Template { return p.tmpl }

// Stream returns the stream that the program was compiled for.
func (p *Program) Stream() mail.Stream { return p.opt.Stream }

// From returns the sender's address, which is also fit for the envelope.
func (p *Program) From() mail.Address { return p.opt.From.Address }

// MessageIDDomain returns the domain to call MessageID with.
func (p *Program) MessageIDDomain() string { return p.opt.MessageIDDomain }

// EightBit reports whether messages may hold octets above 127, so that MAIL
// wants BODY=8BITMIME.
func (p *Program) EightBit() bool { return p.fallback != nil }
