package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/relay"
)

func timeline(t *testing.T, r *rig, start time.Time) {
	by := map[int]map[string]int{}
	last := 0
	for _, b := range r.relay.Begun() {
		s := int(b.Time.Sub(start).Seconds())
		if by[s] == nil {
			by[s] = map[string]int{}
		}
		by[s][b.Stream]++
		if b.Refused {
			by[s]["REF"]++
		}
		last = max(last, s)
	}
	con := map[int]int{}
	for _, c := range r.relay.Stats().ConnectTimes {
		s := int(c.Sub(start).Seconds())
		con[s]++
		last = max(last, s)
	}
	var b strings.Builder
	for s := 0; s <= last; s++ {
		fmt.Fprintf(&b, "%3d: %v conn %d\n", s, by[s], con[s])
	}
	t.Log("\n" + b.String())
}

var _ = relay.Mail

func TestZZManyWorkers(t *testing.T) {
	for _, n := range []int{1, 3, 6} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := newRig(t, rigOptions{redis: zzRedis(t), tail: noBreakers,
				limits: `limits: {connections: {open: 10, new: 600/1m}, messages: [1000/1s], per_connection: {messages: 500, age: 5m, idle: 30s}}
streams: {auth: {reserve: [20/1s], connections: 2}}
`})
			if code, _, errs := r.run(t.Context(), r.send(r.list(10_000))...); code != exitDone {
				t.Fatal(errs)
			}
			start := time.Now()
			for range n {
				r.start("worker")
			}
			for range 12 {
				<-time.After(time.Second)
				_, out, _ := r.run(t.Context(), "limits", "show")
				if i := strings.Index(out, "holder"); i >= 0 {
					out = out[i:]
				}
				_ = out
			}
			_, out, _ := r.run(t.Context(), "limits", "show")
			t.Log(out)
			timeline(t, r, start)
		})
	}
}
