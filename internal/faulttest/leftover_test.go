package faulttest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// standing are the keys that are there with no campaign left.
func standing() *regexp.Regexp {
	return regexp.MustCompile(`^(` + strings.Join([]string{
		`asynq:(queues|servers|workers|servers:\{.*\})`,              // asynq's lists of queues, and of servers that run: one for each stream and worker
		`asynq:\{sluice-\w+\}:(processed|failed)(:[-0-9]+)?`,         // asynq's counters, of all time and by the day; those of a day lapse
		`sluice:\{b:\w+\}:(state|open|n:.*)`,                         // the budget of the account: windows last up to a day
		`sluice:\{s:\w+\}:(epoch|seq|leader)`,                        // counters of a stream, and who reconciles
		`sluice:\{w\}:(beat|gen|run|seen|stamp|gap|retainer|rec:.*)`, // the workers that run
		`sluice:(relays|\{supp\}.*)`,                                 // what relays offer; the suppression list
	}, "|") + `)$`)
}

// left is what is there between two campaigns.
type left struct {
	goroutines, descriptors int
	keys                    []string
}

func (l left) String() string {
	return fmt.Sprintf("%d keys, %d descriptors, %d goroutines", len(l.keys), l.descriptors, l.goroutines)
}

// retained sends campaigns that are kept for some seconds, and looks what is left of each.
func retained(t testing.TB) *result {
	const waves = 5
	r, out := begin(t, setup{recipients: 2000, rate: 1000, retention: "6s", env: []string{"FAULT_COUNT=1"},
		limits: "limits: {connections: {open: 8, new: [6000/1m]}, messages: [1000/1s], per_connection: {messages: 500, age: 5m, idle: 2s}}"})
	w := r.worker()
	var all account
	var each []left
	for wave := range waves {
		r.begins("wave" + itoa(wave))
		r.send()
		r.end(out)
		all.add(out.account)
		r.over(out)
		each = append(each, r.leftBy(w))
	}
	out.account = all
	last := each[waves-1]
	t.Logf("after each campaign: %v; at last %q", each, last.keys)
	for _, key := range last.keys {
		if !standing().MatchString(key) {
			out.fail("the key %s is left", key)
		}
	}
	// The first one filled the pools of connections to Redis, and the moment may be one in
	// which one is being opened. What a campaign leaves behind, four leave four times.
	if grown := last.descriptors - each[0].descriptors; grown > waves-2 {
		out.fail("%d descriptors more after %d campaigns", grown, waves-1)
	}
	if grown := last.goroutines - each[0].goroutines; grown > waves-2 {
		out.fail("%d goroutines more after %d campaigns", grown, waves-1)
	}
	out.note("%v after one campaign, %v after %d", each[0], last, waves)
	return out
}

// over waits until the retention of all campaigns is over, and idle connections are
// closed and stay so.
func (r *rig) over(out *result) {
	r.t.Helper()
	campaigns := func() int64 { return r.rdb.ZCard(r.t.Context(), "sluice:campaigns").Val() }
	if !within(time.Minute, func() bool { return campaigns() == 0 && r.srv.Stats().Open == 0 }) {
		out.fail("a minute later there are %d campaigns and %d connections", campaigns(), r.srv.Stats().Open)
	}
	before := r.srv.Stats().Connections
	idle(3 * time.Second)
	if n := r.srv.Stats().Connections - before; n > 0 {
		out.fail("%d connections opened with nothing to send", n)
	}
}

// leftBy counts what is there.
func (r *rig) leftBy(w *process) (l left) {
	r.t.Helper()
	l.keys = r.rdb.Keys(r.t.Context(), "*").Val()
	slices.Sort(l.keys)
	fds, err := os.ReadDir("/proc/" + itoa(w.cmd.Process.Pid) + "/fd")
	if err != nil {
		r.t.Fatal(err)
	}
	l.descriptors = len(fds)
	eventually(r.t, "the worker can be asked", func() bool { return w.says("fault: counting") })
	asked := strings.Count(w.errs.String(), " goroutines\n")
	w.signal(syscall.SIGUSR1)
	eventually(r.t, "the worker counts its goroutines", func() bool { return strings.Count(w.errs.String(), " goroutines\n") > asked })
	for line := range strings.Lines(w.errs.String()) {
		_, _ = fmt.Sscanf(line, "fault: %d goroutines", &l.goroutines)
	}
	return l
}
