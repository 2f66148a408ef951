package smtp

import (
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
)

// errClosing comes with a 421: the relay closes the connection.
var errClosing = errors.New("closed by the relay")

// errPipelining: the relay offers PIPELINING (RFC 2920) and cannot do it.
var errPipelining = errors.New("the relay breaks on pipelined commands")

// owedStage is the stage that the owed reply belongs to.
func (s *session) owedStage() Stage {
	switch s.owed {
	case owedDot, owedLone:
		return StageEOD
	case owedRset:
		return StageMail
	}
	return StageIdle
}

// settle brings everything still owed to an end, before QUIT or, where there is no
// pipelining, before the next command.
func (s *session) settle() *Error {
	if s.leadDot {
		s.appendLoneDot()
		if err := s.flush(StageEOD); err != nil {
			return err
		}
	}
	if s.owed == owedNothing {
		return nil
	}
	timeout := s.c.t.Dot
	if s.owed == owedRset {
		timeout = s.c.t.Command
	}
	r, err := s.c.await(s.owedStage(), timeout)
	if err != nil {
		return err
	}
	return s.settleWith(r)
}

// settleWith takes the reply that was owed.
func (s *session) settleWith(r Reply) *Error {
	stage, owed := s.owedStage(), s.owed
	s.owed = owedNothing
	valid := r.Code == 250 || r.refusal() || fault.Off("guard.botched")
	switch owed {
	case owedDot:
		if !valid {
			return &Error{Stage: stage, Reply: r, Err: malformed("neither 250 nor a refusal after the dot")}
		}
		kind := Accepted
		if r.refusal() {
			kind = Refused
		}
		fault.Here("smtp.after250")
		s.used = time.Now()
		s.resting = s.used
		s.done(&s.prev, Result{Kind: kind, Stage: StageEOD, Reply: r, Took: s.used.Sub(s.dotted)})
	case owedLone: // nobody's reply, as long as it is one
		if r.Code/100 == 3 {
			return &Error{Stage: stage, Reply: r, Err: malformed("want the end of an empty message")}
		}
	case owedRset:
		if r.Code != 250 && r.Code != 421 {
			return &Error{Stage: stage, Reply: r, Err: malformed("want 250 to RSET")}
		}
	default:
		return &Error{Stage: stage, Reply: r, Err: malformed("nothing was owed")}
	}
	return closing(stage, r)
}

// closing is an error where r says that the relay closes the connection.
func closing(stage Stage, r Reply) *Error {
	if r.Code == 421 {
		return &Error{Stage: stage, Reply: r, Err: errClosing}
	}
	return nil
}

// envelope reads (in lock-step: sends and reads) what belongs to cur's MAIL, RCPT and
// DATA, after whatever is owed before it. It reports whether the relay waits for the
// content of a message it has accepted a recipient for. Otherwise cur is settled.
//
// The outcome is taken only once all replies of the group are in and fit together: a
// stray reply before them shifts the group, and then none of it may count.
func (s *session) envelope() (bool, *Error) {
	if s.c.mode == ModeLockStep {
		s.appendRset()
		if s.owed == owedRset {
			if err := s.flush(StageMail); err != nil {
				return false, err
			}
		}
	}
	if err := s.settle(); err != nil {
		return false, err
	}
	mail, err := s.command(StageMail, 250, 250)
	if err != nil {
		return false, err
	}
	if mail.refusal() && s.c.mode == ModeLockStep {
		return false, s.judge(mail, Reply{}, Reply{})
	}
	// 251: the relay forwards and has taken the recipient (RFC 5321 section 3.4). A
	// lone dot after it would send an empty mail.
	rcpt, err := s.command(StageRcpt, 250, 251)
	if err != nil {
		return false, err
	}
	fault.Here("smtp.afterRcpt")
	if mail.refusal() && !rcpt.refusal() {
		return false, &Error{Stage: StageRcpt, Reply: rcpt, Err: malformed("a recipient accepted without a sender")}
	}
	if rcpt.refusal() && s.c.mode == ModeLockStep {
		return false, s.judge(mail, rcpt, Reply{})
	}
	data, err := s.command(StageData, 354, 354)
	if err != nil && (data.Code != 421 || !rcpt.refusal()) {
		return false, err
	}
	if jerr := s.judge(mail, rcpt, data); jerr != nil {
		return false, jerr
	}
	return s.cur != nil, err
}

// command awaits the reply to one of cur's commands; in lock-step it sends the
// command first. Replies with code want or also, and refusals, are returned; with 421
// there is an error as well.
func (s *session) command(stage Stage, want, also int) (Reply, *Error) {
	s.cur.stage = stage
	timeout := s.c.t.Command
	if stage == StageData {
		timeout = s.c.t.Data
	}
	if s.c.mode == ModeLockStep {
		switch stage {
		case StageMail:
			s.appendMail(s.cur)
		case StageRcpt:
			s.appendRcpt(s.cur)
		case StageData:
			s.appendData()
		}
		if err := s.flush(stage); err != nil {
			return Reply{}, err
		}
	}
	r, err := s.c.await(stage, timeout)
	switch {
	case err != nil:
		return r, err
	case r.Code != want && r.Code != also && !r.refusal() && !fault.Off("guard.botched"):
		return r, &Error{Stage: stage, Reply: r, Err: malformed("want %d", want)}
	case s.saysPipelining(r):
		return r, s.blamePipelining(stage, r)
	}
	return r, closing(stage, r)
}

// judge settles cur where one of its commands was refused, and notes what has to lead
// the next message. Replies with code 0 were not asked for.
func (s *session) judge(mail, rcpt, data Reply) *Error {
	stage, r := StageData, data
	switch {
	case mail.refusal():
		stage, r = StageMail, mail
	case rcpt.refusal():
		stage, r = StageRcpt, rcpt
	}
	if r.Code == 503 && s.unproven() {
		// The command was in its place; it is the pipelining that confuses the relay.
		return s.blamePipelining(stage, r)
	}
	s.prove()
	if !r.refusal() {
		return nil
	}
	switch {
	case data.Code == 354:
		s.leadDot = true
	case !mail.refusal():
		s.leadRset = true
	}
	s.done(&s.cur, Result{Kind: Refused, Stage: stage, Reply: r})
	s.used = time.Now()
	return nil
}

// groupMode is the least mode in which the current group could have been sent.
func (s *session) groupMode() Mode {
	switch {
	case s.c.mode == ModeLockStep:
		return ModeLockStep
	case s.led:
		return ModePipelined
	}
	return ModeGroup
}

// unproven reports whether pipelining may be at fault for what goes wrong now: it was
// not forced, and no group like this one has gone through on this connection.
func (s *session) unproven() bool {
	m := s.groupMode()
	return s.c.memory != nil && m != ModeLockStep && !s.proven[m]
}

func (s *session) prove() {
	if s.unproven() {
		s.proven[s.groupMode()] = true
		s.c.memory.worked(s.c.addr, s.groupMode())
	}
}

// saysPipelining reports whether a refusal complains of pipelined input, as Postfix
// ("improper use of SMTP command pipelining") and Exim ("synchronization error") do.
// Words with an @ are the relay quoting an address.
func (s *session) saysPipelining(r Reply) bool {
	if r.Code < 500 || s.c.memory == nil || s.groupMode() == ModeLockStep {
		return false
	}
	for word := range strings.FieldsSeq(strings.ToLower(r.Text)) {
		if !strings.Contains(word, "@") &&
			(strings.HasPrefix(word, "pipelining") || strings.HasPrefix(word, "synchroni")) {
			return true
		}
	}
	return false
}

// blamePipelining makes the next connections to this relay use less of it. The
// message is not to blame: it is Unsent.
func (s *session) blamePipelining(stage Stage, r Reply) *Error {
	s.c.memory.suspect(s.c.addr, s.groupMode(), true)
	return &Error{Stage: stage, Reply: r, Err: errPipelining}
}

// suspect counts a connection that broke at its first pipelined group, silently.
func (s *session) suspect(err *Error) {
	if s.cur == nil || s.cur.stage == StageIdle || s.cur.stage == StageEOD || !s.unproven() || err.Reply.Code == 421 {
		return
	}
	timedOut := errors.Is(err.Err, ErrTimeout) && s.owed != owedDot // a slow dot is only slow
	hungUp := errors.Is(err.Err, io.EOF) || errors.Is(err.Err, io.ErrUnexpectedEOF) || isReset(err.Err)
	if timedOut || hungUp || errors.Is(err.Err, ErrBotched) {
		s.c.memory.suspect(s.c.addr, s.groupMode(), false)
	}
}

// isReset reports whether the connection ended in another way than by our own Close
// or a deadline.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout() && !errors.Is(err, net.ErrClosed)
}
