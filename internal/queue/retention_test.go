package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// contents reads all that is stored, but for what is no campaign's: members, counters,
// whose turn it is, and asynq's statistics.
func contents(t *testing.T, q *Queue) map[string]string {
	t.Helper()
	out := map[string]string{}
	ctx := t.Context()
	all, err := q.rdb.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range all {
		if strings.Contains(key, ":{w}:") || strings.HasPrefix(key, "asynq:") || slices.ContainsFunc([]string{":epoch", ":seq", ":leader"},
			func(end string) bool { return strings.HasSuffix(key, end) }) {
			continue
		}
		switch kind := q.rdb.Type(ctx, key).Val(); kind {
		case "hash":
			m := q.rdb.HGetAll(ctx, key).Val()
			delete(m, versionField)
			if len(m) == 0 {
				continue
			}
			out[key] = fmt.Sprint(slices.Sorted(maps.Keys(m)))
		case "zset":
			out[key] = fmt.Sprint(q.rdb.ZRange(ctx, key, 0, -1).Val())
		case "set":
			out[key] = fmt.Sprint(q.rdb.SMembers(ctx, key).Val())
		case "list":
			out[key] = fmt.Sprint(q.rdb.LRange(ctx, key, 0, -1).Val())
		default:
			out[key] = kind
		}
	}
	return out
}

// retainNow runs one pass of the retention, whosever turn it is.
func retainNow(t *testing.T, m *Member) error {
	t.Helper()
	m.q.rdb.Del(t.Context(), m.q.keys.member("retainer"))
	_, err := m.retain(t.Context(), 0)
	return err
}

// aged lets the retention of all that is over end at once.
func aged(t *testing.T, q *Queue) {
	t.Helper()
	q.retention.After = time.Millisecond
	begun, err := q.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a moment passes", func() bool {
		now, err := q.now(t.Context())
		return err == nil && now > begun+1
	})
}

// finished makes a campaign that has left something in every place there is, and is
// over.
func finished(t *testing.T, q *Queue, m *Member, name string) *Campaign {
	t.Helper()
	ctx := t.Context()
	st, err := q.Stage(ctx, Campaign{
		Name: name, Key: name, Stream: mail.Ad, From: "s@example.com", Digest: "d", Size: 2, Canary: Canary{Recipients: 3},
	}, []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 { // the last was put by a producer of more, who gave up
		if err := st.Put(ctx, n, slice(n, 2)); err != nil {
			t.Fatal(err)
		}
	}
	refused := &Block{Lines: []int{9}, Emails: []string{"x"}, Values: [][]string{{"invalid"}, {"no address"}}}
	if err := st.Refuse(ctx, 0, refused); err != nil {
		t.Fatal(err)
	}
	if err := st.Commit(ctx, 3, 1, Door{Recipients: 7, Invalid: 1}); err != nil {
		t.Fatal(err)
	}
	c := st.Campaign()
	for n := range 2 {
		cl := claim(t, m, c, n)
		for i := range cl.Standings {
			if cl.DueAt(i, false); i < cl.first {
				accept(m, cl, i)
			}
		}
		m.Result(cl.Campaign, "", ResultAccepted, "")
		settle(t, m, cl)
	}
	if err := m.tell(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Feedback(ctx, c, []Told{{Line: 2, Fate: Bounced}}); err != nil {
		t.Fatal(err)
	}
	if err := q.CountConnections(ctx, c.ID, 1); err != nil {
		t.Fatal(err)
	}
	q.rdb.Set(ctx, q.keys.recipients(c.ID, 2), "x", 0)
	if _, err := m.Claim(ctx, c.Stream, c.ID, 2); !errors.Is(err, ErrNotClaimed) {
		t.Fatalf("it was not set aside: %v", err)
	}
	cl := claim(t, m, c, 1)
	accept(m, cl, 1)
	settle(t, m, cl)
	if _, err := q.hold(ctx, c.Stream, c.ID, storedHold{State: HoldPaused}); err != nil {
		t.Fatal(err)
	}
	// Late evidence of it, and a job, wait for nobody.
	q.rdb.ZAdd(ctx, q.keys.parked(c.Stream), z(0, blockID(c.ID, 0)), z(0, c.ID+"/"))
	if err := q.touchBlock(ctx, q.rdb, c.Stream, blockID(c.ID, 1)); err != nil {
		t.Fatal(err)
	}
	q.rdb.HSet(ctx, q.keys.queued(c.Stream), blockID(c.ID, 2), "7 7")
	q.rdb.SAdd(ctx, q.keys.touched(c.Stream), blockID(c.ID, 2))
	q.rdb.SAdd(ctx, q.keys.opening(c.Stream), c.ID)
	q.rdb.ZAdd(ctx, q.keys.later(c.Stream), z(1, c.ID))
	q.rdb.HSet(ctx, q.keys.canary(c.Stream), c.ID, c.canaryEntry())
	if s := summary(t, q, c); !s.Settled {
		t.Fatalf("not over: %+v", s)
	}
	return c
}

// Nothing is left of a campaign whose retention is over, and its key can be used again.
func TestRetention(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		before := contents(t, q)
		c := finished(t, q, m, "spring")
		if now := contents(t, q); len(now) < 15 {
			t.Errorf("a campaign leaves something in few places: %v", slices.Sorted(maps.Keys(now)))
		}
		q.retention.After = time.Hour
		if err := retainNow(t, m); err != nil {
			t.Fatal(err)
		}
		summary(t, q, c)
		aged(t, q)
		if err := retainNow(t, m); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, contents(t, q)); diff != "" {
			t.Errorf("left behind:\n%s", diff)
		}
		if err := q.CountConnections(t.Context(), c.ID, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Claim(t.Context(), c.Stream, c.ID, 0); !errors.Is(err, ErrNoCampaign) {
			t.Errorf("claim: %v", err)
		}
		if diff := cmp.Diff(before, contents(t, q)); diff != "" {
			t.Errorf("written to what is gone:\n%s", diff)
		}
		if again := store(t, q, "spring", 1, 1); again.ID != c.ID {
			t.Errorf("%+v", again)
		}
	})
}

// What is not over stays, however old.
func TestRetentionSpares(t *testing.T) {
	t.Parallel()
	type state struct {
		with   func(t *testing.T, q *Queue, m *Member, cl *Claim)
		resend bool
	}
	sent := func(o mail.Outcome) func(*testing.T, *Queue, *Member, *Claim) {
		return func(t *testing.T, _ *Queue, m *Member, cl *Claim) {
			m.Record(m.Declare(cl, 0), o, mail.Reply{}, m.Now()+3_600_000)
			settle(t, m, cl)
		}
	}
	eachCase(t, map[string]state{
		"deferred":            {sent(mail.Deferred), false},
		"unknown, to be sent": {sent(mail.Unknown), true},
		"pending": {func(t *testing.T, _ *Queue, m *Member, cl *Claim) {
			settle(t, m, cl)
		}, false},
		"claimed": {func(t *testing.T, q *Queue, m *Member, cl *Claim) {
			sent(mail.Accepted)(t, q, m, cl)
			claim(t, m, cl.Campaign, 0)
		}, false},
		"paused": {func(t *testing.T, q *Queue, m *Member, cl *Claim) {
			settle(t, m, cl)
			if _, err := q.hold(t.Context(), cl.Campaign.Stream, cl.Campaign.ID, storedHold{State: HoldPaused}); err != nil {
				t.Fatal(err)
			}
		}, false},
	}, func(t *testing.T, q *Queue, tc state) {
		m := silent(t, q)
		if tc.resend {
			q.retention.Resend = []mail.Stream{mail.Ad}
		}
		c := store(t, q, "spring", 1, 1)
		tc.with(t, q, m, claim(t, m, c, 0))
		aged(t, q)
		if err := retainNow(t, m); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.Exists(t.Context(), q.keys.recipients(c.ID, 0), q.keys.meta(c.ID)).Val(); n != 2 {
			t.Errorf("%d of 2 keys are left", n)
		}
	})
}

// A reopening between the look and the mark counts.
func TestRetentionSeesAReopening(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := store(t, q, "spring", 1, 1)
		cl := claim(t, m, c, 0)
		m.Record(m.Declare(cl, 0), mail.Rejected, mail.Reply{Code: 550}, 0)
		settle(t, m, cl)
		aged(t, q)
		q.rdb.AddHook(&between{match: runs(q.scripts.gone), do: func() {
			if _, err := q.Reopen(t.Context(), c, Selection{Outcomes: []mail.Outcome{mail.Rejected}}, false); err != nil {
				t.Error(err)
			}
		}})
		if err := retainNow(t, m); err != nil {
			t.Fatal(err)
		}
		if s := summary(t, q, c); s.Count(mail.Deferred) != 1 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

// A campaign that was never stored in full goes when nobody has come back for it.
func TestRetentionOfTheAbandoned(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		before := contents(t, q)
		st := staged(t, q, "d")
		for n := range removeAtOnce + 1 {
			if err := st.Put(t.Context(), n, slice(n, 1)); err != nil {
				t.Fatal(err)
			}
		}
		aged(t, q)
		pass := func() {
			t.Helper()
			if err := retainNow(t, m); err != nil {
				t.Fatal(err)
			}
		}
		if pass(); q.rdb.Exists(t.Context(), q.keys.meta(st.c.ID)).Val() != 1 {
			t.Fatal("a campaign was removed while it is being stored")
		}
		long := time.Now().Add(-abandoned - time.Minute).UnixMilli()
		q.rdb.HSet(t.Context(), q.keys.meta(st.c.ID), "begun", long, "created", long)
		staged(t, q, "d") // its producer comes back
		if pass(); q.rdb.Exists(t.Context(), q.keys.meta(st.c.ID)).Val() != 1 {
			t.Fatal("a campaign was removed whose producer came back")
		}
		q.rdb.HSet(t.Context(), q.keys.meta(st.c.ID), "begun", long)
		q.rdb.AddHook(&between{match: runs(q.scripts.gone), do: func() { staged(t, q, "d") }})
		if pass(); q.rdb.Exists(t.Context(), q.keys.meta(st.c.ID)).Val() != 1 {
			t.Fatal("a campaign was removed whose producer came back at the last moment")
		}
		q.rdb.HSet(t.Context(), q.keys.meta(st.c.ID), "begun", long)
		pass()
		if diff := cmp.Diff(before, contents(t, q)); diff != "" {
			t.Errorf("left behind:\n%s", diff)
		}
	})
}

// failing is a go-redis hook that fails every command after some.
type failing struct{ left int }

var errBroken = errors.New("broken")

func (f *failing) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (f *failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f.left--; f.left < 0 {
			cmd.SetErr(errBroken)
			return errBroken
		}
		return next(ctx, cmd)
	}
}

func (f *failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if f.left--; f.left < 0 {
			return errBroken
		}
		return next(ctx, cmds)
	}
}

// A removal that ends anywhere is gone on with, and until it is over the key is taken.
func TestRetentionIsRepeatable(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	m := silent(t, q)
	before := contents(t, q)
	going, steps := 0, 0
	for done := false; !done; steps++ {
		c := finished(t, q, m, fmt.Sprint("spring", steps))
		aged(t, q)
		broken := open(t, q.conn.Addrs[0])
		broken.retention = q.retention
		broken.rdb.AddHook(&failing{left: steps})
		q.rdb.Del(t.Context(), q.keys.member("retainer"))
		_, err := (&Member{q: broken}).retain(t.Context(), 0)
		if done = err == nil; !done && !errors.Is(err, errBroken) {
			t.Fatalf("step %d: %v", steps, err)
		}
		if q.rdb.HGet(t.Context(), q.keys.meta(c.ID), "state").Val() == goneState {
			going++
			if _, err := q.Stage(t.Context(), *c, nil); !errors.Is(err, ErrConflict) {
				t.Errorf("step %d: its key was given: %v", steps, err)
			}
			if _, err := q.Find(t.Context(), c.ID); !errors.Is(err, ErrNoCampaign) {
				t.Errorf("step %d: it is found: %v", steps, err)
			}
		}
		if err := retainNow(t, m); err != nil {
			t.Fatalf("step %d: %v", steps, err)
		}
		if diff := cmp.Diff(before, contents(t, q)); diff != "" {
			t.Fatalf("step %d left behind:\n%s", steps, diff)
		}
	}
	if steps < 12 || going < 6 {
		t.Errorf("%d steps, %d of them while it was going", steps, going)
	}
}

// Who still holds a block of a campaign that is gone gives it up.
func TestSettleOfWhatIsGone(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := store(t, q, "spring", 1, 1)
		cl := claim(t, m, c, 0)
		q.rdb.HSet(t.Context(), q.keys.meta(c.ID), "state", goneState)
		settle(t, m, cl)
		if n := q.rdb.HLen(t.Context(), q.keys.claims(c.Stream)).Val(); n != 0 {
			t.Error("the claim stands")
		}
	})
}

// A campaign that was stored anew while its predecessor was removed stays on the list.
func TestUnlist(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		q.rdb.ZAdd(t.Context(), q.keys.campaigns(), z(1_700_000_000_001, "x"))
		for _, tc := range []struct {
			score float64
			left  int64
		}{{1_700_000_000_000, 1}, {1_700_000_000_001, 0}} {
			if err := q.unlist(t.Context(), "x", tc.score); err != nil {
				t.Fatal(err)
			}
			if n := q.rdb.ZCard(t.Context(), q.keys.campaigns()).Val(); n != tc.left {
				t.Errorf("%v: %d left", tc.score, n)
			}
		}
	})
}

// Old campaigns that stay do not keep later ones from being looked at.
func TestRetentionLooksAtAll(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		for n := range retainAtOnce + 5 {
			store(t, q, fmt.Sprint("old", n), 1, 1)
		}
		c := finished(t, q, m, "spring")
		aged(t, q)
		at, err := int64(0), error(nil)
		for range 2 {
			q.rdb.Del(t.Context(), q.keys.member("retainer"))
			if at, err = m.retain(t.Context(), at); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := q.Find(t.Context(), c.ID); !errors.Is(err, ErrNoCampaign) || at != 0 {
			t.Errorf("it is still there: %v; next %d", err, at)
		}
	})
}
