package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/redistest"
)

// A Redis that forgets is refused by who would rely on it, before anything is stored,
// and the message says what to do.
func TestUnsafeRedisIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		more string
		says string // "" = not refused
	}{
		"evicts":          {[]string{"--maxmemory-policy", "allkeys-lru"}, "", "maxmemory-policy noeviction"},
		"no file":         {[]string{"--appendonly", "no"}, "", "set appendonly yes"},
		"no file, memory": {[]string{"--appendonly", "no"}, ", durability: memory", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{redis: redistest.Start(t, tc.args...).URL()})
			conf, err := os.ReadFile(r.file)
			if err != nil {
				t.Fatal(err)
			}
			r.write("sluice.yaml", strings.Replace(string(conf), "}", tc.more+"}", 1)) // of the redis section
			code, _, errs := r.run(t.Context(), r.send(r.list(3))...)
			if tc.says == "" {
				if code != exitDone {
					t.Errorf("send: exit code %d: %s", code, errs)
				}
				return
			}
			if code != exitUsage || !strings.Contains(errs, tc.says) {
				t.Errorf("send: exit code %d: %s", code, errs)
			}
			if code, _, errs = r.run(t.Context(), "worker"); code != exitUsage || !strings.Contains(errs, tc.says) {
				t.Errorf("worker: exit code %d: %s", code, errs)
			}
			if _, out, errs := r.run(t.Context(), "campaign", "list", "--json"); strings.Contains(out, "c1") {
				t.Errorf("something was stored: %s %s", out, errs)
			}
		})
	}
}

// A campaign leaves nothing in Redis when its retention is over: every key there is
// afterwards is the program's or the job queue's own.
func TestRetentionEnds(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL() + "\", retention: \"2s"})
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	r.start("worker")
	code, out, errs := r.run(t.Context(), r.send(r.list(700), "--wait", "--json")...)
	if code != exitDone || lastJSON(t, out).Accepted != 700 {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	own := []string{"beat", "gen", "seen", "rec:", "retainer", "seq", "leader", "epoch", "held", "stamp", "run", "results:@"} // of {w} and {s:STREAM}
	var left []string
	eventually(t, "all of it is removed", func() bool {
		keys, err := rdb.Keys(t.Context(), "sluice:*").Result()
		if err != nil {
			return false
		}
		left = slices.DeleteFunc(keys, func(key string) bool {
			_, part, tagged := strings.Cut(key, "}:")
			return tagged && !strings.Contains(key, "{c:") && slices.ContainsFunc(own, func(p string) bool { return strings.HasPrefix(part, p) }) ||
				strings.Contains(key, "{b:") || strings.Contains(key, "{u}") || key == "sluice:relays"
		})
		return len(left) == 0
	})
	if code, _, errs := r.run(t.Context(), "campaign", "show", "c1"); code == exitDone || !strings.Contains(errs, "no such campaign") {
		t.Errorf("show: %d %s", code, errs)
	}
}

// Nothing is sent from older data until an operator says so; then who may have been sent
// to since is unknown, and is not sent to by a stream that holds its unknowns.
func TestWorkerAcceptsARewind(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL()})
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	// As a worker leaves it that has seen newer data.
	if err := rdb.Set(t.Context(), "sluice:{w}:rewound", "1780000000000 1780000060000", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := r.run(t.Context(), r.send(r.list(3))...); code != exitDone {
		t.Fatalf("send: %d %s", code, errs)
	}
	first := r.start("worker")
	eventually(t, "the worker says why it sends nothing", func() bool {
		return strings.Contains(first.errs.String(), "redis came back with older data") && strings.Contains(first.errs.String(), "--accept-rewind")
	})
	if _, out, _ := r.run(t.Context(), "campaign", "show", "c1", "--json"); lastJSON(t, out).State != "held" {
		t.Errorf("show: %s", out)
	}
	r.start("worker", "--accept-rewind")
	eventually(t, "sending goes on", func() bool { return strings.Contains(first.errs.String(), "sending goes on") })
	_, out, _ := r.run(t.Context(), "campaign", "show", "c1", "--json")
	if s := lastJSON(t, out); s.State != "done" || s.Unknown != 3 {
		t.Errorf("in the end: %s", out)
	}
	if code, out, errs := r.run(t.Context(), "send", "--to", r.list(4), "--template", "newsletter", "--from", "News <news@example.com>",
		"--stream", "ad", "--name", "c2", "--wait", "--json"); code != exitDone || lastJSON(t, out).Accepted != 4 {
		t.Errorf("the next campaign: %d %s %s", code, out, errs)
	}
	if n := len(r.relay.Truth()); n != 4 {
		t.Errorf("the relay has %d mails, want those of the second campaign", n)
	}
}
