package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// check makes one line.
type check struct {
	id    string
	needs []string // run only where none of these failed or was skipped
	after []string // wait for these, whatever came of them
	run   func(context.Context) Line
}

// exam is one run. Each field below cfg is written by one check and read by checks
// that name it in needs or after, so that it needs no lock.
type exam struct {
	cfg   Config
	facts facts
	slots map[string]*slot

	info   map[string]string // redis.reachable
	addrs  []netip.Addr      // relay.dns
	relay  *session          // relay.tcp; then used by relay.* one after the other
	hello  extensions        // relay.ehlo
	rtt    time.Duration     // relay.roundtrip; 0: not measured
	domain string            // sender.address
	root   string            // sender.address: the domain that was registered
	spf    spfRecord         // sender.spf
	tree   spfTree           // sender.spf
	policy dmarcPolicy       // sender.dmarc
}

// slot is where the line of one check appears.
type slot struct {
	done chan struct{} // closed once line is set
	line Line
	root string // of a skipped line: the check that failed
}

func newExam(cfg Config) *exam {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.timed == nil {
		cfg.timed = func(f func() error) (time.Duration, error) {
			start := time.Now()
			err := f()
			return time.Since(start), err
		}
	}
	return &exam{cfg: cfg, facts: factsOf(cfg.Relay.Preset), slots: map[string]*slot{}}
}

// checks returns every check, in the order of the report.
func (e *exam) checks() []check {
	all := e.redisChecks()
	all = append(all, e.relayChecks()...)
	return append(all, e.senderChecks()...)
}

// run makes the checks, as many at a time as their needs allow, and returns their
// lines in the order given.
func (e *exam) run(ctx context.Context, all []check) []Line {
	for _, c := range all {
		e.slots[c.id] = &slot{done: make(chan struct{})}
	}
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			s := e.slots[c.id]
			s.line = e.one(ctx, c)
			s.line.ID = c.id
			close(s.done)
		})
	}
	wg.Wait()
	lines := make([]Line, len(all))
	for i, c := range all {
		lines[i] = e.slots[c.id].line
	}
	return lines
}

// one waits for what c depends on, and makes it unless that speaks against it.
func (e *exam) one(ctx context.Context, c check) Line {
	for _, id := range c.after {
		<-e.slots[id].done
	}
	for _, id := range c.needs {
		s := e.slots[id]
		<-s.done
		if s.line.Status != Fail && s.line.Status != Skip && !s.line.halt {
			continue
		}
		cause := id
		if s.root != "" {
			cause = s.root
		}
		e.slots[c.id].root = cause
		return Line{Status: Skip, Why: "not checked, because of " + cause}
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	return c.run(ctx)
}

// sound reports whether all of the named checks passed, perhaps with a warning, but not
// with one that says that nothing is known.
func (e *exam) sound(ids ...string) bool {
	for _, id := range ids {
		s := e.slots[id]
		if s.line.halt || s.line.Status != Pass && s.line.Status != Warn {
			return false
		}
	}
	return true
}

// failed returns those of the named checks that failed.
func (e *exam) failed(ids ...string) (list []string) {
	for _, id := range ids {
		if e.slots[id].line.Status == Fail {
			list = append(list, id)
		}
	}
	return list
}

// close ends the connection that a check has left open.
func (e *exam) close() {
	if e.relay != nil {
		e.relay.close()
	}
}

func passed(format string, args ...any) Line {
	return Line{Status: Pass, Why: fmt.Sprintf(format, args...)}
}

func warned(format string, args ...any) Line {
	return Line{Status: Warn, Why: fmt.Sprintf(format, args...)}
}

func failed(format string, args ...any) Line {
	return Line{Status: Fail, Why: fmt.Sprintf(format, args...)}
}

func noted(format string, args ...any) Line {
	return Line{Status: Info, Why: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Line {
	return Line{Status: Skip, Why: fmt.Sprintf(format, args...)}
}

// to says what to do about it.
func (l Line) to(format string, args ...any) Line {
	l.Fix = fmt.Sprintf(format, args...)
	return l
}

// publish says which DNS record mends it.
func (l Line) publish(r Record) Line {
	l.Record = &r
	return l
}

// halted makes what needs this line be skipped, although it did not fail.
func (l Line) halted() Line {
	l.halt = true
	return l
}
