package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/queue"
)

func (a *app) campaignCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "campaign", Short: "List, show, report and steer campaigns", Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var asJSON bool
	var limit int
	ls := &cobra.Command{
		Use: "list", Short: "The newest campaigns with their counts", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usageError(fmt.Errorf("--limit %d: want at least 1", limit))
			}
			return a.campaignList(cmd.Context(), limit, asJSON)
		},
	}
	ls.Flags().IntVar(&limit, "limit", 50, "at most `N` campaigns")
	show := &cobra.Command{
		Use: "show NAME", Short: "A campaign's account: every recipient in exactly one outcome", Args: oneCampaign, ValidArgsFunction: a.completeCampaign,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onCampaign(cmd.Context(), args[0], func(q *queue.Queue, _ *queue.Campaign, s *queue.Summary) error {
				return a.printSummary(s, asJSON)
			})
		},
	}
	report := &cobra.Command{
		Use: "report NAME", Short: "One row a recipient: line, address, outcome, code, enhanced code, text, attempts, time",
		Long: `One row a recipient, as CSV or, with --json, JSON Lines. Rows that were accepted from the
list come first, in its order, then those refused at the door.

maybe_twice says that a recipient was sent to again after an attempt whose reply never
came, and so may have got the mail twice. A text that a spreadsheet would take for a
formula gets a ' in front of it in CSV.`,
		Args: oneCampaign, ValidArgsFunction: a.completeCampaign,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onCampaign(cmd.Context(), args[0], func(q *queue.Queue, c *queue.Campaign, _ *queue.Summary) error {
				return a.report(cmd.Context(), q, c, asJSON)
			})
		},
	}
	for _, c := range []*cobra.Command{ls, show, report} {
		c.Flags().BoolVar(&asJSON, "json", false, "machine-readable output")
		cmd.AddCommand(c)
	}
	cmd.AddCommand(a.steerCommands()...)
	cmd.AddCommand(a.retryCommand(), a.settleCommand(), a.verifyCommand())
	return cmd
}

// oneCampaign is the argument of commands on one campaign.
func oneCampaign(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(fmt.Errorf("%s takes one campaign's name, not %d arguments (sluice campaign list shows what there is)", cmd.CommandPath(), len(args)))
	}
	return nil
}

// steerCommands are those that hold a campaign and let it go on.
func (a *app) steerCommands() []*cobra.Command {
	steer := func(use, short, done string, do func(context.Context, *queue.Queue, *queue.Summary) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: short, Args: oneCampaign, ValidArgsFunction: a.completeCampaign,
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.onCampaign(cmd.Context(), args[0], func(q *queue.Queue, c *queue.Campaign, s *queue.Summary) error {
					err := do(cmd.Context(), q, s)
					if errors.Is(err, queue.ErrCancelled) {
						return usageError(fmt.Errorf("%s: %w", c.Name, err))
					}
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(a.out, "%s: %s\n", c.Name, done)
					return err
				})
			},
		}
	}
	return []*cobra.Command{
		steer("pause", "Hold a campaign; mail already begun is finished", "paused", pauseCampaign),
		steer("resume", "Go on with a paused campaign where it stopped", "resumed",
			func(ctx context.Context, q *queue.Queue, s *queue.Summary) error { return q.Resume(ctx, s.Campaign) }),
		steer("cancel", "End a campaign for good: whoever is pending or deferred becomes cancelled", "cancelled", cancelCampaign),
	}
}

// pauseCampaign refuses what it would not change. Who cancels at the same moment is
// not in its way: nothing more is sent either way.
func pauseCampaign(ctx context.Context, q *queue.Queue, s *queue.Summary) error {
	if cancelled(s) {
		return queue.ErrCancelled
	}
	if err := underWay(s, "nothing is left to pause"); err != nil {
		return err
	}
	return q.Pause(ctx, s.Campaign, "paused by an operator")
}

// cancelCampaign refuses a campaign that is done: cancelling would only take away
// what can still be had, such as a retry of those who are unknown. Cancelling again is
// allowed, since it finishes what an interrupted call began.
func cancelCampaign(ctx context.Context, q *queue.Queue, s *queue.Summary) error {
	if !cancelled(s) {
		if err := underWay(s, "nobody is left to cancel"); err != nil {
			return err
		}
	}
	return q.Cancel(ctx, s.Campaign, "cancelled by an operator")
}

// cancelled reports whether an operator has ended the campaign. Workers may still have
// to record it.
func cancelled(s *queue.Summary) bool {
	return s.Held != nil && s.Held.State == queue.HoldCancelled
}

// underWay refuses a campaign that is done. One with blocks set aside is not: a repair
// may bring back who is in them.
func underWay(s *queue.Summary, left string) error {
	if s.Settled && len(s.Aside) == 0 {
		return usageError(fmt.Errorf("%s is done already; %s", s.Campaign.Name, left))
	}
	return nil
}

// onCampaign opens the queue and finds a campaign for f.
func (a *app) onCampaign(ctx context.Context, name string, f func(*queue.Queue, *queue.Campaign, *queue.Summary) error) error {
	return a.onQueue(ctx, func(cfg *config.Config, q *queue.Queue) error {
		c, err := q.Find(ctx, name)
		if errors.Is(err, queue.ErrNoCampaign) {
			return usageError(err)
		}
		if err != nil {
			return err
		}
		s, err := q.Summary(ctx, c, cfg.Streams.Of(c.Stream).OnUnknown == config.Resend)
		if err != nil {
			return err
		}
		return f(q, c, s)
	})
}

func (a *app) onQueue(ctx context.Context, f func(*config.Config, *queue.Queue) error) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	q, err := openQueue(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer q.Close()
	return f(cfg, q)
}

func (a *app) campaignList(ctx context.Context, limit int, asJSON bool) error {
	return a.onQueue(ctx, func(cfg *config.Config, q *queue.Queue) error {
		all, err := q.List(ctx, limit)
		if err != nil {
			return err
		}
		now := time.Now()
		if !asJSON {
			fmt.Fprintf(a.out, "%-32s %-7s %-10s %10s %10s %10s  %s\n", "CAMPAIGN", "STREAM", "STATE", "RECIPIENTS", "ACCEPTED", "LEFT", "CREATED")
		}
		for _, c := range all {
			s, err := q.Summary(ctx, c, cfg.Streams.Of(c.Stream).OnUnknown == config.Resend)
			if err != nil {
				return err
			}
			j := newSummaryJSON(s, now)
			if asJSON {
				err = writeJSON(a.out, j)
			} else {
				_, err = fmt.Fprintf(a.out, "%-32s %-7s %-10s %10d %10d %10d  %s\n", j.Campaign, j.Stream, j.State, j.Recipients,
					j.Accepted, j.Pending+j.Deferred, c.Created.Format("2006-01-02 15:04"))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// reportRow is one line of a report in JSON.
type reportRow struct {
	Line       int    `json:"line"`
	Address    string `json:"address"`
	Outcome    string `json:"outcome"`
	Code       int    `json:"code,omitempty"`
	Enhanced   string `json:"enhanced,omitempty"`
	Text       string `json:"text,omitempty"`
	Attempts   int    `json:"attempts"`
	Time       string `json:"time,omitempty"`
	MaybeTwice bool   `json:"maybe_twice,omitempty"`
}

func newReportRow(r queue.Row) reportRow {
	out := reportRow{
		Line: r.Line, Address: r.Address, Outcome: r.Outcome.String(), Code: r.Reply.Code, Enhanced: r.Reply.Enhanced,
		Text: r.Reply.Text, Attempts: r.Attempts, MaybeTwice: r.Resent,
	}
	if r.Time > 0 {
		out.Time = time.UnixMilli(r.Time).UTC().Format(time.RFC3339)
	}
	return out
}

func (a *app) report(ctx context.Context, q *queue.Queue, c *queue.Campaign, asJSON bool) error {
	out := bufio.NewWriterSize(a.out, 64<<10)
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		if err := q.Rows(ctx, c, func(r queue.Row) error { return e.Encode(newReportRow(r)) }); err != nil {
			return err
		}
		return out.Flush()
	}
	w := csv.NewWriter(out)
	if err := w.Write([]string{"line", "address", "outcome", "code", "enhanced", "text", "attempts", "time", "maybe_twice"}); err != nil {
		return err
	}
	err := q.Rows(ctx, c, func(r queue.Row) error {
		j := newReportRow(r)
		code := ""
		if j.Code > 0 {
			code = strconv.Itoa(j.Code)
		}
		return w.Write([]string{strconv.Itoa(j.Line), list.SafeCell(j.Address), j.Outcome, code, j.Enhanced,
			list.SafeCell(j.Text), strconv.Itoa(j.Attempts), j.Time, strconv.FormatBool(j.MaybeTwice)})
	})
	if err != nil {
		return err
	}
	w.Flush()
	return errors.Join(w.Error(), out.Flush())
}
