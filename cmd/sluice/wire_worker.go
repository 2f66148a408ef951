package main

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/destination"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/smtp"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/internal/verdict"
	"github.com/sluicemail/sluice/throttle"
	"github.com/sluicemail/sluice/worker"
)

// workerConfig translates the configuration for a worker on q.
func (a *app) workerConfig(ctx context.Context, cfg *config.Config, q *queue.Queue, rdb redis.UniversalClient, log *slog.Logger) (worker.Config, error) {
	rules, err := verdict.Load(cfg.Verdicts.File)
	if err != nil {
		return worker.Config{}, usageError(err)
	}
	groups, err := destinations(ctx, cfg)
	if err != nil {
		return worker.Config{}, err
	}
	limits := budgetLimits(cfg)
	memory := smtp.NewMemory()
	c := worker.Config{
		Queue: q, Log: log, Relay: relayID(cfg.Relay), Streams: map[mail.Stream]worker.Stream{},
		PerConnection: smtp.Limits{Messages: cfg.Limits.PerConnection.Messages, Age: cfg.Limits.PerConnection.Age, Idle: cfg.Limits.PerConnection.Idle},
		Group:         groups, Suppress: suppress.New(rdb, cfg.Redis.Prefix),
		Budget: func(owner string, login func(string) string) (*throttle.Budget, error) {
			return throttle.NewRedis(rdb, throttle.Params{
				Prefix: cfg.Redis.Prefix, Account: cfg.Relay.Account(), Owner: owner, Limits: limits, Login: login, Log: log, Adaptive: adaptive(cfg),
				LoginName: func(stream string) string { return loginName(cfg.Relay, mail.Stream(stream)) },
			})
		},
		Credentials: func(ctx context.Context, s mail.Stream) (smtp.DialConfig, string, error) {
			cfg, err := a.readConfig() // its warnings were told at the start
			if err != nil {
				return smtp.DialConfig{}, "", err
			}
			d, err := dialConfig(ctx, cfg.Relay, s)
			d.Memory = memory
			return d, cfg.Relay.Fingerprint(), err
		},
	}
	for _, s := range mail.Streams() {
		d, err := dialConfig(ctx, cfg.Relay, s)
		if err != nil {
			return c, err
		}
		d.Memory = memory
		sc := cfg.Streams.Of(s)
		c.Streams[s] = worker.Stream{
			Dial: d, Max: cfg.Limits.Connections.Open, Warm: sc.Connections, TTL: ttlOf(sc), Retry: retryOf(sc.Retry),
			Resend: sc.OnUnknown == config.Resend, Login: cfg.Relay.Fingerprint(), Verdicts: rules, Preset: string(cfg.Relay.Preset),
		}
	}
	return c, nil
}

// loginName is the first of the streams that log in as this one does: to the relay they
// are one.
func loginName(r config.Relay, stream mail.Stream) string {
	for _, s := range mail.Streams() {
		if r.LoginUser(s) == r.LoginUser(stream) {
			return string(s)
		}
	}
	return string(stream)
}

// adaptive translates how far limits may sink.
func adaptive(cfg *config.Config) throttle.Adaptive {
	floor := cfg.Adaptive.Floor
	return throttle.Adaptive{
		Off: !cfg.Adaptive.Enabled, Rate: float64(floor.N) / floor.Per.Seconds(), PerConnection: cfg.Limits.PerConnection.Messages,
	}
}

// ttlOf is the age at which a stream's mail expires.
func ttlOf(s config.Stream) time.Duration {
	if s.TTL == 0 {
		return config.DefaultTTL
	}
	return s.TTL
}

func retryOf(r config.Retry) worker.Retry { return worker.Retry(r) }

// destinations returns what names a domain's destination group. Where the mail servers
// of domains are looked up, that ends with ctx.
func destinations(ctx context.Context, cfg *config.Config) (func(domain string) string, error) {
	table, err := cfg.Groups.Table()
	if err != nil {
		return nil, usageError(err)
	}
	if !cfg.Groups.ByMX {
		return table.Group, nil
	}
	r, err := destination.NewResolver(destination.Params{Table: table, Lookup: net.DefaultResolver.LookupMX})
	if err != nil {
		return nil, err
	}
	go r.Run(ctx)
	return r.Group, nil
}
