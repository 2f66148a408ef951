package queue

import (
	"errors"
	"slices"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
)

// die ends a silent member as others would find it.
func die(t *testing.T, q *Queue, m *Member) {
	t.Helper()
	if err := q.takeOver(t.Context(), m.nonce, q.rdb.HGet(t.Context(), q.keys.beats(), m.nonce).Val()); err != nil {
		t.Fatal(err)
	}
}

// live works on the given blocks of a campaign as one worker, all of them at once, until
// it gets to send to one that kills it, and reports whether that happened. No block is
// asked for more than a hundred times.
func live(t *testing.T, q *Queue, c *Campaign, kills func(line int) bool) (died bool) {
	t.Helper()
	m := silent(t, q)
	for range 100 {
		var held []*Claim
		for n := range c.Blocks {
			cl, err := m.Claim(t.Context(), c.Stream, c.ID, n)
			if errors.Is(err, ErrNotClaimed) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, cl)
		}
		var due [][]int
		for _, cl := range held {
			var mine []int
			for i, line := range cl.Block.Lines {
				if _, ok := cl.DueAt(i, false); !ok {
					continue
				}
				m.Turn(cl, true)
				if mine = append(mine, i); kills(line) {
					die(t, q, m)
					return true
				}
			}
			due = append(due, mine)
		}
		for n, cl := range held {
			for _, i := range due[n] {
				accept(m, cl, i)
			}
			settle(t, m, cl)
		}
		if summary(t, q, c).Settled {
			return false
		}
	}
	t.Fatal("it never ends")
	return false
}

// Who kills every worker that gets to them is rejected, with the reason, and everybody
// else of the block and of those beside it is sent to.
func TestPoison(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string][]int{"the first": {2}, "one in the middle": {7}, "the last": {17}, "two of a block": {3, 6}, "one in each": {4, 12}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachRedis(t, func(t *testing.T, q *Queue) {
				c := store(t, q, "spring", 2, 8) // lines 2 to 17
				lives := 1
				for live(t, q, c, func(line int) bool { return slices.Contains(poison, line) }) {
					if lives++; lives > 20 {
						t.Fatal("it goes on killing")
					}
				}
				if most := 1 + len(poison)*(suspectDeaths+2); lives > most {
					t.Errorf("%d lives, want %d at most", lives, most)
				}
				if err := q.Rows(t.Context(), c, func(r Row) error {
					guilty := slices.Contains(poison, r.Line)
					if guilty != (r.Outcome == mail.Rejected && r.Reply.Text == guiltyText) || !guilty && r.Outcome != mail.Accepted {
						t.Errorf("line %d is %s: %s", r.Line, r.Outcome, r.Reply.Text)
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if n := q.rdb.HLen(t.Context(), q.keys.deaths(c.Stream)).Val(); n != 0 {
					t.Errorf("deaths of %d blocks are kept", n)
				}
			})
		})
	}
}

// Nobody is blamed for deaths of workers that had not come to them, as while the relay is
// away and its host is restarted again and again.
func TestDeathsBeforeTheTurn(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 8)
		for range 3 * suspectDeaths {
			m := silent(t, q)
			claim(t, m, c, 0)
			die(t, q, m)
		}
		if live(t, q, c, func(int) bool { return false }) {
			t.Fatal("died of nobody")
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 8 {
			t.Errorf("of 8 who killed nobody: %v", s.Outcomes)
		}
	})
}

// Workers that die by chance make nobody suspect: the block got further in between.
func TestDeathsByChance(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 20)
		for i := range 8 {
			m := silent(t, q)
			cl := claim(t, m, c, 0)
			if cl.probing {
				t.Fatalf("probed after %d deaths", i)
			}
			accept(m, cl, i)
			if err := m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			die(t, q, m)
		}
		// Nor do those of a block that a worker held and outlived.
		for range suspectDeaths - 1 {
			m := silent(t, q)
			claim(t, m, c, 0)
			die(t, q, m)
			m = silent(t, q)
			settle(t, m, claim(t, m, c, 0))
		}
		if cl := claim(t, silent(t, q), c, 0); cl.probing || cl.deaths != "" {
			t.Errorf("probed: %v, deaths %q", cl.probing, cl.deaths)
		}
	})
}

// One of a process's suspects is probed at a time, lest one be blamed for another.
func TestProbesTakeTurns(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 3)
		for n := range 2 {
			q.rdb.HSet(t.Context(), q.keys.deaths(c.Stream), blockID(c.ID, n), "died 3 0")
		}
		m := silent(t, q)
		first := claim(t, m, c, 0)
		if _, due := first.DueAt(1, false); due || !first.probing {
			t.Error("a suspect is sent to together with others")
		}
		if _, err := m.Claim(t.Context(), c.Stream, c.ID, 1); !errors.Is(err, ErrNotClaimed) {
			t.Fatalf("a second one: %v", err)
		}
		if _, err := q.rdb.ZScore(t.Context(), q.keys.ready(c.Stream), blockID(c.ID, 1)).Result(); err != nil {
			t.Errorf("it does not come back: %v", err)
		}
		accept(m, first, 0)
		settle(t, m, first)
		if second := claim(t, m, c, 1); !second.probing || second.only != 0 {
			t.Errorf("its turn: %+v", second)
		}
		if next := claim(t, silent(t, q), c, 0); !next.probing || next.only != 1 {
			t.Errorf("the next of the first: %+v", next)
		}
	})
}

func TestDeaths(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		was   string
		first int
		want  string
	}{
		{"died 1 -1", 4, "died 1 4"},
		{"died 2 -1", 4, "died 2 4"},
		{"died 2 4", 4, "died 2 4"},
		{"died 2 4", 5, "died 1 5"},
		{"died 3 4", 4, "probe 0 4"},
		{"died 3 4", 5, "died 1 5"},
		{"probe 0 4", 4, "probe 0 4"},
		{"probe 1 4", 4, "alone 0 4"},
		{"alone 0 4", 4, "alone 0 4"},
		{"alone 1 4", 5, "probe 0 5"},
		{"probe 1 4", 5, "probe 0 5"},
	} {
		d, ok := parseDeaths(tc.was)
		if got := d.next(tc.first).String(); !ok || got != tc.want {
			t.Errorf("%s, then %d: %s, want %s", tc.was, tc.first, got, tc.want)
		}
	}
	for _, bad := range []string{"", "x", "died", "died x 1", "died -1 1", "other 1 1"} {
		if _, ok := parseDeaths(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

// Before a recipient is rejected the process does nothing else, so that it is their mail
// that kills; but it does not wait for that for ever.
func TestProbedAlone(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 3, 3)
		m := silent(t, q)
		stored := func() string { return q.rdb.HGet(t.Context(), q.keys.deaths(c.Stream), blockID(c.ID, 0)).Val() }
		refused := func(n int, why string) {
			t.Helper()
			if _, err := m.Claim(t.Context(), c.Stream, c.ID, n); !errors.Is(err, ErrNotClaimed) {
				t.Errorf("%s: %v", why, err)
			}
		}
		q.rdb.HSet(t.Context(), q.keys.deaths(c.Stream), blockID(c.ID, 0), "probe 1 0")
		before := claim(t, m, c, 1)
		refused(0, "there is another")
		refused(2, "one waits to be alone")
		m.lonelySince = m.lonelySince.Add(-aloneWait)
		settle(t, m, claim(t, m, c, 2))
		refused(0, "there still is another")
		settle(t, m, claim(t, m, c, 2))
		settle(t, m, before)
		if s := stored(); s != "probe 1 0" {
			t.Errorf("stored is %q: deaths would be blamed on who was not alone", s)
		}
		cl := claim(t, m, c, 0)
		if s := stored(); s != "alone 0 0" || !cl.probing || cl.only != 0 {
			t.Errorf("alone: %q, %+v", s, cl)
		}
		refused(1, "one is alone")
		if m.Turn(cl, true); stored() != "alone 0 0 turn" {
			t.Errorf("at their turn: %q", stored())
		}
		die(t, q, m)
		m = silent(t, q)
		if cl = claim(t, m, c, 0); cl.Standings[0].Outcome != mail.Rejected || cl.only != 1 || !cl.probing {
			t.Errorf("in the end: %+v", cl.Standings[0])
		}
	})
}
