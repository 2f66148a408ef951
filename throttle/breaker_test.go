package throttle

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// logins is a Params.Login whose answer the test changes.
type logins struct {
	mu    sync.Mutex
	print string
}

func (l *logins) of(string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.print
}

func (l *logins) change(print string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.print = print
}

// guarded is a fleet with breakers.
func guarded(t *testing.T, b backend, l Limits) (*fleet, *logins) {
	f := newFleet(t, b, l)
	who := &logins{print: "old"}
	open := f.open
	f.open = func(p Params) (*Budget, error) {
		p.Login = who.of
		return open(p)
	}
	return f, who
}

// state returns the breaker of stream ad; without one, a closed one.
func state(t *testing.T, b *Budget) Breaker {
	t.Helper()
	u, err := b.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range u.Breakers {
		if s.Stream == "ad" {
			return s
		}
	}
	return Breaker{State: Closed}
}

// denied sees that Connect says what the relay said of the credentials.
func denied(t *testing.T, b *Budget, stream, why string) {
	t.Helper()
	var refused *LoginRefusedError
	if _, err := b.Connect(within(t), stream); !errors.As(err, &refused) || *refused != (LoginRefusedError{"old", why}) {
		t.Errorf("%s got %v, want that the relay refused the credentials: %s", stream, err, why)
	}
}

func is(t *testing.T, b *Budget, want BreakerState) {
	t.Helper()
	eventually(t, "the breaker is "+string(want), func() bool { return state(t, b).State == want })
}

func testUngreeted(t *testing.T, b backend) {
	f, _ := guarded(t, b, Limits{Open: 9})
	f.timing.renew = hour // or who lives would take again what is released below
	b1, _ := f.budget()
	b2, _ := f.budget()
	l1, l2 := connect(t, b1, "ad"), connect(t, b2, "ad")
	refused(t, b1, "ad")
	connect(t, b1, "auth") // another login
	if got := state(t, b1); got.State != Closed || got.Ungreeted != 2 {
		t.Errorf("breaker %+v, want closed with two dials", got)
	}
	l1.Greeted()
	l3 := connect(t, b2, "ad")
	refused(t, b1, "ad")
	l2.Release() // whatever became of it
	l3.Greeted()
	connect(t, b1, "ad")
	connect(t, b1, "ad")
	refused(t, b1, "ad")
	if n, err := b2.ReleaseOwner(t.Context(), "owner1"); err != nil || n != 4 {
		t.Errorf("released %d (%v), want 4", n, err)
	}
	connect(t, b2, "ad")
	connect(t, b2, "ad")
	refused(t, b2, "ad")
}

func testDeadDialler(t *testing.T, b backend) {
	f, _ := guarded(t, b, Limits{Open: 9})
	f.timing.dial = 300 * time.Millisecond
	dead := f.idle()
	start := time.Now()
	for range 2 {
		if l, _, err := dead.take(t.Context(), dead.line("ad").plan); err != nil || l == nil {
			t.Fatal(l, err)
		}
	}
	b1, _ := f.budget()
	l := connect(t, b1, "ad")
	if after := time.Since(start); after < f.timing.dial {
		t.Errorf("a third dial after %v", after)
	}
	connect(t, b1, "ad")
	ends := start.Add(2 * f.timing.dial)
	eventually(t, "it takes longer than a dial's lapse", func() bool { return time.Now().After(ends) })
	refused(t, b1, "ad") // those who live keep theirs
	l.Greeted()
	connect(t, b1, "ad")
}

func testRelayDown(t *testing.T, b backend) {
	f, _ := guarded(t, b, Limits{Open: 9, New: []Window{{50, time.Minute}}})
	f.timing.first, f.timing.most = 600*time.Millisecond, 600*time.Millisecond
	b1, _ := f.budget()
	b2, _ := f.budget()
	l := connect(t, b1, "ad")
	before := time.Now()
	l.Refused(Refusal{Why: "421 4.3.2 not\r\nnow"})
	l.Greeted() // too late
	l.Release()
	is(t, b1, Open)
	got := state(t, b2)
	if got.Refusals != 1 || got.Why != "421 4.3.2 not  now" || got.Next.Before(before.Add(250*time.Millisecond)) || got.Since.Before(before.Add(-sec)) {
		t.Errorf("breaker %+v", got)
	}
	refused(t, b2, "ad")
	if u, err := b2.Usage(t.Context()); err != nil || u.Connections[0].Used != 1 {
		t.Errorf("%+v (%v): being held has cost an opening", u.Connections, err)
	}
	connect(t, b2, "auth")
	probe := connect(t, b2, "ad")
	if after := time.Since(before); after < 300*time.Millisecond {
		t.Errorf("a probe after %v", after)
	}
	is(t, b1, HalfOpen)
	refused(t, b1, "ad") // one probe for all
	probe.Greeted()
	is(t, b1, Closed)
	connect(t, b1, "ad").Greeted()
	connect(t, b1, "ad")
}

func testLoginRefused(t *testing.T, b backend) {
	f, who := guarded(t, b, Limits{Open: 9})
	b1, _ := f.budget()
	b2, _ := f.budget()
	connect(t, b1, "ad").Refused(Refusal{Login: true, Why: "535 5.7.8"})
	is(t, b2, LoginRefused)
	if got := state(t, b2); got.Login != "old" || got.Why != "535 5.7.8" {
		t.Errorf("breaker %+v", got)
	}
	denied(t, b1, "ad", "535 5.7.8")
	denied(t, b2, "ad", "535 5.7.8")
	connect(t, b2, "auth")
	who.change("new")
	connect(t, b2, "ad").Greeted()
	who.change("old") // a worker that has not been told yet
	denied(t, b1, "ad", "535 5.7.8")
	is(t, b1, LoginRefused)
	if err := b2.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(t, b1, Closed)
	connect(t, b1, "ad")
}

func testNoBreaker(t *testing.T, b backend) {
	b1, _ := newFleet(t, b, Limits{Open: 4}).budget()
	connect(t, b1, "ad").Refused(Refusal{Login: true, Why: "535"})
	connect(t, b1, "ad").Refused(Refusal{Why: "421"})
	connect(t, b1, "ad")
	connect(t, b1, "ad").Release()
	eventually(t, "what there was to tell is told", func() bool {
		u, err := b1.Usage(t.Context())
		return err == nil && u.Open == 3 && len(u.Breakers) == 0
	})
	connect(t, b1, "ad")
}

// asked is one step of a breaker's life on a clock that the test moves.
type asked struct {
	*testing.T
	c    *clocked
	l    Limits
	made int

	shared bool // all streams use one login

	jitter float64
}

func (a *asked) dial(want bool) string {
	a.Helper()
	return a.dialFor("ad", want)
}

func (a *asked) dialFor(stream string, want bool) string {
	a.Helper()
	a.made++
	d := dial{lease: fmt.Sprintf("%s:o:%d", stream, a.made), lapse: hour, dialing: hour, most: mostUngreeted, login: stream, creds: "f"}
	p := a.l.connectPlan(stream)
	if a.shared {
		d.login, d.kept = "auth", p.shares
	}
	g, err := a.c.connect(a.Context(), p, d)
	if err != nil || (g.n == 1) != want {
		a.Fatalf("dial %d: granted %d (%v), want %v", a.made, g.n, err, want)
	}
	return d.lease
}

func (a *asked) tell(lease string, n news, after time.Duration) {
	a.Helper()
	stream, _ := splitLease(lease)
	err := a.c.settle(a.Context(), report{lease: lease, stream: stream, creds: "f", news: n, after: after, first: sec, most: time.Minute, jitter: a.jitter})
	if err != nil {
		a.Fatal(err)
	}
	if n != newsGreeted {
		if err := a.c.release(a.Context(), []string{lease}); err != nil {
			a.Fatal(err)
		}
	}
}

func eachAsked(t *testing.T, f func(a *asked)) {
	eachClocked(t, func(t *testing.T, c *clocked) {
		f(&asked{T: t, c: c, l: Limits{Open: 9}, jitter: 0.5})
	})
}

// Pauses grow by half up to the longest, and a greeting starts them anew.
func TestProbesGrowRarer(t *testing.T) {
	t.Parallel()
	eachAsked(t, func(a *asked) {
		for range 2 {
			lease := a.dial(true)
			for n, s := range []float64{1, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625, 17.0859375, 25.62890625, 38.443359, 57.665039, 60, 60} {
				a.jitter = []float64{0, 0.5, 1}[n%3] // of a fifth
				pause := min(time.Duration(s*[]float64{0.8, 1, 1.2}[n%3]*float64(sec)), time.Minute)
				a.tell(lease, newsRefused, 0)
				a.c.advance(pause - time.Millisecond)
				a.dial(false)
				a.c.advance(2 * time.Millisecond)
				lease = a.dial(true)
				a.dial(false)
			}
			a.tell(lease, newsGreeted, 0)
		}
		lease := a.dial(true)
		a.tell(lease, newsRefused, 5*time.Minute) // the relay has said so
		a.c.advance(5*time.Minute - time.Millisecond)
		a.dial(false)
		a.c.advance(time.Millisecond)
		a.dial(true)
	})
}

// Two dials that fail for the same reason are one refusal, and one that began
// before the relay went away does not bring it back.
func TestOldNews(t *testing.T) {
	t.Parallel()
	eachAsked(t, func(a *asked) {
		l1, l2 := a.dial(true), a.dial(true)
		a.c.advance(time.Millisecond)
		a.tell(l1, newsRefused, 0)
		a.c.advance(100 * time.Millisecond)
		a.tell(l2, newsRefused, 0)
		a.c.advance(901 * time.Millisecond)
		l1 = a.dial(true)
		a.tell(l1, newsGreeted, 0)

		l1, l2 = a.dial(true), a.dial(true)
		a.c.advance(time.Millisecond)
		a.tell(l1, newsRefused, 0)
		a.tell(l2, newsGreeted, 0)
		a.dial(false)
		a.c.advance(sec)
		a.dial(true)
	})
}

// A relay that takes no more connections is not down: what is open stays, and
// as soon as one of them has ended its place is tried, but not more than once in
// the first pause.
func TestRelayFull(t *testing.T) {
	t.Parallel()
	eachAsked(t, func(a *asked) {
		var open []string
		for range 3 {
			lease := a.dial(true)
			a.tell(lease, newsGreeted, 0)
			open = append(open, lease)
		}
		a.jitter = 1
		for range 5 { // the pause grows to 9 s
			a.tell(a.dial(true), newsRefused, 0)
			a.c.advance(31 * sec)
		}
		a.tell(a.dial(true), newsRefused, 0)
		a.c.advance(2 * sec)
		a.dial(false)
		if err := a.c.release(a.Context(), open[:1]); err != nil {
			a.Fatal(err)
		}
		lease := a.dial(true)
		a.tell(lease, newsRefused, 0)
		if err := a.c.release(a.Context(), open[1:2]); err != nil {
			a.Fatal(err)
		}
		a.c.advance(999 * time.Millisecond)
		a.dial(false)
		a.c.advance(time.Millisecond)
		a.tell(a.dial(true), newsGreeted, 0)
		a.dial(true)
	})
}

// A dial that hangs is no connection that is open and well.
func TestHangingDial(t *testing.T) {
	t.Parallel()
	eachAsked(t, func(a *asked) {
		hangs := a.dial(true)
		a.c.advance(time.Millisecond)
		for _, pause := range []time.Duration{sec, 1500 * time.Millisecond} {
			a.tell(a.dial(true), newsRefused, 0)
			a.c.advance(pause)
		}
		a.tell(a.dial(true), newsRefused, 0)
		if err := a.c.release(a.Context(), []string{hangs}); err != nil {
			a.Fatal(err)
		}
		a.c.advance(2250*time.Millisecond - time.Millisecond)
		a.dial(false)
		a.c.advance(time.Millisecond)
		a.dial(true)
	})
}

func TestPlain(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                              "",
		"421 busy":                      "421 busy",
		"a\r\nb\x00c\td\x1b[1m":         "a  b c d [1m",
		"점검 중":                          "점검 중",
		"\xff\xfe":                      "?",
		strings.Repeat("점", 67):         strings.Repeat("점", 66),
		strings.Repeat("x", whyBytes+1): strings.Repeat("x", whyBytes),
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
