package throttle

import (
	"fmt"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// clocked is a store whose clock the test moves.
type clocked struct {
	store
	now   time.Time
	set   func(time.Time)
	learn func(field string, value float64) // sets what was learned; 0: nothing
}

func (c *clocked) advance(d time.Duration) {
	c.now = c.now.Add(d)
	c.set(c.now)
}

// epoch is in the middle of every bucket.
func epoch() time.Time { return time.Date(2026, 3, 1, 0, 0, 1, 234_567_000, time.UTC) }

func clockedMemory() *clocked {
	m := &Memory{}
	c := &clocked{store: m, now: epoch()}
	m.now = func() time.Time { return c.now }
	c.set = func(time.Time) {}
	c.learn = m.learn
	return c
}

func clockedMiniredis(t *testing.T) (*clocked, *miniredis.Miniredis) {
	r := miniredis.RunT(t)
	c := &clocked{store: newRedisStore(client(t, &redis.Options{Addr: r.Addr()}), "test", "acc"), now: epoch(), set: r.SetTime}
	c.learn = func(field string, value float64) {
		if value == 0 {
			r.HDel("test:{b:acc}:state", field)
		} else {
			r.HSet("test:{b:acc}:state", field, exact(value))
		}
	}
	r.SetTime(c.now)
	return c, r
}

// learn sets what was learned; 0 forgets it.
func (m *Memory) learn(field string, value float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.caps == nil {
		m.caps = map[string]float64{}
	}
	m.caps[field] = value
	if value == 0 {
		delete(m.caps, field)
	}
}

func eachClocked(t *testing.T, f func(t *testing.T, c *clocked)) {
	t.Run("memory", func(t *testing.T) { t.Parallel(); f(t, clockedMemory()) })
	t.Run("miniredis", func(t *testing.T) { t.Parallel(); c, _ := clockedMiniredis(t); f(t, c) })
}

func (c *clocked) lease(t *testing.T, p *plan, n int, back ...unused) grant {
	t.Helper()
	g, err := c.messages(t.Context(), p, n, back)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// drain leases until the store says no, moving the clock as told, for so long.
func (c *clocked) drain(t *testing.T, p *plan, d time.Duration) (n int) {
	t.Helper()
	for end := c.now.Add(d); c.now.Before(end); {
		g := c.lease(t, p, p.chunk())
		n += g.n
		c.advance(min(gap, end.Sub(c.now)))
	}
	return n
}

// A steady drain gets N per window and slack, and nothing is lost by asking
// only every 20 ms.
func TestTimelineRate(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		for _, w := range []Window{{200, sec}, {400, 2 * sec}, {20_000, sec}, {1, sec}, {100, 10 * sec}} {
			p := Limits{Open: 1, Messages: []Window{w}}.messagePlan(Class{Stream: "ad"})
			p.slots[0].name += fmt.Sprint(w.N) // a timeline of its own
			whole := w.Per + slack(w.Per)
			c.lease(t, p, 1)
			c.advance(sec)
			windows := max(1, int(3*sec/whole))
			got := c.drain(t, p, time.Duration(windows)*whole)
			// What lies between is one lateness of slots taken late at the start and
			// what is taken ahead at the end.
			least := windows*w.N - 1
			most := least + int(float64(micros(lateness(w.Per)+aheadWithout))/p.every()) + 2
			if got < least || got > most {
				t.Errorf("%v: %d in %d windows, want %d to %d", w, got, windows, least, most)
			}
		}
	})
}

// A window that is not the slowest is moved on so far that no message begins
// later after its slot than its lateness.
func TestSlowestMovesAll(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		fast := Limits{Open: 1, Messages: []Window{{100, sec}}}                  // a slot every 11 ms
		both := Limits{Open: 1, Messages: []Window{{100, sec}, {500, 10 * sec}}} // every 21 ms
		both.Streams = map[string]Share{"auth": {Reserve: []Window{{50, sec}}}}
		auth := both.messagePlan(Class{Stream: "auth"})
		c.lease(t, auth, 1)
		c.advance(sec)
		// Slots 20 ms ago, and 1, 22 and 43 ms ahead.
		if g := c.lease(t, auth, 10); g.n != 4 || g.delay != -20_000 {
			t.Fatalf("granted %d from %d µs, want 4 from -20000", g.n, g.delay)
		}
		// The last was 43 ms ahead: the next is 11 ms after a slot 20 ms before that.
		c.advance(20 * time.Millisecond)
		if g := c.lease(t, fast.messagePlan(Class{Stream: "ad"}), 1); g.delay != 14_000 {
			t.Errorf("the next slot is at %d µs, want 14000", g.delay)
		}
	})
}

// A window that is used up opens again when its messages have left it, to the
// bucket, and the answer says when.
func TestCounterOpensAgain(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		p := Limits{Open: 1, Messages: []Window{{100, hour}}}.messagePlan(Class{Stream: "ad"})
		first := c.lease(t, p, 60)
		c.advance(10 * time.Minute)
		second := c.lease(t, p, 60)
		if first.n != 60 || second.n != 40 {
			t.Fatalf("granted %d and %d, want 60 and 40", first.n, second.n)
		}
		g := c.lease(t, p, 1)
		retry := time.Duration(g.retry) * time.Microsecond
		if want := 53 * time.Minute; g.n != 0 || retry < want || retry > want+hour/buckets {
			t.Fatalf("granted %d, ask again after %v; want 0 and %v or a bucket more", g.n, retry, want)
		}
		c.advance(retry - time.Microsecond)
		if g := c.lease(t, p, 100); g.n != 0 {
			t.Errorf("granted %d too early", g.n)
		}
		c.advance(time.Microsecond)
		if g := c.lease(t, p, 100); g.n != 60 {
			t.Errorf("granted %d, want the 60 that have left", g.n)
		}
	})
}

// What was not begun can be leased again, but no older bucket gains by it.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		p := Limits{Open: 1, Messages: []Window{{100, hour}}}.messagePlan(Class{Stream: "ad"})
		old := c.lease(t, p, 50)
		for range 5 {
			c.advance(hour / buckets)
			c.lease(t, p, 1)
		}
		g := c.lease(t, p, 45)
		c.advance(100 * time.Millisecond)
		if g := c.lease(t, p, 1); g.n != 0 {
			t.Fatal("the window should be used up")
		}
		if g := c.lease(t, p, 100, unused{g.now, 7}); g.n != 7 {
			t.Errorf("granted %d, want the 7 given back", g.n)
		}
		if g := c.lease(t, p, 100, unused{old.now, 7}); g.n != 0 {
			t.Errorf("granted %d for a return that is too old", g.n)
		}
	})
}

// Ads take everything they find; a login code is next all the same, and while
// codes keep coming within the reserve, ads wait.
func TestReserveGoesFirst(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := shipped()
		ad, auth := l.messagePlan(Class{Stream: "ad"}), l.messagePlan(Class{Stream: "auth"})
		c.lease(t, ad, 1)
		c.advance(sec)
		c.drain(t, ad, sec)
		for c.lease(t, ad, 10).n > 0 { // all there is, now
		}
		g := c.lease(t, auth, 1)
		if delay := time.Duration(g.delay) * time.Microsecond; g.n != 1 || delay > aheadWithin {
			t.Fatalf("granted %d after %v, want 1 within %v", g.n, delay, aheadWithin)
		}
		// Codes up to the reserve take the next slots ahead of everyone.
		got := g.n
		for range 10 {
			g := c.lease(t, auth, 20)
			if got += g.n; g.n == 0 {
				break
			}
		}
		if g := c.lease(t, ad, 1); g.n != 0 {
			t.Errorf("an ad was granted %d before the codes", g.n)
		}
		if got < 4 {
			t.Errorf("codes were granted %d slots ahead, want all up to %v", got, aheadWithin)
		}
		// Within 100 ms more, the reserve of one second has been served.
		for range 10 {
			c.advance(10 * time.Millisecond)
			got += c.lease(t, auth, 20-got).n
		}
		if got != 20 {
			t.Errorf("%d of 20 reserved codes after 100 ms", got)
		}
		// What codes do not want is anyone's.
		c.advance(sec)
		if n := c.drain(t, ad, 11*sec); n < 1990 {
			t.Errorf("ads got %d of 2000 while nobody else wanted any", n)
		}
	})
}

// Beyond its reserve a stream still goes before those that have none, but not
// before another's reserve.
func TestBorrowing(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := Limits{Open: 9, Messages: []Window{{200, sec}}, Streams: map[string]Share{
			"auth": {Reserve: []Window{{20, sec}}}, "normal": {Reserve: []Window{{20, sec}}},
		}}
		auth, normal, ad := l.messagePlan(Class{Stream: "auth"}), l.messagePlan(Class{Stream: "normal"}), l.messagePlan(Class{Stream: "ad"})
		c.lease(t, ad, 1)
		c.advance(sec)
		got := map[string]int{}
		for range 100 {
			got["ad"] += c.lease(t, ad, 10).n
			got["normal"] += c.lease(t, normal, 10).n
			got["auth"] += c.lease(t, auth, 10).n
			c.advance(11 * time.Millisecond)
		}
		if got["ad"] > 10 || got["auth"] < 20 || got["normal"] < 20 {
			t.Errorf("got %v; want each reserve served, and no ad but at the start", got)
		}
	})
}

// Ads cannot eat the day's login codes; codes may go on beyond their reserve.
func TestReserveOfTheDay(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := Limits{Open: 9, Messages: []Window{{100, day}}, Streams: map[string]Share{
			"auth": {Reserve: []Window{{30, day}}},
		}}
		ad, auth := l.messagePlan(Class{Stream: "ad"}), l.messagePlan(Class{Stream: "auth"})
		if g := c.lease(t, ad, 200); g.n != 70 {
			t.Errorf("ads got %d, want 70", g.n)
		}
		if g := c.lease(t, auth, 10); g.n != 10 {
			t.Errorf("codes got %d, want 10", g.n)
		}
		if g := c.lease(t, ad, 200); g.n != 0 {
			t.Errorf("ads got %d of the reserve that is left", g.n)
		}
		if g := c.lease(t, auth, 200); g.n != 20 {
			t.Errorf("codes got %d, want the other 20", g.n)
		}
	})
}

// A reserve whose window is no limit's is kept free in the longer limits too.
func TestReserveOfItsOwnWindow(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := Limits{Open: 9, Messages: []Window{{240, day}}, Streams: map[string]Share{
			"auth": {Reserve: []Window{{5, hour}}},
		}}
		if g := c.lease(t, l.messagePlan(Class{Stream: "ad"}), 1000); g.n != 120 {
			t.Errorf("ads got %d, want what 24 times 5 leave", g.n)
		}
		// Within the hour's reserve first, then beyond it.
		auth := l.messagePlan(Class{Stream: "auth"})
		if g := c.lease(t, auth, 1000); g.n != 5 {
			t.Errorf("codes got %d within the reserve, want 5", g.n)
		}
		if g := c.lease(t, auth, 1000); g.n != 115 {
			t.Errorf("codes got %d beyond it, want 115", g.n)
		}
	})
}

// Redis's clock set back, or a replica that is behind, gives no second budget
// and blocks nothing for long; leases do not lapse sooner or later by it.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := Limits{Open: 9, New: []Window{{3, time.Minute}}, Messages: []Window{{200, sec}}}
		ad, conn := l.messagePlan(Class{Stream: "ad"}), l.connectPlan("ad")
		c.lease(t, ad, 1)
		for i := range 3 {
			if g, err := c.connect(t.Context(), conn, dial{lease: fmt.Sprintf("ad:o:%d", i), lapse: 10 * sec}); err != nil || g.n != 1 {
				t.Fatal(g, err)
			}
		}
		c.advance(-5 * time.Minute)
		if g, _ := c.connect(t.Context(), conn, dial{lease: "ad:o:4", lapse: 10 * sec}); g.n != 0 {
			t.Error("a fourth connection in the window")
		}
		if n := c.drain(t, ad, 11*sec); n < 1980 || n > 2020 {
			t.Errorf("%d messages in ten windows after the clock was set back, want 2000", n)
		}
		if u, _ := c.usage(t.Context(), nil); len(u.leases) != 0 {
			t.Errorf("%d leases after their time", len(u.leases))
		}
	})
}

// A warm-up grows by the day from the first message on, and the reserves in it
// grow with it.
func TestWarmUpByDay(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := Limits{Open: 9, WarmUp: map[string]Ramp{Everyone: {100, 2, 1000}, "new.example": {10, 3, 50}},
			Streams: map[string]Share{"auth": {Reserve: []Window{{200, day}}}}}
		fresh := l.messagePlan(Class{Stream: "ad", Sender: "new.example"})
		ad, auth := l.messagePlan(Class{Stream: "ad"}), l.messagePlan(Class{Stream: "auth"})
		c.advance(40 * day) // before the first message no day counts
		for i, want := range [][3]int{{10, 70, 20}, {30, 130, 40}, {50, 270, 80}, {50, 590, 160}, {50, 750, 200}, {50, 750, 200}} {
			got := [3]int{c.lease(t, fresh, 5000).n, c.lease(t, ad, 5000).n, c.lease(t, auth, 5000).n}
			if got != want {
				t.Errorf("day %d: new sender, ads and codes got %v, want %v", i+1, got, want)
			}
			if g := c.lease(t, ad, 1); g.n != 0 || g.retry < micros(day) {
				t.Errorf("day %d: granted %d more, ask again after %d µs", i+1, g.n, g.retry)
			}
			c.advance(day + slack(day) + day/buckets + sec)
		}
		if u, err := c.usage(t.Context(), nil); err != nil || len(u.firsts) != 2 {
			t.Errorf("firsts %v, %v", u.firsts, err)
		}
	})
}

// A group is not served so far ahead that slots of the account are lost by it.
func TestGroupSparesAccount(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := shipped()
		l.Groups = map[string][]Window{"naver": {{20, sec}}}
		few, ad := l.messagePlan(Class{Stream: "auth", Group: "naver"}), l.messagePlan(Class{Stream: "ad"})
		c.lease(t, few, 1)
		c.advance(sec)
		if g := c.lease(t, few, 9); g.n != 1 { // the slot of 20 ms ago; the next is 55 ms after it
			t.Fatalf("granted %d, want 1", g.n)
		}
		c.advance(10 * time.Millisecond)
		if g := c.lease(t, few, 9); g.n != 0 || g.retry <= 0 || g.retry > 20_000 {
			t.Errorf("granted %d slots 25 ms ahead, ask again after %d µs", g.n, g.retry)
		}
		if n := c.lease(t, ad, 99).n; n < 7 {
			t.Errorf("%d slots are left to ads of those from 20 ms ago until 20 ms ahead", n)
		}
	})
}

// A learned rate may rise and fall from call to call; no two messages are nearer
// to each other than the rate wants, but for the lateness of a second's window.
func TestLearnedRateMoves(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		p := Limits{Open: 9, Messages: []Window{{1000, sec}}}.messagePlan(Class{Stream: "ad", Group: "naver"})
		for i, every := range []float64{10_000, 40_000.5, 5000, 100_000, 2000} {
			field := learnedRate
			if i%2 == 1 {
				field += ":naver"
			}
			c.learn(field, every)
			c.drain(t, p, 200*time.Millisecond)
			n := c.drain(t, p, 2*sec)
			want := int(2_000_000 / max(every, 1100))
			if n < want-1 || n > want+int(40_000/every)+1 {
				t.Errorf("%d messages of %.0f µs in 2 s, want about %d", n, every, want)
			}
			c.learn(field, 0)
		}
	})
}
