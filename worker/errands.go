package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// errands are things to be written to Redis by and by, each under a key, so that what
// is asked for a thousand times is done once. What fails is tried again until it is
// done or the worker ends.
type errands struct {
	log  *slog.Logger
	some chan struct{} // capacity 1

	mu  sync.Mutex
	due map[string]func(context.Context) error
}

func newErrands(log *slog.Logger) *errands {
	return &errands{log: log, some: make(chan struct{}, 1), due: map[string]func(context.Context) error{}}
}

// ask notes an errand, in the place of one under the same key that is not done yet. It
// never blocks.
func (e *errands) ask(key string, do func(context.Context) error) {
	e.mu.Lock()
	e.due[key] = do
	e.mu.Unlock()
	select {
	case e.some <- struct{}{}:
	default:
	}
}

// run does errands until ctx ends, and then once more what is left.
func (e *errands) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-e.some:
		}
		for d := 100 * time.Millisecond; !e.round(ctx) && wait(ctx, d) == nil; d = min(2*d, 5*time.Second) {
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	e.round(last)
}

// round does what is due and reports whether all of it succeeded.
func (e *errands) round(ctx context.Context) bool {
	e.mu.Lock()
	due := e.due
	e.due = map[string]func(context.Context) error{}
	e.mu.Unlock()
	ok := true
	for key, do := range due {
		if err := do(ctx); err != nil {
			e.log.Warn("will be written later", "what", key, "err", err)
			e.mu.Lock()
			if _, newer := e.due[key]; !newer {
				e.due[key] = do
			}
			e.mu.Unlock()
			ok = false
		}
	}
	return ok
}
