package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/sluicemail/sluice/internal/mail"
)

// Intent is the declaration "this member, this attempt, is about to send to this
// recipient". It stands in the member's record from Declare until its outcome is
// written, or until it is withdrawn because nothing was sent.
type Intent struct {
	claim   *Claim
	index   int
	attempt int
	slot    int    // place in the member's table of standing intents
	version uint64 // of the member's record that holds it first
}

// ErrFenced is returned to a member that was declared dead: others have taken its
// blocks over, and it may send nothing more.
var ErrFenced = errors.New("this worker was declared dead and its work taken over")

// ErrLost is returned for a block that somebody else has a newer claim on, because
// Redis restarted and this member was late to say that it had one.
var ErrLost = errors.New("the claim was lost to another worker")

// standing is an intent as it is found in a dead member's record.
type standing struct {
	stream   mail.Stream
	campaign string
	block    int
	index    int
	attempt  int
}

// encodeIntents writes the record's content: the claims that intents refer to,
// then the intents. It is rewritten at every commit, so it names each claim once.
func encodeIntents(b []byte, intents []*Intent) []byte {
	var few [16]*Claim // as many as a worker has at hand, mostly
	order := few[:0]
	for _, in := range intents {
		if in != nil && !slices.Contains(order, in.claim) {
			order = append(order, in.claim)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(order)))
	for _, c := range order {
		b = appendString(b, string(c.Campaign.Stream))
		b = appendString(b, c.Campaign.ID)
		b = binary.AppendUvarint(b, uint64(c.N))
	}
	for _, in := range intents {
		if in == nil {
			continue
		}
		b = binary.AppendUvarint(b, uint64(slices.Index(order, in.claim)))
		b = binary.AppendUvarint(b, uint64(in.index))
		b = binary.AppendUvarint(b, uint64(in.attempt))
	}
	return b
}

// decodeIntents reads a record.
func decodeIntents(data []byte) ([]standing, error) {
	if len(data) == 0 {
		return nil, nil
	}
	d := decoder{b: data}
	claims := make([]standing, min(d.uvarint(), uint64(len(data))))
	for i := range claims {
		claims[i] = standing{stream: mail.Stream(d.string()), campaign: d.string(), block: int(d.uvarint())}
		if _, err := mail.ParseStream(string(claims[i].stream)); err != nil {
			return nil, fmt.Errorf("record of intents: %w", errCorrupt)
		}
	}
	var out []standing
	for len(d.b) > 0 {
		n := d.uvarint()
		if n >= uint64(len(claims)) {
			return nil, fmt.Errorf("record of intents: %w", errCorrupt)
		}
		s := claims[n]
		s.index, s.attempt = int(d.uvarint()), int(d.uvarint())
		out = append(out, s)
	}
	if d.bad {
		return nil, fmt.Errorf("record of intents: %w", errCorrupt)
	}
	return out, nil
}
