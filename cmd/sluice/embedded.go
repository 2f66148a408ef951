package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/producer"
	"github.com/sluicemail/sluice/worker"
)

// embedded is an in-process Redis and the queue on it, for trying things out. It
// keeps nothing.
type embedded struct {
	conn queue.Connection
	q    *queue.Queue
	srv  *miniredis.Miniredis
}

func startEmbedded(cfg *config.Config, log *slog.Logger) (*embedded, error) {
	srv := miniredis.NewMiniRedis()
	if err := srv.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("in-process redis: %w", err)
	}
	e := &embedded{conn: queue.Connection{Addrs: []string{srv.Addr()}}, srv: srv}
	var err error
	if e.q, err = queue.Open(queueOptions(cfg, e.conn, log)); err != nil {
		srv.Close()
		return nil, err
	}
	return e, nil
}

func (e *embedded) close() {
	_ = e.q.Close()
	e.srv.Close()
}

// withWorker runs f with a worker beside it, and ends the worker when f returns.
func withWorker(ctx context.Context, wc worker.Config, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		err := worker.Run(work, context.WithoutCancel(ctx), wc)
		if err != nil {
			cancel()
		}
		done <- err
	}()
	err := f(ctx)
	stop()
	if werr := <-done; werr != nil {
		return fmt.Errorf("worker: %w", werr)
	}
	return err
}

// sendEmbedded sends with everything in this process: it has to wait, because what
// is queued ends with the process.
func (a *app) sendEmbedded(ctx context.Context, cfg *config.Config, r producer.Request, f sendFlags) error {
	if err := cfg.Relay.LoginComplete(); err != nil {
		return usageError(err)
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	fmt.Fprintln(a.err, "redis.url is embedded: NOT DURABLE. What is not sent when this process ends is lost.")
	e, err := startEmbedded(cfg, log)
	if err != nil {
		return err
	}
	defer e.close()
	rdb := e.conn.Client()
	defer rdb.Close()
	wc, err := a.workerConfig(ctx, cfg, e.q, rdb, log)
	if err != nil {
		return err
	}
	return withWorker(ctx, wc, func(ctx context.Context) error {
		res, err := a.enqueue(ctx, e.q, r)
		if err != nil {
			return err
		}
		s, err := follow(ctx, e.q, res.Campaign, wc.Streams[r.Stream].Resend, newFollower(a.err, nil))
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted; with an embedded Redis the rest of the campaign is gone")
		}
		if err != nil {
			return err
		}
		return a.finished(s, f.json)
	})
}
