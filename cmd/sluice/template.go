package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/templates"
)

func (a *app) templateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "template",
		Short: "List, check and preview templates",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.templateListCommand(), a.templateCheckCommand(), a.templatePreviewCommand())
	return c
}

func (a *app) templateListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the templates that come with the program",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			all := templates.Shipped()
			if asJSON {
				return a.printJSON(all)
			}
			w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTREAM\tLANGUAGE\tCOLUMNS\tOPTIONAL\tDESCRIPTION")
			for _, i := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", i.Name, i.Stream, i.Language,
					strings.Join(neededColumns(i), ","), strings.Join(i.Optional, ","), i.Description)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// neededColumns are the columns that a list for the template must have.
func neededColumns(i templates.Info) []string {
	columns := []string{"email"}
	for _, v := range i.Variables {
		if !slices.Contains(i.Optional, v) {
			columns = append(columns, v)
		}
	}
	return columns
}

// trial is what check and preview share: a template filled with sample values
// and the sample sender.
type trial struct {
	set    []string
	stream string
	json   bool
}

func (t *trial) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&t.set, "set", nil, "give a variable a value, as `NAME=VALUE`; the others get samples")
	c.Flags().StringVar(&t.stream, "stream", "", "check as mail of this `STREAM` (default: the template's own, else normal)")
	c.Flags().BoolVar(&t.json, "json", false, "print JSON")
	completeFlag(c, "stream", completeStream())
}

// trialResult is one rendered sample.
type trialResult struct {
	Name      string      `json:"name"`
	Version   string      `json:"version"`
	Stream    mail.Stream `json:"stream"`
	Columns   []string    `json:"columns"`
	Optional  []string    `json:"optional"`
	Subject   string      `json:"subject"`
	Bytes     int         `json:"bytes"`
	HTMLBytes int         `json:"html_bytes"`
	Warnings  []string    `json:"warnings"`

	preview templates.Preview
	message []byte
}

func (t *trial) run(nameOrPath string) (*trialResult, error) {
	tmpl, err := templates.Load(nameOrPath)
	if errors.Is(err, templates.ErrUnknown) {
		return nil, usageError(err)
	}
	if err != nil {
		return nil, err
	}
	stream, err := mail.ParseStream(cmp.Or(t.stream, string(tmpl.Info().Stream), string(mail.Normal)))
	if err != nil {
		return nil, usageError(err)
	}
	set, err := parseSet(t.set)
	if err != nil {
		return nil, usageError(err)
	}
	from, err := mail.ParseAddress(templates.SampleSender().Email)
	if err != nil {
		return nil, err
	}
	p, err := tmpl.Compile(templates.Options{
		From:   templates.Mailbox{Name: templates.SampleSender().Name, Address: from},
		Sender: templates.SampleSender(),
		Stream: stream,
		Set:    set,
	})
	if err != nil {
		return nil, err
	}
	r := &trialResult{Name: tmpl.Name(), Version: tmpl.Version(), Stream: stream,
		Columns: neededColumns(tmpl.Info()), Optional: append([]string{}, tmpl.Optional()...),
		Warnings: append([]string{}, p.Warnings()...)}
	if r.preview, err = p.Preview(p.Sample()); err != nil {
		return nil, err
	}
	if r.message, err = p.Render(nil, p.Sample()); err != nil {
		return nil, err
	}
	r.Subject, r.Bytes, r.HTMLBytes = r.preview.Subject, len(r.message), len(r.preview.HTML)
	return r, nil
}

// parseSet reads NAME=VALUE arguments, each name once.
func parseSet(args []string) (map[string]string, error) {
	set := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--set %q: want NAME=VALUE", arg)
		}
		if _, twice := set[name]; twice {
			return nil, fmt.Errorf("--set %s: given twice", name)
		}
		set[name] = value
	}
	return set, nil
}

func (a *app) templateCheckCommand() *cobra.Command {
	var t trial
	c := &cobra.Command{
		Use:               "check NAME|FILE",
		Short:             "Check a template as if it were sent, with sample values",
		Args:              oneTemplate,
		ValidArgsFunction: completeFirst(completeTemplate),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := t.run(args[0])
			if err != nil {
				return err
			}
			if t.json {
				return a.printJSON(r)
			}
			fmt.Fprintf(a.out, "%s: ok (version %s)\n", r.Name, r.Version)
			fmt.Fprintf(a.out, "  stream     %s\n", r.Stream)
			fmt.Fprintf(a.out, "  columns    %s\n", strings.Join(r.Columns, ", "))
			if len(r.Optional) > 0 {
				fmt.Fprintf(a.out, "  optional   %s\n", strings.Join(r.Optional, ", "))
			}
			fmt.Fprintf(a.out, "  subject    %s\n", r.Subject)
			fmt.Fprintf(a.out, "  size       %d bytes, %d of them html before encoding\n", r.Bytes, r.HTMLBytes)
			for _, w := range r.Warnings {
				fmt.Fprintf(a.out, "  warning    %s\n", w)
			}
			return nil
		},
	}
	t.flags(c)
	return c
}

func (a *app) templatePreviewCommand() *cobra.Command {
	var t trial
	var html, eml string
	c := &cobra.Command{
		Use:               "preview NAME|FILE",
		Short:             "Show a template filled with sample values; its HTML and the whole mail go to files",
		Args:              oneTemplate,
		ValidArgsFunction: completeFirst(completeTemplate),
		RunE: func(_ *cobra.Command, args []string) error {
			if html == "-" && eml == "-" {
				return usageError(errors.New("--html and --eml cannot both go to standard output"))
			}
			r, err := t.run(args[0])
			if err != nil {
				return err
			}
			if html != "" {
				if err := a.writeResult(html, []byte(r.preview.HTML)); err != nil {
					return err
				}
			}
			if eml != "" {
				if err := a.writeResult(eml, r.message); err != nil {
					return err
				}
			}
			switch {
			case html == "-" || eml == "-":
				return nil
			case t.json:
				return a.printJSON(r)
			}
			_, err = fmt.Fprintf(a.out, "Subject: %s\n\n%s", r.Subject, r.preview.Text)
			return err
		},
	}
	t.flags(c)
	c.Flags().StringVar(&html, "html", "", "write the HTML to `FILE` (- for standard output)")
	c.Flags().StringVar(&eml, "eml", "", "write the whole mail to `FILE` (- for standard output)")
	return c
}

// writeResult writes to a file, or to standard output for "-".
func (a *app) writeResult(path string, b []byte) error {
	if path == "-" {
		_, err := a.out.Write(b)
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write preview: %w", err)
	}
	_, err := fmt.Fprintf(a.err, "wrote %s\n", path)
	return err
}

func oneTemplate(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(fmt.Errorf("%s takes one template, by name or file, but has %d arguments", cmd.CommandPath(), len(args)))
	}
	return nil
}
