package worker

import (
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/templates"
	"github.com/sluicemail/sluice/throttle"
)

// work is one claimed block being sent. Its fields are guarded by the feed's mu.
type work struct {
	claim    *queue.Claim
	program  *templates.Program
	lots     []lot
	inFlight int         // taken and not done
	unsent   map[int]int // how often a begun message of a recipient came back unsent
	stopped  bool        // nothing more is taken from it
	parked   int64       // ms: the rest cannot be sent before; 0 = not parked
	done     chan struct{}
	isAside  bool
	aside    chan struct{} // closed when another block may be claimed in its place
}

// lot is those of a block who draw on the same budget.
type lot struct {
	class throttle.Class
	due   []int // recipients still to be taken, in the order of the list
}

// sort puts the recipients who are due into the lots of a work.
func (f *feed) sort(c *queue.Claim) []lot {
	now := f.ledger.Now()
	sender := domainOf(c.Campaign.From)
	var lots []lot
	at := map[string]int{}
	for i := range c.Standings {
		due, ok := c.DueAt(i, f.conf.Resend)
		if !ok || due > now {
			continue
		}
		group := f.group(domainOf(c.Block.Emails[i]))
		n, known := at[group]
		if !known {
			n = len(lots)
			at[group] = n
			lots = append(lots, lot{class: throttle.Class{Stream: string(f.stream), Group: group, Sender: sender}})
		}
		lots[n].due = append(lots[n].due, i)
	}
	return lots
}

func domainOf(mailbox string) string {
	for i := len(mailbox) - 1; i >= 0; i-- {
		if mailbox[i] == '@' {
			return mailbox[i+1:]
		}
	}
	return ""
}

// left is how many recipients are still to be taken.
func (w *work) left() int {
	n := 0
	for _, l := range w.lots {
		n += len(l.due)
	}
	return n
}

// over reports whether nothing of w will be taken any more.
func (w *work) over() bool { return w.stopped || w.parked != 0 || w.left() == 0 }

// first returns the lot whose next recipient stands first in the list, among those
// that take is true for; -1 where there is none.
func (w *work) first(take func(*lot) bool) int {
	best := -1
	for n := range w.lots {
		l := &w.lots[n]
		if len(l.due) > 0 && (best < 0 || l.due[0] < w.lots[best].due[0]) && take(l) {
			best = n
		}
	}
	return best
}

// take takes the next recipient of a lot.
func (w *work) take(n int) int {
	l := &w.lots[n]
	i := l.due[0]
	l.due = l.due[1:]
	w.inFlight++
	return i
}

// back puts a recipient that was taken into its lot again: before the others, or, if
// it had better wait, behind them.
func (w *work) back(i int, class throttle.Class, behind bool) {
	w.inFlight--
	for n := range w.lots {
		l := &w.lots[n]
		switch {
		case l.class != class:
			continue
		case behind:
			l.due = append(l.due, i)
		default:
			l.due = append([]int{i}, l.due...)
		}
		return
	}
	w.lots = append(w.lots, lot{class: class, due: []int{i}})
}

// drop takes those out of w that gone is true for.
func (w *work) drop(gone func(i int) bool) {
	for n := range w.lots {
		kept := w.lots[n].due[:0]
		for _, i := range w.lots[n].due {
			if !gone(i) {
				kept = append(kept, i)
			}
		}
		w.lots[n].due = kept
	}
}

func (f *feed) heldGroup(group string) (queue.Hold, bool) {
	if group == "" {
		return queue.Hold{}, false
	}
	return f.ledger.HeldGroup(f.stream, group)
}

// expire decides, by Redis's clock and just before MAIL, for those that are too old.
func (f *feed) expire(w *work) {
	if f.conf.TTL == 0 || w.over() {
		return
	}
	now := f.ledger.Now()
	if now < f.expiry(w.claim, -1).UnixMilli() {
		return
	}
	w.drop(func(i int) bool {
		if now < f.expiry(w.claim, i).UnixMilli() {
			return false
		}
		r := w.claim.Standings[i].Reply
		if r.Text == "" {
			r.Text = "not sent within " + f.conf.TTL.String()
		}
		f.ledger.Decide(w.claim, i, mail.Expired, r)
		return true
	})
}

// expiresIn is how long it takes until the first of those at hand can be too old; false
// where none can.
func (f *feed) expiresIn() (left time.Duration, expires bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conf.TTL == 0 {
		return 0, false
	}
	now := time.UnixMilli(f.ledger.Now())
	for _, w := range f.works {
		if d := f.expiry(w.claim, -1).Sub(now); !expires || d < left {
			left, expires = d, true
		}
	}
	return left, expires
}

// expiry is when recipient i of a claim is too old to be sent to; -1: the first of
// them can be.
func (f *feed) expiry(c *queue.Claim, i int) time.Time { return f.born(c, i).Add(f.conf.TTL) }

// born is when a recipient's age began. Whoever was taken up again by an operator is as
// young as that.
func (f *feed) born(c *queue.Claim, i int) time.Time {
	born := c.Campaign.Created
	if c.Campaign.Start.After(born) {
		born = c.Campaign.Start
	}
	if i >= 0 {
		if again := time.UnixMilli(c.Standings[i].Reopened); again.After(born) {
			born = again
		}
	}
	return born
}
