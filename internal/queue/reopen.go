package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
)

// Selection says which recipients of a campaign an operator means. Zero fields select
// everybody.
type Selection struct {
	Outcomes []mail.Outcome
	Codes    []Code
}

// has reports whether a recipient is meant.
func (s Selection) has(st *Standing) bool {
	if !slices.Contains(s.Outcomes, st.Outcome) {
		return false
	}
	return len(s.Codes) == 0 || slices.ContainsFunc(s.Codes, func(c Code) bool { return c.matches(st.Reply) })
}

// Code is a pattern of reply codes: a code (550), an enhanced one (5.1.1), and either
// with x for any number in a place (4xx, 5.7.x).
type Code string

// ParseCode reads a pattern. The enhanced codes are those of RFC 3463 section 2.
func ParseCode(s string) (Code, error) {
	c := Code(strings.ToLower(strings.TrimSpace(s)))
	parts := c.places()
	ok := len(parts) == 3 && parts[0] != "x" && strings.Contains("245", parts[0])
	for i, p := range parts {
		longest := 3
		if i == 0 || !c.enhanced() {
			longest = 1
		}
		ok = ok && p != "" && len(p) <= longest && (p == "x" || strings.Trim(p, "0123456789") == "")
	}
	if !ok {
		return "", fmt.Errorf("code %q: want a reply code such as 550 or 4xx, or an enhanced one such as 5.1.1 or 5.7.x", s)
	}
	return c, nil
}

func (c Code) enhanced() bool { return strings.Contains(string(c), ".") }

// places are the three numbers of an enhanced code, or the three digits of a code.
func (c Code) places() []string {
	if c.enhanced() {
		return strings.Split(string(c), ".")
	}
	return strings.Split(string(c), "")
}

// matches reports whether a reply bears the code.
func (c Code) matches(r mail.Reply) bool {
	said := Code(r.Enhanced)
	if !c.enhanced() {
		said = Code(fmt.Sprint(r.Code))
	}
	want, got := c.places(), said.places()
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != "x" && want[i] != got[i] {
			return false
		}
	}
	return true
}

// Changed is what a command did to a campaign's recipients, by the outcome they had.
type Changed struct {
	Outcomes [mail.NumOutcomes]int
	// Aside counts recipients whose records do not decode: nothing can be decided of
	// them before they are repaired.
	Aside int
}

// Total is the number of recipients changed.
func (c Changed) Total() (n int) {
	for _, k := range c.Outcomes {
		n += k
	}
	return n
}

// Reopen has the selected recipients sent to again, at once: who is Deferred is due
// now, who is Rejected, Unknown or Expired gets a further round of attempts, the age
// counted anew. Nobody who was accepted is reopened, and repeating the call reopens
// nobody twice. With dry it only counts. A cancelled campaign is ErrCancelled.
func (q *Queue) Reopen(ctx context.Context, c *Campaign, sel Selection, dry bool) (Changed, error) {
	h, err := q.heldBy(ctx, c)
	if err != nil {
		return Changed{}, err
	}
	if h != nil && h.State == HoldCancelled {
		return Changed{}, ErrCancelled
	}
	now, err := q.now(ctx)
	if err != nil {
		return Changed{}, q.unreachable(err)
	}
	return q.amend(ctx, c, dry, func(s *Standing) bool {
		if !sel.has(s) {
			return false
		}
		switch s.Outcome {
		case mail.Deferred:
			if s.Due <= now {
				return false
			}
			s.Due = now
		case mail.Rejected, mail.Unknown, mail.Expired:
			s.Apply(Evidence{Kind: Reopen, Attempt: s.Attempts, Round: s.round + 1, Time: now})
		default:
			return false
		}
		return true
	})
}

// SettleUnknown decides that whoever is Unknown was Accepted, or Rejected: an operator
// has found out, and why says how. A reply of the relay that still comes counts more.
func (q *Queue) SettleUnknown(ctx context.Context, c *Campaign, as mail.Outcome, why string) (Changed, error) {
	if as != mail.Accepted && as != mail.Rejected {
		return Changed{}, fmt.Errorf("settle as %s: want accepted or rejected", as)
	}
	now, err := q.now(ctx)
	if err != nil {
		return Changed{}, q.unreachable(err)
	}
	return q.amend(ctx, c, false, func(s *Standing) bool {
		if s.Outcome != mail.Unknown {
			return false
		}
		s.Apply(Evidence{Kind: Settled, Attempt: s.Attempts, Round: s.round, Outcome: as, Reply: mail.Reply{Text: why}, Time: now})
		return s.Outcome == as
	})
}

// amend changes what is known of a campaign's recipients, block by block, by what
// decide does to each; it reports whether it did. Blocks that are being worked on are
// changed too: who holds one keeps to what it knew, and the block comes back after it.
func (q *Queue) amend(ctx context.Context, c *Campaign, dry bool, decide func(*Standing) bool) (all Changed, err error) {
	if !c.Open {
		return all, fmt.Errorf("%w: %q is still being stored; repeat its sluice send first", ErrNotOpen, c.Name)
	}
	now, err := q.now(ctx)
	if err != nil {
		return all, q.unreachable(err)
	}
	for n := range c.Blocks {
		var part Changed
		st, changed, err := q.refold(ctx, refold{campaign: c.ID, n: n, size: c.blockSize(n), change: func(st []Standing) int {
			part = Changed{}
			for i := range st {
				if before := st[i].Outcome; decide(&st[i]) {
					part.Outcomes[before]++
				}
			}
			if dry {
				return 0
			}
			return part.Total()
		}})
		if errors.Is(err, errCorrupt) {
			all.Aside += c.blockSize(n)
			continue
		}
		// A call before this one may have ended between changing and touching.
		if err == nil && (changed > 0 || !dry && overdueNow(st, now)) {
			err = q.touchBlock(ctx, q.rdb, c.Stream, blockID(c.ID, n))
		}
		if err != nil {
			return all, fmt.Errorf("block %d of campaign %s (the blocks before are done; repeating the command does the rest): %w", n, c.Name, err)
		}
		for o, k := range part.Outcomes {
			all.Outcomes[o] += k
		}
	}
	return all, nil
}

// overdueNow reports whether somebody deferred is due.
func overdueNow(st []Standing, now int64) bool {
	return slices.ContainsFunc(st, func(s Standing) bool { return s.Outcome == mail.Deferred && s.Due <= now })
}

// ErrNotOpen is returned for what can only be done to a campaign that is stored in full.
var ErrNotOpen = errors.New("the campaign is not open")
