package throttle

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

const (
	second = int64(time.Second / time.Microsecond)
	// tick is how often the fleet is looked at, µs.
	tick = second / 4
	// mostGroups bounds what is kept of destination groups; they come from the
	// configuration, so there are never so many.
	mostGroups = 256
	// groupsStay is how long a group is remembered that has learned nothing.
	groupsStay = 3600 * second
)

// Adaptive bounds what is learned from the relay's replies. The zero value
// learns, between the defaults and Limits.
type Adaptive struct {
	Off bool // nothing is learned here, and what others have learned does not bind
	// Rate is what messages/s never sink below, for the account and for each
	// group; 0: 1. At least 0.001.
	Rate float64
	// Open is what the number of open connections never sinks below; 0: 1.
	Open int
	// PerConnection is how many messages a connection is given at most; 0: any.
	PerConnection int
}

// Validate reports every value that cannot be kept, each under the name it has
// in the configuration.
func (a Adaptive) Validate() error {
	var errs []error
	if a.Rate != 0 && !(a.Rate >= 0.001 && a.Rate <= maxN) {
		errs = append(errs, fmt.Errorf("adaptive.floor: %v: want messages/s from 0.001 to %d", a.Rate, maxN))
	}
	if a.Open < 0 {
		errs = append(errs, fmt.Errorf("adaptive floor of open connections: %d: want 1 or more, or 0 for 1", a.Open))
	}
	if a.PerConnection < 0 {
		errs = append(errs, fmt.Errorf("limits.per_connection.messages: %d: want 1 or more, or 0 for any number", a.PerConnection))
	}
	return errors.Join(errs...)
}

// bounds are within which the learner moves.
type bounds struct {
	rate          band                          // of the account
	group         func(name string) (c float64) // a group's ceiling
	open          band
	perConnection int // 0: any
}

// sample is what the whole fleet did in one tick.
type sample struct {
	at       int64              // end of the tick, µs
	messages map[string]traffic // by destination group; "" is the whole account
	reply    int64              // median time of a reply, µs; 0: none came
	replies  int                // of so many
	greeting int64              // median time of a greeting, µs; 0: none came
	crowded  int                // dials refused because too many connections are open
	open     int                // connections open now, without dials under way
	ended    map[int]int        // connections that the relay ended, by the messages they had carried
	carried  int                // most messages of a connection that we closed
}

// caps are what the learner wants kept. Zero is no cap.
type caps struct {
	rates         map[string]float64 // messages/s by group; "" is the account's
	open          int
	perConnection int
}

// learner finds the relay's limits from what it says. It has no clock and does no
// I/O: the same samples always give the same caps. It is kept as JSON.
type learner struct {
	Version       int                `json:"version"`
	Rates         map[string]*finder `json:"rates"`
	Delay         delay              `json:"delay"`
	Greeting      delay              `json:"greeting"`
	Open          crowd              `json:"open"`
	PerConnection carrier            `json:"per_connection"`
}

const learnerVersion = 1

func newLearner() *learner {
	return &learner{Version: learnerVersion, Rates: map[string]*finder{}}
}

var errLearned = errors.New("learned limits are not readable")

// readLearner reads what learner.save wrote.
func readLearner(text []byte) (*learner, error) {
	l := newLearner()
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%w: %w", errLearned, err)
	}
	if l.Version != learnerVersion {
		return nil, fmt.Errorf("%w: version %d, want %d", errLearned, l.Version, learnerVersion)
	}
	if l.Rates == nil {
		l.Rates = map[string]*finder{}
	}
	for name, f := range l.Rates {
		if f == nil || !f.sound() {
			return nil, fmt.Errorf("%w: values of rate %q", errLearned, name)
		}
	}
	if !l.Open.sound() || !l.PerConnection.sound() || !l.Delay.sound() || !l.Greeting.sound() {
		return nil, fmt.Errorf("%w: values of connections", errLearned)
	}
	return l, nil
}

// save writes the learner. Groups that have learned nothing are left out.
func (l *learner) save() ([]byte, error) {
	kept := *l
	kept.Rates = maps.Clone(l.Rates)
	maps.DeleteFunc(kept.Rates, func(name string, f *finder) bool { return name != "" && f.Mode == free && f.Limit == 0 })
	text, err := json.Marshal(&kept)
	if err != nil {
		return nil, fmt.Errorf("write learned limits: %w", err)
	}
	return text, nil
}

// step takes one tick and returns what to keep to from now on.
func (l *learner) step(s sample, b bounds) caps {
	unexplained := l.PerConnection.step(s, b.perConnection)
	if l.Greeting.slow(s.at, s.greeting) {
		s.crowded++
	}
	l.Open.step(s, b.open)
	l.messages(s, b, unexplained)
	c := caps{open: l.Open.Cap, perConnection: l.PerConnection.Cap, rates: map[string]float64{}}
	for name, f := range l.Rates {
		if f.Cap > 0 {
			c.rates[name] = f.Cap
		}
	}
	return c
}

func (l *learner) messages(s sample, b bounds, unexplained int) {
	for name := range s.messages {
		if l.Rates[name] == nil && (name == "" || len(l.Rates) < mostGroups) {
			l.Rates[name] = &finder{}
		}
	}
	for name, f := range l.Rates {
		t, limits := s.messages[name], b.rate
		if name == "" {
			if f.Past.last(s.at-s.at%tick, 10*second) > 0 { // not while there is nothing to send
				t.throttled += unexplained
			}
			f.mind(s.at, l.Delay.see(s.at, s.reply, s.replies))
		} else {
			limits.ceiling = b.group(name)
		}
		f.step(s.at, t, limits)
		if name != "" && f.Mode == free && s.at-max(f.Passed, f.Told) > groupsStay {
			delete(l.Rates, name)
		}
	}
}

// sane tells whether these are numbers, or times in µs until 2255, that can be
// counted with.
func sane(xs ...float64) bool {
	for _, x := range xs {
		if !(x >= 0 && x < 9e15) {
			return false
		}
	}
	return true
}
