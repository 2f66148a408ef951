package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// blockData is what is stored of a block beside its recipients.
type blockData struct {
	state, log, sum string
	err             error // errCorrupt where one of them is not even a value of its kind
	block           error // of the recipients, where they were read as well
}

// blockRead is the reading of a block that stands in a pipeline.
type blockRead struct{ state, log, sum *redis.StringCmd }

func (q *Queue) readIn(ctx context.Context, pipe redis.Pipeliner, id string, n int) blockRead {
	return blockRead{pipe.Get(ctx, q.keys.state(id, n)), pipe.Get(ctx, q.keys.log(id, n)), pipe.HGet(ctx, q.keys.sums(id), strconv.Itoa(n))}
}

// data returns what was read. Its error is Redis's.
func (r blockRead) data() (b blockData, err error) {
	for _, part := range []struct {
		cmd *redis.StringCmd
		to  *string
	}{{r.state, &b.state}, {r.log, &b.log}, {r.sum, &b.sum}} {
		v, err := value(part.cmd)
		switch {
		case errors.Is(err, errCorrupt):
			b.err = err
		case err != nil:
			return b, err
		}
		*part.to = v
	}
	return b, nil
}

// value is a key's value, "" where there is none.
func value(cmd *redis.StringCmd) (string, error) {
	v, err := cmd.Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", nil
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return "", fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return v, err
}

// read fetches what is stored of a block, as it was at one moment.
func (q *Queue) read(ctx context.Context, id string, n int) (blockData, error) {
	pipe := q.rdb.TxPipeline()
	r := q.readIn(ctx, pipe, id, n)
	_, _ = pipe.Exec(ctx) // each command says it by itself
	return r.data()
}

// fetch reads a block with its recipients, nil where they do not decode or are not
// there; what is wrong with them is then in the data's block. Its error is Redis's, or
// errNewer.
func (q *Queue) fetch(ctx context.Context, id string, n int) (*Block, blockData, error) {
	pipe := q.rdb.TxPipeline()
	recipients, r := pipe.Get(ctx, q.keys.recipients(id, n)), q.readIn(ctx, pipe, id, n)
	_, _ = pipe.Exec(ctx) // each command says it by itself
	b, err := r.data()
	if err != nil {
		return nil, b, fmt.Errorf("read block %s: %w", blockID(id, n), err)
	}
	var block *Block
	data, err := value(recipients)
	switch {
	case err == nil && data == "":
		err = fmt.Errorf("its recipients are not stored: %w", errCorrupt)
	case err == nil:
		if block, err = q.codec.decodeBlock([]byte(data)); err != nil {
			block, err = nil, fmt.Errorf("its recipients: %w", err)
		}
	case !errors.Is(err, errCorrupt):
		return nil, b, fmt.Errorf("read block %s: %w", blockID(id, n), err)
	}
	if errors.Is(err, errNewer) {
		return nil, b, fmt.Errorf("block %s: %w", blockID(id, n), err)
	}
	b.block = err
	return block, b, nil
}

// salvage is what can be read of a block's recipients, whatever is stored, and what is
// wrong with it, if anything is. A newer program's data cannot be told from here.
func (b blockData) salvage(c *codec, size int) ([]Standing, error) {
	st, err := c.decodeState([]byte(b.state), size)
	if errors.Is(err, errNewer) {
		return nil, err
	}
	if err != nil {
		st = make([]Standing, size)
	}
	if e := fold(st, []byte(b.log)); errors.Is(e, errNewer) {
		return nil, e
	} else if err == nil {
		err = e
	}
	if err == nil {
		err = b.err
	}
	return st, err
}

// lastKnown is salvage for showing: who has no final outcome in what does decode is
// Unknown. why says what is wrong with the block, if that is known, and is returned, ""
// where nothing is. The standings are nil where a newer program knows them.
func (c *codec) lastKnown(b blockData, size int, why string) ([]Standing, string) {
	st, err := b.salvage(c, size)
	if st == nil {
		return nil, ""
	}
	if err != nil && why == "" {
		why = err.Error()
	}
	if why == "" {
		return st, ""
	}
	for i := range st {
		if s := &st[i]; !s.Outcome.Final() {
			*s = Standing{Outcome: mail.Unknown, Attempts: s.Attempts, Time: s.Time, Closed: true, Reply: mail.Reply{Text: asideText + why}}
		}
	}
	return st, why
}
