package throttle

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/lib.lua
var libLua string

//go:embed lua/messages.lua
var messagesLua string

//go:embed lua/connect.lua
var connectLua string

//go:embed lua/renew.lua
var renewLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/charge.lua
var chargeLua string

//go:embed lua/usage.lua
var usageLua string

// redisStore is the store of a real fleet: one script a step, on Redis's clock,
// all keys under the account's hash tag.
type redisStore struct {
	c    redis.UniversalClient
	base string // prefix:{b:ACCOUNT}:

	messagesScript, connectScript, renewScript, releaseScript, chargeScript, usageScript *redis.Script
}

func newRedisStore(c redis.UniversalClient, prefix, account string) *redisStore {
	script := func(body string) *redis.Script { return redis.NewScript(libLua + body) }
	return &redisStore{
		c:              c,
		base:           fmt.Sprintf("%s:{b:%s}:", prefix, account),
		messagesScript: script(messagesLua),
		connectScript:  script(connectLua),
		renewScript:    script(renewLua),
		releaseScript:  script(releaseLua),
		chargeScript:   script(chargeLua),
		usageScript:    script(usageLua),
	}
}

// call collects a script's keys and arguments in the order lib.lua reads them.
type call struct {
	keys []string
	argv []any
}

func (s *redisStore) call() *call {
	return &call{keys: []string{s.base + "state", s.base + "open"}}
}

func (c *call) add(args ...any) { c.argv = append(c.argv, args...) }

func (c *call) counters(base string, cs []counter) {
	c.add(len(cs))
	for _, k := range cs {
		c.keys = append(c.keys, base+"n:"+k.name)
		charge := 0
		if k.charge {
			charge = 1
		}
		c.add(k.name, k.grain, k.span, charge)
	}
}

func (c *call) held(hs []held) {
	c.add(len(hs))
	for _, h := range hs {
		c.add(h.counter+1, h.n)
	}
}

func (c *call) bounds(bs []bound) {
	c.add(len(bs))
	for _, b := range bs {
		c.add(b.counter+1, b.n)
		c.held(b.held)
	}
}

func (c *call) openings(p *plan) {
	c.add(p.open, len(p.shares))
	for _, s := range p.shares {
		c.add(s.stream, s.n)
	}
}

func (c *call) run(ctx context.Context, s *redisStore, script *redis.Script) *redis.Cmd {
	return script.Run(ctx, s.c, c.keys, c.argv...)
}

// grant runs a script that answers with a grant.
func (c *call) grant(ctx context.Context, s *redisStore, script *redis.Script) (grant, error) {
	r, err := c.run(ctx, s, script).Int64Slice()
	if err != nil {
		return grant{}, err
	}
	if len(r) != 4 {
		return grant{}, fmt.Errorf("budget script answered %d numbers, want 4", len(r))
	}
	return grant{n: int(r[0]), delay: r[1], retry: r[2], now: r[3]}, nil
}

func (s *redisStore) messages(ctx context.Context, p *plan, n int, back []unused) (grant, error) {
	c := s.call()
	c.add(n, micros(aheadWithin), p.ahead, len(back))
	for _, u := range back {
		c.add(u.at, u.n)
	}
	c.counters(s.base, p.counters)
	c.bounds(p.bounds)
	c.held(p.own)
	c.add(len(p.slots))
	for _, w := range p.slots {
		c.add(w.name, strconv.FormatFloat(w.every, 'g', -1, 64), w.late)
	}
	return c.grant(ctx, s, s.messagesScript)
}

func (s *redisStore) connect(ctx context.Context, p *plan, lease string, lapse time.Duration) (grant, error) {
	c := s.call()
	c.add(lease, p.stream, micros(lapse))
	c.counters(s.base, p.counters)
	c.bounds(p.bounds)
	c.openings(p)
	return c.grant(ctx, s, s.connectScript)
}

func (s *redisStore) renew(ctx context.Context, p *plan, leases []string, lapse time.Duration) ([]bool, error) {
	c := s.call()
	c.add(micros(lapse))
	c.openings(p)
	c.add(len(leases))
	for _, l := range leases {
		c.add(l)
	}
	r, err := c.run(ctx, s, s.renewScript).Int64Slice()
	if err != nil {
		return nil, err
	}
	if len(r) != len(leases) {
		return nil, fmt.Errorf("budget script answered for %d leases, want %d", len(r), len(leases))
	}
	held := make([]bool, len(r))
	for i := range r {
		held[i] = r[i] == 1
	}
	return held, nil
}

func (s *redisStore) release(ctx context.Context, leases []string) error {
	members := make([]any, len(leases))
	for i, l := range leases {
		members[i] = l
	}
	return s.c.ZRem(ctx, s.base+"open", members...).Err()
}

func (s *redisStore) releaseOwner(ctx context.Context, owner string) (int, error) {
	c := s.call()
	c.add(owner)
	return c.run(ctx, s, s.releaseScript).Int()
}

func (s *redisStore) charge(ctx context.Context, timelines []string, cs []charge) error {
	c := s.call()
	c.add(micros(aheadWithin), len(timelines))
	for _, name := range timelines {
		c.add(name)
	}
	specs := make([]counter, len(cs))
	for i, k := range cs {
		specs[i] = k.counter
	}
	c.counters(s.base, specs)
	c.add(len(cs))
	for i, k := range cs {
		fill := 0
		if k.fill {
			fill = 1
		}
		c.add(i+1, k.n, fill)
	}
	return c.run(ctx, s, s.chargeScript).Err()
}

func (s *redisStore) usage(ctx context.Context, cs []counter) (usage, error) {
	c := s.call()
	c.counters(s.base, cs)
	r, err := c.run(ctx, s, s.usageScript).Slice()
	if err != nil {
		return usage{}, err
	}
	return readUsage(r)
}

// readUsage reads what usage.lua answers: sums, and leases with the µs left.
func readUsage(r []any) (usage, error) {
	bad := fmt.Errorf("budget script answered %v, want sums and leases", r)
	if len(r) != 2 {
		return usage{}, bad
	}
	sums, ok1 := r[0].([]any)
	leases, ok2 := r[1].([]any)
	if !ok1 || !ok2 || len(leases)%2 != 0 {
		return usage{}, bad
	}
	var u usage
	for _, s := range sums {
		n, ok := s.(int64)
		if !ok {
			return usage{}, bad
		}
		u.used = append(u.used, int(n))
	}
	for i := 0; i < len(leases); i += 2 {
		name, _ := leases[i].(string)
		text, _ := leases[i+1].(string)
		left, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return usage{}, bad
		}
		u.leases = append(u.leases, leaseLeft{name, time.Duration(left) * time.Microsecond})
	}
	return u, nil
}
