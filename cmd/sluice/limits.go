package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/throttle"
)

func (a *app) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "What is used and left of the fleet's limits, and what was learned of the relay",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON, yes bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Used and left in each window, breakers, holds, learned limits, and who holds connections",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.showLimits(cmd.Context(), asJSON) },
	}
	reset := &cobra.Command{
		Use:   "reset",
		Short: "Forget what was learned of the relay",
		Long: `Forgets, for the whole fleet, what was learned of the relay: limits below the configured
ones, relays that refused connections, and logins that were refused. The next connection is
tried at once, and the rate begins at the configured limits again: a relay that is still
short of patience will say so again. What holds a stream, a login or a destination group is
lifted as well: mend first what the relay complains of. Campaigns that are held stay so.

What is used of the limits stays counted, warm-ups go on, and leases stay.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.resetLimits(cmd.Context(), yes, asJSON) },
	}
	reset.Flags().BoolVar(&yes, "yes", false, "do not ask")
	for _, c := range []*cobra.Command{show, reset} {
		c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
		cmd.AddCommand(c)
	}
	return cmd
}

// onBudget opens the budget of the configured account for f. The budget grants
// nothing: it only reads and resets.
func (a *app) onBudget(ctx context.Context, cfg *config.Config, f func(context.Context, *throttle.Budget) error) error {
	conn, err := connection(cfg.Redis)
	if err != nil {
		return err
	}
	if len(conn.Addrs) == 0 {
		return usageError(errors.New("redis.url is embedded, which keeps nothing"))
	}
	rdb := conn.Client()
	defer rdb.Close()
	b, err := throttle.NewRedis(rdb, throttle.Params{
		Prefix: cfg.Redis.Prefix, Account: cfg.Relay.Account(), Owner: "operator", Limits: budgetLimits(cfg), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return f(ctx, b)
}

// limitsJSON is what limits show --json prints.
type limitsJSON struct {
	Account   string        `json:"account"`
	Relay     string        `json:"relay"`
	Windows   []windowJSON  `json:"windows"`
	WarmUp    []warmUpJSON  `json:"warm_up"`
	Open      int           `json:"connections_open"`
	OpenLimit int           `json:"connections_limit"`
	Holders   []holderJSON  `json:"holders"`
	Breakers  []breakerJSON `json:"breakers"` // those not closed
	Learned   []learnedJSON `json:"learned"`  // limits that the relay has shown
	Holds     []holdJSON    `json:"holds"`    // of streams, logins and destination groups
}

// learnedJSON is one limit that was learned, and is below the configured one or was.
type learnedJSON struct {
	What  string  `json:"what"` // messages_per_second, connections_open or messages_per_connection
	Group string  `json:"group,omitempty"`
	Cap   float64 `json:"cap"` // kept to now; 0: none
	State string  `json:"state"`
	Since string  `json:"since,omitempty"` // of the state
	Told  string  `json:"told,omitempty"`  // when the relay last refused for it
	Probe string  `json:"probe,omitempty"` // when more is tried next
}

type windowJSON struct {
	Limit string `json:"limit"` // with its name in the configuration
	Used  int    `json:"used"`
	Left  int    `json:"left"`
}

type warmUpJSON struct {
	Domain string `json:"domain"`
	Since  string `json:"since,omitempty"` // "" before the first message
	Day    int    `json:"day"`
	Limit  int    `json:"limit"` // of this day
	Used   int    `json:"used"`
	Left   int    `json:"left"`
}

type holderJSON struct {
	Owner       string  `json:"owner"`
	Stream      string  `json:"stream"`
	Connections int     `json:"connections"`
	Lapse       float64 `json:"lapse_seconds"`
}

type breakerJSON struct {
	Stream    string `json:"stream"`
	State     string `json:"state"`
	Since     string `json:"since,omitempty"`
	Next      string `json:"next,omitempty"` // probe
	Refusals  int    `json:"refusals"`       // in a row
	Ungreeted int    `json:"ungreeted"`      // dials under way
	Why       string `json:"why,omitempty"`
}

func (a *app) showLimits(ctx context.Context, asJSON bool) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	return a.onBudget(ctx, cfg, func(ctx context.Context, b *throttle.Budget) error {
		u, err := b.Usage(ctx)
		if err != nil {
			return err
		}
		learned, err := b.Learned(ctx)
		if err != nil {
			return err
		}
		j := newLimitsJSON(u)
		j.Learned = newLearnedJSON(learned)
		if j.Holds, err = a.holds(ctx, cfg); err != nil {
			return err
		}
		j.Account, j.Relay = cfg.Relay.Account(), cfg.Relay.Host
		if asJSON {
			return writeJSON(a.out, j)
		}
		return a.printLimits(j)
	})
}

func newLimitsJSON(u throttle.Usage) limitsJSON {
	j := limitsJSON{
		Windows: []windowJSON{}, WarmUp: []warmUpJSON{}, Open: u.Open, OpenLimit: u.OpenLimit,
		Holders: []holderJSON{}, Breakers: []breakerJSON{},
	}
	for _, list := range [][]throttle.Use{u.Messages, u.Connections} {
		for _, use := range list {
			j.Windows = append(j.Windows, windowJSON{use.Name + " " + use.Window.String(), use.Used, use.Left})
		}
	}
	for _, w := range u.WarmUp {
		j.WarmUp = append(j.WarmUp, warmUpJSON{w.Domain, jsonTime(w.Since), w.Day, w.Window.N, w.Used, w.Left})
	}
	for _, h := range u.Holders {
		j.Holders = append(j.Holders, holderJSON{h.Owner, h.Stream, h.Connections, round1(h.Lapse.Seconds())})
	}
	for _, b := range u.Breakers {
		j.Breakers = append(j.Breakers, breakerJSON{b.Stream, string(b.State), jsonTime(b.Since), jsonTime(b.Next), b.Refusals, b.Ungreeted, b.Why})
	}
	return j
}

// newLearnedJSON leaves out what was never learned.
func newLearnedJSON(l throttle.Learned) []learnedJSON {
	out := []learnedJSON{}
	for _, r := range l.Rates {
		if r.Cap > 0 || !r.Told.IsZero() {
			out = append(out, learnedJSON{"messages_per_second", r.Group, round1(r.Cap), r.State, jsonTime(r.Since), jsonTime(r.Told), jsonTime(r.Probe)})
		}
	}
	for _, c := range []struct {
		what string
		throttle.LearnedCount
	}{{"connections_open", l.Open}, {"messages_per_connection", l.PerConnection}} {
		if c.Cap > 0 {
			out = append(out, learnedJSON{What: c.what, Cap: float64(c.Cap), State: c.State, Since: jsonTime(c.Since), Probe: jsonTime(c.Probe)})
		}
	}
	return out
}

// jsonTime is "" for no time.
func jsonTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (a *app) printLimits(j limitsJSON) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 3, ' ', 0)
	fmt.Fprintf(w, "account %s at %s\n\nlimit\tused\tleft\n", j.Account, j.Relay)
	for _, x := range j.Windows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", x.Limit, grouped(x.Used), grouped(x.Left))
	}
	for _, x := range j.WarmUp {
		when := fmt.Sprintf("day %d", x.Day)
		if x.Since == "" {
			when = "not begun"
		}
		fmt.Fprintf(w, "warm_up.%s %s/24h (%s)\t%s\t%s\n", x.Domain, grouped(x.Limit), when, grouped(x.Used), grouped(x.Left))
	}
	fmt.Fprintf(w, "limits.connections.open %d\t%d\t%d\n", j.OpenLimit, j.Open, max(0, j.OpenLimit-j.Open))
	for i, h := range j.Holders {
		if i == 0 {
			fmt.Fprint(w, "\nholder\tstream\tconnections\tlapse in\n")
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", h.Owner, h.Stream, h.Connections, longTime(h.Lapse))
	}
	for i, b := range j.Breakers {
		if i == 0 {
			fmt.Fprint(w, "\nlogin\tstate\tsince\tnext probe\trefusals\treason\n")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", b.Stream, b.State, b.Since, b.Next, b.Refusals, b.Why)
	}
	printHolds(w, j.Holds)
	for i, l := range j.Learned {
		if i == 0 {
			fmt.Fprint(w, "\nlearned of the relay\tgroup\tkept to\tstate\tsince\tmore is tried\n")
		}
		kept := "no limit"
		if l.Cap > 0 {
			kept = strconv.FormatFloat(l.Cap, 'f', -1, 64)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", strings.ReplaceAll(l.What, "_", " "), l.Group, kept, l.State, l.Since, l.Probe)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write limits: %w", err)
	}
	return nil
}

func (a *app) resetLimits(ctx context.Context, yes, asJSON bool) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	if !yes {
		if err := a.confirm(fmt.Sprintf("Forget what was learned of %s (account %s)?", cfg.Relay.Host, cfg.Relay.Account())); err != nil {
			return err
		}
	}
	return a.onBudget(ctx, cfg, func(ctx context.Context, b *throttle.Budget) error {
		if err := b.Reset(ctx); err != nil {
			return err
		}
		if err := a.liftHolds(ctx, cfg); err != nil {
			return fmt.Errorf("the learned limits are forgotten; lift holds: %w", err)
		}
		if asJSON {
			return writeJSON(a.out, map[string]any{"account": cfg.Relay.Account(), "reset": true})
		}
		_, err := fmt.Fprintf(a.out, "forgotten; the limits of the configuration hold\n")
		return err
	})
}

// confirm asks a question that only yes answers.
func (a *app) confirm(question string) error {
	fmt.Fprintf(a.err, "%s Type yes: ", question)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if strings.TrimSpace(line) == "yes" {
		return nil
	}
	if err != nil {
		return usageError(errors.New("not confirmed: there is nobody to ask; --yes does it without asking"))
	}
	return usageError(errors.New("not confirmed: nothing was changed"))
}
