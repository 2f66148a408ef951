package smtp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// ledger is what the caller of Serve could know: who is begun and undecided.
type ledger struct {
	mu        sync.Mutex
	undecided int
	most      int
}

func (l *ledger) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undecided += n
	l.most = max(l.most, l.undecided)
}

// counted is a Transaction that keeps the ledger.
type counted struct {
	tx
	l *ledger
	q *queue // takes back what waited too long
}

func (c counted) Begin() { c.l.add(1); c.tx.Begin() }

func (c counted) Done(r Result) {
	if c.begun > 0 {
		c.l.add(-1)
	}
	if errors.Is(r.Err, errLate) {
		c.begun--
		c.q.change(func() { c.q.waiting = append([]Transaction{c}, c.q.waiting...) })
		return
	}
	c.tx.Done(r)
}

// chaos is a relay that goes wrong at random, and its record of the truth.
type chaos struct {
	rnd      *rand.Rand
	odds     int
	dots     map[string]int  // contents received to their end
	accepted map[string]bool // answered 250
}

// reply misbehaves once in a while; "" is the usual reply.
func (c *chaos) reply(p *peer, conn func() *Conn) func(Stage, string) string {
	return func(stage Stage, arg string) string {
		if stage == StageEOD && arg != "" {
			c.dots[arg]++
		}
		if c.rnd.IntN(c.odds) > 0 {
			if stage == StageEOD {
				c.accepted[arg] = true
			}
			return ""
		}
		switch c.rnd.IntN(14) {
		case 0:
			_ = p.Close()
		case 1:
			p.reset()
		case 2:
			return "xyz"
		case 3:
			return "421 4.3.2 closing"
		case 4:
			return "250"
		case 5:
			return "354 go ahead"
		case 6:
			return "250-more\r\n550 less"
		case 7:
			return "550 5.1.1 stray\r\n250 2.0.0 ok"
		case 8:
			return "250 ok\r\n250 twice"
		case 9:
			if c := conn(); c != nil {
				c.Close()
			}
		case 10:
			return "450 4.2.1 later"
		case 11:
			return "552 5.2.2 full"
		case 12:
			return "\r\n"
		case 13:
			return "354 go ahead\r\n354 go ahead"
		}
		return ""
	}
}

// Whatever goes wrong: every message taken ends exactly once, what is said of it is
// true, and at most two are ever begun and undecided.
func TestEveryOutcomeIsTrue(t *testing.T) {
	t.Parallel()
	runs := 200
	if testing.Short() {
		runs = 40
	}
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			c := &chaos{rnd: rnd, odds: 4 + rnd.IntN(40), dots: map[string]int{}, accepted: map[string]bool{}}
			all, _ := messages(40)
			l := &ledger{}
			q := newQueue()
			for _, m := range all {
				if rnd.IntN(60) == 0 {
					m.confirm = func(context.Context) error { return errors.New("not now") }
				}
				if rnd.IntN(30) == 0 {
					m.Content = []byte("Subject: x\r\n\r\n" + string(largeContent(100<<10)))
				}
				q.waiting = append(q.waiting, counted{tx{m}, l, q})
			}
			q.finished = true
			var mu sync.Mutex
			var current *Conn
			conn := func() *Conn { mu.Lock(); defer mu.Unlock(); return current }
			ended := make(chan struct{}, 1)
			host, port := listen(t, func(p *peer) {
				s := &sink{ehlo: nhnEHLO}
				s.reply = c.reply(p, conn)
				s.serve(p)
				ended <- struct{}{}
			})
			cfg := plainConfig(host, port)
			cfg.Mode = []Mode{ModeAuto, ModePipelined, ModeGroup, ModeLockStep}[rnd.IntN(4)]
			cfg.Timeouts = Timeouts{Quit: 20 * time.Millisecond, Command: time.Second, Data: time.Second, Dot: time.Second,
				Prompt: []time.Duration{time.Nanosecond, 50 * time.Microsecond, time.Hour}[rnd.IntN(3)]}
			for len(q.waiting) > 0 {
				nc := dial(t, cfg)
				mu.Lock()
				current = nc
				mu.Unlock()
				err := nc.Serve(t.Context(), q, Limits{})
				<-ended // the relay's record is complete
				if l.undecided != 0 {
					t.Fatalf("%d undecided after Serve returned %v", l.undecided, err)
				}
			}
			c.check(t, all, l)
		})
	}
}

func (c *chaos) check(t *testing.T, all []*message, l *ledger) {
	t.Helper()
	if l.most > 2 {
		t.Errorf("%d messages begun and undecided at a time", l.most)
	}
	for _, m := range all {
		if len(m.result) != 1 || m.begun > 1 {
			t.Fatalf("message %s: begun %d times, %d results", m.name, m.begun, len(m.result))
		}
		r := m.result[0]
		switch {
		case r.Kind == Unsent && c.dots[m.To] > 0:
			t.Errorf("message %s is called unsent, and the relay has its dot (%v)", m.name, r.Err)
		case r.Kind == Accepted && (c.dots[m.To] != 1 || r.Reply.Code != 250):
			t.Errorf("message %s is called accepted; %d dots, %v", m.name, c.dots[m.To], r.Reply)
		case r.Kind == Refused && (c.accepted[m.To] || !r.Reply.refusal()):
			t.Errorf("message %s is called refused at %s with %v; accepted %v", m.name, r.Stage, r.Reply, c.accepted[m.To])
		case r.Kind == Unknown && c.dots[m.To] == 0 && r.Err == nil, r.Kind == Invalid, r.Kind == 0:
			t.Errorf("message %s: %+v", m.name, r)
		case (r.Kind == Unsent || r.Kind == Unknown) && r.Err == nil:
			t.Errorf("message %s: %v without a reason", m.name, r.Kind)
		}
	}
}
