package interop

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// stored is one mail as a server keeps it.
type stored struct {
	to      string // the recipient of the envelope, by the server's own account
	content []byte // what was sent, in CRLF lines
}

// recipient finds the envelope's recipient in a server's Received field, or in what
// smtp-sink notes of RCPT.
var recipient = regexp.MustCompile(`(?m)(?:^X-Rcpt-Args: |\sfor\s+)<?([^\s<>;]+@[^\s<>;]+)>?`)

// parseStored takes apart a mail as it lies in a server's mailbox, in LF lines. The
// header fields that the server put in front are taken off; the first other field is
// the sender's, and so is everything after it.
func parseStored(raw []byte) (stored, error) {
	end := 0
	for end < len(raw) && isTrace(raw[end:]) {
		end += fieldLength(raw[end:])
	}
	if end == 0 {
		return stored{}, errors.New("no header field of the server's own in front")
	}
	found := recipient.FindSubmatch(raw[:end])
	if found == nil {
		return stored{}, fmt.Errorf("no recipient in %q", raw[:end])
	}
	content := bytes.ReplaceAll(raw[end:], []byte("\n"), []byte("\r\n"))
	return stored{to: string(found[1]), content: content}, nil
}

// isTrace reports whether b begins with a field that only a receiving server writes.
func isTrace(b []byte) bool {
	name, _, ok := strings.Cut(string(b[:min(len(b), 64)]), ":")
	if !ok {
		return false
	}
	switch strings.ToLower(name) {
	case "return-path", "received", "delivered-to", "x-original-to", "envelope-to", "delivery-date",
		"x-client-addr", "x-client-proto", "x-helo-args", "x-mail-args", "x-rcpt-args":
		return true
	}
	return false
}

// fieldLength is the length of the header field b begins with, continuation lines
// included.
func fieldLength(b []byte) int {
	n := 0
	for {
		end := bytes.IndexByte(b[n:], '\n') + 1
		if end == 0 {
			return len(b)
		}
		n += end
		if n == len(b) || b[n] != ' ' && b[n] != '\t' {
			return n
		}
	}
}

// difference shows where got departs from want, "" if it does not.
func difference(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, at-20):min(len(b), at+40)] }
	return fmt.Sprintf("%d octets instead of %d, different from octet %d on: got %q, want %q",
		len(got), len(want), at, around(got), around(want))
}
