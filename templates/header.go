package templates

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"unicode/utf8"
)

// Lengths of RFC 5322 section 2.1.1 and RFC 2047 section 2, without CRLF.
const (
	maxLine     = 998
	foldAt      = 76 // of 78: room for a closing comma or semicolon
	maxWord     = 75
	wordPrefix  = "=?UTF-8?B?"
	wordSuffix  = "?="
	maxUnfolded = 60 // a longer piece without a space goes into encoded-words
	maxHeaders  = 100
)

// appendText appends an unstructured field, folded. Text outside printable ASCII
// goes into encoded-words of whole characters. value holds no control characters
// and only single spaces.
func appendText(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	if plainText(value) && longestPiece(value) <= maxUnfolded {
		dst = appendFolded(dst, len(name)+2, value)
	} else {
		dst, _ = appendWords(dst, len(name)+2, value)
	}
	return append(dst, "\r\n"...)
}

// plainText reports whether value needs no encoding: printable ASCII that a
// reader cannot take for an encoded-word.
func plainText(value []byte) bool {
	for i, c := range value {
		if c < ' ' || c > '~' || c == '?' && i > 0 && value[i-1] == '=' {
			return false
		}
	}
	return true
}

func longestPiece(value []byte) int {
	longest, n := 0, 0
	for _, c := range value {
		if n++; c == ' ' {
			n = 0
		}
		longest = max(longest, n)
	}
	return longest
}

// appendFolded breaks lines in front of spaces, where the next piece would pass
// the limit. col is where the value starts.
func appendFolded(dst []byte, col int, value []byte) []byte {
	for first := true; len(value) > 0; first = false {
		end := 1
		for end < len(value) && value[end] != ' ' {
			end++
		}
		if !first && col+end > foldAt {
			dst = append(dst, "\r\n"...)
			col = 0
		}
		dst = append(dst, value[:end]...)
		col += end
		value = value[end:]
	}
	return dst
}

// appendWords appends value as encoded-words (RFC 2047), each at most 75
// characters and made of whole characters, each but the first on a line of its
// own. It returns the column that the last one ends in.
func appendWords(dst []byte, col int, value []byte) ([]byte, int) {
	for first := true; len(value) > 0; first = false {
		if !first {
			dst = append(dst, "\r\n "...)
			col = 1
		}
		room := (min(maxWord, foldAt-col) - len(wordPrefix) - len(wordSuffix)) / 4 * 3
		n := min(max(room, utf8.UTFMax), len(value))
		for n > 0 && n < len(value) && !utf8.RuneStart(value[n]) {
			n--
		}
		start := len(dst)
		dst = append(dst, wordPrefix...)
		dst = base64.StdEncoding.AppendEncode(dst, value[:n])
		dst = append(dst, wordSuffix...)
		col += len(dst) - start
		value = value[n:]
	}
	return dst, col
}

// appendMailbox appends From or Reply-To.
func appendMailbox(dst []byte, field string, m Mailbox) []byte {
	dst = append(dst, field...)
	dst = append(dst, ": "...)
	col, name := len(field)+2, m.Name
	switch {
	case name == "":
		dst = append(dst, m.Address.String()...)
		return append(dst, "\r\n"...)
	case plainText([]byte(name)) && len(name) <= maxUnfolded:
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
		dst = append(dst, quoted...)
		col += len(quoted)
	default:
		dst, col = appendWords(dst, col, []byte(name))
	}
	if col+len(" <>")+len(m.Address.String()) > foldAt {
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, " <"...)
	dst = append(dst, m.Address.String()...)
	return append(dst, ">\r\n"...)
}

func checkDisplayName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return errors.New("the display name is not valid UTF-8")
	case hasControl(name):
		return errors.New("the display name contains a line break or another control character")
	case len(name) > 255:
		return errors.New("the display name is longer than 255 bytes")
	}
	return nil
}

// hasControl reports whether s holds what must never reach a header: CR, LF, NUL
// and the other control characters, C1 included.
func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == 0x7f || c == 0xc2 && i+1 < len(s) && s[i+1] < 0xa0 {
			return true
		}
	}
	return false
}

// ownHeaders are written by the program, or by servers on the way.
var ownHeaders = []string{"Date", "From", "To", "Cc", "Bcc", "Subject", "Message-Id", "Mime-Version",
	"Reply-To", "Sender", "Return-Path", "Received", "Dkim-Signature", "Content-Type",
	"Content-Transfer-Encoding", "Content-Disposition", "Content-Id", "Content-Md5", "Content-Description"}

// checkHeaderNames takes names of [A-Za-z0-9-] that are not ours, each once. Every
// relay has a bound on the header; and each field is compiled as a template of its own.
func checkHeaderNames(headers []Header) error {
	if len(headers) > maxHeaders {
		return fmt.Errorf("%d further headers: at most %d", len(headers), maxHeaders)
	}
	seen := map[string]bool{}
	for _, h := range headers {
		key := textproto.CanonicalMIMEHeaderKey(h.Name)
		switch {
		case h.Name == "" || len(h.Name) > 50:
			return fmt.Errorf("header %q: a name has 1 to 50 characters", h.Name)
		case strings.Trim(h.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "":
			return fmt.Errorf("header %q: a name has letters, digits and hyphens only", h.Name)
		case slices.Contains(ownHeaders, key) || strings.HasPrefix(key, "Resent-"):
			return fmt.Errorf("header %q: written by the program itself", h.Name)
		case seen[key]:
			return fmt.Errorf("header %q: given twice", h.Name)
		case !utf8.ValidString(h.Value) || hasControl(h.Value):
			return fmt.Errorf("header %q: the value contains a line break or another control character", h.Name)
		case strings.TrimSpace(h.Value) == "":
			return fmt.Errorf("header %q: no value", h.Name)
		}
		seen[key] = true
	}
	return nil
}

// appendCustom appends a further header field. ASCII stays as it is, since the
// field may have a grammar of its own; it is folded at spaces.
func appendCustom(dst []byte, name string, value []byte) ([]byte, error) {
	if len(value) == 0 {
		return dst, fmt.Errorf("header %q: empty", name)
	}
	if !plainText(value) {
		if isListHeader(name) {
			return dst, fmt.Errorf("header %q: holds URLs, which are ASCII", name)
		}
		return appendText(dst, name, value), nil
	}
	if len(name)+2+longestPiece(value) > maxLine {
		return dst, fmt.Errorf("header %q: longer than %d characters without a space to fold at", name, maxLine)
	}
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = appendFolded(dst, len(name)+2, value)
	return append(dst, "\r\n"...), nil
}

// isListHeader reports whether a field holds URLs in angle brackets (RFC 2369).
func isListHeader(name string) bool {
	return len(name) > 5 && strings.EqualFold(name[:5], "List-") && !strings.EqualFold(name, "List-Id")
}
