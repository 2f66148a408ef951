package throttle

import (
	"math"
	"slices"
)

// How a finder moves, in parts of the limit it has found.
const (
	settleAt = 0.95 // leaves room for the way to the relay to be uneven
	drainAt  = 0.92 // until the relay's window has room again
	probeTo  = 1.06 // not told off there, the limit has risen
	provenAt = 1.03 // what has to pass for that
	climbBy  = 1.3  // the next rate, in parts of what passes
	cutBy    = 4    // each tick in which nothing passes

	// A refused message is the price of a probe. At most this part of all is spent
	// on it, by waiting for as long as that takes.
	priceOfProbes = 0.002

	firstWait   = 15 * second // before the first probe
	longestWait = 5 * 60 * second
	dearestWait = 10 * 60 * second // after a probe that cost much

	mostNoise   = 0.2           // beyond that it is no noise
	forgetNoise = 3600 * second // to a third

	sameTrouble = 3 * second // refusals closer together are one trouble
	reactEvery  = 3 * tick   // in one trouble: what was sent before must be answered
	slackOfPast = 3 * tick   // by which answers come later than the relay counts
)

// mode is what a finder is doing.
type mode int

const (
	free     mode = iota // was never told off, or climbed to the ceiling: no cap
	draining             // told off; waits below the limit until its window has room
	settled              // just below the limit
	probing              // just above it, to see whether it is still there
	climbing             // it is not: upward until told off again
	blocked              // nothing passes at all
)

func (m mode) String() string {
	return [...]string{"free", "draining", "settled", "probing", "climbing", "blocked"}[m]
}

// traffic is what became of messages in one tick: passed is all that the relay
// did not refuse for coming too fast.
type traffic struct{ passed, throttled int }

// band is where a cap may be. A ceiling of 0 is none.
type band struct{ floor, ceiling float64 }

// finder finds how many messages in how long a time the relay takes, from when
// it says that there were too many.
//
// When a relay that counts over some window refuses, that window is full: what
// passed in it is the limit. So at each refusal the finder counts what passed in
// the last second, 10 s, minute, 10 minutes and hour. Which of them is the
// relay's own shows by and by: a window in which nothing passed cannot be full,
// nor one that held more a while ago without a refusal, nor one that had no time
// to fill since the rate went up. The shortest that is left is believed until it
// is disproved.
type finder struct {
	Mode  mode    `json:"mode"`
	Cap   float64 `json:"cap"`   // messages/s; 0: none
	Limit float64 `json:"limit"` // messages/s that the relay seems to take
	Span  int     `json:"span"`  // over which of spans it seems to sums
	Held  float64 `json:"held"`  // Limit when last settled
	Since int64   `json:"since"` // when Mode began, µs
	Wait  int64   `json:"wait"`  // settled: µs until the next probe

	Told    int64         `json:"told"`    // last refusal that counted
	Reacted int64         `json:"reacted"` // last change for one
	Passed  int64         `json:"passed"`  // last message that passed
	Last    int64         `json:"last"`    // last tick
	Sure    bool          `json:"sure"`    // a probe was told off: Limit is where it was
	Cost    float64       `json:"cost"`    // messages refused in this trouble
	Dry     float64       `json:"dry"`     // refused since the last that passed
	Refused float64       `json:"refused"` // of Answers, fading both
	Answers float64       `json:"answers"`
	Share   float64       `json:"share"`   // refused, when last told off while settled
	Strikes int           `json:"strikes"` // how often it did not get less by going slower
	Noise   float64       `json:"noise"`   // share that is refused at any rate
	Full    sums          `json:"full"`    // passed in each span at the last refusal
	Most    sums          `json:"most"`    // and the most since
	Out     [windows]bool `json:"out"`     // spans that this trouble disproves
	Past    history       `json:"past"`
	Before  *before       `json:"before,omitempty"` // it was eased; nil: or for good
}

// step takes one tick's traffic; now is its end.
func (f *finder) step(now int64, t traffic, b band) {
	now -= now % tick
	f.note(now, t)
	var x sums
	for i, s := range spans() {
		x[i] = f.Past.last(now, s)
		f.Most[i] = max(f.Most[i], x[i])
	}
	switch {
	case !f.counts(t):
		f.advance(now, t, x)
	default:
		fresh := f.judge(now, x)
		f.react(now, x, fresh)
	}
	f.keep(b)
}

// note counts what happened.
func (f *finder) note(now int64, t traffic) {
	f.Past.add(now-1, float64(t.passed))
	// Ten seconds, or at low rates as long as 300 messages take, up to 5 minutes.
	memory := 10 * second
	if f.Cap > 0 {
		memory = int64(min(max(10, 300/f.Cap), 300) * float64(second))
	}
	passed := now - f.Last
	f.Last = now
	f.Noise = faded(f.Noise, passed, forgetNoise)
	f.Refused = faded(f.Refused, passed, memory) + float64(t.throttled)
	f.Answers = faded(f.Answers, passed, memory) + float64(t.passed+t.throttled)
	f.Cost += float64(t.throttled)
	if t.passed > 0 {
		f.Dry, f.Passed = 0, now
	}
	f.Dry += float64(t.throttled)
}

// counts tells whether the refusals of this tick mean anything. A few in ten
// thousand do not: every relay has them. Above the limit fewer are needed, since
// they are what is waited for there.
func (f *finder) counts(t traffic) bool {
	need, share := 2.5, 0.0025
	switch f.Mode {
	case probing, climbing, blocked:
		need, share = 1.8, 0.01
		if f.Cap < 10 {
			need = 0.9
		}
	}
	usual := f.Noise * f.Answers
	need += 2*usual + 2*math.Sqrt(usual)
	return t.throttled > 0 && f.Refused >= need && f.Refused >= share*f.Answers
}

// judge finds the span over which the relay counts. It reports whether this is a
// new trouble.
func (f *finder) judge(now int64, x sums) (fresh bool) {
	fresh = now-f.Told > sameTrouble && f.Mode != blocked
	f.Told = now
	if fresh {
		f.Out = [windows]bool{}
		f.Sure = f.Mode == probing
		f.Cost = 0
	}
	for i, s := range spans() {
		more := max(f.Full[i], x[i]) + f.noise(i)
		switch {
		case f.Past.last(now, s+slackOfPast) == 0:
			f.Out[i] = true
		case fresh && f.Full[i] > 0 && f.Most[i] > more:
			f.Out[i] = true
		case fresh && f.Mode == probing && i > 0 && now-f.Since < s/5:
			f.Out[i] = true
		}
	}
	if first := f.Full[0]; !fresh {
		x[0] = max(x[0], first) // a second may be over before the last refusal is in
	}
	f.Full, f.Most = x, sums{}
	if f.Out[f.Span] {
		if i := slices.Index(f.Out[:], false); i >= 0 {
			f.Span = i
		}
	}
	return fresh
}

// noise is by how much a count may be wrong, because answers come in later than
// the relay counts.
func (f *finder) noise(i int) float64 {
	aSecond := max(f.Full[0], f.Cap)
	if i == 0 {
		return aSecond/4 + 1
	}
	return aSecond + 1
}

// rate is what x comes to in a second, over the span believed in.
func (f *finder) rate(x sums) float64 { return x[f.Span] * float64(second) / float64(spans()[f.Span]) }

// react lowers the cap.
func (f *finder) react(now int64, x sums, fresh bool) {
	f.Before = nil // a refusal says more than a time
	if f.Dry >= 3 && now-f.Passed >= 2*tick {
		f.block(now, x)
		return
	}
	if f.Mode == blocked || (!fresh && now-f.Reacted < reactEvery) {
		return
	}
	found := f.rate(x)
	if f.Cap > 0 {
		found = min(found, f.Cap)
	}
	switch {
	case fresh && f.Mode == probing:
		f.Cap = drainAt * f.Limit
	case f.Mode == climbing:
		f.Limit = max(f.Limit, found)
		f.Cap = drainAt * f.Limit
	case fresh || f.Mode != draining:
		if f.strike() {
			f.enter(climbing, now)
			return
		}
		f.Limit = found
		f.Cap = drainAt * f.Limit
	default: // still refused: below what passes now, whatever the limit is
		if !f.Sure {
			f.Limit = min(f.Limit, f.rate(x))
		}
		f.Cap = min(f.Cap, 0.8*max(x[0], f.Cap/2))
	}
	f.Sure = f.Sure && fresh
	f.Reacted = now
	f.enter(draining, now)
}

// strike is for refusals that come at any rate: some relays, or recipients behind
// them, say such things at random. A limit is met less often when going slower,
// noise is not. It reports whether these were found to be noise.
func (f *finder) strike() bool {
	share := f.Refused / f.Answers
	switch {
	case f.Mode != settled || share > mostNoise || share < f.Share/2:
		f.Strikes, f.Share = 0, share
	case f.Strikes < 3:
		f.Strikes++
	default:
		f.Noise, f.Strikes = max(f.Noise, share), 0
		return true
	}
	return false
}

// block is for when nothing passes: go down to the floor at once and wait there.
// The window is full then, and opens as its messages leave it.
func (f *finder) block(now int64, x sums) {
	if f.Mode != blocked {
		f.enter(blocked, now)
	}
	if f.Cap == 0 {
		f.Cap = x[0]
	}
	if f.Sure = f.Sure && now-f.Since < 2*spans()[f.Span]; !f.Sure {
		f.Limit = f.rate(f.Full)
	}
	f.Cap /= cutBy
	f.Refused, f.Answers = 0, 0
}

func (f *finder) enter(m mode, now int64) {
	f.Mode, f.Since = m, now
	f.Refused, f.Answers = 0, 0
}

// advance moves on when there was no refusal that counts.
func (f *finder) advance(now int64, t traffic, x sums) {
	switch f.Mode {
	case blocked:
		if t.passed > 0 {
			f.Cap, f.Reacted = drainAt*f.Limit, now
			f.enter(draining, now)
		}
	case draining:
		quiet := now - f.Told
		if quiet > second && (f.rate(x) <= settleAt*f.Limit || quiet > spans()[f.Span]+second) {
			f.settle(now)
		}
	case settled:
		if now >= f.probeAt() {
			f.Cap = probeTo * f.Limit
			f.enter(probing, now)
		}
	case probing:
		// Twice the span, for a relay that counts by the calendar's minutes.
		if f.mean(now) >= provenAt*f.Limit && now-f.Since >= 2*spans()[f.Span] {
			f.enter(climbing, now)
		}
	case climbing:
		mean := f.mean(now)
		f.Limit = max(f.Limit, mean) // it has passed
		f.Cap = max(f.Cap, climbBy*mean)
	}
}

// probeAt is when more is tried, if nothing happens before.
func (f *finder) probeAt() int64 { return f.Since + max(f.Wait, min(spans()[f.Span], 60*second)) }

// settle stays below the limit found. If it is where it was the last time, the
// next probe is put off for longer.
func (f *finder) settle(now int64) {
	f.Cap = settleAt * f.Limit
	if math.Abs(f.Limit-f.Held) <= f.Held/10 {
		paid := f.Cost / (priceOfProbes * max(f.Limit, 0.01)) * float64(second)
		f.Wait = max(min(2*f.Wait, longestWait), min(int64(paid), dearestWait))
	} else {
		f.Wait = firstWait
	}
	f.Held = f.Limit
	f.enter(settled, now)
}

// mean is the rate that passes, over the span believed in, but at least 10 s or 40
// messages, and at most a minute.
func (f *finder) mean(now int64) float64 {
	span := max(10, 40/max(f.Limit, 0.1), float64(spans()[f.Span]/second))
	span = min(math.Ceil(span), 60)
	return f.Past.last(now, int64(span)*second) / span
}

// keep holds the cap within the band; at the ceiling there is none.
func (f *finder) keep(b band) {
	if f.Mode == free {
		return
	}
	f.Cap = max(f.Cap, b.floor)
	if b.ceiling > 0 && f.Cap >= b.ceiling {
		f.Cap, f.Before = 0, nil
		f.enter(free, f.Last)
	}
}

// sound tells whether what was read can be gone on with.
func (f *finder) sound() bool {
	for _, b := range []*bins{&f.Past.Ticks, &f.Past.Seconds, &f.Past.Halves} {
		if !sane(b.N...) || !sane(float64(b.Newest)) || len(b.N) > mostBins {
			return false
		}
	}
	return f.Mode >= free && f.Mode <= blocked && f.Span >= 0 && f.Span < windows && (f.Mode == free) == (f.Cap == 0) &&
		f.Before.sound() && sane(f.Cap, f.Limit, f.Held, f.Cost, f.Dry, f.Refused, f.Answers, f.Share, f.Noise, float64(f.Wait), float64(f.Strikes)) &&
		sane(f.Full[:]...) && sane(f.Most[:]...) &&
		sane(float64(f.Since), float64(f.Told), float64(f.Reacted), float64(f.Passed), float64(f.Last))
}

// faded is what is left of x after some time.
func faded(x float64, passed, memory int64) float64 {
	return x * math.Exp(-float64(max(passed, 0))/float64(memory))
}
