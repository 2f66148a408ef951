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
	resident             [3]float64 // bytes, at the marks of memoryAt
	warm                 int        // the first of these marks after warmUp
}

// memoryAt are the shares of a campaign, in percent, after which a worker's memory is read.
func memoryAt() [3]int { return [3]int{10, 50, 100} }

// A worker keeps what it has recorded in its last ten seconds, for a Redis that loses its
// own: for that long its memory grows. From then on it may grow by a quarter up to the
// campaign's end, which is more than the collector's ups and downs.
const (
	warmUp     = 10 * time.Second
	mostGrowth = 1.25
)

// flat measures cost a mail from small to large campaigns. The small ones are sent
// several times over, so that all are read off as many mails.
func (b *bench) flat() error {
	var rows [][]string
	var last flatPoint
	for _, part := range []int{100, 10, 1} {
		p := flatPoint{recipients: b.large / part}
		for range min(3, part) {
			if err := b.flatRun(&p, max(1, part/10)); err != nil {
				return fmt.Errorf("%d recipients: %w", p.recipients, err)
			}
		}
		last = p
		b.progress("%d recipients: %.1f µs", p.recipients, p.worker.median())
		rows = append(rows, []string{number(float64(p.recipients), 0), p.rate.show(0), p.worker.show(1), p.redis.show(1), p.relay.show(1), number(p.peak/1e6, 0),
			number(p.resident[0]/1e6, 0), number(p.resident[1]/1e6, 0), number(p.resident[2]/1e6, 0)})
	}
	b.table([]string{"recipients", "messages/s", "CPU µs/message: worker", "Redis", "relay", "worker's peak memory, MB", "resident after 10 %", "50 %", "100 %"}, rows)
	b.printf("\n10 connections, mails of 10 KB, plaintext, real Redis with AOF everysec. From the commit of a campaign to its last reply, start and tail included; " +
		"the small ones several times over with one worker. Memory grows for the ten seconds whose outcomes a worker keeps.\n")
	if first, end := last.resident[last.warm], last.resident[2]; end > mostGrowth*first {
		return fmt.Errorf("a worker's memory is not flat: %.0f MB resident after %d %% of %d recipients, %.0f MB at the end",
			first/1e6, memoryAt()[last.warm], last.recipients, end/1e6)
	}
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
		if err := r.watchMemory(p, i*p.recipients); err != nil {
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

// watchMemory waits for the end of a campaign that began after so many mails, and reads
// the worker's memory on the way.
func (r *rig) watchMemory(p *flatPoint, begun int) error {
	start := time.Now()
	p.warm = len(p.resident) - 1
	for i, percent := range memoryAt() {
		n := begun + p.recipients*percent/100
		if err := r.until(10*time.Minute, fmt.Sprintf("%d %% of the mails", percent), func() bool { return r.accepted() >= n }); err != nil {
			return err
		}
		var kb float64
		if _, err := fmt.Sscan(field(fmt.Sprintf("/proc/%d/status", r.child.pid()), "VmRSS"), &kb); err != nil {
			return fmt.Errorf("resident memory: %w", err)
		}
		p.resident[i] = kb * 1024
		if time.Since(start) >= warmUp {
			p.warm = min(p.warm, i)
		}
	}
	return nil
}
