package queue

import "testing"

func TestClaimed(t *testing.T) {
	t.Parallel()
	eachRedis(t, func(t *testing.T, q *Queue) {
		a, b := store(t, q, "a", 2, 1), store(t, q, "b", 1, 1)
		m := join(t, q, Hooks{})
		wanted := func(when string, c *Campaign, want bool) {
			t.Helper()
			if got, err := q.Claimed(t.Context(), c); err != nil || got != want {
				t.Errorf("%s, %s is claimed: %t, %v, want %t", when, c.Name, got, err, want)
			}
		}
		wanted("at first", a, false)
		cl := claim(t, m, a, 1)
		wanted("with a claim of a", a, true)
		wanted("with a claim of a", b, false)
		accept(m, cl, 0)
		if err := m.Settle(t.Context(), cl, false); err != nil {
			t.Fatal(err)
		}
		wanted("once it is settled", a, false)
	})
}
