package smtp

import (
	"slices"
	"strconv"
	"strings"
)

// Extensions is what the relay offered in its EHLO reply, after TLS where there is
// TLS; what it said before is forgotten (RFC 3207 section 4.2).
type Extensions struct {
	Pipelining bool // RFC 2920
	StartTLS   bool // RFC 3207
	EightBit   bool // 8BITMIME, RFC 6152
	SMTPUTF8   bool // RFC 6531; read, not used: envelopes are ASCII
	Chunking   bool // RFC 3030; read, not used
	DSN        bool // RFC 3461; read, not used
	HasSize    bool // SIZE, RFC 1870
	Size       int64
	Auth       []string // mechanisms, in upper case
	// RFC 9422; 0 where not stated. One recipient a transaction keeps every
	// RCPTMAX there can be.
	MailMax, RcptMax int
}

// parseExtensions reads the lines of an EHLO reply. The first is a greeting and
// means nothing, whatever is in it. Unknown and odd ones are passed over.
func parseExtensions(lines []string) Extensions {
	var x Extensions
	for _, line := range lines[min(1, len(lines)):] {
		fields := strings.Fields(strings.ToUpper(line))
		if len(fields) == 0 {
			continue
		}
		// The form "AUTH=LOGIN PLAIN" is from before RFC 2554; NHN still says it.
		if mech, old := strings.CutPrefix(fields[0], "AUTH="); old {
			fields = append([]string{"AUTH", mech}, fields[1:]...)
		}
		x.add(fields[0], fields[1:])
	}
	return x
}

func (x *Extensions) add(keyword string, params []string) {
	switch keyword {
	case "PIPELINING":
		x.Pipelining = true
	case "STARTTLS":
		x.StartTLS = true
	case "8BITMIME":
		x.EightBit = true
	case "SMTPUTF8":
		x.SMTPUTF8 = true
	case "CHUNKING":
		x.Chunking = true
	case "DSN":
		x.DSN = true
	case "SIZE":
		x.HasSize = true
		if len(params) > 0 { // no number, or 0: no fixed maximum
			x.Size, _ = strconv.ParseInt(params[0], 10, 64)
			x.Size = max(x.Size, 0)
		}
	case "AUTH":
		for _, m := range params {
			if m != "" && !slices.Contains(x.Auth, m) {
				x.Auth = append(x.Auth, m)
			}
		}
	case "LIMITS":
		for _, p := range params {
			name, value, _ := strings.Cut(p, "=")
			n, err := strconv.Atoi(value)
			if err != nil || n <= 0 {
				continue
			}
			switch name {
			case "MAILMAX":
				x.MailMax = n
			case "RCPTMAX":
				x.RcptMax = n
			}
		}
	}
}
