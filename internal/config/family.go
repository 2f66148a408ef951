package config

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/sluicemail/sluice/internal/destination"
)

// family is a section whose keys stand below names that the operator chooses, such
// as groups.naver.messages.
type family struct {
	path   string             // "groups"
	what   string             // what its names are, in words
	check  func(string) error // of a name
	names  func() []string    // those there are, in order
	add    func(name string)  // makes room for one
	fields func(name string) []key
	// decode is the inverse of what envName does to a name.
	decode func(string) string
}

// families lists the sections with names.
func (c *Config) families() []family {
	return []family{
		{
			path: "groups", what: "a group's name", check: checkGroupName, decode: strings.ToLower,
			names: func() []string { return sortedKeys(c.Groups.Named) },
			add:   func(name string) { c.Groups.Named[name] = &Group{} },
			fields: func(name string) []key {
				g, at := c.Groups.Named[name], "groups."+name
				return []key{
					{at + ".domains", patterns{&g.Domains, destination.CheckPattern, "domains such as [example.com, '*.example.com', 'example.*']"}},
					{at + ".mx", patterns{&g.MX, destination.CheckHost, "names of mail servers such as [mx.example.com]"}},
					{at + ".messages", windows{&g.Messages, true}},
				}
			},
		},
		{
			path: "warm_up", what: "a sender domain or '*'", check: checkSenderDomain, decode: decodeDomain,
			names: func() []string { return sortedKeys(c.WarmUp) },
			add:   func(name string) { c.WarmUp[name] = &Ramp{Factor: 1.5} },
			fields: func(name string) []key {
				r, at := c.WarmUp[name], "warm_up."+name
				return []key{
					{at + ".start", number{&r.Start, 1, maxCount}},
					{at + ".factor", decimal{&r.Factor, 1.01, 10}},
					{at + ".ceiling", number{&r.Ceiling, 1, maxCount}},
				}
			},
		},
	}
}

// members are the keys below the names of one family.
func (c *Config) members(path string) []key {
	var out []key
	for _, f := range c.families() {
		if f.path != path {
			continue
		}
		for _, name := range f.names() {
			out = append(out, f.fields(name)...)
		}
	}
	return out
}

func (c *Config) family(path string) (family, bool) {
	all := c.families()
	if i := slices.IndexFunc(all, func(f family) bool { return f.path == path }); i >= 0 {
		return all[i], true
	}
	return family{}, false
}

// admit makes the keys below a name known. The name was checked.
func (l *loader) admit(f family, name, where string) {
	at := f.path + "." + name
	if _, ok := l.origins[at]; ok {
		return
	}
	l.origins[at] = origin{where, true}
	f.add(name)
	for _, k := range f.fields(name) {
		l.byPath[k.path] = k
	}
}

// readMember reads a variable whose name holds one that the operator chose:
// SLUICE_GROUPS_NAVER_MESSAGES. It reports whether it is one.
func (l *loader) readMember(variable, v string) bool {
	for _, f := range l.families() {
		rest, ok := strings.CutPrefix(variable, envName(f.path)+"_")
		if !ok {
			continue
		}
		at := strings.LastIndexByte(rest, '_')
		if at < 1 {
			return false
		}
		name, field := f.decode(rest[:at]), strings.ToLower(rest[at+1:])
		if err := f.check(name); err != nil {
			l.fault(variable, "", "%q: %v", name, err)
			return true
		}
		l.admit(f, name, variable)
		k, ok := l.byPath[f.path+"."+name+"."+field]
		if !ok {
			return false
		}
		l.setText(k, variable, v)
		return true
	}
	return false
}

func checkGroupName(s string) error {
	if s == "by" {
		// SLUICE_GROUPS_BY_MX is groups.by_mx.
		return errors.New("this name is kept: want another one")
	}
	return destination.CheckName(s)
}

func checkSenderDomain(s string) error {
	if s == "*" {
		return nil
	}
	if err := destination.CheckHost(s); err != nil {
		return errors.New("want a sender domain in lower case such as example.com, an internationalised one in its xn-- form, or '*' for the whole account")
	}
	return nil
}

// envName writes a key as an environment variable. What stands for a dot, an
// underscore, is no part of a domain; a hyphen becomes two.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "__", "*", everyDomain).Replace(path))
}

// everyDomain is '*' in a variable's name. No domain is called so: each has a dot.
const everyDomain = "ALL"

func decodeDomain(s string) string {
	if s == everyDomain {
		return "*"
	}
	return strings.ToLower(strings.NewReplacer("__", "-", "_", ".").Replace(s))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
