package queue

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

func z(score float64, member string) redis.Z { return redis.Z{Score: score, Member: member} }

// silent makes a member whose heartbeat never runs, as that of a dead or frozen
// process, but whose ledger works.
func silent(t testing.TB, q *Queue) *Member {
	t.Helper()
	m, err := q.Join(t.Context(), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.commitLoop(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		_ = m.close()
	})
	return m
}

// Who could not join is not left on the books, where others would see a worker die.
func TestJoinThatFails(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		stamp := q.keys.stamp() // read after the member has been written
		if err := q.rdb.HSet(t.Context(), stamp, "not", "a string").Err(); err != nil {
			t.Fatal(err)
		}
		if m, err := q.Join(t.Context(), Hooks{}); err == nil {
			_ = m.close()
			t.Fatal("joined over a stamp of another type")
		}
		for _, key := range q.rdb.Keys(t.Context(), "*").Val() {
			if key != stamp && key != q.keys.run() {
				t.Errorf("left in Redis: %s", key)
			}
		}
	})
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 4)
		dying := silent(t, q)
		cl, cl1 := claim(t, dying, c, 0), claim(t, dying, c, 1)
		accept(dying, cl, 0)
		declared, second := dying.Declare(cl, 1), dying.Declare(cl1, 3)
		if err := dying.Confirm(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		buried := make(chan string, 1)
		join(t, q, Hooks{TakenOver: func(_ context.Context, nonce string, _ bool) { buried <- nonce }})
		if nonce := <-buried; nonce != dying.Nonce() {
			t.Fatalf("%s was buried, not %s", nonce, dying.Nonce())
		}
		s := summary(t, q, c)
		if s.Count(mail.Accepted) != 1 || s.Count(mail.Unknown) != 2 || s.Count(mail.Pending) != 5 {
			t.Errorf("after the take-over: %v", s.Outcomes)
		}
		if n := q.rdb.ZCount(t.Context(), q.keys.ready(mail.Ad), "0", "0").Val(); n != 2 {
			t.Errorf("%d of 2 blocks are due at once", n)
		}
		// The zombie wakes up: no intent of it is confirmed any more …
		if err := dying.Confirm(t.Context(), dying.Declare(cl, 2)); !errors.Is(err, ErrFenced) {
			t.Errorf("a buried worker's intent: %v", err)
		}
		// … but what came of what it had declared is taken.
		dying.Record(declared, mail.Accepted, mail.Reply{Code: 250}, 0)
		eventually(t, "late evidence arrives", func() bool { return summary(t, q, c).Count(mail.Accepted) == 2 })
		if s := summary(t, q, c); s.Count(mail.Unknown) != 1 {
			t.Errorf("after late evidence: %v", s.Outcomes)
		}
	})
}

// A take-over that is interrupted after the burial is finished by somebody else,
// and finishing it twice changes nothing.
func TestTakeOverIsRepeatable(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 2)
		dying := silent(t, q)
		cl := claim(t, dying, c, 0)
		if err := dying.Confirm(t.Context(), dying.Declare(cl, 1)); err != nil {
			t.Fatal(err)
		}
		k := q.keys
		keys := []string{k.gens(), k.beats(), k.record(dying.nonce, 1), k.dead(dying.nonce)}
		if err := q.scripts.bury.Run(t.Context(), q.rdb, keys, dying.nonce, 1, 1).Err(); err != nil {
			t.Fatal(err)
		}
		join(t, q, Hooks{}) // finds a claim whose owner has no heartbeat
		eventually(t, "the claim is seized", func() bool { return q.rdb.HLen(t.Context(), k.claims(mail.Ad)).Val() == 0 })
		for range 2 {
			if err := q.takeOver(t.Context(), dying.nonce, "1"); err != nil {
				t.Fatal(err)
			}
		}
		if s := summary(t, q, c); s.Count(mail.Unknown) != 1 || s.Count(mail.Pending) != 1 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

func TestTakeOverSparesTheLiving(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := silent(t, q)
		claim(t, m, c, 0)
		k := q.keys
		// It writes between the observer's reading and the burial.
		keys := []string{k.gens(), k.beats(), k.record(m.nonce, 7), k.dead(m.nonce)}
		res, err := q.scripts.bury.Run(t.Context(), q.rdb, keys, m.nonce, 7).Slice()
		if err != nil || len(res) != 1 {
			t.Errorf("burial of a living one: %v, %v", res, err)
		}
		if q.rdb.HLen(t.Context(), k.claims(mail.Ad)).Val() != 1 {
			t.Error("its claim is gone")
		}
	})
}

func TestObserver(t *testing.T) {
	t.Parallel()
	start := time.Now()
	o := observer{seen: map[string]sighting{}}
	at := func(d time.Duration, count string, took time.Duration) map[string]string {
		now := start.Add(d)
		return o.look(map[string]string{"w": count}, now.Add(-took), now)
	}
	d := time.Duration(0)
	step := func(count string, took time.Duration) map[string]string {
		d += beatEvery
		return at(d, count, took)
	}
	for range 15 { // 3.75 s of silence
		if dead := step("1", time.Millisecond); len(dead) != 0 {
			t.Fatalf("declared dead after %v", d)
		}
	}
	step("1", time.Second) // one slow call, and the count starts anew
	for range 15 {
		if dead := step("1", time.Millisecond); len(dead) != 0 {
			t.Fatalf("declared dead %v after a slow call", d)
		}
	}
	d += time.Minute // the observer itself was frozen
	if dead := step("1", time.Millisecond); len(dead) != 0 {
		t.Fatal("declared dead after the observer's own pause")
	}
	step("2", time.Millisecond)
	var dead map[string]string
	for range 17 {
		dead = step("2", time.Millisecond)
	}
	if dead["w"] != "2" {
		t.Error("never declared dead")
	}
}

// A redis-server that is frozen makes nobody dead, confirms nothing, and everything
// recorded meanwhile is stored afterwards.
func TestFrozenRedis(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	q := open(t, srv.Addr())
	c := store(t, q, "spring", 1, 3)
	buried := make(chan string, 4)
	h := Hooks{TakenOver: func(_ context.Context, nonce string, _ bool) { buried <- nonce }}
	m, other := join(t, q, h), join(t, q, h)
	cl := claim(t, m, c, 0)
	first := m.Declare(cl, 0)
	if err := m.Confirm(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	srv.Freeze()
	m.Record(first, mail.Accepted, mail.Reply{Code: 250}, 0)
	second := m.Declare(cl, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second) // longer than the ledger's own patience
	defer cancel()
	if err := m.Confirm(ctx, second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an intent was confirmed by a frozen redis: %v", err)
	}
	srv.Thaw()
	if err := m.Confirm(t.Context(), second); err != nil {
		t.Fatalf("after the thaw: %v", err)
	}
	m.Record(second, mail.Accepted, mail.Reply{Code: 250}, 0)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := summary(t, q, c); s.Count(mail.Accepted) != 2 {
		t.Errorf("%v", s.Outcomes)
	}
	if len(buried) != 0 || m.Err() != nil || other.Err() != nil {
		t.Error("somebody was declared dead in a redis stall")
	}
}

// Redis is killed and comes back without its last writes. The member that outlived
// it writes them again before it sends on.
func TestRedisLosesItsLastSeconds(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--appendonly", "no") // remembers nothing at all: the worst case
	q := open(t, srv.Addr())
	c := store(t, q, "spring", 1, 3)
	restarted := make(chan struct{}, 4)
	m := join(t, q, Hooks{Restarted: func(context.Context) { restarted <- struct{}{} }})
	cl := claim(t, m, c, 0)
	accept(m, cl, 0)
	in := m.Declare(cl, 1)
	if err := m.Confirm(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	dump := func(key string) string { return q.rdb.Dump(t.Context(), key).Val() }
	kept := map[string]string{}
	for _, key := range []string{q.keys.meta(c.ID), q.keys.program(c.ID), q.keys.recipients(c.ID, 0)} {
		kept[key] = dump(key)
	}
	srv.Kill()
	srv.Restart()
	plain := q.conn.client(clientOptions{})
	defer plain.Close()
	for key, data := range kept { // the campaign is older than the loss
		if err := plain.Restore(t.Context(), key, 0, data).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Confirm(t.Context(), m.Declare(cl, 2)); err != nil {
		t.Fatalf("after the restart: %v", err)
	}
	<-restarted
	m.Record(in, mail.Accepted, mail.Reply{Code: 250}, 0)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := summary(t, q, c); s.Count(mail.Accepted) != 2 {
		t.Errorf("what was lost is not there again: %v", s.Outcomes)
	}
	held := plain.HGet(t.Context(), q.keys.claims(mail.Ad), cl.ID()).Val()
	if held != joinClaim(cl.Epoch, m.nonce) {
		t.Errorf("the claim stands as %q", held)
	}
	record, err := decodeIntents([]byte(plain.Get(t.Context(), q.keys.record(m.nonce, m.gen)).Val()))
	if err != nil || len(record) != 1 || record[0].index != 2 {
		t.Errorf("the record holds %v, %v", record, err)
	}
}

// After a restart a newer claim of somebody else stands, and ours is given up.
func TestNewerClaimWinsAfterRestart(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		q.rdb.HSet(t.Context(), q.keys.claims(mail.Ad), cl.ID(), joinClaim(cl.Epoch+1, "other"))
		if err := m.reclaim(t.Context(), q.rdb, cl); err != nil {
			t.Fatal(err)
		}
		if !cl.Lost() {
			t.Error("the older claim was not given up")
		}
		q.rdb.Del(t.Context(), q.keys.claims(mail.Ad), q.keys.epoch(mail.Ad))
		mine := &Claim{Campaign: c, Epoch: 9}
		if err := m.reclaim(t.Context(), q.rdb, mine); err != nil || mine.Lost() {
			t.Fatalf("lost %v, %v", mine.Lost(), err)
		}
		if e := q.rdb.Get(t.Context(), q.keys.epoch(mail.Ad)).Val(); e != "9" {
			t.Errorf("the counter of claims stands at %s: a claim could be given twice", e)
		}
	})
}

// A claim that nobody works on, because its answer was lost, comes back.
func TestDisown(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := join(t, q, Hooks{})
		q.rdb.HSet(t.Context(), q.keys.claims(mail.Ad), blockID(c.ID, 0), joinClaim(5, m.nonce))
		eventually(t, "the claim is given up", func() bool {
			return q.rdb.ZScore(t.Context(), q.keys.ready(mail.Ad), blockID(c.ID, 0)).Err() == nil
		})
	})
}

// A write whose answer was lost must not come true later and hide an intent.
func TestRotatedRecordDefeatsALateWrite(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 2)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		old := q.keys.record(m.nonce, m.gen)
		if err := m.Confirm(t.Context(), m.Declare(cl, 0)); err != nil {
			t.Fatal(err)
		}
		record := encodeIntents(nil, m.intents)
		for range 2 { // the answer to the first is lost as well
			if err := m.rotate(t.Context(), m.rdb, record, false); err != nil {
				t.Fatal(err)
			}
		}
		if set := q.rdb.SetXX(t.Context(), old, "stale", 0); set.Val() {
			t.Error("the late write was taken")
		}
		if err := m.Confirm(t.Context(), m.Declare(cl, 1)); err != nil {
			t.Errorf("after the rotation: %v", err)
		}
		n, err := q.rdb.Exists(t.Context(), old).Result()
		if err != nil || n != 0 || m.gen != 3 {
			t.Errorf("old record there: %s, generation %d, %v", strconv.FormatInt(n, 10), m.gen, err)
		}
	})
}
