package throttle

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// message waits for one message of a stream.
func message(ctx context.Context, b *Budget, stream string) error {
	_, err := b.Message(ctx, Class{Stream: stream})
	return err
}

// learn sets what was learned of the relay; 0 forgets it.
func learn(t *testing.T, b *Budget, field string, value float64) {
	t.Helper()
	switch s := b.store.(type) {
	case *Memory:
		s.learn(field, value)
	case *redisStore:
		if err := s.c.HSet(t.Context(), s.base+"state", field, exact(value)).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

var (
	naver  = Class{Stream: "ad", Group: "naver"}
	google = Class{Stream: "ad", Group: "google"}
)

// spendClass begins n messages of a class, and sees that there are no more.
func spendClass(t *testing.T, b *Budget, c Class, n int) {
	t.Helper()
	for i := range n {
		if _, err := b.Message(within(t), c); err != nil {
			t.Fatalf("message %d of %d: %v", i+1, n, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*longestGap)
	defer cancel()
	if _, err := b.Message(ctx, c); err == nil {
		t.Errorf("%v began more than %d messages", c, n)
	}
}

func testStreamLimit(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 9, Messages: []Window{{1000, sec}}, New: []Window{{50, time.Minute}}, Streams: map[string]Share{
		"ad": {Messages: []Window{{500, sec}, {20, 2 * hour}}, New: []Window{{2, time.Minute}}},
	}})
	b1, _ := f.budget()
	b2, _ := f.budget()
	spendClass(t, b1, Class{Stream: "ad"}, 20)
	spendClass(t, b2, Class{Stream: "ad"}, 0)
	for range 30 {
		if err := message(within(t), b2, "normal"); err != nil {
			t.Fatal(err)
		}
	}
	connect(t, b1, "ad").Release()
	connect(t, b2, "ad").Release()
	refused(t, b1, "ad")
	connect(t, b1, "normal")
	u, err := b1.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := u.Messages[2]; got.Name != "streams.ad.messages" || got.Used != 20 || got.Left != 0 {
		t.Errorf("usage of the stream %+v", got)
	}
	if got := u.Connections[1]; got.Name != "streams.ad.openings" || got.Used != 2 || got.Left != 0 {
		t.Errorf("openings of the stream %+v", got)
	}
}

func testGroupLimit(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, Messages: []Window{{1000, sec}}, Groups: map[string][]Window{
		"naver": {{500, sec}, {15, 2 * hour}}, "kakao": {{5, 2 * hour}},
	}})
	b1, _ := f.budget()
	b2, _ := f.budget()
	spendClass(t, b1, naver, 15)
	spendClass(t, b2, Class{Stream: "auth", Group: "naver"}, 0)
	if got := b2.Wait(Class{Stream: "auth", Group: "naver"}); got < hour || got > 3*hour {
		t.Errorf("budget in %v, want about two hours", got)
	}
	for range 30 {
		c, err := b2.Message(within(t), naver, google, Class{Stream: "ad"})
		if err != nil || c != google {
			t.Fatalf("got %v, %v; want the group that has budget", c, err)
		}
	}
	if got := b2.Wait(google); got != 0 {
		t.Errorf("a group without a limit has budget in %v", got)
	}
	u, err := b1.Usage(t.Context())
	if err != nil || len(u.Messages) != 4 || u.Messages[3].Name != "groups.naver.messages" || u.Messages[3].Used != 15 {
		t.Errorf("usage %+v, %v", u.Messages, err)
	}
}

func testWarmUp(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, WarmUp: map[string]Ramp{"new.example": {10, 2, 1000}, Everyone: {25, 2, 10_000}}})
	b1, stop := f.budget()
	fresh := Class{Stream: "ad", Sender: "new.example"}
	u, err := b1.Usage(t.Context())
	if err != nil || len(u.WarmUp) != 2 || !u.WarmUp[1].Since.IsZero() || u.WarmUp[1].Left != 10 {
		t.Errorf("before the first message %+v, %v", u.WarmUp, err)
	}
	spendClass(t, b1, fresh, 10)
	stop() // what is stored outlives the process
	b2, _ := f.budget()
	spendClass(t, b2, fresh, 0)
	spendClass(t, b2, Class{Stream: "ad", Sender: "old.example"}, 15)
	u, err = b2.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := u.WarmUp[1]
	if age := time.Since(w.Since); w.Domain != "new.example" || w.Day != 1 || w.Used != 10 || w.Left != 0 || w.Window.N != 10 || age < 0 || age > hour {
		t.Errorf("warm-up %+v", w)
	}
}

func testLearnedRate(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 1, Messages: []Window{{1000, sec}}})
	b1, _ := f.budget()
	connect(t, b1, "ad") // its renewals tell which groups are limited
	learn(t, b1, learnedRate+":naver", 40_000)
	eventually(t, "the group is known to be limited", func() bool { return b1.fold(naver) == naver })
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	var others *record
	var wg sync.WaitGroup
	wg.Go(func() { others = drainClass(ctx, []*Budget{b1}, google, 2) })
	limited := drainClass(ctx, []*Budget{b1}, naver, 4)
	wg.Wait()
	limited.check(t, "messages of the group", atMost(40_000))
	if limited.len() < 3 || others.len() < 100 {
		t.Errorf("%d of the limited group, %d of others", limited.len(), others.len())
	}
	learn(t, b1, learnedRate, 50_000)
	nap(t.Context(), 100*time.Millisecond) // what was leased before
	slow, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	drainClass(slow, []*Budget{b1}, google, 4).check(t, "messages of all", atMost(50_000))
}

// atMost is what a learned rate allows in a second and its slack.
func atMost(every int) Window { return Window{int(micros(sec+slack(sec)))/every + 1, sec} }

func testLearnedOpen(t *testing.T, b backend) {
	f := newFleet(t, b, Limits{Open: 6, Streams: map[string]Share{"auth": {Connections: 2}}})
	b1, _ := f.budget()
	ls := []*Lease{connect(t, b1, "ad"), connect(t, b1, "ad"), connect(t, b1, "ad")}
	learn(t, b1, learnedOpen, 2)
	if err := b1.store.release(t.Context(), []string{ls[0].name}); err != nil { // Redis forgets it
		t.Fatal(err)
	}
	b1.renew(t.Context())
	for _, l := range ls {
		select {
		case <-l.Lost():
			t.Error("a connection that was open was lost to what was learned")
		default:
		}
	}
	refused(t, b1, "auth")
	for _, l := range ls {
		l.Release()
	}
	connect(t, b1, "ad") // what is kept for codes leaves one of two
	refused(t, b1, "ad")
	connect(t, b1, "auth")
	refused(t, b1, "auth")
	if err := b1.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	connect(t, b1, "auth")
}

// A waiter that two stocks could serve is served by one, and the other keeps
// what it has.
func TestServedOnce(t *testing.T) {
	t.Parallel()
	a, b := newStock(1, false), newStock(1, false)
	w := &waiter{got: make(chan served, 2)}
	a.join(w)
	b.join(w)
	for _, s := range []*stock{a, b} {
		s.deliver(time.Now(), only(token{from: time.Now(), until: time.Now().Add(hour)}))
	}
	if got := <-w.got; got.from != a || len(w.got) > 0 {
		t.Errorf("served by the first: %v, and %d times more", got.from == a, len(w.got))
	}
	if _, ok := b.try(time.Now()); !ok {
		t.Error("what the second had is gone")
	}
}

// Waiters in several stocks are served by the first that has something, once;
// what another has for them stays there.
func TestWaitsForSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Open: 1, Groups: map[string][]Window{"naver": {{1, hour}}, "google": {{1, hour}}}}
		b, err := NewMemory(&Memory{}, Params{Owner: "o", Limits: l})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan Class, 2)
		for range 2 {
			go func() {
				if c, err := b.Message(t.Context(), naver, google, naver); err == nil {
					got <- c
				}
			}()
			synctest.Wait()
		}
		now := time.Now()
		one := func() lot { return only(token{from: now, until: now.Add(hour)}) }
		b.supply(google).stock.deliver(now, one())
		if c := <-got; c != google {
			t.Errorf("served %v, want google", c)
		}
		b.supply(google).stock.deliver(now, one()) // nobody but the second waits here now
		if c := <-got; c != google {
			t.Errorf("served %v, want google", c)
		}
		synctest.Wait()
		for _, c := range []Class{naver, google} {
			if n := len(b.supply(c).stock.waiters); n != 0 {
				t.Errorf("%d wait for %v after all were served", n, c)
			}
		}
		b.supply(naver).stock.deliver(now, one())
		if !b.TryMessage(naver) || b.TryMessage(google) {
			t.Error("what nobody waited for is not in its stock")
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Message(ended); err == nil {
			t.Error("a message of no class")
		}
	})
}

// A group that waits for its budget costs the others of its stream nothing, and a
// group within a stream's limit nobody but itself.
func TestGroupsDoNotHinder(t *testing.T) {
	t.Parallel()
	for _, shares := range []map[string]Share{nil, {"ad": {Reserve: []Window{{50, sec}}}}, {"ad": {Messages: []Window{{150, sec}}}}} {
		synctest.Test(t, func(t *testing.T) {
			v := &virtual{t: t, store: &Memory{}, takes: 2 * time.Millisecond, limits: Limits{
				Open: 1, Messages: []Window{{200, sec}}, Streams: shares, Groups: map[string][]Window{"naver": {{20, sec}}},
			}}
			bs := v.fleet(4)
			ctx, cancel := context.WithTimeout(t.Context(), 13*sec)
			defer cancel()
			start := time.Now().Add(sec)
			var few, others *record
			var wg sync.WaitGroup
			wg.Go(func() { few = drainClass(ctx, bs, naver, 4) })
			wg.Go(func() { others = drainClass(ctx, bs, google, 4) })
			wg.Wait()
			few.check(t, "naver", Window{20, sec})
			n, m := few.during(start, 11*sec), others.during(start, 11*sec)
			all := 2000
			if ws := shares["ad"].Messages; ws != nil {
				all = 1500
			}
			if n < 120 || n+m < all*99/100 {
				t.Errorf("%d of the limited group and %d of others, want %d together", n, m, all)
			}
			t.Logf("%d of at most 200, and %d of %d others", n, m, all-n)
		})
	}
}
