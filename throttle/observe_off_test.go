package throttle

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Who does not learn keeps to what is configured, whatever others have learned, and they
// go on keeping to that.
func TestLearnedDoesNotBindWhoDoesNotLearn(t *testing.T) {
	t.Parallel()
	eachClocked(t, func(t *testing.T, c *clocked) {
		l := Limits{Open: 5, Messages: []Window{{1000, sec}}, Streams: map[string]Share{"auth": {Connections: 2}}}
		off := plainly{c.store}
		c.learn(learnedOpen, 2)
		connect := func(s store, name string) int {
			g, err := s.connect(t.Context(), l.connectPlan("ad"), dial{lease: "ad:" + name + ":1", lapse: hour, dialing: sec})
			if err != nil {
				t.Fatal(err)
			}
			return g.n
		}
		got := []int{connect(c, "a"), connect(c, "b"), connect(off, "c"), connect(off, "d"), connect(c, "e"), connect(off, "f")}
		if want := "[1 0 1 1 0 0]"; fmt.Sprint(got) != want { // two are kept for codes
			t.Errorf("connections granted: %v, want %s", got, want)
		}
		for _, field := range []string{learnedRate, learnedRate + ":naver"} {
			c.learn(field, 500_000)
			p := l.messagePlan(naver)
			if n := c.drain(t, p.plainly(), 2*sec); n < 1750 || n > 1850 {
				t.Errorf("%s: %d messages in 2 s without learning, want about 1818", field, n)
			}
			if n := c.drain(t, p, 2*sec); n < 3 || n > 6 {
				t.Errorf("%s: %d messages in 2 s, want about 4", field, n)
			}
			c.learn(field, 0)
		}
	})
}

// The same, of whole budgets, and the groups that have a learned rate are no business
// of who does not learn.
func TestAdaptiveOffSends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &Memory{}
		for field, every := range map[string]float64{learnedRate: 1e6, learnedRate + ":naver": 2e6, learnedOpen: 1} {
			m.learn(field, every)
		}
		var bs [2]*Budget
		for i := range bs {
			b, err := NewMemory(m, Params{
				Owner: fmt.Sprint("o", i), Limits: Limits{Open: 3, Messages: []Window{{1000, sec}}}, Adaptive: Adaptive{Off: i == 1},
			})
			if err != nil {
				t.Fatal(err)
			}
			run(t, b)
			bs[i] = b
		}
		on, off := bs[0], bs[1]
		connect(t, off, "ad")
		connect(t, off, "ad")
		refused(t, on, "ad")
		off.renew(t.Context())
		if c := off.fold(naver); c.Group != "" {
			t.Errorf("%v has a supply of its own", c)
		}
		count := func(b *Budget) (n int) {
			for end := time.Now().Add(2 * sec); time.Now().Before(end); n++ {
				if _, err := b.Message(t.Context(), naver); err != nil {
					t.Fatal(err)
				}
			}
			return n
		}
		if n := count(off); n < 1700 {
			t.Errorf("%d messages in 2 s, want about 1818", n)
		}
		if n := count(on); n > 5 {
			t.Errorf("%d messages in 2 s of who learns, want 2", n)
		}
		if u := limitsOf(t, on); u[learnedRate] != 1e6 {
			t.Errorf("learned %v", u)
		}
	})
}
