package faulttest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

// row is one line of campaign report --json.
type row struct {
	Line       int    `json:"line"`
	Address    string `json:"address"`
	Outcome    string `json:"outcome"`
	Code       int    `json:"code"`
	Text       string `json:"text"`
	Attempts   int    `json:"attempts"`
	MaybeTwice bool   `json:"maybe_twice"`
}

// account is what the oracle found out about one campaign, or several together.
type account struct {
	Recipients int
	Accepted   int // in the ledger
	Refused    int // rejected, expired, cancelled, suppressed: nobody's mail went out
	Unknown    int
	Listed     int // maybe_twice in the report

	Lost      int // no mail, and the ledger does not say so; or never ended
	Doubled   int // more than one mail
	Unlisted  int // of those, how many neither as maybe_twice nor as unknown
	Mispaired int // a mail or a reply that belongs to somebody else
	Burnt     int // attempts counted beyond the first, of those accepted and not sent again

	examples []string
}

func (a *account) add(b account) {
	a.Recipients += b.Recipients
	a.Accepted += b.Accepted
	a.Refused += b.Refused
	a.Unknown += b.Unknown
	a.Listed += b.Listed
	a.Lost += b.Lost
	a.Doubled += b.Doubled
	a.Unlisted += b.Unlisted
	a.Mispaired += b.Mispaired
	a.Burnt += b.Burnt
	a.examples = append(a.examples, b.examples...)
}

// example keeps the first few faults in words.
func (a *account) example(format string, args ...any) {
	if len(a.examples) < 8 {
		a.examples = append(a.examples, fmt.Sprintf(format, args...))
	}
}

// judge compares the three accounts of one campaign: the addresses that went in, in
// order, the ledger's rows, and what the relay accepted.
func judge(input []string, rows []row, truth []relay.Accepted) account {
	a := account{Recipients: len(input)}
	accepted := map[string][]relay.Accepted{}
	for _, m := range truth {
		accepted[m.To] = append(accepted[m.To], m)
	}
	ledger := map[string]row{}
	for _, r := range rows {
		if r.Outcome == "duplicate" || r.Outcome == "invalid" {
			continue
		}
		if _, twice := ledger[r.Address]; twice {
			a.Mispaired++
			a.example("%s stands in the report twice", r.Address)
		}
		ledger[r.Address] = r
	}
	for _, to := range input {
		r, ok := ledger[to]
		if !ok {
			a.Lost++
			a.example("%s went in and is in no row of the report", to)
		} else {
			a.one(r, accepted[to])
		}
		delete(ledger, to)
		delete(accepted, to)
	}
	for to := range ledger {
		a.Mispaired++
		a.example("the report has %s, who never went in", to)
	}
	for to, mails := range accepted {
		a.Mispaired += len(mails)
		a.example("the relay has mail for %s, who never went in", to)
	}
	return a
}

// one judges one recipient by its row and the mails it got.
func (a *account) one(r row, mails []relay.Accepted) {
	if r.MaybeTwice {
		a.Listed++
	}
	switch r.Outcome {
	case "accepted":
		a.Accepted++
		if len(mails) == 0 {
			a.Lost++
			a.example("%s is accepted in the ledger, and the relay never had it", r.Address)
		}
		if r.Attempts > 1 && !r.MaybeTwice {
			a.Burnt += r.Attempts - 1
		}
		a.pairing(r, mails)
	case "unknown":
		a.Unknown++
	case "pending", "deferred":
		a.Lost++
		a.example("%s is still %s (%d attempts, %q)", r.Address, r.Outcome, r.Attempts, r.Text)
	default:
		a.Refused++
		if len(mails) > 0 && !r.MaybeTwice {
			a.Mispaired++
			a.example("%s is %s in the ledger, and the relay accepted it", r.Address, r.Outcome)
		}
	}
	if len(mails) > 1 {
		a.Doubled++
		if !r.MaybeTwice && r.Outcome != "unknown" {
			a.Unlisted++
			a.example("%s got %d mails and is not listed (%s, %d attempts)", r.Address, len(mails), r.Outcome, r.Attempts)
		}
	}
}

// pairing checks that a recipient's reply is the one that the relay gave to it, and
// its mail the one that was made for it.
func (a *account) pairing(r row, mails []relay.Accepted) {
	own := len(mails) == 0
	for _, m := range mails {
		words := strings.Fields(r.Text)
		own = own || slices.Contains(words, m.QueueID)
		if m.MessageID != mails[0].MessageID {
			a.Mispaired++
			a.example("%s got mails with two Message-IDs", r.Address)
		}
		if m.Content != nil && !bytes.Contains(m.Content, []byte("mark:"+r.Address+":")) {
			a.Mispaired++
			a.example("%s got somebody else's mail", r.Address)
		}
	}
	if !own && r.Text != "" {
		a.Mispaired++
		a.example("%s has the reply %q, which the relay gave to somebody else", r.Address, r.Text)
	}
}

// overshoot is the most events in any window of length per, less the limit; 0 where
// it was kept.
func overshoot(events []time.Time, limit int, per time.Duration) int {
	events = slices.Clone(events)
	slices.SortFunc(events, time.Time.Compare)
	most, first := 0, 0
	for last := range events {
		for events[last].Sub(events[first]) >= per {
			first++
		}
		most = max(most, last-first+1)
	}
	return max(0, most-limit)
}

// between counts events in [from, to).
func between(truth []relay.Accepted, from, to time.Time) (n int) {
	for _, m := range truth {
		if !m.Time.Before(from) && m.Time.Before(to) {
			n++
		}
	}
	return n
}

// resumed is how long after a moment the first mail was accepted on a connection that
// had carried none before it; 0 where there was none.
func resumed(truth []relay.Accepted, moment time.Time) time.Duration {
	old := map[int]bool{}
	for _, m := range truth {
		if m.Time.Before(moment) {
			old[m.Conn] = true
		}
	}
	for _, m := range truth {
		if !m.Time.Before(moment) && !old[m.Conn] {
			return m.Time.Sub(moment)
		}
	}
	return 0
}

// next is how long after a moment the next mail was accepted; 0 where there was none.
func next(truth []relay.Accepted, moment time.Time) time.Duration {
	for _, m := range truth {
		if m.Time.After(moment) {
			return m.Time.Sub(moment)
		}
	}
	return 0
}

func itoa(n int) string { return strconv.Itoa(n) }
