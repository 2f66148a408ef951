package smtp

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
)

// chunk is how much of a content is written at once. One write up to this size
// carries content, dot and the next envelope; of a larger content, all but the last
// chunk go out without the dot, so that a reply before the last one is known to be
// early.
const chunk = 64 << 10

// errLate is why a message goes back that waited too long behind another.
var errLate = errors.New("held too long behind a message that could not be confirmed")

// admit checks a message before anything of it is written.
func (s *session) admit(tx Transaction) *slot {
	m := s.free[len(s.free)-1]
	*m = slot{tx: tx, msg: tx.Message(), stage: StageIdle}
	if err := s.check(m); err != nil {
		tx.Done(Result{Kind: Invalid, Stage: StageMail, Err: err})
		*m = slot{}
		return nil
	}
	s.free = s.free[:len(s.free)-1]
	return m
}

func (s *session) check(m *slot) (err error) {
	if err = checkMailbox(m.msg.From); err != nil {
		return fmt.Errorf("sender: %w", err)
	}
	if err = checkMailbox(m.msg.To); err != nil {
		return fmt.Errorf("recipient: %w", err)
	}
	if m.dots, m.eightBit, err = checkContent(m.msg.Content); err != nil {
		return err
	}
	x := &s.c.ext
	if m.eightBit && !x.EightBit {
		return fmt.Errorf("%w: it has 8-bit octets, and the relay offers no 8BITMIME", ErrContent)
	}
	if size := int64(len(m.msg.Content)); x.Size > 0 && size > x.Size {
		return fmt.Errorf("%w: %d octets, more than %d", ErrSize, size, x.Size)
	}
	return nil
}

// declare counts m and declares the intent for it.
func (s *session) declare(m *slot) {
	s.began++
	m.tx.Begin()
}

// declareNext takes the message after cur and declares it before cur's own intent is
// waited for: so it has all of cur's round trip to be stored in, and both sides of it
// are busy. content appends its envelope, so cur must be one that leaves in one write:
// while a large one is uploaded the next would grow too old.
func (s *session) declareNext() {
	if s.c.mode != ModePipelined || s.behind > 0 || len(s.cur.msg.Content) > chunk {
		return
	}
	s.takeNext()
}

// takeNext takes and declares the message after cur, if there is one.
func (s *session) takeNext() {
	if s.next = s.tryTake(); s.next != nil {
		s.declare(s.next)
	}
}

// catchUp is for how many messages none is declared ahead after one could not follow at
// once: each that goes back has used up budget for nothing.
const catchUp = 32

// confirmedAfter notes how long an intent had to be waited for.
func (s *session) confirmedAfter(d time.Duration) {
	switch {
	case d > s.c.t.Prompt:
		s.behind = catchUp
	case s.behind > 0:
		s.behind--
	}
}

// undeclareNext gives the next message back if it may not follow any more, because of
// a drain or because its budget was taken too long ago.
func (s *session) undeclareNext() {
	switch {
	case s.next == nil:
	case s.ctx.Err() != nil:
		s.done(&s.next, Result{Kind: Unsent, Stage: StageIdle, Err: errDraining})
		s.began--
	case s.behind > 0:
		s.done(&s.next, Result{Kind: Unsent, Stage: StageIdle, Err: errLate})
		s.began--
	}
}

// append appends what is to be written for m's envelope; in lock-step that is nothing
// yet.
func (s *session) append(m *slot) {
	m.stage = StageMail
	if s.c.mode == ModeLockStep {
		return
	}
	s.led = s.owed == owedDot
	s.appendRset()
	s.appendMail(m)
	s.appendRcpt(m)
	s.appendData()
}

func (s *session) appendData() {
	s.out = append(s.out, "DATA\r\n"...)
	s.due++
}

// appendRset closes what the last transaction left open. It never goes alone: that
// would cost a round trip.
func (s *session) appendRset() {
	if s.leadRset {
		s.out = append(s.out, "RSET\r\n"...)
		s.leadRset, s.owed = false, owedRset
		s.due++
	}
}

func (s *session) appendMail(m *slot) {
	s.out = append(s.out, "MAIL FROM:<"...)
	s.out = append(s.out, m.msg.From...)
	s.out = append(s.out, '>')
	if m.eightBit {
		s.out = append(s.out, " BODY=8BITMIME"...)
	}
	if s.c.ext.HasSize {
		s.out = strconv.AppendInt(append(s.out, " SIZE="...), int64(len(m.msg.Content)), 10)
	}
	s.out = append(s.out, "\r\n"...)
	s.due++
}

func (s *session) appendRcpt(m *slot) {
	s.out = append(s.out, "RCPT TO:<"...)
	s.out = append(s.out, m.msg.To...)
	s.out = append(s.out, ">\r\n"...)
	s.due++
}

// appendLoneDot ends the content that a relay asked for although it had accepted no
// recipient (RFC 2920 section 3.1). After an accepted one it would deliver an empty
// mail; envelope sets leadDot nowhere else.
func (s *session) appendLoneDot() {
	s.out = append(s.out, ".\r\n"...)
	s.leadDot, s.owed = false, owedLone
	s.due++
}

// send writes what has been appended. From here on the relay may reply to it.
func (s *session) send() (int, error) {
	if len(s.out) == 0 {
		return 0, nil
	}
	s.c.allowed.Add(s.due)
	n, err := s.c.write(s.out)
	s.out, s.due = s.out[:0], 0
	return n, err
}

// flush is send for commands alone.
func (s *session) flush(stage Stage) *Error {
	if _, err := s.send(); err != nil {
		return s.broken(stage, err)
	}
	return nil
}

// broken is the end of a connection on which err came back from a write. The reply to
// an earlier dot may still be there, or still come. After it, what the relay said goes
// before what the system says about a write.
func (s *session) broken(stage Stage, err error) *Error {
	if s.prev != nil {
		if serr := s.settle(); serr != nil {
			return serr
		}
	}
	last := s.c.lastWords(stage)
	switch {
	case stage == StageIdle:
		return s.stale(last)
	case last.Reply.Code != 0 || s.c.closed.Load():
		return last
	}
	return &Error{Stage: stage, Err: ioError(err)}
}

// confirm waits until the intent of cur is on record. The reader's deadline bounds
// it: when that passes, or the relay hangs up, work ends.
func (s *session) confirm() *Error {
	asked := time.Now()
	s.c.replyBy(asked.Add(s.c.t.Confirm))
	if err := s.cur.tx.Confirm(s.work); err != nil {
		if s.c.failed.Load() {
			last := s.c.lastWords(StageData)
			err = fmt.Errorf("%w (%w)", err, last)
		}
		return &Error{Stage: StageData, Err: fmt.Errorf("%w: %w", ErrUnconfirmed, err)}
	}
	if s.c.failed.Load() { // hung up, or said something that nobody asked for
		return s.c.lastWords(StageData)
	}
	s.c.pulse.step()
	s.c.replyBy(time.Time{}) // a large content may take longer than that; its writes are bounded
	waited := time.Since(asked)
	s.dotted = asked.Add(waited) // content writes at once: looking at the clock again would tell nothing new
	s.confirmedAfter(waited)
	s.undeclareNext()
	return nil
}

// content writes cur's content and dot and, where a message is ready, the envelope
// of the next in the same write.
func (s *session) content() *Error {
	m := s.cur
	m.stage = StageEOD
	rest := m.msg.Content
	for len(rest) > chunk {
		var part []byte
		part, rest = cutLines(rest, chunk)
		s.out = appendStuffed(s.out, part, m.dots)
		if _, err := s.send(); err != nil {
			return s.cutShort(err)
		}
		s.dotted = time.Now() // uploading is no part of the relay's reply time
	}
	s.out = appendDot(appendStuffed(s.out, rest, m.dots), m.msg.Content)
	s.owed = owedDot
	dot := len(s.out)
	s.due++
	if s.c.mode == ModePipelined {
		if s.next == nil {
			s.takeNext()
		}
		if s.next != nil {
			s.append(s.next)
		}
	}
	fault.Here("smtp.beforeDot")
	fault.Part("smtp.content", s.out[:dot-len(".\r\n")], s.c.write)
	n, err := s.send()
	fault.Here("smtp.afterDot")
	if err != nil && n < dot {
		return s.cutShort(err)
	}
	// Where only what follows the dot was not written, the dot's reply may come yet.
	s.prev, s.cur, s.next = m, s.next, nil
	return nil
}

// cutShort settles a content whose dot did not leave. A relay that refuses it
// before its end has refused it; without a dot it cannot have taken it.
func (s *session) cutShort(err error) *Error {
	last := s.broken(StageEOD, err)
	if last.Reply.refusal() && last.Reply.Code != 421 {
		s.done(&s.cur, Result{Kind: Refused, Stage: StageEOD, Reply: last.Reply})
	}
	return last
}

// done settles one transaction and frees its slot.
func (s *session) done(m **slot, r Result) {
	old := *m
	*m = nil
	if r.Kind == Accepted || r.Kind == Refused {
		s.settled.Add(1)
		if r.Stage != StageMail {
			s.carried.Add(1)
		}
	}
	old.tx.Done(r)
	*old = slot{}
	s.free = append(s.free, old)
}

// fail settles everything under way on a connection that is over: what has its dot
// out is unknown, the rest is provably not sent.
func (s *session) fail(err *Error) {
	if s.prev != nil {
		s.done(&s.prev, Result{Kind: Unknown, Stage: StageEOD, Err: err})
	}
	for _, m := range []**slot{&s.cur, &s.next} {
		if *m != nil {
			s.done(m, Result{Kind: Unsent, Stage: (*m).stage, Reply: err.Reply, Err: err})
		}
	}
}
