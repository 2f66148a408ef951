package queue

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// errRestarted is what every new connection of a member's process fails with after
// Redis restarted, until the member has written again what it remembers.
var errRestarted = errors.New("redis restarted: writing again what this worker remembers first")

// guard notices that Redis restarted (or that a replica took over), by the run_id
// it gives on each new connection. A restarted Redis may have lost its last
// seconds, so a process with a member must not act on what it finds there before
// it has repaired its own part.
type guard struct {
	mu       sync.Mutex
	runID    string
	strict   bool          // a member exists: refuse until accepted
	restarts chan struct{} // signalled, capacity 1, when a refusal happens
}

var (
	runIDLine  = regexp.MustCompile(`(?m)^run_id:(\w+)`)
	uptimeLine = regexp.MustCompile(`(?m)^uptime_in_seconds:(\d+)`)
)

// onConnect checks one new connection. A Redis that says no run_id (as the
// in-process one) cannot be seen to restart.
func (g *guard) onConnect(ctx context.Context, cn *redis.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id, err := runID(ctx, cn)
	if err != nil {
		return err
	}
	return g.see(id)
}

// runID asks Redis who it is; "" where it does not say, or forbids the question. An
// answer that does not come is an error: it could still come, as that to another
// question.
func runID(ctx context.Context, rdb interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
}) (string, error) {
	info, err := rdb.Info(ctx, "server").Result()
	var refusal redis.Error
	if err != nil && !errors.As(err, &refusal) {
		return "", err
	}
	if m := runIDLine.FindStringSubmatch(info); err == nil && m != nil {
		return m[1], nil
	}
	return "", nil
}

// see compares the Redis behind a new connection with the one worked with so far.
func (g *guard) see(id string) error {
	if id == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runID == "" || !g.strict {
		g.runID = id
	}
	if g.runID == id {
		return nil
	}
	select {
	case g.restarts <- struct{}{}:
	default:
	}
	return errRestarted
}

// accept takes id as the Redis to work with from now on.
func (g *guard) accept(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runID = id
}

// setStrict says whether a member exists whose memory comes first.
func (g *guard) setStrict(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strict = on
}

// restartGrace is how long nobody claims or sends after Redis restarted, so that
// everyone who outlived it has said first what it knows.
const restartGrace = 2 * time.Second
