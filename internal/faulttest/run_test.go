package faulttest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a campaign may stand still before it counts as stuck.
const patience = 25 * time.Second

// begin sets a run up, with its logs shown where it fails.
func begin(t testing.TB, s setup) (*rig, *result) {
	t.Helper()
	r := newRig(t, s)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\nRedis:\n%s", r.logs(), r.keys())
		}
	})
	return r, &result{twiceIsFine: r.policy == "resend"}
}

// end waits for the campaign and fills the result in.
func (r *rig) end(out *result) *result {
	r.t.Helper()
	s := r.finish(r.patience)
	if s.State != "done" && s.State != "cancelled" {
		out.fail("the campaign does not end: %d pending, %d deferred, %s %s", s.Pending, s.Deferred, s.State, s.Held)
	}
	r.still()
	return r.reckon(out)
}

// reckon judges the campaign as it stands.
func (r *rig) reckon(out *result) *result {
	r.t.Helper()
	out.account = r.judge()
	out.over = overshoot(r.srv.MailTimes(), r.rate, time.Second)
	out.mayUnknown += 2 * r.connections * out.crashes
	for i, p := range r.workers {
		if strings.Contains(p.errs.String(), "panic:") {
			out.fail("worker %d panicked", i+1)
		}
		if p.says("@" + r.name + ".example") {
			out.fail("worker %d writes whole addresses into its log", i+1)
		}
	}
	return out
}

// still waits until no more mail comes in: what was on its way is there.
func (r *rig) still() {
	for n := -1; n != r.sent(); {
		n = r.sent()
		idle(400 * time.Millisecond)
	}
}

// fired waits for a worker's fault to happen; one that does not is a failure.
func (r *rig) fired(p *process, out *result) bool {
	r.t.Helper()
	if !within(40*time.Second, func() bool { return p.says("fault: ") }) {
		out.fail("the fault never happened")
		return false
	}
	return true
}

// campaign runs a campaign with so many workers around what breaks it.
func campaign(s setup, workers int, breakIt func(r *rig, out *result)) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		for range workers {
			r.worker()
			idle(90 * time.Millisecond) // or their hearts would beat as one
		}
		r.send()
		breakIt(r, out)
		return r.end(out)
	}
}

// crash runs a campaign of which one worker holds everything. It dies at a point, and
// another, which has been waiting, takes its work over.
func crash(point string, s setup) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		one := r.worker("FAULT_POINTS=" + point)
		r.send()
		if !within(30*time.Second, func() bool { return r.sent() >= 20 || !one.alive() }) {
			out.fail("nothing is sent")
		}
		r.worker()
		if r.fired(one, out) {
			<-one.done
		}
		out.crashes = 1
		r.end(out)
		out.recovery = resumed(r.srv.Truth(), one.ended)
		out.takeOver = out.recovery
		return out
	}
}

// either runs one fault with both policies for unknowns and several numbers of
// connections, in turn over its runs.
func either(points []string, base setup) func(testing.TB) *result {
	var turn atomic.Int64
	return func(t testing.TB) *result {
		t.Helper()
		n := int(turn.Add(1) - 1)
		s := base
		s.policy = []string{"hold", "resend"}[n%2]
		if s.connections == 0 {
			s.connections = []int{8, 1, 32}[n/2%3]
		}
		if s.connections == 1 {
			s.rate = 300
			s.recipients = 1000
		}
		return crash(points[n%len(points)], s)(t)
	}
}

// freeze stops a process for d, from outside.
func (p *process) freeze(d time.Duration) {
	p.signal(syscall.SIGSTOP)
	idle(d)
	p.signal(syscall.SIGCONT)
}

// redisAway takes Redis away for d and counts what is sent meanwhile, from a second
// after it went.
func (r *rig) redisAway(out *result, d time.Duration, away, back func()) {
	r.t.Helper()
	gone := time.Now()
	away()
	idle(d - time.Since(gone))
	returns := time.Now()
	back()
	r.noteAway(out, gone, returns)
}

func (r *rig) noteAway(out *result, gone, returns time.Time) {
	r.t.Helper()
	before := r.sent()
	within(r.patience, func() bool { return r.sent() > before })
	truth := r.srv.Truth()
	out.awayDots += between(truth, gone.Add(time.Second), returns)
	out.recovery = max(out.recovery, next(truth, returns))
}

// declaredDead counts how often workers said that another had died.
func (r *rig) declaredDead() (n int) {
	for _, p := range r.workers {
		n += strings.Count(p.errs.String(), "a worker died")
	}
	return n
}

// noDeaths fails a run in which somebody was declared dead who was not.
func (r *rig) noDeaths(out *result) {
	if n := r.declaredDead(); n > out.crashes {
		out.fail("%d workers declared dead, where %d were", n, out.crashes)
	}
}

// inTurn makes each run of a fault another of several kinds.
func inTurn[T any](kinds []T, run func(T) func(testing.TB) *result) func(testing.TB) *result {
	var turn atomic.Int64
	return func(t testing.TB) *result {
		t.Helper()
		return run(kinds[int(turn.Add(1)-1)%len(kinds)])(t)
	}
}

// points are one point at several passes.
func points(format string, passes ...int) (out []string) {
	for _, n := range passes {
		out = append(out, fmt.Sprintf(format, n))
	}
	return out
}
