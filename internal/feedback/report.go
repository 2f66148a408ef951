package feedback

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/verdict"
)

// Status is what a report says.
type Status string

// The statuses.
const (
	Delivered  Status = "delivered"
	Bounced    Status = "bounced"    // it came back, or will not be tried any more
	Complained Status = "complained" // its reader called it spam
	Delayed    Status = "delayed"    // nothing is decided yet
)

// statuses are the words of relays' APIs for them.
var statuses = map[string]Status{
	"delivered": Delivered, "delivery": Delivered, "success": Delivered,
	"bounced": Bounced, "bounce": Bounced, "failed": Bounced, "failure": Bounced, "rejected": Bounced, "undelivered": Bounced, "blocked": Bounced,
	"complained": Complained, "complaint": Complained, "spam": Complained, "spamreport": Complained,
	"delayed": Delayed, "delay": Delayed, "deferred": Delayed, "deferral": Delayed,
}

func parseStatus(s string) (Status, error) {
	if s == "" {
		return "", fmt.Errorf("no status in it: want delivered, bounced, complained or delayed")
	}
	if st, ok := statuses[strings.ToLower(s)]; ok {
		return st, nil
	}
	return "", fmt.Errorf("status %q: want one of %s", clip(s), strings.Join(slices.Sorted(maps.Keys(statuses)), ", "))
}

// Report is what became of the mail of one recipient.
type Report struct {
	Address   mail.Address // zero = not told
	MessageID string       // without angle brackets; "" = not told
	Campaign  string       // name or id; "" = not told
	Status    Status
	Reply     verdict.Input // what was said, if anything
	Time      time.Time     // zero = not told
	// Trusted is set where the address counts even if no mail of ours is found.
	Trusted bool
}

// said reports whether the report gives a reason.
func (r *Report) said() bool {
	return r.Reply.Code != 0 || r.Reply.Enhanced != "" || r.Reply.Text != ""
}

// reply is the reason as one line.
func (r *Report) reply() string {
	return mail.Reply{Code: r.Reply.Code, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text}.String()
}

// check returns what is wrong with a report.
func (r *Report) check() error {
	if r.Address == (mail.Address{}) && r.MessageID == "" {
		return fmt.Errorf("neither an address nor a message_id in it")
	}
	return nil
}

// plainID takes a Message-ID out of its angle brackets.
func plainID(s string) string {
	s = strings.TrimSpace(s)
	if _, rest, ok := strings.Cut(s, "<"); ok {
		s, _, _ = strings.Cut(rest, ">")
	}
	if len(s) > 998 {
		return ""
	}
	return s
}

// parseTime reads a time as APIs write it: RFC 3339, local time, or a number of seconds
// or milliseconds since 1970.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime} { // both take a fraction
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 && n < 1e14 {
		if n < 1e11 {
			n *= 1000
		}
		return time.UnixMilli(int64(n)), nil
	}
	return time.Time{}, fmt.Errorf("time %q: want 2006-01-02T15:04:05+09:00, 2006-01-02 15:04:05 in local time, or seconds or milliseconds since 1970", clip(s))
}

// clip makes something foreign fit for a message.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
