//go:build interop

package interop

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

//go:embed testdata/enter.sh
var enter string

// setup is what a server is made of.
type setup struct {
	pkg   string            // the folder of its unpacked package
	files map[string]string // by path below /, laid over the system's; "%PORT%" is filled in
	users []string          // lines for /etc/passwd
	group []string          // lines for /etc/group
	run   []string          // the command, in the foreground; "%PORT%" is filled in
	end   string            // what it adds at the end of a mail

	starttls bool
	refuses  bool           // knows who has a mailbox
	punishes bool           // it logs who goes on before the reply to DATA
	defers   bool           // says 450 to recipients that begin with "later."
	mails    int            // it takes this many on one connection, 0: any number
	best     smtp.Mode      // to be learned
	arrival  *regexp.Regexp // the log's line for each mail that it has taken; nil: keeps no log
	fault    *regexp.Regexp // what it logs where its STARTTLS is known not to work; nil: it works
}

// server is one that runs.
type server struct {
	setup
	t      *testing.T
	port   int
	front  int    // the port of a TLS front before it, 0: none
	shared string // its /mnt
	output string // what it printed
}

// start runs a server until the test ends. Its log is printed if the test has failed.
func start(t *testing.T, s setup) *server {
	t.Helper()
	packages := os.Getenv("INTEROP_PACKAGES")
	if packages == "" {
		t.Fatal("INTEROP_PACKAGES is not set: run scripts/interop, which fetches the servers")
	}
	dir := publicDir(t)
	srv := &server{setup: s, t: t, port: freePort(t), shared: filepath.Join(dir, "shared"), output: filepath.Join(dir, "output")}
	site := filepath.Join(dir, "site")
	for name, content := range srv.siteFiles() {
		write(t, filepath.Join(site, name), srv.fill(content))
	}
	for _, d := range []string{site + "/etc", site + "/usr", site + "/var", srv.shared} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(srv.shared, 0o777); err != nil { // a server has more than one user
		t.Fatal(err)
	}
	args := []string{"-c", enter, "enter.sh", site, filepath.Join(packages, s.pkg), srv.shared}
	for _, a := range s.run {
		args = append(args, srv.fill(a))
	}
	srv.launch(exec.Command("sh", args...))
	return srv
}

// publicDir is a folder that any user may look into.
func publicDir(t *testing.T) string {
	t.Helper()
	base := "" // the usual place
	if shm, err := os.Stat("/dev/shm"); err == nil && shm.IsDir() {
		base = "/dev/shm" // servers sync each mail to the disk, which is not what is tested
	}
	dir, err := os.MkdirTemp(base, "interop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if filepath.Base(path) == "private.pem" { // OpenSMTPD insists
		mode = 0o600
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// freePort asks the kernel for a port of 127.0.0.1.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *server) fill(text string) string {
	return strings.ReplaceAll(text, "%PORT%", strconv.Itoa(s.port))
}

// siteFiles are the server's files and the system's user tables with the server's
// users added; the system's own tables are only read.
func (s *server) siteFiles() map[string]string {
	files := map[string]string{}
	for name, added := range map[string][]string{"/etc/passwd": s.users, "/etc/group": s.group} {
		table, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		files[name] = strings.Join(added, "\n") + "\n" + string(table)
	}
	for name, content := range s.files {
		files[name] = content
	}
	return files
}

// launch starts the command in namespaces of its own and waits for the greeting.
func (s *server) launch(cmd *exec.Cmd) {
	s.t.Helper()
	out, err := os.Create(s.output)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC"}
	// Its death is that of all processes in the namespace; so is the test's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v (scripts/interop says what it needs)", s.pkg, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed: its error says nothing
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if s.t.Failed() {
			s.t.Logf("the log of %s:\n%s", s.pkg, tail(s.since(nil), 6000))
		}
	})
	eventually(s.t, "a greeting from "+s.pkg, func() bool {
		select {
		case <-ended:
			s.t.Fatalf("%s does not run", s.pkg)
		default:
		}
		return s.greets()
	})
}

func (s *server) greets() bool {
	c, err := net.DialTimeout("tcp", s.addr(), time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false
	}
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(greeting, "220 ") {
		return false
	}
	if _, err := c.Write([]byte("QUIT\r\n")); err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r) // to the end, so that the server has nothing to complain of
	return err == nil
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// logs are the files in which the server says what it does.
func (s *server) logs() []string {
	names, _ := filepath.Glob(filepath.Join(s.shared, "*log")) // the pattern is a good one
	return append(names, s.output)
}

// marks are how long the logs are now.
func (s *server) marks() map[string]int {
	marks := map[string]int{}
	for _, name := range s.logs() {
		marks[name] = len(s.read(name))
	}
	return marks
}

// since is what the server has logged after the marks were taken; all of it for nil.
func (s *server) since(marks map[string]int) string {
	var b strings.Builder
	for _, name := range s.logs() {
		b.WriteString(s.read(name)[marks[name]:])
	}
	return b.String()
}

func (s *server) read(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		s.t.Errorf("the log of %s: %v", s.pkg, err)
	}
	return string(text)
}

// mailbox reads and removes what was delivered, once there are n mails or more.
func (s *server) mailbox(n int) []stored {
	s.t.Helper()
	dir := filepath.Join(s.shared, "mail", "new")
	var entries []os.DirEntry
	eventually(s.t, fmt.Sprintf("%d mails in the mailbox of %s", n, s.pkg), func() bool {
		var err error
		if entries, err = os.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Fatal(err)
		}
		return len(entries) >= n
	})
	var mails []stored
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		raw, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		m, err := parseStored(bytes.TrimSuffix(raw, []byte(s.end)))
		if err != nil {
			s.t.Errorf("%s: %v", e.Name(), err)
		}
		mails = append(mails, m)
		if err := os.Remove(path); err != nil {
			s.t.Fatal(err)
		}
	}
	return mails
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// eventually polls until ok; a test that waits in vain fails.
func eventually(t *testing.T, what string, ok func() bool) {
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
