package main

import (
	"bytes"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"time"
)

// distance is the simulated round trip.
const distance = 20 * time.Millisecond

// trip is what one run showed.
type trip struct {
	rate   float64 // messages a second, all connections
	actual float64 // the round trip as it was, in seconds
}

// roundTrips counts messages a round trip and connection, with the real queue,
// ledger and Redis in the path.
func (b *bench) roundTrips() error {
	kinds := []struct {
		name  string
		setup setup
	}{
		{"sluice", setup{kind: "sluice", connections: 1, mode: "pipelined"}},
		{"sluice", setup{kind: "sluice", connections: 10, mode: "pipelined"}},
		{"the same, content and envelope apart", setup{kind: "sluice", connections: 1, mode: "group"}},
		{"the same, lock-step", setup{kind: "sluice", connections: 1, mode: "lock-step"}},
		{"baseline: go-smtp's client, mails at hand", setup{kind: "go-smtp", connections: 1}},
	}
	type result struct{ nominal, actual, rate, away series }
	results := make([]result, len(kinds))
	for run := range b.turns() {
		for i, k := range kinds {
			k.setup.rtt = distance
			t, err := b.trip(k.setup)
			if err != nil {
				return fmt.Errorf("%s, %d connections: %w", k.name, k.setup.connections, err)
			}
			r, each := &results[i], t.rate/float64(k.setup.connections)
			r.rate, r.away = append(r.rate, t.rate), append(r.away, t.actual*1e3)
			r.nominal, r.actual = append(r.nominal, each*distance.Seconds()), append(r.actual, each*t.actual)
		}
		b.progress("run %d of %d: %.3f on one connection, %.3f on each of ten, of %.1f ms", run+1, b.turns(),
			results[0].nominal[run], results[1].nominal[run], results[0].away[run])
	}
	var rows [][]string
	for i, k := range kinds {
		r := results[i]
		rows = append(rows, []string{k.name, strconv.Itoa(k.setup.connections), r.rate.show(1), r.nominal.show(3), r.away.show(1), r.actual.show(3)})
	}
	b.table([]string{"", "connections", "messages/s", "messages in 20 ms and connection", "round trip as it was, ms", "messages a round trip and connection"}, rows)
	b.printf("\nA delay line holds every byte back for %v in either direction. What the machine adds to that, a client beside it measures with NOOP. "+
		"Mails of 10 KB; real Redis with AOF everysec; ledger and budget on; plaintext. Median (least–most) of %d runs of %v, in turn.\n", distance/2, b.turns(), b.patience())
	return nil
}

// turns is fewer than runs: with the processor idle, a rate that the distance sets
// hardly varies.
func (b *bench) turns() int { return min(b.runs, 3) }

// patience is how long a run sends; a distance takes longer to show than a load.
func (b *bench) patience() time.Duration { return b.window * 5 / 3 }

// trip sends for a while and measures the round trip meanwhile.
func (b *bench) trip(s setup) (trip, error) {
	r, err := b.rig(s)
	if err != nil {
		return trip{}, err
	}
	defer r.close()
	if s.kind == "go-smtp" {
		return r.clientTrip()
	}
	want := int(b.patience() / distance)
	n := s.connections * (want + want/2 + 50)
	if err := r.fill(n); err != nil {
		return trip{}, err
	}
	if err := r.until(time.Minute, "the first mails", func() bool { return r.accepted() >= s.connections*10 }); err != nil {
		return trip{}, err
	}
	return r.timed(func(from time.Time) error {
		return r.until(time.Hour, "the window", func() bool {
			return time.Since(from) >= b.patience() || r.accepted() >= n-2*s.connections
		})
	})
}

// clientTrip is the same for go-smtp's client on one connection: no queue, no ledger.
func (r *rig) clientTrip() (trip, error) {
	port, err := r.port()
	if err != nil {
		return trip{}, err
	}
	client, err := childConfig{Port: port}.goClient()
	if err != nil {
		return trip{}, err
	}
	defer client.Close()
	content, err := wireMail()
	if err != nil {
		return trip{}, err
	}
	return r.timed(func(from time.Time) error {
		for time.Since(from) < r.b.patience() {
			if err := client.SendMail(sender, []string{"minjun.kim@naver.example"}, bytes.NewReader(content)); err != nil {
				return err
			}
		}
		return nil
	})
}

// timed measures rate and round trip while f runs.
func (r *rig) timed(f func(from time.Time) error) (trip, error) {
	stop, result := make(chan struct{}), make(chan pings, 1)
	go func() { result <- ping(r.relay.Addr(), stop) }()
	from := time.Now()
	err := f(from)
	to := time.Now()
	close(stop)
	p := <-result
	if err != nil {
		return trip{}, err
	}
	if p.err != nil || p.n == 0 {
		return trip{}, fmt.Errorf("measure the round trip: %d pings: %w", p.n, p.err)
	}
	return trip{r.rateOf(from, to), p.total.Seconds() / float64(p.n)}, nil
}

// rateOf adds up the connections' rates between two times, each from its first to its
// last acceptance: what a window cuts off at its ends is no part of it.
func (r *rig) rateOf(from, to time.Time) float64 {
	type span struct {
		first, last time.Time
		n           int
	}
	spans := map[int]*span{}
	for m := range r.relay.Messages() {
		if m.Time.Before(from) || m.Time.After(to) {
			continue
		}
		sp := spans[m.Conn]
		if sp == nil {
			sp = &span{first: m.Time}
			spans[m.Conn] = sp
		}
		sp.last = m.Time
		sp.n++
	}
	sum := 0.0
	for _, sp := range spans {
		if sp.n > 1 {
			sum += float64(sp.n-1) / sp.last.Sub(sp.first).Seconds()
		}
	}
	return sum
}

// pings are the round trips of a connection that does nothing else.
type pings struct {
	n     int
	total time.Duration
	err   error
}

func ping(addr string, stop <-chan struct{}) (p pings) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return pings{err: err}
	}
	defer nc.Close()
	c := textproto.NewConn(nc)
	if _, _, p.err = c.ReadResponse(220); p.err != nil {
		return p
	}
	for {
		select {
		case <-stop:
			return p
		default:
		}
		start := time.Now()
		if p.err = c.PrintfLine("NOOP"); p.err != nil {
			return p
		}
		if _, _, p.err = c.ReadResponse(250); p.err != nil {
			return p
		}
		p.n++
		p.total += time.Since(start)
	}
}
