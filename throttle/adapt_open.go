package throttle

import (
	"maps"
	"slices"
)

// How the limits of connections are looked for.
const (
	crowdMemory  = 30 * second // of dials refused for too many connections
	crowdedTwice = 1.5         // of these, fading: one alone is no limit
	provenFor    = 2 * second  // more connections than before must stay open so long
	soonAgain    = 5 * second  // until the next probe after one that succeeded
)

// crowd finds how many connections the relay lets be open.
type crowd struct {
	Mode   mode    `json:"mode"` // free, settled or probing
	Cap    int     `json:"cap"`  // 0: none
	Base   int     `json:"base"` // probing: the cap before
	Stride int     `json:"stride"`
	Since  int64   `json:"since"` // when Mode began, µs
	Wait   int64   `json:"wait"`  // settled: µs until the next probe
	Full   int64   `json:"full"`  // probing: since when all are open; 0: not
	Hits   float64 `json:"hits"`  // refused lately, fading
	Last   int64   `json:"last"`
}

func (c *crowd) step(s sample, b band) {
	c.Hits = faded(c.Hits, s.at-c.Last, crowdMemory) + float64(s.crowded)
	c.Last = s.at
	switch {
	case s.crowded == 0 || s.open < 1: // with none open it is not for too many
		c.advance(s)
	case c.Mode == probing:
		c.Wait = min(2*c.Wait, longestWait)
		if s.open > c.Base {
			c.Wait = firstWait
		}
		c.hold(max(c.Base, s.open), s.at)
	case c.Hits >= crowdedTwice:
		most := s.open
		if c.Cap > 0 {
			most = min(most, c.Cap-1)
		}
		c.Wait = firstWait
		c.hold(most, s.at)
	}
	if c.Mode == free {
		return
	}
	c.Cap = max(c.Cap, int(b.floor))
	if c.Cap >= int(b.ceiling) {
		*c = crowd{Last: c.Last}
	}
}

func (c *crowd) hold(n int, now int64) {
	c.Mode, c.Cap, c.Since, c.Stride, c.Hits = settled, n, now, 1, 0
}

func (c *crowd) advance(s sample) {
	switch {
	case c.Mode == settled && s.at-c.Since >= c.Wait && s.open >= c.Cap:
		c.Base = c.Cap
		c.Cap += max(c.Stride, 1)
		c.Mode, c.Since, c.Full = probing, s.at, 0
	case c.Mode == probing && s.open < c.Cap:
		c.Full = 0
	case c.Mode == probing && c.Full == 0:
		c.Full = s.at
	case c.Mode == probing && s.at-c.Full >= provenFor:
		stride := 2 * max(c.Stride, 1)
		c.hold(c.Cap, s.at)
		c.Stride, c.Wait = stride, soonAgain
	}
}

func (c *crowd) sound() bool {
	return c.Mode >= free && c.Mode <= blocked && c.Cap >= 0 && c.Base >= 0 && c.Stride >= 0 && c.Stride < maxN &&
		c.Cap < maxN && sane(c.Hits, float64(c.Wait), float64(c.Since), float64(c.Full), float64(c.Last))
}

const (
	alike      = 4   // connections ended after as many messages are no chance
	fewest     = 3   // messages, below which they are
	similarBy  = 200 // by a part in so many
	apart      = second
	restlessIn = 10 * second // ended so fast one after the other, and not alike: too fast
)

// carrier finds how many messages the relay takes on one connection.
type carrier struct {
	Mode  mode  `json:"mode"` // free, settled or probing
	Cap   int   `json:"cap"`  // 0: none
	Base  int   `json:"base"` // probing: the cap before
	Since int64 `json:"since"`
	Wait  int64 `json:"wait"`
	Good  int   `json:"good"` // probing: connections that carried more
	Ended []end `json:"ended"`
}

// end is a connection that the relay has ended.
type end struct {
	At int64 `json:"at"`
	N  int   `json:"n"`
}

// step returns how many connections were ended for no reason that it knows. A
// relay that ends connections when messages come too fast does it after any
// number of them.
func (c *carrier) step(s sample, ceiling int) (unexplained int) {
	for _, n := range slices.Sorted(maps.Keys(s.ended)) {
		times := s.ended[n]
		switch {
		case c.Cap > 0 && n >= c.Base && n >= c.Cap-c.Cap/8 && c.Mode == settled:
		case c.Mode == probing && n >= c.Base-c.Base/32:
			c.hold(c.Base, s.at, min(2*c.Wait, longestWait))
		default:
			unexplained += times
			c.remember(end{s.at, n})
		}
	}
	if n, ok := c.agree(); ok {
		c.Ended = nil
		c.hold(n, s.at, firstWait)
	}
	if len(c.Ended) < alike || s.at-c.Ended[0].At > restlessIn {
		unexplained = 0
	}
	c.advance(s)
	if c.Mode != free && ceiling > 0 && c.Cap >= ceiling {
		*c = carrier{Ended: c.Ended}
	}
	return unexplained
}

// remember keeps an end. Connections that are as old as each other have carried as
// much, so that those which end together count as one.
func (c *carrier) remember(e end) {
	if n := len(c.Ended); n > 0 && e.At-c.Ended[n-1].At < apart && similar(e.N, c.Ended[n-1].N) {
		return
	}
	c.Ended = append(c.Ended, e)
	c.Ended = c.Ended[max(0, len(c.Ended)-alike):]
}

func similar(a, b int) bool { return max(a-b, b-a) <= max(1, min(a, b)/similarBy) }

// agree tells after how many messages all of the last connections were ended.
func (c *carrier) agree() (n int, ok bool) {
	if len(c.Ended) < alike {
		return 0, false
	}
	least, most := c.Ended[0].N, c.Ended[0].N
	for _, e := range c.Ended {
		least, most = min(least, e.N), max(most, e.N)
	}
	return least, least >= fewest && similar(least, most)
}

func (c *carrier) hold(n int, now, wait int64) {
	c.Mode, c.Cap, c.Base, c.Since, c.Wait, c.Good = settled, n, n, now, wait, 0
}

func (c *carrier) advance(s sample) {
	switch {
	case c.Mode == settled && s.at-c.Since >= c.Wait:
		c.Base = c.Cap
		c.Cap += max(1, c.Cap/4)
		c.Mode, c.Since = probing, s.at
	case c.Mode == probing && s.carried > c.Base:
		if c.Good++; c.Good >= alike {
			c.hold(c.Cap, s.at, soonAgain)
		}
	}
}

func (c *carrier) sound() bool {
	for _, e := range c.Ended {
		if e.N < 0 || e.N > maxN || !sane(float64(e.At)) {
			return false
		}
	}
	return c.Mode >= free && c.Mode <= blocked && c.Cap >= 0 && c.Cap <= maxN && c.Base >= 0 && c.Base <= maxN &&
		len(c.Ended) <= alike && sane(float64(c.Wait), float64(c.Since), float64(c.Good))
}
