package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemail/sluice/internal/config"
	"github.com/sluicemail/sluice/internal/list"
	"github.com/sluicemail/sluice/internal/mail"
	"github.com/sluicemail/sluice/internal/queue"
	"github.com/sluicemail/sluice/internal/suppress"
	"github.com/sluicemail/sluice/producer"
)

// suppressFlags are the flags of the `sluice suppress` commands.
type suppressFlags struct {
	stream, reason, encoding, out string
	dryRun, json                  bool
}

func (a *app) suppressCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "suppress", Short: "Add to, remove from, look into, import and export the suppression list", Args: noCommand,
		Long: `The suppression list says who gets no mail, and why. It is looked at when a list is
read (those on it are counted as suppressed) and again just before sending.

An entry bars an address from all mail or, with --stream, from one stream: somebody
who refused advertising is on the list for ad, and still gets login codes (auth) and
receipts (normal). An entry for all streams stops those too.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.suppressAddCommand(), a.suppressRemoveCommand(), a.suppressCheckCommand(), a.suppressImportCommand(), a.suppressExportCommand())
	return cmd
}

// suppressSub makes one of the commands, with --json and, where it has one, --stream.
func suppressSub(cmd *cobra.Command, f *suppressFlags, stream string) *cobra.Command {
	cmd.Flags().BoolVar(&f.json, "json", false, "machine-readable output")
	if stream != "" {
		cmd.Flags().StringVar(&f.stream, "stream", "", stream)
		completeFlag(cmd, "stream", completeStream())
	}
	return cmd
}

func (a *app) suppressAddCommand() *cobra.Command {
	var f suppressFlags
	cmd := suppressSub(&cobra.Command{
		Use: "add ADDRESS...", Short: "Put addresses on the list",
		Long: `Put addresses on the list. Nothing is overwritten: who is on it already for the same
stream keeps the earlier entry with its reason, and that is said.`,
		Args: someAddresses, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return a.suppressAdd(cmd.Context(), args, f) },
	}, &f, "bar them from one `STREAM` only: auth, normal or ad (default: from all)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, in a few `WORDS`")
	return cmd
}

func (a *app) suppressRemoveCommand() *cobra.Command {
	var f suppressFlags
	return suppressSub(&cobra.Command{
		Use: "remove ADDRESS...", Short: "Take addresses off the list",
		Long: `Take addresses off the list: the entry for all streams or, with --stream, the one for
that stream. Never both at once, so that who refused advertising does not lose that
with an old bounce; what still bars an address is said.`,
		Args: someAddresses, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return a.suppressRemove(cmd.Context(), args, f) },
	}, &f, "remove the entry for one `STREAM`: auth, normal or ad (default: the one for all)")
}

func (a *app) suppressCheckCommand() *cobra.Command {
	var f suppressFlags
	return suppressSub(&cobra.Command{
		Use: "check ADDRESS...", Short: "Say who is on the list, since when and why",
		Long: `Say who is on the list, since when and why. The exit code is 0 if none of the addresses
is, and 3 if one or more are. With --stream, entries for other streams do not count.`,
		Args: someAddresses, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return a.suppressCheck(cmd.Context(), args, f) },
	}, &f, "look at what bars mail of one `STREAM`: auth, normal or ad (default: of any)")
}

func (a *app) suppressImportCommand() *cobra.Command {
	var f suppressFlags
	cmd := suppressSub(&cobra.Command{
		Use: "import FILE|-", Short: "Add the addresses of a file: CSV, TSV or JSON Lines",
		Long: `Add the addresses of a file: CSV or TSV with a header row, or JSON Lines. The column
email is needed; stream (all, auth, normal or ad), reason, source, time and detail are
taken where there are any, so what export writes can be read back. A bad row is named
with its line and stops nobody else; the exit code is then 3. Importing a file again
changes nothing.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return a.suppressImport(cmd.Context(), args[0], f) },
	}, &f, "for rows that name none: bar from one `STREAM`, auth, normal or ad (default: from all)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "for rows that give none: why, in a few `WORDS`")
	cmd.Flags().StringVar(&f.encoding, "encoding", "", "the file's `ENCODING`, where it is not found out: "+strings.Join(list.Encodings(), ", "))
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "read and check every row, add nothing; needs no Redis")
	return cmd
}

func (a *app) suppressExportCommand() *cobra.Command {
	var f suppressFlags
	cmd := &cobra.Command{
		Use: "export", Short: "Write the whole list, with full addresses, as CSV or JSON Lines",
		Long: `Write the whole list, with full addresses, as CSV or, with --json, JSON Lines. In CSV, what
a spreadsheet would take for a formula gets a ' in front of it, which import takes off.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.suppressExport(cmd.Context(), f) },
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "JSON Lines instead of CSV")
	cmd.Flags().StringVar(&f.out, "out", "", "write to `FILE`, readable by you alone, instead of standard output")
	return cmd
}

// someAddresses are the arguments of commands on addresses.
func someAddresses(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError(fmt.Errorf("%s takes one address or more", cmd.CommandPath()))
	}
	return nil
}

func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(fmt.Errorf("%s takes one file, or - for standard input, not %d arguments", cmd.CommandPath(), len(args)))
	}
	return nil
}

// suppression opens the suppression list of the configured Redis.
func suppression(cfg *config.Config) (*suppress.List, io.Closer, error) {
	conn, err := connection(cfg.Redis)
	if err != nil {
		return nil, nil, err
	}
	rdb := conn.Client()
	return suppress.New(rdb, cfg.Redis.Prefix), rdb, nil
}

// onSuppression runs f on the suppression list of a Redis that answers.
func (a *app) onSuppression(ctx context.Context, f func(*suppress.List) error) error {
	return a.onQueue(ctx, func(cfg *config.Config, _ *queue.Queue) error {
		l, closer, err := suppression(cfg)
		if err != nil {
			return err
		}
		defer closer.Close()
		return f(l)
	})
}

// lookAheadWithin is how long a dry run, which needs no Redis, waits for one.
const lookAheadWithin = 2 * time.Second

// lookAhead gives a dry run the suppression list, where Redis answers.
func (a *app) lookAhead(ctx context.Context, cfg *config.Config, r *producer.Request) (io.Closer, error) {
	target, err := cfg.Redis.Target()
	if err != nil {
		return nil, usageError(err)
	}
	if target.Embedded { // nobody is on its list
		return io.NopCloser(nil), nil
	}
	suppressed, closer, err := suppression(cfg)
	if err != nil {
		return nil, err
	}
	soon, cancel := context.WithTimeout(ctx, lookAheadWithin)
	defer cancel()
	if _, err := suppressed.Empty(soon); err != nil {
		fmt.Fprintf(a.err, "warning: the suppression list was not looked at: %v\n", err)
		return closer, nil
	}
	r.Suppress = suppressed
	return closer, nil
}

// parse reads the addresses and the scope of a command line. One wrong address is
// enough for nothing to be done.
func (f *suppressFlags) parse(args []string) ([]mail.Address, suppress.Scope, error) {
	scope, err := suppress.ParseScope(f.stream)
	if err != nil {
		return nil, scope, usageError(fmt.Errorf("--%w", err))
	}
	var out []mail.Address
	for _, s := range args {
		addr, err := mail.ParseAddress(s)
		if err != nil {
			return nil, scope, usageError(fmt.Errorf("%q: %w", s, err))
		}
		out = append(out, addr)
	}
	return out, scope, nil
}

// scopeText is a scope in a sentence.
func scopeText(s suppress.Scope) string {
	if s == suppress.All {
		return "all streams"
	}
	return s.String()
}

// entryText tells all of an entry but the address.
func entryText(e suppress.Entry) string {
	if e.Detail == "" {
		return e.Why()
	}
	return e.Why() + ": " + e.Detail
}

// addedJSON is what stands on the list after `suppress add`.
type addedJSON struct {
	suppress.Row
	Added bool `json:"added"`
}

func (a *app) suppressAdd(ctx context.Context, args []string, f suppressFlags) error {
	addrs, scope, err := f.parse(args)
	if err != nil {
		return err
	}
	if err := suppress.CheckReason(f.reason); err != nil {
		return usageError(fmt.Errorf("--reason: %w", err))
	}
	entries := make([]suppress.Entry, len(addrs))
	for i, addr := range addrs {
		entries[i] = suppress.Entry{Address: addr, Scope: scope, Reason: f.reason, Source: suppress.ByOperator}
	}
	return a.onSuppression(ctx, func(l *suppress.List) error {
		changes, err := l.Add(ctx, entries...)
		if err != nil {
			return err
		}
		found, err := l.Find(ctx, addrs...)
		if err != nil {
			return err
		}
		for i, change := range changes {
			at := slices.IndexFunc(found[i], func(e suppress.Entry) bool { return e.Scope == scope })
			if at < 0 {
				return fmt.Errorf("%s was added and removed again at the same time", addrs[i].Masked())
			}
			if err := a.printAdded(found[i][at], change != suppress.Known, f.json); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) printAdded(e suppress.Entry, added, asJSON bool) error {
	if asJSON {
		return writeJSON(a.out, addedJSON{suppress.NewRow(e), added})
	}
	text := fmt.Sprintf("added for %s: %s", scopeText(e.Scope), e.Reason)
	if !added {
		text = "was there and stays as it is: " + entryText(e)
	}
	_, err := fmt.Fprintf(a.out, "%s: %s\n", e.Address, text)
	return err
}

// removedJSON is what `suppress remove` did with an address.
type removedJSON struct {
	Email   string         `json:"email"`
	Stream  string         `json:"stream"`
	Removed bool           `json:"removed"`
	Left    []suppress.Row `json:"left"`
}

func (a *app) suppressRemove(ctx context.Context, args []string, f suppressFlags) error {
	addrs, scope, err := f.parse(args)
	if err != nil {
		return err
	}
	return a.onSuppression(ctx, func(l *suppress.List) error {
		for _, addr := range addrs {
			removed, err := l.Remove(ctx, scope, addr)
			if err != nil {
				return err
			}
			left, err := l.Find(ctx, addr)
			if err != nil {
				return err
			}
			if f.json {
				err = writeJSON(a.out, removedJSON{addr.String(), scope.String(), len(removed) > 0, rows(left[0])})
			} else {
				err = a.printRemoved(addr, scope, removed, left[0])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func rows(entries []suppress.Entry) []suppress.Row {
	out := make([]suppress.Row, 0, len(entries))
	for _, e := range entries {
		out = append(out, suppress.NewRow(e))
	}
	return out
}

func (a *app) printRemoved(addr mail.Address, scope suppress.Scope, removed, left []suppress.Entry) error {
	text := "was not on the list for " + scopeText(scope)
	if len(removed) > 0 {
		text = "removed: " + entryText(removed[0])
	}
	for _, e := range left {
		text += "\n  still gets no mail of " + scopeText(e.Scope) + ": " + entryText(e)
	}
	_, err := fmt.Fprintf(a.out, "%s: %s\n", addr, text)
	return err
}

// checkedJSON is what `suppress check` found of an address.
type checkedJSON struct {
	Email      string         `json:"email"`
	Suppressed bool           `json:"suppressed"`
	Entries    []suppress.Row `json:"entries"`
}

func (a *app) suppressCheck(ctx context.Context, args []string, f suppressFlags) error {
	addrs, scope, err := f.parse(args)
	if err != nil {
		return err
	}
	return a.onSuppression(ctx, func(l *suppress.List) error {
		found, err := l.Find(ctx, addrs...)
		if err != nil {
			return err
		}
		barred := false
		for i, entries := range found {
			if scope != suppress.All {
				entries = slices.DeleteFunc(entries, func(e suppress.Entry) bool { return e.Scope != suppress.All && e.Scope != scope })
			}
			barred = barred || len(entries) > 0
			if f.json {
				err = writeJSON(a.out, checkedJSON{addrs[i].String(), len(entries) > 0, rows(entries)})
			} else {
				err = a.printChecked(addrs[i], entries)
			}
			if err != nil {
				return err
			}
		}
		if barred {
			return &exitError{code: exitPartial}
		}
		return nil
	})
}

func (a *app) printChecked(addr mail.Address, entries []suppress.Entry) error {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s: gets no mail of %s: %s\n", addr, scopeText(e.Scope), entryText(e))
	}
	if len(entries) == 0 {
		fmt.Fprintf(&b, "%s: not on the list\n", addr)
	}
	_, err := io.WriteString(a.out, b.String())
	return err
}
