// Package doctor looks at everything mail depends on before any is sent: Redis, the
// relay and the login there, and what DNS says about the sender's domain. Each
// check is one line of a report: pass, warn, fail, info or skip, why, and the exact
// fix, which for DNS is the record to publish.
//
// Checks that do not need each other run at the same time, each with a deadline of
// its own; the lines come in a fixed order. A check whose dependency failed is
// skipped, and its line names the one that did.
//
// What it does not do: it sends no mail and changes nothing anywhere. It asks Redis
// for PING, INFO and TIME only, since managed ones forbid CONFIG. A login that the
// relay refuses is not tried again with another stream, since repeated refusals lock
// accounts. No secret is sent before verified TLS, except to this machine or where
// the configuration says insecure, and none is in a line. It speaks SMTP by itself
// rather than through internal/smtp: it has to look at each step, at TLS and at the
// raw order of replies, which a connection made to carry mail rightly hides.
//
// Text from outside (DNS, replies) is cut to length and stripped of control characters.
package doctor

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
)

// Status is the outcome of one check.
type Status string

// The statuses. Only Fail makes a report not OK.
const (
	Pass Status = "pass"
	Warn Status = "warn" // works, but will cost something or is one step from not working
	Fail Status = "fail"
	Info Status = "info" // nothing to judge
	Skip Status = "skip" // not checked; Why says because of what
)

// Line is one check of the report. The field names of its JSON form are stable.
type Line struct {
	ID     string  `json:"id"` // "redis.eviction"
	Status Status  `json:"status"`
	Why    string  `json:"why"`
	Fix    string  `json:"fix,omitempty"`
	Record *Record `json:"record,omitempty"` // the DNS record that Fix wants published

	halt bool // what needs this line is skipped although it did not fail
}

// Report is what Run found.
type Report struct {
	OK     bool           `json:"ok"`     // nothing failed
	Counts map[Status]int `json:"counts"` // of each status, zeros too
	Checks []Line         `json:"checks"`
}

// Redis is what the checks ask of the server that redis.url names. Every call
// returns when ctx ends at the latest; errors are the server's or the network's.
type Redis interface {
	Ping(ctx context.Context) error
	Info(ctx context.Context) (string, error) // the reply to INFO, all default sections
	Time(ctx context.Context) (time.Time, error)
}

// Resolver is the part of net.Resolver that is used. Names that do not exist, and
// names without a record of the kind, are a *net.DNSError with IsNotFound.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config says what to examine.
type Config struct {
	Redis     Redis  // nil: redis.url is "embedded", nothing to examine
	RedisName string // how lines name it; without secrets
	Relay     config.Relay
	Hello     string       // EHLO name
	From      mail.Address // whose domain is examined; the zero Address: none is known
	Selector  string       // of the DKIM key; "": the preset's, where it has one
	Resolver  Resolver
	// Dial makes TCP connections; nil: a net.Dialer.
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	Timeout time.Duration // of each check; 0: DefaultTimeout

	now   func() time.Time                          // nil: time.Now
	timed func(func() error) (time.Duration, error) // how long a call took; nil: by the clock
}

// DefaultTimeout is how long one check may take.
const DefaultTimeout = 10 * time.Second

// Run makes every check that cfg has something for. The error is ctx's: what a check
// runs into is a line.
func Run(ctx context.Context, cfg Config) (Report, error) {
	e := newExam(cfg)
	defer e.close()
	lines := e.run(ctx, e.checks())
	if err := context.Cause(ctx); err != nil {
		return Report{}, err
	}
	r := Report{OK: true, Counts: map[Status]int{Pass: 0, Warn: 0, Fail: 0, Info: 0, Skip: 0}, Checks: lines}
	for _, l := range lines {
		r.Counts[l.Status]++
		r.OK = r.OK && l.Status != Fail
	}
	return r, nil
}
