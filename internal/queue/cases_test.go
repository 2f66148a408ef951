package queue

import (
	"strconv"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/sluicemail/sluice/internal/redistest"
)

// eachCase is eachRedis for a table of cases. All share one real server, where each has
// a prefix of its own: a server takes its time to be joined.
func eachCase[T any](t *testing.T, cases map[string]T, f func(t *testing.T, q *Queue, tc T)) {
	t.Helper()
	for name, tc := range cases {
		t.Run("miniredis/"+name, func(t *testing.T) {
			t.Parallel()
			f(t, open(t, miniredis.RunT(t).Addr()), tc)
		})
	}
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		srv, n := redistest.Start(t), 0
		for name, tc := range cases {
			q := open(t, srv.Addr())
			q.keys.prefix = "case" + strconv.Itoa(n)
			n++
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, q, tc)
			})
		}
	})
}
