package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/destination"
)

// DefaultTTL is what a stream's ttl of 0 means.
const DefaultTTL = 72 * time.Hour

// policyRules hold between the keys that steer sending.
func (c *Config) policyRules() []rule {
	rules := []rule{
		{"redis.durability redis.url", func(c *Config) string {
			if c.Redis.URL != "embedded" || c.Redis.Durability == InMemory {
				return ""
			}
			return "redis.url embedded keeps nothing: want memory, or a Redis server"
		}},
		{"adaptive.floor adaptive.enabled limits.messages", func(c *Config) string {
			a := c.Adaptive
			if !a.Enabled && c.given("adaptive.floor") {
				return "has no effect while adaptive.enabled is false: leave it out"
			}
			for _, w := range c.Limits.Messages {
				if a.Enabled && w.Per <= time.Minute && a.Floor.perSecond() > w.perSecond() {
					return fmt.Sprintf("is above the limit of %s in limits.messages, from which the rate sinks", w)
				}
			}
			return ""
		}},
	}
	b := &c.Breakers
	for _, breaker := range []struct {
		at string
		*Share
	}{{"bounced", &b.Bounced}, {"blocked", &b.Blocked}, {"unknown", &b.Unknown}, {"group.bounced", &b.Group.Bounced}} {
		rules = append(rules, rule{"breakers." + breaker.at + " breakers.least", func(*Config) string {
			switch s := *breaker.Share; {
			case s == (Share{}):
			case b.Least > s.Last:
				return fmt.Sprintf("looks at the last %d results, but breakers.least wants %d: raise the one or lower the other", s.Last, b.Least)
			case s.Percent*float64(b.Least) < 100:
				return fmt.Sprintf("is less than one of the %d results that breakers.least wants: one reply would decide", b.Least)
			}
			return ""
		}})
	}
	for _, s := range c.streams() {
		rules = append(rules, streamRules(s)...)
	}
	return slices.Concat(rules, c.groupRules(), c.rampRules())
}

func (c *Config) groupRules() (rules []rule) {
	for _, name := range sortedKeys(c.Groups.Named) {
		if checkGroupName(name) != nil {
			continue // has been told
		}
		at := "groups." + name
		rules = append(rules,
			rule{at + ".messages " + at + ".domains " + at + ".mx " + at, func(c *Config) string { return c.groupless(name) }},
			rule{at + ".domains " + at + ".mx", func(c *Config) string { return c.groupRule(name) }},
			rule{at + ".mx groups.by_mx", func(c *Config) string {
				if len(c.Groups.Named[name].MX) == 0 || c.Groups.ByMX {
					return ""
				}
				return "has no effect while groups.by_mx is false: set that to true, or leave this out"
			}})
	}
	return rules
}

func (c *Config) rampRules() (rules []rule) {
	for _, name := range sortedKeys(c.WarmUp) {
		if checkSenderDomain(name) != nil {
			continue
		}
		at := "warm_up." + name
		rules = append(rules, rule{at + ".start " + at + ".ceiling " + at, func(c *Config) string {
			return c.WarmUp[name].wrong()
		}})
	}
	return rules
}

// wrong says what is missing or out of order; bounds are the keys' own.
func (r Ramp) wrong() string {
	switch {
	case r.Start == 0:
		return "not set: want the messages of the first 24 hours"
	case r.Ceiling == 0:
		return "without a ceiling: want the messages in 24 hours at which the ramp ends"
	case r.Start > r.Ceiling:
		return fmt.Sprintf("is above the ceiling of %d", r.Ceiling)
	}
	return ""
}

// groupless finds a name that is no group's, and limits of a group that is empty.
func (c *Config) groupless(name string) string {
	g := c.Groups.Named[name]
	shipped, err := destination.Shipped()
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, s := range shipped {
		names = append(names, s.Name)
	}
	switch {
	case len(g.Domains)+len(g.MX) > 0:
		return ""
	case !slices.Contains(names, name):
		return fmt.Sprintf("%s is no shipped group%s; give it domains, or take one of %s", name, suggest(name, names), strings.Join(names, ", "))
	case len(g.Messages) > 0 && g.Domains != nil && (g.MX != nil || !c.Groups.ByMX):
		return fmt.Sprintf("has no effect: %s has no domain left", name)
	}
	return ""
}

// groupRule finds what is wrong with one group beside those before it.
func (c *Config) groupRule(name string) string {
	all := c.Groups.list()
	i := slices.IndexFunc(all, func(g destination.Group) bool { return g.Name == name })
	for _, g := range all[:i] {
		if _, err := destination.New(g); err != nil {
			return "" // that one is at fault, and is told
		}
	}
	if _, err := destination.New(all[:i+1]...); err != nil {
		return err.Error()
	}
	return ""
}

// named is a stream with its name.
type named struct {
	name string
	*Stream
}

// streams returns the three, in the order of the documentation.
func (c *Config) streams() []named {
	return []named{{"auth", &c.Streams.Auth}, {"normal", &c.Streams.Normal}, {"ad", &c.Streams.Ad}}
}

func streamRules(s named) []rule {
	at := "streams." + s.name
	return []rule{
		{at + ".messages " + at + ".reserve", func(*Config) string {
			for _, w := range s.Messages {
				for _, r := range s.Reserve {
					if r.Per == w.Per && r.N > w.N {
						return fmt.Sprintf("is less than its reserve of %s: a stream that may not use what is kept for it", r)
					}
				}
			}
			return ""
		}},
		{at + ".retry.first " + at + ".retry.most", func(*Config) string {
			if s.Retry.First <= s.Retry.Most {
				return ""
			}
			return fmt.Sprintf("is longer than %s.retry.most, %s", at, formatDuration(s.Retry.Most))
		}},
		{at + ".retry.age " + at + ".ttl", func(*Config) string {
			ttl := s.TTL
			if ttl == 0 {
				ttl = DefaultTTL
			}
			if s.Retry.Age <= ttl {
				return ""
			}
			return fmt.Sprintf("mail of this stream expires after %s: raise %s.ttl, or want 0 for as long as that", formatDuration(ttl), at)
		}},
		{at + ".canary.wait " + at + ".canary.size", func(*Config) string {
			if s.Canary.Wait == 0 || s.Canary.Size != (Size{}) {
				return ""
			}
			return "has no effect with canary.size off: leave it out"
		}},
	}
}

// vainCaps names caps that can never be reached below the limit of all.
func (c *Config) vainCaps() []string {
	var out []string
	look := func(at string, caps, limits []Window, limit string) {
		for _, w := range caps {
			for _, l := range limits {
				if l.Per == w.Per && w.N >= l.N {
					out = append(out, fmt.Sprintf("%s: %s is no less than the %s of %s, and changes nothing", at, w, l, limit))
				}
			}
		}
	}
	for _, s := range c.streams() {
		look("streams."+s.name+".messages", s.Messages, c.Limits.Messages, "limits.messages")
		look("streams."+s.name+".openings", s.Openings, c.Limits.Connections.New, "limits.connections.new")
	}
	for _, name := range sortedKeys(c.Groups.Named) {
		look("groups."+name+".messages", c.Groups.Named[name].Messages, c.Limits.Messages, "limits.messages")
	}
	return out
}

// perSecond is the rate of a limit that is always used up.
func (w Window) perSecond() float64 { return float64(w.N) / w.Per.Seconds() }
