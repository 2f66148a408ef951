package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/worker"
)

func (a *app) workerCommand() *cobra.Command {
	var acceptRewind bool
	cmd := &cobra.Command{
		Use:   "worker [--accept-rewind]",
		Short: "Drain the queues: claim blocks, send them through the relay, record what came of it",
		Long: `Drain the queues of all streams. Run as many as you like, on as many machines: they
share the limits of the configuration and take each other's work over.

SIGINT or SIGTERM ends it cleanly: no new message is begun, replies that are due are
awaited, outcomes stored, blocks given back. A second signal leaves at once; what had
been sent without a reply then becomes unknown.

When Redis comes back with older data, as a restored backup, the workers that were there
before notice it, and none sends anything, since what was sent meanwhile is not in that
data. With --accept-rewind whoever is not done in it becomes unknown, in every campaign
that had begun, and sending goes on: a stream with on_unknown: resend sends to them once
more, counted in resent; with hold it is for campaign retry or settle to say.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runWorker(cmd.Context(), acceptRewind) },
	}
	cmd.Flags().BoolVar(&acceptRewind, "accept-rewind", false, "go on with the older data that Redis came back with: whoever is not done in it becomes unknown")
	return cmd
}

func (a *app) runWorker(ctx context.Context, acceptRewind bool) error {
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
	return a.work(ctx, cfg, conn, q, acceptRewind)
}

// work runs a worker on q until ctx ends.
func (a *app) work(ctx context.Context, cfg *config.Config, conn queue.Connection, q *queue.Queue, acceptRewind bool) error {
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
	if acceptRewind {
		unknown, err := q.AcceptRewind(ctx)
		switch {
		case errors.Is(err, queue.ErrNoRewind):
			log.Warn("there is no rewind to accept", "why", err)
		case err != nil:
			return fmt.Errorf("accept the rewind: %w", err)
		default:
			log.Warn("older data accepted", "unknown", unknown)
		}
	}
	rdb := conn.Client()
	defer rdb.Close()
	wc, err := a.workerConfig(ctx, cfg, q, rdb, log)
	if err != nil {
		return err
	}
	log.Info("worker starts", "relay", cfg.Relay.Addr(), "redis", conn.Addrs)
	force, done := secondSignal(ctx, log)
	defer done()
	if err := worker.Run(ctx, force, wc); err != nil {
		return err
	}
	if force.Err() != nil {
		return errors.New("left at the second signal: mails without a reply are listed above, and are unknown")
	}
	log.Info("worker stopped")
	return nil
}

// secondSignal returns a context that ends with the first SIGINT or SIGTERM after ctx,
// which a signal has ended. done ends it as well, and gives the signals back.
func secondSignal(ctx context.Context, log *slog.Logger) (force context.Context, done func()) {
	force, leave := context.WithCancel(context.WithoutCancel(ctx))
	signals := make(chan os.Signal, 1)
	stop := context.AfterFunc(ctx, func() {
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
		log.Info("stopping: waiting for the replies that are due; a second signal leaves at once")
		select {
		case <-signals:
			leave()
		case <-force.Done():
		}
	})
	return force, func() {
		stop()
		leave()
	}
}
