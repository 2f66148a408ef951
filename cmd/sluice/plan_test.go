package main

import (
	"context"
	"encoding/json"
	"math"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/throttle"
)

// nowhere is a Redis that is not there.
const nowhere = "redis: {url: 'redis://127.0.0.1:1/0'}\n"

func planned(t *testing.T, out string) planJSON {
	t.Helper()
	var j planJSON
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return j
}

func TestPlanWithoutRedis(t *testing.T) {
	t.Parallel()
	args := []string{"plan", "--recipients", "400000", "--stream", "ad", "--rtt", "12ms", "--at", "2026-12-01T09:00:00+09:00"}
	code, out, errs := sluice(t, nowhere, args...)
	if code != exitDone || !strings.Contains(errs, "nothing is known of what is used already: ") {
		t.Errorf("code %d: %s", code, errs)
	}
	for _, want := range []string{
		"400,000 recipients on ad from 2026-12-01 09:00:00 +09:00, round trip 12ms", "36m4", "limits.messages 200/1s",
		"3, opened 801 times", "limits.messages 500000/24h   0", "480,000",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	code, out, errs = sluice(t, nowhere, append(args, "--json")...)
	j := planned(t, out)
	if code != exitDone || errs != "" || j.Known || j.Unknown == "" || j.Alone.Seconds < 2199 || j.Alone.Seconds > 2206 || j.Shared.Seconds <= j.Alone.Seconds {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	if want := j.Start.Add(time.Duration(j.Alone.Seconds * float64(time.Second))); j.Alone.End.Sub(want).Abs() > time.Second {
		t.Errorf("ends %v, want %v", j.Alone.End, want)
	}
	if code, out, _ := sluice(t, "redis: {url: embedded}", append(args, "--json")...); code != exitDone || !strings.Contains(planned(t, out).Unknown, "keeps nothing") {
		t.Errorf("embedded: code %d: %s", code, out)
	}
}

func TestPlanUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--recipients 0: want":       nil,
		"--stream":                   {"--recipients", "1", "--stream", "add"},
		`--at "tomorrow": want`:      {"--recipients", "1", "--at", "tomorrow"},
		"--rtt -1s":                  {"--recipients", "1", "--rtt", "-1s"},
		"takes no argument":          {"--recipients", "1", "list.csv"},
		`invalid argument "a" for "`: {"--recipients", "a"},
	} {
		if code, out, errs := sluice(t, nowhere, append([]string{"plan"}, args...)...); code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: code %d: %s%s", args, code, out, errs)
		}
	}
}

// The configuration's limits, caps, canary and pipelining are all in the forecast.
func TestPlanObeysTheConfiguration(t *testing.T) {
	t.Parallel()
	takes := func(yaml string) courseJSON {
		t.Helper()
		code, out, errs := sluice(t, nowhere+yaml, "plan", "--recipients", "40000", "--stream", "ad", "--rtt", "100ms", "--json")
		if code != exitDone {
			t.Fatalf("%s: code %d: %s", yaml, code, errs)
		}
		return planned(t, out).Alone
	}
	if c := takes(""); c.Limit != "limits.connections.open 8" || c.Connections != 8 {
		t.Errorf("as shipped: %+v", c)
	}
	if a, b := takes("relay: {pipelining: lockstep}"), takes("relay: {pipelining: group}"); a.Seconds < 1.9*b.Seconds || b.Seconds < 900 {
		t.Errorf("in lock-step %+v, in groups %+v", a, b)
	}
	if c := takes("streams: {ad: {messages: [20/1s]}}"); c.Limit != "streams.ad.messages 20/1s" {
		t.Errorf("a cap: %+v", c)
	}
	if c := takes("streams: {ad: {openings: [1/1h]}}"); c.Limit != "streams.ad.openings 1/1h" {
		t.Errorf("openings: %+v", c)
	}
	if c := takes("streams: {ad: {canary: {size: 1000, wait: 2h}}}"); c.Waits < 7200 || c.Waits > 7201 || c.Limit != "the first recipients' results" {
		t.Errorf("a canary: %+v", c)
	}
	code, out, errs := sluice(t, nowhere+"streams: {auth: {reserve: [200/1s, 500000/24h]}}", "plan", "--recipients", "1", "--stream", "ad")
	if code != exitFailed || !strings.Contains(errs, "this campaign never ends: limits.messages 500000/24h leaves nothing for ad") || !strings.Contains(out, "never") {
		t.Errorf("nothing left: code %d: %s%s", code, out, errs)
	}
}

// What Redis knows of the day's quota is in the plan.
func TestPlanOfWhatIsUsed(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: "limits: {messages: [1000/1s, 5000/1h]}\nstreams: {auth: {reserve: [500/1h]}}\n"})
	cfg, err := config.Load(r.file, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()
	spend(t, rdb, cfg, 300)
	code, out, errs := r.run(t.Context(), "plan", "--recipients", "6000", "--stream", "ad", "--json")
	j := planned(t, out)
	if code != exitDone || !j.Known || len(j.Quotas) != 1 || j.Quotas[0].Used < 300 || j.Quotas[0].Used > 400 || j.Quotas[0].Left != 5000-500-j.Quotas[0].Used {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	// 4,500 less what is used now, the rest when that has left the window.
	if want := 63 * 60.0; j.Alone.Seconds < want || j.Alone.Seconds > want+10 || j.Alone.Limit != "limits.messages 5000/1h" {
		t.Errorf("%+v, want just above %v s", j.Alone, want)
	}
	// Too many for what is left now; two hours later all of it is there again.
	for at, want := range map[time.Duration]float64{0: 63 * 60, 2 * time.Hour: 4.8} {
		start := time.Now().Add(at).Format(time.RFC3339)
		code, out, errs := r.run(t.Context(), "plan", "--recipients", "4400", "--stream", "ad", "--at", start, "--json")
		if j := planned(t, out); code != exitDone || j.Alone.Seconds < want || j.Alone.Seconds > want+10 || (j.Quotas[0].Left == 4500) != (at > 0) {
			t.Errorf("from %s: code %d: %s%s", start, code, out, errs)
		}
	}
}

// Whoever is not begun within the stream's ttl expires, and the plan says so.
func TestPlanWithinTheTTL(t *testing.T) {
	t.Parallel()
	const late = "560,000 of 2,000,000 recipients are not begun within streams.ad.ttl (3d 0s), and expire"
	for name, tc := range map[string]struct {
		yaml, recipients string
		ttl, takes       float64
		alone, shared    int
		want             string // in the text; "": no warning
	}{
		"as shipped":  {"", "2000000", 72 * 3600, 72 * 3600, 560_000, 560_000, "warning: " + late},
		"few":         {"", "2000", 72 * 3600, 11.8, 0, 0, ""},
		"a short one": {"streams: {ad: {ttl: 10s, retry: {age: 0s}, messages: [10/1s], canary: {size: off}}}", "300", 10, 10, 210, 210, "warning: 210 of 300"},
		"while others send": {"streams: {auth: {reserve: [150/1s, 20000/24h]}, ad: {ttl: 100s, retry: {age: 0s}, canary: {size: off}}}", "10000", 100, 55.8, 0, 6822,
			"warning: 6,822 of 10,000 recipients are not begun within streams.ad.ttl (1m40s) while other streams use"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"plan", "--recipients", tc.recipients, "--stream", "ad"}
			code, out, errs := sluice(t, nowhere+tc.yaml, append(args, "--json")...)
			j := planned(t, out)
			if code != exitDone || j.TTL != tc.ttl || math.Abs(j.Alone.Seconds-tc.takes) > 0.1*tc.takes || j.Alone.Expired != tc.alone || j.Shared.Expired != tc.shared {
				t.Errorf("code %d: %s%s", code, out, errs)
			}
			code, out, errs = sluice(t, nowhere+tc.yaml, args...)
			if code != exitDone || !strings.Contains(out, tc.want) || strings.Contains(out, "expire") != (tc.want != "") {
				t.Errorf("code %d: %s%s", code, out, errs)
			}
		})
	}
}

func TestPlanOfASlowStream(t *testing.T) {
	t.Parallel()
	code, out, errs := sluice(t, nowhere+"streams: {ad: {messages: [1/1m], canary: {size: off}}}", "plan", "--recipients", "10", "--stream", "ad")
	for _, want := range []string{"9m27s", "57.1/h, at most 57.1/h"} {
		if code != exitDone || !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s%s", want, out, errs)
		}
	}
}

func TestRatesAreNeverNothing(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64]struct {
		rounded float64
		text    string
	}{
		0: {0, "0.0/s"}, 181.818: {181.8, "181.8/s"}, 1.04: {1, "1.0/s"}, 0.9524: {0.9524, "57.1/min"}, 0.04: {0.04, "2.4/min"},
		0.015873: {0.01587, "57.1/h"}, 1.0 / 3600: {0.0002778, "1.0/h"}, 0.0000190258: {0.00001903, "1.64/day"},
	} {
		if got := round1(rate); math.Abs(got-want.rounded) > 1e-9 {
			t.Errorf("%v is rounded to %v, want %v", rate, got, want.rounded)
		}
		if got := perTime(rate); got != want.text {
			t.Errorf("%v is written %q, want %q", rate, got, want.text)
		}
	}
	var out strings.Builder
	a := app{stdio: stdio{out: &out}}
	l := throttle.Learned{Rates: []throttle.LearnedRate{{Cap: 0.02, State: "settled"}}}
	if err := a.printLimits(limitsJSON{Learned: newLearnedJSON(l)}); err != nil || !strings.Contains(out.String(), "0.02 ") || strings.Contains(out.String(), "no limit") {
		t.Errorf("%v: a learned rate of 0.02 a second in\n%s", err, &out)
	}
}

// spend begins n messages of stream ad.
func spend(t *testing.T, rdb redis.UniversalClient, cfg *config.Config, n int) {
	t.Helper()
	onFleet(t, rdb, cfg, func(ctx context.Context, b *throttle.Budget) {
		for range n {
			if _, err := b.Message(ctx, throttle.Class{Stream: "ad", Group: "naver", Sender: "news.example.com"}); err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// onFleet runs f on the budget of a process of the fleet.
func onFleet(t *testing.T, rdb redis.UniversalClient, cfg *config.Config, f func(context.Context, *throttle.Budget)) {
	t.Helper()
	b, err := throttle.NewRedis(rdb, throttle.Params{Prefix: keyPrefix, Account: cfg.Relay.Account(), Owner: "w1", Limits: budgetLimits(cfg),
		Login: func(string) string { return cfg.Relay.Fingerprint() }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	f(ctx, b)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A campaign is rehearsed and compared with its plan. It cannot go faster than the
// limits let it, so a plan that is too long is wrong; how much slower this machine is
// at the moment is printed, and how much of that the plan knows of that is given the
// round trip as it is here: timers and scheduling add a millisecond to a simulated one.
func TestPlanRehearsed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	const quiet = "\nstreams: {auth: {reserve: [], connections: 1}, ad: {canary: {size: off}}}\n"
	for name, tc := range map[string]rehearsal{
		// Few messages a second, so that what is measured is the limits and not this machine.
		"messages": {500, 50 * time.Millisecond, "limits: {connections: {open: 10, new: 600/1m}, messages: [20/1s]}" + quiet},
		"connections": {3000, 15 * time.Millisecond, "limits: {connections: {open: 4, new: 600/1m}, messages: [5000/1s], " +
			"per_connection: {messages: 200}}" + quiet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.run(t)
		})
	}
}

// rehearsal is a campaign that is planned and then sent.
type rehearsal struct {
	recipients int
	rtt        time.Duration
	limits     string
}

func (tc rehearsal) run(t *testing.T) {
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: tc.limits, relay: relay.Config{RoundTrip: tc.rtt}})
	rtt := roundTrip(t, r.relay.Addr())
	plan := func(rtt time.Duration) courseJSON {
		code, out, errs := r.run(t.Context(), "plan", "--recipients", strconv.Itoa(tc.recipients), "--stream", "ad", "--rtt", rtt.String(), "--json")
		if code != exitDone {
			t.Fatal(errs)
		}
		return planned(t, out).Alone
	}
	ideal, here := plan(tc.rtt), plan(rtt)
	w := r.start("worker")
	eventually(t, "the worker is there", func() bool { return strings.Contains(w.errs.String(), "worker joined") })
	producer := r.start(r.send(r.list(tc.recipients), "--wait", "--json")...)
	if code := producer.wait(); code != exitDone {
		t.Fatalf("exit code %d: %s", code, tail(producer.errs.String(), 2000))
	}
	s := lastJSON(t, producer.out.String())
	t.Logf("took %.1f s with %d connections opened, limit %s\nplanned %.1f s (%+.1f %%) with %d opened, round trip %v\nplanned %.1f s (%+.1f %%), round trip as measured, %v",
		s.Seconds, s.ConnectionsOpened, ideal.Limit, ideal.Seconds, 100*(s.Seconds/ideal.Seconds-1), ideal.Openings, tc.rtt,
		here.Seconds, 100*(s.Seconds/here.Seconds-1), rtt)
	if s.Seconds < 0.95*ideal.Seconds {
		t.Errorf("the plan is too long by %.1f %%", 100*(ideal.Seconds/s.Seconds-1))
	}
}

// roundTrip measures what an operator would: the time from a command to its reply.
func roundTrip(t *testing.T, addr string) time.Duration {
	t.Helper()
	c, err := textproto.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	const times = 40
	start := time.Now()
	for range times {
		if err := c.PrintfLine("NOOP"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadResponse(250); err != nil {
			t.Fatal(err)
		}
	}
	return (time.Since(start) / times).Round(100 * time.Microsecond)
}
