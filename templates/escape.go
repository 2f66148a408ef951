package templates

import "strings"

// escape is what a place does to its value.
type escape uint8

const (
	escapeNone     escape = iota // plain text
	escapeCollapse               // plain text with white space collapsed: subjects, text made from HTML
	escapeHTML                   // HTML text and quoted attributes
	escapeQuery                  // part of a URL, after ?
	escapePath                   // part of a URL, before ?, in an attribute
	escapeURL                    // a whole URL in an attribute
	escapePathText               // as escapePath, in text made from HTML
	escapeURLText                // as escapeURL, in text made from HTML
	numEscapes
)

func escapes() []escape {
	all := make([]escape, numEscapes)
	for i := range all {
		all[i] = escape(i)
	}
	return all
}

// unsafeURL is what html/template puts where a URL's scheme could run a program.
const unsafeURL = "#ZgotmplZ"

// append appends s as it stands at such a place, with LF line ends.
func (e escape) append(dst []byte, s string) []byte {
	switch e {
	case escapeCollapse:
		return appendCollapsed(dst, s)
	case escapeHTML:
		return appendHTML(dst, s)
	case escapeQuery:
		return appendURL(dst, s, urlQuery)
	case escapePath:
		return appendURL(dst, s, urlAttribute)
	case escapePathText:
		return appendURL(dst, s, urlText)
	case escapeURL, escapeURLText:
		if !safeURL(s) {
			return append(dst, unsafeURL...)
		}
		if e == escapeURL {
			return appendURL(dst, s, urlAttribute)
		}
		return appendURL(dst, s, urlText)
	}
	return append(dst, s...)
}

// appendCollapsed makes each run of white space one space.
func appendCollapsed(dst []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' || !isSpace(c) {
			continue
		}
		end := i + 1
		for end < len(s) && isSpace(s[end]) {
			end++
		}
		dst = append(dst, s[start:i]...)
		dst = append(dst, ' ')
		start, i = end, end-1
	}
	return append(dst, s[start:]...)
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' }

// htmlEntities are the replacements of html/template.
var htmlEntities = [256]string{
	'"': "&#34;", '&': "&amp;", '\'': "&#39;", '+': "&#43;", '<': "&lt;", '>': "&gt;",
}

func appendHTML(dst []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); i++ {
		if entity := htmlEntities[s[i]]; entity != "" {
			dst = append(dst, s[start:i]...)
			dst = append(dst, entity...)
			start = i + 1
		}
	}
	return append(dst, s[start:]...)
}

// urlMode says which characters stay as they are inside a URL.
type urlMode uint8

const (
	urlQuery     urlMode = iota // unreserved ones only (RFC 3986 section 2.3)
	urlText                     // reserved ones and %XX too
	urlAttribute                // as urlText, then escaped for HTML
)

const (
	unreserved = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	reserved   = "!#$&*+,/:;=?@[]"
	hexDigits  = "0123456789abcdef"
)

func appendURL(dst []byte, s string, mode urlMode) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case strings.IndexByte(unreserved, c) >= 0,
			mode != urlQuery && strings.IndexByte(reserved, c) >= 0,
			mode != urlQuery && c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			if entity := htmlEntities[c]; mode == urlAttribute && entity != "" {
				dst = append(dst, entity...)
			} else {
				dst = append(dst, c)
			}
		default:
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// safeURL reports whether s is relative, or http, https or mailto.
func safeURL(s string) bool {
	scheme, _, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(scheme, "/") {
		return true
	}
	return strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "mailto")
}
