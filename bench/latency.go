package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/producer"
)

const (
	latencyRTT     = 5 * time.Millisecond
	latencyWorkers = 2
	latencyRate    = 400                   // messages a second, the limit
	latencyEvery   = 11 * time.Millisecond // between codes: the reserve, over its window and slack
	latencyYAML    = `limits: {connections: {open: 14, new: 600/1m}, messages: [400/1s], per_connection: {messages: 50000}}
streams: {auth: {reserve: [100/1s], connections: 4, ttl: 3m}, ad: {canary: {size: off}}}
`
)

// latency sends login codes while a campaign of ads drains at the limit: as many as their
// reserve, one by one, and then a burst.
func (b *bench) latency() error {
	f, err := b.fleet(fleetSetup{workers: latencyWorkers, rtt: latencyRTT, yaml: latencyYAML, login: true})
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.campaign(b.large, mail.Ad); err != nil {
		return err
	}
	begin := 5 * latencyRate
	codes, burst := 3000, 1000
	if b.quick {
		codes, burst = 50, 100
	}
	if err := f.until(time.Minute, "the campaign at its rate", func() bool { return f.accepted() >= begin }); err != nil {
		return err
	}
	b.progress("%d codes", codes)
	took, sends, err := f.steady(codes)
	if err != nil {
		return err
	}
	b.progress("a burst of %d", burst)
	sum, err := f.burst(burst)
	if err != nil {
		return err
	}
	relay := 2 * float64(latencyRTT) / float64(time.Millisecond) // envelope, content
	b.table([]string{"codes one by one, as many as their reserve", "ms"}, [][]string{
		{"from before the send to the reply, p50", number(took.median(), 1)},
		{"p99", number(took.quantile(0.99), 1)},
		{"most", number(took.quantile(1), 1)},
		{"p50 less the relay's time, two round trips", number(took.median()-relay, 1)},
		{"p99 less the relay's time", number(took.quantile(0.99)-relay, 1)},
		{"the send itself, p50", number(sends.median(), 1)},
		{"p99", number(sends.quantile(0.99), 1)},
	})
	b.printf("\n")
	b.table([]string{fmt.Sprintf("a burst of %s in one send", number(float64(burst), 0)), ""}, [][]string{
		{"seconds from the commit to the last reply", number(sum.took.Seconds(), 2)},
		{"burst ÷ min(limit, connections ÷ relay time), seconds", number(float64(burst)/latencyRate, 2)},
		{"the same, of what limit and slack allow", number(float64(burst)*1.1/latencyRate, 2)},
		{"ads begun from 100 ms after the first code to the last", number(float64(sum.ads), 0)},
		{"ads begun in the second that follows a second after it, of " + number(latencyRate/1.1, 0), number(float64(sum.after), 0)},
	})
	b.printf("\n%d processes of `sluice worker`, limit %d/1s, a reserve of 100/1s and four connections for codes, a round trip of %v; %s ads enqueued. "+
		"Real Redis with AOF everysec. A code is a send of its own, with all that producer.Send does.\n",
		latencyWorkers, latencyRate, latencyRTT, number(float64(b.large), 0))
	return nil
}

// steady sends codes one by one and returns how long each took until its reply, and its
// send alone, ms.
func (f *fleet) steady(codes int) (took, sends series, err error) {
	sent := make([]time.Time, codes)
	stored := make([]time.Time, codes)
	failed := make([]error, codes)
	var wg sync.WaitGroup
	tick := time.NewTicker(latencyEvery)
	defer tick.Stop()
	for i := range codes {
		sent[i] = time.Now()
		wg.Go(func() { stored[i], failed[i] = f.code(f.b.ctx, fmt.Sprintf("steady-%d@login.example", i)) })
		select {
		case <-tick.C:
		case <-f.b.ctx.Done():
		}
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, nil, err
	}
	at, err := f.arrived("steady-", codes)
	if err != nil {
		return nil, nil, err
	}
	for i := range codes {
		took = append(took, (at[fmt.Sprintf("steady-%d@login.example", i)].Sub(sent[i])+latencyRTT/2).Seconds()*1e3)
		sends = append(sends, stored[i].Sub(sent[i]).Seconds()*1e3)
	}
	return took, sends, nil
}

// arrived waits until so many recipients with this prefix have their mail, each one, and
// returns when it was accepted.
func (f *fleet) arrived(prefix string, n int) (map[string]time.Time, error) {
	at := map[string]time.Time{}
	doubled := 0
	err := f.until(5*time.Minute, "the codes", func() bool {
		clear(at)
		doubled = 0
		for m := range f.relay.Messages() {
			if strings.HasPrefix(m.To, prefix) {
				if !at[m.To].IsZero() {
					doubled++
				}
				at[m.To] = m.Time
			}
		}
		return len(at) == n
	})
	if err == nil && doubled > 0 {
		err = fmt.Errorf("%d codes were sent twice", doubled)
	}
	return at, err
}

// outburst is what a burst did.
type outburst struct {
	took       time.Duration
	ads, after int // begun meanwhile, and in the second after the next
}

// burst sends codes to n people at once.
func (f *fleet) burst(n int) (outburst, error) {
	req, err := wireLetter().request("burst", "")
	if err != nil {
		return outburst{}, err
	}
	var rows strings.Builder
	rows.WriteString("email,name\n")
	for i := range n {
		fmt.Fprintf(&rows, "burst-%d@login.example,홍길동\n", i)
	}
	req.Stream, req.Options.Stream = mail.Auth, mail.Auth
	req.List = producer.List{Name: "burst", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(rows.String())), nil
	}}
	if _, err = producer.Send(f.b.ctx, f.q, req); err != nil {
		return outburst{}, err
	}
	start := time.Now()
	at, err := f.arrived("burst-", n)
	if err != nil {
		return outburst{}, err
	}
	end := start
	for _, t := range at {
		if t.After(end) {
			end = t
		}
	}
	if err := pause(f.b.ctx, time.Until(end.Add(2*time.Second))); err != nil {
		return outburst{}, err
	}
	sum := outburst{took: end.Sub(start) + latencyRTT/2}
	var first, last time.Time
	for _, b := range f.relay.Begun() {
		if b.Stream == string(mail.Auth) && b.Time.After(start) {
			if first.IsZero() {
				first = b.Time
			}
			last = b.Time
		}
	}
	for _, b := range f.relay.Begun() {
		switch {
		case b.Stream != string(mail.Ad):
		case b.Time.After(first.Add(100*time.Millisecond)) && b.Time.Before(last):
			sum.ads++
		case b.Time.After(last.Add(time.Second)) && b.Time.Before(last.Add(2*time.Second)):
			sum.after++
		}
	}
	return sum, nil
}
