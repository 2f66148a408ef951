package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/producer"
)

// setup is one way of sending.
type setup struct {
	kind        string // sluice, asynq, bare
	connections int
	tls         bool
	mode        string        // of sluice's connections; "" = the best
	rtt         time.Duration // simulated
	rules       []relay.Rule  // of the relay; nil: it accepts everything
}

// rig is a relay (in this process), a Redis and a sender, fresh for each run.
type rig struct {
	b     *bench
	setup setup
	relay *relay.Server
	redis *redisServer
	child *child
}

// rig starts relay and Redis.
func (b *bench) rig(s setup) (*rig, error) {
	srv, err := relay.Start(relay.Config{
		NoTLS: !s.tls, AuthOptional: !s.tls, RoundTrip: s.rtt, Rules: s.rules,
		NoDigest: true, // it would be two thirds of the relay's work, on the same processor
	})
	if err != nil {
		return nil, err
	}
	rds, err := b.startRedis()
	if err != nil {
		_ = srv.Close()
		return nil, err
	}
	return &rig{b: b, setup: s, relay: srv, redis: rds}, nil
}

func (r *rig) close() {
	if r.child != nil {
		_ = r.child.stdin.Close()
		_ = r.child.cmd.Process.Kill()
		_ = r.child.cmd.Wait()
	}
	r.redis.stop()
	_ = r.relay.Close()
}

// start starts the sender and waits for its connections.
func (r *rig) start(connections int) error {
	port, err := r.port()
	if err != nil {
		return err
	}
	c := childConfig{Kind: r.setup.kind, Redis: r.redis.addr, Port: port, Connections: r.setup.connections, Mode: r.setup.mode}
	if r.setup.tls {
		c.CA = string(r.relay.CAPEM())
	}
	if r.b.profile != "" {
		c.Profile, c.Budget = r.profileFile(), r.budgetFile()
	}
	if r.child, err = r.b.spawn(c); err != nil {
		return err
	}
	return r.until(30*time.Second, "the connections", func() bool { return r.relay.Stats().Open >= int64(connections) })
}

// profileFile is where the sender's CPU profile goes, if one is wanted.
func (r *rig) profileFile() string {
	return filepath.Join(r.b.profile, fmt.Sprintf("%s-%d-tls-%t.pprof", r.setup.kind, r.setup.connections, r.setup.tls))
}

// budgetFile is where it says what its budget counted.
func (r *rig) budgetFile() string { return r.profileFile() + ".budget.json" }

// port is the relay's.
func (r *rig) port() (int, error) {
	_, port, err := net.SplitHostPort(r.relay.Addr())
	if err != nil {
		return 0, fmt.Errorf("relay: %w", err)
	}
	return strconv.Atoi(port)
}

// stop ends the sender cleanly.
func (r *rig) stop() error {
	c := r.child
	r.child = nil
	return c.stop()
}

// enqueue puts the people of a list into the queue.
func (r *rig) enqueue(list, name string) error {
	if r.setup.kind == "asynq" {
		_, err := enqueueEach(r.b.ctx, r.redis.rdb, list)
		return err
	}
	q, err := r.redis.open()
	if err != nil {
		return err
	}
	defer q.Close()
	req, err := wireLetter().request(name, list)
	if err != nil {
		return err
	}
	_, err = producer.Send(r.b.ctx, q, req)
	return err
}

// until polls cond.
func (r *rig) until(limit time.Duration, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(r.b.ctx, limit)
	defer cancel()
	for !cond() {
		if pause(ctx, 2*time.Millisecond) != nil {
			return fmt.Errorf("waited %v for %s; the relay has accepted %d", limit, what, r.accepted())
		}
	}
	return nil
}

func (r *rig) accepted() int { return int(r.relay.Stats().Messages) }

// reading is what all parts have done and used at one moment.
type reading struct {
	at                   time.Time
	messages             int
	worker, redis, relay time.Duration // processor time
}

func (r *rig) read() (reading, error) {
	now := reading{at: time.Now(), messages: r.accepted()}
	var err error
	if now.worker, err = cpuOf(r.child.pid()); err != nil {
		return now, err
	}
	if now.redis, err = cpuOf(r.redis.pid()); err != nil {
		return now, err
	}
	now.relay, err = cpuOf(os.Getpid())
	return now, err
}

// spent is what happened between two readings.
type spent struct {
	rate                 float64 // messages a second
	worker, redis, relay float64 // µs of processor time a message
	length               time.Duration
}

func (from reading) to(end reading) spent {
	n, length := float64(end.messages-from.messages), end.at.Sub(from.at)
	us := func(a, b time.Duration) float64 { return float64((b - a).Microseconds()) / n }
	return spent{n / length.Seconds(), us(from.worker, end.worker), us(from.redis, end.redis), us(from.relay, end.relay), length}
}

// measure sends to n people and reads a window of it, after the first tenth and
// before the last: neither the start nor the tail says anything about the rate. The
// bare sender has no end, only a start.
func (b *bench) measure(s setup, n int) (spent, error) {
	r, err := b.rig(s)
	if err != nil {
		return spent{}, err
	}
	defer r.close()
	if err := r.fill(n); err != nil {
		return spent{}, err
	}
	begin, last := n/10, n*9/10
	if s.kind == "bare" {
		begin, last = r.accepted()+n/10, math.MaxInt
	}
	if err := r.until(time.Minute, "the first mails", func() bool { return r.accepted() >= begin }); err != nil {
		return spent{}, err
	}
	from, err := r.read()
	if err != nil {
		return spent{}, err
	}
	end := func() bool { return time.Since(from.at) >= b.window || r.accepted() >= last }
	if err := r.until(10*time.Minute, "the window", end); err != nil {
		return spent{}, err
	}
	to, err := r.read()
	if err != nil {
		return spent{}, err
	}
	if s.kind == "bare" {
		return from.to(to), r.stop()
	}
	return from.to(to), r.complete(n)
}

// fill starts the sender with n people to send to. The worker has its connections
// open before; the obvious program opens them as it starts, with its queue full.
func (r *rig) fill(n int) error {
	if r.setup.kind == "bare" {
		return r.start(r.setup.connections)
	}
	list, err := r.b.list(n)
	if err != nil {
		return err
	}
	if r.setup.kind == "asynq" {
		if err := r.enqueue(list, ""); err != nil {
			return err
		}
		return r.start(r.setup.connections)
	}
	if err := r.start(r.setup.connections); err != nil {
		return err
	}
	return r.enqueue(list, "bench")
}

// complete waits for the rest, ends the sender, and wants every mail accepted once.
func (r *rig) complete(n int) error {
	if err := r.until(10*time.Minute, "the end", func() bool { return r.accepted() >= n }); err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return err
	}
	if got := r.accepted(); got != n {
		return fmt.Errorf("%d mails for %d people", got, n)
	}
	return nil
}
