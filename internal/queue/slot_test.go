package queue

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slotWatch is a go-redis hook that holds every script and every transaction to one
// cluster slot, whatever test it runs in.
type slotWatch struct {
	t    testing.TB
	mu   sync.Mutex
	seen map[string]bool
}

func (w *slotWatch) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (w *slotWatch) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		w.check(cmd.Name(), scriptKeys(cmd))
		return next(ctx, cmd)
	}
}

func (w *slotWatch) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var keys []string
		multi := false
		for _, cmd := range cmds {
			switch cmd.Name() {
			case "multi":
				multi = true
			case "exec":
			default:
				if args := cmd.Args(); len(args) > 1 {
					keys = append(keys, fmt.Sprint(args[1]))
				}
			}
		}
		if multi {
			w.check("transaction", keys)
		}
		return next(ctx, cmds)
	}
}

// scriptKeys returns the KEYS of an EVAL or EVALSHA.
func scriptKeys(cmd redis.Cmder) (keys []string) {
	args := cmd.Args()
	if n := cmd.Name(); (n != "evalsha" && n != "eval") || len(args) < 3 {
		return nil
	}
	var count int
	if _, err := fmt.Sscan(fmt.Sprint(args[2]), &count); err != nil {
		return nil
	}
	for _, a := range args[3 : 3+count] {
		keys = append(keys, fmt.Sprint(a))
	}
	return keys
}

// check compares the hash tags: the same tag is the same slot (cluster
// specification, "hash tags").
func (w *slotWatch) check(what string, keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range keys {
		w.seen[tag(k)] = true
		if tag(k) != tag(keys[0]) {
			w.t.Errorf("%s crosses slots: %v", what, keys)
			return
		}
	}
}

func tag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if t, _, ok := strings.Cut(rest, "}"); ok && t != "" {
			return t
		}
	}
	return key
}

func TestTag(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{"sluice:{c:1}:meta": "c:1", "plain": "plain", "{}x": "{}x", "asynq:{sluice-ad}:pending": "sluice-ad"} {
		if got := tag(key); got != want {
			t.Errorf("tag(%q) = %q, want %q", key, got, want)
		}
	}
}

// The hook sees what it is to see: all three families of keys.
func TestSlotWatchSees(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		w := &slotWatch{t: t, seen: map[string]bool{}}
		q.rdb.AddHook(w)
		c := store(t, q, "spring", 1, 1)
		m := join(t, q, Hooks{})
		cl := claim(t, m, c, 0)
		accept(m, cl, 0)
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		if err := q.takeOver(t.Context(), "nobody", ""); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock() // the reconciler goes on
		defer w.mu.Unlock()
		for _, want := range []string{"c:" + c.ID, "s:ad", "w"} {
			if !w.seen[want] {
				t.Errorf("no script or transaction on {%s}: saw %v", want, w.seen)
			}
		}
	})
}
