// Package redistest runs a real redis-server as a child process, for tests that
// kill it, freeze it and fill it. It is imported by tests only.
//
// A missing redis-server fails the test: scripts/test installs it, and a test of
// durability that quietly does not run is worth nothing.
package redistest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is one redis-server child with a data directory of its own.
type Server struct {
	t    testing.TB
	dir  string
	addr string
	args []string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// Start runs a server with AOF everysec and noeviction on a free port of
// 127.0.0.1. args are further configuration, such as "--maxmemory", "50mb".
// The server ends with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), addr: freeAddr(t), args: args}
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

// freeAddr asks the kernel for a port. Another process may take it before Redis
// does; Restart would then say so.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Addr is the server's host and port, the same after every restart.
func (s *Server) Addr() string { return s.addr }

// URL is the address in the form of the configuration.
func (s *Server) URL() string { return "redis://" + s.addr + "/0" }

// Dir is the data directory.
func (s *Server) Dir() string { return s.dir }

// Restart starts the server, after Kill or for the first time, on the data it left,
// and returns once it accepts commands.
func (s *Server) Restart() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", s.dir, "--save", "", "--appendonly", "yes",
		"--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--daemonize", "no"}, s.args...)
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(s.dir, "redis.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatalf("redis log: %v", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v (./scripts/test installs it)", err)
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err = ping(s.addr); err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("redis-server does not answer: %v", err)
		}
		wait := time.NewTimer(10 * time.Millisecond)
		<-wait.C
	}
}

func ping(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+PONG") {
		err = fmt.Errorf("answer %q", line)
	}
	return err
}

// Kill ends the server at once, as kill -9 does. Killing a dead one does nothing.
func (s *Server) Kill() {
	s.mu.Lock()
	cmd := s.cmd
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGCONT)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed: its error says nothing
}

// Freeze stops the server's process without ending it; Thaw lets it go on.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatal("redis-server is not running")
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal redis-server: %v", err)
	}
}
