package smtp

import (
	"math/rand/v2"
	"time"
)

// pacer spaces dials that come to nothing: one at a time, with growing pauses, so that
// a relay that refuses connections is not asked once for each message.
type pacer struct {
	failures  int
	idle      bool      // the last one was that of a connection kept open for nothing
	notBefore time.Time // no dial before
	last      time.Time // of the last failure
}

// The pauses after failed dials: full jitter below a bound that doubles. The tenth at
// the bottom keeps luck from making it a loop.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = time.Minute
)

// failed notes a failure. Of an idle one, no message has seen anything: the pause is for
// dials that would only keep a connection open.
func (p *pacer) failed(now time.Time, idle bool) time.Duration {
	bound := maxPause
	if p.failures < 8 {
		bound = min(maxPause, firstPause<<p.failures)
	}
	p.failures++
	pause := bound/10 + rand.N(bound*9/10)
	p.last, p.notBefore, p.idle = now, now.Add(pause), idle
	return pause
}

func (p *pacer) worked() { p.failures, p.notBefore = 0, time.Time{} }

// provenAfter is how many messages a connection must have settled before its end says
// nothing against opening the next one at once.
const provenAfter = 10

// shortLife is how long a connection must have lived for the same, without a message.
const shortLife = time.Second

// pointless reports whether a connection that ended with err did too little for it.
func pointless(err *Error, settled int64, lived time.Duration) bool {
	if err == nil || settled >= provenAfter {
		return false
	}
	return err.Stage != StageIdle || settled == 0 && lived < shortLife
}

// learner finds the relay's own limits from how it ends connections: the same number
// of messages twice running (four times where it is so small that it may be chance, as
// when a relay that wants us slower hangs up), or about the same idle time twice running. After a while it
// forgets, in case they have changed, and two connections find them again.
type learner struct {
	count, lastCount int64
	agree            int // connections that ended at lastCount, running
	idle, lastIdle   time.Duration
	lastIdleAt       time.Time // when the connection of lastIdle ended
	countAt, idleAt  time.Time // when they were found
}

// forgetAfter is how long a limit that was found is kept to.
const forgetAfter = 15 * time.Minute

// soon is how quickly a relay says 421 that says it because of the message before.
const soon = time.Second

// see takes one connection that the relay has ended.
func (l *learner) see(err *Error, carried int64, rested time.Duration, now time.Time) {
	if err == nil {
		return
	}
	atIdle := err.Stage == StageIdle
	switch {
	case err.Reply.Code == 421 && err.Stage != StageEOD && carried > 0 && (!atIdle || rested < soon):
		if l.lastCount != carried {
			l.lastCount, l.agree = carried, 0
		}
		l.agree++
		if l.agree >= 2 && carried >= provenAfter || l.agree >= 4 {
			l.count, l.countAt = carried, now
		}
	case atIdle && rested >= soon:
		shorter, longer := min(rested, l.lastIdle), max(rested, l.lastIdle)
		// Two that rested at the same time may have ended by one event, such as a restart.
		alone := now.Add(-rested).After(l.lastIdleAt)
		if shorter >= longer*3/4 && alone {
			l.idle, l.idleAt = shorter*9/10, now
		}
		l.lastIdle, l.lastIdleAt = rested, now
	}
}

// limits returns the stricter of what is configured and what was learned. Ages are
// spread, so that connections opened together do not end together.
func (l *learner) limits(cfg Limits, now time.Time) Limits {
	if now.Sub(l.countAt) > forgetAfter {
		l.count = 0
	}
	if now.Sub(l.idleAt) > forgetAfter {
		l.idle = 0
	}
	if l.count > 0 && (cfg.Messages <= 0 || l.count < int64(cfg.Messages)) {
		cfg.Messages = int(l.count)
	}
	if l.idle > 0 && (cfg.Idle <= 0 || l.idle < cfg.Idle) {
		cfg.Idle = l.idle
	}
	if cfg.Age > 0 {
		cfg.Age -= rand.N(cfg.Age/10 + 1)
	}
	return cfg
}
