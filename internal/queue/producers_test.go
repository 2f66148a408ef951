package queue

import (
	"errors"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// staged begins a campaign as one of several producers.
func staged(t *testing.T, q *Queue, content string) *Staging {
	t.Helper()
	st, err := q.Stage(t.Context(), Campaign{Name: "n", Key: "k", Stream: mail.Ad, From: "s@example.com", Digest: content, Size: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Two producers of one send: what the one gives up does not take the other's along,
// and a campaign is never opened with a part of it missing.
func TestTwoProducers(t *testing.T) {
	t.Parallel()
	block := &Block{Lines: []int{2}, Emails: []string{"a@b.kr"}}
	put := func(t *testing.T, st *Staging) {
		t.Helper()
		if err := st.Put(t.Context(), 0, block); err != nil {
			t.Fatal(err)
		}
	}
	count := func(t *testing.T, q *Queue, want int) {
		t.Helper()
		c, err := q.Find(t.Context(), "n")
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		if err := q.Rows(t.Context(), c, func(Row) error { rows++; return nil }); err != nil || rows != want || !c.Open {
			t.Errorf("%d rows, open %v, %v", rows, c.Open, err)
		}
	}
	t.Run("one commits, the other gives up", func(t *testing.T) {
		t.Parallel()
		eachRedis(t, func(t *testing.T, q *Queue) {
			a, b := staged(t, q, "d"), staged(t, q, "d")
			put(t, a)
			put(t, b)
			if err := a.Commit(t.Context(), 1, 0, Door{Recipients: 1}); err != nil {
				t.Fatal(err)
			}
			put(t, b) // too late, and no fault
			if err := b.Discard(t.Context(), 1, 0); err != nil {
				t.Fatal(err)
			}
			count(t, q, 1)
		})
	})
	t.Run("one gives up, the other commits", func(t *testing.T) {
		t.Parallel()
		eachRedis(t, func(t *testing.T, q *Queue) {
			a, b := staged(t, q, "d"), staged(t, q, "d")
			put(t, a)
			put(t, b)
			if err := a.Discard(t.Context(), 1, 0); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(t.Context(), 1, 0, Door{Recipients: 1}); !errors.Is(err, ErrConflict) {
				t.Errorf("committed what is gone: %v", err)
			}
			b = staged(t, q, "d")
			if err := b.Commit(t.Context(), 1, 0, Door{Recipients: 1}); !errors.Is(err, ErrConflict) {
				t.Errorf("committed without its block: %v", err)
			}
			if q.rdb.HExists(t.Context(), q.keys.total(mail.Ad), b.c.ID).Val() {
				t.Error("it was opened all the same")
			}
			put(t, b)
			q.rdb.HDel(t.Context(), q.keys.names(), "n") // by the end of the Discard
			if err := b.Commit(t.Context(), 1, 0, Door{Recipients: 1}); err != nil {
				t.Fatal(err)
			}
			count(t, q, 1)
		})
	})
	t.Run("the same key, another list", func(t *testing.T) {
		t.Parallel()
		eachRedis(t, func(t *testing.T, q *Queue) {
			a := staged(t, q, "list a")
			put(t, a)
			b := staged(t, q, "list b")
			if err := a.Put(t.Context(), 1, block); !errors.Is(err, ErrConflict) {
				t.Errorf("stored among another's blocks: %v", err)
			}
			if err := a.Commit(t.Context(), 1, 0, Door{Recipients: 1}); !errors.Is(err, ErrConflict) {
				t.Errorf("committed another's campaign: %v", err)
			}
			put(t, b)
			if err := a.Discard(t.Context(), 2, 0); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(t.Context(), 1, 0, Door{Recipients: 1}); err != nil {
				t.Fatal(err)
			}
			count(t, q, 1)
		})
	})
}

// A campaign of more blocks than a script can take one by one is stored, and removed.
func TestTenThousandBlocks(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		const n = 10_000
		st := staged(t, q, "d")
		pipe := q.rdb.Pipeline()
		for i := range n {
			pipe.Set(t.Context(), q.keys.recipients(st.c.ID, i), "x", 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := st.Discard(t.Context(), n, 0); err != nil {
			t.Fatal(err)
		}
		if keys := q.rdb.DBSize(t.Context()).Val(); keys != 0 {
			t.Errorf("%d keys left", keys)
		}
		st = staged(t, q, "d")
		for i := range n {
			pipe.Set(t.Context(), q.keys.recipients(st.c.ID, i), "x", 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := st.Commit(t.Context(), n, 0, Door{Recipients: n}); err != nil {
			t.Fatal(err)
		}
		t.Logf("commit: %v", time.Since(begun))
		pipe = q.rdb.Pipeline()
		for i := range n { // all of it deferred, then paused: the worst for the scheduler
			pipe.ZAdd(t.Context(), q.keys.ready(mail.Ad), z(1, blockID(st.c.ID, i)))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.Pause(t.Context(), st.c, "x"); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		if got := chosen(t, q); len(got) != 0 {
			t.Errorf("%d blocks of a paused campaign", len(got))
		}
		t.Logf("choose with all paused: %v", time.Since(begun))
		begun = time.Now()
		if err := q.Cancel(t.Context(), st.c, "x"); err != nil {
			t.Fatal(err)
		}
		t.Logf("cancel: %v", time.Since(begun))
		if got := chosen(t, q); len(got) != 100 {
			t.Errorf("%d blocks of a cancelled campaign", len(got))
		}
	})
}
