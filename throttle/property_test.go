package throttle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// rehearsal is a fleet in virtual time, and what its relay sees.
type rehearsal struct {
	t      *testing.T
	limits Limits
	store  *Memory
	down   atomic.Bool  // the store
	ran    atomic.Int64 // how many times it has restarted
	away   atomic.Bool  // the relay

	mu       sync.Mutex // guards what follows
	rand     *rand.Rand
	owners   int
	messages map[Class]*record
	dials    record
	byStream map[string]*record // dials
	learned  []lesson
	lost     []stretch // that the store has forgotten
	open     int
	worst    int
	login    func(stream string) string
	dialling map[string]int // dials under way, by login
	crowd    int            // the most of them of one login
}

// lesson is a rate that held from a time on; 0: none.
type lesson struct {
	at    time.Time
	every float64
}

func (r *rehearsal) rng(n int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rand.Int64N(max(n, 1))
}

func (r *rehearsal) between(a, b time.Duration) time.Duration {
	return a + time.Duration(r.rng(int64(b-a)))
}

// budget returns the budget of a new process.
func (r *rehearsal) budget() (*Budget, *unreliable) {
	r.mu.Lock()
	r.owners++
	owner := fmt.Sprintf("w%d", r.owners)
	r.mu.Unlock()
	u := &unreliable{
		store: r.store, ran: &r.ran, knows: r.ran.Load(), rng: r.rng, down: &r.down, slow: r.between(0, 4*time.Millisecond),
		offset: r.between(-5*time.Minute, 5*time.Minute),
	}
	b, err := newBudget(u, Params{Owner: owner, Limits: r.limits, Login: func(string) string { return "f" }, LoginName: r.login})
	if err != nil {
		r.t.Fatal(err)
	}
	return b, u
}

// worker lives for a while, drains with some goroutines, and dies one way or
// the other; whoever replaces it begins at once. The dead are found out later, or
// never.
func (r *rehearsal) worker(ctx context.Context) {
	for ctx.Err() == nil {
		b, u := r.budget()
		life, cancel := context.WithTimeout(ctx, r.between(sec, 20*sec))
		var run, work sync.WaitGroup
		runs, end := context.WithCancel(context.WithoutCancel(ctx))
		run.Go(func() { _ = b.Run(runs) })
		run.Go(func() { r.reminding(runs, b, u) })
		for i := range 5 {
			work.Go(func() { r.connection(life, b, []string{"auth", "normal", "ad", "ad", "ad"}[i], &u.killed) })
		}
		<-life.Done()
		if r.rng(3) > 0 {
			u.killed.Store(true) // else it stops in order
		}
		work.Wait()
		end()
		run.Wait()
		cancel()
		if u.killed.Load() && r.rng(4) > 0 {
			nap(ctx, 4*sec)
			_, _ = r.store.releaseOwner(ctx, b.p.Owner)
		}
	}
}

// connection opens, sends, pauses and closes, again and again.
func (r *rehearsal) connection(ctx context.Context, b *Budget, stream string, killed *atomic.Bool) {
	for {
		l, err := b.Connect(ctx, stream)
		if err != nil {
			return
		}
		r.dials.add(time.Now().Add(r.between(0, minJitter)))
		r.byStream[stream].add(time.Now().Add(minJitter / 2))
		r.count(1)
		r.dial(r.login(stream), 1)
		nap(ctx, r.between(0, 200*time.Millisecond))
		r.dial(r.login(stream), -1)
		switch {
		case r.away.Load():
			l.Refused(Refusal{Why: "421"})
		case r.rng(20) > 0: // else nobody says what came of it
			l.Greeted()
			fallthrough
		default:
			r.session(ctx, b, stream, l)
		}
		r.count(-1)
		if !killed.Load() {
			l.Release()
		}
	}
}

func (r *rehearsal) count(d int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += d
	r.worst = max(r.worst, r.open)
}

func (r *rehearsal) dial(login string, d int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dialling[login] += d
	r.crowd = max(r.crowd, r.dialling[login])
}

// classes draws what a connection has to send next.
func (r *rehearsal) classes(stream string) []Class {
	c := Class{Stream: stream, Group: []string{"", "naver", "google"}[r.rng(3)]}
	if stream == "normal" {
		c.Sender = "new.example"
	}
	if r.rng(3) > 0 {
		return []Class{c}
	}
	other := c
	other.Group = "kakao"
	return []Class{c, other}
}

func (r *rehearsal) session(ctx context.Context, b *Budget, stream string, l *Lease) {
	life, cancel := context.WithTimeout(ctx, r.between(0, 30*sec))
	defer cancel()
	for {
		select {
		case <-l.Lost():
			nap(ctx, r.between(0, 2*sec)) // closing may take a moment, if the process lives
			return
		default:
		}
		cs := r.classes(stream)
		c := cs[0]
		if !b.TryMessage(c) {
			short, cancel := context.WithTimeout(life, sec) // looks at Lost in between
			var err error
			c, err = b.Message(short, cs...)
			cancel()
			if life.Err() != nil && err != nil {
				return
			}
			if err != nil {
				continue
			}
		}
		r.note(c)
		nap(life, r.between(0, 20*time.Millisecond))
		if r.rng(200) == 0 {
			nap(life, r.between(0, 3*sec)) // a slow answer
		}
	}
}

func (r *rehearsal) note(c Class) {
	at := time.Now().Add(r.between(0, minJitter))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.messages[c] == nil {
		r.messages[c] = &record{}
	}
	r.messages[c].add(at)
}

// outages take the store or the relay away from everyone now and then.
func (r *rehearsal) outages(ctx context.Context, what *atomic.Bool) {
	for ctx.Err() == nil {
		nap(ctx, r.between(5*sec, 40*sec))
		what.Store(true)
		nap(ctx, r.between(0, 12*sec))
		what.Store(false)
	}
}

// lessons change what was learned of the relay.
func (r *rehearsal) lessons(ctx context.Context) {
	for ctx.Err() == nil {
		every := float64(0)
		if r.rng(4) > 0 {
			every = float64(r.between(4*time.Millisecond, 60*time.Millisecond)) / 1e3
		}
		r.store.learn(learnedRate, every)
		r.mu.Lock()
		r.learned = append(r.learned, lesson{time.Now(), every})
		r.mu.Unlock()
		r.store.learn(learnedRate+":google", float64(r.rng(100_000)))
		r.store.learn(learnedOpen, float64(r.rng(12)))
		nap(ctx, r.between(2*sec, 20*sec))
	}
	_ = r.store.reset(ctx)
}

// seen is what the relay saw of some classes.
func (r *rehearsal) seen(of func(Class) bool) *record {
	all := &record{}
	for c, one := range r.messages {
		if of(c) {
			all.at = append(all.at, one.at...)
		}
	}
	return all
}

// checkLearned sees that no rate was exceeded from 200 ms after it was learned
// until the next.
func (r *rehearsal) checkLearned(all *record) {
	for i, l := range r.learned[:max(0, len(r.learned)-1)] {
		if l.every == 0 {
			continue
		}
		during := &record{}
		for _, at := range all.at {
			if at.After(l.at.Add(200*time.Millisecond)) && at.Before(r.learned[i+1].at) {
				during.add(at)
			}
		}
		during.check(r.t, fmt.Sprintf("learned %.0f µs", l.every), atMost(int(l.every)))
	}
}

// checkNothingLost sees that whoever comes after all have died, and after their
// leases have lapsed, has the whole budget.
func (r *rehearsal) checkNothingLost() {
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	r.down.Store(false)
	r.away.Store(false)
	b, err := NewMemory(r.store, Params{Owner: "last", Limits: r.limits, Login: func(string) string { return "f" }, LoginName: r.login})
	if err != nil {
		r.t.Fatal(err)
	}
	stop := run(r.t, b)
	defer stop()
	for _, stream := range []string{"auth", "ad"} {
		connect(r.t, b, stream).Release() // what a restart may have lost is charged when it is noticed
	}
	nap(ctx, 2*time.Minute+10*sec)
	if u, err := r.store.usage(ctx, nil); err != nil || len(u.leases) > 0 {
		r.t.Errorf("%d leases (%v) are left of the dead", len(u.leases), err)
	}
	soon, end := context.WithTimeout(ctx, 30*sec)
	defer end()
	for i := range r.limits.Open {
		stream := "ad"
		if i < 2 {
			stream = "auth"
		} else if i == 2 {
			stream = "normal"
		}
		l, err := b.Connect(soon, stream)
		if err != nil {
			r.t.Errorf("connection %d of %d: %v", i+1, r.limits.Open, err)
			return
		}
		l.Greeted()
	}
	w := r.limits.Messages[0]
	some, end := context.WithTimeout(ctx, 11*(w.Per+slack(w.Per)))
	defer end()
	start := time.Now().Add(w.Per + slack(w.Per))
	got := drainClass(some, []*Budget{b}, Class{Stream: "auth"}, 8).during(start, 10*(w.Per+slack(w.Per)))
	if want := min(10*w.N, 8*10*r.limits.Messages[1].N/100); got < want*99/100 {
		r.t.Errorf("%d messages afterwards, want %d", got, want)
	}
}

// TestNoWindowAboveTheLimit runs fleets whose workers are killed and replaced,
// whose store is slow and goes away, whose relay goes away, and whose limits are
// learned and forgotten; and looks at every window as the relay saw it, up to the
// jitter of the way later than each message was begun.
func TestNoWindowAboveTheLimit(t *testing.T) {
	t.Parallel()
	for seed := range 4 * seeds() { // four seeds have every kind of outage
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { rehearse(t, seed) })
		})
	}
}

func rehearse(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	n := 20 + rng.IntN(100)
	offset := time.Duration(rng.Int64N(int64(10*time.Minute))) - 5*time.Minute
	r := &rehearsal{t: t, rand: rng, messages: map[Class]*record{}, dialling: map[string]int{}, byStream: map[string]*record{"auth": {}, "normal": {}, "ad": {}}}
	r.store = &Memory{now: func() time.Time { return time.Now().Add(offset) }}
	r.limits = Limits{
		Open:     6 + rng.IntN(10),
		New:      []Window{{4 + rng.IntN(4), 2 * sec}, {30 + rng.IntN(30), time.Minute}},
		Messages: []Window{{n, sec}, {8 * n, 10 * sec}, {70 * n, 2 * time.Minute}},
		Streams: map[string]Share{
			"auth":   {Reserve: []Window{{4, sec}, {200, 2 * time.Minute}}, Connections: 2},
			"normal": {Reserve: []Window{{2, sec}, {100, 2 * time.Minute}}, Connections: 1},
			"ad":     {Messages: []Window{{n * 3 / 4, sec}, {50 * n, 2 * time.Minute}}, New: []Window{{20, time.Minute}}},
		},
		Groups: map[string][]Window{"naver": {{n / 4, sec}, {15 * n, 2 * time.Minute}}},
		WarmUp: map[string]Ramp{"new.example": {400, 1, 400}},
	}
	r.login = oneLogin
	if seed%2 == 1 {
		r.login = func(stream string) string { return stream }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 1 + rng.IntN(6) {
		wg.Go(func() { r.worker(ctx) })
	}
	if seed%2 == 0 {
		wg.Go(func() { r.outages(ctx, &r.down) })
	}
	if seed%4 == 1 {
		r.store.run = "run0"
		wg.Go(func() { r.restarts(ctx) })
	}
	if seed%3 == 0 {
		wg.Go(func() { r.outages(ctx, &r.away) })
	}
	if seed%4 > 1 {
		wg.Go(func() { r.lessons(ctx) })
	}
	wg.Wait()
	r.check()
	r.checkNothingLost()
}

func (r *rehearsal) check() {
	t := r.t
	all := r.seen(func(Class) bool { return true })
	r.checkCounted(all, "messages", r.limits.Messages)
	ads := r.seen(func(c Class) bool { return c.Stream == "ad" })
	r.checkCounted(ads, "ads", r.limits.Streams["ad"].Messages)
	few := r.seen(func(c Class) bool { return c.Group == "naver" })
	r.checkCounted(few, "naver", r.limits.Groups["naver"])
	fresh := r.seen(func(c Class) bool { return c.Sender != "" })
	r.checkCounted(fresh, "warm-up", []Window{r.limits.WarmUp["new.example"].window()})
	r.checkLearned(all)
	r.dials.check(t, "connections", r.limits.New...)
	r.byStream["ad"].check(t, "connections for ads", r.limits.Streams["ad"].New...)
	if r.worst > r.limits.Open {
		t.Errorf("%d connections open, limit %d", r.worst, r.limits.Open)
	}
	if r.crowd > mostUngreeted {
		t.Errorf("%d dials of a login at once, want up to %d", r.crowd, mostUngreeted)
	}
	if all.len() == 0 || r.dials.len() == 0 || few.len() == 0 || fresh.len() == 0 {
		t.Error("nothing was sent")
	}
	var worst []string
	for _, w := range r.limits.Messages {
		worst = append(worst, fmt.Sprintf("%d/%d", all.worst(w.Per), w.N))
	}
	t.Logf("%d messages, %d ads, %d to naver, %d of the new sender; worst windows %v; %d dials; %d of %d open",
		all.len(), ads.len(), few.len(), fresh.len(), worst, r.dials.len(), r.worst, r.limits.Open)
}
