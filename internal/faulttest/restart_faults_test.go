package faulttest

import (
	"context"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

// restartFaults are of group B as well: a Redis that restarts or is replaced, and
// something else that goes wrong at the same time.
func restartFaults() []fault {
	return []fault{
		{id: "B14", name: "Redis killed and back, nothing lost; the worker killed as soon as it has written again what it knows", promise: "hold: nothing twice, ≤ 2 a connection unknown", runs: 2, run: restartThenKill},
		{id: "B15", name: "a worker frozen while Redis restarts, taken over, then goes on", promise: "stores what it learns late, and comes back as another; nothing twice", runs: 1, run: frozenOverRestart},
		{id: "B16", name: "fail-over to a replica that lags by 2.5 s, and a worker that starts in that moment", promise: "it waits for who was there before: nothing twice", runs: 2, run: newcomerAtFailOver},
	}
}

// slowly makes a relay that takes its time over each dot, so that many replies are due.
func slowly(d time.Duration) relay.Config {
	return relay.Config{Rules: []relay.Rule{{Stage: relay.EOD, Share: 1, Delay: d}}}
}

func restartThenKill(t testing.TB) *result {
	r, out := begin(t, setup{rate: 400, connections: 8, recipients: 600, relay: slowly(400 * time.Millisecond), redis: []string{"--appendfsync", "always"}})
	generations := func() map[string]string {
		return r.rdb.HGetAll(context.Background(), "sluice:{w}:gen").Val()
	}
	one := r.worker()
	r.send()
	r.under(60)
	before := generations()
	r.store.Kill()
	idle(1500 * time.Millisecond)
	r.store.Restart()
	eventually(t, "the worker has written a new record", func() bool { now := generations(); return len(now) > 0 && !maps.Equal(before, now) })
	one.kill()
	out.crashes = 1
	r.worker()
	return r.end(out)
}

func frozenOverRestart(t testing.TB) *result {
	r, out := begin(t, setup{rate: 400, connections: 8, recipients: 2000, relay: slowly(300 * time.Millisecond)})
	one := r.worker()
	r.send()
	r.under(60)
	two := r.worker()
	idle(500 * time.Millisecond)
	one.signal(syscall.SIGSTOP)
	r.store.Kill()
	r.store.Restart()
	eventually(t, "the frozen worker is taken over", func() bool { return two.says("a worker died") })
	out.crashes = 1
	one.signal(syscall.SIGCONT)
	if !within(30*time.Second, func() bool { return strings.Count(one.errs.String(), "worker joined") > 1 }) {
		out.fail("it does not come back: %s", tail(one.errs.String(), 500))
	}
	r.end(out)
	one.signal(syscall.SIGTERM)
	if code := one.wait(30 * time.Second); code != 0 {
		out.fail("it ends with exit code %d", code)
	}
	return out
}

func newcomerAtFailOver(t testing.TB) *result {
	r, out, replica := pairOfRedis(t, setup{rate: 1500, recipients: 9000, connections: 40, policy: "hold"})
	r.worker()
	r.send()
	r.under(1500)
	leaveBehind(r, replica, 2500*time.Millisecond)
	r.toRedis.refusing(true)
	r.toRedis.cut()
	r.worker() // it waits for Redis
	idle(4 * time.Second)
	follow(t, replica, "NO", "ONE")
	r.toRedis.redirect(replica.Addr())
	r.toRedis.refusing(false)
	r.end(out)
	r.noDeaths(out)
	return out
}
