package queue

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// What another settled and appended between reading and settling is not thrown away,
// not even where the log is as long as it was, or the same, or the state is the same.
func TestSettleSeesWhatOthersDid(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		read int // attempt in the log that is read; attempt 1 is in the state
		then []int
	}{
		"another log":                 {2, []int{3}},
		"another log, the same state": {1, []int{3}},
		"another state, the same log": {2, []int{3, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachRedis(t, func(t *testing.T, q *Queue) {
				c := store(t, q, "spring", 1, 1)
				m := silent(t, q)
				cl := claim(t, m, c, 0)
				deferred := func(attempt int) {
					data := appendEvidence(nil, Evidence{Attempt: attempt, Outcome: mail.Deferred})
					if err := m.append(t.Context(), q.rdb, []pastWrite{{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: data}}); err != nil {
						t.Error(err)
					}
				}
				settle := func() {
					if _, err := q.settle(t.Context(), cl); err != nil {
						t.Error(err)
					}
				}
				deferred(1)
				settle()
				deferred(tc.read)
				q.rdb.AddHook(&between{match: runs(q.scripts.settle), do: func() {
					for _, attempt := range tc.then {
						settle()
						deferred(attempt)
					}
				}})
				settle()
				if _, st, err := q.load(t.Context(), c.ID, 0); err != nil || st[0].Attempts != 3 {
					t.Errorf("%+v, %v", st, err)
				}
			})
		})
	}
}

// A job that asynq has lost is made again.
func TestLostJobIsMadeAgain(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		if got := chosen(t, q); len(got) != 1 { // and nothing is enqueued
			t.Fatalf("chosen: %v", got)
		}
		join(t, q, Hooks{})
		inspector := asynq.NewInspectorFromRedisClient(q.rdb)
		eventually(t, "its job is there", func() bool {
			tasks, err := inspector.ListPendingTasks(q.keys.asynqQueue(mail.Ad))
			return err == nil && len(tasks) == 1 && strings.Contains(string(tasks[0].Payload), c.ID)
		})
	})
}

// Evidence from outside that comes between the last look at the log and the release
// is not overlooked.
func TestEvidenceBeforeTheRelease(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		m.Record(m.Declare(cl, 0), mail.Unknown, mail.Reply{}, 0)
		q.rdb.AddHook(&between{match: runs(q.scripts.release), do: func() {
			late := pastWrite{logOf: logOf{stream: mail.Ad, campaign: c.ID}, data: appendEvidence(nil, Evidence{Attempt: 1, Outcome: mail.Accepted})}
			if err := m.writeEvidence(t.Context(), []pastWrite{late}); err != nil {
				t.Error(err)
			}
		}})
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.ZCard(t.Context(), q.keys.ready(mail.Ad)).Val(); n != 1 {
			t.Fatal("nobody will look at the block again")
		}
		if err := m.Settle(t.Context(), claim(t, m, c, 0), false); err != nil {
			t.Fatal(err)
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 1 {
			t.Errorf("%v", s.Outcomes)
		}
		if n := q.rdb.ZCard(t.Context(), q.keys.ready(mail.Ad)).Val(); n != 0 {
			t.Error("the block comes back for ever")
		}
	})
}

// Evidence that is written after its block was settled makes the block due again.
func TestLateEvidenceMakesTheBlockDue(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		dying := silent(t, q)
		in := dying.Declare(claim(t, dying, c, 0), 0)
		if err := dying.Confirm(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if err := q.takeOver(t.Context(), dying.nonce, "1"); err != nil {
			t.Fatal(err)
		}
		other := silent(t, q)
		if err := other.Settle(t.Context(), claim(t, other, c, 0), false); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.ZCard(t.Context(), q.keys.ready(mail.Ad)).Val(); n != 0 {
			t.Fatal("due before the evidence")
		}
		dying.Record(in, mail.Accepted, mail.Reply{Code: 250}, 0)
		if err := dying.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.ZCard(t.Context(), q.keys.ready(mail.Ad)).Val(); n != 1 {
			t.Error("nobody will look at the evidence")
		}
	})
}

// chosen runs the scheduler and returns the blocks it gives out.
func chosen(t *testing.T, q *Queue) (out []string) {
	t.Helper()
	res, err := q.choose(t.Context(), mail.Ad, 100, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(res); i += 2 {
		out = append(out, res[i])
	}
	slices.Sort(out)
	return out
}

// A cancelled campaign's recipients are marked now, not when they would have been due.
func TestCancelComesAtOnce(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 1)
		m := silent(t, q)
		deferred, claimed := claim(t, m, c, 0), claim(t, m, c, 1)
		for _, cl := range []*Claim{deferred, claimed} {
			m.Record(m.Declare(cl, 0), mail.Deferred, mail.Reply{Code: 451}, m.Now()+3_600_000)
		}
		if err := m.Settle(t.Context(), deferred, false); err != nil {
			t.Fatal(err)
		}
		chosen(t, q) // the ring is through
		q.rdb.Del(t.Context(), q.keys.queued(mail.Ad))
		if err := q.Cancel(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); !slices.Equal(got, []string{deferred.ID()}) {
			t.Errorf("after the cancel: %v", got)
		}
		if err := m.Settle(t.Context(), claimed, false); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); !slices.Equal(got, []string{claimed.ID()}) {
			t.Errorf("after the release: %v", got)
		}

		st, err := q.Stage(t.Context(), Campaign{Name: "later", Key: "later", Stream: mail.Ad, From: "s@example.com", Size: 1, Start: time.Now().Add(time.Hour)}, nil)
		if err == nil {
			err = errors.Join(st.Put(t.Context(), 0, &Block{Lines: []int{2}, Emails: []string{"a@b.kr"}}),
				st.Commit(t.Context(), 1, 0, Door{Recipients: 1}))
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); len(got) != 0 {
			t.Errorf("before its start: %v", got)
		}
		if err := q.Cancel(t.Context(), st.c, "test"); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); !slices.Equal(got, []string{blockID(st.c.ID, 0)}) {
			t.Errorf("cancelled before its start: %v", got)
		}
	})
}

// Whoever pauses or resumes at the moment of a cancel does not undo it.
func TestCancelIsForGood(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		for name, act := range map[string]func(*Campaign) error{
			"pause":  func(c *Campaign) error { return q.Pause(t.Context(), c, "x") },
			"resume": func(c *Campaign) error { return q.Resume(t.Context(), c) },
		} {
			c := store(t, q, name, 1, 1)
			if err := q.Pause(t.Context(), c, "before"); err != nil {
				t.Fatal(err)
			}
			if name == "pause" {
				if err := q.Resume(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			hold, lift := runs(q.scripts.hold), runs(q.scripts.lift)
			q.rdb.AddHook(&between{
				match: func(cmd redis.Cmder) bool {
					return hold(cmd) || lift(cmd) || cmd.Name() == "hset" || cmd.Name() == "hdel"
				},
				do: func() {
					if err := q.Cancel(t.Context(), c, "test"); err != nil {
						t.Error(err)
					}
				},
			})
			if err := act(c); err != nil && !errors.Is(err, ErrCancelled) {
				t.Error(err)
			}
			if h, err := q.heldBy(t.Context(), c); err != nil || h == nil || h.State != HoldCancelled {
				t.Errorf("%s: held by %+v, %v", name, h, err)
			}
		}
	})
}

// What is no block stops neither the scheduler nor the reconciler for the others.
func TestPoisonInTheSchedule(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 1)
		q.rdb.ZAdd(t.Context(), q.keys.ready(mail.Ad), z(0, "/-1"))
		if err := q.Pump(t.Context(), mail.Ad, 9); !errors.Is(err, errCorrupt) {
			t.Errorf("poison: %v", err)
		}
		inspector := asynq.NewInspectorFromRedisClient(q.rdb)
		pending := func() int {
			tasks, err := inspector.ListPendingTasks(q.keys.asynqQueue(mail.Ad))
			if err != nil {
				t.Fatal(err)
			}
			return len(tasks)
		}
		if n := pending(); n != 2 {
			t.Errorf("%d jobs for 2 blocks", n)
		}
		for i := range 20 { // the order of a map's entries is chance
			q.rdb.HSet(t.Context(), q.keys.queued(mail.Ad), blockID(c.ID, 100+i), "7 0", "/-1", "7 0")
		}
		if err := q.remake(t.Context(), mail.Ad); err != nil {
			t.Errorf("reconciling with poison: %v", err)
		}
		if n := pending(); n != 22 {
			t.Errorf("%d jobs for 22 blocks", n)
		}
		if q.rdb.HExists(t.Context(), q.keys.queued(mail.Ad), "/-1").Val() {
			t.Error("the poison stays")
		}
	})
}

// The reconciler's turn ends where keys do not expire too, and one that a clock since
// set back had given does not last for ever.
func TestLead(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	q := open(t, srv.Addr())
	now := time.Now()
	lead := func(at time.Time) int {
		srv.SetTime(at)
		n, err := q.scripts.lead.Run(t.Context(), q.rdb, []string{q.keys.leader(mail.Ad)}, 1800).Int()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, tc := range []struct {
		at   time.Duration
		want int
	}{{0, 1}, {time.Second, 0}, {1800 * time.Millisecond, 1}, {2 * time.Second, 0}, {-time.Hour, 1}} {
		if got := lead(now.Add(tc.at)); got != tc.want {
			t.Errorf("step %d: %d, want %d", i, got, tc.want)
		}
	}
}

// Redis refuses in many words; each would make asynq's loop spin.
func TestOutage(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr(), MaxRetries: -1})
	defer rdb.Close()
	for text, want := range map[string]bool{
		"MISCONF Errors writing to the AOF file":     true,
		"NOREPLICAS Not enough good replicas":        true,
		"READONLY You can't write against a replica": true,
		"LOADING Redis is loading the dataset":       true,
		"OOM command not allowed":                    true,
		"NOSCRIPT No matching script":                false,
		"NOT FOUND":                                  false,
	} {
		srv.SetError(text)
		if got := outage(rdb.Ping(t.Context()).Err()); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	srv.SetError("")
	if outage(rdb.Get(t.Context(), "nothing").Err()) || outage(nil) {
		t.Error("nothing there is no outage")
	}
	srv.Close()
	if !outage(rdb.Ping(t.Context()).Err()) {
		t.Error("a dead server is one")
	}
}

// A state of a later program, which knows more outcomes, is an error and no panic.
func TestStateWithAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := testCodec(t)
	data := c.encodeState([]Standing{{Outcome: mail.Outcome(mail.NumOutcomes), Attempts: 1}})
	if st, err := c.decodeState(data, 1); !errors.Is(err, errCorrupt) {
		t.Errorf("%+v, %v", st, err)
	}
}
