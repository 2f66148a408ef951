package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
)

// A campaign whose template cannot be had is left alone for a while, and stops
// nobody else's; cancelled, it ends all the same.
func TestBrokenTemplate(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{}, nil)
	broken := b.send(mail.Ad, "broken@example.com")
	b.rdb.Set(t.Context(), "sluice:{c:"+broken.ID+"}:prog", "garbage", 0)
	good := b.send(mail.Ad, people(500)...)
	b.start()
	if s := b.settled(good); s.Count(mail.Accepted) != 500 {
		t.Errorf("%v", s.Outcomes)
	}
	b.eventually("it is left alone", func() bool { return b.rdb.ZCard(t.Context(), "sluice:{s:ad}:ready").Val() == 1 })
	due := b.rdb.ZRangeWithScores(t.Context(), "sluice:{s:ad}:ready", 0, 0).Val()
	if len(due) != 1 || due[0].Score < float64(time.Now().Add(-time.Minute).UnixMilli()) || !strings.Contains(b.log.String(), "cannot be rendered") {
		t.Errorf("due %v", due)
	}
	if err := b.q.Cancel(t.Context(), broken, "test"); err != nil {
		t.Fatal(err)
	}
	if s := b.settled(broken); s.Count(mail.Cancelled) != 1 {
		t.Errorf("%v", s.Outcomes)
	}
}

// A cancelled campaign that is meant for another relay is marked as well.
func TestCancelledForAnotherRelay(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{}, nil)
	b.relayID, b.conf.Relay = "real/1", "rehearsal/2"
	c := b.send(mail.Ad, people(3)...)
	if err := b.q.Cancel(t.Context(), c, "test"); err != nil {
		t.Fatal(err)
	}
	b.start()
	if s := b.settled(c); s.Count(mail.Cancelled) != 3 {
		t.Errorf("%v", s.Outcomes)
	}
}

// refusing is a ledger that confirms nothing.
type refusing struct {
	ledger
	declared *queue.Intent
}

func (r *refusing) Turn(*queue.Claim, bool) {}

func (r *refusing) Declare(*queue.Claim, int) *queue.Intent { return r.declared }

func (r *refusing) Confirm(_ context.Context, in *queue.Intent) error {
	if in != r.declared {
		return fmt.Errorf("asked for another intent: %v", in)
	}
	return queue.ErrFenced
}

// The content waits for the ledger's word on what was declared, and takes its no.
func TestConfirmIsTheLedgers(t *testing.T) {
	t.Parallel()
	t1 := &sending{feed: &feed{ledger: &refusing{declared: &queue.Intent{}}}, work: &work{}}
	t1.Begin()
	if err := t1.Confirm(t.Context()); !errors.Is(err, queue.ErrFenced) {
		t.Errorf("%v, want %v", err, queue.ErrFenced)
	}
}

// What another connection of the pool before had heard does not end the new pool.
func TestStaleRefusal(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{}, func(_ mail.Stream, s *Stream) { s.Warm = 1 })
	m, err := b.q.Join(t.Context(), queue.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	in := &logins{of: map[string]string{}}
	budget, err := b.conf.Budget(m.Nonce(), in.get)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var keep sync.WaitGroup
	keep.Go(func() { _ = budget.Run(ctx) })
	l := newLane(b.conf, mail.Ad, m, budget, shared{in, newFleet(m.Nonce(), budget.Usage)})
	l.halts <- &halted{why: "530"}
	ended := make(chan error, 1)
	go func() { ended <- l.pool(ctx, t.Context()) }()
	b.eventually("it connects, or has ended", func() bool { return b.relay.Stats().Connections > 0 || len(ended) > 0 })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the pool ended: %v", err)
	}
	keep.Wait()
	if err := m.Leave(context.Background()); err != nil {
		t.Error(err)
	}
}
