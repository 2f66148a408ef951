package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluicemail/sluice/internal/fault"
	"github.com/sluicemail/sluice/internal/mail"
)

// Claim is a block that this member, and nobody else, may send from.
type Claim struct {
	Campaign  *Campaign
	N         int
	Epoch     int64
	Cancelled bool // the campaign is cancelled: whoever is not done is to be marked so
	Block     *Block
	Standings []Standing // changed by Record and Decide only, under the member's lock
	// NotBefore, if set, says when (ms, 0 = at once) a recipient may be sent to at all:
	// Settle makes the block due again no sooner. Its holder sets it before Settle.
	NotBefore func(index int) int64

	canary    string      // recipients of a canary that was out when it was claimed, or ""
	first     int         // so many of the block may be sent to
	deaths    string      // of those who held it before, as stored, or ""
	probing   bool        // only one recipient may be sent to; written under the member's lock
	only      int         // which one
	probed    deaths      // and why
	turn      func(bool)  // notes whether it is their turn
	alone     bool        // and this process takes no other block meanwhile
	lost      atomic.Bool // somebody else's newer claim stands: stop sending from it
	unwritten []byte      // evidence not yet in a batch; under the member's lock
}

// ID names the block within its stream.
func (c *Claim) ID() string { return blockID(c.Campaign.ID, c.N) }

// Lost reports whether the claim was lost to another member.
func (c *Claim) Lost() bool { return c.lost.Load() }

// ErrNotClaimed is returned when a block cannot be claimed now: another member has
// it, or it is held. The schedule knows when it is due again.
var ErrNotClaimed = errors.New("block not to be had")

// Claim takes a block for this member and reads it.
func (m *Member) Claim(ctx context.Context, s mail.Stream, campaign string, n int) (*Claim, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	id := blockID(campaign, n)
	if m.rewound.Load() != nil {
		return nil, fmt.Errorf("claim block %s: %w: redis came back with older data", id, ErrNotClaimed)
	}
	c, err := m.claim(ctx, s, campaign, n)
	fault.Here("queue.claimed")
	if err == nil {
		if c.Block, c.Standings, err = m.q.load(ctx, campaign, n); err != nil {
			err = m.unreadable(ctx, c, err)
		}
	}
	if err == nil {
		err = c.begins()
	}
	if err == nil {
		err = m.suspect(ctx, c)
	}
	if err == nil && c.probing {
		ctx := context.WithoutCancel(ctx)
		c.turn = func(come bool) { m.noteTurn(ctx, c, come) }
	}
	if err == nil {
		err = m.q.rdb.SAdd(ctx, m.q.keys.live(campaign), n).Err()
	}
	if err != nil {
		// A claim stays in Redis; the reconciler finds that nobody works on it.
		m.forget(id, c)
		return nil, fmt.Errorf("claim block %s: %w", id, err)
	}
	return c, nil
}

// claim takes a block, and has it on the member's books before Redis gives it: a
// claim that is not there could be given up as nobody's, or be missing from what is
// written again after a restart, while its block is still being read.
func (m *Member) claim(ctx context.Context, s mail.Stream, campaign string, n int) (*Claim, error) {
	q, id := m.q, blockID(campaign, n)
	about, err := q.campaign(ctx, campaign)
	if errors.Is(err, ErrNoCampaign) || errors.Is(err, errCorrupt) {
		err = errors.Join(err, q.rdb.HDel(ctx, q.keys.queued(s), id).Err()) // else its job would be made again for ever
	}
	if err != nil {
		return nil, err
	}
	if !about.Open || about.Stream != s || n < 0 || n >= about.Blocks {
		return nil, fmt.Errorf("%w: no such block in stream %s", ErrNotClaimed, s)
	}
	c := &Claim{Campaign: about, N: n}
	m.mu.Lock()
	if m.claims[id] == nil { // else it holds the block already, or is just settling it
		m.claims[id] = c
	}
	m.mu.Unlock()
	keys := []string{q.keys.queued(s), q.keys.claims(s), q.keys.epoch(s), q.keys.ready(s), q.keys.held(s), q.keys.canary(s), q.keys.deaths(s)}
	res, err := q.scripts.claim.Run(ctx, q.rdb, keys, id, campaign, m.nonce, m.login(s)).StringSlice()
	if err == nil && len(res) != 4 {
		err = refusedClaim(res)
	}
	var epoch int64
	if err == nil {
		epoch, err = strconv.ParseInt(res[1], 10, 64)
	}
	if err != nil {
		m.forget(id, c)
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.Epoch, c.Cancelled, c.canary, c.deaths = epoch, res[0] == "cancelled", res[2], res[3]
	m.claims[id] = c
	return c, nil
}

// Settle folds a claim's log into its state, moves the totals, and gives the claim
// up: the block comes back when somebody in it is due again. Everything of the
// claim must have been recorded. It is repeated until Redis has taken it or ctx
// ends; giving up half-way loses nothing, whoever claims the block next does it.
func (m *Member) Settle(ctx context.Context, c *Claim, resend bool) error {
	if err := m.Flush(ctx); err != nil {
		return fmt.Errorf("settle %s: %w", c.ID(), err)
	}
	if err := m.Err(); err != nil {
		return err
	}
	st, err := m.q.settle(ctx, c)
	if err != nil {
		if err = m.unreadable(ctx, c, err); errors.Is(err, ErrNotClaimed) {
			return nil // its evidence is in the log, and it is given up
		}
		return fmt.Errorf("settle %s: %w", c.ID(), err)
	}
	due := ""
	if at, ok := nextDue(len(st), func(i int) (int64, bool) { return c.dueAt(&st[i], i, resend) }, m.Now()); ok {
		due = strconv.FormatInt(at, 10)
	}
	if c.canary != "" { // before anybody can find it over
		if err := m.tell(ctx); err != nil {
			return fmt.Errorf("settle %s: %w", c.ID(), err)
		}
	}
	s := c.Campaign.Stream
	if err := m.q.release(ctx, s, c.ID(), joinClaim(c.Epoch, m.nonce), due); err != nil {
		return fmt.Errorf("release %s: %w", c.ID(), err)
	}
	m.forget(c.ID(), c)
	if c.canary != "" {
		if err := m.q.pass(ctx, c.Campaign); err != nil {
			m.q.log.Debug("canary, left to the reconciler", "campaign", c.Campaign.Name, "err", err)
		}
	}
	return nil
}

// release gives up a claim, which stands as "epoch nonce".
func (q *Queue) release(ctx context.Context, s mail.Stream, block, claim, due string) error {
	campaign, _, _ := parseBlockID(block)
	keys := []string{q.keys.claims(s), q.keys.ready(s), q.keys.touched(s), q.keys.held(s), q.keys.deaths(s)}
	return q.scripts.release.Run(ctx, q.rdb, keys, block, claim, due, campaign).Err()
}

// Postpone gives a claim up of which nothing was sent; the block is due again after d.
// Where that does not succeed, the reconciler finds the claim.
func (m *Member) Postpone(ctx context.Context, c *Claim, d time.Duration) error {
	m.forget(c.ID(), c)
	due := strconv.FormatInt(m.Now()+d.Milliseconds(), 10)
	if err := m.q.release(ctx, c.Campaign.Stream, c.ID(), joinClaim(c.Epoch, m.nonce), due); err != nil {
		return fmt.Errorf("postpone %s: %w", c.ID(), err)
	}
	return nil
}

// forget takes a claim off the member's books, if it is the one that stands there.
func (m *Member) forget(id string, c *Claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claims[id] == c {
		delete(m.claims, id)
	}
}

// holdsClaim reports whether this process works on a block.
func (m *Member) holdsClaim(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.claims[id]
	return ok
}

// settle replaces the block's log by its folded state.
func (q *Queue) settle(ctx context.Context, c *Claim) ([]Standing, error) {
	st, _, err := q.refold(ctx, refold{campaign: c.Campaign.ID, n: c.N, size: c.Block.Len()})
	return st, err
}

// nextDue is when a block is to be claimed again: when its first recipient is due,
// a little later if that lets others go along.
func nextDue(n int, due func(int) (int64, bool), now int64) (int64, bool) {
	first, any := int64(0), false
	for i := range n {
		if at, ok := due(i); ok && (!any || at < first) {
			first, any = at, true
		}
	}
	if !any || first <= now {
		return first, any
	}
	window := first + min((first-now)/10, 60_000)
	last := first
	for i := range n {
		if at, ok := due(i); ok && at > last && at <= window {
			last = at
		}
	}
	return last, true
}

func joinClaim(epoch int64, nonce string) string { return strconv.FormatInt(epoch, 10) + " " + nonce }

func cutClaim(s string) (epoch int64, nonce string, ok bool) {
	num, nonce, ok := strings.Cut(s, " ")
	epoch, err := strconv.ParseInt(num, 10, 64)
	return epoch, nonce, ok && err == nil
}

// ErrLoginHeld is the ErrNotClaimed of a member whose own login is held: others may
// send the block, and asking for the next one at once would only take it from them.
var ErrLoginHeld = fmt.Errorf("%w: this worker's login is held", ErrNotClaimed)

func refusedClaim(res []string) error {
	if len(res) == 1 && res[0] == "login" {
		return ErrLoginHeld
	}
	return fmt.Errorf("%w: %v", ErrNotClaimed, res)
}
