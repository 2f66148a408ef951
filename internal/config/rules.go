package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Problem is one thing wrong with the configuration.
type Problem struct {
	Where string `json:"where,omitempty"` // "sluice.yaml:7", "SLUICE_RELAY_PORT", or "" for defaults and programs
	Key   string `json:"key,omitempty"`   // "relay.port", or "" where it is about no key
	Text  string `json:"text"`            // the value, what is wrong with it, and what is allowed
}

// Error returns the problem on one line.
func (p Problem) Error() string {
	parts := make([]string, 0, 3)
	for _, s := range []string{p.Where, p.Key, p.Text} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// InvalidError is everything wrong with a configuration, in the order in which it
// was found. There is at least one problem.
type InvalidError struct{ Problems []Problem }

// Error lists the problems, one a line.
func (e *InvalidError) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d problems:", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.Error())
	}
	return b.String()
}

// Validate checks every value and every combination. It returns nil or an
// *InvalidError. Load has done it already.
func (c *Config) Validate() error {
	bad := map[string]bool{}
	var problems []Problem
	for _, k := range c.keys() {
		if err := k.value.check(); err != nil {
			bad[k.path] = true
			problems = append(problems, Problem{c.where(k.path), k.path, quoted(k) + ": " + err.Error()})
		}
	}
	for _, f := range c.families() {
		for _, name := range f.names() {
			if err := f.check(name); err != nil {
				problems = append(problems, Problem{c.where(f.path + "." + name), f.path + "." + name, err.Error()})
			}
		}
	}
	return invalid(append(problems, c.breaches(bad)...))
}

func invalid(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &InvalidError{problems}
}

// where is the place to go and change the first of the values that was given, or "".
func (c *Config) where(paths ...string) string {
	for _, p := range paths {
		if c.given(p) {
			return c.origin(p)
		}
	}
	return ""
}

func quoted(k key) string {
	switch v := k.value.show().(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		return fmt.Sprintf("%q", strings.Join(v, ", "))
	default:
		return fmt.Sprint(v)
	}
}

// rule is a combination of keys that must hold. It is not asked while one of the
// keys is wrong by itself. The problem is put to the first of them.
type rule struct {
	keys  string // separated by spaces
	check func(*Config) string
}

// breaches returns the combinations that cannot work.
func (c *Config) breaches(bad map[string]bool) []Problem {
	byPath := map[string]key{}
	for _, k := range c.keys() {
		byPath[k.path] = k
	}
	var out []Problem
next:
	for _, r := range slices.Concat(relayRules(), limitRules(), c.policyRules()) {
		paths := strings.Fields(r.keys)
		for _, p := range paths {
			if bad[p] {
				continue next
			}
		}
		if text := r.check(c); text != "" {
			out = append(out, Problem{c.where(paths...), paths[0], quoted(byPath[paths[0]]) + ": " + text})
		}
	}
	return out
}

func relayRules() []rule {
	return []rule{
		{"relay.host relay.preset", func(c *Config) string {
			if c.Relay.Host != "" {
				return ""
			}
			return fmt.Sprintf("with preset %s set it to %s", c.Relay.Preset, c.Relay.Preset.facts().hostHint)
		}},
		{"relay.port relay.tls relay.preset relay.host", func(c *Config) string {
			f, r := c.Relay.Preset.facts(), c.Relay
			if f.host == "" || !strings.EqualFold(f.host, r.Host) || !f.wrongTLS(r.Port, r.TLS) {
				return ""
			}
			return fmt.Sprintf("with tls %s; want %s for starttls, or %s for implicit", r.TLS, ports(f.starttls), ports(f.tls))
		}},
		{"relay.tls relay.host relay.insecure", func(c *Config) string {
			if c.Relay.TLS != NoTLS || c.Relay.Insecure || c.Relay.Loopback() {
				return ""
			}
			return fmt.Sprintf("%s is not loopback, and password and mail would cross the network in the clear: "+
				"want starttls or implicit, or insecure: true to do it all the same", c.Relay.Host)
		}},
		{"relay.insecure relay.tls", func(c *Config) string {
			if !c.Relay.Insecure || c.Relay.TLS == NoTLS {
				return ""
			}
			return fmt.Sprintf("has no effect with tls %s: leave it out; to trust a private certificate set ca_file", c.Relay.TLS)
		}},
		{"relay.ca_file relay.tls", func(c *Config) string {
			if c.Relay.CAFile == "" || c.Relay.TLS != NoTLS {
				return ""
			}
			return "has no effect with tls none: leave it out"
		}},
		{"relay.auth relay.user relay.password relay.password_file", func(c *Config) string { return loginRule(c.Relay) }},
		{"relay.user relay.password relay.password_file relay.auth", func(c *Config) string {
			if c.Relay.User != "" || c.Relay.Password.Empty() || c.Relay.Auth != AuthAuto {
				return ""
			}
			return "there is a password but no user: set it to " + c.Relay.Preset.facts().user
		}},
		{"relay.user relay.preset", func(c *Config) string {
			f, u := c.Relay.Preset.facts(), c.Relay.User
			switch {
			case c.Relay.Preset == NHN && strings.Contains(u, "#"):
				return "want the AppKey alone: the program appends #auth, #normal or #ad by stream"
			case f.fixedUser != "" && u != "" && u != f.fixedUser:
				return fmt.Sprintf("%s wants the user name %s for everybody", f.name, f.fixedUser)
			}
			return ""
		}},
	}
}

// loginRule wants auth, user and password to go together. What is merely missing is
// for Relay.LoginComplete to say.
func loginRule(r Relay) string {
	switch {
	case r.Auth == AuthNone && r.User != "":
		return "but relay.user is set: leave one of them out"
	case r.Auth == AuthNone && !r.Password.Empty():
		return "but a password is set: leave one of them out"
	case (r.Auth == AuthPlain || r.Auth == AuthLogin) && r.User == "":
		return "without relay.user: set it to " + r.Preset.facts().user
	}
	return ""
}

func limitRules() []rule {
	const reserves = "streams.auth.reserve streams.normal.reserve streams.ad.reserve"
	const connections = "streams.auth.connections streams.normal.connections streams.ad.connections"
	return []rule{
		{"limits.messages " + reserves, func(c *Config) string {
			for _, w := range c.Limits.Messages {
				if sum := c.reserved(w.Per); sum > w.N {
					return fmt.Sprintf("the streams' reserves add up to %s, more than %s", Window{sum, w.Per}, w)
				}
			}
			return ""
		}},
		{"limits.connections.open " + connections, func(c *Config) string {
			s := c.Streams
			if sum := s.Auth.Connections + s.Normal.Connections + s.Ad.Connections; sum > c.Limits.Connections.Open {
				return fmt.Sprintf("the streams' own connections add up to %d, more than this", sum)
			}
			return ""
		}},
	}
}

// reserved adds up what the streams reserve in windows of length per.
func (c *Config) reserved(per time.Duration) int {
	sum := 0
	for _, s := range c.streams() {
		for _, w := range s.Reserve {
			if w.Per == per {
				sum += w.N
			}
		}
	}
	return sum
}

func ports(list []int) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = fmt.Sprint(p)
	}
	return oneOf(words)
}

// suspicions returns what is allowed but deserves a second look.
func (c *Config) suspicions() []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	f, l := c.Relay.Preset.facts(), c.Limits
	if t, err := c.Redis.Target(); err == nil && !t.Password.Empty() && t.plaintextToAfar() {
		warn("redis.url: the password and the recipients cross the network in the clear: use rediss:// where the server has TLS")
	}
	if t, err := c.Redis.Target(); err == nil && t.Embedded {
		warn("redis.url: embedded keeps nothing: what is queued is lost when the program ends")
	}
	if c.Relay.TLS == NoTLS && !c.Relay.Loopback() {
		warn("relay.insecure: password and mail go to %s in the clear", c.Relay.Host)
	}
	if f.most.open > 0 && l.Connections.Open > f.most.open {
		warn("limits.connections.open: %d is above the %d that %s publishes", l.Connections.Open, f.most.open, f.name)
	}
	if f.most.perConnection > 0 && l.PerConnection.Messages > f.most.perConnection {
		warn("limits.per_connection.messages: %d is above the %d that %s publishes", l.PerConnection.Messages, f.most.perConnection, f.name)
	}
	for _, top := range f.messagesAtMost {
		for _, w := range l.Messages {
			if w.Per == top.Per && w.N > top.N {
				warn("limits.messages: %s is above the %s that %s publishes", w, top, f.name)
			}
		}
	}
	return append(append(out, c.idleReserves()...), c.vainCaps()...)
}

// idleReserves names reserves in windows that have no limit: nothing to share there.
func (c *Config) idleReserves() []string {
	limited := map[time.Duration]bool{}
	for _, w := range c.Limits.Messages {
		limited[w.Per] = true
	}
	var out []string
	for _, s := range c.streams() {
		for _, w := range s.Reserve {
			if !limited[w.Per] {
				out = append(out, fmt.Sprintf("streams.%s.reserve: limits.messages has no window of %s to reserve %s of",
					s.name, formatDuration(w.Per), w))
			}
		}
	}
	return out
}
