package worker

import (
	"context"
	"fmt"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
)

// sending is one message on its way to one recipient. It implements
// smtp.Transaction; a connection uses it from one goroutine.
type sending struct {
	feed   *feed
	work   *work
	index  int
	msg    smtp.Message
	buf    *[]byte
	intent *queue.Intent // nil until Begin
}

// Message implements smtp.Transaction.
func (t *sending) Message() smtp.Message { return t.msg }

// Begin implements smtp.Transaction: it declares the intent.
func (t *sending) Begin() { t.intent = t.feed.ledger.Declare(t.work.claim, t.index) }

// Confirm implements smtp.Transaction.
func (t *sending) Confirm(ctx context.Context) error { return t.feed.ledger.Confirm(ctx, t.intent) }

// Done implements smtp.Transaction: it records what came of the message.
func (t *sending) Done(r smtp.Result) {
	f, w := t.feed, t.work
	f.bufs.Put(t.buf)
	reply := mail.Reply{Code: r.Reply.Code, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text}
	switch r.Kind {
	case smtp.Accepted:
		f.ledger.Record(t.intent, mail.Accepted, reply, 0)
	case smtp.Refused:
		if wantsLogin(r) {
			f.ledger.Withdraw(t.intent)
			f.login(r.Reply)
			f.again(w, t.index)
			return
		}
		t.refused(reply)
	case smtp.Unknown:
		f.ledger.Record(t.intent, mail.Unknown, mail.Reply{Text: errText("no reply to the end of the message", r.Err)}, 0)
	case smtp.Invalid:
		f.ledger.Decide(w.claim, t.index, mail.Rejected, mail.Reply{Text: errText("not sendable", r.Err)})
	default: // smtp.Unsent
		if t.unsent(r) {
			return
		}
	}
	f.back(w)
}

// refused records the relay's no: for good or until later, by the class of the
// reply.
func (t *sending) refused(reply mail.Reply) {
	l := t.feed.ledger
	if reply.Code >= 500 {
		l.Record(t.intent, mail.Rejected, reply, 0)
		return
	}
	attempt := t.work.claim.Standings[t.index].Attempts + 1
	l.Record(t.intent, mail.Deferred, reply, t.feed.due(t.work.claim.Campaign, attempt))
}

// due is when the next attempt after the given one is made. It is never after the
// mail's expiry, at which it is looked at once more, to say so.
func (f *feed) due(c *queue.Campaign, attempt int) int64 {
	due := f.ledger.Now() + f.conf.Retry.after(attempt).Milliseconds()
	if f.conf.TTL > 0 {
		due = min(due, f.expiry(c).UnixMilli())
	}
	return due
}

// unsent puts the recipient back into the feed, and reports whether it did. No
// attempt is counted, unless its message seems to be what breaks connections.
func (t *sending) unsent(r smtp.Result) bool {
	f, w := t.feed, t.work
	if t.intent == nil {
		f.again(w, t.index)
		return true
	}
	if f.strikes(w, t.index) < maxUnsent {
		f.ledger.Withdraw(t.intent)
		f.again(w, t.index)
		return true
	}
	attempt := w.claim.Standings[t.index].Attempts + 1
	text := errText(fmt.Sprintf("%d connections broke with this message begun", maxUnsent), r.Err)
	f.ledger.Record(t.intent, mail.Deferred, mail.Reply{Text: text}, f.due(w.claim.Campaign, attempt))
	return false
}

// wantsLogin reports whether the relay turned MAIL down because it does not take
// our login (RFC 4954 section 6): no recipient's fault.
func wantsLogin(r smtp.Result) bool {
	if r.Stage != smtp.StageMail {
		return false
	}
	switch r.Reply.Code {
	case 530, 534, 535, 538:
		return true
	}
	return false
}

func errText(what string, err error) string {
	if err == nil {
		return what
	}
	return what + ": " + err.Error()
}
