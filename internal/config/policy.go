package config

import (
	"math"
	"time"

	"github.com/sluicemail/sluice/internal/destination"
)

// Durability is what Redis must have switched on, so that it keeps what it was told.
type Durability string

// The durabilities, weakest first.
const (
	InMemory Durability = "memory" // nothing is kept over a restart
	AOF      Durability = "aof"    // the append-only file, written each second
	Fsync    Durability = "fsync"  // the append-only file, written with every answer
)

// Adaptive says whether limits sink where the relay shows that they are too high, and
// how far.
type Adaptive struct {
	Enabled bool
	Floor   Window // messages; the least the rate sinks to
}

// Retry is the schedule of deferred recipients: after First, then each time up to
// twice as long, up to Most, until one of the two ends is reached.
type Retry struct {
	First, Most time.Duration
	Attempts    int           // in all; 0: any number
	Age         time.Duration // from enqueue; 0: until the stream's ttl
}

// Canary is the part of a campaign that goes first. The rest waits for its results.
type Canary struct {
	Size Size          // zero: none, the whole campaign goes at once
	Wait time.Duration // for feedback, after the last of its results
}

// Size is a share of a campaign or a number of recipients; both zero is none.
type Size struct {
	Percent float64
	Count   int
}

// The bounds of a canary that is a share.
const (
	CanaryLeast = 50
	CanaryMost  = 500
)

// Of returns how many of a campaign's recipients go first; 0 is none. A share is
// never fewer than 50 nor more than 500, and a campaign that is no larger than its
// canary needs none.
func (c Canary) Of(recipients int) int {
	n := c.Size.Count
	if c.Size.Percent > 0 {
		n = min(max(int(math.Ceil(float64(recipients)*c.Size.Percent/100)), CanaryLeast), CanaryMost)
	}
	if n >= recipients {
		return 0
	}
	return n
}

// Breakers say when results hold a campaign, or the mail of a stream to one
// destination group.
type Breakers struct {
	Bounced, Blocked, Unknown Share // of a campaign's results; zero: never
	Least                     int   // fewer results than these count as these, so that the first few decide nothing
	Group                     GroupBreaker
}

// GroupBreaker holds one stream's mail to one destination group.
type GroupBreaker struct {
	Bounced  Share         // of its results; zero: never
	Blocks   Window        // so many replies that say "blocked", in such a time; zero: never
	BlocksOf Tally         // so many of the last results; zero: never
	Hold     time.Duration // for so long; twice as long when it comes again within a day, 24 h at most
}

// Share is a percentage of the last results.
type Share struct {
	Percent float64
	Last    int
}

// Tally is a number out of the last results.
type Tally struct{ N, Last int }

// Verdicts say what replies mean.
type Verdicts struct {
	File string // the operator's rules, read before the shipped ones; "": none
}

// Groups are the destination groups beside the shipped ones.
type Groups struct {
	ByMX  bool              // look up the mail servers of domains that no group lists
	Named map[string]*Group // by name
}

// Group is what the configuration says of one destination group.
type Group struct {
	Domains  []string // patterns; nil: the shipped ones, empty: none
	MX       []string // mail servers; nil: the shipped ones, empty: none
	Messages []Window // a limit of its own, for all streams together
}

// Table returns the destination groups in effect. Validate has seen to it that there
// is no error.
func (g Groups) Table() (*destination.Table, error) { return destination.New(g.list()...) }

// list returns the named groups in order.
func (g Groups) list() []destination.Group {
	var out []destination.Group
	for _, name := range sortedKeys(g.Named) {
		out = append(out, destination.Group{Name: name, Domains: g.Named[name].Domains, MX: g.Named[name].MX})
	}
	return out
}

// Ramp limits the messages in 24 hours of a sender domain that is new: Start on the
// first day, then each day Factor times as many, up to Ceiling.
type Ramp struct {
	Start   int
	Factor  float64
	Ceiling int
}
