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
	"github.com/sluicemail/sluice/templates"
	"github.com/sluicemail/sluice/throttle"
)

// lane is everything one stream has of its own: jobs, feed, connections.
type lane struct {
	conf   Config
	stream mail.Stream
	sc     Stream
	member *queue.Member
	budget *throttle.Budget
	feed   *feed
	log    *slog.Logger

	size    int64           // SIZE that was noted last; used by the pool's one dialling goroutine
	refused chan smtp.Reply // capacity 1: a connection was told to log in in mid-session

	mu        sync.Mutex
	programs  map[string]*templates.Program // of the campaigns being sent, by id
	strangers map[string]bool               // campaigns for another relay that were told of
	opened    map[string]int                // connections opened and not yet counted, by campaign
	handlers  sync.WaitGroup
	draining  bool // no handler may begin any more
}

func newLane(c Config, s mail.Stream, sc Stream, m *queue.Member, b *throttle.Budget) *lane {
	l := &lane{
		conf: c, stream: s, sc: sc, member: m, budget: b, log: c.Log.With("stream", string(s)),
		refused: make(chan smtp.Reply, 1), programs: map[string]*templates.Program{},
		opened: map[string]int{}, strangers: map[string]bool{},
	}
	l.feed = newFeed(s, sc, m, b, func(r smtp.Reply) {
		select {
		case l.refused <- r:
		default:
		}
	})
	return l
}

// pumpEvery is how often a lane looks for work that came due by itself.
const pumpEvery = 200 * time.Millisecond

// blocks is how many blocks are worked on at once. Blocks are sent one after the
// other, so a few are enough that no connection waits for the next claim; a login
// code is a block of its own.
func (l *lane) blocks() int {
	switch {
	case l.conf.Blocks > 0:
		return l.conf.Blocks
	case l.stream == mail.Auth:
		return 64
	}
	return 6
}

// run works until ctx ends, then drains; when stop ends it leaves at once.
func (l *lane) run(ctx, stop context.Context) {
	if err := l.conf.Queue.LiftStream(ctx, l.stream); err != nil && ctx.Err() == nil {
		l.log.Warn("a hold on the stream was not lifted", "err", err)
	}
	jobs, err := l.conf.Queue.Listen(l.stream, l.blocks(), func(campaign string, block int) { l.handle(stop, campaign, block) })
	if err != nil {
		l.log.Error("no jobs can be taken", "err", err)
		return
	}
	drain := func() {
		l.mu.Lock()
		l.draining = true
		l.mu.Unlock()
		l.feed.stop()
		jobs.StopTaking()
	}
	defer context.AfterFunc(ctx, drain)()
	var pumping sync.WaitGroup
	pumping.Go(func() { l.pumpLoop(ctx) })
	l.connect(ctx, stop)
	drain()
	l.handlers.Wait()
	pumping.Wait()
	l.countConnections(stop)
	if err := jobs.Close(); err != nil {
		l.log.Debug("closing the job server", "err", err)
	}
}

// connect runs the stream's connections. A refused login holds the stream for the
// whole fleet until it is lifted.
func (l *lane) connect(ctx, stop context.Context) {
	for ctx.Err() == nil {
		err := l.pool(ctx, stop)
		if err == nil || ctx.Err() != nil {
			return
		}
		l.hold(ctx, err)
		l.waitLifted(ctx)
	}
}

// budgetPatience is how long a connection waits for the budget before that is told.
const budgetPatience = 5 * time.Second

// pool runs one pool until ctx ends or the login is refused.
func (l *lane) pool(ctx, stop context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	select {
	case <-l.refused: // said to a connection of the pool before
	default:
	}
	go func() {
		select {
		case r := <-l.refused:
			cancel(fmt.Errorf("%w: %d %s", smtp.ErrLogin, r.Code, r.Text))
		case <-ctx.Done():
		}
	}()
	told := ""
	p, err := smtp.NewPool(smtp.PoolConfig{
		Dial: l.dial,
		Admit: func(ctx context.Context) (smtp.Lease, error) {
			told := time.AfterFunc(budgetPatience, func() {
				l.log.Info("waiting until limits.connections allows one more connection; mail goes on over those that are open")
			})
			defer told.Stop()
			lease, err := l.budget.Connect(ctx, string(l.stream))
			if err != nil {
				return nil, err
			}
			return lease, nil
		},
		Source: l.feed, Max: l.sc.Max, Warm: l.sc.Warm, PerConnection: l.conf.PerConnection,
		OnDial: func(err error) {
			switch {
			case err == nil:
				l.connected()
				if told != "" {
					l.log.Info("the relay takes connections again")
					told = ""
				}
			case err.Error() != told:
				told = err.Error()
				l.log.Error("no connection to the relay; mail waits", "err", err)
			}
		},
		Log: l.log,
	})
	if err != nil {
		return err
	}
	err = p.Run(ctx, stop)
	if cause := context.Cause(ctx); err == nil && errors.Is(cause, smtp.ErrLogin) {
		return cause
	}
	return err
}

// dial opens a connection and keeps what producers want to know of the relay.
func (l *lane) dial(ctx context.Context) (*smtp.Conn, error) {
	c, err := smtp.Dial(ctx, l.sc.Dial)
	if err != nil {
		return nil, err
	}
	if size := c.Extensions().Size; size > 0 && size != l.size {
		if err := l.conf.Queue.NoteRelaySize(ctx, l.conf.Relay, size); err == nil {
			l.size = size
		}
	}
	return c, nil
}

// connected notes a connection for the campaign whose mail is next.
func (l *lane) connected() {
	if campaign := l.feed.next(); campaign != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.opened[campaign]++
	}
}

// countConnections writes what connected noted. What cannot be written now is
// written at the next turn.
func (l *lane) countConnections(ctx context.Context) {
	l.mu.Lock()
	opened := l.opened
	l.opened = map[string]int{}
	l.mu.Unlock()
	for campaign, n := range opened {
		if err := l.conf.Queue.CountConnections(ctx, campaign, n); err != nil {
			l.mu.Lock()
			l.opened[campaign] += n
			l.mu.Unlock()
		}
	}
}

// hold stops the stream for everyone: the relay does not take the login.
func (l *lane) hold(ctx context.Context, err error) {
	why := fmt.Sprintf("the relay refused the login of stream %s: %v", l.stream, err)
	l.log.Error("stream held; nobody's mail was used up", "why", why, "fix", "correct relay.user and relay.password (NHN Cloud: AppKey and SecretKey of the Email product), then start a worker again")
	for d := 100 * time.Millisecond; ; d = min(2*d, 5*time.Second) {
		err := l.conf.Queue.HoldStream(ctx, l.stream, why, l.sc.Login)
		if err == nil || wait(ctx, d) != nil {
			return
		}
	}
}

// waitLifted returns once no hold is on the stream, or ctx ends.
func (l *lane) waitLifted(ctx context.Context) {
	for wait(ctx, time.Second) == nil {
		if h, held := l.member.Held(l.stream, ""); !held || h.State != queue.HoldHeld {
			l.log.Info("hold lifted, trying the login again")
			return
		}
	}
}

// pumpLoop keeps the short queue of jobs filled.
func (l *lane) pumpLoop(ctx context.Context) {
	tick := time.NewTicker(pumpEvery)
	defer tick.Stop()
	for {
		l.countConnections(ctx)
		l.pump(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *lane) pump(ctx context.Context) {
	if err := l.conf.Queue.Pump(ctx, l.stream, 2*l.blocks()); err != nil && ctx.Err() == nil {
		l.log.Debug("choosing blocks", "err", err)
	}
}

// handle works on one block: claim, feed, settle. It returns when this worker is
// done with the block, whatever became of it.
func (l *lane) handle(ctx context.Context, campaign string, block int) {
	l.mu.Lock()
	if l.draining {
		l.mu.Unlock()
		return // the reconciler finds the job gone and makes it again
	}
	l.handlers.Add(1)
	l.mu.Unlock()
	defer l.handlers.Done()

	c, err := l.member.Claim(ctx, l.stream, campaign, block)
	if err != nil {
		if !errors.Is(err, queue.ErrNotClaimed) && ctx.Err() == nil {
			l.log.Warn("block not claimed, it will be tried again", "err", err)
		}
		return
	}
	if c.Cancelled { // to be marked by whoever comes first
		l.cancel(c)
	} else if want := c.Campaign.Relay; want != "" && l.conf.Relay != "" && want != l.conf.Relay {
		l.leave(ctx, c)
		return
	} else if p, err := l.program(ctx, c.Campaign); err != nil {
		l.log.Error("campaign cannot be rendered; it is tried again", "campaign", c.Campaign.Name, "err", err)
		l.postpone(ctx, c, brokenPause)
		return
	} else {
		select {
		case <-l.feed.add(c, p):
		case <-ctx.Done():
			return
		}
	}
	l.settle(ctx, c)
	l.pump(ctx)
}

// How long a block of a campaign for another relay, or of one whose template cannot
// be had, is left alone.
const (
	strangerPause = 2 * time.Second
	brokenPause   = 10 * time.Second
)

// leave gives up a block that is meant for another relay: a rehearsal must not take a
// real campaign for its own, nor the other way round.
func (l *lane) leave(ctx context.Context, c *queue.Claim) {
	l.mu.Lock()
	told := l.strangers[c.Campaign.ID]
	l.strangers[c.Campaign.ID] = true
	l.mu.Unlock()
	if !told {
		l.log.Error("campaign left alone: it was enqueued for another relay account; start a worker with that configuration",
			"campaign", c.Campaign.Name, "meant_for", c.Campaign.Relay, "this_worker", l.conf.Relay)
	}
	l.postpone(ctx, c, strangerPause)
}

func (l *lane) postpone(ctx context.Context, c *queue.Claim, d time.Duration) {
	if err := l.member.Postpone(ctx, c, d); err != nil && ctx.Err() == nil {
		l.log.Debug("postponing", "err", err) // the reconciler finds the claim idle
	}
}

// cancel marks everybody of a cancelled campaign's block who is not done.
func (l *lane) cancel(c *queue.Claim) {
	for i := range c.Standings {
		if s := &c.Standings[i]; !s.Outcome.Final() || s.Outcome == mail.Unknown {
			l.member.Decide(c, i, mail.Cancelled, s.Reply)
		}
	}
}

// settle stores the block's end, as long as it takes: the evidence itself is with
// Redis already.
func (l *lane) settle(ctx context.Context, c *queue.Claim) {
	for d := 50 * time.Millisecond; ; d = min(2*d, 2*time.Second) {
		err := l.member.Settle(ctx, c, l.sc.Resend && !c.Cancelled)
		if err == nil || errors.Is(err, queue.ErrFenced) {
			return
		}
		l.log.Debug("settling", "err", err)
		if wait(ctx, d) != nil {
			return
		}
	}
}

// program returns the campaign's compiled template.
func (l *lane) program(ctx context.Context, c *queue.Campaign) (*templates.Program, error) {
	l.mu.Lock()
	p := l.programs[c.ID]
	l.mu.Unlock()
	if p != nil {
		return p, nil
	}
	data, err := l.conf.Queue.Program(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	if p, err = templates.Unpin(data); err != nil {
		return nil, fmt.Errorf("pinned template: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.programs) >= maxPrograms {
		clear(l.programs)
	}
	l.programs[c.ID] = p
	return p, nil
}

// maxPrograms bounds how many compiled templates a lane keeps.
const maxPrograms = 64

// wait pauses for d, or returns ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
