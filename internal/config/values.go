package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
)

// Window is a limit of N in any period Per.
type Window struct {
	N   int
	Per time.Duration
}

// The bounds of a window: shorter ones cannot be held over a fleet, longer ones
// outlive what Redis is trusted to remember.
const (
	minWindow = time.Second
	maxWindow = 31 * 24 * time.Hour
	maxCount  = 1_000_000_000
)

// ParseWindow reads COUNT/DURATION such as 60/1m.
func ParseWindow(s string) (Window, error) {
	count, per, ok := strings.Cut(s, "/")
	if !ok {
		return Window{}, errors.New("want COUNT/DURATION such as 60/1m")
	}
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil {
		return Window{}, fmt.Errorf("count %q: want a whole number, as in 60/1m", count)
	}
	d, err := ParseDuration(strings.TrimSpace(per))
	if err != nil {
		return Window{}, err
	}
	w := Window{n, d}
	return w, w.check()
}

func (w Window) check() error {
	switch {
	case w.N < 1 || w.N > maxCount:
		return fmt.Errorf("count %d: want 1 to %d", w.N, maxCount)
	case w.Per < minWindow || w.Per > maxWindow:
		return fmt.Errorf("duration %s: want %s to %s", formatDuration(w.Per), formatDuration(minWindow), formatDuration(maxWindow))
	}
	return nil
}

// String is the inverse of ParseWindow.
func (w Window) String() string { return fmt.Sprintf("%d/%s", w.N, formatDuration(w.Per)) }

// MarshalText is String.
func (w Window) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// ParseDuration reads a Go duration that may begin with days of 24 hours: 90s,
// 1h30m, 7d, 1d12h. It takes no negative one.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("duration %q: want a number and a unit such as 30s, 5m, 24h or 7d", s)
	var days time.Duration
	rest := s
	if before, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/(24*time.Hour)) {
			return 0, wrong
		}
		if days, rest = time.Duration(n)*24*time.Hour, after; rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-days || strings.HasPrefix(rest, "-") {
		return 0, wrong
	}
	return days + d, nil
}

// formatDuration is Duration.String without the zero units: 5m, not 5m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// value is one key's place in a Config. parse takes the text of a scalar as one
// element; check looks at what is there now, however it came there; errors of both
// say what is allowed and hold neither key nor value.
type value interface {
	parse(raw []string) error
	check() error
	show() any // string, int, bool or []string; nothing secret
}

// text is a single line; ok, where set, knows more.
type text struct {
	p  *string
	ok func(string) error
}

func (v text) parse(raw []string) error { *v.p = raw[0]; return v.check() }
func (v text) show() any                { return *v.p }

func (v text) check() error {
	if err := checkLine(*v.p); err != nil {
		return err
	}
	if v.ok == nil || *v.p == "" {
		return nil
	}
	return v.ok(*v.p)
}

// checkLine refuses what could end a line of SMTP or of a header.
func checkLine(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("control character %#02x: want one line of text", s[i])
		}
	}
	return nil
}

func checkHost(s string) error {
	switch {
	case strings.Contains(s, "://"):
		return errors.New("want a host name without a scheme")
	case len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:", r))
	}):
		return errors.New("want a host name or an IP address; an internationalised name in its xn-- form")
	case strings.Count(s, ":") == 1:
		return errors.New("want a host name alone: the port goes into relay.port")
	}
	return nil
}

// checkHello wants what RFC 5321 section 4.1.1.1 lets follow EHLO: a domain or an
// address literal.
func checkHello(s string) error {
	inner := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		inner = s[1 : len(s)-1]
	}
	if checkHost(inner) != nil || inner == s && strings.Contains(s, ":") {
		return errors.New("want this host's full name, or an IP address in brackets")
	}
	return nil
}

func checkAddress(s string) error {
	if _, err := mail.ParseAddress(s); err != nil {
		return fmt.Errorf("want a bare address such as news@example.com: %w", err)
	}
	return nil
}

type number struct {
	p        *int
	min, max int
}

func (v number) parse(raw []string) error {
	n, err := strconv.Atoi(raw[0])
	if err != nil {
		return v.wrong()
	}
	*v.p = n
	return v.check()
}

func (v number) check() error {
	if *v.p < v.min || *v.p > v.max {
		return v.wrong()
	}
	return nil
}

func (v number) wrong() error { return fmt.Errorf("want a whole number from %d to %d", v.min, v.max) }
func (v number) show() any    { return *v.p }

type truth struct{ p *bool }

func (v truth) parse(raw []string) error {
	switch raw[0] {
	case "true":
		*v.p = true
	case "false":
		*v.p = false
	default:
		return errors.New("want true or false")
	}
	return nil
}

func (truth) check() error { return nil }
func (v truth) show() any  { return *v.p }

// choice is one word out of some.
type choice[T ~string] struct {
	p  *T
	of []T
}

func (v choice[T]) parse(raw []string) error { *v.p = T(raw[0]); return v.check() }
func (v choice[T]) show() any                { return string(*v.p) }

func (v choice[T]) check() error {
	words := make([]string, len(v.of))
	for i, w := range v.of {
		if w == *v.p {
			return nil
		}
		words[i] = string(w)
	}
	return errors.New("want " + oneOf(words) + suggest(string(*v.p), words))
}

// span is a duration from min to max.
type span struct {
	p        *time.Duration
	min, max time.Duration
	none     bool // 0 is allowed too, and means none
}

func (v span) parse(raw []string) error {
	d, err := ParseDuration(raw[0])
	if err != nil {
		return errors.New("want a duration such as 30s, 5m, 24h or 7d")
	}
	*v.p = d
	return v.check()
}

func (v span) check() error {
	if *v.p >= v.min && *v.p <= v.max || v.none && *v.p == 0 {
		return nil
	}
	or := ""
	if v.none {
		or = ", or 0 for none"
	}
	return fmt.Errorf("want a duration from %s to %s%s", formatDuration(v.min), formatDuration(v.max), or)
}

func (v span) show() any { return formatDuration(*v.p) }

// windows is a list of limits, no two for the same period.
type windows struct {
	p    *[]Window
	none bool // an empty list is allowed
}

func (v windows) parse(raw []string) error {
	list := make([]Window, 0, len(raw))
	for _, s := range raw {
		w, err := ParseWindow(s)
		if err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
		list = append(list, w)
	}
	*v.p = list
	return v.check()
}

func (v windows) check() error {
	if len(*v.p) == 0 && !v.none {
		return errors.New("want at least one COUNT/DURATION; for a relay without limits a high one, such as 10000/1s")
	}
	seen := map[time.Duration]bool{}
	for _, w := range *v.p {
		if err := w.check(); err != nil {
			return fmt.Errorf("%q: %w", w, err)
		}
		if seen[w.Per] {
			return fmt.Errorf("two limits for %s: want one", formatDuration(w.Per))
		}
		seen[w.Per] = true
	}
	return nil
}

func (windows) example() string { return "COUNT/DURATION values such as [200/1s, 500000/24h]" }

func (v windows) show() any {
	out := make([]string, len(*v.p))
	for i, w := range *v.p {
		out[i] = w.String()
	}
	return out
}

type password struct{ p *Secret }

func (v password) parse(raw []string) error { *v.p = NewSecret(raw[0]); return v.check() }
func (v password) check() error             { return checkLine(v.p.Reveal()) }

func (v password) show() any {
	if v.p.Empty() {
		return ""
	}
	return hidden
}

type redisURL struct{ p *RedisURL }

func (v redisURL) parse(raw []string) error { *v.p = RedisURL(raw[0]); return v.check() }
func (v redisURL) show() any                { return v.p.String() }

func (v redisURL) check() error {
	if err := checkLine(v.p.Reveal()); err != nil {
		return err
	}
	_, err := Redis{URL: *v.p}.Target()
	return err
}
