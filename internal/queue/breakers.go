package queue

import (
	"errors"
	"fmt"
	"time"
)

// Breakers say when what came of the last mails is bad enough that no more are sent:
// a campaign holds until somebody has looked, a destination group for a while.
type Breakers struct {
	Campaign, Group Limits
	Blocks          Blocks
	// A group is held for Period, twice as long when it has to be again within a day of
	// going on, and for Most at most.
	Period, Most time.Duration
}

// Limits are on the kinds of bad results of a campaign, or of a group in one stream.
type Limits struct {
	Bounced, Blocked, Unknown Limit
}

// Limit is reached when more than Share of the last Of results are bad. Fewer than
// Least results count as Least, so that the first few replies decide nothing. The
// zero Limit is none.
type Limit struct {
	Share float64 // 0 < Share < 1
	Of    int     // at most 5000
	Least int     // at most Of; Share×Least of at least 1, so one reply never decides
}

// Blocks bound what a reply says of the sender's reputation, in one group, or in a
// campaign among the recipients who are in no group: Count of them Within a time, or
// Few in the last Of results. 0 switches either off.
type Blocks struct {
	Count  int
	Within time.Duration
	Few    int
	Of     int
}

// DefaultBreakers keep an account below what gets it restricted. Relays publish few
// figures; those that do look into an account whose bounces reach 5 % over days, and
// stop it at 10 %. A campaign that exceeds 5 % in its last 500 is stopped long before
// it weighs that much in the account's figures, and at 20 % after about 30 mails.
func DefaultBreakers() Breakers {
	return Breakers{
		Campaign: Limits{
			Bounced: Limit{Share: 0.05, Of: 500, Least: 100},
			Blocked: Limit{Share: 0.05, Of: 500, Least: 100},
			// A relay that restarts leaves one behind for each connection, which is no fault
			// of the campaign's.
			Unknown: Limit{Share: 0.10, Of: 500, Least: 200},
		},
		// A group's window has many campaigns' mail in it: the campaign is to stop first.
		Group:  Limits{Bounced: Limit{Share: 0.10, Of: 500, Least: 200}},
		Blocks: Blocks{Count: 5, Within: 10 * time.Minute, Few: 3, Of: 50},
		Period: time.Hour, Most: 24 * time.Hour,
	}
}

// maxWindow is the number of results a window keeps at most.
const maxWindow = 5000

// check returns what is wrong with the limits.
func (b Breakers) check() error {
	var errs []error
	for name, l := range map[string]Limit{
		"campaign bounced": b.Campaign.Bounced, "campaign blocked": b.Campaign.Blocked, "campaign unknown": b.Campaign.Unknown,
		"group bounced": b.Group.Bounced, "group blocked": b.Group.Blocked, "group unknown": b.Group.Unknown,
	} {
		switch {
		case l == Limit{}:
		case !(l.Share > 0 && l.Share < 1):
			errs = append(errs, fmt.Errorf("breaker %s: share %v: want more than 0 and less than 1", name, l.Share))
		case l.Of < 1 || l.Of > maxWindow || l.Least < 1 || l.Least > l.Of:
			errs = append(errs, fmt.Errorf("breaker %s: at least %d of the last %d results: want 1 to as many as are looked at, and those up to %d", name, l.Least, l.Of, maxWindow))
		case l.Share*float64(l.Least) < 1:
			errs = append(errs, fmt.Errorf("breaker %s: %v of at least %d results: one reply would decide", name, l.Share, l.Least))
		}
	}
	if b.Blocks.Count < 0 || b.Blocks.Count > maxWindow || (b.Blocks.Count > 0 && b.Blocks.Within < time.Millisecond) {
		errs = append(errs, fmt.Errorf("breaker on blocks: %d within %v: want 0 to %d, and a time", b.Blocks.Count, b.Blocks.Within, maxWindow))
	}
	if b.Blocks.Few < 0 || b.Blocks.Few > b.Blocks.Of || b.Blocks.Of > maxWindow {
		errs = append(errs, fmt.Errorf("breaker on blocks: %d of the last %d: want 0 to as many as are looked at, and those up to %d", b.Blocks.Few, b.Blocks.Of, maxWindow))
	}
	if b.Period < time.Millisecond || b.Most < b.Period {
		errs = append(errs, fmt.Errorf("hold of a group: %v, at most %v: want a time, and no less at most", b.Period, b.Most))
	}
	return errors.Join(errs...)
}

// wireLimits is how results.lua is told of the breakers.
type wireLimits struct {
	Keep     int                  `json:"keep"`
	Count    int                  `json:"count"`
	Within   int64                `json:"within"`
	Few      int                  `json:"few"`
	Of       int                  `json:"of"`
	Most     int64                `json:"most"`
	Campaign map[string]wireLimit `json:"campaign"`
	Group    map[string]wireLimit `json:"group"`
}

type wireLimit struct {
	Share float64 `json:"share"`
	Of    int     `json:"of"`
	Least int     `json:"least"`
}

func (b Breakers) wire() wireLimits {
	w := wireLimits{
		Keep: max(1, b.Blocks.Of), Count: b.Blocks.Count, Within: b.Blocks.Within.Milliseconds(), Few: b.Blocks.Few, Of: b.Blocks.Of,
		Most: b.Most.Milliseconds(), Campaign: b.Campaign.wire(), Group: b.Group.wire(),
	}
	for _, limits := range []map[string]wireLimit{w.Campaign, w.Group} {
		for _, l := range limits {
			w.Keep = max(w.Keep, l.Of)
		}
	}
	return w
}

func (l Limits) wire() map[string]wireLimit {
	out := map[string]wireLimit{}
	for letter, l := range map[Result]Limit{ResultBounced: l.Bounced, ResultBlocked: l.Blocked, ResultUnknown: l.Unknown} {
		if l != (Limit{}) {
			out[string(letter)] = wireLimit(l)
		}
	}
	return out
}
