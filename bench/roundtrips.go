package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// distance is the simulated round trip.
const distance = 20 * time.Millisecond

// roundTrips counts messages a round trip and connection, with the real queue,
// ledger and Redis in the path.
func (b *bench) roundTrips() error {
	setups := []setup{
		{connections: 1, mode: "pipelined"}, {connections: 10, mode: "pipelined"},
		{connections: 1, mode: "group"}, {connections: 1, mode: "lock-step"},
	}
	var rows [][]string
	for _, s := range setups {
		s.kind, s.rtt = "sluice", distance
		var each, all series
		for range b.turns() {
			per, err := b.perRoundTrip(s)
			if err != nil {
				return fmt.Errorf("%s, %d connections: %w", s.mode, s.connections, err)
			}
			each, all = append(each, per/float64(s.connections)), append(all, per)
		}
		b.progress("%s, %d connections: %.3f", s.mode, s.connections, each.median())
		rows = append(rows, []string{"sluice, " + s.mode, strconv.Itoa(s.connections), each.show(3), all.show(2), number(all.median()/distance.Seconds(), 0)})
	}
	var base series
	for range b.turns() {
		per, err := b.clientRoundTrips()
		if err != nil {
			return fmt.Errorf("baseline: %w", err)
		}
		base = append(base, per)
	}
	rows = append(rows, []string{"baseline: go-smtp's client", "1", base.show(3), base.show(2), number(base.median()/distance.Seconds(), 0)})
	b.table([]string{"", "connections", "messages a round trip and connection", "messages a round trip", "messages/s"}, rows)
	b.printf("\nRound trip %v, kept by a delay line on the bytes. Mails of 10 KB; real Redis with AOF everysec; ledger and budget on; plaintext. "+
		"Time between the first and the last acceptance of each connection, over the round trip. Median (least–most) of %d runs of %v.\n", distance, b.turns(), b.patience())
	return nil
}

// turns is fewer than runs: with the processor idle, a rate that the distance sets
// hardly varies.
func (b *bench) turns() int { return min(b.runs, 3) }

// patience is how long a run sends; a distance takes longer to show than a load.
func (b *bench) patience() time.Duration { return b.window * 5 / 3 }

// perRoundTrip is messages a round trip over all connections.
func (b *bench) perRoundTrip(s setup) (float64, error) {
	r, err := b.rig(s)
	if err != nil {
		return 0, err
	}
	defer r.close()
	want := int(b.patience() / distance)
	n := s.connections * (want + want/2 + 50)
	if err := r.fill(n); err != nil {
		return 0, err
	}
	if err := r.until(time.Minute, "the first mails", func() bool { return r.accepted() >= s.connections*10 }); err != nil {
		return 0, err
	}
	from := time.Now()
	if err := r.until(time.Hour, "the window", func() bool { return time.Since(from) >= b.patience() || r.accepted() >= n-2*s.connections }); err != nil {
		return 0, err
	}
	to := time.Now()
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
			sum += float64(sp.n-1) / (float64(sp.last.Sub(sp.first)) / float64(distance))
		}
	}
	return sum, nil
}

// clientRoundTrips is the same for go-smtp's client on one connection, with the
// mails at hand: no queue, no ledger.
func (b *bench) clientRoundTrips() (float64, error) {
	r, err := b.rig(setup{kind: "go-smtp", rtt: distance})
	if err != nil {
		return 0, err
	}
	defer r.close()
	port, err := r.port()
	if err != nil {
		return 0, err
	}
	client, err := childConfig{Port: port}.goClient()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	content, err := wireMail()
	if err != nil {
		return 0, err
	}
	start, n := time.Now(), 0
	for time.Since(start) < b.patience() {
		if err := client.SendMail(sender, []string{"minjun.kim@naver.example"}, bytes.NewReader(content)); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / (float64(time.Since(start)) / float64(distance)), nil
}
