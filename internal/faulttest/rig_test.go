package faulttest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// setup is what a run is made of; zero values are the usual.
type setup struct {
	recipients  int           // 3,000: the six blocks that one worker claims at once
	connections int           // 8
	rate        int           // messages a second, 1,000
	stream      string        // ad
	policy      string        // on_unknown: hold
	relay       relay.Config  // profile nhn, 2 ms away
	redis       []string      // further configuration of redis-server
	proxied     bool          // Redis and relay are reached through proxies
	clear       bool          // no TLS, so that a proxy can read along
	limits      string        // YAML of the limits section instead of the usual
	env         []string      // of every process
	auth        string        // YAML of the auth stream: nothing reserved
	canary      string        // YAML of the normal stream's canary: off
	breakers    string        // YAML of the breakers: off
	user        string        // at the relay: app
	retention   string        // of campaigns: 30d
	patience    time.Duration // how long a campaign may stand still before it counts as stuck: 25 s
	adaptive    bool          // limits sink where the relay refuses; off, so that only what is broken differs
}

func (s setup) withDefaults() setup {
	if s.recipients == 0 {
		s.recipients = 3000
	}
	if s.connections == 0 {
		s.connections = 8
	}
	if s.rate == 0 {
		s.rate = 1000
	}
	if s.patience == 0 {
		s.patience = patience
	}
	if s.stream == "" {
		s.stream = "normal"
	}
	if s.policy == "" {
		s.policy = "hold"
	}
	if s.relay.RoundTrip == 0 {
		s.relay.RoundTrip = 2 * time.Millisecond
	}
	if s.user == "" {
		s.user = "app"
	}
	if s.relay.Users == nil {
		s.relay.Users = map[string]string{s.user: "sec"}
	}
	s.relay.KeepContent = s.recipients <= 20_000
	s.relay.NoTLS = s.clear
	s.relay.AllowPlainAuth = s.clear
	if s.auth == "" {
		s.auth = "reserve: [1/1s], connections: 0"
	}
	if s.retention == "" {
		s.retention = "30d"
	}
	if s.canary == "" {
		s.canary = "{size: off}"
	}
	if s.breakers == "" {
		s.breakers = "{bounced: off, blocked: off, unknown: off, group: {bounced: off, blocks: off, blocks_of: off}}"
	}
	if s.limits == "" {
		s.limits = fmt.Sprintf("limits: {connections: {open: %d, new: [6000/1m]}, messages: [%d/1s], per_connection: {messages: 5000, age: 5m, idle: 30s}}",
			s.connections, s.rate)
	}
	return s
}

// rig is one run: a relay, a Redis, a configuration and the processes on it.
type rig struct {
	setup
	t       testing.TB
	dir     string
	srv     *relay.Server
	store   *redistest.Server
	rdb     *redis.Client // straight to the server
	toRedis *proxy        // nil unless proxied
	toRelay *proxy
	workers []*process
	input   []string
	name    string // of the campaign
}

// letter is the template of all campaigns: small, with a mark by which the oracle
// knows whose it is.
const letter = `{{/*
description: Fault bench
*/}}
{{define "subject"}}Hello {{.name}}{{end}}
{{define "text"}}mark:{{.email}}:
{{end}}
`

func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	s = s.withDefaults()
	srv, err := relay.Start(s.relay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	r := &rig{setup: s, t: t, dir: t.TempDir(), srv: srv, store: redistest.Start(t, s.redis...), name: "c1"}
	r.rdb = redis.NewClient(&redis.Options{Addr: r.store.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = r.rdb.Close() })
	store, wire := r.store.Addr(), srv.Addr()
	if s.proxied {
		r.toRedis, r.toRelay = startProxy(t, store), startProxy(t, wire)
		store, wire = r.toRedis.addr(), r.toRelay.addr()
	}
	if !s.clear {
		r.write("ca.pem", string(srv.CAPEM()))
	}
	r.write("letter.tmpl", letter)
	r.write("sluice.yaml", r.yaml(store, wire))
	return r
}

// yaml is a configuration that reaches Redis and relay at these addresses.
func (r *rig) yaml(store, wire string) string {
	host, port, _ := strings.Cut(wire, ":")
	secure := "tls: starttls, ca_file: ca.pem"
	if r.clear {
		secure = "tls: none"
	}
	return fmt.Sprintf(`redis: {url: "redis://%s/0", retention: %s}
relay: {preset: nhn, host: %s, port: %s, %s, user: %s, password: sec}
%s
streams:
  auth: {%s, retry: {first: 1s, most: 2s}}
  normal: {on_unknown: %s, canary: %s, retry: {first: 1s, most: 2s}}
breakers: %s
adaptive: {enabled: %t}
`, store, r.retention, host, port, secure, r.user, r.limits, r.auth, r.policy, r.canary, r.breakers, r.adaptive)
}

func (r *rig) write(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// begins starts over with another campaign on the same Redis and relay.
func (r *rig) begins(name string) {
	r.name, r.input = name, nil
}

// list writes the recipients' file and notes who goes in.
func (r *rig) list() string {
	if r.input == nil {
		for i := range r.recipients {
			r.input = append(r.input, fmt.Sprintf("r%d@%s.example", i, r.name))
		}
	}
	var b strings.Builder
	b.WriteString("email,name\n")
	for i, to := range r.input {
		fmt.Fprintf(&b, "%s,홍길동%d\n", to, i)
	}
	return r.write("list.csv", b.String())
}

// worker starts a worker process, with further environment.
func (r *rig) worker(env ...string) *process {
	r.t.Helper()
	return r.workerOn("sluice.yaml", env...)
}

func (r *rig) workerOn(config string, env ...string) *process {
	r.t.Helper()
	p := start(r.t, r.dir, slices.Concat(r.env, env), "worker", "--config", config)
	r.workers = append(r.workers, p)
	return p
}

// run runs a command to its end.
func (r *rig) run(args ...string) (code int, out, errs string) {
	r.t.Helper()
	p := start(r.t, r.dir, r.env, append(args, "--config", "sluice.yaml")...)
	code = p.wait(time.Minute)
	if code == -2 {
		p.kill()
	}
	return code, p.out.String(), p.errs.String()
}

// sending is the usual send of the list.
func (r *rig) sending(more ...string) []string {
	return append([]string{"send", "--to", r.list(), "--template", "letter.tmpl", "--from", "News <news@example.com>",
		"--stream", r.stream, "--name", r.name, "--json"}, more...)
}

// send enqueues the campaign.
func (r *rig) send(more ...string) {
	r.t.Helper()
	if code, _, errs := r.run(r.sending(more...)...); code != 0 {
		r.t.Fatalf("send: exit code %d: %s", code, tail(errs, 2000))
	}
}

// summary is the summary object of campaign show --json.
type summary struct {
	Recipients, Invalid, Duplicate, Suppressed, Pending, Deferred, Accepted int
	Rejected, Unknown, Expired, Cancelled, Resent                           int
	State, Held                                                             string
	Bounced                                                                 int // of those accepted, by feedback
}

// show asks for the campaign's summary; ok is false where there is none to be had.
func (r *rig) show() (s summary, ok bool) {
	r.t.Helper()
	code, out, _ := r.run("campaign", "show", r.name, "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || json.Unmarshal([]byte(lines[len(lines)-1]), &s) != nil {
		return s, false
	}
	if sum := s.Invalid + s.Duplicate + s.Suppressed + s.Pending + s.Deferred + s.Accepted + s.Rejected + s.Unknown + s.Expired + s.Cancelled; sum != s.Recipients {
		r.t.Errorf("the identity does not hold: %+v adds up to %d", s, sum)
	}
	return s, true
}

// finish waits until the campaign is done, or for as long as patience allows without
// any progress, and returns its last summary.
func (r *rig) finish(patience time.Duration) summary {
	r.t.Helper()
	var last summary
	messages, moved := int64(-1), time.Now()
	for {
		s, ok := r.show()
		n := r.srv.Stats().Messages
		if ok && (s.State == "done" || s.State == "cancelled") {
			return s
		}
		if n != messages || ok && s != last {
			messages, moved = n, time.Now()
		}
		if ok {
			last = s
		}
		if time.Since(moved) > patience {
			return last
		}
		idle(200 * time.Millisecond)
	}
}

// report reads the campaign's report.
func (r *rig) report() []row {
	r.t.Helper()
	code, out, errs := r.run("campaign", "report", r.name, "--json")
	if code != 0 {
		r.t.Errorf("report: exit code %d: %s", code, tail(errs, 1000))
	}
	var rows []row
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var one row
		if err := d.Decode(&one); err != nil {
			r.t.Errorf("report: %v", err)
			break
		}
		rows = append(rows, one)
	}
	return rows
}

// judge holds the run's three accounts against each other.
func (r *rig) judge() account {
	r.t.Helper()
	var own []relay.Accepted
	for m := range r.srv.Messages() {
		if strings.HasSuffix(m.To, "@"+r.name+".example") {
			own = append(own, m)
		}
	}
	return judge(r.input, r.report(), own)
}

// sent is how many mails the relay has accepted.
func (r *rig) sent() int { return int(r.srv.Stats().Messages) }

// under waits until so many mails are sent.
func (r *rig) under(way int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d mails are sent", way), func() bool { return r.sent() >= way })
}

// logs are the ends of what the workers said.
func (r *rig) logs() string {
	var b strings.Builder
	for i, p := range r.workers {
		fmt.Fprintf(&b, "worker %d:\n%s\n", i+1, tail(p.errs.String(), 3000))
	}
	return b.String()
}

// keys is what Redis holds of schedule and workers, for who looks for a fault.
func (r *rig) keys() string {
	ctx := context.WithoutCancel(r.t.Context())
	var b strings.Builder
	for _, pattern := range []string{"sluice:{s:*", "sluice:{w}*"} {
		for _, key := range r.rdb.Keys(ctx, pattern).Val() {
			var content any
			switch r.rdb.Type(ctx, key).Val() {
			case "hash":
				content = r.rdb.HGetAll(ctx, key).Val()
			case "set":
				content = r.rdb.SMembers(ctx, key).Val()
			case "zset":
				content = r.rdb.ZRangeWithScores(ctx, key, 0, 20).Val()
			case "list":
				content = r.rdb.LRange(ctx, key, 0, 20).Val()
			default:
				content = r.rdb.Get(ctx, key).Val()
			}
			fmt.Fprintf(&b, "%s: %.1000q\n", key, fmt.Sprint(content))
		}
	}
	return b.String()
}
