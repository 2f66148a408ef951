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
)

// latencyWindows are those that the limit is given in. A window's slack is a tenth of a
// second: of one second it takes a tenth of the rate, of two a twentieth.
func latencyWindows() []time.Duration { return []time.Duration{time.Second, 2 * time.Second} }

func latencyYAML(window time.Duration) string {
	n := int(latencyRate * window / time.Second)
	return fmt.Sprintf(`limits: {connections: {open: 14, new: 600/1m}, messages: [%d/%[2]v], per_connection: {messages: 50000}}
streams: {auth: {reserve: [%d/%[2]v], connections: 4, ttl: 3m}, ad: {canary: {size: off}}}
`, n, window, n/4)
}

// latency sends login codes while a campaign of ads drains at the limit: as many as their
// reserve, one by one, and then a burst.
func (b *bench) latency() error {
	head := []string{fmt.Sprintf("a burst of %d in one send", b.burstOf())}
	rows := [][]string{
		{"seconds from the commit to the last reply"},
		{"burst ÷ min(limit, connections ÷ relay time), seconds"},
		{"times that"},
		{"times what limit and slack allow"},
		{"ads begun from 100 ms after the first code to the last"},
		{"ads begun in the second that follows a second after it"},
		{"as many as limit and slack allow"},
	}
	for i, window := range latencyWindows() {
		sum, err := b.latencyIn(window, i == 0)
		if err != nil {
			return err
		}
		ideal, slack := float64(b.burstOf())/latencyRate, 1+0.1/window.Seconds()
		head = append(head, fmt.Sprintf("%d/%v", int(latencyRate*window/time.Second), window))
		for i, text := range []string{
			number(sum.took.Seconds(), 2), number(ideal, 2), number(sum.took.Seconds()/ideal, 3), number(sum.took.Seconds()/ideal/slack, 3),
			number(float64(sum.ads), 0), number(float64(sum.after), 0), number(latencyRate/slack, 0),
		} {
			rows[i] = append(rows[i], text)
		}
	}
	b.printf("\n")
	b.table(head, rows)
	b.printf("\n%d processes of `sluice worker`, a limit of %d/1s or the same over two seconds, a quarter of it and four connections reserved for codes, a round trip of %v; "+
		"%s ads enqueued. Real Redis with AOF everysec. A code is a send of its own, with all that producer.Send does.\n",
		latencyWorkers, latencyRate, latencyRTT, number(float64(b.large), 0))
	return nil
}

// burstOf is how many codes come at once.
func (b *bench) burstOf() int {
	if b.quick {
		return 100
	}
	return 1000
}

// latencyIn does it with the limit given in one window.
func (b *bench) latencyIn(window time.Duration, steady bool) (sum outburst, err error) {
	f, err := b.fleet(fleetSetup{workers: latencyWorkers, rtt: latencyRTT, yaml: latencyYAML(window), login: true})
	if err != nil {
		return sum, err
	}
	defer f.close()
	if err := f.campaign(b.large, mail.Ad); err != nil {
		return sum, err
	}
	if err := f.until(time.Minute, "the campaign at its rate", func() bool { return f.accepted() >= 5*latencyRate }); err != nil {
		return sum, err
	}
	if steady {
		if err := f.oneByOne(); err != nil {
			return sum, err
		}
	}
	b.progress("a burst of %d", b.burstOf())
	return f.burst(b.burstOf())
}

// oneByOne prints what steadily sent codes took.
func (f *fleet) oneByOne() error {
	b, codes := f.b, 3000
	if b.quick {
		codes = 50
	}
	b.progress("%d codes", codes)
	took, sends, err := f.steady(codes)
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
