// Package deployments holds no code: it tests the files beside it, as far as that goes
// without a container engine, a cluster or a running systemd. The commands in them
// are run for real: the image's build, Redis with its configuration and ACL file, the
// worker with each file's arguments and environment, a campaign through all of it. The
// rest is compared with the structs below, which refuse a field they do not know.
//
// It fails where a file says something the program does not take. It cannot say that
// an engine accepts them: README.md lists what has not been run.
package deployments

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drain is the least time that a worker must be given to stop, more than the 10
// minutes that a reply after the dot may take.
const drain = 11 * time.Minute

// TestProgram builds the program as the image does and runs it as the files say.
func TestProgram(t *testing.T) {
	t.Parallel()
	bin := buildImage(t)
	t.Run("static", func(t *testing.T) { t.Parallel(); testStatic(t, bin) })
	t.Run("systemd", func(t *testing.T) { t.Parallel(); testUnit(t, bin) })
	t.Run("compose", func(t *testing.T) { t.Parallel(); testComposeCommands(t, bin) })
	t.Run("kubernetes", func(t *testing.T) { t.Parallel(); testKubernetesCommand(t, bin) })
	t.Run("campaign", func(t *testing.T) { t.Parallel(); testCampaign(t, bin) })
}

// read returns a file of this directory.
func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// write puts a file that only we may read into dir.
func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// decode reads one YAML document and takes no field that v has not.
func decode(t testing.TB, name, text string, v any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		t.Fatalf("%s: want one document, but there is more: %v", name, err)
	}
}

// replace is strings.ReplaceAll for what must be there.
func replace(t testing.TB, text, old, with string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in\n%s", old, text)
	}
	return strings.ReplaceAll(text, old, with)
}

// pinned wants an image to have a version in its name.
func pinned(t testing.TB, image string) {
	t.Helper()
	if !regexp.MustCompile(`^[a-z0-9./-]+:[a-z0-9.-]+$`).MatchString(image) || strings.HasSuffix(image, ":latest") {
		t.Errorf("image %q: want name:version", image)
	}
}

// environ is an environment of nothing but env.
func environ(env map[string]string) []string {
	out := []string{"PATH=" + os.Getenv("PATH")}
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	return out
}

// process is a program running beside the test, with both outputs together.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  buffer
	done chan struct{}
}

// start runs cmd; it ends with the test.
func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (./scripts/test installs what is missing)", err)
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the exit code says it
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%v:\n%s", cmd.Args, p.out.String())
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop ends the process as systemd and container engines do, and returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("signal: %v", err)
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("%v does not stop:\n%s", p.cmd.Args, p.out.String())
		return -1
	}
}

// until waits for something that the process does.
func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	eventually(p.t, what, func() bool {
		select {
		case <-p.done:
			p.t.Fatalf("%v ended before: %s", p.cmd.Args, what)
		default:
		}
		return ok()
	})
}

// says waits until the process has written text.
func (p *process) says(text string) {
	p.t.Helper()
	p.until("it says "+text, func() bool { return strings.Contains(p.out.String(), text) })
}

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

// eventually polls until ok; a test that waits in vain fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}
