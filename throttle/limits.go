package throttle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Window is a limit of at most N in any stretch of time as long as Per.
type Window struct {
	N   int           // 1 to 1,000,000,000
	Per time.Duration // 1 second to 31 days, in whole microseconds
}

// String writes the window as the configuration does: 200/1s, 500000/24h.
func (w Window) String() string {
	d := w.Per.String()
	if strings.HasSuffix(d, "m0s") {
		d = strings.TrimSuffix(d, "0s")
	}
	if strings.HasSuffix(d, "h0m") {
		d = strings.TrimSuffix(d, "0m")
	}
	return fmt.Sprintf("%d/%s", w.N, d)
}

// Share is what one stream always gets, whatever the others ask for, and the
// most it gets.
type Share struct {
	// Reserve keeps messages for the stream. It is guaranteed as long as the
	// stream itself stays within every one of these windows.
	Reserve []Window
	// Connections keeps open connections for the stream, and as many openings
	// in every window of Limits.New. Zero keeps none.
	Connections int
	// Messages and New are limits of the stream's own, beside the account's.
	Messages []Window
	New      []Window
}

// Ramp is the most messages in any 24 hours while a sender is new to the relay:
// Start on the first day, Factor times as many on each following one, until
// Ceiling, which stays. Days are counted from the first message.
type Ramp struct {
	Start   int     // 1 to Ceiling
	Factor  float64 // 1 to 10
	Ceiling int     // to 1,000,000,000
}

// Everyone is the key of Limits.WarmUp whose ramp is the whole account's.
const Everyone = "*"

// Limits is what one account at the relay may use, over all processes. An empty
// list of windows is no limit of that kind; Open is always one.
type Limits struct {
	Open     int                 // connections open at once, at least 1
	New      []Window            // connection attempts, refused ones too
	Messages []Window            // messages begun (MAIL)
	Streams  map[string]Share    // by stream name; a stream without a share has no reserve
	Groups   map[string][]Window // messages to a group of recipients, by its name
	WarmUp   map[string]Ramp     // by the sender's domain, or Everyone
}

// rampPer is the window of a ramp.
const rampPer = 24 * time.Hour

// window is the ramp's at its end.
func (r Ramp) window() Window { return Window{N: r.Ceiling, Per: rampPer} }

// limit is the most messages in 24 hours on a day, counted from 0. The scripts
// multiply day by day in the same way, so that both round alike.
func (r Ramp) limit(day int) int {
	size, most := float64(r.Start), float64(r.Ceiling)
	for ; day > 0 && size < most && r.Factor > 1; day-- {
		size *= r.Factor
	}
	return int(min(size, most))
}

const (
	minPer     = time.Second
	maxPer     = 31 * 24 * time.Hour
	maxN       = 1_000_000_000
	mostFactor = 10
	nameBytes  = 64
)

// promised is the most that a stream within its reserve may begin in a window
// of this length, and the reserve that says so.
//
// Windows kept by slots look only at reserves that are no longer than they are:
// a day's reserve is not meant to be sent in one second, and is served there by
// going first. In a longer window it has to be kept free.
func promised(reserve []Window, per time.Duration) (n int, by Window) {
	for _, r := range reserve {
		if r.Per == per {
			return r.N, r
		}
	}
	for _, r := range reserve {
		most := r.N
		switch {
		case r.Per < per:
			most = min(maxN+1, r.N*int((per+r.Per-1)/r.Per))
		case bySlots(per):
			continue
		}
		if n == 0 || most < n {
			n, by = most, r
		}
	}
	return n, by
}

// shares are the names of the streams with a share, in order.
func (l Limits) shares() []string { return names(l.Streams) }

func names[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// sorted returns the windows, shortest first.
func sorted(ws []Window) []Window {
	return slices.SortedFunc(slices.Values(ws), func(a, b Window) int { return cmp.Compare(a.Per, b.Per) })
}
