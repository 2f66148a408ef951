package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
)

// suppressed asks the suppression list for everybody of a block: by index, with the
// reason.
func (l *lane) suppressed(ctx context.Context, c *queue.Claim) (map[int]string, error) {
	all := make([]mail.Address, len(c.Block.Emails))
	for i, e := range c.Block.Emails {
		a, err := mail.ParseAddress(e)
		if err != nil {
			return nil, fmt.Errorf("recipient %d of block %s: %w", i, c.ID(), err)
		}
		all[i] = a
	}
	hits, err := l.conf.Suppress.Check(ctx, l.stream, all)
	if err != nil || len(hits) == 0 {
		return nil, err
	}
	listed := make(map[int]string, len(hits))
	for _, h := range hits {
		listed[h.Index] = h.Entry.Why()
	}
	return listed, nil
}

// watchSuppressed looks once a second whether the list has changed, and if so, asks it
// again for all blocks in hand: a block may wait long for its budget.
func (l *lane) watchSuppressed(ctx context.Context) {
	seen, known := int64(0), false
	for wait(ctx, time.Second) == nil {
		v, err := l.conf.Suppress.Version(ctx)
		if err != nil || known && v == seen {
			continue
		}
		complete := true
		if known {
			l.feed.recheck(func(c *queue.Claim) map[int]string {
				listed, err := l.suppressed(ctx, c)
				complete = complete && err == nil
				return listed
			})
		}
		if complete {
			seen, known = v, true
		}
	}
}

// suppress puts who is never to be written to again onto the list, soon.
func (l *lane) suppress(h heard) {
	to, err := mail.ParseAddress(h.address)
	if err != nil {
		l.log.Error("not put onto the suppression list", "recipient", mail.Mask(h.address), "err", err)
		return
	}
	l.mu.Lock()
	l.barred = append(l.barred, suppress.Entry{Address: to, Source: suppress.ByVerdict, Reason: h.verdict.Why, Detail: replyOf(h.result).String()})
	l.mu.Unlock()
	l.errands.ask("suppression list", func(ctx context.Context) error {
		l.mu.Lock()
		barred := l.barred
		l.barred = nil
		l.mu.Unlock()
		if _, err := l.conf.Suppress.Add(ctx, barred...); err != nil {
			l.mu.Lock()
			l.barred = append(barred, l.barred...)
			l.mu.Unlock()
			return err
		}
		return nil
	})
}
