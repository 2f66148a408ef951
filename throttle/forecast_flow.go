package throttle

import (
	"math"
	"time"
)

// flow is one course in the making: a fluid let out from time 0 on, in seconds. What
// has been let out is piecewise linear in time; points are where its slope changes.
type flow struct {
	in         ForecastInput
	paces      []pace
	guests     []guest
	reservoirs []reservoir

	setup, last float64 // s: before the first message; from the last one's begin to its reply
	wait        float64 // s: until the first slot at the latest
	waitsFor    string  // whose slot that is
	ttl         float64 // s: then it ends
	connections int
	each        float64 // messages a second of one connection
	carries     float64 // messages of one connection before it is replaced

	t, out, left float64
	points       []point
	slope        float64            // that the last point ends
	scale        float64            // of what was extrapolated
	bound        map[string]float64 // s that each limit decided
	waits, peak  float64
	bursts       []burst

	// Of the next slot, what has come while nothing could take it: a pace leaves as many
	// gaps as there are messages, less the first one of a stretch.
	credit float64
}

type point struct{ t, out float64 }

// burst is a stretch without a pause.
type burst struct{ from, to, out float64 }

// starting is what decides while a pool opens its connections.
const starting = "the opening of connections"

const (
	tiny      = 1e-3    // messages: less is nothing
	instant   = 1e-9    // s: less is now, and so is a part in 10^12 of the time that has gone
	mostSteps = 200_000 // then the rest is taken to go on like what was
)

// drain lets everything out, or names the limit that never lets it.
func (r *flow) drain() (never string) {
	for _, v := range r.reservoirs {
		if v.full < 1 {
			return v.name
		}
	}
	r.hold(r.setup, starting)
	r.hold(r.wait-r.setup, r.waitsFor)
	r.credit = 1
	first := float64(r.in.First)
	for steps := 0; r.left > tiny && r.t < r.ttl-r.now(); steps++ {
		if r.in.FirstWait > 0 && first > 0 && r.out >= first-tiny {
			first = 0
			r.hold(r.last+r.in.FirstWait.Seconds(), "the first recipients' results")
			continue
		}
		if steps == mostSteps {
			r.extrapolate()
			return ""
		}
		todo := r.left
		if first > r.out+tiny {
			todo = min(todo, first-r.out)
		}
		m := r.next(todo)
		if n := min(r.credit, m.room, todo); n > tiny && m.pace > 0 {
			r.jump(n, m)
			continue
		}
		if math.IsInf(m.until, 1) {
			return m.name
		}
		before := r.t
		r.step(max(m.until, r.t+r.now()), m.rate, m.name)
		r.earn(m.pace-m.rate, r.t-before)
	}
	return ""
}

// move is what can be done next.
type move struct {
	pace  float64 // messages a second that all but the counted windows allow
	rate  float64 // and with these
	room  float64 // messages that all counted windows have room for
	name  string  // what decides
	until float64 // it stays so, or until todo is done
}

func (r *flow) next(todo float64) move {
	m := move{room: math.Inf(1)}
	m.pace, m.name, m.until = r.rate()
	m.rate = m.pace
	for i := range r.reservoirs {
		v := &r.reservoirs[i]
		v.look(r)
		m.room, m.until = min(m.room, v.room), min(m.until, v.until)
		if v.room <= tiny && v.slope < m.rate {
			m.rate, m.name = v.slope, v.name
		}
	}
	for _, v := range r.reservoirs {
		if v.room > tiny && m.rate > v.slope {
			m.until = min(m.until, r.t+v.room/(m.rate-v.slope))
		}
	}
	if m.rate > 0 {
		m.until = min(m.until, r.t+todo/m.rate)
	}
	return m
}

// earn keeps what a pace has left over, up to one slot: those that pass are gone.
func (r *flow) earn(rate, dt float64) { r.credit = min(1, r.credit+max(0, rate)*dt) }

// jump lets out at once what there is a slot for.
func (r *flow) jump(n float64, m move) {
	r.credit -= n
	r.peak = max(r.peak, m.pace)
	r.bound[m.name] += 0 // it may decide in no time
	r.let(n, r.t)
	r.points, r.slope = append(r.points, point{r.t, r.out}), math.NaN()
}

// now is how near two times are one.
func (r *flow) now() float64 { return max(instant, r.t*1e-12) }

// hold lets nothing out for a time.
func (r *flow) hold(for_ float64, name string) {
	if for_ > 0 {
		pace, _, _ := r.rate()
		r.step(r.t+for_, 0, name)
		r.earn(pace, for_)
	}
}

// step lets out at a rate until a time.
func (r *flow) step(until, rate float64, name string) {
	until = min(until, r.ttl)
	dt := until - r.t
	r.bound[name] += dt
	r.peak = max(r.peak, rate)
	if rate <= 0 && r.out > 0 {
		r.waits += dt
	}
	r.let(min(rate*dt, r.left), until)
	if k := len(r.points); k > 1 && r.slope == rate {
		r.points[k-1] = point{r.t, r.out}
	} else {
		r.points = append(r.points, point{r.t, r.out})
	}
	r.slope = rate
}

// let notes that n are out by a time.
func (r *flow) let(n, until float64) {
	if n > 0 {
		if k := len(r.bursts); k == 0 || r.bursts[k-1].to < r.t-r.now() {
			r.bursts = append(r.bursts, burst{from: r.t})
		}
		b := &r.bursts[len(r.bursts)-1]
		b.to, b.out = until, b.out+n
	}
	r.t, r.out, r.left = until, r.out+n, r.left-n
}

// extrapolate ends a course of more windows than are worth walking through.
func (r *flow) extrapolate() {
	all := r.out + r.left
	f, out := all/r.out, all
	if most := r.ttl / r.t; f > most {
		f, out = most, r.out*most
	}
	r.scale = f
	r.t, r.out, r.left, r.waits = r.t*f, out, all-out, r.waits*f
	for name := range r.bound {
		r.bound[name] *= f
	}
}

// rate is what paces, guests and connections allow now, what decides it, and until
// when it stays so.
func (r *flow) rate() (rate float64, name string, until float64) {
	rate, until = math.Inf(1), math.Inf(1)
	for _, p := range r.paces {
		taken := 0.0
		for _, g := range r.guests {
			busy, next := g.at(r.t, r.now())
			until = min(until, next)
			if busy {
				taken += g.rate
			}
		}
		if !p.shared {
			taken = 0
		}
		if left := max(0, p.rate-taken); left < rate {
			rate, name = left, p.name
		}
	}
	open := 1 + math.Floor((r.t-r.setup+r.now())/growEvery.Seconds())
	open = max(open, float64(r.in.Limits.Streams[r.in.Stream].Connections))
	if can := open * r.each; open < float64(r.connections) && can < rate {
		rate, name = can, starting
		until = min(until, r.setup+open*growEvery.Seconds())
	}
	if math.IsInf(rate, 1) {
		rate, name = unlimited, "nothing but the relay"
	}
	return rate, name, until
}

// unlimited stands for a rate that nothing known limits.
const unlimited = 1e4

// at tells whether the guest takes its rate at a time, and until when that holds.
func (g guest) at(t, now float64) (busy bool, until float64) {
	if g.cycle == 0 || g.busy >= g.cycle {
		return true, math.Inf(1)
	}
	start := math.Floor((t+now)/g.cycle) * g.cycle
	if t < start+g.busy-now {
		return true, start + g.busy
	}
	return false, start + g.cycle
}

// look works out room, slope and until.
func (v *reservoir) look(r *flow) {
	v.count(r)
	if v.ramp == nil {
		return
	}
	day := math.Floor((v.age + r.t + r.now()) / rampPer.Seconds())
	v.room += float64(v.ramp.limit(int(day)) - v.ramp.limit(int(v.age/rampPer.Seconds())))
	if v.ramp.limit(int(day)) < v.ramp.Ceiling {
		v.until = min(v.until, (day+1)*rampPer.Seconds()-v.age)
	}
}

// count is look without a ramp.
func (v *reservoir) count(r *flow) {
	then := r.t - v.span
	if then < -r.now() {
		v.room, v.slope, v.until = v.full-r.out, 0, v.span
		if r.t < v.holds-r.now() {
			v.room, v.until = v.now-r.out, v.holds
		}
		return
	}
	for v.at+1 < len(r.points) && r.points[v.at+1].t <= then+r.now() {
		v.at++
	}
	p := r.points[v.at]
	if v.at+1 == len(r.points) {
		v.room, v.slope, v.until = v.full+p.out-r.out, 0, math.Inf(1)
		return
	}
	q := r.points[v.at+1]
	v.slope, v.until = (q.out-p.out)/(q.t-p.t), q.t+v.span
	v.room = v.full + p.out + v.slope*max(0, then-p.t) - r.out
}

// openings counts the connections opened: all of them for each burst that comes when
// those of the last one have idled out, and a new one for each that has done its share.
func (r *flow) openings(idle time.Duration) int {
	n, sent := 0.0, 0.0
	for i, b := range r.bursts {
		sent += b.out
		if i+1 < len(r.bursts) && (idle == 0 || r.bursts[i+1].from-b.to <= idle.Seconds()) {
			continue // they are still open
		}
		n += float64(r.connections) * max(1, math.Ceil(sent/float64(r.connections)/r.carries-tiny))
		sent = 0
	}
	return int(math.Round(n * max(1, r.scale)))
}
