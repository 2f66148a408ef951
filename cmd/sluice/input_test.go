package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// stalled is a standard input that says something and then nothing more, while the
// program at its other end lives on.
type stalled struct {
	head  *strings.Reader
	waits chan struct{} // closed once a read waits
	once  sync.Once
	gone  chan struct{} // closed when the other end goes
}

func newStalled(t *testing.T, head string) *stalled {
	s := &stalled{head: strings.NewReader(head), waits: make(chan struct{}), gone: make(chan struct{})}
	t.Cleanup(func() { close(s.gone) })
	return s
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.head.Len() > 0 {
		return s.head.Read(p)
	}
	s.once.Do(func() { close(s.waits) })
	<-s.gone
	return 0, io.EOF
}

// Whoever asks the program to end need not end its input too, and half an input is not
// taken for a whole one or for a wrong one.
func TestInterruptedInput(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: "redis://" + miniredis.RunT(t).Addr()})
	if code, _, errs := r.run(t.Context(), r.send(r.list(1))...); code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	for name, tc := range map[string]struct {
		args []string
		head string
		out  string // what of stdout there is
	}{
		"send":                     {r.send("-", "--name", "c2"), "email,name\na@naver.example,", ""},
		"send, nothing yet":        {r.send("-", "--name", "c3"), "", ""},
		"dry run":                  {r.send("-", "--dry-run"), "email,name\na@naver.example,n\n", ""},
		"campaign verify":          {[]string{"campaign", "verify", "c1", "--to", "-"}, "email,name\n", ""},
		"suppress import":          {[]string{"suppress", "import", "-"}, "email\na@naver.example\nb@", ""},
		"suppress import, dry run": {[]string{"suppress", "import", "-", "--dry-run"}, "em", ""},
		"feedback import":          {[]string{"feedback", "import", "-"}, `{"address":"a@naver.example","status":"delivered"}` + "\n{", ""},
		"feedback import, a word":  {[]string{"feedback", "import", "-", "--dry-run"}, "a", ""},
		"feedback import, a mail":  {[]string{"feedback", "import", "-", "--dry-run"}, "Subject: x\n\nhalf of", ""},
		"verdict":                  {[]string{"verdict", "--file", "-"}, "rcpt\t550\t5.1.1\tNo such user\nrcpt\t55", "suppress  recipient  no-such-user  rcpt 550 5.1.1 No such user  \n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newStalled(t, tc.head)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				select {
				case <-in.waits:
					cancel()
				case <-ctx.Done(): // the command ended without reading so far
				}
			}()
			var out, errs safeBuffer
			code := run(ctx, append(tc.args, "--config", r.file), stdio{in: in, out: &out, err: &errs})
			select {
			case <-in.waits:
			default:
				t.Error("it did not read its input")
			}
			if code != exitFailed || out.String() != tc.out || !strings.HasSuffix(errs.String(), "interrupted\n") || strings.Contains(errs.String(), "closed") {
				t.Errorf("exit code %d, want %d; stdout %q, want %q; stderr %q", code, exitFailed, out.String(), tc.out, errs.String())
			}
		})
	}
}

// The same from outside: a signal ends the program, and no recipients stay in the folder
// for temporary files.
func TestInterruptedSpool(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	dir := t.TempDir()
	p := &process{t: t, done: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], append(r.send("-"), "--config", r.file)...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+dir)
	p.cmd.Stderr = &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	p.cmd.Stdin = in
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code says it
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	if _, err := io.WriteString(w, "email,name\na@naver.example,n\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list is being spooled", func() bool {
		files, _ := filepath.Glob(filepath.Join(dir, "sluice-list-*"))
		if len(files) == 0 {
			return false
		}
		info, err := os.Stat(files[0])
		return err == nil && info.Size() > 0
	})
	p.signal(syscall.SIGTERM)
	if code, errs := p.wait(), p.errs.String(); code != exitFailed || !strings.HasSuffix(errs, "sluice: spool standard input: interrupted\n") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What a shell gives for <(command) can be read once.
func TestPipeAsFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	for name, tc := range map[string]struct {
		args    func(file string) []string
		content string
		out     string
	}{
		"send": {func(f string) []string { return r.send(f, "--dry-run") }, "email,name\na@naver.example,n\n",
			"dry run: 1 rows, 1 would be sent, 0 invalid, 0 duplicate, 0 suppressed; nothing was enqueued\n"},
		"suppress import": {func(f string) []string { return []string{"suppress", "import", f, "--dry-run"} }, "email\na@b.kr\n",
			"dry run: 1 rows, 1 good, 0 bad; nothing was added\n"},
		"verdict": {func(f string) []string { return []string{"verdict", "--file", f} }, "rcpt\t550\t5.1.1\tNo such user\n",
			"suppress  recipient  no-such-user  rcpt 550 5.1.1 No such user  \n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if _, err := io.WriteString(w, tc.content); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			code, out, errs := r.run(t.Context(), tc.args(fmt.Sprintf("/dev/fd/%d", in.Fd()))...)
			if code != exitDone || out != tc.out {
				t.Errorf("exit code %d, stdout %q, want %q; stderr %q", code, out, tc.out, errs)
			}
		})
	}
}

// A folder where a file is wanted is the caller's mistake. (Feedback is read from folders.)
func TestDirectoryAsFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{redis: "redis://" + miniredis.RunT(t).Addr()})
	if code, _, errs := r.run(t.Context(), r.send(r.list(1))...); code != exitDone {
		t.Fatalf("%d %s", code, errs)
	}
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"send":            r.send(dir, "--name", "c2"),
		"dry run":         r.send(dir, "--dry-run"),
		"campaign verify": {"campaign", "verify", "c1", "--to", dir},
		"suppress import": {"suppress", "import", dir},
		"verdict":         {"verdict", "--file", dir},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := r.run(t.Context(), args...)
			if code != exitUsage || out != "" || !strings.Contains(errs, dir+" is a directory: want a file") {
				t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, exitUsage, out, errs)
			}
		})
	}
	t.Run("standard input", func(t *testing.T) {
		t.Parallel()
		in, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		var out, errs safeBuffer
		code := run(t.Context(), append(r.send("-", "--dry-run"), "--config", r.file), stdio{in: in, out: &out, err: &errs})
		if code != exitUsage || out.String() != "" || !strings.Contains(errs.String(), "standard input is a directory: want a file") {
			t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, exitUsage, out.String(), errs.String())
		}
	})
}
