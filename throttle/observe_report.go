package throttle

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// Learned is what the fleet has found out about the relay.
type Learned struct {
	Rates         []LearnedRate // the account's first, then the groups' by name
	Open          LearnedCount  // open connections
	PerConnection LearnedCount  // messages on one connection
}

// LearnedRate is a limit of messages in time.
type LearnedRate struct {
	Group string        // whose; "" for the whole account
	Cap   float64       // messages/s that are kept to now; 0: no cap
	Limit float64       // messages/s that the relay seems to take
	Per   time.Duration // over which it seems to count them
	State string        // free, draining, settled, probing, climbing or blocked
	Since time.Time     // of the state
	Told  time.Time     // when the relay last refused for it
	Probe time.Time     // settled: when more is tried next
}

// LearnedCount is a limit of a number.
type LearnedCount struct {
	Cap   int    // that is kept to now; 0: none
	State string // free, settled or probing
	Since time.Time
	Probe time.Time // settled: when more is tried next
}

// Learned reads what the fleet has found out. All is zero when nothing was, or
// after Reset.
func (b *Budget) Learned(ctx context.Context) (Learned, error) {
	var state []byte
	err := b.call(func() (err error) {
		state, err = b.store.recall(ctx)
		return err
	})
	l := newLearner()
	if err == nil && state != nil {
		l, err = readLearner(state)
	}
	if err != nil {
		return Learned{}, fmt.Errorf("read learned limits: %w", err)
	}
	return l.report(), nil
}

func (l *learner) report() Learned {
	r := Learned{Open: reportCount(l.Open.Mode, l.Open.Cap, l.Open.Since, l.Open.Wait)}
	c := l.PerConnection
	r.PerConnection = reportCount(c.Mode, c.Cap, c.Since, c.Wait)
	for _, name := range names(l.Rates) {
		f := l.Rates[name]
		if f.Limit == 0 && f.Mode == free {
			continue
		}
		rate := LearnedRate{
			Group: name, Cap: f.Cap, Limit: f.Limit, Per: time.Duration(spans()[f.Span]) * time.Microsecond,
			State: f.Mode.String(), Since: at(f.Since), Told: at(f.Told),
		}
		if f.Mode == settled {
			rate.Probe = at(f.probeAt())
		}
		r.Rates = append(r.Rates, rate)
	}
	slices.SortFunc(r.Rates, func(a, b LearnedRate) int { return cmp.Compare(a.Group, b.Group) })
	return r
}

func reportCount(m mode, n int, since, wait int64) LearnedCount {
	c := LearnedCount{Cap: n, State: m.String(), Since: at(since)}
	if m == settled {
		c.Probe = at(since + wait)
	}
	return c
}

// at is a time of the store's clock; zero stays zero.
func at(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// fields are the caps as the scripts want them.
func (c caps) fields() map[string]float64 {
	f := map[string]float64{}
	for group, rate := range c.rates {
		name := learnedRate
		if group != "" {
			name += ":" + group
		}
		// Rounded, so that a rate that moves by nothing is not stored again.
		f[name] = math.Round(float64(second)/rate*1000) / 1000
	}
	if c.open > 0 {
		f[learnedOpen] = float64(c.open)
	}
	if c.perConnection > 0 {
		f[learnedPer] = float64(c.perConnection)
	}
	return f
}

// newBounds are what the limits leave to be learned.
func newBounds(p Params) bounds {
	a := p.Adaptive
	ceiling := func(c Class) float64 {
		if every := p.Limits.messagePlan(c).every(); every > 0 {
			return float64(second) / every
		}
		return 0
	}
	return bounds{
		rate:          band{floor: cmp.Or(a.Rate, 1), ceiling: ceiling(Class{})},
		group:         func(name string) float64 { return ceiling(Class{Group: name}) },
		open:          band{floor: float64(cmp.Or(a.Open, 1)), ceiling: float64(p.Limits.Open)},
		perConnection: a.PerConnection,
	}
}
