package worker

import (
	"context"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// idleLane is the part of a lane that decides about taking jobs.
func idleLane(warm int) *lane {
	return &lane{stream: mail.Auth, sc: Stream{Warm: warm}, shared: shared{fleet: newFleet("m", nil)}, feed: &feed{wake: make(chan struct{})}}
}

// Whoever has no connection leaves the jobs to those that have some.
func TestWhoTakesJobs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		warm    int
		holders map[string]int
		open    bool // a connection of ours
		rest    time.Duration
		want    bool
	}{
		"nobody has a connection":         {warm: 2, want: true},
		"others have":                     {warm: 2, holders: map[string]int{"a": 1}},
		"others have, we too":             {warm: 2, holders: map[string]int{"a": 1, "m": 1}, open: true, want: true},
		"nothing is kept open":            {holders: map[string]int{"a": 1}, want: true},
		"nothing is kept, we had no luck": {holders: map[string]int{"a": 1}, rest: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := idleLane(tc.warm)
			if tc.open {
				l.leases = append(l.leases, &held{greeted: true})
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l.fleet.see(holding(0, tc.holders), nil, time.Now())
			if !tc.want { // then it waits, whatever it sees, and ends with ctx
				go func() {
					for range 3 {
						l.fleet.see(holding(0, tc.holders), nil, time.Now())
					}
					cancel()
				}()
			}
			if got := l.awaitUse(ctx, tc.rest); got != tc.want {
				t.Errorf("takes jobs: %t, want %t", got, tc.want)
			}
		})
	}
}

// A connection is opened for mail, or because the fleet keeps too few; not because each
// worker wants its own.
func TestWhoDials(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		warm    int
		holders map[string]int
		taking  bool
		works   int
		want    error
	}{
		"the fleet keeps too few":          {warm: 2, holders: map[string]int{"a": 1}},
		"the fleet keeps enough":           {warm: 2, holders: map[string]int{"a": 2}, taking: true, want: context.Canceled},
		"there is mail":                    {warm: 2, holders: map[string]int{"a": 2}, taking: true, works: 1},
		"nothing is kept":                  {holders: map[string]int{"a": 2}, taking: true},
		"jobs are left to others":          {holders: map[string]int{"a": 2}, want: context.Canceled},
		"jobs are left, and one came late": {warm: 2, holders: map[string]int{"a": 2}, works: 1, want: errLeft},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := idleLane(tc.warm)
			l.taking = tc.taking
			l.feed.works = make([]*work, tc.works)
			for i := range l.feed.works {
				l.feed.works[i] = &work{inFlight: 1}
			}
			l.fleet.see(holding(0, tc.holders), nil, time.Now())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- l.awaitNeed(ctx) }()
			if tc.want == context.Canceled {
				cancel()
			} else if tc.want != nil {
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
							l.fleet.see(holding(0, tc.holders), nil, time.Now())
						}
					}
				}()
			}
			if err := <-done; err != tc.want {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// clock is a ledger that tells the time.
type clock struct {
	ledger
	now time.Time
}

func (c clock) Now() int64 { return c.now.UnixMilli() }

// What waits for a connection is given back when the first of those at hand expires.
func TestExpiresIn(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	aged := func(ages ...time.Duration) (works []*work) {
		for _, age := range ages {
			works = append(works, &work{claim: &queue.Claim{Campaign: &queue.Campaign{Created: now.Add(-age)}}})
		}
		return works
	}
	for name, tc := range map[string]struct {
		ttl     time.Duration
		works   []*work
		left    time.Duration
		expires bool
	}{
		"nothing at hand":     {ttl: time.Minute},
		"nothing ever does":   {works: aged(time.Hour)},
		"the oldest decides":  {ttl: time.Minute, works: aged(10*time.Second, 40*time.Second, 0), left: 20 * time.Second, expires: true},
		"one is over already": {ttl: time.Minute, works: aged(61 * time.Second), left: -time.Second, expires: true},
	} {
		f := &feed{conf: Stream{TTL: tc.ttl}, ledger: clock{now: now}, works: tc.works}
		if left, expires := f.expiresIn(); left != tc.left || expires != tc.expires {
			t.Errorf("%s: %v, %t; want %v, %t", name, left, expires, tc.left, tc.expires)
		}
	}
}
