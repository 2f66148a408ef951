package mail

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 5321 section 4.5.3.1.
const (
	maxLocal   = 64
	maxDomain  = 255
	maxAddress = 254 // 256 octets of a path, less its angle brackets
)

// ErrNonASCIILocal marks an address whose local part is not ASCII: it can only be
// sent where the relay offers SMTPUTF8 (RFC 6531).
var ErrNonASCIILocal = errors.New("the part before @ is not ASCII, and the relay offers no SMTPUTF8")

// Address is a mailbox fit for the envelope: an unquoted dot-string local part
// (RFC 5321 section 4.1.2) and an ASCII domain, an internationalised one in
// Punycode. Nothing in it can end a command or add a parameter to it.
// The zero Address is no address.
type Address struct {
	local, domain string
}

// ParseAddress reads a bare mailbox such as hong@example.com. It takes neither
// display names nor quoted local parts, comments, address literals or source
// routes: none of them is a subscriber's address, and each has carried commands
// into an SMTP session somewhere. Surrounding white space is the caller's to trim.
func ParseAddress(s string) (Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, errors.New("no @ in it")
	}
	local, domain := s[:at], s[at+1:]
	if err := checkLocal(local); err != nil {
		return Address{}, err
	}
	domain, err := asciiDomain(domain)
	if err != nil {
		return Address{}, err
	}
	if len(local)+1+len(domain) > maxAddress {
		return Address{}, fmt.Errorf("longer than %d characters", maxAddress)
	}
	return Address{local, domain}, nil
}

// checkLocal accepts RFC 5321's Dot-string: atoms joined by single dots. Japanese
// carriers handed out addresses with a dot at the end or doubled for years, so
// those get a reason of their own.
func checkLocal(local string) error {
	switch {
	case local == "":
		return errors.New("nothing before @")
	case len(local) > maxLocal:
		return fmt.Errorf("more than %d characters before @", maxLocal)
	}
	dot := true
	for i := 0; i < len(local); i++ {
		c := local[i]
		switch {
		case c == '.':
			if dot {
				return errors.New("a dot at the start of, or doubled in, the part before @ (RFC 5321 wants it quoted, which is not supported)")
			}
			dot = true
			continue
		case c >= 0x80:
			return ErrNonASCIILocal
		case !atext[c]:
			return fmt.Errorf("the character %q is not allowed before @", rune(c))
		}
		dot = false
	}
	if dot {
		return errors.New("a dot just before @ (RFC 5321 wants it quoted, which is not supported)")
	}
	return nil
}

// atext of RFC 5322 section 3.2.3.
var atext = func() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~") {
		t[c] = true
	}
	return t
}()

func asciiDomain(d string) (string, error) {
	if ascii, plain := plainDomain(d); plain {
		return ascii, nil
	}
	for i := 0; i < len(d); i++ {
		if d[i] < 0x80 {
			continue
		}
		a, err := idna.Lookup.ToASCII(d)
		if err != nil {
			return "", fmt.Errorf("domain %q: %w", d, err)
		}
		if _, plain := plainDomain(a); !plain {
			return "", fmt.Errorf("domain %q is not a host name", d)
		}
		return a, nil
	}
	return "", fmt.Errorf("domain %q is not a host name with a dot", d)
}

// plainDomain reports whether d is letters, digits and inner hyphens in at least
// two labels of at most 63 characters (RFC 1035, 5321 section 2.3.5), and
// returns it in lower case.
func plainDomain(d string) (string, bool) {
	if d == "" || len(d) > maxDomain {
		return "", false
	}
	upper, label, dots, numeric := false, 0, 0, true
	for i := 0; i < len(d); i++ {
		c := d[i]
		switch {
		case c == '.':
			if label == 0 || d[i-1] == '-' {
				return "", false
			}
			label, numeric = 0, true
			dots++
			continue
		case c >= 'a' && c <= 'z':
			numeric = false
		case c >= 'A' && c <= 'Z':
			upper, numeric = true, false
		case c >= '0' && c <= '9':
		case c == '-':
			if label == 0 {
				return "", false
			}
			numeric = false
		default:
			return "", false
		}
		if label++; label > 63 {
			return "", false
		}
	}
	if label == 0 || dots == 0 || numeric || d[len(d)-1] == '-' {
		return "", false
	}
	if upper {
		d = strings.ToLower(d)
	}
	return d, true
}

// String returns the address as it stands in the envelope, or "" for the zero Address.
func (a Address) String() string {
	if a.domain == "" {
		return ""
	}
	return a.local + "@" + a.domain
}

// Domain returns the ASCII domain in lower case.
func (a Address) Domain() string { return a.domain }

// Key returns what two spellings of one mailbox share: the address in lower case.
// Case in local parts means nothing at any receiver that matters here.
func (a Address) Key() string { return strings.ToLower(a.local) + "@" + a.domain }

// Masked returns the address for logs and screens that others may see: the first
// letter and the domain.
func (a Address) Masked() string { return Mask(a.String()) }

// Mask hides the local part of anything that looks like an address. What it returns is
// valid UTF-8, whatever s is: it goes to logs and screens.
func Mask(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 {
		return "***"
	}
	_, first := utf8.DecodeRuneInString(s)
	return strings.ToValidUTF8(s[:first]+"***"+s[at:], "\uFFFD")
}
