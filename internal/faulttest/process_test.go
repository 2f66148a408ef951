package faulttest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is the program running beside the bench.
type process struct {
	t         testing.TB
	cmd       *exec.Cmd
	out, errs buffer
	done      chan struct{}
	ended     time.Time // once done is closed
}

// start runs the program with further environment, such as "FAULT_OFF=…".
func start(t testing.TB, dir string, env []string, args ...string) *process {
	t.Helper()
	return startAs(t, dir, env, append([]string{program(t)}, args...))
}

func startAs(t testing.TB, dir string, env, argv []string) *process {
	t.Helper()
	p := &process{t: t, done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	// The bench must not leave workers behind, however it ends.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state says it
		p.ended = time.Now()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

// signal sends a signal; one that is gone already is no fault.
func (p *process) signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %v: %v", s, err)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait returns the exit code, -1 where a signal ended it; -2 where it does not end.
func (p *process) wait(patience time.Duration) int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		return -2
	}
}

// frozen reports whether the process is stopped by a signal.
func (p *process) frozen() bool {
	stat, err := os.ReadFile("/proc/" + itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return len(after) > 0 && (after[0] == 'T' || after[0] == 't')
}

// says reports whether the process has written text to standard error.
func (p *process) says(text string) bool { return strings.Contains(p.errs.String(), text) }

// buffer is a bytes.Buffer that may be read while a process writes to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// tail is the end of a log.
func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
