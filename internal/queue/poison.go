package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// A recipient whose mail kills the worker comes back with its block, and kills the next.
// So the deaths of those who held a block are counted while it gets no further. After
// suspectDeaths its recipients are sent to one at a time. Whoever is next when a worker
// dies once more is sent to with nothing else in the process, lest another's mail be
// blamed on them; and if that is its end as well, they are rejected.
const suspectDeaths = 3

const (
	// How long a suspect waits for its turn.
	probePause = time.Second
	// How long a process takes no other block for the sake of one that wants to be alone,
	// and how long it does not do so again. What it has may be waiting for the budget.
	aloneWait  = 30 * time.Second
	aloneAgain = 5 * time.Minute
)

// guiltyText is the reason that whoever kills workers is rejected for.
const guiltyText = "not sent: workers died, again and again, when it was this recipient's turn"

// deaths is what is stored of the workers that died with a block; see seize.lua.
type deaths struct {
	kind  string // what the deaths are of:
	n     int
	index int // the first who waits, or is probed; -1: not known yet
	// turn: it is the turn of who is probed. Before it, as while the relay is away, a death
	// says nothing of them.
	turn bool
}

// Kinds of deaths.
const (
	diedHolding = "died"  // those who held the block while index was the first who waited
	diedProbing = "probe" // while only index was sent to, of this block
	diedAlone   = "alone" // while only index was sent to, by that process
)

func (d deaths) String() string {
	s := fmt.Sprintf("%s %d %d", d.kind, d.n, d.index)
	if d.turn {
		s += " turn"
	}
	return s
}

func parseDeaths(s string) (d deaths, ok bool) {
	s, d.turn = strings.CutSuffix(s, " turn")
	n, err := fmt.Sscanf(s, "%s %d %d", &d.kind, &d.n, &d.index)
	ok = n == 3 && err == nil && d.n >= 0 && (d.kind == diedHolding || d.kind == diedProbing || d.kind == diedAlone)
	return d, ok
}

// next is d for a claim in which first is the first who waits.
func (d deaths) next(first int) deaths {
	d.turn = false          // of who held it before
	got := d.index != first // it got further
	switch {
	case d.kind == diedHolding && d.index < 0:
		return deaths{kind: diedHolding, n: d.n, index: first}
	case d.kind == diedHolding && got:
		return deaths{kind: diedHolding, n: 1, index: first}
	case d.kind == diedHolding && d.n < suspectDeaths:
		return d
	case d.kind == diedHolding || got:
		return deaths{kind: diedProbing, index: first}
	case d.kind == diedProbing && d.n > 0:
		return deaths{kind: diedAlone, index: first}
	}
	return d
}

// firstWaiting is the first of a claim who is due and not unknown, -1 if there is none.
// An unknown one kills nobody for long: it is sent to again once.
func (c *Claim) firstWaiting(now int64) int {
	for i := range min(c.first, len(c.Standings)) {
		if s := &c.Standings[i]; s.Outcome == mail.Pending || s.Outcome == mail.Deferred && s.Due <= now {
			return i
		}
	}
	return -1
}

// suspect looks at the deaths of those who held a claimed block before. It may limit the
// claim to one recipient, or give it up with ErrNotClaimed.
func (m *Member) suspect(ctx context.Context, c *Claim) error {
	if m.reserved(c) {
		return m.wait(ctx, c)
	}
	first := c.firstWaiting(m.Now())
	if c.deaths == "" || c.Cancelled || first < 0 {
		return nil
	}
	key := m.q.keys.deaths(c.Campaign.Stream)
	was, ok := parseDeaths(c.deaths)
	if !ok {
		return m.q.rdb.HDel(ctx, key, c.ID()).Err()
	}
	if was.kind == diedAlone && was.index == first && was.n > 0 {
		if err := m.reject(ctx, c, first); err != nil {
			return err
		}
		if first = c.firstWaiting(m.Now()); first < 0 {
			return nil // the release forgets the deaths
		}
	}
	now := was.next(first)
	if now.kind == diedProbing && was.kind == diedHolding {
		m.q.log.Warn("workers died with a block and it got no further; its recipients are sent to one by one now",
			"campaign", c.Campaign.Name, "block", c.N, "died", was.n)
	}
	if now.kind == diedAlone && !m.probe(c, now) {
		return m.wait(ctx, c)
	}
	if now != was {
		if err := m.q.rdb.HSet(ctx, key, c.ID(), now.String()).Err(); err != nil {
			return err
		}
	}
	if now.kind == diedProbing && !m.probe(c, now) {
		return m.wait(ctx, c)
	}
	return nil
}

// Turn is called with true before anything is done for a recipient's mail that could kill
// this process, and with false where it has to wait. Of a probed one it notes whether it is
// their turn: only then does a death count against them.
func (m *Member) Turn(c *Claim, come bool) {
	if c.turn != nil {
		c.turn(come)
	}
}

// noteTurn stores it. What Redis does not take is not counted, which puts off who is to
// blame, and blames nobody else.
func (m *Member) noteTurn(ctx context.Context, c *Claim, come bool) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, s := c.probed, c.Campaign.Stream
	d.turn = come
	keys := []string{m.q.keys.claims(s), m.q.keys.deaths(s)}
	if err := m.q.scripts.turn.Run(ctx, m.q.rdb, keys, c.ID(), joinClaim(c.Epoch, m.nonce), d.String()).Err(); err != nil {
		m.q.log.Warn("that it is the turn of a recipient that workers died with could not be noted", "campaign", c.Campaign.Name, "err", err)
	}
}

// reject ends a recipient who is not sent to any more.
func (m *Member) reject(ctx context.Context, c *Claim, index int) error {
	m.q.log.Error("a recipient is rejected: workers died when it was their turn to send to it",
		"campaign", c.Campaign.Name, "block", c.N, "line", c.Block.Lines[index])
	m.Decide(c, index, mail.Rejected, mail.Reply{Text: guiltyText})
	return m.Flush(ctx)
}

// wait gives up a claim that cannot have its turn now.
func (m *Member) wait(ctx context.Context, c *Claim) error {
	due := strconv.FormatInt(m.Now()+probePause.Milliseconds(), 10)
	if err := m.q.release(ctx, c.Campaign.Stream, c.ID(), joinClaim(c.Epoch, m.nonce), due); err != nil {
		return err
	}
	return fmt.Errorf("%w: a recipient that workers died with is being probed", ErrNotClaimed)
}

// reserved reports whether this process takes no block but that of a suspect now.
func (m *Member) reserved(c *Claim) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.claims {
		if other.alone && other != c {
			return true
		}
	}
	return m.lonely != "" && m.lonely != c.ID() && time.Since(m.lonelySince) < aloneWait
}

// probe limits a claim to one recipient. It reports false when another claim of this
// process is limited so, or, where the recipient has to be alone, when there is any.
func (m *Member) probe(c *Claim, d deaths) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.claims {
		switch {
		case other == c:
		case d.kind == diedAlone:
			if time.Since(m.lonelySince) > aloneAgain {
				m.lonely, m.lonelySince = c.ID(), time.Now()
			}
			return false
		case other.probing:
			return false
		}
	}
	c.probing, c.only, c.alone, c.probed = true, d.index, d.kind == diedAlone, d
	if c.alone {
		m.lonely = ""
	}
	return true
}
