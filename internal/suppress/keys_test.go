package suppress

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// slots collects the keys of every command.
type slots struct {
	redis.Hook
	mu   sync.Mutex
	keys []string
	most int // commands in one pipeline
}

func (s *slots) note(cmds ...redis.Cmder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = max(s.most, len(cmds))
	for _, c := range cmds {
		args := c.Args()
		switch c.Name() {
		case "eval", "evalsha":
			for _, k := range args[3 : 3+args[2].(int)] {
				s.keys = append(s.keys, fmt.Sprint(k))
			}
		case "time", "hello", "client":
		default:
			s.keys = append(s.keys, fmt.Sprint(args[1]))
		}
	}
}

func (s *slots) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *slots) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error { s.note(c); return next(ctx, c) }
}

func (s *slots) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, c []redis.Cmder) error { s.note(c...); return next(ctx, c) }
}

// Every key is under the one hash tag, and the addresses are spread evenly: the hashes
// of a million must stay below the size at which Redis keeps them another way.
func TestKeys(t *testing.T) {
	t.Parallel()
	l := quick(t)
	watch := &slots{}
	l.rdb.AddHook(watch)
	a := address(t, "a@b.kr")
	add(t, l, Entry{Address: a, Source: ByOperator})
	for _, f := range []func() error{
		func() error {
			_, err := l.Check(t.Context(), mail.Ad, slices.Repeat([]mail.Address{a}, 3*batchSize))
			return err
		},
		func() error { _, err := New(l.rdb, "test").Find(t.Context(), a); return err },
		func() error { _, err := l.Count(t.Context()); return err },
		func() error { _, err := l.Export(t.Context(), &strings.Builder{}, Output{}); return err },
		func() error { _, err := l.Remove(t.Context(), All, a); return err },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range watch.keys {
		if !strings.HasPrefix(k, "test:{u}:") {
			t.Errorf("key %s", k)
		}
	}
	if len(watch.keys) < buckets || watch.most != batchSize {
		t.Errorf("%d keys seen, up to %d commands at once", len(watch.keys), watch.most)
	}
	many := map[string]int{}
	for i := range 1_000_000 {
		many[l.bucketKey(fmt.Sprintf("user%d@naver.com", i))]++
	}
	sizes := make([]int, 0, len(many))
	for _, n := range many {
		sizes = append(sizes, n)
	}
	if most := slices.MaxFunc(sizes, cmp.Compare[int]); most > 128 || len(many) != buckets {
		t.Errorf("%d hashes, the largest with %d", len(many), most)
	}
	if got := l.bucketKey("hong@naver.com"); got != "test:{u}:35da" {
		t.Errorf("hong@naver.com is in %s: what is stored would not be found", got)
	}
}
