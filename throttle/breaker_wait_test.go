package throttle

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whenever the relay is back, the next probe comes after about half the time that it
// was away, and at most a minute later.
func TestWaitIsHalfTheOutage(t *testing.T) {
	t.Parallel()
	for seed := range 50 * seeds() {
		rnd := rand.New(rand.NewPCG(seed, 5))
		r := report{first: sec, most: time.Minute}
		away := 0.0
		for n := range 40 {
			r.jitter = rnd.Float64()
			us, _ := r.pauses(n + 1)
			pause := float64(us) / 1e6
			// The relay may be back just after a probe. The pause is drawn within a
			// fifth, and so were the ones before it.
			if most := min(1.2+0.75*away, 60); pause > most || pause < 0.8 {
				t.Fatalf("a pause of %.1f s after an outage of %.1f s", pause, away)
			}
			away += pause
		}
	}
	middling := report{first: sec, most: time.Minute, jitter: 0.5}
	away := time.Duration(0)
	for n := range 40 {
		us, _ := middling.pauses(n + 1)
		pause := time.Duration(us) * time.Microsecond
		if most := min(sec+away/2, time.Minute) + time.Millisecond; pause > most {
			t.Errorf("a pause of %v after an outage of %v", pause, away)
		}
		away += pause
	}
}

// A relay that refuses every greeting for a minute costs a fleet of ten at most
// two dials and one a probe; then everyone connects within a few seconds. So it is
// for each login, however many streams use it.
func TestRelayRefusesGreetings(t *testing.T) {
	t.Parallel()
	for name, streams := range map[string][]string{"one stream": {"ad"}, "three streams": {"auth", "normal", "ad"}} {
		t.Run(name, func(t *testing.T) { t.Parallel(); refuseGreetings(t, streams) })
	}
}

func refuseGreetings(t *testing.T, streams []string) {
	synctest.Test(t, func(t *testing.T) {
		v := &virtual{t: t, store: &Memory{}, limits: Limits{Open: 30, New: []Window{{60, time.Minute}}}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		back := time.Now().Add(time.Minute)
		var all, early record
		var wg sync.WaitGroup
		for i := range 10 {
			b := v.budget()
			b.p.Login, b.p.LoginName = func(string) string { return "f" }, oneLogin
			wg.Go(func() {
				for {
					l, err := b.Connect(ctx, streams[i%len(streams)])
					if err != nil {
						return
					}
					nap(ctx, 50*time.Millisecond)
					all.add(time.Now())
					if !time.Now().Before(back) {
						l.Greeted()
						<-ctx.Done()
						return
					}
					early.add(time.Now())
					l.Refused(Refusal{Why: "421 4.3.2 busy"})
					l.Release()
				}
			})
		}
		wg.Wait()
		// Two, and probes after pauses of 0.8 to 1.2 times 1, 1.5, 2.25, ... s.
		if n := early.len(); n < 8 || n > 2+10 {
			t.Errorf("%d dials in the minute", n)
		}
		if n := all.len() - early.len(); n != 10 {
			t.Errorf("%d of 10 connected when the relay was back", n)
		}
		// Of ten that are left, two at a time dial, and the first of them is the probe.
		found := all.at[early.len()].Sub(back)
		if found > 36*sec {
			t.Errorf("found to be back %v after an outage of a minute, want within 0.6 of it", found)
		}
		t.Logf("%d dials while the relay refused; the first one afterwards came after %v", early.len(), found)
	})
}
