package throttle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// Params say whose budget it is and who spends it.
type Params struct {
	Prefix  string // of every key
	Account string // the account at the relay; its keys share the hash tag {b:Account}
	Owner   string // this incarnation of this process; never used twice
	Limits  Limits
	Log     *slog.Logger // nil: silent
}

// Budget is one process's access to its fleet's limits. All methods may be
// called at the same time. Nothing is ever granted unless Run is running.
type Budget struct {
	store   store
	p       Params
	log     *slog.Logger
	timing  timing
	ceiling *rate.Limiter // nil: no message window is kept by slots
	opening *plan         // limits of open connections, for renewals
	stats   counts
	outage  outage
	running atomic.Bool
	added   chan struct{} // poked when a stream was first used
	given   chan struct{} // poked when a lease was given back

	mu       sync.Mutex // guards what follows
	streams  map[string]*stream
	leases   map[string]*Lease // held, by name
	back     []string          // names of leases to give back
	recent   []begun           // grants of the last minute, oldest first
	attempts int               // numbers the leases
}

// timing is how long leases of connections live. Tests shorten it.
type timing struct {
	lapse time.Duration // from the renewal, on the store's clock
	lost  time.Duration // from before the renewal was asked for, on our own
	renew time.Duration
}

// stream is what one stream has leased and who waits for more.
type stream struct {
	messages, connects *plan
	stock              *stock
	dials              *dials
}

// begun is a grant that a store which loses its newest data may forget.
type begun struct {
	at   time.Time
	n    int
	dial bool
}

// NewRedis returns the budget of a fleet that meets in Redis. The client should
// have ContextTimeoutEnabled, so that a call ends when its context does.
func NewRedis(c redis.UniversalClient, p Params) (*Budget, error) {
	for _, part := range []struct{ name, text string }{{"key prefix", p.Prefix}, {"account", p.Account}} {
		if part.text == "" || strings.ContainsAny(part.text, "{}\r\n\x00 ") {
			return nil, fmt.Errorf("budget %s %q: want a name without braces, spaces and line ends", part.name, part.text)
		}
	}
	return newBudget(newRedisStore(c, p.Prefix, p.Account), p)
}

// NewMemory returns the budget of a fleet inside this process: all budgets on
// the same m. Prefix and Account are not used.
func NewMemory(m *Memory, p Params) (*Budget, error) { return newBudget(m, p) }

func newBudget(s store, p Params) (*Budget, error) {
	if err := p.Limits.Validate(); err != nil {
		return nil, err
	}
	if err := checkName("budget owner", p.Owner); err != nil {
		return nil, err
	}
	b := &Budget{
		store:   s,
		p:       p,
		log:     p.Log,
		timing:  timing{lapse: 10 * time.Second, lost: 7 * time.Second, renew: time.Second},
		opening: p.Limits.connectPlan(""),
		added:   make(chan struct{}, 1),
		given:   make(chan struct{}, 1),
		streams: map[string]*stream{},
		leases:  map[string]*Lease{},
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.outage.log = b.log
	b.ceiling = newCeiling(p.Limits.messagePlan(""))
	return b, nil
}

// newCeiling returns the rate that this process alone never exceeds, whatever
// the store says. Correct leases never meet it: it is what is left of the limit
// if Redis forgets it.
func newCeiling(p *plan) *rate.Limiter {
	var ceiling *rate.Limiter
	for _, s := range p.slots {
		perSecond := rate.Limit(1e6 / s.every)
		if ceiling == nil || perSecond < ceiling.Limit() {
			burst := int(math.Ceil(float64(s.late+micros(life))/s.every)) + 1
			ceiling = rate.NewLimiter(perSecond, burst)
		}
	}
	return ceiling
}

// TryMessage tells whether one message of the stream may begin now, and counts
// it. It never blocks and never calls Redis: it spends what Run has leased, and
// a refusal makes Run lease more. The message must begin at once.
func (b *Budget) TryMessage(stream string) bool {
	now := time.Now()
	s := b.stream(stream).stock
	t, ok := s.try(now)
	return ok && b.begin(s, t, now)
}

// Message waits until one message of the stream may begin, and counts it. The
// only error is that ctx has ended.
func (b *Budget) Message(ctx context.Context, stream string) error {
	s := b.stream(stream).stock
	for {
		t, err := s.wait(ctx)
		if err != nil {
			return fmt.Errorf("wait for message budget: %w", err)
		}
		now, err := sleepUntil(ctx, t.from)
		if err != nil {
			s.restore(t)
			return fmt.Errorf("wait for message budget: %w", err)
		}
		if b.begin(s, t, now) {
			return nil
		}
	}
}

// begin spends a token, unless it has lapsed while its owner slept or the
// process has reached its ceiling: such a token came from a store that has
// forgotten what it granted, and is dropped.
func (b *Budget) begin(s *stock, t token, now time.Time) bool {
	if now.After(t.until) {
		s.lapsed(t)
		return false
	}
	if b.ceiling != nil && !b.ceiling.AllowN(now, 1) {
		b.stats.capped.Add(1)
		return false
	}
	b.stats.begun.Add(1)
	return true
}

// stream returns the stream's stock, making it on first use.
func (b *Budget) stream(name string) *stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[name]
	if s == nil {
		messages := b.p.Limits.messagePlan(name)
		s = &stream{
			messages: messages,
			connects: b.p.Limits.connectPlan(name),
			stock:    newStock(messages.chunk(), messages.returns()),
			dials:    newDials(),
		}
		b.streams[name] = s
		poke(b.added)
	}
	return s
}

// AssumeFull tells the store what it may have forgotten, for the case that it
// came back with older data: windows of new connections up to a minute count as
// used up, so none is opened for that long; longer windows are charged what
// this process was granted in the last minute; no slot is taken before all that
// were given out have passed. Every process that outlived the store calls it.
func (b *Budget) AssumeFull(ctx context.Context) error {
	messages, dials := b.lastMinute(time.Now())
	var timelines []string
	plan := b.p.Limits.messagePlan("")
	for _, s := range plan.slots {
		timelines = append(timelines, s.name)
	}
	var cs []charge
	for _, bd := range plan.bounds {
		cs = append(cs, charge{counter: plan.counters[bd.counter], n: messages})
	}
	for _, bd := range b.opening.bounds {
		c := charge{counter: b.opening.counters[bd.counter], n: dials}
		if c.grain*buckets <= micros(time.Minute) {
			c.n, c.fill = bd.n, true
		}
		cs = append(cs, c)
	}
	if err := b.call(func() error { return b.store.charge(ctx, timelines, cs) }); err != nil {
		return fmt.Errorf("mark budget as used: %w", err)
	}
	return nil
}

// remember keeps a grant for a minute.
func (b *Budget) remember(g begun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := 0
	for old < len(b.recent) && g.at.Sub(b.recent[old].at) > time.Minute {
		old++
	}
	b.recent = append(b.recent[old:], g)
}

func (b *Budget) lastMinute(now time.Time) (messages, dials int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.recent {
		switch {
		case now.Sub(g.at) > time.Minute:
		case g.dial:
			dials += g.n
		default:
			messages += g.n
		}
	}
	return messages, dials
}

// ReleaseOwner gives back the connection leases of another owner that is known
// to be dead, and returns how many there were.
func (b *Budget) ReleaseOwner(ctx context.Context, owner string) (n int, err error) {
	if err := checkName("budget owner", owner); err != nil {
		return 0, err
	}
	err = b.call(func() error {
		n, err = b.store.releaseOwner(ctx, owner)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("release leases of %s: %w", owner, err)
	}
	return n, nil
}

// call runs one call to the store and keeps count of it and of outages.
func (b *Budget) call(f func() error) error {
	b.stats.calls.Add(1)
	err := f()
	switch {
	case err == nil:
		b.outage.over()
	case !errors.Is(err, context.Canceled):
		b.stats.failed.Add(1)
		b.outage.begin(err)
	}
	return err
}

// poke wakes the one goroutine that listens on c.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleepUntil waits for a time and returns when it woke up.
func sleepUntil(ctx context.Context, at time.Time) (time.Time, error) {
	now := time.Now()
	if !at.After(now) {
		return now, ctx.Err()
	}
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return time.Now(), nil
	case <-ctx.Done():
		return now, ctx.Err()
	}
}
