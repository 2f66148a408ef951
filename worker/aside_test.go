package worker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/throttle"
)

// groupBench is a bench whose destination group naver, naver.example, has a limit of two
// messages a second.
func groupBench(t *testing.T, blocks int) *bench {
	b := newBench(t, relay.Config{}, nil)
	limits := throttle.Limits{
		Open: 4, New: []throttle.Window{{N: 1000, Per: time.Minute}}, Messages: []throttle.Window{{N: 10_000, Per: time.Second}},
		Groups: map[string][]throttle.Window{"naver": {{N: 2, Per: time.Second}}},
	}
	b.conf.Blocks = blocks
	b.conf.Budget = func(owner string, login func(string) string) (*throttle.Budget, error) {
		return throttle.NewRedis(b.rdb, throttle.Params{Prefix: "t", Account: "a", Owner: owner, Limits: limits, Login: login, Log: b.conf.Log})
	}
	b.conf.Group = func(domain string) string {
		if domain == "naver.example" {
			return "naver"
		}
		return ""
	}
	return b
}

// toNaver is how many of the group have their mail.
func (b *bench) toNaver() (n int) {
	for _, m := range b.relay.Truth() {
		if strings.HasSuffix(m.To, "@naver.example") {
			n++
		}
	}
	return n
}

// Blocks that wait for one destination group's budget, many more than are worked on at
// once, do not keep others from being sent: neither campaigns nor login codes.
func TestGroupHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	const blocks, campaigns = 2, 8
	for stream, size := range map[mail.Stream]int{mail.Ad: 10, mail.Auth: 9} {
		t.Run(string(stream), func(t *testing.T) {
			t.Parallel()
			b := groupBench(t, blocks)
			for n := range campaigns {
				var to []string
				for i := range size {
					to = append(to, fmt.Sprintf("c%d-%d@naver.example", n, i))
				}
				b.send(stream, to...)
			}
			b.start()
			b.eventually("the group's mail is under way", func() bool { return b.toNaver() > 0 })
			c := b.send(stream, people(20)...)
			if s := b.settled(c); s.Count(mail.Accepted) != 20 {
				t.Errorf("%v", s.Outcomes)
			}
			// Had it waited for a place, all but blocks-1 of the others would be done.
			if n := b.toNaver(); n >= (campaigns-blocks+1)*size {
				t.Errorf("the others were sent after %d of the group's %d", n, campaigns*size)
			}
		})
	}
}

// What was set aside or put off is sent all the same, to the last and once.
func TestGroupIsSentToTheLast(t *testing.T) {
	t.Parallel()
	b := groupBench(t, 1)
	var all []*queue.Campaign
	for n := range 4 {
		all = append(all, b.send(mail.Ad, fmt.Sprintf("a%d@naver.example", n), fmt.Sprintf("b%d@naver.example", n), fmt.Sprintf("c%d@example.com", n)))
	}
	b.start()
	for _, c := range all {
		if s := b.settled(c); s.Count(mail.Accepted) != 3 {
			t.Errorf("%v", s.Outcomes)
		}
	}
	if n := b.relay.Stats().Messages; n != 12 {
		t.Errorf("the relay has %d mails of 12", n)
	}
}

// dryBudget is one that has nothing now.
type dryBudget struct {
	budget
	wait map[throttle.Class]time.Duration
}

func (dryBudget) TryMessage(throttle.Class) bool        { return false }
func (b dryBudget) Wait(c throttle.Class) time.Duration { return b.wait[c] }

// holdingNothing is a ledger without holds.
type holdingNothing struct{ clock }

func (holdingNothing) Held(mail.Stream, string) (queue.Hold, bool)      { return queue.Hold{}, false }
func (holdingNothing) HeldGroup(mail.Stream, string) (queue.Hold, bool) { return queue.Hold{}, false }

// restBench is a feed without budget: a message to slow takes a second, to quick 10 ms,
// to others nothing of their own.
func restBench(now time.Time) *feed {
	f := &feed{stream: mail.Ad, ledger: holdingNothing{clock{now: now}}, budget: dryBudget{}, wake: make(chan struct{})}
	f.gaps.gap = map[string]time.Duration{"slow": time.Second, "quick": 10 * time.Millisecond}
	return f
}

// hold puts a work into the feed, with so many recipients of each group.
func (f *feed) hold(lots map[string]int) *work {
	w := &work{claim: &queue.Claim{Campaign: &queue.Campaign{ID: "c"}}, done: make(chan struct{}), aside: make(chan struct{})}
	for group, n := range lots {
		w.lots = append(w.lots, lot{class: throttle.Class{Stream: "ad", Group: group}, due: make([]int, n)})
	}
	f.works = append(f.works, w)
	return w
}

// look is a turn in which there is no budget for anybody.
func (f *feed) look(t *testing.T) {
	t.Helper()
	if s, _ := f.pick(f.budget.TryMessage); s != nil {
		t.Fatal("something was picked")
	}
}

// In hand stays what lasts a while of each group; the rest goes back, and returns about as
// fast as it can be sent, not all at once. Who has no limit of their own keeps their place.
func TestRestOfAGroup(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	f := restBench(now)
	var slow []*work
	for range 100 {
		slow = append(slow, f.hold(map[string]int{"slow": 20}))
	}
	quick, mixed, plain := f.hold(map[string]int{"quick": 500}), f.hold(map[string]int{"slow": 5, "quick": 5}), f.hold(map[string]int{"slow": 5, "": 5})
	f.look(t)

	for i, w := range append(slices.Clone(slow[:2]), quick, mixed) {
		if !w.isAside || w.over() {
			t.Errorf("kept work %d: aside %t, over %t", i, w.isAside, w.over())
		}
	}
	if plain.isAside || plain.over() {
		t.Error("who waits for the budget of all lost their place")
	}
	last := int64(0)
	for i, w := range slow[2:] {
		wait := time.Duration(w.parked-now.UnixMilli()) * time.Millisecond
		if w.parked == 0 || w.claim.NotBefore(0) != w.parked {
			t.Fatalf("work %d holds its claim", i)
		}
		// Half of what is before it, which is 40 in hand and 20 in each that went before.
		if least := time.Duration(40+20*i) * time.Second / 2; i < 10 && (wait < least || wait > least+time.Second+mostSpread) {
			t.Errorf("work %d is back after %v, want %v", i, wait, least)
		}
		if i < 10 && w.parked <= last || wait > mostParked+time.Minute {
			t.Errorf("work %d is back after %v", i, wait)
		}
		last = w.parked
	}
	if len(f.works) != 5 || f.asides != 4 {
		t.Errorf("%d works in hand, %d aside", len(f.works), f.asides)
	}
	f.works[0].lots[0].due = nil
	f.look(t)
	if f.asides != 3 {
		t.Errorf("%d aside after one is done", f.asides)
	}
}

// Too many are not set aside: further blocks go back although their group has nobody in
// hand, rather than keep their places.
func TestNoRoomAside(t *testing.T) {
	t.Parallel()
	f := restBench(time.Now())
	f.asides = mostAside
	w := f.hold(map[string]int{"quick": 1})
	f.look(t)
	if w.parked == 0 || f.asides != mostAside {
		t.Errorf("parked %d, %d aside", w.parked, f.asides)
	}
}

// A window that is used up costs no more than its wait, and the end of a code's life is
// not slept through.
func TestParkedNoLongerThanNeeded(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	for name, tc := range map[string]struct {
		ttl         time.Duration
		least, most time.Duration
	}{
		"long window": {least: 2 * time.Minute, most: 2*time.Minute + mostSpread},
		"short life":  {ttl: time.Minute, least: time.Minute, most: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 50 {
				f := restBench(now)
				f.conf.TTL = tc.ttl
				f.budget = dryBudget{wait: map[throttle.Class]time.Duration{{Stream: "ad", Group: "slow"}: 2 * time.Minute}}
				w := f.hold(map[string]int{"slow": 100})
				w.claim.Campaign.Created = now
				f.look(t)
				if wait := time.Duration(w.parked-now.UnixMilli()) * time.Millisecond; wait < tc.least || wait > tc.most {
					t.Fatalf("back after %v, want %v to %v", wait, tc.least, tc.most)
				}
			}
		})
	}
}

// A group is slow by its own limits, written or learned, unless all mail is as slow.
func TestGaps(t *testing.T) {
	t.Parallel()
	use := func(name string, n int, per time.Duration, left int) throttle.Use {
		return throttle.Use{Name: name, Window: throttle.Window{N: n, Per: per}, Left: left}
	}
	learned := func(group string, limit float64) throttle.Learned {
		return throttle.Learned{Rates: []throttle.LearnedRate{{Group: group, Cap: limit}}}
	}
	all := use("limits.messages", 100, time.Second, 100)
	for name, tc := range map[string]struct {
		uses    []throttle.Use
		learned throttle.Learned
		want    time.Duration
	}{
		"no limit":                  {uses: []throttle.Use{all}},
		"its own":                   {uses: []throttle.Use{all, use("groups.g.messages", 10, time.Second, 10)}, want: 100 * time.Millisecond},
		"the longer one":            {uses: []throttle.Use{use("groups.g.messages", 10, time.Second, 9), use("groups.g.messages", 60, time.Minute, 9)}, want: time.Second},
		"another's":                 {uses: []throttle.Use{all, use("groups.h.messages", 10, time.Second, 10)}},
		"faster than all":           {uses: []throttle.Use{all, use("groups.g.messages", 200, time.Second, 0)}},
		"faster than its stream":    {uses: []throttle.Use{use("streams.ad.messages", 5, time.Second, 0), use("groups.g.messages", 10, time.Second, 0)}},
		"slower than other streams": {uses: []throttle.Use{use("streams.auth.messages", 5, time.Second, 0), use("groups.g.messages", 10, time.Second, 0)}, want: 100 * time.Millisecond},
		"a day's, not used up":      {uses: []throttle.Use{use("groups.g.messages", 100, 100*time.Minute, 6)}},
		"a day's, used up":          {uses: []throttle.Use{use("groups.g.messages", 100, 100*time.Minute, 5)}, want: time.Minute},
		"learned":                   {uses: []throttle.Use{all}, learned: learned("g", 4), want: 250 * time.Millisecond},
		"all mail's, learned":       {uses: []throttle.Use{use("groups.g.messages", 10, time.Second, 0)}, learned: learned("", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var g gaps
			if g.see(mail.Ad, throttle.Usage{Messages: tc.uses}, tc.learned); g.of("g") != tc.want {
				t.Errorf("%v, want %v", g.of("g"), tc.want)
			}
		})
	}
}
