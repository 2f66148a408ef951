package queue

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// survivorsWait is how long who joins after Redis restarted waits for workers that are
// on the books and have not beaten since: one that lives may need a call that hangs
// until its time is up, the longest pause between two, and what all wait for each other.
const survivorsWait = callTimeout + time.Second + restartGrace

// awaitSurvivors waits, where Redis restarted or another has taken its place since
// somebody joined last, until those who outlived that have written what they know: one
// who joins before would find, and send again, what they have sent. Their hearts beat
// again only after it. Who does not beat in time is gone, or is buried. It returns the
// Redis that is safe to join, "" where Redis does not say who it is.
func (q *Queue) awaitSurvivors(ctx context.Context) (id string, err error) {
	id, err = runID(ctx, q.rdb)
	if err != nil || id == "" {
		return "", err
	}
	known, err := q.rdb.Get(ctx, q.keys.run()).Result()
	if errors.Is(err, redis.Nil) || err == nil && known == id {
		return id, nil
	}
	silent, err := q.rdb.HGetAll(ctx, q.keys.beats()).Result()
	if err == nil && len(silent) > 0 {
		q.log.Info("redis restarted; waiting for the workers that were there before", "workers", len(silent))
	}
	for begun := time.Now(); err == nil && len(silent) > 0 && time.Since(begun) < survivorsWait; {
		if err := pause(ctx, beatEvery); err != nil {
			return "", err
		}
		var now map[string]string
		now, err = q.rdb.HGetAll(ctx, q.keys.beats()).Result()
		for nonce, count := range silent {
			if now[nonce] != count { // it beats, or has been taken off the books
				delete(silent, nonce)
			}
		}
	}
	if err != nil {
		return "", err
	}
	return id, nil
}
