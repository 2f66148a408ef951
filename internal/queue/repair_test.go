package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

// slice makes block n of a campaign that store has stored.
func slice(n, size int) *Block {
	b := &Block{Values: [][]string{}}
	for i := range size {
		b.Lines = append(b.Lines, n*size+i+2)
		b.Emails = append(b.Emails, fmt.Sprintf("r%d@example.com", n*size+i))
	}
	return b
}

// repair runs a repair with the list as it was.
func repair(t *testing.T, q *Queue, c *Campaign, rewound bool) Found {
	t.Helper()
	r, err := q.Repair(t.Context(), c, rewound)
	if err != nil {
		t.Fatal(err)
	}
	for n := range c.Blocks {
		if err := r.Put(t.Context(), n, slice(n, c.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(t.Context(), c.Blocks, c.Doors, c.Counts); err != nil {
		t.Fatal(err)
	}
	return r.Found()
}

// What is lost of a campaign is found and put back; who may have been sent to without
// a record of it becomes unknown, and nobody else.
func TestRepair(t *testing.T) {
	t.Parallel()
	type counts struct{ accepted, unknown, pending int }
	type loss struct {
		// Of three blocks of four, block 0 is done, of block 1 one recipient, and block 2
		// was never given out.
		lose  func(t *testing.T, q *Queue, c *Campaign)
		found Found
		want  counts
		ready []int // blocks that are due in the end
	}
	eachCase(t, map[string]loss{
		"nothing": {func(*testing.T, *Queue, *Campaign) {}, Found{}, counts{5, 0, 7}, []int{1}},
		"all recipients": {func(t *testing.T, q *Queue, c *Campaign) {
			for n := range 3 {
				q.rdb.Del(t.Context(), q.keys.recipients(c.ID, n))
			}
		}, Found{Blocks: 3}, counts{5, 0, 7}, []int{1}},
		"recipients and record": {func(t *testing.T, q *Queue, c *Campaign) {
			k := q.keys
			for n := range 3 {
				q.rdb.Del(t.Context(), k.recipients(c.ID, n), k.state(c.ID, n), k.log(c.ID, n))
				q.rdb.HDel(t.Context(), k.sums(c.ID), fmt.Sprint(n))
			}
		}, Found{Blocks: 3, Records: 2, Unknown: 8, Rescheduled: 2}, counts{0, 8, 4}, []int{0, 1}},
		"a state": {func(t *testing.T, q *Queue, c *Campaign) { q.rdb.Del(t.Context(), q.keys.state(c.ID, 1)) },
			Found{Records: 1, Unknown: 4, Rescheduled: 1}, counts{4, 4, 4}, []int{1}},
		"a state that does not decode": {func(t *testing.T, q *Queue, c *Campaign) {
			q.rdb.Set(t.Context(), q.keys.state(c.ID, 0), "x", 0)
		}, Found{Records: 1, Unknown: 4, Rescheduled: 1}, counts{1, 4, 7}, []int{0, 1}},
		"a state of another type": {func(t *testing.T, q *Queue, c *Campaign) {
			q.rdb.Del(t.Context(), q.keys.state(c.ID, 0))
			q.rdb.SAdd(t.Context(), q.keys.state(c.ID, 0), "x")
		}, Found{Records: 1, Unknown: 4, Rescheduled: 1}, counts{1, 4, 7}, []int{0, 1}},
		"the end of a log": {func(t *testing.T, q *Queue, c *Campaign) {
			log := appendEvidence(nil, Evidence{Index: 2, Attempt: 1, Outcome: mail.Accepted})
			q.rdb.Set(t.Context(), q.keys.log(c.ID, 1), string(log)+"\xff", 0)
		}, Found{Records: 1, Unknown: 2, Rescheduled: 1}, counts{6, 2, 4}, []int{1}},
		"totals": {func(t *testing.T, q *Queue, c *Campaign) { q.rdb.Del(t.Context(), q.keys.totals(c.ID)) },
			Found{}, counts{5, 0, 7}, []int{1}},
		"the schedule": {func(t *testing.T, q *Queue, _ *Campaign) {
			k, s := q.keys, mail.Ad
			q.rdb.Del(t.Context(), k.ring(s), k.next(s), k.total(s), k.ready(s))
		}, Found{Schedule: true}, counts{5, 0, 7}, nil},
		"its turn":        {func(t *testing.T, q *Queue, _ *Campaign) { q.rdb.Del(t.Context(), q.keys.ring(mail.Ad)) }, Found{Schedule: true}, counts{5, 0, 7}, []int{1}},
		"blocks due":      {func(t *testing.T, q *Queue, _ *Campaign) { q.rdb.Del(t.Context(), q.keys.ready(mail.Ad)) }, Found{Rescheduled: 1}, counts{5, 0, 7}, []int{1}},
		"names and index": {func(t *testing.T, q *Queue, _ *Campaign) { q.rdb.Del(t.Context(), q.keys.names(), q.keys.campaigns()) }, Found{Index: true}, counts{5, 0, 7}, []int{1}},
		"a block set aside": {func(t *testing.T, q *Queue, c *Campaign) {
			q.rdb.Set(t.Context(), q.keys.recipients(c.ID, 1), "x", 0)
			if _, err := silent(t, q).Claim(t.Context(), mail.Ad, c.ID, 1); !errors.Is(err, ErrNotClaimed) {
				t.Fatal(err)
			}
		}, Found{Blocks: 1, Rescheduled: 1}, counts{5, 0, 7}, []int{1}},
		"set aside before anybody was sent to": {func(t *testing.T, q *Queue, c *Campaign) {
			q.rdb.HSet(t.Context(), q.keys.next(c.Stream), c.ID, 3)
			q.rdb.Set(t.Context(), q.keys.recipients(c.ID, 2), "x", 0)
			if _, err := silent(t, q).Claim(t.Context(), mail.Ad, c.ID, 2); !errors.Is(err, ErrNotClaimed) {
				t.Fatal(err)
			}
		}, Found{Blocks: 1, Rescheduled: 1}, counts{5, 0, 7}, []int{1, 2}},
	}, func(t *testing.T, q *Queue, tc loss) {
		c := store(t, q, "spring", 3, 4)
		m := silent(t, q)
		q.rdb.HSet(t.Context(), q.keys.next(c.Stream), c.ID, 2)
		cl := claim(t, m, c, 0)
		for i := range 4 {
			accept(m, cl, i)
		}
		settle(t, m, cl)
		cl = claim(t, m, c, 1)
		accept(m, cl, 0)
		settle(t, m, cl)
		tc.lose(t, q, c)
		if got := repair(t, q, c, false); got != tc.found {
			t.Errorf("found %+v, want %+v", got, tc.found)
		}
		s := summary(t, q, c)
		if got := (counts{s.Count(mail.Accepted), s.Count(mail.Unknown), s.Count(mail.Pending)}); got != tc.want || len(s.Aside) != 0 {
			t.Errorf("%+v, want %+v; aside %v", got, tc.want, s.Aside)
		}
		var ready []int
		for n := range c.Blocks {
			if q.rdb.ZScore(t.Context(), q.keys.ready(c.Stream), blockID(c.ID, n)).Err() == nil {
				ready = append(ready, n)
			}
		}
		if !slices.Equal(ready, tc.ready) {
			t.Errorf("due are %v, want %v", ready, tc.ready)
		}
		if found, err := q.Find(t.Context(), "spring"); err != nil || found.ID != c.ID {
			t.Errorf("%+v, %v", found, err)
		}
		if got := repair(t, q, c, false); got != (Found{}) {
			t.Errorf("found once more: %+v", got)
		}
		if n := len(chosen(t, q)); n == 0 {
			t.Error("nothing is given out")
		}
	})
}

// What a list does not make is not stored, and nothing else is changed.
func TestRepairWithAnotherList(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 3)
		q.rdb.Del(t.Context(), q.keys.recipients(c.ID, 0))
		r, err := q.Repair(t.Context(), c, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Put(t.Context(), 1, slice(0, 3)); !errors.Is(err, errOtherList) {
			t.Errorf("other recipients: %v", err)
		}
		if err := r.Put(t.Context(), 0, slice(0, 3)); err != nil {
			t.Fatal(err)
		}
		if err := r.Commit(t.Context(), 2, 0, Door{Recipients: 7, Invalid: 1}); !errors.Is(err, errOtherList) {
			t.Errorf("other counts: %v", err)
		}
		if n := q.rdb.Exists(t.Context(), q.keys.recipients(c.ID, 0)).Val(); n != 0 {
			t.Error("a block was stored")
		}
		if _, err := q.Repair(t.Context(), staged(t, q, "d").Campaign(), false); !errors.Is(err, ErrNotOpen) {
			t.Errorf("half stored: %v", err)
		}
	})
}

// After an older data set came back, whoever is not done may have been sent to since.
func TestRepairRewound(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 2)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		accept(m, cl, 0)
		m.Record(m.Declare(cl, 1), mail.Deferred, mail.Reply{Code: 451}, m.Now()+3_600_000)
		settle(t, m, cl)
		if _, err := q.Repair(t.Context(), c, true); !errors.Is(err, ErrNotHeld) {
			t.Errorf("while it is being sent: %v", err)
		}
		if err := q.Pause(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if got := repair(t, q, c, true); got.Unknown != 3 {
			t.Errorf("%+v", got)
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 1 || s.Count(mail.Unknown) != 3 {
			t.Errorf("%v", s.Outcomes)
		}
		late := pastWrite{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: appendEvidence(nil, Evidence{Index: 1, Attempt: 2, Outcome: mail.Accepted})}
		if err := m.writeEvidence(t.Context(), []pastWrite{late}); err != nil {
			t.Fatal(err)
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 2 || s.Resent != 0 {
			t.Errorf("%v, resent %d", s.Outcomes, s.Resent)
		}
	})
}
