package main

import (
	"fmt"
	"time"
)

// flatPoint is one size of campaign and what a mail cost in it.
type flatPoint struct {
	recipients           int
	worker, redis, relay series
	rate                 series
	peak                 float64
}

// flat measures cost a mail from small to large campaigns. The small ones are sent
// several times over, so that all are read off as many mails.
func (b *bench) flat() error {
	var rows [][]string
	for _, part := range []int{100, 10, 1} {
		p := flatPoint{recipients: b.large / part}
		for range min(3, part) {
			if err := b.flatRun(&p, max(1, part/10)); err != nil {
				return fmt.Errorf("%d recipients: %w", p.recipients, err)
			}
		}
		b.progress("%d recipients: %.1f µs", p.recipients, p.worker.median())
		rows = append(rows, []string{number(float64(p.recipients), 0), p.rate.show(0), p.worker.show(1), p.redis.show(1), p.relay.show(1), number(p.peak/1e6, 0)})
	}
	b.table([]string{"recipients", "messages/s", "CPU µs/message: worker", "Redis", "relay", "worker's peak memory, MB"}, rows)
	b.printf("\n10 connections, mails of 10 KB, plaintext, real Redis with AOF everysec. From the commit of a campaign to its last reply, start and tail included; " +
		"the small ones several times over with one worker.\n")
	return nil
}

// flatRun sends to a list of p's size times over, with one worker.
func (b *bench) flatRun(p *flatPoint, times int) error {
	list, err := b.list(p.recipients)
	if err != nil {
		return err
	}
	r, err := b.rig(setup{kind: "sluice", connections: 10})
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.start(10); err != nil {
		return err
	}
	var sum spent
	for i := range times {
		if err := r.enqueue(list, fmt.Sprintf("bench-%d", i)); err != nil {
			return err
		}
		from, err := r.read()
		if err != nil {
			return err
		}
		n := (i + 1) * p.recipients
		if err := r.until(10*time.Minute, "the end", func() bool { return r.accepted() >= n }); err != nil {
			return err
		}
		to, err := r.read()
		if err != nil {
			return err
		}
		one := from.to(to)
		sum.rate, sum.worker, sum.redis, sum.relay = sum.rate+one.rate, sum.worker+one.worker, sum.redis+one.redis, sum.relay+one.relay
	}
	k := float64(times)
	p.rate, p.worker = append(p.rate, sum.rate/k), append(p.worker, sum.worker/k)
	p.redis, p.relay = append(p.redis, sum.redis/k), append(p.relay, sum.relay/k)
	peak, err := peakOf(r.child.pid())
	p.peak = max(p.peak, peak)
	if err != nil {
		return err
	}
	return r.complete(times * p.recipients)
}
