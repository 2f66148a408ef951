package queue

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// NoteRelaySize keeps what a relay says of the largest message it takes (SIZE, RFC
// 1870, in octets), so that a producer, which never talks to the relay, can refuse a
// larger one before anything is enqueued.
func (q *Queue) NoteRelaySize(ctx context.Context, relay string, size int64) error {
	if err := q.rdb.HSet(ctx, q.keys.relays(), relay, size).Err(); err != nil {
		return q.unreachable(err)
	}
	return nil
}

// RelaySize returns what NoteRelaySize kept, 0 if nothing is known.
func (q *Queue) RelaySize(ctx context.Context, relay string) (int64, error) {
	size, err := q.rdb.HGet(ctx, q.keys.relays(), relay).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, q.unreachable(err)
	}
	return size, nil
}
