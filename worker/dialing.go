package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/throttle"
)

// halted ends a pool: the relay refuses the login, or said that it wants no more of
// us. It is the pool's cause of cancellation.
type halted struct {
	why string
	v   verdict.Verdict
}

func (h *halted) Error() string { return h.why }

// connect runs the stream's connections. What the relay refuses for good holds the
// login for the whole fleet until it is lifted, or other credentials are there. Its
// error is smtp.ErrHung.
func (l *lane) connect(ctx, stop context.Context) error {
	for ctx.Err() == nil {
		err := l.pool(ctx, stop)
		switch {
		case errors.Is(err, smtp.ErrHung):
			return err
		case err == nil || ctx.Err() != nil:
			return nil
		}
		l.hold(ctx, err)
		l.waitLifted(ctx)
	}
	return nil
}

// budgetPatience is how long a connection waits for the budget before that is told.
const budgetPatience = 5 * time.Second

// pool runs one pool until ctx ends or it is halted.
func (l *lane) pool(ctx, stop context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	select {
	case <-l.halts: // said to a connection of the pool before
	default:
	}
	go func() {
		select {
		case h := <-l.halts:
			cancel(h)
		case <-ctx.Done():
		}
	}()
	p, err := smtp.NewPool(smtp.PoolConfig{
		Dial: l.dial, Admit: l.admit, OnDial: l.dialled,
		Source: l.feed, Max: l.sc.Max, Warm: l.sc.Warm, PerConnection: l.conf.PerConnection, Learned: l.budget.PerConnection,
		Paced: true, OnEnd: l.ended, Log: l.log,
	})
	if err != nil {
		return err
	}
	err = p.Run(ctx, stop)
	var h *halted
	if err == nil && errors.As(context.Cause(ctx), &h) {
		return h
	}
	return err
}

// admit waits until a connection is needed and permitted.
func (l *lane) admit(ctx context.Context) (smtp.Lease, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.stopAsking = cancel
	l.mu.Unlock()
	if err := l.awaitNeed(ctx); err != nil {
		return nil, err
	}
	// What waits for this connection must not wait beyond its time: it goes back then.
	if left, expires := l.feed.expiresIn(); expires {
		defer time.AfterFunc(max(left, time.Second), cancel).Stop()
	}
	told := time.AfterFunc(budgetPatience, func() {
		l.log.Info("waiting until limits.connections, or the pause after a refused one, allows one more connection; mail goes on over those that are open")
	})
	defer told.Stop()
	conf, _ := l.credentials()
	l.addresses.look(ctx, &conf)
	lease, err := l.budget.Connect(ctx, string(l.stream))
	var refused *throttle.LoginRefusedError
	if errors.As(err, &refused) { // to another stream or worker: this one is held as well
		l.used = refused.Login
		return nil, fmt.Errorf("%w: %w", smtp.ErrLogin, err)
	}
	if err != nil {
		return nil, err
	}
	l.lease, l.dialAt = l.keep(lease), time.Now()
	return l.lease, nil
}

// ended hears how long a connection lasted, from which the limit of messages on one
// connection is learned.
func (l *lane) ended(carried int64, byRelay bool) {
	kind := throttle.Retired
	if byRelay {
		kind = throttle.Ended
	}
	l.budget.Note(throttle.Event{Class: l.class(), Kind: kind, N: int(carried)})
}

func (l *lane) class() throttle.Class { return throttle.Class{Stream: string(l.stream)} }

// dial opens a connection and keeps what producers want to know of the relay.
func (l *lane) dial(ctx context.Context) (*smtp.Conn, error) {
	conf, login := l.credentials()
	l.used, conf.Address = login, l.addresses.next()
	c, err := smtp.Dial(ctx, conf)
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

// dialled hears how each dial went. It is called from the pool's one dialling
// goroutine, after admit and dial.
func (l *lane) dialled(err error) {
	l.addresses.told(err, time.Now())
	if err == nil {
		l.lease.greets()
		l.budget.Note(throttle.Event{Class: l.class(), Kind: throttle.Greeted, Took: time.Since(l.dialAt)})
		l.connected()
		if l.told != "" {
			l.log.Info("the relay takes connections again")
			l.told = ""
		}
		return
	}
	v := l.sc.judgeDial(err)
	l.lease.Refused(throttle.Refusal{Login: errors.Is(err, smtp.ErrLogin), Why: err.Error(), After: v.Wait})
	if v.Action == verdict.ThrottleConnection {
		l.budget.Note(throttle.Event{Class: l.class(), Kind: throttle.Crowded})
	}
	if err.Error() != l.told {
		l.told = err.Error()
		l.log.Error("no connection to the relay; mail waits", "err", err, "verdict", v.Action, "rule", v.Rule)
	}
	// What the relay says holds the login. What the network says may pass by itself: the
	// breaker keeps such dials apart.
	var e *smtp.Error
	if said := errors.As(err, &e) && e.Reply.Code >= 400; said && pauses(v) && !errors.Is(err, smtp.ErrLogin) {
		l.halt(err.Error(), v)
	}
}

// halt ends the pool that is running.
func (l *lane) halt(why string, v verdict.Verdict) {
	select {
	case l.halts <- &halted{why, v}:
	default: // it is being ended
	}
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

// hold stops the login for everyone who uses it.
func (l *lane) hold(ctx context.Context, err error) {
	why := fmt.Sprintf("the relay refused the login of stream %s: %v", l.stream, err)
	fix := "correct relay.user and relay.password (NHN Cloud: AppKey and SecretKey of the Email product)"
	var h *halted
	if errors.As(err, &h) {
		why = fmt.Sprintf("stream %s: %s (%s)", l.stream, h.why, h.v.Why)
		fix = "see what the relay says, mend it, then: sluice limits reset"
	}
	l.log.Error("stream held; nobody's mail was used up", "why", why, "fix", fix)
	for d := 100 * time.Millisecond; ; d = min(2*d, 5*time.Second) {
		err := l.conf.Queue.HoldLogin(ctx, l.stream, l.used, why)
		if err == nil || wait(ctx, d) != nil {
			return
		}
	}
}

// waitLifted returns once no hold is on the login, or other credentials are there, which
// nobody has refused, or ctx ends.
func (l *lane) waitLifted(ctx context.Context) {
	for wait(ctx, lookEvery) == nil {
		if _, login := l.credentials(); login != l.used {
			return
		}
		if _, held := l.member.Held(l.stream, ""); !held {
			l.log.Info("hold lifted, trying the login again")
			l.forgive(ctx)
			return
		}
	}
}

// credentials are what the next connection logs in with, and their fingerprint.
func (l *lane) credentials() (smtp.DialConfig, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialConf, l.login
}

// takeCredentials reads the stream's credentials again, and takes them up if the operator
// has changed them: whoever saw the old ones refused, every worker goes on with the new.
func (l *lane) takeCredentials(ctx context.Context) {
	if l.conf.Credentials == nil {
		return
	}
	conf, login, err := l.conf.Credentials(ctx, l.stream)
	if err != nil {
		if text := err.Error(); ctx.Err() == nil && text != l.unread {
			l.unread = text
			l.log.Warn("credentials not read again", "err", err)
		}
		return
	}
	l.unread = ""
	l.mu.Lock()
	changed := login != l.login
	if changed {
		l.dialConf, l.login = conf, login
	}
	l.mu.Unlock()
	if changed {
		l.logins.set(l.stream, login)
		l.member.UseLogin(l.stream, login)
		l.log.Info("other credentials, trying the login with them")
	}
}

// forgive lets the fleet try the login again.
func (l *lane) forgive(ctx context.Context) {
	for d := 100 * time.Millisecond; ; d = min(2*d, 5*time.Second) {
		err := l.budget.Forgive(ctx, string(l.stream))
		if err == nil || wait(ctx, d) != nil {
			return
		}
	}
}
