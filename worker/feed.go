package worker

import (
	"context"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/templates"
	"github.com/sluicemail/sluice/throttle"
)

// ledger is the part of a member that a feed writes to.
type ledger interface {
	Turn(c *queue.Claim, come bool)
	Declare(c *queue.Claim, index int) *queue.Intent
	Confirm(ctx context.Context, in *queue.Intent) error
	Record(in *queue.Intent, o mail.Outcome, r mail.Reply, due int64)
	Decide(c *queue.Claim, index int, o mail.Outcome, r mail.Reply)
	Withdraw(in *queue.Intent)
	Held(s mail.Stream, campaign string) (queue.Hold, bool)
	HeldGroup(s mail.Stream, group string) (queue.Hold, bool)
	Now() int64
}

// budget is the part of the fleet's budget that a feed asks before each message.
type budget interface {
	TryMessage(c throttle.Class) bool
	Message(ctx context.Context, classes ...throttle.Class) (throttle.Class, error)
	Wait(c throttle.Class) time.Duration
}

// feed hands the due recipients of all claimed blocks of a stream to the stream's
// connections, the block claimed first before the others; who has no budget for the
// recipient's destination is passed over. It implements smtp.Source.
type feed struct {
	stream mail.Stream
	conf   Stream
	ledger ledger
	budget budget
	group  func(domain string) string // the destination group, "" = none
	heard  func(heard)                // told of every reply; must not block
	gaps   gaps                       // of the groups
	bufs   sync.Pool                  // *[]byte, the content of one message

	mu      sync.Mutex
	works   []*work
	stopped bool
	closed  bool                     // blocks are left to others for now
	refused []throttle.Class         // without budget at this turn; memory of pick
	before  []backlog                // what it has passed over at this turn
	asides  int                      // works that are set aside
	line    map[throttle.Class]int64 // ms: when the next block of the class is to come back
	last    string                   // campaign of the work added or asked for last
	wake    chan struct{}            // closed and replaced when work arrives
}

// add puts a claimed block's due recipients into the feed. The work's done is closed
// when the block has nothing left to send here.
func (f *feed) add(c *queue.Claim, p *templates.Program, suppressed map[int]string) *work {
	w := &work{claim: c, program: p, unsent: map[int]int{}, lots: f.sort(c),
		done: make(chan struct{}), aside: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.withhold(w, suppressed)
	w.stopped = f.stopped || f.closed
	f.last = c.Campaign.ID
	f.works = append(f.works, w)
	f.finish(w)
	f.rouse()
	return w
}

// rouse wakes who waits for work. The caller holds f.mu.
func (f *feed) rouse() {
	close(f.wake)
	f.wake = make(chan struct{})
}

// withhold ends those of a work who are on the suppression list, each with the reason.
// The caller holds f.mu.
func (f *feed) withhold(w *work, suppressed map[int]string) {
	if len(suppressed) == 0 {
		return
	}
	w.drop(func(i int) bool {
		why, listed := suppressed[i]
		if listed {
			f.ledger.Decide(w.claim, i, mail.Suppressed, mail.Reply{Text: why})
		}
		return listed
	})
}

// recheck withholds from the works in hand who came onto the suppression list.
func (f *feed) recheck(check func(*queue.Claim) map[int]string) {
	f.mu.Lock()
	works := append([]*work(nil), f.works...)
	f.mu.Unlock()
	for _, w := range works {
		listed := check(w.claim)
		f.mu.Lock()
		f.withhold(w, listed)
		f.finish(w)
		f.mu.Unlock()
	}
}

// stop ends the taking of recipients; what is in flight is finished.
func (f *feed) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.endWorks(func(*work) bool { return true })
}

// open says whether blocks are taken at this time. When it ends, those at hand end too.
func (f *feed) open(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed = !on; f.closed {
		f.endWorks(func(*work) bool { return true })
	}
}

// busy reports whether blocks are at hand, or messages of them under way.
func (f *feed) busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.works) > 0
}

// arrival is closed when work arrives.
func (f *feed) arrival() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wake
}

// stopCampaign ends the taking of a campaign's recipients, before the hold that is
// being written for it is seen.
func (f *feed) stopCampaign(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endWorks(func(w *work) bool { return w.claim.Campaign.ID == id })
}

// endWorks stops some works. The caller holds f.mu.
func (f *feed) endWorks(which func(*work) bool) {
	for _, w := range append([]*work(nil), f.works...) {
		if which(w) {
			w.stopped = true
			f.finish(w)
		}
	}
}

// finish takes a work off the feed once nothing of it is left, and reports whether it
// did. The caller holds f.mu.
func (f *feed) finish(w *work) bool {
	if w.inFlight > 0 || !w.over() {
		return false
	}
	for i, other := range f.works {
		if other == w {
			f.works = append(f.works[:i], f.works[i+1:]...)
			if w.isAside {
				f.asides--
			}
			close(w.done)
			return true
		}
	}
	return false
}

// TryNext implements smtp.Source.
func (f *feed) TryNext() (smtp.Transaction, smtp.Supply) {
	t, supply := f.take(f.budget.TryMessage)
	if t == nil { // a typed nil in the interface would not be nil
		return nil, supply
	}
	return t, supply
}

// Waiting implements smtp.Source.
func (f *feed) Waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.works {
		if !w.over() {
			return true
		}
	}
	return false
}

// Next implements smtp.Source.
func (f *feed) Next(ctx context.Context) (smtp.Transaction, error) {
	ask := f.budget.TryMessage
	for {
		f.mu.Lock()
		wake := f.wake
		f.mu.Unlock()
		t, supply := f.take(ask)
		ask = f.budget.TryMessage
		switch {
		case t != nil:
			return t, nil
		case supply == smtp.Throttled:
			if granted, ok := f.awaitBudget(ctx, wake); ok {
				// The token in hand is spent at the next turn, or lapses unused.
				ask = func(c throttle.Class) bool { return c == granted || f.budget.TryMessage(c) }
			}
		default:
			select {
			case <-ctx.Done():
			case <-wake:
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// recheckEvery bounds a wait for budget: by then a block may have to be parked.
const recheckEvery = time.Second

// awaitBudget waits until one of the works' lots has budget, and returns its class, or
// until other work arrives.
func (f *feed) awaitBudget(ctx context.Context, wake <-chan struct{}) (throttle.Class, bool) {
	ctx, cancel := context.WithTimeout(ctx, recheckEvery)
	defer cancel()
	go func() {
		select {
		case <-wake:
			cancel()
		case <-ctx.Done():
		}
	}()
	granted, err := f.budget.Message(ctx, f.classes()...)
	return granted, err == nil
}

// classes lists what the works' recipients draw on, without those that are held.
func (f *feed) classes() []throttle.Class {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []throttle.Class
	seen := map[throttle.Class]bool{}
	for _, w := range f.works {
		for _, l := range w.lots {
			if len(l.due) == 0 || seen[l.class] {
				continue
			}
			seen[l.class] = true
			if _, held := f.heldGroup(l.class.Group); !held {
				list = append(list, l.class)
			}
		}
	}
	return list
}

// take picks the next recipient, spends a token on it and renders its mail.
func (f *feed) take(token func(throttle.Class) bool) (*sending, smtp.Supply) {
	for {
		t, supply := f.pick(token)
		if supply != smtp.Ready {
			return nil, supply
		}
		err := f.render(t)
		if err == nil {
			return t, smtp.Ready
		}
		// The list was checked against the template when it was read, so this is a
		// fault of ours or of the stored data. It must not stop the others.
		f.ledger.Decide(t.work.claim, t.index, mail.Rejected, mail.Reply{Text: "template: " + err.Error()})
		f.back(t.work)
	}
}

// pick chooses the next recipient whose mail may begin now.
func (f *feed) pick(token func(throttle.Class) bool) (*sending, smtp.Supply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused, f.before = f.refused[:0], f.before[:0]
	for n := 0; n < len(f.works); {
		w := f.works[n]
		if !w.stopped {
			_, held := f.ledger.Held(f.stream, w.claim.Campaign.ID)
			w.stopped = held || w.claim.Lost()
		}
		f.expire(w)
		if f.finish(w) {
			continue
		}
		if t := f.pickFrom(w, token); t != nil {
			return t, smtp.Ready
		}
		if f.rest(w); !f.finish(w) {
			f.passOver(w)
			n++
		}
	}
	if len(f.refused) > 0 {
		return nil, smtp.Throttled
	}
	return nil, smtp.Empty
}

// pickFrom takes the next recipient of w that there is budget for; nil: none. The
// caller holds f.mu.
func (f *feed) pickFrom(w *work, token func(throttle.Class) bool) *sending {
	for !w.over() {
		n := w.first(func(l *lot) bool {
			_, held := f.heldGroup(l.class.Group)
			return !held && !f.wasRefused(l.class)
		})
		if n < 0 {
			return nil
		}
		class := w.lots[n].class
		if token(class) {
			return &sending{feed: f, work: w, index: w.take(n), class: class}
		}
		f.refused = append(f.refused, class)
	}
	return nil
}

func (f *feed) wasRefused(c throttle.Class) bool {
	for _, r := range f.refused {
		if r == c {
			return true
		}
	}
	return false
}

// render makes the mail of a recipient that was taken.
func (f *feed) render(t *sending) error {
	c, i := t.work.claim, t.index
	f.ledger.Turn(c, true)
	fault.HereFor("worker.render", c.Block.Emails[i])
	t.buf = f.bufs.Get().(*[]byte)
	id := templates.MessageID(c.Campaign.ID, c.Block.Lines[i], t.work.program.MessageIDDomain())
	content, err := t.work.program.Render((*t.buf)[:0], templates.Recipient{
		Email: c.Block.Emails[i], Values: c.Block.Row(nil, i), MessageID: id, Date: time.UnixMilli(f.ledger.Now()),
	})
	f.ledger.Turn(c, false) // it may wait for a connection; not deferred, since that would run in a panic
	if err != nil {
		f.bufs.Put(t.buf)
		return err
	}
	*t.buf = content
	t.msg = smtp.Message{From: c.Campaign.From, To: c.Block.Emails[i], Content: content}
	return nil
}

// next is the campaign whose mail is sent next, or was last; "" before the first.
func (f *feed) next() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.works) > 0 {
		f.last = f.works[0].claim.Campaign.ID
	}
	return f.last
}

// back notes that a taken recipient is done with.
func (f *feed) back(w *work) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.inFlight--
	f.finish(w)
}

// again puts a taken recipient back into the feed, before the others or behind them.
func (f *feed) again(t *sending, behind bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.work.back(t.index, t.class, behind)
	f.finish(t.work)
	f.rouse()
}

// strikes counts a begun message of t's recipient that came back unsent.
func (f *feed) strikes(t *sending) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.work.unsent[t.index]++
	return t.work.unsent[t.index]
}
