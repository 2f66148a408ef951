package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
	"github.com/sluicemail/sluice/producer"
)

const (
	outageLength  = 15 * time.Second
	outageRate    = 2000 // messages a second, the limit
	outageOpen    = 20
	outageWorkers = 3
	outageYAML    = `limits: {connections: {open: 20, new: 60/1m}, messages: [2000/1s], per_connection: {messages: 50000}}
streams: {auth: {reserve: [100/1s], connections: 2}, normal: {canary: {size: off}}}
`
)

// outage has people wait for a relay that takes no connection, and measures what
// happens when it does again.
func (b *bench) outage() error {
	people := min(b.large, 100_000)
	f, err := b.fleet(fleetSetup{
		workers: outageWorkers, rtt: 10 * time.Millisecond, yaml: outageYAML, rules: []relay.Rule{{Stage: relay.Connect, Action: relay.Drop}},
	})
	if err != nil {
		return err
	}
	defer f.close()
	list, err := b.list(people)
	if err != nil {
		return err
	}
	req, err := wireLetter().request("outage", list)
	if err != nil {
		return err
	}
	res, err := producer.Send(b.ctx, f.q, req)
	if err != nil {
		return err
	}
	if err := f.until(time.Minute, "the first dial", func() bool { return f.relay.Stats().Connections > 0 }); err != nil {
		return err
	}
	if err := pause(b.ctx, outageLength); err != nil {
		return err
	}
	down := len(f.relay.Stats().ConnectTimes)
	if err := f.relay.SetProfile("nhn"); err != nil {
		return err
	}
	back := time.Now()
	codes, err := f.codes(people)
	if err != nil {
		return err
	}
	if _, err := f.account(res.Campaign, 0); err != nil {
		return err
	}
	return f.report(people, down, back, codes)
}

// codes sends a login code a second while people are being sent to, and returns how
// long each took from its commit to the relay, ms.
func (f *fleet) codes(people int) (took series, err error) {
	sent := map[string]time.Time{}
	for i := 0; f.accepted()-i < people; i++ {
		to := fmt.Sprintf("code-%d@login.example", i)
		if sent[to], err = f.code(f.b.ctx, to); err != nil {
			return nil, err
		}
		if err := pause(f.b.ctx, time.Second); err != nil {
			return nil, err
		}
	}
	if err := f.until(time.Minute, "the last code", func() bool { return f.accepted() >= people+len(sent) }); err != nil {
		return nil, err
	}
	for m := range f.relay.Messages() {
		if at, ok := sent[m.To]; ok {
			took = append(took, float64(m.Time.Sub(at).Microseconds())/1000)
		}
	}
	return took, nil
}

// code enqueues one login code, and returns when that was done.
func (f *fleet) code(ctx context.Context, to string) (time.Time, error) {
	req, err := wireLetter().request("", "")
	if err != nil {
		return time.Time{}, err
	}
	req.Stream, req.Options.Stream, req.Key = mail.Auth, mail.Auth, to
	req.List = producer.List{Name: to, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("email,name\n" + to + ",홍길동\n")), nil
	}}
	_, err = producer.Send(ctx, f.q, req)
	return time.Now(), err
}

// report prints what the relay saw from the moment on when it was back.
func (f *fleet) report(people, down int, back time.Time, codes series) error {
	st := f.relay.Stats()
	opened := st.ConnectTimes[down:]
	slices.SortFunc(opened, time.Time.Compare)
	var ramp []string
	for _, at := range opened[:min(len(opened), outageOpen)] {
		ramp = append(ramp, number(at.Sub(back).Seconds(), 1))
	}
	mails := f.relay.MailTimes()
	slices.SortFunc(mails, time.Time.Compare)
	if len(mails) == 0 || len(codes) == 0 {
		return fmt.Errorf("%d mails, %d codes: nothing to report", len(mails), len(codes))
	}
	f.b.table([]string{"", ""}, [][]string{
		{"people who waited, each of whom got one mail", number(float64(people), 0)},
		{"dials in " + outageLength.String() + " without a relay", number(float64(down), 0)},
		{"dials afterwards; most connections at once, of " + number(outageOpen, 0), fmt.Sprintf("%d; %d", len(opened), st.OpenMax)},
		{"seconds until each of the first connections", strings.Join(ramp, " ")},
		{"seconds until the first mail, the last", fmt.Sprintf("%s, %s", number(mails[0].Sub(back).Seconds(), 1), number(mails[len(mails)-1].Sub(back).Seconds(), 1))},
		{"most mails in any second, of " + number(outageRate, 0), number(float64(most(mails, time.Second)), 0)},
		{"ms from a login code's commit to the relay, one a second", codes.show(0)},
		{"the same, p99", number(codes.quantile(0.99), 0)},
	})
	f.b.printf("\n%d processes of `sluice worker`, a round trip of 10ms, real Redis with AOF everysec; limits %d/1s and %d connections, 60 new a minute. The first code is "+
		"enqueued the moment the relay is back.\n", outageWorkers, outageRate, outageOpen)
	return nil
}

// most is the most of the sorted times that fall into one stretch of a length.
func most(times []time.Time, length time.Duration) (n int) {
	first := 0
	for i, at := range times {
		for at.Sub(times[first]) >= length {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}
