package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// storeCanary commits a campaign with a canary policy.
func storeCanary(t testing.TB, q *Queue, name string, n, size int, policy Canary) *Campaign {
	t.Helper()
	st, err := q.Stage(t.Context(), Campaign{Name: name, Key: name, Stream: mail.Ad, From: "s@example.com", Digest: "d", Size: size, Canary: policy}, []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for row := 0; row < n; blocks++ {
		b := &Block{}
		for ; row < n && b.Len() < size; row++ {
			b.Lines = append(b.Lines, row+2)
			b.Emails = append(b.Emails, fmt.Sprintf("r%d@example.com", row))
		}
		if err := st.Put(t.Context(), blocks, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Commit(t.Context(), blocks, 0, Door{Recipients: n}); err != nil {
		t.Fatal(err)
	}
	c, err := q.Find(t.Context(), name)
	if err != nil || c.Canary != st.Campaign().Canary {
		t.Fatalf("read back %+v, stored %+v, %v", c.Canary, st.Campaign().Canary, err)
	}
	return c
}

// sendDue sends what is due of a claim, and settles it.
func sendDue(t testing.TB, m *Member, cl *Claim, outcome func(index int) mail.Outcome) (sent int) {
	t.Helper()
	for i := range cl.Standings {
		if due, ok := cl.DueAt(i, false); !ok || due > m.Now() {
			continue
		}
		sent++
		m.Record(m.Declare(cl, i), outcome(i), mail.Reply{Code: 250}, m.Now()+3_600_000)
	}
	if err := m.Settle(t.Context(), cl, false); err != nil {
		t.Fatal(err)
	}
	return sent
}

func accepted(int) mail.Outcome { return mail.Accepted }

func TestCanarySize(t *testing.T) {
	t.Parallel()
	ad := DefaultCanary(mail.Ad)
	for _, tc := range []struct {
		policy  Canary
		n, want int
	}{
		{ad, 1_000_000, 500}, {ad, 100_000, 500}, {ad, 20_000, 200}, {ad, 20_001, 201}, {ad, 1000, 50}, {ad, 51, 50},
		{ad, 50, 0}, {ad, 1, 0}, {ad, 0, 0}, {DefaultCanary(mail.Normal), 20_000, 200}, {DefaultCanary(mail.Auth), 100_000, 0},
		{Canary{Recipients: 7}, 8, 7}, {Canary{Recipients: 7}, 7, 0}, {Canary{Share: 0.5}, 9, 5}, {Canary{Share: 1}, 9, 0}, {Canary{}, 9, 0},
		{Canary{Recipients: -1}, 9, 0},
	} {
		if got := tc.policy.of(tc.n); got.Recipients != tc.want {
			t.Errorf("%+v of %d: %d, want %d", tc.policy, tc.n, got.Recipients, tc.want)
		}
	}
}

// Exactly the first so many are sent to, wherever a block ends; then all the others.
func TestCanary(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		for name, tc := range map[string]struct{ canary, blocks, edge int }{
			"within a block": {2, 1, 0}, "at the end of one": {4, 1, -1}, "in the second": {5, 2, 1}, "all but one": {9, 3, 2},
		} {
			t.Run(name, func(t *testing.T) {
				c := storeCanary(t, q, name, 10, 4, Canary{Recipients: tc.canary})
				other := store(t, q, name+" other", 1, 1)
				first := chosen(t, q)
				if len(first) != tc.blocks+1 {
					t.Fatalf("given out at first: %v", first)
				}
				if got := chosen(t, q); len(got) != 0 {
					t.Errorf("given out while the canary is out: %v", got)
				}
				sent := 0
				for n := range tc.blocks {
					if s := summary(t, q, c); s.Canary == nil || s.Canary.Over || s.Canary.Results != sent || s.Canary.Recipients != tc.canary {
						t.Errorf("while it is out: %+v", s.Canary)
					}
					if got := chosen(t, q); len(got) != 0 {
						t.Errorf("given out after %d of %d blocks: %v", n, tc.blocks, got)
					}
					sent += sendDue(t, m, claim(t, m, c, n), accepted)
				}
				if sent != tc.canary {
					t.Errorf("sent to %d, want %d", sent, tc.canary)
				}
				if s := summary(t, q, c); !s.Canary.Over || s.Canary.Results != tc.canary {
					t.Errorf("after it: %+v", s.Canary)
				}
				var want []string
				for n := range 3 {
					if n >= tc.blocks || n == tc.edge {
						want = append(want, blockID(c.ID, n))
					}
				}
				if got := chosen(t, q); !slices.Equal(got, want) {
					t.Fatalf("given out after it: %v, want %v", got, want)
				}
				for n := range 3 {
					if n >= tc.blocks || n == tc.edge {
						sent += sendDue(t, m, claim(t, m, c, n), accepted)
					}
				}
				if s := summary(t, q, c); sent != 10 || !s.Settled {
					t.Errorf("sent to %d of 10: %v", sent, s.Outcomes)
				}
				if s := summary(t, q, other); s.Canary != nil {
					t.Errorf("a campaign without one: %+v", s.Canary)
				}
				q.rdb.Del(t.Context(), q.keys.queued(mail.Ad))
			})
		}
	})
}

// A deferral is a result; who has none yet keeps the others waiting.
func TestCanaryWaitsForResults(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := storeCanary(t, q, "spring", 6, 3, Canary{Recipients: 3})
		m := silent(t, q)
		chosen(t, q)
		cl := claim(t, m, c, 0)
		m.Record(m.Declare(cl, 0), mail.Deferred, mail.Reply{Code: 451}, m.Now()+3_600_000)
		m.Record(m.Declare(cl, 1), mail.Rejected, mail.Reply{Code: 550}, 0)
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); !slices.Equal(got, []string{blockID(c.ID, 0)}) {
			t.Errorf("one has no result, and given out is %v", got)
		}
		if n := sendDue(t, m, claim(t, m, c, 0), accepted); n != 1 {
			t.Errorf("%d were due", n)
		}
		if got := chosen(t, q); !slices.Equal(got, []string{blockID(c.ID, 1)}) {
			t.Errorf("after all results: %v", got)
		}
	})
}

// The breakers hear of a canary's last results before the rest is given out.
func TestCanaryTrips(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := storeCanary(t, q, "spring", 1000, 50, Canary{Recipients: 50})
		m := silent(t, q)
		chosen(t, q)
		cl := claim(t, m, c, 0)
		for i := range 50 {
			o, r := mail.Accepted, ResultAccepted
			if i >= 44 {
				o, r = mail.Rejected, ResultBounced
			}
			m.Record(m.Declare(cl, i), o, mail.Reply{Code: 250}, 0)
			m.Result(c, "", r, "550 unknown")
		}
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Held(mail.Ad, c.ID); !ok {
			t.Error("not held")
		}
		if got := chosen(t, q); len(got) != 0 {
			t.Errorf("given out: %v", got)
		}
		if err := q.Resume(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); len(got) != 19 {
			t.Errorf("%d blocks after resuming", len(got))
		}
	})
}

// A canary that waits for what comes in afterwards is ended by the reconciler; and so is
// that of a worker which died just then.
func TestCanaryWaitsForFeedback(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		k := q.keys
		c := storeCanary(t, q, "spring", 6, 3, Canary{Recipients: 2, Wait: time.Hour})
		m := silent(t, q)
		chosen(t, q)
		sendDue(t, m, claim(t, m, c, 0), accepted)
		if got := chosen(t, q); len(got) != 0 {
			t.Errorf("given out during the wait: %v", got)
		}
		s := summary(t, q, c)
		if wait := time.Until(s.Canary.Until); s.Canary.Over || wait < 59*time.Minute || wait > time.Hour {
			t.Errorf("%+v", s.Canary)
		}
		if err := q.passAll(t.Context(), mail.Ad); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.HLen(t.Context(), k.canary(mail.Ad)).Val(); n != 1 {
			t.Fatal("ended before its time")
		}
		q.rdb.HSet(t.Context(), k.canary(mail.Ad), c.ID, "2 1 3600000 1000", "gone", "1 1 0")
		join(t, q, Hooks{})
		eventually(t, "the reconciler ends it", func() bool { return q.rdb.HLen(t.Context(), k.canary(mail.Ad)).Val() == 0 })
		if got := chosen(t, q); !slices.Equal(got, []string{blockID(c.ID, 0), blockID(c.ID, 1)}) {
			t.Errorf("given out after it: %v", got)
		}
	})
}

// While another worker has a block of the canary, its results are not all told.
func TestCanaryWaitsForClaims(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := storeCanary(t, q, "spring", 6, 2, Canary{Recipients: 4})
		m, other := silent(t, q), silent(t, q)
		chosen(t, q)
		cl := claim(t, other, c, 1)
		accept(other, cl, 0)
		accept(other, cl, 1)
		if err := other.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		sendDue(t, m, claim(t, m, c, 0), accepted)
		if got := chosen(t, q); len(got) != 0 {
			t.Errorf("given out: %v", got)
		}
		if err := other.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); len(got) != 1 {
			t.Errorf("given out after it: %v", got)
		}
	})
}

// Pause, resume and cancel while a canary is out.
func TestCanaryHeldBack(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := storeCanary(t, q, "spring", 12, 2, Canary{Recipients: 4})
		if got := chosen(t, q); len(got) != 2 {
			t.Fatal(got)
		}
		if err := q.Pause(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		chosen(t, q)
		if err := q.Resume(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := chosen(t, q); len(got) != 0 {
				t.Errorf("resuming has ended the canary: %v", got)
			}
		}
		if err := q.Cancel(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); len(got) != 4 {
			t.Errorf("to be marked as cancelled: %v", got)
		}
		m := silent(t, q)
		if cl := claim(t, m, c, 5); !cl.Cancelled || cl.first != 2 {
			t.Errorf("claimed to be marked: %v, %d of it", cl.Cancelled, cl.first)
		}
	})
}

// 100,000 recipients, a fifth of them invalid: no more than the canary gets mail.
func TestBadListStopsAtTheCanary(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := storeCanary(t, q, "spring", 100_000, 500, DefaultCanary(mail.Ad))
		m := silent(t, q)
		sent := 0
		for range 5 {
			for _, id := range chosen(t, q) {
				_, n, _ := parseBlockID(id)
				cl, err := m.Claim(t.Context(), mail.Ad, c.ID, n)
				if err != nil {
					t.Fatal(err)
				}
				for i := range cl.Standings {
					if _, ok := cl.DueAt(i, false); !ok {
						continue
					}
					sent++
					if i%5 == 3 {
						m.Record(m.Declare(cl, i), mail.Rejected, mail.Reply{Code: 550}, 0)
						m.Result(c, "", ResultBounced, "550 5.1.1 no such user")
					} else {
						accept(m, cl, i)
						m.Result(c, "", ResultAccepted, "")
					}
				}
				if err := m.Settle(t.Context(), cl, false); err != nil {
					t.Fatal(err)
				}
			}
			q.rdb.Del(t.Context(), q.keys.queued(mail.Ad))
		}
		s := summary(t, q, c)
		if sent > 500 || s.Held == nil || !strings.Contains(s.Held.Why, "hard bounces") {
			t.Errorf("sent to %d, held by %+v", sent, s.Held)
		}
	})
}

// Who waits for something brings the block back when that may be over, not at once.
func TestNotBefore(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 2)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		accept(m, cl, 0)
		at := m.Now() + 600_000
		cl.NotBefore = func(int) int64 { return at }
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if due := q.rdb.ZScore(t.Context(), q.keys.ready(mail.Ad), cl.ID()).Val(); int64(due) != at {
			t.Errorf("due at %v, want %v", due, at)
		}
	})
}
