package queue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

// setBack makes the data as old as a copy that was made some time ago.
func setBack(t *testing.T, q *Queue, age time.Duration) {
	t.Helper()
	at, err := q.rdb.Get(t.Context(), q.keys.stamp()).Int64()
	if err != nil {
		t.Fatal(err)
	}
	q.rdb.Set(t.Context(), q.keys.stamp(), at-age.Milliseconds(), 0)
}

func beat(t *testing.T, m *Member) bool {
	t.Helper()
	if _, err := m.stamp(t.Context(), m.pulse, false); err != nil {
		t.Fatal(err)
	}
	return m.rewound.Load() != nil
}

// What is older than the members can make up for is noticed, by whoever has seen more;
// nothing else is.
func TestRewindIsNoticed(t *testing.T) {
	t.Parallel()
	type event struct {
		happens func(t *testing.T, q *Queue, m *Member)
		noticed bool
	}
	eachCase(t, map[string]event{
		"nothing":       {func(*testing.T, *Queue, *Member) {}, false},
		"a few seconds": {func(t *testing.T, q *Queue, _ *Member) { setBack(t, q, rewindMost-2*time.Second) }, false},
		"a minute":      {func(t *testing.T, q *Queue, _ *Member) { setBack(t, q, time.Minute) }, true},
		"a minute, and another beats first": {func(t *testing.T, q *Queue, _ *Member) {
			setBack(t, q, time.Minute)
			if beat(t, silent(t, q)) {
				t.Error("noticed by somebody new")
			}
		}, true},
		"nobody was there for a minute": {func(t *testing.T, q *Queue, m *Member) {
			setBack(t, q, time.Minute)
			m.stamped.Store(m.stamped.Load() - time.Minute.Milliseconds())
		}, false},
		"its clock is set back": {func(t *testing.T, q *Queue, m *Member) {
			setBack(t, q, -time.Hour) // it was an hour ahead
			m.stamped.Add(time.Hour.Milliseconds())
			beat(t, m)
		}, false},
		"its clock is set back, and somebody beats who has seen nothing": {func(t *testing.T, q *Queue, m *Member) {
			setBack(t, q, -time.Hour)
			m.stamped.Add(time.Hour.Milliseconds())
			other := silent(t, q)
			other.stamped.Store(0)
			beat(t, other)
		}, false},
		"a minute, and its clock is behind": {func(t *testing.T, q *Queue, m *Member) {
			setBack(t, q, -time.Hour)
			m.stamped.Add(time.Hour.Milliseconds() + time.Minute.Milliseconds())
		}, true},
		"nothing at all is left": {func(t *testing.T, q *Queue, m *Member) {
			q.rdb.Del(t.Context(), q.keys.stamp(), q.keys.campaigns())
			if err := m.restamp(t.Context(), q.rdb); err != nil {
				t.Fatal(err)
			}
		}, false},
		"data from before there was a stamp": {func(t *testing.T, q *Queue, m *Member) {
			q.rdb.Del(t.Context(), q.keys.stamp())
			if err := m.restamp(t.Context(), q.rdb); err != nil {
				t.Fatal(err)
			}
		}, true},
		"an older program has taken over": {func(t *testing.T, q *Queue, _ *Member) { q.rdb.Del(t.Context(), q.keys.stamp()) }, false},
	}, func(t *testing.T, q *Queue, tc event) {
		store(t, q, "spring", 1, 1)
		m := silent(t, q)
		beat(t, m)
		tc.happens(t, q, m)
		if got := beat(t, m); got != tc.noticed {
			t.Errorf("noticed: %v", got)
		}
		if late := silent(t, q); (late.rewound.Load() != nil) != tc.noticed {
			t.Errorf("who joins now knows: %v", !tc.noticed)
		}
		if _, err := q.AcceptRewind(t.Context()); errors.Is(err, ErrNoRewind) == tc.noticed {
			t.Fatal(err)
		}
		if beat(t, m) {
			t.Error("accepted, and noticed again")
		}
	})
}

// Until a rewind is accepted nothing is claimed, given out, taken or shown as going on.
// Then whoever may have been sent to is unknown, and nobody else.
func TestAcceptRewind(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		begun, done, cancelled, later := store(t, q, "begun", 2, 2), store(t, q, "done", 1, 1), store(t, q, "cancelled", 1, 1), store(t, q, "later", 1, 1)
		q.rdb.HSet(t.Context(), q.keys.meta(later.ID), "start", time.Now().Add(time.Hour).UnixMilli())
		cl := claim(t, m, begun, 0)
		accept(m, cl, 0)
		settle(t, m, cl)
		cl = claim(t, m, done, 0)
		accept(m, cl, 0)
		settle(t, m, cl)
		if _, err := q.hold(t.Context(), mail.Ad, cancelled.ID, storedHold{State: HoldCancelled}); err != nil {
			t.Fatal(err)
		}
		beat(t, m)
		frozen := silent(t, q)
		setBack(t, q, time.Minute)
		if !beat(t, m) {
			t.Fatal("not noticed")
		}
		if _, err := m.Claim(t.Context(), mail.Ad, begun.ID, 1); !errors.Is(err, ErrNotClaimed) {
			t.Errorf("claim: %v", err)
		}
		if err := m.Pump(t.Context(), mail.Ad, 9); err != nil || q.rdb.HLen(t.Context(), q.keys.queued(mail.Ad)).Val() != 0 {
			t.Errorf("blocks were given out, %v", err)
		}
		m.setView(time.Now(), nil)
		if h, held := m.Held(mail.Ad, begun.ID); !held || !strings.Contains(h.Lift, "--accept-rewind") {
			t.Errorf("held: %v %+v", held, h)
		}
		if s := summary(t, q, begun); s.State(time.Now()) != HoldHeld || !strings.Contains(s.Held.Why, "older data") {
			t.Errorf("shown as %s: %+v", s.State(time.Now()), s.Held)
		}
		if n, err := q.AcceptRewind(t.Context()); err != nil || n != 3 {
			t.Fatalf("%d unknown, %v", n, err)
		}
		if n, err := q.AcceptRewind(t.Context()); !errors.Is(err, ErrNoRewind) || n != 0 {
			t.Errorf("once more: %d unknown, %v", n, err)
		}
		for _, want := range []struct {
			c       *Campaign
			o       mail.Outcome
			n       int
			pending int
		}{{begun, mail.Unknown, 3, 0}, {begun, mail.Accepted, 1, 0}, {done, mail.Accepted, 1, 0}, {cancelled, mail.Unknown, 0, 1}, {later, mail.Unknown, 0, 1}} {
			if s := summary(t, q, want.c); s.Count(want.o) != want.n || s.Count(mail.Pending) != want.pending {
				t.Errorf("%s: %v", want.c.Name, s.Outcomes)
			}
		}
		if beat(t, m) || beat(t, frozen) {
			t.Fatal("it is not over, or noticed again by somebody who was frozen")
		}
		claim(t, m, begun, 1)
	})
}

// A rewind that comes while another is being accepted is not accepted with it.
func TestAcceptOneRewind(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		q.rdb.Set(t.Context(), q.keys.rewound(), "1 2", 0)
		q.rdb.AddHook(&between{match: runs(q.scripts.accept), do: func() { q.rdb.Set(t.Context(), q.keys.rewound(), "3 4", 0) }})
		if _, err := q.AcceptRewind(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !beat(t, m) {
			t.Error("it is over")
		}
	})
}

// A backup is restored under a live member: what was sent since it was made is not sent
// again.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	q := open(t, srv.Addr())
	q.rewindMost = 300 * time.Millisecond
	c := store(t, q, "spring", 2, 2)
	var m *Member
	var known []bool // at the end of each restart, before anything can be claimed
	m = join(t, q, Hooks{Restarted: func(context.Context) { known = append(known, m.rewound.Load() != nil) }})
	cl := claim(t, m, c, 0)
	accept(m, cl, 0)
	settle(t, m, cl)
	stamped := func() int64 {
		at, _ := q.rdb.Get(t.Context(), q.keys.stamp()).Int64()
		return at
	}
	before := stamped()
	eventually(t, "it beats", func() bool { return stamped() > before })
	srv.Kill()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(srv.Dir(), "appendonlydir"))); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	cl = claimSoon(t, m, c, 1)
	accept(m, cl, 0)
	settle(t, m, cl)
	before = stamped()
	eventually(t, "more time passes than anybody remembers", func() bool { return stamped() > before+1000 })
	m.mu.Lock()
	m.past = nil // as it would be after pastKept
	m.mu.Unlock()
	srv.Kill()
	if err := errors.Join(os.RemoveAll(filepath.Join(srv.Dir(), "appendonlydir")), os.CopyFS(filepath.Join(srv.Dir(), "appendonlydir"), os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	eventually(t, "it is noticed", func() bool { return m.rewound.Load() != nil })
	eventually(t, "it works again", func() bool { return m.q.Ping(t.Context()) == nil })
	if !slices.Equal(known, []bool{false, true}) {
		t.Errorf("known after each restart: %v", known)
	}
	if _, err := m.Claim(t.Context(), mail.Ad, c.ID, 1); !errors.Is(err, ErrNotClaimed) {
		t.Errorf("claim: %v", err)
	}
	other := open(t, srv.Addr())
	if n, err := other.AcceptRewind(t.Context()); err != nil || n != 3 {
		t.Fatalf("%d unknown, %v", n, err)
	}
	eventually(t, "sending goes on", func() bool { return m.rewound.Load() == nil })
	cl = claimSoon(t, m, c, 1)
	for i := range cl.Standings {
		if _, due := cl.DueAt(i, false); due {
			t.Errorf("recipient %d would be sent to again: %+v", i, cl.Standings[i])
		}
	}
}

// claimSoon claims a block as soon as that can be done after a restart.
func claimSoon(t *testing.T, m *Member, c *Campaign, n int) (cl *Claim) {
	t.Helper()
	eventually(t, "the block is claimed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		cl, err = m.Claim(ctx, c.Stream, c.ID, n)
		return err == nil
	})
	return cl
}
