package queue

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

// logLines collects what a queue logs.
type logLines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

func listen(q *Queue) *logLines {
	l := &logLines{}
	q.log = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// A block whose stored bytes do not decode is set aside: told of once, not due again,
// everyone in it accounted for, and the others go on.
func TestSetAside(t *testing.T) {
	t.Parallel()
	type stored struct{ block, state, log string } // keys
	type spoiling struct {
		spoil   func(t *testing.T, q *Queue, k stored)
		unknown int // of four: one accepted in the state, one in the log, two pending
	}
	eachCase(t, map[string]spoiling{
		"recipients":         {func(t *testing.T, q *Queue, k stored) { q.rdb.Set(t.Context(), k.block, "\xff\xff", 0) }, 2},
		"recipients missing": {func(t *testing.T, q *Queue, k stored) { q.rdb.Del(t.Context(), k.block) }, 2},
		"state":              {func(t *testing.T, q *Queue, k stored) { q.rdb.Set(t.Context(), k.state, "\xff\xff", 0) }, 3},
		"log":                {func(t *testing.T, q *Queue, k stored) { q.rdb.Append(t.Context(), k.log, "\xff\xff\xff") }, 2},
		"log from its start": {func(t *testing.T, q *Queue, k stored) { q.rdb.Set(t.Context(), k.log, "\xff\xff\xff", 0) }, 3},
		"state and log":      {func(t *testing.T, q *Queue, k stored) { q.rdb.MSet(t.Context(), k.state, "x", k.log, "x") }, 4},
		"no value at all": {func(t *testing.T, q *Queue, k stored) {
			q.rdb.Del(t.Context(), k.state)
			q.rdb.SAdd(t.Context(), k.state, "x")
		}, 3},
	}, func(t *testing.T, q *Queue, tc spoiling) {
		c := store(t, q, "spring", 2, 4)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		accept(m, cl, 0)
		settle(t, m, cl)
		data := appendEvidence(nil, Evidence{Index: 1, Attempt: 1, Outcome: mail.Accepted})
		if err := m.append(t.Context(), q.rdb, []pastWrite{{logOf: logOf{campaign: c.ID}, data: data}}); err != nil {
			t.Fatal(err)
		}
		k := q.keys
		tc.spoil(t, q, stored{k.recipients(c.ID, 0), k.state(c.ID, 0), k.log(c.ID, 0)})
		log := listen(q)
		for range 2 {
			if _, err := m.Claim(t.Context(), mail.Ad, c.ID, 0); !errors.Is(err, ErrNotClaimed) {
				t.Errorf("claimed: %v", err)
			}
			if n := q.rdb.HLen(t.Context(), k.claims(mail.Ad)).Val() + q.rdb.ZCard(t.Context(), k.ready(mail.Ad)).Val(); n != 0 {
				t.Error("it comes back for ever")
			}
		}
		if n := log.count("set aside"); n != 1 {
			t.Errorf("told of %d times", n)
		}
		cl = claim(t, m, c, 1)
		for i := range 4 {
			accept(m, cl, i)
		}
		settle(t, m, cl)
		s := summary(t, q, c)
		if s.Count(mail.Unknown) != tc.unknown || s.Count(mail.Accepted) != 8-tc.unknown || !s.Settled {
			t.Errorf("%v, settled %v", s.Outcomes, s.Settled)
		}
		if s, err := q.Summary(t.Context(), c, true); err != nil || !s.Settled {
			t.Errorf("who waits for it to be sent again waits for ever: %+v, %v", s, err)
		}
		if len(s.Aside) != 1 || s.Aside[0].Block != 0 || s.Aside[0].Recipients != 4 || s.Aside[0].Why == "" {
			t.Errorf("%+v", s.Aside)
		}
		got := 0
		if err := q.Rows(t.Context(), c, func(r Row) error {
			if r.Outcome == mail.Unknown && strings.HasPrefix(r.Reply.Text, asideText) {
				got++
			}
			return nil
		}); err != nil || got != tc.unknown {
			t.Errorf("%d rows say so, %v", got, err)
		}
	})
}

// What does not decode any more when a block is settled is set aside as well, and its
// holder is rid of it.
func TestSetAsideAtSettle(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 2)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		accept(m, cl, 0)
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		q.rdb.Append(t.Context(), q.keys.log(c.ID, 0), "\xff")
		settle(t, m, cl)
		if m.holdsClaim(cl.ID()) || q.rdb.HLen(t.Context(), q.keys.claims(mail.Ad)).Val() != 0 {
			t.Error("the claim stands")
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 1 || s.Count(mail.Unknown) != 1 || len(s.Aside) != 1 {
			t.Errorf("%v %v", s.Outcomes, s.Aside)
		}
		if got, err := q.Reopen(t.Context(), c, Selection{Outcomes: []mail.Outcome{mail.Unknown}}, false); err != nil || got.Total() != 0 || got.Aside != 2 {
			t.Errorf("reopened: %+v, %v", got, err)
		}
	})
}

// A newer program's data is left for its workers, and told of once.
func TestNewerDataIsLeft(t *testing.T) {
	t.Parallel()
	codec := testCodec(t)
	eachCase(t, map[string]func(t *testing.T, q *Queue, id string){
		"block": func(t *testing.T, q *Queue, id string) {
			q.rdb.Set(t.Context(), q.keys.recipients(id, 0), codec.pack([]byte{blockVersion + 1, 7}), 0)
		},
		"state": func(t *testing.T, q *Queue, id string) {
			q.rdb.Set(t.Context(), q.keys.state(id, 0), codec.pack([]byte{reopenedState + 1, 7}), 0)
		},
		"log": func(t *testing.T, q *Queue, id string) {
			q.rdb.Set(t.Context(), q.keys.log(id, 0), []byte{0, newerOutcome, 7}, 0)
		},
	}, func(t *testing.T, q *Queue, spoil func(t *testing.T, q *Queue, id string)) {
		c := store(t, q, "spring", 1, 2)
		m := silent(t, q)
		spoil(t, q, c.ID)
		q.rdb.SAdd(t.Context(), q.keys.live(c.ID), 0)
		log := listen(q)
		for range 2 {
			if _, err := m.Claim(t.Context(), mail.Ad, c.ID, 0); !errors.Is(err, ErrNotClaimed) {
				t.Errorf("claimed: %v", err)
			}
		}
		due := q.rdb.ZScore(t.Context(), q.keys.ready(mail.Ad), blockID(c.ID, 0)).Val()
		if wait := int64(due) - m.Now(); wait < 20_000 {
			t.Errorf("it comes back in %d ms", wait)
		}
		if n := log.count("newer version"); n == 0 || log.count("left to its workers") != 1 {
			t.Errorf("told of %d times", n)
		}
		if n := q.rdb.Exists(t.Context(), q.keys.bad(c.ID)).Val(); n != 0 {
			t.Error("set aside")
		}
		if s := summary(t, q, c); s.Count(mail.Pending) != 2 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

// Totals and shares that do not decode are added up anew, from what the blocks say.
func TestTotalsAreMended(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]func(t *testing.T, q *Queue, id string){
		"a total": func(t *testing.T, q *Queue, id string) {
			q.rdb.HSet(t.Context(), q.keys.totals(id), "accepted", "\xff")
		},
		"updated":      func(t *testing.T, q *Queue, id string) { q.rdb.HSet(t.Context(), q.keys.totals(id), updatedField, "x") },
		"a share":      func(t *testing.T, q *Queue, id string) { q.rdb.HSet(t.Context(), q.keys.sums(id), "0", "\xff") },
		"half a share": func(t *testing.T, q *Queue, id string) { q.rdb.HSet(t.Context(), q.keys.sums(id), "0", "0,1,") },
		"everything": func(t *testing.T, q *Queue, id string) {
			q.rdb.HSet(t.Context(), q.keys.sums(id), "0", "x")
			q.rdb.Del(t.Context(), q.keys.totals(id))
			q.rdb.HSet(t.Context(), q.keys.totals(id), connectionsField, "x")
		},
	}, func(t *testing.T, q *Queue, spoil func(t *testing.T, q *Queue, id string)) {
		m := silent(t, q)
		c := mixed(t, q, m)
		want := summary(t, q, c).Outcomes
		spoil(t, q, c.ID)
		q.rdb.SAdd(t.Context(), q.keys.live(c.ID), 0)
		if got := summary(t, q, c).Outcomes; got != want {
			t.Errorf("shown as %v, want %v", got, want)
		}
		spoil(t, q, c.ID)
		settle(t, m, claim(t, m, c, 0))
		settle(t, m, claim(t, m, c, 1))
		q.rdb.Del(t.Context(), q.keys.live(c.ID))
		if got := summary(t, q, c).Outcomes; got != want {
			t.Errorf("settled as %v, want %v", got, want)
		}
	})
}

// A dead worker's record that does not decode keeps nobody from its blocks, and nobody
// of whom it may have told is sent to again as if nothing had been.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	eachCase(t, map[string]string{
		"garbage":              "\xff\xff\xff",
		"a stream there isn't": string(encodeIntents(nil, []*Intent{{claim: &Claim{Campaign: &Campaign{ID: "c", Stream: "x"}}, attempt: 1}})),
	}, func(t *testing.T, q *Queue, record string) {
		c := store(t, q, "spring", 2, 3)
		dying := silent(t, q)
		cl := claim(t, dying, c, 0)
		accept(dying, cl, 0)
		if err := dying.Confirm(t.Context(), dying.Declare(cl, 1)); err != nil {
			t.Fatal(err)
		}
		q.rdb.Set(t.Context(), q.keys.record(dying.nonce, dying.gen), record, 0)
		for range 2 {
			if err := q.takeOver(t.Context(), dying.nonce, "1"); err != nil {
				t.Fatal(err)
			}
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 1 || s.Count(mail.Unknown) != 2 || s.Count(mail.Pending) != 3 {
			t.Errorf("%v", s.Outcomes)
		}
		if n := q.rdb.ZCard(t.Context(), q.keys.ready(mail.Ad)).Val(); n != 1 {
			t.Errorf("%d blocks due", n)
		}
	})
}

// The job of a campaign that is gone is not made again for ever.
func TestJobOfNoCampaign(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := silent(t, q)
		chosen(t, q)
		q.rdb.Del(t.Context(), q.keys.meta(c.ID))
		if _, err := m.Claim(t.Context(), mail.Ad, c.ID, 0); !errors.Is(err, ErrNoCampaign) {
			t.Errorf("%v", err)
		}
		if n := q.rdb.HLen(t.Context(), q.keys.queued(mail.Ad)).Val(); n != 0 {
			t.Errorf("%d jobs queued", n)
		}
	})
}

// What is no longer open is not written to, so that nothing of it is left behind.
func TestNothingIsWrittenToWhatIsGone(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := mixed(t, q, silent(t, q))
		q.rdb.Del(t.Context(), q.keys.meta(c.ID), q.keys.totals(c.ID))
		if _, err := q.Reopen(t.Context(), c, Selection{Outcomes: []mail.Outcome{mail.Rejected}}, false); !errors.Is(err, ErrNoCampaign) {
			t.Errorf("%v", err)
		}
		if n := q.rdb.Exists(t.Context(), q.keys.totals(c.ID)).Val(); n != 0 {
			t.Error("its totals are there again")
		}
	})
}
