package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

func TestCode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern string
		reply   mail.Reply
		want    bool
	}{
		{"550", mail.Reply{Code: 550}, true},
		{"4xx", mail.Reply{Code: 451}, true},
		{"4XX", mail.Reply{Code: 550}, false},
		{"55x", mail.Reply{Code: 554, Enhanced: "4.0.0"}, true},
		{"5.1.1", mail.Reply{Code: 550, Enhanced: "5.1.1"}, true},
		{"5.1.x", mail.Reply{Code: 550, Enhanced: "5.1.10"}, true},
		{"5.1.1", mail.Reply{Code: 550, Enhanced: "5.1.10"}, false},
		{"5.x.x", mail.Reply{Code: 550}, false},
		{"5xx", mail.Reply{Text: "the worker died"}, false},
	} {
		c, err := ParseCode(tc.pattern)
		if err != nil || c.matches(tc.reply) != tc.want {
			t.Errorf("%q on %v: want %v, %v", tc.pattern, tc.reply, tc.want, err)
		}
	}
	for _, bad := range []string{"", "5", "55", "5500", "350", "xxx", "5.1", "5.1.1.1", "5..1", "5.1.x1", "55.1.1", "5.1000.1", "5 0", "-50"} {
		if c, err := ParseCode(bad); err == nil {
			t.Errorf("ParseCode(%q) took it as %q", bad, c)
		}
	}
}

// mixed stores a finished campaign of eight recipients, one with each end there is.
func mixed(t *testing.T, q *Queue, m *Member) *Campaign {
	t.Helper()
	c := store(t, q, "mixed", 2, 4)
	cl := claim(t, m, c, 0)
	accept(m, cl, 0)
	m.Record(m.Declare(cl, 1), mail.Rejected, mail.Reply{Code: 550, Enhanced: "5.1.1"}, 0)
	m.Record(m.Declare(cl, 2), mail.Rejected, mail.Reply{Code: 554, Enhanced: "5.7.1"}, 0)
	m.Record(m.Declare(cl, 3), mail.Unknown, mail.Reply{Text: "connection lost"}, 0)
	settle(t, m, cl)
	cl = claim(t, m, c, 1)
	m.Record(m.Declare(cl, 0), mail.Deferred, mail.Reply{Code: 451}, m.Now()+3_600_000)
	m.Decide(cl, 1, mail.Expired, mail.Reply{Text: "too old"})
	accept(m, cl, 2)
	accept(m, cl, 3)
	settle(t, m, cl)
	return c
}

func settle(t testing.TB, m *Member, cl *Claim) {
	t.Helper()
	if err := m.Settle(t.Context(), cl, false); err != nil {
		t.Fatal(err)
	}
}

// Each selection reopens exactly those it names, in a finished campaign, once.
func TestReopen(t *testing.T) {
	t.Parallel()
	code := func(s string) []Code {
		c, err := ParseCode(s)
		if err != nil {
			t.Fatal(err)
		}
		return []Code{c}
	}
	type reopening struct {
		sel  Selection
		want []string // who is due
		due  []int    // blocks
	}
	eachCase(t, map[string]reopening{
		"rejected":         {Selection{Outcomes: []mail.Outcome{mail.Rejected}}, []string{"0/1", "0/2"}, []int{0}},
		"rejected by code": {Selection{Outcomes: []mail.Outcome{mail.Rejected}, Codes: code("5.1.1")}, []string{"0/1"}, []int{0}},
		"unknown":          {Selection{Outcomes: []mail.Outcome{mail.Unknown}}, []string{"0/3"}, []int{0}},
		"deferred":         {Selection{Outcomes: []mail.Outcome{mail.Deferred}}, []string{"1/0"}, []int{1}},
		"expired, deferred": {Selection{Outcomes: []mail.Outcome{mail.Expired, mail.Deferred}}, []string{"1/0", "1/1"},
			[]int{1}},
		"nobody": {Selection{Outcomes: []mail.Outcome{mail.Deferred}, Codes: code("421")}, nil, nil},
		// Not even an operator has somebody sent to again who was accepted.
		"accepted": {Selection{Outcomes: []mail.Outcome{mail.Accepted, mail.Pending, mail.Cancelled}}, nil, nil},
	}, func(t *testing.T, q *Queue, tc reopening) {
		m := silent(t, q)
		c := mixed(t, q, m)
		before := summary(t, q, c)
		if got, err := q.Reopen(t.Context(), c, tc.sel, true); err != nil || got.Total() != len(tc.want) || summary(t, q, c).Outcomes != before.Outcomes {
			t.Errorf("dry: %+v, %v", got, err)
		}
		for i, want := range []int{len(tc.want), 0} { // the same once more reopens nobody
			if got, err := q.Reopen(t.Context(), c, tc.sel, false); err != nil || got.Total() != want {
				t.Errorf("call %d: %+v, %v; want %d", i+1, got, err, want)
			}
		}
		summary(t, q, c)
		now := m.Now() + 1000
		var who []string
		var blocks []int
		for n := range c.Blocks {
			_, st, err := q.load(t.Context(), c.ID, n)
			if err != nil {
				t.Fatal(err)
			}
			for i := range st {
				if at, ok := st[i].DueAt(false); ok && at <= now {
					who = append(who, fmt.Sprintf("%d/%d", n, i))
				}
			}
			if at, err := q.rdb.ZScore(t.Context(), q.keys.ready(c.Stream), blockID(c.ID, n)).Result(); err == nil && int64(at) <= now {
				blocks = append(blocks, n)
			}
		}
		if !slices.Equal(who, tc.want) || !slices.Equal(blocks, tc.due) {
			t.Errorf("due are %v in blocks %v, want %v in %v", who, blocks, tc.want, tc.due)
		}
	})
}

// Who was unknown and is sent to again may have got it twice, and that is said. A
// late acceptance of the first attempt drops a second one that was not begun.
func TestReopenUnknown(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := store(t, q, "spring", 1, 2)
		cl := claim(t, m, c, 0)
		first, second := m.Declare(cl, 0), m.Declare(cl, 1)
		m.Record(first, mail.Unknown, mail.Reply{}, 0)
		m.Record(second, mail.Unknown, mail.Reply{}, 0)
		settle(t, m, cl)
		if got, err := q.Reopen(t.Context(), c, Selection{Outcomes: []mail.Outcome{mail.Unknown}}, false); err != nil || got.Outcomes[mail.Unknown] != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		if s := summary(t, q, c); s.Count(mail.Deferred) != 2 || s.Resent != 0 {
			t.Errorf("reopened: %v, resent %d", s.Outcomes, s.Resent)
		}
		late := pastWrite{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: appendEvidence(nil, Evidence{Index: 1, Attempt: 1, Outcome: mail.Accepted})}
		if err := m.writeEvidence(t.Context(), []pastWrite{late}); err != nil {
			t.Fatal(err)
		}
		cl = claim(t, m, c, 0)
		if _, due := cl.Standings[1].DueAt(false); due {
			t.Error("heard of as accepted, and due all the same")
		}
		accept(m, cl, 0)
		settle(t, m, cl)
		if s := summary(t, q, c); s.Count(mail.Accepted) != 2 || s.Resent != 1 {
			t.Errorf("%v, resent %d", s.Outcomes, s.Resent)
		}
	})
}

// A reopening in the middle of a claim comes through: the holder keeps to what it knew,
// and what it writes afterwards neither undoes nor doubles it.
func TestReopenWhileClaimed(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := store(t, q, "spring", 1, 3)
		cl := claim(t, m, c, 0)
		m.Record(m.Declare(cl, 0), mail.Rejected, mail.Reply{Code: 550}, 0)
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		sel := Selection{Outcomes: []mail.Outcome{mail.Rejected}}
		if got, err := q.Reopen(t.Context(), c, sel, false); err != nil || got.Total() != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		accept(m, cl, 1)
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 1 || s.Count(mail.Deferred) != 1 || s.Count(mail.Pending) != 1 {
			t.Errorf("what the holder writes now is not seen: %v", s.Outcomes)
		}
		again := pastWrite{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: appendEvidence(nil, Evidence{Attempt: 1, Outcome: mail.Rejected, Reply: mail.Reply{Code: 550}})}
		if err := m.append(t.Context(), q.rdb, []pastWrite{again}); err != nil {
			t.Fatal(err)
		}
		accept(m, cl, 2)
		settle(t, m, cl)
		cl = claim(t, m, c, 0)
		if at, due := cl.Standings[0].DueAt(false); !due || at > m.Now() {
			t.Errorf("%+v", cl.Standings[0])
		}
		accept(m, cl, 0)
		settle(t, m, cl)
		if s := summary(t, q, c); s.Count(mail.Accepted) != 3 || !s.Settled {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

// The age of who was reopened counts from then, and what was decided before does not
// count any more, also where a worker that has not heard of it decides.
func TestReopenedAge(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := store(t, q, "spring", 1, 1)
		cl := claim(t, m, c, 0)
		m.Decide(cl, 0, mail.Expired, mail.Reply{})
		settle(t, m, cl)
		old := claim(t, m, c, 0)
		before := m.Now()
		if got, err := q.Reopen(t.Context(), c, Selection{Outcomes: []mail.Outcome{mail.Expired}}, false); err != nil || got.Total() != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		m.Decide(old, 0, mail.Cancelled, mail.Reply{}) // as it knew the recipient
		settle(t, m, old)
		cl = claim(t, m, c, 0)
		if s := &cl.Standings[0]; s.Outcome != mail.Deferred || s.Reopened < before-1000 {
			t.Fatalf("%+v", s)
		}
		m.Decide(cl, 0, mail.Expired, mail.Reply{})
		settle(t, m, cl)
		if s := summary(t, q, c); s.Count(mail.Expired) != 1 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

// A call that ended between writing and waking is finished by its repeat, and one
// whose answer was lost counts what it did.
func TestReopenIsRepeatable(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := mixed(t, q, m)
		sel := Selection{Outcomes: []mail.Outcome{mail.Rejected}}
		ctx, cancel := context.WithCancel(t.Context())
		q.rdb.AddHook(&between{match: runs(q.scripts.touch), do: cancel})
		if _, err := q.Reopen(ctx, c, sel, false); !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
		ready := func() int64 { return q.rdb.ZCount(t.Context(), q.keys.ready(mail.Ad), "0", "0").Val() }
		if ready() != 0 {
			t.Fatal("the block is due: the test shows nothing")
		}
		if _, err := q.Reopen(t.Context(), c, sel, false); err != nil || ready() != 1 {
			t.Errorf("%d blocks due, %v", ready(), err)
		}
		// The script runs twice, as when go-redis repeats a call whose answer was lost.
		unknown := Selection{Outcomes: []mail.Outcome{mail.Unknown}}
		twice := &doubled{script: q.scripts.settle.Hash()}
		q.rdb.AddHook(twice)
		if got, err := q.Reopen(t.Context(), c, unknown, false); err != nil || got.Total() != 1 || !twice.done.Load() {
			t.Errorf("%+v, %v", got, err)
		}
		if s := summary(t, q, c); s.Count(mail.Deferred) != 4 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

func TestReopenIsRefused(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := mixed(t, q, m)
		if err := q.Cancel(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Reopen(t.Context(), c, Selection{Outcomes: []mail.Outcome{mail.Rejected}}, false); !errors.Is(err, ErrCancelled) {
			t.Errorf("cancelled: %v", err)
		}
		half := staged(t, q, "d").Campaign()
		if _, err := q.Reopen(t.Context(), half, Selection{Outcomes: []mail.Outcome{mail.Rejected}}, false); !errors.Is(err, ErrNotOpen) {
			t.Errorf("half stored: %v", err)
		}
	})
}

func TestSettleUnknown(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		c := mixed(t, q, m)
		if _, err := q.SettleUnknown(t.Context(), c, mail.Deferred, ""); err == nil {
			t.Error("settled as deferred")
		}
		for i, want := range []int{1, 0} {
			if got, err := q.SettleUnknown(t.Context(), c, mail.Accepted, "seen in the mailbox"); err != nil || got.Total() != want {
				t.Errorf("call %d: %+v, %v", i+1, got, err)
			}
		}
		if s := summary(t, q, c); s.Count(mail.Unknown) != 0 || s.Count(mail.Accepted) != 4 {
			t.Errorf("%v", s.Outcomes)
		}
		_, st, err := q.load(t.Context(), c.ID, 0)
		if err != nil || st[3].Reply.Text != "seen in the mailbox" {
			t.Errorf("%+v, %v", st, err)
		}
		late := pastWrite{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: appendEvidence(nil, Evidence{Index: 3, Attempt: 1, Outcome: mail.Rejected, Reply: mail.Reply{Code: 550}})}
		if err := m.writeEvidence(t.Context(), []pastWrite{late}); err != nil {
			t.Fatal(err)
		}
		settle(t, m, claim(t, m, c, 0))
		if s := summary(t, q, c); s.Count(mail.Rejected) != 3 || s.Count(mail.Accepted) != 3 {
			t.Errorf("the relay said otherwise: %v", s.Outcomes)
		}
	})
}
