package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
	return []mail.Outcome{mail.Deferred, mail.Accepted, mail.Rejected, mail.Unknown, mail.Expired, mail.Cancelled, mail.Suppressed}
}

// Fields of a campaign's totals beside the outcomes.
const (
	resentField      = "resent"
	againField       = "again"
	connectionsField = "connections"
	updatedField     = "updated" // ms: when a block was last settled; written by settle.lua
)

// CountConnections notes that n connections were opened for a campaign's mail, unless the
// campaign is gone meanwhile.
func (q *Queue) CountConnections(ctx context.Context, campaign string, n int) error {
	keys := []string{q.keys.meta(campaign), q.keys.totals(campaign)}
	if err := q.scripts.count.Run(ctx, q.rdb, keys, connectionsField, n).Err(); err != nil {
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
	nums := make([]int, len(parts))
	for i, p := range parts {
		if nums[i], err = strconv.Atoi(p); err != nil || nums[i] < 0 {
			return t, fmt.Errorf("share of totals %q: %w", s, errCorrupt)
		}
	}
	switch want := len(counted()) + 2; {
	case len(nums) < want: // an older program's: made anew with more
		return t, fmt.Errorf("share of totals %q: %w", s, errCorrupt)
	case len(nums) > want:
		return t, fmt.Errorf("share of totals %q: %w", s, errNewer)
	}
	for i, o := range counted() {
		t.outcomes[o] = nums[i]
	}
	t.resent, t.again = nums[len(nums)-2], nums[len(nums)-1]
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

// add moves t by what a block's share changed.
func (t *tally) add(now, old tally) {
	for o := range t.outcomes {
		t.outcomes[o] += now.outcomes[o] - old.outcomes[o]
	}
	t.resent += now.resent - old.resent
	t.again += now.again - old.again
}

// parseTotals reads a campaign's totals.
func parseTotals(m map[string]string) (t tally, err error) {
	num := func(field string) int64 {
		v, e := strconv.ParseInt(m[field], 10, 64)
		if e != nil && m[field] != "" && err == nil {
			err = fmt.Errorf("total %s: %w", field, errCorrupt)
		}
		return v
	}
	for _, o := range counted() {
		t.outcomes[o] = int(num(o.String()))
	}
	t.resent, t.again, t.connections = int(num(resentField)), int(num(againField)), int(num(connectionsField))
	if ms := num(updatedField); ms > 0 {
		t.updated = time.UnixMilli(ms)
	}
	return t, err
}

// tally adds up a campaign at one moment.
func (q *Queue) tally(ctx context.Context, c *Campaign) (tally, error) {
	t, _, err := q.account(ctx, c)
	return t, err
}

// account is tally, with the blocks whose records do not decode. Where the totals
// themselves do not, they are made anew.
func (q *Queue) account(ctx context.Context, c *Campaign) (tally, []Aside, error) {
	t, aside, err := q.addUp(ctx, c)
	if errors.Is(err, errCorrupt) {
		if err = q.mendTotals(ctx, c.ID); err == nil {
			t, aside, err = q.addUp(ctx, c)
		}
	}
	return t, aside, err
}

// addUp reads the totals, and beside them, in one transaction so that a block that is
// settled in between is counted once, the blocks whose share is not up to date.
func (q *Queue) addUp(ctx context.Context, c *Campaign) (tally, []Aside, error) {
	pipe := q.rdb.Pipeline()
	live, bad := pipe.SMembers(ctx, q.keys.live(c.ID)), pipe.HGetAll(ctx, q.keys.bad(c.ID))
	if _, err := pipe.Exec(ctx); err != nil {
		return tally{}, nil, q.unreachable(err)
	}
	blocks := live.Val()
	for field := range bad.Val() {
		blocks = append(blocks, field)
	}
	pipe = q.rdb.TxPipeline()
	totals := pipe.HGetAll(ctx, q.keys.totals(c.ID))
	reads := map[int]blockRead{}
	for _, field := range blocks {
		if n, err := strconv.Atoi(field); err == nil && n >= 0 && n < c.Blocks {
			reads[n] = q.readIn(ctx, pipe, c.ID, n)
		}
	}
	_, _ = pipe.Exec(ctx) // each command says it by itself
	if err := totals.Err(); err != nil {
		return tally{}, nil, q.unreachable(err)
	}
	t, err := parseTotals(totals.Val())
	if err != nil {
		return t, nil, err
	}
	var aside []Aside
	for n, r := range reads {
		b, err := r.data()
		if err != nil && !errors.Is(err, errCorrupt) {
			return t, nil, q.unreachable(err)
		}
		st, why := q.codec.lastKnown(b, c.blockSize(n), bad.Val()[strconv.Itoa(n)])
		if why != "" {
			aside = append(aside, Aside{Block: n, Recipients: c.blockSize(n), Why: why})
		}
		if st == nil { // what is settled is all that this program understands of it
			continue
		}
		old, err := parseTally(b.sum)
		if err != nil {
			return t, nil, err
		}
		t.add(count(st), old)
	}
	slices.SortFunc(aside, func(a, b Aside) int { return a.Block - b.Block })
	return t, aside, nil
}

// mendTotals makes totals anew that do not decode, or do not fit the shares.
func (q *Queue) mendTotals(ctx context.Context, id string) error {
	dropped, err := q.sumUp(ctx, id)
	if err == nil {
		q.log.Warn("a campaign's totals did not decode and were added up anew", "campaign", id, "shares_dropped", dropped)
	}
	return err
}

// sumUp adds a campaign's totals up anew from the shares of its blocks.
func (q *Queue) sumUp(ctx context.Context, id string) (dropped int, err error) {
	args := make([]any, 0, mail.NumOutcomes)
	for _, o := range counted() {
		args = append(args, o.String())
	}
	args = append(args, resentField, againField)
	dropped, err = q.scripts.mend.Run(ctx, q.rdb, []string{q.keys.sums(id), q.keys.totals(id), q.keys.live(id)}, args...).Int()
	if err != nil {
		return 0, fmt.Errorf("add up totals: %w", err)
	}
	return dropped, nil
}
