package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// off is how a limit that may be absent is written.
const off = "off"

// maxLast bounds how many results are looked back on: they are kept in Redis, one
// character each.
const maxLast = 5000

// parsePercent reads 3% or 0.5%.
func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	p, err := parseDecimal(number)
	if !ok || err != nil || p <= 0 || p > 100 {
		return 0, fmt.Errorf("%q: want a percentage above 0%% and up to 100%%, such as 0.5%%", s)
	}
	return p, nil
}

// parseDecimal is strconv.ParseFloat without exponents, hexadecimals and infinity.
func parseDecimal(s string) (float64, error) {
	if len(s) > 12 || strings.Trim(s, "0123456789.") != "" {
		return 0, errors.New("want a decimal number")
	}
	return strconv.ParseFloat(s, 64)
}

func formatDecimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// String is "3%/500", or "off".
func (s Share) String() string {
	if s == (Share{}) {
		return off
	}
	return fmt.Sprintf("%s%%/%d", formatDecimal(s.Percent), s.Last)
}

// String is "3/50", or "off".
func (t Tally) String() string {
	if t == (Tally{}) {
		return off
	}
	return fmt.Sprintf("%d/%d", t.N, t.Last)
}

// String is "1%", "200" or "off".
func (s Size) String() string {
	switch {
	case s == Size{}:
		return off
	case s.Percent > 0:
		return formatDecimal(s.Percent) + "%"
	}
	return strconv.Itoa(s.Count)
}

// decimal is a number with a fraction.
type decimal struct {
	p        *float64
	min, max float64
}

func (v decimal) parse(raw []string) error {
	f, err := parseDecimal(raw[0])
	if err != nil {
		return v.wrong()
	}
	*v.p = f
	return v.check()
}

func (v decimal) check() error {
	if !(*v.p >= v.min && *v.p <= v.max) { // not a number is neither
		return v.wrong()
	}
	return nil
}

func (v decimal) show() any { return formatDecimal(*v.p) }

func (v decimal) wrong() error {
	return fmt.Errorf("want a number from %s to %s", formatDecimal(v.min), formatDecimal(v.max))
}

// share is a percentage of the last results, or off.
type share struct{ p *Share }

func (v share) parse(raw []string) error {
	*v.p = Share{}
	if raw[0] == off {
		return nil
	}
	percent, last, ok := strings.Cut(raw[0], "/")
	n, err := strconv.Atoi(last)
	if !ok || err != nil {
		return v.wrong()
	}
	p, err := parsePercent(percent)
	if err != nil {
		return v.wrong()
	}
	*v.p = Share{p, n}
	return v.check()
}

func (v share) check() error {
	s := *v.p
	if s != (Share{}) && !(s.Percent > 0 && s.Percent < 100 && s.Last >= 1 && s.Last <= maxLast) {
		return v.wrong()
	}
	return nil
}

func (v share) show() any { return v.p.String() }

func (share) wrong() error {
	return fmt.Errorf("want PERCENT/LAST such as 3%%/500, above 0%% and below 100%% of the last 1 to %d results, or off", maxLast)
}

// tally is a number out of the last results, or off.
type tally struct{ p *Tally }

func (v tally) parse(raw []string) error {
	*v.p = Tally{}
	if raw[0] == off {
		return nil
	}
	count, last, ok := strings.Cut(raw[0], "/")
	n, err1 := strconv.Atoi(count)
	of, err2 := strconv.Atoi(last)
	if !ok || err1 != nil || err2 != nil {
		return v.wrong()
	}
	*v.p = Tally{n, of}
	return v.check()
}

func (v tally) check() error {
	if t := *v.p; t != (Tally{}) && !(t.N >= 1 && t.N <= t.Last && t.Last <= maxLast) {
		return v.wrong()
	}
	return nil
}

func (v tally) show() any { return v.p.String() }

func (tally) wrong() error {
	return fmt.Errorf("want COUNT/LAST such as 3/50, at most all of the last %d results, or off", maxLast)
}

// size is a percentage, a number of recipients, or off.
type size struct{ p *Size }

func (v size) parse(raw []string) error {
	*v.p = Size{}
	if raw[0] == off {
		return nil
	}
	if n, err := strconv.Atoi(raw[0]); err == nil {
		*v.p = Size{Count: n}
		if n == 0 {
			return v.wrong()
		}
		return v.check()
	}
	p, err := parsePercent(raw[0])
	if err != nil {
		return v.wrong()
	}
	*v.p = Size{Percent: p}
	return nil
}

func (v size) check() error {
	s := *v.p
	if !(s.Percent >= 0 && s.Percent <= 100) || s.Count < 0 || s.Count > maxCount || s.Percent > 0 && s.Count > 0 {
		return v.wrong()
	}
	return nil
}

func (v size) show() any { return v.p.String() }

func (size) wrong() error {
	return fmt.Errorf("want a share such as 1%%, a number of recipients from 1 to %d, or off", maxCount)
}

// window is one limit; none allows off.
type window struct {
	p    *Window
	none bool
}

func (v window) parse(raw []string) error {
	if *v.p = (Window{}); v.none && raw[0] == off {
		return nil
	}
	w, err := ParseWindow(raw[0])
	*v.p = w
	return v.explain(err)
}

func (v window) check() error {
	if v.none && *v.p == (Window{}) {
		return nil
	}
	return v.explain(v.p.check())
}

func (v window) explain(err error) error {
	if err != nil && v.none {
		return fmt.Errorf("%w; or off", err)
	}
	return err
}

func (v window) show() any {
	if v.none && *v.p == (Window{}) {
		return off
	}
	return v.p.String()
}

// patterns is a list of names.
type patterns struct {
	p    *[]string
	ok   func(string) error
	want string // of a list, in words
}

func (v patterns) parse(raw []string) error {
	*v.p = append([]string{}, raw...) // an empty list is not the same as none
	return v.check()
}

func (v patterns) check() error {
	seen := map[string]bool{}
	for _, s := range *v.p {
		if err := v.ok(s); err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
		if seen[s] {
			return fmt.Errorf("%q: given twice", s)
		}
		seen[s] = true
	}
	return nil
}

func (v patterns) example() string { return v.want }

func (v patterns) show() any {
	if *v.p == nil {
		return "shipped"
	}
	return append([]string{}, *v.p...)
}
