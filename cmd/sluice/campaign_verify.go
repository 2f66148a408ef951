package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/producer"
)

type verifyFlags struct {
	to, encoding  string
	rewound, json bool
}

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify NAME --to FILE|-|ADDRESS",
		Short: "Compare a campaign with its list, and put back what Redis lost",
		Long: `Compare what Redis holds of a campaign with the list that it was made of, and put back
what is missing or does not decode: recipients, refused rows, totals, and the place in
the schedule. The list must be the same, byte for byte; with another nothing is changed.

What became of a recipient cannot be put back. Where that record is lost and the mail
may have been sent, the recipient becomes unknown: a stream with on_unknown: resend
sends again, counted in resent; with hold it is for campaign retry or settle to say.

Use --rewound when Redis is known to have come back with older data, as a restored
backup: then everybody who is not done may have been sent to since, and becomes
unknown. Pause the campaign first.`,
		Args: oneCampaign, ValidArgsFunction: a.completeCampaign,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.to == "":
				return usageError(errors.New("--to is needed: the list that the campaign was made of"))
			case f.encoding != "" && !slices.Contains(list.Encodings(), f.encoding):
				return usageError(fmt.Errorf("--encoding %q: want one of %s", f.encoding, strings.Join(list.Encodings(), ", ")))
			}
			return a.steer(cmd.Context(), args[0], func(q *queue.Queue, c *queue.Campaign) error {
				return a.verify(cmd.Context(), q, c, f)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", "", "the campaign's recipients, as they were given to send: a `FILE`, - for standard input, or one address")
	fl.StringVar(&f.encoding, "encoding", "", "the list's `ENCODING`, as it was given to send")
	fl.BoolVar(&f.rewound, "rewound", false, "Redis came back with older data: whoever is not done becomes unknown")
	fl.BoolVar(&f.json, "json", false, "machine-readable output")
	return cmd
}

// verifyJSON is what verify prints with --json.
type verifyJSON struct {
	Campaign    string `json:"campaign"`
	Recipients  int    `json:"recipients"`
	Blocks      int    `json:"blocks_restored"`
	Doors       int    `json:"refused_restored"`
	Records     int    `json:"records_replaced"`
	Unknown     int    `json:"unknown"`
	Rescheduled int    `json:"rescheduled"`
	Schedule    bool   `json:"schedule_restored"`
	Index       bool   `json:"index_restored"`
}

func (a *app) verify(ctx context.Context, q *queue.Queue, c *queue.Campaign, f verifyFlags) error {
	l, cleanup, err := a.list(ctx, f.to)
	if err != nil {
		return err
	}
	defer cleanup()
	found, err := producer.Verify(ctx, q, c, producer.Verification{List: l, Encoding: f.encoding, Rewound: f.rewound})
	if errors.Is(err, queue.ErrNotHeld) {
		return usageError(err)
	}
	if err != nil {
		return inputError(err)
	}
	if f.json {
		return writeJSON(a.out, verifyJSON{c.Name, c.Counts.Recipients, found.Blocks, found.Doors, found.Records, found.Unknown,
			found.Rescheduled, found.Schedule, found.Index})
	}
	fmt.Fprintf(a.out, "%s: compared %d recipients with %s\n", c.Name, c.Counts.Recipients, l.Name)
	lines := verified(found)
	for _, line := range lines {
		fmt.Fprintf(a.out, "  %s\n", line)
	}
	if len(lines) == 0 {
		fmt.Fprintln(a.out, "  nothing was missing")
	}
	if found.Unknown > 0 {
		fmt.Fprintf(a.err, "they may have got the mail; to send again: sluice campaign retry %s --only unknown; to decide: sluice campaign settle %s\n", c.Name, c.Name)
	}
	return nil
}

// verified says for people what was put right.
func verified(found queue.Found) (out []string) {
	for _, part := range []struct {
		n    int
		what string
	}{
		{found.Blocks, "blocks of recipients stored again"},
		{found.Doors, "slices of refused rows stored again"},
		{found.Records, "blocks whose record of outcomes was lost or did not decode"},
		{found.Unknown, "recipients of whom it is not known what became of them are unknown now"},
		{found.Rescheduled, "blocks put back into the schedule"},
	} {
		if part.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	if found.Schedule {
		out = append(out, "the campaign was missing from the schedule of its stream")
	}
	if found.Index {
		out = append(out, "the campaign was missing from the list of campaigns")
	}
	return out
}
