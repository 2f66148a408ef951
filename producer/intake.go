package producer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/templates"
)

// store is where an intake puts what it has read.
type store interface {
	Put(ctx context.Context, n int, b *queue.Block) error
	Refuse(ctx context.Context, n int, b *queue.Block) error
	Commit(ctx context.Context, blocks, doors int, d queue.Door) error
}

// dry is the store of a dry run.
type dry struct{}

func (dry) Put(context.Context, int, *queue.Block) error       { return nil }
func (dry) Refuse(context.Context, int, *queue.Block) error    { return nil }
func (dry) Commit(context.Context, int, int, queue.Door) error { return nil }

// intake reads one list into blocks. Rows are read and judged by one goroutine, in
// order, so that the same list always makes the same blocks; blocks are compressed
// and stored by others.
type intake struct {
	ctx     context.Context //nolint:containedctx // lives as long as one Send
	request Request
	program *templates.Program
	store   store
	render  bool // render every row, to find what only rendering finds
	result  *Result

	gate    *gate // nil where there is nobody to hold back
	seen    list.Seen
	block   *queue.Block
	door    *queue.Block
	blocks  int // begun
	doors   int // begun
	scratch []byte
}

// storers is how many goroutines compress and store blocks.
const storers = 2

// parcel is a full block on its way to the store.
type parcel struct {
	n     int
	block *queue.Block
	door  bool
}

// run reads the list, stores it, and commits it if all went well. want is the hash
// of the first reading.
func (in *intake) run(want string) error {
	ctx, cancel := context.WithCancelCause(in.ctx)
	defer cancel(nil)
	in.ctx = ctx
	rd, h, closer, err := in.request.open(ctx, in.program)
	if err != nil {
		return err
	}
	defer closer.Close()

	parcels := make(chan parcel, 2*storers)
	var wg sync.WaitGroup
	for range storers {
		wg.Go(func() {
			for p := range parcels {
				if ctx.Err() != nil {
					continue
				}
				put := in.store.Put
				if p.door {
					put = in.store.Refuse
				}
				if err := put(ctx, p.n, p.block); err != nil {
					cancel(err)
				}
			}
		})
	}
	err = in.read(rd, parcels)
	close(parcels)
	wg.Wait()
	if in.gate != nil {
		if err != nil {
			cancel(err)
		}
		in.gate.asking.Wait()
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	switch {
	case err != nil:
		return err
	case hex.EncodeToString(h.Sum(nil)) != want:
		return ErrListChanged
	case in.result.Door.Recipients == 0:
		return &InputError{fmt.Errorf("list %s has a header and no recipient", in.request.List.Name)}
	}
	return in.store.Commit(ctx, in.blocks, in.doors, in.result.Door)
}

// progressEvery is how many rows lie between two reports of progress.
const progressEvery = 10_000

func (in *intake) read(rd *list.Reader, out chan<- parcel) error {
	door := &in.result.Door
	for {
		row, err := rd.Next()
		var bad *list.RowError
		switch {
		case errors.Is(err, io.EOF):
			return in.ship(out)
		case errors.As(err, &bad):
			err = in.refused(out, Fault{bad.Line, bad.Address, mail.Invalid, bad.Reason})
		case err != nil:
			return inputOr(err)
		default:
			err = in.row(out, row)
		}
		if err != nil {
			return err
		}
		door.Recipients++
		if door.Recipients%progressEvery == 0 {
			if in.request.Progress != nil {
				in.request.Progress(door.Recipients)
			}
			if err := in.ctx.Err(); err != nil {
				return err
			}
		}
	}
}

// row judges one well-formed row.
func (in *intake) row(out chan<- parcel, row list.Row) error {
	if !in.seen.Add(row.Address) {
		return in.refused(out, Fault{row.Line, row.Address.String(), mail.Duplicate, "the address stands in an earlier row"})
	}
	if err := in.check(row); err != nil {
		return in.refused(out, Fault{row.Line, row.Address.String(), mail.Invalid, err.Error()})
	}
	if in.gate == nil {
		in.keep(out, row.Line, row.Address.String(), row.Values)
		return nil
	}
	if !in.gate.add(row) {
		return nil
	}
	in.gate.ask(in.ctx)
	return in.pass(out, asks)
}

// refused takes a row that is not to be sent to, in its turn.
func (in *intake) refused(out chan<- parcel, f Fault) error {
	if in.gate == nil {
		in.refuse(out, f)
		return nil
	}
	if !in.gate.refuse(f) {
		return nil
	}
	in.gate.ask(in.ctx)
	return in.pass(out, asks)
}

// keep puts a recipient into the block being filled.
func (in *intake) keep(out chan<- parcel, line int, email string, values []string) {
	if in.block == nil {
		in.block = newBlock(len(values))
	}
	b := in.block
	appendRow(b, line, email, values)
	if b.Len() == BlockSize {
		out <- parcel{in.blocks, b, false}
		in.blocks++
		in.block = nil
	}
}

func appendRow(b *queue.Block, line int, email string, values []string) {
	b.Lines = append(b.Lines, line)
	b.Emails = append(b.Emails, email)
	for i, v := range values {
		b.Values[i] = append(b.Values[i], v)
	}
}

func newBlock(columns int) *queue.Block {
	b := &queue.Block{Lines: make([]int, 0, BlockSize), Emails: make([]string, 0, BlockSize), Values: make([][]string, columns)}
	for i := range b.Values {
		b.Values[i] = make([]string, 0, BlockSize)
	}
	return b
}

// check asks the template whether it can make a mail of the row; a dry run makes it.
func (in *intake) check(row list.Row) error {
	if !in.render {
		return in.program.Check(row.Values)
	}
	var err error
	in.scratch, err = in.program.Render(in.scratch[:0], templates.Recipient{
		Email: row.Address.String(), Values: row.Values, MessageID: "check@" + in.program.MessageIDDomain(), Date: time.Unix(0, 0),
	})
	return err
}

// refuse notes a row that is not to be sent to.
func (in *intake) refuse(out chan<- parcel, f Fault) {
	switch f.Outcome {
	case mail.Duplicate:
		in.result.Door.Duplicate++
	case mail.Suppressed:
		in.result.Door.Suppressed++
	default:
		in.result.Door.Invalid++
	}
	// Suppressed rows are no faults of the list: they must not crowd those out.
	if len(in.result.Faults) < maxFaults && (f.Outcome != mail.Suppressed || in.result.Door.Suppressed <= maxSuppressed) {
		in.result.Faults = append(in.result.Faults, f)
	}
	if in.door == nil {
		in.door = newBlock(2)
	}
	d := in.door
	d.Lines = append(d.Lines, f.Line)
	d.Emails = append(d.Emails, oneLine(f.Address))
	d.Values[0] = append(d.Values[0], f.Outcome.String())
	d.Values[1] = append(d.Values[1], oneLine(f.Reason))
	if d.Len() == BlockSize {
		out <- parcel{in.doors, d, true}
		in.doors++
		in.door = nil
	}
}

// ship sends off what is left at the end of the list.
func (in *intake) ship(out chan<- parcel) error {
	if in.gate != nil {
		in.gate.ask(in.ctx)
		if err := in.pass(out, 0); err != nil {
			return err
		}
	}
	if in.block != nil {
		out <- parcel{in.blocks, in.block, false}
		in.blocks++
	}
	if in.door != nil {
		out <- parcel{in.doors, in.door, true}
		in.doors++
	}
	return nil
}

// oneLine makes what a bad row held fit for the report.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}
