package throttle

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestConformance is what every place where a fleet meets must do.
func TestConformance(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		run  func(t *testing.T, b backend)
	}{
		{"message window", testMessageWindow},
		{"long window is spent to the last message", testLongWindow},
		{"unspent messages are given back at the end", testGiveBackAtEnd},
		{"unspent messages are given back when they lapse", testGiveBackLapsed},
		{"open connections", testOpen},
		{"reserved connections", testReservedConnections},
		{"new connections", testNewConnections},
		{"reserved openings", testReservedOpenings},
		{"cancelled waits take nothing", testCancelled},
		{"leases are renewed", testRenewal},
		{"a dead owner's leases lapse", testLapse},
		{"release of a dead owner's leases", testReleaseOwner},
		{"a forgotten lease is taken again if there is room", testForgottenLease},
		{"leases come back at the end", testEnd},
		{"assume full", testAssumeFull},
		{"assume full, by class", testAssumeClasses},
		{"usage", testUsage},
		{"limits of a stream", testStreamLimit},
		{"limits of a group", testGroupLimit},
		{"warm-up", testWarmUp},
		{"learned rate", testLearnedRate},
		{"learned number of connections", testLearnedOpen},
		{"two dials at once", testUngreeted},
		{"a dead dialler's dials lapse", testDeadDialler},
		{"relay down", testRelayDown},
		{"login refused", testLoginRefused},
		{"streams that share a login share its dials and its breaker", testSharedLogin},
		{"a login that several streams use is refused once", testSharedLoginRefused},
		{"without logins there is no breaker", testNoBreaker},
	}
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			for _, tt := range cases {
				t.Run(tt.name, func(t *testing.T) { t.Parallel(); tt.run(t, b) })
			}
		})
	}
}

// drain begins messages from several goroutines of every budget until ctx ends.
func drain(ctx context.Context, t *testing.T, bs []*Budget, stream string, each int) *record {
	r := &record{}
	var wg sync.WaitGroup
	for _, b := range bs {
		for range each {
			wg.Go(func() {
				for b.TryMessage(Class{Stream: stream}) || message(ctx, b, stream) == nil {
					r.add(time.Now())
					if ctx.Err() != nil {
						return
					}
				}
			})
		}
	}
	wg.Wait()
	return r
}

func testMessageWindow(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, Messages: []Window{{60, sec}, {400, 10 * sec}}})
	var bs []*Budget
	for range 3 {
		b, _ := f.budget()
		bs = append(bs, b)
	}
	if err := message(within(t), bs[0], "ad"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	drain(ctx, t, bs, "ad", 4).check(t, "messages", f.limits.Messages...)
}

// spend begins n messages, and sees that there are no more.
func spend(t *testing.T, b *Budget, stream string, n int) {
	t.Helper()
	for i := range n {
		if err := message(within(t), b, stream); err != nil {
			t.Fatalf("message %d of %d: %v", i+1, n, err)
		}
	}
	// Longer than it takes to give back what lapsed and to lease it again.
	ctx, cancel := context.WithTimeout(t.Context(), 3*longestGap)
	defer cancel()
	if message(ctx, b, stream) == nil {
		t.Errorf("%s began more than %d messages", stream, n)
	}
}

func testLongWindow(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{
		Open: 1, Messages: []Window{{1000, sec}, {30, 2 * hour}},
		Streams: map[string]Share{"auth": {Reserve: []Window{{10, 2 * hour}}}},
	})
	b1, _ := f.budget()
	b2, _ := f.budget()
	spend(t, b1, "ad", 20)
	spend(t, b2, "auth", 10)
	spend(t, b2, "ad", 0)
}

func testGiveBackAtEnd(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, Messages: []Window{{40, 2 * hour}}})
	b1, stop := f.budget()
	for range 10 { // fast enough to lease ahead
		if err := message(within(t), b1, "ad"); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	b2, _ := f.budget()
	spend(t, b2, "ad", 30)
}

func testGiveBackLapsed(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, Messages: []Window{{40, 2 * hour}}})
	b1, _ := f.budget()
	b1.TryMessage(Class{Stream: "ad"}) // has one leased, and does not come back for it
	eventually(t, "the token lapses", func() bool { return b1.Stats().Lapsed > 0 })
	b2, _ := f.budget()
	eventually(t, "the message is given back", func() bool {
		u, err := b2.Usage(t.Context())
		return err == nil && u.Messages[0].Used == 0
	})
	spend(t, b2, "ad", 40)
}

func testCancelled(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, Messages: []Window{{40, 2 * hour}}})
	b1, _ := f.budget()
	held := connect(t, b1, "ad")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if _, err := b1.Connect(ended, "ad"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := message(ended, b1, "ad"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	// Some are served in the moment in which they give up.
	for i := range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		_ = message(ctx, b1, "ad")
		cancel()
	}
	refused(t, b1, "ad")
	held.Release()
	connect(t, b1, "ad").Release()
	spend(t, b1, "ad", 40-int(b1.Stats().Begun))
}

func testAssumeFull(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{
		Open: 9, New: []Window{{3, time.Minute}, {50, hour}},
		Messages: []Window{{1000, sec}, {100, 2 * hour}},
	})
	b1, _ := f.budget()
	connect(t, b1, "ad").Release()
	for range 10 {
		if err := message(within(t), b1, "ad"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "what was leased ahead is given back", func() bool {
		u, err := b1.Usage(t.Context())
		return err == nil && u.Messages[1].Used == 10
	})
	if err := b1.AssumeFull(t.Context()); err != nil {
		t.Fatal(err)
	}
	u, err := b1.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A minute is full; the hour and the day are charged the last minute again.
	if got := []int{u.Connections[0].Used, u.Connections[1].Used}; !cmp.Equal(got, []int{3, 2}) {
		t.Errorf("connections used %v, want 3 of the minute and 2 of the hour", got)
	}
	if got, want := u.Messages[1].Used, 10+int(b1.Stats().Leased); got != want {
		t.Errorf("messages used %d, want %d", got, want)
	}
	refused(t, b1, "ad")
	if err := message(within(t), b1, "ad"); err != nil { // timelines go on
		t.Fatal(err)
	}
}

func testUsage(t *testing.T, b backend) {
	l := shipped()
	f := newFleet(t, b, l)
	b1, _ := f.budget()
	b2, _ := f.budget()
	connect(t, b1, "auth")
	connect(t, b1, "ad")
	connect(t, b1, "ad")
	connect(t, b2, "ad").Release()
	for range 3 {
		if err := message(within(t), b2, "auth"); err != nil {
			t.Fatal(err)
		}
	}
	var got Usage
	eventually(t, "what is not needed is given back", func() bool {
		var err error
		got, err = b2.Usage(t.Context())
		return err == nil && got.Open == 3 && got.Messages[1].Used == 3
	})
	want := Usage{
		Messages: []Use{
			{"limits.messages", "", l.Messages[0], 3, 197},
			{"limits.messages", "", l.Messages[1], 3, 499_997},
			{"streams.auth.reserve", "auth", l.Streams["auth"].Reserve[0], 3, 17},
			{"streams.auth.reserve", "auth", l.Streams["auth"].Reserve[1], 3, 19_997},
		},
		Connections: []Use{{"limits.connections.new", "", l.New[0], 4, 56}},
		Open:        3, OpenLimit: 10,
		Holders: []Holder{{Owner: "owner1", Stream: "ad", Connections: 2}, {Owner: "owner1", Stream: "auth", Connections: 1}},
	}
	// The short windows move on while we look.
	short := cmp.FilterPath(func(p cmp.Path) bool {
		name := p.Last().String()
		return name == ".Used" || name == ".Left"
	}, cmp.Comparer(func(a, b int) bool { return a-b <= 3 && b-a <= 3 }))
	if diff := cmp.Diff(want, got, short, cmpopts.IgnoreFields(Holder{}, "Lapse")); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	for _, h := range got.Holders {
		if h.Lapse <= 0 || h.Lapse > f.timing.lapse {
			t.Errorf("%v lapses in %v", h, h.Lapse)
		}
	}
}

func testAssumeClasses(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{
		Open: 9, Groups: map[string][]Window{"naver": {{500, sec}, {100, 2 * hour}}},
		Streams: map[string]Share{"ad": {New: []Window{{3, time.Minute}}}},
	})
	b1, _ := f.budget()
	connect(t, b1, "ad").Release()
	for range 10 {
		if _, err := b1.Message(within(t), naver); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b1.Message(within(t), google); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was leased ahead is given back", func() bool {
		u, err := b1.Usage(t.Context())
		return err == nil && u.Messages[1].Used == 10
	})
	of := 0
	for _, g := range b1.recent {
		if g.plan.group != "" {
			of += g.n
		}
	}
	if err := b1.AssumeFull(t.Context()); err != nil {
		t.Fatal(err)
	}
	u, err := b1.Usage(t.Context())
	if err != nil || u.Messages[1].Used != 10+of {
		t.Errorf("used %d of the group (%v), want %d", u.Messages[1].Used, err, 10+of)
	}
	refused(t, b1, "ad")
	connect(t, b1, "normal")
}
