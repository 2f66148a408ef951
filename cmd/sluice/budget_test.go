package main

import (
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
	if code, _, errs := r.run(t.Context(), r.send(r.list(100_000))...); code != exitDone {
		t.Fatal(errs)
	}
	var workers []*process
	for range 4 {
		workers = append(workers, r.start("worker"))
	}
	eventually(t, "the campaign is under way", func() bool { return r.relay.Stats().Messages > 100 })
	for n := range 9 {
		workers[n%4].signal(syscall.SIGKILL)
		workers[n%4].wait()
		workers[n%4] = r.start("worker")
		<-time.After(time.Second) // the load, not a wait for something
	}
	srv.Kill()
	srv.Restart()
	before := r.relay.Stats().Messages
	eventually(t, "mail goes on after Redis came back", func() bool { return r.relay.Stats().Messages > before+messages/4 })
	eventually(t, "a connection is opened after Redis came back", func() bool {
		times := r.relay.Stats().ConnectTimes
		return len(times) > 0 && r.relay.Stats().Messages > before+messages
	})
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
	for _, w := range workers {
		w.signal(syscall.SIGTERM)
	}
	_ = relay.Mail
}
