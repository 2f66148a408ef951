package suppress

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

// Scope says which mail an entry bars: all of it, or one stream's.
type Scope uint8

// The scopes. The numbers are part of what is stored.
const (
	All    Scope = 0
	Auth   Scope = 1
	Normal Scope = 2
	Ad     Scope = 3
)

var scopeNames = [...]string{"all", "auth", "normal", "ad"}

// String returns all, auth, normal or ad.
func (s Scope) String() string {
	if int(s) < len(scopeNames) {
		return scopeNames[s]
	}
	return fmt.Sprintf("scope(%d)", uint8(s))
}

// ParseScope is the inverse of String; the empty string is All as well.
func ParseScope(s string) (Scope, error) {
	if s == "" {
		return All, nil
	}
	for i, n := range scopeNames {
		if n == s {
			return Scope(i), nil
		}
	}
	return All, fmt.Errorf("stream %q: want all, auth, normal or ad", clip(s, maxReason))
}

// scopeOf is the scope of one stream.
func scopeOf(s mail.Stream) (Scope, error) {
	if s == "" {
		return All, errors.New("no stream given")
	}
	return ParseScope(string(s))
}

// bars reports whether an entry of scope s stops mail of the scope of one stream.
func (s Scope) bars(stream Scope) bool { return s == All || s == stream }

// Source says who put an entry on the list.
type Source uint8

// The sources. The numbers are part of what is stored.
const (
	ByVerdict  Source = 1 // a reply of the relay said that there is no such address
	ByOperator Source = 2 // by hand
	ByImport   Source = 3 // from a file
	ByFeedback Source = 4 // what became of accepted mail said so
)

var sourceNames = [...]string{"", "verdict", "operator", "import", "feedback"}

// String returns verdict, operator, import or feedback.
func (s Source) String() string {
	if s.known() {
		return sourceNames[s]
	}
	return fmt.Sprintf("source(%d)", uint8(s))
}

func (s Source) known() bool { return s > 0 && int(s) < len(sourceNames) }

// ParseSource is the inverse of String.
func ParseSource(s string) (Source, error) {
	for i, n := range sourceNames[1:] {
		if n == s {
			return Source(i + 1), nil
		}
	}
	return 0, fmt.Errorf("source %q: want verdict, operator, import or feedback", clip(s, maxReason))
}

// reason is what an entry says that was given none.
func (s Source) reason() string {
	if !s.known() {
		return "for a reason that this program does not know"
	}
	return [...]string{"", "the relay refused the address", "added by hand", "imported", "bounced after it was accepted"}[s]
}

// Bounds of an entry's texts, in bytes of UTF-8.
const (
	maxReason = 80
	maxDetail = 160
)

// Entry bars one address from the mail of a scope.
type Entry struct {
	Address mail.Address
	Scope   Scope
	// Reason is a few words, at most 80 bytes without control characters; "" = the
	// usual one of the source. What is longer or otherwise wrong is an error from
	// people (ByOperator, ByImport), who can say it shorter; from the program's own
	// sources it is cut to fit, because the entry matters more than its words.
	Reason string
	Source Source    // must be given
	Time   time.Time // to the second; zero = now, by Redis's clock
	// Detail is the reply or the report that said so. What is kept of it is one
	// line of at most 160 bytes, without addresses and ids.
	Detail string
}

// prepared returns e as it is stored, or says what is wrong with it. The error
// holds no address.
func (e Entry) prepared() (Entry, error) {
	switch {
	case e.Address == (mail.Address{}):
		return e, errors.New("no address")
	case e.Scope > Ad:
		return e, fmt.Errorf("unknown %v", e.Scope)
	case !e.Source.known():
		return e, fmt.Errorf("unknown %v", e.Source)
	}
	e.Reason = strings.TrimSpace(e.Reason)
	if e.Source == ByVerdict || e.Source == ByFeedback {
		e.Reason = clip(tidy(e.Reason), maxReason)
	}
	if err := CheckReason(e.Reason); err != nil {
		return e, fmt.Errorf("reason: %w", err)
	}
	if e.Reason == "" {
		e.Reason = e.Source.reason()
	}
	e.Detail = tidy(e.Detail)
	if s := e.Time.Unix(); !e.Time.IsZero() && (s <= 0 || s > math.MaxUint32) {
		return e, fmt.Errorf("time %s: want one between 1970 and 2106", e.Time.UTC().Format(time.DateOnly))
	}
	return e, nil
}

// CheckReason says what is wrong with a reason, before an address is at hand.
func CheckReason(s string) error {
	switch {
	case len(s) > maxReason:
		return fmt.Errorf("longer than %d bytes (%d)", maxReason, len(s))
	case !utf8.ValidString(s):
		return errors.New("not valid UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("a control character or line break in it")
	}
	return nil
}

// Why says in one line, without the address, why somebody is on the list.
func (e Entry) Why() string {
	if e.Time.IsZero() { // it could not be read
		return e.Reason
	}
	stream := ""
	if e.Scope != All {
		stream = " for " + e.Scope.String()
	}
	return fmt.Sprintf("%s (on the suppression list%s since %s, by %v)", e.Reason, stream, e.Time.UTC().Format(time.DateOnly), e.Source)
}

// tidy makes one bounded line of a reply. Addresses are left out because they are
// nobody's business here, ids because with them no two replies are alike.
func tidy(s string) string {
	if s == "" {
		return ""
	}
	words := strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	})
	kept := words[:0]
	for _, w := range words {
		switch {
		case strings.Contains(w, "@"):
			w = "<…>"
		case isID(w):
			w = "…"
		}
		if n := len(kept); n > 0 && w == "…" && kept[n-1] == "…" {
			continue
		}
		kept = append(kept, w)
	}
	return clip(strings.Join(kept, " "), maxDetail)
}

// isID reports whether a word tells one mail from another: it has many digits and is
// neither a reply code nor an enhanced code.
func isID(w string) bool {
	digits, codes := 0, true
	for i := 0; i < len(w); i++ {
		switch c := w[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c != '.' && c != '-' && c != '#':
			codes = false
		}
	}
	return digits > 3 && (!codes || len(w) > len("550-5.7.515"))
}

// clip cuts s to at most n bytes of whole characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "…"
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}
