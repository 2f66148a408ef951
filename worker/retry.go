package worker

import (
	"math/rand/v2"
	"time"
)

// Retry is when a deferred recipient is tried again: after First, then each time
// twice as long, at most Most; every wait is drawn between its half and its whole,
// so that what was deferred together does not come back together.
type Retry struct {
	First, Most time.Duration
}

// after returns the wait after the given attempt (from 1).
func (r Retry) after(attempt int) time.Duration {
	d := r.First
	for ; attempt > 1 && d < r.Most; attempt-- {
		d *= 2
	}
	d = max(min(d, r.Most), time.Millisecond)
	return d/2 + time.Duration(rand.Int64N(int64(d/2)+1))
}
