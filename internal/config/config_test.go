package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicemail/sluice/internal/mail"
)

// documented is the configuration as the documentation prints it.
const documented = `
redis:
  url: redis://127.0.0.1:6379/0      # also rediss://
relay:
  preset: nhn
  host: smtp-mail.nhncloudservice.com
  port: 587
  tls: starttls
  ca_file: ""
  user: ""
  password: ""
  password_file: ""
  auth: auto
  hello: ""
sender: {name: "", email: "", phone: "", address: ""}
limits:
  connections: {open: 10, new: 60/1m}
  messages: [200/1s, 500000/24h]
  per_connection: {messages: 500, age: 5m, idle: 30s}
streams:
  auth: {reserve: [20/1s, 20000/24h], connections: 2, ttl: 3m, on_unknown: resend}
  normal: {on_unknown: resend}
  ad: {on_unknown: hold}
`

// write puts text into a file only the owner can read and returns its name.
func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	c, err := Load(write(t, text), true, environ)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

// values drops the origins, which differ by where a value was read.
func values(c *Config) map[string]any {
	out := map[string]any{}
	for _, s := range c.Redacted() {
		out[s.Key] = s.Value
	}
	return out
}

func TestDefaultIsTheDocumentedConfiguration(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(values(Default()), values(load(t, documented))); diff != "" {
		t.Errorf("built in (-) and documented (+) differ:\n%s", diff)
	}
	if err := Default().Validate(); err != nil {
		t.Errorf("Default is not valid: %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Load(name, true, nil); err == nil || !strings.Contains(err.Error(), "none.yaml: no such file") {
		t.Errorf("a named file that is missing: %v", err)
	}
	c, err := Load(name, false, nil)
	if err != nil || c.File() != "" {
		t.Errorf("the default file missing: %v", err)
	}
	if _, err := Load(t.TempDir(), false, nil); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	c := load(t, "relay: {user: fromfile, port: 2587}\n",
		"PATH=/bin", "SLUICE_REDIS_URL=rediss://:pw@redis.example.com/3", "SLUICE_RELAY_USER=fromenv",
		"SLUICE_RELAY_PASSWORD=a=b", "SLUICE_RELAY_INSECURE=false", "SLUICE_LIMITS_CONNECTIONS_NEW=30/1m",
		"SLUICE_LIMITS_MESSAGES=200/1s, 500000/24h", "SLUICE_STREAMS_AUTH_TTL=90s", "SLUICE_STREAMS_AD_ON_UNKNOWN=resend",
		"SLUICE_LIMITS_PER_CONNECTION_IDLE=1m",
		// What Kubernetes adds for Services called sluice and sluice-relay.
		"SLUICE_SERVICE_HOST=10.0.0.1", "SLUICE_PORT=tcp://10.0.0.1:80", "SLUICE_PORT_80_TCP_ADDR=10.0.0.1",
		"SLUICE_RELAY_PORT=tcp://10.0.0.2:25", "SLUICE_RELAY_SERVICE_PORT_SMTP=25", "SLUICE_PORT_80_TCP=tcp://10.0.0.1:80")
	if c.Relay.User != "fromenv" || c.Relay.Port != 2587 || c.Relay.Password.Reveal() != "a=b" {
		t.Errorf("relay: %+v", c.Relay)
	}
	if c.Streams.Auth.TTL != 90*time.Second || c.Streams.Ad.OnUnknown != Resend || c.Limits.PerConnection.Idle != time.Minute {
		t.Errorf("streams %+v, limits %+v", c.Streams, c.Limits)
	}
	if diff := cmp.Diff([]Window{{200, time.Second}, {500_000, 24 * time.Hour}}, c.Limits.Messages); diff != "" {
		t.Error(diff)
	}
	origins := map[string]string{}
	for _, s := range c.Redacted() {
		origins[s.Key] = s.Origin
	}
	for key, want := range map[string]string{
		"relay.user": "SLUICE_RELAY_USER", "relay.port": c.File() + ":1", "relay.host": "preset nhn",
		"streams.ad.ttl": "default", "streams.auth.reserve": "derived from limits.messages",
	} {
		if origins[key] != want {
			t.Errorf("origin of %s: %q, want %q", key, origins[key], want)
		}
	}
}

// Every key must be settable by file and by environment, and show what was set.
func TestEveryKeyIsObeyed(t *testing.T) {
	t.Parallel()
	ca := write(t, testCA)
	pw := write(t, "from-a-file\n")
	for path, v := range map[string]string{
		"redis.url": "redis://other:1/2", "relay.preset": "mailgun", "relay.host": "127.0.0.1", "relay.port": "2525",
		"relay.tls": "implicit", "relay.ca_file": ca, "relay.user": "u", "relay.password": "s3cret",
		"relay.password_file": pw, "relay.auth": "login", "relay.pipelining": "group", "relay.hello": "mx.example.com", "relay.insecure": "true",
		"sender.name": "n", "sender.email": "a@example.com", "sender.phone": "02", "sender.address": "Seoul",
		"limits.connections.open": "7", "limits.connections.new": "5/10s", "limits.messages": "400/2s",
		"limits.per_connection.messages": "9", "limits.per_connection.age": "2m", "limits.per_connection.idle": "10s",
		"streams.auth.reserve": "1/1s", "streams.auth.connections": "1", "streams.auth.ttl": "1m", "streams.auth.on_unknown": "hold",
		"streams.normal.reserve": "1/1s", "streams.normal.connections": "1", "streams.normal.ttl": "1m", "streams.normal.on_unknown": "hold",
		"streams.ad.reserve": "1/1s", "streams.ad.connections": "1", "streams.ad.ttl": "2d", "streams.ad.on_unknown": "resend",
		"redis.prefix": "shop-2", "redis.durability": "fsync", "redis.retention": "7d", "adaptive.enabled": "false", "adaptive.floor": "30/1m",
		"streams.auth.messages": "50/1s", "streams.auth.openings": "6/1m", "streams.auth.retry.first": "3s", "streams.auth.retry.most": "20s",
		"streams.auth.retry.attempts": "3", "streams.auth.retry.age": "1m", "streams.auth.canary.size": "9", "streams.auth.canary.wait": "1m",
		"streams.normal.messages": "50/1s", "streams.normal.openings": "6/1m", "streams.normal.retry.first": "3s", "streams.normal.retry.most": "20m",
		"streams.normal.retry.attempts": "3", "streams.normal.retry.age": "1h", "streams.normal.canary.size": "2.5%", "streams.normal.canary.wait": "1m",
		"streams.ad.messages": "50/1s", "streams.ad.openings": "6/1m", "streams.ad.retry.first": "3s", "streams.ad.retry.most": "20m",
		"streams.ad.retry.attempts": "0", "streams.ad.retry.age": "1h", "streams.ad.canary.size": "off", "streams.ad.canary.wait": "1m",
		"groups.by_mx": "true", "breakers.bounced": "1.5%/1000", "breakers.blocked": "off", "breakers.unknown": "1%/200", "breakers.least": "50",
		"breakers.group.bounced": "7%/900", "breakers.group.hold": "2h", "breakers.group.blocks": "off", "breakers.group.blocks_of": "off", "verdicts.file": pw,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			k := newLoader().byPath[path]
			before := fmt.Sprint(k.value.show())
			// What a key needs beside itself to be legal.
			needs := map[string][]string{
				"relay.auth": {"SLUICE_RELAY_USER=u"}, "relay.password": {"SLUICE_RELAY_USER=u"},
				"relay.password_file": {"SLUICE_RELAY_USER=u"}, "relay.insecure": {"SLUICE_RELAY_TLS=none"},
				"streams.auth.canary.wait": {"SLUICE_STREAMS_AUTH_CANARY_SIZE=9"},
			}
			c, err := Load(filepath.Join(t.TempDir(), "none"), false, append(needs[path], k.env()+"="+v))
			if err != nil {
				t.Fatal(err)
			}
			after := fmt.Sprint(values(c)[path])
			if after == before {
				t.Errorf("still %q", after)
			}
			text := v
			for _, s := range slices.Backward(strings.Split(path, ".")) {
				text = "{" + s + ": " + text + "}"
			}
			if got := fmt.Sprint(values(load(t, text, needs[path]...))[path]); got != after {
				t.Errorf("by file %q, by environment %q", got, after)
			}
		})
	}
	if n := len(Default().keys()); n != 74 {
		t.Errorf("%d keys: the table above must have every one", n)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []string // all of it in the error
	}{
		"unknown key":         {"relay:\n  prot: 25\n", []string{"sluice.yaml:2: relay.prot: unknown key; did you mean port?"}},
		"unknown section":     {"relays: {}\n", []string{":1: relays: unknown key; did you mean relay?"}},
		"key in wrong place":  {"password: x\n", []string{":1: password: unknown key; did you mean relay.password?"}},
		"nothing like it":     {"zebra: 1\n", []string{"zebra: unknown key; want redis, relay, sender, limits, adaptive, streams, groups, breakers, verdicts or warm_up"}},
		"dotted key":          {"relay.port: 25\n", []string{"relay.port: unknown key"}},
		"unprintable key":     {"\"a\\nb\": 1\n", []string{`"a\nb": unknown key`}},
		"key below a key":     {"relay: {port: {a: 1}}\n", []string{"relay.port: want one value"}},
		"list for one value":  {"relay: {port: [25]}\n", []string{"relay.port: want one value"}},
		"section as a value":  {"relay: x\n", []string{"relay: want a section with the keys preset, host"}},
		"document as a list":  {"- a\n", []string{":1: want a section"}},
		"twice":               {"relay: {port: 25, port: 26}\n", []string{"relay.port: given twice, first on line 1"}},
		"section twice":       {"relay: {port: 25}\nrelay: {tls: none}\n", []string{":2: relay: given twice"}},
		"second document":     {"relay: {port: 25}\n---\nrelay: {port: 26}\n", []string{"second document"}},
		"no yaml":             {"relay: {port\n", []string{"sluice.yaml:", "not YAML"}},
		"bad word":            {"relay: {tls: startls}\n", []string{`relay.tls: "startls": want starttls, implicit or none; did you mean starttls?`}},
		"port too high":       {"relay: {port: 65536}\n", []string{`relay.port: "65536": want a whole number from 1 to 65535`}},
		"port no number":      {"relay: {port: 0x19}\n", []string{"want a whole number"}},
		"bool":                {"relay: {insecure: yes, tls: none}\n", []string{`relay.insecure: "yes": want true or false`}},
		"host with port":      {"relay: {host: 'a.example:25'}\n", []string{"the port goes into relay.port"}},
		"host with scheme":    {"relay: {host: 'smtp://a.example'}\n", []string{"without a scheme"}},
		"host with space":     {"relay: {host: 'a b'}\n", []string{"want a host name"}},
		"hello with crlf":     {"relay: {hello: \"a\\r\\nMAIL\"}\n", []string{"relay.hello", "control character 0x0d"}},
		"hello with space":    {"relay: {hello: 'a b'}\n", []string{"full name"}},
		"user with nul":       {"relay: {user: \"a\\0\"}\n", []string{"relay.user", "control character 0x00"}},
		"sender not an email": {"sender: {email: 'A <a@example.com>'}\n", []string{"sender.email", "bare address"}},
		"window":              {"limits: {messages: [200/1s, 5]}\n", []string{`limits.messages: "200/1s, 5": "5": want COUNT/DURATION`}},
		"window of nothing":   {"limits: {messages: 0/1s}\n", []string{"count 0: want 1 to"}},
		"window too short":    {"limits: {messages: 5/100ms}\n", []string{"want 1s to 744h"}},
		"same window twice":   {"limits: {messages: [5/60s, 6/1m]}\n", []string{"two limits for 1m"}},
		"no window":           {"limits: {messages: []}\n", []string{"at least one"}},
		"nested window":       {"limits: {messages: [[5/1s]]}\n", []string{"want COUNT/DURATION"}},
		"duration":            {"streams: {auth: {ttl: 3}}\n", []string{`streams.auth.ttl: "3": want a duration`}},
		"duration negative":   {"limits: {per_connection: {age: -5m}}\n", []string{"want a duration"}},
		"duration zero":       {"limits: {per_connection: {age: 0s}}\n", []string{"from 1s to 24h"}},
		"policy":              {"streams: {ad: {on_unknown: drop}}\n", []string{"want resend or hold"}},
		"no value":            {"relay:\n  password:\n", []string{":2: relay.password: no value"}},
		"password as comment": {"relay:\n  password: #abc\n", []string{"relay.password: no value: put a value that begins with #"}},
		"redis cluster":       {"redis: {url: 'redis-cluster://a:1'}\n", []string{"redis.url", "not supported yet"}},
		"custom without host": {"relay: {preset: custom}\n", []string{`relay.host: "": with preset custom set it`}},
		"ses without host":    {"relay: {preset: ses}\n", []string{"email-smtp."}},
		"none to afar":        {"relay: {tls: none}\n", []string{`relay.tls: "none"`, "in the clear", "insecure: true"}},
		"insecure for naught": {"relay: {insecure: true}\n", []string{"relay.insecure: true: has no effect with tls starttls"}},
		"ca without tls":      {"relay: {host: localhost, tls: none, ca_file: CA}\n", []string{"relay.ca_file", "no effect with tls none"}},
		"no such ca":          {"relay: {ca_file: nowhere.pem}\n", []string{"relay.ca_file", "nowhere.pem", "no such file"}},
		"wrong port for tls":  {"relay: {port: 465}\n", []string{"relay.port: 465: with tls starttls; want 587, 25 or 2587 for starttls, or 465 or 2465 for implicit"}},
		"wrong tls for port":  {"relay: {port: 587, tls: implicit}\n", []string{"relay.port: 587: with tls implicit"}},
		"none and user":       {"relay: {auth: none, user: u}\n", []string{`relay.auth: "none": but relay.user is set`}},
		"none and password":   {"relay: {auth: none, password: s3cret}\n", []string{"but a password is set"}},
		"plain, no user":      {"relay: {auth: plain}\n", []string{"relay.auth", "without relay.user", "AppKey"}},
		"password, no user":   {"relay: {password: s3cret}\n", []string{`:1: relay.user: "": there is a password but no user`}},
		"both passwords":      {"relay: {user: u, password: s3cret, password_file: x}\n", []string{"relay.password_file", "leave one of them out"}},
		"no password file":    {"relay: {user: u, password_file: nowhere}\n", []string{"relay.password_file", "nowhere", "no such file"}},
		"stream in user":      {"relay: {user: 'key#ad'}\n", []string{"AppKey alone"}},
		"sendgrid user":       {"relay: {preset: sendgrid, user: me}\n", []string{"user name apikey"}},
		"reserve too large":   {"streams: {ad: {reserve: 190/1s}}\n", []string{"limits.messages", "add up to 210/1s, more than 200/1s"}},
		"own connections":     {"streams: {ad: {connections: 9}}\n", []string{"limits.connections.open: 10", "add up to 11"}},
		"several": {"relay: {prot: 1, tls: x}\nfoo: 1\n", []string{"configuration: 3 problems:",
			"relay.prot", "relay.tls", "foo"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(write(t, tc.text), true, nil)
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("Load of %q: %v, want an InvalidError", tc.text, err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Load of %q:\n%v\nwants %q", tc.text, err, want)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("a secret in %v", err)
			}
		})
	}
}

func TestRefusedEnvironment(t *testing.T) {
	t.Parallel()
	for e, want := range map[string]string{
		"SLUICE_RELAY_HOTS=x":        "SLUICE_RELAY_HOTS: unknown environment variable; did you mean SLUICE_RELAY_HOST?",
		"SLUICE_LIMITS_MESSAGES=":    "at least one",
		"SLUICE_RELAY_PORT=smtp":     `SLUICE_RELAY_PORT: relay.port: "smtp": want a whole number`,
		"SLUICE_RELAY_TLS=none":      "SLUICE_RELAY_TLS: relay.tls",
		"SLUICE_RELAY_PASSWORD=a\nb": "relay.password: (not shown): control character",
	} {
		if _, err := Load(filepath.Join(t.TempDir(), "none"), false, []string{e}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", e, err, want)
		}
	}
}

// A key that is wrong by itself must not be blamed a second time for what it does
// not go together with.
func TestNoSecondBlame(t *testing.T) {
	t.Parallel()
	_, err := Load(write(t, "relay: {preset: nhm, tls: nome}\n"), true, nil)
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Problems) != 2 {
		t.Errorf("want two problems: %v", err)
	}
}

// Unquoted, each of these means something else in YAML; none may arrive empty or
// appear in the error.
func TestPasswordsThatYAMLMisreads(t *testing.T) {
	t.Parallel()
	for _, pw := range []string{"*s3cret", "&s3cret", "!s3cret", "[s3cret]", "{s3cret: x}", "{s3cret: 1", "@s3cret", "%s3cret", "`s3cret", "s3cret: x", "|s3cret", "'s3cret"} {
		_, err := Load(write(t, "relay:\n  user: u\n  password: "+pw+"\n"), true, nil)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("password %s: %v", pw, err)
		}
		quoted := "'" + strings.ReplaceAll(pw, "'", "''") + "'"
		if c := load(t, "relay:\n  user: u\n  password: "+quoted+"\n"); c.Relay.Password.Reveal() != pw {
			t.Errorf("password %s quoted: %q", pw, c.Relay.Password.Reveal())
		}
	}
	for _, pw := range []string{"0123", "1e5", "true", "yes", "2024-01-01", "0x1F"} {
		if c := load(t, "relay: {user: u, password: "+pw+"}\n"); c.Relay.Password.Reveal() != pw {
			t.Errorf("password %s read as %q", pw, c.Relay.Password.Reveal())
		}
	}
}

func TestEmptySections(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "relay:\n  # user: x\nsender:\n", "{}\n", "---\n"} {
		if diff := cmp.Diff(values(Default()), values(load(t, text))); diff != "" {
			t.Errorf("%q changes something:\n%s", text, diff)
		}
	}
}

func TestPasswordFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "sluice.yaml")
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	put(name, "relay: {user: u, password_file: secret}\n", 0o644)
	secret := filepath.Join(dir, "secret") // relative names go by the file's directory
	for text, want := range map[string]string{"pw": "pw", "pw\n": "pw", "pw\r\n": "pw", " pw ": " pw "} {
		put(secret, text, 0o600)
		c, err := Load(name, true, nil)
		if err != nil || c.Relay.Password.Reveal() != want {
			t.Fatalf("file %q: %v, %v", text, c, err)
		}
		if len(c.Warnings()) != 0 {
			t.Errorf("warnings: %q", c.Warnings())
		}
	}
	put(secret, "pw", 0o644)
	if c, err := Load(name, true, nil); err != nil || len(c.Warnings()) != 1 || !strings.Contains(c.Warnings()[0], "chmod 600") {
		t.Errorf("readable for everybody: %v, %v", c.Warnings(), err)
	}
	for text, want := range map[string]string{"": "empty", "\n": "empty", "s3cret\nmore\n": "control character"} {
		put(secret, text, 0o600)
		if _, err := Load(name, true, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("file %q: %v, want %q", text, err, want)
		}
	}
	put(name, "relay: {user: u, password: pw}\n", 0o644)
	if c, err := Load(name, true, nil); err != nil || len(c.Warnings()) != 1 {
		t.Errorf("a password in a file that everybody reads: %v, %v", c, err)
	}
}

func TestDerivedDefaults(t *testing.T) {
	t.Parallel()
	c := load(t, "limits: {messages: [50/1s, 5/1m], connections: {open: 2}}\n")
	if diff := cmp.Diff([]Window{{5, time.Second}}, c.Streams.Auth.Reserve); diff != "" {
		t.Errorf("reserve: %s", diff)
	}
	if c.Streams.Auth.Connections != 1 {
		t.Errorf("%d connections for auth out of 2", c.Streams.Auth.Connections)
	}
	if c := load(t, "limits: {connections: {open: 1}}\n"); c.Streams.Auth.Connections != 0 {
		t.Errorf("%d connections for auth out of 1", c.Streams.Auth.Connections)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"redis: {url: 'redis://:pw@10.0.0.1'}":                                                    "rediss://",
		"redis: {url: embedded}":                                                                  "keeps nothing",
		"relay: {tls: none, insecure: true}":                                                      "in the clear",
		"relay: {preset: sendgrid}\nlimits: {per_connection: {messages: 6000}}":                   "5000 that SendGrid publishes",
		"relay: {preset: sendgrid}\nlimits: {connections: {open: 10000}}":                         "",
		"relay: {preset: gmail}\nlimits: {messages: [1/1s, 3000/24h]}":                            "2000/24h that Gmail publishes",
		"limits: {messages: 100/1s}\nstreams: {auth: {reserve: [5/1s, 5/1h]}}":                    "no window of 1h",
		"redis: {url: 'redis://:pw@127.0.0.1'}\nrelay: {host: '::1', tls: none, insecure: false}": "",
	} {
		got := strings.Join(load(t, text).Warnings(), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q warns %q, want %q", text, got, want)
		}
	}
}

func TestSenderComplete(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Sender.Name, c.Sender.Phone = "n", "p"
	if err := c.SenderComplete(); err == nil || !strings.HasPrefix(err.Error(), "sender.email, sender.address: empty") {
		t.Errorf("two missing: %v", err)
	}
	c.Relay.Host = "127.0.0.1"
	if err := c.SenderComplete(); err != nil {
		t.Errorf("loopback: %v", err)
	}
	c.Relay.Host, c.Sender.Email, c.Sender.Address = "relay.example.com", "a@example.com", "a"
	if err := c.SenderComplete(); err != nil {
		t.Errorf("complete: %v", err)
	}
}

func TestNothingShowsSecrets(t *testing.T) {
	t.Parallel()
	const pw = "s3cret"
	c := load(t, "redis: {url: 'redis://me:s3cret@127.0.0.1/0'}\nrelay: {user: u, password: s3cret}\n")
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		fmt.Fprintf(&b, verb+"\n", c.Relay)
		fmt.Fprintf(&b, verb+"\n", c.Redis)
		fmt.Fprintf(&b, verb+"\n", &c.Relay.Password)
		fmt.Fprintf(&b, verb+"\n", *c)
	}
	target, err := c.Redis.Target()
	if err != nil || target.Password.Reveal() != pw {
		t.Fatalf("target: %v, %v", target, err)
	}
	for _, v := range []any{c, c.Redacted(), target} {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(out)
	}
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "url", c.Redis.URL, "password", c.Relay.Password, "relay", c.Relay, "target", target)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "url", c.Redis.URL, "password", c.Relay.Password, "relay", c.Relay, "target", target)
	if s := b.String(); strings.Contains(s, pw) || strings.Contains(s, fmt.Sprintf("%x", pw)) || !strings.Contains(s, hidden) {
		t.Errorf("a secret in\n%s", s)
	}
}

func TestStreamsOf(t *testing.T) {
	t.Parallel()
	s := Default().Streams
	for _, stream := range mail.Streams() {
		if s.Of(stream).OnUnknown == "" {
			t.Errorf("no policy for %s", stream)
		}
	}
	if s.Of(mail.Ad).OnUnknown != Hold || s.Of(mail.Auth).TTL != 3*time.Minute {
		t.Errorf("policies mixed up: %+v", s)
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{documented, "relay: {prot: 1}", "a: &x [*x]", "relay: {<<: {port: 1}}", "limits: {messages: 1d/1d}", "\xef\xbb\xbfrelay: {}", "? {a: b}\n: c", sections} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLoader()
		l.readYAML("fuzz.yaml", data)
		l.followPreset()
		l.problems = append(l.problems, l.breaches(l.bad)...)
		if err := invalid(l.problems); err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a word")
			}
			return
		}
		// What loads is valid by itself too, and its values read back as themselves.
		if err := l.Validate(); err != nil {
			t.Fatalf("loaded, but %v", err)
		}
		for _, w := range l.Limits.Messages {
			if again, err := ParseWindow(w.String()); err != nil || again != w {
				t.Fatalf("%v reads back as %v, %v", w, again, err)
			}
		}
		for _, k := range l.keys() {
			var raw []string
			switch v := k.value.show().(type) {
			case []string:
				raw = v
			case string:
				if _, nothing := k.value.(patterns); nothing || strings.HasPrefix(k.path, "redis.url") || strings.HasPrefix(k.path, "relay.password") {
					continue
				}
				raw = []string{v}
			default:
				raw = []string{fmt.Sprint(v)}
			}
			if err := k.value.parse(raw); err != nil {
				t.Fatalf("%s shows %q, which it does not read: %v", k.path, raw, err)
			}
		}
		if d := l.Streams.Auth.TTL; d > 0 {
			if again, err := ParseDuration(formatDuration(d)); err != nil || again != d {
				t.Fatalf("%v reads back as %v, %v", d, again, err)
			}
		}
	})
}
