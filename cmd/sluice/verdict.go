package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/verdict"
)

// verdictOptions are the flags of sluice verdict.
type verdictOptions struct {
	stage, rules, file string
	json               bool
}

func (a *app) verdictCommand() *cobra.Command {
	var o verdictOptions
	c := &cobra.Command{
		Use:   `verdict [REPLY]`,
		Short: "Say what a mail server's reply means, and which rule says so",
		Long: `Judges a reply as the workers do: with the rules that come with the program and,
before them, those of verdicts.file in the configuration or of --rules.

REPLY is the reply as a server or a log has it, with its code; several lines and
the form of delivery reports ("smtp; 550 …") are understood. With --file, every
line of a file with tabs between the columns stage, code, enhanced and text is
judged; a first line may name these columns in another order, and further ones.`,
		Example: `  sluice verdict --stage rcpt "550 5.2.1 The email account that you tried to reach is disabled"
  sluice verdict --file replies.tsv --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) == 1) == (o.file != "") || len(args) > 1 {
				return usageError(fmt.Errorf("verdict takes one reply in quotes, or --file; it has %d arguments", len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.verdict(cmd.Context(), o, args) },
	}
	c.Flags().StringVar(&o.stage, "stage", "", "judge as a reply at this `STAGE`: connect, ehlo, auth, mail, rcpt, data, eod or any (default: what the reply says, else any)")
	c.Flags().StringVar(&o.rules, "rules", "", "put the rules of `FILE` first (default: verdicts.file of the configuration)")
	c.Flags().StringVar(&o.file, "file", "", "judge all replies of `FILE` (- for standard input)")
	c.Flags().BoolVar(&o.json, "json", false, "print JSON: one object a reply")
	var stages []string
	for _, s := range verdict.Stages() {
		stages = append(stages, string(s))
	}
	completeFlag(c, "stage", completeWord(stages...))
	return c
}

func (a *app) verdict(ctx context.Context, o verdictOptions, args []string) error {
	c, err := a.readConfig()
	if err != nil {
		return err
	}
	if o.rules == "" {
		o.rules = c.Verdicts.File
	}
	rules, err := verdict.Load(o.rules)
	if err != nil {
		return usageError(err)
	}
	stage, err := verdict.ParseStage(o.stage)
	if err != nil {
		return usageError(fmt.Errorf("--stage: %w", err))
	}
	j := judge{rules: rules, preset: string(c.Relay.Preset)}
	if o.file != "" {
		return a.verdicts(ctx, &j, o, stage)
	}
	in := verdict.ParseReply(args[0])
	if o.stage != "" {
		in.Stage = stage
	}
	w := j.judge(in)
	if o.json {
		return a.printJSON(w)
	}
	return a.printVerdict(w)
}

// judge is the rules and what they need to know beside the reply.
type judge struct {
	rules  *verdict.Rules
	preset string
}

// judged is one reply and its verdict.
type judged struct {
	Stage       verdict.Stage  `json:"stage"`
	Code        int            `json:"code"` // 0: the reply has none
	Enhanced    string         `json:"enhanced"`
	Text        string         `json:"text"`
	Action      verdict.Action `json:"action"` // "" for a reply that refuses nothing
	Reach       verdict.Reach  `json:"reach"`
	Rule        string         `json:"rule"`
	Origin      string         `json:"origin,omitempty"` // file and line of the rule
	Phrase      string         `json:"phrase,omitempty"` // what of the rule was found in the text
	Why         string         `json:"why"`
	WaitSeconds float64        `json:"wait_seconds,omitempty"`
	Known       bool           `json:"known"`
	Expected    verdict.Action `json:"expected,omitempty"` // the file's column "action"

	status string // the enhanced code that counted
}

func (j *judge) judge(in verdict.Input) judged {
	in.Preset = j.preset
	e := j.rules.Explain(in)
	return judged{Stage: in.Stage, Code: in.Code, Enhanced: in.Enhanced, Text: in.Text,
		Action: e.Action, Reach: e.Reach, Rule: e.Rule, Origin: e.Origin, Phrase: e.Phrase, Why: e.Why,
		WaitSeconds: e.Wait.Seconds(), Known: e.Known, status: e.Enhanced}
}

func (a *app) printVerdict(j judged) error {
	if j.Action == "" {
		_, err := fmt.Fprintln(a.out, "accepted: the reply refuses nothing")
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s\n", j.Action, j.Why)
	fmt.Fprintf(w, "reach\t%s\n", j.Reach)
	if j.WaitSeconds > 0 {
		fmt.Fprintf(w, "wait\t%v, as the reply asks\n", time.Duration(j.WaitSeconds*float64(time.Second)))
	}
	fmt.Fprintf(w, "then\t%s\n", whatHappens(j))
	fmt.Fprintf(w, "rule\t%s (%s)\n", j.Rule, j.Origin)
	if j.Phrase != "" {
		fmt.Fprintf(w, "phrase\t%s\n", j.Phrase)
	}
	fmt.Fprintf(w, "read as\tstage %s, code %s, enhanced %s, %q\n", j.Stage, orNone(strconv.Itoa(j.Code)), orNone(j.status), j.Text)
	if !j.Known {
		fmt.Fprintf(w, "unknown\tno rule knows this reply; docs/verdicts.md says how to add one\n")
	}
	return w.Flush()
}

func orNone(s string) string {
	if s == "" || s == "0" {
		return "none"
	}
	return s
}

// whatHappens says in a line what the workers do about a reply.
func whatHappens(j judged) string {
	switch j.Action {
	case verdict.Retry:
		return "sent again later, by the stream's schedule"
	case verdict.RetrySlow:
		return fmt.Sprintf("sent again much later; reach %s is slowed down", j.Reach)
	case verdict.ThrottleConnection:
		return "sent again, no attempt counted; fewer or slower connections"
	case verdict.Suppress:
		return "rejected, and the address goes on the suppression list"
	case verdict.Fail:
		return "rejected; the address stays good"
	}
	held := "the stream is held"
	switch j.Reach {
	case verdict.Campaign:
		held = "the campaign is held"
	case verdict.Destination:
		held = "the destination is held"
	case verdict.Relay:
		held = "every stream is held"
	}
	if j.Stage.Session() {
		return held + " at once, until an operator resumes it; no attempt counted"
	}
	return "this mail is rejected; " + held + " when it repeats"
}

// verdicts judges the replies of a file, in order.
func (a *app) verdicts(ctx context.Context, j *judge, o verdictOptions, stage verdict.Stage) error {
	src, err := a.openInput(ctx, o.file)
	if err != nil {
		return err
	}
	defer src.Close()
	out := bufio.NewWriter(a.out)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	expected, differ := 0, 0
	err = readReplies(ctx, src, inputName(o.file), func(in verdict.Input, want verdict.Action) error {
		if o.stage != "" {
			in.Stage = stage
		}
		r := j.judge(in)
		r.Expected = want
		note := ""
		if want != "" {
			if expected++; want != r.Action {
				differ++
				note = "expected " + string(want)
			}
		}
		if o.json {
			return enc.Encode(r)
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Action, r.Reach, r.Rule, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Stage, orNone(strconv.Itoa(r.Code)), r.Enhanced, r.Text)), note)
		return err
	})
	if err := errors.Join(err, table.Flush(), out.Flush()); err != nil {
		return err
	}
	if expected > 0 {
		_, err = fmt.Fprintf(a.err, "%d of %d as the column action says\n", expected-differ, expected)
	}
	return err
}

// maxReplyLine bounds a line of a file of replies, in bytes.
const maxReplyLine = 1 << 20

// readReplies reads a TSV file in UTF-8. Empty lines and those that begin with # are left
// out; errors name the line.
func readReplies(ctx context.Context, in io.Reader, name string, each func(verdict.Input, verdict.Action) error) error {
	columns := replyColumns()
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, maxReplyLine)
	for n, first := 1, true; scan.Scan(); n++ {
		if ctx.Err() != nil { // what the scanner gives then may be half a line
			return fmt.Errorf("read %s: %w", name, errInterrupted)
		}
		at := func(err error) error { return usageError(fmt.Errorf("%s:%d: %w", name, n, err)) }
		line := strings.TrimSuffix(scan.Text(), "\r")
		if !utf8.ValidString(line) {
			return at(errors.New("not UTF-8: save the file in that encoding"))
		}
		if first { // comments may have been put before what an editor marked as UTF-8
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		header := first && slices.ContainsFunc(fields, func(f string) bool { return slices.Contains(replyColumns(), f) })
		first = false
		if header {
			if err := checkColumns(fields); err != nil {
				return at(err)
			}
			columns = fields
			continue
		}
		reply, want, err := parseRow(columns, fields)
		if err != nil {
			return at(err)
		}
		if err := each(reply, want); err != nil {
			return fmt.Errorf("write verdict: %w", err)
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// replyColumns are what a verdict follows from, in the order of a file without a header.
func replyColumns() []string { return []string{"stage", "code", "enhanced", "text"} }

// checkColumns refuses a header that lacks a column, for one that is spelt otherwise must
// not go unread, or that has one twice.
func checkColumns(header []string) error {
	for _, column := range append(replyColumns(), "action") {
		n := 0
		for _, name := range header {
			if name == column {
				n++
			}
		}
		switch {
		case n > 1:
			return fmt.Errorf("the header has the column %s %d times: want it once", column, n)
		case n == 0 && column != "action":
			return fmt.Errorf("the header has no column %s: want %s, in any order; others may stand beside them", column, strings.Join(replyColumns(), ", "))
		}
	}
	return nil
}

func parseRow(columns, fields []string) (in verdict.Input, want verdict.Action, err error) {
	in.Stage = verdict.Any
	for i, column := range columns {
		if i >= len(fields) {
			break
		}
		switch value := fields[i]; column {
		case "stage":
			in.Stage, err = verdict.ParseStage(value)
		case "code":
			if value != "" {
				in.Code, err = strconv.Atoi(value)
			}
		case "enhanced":
			in.Enhanced = value
		case "text":
			in.Text = value
		case "action":
			want = verdict.Action(value)
		}
		if err != nil {
			return in, want, fmt.Errorf("column %s: %w", column, err)
		}
	}
	return in, want, nil
}
