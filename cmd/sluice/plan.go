package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/throttle"
)

// planFlags are those of plan.
type planFlags struct {
	recipients int
	stream     string
	rtt, reply time.Duration
	sender, at string
	asJSON     bool
}

func (a *app) planCommand() *cobra.Command {
	f := planFlags{}
	cmd := &cobra.Command{
		Use:   "plan --recipients N",
		Short: "How long a campaign will take, what decides that, and what it will use up",
		Long: `Works out from the limits of the configuration, and from what of them is used already, how
long a campaign will take, which limit decides that, how many connections it will open, and
when it will end: once with the other streams idle, and once with all of them using what is
kept for them. Sends nothing.

What is used is read from Redis. It counts as used at this moment, so that the end is the
latest one. Without Redis the plan is made for a fleet that has used nothing, and says so.
Limits of destination groups are not in it: they depend on the list.

Whoever is not begun within the stream's ttl expires. How many that are is in the plan, and
it ends there.

The round trip to the relay decides what one connection can do; sluice doctor measures it.`,
		Example: `  sluice plan --recipients 400000 --stream ad --rtt 12ms
  sluice plan --recipients 2000000 --at 2026-12-01T09:00:00+09:00 --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.IntVar(&f.recipients, "recipients", 0, "`N` recipients")
	fl.StringVar(&f.stream, "stream", string(mail.Normal), "`STREAM`: auth, normal or ad")
	fl.DurationVar(&f.rtt, "rtt", 20*time.Millisecond, "round `TRIP` to the relay and back")
	fl.DurationVar(&f.reply, "reply", 0, "the relay's own `TIME` for a message, beside the round trip")
	fl.StringVar(&f.sender, "sender", "", "the sender's `DOMAIN`, for its warm-up")
	fl.StringVar(&f.at, "at", "", "begin at `TIME` (RFC 3339; default: now)")
	fl.BoolVar(&f.asJSON, "json", false, "print one JSON object")
	completeFlag(cmd, "stream", completeStream())
	return cmd
}

// planJSON is what plan --json prints.
type planJSON struct {
	Recipients  int         `json:"recipients"`
	Stream      string      `json:"stream"`
	RoundTripMS float64     `json:"round_trip_ms"`
	Start       time.Time   `json:"start"`
	Known       bool        `json:"known"` // what is used was read from Redis
	Unknown     string      `json:"unknown,omitempty"`
	TTL         float64     `json:"ttl_seconds"` // of the stream, from the start
	Alone       courseJSON  `json:"alone"`
	Shared      courseJSON  `json:"shared"`
	Quotas      []quotaJSON `json:"quotas"`
}

// courseJSON is one way the campaign may go.
type courseJSON struct {
	Never       bool      `json:"never,omitempty"`
	Seconds     float64   `json:"seconds"` // until the last is sent, or has expired
	End         time.Time `json:"end"`
	Limit       string    `json:"limit"`
	LimitFor    float64   `json:"limit_seconds"`
	Waits       float64   `json:"waiting_seconds"`
	Rate        float64   `json:"rate"`
	Peak        float64   `json:"peak_rate"`
	Connections int       `json:"connections"`
	Openings    int       `json:"connections_opened"`
	Expired     int       `json:"expired"` // recipients that are not begun within the ttl
}

// quotaJSON is a long window of messages before the campaign.
type quotaJSON struct {
	Limit string `json:"limit"`
	Used  int    `json:"used"`
	Left  int    `json:"left"` // for the stream
}

func (a *app) plan(ctx context.Context, f planFlags) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	in, err := forecastInput(cfg, f)
	if err != nil {
		return usageError(err)
	}
	why := a.known(ctx, cfg, &in)
	o, err := throttle.Forecast(in)
	if err != nil {
		return err
	}
	j := planJSON{
		Recipients: in.Recipients, Stream: in.Stream, RoundTripMS: float64(in.RoundTrip.Microseconds()) / 1000, Start: in.Start,
		Known: why == nil, TTL: in.TTL.Seconds(), Alone: newCourseJSON(o.Alone), Shared: newCourseJSON(o.Shared), Quotas: []quotaJSON{},
	}
	if why != nil {
		j.Unknown = why.Error()
	}
	for _, r := range o.Rooms {
		j.Quotas = append(j.Quotas, quotaJSON{"limits.messages " + r.Window.String(), r.Used, r.Left})
	}
	if f.asJSON {
		err = writeJSON(a.out, j)
	} else {
		err = a.printPlan(j)
	}
	if err == nil && o.Alone.Never {
		err = fmt.Errorf("this campaign never ends: %s leaves nothing for %s beside what is kept for other streams", o.Alone.Binds, in.Stream)
	}
	return err
}

// forecastInput translates flags and configuration.
func forecastInput(cfg *config.Config, f planFlags) (throttle.ForecastInput, error) {
	var none throttle.ForecastInput
	if f.recipients < 1 {
		return none, fmt.Errorf("--recipients %d: want a number from 1 up", f.recipients)
	}
	stream, err := mail.ParseStream(f.stream)
	if err != nil {
		return none, fmt.Errorf("--stream: %w", err)
	}
	if f.rtt < 0 || f.rtt > time.Minute || f.reply < 0 || f.reply > time.Minute {
		return none, fmt.Errorf("--rtt %v, --reply %v: want 0s to 1m", f.rtt, f.reply)
	}
	start := time.Now()
	if f.at != "" {
		if start, err = time.Parse(time.RFC3339, f.at); err != nil {
			return none, fmt.Errorf("--at %q: want a time such as 2026-12-01T09:00:00+09:00", f.at)
		}
	}
	policy, l := cfg.Streams.Of(stream), cfg.Limits.PerConnection
	in := throttle.ForecastInput{
		Recipients: f.recipients, Stream: string(stream), Sender: f.sender, Limits: budgetLimits(cfg), Start: start.Truncate(time.Second),
		RoundTrip: f.rtt, RoundTrips: 1, Relay: f.reply, PerConnection: l.Messages, Age: l.Age, Idle: l.Idle,
		First: policy.Canary.Of(f.recipients), FirstWait: policy.Canary.Wait, TTL: ttlOf(policy),
	}
	switch cfg.Relay.Pipelining {
	case config.PipelineGroup:
		in.RoundTrips = 2
	case config.PipelineOff:
		in.RoundTrips = 4
	case config.PipelineAuto, config.PipelineFull:
	}
	return in, nil
}

// askWithin bounds what plan and limits wait for Redis.
const askWithin = 3 * time.Second

// known adds what the fleet has used, or returns why that is not known.
func (a *app) known(ctx context.Context, cfg *config.Config, in *throttle.ForecastInput) error {
	return a.onBudget(ctx, cfg, func(ctx context.Context, b *throttle.Budget) error {
		u, err := b.Usage(ctx)
		if err != nil {
			return err
		}
		learned, err := b.Learned(ctx)
		if err != nil {
			return err
		}
		in.Usage, in.Asked = u, time.Now()
		if cfg.Adaptive.Enabled { // else no worker keeps to them
			in.Caps = caps(learned)
		}
		return nil
	})
}

// caps are the learned limits that every message meets.
func caps(l throttle.Learned) throttle.Caps {
	c := throttle.Caps{Open: l.Open.Cap, PerConnection: l.PerConnection.Cap}
	for _, r := range l.Rates {
		if r.Group == "" {
			c.Rate = r.Cap
		}
	}
	return c
}

func newCourseJSON(c throttle.Course) courseJSON {
	return courseJSON{
		Never: c.Never, Seconds: tenths(c.Duration), End: c.End.Truncate(time.Second), Limit: c.Binds, LimitFor: tenths(c.BindsFor),
		Waits: tenths(c.Waits), Rate: round1(c.Rate), Peak: round1(c.Peak), Connections: c.Connections, Openings: c.Openings,
		Expired: c.Expired,
	}
}

// tenths are seconds.
func tenths(d time.Duration) float64 { return math.Round(d.Seconds()*10) / 10 }

// round1 rounds to a tenth, and what is below 1 to four digits: a limit of one message
// an hour must not become none.
func round1(f float64) float64 {
	scale := 10.0
	for a := math.Abs(f); a > 0 && a*scale < 1000 && a < 1 && scale < 1e12; {
		scale *= 10
	}
	return math.Round(f*scale) / scale
}

// perTime writes messages a second in the unit in which they are one at least.
func perTime(rate float64) string {
	for _, u := range []struct {
		name string
		per  time.Duration
	}{{"s", time.Second}, {"min", time.Minute}, {"h", time.Hour}} {
		if n := rate * u.per.Seconds(); n >= 1 || rate == 0 {
			return fmt.Sprintf("%.1f/%s", n, u.name)
		}
	}
	return fmt.Sprintf("%.3g/day", rate*24*time.Hour.Seconds())
}

func (a *app) printPlan(j planJSON) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 3, ' ', 0)
	fmt.Fprintf(w, "%s recipients on %s from %s, round trip %v\n\n", grouped(j.Recipients), j.Stream, j.Start.Format(planTime),
		time.Duration(j.RoundTripMS*float64(time.Millisecond)))
	fmt.Fprint(w, "\tother streams idle\tother streams use what is kept for them\n")
	row := func(name string, show func(courseJSON) string) {
		cells := [2]string{}
		for i, c := range []courseJSON{j.Alone, j.Shared} {
			if cells[i] = show(c); c.Never && name != "limit" && name != "expire" {
				cells[i] = "never"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, cells[0], cells[1])
	}
	row("takes", func(c courseJSON) string { return longTime(c.Seconds) })
	row("ends", func(c courseJSON) string { return c.End.Format(planTime) })
	row("limit", func(c courseJSON) string { return c.Limit })
	row("waits", func(c courseJSON) string { return longTime(c.Waits) })
	row("rate", func(c courseJSON) string { return perTime(c.Rate) + ", at most " + perTime(c.Peak) })
	row("connections", func(c courseJSON) string {
		return fmt.Sprintf("%d, opened %s times", c.Connections, grouped(c.Openings))
	})
	if j.Alone.Expired > 0 || j.Shared.Expired > 0 {
		row("expire", func(c courseJSON) string { return grouped(c.Expired) })
		fmt.Fprintf(w, "\nwarning: %s\n", j.late())
	}
	for i, q := range j.Quotas {
		if i == 0 {
			fmt.Fprint(w, "\nquota\tused\tleft for this stream\n")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", q.Limit, grouped(q.Used), grouped(q.Left))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	if !j.Known {
		fmt.Fprintf(a.err, "nothing is known of what is used already: %s\n", j.Unknown)
	}
	return nil
}

// late says how many expire before it is their turn.
func (j planJSON) late() string {
	n, when := j.Alone.Expired, ""
	if n == 0 {
		n, when = j.Shared.Expired, " while other streams use what is kept for them"
	}
	return fmt.Sprintf("%s of %s recipients are not begun within streams.%s.ttl (%s)%s, and expire",
		grouped(n), grouped(j.Recipients), j.Stream, longTime(j.TTL), when)
}

const planTime = "2006-01-02 15:04:05 -07:00"

// longTime writes seconds as 2d 3h 4m 5s.
func longTime(s float64) string {
	d := time.Duration(math.Round(min(s, math.MaxInt64/1e9-1))) * time.Second
	if d < time.Minute {
		return strconv.FormatFloat(s, 'f', -1, 64) + "s"
	}
	text := ""
	if days := d / (24 * time.Hour); days > 0 {
		text, d = fmt.Sprintf("%dd ", days), d%(24*time.Hour)
	}
	return text + d.String()
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
