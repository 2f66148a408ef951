package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/doctor"
	"github.com/sluicemail/sluice/internal/mail"
)

// doctorFlags are those of doctor.
type doctorFlags struct {
	from, selector, resolver string
	timeout                  time.Duration
	json                     bool
}

func (a *app) doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine Redis, the relay and the sender's domain before anything is sent",
		Long: `Looks at all that mail depends on: Redis (version, persistence, eviction, latency,
clock), the relay (DNS, TLS, a login for each stream, whether pipelining works) and what
DNS says about the sender's domain (SPF, DKIM, DMARC, MX). Each check is one line: pass,
warn, fail, info or skip, why, and the fix; for DNS, the record to publish.

It sends no mail, changes nothing, and tries a login that is refused once only.

Exit code 0 when nothing failed (warnings are allowed), 1 when something did, 2 for a
wrong flag or configuration.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.examine(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", "examine the domain of sender `ADDR` (default: sender.email of the configuration)")
	fl.StringVar(&f.selector, "dkim-selector", "", "`NAME` of the DKIM key (default with relay.preset nhn: toast)")
	fl.StringVar(&f.resolver, "resolver", "", "DNS server to ask, as `HOST[:PORT]` (default: this machine's)")
	fl.DurationVar(&f.timeout, "timeout", doctor.DefaultTimeout, "time for each check")
	fl.BoolVar(&f.json, "json", false, "print one JSON object")
	return cmd
}

// examine runs all checks and prints what they found.
func (a *app) examine(ctx context.Context, f doctorFlags) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	dc, err := f.config(ctx, cfg)
	if err != nil {
		return err
	}
	conn, err := connection(cfg.Redis)
	if err != nil {
		return err
	}
	if len(conn.Addrs) > 0 {
		rdb := conn.Client()
		defer rdb.Close()
		dc.Redis, dc.RedisName = patient{rdb}, cfg.Redis.URL.String()
	}
	report, err := doctor.Run(ctx, dc)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: nothing was found out")
	case err != nil:
		return err
	case f.json:
		err = a.printJSON(report)
	default:
		err = printReport(a.out, report)
	}
	if err == nil && !report.OK {
		return &exitError{code: exitFailed}
	}
	return err
}

// config translates flags and configuration, less Redis.
func (f doctorFlags) config(ctx context.Context, cfg *config.Config) (doctor.Config, error) {
	c := doctor.Config{Relay: cfg.Relay, Selector: f.selector, Timeout: f.timeout}
	if f.timeout <= 0 {
		return c, usageError(fmt.Errorf("--timeout %s: want more than 0, such as 10s", f.timeout))
	}
	if strings.Trim(f.selector, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return c, usageError(fmt.Errorf("--dkim-selector %q: want the label before ._domainkey, such as toast", f.selector))
	}
	from, where := f.from, "--from"
	if from == "" {
		from, where = cfg.Sender.Email, "sender.email"
	}
	if from != "" {
		addr, err := mail.ParseAddress(from)
		if err != nil {
			return c, usageError(fmt.Errorf("%s: want a bare address such as news@example.com: %w", where, err))
		}
		c.From = addr
	}
	r, err := resolver(f.resolver)
	if err != nil {
		return c, usageError(err)
	}
	host, _ := os.Hostname()
	c.Resolver, c.Hello = r, cfg.Relay.HelloName(ctx, host, r.LookupCNAME)
	return c, nil
}

// resolver asks the DNS server at addr, or this machine's where that is "".
func resolver(addr string) (*net.Resolver, error) {
	if addr == "" {
		return net.DefaultResolver, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = strings.Trim(addr, "[]"), "53"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return nil, fmt.Errorf("--resolver %q: want HOST or HOST:PORT", addr)
	}
	server := net.JoinHostPort(host, port)
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}, nil
}

// patient is the doctor's view of the Redis client.
type patient struct{ rdb *redis.Client }

func (p patient) Ping(ctx context.Context) error              { return p.rdb.Ping(ctx).Err() }
func (p patient) Info(ctx context.Context) (string, error)    { return p.rdb.Info(ctx).Result() }
func (p patient) Time(ctx context.Context) (time.Time, error) { return p.rdb.Time(ctx).Result() }

// printReport writes a line for each check, and indented below it what to do.
func printReport(w io.Writer, r doctor.Report) error {
	var b strings.Builder
	for _, l := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-18s  %s\n", l.Status, l.ID, l.Why)
		if l.Fix != "" {
			fmt.Fprintf(&b, "%26sfix: %s\n", "", l.Fix)
		}
		if l.Record != nil {
			fmt.Fprintf(&b, "%26spublish: %s\n", "", l.Record)
		}
	}
	c := r.Counts
	fmt.Fprintf(&b, "\n%d checks: %d passed, %d warnings, %d failed, %d for information, %d skipped\n",
		len(r.Checks), c[doctor.Pass], c[doctor.Warn], c[doctor.Fail], c[doctor.Info], c[doctor.Skip])
	_, err := io.WriteString(w, b.String())
	return err
}
