package queue

import (
	"context"
	"crypto/sha1" //nolint:gosec // see digest
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// refold is the replacing of a block's state and log by one state that says the same,
// and whatever is changed in it.
type refold struct {
	campaign string
	n, size  int
	// change is called on what is known, as often as others get in between, and
	// returns how many recipients it changed; where none, nothing is written. Nil: the
	// log is folded, by who holds the block.
	change func([]Standing) int
	// salvage lets what does not decode be replaced, by what change makes of what does.
	salvage bool
}

// refold returns what is known of the block's recipients in the end, and how many of
// them were changed.
func (q *Queue) refold(ctx context.Context, r refold) ([]Standing, int, error) {
	k, id := q.keys, r.campaign
	var tried []byte // the state that a call whose answer was lost may have stored
	var changed int
	for {
		b, err := q.read(ctx, id, r.n)
		if err != nil {
			return nil, 0, err
		}
		st, err := b.salvage(q.codec, r.size)
		if err != nil && !(r.salvage && errors.Is(err, errCorrupt)) {
			return nil, 0, err
		}
		if tried != nil && b.state == string(tried) {
			return st, changed, nil
		}
		outside := ""
		if r.change != nil {
			if changed = r.change(st); changed == 0 {
				return st, 0, nil
			}
			outside = "1"
		}
		old, err := parseTally(b.sum)
		if errors.Is(err, errCorrupt) {
			if err = q.mendTotals(ctx, id); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, 0, err
		}
		now := count(st)
		tried = q.codec.encodeState(st)
		args := []any{r.n, digest(b.state), digest(b.log), b.sum, now.String(), tried, outside}
		keys := []string{k.state(id, r.n), k.log(id, r.n), k.sums(id), k.totals(id), k.live(id), k.meta(id)}
		ok, err := q.scripts.settle.Run(ctx, q.rdb, keys, append(args, now.change(old)...)...).Int()
		switch {
		case err != nil && strings.Contains(err.Error(), "not an integer"): // a total is not
			if err := q.mendTotals(ctx, id); err != nil {
				return nil, 0, err
			}
		case err != nil:
			return nil, 0, err
		case ok < 0:
			return nil, 0, fmt.Errorf("%w: it is not open (any more)", ErrNoCampaign)
		case ok == 1:
			return st, changed, nil
		}
	}
}

// digest is what the settle script compares stored values by.
func digest(s string) string {
	sum := sha1.Sum([]byte(s)) //nolint:gosec // against chance, by what every Redis has
	return hex.EncodeToString(sum[:])
}
