package queue

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// between is a go-redis hook that does something once, just before the first command
// that match is true of, or just after it.
type between struct {
	match func(redis.Cmder) bool
	do    func()
	after bool
	done  atomic.Bool
}

func (b *between) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !b.match(cmd) || b.done.Swap(true) {
			return next(ctx, cmd)
		}
		if b.after {
			defer b.do()
		} else {
			b.do()
		}
		return next(ctx, cmd)
	}
}

func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if slices.ContainsFunc(cmds, b.match) && !b.done.Swap(true) {
			b.do()
		}
		return next(ctx, cmds)
	}
}

// doubled is a go-redis hook that lets the first run of a script happen twice, and gives
// the second answer.
type doubled struct {
	between
	script string
}

func (d *doubled) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" && cmd.Args()[1] == d.script && !d.done.Swap(true) {
			_ = next(ctx, cmd)
		}
		return next(ctx, cmd)
	}
}

func (d *doubled) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// runs matches the run of a script.
func runs(s *redis.Script) func(redis.Cmder) bool {
	return func(cmd redis.Cmder) bool {
		return cmd.Name() == "evalsha" && cmd.Args()[1] == s.Hash()
	}
}

// gets matches the reading of a key.
func gets(key string) func(redis.Cmder) bool {
	return func(cmd redis.Cmder) bool { return cmd.Name() == "get" && cmd.Args()[1] == key }
}

// A worker that leaves at once, with messages under way, does not take the traces of
// them along: they become unknown, and are not sent again as if nothing had been.
func TestLeaveKeepsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 3)
		m, err := q.Join(t.Context(), Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx, ctx) }()
		cl := claim(t, m, c, 0)
		silent, cut := m.Declare(cl, 0), m.Declare(cl, 1)
		if err := errors.Join(m.Confirm(t.Context(), silent), m.Confirm(t.Context(), cut)); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		m.Record(cut, mail.Rejected, mail.Reply{Code: 550}, 0) // the ledger has ended already
		if err := m.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		join(t, q, Hooks{})
		eventually(t, "the block is due again", func() bool { return q.rdb.ZCard(t.Context(), q.keys.ready(mail.Ad)).Val() == 1 })
		if s := summary(t, q, c); s.Count(mail.Unknown) != 1 || s.Count(mail.Rejected) != 1 || s.Count(mail.Pending) != 1 {
			t.Errorf("%v", s.Outcomes)
		}
	})
}

// A write that was broken off when the ledger ended is repeated, by the way that
// keeps a late one from coming true.
func TestLeaveRepeatsABrokenWrite(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m, err := q.Join(t.Context(), Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		cl := claim(t, m, c, 0)
		accept(m, cl, 0)
		ended, end := context.WithCancel(t.Context())
		end()
		if err := m.commit(ended, m.nextBatch(), m.write); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := m.Leave(t.Context()); err != nil || m.gen != 2 {
			t.Errorf("generation %d, %v", m.gen, err)
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 1 {
			t.Errorf("%v", s.Outcomes)
		}
		if n := q.rdb.Exists(t.Context(), q.keys.record(m.nonce, 1), q.keys.record(m.nonce, 2)).Val(); n != 0 {
			t.Errorf("%d records left", n)
		}
	})
}

// Whose claim was lost may not send what it had declared under it, confirmed or not.
func TestConfirmOfALostClaim(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		m := silent(t, q)
		cl := claim(t, m, c, 0)
		in := m.Declare(cl, 0)
		if err := m.Confirm(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		q.rdb.HSet(t.Context(), q.keys.claims(mail.Ad), cl.ID(), joinClaim(cl.Epoch+1, "other"))
		if err := m.remind(t.Context(), q.rdb); err != nil {
			t.Fatal(err)
		}
		if err := m.Confirm(t.Context(), in); !errors.Is(err, ErrLost) {
			t.Errorf("confirmed under a lost claim: %v", err)
		}
	})
}

// A confirmation that came back too old asks again, as often as it takes.
func TestConfirmAsksAgain(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	m, err := q.Join(t.Context(), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	in := m.Declare(&Claim{Standings: make([]Standing, 1)}, 0)
	confirmed := make(chan error, 1)
	go func() { confirmed <- m.Confirm(t.Context(), in) }()
	for range 3 { // the ledger's write takes longer than a confirmation is good for
		<-m.dirty
		m.mu.Lock()
		version := m.version
		m.mu.Unlock()
		m.done(&batch{version: version, begun: time.Now().Add(-confirmAge)})
	}
	<-m.dirty
	m.mu.Lock()
	version := m.version
	m.mu.Unlock()
	m.done(&batch{version: version, begun: time.Now()})
	if err := <-confirmed; err != nil {
		t.Error(err)
	}
}

// A block that takes long to read is not given up as nobody's meanwhile, and is
// claimed again where Redis restarts meanwhile.
func TestSlowClaimStands(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 3, 1)
		m := silent(t, q)
		stands := func(cl *Claim) {
			t.Helper()
			if v := q.rdb.HGet(t.Context(), q.keys.claims(mail.Ad), cl.ID()).Val(); v != joinClaim(cl.Epoch, m.nonce) {
				t.Errorf("block %d: the claim stands as %q", cl.N, v)
			}
		}
		twoPasses := func() {
			idle, err := m.disown(t.Context(), nil)
			if err == nil {
				_, err = m.disown(t.Context(), idle)
			}
			if err != nil {
				t.Error(err)
			}
		}
		q.rdb.AddHook(&between{match: gets(q.keys.recipients(c.ID, 0)), do: twoPasses})
		stands(claim(t, m, c, 0))
		q.rdb.AddHook(&between{match: runs(q.scripts.claim), do: twoPasses, after: true})
		stands(claim(t, m, c, 2))
		q.rdb.AddHook(&between{match: gets(q.keys.recipients(c.ID, 1)), do: func() {
			q.rdb.Del(t.Context(), q.keys.claims(mail.Ad))
			if err := m.remind(t.Context(), q.rdb); err != nil {
				t.Error(err)
			}
		}})
		stands(claim(t, m, c, 1))
		q.rdb.Del(t.Context(), q.keys.recipients(c.ID, 0))
		if _, err := m.Claim(t.Context(), mail.Ad, c.ID, 7); !errors.Is(err, ErrNotClaimed) {
			t.Errorf("a block that is not there: %v", err)
		}
		if _, err := m.Claim(t.Context(), mail.Auth, c.ID, 1); !errors.Is(err, ErrNotClaimed) {
			t.Errorf("a block of another stream: %v", err)
		}
		if n := len(m.claims); n != 3 {
			t.Errorf("%d claims on the books", n)
		}
	})
}

// What is settled late does not take a newer claim on the same block off the books.
func TestForgetOnlyItself(t *testing.T) {
	t.Parallel()
	m := &Member{claims: map[string]*Claim{}}
	older, newer := &Claim{Epoch: 1}, &Claim{Epoch: 2}
	m.claims["c/0"] = newer
	m.forget("c/0", older)
	if !m.holdsClaim("c/0") {
		t.Error("the newer claim is off the books")
	}
	m.forget("c/0", newer)
	if m.holdsClaim("c/0") {
		t.Error("still on the books")
	}
}

// Redis restarts and has lost a claim; somebody else has taken the block before its
// holder, which had been away, says that it has it. The counter of claims was set
// back as well.
func TestLateClaimDoesNotWin(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		late, other := silent(t, q), silent(t, q)
		cl := claim(t, late, c, 0)
		q.rdb.Del(t.Context(), q.keys.claims(mail.Ad), q.keys.epoch(mail.Ad))
		newer := claim(t, other, c, 0)
		if err := late.reclaim(t.Context(), q.rdb, cl); err != nil || !cl.Lost() {
			t.Errorf("lost %v, %v", cl.Lost(), err)
		}
		if v := q.rdb.HGet(t.Context(), q.keys.claims(mail.Ad), cl.ID()).Val(); v != joinClaim(newer.Epoch, other.nonce) {
			t.Errorf("the claim stands as %q", v)
		}
	})
}

// A member that was buried without a record, because Redis had lost it, stays
// buried, and writes no claim over anybody's.
func TestBuriedWithoutARecord(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 1)
		dead := silent(t, q)
		cl := claim(t, dead, c, 0)
		q.rdb.Del(t.Context(), q.keys.gens(), q.keys.beats(), q.keys.record(dead.nonce, 1))
		if err := q.takeOver(t.Context(), dead.nonce, ""); err != nil {
			t.Fatal(err)
		}
		cl.Epoch += 1 << 40 // whatever its claim's epoch was
		other := silent(t, q)
		newer := claim(t, other, c, 0)
		if err := dead.remind(t.Context(), q.rdb); !errors.Is(err, ErrFenced) {
			t.Errorf("a buried member's memory was taken: %v", err)
		}
		if v := q.rdb.HGet(t.Context(), q.keys.claims(mail.Ad), cl.ID()).Val(); v != joinClaim(newer.Epoch, other.nonce) {
			t.Errorf("the claim stands as %q", v)
		}
	})
}

// Who froze between seeing a death and declaring it finds the member alive.
func TestLateBurial(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		m := silent(t, q)
		if _, err := m.pulseOnce(t.Context(), &observer{seen: map[string]sighting{}}); err != nil {
			t.Fatal(err)
		}
		if err := q.takeOver(t.Context(), m.nonce, "1"); !errors.Is(err, errAlive) {
			t.Errorf("buried at an old counter: %v", err)
		}
		if err := q.takeOver(t.Context(), m.nonce, "2"); err != nil {
			t.Error(err)
		}
	})
}

// What a fenced member knows is stored before anybody takes it for done.
func TestFlushOfTheFenced(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	c := store(t, q, "spring", 1, 1)
	m, err := q.Join(t.Context(), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	accept(m, claim(t, m, c, 0), 0)
	m.fail(ErrFenced)
	b := m.nextBatch() // the ledger goroutine is at it
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("taken for stored: %v", err)
	}
	if err := m.commit(t.Context(), b, m.write); err != nil {
		t.Fatal(err)
	}
	if err := m.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if s := summary(t, q, c); s.Count(mail.Accepted) != 1 {
		t.Errorf("%v", s.Outcomes)
	}
}

// A take-over that takes long does not stop one's own heart.
func TestTakeOverDoesNotStopTheHeart(t *testing.T) {
	t.Parallel()
	q := open(t, miniredis.RunT(t).Addr())
	silent(t, q)
	entered, leave := make(chan struct{}), make(chan struct{})
	m := join(t, q, Hooks{TakenOver: func(context.Context, string, bool) {
		close(entered)
		<-leave
	}})
	defer close(leave)
	<-entered
	count := func() int {
		n, _ := q.rdb.HGet(t.Context(), q.keys.beats(), m.nonce).Int()
		return n
	}
	before := count()
	eventually(t, "it beats on", func() bool { return count() > before+2 })
}

// The clock is Redis's from the start, not only from the first heartbeat.
func TestClockAtJoin(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	srv.SetTime(time.Now().Add(time.Hour))
	m := silent(t, open(t, srv.Addr()))
	if ahead := m.Now() - time.Now().UnixMilli(); ahead < 3_500_000 {
		t.Errorf("%d ms ahead of ours, want an hour", ahead)
	}
}
