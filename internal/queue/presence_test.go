package queue

import "testing"

// Who has been killed is told from who only does not answer: the sockets of the one are
// closed.
func TestPresence(t *testing.T) {
	t.Parallel()
	eachRedis(t, testPresence)
}

func testPresence(t *testing.T, q *Queue) {
	m := join(t, q, Hooks{})
	eventually(t, "it listens", func() bool { return !q.gone(t.Context(), m.nonce) })
	if err := m.presence.close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return q.gone(t.Context(), m.nonce) })
	m.show(t.Context()) // for Leave
	eventually(t, "it listens again", func() bool { return !q.gone(t.Context(), m.nonce) })
}
