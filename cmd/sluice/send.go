package main

import (
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/producer"
	"github.com/sluicemail/sluice/templates"
)

// sendFlags are the flags of `sluice send`.
type sendFlags struct {
	to, template, from, stream, name, at, key, encoding string
	set, attach, inline, header                         []string
	replyTo                                             string
	wait, dryRun, json                                  bool
}

func (a *app) sendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send --to FILE|-|ADDRESS --template NAME|FILE --from ADDR",
		Short: "Check a list and a template, and enqueue a campaign",
		Long: `Check the whole list and the template, then enqueue a campaign. A row that is wrong is
counted as invalid and reported with its line; it stops nobody else. What is wrong with
the list or the template as a whole is an error, and nothing is enqueued.

The same send done twice is one campaign: its identity is --key, which by default
follows from the campaign's name, the template's version and the list.`,
		Example: `  sluice send --to list.csv --template newsletter --from 'Sluice <news@example.com>' --stream ad --wait
  sluice send --to hong@example.com --template code --from no-reply@example.com --stream auth --set code=481516`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.send(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", "", "recipients: a `FILE` (CSV, TSV, JSON Lines), - for standard input, or one address")
	fl.StringVar(&f.template, "template", "", "a shipped template's `NAME`, or a file")
	fl.StringVar(&f.from, "from", "", "sender: `ADDR` or 'Name <addr>' (default: sender.email of the configuration)")
	fl.StringVar(&f.stream, "stream", "", "`STREAM`: auth, normal or ad (default: the one the template is meant for, else normal)")
	fl.StringVar(&f.name, "name", "", "`CAMPAIGN` name (default: made from template and list)")
	fl.StringVar(&f.at, "at", "", "do not begin before `TIME`: 2006-01-02T15:04:05+09:00, or 2006-01-02 15:04 local time")
	fl.StringArrayVar(&f.set, "set", nil, "give a template variable one value for everybody: `K=V`, repeatable")
	fl.StringVar(&f.replyTo, "reply-to", "", "where answers go: `ADDR` or 'Name <addr>'")
	fl.StringArrayVar(&f.header, "header", nil, "a further header field: `'Name: value'`, may hold {{.column}}, repeatable")
	fl.StringArrayVar(&f.attach, "attach", nil, "attach a `FILE` to every mail, repeatable")
	fl.StringArrayVar(&f.inline, "inline", nil, "an image `FILE` that the HTML shows as cid:NAME, repeatable")
	fl.StringVar(&f.key, "key", "", "idempotency `KEY`: the same key never becomes a second send")
	fl.StringVar(&f.encoding, "encoding", "", "the list's `ENCODING`, where it is not found out: "+strings.Join(list.Encodings(), ", "))
	fl.BoolVar(&f.wait, "wait", false, "follow until every recipient has a final outcome")
	fl.BoolVar(&f.dryRun, "dry-run", false, "check and render every row, enqueue nothing")
	fl.BoolVar(&f.json, "json", false, "print one JSON object, the last line of stdout")
	completeFlag(cmd, "template", completeTemplate)
	completeFlag(cmd, "stream", completeStream())
	return cmd
}

func (a *app) send(ctx context.Context, f sendFlags) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	req, cleanup, err := a.request(ctx, cfg, f)
	if err != nil {
		return err
	}
	defer cleanup()
	if f.dryRun {
		return a.dryRun(ctx, cfg, req, f.json)
	}
	target, err := cfg.Redis.Target()
	if err != nil {
		return usageError(err)
	}
	if target.Embedded {
		return a.sendEmbedded(ctx, cfg, req, f)
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
	if err := checkServer(ctx, cfg, q, log); err != nil {
		return err
	}
	suppressed, closer, err := suppression(cfg)
	if err != nil {
		return err
	}
	defer closer.Close()
	req.Suppress = suppressed
	res, err := a.enqueue(ctx, q, req)
	if err != nil {
		return err
	}
	resend := cfg.Streams.Of(req.Stream).OnUnknown == config.Resend
	if !f.wait {
		return a.enqueued(ctx, q, res, resend, f.json)
	}
	s, err := follow(ctx, q, res.Campaign, resend, newFollower(a.err, nil))
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("no longer following; the campaign goes on: sluice campaign show %s", res.Campaign.Name)
	}
	if err != nil {
		return err
	}
	return a.finished(s, f.json)
}

// request turns flags and configuration into a send.
func (a *app) request(ctx context.Context, cfg *config.Config, f sendFlags) (r producer.Request, cleanup func(), err error) {
	cleanup = func() {}
	if f.to == "" || f.template == "" {
		return r, cleanup, usageError(errors.New("--to and --template are needed; see sluice send --help"))
	}
	if r.Template, err = templates.Load(f.template); err != nil {
		return r, cleanup, usageError(err)
	}
	if r.Stream, err = streamOf(f.stream, r.Template); err != nil {
		return r, cleanup, usageError(err)
	}
	if r.Options, err = templateOptions(cfg, f); err != nil {
		return r, cleanup, usageError(err)
	}
	r.Options.Stream, r.Relay, r.Canary = r.Stream, relayID(cfg.Relay), canary(cfg.Streams.Of(r.Stream).Canary)
	if r.Start, err = parseTime(f.at); err != nil {
		return r, cleanup, usageError(err)
	}
	r.Name, r.Key, r.Encoding = f.name, f.key, f.encoding
	if f.encoding != "" && !slices.Contains(list.Encodings(), f.encoding) {
		return r, cleanup, usageError(fmt.Errorf("--encoding %q: want one of %s", f.encoding, strings.Join(list.Encodings(), ", ")))
	}
	r.Progress = func(rows int) { fmt.Fprintf(a.err, "\rread %d rows", rows) }
	if !isTerminal(a.err) {
		r.Progress = nil
	}
	r.List, cleanup, err = a.list(ctx, f.to)
	return r, cleanup, err
}

func streamOf(flag string, t *templates.Template) (mail.Stream, error) {
	if flag != "" {
		return mail.ParseStream(flag)
	}
	if s := t.Info().Stream; s != "" {
		return s, nil
	}
	return mail.Normal, nil
}

func templateOptions(cfg *config.Config, f sendFlags) (templates.Options, error) {
	o := templates.Options{Sender: templates.Sender(cfg.Sender)}
	var err error
	if o.Set, err = parseSet(f.set); err != nil {
		return o, err
	}
	if cfg.Relay.Loopback() && o.Sender == (templates.Sender{}) {
		o.Sender = templates.SampleSender() // a rehearsal: nobody outside will see it
	}
	from := f.from
	if from == "" {
		from = cfg.Sender.Email
	}
	if from == "" {
		return o, errors.New("--from is needed (or sender.email in the configuration)")
	}
	box, err := mailbox("--from", from)
	if err != nil {
		return o, err
	}
	if o.From = box; o.From.Name == "" && f.from == "" {
		o.From.Name = cfg.Sender.Name
	}
	return o, f.extras(&o)
}

// mailbox reads an address, perhaps with a display name.
func mailbox(flag, s string) (templates.Mailbox, error) {
	parsed, err := netmail.ParseAddress(s)
	if err != nil {
		return templates.Mailbox{}, fmt.Errorf("%s %q: want an address, or 'Name <address>'", flag, s)
	}
	addr, err := mail.ParseAddress(parsed.Address)
	if err != nil {
		return templates.Mailbox{}, fmt.Errorf("%s %q: %w", flag, s, err)
	}
	return templates.Mailbox{Name: parsed.Name, Address: addr}, nil
}

// extras adds what not every mail has.
func (f *sendFlags) extras(o *templates.Options) error {
	if f.replyTo != "" {
		box, err := mailbox("--reply-to", f.replyTo)
		if err != nil {
			return err
		}
		o.ReplyTo = &box
	}
	for _, h := range f.header {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("--header %q: want 'Name: value'", h)
		}
		o.Headers = append(o.Headers, templates.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	for _, files := range []struct {
		flag   string
		paths  []string
		inline bool
	}{{"--attach", f.attach, false}, {"--inline", f.inline, true}} {
		for _, path := range files.paths {
			a, err := templates.LoadAttachment(path, files.inline)
			if err != nil {
				return fmt.Errorf("%s: %w", files.flag, err)
			}
			o.Attachments = append(o.Attachments, a)
		}
	}
	return nil
}

// parseTime reads --at.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--at %q: want 2006-01-02T15:04:05+09:00, or 2006-01-02 15:04 in local time", s)
}

// enqueue sends and tells what was found at the door.
func (a *app) enqueue(ctx context.Context, q *queue.Queue, r producer.Request) (*producer.Result, error) {
	res, err := producer.Send(ctx, q, r)
	if err != nil {
		return nil, inputError(err)
	}
	a.tell(res)
	return res, nil
}

// inputError maps the producer's errors to exit codes.
func inputError(err error) error {
	var in *producer.InputError
	if errors.As(err, &in) {
		return usageError(err)
	}
	return err
}

// tell writes to stderr what people want to know of a send.
func (a *app) tell(res *producer.Result) {
	if isTerminal(a.err) {
		fmt.Fprint(a.err, "\r")
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(a.err, "warning: %s\n", w)
	}
	for _, f := range res.Faults {
		fmt.Fprintf(a.err, "line %d: %s: %s: %s\n", f.Line, mail.Mask(f.Address), f.Outcome, f.Reason)
	}
	if n := res.Door.Invalid + res.Door.Duplicate + res.Door.Suppressed; n > len(res.Faults) && len(res.Faults) > 0 {
		fmt.Fprintf(a.err, "… and %d more: sluice campaign report %s\n", n-len(res.Faults), res.Campaign.Name)
	}
	verb := "enqueued"
	if res.Existing {
		verb = "this send was made before; it is not sent again. It has"
	}
	suppressed := ""
	if n := res.Door.Suppressed; n > 0 {
		suppressed = fmt.Sprintf(", %d suppressed", n)
	}
	fmt.Fprintf(a.err, "%s: %s %d of %d recipients (%d invalid, %d duplicate%s)\n", res.Campaign.Name, verb,
		res.Door.Queued(), res.Door.Recipients, res.Door.Invalid, res.Door.Duplicate, suppressed)
}

// enqueued ends a send that does not wait.
func (a *app) enqueued(ctx context.Context, q *queue.Queue, res *producer.Result, resend, asJSON bool) error {
	s, err := q.Summary(ctx, res.Campaign, resend)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.out, newSummaryJSON(s, time.Now()))
	}
	fmt.Fprintf(a.out, "%s\n", res.Campaign.Name)
	fmt.Fprintf(a.err, "follow it: sluice campaign show %s\n", res.Campaign.Name)
	return nil
}

// dryRun checks and renders every row.
func (a *app) dryRun(ctx context.Context, cfg *config.Config, r producer.Request, asJSON bool) error {
	closer, err := a.lookAhead(ctx, cfg, &r)
	if err != nil {
		return err
	}
	defer closer.Close()
	res, err := producer.Check(ctx, r)
	if err != nil {
		return inputError(err)
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(a.err, "warning: %s\n", w)
	}
	for _, f := range res.Faults {
		fmt.Fprintf(a.err, "line %d: %s: %s: %s\n", f.Line, mail.Mask(f.Address), f.Outcome, f.Reason)
	}
	d := res.Door
	if asJSON {
		err = writeJSON(a.out, map[string]any{"campaign": res.Campaign.Name, "stream": r.Stream, "dry_run": true,
			"recipients": d.Recipients, "invalid": d.Invalid, "duplicate": d.Duplicate, "suppressed": d.Suppressed, "sendable": d.Queued(),
			"suppression_checked": r.Suppress != nil})
	} else {
		_, err = fmt.Fprintf(a.out, "dry run: %d rows, %d would be sent, %d invalid, %d duplicate, %d suppressed; nothing was enqueued\n",
			d.Recipients, d.Queued(), d.Invalid, d.Duplicate, d.Suppressed)
	}
	if err == nil && d.Invalid > 0 {
		err = &exitError{code: exitPartial}
	}
	return err
}
