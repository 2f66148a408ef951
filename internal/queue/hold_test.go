package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

// When Pause or Cancel returns, every worker knows.
func TestPauseIsKnownWhenItReturns(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		members := []*Member{join(t, q, Hooks{}), join(t, q, Hooks{}), join(t, q, Hooks{})}
		c, other := store(t, q, "spring", 1, 1), store(t, q, "summer", 1, 1)
		held := func() (n int) {
			for _, m := range members {
				if _, ok := m.Held(mail.Ad, c.ID); ok {
					n++
				}
				if _, ok := m.Held(mail.Ad, other.ID); ok {
					t.Error("another campaign is held")
				}
			}
			return n
		}
		for range 3 {
			if err := q.Pause(t.Context(), c, "test"); err != nil {
				t.Fatal(err)
			}
			if n := held(); n != 3 {
				t.Errorf("%d of 3 workers know of the pause", n)
			}
			if err := q.Resume(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all go on", func() bool { return held() == 0 })
		}
		if err := q.Pause(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if err := q.Pause(t.Context(), c, "once more"); err != nil {
			t.Fatal(err)
		}
		if h, err := q.heldBy(t.Context(), c); err != nil || h == nil || h.Why != "test" || h.State != HoldPaused || h.Lift != "sluice campaign resume spring" || time.Since(h.Since) > time.Hour {
			t.Errorf("held by %+v, %v", h, err)
		}
		if err := q.Cancel(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if err := q.Cancel(t.Context(), c, "once more"); err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if h, _ := m.Held(mail.Ad, c.ID); h.State != HoldCancelled || h.Why != "test" {
				t.Errorf("after the cancel: %+v", h)
			}
		}
	})
}

// A worker that beats, but never says that it has stopped, is told of.
func TestPauseUnconfirmed(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		ctx, stop := context.WithCancel(t.Context())
		beating := make(chan struct{})
		go func() {
			defer close(beating)
			for pause(ctx, 100*time.Millisecond) == nil {
				q.rdb.HIncrBy(ctx, q.keys.beats(), "deaf", 1)
			}
		}()
		q.rdb.HSet(t.Context(), q.keys.beats(), "deaf", 1)
		err := q.Pause(t.Context(), c, "test")
		stop()
		<-beating
		if !errors.Is(err, ErrUnconfirmed) || !strings.Contains(err.Error(), "deaf") {
			t.Errorf("%v", err)
		}
		if h, err := q.heldBy(t.Context(), c); err != nil || h == nil {
			t.Errorf("it is not held: %v", err)
		}
	})
}

// A worker that has not heard of Redis for long cannot know what is paused.
func TestStaleViewHolds(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		if h, ok := m.Held(mail.Ad, "c"); ok {
			t.Errorf("at first: %+v", h)
		}
		m.setView(time.Now().Add(-confirmAge-time.Millisecond), nil)
		if h, ok := m.Held(mail.Ad, "c"); !ok || h.State != HoldHeld {
			t.Errorf("after a long silence: %+v, %v", h, ok)
		}
	})
}

// Credentials that were refused hold those who use them, and nobody else.
func TestHoldLogin(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 2, 1)
		old, fresh := join(t, q, Hooks{}), join(t, q, Hooks{})
		old.UseLogin(mail.Ad, "old")
		fresh.UseLogin(mail.Ad, "new")
		old.UseLogin(mail.Auth, "old")
		if err := q.HoldLogin(t.Context(), mail.Ad, "old", "the relay refused the login", "535 5.7.8 no"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the worker with these credentials is held", func() bool {
			h, ok := old.Held(mail.Ad, c.ID)
			return ok && h.State == HoldHeld && slices.Equal(h.Examples, []string{"535 5.7.8 no"})
		})
		if h, ok := old.Held(mail.Auth, "x"); ok {
			t.Errorf("another stream is held: %+v", h)
		}
		if h, ok := fresh.Held(mail.Ad, c.ID); ok {
			t.Errorf("other credentials are held: %+v", h)
		}
		if err := old.Pump(t.Context(), mail.Ad, 1); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.HLen(t.Context(), q.keys.queued(mail.Ad)).Val(); n != 0 {
			t.Errorf("a worker whose login is held has %d jobs made", n)
		}
		if _, err := old.Claim(t.Context(), mail.Ad, c.ID, 0); !errors.Is(err, ErrLoginHeld) || !errors.Is(err, ErrNotClaimed) {
			t.Errorf("claim by a worker whose login is held: %v", err)
		}
		if err := fresh.Pump(t.Context(), mail.Ad, 1); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.HLen(t.Context(), q.keys.queued(mail.Ad)).Val(); n != 1 {
			t.Errorf("a worker with other credentials has %d jobs made", n)
		}
		claim(t, fresh, c, 0)
		if h, err := q.heldBy(t.Context(), c); err != nil || h != nil {
			t.Errorf("the campaign counts as held, though it is being sent: %+v, %v", h, err)
		}
		if err := q.HoldLogin(t.Context(), mail.Ad, "new", "refused"); err != nil {
			t.Fatal(err)
		}
		if h, err := q.heldBy(t.Context(), c); err != nil || h == nil {
			t.Errorf("nobody can send, and the campaign is not held: %v", err)
		}
		if err := q.LiftLogin(t.Context(), mail.Ad, "new"); err != nil {
			t.Fatal(err)
		}
		if h, err := q.heldBy(t.Context(), c); err != nil || h != nil {
			t.Errorf("after the lift: %+v, %v", h, err)
		}
		if err := q.LiftStream(t.Context(), mail.Ad); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the operator lifts it for all", func() bool { _, ok := old.Held(mail.Ad, c.ID); return !ok })
	})
}

// A group's hold lifts itself, later each time, and holds nothing else.
func TestHoldGroup(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := join(t, q, Hooks{})
		last := time.Duration(0)
		for _, want := range []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, 24 * time.Hour, 24 * time.Hour} {
			if err := q.HoldGroup(t.Context(), mail.Ad, "naver", "blocked", "550 5.7.1 kim@naver.com is not amused"); err != nil {
				t.Fatal(err)
			}
			var h Hold
			eventually(t, "the group is held", func() (ok bool) { h, ok = m.HeldGroup(mail.Ad, "naver"); return ok })
			if err := q.scripts.lift.Run(t.Context(), q.rdb, []string{q.keys.held(mail.Ad), q.keys.window(mail.Ad, "@naver")}, "@naver", "1").Err(); err != nil {
				t.Fatal(err) // what a reconciler does that has not heard of the latest hold
			}
			if !q.rdb.HExists(t.Context(), q.keys.held(mail.Ad), "@naver").Val() {
				t.Error("a hold that stands was dropped as an old one")
			}
			if got := h.Until.Sub(h.Since); got != want {
				t.Errorf("held for %v after %v, want %v", got, last, want)
			}
			if len(h.Examples) != 1 || strings.Contains(h.Examples[0], "kim@") || !strings.Contains(h.Lift, h.Until.Format(time.RFC3339)) {
				t.Errorf("%+v", h)
			}
			if at := h.Recheck(m.Now()); at > m.Now()+recheck.Milliseconds() || at <= m.Now() {
				t.Errorf("looked at again in %d ms", at-m.Now())
			}
			for _, what := range []string{"kakao", ""} {
				if _, ok := m.HeldGroup(mail.Ad, what); ok {
					t.Errorf("group %q is held", what)
				}
			}
			if _, ok := m.HeldGroup(mail.Normal, "naver"); ok {
				t.Error("held in another stream")
			}
			if h, ok := m.Held(mail.Ad, "c"); ok {
				t.Errorf("a campaign is held: %+v", h)
			}
			last = want
			lapse(t, q, mail.Ad, "@naver", time.Second)
			eventually(t, "it is over", func() bool { _, ok := m.HeldGroup(mail.Ad, "naver"); return !ok })
		}
		lapse(t, q, mail.Ad, "@naver", forgetAfter+time.Minute)
		eventually(t, "it is forgotten", func() bool { return !q.rdb.HExists(t.Context(), q.keys.held(mail.Ad), "@naver").Val() })
		if err := q.HoldGroup(t.Context(), mail.Ad, "naver", "blocked"); err != nil {
			t.Fatal(err)
		}
		if err := q.LiftGroup(t.Context(), mail.Ad, "naver"); err != nil {
			t.Fatal(err)
		}
		if q.rdb.HExists(t.Context(), q.keys.held(mail.Ad), "@naver").Val() {
			t.Error("not lifted")
		}
	})
}

// lapse moves a hold into the past, so that it ended a while ago.
func lapse(t *testing.T, q *Queue, s mail.Stream, field string, ago time.Duration) {
	t.Helper()
	h, err := decodeHold(q.rdb.HGet(t.Context(), q.keys.held(s), field).Val())
	if err != nil {
		t.Fatal(err)
	}
	span, now := h.Until.Sub(h.Since).Milliseconds(), time.Now().UnixMilli()
	until := now - ago.Milliseconds()
	pipe := q.rdb.TxPipeline()
	pipe.HSet(t.Context(), q.keys.held(s), field, fmt.Sprintf(`{"state":"held","why":"x","since":%d,"until":%d}`, until-span, until))
	pipe.HIncrBy(t.Context(), q.keys.held(s), versionField, 1)
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What is due of a paused campaign is put aside once, and comes back whole.
func TestPausedBlocksAreParked(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		k, s := q.keys, mail.Ad
		a, b := store(t, q, "a", 3, 1), store(t, q, "b", 3, 1)
		pipe := q.rdb.Pipeline()
		const n = 2500 // more than one call moves
		for i := range n {
			pipe.ZAdd(t.Context(), k.ready(s), z(float64(i), blockID(a.ID, i)))
		}
		pipe.ZAdd(t.Context(), k.ready(s), z(n, blockID(b.ID, 7)))
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Campaign{a, b} {
			if err := q.Pause(t.Context(), c, "test"); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if got := chosen(t, q); len(got) != 0 {
				t.Errorf("of paused campaigns: %v", got)
			}
			if err := q.unpark(t.Context(), s, ""); err != nil { // as the reconciler does
				t.Fatal(err)
			}
			if ready, parked, ring := q.rdb.ZCard(t.Context(), k.ready(s)).Val(), q.rdb.ZCard(t.Context(), k.parked(s)).Val(), q.rdb.LLen(t.Context(), k.ring(s)).Val(); ready != 0 || parked != n+3 || ring != 0 {
				t.Errorf("%d ready, %d put aside, %d in the ring", ready, parked, ring)
			}
		}
		if err := q.Resume(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if ready, parked := q.rdb.ZCard(t.Context(), k.ready(s)).Val(), q.rdb.ZCard(t.Context(), k.parked(s)).Val(); ready != n || parked != 2 {
			t.Errorf("after resuming a: %d ready, %d put aside", ready, parked)
		}
		if ring := q.rdb.LRange(t.Context(), k.ring(s), 0, -1).Val(); !slices.Equal(ring, []string{a.ID}) {
			t.Errorf("the ring: %v", ring)
		}
		// Who resumes b dies half-way: the reconciler does the rest.
		if err := q.lift(t.Context(), s, b.ID); err != nil {
			t.Fatal(err)
		}
		join(t, q, Hooks{})
		eventually(t, "b is back", func() bool { return q.rdb.ZCard(t.Context(), k.parked(s)).Val() == 0 })
		if score, err := q.rdb.ZScore(t.Context(), k.ready(s), blockID(b.ID, 7)).Result(); err != nil || score > float64(time.Now().UnixMilli()) {
			t.Errorf("b's block is due at %v, %v", score, err)
		}
	})
}

// A paused campaign that is cancelled comes back to be marked.
func TestCancelOfWhatIsParked(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "a", 3, 1)
		q.rdb.ZAdd(t.Context(), q.keys.ready(mail.Ad), z(1, blockID(c.ID, 0)))
		q.rdb.HSet(t.Context(), q.keys.next(mail.Ad), c.ID, 1)
		if err := q.Pause(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		chosen(t, q)
		if err := q.Cancel(t.Context(), c, "test"); err != nil {
			t.Fatal(err)
		}
		if got := chosen(t, q); len(got) != 3 {
			t.Errorf("%v", got)
		}
	})
}

// A pause that a restarted Redis has lost is written again, and one that was lifted
// meanwhile does not come back.
func TestHoldsSurviveARewind(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := join(t, q, Hooks{})
		a, b, d := store(t, q, "a", 1, 1), store(t, q, "b", 1, 1), store(t, q, "d", 1, 1)
		if err := q.Pause(t.Context(), a, "test"); err != nil {
			t.Fatal(err)
		}
		before := q.rdb.HGetAll(t.Context(), q.keys.held(mail.Ad)).Val()
		if err := errors.Join(q.Resume(t.Context(), a), q.Pause(t.Context(), b, "test"), q.Cancel(t.Context(), d, "test")); err != nil {
			t.Fatal(err)
		}
		lost := q.rdb.HGetAll(t.Context(), q.keys.held(mail.Ad)).Val()
		for name, was := range map[string]map[string]string{"all lost": {}, "the last lost": before, "nothing lost": lost} {
			t.Log(name)
			q.rdb.Del(t.Context(), q.keys.held(mail.Ad))
			if len(was) > 0 {
				q.rdb.HSet(t.Context(), q.keys.held(mail.Ad), was)
			}
			if err := m.remindHolds(t.Context(), q.rdb); err != nil {
				t.Fatal(err)
			}
			now := q.rdb.HGetAll(t.Context(), q.keys.held(mail.Ad)).Val()
			if now[a.ID] != "" || now[b.ID] == "" || now[d.ID] == "" || now[versionField] != lost[versionField] {
				t.Errorf("%s: %v", name, now)
			}
		}
		newer := strconv.FormatInt(time.Now().Add(time.Hour).UnixMicro(), 10)
		q.rdb.HSet(t.Context(), q.keys.held(mail.Ad), versionField, newer)
		q.rdb.HDel(t.Context(), q.keys.held(mail.Ad), b.ID)
		if err := m.remindHolds(t.Context(), q.rdb); err != nil {
			t.Fatal(err)
		}
		if q.rdb.HExists(t.Context(), q.keys.held(mail.Ad), b.ID).Val() {
			t.Error("what Redis knows better was overwritten")
		}
	})
}

func TestPauseSurvivesARestart(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--appendonly", "no")
	q := open(t, srv.Addr())
	m := join(t, q, Hooks{})
	c := store(t, q, "spring", 1, 1)
	if err := q.Pause(t.Context(), c, "test"); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	srv.Restart() // with nothing
	eventually(t, "the pause stands again", func() bool {
		return q.rdb.HExists(t.Context(), q.keys.held(mail.Ad), c.ID).Val()
	})
	eventually(t, "the worker says again what it obeys", func() bool {
		version, _ := parseSeen(q.rdb.HGet(t.Context(), q.keys.seen(), m.nonce).Val(), mail.Ad)
		return version > 0
	})
	if h, ok := m.Held(mail.Ad, c.ID); !ok || h.State != HoldPaused {
		t.Errorf("held by %+v", h)
	}
}

// A worker that died or left is not waited for for ever.
func TestGoneMembersAreNotAwaited(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m, err := q.Join(t.Context(), Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.HLen(t.Context(), q.keys.seen()).Val(); n != 0 {
			t.Errorf("%d entries of who has left", n)
		}
		dying := silent(t, q)
		if err := q.takeOver(t.Context(), dying.nonce, "1"); err != nil {
			t.Fatal(err)
		}
		if n := q.rdb.HLen(t.Context(), q.keys.seen()).Val(); n != 0 {
			t.Errorf("%d entries of who has died", n)
		}
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"550 5.1.1 <kim@naver.com>: no such user": "550 5.1.1 <k***@naver.com>: no such user",
		"a\r\nb\x00c":                 "a  b c",
		`"kim lee"@naver.com unknown`: `"***@naver.com unknown`,
		"user+tag=x@mail.kr, b@c.jp":  "u***@mail.kr, b***@c.jp",
		"o'neil@c.ie":                 "o***@c.ie",
		"하나@둘.kr 없음":                  "하***@둘.kr 없음",
		strings.Repeat("x", 400):      strings.Repeat("x", 300),
		"\xff\xfe":                    "?",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("550 5.1.1 <", "kim", "> unknown")
	f.Add("\"", "a\"b", "\r\n")
	f.Fuzz(func(t *testing.T, before, local, after string) {
		got := clean(before + local + "@example.com" + after)
		if !utf8.ValidString(got) || len(got) > 300 || strings.ContainsAny(got, "\r\n\x00") {
			t.Errorf("%q", got)
		}
		if a, err := mail.ParseAddress(local + "@example.com"); err == nil && len(local) > 1 && strings.Contains(got, a.String()) {
			t.Errorf("%q shows %s", got, a)
		}
	})
}
