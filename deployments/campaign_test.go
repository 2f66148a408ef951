package deployments

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/relay"
)

const recipients = 300

// fleet is the shipped Redis, a relay that defers, and the built program.
type fleet struct {
	t     *testing.T
	bin   string
	redis *redisServer
	relay *relay.Server
	dir   string
}

func newFleet(t *testing.T, bin string) *fleet {
	t.Helper()
	srv, err := relay.Start(relay.Config{Profile: "greylist?share=20%", Users: map[string]string{"app": "key"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	f := &fleet{t: t, bin: bin, redis: startRedis(t), relay: srv, dir: t.TempDir()}
	host, port, err := net.SplitHostPort(srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.dir, "ca.pem", string(srv.CAPEM()))
	// Slow enough that there is time for what happens to it. The stream auth tries again
	// within seconds.
	write(t, f.dir, "sluice.yaml", fmt.Sprintf(`
redis: {url: "redis://sluice:%s@127.0.0.1:%s/0"}
relay: {host: %s, port: %s, ca_file: ca.pem, user: app, password: key}
limits: {connections: {open: 4, new: 600/1m}, messages: [20/1s, 100000/24h]}
streams: {auth: {reserve: [10/1s, 1000/24h], connections: 2, ttl: 3m, on_unknown: resend}}
`, redisPassword, f.redis.port, host, port))
	var list strings.Builder
	list.WriteString("email,name\n")
	for i := range recipients {
		fmt.Fprintf(&list, "r%d@example.com,Recipient %d\n", i, i)
	}
	write(t, f.dir, "list.csv", list.String())
	return f
}

// command is the program in the fleet's directory, whose sluice.yaml it reads.
func (f *fleet) command(args ...string) *exec.Cmd {
	cmd := exec.Command(f.bin, args...)
	cmd.Dir, cmd.Env = f.dir, environ(nil)
	return cmd
}

// run returns what the program prints; it must end with one of the codes.
func (f *fleet) run(codes string, args ...string) string {
	f.t.Helper()
	var errs strings.Builder
	cmd := f.command(args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if cmd.ProcessState == nil || !strings.Contains(codes, fmt.Sprint(cmd.ProcessState.ExitCode())) {
		f.t.Fatalf("sluice %v: %v\n%s%s", args, err, out, errs.String())
	}
	return string(out)
}

// summary is what the test needs of campaign show --json.
type summary struct {
	State                                   string
	Recipients, Accepted, Pending, Deferred int
	Rejected, Unknown, Expired, Cancelled   int
	Invalid, Duplicate, Suppressed, Resent  int
	ConnectionsOpened                       int `json:"connections_opened"`
}

func (f *fleet) summary(name string) summary {
	f.t.Helper()
	var s summary
	text := f.run("034", "campaign", "show", name, "--json")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		f.t.Fatalf("%s: %v", text, err)
	}
	sum := s.Accepted + s.Pending + s.Deferred + s.Rejected + s.Unknown + s.Expired + s.Cancelled + s.Invalid + s.Duplicate + s.Suppressed
	if sum != s.Recipients {
		f.t.Fatalf("%s does not add up: %d", text, sum)
	}
	return s
}

func (f *fleet) unrefused(when string) {
	f.t.Helper()
	if r := f.redis.refusals(); len(r) > 0 {
		f.t.Errorf("%s, the ACL had refused:\n%s", when, strings.Join(r, "\n"))
	}
}

// testCampaign sends a campaign through Redis as shipped, as the ACL's user. A worker
// is killed and Redis restarted on the way, since taking over and repairing need
// commands of their own.
func testCampaign(t *testing.T, bin string) {
	f := newFleet(t, bin)
	victim := start(t, f.command("worker"))
	victim.says("worker joined")
	send := []string{"send", "--to", "list.csv", "--template", "newsletter", "--from", "news@example.com", "--stream", "auth", "--name", "first"}
	f.run("0", send...)
	sent := func(n int64) func() bool { return func() bool { return f.relay.Stats().Messages >= n } }
	victim.until("the campaign gets going", sent(1))
	// The only block is the victim's: what is sent from here on was taken over.
	heir := start(t, f.command("worker"))
	heir.says("worker joined")
	victim.kill()
	stood := f.relay.Stats().Messages
	f.steer()
	heir.says("a worker died")
	heir.until("the heir goes on", sent(stood+10))
	f.unrefused("before the restart of Redis")
	if left := f.summary("first"); left.Pending+left.Deferred == 0 {
		t.Error("the campaign was over before Redis restarted: the test did not see what it is for")
	}
	f.redis.kill()
	f.redis.restart()
	heir.says("redis restarted")
	var s summary
	eventually(t, "the campaign ends", func() bool { s = f.summary("first"); return s.State == "done" })
	if s.Recipients != recipients || s.Accepted != recipients {
		t.Errorf("%+v: want all %d accepted", s, recipients)
	}
	f.reconcile(s)
	if code := heir.stop(); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	f.unrefused("at the end")
}

// steer does what an operator does, on a campaign that has not begun.
func (f *fleet) steer() {
	f.t.Helper()
	f.run("0", "send", "--to", "list.csv", "--template", "newsletter", "--from", "news@example.com", "--stream", "normal", "--name", "second", "--at", "2099-01-01 00:00")
	for _, args := range [][]string{{"pause", "second"}, {"resume", "second"}, {"cancel", "second"}, {"report", "first"}, {"list"}} {
		f.run("0", append([]string{"campaign"}, args...)...)
	}
	if out := f.run("0", "__complete", "campaign", "show", ""); !strings.Contains(out, "first") || !strings.Contains(out, "second") {
		f.t.Errorf("completion of campaigns gives %q", out)
	}
}

// reconcile compares the ledger with what the relay says it accepted.
func (f *fleet) reconcile(s summary) {
	f.t.Helper()
	got := map[string]int{}
	for m := range f.relay.Messages() {
		got[m.To]++
	}
	twice := 0
	for _, n := range got {
		twice += n - 1
	}
	if len(got) != recipients || twice > s.Resent {
		f.t.Errorf("the relay accepted mail for %d recipients, %d of it a second time; the ledger knows of %d resent", len(got), twice, s.Resent)
	}
	if n := f.relay.Stats().RuleHits["greylisted"]; n == 0 {
		f.t.Error("nobody was deferred")
	}
}
