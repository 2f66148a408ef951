package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// Fate is what became of a mail that the relay had accepted.
type Fate byte

// The fates. Of two that are told of one recipient the later in this list stands.
const (
	Delivered  Fate = 'd'
	Complained Fate = 'c' // delivered, and somebody called it spam
	Failed     Fate = 'f' // came back for a reason that says nothing against the address
	Bounced    Fate = 'h' // came back: the address is bad
	Blocked    Fate = 'b' // came back: the sender is not wanted
)

// fates in the order of their rank.
const fates = "dcfhb"

func (f Fate) rank() int { return strings.IndexByte(fates, byte(f)) }

func (k keys) fates(id string) string      { return k.campaign(id, "fb") }  // string: see feedback.lua
func (k keys) fateCounts(id string) string { return k.campaign(id, "fbn") } // hash: fate → recipients; "was:"+fate → those before the campaign was last resumed

// wasField is, of a campaign's counts, how many there were when it was last resumed.
const wasField = "was:"

// Told is what is told of one recipient.
type Told struct {
	Line  int // of the list
	Fate  Fate
	Group string    // destination group, of those that were blocked; "" = none
	Time  time.Time // when it happened; zero = now
	Text  string    // the reply that says so; what is shown of it has no addresses
}

// Heard is what Feedback did.
type Heard struct {
	Changed  int   // recipients of whom this was not known before
	Campaign *Hold // what holds the campaign because of this call; nil = nothing
	Groups   map[string]*Hold
}

// Feedback notes what became of accepted mails of a campaign, tells the breakers, and
// returns when every worker obeys what they hold. Telling it again changes nothing. Hard bounces
// and blocks are measured by all that was accepted, because they come in no order and
// good news often not at all; blocks hold their group, too, when so many happened
// within a time as Breakers.Blocks says. After an error some of it may be noted:
// telling all of it again is right.
func (q *Queue) Feedback(ctx context.Context, c *Campaign, told []Told) (Heard, error) {
	told = worst(told)
	h := Heard{Groups: map[string]*Hold{}}
	for rest := told; len(rest) > 0; {
		n := span(rest)
		blocked, changed, err := q.note(ctx, c, rest[:n])
		if err != nil {
			return h, err
		}
		h.Changed += changed
		if err := q.late(ctx, c, &h, blocked); err != nil {
			return h, err
		}
		rest = rest[n:]
	}
	if err := q.judgeLate(ctx, c, &h, told); err != nil || h.Campaign == nil && len(h.Groups) == 0 {
		return h, err
	}
	return h, q.awaitHeld(ctx, c.Stream)
}

// awaitHeld waits until every worker obeys the holds that there are now. That one does
// not yet is no error: it will with its next heartbeat.
func (q *Queue) awaitHeld(ctx context.Context, s mail.Stream) error {
	version, err := q.rdb.HGet(ctx, q.keys.held(s), versionField).Int64()
	if err != nil {
		return q.unreachable(err)
	}
	err = q.awaitSeen(ctx, s, version)
	if errors.Is(err, ErrUnconfirmed) {
		q.log.Warn("held because of feedback", "stream", string(s), "err", err)
		return nil
	}
	return err
}

// worst sorts by line and leaves one entry a line.
func worst(told []Told) []Told {
	told = slices.DeleteFunc(slices.Clone(told), func(t Told) bool { return t.Line < 0 || t.Fate.rank() < 0 })
	slices.SortStableFunc(told, func(a, b Told) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(b.Fate.rank(), a.Fate.rank()))
	})
	return slices.CompactFunc(told, func(a, b Told) bool { return a.Line == b.Line })
}

// Bounds of one call of feedback.lua, which then takes a millisecond or two: recipients,
// and lines from the first of them to the last.
const (
	spanTold  = 4096
	spanLines = 1 << 16
)

// span returns how many of told, which is sorted, one call takes.
func span(told []Told) int {
	n := 1
	for n < min(len(told), spanTold) && told[n].Line-told[0].Line < spanLines {
		n++
	}
	return n
}

// note stores what is told and returns those who are newly known to be blocked.
func (q *Queue) note(ctx context.Context, c *Campaign, told []Told) (blocked []Told, changed int, err error) {
	first, last := told[0].Line, told[len(told)-1].Line
	var b strings.Builder
	for _, t := range told {
		b.WriteString(strconv.Itoa(t.Line - first))
		b.WriteByte(byte(t.Fate))
	}
	keys := []string{q.keys.fates(c.ID), q.keys.fateCounts(c.ID), q.keys.meta(c.ID)}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	said, err := q.scripts.feedback.Run(ctx, q.rdb, keys, first, last, b.String()).Int64Slice()
	if err != nil {
		return nil, 0, fmt.Errorf("note feedback: %w", err)
	}
	if len(said) == 0 {
		return nil, 0, fmt.Errorf("note feedback: campaign %q is not open: %w", c.Name, ErrNoCampaign)
	}
	lines := said[1:] // ascending, as told is
	for _, t := range told {
		if len(lines) > 0 && t.Line == int(lines[0]) {
			blocked, lines = append(blocked, t), lines[1:]
		}
	}
	return blocked, int(said[0]), nil
}

// late gives new blocks to the windows of their groups, and those of no group to that
// of the campaign.
func (q *Queue) late(ctx context.Context, c *Campaign, h *Heard, blocked []Told) error {
	limit := q.breakers.Blocks
	if limit.Count == 0 || len(blocked) == 0 {
		return nil
	}
	now, err := q.now(ctx)
	if err != nil {
		return q.unreachable(err)
	}
	byGroup := map[string][]Told{}
	for _, t := range blocked {
		byGroup[t.Group] = append(byGroup[t.Group], t)
	}
	for group, all := range byGroup {
		if group == "" && c.Counts.Queued() <= alone {
			continue
		}
		held, err := q.judgeBlocks(ctx, c, all, now)
		switch {
		case err != nil:
			return err
		case held == nil:
		case group == "":
			h.Campaign = held
		default:
			h.Groups[group] = held
		}
	}
	return nil
}

// judgeBlocks gives blocks of one group, or of none, to their window and returns the hold
// that follows, nil if none does.
func (q *Queue) judgeBlocks(ctx context.Context, c *Campaign, blocked []Told, now int64) (*Hold, error) {
	limit := q.breakers.Blocks
	field, period, lift := c.ID, time.Duration(0), liftCampaign(c)
	if group := blocked[0].Group; group != "" {
		field, period, lift = groupMark+group, q.breakers.Period, ""
	}
	var times strings.Builder
	for _, t := range blocked {
		at := now
		if !t.Time.IsZero() {
			at = max(0, min(now, t.Time.UnixMilli()))
		}
		fmt.Fprintf(&times, "%d ", at)
	}
	hold, err := json.Marshal(storedHold{
		State: HoldHeld, Lift: lift,
		Why: fmt.Sprintf("%d blocks within %v, told of after the relay had accepted the mails", limit.Count, limit.Within),
	})
	if err != nil {
		return nil, fmt.Errorf("encode hold: %w", err)
	}
	args := []any{field, limit.Count, limit.Within.Milliseconds(), hold, period.Milliseconds(), q.breakers.Most.Milliseconds(), times.String()}
	for _, text := range examples(blocked, Blocked) {
		args = append(args, text)
	}
	stored, err := q.scripts.late.Run(ctx, q.rdb, []string{q.keys.held(c.Stream), q.keys.window(c.Stream, field)}, args...).Text()
	if err != nil {
		return nil, fmt.Errorf("judge feedback: %w", err)
	}
	if stored == "" {
		return nil, nil //nolint:nilnil // not held is no error
	}
	held, err := decodeHold(stored)
	return &held, err
}

// examples are the latest replies of a fate.
func examples(told []Told, f Fate) []string {
	var out []string
	for i := len(told) - 1; i >= 0 && len(out) < maxExamples; i-- {
		if told[i].Fate == f && told[i].Text != "" {
			out = append(out, told[i].Text)
		}
	}
	return cleanAll(out)
}

// judgeLate tells the campaign's breakers how much has come back by now, where anything
// has just been told to have. It tells the sum and no difference, so that a call that
// was interrupted, or two at once, count nothing twice and lose nothing.
func (q *Queue) judgeLate(ctx context.Context, c *Campaign, h *Heard, told []Told) error {
	worse := func(t Told) bool { return t.Fate == Bounced || t.Fate == Blocked }
	if c.Counts.Queued() <= alone || !slices.ContainsFunc(told, worse) {
		return nil
	}
	counts, err := q.fateCounts(ctx, c.ID)
	if err != nil {
		return err
	}
	t, err := q.tally(ctx, c)
	if err != nil {
		return err
	}
	if left := c.Counts.Queued() - t.results() + t.outcomes[mail.Deferred]; left <= 0 {
		return nil // there is nothing to hold
	}
	w := q.wireWindow(c, c.ID, &windowResults{examples: map[Result][]string{
		ResultBounced: examples(told, Bounced), ResultBlocked: examples(told, Blocked),
	}})
	w.Total = t.outcomes[mail.Accepted]
	w.Late = map[string]int{}
	for letter, f := range map[Result]Fate{ResultBounced: Bounced, ResultBlocked: Blocked} {
		w.Late[string(letter)] = counts[string(f)] - counts[wasField+string(f)]
	}
	held, err := q.judge(ctx, c.Stream, []wireWindow{w})
	if err != nil || len(held) < 2 {
		return err
	}
	hold, err := decodeHold(held[1])
	h.Campaign = &hold
	return err
}

// fateCounts reads how many recipients of a campaign have each fate, by its letter.
func (q *Queue) fateCounts(ctx context.Context, id string) (map[string]int, error) {
	m, err := q.rdb.HGetAll(ctx, q.keys.fateCounts(id)).Result()
	if err != nil {
		return nil, q.unreachable(err)
	}
	out := make(map[string]int, len(m))
	for field, v := range m {
		if out[field], err = strconv.Atoi(v); err != nil {
			return nil, fmt.Errorf("feedback of campaign %s, field %s: %w", id, field, errCorrupt)
		}
	}
	return out, nil
}

// forgetLate makes a campaign's feedback count anew for its breakers.
func (q *Queue) forgetLate(ctx context.Context, c *Campaign) error {
	counts, err := q.fateCounts(ctx, c.ID)
	if err != nil || len(counts) == 0 {
		return err
	}
	was := []any{wasField + string(Bounced), counts[string(Bounced)], wasField + string(Blocked), counts[string(Blocked)]}
	if err := q.rdb.HSet(ctx, q.keys.fateCounts(c.ID), was...).Err(); err != nil {
		return q.unreachable(err)
	}
	return nil
}

// readAtOnce is how many blocks Recipients asks for in one round trip.
const readAtOnce = 32

// Recipients calls f with the recipients of those blocks of a campaign, nil = all of
// them, in that order, until it returns false. Blocks that do not decode are left out.
func (q *Queue) Recipients(ctx context.Context, c *Campaign, blocks []int, f func(n int, b *Block) bool) error {
	if blocks == nil {
		for n := range c.Blocks {
			blocks = append(blocks, n)
		}
	}
	for part := range slices.Chunk(blocks, readAtOnce) {
		pipe := q.rdb.Pipeline()
		reads := make([]*redis.StringCmd, len(part))
		for i, n := range part {
			reads[i] = pipe.Get(ctx, q.keys.recipients(c.ID, n))
		}
		_, _ = pipe.Exec(ctx) // each command says it by itself
		for i, n := range part {
			data, err := value(reads[i])
			if err != nil && !errors.Is(err, errCorrupt) {
				return q.unreachable(err)
			}
			b, err := q.codec.decodeBlock([]byte(data))
			if errors.Is(err, errNewer) {
				return fmt.Errorf("block %s: %w", blockID(c.ID, n), err)
			}
			if err == nil && !f(n, b) {
				return nil
			}
		}
	}
	return nil
}

// Sent reports which recipients of block n the relay has, or may have, taken mail for.
func (q *Queue) Sent(ctx context.Context, c *Campaign, n int) ([]bool, error) {
	r, err := q.read(ctx, c.ID, n)
	if err != nil {
		return nil, q.unreachable(err)
	}
	st, _ := q.codec.lastKnown(r, c.blockSize(n), "")
	out := make([]bool, len(st))
	for i := range st {
		out[i] = st[i].Outcome == mail.Accepted || st[i].Outcome == mail.Unknown
	}
	return out, nil
}
