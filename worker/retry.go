package worker

import (
	"math/rand/v2"
	"time"
)

// Retry is when a deferred recipient is tried again: after First, then each time
// twice as long, at most Most. Each wait is drawn between half of First and its whole
// (exponential with full jitter), so that what was deferred together does not come
// back together. A destination that asks for it gets slowly times the wait.
type Retry struct {
	First, Most time.Duration
	Attempts    int           // after so many the recipient is rejected; 0 = any number
	Age         time.Duration // since it was enqueued, the same; 0 = until the stream's ttl
}

// slowly is how much longer the waits are where a receiver says that we are too fast
// for it, or does not like what it sees. It starts at half an hour for First = 1 m.
const slowly = 30

// after returns the wait after the given attempt (from 1).
func (r Retry) after(attempt int, slow bool) time.Duration {
	first, most := r.First, r.Most
	if slow {
		first, most = slowly*first, slowly*most
	}
	d := first
	for ; attempt > 1 && d < most; attempt-- {
		d *= 2
	}
	d = max(min(d, most), 2*time.Millisecond)
	least := min(first, d) / 2
	return least + rand.N(d-least+1)
}
