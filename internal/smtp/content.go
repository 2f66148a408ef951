package smtp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Bounds of RFC 5321 section 4.5.3.1.
const (
	maxLocal   = 64
	maxDomain  = 255
	maxMailbox = 254 // a path of 256 octets, less its angle brackets
	maxLine    = 998 // a text line, less its CRLF and the dot that may be stuffed
)

// checkContent accepts what can travel between DATA and the dot without being read
// as anything else by any relay, strict or lenient about line ends: CR only before
// LF, LF only after CR, no NUL, lines of at most 998 octets. (CVE-2023-51764 and
// its siblings show what a bare CR or LF does.) It reports whether a line begins
// with a dot and whether there are 8-bit octets.
func checkContent(b []byte) (dots, eightBit bool, err error) {
	if len(b) == 0 {
		return false, false, fmt.Errorf("%w: it is empty", ErrContent)
	}
	if at := bytes.IndexByte(b, 0); at >= 0 {
		return false, false, fmt.Errorf("%w: a NUL at octet %d", ErrContent, at)
	}
	dots, ok := evenLines(b)
	if !ok {
		if dots, err = checkLines(b); err != nil {
			return false, false, err
		}
	}
	return dots, hasEightBit(b), nil
}

// checkLines looks at one line after the other.
func checkLines(b []byte) (dots bool, err error) {
	lines := 0
	for rest := b; len(rest) > 0; {
		length := bytes.IndexByte(rest, '\n')
		if length == 0 || length > 0 && rest[length-1] != '\r' {
			return false, fmt.Errorf("%w: a bare LF in line %d", ErrContent, lines+1)
		}
		next := length + 1
		if length < 0 { // the last line, without CRLF
			length, next = len(rest)+1, len(rest)
		} else {
			lines++
		}
		if length-1 > maxLine {
			return false, fmt.Errorf("%w: a line of %d octets, more than %d", ErrContent, length-1, maxLine)
		}
		dots = dots || rest[0] == '.'
		rest = rest[next:]
	}
	if bytes.Count(b, []byte{'\r'}) != lines {
		return false, fmt.Errorf("%w: a bare CR", ErrContent)
	}
	return dots, nil
}

// evenLines is checkLines in a third of the time, for what a mail mostly is: it guesses
// that each line is as long as the one before, as in base64, and counts the CRs and LFs
// afterwards, which shows whether it passed over any. Where it is not sure of a content,
// it is not ok.
func evenLines(b []byte) (dots, ok bool) {
	lines, length := 0, 0 // length is that of a line, less its LF
	for n := 0; n < len(b); lines++ {
		end := n + length
		if end >= len(b) || b[end] != '\n' {
			if length = bytes.IndexByte(b[n:], '\n'); length < 0 {
				return false, false
			}
			end = n + length
		}
		if length == 0 || length-1 > maxLine || b[end-1] != '\r' {
			return false, false
		}
		dots = dots || b[n] == '.'
		n = end + 1
	}
	return dots, bytes.Count(b, []byte{'\n'}) == lines && bytes.Count(b, []byte{'\r'}) == lines
}

// hasEightBit reports whether b holds an octet above 127, looking at 32 a step.
func hasEightBit(b []byte) bool {
	var or uint64
	for ; len(b) >= 32; b = b[32:] {
		or |= binary.LittleEndian.Uint64(b) | binary.LittleEndian.Uint64(b[8:]) |
			binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
	}
	var last byte
	for _, c := range b {
		last |= c
	}
	return or&0x8080808080808080 != 0 || last >= 0x80
}

// appendStuffed appends whole lines of content with every leading dot doubled
// (RFC 5321 section 4.5.2). b begins at the start of a line.
func appendStuffed(dst, b []byte, dots bool) []byte {
	if !dots {
		return append(dst, b...)
	}
	for len(b) > 0 {
		if b[0] == '.' {
			dst = append(dst, '.')
		}
		end := bytes.IndexByte(b, '\n') + 1
		if end == 0 {
			end = len(b)
		}
		dst = append(dst, b[:end]...)
		b = b[end:]
	}
	return dst
}

// appendDot appends what ends a content: CRLF if it lacks one, and the lone dot.
func appendDot(dst, content []byte) []byte {
	if !bytes.HasSuffix(content, []byte("\r\n")) {
		dst = append(dst, "\r\n"...)
	}
	return append(dst, ".\r\n"...)
}

// cutLines splits b after the last line that ends within its first max octets.
// max is larger than any line.
func cutLines(b []byte, max int) (head, rest []byte) {
	if len(b) <= max {
		return b, nil
	}
	i := bytes.LastIndexByte(b[:max], '\n') + 1
	return b[:i], b[i:]
}

// checkMailbox accepts local@domain with an unquoted ASCII Dot-string and letters,
// digits and hyphens in the domain (RFC 5321 section 4.1.2): nothing in it can end
// the path, add an ESMTP parameter or start a command. The address itself is not
// repeated in the error.
func checkMailbox(s string) error {
	at := strings.LastIndexByte(s, '@')
	switch {
	case at <= 0:
		return fmt.Errorf("%w: nothing before @", ErrEnvelope)
	case at > maxLocal || len(s) > maxMailbox || len(s)-at-1 > maxDomain:
		return fmt.Errorf("%w: too long", ErrEnvelope)
	}
	if c, ok := checkDotString(s[:at], isAtext); !ok {
		return fmt.Errorf("%w: %q before @ (quoted local parts and SMTPUTF8 are not supported)", ErrEnvelope, c)
	}
	if c, ok := checkDotString(s[at+1:], isLDH); !ok {
		return fmt.Errorf("%w: %q in the domain", ErrEnvelope, c)
	}
	for label := range strings.SplitSeq(s[at+1:], ".") {
		if len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%w: the domain is no host name", ErrEnvelope)
		}
	}
	return nil
}

// checkDotString reports whether s is one or more atoms joined by single dots, and
// if not, the octet that is wrong.
func checkDotString(s string, atom func(byte) bool) (byte, bool) {
	dot := true
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.' && !dot:
			dot = true
		case c != '.' && atom(c):
			dot = false
		default:
			return c, false
		}
	}
	return '.', !dot
}

// isAtext is atext of RFC 5322 section 3.2.3.
func isAtext(c byte) bool {
	return isLDH(c) || strings.IndexByte("!#$%&'*+/=?^_`{|}~", c) >= 0
}

// isLDH is what a label of a host name is made of.
func isLDH(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || digit(c) || c == '-'
}
