package worker

import (
	"context"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/templates"
)

// ledger is the part of a member that a feed writes to.
type ledger interface {
	Declare(c *queue.Claim, index int) *queue.Intent
	Confirm(ctx context.Context, in *queue.Intent) error
	Record(in *queue.Intent, o mail.Outcome, r mail.Reply, due int64)
	Decide(c *queue.Claim, index int, o mail.Outcome, r mail.Reply)
	Withdraw(in *queue.Intent)
	Held(s mail.Stream, campaign string) (queue.Hold, bool)
	Now() int64
}

// budget is the part of the fleet's budget that a feed asks before each message.
type budget interface {
	TryMessage(stream string) bool
	Message(ctx context.Context, stream string) error
}

// feed hands the due recipients of all claimed blocks of a stream to the stream's
// connections, the block claimed first before the others. It implements
// smtp.Source.
type feed struct {
	stream mail.Stream
	conf   Stream
	ledger ledger
	budget budget
	login  func(smtp.Reply) // called when the relay wants a login in mid-session
	bufs   sync.Pool        // *[]byte, the content of one message

	mu      sync.Mutex
	works   []*work
	stopped bool
	last    string        // campaign of the work added or asked for last
	wake    chan struct{} // closed and replaced when work arrives
}

// work is one claimed block being sent. Its fields are guarded by the feed's mu.
type work struct {
	claim    *queue.Claim
	program  *templates.Program
	due      []int       // recipients still to be taken, in order
	inFlight int         // taken and not done
	unsent   map[int]int // how often a begun message of a recipient came back unsent
	stopped  bool        // nothing more is taken from it
	done     chan struct{}
}

// maxUnsent is how often a connection may break with the same recipient's message
// begun before that recipient is deferred: its message may be what breaks them.
const maxUnsent = 5

func newFeed(s mail.Stream, conf Stream, l ledger, b budget, login func(smtp.Reply)) *feed {
	return &feed{
		stream: s, conf: conf, ledger: l, budget: b, login: login, wake: make(chan struct{}),
		bufs: sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }},
	}
}

// add puts a claimed block's due recipients into the feed and returns a channel
// that is closed when the block has nothing left to send here.
func (f *feed) add(c *queue.Claim, p *templates.Program) <-chan struct{} {
	w := &work{claim: c, program: p, unsent: map[int]int{}, done: make(chan struct{})}
	now := f.ledger.Now()
	for i := range c.Standings {
		if at, ok := c.Standings[i].DueAt(f.conf.Resend); ok && at <= now {
			w.due = append(w.due, i)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w.stopped = f.stopped
	f.last = c.Campaign.ID
	f.works = append(f.works, w)
	f.finish(w)
	close(f.wake)
	f.wake = make(chan struct{})
	return w.done
}

// stop ends the taking of recipients; what is in flight is finished.
func (f *feed) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	for _, w := range append([]*work(nil), f.works...) {
		w.stopped = true
		f.finish(w)
	}
}

// finish takes a work off the feed once nothing of it is left. The caller holds
// f.mu.
func (f *feed) finish(w *work) {
	if w.inFlight > 0 || (len(w.due) > 0 && !w.stopped) {
		return
	}
	for i, other := range f.works {
		if other == w {
			f.works = append(f.works[:i], f.works[i+1:]...)
			close(w.done)
			return
		}
	}
}

// TryNext implements smtp.Source.
func (f *feed) TryNext() (smtp.Transaction, smtp.Supply) {
	t, supply := f.take(f.budget.TryMessage)
	if t == nil { // a typed nil in the interface would not be nil
		return nil, supply
	}
	return t, supply
}

// Next implements smtp.Source.
func (f *feed) Next(ctx context.Context) (smtp.Transaction, error) {
	granted := func(string) bool { return true }
	ask := f.budget.TryMessage
	for {
		f.mu.Lock()
		wake := f.wake
		f.mu.Unlock()
		t, supply := f.take(ask)
		switch {
		case t != nil:
			return t, nil
		case supply == smtp.Throttled:
			if err := f.budget.Message(ctx, string(f.stream)); err != nil {
				return nil, err
			}
			ask = granted // the token in hand is spent at the next turn, or lapses unused
			continue
		}
		ask = f.budget.TryMessage
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wake:
		}
	}
}

// take picks the next recipient, spends a token on it and renders its mail.
func (f *feed) take(token func(string) bool) (*sending, smtp.Supply) {
	for {
		w, i, supply := f.pick(token)
		if supply != smtp.Ready {
			return nil, supply
		}
		t, err := f.render(w, i)
		if err == nil {
			return t, smtp.Ready
		}
		// The list was checked against the template when it was read, so this is a
		// fault of ours or of the stored data. It must not stop the others.
		f.ledger.Decide(w.claim, i, mail.Rejected, mail.Reply{Text: "template: " + err.Error()})
		f.back(w)
	}
}

// pick chooses the next recipient whose mail may begin now.
func (f *feed) pick(token func(string) bool) (*work, int, smtp.Supply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := 0; n < len(f.works); {
		w := f.works[n]
		if !w.stopped {
			_, held := f.ledger.Held(f.stream, w.claim.Campaign.ID)
			w.stopped = held || w.claim.Lost()
		}
		f.expire(w)
		if w.stopped || len(w.due) == 0 {
			before := len(f.works)
			f.finish(w)
			if len(f.works) == before {
				n++
			}
			continue
		}
		if !token(string(f.stream)) {
			return nil, 0, smtp.Throttled
		}
		i := w.due[0]
		w.due = w.due[1:]
		w.inFlight++
		return w, i, smtp.Ready
	}
	return nil, 0, smtp.Empty
}

// expire decides, by Redis's clock and just before MAIL, for those that are too
// old. All recipients of a campaign have the same age.
func (f *feed) expire(w *work) {
	if f.conf.TTL == 0 || w.stopped || len(w.due) == 0 || f.ledger.Now() < f.expiry(w.claim.Campaign).UnixMilli() {
		return
	}
	for _, i := range w.due {
		r := w.claim.Standings[i].Reply
		if r.Text == "" {
			r.Text = "not sent within " + f.conf.TTL.String()
		}
		f.ledger.Decide(w.claim, i, mail.Expired, r)
	}
	w.due = nil
}

func (f *feed) expiry(c *queue.Campaign) time.Time {
	born := c.Created
	if c.Start.After(born) {
		born = c.Start
	}
	return born.Add(f.conf.TTL)
}

// render makes the mail of recipient i.
func (f *feed) render(w *work, i int) (*sending, error) {
	c := w.claim
	buf := f.bufs.Get().(*[]byte)
	t := &sending{feed: f, work: w, index: i, buf: buf}
	id := templates.MessageID(c.Campaign.ID, c.Block.Lines[i], w.program.MessageIDDomain())
	content, err := w.program.Render((*buf)[:0], templates.Recipient{
		Email: c.Block.Emails[i], Values: c.Block.Row(nil, i), MessageID: id, Date: time.UnixMilli(f.ledger.Now()),
	})
	if err != nil {
		f.bufs.Put(buf)
		return nil, err
	}
	*buf = content
	t.msg = smtp.Message{From: c.Campaign.From, To: c.Block.Emails[i], Content: content}
	return t, nil
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

// again puts a taken recipient back into the feed, before the others.
func (f *feed) again(w *work, i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.due = append([]int{i}, w.due...)
	w.inFlight--
	f.finish(w)
	close(f.wake)
	f.wake = make(chan struct{})
}

// strikes counts a begun message of recipient i that came back unsent.
func (f *feed) strikes(w *work, i int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.unsent[i]++
	return w.unsent[i]
}
