package templates

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

// DefaultMaxSize is the largest message in octets where nothing else is known:
// 25 MB, what the large mailbox providers take.
const DefaultMaxSize = 25_000_000

// Mailbox is an address with a display name, as in From and Reply-To.
type Mailbox struct {
	Name    string
	Address mail.Address
}

// Sender is the block that advertising mail has to show (Korea: Network Act
// Article 50(4); Japan: 特定電子メール法 Article 4). A template reaches it as
// {{.sender.name}}, {{.sender.email}}, {{.sender.phone}}, {{.sender.address}}.
type Sender struct {
	Name    string `json:"name,omitempty"`
	Email   string `json:"email,omitempty"`
	Phone   string `json:"phone,omitempty"`
	Address string `json:"address,omitempty"`
}

// SampleSender is a complete sender block to try things out with. It belongs to
// nobody, so mail that shows it must not leave the machine: callers allow it
// while the relay is on loopback.
func SampleSender() Sender {
	return Sender{
		Name:    "물길상점",
		Email:   "hello@mulgil.example",
		Phone:   "02-0000-0000",
		Address: "서울특별시 중구 물길로 1, 3층",
	}
}

func (s Sender) values() map[string]string {
	return map[string]string{"name": s.Name, "email": s.Email, "phone": s.Phone, "address": s.Address}
}

// Header is a further header field. Its value is text/template source: it may
// hold variables, as in <https://example.com/u/{{.token}}>.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Options bind a template to a campaign.
type Options struct {
	From    Mailbox
	ReplyTo *Mailbox
	Sender  Sender
	// Set gives variables one value for the whole campaign. It wins over a
	// column of that name.
	Set map[string]string
	// Columns are the columns that the list has, email aside; nil means not
	// known. A variable with a default, or one that may be empty, is fixed for
	// the campaign where the list has no such column.
	Columns     []string
	Headers     []Header
	Stream      mail.Stream
	Attachments []Attachment
	// MessageIDDomain stands behind the @ of Message-IDs; empty: From's domain.
	MessageIDDomain string
	// AllowEightBit lets text leave unencoded. The relay must offer 8BITMIME
	// (RFC 6152) for every message of the program.
	AllowEightBit bool
	// MaxSize is the largest message in octets; 0: DefaultMaxSize.
	MaxSize int
}

// VariableError says that a variable's value cannot be used. It never holds the
// value.
type VariableError struct {
	Variable string
	Reason   string
}

func (e *VariableError) Error() string {
	return fmt.Sprintf("variable %q: %s", e.Variable, e.Reason)
}

// check looks at what concerns neither the template nor a recipient.
func (o *Options) check() error {
	if _, err := mail.ParseStream(string(o.Stream)); err != nil {
		return err
	}
	if o.From.Address == (mail.Address{}) {
		return errors.New("From: no address")
	}
	if err := checkDisplayName(o.From.Name); err != nil {
		return fmt.Errorf("From: %w", err)
	}
	if o.ReplyTo != nil {
		if o.ReplyTo.Address == (mail.Address{}) {
			return errors.New("Reply-To: no address")
		}
		if err := checkDisplayName(o.ReplyTo.Name); err != nil {
			return fmt.Errorf("Reply-To: %w", err)
		}
	}
	if o.MessageIDDomain == "" {
		o.MessageIDDomain = o.From.Address.Domain()
	}
	if _, err := mail.ParseAddress("x@" + o.MessageIDDomain); err != nil {
		return fmt.Errorf("Message-ID domain: %w", err)
	}
	if o.MaxSize == 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.MaxSize < 0 {
		return fmt.Errorf("maximum size %d: want 0 or more octets", o.MaxSize)
	}
	if o.Stream == mail.Ad {
		if err := o.Sender.complete(); err != nil {
			return err
		}
	}
	return checkAttachments(o.Attachments)
}

func (s Sender) complete() error {
	values := s.values()
	for _, f := range senderFields {
		if values[f] == "" {
			return fmt.Errorf("advertising mail has to show the sender: set sender.%s", f)
		}
	}
	return nil
}

// constants returns the variables that have one value for the whole campaign.
func (o *Options) constants(u usage, defaults map[string]string) (map[string]string, error) {
	fixed := map[string]string{}
	for _, name := range u.names() {
		value, hasDefault := defaults[name]
		optional := o.Columns != nil && (hasDefault || !u.vars[name].needed)
		if optional && !slices.Contains(o.Columns, name) || hasDefault && o.Columns == nil {
			fixed[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Set)) {
		v := u.vars[name]
		if v == nil || name == emailVariable {
			return nil, fmt.Errorf("set %s: the template has no such variable (it has %s)", name, list(u.names()))
		}
		value, err := cleanValue(o.Set[name])
		if err != nil {
			return nil, &VariableError{name, err.Error()}
		}
		if value == "" && v.needed {
			return nil, &VariableError{name, "set to nothing, and the template shows it"}
		}
		fixed[name] = value
	}
	return fixed, nil
}

// check wants a value for each part of the sender block that is shown.
func (s Sender) check(shown map[string]bool) error {
	values := s.values()
	for _, f := range senderFields {
		if _, err := cleanValue(values[f]); err != nil {
			return &VariableError{"sender." + f, err.Error()}
		}
		if shown[f] && values[f] == "" {
			return &VariableError{"sender." + f, "empty, and the template shows it: set sender." + f}
		}
	}
	return nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// space is HTML's white space, which is what stands around cells of a list.
const space = " \t\n\r\f"

// cleanValue trims a value and makes its line ends LF.
func cleanValue(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errors.New("not valid UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("contains a NUL character")
	}
	if strings.IndexByte(s, '\r') >= 0 {
		s = strings.ReplaceAll(s, "\r\n", "\n")
		s = strings.ReplaceAll(s, "\r", "\n")
	}
	return strings.Trim(s, space), nil
}
