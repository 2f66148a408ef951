package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/throttle"
)

// Config is what a worker needs to know.
type Config struct {
	Queue *queue.Queue
	// Relay names the account at the relay that this worker sends through. Campaigns
	// meant for another are left alone; "" sends them all.
	Relay   string
	Streams map[mail.Stream]Stream
	// Budget makes this incarnation's share of the fleet's budget; owner is its nonce,
	// login tells the fingerprint of the credentials a stream uses at this moment.
	Budget func(owner string, login func(stream string) string) (*throttle.Budget, error)
	// PerConnection bounds a connection's use.
	PerConnection smtp.Limits
	// Group names the destination group of a mail domain, "" = none.
	Group func(domain string) string
	// Suppress is the list of those nobody writes to.
	Suppress *suppress.List
	// Credentials reads a stream's login again, with its fingerprint: asked while a login
	// is held, so that a corrected secret is taken up without a restart. nil: never.
	Credentials func(context.Context, mail.Stream) (smtp.DialConfig, string, error)
	// Blocks is how many blocks of a stream are worked on at once; 0 = default.
	Blocks int
	Log    *slog.Logger
}

// Stream is how one stream is sent.
type Stream struct {
	Dial  smtp.DialConfig // with the stream's own login
	Max   int             // most connections
	Warm  int             // connections kept open when idle
	TTL   time.Duration   // age at which an unsent mail expires; 0 = never
	Retry Retry
	// Resend says that a recipient whose outcome is unknown is sent to again.
	Resend bool
	// Login is the fingerprint of the credentials.
	Login string
	// Verdicts say what the relay's replies mean; Preset names the relay for them.
	Verdicts *verdict.Rules
	Preset   string
}

// Run works until ctx ends, then drains: no new MAIL, open dots awaited, outcomes
// stored, claims given back, QUIT. When force ends as well it leaves at once. A worker
// that was declared dead, or of which a goroutine hangs (smtp.ErrHung), begins anew.
func Run(ctx, force context.Context, c Config) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for {
		err := c.incarnation(ctx, force)
		switch {
		case errors.Is(err, smtp.ErrHung) && ctx.Err() == nil:
			// Its messages are in the record that it leaves behind, as a dead worker's are.
			c.Log.Error("a fault of this program; leaving everything to others and joining again under a new name", "err", err)
			continue
		case !errors.Is(err, queue.ErrFenced):
			return err
		case ctx.Err() != nil:
			return nil // told to stop, and others have its work already
		}
		c.Log.Warn("joining again under a new name", "err", err)
	}
}

// incarnation works as one member of the ledger, until ctx ends or it is fenced.
func (c Config) incarnation(ctx, force context.Context) (err error) {
	var budget *throttle.Budget
	m, err := c.join(ctx, func() *throttle.Budget { return budget })
	if err != nil || m == nil {
		return err
	}
	in := &logins{of: map[string]string{}}
	if budget, err = c.Budget(m.Nonce(), in.get); err != nil {
		return errors.Join(fmt.Errorf("budget: %w", err), m.Leave(context.WithoutCancel(ctx)))
	}
	c.Log.Info("worker joined", "worker", m.Nonce())

	ctx, leave := context.WithCancel(ctx)
	defer leave()
	stop, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(force, end)()
	var keep sync.WaitGroup
	keep.Go(func() {
		if m.Run(ctx, stop) != nil {
			leave()
		}
	})
	keep.Go(func() { _ = budget.Run(stop) }) // ends with stop, by its contract without error
	go leaveWhenFenced(ctx, m, leave)
	sh := shared{in, newFleet(m.Nonce(), budget.Usage)}
	keep.Go(func() { sh.fleet.run(ctx) })

	var lanes sync.WaitGroup
	hung := make(chan error, len(c.Streams))
	for s := range c.Streams {
		l := newLane(c, s, m, budget, sh)
		lanes.Go(func() {
			if err := l.run(ctx, stop); err != nil {
				hung <- err
				leave()
			}
		})
	}
	lanes.Wait()
	end()
	keep.Wait()
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := m.Leave(bye); err != nil {
		c.Log.Warn("could not sign off; others will find out", "err", err)
	}
	select {
	case err := <-hung:
		return err
	default:
		return m.Err()
	}
}

// join becomes a member, however long Redis takes for it; nil without an error means that
// ctx ended first. budget is asked for when something has happened to the fleet.
func (c Config) join(ctx context.Context, budget func() *throttle.Budget) (*queue.Member, error) {
	hooks := queue.Hooks{
		TakenOver: func(ctx context.Context, nonce string, gone bool) {
			if !gone {
				c.Log.Warn("a worker that does not answer may still have its connections open; they stay counted until it is back, or for a minute", "worker", nonce)
				return
			}
			if _, err := budget().ReleaseOwner(ctx, nonce); err != nil {
				c.Log.Warn("connection leases of a dead worker not given back, they lapse by themselves", "err", err)
			}
		},
		Restarted: func(ctx context.Context) {
			if err := budget().AssumeFull(ctx); err != nil {
				c.Log.Warn("budget after redis restarted", "err", err)
			}
		},
	}
	for {
		m, err := c.Queue.Join(ctx, hooks)
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, nil //nolint:nilnil // told to stop before there was anything to stop
		case !errors.Is(err, queue.ErrUnreachable): // no repeat mends that
			return nil, fmt.Errorf("join: %w", err)
		}
		c.Log.Warn("could not join, trying again", "err", err)
		if wait(ctx, time.Second) != nil {
			return nil, nil //nolint:nilnil // as above
		}
	}
}

// leaveWhenFenced ends the incarnation once the member is declared dead.
func leaveWhenFenced(ctx context.Context, m *queue.Member, leave func()) {
	for ctx.Err() == nil {
		changed := m.Failed()
		if m.Err() != nil {
			leave()
			return
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// shared is what the lanes of an incarnation have in common beside the budget.
type shared struct {
	logins *logins
	fleet  *fleet
}

// logins are the fingerprints of the credentials in use, by stream.
type logins struct {
	mu sync.Mutex
	of map[string]string
}

func (l *logins) get(stream string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[stream]
}

func (l *logins) set(s mail.Stream, fingerprint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[string(s)] = fingerprint
}
