package config

import (
	"strings"
	"time"
)

// key ties a name in the file to its place in a Config.
type key struct {
	path  string // "relay.host"
	value value
}

// env is the key's environment variable: SLUICE_RELAY_HOST.
func (k key) env() string { return envName(k.path) }

const envPrefix = "SLUICE_"

// list is a value of several elements.
type list interface{ example() string }

func (k key) isList() bool {
	_, ok := k.value.(list)
	return ok
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// keys lists every key there is, in the order of the documentation. File,
// environment, checks and output all go by this table.
func (c *Config) keys() []key {
	keys := c.relayKeys()
	for _, s := range c.streams() {
		keys = append(keys, streamKeys(s)...)
	}
	keys = append(keys, key{"groups.by_mx", truth{&c.Groups.ByMX}})
	keys = append(keys, c.members("groups")...)
	b := &c.Breakers
	keys = append(keys,
		key{"breakers.bounced", share{&b.Bounced}},
		key{"breakers.blocked", share{&b.Blocked}},
		key{"breakers.unknown", share{&b.Unknown}},
		key{"breakers.least", number{&b.Least, 1, maxLast}},
		key{"breakers.group.bounced", share{&b.Group.Bounced}},
		key{"breakers.group.blocks", window{&b.Group.Blocks, true}},
		key{"breakers.group.blocks_of", tally{&b.Group.BlocksOf}},
		key{"breakers.group.hold", span{&b.Group.Hold, time.Second, day, false}},
		key{"verdicts.file", text{&c.Verdicts.File, nil}},
	)
	return append(keys, c.members("warm_up")...)
}

// relayKeys are those of the account at the relay and of Redis.
func (c *Config) relayKeys() []key {
	r, l := &c.Relay, &c.Limits
	return []key{
		{"redis.url", redisURL{&c.Redis.URL}},
		{"redis.prefix", keyPrefix{&c.Redis.Prefix}},
		{"redis.durability", choice[Durability]{&c.Redis.Durability, []Durability{InMemory, AOF, Fsync}}},
		{"redis.retention", span{&c.Redis.Retention, time.Second, year, false}},
		{"relay.preset", choice[Preset]{&r.Preset, []Preset{NHN, SES, SendGrid, Mailgun, Gmail, Custom}}},
		{"relay.host", text{&r.Host, checkHost}},
		{"relay.port", number{&r.Port, 1, 65535}},
		{"relay.tls", choice[TLSMode]{&r.TLS, []TLSMode{StartTLS, ImplicitTLS, NoTLS}}},
		{"relay.ca_file", text{&r.CAFile, nil}},
		{"relay.user", text{&r.User, nil}},
		{"relay.password", password{&r.Password}},
		{"relay.password_file", text{&r.PasswordFile, nil}},
		{"relay.auth", choice[AuthMode]{&r.Auth, []AuthMode{AuthAuto, AuthPlain, AuthLogin, AuthNone}}},
		{"relay.pipelining", choice[Pipelining]{&r.Pipelining, []Pipelining{PipelineAuto, PipelineFull, PipelineGroup, PipelineOff}}},
		{"relay.hello", text{&r.Hello, checkHello}},
		{"relay.insecure", truth{&r.Insecure}},
		{"sender.name", text{&c.Sender.Name, nil}},
		{"sender.email", text{&c.Sender.Email, checkAddress}},
		{"sender.phone", text{&c.Sender.Phone, nil}},
		{"sender.address", text{&c.Sender.Address, nil}},
		{"limits.connections.open", number{&l.Connections.Open, 1, 10_000}},
		{"limits.connections.new", windows{&l.Connections.New, false}},
		{"limits.messages", windows{&l.Messages, false}},
		{"limits.per_connection.messages", number{&l.PerConnection.Messages, 1, maxCount}},
		{"limits.per_connection.age", span{&l.PerConnection.Age, time.Second, day, false}},
		{"limits.per_connection.idle", span{&l.PerConnection.Idle, time.Second, day, false}},
		{"adaptive.enabled", truth{&c.Adaptive.Enabled}},
		{"adaptive.floor", window{&c.Adaptive.Floor, false}},
	}
}

func streamKeys(s named) []key {
	at := "streams." + s.name
	return []key{
		{at + ".messages", windows{&s.Messages, true}},
		{at + ".openings", windows{&s.Openings, true}},
		{at + ".reserve", windows{&s.Reserve, true}},
		{at + ".connections", number{&s.Connections, 0, 10_000}},
		{at + ".ttl", span{&s.TTL, time.Second, year, true}},
		{at + ".on_unknown", choice[OnUnknown]{&s.OnUnknown, []OnUnknown{Resend, Hold}}},
		{at + ".retry.first", span{&s.Retry.First, time.Second, 7 * day, false}},
		{at + ".retry.most", span{&s.Retry.Most, time.Second, 7 * day, false}},
		{at + ".retry.attempts", number{&s.Retry.Attempts, 0, 1000}},
		{at + ".retry.age", span{&s.Retry.Age, time.Second, year, true}},
		{at + ".canary.size", size{&s.Canary.Size}},
		{at + ".canary.wait", span{&s.Canary.Wait, time.Second, 7 * day, true}},
	}
}

// suggest returns a question that names the word of list nearest to s, or "" where
// none is near enough to be meant.
func suggest(s string, list []string) string {
	best, least := "", max(1, len(s)/3)+1
	for _, w := range list {
		if d := distance(s, w); d < least {
			best, least = w, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the edit distance in which swapping two neighbours counts as one.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	// Three rows of the usual table; swaps look back two.
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
