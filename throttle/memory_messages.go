package throttle

import (
	"context"
	"math"
)

// ask is one call for messages on its way through the limits.
type ask struct {
	*plan
	now    int64
	n      int
	wanted int // as far as the counted windows have room
	ahead  int64
	right  int // of way: 2 within the reserve, 1 beyond it, 0 without one
	retry  int64
	lines  []line
	start  float64 // of the first message
	every  float64 // µs from one message to the next
}

// line is a timeline in one call.
type line struct {
	slots
	next  float64
	paced bool // a learned rate: kept by its last slot, because its pace changes
}

// reach is what the timelines of a level and all wider ones make together.
type reach struct {
	start, every, late float64
	some               bool
}

func (m *Memory) messages(_ context.Context, p *plan, n int, back []unused) (grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, counts := m.tick(p.counters)
	for _, u := range back {
		for i, c := range p.counters {
			if c.charge {
				counts[i].remove(u.at/c.grain, u.n)
			}
		}
	}
	a := &ask{plan: p, now: now, ahead: p.ahead}
	a.n, a.retry = room(p.bounds, counts, n)
	for _, r := range p.ramps {
		a.n, a.retry = m.today(r, now).room(counts, a.n, a.retry)
	}
	a.rights(counts)
	m.timelines(a)
	m.standBack(a)
	m.pace(a)
	if a.n > 0 {
		for i := range a.lines {
			a.lines[i].moveOn(a)
			m.slots[a.lines[i].name] = a.lines[i].kept()
		}
		m.count(p.counters, counts, now, a.n)
		for _, r := range p.ramps {
			if _, begun := m.firsts[r.name]; !begun {
				m.firsts[r.name] = now
			}
		}
	}
	retry := float64(a.retry)
	for _, l := range a.lines {
		retry = math.Max(retry, l.next-float64(a.ahead)-float64(now))
	}
	return grant{
		n: a.n, delay: int64(a.start) - now, every: int64(math.Floor(float64(a.every*1000) + 0.5)),
		retry: int64(math.Ceil(retry)), now: now,
	}, nil
}

// rights finds out whether the stream is within its reserve.
func (a *ask) rights(counts []*count) {
	left := a.n
	a.wanted = a.n
	for _, r := range a.own {
		left = min(left, r.n-counts[r.counter].used)
		a.right = 1
	}
	if len(a.own) > 0 && left > 0 {
		a.ahead, a.n, a.right = micros(aheadWithin), left, 2
	}
}

// timelines collects the timelines that bind the class, as they stand.
func (m *Memory) timelines(a *ask) {
	for _, s := range a.slots {
		l := line{slots: s}
		m.stand(&l, a)
	}
	m.learned(a, learnedRate, learnedSlot, levelAccount)
	if a.group != "" {
		m.learned(a, learnedRate+":"+a.group, learnedSlot+":"+a.group, levelGroup)
	}
}

func (m *Memory) learned(a *ask, field, name string, lv level) {
	if every := m.caps[field]; every > 0 && !a.plain {
		m.stand(&line{slots: slots{name: name, every: every, late: learnedLate(), level: lv}, paced: true}, a)
	}
}

func (m *Memory) stand(l *line, a *ask) {
	at, ok := m.slots[l.name]
	l.next = float64(at)
	switch {
	case !ok:
		// The timeline begins, or was lost: after all slots given out before.
		l.next = float64(a.now + micros(aheadWithin))
		m.slots[l.name] = l.kept()
	case l.paced:
		l.next += l.every
	}
	l.next = math.Max(l.next, float64(a.now-l.late))
	a.lines = append(a.lines, *l)
}

// kept is what is stored of a timeline.
func (l *line) kept() int64 {
	if l.paced {
		return int64(math.Ceil(l.next - l.every))
	}
	return int64(l.next)
}

// standBack grants nothing while a stream with a better right wants more slots
// than there were.
func (m *Memory) standBack(a *ask) {
	for better := a.right + 1; better < len(m.stop); better++ {
		if stop := m.stop[better]; stop > a.now {
			a.n, a.retry = 0, max(a.retry, stop-a.now)
		}
	}
}

// pace finds the first slot, the latest of the timelines' next ones, and how many
// there are, spaced as the slowest of them wants.
func (m *Memory) pace(a *ask) {
	a.start = float64(a.now)
	if len(a.lines) == 0 {
		return
	}
	var upTo [levels]reach
	var r reach
	for lv := range level(levels) {
		for _, l := range a.lines {
			if l.level != lv {
				continue
			}
			if !r.some {
				r = reach{start: l.next, late: float64(l.late), some: true}
			}
			r.start, r.every, r.late = math.Max(r.start, l.next), math.Max(r.every, l.every), math.Min(r.late, float64(l.late))
		}
		upTo[lv] = r
	}
	r.start = math.Ceil(r.start)
	a.start, a.every = r.start, r.every
	asked := a.n
	a.n = min(a.n, r.slots(a.now+a.ahead))
	for _, wide := range upTo[:levelGroup] {
		a.sparing(wide)
	}
	account := upTo[levelAccount]
	switch {
	case a.right > 0 && account.short(asked, a.now+a.ahead):
		m.stop[a.right] = a.now + micros(rightStands)
	case a.right == 2 && asked > 0 && a.wanted > asked && account.short(a.wanted, a.now+a.plan.ahead):
		m.stop[1] = a.now + micros(rightStands) // it goes on beyond its reserve
	}
}

// slots is how many slots there are until a time.
func (r reach) slots(until int64) int {
	return max(0, int(math.Floor((float64(until)-r.start)/r.every))+1)
}

func (r reach) short(n int, until int64) bool { return r.some && n > r.slots(until) }

// sparing sees that no slot of a wider window is lost to what narrower ones
// delay.
func (a *ask) sparing(wide reach) {
	if !wide.some {
		return
	}
	free := math.Max(wide.start, float64(a.now)) + wide.late - a.start
	switch {
	case free < 0:
		a.n, a.retry = 0, max(a.retry, int64(math.Ceil(-free)))
	case a.every > wide.every:
		a.n = min(a.n, int(math.Floor(free/(a.every-wide.every)))+1)
	}
}

// moveOn leaves the timeline after what was granted. A window that is not the
// slowest moves on far enough that no message begins later after its slot than
// the window's lateness allows.
func (l *line) moveOn(a *ask) {
	last := a.start + float64(float64(a.n-1)*a.every)
	l.next = math.Ceil(math.Max(l.next+float64(float64(a.n)*l.every), last-float64(l.late)+l.every))
}
