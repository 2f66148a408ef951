package worker

import (
	"strings"
	"testing"

	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/redistest"
	"github.com/sluicemail/sluice/internal/relay"
)

// A worker that starts while Redis takes no writes, as in a fail-over, waits until it does.
func TestJoinWhileRedisRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, relay.Config{}, nil)
	conn := queue.Connection{Addrs: []string{redistest.Start(t, "--min-replicas-to-write", "1").Addr()}}
	q, err := queue.Open(queue.Options{Connection: conn, Log: b.conf.Log})
	if err != nil {
		t.Fatal(err)
	}
	rdb := conn.Client()
	t.Cleanup(func() { _, _ = rdb.Close(), q.Close() })
	b.conf.Queue = q
	b.start()
	b.eventually("it waits, and says for what", func() bool {
		s := b.log.String()
		return strings.Contains(s, "could not join, trying again") && strings.Contains(s, "NOREPLICAS")
	})
	if err := rdb.ConfigSet(t.Context(), "min-replicas-to-write", "0").Err(); err != nil {
		t.Fatal(err)
	}
	b.eventually("it joins", func() bool { return strings.Contains(b.log.String(), "worker joined") })
}
