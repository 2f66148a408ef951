package producer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/templates"
)

// BlockSize is the number of recipients a block holds: large enough that storage
// costs little beside the recipients themselves, small enough that a block is
// settled often.
const BlockSize = 500

// Request is one send.
type Request struct {
	Name     string // of the campaign; "" = made from the template's name, its version and the list
	Key      string // idempotency key; "" = made from name, template version and list
	Stream   mail.Stream
	Relay    string // the account the mail is meant for; "" = any worker's
	Template *templates.Template
	Options  templates.Options
	List     List
	Encoding string         // of the list, by one of list.Encodings; "" = detected
	Start    time.Time      // not before; zero = at once
	Suppress Suppression    // who gets no mail; nil = nobody is left out
	Canary   queue.Canary   // how many are sent to first; zero = all of them
	Progress func(rows int) // called now and then while the list is read; may be nil
}

// List is a recipient list that can be read twice: once to know it, once to store
// it. Both readings must give the same bytes.
type List struct {
	Name string // for messages
	Open func() (io.ReadCloser, error)
}

// Result is what a send led to.
type Result struct {
	Campaign *queue.Campaign
	// Existing: the same send had been done before; nothing was stored now.
	Existing bool
	Door     queue.Door
	// Faults are the first refused rows, for people.
	Faults   []Fault
	Warnings []string
}

// Fault is a row that was refused at the door.
type Fault struct {
	Line    int
	Address string // as written; empty where there was none
	Outcome mail.Outcome
	Reason  string
}

// maxFaults bounds Result.Faults, and maxSuppressed those of them that are merely on the
// suppression list; the report has them all.
const (
	maxFaults     = 20
	maxSuppressed = 5
)

// ErrListChanged is returned when the list was changed while it was being read.
var ErrListChanged = errors.New("the list changed while it was being read; send it again")

// Send checks the whole list and stores it as a campaign.
func Send(ctx context.Context, q *queue.Queue, r Request) (*Result, error) {
	p, sum, err := r.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.fits(ctx, q); err != nil {
		return nil, err
	}
	pin, err := p.Pin()
	if err != nil {
		return nil, fmt.Errorf("pin template: %w", err)
	}
	gate, err := r.gate(ctx, p)
	if err != nil {
		return nil, err
	}
	st, err := stage(ctx, q, queue.Campaign{
		Name: r.Name, Key: r.Key, Stream: r.Stream, Relay: r.Relay, From: r.Options.From.Address.String(),
		Template: r.Template.Name() + "@" + r.Template.Version(), Digest: stagedDigest(sendDigest(r.Stream, sum, pin), gate != nil),
		Start: r.Start, Size: BlockSize, Canary: r.Canary,
	}, pin)
	if err != nil {
		if errors.Is(err, queue.ErrConflict) {
			return nil, &InputError{err}
		}
		return nil, err
	}
	res := &Result{Campaign: st.Campaign(), Existing: st.Existing, Warnings: p.Warnings()}
	if st.Existing {
		res.Door = st.Campaign().Counts
		return res, nil
	}
	in := &intake{ctx: ctx, request: r, program: p, store: st, result: res, gate: gate}
	if err := in.run(sum); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return nil, errors.Join(err, st.Discard(undo, in.blocks, in.doors))
	}
	return res, nil
}

// Check reads and renders the whole list and stores nothing.
func Check(ctx context.Context, r Request) (*Result, error) {
	p, sum, err := r.prepare(ctx)
	if err != nil {
		return nil, err
	}
	res := &Result{Warnings: p.Warnings(), Campaign: &queue.Campaign{Name: r.Name, Key: r.Key, Stream: r.Stream}}
	gate, err := r.gate(ctx, p)
	if err != nil {
		return nil, err
	}
	in := &intake{ctx: ctx, request: r, program: p, store: dry{}, render: true, result: res, gate: gate}
	return res, in.run(sum)
}

// gate is what asks the suppression list, nil where nobody is on it.
func (r *Request) gate(ctx context.Context, p *templates.Program) (*gate, error) {
	if r.Suppress == nil {
		return nil, nil
	}
	empty, err := r.Suppress.Empty(ctx)
	if err != nil || empty {
		return nil, err
	}
	return &gate{list: r.Suppress, stream: r.Stream, columns: len(p.Columns())}, nil
}

// stagedDigest is the digest of what is sent and, where the suppression list may leave
// somebody out, a word of this producer's own behind it: what two producers of the same
// send cut out of a list that changes meanwhile may differ, and must not be mixed in one
// campaign. The one that begins later goes on, the other is refused.
func stagedDigest(digest string, gated bool) string {
	if gated {
		digest += ownMark + rand.Text()
	}
	return digest
}

// ownMark stands between the digest of a send and the producer's own word.
const ownMark = "+"

// stage begins to store a campaign. One that was committed before by another producer
// of the same send is the same campaign.
func stage(ctx context.Context, q *queue.Queue, c queue.Campaign, pin []byte) (*queue.Staging, error) {
	st, err := q.Stage(ctx, c, pin)
	if !errors.Is(err, queue.ErrConflict) {
		return st, err
	}
	old, ferr := q.Find(ctx, queue.CampaignID(c.Key))
	if ferr != nil || !old.Open {
		return nil, err
	}
	was, _, _ := strings.Cut(old.Digest, ownMark)
	is, _, _ := strings.Cut(c.Digest, ownMark)
	if was != is {
		return nil, err
	}
	c.Digest = old.Digest
	return q.Stage(ctx, c, pin)
}

// prepare reads the list for the first time, compiles the template for its columns
// and gives the send its identity.
func (r *Request) prepare(ctx context.Context) (*templates.Program, string, error) {
	sum, err := r.List.hash(ctx)
	if err != nil {
		return nil, "", err
	}
	if r.Options.Columns, err = r.columns(ctx); err != nil {
		return nil, "", err
	}
	p, err := r.Template.Compile(r.Options)
	if err != nil {
		return nil, "", &InputError{err}
	}
	if err := r.name(sum); err != nil {
		return nil, "", &InputError{err}
	}
	return p, sum, nil
}

// fits compares the mail with the size that the relay offers, where a worker has seen
// it. The limit is no part of what is pinned: it may change between two repeats.
func (r *Request) fits(ctx context.Context, q *queue.Queue) error {
	size, err := q.RelaySize(ctx, r.Relay)
	if err != nil || size <= 0 || size >= templates.DefaultMaxSize {
		return err
	}
	o := r.Options
	o.MaxSize = int(size)
	if _, err := r.Template.Compile(o); err != nil {
		return &InputError{fmt.Errorf("the relay takes messages of at most %d octets: %w", size, err)}
	}
	return nil
}

// columns reads the list's header: what it does not have, the template can fix for
// the whole campaign. Nil where every row may have its own.
func (r *Request) columns(ctx context.Context) ([]string, error) {
	f, err := r.List.Open()
	if err != nil {
		return nil, &InputError{fmt.Errorf("open list: %w", err)}
	}
	defer f.Close()
	rd, err := list.Open(&cancellable{ctx, f}, list.Options{Name: r.List.Name, Encoding: r.Encoding})
	if err != nil {
		return nil, inputOr(err)
	}
	var names []string
	for _, name := range rd.Header() {
		if !strings.EqualFold(name, "email") {
			names = append(names, name)
		}
	}
	return names, nil
}

// InputError is a fault of what the caller gave: nothing was enqueued, and the same
// input will fail again.
type InputError struct{ Err error }

// Error implements error.
func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap gives the fault itself.
func (e *InputError) Unwrap() error { return e.Err }

// maxName bounds a campaign's name, in bytes.
const maxName = 200

// name fills in name and key from what identifies the send. A name that the queue would
// refuse is refused here: a dry run asks no queue.
func (r *Request) name(list string) error {
	version := r.Template.Version()
	if r.Name == "" {
		sum := sha256.Sum256([]byte(version + "\x00" + list + "\x00" + r.Key))
		base := filepath.Base(r.Template.Name())
		r.Name = strings.TrimSuffix(base, ".tmpl") + "-" + hex.EncodeToString(sum[:4])
	}
	if r.Key == "" {
		r.Key = "auto\x00" + r.Name + "\x00" + version + "\x00" + list
	}
	if len(r.Name) > maxName || strings.ContainsAny(r.Name, "\r\n\x00{}") {
		return fmt.Errorf("campaign name %q: want 1 to %d bytes without line breaks or braces; give another --name", r.Name, maxName)
	}
	return nil
}

// hash reads the list once.
func (l List) hash(ctx context.Context) (string, error) {
	f, err := l.Open()
	if err != nil {
		return "", &InputError{fmt.Errorf("open list: %w", err)}
	}
	defer f.Close()
	// A directory can be opened like a file; only reading it fails.
	if s, ok := f.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := s.Stat(); err == nil && info.IsDir() {
			return "", &InputError{fmt.Errorf("list %s is a directory: want a file", l.Name)}
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, &cancellable{ctx, f}); err != nil {
		return "", fmt.Errorf("read list %s: %w", l.Name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// cancellable is a reader that ends with its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// open begins the second reading; the hash has seen all of it at its end.
func (r *Request) open(ctx context.Context, p *templates.Program) (*list.Reader, hash.Hash, io.Closer, error) {
	columns, optional := p.Columns(), map[string]bool{}
	for i, name := range columns {
		optional[name] = !p.Needed(i)
	}
	f, err := r.List.Open()
	if err != nil {
		return nil, nil, nil, &InputError{fmt.Errorf("open list: %w", err)}
	}
	h := sha256.New()
	rd, err := list.Open(io.TeeReader(&cancellable{ctx, f}, h), list.Options{Name: r.List.Name, Columns: columns, Optional: optional, Encoding: r.Encoding})
	if err != nil {
		return nil, nil, nil, errors.Join(inputOr(err), f.Close())
	}
	return rd, h, f, nil
}

// inputOr marks faults of the list as the caller's.
func inputOr(err error) error {
	var format *list.FormatError
	if errors.As(err, &format) {
		return &InputError{err}
	}
	return err
}
