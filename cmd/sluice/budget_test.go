package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// mostIn is the most of some times, earliest first, that lie in any stretch of that
// length.
func mostIn(times []time.Time, per time.Duration) int {
	most, first := 0, 0
	for i, at := range times {
		for at.Sub(times[first]) >= per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func TestMostIn(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms ...int) (times []time.Time) {
		for _, m := range ms {
			times = append(times, start.Add(time.Duration(m)*time.Millisecond))
		}
		return times
	}
	for _, tc := range []struct {
		times []time.Time
		want  int
	}{{nil, 0}, {at(0), 1}, {at(0, 1000, 2000), 1}, {at(0, 999, 1000, 1998), 3}, {at(0, 0, 5000, 5100, 5200), 3}} {
		if n := mostIn(tc.times, time.Second); n != tc.want {
			t.Errorf("%v: %d, want %d", tc.times, n, tc.want)
		}
	}
}

// Four worker processes, one of them killed and started again every second, and then
// Redis itself: the relay's own log shows no window above its limit. The windows are
// of ten seconds, whose slack is half a second: a loaded machine must not decide.
func TestFleetKeepsTheLimits(t *testing.T) {
	t.Parallel()
	const open, dials, messages, per = 8, 40, 4_000, 10 * time.Second
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), tail: noBreakers,
		limits: `limits: {connections: {open: 8, new: 40/10s}, messages: [4000/10s], per_connection: {messages: 500, age: 5m, idle: 30s}}
streams: {auth: {reserve: [200/10s], connections: 1}}
`})
	r.enqueue(r.send(r.list(100_000))...)
	var workers []*process
	for range 4 {
		workers = append(workers, r.start("worker"))
	}
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 100 })
	for n := range 6 {
		workers[n%4].signal(syscall.SIGKILL)
		workers[n%4].wait()
		workers[n%4] = r.start("worker")
		<-time.After(time.Second) // the load, not a wait for something
	}
	srv.Kill()
	srv.Restart()
	before := r.relay.Stats().Messages
	eventually(t, "a window's worth is sent after Redis came back", func() bool { return r.relay.Stats().Messages > before+messages })
	st, begun := r.relay.Stats(), r.relay.MailTimes()
	if n := st.OpenMax; n > open {
		t.Errorf("%d connections were open at once, the limit is %d", n, open)
	}
	if n := mostIn(st.ConnectTimes, per); n > dials {
		t.Errorf("%d connections were opened in %v, the limit is %d", n, per, dials)
	}
	if n := mostIn(begun, per); n > messages {
		t.Errorf("%d messages were begun in %v, the limit is %d", n, per, messages)
	}
	t.Logf("most open %d of %d; opened %d, most in %v %d of %d; messages %d, most %d of %d", st.OpenMax, open,
		st.Connections, per, mostIn(st.ConnectTimes, per), dials, len(begun), mostIn(begun, per), messages)
}

// enqueue runs a send that must succeed.
func (r *rig) enqueue(args ...string) {
	r.t.Helper()
	if code, _, errs := r.run(context.Background(), args...); code != exitDone {
		r.t.Fatalf("%d: %s", code, errs)
	}
}

// code is the send of one login code.
func code(to string) []string {
	return []string{"send", "--to", to, "--template", "code", "--set", "code=481516", "--from", "no-reply@example.com", "--stream", "auth", "--key", to}
}

// holders counts the connections that the fleet holds, by stream.
func holders(t *testing.T, r *rig) map[string]int {
	t.Helper()
	held := map[string]int{}
	for _, h := range shownLimits(t, r).Holders {
		held[h.Stream] += h.Connections
	}
	return held
}

// More workers than connections: those without one leave the mail to the others, and
// not every worker keeps connections open for login codes, but the fleet as many as it
// is told. A code in the hands of a worker without a connection would expire.
func TestMoreWorkersThanConnections(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(),
		limits: `limits: {connections: {open: 4, new: 600/1m}, messages: [2000/1s], per_connection: {messages: 5000, age: 5m, idle: 2s}}
streams: {auth: {reserve: [200/1s], connections: 2, ttl: 30s}}
`})
	for range 5 {
		r.start("worker")
	}
	eventually(t, "the fleet keeps its two connections for codes", func() bool { return holders(t, r)["auth"] == 2 })
	r.enqueue(r.send(r.list(5_000))...)
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 1_000 })
	const codes = 20
	for n := range codes {
		r.enqueue(code(fmt.Sprintf("c%d@naver.example", n))...)
	}
	eventually(t, "everything is sent", func() bool { return r.relay.Stats().Messages == 5_000+codes })
	for _, row := range r.report("c1") {
		if row.Outcome != "accepted" || row.Attempts != 1 {
			t.Fatalf("line %d is %s after %d attempts", row.Line, row.Outcome, row.Attempts)
		}
	}
	eventually(t, "only what is kept for codes stays open", func() bool {
		held := holders(t, r)
		return held["auth"] == 2 && held["ad"] == 0
	})
}

// A relay that refuses connections in mid-campaign costs the fleet two dials and then
// one a probe; nobody's mail is lost or counted as attempted, and all of it is sent
// when the relay is back.
func TestRelayGoesAway(t *testing.T) {
	t.Parallel()
	const people = 10_000
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(),
		limits: `limits: {connections: {open: 10, new: 600/1m}, messages: [2000/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}
streams: {auth: {reserve: [200/1s], connections: 0}}
`})
	r.enqueue(r.send(r.list(people))...)
	for range 3 {
		r.start("worker")
	}
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 1_000 })
	if err := r.relay.SetProfile("down", relay.Rule{Stage: relay.Mail, Reply: "421 4.3.2 Service shutting down"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all connections are gone", func() bool { return r.relay.Stats().Open == 0 })
	before := r.relay.Stats().Connections
	refusals := 0
	eventually(t, "some probes were refused", func() bool {
		for _, b := range shownLimits(t, r).Breakers {
			refusals = max(refusals, b.Refusals)
		}
		return refusals >= 3
	})
	// One refusal is counted of the first two dials; one probe may be under way.
	dials := r.relay.Stats().Connections - before
	refused := shownLimits(t, r).Breakers
	if len(refused) != 1 || refused[0].Stream != "ad" {
		t.Errorf("breakers %+v, want that of ad", refused)
	} else if dials > int64(refused[0].Refusals)+2 {
		t.Errorf("%d dials, %d of them counted as refused", dials, refused[0].Refusals)
	}
	if err := r.relay.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is sent", func() bool { return r.relay.Stats().Messages == people })
	for _, row := range r.report("c1") {
		if row.Outcome != "accepted" || row.Attempts != 1 {
			t.Fatalf("line %d is %s after %d attempts: %d %s", row.Line, row.Outcome, row.Attempts, row.Code, row.Text)
		}
	}
}

// A burst of login codes goes before a campaign that has taken the whole budget, and
// the campaign goes on after it. The campaign has no share of its own.
func TestCodesBeforeAds(t *testing.T) {
	t.Parallel()
	const burst = 1_000
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(),
		limits: `limits: {connections: {open: 8, new: 600/1m}, messages: [500/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}
streams: {auth: {reserve: [400/1s], connections: 2, ttl: 3m}}
`})
	r.enqueue(r.send(r.list(50_000))...)
	r.start("worker")
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 1_000 })
	var list strings.Builder
	list.WriteString("email,code\n")
	for n := range burst {
		fmt.Fprintf(&list, "c%d@naver.example,%06d\n", n, n)
	}
	r.enqueue("send", "--to", r.write("codes.csv", list.String()), "--template", "code", "--from", "no-reply@example.com", "--stream", "auth", "--name", "codes")
	codes := func() (all []relay.Begun) {
		for _, b := range r.relay.Begun() {
			if b.Stream == "auth" {
				all = append(all, b)
			}
		}
		return all
	}
	eventually(t, "all codes are sent", func() bool { return len(codes()) == burst })
	sent := codes()
	from, to := sent[0].Time.Add(100*time.Millisecond), sent[burst-1].Time
	between := 0
	for _, b := range r.relay.Begun() {
		if b.Stream == "ad" && b.Time.After(from) && b.Time.Before(to) {
			between++
		}
	}
	// Next to none on a quiet machine (bench latency counts them): on a loaded one the worker
	// is stopped for longer than a right of way stands. Without it the ads, whose queue is
	// never empty, take four of five.
	if between >= 3*burst {
		t.Errorf("%d ads were begun between %d codes", between, burst)
	}
	t.Logf("%d codes in %v, %d ads between", burst, to.Sub(sent[0].Time), between)
	before := r.relay.Stats().Messages
	eventually(t, "the campaign goes on", func() bool { return r.relay.Stats().Messages > before+500 })
}

// A code that could not be sent in its time is expired, whatever kept it, and the relay
// never sees it.
func TestCodesExpire(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{Profile: "down", Users: map[string]string{"app": "sec"}},
		limits: `limits: {connections: {open: 4, new: 600/1m}, messages: [100/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}
streams: {auth: {reserve: [20/1s], connections: 1, ttl: 2s}}
`})
	for n := range 3 {
		r.enqueue(append(code(fmt.Sprintf("c%d@naver.example", n)), "--name", fmt.Sprintf("c%d", n))...)
	}
	r.start("worker")
	r.start("worker")
	for n := range 3 {
		eventually(t, "the code expires", func() bool {
			_, out, _ := r.run(t.Context(), "campaign", "show", fmt.Sprintf("c%d", n), "--json")
			return lastJSON(t, out).Expired == 1
		})
	}
	if n := r.relay.Stats().Connections; n > 20 {
		t.Errorf("%d connections before the codes were known to be expired", n)
	}
	if err := r.relay.SetProfile("nhn"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the relay is connected to", func() bool { return r.relay.Stats().Open > 0 })
	r.enqueue(append(code("late@naver.example"), "--wait")...)
	if begun := r.relay.Begun(); len(begun) != 1 {
		t.Errorf("%d messages begun, want the last alone", len(begun))
	}
}
