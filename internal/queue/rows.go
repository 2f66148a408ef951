package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicemail/sluice/internal/mail"
)

// Row is one recipient of a campaign as the report shows it.
type Row struct {
	Line    int
	Address string
	Standing
}

// Rows calls f for every row of the input that was accepted at the door, block by
// block, then for those that were refused there. An error of f ends it. Recipients
// whose record does not decode have a row as well, with what is left: perhaps no line
// and no address. Refused rows that are gone are an error, after all the others.
func (q *Queue) Rows(ctx context.Context, c *Campaign, f func(Row) error) error {
	for n := range c.Blocks {
		if err := q.blockRows(ctx, c, n, f); err != nil {
			return err
		}
	}
	var gone error
	for n := range c.Doors {
		b, err := q.refusedRows(ctx, c.ID, n)
		if err != nil {
			gone = errors.Join(gone, fmt.Errorf("refused rows, slice %d (%s): %w", n, repairHint(c.Name), err))
			continue
		}
		for i, line := range b.Lines {
			o, err := mail.ParseOutcome(b.Values[0][i])
			if err != nil {
				return fmt.Errorf("refused rows, slice %d: %w", n, err)
			}
			row := Row{line, b.Emails[i], Standing{Outcome: o, Reply: mail.Reply{Text: b.Values[1][i]}, Time: c.Created.UnixMilli()}}
			if err := f(row); err != nil {
				return err
			}
		}
	}
	return gone
}

func (q *Queue) blockRows(ctx context.Context, c *Campaign, n int, f func(Row) error) error {
	b, r, err := q.fetch(ctx, c.ID, n)
	if err != nil {
		return err
	}
	why := ""
	if b == nil {
		why = "the recipients do not decode"
	}
	st, _ := q.codec.lastKnown(r, c.blockSize(n), why)
	if st == nil {
		return fmt.Errorf("block %s: %w; report it with that", blockID(c.ID, n), errNewer)
	}
	for i := range st {
		row := Row{Standing: st[i]}
		if b != nil {
			row.Line, row.Address = b.Lines[i], b.Emails[i]
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return nil
}

// refusedRows reads slice n of the rows refused at the door.
func (q *Queue) refusedRows(ctx context.Context, id string, n int) (*Block, error) {
	data, err := q.rdb.Get(ctx, q.keys.refused(id, n)).Bytes()
	if err != nil {
		return nil, err
	}
	b, err := q.codec.decodeBlock(data)
	if err == nil && len(b.Values) != 2 {
		err = errCorrupt
	}
	return b, err
}

// load reads a block and what is known of its recipients.
func (q *Queue) load(ctx context.Context, id string, n int) (*Block, []Standing, error) {
	b, r, err := q.fetch(ctx, id, n)
	if err == nil && b == nil {
		err = r.block
	}
	var st []Standing
	if err == nil {
		st, err = r.salvage(q.codec, b.Len())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("block %s: %w", blockID(id, n), err)
	}
	return b, st, nil
}
