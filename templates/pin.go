package templates

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sluicemail/sluice/internal/mail"
)

// pinFormat changes whenever a pin written before would be rendered differently,
// or one written now could not be read before.
const pinFormat = 1

// pin is a program as it is stored: its sources, not its compiled form. Fields
// are only ever added together with a new format number.
type pin struct {
	Format      int               `json:"format"`
	Name        string            `json:"name"`
	Source      string            `json:"source"`
	From        pinMailbox        `json:"from"`
	ReplyTo     *pinMailbox       `json:"reply_to,omitempty"`
	Sender      Sender            `json:"sender"`
	Set         map[string]string `json:"set,omitempty"`
	Known       bool              `json:"known,omitempty"` // the list's columns were known
	Listed      []string          `json:"listed,omitempty"`
	Columns     []string          `json:"columns"`
	Headers     []Header          `json:"headers,omitempty"`
	Stream      mail.Stream       `json:"stream"`
	Attachments []Attachment      `json:"attachments,omitempty"`
	Domain      string            `json:"domain"`
	EightBit    bool              `json:"eight_bit,omitempty"`
	MaxSize     int               `json:"max_size"`
}

type pinMailbox struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address"`
}

// Pin returns everything that another process needs to render the same octets:
// template, options and attachments. The same program gives the same bytes.
func (p *Program) Pin() ([]byte, error) {
	out := pin{
		Format: pinFormat, Name: p.tmpl.name, Source: p.tmpl.source,
		From:   pinMailbox{p.opt.From.Name, p.opt.From.Address.String()},
		Sender: p.opt.Sender, Set: p.opt.Set,
		Known: p.opt.Columns != nil, Listed: p.opt.Columns, Columns: p.columns,
		Headers: p.opt.Headers, Stream: p.opt.Stream, Attachments: p.opt.Attachments,
		Domain: p.opt.MessageIDDomain, EightBit: p.opt.AllowEightBit, MaxSize: p.opt.MaxSize,
	}
	if r := p.opt.ReplyTo; r != nil {
		out.ReplyTo = &pinMailbox{r.Name, r.Address.String()}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("pin template %s: %w", p.tmpl.name, err)
	}
	return b, nil
}

// Unpin compiles a pinned program. A pin of a newer format is an error: an older
// program must leave such a campaign alone.
func Unpin(b []byte) (*Program, error) {
	p, err := unpin(b)
	if err != nil {
		return nil, fmt.Errorf("unpin template: %w", err)
	}
	return p, nil
}

func unpin(b []byte) (*Program, error) {
	var in pin
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, err
	}
	if head.Format != pinFormat {
		return nil, fmt.Errorf("format %d: this program reads format %d", head.Format, pinFormat)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, err
	}
	o := Options{
		Sender: in.Sender, Set: in.Set, Headers: in.Headers, Stream: in.Stream,
		Attachments: in.Attachments, MessageIDDomain: in.Domain,
		AllowEightBit: in.EightBit, MaxSize: in.MaxSize,
	}
	if in.Known {
		o.Columns = append([]string{}, in.Listed...)
	}
	var err error
	if o.From, err = in.From.mailbox(); err != nil {
		return nil, err
	}
	if in.ReplyTo != nil {
		reply, err := in.ReplyTo.mailbox()
		if err != nil {
			return nil, err
		}
		o.ReplyTo = &reply
	}
	t, err := Parse(in.Name, in.Source)
	if err != nil {
		return nil, err
	}
	p, err := t.Compile(o)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(p.columns, in.Columns) {
		return nil, errors.New("its columns are not those it was stored with")
	}
	return p, nil
}

func (m pinMailbox) mailbox() (Mailbox, error) {
	a, err := mail.ParseAddress(m.Address)
	if err != nil {
		return Mailbox{}, err
	}
	return Mailbox{m.Name, a}, nil
}
