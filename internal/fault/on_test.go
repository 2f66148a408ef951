//go:build faults

package fault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	env := map[string]string{"FAULT_POINTS": "a.b=kill@3;c/x@y.z=hang;d=kill%99@2;e=20ms", "FAULT_OFF": "one;two", "FAULT_SCALE": "60", "FAULT_DNS": "h:1"}
	p, err := parse(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if a := p.points["a.b"][0]; a.action != "kill" || a.at != 3 {
		t.Errorf("%+v", a)
	}
	if c := p.points["c"][0]; c.action != "hang" || c.at != 1 || c.key != "x@y.z" {
		t.Errorf("%+v", c)
	}
	if d := p.points["d"][0]; d.share != 99 || d.at != 2 {
		t.Errorf("%+v", d)
	}
	if e := p.points["e"][0]; e.action != "wait" || e.wait != 20*time.Millisecond {
		t.Errorf("%+v", e)
	}
	if !p.off["one"] || !p.off["two"] || p.off["three"] || p.scale != 60 || p.dns != "h:1" {
		t.Errorf("%+v", p)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{
		{"FAULT_POINTS": "a"}, {"FAULT_POINTS": "a=explode@1"}, {"FAULT_POINTS": "a=kill@0"}, {"FAULT_POINTS": "=kill@1"},
		{"FAULT_POINTS": "a=kill%200@1"}, {"FAULT_SCALE": "0"}, {"FAULT_SCALE": "x"},
	} {
		if _, err := parse(func(k string) string { return env[k] }); err == nil {
			t.Errorf("%v is taken", env)
		}
	}
}

// Each action ends the process as it says, at the pass it says, and tells first.
func TestActions(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAULT_POINTS") != "" { // the child
		for range 3 {
			HereFor("here", "other")
			HereFor("here", "key")
			Part("part", []byte("0123456789"), os.Stdout.Write)
			os.Stdout.WriteString(".")
		}
		return
	}
	for _, c := range []struct {
		points, out string
		signal      syscall.Signal
	}{
		{"here/key=kill@2", ".", syscall.SIGKILL},
		{"part=kill%40@3", "..0123", syscall.SIGKILL},
		{"here=abort@6", "..", 0},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=TestActions$")
		cmd.Env = append(os.Environ(), "FAULT_POINTS="+c.points)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, _ := cmd.Output()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if string(out) != c.out || !strings.HasPrefix(errs.String(), "fault: ") || cmd.ProcessState.Success() ||
			c.signal != 0 && status.Signal() != c.signal {
			t.Errorf("%s: %v, out %q, told %.60q", c.points, cmd.ProcessState, out, errs.String())
		}
	}
}

// A process that is asked how many goroutines it has says so, each time.
func TestCount(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAULT_COUNT") != "" { // the child
		Here("anywhere")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestCount$")
	cmd.Env = append(os.Environ(), "FAULT_COUNT=1")
	in, err1 := cmd.StdinPipe()
	told, err2 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(told)
	for n := range 3 {
		if !lines.Scan() {
			t.Fatal("nothing is told")
		}
		var goroutines int
		if _, err := fmt.Sscanf(lines.Text(), "fault: %d goroutines", &goroutines); n > 0 && (err != nil || goroutines < 2) {
			t.Errorf("told %q", lines.Text())
		}
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Error(err)
		}
	}
	_ = in.Close()
	_, _ = io.Copy(io.Discard, told)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
