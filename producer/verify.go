package producer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/templates"
)

// Verification is what Verify is asked for.
type Verification struct {
	List     List           // the list that the campaign was made of, byte for byte
	Encoding string         // as it was given to the send; "" = detected
	Rewound  bool           // Redis is known to have come back with older data; see queue.Repair
	Progress func(rows int) // called now and then while the list is read; may be nil
}

// Verify compares what is stored of a campaign with the list it was made of, and puts
// back what Redis has lost. Another list is an *InputError, and nothing is changed.
func Verify(ctx context.Context, q *queue.Queue, c *queue.Campaign, v Verification) (queue.Found, error) {
	repair, err := q.Repair(ctx, c, v.Rewound)
	if err != nil {
		return queue.Found{}, err
	}
	pin, err := q.Program(ctx, c.ID)
	if err != nil {
		return queue.Found{}, fmt.Errorf("%w; without it the campaign cannot be sent: cancel it, and send the rest as a new one", err)
	}
	sum, err := v.List.hash(ctx)
	if err != nil {
		return queue.Found{}, err
	}
	if was, _, _ := strings.Cut(c.Digest, ownMark); was != sendDigest(c.Stream, sum, pin) {
		return queue.Found{}, &InputError{fmt.Errorf("%s is not the list that campaign %s was made of: want the same file, byte for byte", v.List.Name, c.Name)}
	}
	p, err := templates.Unpin(pin)
	if err != nil {
		return queue.Found{}, fmt.Errorf("campaign %s: %w", c.Name, err)
	}
	withheld, err := repair.Suppressed(ctx)
	if err != nil {
		return queue.Found{}, err
	}
	in := &intake{
		ctx: ctx, request: Request{Stream: c.Stream, List: v.List, Encoding: v.Encoding, Progress: v.Progress}, program: p, store: repair,
		result: &Result{Campaign: c}, gate: &gate{list: remembered(withheld), stream: c.Stream, columns: len(p.Columns())},
	}
	err = in.run(sum)
	return repair.Found(), err
}

// sendDigest names all that is sent: stream, list by its hash, and pinned template.
func sendDigest(s mail.Stream, list string, pin []byte) string {
	sum := sha256.Sum256(append([]byte(string(s)+"\x00"+list+"\x00"), pin...))
	return hex.EncodeToString(sum[:])
}

// remembered is a suppression list as it was, by address, with the reasons.
type remembered map[string]string

// Empty implements Suppression.
func (r remembered) Empty(context.Context) (bool, error) { return len(r) == 0, nil }

// Check implements Suppression.
func (r remembered) Check(_ context.Context, _ mail.Stream, addresses []mail.Address) (hits []suppress.Hit, err error) {
	for i, a := range addresses {
		if why, ok := r[a.String()]; ok {
			hits = append(hits, suppress.Hit{Index: i, Entry: suppress.Entry{Reason: why}})
		}
	}
	return hits, nil
}
