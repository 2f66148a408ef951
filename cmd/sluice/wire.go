package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/throttle"
	"github.com/sluicemail/sluice/worker"
)

// keyPrefix stands before every key of this program in Redis.
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

// openQueue opens the queue of the configured Redis, which must answer.
func openQueue(ctx context.Context, cfg *config.Config, log *slog.Logger) (*queue.Queue, error) {
	conn, err := connection(cfg.Redis)
	if err != nil {
		return nil, err
	}
	if len(conn.Addrs) == 0 {
		return nil, usageError(fmt.Errorf("redis.url: embedded keeps nothing after this process; this command needs a real Redis"))
	}
	q, err := queue.Open(queue.Options{Connection: conn, Prefix: keyPrefix, Log: log})
	if err != nil {
		return nil, err
	}
	if err := q.Ping(ctx); err != nil {
		_ = q.Close()
		return nil, err
	}
	return q, nil
}

// relayID says which account at which relay mail is meant for: a campaign enqueued for
// one is not sent through another, such as a rehearsal's.
func relayID(r config.Relay) string { return r.Host + "/" + r.Account() }

// defaultTTL ends the retries of a stream without a ttl of its own.
const defaultTTL = 72 * time.Hour

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

// retryOf is a stream's retry schedule.
func retryOf(s mail.Stream) worker.Retry {
	if s == mail.Auth {
		return worker.Retry{First: 2 * time.Second, Most: 30 * time.Second}
	}
	return worker.Retry{First: time.Minute, Most: time.Hour}
}

// workerConfig translates the configuration for a worker on q.
func workerConfig(ctx context.Context, cfg *config.Config, q *queue.Queue, rdb redis.UniversalClient, log *slog.Logger) (worker.Config, error) {
	memory := smtp.NewMemory()
	c := worker.Config{
		Queue: q, Log: log, Relay: relayID(cfg.Relay), Streams: map[mail.Stream]worker.Stream{},
		PerConnection: smtp.Limits{Messages: cfg.Limits.PerConnection.Messages, Age: cfg.Limits.PerConnection.Age, Idle: cfg.Limits.PerConnection.Idle},
	}
	limits := budgetLimits(cfg)
	c.Budget = func(owner string) (*throttle.Budget, error) {
		return throttle.NewRedis(rdb, throttle.Params{Prefix: keyPrefix, Account: cfg.Relay.Account(), Owner: owner, Limits: limits, Log: log})
	}
	for _, s := range mail.Streams() {
		d, err := dialConfig(ctx, cfg.Relay, s)
		if err != nil {
			return c, err
		}
		d.Memory = memory
		sc := cfg.Streams.Of(s)
		ttl := sc.TTL
		if ttl == 0 {
			ttl = defaultTTL
		}
		c.Streams[s] = worker.Stream{
			Dial: d, Max: cfg.Limits.Connections.Open, Warm: sc.Connections, TTL: ttl, Retry: retryOf(s),
			Resend: sc.OnUnknown == config.Resend, Login: cfg.Relay.Fingerprint(),
		}
	}
	return c, nil
}

// budgetLimits translates limits and reserves.
func budgetLimits(cfg *config.Config) throttle.Limits {
	windows := func(in []config.Window) []throttle.Window {
		var out []throttle.Window
		for _, w := range in {
			out = append(out, throttle.Window{N: w.N, Per: w.Per})
		}
		return out
	}
	l := throttle.Limits{
		Open: cfg.Limits.Connections.Open, New: windows(cfg.Limits.Connections.New), Messages: windows(cfg.Limits.Messages),
		Streams: map[string]throttle.Share{},
	}
	for _, s := range mail.Streams() {
		sc := cfg.Streams.Of(s)
		l.Streams[string(s)] = throttle.Share{Reserve: windows(sc.Reserve), Connections: sc.Connections}
	}
	return l
}
