package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/sluicemail/sluice/throttle"
)

// limiter measures what the budget costs: calls to Redis a message, and its part of the
// worker's processor time at full speed.
func (b *bench) limiter() error {
	var rows [][]string
	for _, connections := range []int{1, 10, 50} {
		var rate, calls, share, cpu series
		for run := range b.turns() {
			c, err := b.budgetCost(connections)
			if err != nil {
				return err
			}
			rate, calls = append(rate, c.rate), append(calls, c.calls)
			share, cpu = append(share, 100*c.share), append(cpu, c.share*c.worker)
			b.progress("run %d of %d, %d connections: %.4f calls a message, %.2f %% of the time", run+1, b.turns(), connections, c.calls, 100*c.share)
		}
		rows = append(rows, []string{strconv.Itoa(connections), rate.show(0), calls.show(4), cpu.show(3), share.show(2)})
	}
	b.table([]string{"connections", "messages/s", "Redis calls a message", "CPU µs a message", "% of the worker's CPU"}, rows)
	b.printf("\nOf a CPU profile of the whole run, the samples with a function of package `throttle` on the stack, its calls to Redis with all that "+
		"go-redis does for them included. Mails of 10 KB, plaintext, real Redis. Median (least–most) of %d runs.\n", b.turns())
	return nil
}

// budgetCost is what the budget cost in one run.
type budgetCost struct {
	rate   float64 // messages/s
	calls  float64 // to Redis, a message
	share  float64 // of the worker's processor time
	worker float64 // µs of processor time a message
}

// budgetCost sends a campaign at full speed and reads the profile of it.
func (b *bench) budgetCost(connections int) (c budgetCost, err error) {
	n := 400_000
	if b.quick {
		n = 10_000
	}
	profiled := *b
	if profiled.profile == "" {
		profiled.profile = b.dir
	}
	r, err := profiled.rig(setup{kind: "sluice", connections: connections})
	if err != nil {
		return c, err
	}
	defer r.close()
	if err := r.fill(n); err != nil {
		return c, err
	}
	if err := r.until(time.Minute, "the first mails", func() bool { return r.accepted() > 0 }); err != nil {
		return c, err
	}
	from, err := r.read()
	if err != nil {
		return c, err
	}
	if err := r.until(10*time.Minute, "the end", func() bool { return r.accepted() >= n }); err != nil {
		return c, err
	}
	to, err := r.read()
	if err != nil {
		return c, err
	}
	if err := r.stop(); err != nil {
		return c, err
	}
	whole := from.to(to)
	c.rate, c.worker = whole.rate, whole.worker
	var stats throttle.Stats
	text, err := os.ReadFile(r.budgetFile())
	if err == nil {
		err = json.Unmarshal(text, &stats)
	}
	if err != nil {
		return c, fmt.Errorf("what the budget counted: %w", err)
	}
	c.calls = float64(stats.Calls) / float64(stats.Begun)
	c.share, err = profileShare(b.ctx, r.profileFile(), "sluice/throttle")
	return c, err
}

// shown is where pprof says how much of a profile it shows.
var shown = regexp.MustCompile(`Showing nodes accounting for [^,]+, ([0-9.]+)%`)

// profileShare is the share of a CPU profile's samples that have a function on their
// stack whose name holds of.
func profileShare(ctx context.Context, file, of string) (float64, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=100000", "-nodefraction=0", "-focus="+regexp.QuoteMeta(of), file).Output()
	if err != nil {
		return 0, fmt.Errorf("read profile: %w", err)
	}
	m := shown.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("read profile: pprof says %.200q", out)
	}
	percent, err := strconv.ParseFloat(string(m[1]), 64)
	return percent / 100, err
}
