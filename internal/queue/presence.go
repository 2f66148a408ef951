package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// presence keeps a subscription open for as long as the member's process has sockets.
// When a process is killed its system closes them, and Redis knows at once that nobody
// listens any more; a frozen process goes on listening. Nothing is ever published.
type presence struct{ sub *redis.PubSub }

// show begins to listen; go-redis takes it up again where the connection is lost.
func (m *Member) show(ctx context.Context) {
	m.presence.sub = m.pulse.Subscribe(context.WithoutCancel(ctx), m.q.keys.presence(m.nonce))
	m.presence.sub.Channel() // its goroutine is what reconnects; Close ends it
}

func (p presence) close() error {
	if p.sub == nil {
		return nil
	}
	return p.sub.Close()
}

// gone reports whether a member's process has no sockets any more, as far as can be
// told: false for one that is frozen or cut off, whose connections to the relay may
// still be open.
func (q *Queue) gone(ctx context.Context, nonce string) bool {
	channel := q.keys.presence(nonce)
	n, err := q.rdb.PubSubNumSub(ctx, channel).Result()
	return err == nil && n[channel] == 0
}
