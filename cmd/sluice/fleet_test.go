package main

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// slow limits a campaign so that there is a middle to break it in.
const slow = `limits: {connections: {open: 10, new: 600/1m}, messages: [6000/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}
streams: {auth: {reserve: [200/1s], connections: 2}}
`

// Three worker processes and a campaign of 50,000: one is killed, one is stopped,
// the third carries on. Nothing is lost, and what is double is listed.
func TestWorkersDieAndTakeOver(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: slow, relay: relay.Config{RoundTrip: 2 * time.Millisecond}})
	list := r.list(50_000)
	one, two := r.start("worker"), r.start("worker")
	producer := r.start(r.send(list, "--wait", "--json")...)
	eventually(t, "a fifth is sent", func() bool { return r.relay.Stats().Messages > 10_000 })
	one.signal(syscall.SIGKILL)
	three := r.start("worker")
	eventually(t, "two fifths are sent", func() bool { return r.relay.Stats().Messages > 20_000 })
	two.signal(syscall.SIGTERM)
	if code := two.wait(); code != 0 {
		t.Errorf("a stopped worker ends with %d: %s", code, tail(two.errs.String(), 2000))
	}
	code := producer.wait()
	s := lastJSON(t, producer.out.String())
	if s.Pending+s.Deferred != 0 || s.Accepted+s.Unknown != 50_000 {
		t.Errorf("%+v", s)
	}
	if want := exitDone; code != want && (s.Unknown == 0 || code != exitPartial) {
		t.Errorf("exit code %d with %d unknown", code, s.Unknown)
	}
	// At most two messages a connection were under way when the worker was killed.
	if s.Unknown > 2*10 {
		t.Errorf("%d unknown of one kill with at most 10 connections", s.Unknown)
	}
	reconcile(t, values(r.report("c1")), r.relay.Truth())
	if !strings.Contains(three.errs.String()+two.errs.String(), "a worker died") {
		t.Error("nobody noticed the death")
	}
	t.Logf("%d unknown after SIGKILL; %d connections opened", s.Unknown, s.ConnectionsOpened)
}

// Jobs are hints: without any asynq key the campaign still completes.
func TestAsynqKeysDeleted(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: slow})
	r.start("worker")
	producer := r.start(r.send(r.list(20_000), "--wait", "--json")...)
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	for _, at := range []int64{2_000, 8_000, 15_000} {
		eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > at })
		deleteKeys(t, rdb, "asynq:*")
	}
	if code := producer.wait(); code != exitDone {
		t.Errorf("exit code %d: %s", code, tail(producer.errs.String(), 2000))
	}
	if s := lastJSON(t, producer.out.String()); s.Accepted != 20_000 {
		t.Errorf("%+v", s)
	}
	reconcile(t, values(r.report("c1")), r.relay.Truth())
}

func deleteKeys(t *testing.T, rdb *redis.Client, pattern string) {
	t.Helper()
	keys, err := rdb.Keys(t.Context(), pattern).Result()
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) == 0 {
		t.Fatalf("there is nothing like %s to delete", pattern)
	}
	if err := rdb.Del(t.Context(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
}

// Refused recipients and contents cost no connection.
func TestRefusalsCostNoConnection(t *testing.T) {
	t.Parallel()
	const n = 10_000
	connections := func(rules ...relay.Rule) int64 {
		r := newRig(t, rigOptions{relay: relay.Config{Rules: rules}, limits: strings.Replace(rigLimits, "messages: 5000", "messages: 50000", 1) + noBreakers})
		list := r.list(n)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out, errs safeBuffer
		done := make(chan int, 1)
		go func() {
			done <- run(ctx, append(r.send(list, "--wait", "--json"), "--config", r.file), stdio{in: strings.NewReader(""), out: &out, err: &errs})
		}()
		// A minute until the deferred ones are due again is too long for a test: what
		// counts has happened by then.
		eventually(t, "every recipient was tried", func() bool {
			rcpt := r.relay.Stats().Replies["rcpt"]
			return rcpt["2xx"]+rcpt["4xx"]+rcpt["5xx"] >= n && r.relay.Stats().Replies["eod"]["2xx"]+r.relay.Stats().Replies["eod"]["5xx"] >= rcpt["2xx"]
		})
		opened := r.relay.Stats().Connections
		cancel()
		<-done
		return opened
	}
	without := connections()
	with := connections(
		relay.Rule{Stage: relay.Rcpt, Share: 0.05, Reply: "550 5.1.1 no such user"},
		relay.Rule{Stage: relay.Rcpt, Share: 0.10, Reply: "451 4.7.1 later"},  // of the same hash: the next 5 %
		relay.Rule{Stage: relay.EOD, Share: 0.11, Reply: "554 5.7.1 content"}, // the next 1 %
	)
	// Both open connections as the work lasts, so the faster of two runs may open one or
	// two fewer; five in a hundred recipients would be 500.
	if with > without+5 {
		t.Errorf("%d connections with refusals, %d without", with, without)
	}
}

// A producer killed while it stores leaves nobody pending; run again it completes
// the same campaign, and once more it sends nothing.
func TestProducerKilled(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL()})
	list := r.list(200_000)
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr()})
	defer rdb.Close()
	first := r.start(r.send(list)...)
	eventually(t, "blocks are being stored", func() bool { return rdb.DBSize(t.Context()).Val() > 20 })
	first.signal(syscall.SIGKILL)
	first.wait()
	code, out, errs := r.run(t.Context(), "campaign", "show", "c1", "--json")
	if code != 0 {
		t.Fatal(errs)
	}
	if s := lastJSON(t, out); s.State != "staging" || s.Pending != 0 {
		t.Fatalf("killed too late for this test, or somebody is pending: %+v", s)
	}
	for range 2 {
		code, out, errs = r.run(t.Context(), r.send(list, "--json")...)
		if s := lastJSON(t, out); code != 0 || s.Pending != 200_000 {
			t.Fatalf("%d %+v %s", code, s, errs)
		}
	}
	if !strings.Contains(errs, "made before") {
		t.Errorf("the repeat is not told of: %s", errs)
	}
	if n := rdb.ZCard(t.Context(), keyPrefix+":campaigns").Val(); n != 1 {
		t.Errorf("%d campaigns", n)
	}
}

// Redis is away when the worker starts and again in mid-campaign: both are said
// once, nothing spins, and it goes on by itself.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: slow})
	srv.Kill()
	if code, _, errs := r.run(t.Context(), r.send(r.list(1))...); code != exitFailed || !strings.Contains(errs, "redis does not answer at "+srv.Addr()) {
		t.Errorf("send without redis: %d %s", code, errs)
	}
	w := r.start("worker")
	eventually(t, "the worker says that it waits", func() bool { return strings.Contains(w.errs.String(), "waiting for redis") })
	srv.Restart()
	producer := r.start(r.send(r.list(30_000), "--wait", "--json")...)
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 8_000 })
	srv.Kill()
	before, start := w.cpu(), time.Now()
	sent := r.relay.Stats().Messages
	<-time.After(4 * time.Second) // the outage itself, not a wait for something
	share := float64(w.cpu()-before) / float64(time.Since(start))
	if share > 0.3 {
		t.Errorf("the worker used %.0f %% of a core while redis was away", 100*share)
	}
	if more := r.relay.Stats().Messages - sent; more > 2*10 {
		t.Errorf("%d messages were sent without redis: more than had been declared", more)
	}
	srv.Restart()
	code := producer.wait()
	s := lastJSON(t, producer.out.String())
	if s.Pending+s.Deferred != 0 || s.Accepted != 30_000 || code != exitDone {
		t.Errorf("%d %+v", code, s)
	}
	reconcile(t, values(r.report("c1")), r.relay.Truth())
	if n := strings.Count(w.errs.String(), "waiting for redis"); n > 2 {
		t.Errorf("the outage is told %d times", n)
	}
}

// A wrong password costs one or two attempts at a stream's login, says so, uses
// nobody up, and with the right one the campaign goes on.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Users: map[string]string{"app": "another"}}})
	w := r.start("worker")
	code, out, errs := r.run(t.Context(), r.send(r.list(100), "--wait", "--json")...)
	s := lastJSON(t, out)
	if code != exitHeld || s.State != "held" || s.Pending != 100 {
		t.Errorf("%d %+v", code, s)
	}
	if !strings.Contains(errs, "refused the login of stream ad") || !strings.Contains(errs, "535") {
		t.Errorf("send does not say why: %s", errs)
	}
	// auth keeps connections open, so its login was tried as well.
	eventually(t, "the worker has told of it", func() bool { return strings.Contains(w.errs.String(), "relay.password") })
	if n := r.relay.Stats().AuthAttempts; n > 4 {
		t.Errorf("%d attempts to log in", n)
	}
	if strings.Contains(errs+w.errs.String(), "sec\"") {
		t.Error("the password is in the log")
	}
	w.signal(syscall.SIGTERM)
	w.wait()
	r.relay.SetUsers(map[string]string{"app": "sec"})
	r.start("worker")
	eventually(t, "the hold is lifted", func() bool { return r.relay.Stats().Messages == 100 })
	code, out, _ = r.run(t.Context(), r.send(r.list(100), "--wait", "--json")...)
	if s := lastJSON(t, out); code != exitDone || s.Accepted != 100 {
		t.Errorf("%d %+v", code, s)
	}
	for _, row := range r.report("c1") {
		if row.Attempts != 1 {
			t.Fatalf("line %d has %d attempts: the refused login was counted", row.Line, row.Attempts)
		}
	}
}

// A paused campaign stops, a resumed one goes on at the right recipient, and a
// cancelled one accounts for whoever did not get it.
func TestPauseResumeCancel(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: slow})
	r.start("worker")
	r.start("worker")
	steer := func(verb string) {
		t.Helper()
		if code, _, errs := r.run(t.Context(), "campaign", verb, "c1"); code != 0 {
			t.Fatalf("%s: %s", verb, errs)
		}
	}
	if code, _, errs := r.run(t.Context(), r.send(r.list(30_000))...); code != 0 {
		t.Fatal(errs)
	}
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 3_000 })
	steer("pause")
	still := int64(-1)
	eventually(t, "it stands still", func() bool {
		n := r.relay.Stats().Messages
		<-time.After(300 * time.Millisecond)
		still = r.relay.Stats().Messages
		return still == n
	})
	if code, _, errs := r.run(t.Context(), r.send(r.list(30_000), "--wait")...); code != exitHeld || !strings.Contains(errs, "resume c1") {
		t.Errorf("waiting for a paused campaign: %d %s", code, errs)
	}
	steer("resume")
	eventually(t, "it goes on", func() bool { return r.relay.Stats().Messages > still+3_000 })
	steer("cancel")
	code, out, _ := r.run(t.Context(), r.send(r.list(30_000), "--wait", "--json")...)
	s := lastJSON(t, out)
	if code != exitPartial || s.State != "cancelled" || s.Cancelled == 0 || s.Accepted+s.Cancelled != 30_000 {
		t.Errorf("%d %+v", code, s)
	}
	reconcile(t, values(r.report("c1")), r.relay.Truth())
}

// Ctrl-C while waiting leaves the campaign alone.
func TestDetach(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL()})
	p := r.start(r.send(r.list(10), "--wait")...)
	eventually(t, "it is enqueued", func() bool { return strings.Contains(p.errs.String(), "enqueued 10 of 10") })
	p.signal(os.Interrupt)
	if code := p.wait(); code != exitFailed || !strings.Contains(p.errs.String(), "the campaign goes on") {
		t.Errorf("%d %s", code, p.errs.String())
	}
	_, out, _ := r.run(context.Background(), "campaign", "show", "c1", "--json")
	if s := lastJSON(t, out); s.Pending != 10 || mail.Stream(s.Stream) != mail.Ad {
		t.Errorf("%+v", s)
	}
}
