package faulttest

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/relay"
)

// workerFaults are group A: what happens to a worker process.
func workerFaults() []fault {
	eight := setup{connections: 8}
	return []fault{
		{id: "A1", name: "SIGKILL when a block is claimed, before anything is sent", promise: "sent by another; nothing twice", runs: 4,
			run: either([]string{"worker.claimed=kill@1", "queue.claimed=kill@3", "worker.claimed=kill@6", "queue.claimed=kill@1"}, eight)},
		{id: "A2", name: "SIGKILL after MAIL and RCPT", promise: "≤ 2 a connection unknown, listed", runs: 4,
			run: either(points("smtp.afterRcpt=kill@%d", 1, 400, 1000, 1700), eight)},
		{id: "A3", name: "SIGKILL inside a content: at 1 %, at half, all but the dot", promise: "no partial mail; ≤ 2 a connection unknown", runs: 6,
			run: either([]string{"smtp.content=kill%1@300", "smtp.content=kill%50@500", "smtp.content=kill%100@700"}, eight)},
		{id: "A4", name: "SIGKILL after the dot, reply not seen", promise: "hold: nothing twice, ≤ 2 a connection unknown; resend: those listed", runs: 12, quick: true,
			run: either(points("smtp.afterDot=kill@%d", 250, 400, 150, 600, 200, 500), setup{})},
		{id: "A5", name: "SIGKILL after 250, before it is stored", promise: "as A4", runs: 6,
			run: either(points("smtp.after250=kill@%d", 300, 500, 800), eight)},
		{id: "A6", name: "SIGKILL around the ledger's write, and before the job is acknowledged", promise: "as A4; the revived job finds nothing to do", runs: 8,
			run: either([]string{"queue.beforeStore=kill@60", "queue.stored=kill@60", "queue.stored=kill@200", "worker.settled=kill@1"}, eight)},
		{id: "A6b", name: "the one that takes over dies too, half-way", promise: "as A4, for two crashes", runs: 2, run: undertakerDies},
		{id: "A6c", name: "a write of the ledger hangs for 5 s, and the worker is killed meanwhile", promise: "as A4: no dot runs ahead of the ledger", runs: 2,
			run: slowLedger(setup{rate: 800})},
		{id: "A7", name: "all workers restarted in turn, twice, slow dots among them", promise: "costs nothing: no unknown, nothing twice", runs: 2, run: rollingRestart},
		{id: "A8", name: "SIGTERM, dots unanswered, then SIGKILL", promise: "≤ 2 a connection unknown", runs: 2, run: killedWhileDraining},
		{id: "A9", name: "fatal error of the Go runtime", promise: "as A4", runs: 2,
			run: either(points("smtp.afterDot=abort@%d", 350, 650), eight)},
		{id: "A10", name: "frozen for 8 s before a dot, then goes on; others took over", promise: "sends at most what it had declared; hold: nothing twice", runs: 4, quick: true,
			run: inTurn([]string{"hold", "resend"}, func(policy string) func(testing.TB) *result {
				return frozen(setup{policy: policy, rate: 400})
			})},
		{id: "A10b", name: "frozen for 8 s at any moment, ten times over 3 workers", promise: "as A10", runs: 2, run: frozenAtRandom},
		{id: "A11", name: "a recipient that kills every worker", promise: "put aside after a few crashes, the others are sent", runs: 1, run: poison},
		{id: "A12", name: "undecodable asynq tasks, pending and leased, and a crash", promise: "recovery goes on", runs: 1, run: undecodable},
		{id: "A13", name: "a connection's goroutine hangs for ever", promise: "its connection is closed, its worker begins anew; ≤ 2 a connection unknown", runs: 1, run: wedged},
		{id: "A13b", name: "Redis frozen for 30 s, then the worker, with dots answered after 9 of 10 s (time limits 60 times shorter)", promise: "nobody is taken for one that hangs", runs: 1, run: notWedged},
	}
}

func undertakerDies(t testing.TB) *result {
	r, out := begin(t, setup{})
	one := r.worker("FAULT_POINTS=smtp.afterDot=kill@300")
	r.send()
	r.under(20)
	two := r.worker("FAULT_POINTS=queue.buried=kill@1")
	r.fired(one, out)
	<-one.done
	if r.fired(two, out) {
		<-two.done
	}
	r.worker()
	out.crashes = 2
	r.end(out)
	out.recovery = resumed(r.srv.Truth(), one.ended)
	return out
}

// slowLedger kills a worker whose ledger has not written for a second: whatever it
// sent without waiting would be in none.
func slowLedger(s setup) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		one := r.worker("FAULT_POINTS=queue.beforeStore=5s@100")
		r.send()
		r.under(20)
		r.worker()
		r.fired(one, out)
		idle(time.Second)
		one.kill()
		out.crashes = 1
		r.end(out)
		out.recovery = resumed(r.srv.Truth(), one.ended)
		return out
	}
}

// rollingRestart replaces three workers one after the other while a campaign runs.
func rollingRestart(t testing.TB) *result {
	slow := relay.Rule{Stage: relay.EOD, Share: 0.002, Fresh: true, Delay: 500 * time.Millisecond}
	r, out := begin(t, setup{recipients: 20_000, rate: 1500, connections: 9, relay: relay.Config{Rules: []relay.Rule{slow}}})
	team := []*process{r.worker(), r.worker(), r.worker()}
	r.send()
	var longest time.Duration
	for i := range 2 * len(team) {
		r.under(2000 * (i + 1))
		old := team[i%len(team)]
		begun := time.Now()
		old.signal(syscall.SIGTERM)
		if code := old.wait(30 * time.Second); code != 0 {
			out.fail("a worker told to stop ends with %d: %s", code, tail(old.errs.String(), 500))
		}
		longest = max(longest, time.Since(begun))
		team[i%len(team)] = r.worker()
	}
	r.end(out)
	r.noDeaths(out)
	out.note("6 restarts, each over in ≤ %.1f s", longest.Seconds())
	return out
}

func killedWhileDraining(t testing.TB) *result {
	r, out := begin(t, setup{})
	one := r.worker()
	r.send()
	r.under(500)
	if err := r.srv.SetProfile("nhn", relay.Rule{Stage: relay.EOD, Delay: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	idle(100 * time.Millisecond)
	one.signal(syscall.SIGTERM)
	if code := one.wait(2 * time.Second); code != -2 {
		out.fail("a worker with open dots ended with %d before their replies came", code)
	}
	one.kill()
	out.crashes = 1
	if err := r.srv.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	r.worker()
	r.end(out)
	out.recovery = resumed(r.srv.Truth(), one.ended)
	return out
}

// frozen stops a worker at a point for longer than others need to take over, and lets
// it go on while they send what it had.
func frozen(s setup) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		one := r.worker("FAULT_POINTS=smtp.beforeDot=stop@500")
		r.send()
		r.under(20)
		r.worker()
		if !r.fired(one, out) {
			return r.end(out)
		}
		stopped := time.Now()
		eventually(t, "the worker is frozen", one.frozen)
		idle(8 * time.Second)
		out.crashes = 1
		one.signal(syscall.SIGCONT)
		idle(3 * time.Second)
		r.end(out)
		out.recovery = resumed(r.srv.Truth(), stopped)
		if !one.alive() {
			out.fail("the worker that was frozen ended")
		}
		return out
	}
}

func frozenAtRandom(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 20_000, rate: 600, connections: 9})
	team := []*process{r.worker(), r.worker(), r.worker()}
	r.send()
	for i := range 10 {
		r.under(100 + 10*i)
		team[i%3].freeze(8 * time.Second / time.Duration(1+i%2*3)) // every other one too short to be declared dead
		out.crashes++
		if r.sent() >= r.recipients-100 {
			break
		}
	}
	return r.end(out)
}

// poison is a recipient whose mail cannot be rendered without the process dying.
func poison(t testing.TB) *result {
	bad := "FAULT_POINTS=worker.render/r777@c1.example=abort@1"
	r, out := begin(t, setup{recipients: 2000})
	r.send()
	team := []*process{r.worker(bad), r.worker(bad)}
	over := make(chan summary, 1)
	go func() { over <- r.finish(60 * time.Second) }()
	for done := false; !done; {
		select {
		case <-over:
			done = true
		case <-time.After(100 * time.Millisecond):
			for i, p := range team {
				if !p.alive() {
					out.crashes++
					team[i] = r.worker(bad)
				}
			}
		}
	}
	out.mayRefuse = 1
	out.note("%d crashes", out.crashes)
	r.reckon(out)
	if out.Refused == 0 && out.Unknown > 0 { // put aside as unknown is put aside as well
		out.mayRefuse = 0
	}
	return out
}

// undecodable puts tasks into asynq's own keys that no program can read.
func leased(id string) redis.Z {
	return redis.Z{Score: float64(time.Now().Add(-time.Hour).Unix()), Member: id}
}

func undecodable(t testing.TB) *result {
	r, out := begin(t, setup{})
	one := r.worker()
	r.send()
	r.under(300)
	ctx := t.Context()
	const q = "asynq:{sluice-normal}:"
	pipe := r.rdb.Pipeline()
	for _, id := range []string{"bad1", "bad2"} {
		pipe.HSet(ctx, q+"t:"+id, "msg", "\xff\xfe\xff", "state", "pending")
		pipe.LPush(ctx, q+"pending", id)
	}
	pipe.HSet(ctx, q+"t:bad3", "msg", "\xff", "state", "active")
	pipe.LPush(ctx, q+"active", "bad3", "bad4")
	pipe.ZAdd(ctx, q+"lease", leased("bad3"), leased("bad5"))
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	r.under(800)
	one.signal(os.Kill)
	out.crashes = 1
	<-one.done
	r.worker()
	r.end(out)
	out.recovery = resumed(r.srv.Truth(), one.ended)
	return out
}

// wedged lets the goroutine of a connection hang for good, in the only worker there is.
// By its own limits, 60 times shorter, it is found out after twice the dot's 10 minutes,
// in the middle of the campaign.
func wedged(t testing.TB) *result {
	r, out := begin(t, setup{rate: 80, env: []string{"FAULT_SCALE=60"}})
	one := r.worker("FAULT_POINTS=smtp.afterRcpt=hang@300")
	r.send()
	r.fired(one, out)
	hung := time.Now()
	joined := func() int { return strings.Count(one.errs.String(), "worker joined") }
	if !within(time.Minute, func() bool { return joined() > 1 }) {
		out.fail("the worker did not begin anew")
	}
	out.note("found out after %.0f s, at time limits 60 times shorter", time.Since(hung).Seconds())
	out.mayUnknown = 2 // of the one connection
	r.end(out)
	out.recovery = longestGap(r.srv.Truth())
	if n := joined(); n != 2 || !one.alive() {
		out.fail("the worker joined %d times, where it was to begin anew once", n)
	}
	return out
}

// notWedged is everything that takes as long as a goroutine may hang, and is none.
func notWedged(t testing.TB) *result {
	slow := relay.Rule{Name: "slow", Stage: relay.EOD, Share: 0.004, Delay: 9 * time.Second}
	r, out := begin(t, setup{rate: 300, env: []string{"FAULT_SCALE=60"}, relay: relay.Config{Rules: []relay.Rule{slow}}})
	one := r.worker()
	r.send()
	r.under(300)
	r.redisAway(out, 30*time.Second, r.store.Freeze, r.store.Thaw)
	r.under(1000)
	one.freeze(30 * time.Second)
	out.crashes = 1 // the time limits of its open dots have passed
	r.end(out)
	out.recovery = longestGap(r.srv.Truth()) - 30*time.Second
	if one.says("makes no step") || strings.Count(one.errs.String(), "worker joined") != 1 {
		out.fail("a connection was taken for one that hangs")
	}
	if r.srv.Stats().RuleHits["slow"] == 0 {
		out.fail("no dot was answered late")
	}
	return out
}

// longestGap is the longest time between a mail and the next.
func longestGap(truth []relay.Accepted) (longest time.Duration) {
	for i := 1; i < len(truth); i++ {
		longest = max(longest, truth[i].Time.Sub(truth[i-1].Time))
	}
	return longest
}
