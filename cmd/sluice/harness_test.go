package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/relay"
)

// asProgram makes the test binary behave as the program itself, so that tests can
// run it as processes of its own and kill them.
const asProgram = "RUN_AS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// rig is one relay and the configuration to reach it through one Redis.
type rig struct {
	t     testing.TB
	relay *relay.Server
	dir   string
	file  string
}

// rigOptions say what a rig is made of; zero values are the common case.
type rigOptions struct {
	redis  string                     // URL; "" = embedded
	relay  relay.Config               // default: profile nhn, user app, password sec
	limits string                     // YAML of the limits section
	tail   string                     // more YAML
	yaml   func(*relay.Server) string // of the relay section instead of the usual one
}

const rigLimits = `limits: {connections: {open: 10, new: 600/1m}, messages: [20000/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}
streams: {auth: {reserve: [200/1s], connections: 2}}
`

// noBreakers is for tests whose relay refuses more than any campaign may bear.
const noBreakers = `breakers: {bounced: off, blocked: off, unknown: off, group: {bounced: off, blocks: off, blocks_of: off}}
`

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	if o.relay.Users == nil {
		o.relay.Users = map[string]string{"app": "sec"}
	}
	srv, err := relay.Start(o.relay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	r := &rig{t: t, relay: srv, dir: t.TempDir()}
	if o.redis == "" {
		o.redis = "embedded"
	}
	if o.limits == "" {
		o.limits = rigLimits
	}
	if err := os.WriteFile(filepath.Join(r.dir, "ca.pem"), srv.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	section := relayYAML(srv, "")
	if o.yaml != nil {
		section = o.yaml(srv)
	}
	r.file = filepath.Join(r.dir, "sluice.yaml")
	r.write("sluice.yaml", "redis: {url: \""+o.redis+"\"}\n"+section+o.limits+o.tail)
	return r
}

// relayYAML is the relay section that reaches srv, with more keys.
func relayYAML(srv *relay.Server, more string) string {
	host, port, _ := strings.Cut(srv.Addr(), ":")
	return fmt.Sprintf("relay: {preset: nhn, host: %s, port: %s, ca_file: ca.pem, user: app, password: sec%s}\n", host, port, more)
}

func (r *rig) write(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// list writes a CSV of n recipients.
func (r *rig) list(n int) string {
	var b strings.Builder
	b.WriteString("email,name\n")
	for i := range n {
		fmt.Fprintf(&b, "r%d@naver.example,홍길동%d\n", i, i)
	}
	return r.write("list.csv", b.String())
}

// run executes the program in this process.
func (r *rig) run(ctx context.Context, args ...string) (code int, out, errs string) {
	var o, e safeBuffer
	code = run(ctx, append(args, "--config", r.file), stdio{in: strings.NewReader(""), out: &o, err: &e})
	return code, o.String(), e.String()
}

// send is the usual send of a list.
func (r *rig) send(list string, more ...string) []string {
	return append([]string{"send", "--to", list, "--template", "newsletter", "--from", "News <news@example.com>", "--stream", "ad", "--name", "c1"}, more...)
}

// start runs the program as a process of its own.
func (r *rig) start(args ...string) *process {
	r.t.Helper()
	p := &process{t: r.t, done: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], append(args, "--config", r.file)...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code says it
	}()
	r.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if r.t.Failed() {
			r.t.Logf("%v:\n%s", args, tail(p.errs.String(), 4000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// process is the program running beside the test.
type process struct {
	t         testing.TB
	cmd       *exec.Cmd
	out, errs safeBuffer
	done      chan struct{}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal: %v", err)
	}
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		p.t.Fatal("the process does not end")
		return -1
	}
}

// cpu is the time the process has computed so far.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		p.t.Fatal(err)
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// safeBuffer is a bytes.Buffer that may be read while a process writes to it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// eventually polls until ok; a test that waits in vain fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(3 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// lastJSON decodes the last line of stdout.
func lastJSON(t testing.TB, out string) summaryJSON {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var s summaryJSON
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		t.Fatalf("last line of stdout %q: %v", lines[len(lines)-1], err)
	}
	if sum := s.Invalid + s.Duplicate + s.Suppressed + s.Pending + s.Deferred + s.Accepted + s.Rejected + s.Unknown + s.Expired + s.Cancelled; sum != s.Recipients {
		t.Fatalf("the identity does not hold: %+v adds up to %d", s, sum)
	}
	return s
}

// report reads a campaign's report through the program.
func (r *rig) report(name string) map[string]reportRow {
	r.t.Helper()
	code, out, errs := r.run(context.Background(), "campaign", "report", name, "--json")
	if code != 0 {
		r.t.Fatalf("report: %d %s", code, errs)
	}
	rows := map[string]reportRow{}
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var row reportRow
		if err := d.Decode(&row); err != nil {
			r.t.Fatal(err)
		}
		rows[strconv.Itoa(row.Line)] = row
	}
	return rows
}

// reconcile holds the ledger against what the relay accepted, recipient by
// recipient: nothing lost, and whatever is double or unheard of is said to be.
func reconcile(t testing.TB, rows []reportRow, truth []relay.Accepted) {
	t.Helper()
	accepted := map[string]int{}
	for _, m := range truth {
		accepted[m.To]++
	}
	faults := 0
	fault := func(format string, args ...any) {
		if faults++; faults <= 10 {
			t.Errorf(format, args...)
		}
	}
	for _, row := range rows {
		n := accepted[row.Address]
		if row.Outcome != "duplicate" && row.Outcome != "invalid" {
			delete(accepted, row.Address)
		}
		switch {
		case row.Outcome == "pending" || row.Outcome == "deferred":
			fault("%s is still %s", row.Address, row.Outcome)
		case row.Outcome == "accepted" && n == 0:
			fault("LOST: %s is accepted in the ledger, the relay never had it", row.Address)
		case row.Outcome == "rejected" && n > 0:
			fault("%s is rejected in the ledger, the relay accepted it", row.Address)
		case n > 1 && !row.MaybeTwice && row.Outcome != "unknown":
			fault("DOUBLE: %s got %d mails and is not listed", row.Address, n)
		}
	}
	for to := range accepted {
		fault("the relay has mail for %s, who is in no row", to)
	}
}

// values lists the rows of a report.
func values(rows map[string]reportRow) []reportRow {
	out := make([]reportRow, 0, len(rows))
	for _, r := range rows {
		out = append(out, r)
	}
	return out
}

// ledgerRows reads the rows of a campaign from a queue in this process.
func ledgerRows(t testing.TB, q *queue.Queue, name string) []reportRow {
	t.Helper()
	c, err := q.Find(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	var out []reportRow
	if err := q.Rows(context.Background(), c, func(r queue.Row) error {
		out = append(out, newReportRow(r))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// count counts the rows with an outcome.
func count(rows []reportRow, o mail.Outcome) (n int) {
	for _, r := range rows {
		if r.Outcome == o.String() {
			n++
		}
	}
	return n
}
