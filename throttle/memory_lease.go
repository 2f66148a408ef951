package throttle

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// prune drops the leases that have lapsed.
func (m *Memory) prune(now int64) {
	maps.DeleteFunc(m.open, func(_ string, lapse int64) bool { return lapse <= now })
}

// mayOpen tells whether the stream may have one more connection. Where a learned
// limit holds, what is kept for streams shrinks so that it leaves one for the
// others.
func (m *Memory) mayOpen(p *plan, stream string, now int64, learned bool) bool {
	m.prune(now)
	most, shares := p.open, p.shares
	if cap := m.caps[learnedOpen]; learned && !p.plain && cap > 0 {
		most = min(most, max(1, int(cap)))
		shares = shrink(shares, most)
	}
	held := map[string]int{}
	for lease := range m.open {
		s, _ := splitLease(lease)
		held[s]++
	}
	left := most - len(m.open)
	for _, s := range shares {
		if s.stream != stream {
			left -= max(0, s.n-held[s.stream])
		}
	}
	return left > 0
}

// shrink makes what is kept leave one of most.
func shrink(shares []openShare, most int) []openShare {
	kept := 0
	for _, s := range shares {
		kept += s.n
	}
	if kept < most {
		return shares
	}
	shares = slices.Clone(shares)
	for i := range shares {
		shares[i].n = shares[i].n * (most - 1) / kept
	}
	return shares
}

// loginOf is the login that a stream uses: one of its own, named as it is, unless
// connect was told of another.
func (m *Memory) loginOf(stream string) string {
	if login, shared := m.logins[stream]; shared {
		return login
	}
	return stream
}

// breaker is a login's, with the dials of the stream of that name.
func (m *Memory) breaker(name string, now int64) *breaker {
	b := m.breakers[name]
	if b == nil {
		b = &breaker{}
		m.breakers[name] = b
	}
	b.drop("", now)
	return b
}

// underWay are the dials of every stream that uses the login, and how many
// connections each stream has, dials among them.
func (m *Memory) underWay(login string, now int64) (all []ungreeted, held map[string]int) {
	m.prune(now)
	held = map[string]int{}
	for name := range m.open {
		s, _ := splitLease(name)
		if held[s] == 0 && m.loginOf(s) == login {
			all = append(all, m.breaker(s, now).dials...)
		}
		held[s]++
	}
	return all, held
}

// greeted is how many connections of the login are open, without those not greeted
// yet and the lease named.
func (m *Memory) greeted(login, lease string, now int64) (n int) {
	all, _ := m.underWay(login, now)
	for name := range m.open {
		s, _ := splitLease(name)
		if m.loginOf(s) == login && name != lease && !dialling(all, name) {
			n++
		}
	}
	return n
}

func (m *Memory) connect(_ context.Context, p *plan, d dial) (grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.clock
	now, counts := m.tick(p.counters)
	m.forgot(p, counts, now, min(now, before+micros(lostMost)))
	if m.born == 0 {
		m.born = now
	}
	n, retry := room(p.bounds, counts, 1)
	if m.from > now {
		n, retry = 0, max(retry, m.from-now)
	}
	refused := false
	if d.most > 0 {
		if m.loginOf(p.stream) != d.login {
			m.logins[p.stream] = d.login
		}
		ok, wait := m.gate(p, d, now)
		retry = max(retry, wait)
		_, refused = m.refused[[2]string{d.login, d.creds}]
		if !ok || refused {
			n = 0
		}
	}
	if n == 0 || !m.mayOpen(p, p.stream, now, true) {
		return grant{retry: retry, now: now, born: m.born, refused: refused}, nil
	}
	m.open[d.lease] = now + micros(d.lapse)
	m.dialled = now
	m.count(p.counters, counts, now, 1)
	if d.most > 0 {
		b := m.breaker(p.stream, now)
		b.dials = append(b.dials, ungreeted{d.lease, now, now + micros(d.dialing)})
	}
	return grant{n: 1, retry: retry, now: now, born: m.born}, nil
}

// whoIsIt notices another incarnation of the store.
func (m *Memory) whoIsIt(now int64) {
	if m.run != "" && m.run != m.ran {
		m.ran, m.since, m.from = m.run, m.dialled, 0
		if m.dialled > 0 {
			m.from = now + micros(restartGrace)
		}
	}
}

// forgot charges once what an incarnation that has just begun may have forgotten.
func (m *Memory) forgot(p *plan, counts []*count, now, at int64) {
	m.whoIsIt(now)
	for _, l := range p.losses {
		c := p.counters[l.counter]
		if m.run == "" || m.told[c.name] == m.run {
			continue
		}
		if m.told == nil {
			m.told = map[string]string{}
		}
		m.told[c.name] = m.run
		if n := min(l.n, l.full-counts[l.counter].used); m.dialled > 0 && n > 0 {
			counts[l.counter].add(at/c.grain, n)
			counts[l.counter].frees = max(counts[l.counter].frees, 1)
		}
	}
}

func (m *Memory) gate(p *plan, d dial, now int64) (ok bool, retry int64) {
	list, held := m.underWay(d.login, now)
	if len(list) >= d.most || len(list) == d.most-1 && spoken(p.stream, d.kept, held) {
		return false, 0
	}
	return m.breaker(d.login, now).gate(list, m.greeted(d.login, "", now), now)
}

// spoken tells whether a dial is left for another stream of the login: one that
// does not have the connections yet that are kept for it.
func spoken(stream string, kept []openShare, held map[string]int) (other bool) {
	for _, s := range kept {
		switch wants := held[s.stream] < s.n; {
		case wants && s.stream == stream:
			return false
		case wants:
			other = true
		}
	}
	return other
}

func (m *Memory) settle(_ context.Context, r report) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	login := m.loginOf(r.stream)
	if r.news == newsLogin {
		m.refused[[2]string{login, r.creds}] = refusedLogin{login, r.creds, r.why, now}
	}
	if mine, known := m.breaker(r.stream, now).drop(r.lease, now); known {
		m.breaker(login, now).hear(r, mine, m.greeted(login, r.lease, now), now)
	}
	return nil
}

func (m *Memory) renew(_ context.Context, p *plan, r renewal) (renewed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	a := renewed{held: make([]bool, len(r.leases))}
	for i, lease := range r.leases {
		stream, _ := splitLease(lease)
		mayOpen := m.mayOpen(p, stream, now, false) // first: it drops what has lapsed
		if _, known := m.open[lease]; known || mayOpen {
			m.open[lease] = now + micros(r.lapse)
			a.held[i] = true
			if r.ungreeted[i] {
				m.breaker(stream, now).keep(lease, now, now+micros(r.dialing))
			}
		}
	}
	for field := range m.caps {
		if group, ok := strings.CutPrefix(field, learnedRate+":"); ok {
			a.groups = append(a.groups, group)
		}
	}
	return a, nil
}

func (m *Memory) release(_ context.Context, leases []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	for _, lease := range leases {
		m.giveBack(lease, now)
	}
	return nil
}

func (m *Memory) giveBack(lease string, now int64) {
	delete(m.open, lease)
	stream, _ := splitLease(lease)
	m.breaker(stream, now).drop(lease, now)
}

func (m *Memory) releaseOwner(_ context.Context, owner string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, _ := m.tick(nil)
	m.prune(now)
	n := 0
	for lease := range m.open {
		if _, o := splitLease(lease); o == owner {
			m.giveBack(lease, now)
			n++
		}
	}
	return n, nil
}

func (m *Memory) forgive(_ context.Context, stream, creds string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.refused, [2]string{m.loginOf(stream), creds})
	return nil
}

func (m *Memory) reset(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.refused)
	clear(m.caps)
	for name, b := range m.breakers {
		m.breakers[name] = &breaker{dials: b.dials}
	}
	return nil
}

func (m *Memory) charge(_ context.Context, timelines []string, cs []charge) (restart, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	specs := make([]counter, len(cs))
	for i, c := range cs {
		specs[i] = c.counter
	}
	now, counts := m.tick(specs)
	for _, name := range timelines {
		m.slots[name] = max(m.slots[name], now+micros(aheadWithin))
	}
	for i, c := range cs {
		n := c.n
		if c.fill {
			n -= counts[i].used
		}
		if n > 0 {
			counts[i].add(now/c.grain, n)
		}
	}
	m.whoIsIt(now)
	return restart{m.since, m.from}, nil
}

func (m *Memory) usage(_ context.Context, cs []counter) (usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, counts := m.tick(cs)
	u := usage{now: now, firsts: maps.Clone(m.firsts), breakers: map[string]breaker{}, logins: maps.Clone(m.logins)}
	for _, k := range counts {
		u.used = append(u.used, k.used)
	}
	for lease, lapse := range m.open {
		if lapse > now {
			u.leases = append(u.leases, leaseLeft{lease, time.Duration(lapse-now) * time.Microsecond})
		}
	}
	for name, b := range m.breakers {
		shown := *b
		shown.dials = slices.Clone(b.dials)
		u.breakers[name] = shown
	}
	for _, r := range m.refused {
		u.refused = append(u.refused, r)
	}
	return u, nil
}
