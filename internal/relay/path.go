package relay

import (
	"bytes"
	"strings"
)

// maxPath is RFC 5321 section 4.5.3.1.3's, brackets included.
const maxPath = 256

// path reads "FROM:<address> parameters" or "TO:<...>". It returns the reply that refuses
// it, or "".
func (c *conn) path(arg []byte, keyword string) (address string, params []byte, refusal string) {
	syntax := "501 5.5.4 Syntax: " + keyword + "<address>"
	if len(arg) < len(keyword) || !strings.EqualFold(string(arg[:len(keyword)]), keyword) {
		return "", nil, syntax
	}
	rest := arg[len(keyword):]
	if !c.strict() {
		rest = bytes.TrimLeft(rest, " ") // a space there is common and wrong
	}
	if len(rest) < 2 || rest[0] != '<' {
		return "", nil, syntax
	}
	end := closing(rest)
	if end < 0 || (end+1 < len(rest) && rest[end+1] != ' ') {
		return "", nil, syntax
	}
	if end+1 > maxPath {
		return "", nil, "553 5.1.3 Address too long"
	}
	a := rest[1:end]
	if !c.mailbox(a) && (len(a) > 0 || keyword != "FROM:") {
		return "", nil, "553 5.1.3 Bad address syntax"
	}
	if keyword == "FROM:" {
		return c.intern(a), rest[end+1:], ""
	}
	return string(a), rest[end+1:], ""
}

// intern spares an allocation for the sender, which is nearly always the last one's.
func (c *conn) intern(from []byte) string {
	if string(from) != c.sender {
		c.sender = string(from)
	}
	return c.sender
}

// closing returns where the path that begins at b[0] ends, minding quoted local parts
// such as <"a>b"@example.com>, or -1.
func closing(b []byte) int {
	quoted := false
	for i := 1; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// mailbox reports whether a is local@domain of printable bytes without space. Bytes above
// ASCII pass where SMTPUTF8 is offered.
func (c *conn) mailbox(a []byte) bool {
	at := bytes.LastIndexByte(a, '@')
	if at < 1 || at == len(a)-1 {
		return false
	}
	for _, b := range a {
		if b <= ' ' || b == 0x7f {
			return false
		}
		if b > 0x7f && !c.offers("SMTPUTF8") {
			return false
		}
	}
	return !bytes.ContainsAny(a[at:], "<>\"\\")
}
