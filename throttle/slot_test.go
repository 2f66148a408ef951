package throttle

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// hashTag is the part of a key that Redis Cluster hashes.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// hashSlot is CRC-16/XMODEM modulo 16384, as Redis Cluster has it.
func hashSlot(s string) int {
	crc := uint16(0)
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % 16384
}

func TestHashSlot(t *testing.T) {
	t.Parallel()
	if got := hashSlot("123456789"); got != 0x31c3 { // the example of the cluster specification
		t.Errorf("got %#x, want 0x31c3", got)
	}
	if got := hashTag("a:{b:c}:d{e}"); got != "b:c" {
		t.Errorf("got %q", got)
	}
}

// Every script and command uses keys of one slot only.
func TestKeysShareASlot(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	c := client(t, &redis.Options{Addr: miniredis.RunT(t).Addr()})
	c.AddHook(keyHook(func(keys []string) {
		for _, k := range keys {
			seen[k] = true
		}
	}))
	s := newRedisStore(c, "pre", "acc 1")
	l := shipped()
	ctx := t.Context()
	for _, stream := range []string{"auth", "ad"} {
		if _, err := s.messages(ctx, l.messagePlan(Class{Stream: stream}), 1, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.connect(ctx, l.connectPlan(stream), dial{lease: stream + ":o:1", lapse: sec, dialing: sec, login: stream, creds: "f", most: 2}); err != nil {
			t.Fatal(err)
		}
	}
	_, err1 := s.renew(ctx, l.connectPlan(""), renewal{leases: []string{"ad:o:1"}, ungreeted: []bool{true}, lapse: sec, dialing: sec})
	_, err2 := s.releaseOwner(ctx, "o")
	_, err3 := s.usage(ctx, l.messagePlan(Class{Stream: "auth"}).counters)
	_, err4 := s.charge(ctx, []string{"t:1000000"}, []charge{{l.messagePlan(Class{Stream: "ad"}).counters[0], 1, true}})
	err5 := s.release(ctx, []string{"ad:o:1"})
	err6 := s.settle(ctx, report{lease: "ad:o:1", stream: "ad", creds: "f", news: newsRefused})
	err7 := s.settle(ctx, report{lease: "auth:o:1", stream: "auth", creds: "f", news: newsLogin})
	err8 := s.reset(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		t.Fatal(err)
	}
	if len(seen) < 8 {
		t.Fatalf("saw only %d keys: %v", len(seen), seen)
	}
	want := hashSlot("b:acc 1")
	for k := range seen {
		if got := hashSlot(hashTag(k)); got != want {
			t.Errorf("key %q is in slot %d, want %d", k, got, want)
		}
	}
	// And the scripts touch no key that they did not declare.
	for _, k := range c.Keys(ctx, "*").Val() {
		if !seen[k] {
			t.Errorf("key %q was written and never declared", k)
		}
	}
}

type keyHook func(keys []string)

func (h keyHook) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h keyHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h keyHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		switch cmd.Name() {
		case "eval", "evalsha":
			n := args[2].(int)
			for _, k := range args[3 : 3+n] {
				h([]string{k.(string)})
			}
		case "zrem":
			h([]string{args[1].(string)})
		}
		return next(ctx, cmd)
	}
}
