package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/sluicemail/sluice/internal/mail"
)

// Jobs receives a stream's jobs from asynq and hands them to a handler.
type Jobs struct {
	srv *asynq.Server
	rdb *redis.Client
}

// Handler works on one block. It returns when the worker is done with it; what it
// returns changes nothing, because the ledger knows what is left.
type Handler func(campaign string, block int)

// pollEvery is how often an idle stream looks for jobs. asynq's own second would be
// most of a login code's way to the wire.
func pollEvery(s mail.Stream) time.Duration {
	if s == mail.Auth {
		return 15 * time.Millisecond
	}
	return 100 * time.Millisecond
}

// Listen starts to take jobs of a stream, at most concurrency blocks at a time.
func (q *Queue) Listen(s mail.Stream, concurrency int, h Handler) (*Jobs, error) {
	rdb := q.conn.client(clientOptions{hook: &asynqHook{log: q.log}})
	srv := asynq.NewServerFromRedisClient(rdb, asynq.Config{
		Concurrency:              concurrency,
		Queues:                   map[string]int{q.keys.asynqQueue(s): 1},
		TaskCheckInterval:        pollEvery(s),
		DelayedTaskCheckInterval: time.Second,
		ShutdownTimeout:          time.Minute, // handlers have ended before Stop is called
		RetryDelayFunc:           func(int, error, *asynq.Task) time.Duration { return 0 },
		Logger:                   asynqLog{q.log},
		LogLevel:                 asynq.WarnLevel,
	})
	err := srv.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		var j sendJob
		if err := json.Unmarshal(t.Payload(), &j); err != nil || j.Campaign == "" || j.Block < 0 {
			// Retrying cannot help, and an archived task would be nobody's gain.
			return fmt.Errorf("job %.100q names no block (%w): %w", t.Payload(), errors.Join(err, errCorrupt), asynq.RevokeTask)
		}
		// asynq's context is not passed on: it ends when a lease lapses in a Redis
		// stall, and whether this worker may send is the ledger's to say.
		h(j.Campaign, j.Block)
		return nil
	}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start asynq server: %w", err), rdb.Close())
	}
	return &Jobs{srv, rdb}, nil
}

// StopTaking ends the taking of new jobs; handlers go on.
func (j *Jobs) StopTaking() { j.srv.Stop() }

// Close waits for the handlers and releases what the server holds.
func (j *Jobs) Close() error {
	j.srv.Shutdown()
	return j.rdb.Close()
}

// asynqHook mends two things in asynq v0.26 from below. It repeats the
// acknowledgement of a finished task with a context that was cancelled before the
// first repeat (processor.go defers cancel and hands the context on), so none ever
// succeeds and the task runs again: here such a call gets a live context. And its
// fetch loop does not pause after an error, so with Redis gone it would keep a
// core busy: here a failed call takes its time. A refusal that no waiting mends is
// told, since asynq's own log is not shown.
type asynqHook struct {
	log  *slog.Logger
	told atomic.Bool
}

func (*asynqHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return next(ctx, network, addr)
	}
}

// outagePause is how long a call that met an outage is held back.
const outagePause = 250 * time.Millisecond

func (h *asynqHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if name := cmd.Name(); (name == "evalsha" || name == "eval") && errors.Is(ctx.Err(), context.Canceled) {
			alive, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			ctx = alive
		}
		err := next(ctx, cmd)
		switch {
		case err == nil:
			h.told.Store(false)
		case redis.IsPermissionError(err) || redis.IsAuthError(err):
			if !h.told.Swap(true) {
				h.log.Error("redis refuses what the job queue needs; see deployments/redis/users.acl for the rights", "err", err)
			}
		}
		if outage(err) {
			// A plain wait: it ends by itself before any shutdown would mind.
			time.Sleep(outagePause)
		}
		return err
	}
}

func (*asynqHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return next(ctx, cmds) }
}

// outage reports whether an error means that Redis is gone or refuses (LOADING,
// READONLY, OOM, MISCONF, NOREPLICAS, NOAUTH, BUSY …), and not merely that there is
// nothing to fetch, that a script is to be sent in full, or that a task is gone, which
// asynq's scripts say with an error.
func outage(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) || errors.Is(err, context.Canceled) {
		return false
	}
	var reply redis.Error
	return !errors.As(err, &reply) || !strings.HasPrefix(reply.Error(), "NOSCRIPT") && !strings.HasPrefix(reply.Error(), "NOT FOUND")
}

// asynqLog passes asynq's log on at debug level: the outage that makes it write
// has been told about once already, by whoever waits for Redis.
type asynqLog struct{ log *slog.Logger }

func (l asynqLog) Debug(args ...any) { l.log.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLog) Info(args ...any)  { l.log.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLog) Warn(args ...any)  { l.log.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLog) Error(args ...any) { l.log.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLog) Fatal(args ...any) { l.log.Error("asynq: " + fmt.Sprint(args...)) }
