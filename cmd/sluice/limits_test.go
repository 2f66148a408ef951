package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/throttle"
)

const someLimits = `limits: {connections: {open: 5, new: 600/1m}, messages: [1000/1s, 5000/1h]}
streams: {auth: {reserve: [500/1h], connections: 1}, ad: {messages: [900/1s], openings: [50/1h]}}
groups: {naver: {messages: 400/1m}}
warm_up: {news.example.com: {start: 300, ceiling: 9000}}
`

func shownLimits(t *testing.T, r *rig) limitsJSON {
	t.Helper()
	code, out, errs := r.run(t.Context(), "limits", "show", "--json")
	var j limitsJSON
	if err := json.Unmarshal([]byte(out), &j); err != nil || code != exitDone {
		t.Fatalf("code %d, %v: %s%s", code, err, out, errs)
	}
	return j
}

func TestLimitsShow(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: someLimits})
	cfg, err := config.Load(r.file, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()
	spend(t, rdb, cfg, 30)
	onFleet(t, rdb, cfg, func(ctx context.Context, b *throttle.Budget) {
		lease, err := b.Connect(ctx, "ad")
		if err != nil {
			t.Error(err)
			return
		}
		defer lease.Release()
		lease.Greeted()
		j := shownLimits(t, r)
		windows := map[string]windowJSON{}
		for _, w := range j.Windows {
			windows[w.Limit] = w
		}
		for _, limit := range []string{
			"limits.messages 1000/1s", "limits.messages 5000/1h", "streams.auth.reserve 500/1h", "streams.ad.messages 900/1s",
			"groups.naver.messages 400/1m", "limits.connections.new 600/1m", "streams.ad.openings 50/1h",
		} {
			if _, ok := windows[limit]; !ok {
				t.Errorf("no %s in %+v", limit, j.Windows)
			}
		}
		if w := windows["limits.messages 5000/1h"]; w.Used < 30 || w.Used > 130 || w.Left != 5000-w.Used {
			t.Errorf("%+v", w)
		}
		if w := windows["streams.ad.openings 50/1h"]; w.Used != 1 || w.Left != 49 {
			t.Errorf("%+v", w)
		}
		if len(j.WarmUp) != 1 || j.WarmUp[0].Domain != "news.example.com" || j.WarmUp[0].Day != 1 || j.WarmUp[0].Limit != 300 || j.WarmUp[0].Used < 30 {
			t.Errorf("warm-up %+v", j.WarmUp)
		}
		if len(j.Holders) != 1 || j.Holders[0].Owner != "w1" || j.Holders[0].Stream != "ad" || j.Holders[0].Connections != 1 || j.Open != 1 || j.OpenLimit != 5 {
			t.Errorf("holders %+v, %d of %d open", j.Holders, j.Open, j.OpenLimit)
		}
		if j.Account != cfg.Relay.Account() {
			t.Errorf("account %s", j.Account)
		}
		code, out, errs := r.run(t.Context(), "limits", "show")
		out = strings.Join(strings.Fields(out), " ")
		for _, want := range []string{"account " + cfg.Relay.Account(), "groups.naver.messages 400/1m", "warm_up.news.example.com 300/24h (day 1) 30 270",
			"limits.connections.open 5 1 4", "w1 ad 1"} {
			if code != exitDone || !strings.Contains(out, want) {
				t.Errorf("code %d, no %q in\n%s%s", code, want, out, errs)
			}
		}
	})
}

// A relay that refuses connections is shown, and forgotten on demand.
func TestLimitsReset(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), limits: someLimits})
	cfg, err := config.Load(r.file, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: srv.Addr(), ContextTimeoutEnabled: true})
	defer rdb.Close()
	onFleet(t, rdb, cfg, func(ctx context.Context, b *throttle.Budget) {
		lease, err := b.Connect(ctx, "ad")
		if err != nil {
			t.Error(err)
			return
		}
		lease.Refused(throttle.Refusal{Why: "421 4.7.0 come back later"})
		lease.Release()
		eventually(t, "the refusal is known", func() bool { return len(shownLimits(t, r).Breakers) == 1 })
		if g := shownLimits(t, r).Breakers[0]; g.Stream != "ad" || g.State == "closed" || g.Since == "" || g.Next == "" || g.Why != "421 4.7.0 come back later" || g.Refusals != 1 {
			t.Errorf("%+v", g)
		}
		if code, out, errs := r.run(ctx, "limits", "show"); code != exitDone || !strings.Contains(out, "421 4.7.0 come back later") {
			t.Errorf("code %d: %s%s", code, out, errs)
		}
		if code, _, errs := r.run(ctx, "limits", "reset"); code != exitUsage || !strings.Contains(errs, "--yes does it without asking") {
			t.Errorf("nobody to ask: code %d: %s", code, errs)
		}
		if len(shownLimits(t, r).Breakers) != 1 {
			t.Error("forgotten without a yes")
		}
		if code, out, errs := r.run(ctx, "limits", "reset", "--yes", "--json"); code != exitDone || !strings.Contains(out, `"reset":true`) {
			t.Errorf("code %d: %s%s", code, out, errs)
		}
		if b := shownLimits(t, r).Breakers; len(b) != 0 {
			t.Errorf("still there: %+v", b)
		}
	})
}

// What the relay has shown is printed, and goes into a plan.
func TestLearned(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	l := throttle.Learned{
		Rates: []throttle.LearnedRate{
			{Cap: 41.26, Limit: 45, State: "settled", Since: at, Told: at, Probe: at.Add(time.Minute)},
			{Group: "naver", Cap: 5, State: "climbing", Since: at, Told: at},
			{Group: "nate", State: "free"},
		},
		Open: throttle.LearnedCount{Cap: 3, State: "settled", Since: at},
	}
	if c := caps(l); c != (throttle.Caps{Rate: 41.26, Open: 3}) {
		t.Errorf("%+v", c)
	}
	var out bytes.Buffer
	a := &app{stdio: stdio{out: &out}}
	if err := a.printLimits(limitsJSON{Learned: newLearnedJSON(l)}); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"messages per second 41.3 settled 2026-11-22T09:00:00Z 2026-11-22T09:01:00Z", "messages per second naver 5 climbing",
		"connections open 3 settled",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "nate") || strings.Contains(text, "messages per connection") {
		t.Errorf("what was not learned is in %s", text)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{"yes\n": "", " yes ": "", "y\n": "nothing was changed", "\n": "nothing was changed", "": "nobody to ask"} {
		var errs bytes.Buffer
		a := &app{stdio: stdio{in: strings.NewReader(answer), err: &errs}}
		err := a.confirm("Really?")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || errs.String() != "Really? Type yes: " {
			t.Errorf("%q: %v, asked %q", answer, err, errs.String())
		}
	}
}

func TestLimitsUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"limits", "shwo"}, {"limits", "show", "ad"}, {"limits", "reset", "now"}} {
		if code, _, errs := sluice(t, nowhere, args...); code != exitUsage {
			t.Errorf("%q: code %d: %s", args, code, errs)
		}
	}
	if code, _, errs := sluice(t, nowhere, "limits", "show"); code != exitFailed || !strings.Contains(errs, "read budget") {
		t.Errorf("no Redis: code %d: %s", code, errs)
	}
	for _, args := range [][]string{{"limits", "show"}, {"limits", "reset", "--yes"}} {
		if code, _, errs := sluice(t, "redis: {url: embedded}", args...); code != exitUsage || !strings.Contains(errs, "which keeps nothing") {
			t.Errorf("%q, embedded: code %d: %s", args, code, errs)
		}
	}
}
