package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
)

// errNewer marks stored bytes of a form that a newer version of this program has
// brought in. They are left alone for it.
var errNewer = errors.New("written by a newer version of this program")

// Longest reply text kept, in bytes: what an accepted mail needs is the queue id.
const (
	maxAcceptedText = 160
	maxRefusedText  = 512
)

// In the log, the outcome's byte holds a flag for a round that follows the attempt,
// and one value that is kept free, by which a newer program may say that it writes
// something else. Reopenings and operators' decisions go into the state directly.
const (
	roundFlag    = 0x80
	newerOutcome = 0x3e
)

// appendEvidence encodes e for the log.
func appendEvidence(b []byte, e Evidence) []byte {
	b = binary.AppendUvarint(b, uint64(e.Index))
	flag := byte(0)
	if e.Round > 0 {
		flag = roundFlag
	}
	b = append(b, byte(e.Outcome)|flag)
	b = binary.AppendUvarint(b, uint64(e.Attempt))
	if e.Round > 0 {
		b = binary.AppendUvarint(b, uint64(e.Round))
	}
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
	e := Evidence{Index: int(d.uvarint())}
	o := d.byte()
	e.Outcome, e.Attempt = mail.Outcome(o&^roundFlag), int(d.uvarint())
	if o&roundFlag != 0 {
		e.Round = int(d.uvarint())
	}
	e.Time = int64(d.uvarint())
	if e.Outcome == mail.Deferred {
		e.Due = int64(d.uvarint())
	}
	e.Reply = d.reply()
	return e
}

// fold applies a block's outcome log to its standings. What stands before a place
// that does not decode has been applied.
func fold(st []Standing, log []byte) error {
	d := decoder{b: log}
	for len(d.b) > 0 {
		e := d.evidence()
		if e.Outcome == newerOutcome {
			return fmt.Errorf("outcome log: %w", errNewer)
		}
		if d.bad || e.Index < 0 || e.Index >= len(st) || e.Attempt < 0 || int(e.Outcome) >= mail.NumOutcomes {
			return fmt.Errorf("outcome log: %w", errCorrupt)
		}
		st[e.Index].Apply(e)
	}
	return nil
}

// Versions of an encoded block state, its first byte. The first knows nothing of
// reopenings and operators' decisions. It is still written where there are none, so
// that a fleet may be brought up to date one worker at a time.
const (
	plainState    = 1
	reopenedState = 2
)

// Flags beside the outcome in an encoded standing.
const (
	flagResent = 0x80
	flagClosed = 0x40 // version 1
	flagMore   = 0x40 // version 2: what was decided and reopened follows
)

// encodeState writes the standings of a block. Reply texts are not interned by
// hand: the relay's texts differ in little more than the queue id, and zstd finds
// that out by itself.
func (c *codec) encodeState(st []Standing) []byte {
	raw := make([]byte, 0, 48*len(st))
	version := byte(plainState)
	for i := range st {
		if st[i].complete(); st[i].round > 0 || st[i].settled != mail.Pending {
			version = reopenedState
		}
	}
	raw = append(raw, version)
	raw = binary.AppendUvarint(raw, uint64(len(st)))
	var base int64
	for i := range st {
		s := &st[i]
		if raw = s.appendHead(raw, version); s.blank() {
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

// steered reports whether anything was decided or reopened.
func (s *Standing) steered() bool {
	return s.round != 0 || s.ended != mail.Pending || s.settled != mail.Pending
}

// blank reports whether there is no evidence of any kind, and so nothing to store.
func (s *Standing) blank() bool { return s.said == mail.Pending && !s.steered() }

// appendHead writes the outcome, or, in version 2, what it follows from.
func (s *Standing) appendHead(raw []byte, version byte) []byte {
	flags := byte(0)
	if s.Resent {
		flags = flagResent
	}
	if version == plainState {
		if s.Closed {
			flags |= flagClosed
		}
		return append(raw, flags|byte(s.Outcome))
	}
	flags |= byte(s.said)
	if !s.steered() {
		return append(raw, flags)
	}
	raw = append(raw, flags|flagMore, byte(s.ended)|byte(s.settled)<<4)
	raw = binary.AppendUvarint(raw, uint64(s.round))
	raw = binary.AppendUvarint(raw, uint64(s.upTo))
	return binary.AppendUvarint(raw, uint64(s.Reopened))
}

// decodeState reads n standings; data nil means nothing is known yet.
func (c *codec) decodeState(data []byte, n int) ([]Standing, error) {
	st := make([]Standing, n)
	if len(data) == 0 {
		return st, nil
	}
	raw, err := c.unpack(data)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	d := decoder{b: raw}
	version := d.byte()
	if version > reopenedState {
		return nil, fmt.Errorf("state version %d, this program knows %d: %w", version, reopenedState, errNewer)
	}
	if version == 0 || d.uvarint() != uint64(n) {
		return nil, fmt.Errorf("state: %w", errCorrupt)
	}
	var base int64
	for i := range st {
		s := &st[i]
		if !d.head(s, version) {
			return nil, fmt.Errorf("state: outcome of recipient %d: %w", i, errCorrupt)
		}
		if s.Outcome == mail.Pending && s.blank() {
			continue
		}
		s.Attempts = int(d.uvarint())
		base += d.varint()
		s.Time = base
		s.Due = int64(d.uvarint())
		s.Reply = d.reply()
		s.complete()
		s.conclude()
	}
	if d.bad || len(d.b) != 0 {
		return nil, fmt.Errorf("state: %w", errCorrupt)
	}
	return st, nil
}

// head reads what appendHead writes, and reports whether it can be.
func (d *decoder) head(s *Standing, version byte) bool {
	flags := d.byte()
	o := mail.Outcome(flags &^ (flagResent | flagMore))
	s.Resent = flags&flagResent != 0
	if version == plainState {
		s.Outcome, s.Closed = o, flags&flagClosed != 0
		return int(o) < mail.NumOutcomes
	}
	if s.said = o; flags&flagMore != 0 {
		b := d.byte()
		s.ended, s.settled = mail.Outcome(b&0x0f), mail.Outcome(b>>4)
		s.round, s.upTo, s.Reopened = int(d.uvarint()), int(d.uvarint()), int64(d.uvarint())
	}
	return !d.bad && max(int(o), int(s.ended), int(s.settled)) < mail.NumOutcomes
}
