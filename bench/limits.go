package main

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/producer"
	"github.com/sluicemail/sluice/templates"
)

// The windows of the fleet's benchmark: two lengths of each kind, both near what binds.
const (
	limitsOpen    = 20
	limitsWorkers = 10
	limitsYAML    = `limits: {connections: {open: 20, new: [40/10s, 200/1m]}, messages: [1000/1s, 9000/10s], per_connection: {messages: 2000}}
streams: {auth: {reserve: [50/1s], connections: 2}, normal: {canary: {size: off}}}
breakers: {bounced: off, blocked: off, unknown: off, group: {bounced: off, blocks: off, blocks_of: off}}
`
)

// limits kills workers and Redis, and reads off the relay's log how far the limits were
// kept; then it measures how much of them a fleet uses that is left alone.
func (b *bench) limits() error {
	if err := b.underFire(); err != nil {
		return err
	}
	return b.inPeace()
}

// underFire kills one of ten workers every second, and then Redis.
func (b *bench) underFire() error {
	kills, after := 60, 30*time.Second
	if b.quick {
		kills, after = 3, 3*time.Second
	}
	f, err := b.fleet(fleetSetup{workers: limitsWorkers, yaml: limitsYAML})
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.campaign(min(b.large, 300_000), mail.Normal); err != nil {
		return err
	}
	if err := f.until(time.Minute, "the first mails", func() bool { return f.accepted() > 100 }); err != nil {
		return err
	}
	for i := range kills {
		if err := f.replace(i % limitsWorkers); err != nil {
			return err
		}
		if err := pause(b.ctx, time.Second); err != nil {
			return err
		}
	}
	before := f.accepted()
	if err := f.redis.again(); err != nil {
		return err
	}
	restarted := time.Now()
	if err := pause(b.ctx, after); err != nil {
		return err
	}
	st, begun := f.relay.Stats(), f.relay.MailTimes()
	seen := func(limit string, n, most int) []string {
		return []string{limit, number(float64(n), 0), number(float64(most), 0)}
	}
	b.table([]string{"limit", "allowed", "most in the relay's log"}, [][]string{
		seen("connections open", limitsOpen, int(st.OpenMax)),
		seen("connections opened in 10 s", 40, most(st.ConnectTimes, 10*time.Second)),
		seen("connections opened in 1 m", 200, most(st.ConnectTimes, time.Minute)),
		seen("messages begun in 1 s", 1000, most(begun, time.Second)),
		seen("messages begun in 10 s", 9000, most(begun, 10*time.Second)),
	})
	b.printf("\n%d processes of `sluice worker`, one of them killed (SIGKILL) and started again every second, %d times; then Redis killed and started "+
		"again, and %v more. %s connections opened and %s messages begun in all, %s of the messages in the %.0f s after Redis was back.\n",
		limitsWorkers, kills, after, number(float64(st.Connections), 0), number(float64(len(begun)), 0),
		number(float64(f.accepted()-before), 0), time.Since(restarted).Seconds())
	return nil
}

// inPeace measures the rate with messages as the limit that binds.
func (b *bench) inPeace() error {
	var rows [][]string
	for _, w := range []struct {
		limit string
		n     float64
		per   time.Duration
		slack time.Duration
	}{
		{"1000/1s", 1000, time.Second, 100 * time.Millisecond},
		{"4000/2s", 4000, 2 * time.Second, 100 * time.Millisecond},
		{"10000/10s", 10_000, 10 * time.Second, 500 * time.Millisecond},
	} {
		rate, err := b.rateUnder(w.limit)
		if err != nil {
			return err
		}
		limit, allowed := w.n/w.per.Seconds(), w.n/(w.per+w.slack).Seconds()
		rows = append(rows, []string{w.limit, number(rate, 1), number(100*rate/limit, 1), number(allowed, 1), number(100*rate/allowed, 1)})
		b.progress("%s: %.1f messages/s", w.limit, rate)
	}
	b.printf("\nThe same fleet left alone, with one limit of messages:\n\n")
	b.table([]string{"limit", "messages/s", "% of the limit", "what limit and slack allow, messages/s", "% of that"}, rows)
	b.printf("\nA limit is kept over its window and a slack of 100 ms, or 5 %% from 10 s up, so that the relay's clock sees no window above it "+
		"(package comment of `throttle`). From one tenth of a campaign to nine, by the relay's log; %d processes.\n", limitsWorkers)
	return nil
}

func (b *bench) rateUnder(limit string) (float64, error) {
	yaml := fmt.Sprintf("limits: {connections: {open: 20, new: 600/1m}, messages: [%s], per_connection: {messages: 50000}}\n"+
		"streams: {auth: {reserve: [50/1s], connections: 2}, normal: {canary: {size: off}}}\n", limit)
	f, err := b.fleet(fleetSetup{workers: limitsWorkers, yaml: yaml})
	if err != nil {
		return 0, err
	}
	defer f.close()
	n := 40_000
	if b.quick {
		n = 3_000
	}
	if err := f.campaign(n, mail.Normal); err != nil {
		return 0, err
	}
	if err := f.until(10*time.Minute, "the end", func() bool { return f.accepted() >= n }); err != nil {
		return 0, err
	}
	times := f.relay.MailTimes()
	from, to := times[len(times)/10], times[len(times)*9/10]
	return float64(len(times)*9/10-len(times)/10) / to.Sub(from).Seconds(), nil
}

// campaign enqueues n people on a stream.
func (f *fleet) campaign(n int, s mail.Stream) error {
	list, err := f.b.list(n)
	if err != nil {
		return err
	}
	req, err := wireLetter().request("campaign", list)
	if err != nil {
		return err
	}
	req.Stream, req.Options.Stream = s, s
	if s == mail.Ad { // with what advertising mail has to show
		if req.Template, err = templates.Load("ad"); err != nil {
			return err
		}
		req.Options.Set = nil
	}
	_, err = producer.Send(f.b.ctx, f.q, req)
	return err
}

// replace kills a worker and starts another.
func (f *fleet) replace(i int) error {
	w := f.workers[i]
	if err := w.Process.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill a worker: %w", err)
	}
	_ = w.Wait() // killed: its error says nothing
	if err := f.hire(); err != nil {
		return err
	}
	last := len(f.workers) - 1
	f.workers[i] = f.workers[last]
	f.workers = f.workers[:last]
	return nil
}

// again kills the server and starts it on what it left.
func (s *redisServer) again() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill redis: %w", err)
	}
	_ = s.cmd.Wait() // killed: its error says nothing
	cmd := exec.Command(s.cmd.Path, s.cmd.Args[1:]...)
	cmd.SysProcAttr = s.cmd.SysProcAttr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server again: %w", err)
	}
	s.cmd = cmd
	return nil
}
