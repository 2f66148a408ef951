package main

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// A campaign that is done stays so, and one that is cancelled too: a command that would
// change nothing, or only take away what can still be done, is refused.
func TestSteeringWhatIsOver(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	r := newRig(t, rigOptions{redis: srv.URL(), relay: relay.Config{}})
	r.start("worker")
	list := r.list(2)
	if code, _, errs := r.run(t.Context(), r.send(list, "--wait")...); code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	if code, _, errs := r.run(t.Context(), r.send(list, "--name", "later", "--at", "2099-01-01 00:00")...); code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"cancel c1", exitUsage, "c1 is done already; nobody is left to cancel"},
		{"pause c1", exitUsage, "c1 is done already; nothing is left to pause"},
		{"show c1", exitDone, "c1 (stream ad), done"},
		{"retry c1 --only unknown", exitDone, "0 recipients are sent to again now"},
		{"pause later", exitDone, "later: paused"},
		{"resume later", exitDone, "later: resumed"},
		{"cancel later", exitDone, "later: cancelled"},
		{"cancel later", exitDone, "later: cancelled"}, // finishes what was interrupted
		{"pause later", exitUsage, "later: the campaign is cancelled for good"},
		{"resume later", exitUsage, "later: the campaign is cancelled for good"},
		{"list --limit 1", exitDone, "later"},
		{"list --limit 0", exitUsage, "--limit 0: want at least 1"},
		{"list --limit -1", exitUsage, "--limit -1: want at least 1"},
	} {
		code, out, errs := r.run(t.Context(), append([]string{"campaign"}, strings.Fields(tc.args)...)...)
		if code != tc.code || !strings.Contains(out+errs, tc.want) {
			t.Errorf("campaign %s: %d, want %d and %q\n%s%s", tc.args, code, tc.code, tc.want, out, errs)
		}
	}
}

// A wrong password is not told as a Redis that is down.
func TestWrongRedisPassword(t *testing.T) {
	t.Parallel()
	srv := miniredis.RunT(t)
	srv.RequireAuth("right")
	code, _, errs := sluice(t, "redis: {url: \"redis://:wr0ng@"+srv.Addr()+"/0\"}\n", "campaign", "list")
	if code != exitFailed || !strings.Contains(errs, "answers and refuses the login") || strings.Contains(errs, "is it running") || strings.Contains(errs, "wr0ng") {
		t.Errorf("%d %s", code, errs)
	}
}
