package faulttest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/redistest"
)

// aofTail is the file that Redis appends to now.
func aofTail(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no append-only file in %s: %v", dir, err)
	}
	return files[len(files)-1]
}

func sizeOf(t testing.TB, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// powerLoss kills Redis and cuts off what it wrote in its last second, which a disk
// without power would not have.
func powerLoss(r *rig, out *result) {
	r.under(r.recipients / 3)
	file := aofTail(r.t, r.store.Dir())
	kept := sizeOf(r.t, file)
	idle(time.Second)
	r.redisAway(out, 100*time.Millisecond, func() {
		r.store.Kill()
		lost := sizeOf(r.t, file) - kept
		if lost <= 0 {
			out.fail("the last second of Redis was empty")
		}
		if err := os.Truncate(file, kept); err != nil {
			r.t.Fatal(err)
		}
		out.note("%d KB of the append-only file cut off", lost>>10)
	}, r.store.Restart)
}

// everythingLost is powerLoss with no worker left to remember.
func everythingLost(t testing.TB) *result {
	r, out := begin(t, setup{rate: 400})
	one := r.worker()
	r.send()
	r.under(r.recipients / 3)
	file := aofTail(t, r.store.Dir())
	kept := sizeOf(t, file)
	idle(time.Second)
	one.kill()
	r.store.Kill()
	if err := os.Truncate(file, kept); err != nil {
		t.Fatal(err)
	}
	r.store.Restart()
	r.verify(out)
	r.worker()
	out.crashes = 1
	return r.end(out)
}

// verify repairs the campaign, as an operator would who knows that Redis came back
// with older data. Whoever may have been sent to since is unknown then.
func (r *rig) verify(out *result) {
	r.t.Helper()
	steer := func(verb string) {
		if code, _, errs := r.run("campaign", verb, r.name); code != 0 {
			out.fail("campaign %s: exit code %d: %s", verb, code, tail(errs, 300))
		}
	}
	steer("pause")
	defer steer("resume")
	code, text, errs := r.run("campaign", "verify", r.name, "--to", r.list(), "--rewound", "--json")
	if code != 0 && code != 3 {
		out.fail("campaign verify: exit code %d: %s", code, tail(errs, 600))
	}
	var told struct{ Unknown int }
	if err := json.Unmarshal([]byte(text), &told); err != nil && code == 0 {
		out.fail("campaign verify --json: %v: %s", err, tail(text, 300))
	}
	out.note("verify: %d may have been sent to since, and are unknown", told.Unknown)
	out.mayUnknown = r.recipients
}

// pairOfRedis is a rig whose Redis has a replica, with a proxy that reaches either.
func pairOfRedis(t testing.TB, s setup) (*rig, *result, *redistest.Server) {
	t.Helper()
	s.proxied = true
	r, out := begin(t, s)
	host, port, _ := strings.Cut(r.store.Addr(), ":")
	replica := redistest.Start(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	follows(t, r.rdb)
	return r, out, replica
}

func follows(t testing.TB, master *redis.Client) {
	t.Helper()
	eventually(t, "the replica follows", func() bool {
		info := master.Info(context.Background(), "replication").Val()
		return strings.Contains(info, "state=online")
	})
}

// leaveBehind lets a replica hear nothing for so long, and kills its master then. The
// replica is cut off rather than frozen: a frozen one finds in its socket what the master
// sent meanwhile, and has caught up with some of it before it is promoted.
func leaveBehind(r *rig, replica *redistest.Server, lag time.Duration) {
	r.t.Helper()
	follow(r.t, replica, "127.0.0.1", "1") // nobody is there: it keeps what it has
	idle(lag)
	r.store.Kill()
}

// promote makes a replica the master, as a sentinel would.
func promote(r *rig, replica *redistest.Server) {
	r.t.Helper()
	follow(r.t, replica, "NO", "ONE")
	r.toRedis.redirect(replica.Addr())
	r.toRedis.cut()
}

// follow tells a replica whom to follow from now on.
func follow(t testing.TB, replica *redistest.Server, host, port string) {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: replica.Addr()})
	defer rdb.Close()
	if err := rdb.ReplicaOf(context.Background(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
}

func failOver(t testing.TB) *result {
	r, out, replica := pairOfRedis(t, setup{rate: 400})
	r.worker()
	r.worker()
	r.send()
	r.under(r.recipients / 3)
	leaveBehind(r, replica, time.Second)
	promote(r, replica)
	back := time.Now()
	r.noteAway(out, back, back)
	return r.end(out)
}

func failOverAlone(t testing.TB) *result {
	r, out, replica := pairOfRedis(t, setup{rate: 400})
	one := r.worker()
	r.send()
	r.under(r.recipients / 3)
	leaveBehind(r, replica, time.Second)
	promote(r, replica)
	one.kill()
	out.crashes = 1
	r.verify(out)
	r.worker()
	return r.end(out)
}

// copyDir copies a data directory.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// oldBackup restores an hour-old data set, scaled: older than what workers remember.
func oldBackup(t testing.TB) *result {
	r, out := begin(t, setup{recipients: 8000, rate: 300})
	one := r.worker()
	r.send()
	r.under(600)
	backup := filepath.Join(t.TempDir(), "backup")
	copyDir(t, filepath.Join(r.store.Dir(), "appendonlydir"), backup)
	idle(13 * time.Second)
	r.store.Kill()
	copyDir(t, backup, filepath.Join(r.store.Dir(), "appendonlydir"))
	return r.acceptOlder(out, one, r.store.Restart, func() { r.verify(out) })
}

// acceptOlder brings older data back under a worker, lets another start, and accepts
// the data at last. Redis is gone when it is called.
func (r *rig) acceptOlder(out *result, one *process, comes, repair func()) *result {
	r.t.Helper()
	r.still()
	before := r.sent()
	comes()
	idle(6 * time.Second)
	// What a worker had begun it may end: nobody else can have sent that.
	if n := r.sent() - before; n > r.connections {
		out.fail("%d mails sent from an older data set", n)
	}
	before = r.sent()
	one.kill()
	two := r.worker()
	idle(5 * time.Second)
	if n := r.sent() - before; n > 0 {
		out.fail("%d mails sent from an older data set by a new worker", n)
	}
	two.kill()
	repair()
	p := start(r.t, r.dir, r.env, "worker", "--accept-rewind", "--config", "sluice.yaml")
	r.workers = append(r.workers, p)
	out.crashes = 2
	out.mayUnknown = r.recipients
	r.end(out)
	if !p.says("older data accepted") {
		out.fail("nothing was accepted: %s", tail(p.errs.String(), 500))
	}
	return out
}

// failOverFarBehind promotes a replica that was cut off for so long that the workers
// cannot write again what it missed.
func failOverFarBehind(t testing.TB) *result {
	r, out, replica := pairOfRedis(t, setup{recipients: 8000, rate: 300})
	one := r.worker()
	r.send()
	r.under(600)
	leaveBehind(r, replica, 13*time.Second)
	return r.acceptOlder(out, one, func() { promote(r, replica) }, func() {})
}

// twoInstallations puts two of them on one Redis, each with a campaign and a relay of
// its own.
func twoInstallations(t testing.TB) *result {
	r, out := begin(t, setup{rate: 600})
	other := newRig(t, setup{user: "rehearsal", recipients: 1000})
	other.write("sluice.yaml", other.yaml(r.store.Addr(), other.srv.Addr()))
	stranger := other.worker()
	r.send()
	if !within(10*time.Second, func() bool { return stranger.says("enqueued for another relay account") }) {
		out.fail("the other installation's worker does not say what it leaves alone: %s", tail(stranger.errs.String(), 500))
	}
	r.worker()
	r.under(r.recipients / 3)
	if code, _, errs := other.run(other.sending()...); code != 2 || !strings.Contains(errs, `called "c1" already`) {
		out.fail("a name of the other installation's: exit code %d: %s", code, tail(errs, 300))
	}
	other.begins("c2")
	other.send()
	r.end(out)
	theirs := other.end(&result{})
	for _, bad := range theirs.complaints() {
		out.fail("the other's campaign: %s", bad)
	}
	if a, b := r.sent(), other.sent(); a != r.recipients || b != other.recipients {
		out.fail("one relay has %d mails and the other %d, of %d and %d", a, b, r.recipients, other.recipients)
	}
	out.add(theirs.account)
	r.noDeaths(out)
	return out
}
