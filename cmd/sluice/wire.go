package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/throttle"
)

// keyPrefix is the default of redis.prefix, and what a demo's Redis, which is its own,
// has before every key.
const keyPrefix = "sluice"

// connection translates redis.url.
func connection(r config.Redis) (queue.Connection, error) {
	t, err := r.Target()
	if err != nil {
		return queue.Connection{}, usageError(err)
	}
	c := queue.Connection{
		Addrs: t.Addrs, Master: t.Master, DB: t.DB, Username: t.Username, Password: t.Password.Reveal(),
		SentinelUsername: t.SentinelUsername, SentinelPassword: t.SentinelPassword.Reveal(),
	}
	if t.TLS {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	}
	return c, nil
}

// queueOptions are how the configuration wants the queue.
func queueOptions(cfg *config.Config, conn queue.Connection, log *slog.Logger) queue.Options {
	b := breakers(cfg.Breakers)
	kept := queue.Retention{After: cfg.Redis.Retention}
	for _, s := range mail.Streams() {
		if cfg.Streams.Of(s).OnUnknown == config.Resend {
			kept.Resend = append(kept.Resend, s)
		}
	}
	return queue.Options{Connection: conn, Prefix: cfg.Redis.Prefix, Log: log, Breakers: &b, Retention: kept}
}

// breakers translates the limits on outcomes.
func breakers(c config.Breakers) queue.Breakers {
	limit := func(s config.Share) queue.Limit {
		if s == (config.Share{}) {
			return queue.Limit{}
		}
		return queue.Limit{Share: s.Percent / 100, Of: s.Last, Least: min(c.Least, s.Last)}
	}
	return queue.Breakers{
		Campaign: queue.Limits{Bounced: limit(c.Bounced), Blocked: limit(c.Blocked), Unknown: limit(c.Unknown)},
		Group:    queue.Limits{Bounced: limit(c.Group.Bounced)},
		Blocks: queue.Blocks{
			Count: c.Group.Blocks.N, Within: c.Group.Blocks.Per, Few: c.Group.BlocksOf.N, Of: c.Group.BlocksOf.Last,
		},
		Period: c.Group.Hold, Most: 24 * time.Hour,
	}
}

// canary translates how much of a campaign goes first.
func canary(c config.Canary) queue.Canary {
	out := queue.Canary{Recipients: c.Size.Count, Wait: c.Wait}
	if c.Size.Percent > 0 {
		out.Share, out.Least, out.Most = c.Size.Percent/100, config.CanaryLeast, config.CanaryMost
	}
	return out
}

// openQueue opens the queue of the configured Redis, which must answer.
func openQueue(ctx context.Context, cfg *config.Config, log *slog.Logger) (*queue.Queue, error) {
	conn, err := connection(cfg.Redis)
	if err != nil {
		return nil, err
	}
	if len(conn.Addrs) == 0 {
		return nil, usageError(fmt.Errorf("redis.url: embedded keeps nothing after this process; this command needs a real Redis"))
	}
	q, err := queue.Open(queueOptions(cfg, conn, log))
	if err != nil {
		return nil, err
	}
	if err := q.Ping(ctx); err != nil {
		_ = q.Close()
		return nil, err
	}
	return q, nil
}

// checkServer refuses a Redis that would lose mail.
func checkServer(ctx context.Context, cfg *config.Config, q *queue.Queue, log *slog.Logger) error {
	warnings, err := q.CheckServer(ctx, queue.Durability(cfg.Redis.Durability))
	for _, w := range warnings {
		log.Warn("redis", "warning", w)
	}
	if errors.Is(err, queue.ErrServer) {
		return usageError(err)
	}
	return err
}

// relayID says which account at which relay mail is meant for: a campaign enqueued for
// one is not sent through another, such as a rehearsal's.
func relayID(r config.Relay) string { return r.Host + "/" + r.Account() }

// dialConfig is how one stream logs in.
func dialConfig(ctx context.Context, r config.Relay, s mail.Stream) (smtp.DialConfig, error) {
	pool, err := r.CertPool()
	if err != nil {
		return smtp.DialConfig{}, usageError(err)
	}
	host, _ := os.Hostname()
	d := smtp.DialConfig{
		Host: r.Host, Port: r.Port, Insecure: r.Insecure, RootCAs: pool,
		Hello: r.HelloName(ctx, host, net.DefaultResolver.LookupCNAME),
		User:  r.LoginUser(s), Password: r.Password.Reveal(), Sessions: tls.NewLRUClientSessionCache(8),
	}
	switch r.TLS {
	case config.ImplicitTLS:
		d.TLS = smtp.Implicit
	case config.NoTLS:
		d.TLS = smtp.None
	case config.StartTLS:
		d.TLS = smtp.StartTLS
	}
	switch r.Pipelining {
	case config.PipelineFull:
		d.Mode = smtp.ModePipelined
	case config.PipelineGroup:
		d.Mode = smtp.ModeGroup
	case config.PipelineOff:
		d.Mode = smtp.ModeLockStep
	case config.PipelineAuto:
		d.Mode = smtp.ModeAuto
	}
	switch r.Auth {
	case config.AuthPlain:
		d.Auth = smtp.AuthPlain
	case config.AuthLogin:
		d.Auth = smtp.AuthLogin
	case config.AuthNone:
		d.Auth = smtp.AuthNone
	case config.AuthAuto:
		d.Auth = smtp.AuthAuto
	}
	return d, nil
}

// budgetLimits translates limits, reserves, and the limits of streams, destination
// groups and new senders.
func budgetLimits(cfg *config.Config) throttle.Limits {
	windows := func(in []config.Window) (out []throttle.Window) {
		for _, w := range in {
			out = append(out, throttle.Window(w))
		}
		return out
	}
	l := throttle.Limits{
		Open: cfg.Limits.Connections.Open, New: windows(cfg.Limits.Connections.New), Messages: windows(cfg.Limits.Messages),
		Streams: map[string]throttle.Share{}, Groups: map[string][]throttle.Window{}, WarmUp: map[string]throttle.Ramp{},
	}
	for _, s := range mail.Streams() {
		sc := cfg.Streams.Of(s)
		l.Streams[string(s)] = throttle.Share{
			Reserve: windows(sc.Reserve), Connections: sc.Connections, Messages: windows(sc.Messages), New: windows(sc.Openings),
		}
	}
	for name, g := range cfg.Groups.Named {
		if len(g.Messages) > 0 {
			l.Groups[name] = windows(g.Messages)
		}
	}
	for domain, r := range cfg.WarmUp {
		l.WarmUp[domain] = throttle.Ramp(*r)
	}
	return l
}
