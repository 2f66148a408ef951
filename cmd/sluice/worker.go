package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/worker"
)

func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Drain the queues: claim blocks, send them through the relay, record what came of it",
		Long: `Drain the queues of all streams. Run as many as you like, on as many machines: they
share the limits of the configuration and take each other's work over.

SIGINT or SIGTERM ends it cleanly: no new message is begun, replies that are due are
awaited, outcomes stored, blocks given back. A second signal leaves at once; what had
been sent without a reply then becomes unknown.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runWorker(cmd.Context()) },
	}
}

func (a *app) runWorker(ctx context.Context) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	if err := cfg.Relay.LoginComplete(); err != nil {
		return usageError(err)
	}
	conn, err := connection(cfg.Redis)
	if err != nil {
		return err
	}
	if len(conn.Addrs) == 0 {
		return usageError(fmt.Errorf("redis.url: embedded cannot be shared with a producer; use a real Redis, or sluice send, which runs workers itself with embedded"))
	}
	q, err := queue.Open(queueOptions(cfg, conn, log))
	if err != nil {
		return err
	}
	defer q.Close()
	return a.work(ctx, cfg, conn, q)
}

// work runs a worker on q until ctx ends.
func (a *app) work(ctx context.Context, cfg *config.Config, conn queue.Connection, q *queue.Queue) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	for err = queue.ErrUnreachable; errors.Is(err, queue.ErrUnreachable); err = checkServer(ctx, cfg, q, log) {
		if q.Wait(ctx) != nil {
			return nil // told to stop before there was anything to stop
		}
	}
	if err != nil {
		return err
	}
	rdb := conn.Client()
	defer rdb.Close()
	wc, err := a.workerConfig(ctx, cfg, q, rdb, log)
	if err != nil {
		return err
	}
	log.Info("worker starts", "relay", cfg.Relay.Addr(), "redis", conn.Addrs)
	// The second signal ends the process by itself: main gave the default handling
	// back, so there is nothing to force from here.
	if err := worker.Run(ctx, context.WithoutCancel(ctx), wc); err != nil {
		return err
	}
	log.Info("worker stopped")
	return nil
}
