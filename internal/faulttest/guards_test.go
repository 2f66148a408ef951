package faulttest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// guard is one of the things that keep the promises, and a fault that it is for.
type guard struct {
	name, what string
	find       string // in what the bench says without it
	run        func(env []string) func(testing.TB) *result
}

func guards() []guard {
	return []guard{
		{"guard.intent", "no dot before Redis holds the intent", "second mail that is not listed", func(env []string) func(testing.TB) *result {
			return slowLedger(setup{rate: 800, env: env})
		}},
		{"guard.fence", "a worker declared dead can write nothing more", "second mail that is not listed", func(env []string) func(testing.TB) *result {
			return frozen(setup{recipients: 10_000, rate: 500, env: env, patience: 10 * time.Second})
		}},
		{"guard.evidence", "outcomes are taken again, from anyone at any time", "second mail that is not listed", func(env []string) func(testing.TB) *result {
			return campaign(setup{rate: 400, env: env, patience: 10 * time.Second}, 2, powerLoss)
		}},
		{"guard.death", "death is observed: a Redis that stalls makes nobody dead", "declared dead", func(env []string) func(testing.TB) *result {
			return allCutOff(setup{proxied: true, rate: 300, env: env, patience: 10 * time.Second})
		}},
		{"guard.botched", "a connection with a reply too many is used no more", "lost", func(env []string) func(testing.TB) *result {
			return unasked(setup{rate: 600, connections: 4, env: env, patience: 8 * time.Second})
		}},
		{"guard.reconciler", "what asynq has lost is made again", "lost", func(env []string) func(testing.TB) *result {
			return jobsDeleted(setup{recipients: 10_000, rate: 1500, env: env, patience: 10 * time.Second})
		}},
	}
}

// Each guard has a fault that the program withstands with it, and that the bench finds
// out about without it.
func TestGuards(t *testing.T) {
	if !*everything {
		t.Skip("scripts/faults runs it")
	}
	var mu sync.Mutex
	found := map[string]string{}
	t.Run("all", func(t *testing.T) {
		for _, g := range guards() {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				if bad := g.run(nil)(t).complaints(); len(bad) > 0 {
					t.Errorf("with the guard: %s", strings.Join(bad, "\n  "))
				}
				r := g.run([]string{"FAULT_OFF=" + g.name})(t)
				bad := r.complaints()
				if !strings.Contains(strings.Join(bad, "\n"), g.find) {
					t.Errorf("without the guard the bench finds nothing like %q, but %q", g.find, bad)
				}
				mu.Lock()
				defer mu.Unlock()
				found[g.name] = r.headline()
				t.Logf("without: %s: %s", g.what, strings.Join(bad, "; "))
			})
		}
	})
	if *writeTo == "" {
		return
	}
	var b strings.Builder
	b.WriteString("| guard | without it, the bench finds |\n|---|---|\n")
	for _, g := range guards() {
		fmt.Fprintf(&b, "| %s | %s |\n", g.what, found[g.name])
	}
	if err := fill(*writeTo, "guards", b.String()); err != nil {
		t.Error(err)
	}
}
