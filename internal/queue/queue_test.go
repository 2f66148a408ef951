package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eachRedis runs a test on the in-process Redis and on a real one: the scripts may
// use only what both have.
func eachRedis(t *testing.T, f func(t *testing.T, q *Queue)) {
	t.Helper()
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		f(t, open(t, miniredis.RunT(t).Addr()))
	})
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		f(t, open(t, redistest.Start(t).Addr()))
	})
}

func open(t testing.TB, addr string) *Queue {
	t.Helper()
	q, err := Open(Options{Connection: Connection{Addrs: []string{addr}}})
	if err != nil {
		t.Fatal(err)
	}
	q.rdb.AddHook(&slotWatch{t: t, seen: map[string]bool{}})
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return q
}

// store commits a campaign of blocks×size recipients.
func store(t testing.TB, q *Queue, name string, blocks, size int) *Campaign {
	t.Helper()
	st, err := q.Stage(t.Context(), Campaign{Name: name, Key: name, Stream: mail.Ad, From: "s@example.com", Digest: "d", Size: size}, []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range blocks {
		b := &Block{}
		for i := range size {
			b.Lines = append(b.Lines, n*size+i+2)
			b.Emails = append(b.Emails, fmt.Sprintf("r%d@example.com", n*size+i))
		}
		if err := st.Put(t.Context(), n, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Commit(t.Context(), blocks, 0, Door{Recipients: blocks * size}); err != nil {
		t.Fatal(err)
	}
	return st.Campaign()
}

// join makes a running member that leaves with the test.
func join(t testing.TB, q *Queue, h Hooks) *Member {
	t.Helper()
	m, err := q.Join(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		if err := m.Leave(context.Background()); err != nil && !strings.Contains(err.Error(), "refused") {
			t.Logf("leave: %v", err)
		}
	})
	return m
}

// eventually polls until ok, or fails the test after a generous while.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func accept(m *Member, c *Claim, i int) {
	m.Record(m.Declare(c, i), mail.Accepted, mail.Reply{Code: 250}, 0)
}

func claim(t testing.TB, m *Member, c *Campaign, n int) *Claim {
	t.Helper()
	cl, err := m.Claim(t.Context(), c.Stream, c.ID, n)
	if err != nil {
		t.Fatalf("claim block %d: %v", n, err)
	}
	return cl
}

func summary(t testing.TB, q *Queue, c *Campaign) *Summary {
	t.Helper()
	s, err := q.Summary(t.Context(), c, false)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range s.Outcomes {
		total += n
	}
	if total != c.Counts.Recipients {
		t.Fatalf("the identity does not hold: %v add up to %d of %d", s.Outcomes, total, c.Counts.Recipients)
	}
	return s
}

func TestStage(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 2)
		again, err := q.Stage(t.Context(), *c, []byte("program"))
		if err != nil || !again.Existing || again.Campaign().Blocks != 1 {
			t.Errorf("the same send again: %+v, %v", again, err)
		}
		other := *c
		other.Digest = "changed"
		if _, err := q.Stage(t.Context(), other, nil); !errors.Is(err, ErrConflict) {
			t.Errorf("the same key with other content: %v", err)
		}
		other = *c
		other.Key = "another"
		if _, err := q.Stage(t.Context(), other, nil); !errors.Is(err, ErrConflict) {
			t.Errorf("a name that is taken: %v", err)
		}
		if _, err := q.Find(t.Context(), "summer"); !errors.Is(err, ErrNoCampaign) {
			t.Errorf("find what is not there: %v", err)
		}
		p, err := q.Program(t.Context(), c.ID)
		if err != nil || string(p) != "program" {
			t.Errorf("program %q, %v", p, err)
		}
	})
}

// A producer that died while storing leaves nobody pending, and the same send goes
// on where it was; one that died between its last two steps is helped by a worker.
func TestProducerDies(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		st, err := q.Stage(t.Context(), Campaign{Name: "half", Key: "half", Stream: mail.Ad, From: "s@example.com", Size: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := q.Summary(t.Context(), st.Campaign(), false)
		if err != nil || s.State(time.Now()) != "staging" || s.Count(mail.Pending) != 0 {
			t.Errorf("half stored: %+v, %v", s, err)
		}
		// All of Commit but its last step.
		k := q.keys
		q.rdb.SAdd(t.Context(), k.opening(mail.Ad), st.c.ID)
		if err := st.Put(t.Context(), 0, &Block{Lines: []int{2}, Emails: []string{"a@b.kr"}}); err != nil {
			t.Fatal(err)
		}
		if err := q.scripts.commit.Run(t.Context(), q.rdb, []string{k.meta(st.c.ID)}, "", "blocks", 1, "recipients", 1).Err(); err != nil {
			t.Fatal(err)
		}
		join(t, q, Hooks{})
		eventually(t, "the reconciler opens the campaign", func() bool {
			return q.rdb.HExists(t.Context(), k.total(mail.Ad), st.c.ID).Val()
		})
	})
}

func TestChoose(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		a, b := store(t, q, "a", 3, 1), store(t, q, "b", 2, 1)
		chosen := func(pending int) []string {
			res, err := q.choose(t.Context(), mail.Ad, pending, "")
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for i := 0; i < len(res); i += 2 {
				out = append(out, strings.NewReplacer(a.ID, "a", b.ID, "b").Replace(res[i]))
			}
			return out
		}
		if got := chosen(2); !slices.Equal(got, []string{"a/0", "b/0"}) {
			t.Errorf("campaigns in turn: %v", got)
		}
		if got := chosen(2); len(got) != 0 {
			t.Errorf("the short queue is full, yet %v", got)
		}
		q.rdb.Del(t.Context(), q.keys.queued(mail.Ad))
		q.rdb.ZAdd(t.Context(), q.keys.ready(mail.Ad), z(0, b.ID+"/0"))
		if got := chosen(2); !slices.Equal(got, []string{"b/0", "a/1"}) {
			t.Errorf("take-overs and retries first: %v", got)
		}
		q.rdb.Del(t.Context(), q.keys.queued(mail.Ad))
		if err := q.Pause(t.Context(), a, "test"); err != nil {
			t.Fatal(err)
		}
		if got := chosen(9); !slices.Equal(got, []string{"b/1"}) {
			t.Errorf("a is paused: %v", got)
		}
		if err := q.Resume(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := q.HoldLogin(t.Context(), mail.Ad, "", "535"); err != nil {
			t.Fatal(err)
		}
		if got := chosen(9); len(got) != 0 {
			t.Errorf("the stream is held, yet %v", got)
		}
		if err := q.LiftStream(t.Context(), mail.Ad); err != nil {
			t.Fatal(err)
		}
		if got := chosen(9); !slices.Equal(got, []string{"a/2"}) {
			t.Errorf("after all that: %v", got)
		}
	})
}

func TestClaimSendSettle(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 3)
		m, other := join(t, q, Hooks{}), join(t, q, Hooks{})
		cl := claim(t, m, c, 0)
		if _, err := other.Claim(t.Context(), mail.Ad, c.ID, 0); !errors.Is(err, ErrNotClaimed) {
			t.Errorf("a claimed block was claimed again: %v", err)
		}
		in := m.Declare(cl, 0)
		if err := m.Confirm(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		m.Record(in, mail.Accepted, mail.Reply{Code: 250, Text: "queued"}, 0)
		m.Record(m.Declare(cl, 1), mail.Deferred, mail.Reply{Code: 451}, m.Now()+3_600_000)
		m.Withdraw(m.Declare(cl, 2))
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		live := summary(t, q, c)
		if live.Count(mail.Accepted) != 1 || live.Count(mail.Deferred) != 1 || live.Count(mail.Pending) != 4 {
			t.Errorf("while claimed: %v", live.Outcomes)
		}
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if got := summary(t, q, c); got.Outcomes != live.Outcomes {
			t.Errorf("settling changed the counts: %v, %v", live.Outcomes, got.Outcomes)
		}
		// Recipient 2 is still pending, so the block is due at once.
		cl = claim(t, other, c, 0)
		if cl.Standings[0].Reply.Text != "queued" || cl.Standings[1].Attempts != 1 || cl.Standings[2].Outcome != mail.Pending {
			t.Errorf("read back: %+v", cl.Standings)
		}
		accept(other, cl, 2)
		if err := other.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		due := q.rdb.ZScore(t.Context(), q.keys.ready(mail.Ad), cl.ID()).Val()
		if wait := int64(due) - m.Now(); wait < 3_000_000 {
			t.Errorf("the deferred recipient comes back in %d ms", wait)
		}
	})
}

func TestLateEvidenceIsTaken(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := join(t, q, Hooks{})
		cl := claim(t, m, c, 0)
		m.Record(m.Declare(cl, 0), mail.Unknown, mail.Reply{Text: "connection lost"}, 0)
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if got := summary(t, q, c); got.Count(mail.Unknown) != 1 || !got.Settled {
			t.Fatalf("unknown: %v", got.Outcomes)
		}
		late := pastWrite{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: appendEvidence(nil, Evidence{Attempt: 1, Outcome: mail.Accepted})}
		if err := m.writeEvidence(t.Context(), []pastWrite{late, late}); err != nil {
			t.Fatal(err)
		}
		if got := summary(t, q, c); got.Count(mail.Accepted) != 1 || got.Count(mail.Unknown) != 0 {
			t.Errorf("after late evidence: %v", got.Outcomes)
		}
		cl = claim(t, m, c, 0) // the touch made it due
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if got := summary(t, q, c); got.Count(mail.Accepted) != 1 || got.Resent != 0 {
			t.Errorf("settled with late evidence: %v", got.Outcomes)
		}
	})
}

func TestCancelledCampaignIsClaimedToBeMarked(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 2)
		m := join(t, q, Hooks{})
		if err := q.Cancel(t.Context(), c, "wrong template"); err != nil {
			t.Fatal(err)
		}
		if err := q.Resume(t.Context(), c); !errors.Is(err, ErrCancelled) {
			t.Errorf("resume of a cancelled campaign: %v", err)
		}
		if err := q.Pause(t.Context(), c, "too late"); err != nil {
			t.Error(err)
		}
		cl := claim(t, m, c, 0)
		if !cl.Cancelled {
			t.Fatal("the claim does not say that the campaign is cancelled")
		}
		m.Decide(cl, 0, mail.Cancelled, mail.Reply{})
		m.Decide(cl, 1, mail.Cancelled, mail.Reply{})
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if s := summary(t, q, c); s.Count(mail.Cancelled) != 2 || s.State(time.Now()) != HoldCancelled {
			t.Errorf("%v %s", s.Outcomes, s.State(time.Now()))
		}
	})
}
