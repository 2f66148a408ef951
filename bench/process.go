package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// childCommand starts this program as one of its own children.
const childCommand = "-child"

// childConfig is what a child is told, as JSON in its only argument.
type childConfig struct {
	Kind        string // sluice, asynq, bare
	Redis       string
	Port        int
	CA          string // PEM; "" = no TLS
	Connections int
	Mode        string // pipelined, group, lock-step
	Profile     string // file for a CPU profile, "" = none
	Budget      string // file for what a worker's budget counted, "" = none
}

// child is a running sender.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// spawn starts a child and waits until it is ready.
func (b *bench) spawn(c childConfig) (*child, error) {
	path, err := executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	cmd := exec.Command(path, childCommand, string(text))
	cmd.Stderr = b.err
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	ch := &child{cmd, stdin}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("child %s did not start", c.Kind), ch.stop())
	}
	return ch, nil
}

// stop lets the child end cleanly.
func (c *child) stop() error {
	_ = c.stdin.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("child: %w", err)
	}
	return nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// runChild is a child's main function. It works until its parent closes its
// standard input.
func runChild(ctx context.Context, arg string, in io.Reader, out io.Writer) error {
	var c childConfig
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return fmt.Errorf("child: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	stop, err := startProfile(c.Profile)
	if err != nil {
		return err
	}
	defer stop()
	ready := func() { fmt.Fprintln(out, "ready") }
	switch c.Kind {
	case "sluice":
		return runWorker(ctx, c, ready)
	case "asynq":
		return runObvious(ctx, c, ready)
	case "bare":
		return runBare(ctx, c, ready)
	}
	return fmt.Errorf("child %q: want sluice, asynq or bare", c.Kind)
}

// cpuOf is the processor time a process has used, its ended threads included.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cpu time: %w", err)
	}
	// The name in parentheses may hold anything.
	_, rest, ok := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("cpu time: /proc/%d/stat: %q", pid, text)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("cpu time: %w", err)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	return time.Duration(user+system) * tick, nil
}

// peakOf is the most memory a process has had resident, in bytes.
func peakOf(pid int) (float64, error) {
	var kb float64
	if _, err := fmt.Sscan(field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM"), &kb); err != nil {
		return 0, fmt.Errorf("peak memory: %w", err)
	}
	return kb * 1024, nil
}
