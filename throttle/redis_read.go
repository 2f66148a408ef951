package throttle

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// readRenewed reads what renew.lua answers for n leases.
func readRenewed(r []any, n int) (renewed, error) {
	var a renewed
	bad := fmt.Errorf("budget script answered %v, want %d leases and groups", r, n)
	if len(r) != 2 {
		return a, bad
	}
	held, ok1 := r[0].([]any)
	groups, ok2 := r[1].([]any)
	if !ok1 || !ok2 || len(held) != n {
		return a, bad
	}
	for _, h := range held {
		a.held = append(a.held, h == int64(1))
	}
	for _, g := range groups {
		if name, ok := g.(string); ok {
			a.groups = append(a.groups, name)
		}
	}
	return a, nil
}

// readUsage reads what usage.lua answers: sums, leases with the µs left, and
// fields of the state.
func readUsage(r []any) (usage, error) {
	bad := fmt.Errorf("budget script answered %v, want sums, leases, state and time", r)
	if len(r) != 4 {
		return usage{}, bad
	}
	sums, ok1 := r[0].([]any)
	leases, ok2 := texts(r[1])
	fields, ok3 := texts(r[2])
	clock, ok4 := r[3].(string)
	now, err := strconv.ParseInt(clock, 10, 64)
	if !ok1 || !ok2 || !ok3 || !ok4 || err != nil || len(leases)%2 != 0 || len(fields)%2 != 0 {
		return usage{}, bad
	}
	u := usage{now: now, firsts: map[string]int64{}, breakers: map[string]breaker{}, logins: map[string]string{}}
	for _, s := range sums {
		n, ok := s.(int64)
		if !ok {
			return usage{}, bad
		}
		u.used = append(u.used, int(n))
	}
	for i := 0; i < len(leases); i += 2 {
		left, err := strconv.ParseInt(leases[i+1], 10, 64)
		if err != nil {
			return usage{}, bad
		}
		u.leases = append(u.leases, leaseLeft{leases[i], time.Duration(left) * time.Microsecond})
	}
	for i := 0; i < len(fields); i += 2 {
		if err := u.read(fields[i], fields[i+1]); err != nil {
			return usage{}, fmt.Errorf("budget state %s %q: %w", fields[i], fields[i+1], err)
		}
	}
	return u, nil
}

func texts(r any) ([]string, bool) {
	list, ok := r.([]any)
	var ts []string
	for _, x := range list {
		t, isText := x.(string)
		ts, ok = append(ts, t), ok && isText
	}
	return ts, ok
}

// read takes one field of the account's state; dials.lua says what is in it.
func (u *usage) read(field, value string) error {
	kind, name, _ := strings.Cut(field, ":")
	b := u.breakers[name]
	switch kind {
	case "a":
		u.logins[name] = value
		return nil
	case "f":
		first, err := strconv.ParseInt(value, 10, 64)
		u.firsts[name] = first
		return err
	case "l":
		login, creds, _ := strings.Cut(name, ":")
		since, why, _ := strings.Cut(value, " ")
		at, err := strconv.ParseInt(since, 10, 64)
		u.refused = append(u.refused, refusedLogin{login: login, creds: creds, why: why, since: at})
		return err
	case "w":
		b.why = value
	case "b":
		if _, err := fmt.Sscan(value, &b.since, &b.last, &b.next, &b.early, &b.fails, &b.at); err != nil {
			return err
		}
	case "d":
		for words := strings.Fields(value); len(words) > 0; words = words[min(3, len(words)):] {
			var d ungreeted
			if _, err := fmt.Sscan(strings.Join(words, " "), &d.lease, &d.start, &d.lapse); err != nil {
				return err
			}
			b.dials = append(b.dials, d)
		}
	}
	u.breakers[name] = b
	return nil
}
