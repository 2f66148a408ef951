package queue

import "github.com/sluicemail/sluice/internal/mail"

// Standing is what the ledger knows of one recipient.
type Standing struct {
	Outcome  mail.Outcome
	Attempts int        // the highest attempt there is evidence of
	Reply    mail.Reply // the last thing the relay said, or why there is nothing
	Time     int64      // ms since the Unix epoch: when that was recorded
	Due      int64      // ms: not before, while Deferred
	Resent   bool       // sent again after an unknown: it may have arrived twice
	Closed   bool       // Unknown, and not to be sent again: too old, or cancelled
	Reopened int64      // ms: when an operator last had it sent again, from when its age counts; 0 = never

	round   int          // how often it was reopened; what is decided holds for one round
	upTo    int          // the attempts that the round's reopening was told of
	said    mail.Outcome // what the last attempt came to by itself; Pending = not heard of
	ended   mail.Outcome // Expired, Cancelled or Suppressed, as decided after the last attempt; else Pending
	settled mail.Outcome // Accepted or Rejected, as an operator says of an Unknown; else Pending
}

// Evidence is one thing known of a recipient. The zero Kind is what came of one
// attempt, counted from 1. Expired and Cancelled are decisions, not attempts, as are
// the other kinds: theirs is the number of attempts made before, and the Round in
// which they were made.
type Evidence struct {
	Index   int
	Kind    Kind
	Attempt int
	Round   int
	Outcome mail.Outcome
	Reply   mail.Reply
	Time    int64 // ms
	Due     int64 // ms, with Deferred
}

// Kind says who says it.
type Kind uint8

// The kinds of evidence.
const (
	Happened Kind = iota // a worker: an attempt's end, or the decision that there will be none
	Reopen               // an operator: send again to whoever was not accepted up to this attempt
	Settled              // an operator: an Unknown was Accepted, or Rejected
)

// Apply adds evidence to what is known. It may be applied in any order and more
// than once: the same set of evidence ends in the same outcome, which is what lets
// every write be repeated after a doubtful answer. Resent errs on the side of
// saying so: an unknown that a late reply settled may still count.
//
// An acceptance is never taken back. Of one attempt, a reply says more than an
// operator, and that says more than unknown. Between two attempts the later one
// counts. A decision counts until a later attempt or a later round.
func (s *Standing) Apply(e Evidence) {
	s.complete()
	switch {
	case e.Kind == Happened && !decision(e.Outcome):
		s.attempted(e)
	case e.Round < s.round:
		return
	default:
		s.decided(e)
	}
	s.conclude()
}

// decision reports whether an outcome is decided by us without an attempt.
func decision(o mail.Outcome) bool {
	return o == mail.Expired || o == mail.Cancelled || o == mail.Suppressed
}

// complete fills in what stands behind the outcome, where only that is known.
func (s *Standing) complete() {
	if !s.blank() {
		return
	}
	switch {
	case decision(s.Outcome):
		s.ended = s.Outcome
		if s.Attempts > 0 {
			s.said = mail.Deferred
		}
	case s.Closed:
		s.said, s.ended = s.Outcome, mail.Expired
	default:
		s.said = s.Outcome
	}
}

// attempted takes in what came of an attempt.
func (s *Standing) attempted(e Evidence) {
	switch {
	case e.Attempt == s.Attempts:
		if weight(e.Outcome) > weight(s.said) {
			s.take(e)
		}
	case e.Attempt > s.Attempts:
		s.Resent = s.Resent || mayHaveArrived(s.said)
		s.ended, s.settled = mail.Pending, mail.Pending
		if s.said == mail.Accepted {
			s.Attempts = e.Attempt
			return
		}
		s.take(e)
	case mayHaveArrived(e.Outcome): // late evidence of an earlier attempt
		s.Resent = true
		if e.Outcome == mail.Accepted && s.said != mail.Accepted {
			e.Attempt = s.Attempts
			s.take(e)
		}
	}
}

// decided takes in a decision of this round or a later one.
func (s *Standing) decided(e Evidence) {
	if e.Round > s.round {
		s.round, s.upTo, s.Reopened = e.Round, 0, 0
		s.ended, s.settled = mail.Pending, mail.Pending
	}
	if e.Kind == Reopen {
		s.upTo, s.Reopened = max(s.upTo, e.Attempt), max(s.Reopened, e.Time)
		return
	}
	switch {
	case e.Attempt < s.Attempts || e.Attempt > s.Attempts && s.said == mail.Accepted:
		return
	case e.Attempt > s.Attempts: // the attempt itself has not been heard of yet
		s.Resent = s.Resent || mayHaveArrived(s.said)
		s.Attempts, s.said, s.ended, s.settled = e.Attempt, mail.Pending, mail.Pending, mail.Pending
	}
	was := s.Outcome
	if e.Kind == Settled {
		if s.settled == mail.Pending || e.Outcome == mail.Accepted {
			s.settled = e.Outcome
		}
	} else {
		s.ended = max(s.ended, e.Outcome)
	}
	if s.conclude(); s.Outcome != was {
		s.Reply, s.Time = e.Reply, e.Time
	}
}

// open reports whether an operator's reopening waits for its attempt.
func (s *Standing) open() bool { return s.Reopened > 0 && s.Attempts <= s.upTo }

// conclude derives the outcome from what was said, decided and reopened.
func (s *Standing) conclude() {
	open := s.open()
	s.Closed = false
	switch {
	case s.said == mail.Accepted:
		s.Outcome = mail.Accepted
	case s.said == mail.Unknown && s.settled != mail.Pending:
		s.Outcome = s.settled
	case s.said == mail.Unknown && (s.ended != mail.Pending || !open):
		s.Outcome, s.Closed = mail.Unknown, s.ended != mail.Pending // ended or not, it may well have arrived
	case s.said == mail.Rejected && !open:
		s.Outcome = mail.Rejected
	case s.ended != mail.Pending:
		s.Outcome = s.ended
	case open:
		s.Outcome, s.Due = mail.Deferred, s.Reopened
	default:
		s.Outcome = s.said
	}
}

// mayHaveArrived reports whether a further attempt after o may be a second copy.
func mayHaveArrived(o mail.Outcome) bool { return o == mail.Accepted || o == mail.Unknown }

func (s *Standing) take(e Evidence) {
	s.said, s.Attempts, s.Reply, s.Time, s.Due = e.Outcome, e.Attempt, e.Reply, e.Time, e.Due
}

// weight orders what may be heard of one and the same attempt.
func weight(o mail.Outcome) int {
	switch o {
	case mail.Accepted:
		return 4
	case mail.Rejected:
		return 3
	case mail.Deferred:
		return 2
	case mail.Unknown:
		return 1
	}
	return 0
}

// DueAt returns when a recipient is due (ms, 0 = at once), if it is at all. resend
// is the policy for unknown ones, who are sent to again once.
func (s *Standing) DueAt(resend bool) (due int64, ok bool) {
	switch s.Outcome {
	case mail.Pending:
		return 0, true
	case mail.Deferred:
		return s.Due, true
	case mail.Unknown:
		return 0, resend && s.again()
	}
	return 0, false
}

// again reports whether the policy resend applies to an unknown recipient. It does so
// once: each attempt that ends unknown may have been a copy.
func (s *Standing) again() bool {
	return s.Outcome == mail.Unknown && !s.Closed && !s.Resent
}
