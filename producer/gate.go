package producer

import (
	"context"
	"fmt"
	"sync"

	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
)

// Suppression knows who gets no mail. *suppress.List is one.
type Suppression interface {
	// Empty reports whether nobody is on the list.
	Empty(ctx context.Context) (bool, error)
	// Check returns those addresses that get no mail of the stream, by rising index. It
	// is called by several goroutines.
	Check(ctx context.Context, s mail.Stream, addresses []mail.Address) ([]suppress.Hit, error)
}

// asks is how many batches may wait for the suppression list's answer while further
// rows are read.
const asks = 4

// gate holds judged rows until the suppression list has been asked about them, a batch
// at a time, and lets them go on in the order of the list. Its methods are called by
// the goroutine that reads the list.
type gate struct {
	list    Suppression
	stream  mail.Stream
	columns int

	filling *batch
	waiting []*batch // in order
	asking  sync.WaitGroup
}

// batch is a part of the list: good rows, and what was refused among them.
type batch struct {
	rows      *queue.Block
	addresses []mail.Address // of rows
	faults    []Fault

	answered chan struct{}  // closed when hits or err are there
	hits     []suppress.Hit // by index into rows
	err      error
}

// current is the batch being filled.
func (g *gate) current() *batch {
	if g.filling == nil {
		g.filling = &batch{rows: newBlock(g.columns), addresses: make([]mail.Address, 0, BlockSize), answered: make(chan struct{})}
	}
	return g.filling
}

// add takes a good row and reports whether the batch is full.
func (g *gate) add(row list.Row) bool {
	b := g.current()
	b.addresses = append(b.addresses, row.Address)
	appendRow(b.rows, row.Line, row.Address.String(), row.Values)
	return len(b.addresses)+len(b.faults) >= BlockSize
}

// refuse takes a row that was refused, for its place in the list's order.
func (g *gate) refuse(f Fault) bool {
	b := g.current()
	b.faults = append(b.faults, f)
	return len(b.addresses)+len(b.faults) >= BlockSize
}

// ask closes the batch being filled and asks about it.
func (g *gate) ask(ctx context.Context) {
	b := g.filling
	if b == nil {
		return
	}
	g.filling, g.waiting = nil, append(g.waiting, b)
	g.asking.Go(func() {
		defer close(b.answered)
		if len(b.addresses) > 0 {
			b.hits, b.err = g.list.Check(ctx, g.stream, b.addresses)
		}
	})
}

// next waits for the answer about the oldest batch.
func (g *gate) next() *batch {
	b := g.waiting[0]
	g.waiting = g.waiting[1:]
	<-b.answered
	return b
}

// pass moves batches on, until at most left are waiting.
func (in *intake) pass(out chan<- parcel, left int) error {
	for len(in.gate.waiting) > left {
		b := in.gate.next()
		if b.err != nil {
			return fmt.Errorf("nothing is sent unchecked: %w", b.err)
		}
		in.passBatch(out, b)
	}
	return nil
}

// passBatch puts the rows of a batch where they belong, in order of their lines.
func (in *intake) passBatch(out chan<- parcel, b *batch) {
	faults, hits := b.faults, b.hits
	values := make([]string, 0, len(b.rows.Values))
	for i, line := range b.rows.Lines {
		for len(faults) > 0 && faults[0].Line < line {
			in.refuse(out, faults[0])
			faults = faults[1:]
		}
		if len(hits) > 0 && hits[0].Index == i {
			in.refuse(out, Fault{line, b.rows.Emails[i], mail.Suppressed, hits[0].Entry.Why()})
			hits = hits[1:]
			continue
		}
		values = b.rows.Row(values[:0], i)
		in.keep(out, line, b.rows.Emails[i], values)
	}
	for _, f := range faults {
		in.refuse(out, f)
	}
}
