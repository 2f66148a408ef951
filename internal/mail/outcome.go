package mail

import "fmt"

// Outcome is what is known about one recipient. A recipient has exactly one at
// any moment, and the campaign's counts are the counts of these.
type Outcome uint8

// The outcomes. Pending includes recipients being sent right now; Deferred is
// waiting for its next attempt; Invalid and Duplicate are decided at the door and
// never reach the queue, Suppressed there or just before sending. All but Pending and Deferred are final;
// Unknown is final until evidence or the operator settles it.
const (
	Pending Outcome = iota
	Deferred
	Accepted
	Rejected
	Unknown
	Expired
	Cancelled
	Invalid
	Duplicate
	Suppressed
	outcomes // how many there are
)

// NumOutcomes is the number of outcomes, for arrays indexed by Outcome.
const NumOutcomes = int(outcomes)

var outcomeNames = [...]string{"pending", "deferred", "accepted", "rejected", "unknown",
	"expired", "cancelled", "invalid", "duplicate", "suppressed"}

// String returns the word of the outside contract.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// ParseOutcome is the inverse of String.
func ParseOutcome(s string) (Outcome, error) {
	for i, n := range outcomeNames {
		if n == s {
			return Outcome(i), nil
		}
	}
	return 0, fmt.Errorf("outcome %q: want one of %v", s, outcomeNames)
}

// Final reports whether nothing more happens to a recipient by itself.
func (o Outcome) Final() bool { return o != Pending && o != Deferred }

// Reply is what the relay said about a message: the reply code, the enhanced
// status code of RFC 3463 where there was one, and the text with its lines
// joined by a space. The zero Reply means that nothing was said.
type Reply struct {
	Code     int
	Enhanced string
	Text     string
}

// String renders the reply as it would stand on one line.
func (r Reply) String() string {
	switch {
	case r.Code == 0:
		return r.Text
	case r.Enhanced == "":
		return fmt.Sprintf("%d %s", r.Code, r.Text)
	}
	return fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text)
}
