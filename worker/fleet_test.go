package worker

import (
	"errors"
	"testing"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/throttle"
)

// holding is a look at holders "owner: connections" of stream auth, whose leases lapse
// in a minute, as far as they are renewed.
func holding(dials int, of map[string]int, frozen ...string) throttle.Usage {
	u := throttle.Usage{Breakers: []throttle.Breaker{{Stream: "auth", Ungreeted: dials}}}
	for owner, n := range of {
		lapse := time.Minute
		for _, f := range frozen {
			if f == owner {
				lapse = 50 * time.Second
			}
		}
		u.Holders = append(u.Holders, throttle.Holder{Owner: owner, Stream: "auth", Connections: n, Lapse: lapse})
	}
	return u
}

func TestFleetCounts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dials                int
		holders              map[string]int
		held, others, beyond int // beyond two
	}{
		"nobody":              {},
		"we alone":            {holders: map[string]int{"m": 2}, held: 2},
		"we alone, too many":  {holders: map[string]int{"m": 5}, held: 5, beyond: 3},
		"others before us":    {holders: map[string]int{"a": 1, "b": 1, "m": 2}, held: 4, others: 2, beyond: 2},
		"others after us":     {holders: map[string]int{"m": 2, "x": 2}, held: 4, others: 2},
		"one of ours":         {holders: map[string]int{"a": 1, "m": 2, "x": 1}, held: 4, others: 2, beyond: 1},
		"the other is a dial": {dials: 1, holders: map[string]int{"a": 1}, held: 1},
	} {
		f := newFleet("m", nil)
		f.see(holding(tc.dials, tc.holders), nil, time.Now())
		if held, others, beyond := f.held(mail.Auth), f.others(mail.Auth), f.beyond(mail.Auth, 2); held != tc.held || others != tc.others || beyond != tc.beyond {
			t.Errorf("%s: held %d, others %d, beyond %d; want %d, %d, %d", name, held, others, beyond, tc.held, tc.others, tc.beyond)
		}
		if n := f.others(mail.Ad); n != 0 {
			t.Errorf("%s: %d of another stream", name, n)
		}
	}
}

// Who does not renew any more is not counted on, and is again as soon as it does.
func TestFleetFrozen(t *testing.T) {
	t.Parallel()
	f := newFleet("m", nil)
	all := map[string]int{"a": 1, "b": 2}
	start := time.Now().Add(-silentFor - 2*time.Second)
	f.see(holding(0, all), nil, start)
	f.see(holding(0, all, "a"), nil, start.Add(10*time.Second)) // its leases stand as they did
	if n := f.others(mail.Auth); n != 2 {
		t.Errorf("%d connections, want those of b alone", n)
	}
	f.see(holding(0, all), nil, start.Add(11*time.Second))
	if n := f.others(mail.Auth); n != 3 {
		t.Errorf("%d connections after the thaw, want 3", n)
	}
	next := f.next()
	f.see(throttle.Usage{}, errors.New("redis is away"), time.Now())
	if n := f.others(mail.Auth); n != 0 {
		t.Errorf("%d connections of which nothing is known", n)
	}
	select {
	case <-next:
	default:
		t.Error("nobody was told of the look")
	}
}
