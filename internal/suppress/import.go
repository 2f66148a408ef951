package suppress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
)

// The columns of a file of entries beside email; all of them may be missing.
const (
	columnStream = "stream"
	columnReason = "reason"
	columnSource = "source"
	columnTime   = "time"
	columnDetail = "detail"
)

func columns() []string {
	return []string{columnStream, columnReason, columnSource, columnTime, columnDetail}
}

// Input is a file of entries: CSV or TSV with a header row, or JSON Lines, in any
// encoding that internal/list reads. Only email is needed; stream (all, auth, normal or
// ad), reason, source, time and detail are taken where they are given. It is what
// Export writes.
type Input struct {
	Name     string // for messages, and for the format by its extension
	Encoding string // one of list.Encodings; "" = detected
	Scope    Scope  // of rows that name no stream
	Reason   string // of rows that give none; "" = the usual one of their source
	// Bad is called for every row that cannot be used; may be nil.
	Bad func(*list.RowError)
	// Progress is called every 10,000 rows; may be nil.
	Progress func(rows int)
}

// Imported counts the rows of a file. Rows is the sum of the others.
type Imported struct {
	Rows    int
	Added   int // entries that are new; of a mere reading, all that are good
	Earlier int // took the place of a later entry
	Known   int // were there already, or earlier ones were
	Bad     int
}

// Import adds the entries of a file, in constant memory. Bad rows are reported and
// counted, and stop nobody else; an error ends it, with what was read before added.
// Doing it again changes nothing.
func (l *List) Import(ctx context.Context, src io.Reader, in Input) (Imported, error) {
	var sum Imported
	now, err := l.rdb.Time(ctx).Result()
	if err != nil {
		return sum, fmt.Errorf("add to suppression list: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches, stored := make(chan []Entry, 2), make(chan struct{})
	var changes Imported
	go func() { // one, so that of equal rows the first stands
		defer close(stored)
		for b := range batches {
			if ctx.Err() != nil {
				continue
			}
			said, err := l.addBatch(ctx, b)
			if err != nil {
				cancel(fmt.Errorf("add to suppression list: %w", err))
			}
			changes.note(said)
		}
	}()
	sum, err = read(ctx, src, in, func(b []Entry) {
		for i := range b {
			if b[i].Time.IsZero() {
				b[i].Time = now
			}
		}
		batches <- b
	})
	close(batches)
	<-stored
	sum.Added, sum.Earlier, sum.Known = changes.Added, changes.Earlier, changes.Known
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return sum, err
}

func (s *Imported) note(said []Change) {
	for _, c := range said {
		switch c {
		case Added:
			s.Added++
		case Earlier:
			s.Earlier++
		case Known:
			s.Known++
		}
	}
}

// Read reads a file as Import does, and adds nothing.
func Read(ctx context.Context, src io.Reader, in Input) (Imported, error) {
	return read(ctx, src, in, func([]Entry) {})
}

// read hands out the good rows in batches.
func read(ctx context.Context, src io.Reader, in Input, each func([]Entry)) (Imported, error) {
	var sum Imported
	optional := map[string]bool{}
	for _, c := range columns() {
		optional[c] = true
	}
	rd, err := list.Open(src, list.Options{Name: in.Name, Columns: columns(), Optional: optional, Encoding: in.Encoding})
	if err != nil {
		return sum, err
	}
	plain := uncell
	if rd.Header() == nil { // JSON is not written for spreadsheets
		plain = func(s string) string { return s }
	}
	var batch []Entry
	for ctx.Err() == nil {
		row, err := rd.Next()
		if errors.Is(err, io.EOF) {
			if len(batch) > 0 {
				each(batch)
			}
			return sum, nil
		}
		var e Entry
		if err == nil {
			if e, err = in.entry(row, plain); err != nil {
				err = &list.RowError{Line: row.Line, Address: row.Address.String(), Reason: err.Error()}
			}
		}
		var bad *list.RowError
		switch {
		case errors.As(err, &bad):
			sum.Bad++
			if in.Bad != nil {
				in.Bad(bad)
			}
		case err != nil:
			return sum, err
		default:
			sum.Added++
			batch = append(batch, e)
		}
		if len(batch) == batchSize {
			each(batch)
			batch = make([]Entry, 0, batchSize)
		}
		if sum.Rows++; sum.Rows%10_000 == 0 && in.Progress != nil {
			in.Progress(sum.Rows)
		}
	}
	return sum, ctx.Err()
}

// entry makes an Entry of a row, of whose values plain takes off what was put on for
// spreadsheets.
func (in *Input) entry(row list.Row, plain func(string) string) (Entry, error) {
	e := Entry{Address: row.Address, Scope: in.Scope, Source: ByImport, Reason: in.Reason}
	var err error
	if written := e.Address.String(); plain(written) != written {
		if e.Address, err = mail.ParseAddress(plain(written)); err != nil {
			return e, err
		}
	}
	for i, name := range columns() {
		v := plain(strings.TrimSpace(row.Values[i]))
		if v == "" {
			continue
		}
		switch name {
		case columnStream:
			e.Scope, err = ParseScope(strings.ToLower(v))
		case columnReason:
			e.Reason = v
		case columnSource:
			e.Source, err = ParseSource(strings.ToLower(v))
		case columnTime:
			e.Time, err = parseTime(v)
		case columnDetail:
			e.Detail = v
		}
		if err != nil {
			return e, err
		}
	}
	return e.prepared()
}

// parseTime reads a time as people and programs write it.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q: want 2006-01-02T15:04:05+09:00, or 2006-01-02 15:04:05 or 2006-01-02 in local time", clip(s, maxReason))
}

// cell makes a value fit for a spreadsheet: one that it could take for a formula gets
// an apostrophe in front. So does one that begins with an apostrophe, which makes
// uncell its inverse.
func cell(s string) string {
	if strings.HasPrefix(s, "'") {
		return "'" + s
	}
	return list.SafeCell(s)
}

func uncell(s string) string {
	rest, ok := strings.CutPrefix(s, "'")
	if ok && cell(rest) != rest {
		return rest
	}
	return s
}
