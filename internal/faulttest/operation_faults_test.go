package faulttest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

// operationFaults are those of group H that this bench is for.
func operationFaults() []fault {
	return []fault{
		{id: "H5", name: "four workers, one killed and started anew each second", promise: "never over the limit, in any second", runs: 2, run: restartStorm},
		{id: "H5b", name: "every key of the budget deleted, ten times, under two workers", promise: "never over a limit: of messages, of connections open, of connections opened", runs: 2, run: budgetDeleted},
		{id: "H9", name: "paused and resumed ten times at random moments, then cancelled, over 3 workers", promise: "nothing is begun once the command has returned; nobody skipped, nobody twice", runs: 2, quick: true, run: steered},
		{id: "H11", name: "12,000 recipients refused", promise: "every one of them in the report", runs: 1,
			run: scripted(setup{recipients: 12_000, rate: 4000}, func(_ *rig, out *result) {
				out.mayRefuse = 12_000
			}, relay.Rule{Stage: relay.Rcpt, Reply: "550 5.7.0 not today"})},
		{id: "H12", name: "producer killed while it stores, at both ends of its commit, and repeated", promise: "one campaign, nobody twice", runs: 4, quick: true, run: inTurn([]string{"queue.put=kill@7", "queue.committed=kill@1", "queue.put=kill@1", "queue.put=kill@12"}, producerKilled)},
		{id: "H14", name: "campaigns whose retention ends, one after the other", promise: "no key, descriptor or goroutine of theirs is left", runs: 1, run: retained},
	}
}

func restartStorm(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 6000, rate: 300, connections: 12, policy: "resend"})
	team := []*process{r.worker(), r.worker(), r.worker(), r.worker()}
	r.send()
	r.under(100)
	for i := range 10 {
		team[i%4].kill()
		out.crashes++
		team[i%4] = r.worker()
		idle(time.Second)
	}
	r.end(out)
	out.mayUnknown = 2 * r.connections * out.crashes
	if n := overshoot(r.srv.Stats().ConnectTimes, 6000, time.Minute); n > 0 {
		out.fail("%d connections over the limit", n)
	}
	if m := int(r.srv.Stats().OpenMax); m > r.connections {
		out.fail("%d connections open at once, of %d", m, r.connections)
	}
	return out
}

// budgetDeleted takes away all that Redis knows of what was granted, again and again.
func budgetDeleted(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 2400, rate: 300, connections: 6, patience: 90 * time.Second,
		limits: "limits: {connections: {open: 6, new: [30/10s]}, messages: [300/1s], per_connection: {messages: 60, age: 5m, idle: 30s}}"})
	r.worker()
	r.worker()
	r.send()
	r.under(100)
	deleted := 0
	for range 10 {
		keys := r.rdb.Keys(t.Context(), "sluice:{b:*").Val()
		if deleted += len(keys); len(keys) == 0 {
			out.fail("the budget has no keys to delete")
			break
		}
		if err := r.rdb.Del(t.Context(), keys...).Err(); err != nil {
			t.Fatal(err)
		}
		idle(time.Second + rand.N(500*time.Millisecond))
	}
	r.end(out)
	if m := int(r.srv.Stats().OpenMax); m > r.connections {
		out.fail("%d connections open at once, of %d", m, r.connections)
	}
	opened := overshoot(r.srv.Stats().ConnectTimes, 0, 10*time.Second)
	if opened > 30 {
		out.fail("%d connections opened in ten seconds, of 30", opened)
	}
	out.note("%d keys deleted; at most %d mails in any second, of %d; %d connections in ten, of 30",
		deleted, overshoot(r.srv.MailTimes(), 0, time.Second), r.rate, opened)
	return out
}

// mailsBegun counts MAIL commands after a moment.
func (r *rig) mailsBegun(after time.Time) (n int, last time.Duration) {
	for _, at := range r.srv.MailTimes() {
		if at.After(after) {
			n++
			last = max(last, at.Sub(after))
		}
	}
	return n, last
}

func steered(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 8000, rate: 1000, connections: 9})
	for range 3 {
		r.worker()
	}
	r.send()
	steer := func(verb string) time.Time {
		t.Helper()
		if code, _, errs := r.run("campaign", verb, "c1"); code != 0 {
			out.fail("campaign %s: %s", verb, tail(errs, 300))
		}
		return time.Now()
	}
	after, late := 0, time.Duration(0)
	for i := range 10 {
		r.under(300 + 400*i)
		idle(rand.N(100 * time.Millisecond))
		returned := steer("pause")
		idle(700 * time.Millisecond)
		n, last := r.mailsBegun(returned)
		after, late = max(after, n), max(late, last)
		steer("resume")
	}
	r.under(5000)
	returned := steer("cancel")
	r.end(out)
	n, last := r.mailsBegun(returned)
	after, late = max(after, n), max(late, last)
	out.mayRefuse = out.Refused // cancelled
	out.note("at most %d begun after a command returned, the last %d ms after it", after, late.Milliseconds())
	if late > time.Second || after > r.connections {
		out.fail("%d mails begun after the command returned, the last %v after it", after, late)
	}
	if out.Refused < 1000 {
		out.fail("only %d cancelled of a campaign that was cancelled in its middle", out.Refused)
	}
	return out
}

// producerKilled kills a producer at another place in each run, twice, and lets the
// third complete the send.
func producerKilled(where string) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, setup{recipients: 6000, rate: 3000})
		r.worker()
		for range 2 {
			p := start(t, r.dir, []string{"FAULT_POINTS=" + where}, append(r.sending(), "--config", "sluice.yaml")...)
			if code := p.wait(30 * time.Second); code != -1 && !strings.HasPrefix(where, "queue.committed") {
				out.fail("the producer was not killed at %s (exit code %d)", where, code)
			}
		}
		r.send()
		r.send() // and once more: nothing
		r.end(out)
		if code, text, _ := r.run("campaign", "list", "--json"); code != 0 || strings.Count(text, `"campaign":"c1"`) != 1 {
			out.fail("not one campaign but %s", tail(text, 500))
		}
		out.note("%s", fmt.Sprintf("killed at %s", where))
		return out
	}
}
