package throttle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// Params say whose budget it is and who spends it.
type Params struct {
	Prefix   string // of every key
	Account  string // the account at the relay; its keys share the hash tag {b:Account}
	Owner    string // this incarnation of this process; never used twice
	Limits   Limits
	Adaptive Adaptive
	// Login tells a fingerprint of the credentials that a stream logs in with, as
	// they are now; it is shown, so the secret must not follow from it. It is asked
	// before each dial. Nil: no breaker; what comes of dials is not kept.
	Login func(stream string) string
	// LoginName names the login that a stream uses, as whoever the relay sees: streams
	// of the same name share one, and its breaker. It is the name of one of them, the
	// same in every process. Nil: each stream has a login of its own.
	LoginName func(stream string) string
	Log       *slog.Logger // nil: silent
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
	watch   *watch
	running atomic.Bool
	added   chan struct{}                   // poked when a class or stream was first used
	given   chan struct{}                   // poked when a lease was given back or a dial settled
	capped  atomic.Pointer[map[string]bool] // groups with a learned rate; replaced, never changed
	last    atomic.Pointer[latest]

	mu       sync.Mutex // guards what follows
	supplies map[Class]*supply
	lines    map[string]*dials // by stream
	leases   map[string]*Lease // held, by name
	back     []string          // names of leases to give back
	reports  []report          // of dials, not told to the store yet
	recent   []begun           // grants of the last minute, oldest first
	dialled  begun             // the last connection granted
	told     int64             // restart.from of the last restart that dials were charged for
	attempts int               // numbers the leases
	born     int64             // of the store's data, as connect said last
}

// timing is how long leases of connections live, and how long a relay that does
// not answer is left alone. Tests shorten it.
type timing struct {
	lapse time.Duration // from the renewal, on the store's clock
	lost  time.Duration // from before the renewal was asked for, on our own
	renew time.Duration
	dial  time.Duration // a dial that is not renewed counts as under way for so long
	first time.Duration // pause before the first probe; each following one is half longer,
	most  time.Duration // up to here
}

func newTiming() timing {
	return timing{
		lapse: time.Minute, lost: 7 * time.Second, renew: time.Second,
		dial: 10 * time.Second, first: time.Second, most: time.Minute,
	}
}

// begun is a grant that a store which loses its newest data may forget.
type begun struct {
	at   time.Time
	now  int64 // on the store's clock
	n    int
	plan *plan
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
	if err := errors.Join(p.Limits.Validate(), p.Adaptive.Validate()); err != nil {
		return nil, err
	}
	if err := checkName("budget owner", p.Owner); err != nil {
		return nil, err
	}
	b := &Budget{
		store:   s,
		p:       p,
		log:     p.Log,
		timing:  newTiming(),
		opening: p.Limits.connectPlan(""),
		added:   make(chan struct{}, 1),
		given:   make(chan struct{}, 1),
		leases:  map[string]*Lease{},

		supplies: map[Class]*supply{},
		lines:    map[string]*dials{},
	}
	if p.Adaptive.Off {
		b.store = plainly{s}
	}
	b.watch = newWatch(p)
	b.capped.Store(&map[string]bool{})
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.outage.log = b.log
	b.ceiling = newCeiling(p.Limits.messagePlan(Class{}))
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

// TryMessage tells whether one message of the class may begin now, and counts
// it. It never blocks and never calls Redis: it spends what Run has leased, and
// a refusal makes Run lease more. The message must begin at once.
func (b *Budget) TryMessage(c Class) bool {
	now := time.Now()
	s := b.supply(c).stock
	t, ok := s.try(now)
	return ok && b.begin(s, t, now)
}

// Message waits until one message of one of the classes may begin, counts it and
// returns which class it is. The only error is that ctx has ended; without a
// class it waits for that.
func (b *Budget) Message(ctx context.Context, classes ...Class) (Class, error) {
	stocks, named := b.stocks(classes)
	for {
		t, err := waitAny(ctx, stocks)
		if err != nil {
			return Class{}, fmt.Errorf("wait for message budget: %w", err)
		}
		now, err := sleepUntil(ctx, t.token.from)
		if err != nil {
			t.from.restore(t.token)
			return Class{}, fmt.Errorf("wait for message budget: %w", err)
		}
		if b.begin(t.from, t.token, now) {
			return named[slices.Index(stocks, t.from)], nil
		}
	}
}

// stocks returns the stocks of classes, each once, and the first of the classes
// that comes out of each.
func (b *Budget) stocks(classes []Class) (stocks []*stock, named []Class) {
	for _, c := range classes {
		if s := b.supply(c).stock; !slices.Contains(stocks, s) {
			stocks, named = append(stocks, s), append(named, c)
		}
	}
	return stocks, named
}

// Wait tells how long it takes at least, as far as is known, until the class has
// budget again; 0 stands for less than a second. Somebody must have asked for a
// message of it shortly before.
func (b *Budget) Wait(c Class) time.Duration {
	if d := b.supply(c).stock.dryFor(time.Now()); d >= time.Second {
		return d
	}
	return 0
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

// Reset forgets what was learned of the relay, for the whole fleet: breakers,
// refused logins, learned limits.
func (b *Budget) Reset(ctx context.Context) error {
	if err := b.call(func() error { return b.store.reset(ctx) }); err != nil {
		return fmt.Errorf("reset budget: %w", err)
	}
	return nil
}

// Forgive lets the credentials that the stream uses now be tried again, should they
// have been refused: the operator says that they are right.
func (b *Budget) Forgive(ctx context.Context, stream string) error {
	if b.p.Login == nil {
		return nil
	}
	if err := b.call(func() error { return b.store.forgive(ctx, stream, b.credentials(stream)) }); err != nil {
		return fmt.Errorf("forgive refused login: %w", err)
	}
	return nil
}

// call runs one call to the store and keeps count of it and of outages.
func (b *Budget) call(f func() error) error {
	b.stats.calls.Add(1)
	asked := time.Now()
	err := f()
	switch {
	case err == nil:
		b.outage.over()
	case !errors.Is(err, context.Canceled):
		b.stats.failed.Add(1)
		b.outage.begin(asked, err)
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
