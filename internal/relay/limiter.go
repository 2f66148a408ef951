package relay

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// limits are what the throttled profile enforces. Zero values are no limit.
type limits struct {
	messages      []rate // MAIL commands
	connects      []rate // connections
	open          int    // connections at once
	perConnection int    // messages of one connection
	code          int    // 421 or 452, said at MAIL beyond messages
}

// rate is at most n in any window of length per.
type rate struct {
	n   int
	per time.Duration
}

// maxRate bounds what a window has to remember: 8 bytes an event.
const maxRate = 10_000_000

// parseRate reads "100" (a second), "100/1m", or "0" for no limit.
func parseRate(s string) (rate, error) {
	if s == "0" {
		return rate{}, nil
	}
	count, per, found := strings.Cut(s, "/")
	if !found {
		per = "1s"
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxRate {
		return rate{}, fmt.Errorf("rate %q: want 1 to %d, a slash and a duration, such as 100/1s, or 0 for no limit", s, maxRate)
	}
	d, err := time.ParseDuration(per)
	if err != nil || d <= 0 {
		return rate{}, fmt.Errorf("rate %q: %q is no duration such as 1s, 1m or 24h", s, per)
	}
	return rate{n, d}, nil
}

// limiter enforces limits over exact sliding windows: what it lets through is never more
// than the limit in any window, and what it refuses is not counted. A real relay may
// well be more lenient, none can be stricter.
type limiter struct {
	limits
	mu             sync.Mutex
	mails, arrived []*window
}

func newLimiter(l limits) *limiter {
	return &limiter{limits: l, mails: windows(l.messages), arrived: windows(l.connects)}
}

func windows(rates []rate) (ws []*window) {
	for _, r := range rates {
		ws = append(ws, &window{rate: r})
	}
	return ws
}

// mail reports whether one more message may begin now, and counts it if so.
func (l *limiter) mail(now time.Time) bool { return l.admit(l.mails, now) }

// connect does the same for connections.
func (l *limiter) connect(now time.Time) bool { return l.admit(l.arrived, now) }

func (l *limiter) admit(ws []*window, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range ws {
		if w.full(now) {
			return false
		}
	}
	for _, w := range ws {
		w.take(now)
	}
	return true
}

// window remembers when the last n events were.
type window struct {
	rate
	times []time.Time // a ring once it holds n
	next  int
}

func (w *window) full(now time.Time) bool {
	return len(w.times) == w.n && now.Sub(w.times[w.next]) < w.per
}

func (w *window) take(now time.Time) {
	if len(w.times) < w.n {
		w.times = append(w.times, now)
		return
	}
	w.times[w.next] = now
	w.next = (w.next + 1) % w.n
}
