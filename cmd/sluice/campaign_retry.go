package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

// retried are the outcomes that can be sent again.
func retried() []string { return []string{"deferred", "rejected", "unknown", "expired"} }

func (a *app) retryCommand() *cobra.Command {
	var only, codes []string
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "retry NAME --only " + strings.Join(retried(), "|"),
		Short: "Send again to exactly those who did not get it",
		Long: `Send again, at once, to those of a campaign who did not get it: who is deferred is due
now instead of later, who is rejected, unknown or expired gets a further round of
attempts, and the age at which a mail expires is counted anew. It works while the
campaign is being sent and after it has ended. Nobody who was accepted is sent to again.

Who is unknown may have got the mail; sending again may be a second copy. It is counted
in resent and marked maybe_twice in the report.`,
		Example: `  sluice campaign retry spring --only rejected --code 5.1.1 --dry-run
  sluice campaign retry spring --only deferred,expired`,
		Args: oneCampaign, ValidArgsFunction: a.completeCampaign,
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := selection(only, codes)
			if err != nil {
				return usageError(err)
			}
			return a.steer(cmd.Context(), args[0], func(q *queue.Queue, c *queue.Campaign) error {
				return a.retry(cmd.Context(), q, c, retryOptions{sel, dryRun, asJSON})
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&only, "only", nil, "whom: `OUTCOME` is "+strings.Join(retried(), ", ")+"; repeatable, or with commas")
	f.StringSliceVar(&codes, "code", nil, "of those, only whose last reply bears `CODE`: 550, 4xx, 5.1.1, 5.7.x; repeatable, or with commas")
	f.BoolVar(&dryRun, "dry-run", false, "count them, change nothing")
	f.BoolVar(&asJSON, "json", false, "machine-readable output")
	completeFlag(cmd, "only", completeWord(retried()...))
	return cmd
}

// selection reads --only and --code.
func selection(only, codes []string) (sel queue.Selection, err error) {
	if len(only) == 0 {
		return sel, fmt.Errorf("--only is needed: one or more of %s", strings.Join(retried(), ", "))
	}
	for _, s := range only {
		o, err := mail.ParseOutcome(s)
		if err != nil || !slices.Contains(retried(), s) {
			return sel, fmt.Errorf("--only %q: want one or more of %s", s, strings.Join(retried(), ", "))
		}
		sel.Outcomes = append(sel.Outcomes, o)
	}
	for _, s := range codes {
		c, err := queue.ParseCode(s)
		if err != nil {
			return sel, fmt.Errorf("--code: %w", err)
		}
		sel.Codes = append(sel.Codes, c)
	}
	return sel, nil
}

// steer opens the queue and finds a campaign for f.
func (a *app) steer(ctx context.Context, name string, f func(*queue.Queue, *queue.Campaign) error) error {
	return a.onQueue(ctx, func(_ *config.Config, q *queue.Queue) error {
		c, err := q.Find(ctx, name)
		if err == nil {
			err = f(q, c)
		}
		if errors.Is(err, queue.ErrNoCampaign) || errors.Is(err, queue.ErrNotOpen) {
			return usageError(err)
		}
		return err
	})
}

type retryOptions struct {
	sel            queue.Selection
	dryRun, asJSON bool
}

// retryJSON is what retry prints with --json.
type retryJSON struct {
	Campaign string `json:"campaign"`
	Reopened int    `json:"reopened"`
	Deferred int    `json:"deferred"`
	Rejected int    `json:"rejected"`
	Unknown  int    `json:"unknown"`
	Expired  int    `json:"expired"`
	DryRun   bool   `json:"dry_run"`
}

func (a *app) retry(ctx context.Context, q *queue.Queue, c *queue.Campaign, o retryOptions) error {
	got, err := q.Reopen(ctx, c, o.sel, o.dryRun)
	if errors.Is(err, queue.ErrCancelled) {
		return usageError(fmt.Errorf("%s: %w; send the rest as a new campaign", c.Name, err))
	}
	if err != nil {
		return err
	}
	a.tellAside(c, got)
	n := got.Outcomes
	if o.asJSON {
		return writeJSON(a.out, retryJSON{c.Name, got.Total(), n[mail.Deferred], n[mail.Rejected], n[mail.Unknown], n[mail.Expired], o.dryRun})
	}
	verb := "are sent to again now"
	if o.dryRun {
		verb = "would be sent to again; nothing was changed"
	}
	_, err = fmt.Fprintf(a.out, "%s: %d recipients %s%s\n", c.Name, got.Total(), verb, parts(n))
	return err
}

// tellAside says on stderr whom a command could not decide on.
func (a *app) tellAside(c *queue.Campaign, got queue.Changed) {
	if got.Aside > 0 {
		fmt.Fprintf(a.err, "left out: %d recipients whose records do not decode; first sluice campaign verify %s --to FILE\n", got.Aside, c.Name)
	}
}

// parts lists the counts that are not zero.
func parts(n [mail.NumOutcomes]int) string {
	var out []string
	for o, k := range n {
		if k > 0 {
			out = append(out, fmt.Sprintf("%d %s", k, mail.Outcome(o)))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}
