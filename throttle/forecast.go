package throttle

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// ForecastInput is what a forecast goes by.
type ForecastInput struct {
	Recipients int // at least 1
	Stream     string
	Sender     string        // domain, for its warm-up; "" for none
	Limits     Limits        // valid ones; those of groups are left out, since they depend on the list
	Usage      Usage         // what the fleet has used; zero: nothing
	Caps       Caps          // what the relay has shown of itself; zero: nothing
	Start      time.Time     // of the sending
	Asked      time.Time     // when Usage was read; zero: at Start
	TTL        time.Duration // from Start; what has not begun by then expires; 0: nothing does

	RoundTrip  time.Duration // to the relay and back
	RoundTrips float64       // a message costs on one connection: 1 with full pipelining, 4 without; 0: 1
	Relay      time.Duration // the relay's own time for a message

	// A connection is replaced after so many messages or at this age; 0: never.
	PerConnection int
	Age           time.Duration
	Idle          time.Duration // after so long without a message it is closed; 0: never

	// The first so many recipients go alone, and the rest so long after them; 0: all at once.
	First     int
	FirstWait time.Duration
}

// Caps are limits below the configured ones that were learned; 0: none.
type Caps struct {
	Rate          float64 // messages a second
	Open          int     // connections open at once
	PerConnection int     // messages of one connection
}

// Outlook is how a campaign will go: with every other stream at rest, and with every
// other stream using all that is kept for it.
type Outlook struct {
	Alone, Shared Course
	Rooms         []Room // the long windows of messages
}

// Room is what a window that is longer than a minute has left at the start.
type Room struct {
	Window
	Used int // by all streams
	Left int // for the stream: less what others' reserves keep
}

// Course is one way it may go.
type Course struct {
	Never       bool          // Binds leaves nothing for the stream; the rest is zero, but for Expired
	Duration    time.Duration // until the last is sent, or has expired
	End         time.Time
	Expired     int           // recipients that are not begun within the TTL
	Rate        float64       // messages a second, on average
	Peak        float64       // and at most
	Binds       string        // the limit that decides most of the time, with its name in the configuration
	BindsFor    time.Duration // how long it does
	Waits       time.Duration // of Duration: nothing may be sent, because a long window is used up
	Connections int           // open at once
	Openings    int           // connections opened
}

// How a pool of connections starts: its own figures are in internal/smtp.
const (
	growEvery  = 500 * time.Millisecond // a pool that is always busy opens one more
	setupTrips = 7                      // round trips: TCP, greeting, EHLO, STARTTLS, TLS, EHLO, AUTH
)

// Forecast works out how long a campaign will take and what decides that. It treats
// messages as a fluid that is let out as fast as the limits allow, but for the first
// one, which goes at once. What was used before counts as used at the moment it was
// asked for, so that with windows partly used it says the latest end. The error is
// about the input.
//
// It knows one process's pool; more of them open their connections sooner.
func Forecast(in ForecastInput) (Outlook, error) {
	var o Outlook
	if in.Recipients < 1 || in.RoundTrip < 0 || in.Relay < 0 || in.RoundTrips < 0 || in.TTL < 0 {
		return o, fmt.Errorf("forecast of %d recipients at a round trip of %v: want 1 or more, and no negative times", in.Recipients, in.RoundTrip)
	}
	if err := in.Limits.Validate(); err != nil {
		return o, fmt.Errorf("forecast: %w", err)
	}
	o.Alone, o.Shared = in.course(false), in.course(true)
	for _, w := range sorted(in.Limits.Messages) {
		if !bySlots(w.Per) {
			o.Rooms = append(o.Rooms, in.room(w))
		}
	}
	return o, nil
}

// room is a window of all streams' messages at the start.
func (in ForecastInput) room(w Window) Room {
	const name = "limits.messages"
	v := in.shared(name, w)
	if v.holds <= 0 {
		return Room{w, 0, int(v.full)}
	}
	return Room{w, in.used(name, w), int(v.now)}
}

// lead is how long before the start the usage was read, in s: so much of what is used
// has left its window by then.
func (in ForecastInput) lead() float64 {
	if in.Asked.IsZero() {
		return 0
	}
	return max(0, in.Start.Sub(in.Asked).Seconds())
}

// used is how much is used of a window, by the name it has in the configuration.
func (in ForecastInput) used(name string, w Window) int {
	for _, u := range slices.Concat(in.Usage.Messages, in.Usage.Connections) {
		if u.Name == name && u.Window == w {
			return u.Used
		}
	}
	return 0
}

func (in ForecastInput) course(shared bool) Course {
	r := in.newFlow(shared)
	if never := r.drain(); never != "" {
		c := Course{Never: true, Binds: never}
		if in.TTL > 0 {
			c.Expired = in.Recipients
		}
		return c
	}
	c := Course{Connections: r.connections, Openings: r.openings(in.Idle), Peak: r.peak, Waits: seconds(r.waits)}
	c.Duration = seconds(r.t + r.last)
	if r.left > tiny {
		c.Duration, c.Expired = in.TTL, in.Recipients-int(r.out+tiny)
	}
	c.End = in.Start.Add(c.Duration)
	// Few messages have fewer gaps between them than they are: over their time they are more than the rate.
	c.Rate = min(r.peak, float64(in.Recipients-c.Expired)/max(c.Duration.Seconds(), 1e-6))
	for name, t := range r.bound {
		if d := seconds(t); c.Binds == "" || d > c.BindsFor || d == c.BindsFor && name < c.Binds {
			c.Binds, c.BindsFor = name, d
		}
	}
	return c
}

// seconds is a duration, the longest one for more than fits.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/1e9 {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}
