package suppress

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// What is stored under an address is one record after the other, one for each
// scope, each
//
//	length of the rest (1 byte), scope + 8·source (1), seconds since 1970 (4, high byte
//	first), reason, detail
//
// The scripts know the length, the first byte and the time; the texts are only for
// this file. A text is a tag and what it announces: 0 nothing, 255 the text's number
// (3 bytes), else the text itself with the tag as its length. Bytes behind the two
// texts are a newer program's and left alone.
const (
	scopeMask   = 7
	sourceShift = 3
	recordHead  = 5 // of the rest: scope and source, time
	numbered    = 255
)

// text is a reason or detail: itself, or the number it is kept under.
type text struct {
	id     uint32 // of 24 bits; 0 where the text is here
	inline string
}

// record is an entry without its address.
type record struct {
	scope          Scope
	source         Source
	time           uint32
	reason, detail text
}

// textID is the number a text is kept under, never 0. It follows from the text, so
// that a number learned once stays right even if Redis forgets: then the text is
// missing, but no other one is taken for it.
func textID(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // it cannot fail
	sum := h.Sum32()
	return max(1, (sum>>24)^(sum&0xffffff))
}

func (r record) append(b []byte) []byte {
	at := len(b)
	b = append(b, 0, byte(r.scope)|byte(r.source)<<sourceShift)
	b = binary.BigEndian.AppendUint32(b, r.time)
	b = r.detail.append(r.reason.append(b))
	b[at] = byte(len(b) - at - 1) // at most 5 + 81 + 161
	return b
}

func (t text) append(b []byte) []byte {
	if t.id != 0 {
		return append(b, numbered, byte(t.id>>16), byte(t.id>>8), byte(t.id))
	}
	return append(append(b, byte(len(t.inline))), t.inline...)
}

// cutText takes a text off the front of s.
func cutText(s string) (t text, rest string, ok bool) {
	if s == "" {
		return t, "", false
	}
	n := int(s[0])
	s = s[1:]
	if n == numbered {
		if len(s) < 3 {
			return t, "", false
		}
		t.id = uint32(s[0])<<16 | uint32(s[1])<<8 | uint32(s[2])
		return t, s[3:], true
	}
	if len(s) < n {
		return t, "", false
	}
	t.inline = s[:n]
	return t, s[n:], true
}

// parseRecords takes a stored value apart. ok is false when some of it does not
// decode; records holds what does.
func parseRecords(v string) (records []record, ok bool) {
	for v != "" {
		n := int(v[0])
		if n < recordHead || len(v) < 1+n {
			return records, false
		}
		body := v[1 : 1+n]
		v = v[1+n:]
		r := record{
			scope: Scope(body[0] & scopeMask), source: Source(body[0] >> sourceShift),
			time: uint32(body[1])<<24 | uint32(body[2])<<16 | uint32(body[3])<<8 | uint32(body[4]),
		}
		var a, b bool
		r.reason, body, a = cutText(body[recordHead:])
		r.detail, _, b = cutText(body)
		if !a || !b || r.scope > Ad {
			return records, false
		}
		records = append(records, r)
	}
	return records, len(records) > 0
}

// unreadable stands for what does not decode: who is on the list for a reason that
// nobody can read gets no mail.
func unreadable(a mail.Address) Entry {
	return Entry{Address: a, Scope: All, Reason: "an entry that cannot be read; remove it for all streams to clear it"}
}

// entry is the record as others see it; texts are the numbered texts.
func (r record) entry(a mail.Address, texts map[uint32]string) Entry {
	of := func(t text) string {
		if t.id != 0 {
			return texts[t.id]
		}
		return t.inline
	}
	e := Entry{Address: a, Scope: r.scope, Source: r.source, Time: time.Unix(int64(r.time), 0), Reason: of(r.reason), Detail: of(r.detail)}
	if e.Reason == "" { // Redis has lost the text
		e.Reason = r.source.reason()
	}
	return e
}
