package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// tally counts the standings of a block, or of a campaign.
type tally struct {
	outcomes [mail.NumOutcomes]int
	resent   int
	again    int // unknown ones that the policy resend applies to
	// Of a whole campaign only:
	connections int
	updated     time.Time
}

func count(st []Standing) (t tally) {
	for _, s := range st {
		t.outcomes[s.Outcome]++
		if s.Resent {
			t.resent++
		}
		if s.again() {
			t.again++
		}
	}
	return t
}

// counted are the outcomes that totals hold; pending is what remains.
func counted() []mail.Outcome {
	return []mail.Outcome{mail.Deferred, mail.Accepted, mail.Rejected, mail.Unknown, mail.Expired, mail.Cancelled}
}

// Fields of a campaign's totals beside the outcomes.
const (
	resentField      = "resent"
	againField       = "again"
	connectionsField = "connections"
	updatedField     = "updated" // ms: when a block was last settled; written by settle.lua
)

// CountConnections notes that n connections were opened for a campaign's mail.
func (q *Queue) CountConnections(ctx context.Context, campaign string, n int) error {
	if err := q.rdb.HIncrBy(ctx, q.keys.totals(campaign), connectionsField, int64(n)).Err(); err != nil {
		return q.unreachable(err)
	}
	return nil
}

// String is how a block's share of the totals is stored; "" for a block nothing is
// known of.
func (t tally) String() string {
	var b strings.Builder
	for _, o := range counted() {
		b.WriteString(strconv.Itoa(t.outcomes[o]))
		b.WriteByte(',')
	}
	fmt.Fprintf(&b, "%d,%d", t.resent, t.again)
	return b.String()
}

func parseTally(s string) (t tally, err error) {
	if s == "" {
		return t, nil
	}
	parts := strings.Split(s, ",")
	if len(parts) != len(counted())+2 {
		return t, fmt.Errorf("share of totals %q: %w", s, errCorrupt)
	}
	for i, o := range counted() {
		if t.outcomes[o], err = strconv.Atoi(parts[i]); err != nil {
			return t, fmt.Errorf("share of totals: %w", err)
		}
	}
	if t.resent, err = strconv.Atoi(parts[len(parts)-2]); err == nil {
		t.again, err = strconv.Atoi(parts[len(parts)-1])
	}
	if err != nil {
		return t, fmt.Errorf("share of totals: %w", err)
	}
	return t, nil
}

// change lists, as field and difference, what moves the totals from old to t.
func (t tally) change(old tally) []any {
	var out []any
	for _, o := range counted() {
		if d := t.outcomes[o] - old.outcomes[o]; d != 0 {
			out = append(out, o.String(), d)
		}
	}
	if d := t.resent - old.resent; d != 0 {
		out = append(out, resentField, d)
	}
	if d := t.again - old.again; d != 0 {
		out = append(out, againField, d)
	}
	return out
}

// Summary is a campaign's account at one moment. The identity of the outside
// contract holds in it by construction: Pending is what is left.
type Summary struct {
	Campaign *Campaign
	Outcomes [mail.NumOutcomes]int
	Resent   int
	Held     *Hold // why nothing of it is being sent, if so
	// Settled says that no recipient has anything ahead of it: no one is pending or
	// deferred, and no unknown one will be sent again.
	Settled bool
	// ConnectionsOpened counts the connections that were opened while mail of this
	// campaign was the next to be sent.
	ConnectionsOpened int

	opened, updated time.Time
}

// Took is how long the campaign has been under way, up to its last outcome once it
// is settled.
func (s *Summary) Took(now time.Time) time.Duration {
	if s.opened.IsZero() || now.Before(s.opened) {
		return 0
	}
	if s.Settled && s.updated.After(s.opened) {
		now = s.updated
	}
	return now.Sub(s.opened)
}

// Count returns the number of recipients with outcome o.
func (s *Summary) Count(o mail.Outcome) int { return s.Outcomes[o] }

// State is the campaign's state in one word: staging, scheduled, sending, paused,
// held, cancelled or done.
func (s *Summary) State(now time.Time) string {
	switch {
	case !s.Campaign.Open:
		return "staging"
	case s.Settled && s.Held != nil && s.Held.State == HoldCancelled:
		return HoldCancelled
	case s.Settled:
		return "done"
	case s.Held != nil:
		return s.Held.State
	case now.Before(s.Campaign.Start):
		return "scheduled"
	}
	return "sending"
}

// Summary adds up a campaign: the totals of settled blocks, and the logs of those
// being worked on. resend is the stream's policy for unknown recipients.
func (q *Queue) Summary(ctx context.Context, c *Campaign, resend bool) (*Summary, error) {
	c, err := q.campaign(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	s := &Summary{Campaign: c}
	if s.Held, err = q.heldBy(ctx, c); err != nil {
		return nil, err
	}
	if !c.Open {
		return s, nil
	}
	t, err := q.tally(ctx, c)
	if err != nil {
		return nil, err
	}
	s.Outcomes, s.Resent = t.outcomes, t.resent
	s.ConnectionsOpened, s.opened, s.updated = t.connections, c.Created, t.updated
	if c.Start.After(s.opened) {
		s.opened = c.Start
	}
	s.Outcomes[mail.Invalid], s.Outcomes[mail.Duplicate], s.Outcomes[mail.Suppressed] = c.Counts.Invalid, c.Counts.Duplicate, c.Counts.Suppressed
	s.Outcomes[mail.Pending] = 0
	left := c.Counts.Recipients
	for _, n := range s.Outcomes {
		left -= n
	}
	s.Outcomes[mail.Pending] = left
	s.Settled = left == 0 && s.Outcomes[mail.Deferred] == 0 && (!resend || t.again == 0)
	return s, nil
}

// tally reads totals and live blocks in one transaction, so that a block settled
// in between is counted once.
func (q *Queue) tally(ctx context.Context, c *Campaign) (tally, error) {
	live, err := q.rdb.SMembers(ctx, q.keys.live(c.ID)).Result()
	if err != nil {
		return tally{}, q.unreachable(err)
	}
	type parts struct {
		state, log *redis.StringCmd
		sum        *redis.StringCmd
		size       int
	}
	blocks := make([]parts, 0, len(live))
	pipe := q.rdb.TxPipeline()
	totals := pipe.HGetAll(ctx, q.keys.totals(c.ID))
	for _, field := range live {
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 || n >= c.Blocks {
			continue
		}
		blocks = append(blocks, parts{pipe.Get(ctx, q.keys.state(c.ID, n)), pipe.Get(ctx, q.keys.log(c.ID, n)), pipe.HGet(ctx, q.keys.sums(c.ID), field), c.blockSize(n)})
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return tally{}, q.unreachable(err)
	}
	var t tally
	for _, o := range counted() {
		t.outcomes[o], _ = strconv.Atoi(totals.Val()[o.String()])
	}
	t.resent, _ = strconv.Atoi(totals.Val()[resentField])
	t.again, _ = strconv.Atoi(totals.Val()[againField])
	t.connections, _ = strconv.Atoi(totals.Val()[connectionsField])
	if ms, err := strconv.ParseInt(totals.Val()[updatedField], 10, 64); err == nil {
		t.updated = time.UnixMilli(ms)
	}
	for _, p := range blocks {
		st, err := q.codec.decodeState([]byte(p.state.Val()), p.size)
		if err == nil {
			err = fold(st, []byte(p.log.Val()))
		}
		if err != nil {
			return tally{}, err
		}
		old, err := parseTally(p.sum.Val())
		if err != nil {
			return tally{}, err
		}
		now := count(st)
		for o := range t.outcomes {
			t.outcomes[o] += now.outcomes[o] - old.outcomes[o]
		}
		t.resent += now.resent - old.resent
		t.again += now.again - old.again
	}
	return t, nil
}

// Row is one recipient of a campaign as the report shows it.
type Row struct {
	Line    int
	Address string
	Standing
}

// Rows calls f for every row of the input that was accepted at the door, block by
// block, then for those that were refused there. An error of f ends it.
func (q *Queue) Rows(ctx context.Context, c *Campaign, f func(Row) error) error {
	for n := range c.Blocks {
		b, st, err := q.load(ctx, c.ID, n)
		if err != nil {
			return err
		}
		for i := range st {
			if err := f(Row{b.Lines[i], b.Emails[i], st[i]}); err != nil {
				return err
			}
		}
	}
	for n := range c.Doors {
		data, err := q.rdb.Get(ctx, q.keys.refused(c.ID, n)).Bytes()
		if err != nil {
			return fmt.Errorf("refused rows, slice %d: %w", n, err)
		}
		b, err := q.codec.decodeBlock(data)
		if err != nil || len(b.Values) != 2 {
			return fmt.Errorf("refused rows, slice %d: %w", n, errCorrupt)
		}
		for i, line := range b.Lines {
			o, err := mail.ParseOutcome(b.Values[0][i])
			if err != nil {
				return fmt.Errorf("refused rows, slice %d: %w", n, err)
			}
			row := Row{line, b.Emails[i], Standing{Outcome: o, Reply: mail.Reply{Text: b.Values[1][i]}, Time: c.Created.UnixMilli()}}
			if err := f(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads a block and what is known of its recipients.
func (q *Queue) load(ctx context.Context, id string, n int) (*Block, []Standing, error) {
	pipe := q.rdb.TxPipeline()
	data, state, log := pipe.Get(ctx, q.keys.recipients(id, n)), pipe.Get(ctx, q.keys.state(id, n)), pipe.Get(ctx, q.keys.log(id, n))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, fmt.Errorf("read block %s: %w", blockID(id, n), err)
	}
	if data.Err() != nil {
		return nil, nil, fmt.Errorf("block %s is not stored: %w", blockID(id, n), errCorrupt)
	}
	b, err := q.codec.decodeBlock([]byte(data.Val()))
	if err != nil {
		return nil, nil, fmt.Errorf("block %s: %w", blockID(id, n), err)
	}
	st, err := q.codec.decodeState([]byte(state.Val()), b.Len())
	if err == nil {
		err = fold(st, []byte(log.Val()))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("block %s: %w", blockID(id, n), err)
	}
	return b, st, nil
}
