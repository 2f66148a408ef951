package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Record is a DNS record to publish.
type Record struct {
	Name  string `json:"name"` // without the final dot
	Type  string `json:"type"`
	Value string `json:"value"` // as most DNS consoles take it: without quotes, in one piece
}

// maxTXT is the length of one string of a TXT record (RFC 1035 section 3.3).
const maxTXT = 255

// String is the record as a line of a zone file.
func (r Record) String() string {
	value := r.Value
	if r.Type == "TXT" {
		var quoted []string
		for s := r.Value; ; s = s[maxTXT:] {
			quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s[:min(len(s), maxTXT)])+`"`)
			if len(s) <= maxTXT {
				break
			}
		}
		value = strings.Join(quoted, " ")
	}
	return fmt.Sprintf("%s. IN %s %s", r.Name, r.Type, value)
}

// maxShown is how much of a text from outside a line shows, in runes.
const maxShown = 240

// clean makes a text from outside fit for a terminal and for one line.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > maxShown {
		s = string(runes[:maxShown]) + "…"
	}
	return s
}

// short renders d with three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < 100*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// median of at least one duration.
func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// timeOut reports whether err is the end of a deadline.
func timeOut(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// notFound reports whether DNS said that there is nothing, as against not answering.
func notFound(err error) bool {
	var de *net.DNSError
	return errors.As(err, &de) && de.IsNotFound
}

// dnsTrouble is the line of a look-up that got no answer: nothing is known.
func dnsTrouble(name string, err error) Line {
	what := clean(err.Error())
	var de *net.DNSError
	if errors.As(err, &de) {
		what = clean(de.Err)
	}
	return warned("DNS gave no answer about %s: %s", clean(name), what).
		to("try again; if it stays, check this machine's DNS servers and those of the domain, or ask another one with --resolver").halted()
}

// fqdn keeps the resolver from trying the search list.
func fqdn(name string) string { return strings.TrimSuffix(name, ".") + "." }

// tags reads a DKIM or DMARC tag list (RFC 6376 section 3.2). Of a repeated tag, which
// makes a record invalid, ok is false.
func tags(s string) (list map[string]string, first string, ok bool) {
	list = map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		name, value, found := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if name == "" && strings.TrimSpace(part) == "" {
			continue // the list may end in a semicolon
		}
		if _, again := list[name]; again || !found || name == "" {
			return nil, "", false
		}
		if first == "" {
			first = name
		}
		list[name] = strings.TrimSpace(value)
	}
	return list, first, first != ""
}
