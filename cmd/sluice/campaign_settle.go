package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
)

func (a *app) settleCommand() *cobra.Command {
	var accepted, rejected, asJSON bool
	var only, reason string
	cmd := &cobra.Command{
		Use:   "settle NAME --accepted|--rejected",
		Short: "Decide what became of those who are unknown",
		Long: `Decide what became of the recipients whose mail was sent and never answered: --accepted
where it was found to have arrived, --rejected where it was not. They count so from then
on, with the reason in the report. A reply of the relay that still comes counts more.

To send to them again instead: sluice campaign retry NAME --only unknown.`,
		Args: oneCampaign, ValidArgsFunction: a.completeCampaign,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := settleOptions{as: mail.Accepted, asJSON: asJSON}
			if rejected {
				o.as = mail.Rejected
			}
			switch {
			case accepted == rejected:
				return usageError(errors.New("one of --accepted and --rejected is needed"))
			case only != mail.Unknown.String():
				return usageError(fmt.Errorf("--only %q: only unknown can be settled; the relay has spoken on the others", only))
			case strings.ContainsAny(reason, "\r\n\x00"):
				return usageError(errors.New("--reason: want one line of text"))
			}
			o.why = "settled as " + o.as.String() + " by an operator"
			if reason != "" {
				o.why += ": " + reason
			}
			return a.steer(cmd.Context(), args[0], func(q *queue.Queue, c *queue.Campaign) error {
				return a.settle(cmd.Context(), q, c, o)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&accepted, "accepted", false, "they have got it")
	f.BoolVar(&rejected, "rejected", false, "they have not got it, and are not to")
	f.StringVar(&only, "only", mail.Unknown.String(), "whom: `OUTCOME` is unknown")
	f.StringVar(&reason, "reason", "", "how that is known: `TEXT` for the report")
	f.BoolVar(&asJSON, "json", false, "machine-readable output")
	completeFlag(cmd, "only", completeWord(mail.Unknown.String()))
	return cmd
}

type settleOptions struct {
	as     mail.Outcome
	why    string
	asJSON bool
}

// settleJSON is what settle prints with --json.
type settleJSON struct {
	Campaign string `json:"campaign"`
	Settled  int    `json:"settled"`
	As       string `json:"as"`
}

func (a *app) settle(ctx context.Context, q *queue.Queue, c *queue.Campaign, o settleOptions) error {
	got, err := q.SettleUnknown(ctx, c, o.as, o.why)
	if err != nil {
		return err
	}
	a.tellAside(c, got)
	if o.asJSON {
		return writeJSON(a.out, settleJSON{c.Name, got.Total(), o.as.String()})
	}
	_, err = fmt.Fprintf(a.out, "%s: %d recipients settled as %s\n", c.Name, got.Total(), o.as)
	return err
}
