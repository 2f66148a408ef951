package throttle

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/lib.lua
var libLua string

//go:embed lua/run.lua
var runLua string

//go:embed lua/dials.lua
var dialsLua string

//go:embed lua/messages.lua
var messagesLua string

//go:embed lua/connect.lua
var connectLua string

//go:embed lua/settle.lua
var settleLua string

//go:embed lua/renew.lua
var renewLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/owner.lua
var ownerLua string

//go:embed lua/reset.lua
var resetLua string

//go:embed lua/charge.lua
var chargeLua string

//go:embed lua/usage.lua
var usageLua string

// redisStore is the store of a real fleet: one script a step, on Redis's clock,
// all keys under the account's hash tag.
type redisStore struct {
	c    redis.UniversalClient
	base string // prefix:{b:ACCOUNT}:

	messagesScript, connectScript, settleScript, renewScript, releaseScript,
	ownerScript, chargeScript, usageScript, resetScript *redis.Script
	observing observeScripts
}

func newRedisStore(c redis.UniversalClient, prefix, account string) *redisStore {
	script := func(body ...string) *redis.Script { return redis.NewScript(libLua + strings.Join(body, "")) }
	return &redisStore{
		c:              c,
		base:           fmt.Sprintf("%s:{b:%s}:", prefix, account),
		messagesScript: script(messagesLua),
		connectScript:  script(runLua, dialsLua, connectLua),
		settleScript:   script(dialsLua, settleLua),
		renewScript:    script(dialsLua, renewLua),
		releaseScript:  script(dialsLua, releaseLua),
		ownerScript:    script(dialsLua, ownerLua),
		chargeScript:   script(runLua, chargeLua),
		usageScript:    script(usageLua),
		resetScript:    script(dialsLua, resetLua),
		observing:      newObserveScripts(script),
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
		c.add(k.name, k.grain, k.span, oneIf(k.charge))
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

func (c *call) ramps(rs []ramp) {
	c.add(len(rs))
	for _, r := range rs {
		c.add(r.counter+1, r.name, r.Start, exact(r.Factor), r.Ceiling)
		c.held(r.held)
	}
}

// exact writes a number so that Lua reads the same.
func exact(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func (c *call) openings(p *plan) {
	c.add(p.open, oneIf(!p.plain))
	c.shares(p.shares)
}

func (c *call) shares(shares []openShare) {
	c.add(len(shares))
	for _, s := range shares {
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
	if len(r) < 5 {
		return grant{}, fmt.Errorf("budget script answered %d numbers, want 5 or more", len(r))
	}
	g := grant{n: int(r[0]), delay: r[1], every: r[2], retry: r[3], now: r[4]}
	if len(r) > 6 {
		g.born, g.refused = r[5], r[6] == 1
	}
	return g, nil
}

func (s *redisStore) messages(ctx context.Context, p *plan, n int, back []unused) (grant, error) {
	c := s.call()
	c.add(n, micros(aheadWithin), p.ahead, micros(rightStands), p.late(), p.group, len(back))
	for _, u := range back {
		c.add(u.at, u.n)
	}
	c.counters(s.base, p.counters)
	c.bounds(p.bounds)
	c.ramps(p.ramps)
	c.held(p.own)
	c.add(len(p.slots))
	for _, w := range p.slots {
		c.add(w.name, exact(w.every), w.late, int(w.level))
	}
	return c.grant(ctx, s, s.messagesScript)
}

func (s *redisStore) connect(ctx context.Context, p *plan, d dial) (grant, error) {
	c := s.call()
	c.add(d.lease, p.stream, micros(d.lapse), d.login, d.creds, micros(d.dialing), d.most)
	c.shares(d.kept)
	c.counters(s.base, p.counters)
	c.add(micros(lostMost), micros(restartGrace), len(p.losses))
	for _, l := range p.losses {
		c.add(l.counter+1, l.n, l.full, l.gone)
	}
	c.add(d.born)
	c.bounds(p.bounds)
	c.openings(p)
	return c.grant(ctx, s, s.connectScript)
}

func (s *redisStore) settle(ctx context.Context, r report) error {
	c := s.call()
	c.add(r.lease, r.stream, r.creds, string(r.news), r.why, micros(r.after), micros(r.first), micros(r.most), exact(r.jitter))
	return c.run(ctx, s, s.settleScript).Err()
}

func (s *redisStore) renew(ctx context.Context, p *plan, r renewal) (renewed, error) {
	c := s.call()
	c.add(micros(r.lapse), micros(r.dialing))
	c.openings(p)
	c.add(len(r.leases))
	for i, l := range r.leases {
		c.add(l, oneIf(r.ungreeted[i]))
	}
	answer, err := c.run(ctx, s, s.renewScript).Slice()
	if err != nil {
		return renewed{}, err
	}
	return readRenewed(answer, len(r.leases))
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *redisStore) release(ctx context.Context, leases []string) error {
	c := s.call()
	c.add(len(leases))
	for _, l := range leases {
		c.add(l)
	}
	return c.run(ctx, s, s.releaseScript).Err()
}

func (s *redisStore) releaseOwner(ctx context.Context, owner string) (int, error) {
	c := s.call()
	c.add(owner)
	return c.run(ctx, s, s.ownerScript).Int()
}

func (s *redisStore) reset(ctx context.Context) error {
	c := s.call()
	c.add("", "")
	return c.run(ctx, s, s.resetScript).Err()
}

func (s *redisStore) forgive(ctx context.Context, stream, creds string) error {
	c := s.call()
	c.add(stream, creds)
	return c.run(ctx, s, s.resetScript).Err()
}

func (s *redisStore) charge(ctx context.Context, timelines []string, cs []charge) (restart, error) {
	c := s.call()
	c.add(micros(aheadWithin), micros(restartGrace), len(timelines))
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
		c.add(i+1, k.n, oneIf(k.fill))
	}
	r, err := c.run(ctx, s, s.chargeScript).Int64Slice()
	if err != nil {
		return restart{}, err
	}
	if len(r) != 2 {
		return restart{}, fmt.Errorf("budget script answered %d numbers, want 2", len(r))
	}
	return restart{since: r[0], from: r[1]}, nil
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
