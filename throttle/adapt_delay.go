package throttle

import (
	"cmp"
	"math"
)

const (
	slowTimes = 4            // as usual
	slowMore  = second / 2   // and so much more than usual
	slowFor   = 10 * second  // all the time
	usualGrow = 600 * second // in which what is usual doubles if it is never seen
	easeTwice = 2            // if that has not helped, it is not for our rate

	// So many replies tell how fast the relay is, however long they take to come:
	// fewer may all be to large mails, or of a relay that scans some for long.
	fewReplies = 20
	// Easing by a part lets what has piled up shrink by that part of the time that
	// passes. What shrinks faster than this times that is not for the easing.
	fastDrain = 1.5
	// leastDrain is a quarter of what easing should do until the next look.
	leastDrain = (1 - drainAt) * float64(slowFor) / 4
	// clearly is by how much the time must have been above what is slow, for that.
	clearly = 1.3
)

// trend is what a time says about how much is asked of the relay.
type trend int

const (
	steady trend = iota
	slower       // ease, or ease once more
	helped       // it was for our rate, and is as usual again
	vain         // easing does not help
	over         // as usual again, and not because of our easing
)

// delay watches a time that the relay takes for something. Mail differs, so a single
// time says little: what is looked at is a mean of the logarithms, in which one reply
// after minutes counts no more than a few after a second.
type delay struct {
	Usual  float64 `json:"usual"`  // least of Lately, µs; creeps up, so that it can change
	Lately float64 `json:"lately"` // smoothed, µs
	At     int64   `json:"at"`
	Since  int64   `json:"since"`  // when it became slow; 0: it is not
	Seen   int     `json:"seen"`   // times since then
	Before float64 `json:"before"` // most of Lately, since looked at last
	Eased  int     `json:"eased"`  // times
	Due    float64 `json:"due"`    // eased: what Lately could have come down to by it
	Was    float64 `json:"was"`    // Usual, before easing was found to be vain; 0: it was not
}

// slow reports that the relay has become slow and something should be eased: once
// when it has been so for a while, and once more if that was not enough. Each time
// tells as much as the clock does.
func (d *delay) slow(now, median int64) bool {
	if median <= 0 {
		return false
	}
	d.take(now, float64(median), math.Inf(1))
	return d.judge(now) == slower
}

// see is for times that come often, n of them with that median: nothing is made of
// few, or of some with long pauses between.
func (d *delay) see(now, median int64, n int) trend {
	if median <= 0 || n <= 0 {
		return steady
	}
	if paused := now-d.At > max(slowFor, 2*median); paused && (d.Since != 0 || d.Was != 0) {
		// Nobody knows how long it has been as it is now.
		eased := d.Eased > 0 || d.Was != 0
		d.Since, d.Eased, d.Was = 0, 0, 0
		d.take(now, float64(median), float64(n)/fewReplies)
		if eased {
			return over
		}
		return steady
	}
	d.take(now, float64(median), float64(n)/fewReplies)
	if d.Seen += n; d.Since != 0 && d.above(d.Usual) && d.Seen < fewReplies {
		return steady
	}
	return d.judge(now)
}

// take counts a time that weighs so much, if it came within less than the memory.
func (d *delay) take(now int64, m, weight float64) {
	passed := float64(min(max(now-d.At, 0), usualGrow))
	d.At = now
	weight = 1 - math.Exp(-min(passed/float64(3*second), weight))
	d.Lately = math.Pow(m, weight) * math.Pow(cmp.Or(d.Lately, m), 1-weight)
	creep := math.Exp2(passed / float64(usualGrow))
	d.Usual, d.Was = min(cmp.Or(d.Usual, m)*creep, d.Lately), d.Was*creep
	d.Due = max(d.Lately, d.Due-fastDrain*(1-drainAt)*float64(d.Eased)*passed)
}

// above tells whether it is slow, where so much is usual.
func (d *delay) above(usual float64) bool { return d.Lately >= slowFrom(usual) }

func slowFrom(usual float64) float64 { return max(slowTimes*usual, usual+float64(slowMore)) }

func (d *delay) judge(now int64) trend {
	switch {
	case d.Was != 0 && !d.above(d.Was):
		d.Since, d.Eased, d.Was = 0, 0, 0
		return over
	case !d.above(d.Usual):
		return d.calm()
	case d.Since == 0:
		d.Since, d.Seen, d.Before = now, 0, 0
	}
	d.Before = max(d.Before, d.Lately)
	if now-d.Since < slowFor {
		return steady
	}
	d.Since, d.Seen = now, 0
	helps := d.Lately < max(0.9*d.Before, d.Before-leastDrain)
	d.Before = d.Lately
	switch {
	case d.Eased > 0 && helps: // what has piled up takes time
		return steady
	case d.Eased >= easeTwice:
		d.Was = cmp.Or(d.Was, d.Usual)
		d.Usual, d.Since, d.Eased = d.Lately, 0, 0 // this is how it is
		return vain
	}
	if d.Eased++; d.Eased == 1 {
		d.Due = d.Lately
	}
	return slower
}

// calm ends what was slow.
func (d *delay) calm() trend {
	eased := d.Eased > 0
	d.Since, d.Eased = 0, 0
	switch {
	case !eased:
		return steady
	case d.Due > clearly*slowFrom(d.Usual):
		return over
	}
	return helped
}

func (d *delay) sound() bool {
	return sane(d.Usual, d.Lately, d.Before, float64(d.At), float64(d.Since), float64(d.Seen), float64(d.Eased), d.Due, d.Was)
}

// before is what a finder goes back to if it was eased for nothing.
type before struct {
	Mode  mode    `json:"mode"`
	Cap   float64 `json:"cap"`
	Limit float64 `json:"limit"`
}

// mind does what the time of replies asks for.
func (f *finder) mind(now int64, t trend) {
	switch t {
	case slower:
		f.ease(now)
	case helped:
		f.Before = nil
	case vain:
		// As much as passes at once, and no less than before it was eased: a connection
		// that waits for its reply asks for nothing anyway.
		if f.Before != nil && f.Mode != free && f.Mode != blocked {
			f.enter(climbing, now)
		}
	case over:
		f.restore(now)
	}
}

// ease goes slower for another reason than a refusal: the relay takes longer and
// longer to answer, so more may be given to it than it can do.
func (f *finder) ease(now int64) {
	mean := f.Past.last(now-now%tick, 10*second) / 10
	if mean == 0 || f.Mode == blocked {
		return
	}
	if f.Before == nil {
		f.Before = &before{f.Mode, f.Cap, f.Limit}
		if f.Mode == probing {
			f.Before.Mode, f.Before.Cap = settled, settleAt*f.Limit
		}
	}
	if f.Mode != probing {
		f.Limit = mean
		if f.Cap > 0 {
			f.Limit = min(mean, f.Cap)
		}
	}
	f.Cap, f.Told, f.Cost = drainAt*f.Limit, now, 0
	f.enter(draining, now)
}

// restore takes back what easing did. What was found to pass meanwhile stays.
func (f *finder) restore(now int64) {
	b := f.Before
	if b == nil {
		return
	}
	f.Before, f.Limit = nil, b.Limit
	if b.Cap > 0 {
		f.Cap = max(f.Cap, b.Cap)
		f.enter(b.Mode, now)
		return
	}
	f.Cap = 0
	f.enter(free, now)
}

func (b *before) sound() bool {
	return b == nil || b.Mode >= free && b.Mode < blocked && (b.Mode == free) == (b.Cap == 0) && sane(b.Cap, b.Limit)
}
