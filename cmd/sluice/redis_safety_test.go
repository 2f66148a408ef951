package main

import (
	"os"
	"strings"
	"testing"

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
