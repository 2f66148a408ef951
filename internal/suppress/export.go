package suppress

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// Output says how Export writes.
type Output struct {
	JSON bool // JSON Lines instead of CSV
	// Progress is called now and then; may be nil.
	Progress func(entries int)
}

// exportStep is how many buckets are read at once: about 4,000 addresses of a
// million.
const exportStep = 64

// Export writes every entry, with full addresses, and returns how many there were.
// Import reads it back. The order is the same every time, and not that of the
// alphabet. What is added or removed meanwhile may or may not be in it.
func (l *List) Export(ctx context.Context, w io.Writer, o Output) (int, error) {
	out := bufio.NewWriterSize(w, 64<<10)
	start := csvWriter
	if o.JSON {
		start = jsonWriter
	}
	write, flush := start(out)
	n := 0
	for first := 0; first < buckets; first += exportStep {
		entries, err := l.readBuckets(ctx, first, min(first+exportStep, buckets))
		if err != nil {
			return n, err
		}
		for _, e := range entries {
			if err := write(e); err != nil {
				return n, fmt.Errorf("write entries: %w", err)
			}
			n++
		}
		if o.Progress != nil {
			o.Progress(n)
		}
	}
	if err := errors.Join(flush(), out.Flush()); err != nil {
		return n, fmt.Errorf("write entries: %w", err)
	}
	return n, nil
}

// readBuckets returns the entries of some buckets, sorted within each.
func (l *List) readBuckets(ctx context.Context, first, end int) ([]Entry, error) {
	pipe := l.rdb.Pipeline()
	asked := make([]*redis.MapStringStringCmd, 0, end-first)
	for n := first; n < end; n++ {
		asked = append(asked, pipe.HGetAll(ctx, l.bucket(n)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read suppression list: %w", err)
	}
	var addresses []mail.Address
	var values []string
	for _, c := range asked {
		fields := c.Val()
		for _, key := range slices.Sorted(maps.Keys(fields)) {
			a, err := mail.ParseAddress(key)
			if err != nil {
				return nil, fmt.Errorf("suppression list: %s holds what is no address: %w", c.Args()[1], err)
			}
			addresses, values = append(addresses, a), append(values, fields[key])
		}
	}
	all, err := l.decode(ctx, addresses, values)
	return slices.Concat(all...), err
}

// Row is an entry as it is written out, with the full address.
type Row struct {
	Email  string `json:"email"`
	Stream string `json:"stream"`
	Reason string `json:"reason"`
	Source string `json:"source,omitempty"`
	Time   string `json:"time,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// NewRow makes a Row of an entry.
func NewRow(e Entry) Row {
	r := Row{Email: e.Address.String(), Stream: e.Scope.String(), Reason: e.Reason, Detail: e.Detail}
	if e.Source.known() {
		r.Source = e.Source.String()
	}
	if !e.Time.IsZero() {
		r.Time = e.Time.UTC().Format(time.RFC3339)
	}
	return r
}

func jsonWriter(w io.Writer) (write func(Entry) error, flush func() error) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(e Entry) error { return enc.Encode(NewRow(e)) }, func() error { return nil }
}

func csvWriter(w io.Writer) (write func(Entry) error, flush func() error) {
	out := csv.NewWriter(w)
	// The writer keeps its first error, and gives it at the next Write.
	_ = out.Write(append([]string{"email"}, columns()...))
	write = func(e Entry) error {
		r := NewRow(e)
		return out.Write([]string{cell(r.Email), r.Stream, cell(r.Reason), r.Source, r.Time, cell(r.Detail)})
	}
	return write, func() error { out.Flush(); return out.Error() }
}
