package templates

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"
)

// encoding is a Content-Transfer-Encoding (RFC 2045 section 6).
type encoding uint8

const (
	base64Encoding encoding = iota
	quotedPrintable
	eightBit
)

func (e encoding) String() string {
	return [...]string{"base64", "quoted-printable", "8bit"}[e]
}

// base64Line is how many octets make a line of 76 characters (RFC 2045 section 6.8).
const base64Line = 57

// appendBase64 appends src as whole lines, each ended by CRLF.
func appendBase64(dst, src []byte) []byte {
	for len(src) > 0 {
		n := min(base64Line, len(src))
		dst = base64.StdEncoding.AppendEncode(dst, src[:n])
		dst = append(dst, "\r\n"...)
		src = src[n:]
	}
	return dst
}

// appendQuoted appends src, whose line ends are CRLF, as quoted-printable that
// starts at the beginning of a line. Unless it is the last piece, it also ends at
// the beginning of a line, with a soft break if need be.
func appendQuoted(dst, src []byte, last bool) []byte {
	const width = 75 // of 76: room for the = of a soft break
	col := 0
	for i := 0; i < len(src); {
		if src[i] == '\r' && i+1 < len(src) && src[i+1] == '\n' {
			dst = append(dst, "\r\n"...)
			col = 0
			i += 2
			continue
		}
		n := quotedRun(src[i:], width, last)
		cost := 1
		if n == 0 {
			// The octets of a character stay on one line: some readers decode lines.
			_, n = utf8.DecodeRune(src[i:])
			cost = 3 * n
		}
		if col+cost > width {
			dst = append(dst, "=\r\n"...)
			col = 0
		}
		if cost > 1 {
			for _, c := range src[i : i+n] {
				dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
			}
		} else {
			n = min(n, width-col)
			dst = append(dst, src[i:i+n]...)
			cost = n
		}
		col += cost
		i += n
	}
	if col > 0 && !last {
		dst = append(dst, "=\r\n"...)
	}
	return dst
}

const upperHex = "0123456789ABCDEF"

// quotedRun returns how many of the first limit octets of src stand for
// themselves. White space does so unless a line ends behind it (RFC 2045 section
// 6.7(3)).
func quotedRun(src []byte, limit int, last bool) int {
	for i, c := range src[:min(limit, len(src))] {
		switch {
		case c == ' ' || c == '\t':
			if i+1 == len(src) && last || i+1 < len(src) && src[i+1] == '\r' {
				return i
			}
		case c < '!' || c > '~' || c == '=':
			return i
		}
	}
	return min(limit, len(src))
}

// appendCRLF appends src with its LF line ends as CRLF.
func appendCRLF(dst, src []byte) []byte {
	for {
		i := bytes.IndexByte(src, '\n')
		if i < 0 {
			return append(dst, src...)
		}
		dst = append(dst, src[:i]...)
		dst = append(dst, "\r\n"...)
		src = src[i+1:]
	}
}

// encodeWhole appends a document that has CRLF line ends already.
func (e encoding) encodeWhole(dst, doc []byte) []byte {
	switch e {
	case base64Encoding:
		return appendBase64(dst, doc)
	case quotedPrintable:
		return appendQuoted(dst, doc, true)
	}
	return append(dst, doc...)
}

// choose returns the smaller encoding for a document.
func choose(doc []byte, allowEightBit bool) encoding {
	crlf := appendCRLF(nil, doc)
	if allowEightBit && fitsEightBit(crlf) {
		return eightBit
	}
	if len(appendQuoted(nil, crlf, true)) <= len(appendBase64(nil, crlf)) {
		return quotedPrintable
	}
	return base64Encoding
}

// fitsEightBit reports whether a document with CRLF line ends can leave as it is.
func fitsEightBit(doc []byte) bool { return longestLine(doc) <= maxLine && !holdsBoundary(doc) }

func longestLine(doc []byte) int {
	longest := 0
	for len(doc) > 0 {
		line, rest, _ := bytes.Cut(doc, []byte("\r\n"))
		longest = max(longest, len(line))
		doc = rest
	}
	return longest
}

// holdsBoundary reports whether a reader could take part of doc for one of our
// boundaries. It looks for the last character of their prefix, the rarest in HTML.
func holdsBoundary(doc []byte) bool {
	for {
		i := bytes.IndexByte(doc, boundaryPrefix[len(boundaryPrefix)-1])
		if i < 0 {
			return false
		}
		if bytes.HasSuffix(doc[:i+1], []byte(boundaryPrefix)) {
			return true
		}
		doc = doc[i+1:]
	}
}
