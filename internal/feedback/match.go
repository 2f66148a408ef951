package feedback

import (
	"context"
	"errors"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// Bounds of where recipients are looked for.
const (
	maxCampaigns = 1000       // the newest
	maxPeople    = 10_000_000 // 24 bytes each
)

// clockSkew is how far behind a reporter's clock may be.
const clockSkew = time.Minute

// match finds the recipients that reports are about.
func (im *Importer) match(ctx context.Context, all []finding) error {
	clear(im.named)
	for _, x := range im.indexes {
		clear(x.sent) // it goes on
	}
	var open []*finding // of those that name no campaign
	for i := range all {
		f := &all[i]
		c, err := im.campaignOf(ctx, f)
		if err != nil {
			return err
		}
		if c == nil {
			if f.Campaign == "" {
				open = append(open, f)
			}
			continue
		}
		if err := im.try(ctx, c, f); err != nil {
			return err
		}
	}
	if err := im.search(ctx, open); err != nil {
		return err
	}
	return im.complete(ctx, all)
}

// campaignOf is the campaign that a report names, or all of them mean; nil where none is
// named, or there is none of that name.
func (im *Importer) campaignOf(ctx context.Context, f *finding) (*queue.Campaign, error) {
	if f.Campaign == "" {
		return im.p.Campaign, nil
	}
	if c, known := im.named[f.Campaign]; known {
		return c, nil
	}
	c, err := im.p.Queue.Find(ctx, f.Campaign)
	if errors.Is(err, queue.ErrNoCampaign) {
		c, err = nil, nil
	}
	if err == nil {
		im.named[f.Campaign] = c
	}
	return c, err
}

// search looks through the latest campaigns, the newest first, until everybody is found.
func (im *Importer) search(ctx context.Context, open []*finding) error {
	if len(open) == 0 {
		return nil
	}
	recent, err := im.p.Queue.List(ctx, maxCampaigns)
	if err != nil {
		return err
	}
	oldest, looked := time.Now().Add(-im.p.Within), 0
	for _, c := range recent {
		if len(open) == 0 || c.Created.Before(oldest) && c.Start.Before(oldest) {
			break
		}
		if looked += c.Counts.Queued(); looked > maxPeople {
			break
		}
		var left []*finding
		for _, f := range open {
			// An address is in many campaigns; it was not this one where that came later.
			if f.MessageID == "" && !f.Time.IsZero() && f.Time.Add(clockSkew).Before(c.Created) {
				left = append(left, f)
				continue
			}
			if err := im.try(ctx, c, f); err != nil {
				return err
			}
			if f.where == nil {
				left = append(left, f)
			}
		}
		open = left
	}
	return nil
}

// try looks for a report's recipient in one campaign.
func (im *Importer) try(ctx context.Context, c *queue.Campaign, f *finding) error {
	x := im.indexes[c.ID]
	if x == nil {
		if !c.Open || c.Size == 0 {
			return nil
		}
		if im.people += c.Counts.Queued(); im.people > 2*maxPeople {
			clear(im.indexes)
			im.people = c.Counts.Queued()
		}
		var err error
		if x, err = newIndex(ctx, im.p.Queue, c, im.seed); err != nil {
			return err
		}
		im.indexes[c.ID] = x
	}
	if f.MessageID != "" {
		if p, ok := x.byID(f.MessageID); ok {
			f.where, f.person = x, p
		}
		return nil
	}
	if !f.Trusted || f.Address == (mail.Address{}) {
		return nil
	}
	p, ok, err := x.of(ctx, im.p.Queue, f.Address)
	if ok && err == nil {
		f.where, f.person = x, p
	}
	return err
}

// complete gives those who were found by Message-ID the address that we sent to, where
// it matters: what a report calls them may be where that was forwarded to.
func (im *Importer) complete(ctx context.Context, all []finding) error {
	wanted := map[*index][]uint32{}
	for i := range all {
		f := &all[i]
		if f.where != nil && (f.suppress || f.fate == queue.Blocked) && !f.where.has(f.person, f.Address) {
			f.Address = mail.Address{}
			wanted[f.where] = append(wanted[f.where], f.person.at)
		}
	}
	for x, at := range wanted {
		found, err := x.addresses(ctx, im.p.Queue, at)
		if err != nil {
			return err
		}
		for i := range all {
			if f := &all[i]; f.where == x && f.Address == (mail.Address{}) {
				f.Address = found[f.person.at]
			}
		}
	}
	return nil
}
