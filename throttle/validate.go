package throttle

import (
	"errors"
	"fmt"
	"strings"
	"time"
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
		errs = append(errs, checkWindows("streams."+name+".messages", s.Messages)...)
		errs = append(errs, checkWindows("streams."+name+".openings", s.New)...)
		if s.Connections < 0 {
			errs = append(errs, fmt.Errorf("streams.%s.connections: %d: want 0 or more", name, s.Connections))
		}
	}
	for _, name := range names(l.Groups) {
		if err := checkName("group", name); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, checkWindows("groups."+name+".messages", l.Groups[name])...)
	}
	for _, name := range names(l.WarmUp) {
		errs = append(errs, l.WarmUp[name].check(name)...)
	}
	if len(errs) == 0 {
		errs = append(l.checkConnections(), l.checkReserves()...)
	}
	return errors.Join(errs...)
}

func (r Ramp) check(name string) []error {
	var errs []error
	if err := checkName("warm_up", name); err != nil {
		errs = append(errs, err)
	}
	field := "warm_up." + name
	if r.Ceiling < 1 || r.Ceiling > maxN {
		errs = append(errs, fmt.Errorf("%s.ceiling: %d: want 1 to %d", field, r.Ceiling, maxN))
	}
	if r.Start < 1 || r.Start > r.Ceiling {
		errs = append(errs, fmt.Errorf("%s.start: %d: want 1 to the ceiling, %d", field, r.Start, r.Ceiling))
	}
	if !(r.Factor >= 1 && r.Factor <= mostFactor) { // NaN is neither
		errs = append(errs, fmt.Errorf("%s.factor: %v: want 1 to %d", field, r.Factor, mostFactor))
	}
	return errs
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

// checkReserves sees that all reserves together fit into every message window,
// and each into the stream's own limits.
func (l Limits) checkReserves() []error {
	var errs []error
	for _, w := range l.Messages {
		errs = append(errs, l.checkFit("limits.messages", w, l.shares())...)
	}
	for _, name := range l.shares() {
		for _, w := range l.Streams[name].Messages {
			errs = append(errs, l.checkFit("streams."+name+".messages", w, []string{name})...)
		}
	}
	if r, ok := l.WarmUp[Everyone]; ok {
		errs = append(errs, l.checkFit("warm_up.*.ceiling", r.window(), l.shares())...)
	}
	return errs
}

// checkFit sees that the reserves of these streams fit into one window.
func (l Limits) checkFit(field string, w Window, streams []string) []error {
	sum, parts := 0, []string(nil)
	for _, name := range streams {
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
		return []error{fmt.Errorf("%s: %v: cannot hold %s", field, w, strings.Join(parts, " and "))}
	}
	return nil
}
