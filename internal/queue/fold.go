package queue

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

// Standing is what the ledger knows of one recipient.
type Standing struct {
	Outcome  mail.Outcome
	Attempts int        // the highest attempt there is evidence of
	Reply    mail.Reply // the last thing the relay said, or why there is nothing
	Time     int64      // ms since the Unix epoch: when that was recorded
	Due      int64      // ms: not before, while Deferred
	Resent   bool       // sent again after an unknown: it may have arrived twice
	Closed   bool       // Unknown, and not to be sent again: too old, or cancelled
}

// Evidence is one entry of a block's outcome log: what came of one attempt.
// Attempt counts from 1. Expired and Cancelled are decisions, not attempts: theirs
// is the number of attempts made before.
type Evidence struct {
	Index   int
	Attempt int
	Outcome mail.Outcome
	Reply   mail.Reply
	Time    int64 // ms
	Due     int64 // ms, with Deferred
}

// Apply adds evidence to what is known. It may be applied in any order and more
// than once: the same set of evidence ends in the same outcome, which is what lets
// every write be repeated after a doubtful answer. Resent errs on the side of
// saying so: an unknown that a late reply settled may still count.
//
// An acceptance is never taken back. Of one attempt, a reply says more than
// unknown. Between two attempts the later one counts.
func (s *Standing) Apply(e Evidence) {
	if e.Outcome == mail.Expired || e.Outcome == mail.Cancelled {
		switch {
		case s.Attempts > e.Attempt:
		case s.Outcome == mail.Unknown:
			s.Closed = true // it stays unknown: it may well have arrived
		case !s.Outcome.Final():
			s.take(e)
		}
		return
	}
	switch {
	case e.Attempt == s.Attempts:
		if weight(e.Outcome) > weight(s.Outcome) {
			s.take(e)
		}
	case e.Attempt > s.Attempts:
		s.Resent = s.Resent || mayHaveArrived(s.Outcome)
		if s.Outcome == mail.Accepted {
			s.Attempts = e.Attempt
			return
		}
		s.take(e)
	case mayHaveArrived(e.Outcome): // late evidence of an earlier attempt
		s.Resent = true
		if e.Outcome == mail.Accepted && s.Outcome != mail.Accepted {
			e.Attempt = s.Attempts
			s.take(e)
		}
	}
}

// mayHaveArrived reports whether a further attempt after o may be a second copy.
func mayHaveArrived(o mail.Outcome) bool { return o == mail.Accepted || o == mail.Unknown }

func (s *Standing) take(e Evidence) {
	s.Outcome, s.Attempts, s.Reply, s.Time, s.Due = e.Outcome, e.Attempt, e.Reply, e.Time, e.Due
}

// weight orders what may be said of one and the same attempt. Expired and
// Cancelled end a deferral of that attempt and give way to a late reply.
func weight(o mail.Outcome) int {
	switch o {
	case mail.Accepted:
		return 5
	case mail.Rejected:
		return 4
	case mail.Expired, mail.Cancelled:
		return 3
	case mail.Deferred:
		return 2
	case mail.Unknown:
		return 1
	}
	return 0
}

// Longest reply text kept, in bytes: what an accepted mail needs is the queue id.
const (
	maxAcceptedText = 160
	maxRefusedText  = 512
)

// appendEvidence encodes e for the log.
func appendEvidence(b []byte, e Evidence) []byte {
	b = binary.AppendUvarint(b, uint64(e.Index))
	b = append(b, byte(e.Outcome))
	b = binary.AppendUvarint(b, uint64(e.Attempt))
	b = binary.AppendUvarint(b, uint64(max(e.Time, 0)))
	if e.Outcome == mail.Deferred {
		b = binary.AppendUvarint(b, uint64(max(e.Due, 0)))
	}
	return appendReply(b, e.Reply, e.Outcome)
}

func appendReply(b []byte, r mail.Reply, o mail.Outcome) []byte {
	limit := maxRefusedText
	if o == mail.Accepted {
		limit = maxAcceptedText
	}
	b = binary.AppendUvarint(b, uint64(max(r.Code, 0)))
	b = appendString(b, r.Enhanced)
	return appendString(b, clip(r.Text, limit))
}

// clip cuts s to at most n bytes without splitting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

func (d *decoder) reply() mail.Reply {
	return mail.Reply{Code: int(d.uvarint()), Enhanced: d.string(), Text: d.string()}
}

func (d *decoder) evidence() Evidence {
	e := Evidence{Index: int(d.uvarint()), Outcome: mail.Outcome(d.byte()), Attempt: int(d.uvarint()), Time: int64(d.uvarint())}
	if e.Outcome == mail.Deferred {
		e.Due = int64(d.uvarint())
	}
	e.Reply = d.reply()
	return e
}

// fold applies a block's outcome log to its standings.
func fold(st []Standing, log []byte) error {
	d := decoder{b: log}
	for len(d.b) > 0 {
		e := d.evidence()
		if d.bad || e.Index < 0 || e.Index >= len(st) || int(e.Outcome) >= mail.NumOutcomes {
			return fmt.Errorf("outcome log: %w", errCorrupt)
		}
		st[e.Index].Apply(e)
	}
	return nil
}

// Flags beside the outcome in an encoded standing.
const (
	flagResent = 0x80
	flagClosed = 0x40
)

// stateVersion is the first byte of an encoded block state.
const stateVersion = 1

// encodeState writes the standings of a block. Reply texts are not interned by
// hand: the relay's texts differ in little more than the queue id, and zstd finds
// that out by itself.
func (c *codec) encodeState(st []Standing) []byte {
	raw := make([]byte, 0, 48*len(st))
	raw = append(raw, stateVersion)
	raw = binary.AppendUvarint(raw, uint64(len(st)))
	var base int64
	for _, s := range st {
		flags := byte(s.Outcome)
		if s.Resent {
			flags |= flagResent
		}
		if s.Closed {
			flags |= flagClosed
		}
		raw = append(raw, flags)
		if s.Outcome == mail.Pending { // no evidence, so nothing to say
			continue
		}
		raw = binary.AppendUvarint(raw, uint64(s.Attempts))
		raw = binary.AppendVarint(raw, s.Time-base)
		base = s.Time
		raw = binary.AppendUvarint(raw, uint64(max(s.Due, 0)))
		raw = appendReply(raw, s.Reply, s.Outcome)
	}
	return c.pack(raw)
}

// decodeState reads n standings; data nil means nothing is known yet.
func (c *codec) decodeState(data []byte, n int) ([]Standing, error) {
	st := make([]Standing, n)
	if len(data) == 0 {
		return st, nil
	}
	raw, err := c.unpack(data)
	if err != nil {
		return nil, err
	}
	d := decoder{b: raw}
	if v := d.byte(); v != stateVersion {
		return nil, fmt.Errorf("%w: state version %d, this program knows %d", errCorrupt, v, stateVersion)
	}
	if d.uvarint() != uint64(n) {
		return nil, errCorrupt
	}
	var base int64
	for i := range st {
		flags := d.byte()
		s := &st[i]
		s.Outcome, s.Resent = mail.Outcome(flags&^(flagResent|flagClosed)), flags&flagResent != 0
		s.Closed = flags&flagClosed != 0
		if int(s.Outcome) >= mail.NumOutcomes {
			return nil, fmt.Errorf("%w: outcome %d", errCorrupt, s.Outcome)
		}
		if s.Outcome == mail.Pending {
			continue
		}
		s.Attempts = int(d.uvarint())
		delta, k := binary.Varint(d.b)
		if k <= 0 {
			return nil, errCorrupt
		}
		d.b = d.b[k:]
		base += delta
		s.Time = base
		s.Due = int64(d.uvarint())
		s.Reply = d.reply()
	}
	if d.bad || len(d.b) != 0 {
		return nil, errCorrupt
	}
	return st, nil
}
