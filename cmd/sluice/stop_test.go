package main

import (
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// In mid-campaign the relay refuses the login, to a new connection or in the middle of a
// mail. All that use it stop within a second, those whose connections still work among
// them: at 500 mails a second, no more than 500 begin after the first refusal.
func TestLoginRefusedStopsStream(t *testing.T) {
	t.Parallel()
	const n, perSecond = 6000, 500
	for name, rule := range map[string]relay.Rule{
		"AUTH": {Stage: relay.Auth, Stream: "ad", Reply: "535 5.7.8 Authentication failed"},
		"DATA": {Stage: relay.Data, Stream: "ad", Reply: "530 5.7.0 Authentication required"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			r := newRig(t, rigOptions{
				redis: srv.URL(), relay: relay.Config{RoundTrip: 20 * time.Millisecond}, // so that several connections are at it
				// Connections that end soon, so that there are logins all the time.
				limits: "limits: {messages: [500/1s], connections: {open: 10, new: 6000/1m}, per_connection: {messages: 50}}\n",
			})
			r.start("worker")
			r.start("worker")
			if code, _, errs := r.run(t.Context(), r.send(r.list(n))...); code != exitDone {
				t.Fatal(errs)
			}
			eventually(t, "it is under way", func() bool { return r.relay.Stats().Messages > n/6 })
			rule.Name = "refusal"
			if err := r.relay.SetProfile("nhn", rule); err != nil {
				t.Fatal(err)
			}
			code, out, errs := r.run(t.Context(), r.send(r.list(n), "--wait", "--json")...)
			if s := lastJSON(t, out); code != exitHeld || s.Rejected+s.Deferred+s.Unknown > 0 || s.Pending == 0 {
				t.Errorf("%d %+v %s", code, s, tail(errs, 500))
			}
			r.standsStill()
			refused := r.relay.FirstHit("refusal")
			after, last := 0, refused
			for _, b := range r.relay.Begun() {
				if b.Stream == "ad" && b.Time.After(refused) {
					after, last = after+1, b.Time
				}
			}
			if refused.IsZero() || after > perSecond {
				t.Errorf("%d mails began after the first refusal, want at most %d", after, perSecond)
			}
			t.Logf("%d mails of the stream began after the first refusal, the last one %v after it; %d refused",
				after, last.Sub(refused).Round(time.Millisecond), r.relay.Stats().RuleHits["refusal"])
		})
	}
}
