package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/queue"
)

// redisServer is a redis-server child with AOF everysec, as it would be run in
// production, and no data.
type redisServer struct {
	addr string
	dir  string
	cmd  *exec.Cmd
	rdb  *redis.Client
}

func (b *bench) startRedis() (*redisServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	addr := l.Addr().String()
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	dir, err := os.MkdirTemp(b.dir, "redis-*")
	if err != nil {
		return nil, fmt.Errorf("redis directory: %w", err)
	}
	cmd := exec.CommandContext(b.ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--daemonize", "no")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start redis-server (./scripts/test installs it): %w", err)
	}
	s := &redisServer{addr, dir, cmd, redis.NewClient(&redis.Options{Addr: addr})}
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	for s.rdb.Ping(ctx).Err() != nil {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			s.stop()
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
		}
	}
	return s, nil
}

func (s *redisServer) stop() {
	_ = s.rdb.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // killed: its error says nothing
	_ = os.RemoveAll(s.dir)
}

func (s *redisServer) pid() int { return s.cmd.Process.Pid }

// open opens the program's queue on the server.
func (s *redisServer) open() (*queue.Queue, error) {
	return queue.Open(queue.Options{Connection: queue.Connection{Addrs: []string{s.addr}}})
}

// info returns one numeric field of INFO.
func (s *redisServer) info(ctx context.Context, section, name string) (float64, error) {
	text, err := s.rdb.Info(ctx, section).Result()
	if err != nil {
		return 0, fmt.Errorf("redis info: %w", err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("redis info: no %s", name)
}

// used is used_memory once it has come to rest: buffers of the append-only file and
// of clients come and go.
func (s *redisServer) used(ctx context.Context) (float64, error) {
	least := 0.0
	for range 10 {
		v, err := s.info(ctx, "memory", "used_memory")
		if err != nil {
			return 0, err
		}
		if least == 0 || v < least {
			least = v
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return least, nil
}

// pause waits for d, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
