// Package config reads the configuration of the outside contract: built-in
// defaults, then a YAML file, then SLUICE_* environment variables, then the rules
// that hold between keys.
//
// Every key is obeyed or refused. An unknown key, a bad value or a combination
// that cannot work is an error that names where it stands, the key, the value and
// what is allowed; all of them are reported at once, as an [InvalidError]. Nothing
// is clamped or guessed: a default may follow from another key, a given value
// never changes.
//
// Secrets are of types that print as ***. The package opens no connection; it
// reads the configuration file, relay.password_file and relay.ca_file and nothing
// else. Of verdicts.file it wants only that it is there.
package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// DefaultFile is the configuration file looked for in the working directory when
// none is named.
const DefaultFile = "sluice.yaml"

// Config is the whole configuration. Get one from [Load] or [Default]; one changed
// by hand is checked with [Config.Validate].
type Config struct {
	Redis    Redis
	Relay    Relay
	Sender   Sender
	Limits   Limits
	Adaptive Adaptive
	Streams  Streams
	Groups   Groups
	Breakers Breakers
	Verdicts Verdicts
	WarmUp   map[string]*Ramp // by sender domain, or "*"

	file     string            // the file read, "" when there was none
	origins  map[string]origin // by key: where the value comes from; no entry: built in
	warnings []string
}

// Redis says where the queue and the ledger live.
type Redis struct {
	URL        RedisURL      // see [Redis.Target] for its forms
	Prefix     string        // of every key there; two installations on one Redis differ in it
	Durability Durability    // what a server must have switched on
	Retention  time.Duration // how long a campaign's data stays after its end
}

// Sender is the block that advertising mail must show.
type Sender struct {
	Name, Email, Phone, Address string
}

// Limits are those of the whole fleet, not of one process.
type Limits struct {
	Connections   Connections
	Messages      []Window // each counts every MAIL command; at least one, no two of the same length
	PerConnection PerConnection
}

// Connections limits connections to the relay.
type Connections struct {
	Open int      // at once, all streams and processes together
	New  []Window // each counts every attempt to connect, refused ones too
}

// PerConnection says when a connection is closed and replaced: whichever comes first.
type PerConnection struct {
	Messages int
	Age      time.Duration
	Idle     time.Duration
}

// Streams holds the policy of each stream.
type Streams struct {
	Auth, Normal, Ad Stream
}

// Stream is the policy of one stream.
type Stream struct {
	Messages    []Window      // the most it may begin, beside Limits.Messages; empty: no more than that
	Openings    []Window      // connections it may open, beside Limits.Connections.New; empty: no more than that
	Reserve     []Window      // its share of Limits.Messages that no other stream may use up
	Connections int           // its share of Limits.Connections.Open; 0 is none of its own
	TTL         time.Duration // from enqueue to MAIL, after which a message is expired; 0 is DefaultTTL
	OnUnknown   OnUnknown
	Retry       Retry
	Canary      Canary
}

// OnUnknown says what happens to a recipient whose outcome a crash has hidden.
type OnUnknown string

// The two policies.
const (
	Resend OnUnknown = "resend" // send again, and list as maybe_twice
	Hold   OnUnknown = "hold"   // wait for the operator to settle it
)

// Default returns the built-in configuration: what a missing file means.
func Default() *Config {
	retry := Retry{First: time.Minute, Most: 4 * time.Hour, Attempts: 50}
	canary := Canary{Size: Size{Percent: 1}}
	c := &Config{
		Redis: Redis{URL: "redis://127.0.0.1:6379/0", Prefix: "sluice", Durability: AOF, Retention: 30 * 24 * time.Hour},
		Relay: Relay{Preset: NHN, Auth: AuthAuto, Pipelining: PipelineAuto}, // host, port and tls: the preset's
		Limits: Limits{
			Connections:   Connections{Open: 10, New: []Window{{60, time.Minute}}},
			Messages:      []Window{{200, time.Second}, {500_000, 24 * time.Hour}},
			PerConnection: PerConnection{Messages: 500, Age: 5 * time.Minute, Idle: 30 * time.Second},
		},
		Adaptive: Adaptive{Enabled: true, Floor: Window{1, time.Second}},
		Streams: Streams{
			Auth: Stream{
				Reserve:     []Window{{20, time.Second}, {20_000, 24 * time.Hour}},
				Connections: 2,
				TTL:         3 * time.Minute,
				OnUnknown:   Resend,
				Retry:       Retry{First: 2 * time.Second, Most: 30 * time.Second, Attempts: 20},
			},
			Normal: Stream{OnUnknown: Resend, Retry: retry, Canary: canary},
			Ad:     Stream{OnUnknown: Hold, Retry: retry, Canary: canary},
		},
		Groups: Groups{Named: map[string]*Group{}},
		// What gets an account restricted is published by few relays (5 % of hard bounces
		// puts one of Amazon SES under review; NHN names no figure): well below that.
		Breakers: Breakers{
			Bounced: Share{3, 500}, Blocked: Share{2, 500}, Unknown: Share{10, 500}, Least: 200,
			// A group's results are those of many campaigns: the one at fault is to stop first.
			Group: GroupBreaker{Bounced: Share{10, 500}, Blocks: Window{5, 10 * time.Minute}, BlocksOf: Tally{3, 50}, Hold: time.Hour},
		},
		WarmUp:  map[string]*Ramp{},
		origins: map[string]origin{},
	}
	c.followPreset()
	return c
}

// Of returns the policy of stream s, and the zero policy where s is none of the
// three.
func (s Streams) Of(stream mail.Stream) Stream {
	switch stream {
	case mail.Auth:
		return s.Auth
	case mail.Normal:
		return s.Normal
	case mail.Ad:
		return s.Ad
	}
	return Stream{}
}

// File returns the name of the file that was read, or "" when there was none.
func (c *Config) File() string { return c.file }

// Warnings returns what is allowed but deserves a second look, one line each. None
// holds a secret.
func (c *Config) Warnings() []string { return c.warnings }

// SenderComplete returns an error that names the sender keys still empty, for mail
// that must show them. While the relay is on loopback nothing leaves the machine
// and a sample sender will do, so it is nil then.
func (c *Config) SenderComplete() error {
	if c.Relay.Loopback() {
		return nil
	}
	var missing []string
	for _, k := range []struct{ key, value string }{
		{"sender.name", c.Sender.Name}, {"sender.email", c.Sender.Email},
		{"sender.phone", c.Sender.Phone}, {"sender.address", c.Sender.Address},
	} {
		if k.value == "" {
			missing = append(missing, k.key)
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%s: empty, but mail that leaves this machine must show who sends it: set them in %s",
		strings.Join(missing, ", "), c.fileToEdit())
}

func (c *Config) fileToEdit() string {
	if c.file != "" {
		return c.file
	}
	return DefaultFile
}

// Setting is one key of the effective configuration, fit to be shown to anyone.
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`  // string, int, bool or []string; a secret that is set is "***"
	Origin string `json:"origin"` // "default", "preset nhn", "sluice.yaml:7", "SLUICE_RELAY_HOST", ...
}

// Redacted returns every key with its effective value and where that comes from,
// in the order of the documentation.
func (c *Config) Redacted() []Setting {
	keys := c.keys()
	out := make([]Setting, len(keys))
	for i, k := range keys {
		out[i] = Setting{k.path, k.value.show(), c.origin(k.path)}
	}
	return out
}

// origin says where a value comes from.
type origin struct {
	text  string // "sluice.yaml:7", "SLUICE_RELAY_HOST", "preset nhn", ...
	given bool   // by the operator; else it is a default
}

func (c *Config) origin(path string) string {
	if o, ok := c.origins[path]; ok {
		return o.text
	}
	return "default"
}

// given reports whether the operator set the key.
func (c *Config) given(path string) bool { return c.origins[path].given }
