package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/feedback"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/verdict"
)

// feedbackFlags are the flags of `sluice feedback import`.
type feedbackFlags struct {
	campaign     string
	within       time.Duration
	dryRun, json bool
}

func (a *app) feedbackCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "feedback", Short: "Take in what became of accepted mail", Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var f feedbackFlags
	in := &cobra.Command{
		Use: "import FILE|-...", Short: "Read delivery reports: into suppression, breakers and counters",
		Long: `Read what became of mail that the relay had accepted: JSON Lines, delivery reports
(RFC 3464) and complaints (RFC 5965), as single messages or mailbox files (mbox). Of a
folder, every file is read.

A line of JSON has address or message_id, status (delivered, bounced, complained or
delayed), and may have campaign, text (the reply), code, enhanced, stage and time. Texts
are judged by the same rules as the relay's replies. Bad addresses go on the suppression
list; bounces and blocks count for the breakers, which may hold the campaign or the
destination; campaign show has delivered and bounced.

Reading the same file again changes nothing. A bad report is named with file and line and
stops no other one; the exit code is then 3. docs/feedback.md says more.`,
		Example: `  sluice feedback import events.jsonl
  sluice feedback import ~/Maildir/.Bounces --campaign spring`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(fmt.Errorf("%s takes a file, a folder, or - for standard input", cmd.CommandPath()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.feedbackImport(cmd.Context(), args, f) },
	}
	fl := in.Flags()
	fl.StringVar(&f.campaign, "campaign", "", "the campaign of reports that name none, by `NAME` (default: looked for)")
	fl.DurationVar(&f.within, "within", 7*24*time.Hour, "look in campaigns no older than this `TIME` for reports that name none")
	fl.BoolVar(&f.dryRun, "dry-run", false, "read and judge every report, change nothing; needs no Redis")
	fl.BoolVar(&f.json, "json", false, "machine-readable output")
	completeFlag(in, "campaign", a.completeCampaign)
	cmd.AddCommand(in)
	return cmd
}

// heldJSON is what a breaker held because of an import.
type heldJSON struct {
	Campaign string   `json:"campaign"` // whose feedback it was
	Stream   string   `json:"stream"`
	Group    string   `json:"group,omitempty"` // the destination that is held; "" = the campaign is
	Why      string   `json:"why"`
	Lift     string   `json:"lift"`
	Examples []string `json:"examples,omitempty"`
}

// feedbackJSON is the summary of `feedback import`: reports = bad + the four statuses.
type feedbackJSON struct {
	Reports    int        `json:"reports"`
	Bad        int        `json:"bad"`
	Delivered  int        `json:"delivered"`
	Bounced    int        `json:"bounced"`
	Complained int        `json:"complained"`
	Delayed    int        `json:"delayed"`
	New        int        `json:"new"`        // recipients of whom it was not known
	Unmatched  int        `json:"unmatched"`  // of no campaign that could be found
	Suppressed int        `json:"suppressed"` // addresses put on the list
	NoRule     int        `json:"no_rule"`    // bounces whose words no rule knows
	Held       []heldJSON `json:"held"`
	DryRun     bool       `json:"dry_run"`
	Seconds    float64    `json:"seconds"`
}

func (j feedbackJSON) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d reports in %.1f s: %d delivered, %d bounced, %d complained, %d delayed, %d bad\n",
		j.Reports, j.Seconds, j.Delivered, j.Bounced, j.Complained, j.Delayed, j.Bad)
	if j.DryRun {
		b.WriteString("dry run: nothing was changed\n")
	} else {
		fmt.Fprintf(&b, "%d recipients counted that were not before, %d addresses put on the suppression list, %d reports about no campaign that was found\n",
			j.New, j.Suppressed, j.Unmatched)
	}
	if j.NoRule > 0 {
		fmt.Fprintf(&b, "%d bounces in words that no rule knows; docs/verdicts.md says how to add rules\n", j.NoRule)
	}
	for _, h := range j.Held {
		what := "campaign " + h.Campaign
		if h.Group != "" {
			what = fmt.Sprintf("destination %s of stream %s", h.Group, h.Stream)
		}
		fmt.Fprintf(&b, "HELD %s: %s; lifted by: %s\n", what, h.Why, h.Lift)
		for _, example := range h.Examples {
			fmt.Fprintf(&b, "     %s\n", example)
		}
	}
	return b.String()
}

func (a *app) feedbackImport(ctx context.Context, args []string, f feedbackFlags) error {
	if f.within <= 0 {
		return usageError(fmt.Errorf("--within %v: want more than 0", f.within))
	}
	files, err := inputs(args)
	if err != nil {
		return usageError(err)
	}
	cfg, err := a.readConfig()
	if err != nil {
		return err
	}
	rules, err := verdict.Load(cfg.Verdicts.File)
	if err != nil {
		return usageError(err)
	}
	j := feedbackJSON{DryRun: f.dryRun, Held: []heldJSON{}}
	p := feedback.Params{Rules: rules, Preset: string(cfg.Relay.Preset), Within: f.within, Bad: a.badReport(),
		Held: func(c *queue.Campaign, group string, h *queue.Hold) {
			j.Held = append(j.Held, heldJSON{c.Name, string(c.Stream), group, h.Why, h.Lift, h.Examples})
		}}
	start := time.Now()
	var sum feedback.Summary
	if f.dryRun {
		sum, err = a.takeIn(ctx, files, p)
	} else {
		err = a.onFeedback(ctx, f, &p, func() (err error) {
			sum, err = a.takeIn(ctx, files, p)
			return err
		})
	}
	if sum.Bad > maxBadShown {
		fmt.Fprintf(a.err, "… and %d more bad reports\n", sum.Bad-maxBadShown)
	}
	j.Reports, j.Bad, j.Delivered, j.Bounced, j.Complained, j.Delayed = sum.Reports, sum.Bad, sum.Delivered, sum.Bounced, sum.Complained, sum.Delayed
	j.New, j.Unmatched, j.Suppressed, j.NoRule, j.Seconds = sum.New, sum.Unmatched, sum.Suppressed, sum.NoRule, time.Since(start).Seconds()
	if err != nil {
		return feedbackError(err, j)
	}
	if f.json {
		err = writeJSON(a.out, j)
	} else {
		_, err = io.WriteString(a.out, j.text())
	}
	if err == nil && j.Bad > 0 {
		err = &exitError{code: exitPartial}
	}
	return err
}

// feedbackError says how far an import got, and what it held.
func feedbackError(err error, j feedbackJSON) error {
	var format *feedback.FormatError
	usage := errors.As(err, &format)
	if j.New+j.Suppressed > 0 {
		err = fmt.Errorf("%w (%d recipients were counted before; importing it all again is harmless)", err, j.New)
	}
	for _, h := range j.Held {
		err = fmt.Errorf("%w\nheld because of it: campaign %s %s: %s", err, h.Campaign, h.Group, h.Why)
	}
	if usage {
		return usageError(err)
	}
	return err
}

// onFeedback completes p with all that needs Redis, for f.
func (a *app) onFeedback(ctx context.Context, flags feedbackFlags, p *feedback.Params, f func() error) error {
	return a.onQueue(ctx, func(cfg *config.Config, q *queue.Queue) error {
		groups, err := destinations(ctx, cfg)
		if err != nil {
			return err
		}
		l, closer, err := suppression(cfg)
		if err != nil {
			return err
		}
		defer closer.Close()
		if flags.campaign != "" {
			if p.Campaign, err = q.Find(ctx, flags.campaign); err != nil {
				if errors.Is(err, queue.ErrNoCampaign) {
					return usageError(fmt.Errorf("--campaign: %w", err))
				}
				return err
			}
		}
		p.Queue, p.Suppress, p.Group = q, l, groups
		return f()
	})
}

// takeIn reads all files, and says how far it got.
func (a *app) takeIn(ctx context.Context, files []string, p feedback.Params) (feedback.Summary, error) {
	im := feedback.New(p)
	for _, name := range files {
		err := a.readFeedback(ctx, im, name)
		if ctx.Err() != nil {
			err = errInterrupted // half a report may look like a whole or a wrong one
		}
		if err != nil {
			return im.Summary(), err
		}
	}
	err := im.Flush(ctx)
	return im.Summary(), err
}

func (a *app) readFeedback(ctx context.Context, im *feedback.Importer, name string) error {
	src, err := a.openInput(ctx, name)
	if err != nil {
		return err
	}
	defer src.Close()
	if name == "-" {
		name = "stdin"
	}
	return im.Read(ctx, name, src)
}

// badReport names bad reports on standard error, up to a bound.
func (a *app) badReport() func(*feedback.Fault) {
	bad := 0
	return func(f *feedback.Fault) {
		if bad++; bad <= maxBadShown {
			fmt.Fprintln(a.err, f)
		}
	}
}

// inputs are the files that arguments mean: themselves, and of a folder all below it but
// what is hidden. A mail folder (Maildir) has files without an extension that Read knows.
func inputs(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		if arg == "-" {
			files = append(files, arg)
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case path != arg && strings.HasPrefix(d.Name(), "."):
				if d.IsDir() {
					return fs.SkipDir
				}
			case d.Type().IsRegular():
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
