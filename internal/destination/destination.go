// Package destination says which receiver a mail domain belongs to: naver, kakao,
// google and so on. A receiver counts what it gets over all of its domains, so pace
// and breakers go by group, not by domain.
//
// The groups are the shipped file groups.txt, with what the configuration adds or
// replaces in front of it. A Table answers by the domain's name alone. A Resolver
// also knows the domains that a receiver runs for its customers, by their MX, which
// it looks up in the background. Neither judges, limits or sends anything.
//
// A domain that belongs to no group, or is not known yet, is in the group "": there
// are no errors at look-up. What is wrong with a group is said by New, once.
package destination

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Group is one receiver. A nil list of a group given to New is the shipped list of
// the group of that name, an empty one is none.
type Group struct {
	Name    string
	Domains []string // patterns: naver.com, *.example.com, yahoo.*
	MX      []string // names of mail servers, with everything below them
}

// Table maps domains and mail servers to groups. It does not change.
type Table struct {
	own, shipped set // own goes first
	names        []string
}

// set is the patterns of some groups, each with its group's name.
type set struct {
	exact map[string]string // naver.com
	below map[string]string // *.example.com, without the *.
	tops  map[string]bool   // the top-level domains of below: most need look no further
	first map[string]string // yahoo.*, without the .*
	mx    map[string]string
}

// New returns the shipped groups with own ones before them: each adds a group or
// replaces the domains, the mail servers or both of a shipped one. The error names
// the group and the pattern.
func New(own ...Group) (*Table, error) {
	shipped, err := Shipped()
	if err != nil {
		return nil, err
	}
	t := &Table{own: newSet(), shipped: newSet()}
	names := map[string]bool{}
	for i, g := range own {
		if err := CheckName(g.Name); err != nil {
			return nil, fmt.Errorf("group %q: %w", g.Name, err)
		}
		if slices.ContainsFunc(own[:i], func(o Group) bool { return o.Name == g.Name }) {
			return nil, fmt.Errorf("group %s: given twice", g.Name)
		}
		if err := t.own.add(g); err != nil {
			return nil, err
		}
		names[g.Name] = true
	}
	for _, g := range shipped {
		names[g.Name] = true
		if i := slices.IndexFunc(own, func(o Group) bool { return o.Name == g.Name }); i >= 0 {
			if own[i].Domains != nil {
				g.Domains = nil
			}
			if own[i].MX != nil {
				g.MX = nil
			}
		}
		if err := t.shipped.add(g); err != nil {
			return nil, err
		}
	}
	t.names = slices.Sorted(maps.Keys(names))
	return t, nil
}

func newSet() set {
	return set{
		exact: map[string]string{}, below: map[string]string{}, tops: map[string]bool{},
		first: map[string]string{}, mx: map[string]string{},
	}
}

func (s set) add(g Group) error {
	for _, p := range g.Domains {
		if err := CheckPattern(p); err != nil {
			return fmt.Errorf("group %s: domain %q: %w", g.Name, p, err)
		}
		m, key := s.exact, p
		if rest, ok := strings.CutPrefix(p, "*."); ok {
			m, key = s.below, rest
			s.tops[rest[strings.LastIndexByte(rest, '.')+1:]] = true
		} else if rest, ok := strings.CutSuffix(p, ".*"); ok {
			m, key = s.first, rest
		}
		if has, ok := m[key]; ok {
			return fmt.Errorf("group %s: domain %q: it is in group %s already: a domain belongs to one group", g.Name, p, has)
		}
		m[key] = g.Name
	}
	for _, h := range g.MX {
		if err := CheckHost(h); err != nil {
			return fmt.Errorf("group %s: mx %q: %w", g.Name, h, err)
		}
		if has, ok := s.mx[h]; ok {
			return fmt.Errorf("group %s: mx %q: it is in group %s already: a mail server belongs to one group", g.Name, h, has)
		}
		s.mx[h] = g.Name
	}
	return nil
}

// Names returns all groups, in order.
func (t *Table) Names() []string { return slices.Clone(t.names) }

// Group returns the group of a domain (ASCII, lower case, as mail.Address has it),
// or "". It allocates nothing.
func (t *Table) Group(domain string) string {
	if g := t.own.group(domain); g != "" {
		return g
	}
	return t.shipped.group(domain)
}

func (s set) group(domain string) string {
	if g, ok := s.exact[domain]; ok {
		return g
	}
	top := domain[strings.LastIndexByte(domain, '.')+1:]
	if s.tops[top] {
		if g := under(s.below, domain, false); g != "" {
			return g
		}
	}
	if dot := strings.IndexByte(domain, '.'); dot >= 0 && anywhere(domain[dot+1:], top) {
		return s.first[domain[:dot]]
	}
	return ""
}

// anywhere reports whether a registry gives names under suffix, as far as big
// receivers have them: com, kr, co.kr, com.br. Anyone may call a host of his own
// domain yahoo.
func anywhere(suffix, top string) bool {
	if len(top) != 2 {
		return suffix == "com"
	}
	switch len(suffix) {
	case len("kr"):
		return true
	case len("co.kr"):
		return suffix[:3] == "co." || suffix[:3] == "ne."
	case len("com.br"):
		return suffix[:4] == "com."
	}
	return false
}

// OfMX returns the group of a mail server (lower case, without the final dot), or "".
func (t *Table) OfMX(host string) string {
	if g := under(t.own.mx, host, true); g != "" {
		return g
	}
	return under(t.shipped.mx, host, true)
}

// under returns the value of the longest name in m that name is below, or, with
// self, is.
func under(m map[string]string, name string, self bool) string {
	if g, ok := m[name]; ok && self {
		return g
	}
	for {
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return ""
		}
		name = name[dot+1:]
		if g, ok := m[name]; ok {
			return g
		}
	}
}

// maxName bounds a group's name, which becomes part of key names in Redis.
const maxName = 32

// CheckName wants a group's name: 1 to 32 lower-case letters, digits and
// underscores, a letter first.
func CheckName(s string) error {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return fmt.Errorf("want a name of 1 to %d lower-case letters, digits and underscores, a letter first", maxName)
	}
	return nil
}

// CheckPattern wants a domain's pattern: example.com, *.example.com or example.*.
func CheckPattern(s string) error {
	name := s
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		name = rest
	} else if rest, ok := strings.CutSuffix(s, ".*"); ok {
		if strings.Contains(rest, ".") || CheckHost(rest+".com") != nil {
			return fmt.Errorf("want one label before .*, as in yahoo.*")
		}
		return nil
	}
	if CheckHost(name) != nil {
		return fmt.Errorf("want a domain in lower case such as example.com, *.example.com or example.*; an internationalised one in its xn-- form")
	}
	return nil
}

// CheckHost wants a host name in lower case with at least one dot (RFC 1123
// section 2.1).
func CheckHost(s string) error {
	ok := len(s) <= 253 && strings.Contains(s, ".")
	for label := range strings.SplitSeq(s, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	if !ok {
		return fmt.Errorf("want a host name in lower case with a dot, such as mail.example.com")
	}
	return nil
}
