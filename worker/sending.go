package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/throttle"
)

// sending is one message on its way to one recipient. It implements
// smtp.Transaction; a connection uses it from one goroutine.
type sending struct {
	feed   *feed
	work   *work
	index  int
	class  throttle.Class
	msg    smtp.Message
	buf    *[]byte
	intent *queue.Intent // nil until Begin
}

// heard is what became of one message, for all who learn from it.
type heard struct {
	campaign *queue.Campaign
	class    throttle.Class
	address  string
	line     int // of the list
	result   smtp.Result
	verdict  verdict.Verdict // of a refusal
}

// Message implements smtp.Transaction.
func (t *sending) Message() smtp.Message { return t.msg }

// Begin implements smtp.Transaction: it declares the intent.
func (t *sending) Begin() {
	t.feed.ledger.Turn(t.work.claim, true)
	t.intent = t.feed.ledger.Declare(t.work.claim, t.index)
}

// Confirm implements smtp.Transaction.
func (t *sending) Confirm(ctx context.Context) error { return t.feed.ledger.Confirm(ctx, t.intent) }

// maxUnsent is how often a connection may break with the same recipient's message
// begun before that recipient is deferred: its message may be what breaks them.
const maxUnsent = 5

// Done implements smtp.Transaction: it records what came of the message.
func (t *sending) Done(r smtp.Result) {
	f, l := t.feed, t.feed.ledger
	f.bufs.Put(t.buf)
	h := heard{campaign: t.work.claim.Campaign, class: t.class, address: t.msg.To, line: t.work.claim.Block.Lines[t.index], result: r}
	switch r.Kind {
	case smtp.Accepted:
		l.Record(t.intent, mail.Accepted, replyOf(r), 0)
	case smtp.Refused:
		h.verdict = f.conf.judge(r)
		if t.refused(h) {
			f.heard(h)
			return
		}
	case smtp.Unknown:
		l.Record(t.intent, mail.Unknown, mail.Reply{Text: errText("no reply to the end of the message", r.Err)}, 0)
	case smtp.Invalid:
		l.Decide(t.work.claim, t.index, mail.Rejected, mail.Reply{Text: errText("not sendable", r.Err)})
	default: // smtp.Unsent
		l.Turn(t.work.claim, false)
		again := false
		if t.answered(r) {
			h.verdict = f.conf.judge(r)
		}
		if r.Stage != smtp.StageMail && (pauses(h.verdict) || h.verdict.Action == verdict.RetrySlow) {
			again = t.refused(h) // the connection went, but this is about the recipient
		} else {
			again = t.unsent(r)
		}
		if again {
			f.heard(h)
			return
		}
	}
	f.heard(h)
	f.back(t.work)
}

func replyOf(r smtp.Result) mail.Reply {
	return mail.Reply{Code: r.Reply.Code, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text}
}

// answered reports whether an unsent message has a reply in the place of its own, rather
// than one to the message before it, or to the dial that it waited for. That is a 421: any
// other reply to what was not sent is about the connection, such as a synchronization
// error or what nobody had asked for, and says nothing of the message.
func (t *sending) answered(r smtp.Result) bool {
	var e *smtp.Error
	return t.intent != nil && r.Reply.Code == 421 && errors.As(r.Err, &e) && e.Stage == r.Stage
}

// refused does for the recipient what the verdict says, and reports whether it went
// back into the feed.
func (t *sending) refused(h heard) (again bool) {
	f, v, reply := t.feed, h.verdict, replyOf(h.result)
	switch {
	case notAboutThisMail(h.result.Stage, v):
		// No attempt is counted. What the verdict stops is stopped by who hears of it.
		f.ledger.Withdraw(t.intent)
		f.again(t, true)
		return true
	case v.Action == verdict.Suppress || v.Action == verdict.Fail,
		pauses(v) && reply.Code >= 500:
		f.ledger.Record(t.intent, mail.Rejected, reply, 0)
		return false
	}
	attempt := t.work.claim.Standings[t.index].Attempts + 1
	due := t.due(attempt, v)
	if why := t.givenUp(attempt, due); why != "" {
		reply.Text = why + ": " + reply.Text
		f.ledger.Record(t.intent, mail.Rejected, reply, 0)
		return false
	}
	f.ledger.Record(t.intent, mail.Deferred, reply, due)
	return false
}

// givenUp says why no attempt follows the given one, "" where one does.
func (t *sending) givenUp(attempt int, due int64) string {
	r := t.feed.conf.Retry
	switch {
	case r.Attempts > 0 && attempt >= r.Attempts:
		return fmt.Sprintf("given up after %d attempts", attempt)
	case r.Age > 0 && due >= t.feed.born(t.work.claim, t.index).Add(r.Age).UnixMilli():
		return fmt.Sprintf("given up at the age of %v", r.Age)
	}
	return ""
}

// notAboutThisMail reports whether a refusal says nothing of the message or its
// recipient: the relay wants us slower, or refused before it knew either. At DATA it
// knows the recipient, so what is said of a destination there is said as at RCPT.
func notAboutThisMail(stage smtp.Stage, v verdict.Verdict) bool {
	switch {
	case v.Action == verdict.ThrottleConnection:
		return true
	case !pauses(v):
		return false
	case stage == smtp.StageData:
		return v.Reach == verdict.Login || v.Reach == verdict.Relay || v.Reach == verdict.Connection ||
			v.Reach == verdict.Campaign && v.Action == verdict.PauseConfig
	}
	return stage == smtp.StageMail
}

// due is when the next attempt after the given one is made, in ms. It is never after
// the mail's expiry, at which it is looked at once more, to say so.
func (t *sending) due(attempt int, v verdict.Verdict) int64 {
	f := t.feed
	wait := max(f.conf.Retry.after(attempt, v.Action == verdict.RetrySlow || pauses(v)), v.Wait)
	due := f.ledger.Now() + wait.Milliseconds()
	if f.conf.TTL > 0 {
		due = min(due, f.expiry(t.work.claim, t.index).UnixMilli())
	}
	return due
}

// unsent puts the recipient back into the feed, and reports whether it did. No
// attempt is counted, unless its message seems to be what breaks connections.
func (t *sending) unsent(r smtp.Result) bool {
	f := t.feed
	if t.intent == nil {
		f.again(t, false)
		return true
	}
	// What went back before anything of it was written broke nothing.
	if r.Stage == smtp.StageIdle || f.strikes(t) < maxUnsent {
		f.ledger.Withdraw(t.intent)
		f.again(t, false)
		return true
	}
	attempt := t.work.claim.Standings[t.index].Attempts + 1
	text := errText(fmt.Sprintf("%d connections broke with this message begun", maxUnsent), r.Err)
	f.ledger.Record(t.intent, mail.Deferred, mail.Reply{Text: text}, t.due(attempt, verdict.Verdict{}))
	return false
}

func errText(what string, err error) string {
	if err == nil {
		return what
	}
	return what + ": " + err.Error()
}
