package throttle

import (
	"cmp"
	"errors"
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

// Share is what one stream always gets, whatever the others ask for.
type Share struct {
	// Reserve keeps messages for the stream. It is guaranteed as long as the
	// stream itself stays within every one of these windows.
	Reserve []Window
	// Connections keeps open connections for the stream, and as many openings
	// in every window of Limits.New. Zero keeps none.
	Connections int
}

// Limits is what one account at the relay may use, over all processes. An empty
// list of windows is no limit of that kind; Open is always one.
type Limits struct {
	Open     int              // connections open at once, at least 1
	New      []Window         // connection attempts, refused ones too
	Messages []Window         // messages begun (MAIL)
	Streams  map[string]Share // by stream name; a stream without a share has no reserve
}

const (
	minPer    = time.Second
	maxPer    = 31 * 24 * time.Hour
	maxN      = 1_000_000_000
	nameBytes = 64
)

// Validate reports every value that cannot be kept, each under the name it has
// in the configuration.
func (l Limits) Validate() error {
	var errs []error
	if l.Open < 1 {
		errs = append(errs, fmt.Errorf("limits.connections.open: %d: want at least 1", l.Open))
	}
	errs = append(errs, checkWindows("limits.connections.new", l.New)...)
	errs = append(errs, checkWindows("limits.messages", l.Messages)...)
	for _, name := range l.shares() {
		s := l.Streams[name]
		if err := checkName("stream", name); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, checkWindows("streams."+name+".reserve", s.Reserve)...)
		if s.Connections < 0 {
			errs = append(errs, fmt.Errorf("streams.%s.connections: %d: want 0 or more", name, s.Connections))
		}
	}
	if len(errs) == 0 {
		errs = append(l.checkConnections(), l.checkReserves()...)
	}
	return errors.Join(errs...)
}

func checkWindows(field string, ws []Window) []error {
	var errs []error
	seen := map[time.Duration]Window{}
	for _, w := range ws {
		if w.N < 1 || w.N > maxN {
			errs = append(errs, fmt.Errorf("%s: %v: want a count from 1 to %d", field, w, maxN))
		}
		if w.Per < minPer || w.Per > maxPer || w.Per%time.Microsecond != 0 {
			errs = append(errs, fmt.Errorf("%s: %v: want a window from 1s to 744h, in whole microseconds", field, w))
		}
		if first, twice := seen[w.Per]; twice {
			errs = append(errs, fmt.Errorf("%s: %v and %v: want one limit for a window of one length", field, first, w))
		}
		seen[w.Per] = w
	}
	return errs
}

// checkName keeps names apart from the separators of keys and lease names.
func checkName(what, name string) error {
	if name == "" || len(name) > nameBytes || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(":{}", r)
	}) {
		return fmt.Errorf("%s name %q: want 1 to %d visible ASCII characters without colon and braces", what, name, nameBytes)
	}
	return nil
}

// checkConnections sees that the connections kept for some streams leave one
// for the others, both open and in every window of new ones.
func (l Limits) checkConnections() []error {
	var errs []error
	kept, parts := 0, []string(nil)
	for _, name := range l.shares() {
		if c := l.Streams[name].Connections; c > 0 {
			kept += c
			parts = append(parts, fmt.Sprintf("streams.%s.connections %d", name, c))
		}
	}
	if kept == 0 {
		return nil
	}
	if kept >= l.Open {
		errs = append(errs, fmt.Errorf("limits.connections.open: %d: %s must leave at least 1 for the other streams",
			l.Open, strings.Join(parts, " and ")))
	}
	for _, w := range l.New {
		if kept >= w.N {
			errs = append(errs, fmt.Errorf("limits.connections.new: %v: %s must leave at least 1 opening for the other streams",
				w, strings.Join(parts, " and ")))
		}
	}
	return errs
}

// checkReserves sees that all reserves together fit into every message window.
func (l Limits) checkReserves() []error {
	var errs []error
	for _, w := range l.Messages {
		sum, parts := 0, []string(nil)
		for _, name := range l.shares() {
			n, by := promised(l.Streams[name].Reserve, w.Per)
			if n == 0 {
				continue
			}
			sum = min(sum+n, maxN+1)
			part := fmt.Sprintf("streams.%s.reserve %v", name, by)
			if by.Per != w.Per {
				part += fmt.Sprintf(" (up to %d here; a reserve for this window would bound it)", n)
			}
			parts = append(parts, part)
		}
		if sum > w.N {
			errs = append(errs, fmt.Errorf("limits.messages: %v: cannot hold %s", w, strings.Join(parts, " and ")))
		}
	}
	return errs
}

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
func (l Limits) shares() []string {
	return slices.Sorted(maps.Keys(l.Streams))
}

// sorted returns the windows, shortest first.
func sorted(ws []Window) []Window {
	return slices.SortedFunc(slices.Values(ws), func(a, b Window) int { return cmp.Compare(a.Per, b.Per) })
}
