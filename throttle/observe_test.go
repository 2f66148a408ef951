package throttle

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestObserving is what every place where a fleet meets must do for learning.
func TestObserving(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		run  func(t *testing.T, f *fleet)
	}{
		{"one leads and gets what all saw", testLeader},
		{"the next goes on when the leader is silent", testNextLeader},
		{"a leader that was frozen does no harm", testFrozenLeader},
		{"limits are set and taken back", testAdopted},
		{"reset forgets all, the leader's memory too", testForgotten},
		{"dials under way are not open", testOpenSeen},
		{"an account's limits are found by the fleet", testFleetLearns},
	}
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			for _, tt := range cases {
				t.Run(tt.name, func(t *testing.T) {
					t.Parallel()
					tt.run(t, newFleet(t, b, Limits{Open: 9, Messages: []Window{{1000, sec}}, Groups: map[string][]Window{"naver": {{500, sec}}}}))
				})
			}
		})
	}
}

const longLead = time.Hour

func see(t *testing.T, b *Budget, lead time.Duration, counts map[string]int) view {
	t.Helper()
	v, err := b.store.observe(t.Context(), b.p.Owner, lead, counts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func adopt(t *testing.T, b *Budget, epoch int64, state string, limits map[string]float64) bool {
	t.Helper()
	ok, err := b.store.adopt(t.Context(), epoch, []byte(state), limits)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// limits reads what the scripts would obey.
func limitsOf(t *testing.T, b *Budget) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	switch s := b.store.(type) {
	case *Memory:
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.Copy(got, s.caps)
		delete(got, learnedLead)
	case *redisStore:
		all, err := s.c.HGetAll(t.Context(), s.base+"state").Result()
		if err != nil {
			t.Fatal(err)
		}
		for field, text := range all {
			var x float64
			if field[:2] != "k:" || field == learnedLead {
				continue
			}
			if _, err := fmt.Sscan(text, &x); err != nil {
				t.Fatal(err)
			}
			got[field] = x
		}
	}
	return got
}

func testLeader(t *testing.T, f *fleet) {
	a, b, c := f.idle(), f.idle(), f.idle()
	first := see(t, a, longLead, map[string]int{"p": 3, "t:naver": 1})
	if first.epoch == 0 || first.state != nil {
		t.Fatalf("%+v; want the first to lead, with nothing learned", first)
	}
	want := map[string]int{"p": 3, "t:naver": 1}
	if diff := cmp.Diff(want, first.counts); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	for _, other := range []*Budget{b, c} {
		if v := see(t, other, longLead, map[string]int{"p": 10, "e:50": 2}); v.epoch != 0 || len(v.counts) != 0 {
			t.Errorf("%+v; want another to lead", v)
		}
	}
	second := see(t, a, longLead, map[string]int{"p": 1})
	want = map[string]int{"p": 21, "e:50": 4}
	if diff := cmp.Diff(want, second.counts); diff != "" || second.epoch != first.epoch {
		t.Errorf("epoch %d, then %d; want (-), got (+):\n%s", first.epoch, second.epoch, diff)
	}
	if third := see(t, a, longLead, nil); len(third.counts) != 0 {
		t.Errorf("%v seen twice", third.counts)
	}
	if second.now < first.now {
		t.Errorf("time ran from %d to %d", first.now, second.now)
	}
}

func testNextLeader(t *testing.T, f *fleet) {
	a, b := f.idle(), f.idle()
	v := see(t, a, time.Microsecond, nil)
	if !adopt(t, a, v.epoch, `{"version":1}`, nil) {
		t.Fatal("the leader's state was not stored")
	}
	eventually(t, "another leads", func() bool {
		v = see(t, b, longLead, map[string]int{"p": 1})
		return v.epoch != 0
	})
	if string(v.state) != `{"version":1}` {
		t.Errorf("the next begins with %q", v.state)
	}
	if again := see(t, b, longLead, nil); again.state != nil {
		t.Errorf("state %q is read again in one leadership", again.state)
	}
}

func testFrozenLeader(t *testing.T, f *fleet) {
	a, b := f.idle(), f.idle()
	frozen := see(t, a, time.Microsecond, map[string]int{"p": 5})
	var v view
	eventually(t, "another leads", func() bool {
		v = see(t, b, longLead, nil)
		return v.epoch != 0
	})
	if !adopt(t, b, v.epoch, "b", map[string]float64{learnedRate: 1000}) {
		t.Error("the leader's state was not stored")
	}
	if adopt(t, a, frozen.epoch, "a", map[string]float64{learnedRate: 1}) {
		t.Error("what a former leader wants was stored")
	}
	if got := limitsOf(t, a); !cmp.Equal(got, map[string]float64{learnedRate: 1000}) {
		t.Errorf("limits %v", got)
	}
	if state, err := a.store.recall(t.Context()); err != nil || string(state) != "b" {
		t.Errorf("state %q, %v", state, err)
	}
}

func testAdopted(t *testing.T, f *fleet) {
	a, b := f.idle(), f.idle()
	v := see(t, a, longLead, nil)
	all := map[string]float64{learnedRate: 1052.632, learnedRate + ":naver": 20000, learnedOpen: 5, learnedPer: 50}
	if !adopt(t, a, v.epoch, "1", all) {
		t.Fatal("the leader's state was not stored")
	}
	if diff := cmp.Diff(all, limitsOf(t, a)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if v := see(t, b, longLead, nil); v.perConnection != 50 {
		t.Errorf("%d messages a connection, want 50", v.perConnection)
	}
	fewer := map[string]float64{learnedRate + ":naver": 30000}
	if !adopt(t, a, v.epoch, "2", fewer) {
		t.Fatal("the leader's state was not stored")
	}
	if diff := cmp.Diff(fewer, limitsOf(t, a)); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if v := see(t, b, longLead, nil); v.perConnection != 0 {
		t.Errorf("%d messages a connection, want any number", v.perConnection)
	}
}

func testForgotten(t *testing.T, f *fleet) {
	a, b := f.idle(), f.idle()
	v := see(t, a, longLead, nil)
	adopt(t, a, v.epoch, `{"version":1,"open":{"mode":2,"cap":3}}`, map[string]float64{learnedRate: 1000, learnedOpen: 3})
	if l, err := b.Learned(t.Context()); err != nil || l.Open.Cap != 3 {
		t.Fatalf("learned %+v, %v", l, err)
	}
	if err := b.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := limitsOf(t, a); len(got) != 0 {
		t.Errorf("limits %v after a reset", got)
	}
	if l, err := b.Learned(t.Context()); err != nil || l.Open.Cap != 0 || len(l.Rates) != 0 {
		t.Errorf("learned %+v, %v after a reset", l, err)
	}
	if adopt(t, a, v.epoch, "old", map[string]float64{learnedRate: 1000}) {
		t.Error("what was learned before the reset came back")
	}
	after := see(t, a, longLead, nil)
	if after.epoch == 0 || after.epoch == v.epoch || after.state != nil {
		t.Errorf("%+v; want a new leadership with nothing learned", after)
	}
}

func testOpenSeen(t *testing.T, f *fleet) {
	a := f.idle()
	a.p.Login = func(string) string { return "login" }
	run(t, a)
	l1, l2 := connect(t, a, "ad"), connect(t, a, "ad")
	l3 := connect(t, a, "auth")
	b := f.idle()
	open := func() int { return see(t, b, longLead, nil).open }
	eventually(t, "b leads", func() bool { return see(t, b, longLead, nil).epoch != 0 })
	if n := open(); n != 0 {
		t.Errorf("%d open while all are dialled", n)
	}
	l1.Greeted()
	l3.Greeted()
	eventually(t, "two are open", func() bool { return open() == 2 })
	l2.Refused(Refusal{Why: "421 too many"})
	l2.Release()
	eventually(t, "two are open still", func() bool { return open() == 2 })
}

// testFleetLearns has processes meet throttle replies, and sees that all of them
// keep to what follows.
func testFleetLearns(t *testing.T, f *fleet) {
	bs := make([]*Budget, 3)
	for i := range bs {
		bs[i], _ = f.budget()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { // noted at the pace of a relay that takes 40/s of 100/s
		defer close(done)
		for i := 0; ; i++ {
			kind := Accepted
			if i%5 > 1 {
				kind = Throttled
			}
			bs[i%3].Note(Event{Kind: kind, Class: Class{Group: "naver"}})
			bs[i%3].Note(Event{Kind: Ended, N: 50})
			if _, err := sleepUntil(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
				return
			}
		}
	}()
	var l Learned
	eventually(t, "the fleet has learned", func() bool {
		var err error
		if l, err = bs[1].Learned(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(l.Rates) == 1 && l.Rates[0].Cap > 0 && l.PerConnection.Cap == 50
	})
	for _, b := range bs {
		eventually(t, "each process knows", func() bool { return b.PerConnection() == 50 })
	}
	cancel()
	<-done
	got := l.Rates[0]
	if got.Group != "" || got.Cap > 100 || got.Cap < 1 || got.Told.IsZero() || got.Since.IsZero() {
		t.Errorf("learned %+v", got)
	}
	if limits := limitsOf(t, bs[0]); limits[learnedRate] < 1e4 || limits[learnedRate] > 1e6 {
		t.Errorf("limits %v", limits)
	}
}
