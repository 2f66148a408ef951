package queue

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
)

// A member that has written again what it knows, and is killed before it stores what came
// meanwhile, has left either the intent or the outcome of each.
func TestRemindKeepsWhatIsNotStored(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		c := store(t, q, "spring", 1, 4)
		m, err := q.Join(t.Context(), Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		cl := claim(t, m, c, 0)
		var in []*Intent
		for i := range 3 {
			in = append(in, m.Declare(cl, i))
		}
		if err := m.write(t.Context(), m.nextBatch()); err != nil {
			t.Fatal(err)
		}
		m.Record(in[0], mail.Accepted, mail.Reply{Code: 250}, 0)
		m.nextBatch() // its write failed
		m.Record(in[1], mail.Accepted, mail.Reply{Code: 250}, 0)
		if err := m.remind(t.Context(), q.rdb); err != nil {
			t.Fatal(err)
		}
		if err := q.takeOver(t.Context(), m.nonce, "1"); err != nil {
			t.Fatal(err)
		}
		if s := summary(t, q, c); s.Count(mail.Accepted) != 2 || s.Count(mail.Unknown) != 1 || s.Count(mail.Pending) != 1 {
			t.Errorf("2 accepted, 1 unknown and 1 pending have become %v", s.Outcomes)
		}
	})
}

// A Redis that is just running out of memory takes a whole group commit or none of it.
func TestCommitAtTheEndOfMemory(t *testing.T) {
	t.Parallel()
	q := open(t, redistest.Start(t).Addr())
	const n = 40
	c := store(t, q, "spring", 1, n)
	m, err := q.Join(t.Context(), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	cl := claim(t, m, c, 0)
	var in []*Intent
	for i := range n {
		in = append(in, m.Declare(cl, i))
	}
	if err := m.write(t.Context(), m.nextBatch()); err != nil {
		t.Fatal(err)
	}
	for _, in := range in {
		m.Record(in, mail.Accepted, mail.Reply{Code: 250, Text: strings.Repeat("x", 150)}, 0)
	}
	b := m.nextBatch()
	for margin := 0; ; margin += 256 {
		if margin > 1<<20 {
			t.Fatal("the write is never taken")
		}
		limit := strconv.FormatInt(evictable(t, q)+int64(margin), 10)
		if err := q.rdb.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
		err := m.write(t.Context(), b)
		record, derr := decodeIntents([]byte(q.rdb.Get(t.Context(), q.keys.record(m.nonce, m.gen)).Val()))
		stored := q.rdb.StrLen(t.Context(), q.keys.log(c.ID, 0)).Val() > 0
		if derr != nil || (len(record) == 0) != stored {
			t.Fatalf("%d bytes left: %v: %d intents stand (%v), outcomes stored: %t", margin, err, len(record), derr, stored)
		}
		if err == nil {
			return
		}
	}
}

// evictable is the memory that Redis holds against maxmemory, in bytes.
func evictable(t *testing.T, q *Queue) int64 {
	t.Helper()
	info, err := q.info(t.Context(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	used, err1 := strconv.ParseInt(info["used_memory"], 10, 64)
	apart, err2 := strconv.ParseInt(info["mem_not_counted_for_evict"], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return used - apart
}

// Who was buried while Redis restarted stores what it learns late, and its process comes
// back as somebody else.
func TestFencedOverARestart(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	q, other := open(t, srv.Addr()), open(t, srv.Addr())
	c := store(t, q, "spring", 1, 2)
	m := silent(t, q)
	cl := claim(t, m, c, 0)
	in := m.Declare(cl, 0)
	if err := m.Confirm(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	srv.Restart()
	if err := other.takeOver(t.Context(), m.nonce, "1"); err != nil {
		t.Fatal(err)
	}
	if s := summary(t, other, c); s.Count(mail.Unknown) != 1 {
		t.Fatalf("before the late reply: %v", s.Outcomes)
	}
	m.Record(in, mail.Accepted, mail.Reply{Code: 250}, 0)
	eventually(t, "the late outcome counts", func() bool { return summary(t, other, c).Count(mail.Accepted) == 1 })
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Err(); !errors.Is(err, ErrFenced) {
		t.Errorf("the member's state: %v", err)
	}
	again, err := q.Join(t.Context(), Hooks{})
	if err != nil {
		t.Fatalf("joining again: %v", err)
	}
	if err := again.Leave(t.Context()); err != nil {
		t.Error(err)
	}
}

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// Who joins a Redis that another has taken the place of waits until each worker that was
// there before beats again, and so has written what it knows, or is buried.
func TestNewcomerAwaitsSurvivors(t *testing.T) {
	t.Parallel()
	const waits = "waiting for the workers that were there before"
	for name, returns := range map[string]func(ctx context.Context, q *Queue, nonce string) error{
		"beats again": func(ctx context.Context, q *Queue, nonce string) error {
			return q.rdb.HIncrBy(ctx, q.keys.beats(), nonce, 1).Err()
		},
		"is buried": func(ctx context.Context, q *Queue, nonce string) error { return q.takeOver(ctx, nonce, "1") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			var log logBuffer
			q := open(t, srv.Addr())
			newcomer, err := Open(Options{Connection: Connection{Addrs: []string{srv.Addr()}}, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer newcomer.Close()
			m := silent(t, q)
			if log.count(waits) > 0 {
				t.Error("waited for nobody")
			}
			id := q.rdb.Get(t.Context(), q.keys.run()).Val()
			if id == "" {
				t.Fatal("it is not noted which Redis was joined")
			}
			if err := q.rdb.Set(t.Context(), q.keys.run(), "the one before", 0).Err(); err != nil {
				t.Fatal(err)
			}
			joined := make(chan error, 1)
			var late *Member
			go func() {
				var err error
				late, err = newcomer.Join(t.Context(), Hooks{})
				joined <- err
			}()
			eventually(t, "it waits", func() bool { return log.count(waits) == 1 })
			if err := returns(t.Context(), q, m.Nonce()); err != nil {
				t.Fatal(err)
			}
			if err := <-joined; err != nil {
				t.Fatal(err)
			}
			defer late.close()
			if now := q.rdb.Get(t.Context(), q.keys.run()).Val(); now != id {
				t.Errorf("joined %q, noted %q", id, now)
			}
		})
	}
}
