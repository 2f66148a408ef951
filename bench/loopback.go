package main

import (
	"fmt"
	"time"
)

// loopback compares the whole way with the obvious program and with a bare sender.
func (b *bench) loopback() error {
	type group struct {
		connections int
		tls         bool
	}
	for _, g := range []group{{10, false}, {100, false}, {10, true}, {100, true}} {
		setups := []setup{
			{kind: "sluice", connections: g.connections, tls: g.tls},
			{kind: "asynq", connections: g.connections, tls: g.tls},
			{kind: "bare", connections: g.connections, tls: g.tls},
		}
		all, err := b.inTurn(setups)
		if err != nil {
			return err
		}
		wire := "plaintext"
		if g.tls {
			wire = "STARTTLS and AUTH"
		}
		b.printf("\n%d connections, %s:\n\n", g.connections, wire)
		var rows [][]string
		for i, name := range []string{"sluice", "baseline: asynq, html/template, go-smtp", "bare pipelined sender, constant mail"} {
			f := all[i]
			redis := f.redis.show(1)
			if setups[i].kind == "bare" {
				redis = "–" // it idles
			}
			rows = append(rows, []string{name, f.rate.show(0), f.rate.over(all[1].rate).show(2), f.rate.over(all[2].rate).show(2),
				f.worker.show(1), redis, f.relay.show(1), f.total.show(1)})
		}
		b.table([]string{"", "messages/s", "÷ baseline", "÷ bare", "CPU µs/message: sender", "Redis", "relay", "all"}, rows)
	}
	b.printf("\nMails of 10 KB, rendered for each recipient; real Redis with AOF everysec; ledger and budget on. Median (least–most) of %d runs, "+
		"windows of %v, in turn, ratios run by run. Sender, Redis and relay share the machine's cores, so the rate follows the CPU time of all together. The relay takes no SHA-256 of what it accepts.\n", b.runs, b.window)
	return nil
}

// figures are those of one setup over the runs.
type figures struct{ rate, worker, redis, relay, total series }

func (f *figures) add(m spent) {
	f.rate, f.worker = append(f.rate, m.rate), append(f.worker, m.worker)
	f.redis, f.relay = append(f.redis, m.redis), append(f.relay, m.relay)
	f.total = append(f.total, m.worker+m.redis+m.relay)
}

// inTurn runs the setups one after the other, again and again. The first turn tells
// how many mails fill a window and is not counted.
func (b *bench) inTurn(setups []setup) ([]figures, error) {
	out, sizes := make([]figures, len(setups)), make([]int, len(setups))
	for run := range b.runs + 1 {
		for i, s := range setups {
			n := sizes[i]
			if run == 0 {
				n = b.first(s)
			}
			m, err := b.measure(s, n)
			for err == nil && run > 0 && m.length < b.window {
				// Faster than before: once more, with as many as it takes.
				b.progress("a window of %v only; again with more mails", m.length.Round(time.Millisecond))
				n *= 2
				sizes[i] = n
				m, err = b.measure(s, n)
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %d connections, TLS %t: %w", s.kind, s.connections, s.tls, err)
			}
			if run == 0 {
				// The window lies within four fifths of the mails.
				sizes[i] = max(1000, int(m.rate*b.window.Seconds()*1.25*1.3)/1000*1000)
				continue
			}
			out[i].add(m)
		}
		if run > 0 {
			b.progress("run %d of %d: %.0f, %.0f, %.0f messages/s", run, b.runs, out[0].rate[run-1], out[1].rate[run-1], out[2].rate[run-1])
		}
	}
	return out, nil
}

// first is how many mails the uncounted turn sends.
func (b *bench) first(s setup) int {
	n := 20_000
	if s.kind == "asynq" {
		n = 4_000
	}
	if b.quick {
		n /= 4
	}
	return n
}
