package feedback

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
)

// Params configure New.
type Params struct {
	Queue    *queue.Queue   // nil = nothing is looked for or changed: reports are read and judged
	Suppress *suppress.List // nil only where Queue is
	Rules    *verdict.Rules
	Preset   string                     // of the relay, for rules that are about one
	Group    func(domain string) string // destination group; nil = there are none
	Campaign *queue.Campaign            // of reports that name none; nil = it is looked for
	// Within is how old a campaign may be for a report that names none.
	Within time.Duration
	// Bad is called for every report that cannot be used; may be nil.
	Bad func(*Fault)
	// Held is called when what was taken in made a breaker hold something: a campaign, or
	// a destination group ("" = none); may be nil.
	Held func(c *queue.Campaign, group string, h *queue.Hold)
}

// Summary counts reports. Reports is the sum of Bad and the four statuses.
type Summary struct {
	Reports, Bad                            int
	Delivered, Bounced, Complained, Delayed int
	NoRule                                  int // bounces whose words no rule knows
	// Of the good ones that decide something:
	New        int // recipients of whom this was not known before
	Unmatched  int // of no campaign that could be found
	Suppressed int // addresses that are on the suppression list because of this
}

// batch is how many reports are taken in at once.
const batch = 20_000

// soon is how old the first report of a batch may get before it is taken in, where more
// come in slowly.
const soon = time.Second

// Importer takes in reports. It is not safe for concurrent use.
type Importer struct {
	p       Params
	sum     Summary
	seed    maphash.Seed
	waiting []finding
	since   time.Time // of the first of waiting

	named   map[string]*queue.Campaign // by name; nil = there is none
	indexes map[string]*index          // by campaign's id
	people  int                        // in all indexes
}

// New returns an importer; Flush ends its use.
func New(p Params) *Importer {
	if p.Group == nil {
		p.Group = func(string) string { return "" }
	}
	return &Importer{p: p, seed: maphash.MakeSeed(), named: map[string]*queue.Campaign{}, indexes: map[string]*index{}}
}

// Summary returns the counts so far.
func (im *Importer) Summary() Summary { return im.sum }

// Read reads an input to its end, in constant memory but for the campaigns that it is
// about. name is for messages, and tells the format by its extension: .jsonl, .eml or
// .mbox; otherwise the beginning does. The error is a *FormatError, src's, or Redis's.
func (im *Importer) Read(ctx context.Context, name string, src io.Reader) error {
	return read(name, src, func(line int, r Report, fault error) error {
		im.sum.Reports++
		if fault != nil {
			im.sum.Bad++
			if im.p.Bad != nil {
				im.p.Bad(&Fault{name, line, fault})
			}
			return ctx.Err()
		}
		return im.add(ctx, r)
	})
}

func (im *Importer) add(ctx context.Context, r Report) error {
	switch r.Status {
	case Delivered:
		im.sum.Delivered++
	case Bounced:
		im.sum.Bounced++
	case Complained:
		im.sum.Complained++
	case Delayed:
		im.sum.Delayed++
	}
	if !ours(r.MessageID) {
		r.MessageID = "" // a relay's own: nothing here knows it
	}
	f := im.judge(r)
	if f.fate == 0 || im.p.Queue == nil {
		return ctx.Err()
	}
	if len(im.waiting) == 0 {
		im.since = time.Now()
	}
	im.waiting = append(im.waiting, f)
	if len(im.waiting) >= batch || time.Since(im.since) > soon {
		return im.Flush(ctx)
	}
	return nil
}

// Flush takes in what was read. It is called behind the last Read, and may be before.
func (im *Importer) Flush(ctx context.Context) error {
	if len(im.waiting) == 0 {
		return ctx.Err()
	}
	if err := im.match(ctx, im.waiting); err != nil {
		return err
	}
	if err := im.suppress(ctx); err != nil {
		return err
	}
	if err := im.tell(ctx); err != nil {
		return err
	}
	clear(im.waiting)
	im.waiting = im.waiting[:0]
	return nil
}

// suppress puts bad addresses on the list.
func (im *Importer) suppress(ctx context.Context) error {
	now := time.Now()
	var entries []suppress.Entry
	for i := range im.waiting {
		f := &im.waiting[i]
		if f.suppress && f.Address != (mail.Address{}) && (f.Trusted || f.where != nil) {
			entries = append(entries, f.entry(now))
		}
	}
	if len(entries) == 0 {
		return nil
	}
	changes, err := im.p.Suppress.Add(ctx, entries...)
	for _, c := range changes {
		if c == suppress.Added {
			im.sum.Suppressed++
		}
	}
	return err
}

// tell gives what was found to the campaigns.
func (im *Importer) tell(ctx context.Context) error {
	told := map[*index][]queue.Told{}
	for i := range im.waiting {
		f := &im.waiting[i]
		if f.where == nil {
			im.sum.Unmatched++
			continue
		}
		t := queue.Told{Line: int(f.person.line), Fate: f.fate, Time: f.Time}
		switch f.fate {
		case queue.Blocked:
			t.Text, t.Group = f.reply(), im.p.Group(f.Address.Domain())
		case queue.Bounced:
			t.Text = f.reply()
		}
		told[f.where] = append(told[f.where], t)
	}
	for x, all := range told {
		h, err := im.p.Queue.Feedback(ctx, x.campaign, all)
		im.sum.New += h.Changed
		if im.p.Held != nil {
			if h.Campaign != nil {
				im.p.Held(x.campaign, "", h.Campaign)
			}
			for group, hold := range h.Groups {
				im.p.Held(x.campaign, group, hold)
			}
		}
		if errors.Is(err, queue.ErrNoCampaign) { // its time in Redis ended just now
			delete(im.indexes, x.campaign.ID)
			im.sum.Unmatched += len(all)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
