package throttle

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// distant is a store some way away.
type distant struct {
	*Memory
	way time.Duration
}

func (d *distant) messages(ctx context.Context, p *plan, n int, back []unused) (g grant, err error) {
	nap(ctx, d.way)
	g, err = d.Memory.messages(ctx, p, n, back)
	nap(ctx, d.way)
	return g, err
}

// A process uses what there is although its store is up to 40 ms away and back, as far
// as the life of a token reaches, and asks no more often for it.
func TestDistantStore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ ms, conns, want int }{
		{0, 2, 900}, {2, 2, 900}, {5, 10, 900}, {10, 2, 895}, {10, 50, 900}, {20, 10, 890}, {30, 10, 880}, {40, 10, 870},
	} {
		t.Run(fmt.Sprintf("%d ms, %d connections", tt.ms, tt.conns), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &distant{Memory: &Memory{}, way: time.Duration(tt.ms) * time.Millisecond / 2}
				w := Window{1000, sec}
				b, err := newBudget(d, Params{Owner: "o", Limits: Limits{Open: 1, Messages: []Window{w}}})
				if err != nil {
					t.Fatal(err)
				}
				run(t, b)
				ctx, cancel := context.WithTimeout(t.Context(), 10*sec)
				defer cancel()
				r := &record{}
				var wg sync.WaitGroup
				for range tt.conns {
					wg.Go(func() {
						for message(ctx, b, "ad") == nil {
							r.add(time.Now())
							nap(ctx, time.Millisecond)
						}
					})
				}
				wg.Wait()
				r.check(t, "messages", w)
				calls := b.Stats().Calls / 10
				t.Logf("%d/s, %d calls a second, %d lapsed", r.len()/10, calls, b.Stats().Lapsed)
				if r.len()/10 < tt.want || calls > 100 {
					t.Errorf("%d messages and %d calls a second, want %d of 909, and at most 100", r.len()/10, calls, tt.want)
				}
			})
		})
	}
}
