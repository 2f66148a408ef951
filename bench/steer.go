package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/producer"
)

// Steering is measured with the program itself, on campaigns of some seconds and with a
// round trip as to a relay nearby, so that connections have messages under way.
const (
	steerWorkers = 3
	steerPeople  = 3000
	steerRTT     = 10 * time.Millisecond
	steerQuiet   = 1500 * time.Millisecond // with no MAIL for so long, none is to come

	// So many connections that no worker waits for those of another.
	steerYAML = `limits: {connections: {open: 36, new: 600/1m}, messages: [1200/1s], per_connection: {messages: 50000}}
streams: {auth: {reserve: [100/1s], connections: 0}}
`
)

// steering is one run of steer.
type steering struct {
	*fleet
	list string
	rnd  *rand.Rand

	pause, cancel       steered
	accepted, cancelled int
}

// steered is what was measured of one command.
type steered struct {
	took  series // ms until it returned
	last  series // ms from its return to the last MAIL; less than 0 where that was before
	mails int    // MAILs after its return
}

// steer pauses, resumes and cancels campaigns at random times, and measures how long
// after each command's return a MAIL still comes.
func (b *bench) steer() error {
	rounds := 50
	if b.quick {
		rounds = 2
	}
	f, err := b.fleet(fleetSetup{rtt: steerRTT, yaml: steerYAML, workers: steerWorkers})
	if err != nil {
		return err
	}
	defer f.close()
	s := &steering{fleet: f, rnd: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))}
	if s.list, err = b.list(steerPeople); err != nil {
		return err
	}
	for i := range rounds {
		if err := s.round(i); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	b.table([]string{"", "times", "ms until it returned", "ms from there to the last MAIL", "p99", "MAILs after its return"},
		[][]string{s.pause.row("campaign pause"), s.cancel.row("campaign cancel")})
	b.printf("\n%d processes of `sluice worker`, a round trip of %v, real Redis with AOF everysec, campaigns of %s. Each is paused at a random moment, resumed, and "+
		"two of three are cancelled at another. Median (least–most); less than 0 is before the return. Nobody was skipped and nobody got two: %s accepted, %s cancelled, "+
		"in the ledger and at the relay.\n",
		steerWorkers, steerRTT, number(steerPeople, 0), number(float64(s.accepted), 0), number(float64(s.cancelled), 0))
	return nil
}

func (c *steered) row(name string) []string {
	return []string{name, number(float64(len(c.took)), 0), c.took.show(0), c.last.show(0), number(c.last.quantile(0.99), 0), number(float64(c.mails), 0)}
}

// quantile is the value that a share of the series does not exceed.
func (s series) quantile(share float64) float64 {
	v := slices.Sorted(slices.Values(s))
	return v[max(0, int(math.Ceil(share*float64(len(v))))-1)]
}

// round sends one campaign and steers it.
func (s *steering) round(i int) error {
	req, err := wireLetter().request(fmt.Sprintf("steer-%d", i), s.list)
	if err != nil {
		return err
	}
	begin := s.relay.Stats().Messages
	res, err := producer.Send(s.b.ctx, s.q, req)
	if err != nil {
		return err
	}
	c := res.Campaign
	if err := s.reach(int(begin) + 1 + s.rnd.IntN(steerPeople*2/3)); err != nil {
		return err
	}
	if err := s.steer(&s.pause, "pause", c.Name); err != nil {
		return err
	}
	if err := s.command("campaign", "resume", c.Name); err != nil {
		return err
	}
	if i%3 != 2 {
		left := int(begin) + steerPeople - s.fleet.accepted()
		if err := s.reach(s.fleet.accepted() + s.rnd.IntN(left*2/3+1)); err != nil {
			return err
		}
		if err := s.steer(&s.cancel, "cancel", c.Name); err != nil {
			return err
		}
	}
	sum, err := s.account(c, int(begin))
	if err != nil {
		return err
	}
	s.accepted += sum.Count(mail.Accepted)
	s.cancelled += sum.Count(mail.Cancelled)
	return nil
}

// reach waits until the relay has accepted so many.
func (s *steering) reach(n int) error {
	return s.until(time.Minute, fmt.Sprintf("mail %d", n), func() bool { return s.fleet.accepted() >= n })
}

// steer runs a command that stops a campaign, and measures what comes after it.
func (s *steering) steer(m *steered, verb, name string) error {
	asked := time.Now()
	if err := s.command("campaign", verb, name); err != nil {
		return err
	}
	back := time.Now()
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	m.took = append(m.took, ms(back.Sub(asked)))
	times := s.relay.MailTimes()
	for quiet := back; time.Since(quiet) < steerQuiet; {
		if err := pause(s.b.ctx, 50*time.Millisecond); err != nil {
			return err
		}
		if now := s.relay.MailTimes(); len(now) > len(times) {
			times, quiet = now, time.Now()
		}
	}
	if len(times) == 0 {
		return errors.New("no MAIL was noted")
	}
	last := slices.MaxFunc(times, time.Time.Compare)
	m.last = append(m.last, ms(last.Sub(back)))
	after := 0
	for _, at := range times {
		if at.After(back) {
			after++
		}
	}
	m.mails += after
	s.b.progress("%s %s: returned after %.0f ms, last MAIL %.0f ms later, %d of them after it", verb, name, ms(back.Sub(asked)), ms(last.Sub(back)), after)
	return nil
}
