//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	netmail "net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/templates"
)

// The whole program, as a user runs it: sluice send, a sluice worker, a real Redis,
// and a real server with STARTTLS, verified by ca_file.
func TestWholePath(t *testing.T) {
	t.Parallel()
	program := filepath.Join(publicDir(t), "sluice")
	build := exec.Command("go", "build", "-o", program, "../../cmd/sluice")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, tc := range map[string]struct {
		server func(authority) setup
		login  string // YAML
		logs   string // what the server notes of it
	}{
		"postfix": {postfix, "auth: none", "TLS connection established"},
		"exim":    {exim, "user: app, password: s3cret", " A=plain "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			s := start(t, tc.server(a))
			wholePath(t, program, s, fmt.Sprintf(pathConfig, s.port, tc.login), a)
			if !strings.Contains(s.since(nil), tc.logs) {
				t.Errorf("the server has not logged %q", tc.logs)
			}
		})
	}
}

const pathConfig = `relay: {preset: custom, host: 127.0.0.1, port: %d, tls: starttls, ca_file: ca.pem, %s, hello: client.sender.example}
sender: {name: 물길상점, email: news@sender.example, phone: 02-000-0000, address: "서울시 예시구 1"}
limits: {connections: {open: 2, new: 600/1m}, messages: [5000/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}
breakers: {bounced: "off"} # one in twenty is refused here, on purpose
streams: {auth: {reserve: [20/1s], connections: 1}}
`

func wholePath(t *testing.T, program string, s *server, config string, a authority) {
	const n = 500
	redis, dir := redistest.Start(t), t.TempDir()
	write(t, filepath.Join(dir, "ca.pem"), a.ca)
	write(t, filepath.Join(dir, "sluice.yaml"), config+"redis: {url: \""+redis.URL()+"\"}\n")
	list, fates := recipients(n)
	write(t, filepath.Join(dir, "list.csv"), list)
	before := s.marks()
	stop := worker(t, program, dir)
	send := exec.CommandContext(t.Context(), program, "send", "--to", "list.csv", "--template", "newsletter",
		"--from", "물길상점 <"+sender+">", "--stream", "ad", "--name", "interop", "--wait", "--json")
	send.Dir = dir
	var out, errs bytes.Buffer
	send.Stdout, send.Stderr = &out, &errs
	if err := send.Run(); send.ProcessState == nil || send.ProcessState.ExitCode() != 3 { // done, some rejected
		t.Fatalf("send: %v\n%s", err, errs.String())
	}
	stop()
	var sum struct {
		Recipients, Accepted, Rejected int
		Opened                         int `json:"connections_opened"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(out.Bytes()), &sum); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	if sum.Recipients != n || sum.Accepted != n-n/20 || sum.Rejected != n/20 || sum.Opened > 2 {
		t.Errorf("%+v of %d recipients, %d of them refused", sum, n, n/20)
	}
	got := s.mailbox(sum.Accepted)
	accepted := ledger(t, redis, fates, dates(t, got))
	compare(t, got, accepted)
	s.agrees(t, s.since(before), len(accepted))
	t.Logf("%+v", sum)
}

// recipients makes a list of n rows, and the fate of each address.
func recipients(n int) (csv string, fates map[string]fate) {
	var b strings.Builder
	b.WriteString("email,name\n")
	fates = map[string]fate{}
	for i := range n {
		f := delivered
		if i%20 == 7 {
			f = refused
		}
		to := address("path", i, f)
		fates[to] = f
		fmt.Fprintf(&b, "%s,%s\n", to, nameOf(to))
	}
	return b.String(), fates
}

// nameOf is what stands in the list beside an address.
func nameOf(to string) string { return "홍길동 " + strings.TrimSuffix(to, "@inbox.example") }

// worker runs sluice worker until stop is called or the test ends.
func worker(t *testing.T, program, dir string) (stop func()) {
	t.Helper()
	var log bytes.Buffer // read once the process has ended
	cmd := exec.Command(program, "worker")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	running := true
	end := func(sig os.Signal) error {
		running = false
		_ = cmd.Process.Signal(sig)
		return <-ended
	}
	t.Cleanup(func() {
		if running {
			_ = end(syscall.SIGKILL) // the test has failed elsewhere
		}
		if t.Failed() {
			t.Logf("worker:\n%s", tail(log.String(), 3000))
		}
	})
	return func() {
		t.Helper()
		if err := end(syscall.SIGTERM); err != nil {
			t.Errorf("the worker ended with %v", err)
		}
	}
}

// ledger reads what the program knows of each recipient, and renders the mails of
// those accepted once more, each with the date of the one that arrived.
func ledger(t *testing.T, redis *redistest.Server, fates map[string]fate, dates map[string]time.Time) map[string][]byte {
	t.Helper()
	q, err := queue.Open(queue.Options{Connection: queue.Connection{Addrs: []string{redis.Addr()}}})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	c, err := q.Find(t.Context(), "interop")
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := q.Program(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	program, err := templates.Unpin(pinned)
	if err != nil {
		t.Fatal(err)
	}
	accepted := map[string][]byte{}
	if err := q.Rows(t.Context(), c, func(r queue.Row) error {
		want := map[fate]mail.Outcome{delivered: mail.Accepted, refused: mail.Rejected}[fates[r.Address]]
		if r.Outcome != want {
			t.Errorf("%s is %v in the ledger, want %v", r.Address, r.Outcome, want)
		}
		if r.Outcome != mail.Accepted {
			return nil
		}
		accepted[r.Address], err = program.Render(nil, templates.Recipient{
			Email: r.Address, Values: []string{nameOf(r.Address)},
			MessageID: templates.MessageID(c.ID, r.Line, program.MessageIDDomain()), Date: dates[r.Address],
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return accepted
}

// dates are the Date fields of what has arrived, by recipient: the one thing in a mail
// that only the worker knows.
func dates(t *testing.T, got []stored) map[string]time.Time {
	t.Helper()
	dates := map[string]time.Time{}
	for _, m := range got {
		msg, err := netmail.ReadMessage(bytes.NewReader(m.content))
		if err != nil {
			t.Fatal(err)
		}
		if dates[m.to], err = msg.Header.Date(); err != nil {
			t.Fatal(err)
		}
	}
	return dates
}
