package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// RedisTarget is what redis.url says, taken apart.
type RedisTarget struct {
	Embedded bool     // in-process, nothing kept: the rest is zero
	Addrs    []string // host:port; one, or the sentinels
	Master   string   // the sentinels' name for the master; "" without sentinels
	Username string
	Password Secret
	DB       int
	TLS      bool // rediss://
	// ServerName is the name the certificate must carry; "" without TLS.
	ServerName string
	// The sentinels' own login, where they have one.
	SentinelUsername string
	SentinelPassword Secret
}

// Target takes the URL apart. The forms are
//
//	redis://[user:password@]host[:6379][/db]
//	rediss://[user:password@]host[:6379][/db]
//	redis-sentinel://[user:password@]host[:26379][,host[:26379]...][/db]?master=NAME
//	embedded
//
// where the sentinels' own login is given as the parameters sentinel_username and
// sentinel_password. No error holds any part of the URL that may be secret.
//
// net/url is of no use: since Go 1.26 it refuses the list of hosts with ports, and
// its errors quote the URL.
func (r Redis) Target() (RedisTarget, error) {
	if r.URL == "embedded" {
		return RedisTarget{Embedded: true}, nil
	}
	scheme, rest, ok := strings.Cut(r.URL.Reveal(), "://")
	if !ok {
		return RedisTarget{}, errors.New(`want redis://HOST:PORT/DB, rediss://..., redis-sentinel://... or "embedded"`)
	}
	switch scheme {
	case "redis", "rediss", "redis-sentinel":
	case "redis-cluster":
		return RedisTarget{}, errors.New("Redis Cluster is not supported yet: use redis://, rediss:// or redis-sentinel://")
	default:
		return RedisTarget{}, fmt.Errorf("scheme %q: want redis, rediss or redis-sentinel", scheme)
	}
	t := RedisTarget{TLS: scheme == "rediss"}
	rest, params, _ := strings.Cut(rest, "?")
	authority, db, _ := strings.Cut(rest, "/")
	if strings.ContainsAny(db, "@") || strings.ContainsAny(params, "@") {
		return RedisTarget{}, errors.New("an @ after the first / or ?: write /, ? and @ inside the password as %2F, %3F and %40")
	}
	hosts, err := t.login(authority)
	if err != nil {
		return RedisTarget{}, err
	}
	if err := t.database(db); err != nil {
		return RedisTarget{}, err
	}
	sentinel := scheme == "redis-sentinel"
	if err := t.params(params, sentinel); err != nil {
		return RedisTarget{}, err
	}
	return t, t.hosts(hosts, sentinel)
}

// login takes user and password off the front of authority and returns the rest.
func (t *RedisTarget) login(authority string) (hosts string, err error) {
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return authority, nil
	}
	user, password, _ := strings.Cut(authority[:at], ":")
	user, err1 := url.PathUnescape(user)
	password, err2 := url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return "", errors.New("a % in user or password that begins no %XX: write it as %25")
	}
	t.Username, t.Password = user, NewSecret(password)
	return authority[at+1:], nil
}

func (t *RedisTarget) database(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return fmt.Errorf("database %q: want a number, as in redis://127.0.0.1:6379/0", s)
	}
	t.DB = int(n)
	return nil
}

func (t *RedisTarget) params(s string, sentinel bool) error {
	for _, f := range strings.Split(s, "&") {
		if f == "" {
			continue
		}
		name, value, _ := strings.Cut(f, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			return fmt.Errorf("parameter %q: a %% that begins no %%XX: write it as %%25", name)
		}
		switch {
		case !sentinel:
			return fmt.Errorf("parameter %q: none is allowed with this scheme", name)
		case name == "master":
			t.Master = value
		case name == "sentinel_username":
			t.SentinelUsername = value
		case name == "sentinel_password":
			t.SentinelPassword = NewSecret(value)
		default:
			return fmt.Errorf("parameter %q: want master, sentinel_username or sentinel_password", name)
		}
	}
	if sentinel && t.Master == "" {
		return errors.New("no master: add ?master=NAME, the name the sentinels know the master by")
	}
	return nil
}

func (t *RedisTarget) hosts(s string, sentinel bool) error {
	list, port := []string{s}, "6379"
	if sentinel {
		list, port = strings.Split(s, ","), "26379"
	}
	for _, h := range list {
		host, p, err := splitHostPort(h, port)
		if err != nil {
			return err
		}
		t.Addrs = append(t.Addrs, net.JoinHostPort(host, p))
		if t.TLS {
			t.ServerName = host
		}
	}
	return nil
}

// splitHostPort reads host, host:port, [v6] or [v6]:port.
func splitHostPort(s, port string) (string, string, error) {
	host, p := s, port
	if h, given, err := net.SplitHostPort(s); err == nil {
		host, p = h, given
	} else if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("port %q: want 1 to 65535", p)
	}
	if err := checkHost(host); err != nil || host == "" {
		return "", "", fmt.Errorf("host %q: want a name or an IP address, an IPv6 one in brackets", host)
	}
	return host, p, nil
}

// keyPrefix is what every key in Redis begins with. The grammar is narrow because the
// prefix stands in key names, in names of asynq's queues and in the patterns of an ACL:
// no character of it may mean anything to one of them.
type keyPrefix struct{ p *string }

func (v keyPrefix) parse(raw []string) error { *v.p = raw[0]; return v.check() }
func (v keyPrefix) show() any                { return *v.p }

func (v keyPrefix) check() error {
	s := *v.p
	bad := func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') }
	if s == "" || len(s) > 32 || s[0] == '-' || strings.ContainsFunc(s, bad) {
		return errors.New("want 1 to 32 characters of a-z, 0-9 and -, and no - at the beginning")
	}
	return nil
}

// plaintextToAfar reports whether data would cross a network unencrypted.
func (t RedisTarget) plaintextToAfar() bool {
	if t.Embedded || t.TLS {
		return false
	}
	for _, a := range t.Addrs {
		if host, _, err := net.SplitHostPort(a); err == nil && !loopback(host) {
			return true
		}
	}
	return false
}

// loopback reports whether host names this machine: localhost and what is under
// it (RFC 6761 section 6.3), 127.0.0.0/8 and ::1.
func loopback(host string) bool {
	h := strings.ToLower(strings.TrimSuffix(host, "."))
	if h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(h)
	return err == nil && ip.Unmap().IsLoopback()
}
