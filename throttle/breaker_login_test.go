package throttle

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// oneLogin is a Params.LoginName: all streams log in as the same user.
func oneLogin(string) string { return "auth" }

// sharing is a fleet whose streams share a login, but for stream other.
func sharing(t *testing.T, b backend) (*fleet, *logins) {
	f, who := guarded(t, b, Limits{Open: 20})
	open := f.open
	f.open = func(p Params) (*Budget, error) {
		p.LoginName = func(stream string) string {
			if stream == "other" {
				return stream
			}
			return "auth"
		}
		return open(p)
	}
	return f, who
}

// shown are the breakers, by stream, without their times.
func shown(t *testing.T, b *Budget) map[string]Breaker {
	t.Helper()
	u, err := b.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]Breaker{}
	for _, s := range u.Breakers {
		// Beside refused credentials others may be in use.
		if was, twice := of[s.Stream]; twice && s.State != LoginRefused {
			t.Errorf("%s is shown twice: %+v and %+v", s.Stream, was, s)
		}
		s.Since, s.Next = time.Time{}, time.Time{}
		of[s.Stream] = s
	}
	return of
}

func testSharedLogin(t *testing.T, b backend) {
	f, _ := sharing(t, b)
	b1, _ := f.budget()
	b2, _ := f.budget()
	l1, l2 := connect(t, b1, "auth"), connect(t, b2, "ad")
	refused(t, b1, "ad")
	refused(t, b2, "normal")
	refused(t, b2, "auth")
	other := connect(t, b2, "other")
	want := map[string]Breaker{
		"auth":  {Stream: "auth", State: Closed, Ungreeted: 1},
		"ad":    {Stream: "ad", State: Closed, Ungreeted: 1},
		"other": {Stream: "other", State: Closed, Ungreeted: 1},
	}
	// Who was refused is known to use the login, but has nothing to show.
	if diff := cmp.Diff(want, shown(t, b2)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	other.Greeted()
	l1.Greeted()
	l3 := connect(t, b1, "normal")
	refused(t, b1, "auth")
	l2.Refused(Refusal{Why: "421 4.3.2 no"})
	l2.Release()
	l3.Greeted() // it began before that: no news
	open := func(stream string) Breaker {
		return Breaker{Stream: stream, State: Open, Refusals: 1, Why: "421 4.3.2 no"}
	}
	want = map[string]Breaker{"auth": open("auth"), "normal": open("normal"), "ad": open("ad")}
	eventually(t, "every stream of the login shows its breaker", func() bool { return cmp.Equal(want, shown(t, b2)) })
	connect(t, b1, "other")
	probe := connect(t, b1, "auth") // after the pause
	refused(t, b1, "normal")
	refused(t, b2, "ad")
	for stream, s := range shown(t, b1) {
		if stream != "other" && s.State != HalfOpen {
			t.Errorf("%s shows %v while another stream probes", stream, s.State)
		}
	}
	probe.Greeted()
	connect(t, b2, "ad")
}

func testSharedLoginRefused(t *testing.T, b backend) {
	f, who := sharing(t, b)
	b1, _ := f.budget()
	b2, _ := f.budget()
	l := connect(t, b1, "ad")
	l.Refused(Refusal{Login: true, Why: "535 5.7.8"})
	l.Release()
	eventually(t, "the refusal is known", func() bool { return shown(t, b2)["ad"].State == LoginRefused })
	for _, stream := range []string{"auth", "normal", "ad"} {
		denied(t, b2, stream, "535 5.7.8")
	}
	if got := shown(t, b1)["normal"]; got.State != LoginRefused || got.Login != "old" || got.Why != "535 5.7.8" {
		t.Errorf("breaker %+v", got)
	}
	connect(t, b2, "other") // with these, as another user
	who.change("new")
	connect(t, b2, "normal").Greeted()
	who.change("old")
	denied(t, b1, "auth", "535 5.7.8")
	if err := b1.Forgive(t.Context(), "normal"); err != nil {
		t.Fatal(err)
	}
	connect(t, b1, "auth").Greeted()
	connect(t, b2, "ad").Refused(Refusal{Login: true, Why: "535 5.7.9"})
	eventually(t, "it is refused again", func() bool { return shown(t, b2)["auth"].State == LoginRefused })
	if err := b1.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	connect(t, b1, "normal")
}

// Credentials that were changed while the store was asked with others are asked with
// themselves before anybody is told.
func TestRefusalOfOthers(t *testing.T) {
	t.Parallel()
	m, who := &Memory{}, &logins{print: "old"}
	b, err := newBudget(m, Params{Owner: "o", Limits: Limits{Open: 9}, Login: who.of})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.settle(t.Context(), report{lease: "ad:o:0", stream: "ad", creds: "old", news: newsLogin, why: "535"}); err != nil {
		t.Fatal(err)
	}
	d := b.line("ad")
	w := make(chan answer, 1)
	d.waiters = append(d.waiters, w)
	who.change("new")
	b.refuse(t.Context(), d, "old")
	if len(w) > 0 || !d.waiting() {
		t.Error("told of credentials that it does not use")
	}
	who.change("old")
	b.refuse(t.Context(), d, "old")
	var refused *LoginRefusedError
	if a := <-w; !errors.As(a.err, &refused) || refused.Why != "535" || d.waiting() {
		t.Errorf("got %v", a.err)
	}
}

// eachShared are streams that share a login, of which auth has two connections of its
// own and normal one.
func eachShared(t *testing.T, f func(a *asked)) {
	eachAsked(t, func(a *asked) {
		a.shared = true
		a.l.Streams = map[string]Share{"auth": {Connections: 2}, "normal": {Connections: 1}}
		f(a)
	})
}

// Bulk mail that connects leaves one of the two dials to those who do not have their
// own connections yet.
func TestDialIsKept(t *testing.T) {
	t.Parallel()
	eachShared(t, func(a *asked) {
		ad := a.dialFor("ad", true)
		a.dialFor("ad", false)
		auth := a.dialFor("auth", true) // waits for nobody's greeting
		a.tell(ad, newsGreeted, 0)
		a.dialFor("ad", false) // auth needs one more, and normal one
		a.dialFor("normal", true)
		a.tell(auth, newsGreeted, 0)
		a.dialFor("ad", false)
		a.tell(a.dialFor("auth", true), newsGreeted, 0)
		a.dialFor("ad", true) // beside normal's dial: nobody is short any more
		a.dialFor("auth", false)
	})
	// A stream that has more than its own leaves a dial to one that has less.
	eachShared(t, func(a *asked) {
		for range 2 {
			a.tell(a.dialFor("auth", true), newsGreeted, 0)
		}
		a.dialFor("auth", true)
		a.dialFor("auth", false)
		a.dialFor("normal", true)
	})
	// What is kept for a stream of another login keeps no dial of this.
	eachShared(t, func(a *asked) {
		a.shared = false
		a.dialFor("ad", true)
		a.dialFor("ad", true)
		a.dialFor("ad", false)
	})
}

// All streams of a login make one sequence of probes, whichever of them makes one.
func TestProbesOfOneLogin(t *testing.T) {
	t.Parallel()
	eachShared(t, func(a *asked) {
		streams := []string{"ad", "auth", "normal"}
		lease := a.dialFor("ad", true)
		pause := sec
		for n := range 6 {
			a.tell(lease, newsRefused, 0)
			a.c.advance(pause - time.Millisecond)
			for _, s := range streams {
				a.dialFor(s, false)
			}
			a.c.advance(time.Millisecond)
			lease = a.dialFor(streams[n%3], true)
			for _, s := range streams {
				a.dialFor(s, false)
			}
			pause += pause / 2
		}
	})
}

// A connection of any of its streams that ends is a place at a relay that is full.
func TestFullRelayOfOneLogin(t *testing.T) {
	t.Parallel()
	eachShared(t, func(a *asked) {
		open := a.dialFor("auth", true)
		a.tell(open, newsGreeted, 0)
		a.jitter = 1
		for range 5 {
			a.tell(a.dialFor("ad", true), newsRefused, 0)
			a.c.advance(31 * sec)
		}
		a.tell(a.dialFor("ad", true), newsRefused, 0)
		a.c.advance(2 * sec)
		a.dialFor("ad", false)
		if err := a.c.release(a.Context(), []string{open}); err != nil {
			a.Fatal(err)
		}
		a.dialFor("ad", true)
	})
}

// A fleet of the version before, which kept a breaker for each stream, left its state,
// and some of it works still: its dials count, and its breakers trouble nobody.
func TestStateOfStreams(t *testing.T) {
	t.Parallel()
	c, server := clockedMiniredis(t)
	a := &asked{T: t, c: c, l: Limits{Open: 9}, shared: true, jitter: 0.5}
	const state, old = "test:{b:acc}:state", ":o:9"
	at := func(d time.Duration) string { return strconv.FormatInt(c.now.Add(d).UnixMicro(), 10) }
	for _, stream := range []string{"auth", "ad"} {
		if _, err := server.ZAdd("test:{b:acc}:open", float64(c.now.Add(hour).UnixMicro()), stream+old); err != nil {
			t.Fatal(err)
		}
		server.HSet(state, "d:"+stream, stream+old+" "+at(0)+" "+at(10*sec))
	}
	server.HSet(state, "b:ad", at(0)+" "+at(0)+" "+at(hour)+" "+at(hour)+" 7 0", "w:ad", "421 no", "l:ad:f", at(0)+" 535 no")
	a.dialFor("auth", true) // the other one is not known to use the login
	a.dialFor("ad", false)
	u, err := c.usage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range u.showBreakers(c.now) {
		if b.State != Closed {
			t.Errorf("%+v", b)
		}
	}
	c.advance(10 * sec)
	if err := c.release(t.Context(), []string{"auth" + old, "ad" + old}); err != nil {
		t.Fatal(err)
	}
	a.tell(a.dialFor("ad", true), newsGreeted, 0)
	if _, err := c.renew(t.Context(), a.l.connectPlan(""), renewal{leases: []string{"ad:old:1"}, ungreeted: []bool{true}, lapse: hour, dialing: hour}); err != nil {
		t.Fatal(err)
	}
	a.dialFor("normal", false) // it renews what it dials
	if err := c.reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	fields, err := server.HKeys(state)
	if err != nil || slices.Contains(fields, "b:ad") || slices.Contains(fields, "l:ad:f") {
		t.Errorf("left after a reset: %v, %v", fields, err)
	}
}

// Of what is kept, a request names what is kept for streams of its login.
func TestKeptOfOneLogin(t *testing.T) {
	t.Parallel()
	l := Limits{Open: 9, Streams: map[string]Share{"auth": {Connections: 2}, "normal": {Connections: 1}, "other": {Connections: 1}}}
	b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: l, Login: func(string) string { return "f" },
		LoginName: func(stream string) string {
			if stream == "other" {
				return stream
			}
			return "auth"
		}})
	if err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string][]openShare{"ad": {{"auth", 2}, {"normal", 1}}, "other": {{"other", 1}}} {
		if d := b.newDial(b.line(stream).plan); !slices.Equal(d.kept, want) {
			t.Errorf("%s: kept %v, want %v", stream, d.kept, want)
		}
	}
	b.p.LoginName = func(string) string { return "a:b" }
	if _, err := b.Connect(t.Context(), "ad"); err == nil {
		t.Error("a login's name that is none was accepted")
	}
}
