package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/relay"
)

const (
	adaptWorkers = 2
	adaptRTT     = 20 * time.Millisecond
	adaptYAML    = `limits: {connections: {open: 12, new: 3000/1m}, messages: [1000/1s], per_connection: {messages: 5000}}
streams: {auth: {reserve: [20/1s], connections: 0}, normal: {canary: {size: off}}}
breakers: {bounced: off, blocked: off, unknown: off, group: {bounced: off, blocks: off, blocks_of: off}}
`
)

// hidden is a limit of the relay that nobody has told the fleet of.
type hidden struct {
	name, profile string
	rate          float64 // messages/s that it comes to; 0: another kind of limit
}

func hiddens() []hidden {
	return []hidden{
		{"150 messages/s", "throttled?rate=150/1s&open=0&per_connection=0", 150},
		{"then 300 messages/s", "throttled?rate=300/1s&open=0&per_connection=0", 300},
		{"then 100 messages/s", "throttled?rate=100/1s&open=0&per_connection=0", 100},
		{"9,000 messages a minute", "throttled?rate=9000/1m&open=0&per_connection=0", 150},
		{"4 connections", "throttled?rate=0&open=4&per_connection=0", 0},
		{"40 messages a connection", "throttled?rate=0&open=0&per_connection=40", 0},
	}
}

// adapt has a fleet find out what a relay allows that says nothing of it.
func (b *bench) adapt() error {
	settle, look := 2*time.Minute, time.Minute
	if b.quick {
		settle, look = 2*time.Second, 2*time.Second
	}
	var f *fleet
	defer func() {
		if f != nil {
			f.close()
		}
	}()
	var rows [][]string
	for i, h := range hiddens() {
		if i == 0 || h.name[:4] != "then" { // a relay of its own, and nothing learned
			if f != nil {
				f.close()
			}
			var err error
			if f, err = b.fleet(fleetSetup{workers: adaptWorkers, rtt: adaptRTT, yaml: adaptYAML}); err != nil {
				return err
			}
			if err := f.campaign(b.large, mail.Normal); err != nil {
				return err
			}
		}
		if err := f.relay.SetProfile(h.profile); err != nil {
			return err
		}
		b.progress("%s", h.name)
		if err := pause(b.ctx, settle); err != nil {
			return err
		}
		from := f.mark()
		if err := pause(b.ctx, look); err != nil {
			return err
		}
		rows = append(rows, f.since(from, look).row(h))
	}
	b.table([]string{"hidden limit", "messages/s", "% of the limit", "10 s averages, messages/s", "refused MAILs, %", "refused dials", "connections opened", "connections cut"}, rows)
	b.printf("\n%d processes of `sluice worker` configured for 1000/1s and 12 connections, a round trip of %v; each limit for %v before it is looked at, and %v after that. "+
		"Refused are MAILs and greetings with a throttle reply; cut are connections that the relay ended.\n", adaptWorkers, adaptRTT, settle, look)
	return nil
}

// mark is what had happened at a moment.
type mark struct {
	at    time.Time
	stats relay.Stats
}

func (f *fleet) mark() mark { return mark{time.Now(), f.relay.Stats()} }

// found is what a fleet did in a stretch of time.
type found struct {
	rate           float64
	tens           series
	begun, refused int
	dials, crowded int64
	cut            int64
}

func (f *fleet) since(from mark, length time.Duration) found {
	st := f.relay.Stats()
	r := found{
		dials: st.Connections - from.stats.Connections, cut: st.CutByRule - from.stats.CutByRule,
		crowded: st.Replies[relay.Connect]["4xx"] - from.stats.Replies[relay.Connect]["4xx"],
	}
	ten := min(10*time.Second, length)
	tens := make(series, length/ten)
	for _, b := range f.relay.Begun() {
		at := b.Time.Sub(from.at)
		if at < 0 || at >= length {
			continue
		}
		r.begun++
		if b.Refused {
			r.refused++
			continue
		}
		if i := int(at / ten); i < len(tens) {
			tens[i] += 1 / ten.Seconds()
		}
	}
	r.tens, r.rate = tens, float64(r.begun-r.refused)/length.Seconds()
	return r
}

func (r found) row(h hidden) []string {
	share := "–"
	if h.rate > 0 {
		share = number(100*r.rate/h.rate, 1)
	}
	return []string{
		h.name, number(r.rate, 1), share, fmt.Sprintf("%s–%s", number(slices.Min(r.tens), 1), number(slices.Max(r.tens), 1)),
		number(100*float64(r.refused)/float64(max(r.begun, 1)), 3), number(float64(r.crowded), 0), number(float64(r.dials), 0), number(float64(r.cut), 0),
	}
}
