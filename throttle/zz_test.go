package throttle

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestZZ(t *testing.T) {
	for _, lim := range []Limits{
		{Open: 8, Messages: []Window{{500, sec}}, Streams: map[string]Share{"auth": {Reserve: []Window{{400, sec}}, Connections: 2}}},
		shipped(),
		{Open: 8, Messages: []Window{{2000, sec}}, Streams: map[string]Share{"auth": {Reserve: []Window{{100, sec}}, Connections: 2}}},
	} {
		for _, adsProc := range []int{1, 4} {
			for _, conns := range []int{1, 2, 4} {
				synctest.Test(t, func(t *testing.T) {
					v := &virtual{t: t, limits: lim, store: &Memory{}, takes: 2 * time.Millisecond}
					bs := v.fleet(adsProc)
					ctx, cancel := context.WithTimeout(t.Context(), 20*sec)
					defer cancel()
					ads := &record{}
					var wg sync.WaitGroup
					for _, b := range bs {
						wg.Go(func() { zzdrain(ctx, ads, b, Class{Stream: "ad"}, nil) })
					}
					nap(ctx, 3*sec)
					start := time.Now()
					codes := &record{}
					left := 1000
					one := sync.Mutex{}
					var burst sync.WaitGroup
					next := make(chan struct{}, 1)
					next <- struct{}{}
					for range conns {
						burst.Go(func() {
							for {
								// TryNext
								one.Lock()
								if left == 0 {
									one.Unlock()
									return
								}
								if bs[0].TryMessage(Class{Stream: "auth"}) {
									left--
									one.Unlock()
									codes.add(time.Now())
									nap(ctx, 2*time.Millisecond)
									continue
								}
								one.Unlock()
								// feeder: one Next at a time
								<-next
								if _, err := bs[0].Message(ctx, Class{Stream: "auth"}); err != nil {
									return
								}
								next <- struct{}{}
								one.Lock()
								if left > 0 {
									left--
									codes.add(time.Now())
								}
								one.Unlock()
								nap(ctx, 2*time.Millisecond)
							}
						})
					}
					burst.Wait()
					took := time.Since(start)
					nap(ctx, 2*sec)
					cancel()
					wg.Wait()
					t.Logf("ads procs %d conns %d: took %v (%.0f/s), ads during %d, after %d", adsProc, conns, took, 1000/took.Seconds(), ads.during(start.Add(100*time.Millisecond), took-100*time.Millisecond),
						ads.during(start.Add(took+100*time.Millisecond), 1100*time.Millisecond))
				})
			}
		}
	}
}

func zzdrain(ctx context.Context, r *record, b *Budget, c Class, n *int) {
	r.drain(ctx, b, c)
}
