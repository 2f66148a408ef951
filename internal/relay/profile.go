package relay

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profileSpec is a profile with its parameters applied.
type profileSpec struct {
	strict    bool          // refuses what is out of order or malformed, however harmless
	plainAuth bool          // offers AUTH without TLS
	greetWait time.Duration // watches for early talkers before it greets
	noPipe    bool          // does not offer PIPELINING
	rules     []Rule
	bounces   *bouncing // what becomes of accepted mail is told afterwards; nil = nothing
	limits    *limits
}

// profile is a named behaviour. Its parameters and their defaults are data, so that help,
// errors and parsing cannot disagree.
type profile struct {
	name, about string
	params      []param
	build       func(values) profileSpec
}

type param struct {
	name, def string
	kind      kind
}

// kind is what a parameter's value must be.
type kind int

const (
	aCount kind = iota
	aShare
	aDuration
	aRate
	aCode
)

// Profiles returns the names of all profiles.
func Profiles() []string {
	var names []string
	for _, p := range profiles() {
		names = append(names, p.name)
	}
	return names
}

// ProfileHelp describes every profile and its parameters with their defaults, a line each.
func ProfileHelp() string {
	var b strings.Builder
	for _, p := range profiles() {
		fmt.Fprintf(&b, "  %-10s %s\n", p.name, p.about)
		if len(p.params) == 0 {
			continue
		}
		var ps []string
		for _, q := range p.params {
			if q.def == "" {
				ps = append(ps, q.name)
				continue
			}
			ps = append(ps, q.name+"="+q.def)
		}
		fmt.Fprintf(&b, "  %-10s   ?%s\n", "", strings.Join(ps, "&"))
	}
	return b.String()
}

// parseProfile reads NAME or NAME?param=value&...
func parseProfile(s string) (profileSpec, error) {
	name, query, _ := strings.Cut(s, "?")
	all := profiles()
	i := slices.IndexFunc(all, func(p profile) bool { return p.name == name })
	if i < 0 {
		return profileSpec{}, fmt.Errorf("relay: profile %q: there is %s", name, strings.Join(Profiles(), ", "))
	}
	given := values{}
	// Not url.ParseQuery: 5% is a share here and not half an escape.
	for pair := range strings.SplitSeq(query, "&") {
		key, val, found := strings.Cut(pair, "=")
		if !found && pair != "" {
			return profileSpec{}, fmt.Errorf("relay: profile %s: parameter %q: want name=value", name, pair)
		}
		if found {
			given[key] = append(given[key], val)
		}
	}
	v := values{}
	for _, p := range all[i].params {
		if p.def != "" {
			v[p.name] = []string{p.def}
		}
	}
	for key, vals := range given {
		j := slices.IndexFunc(all[i].params, func(p param) bool { return p.name == key })
		if j < 0 {
			return profileSpec{}, fmt.Errorf("relay: profile %s has no parameter %q, but %s", name, key, paramNames(all[i].params))
		}
		p := all[i].params[j]
		if len(vals) > 1 && p.kind != aRate {
			return profileSpec{}, fmt.Errorf("relay: profile %s: parameter %s is given %d times", name, key, len(vals))
		}
		for _, val := range vals {
			if err := p.kind.check(val); err != nil {
				return profileSpec{}, fmt.Errorf("relay: profile %s: parameter %s: %w", name, key, err)
			}
		}
		v[key] = vals
	}
	return all[i].build(v), nil
}

func paramNames(ps []param) string {
	if len(ps) == 0 {
		return "takes none"
	}
	var names []string
	for _, p := range ps {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func (k kind) check(s string) error {
	switch k {
	case aCount:
		if n, err := strconv.Atoi(s); err != nil || n < 0 {
			return fmt.Errorf("%q: want a whole number, 0 or more", s)
		}
	case aShare:
		_, err := parseShare(s)
		return err
	case aDuration:
		if d, err := time.ParseDuration(s); err != nil || d < 0 {
			return fmt.Errorf("%q: want a duration such as 250ms or 2s", s)
		}
	case aRate:
		_, err := parseRate(s)
		return err
	case aCode:
		if s != "421" && s != "452" {
			return fmt.Errorf("%q: want 421 (which closes) or 452", s)
		}
	}
	return nil
}

// parseShare reads "0.05" or "5%".
func parseShare(s string) (float64, error) {
	num, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f > 0 && f <= 1) {
		return 0, fmt.Errorf("share %q: want more than 0, up to 1 or 100%%", s)
	}
	return f, nil
}

// values are a profile's parameters. Every value in it has passed its kind's check, so
// the getters cannot fail; a parameter without value is the zero value.
type values map[string][]string

func (v values) first(name string) string {
	if len(v[name]) == 0 {
		return ""
	}
	return v[name][0]
}

func (v values) count(name string) int {
	n, _ := strconv.Atoi(v.first(name))
	return n
}

func (v values) share(name string) float64 {
	f, _ := parseShare(v.first(name))
	return f
}

func (v values) duration(name string) time.Duration {
	d, _ := time.ParseDuration(v.first(name))
	return d
}

func (v values) rates(name string) (rates []rate) {
	for _, s := range v[name] {
		if r, _ := parseRate(s); r.n > 0 {
			rates = append(rates, r)
		}
	}
	return rates
}
