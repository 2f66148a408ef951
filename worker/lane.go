package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/suppress"
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
	shared
	feed *feed
	log  *slog.Logger

	errands *errands
	halts   chan *halted // capacity 1: the relay wants no more of this login

	asides sync.WaitGroup // works set aside; begun by handlers only
	unread string         // why credentials could not be read again, as was logged last; watchBudget's

	// Used by the pool's one dialling goroutine, or between two pools.
	used      string    // fingerprint of the credentials that were dialled with last
	lease     *held     // of the dial under way
	dialAt    time.Time // when that began
	size      int64     // SIZE that was noted last
	addresses addresses
	told      string // why no connection could be had, as was logged last

	mu         sync.Mutex
	dialConf   smtp.DialConfig
	login      string                        // fingerprint of the credentials in dialConf
	programs   map[string]*templates.Program // of the campaigns being sent, by id
	strangers  map[string]bool               // campaigns for another relay that were told of
	opened     map[string]int                // connections opened and not yet counted, by campaign
	barred     []suppress.Entry              // to be put onto the suppression list
	leases     []*held                       // of connections open or being opened
	taking     bool                          // jobs
	stopAsking func()                        // ends a wait for a connection
}

func newLane(c Config, s mail.Stream, m *queue.Member, b *throttle.Budget, sh shared) *lane {
	sc := c.Streams[s]
	if c.Group == nil {
		c.Group = func(string) string { return "" }
	}
	l := &lane{
		conf: c, stream: s, sc: sc, member: m, budget: b, shared: sh, log: c.Log.With("stream", string(s)),
		halts: make(chan *halted, 1), programs: map[string]*templates.Program{},
		opened: map[string]int{}, strangers: map[string]bool{},
		dialConf: sc.Dial, login: sc.Login, used: sc.Login,
	}
	l.logins.set(s, sc.Login)
	m.UseLogin(s, sc.Login)
	l.errands = newErrands(l.log)
	l.feed = &feed{
		stream: s, conf: sc, ledger: m, budget: b, group: c.Group, heard: l.hear, wake: make(chan struct{}),
		bufs: sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }},
	}
	return l
}

// pumpEvery is how often a lane looks for work that came due by itself, or that a
// producer has left; a login code cannot wait for that so long.
const (
	pumpEvery     = 200 * time.Millisecond
	pumpCodeEvery = 20 * time.Millisecond
)

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

// run works until ctx ends, then drains; when stop ends it leaves at once. Its error is
// smtp.ErrHung: then it waits for nothing, because what hangs may hold what the rest of
// the lane waits for.
func (l *lane) run(ctx, stop context.Context) error {
	stop, end := context.WithCancel(stop)
	defer end()
	if err := l.conf.Queue.LiftLogin(ctx, l.stream, l.sc.Login); err != nil && ctx.Err() == nil {
		l.log.Warn("a hold on the login was not lifted", "err", err)
	}
	l.forgive(ctx)
	defer context.AfterFunc(ctx, l.feed.stop)()
	var pumping, taking sync.WaitGroup
	pumping.Go(func() { l.pumpLoop(ctx) })
	pumping.Go(func() { l.watchSuppressed(ctx) })
	pumping.Go(func() { l.watchBudget(ctx) })
	pumping.Go(func() { l.trim(ctx) })
	running, done := context.WithCancel(stop)
	defer done()
	pumping.Go(func() { l.errands.run(running) })
	taking.Go(func() { l.takeJobs(ctx, stop) })
	if err := l.connect(ctx, stop); err != nil {
		return fmt.Errorf("stream %s: %w", l.stream, err)
	}
	taking.Wait()
	done()
	pumping.Wait()
	l.countConnections(stop)
	return nil
}

// pumpLoop keeps the short queue of jobs filled.
func (l *lane) pumpLoop(ctx context.Context) {
	every := pumpEvery
	if l.stream == mail.Auth {
		every = pumpCodeEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for slow := time.Now(); ; {
		due := !time.Now().Before(slow)
		if due {
			l.countConnections(ctx)
			slow = time.Now().Add(pumpEvery)
		}
		if due || l.isTaking() { // who takes no jobs need not hurry to make them
			l.pump(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *lane) pump(ctx context.Context) {
	if err := l.member.Pump(ctx, l.stream, 2*l.blocks()); err != nil && ctx.Err() == nil {
		l.log.Debug("choosing blocks", "err", err)
	}
}

// handle works on one block: claim, feed, settle. It returns when this worker is
// done with the block, whatever became of it, or may take another in its place.
func (l *lane) handle(ctx context.Context, campaign string, block int) {
	c, err := l.member.Claim(ctx, l.stream, campaign, block)
	if err != nil {
		if errors.Is(err, queue.ErrLoginHeld) {
			_ = wait(ctx, loginHeldPause) // others may send it, who are to have the job
		} else if !errors.Is(err, queue.ErrNotClaimed) && ctx.Err() == nil {
			l.log.Warn("block not claimed, it will be tried again", "err", err)
		}
		return
	}
	fault.Here("worker.claimed")
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
		l.send(ctx, c, p)
		return
	}
	l.settle(ctx, c)
	l.pump(ctx)
}

// send hands a claimed block to the connections, waits until they are done with it, and
// gives it up.
func (l *lane) send(ctx context.Context, c *queue.Claim, p *templates.Program) {
	listed, err := l.suppressed(ctx, c)
	if err != nil {
		l.log.Warn("suppression list not read; the block is tried again", "err", err)
		l.postpone(ctx, c, brokenPause)
		return
	}
	w := l.feed.add(c, p, listed)
	select {
	case <-w.done:
		l.end(ctx, c)
	case <-w.aside: // this place is for another block now
		l.asides.Go(func() {
			select {
			case <-w.done:
				l.end(ctx, c)
			case <-ctx.Done():
			}
		})
	case <-ctx.Done():
	}
}

// end gives up a block that the connections are done with.
func (l *lane) end(ctx context.Context, c *queue.Claim) {
	l.settle(ctx, c)
	fault.Here("worker.settled")
	l.pump(ctx)
}

// loginHeldPause keeps a worker whose login is held from taking the jobs of others.
const loginHeldPause = time.Second

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
