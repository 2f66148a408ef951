package faulttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisFaults are group B: what happens to the store.
func redisFaults() []fault {
	return []fault{
		{id: "B1", name: "kill -9 of Redis, ten times in a campaign, away for up to 2.5 s", promise: "nothing lost, nothing twice; no dot meanwhile", runs: 2, quick: true,
			run: campaign(setup{recipients: 6000, rate: 600}, 2, killedTenTimes)},
		{id: "B1b", name: "power loss of Redis's host: its last second is gone, workers outlive it", promise: "they write again what they know: nothing lost, nothing twice", runs: 4,
			run: campaign(setup{rate: 400}, 2, powerLoss)},
		{id: "B2", name: "power loss of everything: workers and Redis's last second", promise: "campaign verify finds what is missing", runs: 2, run: everythingLost},
		{id: "B3", name: "Redis frozen for 3, 14 and 45 s with replies due", promise: "nothing twice, nobody declared dead", runs: 3, run: inTurn([]int{3, 14, 45}, func(seconds int) func(testing.TB) *result {
			return campaign(setup{rate: 500}, 3, stalled(time.Duration(seconds)*time.Second))
		})},
		{id: "B4", name: "fail-over to a replica that lags by a second", promise: "workers write again what it missed: nothing lost, nothing twice", runs: 2, run: failOver},
		{id: "B4b", name: "the same, and all workers die with it", promise: "campaign verify repairs", runs: 1, run: failOverAlone},
		{id: "B4c", name: "fail-over to a replica that lags by 13 s: more than workers remember", promise: "nothing is sent until --accept-rewind; nothing twice", runs: 1, run: failOverFarBehind},
		{id: "B5", name: "READONLY, NOREPLICAS, MASTERDOWN and LOADING, some seconds each", promise: "all of them are waits: no attempt used up", runs: 2, run: refusals},
		{id: "B6", name: "maxmemory reached", promise: "producers refused at 70 %, what is queued is sent", runs: 1, run: memoryFull},
		{id: "B6b", name: "maxmemory far below what is used", promise: "everything waits, then goes on; no attempt used up", runs: 1,
			run: campaign(setup{rate: 500}, 2, outOfMemory)},
		{id: "B7", name: "eviction policy volatile-lru", promise: "no worker starts, and the message says what to do", runs: 1, run: wrongPolicy},
		{id: "B7b", name: "every key of asynq's deleted, three times, and a crash", promise: "jobs are made again", runs: 2, run: jobsDeleted(setup{recipients: 10_000, rate: 1500})},
		{id: "B8", name: "Redis's disk full", promise: "waits and goes on", runs: 1, run: diskFull},
		{id: "B9", name: "writes carried out, answers lost: one in a hundred of the workers', half of the producer's", promise: "stored once, sent once", runs: 2, quick: true, run: answersLost},
		{id: "B10", name: "SCRIPT FLUSH, then a script that runs for 5 s", promise: "not noticed; then waits", runs: 2,
			run: campaign(setup{rate: 400}, 2, scripts)},
		{id: "B11", name: "login codes enqueued while a producer stores 200,000", promise: "codes do not wait for it", runs: 1, run: codesBesideBulk},
		{id: "B12", name: "an older data set comes back under living workers", promise: "nothing is sent until --accept-rewind; nothing twice", runs: 1, run: oldBackup},
		{id: "B13", name: "a second installation, with another login at another relay, on the same Redis", promise: "each sends its own and says what it leaves alone; a name of the other's is refused", runs: 1, run: twoInstallations},
	}
}

func killedTenTimes(r *rig, out *result) {
	times := 10
	if !*everything {
		times = 4
	}
	for i := range times {
		r.under((i + 1) * r.recipients / 14)
		away := 50 * time.Millisecond
		if i%4 == 3 {
			away = 2500 * time.Millisecond
		}
		r.redisAway(out, away, r.store.Kill, r.store.Restart)
	}
}

// stalled freezes Redis.
func stalled(d time.Duration) func(*rig, *result) {
	return func(r *rig, out *result) {
		r.under(r.recipients / 3)
		r.redisAway(out, d, r.store.Freeze, r.store.Thaw)
		idle(time.Second)
		r.noDeaths(out)
	}
}

// refusals makes Redis answer every write, and some reads, with an error that passes.
func refusals(t testing.TB) *result {
	return campaign(setup{recipients: 5000, rate: 400, patience: 20 * time.Second, redis: []string{"--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024"}}, 2,
		func(r *rig, out *result) {
			ctx := r.t.Context()
			must := func(err error) {
				r.t.Helper()
				if err != nil {
					r.t.Fatal(err)
				}
			}
			set := func(key, value string) func() { return func() { must(r.rdb.ConfigSet(ctx, key, value).Err()) } }
			r.under(400)
			r.redisAway(out, 3*time.Second, func() { must(r.rdb.ReplicaOf(ctx, "127.0.0.1", "1").Err()) },
				func() { must(r.rdb.ReplicaOf(ctx, "NO", "ONE").Err()) })
			r.under(1200)
			set("replica-serve-stale-data", "no")()
			r.redisAway(out, 3*time.Second, func() { must(r.rdb.ReplicaOf(ctx, "127.0.0.1", "1").Err()) },
				func() { must(r.rdb.ReplicaOf(ctx, "NO", "ONE").Err()) })
			r.under(2000)
			r.redisAway(out, 3*time.Second, set("min-replicas-to-write", "1"), set("min-replicas-to-write", "0"))
			r.under(3000)
			gone := time.Now()
			r.store.Kill()
			r.store.Restart() // returns when it has loaded
			out.note("%.1f s of LOADING", time.Since(gone).Seconds())
			r.noteAway(out, gone, time.Now())
			r.noDeaths(out)
		})(t)
}

// usedMemory asks Redis how much it uses, in bytes.
func (r *rig) usedMemory() int64 {
	r.t.Helper()
	for line := range strings.Lines(r.rdb.Info(r.t.Context(), "memory").Val()) {
		var n int64
		if _, err := fmt.Sscanf(line, "used_memory:%d", &n); err == nil {
			return n
		}
	}
	r.t.Fatal("Redis does not say what memory it uses")
	return 0
}

// memoryFull limits Redis so that what is stored is more than 70 % of what it may.
func memoryFull(t testing.TB) *result {
	r, out := begin(t, setup{rate: 500})
	r.send()
	// Beside this the memory that connections take is little.
	if err := r.rdb.SetRange(t.Context(), "filler", 60<<20, "x").Err(); err != nil {
		t.Fatal(err)
	}
	limit := r.usedMemory() * 4 / 3
	if err := r.rdb.ConfigSet(t.Context(), "maxmemory", itoa(int(limit))).Err(); err != nil {
		t.Fatal(err)
	}
	other := r.write("other.csv", "email,name\nlate@list.example,late\n")
	code, _, errs := r.run("send", "--to", other, "--template", "letter.tmpl", "--from", "news@example.com", "--stream", r.stream, "--name", "late")
	if code == 0 {
		out.fail("a producer was not refused at 75 %% of maxmemory")
	} else if !strings.Contains(errs, "memory") {
		out.fail("a producer was refused without a word of memory: %s", tail(errs, 300))
	}
	r.worker()
	return r.end(out)
}

func outOfMemory(r *rig, out *result) {
	r.under(r.recipients / 3)
	limit := func(n string) func() {
		return func() {
			if err := r.rdb.ConfigSet(r.t.Context(), "maxmemory", n).Err(); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	r.redisAway(out, 4*time.Second, limit("1mb"), limit("0"))
	r.noDeaths(out)
}

func wrongPolicy(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 100, redis: []string{"--maxmemory-policy", "volatile-lru", "--maxmemory", "100mb"}})
	w := r.worker()
	if code := w.wait(10 * time.Second); code <= 0 {
		out.fail("a worker starts with volatile-lru (exit code %d)", code)
	} else if !w.says("noeviction") {
		out.fail("a worker refuses without saying what to do: %s", tail(w.errs.String(), 300))
	}
	out.Recipients = 0
	return out
}

// jobsDeleted takes away everything that asynq knows, again and again.
func jobsDeleted(s setup) func(testing.TB) *result {
	return func(t testing.TB) *result {
		t.Helper()
		r, out := begin(t, s)
		one := r.worker()
		r.send()
		deleted := 0
		for i := range 3 {
			r.under(r.recipients * (i + 1) / 8)
			keys := r.rdb.Keys(t.Context(), "asynq:*").Val()
			if deleted += len(keys); deleted == 0 {
				out.fail("asynq has no keys to delete")
				break
			}
			if err := r.rdb.Del(t.Context(), append(keys, "none")...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		one.kill()
		out.crashes = 1
		r.worker()
		r.end(out)
		out.recovery = resumed(r.srv.Truth(), one.ended)
		return out
	}
}

// diskFull gives Redis a disk of a few megabytes, and fills it.
func diskFull(t testing.TB) *result {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Logf("NOT RUN: a full disk needs the right to mount a tmpfs (root): %s", out)
		return &result{account: account{}, notes: []string{"NOT RUN: needs root"}}
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	r, out := begin(t, setup{rate: 400, redis: []string{"--dir", dir, "--auto-aof-rewrite-percentage", "0"}})
	r.worker()
	r.worker()
	r.send()
	r.under(r.recipients / 3)
	filler := filepath.Join(dir, "filler")
	r.redisAway(out, 5*time.Second, func() {
		if err := os.WriteFile(filler, make([]byte, 16<<20), 0o600); err == nil {
			out.fail("the disk did not fill up")
		}
		if !within(5*time.Second, func() bool {
			return strings.Contains(fmt.Sprint(r.rdb.Set(t.Context(), "x", "y", 0).Err()), "MISCONF")
		}) {
			out.fail("Redis did not notice its full disk")
		}
	}, func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	})
	// Redis writes on until its disk is full: what is sent before it says so counts as
	// sent with Redis there.
	out.awayDots = 0
	out.note("MISCONF for some seconds")
	return r.end(out)
}

// answersLost carries writes out and loses their answers.
func answersLost(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 6000, rate: 800, proxied: true})
	r.toRedis.loseAnswers("evalsha", 0.5, 20)
	var code int
	for range 20 { // a producer may give up; repeated, it completes the same campaign
		if code, _, _ = r.run(r.sending()...); code == 0 {
			break
		}
	}
	if code != 0 {
		out.fail("the producer never succeeded")
	}
	producers := r.toRedis.losses()
	r.toRedis.loseAnswers("", 0.005, 60)
	r.worker()
	r.worker()
	r.end(out)
	out.note("%d answers lost to the producer, %d to workers and commands", producers, r.toRedis.losses())
	if producers == 0 || r.toRedis.losses() < 5 {
		out.fail("too few answers were lost: %d, %d", producers, r.toRedis.losses())
	}
	r.noDeaths(out)
	return out
}

func scripts(r *rig, out *result) {
	r.under(r.recipients / 4)
	if err := r.rdb.ScriptFlush(r.t.Context()).Err(); err != nil {
		r.t.Fatal(err)
	}
	r.under(r.recipients / 2)
	busy := redis.NewClient(&redis.Options{Addr: r.store.Addr(), ReadTimeout: 20 * time.Second, MaxRetries: -1})
	defer busy.Close()
	gone := time.Now()
	err := busy.Eval(r.t.Context(), `local t = redis.call('TIME')[1] + 5
while redis.call('TIME')[1] - t < 0 do end
return 1`, nil).Err()
	if err != nil {
		out.fail("the slow script: %v", err)
	}
	r.noteAway(out, gone, time.Now())
	r.noDeaths(out)
}

// codesBesideBulk sends login codes while a producer fills Redis.
func codesBesideBulk(t testing.TB) *result {
	r, out := begin(t, setup{connections: 8, recipients: 20, stream: "auth",
		limits: "limits: {connections: {open: 8, new: [6000/1m]}, messages: [1000/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}"})
	r.worker()
	var b strings.Builder
	b.WriteString("email,name\n")
	for i := range 200_000 {
		fmt.Fprintf(&b, "bulk%d@bulk.example,n%d\n", i, i)
	}
	bulk := start(t, r.dir, r.env, "send", "--to", r.write("bulk.csv", b.String()), "--template", "letter.tmpl",
		"--from", "news@example.com", "--stream", "normal", "--name", "bulk", "--config", "sluice.yaml")
	r.list()
	var longest time.Duration
	for _, to := range r.input {
		begun := time.Now()
		code, _, errs := r.run("send", "--to", to, "--template", "letter.tmpl", "--from", "news@example.com", "--stream", "auth", "--set", "name=x", "--name", to)
		if code != 0 {
			out.fail("a code was not enqueued: %s", tail(errs, 300))
			break
		}
		longest = max(longest, time.Since(begun))
		if !within(10*time.Second, func() bool {
			for m := range r.srv.Messages() {
				if m.To == to {
					return true
				}
			}
			return false
		}) {
			out.Lost++
		}
	}
	out.Recipients = len(r.input)
	out.note("a code enqueued in ≤ %.2f s, starting the program included", longest.Seconds())
	bulk.kill()
	return out
}
