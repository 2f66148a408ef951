package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDelayLine: bytes are late, not commands: a group costs one round trip however many
// commands are in it, with and without TLS. Round trips are counted, not timed.
func TestDelayLine(t *testing.T) {
	t.Parallel()
	for _, implicit := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", implicit), func(t *testing.T) {
			t.Parallel()
			s := start(t, Config{RoundTrip: 4 * time.Millisecond, Implicit: implicit})
			c := dial(t, s)
			if implicit {
				c.overTLS(s)
			}
			c.want("220 ")
			c.login("K")
			before := s.Stats().RoundTrips
			body := strings.Repeat(strings.Repeat("z", 76)+"\r\n", 1000) // more than a TLS record
			c.send(envelope("first@example.com"))
			c.want("250 ", "250 ", "354 ")
			const n = 20
			for i := range n {
				c.send(body + ".\r\n" + envelope(fmt.Sprintf("to%d@example.com", i)))
				c.want("250 2.0.0", "250 ", "250 ", "354 ")
			}
			c.send(body + ".\r\nQUIT\r\n")
			c.want("250 ", "221 ")
			c.wantEnd("")
			st := s.Stats()
			if got := st.RoundTrips - before; got != n+2 {
				t.Errorf("%d round trips for %d messages in %d groups, want %d", got, n+1, n+2, n+2)
			}
			if st.Messages != n+1 || st.MaxCommandsInGroup != 4 {
				t.Errorf("%d messages, at most %d commands together", st.Messages, st.MaxCommandsInGroup)
			}
		})
	}
}

// TestDelayLineIsLate: nothing comes back sooner than the round trip. (A lower bound holds
// on any machine, however busy.)
func TestDelayLineIsLate(t *testing.T) {
	t.Parallel()
	const trip = 200 * time.Millisecond
	c := dial(t, start(t, Config{RoundTrip: trip, Rules: []Rule{{Stage: Rset, Action: Drop}}}))
	c.want("220 ")
	begin := time.Now()
	c.send("NOOP\r\n")
	c.want("250 ")
	if took := time.Since(begin); took < trip {
		t.Errorf("answered in %v, sooner than the round trip of %v", took, trip)
	}
	begin = time.Now()
	c.send("RSET\r\n")
	c.wantEnd("")
	if took := time.Since(begin); took < trip {
		t.Errorf("ended in %v, sooner than the round trip of %v", took, trip)
	}
}

// TestDelayLineEnds: QUIT's reply arrives before the end, a reset does too, and Close does
// not wait for bytes on their way.
func TestDelayLineEnds(t *testing.T) {
	t.Parallel()
	s := start(t, Config{RoundTrip: 2 * time.Millisecond, Rules: []Rule{{Stage: Noop, Action: Reset}}})
	c := dial(t, s)
	c.want("220 ")
	c.send("QUIT\r\n")
	c.want("221 ")
	c.wantEnd("")
	c = dial(t, s)
	c.want("220 ")
	c.send("NOOP\r\n")
	c.wantEnd("")

	far := start(t, Config{RoundTrip: time.Hour})
	dial(t, far).send("EHLO x\r\n")
	until(t, "the connection is there", func() bool { return far.Stats().Connections == 1 })
	if err := far.Close(); err != nil { // would take half an hour
		t.Error(err)
	}
}

func TestDelayLineKeepsDeadlines(t *testing.T) {
	t.Parallel()
	s := start(t, Config{RoundTrip: 2 * time.Millisecond, IdleTimeout: 20 * time.Millisecond})
	c := dial(t, s)
	c.want("220 ", "421 4.4.2")
	c.wantEnd("")
}
